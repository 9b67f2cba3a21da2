"""`qas policy train`: circuits of the training problems, then imitation of a teacher, then playing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.imitation import Lessons, fit, taught_episode
from qas.agents.rl.improving import improve
from qas.agents.rl.policy import CandidatePolicy, TrainedPolicy, untrained
from qas.agents.rl.starts import Starts, made
from qas.checks import finite_number, whole_number
from qas.envs.candidates import FEATURES
from qas.envs.editor import CircuitEditorEnv
from qas.envs.families import Family, Instance, load_family
from qas.errors import UnknownNameError
from qas.problems import Problem
from qas.torch_threads import torch_threads

STAGES = ("starts", "imitation", "playing")
SETTINGS: dict[str, Any] = {"candidates": 32, "evaluations_each": 3}
"""Of the environment that policies are trained in: short optimisations, which later edits make up for."""
_EDITS = 40
"""Edits of an episode of training."""

_STARTS_EVALUATIONS = 4_000
"""Of the search for the circuits of each size."""
_IMITATED = 0.6
"""Share of the time that goes into imitation where playing follows."""
_BEFORE_FIT = 6
"""Episodes before the first fit; later fits come when there are half as many again."""
_EPOCHS = 12
_TRUST = 10.0
"""Weight of the closed-form gain in the first scores, which training goes on from: 1.7 nats for each power of ten."""
_JUDGED = 6
"""Instances that stages are compared on."""
_JUDGED_EVALUATIONS = 150
"""What they may take of each."""


class _Clock:
    """Time that is left, and whether Ctrl-C has asked to end."""

    def __init__(self, seconds: float) -> None:
        self.begun, self.seconds = time.perf_counter(), seconds
        self.asked = False

    @property
    def passed(self) -> float:
        return time.perf_counter() - self.begun

    def within(self, share: float) -> bool:
        """Whether less than a share of the time has passed, and nobody has asked to end."""
        return not self.asked and self.passed < share * self.seconds


def train_policy(
    family: str | Family,
    *,
    seconds: float,
    seed: int = 0,
    imitation_only: bool = False,
    sizes: dict[str, int] | None = None,
    on_progress: Callable[[str, float, float], None] | None = None,
) -> TrainedPolicy:
    """Train a policy on the training instances of a family.

    First come circuits of the training problems (see `qas.agents.rl.starts.made`); then imitation of a teacher that
    tries every edit (`qas.agents.rl.imitation`), in rounds of episodes and fits; then MaskablePPO, whose result is kept
    where it does better than imitation on instances drawn for that. Ctrl-C ends a stage early and loses nothing.

    Args:
        family: a name of `qas.envs.list_families()` or a family.
        seconds: wall-clock time of imitation and playing; the start circuits come on top.
        seed: fixes all that is drawn; how far the training comes depends on the machine.
        imitation_only: do not play.
        sizes: of the network, as of `CandidatePolicy`.
        on_progress: told what is done, the seconds that passed and all there are.

    Raises:
        UnknownNameError: no such family.
        QasError: no positive number of seconds.
    """
    family = load_family(family)
    clock = _Clock(finite_number("seconds", seconds, above=0))
    seed = whole_number("seed", seed, 0)
    told = on_progress or (lambda what, passed, whole: None)
    trained = untrained(seed, **(sizes or {}))
    trained.family, trained.settings = family.name, dict(SETTINGS)
    with torch_threads(1), _asked_to_end(clock):
        told("circuits of the training problems", 0.0, clock.seconds)
        trained.starts = _starts(family, seed, lambda: not clock.asked).to_json()
        clock.begun = time.perf_counter()
        _Stages(family, trained, clock, seed, told).run(imitation_only)
    return trained


class _Stages:
    """What the stages of one training share."""

    def __init__(
        self, family: Family, trained: TrainedPolicy, clock: _Clock, seed: int, told: Callable[..., None]
    ) -> None:
        self.trained, self.clock, self.seed, self.told = trained, clock, seed, told
        self.policy = trained.policy
        self.env = CircuitEditorEnv(family=family, max_edits=_EDITS, **trained.settings)
        rng = np.random.default_rng([seed, 3])
        self.judges = [family.draw(rng) for _ in range(_JUDGED)]

    def run(self, imitation_only: bool) -> None:
        areas: dict[str, float] = {}
        stages: list[str] = []
        found: dict[str, Any] = {}
        if not self.clock.asked:
            areas |= {"closed form": self._judged(None), "random weights": self._judged(self.policy)}
        self.policy.trusting(FEATURES.index("log_gain_per_gate"), _TRUST)
        if not self.clock.asked:
            states, loss = self._imitate(1.0 if imitation_only else _IMITATED)
            areas["imitation"] = self._judged(self.policy)
            stages.append("imitation")
            found |= {"states": states, "cross entropy above the teacher's": loss}
        if not imitation_only and self.clock.within(1.0):
            found["edits played"] = self._play(areas)
            stages += ["playing"] * (areas["playing"] > areas["imitation"])
        self.trained.training = {
            "seed": self.seed, "seconds": round(self.clock.passed, 1), **found, "stages": stages,
            "interrupted": self.clock.asked,
            "areas": {name: round(area, 4) for name, area in areas.items()},
        }  # fmt: skip

    def _imitate(self, share: float) -> tuple[int, float]:
        """Returns the states seen and the loss of the last fit."""
        rng = np.random.default_rng([self.seed, 1])
        lessons, student = Lessons(), None
        next_fit, episodes, loss = _BEFORE_FIT, 0, float("nan")
        while self.clock.within(share) or not episodes:
            taught_episode(self.env, student, rng, lessons)
            episodes += 1
            shown = f"imitation: {episodes} episodes, {len(lessons)} states, loss {loss:.3g}"
            self.told(shown, self.clock.passed, self.clock.seconds)
            if episodes >= next_fit:
                loss = self._fit(lessons, rng, _EPOCHS, share)
                student, next_fit = self.policy, next_fit + max(4, next_fit // 2)
        self.told("imitation: last fit", self.clock.passed, self.clock.seconds)
        return len(lessons), self._fit(lessons, rng, 2 * _EPOCHS, 2.0)

    def _fit(self, lessons: Lessons, rng: np.random.Generator, epochs: int, share: float) -> float:
        self.policy.standardize(np.stack(lessons.candidates), np.stack(lessons.general))
        return fit(self.policy, lessons, epochs=epochs, rng=rng, may_go_on=lambda: self.clock.within(share))

    def _play(self, areas: dict[str, float]) -> int:
        """Returns the edits played; the policy is put back where they were no use."""
        before = {name: value.clone() for name, value in self.policy.state_dict().items()}
        played = improve(
            self.policy,
            self.env,
            seed=self.seed,
            may_go_on=lambda: self.clock.within(1.0),
            told=lambda edits: self.told(f"playing: {edits} edits", self.clock.passed, self.clock.seconds),
        )
        areas["playing"] = self._judged(self.policy)
        if areas["playing"] <= areas["imitation"]:
            self.policy.load_state_dict(before)
        return played

    def _judged(self, policy: CandidatePolicy | None) -> float:
        """Mean area under the fronts that one greedy episode of each judge has after so many evaluations."""
        return float(np.mean([self._area(policy, instance) for instance in self.judges]))

    def _area(self, policy: CandidatePolicy | None, instance: Instance) -> float:
        observation, info = self.env.reset(seed=self.seed, options={"instance": instance})
        spent, area, ended = info["evaluations"], info["area"], False
        while not ended and spent < _JUDGED_EVALUATIONS:
            scores = closed_form_scores(observation["candidates"]) if policy is None else policy.scores(observation)
            action = int(np.argmax(np.where(info["action_mask"], scores, -np.inf)))
            observation, _, terminated, truncated, info = self.env.step(action)
            spent, ended = spent + info["evaluations"], terminated or truncated
            area = info["area"]
        return float(area)


def leave_out(family: Family, name: str) -> Family:
    """A family with one of its instances, or all on one device, for the test, and all others to train on.

    Raises:
        UnknownNameError: no instance of that name, or on a device of that name.
        QasError: nothing is left to train on.
    """
    everyone = (*family.train, *family.test)
    test = tuple(each for each in everyone if name in (each.name, each.name.partition("@")[2]))
    if not test:
        raise UnknownNameError(f"instance of family {family.name}", name, [each.name for each in everyone])
    return replace(family, train=tuple(each for each in everyone if each not in test), test=test)


def _starts(family: Family, seed: int, may_go_on: Callable[[], bool]) -> Starts:
    """Circuits of the training problems; none for devices, where the coupled pairs of one are not those of another."""
    if any(instance.device is not None for instance in family.train):
        return Starts()
    problems = [instance.load() for instance in family.train]
    wanted = [problem for problem in problems if isinstance(problem, Problem)]
    return made(wanted, evaluations=_STARTS_EVALUATIONS, seed=seed, may_go_on=may_go_on)


@contextmanager
def _asked_to_end(clock: _Clock) -> Iterator[None]:
    """The first Ctrl-C asks the training to end; the second one breaks it off."""
    from qas.simulators.interrupt import first_signal_asks

    def ask() -> None:
        clock.asked = True

    with first_signal_asks(ask):
        yield
