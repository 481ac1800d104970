"""How fast products, passes and updates are on the card, ours beside PyTorch's: parts of `on_gpu.py`."""

import statistics

from gpu_bench import (
    BATCH,
    BLOCKS,
    PRECISIONS,
    ROUNDS,
    TOKENS,
    TORCH_TYPES,
    WIDTH,
    encode,
    make_project,
    operations,
    random_prompts,
    stage,
    write_tokens,
    zero_shot,
)


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
