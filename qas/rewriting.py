"""Equal circuits of {rx, ry, rz, cx} with fewer gates, for a register that starts in |0…0⟩ or anywhere.

Three rules beside those of `qas.simplify`: gates meet across others that they commute with; a CX that is wrapped in two
equal ones on its neighbours needs one CX less; gates on two qubits in a row are one matrix, of which three CX make any
(Vatan and Williams, Phys. Rev. A 69, 032315, 2004), and one any state of |00⟩ (Schmidt's decomposition).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.gates import GATES, SEARCH_GATES
from qas.simplify import merge_runs, simplify, u_angles

_PI, _HALF = math.pi, math.pi / 2
_NATIVE_OF_ONE: dict[str, tuple[tuple[str, float], ...]] = {
    "x": (("rx", _PI),),
    "y": (("ry", _PI),),
    "z": (("rz", _PI),),
    "h": (("ry", _HALF), ("rx", _PI)),
    "s": (("rz", _HALF),),
    "sdg": (("rz", -_HALF),),
    "t": (("rz", _HALF / 2),),
    "tdg": (("rz", -_HALF / 2),),
    "sx": (("rx", _HALF),),
}
_TO_Z = {"X": ("ry", -_HALF), "Y": ("rx", _HALF)}


# ---------------------------------------------------------------------- native gates
def native(circuit: Circuit, *, whole: bool = False) -> Circuit:
    """The circuit in {rx, ry, rz, cx}, its state of |0…0⟩ the same up to a global phase; as it is if it is so already.

    Excitations are decomposed as far as the states that reach them need it (see `Circuit.decompose`).

    Args:
        circuit: any.
        whole: keep the whole matrix, up to its phase.
    """
    circuit = circuit.decompose(from_zero=not whole)
    if set(circuit.counts) <= set(SEARCH_GATES):
        return circuit
    return Circuit(circuit.n_qubits, [lowered for gate in circuit for lowered in _native_gates(gate)])


def _native_gates(gate: Gate) -> list[Gate]:
    if gate.name in SEARCH_GATES:
        return [gate]
    if gate.name in _NATIVE_OF_ONE:
        return [Gate(name, gate.qubits, (angle,)) for name, angle in _NATIVE_OF_ONE[gate.name]]
    if gate.name == "u":
        theta, phi, lam = gate.angles
        return [Gate(n, gate.qubits, (a,)) for n, a in (("rz", lam), ("ry", theta), ("rz", phi))]
    first, second = gate.qubits
    forward, backward = Gate("cx", (first, second)), Gate("cx", (second, first))
    if gate.name == "swap":
        return [forward, backward, forward]
    if gate.name == "ecr":
        turns = (("rz", first, _HALF), ("rx", first, _PI), ("rx", second, _HALF))
        return [forward, *(Gate(name, (qubit,), (angle,)) for name, qubit, angle in turns)]
    if gate.name == "cz":
        return [Gate("ry", (second,), (_HALF,)), forward, Gate("ry", (second,), (-_HALF,))]
    axis = (GATES[gate.name].axis or "")[0]
    bases = [Gate(_TO_Z[axis][0], (q,), (_TO_Z[axis][1],)) for q in gate.qubits if axis in _TO_Z]
    undo = [basis.with_angles((-basis.angles[0],)) for basis in bases]
    return [*bases, forward, Gate("rz", (second,), gate.angles), forward, *undo]


# ---------------------------------------------------------------------- all rules
def compress(circuit: Circuit, angle_tolerance: float = 1e-7, *, whole: bool = False) -> Circuit:
    """An equal circuit of {rx, ry, rz, cx} with no more CX, and of as many CX no more gates.

    All rules are applied until none finds anything. The state of |0…0⟩ is the same up to a global phase and what
    rotations by less than `angle_tolerance`, in radians, do.

    Args:
        circuit: of {rx, ry, rz, cx}; see `native`.
        whole: keep the whole matrix, up to its phase.
    """
    while True:
        before = _size(circuit)
        circuit = peephole(circuit, angle_tolerance, whole=whole)
        circuit = merge_runs(circuit, SEARCH_GATES, whole=whole)
        circuit = resynthesize(circuit, whole=whole)
        if _size(circuit) >= before:
            return circuit


def peephole(circuit: Circuit, angle_tolerance: float = 1e-7, *, whole: bool = False) -> Circuit:
    """As `compress`, by the rules alone that need no matrices."""
    while True:
        before = _size(circuit)
        circuit = simplify(circuit, angle_tolerance=angle_tolerance, whole=whole)
        circuit = _meet(circuit)
        circuit = _without_wraps(circuit)
        if _size(circuit) >= before:
            return circuit


def _size(circuit: Circuit) -> tuple[int, int]:
    return circuit.two_qubit_gates, len(circuit)


# ---------------------------------------------------------------------- gates that commute
def _letter(gate: Gate, qubit: int) -> str:
    """The Pauli that a gate commutes with on one of its qubits."""
    if gate.name == "cx":
        return "Z" if qubit == gate.qubits[0] else "X"
    return gate.name[1].upper()


def _commute(a: Gate, b: Gate) -> bool:
    return all(_letter(a, q) == _letter(b, q) for q in a.qubits if q in b.qubits)


def _partner(gates: Sequence[Gate | None], gate: Gate) -> int:
    """The last gate that `gate`, coming after all, can stand beside and merge with; -1: none."""
    qubits = set(gate.qubits)
    for position in range(len(gates) - 1, -1, -1):
        other = gates[position]
        if other is None or qubits.isdisjoint(other.qubits):
            continue
        if other.name == gate.name and other.qubits == gate.qubits:
            return position
        if not _commute(other, gate):
            return -1
    return -1


def _meet(circuit: Circuit) -> Circuit:
    """Rotations are added, and pairs of CX cancel, across gates that they commute with."""
    kept: list[Gate | None] = []
    for gate in circuit:
        where = _partner(kept, gate)
        partner = kept[where] if where >= 0 else None
        if partner is None:
            kept.append(gate)
        elif gate.angles:
            kept[where] = partner.with_angles((partner.angles[0] + gate.angles[0],))
        else:
            kept[where] = None
    gates = [gate for gate in kept if gate is not None]
    return circuit if len(gates) == len(circuit) else Circuit(circuit.n_qubits, gates)


def _without_wraps(circuit: Circuit) -> Circuit:
    """cx(a, b) cx(b, c) cx(a, b) becomes cx(a, c) cx(b, c), and with all CX turned round the same."""
    gates = list(circuit.gates)
    for last, outer in enumerate(gates):
        if outer.name != "cx":
            continue
        qubits = set(outer.qubits)
        before = (k for k in range(last - 1, -1, -1) if not qubits.isdisjoint(gates[k].qubits))
        blocking = next((k for k in before if not _commute(gates[k], outer)), None)
        if blocking is None or gates[blocking].name != "cx":
            continue
        replaced = _unwrapped(gates, blocking, last)
        if replaced is not None:
            return Circuit(circuit.n_qubits, replaced)
    return circuit


def _unwrapped(gates: list[Gate], middle: int, last: int) -> list[Gate] | None:
    """The gates without the wrap that ends at `last`, around the CX at `middle`; None if there is none."""
    outer, inner = gates[last], gates[middle]
    first = _partner(gates[:middle], outer)
    if first < 0 or set(inner.qubits) == set(outer.qubits):
        return None
    (a, b), (c, d) = outer.qubits, inner.qubits
    if c == b:
        more = Gate("cx", (a, d))
    elif d == a:
        more = Gate("cx", (c, b))
    else:
        return None
    # The two outer ones stand beside the inner one; everything between commutes with them.
    return [*gates[:first], *gates[first + 1 : middle], more, inner, *gates[middle + 1 : last], *gates[last + 1 :]]


# ---------------------------------------------------------------------- blocks on two qubits
class _Block(NamedTuple):
    pair: tuple[int, int]
    positions: list[int]
    fresh: bool
    """both qubits are in |0⟩ before it"""


def resynthesize(circuit: Circuit, *, whole: bool = False) -> Circuit:
    """The circuit with its blocks of gates on two qubits replaced by their decompositions, where these have fewer CX.

    A block of |00⟩ needs to make its state only, unless the whole matrix is to be kept. Other gates stand between those
    of a block on other qubits alone.
    """
    replaced: dict[int, list[Gate]] = {}
    for block in _blocks(circuit):
        gates = [circuit[k] for k in block.positions]
        count = sum(len(gate.qubits) == 2 for gate in gates)
        of_zero = block.fresh and not whole
        if count < 2 and not of_zero:
            continue
        local = {qubit: k for k, qubit in enumerate(block.pair)}
        steps = [Gate(g.name, tuple(local[q] for q in g.qubits), g.angles) for g in gates]
        matrix = Circuit(2, steps).to_matrix()
        made = _state_gates(matrix[:, 0], count) if of_zero else _matrix_gates(matrix, count)
        if made is not None:
            there = [Gate(g.name, tuple(block.pair[q] for q in g.qubits), g.angles) for g in made]
            replaced |= {k: [] for k in block.positions} | {block.positions[-1]: there}
    if not replaced:
        return circuit
    gates = [g for k, gate in enumerate(circuit) for g in replaced.get(k, [gate])]
    return Circuit(circuit.n_qubits, gates)


def _blocks(circuit: Circuit) -> Iterator[_Block]:
    """Blocks as long as they get, taken from left to right; each gate on two qubits lies in one.

    Gates on one qubit belong to the block before them, and those of qubits that no block has reached to the first.
    """
    open_blocks: dict[int, _Block] = {}
    waiting: dict[int, list[int]] = {}
    touched: set[int] = set()
    for position, gate in enumerate(circuit):
        if len(gate.qubits) == 1:
            qubit = gate.qubits[0]
            if qubit in open_blocks:
                open_blocks[qubit].positions.append(position)
            else:
                waiting.setdefault(qubit, []).append(position)
            continue
        first, second = gate.qubits
        block = open_blocks.get(first)
        if block is not None and block is open_blocks.get(second):
            block.positions.append(position)
            continue
        for qubit in gate.qubits:
            closed = open_blocks.pop(qubit, None)
            if closed is not None:
                for other in closed.pair:
                    open_blocks.pop(other, None)
                yield closed
        before = sorted(waiting.pop(first, []) + waiting.pop(second, []))
        fresh = first not in touched and second not in touched
        touched |= {first, second}
        open_blocks[first] = open_blocks[second] = _Block((first, second), [*before, position], fresh)
    yield from {id(block): block for block in open_blocks.values()}.values()


@cache
def _decomposer() -> Any:
    from qiskit.circuit.library import CXGate
    from qiskit.synthesis import TwoQubitBasisDecomposer

    return TwoQubitBasisDecomposer(CXGate(), euler_basis="ZYZ")


def _matrix_gates(matrix: np.ndarray, most: int) -> list[Gate] | None:
    """Gates on qubits 0 and 1 that make a matrix up to its phase, with fewer CX than `most`; None: there are none."""
    decomposer = _decomposer()
    if decomposer.num_basis_gates(matrix) >= most:
        return None
    made = Circuit.from_qiskit(decomposer(matrix, approximate=False))
    if made.two_qubit_gates >= most:
        return None
    overlap = abs(np.vdot(made.to_matrix(), matrix)) / 4
    return list(made.gates) if overlap > 1 - 1e-12 else None


def _state_gates(state: np.ndarray, most: int) -> list[Gate] | None:
    """Gates on qubits 0 and 1 that make a state of |00⟩, with fewer CX than `most`; None: there are none."""
    left, weights, right = np.linalg.svd(state.reshape(2, 2))  # row: qubit 1, column: qubit 0
    needed = int(weights[1] > 1e-10)
    if needed >= most:
        return None
    start = [Gate("ry", (0,), (2 * math.atan2(weights[1], weights[0]),)), Gate("cx", (0, 1))] if needed else []
    return [*start, *_rotations(right.T, 0), *_rotations(left, 1)]


def _rotations(matrix: np.ndarray, qubit: int) -> list[Gate]:
    """Three rotations that make a matrix on one qubit up to its phase."""
    theta, phi, lam = u_angles(matrix)
    return [Gate(name, (qubit,), (angle,)) for name, angle in (("rz", lam), ("ry", theta), ("rz", phi))]
