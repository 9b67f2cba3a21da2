"""Statistics of runs that differ by their seed: bands, intervals of shares, differences of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qas.checks import whole_number
from qas.errors import QasError
from qas.runs import rounding


def interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half width of the interval of a mean at a confidence level (Student's t); NaN of fewer than two values."""
    if len(values) < 2:
        return float("nan")
    from scipy.special import stdtrit

    spread = float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    return float(stdtrit(len(values) - 1, (1 + level) / 2)) * spread / math.sqrt(len(values))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, (0, 1) if nothing was tried.

    Raises:
        QasError: `successes` is not a whole number from 0 to `trials`.

    References:
        E. B. Wilson, Journal of the American Statistical Association 22, 209 (1927).
    """
    trials = whole_number("trials", trials, 0)
    successes = whole_number("successes", successes, 0)
    if successes > trials:
        raise QasError(f"successes are at most the trials, got {successes} of {trials}")
    if not trials:
        return 0.0, 1.0
    z = 1.959963984540054
    share, weight = successes / trials, z * z / trials
    middle = share + weight / 2
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    low, high = ((middle + sign * half) / (1 + weight) for sign in (-1, 1))
    # At the ends the formula gives exactly 0 or 1, up to rounding.
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


class Band(NamedTuple):
    """Quartiles over seeds at each place of an axis; infinite where the seeds concerned have no value yet."""

    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def band(values: np.ndarray) -> Band:
    """Quartiles of each column, interpolated between neighbours as NumPy does, with room for infinite values.

    Args:
        values: shape (seeds, places), at least one seed; infinite where a seed has none.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    found = []
    for share in (0.25, 0.5, 0.75):
        place = share * (len(ordered) - 1)
        below, rest = int(place), place - int(place)
        lower = ordered[below]
        if rest:
            upper = ordered[below + 1]
            finite = np.isfinite(upper)
            step = np.where(finite, upper, 0.0) - np.where(np.isfinite(lower), lower, 0.0)
            lower = np.where(finite, lower + rest * step, np.inf)
        found.append(lower)
    return Band(*found)


def steps(at: np.ndarray, values: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """A step function on an axis: the last of `values` whose `at` is not larger; infinite before the first.

    Args:
        at: where the function changes, ascending.
        values: what it is from there on.
        axis: places to tell it at.
    """
    last = np.searchsorted(at, axis, side="right")
    return np.concatenate([[np.inf], values])[last]


class Difference(NamedTuple):
    """What pairs of runs with equal seeds say of two arms; negative: the first has the lower values."""

    pairs: int
    mean: float
    """of the differences"""
    half: float
    """half width of the 95 % interval of `mean`; NaN of a single pair"""
    better: int
    """pairs in which the first is lower, by more than rounding"""
    worse: int


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Differences first - second of what both have a value for; None if there is no such pair."""
    both = sorted(first.keys() & second.keys())
    if not both:
        return None
    gaps = [first[key] - second[key] for key in both]
    beyond = [gap for gap, key in zip(gaps, both, strict=True) if abs(gap) > rounding(first[key])]
    better, worse = (sum(sign * gap < 0 for gap in beyond) for sign in (1, -1))
    return Difference(len(gaps), float(np.mean(gaps)), interval(gaps), better, worse)
