"""Workers of a campaign on this machine: processes that do searches one by one, and are replaced when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from qas.campaigns.running import Outcome, perform, settle
from qas.campaigns.study import Task
from qas.record import Progress
from qas.simulators.workers import LIMITS, cores

_DEATHS = 3
"""Workers that may die on one search before it is given up."""
PATIENCE = 20.0
"""Seconds that searches have to end in order."""
TICK = 0.25
"""Seconds between looks at the clock."""


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    task: Task | None = None


class Workers:
    """Does searches on several processes.

    Args:
        count: how many processes; they share the cores.
        folder: of the campaign.
        report: write each run's own report.
        callbacks: of every search, as of `qas.search`.
        tell: is called with the name of a search and a snapshot of it, a few times each second.
    """

    def __init__(
        self,
        count: int,
        folder: Path,
        *,
        tell: Callable[[str, Progress], None],
        report: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.count, self.folder, self.tell = count, folder, tell
        self._how = {"report": report, "callbacks": callbacks}
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}
        self._asked = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Do searches; yields how each ended, in the order in which they do.

        The first Ctrl-C lets those that run end where they can be gone on with, and begins no other; the second kills.

        Raises:
            RunError: the folder cannot be written.
        """
        waiting = deque(tasks)
        with counted_signals(self._signalled):
            try:
                with _threads(max(1, cores() // self.count)):
                    self._workers = [self._started() for _ in range(min(self.count, len(waiting)))]
                    for worker in self._workers:
                        self._give(worker, waiting)
                    while any(worker.task for worker in self._workers):
                        for outcome in self._heard(waiting):
                            settle(self.folder, outcome)
                            yield outcome
            finally:
                self._end()

    # ------------------------------------------------------------------ processes
    def _started(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, str(self.folder), self._how), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, waiting: deque[Task]) -> None:
        worker.task = None
        if waiting and not self._asked:
            worker.task = waiting.popleft()
            with suppress(OSError):  # one that has died is heard of
                worker.pipe.send(worker.task)

    def _heard(self, waiting: deque[Task]) -> Iterator[Outcome]:
        busy = [worker for worker in self._workers if worker.task]
        for pipe in wait([worker.pipe for worker in busy], timeout=TICK):
            worker = next(worker for worker in busy if worker.pipe is pipe)
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._replace(worker, waiting)
                continue
            assert worker.task is not None
            if isinstance(said, Outcome):
                self._give(worker, waiting)
                yield said
            else:
                self.tell(worker.task.name, said)

    def _replace(self, worker: _Worker, waiting: deque[Task]) -> Iterator[Outcome]:
        """A worker has died: its search goes on in a new one, unless it is what they die of."""
        task = worker.task
        assert task is not None
        worker.process.join()
        code = worker.process.exitcode
        self._deaths[task.name] = deaths = self._deaths.get(task.name, 0) + 1
        if self._asked:
            yield Outcome(task.name, "interrupted")
        elif deaths >= _DEATHS:
            told = f"{deaths} workers died on it, the last with exit code {code}"
            outcome = Outcome(task.name, "failed", told, told)
            settle(self.folder, outcome)
            yield outcome
        else:
            waiting.appendleft(task)
        self._workers.remove(worker)
        if waiting and not self._asked:
            self._workers.append(self._started())
            self._give(self._workers[-1], waiting)

    # ------------------------------------------------------------------ the end
    def _signalled(self) -> None:
        self._asked += 1
        for worker in self._workers:
            if worker.task and worker.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT if self._asked == 1 else signal.SIGKILL)

    def _end(self) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.send(None)
        deadline = time.monotonic() + (PATIENCE if self._asked < 2 else 0.0)
        for worker in self._workers:
            if worker.task and worker.process.is_alive() and not self._asked:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT)
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


@contextmanager
def _threads(each: int) -> Iterator[None]:
    """Processes that start inside use so many threads."""
    names = [*LIMITS, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(each)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def counted_signals(hear: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and TERM are handed to a function; outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: hear()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(pipe: Connection, folder: str, how: dict[str, Any]) -> None:
    """What a worker does: searches until it is told to end, or nobody is left to tell it."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal reaches all of its processes; the campaign hands it on
    threading.Thread(target=_follow_the_parent, daemon=True).start()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while (task := pipe.recv()) is not None:
            pipe.send(perform(task, Path(folder), on_progress=pipe.send, **how))


def _follow_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)
