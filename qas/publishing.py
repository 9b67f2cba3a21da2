"""Fronts as plain files that anybody can check: OpenQASM 3, Pauli terms or target, what is claimed.

``scripts/referee.py`` computes every claim anew from the files alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qas.circuits import Circuit
from qas.errors import QasError
from qas.files import new_folder, write_atomic, write_json
from qas.problems import OperatorProblem
from qas.runs import Result


def publish(results: Iterable[Result], problem: OperatorProblem, folder: str | os.PathLike[str] | None) -> Path:
    """Write circuits to a new or empty folder, one file each, with what they achieve.

    ``problem.json`` holds the problem, with its Pauli terms or target; ``front.json`` names the problem, its exact
    energy, and for each circuit its file, energy, error, CNOTs, CNOT depth, parameters and gates.

    Args:
        results: circuits of one- and two-qubit gates without noise; the fewest CNOTs come first.
        problem: what they were found for.
        folder: where to; None: ``results/<problem>-front-<time>``.

    Returns:
        The folder.

    Raises:
        QasError: no circuits.
        RunError: the folder holds files, is another process's, or cannot be written.
    """
    ordered = sorted(results, key=lambda r: (r.two_qubit_gates, r.gates))
    if not ordered:
        raise QasError("a front has at least one circuit, got none")
    with new_folder(folder, "the front", stem=f"{problem.name}-front") as path:
        rows, names = [], set[str]()
        for result in ordered:
            stem = f"{result.two_qubit_gates:02}cx"
            tries = (f"{stem}.qasm", *(f"{stem}-{k}.qasm" for k in range(2, len(ordered) + 1)))
            name = next(name for name in tries if name not in names)
            names.add(name)
            write_atomic(path / name, result.circuit.decompose().to_qasm())
            rows.append({"file": name, **claims(result)})
        problem.save(path / "problem.json")
        front = {"problem": problem.name, "unit": problem.unit, "exact": problem.exact, "circuits": rows}
        write_json(path / "front.json", front)
        return path


def claims(result: Result) -> dict[str, Any]:
    """What is claimed of a circuit; JSON-able."""
    circuit = result.circuit.decompose()
    return {
        "energy": result.noise_free_energy,
        "error": result.noise_free_error,
        "cnots": circuit.two_qubit_gates,
        "cnot_depth": cnot_depth(circuit),
        "parameters": circuit.n_angles,
        "gates": len(circuit),
    }


def cnot_depth(circuit: Circuit) -> int:
    """Number of layers of two-qubit gates that can run at the same time, excitations decomposed."""
    run = circuit.decompose()
    return Circuit(run.n_qubits, [gate for gate in run if len(gate.qubits) == 2]).depth
