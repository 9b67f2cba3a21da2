"""Bayesian optimization over a pool: a surrogate on every point, an acquisition that chooses batches among them."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qas.agents.pool import ACQUISITIONS, SURROGATES
from qas.agents.pool.acquisitions import Acquisition
from qas.agents.pool.searchers import Indices, PoolSearcher, squared_distances
from qas.agents.pool.surrogates import Array, Choice, Posterior, Surrogate, best_positions, standard_units
from qas.checks import whole_number

SurrogateLike = str | dict[str, Any] | type[Surrogate] | Surrogate
AcquisitionLike = str | dict[str, Any] | type[Acquisition] | Acquisition


def spread_design(points: NDArray[np.floating], among: Indices, count: int, rng: np.random.Generator) -> Indices:
    """First points to evaluate, spread by k-means++: each in proportion to the squared distance from those taken.

    Args:
        points: (N, d), in units that are alike.
        among: points that may be taken.
        count: how many.
    """
    count, x = min(count, len(among)), points[among]
    left = np.ones(len(among), dtype=bool)
    nearest = np.full(len(among), np.inf)
    chosen = [int(rng.integers(len(among)))]
    while len(chosen) < count:
        left[chosen[-1]] = False
        nearest = np.minimum(nearest, squared_distances(x, x[chosen[-1]]))
        weight = np.where(left, nearest, 0.0)
        if weight.sum() <= 0:  # only copies of the points taken are left
            weight = left.astype(float)
        chosen.append(int(rng.choice(len(among), p=weight / weight.sum())))
    return among[chosen]


class BayesianSearcher(PoolSearcher):
    """A surrogate and an acquisition; a batch of `batch` points per ask. Before two points are told it is random.

    A surrogate of which only `candidates` points can carry a posterior gets them chosen anew whenever the observations
    have grown by `candidates_growth`: four fifths by score over the whole pool, one fifth at random as a guard against
    a wrong model. A pool of at most that many points is its own candidate set, and nothing is approximate then.

    Args:
        surrogate: a name of `qas.agents.pool.SURROGATES`, a class, an instance, or settings with their ``name``.
        acquisition: likewise of `qas.agents.pool.ACQUISITIONS`.
        batch: points per ask.
        initial: points of the first batch, spread over the pool.

    Raises:
        QasError: an option out of its range.
    """

    name: ClassVar[str] = "bo"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        surrogate: SurrogateLike = "gp",
        acquisition: AcquisitionLike = "log-ei",
        batch: int = 5,
        initial: int = 16,
    ) -> None:
        super().__init__(points, rng)
        self.surrogate: Surrogate = copy.copy(SURROGATES.make(surrogate, Surrogate))  # it is changed here
        self.acquisition: Acquisition = ACQUISITIONS.make(acquisition, Acquisition)
        self.batch, self.initial = whole_number("batch", batch), whole_number("initial", initial)
        self._forget()

    def _forget(self) -> None:
        self.surrogate.prepare(self.points)
        self._posterior: Posterior | None = None
        self._candidates = np.empty(0, dtype=np.int64)
        self._n_screen = 0  # observations when the candidates were chosen

    # ------------------------------------------------------------------ choosing
    def _choose(self) -> Indices:
        if self._n_seen < self.initial:
            centre, scale = standard_units(self.points)
            x = ((self.points - centre) / scale).astype(np.float32)
            return spread_design(x, np.flatnonzero(self._open), self.initial - self._n_seen, self.rng)
        if len(self._told) < 2:
            return self._random_open(self.batch)
        anew = self.surrogate.learn(*self._observations(), self.rng)
        target = self.surrogate.standard(self.acquisition.target(np.array(self._values)))
        if anew or self._posterior is None or self._candidates_are_worn():
            self._choose_candidates(target)
        assert self._posterior is not None
        where = np.flatnonzero(self._open[self._candidates])
        among = Choice(self._posterior, where, target, self.batch, self.rng, np.asarray(self.points[self._pending]))
        return self._candidates[self.acquisition.choose(among)]

    def _observations(self) -> tuple[NDArray[np.floating], Array]:
        return self.points[self._told], np.array(self._values)

    def _candidates_are_worn(self) -> bool:
        if len(self._candidates) == len(self):
            return False
        left = np.count_nonzero(self._open[self._candidates])
        few = left < min(self.n_open, self.acquisition.shortlist + self.batch)
        return bool(few) or len(self._told) >= self.surrogate.candidates_growth * self._n_screen

    def _choose_candidates(self, target: float) -> None:
        most = self.surrogate.candidates
        if most is None or len(self) <= most:
            self._candidates = np.arange(len(self))
        else:
            left = np.flatnonzero(self._open)
            mean, std = self.surrogate.moments(self.points)
            keep = best_positions(self.acquisition.score(mean[left], std[left], target), most - most // 5)
            others = np.ones(len(left), dtype=bool)
            others[keep] = False
            rest = left[others]
            lucky = self.rng.choice(rest, size=min(most - len(keep), len(rest)), replace=False)
            self._candidates = np.sort(np.concatenate([left[keep], lucky]))
        self._n_screen = len(self._told)
        self._posterior = self.surrogate.posterior(self.points[self._candidates])

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        own, more = self.surrogate.state()
        state |= own | {"n_screen": self._n_screen}
        return state, arrays | more | ({"candidates": self._candidates.copy()} if more else {})

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        former = {"botorch": self.name, "dngo": self.name}  # searchers of their own, once
        super().restore(dict(state) | {"searcher": former.get(state["searcher"], state["searcher"])}, arrays)
        self._forget()
        self._n_screen = int(state.get("n_screen", 0))
        self._candidates = arrays.get("candidates", self._candidates).astype(np.int64)

        def after(size: int) -> None:
            if size == self._n_screen:
                self._posterior = self.surrogate.posterior(self.points[self._candidates])

        self.surrogate.restore(state, arrays, *self._observations(), after)
