"""Algorithms of Stable-Baselines3: the contract for one without masks, masks kept, the control, heads, old runs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces

import qas
from qas.agents import launch
from qas.agents.base import Search
from qas.agents.launch import resume
from qas.agents.rl.heads import policy_for
from qas.agents.rl.sb3 import ALGORITHMS, Sb3Agent
from qas.envs.builder import CircuitBuilderEnv
from qas.episodes import by_fifths
from qas.errors import MissingExtraError, QasError, RunError
from qas.runs import Recorder
from qas.testing import AgentContract
from qas.testing.agents import call_at, found

pytestmark = pytest.mark.filterwarnings("ignore:the algorithm knows no masks")
SMALL: dict[str, Any] = {"hidden": [16], "test_every": 3, "horizon": 60}
DQN = {"learning_starts": 5, "batch_size": 8, "buffer_size": 40, "target_update_interval": 7}


class TestDqn(AgentContract):
    """A replay buffer that is full, targets, exploration and illegal actions survive a break."""

    agent = "sb3"
    settings: ClassVar[dict[str, Any]] = {"options": SMALL | {"algorithm": "DQN", "settings": DQN}}


def small(out: Path, **options: Any) -> qas.runs.Run:
    return qas.search(
        "h2-2", agent="sb3", options=SMALL | options, evaluations=400, max_gates=6, seed=2, out=out, report=False
    )


class _Watched(CircuitBuilderEnv):
    illegal = 0

    def step(self, action: Any) -> Any:
        result = super().step(action)
        type(self).illegal += result[-1]["illegal"]
        return result


@pytest.mark.parametrize(
    "options",
    [{}, {"algorithm": "A2C"}, {"learn": False}, {"algorithm": "QRDQN", "settings": DQN, "observation": "lookahead"}],
    ids=["masks", "without masks", "twin", "table"],
)
def test_only_legal_actions_reach_the_environment(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in greedy episodes; every algorithm spends its budget and lists its episodes."""
    monkeypatch.setattr("qas.agents.rl.episodes.CircuitBuilderEnv", _Watched)
    monkeypatch.setattr(_Watched, "illegal", 0)
    run = small(tmp_path / "run", **options)
    assert run.evaluations == 400 and _Watched.illegal == 0
    episodes = run.episodes()
    assert (np.diff(np.flatnonzero(episodes["test"])) == 4).all() and episodes["test"].sum() >= 1
    assert sum(fifth.episodes + fifth.tests for fifth in by_fifths(run)) == len(episodes)


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., Any]:
    """The game of an agent that has not acted yet."""

    def made(**options: Any) -> Any:
        agent = Sb3Agent(**SMALL, **options)
        config = {
            "agent": "sb3", "options": {}, "seed": 3, "budget": {"evaluations": 1000}, "max_gates": 5,
            "gates": ["rx", "ry", "rz", "cx"], "evaluator": {},
        }  # fmt: skip
        launch._build(config, qas.load_problem("h2-2"), None, agent, Recorder(tmp_path / "run"))
        agent.search.record.recorder = None
        return agent.game

    return made


def test_an_illegal_action_costs_a_tenth_and_a_legal_one_is_played(played: Callable[..., Any]) -> None:
    seen = {}
    for name in ("illegal", "legal"):
        game = played(algorithm="A2C", reward="log")
        game.reset(seed=0)
        mask = game.action_masks()
        legal, illegal = np.flatnonzero(mask)[-1], np.flatnonzero(~mask)[0]
        game.drawn = lambda legal=legal: int(legal)
        observation, reward, *_ = game.step({"illegal": illegal, "legal": legal}[name])
        seen[name] = observation["circuit"].tolist(), reward
        assert game.illegal == (name == "illegal")
    assert seen["illegal"][0] == seen["legal"][0]
    assert seen["illegal"][1] == pytest.approx(seen["legal"][1] - 0.1, abs=1e-12)


def test_the_control_differs_in_nothing_but_its_choices(
    played: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same environment, the same seed, the same tests; actions even among the legal ones, also after a break."""
    options = {"halting": "random", "reward": "log", "curriculum": 1e-3, "optimise_every": 2, "observation": "graph"}
    envs = [played(learn=learn, **options).inner for learn in (True, False)]
    for name in ("max_gates", "optimise_every", "reward", "random_halting", "order"):
        assert getattr(envs[0], name) == getattr(envs[1], name)
    assert envs[0].curriculum.to_state() == envs[1].curriculum.to_state()
    assert envs[0].observation_space == envs[1].observation_space and envs[0].actions == envs[1].actions

    begun: list[tuple[int | None, bool]] = []
    ranks: list[float] = []
    reset, step = CircuitBuilderEnv.reset, CircuitBuilderEnv.step

    def noted_reset(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        begun.append((seed, bool((options or {}).get("training", True))))
        return reset(self, seed=seed, options=options)

    def noted_step(self: Any, action: Any) -> Any:
        legal = np.flatnonzero(self.action_masks())
        ranks.append((int(np.searchsorted(legal, action)) + 0.5) / len(legal))
        return step(self, action)

    monkeypatch.setattr(CircuitBuilderEnv, "reset", noted_reset)
    monkeypatch.setattr(CircuitBuilderEnv, "step", noted_step)
    small(tmp_path / "learner", **options)
    learner, ranks[:] = begun.copy(), []
    begun.clear()
    whole = small(tmp_path / "control", learn=False, **options)
    assert begun[0] == learner[0] != (None, True) and {seed for seed, _ in begun[1:] + learner[1:]} == {None}
    for told in (learner, begun):  # three to learn from, one that the curriculum is not told of
        assert [training for _, training in told] == [k % 4 != 3 for k in range(len(told))]
    quarters = np.histogram(ranks, bins=4, range=(0, 1))[0] / len(ranks)
    assert len(ranks) > 60 and (abs(quarters - 0.25) < 0.15).all()

    def die(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    call_at(whole.architectures * 2 // 3, die, monkeypatch)
    with pytest.raises(MemoryError):
        small(tmp_path / "killed", learn=False, **options)
    monkeypatch.undo()
    again = resume(tmp_path / "killed", report=False)
    assert found(again) == found(whole) and again.episodes().tolist() == whole.episodes().tolist()


def test_schedules_run_over_the_horizon(tmp_path: Path) -> None:
    agent = Sb3Agent(algorithm="DQN", settings=DQN, hidden=[8], horizon=60, test_every=0)
    qas.search("h2-2", agent=agent, evaluations=300, max_gates=6, out=tmp_path / "run", report=False)
    share = agent.model.num_timesteps / 60
    assert share > 0.1 and agent.model.exploration_rate == pytest.approx(1 - 0.95 * min(1.0, share), abs=0.04)


def test_the_editor_is_played(tmp_path: Path) -> None:
    for learn in (True, False):
        run = qas.search(
            "h2-2", agent="sb3", options={"env": "editor", "learn": learn, "settings": {"n_steps": 64}}, seed=1,
            evaluations=300, out=tmp_path / str(learn), report=False,
        )  # fmt: skip
        assert run.evaluations == 300 and len(run.episodes()) >= 1 and run.best.error < 1e-3


@pytest.mark.parametrize("name", ["MaskablePPO", "A2C", "DQN", "QRDQN"])
def test_rows_of_a_table_share_their_weights(name: str) -> None:
    """Permuted actions have permuted values."""
    rows, features = 5, 3
    box = spaces.Box(-1, 1, (rows * features,), np.float32)
    space = spaces.Dict({"actions": box, "general": spaces.Box(-1, 1, (2,), np.float32)})
    kind, settings = policy_for(ALGORITHMS[name], space, rows, (8,))
    torch.manual_seed(0)
    policy = kind(space, spaces.Discrete(rows), lambda _: 1e-3, **settings)
    rng = np.random.default_rng(1)
    table, order = rng.uniform(-1, 1, (rows, features)), rng.permutation(rows)

    def values(table: np.ndarray) -> np.ndarray:
        seen = {"actions": torch.tensor(table, dtype=torch.float32).view(1, -1), "general": torch.ones(1, 2)}
        with torch.no_grad():
            if name in ("DQN", "QRDQN"):
                net = policy.q_net if name == "DQN" else policy.quantile_net
                return net(seen).numpy()[0]
            return policy.get_distribution(seen).distribution.logits.numpy()[0]

    assert values(table)[..., order] == pytest.approx(values(table[order]), abs=1e-5)
    assert np.ptp(values(table)) > 1e-4


def test_runs_of_ppo_can_be_read_but_not_resumed(tmp_path: Path) -> None:
    run = small(tmp_path / "run", learn=False)
    config = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps(config | {"agent": "ppo", "options": {"batch_size": 8}}))
    assert qas.load_run(run.path).agent == "ppo"
    with pytest.raises(RunError, match="agent ppo became sb3"):
        resume(run.path, evaluations=800, report=False)


def test_logs_for_tensorboard_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tensorboard\]"):
        Sb3Agent(tensorboard=True)


def test_a_preset_lies_below_what_is_given(tmp_path: Path) -> None:
    run = qas.search(
        "lih-4", preset="crlqas-lih-4", options={"hidden": [8], "batch_size": 4}, evaluations=60, seed=0,
        evaluator={"max_evaluations": 20}, out=tmp_path / "run", report=False,
    )  # fmt: skip
    options, evaluator = run.config["options"], run.config["evaluator"]
    assert (options["hidden"], options["batch_size"], options["n_step"], options["gamma"]) == ([8], 4, 5, 0.88)
    assert (evaluator["optimizer"], evaluator["max_evaluations"], run.config["max_gates"]) == ("cobyla", 20, 40)


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [("MaskablePPO", {"n_epochs": 0}, "cannot learn"), ("DQN", DQN | {"train_freq": 0}, "(cannot learn|refuses)")],
)
def test_settings_that_fail_while_learning_are_told_in_one_line(
    algorithm: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    options = {"algorithm": algorithm, "settings": settings, "hidden": [8]}
    limits = {"evaluations": 3000, "max_gates": 4}
    with pytest.raises(QasError, match=f"{algorithm} {words}.* its settings"):
        qas.search("h2-2", agent="sb3", options=options, out=tmp_path / "run", report=False, **limits)
