"""``qas campaign``: do all searches of a study."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qas.cli import INTERRUPTED, show
from qas.cli import parser as read
from qas.cli.progress import tell
from qas.cli.show import clock

if TYPE_CHECKING:
    from qas.campaigns.campaign import State

_PLAIN_EVERY = 10.0
"""Seconds between lines where there is no terminal."""
_LIVE_EVERY = 0.2
"""Seconds between pictures of the table on a terminal."""


def add(commands: Any) -> None:
    about = (
        "Does all searches of a study, a file in TOML, as runs of one folder. Ctrl-C ends in order; the same command "
        "again does what is missing."
    )
    parser = read.command(commands, "campaign", "do many searches from one file", about, run)
    parser.option("study", "STUDY", "problems, agents, noise, devices, seeds and a budget; see docs/campaigns.md")
    parser.option("--workers", "N", "searches at a time on this machine (default one for each core)", read.count)
    parser.option("--ray", "ADDRESS", "do them on a Ray cluster: its address, or auto (extra ray)")
    parser.option("--cpus", "N", "cores that Ray keeps for each search (default 1)", read.positive)
    parser.option("--out", "DIR", "folder of the campaign (default what the study says, or results/campaign-TIME)")
    parser.add_argument("--callback", **read.CALLBACK)
    parser.flag("--reports", "write the report.html of every run")
    parser.output(progress=True)


def run(arguments: argparse.Namespace) -> int:
    from qas.campaigns import campaign

    with _watched(arguments.quiet) as on_change:
        done = campaign(
            arguments.study,
            workers=arguments.workers,
            ray=arguments.ray,
            cpus=arguments.cpus,
            out=arguments.out,
            report=arguments.reports,
            callbacks=arguments.callback or (),
            on_change=on_change,
        )
    from qas.remote import address_of

    status, where = done.status(), address_of(done.path)
    counts = {name: sum(one == name for one in status.values()) for name in ("finished", "failed", "begun", "waiting")}
    told = {"campaign": where, **counts}
    failed = [f"failed: {name} (why: {where}/failed/{name}.txt)" for name, one in status.items() if one == "failed"]
    left = counts["begun"] + counts["waiting"]
    lines = [f"{counts['finished']} of {len(status)} searches finished in {where}", *failed]
    again = "the same command" if arguments.out else f"the same command with --out {shlex.quote(where)}"
    show.answer(arguments, told, *lines, *([f"{again} goes on with the others"] if left else []))
    return INTERRUPTED if left else 1 if failed else 0


@contextlib.contextmanager
def _watched(quiet: bool) -> Iterator[Callable[[State], None] | None]:
    if quiet:
        yield None
        return
    watch = _Watch()
    if not sys.stderr.isatty():
        yield watch.plain
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True, highlight=False), transient=True, auto_refresh=False) as live:
        yield lambda state: watch.live(state, live)


class _Watch:
    """What is shown of a campaign in progress."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.next = 0.0
        self.before: int | None = None
        """searches that were finished when this began"""
        self.failed: set[str] = set()

    def left(self, state: State) -> str:
        """Time left as far as it can be told, from what ended since this began and the shares of what runs."""
        ended = len(state.outcomes) - (self.before or 0)
        parts = sum(progress.fraction for progress in state.running.values())
        if ended + parts <= 0:
            return "?"
        passed = time.perf_counter() - self.begun
        return clock(passed * (state.total - len(state.outcomes) - parts) / (ended + parts))

    def due(self, state: State, every: float) -> bool:
        if self.before is None:
            self.before = len(state.outcomes)
        now = time.perf_counter() - self.begun
        if now < self.next and len(state.outcomes) < state.total:
            return False
        self.next = now + every
        return True

    def counts(self, state: State) -> str:
        numbers = f"{state.count('finished')} of {state.total} done, {len(state.running)} running"
        failed = state.count("failed")
        return f"{numbers}, {failed} failed" if failed else numbers

    def plain(self, state: State) -> None:
        """Print a line if one is due, and one for each search that failed."""
        for name, outcome in state.outcomes.items():
            if outcome.status == "failed" and name not in self.failed:
                self.failed.add(name)
                tell(f"{name} failed: {outcome.told}")
        if self.due(state, _PLAIN_EVERY):
            best = ", ".join(f"{problem} {error:.2g}" for problem, error in state.best.items())
            tell(f"{self.counts(state)}, {self.left(state)} left{best and '; best errors: ' + best}")

    def live(self, state: State, display: Any) -> None:
        """Draw the table if it is time."""
        if not self.due(state, _LIVE_EVERY):
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.counts(state)}, {self.left(state)} left", title_justify="left")
        for heading, side in (("running", "left"), ("share", "right"), ("best error", "right"), ("", "left")):
            table.add_column(heading, justify=side)  # type: ignore[arg-type]
        for name, progress in state.running.items():
            table.add_row(name, f"{progress.fraction:.0%}", f"{progress.best_error:.3g}", Text(progress.note))
        for problem, error in state.best.items():
            table.add_row(Text(f"best of {problem}", style="dim"), "", f"{error:.3g}", "")
        for name, outcome in state.outcomes.items():
            if outcome.status == "failed":
                table.add_row(Text(f"{name} failed", style="red"), "", "", Text(outcome.told))
        display.update(table, refresh=True)
