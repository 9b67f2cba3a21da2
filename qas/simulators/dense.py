"""The slow, obvious simulator: dense matrices, full density matrix. It exists to check the fast engines."""

from __future__ import annotations

import numpy as np

from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, pauli_basis


def embed(matrix: np.ndarray, qubits: tuple[int, ...], n_qubits: int) -> np.ndarray:
    """A local matrix, shape (2**k, 2**k), on `qubits` of a register: shape (2**n, 2**n)."""
    rest = [q for q in range(n_qubits) if q not in qubits]
    full = np.kron(np.eye(1 << len(rest)), matrix)
    order = [*qubits, *rest]  # bit k of `full` belongs to qubit order[k]
    index = np.arange(1 << n_qubits)
    moved = np.sum([((index >> q) & 1) << k for k, q in enumerate(order)], axis=0)
    return full[np.ix_(moved, moved)]


def gate_matrix(gate: Gate) -> np.ndarray:
    """Unitary of one gate on its own qubits."""
    return gate_spec(gate.name).matrix(*gate.angles)


def circuit_matrix(circuit: Circuit) -> np.ndarray:
    """Unitary of the circuit, complex128, shape (2**n, 2**n)."""
    matrix = np.eye(1 << circuit.n_qubits, dtype=complex)
    for gate in circuit:
        matrix = embed(gate_matrix(gate), gate.qubits, circuit.n_qubits) @ matrix
    return matrix


def density_matrix(circuit: Circuit, noise: NoiseModel | None = None) -> np.ndarray:
    """State after the circuit from |0…0>, complex128, shape (2**n, 2**n).

    Raises:
        CircuitError: more qubits than the noise describes, or a gate that it refuses.
    """
    n = circuit.n_qubits
    if noise is not None:
        noise.check_register(n)
    rho = np.zeros((1 << n, 1 << n), dtype=complex)
    rho[0, 0] = 1.0
    run = circuit if noise is None else circuit.decompose()
    channels: list[np.ndarray | None] = [None] * len(run) if noise is None else noise.channels(run)
    for gate, ptm in zip(run, channels, strict=True):
        unitary = embed(gate_matrix(gate), gate.qubits, n)
        rho = unitary @ rho @ unitary.conj().T
        if ptm is not None:
            rho = _apply_channel(ptm, gate.qubits, rho, n)
    return rho


def _apply_channel(ptm: np.ndarray, qubits: tuple[int, ...], rho: np.ndarray, n: int) -> np.ndarray:
    # E(ρ) = Σ_ij R_ij P_i Tr_local(P_j ρ)/2^k, and Tr_local(P_j ρ) ⊗ I/2^k is ρ twirled over the local Paulis.
    basis = [embed(p, qubits, n) for p in pauli_basis(len(qubits))]
    size = len(basis)
    twirled = [sum(q @ (p @ rho) @ q for q in basis) / size for p in basis]
    return sum(ptm[i, j] * basis[i] @ twirled[j] for i in range(size) for j in range(size) if ptm[i, j] != 0.0)


def measured_matrix(hamiltonian: Hamiltonian, noise: NoiseModel | None) -> np.ndarray:
    """The observable as seen through the readout flips, shape (2**n, 2**n)."""
    if noise is None:
        return hamiltonian.to_matrix()
    flips = noise.readout_flips(hamiltonian.n_qubits)
    letters = {letter: pauli_basis(1)["IXYZ".index(letter)] for letter in "IXYZ"}
    total = np.zeros((1 << hamiltonian.n_qubits,) * 2, dtype=complex)
    for string, coefficient in hamiltonian.terms.items():
        factor = np.ones((1, 1), dtype=complex)
        for (p01, p10), letter in zip(flips, reversed(string), strict=True):
            local = letters[letter]
            if letter != "I":
                local = (1 - p01 - p10) * local + (p10 - p01) * letters["I"]
            factor = np.kron(local, factor)
        total += coefficient * factor
    return total


def dense_expectation(circuit: Circuit, hamiltonian: Hamiltonian, noise: NoiseModel | None = None) -> float:
    """Tr(H ρ) by dense matrices."""
    return float(np.trace(measured_matrix(hamiltonian, noise) @ density_matrix(circuit, noise)).real)
