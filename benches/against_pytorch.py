#!/usr/bin/env python3
"""Sets this project beside PyTorch and prints a table of ratios, PyTorch's time over ours.

    python3 benches/against_pytorch.py [--quick] [--only forward,step,tokenize,experiment]

Makes its own virtual environment under `target/against_pytorch/` (wheels from PyPI; no part of CI),
builds the release binaries, and measures in alternating pairs, ours and theirs, on two threads. A
ratio is the median over the pairs; least and greatest stand beside it. Both sides of a pair are
the best of three after a warm-up, but for the whole experiment, which is one run from an empty cache.
The reviews come from `--archive`.
"""

import argparse
import atexit
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "target" / "against_pytorch"
PACKAGES = ["torch", "safetensors", "numpy", "tokenizers"]
MICRO_BATCH = 4
THREADS = 2
TOKENS = 256
# Ours, and PyTorch's.
PRECISIONS = {"f32": "float32", "bf16": "bfloat16"}
# As `pipe` starts its workers.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def enter_environment():
    """Goes on in the virtual environment, which is made where it is missing."""
    python = HOME / "venv" / "bin" / "python"
    if Path(sys.prefix) == HOME / "venv":
        return
    if not (HOME / "venv" / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", HOME / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (HOME / "venv" / "complete").touch()
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "RAYON_NUM_THREADS": str(THREADS)}
    os.environ |= {"TOKENIZERS_PARALLELISM": "true"}
    os.execv(python, [python, __file__, *sys.argv[1:]])


def build():
    """Builds everything; returns the paths of `pipe` and of the benchmark that times requests."""
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "pipe", built_bench("pipe-stages", "timed")


def built_bench(package, name):
    """Builds a benchmark; returns its path."""
    command = ["cargo", "bench", "--package", package, "--bench", name, "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    messages = map(json.loads, built.stdout.splitlines())
    return Path([message["executable"] for message in messages if message.get("executable")][-1])


class Ours:
    """A program that times what it is asked for, line by line."""

    def __init__(self, path):
        environment = os.environ | KEEP_MEMORY
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([path], env=environment, text=True, **pipes)
        atexit.register(self.stop)

    def ask(self, *words):
        """The answer; `None` where the program has ended."""
        time.sleep(0.3)  # until the other side's threads sleep
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self):
        self.process.kill()
        self.process.wait()


def best_of(run, count):
    """The fastest of `count` runs after one that is not counted, in seconds."""
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def row(what, pairs, note=""):
    """Prints a row of the table for pairs of seconds, ours and theirs."""
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    load = os.getloadavg()[0]
    print(
        f"| {what} | {middle:.2f} ({least:.2f}–{most:.2f}) | {ours:.3f} | {theirs:.3f} | {len(pairs)} | {load:.1f} | {note} |",
        flush=True,
    )


def forward(ours, count, best):
    import torch
    from pytorch_gpt2 import Block, WIDTH

    for precision, dtype in PRECISIONS.items():
        plans = []
        for sdpa in (False, True):
            torch.manual_seed(1)
            blocks = torch.nn.Sequential(*(Block(sdpa) for _ in range(12)))
            plans.append(blocks.eval().requires_grad_(False).to(getattr(torch, dtype)))
        for prompts in (1, 4, 8, 16):
            x, pairs, shares, floors = torch.randn(prompts, TOKENS, WIDTH).to(getattr(torch, dtype)), [], [], []
            with torch.inference_mode():
                for _ in range(count):
                    answer = ours.ask("forward", precision, prompts, TOKENS)
                    theirs = min(best_of(lambda: plan(x), best) for plan in plans)
                    pairs.append((answer["seconds"], theirs))
                    floors.append(answer["operations"] / answer["product"] / 1e9)
                    shares.append(floors[-1] / answer["seconds"])
            share, floor = statistics.median(shares), statistics.median(floors)
            note = f"{100 * share:.0f} % of the rate of products; floor {floor:.3f} s"
            row(f"(a) forward, {precision}, batch {prompts}", pairs, note)


def step(ours, count, best, real):
    import torch
    from pytorch_gpt2 import Classifier, Trainer, TRAINED, WIDTH

    labels = torch.tensor([float(row % 2) for row in range(12)])
    prompts = {"256 tokens": [TOKENS] * 12, "real lengths": real}
    for precision, method, dropout, name in product(PRECISIONS, ("fine_tune", "lora"), (0.1, 0.0), prompts):
        torch.manual_seed(1)
        lengths, dtype = prompts[name], getattr(torch, PRECISIONS[precision])
        x = torch.randn(12, max(lengths), WIDTH)
        models = [Classifier(TRAINED, method, dropout, sdpa).prepare("cpu", dtype) for sdpa in (False, True)]
        plans, pairs = [Trainer(model, dtype=dtype) for model in models], []
        for _ in range(count):
            seconds = ours.ask("update", precision, method, dropout, MICRO_BATCH, *lengths)["seconds"]
            theirs = min(best_of(lambda: plan.update(x, lengths, labels), best) for plan in plans)
            pairs.append((seconds, theirs))
        what = f"(b) {method}, {precision}, {name}, dropout {dropout}"
        row(what, pairs, f"ours in micro-batches of {MICRO_BATCH}")


def real_lengths(tokenizer, reviews):
    """Lengths of 12 prompts spread evenly over those of the reviews, from short to long."""
    texts = [json.loads(line)["text"] for _, line in zip(range(1200), open(reviews, encoding="utf-8"))]
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    lengths = sorted(min(len(one) + 6, TOKENS) for one in encoded)
    return lengths[len(lengths) // 24 :: len(lengths) // 12][:12]


def vocabulary(path):
    """Writes GPT-2's tokenizer in the format of `tokenizers`, from the ranks that `tiktoken-rs` has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    crates = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "registry" / "src"
    lines = next(crates.glob("*/tiktoken-rs-*/assets/r50k_base.tiktoken")).read_text().split("\n")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, filter(None, lines))}
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    spell = lambda token: "".join(letters[byte] for byte in token)

    def halves(token, rank):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            place = min(range(len(joined)), key=joined.__getitem__)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return tuple(map(spell, parts))

    merges = [halves(token, rank) for token, rank in ranks.items() if len(token) > 1]
    tokenizer = Tokenizer(models.BPE({spell(token): rank for token, rank in ranks.items()}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return tokenizer


def tokenize(ours, count, tokenizer, reviews):
    texts = [json.loads(line)["text"] for line in open(reviews, encoding="utf-8")]
    pairs = []
    for _ in range(count):
        answer = ours.ask("tokenize", reviews)
        start = time.perf_counter()
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        pairs.append((answer["seconds"], time.perf_counter() - start))
        assert sum(map(len, encoded)) == answer["tokens"], "both sides make the same tokens"
        del encoded
    row(f"tokenizing {len(texts):,} reviews", pairs)


class Memory:
    """The peak of anonymous memory of a process and all it starts, sampled, in MiB."""

    def __init__(self, pid):
        self.pid, self.peak, self.ended = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self):
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, self.of_tree(self.pid) / 1024)

    def of_tree(self, pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            tasks = Path(f"/proc/{pid}/task").iterdir()
            children = [child for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            return 0
        anonymous = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
        return sum(anonymous) + sum(map(self.of_tree, children))

    def end(self):
        self.ended.set()
        self.thread.join()
        return self.peak


def timed(command, **options):
    """Seconds and peak anonymous memory of a command that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), **options)
    memory = Memory(process.pid)
    try:
        status = process.wait()
    finally:
        process.kill()  # where the script is stopped; a process that has ended is left alone
        memory.ended.set()
    seconds = time.perf_counter() - start
    peak = memory.end()
    assert status == 0, f"{command} failed"
    return seconds, peak


def project(folder, archive, reviews, *more):
    """Makes a project with the pipeline; returns the arguments that run it on so many reviews a split."""
    folder.mkdir()
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    values = [f"vars.archive={archive}", f"vars.train={reviews}", f"vars.test={reviews}", *more]
    sets = (part for value in values for part in ("--set", value))
    return ["run", "pipelines/all_three.yaml", "-p", "local", *sets]


def outputs(pipe, folder, arguments, *stages):
    """Runs `stages` and returns the path of each of their outputs by name."""
    only = [part for stage in stages for part in ("--until", stage)]
    options = {"cwd": folder, "check": True, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    subprocess.run([pipe, *arguments, *only], **options)
    shown = json.loads(subprocess.run([pipe, "show", "@last", "--json"], **options).stdout)
    objects = folder / "cache" / "v1" / "objects"
    made = [output for stage in shown["stages"] for output in stage["execution"]["outputs"]]
    return {output["port"]: objects / output["digest"][:2] / output["digest"][2:] for output in made}


def experiment(pipe, count, home, archive, tokenizer):
    """The whole experiment. Ours starts from the archive, theirs from reviews drawn from it."""
    given = home / "given"
    given_arguments = project(given, archive, 64)
    data = outputs(pipe, given, [*given_arguments, "-p", "random_weights"], "reviews", "gpt2")
    theirs = [sys.executable, ROOT / "benches" / "pytorch_gpt2.py", "--tokenizer", tokenizer]
    for name in ("weights", "train", "test"):
        theirs += [f"--{name}", data[name]]
    weights = ["stages.weights_file=", f"stages.gpt2.in.file={{file: {data['weights']}}}"]
    epochs = [f"{method}.{value}" for method in ("fine_tune", "lora") for value in ("steps=", "epochs=5", "decay=")]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for precision, dtype in PRECISIONS.items():
        pairs, memories = [], []
        for pair in range(count):
            folder = home / f"{precision}_{pair}"
            values = [*weights, *epochs, f"vars.precision={precision}"]
            ours = [pipe, *project(folder, archive, 64, *values), "--jobs", THREADS]
            results = [
                timed(ours, cwd=folder, **silent),
                timed([*theirs, "--dtype", dtype], stdout=subprocess.DEVNULL),
            ]
            seconds, memory = zip(*results)
            pairs.append(seconds)
            memories.append(memory)
            shutil.rmtree(folder)
        our_memory, their_memory = (statistics.median(side) for side in zip(*memories))
        note = f"peak anonymous memory {our_memory:.0f} MiB, theirs {their_memory:.0f} MiB"
        row(f"(c) the whole experiment, {precision}", pairs, note)


def machine():
    """The processor and what else it was doing."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    level = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({level}), {os.cpu_count()} cores, {THREADS} threads, PyTorch {torch.__version__}"


def main():
    parts = ["forward", "step", "tokenize", "experiment"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair of each, best of one")
    parser.add_argument("--only", default=",".join(parts), help="some of " + ",".join(parts))
    archive = ROOT.parent / "shared" / "data" / "aclImdb_labelled.tar.gz"
    parser.add_argument("--archive", type=Path, default=archive, help="the reviews [default: %(default)s]")
    options = parser.parse_args()
    enter_environment()
    import torch

    torch.set_num_threads(THREADS)
    pipe, timed_path = build()
    wanted, count, best = options.only.split(","), 1 if options.quick else 5, 1 if options.quick else 3
    print(machine() + "\n")
    print("| | ratio: median (least–most) | ours, s | PyTorch, s | pairs | load | |")
    print("|---|---|---:|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=HOME) as home:
        home, ours = Path(home), Ours(timed_path)
        tokenizer = vocabulary(home / "tokenizer.json")
        if "forward" in wanted:
            forward(ours, count, best)
        if "tokenize" in wanted or "step" in wanted:
            everything = home / "everything"
            found = outputs(pipe, everything, project(everything, options.archive, "all"), "reviews")
            reviews = home / "reviews.jsonl"
            reviews.write_bytes(found["train"].read_bytes() + found["test"].read_bytes())
            if "step" in wanted:
                step(ours, count, best, real_lengths(tokenizer, reviews))
            if "tokenize" in wanted:
                tokenize(ours, count, tokenizer, reviews)
        if "experiment" in wanted:
            experiment(pipe, min(count, 2), home, options.archive, home / "tokenizer.json")


if __name__ == "__main__":
    main()
