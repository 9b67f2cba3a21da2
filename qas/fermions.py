"""Electrons on qubits: molecular integrals as Pauli strings, encodings of spin orbitals, and what a molecule knows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qas.checks import one_line, shortened
from qas.errors import QasError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.tapering import Tapering

MAPPINGS = {
    "jordan-wigner": "one qubit per spin orbital, alpha orbitals first",
    "jordan-wigner-interleaved": "one qubit per spin orbital, alpha and beta of each orbital side by side",
    "parity": "parity encoding, less the two qubits that hold the conserved parities of alpha and of all electrons",
    "parity-single": "parity encoding, less the one qubit that holds the parity of all electrons",
    "parity-full": "parity encoding, one qubit per spin orbital",
    "bravyi-kitaev": "Bravyi-Kitaev encoding, one qubit per spin orbital",
}
"""Encodings of spin orbitals; unless said otherwise with the alpha orbitals first and then the beta orbitals."""


def jordan_wigner(one_body: np.ndarray, two_body: np.ndarray) -> Hamiltonian:
    r"""The electronic Hamiltonian on qubits, qubit p for spin orbital p.

    .. math:: H = \sum_{pq} h_{pq} a_p^† a_q + \tfrac12 \sum_{pqrs} (pq|rs) a_p^† a_r^† a_s a_q

    Args:
        one_body: h, real, shape (n, n) over spin orbitals, hartree.
        two_body: (pq|rs) in chemists' order, real, shape (n, n, n, n), hartree.
    """
    n = len(one_body)
    p, q = np.nonzero(one_body)
    parts = [_products([(p, True), (q, False)], one_body[p, q], n)]
    p, q, r, s = np.nonzero(two_body)
    parts.append(_products([(p, True), (r, True), (s, False), (q, False)], two_body[p, q, r, s] / 2, n))
    keys, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    strings, where = np.unique(keys, return_inverse=True)
    weights = np.bincount(where, weights, len(strings))
    x, z = strings >> n, strings & (1 << n) - 1
    # X^x Z^z is (-i)^|x & z| times its Pauli string; of a real symmetric operator only even |x & z| are left.
    twos = np.bitwise_count(x & z)
    left = (twos % 2 == 0) & (weights != 0.0)
    signed = np.where(twos % 4 == 2, -weights, weights)
    return Hamiltonian.from_masks(n, x[left], z[left], signed[left]) if left.any() else Hamiltonian({"I" * n: 0.0})


def _products(ladder: list[tuple[np.ndarray, bool]], weights: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of ladder operators as strings X^x Z^z: keys ``x << n | z`` and weights.

    Args:
        ladder: from left to right, the spin orbital in each product and whether it is a creation operator.
        weights: of the products.
        n: number of spin orbitals.
    """
    keys, found = [], []
    for signs in itertools.product((0, 1), repeat=len(ladder)):
        # a_p = Z_0 … Z_(p-1) X_p (1 - Z_p) / 2, and its adjoint has the other sign.
        x = np.zeros(len(weights), dtype=np.int64)
        z, weight = x.copy(), weights / 2 ** len(ladder)
        for (orbital, creates), second in zip(ladder, signs, strict=True):
            bit = np.int64(1) << orbital
            right = bit - 1 | (bit if second else 0)
            weight = np.where(np.bitwise_count(z & bit) % 2, -weight, weight)
            if second and not creates:
                weight = -weight
            x, z = x ^ bit, z ^ right
        keys.append(x << n | z)
        found.append(weight)
    return np.concatenate(keys), np.concatenate(found)


def encoded(operator: Hamiltonian, mapping: str) -> Hamiltonian:
    """An operator in the Jordan-Wigner encoding (alpha orbitals first) in another one, all qubits kept.

    The reduced parity mappings are ``"parity-full"`` before qubits are taken away.

    Raises:
        UnknownNameError: no such mapping.
    """
    n = operator.n_qubits
    matrix, crossed = _encoding(mapping, n), _crossed(mapping, n)
    x, z = (mask[:, None] >> np.arange(n) & 1 for mask in operator.masks)
    inverse = np.rint(np.linalg.inv(matrix)).astype(np.int64)
    new_x, new_z = x @ matrix.T % 2, (z + x @ crossed) @ inverse % 2
    # A string is X^x Z^z times i^|x & z|. CZ of a crossed pair adds Z to X, and a sign where both orbitals have an X.
    quarters = (x & z).sum(axis=1) - (new_x & new_z).sum(axis=1) + (x @ crossed * x).sum(axis=1)
    weights = 1 << np.arange(n)
    return Hamiltonian.from_masks(
        n, new_x @ weights, new_z @ weights, np.where(quarters % 4 == 2, -1.0, 1.0) * operator.coefficients
    )


def _encoding(mapping: str, n: int) -> np.ndarray:
    """Bits that qubits hold of the occupations of n spin orbitals: int64, shape (n, n), qubits = matrix @ bits mod 2.

    References:
        Seeley, Richard, Love, arXiv:1208.5986 (2012), https://arxiv.org/abs/1208.5986.
    """
    if mapping not in MAPPINGS:
        raise UnknownNameError("mapping", mapping, MAPPINGS)
    if mapping.startswith("parity"):
        return np.tri(n, dtype=np.int64)
    matrix = np.eye(n, dtype=np.int64)
    if mapping == "jordan-wigner-interleaved":
        return matrix[_interleaved(n)]
    if mapping == "bravyi-kitaev":
        for size in (1 << k for k in range(1, n.bit_length())):
            # The last qubit of every whole block of `size` holds the parity of the block.
            for last in range(size - 1, n, size):
                matrix[last, last - size + 1 : last + 1] = 1
    return matrix


def _interleaved(n: int) -> np.ndarray:
    return np.arange(n).reshape(2, -1).T.ravel()


def _crossed(mapping: str, n: int) -> np.ndarray:
    """Pairs of spin orbitals whose order an encoding swaps, so that two electrons in them change the sign of a state.

    Returns:
        int64, symmetric, shape (n, n), 1 for such pairs.
    """
    place = np.argsort(_interleaved(n)) if mapping == "jordan-wigner-interleaved" else np.arange(n)
    before = np.subtract.outer(place, place) * np.subtract.outer(np.arange(n), np.arange(n))
    return (before < 0).astype(np.int64)


@dataclass(frozen=True)
class Molecule:
    """Electrons of a molecular problem and how its qubits hold them: what excitations are made from.

    Spin orbitals are counted from 0: first the alpha orbitals of the active space in their order, then the beta ones.
    An operator on spin orbitals is given in the Jordan-Wigner encoding in that order, one qubit each, and `encode`
    takes it to the qubits of the problem, whatever its mapping and tapering.

    Raises:
        UnknownNameError: no such mapping.
        QasError: electrons that do not fit the orbitals, or a tapering of another number of qubits.
    """

    n_orbitals: int
    """number of active spatial orbitals"""
    n_alpha: int
    """number of active electrons of spin up"""
    n_beta: int
    """number of active electrons of spin down"""
    mapping: str = "jordan-wigner"
    """a key of `MAPPINGS`"""
    tapering: Tapering | None = None
    """qubits that are taken away after the mapping; None: as the mapping says (two for ``"parity"``)"""

    def __post_init__(self) -> None:
        if self.mapping not in MAPPINGS:
            raise UnknownNameError("mapping", self.mapping, MAPPINGS)
        if not 0 <= max(self.n_alpha, self.n_beta) <= self.n_orbitals or min(self.n_alpha, self.n_beta) < 0:
            rule = f"{self.n_orbitals} orbitals hold up to {self.n_orbitals} electrons of each spin"
            raise QasError(f"{rule}, got {self.n_alpha} alpha and {self.n_beta} beta electrons")
        n = self.n_spin_orbitals
        if self.tapering is None and self.mapping in ("parity", "parity-single"):
            conserved = [n - 1, n // 2 - 1][: 2 if self.mapping == "parity" else 1]
            strings = tuple("I" * (n - 1 - q) + "Z" + "I" * q for q in conserved)
            sector = [(-1) ** self.n_electrons, (-1) ** self.n_alpha][: len(conserved)]
            object.__setattr__(self, "tapering", Tapering(strings, tuple(sector)))
        if self.tapering is not None and self.tapering.n_qubits != n:
            raise QasError(f"{n} spin orbitals take a tapering of {n} qubits, got one of {self.tapering.n_qubits}")

    @property
    def n_spin_orbitals(self) -> int:
        """Twice the number of orbitals."""
        return 2 * self.n_orbitals

    @property
    def n_electrons(self) -> int:
        """Number of active electrons."""
        return self.n_alpha + self.n_beta

    @property
    def n_qubits(self) -> int:
        """Number of qubits after mapping and tapering."""
        return self.n_spin_orbitals if self.tapering is None else len(self.tapering.kept)

    @cached_property
    def occupations(self) -> str:
        """The reference determinant: the lowest orbitals filled; one bit a spin orbital, the rightmost is number 0."""
        alpha, beta = ("1" * n for n in (self.n_alpha, self.n_beta))
        return beta.zfill(self.n_orbitals) + alpha.zfill(self.n_orbitals)

    def encode(self, operator: Hamiltonian) -> Hamiltonian:
        """An operator on spin orbitals, on the qubits of the problem.

        Args:
            operator: in the Jordan-Wigner encoding, qubit p for spin orbital p.

        Raises:
            QasError: another number of qubits, or an operator that leaves the tapered sector (see `conserved_by`).
        """
        mapped = self._mapped(operator)
        return mapped if self.tapering is None else self.tapering.taper(mapped)

    def conserved_by(self, operator: Hamiltonian) -> bool:
        """Whether an operator on spin orbitals, as of `encode`, respects the symmetries that were tapered."""
        return self.tapering is None or self.tapering.conserved_by(self._mapped(operator))

    def encode_determinant(self, occupations: str | None = None) -> str:
        """A determinant as bits of the problem's qubits, the rightmost one qubit 0's.

        Args:
            occupations: a bit for each spin orbital, the rightmost is number 0; None: the reference, `occupations`.

        Raises:
            QasError: not so many bits, other numbers of electrons, or another sector of the tapered symmetries.
        """
        bits = self.occupations if occupations is None else occupations
        n = self.n_spin_orbitals
        if not isinstance(bits, str) or len(bits) != n or not set(bits) <= {"0", "1"}:
            raise QasError(f"a determinant is {n} bits, one for each spin orbital, got {shortened(bits)}")
        electrons = bits[self.n_orbitals :].count("1"), bits[: self.n_orbitals].count("1")
        if electrons != (self.n_alpha, self.n_beta):
            rule = f"a determinant of this molecule has {self.n_alpha} alpha and {self.n_beta} beta electrons"
            raise QasError(f"{rule}, got {electrons[0]} and {electrons[1]} in {bits}")
        row = _encoding(self.mapping, n) @ np.array([int(bit) for bit in reversed(bits)]) % 2
        mapped = "".join(map(str, reversed(row.tolist())))
        return mapped if self.tapering is None else self.tapering.determinant(mapped)

    def _mapped(self, operator: Hamiltonian) -> Hamiltonian:
        if operator.n_qubits != self.n_spin_orbitals:
            n = self.n_spin_orbitals
            raise QasError(f"an operator on {n} spin orbitals acts on {n} qubits, got {operator.n_qubits}")
        return operator if self.mapping == "jordan-wigner" else encoded(operator, self.mapping)

    @classmethod
    def from_provenance(cls, provenance: Mapping[str, Any]) -> Molecule | None:
        """The electrons that the provenance of a molecular problem tells of; None for other problems.

        Raises:
            QasError: entries that are malformed or do not fit each other.
        """
        if provenance.get("family") != "molecule":
            return None
        try:
            electrons, spin = int(provenance["active_electrons"]), int(provenance["spin"])
            tapered = provenance.get("tapering")
            return cls(
                n_orbitals=len(provenance["active_orbitals"]),
                n_alpha=(electrons + spin) // 2,
                n_beta=(electrons - spin) // 2,
                mapping=str(provenance["mapping"]),
                tapering=None if tapered is None else Tapering(tapered["symmetries"], tapered["sector"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, QasError):
                raise
            rule = "the provenance of a molecule has active_electrons, active_orbitals, spin and mapping"
            raise QasError(f"{rule}; got {one_line(repr(error))}") from None
