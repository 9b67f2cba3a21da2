"""How far one gets without an entangling circuit: what makes a problem look harder than it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qas.hamiltonians import Hamiltonian


@dataclass(frozen=True)
class Triviality:
    """What simple states reach; errors in the problem's unit."""

    product_state: float
    """error of the best product state found: one-qubit gates alone"""
    unrestricted: float | None
    """error of the best determinant found whose alpha and beta orbitals may differ, which takes one-qubit gates and
    other orbitals; None: no molecule, or not computed"""
    determinants: int
    """basis states whose best superposition reaches the threshold"""
    threshold: float
    """error regarded as success"""

    @property
    def trivial(self) -> bool:
        """Whether a product state, or a determinant in unrestricted orbitals, reaches the threshold."""
        errors = [error for error in (self.product_state, self.unrestricted) if error is not None]
        return min(errors) <= self.threshold


def basis_states_needed(hamiltonian: Hamiltonian, threshold: float) -> int:
    """How many basis states a superposition needs for an energy within `threshold` of the ground energy.

    The states are taken in the order of their weight in the ground state (one of them, where it is degenerate), and the
    operator is diagonalized in the first 1, 2, 3, …: an upper bound on the smallest number of all.

    Args:
        hamiltonian: the operator.
        threshold: in its unit, positive.
    """
    exact, state = hamiltonian.ground_state()
    # States of equal weight by symmetry come in the order of their index, whatever the rounding.
    weights = np.round(np.abs(state) ** 2, 10)
    order = np.argsort(-weights, kind="stable")
    few, many = 0, 1
    while many < len(order) and _lowest(hamiltonian, order[:many]) - exact > threshold:
        few, many = many, min(2 * many, len(order))
    while many - few > 1:
        middle = (few + many) // 2
        if _lowest(hamiltonian, order[:middle]) - exact > threshold:
            few = middle
        else:
            many = middle
    return many


def _lowest(hamiltonian: Hamiltonian, states: np.ndarray) -> float:
    """Ground energy in the span of some basis states."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import eigsh

    xs, diagonals = hamiltonian.xor_diagonals
    place = np.full(1 << hamiltonian.n_qubits, -1)
    place[states] = np.arange(len(states))
    columns = place[states ^ xs[:, None]]
    mask, row = np.nonzero(columns >= 0)
    matrix = csr_array((diagonals[mask, states[row]], (row, columns[mask, row])), shape=(len(states),) * 2)
    if len(states) <= 400:
        return float(np.linalg.eigvalsh(matrix.toarray())[0])
    start = np.random.default_rng(0).normal(size=len(states))
    return float(eigsh(matrix, k=1, which="SA", v0=start, return_eigenvectors=False, tol=1e-10)[0])
