"""What a search is guided by: the slopes of every gate that could be inserted, and what deleting each gate would cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.gates import GATES
from qas.meter import Meter
from qas.problems import Problem
from qas.simulators.compiled import CompiledSimulator
from qas.simulators.insertions import wrapped

_KEPT = 256
"""Insertions remembered of one circuit, of each kind."""
_FLAT = 1e-9
"""Slopes below this, relative to the Hamiltonian's weight, are rounding errors."""
_FARTHEST = 0.5
"""Largest first angle of an inserted rotation, radians."""


class Insertion(NamedTuple):
    """Gates that together are the rotation exp(-i sign θ P / 2) about one Pauli string P."""

    before: tuple[Gate, ...]
    rotation: Gate
    after: tuple[Gate, ...]
    sign: float

    def gates(self, angle: float) -> tuple[Gate, ...]:
        """The gates of exp(-iθP/2)."""
        return (*self.before, self.rotation.with_angles((self.sign * angle,)), *self.after)


def pauli_insertions(alphabet: Alphabet) -> dict[str, list[Insertion]]:
    """Pauli string -> the ways to turn about it: single rotations, and rotations between two equal Clifford gates."""
    found: dict[str, list[Insertion]] = {}
    rotations = [gate for gate in alphabet.placed if GATES[gate.name].axis]
    cliffords = [gate for gate in alphabet.placed if gate.name in ("cx", "cz")]
    for gate in rotations:
        letters = dict(zip(gate.qubits, GATES[gate.name].axis or "", strict=True))
        found.setdefault(_string(alphabet.n_qubits, letters), []).append(Insertion((), gate, (), 1.0))
    for clifford, gate in itertools.product(cliffords, rotations):
        if len(gate.qubits) == 1 and gate.qubits[0] in clifford.qubits:
            letters, sign = _conjugated(clifford, gate)
            if len(letters) == 2:
                string = _string(alphabet.n_qubits, letters)
                found.setdefault(string, []).append(Insertion((clifford,), gate, (clifford,), sign))
    return found


def _string(n_qubits: int, letters: dict[int, str]) -> str:
    return "".join(letters.get(q, "I") for q in reversed(range(n_qubits)))


_PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def _conjugated(clifford: Gate, rotation: Gate) -> tuple[dict[int, str], float]:
    """C P C of a self-inverse gate C: letters by qubit, and the sign."""
    first, second = clifford.qubits
    matrix, axis = GATES[clifford.name].matrix(), GATES[rotation.name].axis
    here = [axis if q in rotation.qubits else "I" for q in (first, second)]
    turned = matrix @ np.kron(_PAULIS[here[1] or "I"], _PAULIS[here[0] or "I"]) @ matrix
    for low, high in itertools.product("IXYZ", repeat=2):
        overlap = np.trace(np.kron(_PAULIS[high], _PAULIS[low]) @ turned).real / 4
        if abs(overlap) > 0.5:
            return {q: p for q, p in ((first, low), (second, high)) if p != "I"}, float(np.sign(overlap))
    raise AssertionError("a Clifford gate carries Pauli strings to Pauli strings")


class Slopes(NamedTuple):
    """Insertions of one kind, those of largest slope first."""

    position: np.ndarray  # int64 (kept,)
    string: np.ndarray  # int64 (kept,): column
    slope: np.ndarray  # float64 (kept,)
    heap: np.ndarray  # float64 (kept,): running sum of the squared slopes


@dataclass
class Study:
    """What is known of one circuit."""

    local: Slopes
    """rotations that need no two-qubit gates of their own"""
    block: Slopes
    """rotations with two-qubit gates"""
    costs: np.ndarray
    """float64 (n_gates,): estimated rise of the energy without each gate"""
    evaluations: int
    """calls of the objective this took; a sweep counts as one"""


class Guide:
    """Studies circuits on a Hamiltonian's energy.

    Args:
        alphabet: gates that may be inserted.
        problem: whose energy counts.
        simulator: gives slopes.
    """

    def __init__(self, alphabet: Alphabet, problem: Problem, simulator: CompiledSimulator) -> None:
        self.simulator, self.hamiltonian, self.n_qubits = simulator, problem.hamiltonian, problem.n_qubits
        ways = pauli_insertions(alphabet)
        self.strings = tuple(ways)
        self.ways = tuple(ways.values())
        self.local = np.array([not w[0].before and len(w[0].rotation.qubits) == 1 for w in self.ways])
        self.weight = problem.spread / 2 or 1.0

    @classmethod
    def fitting(cls, alphabet: Alphabet, meter: Meter) -> Guide | None:
        """A guide, where there are slopes: exact energies of a Hamiltonian on a compiled engine, and rotations."""
        fits = isinstance(meter.problem, Problem) and isinstance(meter.simulator, CompiledSimulator)
        if not fits or meter.shots is not None:
            return None
        guide = cls(alphabet, meter.problem, meter.simulator)
        return guide if guide.strings else None

    def study(self, circuit: Circuit, rotation_costs: Sequence[float]) -> Study:
        """One sweep, and the energy without each gate that has no angle.

        Args:
            rotation_costs: rises for the gates with angles, in their order.
        """
        slopes = self.simulator.insertion_gradients(circuit, self.hamiltonian, self.strings)
        costs, fixed = np.zeros(len(circuit)), 0
        known = iter(rotation_costs)
        energy = math.nan
        for index, gate in enumerate(circuit):
            if gate.angles:
                costs[index] = next(known)
                continue
            if not fixed:
                energy = self.simulator.expectation(circuit, self.hamiltonian)
            fixed += 1
            costs[index] = self.simulator.expectation(circuit.delete(index), self.hamiltonian) - energy
        return Study(self._largest(slopes, self.local), self._largest(slopes, ~self.local), costs, 1 + fixed)

    def _largest(self, slopes: np.ndarray, columns: np.ndarray) -> Slopes:
        which = np.flatnonzero(columns)
        values = slopes[:, which]
        order = np.argsort(-np.abs(values), axis=None, kind="stable")[:_KEPT]
        order = order[np.abs(values.ravel()[order]) > _FLAT * self.weight]
        position, column = np.divmod(order, max(1, len(which)))
        slope = values.ravel()[order]
        return Slopes(position, which[column], slope, np.cumsum(slope**2))

    def draw(self, slopes: Slopes, rng: np.random.Generator) -> tuple[int, tuple[Gate, ...]]:
        """(position, gates) of an insertion drawn by its squared slope, its first angle a step downhill."""
        total = slopes.heap[-1]
        drawn = min(int(np.searchsorted(slopes.heap, rng.random() * total, side="right")), len(slopes.heap) - 1)
        ways = self.ways[slopes.string[drawn]]
        way = ways[int(rng.integers(len(ways)))]
        step = -float(slopes.slope[drawn]) * self.n_qubits / self.weight
        angle = math.copysign(min(max(abs(step), 1e-3), _FARTHEST), step)
        return int(slopes.position[drawn]), way.gates(angle)


def edited(circuit: Circuit, deleted: Collection[int], inserted: Iterable[tuple[int, tuple[Gate, ...]]]) -> Circuit:
    """A circuit without some of its gates, with others before the positions that its gates had."""
    new: dict[int, list[Gate]] = {}
    for position, gates in inserted:
        new.setdefault(position, []).extend(gates)
    kept: list[Gate] = []
    for index, gate in enumerate(circuit.gates):
        kept += new.get(index, [])
        if index not in deleted:
            kept.append(gate)
    return Circuit(circuit.n_qubits, kept + new.get(len(circuit), []))


def rotation_costs(circuit: Circuit, inverse_hessian: np.ndarray | None) -> list[float]:
    """Estimated rise of the energy without each gate that has angles: θ² / 2(H⁻¹), summed over its angles.

    Args:
        inverse_hessian: as an optimization left it, shape (n_angles, n_angles); None: the unit matrix.
    """
    fits = inverse_hessian is not None and inverse_hessian.shape == (circuit.n_angles,) * 2
    diagonal = inverse_hessian.diagonal() if fits and inverse_hessian is not None else np.ones(circuit.n_angles)
    each = wrapped(circuit.angles) ** 2 / (2 * np.maximum(diagonal, 1e-12))
    costs, first = [], 0
    for gate in circuit.gates:
        if gate.angles:
            costs.append(float(each[first : first + len(gate.angles)].sum()))
            first += len(gate.angles)
    return costs
