"""Searches on a labelled pool: look-ups instead of optimizations, so that a study of many seeds takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qas.agents.pool.searchers import make_searcher
from qas.encoders.layers import whole_number
from qas.encoders.pools.pool import TabularProblem
from qas.errors import QasError


@dataclass(frozen=True)
class Replay:
    """What one searcher found on a `TabularProblem`."""

    indices: np.ndarray
    """circuits in the order of the queries, int64, shape (queries,)"""
    values: np.ndarray
    """their scores, float64, shape (queries,)"""
    threshold: float

    @property
    def found(self) -> np.ndarray:
        """Circuits at or above the threshold after each query, int64, shape (queries,)."""
        return np.cumsum(self.values >= self.threshold)

    @property
    def best(self) -> np.ndarray:
        """Best score after each query, float64, shape (queries,)."""
        return np.maximum.accumulate(self.values)

    def recall(self, table: TabularProblem, count: int = 100) -> float:
        """Share of the pool's best `count` circuits that were queried; scores equal to 1e-6 stand for each other."""
        least = table.values[table.top(count)[-1]]
        return min(1.0, float((self.values >= least - 1e-6).sum()) / min(count, len(table)))


def replay(
    table: TabularProblem, points: np.ndarray, searcher: str, *, queries: int = 1000, seed: int = 0, **options: Any
) -> Replay:
    """Run a searcher on a labelled pool.

    Args:
        table: the pool with one task.
        points: what the searcher looks at, shape (size of the pool, d).
        searcher: a name of `qas.agents.pool.searchers.SEARCHERS`.
        queries: look-ups; fewer if the pool is smaller.
        seed: fixes the searcher.
        options: settings of the searcher.

    Raises:
        UnknownNameError: no such searcher.
        QasError: settings that do not fit.
    """
    queries = whole_number("the number of queries", queries)
    if len(points) != len(table):
        raise QasError(f"a replay needs one point for each of {len(table)} circuits, got {len(points)}")
    player = make_searcher(searcher, points, np.random.default_rng(seed), **options)
    indices: list[int] = []
    values: list[float] = []
    while len(indices) < min(queries, len(table)):
        batch = player.ask()
        if not len(batch):
            break
        scores = table.look_up(batch)
        player.tell(batch, scores)
        indices += batch.tolist()
        values += scores.tolist()
    return Replay(np.array(indices[:queries]), np.array(values[:queries]), table.score.threshold)
