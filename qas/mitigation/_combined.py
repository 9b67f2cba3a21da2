"""Energies at several strengths of the noise as one score with its gradient, in compiled code.

Each node has an entry point of its own. The score is not linear in their energies (it holds a standard error, and an
extrapolation may be exponential), so all states come first, then the score with its derivatives by every expectation
value, and then a reverse sweep at each node with these as the weights of its observable.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._entry import (
    ANGLES,
    BACKWARD,
    ENGINE,
    FORWARD,
    GRADIENT,
    MODE,
    N_ANGLES,
    SLOPES,
    STATE,
    STOP,
    Call,
    Entry,
    addresses,
    array_at,
)
from qas.simulators._lanes import call

# Columns of the table: sizes, then addresses.
N_NODES, N_STRINGS, N_GROUPS, N_ENTRIES, CALLS, FELL, ARRAYS = (ENGINE + k for k in range(7))
N_ARRAYS = 12
"""Arrays of `combine`, in the order of its arguments."""

REACH = 2.0
"""How many times the distance from the limit that the weakest noise leaves an exponential may lead to."""

# Columns of `nodes`.
FIT, STRAIGHT, SHARE = 0, 1, 2
# Places in `settings`.
LIMIT, BOUND, KAPPA, SHOTS, EXPONENTIAL = 0, 1, 2, 3, 4
# Places in `out`.
SCORE, MITIGATED, SIGMA, FALLEN = 0, 1, 2, 3
# Columns of `known`.
ENERGY, VARIANCE, SLOPE, MEANS = 0, 1, 2, 3


@compiled()
def combine(values, weights, energy, square, first, index, weight, share, nodes, settings, known, out, gradient):
    """The score, and with `gradient` its derivatives by all `values`.

    Where an exponential leads nowhere (values on both sides of the limit) or more than `REACH` times as far from the
    limit as what was measured, or any fit leads further than an energy can be, the straight line takes its place. An
    exponential has a pole where a strong noise takes the energy to the limit and a weak one does not, and a search
    would find it.

    Args:
        values: expectation values at each node, shape (nodes, strings).
        weights: receives the derivatives, shape (nodes, strings).
        energy, square, first, index, weight, share: of a `qas.mitigation.sampling.Measurement`.
        nodes: weight in the fit, weight in the straight line, and share of the shots of each node.
        settings: value at infinite noise, farthest that an energy can be from it, weight of the standard error,
            number of shots, and whether the fit is of logarithms.
        known: scratch, shape (nodes, 3 + groups).
        out: receives score, mitigated energy, its standard error, and 1 where the straight line took the place.
    """
    count, n_strings = values.shape
    n_groups = len(share)
    for k in range(count):
        mean = spread = 0.0
        for t in range(n_strings):
            mean += energy[t] * values[k, t]
            spread += square[t] * values[k, t]
        for g in range(n_groups):
            of_group = 0.0
            for e in range(first[g], first[g + 1]):
                of_group += weight[e] * values[k, index[e]]
            known[k, MEANS + g] = of_group
            spread -= of_group * of_group / share[g]
        known[k, ENERGY] = mean
        known[k, VARIANCE] = max(spread, 0.0) / (settings[SHOTS] * nodes[k, SHARE])
    limit = settings[LIMIT]
    side = 1.0 if known[0, ENERGY] > limit else -1.0
    logarithmic = settings[EXPONENTIAL] != 0.0
    value = 0.0
    for k in range(count):
        apart = side * (known[k, ENERGY] - limit)
        if logarithmic:
            value += nodes[k, FIT] * math.log(apart) if apart > 0.0 else math.inf
        else:
            value += nodes[k, FIT] * known[k, ENERGY]
    distance = math.exp(value) if logarithmic else abs(value - limit)
    farthest = settings[BOUND]
    if logarithmic:
        farthest = min(farthest, REACH * abs(known[0, ENERGY] - limit))
    fallen = not distance <= farthest
    if fallen:
        logarithmic, value = False, 0.0
        for k in range(count):
            value += nodes[k, STRAIGHT] * known[k, ENERGY]
    elif logarithmic:
        value = limit + side * distance
    variance = 0.0
    for k in range(count):
        slope = nodes[k, STRAIGHT if fallen else FIT]
        if logarithmic:
            slope *= side * distance / (known[k, ENERGY] - limit)
        known[k, SLOPE] = slope
        variance += slope * slope * known[k, VARIANCE]
    sigma = math.sqrt(variance)
    out[SCORE], out[MITIGATED], out[SIGMA] = value + settings[KAPPA] * sigma, value, sigma
    out[FALLEN] = 1.0 if fallen else 0.0
    if not gradient:
        return
    rate = settings[KAPPA] / sigma if sigma > 1e-14 * settings[BOUND] else 0.0
    for k in range(count):
        slope = by_energy = known[k, SLOPE]
        if logarithmic:
            # d slope_l / d energy_k: what a change of one energy does to the weights of all others.
            here = known[k, ENERGY] - limit
            for other in range(count):
                there = known[other, ENERGY] - limit
                bend = nodes[k, FIT] * nodes[other, FIT] - (nodes[k, FIT] if k == other else 0.0)
                bend *= side * distance / (here * there)
                by_energy += rate * known[other, SLOPE] * known[other, VARIANCE] * bend
        by_square = 0.5 * rate * slope * slope / (settings[SHOTS] * nodes[k, SHARE])
        for t in range(n_strings):
            weights[k, t] = by_energy * energy[t] + by_square * square[t]
        for g in range(n_groups):
            factor = -2.0 * by_square * known[k, MEANS + g] / share[g]
            for e in range(first[g], first[g + 1]):
                weights[k, index[e]] += factor * weight[e]


@Entry
def mitigated(where):
    """The entry point: the states at all nodes, the score, and a reverse sweep at each node."""
    table = array_at(where, ARRAYS + N_ARRAYS, np.int64)
    count, n_strings, n_groups, n_entries = table[N_NODES], table[N_STRINGS], table[N_GROUPS], table[N_ENTRIES]
    calls = array_at(table[CALLS], (count, 2), np.int64)
    gradient = table[MODE] == GRADIENT
    for k in range(count):
        inner = array_at(calls[k, 1], ENGINE, np.int64)
        inner[MODE], inner[STOP], inner[ANGLES] = FORWARD if gradient else STATE, table[STOP], table[ANGLES]
        if math.isnan(call(calls[k, 0], calls[k, 1])):
            return math.nan
    out = array_at(table[ARRAYS + 11], 4, np.float64)
    combine(
        array_at(table[ARRAYS], (count, n_strings), np.float64),
        array_at(table[ARRAYS + 1], (count, n_strings), np.float64),
        array_at(table[ARRAYS + 2], n_strings, np.float64),
        array_at(table[ARRAYS + 3], n_strings, np.float64),
        array_at(table[ARRAYS + 4], n_groups + 1, np.int64),
        array_at(table[ARRAYS + 5], n_entries, np.int64),
        array_at(table[ARRAYS + 6], n_entries, np.float64),
        array_at(table[ARRAYS + 7], n_groups, np.float64),
        array_at(table[ARRAYS + 8], (count, 3), np.float64),
        array_at(table[ARRAYS + 9], 5, np.float64),
        array_at(table[ARRAYS + 10], (count, MEANS + n_groups), np.float64),
        out,
        gradient,
    )
    if out[FALLEN] > 0.0:
        array_at(table[FELL], 1, np.int64)[0] = 1
    if gradient:
        n_angles = table[N_ANGLES]
        slopes = array_at(table[SLOPES], n_angles, np.float64)
        for i in range(n_angles):
            slopes[i] = 0.0
        for k in range(count):
            inner = array_at(calls[k, 1], ENGINE, np.int64)
            inner[MODE] = BACKWARD
            if math.isnan(call(calls[k, 0], calls[k, 1])):
                return math.nan
            found = array_at(inner[SLOPES], n_angles, np.float64)
            for i in range(n_angles):
                slopes[i] += found[i]
    return out[SCORE]


class Combined(Call):
    """The call of a score, from those of its nodes.

    Args:
        inner: call of each node; it writes its expectation values to a row of `arrays[0]` and reads the weights of its
            observable from a row of `arrays[1]`.
        arrays: arguments of `combine`, all but the last.
        fell: int64, shape (1,): set to 1 where the straight line took a fit's place.
    """

    def __init__(self, inner: list[Call], arrays: tuple[Any, ...], fell: np.ndarray) -> None:
        calls = np.array([[each.entry.address, each.address] for each in inner], dtype=np.int64)
        sizes = [len(inner), arrays[0].shape[1], len(arrays[7]), len(arrays[5])]
        numbers = [*sizes, *addresses(calls, fell), *addresses(*arrays)]
        super().__init__(mitigated, len(inner[0].angles), numbers, (inner, calls, arrays, fell))
