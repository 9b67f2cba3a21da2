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
from typing import NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian
from qas.simulators._insertion_kernels import Groups, Strings

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


class Generators(NamedTuple):
    """Generators as sums of Pauli strings: G_j = Σ coefficient[t] strings[t], t from start[j] to start[j + 1]."""

    n_qubits: int
    names: tuple[Generator, ...]
    strings: tuple[str, ...]
    """distinct"""
    term: np.ndarray  # int64 (terms,): index into `strings`
    coefficient: np.ndarray  # float64 (terms,)
    start: np.ndarray  # int64 (generators + 1,)
    plain: bool
    """each generator is one string with coefficient 1, and `term` counts up"""
    tables: Strings

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Values of strings, shape (…, strings), to values of generators, shape (…, generators)."""
        if self.plain:
            return values
        if not len(self.names):
            return np.zeros((*values.shape[:-1], 0))
        return np.add.reduceat(values[..., self.term] * self.coefficient, self.start[:-1], axis=-1)

    def signs(self) -> np.ndarray:
        """1 or -1 for each generator: what its one Pauli string is multiplied with.

        Raises:
            QasError: a generator that is no Pauli string up to its sign, so that its square is not 1.
        """
        if self.plain:
            return np.ones(len(self.names))
        for name, first, last in zip(self.names, self.start[:-1], self.start[1:], strict=True):
            if last - first != 1 or abs(self.coefficient[first]) != 1.0:
                raise QasError(
                    f"a gain in closed form needs a generator whose square is 1, one Pauli string with coefficient 1 "
                    f"or -1, got {name!r}"
                )
        return self.coefficient


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


@functools.lru_cache(maxsize=32)
def _read(n_qubits: int, generators: tuple[Generator, ...]) -> Generators:
    index: dict[str, int] = {}
    term: list[int] = []
    coefficient: list[float] = []
    start = [0]
    for generator in generators:
        if not isinstance(generator, (str, Hamiltonian)):
            raise QasError(f"a generator is a Pauli string or a Hamiltonian, got {type(generator).__name__}")
        terms = generator.terms if isinstance(generator, Hamiltonian) else {generator: 1.0}
        for string, weight in terms.items():
            if len(string) != n_qubits or not set(string) <= set("IXYZ"):
                raise QasError(f"generators are strings of {n_qubits} letters I, X, Y, Z, got {string!r}")
            term.append(index.setdefault(string, len(index)))
            coefficient.append(weight)
        start.append(len(term))
    strings = tuple(index)
    plain = term == list(range(len(generators))) and all(c == 1.0 for c in coefficient)
    return Generators(
        n_qubits,
        generators,
        strings,
        np.array(term, dtype=np.int64),
        np.array(coefficient, dtype=np.float64),
        np.array(start, dtype=np.int64),
        plain,
        _tables(strings),
    )


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


def term_groups(hamiltonian: Hamiltonian) -> Groups:
    """`group_strings` of all terms; the Hamiltonian carries them along."""
    held = hamiltonian.__dict__.get("_groups")
    if held is None:
        held = hamiltonian.__dict__["_groups"] = group_strings(hamiltonian.strings, range(len(hamiltonian)))
    return held


class Curves(NamedTuple):
    """Energies E(θ) = E(0) - fall (1 - cos θ) + slope sin θ of rotations appended to a circuit."""

    slope: np.ndarray  # float64 (strings,): E'(0)
    fall: np.ndarray  # float64 (strings,): (E(0) - E(π)) / 2

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """(E(0) - min E, where the minimum lies), float64, shape (strings,) each."""
        swing = np.hypot(self.fall, self.slope)
        # fall + swing loses all digits where fall is near -swing; there the product with swing - fall is used.
        rest = np.where(self.fall < 0.0, swing - self.fall, 1.0)
        gain = np.where(self.fall < 0.0, self.slope * (self.slope / rest), self.fall + swing)
        angle = np.where(swing > 0.0, np.arctan2(-self.slope, -self.fall), 0.0)
        return gain, angle


# ---------------------------------------------------------------------- engines without kernels
_TO_Z = {"X": ("h",), "Y": ("sdg", "h"), "Z": ()}
_FROM_Z = {"X": ("h",), "Y": ("h", "s"), "Z": ()}


def rotation_gates(string: str, angle: float) -> list[Gate]:
    """exp(-iθP/2) of a Pauli string on one or two qubits, as gates: rz or rzz between changes of basis.

    Raises:
        QasError: a string on more than two qubits, or on none.
    """
    places = [(q, letter) for q, letter in enumerate(reversed(string)) if letter != "I"]
    if not 1 <= len(places) <= 2:
        raise QasError(f"this engine inserts rotations about Pauli strings on one or two qubits, got {string!r}")
    before = [Gate(name, (q,)) for q, letter in places for name in _TO_Z[letter]]
    after = [Gate(name, (q,)) for q, letter in places for name in _FROM_Z[letter]]
    qubits = tuple(q for q, _ in places)
    return [*before, Gate("rz" if len(places) == 1 else "rzz", qubits, (angle,)), *after]


def inserted(circuit: Circuit, position: int, string: str, angle: float) -> Circuit:
    """The circuit with exp(-iθP/2) before the gate at `position`."""
    gates = circuit.gates
    return Circuit(circuit.n_qubits, (*gates[:position], *rotation_gates(string, angle), *gates[position:]))


def shifted_curves(
    energy: Callable[[Circuit], float], circuit: Circuit, position: int, strings: Sequence[str]
) -> Curves:
    """Curves of really inserted rotations, from their energies at ±π/2 (parameter shift) and the circuit's own."""
    slope, fall = np.zeros(len(strings)), np.zeros(len(strings))
    here = energy(circuit)
    for column, string in enumerate(strings):
        if set(string) != {"I"}:
            up, down = (energy(inserted(circuit, position, string, sign * math.pi / 2)) for sign in (1, -1))
            slope[column], fall[column] = (up - down) / 2, here - (up + down) / 2
    return Curves(slope, fall)


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
