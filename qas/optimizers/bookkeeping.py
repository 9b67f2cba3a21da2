"""What the methods share: counted evaluations within a budget, and the choice of the point to return."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from qas.optimizers.shots import SampledObjective
from qas.simulators import interrupt

Function = TypeVar("Function", bound=Callable[..., Any])


class OutOfBudget(Exception):  # a signal between a method and `minimize`, not an error
    """The next evaluation would exceed the budget; raised before it is made."""


@dataclass(frozen=True)
class Outcome:
    """How a method ended."""

    success: bool
    message: str


def method(
    about: str, *, needs_gradient: bool = False, ends_unevaluated: bool = False
) -> Callable[[Function], Function]:
    """What lists and `minimize` know about a method: a function of (book, start, tolerance, rng) and keyword options.

    Args:
        about: one line for lists.
        needs_gradient: it calls `Bookkeeper.value_and_gradient`, so that it takes no shots.
        ends_unevaluated: the last iterate has not been evaluated when the method ends.
    """

    def mark(function: Function) -> Function:
        function.__dict__.update(about=about, needs_gradient=needs_gradient, ends_unevaluated=ends_unevaluated)
        return function

    return mark


class Bookkeeper:
    """Calls the objective within the budget.

    Attributes:
        iterate: the point a method would return now, shape (n_angles,); methods keep it up to date.
        iterations: number of iterations made; methods keep it up to date.
    """

    def __init__(
        self,
        objective: Any,
        sampled: SampledObjective | None,
        start: np.ndarray,
        max_evaluations: int | None,
        reserved: int,
    ) -> None:
        self._objective = objective
        self._sampled = sampled
        self._left = math.inf if max_evaluations is None else max_evaluations - reserved
        self._shots = 0 if sampled is None else sampled.shots
        self._best_x = start.copy()
        self._best_value = math.inf
        self._best_gradient: np.ndarray | None = None
        self._measured: tuple[np.ndarray, float] | None = None
        self.iterate = start.copy()
        self.iterations = 0

    @property
    def exact(self) -> bool:
        """Whether values are free of shot noise."""
        return self._sampled is None

    @property
    def sinusoidal(self) -> bool:
        """Whether the energy is a sinusoid along each angle: not with excitations, nor where a score is no energy."""
        return getattr(self._objective, "sinusoidal", True)

    @property
    def left(self) -> float:
        """Evaluations that the method may still make; infinite without a budget."""
        return self._left

    def set_shots(self, fraction: float) -> None:
        """Measure with this fraction of the full number of shots, at least 1; nothing happens for exact values."""
        if self._sampled is not None:
            self._sampled.shots = max(1, round(self._shots * fraction))

    def _spend(self) -> None:
        interrupt.check()
        if self._left < 1:
            raise OutOfBudget
        self._left -= 1

    def __call__(self, x: np.ndarray) -> float:
        """Objective at `x`, shape (n_angles,).

        Raises:
            OutOfBudget: no evaluation is left.
            Interrupted: the user or a deadline asks to stop (see `qas.simulators.interrupt`).
        """
        self._spend()
        if self._sampled is not None:
            value = self._sampled(x)
            self._measured = np.array(x, dtype=np.float64), value
            return value
        value = float(self._objective(x))
        self._remember(x, value, None)
        return value

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Objective and exact gradient at `x`; one evaluation.

        Raises:
            OutOfBudget, Interrupted: as a call.
        """
        self._spend()
        value, gradient = self._objective.value_and_gradient(x)
        self._remember(x, float(value), gradient)
        return float(value), gradient

    def _remember(self, x: np.ndarray, value: float, gradient: np.ndarray | None) -> None:
        if value < self._best_value:
            self._best_value = value
            self._best_x = np.array(x, dtype=np.float64)
            self._best_gradient = None if gradient is None else np.array(gradient)

    def evaluate_iterate(self) -> None:
        """Spend the reserved evaluation on the iterate, with the full number of shots."""
        self._left += 1
        self.set_shots(1.0)
        self(self.iterate)

    def answer(self) -> tuple[np.ndarray, float, np.ndarray | None]:
        """Point, value and gradient to return: the best exact point, or the last point that was measured."""
        if self._measured is not None:
            return *self._measured, None
        return self._best_x, self._best_value, self._best_gradient

    @property
    def has_value(self) -> bool:
        """Whether there is a point to return."""
        return self._measured is not None or self._best_value < math.inf
