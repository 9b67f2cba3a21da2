"""A teacher that tries every edit before it takes one, and a policy that learns to see what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.policy import CandidatePolicy, chosen
from qas.envs.candidates import FEATURES, GENERAL
from qas.envs.editor import DECADES, CircuitEditorEnv

PER_GATE = 0.005
"""Powers of ten of the error that a two-qubit gate has to win."""
_SHARPNESS = 0.02
"""Temperature of the teacher's choice, powers of ten."""
_PROMISE = 3e-3
"""What a power of e of the closed-form gain counts beside a power of ten of the error: where nothing is won at once."""
_WEARY = 0.05
"""What an edit loses each time that it was tried without success, powers of ten."""
_EXPLORED = 0.1
"""Share of the teacher's steps that are drawn evenly."""
_TAUGHT = 0.3
"""Share of the steps that the teacher takes once there is a student."""
_WARMTH = 0.5
"""Temperature of the student's steps."""
_DISCOUNT = 0.97
_CLIPPED = 1.0
"""Largest norm of a gradient."""


@dataclass
class Lessons:
    """States of the editor with what each edit was worth there."""

    candidates: list[np.ndarray] = field(default_factory=list)  # float32 (K * F,)
    general: list[np.ndarray] = field(default_factory=list)  # float32 (G,)
    mask: list[np.ndarray] = field(default_factory=list)  # bool (K,)
    wish: list[np.ndarray] = field(default_factory=list)  # float32 (K,): the teacher's distribution
    returns: list[float] = field(default_factory=list)
    """discounted rewards from there to the end of the episode"""

    def __len__(self) -> int:
        return len(self.returns)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, a row for each state; `from_arrays` takes them back."""
        held = {name: np.stack(getattr(self, name)) for name in _COLUMNS} if len(self) else {}
        return held | {"returns": np.array(self.returns, dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Lessons:
        """Of what `arrays` returned.

        Raises:
            ValueError: they do not fit together.
        """
        count = len(arrays["returns"])
        if not count:
            return cls()
        shapes = [arrays[name].shape for name in _COLUMNS]
        rows = arrays["mask"].shape[-1]
        if shapes != [(count, rows * len(FEATURES)), (count, len(GENERAL)), (count, rows), (count, rows)]:
            raise ValueError(f"lessons of shapes {shapes}")
        return cls(**{name: list(arrays[name]) for name in _COLUMNS}, returns=arrays["returns"].tolist())

    def tensors(self, first: int = 0) -> tuple[torch.Tensor, ...]:
        """(candidates, general, mask, wish, returns), a row for each state from the first one on."""
        stacked = [torch.from_numpy(np.stack(getattr(self, name)[first:])) for name in _COLUMNS]
        return (*stacked, torch.tensor(self.returns[first:], dtype=torch.float32))


_COLUMNS = ("candidates", "general", "mask", "wish")


def worths(env: CircuitEditorEnv) -> np.ndarray:
    """What each legal edit is worth in the end, powers of ten of the error, float64, shape (K,); -inf elsewhere.

    All are done and their angles optimised. What an edit wins of the error's logarithm, less `PER_GATE` for each
    two-qubit gate more, counts for as many evaluations as an edit usually takes; stopping is worth nothing, and taking
    an edit back is what the teacher need not do.
    """
    floor = env.gap * 10**-DECADES
    here = math.log10(max(env.problem.error(env.energy), floor))
    promise = _PROMISE * (closed_form_scores(env.table.features) - math.log(1e-9))
    usual = env.table.evaluations + env.evaluations_each
    tried = env.table.features[:, FEATURES.index("tried")]
    found = np.full(env.candidates, -np.inf)
    for row, edit in enumerate(env.table.edits):
        if edit is None:
            continue
        if edit.kind == "stop":
            found[row] = 0.0
            continue
        if edit.kind == "undo":
            found[row] = -1.0
            continue
        after, spent = env.foreseen(row)
        won = here - math.log10(max(env.problem.error(after.energy), floor))
        more = after.circuit.two_qubit_gates - env.circuit.two_qubit_gates
        worth = won - PER_GATE * more
        rate = usual / max(1, env.table.evaluations + spent) if worth > 0 else 1.0
        found[row] = worth * min(rate, 1.5) + promise[row] - _WEARY * tried[row]
    return found


def distribution(values: np.ndarray) -> np.ndarray:
    """The teacher's choice as probabilities, float32, shape (K,)."""
    weights = np.exp((values - values.max()) / _SHARPNESS)
    return (weights / weights.sum()).astype(np.float32)


def taught_episode(
    env: CircuitEditorEnv,
    student: CandidatePolicy | None,
    rng: np.random.Generator,
    lessons: Lessons,
    may_go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Play an episode, of the teacher or mostly of the student, every state of it labelled by the teacher (DAgger).

    Ross et al., arXiv:1011.0686: a student that only saw the teacher's states would not know its way back from others.
    """
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    rewards: list[float] = []
    ended = False
    while not ended and (not rewards or may_go_on()):
        values, mask = worths(env), info["action_mask"]
        wish = distribution(values)
        lessons.candidates.append(observation["candidates"])
        lessons.general.append(observation["general"])
        lessons.mask.append(mask)
        lessons.wish.append(wish)
        action = _taken(student, observation, mask, wish, rng)
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(float(reward))
        ended = terminated or truncated
    total, returns = 0.0, []
    for reward in reversed(rewards):
        total = reward + _DISCOUNT * total
        returns.append(total)
    lessons.returns += reversed(returns)


def _taken(
    student: CandidatePolicy | None,
    observation: dict[str, np.ndarray],
    mask: np.ndarray,
    wish: np.ndarray,
    rng: np.random.Generator,
) -> int:
    if rng.random() < _EXPLORED:
        legal = np.flatnonzero(mask)
        return int(legal[rng.integers(len(legal))])
    if student is None or rng.random() < _TAUGHT:
        return int(rng.choice(len(wish), p=wish / wish.sum(dtype=np.float64)))
    return chosen(student.scores(observation), mask, _WARMTH, rng)


def fit(
    policy: CandidatePolicy,
    lessons: Lessons,
    *,
    epochs: int,
    rng: np.random.Generator,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    may_go_on: Callable[[], bool] = lambda: True,
) -> float:
    """Minimize the cross entropy between the teacher's choice and the policy's, and the squared error of the values.

    Returns:
        Mean cross entropy above the teacher's own entropy in the last epoch, in nats; NaN before the first.
    """
    candidates, general, mask, wish, returns = lessons.tensors()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=1e-3)
    steps = epochs * math.ceil(len(lessons) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    policy.train()
    last = math.nan
    for _ in range(epochs):
        order, losses = torch.from_numpy(rng.permutation(len(lessons))), []
        for rows in order.split(batch_size):
            scores, values = policy(candidates[rows], general[rows])
            log_p = scores.masked_fill(~mask[rows], -1e9).log_softmax(-1)
            p = wish[rows]
            loss = (p * (p.clamp(min=1e-9).log() - log_p)).sum(-1).mean()
            whole = loss + 0.5 * nn.functional.mse_loss(values, returns[rows])
            optimizer.zero_grad(set_to_none=True)
            whole.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), _CLIPPED)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        last = float(np.mean(losses))
        if not may_go_on():
            break
    policy.eval()
    return last


@torch.inference_mode()
def agreement(policy: CandidatePolicy, lessons: Lessons, first: int = 0) -> float:
    """Share of the states, from the first one on, in which the policy's best edit is the teacher's."""
    candidates, general, mask, wish, _ = lessons.tensors(first)
    best = policy(candidates, general)[0].masked_fill(~mask, -torch.inf).argmax(-1)
    return float((best == wish.argmax(-1)).float().mean())
