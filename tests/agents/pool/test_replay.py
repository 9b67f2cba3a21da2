"""Labelled pools as problems: agents look circuits up, in memory and in runs; published searches stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents.pool.replay import Replay, replay
from qas.circuits import Circuit
from qas.encoders import CircuitSpace
from qas.encoders.pools.pool import Labels, LabelSettings, PoolError, TabularProblem, build_pool
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.problems import load_problem, problem_from_json
from qas.scores import Score

SPACE = CircuitSpace(2, ("rx", "ry", "cx"), max_gates=5, min_gates=1, max_depth=0)
OPTIONS: dict[str, dict[str, Any]] = {"random": {}, "knn": {}, "reinforce": {}, "bo": {"initial": 8}}
every_agent = pytest.mark.parametrize("agent", OPTIONS)


@pytest.fixture(scope="module")
def table() -> TabularProblem:
    """Energies by hand: the score of a circuit is known without any simulation; most two-qubit gates are best."""
    rows = SPACE.sample_unique(120, np.random.default_rng(0))
    two = (SPACE.first[rows] != SPACE.last[rows]) & (rows >= 0)
    order = np.argsort(np.argsort(two.sum(axis=1) + 0.1 * np.random.default_rng(1).random(120)))
    energies = -np.linspace(0, 1, 120)[order][:, None]
    angles = [np.full(SPACE.circuit(row).n_angles, 0.25) for row in rows]
    labels = Labels(qas.load_problem("h2-2"), None, LabelSettings(starts=1), energies, np.ones(120, int), angles)
    return TabularProblem(SPACE, rows, labels, Score("by hand", 0.0, 1.0, 0.9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = LabelSettings(starts=1, max_evaluations=40)
    return build_pool(
        tmp_path_factory.mktemp("labelled") / "p2", SPACE, 150, tasks=["h2-2"], settings=settings, jobs=1
    ).path


# ---------------------------------------------------------------------- the problem
def test_whole_circuits_are_judged_by_their_labels(table: TabularProblem) -> None:
    for index in (0, 17, 119):
        circuit = table.circuit(index)
        assert table.index(circuit) == index and table.energy(circuit) == -table.values[index]
        assert table.simplify(circuit) is circuit
    assert table.exact == -1 == table.lower_bound and table.threshold == pytest.approx(0.1)
    assert table.solved(-0.95) and not table.solved(-0.85)
    with pytest.raises(CircuitError, match="circuits of its pool only"):
        table.energy(Circuit(2, [("cx", (0, 1))] * 5))
    with pytest.raises(QasError, match="in memory only"):
        table.to_json()


def test_a_labelled_pool_is_found_by_name_and_in_a_run(folder: Path, tmp_path: Path) -> None:
    problem = load_problem(f"labelled {folder}:h2-2")
    assert isinstance(problem, TabularProblem) and problem.name == "labelled-p2-h2-2"
    assert np.array_equal(problem_from_json(problem.to_json()).values, problem.values)  # type: ignore[attr-defined]
    for text, words in ((str(folder), "POOL:TASK"), (f"{folder}:h2-3", "h2-2"), ("nowhere:h2-2", "no such pool")):
        with pytest.raises(QasError, match=words):
            load_problem(f"labelled {text}")
    changed = problem.to_json() | {"labels": "0" * 64}
    with pytest.raises(PoolError, match="have changed"):
        problem_from_json(changed)


@every_agent
def test_a_run_is_the_replay(agent: str, folder: Path, tmp_path: Path) -> None:
    problem = TabularProblem.load(f"{folder}:h2-2")
    found = replay(problem, agent, queries=30, seed=3, **OPTIONS[agent])
    run = qas.search(
        f"labelled {folder}:h2-2", agent=agent, options=OPTIONS[agent], steps=20, seed=3, out=tmp_path / "run"
    )
    run = qas.agents.resume(run.path, steps=30, report=False)
    assert -run.history()["energy"] == pytest.approx(found.values, abs=1e-10)
    best = run.best
    energy = problem.labels.problem.energy(best.circuit)
    assert problem.score(energy) == pytest.approx(-best.energy, abs=1e-9), "the angles are those of the label"


def test_agents_that_make_circuits_are_refused(folder: Path, tmp_path: Path) -> None:
    name = f"labelled {folder}:h2-2"
    for agent, options in (("evolution", {}), ("bo", {"mode": "open"}), ("knn", {"pool": str(folder)})):
        with pytest.raises(QasError) as caught:
            qas.search(name, agent=agent, options=options, steps=5, out=tmp_path / "run")
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- replays
@every_agent
def test_queries_are_look_ups_without_repetition(agent: str, table: TabularProblem) -> None:
    found = replay(table, agent, queries=37, **OPTIONS[agent])
    assert len(found.indices) == 37 == len(set(found.indices.tolist()))
    assert np.array_equal(found.values, table.values[found.indices])
    assert np.array_equal(found.found, [(found.values[: k + 1] >= 0.9).sum() for k in range(37)])
    assert found.best[-1] == found.values.max() and (np.diff(found.best) >= 0).all()
    other = replay(table, agent, queries=37, seed=1, **OPTIONS[agent])
    assert not np.array_equal(other.indices, found.indices)
    everything = replay(table, agent, queries=1000, **OPTIONS[agent])
    assert sorted(everything.indices.tolist()) == list(range(120))
    assert np.array_equal(everything.indices[:37], found.indices)
    assert everything.found[-1] == table.good.sum() and everything.recall(table, 10) == 1.0


def test_recall_by_hand(table: TabularProblem) -> None:
    order = table.top(120)
    some = order[[0, 2, 4, 50, 60]]
    found = Replay(some, table.values[some], 0.9)
    assert found.recall(table, 5) == pytest.approx(3 / 5) and found.recall(table, 1) == 1.0


PUBLISHED: dict[str, tuple[str, dict[str, Any], list[int]]] = {
    "random": ("random", {}, [96, 94, 77, 56, 2, 32, 44, 67, 47, 6, 22, 17, 79, 90, 116, 106]),
    "knn": ("knn", {}, [69, 56, 6, 15, 51, 85, 87, 110, 44, 31, 32, 48, 66, 2, 5, 70, 63, 98, 10, 12, 41, 46, 49, 57]),
    "reinforce": ("reinforce", {}, [2, 1, 8, 10, 12, 43, 7, 23, 62, 27, 0, 14, 28, 82, 13, 19, 73, 36, 85, 22]),
    "log-ei": ("bo", {}, [80, 99, 69, 39, 6, 54, 60, 5, 10, 4, 25, 32, 3]),
    "level-set": ("bo", {"acquisition": "level-set:threshold=0.95"},
                  [80, 99, 69, 39, 6, 54, 60, 5, 10, 12, 41, 46, 57, 18, 59, 78, 118, 29, 25, 94, 32, 105]),
    "mean": ("bo", {"acquisition": "mean"}, [80, 99, 69, 39, 6, 54, 60, 5, 18, 59, 78, 118, 29, 14, 19, 22, 30, 53]),
    "thompson": ("bo", {"acquisition": "thompson"}, [80, 99, 69, 39, 6, 54, 60, 5, 45, 20, 9, 87, 67, 103]),
}  # fmt: skip
"""Agent, options and the first circuits it looks up at seed 5, as far as rounding does not decide which."""


@pytest.mark.parametrize("case", PUBLISHED)
def test_searches_are_those_of_the_published_results(case: str, table: TabularProblem) -> None:
    """Found by the searchers that made the tables in results/unsupervised."""
    agent, options, indices = PUBLISHED[case]
    found = replay(table, agent, queries=len(indices), seed=5, **OPTIONS[agent] | options)
    assert found.indices.tolist() == indices


def test_wrong_input(table: TabularProblem) -> None:
    for agent, options, words in (
        ("randm", {}, "random"),
        ("random", {"batches": 3}, "batches"),
        ("beam", {}, "its own"),
    ):
        with pytest.raises((QasError, UnknownNameError), match=words):
            replay(table, agent, **options)
