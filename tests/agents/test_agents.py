"""Every agent: one budget, one record, reproducible, resumable; and the arithmetic inside the DDQN agent."""

from __future__ import annotations

import functools
import signal
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents import AGENTS, launch, list_agents, load_agent
from qas.agents.base import Budget, Search
from qas.errors import QasError, RunError, UnknownNameError
from qas.noise import load_noise
from qas.runs import HISTORY_COLUMNS, Run, load_run
from qas.simulators import make_simulator

# Small enough that the learning agents learn within a test.
OPTIONS: dict[str, dict[str, Any]] = {
    "ddqn": {"hidden": [16], "batch_size": 8, "learn_after": 10, "target_every": 5, "memory": 60},
    "ppo": {"hidden": [16], "n_steps": 16, "batch_size": 8, "n_epochs": 2},
    "evolution": {"population": 3},
    "beam": {"width": 2},
    "random": {},
    "bo": {"pool_size": 100, "initial": 8, "batch": 10, "features": "reduced"},
    "reinforce": {"pool_size": 100, "features": "latent"},
    "knn": {"pool_size": 100, "features": "reduced"},
}
GENERAL = tuple(name for name in AGENTS if name != "adapt")
"""Agents for problems of every kind; `adapt` takes targets of adapter layers only and has tests of its own."""
EVALUATIONS = 1500


def run_agent(agent: str, out: Path, *, problem: str = "h2-2", **settings: Any) -> Run:
    settings = {"evaluations": EVALUATIONS, "max_gates": 6, "seed": 0, "report": False} | settings
    if "steps" in settings:
        settings["evaluations"] = None
    return qas.search(problem, agent=agent, options=OPTIONS[agent], out=out, **settings)


def record(run: Run) -> tuple[Any, ...]:
    """Everything a run found, except times."""
    front = [(r.circuit.to_list(), r.energy, r.error, r.noise_free_energy, r.evaluations) for r in run.front]
    columns = [name for name in HISTORY_COLUMNS if name != "seconds"]
    return front, run.evaluations, run.architectures, run.history()[columns].tolist()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """agent -> a finished run at seed 0; made once."""

    @functools.cache
    def make(agent: str) -> Run:
        return run_agent(agent, tmp_path_factory.mktemp("runs") / agent)

    return make


def test_every_agent_is_tested_and_described() -> None:
    assert set(OPTIONS) == set(GENERAL) and {*GENERAL, "adapt"} == set(AGENTS) == set(list_agents())
    assert all(text and "\n" not in text for text in list_agents().values())
    assert all(load_agent(name).name == name for name in AGENTS)


# ---------------------------------------------------------------------- budget and record
@pytest.mark.parametrize("agent", GENERAL)
def test_budget_and_history_agree(agent: str, finished: Any) -> None:
    run = finished(agent)
    assert run.status == "finished"
    assert run.evaluations == EVALUATIONS, "all of it, and never more"
    history = run.history()
    assert len(history) == run.architectures > 10
    assert history["evaluations"][-1] == run.evaluations
    assert (np.diff(history["evaluations"]) >= 1).all()
    assert (np.diff(history["seconds"]) >= 0).all()
    assert history["best_error"] == pytest.approx(np.minimum.accumulate(history["error"]), rel=1e-5, abs=1e-14)
    assert history["gates"].max() <= 6
    assert (history["two_qubit_gates"] + history["angles"] == history["gates"]).all(), "rx ry rz cx"


@pytest.mark.parametrize("agent", GENERAL)
@pytest.mark.parametrize("evaluations", [1, 2, 37])
def test_small_budgets_are_obeyed(agent: str, evaluations: int, tmp_path: Path) -> None:
    run = run_agent(agent, tmp_path / "run", evaluations=evaluations)
    assert run.evaluations == evaluations
    # The learning agents first ask for the energy of the empty circuit, which counts.
    assert len(run.history()) == run.architectures >= (0 if evaluations == 1 and agent in ("ddqn", "ppo") else 1)


@pytest.mark.parametrize("agent", GENERAL)
def test_steps_count_architectures(agent: str, tmp_path: Path) -> None:
    run = run_agent(agent, tmp_path / "run", steps=25)
    assert run.architectures == 25 == len(run.history())


@pytest.mark.parametrize("agent", GENERAL)
def test_stored_energies_reproduce(agent: str, finished: Any) -> None:
    run = finished(agent)
    simulator = make_simulator(run.noise)
    assert run.front
    for result in run.front:
        energy = simulator.expectation(result.circuit, run.problem.hamiltonian)
        assert energy == pytest.approx(result.energy, abs=1e-9)
        assert result.error == pytest.approx(run.problem.error(energy), abs=1e-9)
        assert result.noise_free_energy == pytest.approx(energy, abs=1e-9)
        assert result.gates <= 6
    assert run.best.error == min(r.error for r in run.front)
    assert run.best.error == pytest.approx(run.history()["error"].min(), rel=2e-3, abs=1e-10)
    for a in run.front:
        assert not any(
            b.error < a.error and b.gates <= a.gates and b.two_qubit_gates <= a.two_qubit_gates
            for b in run.front
            if b is not a and b.error < a.error * (1 - 2e-3) - 1e-11
        ), "a point of the front is beaten by another"


@pytest.mark.parametrize("agent", GENERAL)
def test_device_noise_and_coupling(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every circuit that is evaluated, not only the front, must fit on the device."""
    noise = load_noise("ibm-ourense")
    assert noise is not None and noise.coupling is not None
    seen = []
    original = Search.evaluate

    def watch(self: Search, circuit: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(circuit)
        return original(self, circuit, *args, **kwargs)

    monkeypatch.setattr(Search, "evaluate", watch)
    run = run_agent(agent, tmp_path / "run", problem="tfim-4", noise=noise, max_gates=9, evaluations=1200)
    pairs = {tuple(sorted(g.qubits)) for c in seen for g in c if len(g.qubits) == 2}
    assert pairs and pairs <= set(noise.coupling)
    assert max(map(len, seen)) <= 9
    assert {g.name for c in seen for g in c} <= {"rx", "ry", "rz", "cx"}
    simulator, ideal = make_simulator(noise), make_simulator()
    for result in run.front:
        assert simulator.expectation(result.circuit, run.problem.hamiltonian) == pytest.approx(result.energy, abs=1e-9)
        free = ideal.expectation(result.circuit, run.problem.hamiltonian)
        assert free == pytest.approx(result.noise_free_energy, abs=1e-9)
    assert any(abs(r.energy - r.noise_free_energy) > 1e-4 for r in run.front)


# ---------------------------------------------------------------------- reproducibility
@pytest.mark.parametrize("agent", GENERAL)
def test_a_seed_fixes_the_run(agent: str, finished: Any, tmp_path: Path) -> None:
    assert record(run_agent(agent, tmp_path / "same")) == record(finished(agent))
    assert record(run_agent(agent, tmp_path / "other", seed=1)) != record(finished(agent))


@pytest.mark.parametrize("agent", GENERAL)
@pytest.mark.parametrize("after", [0.15, 0.5, 0.85])
def test_an_interrupted_run_resumes_as_if_unbroken(
    agent: str, after: float, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C takes effect at the agent's next safe point."""
    whole = finished(agent)
    _call_at(int(after * whole.architectures), lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    part = run_agent(agent, tmp_path / "run")
    monkeypatch.undo()
    if part.status == "finished":
        pytest.skip("the last safe point had passed")
    assert part.status == "interrupted" and part.evaluations < EVALUATIONS
    resumed = qas.agents.resume(part.path, report=False)
    assert resumed.status == "finished"
    assert record(resumed) == record(whole)


class Killed(BaseException):
    """Stands in for the end of the process."""


@pytest.mark.parametrize("agent", GENERAL)
@pytest.mark.parametrize("after", [0.02, 0.6])
def test_a_killed_run_resumes_from_its_checkpoint(
    agent: str, after: float, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(agent)

    def die() -> None:
        raise Killed

    monkeypatch.setattr(launch, "Search", functools.partial(Search, checkpoint_every=0.0))
    _call_at(max(2, int(after * whole.architectures)), die, monkeypatch)
    with pytest.raises(Killed):
        run_agent(agent, tmp_path / "run")
    monkeypatch.undo()
    assert record(qas.agents.resume(tmp_path / "run", report=False)) == record(whole)


@pytest.mark.parametrize("agent", GENERAL)
def test_a_run_killed_before_its_first_checkpoint_starts_again(
    agent: str, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Killed

    _call_at(5, die, monkeypatch)
    monkeypatch.setattr(launch, "Search", functools.partial(Search, checkpoint_every=1e9))
    with pytest.raises(Killed):
        run_agent(agent, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert record(qas.agents.resume(tmp_path / "run", report=False)) == record(finished(agent))


@pytest.mark.parametrize("agent", GENERAL)
def test_a_finished_run_goes_on_with_a_larger_budget(agent: str, finished: Any, tmp_path: Path) -> None:
    """Also where the first budget ended in the middle of an architecture: the longer run has no such seam."""
    first = run_agent(agent, tmp_path / "run", evaluations=611)
    assert first.status == "finished" and first.evaluations == 611
    longer = qas.agents.resume(first.path, evaluations=EVALUATIONS, report=False)
    assert record(longer) == record(finished(agent))


def _call_at(count: int, action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something right after the given number of architectures."""
    original = Search.evaluate

    def evaluate(self: Search, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        if self.architectures == count:
            action()
        return found

    monkeypatch.setattr(Search, "evaluate", evaluate)


# ---------------------------------------------------------------------- edges and input
@pytest.mark.parametrize("agent", GENERAL)
def test_an_exhausted_space_still_ends(agent: str, tmp_path: Path) -> None:
    """Of one gate on two qubits there are few circuits; agents that avoid repetition must not wait for new ones."""
    run = run_agent(agent, tmp_path / "run", max_gates=1, evaluations=600)
    assert run.evaluations == 600
    assert run.history()["gates"].max() <= 1


@pytest.mark.parametrize("agent", GENERAL)
def test_progress_is_reported(agent: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    run_agent(agent, tmp_path / "run", evaluations=None, seconds=0.9, on_progress=seen.append)
    assert seen
    assert [p.evaluations for p in seen] == sorted(p.evaluations for p in seen)
    assert all(0 <= p.fraction <= 1 and p.best_gates <= 6 for p in seen)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"agent": "ddqm"}, "ddqn"),
    ({"noise": "ibm-mumbay"}, "ibm-mumbai"),
    ({"problem": "h2-22"}, "h2-2"),
    ({"gates": ["rx", "cxx"]}, "cx"),
    ({"evaluations": 0}, "positive"),
    ({"evaluations": -3}, "positive"),
    ({"evaluations": None, "seconds": float("nan")}, "positive"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"max_gates": 0}, "max_gates"),
    ({"evaluator": {"tolerence": 1e-3}}, "tolerance"),
    ({"evaluator": {"optimizer": "lbfgs"}}, "l-bfgs"),
    ({"coupling": [(0, 7)]}, "0-7"),
    ({"agent": "beam", "options": {"widht": 2}}, "width"),
    ({"agent": "beam", "options": {"width": 0}}, "at least 1"),
    ({"agent": "evolution", "options": {"population": 0}}, "population"),
    ({"agent": "evolution", "options": {"changes": -1.0}}, "changes"),
    ({"agent": "random", "options": {"width": 2}}, "no settings"),
    ({"agent": "ddqn", "options": {"gamma": 1.5}}, "gamma"),
    ({"agent": "ddqn", "options": {"hidden": []}}, "hidden"),
    ({"agent": "ddqn", "options": {"halting": "rando"}}, "random"),
    ({"agent": "ppo", "options": {"batch_size": 1}}, "batch_size"),
    ({"agent": "reinforced"}, "reinforce"),
    ({"agent": "bo", "options": {"mode": "opn"}}, "open"),
    ({"agent": "knn", "options": {"encoder": "q3"}}, "unknown encoder"),
    ({"agent": "knn", "problem": "lih-6"}, "4 and 8 qubits"),
    ({"agent": "reinforce", "gates": ["rx", "h"]}, "rx, ry, rz, cx"),
]


@pytest.mark.parametrize(("settings", "words"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_bad_settings_are_one_line_and_leave_no_folder(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {"problem": "h2-2", "agent": "random", "evaluations": 50, "out": tmp_path / "run"} | settings
    problem = given.pop("problem")
    with pytest.raises(QasError, match=words) as caught:
        qas.search(problem, report=False, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_folders_are_never_overwritten(finished: Any, tmp_path: Path) -> None:
    run = finished("random")
    before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
    with pytest.raises(RunError, match="new or empty"):
        run_agent("random", run.path)
    assert {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()} == before
    with pytest.raises(RunError, match="no such run"):
        qas.agents.resume(tmp_path / "nothing")
    assert record(load_run(run.path)) == record(run)


def test_budgets() -> None:
    with pytest.raises(QasError, match="needs a budget"):
        Budget()
    with pytest.raises(UnknownNameError, match="random"):
        load_agent("randm")


# ---------------------------------------------------------------------- inside ddqn
@pytest.fixture
def ddqn(tmp_path: Path) -> Any:
    """A DDQN agent that has not acted yet."""
    from qas.runs import Recorder

    config = {
        "agent": "ddqn",
        "options": {"gamma": 0.5, "n_step": 3, "hidden": [8], "batch_size": 4, "learn_after": 1, "memory": 8},
        "seed": 3,
        "problem": qas.load_problem("h2-2").to_json(),
        "noise": None,
        "budget": {"evaluations": 1000},
        "max_gates": 5,
        "gates": ["rx", "ry", "rz", "cx"],
        "evaluator": {},
    }
    return launch._build(config, Recorder(tmp_path / "run"), None)[1]


class ScriptedEnvironment:
    """Pays 1, 2, 4, 8, … and ends after a number of steps."""

    def __init__(self, real: Any, length: int, terminated: bool) -> None:
        self.real, self.length, self.ends = real, length, terminated
        self.observation_space = real.observation_space
        self.steps = 0

    def _observation(self) -> dict[str, np.ndarray]:
        circuit = np.zeros(self.observation_space["circuit"].shape, dtype=np.int8)
        return {"circuit": circuit, "energy": np.array([self.steps], dtype=np.float32)}

    def _info(self) -> dict[str, Any]:
        mask = np.zeros(len(self.real.actions), dtype=bool)
        mask[[self.steps, self.steps + 1]] = True
        return {"action_mask": mask}

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        self.steps = 0
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        assert action in (self.steps, self.steps + 1), "an illegal action"
        self.steps += 1
        over = self.steps == self.length
        return self._observation(), 2.0 ** (self.steps - 1), over and self.ends, over and not self.ends, self._info()


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize(
    ("length", "expected"),
    [
        # (return from the step, what γⁿ it bootstraps with, the step it bootstraps from, whether that is the end)
        (4, [(3.0, 0.125, 3, False), (6.0, 0.125, 4, True), (8.0, 0.25, 4, True), (8.0, 0.5, 4, True)]),
        (2, [(2.0, 0.25, 2, True), (2.0, 0.5, 2, True)]),
        (3, [(3.0, 0.125, 3, True), (4.0, 0.25, 3, True), (4.0, 0.5, 3, True)]),
        (1, [(1.0, 0.5, 1, True)]),
    ],
)  # fmt: skip
def test_n_step_returns_by_hand(ddqn: Any, terminated: bool, length: int, expected: list[Any]) -> None:
    """γ = 1/2, n = 3: R = r + r'/2 + r''/4. A true end has no future; a truncation bootstraps."""
    ddqn.env = ScriptedEnvironment(ddqn.env, length, terminated)
    ddqn.learn_after = 10**9
    ddqn._episode()
    assert ddqn.buffer.size == length
    for row, (reward, discount, energy, at_end) in enumerate(expected):
        data = {name: column[row] for name, column in ddqn.buffer.data.items()}
        assert data["reward"] == pytest.approx(reward)
        assert data["discount"] == pytest.approx(0.0 if at_end and terminated else discount)
        assert data["energy"] == row and data["next_energy"] == energy
        assert np.flatnonzero(data["next_legal"]).tolist() == [energy, energy + 1]
    assert (ddqn.successes, ddqn.episodes) == (int(terminated), 1)


class FixedValues:
    """A network whose action values do not depend on the state."""

    def __init__(self, values: list[float]) -> None:
        import torch

        self.values = torch.tensor(values)

    def __call__(self, circuit: Any, energy: Any) -> Any:
        return self.values.repeat(len(circuit), 1)


def test_greedy_actions_are_legal(ddqn: Any) -> None:
    ddqn.epsilon = 0.0
    actions = len(ddqn.search.alphabet)
    observation, info = ddqn.env.reset(seed=0)
    values = np.arange(actions, dtype=float)
    ddqn.online = FixedValues(values.tolist())
    mask = np.zeros(actions, dtype=bool)
    for allowed in ([0], [1, 3], [2, 5, 4]):
        mask[:] = False
        mask[allowed] = True
        assert ddqn._act(observation, mask) == max(allowed)
    ddqn.online = FixedValues((-1000.0 - values).tolist())
    mask[:] = False
    mask[[2, 4]] = True
    assert ddqn._act(observation, mask) == 2, "values below those of illegal zeros"
    ddqn.epsilon = 1.0
    assert {ddqn._act(observation, mask) for _ in range(60)} == {2, 4}
    del info


@pytest.mark.parametrize("discount", [0.125, 0.0])
def test_the_target_is_double_masked_and_discounted(
    ddqn: Any, discount: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The online network chooses among legal actions, the target network values the choice."""
    import torch

    actions = len(ddqn.search.alphabet)
    rising = list(range(actions))
    ddqn.target = FixedValues([10.0 * (a + 1) for a in rising])
    online = ddqn.online
    legal = np.zeros(actions, dtype=bool)
    legal[[1, 4]] = True
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.zero_()
        online.layers[-1].bias.copy_(torch.tensor([float(a) for a in rising]))  # online: Q(s, a) = a, prefers the last
    nothing = np.full(ddqn.search.max_gates, ddqn.bits)
    ddqn.buffer.add(
        circuit=nothing, energy=0.0, action=2, reward=1.5, discount=discount,
        next_circuit=nothing, next_energy=0.0, next_legal=legal,
    )  # fmt: skip
    seen: list[tuple[Any, Any]] = []
    original = torch.nn.functional.smooth_l1_loss
    monkeypatch.setattr(
        torch.nn.functional, "smooth_l1_loss", lambda v, g: seen.append((v.detach(), g.detach())) or original(v, g)
    )
    ddqn._learn()
    value, goal = seen[0]
    assert value.numpy() == pytest.approx([2.0] * 4)
    assert goal.numpy() == pytest.approx([1.5 + discount * 50.0] * 4), "action 4 of the target network: 10 · (4 + 1)"
    assert online(torch.from_numpy(nothing[None]), torch.zeros(1))[0, 2].item() != 2.0, "an update was made"


def test_the_replay_buffer_is_a_ring() -> None:
    from qas.agents.rl.ddqn import ReplayBuffer

    buffer = ReplayBuffer(3, 2, 4)
    row = {"circuit": [0, 1], "action": 1, "reward": 0.0, "discount": 0.5, "next_circuit": [1, 2], "next_energy": 0.0}
    for k in range(5):
        buffer.add(energy=float(k), next_legal=[True] * 4, **row)
    assert buffer.size == 3 and sorted(buffer.data["energy"]) == [2.0, 3.0, 4.0]
    sample = buffer.sample(200, np.random.default_rng(0))
    assert set(sample["energy"].tolist()) == {2.0, 3.0, 4.0} and sample["next_legal"].shape == (200, 4)


def test_recent_steps_are_kept_apart_from_later_changes(ddqn: Any) -> None:
    """Observations that an environment may reuse must not change what is stored."""
    from qas.agents.rl.ddqn import _Step

    observation, info = ddqn.env.reset(seed=1)
    recent = deque([_Step(observation, 3, 1.0)])
    following = {"circuit": 1 - observation["circuit"], "energy": observation["energy"]}
    following["circuit"].ravel()[ddqn.search.max_gates :] = 0
    before = ddqn._positions(observation)
    ddqn._remember(recent, following, info["action_mask"], False)
    assert not recent
    assert np.array_equal(ddqn.buffer.data["circuit"][0], before)
    assert not np.array_equal(ddqn.buffer.data["circuit"][0], ddqn.buffer.data["next_circuit"][0])
