"""A training step of many adapted layers: launches, time and memory, beside LoRA of rank 8 and the frozen layers.

    python benchmarks/adapter_step.py --device cuda --out results/adapters/step_cuda.json
    python benchmarks/adapter_step.py --launches-only --out results/adapters/launches.json     # counted without a GPU

Linear layers one after the other, residual, frozen, in bfloat16 on CUDA; forward and backward without an optimizer, as
its cost is that of its parameters. `frames` counts what making all frames (or all blocks of rotations) and their
backward pass launch, `step` all of it. Times are medians of steps in turn; memory is the peak of a step above what was
there before it, and what lies between forward and backward. `--launches-only` counts `frames` alone; without a GPU it
counts the operations that one would launch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from timing import launches
from torch import Tensor, nn

from qas.adapters import CircuitAdapterConfig, circuit, maps, quantize
from qas.adapters.base import Adapter

METHODS: dict[str, Callable[[], peft.PeftConfig | None]] = {
    "frozen base": lambda: None,
    "LoRA r=8": lambda: peft.LoraConfig(r=8, target_modules=["linear"]),
    "frames K=8 L=1": lambda: CircuitAdapterConfig(rank=8, layers=1, target_modules=["linear"]),
    "frames K=8 L=3": lambda: CircuitAdapterConfig(rank=8, layers=3, target_modules=["linear"]),
    "frames K=8 L=1, 8 bits": lambda: CircuitAdapterConfig(rank=8, layers=1, bits=8, target_modules=["linear"]),
    "rotation L=1": lambda: CircuitAdapterConfig(form="rotation", layers=1, target_modules=["linear"]),
}


class Block(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(*weight.shape, bias=False, device="meta")
        self.linear.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


class Blocks(nn.Module):
    """Layers of one size; they share one weight where memory is short."""

    def __init__(self, modules: int, size: int, device: str, shared: bool) -> None:
        super().__init__()
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32

        def weight() -> Tensor:
            return torch.randn(size, size, device=device).div(modules * size**0.5).to(dtype)

        first = weight()
        self.blocks = nn.ModuleList(Block(first if shared else weight()) for _ in range(modules))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def adapted(name: str, arguments: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = Blocks(arguments.modules, arguments.size, arguments.device, arguments.device == "cpu")
    config = METHODS[name]()
    if config is not None:
        model = peft.get_peft_model(model, config)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad and not parameter.any():
                    parameter.normal_(std=0.01)
    return model


def only_matrices(members: list[Any]) -> Callable[[], None]:
    """Frames or blocks of all layers and their backward pass, nothing else."""
    cotangents = [torch.randn_like(part) for member in members for part in member.matrices()]

    def call() -> None:
        for member in members:
            member.zero_grad()
        torch.autograd.backward([part for member in members for part in member.matrices()], cotangents)

    return call


def counted(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Launches of frames or blocks, on the path that a GPU takes; this one has the CPU take it."""
    torch.manual_seed(0)
    config = METHODS[name]()
    if not isinstance(config, CircuitAdapterConfig):
        return {"method": name, "launches": {}}
    for module in (maps, circuit, quantize):
        module.readable = lambda _: False  # type: ignore[attr-defined]
    members = [config.make(arguments.size, arguments.size) for _ in range(arguments.modules)]
    circuit.share_maps(members)
    return {"method": name, "launches": {"frames": launches(only_matrices(members))}}


def step(model: nn.Module, x: Tensor, cotangent: Tensor) -> None:
    model.zero_grad()
    x.grad = None
    model(x).backward(cotangent)


def memory(model: nn.Module, x: Tensor, cotangent: Tensor) -> dict[str, int]:
    model.zero_grad()
    x.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = model(x)
    between = torch.cuda.memory_allocated() - before
    out.backward(cotangent)
    del out
    return {"peak_bytes": torch.cuda.max_memory_allocated() - before, "kept_bytes": between}


def timed(model: nn.Module, x: Tensor, cotangent: Tensor) -> float:
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    step(model, x, cotangent)
    synchronize()
    return time.perf_counter() - start


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    model = adapted(name, arguments)
    dtype = torch.bfloat16 if arguments.device.startswith("cuda") else torch.float32
    x = torch.randn(arguments.tokens, arguments.size, device=arguments.device, dtype=dtype).requires_grad_()
    cotangent = torch.randn_like(x)
    row: dict[str, Any] = {"method": name, "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad)}
    step(model, x, cotangent)
    row["launches"] = {"step": launches(lambda: step(model, x, cotangent))}
    if members := [module for module in model.modules() if isinstance(module, Adapter)]:
        row["launches"]["frames"] = launches(only_matrices(members))
    for _ in range(3):
        timed(model, x, cotangent)
    row["milliseconds"] = 1e3 * statistics.median(timed(model, x, cotangent) for _ in range(arguments.repeats))
    if x.is_cuda:
        row |= memory(model, x, cotangent)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modules", type=int, default=64)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--launches-only", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    hardware = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    found: dict[str, Any] = {"hardware": hardware, "torch": torch.__version__, "rows": []}
    found |= {name: getattr(arguments, name) for name in ("modules", "size", "tokens")}
    for name in arguments.methods:
        row = (counted if arguments.launches_only else measure)(name, arguments)
        found["rows"].append(row)
        print(json.dumps(row), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
