"""Stopping long calculations: a deadline or Ctrl-C reaches compiled code while it runs.

Python runs signal handlers between its own instructions only, so one compiled minimization that takes minutes would
hear neither a deadline nor Ctrl-C. Here a thread waits for both and raises a flag that the kernels read after each
gate, and the optimizers before each evaluation.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import numpy as np

from qas.checks import finite_number

_ASKS = "asks_for_an_end"
"""Marks handlers of `first_signal_asks`."""


class Interrupted(Exception):
    """A calculation was stopped before it had a value; `stop_when` says when."""


class Stop:
    """A flag for one thread, and why it was raised.

    Attributes:
        reason: None while work goes on, then "deadline" or "signal".
    """

    def __init__(self, deadline: float) -> None:
        self._flag = np.zeros(1, dtype=np.int64)
        self.address = self._flag.ctypes.data
        """where compiled code reads the flag, an int64: not zero means stop"""
        self.deadline = deadline
        self.reason: str | None = None
        self._heirs: list[Stop] = []

    def __bool__(self) -> bool:
        return self.reason is not None

    def request(self, reason: str) -> None:
        """Raise the flag, and those of its heirs; safe from any thread."""
        self.reason = self.reason or reason
        self._flag[0] = 1
        for heir in tuple(self._heirs):
            heir.request(reason)

    def heir(self) -> Stop:
        """A flag that is raised whenever this one is, and may be raised alone; see `disown`."""
        heir = Stop(self.deadline)
        self._heirs.append(heir)
        if self.reason is not None:  # after the line above: a request that comes now reaches it either way
            heir.request(self.reason)
        return heir

    def disown(self, heir: Stop) -> None:
        """Let go of what `heir` returned."""
        with suppress(ValueError):
            self._heirs.remove(heir)

    def watch(self, receiver: socket.socket, forward: int, signals: frozenset[int], grace: float) -> None:
        """Wait for the deadline and for signal numbers as bytes; 0 ends the wait."""
        deadline, reason = self.deadline, "deadline"
        while True:
            left = deadline - time.monotonic()
            if left <= 0 and not self:
                self.request(reason)
            try:
                receiver.settimeout(None if self or left == np.inf else max(left, 1e-6))
                received = receiver.recv(64)
            except TimeoutError:
                continue
            if not received or 0 in received:
                return
            if forward >= 0:
                with suppress(OSError):
                    os.write(forward, received)
            for number in received:
                if number in signals:
                    # The first one leaves time to end in order; the second does not.
                    deadline = time.monotonic() + (grace if reason == "deadline" else 0.0)
                    deadline, reason = min(deadline, self.deadline), "signal"


class _Current(threading.local):
    def __init__(self) -> None:
        self.stop = Stop(np.inf)


_current = _Current()


def current() -> Stop:
    """The flag of this thread; without `stop_when` it is never raised."""
    return _current.stop


@contextmanager
def lent(stop: Stop) -> Iterator[None]:
    """This thread listens to a flag of another thread, for which it works."""
    own, _current.stop = _current.stop, stop
    try:
        yield
    finally:
        _current.stop = own


def check() -> None:
    """Raise if this thread was asked to stop.

    Raises:
        Interrupted: it was.
    """
    if _current.stop:
        raise Interrupted("the calculation was stopped before it had a value")


@contextmanager
def stop_when(
    seconds: float | None = None,
    *,
    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    grace: float = 0.0,
) -> Iterator[Stop]:
    """Stop what this thread calculates inside: after some seconds, or when the process is told to by a signal.

    A minimization that is stopped returns the best point so far, with the message "stopped: interrupted"; an energy, or
    a minimization without a single finished one, raises `Interrupted`. The flag stays up to the end of the block. The
    program's own signal handlers run as always, as soon as the compiled code has returned. Blocks may be nested; an
    inner one ends with the outer deadline at the latest. It costs one sleeping thread and nothing per evaluation.

    Args:
        seconds: from now; None: no deadline.
        signals: numbers that stop; heard in the main thread only, as in all of Python, and only where the program
            handles them itself (Python does so for Ctrl-C).
        grace: seconds between the first signal and the flag, for work that soon ends in order; a second signal raises
            it at once.

    Raises:
        QasError: seconds or grace that are not finite numbers.
    """
    own = np.inf if seconds is None else time.monotonic() + finite_number("seconds", seconds)
    finite_number("grace", grace, least=0)
    outer = _current.stop
    stop = Stop(min(own, outer.deadline))
    if outer:
        stop.request(outer.reason or "deadline")
    heard = threading.current_thread() is threading.main_thread()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False) if heard else -1
    arguments = (receiver, before, frozenset(int(number) for number in signals), grace)
    watcher = threading.Thread(target=stop.watch, args=arguments, name="qas-stop-when", daemon=True)
    _current.stop = stop
    watcher.start()
    try:
        yield stop
    finally:
        _current.stop = outer
        if heard:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        sender.setblocking(True)
        sender.send(b"\0")
        watcher.join()
        sender.close()
        receiver.close()
        if stop.reason == "deadline" and stop.deadline == outer.deadline <= time.monotonic():
            outer.request("deadline")  # its own thread may wake up later than that of the inner block did


@contextmanager
def open_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C stops what is calculated inside, if it would raise `KeyboardInterrupt` when Python has its turn again.

    A program with a handler of its own decides for itself, by `stop_when`.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    with stop_when(signals=(signal.SIGINT,)):
        yield


@contextmanager
def first_signal_asks(ask: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, or TERM, only asks for an end in order; a second one raises `KeyboardInterrupt`.

    Of blocks within each other all are asked. Outside the main thread nothing is changed. What is calculated inside
    hears of it by `stop_when`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        ask()
        outer = before[signal.Signals(number)]
        if callable(outer) and getattr(outer, _ASKS, False):
            outer(number, frame)

    setattr(handle, _ASKS, True)
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Calculations inside go on to their end, whatever this thread was asked: for the last short ones."""
    outer, _current.stop = _current.stop, Stop(np.inf)
    try:
        yield
    finally:
        _current.stop = outer


def _forget() -> None:
    # A forked child would write its own signals into the parent's socket.
    _current.stop = Stop(np.inf)
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
