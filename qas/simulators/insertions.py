"""What a gate would bring: slopes and best gains of rotations that could be inserted, prices of angles set to zero.

With ψ the state at a position and λ the Hamiltonian carried back to it, exp(-iθP/2) inserted there changes the energy
at the rate Im⟨λ|P|ψ⟩ at θ = 0; one reverse sweep has both states at every position. Where P² = 1 the whole curve is
a + b cos θ + c sin θ (Ostaszewski, Grant and Benedetti, Quantum 5, 391, 2021), fixed by E(0), its slope and E(π).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qas.checks import whole_number
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian, walsh_hadamard
from qas.noise import NoiseModel
from qas.simulators._inserted import Channels, channels_table
from qas.simulators._insertion_kernels import Groups, Strings
from qas.simulators._sums import Cosets, Sums, cosets_table, minima, scale_of, sums_table, upright

Generator = str | Hamiltonian


@functools.lru_cache(maxsize=64)
def pauli_generators(n_qubits: int) -> tuple[str, ...]:
    """All one- and two-qubit Pauli strings of a register: 3n + 9n(n-1)/2 of them.

    First X, Y, Z on qubit 0, then on qubit 1, …; then the pairs (0, 1), (0, 2), …, (1, 2), …, each with its nine
    strings, the letter of the lower qubit changing fastest. As everywhere, qubit 0 is the rightmost letter.
    """
    singles = [((q, letter),) for q in range(n_qubits) for letter in "XYZ"]
    pairs = [
        ((a, la), (b, lb))
        for a, b in itertools.combinations(range(n_qubits), 2)
        for lb, la in itertools.product("XYZ", repeat=2)
    ]
    return tuple(_string(n_qubits, places) for places in [*singles, *pairs])


def _string(n_qubits: int, places: Iterable[tuple[int, str]]) -> str:
    letters = ["I"] * n_qubits
    for qubit, letter in places:
        letters[n_qubits - 1 - qubit] = letter
    return "".join(letters)


NO_CHANNELS = channels_table((), 2, None)
"""Where nobody asks for the noise of inserted gates."""


class Expanded(NamedTuple):
    """All strings of all generators, for engines that know sums by their strings."""

    strings: tuple[str, ...]
    """distinct; first those of generators that are one string"""
    tables: Strings
    term: np.ndarray  # int64 (terms,): index into `strings`, sum by sum
    coefficient: np.ndarray  # float64 (terms,)
    start: np.ndarray  # int64 (sums + 1,)

    def values(self, of_strings: np.ndarray, n_alone: int) -> np.ndarray:
        """Values of strings, shape (…, strings), to those of the first `n_alone` of them and of all sums."""
        if len(self.start) == 1:
            return of_strings
        sums = np.add.reduceat(of_strings[..., self.term] * self.coefficient, self.start[:-1], axis=-1)
        return np.concatenate([of_strings[..., :n_alone], sums], axis=-1)


@dataclass(frozen=True, eq=False)
class Generators:
    """Generators by what computes them: distinct strings, and sums of several strings."""

    n_qubits: int
    names: tuple[Generator, ...]
    strings: tuple[str, ...]
    """of the generators that are one string with a coefficient"""
    sums: tuple[dict[str, float], ...]
    """the other generators, without a part of the identity, which does nothing"""
    column: np.ndarray  # int64 (generators,): index into the strings, followed by the sums
    factor: np.ndarray  # float64 (generators,): the coefficient of a string; 1 for sums
    plain: bool
    """each generator is one string with coefficient 1, and none comes twice"""

    @functools.cached_property
    def tables(self) -> Strings:
        """Tables of `strings`."""
        return _tables(self.strings)

    @functools.cached_property
    def sums_table(self) -> Sums:
        return sums_table(self.n_qubits, self.sums)

    @functools.cached_property
    def cosets(self) -> Cosets:
        return cosets_table(self.sums)

    @functools.cached_property
    def expanded(self) -> Expanded:
        index = {string: k for k, string in enumerate(self.strings)}
        term = [index.setdefault(string, len(index)) for terms in self.sums for string in terms]
        strings = tuple(index)
        return Expanded(
            strings,
            self.tables if len(strings) == len(self.strings) else _tables(strings),
            np.array(term, dtype=np.int64),
            np.array([weight for terms in self.sums for weight in terms.values()]),
            np.cumsum([0, *map(len, self.sums)], dtype=np.int64),
        )

    @functools.cached_property
    def scales(self) -> np.ndarray:
        """s > 0 with G³ = s²G of each sum, float64, shape (sums,).

        Raises:
            QasError: a sum for which there is none.
        """
        scales = np.ones(len(self.sums))
        for k, terms in enumerate(self.sums):
            scale = scale_of(terms)
            if scale is None:
                where = int(np.flatnonzero(self.column == len(self.strings) + k)[0])
                raise QasError(
                    f"a gain in closed form needs a generator G with eigenvalues 0, s and -s (G^3 = s^2 G), such as a "
                    f"Pauli string or an excitation, got {self.names[where]!r}"
                )
            scales[k] = scale
        return scales

    def channels(self, noise: NoiseModel | None) -> Channels:
        """Noise of the inserted gates under a model; that of the last model is remembered.

        Raises:
            QasError: a generator that is no Pauli string on at most two qubits.
        """
        held = self.__dict__.get("_channels")
        if held is None or held[0] is not noise:
            if self.sums:
                raise QasError(
                    "the noise of an inserted gate is known for Pauli strings on one and two qubits, got a sum of "
                    f"{len(self.sums[0])} strings"
                )
            held = self.__dict__["_channels"] = (noise, channels_table(self.strings, max(self.n_qubits, 2), noise))
        return held[1]

    def costs(self, values: np.ndarray, noise: NoiseModel | None) -> np.ndarray:
        """Costs of strings, shape (…, strings), to those of generators; infinite where a device has no such gate."""
        values[..., self.channels(noise).missing] = np.inf
        return values[..., self.column]

    def slopes(self, values: np.ndarray) -> np.ndarray:
        """Slopes of strings and sums, shape (…, strings + sums), to those of generators, (…, generators)."""
        return values if self.plain else values[..., self.column] * self.factor

    def best(self, curves: Curves, sums: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Gains and best angles of generators, from energies of strings and of sums, (α, β, γ, δ) (see `_sums`).

        Args:
            floor: how large curves get by rounding alone.
        """
        gain, angle = curves.best(floor)
        if self.plain:
            return gain, angle
        if len(self.sums):
            more, phi = minima(sums, floor)
            gain, angle = np.concatenate([gain, more]), np.concatenate([angle, 2.0 * phi / self.scales])
        return gain[self.column], angle[self.column] / np.where(self.factor == 0.0, 1.0, self.factor)


def read_generators(n_qubits: int, generators: Sequence[Generator] | None) -> Generators:
    """Generators with the tables of the kernels; the last few lists are remembered.

    Args:
        generators: Pauli strings and Hamiltonians on `n_qubits`; None: `pauli_generators(n_qubits)`.

    Raises:
        QasError: something else, letters other than IXYZ, or another number of qubits.
    """
    if generators is None:
        return _read(n_qubits, pauli_generators(n_qubits))
    if isinstance(generators, (str, Hamiltonian)) or not isinstance(generators, Iterable):
        raise QasError(f"generators are a list of Pauli strings and Hamiltonians, got {generators!r}")
    return _read(n_qubits, tuple(generators))


def read_positions(n_gates: int, positions: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray | slice]:
    """Distinct positions in ascending order, int64, and for each one asked for where it stands among them.

    Raises:
        QasError: a position that is no whole number from 0 to `n_gates`.
    """
    if positions is None:
        return np.arange(n_gates + 1), slice(None)
    chosen = [whole_number("a position", k, 0, n_gates) for k in positions]
    return np.unique(np.array(chosen, dtype=np.int64), return_inverse=True)


@functools.lru_cache(maxsize=32)
def _read(n_qubits: int, generators: tuple[Generator, ...]) -> Generators:
    strings: dict[str, int] = {}
    sums: list[dict[str, float]] = []
    alone, column, factor = [], [], []
    for generator in generators:
        terms = _terms(n_qubits, generator)
        alone.append(len(terms) == 1)
        if alone[-1]:
            ((string, weight),) = terms.items()
            column.append(strings.setdefault(string, len(strings)))
            factor.append(weight)
        else:
            column.append(len(sums))
            factor.append(1.0)
            sums.append(terms)
    where = np.array(column, dtype=np.int64)
    where[~np.array(alone, dtype=bool)] += len(strings)
    plain = column == list(range(len(strings))) and all(weight == 1.0 for weight in factor)
    return Generators(
        n_qubits, generators, tuple(strings), tuple(sums), where, np.array(factor, dtype=np.float64), plain
    )


def _terms(n_qubits: int, generator: Generator) -> dict[str, float]:
    """Strings and coefficients; that of the identity only where it stands alone."""
    if not isinstance(generator, (str, Hamiltonian)):
        raise QasError(f"a generator is a Pauli string or a Hamiltonian, got {type(generator).__name__}")
    terms = generator.terms if isinstance(generator, Hamiltonian) else {generator: 1.0}
    for string in terms:
        if len(string) != n_qubits or not set(string) <= set("IXYZ"):
            raise QasError(f"generators are strings of {n_qubits} letters I, X, Y, Z, got {string!r}")
    if len(terms) > 1:
        terms.pop("I" * n_qubits, None)
    return terms


def _tables(strings: Sequence[str]) -> Strings:
    singles: dict[int, np.ndarray] = {}
    pairs: dict[tuple[int, int], np.ndarray] = {}
    wide: list[tuple[str, int]] = []
    for column, string in enumerate(strings):
        places = [(q, "IXYZ".index(letter)) for q, letter in enumerate(reversed(string)) if letter != "I"]
        if len(places) == 1:
            ((qubit, letter),) = places
            singles.setdefault(qubit, np.full(4, -1))[letter] = column
        elif len(places) == 2:
            (low, first), (high, second) = places
            pairs.setdefault((low, high), np.full(16, -1))[first + 4 * second] = column
        elif places:
            wide.append((string, column))
    return Strings(
        np.array(list(singles), dtype=np.int64),
        np.array(list(singles.values()), dtype=np.int64).reshape(-1, 4),
        np.array([low for low, _ in pairs], dtype=np.int64),
        np.array([high for _, high in pairs], dtype=np.int64),
        np.array(list(pairs.values()), dtype=np.int64).reshape(-1, 16),
        group_strings([string for string, _ in wide], [column for _, column in wide]),
    )


def group_strings(strings: Sequence[str], columns: Sequence[int]) -> Groups:
    """Strings as rows sorted by X-mask and parity of Y, for kernels that form the products of one mask once."""
    rows = []
    for string, place in zip(strings, columns, strict=True):
        letters = string[::-1]
        x_mask = sum(1 << q for q, letter in enumerate(letters) if letter in "XY")
        z_mask = sum(1 << q for q, letter in enumerate(letters) if letter in "YZ")
        number = sum("IXYZ".index(letter) << (2 * q) for q, letter in enumerate(letters))
        count = letters.count("Y")
        rows.append((x_mask, count & 1, z_mask, x_mask | z_mask, number, 1 - (count & 2), place))
    rows.sort()
    table = np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(-1, 7).T)
    x, odd_y, z, support, index, sign, column = table
    first = np.flatnonzero(np.diff(x, prepend=-1) | np.diff(odd_y, prepend=-1))
    start = np.append(first, len(rows)).astype(np.int64)
    return Groups(x[first], odd_y[first], start, z, support, index, sign.astype(np.float64), column)


DIAGONAL_BYTES = 1 << 26
"""A Hamiltonian keeps the diagonals of its X-masks up to this size."""


def term_groups(hamiltonian: Hamiltonian) -> Groups:
    """`group_strings` of all terms; the Hamiltonian carries them along."""
    held = hamiltonian.__dict__.get("_groups")
    if held is None:
        held = hamiltonian.__dict__["_groups"] = group_strings(hamiltonian.strings, range(len(hamiltonian)))
    return held


def group_diagonals(hamiltonian: Hamiltonian) -> np.ndarray:
    """Σ ± coefficient (-1)^{z·i} over the terms of each of `term_groups`, float64, shape (groups, 2**n).

    The Hamiltonian carries them along; where they would be too large there are none, shape (0, 2**n).
    """
    held = hamiltonian.__dict__.get("_group_diagonals")
    if held is None:
        groups, size = term_groups(hamiltonian), 1 << hamiltonian.n_qubits
        held = np.zeros((len(groups.x) if 8 * size * len(groups.x) <= DIAGONAL_BYTES else 0, size))
        if len(held):
            rows = np.repeat(np.arange(len(held)), np.diff(groups.start))
            held[rows, groups.z] = groups.sign * hamiltonian.coefficients[groups.column]
            walsh_hadamard(held)
        hamiltonian.__dict__["_group_diagonals"] = held
    return held


class Curves(NamedTuple):
    """Energies E(θ) = E(0) - fall (1 - cos θ) + slope sin θ of rotations appended to a circuit."""

    slope: np.ndarray  # float64 (strings,): E'(0)
    fall: np.ndarray  # float64 (strings,): (E(0) - E(π)) / 2

    def best(self, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(E(0) - min E, where the minimum lies), float64, shape (strings,) each; (0, 0) for curves within `floor`."""
        swing = np.hypot(self.fall, self.slope)
        # fall + swing loses all digits where fall is near -swing; there the product with swing - fall is used.
        rest = np.where(self.fall < 0.0, swing - self.fall, 1.0)
        gain = np.where(self.fall < 0.0, self.slope * (self.slope / rest), self.fall + swing)
        angle = upright(np.arctan2(-self.slope, -self.fall))
        return np.where(swing > floor, gain, 0.0), np.where(swing > floor, angle, 0.0)


# ---------------------------------------------------------------------- deletion
def wrapped(angles: np.ndarray) -> np.ndarray:
    """Angles modulo full turns, between -π and π."""
    return angles - 2 * math.pi * np.round(angles / (2 * math.pi))


def exact_hessian(gradient: Callable[[np.ndarray], np.ndarray], angles: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Second derivatives from central differences of exact gradients, float64, shape (n, n); error about 1e-8."""
    size = len(angles)
    hessian = np.empty((size, size))
    for i in range(size):
        shift = np.zeros(size)
        shift[i] = step
        hessian[i] = (gradient(angles + shift) - gradient(angles - shift)) / (2 * step)
    return (hessian + hessian.T) / 2


def inverse_diagonal(hessian: np.ndarray, floor: float = 1e-7) -> np.ndarray:
    """Diagonal of the inverse of a symmetric matrix; directions that are flat, or lead down, count as nearly flat.

    Args:
        floor: curvature of a flat direction, relative to the largest one.
    """
    curvature, directions = np.linalg.eigh(hessian)
    largest = float(np.abs(curvature).max(initial=0.0))
    return directions**2 @ (1.0 / np.maximum(curvature, max(floor * largest, 1e-300)))


def checked_inverse(inverse: np.ndarray, n_angles: int) -> np.ndarray | None:
    """Diagonal of a given inverse Hessian, shape (n,); None for the unit matrix, where nothing was learned.

    Raises:
        CircuitError: another shape, or a diagonal that is not positive and finite.
    """
    matrix = np.asarray(inverse, dtype=np.float64)
    if matrix.shape != (n_angles, n_angles):
        raise CircuitError(f"the inverse Hessian has shape ({n_angles}, {n_angles}), got {matrix.shape}")
    diagonal = matrix.diagonal()
    if not (np.isfinite(diagonal).all() and (diagonal > 0.0).all()):
        raise CircuitError("the diagonal of an inverse Hessian is positive and finite, got other values")
    return None if np.array_equal(matrix, np.eye(n_angles)) else diagonal
