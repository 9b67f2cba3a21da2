"""Compiled kernels of the state-vector engine. Gates are data; the reverse sweep un-applies them, so nothing is stored.

Kinds of operation:
    0 rx   1 ry   2 rz   3 one-qubit unitary   4 cx   5 cz   6 swap   7 two-qubit Pauli rotation
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False}
INLINE = {**OPTIONS, "forceinline": True}  # calls cost reference counts on every array passed


class Library(NamedTuple):
    """Tables of all operations; the first axis counts operations."""

    kind: np.ndarray  # int64 (ops,)
    first: np.ndarray  # int64 (ops,): bit mask of the first qubit
    second: np.ndarray  # int64 (ops,): bit mask of the second qubit, or 0
    matrix: np.ndarray  # complex128 (ops, 2, 2, 2): the unitary and its inverse
    x_mask: np.ndarray  # int64 (ops,): for Pauli rotations
    z_mask: np.ndarray  # int64 (ops,)


@njit(**INLINE)
def _parity(bits):
    bits ^= bits >> 16
    bits ^= bits >> 8
    bits ^= bits >> 4
    bits ^= bits >> 2
    bits ^= bits >> 1
    return bits & 1


@njit(**INLINE)
def _pauli_phase(x_mask, z_mask, i):
    """Phase f with P|i> = f |i ^ x>; at most two qubits, so the number of Y letters is 0, 1 or 2."""
    both = x_mask & z_mask
    sign = 1.0 - 2.0 * _parity(i & z_mask)
    if both == 0:
        return complex(sign, 0.0)
    if both & (both - 1) == 0:
        return complex(0.0, sign)
    return complex(-sign, 0.0)


@njit(**INLINE)
def _rx(psi, bit, c, s):
    low = bit - 1
    for k in range(len(psi) >> 1):
        i = k + (k & ~low)
        a, b = psi[i], psi[i + bit]
        psi[i] = complex(c * a.real + s * b.imag, c * a.imag - s * b.real)
        psi[i + bit] = complex(c * b.real + s * a.imag, c * b.imag - s * a.real)


@njit(**INLINE)
def _ry(psi, bit, c, s):
    low = bit - 1
    for k in range(len(psi) >> 1):
        i = k + (k & ~low)
        a, b = psi[i], psi[i + bit]
        psi[i] = complex(c * a.real - s * b.real, c * a.imag - s * b.imag)
        psi[i + bit] = complex(c * b.real + s * a.real, c * b.imag + s * a.imag)


@njit(**INLINE)
def _rz(psi, bit, c, s):
    low = bit - 1
    for k in range(len(psi) >> 1):
        i = k + (k & ~low)
        a, b = psi[i], psi[i + bit]
        psi[i] = complex(c * a.real + s * a.imag, c * a.imag - s * a.real)
        psi[i + bit] = complex(c * b.real - s * b.imag, c * b.imag + s * b.real)


@njit(**INLINE)
def _one_qubit(psi, bit, m, op, side):
    m00, m01, m10, m11 = m[op, side, 0, 0], m[op, side, 0, 1], m[op, side, 1, 0], m[op, side, 1, 1]
    low = bit - 1
    for k in range(len(psi) >> 1):
        i = k + (k & ~low)
        a, b = psi[i], psi[i + bit]
        psi[i] = m00 * a + m01 * b
        psi[i + bit] = m10 * a + m11 * b


@njit(**INLINE)
def _pauli_rotation(psi, x, z, c, s):
    for i in range(len(psi)):
        j = i ^ x
        if j > i:
            a, b = psi[i], psi[j]
            psi[i] = c * a - 1j * s * _pauli_phase(x, z, j) * b
            psi[j] = c * b - 1j * s * _pauli_phase(x, z, i) * a
        elif j == i:
            psi[i] = (c - 1j * s * _pauli_phase(x, z, i)) * psi[i]


@njit(**INLINE)
def _exchange(psi, bit, other, left, right):
    """Swap the amplitudes at offsets `left` and `right` wherever both bits are 0 in the base index."""
    low, high = min(bit, other) - 1, max(bit, other) - 1
    for k in range(len(psi) >> 2):
        i = k + (k & ~low)
        i += i & ~high
        a = psi[i + left]
        psi[i + left] = psi[i + right]
        psi[i + right] = a


@njit(**INLINE)
def _negate(psi, bit, other):
    low, high = min(bit, other) - 1, max(bit, other) - 1
    for k in range(len(psi) >> 2):
        i = k + (k & ~low)
        i += (i & ~high) + bit + other
        psi[i] = -psi[i]


@njit(**INLINE)
def apply(library, op, c, s, psi, inverse):
    """psi = gate psi in place, or its inverse; c and s are cos and sin of half the angle, s negated for an inverse."""
    kind, bit, other = library.kind[op], library.first[op], library.second[op]
    if kind == 0:
        _rx(psi, bit, c, s)
    elif kind == 1:
        _ry(psi, bit, c, s)
    elif kind == 2:
        _rz(psi, bit, c, s)
    elif kind == 3:
        _one_qubit(psi, bit, library.matrix, op, 1 if inverse else 0)
    elif kind == 4:
        _exchange(psi, bit, other, bit, bit + other)
    elif kind == 5:
        _negate(psi, bit, other)
    elif kind == 6:
        _exchange(psi, bit, other, bit, other)
    else:
        _pauli_rotation(psi, library.x_mask[op], library.z_mask[op], c, s)


@njit(**INLINE)
def _overlap_rx(bra, ket, bit):
    value = 0.0
    low = bit - 1
    for k in range(len(ket) >> 1):
        i = k + (k & ~low)
        a, b, p, q = ket[i], ket[i + bit], bra[i], bra[i + bit]
        value += p.real * b.imag - p.imag * b.real + q.real * a.imag - q.imag * a.real
    return value


@njit(**INLINE)
def _overlap_ry(bra, ket, bit):
    value = 0.0
    low = bit - 1
    for k in range(len(ket) >> 1):
        i = k + (k & ~low)
        a, b, p, q = ket[i], ket[i + bit], bra[i], bra[i + bit]
        value += q.real * a.real + q.imag * a.imag - p.real * b.real - p.imag * b.imag
    return value


@njit(**INLINE)
def _overlap_rz(bra, ket, bit):
    value = 0.0
    low = bit - 1
    for k in range(len(ket) >> 1):
        i = k + (k & ~low)
        a, b, p, q = ket[i], ket[i + bit], bra[i], bra[i + bit]
        value += p.real * a.imag - p.imag * a.real - q.real * b.imag + q.imag * b.real
    return value


@njit(**INLINE)
def overlap(library, op, bra, ket):
    """Im <bra| P |ket> for the Pauli P of a rotation: the derivative of the energy in its angle."""
    kind, bit = library.kind[op], library.first[op]
    if kind == 0:
        return _overlap_rx(bra, ket, bit)
    if kind == 1:
        return _overlap_ry(bra, ket, bit)
    if kind == 2:
        return _overlap_rz(bra, ket, bit)
    x, z = library.x_mask[op], library.z_mask[op]
    value = 0.0
    for i in range(len(ket)):
        value += (bra[i ^ x].conjugate() * _pauli_phase(x, z, i) * ket[i]).imag
    return value


@njit(**OPTIONS)
def apply_hamiltonian(masks, real, imag, psi, out):
    """out = H psi from H's permuted diagonals; `imag` is empty for a real matrix. Returns <psi|H|psi>."""
    size = len(psi)
    for i in range(size):
        out[i] = 0.0
    for m in range(len(masks)):
        x = masks[m]
        for i in range(size):
            out[i] += real[m, i] * psi[i ^ x]
        if imag.shape[0] > 0:
            for i in range(size):
                a, d = psi[i ^ x], imag[m, i]
                out[i] += complex(-d * a.imag, d * a.real)
    value = 0.0
    for i in range(size):
        value += psi[i].real * out[i].real + psi[i].imag * out[i].imag
    return value


@njit(**OPTIONS)
def run(library, ops, slots, angles, psi):
    """psi = circuit |0…0>"""
    for i in range(len(psi)):
        psi[i] = 0.0
    psi[0] = 1.0
    for k in range(len(ops)):
        c, s = 1.0, 0.0
        if slots[k] >= 0:
            c, s = math.cos(0.5 * angles[slots[k]]), math.sin(0.5 * angles[slots[k]])
        apply(library, ops[k], c, s, psi, False)


@njit(**OPTIONS)
def value(library, ops, slots, angles, masks, real, imag, work):
    """<H> after the circuit; `work` has 2 rows of 2**n."""
    run(library, ops, slots, angles, work[0])
    return apply_hamiltonian(masks, real, imag, work[0], work[1])


@njit(**OPTIONS)
def value_and_gradient(library, ops, slots, angles, masks, real, imag, work, gradient):
    """<H>, with its gradient written to `gradient`, by one reverse sweep (Jones and Gacon, arXiv:2009.02823)."""
    ket, bra = work[0], work[1]
    run(library, ops, slots, angles, ket)
    energy = apply_hamiltonian(masks, real, imag, ket, bra)
    for i in range(len(gradient)):
        gradient[i] = 0.0
    left = 0  # gates before the first angle need not be undone
    while left < len(ops) and slots[left] < 0:
        left += 1
    for k in range(len(ops) - 1, left - 1, -1):
        op, slot = ops[k], slots[k]
        c, s = 1.0, 0.0
        if slot >= 0:
            gradient[slot] += overlap(library, op, bra, ket)
            c, s = math.cos(0.5 * angles[slot]), -math.sin(0.5 * angles[slot])
        if k > left:
            apply(library, op, c, s, ket, True)
            apply(library, op, c, s, bra, True)
    return energy
