"""What every pool searcher keeps: it never repeats, exhausts a pool, is fixed by its generator and resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qas.errors import QasError

if TYPE_CHECKING:
    from qas.agents.pool.searchers import PoolSearcher

Make = Callable[[np.ndarray, np.random.Generator], "PoolSearcher"]
_SIZE = 26


def smooth_pool(n: int = _SIZE, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, d) and their values (n,), a bump."""
    points = np.random.default_rng(0).normal(size=(n, d))
    return points, np.exp(-0.5 * ((points - 0.5) ** 2).sum(axis=1))


def ask_and_tell(searcher: PoolSearcher, values: np.ndarray, asks: int) -> list[list[int]]:
    """The batches of so many rounds."""
    batches = []
    for _ in range(asks):
        batches.append(searcher.ask().tolist())
        searcher.tell(batches[-1], values[batches[-1]])
    return batches


class SearcherContract:
    """Subclass it and give the fixture `make`.

    A surrogate or an acquisition is tried inside a `BayesianSearcher`::

        class TestUpperBound(SearcherContract):
            @pytest.fixture
            def make(self):
                return lambda points, rng: BayesianSearcher(points, rng, acquisition=UpperBound, initial=4)
    """

    whole_batches = False
    """It may only be asked again when everything is told."""

    @pytest.fixture
    def make(self) -> Make:
        """(points, generator) -> the searcher, with settings that suit a pool of 26 points."""
        raise NotImplementedError("a contract of searchers needs the fixture make")

    def test_a_small_pool_is_exhausted_without_repeats(self, make: Make) -> None:
        points, values = smooth_pool()
        searcher = make(points, np.random.default_rng(1))
        searcher.tell([5], [values[5]], prior=True)
        seen: list[int] = []
        while len(batch := searcher.ask(without=[3, 5, 7])):
            assert batch.dtype == np.int64
            seen += batch.tolist()
            searcher.tell(batch, values[batch])
        assert sorted(seen) == sorted(set(range(_SIZE)) - {3, 5, 7})
        assert searcher.n_open == 2 and searcher.pending.size == 0
        while len(batch := searcher.ask()):
            seen += batch.tolist()
            searcher.tell(batch, values[batch])
        assert sorted(seen) == sorted(set(range(_SIZE)) - {5}) and searcher.n_open == 0
        assert searcher.best == (int(np.argmax(values)), values.max())

    def test_a_seed_fixes_the_choices_and_a_saved_state_goes_on(self, make: Make) -> None:
        points, values = smooth_pool()
        before = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002 - that it is not touched is the point
        whole = make(points, np.random.default_rng(1))
        assert ask_and_tell(whole, values, 3) == ask_and_tell(make(points, np.random.default_rng(1)), values, 3)
        batch = whole.ask()
        whole.tell(batch[:1], values[batch[:1]])
        saved, arrays = whole.state()
        saved, arrays = json.loads(json.dumps(saved)), {name: array.copy() for name, array in arrays.items()}
        assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays.values())
        again = make(points, np.random.default_rng(99))
        again.restore(saved, arrays)
        assert again.pending.tolist() == batch[1:].tolist()
        rest = []
        for searcher in (whole, again):
            searcher.tell(batch[1:], values[batch[1:]])
            rest.append(ask_and_tell(searcher, values, 3))
        assert rest[0] == rest[1]
        assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before  # noqa: NPY002

    def test_a_pool_of_one_point_and_one_of_copies(self, make: Make) -> None:
        searcher = make(smooth_pool(1)[0], np.random.default_rng(1))
        assert searcher.ask().tolist() == [0]
        searcher.tell([0], [0.3])
        assert searcher.ask().tolist() == [] and searcher.best == (0, 0.3)
        searcher = make(np.zeros((20, 3)), np.random.default_rng(0))
        while len(batch := searcher.ask()):
            searcher.tell(batch, np.full(len(batch), 0.25))
        assert len(searcher.told[0]) == 20

    def test_pending_points_are_not_asked_again(self, make: Make) -> None:
        points, values = smooth_pool()
        searcher = make(points, np.random.default_rng(1))
        ask_and_tell(searcher, values, 2)
        first = searcher.ask()
        if self.whole_batches:
            with pytest.raises(QasError, match="pending"):
                searcher.ask()
            return
        second = searcher.ask()
        assert not set(first.tolist()) & set(second.tolist())
        searcher.tell(second, values[second])
        assert searcher.pending.tolist() == first.tolist()

    def test_what_is_told_is_checked(self, make: Make) -> None:
        searcher = make(smooth_pool()[0], np.random.default_rng(1))
        first = searcher.ask()
        other = next(i for i in range(_SIZE) if i not in first)
        wrong: list[tuple[object, object, str]] = [
            (first[:1], [np.nan], "told values are finite"),
            ([other], [1.0], "asked before"),
            ([first[0], first[0]], [1.0, 1.0], "told once"),
            (first[:1], [1.0, 2.0], "one value per index"),
            ([-1], [1.0], "lie between 0 and 25"),
            ([0.5], [1.0], "whole numbers"),
        ]
        for indices, values, words in wrong:
            with pytest.raises(QasError, match=words):
                searcher.tell(indices, values)  # type: ignore[arg-type]
        assert searcher.told[0].size == 0, "nothing of a refused call is recorded"
