"""Mitigation of a measured energy: which steps are taken, and what they make of it."""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import shortened
from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.mitigation.counting import (
    Count,
    Counts,
    Estimates,
    Flips,
    Request,
    divided,
    outcome_probabilities,
    settings_of,
)
from qas.mitigation.extrapolation import EXTRAPOLATIONS, NODES, Extrapolation, make_extrapolation, read_nodes
from qas.mitigation.folding import folded, folds
from qas.mitigation.learned import Learned
from qas.mitigation.objectives import spelled
from qas.mitigation.symmetry import verification
from qas.noise import NoiseModel
from qas.problems import Problem
from qas.registry import check_settings, spelled_out
from qas.simulators.workers import memory_limit

if TYPE_CHECKING:
    from qas.simulators.base import Simulator

STEPS = ("readout", "symmetry", "zne")
"""Steps in the order in which they are taken."""


@dataclass(frozen=True)
class Mitigation:
    """What is done to a measured energy. Made by `read_mitigation`."""

    readout: bool = False
    """flips inverted, qubit by qubit"""
    symmetry: bool = False
    """states with other quantum numbers than the sought one thrown away"""
    symmetries: tuple[str, ...] | None = None
    """keys of `qas.mitigation.symmetry.SYMMETRIES`; None: all that the problem has"""
    nodes: tuple[float, ...] = (1.0,)
    """strengths of the noise, made by gate folding; more than one: extrapolated to none"""
    extrapolation: Extrapolation | None = None

    def shares(self, scales: Sequence[float], shots: int) -> list[int]:
        """Shots of each strength: in proportion to what it counts in the extrapolation of equal values."""
        if self.extrapolation is None:
            return [shots // len(scales)] * len(scales)
        found = self.extrapolation(np.array(self.nodes), np.ones(len(self.nodes))).weights
        known = dict(zip(self.nodes, np.abs(found).tolist(), strict=True))
        sizes = [known.get(scale, 1.0) for scale in scales]
        return [int(shots * size / sum(sizes)) for size in sizes]

    def __str__(self) -> str:
        parts = ["readout"] if self.readout else []
        if self.symmetry:
            parts.append("symmetry" + (f":by={'-'.join(self.symmetries)}" if self.symmetries else ""))
        if self.extrapolation is not None:
            nodes = "-".join(f"{node:g}" for node in self.nodes)
            known = EXTRAPOLATIONS.name_of(self.extrapolation) is not None
            fit = spelled(self.extrapolation) if known else type(self.extrapolation).__name__
            parts.append(f"zne:fit={fit},nodes={nodes}")
        return ",".join(parts)


def read_mitigation(given: str | Mitigation | Sequence[str]) -> Mitigation:
    """Steps by their names, with settings: ``"readout,symmetry:by=number-z2,zne:fit=exponential,nodes=1-3-5"``.

    Args:
        given: steps in one string or in a list; ``fit`` is a name of `EXTRAPOLATIONS` or, through `Mitigation` itself,
            any `Extrapolation`.

    Raises:
        UnknownNameError: no such step, setting, extrapolation or symmetry.
        QasError: a step twice, fewer than two nodes, too few for the fit, or any that folding cannot make.
    """
    if isinstance(given, Mitigation):
        return given
    made: dict[str, Any] = {}
    try:
        steps = given if isinstance(given, str) else ",".join(given)
    except TypeError:
        raise QasError(f"steps of mitigation are text or a list of it, got {shortened(given)}") from None
    for text in _split(steps):
        settings = spelled_out(text) if ":" in text else {"name": text}
        name = settings.pop("name")
        if name not in STEPS:
            raise UnknownNameError("mitigation", name, STEPS)
        if made.keys() & (found := _READERS[name](settings)).keys():
            raise QasError(f"a step of mitigation is taken once, got {name} twice")
        made |= found
    if made.get("symmetry") and isinstance(made.get("extrapolation"), Learned):
        raise QasError(
            "a network learns energies, not verified ones: mitigation takes symmetry or fit=learned, got both"
        )
    return Mitigation(**made)


def _split(text: str) -> list[str]:
    """Steps with their settings: what follows a comma and has ``=`` before any ``:`` is a setting."""
    parts: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if parts and "=" in part.partition(":")[0]:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _read_readout() -> dict[str, Any]:
    return {"readout": True}


def _read_symmetry(*, by: str | None = None) -> dict[str, Any]:
    return {"symmetry": True, "symmetries": None if by is None else tuple(by.split("-"))}


def _read_zne(*, fit: str = "exponential", nodes: object = NODES) -> dict[str, Any]:
    strengths, extrapolation = read_nodes(nodes), make_extrapolation(fit)
    extrapolation.check(np.array(strengths))
    for strength in strengths:
        folds(strength)
    return {"nodes": strengths, "extrapolation": extrapolation}


def _checked(name: str, reader: Callable[..., dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def read(settings: dict[str, Any]) -> dict[str, Any]:
        check_settings(reader, settings, f"the mitigation {name}")
        return reader(**settings)

    return read


_READERS = {
    "readout": _checked("readout", _read_readout),
    "symmetry": _checked("symmetry", _read_symmetry),
    "zne": _checked("zne", _read_zne),
}


# ---------------------------------------------------------------------- what is measured
class Source(abc.ABC):
    """Expectation values of one circuit at several strengths of the noise, from a simulator or from a device."""

    shots: int = 0
    """measurements in all; 0: exact values"""
    settings: int = 0
    """bases that are measured at each strength; 0: exact values"""

    @abc.abstractmethod
    def __call__(self, scale: float, observables: Sequence[Hamiltonian], inverted: bool) -> Estimates:
        """Values at one strength.

        Args:
            scale: 1, 3, 5, …; 1 is the circuit as it is.
            observables: what is asked for.
            inverted: whether flips at readout are inverted.
        """


class Exact(Source):
    """Expectation values as a simulator gives them.

    Args:
        circuit: folded where noise is to be stronger.
        simulators: with the flips at readout, and without.
    """

    def __init__(self, circuit: Circuit, simulators: tuple[Simulator, Simulator]) -> None:
        self.circuit = circuit
        self.simulators = simulators

    def __call__(self, scale: float, observables: Sequence[Hamiltonian], inverted: bool) -> Estimates:
        circuit, simulator = folded(self.circuit, scale), self.simulators[inverted]
        values = np.array([simulator.expectation(circuit, observable) for observable in observables])
        return Estimates(values, np.zeros((len(values),) * 2))


class Counted(Source):
    """Expectation values from bit strings.

    Args:
        recipe: which strengths are measured; their shots are in proportion to what each counts in the extrapolation.
        observables: all that will be asked for, as of `observables_of`.
        count: where bit strings come from.
        shots: measurements of all settings at all strengths together; each gets two at least.
        readout: flips where they are known; None: measured on two prepared states, if they are to be inverted.
        equal: all circuits get the same number of shots, as devices want it.

    Raises:
        TooLargeError: more than this machine can hold.
    """

    def __init__(
        self,
        recipe: Mitigation,
        observables: Sequence[Hamiltonian],
        count: Count,
        shots: int,
        readout: Flips | None = None,
        *,
        equal: bool = False,
    ) -> None:
        plan, n = settings_of(observables), observables[0].n_qubits
        scales = sorted({1.0, *recipe.nodes})
        calibrated = recipe.readout and readout is None
        if equal:
            circuits = len(scales) * len(plan) + 2 * calibrated
            own = [[max(2, shots // max(1, circuits))] * len(plan) for _ in scales]
        else:
            own = [divided(number, observables, plan) for number in recipe.shares(scales, shots)]
        requests = [
            Request(scale, setting.basis, number)
            for scale, numbers in zip(scales, own, strict=True)
            for setting, number in zip(plan, numbers, strict=True)
        ]
        if calibrated and requests:
            requests += [Request(1.0, "Z" * n, requests[0].shots, bit * n) for bit in "01"]
        need = len(requests) * (8 << n)
        if need > memory_limit():
            raise TooLargeError(
                f"{len(requests)} measured distributions of {n} qubits need {need / 1e9:.1f} GB, this machine has "
                f"{memory_limit() / 1e9:.1f} GB"
            )
        read = list(count(requests)) if requests else []
        self.settings, self.shots = len(plan), sum(request.shots for request in requests)
        self._readout = readout
        if calibrated and requests:
            self._readout = Flips.measured(read[-2], read[-1], requests[-1].shots)
        self._counts = {
            scale: Counts(plan, read[k * len(plan) : (k + 1) * len(plan)], numbers)
            for k, (scale, numbers) in enumerate(zip(scales, own, strict=True))
        }

    def __call__(self, scale: float, observables: Sequence[Hamiltonian], inverted: bool) -> Estimates:
        return self._counts[scale].estimates(observables, self._readout if inverted else None)


def simulated_counts(circuit: Circuit, noise: NoiseModel | None, rng: np.random.Generator) -> Count:
    """Counts drawn from the exact distribution of a noisy device."""
    from qas.simulators.pauli_transfer import PauliTransferSimulator

    simulator = PauliTransferSimulator(noise)
    simulator.check_size(circuit.n_qubits)
    flips = None if noise is None else noise.readout_flips(circuit.n_qubits)

    def count(requests: Sequence[Request]) -> list[np.ndarray]:
        found = []
        for scale, held in itertools.groupby(requests, key=lambda each: each.scale):  # one state at a time
            vector = simulator.pauli_expectations(folded(circuit, scale))
            found += [
                rng.multinomial(each.shots, outcome_probabilities(vector, each.basis, flips)) / each.shots
                for each in held
            ]
        return found

    return count


# ---------------------------------------------------------------------- what is made of it
@dataclass(frozen=True)
class Step:
    """An energy after one more step of mitigation."""

    name: str
    energy: float
    standard_error: float


@dataclass(frozen=True)
class MitigatedEnergy:
    """An energy as it was measured and what mitigation makes of it, in the problem's unit."""

    recipe: str
    steps: tuple[Step, ...]
    """as measured, and after each step"""
    nodes: tuple[tuple[float, float, float], ...]
    """strength of the noise, energy before the extrapolation, its standard error"""
    kept: float | None
    """share of the runs in the right sector at strength 1; None where no symmetry is verified"""
    fallback: str
    """why the extrapolation is a straight line; empty where it is what was asked for"""
    settings: int
    """bases measured at each strength; 0: exact values"""
    shots: int
    """measurements in all; 0: exact values"""

    @property
    def energy(self) -> float:
        return self.steps[-1].energy

    @property
    def standard_error(self) -> float:
        return self.steps[-1].standard_error

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        names = ("recipe", "energy", "standard_error", "kept", "fallback", "settings", "shots")
        steps = [vars(step) for step in self.steps]
        return {name: getattr(self, name) for name in names} | {"steps": steps, "nodes": [list(n) for n in self.nodes]}


def observables_of(problem: Problem, recipe: Mitigation) -> tuple[Hamiltonian, ...]:
    """The energy, and for verification the projected energy and the projector.

    Raises:
        QasError: a problem whose symmetries cannot be verified.
    """
    if not recipe.symmetry:
        return (problem.hamiltonian,)
    found = verification(problem, recipe.symmetries)
    return problem.hamiltonian, found.projected, found.projector


def mitigated_energy(
    problem: Problem, recipe: Mitigation, source: Source, verified: Sequence[Hamiltonian]
) -> MitigatedEnergy:
    """Take the steps of a recipe.

    Args:
        problem: what the energy is of.
        recipe: the steps.
        source: what is measured at each strength of the noise.
        verified: as `observables_of` made them.
    """
    plain, *sector = verified
    raw = source(1.0, [plain], False)
    steps = [Step("as measured", float(raw.values[0]), _error(raw))]
    if recipe.readout:
        inverted = source(1.0, [plain], True)
        steps.append(Step("readout inverted", float(inverted.values[0]), _error(inverted)))
    kept = None
    limit, bound = plain.identity, problem.spread / 2
    if sector:
        parts = source(1.0, sector, recipe.readout)
        steps.append(Step("symmetry verified", *_ratio(parts)))
        kept, limit, bound = float(parts.values[1]), sector[0].identity / sector[1].identity, problem.spread
    nodes: list[tuple[float, float, float]] = []
    fallback = ""
    if recipe.extrapolation is not None:
        for scale in recipe.nodes:
            found = source(scale, sector or [plain], recipe.readout)
            nodes.append((scale, *(_ratio(found) if sector else (float(found.values[0]), _error(found)))))
        at, values, errors = np.array(nodes).T
        result = recipe.extrapolation(at, values, errors, limit=limit, bound=bound)
        fallback = result.fallback
        steps.append(Step("extrapolated", result.value, result.standard_error))
    return MitigatedEnergy(str(recipe), tuple(steps), tuple(nodes), kept, fallback, source.settings, source.shots)


def _error(estimates: Estimates) -> float:
    return math.sqrt(estimates.covariance[0, 0])


def _ratio(parts: Estimates) -> tuple[float, float]:
    """Tr(HΠρ) / Tr(Πρ) and its standard error, to first order.

    Raises:
        QasError: nothing is left in the sector.
    """
    projected, kept = parts.values
    if not kept > 1e-6:
        raise QasError(f"symmetries are verified where something is left in the sector, got a share of {kept:.3g}")
    energy = projected / kept
    slope = np.array([1.0, -energy]) / kept
    return float(energy), math.sqrt(max(0.0, slope @ parts.covariance @ slope))
