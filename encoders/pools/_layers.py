"""Compiled: layers of the gates of many rows, an import that listing names can do without."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def layers_of(rows, first, last, n_qubits):  # type: ignore[no-untyped-def]
    """`CircuitSpace.layers` of checked rows."""
    layers = np.full(rows.shape, -1, dtype=np.int16)
    free = np.empty(n_qubits, dtype=np.int16)
    for k in range(len(rows)):
        free[:] = 0
        for position in range(rows.shape[1]):
            token = rows[k, position]
            if token < 0:
                break
            one, other = first[token], last[token]
            layers[k, position] = max(free[one], free[other])
            free[one] = free[other] = layers[k, position] + 1
    return layers
