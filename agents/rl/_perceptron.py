"""Compiled kernels of deep Q-learning with a multilayer perceptron on bits: action values, and a whole update.

Between two steps of an environment stand a few million products. A framework takes milliseconds for them, nearly all of
it on its own books; see `qas.agents.rl.learners`, which also has the slow twin.

All parameters lie in one float32 vector: a row of the first layer for each bit and for none, a row for each number, the
bias; then for each further layer its weights, shape (inputs, outputs), and its bias. Widths are filled up to a multiple
of `LANES`, batches to one of `ROWS`. `sizes`: bits, numbers, and the width of each layer.
"""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

import math

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._lanes import at, load8, plus, pointer, read, splat8, store, times_plus

LANES, ROWS = 16, 4
_HALF = 8
LEAK = np.float32(0.01)
"""Slope of the rectifiers below 0."""
BETA_1, BETA_2, EPSILON = 0.9, 0.999, np.float32(1e-8)
_KEEP_1, _KEEP_2, _NEW_1, _NEW_2 = (np.float32(x) for x in (BETA_1, BETA_2, 1.0 - BETA_1, 1.0 - BETA_2))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@compiled(inline=True)
def _add_row(target, row, width):
    for j in range(0, width, _HALF):
        store(target, j, plus(load8(target, j), load8(row, j)))


@compiled(inline=True)
def _add_multiple(target, factor, row, width):
    factors = splat8(factor)
    for j in range(0, width, _HALF):
        store(target, j, times_plus(factors, load8(row, j), load8(target, j)))


@compiled()
def _multiply(a, b, target, rows, inner, columns):
    """target (rows, columns) = a (rows, inner) · b (inner, columns), four rows and two registers at a time."""
    for j in range(0, columns, LANES):
        for i in range(0, rows, ROWS):
            a0, a1, a2, a3 = i * inner, (i + 1) * inner, (i + 2) * inner, (i + 3) * inner
            s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = splat8(_ZERO)
            for k in range(inner):
                low, high = load8(b, k * columns + j), load8(b, k * columns + j + _HALF)
                x0, x1, x2, x3 = (
                    splat8(read(a, a0 + k)),
                    splat8(read(a, a1 + k)),
                    splat8(read(a, a2 + k)),
                    splat8(read(a, a3 + k)),
                )
                s0, t0 = times_plus(x0, low, s0), times_plus(x0, high, t0)
                s1, t1 = times_plus(x1, low, s1), times_plus(x1, high, t1)
                s2, t2 = times_plus(x2, low, s2), times_plus(x2, high, t2)
                s3, t3 = times_plus(x3, low, s3), times_plus(x3, high, t3)
            here = i * columns + j
            store(target, here, s0)
            store(target, here + _HALF, t0)
            store(target, here + columns, s1)
            store(target, here + columns + _HALF, t1)
            store(target, here + 2 * columns, s2)
            store(target, here + 2 * columns + _HALF, t2)
            store(target, here + 3 * columns, s3)
            store(target, here + 3 * columns + _HALF, t3)


@compiled(inline=True)
def _transpose(source, rows, columns, target):
    for i in range(rows):
        for j in range(columns):
            target[j * rows + i] = source[i * columns + j]


@compiled(inline=True)
def _rectify(states):
    for i in range(len(states)):
        states[i] = max(states[i], LEAK * states[i])


@compiled()
def forward(weights, sizes, positions, rows, numbers, states):
    """Action values of observations, behind the hidden layers in `states`.

    Args:
        positions: of the ones, ascending, then `bits`; int32, shape (observations, width).
        rows: which observations.
        numbers: float32, shape (rows, numbers).
        states: float32; receives what each layer hands on, shape (rows, width) each, one after the other.
    """
    count, bits, known, width = len(rows), sizes[0], sizes[1], sizes[2]
    w, s = pointer(weights), pointer(states)
    first = (bits + 1) * width
    bias = first + known * width
    for b in range(count):
        state = at(s, b * width)
        for j in range(0, width, _HALF):
            store(state, j, load8(w, bias + j))
        for k in range(positions.shape[1]):
            bit = np.int64(positions[rows[b], k])
            if bit == bits:
                break
            _add_row(state, at(w, bit * width), width)
        for k in range(known):
            _add_multiple(state, numbers[b, k], at(w, first + k * width), width)
    here, filled = bias + width, 0
    for layer in range(3, len(sizes)):
        inner, outer = sizes[layer - 1], sizes[layer]
        _rectify(states[filled : filled + count * inner])
        following = filled + count * inner
        _multiply(at(s, filled), at(w, here), at(s, following), count, inner, outer)
        here += inner * outer
        for b in range(count):
            _add_row(at(s, following + b * outer), at(w, here), outer)
        here, filled = here + outer, following


@compiled()
def _adam(weights, slopes, first, second, rate, root):
    """One step of Adam (Kingma and Ba, ICLR 2015) on some parameters; their slopes are 0 afterwards."""
    for i in range(len(weights)):
        slope = slopes[i]
        m = _KEEP_1 * first[i] + _NEW_1 * slope
        v = _KEEP_2 * second[i] + _NEW_2 * slope * slope
        first[i], second[i], slopes[i] = m, v, _ZERO
        weights[i] -= rate * m / (math.sqrt(v) / root + EPSILON)


@compiled()
def update(online, target, first, second, slopes, live, sizes, seen, batch, rate, root, errors):
    """One update of double deep Q-learning (van Hasselt et al., AAAI 2016) with the Huber loss, in place.

    Args:
        online, target: parameters of the two networks.
        first, second: moments of Adam.
        slopes: zeros, and again afterwards.
        live: for each bit whether it has ever had a slope: the others have no moments, and stand still.
        seen: positions of all observations, and the numbers of those before and after a transition.
        batch: rows before and after, actions, returns, discounts, legal actions after, weights in the loss (over the
            number of transitions).
        rate, root: learning rate and root of Adam's second moment, both corrected for the start.
        errors: receives \\|value - goal\\| of each transition.
    """
    positions, numbers, numbers_after = seen
    before, after, action, returns, discount, legal, share = batch
    count, bits, known, width, actions = len(before), sizes[0], sizes[1], sizes[2], sizes[-1]
    total, widest, largest = 0, 0, 0
    for layer in range(2, len(sizes)):
        total, widest = total + count * sizes[layer], max(widest, sizes[layer])
        largest = max(largest, sizes[layer] * sizes[layer - 1] if layer > 2 else 0)
    values = total - count * actions
    states, others = np.empty(total, np.float32), np.empty(total, np.float32)
    forward(online, sizes, positions, after, numbers_after, states)
    forward(target, sizes, positions, after, numbers_after, others)
    goals = np.empty(count, np.float32)
    for b in range(count):
        best = -1
        for a in range(legal.shape[1]):
            if legal[b, a] and (best < 0 or states[values + b * actions + a] > states[values + b * actions + best]):
                best = a
        goals[b] = returns[b] + discount[b] * others[values + b * actions + best]

    forward(online, sizes, positions, before, numbers, states)
    back, ahead = np.zeros(count * widest, np.float32), np.empty(count * widest, np.float32)
    for b in range(count):
        error = states[values + b * actions + action[b]] - goals[b]
        errors[b] = abs(error)
        back[b * actions + action[b]] = share[b] * min(_ONE, max(-_ONE, error))
    turned, columns = np.empty(largest, np.float32), np.empty(count * widest, np.float32)
    g, here, filled = pointer(slopes), len(online), values
    for layer in range(len(sizes) - 1, 2, -1):
        inner, outer = sizes[layer - 1], sizes[layer]
        here, filled = here - outer, filled - count * inner
        for b in range(count):
            _add_row(at(g, here), at(pointer(back), b * outer), outer)
        here -= inner * outer
        _transpose(states[filled : filled + count * inner], count, inner, columns)
        _multiply(pointer(columns), pointer(back), at(g, here), inner, count, outer)
        _transpose(online[here : here + inner * outer], inner, outer, turned)
        _multiply(pointer(back), pointer(turned), pointer(ahead), count, outer, inner)
        behind = states[filled : filled + count * inner]
        for i in range(count * inner):
            ahead[i] *= _ONE if behind[i] > _ZERO else LEAK
        back, ahead = ahead, back
    of_bits = (bits + 1) * width
    for b in range(count):
        slope = at(pointer(back), b * width)
        for k in range(positions.shape[1]):
            bit = np.int64(positions[before[b], k])
            if bit == bits:
                break
            live[bit] = True
            _add_row(at(g, bit * width), slope, width)
        for k in range(known):
            _add_multiple(at(g, of_bits + k * width), numbers[b, k], slope, width)
        _add_row(at(g, of_bits + known * width), slope, width)

    for bit in range(bits):
        if live[bit]:
            a, b = bit * width, (bit + 1) * width
            _adam(online[a:b], slopes[a:b], first[a:b], second[a:b], rate, root)
    _adam(online[of_bits:], slopes[of_bits:], first[of_bits:], second[of_bits:], rate, root)
