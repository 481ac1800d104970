#!/usr/bin/env python3
"""Measures this project on a GPU beside PyTorch on the same card, part by part.

    python3 benches/on_gpu.py [PART…] --pipe FOLDER/pipe --archive aclImdb_labelled.tar.gz
    python3 benches/on_gpu.py --print

Needed there: python3 with PyTorch, `pipe` and `pipe-cuda-worker` in one folder, and what the worker loads
(`LD_LIBRARY_PATH`); nothing is compiled but by the driver and by `torch.compile`. Every measurement is a line of
JSON in OUT/figures.jsonl, written when it is made: a part that was stopped, or that has used up `--limit`
seconds, goes on when it is called again, and what is there is not measured again.

Parts, in order:
    ceilings    what the card gives PyTorch: large products in each precision, copies
    reference   hidden states of the reference model against PyTorch's (needs --reference)
    agreement   the demo of the experiment, on the processor and again on the GPU
    decisions   zero-shot decisions in f16 and bf16 against f32, at full shape
    forward     12 blocks, 256 tokens: ours in each precision, PyTorch eager, SDPA, compiled
    step        the training step of the last two blocks, batch 12, 256 tokens
    ours        the whole experiment, 5,000 + 5,000 reviews, 5 epochs, by `pipe run` from an empty cache
    theirs      the same the plain way in PyTorch, in bf16, a method a measurement
    all         pipelines/all_three.yaml on all 50,000 reviews, a time a stage

Our times are of the worker's processes: of two stages that differ in size alone the difference counts, so that
start and loading cancel. They include reading and writing files; PyTorch's are of data on the card.

`--device cpu --small` is a rehearsal of everything on any machine: its figures mean nothing.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from against_pytorch import ROOT, best_of, outputs, project
from gpu_table import table

TOKENS, BATCH, WIDTH, BLOCKS, VOCABULARY = 256, 12, 768, 12, 50257
PRECISIONS = ["f32", "f16", "bf16"]
TORCH_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
ROUNDS = 3
# Tolerances: hidden states ten times what the reference suggests for f32 on a processor; results of the demo
# after hundreds of training steps, absolutely and relative to numbers above 1.
HIDDEN_TOLERANCE, DEMO_TOLERANCE = 5e-4, 2e-2


class LimitReached(Exception):
    """The time of this call is used up; the next one goes on."""


class Bench:
    """What is measured with, and the figures so far."""

    def __init__(self, options):
        self.options, self.device, self.small = options, options.device, options.small
        self.started = time.monotonic()
        self.file = options.out / "figures.jsonl"
        options.out.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.figures = [json.loads(line) for line in lines]

    def of(self, part):
        """The figures of a part that belong to this kind of measurement, the latest by name."""
        kind = (self.device, self.small)
        own = [line for line in self.figures if line["part"] == part and (line["device"], line["small"]) == kind]
        return {line["what"]: line for line in own}

    def measure(self, part, what, task):
        """Notes what `task` returns as the figures of `what`, unless they are there."""
        if what in self.of(part):
            return
        if time.monotonic() - self.started > self.options.limit:
            raise LimitReached
        began = time.monotonic()
        figures = task()
        if figures is None:
            return
        line = {"part": part, "what": what, "device": self.device, "small": self.small, "card": self.card()}
        line |= {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "took": round(time.monotonic() - began, 3)}
        line |= {"software": software()} | figures
        self.figures.append(line)
        with open(self.file, "a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)
        shown = {name: value for name, value in figures.items() if not isinstance(value, (list, dict))}
        print(f"{part}: {what}: {json.dumps(shown)}", flush=True)

    def card(self):
        import torch

        return torch.cuda.get_device_name() if self.device == "cuda" else platform.processor() or platform.machine()

    def left(self):
        return max(1.0, self.options.limit - (time.monotonic() - self.started))

    def folder(self, name):
        return self.options.out / ("small" if self.small else "full") / name

    def pipe(self, folder, *arguments, check=True):
        command = [self.options.pipe, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    def executions(self, folder):
        """What the stages of the latest run took and wrote, by name."""
        shown = json.loads(self.pipe(folder, "show", "@last", "--json").stdout)
        return {stage["stage"]: stage["execution"] for stage in shown["stages"] if stage["execution"]}

    def written(self, folder, stage, port):
        found = self.executions(folder)[stage]["outputs"]
        digest = next(output["digest"] for output in found if output["port"] == port)
        return folder / "cache" / "v1" / "objects" / digest[:2] / digest[2:]

    def marginal(self, folder, few, many, *arguments):
        """Seconds that the stage `many` takes beyond those of `few`, both executed anew."""
        forced = [f"--force={few}", f"--force={many}"]
        self.pipe(folder, "run", "pipelines/p.yaml", "--device", self.device, *forced, *arguments)
        executions = self.executions(folder)
        return executions[many]["duration"] - executions[few]["duration"], executions[many]["device"]

    def sync(self):
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, task, count=3):
        """The fastest of some runs of work on the card."""

        def whole():
            task()
            self.sync()

        return best_of(whole, count)


class GpuMemory:
    """The peak of memory in use on the card, sampled, in MiB; `None` where nothing tells."""

    def __enter__(self):
        self.peak, query = None, "--query-gpu=memory.used --format=csv,noheader,nounits --loop-ms=200"
        try:
            self.process = subprocess.Popen(["nvidia-smi", *query.split()], stdout=subprocess.PIPE, text=True)
        except OSError:
            self.process = None
            return self
        self.thread = threading.Thread(target=self.read)
        self.thread.start()
        return self

    def read(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.peak = max(self.peak or 0, int(line))

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.thread.join()


def software():
    import torch

    return f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def operations(prompts, tokens):
    """Additions and multiplications of 12 blocks, as `stages/benches/shape` counts them."""
    matrices, attention = 24 * WIDTH**2 * tokens, 4 * WIDTH * tokens * (tokens + 1) / 2
    return prompts * BLOCKS * (matrices + attention)


def write_tokens(path, rows, labels=None):
    """Writes prompts, lists of ids, as kind `tokenize` does."""
    offsets, ids = [0], []
    for row in rows:
        ids += row
        offsets.append(len(ids))
    names = [f"{index:06}" for index in range(len(rows))]
    pack = lambda code, values: struct.pack(f"<{len(values)}{code}", *values)
    columns = {
        "row_id_offset": ("I64", pack("q", [6 * index for index in range(len(rows) + 1)]), len(rows) + 1),
        "length": ("I64", pack("q", [len(row) for row in rows]), len(rows)),
        "offset": ("I64", pack("q", offsets), len(offsets)),
        "token": ("I32", pack("i", ids), len(ids)),
        "label": ("U8", bytes(labels or [index % 2 for index in range(len(rows))]), len(rows)),
        "row_id": ("U8", "".join(names).encode(), 6 * len(rows)),
    }
    header, start = {"__metadata__": {"format": "pipe.tokens.1"}}, 0
    for name, (dtype, data, count) in columns.items():
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, data, _ in columns.values()))


def random_prompts(count, tokens):
    import torch

    torch.manual_seed(count)
    return torch.randint(VOCABULARY, (count, tokens)).tolist()


def stage(kind, inputs=None, **parameters):
    return {"kind": kind, "in": inputs or {}, "with": parameters}


def make_project(folder, stages):
    """Writes `pipelines/p.yaml` of these stages and of random weights of the 124M shape, unless there are others."""
    random_weights = stage("gpt2", init="random", seed=1337)
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    text = json.dumps({"stages": {"gpt2": random_weights} | stages}, indent=2)
    (folder / "pipelines" / "p.yaml").write_text(text)


def encode(tokens, **parameters):
    return stage("encode", {"tokens": {"file": f"{tokens}.safetensors"}, "weights": "gpt2"}, **parameters)


def zero_shot(hidden, **parameters):
    return stage("zero_shot", {"hidden": hidden, "weights": "gpt2"}, **parameters)


# -- the parts -----------------------------------------------------------------------------------------------


def ceilings(bench):
    import torch

    size, copied = (512, 2**24) if bench.small else (8192, 2**30)
    torch.backends.cuda.matmul.allow_tf32 = False
    for precision in PRECISIONS:

        def product(precision=precision):
            dtype = getattr(torch, TORCH_TYPES[precision])
            a, b = (torch.randn(size, size, device=bench.device).to(dtype) for _ in "ab")
            seconds = bench.seconds(lambda: [torch.matmul(a, b) for _ in range(10)]) / 10
            return {"tflops": 2 * size**3 / seconds / 1e12, "size": size}

        bench.measure("ceilings", f"product {precision}", product)

    def copy():
        source = torch.empty(copied, dtype=torch.uint8, device=bench.device)
        target = torch.empty_like(source)
        seconds = bench.seconds(lambda: [target.copy_(source) for _ in range(10)]) / 10
        return {"gb_per_second": 2 * copied / seconds / 1e9, "bytes": copied}

    bench.measure("ceilings", "copy", copy)


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


def forward(bench):
    import torch
    from pytorch_gpt2 import Block

    few, many, tokens = (2, 66, 32) if bench.small else (512, 4608, TOKENS)
    folder = bench.folder("forward")
    stages = {}
    for name in ("few", "many"):
        stages[name] = encode(name, blocks=BLOCKS, dtype="f16")
        stages[f"{name}_start"] = encode(name, blocks=0, dtype="f16")
        stages[f"{name}_zero_shot"] = zero_shot(f"{name}_start")
    make_project(folder, stages)
    for name, prompts in (("few", few), ("many", many)):
        if not (folder / f"{name}.safetensors").exists():
            write_tokens(folder / f"{name}.safetensors", random_prompts(prompts, tokens))

    def speed(seconds, prompts):
        figures = {"tokens_per_second": prompts * tokens / seconds, "seconds": seconds, "prompts": prompts}
        return figures | {"tokens": tokens, "tflops": operations(prompts, tokens) / seconds / 1e12}

    for precision in PRECISIONS:
        for what, first, second in (("encode", "few", "many"), ("zero_shot", "few_zero_shot", "many_zero_shot")):

            def ours(precision=precision, what=what, stages=(first, second)):
                chosen = [
                    part for stage in stages for part in ("--set", f"{stage}.precision={precision}", "--until", stage)
                ]
                taken = [bench.marginal(folder, *stages, *chosen) for _ in range(ROUNDS)]
                seconds = [second for second, _ in taken]
                if statistics.median(seconds) <= 0:
                    return print(f"forward: ours {what} {precision}: lost in the noise, not kept")
                return speed(statistics.median(seconds), many - few) | {"rounds": seconds, "on": taken[0][1]}

            bench.measure("forward", f"ours {what} {precision}", ours)

    variants = {
        "eager f32": ("f32", False, False),
        "SDPA f32": ("f32", True, False),
        "SDPA bf16": ("bf16", True, False),
        "compiled bf16": ("bf16", True, True),
    }
    batches = [2] if bench.small else [16, 64, 256]
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, (precision, sdpa, compiled) in variants.items():
        if compiled and bench.device == "cpu":
            continue
        for batch in batches:

            def theirs(precision=precision, sdpa=sdpa, compiled=compiled, batch=batch):
                dtype = getattr(torch, TORCH_TYPES[precision])
                torch.manual_seed(1)
                blocks = torch.nn.Sequential(*(Block(sdpa) for _ in range(BLOCKS))).eval().requires_grad_(False)
                blocks = blocks.to(bench.device, dtype)
                blocks = torch.compile(blocks) if compiled else blocks
                x = torch.randn(batch, tokens, WIDTH, device=bench.device, dtype=dtype)
                with torch.inference_mode():
                    return speed(bench.seconds(lambda: blocks(x), 10 if bench.device == "cuda" else 1), batch)

            bench.measure("forward", f"PyTorch {name}, batch {batch}", theirs)


def step(bench):
    import torch
    from pytorch_gpt2 import TRAINED, Classifier, Trainer

    few, many, rows, tokens = (1, 7, 24, 32) if bench.small else (20, 220, 600, TOKENS)
    folder = bench.folder("step")
    stages = {"trunk": encode("tokens", blocks=BLOCKS - TRAINED)}
    constant = {"batch": BATCH, "micro_batch": BATCH if bench.device == "cuda" else 4, "warmup": 0}
    constant |= {"validation": 0, "eval_every": 100000}
    for method in ("fine_tune", "lora"):
        for name, steps in (("few", few), ("many", many)):
            inputs = {"hidden": "trunk", "weights": "gpt2"}
            stages[f"{method}_{name}"] = stage(method, inputs, steps=steps, **constant)
    make_project(folder, stages)
    if not (folder / "tokens.safetensors").exists():
        write_tokens(folder / "tokens.safetensors", random_prompts(rows, tokens))
    for method in ("fine_tune", "lora"):

        def ours(method=method):
            stages = f"{method}_few", f"{method}_many"
            chosen = [part for stage in stages for part in ("--until", stage)]
            taken = [bench.marginal(folder, *stages, *chosen) for _ in range(ROUNDS)]
            seconds = [second / (many - few) for second, _ in taken]
            if statistics.median(seconds) <= 0:
                return print(f"step: ours {method}: lost in the noise, not kept")
            return {"seconds": statistics.median(seconds), "rounds": seconds, "on": taken[0][1], "tokens": tokens}

        bench.measure("step", f"ours {method}", ours)
        for precision in ("f32", "bf16"):

            def theirs(method=method, precision=precision):
                dtype = getattr(torch, TORCH_TYPES[precision])
                torch.manual_seed(1)
                trainer = Trainer(Classifier(TRAINED, method, 0.1).prepare(bench.device, dtype), dtype=dtype)
                x = torch.randn(BATCH, tokens, WIDTH, device=bench.device)
                labels = torch.tensor([float(row % 2) for row in range(BATCH)], device=bench.device)
                seconds = bench.seconds(
                    lambda: trainer.update(x, [tokens] * BATCH, labels), 10 if bench.device == "cuda" else 1
                )
                return {"seconds": seconds, "tokens": tokens}

            bench.measure("step", f"PyTorch {method} {precision}", theirs)


def prepared(bench):
    """Weights, and the tokens of the reviews of the experiment: what both sides are given."""
    folder, count = bench.folder("given"), 24 if bench.small else 5000
    if not folder.exists():
        bench.folder("").mkdir(parents=True, exist_ok=True)
        project(folder, bench.options.archive.resolve(), count)
    values = [f"vars.archive={bench.options.archive.resolve()}", f"vars.train={count}", f"vars.test={count}"]
    sets = [part for value in values for part in ("--set", value)]
    arguments = ["run", "pipelines/all_three.yaml", "-p", "local", *sets, "-p", "random_weights"]
    data = {}
    for name, stage in (("train", "tokens_train"), ("test", "tokens_test"), ("weights", "gpt2")):
        found = outputs(bench.options.pipe, folder, arguments, stage)
        data[name] = found["weights" if name == "weights" else "tokens"].resolve()
    return data, count


def model_sets(precision):
    stages = ["trunk_train", "trunk_test", "zero_shot", "fine_tune", "lora", "fine_tuned", "lora_tuned"]
    return [f"{stage}.precision={precision}" for stage in stages]


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
            more = [*weights, *training, *micro, *model_sets(precision)]
            arguments = project(folder, bench.options.archive.resolve(), count, *more)
            with GpuMemory() as memory:
                start = time.perf_counter()
                bench.pipe(folder, *arguments, "--device", bench.device)
                seconds = time.perf_counter() - start
            stages = {stage: made["duration"] for stage, made in bench.executions(folder).items()}
            shutil.rmtree(folder)
            return {"seconds": seconds, "reviews": count, "epochs": epochs, "gpu MiB": memory.peak, "stages": stages}

        bench.measure("ours", precision, whole)


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

            bench.measure("theirs", f"{method} {precision}", whole)


def everything(bench):
    folder = bench.folder("all")
    count = 40 if bench.small else "all"
    micro = [f"{method}.micro_batch={BATCH}" for method in ("fine_tune", "lora")] if bench.device == "cuda" else []
    steps = [f"{method}.{value}" for method in ("fine_tune", "lora") for value in ("steps=4", "warmup=1", "decay=4")]
    more = [*micro, *model_sets("f16"), *(steps if bench.small else [])]
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
            sys.exit(said)
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
    "ours": ours,
    "theirs": theirs,
    "all": everything,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared"
    parser.add_argument("parts", nargs="*", metavar="PART", help="some of the parts [default: all, in order]")
    parser.add_argument("--pipe", type=Path, default=ROOT / "target" / "release" / "pipe")
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
        for part in options.parts or PARTS:
            PARTS[part](bench)
    except LimitReached:
        print(f"{options.limit:.0f} s are used up: the same command goes on")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
