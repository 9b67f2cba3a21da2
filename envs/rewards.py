"""Rewards: what one step of the circuit builder is worth.

To add a reward, write a frozen dataclass with a `__call__` that takes a `Transition` and returns a float, and add it
to `_REWARDS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from qas.errors import QasError, UnknownNameError


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
class Naive:
    """`success` below the threshold, `failure` at the length limit, else 0."""

    success: float = 1.0
    failure: float = 0.0

    def __call__(self, step: Transition) -> float:
        if step.success:
            return self.success
        return self.failure if step.at_limit else 0.0


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


_REWARDS: dict[str, tuple[str, Callable[..., Reward], dict[str, Any]]] = {
    "incremental_with_fixed_ends": ("share of the missing energy won, +5 and -5 at the ends", IncrementalFixedEnds, {}),
    "incremental": ("share of the missing energy won", Incremental, {}),
    "incremental_clipped": ("share of the missing energy won, clipped to [-1, 1]", Incremental, {"clipped": True}),
    "naive": ("1 for success", Naive, {}),
    "naive_fives": ("+5 for success, -5 at the length limit", Naive, {"success": 5.0, "failure": -5.0}),
    "staircase": ("steps at 15, 10, 5 and 1 times the threshold", Staircase, {}),
    "two_step": ("a small step at 5 times the threshold, a large one at the threshold", TwoStep, {}),
    "two_step_end": ("two_step, only when the episode ends", TwoStep, {"at_end": True}),
    "log": ("-ln(error / |target|)", Log, {}),
    "log_to_ground": ("-ln(error)", Log, {"relative": False}),
    "log_to_threshold": ("-ln(error - threshold), 11 for success", LogToThreshold, {}),
    "negative_above_threshold": ("-error/threshold, positive below the threshold", NegativeAboveThreshold, {}),
}


def list_rewards() -> dict[str, str]:
    """Reward name -> one line about it."""
    return {name: about for name, (about, _, _) in _REWARDS.items()}


def load_reward(name: str | Reward, **parameters: float | bool) -> Reward:
    """The reward of that name; a function passes through.

    Args:
        name: a name of `list_rewards`, or a function from `Transition` to float.
        **parameters: replace the defaults of the named reward, e.g. ``success=10.0``.

    Raises:
        UnknownNameError: no such reward; the nearest name is suggested.
        QasError: a parameter the reward does not have, or something that is neither name nor function.
    """
    if not isinstance(name, str):
        if not callable(name) or parameters:
            raise QasError(f"a reward is a name with parameters or a function, got {name!r}")
        return name
    if name not in _REWARDS:
        raise UnknownNameError("reward", name, _REWARDS)
    _, kind, defaults = _REWARDS[name]
    known = inspect.signature(kind).parameters
    for parameter in parameters:
        if parameter not in known:
            raise QasError(f"reward {name} has no parameter {parameter!r}; it takes {', '.join(known) or 'none'}")
    return kind(**(defaults | parameters))
