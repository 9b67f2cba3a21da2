"""Compiled kernels of the state-vector engine. Gates are data; the reverse sweep un-applies them, so nothing is stored.

A state is a float64 vector of `parts`·2**n numbers: with two parts real and imaginary parts are interleaved, with one
the amplitudes are real, as they stay in a circuit of real gates. Qubit q then is bit q + parts - 1 of the number's
index, and most gates are the same linear map of that vector either way. Kernels read eight numbers at a time, so states
are padded to at least three qubits; those that are not there rest in |0>.

Kinds of operation:
    0 rx   1 ry   2 rz   3 one-qubit unitary   4 cx   5 cz   6 swap   7 Pauli rotation   8 real one-qubit unitary   9 x
    10 exchange of a basis state of up to `FAR` qubits, z, with its complement: the first qubit, the others, and x, all
Real amplitudes: 1, 4, 5, 6, 8, 9 and 10.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._entry import (
    ANGLES,
    ENGINE,
    GRADIENT,
    MODE,
    N_ANGLES,
    SERVE,
    SLOPES,
    STATE,
    STOP,
    Entry,
    array_at,
)
from qas.simulators._lanes import (
    SHORT,
    address,
    at,
    blend1,
    blend2,
    blend4,
    flip1,
    flip2,
    flip4,
    load8,
    lowest_bit,
    minus,
    plus,
    pointer,
    pointer_to,
    read,
    splat8,
    stopped,
    store,
    times,
    times_minus,
    times_plus,
    total,
    twice_high,
    twice_low,
    write,
    zero8,
)
from qas.simulators._team import LEAVE, called, calls, halt_if, meet, number, payload, share

LANES = 8
MASKS = 4
"""Permuted diagonals are taken so many at a time: sums of their own, since each addition waits for the one before."""
BLOCK = 1 << 9
"""Amplitudes for which the diagonals of a Hamiltonian given by its terms are formed at once: they stay in cache."""
BLOCKED = 1 << 14
"""States of at least so many numbers (more than the fastest cache holds) are taken through several gates at a time,
a block after the other."""
CHUNK = 1 << 7
FAR = 4
"""A block is 2**FAR chunks of so many numbers, 16 kB: those that differ in FAR chosen far bits and the near ones."""
PIECES = 8
"""Sums over states that are taken block by block are cut into so many, for any number of threads."""
SHARED_QUBITS = 16
"""Threads share states of at least so many qubits."""
AHEAD = 200
"""How many steps ahead are searched for those that fit into the same block."""
FUSED = 1 << 8
"""States of fewer numbers take their gates one by one: a gate costs no more than the product of two matrices."""
KIND, FIRST, SECOND, X_MASK, Z_MASK, MATRIX, HEAD, TAIL, TURNS, STEP = range(10)
"""Words of a step: columns of the library, address of its matrix, first and last gate of the run, angles in it."""
MATRIX_SIZE = 16
"""Numbers of a matrix and its inverse."""


# Columns of the entry point's table: addresses of the arrays of a library, of a circuit, of an observable, of two
# states; and sizes.
LIBRARY, OPS, OBSERVABLE, KET = ENGINE, ENGINE + 6, ENGINE + 8, ENGINE + 11
N_KINDS, N_OPS, N_MASKS, N_IMAGINARY, SIZE, PARTS, SEAT, SHARED = range(ENGINE + 12, ENGINE + 20)
"""The last two: the seat in a team, and, written by the leader, the memory for its sums."""


class Library(NamedTuple):
    """Tables of all operations; the first axis counts operations."""

    kind: np.ndarray  # int64 (ops,)
    first: np.ndarray  # int64 (ops,): bit mask of the first qubit
    second: np.ndarray  # int64 (ops,): bit mask of the other qubits, or 0
    matrix: np.ndarray  # float64 (ops, 2, 8): the unitary and its inverse, rows of (re, im)
    x_mask: np.ndarray  # int64 (ops,): for Pauli rotations and exchanges
    z_mask: np.ndarray  # int64 (ops,)


# ---------------------------------------------------------------------- lanes
@compiled(inline=True)
def _flip(v, step):
    """Lanes exchanged with those at distance `step`, 1, 2 or 4."""
    if step == 1:
        return flip1(v)
    if step == 2:
        return flip2(v)
    return flip4(v)


@compiled(inline=True)
def _blend(a, b, step):
    """Lanes of a where bit `step` of their number is 0, of b where it is 1."""
    if step == 1:
        return blend1(a, b)
    if step == 2:
        return blend2(a, b)
    return blend4(a, b)


@compiled(inline=True)
def _flip_amplitudes(v, x, parts):
    """Lanes moved from amplitude j ^ x to j, for the amplitudes that share a register."""
    if parts == 2:
        if x & 1:
            v = flip2(v)
        if x & 2:
            v = flip4(v)
        return v
    if x & 1:
        v = flip1(v)
    if x & 2:
        v = flip2(v)
    if x & 4:
        v = flip4(v)
    return v


@compiled(inline=True)
def _sign(bits):
    """-1 for an odd number of bits, else 1."""
    sign = 1.0
    while bits:
        sign = -sign
        bits &= bits - 1
    return sign


# ---------------------------------------------------------------------- angles
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to a whole number
_Q1, _Q2, _Q3 = (float.fromhex(part) for part in ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69"))
_LARGE = 1e5
_S3, _S5, _S7, _S9, _S11, _S13, _S15 = ((-1) ** k / math.factorial(2 * k + 1) for k in range(1, 8))
_C2, _C4, _C6, _C8, _C10, _C12, _C14, _C16 = ((-1) ** k / math.factorial(2 * k) for k in range(1, 9))


@compiled(inline=True)
def _table_size(n_angles):
    return (n_angles + LANES - 1) // LANES * LANES + LANES


@compiled(inline=True)
def _nearest(x):
    return minus(plus(x, splat8(_ROUND)), splat8(_ROUND))


@compiled(inline=True)
def _cos_sin(angles, table, size):
    """table[i], table[size + i] = cos, sin of half of angles[i], to 3e-16; `size` from `_table_size`.

    Taylor series between -π/4 and π/4, without branches; multiples of π/2 are subtracted in three parts, the first two
    of 33 bits, so that their products are exact.
    """
    largest = 0.0
    for i in range(len(angles)):
        largest = max(largest, abs(angles[i]))
        write(table, i, angles[i])
    if largest > _LARGE:
        for i in range(len(angles)):
            write(table, i, math.cos(0.5 * angles[i]))
            write(table, size + i, math.sin(0.5 * angles[i]))
        return
    for i in range(len(angles), size):
        write(table, i, 0.0)
    one = splat8(1.0)
    for i in range(0, len(angles), LANES):
        half = times(splat8(0.5), load8(table, i))
        turns = _nearest(times(splat8(2.0 / math.pi), half))
        r = times_plus(splat8(-_Q1), turns, half)
        r = times_plus(splat8(-_Q3), turns, times_plus(splat8(-_Q2), turns, r))
        q = times(r, r)
        s = times_plus(q, times_plus(q, splat8(_S15), splat8(_S13)), splat8(_S11))
        s = times_plus(q, times_plus(q, times_plus(q, s, splat8(_S9)), splat8(_S7)), splat8(_S5))
        s = times_plus(times(r, q), times_plus(q, s, splat8(_S3)), r)
        c = times_plus(q, times_plus(q, splat8(_C16), splat8(_C14)), splat8(_C12))
        c = times_plus(q, times_plus(q, times_plus(q, c, splat8(_C10)), splat8(_C8)), splat8(_C6))
        c = times_plus(q, times_plus(q, times_plus(q, c, splat8(_C4)), splat8(_C2)), one)
        # Quarter turns: odd ones exchange cos and sin; all factors are whole, so nothing is rounded.
        odd = times_plus(splat8(-2.0), _nearest(times(splat8(0.5), turns)), turns)
        quarter = times_plus(splat8(-4.0), _nearest(times(splat8(0.25), turns)), turns)
        odd = times(odd, odd)
        straight = times(minus(one, odd), times_plus(times(splat8(-0.5), quarter), quarter, one))
        crossed = times(odd, quarter)
        store(table, i, minus(times(straight, c), times(crossed, s)))
        store(table, size + i, times_plus(straight, s, times(crossed, c)))


# ---------------------------------------------------------------------- gates
@compiled(inline=True)
def _rx(psi, size, step, c, s):
    cc, ss = splat8(c), blend1(splat8(s), splat8(-s))
    if step < LANES:
        for i in range(0, size, LANES):
            v = load8(psi, i)
            store(psi, i, times_plus(ss, flip1(_flip(v, step)), times(cc, v)))
        return
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(psi, i), load8(psi, i + step)
            store(psi, i, times_plus(ss, flip1(b), times(cc, a)))
            store(psi, i + step, times_plus(ss, flip1(a), times(cc, b)))


@compiled(inline=True)
def _rz(psi, size, step, c, s):
    cc, ss = splat8(c), blend1(splat8(s), splat8(-s))
    negative = blend1(splat8(-s), splat8(s))
    if step < LANES:
        ss = _blend(ss, negative, step)
        for i in range(0, size, LANES):
            v = load8(psi, i)
            store(psi, i, times_plus(ss, flip1(v), times(cc, v)))
        return
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(psi, i), load8(psi, i + step)
            store(psi, i, times_plus(ss, flip1(a), times(cc, a)))
            store(psi, i + step, times_plus(negative, flip1(b), times(cc, b)))


@compiled(inline=True)
def _real_one_qubit(psi, size, step, m00, m01, m10, m11):
    a0, a1, b0, b1 = splat8(m00), splat8(m01), splat8(m10), splat8(m11)
    if step < LANES:
        own, other = _blend(a0, b1, step), _blend(a1, b0, step)
        for i in range(0, size, LANES):
            v = load8(psi, i)
            store(psi, i, times_plus(other, _flip(v, step), times(own, v)))
        return
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(psi, i), load8(psi, i + step)
            store(psi, i, times_plus(a1, b, times(a0, a)))
            store(psi, i + step, times_plus(b1, b, times(b0, a)))


@compiled(inline=True)
def _entry(table, place):
    """A complex number as factors of an amplitude and of its exchanged parts."""
    re, im = read(table, place), read(table, place + 1)
    return splat8(re), blend1(splat8(-im), splat8(im))


@compiled(inline=True)
def _combine(r, i, a, turned_a, s, j, b, turned_b):
    """One row of a matrix times two amplitudes."""
    return times_plus(i, turned_a, times_plus(s, b, times_plus(j, turned_b, times(r, a))))


@compiled(inline=True)
def _one_qubit(psi, size, step, table, row):
    r00, i00 = _entry(table, row)
    r01, i01 = _entry(table, row + 2)
    r10, i10 = _entry(table, row + 4)
    r11, i11 = _entry(table, row + 6)
    if step < LANES:
        own, own_turned = _blend(r00, r11, step), _blend(i00, i11, step)
        other, other_turned = _blend(r01, r10, step), _blend(i01, i10, step)
        for i in range(0, size, LANES):
            v = load8(psi, i)
            w = _flip(v, step)
            store(psi, i, _combine(own, own_turned, v, flip1(v), other, other_turned, w, flip1(w)))
        return
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(psi, i), load8(psi, i + step)
            ta, tb = flip1(a), flip1(b)
            store(psi, i, _combine(r00, i00, a, ta, r01, i01, b, tb))
            store(psi, i + step, _combine(r10, i10, a, ta, r11, i11, b, tb))


@compiled(inline=True)
def _cx(psi, size, control, target):
    if control < LANES and target < LANES:
        for i in range(0, size, LANES):
            v = load8(psi, i)
            store(psi, i, _blend(v, _flip(v, target), control))
    elif control < LANES:
        for start in range(0, size, 2 * target):
            for i in range(start, start + target, LANES):
                a, b = load8(psi, i), load8(psi, i + target)
                store(psi, i, _blend(a, b, control))
                store(psi, i + target, _blend(b, a, control))
    elif target < LANES:
        for start in range(control, size, 2 * control):
            for i in range(start, start + control, LANES):
                store(psi, i, _flip(load8(psi, i), target))
    else:
        low, high = min(control, target), max(control, target)
        for start in range(control, size, 2 * high):
            for middle in range(start, start + high, 2 * low):
                for i in range(middle, middle + low, LANES):
                    a = load8(psi, i)
                    store(psi, i, load8(psi, i + target))
                    store(psi, i + target, a)


@compiled(inline=True)
def _cz(psi, size, first, second):
    low, high = min(first, second), max(first, second)
    one, signs = splat8(1.0), splat8(-1.0)
    if low < LANES:
        signs = _blend(one, signs, low)
    if high < LANES:
        signs = _blend(one, signs, high)
        for i in range(0, size, LANES):
            store(psi, i, times(signs, load8(psi, i)))
        return
    width = high if low < LANES else low
    skipped = 0 if low < LANES else low
    for start in range(high, size, 2 * high):
        for middle in range(start + skipped, start + high, 2 * width):
            for i in range(middle, middle + width, LANES):
                store(psi, i, times(signs, load8(psi, i)))


@compiled(inline=True)
def _swap(psi, size, first, second):
    low, high = min(first, second), max(first, second)
    if high < LANES:
        for i in range(0, size, LANES):
            v = load8(psi, i)
            both = _flip(_flip(v, low), high)
            store(psi, i, _blend(_blend(v, both, low), _blend(both, v, low), high))
    elif low < LANES:
        for start in range(0, size, 2 * high):
            for i in range(start, start + high, LANES):
                a, b = load8(psi, i), load8(psi, i + high)
                store(psi, i, _blend(a, _flip(b, low), low))
                store(psi, i + high, _blend(_flip(a, low), b, low))
    else:
        for start in range(0, size, 2 * high):
            for middle in range(start, start + high, 2 * low):
                for i in range(middle, middle + low, LANES):
                    a = load8(psi, i + low)
                    store(psi, i + low, load8(psi, i + high))
                    store(psi, i + high, a)


@compiled(inline=True)
def _pauli_signs(x, z, scale):
    """(signs, turned) with -i·scale·P psi = ± signs · (parts of psi[j ^ x], exchanged if turned), ± by the high bits.

    P|j> = i^k (-1)^(z·j) |j ^ x> with k letters Y; so (P psi)[i] = (-i)^k (-1)^(z·i) psi[i ^ x].
    """
    letters = 0
    both = x & z
    while both:
        letters += 1
        both &= both - 1
    turned = letters & 1 == 0
    if (letters + 1) & 2:  # (-i)^k is -i or -1
        scale = -scale
    signs = blend1(splat8(scale), splat8(-scale)) if turned else splat8(scale)
    if z & 1:
        signs = blend2(signs, minus(zero8(), signs))
    if z & 2:
        signs = blend4(signs, minus(zero8(), signs))
    return signs, turned


@compiled(inline=True)
def _pauli_rotation(psi, size, x, z, c, s):
    signs, turned = _pauli_signs(x, z, s)
    cc = splat8(c)
    z_high, x_high = 2 * (z & -4), 2 * (x & -4)
    for i in range(0, size, LANES):
        j = i ^ x_high
        if j < i:
            continue
        a, b = load8(psi, i), load8(psi, j)
        moved_a, moved_b = _flip_amplitudes(a, x, 2), _flip_amplitudes(b, x, 2)
        if turned:
            moved_a, moved_b = flip1(moved_a), flip1(moved_b)
        store(psi, j, times_plus(times(splat8(_sign(j & z_high)), signs), moved_a, times(cc, b)))
        store(psi, i, times_plus(times(splat8(_sign(i & z_high)), signs), moved_b, times(cc, a)))


@compiled(inline=True)
def _where(value, rest, x, z):
    """`value` in the lanes whose number has the bits z of x, `rest` in the others."""
    chosen, others = splat8(value), splat8(rest)
    if x & 1:
        chosen = blend1(others, chosen) if z & 1 else blend1(chosen, others)
    if x & 2:
        chosen = blend2(others, chosen) if z & 2 else blend2(chosen, others)
    if x & 4:
        chosen = blend4(others, chosen) if z & 4 else blend4(chosen, others)
    return chosen


@compiled(inline=True)
def _next(i, far, start):
    """The next register whose place has the bits `start` of `far`."""
    return ((i | far) + LANES & ~far) | start


@compiled()
def _exchange(psi, size, x, z, c, s):
    """Turn each number at z + … into that at its complement in x: by cos c, sin s."""
    near, far, low, i = x & 7, x & -8, z & 7, z & -8
    ca, sa, cb, sb = (
        _where(c, 1.0, near, low),
        _where(-s, 0.0, near, low),
        _where(c, 1.0, near, near ^ low),
        _where(s, 0.0, near, near ^ low),
    )
    if far == 0:  # both are in one register, which is stored twice
        ca, sa = times(ca, cb), plus(sa, sb)
        cb, sb = ca, sa
    start = i
    while i < size:
        a, b = load8(psi, i), load8(psi, i ^ far)
        store(psi, i, times_plus(sa, _flip_amplitudes(b, near, 1), times(ca, a)))
        store(psi, i ^ far, times_plus(sb, _flip_amplitudes(a, near, 1), times(cb, b)))
        i = _next(i, far, start)


@compiled()
def _overlap_exchange(bra, ket, size, x, z):
    """Twice the real part of <bra|K|ket> for the generator K of an exchange."""
    near, far, start = x & 7, x & -8, z & -8
    sums, i = zero8(), start
    while i < size:
        j = i ^ far
        sums = times_plus(_flip_amplitudes(load8(bra, j), near, 1), load8(ket, i), sums)
        sums = times_minus(load8(bra, i), _flip_amplitudes(load8(ket, j), near, 1), sums)
        i = _next(i, far, start)
    return total(times(_where(2.0, 0.0, near, z & 7), sums))


@compiled()
def apply(psi, size, kind, bit, other, x, z, matrix, op, c, s, inverse, parts):
    """psi = gate psi in place, or its inverse; c and s are cos and sin of half the angle, s negated for an inverse.

    `psi` and `matrix` are addresses; `size` counts floats, parts·2**n. Two states beside each other count as one of
    twice the size.
    """
    step, other_step = bit * parts, other * parts
    if kind == 1:
        _real_one_qubit(psi, size, step, c, -s, s, c)
    elif kind == 4:
        _cx(psi, size, step, other_step)
    elif kind == 10:
        _exchange(psi, size, x * parts, z * parts, c * c - s * s, 2.0 * c * s)
    elif kind >= 8:
        row = 16 * op + (8 if inverse else 0)
        m00, m01, m10, m11 = read(matrix, row), read(matrix, row + 2), read(matrix, row + 4), read(matrix, row + 6)
        _real_one_qubit(psi, size, step, m00, m01, m10, m11)
    elif kind == 5:
        _cz(psi, size, step, other_step)
    elif kind == 6:
        _swap(psi, size, step, other_step)
    elif parts == 1:
        return
    elif kind == 0:
        _rx(psi, size, step, c, s)
    elif kind == 2:
        _rz(psi, size, step, c, s)
    elif kind == 3:
        _one_qubit(psi, size, step, matrix, 16 * op + (8 if inverse else 0))
    else:
        _pauli_rotation(psi, size, x, z, c, s)


# ---------------------------------------------------------------------- undoing rotations, both states in one pass
@compiled(inline=True)
def _undo_rx(bra, ket, size, step, c, s):
    cc, ss, sums = splat8(c), blend1(splat8(s), splat8(-s)), zero8()
    if step < LANES:
        for i in range(0, size, LANES):
            p, q = load8(bra, i), load8(ket, i)
            moved = flip1(_flip(q, step))
            sums = times_plus(p, moved, sums)
            store(ket, i, times_plus(ss, moved, times(cc, q)))
            store(bra, i, times_plus(ss, flip1(_flip(p, step)), times(cc, p)))
    else:
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, LANES):
                pa, pb, qa, qb = load8(bra, i), load8(bra, i + step), load8(ket, i), load8(ket, i + step)
                ta, tb = flip1(qa), flip1(qb)
                sums = times_plus(pb, ta, times_plus(pa, tb, sums))
                store(ket, i, times_plus(ss, tb, times(cc, qa)))
                store(ket, i + step, times_plus(ss, ta, times(cc, qb)))
                store(bra, i, times_plus(ss, flip1(pb), times(cc, pa)))
                store(bra, i + step, times_plus(ss, flip1(pa), times(cc, pb)))
    return total(times(blend1(splat8(1.0), splat8(-1.0)), sums))


@compiled(inline=True)
def _undo_real(bra, ket, size, step, m00, m01, m10, m11):
    """A real matrix on both states; returns Im <bra| Y |ket> before."""
    a0, a1, b0, b1 = splat8(m00), splat8(m01), splat8(m10), splat8(m11)
    sums, other = zero8(), zero8()
    if step < LANES:
        own, turned = _blend(a0, b1, step), _blend(a1, b0, step)
        for i in range(0, size, LANES):
            p, q = load8(bra, i), load8(ket, i)
            moved = _flip(q, step)
            sums = times_plus(p, moved, sums)
            store(ket, i, times_plus(turned, moved, times(own, q)))
            store(bra, i, times_plus(turned, _flip(p, step), times(own, p)))
        return total(times(_blend(splat8(-1.0), splat8(1.0), step), sums))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            pa, pb, qa, qb = load8(bra, i), load8(bra, i + step), load8(ket, i), load8(ket, i + step)
            sums = times_plus(pb, qa, sums)
            other = times_plus(pa, qb, other)
            store(ket, i, times_plus(a1, qb, times(a0, qa)))
            store(ket, i + step, times_plus(b1, qb, times(b0, qa)))
            store(bra, i, times_plus(a1, pb, times(a0, pa)))
            store(bra, i + step, times_plus(b1, pb, times(b0, pa)))
    return total(minus(sums, other))


@compiled(inline=True)
def _undo_rz(bra, ket, size, step, c, s):
    cc, positive, negative = splat8(c), blend1(splat8(s), splat8(-s)), blend1(splat8(-s), splat8(s))
    turn, sums, other = blend1(splat8(1.0), splat8(-1.0)), zero8(), zero8()
    if step < LANES:
        ss = _blend(positive, negative, step)
        for i in range(0, size, LANES):
            p, q = load8(bra, i), load8(ket, i)
            moved = flip1(q)
            sums = times_plus(p, moved, sums)
            store(ket, i, times_plus(ss, moved, times(cc, q)))
            store(bra, i, times_plus(ss, flip1(p), times(cc, p)))
        return total(times(_blend(turn, minus(zero8(), turn), step), sums))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            pa, pb, qa, qb = load8(bra, i), load8(bra, i + step), load8(ket, i), load8(ket, i + step)
            ta, tb = flip1(qa), flip1(qb)
            sums = times_plus(pa, ta, sums)
            other = times_plus(pb, tb, other)
            store(ket, i, times_plus(positive, ta, times(cc, qa)))
            store(ket, i + step, times_plus(negative, tb, times(cc, qb)))
            store(bra, i, times_plus(positive, flip1(pa), times(cc, pa)))
            store(bra, i + step, times_plus(negative, flip1(pb), times(cc, pb)))
    return total(times(turn, minus(sums, other)))


@compiled(inline=True)
def _undo_one_qubit(bra, ket, size, step, table, row):
    """A matrix on both states; returns Im <bra| P |ket> before, for P = X, Y and Z."""
    r00, i00 = _entry(table, row)
    r01, i01 = _entry(table, row + 2)
    r10, i10 = _entry(table, row + 4)
    r11, i11 = _entry(table, row + 6)
    turn, x, y, z = blend1(splat8(1.0), splat8(-1.0)), zero8(), zero8(), zero8()
    if step < LANES:
        own, own_turned = _blend(r00, r11, step), _blend(i00, i11, step)
        other, other_turned = _blend(r01, r10, step), _blend(i01, i10, step)
        for i in range(0, size, LANES):
            p, q = load8(bra, i), load8(ket, i)
            moved, turned = _flip(q, step), flip1(q)
            both = flip1(moved)
            x, y, z = times_plus(p, both, x), times_plus(p, moved, y), times_plus(p, turned, z)
            store(ket, i, _combine(own, own_turned, q, turned, other, other_turned, moved, both))
            moved = _flip(p, step)
            store(bra, i, _combine(own, own_turned, p, flip1(p), other, other_turned, moved, flip1(moved)))
        signs = _blend(splat8(1.0), splat8(-1.0), step)
        return total(times(turn, x)), -total(times(signs, y)), total(times(times(turn, signs), z))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(ket, i), load8(ket, i + step)
            ta, tb = flip1(a), flip1(b)
            store(ket, i, _combine(r00, i00, a, ta, r01, i01, b, tb))
            store(ket, i + step, _combine(r10, i10, a, ta, r11, i11, b, tb))
            p, q = load8(bra, i), load8(bra, i + step)
            x = times_plus(q, ta, times_plus(p, tb, x))
            y = times_minus(p, b, times_plus(q, a, y))
            z = times_minus(q, tb, times_plus(p, ta, z))
            tp, tq = flip1(p), flip1(q)
            store(bra, i, _combine(r00, i00, p, tp, r01, i01, q, tq))
            store(bra, i + step, _combine(r10, i10, p, tp, r11, i11, q, tq))
    return total(times(turn, x)), total(y), total(times(turn, z))


@compiled(inline=True)
def _overlap_pauli(bra, ket, size, x, z):
    signs, turned = _pauli_signs(x, z, 1.0)
    sums = zero8()
    z_high, x_high = 2 * (z & -4), 2 * (x & -4)
    for i in range(0, size, LANES):
        moved = _flip_amplitudes(load8(ket, i ^ x_high), x, 2)
        if turned:
            moved = flip1(moved)
        sums = times_plus(times(splat8(_sign(i & z_high)), load8(bra, i)), moved, sums)
    return total(times(signs, sums))


@compiled(inline=True)
def overlap(bra, ket, size, kind, bit, x, z):
    """Im <bra| P |ket> for the Pauli P of a rotation: the derivative of the energy in its angle. Complex amplitudes."""
    if kind == 0:
        return _overlap_pauli(bra, ket, size, bit, 0)
    if kind == 1:
        return _overlap_pauli(bra, ket, size, bit, bit)
    if kind == 2:
        return _overlap_pauli(bra, ket, size, 0, bit)
    return _overlap_pauli(bra, ket, size, x, z)


@compiled()
def _undo_rotation(ket, size, kind, bit, x, z, c, s, parts):
    """Undo a rotation on ket and on bra, which lies behind it; returns Im <bra| P |ket>, the same before and after."""
    bra, step = ket + 8 * size, bit * parts
    if kind == 1:
        return _undo_real(bra, ket, size, step, c, -s, s, c)
    if kind == 10:
        result = _overlap_exchange(bra, ket, size, x * parts, z * parts)
        _exchange(ket, 2 * size, x * parts, z * parts, c * c - s * s, 2.0 * c * s)
        return result
    if parts == 1:
        return 0.0
    if kind == 0:
        return _undo_rx(bra, ket, size, step, c, s)
    if kind == 2:
        return _undo_rz(bra, ket, size, step, c, s)
    result = _overlap_pauli(bra, ket, size, x, z)
    _pauli_rotation(ket, 2 * size, x, z, c, s)
    return result


# ---------------------------------------------------------------------- Hamiltonians
@compiled(inline=True)
def _apply_projector(psi, out, size, vector, sign, parts):
    """out = sign |v><v|psi>; returns sign |<v|psi>|². For real amplitudes the real part of that operator."""
    re, im = 0.0, 0.0
    if parts == 1:
        for i in range(size):
            re += read(vector, 2 * i) * read(psi, i)
            im += read(vector, 2 * i + 1) * read(psi, i)
        for i in range(size):
            write(out, i, sign * (read(vector, 2 * i) * re + read(vector, 2 * i + 1) * im))
        return sign * (re * re + im * im)
    for i in range(0, size, 2):
        vr, vi, pr, pi = read(vector, i), read(vector, i + 1), read(psi, i), read(psi, i + 1)
        re += vr * pr + vi * pi
        im += vr * pi - vi * pr
    for i in range(0, size, 2):
        vr, vi = read(vector, i), read(vector, i + 1)
        write(out, i, sign * (vr * re - vi * im))
        write(out, i + 1, sign * (vr * im + vi * re))
    return sign * (re * re + im * im)


@compiled(inline=True)
def _real_row(psi, i, x, real, place, sums):
    moved = _flip_amplitudes(load8(psi, i ^ (x & -8)), x, 1)
    return times_plus(load8(real, place), moved, sums)


@compiled(inline=True)
def _apply_diagonals_real(psi, out, first, last, masks, real):
    energy = zero8()
    for i in range(first, last, LANES):
        a, b, c, d = zero8(), zero8(), zero8(), zero8()
        for m in range(0, len(masks), MASKS):
            place = i * len(masks) + 8 * m
            a = _real_row(psi, i, masks[m], real, place, a)
            b = _real_row(psi, i, masks[m + 1], real, place + 8, b)
            c = _real_row(psi, i, masks[m + 2], real, place + 16, c)
            d = _real_row(psi, i, masks[m + 3], real, place + 24, d)
        a = plus(plus(a, b), plus(c, d))
        store(out, i, a)
        energy = times_plus(load8(psi, i), a, energy)
    return total(energy)


@compiled(inline=True)
def _complex_row(psi, i, x, real, imag, place, complex_matrix, low, high):
    j = 2 * (i ^ (x & -4))
    v, w, d = _flip_amplitudes(load8(psi, j), x, 2), _flip_amplitudes(load8(psi, j ^ 8), x, 2), load8(real, place)
    low, high = times_plus(twice_low(d), v, low), times_plus(twice_high(d), w, high)
    if complex_matrix:
        turn, d = blend1(splat8(-1.0), splat8(1.0)), load8(imag, place)
        low = times_plus(times(turn, twice_low(d)), flip1(v), low)
        high = times_plus(times(turn, twice_high(d)), flip1(w), high)
    return low, high


@compiled(inline=True)
def _apply_diagonals(psi, out, first, last, masks, real, imag, complex_matrix):
    energy = zero8()
    for i in range(first, last, LANES):
        a, b, c, d = zero8(), zero8(), zero8(), zero8()
        for m in range(0, len(masks), 2):
            place = i * len(masks) + 8 * m
            a, b = _complex_row(psi, i, masks[m], real, imag, place, complex_matrix, a, b)
            c, d = _complex_row(psi, i, masks[m + 1], real, imag, place + 8, complex_matrix, c, d)
        a, b = plus(a, c), plus(b, d)
        store(out, 2 * i, a)
        store(out, 2 * i + 8, b)
        energy = times_plus(load8(psi, 2 * i), a, energy)
        energy = times_plus(load8(psi, 2 * i + 8), b, energy)
    return total(energy)


@compiled(inline=True)
def _walsh_hadamard(array, size):
    one = splat8(1.0)
    negative = splat8(-1.0)
    for i in range(0, size, LANES):
        v = load8(array, i)
        v = times_plus(blend1(one, negative), v, flip1(v))
        v = times_plus(blend2(one, negative), v, flip2(v))
        store(array, i, times_plus(blend4(one, negative), v, flip4(v)))
    step = LANES
    while step < size:
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, LANES):
                a, b = load8(array, i), load8(array, i + step)
                store(array, i, plus(a, b))
                store(array, i + step, minus(a, b))
        step *= 2


@compiled(inline=True)
def _diagonal(terms, coefficients, first, last, start, diagonal, block):
    """diagonal[i] = Σ c (-1)^(z·(start + i)) over the terms of one group, by a Walsh-Hadamard transform in cache."""
    for i in range(0, block, LANES):
        store(diagonal, i, zero8())
    varies = False
    for t in range(first, last):
        z = terms[t]
        low = z & (block - 1)
        varies |= low != 0
        write(diagonal, low, read(diagonal, low) + _sign(z & start) * read(coefficients, t))
    if varies:
        _walsh_hadamard(diagonal, block)
        return
    same = splat8(read(diagonal, 0))
    for i in range(0, block, LANES):
        store(diagonal, i, same)


@compiled(inline=True)
def _add_product(psi, out, start, block, x, diagonal, imaginary, parts):
    """out[start…] += diagonal · psi[(start…) ^ x], the diagonal times i if imaginary."""
    if parts == 1:
        for i in range(0, block, LANES):
            v = _flip_amplitudes(load8(psi, (start + i) ^ (x & -8)), x, 1)
            store(out, start + i, times_plus(load8(diagonal, i), v, load8(out, start + i)))
        return
    turn = blend1(splat8(-1.0), splat8(1.0))
    for i in range(0, block, LANES):
        k, j = 2 * (start + i), 2 * ((start + i) ^ (x & -4))
        v, w, d = _flip_amplitudes(load8(psi, j), x, 2), _flip_amplitudes(load8(psi, j ^ 8), x, 2), load8(diagonal, i)
        low, high = twice_low(d), twice_high(d)
        if imaginary:
            v, w, low, high = flip1(v), flip1(w), times(turn, low), times(turn, high)
        store(out, k, times_plus(low, v, load8(out, k)))
        store(out, k + 8, times_plus(high, w, load8(out, k + 8)))


@compiled(inline=True)
def _apply_terms(psi, out, begin, end, masks, coefficients, parts):
    """out = H psi from H's terms, block by block: no diagonal is ever stored. Layout of `masks`: see `observables`."""
    groups = masks[1]
    terms = masks[2 + 4 * groups :]
    block = min(BLOCK, end - begin)
    buffer = np.empty(BLOCK)
    diagonal = address(buffer)
    energy = zero8()
    for start in range(begin, end, block):
        for i in range(parts * start, parts * (start + block), LANES):
            store(out, i, zero8())
        for g in range(groups):
            x, first, middle, last = masks[2 + 4 * g], masks[3 + 4 * g], masks[4 + 4 * g], masks[5 + 4 * g]
            if middle > first:
                _diagonal(terms, coefficients, first, middle, start, diagonal, block)
                _add_product(psi, out, start, block, x, diagonal, False, parts)
            if last > middle and parts == 2:
                _diagonal(terms, coefficients, middle, last, start, diagonal, block)
                _add_product(psi, out, start, block, x, diagonal, True, parts)
        for i in range(parts * start, parts * (start + block), LANES):
            energy = times_plus(load8(psi, i), load8(out, i), energy)
    buffer[0] = 0.0  # it lives to here
    return total(energy)


@compiled(inline=True)
def _apply_rows(psi, out, first, last, masks, real, imag, complex_matrix, parts):
    """Amplitudes from `first` to `last` of what `_apply_hamiltonian` does, for an operator that is no projector."""
    if masks[0] < 0:
        return _apply_terms(psi, out, first, last, masks, real, parts)
    if parts == 1:
        return _apply_diagonals_real(psi, out, first, last, masks, real)
    return _apply_diagonals(psi, out, first, last, masks, real, imag, complex_matrix)


@compiled(inline=True)
def _apply_hamiltonian(psi, out, size, masks, real, imag, complex_matrix, parts=2):
    """out = H psi, or Re(H) psi for real amplitudes; returns <psi|H|psi>. For the arrays see `observables`."""
    if len(masks) == 0:
        return _apply_projector(psi, out, size, real, read(imag, 0), parts)
    return _apply_rows(psi, out, 0, size // parts, masks, real, imag, complex_matrix, parts)


# ---------------------------------------------------------------------- steps
@compiled(inline=True)
def _lone_step(library, op, slot, table, sines, k, step, words, numbers):
    word = STEP * step
    write(words, word + KIND, library.kind[op])
    write(words, word + FIRST, library.first[op])
    write(words, word + SECOND, library.second[op])
    write(words, word + X_MASK, library.x_mask[op])
    write(words, word + Z_MASK, library.z_mask[op])
    write(words, word + MATRIX, address(library.matrix) + 8 * MATRIX_SIZE * op)
    write(words, word + HEAD, k)
    write(words, word + TAIL, k)
    write(words, word + TURNS, 1 if slot >= 0 else 0)
    write(numbers, 2 * step, read(table, slot) if slot >= 0 else 1.0)
    write(numbers, 2 * step + 1, read(table, sines + slot) if slot >= 0 else 0.0)


@compiled(inline=True)
def _matrix(library, op, c, s):
    """A one-qubit gate."""
    kind = library.kind[op]
    if kind == 0:
        return complex(c, 0.0), complex(0.0, -s), complex(0.0, -s), complex(c, 0.0)
    if kind == 1:
        return complex(c, 0.0), complex(-s, 0.0), complex(s, 0.0), complex(c, 0.0)
    if kind == 2:
        return complex(c, -s), complex(0.0, 0.0), complex(0.0, 0.0), complex(c, s)
    table = library.matrix[op, 0]
    return (
        complex(table[0], table[1]),
        complex(table[2], table[3]),
        complex(table[4], table[5]),
        complex(table[6], table[7]),
    )


@compiled(inline=True)
def _put_matrix(place, a, b, c, d):
    write(place, 0, a.real)
    write(place, 1, a.imag)
    write(place, 2, b.real)
    write(place, 3, b.imag)
    write(place, 4, c.real)
    write(place, 5, c.imag)
    write(place, 6, d.real)
    write(place, 7, d.imag)


@compiled(spliced=True)
def _fuse(library, ops, slots, table, sines, step, words, following, place):
    """Make the gates of a run one; its matrix, and its inverse, are written to the address `place`."""
    word = STEP * step
    a, b, c, d = complex(1.0, 0.0), complex(0.0, 0.0), complex(0.0, 0.0), complex(1.0, 0.0)
    k = read(words, word + HEAD)
    while k >= 0:
        slot = slots[k]
        cos, sin = (read(table, slot), read(table, sines + slot)) if slot >= 0 else (1.0, 0.0)
        p, q, r, t = _matrix(library, ops[k], cos, sin)
        a, b, c, d = p * a + q * c, p * b + q * d, r * a + t * c, r * b + t * d
        k = read(following, k)
    _put_matrix(place, a, b, c, d)
    _put_matrix(place + 64, a.conjugate(), c.conjugate(), b.conjugate(), d.conjugate())
    real = a.imag == 0.0 and b.imag == 0.0 and c.imag == 0.0 and d.imag == 0.0
    write(words, word + KIND, 8 if real else 3)
    write(words, word + MATRIX, place)


@compiled(inline=True)
def _one_gate(words, step):
    return read(words, STEP * step + HEAD) == read(words, STEP * step + TAIL)


@compiled(spliced=True)
def _plan(library, ops, slots, table, sines, begin, size, words, numbers):
    """Gates from `begin` on as steps: runs of one-qubit gates on one qubit, and other gates. Returns their number.

    `words` has room for `STEP` + 2 numbers a gate, `numbers` for 2 + `MATRIX_SIZE` of them.
    """
    following = at(words, STEP * len(ops))
    before = at(following, len(ops))
    runs = np.full(64 if size >= FUSED else 0, -1)
    count = 0
    for k in range(begin, len(ops)):
        op, slot = ops[k], slots[k]
        if size >= FUSED:
            write(following, k, -1)
            write(before, k, -1)
            qubit, other = lowest_bit(library.first[op]), library.second[op]
            run = runs[qubit]
            if other == 0 and run >= 0:
                tail = read(words, STEP * run + TAIL)
                write(following, tail, k)
                write(before, k, tail)
                write(words, STEP * run + TAIL, k)
                write(words, STEP * run + TURNS, read(words, STEP * run + TURNS) + (1 if slot >= 0 else 0))
                continue
            runs[qubit] = count if other == 0 else -1
            while other:
                runs[lowest_bit(other)] = -1
                other &= other - 1
        _lone_step(library, op, slot, table, sines, k, count, words, numbers)
        count += 1
    for step in range(count if size >= FUSED else 0):
        if not _one_gate(words, step):
            place = numbers + 8 * (2 * len(ops) + MATRIX_SIZE * step)
            _fuse(library, ops, slots, table, sines, step, words, following, place)
    return count


@compiled(inline=True)
def _take(psi, size, words, numbers, step, bit, other, x, z, inverse, parts):
    """Apply a step, or its inverse, with its qubits and masks where they are in psi."""
    kind, matrix = read(words, STEP * step + KIND), read(words, STEP * step + MATRIX)
    c, s = read(numbers, 2 * step), read(numbers, 2 * step + 1)
    apply(psi, size, kind, bit, other, x, z, matrix, 0, c, -s if inverse else s, inverse, parts)


@compiled(inline=True)
def _undo(ket, size, words, numbers, step, bit, other, x, z, parts):
    """Undo a step on ket and on bra, which lies behind it.

    Returns Im <bra| P |ket> after the step for P = X, Y, Z on its qubit, or for its own P as the first number.
    """
    if read(words, STEP * step + TURNS) == 0:
        _take(ket, 2 * size, words, numbers, step, bit, other, x, z, True, parts)
        return 0.0, 0.0, 0.0
    kind = read(words, STEP * step + KIND)
    if _one_gate(words, step):
        c, s = read(numbers, 2 * step), read(numbers, 2 * step + 1)
        return _undo_rotation(ket, size, kind, bit, x, z, c, -s, parts), 0.0, 0.0
    bra, matrix = ket + 8 * size, read(words, STEP * step + MATRIX) + 64
    if kind == 8:
        m00, m01, m10, m11 = read(matrix, 0), read(matrix, 2), read(matrix, 4), read(matrix, 6)
        return 0.0, _undo_real(bra, ket, size, bit * parts, m00, m01, m10, m11), 0.0
    if parts == 1:
        return 0.0, 0.0, 0.0
    return _undo_one_qubit(bra, ket, size, 2 * bit, matrix, 0)


@compiled(inline=True)
def _before(library, op, c, s, x, y, z):
    """What Im <bra| P |ket> was before a gate, from what it is after it: P becomes G P G^-1."""
    cos, sin = c * c - s * s, 2.0 * c * s
    kind = library.kind[op]
    if kind == 0:
        return x, cos * y + sin * z, cos * z - sin * y
    if kind == 1:
        return cos * x - sin * z, y, cos * z + sin * x
    if kind == 2:
        return cos * x + sin * y, cos * y - sin * x, z
    p, q, r, t = _matrix(library, op, c, s)
    low = complex(x, y)
    # Rows of G^-1 N G with N = [[z, x - iy], [x + iy, -z]]; it has no trace.
    top, bottom = z * p + low.conjugate() * r, low * p - z * r
    right, below = z * q + low.conjugate() * t, low * q - z * t
    corner = p.conjugate() * top + r.conjugate() * bottom
    upper = p.conjugate() * right + r.conjugate() * below
    return upper.real, -upper.imag, corner.real


@compiled(inline=True)
def _add_slopes(library, ops, slots, table, sines, words, step, x, y, z, gradient):
    """Add what `_undo` returned to the derivatives in the angles of a step."""
    k = read(words, STEP * step + TAIL)
    if _one_gate(words, step):
        if slots[k] >= 0:
            write(gradient, slots[k], read(gradient, slots[k]) + x)
        return
    if read(words, STEP * step + TURNS) == 0:
        return
    before = at(words, (STEP + 1) * len(ops))
    while k >= 0:
        op, slot = ops[k], slots[k]
        c, s = 1.0, 0.0
        if slot >= 0:
            kind = library.kind[op]
            slope = x if kind == 0 else y if kind == 1 else z
            write(gradient, slot, read(gradient, slot) + slope)
            c, s = read(table, slot), read(table, sines + slot)
        x, y, z = _before(library, op, c, s, x, y, z)
        k = read(before, k)


# ---------------------------------------------------------------------- large states, block by block
@compiled(inline=True)
def _count(bits):
    number = 0
    while bits:
        number += 1
        bits &= bits - 1
    return number


@compiled(inline=True)
def _choose(words, begin, steps, done, start, way, members, parts):
    """Steps that one block can take, from `start` on, and the far bits it needs.

    A step is passed over if it needs other far bits; later ones may go before it if they share no qubit with it.
    """
    count = far = barred = 0
    k = start
    for _ in range(AHEAD):
        if k < begin or k >= steps:
            break
        if not done[k]:
            first, second = read(words, STEP * k + FIRST), read(words, STEP * k + SECOND)
            qubits = first | second
            need = far | (qubits * parts & -CHUNK)  # the bits that reach beyond a chunk
            if not qubits & barred and _count(need) <= FAR:
                far = need
                members[count] = k
                count += 1
            else:
                barred |= qubits
        k += way
    return count, far


@compiled(inline=True)
def _near(mask, places, parts):
    """A mask of qubits as it is inside a block."""
    bits = mask * parts
    near = bits & (CHUNK - 1)
    for j in range(FAR):
        if bits & places[j]:
            near |= CHUNK << j
    return near // parts


@compiled(inline=True)
def _copy_block(psi, buffer, start, places, inwards):
    for c in range(1 << FAR):
        offset = start
        for j in range(FAR):
            if c >> j & 1:
                offset += places[j]
        for i in range(0, CHUNK, LANES):
            if inwards:
                store(buffer, CHUNK * c + i, load8(psi, offset + i))
            else:
                store(psi, offset + i, load8(buffer, CHUNK * c + i))


@compiled(spliced=True)
def _through_block(words, numbers, buffer, members, places, sums, undo, parts):
    """Take a block, or the blocks of two states, through the steps `members`."""
    block = CHUNK << FAR
    for m in range(len(members)):
        step = members[m]
        word = STEP * step
        bit, other = _near(read(words, word + FIRST), places, parts), _near(read(words, word + SECOND), places, parts)
        x, z = _near(read(words, word + X_MASK), places, parts), _near(read(words, word + Z_MASK), places, parts)
        if undo:
            sx, sy, sz = _undo(buffer, block, words, numbers, step, bit, other, x, z, parts)
            write(sums, 3 * step, read(sums, 3 * step) + sx)
            write(sums, 3 * step + 1, read(sums, 3 * step + 1) + sy)
            write(sums, 3 * step + 2, read(sums, 3 * step + 2) + sz)
        else:
            _take(buffer, block, words, numbers, step, bit, other, x, z, False, parts)


@compiled(spliced=True)
def _through(words, numbers, psi, size, first, last, members, places, sums, undo, stop, parts):
    """Take the blocks from `first` to `last` of psi, or of the two states from psi on, through the steps `members`."""
    block = CHUNK << FAR
    memory = np.empty(2 * block)
    buffer = address(memory)
    for index in range(first, last):
        if stopped(stop):  # the meeting after the next one, at the latest, ends the calculation
            break
        start = index * CHUNK
        for j in range(FAR):  # room for the far bits, lowest first
            low = start & (places[j] - 1)
            start = (start - low) * 2 + low
        for state in range(2 if undo else 1):
            _copy_block(psi + 8 * size * state, buffer + 8 * block * state, start, places, True)
        _through_block(words, numbers, buffer, members, places, sums, undo, parts)
        for state in range(2 if undo else 1):
            _copy_block(psi + 8 * size * state, buffer + 8 * block * state, start, places, False)
    memory[0] = 0.0  # named by its address above, it lives to here


@compiled(inline=True)
def _goes_on(seat, stop):
    """All threads meet; False, for all of them, if they are to stop."""
    halt_if(seat, number(seat) == 0 and stopped(stop))
    return meet(seat)


@compiled()
def _sweep(words, numbers, begin, steps, psi, size, sums, room, undo, seat, stop, parts):
    """Take psi through the steps from `begin` on, or undo them on the two states from psi on; False if stopped.

    All threads of a team run this, each on its pieces of the state. To `sums`, `room` numbers for each piece and 3 of
    them for each step, what `_undo` returns is added.
    """
    done = np.zeros(steps, dtype=np.bool_)
    members = np.empty(AHEAD, dtype=np.int64)
    places = np.empty(FAR, dtype=np.int64)
    blocks = size // (CHUNK << FAR)
    first, last = share(seat, PIECES)
    k, way = (steps - 1, -1) if undo else (begin, 1)
    while begin <= k < steps:
        if done[k]:
            k += way
            continue
        count, far = _choose(words, begin, steps, done, k, way, members, parts)
        step = CHUNK
        while _count(far) < FAR:
            far |= step
            step *= 2
        for j in range(FAR):
            places[j] = far & -far
            far &= far - 1
        for m in range(count):
            done[members[m]] = True
        if not _goes_on(seat, stop):
            return False
        for piece in range(first, last):
            a, b = piece * blocks // PIECES, (piece + 1) * blocks // PIECES
            own = sums + 8 * room * piece
            _through(words, numbers, psi, size, a, b, members[:count], places, own, undo, stop, parts)
    # Twice: a thread that saw the flag left its share undone, where the leader may have looked before it was raised.
    return _goes_on(seat, stop) and _goes_on(seat, stop)


# ---------------------------------------------------------------------- whole circuits
@compiled(spliced=True)
def _start(library, ops, psi, size, seat, parts):
    """psi = the basis state that X gates at the start choose; returns the number of these gates."""
    first, last = 0, size
    if size >= BLOCKED:
        first, last = share(seat, PIECES)
        first, last = first * (size // PIECES), last * (size // PIECES)
    for i in range(first, last, LANES):
        store(psi, i, zero8())
    begin = basis = 0
    while begin < len(ops) and library.kind[ops[begin]] == 9:
        basis ^= library.first[ops[begin]]
        begin += 1
    if first <= parts * basis < last:
        write(psi, parts * basis, 1.0)
    return begin


@compiled(spliced=True)
def _forward(words, numbers, steps, psi, size, seat, stop, parts):
    """Take psi through all steps; False if it was stopped before."""
    if size >= BLOCKED:
        return _sweep(words, numbers, 0, steps, psi, size, 0, 0, False, seat, stop, parts)
    if stopped(stop):
        return False
    for step in range(steps):
        if size > SHORT and stopped(stop):
            return False
        word = STEP * step
        bit, other = read(words, word + FIRST), read(words, word + SECOND)
        x, z = read(words, word + X_MASK), read(words, word + Z_MASK)
        _take(psi, size, words, numbers, step, bit, other, x, z, False, parts)
    return True


@compiled(spliced=True)
def _energy(psi, size, masks, real, imag, complex_matrix, shared, seat, stop, parts):
    """The Hamiltonian times psi, written behind it; returns the energy, NaN if stopped.

    Threads of a team take a share of the rows; sums of the pieces are left in `shared`.
    """
    out = psi + 8 * size
    if size < BLOCKED:
        return _apply_hamiltonian(psi, out, size, masks, real, imag, complex_matrix, parts)
    first, last = share(seat, PIECES)
    rows = size // parts // PIECES
    if len(masks) > 0:
        for piece in range(first, last):
            a, b = piece * rows, (piece + 1) * rows
            write(shared, piece, _apply_rows(psi, out, a, b, masks, real, imag, complex_matrix, parts))
    elif number(seat) == 0:
        write(shared, 0, _apply_projector(psi, out, size, real, read(imag, 0), parts))
    if not _goes_on(seat, stop):
        return math.nan
    energy = 0.0
    for piece in range(PIECES if number(seat) == 0 else 0):  # the leader may have left with the memory
        energy += read(shared, piece)
    return energy


@compiled(spliced=True)
def _backward(library, ops, slots, table, sines, words, numbers, steps, ket, size, gradient, sums, seat, stop, parts):
    """Undo all steps on ket and on bra behind it; the leader writes the derivatives to `gradient`. False if stopped."""
    left = 0  # what is before the first angle need not be undone
    while left < steps and read(words, STEP * left + TURNS) == 0:
        left += 1
    if size >= BLOCKED:
        room = 3 * len(ops)
        if not _sweep(words, numbers, left, steps, ket, size, sums, room, True, seat, stop, parts):
            return False
        for step in range(left, steps if number(seat) == 0 else left):
            x, y, z = 0.0, 0.0, 0.0
            for piece in range(PIECES):
                place = room * piece + 3 * step
                x, y, z = x + read(sums, place), y + read(sums, place + 1), z + read(sums, place + 2)
            _add_slopes(library, ops, slots, table, sines, words, step, x, y, z, gradient)
        return True
    for step in range(steps - 1, left - 1, -1):
        if size > SHORT and stopped(stop):
            return False
        word = STEP * step
        bit, other = read(words, word + FIRST), read(words, word + SECOND)
        x, z = read(words, word + X_MASK), read(words, word + Z_MASK)
        sx, sy, sz = _undo(ket, size, words, numbers, step, bit, other, x, z, parts)
        _add_slopes(library, ops, slots, table, sines, words, step, sx, sy, sz, gradient)
    return True


@compiled(spliced=True)
def _evaluate(library, ops, slots, angles, masks, real, imag, ket, size, mode, gradient, shared, seat, stop, parts):
    """<H> after the circuit; by one reverse sweep its gradient too (Jones and Gacon, arXiv:2009.02823).

    Args:
        ket: address of two states of `size` numbers each, at least 8·parts; of one for mode `STATE`.
        mode: see `qas.simulators._entry`.
        shared: address of zeros that the threads of a team share: see `_shared_size`.
        seat: this thread's in its team.
        stop: address of a flag, read before each gate (see `SHORT`); where it is raised the result is NaN.
    """
    sines = _table_size(len(angles))
    memory, plan = np.empty(2 * sines + (2 + MATRIX_SIZE) * len(ops)), np.empty((STEP + 2) * len(ops), dtype=np.int64)
    table, words = address(memory), pointer(plan)
    numbers = table + 16 * sines
    _cos_sin(angles, table, sines)
    begin = _start(library, ops, ket, size, seat, parts)
    steps = _plan(library, ops, slots, table, sines, begin, size, words, numbers)
    energy = 0.0 if _forward(words, numbers, steps, ket, size, seat, stop, parts) else math.nan
    if mode != STATE and not math.isnan(energy):
        real_at, imag_at = address(real), address(imag)
        energy = _energy(ket, size, masks, real_at, imag_at, len(imag) > 0, shared, seat, stop, parts)
    if mode == GRADIENT and not math.isnan(energy):
        for k in range(len(gradient) if number(seat) == 0 else 0):
            gradient[k] = 0.0
        slopes, sums = address(gradient), shared + 8 * PIECES
        whole = _backward(
            library, ops, slots, table, sines, words, numbers, steps, ket, size, slopes, sums, seat, stop, parts
        )
        if not whole:
            energy = math.nan
    memory[:1] = 0.0  # they live to here
    plan[:1] = 0
    return energy


@compiled(inline=True)
def _shared_size(size, n_ops, mode):
    """Numbers that threads share: for large states an energy of each piece, and sums for each gate of each piece."""
    if size < BLOCKED or mode == STATE:
        return 0
    return PIECES + (3 * PIECES * n_ops if mode == GRADIENT else 0)


@compiled(spliced=True)
def _asked(table, seat):
    """What a table asks for, or this thread's share of it."""
    n_kinds, n_ops, n_angles = read(table, N_KINDS), read(table, N_OPS), read(table, N_ANGLES)
    library = Library(
        array_at(read(table, LIBRARY), n_kinds, np.int64),
        array_at(read(table, LIBRARY + 1), n_kinds, np.int64),
        array_at(read(table, LIBRARY + 2), n_kinds, np.int64),
        array_at(read(table, LIBRARY + 3), (n_kinds, 2, 8), np.float64),
        array_at(read(table, LIBRARY + 4), n_kinds, np.int64),
        array_at(read(table, LIBRARY + 5), n_kinds, np.int64),
    )
    return _evaluate(
        library,
        array_at(read(table, OPS), n_ops, np.int64),
        array_at(read(table, OPS + 1), n_ops, np.int64),
        array_at(read(table, ANGLES), n_angles, np.float64),
        array_at(read(table, OBSERVABLE), read(table, N_MASKS), np.int64),
        array_at(read(table, OBSERVABLE + 1), 1, np.float64),
        array_at(read(table, OBSERVABLE + 2), read(table, N_IMAGINARY), np.float64),
        read(table, KET),
        read(table, SIZE),
        read(table, MODE),
        array_at(read(table, SLOPES), n_angles, np.float64),
        read(table, SHARED),
        seat,
        read(table, STOP),
        read(table, PARTS),
    )


@Entry
def evaluate(where):
    """The entry point; see `qas.simulators._entry`. The state is left in the first half of the memory.

    All threads of a team run this, the helpers, whose mode is `SERVE`, until the team is dismissed.
    """
    table = pointer_to(where, np.int64)
    seat = pointer_to(read(table, SEAT), np.int64)
    serves, energy = read(table, MODE) == SERVE, math.nan
    while True:
        if serves:
            if called(seat) == LEAVE:
                return energy
            table = pointer_to(payload(seat), np.int64)
        memory = np.zeros(0 if serves else _shared_size(read(table, SIZE), read(table, N_OPS), read(table, MODE)))
        if not serves:
            write(table, SHARED, address(memory))
            calls(seat, 1, where)
        energy = _asked(table, seat)
        memory[:1] = 0.0  # it lives to here
        if not serves:
            return energy
