"""How fast products, passes and updates are on the card, ours beside PyTorch's: parts of `on_gpu.py`."""

from gpu_bench import BATCH, BLOCKS, PRECISIONS, TOKENS, TORCH_TYPES, WIDTH, operations, prepared

# PyTorch's forward pass: precision, whether attention is one call, whether it is compiled.
VARIANTS = {
    "eager f32": ("f32", False, False),
    "SDPA f32": ("f32", True, False),
    "SDPA bf16": ("bf16", True, False),
    "compiled bf16": ("bf16", True, True),
}
METHODS = ("fine_tune", "lora")
DROPOUT = 0.1
# The batch of the forward pass that is measured first.
FIRST_BATCH = 64


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


def sizes(bench):
    """Batches of the forward pass, and the tokens of a prompt."""
    return ([2], 32) if bench.small else ([16, FIRST_BATCH, 256], TOKENS)


def speeds(figures, count):
    """`figures` with the speed of so many operations."""
    return figures | {"tflops": count / figures["seconds"] / 1e12}


def forward(bench):
    import torch
    from pytorch_gpt2 import Block

    torch.backends.cuda.matmul.allow_tf32 = False
    batches, tokens = sizes(bench)
    for batch in batches:
        rest = batch != FIRST_BATCH and not bench.small
        # Blocks are copied to the card when another precision is asked for.
        for precision in PRECISIONS:
            for what in ("forward", "last"):

                def ours(what=what, precision=precision, batch=batch):
                    answer = bench.ask(what, precision, batch, tokens)
                    return answer and speeds(answer, answer["operations"])

                bench.measure("forward", f"ours {what} {precision}, batch {batch}", ours, rest)
        for name, (precision, sdpa, compiled) in VARIANTS.items():
            if compiled and bench.device == "cpu":
                continue

            def theirs(precision=precision, sdpa=sdpa, compiled=compiled, batch=batch):
                dtype = getattr(torch, TORCH_TYPES[precision])
                torch.manual_seed(1)
                blocks = torch.nn.Sequential(*(Block(sdpa) for _ in range(BLOCKS))).eval().requires_grad_(False)
                blocks = blocks.to(bench.device, dtype)
                blocks = torch.compile(blocks) if compiled else blocks
                x = torch.randn(batch, tokens, WIDTH, device=bench.device, dtype=dtype)
                with torch.inference_mode():
                    figures = bench.repeated(lambda: blocks(x))
                figures |= {"tokens_per_second": batch * tokens / figures["seconds"], "prompts": batch}
                return speeds(figures | {"tokens": tokens}, operations(batch, tokens))

            bench.measure("forward", f"PyTorch {name}, batch {batch}", theirs, rest)
    bench.stop_program()


def batches_of_updates(bench):
    """Lengths of the prompts of an update, by what they are."""
    count, tokens = (2, 32) if bench.small else (BATCH, TOKENS)
    found = {f"{tokens} tokens": [tokens] * count}
    if not bench.options.archive.exists():
        print(f"step: real lengths are skipped, there is no `{bench.options.archive}`")
        return found
    from pytorch_gpt2 import read_tensors

    data, _ = prepared(bench)
    # Spread evenly over those of the reviews, from short to long.
    lengths = sorted(min(length, tokens) for length in read_tensors(data["train"])["length"].tolist())
    real = [lengths[(2 * place + 1) * len(lengths) // (2 * count)] for place in range(count)]
    return found | {"real lengths": real}


def step(bench):
    import torch
    from pytorch_gpt2 import TRAINED, Classifier, Trainer

    for name, lengths in batches_of_updates(bench).items():
        for method in METHODS:
            for precision in PRECISIONS:

                def ours(method=method, precision=precision, lengths=lengths):
                    return bench.ask("update", method, precision, DROPOUT, *lengths)

                bench.measure("step", f"ours {method} {precision}, {name}", ours)
            for precision in ("f32", "bf16"):

                def theirs(method=method, precision=precision, lengths=lengths):
                    dtype = getattr(torch, TORCH_TYPES[precision])
                    torch.manual_seed(1)
                    model = Classifier(TRAINED, method, DROPOUT).prepare(bench.device, dtype)
                    trainer = Trainer(model, dtype=dtype)
                    x = torch.randn(len(lengths), max(lengths), WIDTH, device=bench.device)
                    labels = torch.tensor([float(row % 2) for row in range(len(lengths))], device=bench.device)
                    figures = bench.repeated(lambda: trainer.update(x, lengths, labels))
                    return figures | {"lengths": lengths}

                bench.measure("step", f"PyTorch {method} {precision}, {name}", theirs)
    bench.stop_program()


def profile(bench):
    batch, tokens = (2, 32) if bench.small else (FIRST_BATCH, TOKENS)
    rows = 2 if bench.small else BATCH
    requests = {f"forward f16, batch {batch}": ("forward", "f16", batch, tokens)}
    for method in METHODS:
        requests[f"{method} f16, {rows} of {tokens} tokens"] = ("update", method, "f16", DROPOUT, *[tokens] * rows)
    for what, words in requests.items():
        bench.measure("profile", what, lambda words=words: bench.ask("profile", *words))
    bench.stop_program()
