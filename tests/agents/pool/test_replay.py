"""Searches on labelled pools by look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qas
from qas.agents.pool.replay import Replay, replay
from qas.encoders import CircuitSpace
from qas.encoders.pools.pool import Labels, LabelSettings, TabularProblem
from qas.errors import QasError, UnknownNameError
from qas.scores import Score

SPACE = CircuitSpace(2, ("rx", "ry", "cx"), max_gates=5, min_gates=1, max_depth=0)


@pytest.fixture(scope="module")
def table() -> TabularProblem:
    """Energies by hand: the score of a circuit is known without any simulation."""
    rows = SPACE.sample_unique(120, np.random.default_rng(0))
    energies = -np.linspace(0, 1, 120)[np.random.default_rng(1).permutation(120)][:, None]
    labels = Labels(qas.load_problem("h2-2"), None, LabelSettings(starts=1), energies, np.ones(120, int), [])
    return TabularProblem(SPACE, rows, labels, Score("by hand", 0.0, 1.0, 0.9))


@pytest.fixture(scope="module")
def points(table: TabularProblem) -> np.ndarray:
    """One coordinate tells the value, another is noise."""
    noise = np.random.default_rng(2).normal(size=120)
    return np.column_stack([table.values + 0.05 * noise, noise]).astype(np.float32)


SEARCHERS: dict[str, dict[str, Any]] = {"random": {}, "knn": {}, "reinforce": {}, "bo": {"initial": 8}}


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_queries_are_look_ups_without_repetition(searcher: str, table: TabularProblem, points: np.ndarray) -> None:
    found = replay(table, points, searcher, queries=37, **SEARCHERS[searcher])
    assert len(found.indices) == 37 == len(set(found.indices.tolist()))
    assert np.array_equal(found.values, table.values[found.indices])
    assert np.array_equal(found.found, [(found.values[: k + 1] >= 0.9).sum() for k in range(37)])
    assert found.best[-1] == found.values.max() and (np.diff(found.best) >= 0).all()
    again = replay(table, points, searcher, queries=37, **SEARCHERS[searcher])
    assert np.array_equal(again.indices, found.indices)
    other = replay(table, points, searcher, queries=37, seed=1, **SEARCHERS[searcher])
    assert not np.array_equal(other.indices, found.indices)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_whole_pool_and_no_more(searcher: str, table: TabularProblem, points: np.ndarray) -> None:
    found = replay(table, points, searcher, queries=1000, **SEARCHERS[searcher])
    assert sorted(found.indices.tolist()) == list(range(120))
    assert found.found[-1] == table.good.sum() and found.recall(table, 10) == 1.0 == found.recall(table, 1000)


def test_recall_by_hand(table: TabularProblem) -> None:
    order = table.top(120)
    some = order[[0, 2, 4, 50, 60]]
    found = Replay(some, table.values[some], 0.9)
    assert found.recall(table, 5) == pytest.approx(3 / 5) and found.recall(table, 1) == 1.0
    assert found.recall(table, 2) == 0.5


def test_informed_searchers_beat_chance(table: TabularProblem, points: np.ndarray) -> None:
    def mean(searcher: str) -> float:
        runs = [replay(table, points, searcher, queries=40, seed=s, **SEARCHERS[searcher]) for s in range(4)]
        return float(np.mean([run.found[-1] for run in runs]))

    assert mean("bo") > 2 * mean("random") and mean("knn") > 1.5 * mean("random")


def test_wrong_input(table: TabularProblem, points: np.ndarray) -> None:
    with pytest.raises(UnknownNameError, match="random"):
        replay(table, points, "randm")
    with pytest.raises(QasError, match="batch"):
        replay(table, points, "random", batches=3)
    for queries in (0, 2.5, True):
        with pytest.raises(QasError, match="queries"):
            replay(table, points, "random", queries=queries)  # type: ignore[arg-type]
    for size in (119, 121):
        with pytest.raises(QasError, match="one point for each of 120"):
            replay(table, np.resize(points, (size, 2)), "random")
