"""Random circuits and Hamiltonians for tests and benchmarks, drawn from a generator that the caller hands in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError
from qas.gates import GATES, gate_spec
from qas.hamiltonians import Hamiltonian


def random_circuit(
    n_qubits: int, n_gates: int, rng: np.random.Generator, gates: Sequence[str] | None = None
) -> Circuit:
    """A circuit of gates drawn uniformly by name, on uniform qubits, with angles uniform in [-π, π).

    Args:
        n_qubits: at least 1; gates on more qubits than that are left out.
        n_gates: number of gates, at least 0.
        rng: source of all randomness.
        gates: names to draw from; None draws from the whole gate table.

    Raises:
        UnknownNameError: a name outside the gate table.
        CircuitError: a negative number of gates, or no gate that fits on `n_qubits`.
    """
    if n_gates < 0:
        raise CircuitError(f"a circuit has at least 0 gates, got {n_gates}")
    specs = [spec for name in (GATES if gates is None else gates) if (spec := gate_spec(name)).n_qubits <= n_qubits]
    if n_gates and not specs:
        raise CircuitError(f"none of the gates fits on {n_qubits} qubit(s)")
    result = []
    for _ in range(n_gates):
        spec = specs[rng.integers(len(specs))]
        qubits = rng.choice(n_qubits, size=spec.n_qubits, replace=False)
        angles = rng.uniform(-math.pi, math.pi, size=spec.n_angles)
        result.append(Gate(spec.name, tuple(qubits.tolist()), tuple(angles.tolist())))
    return Circuit(n_qubits, result)


def random_hamiltonian(n_qubits: int, n_terms: int, rng: np.random.Generator) -> Hamiltonian:
    """A Hamiltonian of `n_terms` different uniform Pauli strings with standard normal coefficients.

    Args:
        n_qubits: at least 1.
        n_terms: from 1 to 4**n_qubits.
        rng: source of all randomness.

    Raises:
        QasError: sizes out of range.
    """
    if n_qubits < 1:
        raise QasError(f"a Hamiltonian acts on at least 1 qubit, got {n_qubits}")
    if not 1 <= n_terms <= 4**n_qubits:
        raise QasError(f"{n_qubits} qubit(s) have 1 to {4**n_qubits} different Pauli strings, got {n_terms}")
    strings: dict[str, float] = {}
    while len(strings) < n_terms:
        string = "".join(rng.choice(list("IXYZ"), size=n_qubits))
        if string not in strings:
            strings[string] = float(rng.normal())
    return Hamiltonian(strings)
