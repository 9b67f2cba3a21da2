"""How work in progress is shown, on standard error: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from qas.cli.show import clock, quantity

if TYPE_CHECKING:
    from qas.record import Progress

_SLOW_START = 4.0
"""Seconds after which a start is slow enough to be explained."""
_PLAIN_EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""


def tell(line: str) -> None:
    print(f"qas: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows work of known size."""
    if quiet:
        yield lambda what, done, size: None
    elif not sys.stderr.isatty():
        yield lambda what, done, size: tell(f"{what}, {done:,} of {size:,}")
    else:
        with _display("starting") as show:
            yield lambda what, done, size: show(f"{what}, {done:,} of {size:,}", done / size)


@contextlib.contextmanager
def watched(label: str, unit: str) -> Iterator[Callable[[Progress], None]]:
    """Shows a search."""
    watch = Watch(label, unit)
    slow = threading.Timer(_SLOW_START, watch.explain_start)
    slow.daemon = True
    slow.start()
    try:
        if not sys.stderr.isatty():
            yield watch.plain
        else:
            with _display(f"{label}\npreparing") as show:
                yield lambda progress: show(watch.live(progress), progress.fraction)
    finally:
        slow.cancel()


@contextlib.contextmanager
def _display(text: str) -> Iterator[Callable[[str, float], None]]:
    """A bar and text beside it, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(32), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as display:
        task = display.add_task(text, total=1.0)
        yield lambda text, share: display.update(task, description=text, completed=share)


class Watch:
    """What is known about a search in progress, and how it is shown."""

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit = label, unit
        self.begun = self.seen = time.perf_counter()
        self.last: Progress | None = None
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=30)
        self._errors: list[float] = []
        self._next_line = _PLAIN_EVERY

    def note(self, progress: Progress) -> None:
        """Take in a snapshot."""
        self.last = progress
        self.seen = time.perf_counter()
        self._recent.append((progress.seconds, progress.evaluations, progress.architectures))
        self._errors.append(progress.best_error)
        if len(self._errors) > 480:
            del self._errors[::2]

    def rates(self) -> tuple[float, float]:
        """Evaluations and architectures per second, over the last few seconds."""
        if not self._recent:
            return 0.0, 0.0
        first, last = self._recent[0], self._recent[-1]
        if len(self._recent) < 3 or last[0] <= first[0]:
            first = (0.0, 0, 0)
        passed = max(last[0] - first[0], 1e-9)
        return (last[1] - first[1]) / passed, (last[2] - first[2]) / passed

    def left(self) -> str:
        """Time left as far as it can be told."""
        p = self.last
        if p is None or p.fraction <= 0:
            return "?"
        remaining = p.seconds * (1 - p.fraction) / p.fraction - (time.perf_counter() - self.seen)
        return clock(max(remaining, 0.0))

    def explain_start(self) -> None:
        """Say why nothing happens yet."""
        if self.last is None:
            tell("preparing; kernels are compiled once per machine, the clock has not started")

    def plain(self, progress: Progress) -> None:
        """Take in a snapshot and print a line if one is due."""
        self.note(progress)
        if time.perf_counter() - self.begun >= self._next_line:
            self._next_line = time.perf_counter() - self.begun + _PLAIN_EVERY
            tell(", ".join(self._status(progress)))

    def live(self, progress: Progress) -> str:
        """Take in a snapshot; returns the text of the display."""
        self.note(progress)
        passed, *status = self._status(progress)
        done = f"{progress.front_size} circuits in the front, {progress.evaluations:,} evaluations so far"
        return "\n".join([self.label, f"{passed} {sparkline(self._errors)}", *status, done, "Ctrl-C keeps everything"])

    def _status(self, p: Progress) -> list[str]:
        """Time, what was found, how fast, and what the agent is doing."""
        evaluations, architectures = self.rates()
        size = f"{p.best_gates} gates, {p.best_two_qubit_gates} on two qubits"
        return [
            f"{clock(p.seconds)}, {self.left()} left",
            f"best error {quantity(p.best_error, self.unit)} ({size})",
            f"{evaluations:,.0f} evaluations/s, {architectures:,.0f} architectures/s",
            *([p.note] if p.note else []),
        ]


def sparkline(errors: Sequence[float], width: int = 24) -> str:
    """The logarithm of the best error over time as block characters."""
    values = [math.log10(max(e, 1e-15)) for e in errors if math.isfinite(e)]
    if len(values) < 2:
        return ""
    picked = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    low, high = min(picked), max(picked)
    if high - low < 1e-9:
        return "▁" * width
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / (high - low))] for v in picked)
