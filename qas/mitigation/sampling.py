"""What measuring an energy costs: groups of strings, readout inverted, and the spread of the estimate from a state.

Strings that commute qubit by qubit are measured together, and one shot of a group gives one outcome i of its qubits.
The estimate of the group's part of the energy is the mean over shots of a number f(i). Without inverting the readout f
is the group's own diagonal h, and what is measured is A^T h, where A[i, j] is the probability to read i for j.
Inverted, f is A^-T h, so that the mean is h. The spread of one shot is E[f²] - E[f]², with E[f²] the expectation value
of the diagonal A^T f². For flips of single qubits, with a = 1 - p01 - p10 and b = p10 - p01, f has z' = (z_read - b) /
a for each letter Z, and z'² has the mean ((1 - b²) - 2 a b z) / a²; products of these are what A^T f² comes to.

Shots are divided before anything is measured: to each group in proportion to the standard deviation that one shot of
it has in the fully mixed state, which without flips is the root of the sum of its squared coefficients. Where the
state is not known that is the allocation that minimizes the variance (Lagrange: shots in proportion to standard
deviations).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qas.checks import shortened
from qas.errors import QasError, TooLargeError
from qas.hamiltonians import Hamiltonian, walsh_hadamard

MAX_QUBITS = 13


class Measurement(NamedTuple):
    """An energy and its variance as sums over expectation values of Pauli strings."""

    strings: np.ndarray  # int64 (strings,): in base 4, the identity first; digit q the letter of qubit q, I X Y Z
    energy: np.ndarray  # float64 (strings,): what each counts in the energy
    square: np.ndarray  # float64 (strings,): what each counts in Σ_g E[f_g²] / share_g
    first: np.ndarray  # int64 (groups + 1,): where the means of each group begin
    place: np.ndarray  # int64 (entries,): a string of a group's mean
    weight: np.ndarray  # float64 (entries,): its coefficient
    share: np.ndarray  # float64 (groups,): of the shots

    def operator(self, n_qubits: int, weights: np.ndarray) -> Hamiltonian:
        """Σ weight · string."""
        letters = self.strings[:, None] >> (2 * np.arange(n_qubits)[::-1]) & 3
        names = ("".join(row) for row in np.array(list("IXYZ"))[letters].tolist())
        return Hamiltonian(zip(names, weights.tolist(), strict=True))


def groups_of(hamiltonian: Hamiltonian) -> list[list[int]]:
    """Terms that are measured together: each joins the first group it commutes with qubit by qubit, largest first.

    Sorted insertion (Crawford et al., Quantum 5, 385, 2021). The identity is in none.
    """
    letters = hamiltonian.letters
    order = np.argsort(-np.abs(hamiltonian.coefficients), kind="stable").tolist()
    groups: list[list[int]] = []
    bases: list[np.ndarray] = []
    for term in order:
        row = letters[term]
        if not row.any():
            continue
        for basis, group in zip(bases, groups, strict=True):
            if not np.any((basis != row) & (basis != 0) & (row != 0)):
                basis |= row
                group.append(term)
                break
        else:
            bases.append(row.copy())
            groups.append([term])
    return groups


def checked_assignment(given: object, n_qubits: int | None = None) -> np.ndarray:
    """A matrix of readout probabilities, float64, shape (2**n, 2**n): row i, column j the chance to read i for j.

    Raises:
        QasError: another shape, entries that are no probabilities, columns that do not sum to 1, or no inverse.
    """
    rule = "an assignment matrix is square, 2^n by 2^n, with probabilities whose columns sum to 1"
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise QasError(f"{rule}, got {shortened(given)}") from None
    size = len(matrix) if matrix.ndim == 2 else 0
    if size < 2 or matrix.shape != (size, size) or size & (size - 1):
        raise QasError(f"{rule}, got shape {matrix.shape}")
    if n_qubits is not None and size != 1 << n_qubits:
        raise QasError(f"the assignment matrix of {n_qubits} qubits has {1 << n_qubits} rows, got {size}")
    if not ((matrix >= 0.0).all() and np.abs(matrix.sum(axis=0) - 1.0).max() < 1e-9):
        raise QasError(f"{rule}, got other entries")
    if np.linalg.cond(matrix) > 1e12:
        raise QasError("an assignment matrix that is inverted needs an inverse, got one without")
    return matrix


def measurement(
    hamiltonian: Hamiltonian, flips: np.ndarray, *, inverted: bool, assignment: np.ndarray | None = None
) -> Measurement:
    """How an energy is measured.

    Args:
        hamiltonian: the energy.
        flips: (p01, p10) of each qubit, shape (n_qubits, 2).
        inverted: whether the readout is inverted.
        assignment: the readout as a whole, shape (2**n, 2**n), instead of `flips`; see `checked_assignment`.

    Raises:
        TooLargeError: more than 13 qubits.
        QasError: flips that cannot be inverted (p01 + p10 = 1), or an assignment matrix of another size.
    """
    n = hamiltonian.n_qubits
    if n > MAX_QUBITS:
        raise TooLargeError(f"what sampling costs is known on up to {MAX_QUBITS} qubits, got {n}")
    if inverted and assignment is None and np.any(np.abs(1.0 - flips.sum(axis=1)) < 1e-6):
        raise QasError("readout is inverted where p01 + p10 is not 1: it says nothing there")
    if assignment is not None:
        assignment = checked_assignment(assignment, n)
    groups = groups_of(hamiltonian)
    energy: dict[int, float] = {0: hamiltonian.identity}
    square: dict[int, float] = {0: 0.0}
    means, spreads, squares = [], [], []
    for group in groups:
        mean, second = _moments(hamiltonian, group, flips, inverted, assignment)
        means.append(mean)
        squares.append(second)
        spreads.append(np.sqrt(max(second.get(0, 0.0) - mean.get(0, 0.0) ** 2, 0.0)))
    shares = np.maximum(spreads, 1e-12 * max([1e-300, *spreads]))
    shares = shares / max(shares.sum(), 1e-300)
    for mean, second, share in zip(means, squares, shares, strict=True):
        for place, value in mean.items():
            energy[place] = energy.get(place, 0.0) + value
        for place, value in second.items():
            square[place] = square.get(place, 0.0) + value / share
    strings = np.array(sorted(energy.keys() | square.keys()), dtype=np.int64)
    column = {place: k for k, place in enumerate(strings.tolist())}
    return Measurement(
        strings,
        np.array([energy.get(place, 0.0) for place in strings.tolist()]),
        np.array([square.get(place, 0.0) for place in strings.tolist()]),
        np.cumsum([0, *map(len, means)], dtype=np.int64),
        np.array([column[place] for mean in means for place in mean], dtype=np.int64),
        np.array([value for mean in means for value in mean.values()], dtype=np.float64),
        shares,
    )


def _moments(
    hamiltonian: Hamiltonian, group: list[int], flips: np.ndarray, inverted: bool, assignment: np.ndarray | None
) -> tuple[dict[int, float], dict[int, float]]:
    """The operators of E[f] and E[f²] of one group, string in base 4 -> coefficient."""
    letters = hamiltonian.letters[group]
    basis = letters.max(axis=0)
    if assignment is not None:
        basis[basis == 0] = 3  # all qubits are read, and their errors may depend on each other
    support = np.flatnonzero(basis)
    diagonal = np.zeros(1 << len(support))
    masks = ((letters[:, support] != 0) << np.arange(len(support))).sum(axis=1)
    diagonal[masks] = hamiltonian.coefficients[group]
    walsh_hadamard(diagonal)
    maps = [np.array([[1 - p01, p10], [p01, 1 - p10]]) for p01, p10 in flips[support]]
    if assignment is not None:
        maps = [assignment]
    of_one_shot = _through(diagonal, [np.linalg.inv(m) for m in maps]) if inverted else diagonal
    mean = diagonal if inverted else _through(diagonal, maps)
    second = _through(of_one_shot**2, maps)
    places = np.zeros(len(diagonal), dtype=np.int64)
    outcomes = np.arange(len(diagonal))
    for bit, qubit in enumerate(support.tolist()):
        places += (outcomes >> bit & 1) * (int(basis[qubit]) << (2 * qubit))
    return _strings(mean, places), _strings(second, places)


def _through(diagonal: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    """Σ_i A[i, j] diagonal[i], A the product of maps, that of the lowest qubits first."""
    values, below = diagonal, 1
    for each in maps:
        values = np.einsum("ij,aib->ajb", each, values.reshape(-1, len(each), below)).ravel()
        below *= len(each)
    return values


def _strings(diagonal: np.ndarray, places: np.ndarray) -> dict[int, float]:
    """A diagonal by its Z strings, what is zero left out."""
    values = diagonal / len(diagonal)
    walsh_hadamard(values)
    kept = np.flatnonzero(np.abs(values) > 1e-14 * max(float(np.abs(values).max()), 1e-300))
    return dict(zip(places[kept].tolist(), values[kept].tolist(), strict=True))
