"""Circuits as vectors of counts: which gates stand where, and which follow each other on a wire."""

from __future__ import annotations

import numpy as np

from qas.encoders.pools.spaces import PADDING, CircuitSpace


def roles(space: CircuitSpace) -> tuple[np.ndarray, np.ndarray, int]:
    """What a placed gate is on its first and on its last qubit: kinds, with control and target told apart.

    Returns:
        role on the first qubit, role on the last one, int64, shape (n_tokens,) each, and the number of roles.
    """
    first = np.zeros(space.n_tokens, dtype=np.int64)
    last = np.zeros(space.n_tokens, dtype=np.int64)
    count = 0
    for kind in range(len(space.gates)):
        tokens = space.kind == kind
        two = bool((space.first != space.last)[tokens].any())
        directed = two and not space.symmetric[tokens].any()
        first[tokens], last[tokens] = count, count + (1 if directed else 0)
        count += 2 if directed else 1
    return first, last, count


def fingerprints(rows: np.ndarray, space: CircuitSpace) -> np.ndarray:
    """Counts of every placed gate, then for each qubit counts of every pair of roles that follow each other on it.

    The start and the end of a wire count as roles too. This is the Weisfeiler-Lehman feature map of depth one on the
    wires, with wires kept apart.

    Args:
        rows: int16, shape (size, max_gates), in any order that keeps the circuit.
        space: their space.

    Returns:
        uint8 (uint16 where a row holds more than 255 gates), shape (size, n_tokens + n_qubits (roles + 1)²).

    Raises:
        CircuitError: rows that are not of this space.
    """
    rows = space.check_rows(rows)
    size, n = len(rows), space.n_qubits
    first, last, count = roles(space)
    width = count + 1  # one more for the ends of a wire
    dtype = np.uint8 if rows.shape[1] <= 255 else np.uint16
    pairs = np.zeros((size, n, width, width), dtype=dtype)
    placed = np.zeros((size, space.n_tokens), dtype=dtype)
    everyone = np.arange(size)
    before = np.full((size, n), count)
    for position in range(rows.shape[1]):
        used = rows[:, position] != PADDING
        index, token = everyone[used], rows[used, position]
        placed[index, token] += 1
        two = space.first[token] != space.last[token]
        for qubit, role, which in ((space.first, first, slice(None)), (space.last, last, two)):
            i, q, now = index[which], qubit[token[which]], role[token[which]]
            pairs[i, q, before[i, q], now] += 1
            before[i, q] = now
    for q in range(n):
        pairs[everyone, q, before[:, q], count] += 1
    return np.concatenate([placed, pairs.reshape(size, n * width * width)], axis=1)
