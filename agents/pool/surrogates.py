"""Surrogates: what is believed of the value of every point, from the values seen so far.

A *posterior* is what a surrogate believes of certain points at one moment, all in standardised output (`standard` turns
values into it). It gives the moments of single points, and knows how to draw jointly and how to build a batch of large
expected improvement; acquisitions (`qas.agents.pool.acquisitions`) choose by it.

To add one: subclass `Surrogate`, give it keyword-only options, and register it (`qas.agents.pool.SURROGATES`, or an
entry point in the group ``qas.surrogates``).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Positions = NDArray[np.intp]


def standard_units(x: NDArray[np.floating]) -> tuple[Array, Array]:
    """Mean and standard deviation (d,) of each column; 1 for a column that is constant."""
    centre = x.mean(axis=0, dtype=np.float64)
    spread = x.std(axis=0, dtype=np.float64)
    return centre, np.where(spread > 1e-9 * np.maximum(1.0, np.abs(centre)), spread, 1.0)


def best_positions(scores: Array, count: int) -> Positions:
    """Positions of the `count` largest scores, largest first, of equal ones the first; NaN is not allowed."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, dtype=np.intp)
    among = np.argpartition(-scores, count - 1)[:count]
    return among[np.lexsort((among, -scores[among]))]


class Observed(Protocol):
    """Points told so far: an array, or what gives arrays where a slice is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> NDArray[np.floating]: ...


class Posterior(abc.ABC):
    """What a surrogate believes of m points."""

    mean: Array
    """(m,)"""
    std: Array
    """(m,), positive"""

    @abc.abstractmethod
    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        """Joint draws of the values of some points, (count, len(where))."""

    def improve(self, short: Positions, among: Choice, samples: int | None) -> Positions:
        """Up to `among.count` points that together promise the largest improvement over the target.

        Args:
            short: positions to choose from, those of the largest expected improvement first.
            among: target, size of the batch, pending points, source of draws.
            samples: draws of values, where draws are needed; None: as many as are usual for the surrogate.

        A posterior that knows nothing of how points hang together takes the first ones.
        """
        return short[: among.count]


@dataclass(frozen=True)
class Choice:
    """What an acquisition chooses among."""

    posterior: Posterior
    """of all points"""
    where: Positions
    """those that may be chosen"""
    target: float
    """in standardised output"""
    count: int
    """size of the batch"""
    rng: np.random.Generator
    """source of every random choice"""
    pending: Array
    """(p, d), points that are being evaluated, as they were given to the surrogate"""


class Surrogate(abc.ABC):
    """A model of values over points; one instance serves one search at a time.

    Between `prepare` and the end of a search, points and values are always those told so far, in the order told.
    """

    about: ClassVar[str]
    """one line for lists"""
    candidates: int | None = None
    """Points of a larger pool that carry a posterior; None: all of them do."""
    candidates_growth: float = np.inf
    """Growth of the observations after which these are chosen anew."""

    @abc.abstractmethod
    def prepare(self, points: ArrayLike) -> None:
        """Forget everything; the points (N, d) of the pool set the units."""

    @abc.abstractmethod
    def learn(self, points: Observed, values: Array, rng: np.random.Generator, *, thorough: bool = False) -> bool:
        """Take in what was told.

        Args:
            points: (n, d), n at least 2.
            values: (n,), larger is better.
            rng: source of every random choice.
            thorough: fits may take longer, as where every circuit that is proposed is new.

        Returns:
            Whether posteriors made before are of no use any more.
        """

    def standard(self, value: float) -> float:
        """A value in the unit of posteriors."""
        return value

    @abc.abstractmethod
    def posterior(self, points: NDArray[np.floating]) -> Posterior:
        """Of the points (m, d) of a pool; kept up to date until `learn` returns True."""

    def posterior_once(self, points: NDArray[np.floating]) -> Posterior:
        """Of points (m, d) that are looked at once."""
        return self.posterior(points)

    def moments(self, points: NDArray[np.floating]) -> tuple[Array, Array]:
        """Mean and standard deviation of very many points (m, d), in standardised output; may be rough."""
        found = self.posterior_once(points)
        return found.mean, found.std

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `restore` needs beside points and values: a JSON-able dict, and arrays by name."""
        return {}, {}

    def restore(  # noqa: B027 - what learns anew every time keeps nothing
        self,
        state: dict[str, Any],
        arrays: dict[str, np.ndarray],
        points: Observed,
        values: Array,
        after: Callable[[int], None],
    ) -> None:
        """Take over what `state` returned.

        Args:
            state, arrays: as returned, perhaps with more beside it.
            points, values: told so far.
            after: is called with the number of observations after each step at which posteriors can be made again.
        """
