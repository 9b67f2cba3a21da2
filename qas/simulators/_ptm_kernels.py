"""Compiled kernels of the Pauli-transfer engine.

A state is the real vector v_P = Tr(P ρ) over all 4**n Pauli strings, base-4 digit q being the letter of qubit q. A gate
and the noise after it are one local map; the 4**n x 4**n matrix is never formed. Gates are data: an operation is a row
in the tables of `Library`, so a new architecture compiles nothing.

Kinds of operation:
    0  one-qubit map                    `matrix` is the map
    1  one-qubit rotation, then noise   `matrix` is the noise; `pair` the two Paulis that the rotation mixes
    2  two-qubit map, sparse            rows of (source offset, coefficients)
    3  two-qubit rotation               four `pairs` of local strings that the rotation mixes
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._simd import (
    SHORT,
    add,
    address,
    get,
    get_int,
    load1,
    load4,
    mul,
    mul_add,
    put,
    stopped,
    store4,
    sub,
    sum4,
    zero4,
)


class Library(NamedTuple):
    """Tables of all operations one simulator has met; the first axis counts operations."""

    kind: np.ndarray  # int64 (ops,)
    low: np.ndarray  # int64 (ops,): the lower qubit, or the only one
    high: np.ndarray  # int64 (ops,): the higher qubit, or -1
    matrix: np.ndarray  # float64 (ops, 16): 4x4 map, column by column
    pairs: np.ndarray  # int64 (ops, 4, 2): local strings (A, B) with A -> cos A + sin B; as element offsets
    pointer: np.ndarray  # int64 (ops, 2, 17): row starts in the pool; [0] forward, [1] transposed
    offset: np.ndarray  # int64 (pool,): source element, relative to the block
    coefficient: np.ndarray  # float64 (pool, 4)


@compiled()
def _map_qubit0(source, target, size, c0, c1, c2, c3):
    for i in range(0, size, 4):
        a = mul(c0, load1(source, i))
        b = mul(c1, load1(source, i + 1))
        a = mul_add(c2, load1(source, i + 2), a)
        b = mul_add(c3, load1(source, i + 3), b)
        store4(target, i, add(a, b))


@compiled()
def apply_one(source, target, size, qubit, matrix):
    """target = M source on one qubit; M trace preserving (its first row is 1 0 0 0)."""
    if qubit == 0:
        _map_qubit0(source, target, size, load4(matrix, 0), load4(matrix, 4), load4(matrix, 8), load4(matrix, 12))
        return
    stride = 1 << (2 * qubit)
    m10, m11, m12, m13 = load1(matrix, 1), load1(matrix, 5), load1(matrix, 9), load1(matrix, 13)
    m20, m21, m22, m23 = load1(matrix, 2), load1(matrix, 6), load1(matrix, 10), load1(matrix, 14)
    m30, m31, m32, m33 = load1(matrix, 3), load1(matrix, 7), load1(matrix, 11), load1(matrix, 15)
    for start in range(0, size, 4 * stride):
        for i in range(start, start + stride, 4):
            x0, x1 = load4(source, i), load4(source, i + stride)
            x2, x3 = load4(source, i + 2 * stride), load4(source, i + 3 * stride)
            store4(target, i, x0)
            store4(target, i + stride, mul_add(m10, x0, mul_add(m11, x1, mul_add(m12, x2, mul(m13, x3)))))
            store4(target, i + 2 * stride, mul_add(m20, x0, mul_add(m21, x1, mul_add(m22, x2, mul(m23, x3)))))
            store4(target, i + 3 * stride, mul_add(m30, x0, mul_add(m31, x1, mul_add(m32, x2, mul(m33, x3)))))


@compiled()
def apply_one_transposed(source, target, size, qubit, matrix, scratch):
    """target = Mᵀ source on one qubit; M trace preserving."""
    if qubit == 0:
        for i in range(4):
            for j in range(4):
                put(scratch, 4 * i + j, get(matrix, 4 * j + i))
        _map_qubit0(
            source, target, size, load4(scratch, 0), load4(scratch, 4), load4(scratch, 8),
            load4(scratch, 12),
        )  # fmt: skip
        return
    stride = 1 << (2 * qubit)
    m10, m11, m12, m13 = load1(matrix, 1), load1(matrix, 5), load1(matrix, 9), load1(matrix, 13)
    m20, m21, m22, m23 = load1(matrix, 2), load1(matrix, 6), load1(matrix, 10), load1(matrix, 14)
    m30, m31, m32, m33 = load1(matrix, 3), load1(matrix, 7), load1(matrix, 11), load1(matrix, 15)
    for start in range(0, size, 4 * stride):
        for i in range(start, start + stride, 4):
            x0, x1 = load4(source, i), load4(source, i + stride)
            x2, x3 = load4(source, i + 2 * stride), load4(source, i + 3 * stride)
            store4(target, i, add(x0, mul_add(m10, x1, mul_add(m20, x2, mul(m30, x3)))))
            store4(target, i + stride, mul_add(m11, x1, mul_add(m21, x2, mul(m31, x3))))
            store4(target, i + 2 * stride, mul_add(m12, x1, mul_add(m22, x2, mul(m32, x3))))
            store4(target, i + 3 * stride, mul_add(m13, x1, mul_add(m23, x2, mul(m33, x3))))


@compiled(inline=True)
def _source(base, index, single):
    return load1(base, index) if single else load4(base, index)


@compiled(inline=True)
def _add_terms(source, target, count, low_mask, high_mask, out, first, terms, more, single, offset, coefficient):
    """Add 1, 2 or 4 terms of one row to `target` over the whole vector, their coefficients in registers."""
    c0, o0 = load4(coefficient, 4 * first), get_int(offset, first)
    k1, k2, k3 = min(1, terms - 1), min(2, terms - 1), min(3, terms - 1)
    c1, o1 = load4(coefficient, 4 * (first + k1)), get_int(offset, first + k1)
    c2, o2 = load4(coefficient, 4 * (first + k2)), get_int(offset, first + k2)
    c3, o3 = load4(coefficient, 4 * (first + k3)), get_int(offset, first + k3)
    for t in range(count):
        # Spread the counter over the index: a zero digit is inserted at each of the two qubits.
        i = t + 3 * (t & low_mask)
        i = 4 * (i + 3 * (i & high_mask))
        total = mul(c0, _source(source, i + o0, single))
        if terms >= 2:
            total = mul_add(c1, _source(source, i + o1, single), total)
        if terms == 4:
            total = mul_add(c2, _source(source, i + o2, single), total)
            total = mul_add(c3, _source(source, i + o3, single), total)
        if more:
            total = add(total, load4(target, i + out))
        store4(target, i + out, total)


@compiled()
def _terms_single(source, target, count, low_mask, high_mask, out, first, terms, more, offset, coefficient):
    """`_add_terms` where sources are single elements; constants are spelled out so that the loops hold no branches."""
    if terms == 4:
        if more:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 4, True, True, offset, coefficient)
        else:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 4, False, True, offset, coefficient)
    elif terms == 2:
        if more:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 2, True, True, offset, coefficient)
        else:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 2, False, True, offset, coefficient)
    elif more:
        _add_terms(source, target, count, low_mask, high_mask, out, first, 1, True, True, offset, coefficient)
    else:
        _add_terms(source, target, count, low_mask, high_mask, out, first, 1, False, True, offset, coefficient)


@compiled()
def _terms_four(source, target, count, low_mask, high_mask, out, first, terms, more, offset, coefficient):
    """`_add_terms` where sources are groups of four; constants are spelled out so that the loops hold no branches."""
    if terms == 4:
        if more:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 4, True, False, offset, coefficient)
        else:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 4, False, False, offset, coefficient)
    elif terms == 2:
        if more:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 2, True, False, offset, coefficient)
        else:
            _add_terms(source, target, count, low_mask, high_mask, out, first, 2, False, False, offset, coefficient)
    elif more:
        _add_terms(source, target, count, low_mask, high_mask, out, first, 1, True, False, offset, coefficient)
    else:
        _add_terms(source, target, count, low_mask, high_mask, out, first, 1, False, False, offset, coefficient)


@compiled()
def apply_two(source, target, size, low, high, pointer, row0, offset, coefficient):
    """target = M source on two qubits; M sparse, in rows of (offset, coefficients).

    Row by row over the whole vector: all rows at once would compete for the same few lines of the cache, because they
    lie a power of two apart.
    """
    single = low == 0
    rows = 4 if single else 16
    count = size // (4 * rows)
    high_mask = -(1 << (2 * high - 2))
    low_mask = 0 if single else -(1 << (2 * low - 2))
    for row in range(rows):
        out = row << (2 * high) if single else ((row & 3) << (2 * low)) + ((row >> 2) << (2 * high))
        k, last = get_int(pointer, row0 + row), get_int(pointer, row0 + row + 1)
        more = False
        if k == last:
            for t in range(count):
                i = t + 3 * (t & low_mask)
                store4(target, 4 * (i + 3 * (i & high_mask)) + out, zero4())
        while k < last:
            terms = 4 if last - k >= 4 else (2 if last - k >= 2 else 1)
            if single:
                _terms_single(source, target, count, low_mask, high_mask, out, k, terms, more, offset, coefficient)
            else:
                _terms_four(source, target, count, low_mask, high_mask, out, k, terms, more, offset, coefficient)
            more = True
            k += terms


@compiled()
def rotate_two(source, target, size, low, high, pairs, first, c, s):
    """target = source with each pair (A, B) of local strings turned by the angle with cosine c and sine s."""
    for i in range(0, size, 4):
        store4(target, i, load4(source, i))
    low_stride, high_stride = 1 << (2 * low), 1 << (2 * high)
    for start in range(0, size, 4 * high_stride):
        for middle in range(start, start + high_stride, 4 * low_stride):
            for p in range(first, first + 8, 2):
                left, right = get_int(pairs, p), get_int(pairs, p + 1)
                for i in range(middle, middle + low_stride):
                    a, b = get(source, i + left), get(source, i + right)
                    put(target, i + left, c * a - s * b)
                    put(target, i + right, s * a + c * b)


@compiled()
def overlap_one(bra, ket, size, qubit, a, b):
    """Σ (bra_B ket_A - bra_A ket_B): derivative of an energy in the angle that turns Pauli A into B on one qubit."""
    if qubit == 0:
        value = 0.0
        for i in range(0, size, 4):
            value += get(bra, i + b) * get(ket, i + a) - get(bra, i + a) * get(ket, i + b)
        return value
    stride = 1 << (2 * qubit)
    plus, minus = zero4(), zero4()
    for start in range(0, size, 4 * stride):
        for i in range(start, start + stride, 4):
            plus = mul_add(load4(bra, i + b * stride), load4(ket, i + a * stride), plus)
            minus = mul_add(load4(bra, i + a * stride), load4(ket, i + b * stride), minus)
    return sum4(sub(plus, minus))


@compiled()
def overlap_two(bra, ket, size, low, high, pairs, first):
    """As `overlap_one`, summed over the four pairs of a two-qubit rotation."""
    value = 0.0
    low_stride, high_stride = 1 << (2 * low), 1 << (2 * high)
    for start in range(0, size, 4 * high_stride):
        for middle in range(start, start + high_stride, 4 * low_stride):
            for p in range(first, first + 8, 2):
                a, b = middle + get_int(pairs, p), middle + get_int(pairs, p + 1)
                for i in range(low_stride):
                    value += get(bra, i + b) * get(ket, i + a) - get(bra, i + a) * get(ket, i + b)
    return value


@compiled(inline=True)
def _rotated(noise, op, a, b, c, s, matrix):
    """matrix = noise · rotation, column by column; a and b are the Paulis the rotation mixes."""
    for i in range(0, 16, 4):
        store4(matrix, i, load4(noise, 16 * op + i))
    for i in range(4):
        x, y = get(noise, 16 * op + 4 * a + i), get(noise, 16 * op + 4 * b + i)
        put(matrix, 4 * a + i, c * x + s * y)
        put(matrix, 4 * b + i, c * y - s * x)


@compiled(inline=True)
def _step(tables, op, kind, low, high, angle, transposed, source, target, size, matrix):
    """target = map source, or its transpose; all memory by address, `matrix` is 32 floats of scratch."""
    noise, pairs, pointer, offset, coefficient = tables
    c, s = 1.0, 0.0
    if kind == 1 or kind == 3:
        c, s = math.cos(angle), math.sin(angle)
    if kind < 2:
        local = noise + 128 * op
        if kind == 1:
            _rotated(noise, op, get_int(pairs, 8 * op), get_int(pairs, 8 * op + 1), c, s, matrix)
            local = matrix
        if transposed:
            apply_one_transposed(source, target, size, low, local, matrix + 128)
        else:
            apply_one(source, target, size, low, local)
    elif kind == 2:
        row0 = 34 * op + (17 if transposed else 0)
        apply_two(source, target, size, low, high, pointer, row0, offset, coefficient)
    else:
        rotate_two(source, target, size, low, high, pairs, 8 * op, c, -s if transposed else s)


@compiled(inline=True)
def _set_ground_state(vector, n_qubits):
    """vector = |0…0><0…0|: 1 on every string of I and Z."""
    put(vector, 0, 1.0)
    filled = 1
    for _ in range(n_qubits):
        for i in range(filled):
            put(vector, filled + i, 0.0)
            put(vector, 2 * filled + i, 0.0)
            put(vector, 3 * filled + i, get(vector, i))
        filled *= 4


@compiled(inline=True)
def _tables(library):
    return (
        address(library.matrix),
        address(library.pairs),
        address(library.pointer),
        address(library.offset),
        address(library.coefficient),
    )


@compiled()
def state(library, ops, slots, angles, n_qubits, work, stop):
    """Run the circuit; returns the row of `work` (shape (>= 2, 4**n)) that holds the final state, -1 if stopped."""
    size = 1 << (2 * n_qubits)
    base, tables = address(work), _tables(library)
    kind, low, high = library.kind, library.low, library.high
    scratch = np.empty(32)
    matrix = address(scratch)
    here = 0
    _set_ground_state(base, n_qubits)
    for k in range(len(ops)):
        if (k == 0 or size > SHORT) and stopped(stop):
            return -1
        op, slot = ops[k], slots[k]
        angle = angles[slot] if slot >= 0 else 0.0
        source, target = base + 8 * size * here, base + 8 * size * (1 - here)
        _step(tables, op, kind[op], low[op], high[op], angle, False, source, target, size, matrix)
        here = 1 - here
    scratch[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return here


@compiled()
def value(library, ops, slots, angles, n_qubits, h_index, h_value, work, stop):
    """Energy: Σ h_P v_P over the strings of the observable; NaN if stopped."""
    row = state(library, ops, slots, angles, n_qubits, work, stop)
    if row < 0:
        return math.nan
    total = 0.0
    for t in range(len(h_index)):
        total += h_value[t] * work[row, h_index[t]]
    return total


@compiled()
def value_and_gradient(library, ops, slots, angles, n_qubits, h_index, h_value, segment, work, gradient, stop):
    """Energy, with its gradient written to `gradient`, by one reverse sweep.

    The sweep needs the state before each rotation. They are kept for `segment` operations at a time; a longer circuit
    keeps one state at the start of each segment and runs forward again from there.

    Args:
        work: rows of 4**n: 2 scratch, 2 for the adjoint, one for each segment, then `segment` for kept states.
        stop: address of a flag, read before each gate (see `SHORT`); where it is raised the result is NaN.
    """
    size = 1 << (2 * n_qubits)
    bytes_row = 8 * size
    count = len(ops)
    n_segments = max(1, (count + segment - 1) // segment)
    kept = 4 + n_segments
    base, tables = address(work), _tables(library)
    kind, low, high = library.kind, library.low, library.high
    scratch = np.empty(32)
    matrix = address(scratch)
    place = np.zeros(max(count, 1), dtype=np.int64)
    for i in range(len(gradient)):
        gradient[i] = 0.0
    energy = 0.0
    adjoint = 2

    _set_ground_state(base + 4 * bytes_row, n_qubits)
    # Forward through every segment but the last, then backward segment by segment; `round` < 0 is the first part.
    for round_ in range(-(n_segments - 1), n_segments):
        j = round_ + n_segments - 1 if round_ < 0 else n_segments - 1 - round_
        first, last = j * segment, min(count, (j + 1) * segment)
        here = 4 + j
        end = last if round_ <= 0 else last - 1  # the state after a later segment's end is known
        for k in range(first, end):
            if (k == 0 or size > SHORT) and stopped(stop):
                return math.nan
            place[k] = here
            if round_ < 0 and k == last - 1:
                there = 5 + j
            elif round_ >= 0 and k + 1 < last and slots[k + 1] >= 0:
                there = kept + k - first
            else:
                there = 1 if here == 0 else 0
            op, slot = ops[k], slots[k]
            angle = angles[slot] if slot >= 0 else 0.0
            source, target = base + bytes_row * here, base + bytes_row * there
            _step(tables, op, kind[op], low[op], high[op], angle, False, source, target, size, matrix)
            here = there
        if round_ < 0:
            continue
        if end < last:
            place[end] = here
        if round_ == 0:
            start = base + bytes_row * adjoint
            for i in range(0, size, 4):
                store4(start, i, zero4())
            for t in range(len(h_index)):
                energy += h_value[t] * work[here, h_index[t]]
                put(start, h_index[t], h_value[t])
        for k in range(last - 1, first - 1, -1):
            if size > SHORT and stopped(stop):
                return math.nan
            op, slot = ops[k], slots[k]
            angle = angles[slot] if slot >= 0 else 0.0
            source, target = base + bytes_row * adjoint, base + bytes_row * (5 - adjoint)
            _step(tables, op, kind[op], low[op], high[op], angle, True, source, target, size, matrix)
            adjoint = 5 - adjoint
            if slot >= 0:
                before = base + bytes_row * place[k]
                if kind[op] == 1:
                    a, b = library.pairs[op, 0, 0], library.pairs[op, 0, 1]
                    gradient[slot] += overlap_one(target, before, size, low[op], a, b)
                else:
                    pairs = address(library.pairs)
                    gradient[slot] += overlap_two(target, before, size, low[op], high[op], pairs, 8 * op)
    scratch[0] = 0.0  # its address was in use until here; a last mention keeps it alive
    return energy
