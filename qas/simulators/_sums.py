"""Sums of Pauli strings as generators: their squares and cubes, their nonzero entries, energies along their angles.

With G³ = s²G, as every excitation generator has, exp(-iφG/s) = 1 - i sin φ G/s + (cos φ - 1) G²/s², and the energy is
E(φ) = E(0) + α sin φ + β (cos φ - 1) + γ sin φ (cos φ - 1) + δ (cos φ - 1)², a trigonometric polynomial of degree 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qas.gf2 import reduced_basis
from qas.hamiltonians import string_masks, walsh_hadamard

SIGN = 62
"""Bit of an entry's index that is set where the entry's sign is turned."""


# ---------------------------------------------------------------------- products
class _Operator(NamedTuple):
    """A sum of Pauli strings, by their masks."""

    x: np.ndarray  # int64 (terms,)
    z: np.ndarray  # int64 (terms,)
    weight: np.ndarray  # complex128 (terms,)

    def times(self, other: _Operator) -> _Operator:
        x, z = self.x[:, None] ^ other.x, self.z[:, None] ^ other.z
        # P is i^|x & z| X^x Z^z; letters of Z that pass letters of X turn the sign.
        letters = np.bitwise_count(self.x & self.z).astype(np.int64)[:, None] + np.bitwise_count(other.x & other.z)
        power = letters - np.bitwise_count(x & z) + 2 * np.bitwise_count(self.z[:, None] & other.x)
        return _collected(x.ravel(), z.ravel(), (self.weight[:, None] * other.weight * 1j ** (power % 4)).ravel())


def _collected(x: np.ndarray, z: np.ndarray, weight: np.ndarray) -> _Operator:
    pairs, where = np.unique(np.stack([x, z], axis=1), axis=0, return_inverse=True)
    total = np.zeros(len(pairs), dtype=np.complex128)
    np.add.at(total, where.ravel(), weight)
    return _Operator(pairs[:, 0], pairs[:, 1], total)


def scale_of(terms: Mapping[str, float]) -> float | None:
    """s > 0 such that G³ = s²G, so that the eigenvalues of G are 0, s and -s; None if there is none."""
    masks = np.array([string_masks(string) for string in terms], dtype=np.int64)
    weight = np.array(list(terms.values()), dtype=np.complex128)
    operator = _collected(masks[:, 0], masks[:, 1], weight)
    cube = operator.times(operator).times(operator)
    # ⟨G, G³⟩ = s² ⟨G, G⟩, as vectors of coefficients.
    cubed = dict(zip(zip(cube.x.tolist(), cube.z.tolist(), strict=True), cube.weight.real.tolist(), strict=True))
    pairs = zip(operator.x.tolist(), operator.z.tolist(), strict=True)
    overlap = sum(cubed.get(pair, 0.0) * w for pair, w in zip(pairs, operator.weight.real.tolist(), strict=True))
    square = overlap / float((np.abs(weight) ** 2).sum())
    rest = _collected(
        np.concatenate([cube.x, operator.x]),
        np.concatenate([cube.z, operator.z]),
        np.concatenate([cube.weight, -square * operator.weight]),
    )
    if square <= 0.0 or np.abs(rest.weight).max() > 1e-12 * float(np.abs(weight).sum()) ** 3:
        return None
    return math.sqrt(square)


# ---------------------------------------------------------------------- nonzero entries
class Sums(NamedTuple):
    """Hermitian sums of Pauli strings by their nonzero entries, ⟨i|G|i ^ x⟩ = ± value.

    Strings with one X-mask form a *frame*. Their signs depend on a few parities of i, and in most patterns of these
    parities they cancel; each pattern that is left is a *piece*. The indices of a piece are origin ^ low[k] ^ high[l]
    for all k, l, with bit `SIGN` set where the sign is turned.
    """

    frames: np.ndarray  # int64 (sums + 1,): first frame of each
    support: np.ndarray  # int64 (sums,): bit mask of the qubits acted on
    x: np.ndarray  # int64 (frames,)
    checks: np.ndarray  # int64 (frames, most checks): masks of the parities, 0 beyond
    low: np.ndarray  # int64 (frames, most)
    high: np.ndarray  # int64 (frames, most)
    low_bits: np.ndarray  # int64 (frames,): number of entries of `low`, as a power of 2
    high_bits: np.ndarray  # int64 (frames,)
    pieces: np.ndarray  # int64 (frames + 1,): first piece of each
    origin: np.ndarray  # int64 (pieces,)
    pattern: np.ndarray  # int64 (pieces,): bit j is the parity checks[j]
    real: np.ndarray  # float64 (pieces,)
    imag: np.ndarray  # float64 (pieces,)


class _Frame(NamedTuple):
    checks: list[int]
    low: np.ndarray
    high: np.ndarray
    pieces: list[tuple[int, int, complex]]  # origin, pattern, value


def sums_table(n_qubits: int, sums: Sequence[Mapping[str, float]]) -> Sums:
    """Tables of sums of strings on `n_qubits`."""
    frames: list[_Frame] = []
    xs, first, support = [], [0], []
    for terms in sums:
        groups: dict[int, list[tuple[int, complex]]] = {}
        touched = 0
        for string, coefficient in terms.items():
            x, z = string_masks(string)
            touched |= x | z
            groups.setdefault(x, []).append((z, coefficient * (-1j) ** ((x & z).bit_count() % 4)))
        for x, rows in groups.items():
            xs.append(x)
            frames.append(_frame(n_qubits, [z for z, _ in rows], np.array([w for _, w in rows])))
        first.append(len(frames))
        support.append(touched)
    pieces = [piece for frame in frames for piece in frame.pieces]
    value = np.array([value for _, _, value in pieces], dtype=np.complex128)
    return Sums(
        np.array(first, dtype=np.int64),
        np.array(support, dtype=np.int64),
        np.array(xs, dtype=np.int64),
        _padded([np.array(frame.checks, dtype=np.int64) for frame in frames]),
        _padded([frame.low for frame in frames]),
        _padded([frame.high for frame in frames]),
        np.array([len(frame.low).bit_length() - 1 for frame in frames], dtype=np.int64),
        np.array([len(frame.high).bit_length() - 1 for frame in frames], dtype=np.int64),
        np.cumsum([0, *(len(frame.pieces) for frame in frames)], dtype=np.int64),
        np.array([origin for origin, _, _ in pieces], dtype=np.int64),
        np.array([pattern for _, pattern, _ in pieces], dtype=np.int64),
        value.real.copy(),
        value.imag.copy(),
    )


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    table = np.zeros((len(rows), max((len(row) for row in rows), default=0)), dtype=np.int64)
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    return table


def _frame(n_qubits: int, zs: list[int], weights: np.ndarray) -> _Frame:
    """Entries of Σ weight (-1)^{z·i} by the parities of i that the strings differ in."""
    checks = reduced_basis([z ^ zs[0] for z in zs])
    tops = [check.bit_length() - 1 for check in checks]
    # In reduced form the highest bit of each check is in no other one: it says whether the check takes part in z.
    parts = np.array([[((z ^ zs[0]) >> top) & 1 for top in tops] for z in zs], dtype=np.int64).reshape(len(zs), -1)
    values = np.zeros(1 << len(checks), dtype=np.complex128)
    for part, weight in zip(parts, weights, strict=True):
        values[sum(int(bit) << j for j, bit in enumerate(part))] += weight
    walsh_hadamard(values)

    def signed(index: int) -> int:
        return index | ((index & zs[0]).bit_count() & 1) << SIGN

    free = [q for q in range(n_qubits) if q not in tops]
    basis = []
    for q in free:
        ties = sum(1 << top for check, top in zip(checks, tops, strict=True) if (check >> q) & 1)
        basis.append(signed((1 << q) | ties))
    half = len(basis) // 2
    pieces = []
    for pattern in np.flatnonzero(np.abs(values) > 1e-14 * np.abs(weights).sum()).tolist():
        origin = sum(1 << top for j, top in enumerate(tops) if (pattern >> j) & 1)
        pieces.append((signed(origin), pattern, complex(values[pattern])))
    return _Frame(checks, _span(basis[:half]), _span(basis[half:]), pieces)


def _span(basis: list[int]) -> np.ndarray:
    found = np.zeros(1, dtype=np.int64)
    for vector in basis:
        found = np.concatenate([found, found ^ vector])
    return found


class Cosets(NamedTuple):
    """What one sum can turn a string Q into: Q times the strings of a group, for kernels on Pauli vectors."""

    first: np.ndarray  # int64 (sums + 1,): first string of each
    string: np.ndarray  # int64 (strings,): in base 4
    weight: np.ndarray  # float64 (strings,)
    place: np.ndarray  # int64 (strings,): where the string stands in its group
    start: np.ndarray  # int64 (sums + 1,): first element of each group
    group: np.ndarray  # int64 (elements,): in base 4; element i ^ j is the product of elements i and j up to a phase


def base4(string: str) -> int:
    """A string in base 4, digit q the letter of qubit q in the order I X Y Z."""
    return sum("IXYZ".index(letter) << (2 * q) for q, letter in enumerate(reversed(string)))


def cosets_table(sums: Sequence[Mapping[str, float]]) -> Cosets:
    """Tables of sums of strings for `Cosets`."""
    strings, weights, places, groups = [], [], [], []
    first, start = [0], [0]
    for terms in sums:
        numbers = [base4(string) for string in terms]
        basis = reduced_basis(numbers)
        tops = [vector.bit_length() - 1 for vector in basis]
        strings += numbers
        weights += list(terms.values())
        places += [sum(((number >> top) & 1) << j for j, top in enumerate(tops)) for number in numbers]
        groups.append(_span(basis))
        first.append(len(strings))
        start.append(start[-1] + len(groups[-1]))
    return Cosets(
        np.array(first, dtype=np.int64),
        np.array(strings, dtype=np.int64),
        np.array(weights, dtype=np.float64),
        np.array(places, dtype=np.int64),
        np.array(start, dtype=np.int64),
        np.concatenate([*groups, np.zeros(0, dtype=np.int64)]),
    )


# ---------------------------------------------------------------------- minima
def from_derivatives(derivatives: np.ndarray) -> np.ndarray:
    """(α, β, γ, δ) from E', E'', E''', E'''' by φ at 0, shape (sums, 4) both."""
    first, second, third, fourth = derivatives.T
    return np.stack([first, -second, -(third + first) / 3, (fourth + second) / 6], axis=1)


def _rises(curves: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """E(φ) - E(0), without a loss of digits near 0; curves shape (4, …)."""
    s, c = np.sin(phi), -2.0 * np.sin(phi / 2) ** 2
    alpha, beta, gamma, delta = curves
    return s * (alpha + gamma * c) + c * (beta + delta * c)


def _newton(curves: np.ndarray, phi: np.ndarray) -> np.ndarray:
    s, c = np.sin(phi), -2.0 * np.sin(phi / 2) ** 2
    alpha, beta, gamma, delta = curves
    slope = alpha * (1 + c) - beta * s + gamma * ((1 + c) * c - s * s) - 2 * delta * c * s
    bend = -alpha * s - beta * (1 + c) - gamma * s * (4 * c + 3) - 2 * delta * ((1 + c) * c - s * s)
    return np.where(bend > 0.0, -slope / np.where(bend > 0.0, bend, 1.0), 0.0).clip(-0.1, 0.1)


def upright(angles: np.ndarray) -> np.ndarray:
    """Angles between -π and π, those at -π but for rounding as π: half a turn has one name."""
    return np.where(angles < 1e-9 - math.pi, np.minimum(angles + 2 * math.pi, math.pi), angles)


def _nearest(phi: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """Of equal minima the one with the smallest angle, of two such angles the positive one; both shape (roots, sums).

    Without a rule rounding would choose, and another engine's rounding another one.
    """
    equal = rises <= rises.min(axis=0) + 1e-13
    return np.where(equal, np.abs(phi) - 1e-6 * (phi > 0.0), np.inf).argmin(axis=0)


def minima(curves: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(E(0) - min E, φ of the minimum between -π and π), float64, shape (sums,) each, from (α, β, γ, δ).

    Curves no larger than `floor` are rounding: no gain, at φ = 0.

    E' = 0 is a quartic in tan of half the angle, counted from a point where E' is large, so that no root is lost at
    infinity; its roots are the eigenvalues of its companion matrix, and the best one is polished.
    """
    size = np.abs(curves).max(axis=1, initial=0.0)
    size = np.where(size > floor, size, 0.0)
    curves = np.where(size > 0.0, curves.T, 0.0).T
    curves = (curves / np.where(size > 0.0, size, 1.0)[:, None]).T
    alpha, beta, gamma, delta = curves
    b, c, d, e = beta - 2 * delta, alpha - gamma, delta / 2, gamma / 2
    grid = np.arange(8)[:, None] * (math.pi / 4)
    slopes = c * np.cos(grid) - b * np.sin(grid) - 2 * d * np.sin(2 * grid) + 2 * e * np.cos(2 * grid)
    origin = grid[np.abs(slopes).argmax(axis=0), 0] + math.pi
    cos, sin = np.cos(origin), np.sin(origin)
    b, c = b * cos + c * sin, c * cos - b * sin
    cos, sin = np.cos(2 * origin), np.sin(2 * origin)
    d, e = d * cos + e * sin, e * cos - d * sin
    leading = 2 * e - c
    companion = np.zeros((len(size), 4, 4))
    companion[:, 1:, :3] = np.eye(3)
    quartic = np.stack([c + 2 * e, -2 * b - 8 * d, -12 * e, 8 * d - 2 * b])
    companion[:, :, 3] = -(quartic / np.where(leading != 0.0, leading, 1.0)).T
    roots = np.linalg.eigvals(companion).real.T
    phi = np.concatenate([2 * np.arctan(roots) + origin, np.zeros((1, len(size)))])
    phi -= 2 * math.pi * np.round(phi / (2 * math.pi))
    phi = upright(phi)
    best = phi[_nearest(phi, _rises(curves[:, None], phi)), np.arange(len(size))]
    for _ in range(3):
        moved = best + _newton(curves, best)
        best = np.where(_rises(curves, moved) <= _rises(curves, best), moved, best)
    rise = _rises(curves, best)
    return np.where(rise < 0.0, -size * rise, 0.0), upright(best)
