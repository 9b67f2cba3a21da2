"""Values that no honest caller gives, and ways to spoil data and text."""

# ruff: noqa: E501 - lists of inputs

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np

Rng = np.random.Generator

NUMBERS: list[Any] = [
    0, -0.0, 1, -1, 2, 3, 0.5, 1e-12, 1e-300, 5e-324, 1e150, 1e300, 1.7e308, math.inf, -math.inf, math.nan, 2**31,
    2**63 - 1, 2**63, -(2**63), 2**64, 10**19, 10**30, 10**400, -(10**400), 1 + 1j, complex(math.nan, 0), True, False,
    np.float32(0.25), np.float64("nan"), np.int64(-5), np.uint8(255), np.bool_(True), np.complex128(1j),
]  # fmt: skip
OTHERS: list[Any] = [
    None, "", "a", "1", "nan", "1e400", "\x00", "\n", "$\\frac{$", "é" * 200, "a" * 100_000, "\ud800", b"1", [], [1], [[]], {}, {"a": 1},
    (), (1, 2), {1, 2}, frozenset(), object(), int, len, [None], ["a", "b"], [[1, 2], [3]], [[math.nan] * 4] * 4, range(3), Ellipsis,
    np.zeros(0), np.zeros((4, 4)), np.eye(4) * 1e300, np.array("a"), np.array([1 + 1j]), np.array(None),
]  # fmt: skip
JSON_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 10**9, 2**63, -(2**70), 10**60, 0.5, -1e-9, 1e300, 1e-320, "", "a", "NaN", "1", "$\\foo{$",
    "a" * 5000, [], [1], [[]], [None], ["x"], {}, {"a": 1}, [[1, 2], [3, 4]], [[0, 1, 2]], [[[[[[[[1]]]]]]]], {"version": 2},
]  # fmt: skip
RAW = [
    "[" * 200_000, '{"a":' * 50_000, "1" * 5000, "Infinity", "-Infinity", "NaN", "1e400", "-1e999999", "[" * 100 + "]" * 100,
    '"\\ud800"', "nul", "{", "", '"', "\x00", "1.0.0", "0x10", "[1,]", "1" * 70, "\ufeff{}",
]  # fmt: skip
"""Pieces of JSON that a reader must survive; some are none."""


def pick(rng: Rng, values: list[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def value(rng: Rng) -> Any:
    """Anything."""
    if rng.random() < 0.15:
        return float(rng.normal() * 10.0 ** rng.integers(-30, 30))
    return pick(rng, NUMBERS if rng.random() < 0.6 else OTHERS)


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(data, dict):
        for key in data:
            found += _paths(data[key], (*path, key))
    elif isinstance(data, list):
        for k in range(min(len(data), 3)):
            found += _paths(data[k], (*path, k))
    return found


def spoilt(data: Any, rng: Rng) -> str:
    """JSON text of the data with something wrong: in the structure, or in the text."""
    data = copy.deepcopy(data)
    kind = rng.random()
    paths = _paths(data)
    if kind < 0.75 and paths:
        raw: dict[str, str] = {}
        for _ in range(int(rng.integers(1, 3))):
            paths = _paths(data)
            if not paths:
                break
            # Shallow places are rarer than deep ones, and matter more.
            path = min((pick(rng, paths) for _ in range(2)), key=len)
            owner = data
            for step in path[:-1]:
                owner = owner[step]
            act = rng.random()
            if act < 0.2:
                del owner[path[-1]]
            elif act < 0.35:
                mark = f"RAW{len(raw)}"
                owner[path[-1]], raw[f'"{mark}"'] = mark, pick(rng, RAW)
            elif isinstance(owner[path[-1]], (int, float)) and act < 0.6:
                owner[path[-1]] = pick(
                    rng, [-owner[path[-1]] - 1, owner[path[-1]] * 10**12, float(owner[path[-1]]) + 0.5, -1, 10**9]
                )
            else:
                owner[path[-1]] = pick(rng, JSON_VALUES)
        text = json.dumps(data)
        for mark, piece in raw.items():
            text = text.replace(mark, piece)
        return text
    return torn(json.dumps(data), rng)


def torn(text: str, rng: Rng) -> str:
    """Text that is cut, doubled, or has other characters in it."""
    if not text:
        return pick(rng, RAW)
    act, place = rng.random(), int(rng.integers(len(text)))
    if act < 0.25:
        return text[:place]
    if act < 0.4:
        return text[:place] + pick(rng, RAW) + text[place:]
    if act < 0.5:
        return pick(rng, RAW)
    letters = list(text)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(letters)))
        letters[at] = pick(rng, ["", "9", "-", '"', "{", "]", ",", ";", "\x00", "e", "é", letters[at] * 3, "\n"])
    return "".join(letters)
