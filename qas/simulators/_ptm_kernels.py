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
CHUNK = 4
"""Tiles that go through the buffers at once: they fit into the nearest cache."""
NEAR = 8
"""Tiles of two vectors that fit into the nearest cache."""
LINE = TILE * CHUNK + 8
BUFFER = 3 * 16 * LINE
"""Numbers in the scratch memory of one thread: three buffers of 16 rows."""
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
    """Turn tiles into rows of `LINE` numbers; the row is the letter of the lower digit + 4 · that of the higher one."""
    p, q = _tile_digits(low, high)
    lane_low, lane_high = _lanes_of(low, high)
    by_row, by_lane, inner, step = 1 << (2 * high), 1 << (2 * lane_high), 1 << (2 * lane_low), 1 << (2 * low)
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
                        copy4(at(here, a * step), at(there, a * LINE))


@compiled()
def scatter(buffer, target, first, last, low, high):
    """The way back of `gather`."""
    p, q = _tile_digits(low, high)
    lane_low, lane_high = _lanes_of(low, high)
    by_row, by_lane, inner, step = 1 << (2 * high), 1 << (2 * lane_high), 1 << (2 * lane_low), 1 << (2 * low)
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
                        copy4(at(here, a * LINE), at(there, a * step))


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
def forward(source, target, first, last, low, high, core, dense, constants, low_kind, high_kind, rows, buffer):
    """One block on tiles `first` to `last` of a vector of at least 4**4 numbers.

    Args:
        core: for each local string the one it comes from; -1 in front: the core is `dense`.
        dense: 16x16 map, row by row.
        rows: scratch for 32 integers.
        buffer: scratch for `BUFFER` numbers.
    """
    straight, turned = rows, at(rows, 16)
    is_dense = read(core, 0) < 0
    if low >= 2 and not is_dense:
        _straight_rows(straight, 1 << (2 * low), 1 << (2 * high))
        _core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
        _mix_forward(source, target, first, last, low, high, turned, straight, constants, low_kind, high_kind)
        return
    _straight_rows(straight, LINE, 4 * LINE)
    if is_dense:
        _straight_rows(turned, LINE, 4 * LINE)
    else:
        _core_rows(turned, core, LINE, 4 * LINE)
    other = at(buffer, 16 * LINE)
    for tile in range(first, last, CHUNK):
        end = min(last, tile + CHUNK)
        count = end - tile
        gather(source, buffer, tile, end, low, high)
        here = buffer
        if is_dense:
            _dense(buffer, other, TILE * count, straight, dense)
            here = other
        _mix_forward(here, other, 0, count, NOWHERE, NOWHERE, turned, straight, constants, low_kind, high_kind)
        scatter(other, target, tile, end, low, high)


@compiled()
def _overlaps(bra, ket, first, last, p, q, rows, inner, outer, sums):
    """sums[4 (i-1) + j] += bra[i] ket[j], register by register, over the letters i > 0, j of one digit.

    `inner` and `outer` step through the rows.
    """
    lanes = width(bra)
    s10, s11, s12, s13 = load(sums, 0), load(sums, TILE), load(sums, 2 * TILE), load(sums, 3 * TILE)
    s20, s21, s22, s23 = load(sums, 4 * TILE), load(sums, 5 * TILE), load(sums, 6 * TILE), load(sums, 7 * TILE)
    s30, s31, s32, s33 = load(sums, 8 * TILE), load(sums, 9 * TILE), load(sums, 10 * TILE), load(sums, 11 * TILE)
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
    store(sums, 0, s10)
    store(sums, TILE, s11)
    store(sums, 2 * TILE, s12)
    store(sums, 3 * TILE, s13)
    store(sums, 4 * TILE, s20)
    store(sums, 5 * TILE, s21)
    store(sums, 6 * TILE, s22)
    store(sums, 7 * TILE, s23)
    store(sums, 8 * TILE, s30)
    store(sums, 9 * TILE, s31)
    store(sums, 10 * TILE, s32)
    store(sums, 11 * TILE, s33)


@compiled(inline=True)
def clear_sums(sums):
    for k in range(24):
        store(sums, k * TILE, nothing(sums))


@compiled(inline=True)
def read_sums(sums, products):
    """The registers of `sums`, each added up: float64."""
    for k in range(24):
        write(products, k, total(load(sums, k * TILE)))


@compiled()
def backward(
    bra, ket, undo, first, last, low, high, core, dense, constants, low_kind, high_kind, want_low, want_high, sums,
    rows, buffer,
):  # fmt: skip
    """One block of the reverse sweep: products of the vectors after it, then the vectors before it.

    A few tiles at a time, so that what follows finds them in the nearest cache.

    Args:
        bra: adjoint after the block; in the end before it.
        ket: state after the block; in the end before it, if `undo`.
        constants: of the block's adjoint, then of its inverse.
        dense: the core as 16x16 map if it is one, then its inverse, then its transpose.
        want_low, want_high: whether Σ bra[i…] ket[j…] over one letter of the qubit is added to `sums`, 12 registers.
    """
    straight, turned = rows, at(rows, 16)
    inverse = at(constants, CONSTANTS)
    is_dense = read(core, 0) < 0
    high_sums = at(sums, 12 * TILE)
    if low >= 2 and not is_dense:
        _straight_rows(straight, 1 << (2 * low), 1 << (2 * high))
        _core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
        for tile in range(first, last, NEAR):
            end = min(last, tile + NEAR)
            if want_low:
                _overlaps(bra, ket, tile, end, low, high, straight, 1, 4, sums)
            if want_high:
                _overlaps(bra, ket, tile, end, low, high, straight, 4, 1, high_sums)
            _mix_adjoint(bra, bra, tile, end, low, high, straight, turned, constants, low_kind, high_kind)
            if undo:
                _mix_undo(ket, ket, tile, end, low, high, straight, turned, inverse, low_kind, high_kind)
        return
    _straight_rows(straight, LINE, 4 * LINE)
    if is_dense:
        _straight_rows(turned, LINE, 4 * LINE)
    else:
        _core_rows(turned, core, LINE, 4 * LINE)
    others, mixed = at(buffer, 16 * LINE), at(buffer, 32 * LINE)
    for tile in range(first, last, CHUNK):
        end = min(last, tile + CHUNK)
        count = end - tile
        gather(bra, buffer, tile, end, low, high)
        if undo or want_low or want_high:
            gather(ket, others, tile, end, low, high)
        if want_low:
            _overlaps(buffer, others, 0, count, NOWHERE, NOWHERE, straight, 1, 4, sums)
        if want_high:
            _overlaps(buffer, others, 0, count, NOWHERE, NOWHERE, straight, 4, 1, high_sums)
        _mix_adjoint(buffer, mixed, 0, count, NOWHERE, NOWHERE, straight, turned, constants, low_kind, high_kind)
        there = mixed
        if is_dense:
            _dense(mixed, buffer, TILE * count, straight, at(dense, 512))
            there = buffer
        scatter(there, bra, tile, end, low, high)
        if undo:
            _mix_undo(others, mixed, 0, count, NOWHERE, NOWHERE, straight, turned, inverse, low_kind, high_kind)
            there = mixed
            if is_dense:
                _dense(mixed, others, TILE * count, straight, at(dense, 256))
                there = others
            scatter(there, ket, tile, end, low, high)


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
