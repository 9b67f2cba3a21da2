"""Learning rates by what a parameter is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qas.errors import QasError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.peft


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.v, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.q(x)) + self.v(x))


def found(config: object, **rates: float) -> dict[str, tuple[int, float, float]]:
    """Name of a group -> numbers in it, its rate and its decay."""
    from qas.adapters import parameter_groups

    model = peft.get_peft_model(Net(), config)
    groups = parameter_groups(model, **rates)
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    torch.optim.AdamW(groups)
    return {g["name"]: (sum(p.numel() for p in g["params"]), g["lr"], g["weight_decay"]) for g in groups}


def test_angles_values_and_the_rest_have_rates_of_their_own() -> None:
    from qas.adapters import CircuitAdapterConfig

    both = {"target_modules": ["q", "v"], "modules_to_save": ["out"]}
    frames = CircuitAdapterConfig(layers=1, rank=3, **both)
    head = 16 * 2 + 2
    assert found(frames, weight_decay=0.5) == {
        "angles": (2 * 2 * (3 * 4 - 2), 1e-1, 0.0),
        "values": (2 * 3, 1e-2, 0.0),
        "rest": (head, 1e-2, 0.5),
    }
    turned = CircuitAdapterConfig(form="rotation", target_modules=["q"])
    assert found(turned, angles=0.3) == {"angles": (10, 0.3, 0.0)}
    taylor = found(CircuitAdapterConfig(circuit="taylor", rank=2, **both), rest=1e-3, values=2e-3)
    assert taylor == {"values": (4, 2e-3, 0.0), "rest": (2 * 2 * 15 + head, 1e-3, 0.0)}
    assert found(peft.LoraConfig(r=1, target_modules=["q"])) == {"rest": (32, 1e-2, 0.0)}


@pytest.mark.parametrize("wrong", [{"angles": 0.0}, {"values": math.nan}, {"rest": -1.0}, {"weight_decay": -1.0}])
def test_rates_are_positive(wrong: dict[str, float]) -> None:
    from qas.adapters import parameter_groups

    with pytest.raises(QasError, match=next(iter(wrong))):
        parameter_groups(Net(), **wrong)
