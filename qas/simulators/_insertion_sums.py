"""Compiled kernels for generators that are sums of Pauli strings: slopes, and energies along their angles.

On amplitudes a sum acts by its nonzero entries (see `_sums.Sums`): an excitation of two electrons has two in sixteen.
"""

from __future__ import annotations

import numpy as np

from qas.simulators._compile import compiled
from qas.simulators._lanes import address, flip1, load4, make4, odd, read, store, times_plus, write, zero4
from qas.simulators._sums import SIGN

NOTHING = 1e-32
"""Square of an amplitude that no energy feels: it is below the rounding of a state of length 1."""


INDEX = (1 << SIGN) - 1


@compiled()
def sum_slopes(bra, ket, sums, touched, row, column):
    """row[column + s] = Im <bra|G_s|ket> for all sums that touch a qubit of the bit mask `touched`.

    Args:
        bra, ket: addresses of complex states.
    """
    for s in range(len(sums.support)):
        if sums.support[s] & touched == 0:
            continue
        value = 0.0
        for frame in range(sums.frames[s], sums.frames[s + 1]):
            x = sums.x[frame]
            for piece in range(sums.pieces[frame], sums.pieces[frame + 1]):
                real = imag = 0.0
                for h in range(1 << sums.high_bits[frame]):
                    start = sums.origin[piece] ^ sums.high[frame, h]
                    for k in range(1 << sums.low_bits[frame]):
                        code = start ^ sums.low[frame, k]
                        i = code & INDEX
                        sign, j = 1.0 - 2.0 * (code >> SIGN), i ^ x
                        lr, li, kr, ki = read(bra, 2 * i), read(bra, 2 * i + 1), read(ket, 2 * j), read(ket, 2 * j + 1)
                        real += sign * (lr * kr + li * ki)
                        imag += sign * (lr * ki - li * kr)
                value += sums.real[piece] * imag + sums.imag[piece] * real
        row[column + s] = value


@compiled()
def _apply(sums, s, factor, source, source_row, source_part, both, part):
    """both[i] at `part` += factor · (G_s source)[i]; a row of `both` holds Gψ and G²ψ beside each other."""
    for frame in range(sums.frames[s], sums.frames[s + 1]):
        x = sums.x[frame]
        for piece in range(sums.pieces[frame], sums.pieces[frame + 1]):
            real, imag = factor * sums.real[piece], factor * sums.imag[piece]
            for h in range(1 << sums.high_bits[frame]):
                start = sums.origin[piece] ^ sums.high[frame, h]
                for k in range(1 << sums.low_bits[frame]):
                    code = start ^ sums.low[frame, k]
                    i = code & INDEX
                    sign, j = 1.0 - 2.0 * (code >> SIGN), source_row * (i ^ x) + source_part
                    kr, ki = sign * read(source, j), sign * read(source, j + 1)
                    here = 4 * i + part
                    write(both, here, read(both, here) + real * kr - imag * ki)
                    write(both, here + 1, read(both, here + 1) + real * ki + imag * kr)


@compiled()
def _nonzero(sums, s, dimension, both, rows):
    """The rows where Gψ or G²ψ is not zero, in `rows`; returns their number."""
    count = 0
    frame = sums.frames[s]
    if sums.frames[s + 1] > frame + 1:
        for i in range(dimension):
            count = _kept(both, i, rows, count)
        return count
    for piece in range(sums.pieces[frame], sums.pieces[frame + 1]):
        for h in range(1 << sums.high_bits[frame]):
            start = sums.origin[piece] ^ sums.high[frame, h]
            for k in range(1 << sums.low_bits[frame]):
                count = _kept(both, (start ^ sums.low[frame, k]) & INDEX, rows, count)
    return count


@compiled(inline=True)
def _kept(both, i, rows, count):
    a, b, c, d = read(both, 4 * i), read(both, 4 * i + 1), read(both, 4 * i + 2), read(both, 4 * i + 3)
    if a * a + b * b > NOTHING or c * c + d * d > NOTHING:
        rows[count] = i
        return count + 1
    return count


@compiled()
def _joins(sums, s, x):
    """Whether the flips x lead from rows of G_s to rows of G_s."""
    frame = sums.frames[s]
    if sums.frames[s + 1] > frame + 1:
        return True
    pattern = 0
    for j in range(sums.checks.shape[1]):
        pattern |= int(odd(sums.checks[frame, j] & x)) << j
    first, last = sums.pieces[frame], sums.pieces[frame + 1]
    for piece in range(first, last):
        for other in range(first, last):
            if sums.pattern[piece] ^ sums.pattern[other] == pattern:
                return True
    return False


@compiled()
def _diagonal(terms, weight, first, last, rows, count, diagonal):
    """diagonal[i] = Σ weight (-1)^{z·i} over terms with one X-mask and parity of Y, at the rows i."""
    for r in range(count):
        i, value = rows[r], 0.0
        for t in range(first, last):
            part = terms.sign[t] * weight[terms.column[t]]
            value += -part if odd(terms.z[t] & i) else part
        diagonal[i] = value


@compiled()
def _products(both, rows, count, x, diagonal, imaginary, sums):
    """sums[r] += d[i] both[i ^ x], or -i d[i] times it, at the rows i."""
    for r in range(count):
        i = rows[r]
        value = load4(both, 4 * (i ^ x))
        d = diagonal[i]
        factors = make4(d, d, d, d)
        if imaginary:
            value = flip1(value)
            factors = make4(d, -d, d, -d)
        store(sums, 4 * r, times_plus(factors, value, load4(sums, 4 * r)))


@compiled()
def sum_curves(bra, ket, size, sums, scales, terms, weight, diagonals, curves):
    """(α, β, γ, δ) of appended sums (see `_sums`).

    Args:
        bra, ket: addresses of Hψ and ψ; `size`: 2·2**n.
        scales: float64 (sums,): s of G³ = s²G.
        terms, weight: `Groups` of the Hamiltonian's terms and their coefficients.
        diagonals: float64 (groups, 2**n), or without rows: formed where they are needed.
        curves: float64 (sums, 4), receives the result.
    """
    dimension = size >> 1
    memory, products = np.zeros(4 * dimension), np.empty(4 * dimension)
    rows, diagonal = np.empty(dimension, np.int64), np.empty(dimension)
    both, sums_at = address(memory), address(products)
    for s in range(len(sums.support)):
        _apply(sums, s, 1.0 / scales[s], ket, 2, 0, both, 0)
        _apply(sums, s, 1.0 / scales[s], both, 4, 0, both, 2)
        count = _nonzero(sums, s, dimension, both, rows)
        for k in range(0, 4 * count, 4):
            store(sums_at, k, zero4())
        for g in range(len(terms.x)):
            if not _joins(sums, s, terms.x[g]):
                continue
            if len(diagonals):
                _products(both, rows, count, terms.x[g], diagonals[g], terms.odd_y[g] == 1, sums_at)
            else:
                _diagonal(terms, weight, terms.start[g], terms.start[g + 1], rows, count, diagonal)
                _products(both, rows, count, terms.x[g], diagonal, terms.odd_y[g] == 1, sums_at)
        slope = fall = one = two = mixed = 0.0
        for r in range(count):
            i = rows[r]
            ar, ai, br, bi = read(both, 4 * i), read(both, 4 * i + 1), read(both, 4 * i + 2), read(both, 4 * i + 3)
            har, hai, hbr, hbi = products[4 * r], products[4 * r + 1], products[4 * r + 2], products[4 * r + 3]
            lr, li = read(bra, 2 * i), read(bra, 2 * i + 1)
            slope += lr * ai - li * ar
            fall += lr * br + li * bi
            one += ar * har + ai * hai
            two += br * hbr + bi * hbi
            mixed += br * hai - bi * har
        for r in range(count):
            store(both, 4 * rows[r], zero4())
        curves[s, 0], curves[s, 1] = 2 * slope, 2 * (fall - one)
        curves[s, 2], curves[s, 3] = 2 * mixed, two - one
    memory[0] = products[0] = 0.0  # their addresses were in use until here; a last mention keeps them alive
