"""Circuits as programs for the Pauli-transfer engine: which blocks they consist of, and how these are run.

`plan` turns a list of operations into steps, once for each architecture. One-qubit operations join the block before
them, so that a circuit costs one pass over the memory for each two-qubit gate. Qubits that no two-qubit gate has joined
yet are groups of their own; a state is the product of its groups' vectors, and groups are joined when a gate needs it.

The reverse sweep takes the state back block by block. Where undoing a block would cost accuracy (noise shrinks strings,
so undoing it enlarges rounding errors), or where states are small, the block writes to new memory instead, and the
state before it is still there.

Kinds of operation:
    0  one-qubit map     1  one-qubit rotation, then noise     2  signed permutation with factors     3  two-qubit map
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from qas.simulators import _ptm_kernels as kernels
from qas.simulators._compile import compiled
from qas.simulators._entry import (
    ANGLES,
    BACKWARD,
    ENGINE,
    FORWARD,
    GRADIENT,
    MODE,
    N_ANGLES,
    OUT,
    SERVE,
    SLOPES,
    STATE,
    STOP,
    Entry,
)
from qas.simulators._lanes import SHORT, at, pointer_to, read, stopped, write
from qas.simulators._ptm_kernels import CONSTANTS, DENSE, EVERY, SHIFT, TILE
from qas.simulators._team import LEAVE, called, calls, halt_if, meet, number, payload, share

# Columns of Library.whole and Library.real.
KIND, LOW, HIGH, PLAIN, TURNED, TURNED_TO, POOL, CORE = 0, 1, 2, 3, 4, 5, 6, 8
WHOLE_COLUMNS = 24
MATRIX, INVERSE, FACTOR, LOSS = 0, 16, 32, 48
REAL_COLUMNS = 49

# Columns of a program's steps. The first row is the header.
TYPE, HOME, KET, NEW_KET, DIGITS = 0, 1, 2, 3, 4
INIT, JOIN, BLOCK = 0, 1, 2
OPERATION, FACTORS, KINDS, WANTED = 7, 8, 12, 14
AT_LOW, AT_HIGH, LANE, OTHER_LANE, TO_LOW, TO_HIGH = 16, 17, 18, 19, 20, 21
FIRST_HOME, SECOND_HOME, FIRST_KET, SECOND_KET, FIRST_DIGITS, SECOND_DIGITS = 5, 6, 8, 9, 10, 11
OTHER_GROUP, SEGMENT, GROUP = 12, 22, 23
COLUMNS = 24
N_STEPS, HOME_SIZE, KET_SIZE, LAST_HOME, LAST_KET, N_DIGITS, N_ACTIONS, SLOTS_SIZE = 0, 1, 2, 3, 4, 5, 6, 7

# Kinds of a program's actions. ADVANCE and KEEP run steps, first to last; REVERSE goes back from the last to the first
# step; COPY takes numbers from one place among the vectors to another.
ADVANCE, KEEP, REVERSE, COPY = 0, 1, 2, 3
ACTION_COLUMNS = 4

# Columns of the entry point's table: addresses of the arrays of a library, a program, `Work`, where its vectors are,
# the strings of an observable (or, for `STATE`, where strings stand) and their weights; and the number of strings.
LIBRARY, PROGRAM, WORK, VECTORS_AT, STRINGS, N_STRINGS = (
    ENGINE, ENGINE + 3, ENGINE + 6, ENGINE + 9, ENGINE + 10, ENGINE + 12,
)  # fmt: skip

CHAIN_LIMIT = 1e3
"""How much undoing may enlarge rounding errors within the one-qubit operations of one block."""
IDENTITY = -1
"""Operation of a block without a two-qubit gate."""


class Library(NamedTuple):
    """Tables of all operations one simulator has met; the first axis counts operations."""

    whole: np.ndarray
    """int64 (ops, 24): kind, lower qubit (or the only one), higher qubit (or -1), whether the map is diagonal but for
    Z += g·I, the two letters a rotation turns, the row of `pool`; from column 8 on the strings a core reads"""
    real: np.ndarray
    """float64 (ops, 49): 4x4 map row by row, its inverse, 16 factors of a core, norm of the inverse"""
    pool: np.ndarray
    """float64 (dense operations, 3, 256): 16x16 map row by row, its inverse, its transpose"""


class Program(NamedTuple):
    """A circuit as steps; see the columns above."""

    steps: np.ndarray  # int64 (1 + n_steps, 24)
    factors: np.ndarray  # int64 (n_factors, 2): one-qubit operations and their angles (or -1), block by block
    actions: np.ndarray  # int64 (n_actions, 4): kind, then first and last step, or from where, to where, how much


class Work(NamedTuple):
    """Memory of one calculation."""

    state: np.ndarray  # float64 or float32: constants, buffers, then the vectors
    whole: np.ndarray  # int64 (72,): rows, then the seat in a team
    maps: np.ndarray  # float64 (MAPS + n_steps + 1, 24): products of bra and ket, then the one-qubit maps of each block


SUMS = 2 * CONSTANTS
BUFFERS = SUMS + 24 * TILE + 48
VECTORS = BUFFERS + kernels.BUFFER
"""Where the vectors start in `Work.state`."""
SEAT = 64
"""Where the seat is in `Work.whole`."""
PARTS = 8
"""Parts of a sum over a vector that may be shared: the same for any number of threads."""
SHARED_DIGITS = 9
"""Threads share vectors of at least so many qubits."""
MAPS = 2 * PARTS + 1
"""Rows of `Work.maps` before those of step 0: the parts of two blocks, and the products of a block of a small state."""


@compiled(inline=True)
def _room(digits):
    return 16 if digits == 1 else 1 << (2 * max(digits, 4))


@compiled(inline=True)
def _joined(steps, count, group, digits, home, place, first, second, free):
    """Append the step that joins the groups of two qubits, the larger one below; their number becomes that of it."""
    a, b = group[first], group[second]
    if digits[a] < digits[b]:
        a, b = b, a
    step = steps[count]
    step[TYPE], step[FIRST_HOME], step[SECOND_HOME] = JOIN, home[a], home[b]
    step[FIRST_DIGITS], step[SECOND_DIGITS] = digits[a], digits[b]
    step[GROUP], step[OTHER_GROUP] = a, b
    both = digits[a] + digits[b]
    step[HOME], step[DIGITS] = free, both
    idle = kernels.idle(both)
    for q in range(len(group)):
        if group[q] == a:
            place[q] += idle - kernels.idle(digits[a])
        elif group[q] == b:
            place[q] += idle - kernels.idle(digits[b]) + digits[a]
            group[q] = a
    digits[a], home[a] = both, free
    return free + _room(both)


@compiled(inline=True)
def _next_use(whole, ops, after, qubit):
    for i in range(after + 1, len(ops)):
        op = ops[i]
        if whole[op, KIND] >= 2 and (whole[op, LOW] == qubit or whole[op, HIGH] == qubit):
            return i
    return len(ops)


@compiled(inline=True)
def _latest(whole, ops, after, group, g, place, not_here, nor_here):
    """The qubit of a group, at digit 2 or above, that is used last; -1 - digit for an unused digit."""
    best, latest = -1, -1
    for q in range(len(group)):
        if group[q] == g and place[q] >= 2 and place[q] != not_here and place[q] != nor_here:
            use = _next_use(whole, ops, after, q)
            if use > latest:
                best, latest = q, use
    return best


@compiled(inline=True)
def _at(group, g, place, digit):
    """The qubit of a group at a digit, or -1."""
    for q in range(len(group)):
        if group[q] == g and place[q] == digit:
            return q
    return -1


@compiled(inline=True)
def _move(whole, ops, i, group, g, place, low, high, step):
    """Write where a block finds its qubits and leaves them, and move the qubits that change places."""
    step[AT_LOW], step[AT_HIGH] = place[low], place[high]
    near, far = (low, high) if place[low] < place[high] else (high, low)
    lane, other = 0, 1
    if place[near] == 0 and place[far] == 1:
        one = _latest(whole, ops, i, group, g, place, -1, -1)
        two = _latest(whole, ops, i, group, g, place, place[one], -1)
        lane, other = place[one], place[two]
        place[one], place[two], place[near], place[far] = 0, 1, lane, other
    elif place[near] < 2:
        one = _latest(whole, ops, i, group, g, place, place[far], -1)
        other = place[one]
        lane = 1 - place[near]
        if lane == 1:
            beside = _at(group, g, place, 1)
            if beside >= 0:
                place[beside] = 0
        place[one], place[near] = 1, other
    step[LANE], step[OTHER_LANE], step[TO_LOW], step[TO_HIGH] = lane, other, place[low], place[high]


@compiled(inline=True)
def _wanted(whole, op, chain, wanted):
    """Which products of bra and ket after a chain its gradient needs, now that `op` joins it; see `kernels.EVERY`."""
    if whole[op, KIND] == 1 and whole[op, PLAIN] and wanted[chain] == 0:
        wanted[chain] = whole[op, TURNED]
    elif whole[op, KIND] == 1 or (wanted[chain] and not whole[op, PLAIN]):
        wanted[chain] = EVERY


@compiled()
def plan(library, ops, slots, n_qubits, stored_digits, loss_limit, steps, factors, place):
    """Fill `steps`, `factors` and `place`.

    Args:
        n_qubits: at least 2.
        stored_digits: vectors of at most so many qubits are kept, not undone.
        loss_limit: how much undoing may enlarge rounding errors before a state is kept.
        steps: int64, shape (1 + 2 n_qubits + n_ops, 24).
        factors: int64, shape (n_ops, 2).
        place: int64, shape (n_qubits,): digit of each qubit in the final vector.
    """
    whole, real = library.whole, library.real
    n_ops = len(ops)
    n_chains = n_qubits + 2 * n_ops
    chain_of = np.full(n_ops, -1)
    sizes, plain, wanted = np.zeros(n_chains + 1, np.int64), np.ones(n_chains, np.int64), np.zeros(n_chains, np.int64)
    losses = np.ones(n_chains)
    group, sink = np.arange(n_qubits), np.arange(n_qubits)
    digits, home = np.ones(n_qubits, np.int64), np.empty(n_qubits, np.int64)
    free, count, chains = 0, 1, n_qubits
    for q in range(n_qubits):
        home[q], place[q] = free, 0
        steps[count, TYPE], steps[count, HOME], steps[count, DIGITS], steps[count, GROUP] = INIT, free, 1, q
        steps[count, FACTORS] = q
        free += _room(1)
        count += 1
    for i in range(n_ops):
        op = ops[i]
        one = whole[op, KIND] < 2
        low, high = whole[op, LOW], whole[op, HIGH]
        if one:
            chain = sink[low]
            if losses[chain] * real[op, LOSS] > CHAIN_LIMIT and losses[chain] > 1.0:
                partner = (low + 1) % n_qubits
                low, high, op = min(low, partner), max(low, partner), IDENTITY
        if not one or op == IDENTITY:
            if group[low] != group[high]:
                free = _joined(steps, count, group, digits, home, place, low, high, free)
                count += 1
            g, step = group[low], steps[count]
            step[TYPE], step[HOME], step[DIGITS], step[GROUP], step[OPERATION] = BLOCK, home[g], digits[g], g, op
            _move(whole, ops, i, group, g, place, low, high, step)
            step[FACTORS], step[FACTORS + 2] = chains, chains + 1
            sink[low], sink[high] = chains, chains + 1
            chains += 2
            count += 1
        if one:
            op = ops[i]
            chain = sink[whole[op, LOW]]
            chain_of[i] = chain
            sizes[chain] += 1
            losses[chain] *= real[op, LOSS]
            _wanted(whole, op, chain, wanted)
            plain[chain] = plain[chain] and whole[op, KIND] == 0 and whole[op, PLAIN]
    for q in range(1, n_qubits):
        if group[q] != group[0]:
            free = _joined(steps, count, group, digits, home, place, 0, q, free)
            count += 1
    starts = np.zeros(n_chains + 1, np.int64)
    for chain in range(n_chains):
        starts[chain + 1] = starts[chain] + sizes[chain]
    filled = starts.copy()
    for i in range(n_ops):
        if chain_of[i] >= 0:
            factors[filled[chain_of[i]], 0], factors[filled[chain_of[i]], 1] = ops[i], slots[i]
            filled[chain_of[i]] += 1
    for k in range(1, count):
        step = steps[k]
        if step[TYPE] == JOIN:
            continue
        for side in range(1 if step[TYPE] == INIT else 2):
            chain = step[FACTORS + 2 * side]
            step[FACTORS + 2 * side], step[FACTORS + 2 * side + 1] = starts[chain], starts[chain + 1]
            step[KINDS + side] = SHIFT if plain[chain] else DENSE
            step[WANTED + side] = wanted[chain]
    steps[0, N_STEPS], steps[0, HOME_SIZE], steps[0, LAST_HOME] = count - 1, free, home[group[0]]
    steps[0, N_DIGITS] = n_qubits
    place_kets(library, steps, factors, stored_digits, loss_limit, 1 << 60)


@compiled()
def place_kets(library, steps, factors, stored_digits, loss_limit, most):
    """Say where each step finds and leaves the state on a run with `KEEP`, and divide the steps into segments.

    A group's vector stays at home as long as blocks can be undone; other blocks write to new memory behind the homes.
    A new segment, in which all groups are at home again, begins where more than `most` numbers would be kept there.

    Args:
        stored_digits, loss_limit: see `plan`.
    """
    real, n_groups = library.real, steps[0, N_DIGITS]
    ket, home, enlarged = np.zeros(n_groups, np.int64), np.zeros(n_groups, np.int64), np.ones(n_groups)
    behind = steps[0, HOME_SIZE]
    kept = largest = segment = 0
    for k in range(1, 1 + steps[0, N_STEPS]):
        step = steps[k]
        g = step[GROUP]
        if step[TYPE] == BLOCK:
            loss = 1.0 if step[OPERATION] == IDENTITY else real[step[OPERATION], LOSS]
            for side in range(2):
                for f in range(step[FACTORS + 2 * side], step[FACTORS + 2 * side + 1]):
                    loss *= real[factors[f, 0], LOSS]
            undo = step[DIGITS] > stored_digits and enlarged[g] * loss <= loss_limit
            room = _room(step[DIGITS])
            if not undo and kept > 0 and kept + room > most:
                segment, kept = segment + 1, 0
                for h in range(n_groups):  # not ket[:] = home: see `copy_row`
                    ket[h], enlarged[h] = home[h], 1.0
                undo = step[DIGITS] > stored_digits and loss <= loss_limit
            step[KET] = ket[g]
            if undo:
                enlarged[g] *= loss
            else:
                ket[g], enlarged[g] = behind + kept, 1.0
                kept += room
                largest = max(largest, kept)
        else:
            if step[TYPE] == JOIN:
                step[FIRST_KET], step[SECOND_KET] = ket[g], ket[step[OTHER_GROUP]]
            ket[g] = home[g] = step[HOME]
            enlarged[g] = 1.0
        step[NEW_KET], step[SEGMENT] = ket[g], segment
    steps[0, KET_SIZE], steps[0, LAST_KET] = behind + largest, ket[steps[steps[0, N_STEPS], GROUP]]


@compiled(inline=True)
def _chain(whole, real, factors, first, last, angles, m):
    """m = rows 1 to 3 of the product of one-qubit operations, 12 numbers; row 0 is 1 0 0 0."""
    for k in range(12):
        write(m, k, 1.0 if k % 5 == 1 else 0.0)
    for f in range(first, last):
        op, slot = read(factors, 2 * f), read(factors, 2 * f + 1)
        w, n = at(whole, WHOLE_COLUMNS * op), at(real, REAL_COLUMNS * op + MATRIX)
        if read(w, KIND) == 1:
            c, s = math.cos(read(angles, slot)), math.sin(read(angles, slot))
            p, q = 4 * read(w, TURNED) - 4, 4 * read(w, TURNED_TO) - 4
            for j in range(4):
                a, b = read(m, p + j), read(m, q + j)
                write(m, p + j, c * a - s * b)
                write(m, q + j, s * a + c * b)
        if read(w, PLAIN):
            for j in range(4):
                write(m, j, read(n, 5) * read(m, j))
                write(m, 4 + j, read(n, 10) * read(m, 4 + j))
                write(m, 8 + j, read(n, 15) * read(m, 8 + j))
            write(m, 8, read(m, 8) + read(n, 12))
        else:
            for j in range(4):
                a, b, c = read(m, j), read(m, 4 + j), read(m, 8 + j)
                write(m, j, read(n, 5) * a + read(n, 6) * b + read(n, 7) * c)
                write(m, 4 + j, read(n, 9) * a + read(n, 10) * b + read(n, 11) * c)
                write(m, 8 + j, read(n, 13) * a + read(n, 14) * b + read(n, 15) * c)
            for i in range(3):
                write(m, 4 * i, read(m, 4 * i) + read(n, 4 * i + 4))


@compiled(inline=True)
def _chain_gradient(whole, real, factors, first, last, angles, r, gradient):
    """Add the derivatives in the angles of a chain; r[4 (i-1) + j] = Σ bra_i ket_j after it, and is used up.

    Going back through a map N, bra becomes Nᵀ bra and ket becomes N⁻¹ ket.
    """
    for f in range(last - 1, first - 1, -1):
        op, slot = read(factors, 2 * f), read(factors, 2 * f + 1)
        w = at(whole, WHOLE_COLUMNS * op)
        n, inverse = at(real, REAL_COLUMNS * op + MATRIX), at(real, REAL_COLUMNS * op + INVERSE)
        for j in range(4):
            a, b, c = read(r, j), read(r, 4 + j), read(r, 8 + j)
            write(r, j, read(n, 5) * a + read(n, 9) * b + read(n, 13) * c)
            write(r, 4 + j, read(n, 6) * a + read(n, 10) * b + read(n, 14) * c)
            write(r, 8 + j, read(n, 7) * a + read(n, 11) * b + read(n, 15) * c)
        for i in range(0, 12, 4):
            x, a, b, c = read(r, i), read(r, i + 1), read(r, i + 2), read(r, i + 3)
            for j in range(1, 4):
                m = at(inverse, 4 * j)
                write(r, i + j, read(m, 0) * x + read(m, 1) * a + read(m, 2) * b + read(m, 3) * c)
        if read(w, KIND) == 1:
            p, q = read(w, TURNED), read(w, TURNED_TO)
            derivative = read(r, 4 * q - 4 + p) - read(r, 4 * p - 4 + q)
            write(gradient, slot, read(gradient, slot) + derivative)
            c, s = math.cos(read(angles, slot)), math.sin(read(angles, slot))
            for j in range(4):
                a, b = read(r, 4 * p - 4 + j), read(r, 4 * q - 4 + j)
                write(r, 4 * p - 4 + j, c * a + s * b)
                write(r, 4 * q - 4 + j, c * b - s * a)
            for i in range(0, 12, 4):
                a, b = read(r, i + p), read(r, i + q)
                write(r, i + p, c * a + s * b)
                write(r, i + q, c * b - s * a)


@compiled(inline=True)
def _diagonal(m, letter):
    return 1.0 if letter == 0 else read(m, 5 * letter - 4)


@compiled(inline=True)
def _set_constants(constants, low_map, high_map, low_kind, high_kind, factor, has_core):
    for k in range(12):
        write(constants, k, read(low_map, k))
        write(constants, 12 + k, read(high_map, k))
    for row in range(16):
        value = read(factor, row) if has_core else 1.0
        if low_kind == SHIFT:
            value *= _diagonal(low_map, row & 3)
        if high_kind == SHIFT:
            value *= _diagonal(high_map, row >> 2)
        write(constants, kernels.FACTORS + row, value)


@compiled(inline=True)
def _invert(m, kind):
    """Invert rows 1 to 3 of a trace-preserving map; of a map of kind `SHIFT`, what is not in the factors."""
    if kind == SHIFT:
        write(m, 8, -read(m, 8))
        return
    a, b, c = read(m, 1), read(m, 2), read(m, 3)
    d, e, f = read(m, 5), read(m, 6), read(m, 7)
    g, h, i = read(m, 9), read(m, 10), read(m, 11)
    x, y, z = read(m, 0), read(m, 4), read(m, 8)
    one = 1.0 / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    write(m, 1, one * (e * i - f * h))
    write(m, 2, one * (c * h - b * i))
    write(m, 3, one * (b * f - c * e))
    write(m, 5, one * (f * g - d * i))
    write(m, 6, one * (a * i - c * g))
    write(m, 7, one * (c * d - a * f))
    write(m, 9, one * (d * h - e * g))
    write(m, 10, one * (b * g - a * h))
    write(m, 11, one * (a * e - b * d))
    for row in range(0, 12, 4):
        write(m, row, -(read(m, row + 1) * x + read(m, row + 2) * y + read(m, row + 3) * z))


@compiled(inline=True)
def _set_inverse(constants, low_map, high_map, low_kind, high_kind):
    """The constants of the inverse, behind those of the block; the maps are used up."""
    _invert(low_map, low_kind)
    _invert(high_map, high_kind)
    for k in range(12):
        write(constants, CONSTANTS + k, read(low_map, k))
        write(constants, CONSTANTS + 12 + k, read(high_map, k))
    for k in range(kernels.FACTORS, CONSTANTS):
        write(constants, CONSTANTS + k, 1.0 / read(constants, k))


@compiled(inline=True)
def _tiles(digits):
    return 1 << (2 * max(digits, 4) - 8)


@compiled(inline=True)
def _core(whole, straight, op):
    return straight if op == IDENTITY else at(whole, WHOLE_COLUMNS * op + CORE)


class Frame(NamedTuple):
    """What one thread works with: pointers to the arrays of the entry point's table."""

    steps: Any
    factors: Any
    actions: Any
    whole: Any
    real: Any
    pool: Any
    angles: Any
    slopes: Any
    scratch: Any
    rows: Any
    seat: Any
    maps: Any
    vectors: Any
    stop: Any


@compiled(inline=True)
def _frame(table, scalar):
    whole, real = pointer_to(read(table, LIBRARY), np.int64), pointer_to(read(table, LIBRARY + 1), np.float64)
    rows, scratch = pointer_to(read(table, WORK + 1), np.int64), pointer_to(read(table, WORK), scalar)
    steps = pointer_to(read(table, PROGRAM), np.int64)
    factors, actions = pointer_to(read(table, PROGRAM + 1), np.int64), pointer_to(read(table, PROGRAM + 2), np.int64)
    maps = pointer_to(read(table, WORK + 2), np.float64)
    straight = at(rows, 48)
    for row in range(16):
        write(straight, row, row)
    return Frame(
        steps, factors, actions, whole, real, pointer_to(read(table, LIBRARY + 2), scalar),
        pointer_to(read(table, ANGLES), np.float64), pointer_to(read(table, SLOPES), np.float64), scratch, rows,
        at(rows, SEAT), maps, pointer_to(read(table, VECTORS_AT), scalar), read(table, STOP),
    )  # fmt: skip


@compiled(inline=True)
def _goes_on(frame):
    """Wait for the other threads; False, for all of them, if the calculation is to stop."""
    halt_if(frame.seat, number(frame.seat) == 0 and stopped(frame.stop))
    return meet(frame.seat)


@compiled(inline=True)
def _large(digits):
    return (1 << (2 * digits)) > SHORT


@compiled(inline=True)
def _chains(frame, step, low_map, high_map):
    factors, angles = frame.factors, frame.angles
    _chain(frame.whole, frame.real, factors, read(step, FACTORS), read(step, FACTORS + 1), angles, low_map)
    _chain(frame.whole, frame.real, factors, read(step, FACTORS + 2), read(step, FACTORS + 3), angles, high_map)


@compiled(inline=True)
def _constants(frame, step, low_map, high_map):
    op = read(step, OPERATION)
    factor = at(frame.real, REAL_COLUMNS * op + FACTOR)
    kinds = read(step, KINDS), read(step, KINDS + 1)
    _set_constants(frame.scratch, low_map, high_map, kinds[0], kinds[1], factor, op != IDENTITY)


@compiled(inline=True)
def _dense(frame, op):
    return at(frame.pool, 768 * (0 if op == IDENTITY else read(frame.whole, WHOLE_COLUMNS * op + POOL)))


@compiled()
def _run(frame, first_step, last_step, keep):
    """Run steps; False if the calculation is to stop.

    A step of a large state begins with a meeting of all threads. Small ones are the leader's.

    Args:
        keep: leave what the reverse sweep needs.
    """
    vectors, leads = frame.vectors, number(frame.seat) == 0
    for k in range(first_step, 1 + last_step):
        step, low_map = at(frame.steps, COLUMNS * k), at(frame.maps, 24 * (MAPS + k))
        digits = read(step, DIGITS)
        if _large(digits) and not _goes_on(frame):
            return False
        target = at(vectors, read(step, NEW_KET if keep else HOME))
        if read(step, TYPE) == INIT:
            first, last = read(step, FACTORS), read(step, FACTORS + 1)
            _chain(frame.whole, frame.real, frame.factors, first, last, frame.angles, low_map)
            if leads:
                write(target, 0, 1.0)
                for i in range(3):
                    write(target, 1 + i, read(low_map, 4 * i) + read(low_map, 4 * i + 3))
        elif read(step, TYPE) == JOIN:
            if leads:
                one = at(vectors, read(step, FIRST_KET if keep else FIRST_HOME))
                other = at(vectors, read(step, SECOND_KET if keep else SECOND_HOME))
                kernels.join(one, other, target, read(step, FIRST_DIGITS), read(step, SECOND_DIGITS))
        else:
            high_map = at(low_map, 12)
            _chains(frame, step, low_map, high_map)
            if leads or digits >= SHARED_DIGITS:
                op = read(step, OPERATION)
                _constants(frame, step, low_map, high_map)
                source = at(vectors, read(step, KET if keep else HOME))
                first, last = share(frame.seat, _tiles(digits)) if digits >= SHARED_DIGITS else (0, _tiles(digits))
                kernels.forward(
                    source, target, first, last, read(step, AT_LOW), read(step, AT_HIGH), read(step, LANE),
                    read(step, OTHER_LANE), read(step, TO_LOW), read(step, TO_HIGH),
                    _core(frame.whole, at(frame.rows, 48), op), _dense(frame, op), frame.scratch,
                    read(step, KINDS), read(step, KINDS + 1), frame.rows, at(frame.scratch, BUFFERS),
                )  # fmt: skip
    return True


@compiled(inline=True)
def _products(turn, digits):
    """Where the products of bra and ket of a step are, in rows of `Work.maps` of the leader, and how many parts.

    Large blocks take turns (0 or 1): the leader still reads those of one while others write those of the next.
    """
    return turn * PARTS if _large(digits) else 2 * PARTS, PARTS if digits >= SHARED_DIGITS else 1


@compiled(spliced=True)
def _back(frame, step, k, turn, bras, shared_products):
    """One block of the reverse sweep, or this thread's share of it."""
    digits, op = read(step, DIGITS), read(step, OPERATION)
    low_map = at(frame.maps, 24 * (MAPS + k))
    high_map = at(low_map, 12)
    bra, ket = at(bras, read(step, HOME)), at(frame.vectors, read(step, NEW_KET))
    low_kind, high_kind = read(step, KINDS), read(step, KINDS + 1)
    _constants(frame, step, low_map, high_map)
    undo = read(step, KET) == read(step, NEW_KET)
    if undo:
        _set_inverse(frame.scratch, low_map, high_map, low_kind, high_kind)
    sums = at(frame.scratch, SUMS)
    row, parts = _products(turn, digits)
    first_part, last_part = share(frame.seat, parts) if parts > 1 else (0, 1)
    tiles = _tiles(digits)
    for part in range(first_part, last_part):
        kernels.clear_sums(sums)
        kernels.backward(
            bra, ket, undo, tiles * part // parts, tiles * (part + 1) // parts, digits >= SHARED_DIGITS,
            read(step, AT_LOW), read(step, AT_HIGH), read(step, LANE), read(step, OTHER_LANE), read(step, TO_LOW),
            read(step, TO_HIGH), _core(frame.whole, at(frame.rows, 48), op), _dense(frame, op), frame.scratch,
            low_kind, high_kind, read(step, WANTED), read(step, WANTED + 1), sums, frame.rows,
            at(frame.scratch, BUFFERS),
        )  # fmt: skip
        kernels.read_sums(sums, at(shared_products, 24 * (row + part)))


@compiled(spliced=True)
def _slopes_of(frame, k, turn):
    """Add the derivatives of the angles of a block, whose products all threads have left."""
    step = at(frame.steps, COLUMNS * k)
    row, parts = _products(turn, read(step, DIGITS))
    products = at(frame.maps, 24 * row)
    for part in range(1, parts):
        for i in range(24):
            write(products, i, read(products, i) + read(products, 24 * part + i))
    for side in range(2):
        if read(step, WANTED + side):
            first, last, r = read(step, FACTORS + 2 * side), read(step, FACTORS + 2 * side + 1), at(products, 12 * side)
            _chain_gradient(frame.whole, frame.real, frame.factors, first, last, frame.angles, r, frame.slopes)


@compiled()
def _sweep(frame, first_step, last_step, shared_products):
    """Take bra and ket back from the last step to the first; False if the calculation is to stop.

    Args:
        shared_products: the leader's `maps`.
    """
    vectors, leads = frame.vectors, number(frame.seat) == 0
    bras = at(vectors, read(frame.steps, KET_SIZE))
    waiting = turn = 0
    for k in range(last_step, first_step - 1, -1):
        step = at(frame.steps, COLUMNS * k)
        digits, kind = read(step, DIGITS), read(step, TYPE)
        if _large(digits):
            if not _goes_on(frame):
                return False
            if leads and waiting:
                _slopes_of(frame, waiting, turn)
            waiting = 0
        if kind == BLOCK:
            if _large(digits):
                turn = 1 - turn
            if leads or digits >= SHARED_DIGITS:
                _back(frame, step, k, turn, bras, shared_products)
            if _large(digits):
                waiting = k
            elif leads:
                _slopes_of(frame, k, turn)
        elif leads:
            bra, ket = at(bras, read(step, HOME)), at(vectors, read(step, NEW_KET))
            if kind == JOIN:
                one, other = at(vectors, read(step, FIRST_KET)), at(vectors, read(step, SECOND_KET))
                kernels.join_adjoint(
                    bra, one, other, at(bras, read(step, FIRST_HOME)), at(bras, read(step, SECOND_HOME)),
                    read(step, FIRST_DIGITS), read(step, SECOND_DIGITS),
                )  # fmt: skip
            elif read(step, WANTED):
                products = at(frame.maps, 48 * PARTS)
                for i in range(3):
                    for j in range(4):
                        write(products, 4 * i + j, float(read(bra, i + 1)) * read(ket, j))
                first, last = read(step, FACTORS), read(step, FACTORS + 1)
                _chain_gradient(
                    frame.whole, frame.real, frame.factors, first, last, frame.angles, products, frame.slopes
                )
    if not _goes_on(frame):
        return False
    if leads and waiting:
        _slopes_of(frame, waiting, turn)
    return True


@compiled()
def _copy(frame, source, target, size):
    """Take numbers from one place among the vectors to another; False if the calculation is to stop."""
    if not _goes_on(frame):
        return False
    first, last = share(frame.seat, size // 16)
    for i in range(16 * first, 16 * last):
        write(frame.vectors, target + i, read(frame.vectors, source + i))
    return _goes_on(frame)


@compiled()
def located(index, place):
    """Where strings stand in a vector whose qubit q is digit place[q]; `index` has qubit q at digit q."""
    out = np.zeros(len(index), np.int64)
    for q in range(len(place)):
        for t in range(len(index)):
            out[t] |= ((index[t] >> (2 * q)) & 3) << (2 * place[q])
    return out


@compiled(inline=True)
def _expectation(vector, places, weight, count):
    energy = 0.0
    for t in range(count):
        energy += read(weight, t) * read(vector, read(places, t))
    return energy


@compiled(spliced=True)
def _forward_only(frame, mode, places, weight, count, out):
    """Energy, or with mode `STATE` the values at `places`, written to `out`; NaN if stopped."""
    if not (_run(frame, 1, read(frame.steps, N_STEPS), False) and _goes_on(frame)):
        return math.nan
    vector = at(frame.vectors, read(frame.steps, LAST_HOME))
    if mode != STATE:
        return _expectation(vector, places, weight, count)
    if number(frame.seat) == 0:
        _write_values(vector, places, count, out)
    return 0.0


@compiled(inline=True)
def _write_values(vector, places, count, out):
    for t in range(count):
        write(out, t, read(vector, read(places, t)))


@compiled(spliced=True)
def _with_gradient(frame, mode, places, weight, count, out, n_angles, shared_products):
    """Energy, and its gradient by a reverse sweep, or one half of that; NaN if stopped."""
    steps, vectors, leads = frame.steps, frame.vectors, number(frame.seat) == 0
    energy, begun = 0.0, False
    for k in range(n_angles if leads else 0):
        write(frame.slopes, k, 0.0)
    for i in range(read(steps, N_ACTIONS)):
        action = at(frame.actions, ACTION_COLUMNS * i)
        kind, a, b = read(action, 0), read(action, 1), read(action, 2)
        if mode == BACKWARD and not begun and kind != REVERSE:
            continue
        if kind == COPY:
            if not _copy(frame, a, b, read(action, 3)):
                return math.nan
        elif kind != REVERSE:
            if not _run(frame, a, b, kind == KEEP):
                return math.nan
        else:
            if not begun:
                begun = True
                if not _goes_on(frame):
                    return math.nan
                if mode == FORWARD:
                    if leads:
                        _write_values(at(vectors, read(steps, LAST_KET)), places, count, out)
                    return 0.0
                if leads:
                    energy = _expectation(at(vectors, read(steps, LAST_KET)), places, weight, count)
                    bra = at(vectors, read(steps, KET_SIZE) + read(steps, LAST_HOME))
                    for j in range(_room(read(steps, N_DIGITS))):
                        write(bra, j, 0.0)
                    for t in range(count):
                        write(bra, read(places, t), read(weight, t))
            if not _sweep(frame, a, b, shared_products):
                return math.nan
    return energy


@compiled(spliced=True)
def _evaluate(where, scalar):
    """Energy: Σ weight v over the strings of the observable; by one reverse sweep its gradient too; NaN if stopped.

    All threads of a team run this. With mode `SERVE` a helper does, again and again until the team is dismissed.
    """
    table = pointer_to(where, np.int64)
    seat = at(pointer_to(read(table, WORK + 1), np.int64), SEAT)
    serves = read(table, MODE) == SERVE
    call_at, energy = where, math.nan
    while True:
        if serves:
            if called(seat) == LEAVE:
                return energy
            call_at = payload(seat)
        else:
            calls(seat, 1, where)
        asked = pointer_to(call_at, np.int64)
        write(table, ANGLES, read(asked, ANGLES))
        write(table, SLOPES, read(asked, SLOPES))
        frame = _frame(table, scalar)
        places = pointer_to(read(table, STRINGS), np.int64)
        weight = pointer_to(read(table, STRINGS + 1), np.float64)
        count, mode = read(table, N_STRINGS), read(asked, MODE)
        out = pointer_to(read(table, OUT), np.float64)
        if not _goes_on(frame):
            energy = math.nan
        elif mode in (GRADIENT, FORWARD, BACKWARD):
            products = pointer_to(read(asked, WORK + 2), np.float64)
            energy = _with_gradient(frame, mode, places, weight, count, out, read(table, N_ANGLES), products)
        else:
            energy = _forward_only(frame, mode, places, weight, count, out)
        if not serves:
            return energy


@Entry
def evaluate(where):
    """The entry point in double precision; see `qas.simulators._entry`."""
    return _evaluate(where, np.float64)


@Entry
def evaluate_single(where):
    """The entry point in single precision."""
    return _evaluate(where, np.float32)
