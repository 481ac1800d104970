"""What the parts of `on_gpu.py` share: the figures so far, what is run, projects of a few stages."""

import functools
import hashlib
import json
import platform
import shutil
import struct
import subprocess
import threading
import time
import traceback

from against_pytorch import Ours, best_of, built_bench, outputs, project

TOKENS, BATCH, WIDTH, BLOCKS, VOCABULARY = 256, 12, 768, 12, 50257
PRECISIONS = ["f32", "f16", "bf16"]
TORCH_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
PROGRAM = "pipe-cuda-timed"


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
        self.program = None
        self.rest, self.failed = False, []

    def of(self, part):
        """The figures of a part that belong to this kind of measurement, the latest by name."""
        kind = (self.device, self.small)
        own = [line for line in self.figures if line["part"] == part and (line["device"], line["small"]) == kind]
        return {line["what"]: line for line in own}

    def measure(self, part, what, task, rest=False):
        """Notes what `task` returns as the figures of `what`, unless they are there.

        Nothing is noted where nothing is returned, and what another build of our program told is measured anew.
        The `rest` comes once everything else is there.
        """
        if rest != self.rest:
            return
        known = self.of(part).get(what)
        if known and ("program" not in known or known["program"] == self.program_digest()):
            return
        if time.monotonic() - self.started > self.options.limit:
            raise LimitReached
        began = time.monotonic()
        figures = self.attempt(f"{part}: {what}", task)
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

    def attempt(self, what, task):
        """What `task` returns; `None`, with a message, where it fails: other measurements go on."""
        try:
            return task()
        except LimitReached:
            raise
        except Exception:  # whatever it is, time on a GPU is short
            self.failed.append(what)
            print(f"FAILED: {what}: {traceback.format_exc()}", flush=True)

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
            raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    def executions(self, folder):
        """What the stages of the latest run took and wrote, by name."""
        shown = json.loads(self.pipe(folder, "show", "@last", "--json").stdout)
        return {stage["stage"]: stage["execution"] for stage in shown["stages"] if stage["execution"]}

    def written(self, folder, stage, port):
        found = self.executions(folder)[stage]["outputs"]
        digest = next(output["digest"] for output in found if output["port"] == port)
        return folder / "cache" / "v1" / "objects" / digest[:2] / digest[2:]

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

    def repeated(self, task):
        """Seconds of work on the card as our program takes them: repetitions for a second, their median."""
        fewest, warmed, enough = (1, 0.0, 0.0) if self.small else (5, 0.2, 1.0)
        seconds = []
        for limit in (warmed, enough):
            begun, seconds = time.perf_counter(), []
            while len(seconds) < fewest or time.perf_counter() - begun < limit:
                start = time.perf_counter()
                task()
                self.sync()
                seconds.append(time.perf_counter() - start)
        told = {"seconds": sorted(seconds)[len(seconds) // 2], "least": min(seconds), "most": max(seconds)}
        return told | {"repetitions": len(seconds)}

    def ask(self, *words):
        """What our program answers; `None`, with a message, where it does not."""
        request = " ".join(map(str, words[:4]))
        if self.program is None:
            path = self.program_path()
            if not path or not path.exists():
                return print(f"skipped: {request}: there is no `{path or PROGRAM}`")
            self.program = Ours(path)
        answer = self.program.ask(*words)
        if answer is None:
            self.stop_program()
            return print(f"skipped: {request}: the program has ended")
        if "error" in answer:
            return print(f"skipped: {request}: {answer['error']}")
        return answer | {"program": self.program_digest()}

    @functools.cache
    def program_path(self):
        """Our program beside `pipe`; in a rehearsal it is built to run the kernels on the processor."""
        if self.options.timed:
            return self.options.timed.resolve()
        if self.device == "cuda":
            return self.options.pipe.parent / PROGRAM
        return built_bench("pipe-cuda", PROGRAM) if shutil.which("cargo") else None

    @functools.cache
    def program_digest(self):
        path = self.program_path()
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path and path.exists() else None

    def stop_program(self):
        """Ends our program, so that it keeps no memory of the card."""
        if self.program:
            self.program.stop()
        self.program = None


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
