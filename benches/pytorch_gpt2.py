"""GPT-2 in PyTorch, done well and the plain way: what this project is held against.

Run as a program, it is the whole experiment: zero-shot, fine-tuning and LoRA from prepared reviews, or from
their tokens, to accuracies, on one JSON line. All blocks in every step, frozen parameters without gradient,
batches of 12 padded to their longest, the head on the last token; evaluation in inference mode, by length.

In bf16 the matrices of frozen blocks are cast once; what is trained stays in f32 and is computed under
`torch.autocast`.
"""

import argparse
import json
import math
import random
import re
import struct
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, BLOCKS, TRAINED = 768, 12, 12, 2
POSITIVE, NEGATIVE = 33733, 36183  # " Positive", " Negative"


class LowRank(nn.Module):
    """A frozen linear map of which the columns of q and v have a low-rank addition."""

    def __init__(self, inner, rank=8, alpha=1.0):
        super().__init__()
        self.inner, self.scale = inner, alpha / rank
        bound = 1 / math.sqrt(WIDTH)
        self.a = nn.ParameterList(nn.Parameter(torch.empty(rank, WIDTH).uniform_(-bound, bound)) for _ in "qv")
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(WIDTH, rank)) for _ in "qv")

    def forward(self, x):
        q, k, v = self.inner(x).split(WIDTH, dim=-1)
        added = [F.linear(F.linear(x, a), b) * self.scale for a, b in zip(self.a, self.b)]
        return torch.cat([q + added[0], k, v + added[1]], dim=-1)


class Block(nn.Module):
    def __init__(self, sdpa=True, dropout=0.0):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.sdpa, self.dropout = sdpa, dropout

    def forward(self, x):
        share = self.dropout if self.training else 0.0
        x = x + F.dropout(self.output(self.attention(self.norm_1(x), share)), share, self.training)
        inner = F.gelu(self.up(self.norm_2(x)), approximate="tanh")
        return x + F.dropout(self.down(inner), share, self.training)

    def attention(self, x, share):
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2) for part in self.qkv(x).split(WIDTH, dim=-1)
        )
        if self.sdpa:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=share, is_causal=True)
        else:
            future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            weights = F.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
            mixed = F.dropout(weights, share, self.training) @ v
        return mixed.transpose(1, 2).reshape(batch, length, WIDTH)


class Classifier(nn.Module):
    """Blocks, of which the last are trained, the final norm, and a head on the last token."""

    def __init__(self, blocks, method, dropout, sdpa=True):
        super().__init__()
        self.blocks = nn.ModuleList(Block(sdpa) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1)
        self.method = method
        for block in self.blocks[-TRAINED:]:
            block.dropout = dropout

    def prepare(self, device="cpu", dtype=torch.float32):
        """Freezes what is not trained, adds what is, and puts all on a device; after the weights are in place."""
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        for block in self.blocks[-TRAINED:]:
            if self.method == "lora":
                block.qkv = LowRank(block.qkv)
            else:
                block.requires_grad_(True)
        self.norm.requires_grad_(self.method == "fine_tune")
        self.to(device)
        for block in self.blocks if self.method == "zero_shot" else self.blocks[:-TRAINED]:
            for linear in filter(lambda part: isinstance(part, nn.Linear), block.modules()):
                linear.to(dtype)
        return self

    def states(self, x, lengths):
        with torch.no_grad():
            for block in self.blocks[:-TRAINED]:
                x = block(x)
        for block in self.blocks[-TRAINED:]:
            x = block(x)
        last = torch.as_tensor(lengths).to(x.device, non_blocking=True) - 1
        return self.norm(x[torch.arange(len(lengths), device=x.device), last])

    def forward(self, x, lengths):
        return self.head(self.states(x, lengths)).squeeze(-1)


def computing(device, dtype):
    """Computes in `dtype` what can be, if that is not f32."""
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)


class Trainer:
    """One update at a time."""

    def __init__(self, model, rate=1e-4, dtype=torch.float32):
        self.model, self.dtype = model.train(), dtype
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decaying = [parameter for parameter in self.parameters if parameter.dim() >= 2]
        others = [parameter for parameter in self.parameters if parameter.dim() < 2]
        groups = [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)

    def update(self, x, lengths, labels):
        with computing(x.device, self.dtype):
            loss = F.binary_cross_entropy_with_logits(self.model(x, lengths).float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def load(model, weights, device="cpu", dtype=torch.float32):
    """Gives `model` the tensors of a file with Hugging Face's names."""
    put = lambda target, name, turn=False: target.data.copy_(weights[name].T if turn else weights[name])
    for index, block in enumerate(model.blocks):
        parts = {"ln_1": block.norm_1, "ln_2": block.norm_2, "attn.c_attn": block.qkv}
        parts |= {"attn.c_proj": block.output, "mlp.c_fc": block.up, "mlp.c_proj": block.down}
        for name, part in parts.items():
            put(part.weight, f"h.{index}.{name}.weight", isinstance(part, nn.Linear))
            put(part.bias, f"h.{index}.{name}.bias")
    put(model.norm.weight, "ln_f.weight")
    put(model.norm.bias, "ln_f.bias")
    return model.prepare(device, dtype)


def read_tensors(path):
    """The tensors of a safetensors file, without the package."""
    types = {"F32": torch.float32, "F16": torch.float16, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8}
    data = bytearray(Path(path).read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header, start = json.loads(data[8 : 8 + length]), 8 + length
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = torch.frombuffer(data[start + begin : start + end] or bytearray(8), dtype=types[entry["dtype"]])
            tensors[name] = flat[: math.prod(entry["shape"])].reshape(entry["shape"])
    return tensors


def tokens(path):
    """Token ids and label of each review of a file that kind `tokenize` wrote."""
    tensors = read_tensors(path)
    offsets, ids = tensors["offset"].tolist(), tensors["token"].tolist()
    return [(ids[a:b], label) for a, b, label in zip(offsets, offsets[1:], tensors["label"].tolist())]


def prompts(tokenizer, path):
    """Token ids and label of each review of a JSON lines file, as the pipeline makes them."""
    prefix, suffix = (tokenizer.encode(text).ids for text in ("Review: ", "Sentiment:"))
    reviews = [json.loads(line) for line in open(path, encoding="utf-8")]
    texts = [re.sub("<.*?>", "", review["text"]) for review in reviews]
    room = 256 - len(prefix) - len(suffix)
    encoded = tokenizer.encode_batch(texts)
    return [(prefix + one.ids[-room:] + suffix, review["label"]) for one, review in zip(encoded, reviews)]


def experiment(options):
    device, dtype = options.device, getattr(torch, options.dtype)
    weights = {name: tensor.to(device) for name, tensor in read_tensors(options.weights).items()}
    if options.tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(options.tokenizer)
        train, test = prompts(tokenizer, options.train), prompts(tokenizer, options.test)
    else:
        train, test = tokens(options.train), tokens(options.test)
    draw = random.Random(1337)
    draw.shuffle(train)
    held_out = round(0.15 * len(train))
    held_out, train = train[:held_out], train[held_out:]

    def batch(rows):
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]).to(device, non_blocking=True)
        x = F.embedding(ids, weights["wte.weight"]) + weights["wpe.weight"][:longest]
        labels = torch.tensor([float(label) for _, label in rows]).to(device, non_blocking=True)
        return x, [len(ids) for ids, _ in rows], labels

    @torch.inference_mode()
    def accuracy(model, rows, score):
        model.eval()
        rows, right = sorted(rows, key=lambda row: len(row[0])), torch.zeros((), device=device)
        for start in range(0, len(rows), options.batch):
            x, lengths, labels = batch(rows[start : start + options.batch])
            with computing(device, dtype):
                right += ((score(model, x, lengths) > 0).float() == labels).sum()
        return right.item() / len(rows)

    def zero_shot(model, x, lengths):
        logits = F.linear(model.states(x, lengths), weights["wte.weight"][[POSITIVE, NEGATIVE]])
        return logits[:, 0] - logits[:, 1]

    results, classify = {}, lambda model, x, lengths: model(x, lengths)
    if "zero_shot" in options.methods:
        model = load(Classifier(BLOCKS, "zero_shot", 0.0), weights, device, dtype)
        results["zero_shot"] = accuracy(model, test, zero_shot)
    for method in sorted({"fine_tune", "lora"}.intersection(options.methods)):
        model = load(Classifier(BLOCKS, method, 0.1), weights, device, dtype)
        trainer = Trainer(model, dtype=dtype)
        for _ in range(options.epochs):
            draw.shuffle(train)
            model.train()
            for start in range(0, len(train), 12):
                trainer.update(*batch(train[start : start + 12]))
        accuracy(model, held_out, classify)
        results[method] = accuracy(model, test, classify)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("weights", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tokenizer", help="makes tokens of reviews; without it the files hold tokens")
    parser.add_argument("--methods", default="zero_shot,fine_tune,lora", type=lambda text: text.split(","))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="prompts of an evaluation batch")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    results = experiment(options)
    print(json.dumps(results | {"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
