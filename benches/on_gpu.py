#!/usr/bin/env python3
"""Measures this project on a GPU beside PyTorch on the same card, part by part.

    python3 benches/on_gpu.py [PART…] --pipe FOLDER/pipe --archive aclImdb_labelled.tar.gz
    python3 benches/on_gpu.py --print

Needed there: python3 with PyTorch; `pipe`, `pipe-cuda-worker` and `pipe-cuda-timed` in one folder, and what the
last two load (`LD_LIBRARY_PATH`); nothing is compiled but by the driver and by `torch.compile`. Every measurement
is a line of JSON in OUT/figures.jsonl, written when it is made: a part that was stopped, or that has used up
`--limit` seconds, goes on when it is called again, and what is there is not measured again, but for what another
build of `pipe-cuda-timed` has told. What answers the questions comes first, in all parts; other batches and
precisions come after. A measurement that fails is told and the others go on.

Parts, in order:
    ceilings    what the card gives PyTorch: large products in each precision, copies
    reference   hidden states of the reference model against PyTorch's (needs --reference)
    agreement   the demo of the experiment, on the processor and again on the GPU
    decisions   zero-shot decisions in f16 and bf16 against f32, at full shape
    forward     12 blocks, 256 tokens, batches of 16 to 256: ours in each precision, of all positions and of the
                last ones; PyTorch eager, SDPA, compiled
    step        the training step of the last two blocks, batch 12, of 256 tokens and of real lengths
    profile     what each kernel, product and copy of ours takes, in a forward pass and in both kinds of step
    ours        the whole experiment, 5,000 + 5,000 reviews, 5 epochs, by `pipe run` from an empty cache
    theirs      the same the plain way in PyTorch, in bf16, a method a measurement
    all         pipelines/all_three.yaml on all 50,000 reviews, a time a stage

In `forward` and `step` both sides repeat for a second, each until the card is done, and the median counts. States
lie on the card; a stage brings them there once.

`--device cpu --small` is a rehearsal of everything on any machine: its figures mean nothing. `pipe-cuda-timed` is
then built without CUDA, where there is cargo, and runs the kernels on the processor.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from against_pytorch import ROOT, project
from gpu_bench import (
    BATCH,
    PRECISIONS,
    TOKENS,
    TORCH_TYPES,
    Bench,
    GpuMemory,
    LimitReached,
    encode,
    make_project,
    prepared,
    random_prompts,
    stage,
    write_tokens,
    zero_shot,
)
from gpu_speed import ceilings, forward, profile, step
from gpu_table import table

# Tolerances: hidden states ten times what the reference suggests for f32 on a processor; results of the demo
# after hundreds of training steps, absolutely and relative to numbers above 1.
HIDDEN_TOLERANCE, DEMO_TOLERANCE = 5e-4, 2e-2


def reference(bench):
    import torch
    from pytorch_gpt2 import read_tensors

    home = bench.options.reference / "tiny-gpt2"
    if not home.exists():
        return print(f"reference: skipped, `{home}` is not there")
    given = read_tensors(home / "forward.safetensors")
    rows = [ids[:length].tolist() for ids, length in zip(given["ids"], given["lens"].tolist())]
    folder = bench.folder("reference")
    heads = json.loads((home / "config.json").read_text())["n_head"]
    depths = sorted(int(name.removeprefix("hidden_")) for name in given if name.startswith("hidden_"))
    stages = {f"hidden_{depth}": encode("tokens", blocks=depth, dtype="f32") for depth in depths}
    stages["gpt2"] = stage("gpt2", {"file": {"file": "model.safetensors"}}, n_head=heads)
    make_project(folder, stages)
    shutil.copy(home / "model.safetensors", folder)
    write_tokens(folder / "tokens.safetensors", rows)

    def compare():
        bench.pipe(folder, "run", "pipelines/p.yaml", "--device", bench.device, "--force")
        largest = {}
        for depth in depths:
            ours = read_tensors(bench.written(folder, f"hidden_{depth}", "hidden"))["hidden"]
            theirs = torch.cat([given[f"hidden_{depth}"][row, : len(ids)] for row, ids in enumerate(rows)])
            largest[f"after block {depth}"] = (ours.reshape(theirs.shape) - theirs).abs().max().item()
        worst = max(largest.values())
        return {"largest": worst, "tolerance": HIDDEN_TOLERANCE, "ok": worst <= HIDDEN_TOLERANCE, "by depth": largest}

    bench.measure("reference", "hidden states, f32", compare)


def agreement(bench):
    folder = bench.folder("agreement")
    if not (folder / "runs.db").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "pipelines", folder / "pipelines", dirs_exist_ok=True)
        small = ["vars.train=60", "vars.test=40"]
        small += [
            f"{method}.{value}" for method in ("fine_tune", "lora") for value in ("steps=4", "warmup=1", "decay=4")
        ]
        sets = [part for value in small for part in ("--set", value)] if bench.small else []
        bench.pipe(folder, "run", "pipelines/all_three.yaml", "-p", "demo", "--device", "cpu", *sets)

    def compare():
        stages = ["trunk_train", "trunk_test", "zero_shot", "fine_tune", "lora", "fine_tuned", "lora_tuned"]
        arguments = [*stages, "--device", bench.device, "--tolerance", DEMO_TOLERANCE, "--json"]
        told = bench.pipe(folder, "verify", "run_1", *arguments, check=False)
        verdicts = {stage["stage"]: stage for stage in json.loads(told.stdout)["stages"]}
        equal = all(verdict["verdict"] in ("identical", "equal") for verdict in verdicts.values())
        return {"tolerance": DEMO_TOLERANCE, "ok": equal, "stages": verdicts}

    bench.measure("agreement", "demo, processor and GPU", compare)


def decisions(bench):
    import math

    count = 8 if bench.small else 2000
    folder = bench.folder("decisions")
    stages = {}
    for precision in PRECISIONS:
        stages[f"start_{precision}"] = encode("tokens", blocks=0, precision=precision)
        stages[f"decide_{precision}"] = zero_shot(f"start_{precision}", precision=precision)
    make_project(folder, stages)
    write_tokens(folder / "tokens.safetensors", random_prompts(count, 32 if bench.small else TOKENS))

    def margins(precision):
        """By row, by how much the logit of the positive word is larger."""
        with open(bench.written(folder, f"decide_{precision}", "predictions"), encoding="utf-8") as file:
            scores = [float(row["score"]) for row in csv.DictReader(file)]
        return [math.log(score / (1 - score)) for score in scores]

    for precision in PRECISIONS[1:]:

        def compare(precision=precision):
            bench.pipe(folder, "run", "pipelines/p.yaml", "--device", bench.device)
            exact, rounded = margins("f32"), margins(precision)
            flipped = [abs(a) for a, b in zip(exact, rounded) if (a > 0) != (b > 0)]
            spread = statistics.pstdev(exact)
            apart = max(abs(a - b) for a, b in zip(exact, rounded))
            tau = max(flipped, default=0.0)
            return {"rows": count, "flipped": len(flipped), "tau": tau, "largest difference": apart, "spread": spread}

        bench.measure("decisions", f"{precision} against f32", compare)


def ours(bench):
    data, count = prepared(bench)
    epochs = 1 if bench.small else 5
    methods = ("fine_tune", "lora")
    training = [
        f"{method}.{value}" for method in methods for value in ("steps=", f"epochs={epochs}", "decay=", "warmup=2")
    ]
    micro = [f"{method}.micro_batch={BATCH}" for method in methods] if bench.device == "cuda" else []
    weights = ["stages.weights_file=", f"stages.gpt2.in.file={{file: {data['weights']}}}"]
    for precision in PRECISIONS:

        def whole(precision=precision):
            folder = bench.folder(f"ours_{precision}")
            shutil.rmtree(folder, ignore_errors=True)
            more = [*weights, *training, *micro, f"vars.precision={precision}"]
            arguments = project(folder, bench.options.archive.resolve(), count, *more)
            with GpuMemory() as memory:
                start = time.perf_counter()
                bench.pipe(folder, *arguments, "--device", bench.device)
                seconds = time.perf_counter() - start
            stages = {stage: made["duration"] for stage, made in bench.executions(folder).items()}
            shutil.rmtree(folder)
            return {"seconds": seconds, "reviews": count, "epochs": epochs, "gpu MiB": memory.peak, "stages": stages}

        bench.measure("ours", precision, whole, rest=precision != "f16")


def theirs(bench):
    data, count = prepared(bench)
    epochs = 1 if bench.small else 5
    command = [sys.executable, ROOT / "benches" / "pytorch_gpt2.py", "--epochs", epochs, "--device", bench.device]
    command += ["--batch", 128 if bench.device == "cuda" else 8, "--threads", os.cpu_count()]
    for name, path in data.items():
        command += [f"--{name}", path]
    for precision in ("bf16", "f32"):
        for method in ("zero_shot", "fine_tune", "lora"):

            def whole(precision=precision, method=method):
                words = [*command, "--dtype", TORCH_TYPES[precision], "--methods", method]
                with GpuMemory() as memory:
                    start = time.perf_counter()
                    done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True)
                    seconds = time.perf_counter() - start
                said = json.loads(done.stdout)
                return {"seconds": seconds, "reviews": count, "epochs": epochs, "gpu MiB": memory.peak, "said": said}

            bench.measure("theirs", f"{method} {precision}", whole, rest=precision != "bf16")


def everything(bench):
    folder = bench.folder("all")
    count = 40 if bench.small else "all"
    micro = [f"{method}.micro_batch={BATCH}" for method in ("fine_tune", "lora")] if bench.device == "cuda" else []
    steps = [f"{method}.{value}" for method in ("fine_tune", "lora") for value in ("steps=4", "warmup=1", "decay=4")]
    more = [*micro, "vars.precision=f16", *(steps if bench.small else [])]
    if folder.exists():
        shutil.rmtree(folder / "pipelines")
        shutil.copytree(ROOT / "pipelines", folder / "pipelines")
        values = [f"vars.archive={bench.options.archive.resolve()}", f"vars.train={count}", f"vars.test={count}", *more]
        arguments = [
            "run",
            "pipelines/all_three.yaml",
            "-p",
            "local",
            *(part for value in values for part in ("--set", value)),
        ]
    else:
        bench.folder("").mkdir(parents=True, exist_ok=True)
        arguments = project(folder, bench.options.archive.resolve(), count, *more)
    command = [bench.options.pipe, *arguments, "-p", "random_weights", "--device", bench.device]

    def whole():
        start = time.perf_counter()
        with GpuMemory() as memory:
            process = subprocess.Popen(
                list(map(str, command)), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            timer = threading.Timer(bench.left(), process.send_signal, [signal.SIGINT])
            timer.start()
            said = process.communicate()[1]
            timer.cancel()
        # What the calls before this one have taken.
        notes = folder / "taken.json"
        taken = json.loads(notes.read_text()) if notes.exists() else {"wall": 0.0, "gpu MiB": 0, "calls": 0}
        taken["wall"] += time.perf_counter() - start
        taken["gpu MiB"] = max(taken["gpu MiB"], memory.peak or 0)
        taken["calls"] += 1
        notes.write_text(json.dumps(taken))
        if process.returncode == 130:
            raise LimitReached
        if process.returncode != 0:
            raise RuntimeError(said)
        stages = {stage: made["duration"] for stage, made in bench.executions(folder).items()}
        files = [path.lstat().st_size for path in (folder / "cache").rglob("*") if path.is_file()]
        return taken | {"disk GB": sum(files) / 1e9, "stages": stages}

    bench.measure("all", f"{count} reviews a split", whole)


PARTS = {
    "ceilings": ceilings,
    "reference": reference,
    "agreement": agreement,
    "decisions": decisions,
    "forward": forward,
    "step": step,
    "profile": profile,
    "ours": ours,
    "theirs": theirs,
    "all": everything,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared"
    parser.add_argument("parts", nargs="*", metavar="PART", help="some of the parts [default: all, in order]")
    parser.add_argument("--pipe", type=Path, default=ROOT / "target" / "release" / "pipe")
    parser.add_argument("--timed", type=Path, help="`pipe-cuda-timed` [default: beside `pipe`]")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "on_gpu", help="[default: %(default)s]")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a rehearsal: little of everything")
    parser.add_argument("--archive", type=Path, default=shared / "data" / "aclImdb_labelled.tar.gz", help="the reviews")
    parser.add_argument("--reference", type=Path, default=shared / "reference", help="the reference values")
    parser.add_argument(
        "--limit", type=float, default=420, help="seconds after which no measurement begins [%(default)s]"
    )
    parser.add_argument("--print", action="store_true", help="print the tables of what was measured")
    options = parser.parse_args()
    options.pipe, options.out = options.pipe.resolve(), options.out.resolve()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    bench = Bench(options)
    if options.print:
        return table(bench, list(PARTS))
    try:
        for bench.rest in (False, True):
            for part in options.parts or PARTS:
                if part not in bench.failed:
                    bench.attempt(part, lambda part=part: PARTS[part](bench))
        code = 1 if bench.failed else 0
    except LimitReached:
        print(f"{options.limit:.0f} s are used up: the same command goes on")
        code = 3
    if bench.failed:
        print("failed:", "; ".join(bench.failed))
    return code


if __name__ == "__main__":
    sys.exit(main())
