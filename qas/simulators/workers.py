"""Threads that work on many things at once, and hand back the results in order.

Compiled code runs without the GIL, so that threads use all cores on it, share what is cached, and cost nothing to start
with. A thread keeps its scratch memory from one batch to the next, so threads are kept too.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from qas.checks import whole_number
from qas.simulators import interrupt

Item = TypeVar("Item")
Result = TypeVar("Result")

LIMITS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables that say how many threads a program may use; the smallest counts."""


def cores() -> int:
    """Cores that this process may use: by its affinity, and by `LIMITS`."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    for name in LIMITS:
        with suppress(ValueError):
            count = min(count, max(1, int(os.environ.get(name, "").split(",")[0])))
    return count


def worker_count(workers: int | None = None) -> int:
    """How many threads work on a batch: as many as told, or one for each core; one inside such a thread.

    Raises:
        QasError: not a whole number of at least 1.
    """
    if in_worker():
        return 1
    return cores() if workers is None else whole_number("workers", workers)


class _Here(threading.local):
    working = False


_here = _Here()


def in_worker() -> bool:
    """Whether this thread is one of several that work at once; then it starts none of its own."""
    return _here.working


class _Worker(threading.Thread):
    """A thread that waits for the next batch when it is done with one."""

    def __init__(self) -> None:
        super().__init__(name="qas-worker", daemon=True)
        self.batches: queue.SimpleQueue[_Batch[Any, Any]] = queue.SimpleQueue()

    def run(self) -> None:
        _here.working = True
        while True:
            batch = self.batches.get()
            batch.work()
            batch.left()
            del batch  # with all it refers to
            _idle.append(self)


_idle: deque[_Worker] = deque()


def _borrowed() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        worker = _Worker()
        worker.start()
        return worker


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


class _Job(Generic[Item, Result]):
    __slots__ = ("done", "error", "item", "result")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.done = False


class _Batch(Generic[Item, Result]):
    """Jobs that some threads take in order, and the one that their owner waits for."""

    def __init__(self, function: Callable[[Item], Result], workers: int) -> None:
        self.function = function
        self._owner = interrupt.current()
        self.stop = self._owner.heir()
        self._jobs: queue.SimpleQueue[_Job[Item, Result] | None] = queue.SimpleQueue()
        self._wanted: _Job[Item, Result] | None = None
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._gone: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._most = workers
        self._workers = 0

    # ------------------------------------------------------------------ what the threads do
    def work(self) -> None:
        with interrupt.lent(self.stop):
            while (job := self._jobs.get()) is not None:
                try:
                    job.result = self.function(job.item)
                except BaseException as error:  # the owner raises it
                    job.error = error
                job.done = True
                if self._wanted is job:
                    self._news.put(None)

    def left(self) -> None:
        self._gone.put(None)

    # ------------------------------------------------------------------ what the owner does
    def add(self, item: Item) -> _Job[Item, Result]:
        job: _Job[Item, Result] = _Job(item)
        self._jobs.put(job)
        if self._workers < self._most:
            self._workers += 1
            _borrowed().batches.put(self)
        return job

    def wait(self, job: _Job[Item, Result]) -> None:
        # Either the thread sees that its job is wanted, or the owner that it is done.
        self._wanted = job
        while not job.done:
            self._news.get()

    def close(self) -> None:
        """Stop what is not done, and see the threads off."""
        try:
            self.stop.request("cancelled")
            for _ in range(self._workers):
                self._jobs.put(None)
            for _ in range(self._workers):
                self._gone.get()
        finally:
            self._owner.disown(self.stop)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """The results of a function on items, worked on by several threads, in the order of the items.

    Items are taken in this thread, in order, each before its turn to be worked on. The first error, in the order of the
    items, is raised here. What this thread is told by `qas.simulators.interrupt` its workers hear. A generator that is
    closed early, or left by an error, stops what is in work.

    Args:
        function: safe to call in several threads at once; the more of it is compiled, the more is gained.
        items: may be endless.
        workers: threads; with one the work is done in this thread, item by item.
        ahead: items taken beyond the one whose result comes next; default 16 for each thread.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    waiting: deque[_Job[Item, Result]] = deque()
    batch: _Batch[Item, Result] = _Batch(function, workers)
    source, most = iter(items), 16 * workers if ahead is None else max(1, ahead)
    ended = False
    try:
        while True:
            while not ended and len(waiting) < most:
                try:
                    item = next(source)
                except StopIteration:
                    ended = True
                else:
                    waiting.append(batch.add(item))
            if not waiting:
                return
            job = waiting.popleft()
            batch.wait(job)
            if job.error is not None:
                raise job.error
            yield job.result  # type: ignore[misc]
    finally:
        batch.close()
