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
    profile(bench.of("profile"), bench.of("ceilings"))
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


def share_of_ceiling(tflops, precision, ceiling):
    """By how much the card's large product in this precision is reached, as text."""
    top = ceiling.get(f"product {precision}")
    return f"{100 * tflops / top['tflops']:.0f} %" if top else ""


def forward(lines, ceiling):
    """A table a batch: ours, and PyTorch's as rows and as what ratios are to."""
    for batch in sorted({line["prompts"] for line in lines.values()}):
        of_batch = {what.split(",")[0]: line for what, line in lines.items() if line["prompts"] == batch}
        others = {what.removeprefix("PyTorch "): line for what, line in of_batch.items() if what.startswith("PyTorch")}
        tokens = max(line["tokens"] for line in of_batch.values())
        heading(
            f"12 blocks, {batch} prompts of {tokens} tokens",
            *("ms", "least–most", "tokens/s", "TFLOP/s", "of the ceiling"),
            *(f"/ {name}" for name in others),
        )
        for what, line in of_batch.items():
            precision = next(name for name in PRECISIONS if name in what.split())
            share = share_of_ceiling(line["tflops"], precision, ceiling)
            ratios = [f"{other['seconds'] / line['seconds']:.2f}" for other in others.values()]
            speed = f"{line['tokens_per_second']:,.0f}", f"{line['tflops']:.1f}"
            row(what, f"{1000 * line['seconds']:.3f}", spread(line), *speed, share, *ratios)


def spread(line):
    return f"{1000 * line['least']:.3f}–{1000 * line['most']:.3f}"


def step(lines):
    if not lines:
        return
    heading("training step", "ours, ms", "least–most", "PyTorch f32, ms", "ratio", "bf16, ms", "ratio")
    for what, line in lines.items():
        if not what.startswith("ours"):
            continue
        method, (_, name) = what.split()[1], what.split(", ")
        cells = []
        for precision in ("f32", "bf16"):
            other = lines.get(f"PyTorch {method} {precision}, {name}")
            ratio = other and f"{other['seconds'] / line['seconds']:.2f}"
            cells += [f"{1000 * other['seconds']:.3f}", ratio] if other else ["", ""]
        row(what.removeprefix("ours "), f"{1000 * line['seconds']:.3f}", spread(line), *cells)


def profile(lines, ceiling):
    """A table a profile: tasks of one repetition, longest first."""
    for what, line in lines.items():
        heading(f"{what}: task", "count", "µs", "of all tasks", "µs each", "TFLOP/s", "of the ceiling")
        for task in line["tasks"]:
            share = f"{task['microseconds'] / line['busy'] / 1e4:.1f} %"
            cells = [task["count"], f"{task['microseconds']:.1f}", share, f"{task['microseconds'] / task['count']:.1f}"]
            if "tflops" in task:
                precision = task["name"].split()[2]
                cells += [f"{task['tflops']:.1f}", share_of_ceiling(task["tflops"], precision, ceiling)]
            row(task["name"], *cells, *[""] * (6 - len(cells)))
        print(f"\nAll tasks {1000 * line['busy']:.3f} ms, each with {1e6 * line['empty']:.1f} µs of an empty one;", end=" ")
        print(f"from the first to the last {1000 * line['span']:.3f} ms;", end=" ")
        print(f"not recorded, by the host's clock, {1000 * line['seconds']:.3f} ms ({spread(line)})")


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
