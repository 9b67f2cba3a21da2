"""Noise made stronger by gates that undo each other: what a device can do."""

from __future__ import annotations

from typing import Any

from qas.circuits import Circuit, Gate
from qas.errors import QasError


def folds(scale: float) -> int:
    """How often a gate is undone and done again at this strength of the noise.

    Raises:
        QasError: not 1, 3, 5, …
    """
    if scale < 1 or scale % 2 != 1:
        raise QasError(f"gate folding makes the noise 1, 3, 5, … times as strong, got {scale:g}")
    return int(scale) // 2


def folded(circuit: Circuit, scale: float) -> Circuit:
    """The circuit with every two-qubit gate G as G (G⁻¹ G)ᵏ, k = (scale - 1)/2: the same state, more noise.

    Excitations are decomposed first. One-qubit gates stay as they are: their noise is a small part.

    Raises:
        QasError: a scale that is not 1, 3, 5, …
    """
    count = folds(scale)
    gates: list[Gate] = []
    for gate in circuit.decompose():
        gates.append(gate)
        if len(gate.qubits) == 2:
            gates += [_inverse(gate), gate] * count
    return Circuit(circuit.n_qubits, gates)


def _inverse(gate: Gate) -> Gate:
    """Of a two-qubit gate: those without an angle are their own inverse."""
    return gate.with_angles(tuple(-angle for angle in gate.angles))


def folded_qiskit(circuit: Any, scale: float) -> Any:
    """As `folded`, of a `qiskit.QuantumCircuit` in any two-qubit gates."""
    count = folds(scale)
    result = circuit.copy_empty_like()
    for instruction in circuit.data:
        result.append(instruction)
        if len(instruction.qubits) == 2 and instruction.operation.name != "barrier":
            undone = instruction.replace(operation=instruction.operation.inverse())
            for _ in range(count):
                result.append(undone)
                result.append(instruction)
    return result
