"""Gradients in little memory: which states are kept, and which are calculated again.

Where noise cannot be undone, the reverse sweep needs the states themselves. A program that would keep too many is cut
into segments, each of which keeps little. Some states between segments are copied to slots; for the others the circuit
is run again from the nearest slot. With s slots and r runs over each segment (s + r) choose s segments can be reversed
(Griewank and Walther, ACM Trans. Math. Softw. 26, 19, 2000: "revolve").
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

import numpy as np

from qas.simulators import _ptm_program as programs

Action = tuple[int, int, int, int]


class _Schedule:
    def __init__(self, steps: np.ndarray, room: int) -> None:
        header = steps[0]
        count = int(header[programs.N_STEPS])
        segment = steps[1 : count + 1, programs.SEGMENT]
        self.ends = [0, *(1 + np.flatnonzero(np.diff(segment))).tolist(), count]
        self.live = [_live(steps, end) for end in self.ends]
        sizes = [sum(size for _, size in vectors) for vectors in self.live[1:-1]]
        self.slot_size = max(sizes, default=1)
        self.first_slot = int(header[programs.KET_SIZE] + header[programs.HOME_SIZE])
        self.slots = min(max(0, room - self.first_slot) // self.slot_size, len(sizes))

    def saved(self, segment: int, slot: int) -> Iterator[Action]:
        """Copy the vectors before a segment from their homes to a slot."""
        return ((programs.COPY, home, place, size) for home, place, size in self._places(segment, slot))

    def restored(self, segment: int, slot: int) -> Iterator[Action]:
        """The way back. Before the first segment there are no vectors."""
        return ((programs.COPY, place, home, size) for home, place, size in self._places(segment, slot))

    def _places(self, segment: int, slot: int) -> Iterator[tuple[int, int, int]]:
        place = self.first_slot + slot * self.slot_size
        for home, size in self.live[segment]:
            yield home, place, size
            place += size

    def run(self, kind: int, first: int, last: int) -> Action:
        """An action on the segments before `last`, from `first` on."""
        return kind, self.ends[first] + 1, self.ends[last], 0

    def reversed(self, first: int, last: int, held: int, free: int) -> Iterator[Action]:
        """Reverse the segments before `last`, from `first` on, whose vectors are at home and in slot `held`.

        Args:
            free: the first slot that is free; so are those behind it.
        """
        while last - first > 1 and free < self.slots:
            middle = first + _advance(last - first, self.slots - free)
            yield self.run(programs.ADVANCE, first, middle)
            yield from self.saved(middle, free)
            yield from self.reversed(middle, last, free, free + 1)
            yield from self.restored(first, held)
            last = middle
        for segment in range(last - 1, first - 1, -1):
            if segment > first:
                yield self.run(programs.ADVANCE, first, segment)
            yield self.run(programs.KEEP, segment, segment + 1)
            yield self.run(programs.REVERSE, segment, segment + 1)
            if segment > first:
                yield from self.restored(first, held)


def _live(steps: np.ndarray, end: int) -> list[tuple[int, int]]:
    """Where each group's vector is at home after a step, and its size."""
    vectors: dict[int, tuple[int, int]] = {}
    for step in steps[1 : end + 1].tolist():
        if step[programs.TYPE] == programs.JOIN:
            del vectors[step[programs.OTHER_GROUP]]
        digits = step[programs.DIGITS]
        vectors[step[programs.GROUP]] = step[programs.HOME], 16 if digits == 1 else 4 ** max(digits, 4)
    return list(vectors.values())


def _advance(segments: int, slots: int) -> int:
    """How many of the segments to go ahead before the next slot is filled."""
    runs = 1
    while comb(slots + runs, slots) < segments:
        runs += 1
    return min(max(1, segments - comb(slots - 1 + runs, slots - 1)), segments - 1)


def actions(steps: np.ndarray, room: int) -> np.ndarray:
    """What calculates the gradient, shape (actions, 4); the header of `steps` then says what memory it takes.

    Args:
        steps: of a program, divided into segments by `_ptm_program.place_kets`.
        room: numbers that all vectors together may take, if it can be done with so few.
    """
    schedule = _Schedule(steps, room)
    found = np.array(list(schedule.reversed(0, len(schedule.ends) - 1, 0, 0)), dtype=np.int64)
    steps[0, programs.N_ACTIONS] = len(found)
    steps[0, programs.SLOTS_SIZE] = schedule.slots * schedule.slot_size
    return found
