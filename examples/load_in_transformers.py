"""Loads what `pipe export --to transformers` wrote, and compares its scores with those of the run.

    pip install torch transformers peft
    pipe export @last --to transformers
    python examples/load_in_transformers.py models/run_1/fine_tune models/run_1/lora

`load` is all that a program needs. The rest gives each model the prompts that a stage `classify` of the
same run judged with it, as token ids, and fails where a score differs by more than the tolerance: 1e-5
where `encode` kept its states in f32, 1e-3 where it rounded them to f16.
"""

import argparse
import csv
import json
import pathlib
import subprocess

import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file


def load(folder):
    """A classifier with one logit: positive is above 0."""
    if (folder / "model.safetensors").exists():
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    adapter = peft.PeftConfig.from_pretrained(folder)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        adapter.base_model_name_or_path, revision=adapter.revision or "main", num_labels=1, pad_token_id=50256)
    return peft.PeftModel.from_pretrained(base, folder)


def judged(folder, pipe):
    """For each `classify` of the run that used this model: its name, how states are kept, prompts, scores."""
    (file,) = folder.glob("*model.safetensors")
    with safe_open(file, "pt") as opened:
        origin = opened.metadata()
    shown = subprocess.run([pipe, "show", origin["run"], "--json"], check=True, stdout=subprocess.PIPE).stdout
    stages = [stage for stage in json.loads(shown)["stages"] if stage["execution"]]
    makers = {output["digest"]: stage for stage in stages for output in stage["execution"]["outputs"]}
    for stage in stages:
        inputs = stage["execution"]["hashed"]["in"]
        if inputs.get("model") == origin["model"]:
            encode = makers[inputs["hidden"]]
            tokens = encode["execution"]["hashed"]["in"]["tokens"]
            (predictions,) = stage["execution"]["outputs"]
            with open(stored(predictions["digest"]), newline="") as rows:
                scores = [float(row["score"]) for row in csv.DictReader(rows)]
            yield (stage["stage"], encode["params"]["dtype"], prompts(stored(tokens)),
                   torch.tensor(scores, dtype=torch.float64))


def stored(digest):
    return pathlib.Path("cache/v1/objects") / digest[:2] / digest[2:]


def prompts(path):
    tokens = load_file(path)
    offsets = tokens["offset"].tolist()
    return [torch.from_numpy(tokens["token"][start:end]).long() for start, end in zip(offsets, offsets[1:])]


@torch.inference_mode()
def scores(model, prompts, batch=16):
    """The probability of positive for each prompt; prompts of like length share a batch."""
    found = torch.empty(len(prompts), dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for rows in (order[start:start + batch] for start in range(0, len(order), batch)):
        ids = torch.nn.utils.rnn.pad_sequence(
            [prompts[row] for row in rows], batch_first=True, padding_value=model.config.pad_token_id)
        lengths = torch.tensor([len(prompts[row]) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        found[rows] = model(input_ids=ids, attention_mask=mask).logits[:, 0].double().sigmoid()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path, help="such as models/run_1/lora")
    parser.add_argument("--pipe", default="pipe", help="the program [default: %(default)s]")
    parser.add_argument("--tolerance", type=float, help="[default: 1e-5 with states in f32, 1e-3 in f16]")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
    for folder in options.folders:
        model = load(folder).eval()
        for stage, dtype, rows, wanted in judged(folder, options.pipe):
            tolerance = options.tolerance or {"f32": 1e-5, "f16": 1e-3}[dtype]
            largest = (scores(model, rows) - wanted).abs().max().item()
            spread = wanted.max().item() - wanted.min().item()
            print(f"{folder}: {len(rows)} scores of `{stage}` ({dtype} states), which span {spread:.3f}, "
                  f"differ by {largest:.1e} at most")
            assert largest <= tolerance, f"{largest} is more than {tolerance}"


if __name__ == "__main__":
    main()
