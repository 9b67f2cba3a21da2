"""Hermitian operators as sums of Pauli strings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from qas.checks import MOST, finite_array, shortened
from qas.errors import QasError, TooLargeError

_LETTERS = "IXZY"  # index = x + 2 z
DENSE_LIMIT = 12
"""Largest number of qubits for which a dense matrix is formed."""


class Hamiltonian:
    """H = Σ_k c_k P_k with real c_k. Immutable. The rightmost letter of a string belongs to qubit 0, as in Qiskit.

    Args:
        terms: mapping or pairs of Pauli string -> real coefficient; equal strings are added up.

    Raises:
        QasError: no terms, strings of different lengths, letters other than IXYZ, or coefficients that are not real
            and finite.
    """

    def __init__(self, terms: Mapping[str, complex] | Iterable[tuple[str, complex]]) -> None:
        try:
            pairs = [(str(p), c) for p, c in (terms.items() if isinstance(terms, Mapping) else terms)]
        except (TypeError, ValueError):
            raise QasError(f"a Hamiltonian has pairs of a Pauli string and a number, got {shortened(terms)}") from None
        if not pairs:
            raise QasError("a Hamiltonian needs at least one Pauli term, got none")
        n = len(pairs[0][0])
        merged: dict[str, float] = {}
        for string, coefficient in pairs:
            if len(string) != n or n == 0:
                raise QasError(f"all Pauli strings must have the same length {n}, got {shortened(string)}")
            if not set(string) <= set("IXYZ"):
                raise QasError(f"Pauli strings use the letters I, X, Y, Z, got {shortened(string)}")
            try:
                value = math.nan if isinstance(coefficient, (str, bytes, bool)) else complex(coefficient)
            except (TypeError, ValueError, OverflowError):
                raise QasError(
                    f"coefficients are numbers, got {shortened(coefficient)} for {shortened(string)}"
                ) from None
            if not abs(value) <= MOST:
                raise QasError(
                    f"coefficients must be finite, up to {MOST:g}, got {shortened(coefficient)} for {string}"
                )
            if abs(value.imag) > 1e-10 * max(1.0, abs(value)):
                raise QasError(f"a Hermitian operator has real coefficients, got {coefficient} for {string}")
            merged[string] = merged.get(string, 0.0) + value.real
        self._n_qubits = n
        self._terms = dict(sorted((p, c) for p, c in merged.items() if c != 0.0 or set(p) == {"I"}))
        if not self._terms:
            self._terms = {"I" * n: 0.0}

    @property
    def n_qubits(self) -> int:
        return self._n_qubits

    @property
    def terms(self) -> dict[str, float]:
        """Pauli string -> coefficient, sorted by string; a copy."""
        return dict(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hamiltonian) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(tuple(self._terms.items()))

    def __repr__(self) -> str:
        return f"Hamiltonian({self._n_qubits} qubits, {len(self)} terms)"

    @property
    def identity(self) -> float:
        """Coefficient of the identity string: a constant that no circuit and no measurement can change."""
        return self._terms.get("I" * self._n_qubits, 0.0)

    # ------------------------------------------------------------------ arrays for the engines
    @cached_property
    def strings(self) -> tuple[str, ...]:
        return tuple(self._terms)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Coefficients in the order of `strings`, float64, shape (n_terms,)."""
        return np.array(list(self._terms.values()), dtype=np.float64)

    @cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Bit masks (x, z) of each string, int64, shape (n_terms,) each: X -> x, Z -> z, Y -> both."""
        x, z = np.array([string_masks(p) for p in self.strings], dtype=np.int64).reshape(-1, 2).T.copy()
        return x, z

    @cached_property
    def xor_diagonals(self) -> tuple[np.ndarray, np.ndarray]:
        """H as a sum of permuted diagonals: ``(H ψ)[i] = Σ_m d[m, i] ψ[i ^ x[m]]``.

        Returns:
            x: int64, shape (n_masks,); d: complex128, shape (n_masks, 2**n).
        """
        xs, zs = self.masks
        masks, where = np.unique(xs, return_inverse=True)
        index = np.arange(1 << self._n_qubits, dtype=np.int64)
        # P|j> = i^{|x&z|} (-1)^{z·j} |j ^ x|: for each x a Walsh-Hadamard transform over z, then row i from j = i ^ x.
        diagonals = np.zeros((len(masks), len(index)), dtype=np.complex128)
        diagonals[where, zs] = self.coefficients * 1j ** (np.bitwise_count(xs & zs) % 4)
        walsh_hadamard(diagonals)
        for row, x in enumerate(masks):
            diagonals[row] = diagonals[row, index ^ x]
        return masks, diagonals

    @cached_property
    def pauli_vector(self) -> np.ndarray:
        """Coefficients over all 4**n strings, float64; base-4 digit q is the letter of qubit q in the order I X Y Z."""
        if self._n_qubits > 13:
            raise TooLargeError(f"a vector of 4^n Pauli coefficients holds at most 13 qubits, got {self._n_qubits}")
        vector = np.zeros(4**self._n_qubits)
        vector[self.pauli_index] = self.coefficients
        return vector

    @cached_property
    def letters(self) -> np.ndarray:
        """Letter of each string on each qubit, 0..3 for I X Y Z, int64, shape (n_terms, n_qubits)."""
        return np.array([["IXYZ".index(c) for c in reversed(p)] for p in self.strings], dtype=np.int64)

    @cached_property
    def pauli_index(self) -> np.ndarray:
        """Position of each string in `pauli_vector`, int64, shape (n_terms,)."""
        return self.letters @ (4 ** np.arange(self._n_qubits, dtype=np.int64))

    # ------------------------------------------------------------------ spectra
    def to_matrix(self) -> np.ndarray:
        """Dense matrix, complex128, shape (2**n, 2**n).

        Raises:
            TooLargeError: more than 12 qubits.
        """
        if self._n_qubits > DENSE_LIMIT:
            raise TooLargeError(f"a dense matrix is formed up to {DENSE_LIMIT} qubits, got {self._n_qubits}")
        xs, diagonals = self.xor_diagonals
        index = np.arange(1 << self._n_qubits)
        matrix = np.zeros((len(index), len(index)), dtype=np.complex128)
        for x, diagonal in zip(xs, diagonals, strict=True):
            matrix[index, index ^ x] += diagonal
        return matrix

    @cached_property
    def ground_energy(self) -> float:
        """Smallest eigenvalue: dense up to 8 qubits, Lanczos beyond."""
        if self._n_qubits <= 8:
            return float(np.linalg.eigvalsh(self.to_matrix())[0])
        return self._lanczos(vectors=False)[0]

    def ground_state(self) -> tuple[float, np.ndarray]:
        """Smallest eigenvalue and an eigenvector of it, complex128, shape (2**n,); methods as of `ground_energy`."""
        if self._n_qubits <= 8:
            energies, states = np.linalg.eigh(self.to_matrix())
            return float(energies[0]), states[:, 0]
        return self._lanczos(vectors=True)

    def _lanczos(self, vectors: bool) -> tuple[float, np.ndarray]:
        from scipy.sparse.linalg import LinearOperator, eigsh

        # ARPACK fails on a zero operator and loses eigenvalues far below 1: the constant and the scale stay outside.
        scale = float(np.abs(self.coefficients).sum()) - abs(self.identity)
        if scale <= 0.0:
            return self.identity, np.eye(1, 1 << self._n_qubits, dtype=np.complex128)[0]
        xs, diagonals = self.xor_diagonals
        index = np.arange(1 << self._n_qubits)

        def product(vector: np.ndarray) -> np.ndarray:
            vector = vector.ravel()
            total = sum(d * vector[index ^ x] for x, d in zip(xs, diagonals, strict=True))
            return (total - self.identity * vector) / scale

        operator = LinearOperator((len(index), len(index)), matvec=product, dtype=np.complex128)
        start = np.random.default_rng(0).normal(size=len(index))
        found = eigsh(operator, k=1, which="SA", v0=start, return_eigenvectors=vectors, tol=1e-12)
        energies, states = found if vectors else (found, np.zeros((0, 1)))
        return self.identity + scale * float(energies[0]), states[:, 0]

    @property
    def diagonal(self) -> np.ndarray:
        """Energies of the computational basis states, float64, shape (2**n,)."""
        xs, zs = self.masks
        energies = np.zeros(1 << self._n_qubits)
        energies[zs[xs == 0]] = self.coefficients[xs == 0]
        walsh_hadamard(energies)
        return energies

    @cached_property
    def basis_state(self) -> str:
        """Bits of the computational basis state of lowest energy, the rightmost one qubit 0's; of equal ones the first.

        X gates alone reach it.
        """
        energies = self.diagonal
        rounding = 1e-12 * float(np.abs(self.coefficients).sum())
        return format(int(np.flatnonzero(energies <= energies.min() + rounding)[0]), f"0{self._n_qubits}b")

    @cached_property
    def basis_state_energy(self) -> float:
        """Lowest energy of a computational basis state."""
        return float(self.diagonal.min())

    @cached_property
    def product_state_energy(self) -> float:
        """Lowest energy found over all product states, reached with one-qubit gates alone.

        Energy is linear in each qubit's Bloch vector, so a coordinate sweep has a closed form; 64 seeded starts.
        """
        n, starts = self._n_qubits, 64
        letters = self.letters
        one_hot = [np.eye(4)[letters[:, q]] for q in range(n)]
        bloch = np.ones((starts, n, 4))
        bloch[..., 1:] = np.random.default_rng(7).normal(size=(starts, n, 3))
        bloch[..., 1:] /= np.linalg.norm(bloch[..., 1:], axis=-1, keepdims=True)
        energy = np.full(starts, math.inf)
        for _ in range(1000):
            previous = energy
            # Each term is a product over qubits: keep the products before and after the qubit being moved.
            after = np.ones((n + 1, starts, len(letters)))
            for q in reversed(range(n)):
                after[q] = after[q + 1] * bloch[:, q][:, letters[:, q]]
            before = np.broadcast_to(self.coefficients, (starts, len(letters)))
            for q in range(n):
                field = (before * after[q + 1]) @ one_hot[q]
                norm = np.linalg.norm(field[:, 1:], axis=1)
                move = norm > 1e-14
                bloch[move, q, 1:] = -field[move, 1:] / norm[move, None]
                energy = field[:, 0] - norm
                before = before * bloch[:, q][:, letters[:, q]]
            if (previous - energy < 1e-13).all():
                break
        return min(self.basis_state_energy, float(energy.min()))

    # ------------------------------------------------------------------ conversions
    @classmethod
    def from_masks(cls, n_qubits: int, x: np.ndarray, z: np.ndarray, coefficients: np.ndarray) -> Hamiltonian:
        """Terms whose strings are given as bit masks (see `masks`), shape (n_terms,) each; equal ones are added up."""
        qubits = np.arange(n_qubits)[::-1]
        letters = (x[:, None] >> qubits & 1) + 2 * (z[:, None] >> qubits & 1)
        strings = ("".join(row) for row in np.array(list(_LETTERS))[letters].tolist())
        return cls(zip(strings, coefficients.tolist(), strict=True))

    @classmethod
    def from_qiskit(cls, operator: Any) -> Hamiltonian:
        """Read a `qiskit.quantum_info.SparsePauliOp`.

        Raises:
            QasError: the operator is not Hermitian.
        """
        operator = operator.simplify(atol=0.0, rtol=0.0)
        return cls(zip(operator.paulis.to_labels(), operator.coeffs, strict=True))

    def to_qiskit(self) -> Any:
        """The operator as a `qiskit.quantum_info.SparsePauliOp`."""
        from qiskit.quantum_info import SparsePauliOp

        return SparsePauliOp(list(self.strings), self.coefficients)

    @classmethod
    def from_matrix(cls, matrix: Any, *, tolerance: float = 1e-12) -> Hamiltonian:
        """Decompose a dense Hermitian matrix, shape (2**n, 2**n), into Pauli strings.

        Coefficients below `tolerance` times the largest entry are dropped.

        Raises:
            QasError: not square, not a power of two, not finite, or not Hermitian to 1e-10.
        """
        if max(getattr(matrix, "shape", ()), default=0) > 1 << DENSE_LIMIT:  # before it is copied
            raise TooLargeError(f"a dense matrix is read up to {DENSE_LIMIT} qubits, got shape {matrix.shape}")
        array = finite_array("a Hamiltonian matrix", matrix, complex_too=True)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise QasError(f"a Hamiltonian matrix is square, got shape {array.shape}")
        dim = array.shape[0]
        n = dim.bit_length() - 1
        if dim != 1 << n or n == 0:
            raise QasError(f"a Hamiltonian matrix has 2^n rows with n >= 1, got {dim}")
        if n > DENSE_LIMIT:
            raise TooLargeError(f"a dense matrix is read up to {DENSE_LIMIT} qubits, got {n}")
        scale = float(np.abs(array).max())
        gap = float(np.abs(array - array.conj().T).max())
        if gap > 1e-10 * max(1.0, scale):
            raise QasError(f"a Hamiltonian matrix is Hermitian (H = H†), got a largest difference of {gap:.3g}")
        index = np.arange(dim)
        terms = []
        for x in range(dim):
            # Tr(P H)/2^n for all z at once: a Walsh-Hadamard transform of the x-th permuted diagonal.
            row = array[index, index ^ x]
            walsh_hadamard(row)
            for z in np.flatnonzero(np.abs(row) > tolerance * dim * scale).tolist():
                phase = (-1j) ** ((x & z).bit_count() % 4) * (-1) ** ((x & z).bit_count())
                string = "".join(_LETTERS[(x >> q & 1) + 2 * (z >> q & 1)] for q in reversed(range(n)))
                terms.append((string, (phase * row[z]).real / dim))
        return cls(terms or [("I" * n, 0.0)])

    @classmethod
    def read(cls, source: Any) -> Hamiltonian:
        """Read anything that names a Hermitian operator: Hamiltonian, SparsePauliOp, dict of strings, dense matrix."""
        if isinstance(source, Hamiltonian):
            return source
        if isinstance(source, Mapping):
            return cls(source)
        if hasattr(source, "paulis") and hasattr(source, "coeffs"):
            return cls.from_qiskit(source)
        if isinstance(source, np.ndarray) or (
            isinstance(source, (list, tuple)) and source and not isinstance(source[0], tuple)
        ):
            return cls.from_matrix(source)
        if isinstance(source, (list, tuple)):
            return cls(source)
        raise QasError(
            "a Hamiltonian is a SparsePauliOp, a dict of Pauli strings or a Hermitian matrix, got "
            f"{type(source).__name__}"
        )


def string_masks(string: str) -> tuple[int, int]:
    """Bit masks (x, z) of a Pauli string: X -> x, Z -> z, Y -> both; the rightmost letter is bit 0."""
    x = sum(1 << q for q, letter in enumerate(reversed(string)) if letter in "XY")
    return x, sum(1 << q for q, letter in enumerate(reversed(string)) if letter in "ZY")


def walsh_hadamard(array: np.ndarray) -> None:
    """Replace ``a[…, i]`` by ``Σ_z (-1)^{z·i} a[…, z]`` in place; the last axis is a power of two long."""
    size = array.shape[-1]
    half = 1
    while half < size:
        pairs = array.reshape(*array.shape[:-1], size // (2 * half), 2, half)
        low, high = pairs[..., 0, :].copy(), pairs[..., 1, :]
        pairs[..., 0, :] += high
        np.subtract(low, high, out=pairs[..., 1, :])
        half *= 2
