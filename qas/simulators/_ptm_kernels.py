"""Compiled kernels of the Pauli-transfer engine: a local map in one pass over the memory.

A state is the real vector v_P = Tr(P ρ) over all 4**m Pauli strings of m qubits, each base-4 digit being the letter of
one qubit. A *block* is everything that happens to two qubits from one two-qubit gate to the next: a *core* (a signed
permutation of the 16 local strings with a factor for each, which is a Clifford gate and Pauli noise; or any 16x16 map),
then one 4x4 map on each of the two qubits (further noise, rotations, one-qubit gates). A block reads the 16 rows of the
vector that belong to its local strings once, works in registers, and writes them once.

Rows are read in tiles of 16 x 16 numbers. Where a digit of the block is one of the two lowest, a tile is turned on its
way through a small buffer, so that the numbers of one register never mix, and is written turned: the block's qubits
move up to higher digits, and two others take the lowest ones.

Only what a block can do is compiled; which blocks a circuit consists of is data (`_ptm_program.py`).
"""

from __future__ import annotations

from qas.simulators._compile import compiled
from qas.simulators._lanes import (
    at,
    copy4,
    fetch,
    load,
    nothing,
    read,
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
BUFFER = 2 * 16 * LINE
"""Numbers in the scratch memory of one thread: two buffers of 16 rows."""
SHIFT, DENSE = 0, 1
"""Kinds of one-qubit map: 1 everywhere but for Z += g·I (the rest of it is in the factors of the core), or any."""
EVERY = 4
"""All products of bra and ket are wanted; 1 to 3 name a letter that a rotation turns."""
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
def idle(digits):
    """Digits below those of a small vector: with two or three qubits it has room for four."""
    return 4 - digits if 1 < digits < 4 else 0


@compiled(inline=True)
def _fetch4(source, i, step):
    fetch(source, i)
    fetch(source, i + step)
    fetch(source, i + 2 * step)
    fetch(source, i + 3 * step)


@compiled(inline=True)
def _scaled(factors, row, step, scaled, x0, x1, x2, x3):
    if scaled:
        x0, x1 = times(splat(factors, row), x0), times(splat(factors, row + step), x1)
        x2, x3 = times(splat(factors, row + 2 * step), x2), times(splat(factors, row + 3 * step), x3)
    return x0, x1, x2, x3


@compiled(inline=True)
def _load4(base, rows, low_step, high_step, b, straight):
    """The rows of one letter of the higher qubit."""
    if straight:
        i = b * high_step
        return load(base, i), load(base, i + low_step), load(base, i + 2 * low_step), load(base, i + 3 * low_step)
    x0, x1 = load(base, read(rows, 4 * b)), load(base, read(rows, 4 * b + 1))
    return x0, x1, load(base, read(rows, 4 * b + 2)), load(base, read(rows, 4 * b + 3))


@compiled(inline=True)
def _map(m, kind, transposed, x0, x1, x2, x3):
    """A trace-preserving map (its first row is 1 0 0 0), or its transpose, on four registers."""
    if kind == SHIFT:
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
def _store4(base, rows, low_step, high_step, a, straight, x0, x1, x2, x3):
    """The rows of one letter of the lower qubit."""
    if straight:
        r0, r1, r2, r3 = 0, high_step, 2 * high_step, 3 * high_step
        base = at(base, a * low_step)
    else:
        r0, r1, r2, r3 = read(rows, a), read(rows, a + 4), read(rows, a + 8), read(rows, a + 12)
    store(base, r0, x0)
    store(base, r1, x1)
    store(base, r2, x2)
    store(base, r3, x3)


@compiled(inline=True)
def _mix(
    source, target, first, last, p, q, p_out, q_out, rows_in, rows_out, constants, low_kind, high_kind, ahead, backward,
    transposed,
):  # fmt: skip
    """Two one-qubit maps on the 16 rows of each tile, with the factors of the core before (forward) or after them.

    The rows of what comes out (forward) or goes in (backward) are in order: two steps say where they are.

    Args:
        ahead: backward, the tile so far ahead is asked for from the memory; 0: none is.
    """
    factors, low, high = at(constants, FACTORS), at(constants, LOW), at(constants, HIGH)
    in_order = rows_in if backward else rows_out
    s, t = read(in_order, 1), read(in_order, 4)
    lanes = width(source)
    for tile in range(first, last):
        start, end = place(tile, p, q), place(tile, p_out, q_out)
        later = place(tile + ahead, p, q)
        for i in range(0, TILE, lanes):
            base, out = at(source, start + i), at(target, end + i)
            if ahead:
                for b in range(4):
                    _fetch4(source, later + i + b * t, s)
            x00, x10, x20, x30 = _load4(base, rows_in, s, t, 0, backward)
            x00, x10, x20, x30 = _scaled(factors, 0, 1, not backward, x00, x10, x20, x30)
            x00, x10, x20, x30 = _map(low, low_kind, transposed, x00, x10, x20, x30)
            x01, x11, x21, x31 = _load4(base, rows_in, s, t, 1, backward)
            x01, x11, x21, x31 = _scaled(factors, 4, 1, not backward, x01, x11, x21, x31)
            x01, x11, x21, x31 = _map(low, low_kind, transposed, x01, x11, x21, x31)
            x02, x12, x22, x32 = _load4(base, rows_in, s, t, 2, backward)
            x02, x12, x22, x32 = _scaled(factors, 8, 1, not backward, x02, x12, x22, x32)
            x02, x12, x22, x32 = _map(low, low_kind, transposed, x02, x12, x22, x32)
            x03, x13, x23, x33 = _load4(base, rows_in, s, t, 3, backward)
            x03, x13, x23, x33 = _scaled(factors, 12, 1, not backward, x03, x13, x23, x33)
            x03, x13, x23, x33 = _map(low, low_kind, transposed, x03, x13, x23, x33)
            x00, x01, x02, x03 = _map(high, high_kind, transposed, x00, x01, x02, x03)
            x10, x11, x12, x13 = _map(high, high_kind, transposed, x10, x11, x12, x13)
            x20, x21, x22, x23 = _map(high, high_kind, transposed, x20, x21, x22, x23)
            x30, x31, x32, x33 = _map(high, high_kind, transposed, x30, x31, x32, x33)
            x00, x01, x02, x03 = _scaled(factors, 0, 4, backward, x00, x01, x02, x03)
            _store4(out, rows_out, s, t, 0, not backward, x00, x01, x02, x03)
            x10, x11, x12, x13 = _scaled(factors, 1, 4, backward, x10, x11, x12, x13)
            _store4(out, rows_out, s, t, 1, not backward, x10, x11, x12, x13)
            x20, x21, x22, x23 = _scaled(factors, 2, 4, backward, x20, x21, x22, x23)
            _store4(out, rows_out, s, t, 2, not backward, x20, x21, x22, x23)
            x30, x31, x32, x33 = _scaled(factors, 3, 4, backward, x30, x31, x32, x33)
            _store4(out, rows_out, s, t, 3, not backward, x30, x31, x32, x33)


@compiled(inline=True)
def _mix_kinds(
    source, target, first, last, p, q, p_out, q_out, rows_in, rows_out, constants, low_kind, high_kind, ahead, backward,
    transposed,
):  # fmt: skip
    # Kinds are spelled out so that the loops hold no branches.
    a, b, r, c = (source, target, first, last), (p, q, p_out, q_out), (rows_in, rows_out), constants
    if low_kind == SHIFT:
        if high_kind == SHIFT:
            _mix(*a, *b, *r, c, SHIFT, SHIFT, ahead, backward, transposed)
        else:
            _mix(*a, *b, *r, c, SHIFT, DENSE, ahead, backward, transposed)
    elif high_kind == SHIFT:
        _mix(*a, *b, *r, c, DENSE, SHIFT, ahead, backward, transposed)
    else:
        _mix(*a, *b, *r, c, DENSE, DENSE, ahead, backward, transposed)


@compiled()
def mix_forward(source, target, first, last, p, q, p_out, q_out, rows_in, rows_out, constants, low_kind, high_kind):
    a, b = (source, target, first, last, p, q, p_out, q_out), (rows_in, rows_out, constants, low_kind, high_kind)
    _mix_kinds(*a, *b, 0, False, False)


@compiled()
def mix_undo(
    source, target, first, last, p, q, p_out, q_out, rows_in, rows_out, constants, low_kind, high_kind, ahead
):  # fmt: skip
    a, b = (source, target, first, last, p, q, p_out, q_out), (rows_in, rows_out, constants, low_kind, high_kind)
    _mix_kinds(*a, *b, ahead, True, False)


@compiled()
def mix_adjoint(
    source, target, first, last, p, q, p_out, q_out, rows_in, rows_out, constants, low_kind, high_kind, ahead
):  # fmt: skip
    a, b = (source, target, first, last, p, q, p_out, q_out), (rows_in, rows_out, constants, low_kind, high_kind)
    _mix_kinds(*a, *b, ahead, True, True)


@compiled()
def dense_map(source, target, columns, rows, matrix):
    """target = M source for the 16 rows of a buffer; `matrix` row by row."""
    for i in range(0, columns, width(source)):
        for row in range(16):
            value = times(splat(matrix, 16 * row), load(source, i + read(rows, 0)))
            for k in range(1, 16):
                value = times_plus(splat(matrix, 16 * row + k), load(source, i + read(rows, k)), value)
            store(target, i + read(rows, row), value)


@compiled()
def gather(source, buffer, first, last, p, q, low, high, lane, other_lane, back):
    """Tiles as rows of `LINE` numbers, the row being the lower qubit's letter + 4 · the higher one's; or the way back.

    Args:
        p, q: where a tile starts (see `place`).
        low, high: digits of the block's qubits.
        lane, other_lane: digits that run along a row.
    """
    near, far = min(low, high), max(low, high)
    near_row, far_row = (LINE, 4 * LINE) if low < high else (4 * LINE, LINE)
    near_step, far_step = 1 << (2 * near), 1 << (2 * far)
    lane_step, other_step = 1 << (2 * lane), 1 << (2 * other_lane)
    for tile in range(first, last):
        start, column = place(tile, p, q), TILE * (tile - first)
        for far_letter in range(4):
            for r in range(4):
                here = at(source, start + far_letter * far_step + r * other_step)
                there = at(buffer, far_letter * far_row + column + 4 * r)
                if near == 0:
                    if back:
                        transpose4(there, near_row, here, lane_step)
                    else:
                        transpose4(here, lane_step, there, near_row)
                else:
                    for letter in range(4):
                        if back:
                            copy4(at(there, letter * near_row), at(here, letter * near_step))
                        else:
                            copy4(at(here, letter * near_step), at(there, letter * near_row))


@compiled(inline=True)
def straight_rows(rows, low_step, high_step):
    for row in range(16):
        write(rows, row, (row & 3) * low_step + (row >> 2) * high_step)


@compiled(inline=True)
def core_rows(rows, core, low_step, high_step):
    for row in range(16):
        from_ = read(core, row)
        write(rows, row, (from_ & 3) * low_step + (from_ >> 2) * high_step)


@compiled()
def forward(
    source, target, first, last, low, high, lane, other_lane, new_low, new_high, core, dense, constants, low_kind,
    high_kind, rows, buffer,
):  # fmt: skip
    """One block on tiles `first` to `last` of a vector of at least 4**4 numbers.

    A block that has one of the two lowest digits moves its qubits up: `lane` and `other_lane` become the lowest digits.

    Args:
        low, high: digits of the lower and the higher qubit.
        lane, other_lane: the two other digits of a tile; 0 and 1 where nothing moves.
        new_low, new_high: digits after the block, at least 2.
        core: for each local string the one it comes from; -1 in front: the core is `dense`.
        dense: 16x16 map, row by row.
        rows: scratch for 48 integers.
        buffer: scratch for `BUFFER` numbers.
    """
    straight, turned = rows, at(rows, 16)
    is_dense = read(core, 0) < 0
    p, q = min(new_low, new_high), max(new_low, new_high)
    straight_rows(straight, 1 << (2 * new_low), 1 << (2 * new_high))
    if low == new_low and high == new_high and not is_dense:
        core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
        mix_forward(source, target, first, last, p, q, p, q, turned, straight, constants, low_kind, high_kind)
        return
    near = at(rows, 32)
    straight_rows(near, LINE, 4 * LINE)
    if is_dense:
        straight_rows(turned, LINE, 4 * LINE)
    else:
        core_rows(turned, core, LINE, 4 * LINE)
    for tile in range(first, last, CHUNK):
        end = min(last, tile + CHUNK)
        gather(source, buffer, tile, end, p, q, low, high, lane, other_lane, False)
        here = buffer
        if is_dense:
            here = at(buffer, 16 * LINE)
            dense_map(buffer, here, TILE * (end - tile), near, dense)
        here = at(here, -TILE * tile)
        mix_forward(here, target, tile, end, NOWHERE, NOWHERE, p, q, turned, straight, constants, low_kind, high_kind)


@compiled()
def _overlaps(bra, ket, first, last, p, q, inner, outer, sums):
    """sums[4 (i-1) + j] += bra[i] ket[j], register by register, over the letters i > 0, j of one digit.

    Args:
        inner: distance of this digit's letters.
        outer: distance of the other digit's letters.
    """
    lanes = width(bra)
    s10, s11, s12, s13 = load(sums, 0), load(sums, TILE), load(sums, 2 * TILE), load(sums, 3 * TILE)
    s20, s21, s22, s23 = load(sums, 4 * TILE), load(sums, 5 * TILE), load(sums, 6 * TILE), load(sums, 7 * TILE)
    s30, s31, s32, s33 = load(sums, 8 * TILE), load(sums, 9 * TILE), load(sums, 10 * TILE), load(sums, 11 * TILE)
    for tile in range(first, last):
        start = place(tile, p, q)
        for i in range(start, start + TILE, lanes):
            for b in range(4):
                r0 = i + outer * b
                r1, r2, r3 = r0 + inner, r0 + 2 * inner, r0 + 3 * inner
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


@compiled()
def _overlaps_of_turn(bra, ket, first, last, p, q, inner, outer, turned, sums):
    """The three of `_overlaps` that one rotation needs, if only plain maps follow it.

    Going back through plain maps, a product is scaled, and those with Z of the ket receive those with I.

    Args:
        turned: the letter that the rotation turns into the next of X, Y, Z, X.
    """
    into = turned % 3 + 1
    beside = into if turned == 3 else turned
    there, back, constant = 4 * (turned - 1) + into, 4 * (into - 1) + turned, 4 * (beside - 1)
    t, u, v = inner * turned, inner * into, inner * beside
    lanes = width(bra)
    x, y, z = load(sums, TILE * there), load(sums, TILE * back), load(sums, TILE * constant)
    for tile in range(first, last):
        start = place(tile, p, q)
        for i in range(start, start + TILE, lanes):
            for b in range(4):
                r = i + outer * b
                x = times_plus(load(bra, r + t), load(ket, r + u), x)
                y = times_plus(load(bra, r + u), load(ket, r + t), y)
                z = times_plus(load(bra, r + v), load(ket, r), z)
    store(sums, TILE * there, x)
    store(sums, TILE * back, y)
    store(sums, TILE * constant, z)


@compiled(inline=True)
def _products(bra, ket, first, last, p, q, inner, outer, wanted, sums):
    if wanted == EVERY:
        _overlaps(bra, ket, first, last, p, q, inner, outer, sums)
    elif wanted:
        _overlaps_of_turn(bra, ket, first, last, p, q, inner, outer, wanted, sums)


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
    bra, ket, undo, first, last, far, low, high, lane, other_lane, new_low, new_high, core, dense, constants, low_kind,
    high_kind, want_low, want_high, sums, rows, buffer,
):  # fmt: skip
    """One block of the reverse sweep: products of the vectors after it, then the vectors before it.

    A few tiles at a time, so that what follows finds them in the nearest cache.

    Args:
        bra: adjoint after the block; in the end before it.
        ket: state after the block; in the end before it, if `undo`.
        far: two such vectors do not fit into a core's own cache, so that tiles are asked for before their turn.
        constants: of the block's adjoint, then of its inverse.
        dense: the core as 16x16 map if it is one, then its inverse, then its transpose.
        want_low, want_high: which of Σ bra[i…] ket[j…] over one letter of the qubit are added to `sums`, 12 registers:
            none (0), those of one rotation (the letter it turns, see `_overlaps_of_turn`), or `EVERY`.
        others: as in `forward`.
    """
    straight, turned, near = rows, at(rows, 16), at(rows, 32)
    inverse, high_sums = at(constants, CONSTANTS), at(sums, 12 * TILE)
    is_dense = read(core, 0) < 0
    moves = low != new_low or high != new_high or is_dense
    p, q = min(new_low, new_high), max(new_low, new_high)
    low_step, high_step = 1 << (2 * new_low), 1 << (2 * new_high)
    straight_rows(straight, low_step, high_step)
    straight_rows(near, LINE, 4 * LINE)
    if is_dense:
        straight_rows(turned, LINE, 4 * LINE)
    elif moves:
        core_rows(turned, core, LINE, 4 * LINE)
    else:
        core_rows(turned, core, 1 << (2 * low), 1 << (2 * high))
    chunk = CHUNK if moves else NEAR
    ahead = chunk if far else 0
    for tile in range(first, last, chunk):
        end = min(last, tile + chunk)
        _products(bra, ket, tile, end, p, q, low_step, high_step, want_low, sums)
        _products(bra, ket, tile, end, p, q, high_step, low_step, want_high, high_sums)
        for side in range(2 if undo else 1):
            vector, ours = (ket, inverse) if side else (bra, constants)
            out, p_out, q_out = vector, p, q
            if moves:
                out, p_out, q_out = at(buffer, -TILE * tile), NOWHERE, NOWHERE
            if side:
                mix_undo(
                    vector, out, tile, end, p, q, p_out, q_out, straight, turned, ours, low_kind, high_kind, ahead
                )  # fmt: skip
            else:
                mix_adjoint(
                    vector, out, tile, end, p, q, p_out, q_out, straight, turned, ours, low_kind, high_kind, ahead
                )  # fmt: skip
            if moves:
                there = buffer
                if is_dense:
                    there = at(buffer, 16 * LINE)
                    dense_map(buffer, there, TILE * (end - tile), near, at(dense, 256 if side else 512))
                gather(vector, there, tile, end, p, q, low, high, lane, other_lane, True)


@compiled()
def join(first, second, target, first_digits, second_digits):
    """target = second ⊗ first, the digits of `first` being the lower ones.

    Vectors of 2 or 3 digits stand at their highest four (`idle` ones below them are always 0).
    """
    unused = idle(first_digits + second_digits)
    first_step, second_step, step = 2 * idle(first_digits), 2 * idle(second_digits), 2 * unused
    count = 1 << (2 * first_digits)
    if unused:
        for i in range(256):
            write(target, i, 0.0)
    for b in range(1 << (2 * second_digits)):
        factor = at(second, b << second_step)
        if first_digits >= 4:
            for a in range(0, count, width(target)):
                store(target, b * count + a, times(splat(factor, 0), load(first, a)))
        else:
            for a in range(count):
                write(target, (b * count + a) << step, read(factor, 0) * read(first, a << first_step))


@compiled()
def join_adjoint(outer, first, second, bra_first, bra_second, first_digits, second_digits):
    """bra_first = outer contracted with second, and the other way round; `outer` as the target of `join`."""
    first_step, second_step = 2 * idle(first_digits), 2 * idle(second_digits)
    step = 2 * idle(first_digits + second_digits)
    count = 1 << (2 * first_digits)
    for i in range(count << first_step):
        write(bra_first, i, 0.0)
    for i in range(1 << (2 * second_digits + second_step)):
        write(bra_second, i, 0.0)
    for b in range(1 << (2 * second_digits)):
        factor = at(second, b << second_step)
        value = 0.0
        if first_digits >= 4:
            sums = nothing(outer)
            for a in range(0, count, width(outer)):
                x = load(outer, b * count + a)
                sums = times_plus(x, load(first, a), sums)
                store(bra_first, a, times_plus(splat(factor, 0), x, load(bra_first, a)))
            value = total(sums)
        else:
            for a in range(count):
                x = read(outer, (b * count + a) << step)
                value += x * read(first, a << first_step)
                write(bra_first, a << first_step, read(bra_first, a << first_step) + x * read(factor, 0))
        write(bra_second, b << second_step, value)
