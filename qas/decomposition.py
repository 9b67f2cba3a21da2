"""Excitations as circuits of {rx, ry, rz, cx}, as short as is known, and shorter where the state is known.

An excitation turns basis states into their complements, so in the basis of the parities of its qubits it is a rotation
RY of one of them, the root, by an angle that depends on the others. CNOTs along a tree make the parities and take them
back; in between, rotations and controlled Z alternate, a walk over the terms of the angle's Walsh transform. A
controlled Z beside a CNOT on the same two qubits merges with it. A double excitation costs 3 + 7 + 3 CNOTs (Yordanov
et al., Phys. Rev. A 102, 062612, 2020), a coupled exchange with one angle 3 + 3 + 3 (Ramôa et al., arXiv:2407.08696).

Where only some basis states of the qubits occur, the other angles are free, which shortens the walk; CNOTs whose
control is known need not be made. On a determinant nothing but one rotation and 3 CNOTs is left.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.gates import DIAGONAL_GATES, gate_spec

MOST_STATES = 1 << 13
"""More basis states than these are not followed: the state counts as unknown from there on."""

Walk = tuple[int, ...]
Local = frozenset[int]
"""Values of a gate's own qubits that occur, bit k for its k-th qubit."""


class Step(NamedTuple):
    """A gate on some of an excitation's qubits; a rotation's angle is ``offset + weights · angles``."""

    name: str
    qubits: tuple[int, ...]
    weights: tuple[float, ...] = ()
    offset: float = 0.0


class Lowering(NamedTuple):
    """A circuit of primitive gates in the place of another, and where its angles come from."""

    circuit: Circuit
    """its own angles are those of the other circuit's angles when it was made"""
    starts: np.ndarray  # int64 (n_gates + 1,): first primitive gate of each gate, and their number
    rows: np.ndarray  # int64 (terms,): angle of the primitive circuit
    columns: np.ndarray  # int64 (terms,): angle of the other circuit
    weights: np.ndarray  # float64 (terms,)
    offsets: np.ndarray  # float64 (primitive angles,)
    n_angles: int
    """of the other circuit"""

    def angles(self, angles: np.ndarray) -> np.ndarray:
        """Angles of the primitive circuit, float64, shape (primitive angles,), for those of the other, (n_angles,)."""
        terms = self.weights * angles[self.columns]
        return self.offsets + np.bincount(self.rows, terms, minlength=len(self.offsets))

    def gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Derivatives in the other circuit's angles, shape (n_angles,), by the chain rule."""
        return np.bincount(self.columns, self.weights * gradient[self.rows], minlength=self.n_angles)

    def matrix(self) -> np.ndarray:
        """Derivatives of the primitive angles in the others, float64, shape (primitive angles, n_angles)."""
        dense = np.zeros((len(self.offsets), self.n_angles))
        dense[self.rows, self.columns] = self.weights
        return dense


def lower(circuit: Circuit, *, from_zero: bool = False) -> Lowering:
    """The circuit with its excitations decomposed.

    Args:
        circuit: any circuit.
        from_zero: only what it makes of |0…0⟩ is kept, at all angles, not its whole matrix.
    """
    support = np.zeros(1, dtype=np.int64) if from_zero else None
    gates: list[Gate] = []
    starts: list[int] = [0]
    offsets: list[float] = []
    terms: list[tuple[int, int, float]] = []
    position = 0
    for gate in circuit.gates:
        spec = gate_spec(gate.name)
        if spec.primitive:
            gates.append(gate)
            terms += [(len(offsets) + k, position + k, 1.0) for k in range(spec.n_angles)]
            offsets += [0.0] * spec.n_angles
        else:
            for step in steps_of(gate.name, None if support is None else local_states(support, gate.qubits)):
                angles: tuple[float, ...] = ()
                if step.name != "cx":
                    terms += [(len(offsets), position + k, w) for k, w in enumerate(step.weights) if w]
                    offsets.append(step.offset)
                    angles = (step.offset + sum(w * a for w, a in zip(step.weights, gate.angles, strict=False)),)
                gates.append(Gate(step.name, tuple(gate.qubits[q] for q in step.qubits), angles))
        position += spec.n_angles
        starts.append(len(gates))
        support = None if support is None else states_after(support, gate)
    rows, columns, weights = zip(*terms, strict=True) if terms else ((), (), ())
    return Lowering(
        Circuit(circuit.n_qubits, gates),
        np.array(starts, dtype=np.int64),
        np.array(rows, dtype=np.int64),
        np.array(columns, dtype=np.int64),
        np.array(weights, dtype=np.float64),
        np.array(offsets, dtype=np.float64),
        position,
    )


# ---------------------------------------------------------------------- which basis states occur


def states_after(states: np.ndarray, gate: Gate) -> np.ndarray | None:
    """Basis states that may occur after a gate, at any angles; None: more than `MOST_STATES`.

    Args:
        states: those that may occur before it, int64, sorted.
    """
    if gate.name in DIAGONAL_GATES:
        return states
    bits = [1 << q for q in gate.qubits]
    flipped = states ^ sum(bits)
    if gate.name in ("x", "y"):
        return np.sort(flipped)
    if gate.name == "cx":
        return np.sort(np.where(states & bits[0], states ^ bits[1], states))
    if gate.name == "ecr":
        return np.union1d(states ^ bits[0], flipped)
    if gate.name == "swap":
        differ = ((states & bits[0]) != 0) != ((states & bits[1]) != 0)
        return np.sort(np.where(differ, flipped, states))
    spec = gate_spec(gate.name)
    if spec.exchanges:
        full = (1 << spec.n_qubits) - 1
        active = [state for exchange in spec.exchanges for state in (exchange.state, full - exchange.state)]
        flipped = flipped[np.isin(_values(states, gate.qubits), active)]
    found = np.union1d(states, flipped)
    return found if len(found) <= MOST_STATES else None


def _values(states: np.ndarray, qubits: Sequence[int]) -> np.ndarray:
    return np.sum([((states >> q) & 1) << k for k, q in enumerate(qubits)], axis=0)


def local_states(states: np.ndarray, qubits: Sequence[int]) -> Local:
    """Which values some qubits take in a list of basis states."""
    return frozenset(np.unique(_values(states, qubits)).tolist())


# ---------------------------------------------------------------------- one excitation
@functools.lru_cache(maxsize=4096)
def steps_of(name: str, occurring: Local | None = None) -> tuple[Step, ...]:
    """The shortest decomposition found of an excitation.

    Args:
        name: of the gate.
        occurring: values of its qubits that occur; None: all.

    Returns:
        Nothing, where the gate does nothing to them.
    """
    n = gate_spec(name).n_qubits
    states = frozenset(range(1 << n)) if occurring is None else occurring
    wanted = _wanted(name, states)
    if not any(any(weights) for weights in wanted.values()):
        return ()
    choices = _sums(tuple(wanted.items()), n)
    fixed = {q: next(iter(states)) >> q & 1 for q in range(n) if len({s >> q & 1 for s in states}) == 1}
    best: list[_Plan] = []
    for tree in _trees(n):
        for terms in choices:
            plan = _planned(tree, terms, fixed)
            if not best or plan.cost < best[0].cost:
                best = []
            if not best or plan.cost == best[0].cost:
                best.append(plan)
    candidates = [tuple(plan.steps(fixed)) for plan in best[:64]]
    return min(candidates, key=lambda steps: (_depth(steps, n), steps))


def _wanted(name: str, states: Local) -> dict[int, tuple[float, ...]]:
    """Pair of complements that occurs (its state with bit 0 unset) -> weights of RY's angle on qubit 0."""
    spec = gate_spec(name)
    full = (1 << spec.n_qubits) - 1
    wanted = {min(s, full - s, key=lambda v: v & 1): (0.0,) * spec.n_angles for s in states}
    for state, weights in spec.exchanges:
        pair, sign = (full - state, -2.0) if state & 1 else (state, 2.0)
        if pair in wanted:
            wanted[pair] = tuple(sign * w for w in weights)
    return wanted


Terms = tuple[tuple[int, tuple[float, ...]], ...]
"""Characters (-1)^{e·b}, as masks e of an even number of qubits, and the weights of the angle that each carries."""


def _sums(wanted: tuple[tuple[int, tuple[float, ...]], ...], n: int) -> list[Terms]:
    """Sums of characters that are what is wanted on the pairs that occur: all with the fewest, and with one more."""
    characters = [e for e in range(1 << n) if e.bit_count() % 2 == 0]
    pairs = [pair for pair, _ in wanted]
    values = np.array([weights for _, weights in wanted])
    signs = np.array([[1.0 - 2.0 * ((e & pair).bit_count() & 1) for e in characters] for pair in pairs])
    found: list[Terms] = []
    fewest = len(characters)
    for size in range(1, len(characters) + 1):
        if size > fewest + 1:
            break
        for chosen in itertools.combinations(range(len(characters)), size):
            part = signs[:, chosen]
            solution, *_ = np.linalg.lstsq(part, values, rcond=None)
            used = np.abs(solution).max(axis=1) > 1e-9
            if used.all() and np.abs(part @ solution - values).max() < 1e-9:
                fewest = min(fewest, size)
                rounded = [tuple(round(64 * w) / 64 for w in row) for row in solution.tolist()]
                if np.abs(part @ np.array(rounded) - values).max() < 1e-12:
                    found.append(tuple((characters[k], row) for k, row in zip(chosen, rounded, strict=True)))
    return found


class _Tree(NamedTuple):
    root: int
    parents: dict[int, int]
    """child -> parent, leaves first"""
    below: dict[int, int]
    """child -> mask of the qubits that hang on it, itself included"""


@functools.cache
def _trees(n: int) -> list[_Tree]:
    """All rooted trees on n labelled qubits, n up to 4."""
    found = []
    for root in range(n):
        others = [q for q in range(n) if q != root]
        for choice in itertools.product(range(n), repeat=n - 1):
            parents = dict(zip(others, choice, strict=True))
            depths = {}
            for child in others:
                path = [child]
                while path[-1] != root and len(path) <= n:
                    path.append(parents[path[-1]])
                depths[child] = len(path)
            if max(depths.values(), default=0) > n:
                continue  # a cycle
            order = sorted(others, key=lambda q: -depths[q])
            below = {q: 1 << q for q in others}
            for child in order:
                if parents[child] != root:
                    below[parents[child]] |= below[child]
            found.append(_Tree(root, {child: parents[child] for child in order}, below))
    return found


class _Plan(NamedTuple):
    cost: tuple[int, int]
    """CNOTs, rotations"""
    tree: _Tree
    walk: tuple[tuple[int, tuple[float, ...]], ...]
    """mask of the children that control a rotation, and the weights of its angle, in the order of the walk"""
    paired: int
    """the child whose two rotations stand on both ends of one pair of CNOTs, or -1"""

    def steps(self, fixed: dict[int, int]) -> list[Step]:
        inner, first, last = _walked(self, fixed)
        parents = self.tree.parents
        before = [step for child in parents for step in _parity(parents[child], child, fixed, child in first, 1)]
        after = [step for child in reversed(parents) for step in _parity(parents[child], child, {}, child in last, -1)]
        if self.paired >= 0:
            before, after = before[:-1], after[1:]  # `paired` is a child of the root, and the last of them
        return [*before, *inner, *after]


def _planned(tree: _Tree, terms: Terms, fixed: dict[int, int]) -> _Plan:
    """The cheapest walk over the terms in one tree."""
    near = sum(1 << child for child, parent in tree.parents.items() if parent == tree.root)
    made = sum(parent not in fixed for parent in tree.parents.values()) + len(tree.parents)
    known = tree.root in fixed
    # Qubit `root` has bit 0's place: where the two differ in a pair, the rotation runs the other way.
    turned = 0 if tree.root == 0 else 1 | 1 << tree.root
    weights = {_children(tree, e ^ turned): row for e, row in terms}
    nodes = tuple(sorted(weights))
    if not known and len(nodes) == 2 and nodes[0] == 0 and nodes[1] & near and nodes[1].bit_count() == 1:
        child = nodes[1].bit_length() - 1
        order = {c: p for c, p in tree.parents.items() if c != child} | {child: tree.root}
        return _Plan((made, 2), tree._replace(parents=order), tuple((v, weights[v]) for v in nodes), child)
    steps, walk = shortest_walk(nodes, near, known)
    return _Plan((made + steps, len(nodes)), tree, tuple((v, weights[v]) for v in walk), -1)


def _children(tree: _Tree, mask: int) -> int:
    """A parity of an even number of qubits as a sum of parities along the tree's edges, as a mask of children."""
    return sum(1 << child for child, below in tree.below.items() if (mask & below).bit_count() & 1)


@functools.lru_cache(maxsize=8192)
def shortest_walk(nodes: Walk, near: int, known: bool) -> tuple[int, Walk]:
    """Fewest controlled Z that visit all nodes, from 0 and back to 0, without those that cost nothing.

    Args:
        near: children of the root: theirs merge with CNOTs at the end, and at the start.
        known: the root is in a basis state at the start, where a controlled Z is no gate on two qubits.
    """
    best: dict[tuple[int, int], tuple[int, Walk]] = {
        (1 << k, k): (0 if known else (v & ~near).bit_count(), (v,)) for k, v in enumerate(nodes)
    }
    for _ in nodes[1:]:
        longer: dict[tuple[int, int], tuple[int, Walk]] = {}
        for (visited, at), (cost, walk) in best.items():
            for k, v in enumerate(nodes):
                if not visited >> k & 1:
                    step = cost + (nodes[at] ^ v).bit_count(), (*walk, v)
                    key = visited | 1 << k, k
                    if key not in longer or step < longer[key]:
                        longer[key] = step
        best = longer
    # Of equal ones that with the fewest merged: each merge takes one-qubit gates.
    cost, _, walk = min(
        (cost + (walk[-1] & ~near).bit_count(), (0 if known else walk[0].bit_count()) + walk[-1].bit_count(), walk)
        for cost, walk in best.values()
    )
    return cost, walk


# ---------------------------------------------------------------------- gates of a plan
_QUARTER = math.pi / 2


def _walked(plan: _Plan, fixed: dict[int, int]) -> tuple[list[Step], set[int], set[int]]:
    """Rotations and controlled Z between the parities, and the children whose CNOT takes in one before and after."""
    tree, root = plan.tree, plan.tree.root
    if plan.paired >= 0:
        return _pair(root, plan.paired, *(row for _, row in plan.walk)), set(), set()
    near = {child for child, parent in tree.parents.items() if parent == root}
    start, end = plan.walk[0][0], plan.walk[-1][0]
    starting, ending = (list(_bits(v)) for v in (start, end))
    first = set() if root in fixed else near.intersection(starting)
    last = near.intersection(ending)
    merged = bool(start or end)
    steps: list[Step] = []
    if root in fixed:
        if fixed[root]:
            steps += [Step("rz", (q,), offset=math.pi) for q in starting]
        starting = []
    controlled: list[Step] = []
    crossed = 0

    def control(child: int) -> Step:
        nonlocal crossed
        crossed |= 1 << child
        return Step("cx", (root, child) if merged else (child, root))

    controlled += [control(q) for q in starting if q not in first]
    at = start
    for node, weights in plan.walk:
        controlled += [control(q) for q in _bits(at ^ node)]
        controlled.append(Step("ry", (root,), weights))
        at = node
    controlled += [control(q) for q in ending if q not in last]
    # Controlled Z as a CNOT from the root, between changes of basis.
    turned = list(_bits(crossed)) if merged else []
    steps += [Step("ry", (q,), offset=_QUARTER) for q in turned]
    return [*steps, *controlled, *(Step("ry", (q,), offset=-_QUARTER) for q in turned)], first, last


def _bits(mask: int) -> Iterable[int]:
    return (q for q in range(mask.bit_length()) if mask >> q & 1)


def _parity(parent: int, child: int, fixed: dict[int, int], merged: bool, sign: int) -> list[Step]:
    """CNOT from parent to child; `merged` with a controlled Z after it (sign 1) or before it (-1)."""
    if parent in fixed:
        return [Step("rx", (child,), offset=math.pi)] if fixed[parent] else []
    cx = Step("cx", (parent, child))
    if not merged:
        return [cx]
    # The product is a controlled iY or -iY: a controlled Y, and its phase as S on the control.
    return [
        Step("rz", (child,), offset=-_QUARTER),
        cx,
        Step("rz", (child,), offset=_QUARTER),
        Step("rz", (parent,), offset=sign * _QUARTER),
    ]


def _pair(root: int, child: int, plain: tuple[float, ...], controlled: tuple[float, ...]) -> list[Step]:
    """exp(-i (α Y_root X_child + β X_root Y_child) / 2): CNOT, both rotations side by side, CNOT."""
    cx = Step("cx", (root, child))
    return [
        Step("ry", (root,), offset=-_QUARTER),
        cx,
        Step("ry", (root,), plain),
        Step("ry", (child,), controlled),
        cx,
        Step("ry", (root,), offset=_QUARTER),
    ]


def _depth(steps: Sequence[Step], n: int) -> int:
    return Circuit(n, [Gate(s.name, s.qubits, () if s.name == "cx" else (0.0,)) for s in steps]).depth
