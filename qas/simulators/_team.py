"""Threads that work on one calculation together, in compiled code: a barrier, and a call that others wait for.

All members of a team run the same compiled function, each on its share of the memory, and `meet` between the steps.
One of them, the leader, is the thread that wants the result; the others wait in `called` from one calculation to the
next. Nobody holds the GIL, and a barrier takes well under a microsecond while every member has a core.

    seat = leader's seat; an int64 pointer to `SEAT_SIZE` words; `alone(seat)` makes it a team of one, for which `calls`
    and `meet` cost nothing, so that there is one function for any number of threads:

        def calculate(seat, …):                  # every member
            for step in …:
                … first, last = share(seat, n) …  # this member's part of n things
                if not meet(seat):               # False for all members at the same step
                    return False
            return meet(seat)

        def entry(seat, …):                      # the leader
            calls(seat, COMMAND, payload)
            … halt_if(seat, stopped(stop)) before a `meet` ends the calculation for all …
            return calculate(seat, …)

        def serve(seat, …):                      # a helper: ends when the team is dismissed
            while True:
                command = called(seat)
                if command == LEAVE:
                    return
                calculate(seat, …)               # payload(seat) is what `calls` was given

    with together(leader's seat, count, help_):   # Python; help_, in a thread of its own, calls `sit`, then `serve`
        entry(…)

What is summed must not depend on who summed it: cut it into a fixed number of parts, and add these in order.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qas.simulators._compile import compiled
from qas.simulators._lanes import pointer_to, read, write
from qas.simulators.workers import lend

LEAVE = 0
"""The command that ends `serve`."""

# Words of a seat, each member's own.
_TEAM, _NUMBER, _COUNT, _PASSED, _HEARD = 0, 1, 2, 3, 4
SEAT_SIZE = 8
# Words of a team, written by several members: each on its own cache line.
_ARRIVED, _HALT, _CALLS, _COMMAND, _PAYLOAD, _ABSENT = 0, 8, 16, 17, 18, 24  # _HALT: two, for odd and even meetings
TEAM_SIZE = 32

_PATIENCE = 2000
"""Looks at a word before the core is offered to other threads."""


@intrinsic
def _look(typingctx, words, index):
    """A word that others write; what they wrote before it is seen from now on."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(words, types.intp), codegen


@intrinsic
def _post(typingctx, words, index, value):
    """Write a word that others look at, after all that was written before."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), codegen


@intrinsic
def _count_in(typingctx, words, index):
    """Add 1 to a word to which others add too."""

    def codegen(context, builder, signature, args):
        builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), ir.IntType(64)(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(words, types.intp), codegen


_YIELD = "sched_yield" if os.name == "posix" else "SwitchToThread"


@intrinsic
def _offer_core(typingctx):
    """Let other threads run, if there are any that wait."""

    def codegen(context, builder, signature, args):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@compiled(inline=True)
def alone(seat):
    """Make it the seat of a team of one."""
    for k in range(SEAT_SIZE):
        write(seat, k, 0)
    write(seat, _COUNT, 1)


@compiled()
def sit(seat_at, team, number, count):
    """Make it, at this address, the seat of one member of a new team.

    Args:
        team: address of its `TEAM_SIZE` words, all 0 at first.
    """
    seat = pointer_to(seat_at, np.int64)
    alone(seat)
    write(seat, _TEAM, team)
    write(seat, _NUMBER, number)
    write(seat, _COUNT, count)


@compiled(inline=True)
def number(seat):
    """Which member this is; 0 is the leader."""
    return read(seat, _NUMBER)


@compiled(inline=True)
def share(seat, parts):
    """First and last of this member's share of so many parts."""
    count = read(seat, _COUNT)
    return parts * read(seat, _NUMBER) // count, parts * (read(seat, _NUMBER) + 1) // count


@compiled()
def _wait(team, word, least):
    """Until a word is at least so large; False if a member is absent."""
    looks = 0
    while _look(team, word) < least:
        looks += 1
        if looks > _PATIENCE:
            if _look(team, _ABSENT):
                return False
            _offer_core()
    return True


@compiled(inline=True)
def meet(seat):
    """Wait for all members; False, for all of them, if one of them called for a halt before, or has left."""
    count = read(seat, _COUNT)
    passed = read(seat, _PASSED) + 1
    write(seat, _PASSED, passed)
    if count == 1:
        return read(seat, _HEARD) != passed
    team = pointer_to(read(seat, _TEAM), np.int64)
    _count_in(team, _ARRIVED)
    return _wait(team, _ARRIVED, passed * count) and _look(team, _HALT + (passed & 1)) != passed


@compiled(inline=True)
def halt_if(seat, condition):
    """The leader: the next `meet` ends the calculation, if the condition holds."""
    if condition:
        meeting = read(seat, _PASSED) + 1
        if read(seat, _COUNT) == 1:
            write(seat, _HEARD, meeting)
        else:
            _post(pointer_to(read(seat, _TEAM), np.int64), _HALT + (meeting & 1), meeting)


@compiled(inline=True)
def calls(seat, command, payload):
    """The leader: let the others begin."""
    if read(seat, _COUNT) > 1:
        team = pointer_to(read(seat, _TEAM), np.int64)
        write(team, _COMMAND, command)
        write(team, _PAYLOAD, payload)
        _post(team, _CALLS, _look(team, _CALLS) + 1)


@compiled(inline=True)
def called(seat):
    """A helper: wait for the next command."""
    team = pointer_to(read(seat, _TEAM), np.int64)
    heard = read(seat, _HEARD) + 1
    write(seat, _HEARD, heard)
    return read(team, _COMMAND) if _wait(team, _CALLS, heard) else LEAVE


@compiled(inline=True)
def payload(seat):
    """A helper: what came with the command."""
    return read(pointer_to(read(seat, _TEAM), np.int64), _PAYLOAD)


@compiled()
def dismiss(seat_at):
    """The leader: no more commands; its seat, at this address, becomes that of a team of one."""
    seat = pointer_to(seat_at, np.int64)
    calls(seat, LEAVE, 0)
    alone(seat)


@compiled()
def excuse(team):
    """Tell all members of the team at this address that one of them is gone."""
    _post(pointer_to(team, np.int64), _ABSENT, 1)


@contextmanager
def together(seat: int, count: int, serve: Callable[[int, int], None]) -> Iterator[None]:
    """Threads that help this one inside; after the block they are gone.

    Args:
        seat: address of the leader's seat.
        count: members, with the leader.
        serve: what a helper does, from the address of the team and the helper's number; what it raises is raised here,
            and ends what is calculated.
    """
    words = np.zeros(TEAM_SIZE, dtype=np.int64)
    team = int(words.ctypes.data)
    gone: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def help_(member: int) -> None:
        error: BaseException | None = None
        try:
            serve(team, member)
        except BaseException as raised:  # the leader raises it
            error = raised
            excuse(team)
        finally:
            gone.put(error)

    helpers = 0
    errors: list[BaseException | None] = []
    sit(seat, team, 0, count)
    try:
        for member in range(1, count):
            lend(lambda member=member: help_(member))  # type: ignore[misc]
            helpers += 1
        yield
    finally:
        dismiss(seat)
        errors.extend(gone.get() for _ in range(helpers))
    for error in errors:
        if error is not None:
            raise error
