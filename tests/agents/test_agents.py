"""What holds of every agent beyond the contract: stored energies, devices, small spaces, noise and shots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents import AGENTS, list_agents, resume
from qas.agents.base import Search
from qas.envs.curricula import MovingThreshold
from qas.meter import Meter
from qas.noise import load_noise
from qas.runs import Run
from qas.simulators import make_simulator
from qas.testing.agents import call_at, found

EXACT = ("compact",)
"""Agents that compare exact energies, and take no noise."""
UNPLACED = ("adapt",)
"""Agents whose pools leave the qubits that a device couples."""
GENERAL = tuple(name for name in AGENTS if name not in EXACT)


def run_agent(agent: str, out: Path, problem: str = "h2-2", **settings: Any) -> Run:
    given = {"max_gates": 6, "evaluations": 600, "report": False} | AGENTS[agent].example() | settings
    given.pop("problem")
    return qas.search(problem, agent=agent, out=out, **given)


def test_every_agent_is_described() -> None:
    assert list(list_agents()) == list(AGENTS) and {*EXACT, *UNPLACED} <= set(AGENTS)
    assert all(AGENTS[name].name == name for name in AGENTS)


@pytest.mark.parametrize("agent", [name for name in GENERAL if name not in UNPLACED])
def test_device_noise_and_coupling(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every circuit that is evaluated, not only the front, must fit on the device; stored energies reproduce."""
    noise = load_noise("ibm-ourense")
    assert noise is not None and noise.coupling is not None
    seen = []
    original = Meter.evaluate

    def watch(self: Meter, circuit: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(circuit)
        return original(self, circuit, *args, **kwargs)

    monkeypatch.setattr(Meter, "evaluate", watch)
    run = run_agent(agent, tmp_path / "run", problem="tfim-4", noise=noise, max_gates=9, evaluations=600)
    pairs = {tuple(sorted(g.qubits)) for c in seen for g in c if len(g.qubits) == 2}
    assert pairs and pairs <= set(noise.coupling)
    assert max(map(len, seen)) <= 9
    assert {g.name for c in (*seen, *(r.circuit for r in run.front)) for g in c} <= {"rx", "ry", "rz", "cx"}
    simulator, ideal = make_simulator(noise), make_simulator()
    for result in run.front:
        assert simulator.expectation(result.circuit, run.problem.hamiltonian) == pytest.approx(result.energy, abs=1e-9)
        assert result.error == pytest.approx(run.problem.error(result.energy), abs=1e-9)
        free = ideal.expectation(result.circuit, run.problem.hamiltonian)
        assert free == pytest.approx(result.noise_free_energy, abs=1e-9)
        assert len(result.circuit) == 0 or (np.abs(result.circuit.angles) <= np.pi).all()
    assert any(abs(r.energy - r.noise_free_energy) > 1e-4 for r in run.front)
    history = run.history()
    assert run.best.error <= history["best_error"][-1] * (1 + 1.1e-3)
    for a in run.front:
        assert not any(
            b.gates <= a.gates and b.two_qubit_gates <= a.two_qubit_gates
            for b in run.front
            if b is not a and b.error < a.error * (1 - 2e-3) - 1e-11
        ), "a point of the front is beaten by another"


@pytest.mark.parametrize("agent", ["adapt", "bo", "ddqn", "evolution"])
def test_a_killed_noisy_search_resumes_exactly(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"noise": "ibm-mumbai", "max_gates": 6, "evaluations": 250, "seed": 3}
    whole = run_agent(agent, tmp_path / "whole", "lih-4", **settings)

    def die() -> None:
        raise MemoryError

    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    call_at(whole.architectures * 2 // 3, die, monkeypatch)
    with pytest.raises(MemoryError):
        run_agent(agent, tmp_path / "killed", "lih-4", **settings)
    monkeypatch.undo()
    assert found(resume(tmp_path / "killed", report=False)) == found(whole)


@pytest.mark.parametrize("agent", GENERAL)
def test_an_exhausted_space_still_ends(agent: str, tmp_path: Path) -> None:
    """Of one gate on two qubits there are few circuits; agents that avoid repetition must not wait for new ones."""
    run = run_agent(agent, tmp_path / "run", max_gates=1, evaluations=200)
    assert run.evaluations == 200
    assert run.history()["gates"].max() <= 1


@pytest.mark.parametrize("agent", ["random", "evolution", "ddqn"])
def test_shot_noise_is_counted_and_no_lucky_draw_is_reported(agent: str, tmp_path: Path) -> None:
    run = run_agent(
        agent, tmp_path / "run", evaluations=1500, seed=1,
        evaluator={"optimizer": "spsa", "shots": 200, "max_evaluations": 40},
    )  # fmt: skip
    assert run.evaluations == 1500
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
