"""The arithmetic inside the DDQN agent: returns, targets, masks, memory."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents import launch
from qas.agents.settings import make_agent
from qas.runs import Recorder


@pytest.fixture
def ddqn(tmp_path: Path) -> Any:
    """A DDQN agent that has not acted yet."""
    config = {
        "agent": "ddqn",
        "options": {"gamma": 0.5, "n_step": 3, "hidden": [8], "batch_size": 4, "learn_after": 1, "memory": 8},
        "seed": 3,
        "budget": {"evaluations": 1000},
        "max_gates": 5,
        "gates": ["rx", "ry", "rz", "cx"],
        "evaluator": {},
    }
    agent = make_agent("ddqn", config["options"])
    launch._build(config, qas.load_problem("h2-2"), None, agent, Recorder(tmp_path / "run"))
    return agent


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
