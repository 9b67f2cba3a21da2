"""Symmetry verification: what is left of a state when everything with other quantum numbers is thrown away.

Noise takes a state out of the sector that it was made for. With the projector Π on the sector, which commutes with the
Hamiltonian, the verified energy is ``Tr(H Π ρ) / Tr(Π ρ)``: the energy of the runs that a measurement of the symmetries
would keep. Both traces are expectation values, so that no gate is added: the symmetries are verified afterwards, from
measurements in more settings (Bonet-Monroig et al., Phys. Rev. A 98, 062339, 2018, https://arxiv.org/abs/1807.10050,
section III).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.fermions import jordan_wigner
from qas.hamiltonians import Hamiltonian
from qas.problems import Problem
from qas.tapering import Tapering, symmetries

MAX_QUBITS = 8
"""Largest operator whose projection is written out in Pauli strings."""
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Verification:
    """Projection on a sector of a problem's symmetries."""

    names: tuple[str, ...]
    """keys of `SYMMETRIES` that make the sector"""
    projector: Hamiltonian
    """Π"""
    projected: Hamiltonian
    """H Π"""

    @property
    def mixed_energy(self) -> float:
        """Verified energy of the fully mixed state."""
        return self.projected.identity / self.projector.identity


def verification(problem: Problem, names: Iterable[str] | None = None) -> Verification:
    """The sector of a problem's ground state, or of a molecule's reference determinant.

    Args:
        problem: up to 8 qubits.
        names: keys of `SYMMETRIES`; None: all that the problem has.

    Raises:
        UnknownNameError: no such symmetry.
        TooLargeError: more than 8 qubits.
        QasError: a symmetry that the problem does not have, none at all, or a sector that is the whole space.
    """
    chosen = tuple(SYMMETRIES) if names is None else tuple(names)
    for name in chosen:
        if name not in SYMMETRIES:
            raise UnknownNameError("symmetry", name, SYMMETRIES)
    if problem.n_qubits > MAX_QUBITS:
        raise TooLargeError(f"symmetries are verified on up to {MAX_QUBITS} qubits, got {problem.n_qubits}")
    matrix = problem.hamiltonian.to_matrix()
    scale = np.abs(problem.hamiltonian.coefficients).sum()
    total = np.eye(len(matrix), dtype=complex)
    kept: list[str] = []
    for name in chosen:
        projector = SYMMETRIES[name](problem)
        if projector is not None and _commute(projector, matrix, scale) and _commute(projector, total, 1.0):
            total, kept = total @ projector, [*kept, name]
        elif names is not None:
            raise QasError(f"{problem.name} does not conserve {_ABOUT[name]}, so that it cannot be verified")
    if not kept or abs(np.trace(total).real - len(total)) < 0.5:
        rule = "symmetries are verified where they rule states out"
        raise QasError(f"{rule}; those of {problem.name} are in its qubits already, or it has none")
    return Verification(tuple(kept), Hamiltonian.from_matrix(total), Hamiltonian.from_matrix(total @ matrix))


def _commute(one: np.ndarray, other: np.ndarray, scale: float) -> bool:
    return bool(np.abs(one @ other - other @ one).max() < _TOLERANCE * scale)


# ---------------------------------------------------------------------- projectors
def _number(problem: Problem) -> np.ndarray | None:
    """On the right numbers of alpha and beta electrons."""
    molecule = problem.molecule
    if molecule is None:
        return None
    half = molecule.n_orbitals
    projector = np.eye(1 << problem.n_qubits, dtype=complex)
    for first, electrons in ((0, molecule.n_alpha), (half, molecule.n_beta)):
        one_body = np.diag((np.arange(2 * half) // half == first // half).astype(float))
        operator = molecule.encode(jordan_wigner(one_body, np.zeros((2 * half,) * 4)))
        projector = projector @ _eigenspace(operator.to_matrix(), electrons)
    return projector


def _spin(problem: Problem) -> np.ndarray | None:
    """On the total spin that equals the spin along z, as of the reference determinant: what S₋S₊ takes to zero."""
    molecule = problem.molecule
    if molecule is None:
        return None
    half = molecule.n_orbitals
    one_body, two_body = np.zeros((2 * half,) * 2), np.zeros((2 * half,) * 4)
    # S₋S₊ = Σ a†_pβ a_pα a†_qα a_qβ, and the two-body part counts half of (pβ qβ | qα pα).
    p, q = np.indices((half, half))
    one_body[half + np.arange(half), half + np.arange(half)] = 1.0
    two_body[half + p, half + q, q, p] = -2.0
    operator = jordan_wigner(one_body, two_body)
    if molecule.n_alpha < molecule.n_beta or not molecule.conserved_by(operator):
        return None
    number = _number(problem)
    assert number is not None
    return number @ _eigenspace(molecule.encode(operator).to_matrix(), 0.0)


def _reflections(problem: Problem) -> np.ndarray | None:
    """On the values of all Pauli strings that commute with the operator."""
    strings = symmetries(problem.hamiltonian)
    if not strings:
        return None
    diagonal = not any(set(string) & set("XY") for string in strings)
    if problem.molecule is not None and diagonal:
        sector = Tapering.of(problem.hamiltonian, determinant=problem.determinant).sector
    else:
        state = problem.hamiltonian.ground_state()[1]
        values = [np.vdot(state, Hamiltonian({string: 1.0}).to_matrix() @ state).real for string in strings]
        if min(map(abs, values)) < 0.5:
            return None  # a degenerate ground state has no sector
        sector = tuple(int(np.sign(value)) for value in values)
    projector = np.eye(1 << problem.n_qubits, dtype=complex)
    for string, sign in zip(strings, sector, strict=True):
        projector = projector @ (np.eye(len(projector)) + sign * Hamiltonian({string: 1.0}).to_matrix()) / 2
    return projector


def _eigenspace(matrix: np.ndarray, value: float) -> np.ndarray:
    """Projector on the eigenvectors of one eigenvalue."""
    values, vectors = np.linalg.eigh(matrix)
    own = vectors[:, np.abs(values - value) < 1e-6]
    return own @ own.conj().T


SYMMETRIES: dict[str, Callable[[Problem], np.ndarray | None]] = {"number": _number, "spin": _spin, "z2": _reflections}
"""Name -> projector on the sector, shape (2**n, 2**n); None where the problem has no such symmetry."""
_ABOUT = {
    "number": "numbers of electrons of either spin",
    "spin": "a total spin in these orbitals",
    "z2": "a Pauli string with a known value",
}
