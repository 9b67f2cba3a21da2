"""How work in progress is shown, on standard error: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qas.cli.show import clock, quantity

if TYPE_CHECKING:
    from qas.record import Progress

_SLOW_START = 4.0
"""Seconds after which a start is slow enough to be explained."""
_PLAIN_EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""
_PREPARING = "preparing; kernels are compiled once per machine, the clock has not started"


def tell(line: str) -> None:
    print(f"qas: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def watched(label: str, unit: str) -> Iterator[Callable[[Progress], None]]:
    """Shows a search."""
    watch = Watch(label, unit)
    if not sys.stderr.isatty():
        slow = threading.Timer(_SLOW_START, watch.explain_start)
        slow.daemon = True
        slow.start()
        try:
            yield watch.plain
        finally:
            slow.cancel()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, get_renderable=watch.renderable, refresh_per_second=5, transient=True):
        yield watch.note


class Watch:
    """What is known about a search in progress, and how it is shown."""

    def __init__(self, label: str, unit: str) -> None:
        self.label = label
        self.unit = unit
        self.begun = time.perf_counter()
        self.last: Progress | None = None
        self.seen = self.begun
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
            tell(_PREPARING)

    def plain(self, progress: Progress) -> None:
        """Take in a snapshot and print a line if one is due."""
        self.note(progress)
        if time.perf_counter() - self.begun < self._next_line:
            return
        self._next_line = time.perf_counter() - self.begun + _PLAIN_EVERY
        evaluations, architectures = self.rates()
        tell(
            f"{clock(progress.seconds)}, best error {quantity(progress.best_error, self.unit)} "
            f"({progress.best_gates} gates, {progress.best_two_qubit_gates} on two qubits), {evaluations:,.0f} "
            f"evaluations/s, {architectures:,.0f} architectures/s, {self.left()} left"
            + (f", {progress.note}" if progress.note else "")
        )

    def renderable(self) -> Any:
        """The live display."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        p = self.last
        if p is None:
            slow = time.perf_counter() - self.begun > _SLOW_START
            return Text(f"{self.label}\n{_PREPARING if slow else 'preparing'} …")
        evaluations, architectures = self.rates()
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=p.fraction, width=32)
        passed = Text(f"{clock(p.seconds)}, {self.left()} left")
        head.add_row(bar, passed, Text(sparkline(self._errors), style="blue"))
        best = Text(quantity(p.best_error, self.unit), style="bold")
        size = f"{p.best_gates} gates, {p.best_two_qubit_gates} on two qubits; {p.front_size} circuits in the front"
        done = f"{architectures:,.0f} architectures/s; {p.evaluations:,} evaluations so far"
        body = Table.grid(padding=(0, 2))
        body.add_row("best error", best, Text(size))
        body.add_row("speed", Text(f"{evaluations:,.0f} evaluations/s"), Text(done))
        rows: list[Any] = [Text(self.label, style="bold"), head, body]
        if p.note:
            rows.append(Text(p.note, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*rows, Text("Ctrl-C stops and keeps everything", style="dim"))


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


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows work of known size."""
    if quiet:
        yield lambda what, done, size: None
        return
    if not sys.stderr.isatty():
        yield lambda what, done, size: tell(f"{what}, {done:,} of {size:,}")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        shown = display.add_task("starting", total=None)
        yield lambda what, done, size: display.update(shown, description=what, completed=done, total=size)
