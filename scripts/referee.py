"""Compute anew what the circuits of a published front are claimed to achieve, with Qiskit and SciPy alone.

    python scripts/referee.py results/compact/*

A folder holds ``problem.json`` (Pauli strings and their weights under ``terms``, or a unitary under ``target``),
circuits in OpenQASM 3, and ``front.json``, which names each circuit's file and claims its energy, error, CNOTs, CNOT
depth, parameters (angles of its gates) and gates. Nothing of the framework is imported. The exit code is 1 if a claim
is false, 2 for folders that cannot be read.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, qasm3
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from scipy.sparse.linalg import eigsh

_COUNTS = ("cnots", "cnot_depth", "parameters", "gates")
_ENERGIES = ("energy", "error")


class Unreadable(Exception):
    """A folder that lacks something, or holds something else."""


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or error}") from None


class Energies:
    """Of states under an operator of Pauli terms."""

    def __init__(self, told: Any) -> None:
        operator = SparsePauliOp.from_list([(string, float(weight)) for string, weight in told.items()])
        self.matrix = operator.to_matrix(sparse=True).tocsr()
        self.exact = ground_energy(self.matrix)

    def of(self, circuit: QuantumCircuit) -> float:
        state = Statevector(circuit).data
        return float(np.vdot(state, self.matrix @ state).real)


class Infidelities:
    """Minus the fidelity of processes with a target unitary."""

    exact = -1.0

    def __init__(self, told: Any) -> None:
        side = int(told["side"])
        self.matrix = np.frombuffer(base64.b64decode(told["complex128"]), dtype="<c16").reshape(side, side)
        if np.abs(self.matrix @ self.matrix.conj().T - np.eye(side)).max() > 1e-9:
            raise ValueError("the target is no unitary matrix")

    def of(self, circuit: QuantumCircuit) -> float:
        overlap = np.vdot(self.matrix, Operator(circuit).data) / len(self.matrix)
        return -(float(abs(overlap)) ** 2)


def read_problem(path: Path) -> Energies | Infidelities:
    data = read_json(path)
    try:
        return Infidelities(data["target"]) if "target" in data else Energies(data["terms"])
    except Exception as error:  # whatever a malformed file makes Qiskit raise
        raise Unreadable(f"{path}: neither Pauli terms nor a target: {error}") from None


def read_circuit(path: Path) -> QuantumCircuit:
    try:
        circuit = qasm3.loads(path.read_text())
    except Exception as error:
        raise Unreadable(f"{path}: {error}") from None
    others = sorted({gate.operation.name for gate in circuit.data if not hasattr(gate.operation, "to_matrix")})
    if others:
        raise Unreadable(f"{path}: a circuit of gates alone is needed, got {', '.join(others)}")
    return circuit


def ground_energy(matrix: Any) -> float:
    """Lowest eigenvalue of a sparse Hermitian matrix."""
    if matrix.shape[0] <= 64:
        return float(np.linalg.eigvalsh(matrix.toarray())[0])
    # Two, because Lanczos may pass over one of a cluster; from a fixed start, to find the same each time.
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    return float(np.min(eigsh(matrix, k=2, which="SA", v0=start, tol=1e-12, return_eigenvectors=False)))


def judge(circuit: QuantumCircuit, problem: Energies | Infidelities) -> dict[str, float]:
    """What the circuit achieves, under the names of the claims."""
    energy = problem.of(circuit)
    return {
        "energy": energy,
        "error": energy - problem.exact,
        "cnots": sum(len(gate.qubits) > 1 for gate in circuit.data),
        "cnot_depth": circuit.depth(lambda gate: len(gate.qubits) > 1),
        "parameters": sum(len(gate.operation.params) for gate in circuit.data),
        "gates": len(circuit.data),
    }


def false_claims(
    claimed: dict[str, Any], found: dict[str, float], circuit: QuantumCircuit, tolerance: float
) -> list[str]:
    """Each claim that is false, in words."""
    told = [
        f"{name} {claimed.get(name)} claimed, {found[name]} found"
        for name in _COUNTS
        if claimed.get(name) != found[name]
    ]
    for name in _ENERGIES:
        value = claimed.get(name)
        if not isinstance(value, (int, float)) or not abs(value - found[name]) <= tolerance:
            told.append(f"{name} {value} claimed, {found[name]:.12g} found")
    others = sorted({g.operation.name for g in circuit.data if len(g.qubits) > 1} - {"cx"})
    return told + ([f"gates on several qubits that are no CNOT: {', '.join(others)}"] if others else [])


def referee(folder: Path, tolerance: float) -> bool:
    """Print what each circuit of a folder achieves; returns whether all claims are true."""
    front = read_json(folder / "front.json")
    if not isinstance(front, dict) or not isinstance(front.get("circuits"), list) or not front["circuits"]:
        raise Unreadable(f"{folder / 'front.json'}: no circuits")
    problem = read_problem(folder / "problem.json")
    exact = problem.exact
    print(f"{folder}: {front.get('problem')}, exact energy {exact:.10f}")
    print(f"{'file':>20} {'CNOTs':>6} {'depth':>6} {'params':>7} {'gates':>6} {'error':>11}")
    true = True
    claimed_exact = front.get("exact")
    if not isinstance(claimed_exact, (int, float)) or not abs(claimed_exact - exact) <= tolerance:
        print(f"  FALSE: exact energy {claimed_exact} claimed, {exact:.12g} found")
        true = False
    for row in front["circuits"]:
        if not isinstance(row, dict) or Path(str(row.get("file"))).name != row.get("file"):
            raise Unreadable(f"{folder / 'front.json'}: a circuit without the name of its file")
        circuit = read_circuit(folder / row["file"])
        if 2**circuit.num_qubits != problem.matrix.shape[0]:
            raise Unreadable(f"{folder / row['file']}: {circuit.num_qubits} qubits, another number than the problem's")
        found = judge(circuit, problem)
        counts = f"{found['cnots']:6} {found['cnot_depth']:6} {found['parameters']:7} {found['gates']:6}"
        print(f"{row['file']:>20} {counts} {found['error']:11.4e}")
        for told in false_claims(row, found, circuit, tolerance):
            print(f"  FALSE: {told}")
            true = False
    return true


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--tolerance", type=float, default=1e-8, help="of energies, in the problem's unit (default 1e-8)"
    )
    arguments = parser.parse_args(words)
    try:
        verdicts = [referee(folder, arguments.tolerance) for folder in arguments.folders]
    except Unreadable as error:
        print(f"referee: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    false = verdicts.count(False)
    print(f"{len(verdicts)} folders: " + (f"{false} with false claims" if false else "all claims are true"))
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
