"""Compiled kernels of the Pauli-transfer engine: a local map in one pass over the memory.

A state is the real vector v_P = Tr(P ρ) over all 4**m Pauli strings of m qubits, base-4 digit p being the letter of the
p-th qubit. A *block* is everything that happens to two qubits from one two-qubit gate to the next: a *core* (a signed
permutation of the 16 local strings with a factor for each: a Clifford gate and Pauli noise; or any 16x16 map), then one
4x4 map on each of the two qubits (further noise, rotations, one-qubit gates). A block reads the 16 rows of the vector
that belong to its local strings once, works in registers, and writes them once.

Rows are read in tiles of 16 x 16 numbers. Where the digits of the block are the lowest ones, a tile is turned on its way
through a small buffer, so that the numbers of one register never mix.

Only what a block can do is compiled; which blocks a circuit consists of is data (`_ptm_program.py`).
"""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

from qas.simulators._compile import compiled
from qas.simulators._lanes import (
    at,
    copy4,
    load,
    nothing,
    read,
    scale4,
    share4,
    splat,
    store,
    times,
    times_plus,
    total,
    transpose4,
    width,
    write,
)

TILE = 16
"""Numbers of each row in one tile: the two lowest digits that the block does not touch."""
CHUNK = 8
"""Tiles that go through the buffer at once."""
LINE = TILE * CHUNK
BUFFER = 2 * 16 * LINE
"""Numbers in the scratch memory of one thread: two buffers of 16 rows."""
FORWARD, UNDO, ADJOINT = 0, 1, 2
SHIFT, DENSE = 0, 1
"""Kinds of one-qubit map: 1 everywhere but for Z += g·I (the rest of it is in the factors of the core), or any."""
NOWHERE = 30
"""A digit beyond every register: nothing is inserted there."""
LOW, HIGH, FACTORS = 0, 12, 24
CONSTANTS = 40
"""The numbers of a block: rows 1 to 3 of the map on the lower qubit, of the higher one, and the core's 16 factors."""


@compiled(inline=True)
def place(tile, first, second):
    """Where a tile starts: two zero digits below, one at each of two ascending positions."""
    i = tile << 4
    below = (1 << (2 * first)) - 1
    i = (i & below) | ((i & ~below) << 2)
    below = (1 << (2 * second)) - 1
    return (i & below) | ((i & ~below) << 2)


@compiled(inline=True)
def _four(base, rows, factors, b, scaled):
    x0, x1 = load(base, read(rows, 4 * b)), load(base, read(rows, 4 * b + 1))
    x2, x3 = load(base, read(rows, 4 * b + 2)), load(base, read(rows, 4 * b + 3))
    if scaled:
        x0, x1 = times(splat(factors, 4 * b), x0), times(splat(factors, 4 * b + 1), x1)
        x2, x3 = times(splat(factors, 4 * b + 2), x2), times(splat(factors, 4 * b + 3), x3)
    return x0, x1, x2, x3


@compiled(inline=True)
def _map(m, kind, transposed, x0, x1, x2, x3):
    """A trace-preserving map (its first row is 1 0 0 0), or its transpose, on four registers."""
    if kind == 0:
        if transposed:
            return times_plus(splat(m, 8), x3, x0), x1, x2, x3
        return x0, x1, x2, times_plus(splat(m, 8), x0, x3)
    if transposed:
        y0 = times_plus(splat(m, 0), x1, times_plus(splat(m, 4), x2, times_plus(splat(m, 8), x3, x0)))
        y1 = times_plus(splat(m, 1), x1, times_plus(splat(m, 5), x2, times(splat(m, 9), x3)))
        y2 = times_plus(splat(m, 2), x1, times_plus(splat(m, 6), x2, times(splat(m, 10), x3)))
        y3 = times_plus(splat(m, 3), x1, times_plus(splat(m, 7), x2, times(splat(m, 11), x3)))
        return y0, y1, y2, y3
    y1 = times_plus(splat(m, 0), x0, times_plus(splat(m, 1), x1, times_plus(splat(m, 2), x2, times(splat(m, 3), x3))))
    y2 = times_plus(splat(m, 4), x0, times_plus(splat(m, 5), x1, times_plus(splat(m, 6), x2, times(splat(m, 7), x3))))
    y3 = times_plus(splat(m, 8), x0, times_plus(splat(m, 9), x1, times_plus(splat(m, 10), x2, times(splat(m, 11), x3))))
    return x0, y1, y2, y3


@compiled(inline=True)
def _put4(base, r0, r1, r2, r3, rows, factors, a, scaled, x0, x1, x2, x3):
    if scaled:
        x0, x1 = times(splat(factors, a), x0), times(splat(factors, a + 4), x1)
        x2, x3 = times(splat(factors, a + 8), x2), times(splat(factors, a + 12), x3)
    store(base, r0, x0)
    store(base, r1, x1)
    store(base, r2, x2)
    store(base, r3, x3)


@compiled(inline=True)
def _mix(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind, backward, transposed):
    """Two one-qubit maps on the 16 rows of each tile, with the factors of the core before (forward) or after them."""
    factors, low, high = at(constants, FACTORS), at(constants, LOW), at(constants, HIGH)
    lanes = width(source)
    for tile in range(first, last):
        start = place(tile, p, q)
        for i in range(start, start + TILE, lanes):
            base, out = at(source, i), at(target, i)
            x00, x10, x20, x30 = _four(base, rows_in, factors, 0, not backward)
            x00, x10, x20, x30 = _map(low, low_kind, transposed, x00, x10, x20, x30)
            x01, x11, x21, x31 = _four(base, rows_in, factors, 1, not backward)
            x01, x11, x21, x31 = _map(low, low_kind, transposed, x01, x11, x21, x31)
            x02, x12, x22, x32 = _four(base, rows_in, factors, 2, not backward)
            x02, x12, x22, x32 = _map(low, low_kind, transposed, x02, x12, x22, x32)
            x03, x13, x23, x33 = _four(base, rows_in, factors, 3, not backward)
            x03, x13, x23, x33 = _map(low, low_kind, transposed, x03, x13, x23, x33)
            x00, x01, x02, x03 = _map(high, high_kind, transposed, x00, x01, x02, x03)
            x10, x11, x12, x13 = _map(high, high_kind, transposed, x10, x11, x12, x13)
            x20, x21, x22, x23 = _map(high, high_kind, transposed, x20, x21, x22, x23)
            x30, x31, x32, x33 = _map(high, high_kind, transposed, x30, x31, x32, x33)
            r0, r4, r8, r12 = read(rows_out, 0), read(rows_out, 4), read(rows_out, 8), read(rows_out, 12)
            _put4(out, r0, r4, r8, r12, rows_out, factors, 0, backward, x00, x01, x02, x03)
            r1, r5, r9, r13 = read(rows_out, 1), read(rows_out, 5), read(rows_out, 9), read(rows_out, 13)
            _put4(out, r1, r5, r9, r13, rows_out, factors, 1, backward, x10, x11, x12, x13)
            r2, r6, r10, r14 = read(rows_out, 2), read(rows_out, 6), read(rows_out, 10), read(rows_out, 14)
            _put4(out, r2, r6, r10, r14, rows_out, factors, 2, backward, x20, x21, x22, x23)
            r3, r7, r11, r15 = read(rows_out, 3), read(rows_out, 7), read(rows_out, 11), read(rows_out, 15)
            _put4(out, r3, r7, r11, r15, rows_out, factors, 3, backward, x30, x31, x32, x33)


@compiled()
def _mix_forward(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind):
    # Constants are spelled out so that the loops hold no branches.
    if low_kind == 0:
        if high_kind == 0:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 0, False, False)
        else:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 1, False, False)
    elif high_kind == 0:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 0, False, False)
    else:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 1, False, False)


@compiled()
def _mix_undo(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind):
    if low_kind == 0:
        if high_kind == 0:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 0, True, False)
        else:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 1, True, False)
    elif high_kind == 0:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 0, True, False)
    else:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 1, True, False)


@compiled()
def _mix_adjoint(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind):
    if low_kind == 0:
        if high_kind == 0:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 0, True, True)
        else:
            _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 0, 1, True, True)
    elif high_kind == 0:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 0, True, True)
    else:
        _mix(source, target, first, last, p, q, rows_in, rows_out, constants, 1, 1, True, True)


@compiled(inline=True)
def _mixed(direction, source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind):
    if direction == FORWARD:
        _mix_forward(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind)
    elif direction == UNDO:
        _mix_undo(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind)
    else:
        _mix_adjoint(source, target, first, last, p, q, rows_in, rows_out, constants, low_kind, high_kind)


@compiled()
def _dense(source, target, columns, rows, matrix):
    """target = M source for the 16 rows of a buffer; `matrix` row by row."""
    for i in range(0, columns, width(source)):
        for row in range(16):
            value = times(splat(matrix, 16 * row), load(source, i + read(rows, 0)))
            for k in range(1, 16):
                value = times_plus(splat(matrix, 16 * row + k), load(source, i + read(rows, k)), value)
            store(target, i + read(rows, row), value)


@compiled(inline=True)
def _lanes_of(low, high):
    """The two lowest digits that are neither of two."""
    if low >= 2:
        return 0, 1
    if high == 1:
        return 2, 3
    return 1 - low, 2 if high > 2 else 3


@compiled(inline=True)
def _tile_digits(low, high):
    """Two ascending positions at which the number of a tile gets a zero digit (see `place`)."""
    if low >= 2:
        return low, high
    if high == 1:
        return 2, 3
    other = 2 if high > 2 else 3
    return min(other, high), max(other, high)


@compiled()
def gather(source, buffer, first, last, low, high):
    """Turn tiles of a block whose lower digit is 0 or 1 into rows of `LINE` numbers, row = letter + 4 · higher letter."""
    p, q = _tile_digits(low, high)
    lane_low, lane_high = _lanes_of(low, high)
    by_row, by_lane, inner = 1 << (2 * high), 1 << (2 * lane_high), 1 << (2 * lane_low)
    for tile in range(first, last):
        start, column = place(tile, p, q), TILE * (tile - first)
        for b in range(4):
            for r in range(4):
                here = at(source, start + b * by_row + r * by_lane)
                there = at(buffer, 4 * b * LINE + column + 4 * r)
                if low == 0:
                    transpose4(here, inner, there, LINE)
                else:
                    for a in range(4):
                        copy4(at(here, 4 * a), at(there, a * LINE))


@compiled()
def scatter(buffer, target, first, last, low, high):
    """The way back of `gather`."""
    p, q = _tile_digits(low, high)
    lane_low, lane_high = _lanes_of(low, high)
    by_row, by_lane, inner = 1 << (2 * high), 1 << (2 * lane_high), 1 << (2 * lane_low)
    for tile in range(first, last):
        start, column = place(tile, p, q), TILE * (tile - first)
        for b in range(4):
            for r in range(4):
                here = at(buffer, 4 * b * LINE + column + 4 * r)
                there = at(target, start + b * by_row + r * by_lane)
                if low == 0:
                    transpose4(here, LINE, there, inner)
                else:
                    for a in range(4):
                        copy4(at(here, a * LINE), at(there, 4 * a))


@compiled(inline=True)
def _straight_rows(rows, low_step, high_step):
    for row in range(16):
        write(rows, row, (row & 3) * low_step + (row >> 2) * high_step)


@compiled(inline=True)
def _core_rows(rows, core, low_step, high_step):
    for row in range(16):
        from_ = read(core, row)
        write(rows, row, (from_ & 3) * low_step + (from_ >> 2) * high_step)


@compiled()
def apply(
    direction, source, target, first, last, low, high, core, dense, constants, low_kind, high_kind, rows, buffer
):
    """One block, or its inverse or transpose, on tiles `first` to `last` of a vector of at least 4**4 numbers.

    Args:
        core: for each local string the one it comes from; -1 in front: the core is `dense`.
        dense: the core as 16x16 map, row by row (for the inverse or the transpose of the block: of the core).
        rows: scratch for 32 integers.
        buffer: scratch for `BUFFER` numbers.
    """
    straight, turned = rows, at(rows, 16)
    is_dense = read(core, 0) < 0
    if low >= 2 and not is_dense:
        _straight_rows(straight, 1 << (2 * low), 1 << (2 * high))
        _core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
        rows_in, rows_out = (turned, straight) if direction == FORWARD else (straight, turned)
        _mixed(direction, source, target, first, last, low, high, rows_in, rows_out, constants, low_kind, high_kind)
        return
    _straight_rows(straight, LINE, 4 * LINE)
    if is_dense:
        _straight_rows(turned, LINE, 4 * LINE)
    else:
        _core_rows(turned, core, LINE, 4 * LINE)
    rows_in, rows_out = (turned, straight) if direction == FORWARD else (straight, turned)
    other = at(buffer, 16 * LINE)
    for tile in range(first, last, CHUNK):
        end = min(last, tile + CHUNK)
        count = end - tile
        if low >= 2:
            _gather_straight(source, buffer, tile, end, low, high)
        else:
            gather(source, buffer, tile, end, low, high)
        here, there = buffer, other
        if is_dense and direction == FORWARD:
            _dense(buffer, other, TILE * count, straight, dense)
            here = other
        _mixed(direction, here, there, 0, count, NOWHERE, NOWHERE, rows_in, rows_out, constants, low_kind, high_kind)
        if is_dense and direction != FORWARD:
            _dense(other, buffer, TILE * count, straight, dense)
            there = buffer
        if low >= 2:
            _scatter_straight(there, target, tile, end, low, high)
        else:
            scatter(there, target, tile, end, low, high)


@compiled()
def _gather_straight(source, buffer, first, last, low, high):
    for tile in range(first, last):
        start, column = place(tile, low, high), TILE * (tile - first)
        for row in range(16):
            here = at(source, start + ((row & 3) << (2 * low)) + ((row >> 2) << (2 * high)))
            for i in range(0, TILE, 4):
                copy4(at(here, i), at(buffer, row * LINE + column + i))


@compiled()
def _scatter_straight(buffer, target, first, last, low, high):
    for tile in range(first, last):
        start, column = place(tile, low, high), TILE * (tile - first)
        for row in range(16):
            there = at(target, start + ((row & 3) << (2 * low)) + ((row >> 2) << (2 * high)))
            for i in range(0, TILE, 4):
                copy4(at(buffer, row * LINE + column + i), at(there, i))


@compiled()
def _overlaps(bra, ket, first, last, p, q, rows, inner, outer, out):
    """out[4 (i-1) + j] += Σ bra[i] ket[j] over the letters i > 0, j of one digit; `inner`, `outer` step through rows."""
    lanes = width(bra)
    s10, s11, s12, s13 = nothing(bra), nothing(bra), nothing(bra), nothing(bra)
    s20, s21, s22, s23 = nothing(bra), nothing(bra), nothing(bra), nothing(bra)
    s30, s31, s32, s33 = nothing(bra), nothing(bra), nothing(bra), nothing(bra)
    for tile in range(first, last):
        start = place(tile, p, q)
        for i in range(start, start + TILE, lanes):
            for b in range(4):
                r0, r1 = i + read(rows, outer * b), i + read(rows, outer * b + inner)
                r2, r3 = i + read(rows, outer * b + 2 * inner), i + read(rows, outer * b + 3 * inner)
                x0, x1, x2, x3 = load(ket, r0), load(ket, r1), load(ket, r2), load(ket, r3)
                y = load(bra, r1)
                s10, s11 = times_plus(y, x0, s10), times_plus(y, x1, s11)
                s12, s13 = times_plus(y, x2, s12), times_plus(y, x3, s13)
                y = load(bra, r2)
                s20, s21 = times_plus(y, x0, s20), times_plus(y, x1, s21)
                s22, s23 = times_plus(y, x2, s22), times_plus(y, x3, s23)
                y = load(bra, r3)
                s30, s31 = times_plus(y, x0, s30), times_plus(y, x1, s31)
                s32, s33 = times_plus(y, x2, s32), times_plus(y, x3, s33)
    write(out, 0, read(out, 0) + total(s10))
    write(out, 1, read(out, 1) + total(s11))
    write(out, 2, read(out, 2) + total(s12))
    write(out, 3, read(out, 3) + total(s13))
    write(out, 4, read(out, 4) + total(s20))
    write(out, 5, read(out, 5) + total(s21))
    write(out, 6, read(out, 6) + total(s22))
    write(out, 7, read(out, 7) + total(s23))
    write(out, 8, read(out, 8) + total(s30))
    write(out, 9, read(out, 9) + total(s31))
    write(out, 10, read(out, 10) + total(s32))
    write(out, 11, read(out, 11) + total(s33))


@compiled()
def overlaps(bra, ket, first, last, low, high, want_low, want_high, out, rows, buffer):
    """Reduced products of two vectors: out[4 (i-1) + j] += Σ bra[i…] ket[j…], letters of one digit, i > 0.

    Args:
        want_low, want_high: whether the digit `low` (into out[0:12]) or `high` (into out[12:24]) is wanted.
        out: float64.
    """
    if low >= 2:
        _straight_rows(rows, 1 << (2 * low), 1 << (2 * high))
        if want_low:
            _overlaps(bra, ket, first, last, low, high, rows, 1, 4, out)
        if want_high:
            _overlaps(bra, ket, first, last, low, high, rows, 4, 1, at(out, 12))
        return
    _straight_rows(rows, LINE, 4 * LINE)
    other = at(buffer, 16 * LINE)
    for tile in range(first, last, CHUNK):
        end = min(last, tile + CHUNK)
        gather(bra, buffer, tile, end, low, high)
        gather(ket, other, tile, end, low, high)
        if want_low:
            _overlaps(buffer, other, 0, end - tile, NOWHERE, NOWHERE, rows, 1, 4, out)
        if want_high:
            _overlaps(buffer, other, 0, end - tile, NOWHERE, NOWHERE, rows, 4, 1, at(out, 12))


@compiled()
def _spread(table, digits, member, first_digit):
    """For each number of `digits` digits, starting at `first_digit`, where its digits in `member` stand together."""
    write(table, 0, 0)
    filled, step = 1, 1
    for d in range(first_digit):
        if (member >> d) & 1:
            step *= 4
    for d in range(first_digit, first_digit + digits):
        inside = (member >> d) & 1
        for letter in range(1, 4):
            for i in range(filled):
                write(table, letter * filled + i, read(table, i) + (letter * step if inside else 0))
        filled *= 4
        if inside:
            step *= 4


@compiled(inline=True)
def _join_tables(tables, m, member):
    """Tables for the digits 1 to h and those above: of the first part, then of the second."""
    lower = (m - 1) // 2
    upper = m - 1 - lower
    quarter = 1 << (2 * upper)
    others = ~member
    _spread(tables, lower, member, 1)
    _spread(at(tables, quarter), upper, member, 1 + lower)
    _spread(at(tables, 2 * quarter), lower, others, 1)
    _spread(at(tables, 3 * quarter), upper, others, 1 + lower)
    return 1 << (2 * lower), quarter


@compiled()
def join(first, second, target, m, member, tables):
    """target = first ⊗ second on m digits; bit p of `member` says that digit p is one of `first`.

    Args:
        tables: scratch for 4 · 4**(m // 2) integers.
    """
    if m < 4:
        for i in range(256):
            write(target, i, 0.0)
    lower, quarter = _join_tables(tables, m, member)
    for upper in range(quarter):
        a_upper, b_upper = read(tables, quarter + upper), read(tables, 3 * quarter + upper)
        for i in range(lower):
            a, b = a_upper + read(tables, i), b_upper + read(tables, 2 * quarter + i)
            out = at(target, 4 * (upper * lower + i))
            if member & 1:
                scale4(at(first, a), at(second, b), out)
            else:
                scale4(at(second, b), at(first, a), out)


@compiled()
def join_adjoint(outer, first, second, bra_first, bra_second, m, member, size_first, size_second, tables):
    """bra_first = outer contracted with second, and the other way round."""
    for i in range(size_first):
        write(bra_first, i, 0.0)
    for i in range(size_second):
        write(bra_second, i, 0.0)
    lower, quarter = _join_tables(tables, m, member)
    for upper in range(quarter):
        a_upper, b_upper = read(tables, quarter + upper), read(tables, 3 * quarter + upper)
        for i in range(lower):
            a, b = a_upper + read(tables, i), b_upper + read(tables, 2 * quarter + i)
            here = at(outer, 4 * (upper * lower + i))
            if member & 1:
                share4(here, at(first, a), at(second, b), at(bra_first, a), at(bra_second, b))
            else:
                share4(here, at(second, b), at(first, a), at(bra_second, b), at(bra_first, a))
