"""The policy-gradient searcher: nearest unvisited points, the order of baseline and loss, one step by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from qas.agents.pool.reinforce import PAPER_SETTINGS, Policy, ReinforceSearcher
from qas.errors import QasError


def make(**options: Any) -> ReinforceSearcher:
    points = np.random.default_rng(0).normal(size=(120, 3))
    return ReinforceSearcher(points, np.random.default_rng(1), **({"hidden": 6, "first_batch": 4} | options))


def start(searcher: ReinforceSearcher) -> np.ndarray:
    first = searcher.ask()
    assert first.size == 1
    searcher.tell(first, [0.1])
    return searcher.ask()


def test_actions_are_answered_by_the_nearest_unvisited_points() -> None:
    searcher = make()
    first = searcher.ask()
    searcher.tell(first, [0.1])
    batch = searcher.ask()
    left = np.ones(120, dtype=bool)
    left[first] = False
    for action, index in zip(searcher._actions, batch, strict=True):
        distance = np.where(left, ((searcher.points - action) ** 2).sum(axis=1), np.inf)
        assert index == np.argmin(distance)
        left[index] = False


def lstm(policy: Policy, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One LSTM cell from the textbook: gates i, f, g, o stacked in this order."""
    w = {k: v.detach().double().numpy() for k, v in policy.state_dict().items()}
    gates = w["cell.weight_ih"] @ x + w["cell.bias_ih"] + w["cell.weight_hh"] @ h + w["cell.bias_hh"]
    i, f, g, o = np.split(gates, 4)
    c = 1 / (1 + np.exp(-f)) * c + 1 / (1 + np.exp(-i)) * np.tanh(g)
    return 1 / (1 + np.exp(-o)) * np.tanh(c), c


def test_the_loss_is_the_formula_and_the_memory_starts_empty() -> None:
    searcher = make()
    batch = start(searcher)
    rewards = np.array([0.2, 0.9, 0.4, 0.7])
    h, c = np.zeros(6), np.zeros(6)
    head = {k: v.detach().double().numpy() for k, v in searcher.policy.head.state_dict().items()}
    logs = []
    for state, action in zip([searcher._start, *batch[:-1]], searcher._actions, strict=True):
        h, c = lstm(searcher.policy, searcher.points[state], h, c)
        mean = head["weight"] @ h + head["bias"]
        logs.append(-0.5 * ((action - mean) ** 2).sum() - 1.5 * math.log(2 * math.pi))
    expected = -np.mean(np.array(logs) * (rewards - searcher.baseline))
    assert searcher._loss(rewards).item() == pytest.approx(expected, rel=1e-5)


def test_the_baseline_moves_before_the_loss_and_adam_takes_one_step() -> None:
    searcher = make(alpha=0.8, baseline=0.5, lr=0.01)
    batch = start(searcher)
    rewards = np.array([0.2, 0.9, 0.4, 0.8])
    moved = 0.8 * 0.5 + 0.2 * rewards.mean()
    searcher.baseline = moved
    gradients = torch.autograd.grad(searcher._loss(rewards), list(searcher.policy.parameters()))
    searcher.baseline = 0.5
    before = [p.detach().clone() for p in searcher.policy.parameters()]
    searcher.tell(batch[:2], rewards[:2])
    assert searcher.baseline == 0.5, "nothing happens until the batch is told in full"
    searcher.tell(batch[2:], rewards[2:])
    assert searcher.baseline == pytest.approx(moved)
    for old, new, g in zip(before, searcher.policy.parameters(), gradients, strict=True):
        # The first step of Adam: lr * g / (|g| + eps)
        assert torch.allclose(new, old - 0.01 * g / (g.abs() + 1e-8), atol=1e-6)


@pytest.mark.parametrize(("reward", "size"), [(0.49, 8), (0.5, 16), (0.7, 24), (0.94, 24), (0.95, 32)])
def test_batches_grow_with_the_mean_reward(reward: float, size: int) -> None:
    searcher = make()
    batch = start(searcher)
    searcher.tell(batch, np.full(4, reward))
    assert len(searcher.ask()) == size


def test_rewards_of_actions_in_one_direction_pull_the_policy_there() -> None:
    points = np.random.default_rng(0).normal(size=(4000, 2))
    searcher = ReinforceSearcher(points, np.random.default_rng(3))
    early, late = [], []
    for step in range(40):
        batch = searcher.ask()
        values = 1 / (1 + np.exp(-2 * points[batch, 0]))
        searcher.tell(batch, values)
        (early if step < 3 else late if step >= 25 else []).extend(values.tolist())
    assert np.mean(late) > 0.75 > np.mean(early)


def test_whole_batches_prior_points_and_settings() -> None:
    searcher = make()
    start(searcher)
    with pytest.raises(QasError, match="whole batches: tell the 4 pending"):
        searcher.ask()
    weights = [p.detach().clone() for p in searcher.policy.parameters()]
    left = np.flatnonzero(searcher._open)[:2]
    searcher.tell(left, [0.5, 0.6], prior=True)
    assert all(torch.equal(a, b) for a, b in zip(weights, searcher.policy.parameters(), strict=True))
    assert len(PAPER_SETTINGS) == 6
    for options in PAPER_SETTINGS.values():
        make(**options)


def test_torch_s_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    start(make())
    assert torch.equal(before, torch.get_rng_state())
