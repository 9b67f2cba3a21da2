"""Removing gates that do nothing, to the state a circuit prepares from |0…0> or to its whole matrix."""

from __future__ import annotations

import math

from qas.circuits import Circuit, Gate
from qas.gates import GATES

_SELF_INVERSE = frozenset({"x", "y", "z", "h", "cx", "cz", "swap"})
_DIAGONAL = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "cz", "rzz"})


def simplify(circuit: Circuit, *, angle_tolerance: float = 1e-9, whole: bool = False) -> Circuit:
    """An equal circuit with no trivially redundant gates, for a register that starts in |0…0>.

    Repeats until nothing changes: neighbouring rotations about the same axis are added; neighbouring equal self-inverse
    gates cancel; rotations by a multiple of 2π go; gates that are diagonal on qubits still in |0⟩, and CX whose control
    is still in |0⟩, go. The prepared state is the same up to a global phase.

    Args:
        circuit: what is simplified; returned itself if nothing goes.
        angle_tolerance: rotations closer than this to a multiple of 2π go, radians.
        whole: keep every column of the circuit's matrix, not the first alone: no gate goes because of |0⟩. The matrix
            is the same up to its sign.
    """
    gates, before = list(circuit.gates), -1
    while len(gates) != before:
        before = len(gates)
        gates = _pass(gates, circuit.n_qubits, angle_tolerance, whole)
    return circuit if len(gates) == len(circuit) else Circuit(circuit.n_qubits, gates)


def _pass(gates: list[Gate], n_qubits: int, tolerance: float, whole: bool) -> list[Gate]:
    kept: list[Gate | None] = []
    last: list[list[int]] = [[] for _ in range(n_qubits)]  # positions in `kept` of the gates on each qubit
    ground = [not whole] * n_qubits
    for gate in gates:
        name = gate.name
        first, second = gate.qubits[0], gate.qubits[-1]
        if ground[first] or ground[second]:
            both = ground[first] and ground[second]
            if (name in _DIAGONAL and both) or (name == "cx" and ground[first]) or name == "cz":
                continue
        spec = GATES[name]
        if spec.axis and abs(math.remainder(gate.angles[0], 2 * math.pi)) < tolerance:
            continue
        where = last[first][-1] if last[first] else -1
        if where >= 0 and (first == second or (last[second] and last[second][-1] == where)):
            partner = kept[where]
            if partner is not None and partner.name == name and _same_qubits(partner, gate, spec.symmetric):
                if spec.axis:
                    kept[where] = partner.with_angles((partner.angles[0] + gate.angles[0],))
                    continue
                if name in _SELF_INVERSE:
                    kept[where] = None
                    last[first].pop()
                    if first != second:
                        last[second].pop()
                    continue
        position = len(kept)
        last[first].append(position)
        ground[first] = False
        if first != second:
            last[second].append(position)
            ground[second] = False
        kept.append(gate)
    return [g for g in kept if g is not None]


def _same_qubits(a: Gate, b: Gate, symmetric: bool) -> bool:
    return a.qubits == b.qubits or (symmetric and a.qubits == b.qubits[::-1])
