"""Time of one adapted linear layer, forward and backward, against peft's LoRA of rank 8 in the same run.

    python benchmarks/adapter_speed.py [--sizes 768 1024 2048 4096] [--repeats 15] [--out results/adapters/speed.json]

Each method in turn, one step to warm up and one that counts, `repeats` rounds, median of the rounds; input of 256
tokens that needs a gradient, float32, frozen base. Ratios are medians of the ratios within each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qas.adapters.circuit import CircuitAdapter, RotationAdapter

TOKENS = 256


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear, adapter: nn.Module) -> None:
        super().__init__()
        self.base, self.adapter = base.requires_grad_(False), adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter(x, self.base)


def ours(size: int) -> dict[str, Callable[[], nn.Module]]:
    def adapted(adapter: nn.Module) -> nn.Module:
        with torch.no_grad():
            if adapter.values is not None:
                adapter.values.normal_()
            else:
                adapter.angles.normal_(std=0.1)
        return Adapted(nn.Linear(size, size), adapter)

    found = {
        "frames K=8 L=1": lambda: adapted(CircuitAdapter(size, size, rank=8, layers=1)),
        "frames K=8 L=3": lambda: adapted(CircuitAdapter(size, size, rank=8, layers=3)),
    }
    if size & (size - 1) == 0:
        found["rotation L=1"] = lambda: adapted(RotationAdapter(size, size, layers=1))
        found["rotation L=2"] = lambda: adapted(RotationAdapter(size, size, layers=2))
    return found


def peers(size: int, slow: bool) -> dict[str, Callable[[], nn.Module]]:
    import peft

    def wrapped(config: peft.PeftConfig) -> nn.Module:
        model = nn.Sequential()
        model.add_module("layer", nn.Linear(size, size))
        return peft.get_peft_model(model, config)

    target = {"target_modules": ["layer"]}
    found: dict[str, Callable[[], nn.Module]] = {
        "frozen base": lambda: nn.Linear(size, size).requires_grad_(False),
        "LoRA r=8": lambda: wrapped(peft.LoraConfig(r=8, **target)),
        "OFT b=32": lambda: wrapped(peft.OFTConfig(oft_block_size=32, r=0, **target)),
    }
    if slow:
        found["HRA r=8"] = lambda: wrapped(peft.HRAConfig(r=8, **target))
        found["BOFT b=4"] = lambda: wrapped(peft.BOFTConfig(boft_block_size=4, **target))
    return found


def step(module: nn.Module, x: Tensor, cotangent: Tensor) -> float:
    start = time.perf_counter()
    module(x).backward(cotangent)
    elapsed = time.perf_counter() - start
    x.grad = None
    for parameter in module.parameters():
        parameter.grad = None
    return elapsed


def measure(size: int, repeats: int, slow: bool) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    modules = {name: make() for name, make in (peers(size, slow) | ours(size)).items()}
    x = torch.randn(TOKENS, size, requires_grad=True)
    cotangent = torch.randn(TOKENS, size)
    times: dict[str, list[float]] = {name: [] for name in modules}
    for module in modules.values():
        step(module, x, cotangent)
    for _ in range(repeats):
        for name, module in modules.items():
            step(module, x, cotangent)  # what ran before left the memory allocator in its own state
            times[name].append(step(module, x, cotangent))
    reference = times["LoRA r=8"]
    return {
        name: {
            "milliseconds": 1e3 * statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, reference, strict=True)),
            "trainable": sum(p.numel() for p in modules[name].parameters() if p.requires_grad),
        }
        for name, found in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[768, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--slow-peers", action="store_true", help="time HRA and BOFT too, up to 2048")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"tokens": TOKENS, "torch": torch.__version__, "threads": {}}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        sizes = found["threads"][threads] = {}
        for size in arguments.sizes:
            rows = sizes[size] = measure(size, arguments.repeats, arguments.slow_peers and size <= 2048)
            print(f"N = {size}, {threads} thread(s)")
            for name, row in rows.items():
                print(
                    f"  {name:16s} {row['milliseconds']:9.2f} ms  x{row['ratio']:.3f}  {row['trainable']:>8d} trainable"
                )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
