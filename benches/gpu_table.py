"""Prints what `on_gpu.py` has measured, as lists and tables.

A ratio is PyTorch's time over ours, or our speed over PyTorch's.
"""

PRECISIONS = ("f32", "f16", "bf16")
METHODS = ("zero_shot", "fine_tune", "lora")


def row(*cells):
    print("|", " | ".join(map(str, cells)), "|")


def heading(first, *columns):
    print()
    row(first, *columns)
    row("---", *("---:" for _ in columns))


def table(bench, parts):
    """Prints all figures of this kind of measurement."""
    cards = sorted({line["card"] for part in parts for line in bench.of(part).values()})
    print(f"{', '.join(cards)}; {'a rehearsal, its figures mean nothing' if bench.small else 'full size'}\n")
    ceilings(bench.of("ceilings"))
    correctness(bench)
    forward(bench.of("forward"), bench.of("ceilings"))
    step(bench.of("step"))
    experiment(bench.of("ours"), bench.of("theirs"))
    everything(bench.of("all"))


def ceilings(lines):
    for what, line in lines.items():
        speed = f"{line['tflops']:.1f} TFLOP/s" if "tflops" in line else f"{line['gb_per_second']:.0f} GB/s"
        print(f"- {what}: {speed}")


def correctness(bench):
    for part in ("reference", "agreement"):
        for what, line in bench.of(part).items():
            largest = f", largest difference {line['largest']:.1e}" if "largest" in line else ""
            print(f"- {what}: {'within' if line['ok'] else 'NOT within'} {line['tolerance']:g}{largest}")
    for what, line in bench.of("decisions").items():
        print(f"- zero-shot {what}: {line['flipped']} of {line['rows']} decisions flipped,", end=" ")
        print(f"all with logits within τ = {line['tau']:.1e} of each other (spread {line['spread']:.1e})")


def forward(lines, ceiling):
    if not lines:
        return
    best = {}
    for what, line in lines.items():
        if what.startswith("PyTorch"):
            name = what.removeprefix("PyTorch ").split(",")[0]
            best[name] = max(best.get(name, 0), line["tokens_per_second"])
    heading("12 blocks forward", "tokens/s", "TFLOP/s", "of the ceiling", *(f"/ {name}" for name in best))
    for what, line in lines.items():
        precision = next(name for name in PRECISIONS if name in what.split(",")[0].split())
        top = ceiling.get(f"product {precision}")
        share = f"{100 * line['tflops'] / top['tflops']:.0f} %" if top else ""
        ratios = [f"{line['tokens_per_second'] / other:.2f}" for other in best.values()]
        row(what, f"{line['tokens_per_second']:,.0f}", f"{line['tflops']:.1f}", share, *ratios)


def step(lines):
    if not lines:
        return
    heading("training step", "ours, ms", "PyTorch f32, ms", "ratio", "bf16, ms", "ratio")
    for method in METHODS[1:]:
        if f"ours {method}" not in lines:
            continue
        own, cells = lines[f"ours {method}"]["seconds"], []
        for precision in ("f32", "bf16"):
            other = lines.get(f"PyTorch {method} {precision}")
            cells += [f"{1000 * other['seconds']:.2f}", f"{other['seconds'] / own:.2f}"] if other else ["", ""]
        row(method, f"{1000 * own:.2f}", *cells)


def experiment(ours, theirs):
    if not ours and not theirs:
        return
    reviews = next(iter((ours or theirs).values()))["reviews"]
    heading(f"whole experiment, {reviews} + {reviews} reviews", "s", "GPU MiB", "PyTorch bf16 over it", "f32")
    totals = {}
    for precision in ("bf16", "f32"):
        lines = [theirs.get(f"{method} {precision}") for method in METHODS]
        if all(lines):
            totals[precision] = sum(line["seconds"] for line in lines)
            memory = max(line["gpu MiB"] or 0 for line in lines) or "–"
            row(f"PyTorch {precision}", f"{totals[precision]:.1f}", memory, "", "")
    for what, line in ours.items():
        seconds = {name: totals.get(name) for name in ("bf16", "f32")}
        ratios = [f"{other / line['seconds']:.2f}" if other else "" for other in seconds.values()]
        row(f"ours {what}", f"{line['seconds']:.1f}", line["gpu MiB"] or "–", *ratios)
    print()
    for precision, seconds in totals.items():
        print(f"PyTorch {precision} scaled to 25,000 + 25,000 reviews: {seconds * 25000 / reviews:.0f} s")


def everything(lines):
    for what, line in lines.items():
        calls = f" in {line['calls']} calls; of a stage that went on the last part is told" if line["calls"] > 1 else ""
        print(f"\npipelines/all_three.yaml, {what}: {line['wall']:.0f} s{calls};", end=" ")
        print(f"{line['disk GB']:.1f} GB of disk, {line['gpu MiB'] or '–'} MiB of the GPU\n")
        for stage, seconds in line["stages"].items():
            print(f"- {stage}: {seconds:.1f} s")
