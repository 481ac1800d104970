#!/usr/bin/env python3
"""Runs the programs of `build_without_toolkit.py` on a machine without a GPU.

    python3 stages/cuda/build_without_toolkit.py
    python3 stages/cuda/try_without_gpu.py

A stand-in takes the place of the CUDA driver and of cuBLAS (tests/host/driver.cpp): the worker that is shipped opens
it, gives it kernels, products and copies, and runs out of its memory as on a GPU. A small demo of the experiment is
computed on the processor and again by the worker, in each precision, and both must agree. What only a GPU can show
is not shown: its results, its speed, its own driver. Needed is a C++ compiler; a few minutes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = PROJECT / "target" / "gpu"
MODEL_STAGES = ["trunk_train", "trunk_test", "zero_shot", "fine_tune", "lora", "fine_tuned", "lora_tuned"]
# How far results may differ, absolutely and relative to numbers above 1, after four updates.
TOLERANCES = {"f32": 1e-3, "f16": 2e-2, "bf16": 2e-2}


def say(text):
    print(f"== {text}", flush=True)


def make_stand_in(folder):
    sources = [PROJECT / "stages" / "cuda" / "tests" / "host" / name for name in ("driver.cpp", "host.cpp")]
    compiler = os.environ.get("CXX", "c++")
    flags = ["-std=c++17", "-O3", "-march=native", "-Wall", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", folder / "libcuda.so.1", *sources], check=True)
    # cuBLAS is in the file of the driver; the loader only has to find its name.
    nothing = ["-shared", "-x", "c++", "-o", folder / "libcublas.so.13", os.devnull]
    subprocess.run([compiler, *nothing], check=True)


class Demo:
    """A small demo of the experiment in a folder of its own."""

    def __init__(self, folder, stand_in, precision):
        self.folder, self.environment = folder, {**os.environ, "LD_LIBRARY_PATH": str(stand_in)}
        shutil.copytree(PROJECT / "pipelines", folder / "pipelines")
        values = ["vars.train=24", "vars.test=16", f"vars.precision={precision}"]
        for method in ("fine_tune", "lora"):
            values += [f"{method}.{value}" for value in ("steps=4", "warmup=1", "decay=4")]
        self.sets = [word for value in values for word in ("--set", value)]

    def pipe(self, *words, **variables):
        command = [PROGRAMS / "pipe", *words]
        environment = {**self.environment, **variables}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run(self, device, *words, **variables):
        arguments = ["run", "pipelines/all_three.yaml", "--profile", "demo", "--device", device]
        return self.pipe(*arguments, *self.sets, *words, **variables)


def agree(demo, precision):
    """The results of the worker are those of the processor."""
    demo.run("cpu")
    words = ["--device", "cuda", "--tolerance", str(TOLERANCES[precision]), "--json"]
    told = json.loads(demo.pipe("verify", "run_1", *MODEL_STAGES, *words))
    for stage in told["stages"]:
        print(f"   {stage['stage']}: {stage['verdict']} within {stage['largest']:.1e}")


def run_out_of_memory(demo):
    """Where memory does not suffice, less is computed at once, and the log says so."""
    cases = {
        "trunk_train": ({"STAND_IN_MEMORY": "80", "STAND_IN_TAKEN": "44"}, "no memory for a batch of"),
        "fine_tune": ({"STAND_IN_MEMORY": "16"}, "no memory for a micro-batch"),
    }
    for stage, (variables, wanted) in cases.items():
        demo.run("cuda", "--until", stage, f"--force={stage}", **variables)
        said = [line for line in demo.pipe("logs", "@last", stage).splitlines() if wanted in line]
        if not said:
            sys.exit(f"`{stage}` with {variables} did not run out of memory")
        print(f"   {stage}: {said[0].strip()}")


def main():
    if not (PROGRAMS / "pipe-cuda-worker").exists():
        sys.exit("there is no target/gpu/pipe-cuda-worker: run stages/cuda/build_without_toolkit.py")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        stand_in = folder / "stand-in"
        stand_in.mkdir()
        say("a stand-in for the driver and cuBLAS")
        make_stand_in(stand_in)
        for precision in TOLERANCES:
            say(f"the demo in {precision}, on the processor and again by the worker")
            demo = Demo(folder / precision, stand_in, precision)
            agree(demo, precision)
            if precision == "f32":
                say("too little memory")
                run_out_of_memory(demo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
