"""Pool searchers: every registered surrogate and acquisition keeps the contract; and what Bayesian search picks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qas.agents.pool import ACQUISITIONS, SURROGATES
from qas.agents.pool.acquisitions import Acquisition, LevelSet
from qas.agents.pool.bayesian import BayesianSearcher, spread_design
from qas.agents.pool.gaussian_process import GaussianProcess, GreedyImprovement, PoolPosterior, safe_cholesky
from qas.agents.pool.reinforce import ReinforceSearcher
from qas.agents.pool.searchers import KnnSearcher, PoolSearcher, RandomSearcher
from qas.agents.pool.surrogates import best_positions
from qas.errors import QasError, UnknownNameError
from qas.testing import SearcherContract
from qas.testing.searchers import ask_and_tell, smooth_pool

QUICK: dict[str, dict[str, Any]] = {"dngo": {"hidden": 8, "epochs": 3}}
"""Settings of surrogates that are slow."""
BAYESIAN: dict[str, dict[str, Any]] = {
    **{f"surrogate {name}": {"surrogate": {"name": name} | QUICK.get(name, {})} for name in SURROGATES},
    **{f"acquisition {name}": {"acquisition": name} for name in ACQUISITIONS},
    "dngo thompson": {"surrogate": {"name": "dngo"} | QUICK["dngo"], "acquisition": "thompson"},
    "screened": {"surrogate": "gp:candidates=10,ard=false", "acquisition": "log-ei:shortlist=5"},
}


def bayesian(points: np.ndarray, rng: np.random.Generator, **settings: Any) -> BayesianSearcher:
    return BayesianSearcher(points, rng, **({"initial": 4} | settings))


class TestBayesian(SearcherContract):
    @pytest.fixture(params=BAYESIAN)
    def make(self, request: pytest.FixtureRequest) -> Callable[..., PoolSearcher]:
        if "botorch" in request.param:
            pytest.importorskip("botorch")
        return lambda points, rng: bayesian(points, rng, **BAYESIAN[request.param])


class TestOthers(SearcherContract):
    @pytest.fixture(params=["random", "knn"])
    def make(self, request: pytest.FixtureRequest) -> Callable[..., PoolSearcher]:
        if request.param == "random":
            return RandomSearcher
        return lambda points, rng: KnnSearcher(points, rng, initial=4, batch=2)


class TestReinforce(SearcherContract):
    whole_batches = True

    @pytest.fixture
    def make(self) -> Callable[..., PoolSearcher]:
        return lambda points, rng: ReinforceSearcher(points, rng, first_batch=4, hidden=8)


# ---------------------------------------------------------------------- what is refused
def test_points_and_options_are_checked() -> None:
    rng = np.random.default_rng(0)
    bad = smooth_pool()[0]
    bad[4, 1] = np.nan
    with pytest.raises(QasError, match=r"finite numbers, got 1 that are not, the first at index 4"):
        RandomSearcher(bad, rng)
    for points in (np.zeros(3), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros((2, 2, 2)), [["a"]]):
        with pytest.raises(QasError, match="pool points form an array"):
            RandomSearcher(points, rng)
    wrong: list[tuple[Callable[..., PoolSearcher], dict[str, Any], str]] = [
        (RandomSearcher, {"batch": 0}, "batch is a whole number"),
        (KnnSearcher, {"initial": 1.5}, "initial is a whole number"),
        (bayesian, {"acquisition": "level-st"}, "did you mean 'level-set'"),
        (bayesian, {"acquisition": "level-set:quantile=2"}, "quantile lies between"),
        (bayesian, {"acquisition": {"name": "level-set", "threshold": np.nan}}, "threshold is a finite"),
        (bayesian, {"acquisition": "level-set:treshold=1"}, "did you mean 'threshold'"),
        (bayesian, {"acquisition": "level-set:threshold"}, "name:setting=value"),
        (bayesian, {"acquisition": GaussianProcess}, "a name, a Acquisition class"),
        (bayesian, {"surrogate": "gp:refit_growth=1"}, "above 1"),
        (bayesian, {"surrogate": "dngo:lr=0"}, "above 0"),
        (ReinforceSearcher, {"thresholds": (0.9, 0.5, 0.95)}, "three ascending"),
        (ReinforceSearcher, {"alpha": 2.0}, "alpha lies"),
    ]
    for make, options, message in wrong:
        with pytest.raises(QasError, match=message) as caught:
            make(smooth_pool()[0], np.random.default_rng(0), **options)
        assert "\n" not in str(caught.value)


def test_a_state_fits_its_searcher_and_pool() -> None:
    points, rng = smooth_pool()[0], np.random.default_rng(0)
    saved = RandomSearcher(points, rng).state()
    with pytest.raises(QasError, match="own searcher"):
        KnnSearcher(points, rng).restore(*saved)
    with pytest.raises(QasError, match="own pool"):
        RandomSearcher(points[:5], rng).restore(*saved)


class UpperBound(Acquisition):
    """A new acquisition is one class with one method."""

    about = "mean plus some standard deviations"

    def __init__(self, *, deviations: float = 2.0) -> None:
        self.deviations = deviations

    def score(self, mean: np.ndarray, std: np.ndarray, target: float) -> np.ndarray:
        return mean + self.deviations * std


def test_a_new_acquisition_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    points, values = smooth_pool()
    with pytest.raises(UnknownNameError):
        bayesian(points, np.random.default_rng(0), acquisition="upper-bound")
    monkeypatch.setitem(ACQUISITIONS._things, "upper-bound", UpperBound)
    given = (UpperBound, UpperBound(deviations=2.0), "upper-bound", {"name": "upper-bound", "deviations": 2.0})
    runs = [ask_and_tell(bayesian(points, np.random.default_rng(0), acquisition=a), values, 4) for a in given]
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert all(kind[name].about for kind in (ACQUISITIONS, SURROGATES) for name in kind if name != "botorch")


# ---------------------------------------------------------------------- knn
def test_knn_follows_the_best_point() -> None:
    points = np.array([[0.0], [1.0], [2.0], [3.0], [10.0], [11.0], [12.5]])
    searcher = KnnSearcher(points, np.random.default_rng(0), initial=1)
    searcher.tell([1, 4], [0.5, 0.5], prior=True)
    assert searcher.ask().tolist() == [0], (
        "the first of equal values leads, the lower index of equal distances is taken"
    )
    searcher.tell([0], [0.1])
    assert searcher.ask().tolist() == [2]
    searcher.tell([2], [0.5])
    assert searcher.ask().tolist() == [3], "an equal value does not move the centre"
    searcher.tell([3], [0.6])
    assert searcher.ask().tolist() == [5]
    searcher.tell([5], [0.7])
    assert searcher.ask().tolist() == [6]


# ---------------------------------------------------------------------- Bayesian optimization
def hits_of(make: Callable[..., PoolSearcher], seed: int, **options: Any) -> int:
    """How many of the best 40 of a smooth pool of 800 points 60 queries found; 3 are expected by chance."""
    points = np.random.default_rng([7, seed]).normal(size=(800, 4))
    values = np.exp(-0.2 * ((points - 0.4) ** 2 * [1, 2, 0.1, 1]).sum(axis=1))
    searcher = make(points, np.random.default_rng(seed), **options)
    while len(searcher.told[0]) < 60:
        batch = searcher.ask()[: 60 - len(searcher.told[0])]
        searcher.tell(batch, values[batch])
    return int((values[searcher.told[0]] >= np.sort(values)[-40]).sum())


@pytest.mark.parametrize("settings", [{"acquisition": a} for a in ACQUISITIONS] + [{"surrogate": "dngo:epochs=40"}])
def test_every_acquisition_beats_random(settings: dict[str, Any]) -> None:
    gp = {} if "surrogate" in settings else {"surrogate": "gp:ard=false"}
    assert np.mean([hits_of(RandomSearcher, seed) for seed in range(4)]) < 6
    assert np.mean([hits_of(BayesianSearcher, seed, **gp, **settings) for seed in range(4)]) > 9


def test_level_set_takes_the_most_probable_points() -> None:
    points, values = smooth_pool()
    searcher = bayesian(points, np.random.default_rng(1), acquisition=LevelSet())
    ask_and_tell(searcher, values, 2)
    batch = searcher.ask()
    told, seen = searcher.told
    mean, std = searcher.surrogate.process.predict(searcher.points)  # type: ignore[attr-defined]
    score = np.where(np.isin(np.arange(len(points)), told), -np.inf, (mean - np.quantile(seen, 0.9)) / std)
    assert set(batch.tolist()) == set(np.argsort(-score)[:5].tolist())


def test_greedy_batches_agree_with_brute_force() -> None:
    """log E[max(max_j f_j - best, 0)] by plain Monte Carlo over the joint posterior, pending points included."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 2))
    process = GaussianProcess(ard=False).fit(x, np.sin(x[:, 0]) + x[:, 1])
    points, pending = rng.normal(size=(30, 2)), rng.normal(size=(2, 2))
    posterior = PoolPosterior(process, process.inputs(points))
    best = 0.8
    greedy = GreedyImprovement(posterior, np.arange(30), best, rng.standard_normal((4000, 4)), process.inputs(pending))
    greedy.take(4)
    gains = np.exp(greedy.scores())
    samples = draws(process, np.concatenate([points, pending]), 200_000, rng)
    held = np.maximum(best, samples[:, [30, 31, 4]].max(axis=1))
    brute = np.maximum(samples[:, :30] - held[:, None], 0).mean(axis=0)
    assert gains[4] == 0
    others = np.arange(30) != 4
    assert gains[others] == pytest.approx(brute[others], abs=0.01, rel=0.1)
    assert brute.max() > 0.05, "or the comparison says nothing"


def test_a_batch_is_not_five_times_the_same_place() -> None:
    """Copies of the best candidate gain nothing once one of them is pending."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, size=(8, 1))
    process = GaussianProcess(ard=False).fit(x, np.sin(x[:, 0]))
    grid = np.linspace(-3, 3, 40)[:, None]
    first = GreedyImprovement(
        PoolPosterior(process, process.inputs(grid)), np.arange(40), 0.9, rng.standard_normal((64, 3)), empty(1)
    ).pick(1)[0]
    copies = np.concatenate([grid, np.repeat(grid[[first]], 5, axis=0)])
    picked = GreedyImprovement(
        PoolPosterior(process, process.inputs(copies)), np.arange(45), 0.9, rng.standard_normal((64, 3)), empty(1)
    ).pick(3)
    assert len({float(copies[p, 0]) for p in picked}) == 3


def empty(d: int) -> np.ndarray:
    return np.empty((0, d))


def draws(process: GaussianProcess, points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    mean, covariance = process.joint(process.inputs(points))
    return mean + rng.standard_normal((count, len(mean))) @ safe_cholesky(covariance).T


def test_screened_candidates_hold_what_the_whole_pool_would_choose() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 4))
    values = np.exp(-0.1 * ((points - 0.5) ** 2).sum(axis=1))
    told = np.random.default_rng(1).choice(3000, size=40, replace=False)
    picks = []
    for most in (3000, 500):
        surrogate = {"name": "gp", "candidates": most, "ard": False}
        searcher = BayesianSearcher(points, np.random.default_rng(5), surrogate=surrogate, acquisition="mean")
        searcher.tell(told, values[told], prior=True)
        picks.append(searcher.ask().tolist())
    assert set(picks[0]) == set(picks[1])


def test_best_positions_and_the_first_points() -> None:
    assert best_positions(np.array([1.0, 3.0, -np.inf, 3.0, 2.0]), 3).tolist() == [1, 3, 4]
    assert best_positions(np.array([]), 3).size == 0
    x = np.concatenate([np.random.default_rng(0).normal(size=(200, 2)) * 0.01, [[5, 0], [0, 5], [-5, 0]]])
    chosen = spread_design(x, np.arange(5, len(x)), 6, np.random.default_rng(1))
    assert len(set(chosen.tolist())) == 6 and chosen.min() >= 5 and {200, 201, 202} <= set(chosen.tolist())
