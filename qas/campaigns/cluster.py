"""Searches of a campaign as tasks of a Ray cluster: where each runs, and again after a node was lost, is Ray's affair.

A task is one attempt at a search (`qas.campaigns.attempts` tells why no two ever write the same folder). Ray repeats it
when its worker or its node dies, and it goes on from the checkpoint of the attempt before, so that at the same seed and
a budget in evaluations or steps it ends as the unbroken search would. An attempt believed to be lost that goes on all
the same writes to its own folder only, and its result is not asked for.
"""

from __future__ import annotations

import logging
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qas.campaigns.attempts import adopt, new_attempt, place
from qas.campaigns.running import Outcome, attempt, settle
from qas.campaigns.study import Task
from qas.campaigns.workers import PATIENCE, TICK, counted_signals
from qas.errors import MissingExtraError, QasError
from qas.record import Progress
from qas.runs import CAMPAIGN

_RETRIES = 5
"""Workers and nodes that may die on one search before it is given up, less one."""
_PENDING = 1000
"""Tasks that Ray knows of at a time."""
_POST_EVERY = 1.0
"""Seconds between snapshots of a search."""


class _Unseen(Exception):
    """A node does not see the campaign's folder; another one may."""


class Cluster:
    """Does searches on the Ray cluster that this process is connected to.

    Args:
        cpus: cores that Ray keeps for each search, which uses as many threads.
        folder: of the campaign; all nodes see it under the same path.
        report: write each run's own report.
        callbacks: of every search, as of `qas.search`.
        tell: is called with the name of a search and a snapshot of it, now and then.
    """

    def __init__(
        self,
        cpus: float,
        folder: Path,
        *,
        tell: Callable[[str, Progress], None],
        report: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.cpus, self.folder, self.tell = cpus, folder.resolve(), tell
        self._how = {"report": report, "callbacks": callbacks}
        self._running: dict[Any, Task] = {}
        self._asked = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Do searches; yields how each ended, in the order in which they do.

        The first Ctrl-C lets those that run end where they can be gone on with, and begins no other; the second kills.
        """
        import ray

        self._warn_of_size()
        board = _Board(ray)
        options: Any = {"num_cpus": self.cpus, "max_retries": _RETRIES, "retry_exceptions": [_Unseen]}
        remote = ray.remote(**options)(_attempt)
        waiting = deque(tasks)
        with counted_signals(self._signalled):
            try:
                while (waiting or self._running) and not self._asked:
                    while waiting and len(self._running) < _PENDING:
                        task = waiting.popleft()
                        self._running[remote.remote(task, str(self.folder), self._how, board.actor)] = task
                    yield from self._ended()
                    for name, progress in board.look({task.name for task in self._running.values()}).items():
                        self.tell(name, progress)
            finally:
                ended = self._stopped()
            yield from ended

    def _signalled(self) -> None:
        self._asked += 1

    def _ended(self) -> Iterator[Outcome]:
        """How those ended that have done so by now, or within a moment."""
        import ray

        ended, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=TICK)
        for reference in ended:
            yield self._taken(reference)

    def _taken(self, reference: Any) -> Outcome:
        """How a task ended, whose run is put in its place."""
        import ray

        task = self._running.pop(reference)
        try:
            outcome: Outcome = ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            outcome = Outcome(task.name, "interrupted")
        except ray.exceptions.RayTaskError as error:
            told = " ".join(str(error.cause).split()) or type(error.cause).__name__
            outcome = Outcome(task.name, "failed", told, str(error))
        except ray.exceptions.RayError as error:
            told = f"Ray gave it up after {_RETRIES} retries: {type(error).__name__}"
            outcome = Outcome(task.name, "failed", told, f"{told}\n{error}")
        if outcome.token:
            place(self.folder, task.name, outcome.token)
        else:
            adopt(self.folder, task.name)
        settle(self.folder, outcome)
        return outcome

    def _stopped(self) -> list[Outcome]:
        """End the tasks that are left, in order as far as there is time; returns how those ended that had begun."""
        import ray

        left = list(self._running)
        for reference in left:
            ray.cancel(reference, recursive=False)
        deadline = time.monotonic() + PATIENCE
        while left and self._asked < 2 and time.monotonic() < deadline:
            _, left = ray.wait(left, num_returns=len(left), timeout=TICK)
        for reference in left:
            ray.cancel(reference, force=True, recursive=False)
        with suppress(ray.exceptions.RayError):
            ray.wait(left, num_returns=len(left), timeout=PATIENCE) if left else None
        outcomes = [self._taken(reference) for reference in list(self._running)]
        return [outcome for outcome in outcomes if outcome.token]

    def _warn_of_size(self) -> None:
        import ray

        most = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        if most < self.cpus:
            warnings.warn(
                f"no node of the cluster has {self.cpus:g} cores now (at most {most:g}): searches wait for one",
                stacklevel=2,
            )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """This process takes part in a Ray cluster; nothing if it does already, or without an address.

    Raises:
        MissingExtraError: no Ray.
        QasError: nothing answers there.
    """
    if address is None:
        yield
        return
    try:
        import ray
    except ImportError:
        raise MissingExtraError("a Ray cluster", "ray") from None
    if ray.is_initialized():
        yield
        return
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds
        told = " ".join(str(error).split())
        raise QasError(f"the Ray cluster {address!r} cannot be used: {told}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself takes minutes to find that nobody answers."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto" and its like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise QasError(f"no Ray cluster answers at {address}: {error}") from None


# ---------------------------------------------------------------------- on the nodes
def _attempt(task: Task, folder: str, how: dict[str, Any], board: Any) -> Outcome:
    """What a task does: one attempt at a search."""
    if not (Path(folder) / CAMPAIGN).is_file():
        raise _Unseen(f"node {socket.gethostname()} does not see the campaign's folder {folder}")
    own = new_attempt(Path(folder), task.name)
    next_post = 0.0

    def post(progress: Progress) -> None:
        nonlocal next_post
        if time.monotonic() >= next_post:
            next_post = time.monotonic() + _POST_EVERY
            with suppress(Exception):  # a display is not worth a search
                board.post.remote(task.name, progress)

    outcome = attempt(task, own, on_progress=post, **how)
    return outcome._replace(token=own.name if own.exists() else "")


@dataclass
class _Snapshots:
    """The actor with the last snapshot of each search."""

    latest: dict[str, Progress] = field(default_factory=dict)

    def post(self, name: str, progress: Progress) -> None:
        self.latest[name] = progress

    def take(self) -> dict[str, Progress]:
        latest, self.latest = self.latest, {}
        return latest


class _Board:
    """What searches tell while they run; nothing depends on it, and when its actor dies another takes its place."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._asked = ray, None
        remote = ray.remote(num_cpus=0, max_restarts=-1, max_pending_calls=100)(_Snapshots)
        self.actor = remote.remote()

    def look(self, names: set[str]) -> dict[str, Progress]:
        """Snapshots of those that run, as far as there are new ones; never waits."""
        told: dict[str, Progress] = {}
        with suppress(self._ray.exceptions.RayError):
            if self._asked is None:
                self._asked = self.actor.take.remote()
            if self._ray.wait([self._asked], timeout=0)[0]:
                answer, self._asked = self._asked, None
                told = self._ray.get(answer)
        return {name: progress for name, progress in told.items() if name in names}
