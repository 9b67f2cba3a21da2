"""Entry points of the compiled engines: functions called by address, with all their arguments in one table of integers.

Numba takes about a microsecond to unpack each array of a call, and compiles what a function calls anew into every
function that calls it. So an engine has one entry point for each precision; Python and compiled code call it alike, by
the addresses of the function and of its table, and nothing else holds a copy of its kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numba.core.ccallback import CFunc

from qas.simulators import interrupt
from qas.simulators._compile import compiled, stamped
from qas.simulators._lanes import address, pointer_to
from qas.simulators._team import sit, together
from qas.simulators.workers import worker_count

VALUE, GRADIENT, STATE, SERVE, FORWARD, BACKWARD = 0, 1, 2, 3, 4, 5
"""Modes: energy; energy and gradient; what the engine knows of the final state, written to `OUT`; help
another thread, that leads, with all that it is asked (see `qas.simulators._team`); a gradient in two halves, between
which the weights of the observable may be set: as `STATE`, then the gradient alone, by the same thread."""

MODE, STOP, ANGLES, N_ANGLES, SLOPES, OUT, ENGINE = range(7)
"""Columns of a table; from `ENGINE` on they are the engine's own."""

_lock = threading.Lock()


class Entry:
    """A compiled function from the address of a table to float64, compiled (or read from disk) at its first call."""

    def __init__(self, function: Callable[[int], float]) -> None:
        self._function = function

    @cached_property
    def _compiled(self) -> CFunc:
        options = {"nopython": True, "nogil": True, "error_model": "numpy", "boundscheck": False}
        with _lock:
            entry = CFunc(self._function, ((types.int64,), types.float64), {}, options)
            entry.enable_caching()
            stamped(entry)
            entry.compile()
        return entry

    @property
    def address(self) -> int:
        """Where the machine code is; see `qas.simulators._lanes.call`."""
        return int(self._compiled.address)  # type: ignore[arg-type]

    @cached_property
    def run(self) -> Callable[[int], float]:
        """The function itself; the GIL is released while it runs."""
        return self._compiled.ctypes


class Helped(NamedTuple):
    """What an engine says that lets other threads help."""

    seat: int
    """address of the leader's seat (see `qas.simulators._team`)"""
    helper: Callable[[], tuple[int, int, list[int], Any]]
    """makes the memory of a helper: the address of its seat; columns of its table that differ from the leader's, from
    which on; and what is to be kept alive meanwhile"""


class Call:
    """Arguments of an engine for one circuit and one observable; one thread at a time may use it.

    Args:
        entry: the engine.
        n_angles: of the circuit.
        numbers: the engine's own columns.
        held: the arrays named there, kept alive.
        out: where `STATE` is written.
    """

    def __init__(
        self, entry: Entry, n_angles: int, numbers: list[int], held: tuple[Any, ...], out: np.ndarray | None = None
    ) -> None:
        self.held = held, out
        self.helped: Helped | None = None
        self.entry = entry
        self.memory = np.zeros(2 * n_angles + 1)  # one more, so that it has an address
        self.angles, self.gradient = self.memory[:n_angles], self.memory[n_angles : 2 * n_angles]
        start = address_of(self.memory)
        place = 0 if out is None else address_of(out)
        self.table = np.array([0, 0, start, n_angles, start + 8 * n_angles, place, *numbers], dtype=np.int64)
        self.address = address_of(self.table)
        self._columns = self.table.data

    def run(self, mode: int, angles: np.ndarray) -> float:
        """Energy, or NaN where the thread was asked to stop; `gradient` holds the gradient of mode `GRADIENT`."""
        self.angles[:] = angles
        self._columns[MODE], self._columns[STOP] = mode, interrupt.current().address
        if self.helped is None:
            return self.entry.run(self.address)
        with self.together():
            return self.entry.run(self.address)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Other threads help with all calls inside, where the engine can use them and there are cores for them."""
        count = 1 if self.helped is None else worker_count()
        if self.helped is None or count == 1:
            yield
            return
        seat, helper = self.helped

        def serve(team: int, member: int) -> None:
            own_seat, first, numbers, held = helper()
            sit(own_seat, team, member, count)
            table = self.table.copy()
            table[MODE], table[first : first + len(numbers)] = SERVE, numbers
            self.entry.run(address_of(table))
            del held

        with together(seat, count, serve):
            yield


@compiled()
def address_of(array: Any) -> Any:
    """Where a contiguous array's first element is; NumPy itself takes microseconds to tell."""
    return address(array)  # type: ignore[call-arg]


def addresses(*arrays: np.ndarray) -> list[int]:
    return [address_of(array) for array in arrays]


def aligned(size: int, dtype: np.dtype | type[np.generic] = np.float64) -> np.ndarray:
    """Uninitialized memory that starts at a cache line: kernels lose up to a third where registers lie across two."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size + 64 // itemsize, dtype)
    start = -memory.ctypes.data % 64 // itemsize
    return memory[start : start + size]


@compiled(inline=True)
def array_at(where: Any, shape: Any, kind: Any) -> Any:
    """The contiguous array of a shape and NumPy type at an address."""
    return carray(pointer_to(where, kind), shape)  # type: ignore[call-arg]
