#!/usr/bin/env python3
"""Builds what runs on GPUs on a Linux machine (x86-64) without CUDA toolkit, driver and GPU.

    python3 stages/cuda/build_without_toolkit.py

The compiler comes from PyPI (100 MB, into target/cuda-toolkit), versions and hashes below. The libraries of
the driver and of cuBLAS are not needed to build: small stand-ins with the same names and symbols are linked,
and the loader takes the real ones where the worker runs. Needed are cargo, python3 with pip, `cc`, `readelf` and
`strip`.

At the end it checks that `pipe` needs no library of CUDA and the programs that compute on GPUs no other than
expected, and that the kernels of dfdx assemble for compute capabilities 8.0 (A100) and 9.0 (H100). What to carry
to a machine with a GPU is then in target/gpu: `pipe`, `pipe-cuda-worker`, and `pipe-cuda-timed`, with which
`benches/on_gpu.py` measures.
"""

import argparse
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A driver loads what its own CUDA version or an older one has compiled: 13.0 runs on every driver from 580 on.
WHEELS = """
nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
""".strip()
# Libraries that are linked, by the module of cudarc that declares their functions.
LIBRARIES = {
    "driver": ("libcuda.so", "libcuda.so.1"),
    "nvrtc": ("libnvrtc.so", "libnvrtc.so.13"),
    "cublas": ("libcublas.so", "libcublas.so.13"),
    "cublaslt": ("libcublasLt.so", "libcublasLt.so.13"),
}
# The driver compiles kernels of 8.0 for the GPU at hand.
CAPABILITY = "8.0"
ASSEMBLED_FOR = ["sm_80", "sm_90"]
# What is carried, `pipe` and what links CUDA.
PROGRAMS = ["pipe", "pipe-cuda-worker", "pipe-cuda-timed"]
OF_CUDA = re.compile(r"cuda|cublas|nvrtc|nvidia", re.IGNORECASE)

PROJECT = Path(__file__).resolve().parents[2]


def say(text):
    print(f"== {text}", flush=True)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, cwd=PROJECT, **options)


def output(*command, **options):
    return run(*command, stdout=subprocess.PIPE, text=True, **options).stdout


def unpack_compiler(root):
    """Unpacks the compiler below `root`, unless the same wheels are there already; returns its folder."""
    done = root / "unpacked"
    if done.exists() and done.read_text() == WHEELS:
        return root / "nvidia" / "cu13"
    say("the CUDA 13.0 compiler from PyPI")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(WHEELS)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        run(*pip, "--quiet", "--dest", folder, "-r", requirements)
        for wheel in sorted(Path(folder).glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(root)
    toolkit = root / "nvidia" / "cu13"
    for program in [*toolkit.glob("bin/*"), *toolkit.glob("nvvm/bin/*")]:
        if program.is_file():
            program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    done.write_text(WHEELS)
    return toolkit


def crate(name):
    """The folder of the sources of a dependency."""
    metadata = json.loads(
        output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu")
    )
    found = [package for package in metadata["packages"] if package["name"] == name]
    assert len(found) == 1, f"{len(found)} packages `{name}`"
    return Path(found[0]["manifest_path"]).parent


def make_stand_ins(toolkit):
    """Makes libraries without content to link with, and an `nvidia-smi` that dfdx's build asks."""
    say("stand-ins for the libraries of the driver and of cuBLAS")
    folder = toolkit / "lib64" / "stubs"
    folder.mkdir(parents=True, exist_ok=True)
    sources = crate("cudarc") / "src"
    for module, (file, soname) in LIBRARIES.items():
        names = set(re.findall(r"pub fn (\w+)\s*\(", (sources / module / "sys.rs").read_text()))
        code = folder / f"{module}.c"
        code.write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(names)))
        flags = ["-shared", "-fPIC", "-nostdlib", "-fno-builtin", f"-Wl,-soname,{soname}"]
        run(os.environ.get("CC", "cc"), *flags, "-o", folder / file, code)
        print(f"   {soname}: {len(names)} functions")
    smi = toolkit / "bin" / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho compute_cap\necho {CAPABILITY}\n")
    smi.chmod(0o755)


def build(toolkit):
    """Runs cargo; returns the executables by name and the files of kernels that were compiled."""
    say("cargo build --release, with the feature `cuda`")
    environment = {
        **os.environ,
        "CUDA_PATH": str(toolkit),
        "CUDA_COMPUTE_CAP": CAPABILITY.replace(".", ""),
        "PATH": f"{toolkit / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["cargo", "build", "--release", "--locked", "--package=pipe", "--package=pipe-cuda"]
    command += ["--features=pipe/cuda", "--bins", "--bench=pipe-cuda-timed"]
    options = ["--message-format=json-render-diagnostics"]
    started = time.monotonic()
    text = output(*command, *options, env=environment)
    print(f"   took {time.monotonic() - started:.0f} s")
    executables, kernels = {}, []
    for message in map(json.loads, text.splitlines()):
        if message["reason"] == "compiler-artifact" and message.get("executable"):
            executables[message["target"]["name"]] = Path(message["executable"])
        elif message["reason"] == "build-script-executed":
            kernels += [*Path(message["out_dir"]).glob("*.ptx"), *Path(message["out_dir"]).glob("*.fatbin")]
    return executables, kernels


def needed(executable):
    """The libraries that the loader must find."""
    dynamic = output("readelf", "--dynamic", "--wide", executable)
    return re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)


def glibc(executable):
    """The oldest glibc that has every function that is used."""
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", output("readelf", "--version-info", "--wide", executable))
    return ".".join(map(str, max((int(major), int(minor)) for major, minor in versions)))


def check_libraries(executables):
    say("what the loader must find (readelf --dynamic)")
    for name in PROGRAMS:
        libraries = needed(executables[name])
        print(f"   {name}: {', '.join(libraries)}; glibc {glibc(executables[name])} or newer")
        of_cuda = [library for library in libraries if OF_CUDA.search(library)]
        if name == "pipe" and of_cuda:
            sys.exit(f"`pipe` must start where there is no CUDA, and needs {', '.join(of_cuda)}")
        known = {soname for _, soname in LIBRARIES.values()}
        if name != "pipe" and ("libcuda.so.1" not in of_cuda or not known.issuperset(of_cuda)):
            sys.exit(f"`{name}` needs {of_cuda}, expected are libcuda.so.1 and some of {sorted(known)}")
    return [library for library in needed(executables["pipe-cuda-worker"]) if OF_CUDA.search(library)]


def check_kernels(toolkit, kernels):
    own = [kernel for kernel in kernels if kernel.suffix == ".fatbin"]
    of_dfdx = [kernel for kernel in kernels if kernel.suffix == ".ptx"]
    assert own and of_dfdx, "no kernel was compiled"
    for kernel in own:
        say(f"own kernels, which nvcc has assembled: {kernel.name}, {kernel.stat().st_size / 2**20:.1f} MiB")
    say(f"dfdx's kernels assemble for {' and '.join(ASSEMBLED_FOR)} (ptxas)")
    ptxas = toolkit / "bin" / "ptxas"

    def assemble(task):
        kernel, architecture = task
        result = subprocess.run(
            [ptxas, f"-arch={architecture}", "-o", os.devnull, kernel], capture_output=True, text=True, check=False
        )
        return None if result.returncode == 0 else f"{kernel.name} for {architecture}:\n{result.stderr}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [(kernel, architecture) for kernel in of_dfdx for architecture in ASSEMBLED_FOR]
        problems = list(filter(None, pool.map(assemble, tasks)))
    if problems:
        sys.exit("\n".join(problems))
    entries = sum(kernel.read_text().count(".entry") for kernel in of_dfdx)
    print(f"   {len(of_dfdx)} files, {entries} kernels")


def check_start(executables):
    say("what starts here")
    print("  ", output(executables["pipe"], "--version").strip())
    asked = subprocess.run([executables["pipe-cuda-worker"], "--devices"], capture_output=True, text=True, check=False)
    said = (asked.stdout + asked.stderr).strip()
    print(f"   pipe-cuda-worker --devices: exit code {asked.returncode}, {said}")


def collect(executables, folder):
    """Puts the programs without what is for debuggers into one folder."""
    say("to carry to a machine with an NVIDIA GPU (compute capability 8.0 or newer, driver 580 or newer)")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        run("strip", "-o", folder / name, executables[name])
        print(f"   {folder / name}: {(folder / name).stat().st_size / 2**20:.1f} MiB")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--toolkit", type=Path, default=PROJECT / "target" / "cuda-toolkit", help="where the compiler is put"
    )
    options = arguments.parse_args()
    toolkit = unpack_compiler(options.toolkit.resolve())
    make_stand_ins(toolkit)
    executables, kernels = build(toolkit)
    libraries = check_libraries(executables)
    check_kernels(toolkit, kernels)
    check_start(executables)
    own = [library for library in libraries if library != "libcuda.so.1"]
    collect(executables, PROJECT / "target" / "gpu")
    print(
        f"   into one folder. libcuda.so.1 is part of the driver there. {', '.join(own)} must be found: from\n"
        "   CUDA 13, or from PyPI with `pip install 'nvidia-cublas<14'` (PyTorch for CUDA 13 has it),\n"
        "   then\n"
        "   export LD_LIBRARY_PATH=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])')/cu13/lib"
    )


if __name__ == "__main__":
    main()
