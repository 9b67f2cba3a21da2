"""Records checked with Qiskit: their text is parsed, counted and evaluated by it, and by nothing of this framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.best_known.records import Header, KnownCircuit, fingerprint, tolerance
from qas.checks import one_line
from qas.problems import OperatorProblem, UnitaryProblem

if TYPE_CHECKING:
    from qas.best_known.fronts import KnownFront

REPRODUCED = 1e-9
"""Largest difference of an energy, in the problem's unit."""
_DENSE = 64
"""Largest matrix whose lowest eigenvalue is computed densely."""


class Referee:
    """Evaluates circuits for one problem.

    Args:
        problem: its Pauli strings and weights, or its target, are all that is taken from it, and the exact energy that
            it claims.
    """

    def __init__(self, problem: OperatorProblem) -> None:
        from qiskit.quantum_info import SparsePauliOp

        self.problem = problem
        self.target = problem.target if isinstance(problem, UnitaryProblem) else None
        if self.target is not None:
            return
        operator = SparsePauliOp.from_list(list(problem.hamiltonian.terms.items()))
        self.matrix: Any = operator.to_matrix(sparse=True).tocsr()

    def ground_energy(self) -> float:
        """Lowest eigenvalue, in the problem's unit."""
        from scipy.sparse.linalg import eigsh

        if self.target is not None:
            # By Cauchy and Schwarz no matrix has a larger overlap with the target than a multiple of it.
            return -float(np.linalg.norm(self.target) ** 2 / len(self.target))
        if self.matrix.shape[0] <= _DENSE:
            return float(np.linalg.eigvalsh(self.matrix.toarray())[0])
        # Some more than one, because Lanczos may pass over one of a cluster; from a fixed start, the same each time.
        start = np.random.default_rng(0).normal(size=self.matrix.shape[0])
        return float(np.min(eigsh(self.matrix, k=3, which="SA", v0=start, tol=1e-13, return_eigenvectors=False)))

    def faults(self, record: KnownCircuit) -> list[str]:
        """What is wrong with a record, in words; empty if it is as it says."""
        from qiskit import qasm3
        from qiskit.quantum_info import Operator, Statevector

        name = f"{record.two_qubit_gates} CX"
        try:
            circuit = qasm3.loads(record.qasm)
            made = Statevector(circuit).data if self.target is None else Operator(circuit).data
        except Exception as error:  # whatever malformed text makes Qiskit raise
            return [f"{name}: it does not parse: {one_line(error)}"]
        if circuit.num_qubits != self.problem.n_qubits:
            return [f"{name}: {circuit.num_qubits} qubits, the problem has {self.problem.n_qubits}"]
        if self.target is None:
            energy = float(np.vdot(made, self.matrix @ made).real)
        else:
            energy = -(float(abs(np.vdot(self.target, made))) ** 2) / len(made) ** 2
        found = {
            "two_qubit_gates": sum(len(gate.qubits) > 1 for gate in circuit.data),
            "gates": len(circuit.data),
            "depth": circuit.depth(),
            "n_angles": sum(len(gate.operation.params) for gate in circuit.data),
        }
        told = [
            f"{name}: {label} {getattr(record, label)} claimed, {value} found"
            for label, value in found.items()
            if getattr(record, label) != value
        ]
        for label, value in (("energy", energy), ("error", energy - self.problem.exact)):
            claimed = getattr(record, label)
            if not abs(claimed - value) <= REPRODUCED:
                told.append(f"{name}: {label} {claimed!r} claimed, {value!r} found")
        others = sorted({gate.operation.name for gate in circuit.data if not _counts_as_one(gate)})
        if others:
            told.append(f"{name}: standard gates on one qubit, CX and CZ are counted, got {', '.join(others)}")
        return told


def _counts_as_one(gate: Any) -> bool:
    """Whether an instruction of Qiskit is what it is counted as: a definition of the text may hide any number."""
    from qiskit.circuit.library import CXGate, CZGate

    kind = gate.operation.base_class
    standard = kind.__module__.startswith("qiskit.circuit.library.standard_gates")
    return bool(standard and (len(gate.qubits) == 1 or kind in (CXGate, CZGate)))


def faults_of_header(header: Header, problem: OperatorProblem) -> list[str]:
    """What is wrong with the first line of a file of records."""
    told = []
    if header.hamiltonian != fingerprint(problem):
        told.append("the problem has another Hamiltonian than when the circuits were found")
    if (header.n_qubits, header.unit) != (problem.n_qubits, problem.unit):
        told.append(f"{header.n_qubits} qubits in {header.unit or 'no unit'} claimed")
    for label in ("exact", "threshold"):
        claimed, value = getattr(header, label), getattr(problem, label)
        if not abs(claimed - value) <= REPRODUCED:
            told.append(f"{label} {claimed!r} claimed, the problem says {value!r}")
    return told


def faults_of_front(records: Sequence[KnownCircuit]) -> list[str]:
    """Records that are out of order, or that another one dominates."""
    told = []
    for before, after in zip(records, records[1:], strict=False):
        if after.two_qubit_gates <= before.two_qubit_gates:
            told.append(f"{after.two_qubit_gates} CX stands behind {before.two_qubit_gates} CX")
        elif not after.error < before.error - tolerance(before.error):
            told.append(f"{after.two_qubit_gates} CX is dominated by {before.two_qubit_gates} CX")
    return told


def verify(front: KnownFront, problem: OperatorProblem, *, most: int | None = None) -> list[str]:
    """All that is wrong with a front, in words.

    Args:
        front: what is checked.
        problem: that of its name.
        most: circuits that are evaluated, spread over the front; None: all, and the exact energy is computed.
    """
    told = faults_of_header(front.header, problem) + faults_of_front(front.circuits)
    referee = Referee(problem)
    if most is None:
        exact = referee.ground_energy()
        if not abs(exact - problem.exact) <= REPRODUCED:
            told.append(f"exact energy {problem.exact!r} claimed, {exact!r} found")
    chosen = range(len(front)) if most is None else np.unique(np.linspace(0, len(front) - 1, most).astype(int))
    return told + [fault for index in chosen for fault in referee.faults(front[int(index)])]
