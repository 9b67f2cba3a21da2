"""Compiled kernels of the state-vector engine. Gates are data; the reverse sweep un-applies them, so nothing is stored.

A state is a float64 vector of `parts`·2**n numbers: with two parts real and imaginary parts are interleaved, with one
the amplitudes are real, as they stay in a circuit of real gates. Qubit q then is bit q + parts - 1 of the number's
index, and most gates are the same linear map of that vector either way. Kernels read eight numbers at a time, so states
are padded to at least three qubits; those that are not there rest in |0>.

Kinds of operation:
    0 rx   1 ry   2 rz   3 one-qubit unitary   4 cx   5 cz   6 swap   7 Pauli rotation   8 real one-qubit unitary   9 x
Real amplitudes: 1, 4, 5, 6, 8 and 9.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._entry import ANGLES, ENGINE, MODE, N_ANGLES, SLOPES, STATE, STOP, VALUE, Entry, array_at
from qas.simulators._lanes import (
    SHORT,
    address,
    blend1,
    blend2,
    blend4,
    flip1,
    flip2,
    flip4,
    load8,
    minus,
    plus,
    read,
    splat8,
    stopped,
    store,
    times,
    times_plus,
    total,
    twice_high,
    twice_low,
    write,
    zero8,
)

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
AHEAD = 200
"""How many gates ahead are searched for those that fit into the same block."""


# Columns of the entry point's table: addresses of the arrays of a library, of a circuit, of an observable, of two
# states; and sizes.
LIBRARY, OPS, OBSERVABLE, KET = ENGINE, ENGINE + 6, ENGINE + 8, ENGINE + 11
N_KINDS, N_OPS, N_MASKS, N_IMAGINARY, SIZE, PARTS = range(ENGINE + 12, ENGINE + 18)


class Library(NamedTuple):
    """Tables of all operations; the first axis counts operations."""

    kind: np.ndarray  # int64 (ops,)
    first: np.ndarray  # int64 (ops,): bit mask of the first qubit
    second: np.ndarray  # int64 (ops,): bit mask of the second qubit, or 0
    matrix: np.ndarray  # float64 (ops, 2, 8): the unitary and its inverse, rows of (re, im)
    x_mask: np.ndarray  # int64 (ops,): for Pauli rotations
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
def _one_qubit(psi, size, step, table, row):
    r00, r01, r10, r11 = (
        splat8(read(table, row)),
        splat8(read(table, row + 2)),
        splat8(read(table, row + 4)),
        splat8(read(table, row + 6)),
    )
    i00 = blend1(splat8(-read(table, row + 1)), splat8(read(table, row + 1)))
    i01 = blend1(splat8(-read(table, row + 3)), splat8(read(table, row + 3)))
    i10 = blend1(splat8(-read(table, row + 5)), splat8(read(table, row + 5)))
    i11 = blend1(splat8(-read(table, row + 7)), splat8(read(table, row + 7)))
    if step < LANES:
        own, own_turned = _blend(r00, r11, step), _blend(i00, i11, step)
        other, other_turned = _blend(r01, r10, step), _blend(i01, i10, step)
        for i in range(0, size, LANES):
            v = load8(psi, i)
            w = _flip(v, step)
            sums = times_plus(own_turned, flip1(v), times(own, v))
            store(psi, i, times_plus(other_turned, flip1(w), times_plus(other, w, sums)))
        return
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            a, b = load8(psi, i), load8(psi, i + step)
            ta, tb = flip1(a), flip1(b)
            store(psi, i, times_plus(i00, ta, times_plus(r01, b, times_plus(i01, tb, times(r00, a)))))
            store(psi, i + step, times_plus(i10, ta, times_plus(r11, b, times_plus(i11, tb, times(r10, a)))))


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
def apply(psi, size, kind, bit, other, x, z, matrix, op, c, s, inverse, parts=2):
    """psi = gate psi in place, or its inverse; c and s are cos and sin of half the angle, s negated for an inverse.

    `psi` and `matrix` are addresses; `size` counts floats, parts·2**n. Two states beside each other count as one of
    twice the size.
    """
    step, other_step = bit * parts, other * parts
    if kind == 1:
        _real_one_qubit(psi, size, step, c, -s, s, c)
    elif kind == 4:
        _cx(psi, size, step, other_step)
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
def _undo_ry(bra, ket, size, step, c, s):
    cc, positive, negative = splat8(c), splat8(s), splat8(-s)
    sums, other = zero8(), zero8()
    if step < LANES:
        ss = _blend(negative, positive, step)
        for i in range(0, size, LANES):
            p, q = load8(bra, i), load8(ket, i)
            moved = _flip(q, step)
            sums = times_plus(p, moved, sums)
            store(ket, i, times_plus(ss, moved, times(cc, q)))
            store(bra, i, times_plus(ss, _flip(p, step), times(cc, p)))
        return total(times(_blend(splat8(-1.0), splat8(1.0), step), sums))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, LANES):
            pa, pb, qa, qb = load8(bra, i), load8(bra, i + step), load8(ket, i), load8(ket, i + step)
            sums = times_plus(pb, qa, sums)
            other = times_plus(pa, qb, other)
            store(ket, i, times_plus(negative, qb, times(cc, qa)))
            store(ket, i + step, times_plus(positive, qa, times(cc, qb)))
            store(bra, i, times_plus(negative, pb, times(cc, pa)))
            store(bra, i + step, times_plus(positive, pa, times(cc, pb)))
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


@compiled(inline=True)
def _undo_rotation(ket, size, kind, bit, x, z, c, s, parts):
    """Undo a rotation on ket and on bra, which lies behind it; returns Im <bra| P |ket>, the same before and after."""
    bra, step = ket + 8 * size, bit * parts
    if kind == 1:
        return _undo_ry(bra, ket, size, step, c, s)
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
def _apply_diagonals_real(psi, out, size, masks, real):
    energy = zero8()
    for i in range(0, size, LANES):
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
def _apply_diagonals(psi, out, size, masks, real, imag, complex_matrix):
    energy = zero8()
    for i in range(0, size >> 1, LANES):
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
def _apply_terms(psi, out, size, masks, coefficients, parts):
    """out = H psi from H's terms, block by block: no diagonal is ever stored. Layout of `masks`: see `observables`."""
    groups = masks[1]
    terms = masks[2 + 4 * groups :]
    dimension = size // parts
    block = min(BLOCK, dimension)
    buffer = np.empty(BLOCK)
    diagonal = address(buffer)
    energy = zero8()
    for start in range(0, dimension, block):
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
def _apply_hamiltonian(psi, out, size, masks, real, imag, complex_matrix, parts=2):
    """out = H psi, or Re(H) psi for real amplitudes; returns <psi|H|psi>. For the arrays see `observables`."""
    if len(masks) == 0:
        return _apply_projector(psi, out, size, real, read(imag, 0), parts)
    if masks[0] < 0:
        return _apply_terms(psi, out, size, masks, real, parts)
    if parts == 1:
        return _apply_diagonals_real(psi, out, size, masks, real)
    return _apply_diagonals(psi, out, size, masks, real, imag, complex_matrix)


# ---------------------------------------------------------------------- large states, block by block
@compiled(inline=True)
def _count(bits):
    number = 0
    while bits:
        number += 1
        bits &= bits - 1
    return number


@compiled(inline=True)
def _far(step, other_step):
    """The bits of a gate that reach beyond a chunk."""
    return (step if step >= CHUNK else 0) | (other_step if other_step >= CHUNK else 0)


@compiled(inline=True)
def _choose(library, ops, done, start, way, members, parts):
    """Gates that one block can take, from `start` on, and the far bits it needs.

    A gate is passed over if it needs other far bits; later ones may go before it if they share no qubit with it.
    """
    count = far = barred = 0
    k = start
    for _ in range(AHEAD):
        if k < 0 or k >= len(ops):
            break
        if not done[k]:
            op = ops[k]
            qubits = library.first[op] | library.second[op]
            need = far | _far(library.first[op] * parts, library.second[op] * parts)
            if not qubits & barred and _count(need) <= FAR:
                far = need
                members[count] = k
                count += 1
            else:
                barred |= qubits
        k += way
    return count, far


@compiled(inline=True)
def _near(step, places):
    """The bit inside a block that stands for `step` outside."""
    if step < CHUNK:
        return step
    for j in range(FAR):
        if places[j] == step:
            return CHUNK << j
    return 0


@compiled(inline=True)
def _moved(mask, first, bit, other):
    """A mask on the qubit `first` and another one, with `bit` and `other` in their places."""
    return (bit if mask & first else 0) | (other if mask & ~first else 0)


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


@compiled(inline=True)
def _through(library, ops, slots, table, sines, psi, size, members, places, gradient, undo, stop, parts):
    """Take each block of psi, or of the two states from psi on, through the gates `members`; False if stopped."""
    block = CHUNK << FAR
    memory = np.empty(2 * block)
    buffer = address(memory)
    matrix = address(library.matrix)
    for number in range(size // block):
        if stopped(stop):
            return False
        start = number * CHUNK
        for j in range(FAR):  # room for the far bits, lowest first
            low = start & (places[j] - 1)
            start = (start - low) * 2 + low
        for state in range(2 if undo else 1):
            _copy_block(psi + 8 * size * state, buffer + 8 * block * state, start, places, True)
        for m in range(len(members)):
            op, slot = ops[members[m]], slots[members[m]]
            kind, first, second = library.kind[op], library.first[op], library.second[op]
            bit, other = _near(first * parts, places) // parts, _near(second * parts, places) // parts
            x, z = _moved(library.x_mask[op], first, bit, other), _moved(library.z_mask[op], first, bit, other)
            c, s = 1.0, 0.0
            if slot >= 0:
                c, s = read(table, slot), read(table, sines + slot)
            if undo and slot >= 0:
                slope = _undo_rotation(buffer, block, kind, bit, x, z, c, -s, parts)
                write(gradient, slot, read(gradient, slot) + slope)
            else:
                floats = 2 * block if undo else block
                apply(buffer, floats, kind, bit, other, x, z, matrix, op, c, s, undo, parts)
        for state in range(2 if undo else 1):
            _copy_block(psi + 8 * size * state, buffer + 8 * block * state, start, places, False)
    memory[0] = 0.0  # named by its address above, it lives to here
    return True


@compiled()
def _sweep(library, ops, slots, table, sines, psi, size, begin, gradient, undo, stop, parts):
    """Take psi through the gates from `begin` on, or undo them on the two states from psi on; False if stopped.

    `gradient`, `psi` and `table` are addresses; of the sweep that undoes, `gradient` receives the slopes.
    """
    ops, slots = ops[begin:], slots[begin:]
    done = np.zeros(len(ops), dtype=np.bool_)
    members = np.empty(AHEAD, dtype=np.int64)
    places = np.empty(FAR, dtype=np.int64)
    k, way = (len(ops) - 1, -1) if undo else (0, 1)
    while 0 <= k < len(ops):
        if done[k]:
            k += way
            continue
        count, far = _choose(library, ops, done, k, way, members, parts)
        step = CHUNK
        while _count(far) < FAR:
            far |= step
            step *= 2
        for j in range(FAR):
            places[j] = far & -far
            far &= far - 1
        for m in range(count):
            done[members[m]] = True
        if not _through(
            library, ops, slots, table, sines, psi, size, members[:count], places, gradient, undo, stop, parts
        ):
            return False
    return True


# ---------------------------------------------------------------------- whole circuits
@compiled(inline=True)
def _forward(library, ops, slots, table, sines, psi, size, stop, parts):
    """psi = circuit |0…0>; False if it was stopped before. `table` as `_cos_sin` writes it, sines from `sines` on."""
    kind, first, second, x, z = library.kind, library.first, library.second, library.x_mask, library.z_mask
    matrix = address(library.matrix)
    for i in range(0, size, LANES):
        store(psi, i, zero8())
    begin = basis = 0
    while begin < len(ops) and kind[ops[begin]] == 9:  # X gates at the start choose the basis state to start from
        basis ^= first[ops[begin]]
        begin += 1
    write(psi, parts * basis, 1.0)
    if stopped(stop):
        return False
    if size >= BLOCKED:
        return _sweep(library, ops, slots, table, sines, psi, size, begin, 0, False, stop, parts)
    for k in range(begin, len(ops)):
        if size > SHORT and stopped(stop):
            return False
        op, slot = ops[k], slots[k]
        c, s = 1.0, 0.0
        if slot >= 0:
            c, s = read(table, slot), read(table, sines + slot)
        apply(psi, size, kind[op], first[op], second[op], x[op], z[op], matrix, op, c, s, False, parts)
    return True


@compiled(inline=True)
def _run(library, ops, slots, angles, psi, size, stop, parts=2):
    """psi = circuit |0…0>; False if it was stopped before."""
    sines = _table_size(len(angles))
    table = np.empty(2 * sines)
    _cos_sin(angles, address(table), sines)
    result = _forward(library, ops, slots, address(table), sines, psi, size, stop, parts)
    table[0] = 0.0  # it lives to here
    return result


@compiled()
def run(library, ops, slots, angles, psi, stop, parts=2):
    """psi = circuit |0…0>, float64, shape (parts·2**n,), at least 8·parts; False if it was stopped before."""
    return _run(library, ops, slots, angles, address(psi), len(psi), stop, parts)


@compiled(inline=True)
def _evaluate(library, ops, slots, angles, masks, real, imag, ket, size, mode, gradient, stop, parts):
    """<H> after the circuit; by one reverse sweep its gradient too (Jones and Gacon, arXiv:2009.02823).

    Args:
        ket: address of two states of `size` numbers each, at least 8·parts.
        mode: see `qas.simulators._entry`.
        stop: address of a flag, read before each gate (see `SHORT`); where it is raised the result is NaN.
    """
    sines = _table_size(len(angles))
    angle_table = np.empty(2 * sines)
    table = address(angle_table)
    _cos_sin(angles, table, sines)
    if not _forward(library, ops, slots, table, sines, ket, size, stop, parts):
        return math.nan
    if mode == STATE:
        angle_table[0] = 0.0  # it lives to here
        return 0.0
    energy = _apply_hamiltonian(ket, ket + 8 * size, size, masks, address(real), address(imag), len(imag) > 0, parts)
    if mode == VALUE:
        angle_table[0] = 0.0
        return energy
    kind, first, second, x, z = library.kind, library.first, library.second, library.x_mask, library.z_mask
    matrix = address(library.matrix)
    for i in range(len(gradient)):
        gradient[i] = 0.0
    left = 0  # gates before the first angle need not be undone
    while left < len(ops) and slots[left] < 0:
        left += 1
    if size >= BLOCKED:
        whole = _sweep(library, ops, slots, table, sines, ket, size, left, address(gradient), True, stop, parts)
        angle_table[0] = 0.0
        return energy if whole else math.nan
    for k in range(len(ops) - 1, left - 1, -1):
        if size > SHORT and stopped(stop):
            return math.nan
        op, slot = ops[k], slots[k]
        if slot >= 0:
            c, s = read(table, slot), -read(table, sines + slot)
            gradient[slot] += _undo_rotation(ket, size, kind[op], first[op], x[op], z[op], c, s, parts)
        else:
            c, s = 1.0, 0.0
            apply(ket, 2 * size, kind[op], first[op], second[op], x[op], z[op], matrix, op, c, s, True, parts)
    angle_table[0] = 0.0  # it lives to here
    return energy


@Entry
def evaluate(where):
    """The entry point; see `qas.simulators._entry`. The state is left in the first half of the memory."""
    table = array_at(where, PARTS + 1, np.int64)
    n_kinds = table[N_KINDS]
    library = Library(
        array_at(table[LIBRARY], n_kinds, np.int64),
        array_at(table[LIBRARY + 1], n_kinds, np.int64),
        array_at(table[LIBRARY + 2], n_kinds, np.int64),
        array_at(table[LIBRARY + 3], (n_kinds, 2, 8), np.float64),
        array_at(table[LIBRARY + 4], n_kinds, np.int64),
        array_at(table[LIBRARY + 5], n_kinds, np.int64),
    )
    ops, slots = array_at(table[OPS], table[N_OPS], np.int64), array_at(table[OPS + 1], table[N_OPS], np.int64)
    angles, stop = array_at(table[ANGLES], table[N_ANGLES], np.float64), table[STOP]
    masks = array_at(table[OBSERVABLE], table[N_MASKS], np.int64)
    real = array_at(table[OBSERVABLE + 1], 1, np.float64)
    imag = array_at(table[OBSERVABLE + 2], table[N_IMAGINARY], np.float64)
    slopes = array_at(table[SLOPES], table[N_ANGLES], np.float64)
    ket, size, parts = table[KET], table[SIZE], table[PARTS]
    return _evaluate(library, ops, slots, angles, masks, real, imag, ket, size, table[MODE], slopes, stop, parts)
