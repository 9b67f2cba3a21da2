"""Symmetries that make qubits superfluous: Pauli strings that commute with all terms, and operators without them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qas.checks import shortened
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, TooLargeError
from qas.gf2 import reduced_basis
from qas.hamiltonians import Hamiltonian, string_masks

MAX_QUBITS = 62
"""Largest operator: strings are held as pairs of 64-bit masks."""
MAX_SOLVED = 18
"""Largest sector that is diagonalized."""


def symmetries(hamiltonian: Hamiltonian) -> tuple[str, ...]:
    """Independent Pauli strings that commute with every term of an operator and with each other; as many as there are.

    Strings of Z alone come first, each with its leading qubit in no other of them; then those that take X and Y. They
    are found by linear algebra over GF(2) from the strings of the terms: coefficients do not matter.

    Raises:
        TooLargeError: more than 62 qubits.

    References:
        Bravyi, Gambetta, Mezzacapo, Temme, arXiv:1701.08213 (2017), https://arxiv.org/abs/1701.08213, section IV.
    """
    n = hamiltonian.n_qubits
    if n > MAX_QUBITS:
        raise TooLargeError(f"symmetries are searched on up to {MAX_QUBITS} qubits, got {n}")
    x, z = (mask.tolist() for mask in hamiltonian.masks)
    found = _kernel(set(x), n)
    # A string (a, b) = X^a Z^b commutes with the term (x, z) where |x & b| + |z & a| is even; it is held as a << n | b.
    candidates = _kernel({v << n | u for u, v in zip(x, z, strict=True)}, 2 * n)
    for chosen in found:
        candidates = _commuting(candidates, chosen, n)
    while left := _independent(candidates, found):
        found.append(left[0])
        candidates = _commuting(candidates, left[0], n)
    return tuple(_string(both >> n, both & (1 << n) - 1, n) for both in found)


def _string(x: int, z: int, n: int) -> str:
    return "".join("IXZY"[(x >> q & 1) + 2 * (z >> q & 1)] for q in reversed(range(n)))


def _kernel(rows: Iterable[int], width: int) -> list[int]:
    """Basis, in reduced form, of the bit vectors of `width` bits whose overlap with every row is even."""
    basis = reduced_basis(rows)
    leading = {row.bit_length() - 1: row for row in basis}
    free = [bit for bit in range(width) if bit not in leading]
    return reduced_basis(1 << bit | sum(1 << lead for lead, row in leading.items() if row >> bit & 1) for bit in free)


def _commuting(strings: list[int], with_this: int, n: int) -> list[int]:
    """Basis of those products of strings that commute with one."""
    swapped = with_this >> n | (with_this & (1 << n) - 1) << n
    against = [string for string in strings if (string & swapped).bit_count() % 2]
    along = [string for string in strings if not (string & swapped).bit_count() % 2]
    return along + [string ^ against[0] for string in against[1:]]


def _independent(strings: list[int], of_these: list[int]) -> list[int]:
    basis, left = reduced_basis(of_these), []
    for string in strings:
        for row in basis:
            string = min(string, string ^ row)
        if string:
            left.append(string)
    return left


def _odd(masks: np.ndarray) -> np.ndarray:
    return np.bitwise_count(masks) & 1


def _phase(tx: int, tz: int, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """±1 of the product of a string (tx, tz) with strings (x, z) that commute with it."""
    quarters = np.bitwise_count(x & z).astype(np.int64) + (tx & tz).bit_count() - np.bitwise_count((x ^ tx) & (z ^ tz))
    return 1 - (quarters + 2 * np.bitwise_count(x & tz)) % 4


def _value(string: str, bits: str) -> int:
    """Value of a symmetry on a basis state, 1 or -1."""
    if not isinstance(bits, str) or len(bits) != len(string) or not set(bits) <= {"0", "1"}:
        raise QasError(f"a determinant is {len(string)} bits, got {shortened(bits)}")
    if set(string) & set("XY"):
        raise QasError(f"a determinant has no value of the symmetry {string}; give the sector")
    return -1 if sum(letter == "Z" and bit == "1" for letter, bit in zip(string, bits, strict=True)) % 2 else 1


def _still(circuit: Circuit) -> dict[int, int]:
    """Qubits that a circuit leaves in a basis state, as far as that is plain to see, and their bits."""
    bits = dict.fromkeys(range(circuit.n_qubits), 0)
    for gate in circuit:
        flips = gate.name == "x" or (gate.name in ("rx", "ry") and abs(abs(gate.angles[0]) - math.pi) < 1e-12)
        for qubit in gate.qubits:
            if flips and qubit in bits:
                bits[qubit] ^= 1
            elif gate.name not in ("z", "rz"):
                bits.pop(qubit, None)
    return bits


@dataclass(frozen=True)
class Tapering:
    """A sector of commuting symmetries, and how operators that respect them act on fewer qubits.

    Each symmetry S takes one qubit away: on the sector S is the number s = ±1, so that a string may be multiplied by
    s S where its letter on that qubit does not commute with one Pauli σ; then only I and σ are left there, and are
    dropped. For symmetries of Z alone σ = X: bits of a basis state stay what they are, less those of the qubits taken.

    Raises:
        QasError: strings that are dependent, do not commute, or differ in length, a sector that is not one sign for
            each, or no qubit left.
    """

    strings: tuple[str, ...]
    """the symmetries, on all qubits; the rightmost letter is qubit 0's"""
    sector: tuple[int, ...]
    """value of each symmetry, 1 or -1"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strings", tuple(self.strings))
        object.__setattr__(self, "sector", tuple(self.sector))
        if not self.strings:
            raise QasError("tapering needs a symmetry, a Pauli string that commutes with all terms; there is none")
        for string in self.strings:
            if not isinstance(string, str) or len(string) != self.n_qubits or not set(string) <= set("IXYZ"):
                rule = "symmetries are Pauli strings of the letters I, X, Y, Z, each as long as the others"
                raise QasError(f"{rule}, got {shortened(string)}")
        if len(self.sector) != len(self.strings) or not all(sign in (1, -1) for sign in self.sector):
            rule = f"a sector is 1 or -1 for each of the {len(self.strings)} symmetries"
            raise QasError(f"{rule}, got {shortened(list(self.sector))}")
        object.__setattr__(self, "sector", tuple(map(int, self.sector)))
        if len(self._steps) == self.n_qubits:
            raise QasError(f"tapering leaves at least one qubit, got {self.n_qubits} symmetries of as many qubits")

    @classmethod
    def of(
        cls, hamiltonian: Hamiltonian, *, determinant: str | None = None, sector: Sequence[int] | None = None
    ) -> Tapering:
        """All symmetries of an operator (`symmetries`) and one sector of them.

        Args:
            hamiltonian: the operator.
            determinant: a basis state that lies in the sector, as bits; the rightmost one is qubit 0's.
            sector: value of each symmetry. Neither: the sector of the ground state, found by diagonalising each one.

        Raises:
            TooLargeError: more than 62 qubits, or too many to find the sector of the ground state.
            QasError: no symmetry, a sector that does not fit, a basis state of another length, or one on which a
                symmetry has no value because it takes X or Y.
        """
        found = symmetries(hamiltonian)
        if sector is None and determinant is not None:
            sector = [_value(string, determinant) for string in found]
        if sector is not None or not found:
            return cls(found, tuple(sector or ()))
        if hamiltonian.n_qubits - len(found) > MAX_SOLVED:
            rule = f"the sector of the ground state is searched on up to {MAX_SOLVED} qubits after tapering"
            raise TooLargeError(f"{rule}, got {hamiltonian.n_qubits - len(found)}; give the sector or a determinant")
        sectors = (cls(found, signs) for signs in itertools.product((1, -1), repeat=len(found)))
        return min(sectors, key=lambda tapering: tapering.taper(hamiltonian).ground_energy)

    # ------------------------------------------------------------------ what it does
    @property
    def n_qubits(self) -> int:
        """Number of qubits before tapering."""
        return len(self.strings[0])

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Qubits that stay, in their order: the k-th of them is qubit k afterwards."""
        taken = {qubit for qubit, *_ in self._steps}
        return tuple(q for q in range(self.n_qubits) if q not in taken)

    def conserved_by(self, operator: Hamiltonian) -> bool:
        """Whether every term of an operator on all qubits commutes with the symmetries."""
        self._check_size(operator.n_qubits)
        x, z = operator.masks
        return not any((_odd(x & v) ^ _odd(z & u)).any() for u, v in map(string_masks, self.strings))

    def taper(self, operator: Hamiltonian) -> Hamiltonian:
        """What an operator does in the sector, on the qubits that stay; strings that become equal are added up.

        Raises:
            QasError: another number of qubits, or a term that does not commute with a symmetry.
        """
        self._check_size(operator.n_qubits)
        x, z = operator.masks
        coefficients = operator.coefficients
        for qubit, (sx, sz), (tx, tz), sign in self._steps:
            wrong = np.flatnonzero(_odd(x & tz) ^ _odd(z & tx))
            if len(wrong):
                term = operator.strings[wrong[0]]
                raise QasError(f"tapering takes operators that commute with its symmetries, got the term {term}")
            turn = ((x >> qubit & sz) ^ (z >> qubit & sx)).astype(bool)
            phase = _phase(tx, tz, x, z)
            coefficients = np.where(turn, sign * phase * coefficients, coefficients)
            keep = ~(1 << qubit)
            x, z = np.where(turn, x ^ tx, x) & keep, np.where(turn, z ^ tz, z) & keep
        return Hamiltonian.from_masks(len(self.kept), self._shrink(x), self._shrink(z), coefficients)

    def determinant(self, bits: str) -> str:
        """A basis state of the sector on the qubits that stay; bits, the rightmost one is qubit 0's.

        Raises:
            QasError: not as many bits as qubits, another sector, or a symmetry that is not of Z alone.
        """
        values = tuple(_value(string, bits) for string in self.strings)
        if values != self.sector:
            raise QasError(
                f"a determinant lies in the sector {list(self.sector)} of the symmetries, got {bits} in {list(values)}"
            )
        return "".join(bits[self.n_qubits - 1 - q] for q in reversed(self.kept))

    def embedded(self, circuit: Circuit) -> Circuit:
        """A circuit on all qubits that makes of |0…0⟩ the state of the sector that one on the qubits that stay means.

        A qubit that was taken away holds a parity of others; CX put it there, as few as are found.

        Raises:
            QasError: a symmetry that is not of Z alone.
            CircuitError: a circuit of another size.
        """
        if circuit.n_qubits != len(self.kept):
            raise CircuitError(f"tapering leaves {len(self.kept)} qubits, got a circuit on {circuit.n_qubits}")
        if any(set(string) & {"X", "Y"} for string in self.strings):
            raise QasError(f"circuits are taken to all qubits where symmetries are of Z alone, got {self.strings[-1]}")
        gates = [Gate(g.name, tuple(self.kept[q] for q in g.qubits), g.angles) for g in circuit]
        still = _still(circuit)
        zero = {self.kept[q] for q in still}
        ones = sum(1 << self.kept[q] for q, bit in still.items() if bit)
        known: dict[int, tuple[int, int]] = {}  # qubit taken -> (moving qubits it is the parity of, constant)
        for qubit, _, (_, mask), sign in reversed(self._steps):
            sources, constant = mask & ~(1 << qubit), int(sign < 0)
            for other, (of, value) in known.items():
                if sources >> other & 1:
                    sources, constant = sources ^ 1 << other ^ of, constant ^ value
            constant ^= (sources & ones).bit_count() & 1
            sources &= ~sum(1 << q for q in zero)
            plain = (sources, constant, 0)
            beside = [(sources ^ of, constant ^ value, 1 << other) for other, (of, value) in known.items()]
            left, flip, via = min((plain, *beside), key=lambda way: (way[0] | way[2]).bit_count())
            gates += [Gate("cx", (q, qubit)) for q in range(self.n_qubits) if (left | via) >> q & 1]
            gates += [Gate("x", (qubit,))] * flip
            known[qubit] = sources, constant
        return Circuit(self.n_qubits, gates)

    # ------------------------------------------------------------------ how it does it
    @cached_property
    def _steps(self) -> list[tuple[int, tuple[int, int], tuple[int, int], int]]:
        """(qubit taken, σ as (x, z) bits, symmetry as masks (x, z), its value), each freed of the qubits taken before.

        A symmetry that is multiplied by an earlier one keeps a value: that of the product.
        """
        pending = [(*string_masks(string), sign) for string, sign in zip(self.strings, self.sector, strict=True)]
        steps = []
        for k in range(len(pending)):
            x, z, sign = pending[k]
            if x | z == 0:
                raise QasError(f"symmetries are independent strings, got {self.strings[k]} as a product of others")
            # The highest qubit on which the string has a Z, so that X is dropped there; else its highest one at all.
            qubit = (z or x).bit_length() - 1
            sigma = (1, 0) if z >> qubit & 1 else (0, 1)
            steps.append((qubit, sigma, (x, z), sign))
            for later in range(k + 1, len(pending)):
                u, v, value = pending[later]
                if ((x & v).bit_count() + (z & u).bit_count()) % 2:
                    raise QasError(f"symmetries commute, got {self.strings[k]} and {self.strings[later]}")
                if (u >> qubit & sigma[1]) ^ (v >> qubit & sigma[0]):
                    value *= sign * int(_phase(x, z, np.array([u]), np.array([v]))[0])
                    u, v = u ^ x, v ^ z
                keep = ~(1 << qubit)
                pending[later] = (u & keep, v & keep, value)
        return steps

    def _shrink(self, masks: np.ndarray) -> np.ndarray:
        shrunk = np.zeros_like(masks)
        for position, qubit in enumerate(self.kept):
            shrunk |= (masks >> qubit & 1) << position
        return shrunk

    def _check_size(self, n_qubits: int) -> None:
        if n_qubits != self.n_qubits:
            raise QasError(f"tapering acts on {self.n_qubits} qubits, got an operator on {n_qubits}")

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """``{"symmetries": [strings], "sector": [signs]}``."""
        return {"symmetries": list(self.strings), "sector": list(self.sector)}
