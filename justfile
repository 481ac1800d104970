# Recipes for people who work on pipe; `.ci/run` is what decides whether a change lands.

default:
    @just --list

# Formatting, lints and the fast tests.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo test --release --workspace

# The published experiment, offline: made-up reviews and a small random model.
demo:
    cargo run --release -- run pipelines/all_three.yaml --profile demo

# The whole fault campaign: kills, damage and pairs of runs in 100 projects, some five minutes.
faults projects="100":
    PIPE_FAULTS={{projects}} cargo test --release --test faults campaign -- --nocapture

# Builds for GPUs where there is neither CUDA toolkit nor GPU, with nvcc from PyPI: what to carry is in target/gpu.
cuda:
    python3 stages/cuda/build_without_toolkit.py

# Runs what `just cuda` has built, with a stand-in for the driver of the GPU.
cuda-try:
    python3 stages/cuda/try_without_gpu.py

# Measures on a machine with a GPU beside PyTorch; a part that was stopped goes on. docs/gpus.md says what to carry.
gpu *arguments:
    python3 benches/on_gpu.py {{arguments}}
    python3 benches/on_gpu.py --print

# Exactly what CI runs.
ci:
    .ci/run

# The JSON Schema that editors use for pipelines/*.yaml.
schema:
    cargo run --release -- schema --out docs/pipeline.schema.json

# Writes anew what `docs/` shows: the pages made from the code, and what every command prints.
docs:
    PIPE_DOCS=write cargo test --release -p pipe --test docs

# Slow checks against real programs, by hand: a report in headless Chromium (Debian's `chromium`), exports in
# TensorBoard and MLflow (from PyPI, some 700 MB in target/venv), trained models in transformers and peft.
full: demo models
    target/release/pipe report @last --out target/report.html
    python3 tests/browser/report.py target/report.html target/screenshots
    test -x target/venv/bin/mlflow || (python3 -m venv target/venv && target/venv/bin/pip install -q tensorboard mlflow)
    target/venv/bin/python tests/export/read_back.py target/release/pipe

# Trained models in transformers and peft (from PyPI, some 6 GB in target/transformers; a quarter of that with
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu): the same scores, from rounded and from exact states.
models:
    test -x target/transformers/bin/torchrun || (python3 -m venv target/transformers && target/transformers/bin/pip install -q torch transformers peft)
    rm -rf target/models
    cargo run --release -- run pipelines/all_three.yaml --profile demo --set trunk_test.dtype=f32
    target/release/pipe export @last --to transformers --out target/models
    cargo run --release -- run pipelines/all_three.yaml --profile demo
    target/release/pipe export @last --to transformers --out target/models
    target/transformers/bin/python examples/load_in_transformers.py target/models/*/* --pipe target/release/pipe
