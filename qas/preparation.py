"""Determinants and excitations as one state preparation: rotations of single qubits, all copying left to the end.

A double excitation of a state flips four qubits together, so afterwards three of them can be computed from the fourth.
Instead of doing so at once, a circuit is kept in a frame x of its own, with occupations y = L x + b over GF(2): every
excitation is made to turn a single bit of x, controlled by parities of others, and becomes a column of L. One CNOT
circuit for L at the end is shorter than the CNOTs of one excitation after the other, as these share what they flip.
Only the state is kept: the list of basis states that can occur decides which controls are needed.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.decomposition import MOST_STATES, lower, shortest_walk
from qas.gates import gate_spec
from qas.gf2 import summands

_TRIES = 24
"""Preparations that are made with equal choices drawn anew; the shortest is kept."""
_MOST_EXCITATIONS = 8
"""With more, most controls depend on many bits, and one excitation after the other is shorter."""
_MOST_PARITIES = 400
_MOST_COVERS = 60


def decomposed_from_zero(circuit: Circuit) -> Circuit:
    """A circuit without excitations that makes the same state of |0…0⟩: of two ways the one of fewer CNOTs."""
    one_by_one, together = lower(circuit, from_zero=True).circuit, prepared(circuit)
    if together is None or together.two_qubit_gates >= one_by_one.two_qubit_gates:
        return one_by_one
    return together


def prepared(circuit: Circuit, *, seed: int = 0) -> Circuit | None:
    """A circuit of {x, ry, cx} that makes the same state of |0…0⟩; None where it is not X gates and then excitations.

    None too for more than 8 excitations, and where more than `MOST_STATES` basis states can occur or a control would
    depend on more than three parities.

    Args:
        circuit: at its own angles.
        seed: of the choices among equal steps.
    """
    turns = _turns_of(circuit)
    if turns is None or len(turns[1]) > _MOST_EXCITATIONS:
        return None
    rng = np.random.default_rng(seed)
    found = [_Frame(circuit.n_qubits, turns[0], rng).run(turns[1]) for _ in range(_TRIES)]
    made = [Circuit(circuit.n_qubits, gates) for gates in found if gates is not None]
    return min(made, key=lambda one: one.two_qubit_gates, default=None)


class _Turn(NamedTuple):
    """An excitation: states with these values of its qubits turn into their complements by angles."""

    qubits: tuple[int, ...]
    angles: dict[int, float]


def _turns_of(circuit: Circuit) -> tuple[int, list[_Turn]] | None:
    """The bits that X gates set at the front, and the excitations behind them."""
    start = 0
    turns: list[_Turn] = []
    for gate in circuit.gates:
        spec = gate_spec(gate.name)
        if gate.name == "x" and not turns:
            start ^= 1 << gate.qubits[0]
        elif spec.exchanges:
            groups = [spec.exchanges] if spec.n_angles == 1 else [(exchange,) for exchange in spec.exchanges]
            for exchanges in groups:
                angles = {e.state: sum(w * a for w, a in zip(e.weights, gate.angles, strict=True)) for e in exchanges}
                turns.append(_Turn(gate.qubits, angles))
        else:
            return None
    return start, turns


class _Frame:
    """Bits x of the register, basis states that occur, and what each bit flips of y."""

    def __init__(self, n_qubits: int, start: int, rng: np.random.Generator) -> None:
        self.n, self.start, self.rng = n_qubits, start, rng
        share = rng.choice([0.0, 0.2, 0.4])
        self.at_once = [q for q in range(n_qubits) if rng.random() < share]
        """Qubits that are flipped at once: they may be the controls that later excitations need."""
        self.states = np.zeros(1, dtype=np.int64)
        self.columns = [1 << q for q in range(n_qubits)]
        self.gates: list[Gate] = []

    def run(self, turns: Iterable[_Turn]) -> list[Gate] | None:
        for turn in turns:
            if not self._add(turn) or len(self.states) > MOST_STATES:
                return None
        varying = int(np.bitwise_or.reduce(self.states))
        rows = [sum((c >> q & 1) << k for k, c in enumerate(self.columns) if varying >> k & 1) for q in range(self.n)]
        copies = _copying(rows, varying, self.rng)
        flips = [Gate("x", (q,)) for q in range(self.n) if self.start >> q & 1]
        return [*self.gates, *copies, *flips]

    def _add(self, turn: _Turn) -> bool:
        """Append an excitation; False where no cheap controls were found."""
        mask = summands(self.columns, sum(1 << q for q in turn.qubits))
        varying = int(np.bitwise_or.reduce(self.states))
        plans = []
        for root in _bits(mask & ~varying) or _bits(mask):
            known = not varying >> root & 1
            others = mask ^ 1 << root
            rest, angles = self._angles(turn, root, others)
            if not np.any(angles):
                return True
            found = _controls(rest, angles, known)
            if found is not None:
                cost = found[0] + (0 if known else others.bit_count())
                plans.append((cost, self.rng.random(), root, others, known, found[1]))
        if not plans:
            return False
        *_, root, others, known, terms = min(plans)
        self._turn(turn, root, others, known, terms)
        return True

    def _moved(self, root: int, others: int) -> np.ndarray:
        return np.where(self.states >> root & 1, self.states ^ others, self.states)

    def _angles(self, turn: _Turn, root: int, others: int) -> tuple[np.ndarray, np.ndarray]:
        """States with the root's bit at 0, once it is all that the excitation flips, and RY's angle for each."""
        rest = np.unique(self._moved(root, others) & ~(1 << root))
        y = np.full(len(rest), self.start)
        for k, column in enumerate(self.columns):
            y ^= np.where(rest >> k & 1, column, 0)
        local = np.sum([(y >> q & 1) << k for k, q in enumerate(turn.qubits)], axis=0)
        full = (1 << len(turn.qubits)) - 1
        angle_of = {
            **{full - s: -2.0 * a for s, a in turn.angles.items()},
            **{s: 2.0 * a for s, a in turn.angles.items()},
        }
        return rest, np.array([angle_of.get(value, 0.0) for value in local.tolist()])

    def _turn(self, turn: _Turn, root: int, others: int, known: bool, terms: list[tuple[int, float]]) -> None:
        if not known:
            self.gates += [Gate("cx", (root, c)) for c in _bits(others)]
        self.states = self._moved(root, others)
        for c in _bits(others):
            self.columns[root] ^= self.columns[c]
        at = terms[0][0] if known else 0
        from_middle = at != 0
        # From |0⟩ a walk may start anywhere if its steps are controlled Z: CNOTs from the root, other bases turned.
        crossed = 0
        steps: list[Gate] = []
        for parity, angle in [*terms, (0, None)]:
            steps += [Gate("cx", (root, c) if from_middle else (c, root)) for c in _bits(at ^ parity)]
            crossed |= at ^ parity
            if angle is not None:
                steps.append(Gate("ry", (root,), (angle,)))
            at = parity
        turned = _bits(crossed) if from_middle else []
        self.gates += [Gate("ry", (c,), (math.pi / 2,)) for c in turned]
        self.gates += [*steps, *(Gate("ry", (c,), (-math.pi / 2,)) for c in turned)]
        rest, angles = self._angles(turn, root, 0)
        hit = np.isin(self.states & ~(1 << root), rest[angles != 0.0])
        self.states = np.union1d(self.states, self.states[hit] ^ 1 << root)
        for q in self.at_once:
            if q != root and self.columns[root] >> q & 1 and self.columns[q] == 1 << q:
                self.gates.append(Gate("cx", (root, q)))
                self.states = np.sort(self._moved(root, 1 << q))
                self.columns[root] ^= 1 << q


def _bits(mask: int) -> list[int]:
    return [q for q in range(mask.bit_length()) if mask >> q & 1]


# ---------------------------------------------------------------------- controls
def _controls(rest: np.ndarray, angles: np.ndarray, known: bool) -> tuple[int, list[tuple[int, float]]] | None:
    """CNOTs and terms of the cheapest walk found over parities of other bits whose rotations add up to the angles."""
    active = angles != 0.0
    signs = np.sign(angles[active])
    varying = int(np.bitwise_or.reduce(rest) & ~np.bitwise_and.reduce(rest))
    parities = [sum(1 << b for b in c) for k in (1, 2, 3) for c in itertools.combinations(_bits(varying), k)]
    parities = parities[:_MOST_PARITIES]
    values = {p: 1 - 2 * (np.bitwise_count(rest & p) & 1).astype(np.int64) for p in (0, *parities)}
    turning = [p for p, v in values.items() if abs(int(v[active] @ signs)) == len(signs)]
    still = {p: v[active][0] for p, v in values.items() if p and abs(int(v[active].sum())) == len(signs)}
    stopped = {p: _mask_of((values[p] != value)[~active]) for p, value in still.items()}
    best: tuple[int, list[tuple[int, float]]] | None = None
    for chosen in _covers(stopped, (1 << int((~active).sum())) - 1):
        for first in turning[:3]:
            nodes = {first}
            for p in chosen:
                nodes |= {node ^ p for node in nodes}
            cost, walk = shortest_walk(tuple(sorted(nodes)), 0, known)
            if best is None or cost < best[0]:
                basis = np.array(
                    [1 - 2 * (np.bitwise_count(rest & p) & 1).astype(np.int64) for p in walk], dtype=float
                ).T
                weights, *_ = np.linalg.lstsq(basis, angles, rcond=None)
                if np.abs(basis @ weights - angles).max() < 1e-9 * np.abs(angles).max():
                    best = cost, list(zip(walk, weights.tolist(), strict=True))
    return best


def _mask_of(flags: np.ndarray) -> int:
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _covers(stopped: dict[int, int], every: int) -> list[tuple[int, ...]]:
    """Sets of parities, as few and light as possible, that together stop the rotation wherever nothing may turn.

    Args:
        stopped: parity -> mask of the states that it stops among those.
        every: mask of all of them.
    """
    if not every:
        return [()]
    light = sorted((p for p in stopped if stopped[p]), key=lambda p: p.bit_count())
    for size in (1, 2, 3):
        found = []
        for chosen in itertools.combinations(light if size < 3 else light[:40], size):
            if functools.reduce(operator.or_, [stopped[p] for p in chosen]) == every:
                found.append(chosen)
                if len(found) == _MOST_COVERS:
                    break
        if found:
            return found
    return []


# ---------------------------------------------------------------------- CNOT circuits
def _copying(rows: list[int], varying: int, rng: np.random.Generator) -> list[Gate]:
    """CNOTs after which qubit q holds the parity ``rows[q]`` of the varying bits, each of which is on its own qubit."""
    found = [_reduced(list(rows), varying, rng) for _ in range(40)]
    return min(found, key=len)[::-1]


def _reduced(rows: list[int], varying: int, rng: np.random.Generator) -> list[Gate]:
    """CNOTs that turn the parities into single bits in their places, and nothing elsewhere."""
    n, gates = len(rows), []

    def add(control: int, target: int) -> None:
        rows[target] ^= rows[control]
        gates.append(Gate("cx", (control, target)))

    while True:
        gains = [
            (rows[t].bit_count() - (rows[t] ^ rows[c]).bit_count(), rng.random(), c, t)
            for c in range(n)
            for t in range(n)
            if c != t and rows[c] and rows[t]
        ]
        gain, _, control, target = max(gains, default=(0, 0.0, 0, 0))
        if gain <= 0:
            break
        add(control, target)
    # What is left is a permutation, or dense: Gauss's elimination.
    for bit in _bits(varying):
        if not rows[bit] >> bit & 1:
            add(next(q for q in range(n) if rows[q] >> bit & 1 and (q > bit or not varying >> q & 1)), bit)
        for q in range(n):
            if q != bit and rows[q] >> bit & 1:
                add(bit, q)
    return gates
