"""What guides a search: the slopes of every gate that could be inserted, and what deleting each gate would cost."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.excitations import generators_of
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.native import PULSES, TURNS, middles, remaining, short_of
from qas.problems import OperatorProblem
from qas.simulators.base import Simulator
from qas.simulators.insertions import Generator, wrapped
from qas.vqe import CircuitEvaluator, Evaluation

_KEPT = 256
"""Insertions remembered of one circuit, of each kind."""
_FLAT = 1e-9
"""Slopes below this, relative to the Hamiltonian's weight, are rounding errors."""
_NO_CHOICE = 1e300
"""What leaving out a gate costs that is none to leave out."""
_FARTHEST = 0.5
"""Largest first angle of an inserted rotation, radians."""
_TREES = 800
"""Sets of `trees` that are looked at: all on up to twelve qubits. A slope takes a pass over the state for each."""


class Insertion(NamedTuple):
    """Gates that together are exp(-i sign θ G / 2), with G one Pauli string, or the generator of an excitation."""

    before: tuple[Gate, ...]
    rotation: Gate
    after: tuple[Gate, ...]
    sign: float

    two_qubit_gates: int
    """as far as they are not redundant where they stand"""

    def gates(self, angle: float) -> tuple[Gate, ...]:
        """The gates of exp(-iθG/2)."""
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


def excitation_insertions(alphabet: Alphabet) -> dict[Generator, list[Insertion]]:
    """Generator -> the excitation that it makes, for those of one angle."""
    found: dict[Generator, list[Insertion]] = {}
    for gate in alphabet.placed:
        if len(gate.angles) == 1 and not gate_spec(gate.name).primitive:
            cost = Circuit(alphabet.n_qubits, [gate]).two_qubit_gates
            (generator,) = generators_of(gate, alphabet.n_qubits)
            found[generator] = [Insertion((), gate, (), 1.0, cost)]
    return found


def fans(alphabet: Alphabet, head: int) -> dict[frozenset[int], tuple[str, Insertion]]:
    """Set of three or four qubits -> the string Y X X (X) with Y on `head`, and RY between CX from there to the others.

    Where `head` is in |0⟩ the CX before it do nothing.
    """
    turns, pairs = _turns_and_pairs(alphabet)
    spokes = sorted(target for control, target in pairs if control == head and head in turns)
    found = {}
    for targets in (t for size in (2, 3) for t in itertools.combinations(spokes, size)):
        wheel = tuple(pairs[head, target] for target in targets)
        way = Insertion(wheel, turns[head], wheel, 1.0, len(wheel))
        found[frozenset((head, *targets))] = fan_string(alphabet.n_qubits, way), way
    return found


def trees(alphabet: Alphabet) -> dict[frozenset[int], tuple[str, list[Insertion]]]:
    """Set of two to four qubits that no CX joins -> its string Y X (X X), and RY between CX along the coupling.

    Where all qubits are in |0⟩ the CX before the RY do nothing. Those behind it lead from a head outwards; a qubit in
    between that is not of the set takes one more, which turns it back. The string has its Y on the head of the first of
    the ways; at |0…0⟩ all heads do the same. Where there are many sets, those with the fewest CX are taken.
    """
    turns, pairs = _turns_and_pairs(alphabet)
    graph = nx.DiGraph(list(pairs))
    paths = {head: nx.single_source_shortest_path(graph, head) for head in turns if head in graph}
    found: dict[frozenset[int], tuple[str, list[Insertion]]] = {}
    for qubits in (q for size in (2, 3, 4) for q in itertools.combinations(range(alphabet.n_qubits), size)):
        ways: list[Insertion] = []
        for head in (q for q in qubits if q in paths and paths[q].keys() >= set(qubits)):
            steps = dict.fromkeys(step for q in qubits for step in itertools.pairwise(paths[head][q]))
            outward = sorted(steps, key=lambda step: len(paths[head][step[1]]))
            back = [step for step in reversed(outward) if step[1] not in qubits]
            wheel = [pairs[step] for step in (*outward, *back)]
            ways.append(Insertion(tuple(reversed(wheel)), turns[head], tuple(wheel), 1.0, len(wheel)))
        least = min((way.two_qubit_gates for way in ways), default=0)
        if least > 1:
            ways = [way for way in ways if way.two_qubit_gates == least]
            found[frozenset(qubits)] = fan_string(alphabet.n_qubits, ways[0]), ways
    if len(found) > _TREES:
        found = dict(sorted(found.items(), key=lambda each: each[1][1][0].two_qubit_gates)[:_TREES])
    return found


def _turns_and_pairs(alphabet: Alphabet) -> tuple[dict[int, Gate], dict[tuple[int, int], Gate]]:
    """RY by qubit, and CX by control and target."""
    turns = {gate.qubits[0]: gate for gate in alphabet.placed if gate.name == "ry"}
    return turns, {(gate.qubits[0], gate.qubits[1]): gate for gate in alphabet.placed if gate.name == "cx"}


def fan_string(n_qubits: int, way: Insertion) -> str:
    """The string that an insertion of `fans` or `trees` turns about."""
    (head,) = way.rotation.qubits
    letters = {head: "Y"}
    for control, target in (gate.qubits for gate in way.after):
        if control in letters and letters.pop(target, None) is None:
            letters[target] = "X"
    return _string(n_qubits, letters)


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


class Block(NamedTuple):
    """Rotations that commute, made at once: one, or two between the same pair of equal Clifford gates."""

    columns: tuple[int, ...]
    """generators, by their number"""
    ways: tuple[tuple[Insertion, ...], ...]
    """the same block, made differently with as few two-qubit gates; an insertion for each generator"""

    @property
    def two_qubit_gates(self) -> int:
        return self.ways[0][0].two_qubit_gates


def blocks_of(ways: Sequence[Sequence[Insertion]]) -> list[Block]:
    """Blocks of all rotations, and of pairs of them that share their two-qubit gates; then not of one of the two alone.

    Two CX can turn about two strings at once, one by a rotation on each qubit between them.

    Args:
        ways: for each string how to turn about it.
    """
    found: dict[tuple[int, ...], list[tuple[Insertion, ...]]] = {}
    between: dict[tuple[Gate, ...], tuple[list[tuple[int, Insertion]], list[tuple[int, Insertion]]]] = {}
    for column, way in ((column, way) for column, each in enumerate(ways) for way in each):
        if way.before:
            sides = between.setdefault(way.before, ([], []))
            sides[way.before[0].qubits.index(way.rotation.qubits[0])].append((column, way))
        else:
            found.setdefault((column,), []).append((way,))
    for first, second in between.values():
        together = list(itertools.product(first, second)) if first and second else [(each,) for each in first or second]
        for pair in together:
            chosen = sorted(pair, key=lambda each: each[0])
            found.setdefault(tuple(c for c, _ in chosen), []).append(tuple(w for _, w in chosen))
    for columns, each in found.items():
        least = min(way[0].two_qubit_gates for way in each)
        found[columns] = [way for way in each if way[0].two_qubit_gates == least]
    return [Block(columns, tuple(each)) for columns, each in found.items()]


class Place(NamedTuple):
    """A block with its place in a circuit and the slopes there."""

    position: int
    block: Block
    slopes: tuple[float, ...]

    @property
    def promise(self) -> float:
        """Sum of squared slopes, for each two-qubit gate."""
        return sum(slope**2 for slope in self.slopes) / max(1, self.block.two_qubit_gates)


class Choice(NamedTuple):
    """Insertions of one kind, the most promising ones first."""

    found: Sequence[Place]
    heap: np.ndarray  # float64 (found,): running sum of what they are drawn by


@dataclass
class Study:
    """What is known of one circuit."""

    local: Choice
    """rotations on one qubit"""
    entangling: Choice
    """rotations with two-qubit gates"""
    evaluations: int
    """calls of the objective this took; a sweep counts as one"""


class _Table(NamedTuple):
    """Blocks of one kind by the columns of their slopes."""

    blocks: list[Block]
    first: np.ndarray  # int64 (blocks,)
    second: np.ndarray  # int64 (blocks,): the column behind the last one, of zeros, where there is one string alone
    weight: np.ndarray  # float64 (blocks,): one over the two-qubit gates
    qubits: np.ndarray  # float32 (blocks, qubits): 1 where they are acted on


class _Places(Sequence[Place]):
    """Places of blocks of a table, each made when it is looked at, and others behind them."""

    def __init__(self, table: _Table, slopes: np.ndarray, chosen: np.ndarray, more: Sequence[Place]) -> None:
        self.blocks, self.more = table.blocks, more
        self.position, self.block = np.divmod(chosen, max(1, len(table.blocks)))
        self.slopes = np.stack(
            [slopes[self.position, each[self.block]] for each in (table.first, table.second)], axis=1
        )

    def __len__(self) -> int:
        return len(self.block) + len(self.more)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self.block):
            return self.more[index - len(self.block)]
        block = self.blocks[self.block[index]]
        return Place(int(self.position[index]), block, tuple(self.slopes[index].tolist()[: len(block.columns)]))


def _warm_up(simulator: Simulator, problem: OperatorProblem) -> None:
    """Compile the kernels of sweeps, before a search's clock runs."""
    size, wide = problem.n_qubits, problem.hamiltonian.n_qubits
    if size == wide:
        size = wide = min(size, 2)
    circuit, observable = Circuit(size, [Gate("rz", (0,), (0.1,))]), Hamiltonian({"Z" * wide: 1.0})
    simulator.insertion_gradients(circuit, observable, ["X" * size])
    simulator.append_gains(circuit, observable, ["X" * size])


class Guide:
    """Studies circuits on the expectation value of an operator.

    Where a qubit is still in |0⟩, a rotation of it followed by CX on some others turns about a string of three or four
    letters for two or three CX: from a determinant, where all slopes of one and two letters vanish for a molecule,
    these are double excitations. They are looked at where they are cheap, at both ends of the circuit. Where a coupling
    leaves no such fan, CX lead along it; that is looked at in front of the circuit, where all qubits are in |0⟩. Where
    a circuit is judged by its whole matrix no qubit is in |0⟩.

    Args:
        alphabet: gates that may be inserted.
        problem: whose energy counts.
        simulator: gives slopes.
    """

    def __init__(self, alphabet: Alphabet, problem: OperatorProblem, simulator: Simulator) -> None:
        self.simulator, self.hamiltonian, self.n_qubits = simulator, problem.hamiltonian, problem.n_qubits
        self.native = alphabet.native is not None
        """gates are left out as `qas.native.remaining` says"""
        alphabet = alphabet.moves
        ways: dict[Generator, list[Insertion]] = {}
        ways.update(pauli_insertions(alphabet))
        ways.update(excitation_insertions(alphabet))
        self.turns = {(gate.name, gate.qubits[0]) for gate in alphabet.placed if len(gate.qubits) == 1}
        self.generators = tuple(ways)
        """what may be turned about: Pauli strings, and sums of them for excitations"""
        self.ways = tuple(ways.values())
        blocks = blocks_of(self.ways)
        self.tables = [self._table([each for each in blocks if bool(each.two_qubit_gates) == two]) for two in (0, 1)]
        from_zero = not problem.whole_matrix
        self.heads = {head: fans(alphabet, head) if from_zero else {} for head in range(self.n_qubits)}
        self.trees = trees(alphabet) if from_zero and alphabet.coupling is not None else {}
        self.weight = problem.spread / 2 or 1.0
        self._known: dict[frozenset[int], tuple[tuple[str, ...], list[Block]]] = {}

    def _table(self, blocks: list[Block]) -> _Table:
        nothing = len(self.generators)
        qubits = np.zeros((len(blocks), self.n_qubits), dtype=np.float32)
        for row, block in zip(qubits, blocks, strict=True):
            row[[q for way in block.ways[0] for gate in way.gates(0.0) for q in gate.qubits]] = 1.0
        return _Table(
            blocks,
            np.array([block.columns[0] for block in blocks], dtype=np.int64),
            np.array([(*block.columns, nothing)[1] for block in blocks], dtype=np.int64),
            np.array([1.0 / max(1, block.two_qubit_gates) for block in blocks]),
            qubits,
        )

    @classmethod
    def fitting(cls, alphabet: Alphabet, evaluator: CircuitEvaluator) -> Guide | None:
        """A guide, where there are slopes: exact energies of an operator on a compiled engine, and rotations."""
        problem, simulator = evaluator.problem, evaluator.simulator
        if not (isinstance(problem, OperatorProblem) and simulator.sweeps):
            return None
        if evaluator.shots is not None:
            return None
        guide = cls(alphabet, problem, simulator)
        if not guide.generators:
            return None
        _warm_up(simulator, problem)
        return guide

    def study(self, circuit: Circuit) -> Study:
        """A sweep of slopes, and one at each end for fans."""
        slopes = self.simulator.insertion_gradients(circuit, self.hamiltonian, self.generators)
        slopes = np.append(slopes, np.zeros((len(slopes), 1)), axis=1)
        fans, calls = self._fans_at_ends(circuit)
        new = self._differ(circuit) - self.n_qubits * self._closed(circuit)
        local, entangling = (
            self._choice(t, slopes, new, more) for t, more in zip(self.tables, ((), fans), strict=True)
        )
        return Study(local, entangling, 1 + calls)

    def append_gains(self, circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
        """Gains and best angles of rotations about `generators` at the end; see `Simulator.append_gains`."""
        return self.simulator.append_gains(circuit, self.hamiltonian, self.generators)

    def angle_costs(self, circuit: Circuit, inverse_hessian: np.ndarray | None) -> list[float | None]:
        """What `deletion_costs` is told; see `rotation_costs` and `pulse_costs`."""
        return (pulse_costs if self.native else rotation_costs)(circuit, inverse_hessian)

    def deletion_costs(self, circuit: Circuit, angle_costs: Sequence[float | None]) -> tuple[np.ndarray, int]:
        """Estimated rise of the energy without each gate, and the calls of the objective this took.

        Gates of which nothing is known are left out in turn, which costs an evaluation each.

        Args:
            angle_costs: rises that are known from angles, None for those that are not; one for each gate.
        """
        costs = np.array([math.nan if cost is None else cost for cost in angle_costs])
        fixed = np.flatnonzero(np.isnan(costs)).tolist()
        if fixed:
            circuits = [circuit, *(edited(circuit, {index}, (), native=self.native) for index in fixed)]
            energies = self.simulator.expectation_many(circuits, self.hamiltonian, workers=1)
            costs[fixed] = energies[1:] - energies[0]
        return costs, len(fixed)

    def _differ(self, circuit: Circuit) -> np.ndarray:
        """Whether a gate on a qubit is another one here than before the gate in front: float32, (positions, qubits)."""
        new = np.zeros((len(circuit) + 1, self.n_qubits), dtype=np.float32)
        new[0] = 1.0
        for position, gate in enumerate(circuit.gates, 1):
            new[position, list(gate.qubits)] = 1.0
        return new

    def _closed(self, circuit: Circuit) -> np.ndarray:
        """Where a qubit is within a run of pulses, float32, (positions, qubits); nowhere, unless gates are native.

        A rotation at its ends does to a run what one within it would, and two-qubit gates would tear it apart.
        """
        closed = np.zeros((len(circuit) + 1, self.n_qubits), dtype=np.float32)
        first: dict[int, int] = {}
        for position, gate in enumerate(circuit.gates if self.native else ()):
            if len(gate.qubits) > 1:
                for qubit in gate.qubits:
                    first.pop(qubit, None)
            elif gate.name in PULSES:
                begun = first.setdefault(gate.qubits[0], position)
                closed[begun + 1 : position + 1, gate.qubits[0]] = 1.0
        return closed

    def _choice(self, table: _Table, slopes: np.ndarray, new: np.ndarray, more: Sequence[Place]) -> Choice:
        """The most promising blocks, once where they could stand at several places, and some others."""
        squares = slopes**2
        promise = (squares[:, table.first] + squares[:, table.second]) * table.weight
        promise[new @ table.qubits.T <= 0] = 0.0
        values = promise.ravel()
        best = np.argpartition(-values, _KEPT)[:_KEPT] if len(values) > _KEPT else np.arange(len(values))
        best = best[np.argsort(-values[best], kind="stable")]
        best = best[values[best] > (_FLAT * self.weight) ** 2]
        drawn_by = [*values[best].tolist(), *(place.promise for place in more)]
        return Choice(_Places(table, slopes, best, more), np.cumsum(drawn_by))

    def _fans_at_ends(self, circuit: Circuit) -> tuple[list[Place], int]:
        """Fans before the first gate and after the last one, and the sweeps this took."""
        everywhere = frozenset(range(self.n_qubits))
        behind, calls = self.fans_behind(circuit) if len(circuit) else ([], 0)
        before, more = self._fans_at(0, everywhere, circuit)
        return before + behind, calls + more

    def fans_behind(self, circuit: Circuit) -> tuple[list[Place], int]:
        """Fans after the last gate, from qubits that no gate acts on, and the calls of the objective this took."""
        untouched = frozenset(range(self.n_qubits)).difference(*(gate.qubits for gate in circuit))
        return self._fans_at(len(circuit), untouched, circuit)

    def _fans_at(self, position: int, ground: frozenset[int], circuit: Circuit) -> tuple[list[Place], int]:
        strings, blocks = self._fans_of(ground)
        if not strings:
            return [], 0
        slopes = self.simulator.insertion_gradients(circuit, self.hamiltonian, strings, positions=[position])
        found = [Place(position, b, (s,)) for b, s in zip(blocks, slopes[0].tolist(), strict=True)]
        return [each for each in found if each.promise > (_FLAT * self.weight) ** 2], 1

    def _fans_of(self, ground: frozenset[int]) -> tuple[tuple[str, ...], list[Block]]:
        """One string for each set of qubits, since all heads in |0⟩ do the same there."""
        if ground not in self._known:
            sets: dict[frozenset[int], tuple[str, list[tuple[Insertion, ...]]]] = {}
            for head in sorted(ground):
                for qubits, (string, way) in self.heads[head].items():
                    sets.setdefault(qubits, (string, []))[1].append((way,))
            if len(ground) == self.n_qubits:
                for qubits, (string, ways) in self.trees.items():
                    sets.setdefault(qubits, (string, [(way,) for way in ways]))
            blocks = [Block((k,), tuple(ways)) for k, (_, ways) in enumerate(sets.values())]
            self._known[ground] = tuple(string for string, _ in sets.values()), blocks
        return self._known[ground]

    def draw(self, choice: Choice, rng: np.random.Generator) -> tuple[int, tuple[Gate, ...]]:
        """(position, gates) of an insertion drawn by its promise, its first angles steps downhill."""
        total = choice.heap[-1]
        drawn = min(int(np.searchsorted(choice.heap, rng.random() * total, side="right")), len(choice.heap) - 1)
        return self.made(choice.found[drawn], rng)

    def made(self, place: Place, rng: np.random.Generator) -> tuple[int, tuple[Gate, ...]]:
        """(position, gates) of an insertion in one of its ways, its first angles steps downhill."""
        way = place.block.ways[int(rng.integers(len(place.block.ways)))]
        return place.position, gates_of(way, [self.step(slope) for slope in place.slopes])

    def nearest_product(self, gate: Gate, rng: np.random.Generator) -> tuple[Gate, ...]:
        """Rotations by a quarter turn whose product has an overlap of 1/√2 with a CX or CZ; none for other gates.

        Both signs together are the two nearest ones; which is better depends on the state.
        """
        axes = {"cx": "zx", "cz": "zz"}.get(gate.name, "")
        turns = [(f"r{axis}", qubit) for axis, qubit in zip(axes, gate.qubits, strict=False)]
        if not turns or not all(turn in self.turns for turn in turns):
            return ()
        angle = math.copysign(math.pi / 2, rng.random() - 0.5)
        return tuple(Gate(name, (qubit,), (angle,)) for name, qubit in turns)

    def step(self, slope: float) -> float:
        """First angle of an inserted rotation, downhill, radians."""
        if abs(slope) <= _FLAT * self.weight:
            return 0.0
        step = -slope * self.n_qubits / self.weight
        return math.copysign(min(max(abs(step), 1e-3), _FARTHEST), step)


def gates_of(way: tuple[Insertion, ...], angles: Sequence[float]) -> tuple[Gate, ...]:
    """The gates of a block at angles of its rotations."""
    turns = [i.rotation.with_angles((i.sign * angle,)) for i, angle in zip(way, angles, strict=True)]
    return (*way[0].before, *turns, *way[0].after)


def edited(
    circuit: Circuit,
    deleted: Collection[int],
    inserted: Iterable[tuple[int, tuple[Gate, ...]]],
    *,
    native: bool = False,
) -> Circuit:
    """A circuit without some of its gates, with others before the positions that its gates had.

    Args:
        native: gates are left out as `qas.native.remaining` says.
    """
    new: dict[int, list[Gate]] = {}
    for position, gates in inserted:
        new.setdefault(position, []).extend(gates)
    left = (
        remaining(circuit, deleted)
        if native and deleted
        else [None if index in deleted else gate for index, gate in enumerate(circuit.gates)]
    )
    kept: list[Gate] = []
    for index, gate in enumerate(left):
        kept += new.get(index, [])
        if gate is not None:
            kept.append(gate)
    return Circuit(circuit.n_qubits, kept + new.get(len(circuit), []))


class Curvature(NamedTuple):
    """An estimated inverse Hessian, in half the digits and one half of the matrix, because many are kept."""

    packed: np.ndarray  # float32 (n (n + 1) / 2,): the lower triangle, row by row

    @classmethod
    def of(cls, found: Evaluation) -> Curvature | None:
        """What an optimization left; None where that is nothing, or not of its circuit."""
        inverse, size = found.inverse_hessian, found.circuit.n_angles
        if inverse is None or inverse.shape != (size, size) or not size:
            return None
        packed = inverse[_lower(size)].astype(np.float32)
        return cls(packed) if np.isfinite(packed).all() and (inverse.diagonal() > 0.0).all() else None

    def matrix(self) -> np.ndarray:
        """The inverse Hessian, float64, shape (n_angles, n_angles)."""
        size = math.isqrt(2 * len(self.packed))
        known = np.zeros((size, size))
        lower, left = _lower(size)
        known[lower, left] = known[left, lower] = self.packed
        return known

    def inherited(self, parent: Circuit, child: Circuit) -> np.ndarray | None:
        """An inverse Hessian for a child, which shares gate objects with its parent; float64, shape (n_angles,) * 2.

        New angles, and those that two gates have become, count as of median curvature and independent.
        """
        size, known = parent.n_angles, self.matrix()
        slots = {id(gate): slot for gate, slot in zip(parent.gates, _slots(parent), strict=True)}
        rows = [slots.get(id(gate), -len(gate.angles)) + k for gate in child.gates for k in range(len(gate.angles))]
        there = np.array(rows, dtype=np.int64)
        old = np.flatnonzero(there >= 0)
        if not len(old):
            return None
        begun = np.zeros((len(rows), len(rows)))
        np.fill_diagonal(begun, np.sort(known.diagonal())[size // 2])
        begun[old[:, None], old] = known[there[old][:, None], there[old]]
        return begun


@functools.lru_cache(maxsize=256)
def _lower(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tril_indices(size)


def _slots(circuit: Circuit) -> list[int]:
    """Where the angles of each gate begin."""
    return [0, *itertools.accumulate(len(gate.angles) for gate in circuit.gates)][: len(circuit.gates)]


def rotation_costs(circuit: Circuit, inverse_hessian: np.ndarray | None) -> list[float | None]:
    """Estimated rise of the energy without each gate, None for gates without angles: θ² / 2(H⁻¹), summed over angles.

    Args:
        inverse_hessian: as an optimization left it, shape (n_angles, n_angles); None: the unit matrix.
    """
    each = wrapped(circuit.angles) ** 2 / (2 * _softness(circuit, inverse_hessian))
    costs: list[float | None] = []
    first = 0
    for gate in circuit.gates:
        last = first + len(gate.angles)
        costs.append(float(each[first:last].sum()) if gate.angles else None)
        first = last
    return costs


def pulse_costs(circuit: Circuit, inverse_hessian: np.ndarray | None) -> list[float | None]:
    """As `rotation_costs`, of a native circuit, where a pair of pulses goes by the angle between them.

    Of a pair of pulses the first stands for either; fixed turns about Z are left alone.
    """
    softness = iter(_softness(circuit, inverse_hessian).tolist())
    soft = {k: next(softness) for k, gate in enumerate(circuit) if gate.angles}
    pairs = middles(circuit)
    costs: list[float | None] = []
    for k, gate in enumerate(circuit):
        if k not in pairs:
            away = math.remainder(gate.angles[0], 2 * math.pi) if gate.angles else 0.0
            costs.append(away**2 / (2 * soft[k]) if gate.angles else _NO_CHOICE if gate.name in TURNS else None)
        elif gate.name == "sx" and k > pairs[k]:
            costs.append(_NO_CHOICE)
        else:
            costs.append(short_of(circuit[pairs[k]].angles[0], gate.name) ** 2 / (2 * soft[pairs[k]]))
    return costs


def _softness(circuit: Circuit, inverse_hessian: np.ndarray | None) -> np.ndarray:
    """Diagonal of an inverse Hessian, float64, shape (n_angles,); ones where none fits."""
    fits = inverse_hessian is not None and inverse_hessian.shape == (circuit.n_angles,) * 2
    diagonal = inverse_hessian.diagonal() if fits and inverse_hessian is not None else np.ones(circuit.n_angles)
    return np.maximum(diagonal, 1e-12)
