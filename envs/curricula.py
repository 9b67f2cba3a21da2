"""Curricula: how good a circuit must be to count as a success, and how long an episode may last."""

from __future__ import annotations

import abc
import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from qas.checks import finite_number, whole_number
from qas.errors import QasError
from qas.problems import BaseProblem
from qas.registry import Registry, check_settings, spelled_out


class Curriculum(abc.ABC):
    """The error below which an episode is a success. It learns from training episodes only.

    To add one, subclass it, give `state_fields` the names of all attributes that make up its state, and register it.
    """

    state_fields: ClassVar[tuple[str, ...]]
    """attributes that `to_state` keeps; all JSON-able"""
    uses_energies: ClassVar[bool] = False
    """`observe` needs exact energies"""
    target: float | None = None
    """energy that errors are counted from; None: the problem's exact value"""
    threshold: float
    """error below which the present episode is a success, problem's unit"""

    @classmethod
    def for_problem(cls, problem: BaseProblem) -> Self:
        """The one for a problem, where only its name or class is given.

        Raises:
            QasError: the curriculum can only be given as an instance.
        """
        raise QasError(f"the curriculum {cls.__name__} has no settings of its own for a problem; give an instance")

    def observe(self, energy: float) -> None:  # noqa: B027
        """Take note of the energy after a step; exact, also where the agent sees shot noise."""

    def end_episode(self, success: bool) -> None:  # noqa: B027
        """Take note of the end of an episode; may change the threshold."""

    def to_state(self) -> dict[str, Any]:
        """JSON-able state, parameters included; `from_state` reads it back."""
        return {"kind": type(self).__name__} | {name: getattr(self, name) for name in self.state_fields}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read what `to_state` wrote.

        Raises:
            QasError: the state of another curriculum, or one with missing or other fields.
        """
        if state.get("kind") != cls.__name__ or set(state) != {"kind", *cls.state_fields}:
            raise QasError(f"this is not the state of a {cls.__name__}: {', '.join(map(str, state))}")
        curriculum = cls.__new__(cls)
        for name in cls.state_fields:
            setattr(curriculum, name, state[name])
        return curriculum


class FixedThreshold(Curriculum):
    """The same threshold for ever.

    Args:
        threshold: error below which an episode is a success, problem's unit.
        target: energy that errors are counted from; None: the problem's exact value.

    Raises:
        QasError: a threshold that is not positive, or a target that is not finite.
    """

    state_fields = ("threshold", "target")

    def __init__(self, threshold: float, *, target: float | None = None) -> None:
        self.threshold = finite_number("the threshold", threshold, above=0)
        self.target = None if target is None else finite_number("the target", target)

    @classmethod
    def for_problem(cls, problem: BaseProblem) -> Self:
        """The problem's threshold."""
        return cls(float(problem.threshold or 0.0))


_LEAST = 1e-12
"""Of the ball: the lowest threshold, so that rewards may divide by it."""


class MovingThreshold(Curriculum):
    """A threshold that follows the best energy found so far.

    It starts at `accept_error`. While the best energy is within `success_switch` of the target, every
    `successes_per_cut` successes cut it by ``ball / cuts``, at most `cuts` times. After every `shift_time` episodes
    (from the eleventh on) it moves to the best error found plus `ball`, and cutting starts anew: after all cuts a
    success needs an error below the best one.

    The published rule counts "the best error found" from `accept_error` down. If nothing ever gets below that, as under
    noise, the threshold stays out of reach for ever. With ``reachable=True`` only energies that were seen count, and if
    after ten episodes none met the threshold, it moves at once.

    Args:
        target: energy that errors are counted from: the exact value, or a lower bound of it.
        accept_error: first threshold, problem's unit.
        ball: how far above the best error the threshold moves at a shift; at most `accept_error`.
        shift_time: episodes between shifts.
        successes_per_cut: successes that a cut takes.
        cuts: cuts between two shifts.
        success_switch: cuts happen only while the best error is below this; None: `accept_error`.
        reachable: never ask for less than the best error seen, plus `ball`; False: the published rule.

    The defaults are those of the published 4-qubit runs. `for_problem` and `lower_bound` scale them to a problem and
    shift ten times as often, for runs of some hundred episodes.

    Raises:
        QasError: a parameter out of range.

    References:
        Ostaszewski et al., "Reinforcement learning for optimization of variational quantum circuit architectures",
        NeurIPS 2021, arXiv:2103.16089; Patel et al., ICLR 2024, arXiv:2402.03500, section 4.
    """

    state_fields = (
        "target", "accept_error", "ball", "shift_time", "successes_per_cut", "cuts", "success_switch",
        "reachable", "threshold", "lowest", "successes", "cuts_done", "episodes",
    )  # fmt: skip
    uses_energies = True

    def __init__(
        self,
        target: float,
        *,
        accept_error: float = 5e-3,
        ball: float = 5e-4,
        shift_time: int = 500,
        successes_per_cut: int = 25,
        cuts: int = 10,
        success_switch: float | None = None,
        reachable: bool = False,
    ) -> None:
        self.target: float = finite_number("the target", target)
        self.accept_error = finite_number("accept_error", accept_error, above=0)
        self.ball = finite_number("ball", ball, above=0)
        if self.ball > self.accept_error:
            raise QasError(f"ball is at most accept_error ({self.accept_error:g}), got {self.ball:g}")
        self.shift_time = whole_number("shift_time", shift_time)
        self.successes_per_cut = whole_number("successes_per_cut", successes_per_cut)
        self.cuts = whole_number("cuts", cuts)
        self.success_switch = self.accept_error
        if success_switch is not None:
            self.success_switch = finite_number("success_switch", success_switch, above=0)
        self.threshold = self.accept_error
        self.reachable = bool(reachable)
        self.lowest: float | None = None if self.reachable else self.target + self.accept_error
        """lowest energy seen; at first target + accept_error, or None with `reachable`"""
        self.successes = 0
        """successes since the last cut or shift"""
        self.cuts_done = 0
        """cuts since the last shift"""
        self.episodes = 0

    @classmethod
    def for_problem(cls, problem: BaseProblem) -> Self:
        """Aims for the exact value: starts at 3 thresholds of the problem, with a ball of 1/3 of one.

        Cuts happen however far off the best energy is.
        """
        threshold = float(problem.threshold or 0.0)
        return cls(
            problem.exact,
            accept_error=3 * threshold,
            ball=threshold / 3,
            shift_time=50,
            successes_per_cut=5,
            success_switch=problem.spread + threshold,
            reachable=True,
        )

    @classmethod
    def lower_bound(cls, problem: BaseProblem) -> Self:
        """As `for_problem`, without knowing the exact value.

        The target is the smallest value the problem could have (of a Hamiltonian its identity coefficient minus the sum
        of all other |coefficients|); the first threshold accepts every energy below the mixed one (that of the
        maximally mixed state).
        """
        target = problem.lower_bound
        accept = problem.mixed_energy - target
        ball = min(float(problem.threshold or 0.0) / 3, accept)
        return cls(target, accept_error=accept, ball=ball, shift_time=50, successes_per_cut=5)

    def observe(self, energy: float) -> None:
        self.lowest = energy if self.lowest is None else min(self.lowest, energy)

    def end_episode(self, success: bool) -> None:
        best = math.inf if self.lowest is None else abs(self.target - self.lowest)
        if success:
            self.successes += 1
            if self.successes >= self.successes_per_cut and self.cuts_done < self.cuts and best < self.success_switch:
                # The last cut leaves the best error, which may be zero, give or take rounding.
                self.threshold = max(self.threshold - self.ball / self.cuts, _LEAST * self.ball)
                self.successes = 0
                self.cuts_done += 1
        self.episodes += 1
        due = self.episodes > 10 and self.episodes % self.shift_time == 0
        out_of_reach = self.reachable and self.episodes == 10 and best > self.threshold
        if (due or out_of_reach) and math.isfinite(best):
            self.threshold = best + self.ball
            self.successes = 0
            self.cuts_done = 0


CURRICULA = Registry(
    "curricula",
    "curriculum",
    {"moving": MovingThreshold, "moving-lower-bound": MovingThreshold.lower_bound, "fixed": FixedThreshold},
)
"""Name -> `Curriculum` class, or a function from a problem to a `Curriculum`; the first is the default."""


def load_curriculum(curriculum: str | float | Curriculum | type[Curriculum] | None, problem: BaseProblem) -> Curriculum:
    """A curriculum for `problem`.

    Args:
        curriculum: a name of `CURRICULA` or a `Curriculum` class (as its `for_problem` makes it), None for
            ``"moving"``, a name with all arguments of the class as in ``"moving:target=-10.07,accept_error=2.45"``, a
            number (a fixed threshold), or a `Curriculum`, which is copied.
        problem: what the circuits are judged on.

    Raises:
        UnknownNameError: no such name.
        QasError: something else, or a threshold that is not positive.
    """
    if isinstance(curriculum, Curriculum):
        return copy.deepcopy(curriculum)
    maker: Any = "moving" if curriculum is None else curriculum
    if isinstance(maker, str) and ":" in maker:
        return _spelled(maker)
    maker = CURRICULA[maker] if isinstance(maker, str) else maker
    if isinstance(maker, type) and issubclass(maker, Curriculum):
        return maker.for_problem(problem)
    if callable(maker):
        return maker(problem)
    return FixedThreshold(finite_number("a curriculum that is neither name nor Curriculum", curriculum, above=0))


def _spelled(text: str) -> Curriculum:
    """A curriculum whose arguments stand behind its name."""
    settings = spelled_out(text)
    name = settings.pop("name")
    kind = CURRICULA[name]
    if not isinstance(kind, type):
        raise QasError(f"the curriculum {name} takes no settings, got {text}")
    known = list(inspect.signature(kind).parameters)
    check_settings(kind, settings, f"the curriculum {name}", known)
    try:
        made: Curriculum = kind(**settings)
    except TypeError as error:
        raise QasError(f"the curriculum {text} lacks an argument: {error}") from None
    return made


def check_curriculum(curriculum: str | float) -> None:
    """Refuse a name that is not known.

    Raises:
        UnknownNameError: no such curriculum.
    """
    if isinstance(curriculum, str):
        CURRICULA.check(curriculum.partition(":")[0])


@dataclass(frozen=True)
class RandomHalting:
    """Episodes end after a random number of steps, so that the agent meets short circuits too.

    The last step of an episode has number ``clip(NegBin(successes, probability), low, high)``, counted from 0: the
    number of failures before so many successes, one draw for each episode. With the defaults: mean 52.0, standard
    deviation 9.1.

    Raises:
        QasError: a parameter out of range.

    References:
        Patel et al., ICLR 2024, arXiv:2402.03500, section 4.
    """

    successes: int = 70
    probability: float = 0.573
    low: int = 25
    high: int = 70

    def __post_init__(self) -> None:
        whole_number("successes of the random halting", self.successes)
        if not 0 < finite_number("the probability of the random halting", self.probability) <= 1:
            raise QasError(f"the probability of the random halting lies in (0, 1], got {self.probability}")
        whole_number("low of the random halting", self.low, 0)
        whole_number("high of the random halting", self.high, self.low)

    def draw(self, rng: np.random.Generator) -> int:
        """Number of the last step of an episode, counted from 0."""
        return int(min(max(rng.negative_binomial(self.successes, self.probability), self.low), self.high))
