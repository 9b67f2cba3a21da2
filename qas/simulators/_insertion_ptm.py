"""Insertion gradients of noisy circuits: compiled kernels on vectors of Pauli expectation values.

A rotation about P turns each string Q that anticommutes with P: with Q P = i s R, where R is the bitwise xor of their
base-4 digits and s = 1 or -1, dv_Q/dθ = s v_R. So the derivative of Σ λ_Q v_Q is the sum of s (λ_Q v_R - λ_R v_Q) over
the unordered pairs {Q, R}: four pairs of local strings for each P on two qubits. One pass over both vectors gives all
nine strings of two qubits; it reads 16 rows of each vector at once, tile by tile. Unlike in the engine's own programs,
qubit q stays at digit q and each gate is a block.
"""

from __future__ import annotations

import math

import numpy as np

from qas.simulators import _ptm_kernels as kernels
from qas.simulators import _ptm_program as programs
from qas.simulators._compile import compiled
from qas.simulators._insertion_kernels import _LOW_BITS, _anticommute, _keep, copy_row, sum_of_anticommuting
from qas.simulators._lanes import (
    SHORT,
    at,
    load,
    nothing,
    odd,
    pointer,
    read,
    stopped,
    times_minus,
    times_plus,
    total,
    width,
    write,
)
from qas.simulators._ptm_kernels import CHUNK, CONSTANTS, DENSE, LINE, NOWHERE, TILE
from qas.simulators._ptm_kernels import FACTORS as FACTORS_OF_CORE
from qas.simulators._ptm_program import IDENTITY

# Columns of a block: where its qubits are, its core, its one-qubit maps.
LOW, HIGH, OPERATION, FACTORS, COLUMNS = 0, 1, 2, 3, 7
SCRATCH = CONSTANTS + 24
"""Where buffers start, in whole lines."""
VECTORS = SCRATCH + kernels.BUFFER
"""Numbers of scratch memory, in front of the vectors."""


# ---------------------------------------------------------------------- reading rows
@compiled(inline=True)
def _tile(low, high):
    """Where tiles of two digits start (see `kernels.place`), and the two digits that run along a row."""
    if low >= 2:
        return low, high, 0, 1
    if high == 1:
        return 2, 3, 2, 3
    other = 2 if high > 2 else 3
    return min(other, high), max(other, high), 1 - low, other


@compiled(inline=True)
def _turned(bra, ket, q, r, value):
    """value + λ_Q v_R - λ_R v_Q"""
    return times_minus(load(bra, r), load(ket, q), times_plus(load(bra, q), load(ket, r), value))


@compiled(inline=True)
def _turned_pair(bra, ket, rows, la, a0, a1, lb, b0, b1, value):
    """The four pairs of strings that turn about the letters la, lb; a0 and b0 are the letters before la and lb.

    In the cycle X, Y, Z a letter times the next one is i times the third: a0·la = i a1, b0·lb = i b1.
    """
    value = _turned(bra, ket, read(rows, a0), read(rows, a1 + 4 * lb), value)
    value = _turned(bra, ket, read(rows, a0 + 4 * lb), read(rows, a1), value)
    value = _turned(bra, ket, read(rows, 4 * b0), read(rows, la + 4 * b1), value)
    return _turned(bra, ket, read(rows, la + 4 * b0), read(rows, 4 * b1), value)


@compiled()
def _pair_sums(bra, ket, first, last, p, q, rows, sums):
    """sums[letter + 4 · higher letter] += the derivative for all nine strings, over tiles of rows."""
    xx, yx, zx = nothing(bra), nothing(bra), nothing(bra)
    xy, yy, zy = nothing(bra), nothing(bra), nothing(bra)
    xz, yz, zz = nothing(bra), nothing(bra), nothing(bra)
    for tile in range(first, last):
        start = kernels.place(tile, p, q)
        for i in range(start, start + TILE, width(bra)):
            here, there = at(bra, i), at(ket, i)
            xx = _turned_pair(here, there, rows, 1, 3, 2, 1, 3, 2, xx)
            yx = _turned_pair(here, there, rows, 2, 1, 3, 1, 3, 2, yx)
            zx = _turned_pair(here, there, rows, 3, 2, 1, 1, 3, 2, zx)
            xy = _turned_pair(here, there, rows, 1, 3, 2, 2, 1, 3, xy)
            yy = _turned_pair(here, there, rows, 2, 1, 3, 2, 1, 3, yy)
            zy = _turned_pair(here, there, rows, 3, 2, 1, 2, 1, 3, zy)
            xz = _turned_pair(here, there, rows, 1, 3, 2, 3, 2, 1, xz)
            yz = _turned_pair(here, there, rows, 2, 1, 3, 3, 2, 1, yz)
            zz = _turned_pair(here, there, rows, 3, 2, 1, 3, 2, 1, zz)
    write(sums, 5, read(sums, 5) + total(xx))
    write(sums, 6, read(sums, 6) + total(yx))
    write(sums, 7, read(sums, 7) + total(zx))
    write(sums, 9, read(sums, 9) + total(xy))
    write(sums, 10, read(sums, 10) + total(yy))
    write(sums, 11, read(sums, 11) + total(zy))
    write(sums, 13, read(sums, 13) + total(xz))
    write(sums, 14, read(sums, 14) + total(yz))
    write(sums, 15, read(sums, 15) + total(zz))


@compiled()
def _overlaps(bra, ket, first, last, p, q, rows, sums):
    """sums[16 a + b] += Σ λ v over the rows a of λ and b of v, over tiles of rows."""
    for a in range(0, 16, 4):
        ra, rb, rc, rd = read(rows, a), read(rows, a + 1), read(rows, a + 2), read(rows, a + 3)
        for b in range(16):
            row, there = read(rows, b), 16 * a + b
            s0, s1, s2, s3 = nothing(bra), nothing(bra), nothing(bra), nothing(bra)
            for tile in range(first, last):
                start = kernels.place(tile, p, q)
                for i in range(start, start + TILE, width(bra)):
                    x = load(ket, i + row)
                    s0, s1 = times_plus(load(bra, i + ra), x, s0), times_plus(load(bra, i + rb), x, s1)
                    s2, s3 = times_plus(load(bra, i + rc), x, s2), times_plus(load(bra, i + rd), x, s3)
            write(sums, there, read(sums, there) + total(s0))
            write(sums, there + 16, read(sums, there + 16) + total(s1))
            write(sums, there + 32, read(sums, there + 32) + total(s2))
            write(sums, there + 48, read(sums, there + 48) + total(s3))


@compiled()
def _pair(bra, ket, tiles, low, high, whole, sums, rows, buffer):
    """sums[letter + 4 · higher letter] = the derivative for all nine strings of two qubits; or, `whole`, all overlaps.

    The overlaps are sums[16 a + b] = Σ λ_a v_b over the strings that begin with the local strings a and b.
    """
    for local in range(256 if whole else 16):
        write(sums, local, 0.0)
    p, q, lane, further = _tile(low, high)
    here, there, step = bra, ket, tiles
    if low >= 2:
        kernels.straight_rows(rows, 1 << (2 * low), 1 << (2 * high))
    else:
        kernels.straight_rows(rows, LINE, 4 * LINE)
        here, there, step = buffer, at(buffer, 16 * LINE), CHUNK
    for tile in range(0, tiles, step):
        first, end = tile, min(tiles, tile + step)
        if low < 2:
            kernels.gather(bra, here, tile, end, p, q, low, high, lane, further, False)
            kernels.gather(ket, there, tile, end, p, q, low, high, lane, further, False)
            first, end = 0, end - tile
        start, stop = (p, q) if low >= 2 else (NOWHERE, NOWHERE)
        if whole:
            _overlaps(here, there, first, end, start, stop, rows, sums)
        else:
            _pair_sums(here, there, first, end, start, stop, rows, sums)


@compiled()
def _single(bra, ket, size, qubit, sums):
    """sums[letter] = the derivative for the three strings of one qubit."""
    one = 1 << (2 * qubit)
    x = y = z = 0.0
    for start in range(0, size, 4 * one):
        for i in range(start, start + one):
            here, there = at(bra, i), at(ket, i)
            x += read(here, 3 * one) * read(there, 2 * one) - read(here, 2 * one) * read(there, 3 * one)
            y += read(here, one) * read(there, 3 * one) - read(here, 3 * one) * read(there, one)
            z += read(here, 2 * one) * read(there, one) - read(here, one) * read(there, 2 * one)
    write(sums, 1, x)
    write(sums, 2, y)
    write(sums, 3, z)


@compiled(inline=True)
def _turn(q, p):
    """Strings in base 4 with Q P = i s R: s, and 0 where they commute."""
    if not _anticommute(p, q):
        return 0.0
    p_low, p_high = p & _LOW_BITS, (p >> 1) & _LOW_BITS
    p_x, p_y, p_z = p_low & ~p_high, p_high & ~p_low, p_low & p_high
    q_low, q_high = q & _LOW_BITS, (q >> 1) & _LOW_BITS
    q_x, q_y, q_z = q_low & ~q_high, q_high & ~q_low, q_low & q_high
    # A product of n digits that anticommute is i^n, with a sign for each of X·Z, Y·X, Z·Y; n is odd.
    negative = odd((q_x & p_z) | (q_y & p_x) | (q_z & p_y))
    bits = ((p_low & q_high) ^ (p_high & q_low)) & _LOW_BITS
    while bits & (bits - 1):
        bits &= bits - 1
        bits &= bits - 1
        negative = not negative
    return -1.0 if negative else 1.0


@compiled()
def _string(bra, ket, size, p):
    """The derivative for any one string, given in base 4."""
    value = 0.0
    for q in range(size):
        sign = _turn(q, p)
        if sign != 0.0:
            value += sign * read(bra, q) * read(ket, q ^ p)
    return value


@compiled()
def _sum_derivatives(state, h_index, h_value, cosets, scales, derivatives):
    """First to fourth derivative at φ = 0 of the energy under exp(-iφG/s) for sums G, float64 (sums, 4).

    Turning a string of the observable never leaves the group of the sum's strings times it. With D the derivative of
    the state, D v and D² v are formed on that coset, and so are h D and h D², as D⁴ = D² D².
    """
    for s in range(len(scales)):
        group = cosets.group[cosets.start[s] : cosets.start[s + 1]]
        first, size = cosets.first[s], len(group)
        count = cosets.first[s + 1] - first
        places = cosets.place[first : first + count]
        turns = np.empty((size, count))
        v, dv, ddv = np.empty(size), np.empty(size), np.empty(size)
        h, dh, ddh = np.empty(size), np.empty(size), np.empty(size)
        derivatives[s] = 0.0
        for t in range(len(h_index)):
            here, moves = h_index[t], False
            for j in range(count):
                moves |= _anticommute(cosets.string[first + j], here)
            if not moves:
                continue
            for e in range(size):
                v[e], h[e] = state[here ^ group[e]], 0.0
                for j in range(count):
                    turn = _turn(here ^ group[e], cosets.string[first + j])
                    turns[e, j] = turn * cosets.weight[first + j] * 2.0 / scales[s]
            h[0] = h_value[t]
            _derive(turns, places, v, dv, False)
            _derive(turns, places, dv, ddv, False)
            _derive(turns, places, h, dh, True)
            _derive(turns, places, dh, ddh, True)
            derivatives[s, 0] += h[0] * dv[0]
            derivatives[s, 1] += h[0] * ddv[0]
            for e in range(size):
                derivatives[s, 2] += dh[e] * ddv[e]
                derivatives[s, 3] += ddh[e] * ddv[e]


@compiled(inline=True)
def _derive(turns, places, source, target, transposed):
    """target = D source, or the transpose of D on it."""
    target[:] = 0.0
    for e in range(len(source)):
        for j in range(len(places)):
            other = e ^ places[j]
            if transposed:
                target[other] += turns[e, j] * source[e]
            else:
                target[e] += turns[e, j] * source[other]


@compiled()
def values_of(bra, ket, n_qubits, strings, touched, row, sums, rows, buffer):
    """row[column of P] = derivative of Σ bra_Q ket_Q for all strings that touch a qubit of the bit mask `touched`.

    Args:
        bra: pointer to a vector of 4**n coefficients, ket: to one of expectation values; n at least 2, and the vectors
            at least 4**4 long, with zeros beyond.
        row: float64 (strings,); values of other strings stay.
        sums: scratch for 16 numbers; buffer: for 32 rows of `LINE` numbers.
        rows: scratch for 16 integers, followed by 0, 1, …, 15.
    """
    tiles = 1 << (2 * max(n_qubits, 4) - 8)
    for s in range(len(strings.qubit)):
        if (1 << strings.qubit[s]) & touched:
            _single(bra, ket, 1 << (2 * n_qubits), strings.qubit[s], sums)
            for letter in range(1, 4):
                _keep(row, strings.single, s, letter, read(sums, letter))
    for p in range(len(strings.low)):
        low, high = strings.low[p], strings.high[p]
        if ((1 << low) | (1 << high)) & touched:
            _pair(bra, ket, tiles, low, high, False, sums, rows, buffer)
            for local in range(5, 16):
                if local & 3:
                    _keep(row, strings.pair, p, local, read(sums, local))
    wide = strings.wide
    for r in range(len(wide.base4)):
        if wide.support[r] & touched:
            row[wide.column[r]] = _string(bra, ket, 1 << (2 * n_qubits), wide.base4[r])


@compiled()
def costs_of(bra, ket, n_qubits, channels, touched, row, sums, rows, buffer):
    """row[column] = Σ λ (N - 1) v for the `Channels` N that touch a qubit of the bit mask `touched`.

    Args: as for `values_of`, but `sums`: scratch for 256 numbers.
    """
    tiles = 1 << (2 * max(n_qubits, 4) - 8)
    for p in range(len(channels.low)):
        low, high = channels.low[p], channels.high[p]
        if ((1 << low) | (1 << high)) & touched == 0:
            continue
        _pair(bra, ket, tiles, low, high, True, sums, rows, buffer)
        for c in range(channels.first[p], channels.first[p + 1]):
            cost = 0.0
            for k in range(channels.start[c], channels.start[c + 1]):
                cost += channels.value[k] * read(sums, channels.entry[k])
            row[channels.column[c]] = cost


# ---------------------------------------------------------------------- running gates
@compiled()
def _blocks(library, gates, n_qubits, blocks, first_block, factors):
    """Each gate as blocks of its own: a core, or none, and the one-qubit operations that follow it.

    Fills `blocks`, int64 (ops, 7), `first_block`, int64 (gates + 1,), and `factors`, int64 (ops, 2).
    """
    whole, ops = library.whole, gates.ops
    count = filled = 0
    for gate in range(len(gates.masks)):
        first_block[gate] = count
        k, last = gates.starts[gate], gates.starts[gate + 1]
        while k < last:
            block, op = blocks[count], ops[k]
            low, high = whole[op, programs.LOW], whole[op, programs.HIGH]
            block[OPERATION] = op
            if high < 0:
                partner = (low + 1) % n_qubits
                low, high, block[OPERATION] = min(low, partner), max(low, partner), IDENTITY
            else:
                k += 1
            end = k
            while end < last and whole[ops[end], programs.HIGH] < 0:
                if whole[ops[end], programs.LOW] != low and whole[ops[end], programs.LOW] != high:
                    break
                end += 1
            block[LOW], block[HIGH] = low, high
            for side in range(2):
                qubit = high if side else low
                block[FACTORS + 2 * side] = filled
                for j in range(k, end):
                    if whole[ops[j], programs.LOW] == qubit:
                        factors[filled, 0], factors[filled, 1] = ops[j], gates.slots[j]
                        filled += 1
                block[FACTORS + 2 * side + 1] = filled
            k = end
            count += 1
    first_block[len(gates.masks)] = count


@compiled(inline=True)
def _mix(transposed, source, target, tiles, p, q, straight, turned, constants):
    if transposed:
        kernels.mix_adjoint(source, target, 0, tiles, p, q, p, q, straight, turned, constants, DENSE, DENSE, 0)
    else:
        kernels.mix_forward(source, target, 0, tiles, p, q, p, q, turned, straight, constants, DENSE, DENSE)


@compiled()
def _apply(transposed, source, target, n_qubits, library, block, factors, angles, constants, maps, rows):
    """target = the block's map on source, or its transpose.

    Args:
        constants: scratch, followed by two buffers of 16 rows; maps: for 24 numbers.
        rows: scratch for 16 integers, then 0, 1, …, 15, then for 16 more.
    """
    whole, real, pool = pointer(library.whole), pointer(library.real), pointer(library.pool)
    f, angles_at = pointer(factors), pointer(angles)
    programs._chain(whole, real, f, block[FACTORS], block[FACTORS + 1], angles_at, maps)
    programs._chain(whole, real, f, block[FACTORS + 2], block[FACTORS + 3], angles_at, at(maps, 12))
    for k in range(24):
        write(constants, k, read(maps, k))
    op, low, high = block[OPERATION], block[LOW], block[HIGH]
    straight, turned, core = rows, at(rows, 32), at(rows, 16)
    is_dense = False
    for row in range(16):
        write(constants, FACTORS_OF_CORE + row, 1.0 if op == IDENTITY else library.real[op, programs.FACTOR + row])
    if op != IDENTITY:
        is_dense = library.whole[op, programs.CORE] < 0
        if not is_dense:
            core = at(whole, programs.WHOLE_COLUMNS * op + programs.CORE)
    tiles = 1 << (2 * max(n_qubits, 4) - 8)
    if low >= 2 and not is_dense:
        kernels.straight_rows(straight, 1 << (2 * low), 1 << (2 * high))
        kernels.core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
        _mix(transposed, source, target, tiles, low, high, straight, turned, constants)
        return
    kernels.straight_rows(straight, LINE, 4 * LINE)
    kernels.core_rows(turned, core, LINE, 4 * LINE)
    p, q, lane, other = _tile(low, high)
    buffer = at(constants, SCRATCH)
    second = at(buffer, 16 * LINE)
    for tile in range(0, tiles, CHUNK):
        end = min(tiles, tile + CHUNK)
        count = end - tile
        here, there = buffer, second
        kernels.gather(source, here, tile, end, p, q, low, high, lane, other, False)
        matrix = at(pool, 0 if op == IDENTITY else 768 * library.whole[op, programs.POOL])
        if is_dense and not transposed:
            kernels.dense_map(here, there, TILE * count, straight, matrix)
            here, there = second, buffer
        _mix(transposed, here, there, count, NOWHERE, NOWHERE, straight, turned, constants)
        if is_dense and transposed:
            kernels.dense_map(there, here, TILE * count, straight, at(matrix, 512))
            here, there = there, here
        kernels.gather(target, there, tile, end, p, q, low, high, lane, other, True)


@compiled(inline=True)
def _fill(vector, size):
    for i in range(size):
        write(vector, i, 0.0)


@compiled(inline=True)
def _set_ground_state(vector, n_qubits, room):
    """vector = |0…0><0…0|: 1 on every string of I and Z."""
    _fill(vector, room)
    for subset in range(1 << n_qubits):
        index = 0
        for q in range(n_qubits):
            index |= ((subset >> q) & 1) * (3 << (2 * q))
        write(vector, index, 1.0)


@compiled(inline=True)
def _set_observable(vector, room, h_index, h_value):
    _fill(vector, room)
    for t in range(len(h_index)):
        write(vector, h_index[t], h_value[t])


@compiled()
def sweep(
    library, gates, angles, n_qubits, h_index, h_value, memory, segment, strings, channels, row_of, values, costs, stop
):
    """Insertion gradients of all strings at some positions; returns the energy, NaN if stopped.

    The state at every position is needed. One is kept at the start of each `segment` gates, and on the way back each
    segment is run again.

    Args:
        gates: `GateOperations`.
        n_qubits: at least 2.
        memory: `VECTORS` numbers of scratch, then vectors of max(4**n, 4**4): the adjoint, a kept state
            for each segment, and segment + 1 more.
        row_of: int64 (gates + 1,): row of `values` that a position goes to, or -1.
        channels: `Channels` of inserted gates.
        values: float64 (rows, strings), receives the slopes; costs: float64 (rows, gates), those of the channels.
    """
    n_gates, n_ops = len(gates.masks), len(gates.ops)
    blocks, factors = np.empty((n_ops, COLUMNS), np.int64), np.empty((n_ops, 2), np.int64)
    first_block = np.empty(n_gates + 1, np.int64)
    _blocks(library, gates, n_qubits, blocks, first_block, factors)
    room = 1 << (2 * max(n_qubits, 4))
    constants = pointer(memory)
    buffer, bra = at(constants, SCRATCH), at(constants, VECTORS)
    whole, real = np.empty(48, np.int64), np.empty(24 + 256)
    rows, maps, sums = pointer(whole), pointer(real), at(pointer(real), 24)
    for k in range(16):
        whole[16 + k] = k
    row, cost_row = np.zeros(values.shape[1]), np.zeros(costs.shape[1])
    n_segments = max(1, (n_gates + segment - 1) // segment)
    kept = at(bra, room)
    segment_states = at(kept, room * n_segments)
    energy, lowest, touched = 0.0, 0, -1
    while lowest <= n_gates and row_of[lowest] < 0:
        lowest += 1
    _set_ground_state(kept, n_qubits, room)
    for round_ in range(1 - n_segments, n_segments):
        # Negative rounds run forward through every segment but the last; then each one is run and undone, last first.
        j = round_ + n_segments - 1 if round_ < 0 else n_segments - 1 - round_
        first, last = j * segment, min(n_gates, (j + 1) * segment)
        ket = at(kept, room * j)
        if round_ > 0 and last <= lowest:
            break
        for gate in range(first, last):
            if (gate == 0 or room > SHORT) and stopped(stop):
                return math.nan
            place = gate - first if round_ >= 0 else 0
            target = at(segment_states, room * place)
            if round_ < 0 and gate == last - 1:
                target = at(kept, room * (j + 1))
            for b in range(first_block[gate], first_block[gate + 1]):
                _apply(False, ket, target, n_qubits, library, blocks[b], factors, angles, constants, maps, rows)
                ket = target
        if round_ < 0:
            continue
        if round_ == 0:
            _set_observable(bra, room, h_index, h_value)
            for t in range(len(h_index)):
                energy += h_value[t] * read(ket, h_index[t])
            if row_of[n_gates] >= 0:
                values_of(bra, ket, n_qubits, strings, touched, row, sums, rows, buffer)
                costs_of(bra, ket, n_qubits, channels, touched, cost_row, sums, rows, buffer)
                copy_row(row, values, row_of[n_gates])
                copy_row(cost_row, costs, row_of[n_gates])
                touched = 0
        for gate in range(last - 1, max(first, lowest) - 1, -1):
            if room > SHORT and stopped(stop):
                return math.nan
            for b in range(first_block[gate + 1] - 1, first_block[gate] - 1, -1):
                _apply(True, bra, bra, n_qubits, library, blocks[b], factors, angles, constants, maps, rows)
            ket = at(segment_states, room * (gate - 1 - first)) if gate > first else at(kept, room * j)
            touched |= gates.masks[gate]
            if row_of[gate] >= 0:
                values_of(bra, ket, n_qubits, strings, touched, row, sums, rows, buffer)
                costs_of(bra, ket, n_qubits, channels, touched, cost_row, sums, rows, buffer)
                copy_row(row, values, row_of[gate])
                copy_row(cost_row, costs, row_of[gate])
                touched = 0
    whole[0], real[0] = 0, 0.0  # their addresses were in use until here; a last mention keeps them alive
    return energy


@compiled()
def append(
    state, n_qubits, h_index, h_value, memory, strings, cosets, scales, channels, slopes, falls, derivatives, costs
):  # fmt: skip
    """What strings and sums bring after `state`, float64 (4**n,).

    Args:
        n_qubits: at least 2.
        h_index: int64 (terms,): where the observable is not zero; `h_value`: its values there.
        memory: float64: as for `sweep`, with two vectors.
        slopes: float64 (strings,), receives the slopes at θ = 0.
        falls: float64 (strings,), receives (E(0) - E(π)) / 2.
        cosets, scales, derivatives: of the sums, as for `_sum_derivatives`.
        costs: float64 (gates,), receives those of `channels`.
    """
    _sum_derivatives(state, h_index, h_value, cosets, scales, derivatives)
    if len(slopes) == 0 and len(costs) == 0:
        return
    room = 1 << (2 * max(n_qubits, 4))
    buffer, bra = at(pointer(memory), SCRATCH), at(pointer(memory), VECTORS)
    ket = at(bra, room)
    _set_observable(bra, room, h_index, h_value)
    _fill(ket, room)
    for i in range(len(state)):
        write(ket, i, state[i])
    whole, sums = np.empty(32, np.int64), np.empty(256)
    for k in range(16):
        whole[16 + k] = k
    values_of(bra, ket, n_qubits, strings, -1, slopes, pointer(sums), pointer(whole), buffer)
    costs_of(bra, ket, n_qubits, channels, -1, costs, pointer(sums), pointer(whole), buffer)
    parts = np.empty(len(h_index))
    for t in range(len(h_index)):
        parts[t] = h_value[t] * state[h_index[t]]
    sum_of_anticommuting(h_index, parts, strings, falls)
    whole[0], sums[0], memory[0] = 0, 0.0, 0.0  # their addresses were in use until here; a mention keeps them alive
