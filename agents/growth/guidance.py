"""What guides a search: the slopes of every gate that could be inserted, and what deleting each gate would cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
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

    two_qubit_gates: int
    """as far as they are not redundant where they stand"""

    def gates(self, angle: float) -> tuple[Gate, ...]:
        """The gates of exp(-iθP/2)."""
        return (*self.before, self.rotation.with_angles((self.sign * angle,)), *self.after)


def pauli_insertions(alphabet: Alphabet) -> dict[str, list[Insertion]]:
    """Pauli string -> the ways to turn about it: single rotations, and rotations between two equal Clifford gates."""
    found: dict[str, list[Insertion]] = {}
    rotations = [gate for gate in alphabet.placed if gate_spec(gate.name).axis]
    cliffords = [gate for gate in alphabet.placed if gate.name in ("cx", "cz")]
    for gate in rotations:
        letters = dict(zip(gate.qubits, gate_spec(gate.name).axis or "", strict=True))
        found.setdefault(_string(alphabet.n_qubits, letters), []).append(Insertion((), gate, (), 1.0, len(letters) - 1))
    for clifford, gate in itertools.product(cliffords, rotations):
        if len(gate.qubits) == 1 and gate.qubits[0] in clifford.qubits:
            letters, sign = _conjugated(clifford, gate)
            if len(letters) == 2:
                string = _string(alphabet.n_qubits, letters)
                found.setdefault(string, []).append(Insertion((clifford,), gate, (clifford,), sign, 2))
    return found


def fans(alphabet: Alphabet, head: int) -> dict[frozenset[int], tuple[str, Insertion]]:
    """Set of three or four qubits -> the string Y X X (X) with Y on `head`, and RY between CX from there to the others.

    Where `head` is in |0⟩ the CX before it do nothing.
    """
    turns = [gate for gate in alphabet.placed if gate.name == "ry" and gate.qubits == (head,)]
    spokes = {gate.qubits[1]: gate for gate in alphabet.placed if gate.name == "cx" and gate.qubits[0] == head}
    found = {}
    for targets in (t for size in (2, 3) for t in itertools.combinations(sorted(spokes), size)):
        letters = {head: "Y"} | dict.fromkeys(targets, "X")
        wheel = tuple(spokes[t] for t in targets)
        for turn in turns:
            way = Insertion(wheel, turn, wheel, 1.0, len(wheel))
            found[frozenset(letters)] = (_string(alphabet.n_qubits, letters), way)
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
    matrix, axis = gate_spec(clifford.name).matrix(), gate_spec(rotation.name).axis
    here = [axis if q in rotation.qubits else "I" for q in (first, second)]
    turned = matrix @ np.kron(_PAULIS[here[1] or "I"], _PAULIS[here[0] or "I"]) @ matrix
    for low, high in itertools.product("IXYZ", repeat=2):
        overlap = np.trace(np.kron(_PAULIS[high], _PAULIS[low]) @ turned).real / 4
        if abs(overlap) > 0.5:
            return {q: p for q, p in ((first, low), (second, high)) if p != "I"}, float(np.sign(overlap))
    raise AssertionError("a Clifford gate carries Pauli strings to Pauli strings")


class Found(NamedTuple):
    """An insertion with its place and slope."""

    position: int
    ways: Sequence[Insertion]
    """the same rotation, made differently"""
    slope: float


class Choice(NamedTuple):
    """Insertions of one kind, those of largest slope for their two-qubit gates first."""

    found: list[Found]
    heap: np.ndarray  # float64 (found,): running sum of what they are drawn by


@dataclass
class Study:
    """What is known of one circuit."""

    local: Choice
    """rotations on one qubit"""
    entangling: Choice
    """rotations with two-qubit gates"""
    costs: np.ndarray
    """float64 (n_gates,): estimated rise of the energy without each gate"""
    evaluations: int
    """calls of the objective this took; a sweep counts as one"""


class Guide:
    """Studies circuits on a Hamiltonian's energy.

    Where a qubit is still in |0⟩, a rotation of it followed by CX on some others turns about a string of three or four
    letters for two or three CX: from a determinant, where all slopes of one and two letters vanish for a molecule,
    these are double excitations. They are looked at where they are cheap, at both ends of the circuit.

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
        self.local = np.array([not found[0].two_qubit_gates for found in self.ways], dtype=bool)
        self.heads = {head: fans(alphabet, head) for head in range(self.n_qubits)}
        self.weight = problem.spread / 2 or 1.0
        self._known: dict[frozenset[int], tuple[tuple[str, ...], list[list[Insertion]]]] = {}

    @classmethod
    def fitting(cls, alphabet: Alphabet, meter: Meter) -> Guide | None:
        """A guide, where there are slopes: exact energies of a Hamiltonian on a compiled engine, and rotations."""
        fits = isinstance(meter.problem, Problem) and isinstance(meter.simulator, CompiledSimulator)
        if not fits or meter.shots is not None:
            return None
        guide = cls(alphabet, meter.problem, meter.simulator)
        return guide if guide.strings else None

    def study(self, circuit: Circuit, rotation_costs: Sequence[float]) -> Study:
        """A sweep of slopes, one at each end for fans, and the energy without each gate that has no angle.

        Args:
            rotation_costs: rises for the gates with angles, in their order.
        """
        slopes = self.simulator.insertion_gradients(circuit, self.hamiltonian, self.strings)
        found = [*self._largest(slopes, self.local), *self._largest(slopes, ~self.local)]
        calls = 1
        everywhere = frozenset(range(self.n_qubits))
        ends = {0: everywhere, len(circuit): everywhere.difference(*(gate.qubits for gate in circuit))}
        for position, ground in ends.items():
            strings, ways = self._fans_of(ground)
            if strings:
                found += self._fans(circuit, position, strings, ways)
                calls += 1
        kinds = [[each for each in found if bool(each.ways[0].two_qubit_gates) == two] for two in (False, True)]
        local, entangling = (_choice(kind, _FLAT * self.weight) for kind in kinds)
        costs, fixed = self._costs(circuit, rotation_costs)
        return Study(local, entangling, costs, calls + fixed)

    def append_gains(self, circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
        """Gains and best angles of rotations about `strings` at the end; see `Simulator.append_gains`."""
        return self.simulator.append_gains(circuit, self.hamiltonian, self.strings)

    def _costs(self, circuit: Circuit, rotation_costs: Sequence[float]) -> tuple[np.ndarray, int]:
        known = iter(rotation_costs)
        costs = np.array([next(known) if gate.angles else math.nan for gate in circuit])
        fixed = np.flatnonzero(np.isnan(costs)).tolist()
        if fixed:
            energy = self.simulator.expectation(circuit, self.hamiltonian)
            costs[fixed] = [
                self.simulator.expectation(circuit.delete(index), self.hamiltonian) - energy for index in fixed
            ]
        return costs, len(fixed)

    def _largest(self, slopes: np.ndarray, columns: np.ndarray) -> list[Found]:
        chosen = np.flatnonzero(columns)
        values = slopes[:, chosen].ravel()
        order = np.argsort(-np.abs(values), kind="stable")[:_KEPT].tolist()
        places = (divmod(k, len(chosen)) for k in order)
        return [
            Found(position, self.ways[chosen[column]], float(values[k]))
            for k, (position, column) in zip(order, places, strict=True)
        ]

    def _fans(
        self, circuit: Circuit, position: int, strings: tuple[str, ...], ways: list[list[Insertion]]
    ) -> list[Found]:
        slopes = self.simulator.insertion_gradients(circuit, self.hamiltonian, strings, positions=[position])[0]
        return [Found(position, way, slope) for way, slope in zip(ways, slopes.tolist(), strict=True)]

    def _fans_of(self, ground: frozenset[int]) -> tuple[tuple[str, ...], list[list[Insertion]]]:
        """One string for each set of qubits, since all heads in |0⟩ do the same there."""
        if ground not in self._known:
            sets: dict[frozenset[int], tuple[str, list[Insertion]]] = {}
            for head in sorted(ground):
                for qubits, (string, way) in self.heads[head].items():
                    sets.setdefault(qubits, (string, []))[1].append(way)
            self._known[ground] = tuple(string for string, _ in sets.values()), [ways for _, ways in sets.values()]
        return self._known[ground]

    def draw(self, choice: Choice, rng: np.random.Generator) -> tuple[int, tuple[Gate, ...]]:
        """(position, gates) of an insertion drawn by its promise, its first angle a step downhill."""
        total = choice.heap[-1]
        drawn = min(int(np.searchsorted(choice.heap, rng.random() * total, side="right")), len(choice.heap) - 1)
        found = choice.found[drawn]
        way = found.ways[int(rng.integers(len(found.ways)))]
        step = -found.slope * self.n_qubits / self.weight
        angle = math.copysign(min(max(abs(step), 1e-3), _FARTHEST), step)
        return found.position, way.gates(angle)


def _promise(found: Found) -> float:
    """Squared slope for each two-qubit gate."""
    return found.slope**2 / max(1, found.ways[0].two_qubit_gates)


def _choice(found: list[Found], flat: float) -> Choice:
    """The most promising insertions, those with slopes up to `flat` left out."""
    kept = sorted((each for each in found if abs(each.slope) > flat), key=_promise, reverse=True)[:_KEPT]
    return Choice(kept, np.cumsum([_promise(each) for each in kept]))


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
