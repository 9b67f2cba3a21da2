"""Rewards: what one step of the circuit builder is worth.

To add a reward, write a frozen dataclass with a `__call__` that takes a `Transition` and returns a float, and register
it in `REWARDS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from qas.checks import shortened
from qas.errors import QasError
from qas.registry import Registry


class Transition(NamedTuple):
    """What a reward may look at."""

    energy: float
    """energy after the step, problem's unit"""
    previous_energy: float
    """energy before the step"""
    target: float
    """energy that is aimed for: the exact value, or a lower bound of it"""
    error: float
    """``|energy - target|``"""
    threshold: float
    """error below which the episode is a success"""
    success: bool
    """``error < threshold``"""
    at_limit: bool
    """the circuit is as long as it may become"""
    halted: bool = False
    """random halting ends the episode here"""

    @property
    def done(self) -> bool:
        """The episode ends here."""
        return self.success or self.at_limit or self.halted


Reward = Callable[[Transition], float]
"""A reward function."""


def _gain(step: Transition) -> float:
    """Share of the missing energy that the step has won: (E_prev - E) / \\|E_prev - target\\|."""
    gain, missing = step.previous_energy - step.energy, abs(step.previous_energy - step.target)
    if missing > 0.0:
        return gain / missing
    return 0.0 if gain == 0.0 else math.copysign(math.inf, gain)


def _clip(value: float) -> float:
    return max(-1.0, min(1.0, value))


@dataclass(frozen=True)
class IncrementalFixedEnds:
    """`success` below the threshold, `failure` at the length limit, else the clipped share of the missing energy won.

    R = clip((E_prev - E) / |E_prev - target|, -1, 1) between the ends (CRLQAS, eq. 2). A random halt is not an end.
    """

    success: float = 5.0
    failure: float = -5.0

    def __call__(self, step: Transition) -> float:
        if step.success:
            return self.success
        return self.failure if step.at_limit else _clip(_gain(step))


@dataclass(frozen=True)
class Incremental:
    """The share of the missing energy won, without a bonus at the ends; `clipped` to [-1, 1] or bounded by ±`bound`."""

    clipped: bool = False
    bound: float = 1e3

    def __call__(self, step: Transition) -> float:
        bound = 1.0 if self.clipped else self.bound
        return max(-bound, min(bound, _gain(step)))


@dataclass(frozen=True)
class IncrementalClipped(Incremental):
    """The share of the missing energy won, clipped to [-1, 1]."""

    clipped: bool = True


@dataclass(frozen=True)
class Naive:
    """`success` below the threshold, `failure` at the length limit, else 0."""

    success: float = 1.0
    failure: float = 0.0

    def __call__(self, step: Transition) -> float:
        if step.success:
            return self.success
        return self.failure if step.at_limit else 0.0


@dataclass(frozen=True)
class NaiveFives(Naive):
    """+5 below the threshold, -5 at the length limit, else 0."""

    success: float = 5.0
    failure: float = -5.0


@dataclass(frozen=True)
class Staircase:
    """Steps at 15, 10, 5 and 1 times the threshold, worth 0.2, 0.4, 0.6 and 1, divided by their sum."""

    def __call__(self, step: Transition) -> float:
        stairs = ((15.0, 0.2), (10.0, 0.4), (5.0, 0.6), (1.0, 1.0))
        return sum(worth for factor, worth in stairs if step.error < factor * step.threshold) / 2.2


@dataclass(frozen=True)
class TwoStep:
    """Steps at 5 and 1 times the threshold, worth 0.001 and 1, divided by their sum; `at_end`: only as it ends."""

    at_end: bool = False

    def __call__(self, step: Transition) -> float:
        if self.at_end and not step.done:
            return 0.0
        return (0.001 * (step.error < 5 * step.threshold) + (step.error < step.threshold)) / 1.001


@dataclass(frozen=True)
class TwoStepEnd(TwoStep):
    """The reward of `TwoStep`, only as the episode ends."""

    at_end: bool = True


@dataclass(frozen=True)
class Log:
    """-ln(error / |target|), or -ln(error) when not `relative`; errors count as at least `floor`.

    For a negative target, -ln(error / |target|) = -ln(1 - E / target).
    """

    relative: bool = True
    floor: float = 1e-12

    def __call__(self, step: Transition) -> float:
        scale = abs(step.target) if self.relative and step.target else 1.0
        return -math.log(max(step.error, self.floor) / scale)


@dataclass(frozen=True)
class LogToGround(Log):
    """-ln(error); errors count as at least `floor`."""

    relative: bool = False


@dataclass(frozen=True)
class LogProgress:
    """log10(previous error / error): an episode is worth the decades it won; errors count as at least `floor`."""

    floor: float = 1e-12

    def __call__(self, step: Transition) -> float:
        before = abs(step.previous_energy - step.target)
        return math.log10(max(before, self.floor) / max(step.error, self.floor))


@dataclass(frozen=True)
class LogToThreshold:
    """`success` up to `slack` above the threshold, else -ln(error - threshold)."""

    success: float = 11.0
    slack: float = 1e-5

    def __call__(self, step: Transition) -> float:
        distance = step.error - step.threshold
        return self.success if distance < self.slack else -math.log(distance)


@dataclass(frozen=True)
class NegativeAboveThreshold:
    """-error/threshold above the threshold, `factor` · threshold/error below; the latter at most 1000 · `factor`."""

    factor: float = 1.0

    def __call__(self, step: Transition) -> float:
        if step.error >= step.threshold:
            return -step.error / step.threshold
        return self.factor * step.threshold / max(step.error, 1e-3 * step.threshold)


REWARDS = Registry(
    "rewards",
    "reward",
    {
        "incremental_with_fixed_ends": IncrementalFixedEnds,
        "incremental": Incremental,
        "incremental_clipped": IncrementalClipped,
        "naive": Naive,
        "naive_fives": NaiveFives,
        "staircase": Staircase,
        "two_step": TwoStep,
        "two_step_end": TwoStepEnd,
        "log": Log,
        "log_to_ground": LogToGround,
        "log_progress": LogProgress,
        "log_to_threshold": LogToThreshold,
        "negative_above_threshold": NegativeAboveThreshold,
    },
)
"""Name -> a class or function whose call with the parameters gives a `Reward`; the first is the default."""


def list_rewards() -> dict[str, str]:
    """Reward name -> one line about it."""
    return {name: REWARDS.about(name) for name in REWARDS}


def load_reward(reward: str | Reward | type[Reward], **parameters: float | bool) -> Reward:
    """A reward from what a caller gave.

    Args:
        reward: a name of `REWARDS`, a class of rewards, or a reward: a function from `Transition` to float.
        **parameters: replace the defaults of a named reward or class, e.g. ``success=10.0``.

    Raises:
        UnknownNameError: no such reward; the nearest name is suggested.
        QasError: a parameter the reward does not have, or something that is neither name nor function.
    """
    named: Any = REWARDS[reward] if isinstance(reward, str) else reward
    if not callable(named) or (parameters and not isinstance(reward, (str, type))):
        raise QasError(f"a reward is a name or class with parameters, or a function, got {shortened(reward)}")
    if not isinstance(reward, (str, type)):
        return reward
    known = inspect.signature(named).parameters
    for parameter in parameters:
        if parameter not in known:
            name = reward if isinstance(reward, str) else named.__name__
            raise QasError(f"reward {name} has no parameter {parameter!r}; it takes {', '.join(known) or 'none'}")
    made: Reward = named(**parameters)
    return made
