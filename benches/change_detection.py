#!/usr/bin/env python3
"""What it costs to find out that nothing, or little, has changed: `pipe` beside ninja, find, b3sum and DVC.

    python3 benches/change_detection.py [--stages N] [--files N] [--only ROW]... [--skip-dvc]
                                        [--b3sum PATH] [--rounds N] [--work DIR] [--out FILE]

Uses the built `target/release/pipe`. Makes its pipelines, and a virtual environment with ninja and
DVC from PyPI, in a temporary folder (`--work` names one that is kept); without `--b3sum`, installs
b3sum there by cargo. Costs are CPU seconds, user and system, of a process and all it waited for:
they say more than wall time on a machine with other work. Tools take turns within a round; a figure
is the median over the rounds, of a first run the only one. `--out` takes every measurement as a line
of JSON. DVC is measured with 100 stages, because with 10,000 it takes hours.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIPE = str(ROOT / "target" / "release" / "pipe")
ROWS = ["version", "one", "noop-fan", "noop-chain", "first-fan", "first-chain", "folder", "touched"]
DVC_STAGES = 100
BIG = 2 << 30


class Bench:
    """Runs programs, notes what they cost, and gathers the lines of the table."""

    def __init__(self, options, work):
        self.options, self.work, self.table = options, work, []
        self.out = open(options.out, "a") if options.out else None
        self.environment = {name: value for name, value in os.environ.items() if name != "PIPE_ROOT"}

    def cost(self, row, tool, command, folder):
        """Runs `command` in `folder` and returns its CPU seconds, wall seconds and peak MiB."""
        started, null = time.perf_counter(), os.open(os.devnull, os.O_RDWR)
        os.chdir(folder)
        redirected = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1, 2)]
        child = os.posix_spawnp(command[0], command, self.environment, file_actions=redirected)
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - started
        os.close(null)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            sys.exit(f"{row}: `{' '.join(command)}` in {folder} ended with {code}")
        found = {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "mib": usage.ru_maxrss / 1024}
        if self.out:
            print(json.dumps({"row": row, "tool": tool, "load": os.getloadavg()[0], **found}), file=self.out, flush=True)
        return found

    def medians(self, row, tools):
        """The cost of each tool: `tools` maps names to functions, called in turn, the first time unmeasured."""
        for run in tools.values():
            run()
        rounds = [{name: run() for name, run in tools.items()} for _ in range(self.options.rounds)]
        return {name: {part: statistics.median(one[name][part] for one in rounds) for part in rounds[0][name]}
                for name in tools}

    def line(self, row, ours, theirs, limit, unit):
        """Adds a line: our figure, theirs (name and figure), and what ours may be."""
        name, other = theirs if theirs else ("", None)
        self.table.append((row, ours, name, other, limit, unit))
        print(f"  {row}: {ours:.4g} {unit}, may be {limit:.4g}", file=sys.stderr, flush=True)

    def project(self, name, text):
        """A fresh project with one pipeline."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "pipelines").mkdir(parents=True)
        (folder / "pipelines" / "p.yaml").write_text(text)
        return folder

    def pipe(self, row, folder):
        return lambda: self.cost(row, "pipe", [PIPE, "run", "pipelines/p.yaml"], folder)


def stages(count, shape):
    """A pipeline of `count` trivial commands: side by side, or each after the one before."""
    lines = ["stages:"]
    for at in range(count):
        takes = f"in: {{ x: s{at - 1} }}, " if shape == "chain" and at else ""
        reads = "; cat {in.x} >&2" if takes else ""
        lines.append(f'  s{at}: {{ kind: shell, {takes}with: {{ command: "echo {at} > {{out.o}}{reads}", outputs: [o] }} }}')
    return "\n".join(lines) + "\n"


def ninja_project(bench, name, count, shape):
    """The same work for ninja."""
    folder = bench.work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = ["rule r", "  command = $cmd"]
    for at in range(count):
        takes, reads = (f" o{at - 1}", f"; cat o{at - 1} >&2") if shape == "chain" and at else ("", "")
        lines += [f"build o{at}: r{takes}", f"  cmd = echo {at} > o{at}{reads}"]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")
    return folder


def tool(bench, name):
    """A program from PyPI."""
    environment = bench.work / "venv"
    if not (environment / "bin" / name).exists():
        if not environment.exists():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", name], check=True)
    return str(environment / "bin" / name)


def b3sum(bench):
    if bench.options.b3sum:
        return bench.options.b3sum
    if not (bench.work / "b3sum" / "bin" / "b3sum").exists():
        subprocess.run(["cargo", "install", "--quiet", "b3sum", "--root", bench.work / "b3sum"], check=True)
    return str(bench.work / "b3sum" / "bin" / "b3sum")


def version(bench, row):
    cost = bench.medians(row, {"pipe": lambda: bench.cost(row, "pipe", [PIPE, "--version"], bench.work)})
    bench.line("`pipe --version`", 1000 * cost["pipe"]["wall"], None, 10, "ms wall")


def one(bench, row):
    folder, theirs = bench.project(row, stages(1, "fan")), ninja_project(bench, row + "-ninja", 1, "fan")
    ninja = tool(bench, "ninja")
    cost = bench.medians(row, {"pipe": bench.pipe(row, folder),
                               "ninja": lambda: bench.cost(row, "ninja", [ninja], theirs)})
    bench.line("no-op of one stage", 1000 * cost["pipe"]["wall"], ("ninja", 1000 * cost["ninja"]["wall"]), 10, "ms wall")


def noop(bench, row):
    shape, count = row.split("-")[1], bench.options.stages
    folder, theirs = bench.project(row, stages(count, shape)), ninja_project(bench, row + "-ninja", count, shape)
    ninja = tool(bench, "ninja")
    bench.pipe(row + "-first", folder)()
    cost = bench.medians(row, {"pipe": bench.pipe(row, folder),
                               "ninja": lambda: bench.cost(row, "ninja", [ninja], theirs)})
    limit = 2 * cost["ninja"]["cpu"] + 0.05
    what = f"no-op, {count:,} stages, {shape}"
    bench.line(what, cost["pipe"]["cpu"], ("ninja", cost["ninja"]["cpu"]), limit, "CPU s")
    bench.line(what + ", memory", cost["pipe"]["mib"], ("ninja", cost["ninja"]["mib"]), 64, "MiB")
    if not bench.options.skip_dvc and shape == "fan":
        bench.line(f"no-op, {DVC_STAGES} stages, {shape}", *beside_dvc(bench, row), "CPU s")


def beside_dvc(bench, row):
    """Our no-op of a few stages, DVC's, and DVC's again as the limit."""
    folder, theirs = bench.project(row + "-few", stages(DVC_STAGES, "fan")), bench.work / (row + "-dvc")
    shutil.rmtree(theirs, ignore_errors=True)
    theirs.mkdir()
    dvc = tool(bench, "dvc")
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], cwd=theirs, check=True)
    lines = [f"  s{at}: {{ cmd: \"echo {at} > o{at}\", outs: [o{at}] }}" for at in range(DVC_STAGES)]
    (theirs / "dvc.yaml").write_text("\n".join(["stages:", *lines]) + "\n")
    cost = bench.medians(row, {"pipe": bench.pipe(row, folder),
                               "dvc": lambda: bench.cost(row, "dvc", [dvc, "repro", "--quiet"], theirs)})
    return cost["pipe"]["cpu"], ("dvc", cost["dvc"]["cpu"]), cost["dvc"]["cpu"]


def first(bench, row):
    shape, most = row.split("-")[1], bench.options.stages
    ninja, each = tool(bench, "ninja"), {}
    for count in (max(most // 10, 1), most):
        folder, theirs = bench.project(row, stages(count, shape)), ninja_project(bench, row + "-ninja", count, shape)
        ours = 1000 * bench.pipe(row, folder)()["cpu"] / count
        other = 1000 * bench.cost(row, "ninja", [ninja], theirs)["cpu"] / count
        bench.line(f"first run, {count:,} stages, {shape}", ours, ("ninja", other), 4, "CPU ms a stage")
        each[count] = ours
    small, large = each.values() if len(each) == 2 else (1, 1)
    bench.line(f"  a stage of {most:,} over one of {max(most // 10, 1):,}", large / small, None, 1.25, "×")


def folder(bench, row):
    count = bench.options.files
    project = bench.project(row, "stages:\n  count:\n    kind: shell\n    in: { data: { dir: data } }\n"
                            "    with: { command: \"ls {in.data} | wc -l > {out.n}\", outputs: [n] }\n")
    for at in range(count):
        if at % 1000 == 0:
            (project / "data" / f"{at // 1000:03}").mkdir(parents=True)
        (project / "data" / f"{at // 1000:03}" / f"{at}.txt").write_text(f"{at}\n")
    time.sleep(2.1)  # a file that was just written is not trusted by its stat
    find = ["find", "data", "-printf", "%s %T@\n"]
    bench.pipe(row, project)()
    cost = bench.medians(row, {"pipe": bench.pipe(row, project), "find": lambda: bench.cost(row, "find", find, project)})
    bench.line(f"no-op, folder of {count:,} files", cost["pipe"]["cpu"], ("find", cost["find"]["cpu"]),
               1.2 * cost["find"]["cpu"], "CPU s")
    changes = []
    for at in range(bench.options.rounds):
        (project / "data" / "000" / "7.txt").write_text(f"changed {at}\n")
        changes.append(bench.pipe(row + "-changed", project)()["cpu"])
    bench.line(f"one of {count:,} files changed", statistics.median(changes), ("no-op", cost["pipe"]["cpu"]),
               1.3 * cost["pipe"]["cpu"], "CPU s")


def touched(bench, row):
    project = bench.project(row, "stages:\n  size:\n    kind: shell\n    in: { big: { file: big.bin } }\n"
                            "    with: { command: \"wc -c < {in.big} > {out.n}\", outputs: [n] }\n")
    block = os.urandom(1 << 20)
    with open(project / "big.bin", "wb") as file:
        for at in range(BIG >> 20):
            file.write(at.to_bytes(8, "little") + block[8:])
    time.sleep(2.1)
    bench.pipe(row, project)()
    program, ours, theirs, after = b3sum(bench), [], [], []
    for _ in range(bench.options.rounds):
        os.utime(project / "big.bin")
        time.sleep(2.1)
        ours.append(bench.pipe(row, project)()["cpu"])
        after.append(bench.pipe(row + "-after", project)()["cpu"])
        theirs.append(bench.cost(row, "b3sum", [program, "big.bin"], project)["cpu"])
    ran = sqlite3.connect(project / "runs.db").execute("SELECT sum(ran) FROM run").fetchone()[0]
    other = statistics.median(theirs)
    bench.line("2 GiB file touched, same bytes", statistics.median(ours), ("b3sum", other), 1.2 * other, "CPU s")
    bench.line("  how often its stage ran", ran, None, 1, "times")
    bench.line("  the no-op after it", statistics.median(after), ("b3sum", other), 0.05, "CPU s")


MEASURE = {"version": version, "one": one, "noop-fan": noop, "noop-chain": noop, "first-fan": first,
           "first-chain": first, "folder": folder, "touched": touched}


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--skip-dvc", action="store_true")
    parser.add_argument("--b3sum", metavar="PATH")
    parser.add_argument("--work", metavar="DIR", type=Path)
    parser.add_argument("--out", metavar="FILE")
    options = parser.parse_args()
    if not Path(PIPE).exists():
        sys.exit("build it first: cargo build --release")
    options.out = os.path.abspath(options.out) if options.out else None
    work = (options.work or Path(tempfile.mkdtemp(prefix="change_detection_"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, work)
    try:
        for row in options.only or ROWS:
            MEASURE[row](bench, row)
    finally:
        os.chdir(ROOT)
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; load {load}\n")
    print("| | pipe | beside | ratio | may be | |\n|---|---:|---:|---:|---:|---|")
    for row, ours, name, other, limit, unit in bench.table:
        beside, ratio = (f"{name} {other:.3g}", f"{ours / other:.2f}") if other else ("", "")
        verdict = "pass" if ours <= limit else "**fail**"
        print(f"| {row} | {ours:.3g} {unit} | {beside} | {ratio} | {limit:.3g} | {verdict} |")
    return any(ours > limit for _, ours, _, _, limit, _ in bench.table)


if __name__ == "__main__":
    sys.exit(main())
