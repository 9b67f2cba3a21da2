"""Every pool searcher: never repeats, exhausts a pool, reproducible, resumable; and what Bayesian search picks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from qas.agents.pool.bayesian import ACQUISITIONS, BayesianSearcher, GreedyImprovement, best_positions, spread_design
from qas.agents.pool.botorch import OptunaSearcher
from qas.agents.pool.gaussian_process import GaussianProcess, Inputs, PoolPosterior
from qas.agents.pool.searchers import SEARCHERS, PoolSearcher, list_searchers, load_searcher, make_searcher
from qas.errors import QasError, UnknownNameError

# Small enough for tests; the Gaussian process is tried with each way of choosing and each kernel.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "knn": ("knn", {"initial": 4, "batch": 2}),
    "reinforce": ("reinforce", {"first_batch": 4, "hidden": 8}),
    "dngo": ("dngo", {"initial": 4, "hidden": 8, "epochs": 3}),
    "dngo as released": ("dngo", {"initial": 4, "hidden": 8, "epochs": 3, "mended": False}),
    "optuna": ("optuna", {"initial": 16, "batch": 2}),
    "botorch": ("botorch", {"initial": 8, "batch": 6, "samples": 8, "shortlist": 8}),
    **{f"bo {a}": ("bo", {"acquisition": a, "initial": 4, "shortlist": 8}) for a in ACQUISITIONS},
    "bo screened": ("bo", {"initial": 4, "screen": 10, "shortlist": 5, "design": "maximin"}),
    "bo fingerprint": ("bo", {"initial": 4, "kernel": "fingerprint"}),
    "bo sum": ("bo", {"initial": 4, "kernel": "sum", "ard": False, "screen": 15, "shortlist": 4}),
}
N = 26


def pool(n: int = N, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(seed).normal(size=(n, d))
    return points, np.exp(-0.5 * ((points - 0.5) ** 2).sum(axis=1))


def make(case: str, seed: int = 1, n: int = N) -> PoolSearcher:
    name, options = CASES[case]
    if name == "botorch":
        pytest.importorskip("botorch")
    if options.get("kernel", "matern") != "matern":
        options = options | {"fingerprints": np.random.default_rng(2).integers(0, 4, size=(n, 6))}
    return make_searcher(name, pool(n)[0], np.random.default_rng(seed), **options)


def run(searcher: PoolSearcher, values: np.ndarray, asks: int) -> list[list[int]]:
    batches = []
    for _ in range(asks):
        batches.append(searcher.ask().tolist())
        searcher.tell(batches[-1], values[batches[-1]])
    return batches


def test_every_searcher_is_tested_and_described() -> None:
    assert {name for name, _ in CASES.values()} == set(SEARCHERS) == set(list_searchers())
    assert all(text and "\n" not in text for text in list_searchers().values())
    assert all(load_searcher(name).name == name for name in SEARCHERS)
    with pytest.raises(UnknownNameError, match="did you mean 'knn'"):
        load_searcher("knnn")
    with pytest.raises(UnknownNameError, match="did you mean 'batch'"):
        make_searcher("random", pool()[0], np.random.default_rng(0), bach=3)


@pytest.mark.parametrize("case", CASES)
def test_a_small_pool_is_exhausted_without_repeats(case: str) -> None:
    searcher, values = make(case), pool()[1]
    searcher.exclude([3, 7])
    searcher.tell([5], [values[5]], prior=True)
    seen: list[int] = []
    while len(batch := searcher.ask()):
        assert batch.dtype == np.int64
        seen += batch.tolist()
        searcher.tell(batch, values[batch])
    assert sorted(seen) == sorted(set(range(N)) - {3, 5, 7})
    assert searcher.n_open == 0 and searcher.pending.size == 0
    assert searcher.best == (int(np.argmax(values)), values.max()) or int(np.argmax(values)) in (3, 7)


@pytest.mark.parametrize("case", CASES)
def test_same_seed_same_choices_and_resumed_runs_agree(case: str) -> None:
    values = pool()[1]
    state = np.random.get_state()[1].tolist()  # noqa: NPY002 - that it is not touched is the point
    whole = make(case)
    before = run(whole, values, 3)
    assert before == run(make(case), values, 3)
    batch = whole.ask()
    whole.tell(batch[:1], values[batch[:1]])
    saved, arrays = whole.state()
    saved = json.loads(json.dumps(saved))
    assert all(isinstance(a, np.ndarray) and a.dtype != object for a in arrays.values())
    arrays = {k: v.copy() for k, v in arrays.items()}
    again = make(case, seed=99)
    again.restore(saved, arrays)
    assert again.pending.tolist() == batch[1:].tolist()
    rest = []
    for searcher in (whole, again):
        searcher.tell(batch[1:], values[batch[1:]])
        rest.append(run(searcher, values, 3))
    assert rest[0] == rest[1]
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_seeds_differ() -> None:
    values = pool()[1]
    for case in ("random", "knn", "reinforce", "bo log-ei", "dngo"):
        assert run(make(case, 1), values, 2) != run(make(case, 2), values, 2)


@pytest.mark.parametrize("case", CASES)
def test_a_pool_of_one_point(case: str) -> None:
    searcher = make(case, n=1)
    assert searcher.ask().tolist() == [0]
    searcher.tell([0], [0.3])
    assert searcher.ask().tolist() == [] and searcher.best == (0, 0.3)


@pytest.mark.parametrize("case", [c for c in CASES if c != "reinforce"])
def test_pending_points_are_not_asked_again(case: str) -> None:
    searcher, values = make(case), pool()[1]
    run(searcher, values, 2)
    first, second = searcher.ask(), searcher.ask()
    assert not set(first.tolist()) & set(second.tolist())
    assert searcher.pending.tolist() == first.tolist() + second.tolist()
    searcher.tell(second, values[second])
    assert searcher.pending.tolist() == first.tolist()


def test_constant_values_and_copies_of_points_are_no_obstacle() -> None:
    points = np.zeros((20, 3))
    for name in SEARCHERS:
        if name in ("botorch", "optuna"):
            continue
        searcher = make_searcher(name, points, np.random.default_rng(0))
        while len(batch := searcher.ask()):
            searcher.tell(batch, np.full(len(batch), 0.25))
        assert len(searcher.told[0]) == 20


# ---------------------------------------------------------------------- what is refused
def test_points_are_checked() -> None:
    rng = np.random.default_rng(0)
    bad = pool()[0]
    bad[4, 1] = np.nan
    with pytest.raises(QasError, match=r"finite numbers, got 1 that are not, the first at index 4"):
        make_searcher("bo", bad, rng)
    for points in (np.zeros(3), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros((2, 2, 2)), [["a"]]):
        with pytest.raises(QasError, match="pool points form an array"):
            make_searcher("random", points, rng)


def test_values_and_indices_are_checked() -> None:
    searcher = make("random")
    first = searcher.ask()
    other = next(i for i in range(N) if i not in first)
    for value in (np.nan, np.inf):
        with pytest.raises(QasError, match="told values are finite"):
            searcher.tell(first[:1], [value])
    with pytest.raises(QasError, match="asked before"):
        searcher.tell([other], [1.0])
    with pytest.raises(QasError, match="told once"):
        searcher.tell([first[0], first[0]], [1.0, 1.0])
    with pytest.raises(QasError, match="one value per index"):
        searcher.tell(first, [1.0])
    with pytest.raises(QasError, match="lie between 0 and 25"):
        searcher.tell([-1], [1.0])
    with pytest.raises(QasError, match="whole numbers"):
        searcher.tell([0.5], [1.0])
    assert searcher.told[0].size == 0, "nothing of a refused call is recorded"
    searcher.tell(first[:1], [1.0])
    with pytest.raises(QasError, match="told once"):
        searcher.tell(first[:1], [1.0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random", {"batch": 0}, "batch is a whole number"),
        ("knn", {"initial": 1.5}, "initial is a whole number"),
        ("bo", {"acquisition": "ucb"}, "acquisition is one of"),
        ("bo", {"kernel": "sum"}, "needs fingerprints"),
        ("bo", {"kernel": "sum", "fingerprints": np.ones((3, 2))}, "one row for each of 26"),
        ("bo", {"kernel": "sum", "fingerprints": -np.ones((N, 2))}, "not negative"),
        ("bo", {"quantile": 2.0}, "quantile lies between"),
        ("bo", {"threshold": np.nan}, "threshold is a finite"),
        ("bo", {"refit_growth": 1.0}, "above 1"),
        ("optuna", {"design": "grid"}, "design is one of"),
        ("reinforce", {"thresholds": (0.9, 0.5, 0.95)}, "three ascending"),
        ("reinforce", {"alpha": 2.0}, "alpha lies"),
        ("dngo", {"lr": 0.0}, "lr positive"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QasError, match=message):
        make_searcher(name, pool()[0], np.random.default_rng(0), **options)


def test_a_state_fits_its_searcher_and_pool() -> None:
    saved = make("random").state()
    with pytest.raises(QasError, match="own searcher"):
        make("knn").restore(*saved)
    with pytest.raises(QasError, match="own pool"):
        make("random", n=5).restore(*saved)


# ---------------------------------------------------------------------- knn
def test_knn_follows_the_best_point() -> None:
    points = np.array([[0.0], [1.0], [2.0], [3.0], [10.0], [11.0], [12.5]])
    searcher = make_searcher("knn", points, np.random.default_rng(0), initial=1)
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
def best_of(name: str, seed: int, **options: Any) -> tuple[float, int]:
    """Rank of the best of 60 queries on a smooth pool of 800 points, and how many of the best 40 were found."""
    points = np.random.default_rng([7, seed]).normal(size=(800, 4))
    rank = np.argsort(np.argsort(((points - 0.4) ** 2 * [1, 2, 0.1, 1]).sum(axis=1)))
    values = np.exp(-0.2 * ((points - 0.4) ** 2 * [1, 2, 0.1, 1]).sum(axis=1))
    searcher = make_searcher(name, points, np.random.default_rng(seed), **options)
    while len(searcher.told[0]) < 60:
        batch = searcher.ask()[: 60 - len(searcher.told[0])]
        searcher.tell(batch, values[batch])
    told = searcher.told[0]
    return float(rank[told].min()), int((rank[told] < 40).sum())


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_every_acquisition_beats_random(acquisition: str) -> None:
    random = [best_of("random", seed) for seed in range(8)]
    guided = [best_of("bo", seed, acquisition=acquisition, ard=False, shortlist=200) for seed in range(8)]
    assert np.mean([hits for _, hits in random]) < 6, "3 of 60 are expected"
    assert np.mean([hits for _, hits in guided]) > 10
    assert np.mean([rank for rank, _ in guided]) < 0.5 * np.mean([rank for rank, _ in random])


def test_level_set_takes_the_most_probable_points_and_finds_more_of_them() -> None:
    searcher, values = make("bo level-set"), pool()[1]
    run(searcher, values, 2)
    batch = searcher.ask()
    told, seen = searcher.told
    threshold = np.quantile(seen, 0.9)
    assert isinstance(searcher, BayesianSearcher) and searcher._process is not None
    mean, std = searcher._process.predict(searcher.points)
    score = np.where(np.isin(np.arange(N), told), -np.inf, (mean - threshold) / std)
    assert set(batch.tolist()) == set(np.argsort(-score)[:5].tolist())
    hits = [np.mean([best_of("bo", s, acquisition=a, ard=False)[1] for s in range(4)]) for a in ("level-set", "log-ei")]
    assert hits[0] > hits[1] - 3


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
    samples = (process.sample(np.concatenate([points, pending]), 200_000, rng) - process.y_mean) / process.y_std
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


def empty(d: int) -> Inputs:
    return Inputs(np.empty((0, d)))


def test_screened_candidates_hold_what_the_whole_pool_would_choose() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 4))
    values = np.exp(-0.1 * ((points - 0.5) ** 2).sum(axis=1))
    told = np.random.default_rng(1).choice(3000, size=40, replace=False)
    picks = []
    for screen in (3000, 500):
        searcher = make_searcher("bo", points, np.random.default_rng(5), screen=screen, acquisition="mean", ard=False)
        searcher.tell(told, values[told], prior=True)
        picks.append(searcher.ask().tolist())
    assert set(picks[0]) == set(picks[1])


def test_best_positions_and_designs() -> None:
    assert best_positions(np.array([1.0, 3.0, -np.inf, 3.0, 2.0]), 3).tolist() == [1, 3, 4]
    assert best_positions(np.array([]), 3).size == 0
    x = np.concatenate([np.random.default_rng(0).normal(size=(200, 2)) * 0.01, [[5, 0], [0, 5], [-5, 0]]])
    among = np.arange(len(x))
    for how in ("kmeans++", "maximin", "random"):
        chosen = spread_design(x, among[5:], 6, np.random.default_rng(1), how)
        assert len(set(chosen.tolist())) == 6 and chosen.min() >= 5
        assert how == "random" or {200, 201, 202} <= set(chosen.tolist())


def test_optuna_takes_the_nearest_point_and_tells_its_real_place(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, values = make("optuna"), pool()[1]
    assert isinstance(searcher, OptunaSearcher)
    run(searcher, values, 1)
    asked: list[np.ndarray] = []
    studies: list[Any] = []
    study_of = OptunaSearcher._study

    def spy(self: OptunaSearcher, box: dict[str, Any]) -> Any:
        study = study_of(self, box)
        studies.append(study)
        ask = study.ask

        def recorded(**settings: Any) -> Any:
            trial = ask(**settings)
            asked.append(np.array(list(trial.params.values())))
            return trial

        study.ask = recorded
        return study

    monkeypatch.setattr(OptunaSearcher, "_study", spy)
    left = searcher._open.copy()
    batch = searcher.ask()
    for index, place in zip(batch, asked, strict=True):
        distance = np.where(left, ((searcher._x - place) ** 2).sum(axis=1), np.inf)
        assert index == np.argmin(distance)
        left[index] = False
    told = [t for t in studies[0].trials if t.state.name == "COMPLETE"]
    assert [t.value for t in told] == searcher.told[1].tolist()
    assert np.allclose([list(t.params.values()) for t in told], searcher._x[searcher.told[0]])
