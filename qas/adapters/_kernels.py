"""Compiled kernels: products of Pauli rotations on the rows of real matrices, and their reverse-mode gradient.

Every operation mixes pairs of rows, ``a' = c a + s b`` and ``b' = c b - s a``. A *string* (x, z) is the real matrix
X^x Z^z, which sends basis vector i to (-1)^|i & z| times basis vector i ^ x; it is antisymmetric where |x & z| is odd,
and then exp(φ/2 X^x Z^z) mixes the rows i and i ^ x. Row index = level * 2**n + bits; a *level* operation mixes two
levels of the odd axis instead, with a symmetric string on the bits.

Rows are `LANES` columns wide or a multiple of it.
"""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

from qas.simulators._compile import compiled
from qas.simulators._lanes import load8, odd, pointer, splat8, store, times, times_minus, times_plus, total

LANES = 8


@compiled(inline=True)
def _mix(values, first, second, c, s):
    """Mix `LANES` numbers at two places."""
    a, b = load8(values, first), load8(values, second)
    store(values, first, times_plus(c, a, times(s, b)))
    store(values, second, times_minus(s, a, times(c, b)))


@compiled(inline=True)
def _unmix(values, cotangents, first, second, c, s):
    """Undo `_mix` on values and cotangents; returns Σ (da b - db a) at the output."""
    a, b, da, db = load8(values, first), load8(values, second), load8(cotangents, first), load8(cotangents, second)
    slope = total(times_minus(db, a, times(da, b)))
    store(values, first, times_minus(s, b, times(c, a)))
    store(values, second, times_plus(s, a, times(c, b)))
    store(cotangents, first, times_minus(s, db, times(c, da)))
    store(cotangents, second, times_plus(s, da, times(c, db)))
    return slope


@compiled(inline=True)
def _top(x):
    """Highest set bit."""
    top = 1
    while 2 * top <= x:
        top *= 2
    return top


@compiled()
def rotate(ops, n_bits, cosines, sines, state, n_rows, columns):
    """Apply all operations in order to `state`, in place.

    ops: int64 (n_ops, 7), rows (level_a, level_b, x, z, parity, rows, levels): level_a < 0 for a string, `parity` 1 if
    it changes sign on odd levels; bits from `rows` on, and levels from `levels` on, are still zero.
    cosines, sines: (batch, n_ops) of half the angle, sign of the string in the sine. state: flat, of
    (batch, n_rows, columns).
    """
    size = 1 << n_bits
    values = pointer(state)
    for batch in range(cosines.shape[0]):
        start = batch * n_rows
        for k in range(ops.shape[0]):
            c = cosines[batch, k]
            s = sines[batch, k]
            x = ops[k, 2]
            z = ops[k, 3]
            limit = ops[k, 5]
            if ops[k, 0] < 0:
                top = _top(x)
                for level in range(ops[k, 6]):
                    base = start + level * size
                    t = -s if ops[k, 4] and level & 1 else s
                    for high in range(0, limit, 2 * top):
                        for i in range(high, high + top):
                            p = i ^ x
                            g = -t if odd(p & z) else t
                            a = (base + i) * columns
                            b = (base + p) * columns
                            for lane in range(0, columns, LANES):
                                _mix(values, a + lane, b + lane, splat8(c), splat8(g))
            else:
                for i in range(limit):
                    g = s if odd(i & z) else -s
                    a = (start + ops[k, 0] * size + i) * columns
                    b = (start + ops[k, 1] * size + (i ^ x)) * columns
                    for lane in range(0, columns, LANES):
                        _mix(values, a + lane, b + lane, splat8(c), splat8(g))


@compiled()
def rotate_back(ops, n_bits, cosines, sines, state, cotangent, n_rows, columns, gradient):
    """Reverse sweep: undoes `rotate` on `state` and carries `cotangent` back, both in place.

    gradient: float64 (batch, n_ops), set to the derivative in the angle of each operation, sign of the string left out.
    """
    size = 1 << n_bits
    one = cosines.dtype.type(1)
    values, cotangents = pointer(state), pointer(cotangent)
    for batch in range(cosines.shape[0]):
        start = batch * n_rows
        for k in range(ops.shape[0] - 1, -1, -1):
            c = cosines[batch, k]
            s = sines[batch, k]
            x = ops[k, 2]
            z = ops[k, 3]
            limit = ops[k, 5]
            slope = 0.0
            if ops[k, 0] < 0:
                top = _top(x)
                for level in range(ops[k, 6]):
                    base = start + level * size
                    sign = -one if ops[k, 4] and level & 1 else one
                    for high in range(0, limit, 2 * top):
                        for i in range(high, high + top):
                            p = i ^ x
                            h = -sign if odd(p & z) else sign
                            a = (base + i) * columns
                            b = (base + p) * columns
                            for lane in range(0, columns, LANES):
                                slope += h * _unmix(values, cotangents, a + lane, b + lane, splat8(c), splat8(s * h))
            else:
                for i in range(limit):
                    h = one if odd(i & z) else -one
                    a = (start + ops[k, 0] * size + i) * columns
                    b = (start + ops[k, 1] * size + (i ^ x)) * columns
                    for lane in range(0, columns, LANES):
                        slope += h * _unmix(values, cotangents, a + lane, b + lane, splat8(c), splat8(s * h))
            gradient[batch, k] = 0.5 * slope
