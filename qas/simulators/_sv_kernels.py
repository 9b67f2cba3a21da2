"""Compiled kernels of the state-vector engine. Gates are data; the reverse sweep un-applies them, so nothing is stored.

A state is a float64 vector of 2·2**n numbers, real and imaginary parts interleaved; four lanes hold the two amplitudes
that differ in qubit 0. Each leaf works on such pairs: on one of them for qubit 0, on two at a distance otherwise.

Kinds of operation:
    0 rx   1 ry   2 rz   3 one-qubit unitary   4 cx   5 cz   6 swap   7 two-qubit Pauli rotation
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._simd import (
    SHORT,
    address,
    get,
    load2_twice,
    load4,
    low_high,
    make4,
    mul,
    mul_add,
    put,
    reverse4,
    stopped,
    store4,
    sub,
    sum4,
    swap_halves,
    swap_parts,
    zero4,
)


class Library(NamedTuple):
    """Tables of all operations; the first axis counts operations."""

    kind: np.ndarray  # int64 (ops,)
    first: np.ndarray  # int64 (ops,): bit mask of the first qubit
    second: np.ndarray  # int64 (ops,): bit mask of the second qubit, or 0
    matrix: np.ndarray  # float64 (ops, 2, 8): the unitary and its inverse, rows of (re, im)
    x_mask: np.ndarray  # int64 (ops,): for Pauli rotations
    z_mask: np.ndarray  # int64 (ops,)


@compiled(inline=True)
def _rx(psi, size, bit, c, s):
    cc, ss = make4(c, c, c, c), make4(s, -s, s, -s)
    if bit == 1:
        for i in range(0, size, 4):
            v = load4(psi, i)
            store4(psi, i, mul_add(ss, reverse4(v), mul(cc, v)))
        return
    step = 2 * bit
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            a, b = load4(psi, i), load4(psi, i + step)
            store4(psi, i, mul_add(ss, swap_parts(b), mul(cc, a)))
            store4(psi, i + step, mul_add(ss, swap_parts(a), mul(cc, b)))


@compiled(inline=True)
def _ry(psi, size, bit, c, s):
    cc = make4(c, c, c, c)
    if bit == 1:
        ss = make4(-s, -s, s, s)
        for i in range(0, size, 4):
            v = load4(psi, i)
            store4(psi, i, mul_add(ss, swap_halves(v), mul(cc, v)))
        return
    plus, minus = make4(s, s, s, s), make4(-s, -s, -s, -s)
    step = 2 * bit
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            a, b = load4(psi, i), load4(psi, i + step)
            store4(psi, i, mul_add(minus, b, mul(cc, a)))
            store4(psi, i + step, mul_add(plus, a, mul(cc, b)))


@compiled(inline=True)
def _rz(psi, size, bit, c, s):
    cc = make4(c, c, c, c)
    if bit == 1:
        ss = make4(s, -s, -s, s)
        for i in range(0, size, 4):
            v = load4(psi, i)
            store4(psi, i, mul_add(ss, swap_parts(v), mul(cc, v)))
        return
    plus, minus = make4(s, -s, s, -s), make4(-s, s, -s, s)
    step = 2 * bit
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            a, b = load4(psi, i), load4(psi, i + step)
            store4(psi, i, mul_add(plus, swap_parts(a), mul(cc, a)))
            store4(psi, i + step, mul_add(minus, swap_parts(b), mul(cc, b)))


@compiled(inline=True)
def _one_qubit(psi, size, bit, table, row):
    r00, i00, r01, i01 = get(table, row), get(table, row + 1), get(table, row + 2), get(table, row + 3)
    r10, i10, r11, i11 = get(table, row + 4), get(table, row + 5), get(table, row + 6), get(table, row + 7)
    if bit == 1:
        own, own_turned = make4(r00, r00, r11, r11), make4(-i00, i00, -i11, i11)
        other, other_turned = make4(r01, r01, r10, r10), make4(-i01, i01, -i10, i10)
        for i in range(0, size, 4):
            v = load4(psi, i)
            total = mul_add(own_turned, swap_parts(v), mul(own, v))
            total = mul_add(other, swap_halves(v), total)
            store4(psi, i, mul_add(other_turned, reverse4(v), total))
        return
    a_r, a_i = make4(r00, r00, r00, r00), make4(-i00, i00, -i00, i00)
    b_r, b_i = make4(r01, r01, r01, r01), make4(-i01, i01, -i01, i01)
    c_r, c_i = make4(r10, r10, r10, r10), make4(-i10, i10, -i10, i10)
    d_r, d_i = make4(r11, r11, r11, r11), make4(-i11, i11, -i11, i11)
    step = 2 * bit
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            a, b = load4(psi, i), load4(psi, i + step)
            ta, tb = swap_parts(a), swap_parts(b)
            store4(psi, i, mul_add(a_i, ta, mul_add(b_r, b, mul_add(b_i, tb, mul(a_r, a)))))
            store4(psi, i + step, mul_add(c_i, ta, mul_add(d_r, b, mul_add(d_i, tb, mul(c_r, a)))))


@compiled(inline=True)
def _cx(psi, size, control, target):
    if control == 1:
        step = 2 * target
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, 4):
                a, b = load4(psi, i), load4(psi, i + step)
                store4(psi, i, low_high(a, b))
                store4(psi, i + step, low_high(b, a))
    elif target == 1:
        step = 2 * control
        for start in range(step, size, 2 * step):
            for i in range(start, start + step, 4):
                store4(psi, i, swap_halves(load4(psi, i)))
    else:
        low, high, move = 2 * min(control, target), 2 * max(control, target), 2 * target
        for start in range(0, size, 2 * high):
            for middle in range(start, start + high, 2 * low):
                first = middle + 2 * control
                for i in range(first, first + low, 4):
                    a = load4(psi, i)
                    store4(psi, i, load4(psi, i + move))
                    store4(psi, i + move, a)


@compiled(inline=True)
def _cz(psi, size, first, second):
    low, high = 2 * min(first, second), 2 * max(first, second)
    for start in range(high, size, 2 * high):
        for middle in range(start + low, start + high, 2 * low):
            for i in range(middle, middle + low):
                put(psi, i, -get(psi, i))


@compiled(inline=True)
def _swap(psi, size, first, second):
    low, high = 2 * min(first, second), 2 * max(first, second)
    for start in range(0, size, 2 * high):
        for middle in range(start, start + high, 2 * low):
            for i in range(middle, middle + low):
                a = get(psi, i + low)
                put(psi, i + low, get(psi, i + high))
                put(psi, i + high, a)


@compiled(inline=True)
def _phase(x_mask, z_mask, i):
    """(re, im) of f in P|i> = f |i ^ x>, for at most two letters Y."""
    both, bits = x_mask & z_mask, i & z_mask
    sign = 1.0
    while bits:
        sign = -sign
        bits &= bits - 1
    if both == 0:
        return sign, 0.0
    if both & (both - 1) == 0:
        return 0.0, sign
    return -sign, 0.0


@compiled(inline=True)
def _pauli_rotation(psi, size, x, z, c, s):
    for i in range(size >> 1):
        j = i ^ x
        if j < i:
            continue
        ar, ai, br, bi = get(psi, 2 * i), get(psi, 2 * i + 1), get(psi, 2 * j), get(psi, 2 * j + 1)
        # ψ' = c ψ - i s P ψ, and (P ψ)[i] = f(j) ψ[j].
        fr, fi = _phase(x, z, j)
        put(psi, 2 * i, c * ar + s * (fr * bi + fi * br))
        put(psi, 2 * i + 1, c * ai - s * (fr * br - fi * bi))
        if j != i:
            fr, fi = _phase(x, z, i)
            put(psi, 2 * j, c * br + s * (fr * ai + fi * ar))
            put(psi, 2 * j + 1, c * bi - s * (fr * ar - fi * ai))


@compiled(inline=True)
def apply(psi, size, kind, bit, other, x, z, matrix, op, c, s, inverse):
    """psi = gate psi in place, or its inverse; c and s are cos and sin of half the angle, s negated for an inverse.

    `psi` and `matrix` are addresses; `size` counts floats, 2·2**n.
    """
    if kind == 1:
        _ry(psi, size, bit, c, s)
    elif kind == 4:
        _cx(psi, size, bit, other)
    elif kind == 0:
        _rx(psi, size, bit, c, s)
    elif kind == 2:
        _rz(psi, size, bit, c, s)
    elif kind == 3:
        _one_qubit(psi, size, bit, matrix, 16 * op + (8 if inverse else 0))
    elif kind == 5:
        _cz(psi, size, bit, other)
    elif kind == 6:
        _swap(psi, size, bit, other)
    else:
        _pauli_rotation(psi, size, x, z, c, s)


@compiled(inline=True)
def _overlap_rx(bra, ket, size, bit):
    total, step = zero4(), 2 * bit
    if bit == 1:
        for i in range(0, size, 4):
            total = mul_add(load4(bra, i), reverse4(load4(ket, i)), total)
    else:
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, 4):
                total = mul_add(load4(bra, i), swap_parts(load4(ket, i + step)), total)
                total = mul_add(load4(bra, i + step), swap_parts(load4(ket, i)), total)
    return sum4(mul(make4(1.0, -1.0, 1.0, -1.0), total))


@compiled(inline=True)
def _overlap_ry(bra, ket, size, bit):
    total, minus, step = zero4(), zero4(), 2 * bit
    if bit == 1:
        for i in range(0, size, 4):
            total = mul_add(load4(bra, i), swap_halves(load4(ket, i)), total)
        return sum4(mul(make4(-1.0, -1.0, 1.0, 1.0), total))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            total = mul_add(load4(bra, i + step), load4(ket, i), total)
            minus = mul_add(load4(bra, i), load4(ket, i + step), minus)
    return sum4(sub(total, minus))


@compiled(inline=True)
def _overlap_rz(bra, ket, size, bit):
    total, minus, step = zero4(), zero4(), 2 * bit
    if bit == 1:
        for i in range(0, size, 4):
            total = mul_add(load4(bra, i), swap_parts(load4(ket, i)), total)
        return sum4(mul(make4(1.0, -1.0, -1.0, 1.0), total))
    for start in range(0, size, 2 * step):
        for i in range(start, start + step, 4):
            total = mul_add(load4(bra, i), swap_parts(load4(ket, i)), total)
            minus = mul_add(load4(bra, i + step), swap_parts(load4(ket, i + step)), minus)
    return sum4(mul(make4(1.0, -1.0, 1.0, -1.0), sub(total, minus)))


@compiled(inline=True)
def overlap(bra, ket, size, kind, bit, x, z):
    """Im <bra| P |ket> for the Pauli P of a rotation: the derivative of the energy in its angle."""
    if kind == 1:
        return _overlap_ry(bra, ket, size, bit)
    if kind == 0:
        return _overlap_rx(bra, ket, size, bit)
    if kind == 2:
        return _overlap_rz(bra, ket, size, bit)
    value = 0.0
    for i in range(size >> 1):
        j = i ^ x
        fr, fi = _phase(x, z, i)
        kr, ki = get(ket, 2 * i), get(ket, 2 * i + 1)
        value += get(bra, 2 * j) * (fr * ki + fi * kr) - get(bra, 2 * j + 1) * (fr * kr - fi * ki)
    return value


@compiled(inline=True)
def _apply_projector(psi, out, size, vector, sign):
    """out = sign |v><v|psi>; returns sign |<v|psi>|²."""
    re, im = 0.0, 0.0
    for i in range(0, size, 2):
        vr, vi, pr, pi = get(vector, i), get(vector, i + 1), get(psi, i), get(psi, i + 1)
        re += vr * pr + vi * pi
        im += vr * pi - vi * pr
    for i in range(0, size, 2):
        vr, vi = get(vector, i), get(vector, i + 1)
        put(out, i, sign * (vr * re - vi * im))
        put(out, i + 1, sign * (vr * im + vi * re))
    return sign * (re * re + im * im)


@compiled(inline=True)
def _apply_hamiltonian(psi, out, size, masks, real, imag, complex_matrix):
    """out = H psi from H's permuted diagonals (without masks: H is ± a projector); returns <psi|H|psi>."""
    if len(masks) == 0:
        return _apply_projector(psi, out, size, real, get(imag, 0))
    turn = make4(-1.0, 1.0, -1.0, 1.0)
    dimension = size >> 1
    energy = zero4()
    for i in range(0, dimension, 2):
        total = zero4()
        for m in range(len(masks)):
            x = masks[m]
            v = load4(psi, 2 * (i ^ (x & -2)))
            if x & 1:
                v = swap_halves(v)
            total = mul_add(load2_twice(real, m * dimension + i), v, total)
            if complex_matrix:
                total = mul_add(mul(turn, load2_twice(imag, m * dimension + i)), swap_parts(v), total)
        store4(out, 2 * i, total)
        energy = mul_add(load4(psi, 2 * i), total, energy)
    return sum4(energy)


@compiled(inline=True)
def _run(library, ops, slots, angles, psi, size, stop):
    """psi = circuit |0…0>; False if it was stopped before."""
    kind, first, second, x, z = library.kind, library.first, library.second, library.x_mask, library.z_mask
    matrix = address(library.matrix)
    for i in range(0, size, 4):
        store4(psi, i, zero4())
    put(psi, 0, 1.0)
    for k in range(len(ops)):
        if (k == 0 or size > SHORT) and stopped(stop):
            return False
        op, slot = ops[k], slots[k]
        c, s = 1.0, 0.0
        if slot >= 0:
            c, s = math.cos(0.5 * angles[slot]), math.sin(0.5 * angles[slot])
        apply(psi, size, kind[op], first[op], second[op], x[op], z[op], matrix, op, c, s, False)
    return True


@compiled()
def run(library, ops, slots, angles, psi, stop):
    """psi = circuit |0…0>, float64, shape (2·2**n,); False if it was stopped before."""
    return _run(library, ops, slots, angles, address(psi), len(psi), stop)


@compiled()
def value(library, ops, slots, angles, masks, real, imag, work, stop):
    """<H> after the circuit, NaN if it was stopped; `work` has 2 rows of 2·2**n."""
    size = work.shape[1]
    psi = address(work)
    if not _run(library, ops, slots, angles, psi, size, stop):
        return math.nan
    return _apply_hamiltonian(psi, psi + 8 * size, size, masks, address(real), address(imag), len(imag) > 0)


@compiled()
def value_and_gradient(library, ops, slots, angles, masks, real, imag, work, gradient, stop):
    """<H>, with its gradient written to `gradient`, by one reverse sweep (Jones and Gacon, arXiv:2009.02823).

    `stop` is the address of a flag, read before each gate (see `SHORT`); where it is raised the result is NaN.
    """
    size = work.shape[1]
    ket = address(work)
    bra = ket + 8 * size
    if not _run(library, ops, slots, angles, ket, size, stop):
        return math.nan
    energy = _apply_hamiltonian(ket, bra, size, masks, address(real), address(imag), len(imag) > 0)
    kind, first, second, x, z = library.kind, library.first, library.second, library.x_mask, library.z_mask
    matrix = address(library.matrix)
    for i in range(len(gradient)):
        gradient[i] = 0.0
    left = 0  # gates before the first angle need not be undone
    while left < len(ops) and slots[left] < 0:
        left += 1
    for k in range(len(ops) - 1, left - 1, -1):
        if size > SHORT and stopped(stop):
            return math.nan
        op, slot = ops[k], slots[k]
        c, s = 1.0, 0.0
        if slot >= 0:
            gradient[slot] += overlap(bra, ket, size, kind[op], first[op], x[op], z[op])
            c, s = math.cos(0.5 * angles[slot]), -math.sin(0.5 * angles[slot])
        if k > left:
            for side in range(2):
                psi = bra if side else ket
                apply(psi, size, kind[op], first[op], second[op], x[op], z[op], matrix, op, c, s, True)
    return energy
