"""Removing gates that do nothing, without changing the state a circuit prepares from |0…0>."""

from __future__ import annotations

import math

from qas.circuits import Circuit, Gate
from qas.gates import gate_spec

_SELF_INVERSE = frozenset({"x", "y", "z", "h", "cx", "cz", "swap"})
_DIAGONAL = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "cz", "rzz"})


def simplify(circuit: Circuit, *, angle_tolerance: float = 1e-9) -> Circuit:
    """An equal circuit with no trivially redundant gates, for a register that starts in |0…0>.

    Repeats until nothing changes: neighbouring rotations about the same axis are added; neighbouring equal self-inverse
    gates cancel; rotations by a multiple of 2π go; gates that are diagonal on qubits still in |0⟩, and CX whose control
    is still in |0⟩, go. The prepared state is the same up to a global phase.
    """
    gates = list(circuit.gates)
    changed = True
    while changed:
        gates, changed = _pass(gates, circuit.n_qubits, angle_tolerance)
    return circuit if len(gates) == len(circuit) else Circuit(circuit.n_qubits, gates)


def _pass(gates: list[Gate], n_qubits: int, tolerance: float) -> tuple[list[Gate], bool]:
    kept: list[Gate | None] = []
    last: list[list[int]] = [[] for _ in range(n_qubits)]  # positions in `kept` of the gates on each qubit
    ground = [True] * n_qubits
    changed = False
    for gate in gates:
        spec = gate_spec(gate.name)
        if gate.name in _DIAGONAL and all(ground[q] for q in gate.qubits):
            changed = True
            continue
        if gate.name == "cx" and ground[gate.qubits[0]]:
            changed = True
            continue
        if gate.name == "cz" and any(ground[q] for q in gate.qubits):
            changed = True
            continue
        if spec.axis and abs(math.remainder(gate.angles[0], 2 * math.pi)) < tolerance:
            changed = True
            continue
        previous = {last[q][-1] if last[q] else -1 for q in gate.qubits}
        where = previous.pop()
        partner = kept[where] if not previous and where >= 0 else None
        if partner is not None and partner.name == gate.name and _same_qubits(partner, gate, spec.symmetric):
            if spec.axis:
                kept[where] = Gate(gate.name, gate.qubits, (partner.angles[0] + gate.angles[0],))
                changed = True
                continue
            if gate.name in _SELF_INVERSE:
                kept[where] = None
                for q in gate.qubits:
                    last[q].pop()
                changed = True
                continue
        for q in gate.qubits:
            last[q].append(len(kept))
            ground[q] = False
        kept.append(gate)
    return [g for g in kept if g is not None], changed


def _same_qubits(a: Gate, b: Gate, symmetric: bool) -> bool:
    return a.qubits == b.qubits or (symmetric and set(a.qubits) == set(b.qubits))
