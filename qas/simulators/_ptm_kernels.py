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
from numba import njit

from qas.simulators._simd import load1, load4, mul, mul_add, store4, sub, sum4, zero4

OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False}


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


@njit(**OPTIONS)
def _map_qubit0(source, target, size, m, c0, c1, c2, c3):
    for i in range(0, size, 4):
        a = mul(c0, load1(source, i))
        b = mul(c1, load1(source, i + 1))
        a = mul_add(c2, load1(source, i + 2), a)
        b = mul_add(c3, load1(source, i + 3), b)
        store4(target, i, mul_add(m, a, b))


@njit(**OPTIONS)
def apply_one(source, target, size, qubit, matrix):
    """target = M source on one qubit; M trace preserving (its first row is 1 0 0 0)."""
    ones = load1(matrix, 0)
    if qubit == 0:
        _map_qubit0(
            source, target, size, ones, load4(matrix, 0), load4(matrix, 4), load4(matrix, 8), load4(matrix, 12)
        )
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


@njit(**OPTIONS)
def apply_one_transposed(source, target, size, qubit, matrix, scratch):
    """target = Mᵀ source on one qubit; M trace preserving."""
    if qubit == 0:
        for i in range(4):
            for j in range(4):
                scratch[4 * i + j] = matrix[4 * j + i]
        _map_qubit0(
            source, target, size, load1(matrix, 0), load4(scratch, 0), load4(scratch, 4), load4(scratch, 8),
            load4(scratch, 12),
        )  # fmt: skip
        return
    stride = 1 << (2 * qubit)
    m10, m11, m12, m13 = load1(matrix, 1), load1(matrix, 5), load1(matrix, 9), load1(matrix, 13)
    m20, m21, m22, m23 = load1(matrix, 2), load1(matrix, 6), load1(matrix, 10), load1(matrix, 14)
    m30, m31, m32, m33 = load1(matrix, 3), load1(matrix, 7), load1(matrix, 11), load1(matrix, 15)
    ones = load1(matrix, 0)
    for start in range(0, size, 4 * stride):
        for i in range(start, start + stride, 4):
            x0, x1 = load4(source, i), load4(source, i + stride)
            x2, x3 = load4(source, i + 2 * stride), load4(source, i + 3 * stride)
            store4(target, i, mul_add(ones, x0, mul_add(m10, x1, mul_add(m20, x2, mul(m30, x3)))))
            store4(target, i + stride, mul_add(m11, x1, mul_add(m21, x2, mul(m31, x3))))
            store4(target, i + 2 * stride, mul_add(m12, x1, mul_add(m22, x2, mul(m32, x3))))
            store4(target, i + 3 * stride, mul_add(m13, x1, mul_add(m23, x2, mul(m33, x3))))


@njit(**OPTIONS)
def apply_two(source, target, size, low, high, pointer, offset, coefficient):
    """target = M source on two qubits; M sparse, in rows of (offset, coefficients)."""
    low_stride, high_stride = 1 << (2 * low), 1 << (2 * high)
    if low == 0:
        for start in range(0, size, 4 * high_stride):
            for i in range(start, start + high_stride, 4):
                for row in range(4):
                    total = zero4()
                    for k in range(pointer[row], pointer[row + 1]):
                        total = mul_add(load4(coefficient, 4 * k), load1(source, i + offset[k]), total)
                    store4(target, i + row * high_stride, total)
        return
    for start in range(0, size, 4 * high_stride):
        for middle in range(start, start + high_stride, 4 * low_stride):
            for row in range(16):
                first, last = pointer[row], pointer[row + 1]
                out = (row & 3) * low_stride + (row >> 2) * high_stride
                if last - first == 1:
                    c0, o0 = load4(coefficient, 4 * first), offset[first]
                    for i in range(middle, middle + low_stride, 4):
                        store4(target, i + out, mul(c0, load4(source, i + o0)))
                elif last - first == 2:
                    c0, o0 = load4(coefficient, 4 * first), offset[first]
                    c1, o1 = load4(coefficient, 4 * first + 4), offset[first + 1]
                    for i in range(middle, middle + low_stride, 4):
                        total = mul_add(c1, load4(source, i + o1), mul(c0, load4(source, i + o0)))
                        store4(target, i + out, total)
                else:
                    for i in range(middle, middle + low_stride, 4):
                        total = zero4()
                        for k in range(first, last):
                            total = mul_add(load4(coefficient, 4 * k), load4(source, i + offset[k]), total)
                        store4(target, i + out, total)


@njit(**OPTIONS)
def rotate_two(source, target, size, low, high, pairs, c, s):
    """target = source with each pair (A, B) of local strings turned by the angle with cosine c and sine s."""
    target[:size] = source[:size]
    low_stride, high_stride = 1 << (2 * low), 1 << (2 * high)
    for start in range(0, size, 4 * high_stride):
        for middle in range(start, start + high_stride, 4 * low_stride):
            for p in range(4):
                for i in range(middle, middle + low_stride):
                    a, b = source[i + pairs[p, 0]], source[i + pairs[p, 1]]
                    target[i + pairs[p, 0]] = c * a - s * b
                    target[i + pairs[p, 1]] = s * a + c * b


@njit(**OPTIONS)
def overlap_one(bra, ket, size, qubit, a, b):
    """Σ (bra_B ket_A - bra_A ket_B): derivative of an energy in the angle that turns Pauli A into B on one qubit."""
    if qubit == 0:
        value = 0.0
        for i in range(0, size, 4):
            value += bra[i + b] * ket[i + a] - bra[i + a] * ket[i + b]
        return value
    stride = 1 << (2 * qubit)
    plus, minus = zero4(), zero4()
    for start in range(0, size, 4 * stride):
        for i in range(start, start + stride, 4):
            plus = mul_add(load4(bra, i + b * stride), load4(ket, i + a * stride), plus)
            minus = mul_add(load4(bra, i + a * stride), load4(ket, i + b * stride), minus)
    return sum4(sub(plus, minus))


@njit(**OPTIONS)
def overlap_two(bra, ket, size, low, high, pairs):
    """As `overlap_one`, summed over the four pairs of a two-qubit rotation."""
    value = 0.0
    low_stride, high_stride = 1 << (2 * low), 1 << (2 * high)
    for start in range(0, size, 4 * high_stride):
        for middle in range(start, start + high_stride, 4 * low_stride):
            for p in range(4):
                for i in range(middle, middle + low_stride):
                    a, b = i + pairs[p, 0], i + pairs[p, 1]
                    value += bra[b] * ket[a] - bra[a] * ket[b]
    return value


@njit(**OPTIONS)
def _rotated(library, op, angle, matrix):
    """matrix = noise · rotation(angle), column by column."""
    noise = library.matrix[op]
    a, b = library.pairs[op, 0, 0], library.pairs[op, 0, 1]
    c, s = math.cos(angle), math.sin(angle)
    for i in range(16):
        matrix[i] = noise[i]
    for i in range(4):
        matrix[4 * a + i] = c * noise[4 * a + i] + s * noise[4 * b + i]
        matrix[4 * b + i] = c * noise[4 * b + i] - s * noise[4 * a + i]


@njit(**OPTIONS)
def _forward(library, op, angle, source, target, size, matrix):
    kind = library.kind[op]
    if kind == 0:
        apply_one(source, target, size, library.low[op], library.matrix[op])
    elif kind == 1:
        _rotated(library, op, angle, matrix)
        apply_one(source, target, size, library.low[op], matrix)
    elif kind == 2:
        apply_two(
            source, target, size, library.low[op], library.high[op], library.pointer[op, 0], library.offset,
            library.coefficient,
        )  # fmt: skip
    else:
        rotate_two(
            source, target, size, library.low[op], library.high[op], library.pairs[op], math.cos(angle),
            math.sin(angle),
        )  # fmt: skip


@njit(**OPTIONS)
def _backward(library, op, angle, source, target, size, matrix, scratch):
    kind = library.kind[op]
    if kind == 0:
        apply_one_transposed(source, target, size, library.low[op], library.matrix[op], scratch)
    elif kind == 1:
        _rotated(library, op, angle, matrix)
        apply_one_transposed(source, target, size, library.low[op], matrix, scratch)
    elif kind == 2:
        apply_two(
            source, target, size, library.low[op], library.high[op], library.pointer[op, 1], library.offset,
            library.coefficient,
        )  # fmt: skip
    else:
        rotate_two(
            source, target, size, library.low[op], library.high[op], library.pairs[op], math.cos(angle),
            -math.sin(angle),
        )  # fmt: skip


@njit(**OPTIONS)
def _angle(slots, angles, k):
    return angles[slots[k]] if slots[k] >= 0 else 0.0


@njit(**OPTIONS)
def set_ground_state(vector, n_qubits):
    """vector = |0…0><0…0|: 1 on every string of I and Z."""
    vector[0] = 1.0
    filled = 1
    for _ in range(n_qubits):
        for i in range(filled):
            vector[filled + i] = 0.0
            vector[2 * filled + i] = 0.0
            vector[3 * filled + i] = vector[i]
        filled *= 4


@njit(**OPTIONS)
def state(library, ops, slots, angles, n_qubits, work):
    """Run the circuit; returns the row of `work` (shape (>= 2, 4**n)) that holds the final state."""
    size = 1 << (2 * n_qubits)
    matrix = np.empty(16)
    here = 0
    set_ground_state(work[0], n_qubits)
    for k in range(len(ops)):
        _forward(library, ops[k], _angle(slots, angles, k), work[here], work[1 - here], size, matrix)
        here = 1 - here
    return here


@njit(**OPTIONS)
def value(library, ops, slots, angles, n_qubits, h_index, h_value, work):
    """Energy: Σ h_P v_P over the strings of the observable."""
    vector = work[state(library, ops, slots, angles, n_qubits, work)]
    total = 0.0
    for t in range(len(h_index)):
        total += h_value[t] * vector[h_index[t]]
    return total


@njit(**OPTIONS)
def value_and_gradient(library, ops, slots, angles, n_qubits, h_index, h_value, segment, work, gradient):
    """Energy, with its gradient written to `gradient`, by one reverse sweep.

    The sweep needs the state before each rotation. They are kept for `segment` operations at a time; a longer circuit
    keeps one state at the start of each segment and runs forward again from there.

    Args:
        work: rows of 4**n: 2 scratch, 2 for the adjoint, one for each segment, then `segment` for kept states.
    """
    size = 1 << (2 * n_qubits)
    count = len(ops)
    n_segments = max(1, (count + segment - 1) // segment)
    kept = 4 + n_segments
    matrix, scratch = np.empty(16), np.empty(16)
    place = np.zeros(max(count, 1), dtype=np.int64)
    gradient[:] = 0.0
    energy = 0.0
    adjoint = 2

    set_ground_state(work[4], n_qubits)
    for j in range(n_segments - 1):
        here = 4 + j
        last = (j + 1) * segment
        for k in range(j * segment, last):
            there = 4 + j + 1 if k == last - 1 else (1 if here == 0 else 0)
            _forward(library, ops[k], _angle(slots, angles, k), work[here], work[there], size, matrix)
            here = there

    for j in range(n_segments - 1, -1, -1):
        first, last = j * segment, min(count, (j + 1) * segment)
        here = 4 + j
        for k in range(first, last):
            place[k] = here
            if j < n_segments - 1 and k == last - 1:
                break  # the state after it is the next segment's start
            if k + 1 < last and slots[k + 1] >= 0:
                there = kept + k - first
            else:
                there = 1 if here == 0 else 0
            _forward(library, ops[k], _angle(slots, angles, k), work[here], work[there], size, matrix)
            here = there
        if j == n_segments - 1:
            final = work[here]
            start = work[adjoint]
            for i in range(size):
                start[i] = 0.0
            for t in range(len(h_index)):
                energy += h_value[t] * final[h_index[t]]
                start[h_index[t]] = h_value[t]
        for k in range(last - 1, first - 1, -1):
            op, angle = ops[k], _angle(slots, angles, k)
            after = 5 - adjoint
            _backward(library, op, angle, work[adjoint], work[after], size, matrix, scratch)
            adjoint = after
            if slots[k] >= 0:
                pairs = library.pairs[op]
                if library.kind[op] == 1:
                    gradient[slots[k]] += overlap_one(
                        work[adjoint], work[place[k]], size, library.low[op], pairs[0, 0], pairs[0, 1]
                    )
                else:
                    gradient[slots[k]] += overlap_two(
                        work[adjoint], work[place[k]], size, library.low[op], library.high[op], pairs
                    )
    return energy
