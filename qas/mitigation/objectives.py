"""What a search minimizes on a noisy device: the raw energy, the energy without readout errors, or without noise.

To add one, subclass `Scored`, and register it (`OBJECTIVES`, or an entry point in the group ``qas.objectives``), or
pass the class or an instance wherever a name is taken.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from qas.checks import finite_number, whole_number
from qas.errors import QasError
from qas.mitigation.extrapolation import (
    Extrapolation,
    PolyExponential,
    Polynomial,
    intercept_weights,
    make_extrapolation,
    read_nodes,
)
from qas.mitigation.sampling import checked_assignment
from qas.mitigation.scaling import SCALES, scaled
from qas.mitigation.score import Recipe
from qas.noise import NoiseModel
from qas.registry import Registry, recorded
from qas.simulators.base import Simulator

SHOTS = 1_000_000
"""Measurements, all nodes and groups together, unless told otherwise."""


class Scored(abc.ABC):
    """What circuits are judged by: an energy as a recipe makes it from noisy ones, plus what measuring it costs.

    The score is ``energy + kappa * sigma``, with sigma the standard error of an estimate of the energy from `shots`
    measurements (see `qas.mitigation.sampling`).

    Args:
        shots: measurements, all strengths of the noise and groups of strings together, at least 1.
        kappa: weight of the standard error in the score, at least 0.

    Raises:
        QasError: a number out of range.
    """

    about: ClassVar[str] = ""
    """one line for lists"""
    needs_noise: ClassVar[bool] = True
    """whether it means nothing on a perfect device"""

    def __init__(self, *, shots: int = SHOTS, kappa: float = 1.0) -> None:
        self.shots = whole_number("shots", shots)
        self.kappa = finite_number("kappa", kappa, least=0.0)

    def simulator(self, engine: Simulator) -> Simulator:
        """An engine whose expectation value is the score.

        Args:
            engine: of the device's noise; its kind serves all strengths of the noise.

        Raises:
            QasError: no noise where there must be some, or an engine that is not exact.
        """
        from qas.mitigation.simulator import CompiledMitigated, Mitigated
        from qas.simulators.pauli_transfer import PauliTransferSimulator

        noise = engine.noise
        if noise is None and self.needs_noise:
            raise QasError(f"the objective {name_of(self)} takes errors of a device away: it needs noise")
        kind: Any = type(engine)
        models = [None] if noise is None else self.models(noise)
        if type(engine) is PauliTransferSimulator:
            return CompiledMitigated(noise, [kind(m, precision=engine.precision) for m in models], self.recipe())
        return Mitigated(noise, [kind(model) for model in models], self.recipe())

    def models(self, noise: NoiseModel) -> list[NoiseModel]:
        """The noise at each strength, without readout flips: those are the recipe's."""
        return [scaled(noise, 1.0, readout=False)]

    @abc.abstractmethod
    def recipe(self) -> Recipe:
        """How the score comes from energies at these strengths."""


class Noisy(Scored):
    """The energy as the device measures it.

    Args:
        shots, kappa: as of `Scored`; with kappa 0 the score is the energy, exactly.
    """

    about = "the energy as the device measures it"
    needs_noise = False

    def __init__(self, *, shots: int = SHOTS, kappa: float = 0.0) -> None:
        super().__init__(shots=shots, kappa=kappa)

    def simulator(self, engine: Simulator) -> Simulator:
        return engine if self.kappa == 0.0 else super().simulator(engine)

    def recipe(self) -> Recipe:
        return Recipe(np.ones(1), False, np.ones(1), self.shots, self.kappa, False)


class Readout(Scored):
    """The energy with the readout inverted.

    Args:
        shots, kappa: as of `Scored`.
        assignment: the readout of all qubits together, shape (2**n, 2**n), row i, column j the probability to read i
            for j; None: the flips of single qubits that the noise model has.
    """

    about = "the energy with readout errors inverted"

    def __init__(
        self, *, shots: int = SHOTS, kappa: float = 1.0, assignment: Sequence[Sequence[float]] | None = None
    ) -> None:
        super().__init__(shots=shots, kappa=kappa)
        self.assignment = None if assignment is None else checked_assignment(assignment).tolist()

    def recipe(self) -> Recipe:
        return self._recipe(np.ones(1), False, np.ones(1))

    def _recipe(self, fit: np.ndarray, exponential: bool, straight: np.ndarray) -> Recipe:
        assignment = None if self.assignment is None else np.array(self.assignment)
        return Recipe(fit, exponential, straight, self.shots, self.kappa, True, assignment)


class ZeroNoise(Readout):
    """The energy extrapolated to no noise, the readout inverted.

    Args:
        nodes: strengths of the noise, 1 being the device's: a sequence, or text such as ``1-3-5``.
        fit: a polynomial or (poly-)exponential of `qas.mitigation.EXTRAPOLATIONS`, as `make_extrapolation` takes it.
        scale: ``"channel"`` or ``"fold"``; see `qas.mitigation.scaling.scaled`.
        shots, kappa, assignment: as of `Readout`.

    Raises:
        QasError: fewer than two nodes, more of them than the fit can use, or a scale that lacks one of them.
    """

    about = "the energy extrapolated to no noise, readout errors inverted"

    def __init__(
        self,
        *,
        nodes: str | Sequence[float] | float = (1.0, 3.0),
        fit: str | dict[str, Any] | Extrapolation = "linear",
        scale: str = "channel",
        shots: int = SHOTS,
        kappa: float = 1.0,
        assignment: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(shots=shots, kappa=kappa, assignment=assignment)
        self.nodes = read_nodes([nodes] if isinstance(nodes, (int, float)) else nodes)
        self.fit = fit
        self.scale = scale
        self._weights, self._exponential = closed_form(make_extrapolation(fit), self.nodes)
        if scale not in SCALES:
            raise QasError(f"noise is scaled by channel or fold, got {scale!r}")
        for node in self.nodes:
            scaled(NoiseModel(), node, scale)

    def models(self, noise: NoiseModel) -> list[NoiseModel]:
        return [scaled(noise, node, self.scale, readout=False) for node in self.nodes]

    def recipe(self) -> Recipe:
        return self._recipe(self._weights, self._exponential, intercept_weights(self.nodes, 1))


def closed_form(fit: Extrapolation, nodes: Sequence[float]) -> tuple[np.ndarray, bool]:
    """Weights of energies at strength 0, float64, shape (nodes,), and whether they are those of logarithms.

    Raises:
        QasError: too few nodes for the fit, or a fit that is neither a polynomial nor the exponential of one.
    """
    fit.check(np.array(nodes))
    if isinstance(fit, Polynomial):
        return fit.weights(nodes), isinstance(fit, PolyExponential)
    raise QasError(f"the fit of an objective is a polynomial or the exponential of one, got {type(fit).__name__}")


OBJECTIVES = Registry("objectives", "objective", {"noisy": Noisy, "readout": Readout, "zne": ZeroNoise})
"""Name -> class."""


def list_objectives() -> dict[str, str]:
    """Objective name -> one line about it."""
    return {name: OBJECTIVES.about(name) for name in OBJECTIVES}


def make_objective(given: Any) -> Scored:
    """An objective by name, as a class or an instance; settings as in ``"zne:nodes=1-3-5,fit=linear,shots=1000000"``.

    Raises:
        UnknownNameError: no such name or setting.
        QasError: a setting out of range.
    """
    made: Scored = OBJECTIVES.make(given, Scored)
    return made


def scored_by(objective: Scored, engine: Simulator | None, shots: int | None = None) -> Any:
    """The engine of a problem as it serves an objective.

    Args:
        engine: None for problems that are judged without one.
        shots: measurements of each term that values are drawn from.

    Raises:
        QasError: an objective other than the plain noisy energy without an engine, without noise, beside such shots, or
            where no device measures energies.
    """
    if isinstance(objective, Noisy) and objective.kappa == 0.0:
        return engine
    name = name_of(objective)
    if engine is None:
        raise QasError(f"the objective {name} is one of energies under noise; this problem is judged without a device")
    if not engine.measured:
        raise QasError(f"the objective {name} is one of energies that a device measures, got a process fidelity")
    if shots is not None:
        raise QasError(f"shots are drawn for the noisy energy; the cost of {name} is its own: {name}:shots={shots}")
    return objective.simulator(engine)


def name_of(objective: Scored) -> str:
    """The name under which an objective is registered, else that of its class."""
    return OBJECTIVES.name_of(objective) or type(objective).__name__


def spelled(thing: Any) -> str:
    """An objective or its fit, or what `qas.registry.recorded` made of it, as the text that makes it again.

    A matrix of readout probabilities has no short form and is left out.
    """
    told = recorded(thing)
    if isinstance(told, str):
        return told
    settings = []
    for key, value in told.items():
        if key == "nodes":
            value = "-".join(repr(float(node)).removesuffix(".0") for node in value)
        elif isinstance(value, dict):
            value = spelled(value)
        if key not in ("name", "assignment"):
            settings.append(f"{key}={'null' if value is None else value}")
    return f"{told['name']}:{','.join(settings)}" if settings else told["name"]
