"""An entry point in front of another: angles that are sums of others, and the gradient back through them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np

from qas.decomposition import Lowering
from qas.simulators._entry import (
    ANGLES,
    ENGINE,
    GRADIENT,
    MODE,
    N_ANGLES,
    SLOPES,
    STOP,
    Call,
    Entry,
    addresses,
    array_at,
)
from qas.simulators._lanes import call

INNER, ROWS, COLUMNS, WEIGHTS, OFFSETS, N_TERMS = ENGINE, ENGINE + 2, ENGINE + 3, ENGINE + 4, ENGINE + 5, ENGINE + 6
"""Columns of the table: entry point and table of what is in front of, the arrays of a `Lowering`, their length."""


@Entry
def tied(where):
    """The entry point: sets the angles of the inner table, calls it, and gathers its slopes."""
    table = array_at(where, N_TERMS + 1, np.int64)
    inner = array_at(table[INNER + 1], ENGINE, np.int64)
    n_terms, n_inner = table[N_TERMS], inner[N_ANGLES]
    rows, columns = array_at(table[ROWS], n_terms, np.int64), array_at(table[COLUMNS], n_terms, np.int64)
    weights, offsets = array_at(table[WEIGHTS], n_terms, np.float64), array_at(table[OFFSETS], n_inner, np.float64)
    angles, turned = array_at(table[ANGLES], table[N_ANGLES], np.float64), array_at(inner[ANGLES], n_inner, np.float64)
    for k in range(n_inner):
        turned[k] = offsets[k]
    for t in range(n_terms):
        turned[rows[t]] += weights[t] * angles[columns[t]]
    inner[MODE], inner[STOP] = table[MODE], table[STOP]
    energy = call(table[INNER], table[INNER + 1])
    if table[MODE] == GRADIENT:
        slopes, found = array_at(table[SLOPES], len(angles), np.float64), array_at(inner[SLOPES], n_inner, np.float64)
        for k in range(len(angles)):
            slopes[k] = 0.0
        for t in range(n_terms):
            slopes[columns[t]] += weights[t] * found[rows[t]]
    return energy


class Tied(Call):
    """The call of a circuit with excitations, from that of its primitive gates; it finds energies and gradients."""

    def __init__(self, lowering: Lowering, inner: Call) -> None:
        arrays = lowering.rows, lowering.columns, lowering.weights, lowering.offsets
        numbers = [inner.entry.address, inner.address, *addresses(*arrays), len(lowering.rows)]
        super().__init__(tied, lowering.n_angles, numbers, (inner, arrays))
        self.inner, self.helped = inner, inner.helped

    def together(self) -> AbstractContextManager[None]:
        return self.inner.together()
