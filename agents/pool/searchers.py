"""Pool searchers: which points of a fixed pool to evaluate next, from their embeddings and the values seen so far.

They know nothing of circuits: a pool is an array of points, larger values are better. The loop around them is

    while len(batch := searcher.ask()):
        searcher.tell(batch, values_of(batch))

A searcher owns the record of what was asked and told; a subclass only chooses. Most ideas are a surrogate or
an acquisition of `qas.agents.pool.bayesian.BayesianSearcher`; for another kind subclass `PoolSearcher`, and
`qas.agents.pool.agent.PoolAgent` to search circuits with it.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qas.agents.base import restore_rng, rng_state
from qas.checks import whole_number
from qas.errors import QasError

Indices = NDArray[np.int64]


def checked_points(points: ArrayLike) -> NDArray[np.floating]:
    """Pool points as a 2-D float array without copying one that is already float32 or float64.

    Raises:
        QasError: not two-dimensional, empty, or not finite.
    """
    try:
        array = np.asarray(points)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise QasError("pool points form an array of numbers with one row per point") from None
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 1:
        raise QasError(f"pool points form an array (N, d) with N and d at least 1, got shape {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        raise QasError(f"pool points are finite numbers, got {int(bad.sum())} that are not, the first at index {first}")
    return array


def squared_distances(points: NDArray[np.floating], point: NDArray[np.floating]) -> NDArray[np.float64]:
    """Squared L2 distances (N,) from every row of `points` (N, d) to `point` (d,), without cancellation."""
    difference = points - point
    return np.einsum("ij,ij->i", difference, difference).astype(np.float64, copy=False)


class PoolSearcher(abc.ABC):
    """Chooses which points of a pool to evaluate next; larger values are better.

    Args:
        points: float (N, d), finite; not copied and never changed.
        rng: source of every random choice; used by this searcher alone from now on.

    Raises:
        QasError: `points` is not such an array, or an option is out of its range.
    """

    name: ClassVar[str]
    """as saved states have it"""

    def __init__(self, points: ArrayLike, rng: np.random.Generator) -> None:
        self.points = checked_points(points)
        self.rng = rng
        self._open = np.ones(len(self.points), dtype=bool)
        self._was_told = np.zeros(len(self.points), dtype=bool)
        self._pending: list[int] = []
        self._told: list[int] = []
        self._values: list[float] = []

    # ------------------------------------------------------------------ the record
    def __len__(self) -> int:
        return len(self.points)

    @property
    def n_open(self) -> int:
        """Points that may still be asked."""
        return int(np.count_nonzero(self._open))

    @property
    def pending(self) -> Indices:
        """Points asked and not yet told, in the order asked."""
        return np.array(self._pending, dtype=np.int64)

    @property
    def told(self) -> tuple[Indices, NDArray[np.float64]]:
        """Points told and their values, in the order told."""
        return np.array(self._told, dtype=np.int64), np.array(self._values, dtype=np.float64)

    @property
    def best(self) -> tuple[int, float] | None:
        """Index and value of the best point told; of equal ones the first; None before anything is told."""
        if not self._values:
            return None
        i = int(np.argmax(self._values))
        return self._told[i], self._values[i]

    # ------------------------------------------------------------------ what callers use
    def ask(self, without: ArrayLike = ()) -> Indices:
        """Points to evaluate now, int64 (k,), k of the searcher's choice; pending from here on.

        Never a point that was asked or told before; empty when there is none left. Most searchers may be asked again
        before everything is told; what is pending is then taken into account.

        Args:
            without: indices of points that are not to be chosen this time.

        Raises:
            QasError: an index is out of range.
        """
        aside = self._checked_indices(without)
        aside = aside[self._open[aside]]
        self._open[aside] = False
        try:
            chosen = np.asarray(self._choose() if self._open.any() else (), dtype=np.int64)
        finally:
            self._open[aside] = True
        if not chosen.size:
            return chosen
        assert chosen.size and self._open[chosen].all() and len(set(chosen.tolist())) == chosen.size, self.name
        self._open[chosen] = False
        self._pending.extend(chosen.tolist())
        return chosen

    def tell(self, indices: ArrayLike, values: ArrayLike, *, prior: bool = False) -> None:
        """Values of points that were asked, in any order and in parts.

        Args:
            indices: int (k,).
            values: float (k,), finite, larger is better.
            prior: the points were evaluated elsewhere: they need not have been asked, and will not be.

        Raises:
            QasError: lengths differ, a value is not finite, an index is out of range, repeated, told before, or (unless
                `prior`) never asked. Nothing is recorded then.
        """
        where = self._checked_indices(indices)
        what = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if what.shape != where.shape:
            raise QasError(f"tell takes one value per index, got {where.size} indices and values {what.shape}")
        if not np.isfinite(what).all():
            at = int(np.argmin(np.isfinite(what)))
            raise QasError(f"told values are finite, got {what[at]} for index {where[at]}")
        if len(set(where.tolist())) < where.size or self._was_told[where].any():
            raise QasError("a point is told once, got one told twice")
        pending = set(self._pending)
        strange = [] if prior else [i for i in where.tolist() if i not in pending]
        if strange:
            raise QasError(f"told points were asked before (or prior=True), got index {strange[0]}")
        self._was_told[where] = True
        self._open[where] = False
        gone = set(where.tolist())
        self._pending = [i for i in self._pending if i not in gone]
        self._told.extend(where.tolist())
        self._values.extend(what.tolist())
        self._learn(where, what)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything needed to continue exactly, also within a batch: a JSON-able dict, and arrays by name."""
        told, values = self.told
        arrays = {"open": self._open.copy(), "pending": self.pending, "told": told, "values": values}
        return {"searcher": self.name, "rng": rng_state(self.rng)}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned, on the same points and with the same options.

        Raises:
            QasError: the state is of another searcher or of a pool of another size.
        """
        if state["searcher"] != self.name:
            raise QasError(f"a saved state fits its own searcher: {self.name} got that of {state['searcher']}")
        if arrays["open"].shape != self._open.shape:
            raise QasError(f"a saved state fits its own pool: {len(self)} points got {len(arrays['open'])}")
        self.rng = restore_rng(state["rng"])
        self._open = arrays["open"].astype(bool)
        self._pending = [int(i) for i in arrays["pending"]]
        self._told = [int(i) for i in arrays["told"]]
        self._values = [float(v) for v in arrays["values"]]
        self._was_told = np.zeros(len(self), dtype=bool)
        self._was_told[self._told] = True

    # ------------------------------------------------------------------ for subclasses
    @abc.abstractmethod
    def _choose(self) -> ArrayLike:
        """At least one distinct open point; called only while one is left."""

    def _learn(self, indices: Indices, values: NDArray[np.float64]) -> None:  # noqa: B027 - most have nothing to do
        """Called with what was just told, already recorded."""

    def _checked_indices(self, indices: ArrayLike) -> Indices:
        where = np.atleast_1d(np.asarray(indices))
        if where.size == 0:
            return np.empty(0, dtype=np.int64)
        if where.ndim != 1 or where.dtype.kind not in "iu":
            raise QasError(f"indices form a list of whole numbers, got {where.dtype} of shape {where.shape}")
        if where.min() < 0 or where.max() >= len(self):
            raise QasError(f"indices lie between 0 and {len(self) - 1}, got {where.min()} to {where.max()}")
        return where.astype(np.int64)

    def _random_open(self, count: int) -> Indices:
        """Up to `count` open points, uniform without replacement."""
        left = np.flatnonzero(self._open)
        return self.rng.choice(left, size=min(count, left.size), replace=False)

    @property
    def _n_seen(self) -> int:
        return len(self._told) + len(self._pending)


class RandomSearcher(PoolSearcher):
    """Uniform without replacement.

    Args:
        batch: points per ask.
    """

    name: ClassVar[str] = "random"

    def __init__(self, points: ArrayLike, rng: np.random.Generator, *, batch: int = 5) -> None:
        super().__init__(points, rng)
        self.batch = whole_number("batch", batch)

    def _choose(self) -> Indices:
        return self._random_open(self.batch)


class KnnSearcher(PoolSearcher):
    """The nearest unvisited neighbours of the best point so far: the baseline that every latent search must beat.

    Starts with `initial` random points. The centre moves only to a strictly better point; among the points told in one
    batch the best, of equal ones the first. Neighbours are ranked by L2 distance on the points as given, equal
    distances by index. When the centre moves, the search goes on around the new one; it never returns to the old one.

    Args:
        initial: random points asked first, in one batch.
        batch: neighbours per ask after that.
    """

    name: ClassVar[str] = "knn"

    def __init__(self, points: ArrayLike, rng: np.random.Generator, *, initial: int = 16, batch: int = 1) -> None:
        super().__init__(points, rng)
        self.initial = whole_number("initial", initial)
        self.batch = whole_number("batch", batch)
        self._centre = -1
        self._order = np.empty(0, dtype=np.int64)  # neighbours of the centre, nearest first

    def _choose(self) -> Indices:
        if self._n_seen < self.initial:
            return self._random_open(self.initial - self._n_seen)
        best = self.best
        if best is None:
            return self._random_open(self.batch)
        if best[0] != self._centre:
            self._centre = best[0]
            self._order = np.argsort(squared_distances(self.points, self.points[best[0]]), kind="stable")
        return self._order[self._open[self._order]][: self.batch]

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        self._centre = -1  # the ranking is made again; points asked before are skipped as closed
