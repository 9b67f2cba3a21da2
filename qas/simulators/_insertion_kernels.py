"""Compiled kernels of insertion gradients: dE/dθ at θ = 0 of exp(-iθP/2) put anywhere into a circuit, for many P.

One reverse sweep holds the state and the adjoint state at every position. A string on qubits that the gate just undone
does not touch keeps its value, so after each gate only strings that touch its qubits are computed again. Strings on one
and two qubits come in blocks: one pass over both vectors gives all nine strings of a pair. Wider strings are grouped by
their X-mask: the products of one group are formed once, and a Walsh-Hadamard transform sums them with all signs.

The first half works on complex states (see `_sv_kernels`), the second on vectors of Pauli expectation values (see
`_ptm_kernels`). Vectors are named by their addresses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators import _ptm_kernels, _sv_kernels
from qas.simulators._compile import compiled
from qas.simulators._simd import (
    SHORT,
    add,
    address,
    get,
    load4,
    make4,
    mul,
    mul_add,
    odd,
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


class Groups(NamedTuple):
    """Pauli strings that share an X-mask and the parity of their number of Y; one row each, sorted by group."""

    x: np.ndarray  # int64 (groups,)
    odd_y: np.ndarray  # int64 (groups,): 1 where the number of Y is odd
    start: np.ndarray  # int64 (groups + 1,): first row of each group
    z: np.ndarray  # int64 (rows,)
    support: np.ndarray  # int64 (rows,): bit mask of the qubits acted on
    index: np.ndarray  # int64 (rows,): the string in base 4, digit q the letter of qubit q in the order I X Y Z
    sign: np.ndarray  # float64 (rows,): 1 or -1, the part of i**(number of Y) that the parity leaves
    column: np.ndarray  # int64 (rows,): where the value belongs


class Strings(NamedTuple):
    """Pauli strings by what computes them: blocks of one qubit, blocks of two, and groups of wider ones."""

    qubit: np.ndarray  # int64 (singles,)
    single: np.ndarray  # int64 (singles, 4): column of each letter, -1: not asked for
    low: np.ndarray  # int64 (pairs,)
    high: np.ndarray  # int64 (pairs,)
    pair: np.ndarray  # int64 (pairs, 16): column of (letter of low) + 4 (letter of high), -1: not asked for
    wide: Groups


@compiled(inline=True)
def _keep(row, columns, block, local, value):
    column = columns[block, local]
    if column >= 0:
        row[column] = value


# ---------------------------------------------------------------------- states
@compiled(inline=True)
def _sv_single(bra, ket, size, bit, row, columns, block):
    """Im <bra|P|ket> for P = X, Y, Z on one qubit."""
    x, y, z, step = zero4(), zero4(), zero4(), 2 * bit
    imaginary = make4(1.0, -1.0, 1.0, -1.0)
    if bit == 1:
        for i in range(0, size, 4):
            l, k = load4(bra, i), load4(ket, i)
            x = mul_add(l, reverse4(k), x)
            y = mul_add(l, swap_halves(k), y)
            z = mul_add(l, swap_parts(k), z)
        y, z = mul(make4(-1.0, -1.0, 1.0, 1.0), y), mul(make4(1.0, -1.0, -1.0, 1.0), z)
    else:
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, 4):
                l, m, k, h = load4(bra, i), load4(bra, i + step), load4(ket, i), load4(ket, i + step)
                tk, th = swap_parts(k), swap_parts(h)
                x = mul_add(l, th, mul_add(m, tk, x))
                y = sub(mul_add(m, k, y), mul(l, h))
                z = sub(mul_add(l, tk, z), mul(m, th))
        z = mul(imaginary, z)
    _keep(row, columns, block, 1, sum4(mul(imaginary, x)))
    _keep(row, columns, block, 2, sum4(y))
    _keep(row, columns, block, 3, sum4(z))


@compiled(inline=True)
def _sv_pair(bra, ket, size, low, high, row, columns, block):
    """Im <bra|PQ|ket> for all nine P, Q on two qubits, given by their bits; low > 1."""
    a, b = 2 * low, 2 * high
    xz, yz, zz, zx, zy = zero4(), zero4(), zero4(), zero4(), zero4()
    same, other, same_turned, other_turned = zero4(), zero4(), zero4(), zero4()
    for start in range(0, size, 2 * b):
        for middle in range(start, start + b, 2 * a):
            for i in range(middle, middle + a, 4):
                l0, l1, l2, l3 = load4(bra, i), load4(bra, i + a), load4(bra, i + b), load4(bra, i + a + b)
                k0, k1, k2, k3 = load4(ket, i), load4(ket, i + a), load4(ket, i + b), load4(ket, i + a + b)
                t0, t1, t2, t3 = swap_parts(k0), swap_parts(k1), swap_parts(k2), swap_parts(k3)
                zz = mul_add(l3, t3, sub(sub(mul_add(l0, t0, zz), mul(l1, t1)), mul(l2, t2)))
                xz = sub(sub(mul_add(l0, t1, mul_add(l1, t0, xz)), mul(l3, t2)), mul(l2, t3))
                yz = mul_add(l2, k3, sub(sub(mul_add(l1, k0, yz), mul(l0, k1)), mul(l3, k2)))
                zx = sub(sub(mul_add(l0, t2, mul_add(l2, t0, zx)), mul(l3, t1)), mul(l1, t3))
                zy = mul_add(l1, k3, sub(sub(mul_add(l2, k0, zy), mul(l0, k2)), mul(l3, k1)))
                same = mul_add(l0, t3, mul_add(l3, t0, same))
                other = mul_add(l1, t2, mul_add(l2, t1, other))
                same_turned = sub(mul_add(l3, k0, same_turned), mul(l0, k3))
                other_turned = sub(mul_add(l2, k1, other_turned), mul(l1, k2))
    imaginary = make4(1.0, -1.0, 1.0, -1.0)
    _keep(row, columns, block, 5, sum4(mul(imaginary, add(other, same))))
    _keep(row, columns, block, 6, sum4(sub(same_turned, other_turned)))
    _keep(row, columns, block, 7, sum4(mul(imaginary, zx)))
    _keep(row, columns, block, 9, sum4(add(same_turned, other_turned)))
    _keep(row, columns, block, 10, sum4(mul(imaginary, sub(other, same))))
    _keep(row, columns, block, 11, sum4(zy))
    _keep(row, columns, block, 13, sum4(mul(imaginary, xz)))
    _keep(row, columns, block, 14, sum4(yz))
    _keep(row, columns, block, 15, sum4(mul(imaginary, zz)))


@compiled(inline=True)
def _sv_pair_with_lanes(bra, ket, size, high, row, columns, block):
    """As `_sv_pair` where the lower qubit is qubit 0, whose two amplitudes lie beside each other in the lanes."""
    b = 2 * high
    xz, yz, zz, zx, zy = zero4(), zero4(), zero4(), zero4(), zero4()
    up, down, up_turned, down_turned = zero4(), zero4(), zero4(), zero4()
    for start in range(0, size, 2 * b):
        for i in range(start, start + b, 4):
            l, m, k, h = load4(bra, i), load4(bra, i + b), load4(ket, i), load4(ket, i + b)
            zz = sub(mul_add(l, swap_parts(k), zz), mul(m, swap_parts(h)))
            xz = sub(mul_add(l, reverse4(k), xz), mul(m, reverse4(h)))
            yz = sub(mul_add(l, swap_halves(k), yz), mul(m, swap_halves(h)))
            zx = mul_add(m, swap_parts(k), mul_add(l, swap_parts(h), zx))
            zy = sub(mul_add(m, k, zy), mul(l, h))
            up, down = mul_add(m, reverse4(k), up), mul_add(l, reverse4(h), down)
            up_turned, down_turned = mul_add(m, swap_halves(k), up_turned), mul_add(l, swap_halves(h), down_turned)
    imaginary, alternating = make4(1.0, -1.0, 1.0, -1.0), make4(1.0, -1.0, -1.0, 1.0)
    second = make4(-1.0, -1.0, 1.0, 1.0)
    _keep(row, columns, block, 5, sum4(mul(imaginary, add(up, down))))
    _keep(row, columns, block, 6, sum4(mul(second, add(up_turned, down_turned))))
    _keep(row, columns, block, 7, sum4(mul(alternating, zx)))
    _keep(row, columns, block, 9, sum4(sub(up_turned, down_turned)))
    _keep(row, columns, block, 10, sum4(mul(alternating, sub(up, down))))
    _keep(row, columns, block, 11, -sum4(mul(second, zy)))
    _keep(row, columns, block, 13, sum4(mul(imaginary, xz)))
    _keep(row, columns, block, 14, sum4(mul(second, yz)))
    _keep(row, columns, block, 15, sum4(mul(alternating, zz)))


@compiled(inline=True)
def _walsh_hadamard(vector, size):
    """Replace v[i] by Σ_j (-1)^{i·j} v[j] in place."""
    if size == 2:
        a, b = get(vector, 0), get(vector, 1)
        put(vector, 0, a + b)
        put(vector, 1, a - b)
        return
    odd_signs, high_signs = make4(1.0, -1.0, 1.0, -1.0), make4(1.0, 1.0, -1.0, -1.0)
    for i in range(0, size, 4):
        v = load4(vector, i)
        v = mul_add(odd_signs, v, swap_parts(v))
        store4(vector, i, mul_add(high_signs, v, swap_halves(v)))
    half = 4
    while half < size:
        for start in range(0, size, 2 * half):
            for i in range(start, start + half, 4):
                a, b = load4(vector, i), load4(vector, i + half)
                store4(vector, i, add(a, b))
                store4(vector, i + half, sub(a, b))
        half *= 2


@compiled(inline=True)
def _products(bra, ket, dimension, x, imaginary, scratch):
    """scratch[i] = real or imaginary part of conj(bra[i ^ x]) ket[i]."""
    for i in range(dimension):
        j = i ^ x
        lr, li, kr, ki = get(bra, 2 * j), get(bra, 2 * j + 1), get(ket, 2 * i), get(ket, 2 * i + 1)
        put(scratch, i, lr * ki - li * kr if imaginary else lr * kr + li * ki)


@compiled()
def _sv_groups(bra, ket, size, groups, touched, expectation, row, scratch):
    """Im <bra|P|ket> of all strings that touch a qubit of `touched`, or, as an expectation, Re <ket|P|ket>."""
    dimension = size >> 1
    for g in range(len(groups.x)):
        first, last = groups.start[g], groups.start[g + 1]
        while first < last and groups.support[first] & touched == 0:
            first += 1
        if first == last:
            continue
        odd_y = groups.odd_y[g] == 1
        _products(bra, ket, dimension, groups.x[g], odd_y == expectation, scratch)
        _walsh_hadamard(scratch, dimension)
        sign = -1.0 if expectation and odd_y else 1.0
        for r in range(first, last):
            if groups.support[r] & touched != 0:
                row[groups.column[r]] = sign * groups.sign[r] * get(scratch, groups.z[r])


@compiled()
def sv_values(bra, ket, size, strings, touched, row, scratch):
    """row[column of P] = Im <bra|P|ket> for all strings that touch a qubit of the bit mask `touched`.

    Args:
        bra: address of a state (see `_sv_kernels`), as are `ket` and, with 2**n numbers, `scratch`.
        size: 2·2**n.
        row: float64 (strings,); values of other strings stay.
    """
    for s in range(len(strings.qubit)):
        bit = 1 << strings.qubit[s]
        if bit & touched:
            _sv_single(bra, ket, size, bit, row, strings.single, s)
    for p in range(len(strings.low)):
        low, high = 1 << strings.low[p], 1 << strings.high[p]
        if (low | high) & touched:
            if low == 1:
                _sv_pair_with_lanes(bra, ket, size, high, row, strings.pair, p)
            else:
                _sv_pair(bra, ket, size, low, high, row, strings.pair, p)
    if len(strings.wide.x):
        _sv_groups(bra, ket, size, strings.wide, touched, False, row, scratch)


@compiled()
def sv_sweep(library, ops, slots, angles, masks, real, imag, work, starts, strings, values, stop):
    """Insertion gradients of all strings at all positions; returns the energy, NaN if stopped.

    Args:
        starts: int64 (gates + 1,): first operation of each gate, and their number.
        values: float64 (gates + 1, strings), receives the result.
    """
    size = work.shape[1]
    ket = address(work)
    bra = ket + 8 * size
    if not _sv_kernels._run(library, ops, slots, angles, ket, size, stop):
        return math.nan
    energy = _sv_kernels._apply_hamiltonian(ket, bra, size, masks, address(real), address(imag), len(imag) > 0)
    kind, first, second, x, z = library.kind, library.first, library.second, library.x_mask, library.z_mask
    matrix = address(library.matrix)
    products = np.empty(size >> 1)
    scratch = address(products)
    row = np.zeros(values.shape[1])
    sv_values(bra, ket, size, strings, -1, row, scratch)
    gates = len(starts) - 1
    values[gates] = row
    for gate in range(gates - 1, -1, -1):
        if size > SHORT and stopped(stop):
            return math.nan
        touched = 0
        for k in range(starts[gate + 1] - 1, starts[gate] - 1, -1):
            op, slot = ops[k], slots[k]
            c, s = 1.0, 0.0
            if slot >= 0:
                c, s = math.cos(0.5 * angles[slot]), -math.sin(0.5 * angles[slot])
            touched |= first[op] | second[op]
            for side in range(2):
                psi = bra if side else ket
                _sv_kernels.apply(psi, size, kind[op], first[op], second[op], x[op], z[op], matrix, op, c, s, True)
        sv_values(bra, ket, size, strings, touched, row, scratch)
        values[gate] = row
    products[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return energy


@compiled()
def sv_append(
    library, ops, slots, angles, masks, real, imag, work, strings, terms, weight, gradient, falls, stop
):
    """Slopes of all strings at the end, and half of how far the energy falls at θ = π; returns the energy.

    Args:
        terms: `Groups` of the Hamiltonian's terms, `column` their place in `weight`, their coefficients.
        gradient: float64 (strings,), receives the slopes at θ = 0.
        falls: float64 (strings,), receives (E(0) - E(π)) / 2.
    """
    size = work.shape[1]
    ket = address(work)
    bra = ket + 8 * size
    if not _sv_kernels._run(library, ops, slots, angles, ket, size, stop):
        return math.nan
    energy = _sv_kernels._apply_hamiltonian(ket, bra, size, masks, address(real), address(imag), len(imag) > 0)
    products = np.empty(size >> 1)
    scratch = address(products)
    sv_values(bra, ket, size, strings, -1, gradient, scratch)
    parts = np.empty(len(weight))
    _sv_groups(ket, ket, size, terms, -1, True, parts, scratch)
    ordered = np.empty(len(weight))
    for r in range(len(weight)):
        ordered[r] = weight[terms.column[r]] * parts[terms.column[r]]
    sum_of_anticommuting(terms.index, ordered, strings, falls)
    products[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return energy


# ---------------------------------------------------------------------- what changes sign
@compiled(inline=True)
def _letter(index, qubit):
    return (index >> (2 * qubit)) & 3


@compiled()
def sum_of_anticommuting(index, parts, strings, sums):
    """sums[column of P] = Σ of the parts of an energy whose strings anticommute with P.

    P H P turns the sign of these parts, so the sum is (E(0) - E(π)) / 2 of the rotation about P.

    Args:
        index: int64 (parts,), strings in base 4, digit q the letter of qubit q in the order I X Y Z.
        parts: float64 (parts,), coefficient times expectation value.
    """
    bins = np.empty(16)
    for s in range(len(strings.qubit)):
        bins[:] = 0.0
        for t in range(len(index)):
            bins[_letter(index[t], strings.qubit[s])] += parts[t]
        total = bins[1] + bins[2] + bins[3]
        for letter in range(1, 4):
            _keep(sums, strings.single, s, letter, total - bins[letter])
    for p in range(len(strings.low)):
        bins[:] = 0.0
        low, high = strings.low[p], strings.high[p]
        for t in range(len(index)):
            bins[_letter(index[t], low) + 4 * _letter(index[t], high)] += parts[t]
        for local in range(5, 16):
            if strings.pair[p, local] >= 0:
                total = 0.0
                for other in range(1, 16):
                    if _anticommute(local, other):
                        total += bins[other]
                sums[strings.pair[p, local]] = total
    wide = strings.wide
    for r in range(len(wide.index)):
        total = 0.0
        for t in range(len(index)):
            if _anticommute(wide.index[r], index[t]):
                total += parts[t]
        sums[wide.column[r]] = total


_LOW_BITS = 0x5555555555555555


@compiled(inline=True)
def _anticommute(p, q):
    """Whether two strings in base 4 anticommute."""
    return odd(((p & (q >> 1)) ^ ((p >> 1) & q)) & _LOW_BITS)


# ---------------------------------------------------------------------- vectors of Pauli expectation values
# A rotation about P turns each string Q that anticommutes with P: with Q P = i s R (R is the bitwise xor of their base-4
# digits, s = 1 or -1), dv_Q/dθ = s v_R, so the derivative of Σ λ_Q v_Q is the sum of s (λ_Q v_R - λ_R v_Q) over the
# unordered pairs {Q, R}. On one qubit Z·X = iY, X·Y = iZ, Y·Z = iX.
@compiled(inline=True)
def _turned(bra, ket, i, q, r, total):
    """total + λ_Q v_R - λ_R v_Q"""
    return sub(mul_add(load4(bra, i + q), load4(ket, i + r), total), mul(load4(bra, i + r), load4(ket, i + q)))


@compiled(inline=True)
def _turned_pair(bra, ket, i, la, a0, a1, lb, b0, b1, total):
    """The four pairs of strings turned by a rotation about two letters la and lb (all as offsets).

    a0·la = i a1 on the first qubit, b0·lb = i b1 on the second.
    """
    total = _turned(bra, ket, i, a0, a1 + lb, total)
    total = _turned(bra, ket, i, a0 + lb, a1, total)
    total = _turned(bra, ket, i, b0, la + b1, total)
    return _turned(bra, ket, i, la + b0, b1, total)


@compiled(inline=True)
def _ptm_single(bra, ket, size, qubit, row, columns, block):
    x, y, z = zero4(), zero4(), zero4()
    if qubit == 0:
        for i in range(0, size, 4):
            l, k = load4(bra, i), load4(ket, i)
            x = mul_add(l, swap_parts(k), x)
            y = mul_add(l, swap_halves(k), y)
            z = mul_add(l, reverse4(k), z)
        x = mul(make4(0.0, 0.0, -1.0, 1.0), x)
        y = mul(make4(0.0, 1.0, 0.0, -1.0), y)
        z = mul(make4(0.0, -1.0, 1.0, 0.0), z)
    else:
        one = 1 << (2 * qubit)
        two, three = 2 * one, 3 * one
        for start in range(0, size, 4 * one):
            for i in range(start, start + one, 4):
                x = _turned(bra, ket, i, three, two, x)
                y = _turned(bra, ket, i, one, three, y)
                z = _turned(bra, ket, i, two, one, z)
    _keep(row, columns, block, 1, sum4(x))
    _keep(row, columns, block, 2, sum4(y))
    _keep(row, columns, block, 3, sum4(z))


@compiled(inline=True)
def _ptm_pair(bra, ket, size, low, high, row, columns, block):
    """All nine strings of two qubits, low > 0, in one pass."""
    xx, yx, zx, xy, yy, zy = zero4(), zero4(), zero4(), zero4(), zero4(), zero4()
    xz, yz, zz = zero4(), zero4(), zero4()
    a, b = 1 << (2 * low), 1 << (2 * high)
    a2, a3, b2, b3 = 2 * a, 3 * a, 2 * b, 3 * b
    for start in range(0, size, 4 * b):
        for middle in range(start, start + b, 4 * a):
            for i in range(middle, middle + a, 4):
                xx = _turned_pair(bra, ket, i, a, a3, a2, b, b3, b2, xx)
                yx = _turned_pair(bra, ket, i, a2, a, a3, b, b3, b2, yx)
                zx = _turned_pair(bra, ket, i, a3, a2, a, b, b3, b2, zx)
                xy = _turned_pair(bra, ket, i, a, a3, a2, b2, b, b3, xy)
                yy = _turned_pair(bra, ket, i, a2, a, a3, b2, b, b3, yy)
                zy = _turned_pair(bra, ket, i, a3, a2, a, b2, b, b3, zy)
                xz = _turned_pair(bra, ket, i, a, a3, a2, b3, b2, b, xz)
                yz = _turned_pair(bra, ket, i, a2, a, a3, b3, b2, b, yz)
                zz = _turned_pair(bra, ket, i, a3, a2, a, b3, b2, b, zz)
    _keep(row, columns, block, 5, sum4(xx))
    _keep(row, columns, block, 6, sum4(yx))
    _keep(row, columns, block, 7, sum4(zx))
    _keep(row, columns, block, 9, sum4(xy))
    _keep(row, columns, block, 10, sum4(yy))
    _keep(row, columns, block, 11, sum4(zy))
    _keep(row, columns, block, 13, sum4(xz))
    _keep(row, columns, block, 14, sum4(yz))
    _keep(row, columns, block, 15, sum4(zz))


@compiled(inline=True)
def _ptm_letter_with_lanes(bra, ket, size, high, m, c, d, row, columns, block, letter):
    """The three strings of qubit 0 with one letter of another qubit: m its offset, c·m = i d.

    The letters of qubit 0 are the lanes: a letter on it permutes them. `free` sums where the other qubit's letter
    commutes with m, so that the lane must not; `bound` the other way round.
    """
    x_free, y_free, z_free = zero4(), zero4(), zero4()
    x_bound, y_bound, z_bound = zero4(), zero4(), zero4()
    for start in range(0, size, 4 * high):
        for i in range(start, start + high, 4):
            li, lm, lc, ld = load4(bra, i), load4(bra, i + m), load4(bra, i + c), load4(bra, i + d)
            ki, km, kc, kd = load4(ket, i), load4(ket, i + m), load4(ket, i + c), load4(ket, i + d)
            x_free = mul_add(li, swap_parts(km), mul_add(lm, swap_parts(ki), x_free))
            y_free = mul_add(li, swap_halves(km), mul_add(lm, swap_halves(ki), y_free))
            z_free = mul_add(li, reverse4(km), mul_add(lm, reverse4(ki), z_free))
            x_bound = sub(mul_add(lc, swap_parts(kd), x_bound), mul(ld, swap_parts(kc)))
            y_bound = sub(mul_add(lc, swap_halves(kd), y_bound), mul(ld, swap_halves(kc)))
            z_bound = sub(mul_add(lc, reverse4(kd), z_bound), mul(ld, reverse4(kc)))
    x = mul_add(make4(0.0, 0.0, -1.0, 1.0), x_free, mul(make4(1.0, 1.0, 0.0, 0.0), x_bound))
    y = mul_add(make4(0.0, 1.0, 0.0, -1.0), y_free, mul(make4(1.0, 0.0, 1.0, 0.0), y_bound))
    z = mul_add(make4(0.0, -1.0, 1.0, 0.0), z_free, mul(make4(1.0, 0.0, 0.0, 1.0), z_bound))
    _keep(row, columns, block, 4 * letter + 1, sum4(x))
    _keep(row, columns, block, 4 * letter + 2, sum4(y))
    _keep(row, columns, block, 4 * letter + 3, sum4(z))


@compiled()
def _ptm_pair_with_lanes(bra, ket, size, high, row, columns, block):
    """As `_ptm_pair` where the lower qubit is qubit 0; `high` is the stride of the other one."""
    two, three = 2 * high, 3 * high
    _ptm_letter_with_lanes(bra, ket, size, high, high, three, two, row, columns, block, 1)
    _ptm_letter_with_lanes(bra, ket, size, high, two, high, three, row, columns, block, 2)
    _ptm_letter_with_lanes(bra, ket, size, high, three, two, high, row, columns, block, 3)


@compiled()
def _ptm_string(bra, ket, size, p):
    """The value of any one string, given in base 4."""
    p_low, p_high = p & _LOW_BITS, (p >> 1) & _LOW_BITS
    p_x, p_y, p_z = p_low & ~p_high, p_high & ~p_low, p_low & p_high
    total = 0.0
    for q in range(size):
        if _anticommute(p, q):
            q_low, q_high = q & _LOW_BITS, (q >> 1) & _LOW_BITS
            q_x, q_y, q_z = q_low & ~q_high, q_high & ~q_low, q_low & q_high
            # A product of n digits that anticommute is i^n up to a sign for each of X·Z, Y·X, Z·Y; n is odd, s is real.
            negative = odd((q_x & p_z) | (q_y & p_x) | (q_z & p_y))
            count = 0
            bits = ((p_low & q_high) ^ (p_high & q_low)) & _LOW_BITS
            while bits:
                count += 1
                bits &= bits - 1
            if negative != (count & 3 == 3):
                total -= get(bra, q) * get(ket, q ^ p)
            else:
                total += get(bra, q) * get(ket, q ^ p)
    return total


@compiled()
def ptm_values(bra, ket, size, strings, touched, row):
    """row[column of P] = derivative of Σ bra_Q ket_Q for all strings that touch a qubit of the bit mask `touched`.

    Args:
        bra: address of a vector of 4**n coefficients, `ket` of one of 4**n expectation values.
        size: 4**n.
        row: float64 (strings,); values of other strings stay.
    """
    for s in range(len(strings.qubit)):
        qubit = strings.qubit[s]
        if (1 << qubit) & touched:
            _ptm_single(bra, ket, size, qubit, row, strings.single, s)
    for p in range(len(strings.low)):
        low, high = strings.low[p], strings.high[p]
        if ((1 << low) | (1 << high)) & touched:
            if low == 0:
                _ptm_pair_with_lanes(bra, ket, size, 1 << (2 * high), row, strings.pair, p)
            else:
                _ptm_pair(bra, ket, size, low, high, row, strings.pair, p)
    wide = strings.wide
    for r in range(len(wide.index)):
        if wide.support[r] & touched:
            row[wide.column[r]] = _ptm_string(bra, ket, size, wide.index[r])


@compiled()
def ptm_sweep(library, ops, slots, angles, n_qubits, h_index, h_value, work, starts, segment, strings, values, stop):
    """Insertion gradients of all strings at all positions; returns the energy, NaN if stopped.

    The state at every position is needed. One is kept at the start of each `segment` gates, and on the way back each
    segment is run again.

    Args:
        work: rows of 4**n: 2 scratch, 2 for the adjoint, one for each segment, then segment + 1 for kept states.
        starts: int64 (gates + 1,): first operation of each gate, and their number.
        values: float64 (gates + 1, strings), receives the result.
    """
    size = 1 << (2 * n_qubits)
    row_bytes = 8 * size
    gates = len(starts) - 1
    n_segments = max(1, (gates + segment - 1) // segment)
    base, tables = address(work), _ptm_kernels._tables(library)
    kind, low, high = library.kind, library.low, library.high
    scratch = np.empty(32)
    matrix = address(scratch)
    row = np.zeros(values.shape[1])
    adjoint, kept = 2, 4 + n_segments
    energy = 0.0
    _ptm_kernels._set_ground_state(base + 4 * row_bytes, n_qubits)
    for round_ in range(1 - n_segments, n_segments):
        # Negative rounds run forward through every segment but the last; then each one is run and undone, last first.
        j = round_ + n_segments - 1 if round_ < 0 else n_segments - 1 - round_
        first, last = j * segment, min(gates, (j + 1) * segment)
        here = 4 + j
        for gate in range(first, last):
            if stopped(stop):
                return math.nan
            for k in range(starts[gate], starts[gate + 1]):
                there = 1 if here == 0 else 0
                if k == starts[gate + 1] - 1:
                    if round_ >= 0:
                        there = kept + gate - first
                    elif gate == last - 1:
                        there = 5 + j
                op, slot = ops[k], slots[k]
                angle = angles[slot] if slot >= 0 else 0.0
                source, target = base + row_bytes * here, base + row_bytes * there
                _ptm_kernels._step(tables, op, kind[op], low[op], high[op], angle, False, source, target, size, matrix)
                here = there
        if round_ < 0:
            continue
        if round_ == 0:
            start = base + row_bytes * adjoint
            for i in range(0, size, 4):
                store4(start, i, zero4())
            for t in range(len(h_index)):
                energy += h_value[t] * work[here, h_index[t]]
                put(start, h_index[t], h_value[t])
            ptm_values(start, base + row_bytes * here, size, strings, -1, row)
            values[gates] = row
        for gate in range(last - 1, first - 1, -1):
            if stopped(stop):
                return math.nan
            touched = 0
            for k in range(starts[gate + 1] - 1, starts[gate] - 1, -1):
                op, slot = ops[k], slots[k]
                angle = angles[slot] if slot >= 0 else 0.0
                touched |= 1 << low[op]
                if high[op] >= 0:
                    touched |= 1 << high[op]
                source, target = base + row_bytes * adjoint, base + row_bytes * (5 - adjoint)
                _ptm_kernels._step(tables, op, kind[op], low[op], high[op], angle, True, source, target, size, matrix)
                adjoint = 5 - adjoint
            before = kept + gate - 1 - first if gate > first else 4 + j
            ptm_values(base + row_bytes * adjoint, base + row_bytes * before, size, strings, touched, row)
            values[gate] = row
    scratch[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return energy


@compiled()
def ptm_append(state, adjoint, h_index, h_value, strings, gradient, falls):
    """Slopes of all strings after `state`, float64 (4**n,), and half of how far the energy falls at θ = π.

    Args:
        adjoint: float64 (4**n,), the observable.
        h_index: int64 (terms,), where the observable is not zero; `h_value` its values there.
    """
    ptm_values(address(adjoint), address(state), len(state), strings, -1, gradient)
    parts = np.empty(len(h_index))
    energy = 0.0
    for t in range(len(h_index)):
        parts[t] = h_value[t] * state[h_index[t]]
        energy += parts[t]
    sum_of_anticommuting(h_index, parts, strings, falls)
    state[0] = 1.0  # the addresses were in use until here; a last mention keeps the arrays alive
    adjoint[0] = adjoint[0]
    return energy
