"""Searches under hardware noise and under shots: what is recorded, counted and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents import AGENTS, resume
from qas.agents.base import Search
from qas.envs.curricula import MovingThreshold
from qas.runs import Run

SMALL: dict[str, dict[str, Any]] = {
    "ddqn": {"learn_after": 20, "batch_size": 8},
    "ppo": {"n_steps": 16, "batch_size": 8},
    "evolution": {},
    "beam": {"width": 1},
    "random": {},
    "bo": {"pool_size": 200, "features": "reduced", "batch": 10},
    "reinforce": {"pool_size": 200, "features": "latent"},
    "knn": {"pool_size": 200, "features": "reduced"},
}

GENERAL = tuple(name for name in AGENTS if name != "adapt")
"""Agents that search under noise; what `adapt` takes is judged without a simulator."""


def noisy(agent: str, out: Path, **settings: Any) -> Run:
    settings = {"evaluations": 6000, "max_gates": 8, "seed": 3, "report": False} | settings
    return qas.search("lih-4", noise="ibm-mumbai", agent=agent, options=SMALL[agent], out=out, **settings)


@pytest.mark.parametrize("agent", GENERAL)
def test_history_and_front_agree_under_noise(agent: str, tmp_path: Path) -> None:
    run = noisy(agent, tmp_path / "run")
    assert run.evaluations == 6000
    assert run.history()["best_error"][-1] == pytest.approx(run.best.error, rel=1.1e-3)
    simulator = qas.simulators.make_simulator("ibm-mumbai")
    for result in run.front:
        assert simulator.expectation(result.circuit, run.problem.hamiltonian) == pytest.approx(result.energy, abs=1e-10)
        assert result.noise_free_energy != pytest.approx(result.energy, abs=1e-4)


@pytest.mark.parametrize("agent", GENERAL)
def test_a_killed_noisy_run_resumes_exactly(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = noisy(agent, tmp_path / "whole")
    calls = 0
    evaluate = Search.evaluate

    def dies(self: Search, *arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == whole.architectures * 2 // 3:
            raise MemoryError("killed")
        return evaluate(self, *arguments, **settings)

    monkeypatch.setattr(Search, "evaluate", dies)
    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    with pytest.raises(MemoryError):
        noisy(agent, tmp_path / "killed")
    monkeypatch.undo()
    again = resume(tmp_path / "killed", report=False)
    assert again.evaluations == whole.evaluations and again.architectures == whole.architectures
    assert [(r.circuit, r.energy) for r in again.front] == [(r.circuit, r.energy) for r in whole.front]
    for column in ("evaluations", "energy", "error", "best_error"):
        assert np.array_equal(again.history()[column], whole.history()[column])


@pytest.mark.parametrize("agent", ["random", "evolution", "ddqn"])
def test_shot_noise_is_counted_and_no_lucky_draw_is_reported(agent: str, tmp_path: Path) -> None:
    run = qas.search(
        "h2-2", agent=agent, options=SMALL[agent], evaluations=3000, max_gates=6, seed=1, report=False,
        out=tmp_path / "run", evaluator={"optimizer": "spsa", "shots": 200, "max_evaluations": 40},
    )  # fmt: skip
    assert run.evaluations == 3000
    deviation = np.sqrt(np.sum(run.problem.hamiltonian.coefficients[1:] ** 2) / 200)
    for result in run.front:
        assert abs(result.energy - result.noise_free_energy) < 5 * deviation
    if agent != "evolution":  # which goes on with the second estimate
        # The history holds the estimates the agent saw; the front holds independent ones.
        seen = set(run.history()["energy"])
        assert not any(float(f"{result.energy:.12g}") in seen for result in run.front)


def test_the_curriculum_comes_within_reach_under_noise() -> None:
    problem = qas.load_problem("lih-4")
    rng = np.random.default_rng(0)
    curriculum = MovingThreshold.for_problem(problem)
    successes = 0
    for _ in range(200):  # the best that can be reached is 0.05, far above the first threshold
        error = 0.05 + rng.exponential(0.01)
        curriculum.observe(problem.exact + error)
        success = error < curriculum.threshold
        successes += success
        curriculum.end_episode(success)
    assert successes > 3
    assert 0.04 < curriculum.threshold < 0.055
