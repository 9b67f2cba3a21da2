"""Learning rates of what an adapter trains: angles, the values between frames, and everything else."""

from __future__ import annotations

from typing import Any

from torch import nn

from qas.adapters.circuit import FrameAdapter, RotationAdapter, TaylorAdapter
from qas.checks import finite_number

ANGLES, VALUES, REST = 1e-1, 1e-2, 1e-2
"""Learning rates of Adam for angles of circuits, singular values, and heads or other adapters."""


def parameter_groups(
    model: nn.Module,
    *,
    angles: float = ANGLES,
    values: float = VALUES,
    rest: float = REST,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """What of a model is to be trained, in groups with their own learning rates, for any optimizer of torch.

    An angle is an angle in layers of every width, a singular value is not, and neither is the weight of a head: one
    rate for all three is either too small for angles or too large for the rest. Angles and singular values are not
    decayed, as zero is nothing special for an angle.

    Args:
        model: with adapters, such as peft's; parameters that are not trained are left out.
        angles: learning rate of angles; the entries of Taylor maps are no angles and count to the rest.
        values: of the singular values between two frames.
        rest: of all others: a new head, what ``modules_to_save`` names, adapters of another kind.
        weight_decay: of the rest.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; none is empty.

    Raises:
        QasError: a rate that is not positive and finite, or a negative decay.
    """
    rates = {"angles": angles, "values": values, "rest": rest}
    rates = {name: finite_number(name, rate, above=0) for name, rate in rates.items()}
    decay = {"rest": finite_number("weight_decay", weight_decay, least=0)}
    place: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, (FrameAdapter, RotationAdapter)):
            place[id(module.angles)] = "rest" if isinstance(module, TaylorAdapter) else "angles"
            if module.values is not None:
                place[id(module.values)] = "values"
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[place.get(id(parameter), "rest")].append(parameter)
    return [
        {"params": held, "lr": rates[name], "weight_decay": decay.get(name, 0.0), "name": name}
        for name, held in groups.items()
        if held
    ]
