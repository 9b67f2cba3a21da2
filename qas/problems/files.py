"""Files that hold a problem or an operator: what `qas.load_problem` reads by the ending of a path.

==========  ============================================================================================================
``.json``   what `BaseProblem.save` writes, or an object of Pauli strings -> numbers: ``{"XX": 1.0, "ZI": -0.5}``
``.qpy``    a Qiskit circuit of one `PauliEvolutionGate`, whose operator is meant: QPY holds circuits and no bare
            operators. ``qc.append(PauliEvolutionGate(operator), range(n)); qpy.dump(qc, file)``
``.npy``    a Hermitian matrix, shape (2**n, 2**n), n at most 12, index in Qiskit's order
==========  ============================================================================================================

Nothing in a file is run: no pickles are read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qas.checks import finite_number, one_line, shortened
from qas.errors import MissingExtraError, QasError, RunError
from qas.files import read_array, read_bytes, read_json
from qas.hamiltonians import Hamiltonian


def read_content(path: Path) -> Mapping[str, Any] | Hamiltonian:
    """What a file holds: the object of a problem file, with its ``format``, or an operator.

    Raises:
        RunError: no such file, or one that is damaged.
        QasError: something else is in it, or its ending is not in `READERS`.
        MissingExtraError: the file needs a package that is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise QasError(f"a problem is read from a file that ends in {', '.join(READERS)}, got {shortened(str(path))}")
    return reader(path)


def _json(path: Path) -> Mapping[str, Any] | Hamiltonian:
    data = read_json(path, "the problem file")
    if not isinstance(data, dict):
        rule = "a problem file is a JSON object: a saved problem, or Pauli strings with their numbers"
        raise QasError(f"{rule}; got {shortened(data)} in {path}")
    if "format" in data:
        return data
    try:
        return Hamiltonian({p: finite_number(f"the coefficient of {one_line(p)}", c) for p, c in data.items()})
    except QasError as error:
        raise QasError(f"{path}: {error}") from None


def _qpy(path: Path) -> Hamiltonian:
    data = read_bytes(path, "the problem file")
    try:
        from qiskit import qpy
        from qiskit.circuit.library import PauliEvolutionGate
    except ImportError:
        raise MissingExtraError("reading .qpy", "qiskit") from None
    try:
        circuits = qpy.load(io.BytesIO(data))
    except Exception as error:  # Qiskit raises whatever a damaged file makes it
        raise RunError(f"the problem file is damaged: {path}: {one_line(error)}") from None
    gates = [item for circuit in circuits for item in circuit.data]
    if len(circuits) != 1 or len(gates) != 1 or not isinstance(gates[0].operation, PauliEvolutionGate):
        found = f"{len(circuits)} with {len(gates)} gates"
        raise QasError(f"an operator in .qpy is a circuit of one PauliEvolutionGate, got {found} in {path}")
    operator = gates[0].operation.operator
    wires = [circuits[0].find_bit(qubit).index for qubit in gates[0].qubits]
    try:
        parts = [_sparse(each) for each in (operator if isinstance(operator, list) else [operator])]
        return Hamiltonian.from_qiskit(sum(parts[1:], parts[0]).apply_layout(wires, circuits[0].num_qubits))
    except (QasError, TypeError, AttributeError) as error:
        raise QasError(f"{path}: {one_line(error)}") from None


def _sparse(operator: Any) -> Any:
    from qiskit.quantum_info import SparsePauliOp

    if isinstance(operator, SparsePauliOp):
        return operator
    return SparsePauliOp.from_sparse_observable(operator)


def _npy(path: Path) -> Hamiltonian:
    matrix = read_array(path, "the problem file")
    try:
        return Hamiltonian.from_matrix(matrix)
    except QasError as error:
        raise QasError(f"{path}: {error}") from None


READERS: dict[str, Callable[[Path], Mapping[str, Any] | Hamiltonian]] = {".json": _json, ".qpy": _qpy, ".npy": _npy}
"""Ending of a path -> how its file is read."""
