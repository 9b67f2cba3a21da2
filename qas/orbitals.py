"""Molecular orbitals: Hartree-Fock, and the rotations of an active space that make circuits shorter at no gate."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from qas.errors import QasError

ORBITALS = {
    "rhf": "restricted (open-shell) Hartree-Fock orbitals by energy",
    "uhf": "orbitals of the lowest determinant whose alpha and beta orbitals may differ",
    "natural": "natural orbitals of the exact ground state in the active space, the fullest first",
    "localized": "Pipek-Mezey orbitals, those that hold two, one and no electrons each among themselves",
}
"""Orbitals of the active space. Each kind spans the same space, so the exact energy is the same."""
Rotation = tuple[np.ndarray, np.ndarray]
"""Orthogonal matrices that make new active orbitals of the old ones, for alpha and beta; shape (n, n) each."""


def hartree_fock(mol: Any, guess: str) -> Any:
    """Converged restricted Hartree-Fock; by the second-order solver where the usual iteration does not converge.

    Args:
        mol: a PySCF molecule.
        guess: where it starts, as PySCF names it.

    Raises:
        QasError: it does not converge.
    """
    from pyscf import scf

    field = scf.RHF(mol) if mol.spin == 0 else scf.ROHF(mol)
    # Far below chemical accuracy: leftovers of the iteration break symmetries and show up as spurious Pauli terms.
    field.conv_tol, field.conv_tol_grad, field.max_cycle = 1e-13, 1e-9, 200
    field.init_guess = guess
    field.kernel()
    if not field.converged:
        field = field.newton()
        field.conv_tol, field.conv_tol_grad = 1e-12, 1e-7
        field.kernel(field.mo_coeff, field.mo_occ)
    if not field.converged:
        raise QasError("the Hartree-Fock calculation did not converge; check geometry, charge and spin")
    return field


def fixed_orbitals(energies: Any, occupations: Any, coefficients: Any, overlap: Any) -> np.ndarray:
    """Orbitals with every free choice fixed: signs, and rotations among orbitals of the same energy and occupation.

    Without this, an active space that cuts through degenerate orbitals would depend on the linear algebra library.

    Args:
        energies: shape (n_orbitals,), ascending.
        occupations: shape (n_orbitals,).
        coefficients: shape (n_basis, n_orbitals).
        overlap: of the basis functions, shape (n_basis, n_basis).
    """
    fixed = np.array(coefficients, dtype=np.float64)
    start = 0
    for stop in range(1, fixed.shape[1] + 1):
        together = (
            stop < fixed.shape[1]
            and abs(energies[stop] - energies[stop - 1]) < 1e-6
            and occupations[stop] == occupations[stop - 1]
        )
        if together:
            continue
        block = fixed[:, start:stop]
        done = np.zeros((len(block), 0))
        while block.shape[1]:
            # The projection onto the basis function it contains most becomes an orbital; ties go to the first function.
            weights = np.linalg.norm(overlap @ block, axis=1)
            pivot = int(np.flatnonzero(weights > weights.max() * (1 - 1e-5))[0])
            row = (overlap @ block)[pivot]
            turn = np.linalg.svd(row[None, :])[2].T
            turned = block @ turn
            first = turned[:, :1]
            first = first * np.sign((overlap @ first)[pivot])
            done, block = np.hstack([done, first]), turned[:, 1:]
        fixed[:, start:stop] = done
        start = stop
    return fixed


def unrestricted(one_body: np.ndarray, two_body: np.ndarray, n_alpha: int, n_beta: int) -> tuple[float, Rotation]:
    """The lowest determinant found whose alpha and beta orbitals may differ: unrestricted Hartree-Fock.

    It starts from the lowest orbitals, from mixtures of full and empty ones and from seeded random ones, and leaves
    saddle points; the lowest solution is an upper bound on the true minimum.

    Args:
        one_body: integrals of the active orbitals, shape (n, n), hartree.
        two_body: in chemists' order, shape (n, n, n, n), hartree.
        n_alpha: electrons of spin up.
        n_beta: electrons of spin down.

    Returns:
        energy without the constant, hartree; the orbitals, by energy, in terms of the given ones.
    """
    n = len(one_body)
    energies, densities = _descend(one_body, two_body, n_alpha, n_beta, _starts(two_body, n_alpha, n_beta))
    if {n_alpha, n_beta} <= {0, n}:
        return float(energies[0]), (np.eye(n), np.eye(n))
    first = np.flatnonzero(energies < energies.min() + 1e-6)[0]
    field = _converge(one_body, two_body, n_alpha, n_beta, densities[first])
    each = zip(field.mo_energy, field.mo_occ, field.mo_coeff, strict=True)
    alpha, beta = (fixed_orbitals(*orbitals, np.eye(n)) for orbitals in each)
    return float(field.e_tot), (alpha, beta)


def _starts(two_body: np.ndarray, n_alpha: int, n_beta: int) -> np.ndarray:
    """Density matrices to start from, alpha and beta, shape (starts, 2, n, n).

    In pairs of a full and an empty orbital, such as a bond and its antibond, alpha goes to one side and beta to the
    other: in the first 1, 2, 3, … pairs of largest exchange, with all choices of sides.
    """
    n = len(two_body)
    exchange = np.einsum("iaia->ia", two_body)[:n_beta, n_alpha:].copy()
    pairs = []
    for _ in range(min(exchange.shape)):
        i, a = np.unravel_index(int(exchange.argmax()), exchange.shape)
        pairs.append((int(i), n_alpha + int(a)))
        exchange[i, :] = exchange[:, a] = -np.inf
    rotations = [np.array([np.eye(n)] * 2)]
    for depth in range(1, min(len(pairs), 5) + 1):
        for sides in itertools.product((1.0, -1.0), repeat=depth - 1):
            mixed = np.eye(n)
            for (i, a), side in zip(pairs, (1.0, *sides), strict=False):
                mixed[np.ix_([i, a], [i, a])] = np.array([[1.0, -side], [side, 1.0]]) / np.sqrt(2.0)
            rotations.append(np.array([mixed, mixed.T]))
    rotations += list(np.linalg.qr(np.random.default_rng(11).normal(size=(20, 2, n, n)))[0])
    return _filled(np.array(rotations), n_alpha, n_beta)


def _filled(orbitals: np.ndarray, n_alpha: int, n_beta: int) -> np.ndarray:
    """Density matrices of the first orbitals of each spin; both of shape (…, 2, n, n)."""
    filled = (orbitals[..., s, :, :k] for s, k in enumerate((n_alpha, n_beta)))
    return np.stack([u @ u.swapaxes(-1, -2) for u in filled], axis=-3)


def _descend(
    one_body: np.ndarray, two_body: np.ndarray, n_alpha: int, n_beta: int, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energies, shape (starts,), and densities, shape (starts, 2, n, n), after 100 level-shifted Hartree-Fock steps."""
    n = len(one_body)
    coulomb = two_body.reshape(n * n, n * n)
    exchange = two_body.transpose(0, 2, 1, 3).reshape(n * n, n * n)
    densities, energies = starts, np.zeros(len(starts))
    for _ in range(100):
        shared = densities.sum(axis=1).reshape(-1, 1, n * n) @ coulomb - densities.reshape(-1, 2, n * n) @ exchange
        fock = one_body + shared.reshape(densities.shape)
        energies = ((fock + one_body) * densities).sum(axis=(1, 2, 3)) / 2
        densities = _filled(np.linalg.eigh(fock - 0.5 * densities)[1], n_alpha, n_beta)
    return energies, densities


def _converge(one_body: np.ndarray, two_body: np.ndarray, n_alpha: int, n_beta: int, start: np.ndarray) -> Any:
    """Second-order unrestricted Hartree-Fock on given integrals, moved off saddle points."""
    from pyscf import ao2mo, gto, scf

    n = len(one_body)
    mol = gto.M(verbose=0)
    mol.nelectron, mol.spin, mol.incore_anyway = n_alpha + n_beta, n_alpha - n_beta, True
    field = scf.UHF(mol)
    field.get_hcore, field.get_ovlp = (lambda *_: one_body), (lambda *_: np.eye(n))
    field._eri, field.chkfile = ao2mo.restore(8, two_body, n), None
    field = field.newton()
    field.conv_tol, field.conv_tol_grad = 1e-12, 1e-7
    field.kernel(dm0=start)
    for _ in range(5):
        internal, _, stable, _ = field.stability(return_status=True)
        if stable:
            break
        field.kernel(internal, field.mo_occ)
    return field


def natural(density: np.ndarray) -> np.ndarray:
    """Natural orbitals of a density matrix summed over spin, shape (n, n), the fullest first; columns, shape (n, n)."""
    occupations, orbitals = np.linalg.eigh(-density)
    return fixed_orbitals(occupations, np.zeros(len(density)), orbitals, np.eye(len(density)))


def localized(mol: Any, orbitals: np.ndarray, fock: np.ndarray, n_alpha: int, n_beta: int) -> np.ndarray:
    """Rotation that localizes orbitals of the same occupation on atoms, shape (n, n); by mean energy in each block.

    Args:
        mol: a PySCF molecule.
        orbitals: active orbitals, shape (n_basis, n), occupied ones first.
        fock: Fock matrix in the basis functions, shape (n_basis, n_basis), hartree.
        n_alpha: electrons of spin up in them.
        n_beta: electrons of spin down.

    References:
        Pipek, Mezey, J. Chem. Phys. 90, 4916 (1989), https://doi.org/10.1063/1.456588.
    """
    from pyscf import lo

    overlap = mol.intor("int1e_ovlp")
    made = np.eye(orbitals.shape[1])
    centres = mol.intor("int1e_r")
    for block in (slice(0, n_beta), slice(n_beta, n_alpha), slice(n_alpha, None)):
        given = orbitals[:, block]
        if given.shape[1] < 2:
            continue
        solver = lo.PipekMezey(mol, given)
        solver.conv_tol, solver.verbose = 1e-12, 0
        found = solver.kernel()
        for _ in range(5):
            turned, stable = solver.stability_jacobi(return_status=True)
            if stable:
                break
            found = solver.kernel(turned)
        keys = [tuple(np.round([o @ fock @ o, *(o @ r @ o for r in centres)], 5).tolist()) for o in found.T]
        found = found[:, sorted(range(len(keys)), key=keys.__getitem__)]
        found = fixed_orbitals(np.arange(found.shape[1]), np.zeros(found.shape[1]), found, overlap)
        made[block, block] = given.T @ overlap @ found
    return made
