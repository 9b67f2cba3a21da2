"""Functional profiles: what a circuit does to |0…0> at random angles, without any task."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from numba import njit

from qas.encoders.pools.spaces import CircuitSpace
from qas.gates import PAULI_MATRICES, gate_spec

_ANGLES = 8  # points of the mean over an angle; exact for products of up to seven sines and cosines


def profiles(
    rows: np.ndarray, space: CircuitSpace, rng: np.random.Generator, walks: int = 8, *, common: bool = False
) -> np.ndarray:
    """What circuits do to |0…0> at random angles: mean and mean square of every Pauli expectation on one or two qubits.

    Angles are independent and uniform in [0, 2π). No task enters; for a Hamiltonian of such Paulis these tell where its
    energy lies and how far it can move.

    Every Pauli walks backwards through the circuit: a gate turns P into one Q of those in U† P U, with the mean square
    of its coefficient as probability, and the weight collects the mean over that probability. Means are exact for
    rotations and Clifford gates (one coefficient is ±1 or the mean is 0); mean squares are estimates from `walks`.

    Args:
        rows: rows of the space, shape (B, max_gates).
        walks: walks of each Pauli.
        common: the same random numbers for every circuit, so that equal circuits have equal profiles.

    Returns:
        float32, shape (B, 2 P): P means, then P mean squares, P = 3 n + 9 n (n - 1) / 2, ordered as `local_paulis`.
    """
    paulis = local_paulis(space.n_qubits)
    tables = [_walk_table(name) for name in space.gates]
    to = np.stack([table for table, _ in tables])
    weight = np.stack([factor for _, factor in tables])
    out = np.zeros((len(rows), 2 * len(paulis)), dtype=np.float32)
    seeds = rng.integers(1, 2**63, size=1 if common else len(rows), dtype=np.uint64)
    seeds = np.broadcast_to(seeds, len(rows)).copy()
    places = np.stack([space.kind, space.first, space.last], axis=1)
    _walk(np.ascontiguousarray(rows, dtype=np.int16), places, paulis, to, weight, seeds, walks, out)
    return out


def local_paulis(n: int) -> np.ndarray:
    """Paulis on one qubit, then on two, as letters 0 to 3 for I, X, Y, Z on every qubit; int64, shape (P, n)."""
    found = [[(q, a)] for q in range(n) for a in (1, 2, 3)]
    found += [[(p, a), (q, b)] for p in range(n) for q in range(p + 1, n) for a in (1, 2, 3) for b in (1, 2, 3)]
    letters = np.zeros((len(found), n), dtype=np.int64)
    for row, support in zip(letters, found, strict=True):
        for qubit, letter in support:
            row[qubit] = letter
    return letters


@functools.cache
def _walk_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative probabilities and weights of P -> Q, both of shape (16, 16); codes 4 * last + first, I X Y Z."""
    spec = gate_spec(name)
    paulis = [PAULI_MATRICES[letter] for letter in "IXYZ"]
    if spec.n_qubits == 2:
        paulis = [np.kron(last, first) for last in paulis for first in paulis]
    grid = np.arange(_ANGLES) * (2.0 * math.pi / _ANGLES)
    mean = np.zeros((len(paulis), len(paulis)))
    square = np.zeros_like(mean)
    count = 0
    for angles in itertools.product(grid.tolist(), repeat=spec.n_angles):
        unitary = spec.matrix(*angles)
        turned = np.stack([unitary.conj().T @ p @ unitary for p in paulis])
        values = np.einsum("pij,qji->pq", turned, np.stack(paulis)).real / len(unitary)
        mean, square, count = mean + values, square + values**2, count + 1
    mean, square = mean / count, square / count
    cumulative, weight = np.ones((16, 16)), np.zeros((16, 16))
    k = len(paulis)
    cumulative[:k, :k] = np.cumsum(square, axis=1)
    cumulative[:k, k - 1 :] = 1.0
    cumulative[cumulative > 1.0 - 1e-9] = 1.0
    weight[:k, :k] = np.where(square > 1e-9, mean / np.maximum(square, 1e-9), 0.0)
    weight[np.abs(weight) < 1e-9] = 0.0
    return cumulative, weight


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(rows, places, paulis, to, weight, seeds, walks, out):  # type: ignore[no-untyped-def]
    n_paulis, n = paulis.shape
    letters = np.zeros(n, dtype=np.int64)
    for b in range(rows.shape[0]):
        state = seeds[b]
        gates = 0
        while gates < rows.shape[1] and rows[b, gates] >= 0:
            gates += 1
        for p in range(n_paulis):
            first_sum, second_sum = 0.0, 0.0
            for _ in range(walks):
                for q in range(n):
                    letters[q] = paulis[p, q]
                factor = 1.0
                for g in range(gates - 1, -1, -1):
                    kind, first, last = places[rows[b, g], 0], places[rows[b, g], 1], places[rows[b, g], 2]
                    single = first == last
                    code = letters[first] if single else 4 * letters[last] + letters[first]
                    if code == 0:
                        continue
                    state ^= state << np.uint64(13)
                    state ^= state >> np.uint64(7)
                    state ^= state << np.uint64(17)
                    draw = float(state >> np.uint64(11)) * 2.0**-53
                    new = 0
                    while to[kind, code, new] <= draw:
                        new += 1
                    factor *= weight[kind, code, new]
                    letters[first] = new & 3
                    if not single:
                        letters[last] = new >> 2
                ends = True
                for q in range(n):
                    if letters[q] == 1 or letters[q] == 2:
                        ends = False
                if ends:
                    first_sum += factor
                    second_sum += 1.0
            out[b, p] = first_sum / walks
            out[b, n_paulis + p] = second_sum / walks
