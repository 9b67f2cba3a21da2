"""Noise made stronger: in the channels themselves, or as a device does it, by repeating its gates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from qas.checks import finite_number
from qas.errors import NotPhysicalError, QasError
from qas.gates import gate_spec
from qas.noise import Channel, NoiseModel, unitary_ptm

SCALES = ("channel", "fold")
"""Ways to make noise stronger."""


def scaled(noise: NoiseModel, factor: float, scale: str = "channel", *, readout: bool = True) -> NoiseModel:
    """A model whose noise is `factor` times as strong, at the same gates.

    With ``"channel"`` what follows a gate follows it `factor` times: its transfer matrix to that power, which for whole
    numbers is physical and for others is checked when a gate is first met. With ``"fold"``, factor 1, 3, 5, …, each
    two-qubit gate G with its noise is run as G G† G …, as on a device; the model returned has the noise that is left of
    this beside G, and others wait that much longer. One-qubit gates are not repeated. A circuit under this model has
    the energy of the folded circuit under `noise`.

    Args:
        factor: 1 is the noise as it is.
        readout: keep the readout flips, which never grow.

    Raises:
        QasError: no such scale, or a factor it does not have.
    """
    if scale not in SCALES:
        raise QasError(f"noise is scaled by channel or fold, got {scale!r}")
    factor = finite_number("a factor of the noise", factor, above=0.0)
    if scale == "fold" and factor not in range(1, 100, 2):
        raise QasError(f"folding makes noise 1, 3, 5, … times as strong, got {factor:g}")
    idle = noise.idle
    if idle is not None and scale == "channel":  # relaxing for a longer time, or faster, is the same
        times = (tuple(time / factor for time in each) for each in (idle.t1, idle.t2))
        idle = replace(idle, t1=next(times), t2=next(times))
    elif idle is not None:
        longer = {place: (factor if len(place[1]) == 2 else 1.0) * time for place, time in idle.durations.items()}
        idle = replace(idle, durations=longer)
    known = {each.name: getattr(noise, each.name) for each in fields(NoiseModel)} | {"idle": idle}
    if not readout:
        known["readout"] = {}
    return ScaledNoise(**known, base=noise, factor=factor, folded=scale == "fold")


@dataclass(frozen=True, repr=False)
class ScaledNoise(NoiseModel):
    """What `scaled` returns; rules are those of `base`, channels are those of `factor`."""

    base: NoiseModel = field(default_factory=NoiseModel)
    factor: float = 1.0
    folded: bool = False

    def channel(self, gate: str, qubits: tuple[int, ...]) -> np.ndarray | None:
        ptm = self.base.channel(gate, qubits)
        if ptm is None or self.factor == 1.0 or (self.folded and len(qubits) == 1):
            return ptm
        if self.folded:
            return _folded(ptm, gate, int(self.factor))
        return _power(ptm.tobytes(), len(ptm), self.factor)

    def add(self, *arguments: Any, **keywords: Any) -> NoiseModel:
        raise QasError("rules are added before noise is scaled, got them after")

    def to_json(self) -> dict[str, Any]:
        raise QasError(
            f"a file has noise as it is, got noise {self.factor:g} times as strong: scale it once it is read"
        )


@functools.lru_cache(maxsize=4096)
def _power(data: bytes, size: int, factor: float) -> np.ndarray:
    """A channel's transfer matrix to a positive power."""
    ptm = np.frombuffer(data).reshape(size, size)
    if factor == int(factor):
        return np.linalg.matrix_power(ptm, int(factor))
    from scipy.linalg import fractional_matrix_power

    found = fractional_matrix_power(ptm, factor)
    if np.abs(np.imag(found)).max() > 1e-9:
        raise NotPhysicalError(f"noise that is no real channel to the power {factor:g}: scale it by whole numbers")
    return Channel(f"noise to the power {factor:g}", np.real(found)).ptm


def _folded(ptm: np.ndarray, gate: str, factor: int) -> np.ndarray:
    """N (G N G†) N … G: noise beside G of a gate run `factor` times, in turns forth and back."""
    spec = gate_spec(gate)
    if spec.n_angles:
        turned = [_gate(gate, (angle,)) for angle in (0.7, 2.1)]
        if any(np.abs(turn @ ptm - ptm @ turn).max() > 1e-12 for turn in turned):
            raise QasError(f"folding repeats cx, cz and other gates without angles, got {gate}: scale=channel takes it")
        return np.linalg.matrix_power(ptm, factor)
    here = _gate(gate, ())
    back = here @ ptm @ here.T
    total = ptm
    for turn in range(1, factor):
        total = total @ (back if turn % 2 else ptm)
    return total


def _gate(name: str, angles: Sequence[float]) -> np.ndarray:
    return unitary_ptm(gate_spec(name).matrix(*angles))
