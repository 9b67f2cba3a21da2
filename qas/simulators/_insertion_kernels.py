"""Compiled kernels of insertion gradients: dE/dθ at θ = 0 of exp(-iθP/2) put anywhere into a circuit, for many P.

One reverse sweep holds the state and the adjoint state at every position. A string on qubits that the gate just undone
does not touch keeps its value, so after each gate only strings that touch its qubits are computed again. Strings on one
and two qubits come in blocks: one pass over both vectors gives all nine strings of a pair. Wider strings are grouped by
their X-mask: the products of one group are formed once, and a Walsh-Hadamard transform sums them with all signs.

Here for complex states (see `_sv_kernels`), named by their addresses; for noisy states see `_insertion_ptm`.
"""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators import _sv_kernels
from qas.simulators._compile import compiled
from qas.simulators._insertion_sums import sum_curves, sum_slopes
from qas.simulators._lanes import (
    SHORT,
    address,
    flip1,
    flip2,
    flip3,
    load4,
    make4,
    minus,
    odd,
    plus,
    read,
    stopped,
    store,
    times,
    times_plus,
    total,
    write,
    zero4,
)


class Groups(NamedTuple):
    """Pauli strings that share an X-mask and the parity of their number of Y; one row each, sorted by group."""

    x: np.ndarray  # int64 (groups,)
    odd_y: np.ndarray  # int64 (groups,): 1 where the number of Y is odd
    start: np.ndarray  # int64 (groups + 1,): first row of each group
    z: np.ndarray  # int64 (rows,)
    support: np.ndarray  # int64 (rows,): bit mask of the qubits acted on
    base4: np.ndarray  # int64 (rows,): the string in base 4, digit q the letter of qubit q in the order I X Y Z
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
            la, ka = load4(bra, i), load4(ket, i)
            x = times_plus(la, flip3(ka), x)
            y = times_plus(la, flip2(ka), y)
            z = times_plus(la, flip1(ka), z)
        y, z = times(make4(-1.0, -1.0, 1.0, 1.0), y), times(make4(1.0, -1.0, -1.0, 1.0), z)
    else:
        for start in range(0, size, 2 * step):
            for i in range(start, start + step, 4):
                la, lb, ka, kb = load4(bra, i), load4(bra, i + step), load4(ket, i), load4(ket, i + step)
                ta, tb = flip1(ka), flip1(kb)
                x = times_plus(la, tb, times_plus(lb, ta, x))
                y = minus(times_plus(lb, ka, y), times(la, kb))
                z = minus(times_plus(la, ta, z), times(lb, tb))
        z = times(imaginary, z)
    _keep(row, columns, block, 1, total(times(imaginary, x)))
    _keep(row, columns, block, 2, total(y))
    _keep(row, columns, block, 3, total(z))


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
                t0, t1, t2, t3 = flip1(k0), flip1(k1), flip1(k2), flip1(k3)
                zz = times_plus(l3, t3, minus(minus(times_plus(l0, t0, zz), times(l1, t1)), times(l2, t2)))
                xz = minus(minus(times_plus(l0, t1, times_plus(l1, t0, xz)), times(l3, t2)), times(l2, t3))
                yz = times_plus(l2, k3, minus(minus(times_plus(l1, k0, yz), times(l0, k1)), times(l3, k2)))
                zx = minus(minus(times_plus(l0, t2, times_plus(l2, t0, zx)), times(l3, t1)), times(l1, t3))
                zy = times_plus(l1, k3, minus(minus(times_plus(l2, k0, zy), times(l0, k2)), times(l3, k1)))
                same = times_plus(l0, t3, times_plus(l3, t0, same))
                other = times_plus(l1, t2, times_plus(l2, t1, other))
                same_turned = minus(times_plus(l3, k0, same_turned), times(l0, k3))
                other_turned = minus(times_plus(l2, k1, other_turned), times(l1, k2))
    imaginary = make4(1.0, -1.0, 1.0, -1.0)
    _keep(row, columns, block, 5, total(times(imaginary, plus(other, same))))
    _keep(row, columns, block, 6, total(minus(same_turned, other_turned)))
    _keep(row, columns, block, 7, total(times(imaginary, zx)))
    _keep(row, columns, block, 9, total(plus(same_turned, other_turned)))
    _keep(row, columns, block, 10, total(times(imaginary, minus(other, same))))
    _keep(row, columns, block, 11, total(zy))
    _keep(row, columns, block, 13, total(times(imaginary, xz)))
    _keep(row, columns, block, 14, total(yz))
    _keep(row, columns, block, 15, total(times(imaginary, zz)))


@compiled(inline=True)
def _sv_pair_with_lanes(bra, ket, size, high, row, columns, block):
    """As `_sv_pair` where the lower qubit is qubit 0, whose two amplitudes lie beside each other in the lanes."""
    b = 2 * high
    xz, yz, zz, zx, zy = zero4(), zero4(), zero4(), zero4(), zero4()
    up, down, up_turned, down_turned = zero4(), zero4(), zero4(), zero4()
    for start in range(0, size, 2 * b):
        for i in range(start, start + b, 4):
            la, lb, ka, kb = load4(bra, i), load4(bra, i + b), load4(ket, i), load4(ket, i + b)
            zz = minus(times_plus(la, flip1(ka), zz), times(lb, flip1(kb)))
            xz = minus(times_plus(la, flip3(ka), xz), times(lb, flip3(kb)))
            yz = minus(times_plus(la, flip2(ka), yz), times(lb, flip2(kb)))
            zx = times_plus(lb, flip1(ka), times_plus(la, flip1(kb), zx))
            zy = minus(times_plus(lb, ka, zy), times(la, kb))
            up, down = times_plus(lb, flip3(ka), up), times_plus(la, flip3(kb), down)
            up_turned, down_turned = times_plus(lb, flip2(ka), up_turned), times_plus(la, flip2(kb), down_turned)
    imaginary, alternating = make4(1.0, -1.0, 1.0, -1.0), make4(1.0, -1.0, -1.0, 1.0)
    second = make4(-1.0, -1.0, 1.0, 1.0)
    _keep(row, columns, block, 5, total(times(imaginary, plus(up, down))))
    _keep(row, columns, block, 6, total(times(second, plus(up_turned, down_turned))))
    _keep(row, columns, block, 7, total(times(alternating, zx)))
    _keep(row, columns, block, 9, total(minus(up_turned, down_turned)))
    _keep(row, columns, block, 10, total(times(alternating, minus(up, down))))
    _keep(row, columns, block, 11, -total(times(second, zy)))
    _keep(row, columns, block, 13, total(times(imaginary, xz)))
    _keep(row, columns, block, 14, total(times(second, yz)))
    _keep(row, columns, block, 15, total(times(alternating, zz)))


@compiled(inline=True)
def _walsh_hadamard(vector, size):
    """Replace v[i] by Σ_j (-1)^{i·j} v[j] in place."""
    if size == 2:
        a, b = read(vector, 0), read(vector, 1)
        write(vector, 0, a + b)
        write(vector, 1, a - b)
        return
    odd_signs, high_signs = make4(1.0, -1.0, 1.0, -1.0), make4(1.0, 1.0, -1.0, -1.0)
    for i in range(0, size, 4):
        v = load4(vector, i)
        v = times_plus(odd_signs, v, flip1(v))
        store(vector, i, times_plus(high_signs, v, flip2(v)))
    half = 4
    while half < size:
        for start in range(0, size, 2 * half):
            for i in range(start, start + half, 4):
                a, b = load4(vector, i), load4(vector, i + half)
                store(vector, i, plus(a, b))
                store(vector, i + half, minus(a, b))
        half *= 2


@compiled(inline=True)
def _products(bra, ket, dimension, x, imaginary, scratch):
    """scratch[i] = real or imaginary part of conj(bra[i ^ x]) ket[i]."""
    for i in range(dimension):
        j = i ^ x
        lr, li, kr, ki = read(bra, 2 * j), read(bra, 2 * j + 1), read(ket, 2 * i), read(ket, 2 * i + 1)
        write(scratch, i, lr * ki - li * kr if imaginary else lr * kr + li * ki)


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
                row[groups.column[r]] = sign * groups.sign[r] * read(scratch, groups.z[r])


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
def _undo(library, op, angle, ket, size):
    """Undo an operation on two states that lie beside each other; `size` counts the floats of both."""
    kind, bit, other = library.kind[op], library.first[op], library.second[op]
    x, z, matrix = library.x_mask[op], library.z_mask[op], address(library.matrix)
    c, s = math.cos(0.5 * angle), -math.sin(0.5 * angle)
    _sv_kernels.apply(ket, size, kind, bit, other, x, z, matrix, op, c, s, True, 2)


@compiled(inline=True)
def copy_row(row, table, k):
    """table[k] = row, which Numba would compile together with the message of an error of shapes, for two seconds."""
    for column in range(len(row)):
        table[k, column] = row[column]


@compiled()
def sweep(library, gates, angles, work, strings, sums, row_of, values, stop):
    """Insertion gradients of strings and sums at some positions; False if it was stopped.

    Args:
        gates: `GateOperations`.
        work: the state after the circuit, and the Hamiltonian times it; used up.
        sums: `_sums.Sums`.
        row_of: int64 (gates + 1,): row of `values` that a position goes to, or -1.
        values: float64 (rows, strings + sums), receives the result.
    """
    size = work.shape[1]
    ket = address(work)
    bra = ket + 8 * size
    products = np.empty(size >> 1)
    scratch = address(products)
    row = np.zeros(values.shape[1])
    n_gates, first, touched = len(gates.masks), 0, -1
    while first <= n_gates and row_of[first] < 0:
        first += 1
    for gate in range(n_gates, first - 1, -1):
        if gate < n_gates:
            if size > SHORT and stopped(stop):
                return False
            for k in range(gates.starts[gate + 1] - 1, gates.starts[gate] - 1, -1):
                slot = gates.slots[k]
                _undo(library, gates.ops[k], angles[slot] if slot >= 0 else 0.0, ket, 2 * size)
            touched |= gates.masks[gate]
        if row_of[gate] >= 0:
            sv_values(bra, ket, size, strings, touched, row, scratch)
            sum_slopes(bra, ket, sums, touched, row, len(row) - len(sums.support))
            copy_row(row, values, row_of[gate])
            touched = 0
    products[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return True


@compiled()
def append(work, strings, sums, scales, terms, weight, diagonals, slopes, falls, curves):
    """What strings and sums bring after the last gate. Arguments as for `sweep`.

    Args:
        scales, diagonals, curves: of the sums, as for `sum_curves`.
        terms: `Groups` of the Hamiltonian's terms; `column` is their place in `weight`, their coefficients.
        slopes: float64 (strings,), receives the slopes at θ = 0.
        falls: float64 (strings,), receives (E(0) - E(π)) / 2.
    """
    size = work.shape[1]
    ket = address(work)
    bra = ket + 8 * size
    if len(curves):
        sum_curves(bra, ket, size, sums, scales, terms, weight, diagonals, curves)
    if len(slopes) == 0:
        return
    products = np.empty(size >> 1)
    scratch = address(products)
    sv_values(bra, ket, size, strings, -1, slopes, scratch)
    expectations, parts = np.empty(len(weight)), np.empty(len(weight))
    _sv_groups(ket, ket, size, terms, -1, True, expectations, scratch)
    for r in range(len(weight)):
        parts[r] = weight[terms.column[r]] * expectations[terms.column[r]]
    sum_of_anticommuting(terms.base4, parts, strings, falls)
    products[0] = 0.0  # its address was in use until here; a last mention keeps it alive


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
        change = bins[1] + bins[2] + bins[3]
        for letter in range(1, 4):
            _keep(sums, strings.single, s, letter, change - bins[letter])
    for p in range(len(strings.low)):
        bins[:] = 0.0
        low, high = strings.low[p], strings.high[p]
        for t in range(len(index)):
            bins[_letter(index[t], low) + 4 * _letter(index[t], high)] += parts[t]
        for local in range(5, 16):
            if strings.pair[p, local] >= 0:
                change = 0.0
                for other in range(1, 16):
                    if _anticommute(local, other):
                        change += bins[other]
                sums[strings.pair[p, local]] = change
    wide = strings.wide
    for r in range(len(wide.base4)):
        change = 0.0
        for t in range(len(index)):
            if _anticommute(wide.base4[r], index[t]):
                change += parts[t]
        sums[wide.column[r]] = change


_LOW_BITS = 0x5555555555555555


@compiled(inline=True)
def _anticommute(p, q):
    """Whether two strings in base 4 anticommute."""
    return odd(((p & (q >> 1)) ^ ((p >> 1) & q)) & _LOW_BITS)
