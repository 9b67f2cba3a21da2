"""Acquisitions: which points to evaluate next, by what a surrogate believes of them.

To add one: subclass `Acquisition`, say how a point is scored, and register it (`qas.agents.pool.ACQUISITIONS`, or an
entry point in the group ``qas.acquisitions``)::

    class UpperBound(Acquisition):
        about = "mean plus some standard deviations"

        def __init__(self, *, deviations: float = 2.0) -> None:
            self.deviations = deviations

        def score(self, mean, std, target):
            return mean + self.deviations * std
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfcx, log_ndtr, ndtr

from qas.agents.pool.surrogates import Array, Choice, Positions, best_positions
from qas.checks import finite_number, whole_number
from qas.errors import QasError

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Acquisition(abc.ABC):
    """Ranks points; larger values are better. Its settings are keyword-only and it keeps nothing between choices."""

    about: ClassVar[str]
    """one line for lists"""
    shortlist: int = 1000
    """Best single points that a batch is made of, where points are not ranked one by one."""

    def target(self, values: Array) -> float:
        """What a point is to exceed, from the values told so far and in their unit; the best one unless overridden."""
        return float(values.max())

    @abc.abstractmethod
    def score(self, mean: Array, std: Array, target: float) -> Array:
        """What single points are ranked by; all arguments in standardised output."""

    def choose(self, among: Choice) -> Positions:
        """A batch of at most `among.count` positions; unless overridden those of the largest scores."""
        return self.best(among, among.count)

    def best(self, among: Choice, count: int) -> Positions:
        """Positions of the largest scores, largest first."""
        posterior, where = among.posterior, among.where
        scores = self.score(posterior.mean[where], posterior.std[where], among.target)
        return where[best_positions(scores, count)]


class LogExpectedImprovement(Acquisition):
    """Joint log expected improvement of the batch over the best value told; pending points count.

    Args:
        shortlist: points, best by themselves, that a batch is made of.
        samples: Monte Carlo samples of pending values; default 32 of the exact process, 128 of BoTorch's.
    """

    about = "joint log expected improvement of a batch"

    def __init__(self, *, shortlist: int = 1000, samples: int | None = None) -> None:
        self.shortlist = whole_number("shortlist", shortlist)
        self.samples = None if samples is None else whole_number("samples", samples)

    def score(self, mean: Array, std: Array, target: float) -> Array:
        return log_expected_improvement(mean, std, target)

    def choose(self, among: Choice) -> Positions:
        return among.posterior.improve(self.best(among, self.shortlist), among, self.samples)


class Thompson(Acquisition):
    """The best point of each of several joint draws from the posterior.

    Args:
        shortlist: points, best in expected improvement, that are drawn jointly.
    """

    about = "the best point of each of several joint posterior samples"

    def __init__(self, *, shortlist: int = 1000) -> None:
        self.shortlist = whole_number("shortlist", shortlist)

    def score(self, mean: Array, std: Array, target: float) -> Array:
        return log_expected_improvement(mean, std, target)

    def choose(self, among: Choice) -> Positions:
        short = self.best(among, self.shortlist)
        chosen: list[int] = []
        for sample in among.posterior.sample(short, min(among.count, len(short)), among.rng):
            sample[chosen] = -np.inf
            chosen.append(int(np.argmax(sample)))
        return short[chosen]


class LevelSet(Acquisition):
    """The largest P(value >= threshold).

    The expected number of hits of a batch is the sum of these, whatever the correlations, so the best batch is the top
    ones: conditioning on pending values would not change it.

    Args:
        threshold: in the unit of the values, which are minus the energies; default the `quantile` of the values told.
        quantile: see above, 0 to 1.
    """

    about = "the probability to reach a threshold"

    def __init__(self, *, threshold: float | None = None, quantile: float = 0.9) -> None:
        self.threshold = None if threshold is None else finite_number("threshold", threshold)
        self.quantile = finite_number("quantile", quantile)
        if not 0 <= self.quantile <= 1:
            raise QasError(f"quantile lies between 0 and 1, got {quantile!r}")

    def target(self, values: Array) -> float:
        return float(np.quantile(values, self.quantile)) if self.threshold is None else self.threshold

    def score(self, mean: Array, std: Array, target: float) -> Array:
        return log_probability_above(mean, std, target)


class Mean(Acquisition):
    """The largest posterior mean."""

    about = "the posterior mean"

    def score(self, mean: Array, std: Array, target: float) -> Array:
        return mean


# ---------------------------------------------------------------------- closed forms of one Gaussian
def log_expected_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """log E[max(f - best, 0)] for f ~ N(mean, std^2), accurate in the far tails; shapes broadcast.

    Where std is 0 it is log(mean - best), or -inf. Below -1 standard deviations phi + u Phi is phi times a factor that
    erfcx gives without cancellation, below -50 its asymptotic series (Ament et al., NeurIPS 2023, appendix).
    """
    mean, std, best = np.broadcast_arrays(np.asarray(mean, float), np.asarray(std, float), np.asarray(best, float))
    gain = mean - best
    with np.errstate(divide="ignore", invalid="ignore"):
        u = gain / std
        result = np.log(std) + _log_h(u)
        sure = np.log(np.maximum(gain, 0.0))
    return np.where(std > 0, result, sure)


def _log_h(u: Array) -> Array:
    """log(phi(u) + u Phi(u))."""
    out = np.empty(u.shape)
    high = u > -1.0
    x = u[high]
    out[high] = np.log(np.exp(-0.5 * x * x - _LOG_SQRT_2PI) + x * ndtr(x))
    x = np.abs(u[~high])
    square = x * x
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.log(np.maximum(1.0 - math.sqrt(math.pi / 2) * x * erfcx(x / math.sqrt(2)), 1e-300))
        far = -2.0 * np.log(x) + np.log1p((-3.0 + (15.0 - 105.0 / square) / square) / square)
    out[~high] = -0.5 * square - _LOG_SQRT_2PI + np.where(x < 50.0, near, far)
    return out


def log_probability_above(mean: ArrayLike, std: ArrayLike, threshold: float) -> Array:
    """log P(f >= threshold) for f ~ N(mean, std^2); 0 or -inf where std is 0."""
    mean, std = np.broadcast_arrays(np.asarray(mean, float), np.asarray(std, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(std > 0, log_ndtr((mean - threshold) / std), np.where(mean >= threshold, 0.0, -np.inf))
