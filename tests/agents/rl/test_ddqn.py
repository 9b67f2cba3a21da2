"""The arithmetic inside the DDQN agent: returns, targets, masks, priorities, tests, and its control."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import qas
from qas.agents import launch
from qas.agents.base import Search
from qas.agents.rl.ddqn import DdqnAgent
from qas.agents.rl.learners import BitsLearner, TorchLearner
from qas.agents.rl.memory import Encoder, Memory
from qas.agents.rl.networks import BitsNetwork, RowsNetwork
from qas.agents.settings import make_agent
from qas.errors import QasError
from qas.runs import Recorder
from qas.testing.agents import call_at, found

SMALL = {"gamma": 0.5, "n_step": 3, "hidden": [8], "batch_size": 4, "learn_after": 1, "memory": 30, "test_every": 0}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """A DDQN agent that has not acted yet."""

    def made(**options: Any) -> Any:
        config = {
            "agent": "ddqn",
            "options": SMALL | options,
            "seed": 3,
            "budget": {"evaluations": 1000},
            "max_gates": 5,
            "gates": ["rx", "ry", "rz", "cx"],
            "evaluator": {},
        }
        agent = make_agent("ddqn", config["options"])
        launch._build(config, qas.load_problem("h2-2"), None, agent, Recorder(tmp_path / "run"))
        return agent

    return made


class ScriptedEnvironment:
    """One circuit at a time: pays 1, 2, 4, 8, … and ends after a number of steps."""

    def __init__(self, real: Any, length: int, terminated: bool) -> None:
        self.real, self.length, self.ends = real, length, terminated
        self.steps = 0
        self.trainings: list[bool] = []

    def _seen(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        circuit = np.zeros((1, *self.real.single_observation_space["circuit"].shape), dtype=np.int8)
        mask = np.zeros((1, len(self.real.envs[0].actions)), dtype=bool)
        mask[0, [self.steps, self.steps + 1]] = True
        energy = np.array([[self.steps]], dtype=np.float32)
        observation = {"circuit": circuit, "energy": energy, "threshold": 0 * energy}
        circuits = np.array([qas.Circuit(2)] * 1, dtype=object)
        info = {"action_mask": mask, "success": np.array([self.ends]), "circuit": circuits, "error": np.zeros(1)}
        return observation, info

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self.steps = 0
        if options is not None:
            self.trainings.append(options["training"])
        return self._seen()

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, Any]:
        assert actions[0] in (self.steps, self.steps + 1), "an illegal action"
        self.steps += 1
        over = self.steps == self.length
        observation, info = self._seen()
        ends = np.array([over and self.ends]), np.array([over and not self.ends])
        return observation, np.array([2.0 ** (self.steps - 1)]), *ends, info


def play(agent: Any, episodes: int) -> None:
    observations, infos = agent.env.reset(seed=0)
    agent.rows = [agent._keep(k, observations, infos["action_mask"]) for k in range(agent.envs)]
    while agent.episodes + agent.tests < episodes:
        agent._step()


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
def test_n_step_returns_by_hand(make: Callable[..., Any], terminated: bool, length: int, expected: list[Any]) -> None:
    """γ = 1/2, n = 3: R = r + r'/2 + r''/4. A true end has no future; a truncation bootstraps."""
    agent = make()
    agent.learn_after = 10**9
    agent.env = ScriptedEnvironment(agent.env, length, terminated)
    play(agent, 1)
    data = agent.replay.data
    assert agent.replay.transitions == length
    for row, (reward, discount, at, at_end) in enumerate(expected):
        assert data["priority"][row] > 0 and data["numbers"][row, 0] == row
        assert data["reward"][row] == pytest.approx(reward)
        if at_end and terminated:
            assert data["discount"][row] == 0.0
            continue
        following = data["next"][row]
        assert data["discount"][row] == pytest.approx(discount) and data["numbers"][following, 0] == at
        assert np.flatnonzero(data["legal"][following]).tolist() == [at, at + 1]
    assert (agent.successes, agent.episodes) == (int(terminated), 1)


def fix(agent: Any, owner: str, values: list[float]) -> None:
    """Let a network's action values not depend on the state."""
    arrays = agent.learner.arrays()
    for name, array in arrays.items():
        if name.startswith(f"{owner}."):
            array[...] = 0.0
    arrays[f"{owner}.layers.0.bias"][:] = values
    agent.learner.restore(arrays)


def test_greedy_actions_are_legal(make: Callable[..., Any]) -> None:
    agent = make()
    observations, infos = agent.env.reset(seed=0)
    agent.rows = [agent._keep(0, observations, infos["action_mask"])]
    legal = agent.replay.data["legal"][agent.rows[0]]
    values = np.arange(len(legal), dtype=float)
    agent.epsilon = 0.0
    for lift in (0.0, -1000.0):  # also where all values are below those of illegal zeros
        for allowed in ([0], [1, 3], [2, 5, 4]):
            legal[:] = False
            legal[allowed] = True
            fix(agent, "online", (values + lift).tolist())
            assert agent._act().tolist() == [max(allowed)]
    agent.epsilon = 1.0
    assert {int(agent._act()[0]) for _ in range(60)} == {2, 4, 5}
    agent.testing[:] = True
    assert agent._act().tolist() == [5], "a test is played greedily"
    agent.learn = False
    assert {int(agent._act()[0]) for _ in range(60)} == {2, 4, 5}, "the control's is not"


@pytest.mark.parametrize("kind", [BitsLearner, TorchLearner])
@pytest.mark.parametrize("discount", [0.125, 0.0])
def test_the_target_is_double_masked_and_discounted(make: Callable[..., Any], discount: float, kind: Any) -> None:
    """The online network chooses among legal actions, the target network values the choice."""
    agent = make(priority=0.5)
    actions = len(agent.search.alphabet)
    network = BitsNetwork(agent.encoder.bits, agent.encoder.numbers, (8,), actions, torch.Generator())
    agent.learner = kind(network, 1e-2)
    legal = np.zeros(actions, dtype=bool)
    legal[[1, 4]] = True
    observations, _ = agent.env.reset(seed=0)
    first, second = (agent._keep(0, observations, legal[None]) for _ in range(2))
    agent.replay.complete(first, 2, 1.5, discount, second)
    fix(agent, "target", [10.0 * (a + 1) for a in range(actions)])
    fix(agent, "online", list(range(actions)))  # online: Q(s, a) = a, prefers the last

    def value() -> float:
        return float(agent.learner.values(agent.replay.data, np.array([first]))[0, 2])

    before = value()
    agent._update()
    goal = 1.5 + discount * 50.0  # action 4 of the target network: 10 · (4 + 1)
    error = abs(goal - 2.0)
    assert before == 2.0
    assert agent.replay.largest == pytest.approx(max(1.0, error))
    assert agent.replay.data["priority"][first] == pytest.approx((error + 0.01 * max(1.0, error)) ** 0.5)
    assert (value() - before) * (goal - before) > 0


def test_the_memory_is_a_ring_that_replays_by_priority() -> None:
    encoder = Encoder(spaces.Dict({"a": spaces.MultiBinary((2, 3)), "b": spaces.Box(-1, 1, (2,))}), 4)
    assert (encoder.bits, encoder.numbers) == (6, 2)
    positions, numbers = encoder({"a": np.array([[0, 1, 0], [0, 0, 1]]), "b": np.array([0.5, -0.5], np.float32)})
    assert positions.tolist() == [1, 5, 6, 6] and numbers.tolist() == [0.5, -0.5]
    memory = Memory(4, encoder, 3, 1.0)
    rows = [memory.put((positions, numbers), np.ones(3, dtype=bool)) for _ in range(3)]
    memory.complete(0, 1, 0.0, 0.5, 1)
    memory.complete(1, 2, 0.0, 0.5, 2)
    assert rows == [0, 1, 2] and memory.transitions == 2
    memory.learned(np.array([0, 1]), np.array([3.0, 0.97]))
    drawn, weights = memory.sample(4000, np.random.default_rng(0))
    share = (drawn == 0).mean()
    assert set(drawn) == {0, 1} and share == pytest.approx(3.03 / 4.03, abs=0.03)
    assert weights[drawn == 1].max() == 1.0
    assert weights[drawn == 0].max() == pytest.approx((1.0 / 3.03) ** 0.5, rel=1e-5)
    for _ in range(2):
        memory.put((positions, numbers), np.ones(3, dtype=bool))
    assert memory.transitions == 1 and set(memory.sample(50, np.random.default_rng(0))[0]) == {1}
    with pytest.raises(QasError, match="bits and boxes"):
        Encoder(spaces.Dict({"a": spaces.Discrete(3)}), 4)


def test_new_transitions_come_first_until_they_are_learned_from() -> None:
    encoder = Encoder(spaces.Dict({"b": spaces.Box(-1, 1, (1,))}), 0)
    memory = Memory(4, encoder, 1, 0.5)
    for row, error in enumerate((9.0, 4.0)):
        memory.put((np.zeros(0, np.int32), np.zeros(1, np.float32)), np.ones(1, dtype=bool))
        memory.complete(row, 0, 0.0, 0.0, row)
        assert memory.data["priority"][row] == (1.0, 3.0)[row]
        memory.learned(np.array([row]), np.array([error]))
    assert memory.largest == 9.0 and memory.data["priority"][:2] == pytest.approx(np.sqrt([9.09, 4.09]))


def test_exploration_updates_and_targets_keep_their_schedule(make: Callable[..., Any]) -> None:
    agent = make(
        learn_after=4, updates=2, target_every=3, epsilon_decay=0.9, epsilon_floor=0.5, envs=2, gamma=None, n_step=1
    )
    assert agent.discount**5 == pytest.approx(0.005), "an episode is 5 gates"
    agent.search.record.recorder = None
    copied: list[int] = []
    agent.learner.follow = lambda: copied.append(agent.updated)
    observations, infos = agent.env.reset(seed=0)
    agent.rows = [agent._keep(k, observations, infos["action_mask"]) for k in range(2)]
    told = []
    for _ in range(6):
        agent._step()
        told.append((agent.updated, round(agent.epsilon, 4)))
    # Two transitions a step: the first updates come with the second one; ε falls for each circuit.
    assert told == [(0, 1.0), (2, 0.81), (4, 0.6561), (6, 0.5314), (8, 0.5), (10, 0.5)]
    assert copied == [3, 6, 9]


def test_the_weights_of_replay_are_in_the_loss(make: Callable[..., Any]) -> None:
    agent = make()
    agent.learn_after = 10**9
    agent.env = ScriptedEnvironment(agent.env, 4, True)
    play(agent, 2)
    before = {name: array.copy() for name, array in agent.learner.arrays().items() if name.startswith("online.")}
    for weight, same in ((0.0, True), (1.0, False)):
        agent.replay.sample = lambda count, rng, w=weight: (np.zeros(count, int), np.full(count, w, np.float32))
        agent._update()
        now = agent.learner.arrays()
        assert all(np.array_equal(array, now[name]) for name, array in before.items()) is same


def test_values_of_rows_go_with_their_actions() -> None:
    network = RowsNetwork(5, 4, 3, (8, 8), torch.Generator().manual_seed(0))
    rows, general = torch.rand(2, 5, 4), torch.rand(2, 3)
    order = torch.tensor([3, 1, 4, 0, 2])

    def values(rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = network(torch.empty(2, 0, dtype=torch.int32), torch.cat([rows.flatten(1), general], 1))
        return made

    assert values(rows[:, order]).detach().numpy() == pytest.approx(values(rows)[:, order].detach().numpy(), abs=1e-6)


def test_every_so_often_an_episode_is_a_test(make: Callable[..., Any]) -> None:
    agent = make(test_every=2)
    agent.learn_after = 10**9
    agent.env = ScriptedEnvironment(agent.env, 2, True)
    play(agent, 8)
    assert agent.env.trainings == [True, False, True, True, False, True, True, False]
    assert (agent.episodes, agent.tests, agent.tests_solved) == (6, 2, 2)
    assert [episode.test for episode in agent.search.record.episodes] == [False, False, True] * 2 + [False] * 2


@pytest.mark.parametrize("observation", ["layers", "lookahead", "graph"])
def test_several_circuits_resume_exactly_and_their_control_learns_nothing(
    observation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SMALL | {"observation": observation, "envs": 3, "optimise_every": "end", "test_every": 2}
    options |= {"halting": "random", "reward": "log", "curriculum": 1e-3}
    settings = {"agent": "ddqn", "evaluations": 500, "max_gates": 6, "seed": 1, "report": False}

    def search(name: str, **more: Any) -> Any:
        return qas.search("h2-2", options=options | more, out=tmp_path / name, **settings)

    whole = search("whole")

    def die(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    call_at(whole.architectures * 2 // 3, die, monkeypatch)
    with pytest.raises(MemoryError):
        search("killed")
    monkeypatch.undo()
    again = qas.agents.resume(tmp_path / "killed", report=False)
    assert found(again) == found(whole)
    assert again.episodes().tolist() == whole.episodes().tolist() and whole.episodes()["test"].any()
    monkeypatch.setattr(DdqnAgent, "_learn", die)
    control = search("control", learn=False)
    assert control.evaluations == whole.evaluations == 500
    with pytest.raises(MemoryError):
        search("learning")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "logg"}, "log"),
        ({"observation": "lookahed"}, "lookahead"),
        ({"curriculum": "moved"}, "moving"),
        ({"halting": "randon"}, "random"),
        ({"optimise_every": "never"}, "optimise_every"),
        ({"envs": 0}, "envs is a whole number from 1"),
        ({"priority": 2.0}, "priority"),
        ({"memory": 30, "learn_after": 26}, "got a memory of 30 observations, 5 of which"),
    ],
)
def test_wrong_options(make: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(QasError, match=message):
        make(**options)
