"""Threads that work on many things at once, and hand back the results in order.

Compiled code runs without the GIL, so that threads use all cores on it, share what is cached, and cost nothing to start
with. A thread keeps its scratch memory from one batch to the next, so threads are kept too.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from qas.checks import whole_number
from qas.simulators import interrupt

Item = TypeVar("Item")
Result = TypeVar("Result")

_HELD = 2e-3
"""Seconds that items done together may take."""

_PATIENCE = 0.2
"""Seconds after which the owner lets Python look for signals."""

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


@functools.cache
def memory_limit() -> int:
    """Bytes of memory in this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 34


def worker_count(workers: int | None = None, bytes_each: int = 0) -> int:
    """How many threads work on a batch: as many as told, or one for each core; one inside such a thread.

    Args:
        workers: what is told.
        bytes_each: memory that each may take; together they take no more than half the machine's.

    Raises:
        QasError: not a whole number of at least 1.
    """
    count = cores() if workers is None else whole_number("workers", workers, 1, 1024)
    if in_worker():
        return 1
    return min(count, max(1, memory_limit() // 2 // bytes_each)) if bytes_each else count


class _Here(threading.local):
    working = False


_here = _Here()


def in_worker() -> bool:
    """Whether this thread is one of several that work at once, or told to use one core; then it starts none itself."""
    return _here.working


class _Worker(threading.Thread):
    """A thread that waits for the next batch when it is done with one."""

    def __init__(self) -> None:
        super().__init__(name="qas-worker", daemon=True)
        self.batches: queue.SimpleQueue[_Batch[Any, Any] | _Errand] = queue.SimpleQueue()

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


class _Errand:
    """One thing for one thread to do."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work

    def left(self) -> None:
        """Nobody waits."""


def lend(work: Callable[[], None]) -> None:
    """Let a thread do something that raises nothing."""
    _borrowed().batches.put(_Errand(work))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


class _Part(Generic[Item, Result]):
    """Items that one thread works on, one after the other."""

    __slots__ = ("done", "found", "items", "seconds")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.found: list[Result | _Raised] = []
        self.seconds = 0.0
        self.done = False


class _Raised(NamedTuple):
    error: BaseException


class _Batch(Generic[Item, Result]):
    """Parts that some threads take in order, and the one that their owner waits for."""

    def __init__(self, work: Callable[[list[Item]], list[Result | _Raised]], workers: int) -> None:
        self._work = work
        self._owner = interrupt.current()
        self._stop = self._owner.heir()
        self._parts: queue.SimpleQueue[_Part[Item, Result] | None] = queue.SimpleQueue()
        self._wanted: _Part[Item, Result] | None = None
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._gone: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._most = workers
        self._workers = 0

    # ------------------------------------------------------------------ what the threads do
    def work(self) -> None:
        with interrupt.lent(self._stop):
            while (part := self._parts.get()) is not None:
                begin = time.perf_counter()
                part.found = self._work(part.items)
                part.seconds = time.perf_counter() - begin
                part.done = True
                if self._wanted is part:
                    self._news.put(None)

    def left(self) -> None:
        self._gone.put(None)

    # ------------------------------------------------------------------ what the owner does
    def add(self, items: list[Item]) -> _Part[Item, Result]:
        part: _Part[Item, Result] = _Part(items)
        self._parts.put(part)
        if self._workers < self._most:
            self._workers += 1
            _borrowed().batches.put(self)
        return part

    def wait(self, part: _Part[Item, Result]) -> None:
        # Either the thread sees that its part is wanted, or the owner that it is done.
        self._wanted = part
        while not part.done:
            with suppress(queue.Empty):  # a signal that another thread receives does not end the wait of this one
                self._news.get(timeout=_PATIENCE)

    def close(self) -> None:
        """Stop what is not done, and see the threads off."""
        try:
            self._stop.request("cancelled")
            for _ in range(self._workers):
                self._parts.put(None)
            for _ in range(self._workers):
                self._gone.get()
        finally:
            self._owner.disown(self._stop)


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    one_core: bool = False,
    ahead: int | None = None,
    together: Callable[[list[Item]], list[Result | Exception]] | None = None,
    most_together: int = 1,
) -> Generator[Result, None, None]:
    """The results of a function on items, worked on by several threads, in the order of the items.

    Items are taken in this thread, in order, each before its turn to be worked on. The first error, in the order of the
    items, is raised here. What this thread is told by `qas.simulators.interrupt` its workers hear. A generator that is
    closed early, or left by an error, stops what is in work.

    Args:
        function: safe to call in several threads at once; the more of it is compiled, the more is gained.
        items: may be endless.
        workers: threads; with one the work is done in this thread, item by item.
        one_core: with one thread large circuits are not shared by several either, as their user said ``workers=1``.
        ahead: items taken beyond the one whose result comes next; default 4 parts for each thread.
        together: does several short items in one call that holds the GIL for less time; what it returns for each is
            the result of `function`, or the exception.
        most_together: how many of them make a part.
    """
    if workers <= 1:
        yield from map(_on_one_core(function) if one_core else function, items)
        return
    batch = _Batch(_one_by_one(function) if together is None else _together(function, together), workers)
    waiting: deque[_Part[Item, Result]] = deque()
    source, size, held = _Source(items), 1, 0
    try:
        while True:
            most = 4 * workers * size if ahead is None else max(1, ahead)
            while held < most and (taken := source.take(min(size, most - held))):
                waiting.append(batch.add(taken))
                held += len(taken)
            if not waiting:
                source.check()
                return
            part = waiting.popleft()
            batch.wait(part)
            each = part.seconds / len(part.items)
            size = max(1, min(2 * size, most_together, int(_HELD / (each + 1e-9))))
            held -= len(part.items)
            for found in part.found:
                if isinstance(found, _Raised):
                    raise found.error
                yield found
    finally:
        batch.close()


def _on_one_core(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    def work(item: Item) -> Result:
        before, _here.working = _here.working, True
        try:
            return function(item)
        finally:
            _here.working = before

    return work


class _Source(Generic[Item]):
    """Items taken a few at a time; an error of theirs waits until the results before it are out."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._error: BaseException | None = None

    def take(self, count: int) -> list[Item]:
        taken: list[Item] = []
        if self._error is None:
            try:
                taken.extend(islice(self._items, count))
            except Exception as error:
                self._error = error
        return taken

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def _one_by_one(function: Callable[[Item], Result]) -> Callable[[list[Item]], list[Result | _Raised]]:
    def work(items: list[Item]) -> list[Result | _Raised]:
        found: list[Result | _Raised] = []
        for item in items:
            try:
                found.append(function(item))
            except BaseException as error:  # the owner raises it
                found.append(_Raised(error))
        return found

    return work


def _together(
    function: Callable[[Item], Result], together: Callable[[list[Item]], list[Result | Exception]]
) -> Callable[[list[Item]], list[Result | _Raised]]:
    alone = _one_by_one(function)

    def work(items: list[Item]) -> list[Result | _Raised]:
        if len(items) == 1:
            return alone(items)
        try:
            return [_Raised(found) if isinstance(found, Exception) else found for found in together(items)]
        except BaseException as error:
            return [_Raised(error)] * len(items)

    return work
