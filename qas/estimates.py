"""What a piece of work takes at least, compared with what this machine has before anything is begun."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from qas.errors import TooLargeError
from qas.simulators.workers import memory_limit

LONGEST = 86_400.0
"""Seconds that one piece of work may take: a day."""

_LIMITS = ("memory.max", "memory.current")


def free_memory() -> int:
    """Bytes that this process may still take: what the system has to give, within the limit of its control group."""
    free = memory_limit()
    with suppress(OSError, AttributeError):
        told = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        free = min(free, 1024 * int(told[1]))  # type: ignore[index]
    with suppress(OSError, ValueError):
        most, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in _LIMITS)
        free = min(free, most - used)
    return max(free, 0)


def affordable(what: str, *, memory: float = 0.0, seconds: float = 0.0, instead: str = "") -> None:
    """Refuse work that cannot be done here.

    Args:
        what: the work, plural or singular as the message begins: ``"a pool of 10 circuits takes"``.
        memory: bytes that it takes at least.
        seconds: that it takes at least.
        instead: what to give instead.

    Raises:
        TooLargeError: more memory than is free, or more than a day; the message says how much.
    """
    hint = instead and f"; {instead}"
    if memory > 1e8 and memory > free_memory():  # little is there, always
        raise TooLargeError(f"{what} at least {memory / 1e9:.3g} GB, and {free_memory() / 1e9:.3g} GB are free{hint}")
    if seconds > LONGEST:
        raise TooLargeError(f"{what} at least {seconds / LONGEST:.3g} days, and a day is the most{hint}")
