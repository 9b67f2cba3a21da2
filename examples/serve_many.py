"""Adapters of many users on one model, under a kilobyte each, trained apart and served in batches that mix them.

python examples/serve_many.py                                   # 6 users of a small random model, in seconds
python examples/serve_many.py --base path/to/hf-model --users 100

What a user's adapter learns here: that two sentences of theirs mean the same. The folder that is written holds all
users: peft's settings, and the bytes of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model
from torch import Tensor

from qas.adapters import CircuitAdapterConfig, parameter_groups
from qas.adapters.serving import AdapterStore

STEPS, LENGTH = 8, 12


def encoder(folder: str | None) -> Any:
    """A transformers model from a folder, or a small random one."""
    if folder is not None:
        return transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    config = transformers.BertConfig(
        vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    torch.manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.BertModel(config)


def embedded(model: Any, ids: Tensor, **more: Any) -> Tensor:
    return torch.nn.functional.normalize(model(input_ids=ids, **more).last_hidden_state.mean(1), dim=-1)


def likeness(model: Any, pair: Tensor, **more: Any) -> Tensor:
    first, second = embedded(model, pair, **more)
    return first @ second


def train(model: Any, pair: Tensor) -> None:
    """The model's adapter, from its start, on one user's sentences."""
    groups = parameter_groups(model, values=0.2)
    with torch.no_grad():
        for value in next(group["params"] for group in groups if group["name"] == "values"):
            value.zero_()
    optimizer = torch.optim.Adam(groups)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (1 - likeness(model, pair)).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", metavar="DIR", help="a local transformers encoder (default: a small random one)")
    parser.add_argument("--users", type=int, default=6)
    given = parser.parse_args()

    base = encoder(given.base)
    config = CircuitAdapterConfig(rank=8, bits=8, target_modules=["query", "value"])
    model = get_peft_model(base, config).eval()
    store = AdapterStore(model)
    pairs = torch.randint(
        4, base.config.vocab_size, (given.users, 2, LENGTH), generator=torch.Generator().manual_seed(1)
    )
    learned = []
    for user, pair in enumerate(pairs):
        train(model, pair)
        store[f"user-{user}"] = store.packed()
        learned.append(float(likeness(model, pair).detach()))

    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        size = store.save(Path(place) / "users")
        print(f"{len(store)} users, {store.size} bytes each, {size:,} bytes on disk")
        serving = AdapterStore.load(encoder(given.base), Path(place) / "users")

        # One batch: two sentences of every user, each through the adapter of its own.
        names = [user for user in store for _ in range(2)]
        start = time.perf_counter()
        mixed = embedded(serving.model, pairs.flatten(0, 1), adapter_names=serving.rows(names))
        seconds = time.perf_counter() - start
        ours = (mixed[0::2] * mixed[1::2]).sum(-1)
        plain = embedded(serving.model, pairs.flatten(0, 1), adapter_names=serving.rows(["__base__"] * len(names)))
        theirs = (plain[0::2] * plain[1::2]).sum(-1)
        print(f"a batch of {len(names)} rows in {1e3 * seconds:.0f} ms, {serving.bytes_held:,} bytes of matrices kept")
        print(f"likeness of a user's sentences: {theirs.mean():.3f} without adapters, {ours.mean():.3f} with them")

        off = max(abs(float(found) - wanted) for found, wanted in zip(ours, learned, strict=True))
        print(f"largest difference to what each user's own model said after training: {off:.1e}")


if __name__ == "__main__":
    main()
