"""Exact values behind few-bit angles, carried by the state of optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qas.adapters.circuit import CircuitAdapter

X, WANTED = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05},
    "AdamW": {"lr": 0.05, "foreach": True},
    "Adagrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.02},
    "LBFGS": {"lr": 0.2, "max_iter": 2},
}


def adapter(seed: int = 1) -> CircuitAdapter:
    generator = torch.Generator().manual_seed(seed)
    made = CircuitAdapter(16, 16, rank=3, bits=2, scale=1.0, generator=generator)
    assert made.values is not None
    with torch.no_grad():
        made.values.copy_(torch.randn(3, generator=generator))
    return made


def fit(own: CircuitAdapter, optimizer: torch.optim.Optimizer, steps: int) -> None:
    def loss() -> Tensor:
        optimizer.zero_grad()
        found = (own.delta(X) - WANTED).square().sum()
        found.backward()
        return found

    for _ in range(steps):
        optimizer.step(loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_training_goes_on_exactly_where_its_optimizer_left_it(kind: str) -> None:
    unbroken = adapter()
    optimizer = getattr(torch.optim, kind)(unbroken.parameters(), **OPTIMIZERS[kind])
    fit(unbroken, optimizer, 3)
    kept = copy.deepcopy(optimizer.state_dict())
    resumed = adapter(seed=2)
    resumed.unpack(unbroken.pack())
    assert not resumed.angles.equal(unbroken.angles)
    again = getattr(torch.optim, kind)(resumed.parameters(), **OPTIMIZERS[kind])
    again.load_state_dict(kept)
    fit(unbroken, optimizer, 3)
    fit(resumed, again, 3)
    for found, wanted in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert found.equal(wanted)


def test_values_of_another_adapter_are_not_taken_over() -> None:
    first, second = adapter(), adapter(seed=2)
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.05)
    fit(first, optimizer, 1)
    other = torch.optim.AdamW(second.parameters(), lr=0.05)
    other.load_state_dict(optimizer.state_dict())
    other.param_groups[0] |= {"lr": 0.0, "weight_decay": 0.0}
    before = [parameter.detach().clone() for parameter in second.parameters()]
    fit(second, other, 1)
    assert all(map(torch.equal, before, second.parameters()))


def test_optimizers_of_others_and_parameters_that_do_not_move_are_left_alone() -> None:
    few, plain = adapter(), nn.Linear(2, 1)
    exact = CircuitAdapter(16, 16, rank=3)
    optimizer = torch.optim.AdamW([*plain.parameters(), *exact.parameters(), *few.parameters()])
    (plain(torch.ones(1, 2)).sum() + exact.delta(X).sum()).backward()
    optimizer.step()
    moved = [*plain.parameters(), *exact.parameters()]
    assert all(set(optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"} for parameter in moved)
    assert not any(parameter in optimizer.state for parameter in few.parameters())
