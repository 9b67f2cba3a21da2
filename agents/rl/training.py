"""`qas policy train`: circuits of the training problems, then imitation of a teacher, then playing."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch

from qas.agents.base import restore_rng, rng_state
from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.imitation import Lessons, agreement, fit, taught_episode
from qas.agents.rl.improving import PlayState, improve
from qas.agents.rl.models import Saved, check_tensorboard, logger
from qas.agents.rl.policy import CandidatePolicy, TrainedPolicy, untrained
from qas.agents.rl.resuming import Kept, kept_in
from qas.agents.rl.starts import Starts, made
from qas.checks import finite_number, whole_number
from qas.envs.candidates import FEATURES
from qas.envs.editor import CircuitEditorEnv
from qas.envs.families import Family, Instance, load_family
from qas.errors import QasError, UnknownNameError
from qas.files import part_of
from qas.problems import Problem
from qas.schema import Count, RngState, Time, conform, taken_up
from qas.torch_threads import torch_threads

STAGES = ("starts", "imitation", "playing")
SETTINGS: dict[str, Any] = {"candidates": 32, "evaluations_each": 3}
"""Of the environment that policies are trained in, unless others are given: short optimisations, which later edits
make up for."""
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


class _Budget:
    """What a training may spend, seconds or edits, and whether Ctrl-C has asked to end.

    Raises:
        QasError: not one of the two, or no positive number.
    """

    def __init__(self, seconds: float | None, steps: int | None) -> None:
        if (seconds is None) == (steps is None):
            raise QasError(f"a training gets seconds or steps, got {'neither' if seconds is None else 'both'}")
        self.seconds = None if seconds is None else finite_number("seconds", seconds, above=0)
        self.steps = None if steps is None else whole_number("steps", steps)
        self.begun = time.perf_counter()
        self.edits = 0
        """steps of the environment, of the teacher, the student and the player"""
        self.asked = False

    @property
    def passed(self) -> float:
        return time.perf_counter() - self.begun

    @property
    def spent(self) -> tuple[float, float]:
        """How much of how much."""
        return (self.edits, self.steps) if self.seconds is None else (self.passed, self.seconds)  # type: ignore[return-value]

    def within(self, share: float) -> bool:
        """Whether less than a share is spent, and nobody has asked to end."""
        spent, whole = self.spent
        return not self.asked and spent < share * whole


class _ImitationState(TypedDict):
    rng: RngState
    episodes: Count
    next_fit: Count
    loss: float | None


class _State(TypedDict):
    passed: Time
    edits: Count
    starts: list[dict[str, Any]]
    areas: dict[str, float]
    stages: list[str]
    found: dict[str, Any]
    imitation: NotRequired[_ImitationState]
    playing: NotRequired[PlayState]
    training: NotRequired[dict[str, Any]]


def train_policy(
    family: str | Family,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    imitation_only: bool = False,
    sizes: dict[str, int] | None = None,
    candidates: int | None = None,
    without: Collection[str] = (),
    starts: Starts | None = None,
    folder: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    on_progress: Callable[[str, float, float], None] | None = None,
) -> TrainedPolicy:
    """Train a policy on the training instances of a family.

    First come circuits of the training problems (see `qas.agents.rl.starts.made`); then imitation of a teacher that
    tries every edit (`qas.agents.rl.imitation`), in rounds of episodes and fits; then MaskablePPO, whose result is kept
    where it does better than imitation on instances drawn for that. Ctrl-C ends a stage early and loses nothing.

    With a folder the same call goes on where the last one was broken off, by Ctrl-C or by whatever killed it: behind
    the last start circuit, episode, fit or rollout that was kept. Given steps it ends as the unbroken one would.

    Args:
        family: a name of `qas.envs.list_families()` or a family.
        seconds: wall-clock time of imitation and playing, of all calls together; the start circuits come on top.
        steps: edits of imitation and playing, instead of seconds: what comes out does not depend on the clock.
        seed: fixes all that is drawn; how far seconds go depends on the machine.
        imitation_only: do not play.
        sizes: of the network, as of `CandidatePolicy`.
        candidates: rows of the table of edits, at least 8; None: 32.
        without: names of `qas.envs.candidates.FEATURES` and `GENERAL` that the policy is blind to, in training and
            whenever it plays; the teacher is not, and which edits are in the table does not change.
        starts: circuits of the training problems, as another policy with the same ones has them; what is missing is
            searched for. None: all of it.
        folder: where the state is kept as it goes, made if missing; None: nowhere.
        tensorboard: write losses, agreement with the teacher, areas and what MaskablePPO tells into ``tensorboard`` of
            the folder, against edits (extra ``tensorboard``).
        on_progress: told what is done, what is spent of the budget and the budget.

    Raises:
        UnknownNameError: no such family, or no such feature.
        QasError: not a positive number of either seconds or steps, too few candidates, start circuits of other
            problems, or logs without a folder.
        RunError: the folder holds something else or another training, another process writes it, or it is damaged.
        MissingExtraError: logs without TensorBoard.
    """
    family = load_family(family)
    budget = _Budget(seconds, steps)
    seed = whole_number("seed", seed, 0)
    if tensorboard:
        check_tensorboard("tensorboard=True")
        if folder is None:
            raise QasError("logs for TensorBoard are written into the folder of a training, got none")
    told = on_progress or (lambda what, spent, whole: None)
    trained = untrained(seed, without=without, **(sizes or {}))
    trained.family, trained.settings = family.name, dict(SETTINGS)
    if candidates is not None:
        trained.settings["candidates"] = whole_number("candidates", candidates, 8)
    config = {
        "family": family.name, "instances": [each.name for each in family.train],
        "test": [each.name for each in family.test], "seed": seed, "seconds": budget.seconds, "steps": budget.steps,
        "imitation_only": bool(imitation_only), "network": trained.policy.sizes, "environment": trained.settings,
        "features": trained.feature_version, "features_left_out": list(trained.without),
    }  # fmt: skip
    where = None if folder is None else Path(folder)
    with torch_threads(1), _asked_to_end(budget), kept_in(where, config) as kept:
        stages = _Stages(family, trained, budget, seed, told, kept)
        stages.starts = starts or Starts()
        first = stages.go_on()
        logs = where / "tensorboard" if tensorboard and where and not trained.training else None
        stages.log = logger(logs, first)
        try:
            stages.run(imitation_only)
        finally:
            stages.log.close()
    return trained


class Spent(NamedTuple):
    """How far a training has come."""

    seconds: float
    edits: int
    ended: bool


def spent_before(folder: str | os.PathLike[str]) -> Spent | None:
    """How far the training in a folder has come; None: nothing is kept there.

    Raises:
        RunError: it is damaged.
    """
    found = Kept(Path(folder)).load()
    if found is None:
        return None
    state = conform(found[0], _State, "the state of the training", where=folder)
    return Spent(state["passed"], state["edits"], "training" in state)


class _Stages:
    """What the stages of one training share."""

    def __init__(
        self, family: Family, trained: TrainedPolicy, budget: _Budget, seed: int, told: Callable[..., None], kept: Kept
    ) -> None:
        self.family, self.trained, self.budget, self.seed, self.kept = family, trained, budget, seed, kept
        self.told = lambda what: told(what, *budget.spent)
        self.policy = trained.policy
        self.before: dict[str, torch.Tensor] = {}
        """its weights before playing"""
        self.env = CircuitEditorEnv(family=family, max_edits=_EDITS, **trained.settings)
        rng = np.random.default_rng([seed, 3])
        self.judges = [family.draw(rng) for _ in range(_JUDGED)]
        self.log = logger(None)
        self.starts = Starts()
        self.areas: dict[str, float] = {}
        self.stages: list[str] = []
        """that have ended"""
        self.found: dict[str, Any] = {}
        """what there is to tell of them"""
        self.lessons, self.rng = Lessons(), np.random.default_rng([seed, 1])
        self.episodes, self.next_fit = 0, _BEFORE_FIT
        self.loss: float | None = None
        self.played: Saved | None = None
        """what playing goes on from"""

    def run(self, imitation_only: bool) -> None:
        """From where the training is to its end."""
        if self.trained.training:
            self.told("ended before")
            return
        self._make_starts()
        if not self.areas:
            self._compare()
        if "imitation" not in self.stages and (not self.budget.asked or self.episodes):
            self._imitate(1.0 if imitation_only else _IMITATED)
        if not imitation_only and (self.played is not None or self.budget.within(1.0)):
            self._play()
        self.trained.training = {
            "seed": self.seed, "seconds": round(self.budget.passed, 1), **self.found, "stages": self.stages,
            "interrupted": self.budget.asked,
            "areas": {name: round(area, 4) for name, area in self.areas.items()},
        }  # fmt: skip
        if not self.budget.asked:
            self.keep(training=self.trained.training)

    # ------------------------------------------------------------------ going on
    def go_on(self) -> int:
        """Take up what was kept, if there is anything; returns the first step that is still to be logged.

        Raises:
            RunError: it is damaged.
        """
        found = self.kept.load()
        if found is None:
            return 0
        state: _State = conform(found[0], _State, "the state of the training", where=self.kept.folder or "")
        arrays = found[1]
        with taken_up("the state of the training", where=self.kept.folder or ""):
            self.starts = Starts.from_json(state["starts"])
            self.trained.starts, self.trained.training = state["starts"], state.get("training", {})
            self.areas, self.stages, self.found = state["areas"], state["stages"], state["found"]
            weights = part_of(arrays, "policy")
            self.policy.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
            imitated = "imitation" in self.stages
            if not imitated == ("imitation" in self.areas) == ("imitation" not in state):
                raise ValueError("stages, areas and lessons do not fit together")
            if "imitation" in state:
                now = state["imitation"]
                self.lessons, self.rng = Lessons.from_arrays(part_of(arrays, "lessons")), restore_rng({**now["rng"]})
                self.episodes, self.next_fit, self.loss = now["episodes"], now["next_fit"], now["loss"]
            if "playing" in state:
                self.played = dict(state["playing"]), part_of(arrays, "playing")
        self.budget.begun, self.budget.edits = time.perf_counter() - state["passed"], state["edits"]
        return self.budget.edits + 1

    def keep(self, *, playing: Saved | None = None, training: dict[str, Any] | None = None) -> None:
        """What is done is complete: keep it.

        Args:
            playing: what playing goes on from; the policy is as it was before.
            training: of the policy, where all has ended.
        """
        weights = self.policy.state_dict() if playing is None else self.before
        arrays = {f"policy.{name}": value.numpy() for name, value in weights.items()}
        state: dict[str, Any] = {
            "passed": self.budget.passed, "edits": self.budget.edits, "starts": self.starts.to_json(),
            "areas": dict(self.areas), "stages": list(self.stages), "found": dict(self.found),
        }  # fmt: skip
        if training is not None:
            state["training"] = training
        elif playing is not None:
            state["playing"] = playing[0]
            arrays |= {f"playing.{name}": array for name, array in playing[1].items()}
        elif "imitation" not in self.stages:
            counts = {"episodes": self.episodes, "next_fit": self.next_fit, "loss": self.loss}
            state["imitation"] = {"rng": rng_state(self.rng), **counts}
            arrays |= {f"lessons.{name}": array for name, array in self.lessons.arrays().items()}
        self.kept.keep(state, arrays)

    # ------------------------------------------------------------------ stages
    def _make_starts(self) -> None:
        """Circuits of the training problems; none for devices: the coupled pairs of one are not those of another."""
        if not self.areas:
            self.told("circuits of the training problems")
            devices = any(instance.device is not None for instance in self.family.train)
            problems = [] if devices else [instance.load() for instance in self.family.train]
            self.starts = made(
                [problem for problem in problems if isinstance(problem, Problem)],
                evaluations=_STARTS_EVALUATIONS,
                seed=self.seed,
                begun=self.starts,
                on_progress=self._started,
                may_go_on=lambda: not self.budget.asked,
            )
            self.budget.begun = time.perf_counter()
        self.trained.starts = self.starts.to_json()

    def _started(self, starts: Starts, _: int) -> None:
        if not self.budget.asked:  # a search that hears of it ends early
            self.starts, self.budget.begun = starts, time.perf_counter()
            self.keep()

    def _compare(self) -> None:
        """What there is to compare the stages with, and weights to begin with."""
        if not self.budget.asked:
            self.areas = {"closed form": self._judged(None), "random weights": self._judged(self.policy)}
            self._log({"front/closed_form": self.areas["closed form"], "front/policy": self.areas["random weights"]})
        self.policy.trusting(FEATURES.index("log_gain_per_gate"), _TRUST)
        if self.areas:
            self.keep()

    def _imitate(self, share: float) -> None:
        while True:
            if self.episodes >= self.next_fit:
                self.loss = self._fit(_EPOCHS, share)
                if self.budget.asked:
                    break
                self.next_fit += max(4, self.next_fit // 2)
                self.keep()
            if self.episodes and not self.budget.within(share):
                break
            self._teach()
            self.keep()
        self.told("imitation: last fit")
        self.loss = self._fit(2 * _EPOCHS, 2.0)
        self.found |= {"states": len(self.lessons), "cross entropy above the teacher's": self.loss}
        self.areas["imitation"] = self._judged(self.policy)
        self.stages.append("imitation")
        if not self.budget.asked:
            self._log({"front/policy": self.areas["imitation"]})
            self.keep()

    def _teach(self) -> None:
        """An episode, of the teacher alone up to the first fit."""
        first = len(self.lessons)
        most = self.budget.steps or math.inf
        student = None if self.loss is None else self.policy
        taught_episode(self.env, student, self.rng, self.lessons, may_go_on=lambda: len(self.lessons.candidates) < most)
        self.episodes, self.budget.edits = self.episodes + 1, len(self.lessons)
        self._log({"imitation/agreement": agreement(self.policy, self.lessons, first)})
        loss = "" if self.loss is None else f", loss {self.loss:.3g}"
        self.told(f"imitation: {self.episodes} episodes, {len(self.lessons)} states{loss}")

    def _fit(self, epochs: int, share: float) -> float:
        lessons = self.lessons
        self.policy.standardize(np.stack(lessons.candidates), np.stack(lessons.general))
        may_go_on = functools.partial(self.budget.within, share)
        loss = fit(self.policy, lessons, epochs=epochs, rng=self.rng, may_go_on=may_go_on)
        if not self.budget.asked:
            self._log({"imitation/loss": loss})
        return loss

    def _play(self) -> None:
        """The policy is put back where playing was no use."""
        self.before = {name: value.clone() for name, value in self.policy.state_dict().items()}
        self.found["edits played"] = improve(
            self.policy,
            self.env,
            seed=self.seed,
            may_go_on=self._edited,
            told=self._between,
            begun=self.budget.edits,
            saved=self.played,
            log=self.log,
        )
        self.areas["playing"] = self._judged(self.policy)
        if not self.budget.asked:
            self._log({"front/policy": self.areas["playing"]})
        if self.areas["playing"] > self.areas["imitation"]:
            self.stages.append("playing")
        else:
            self.policy.load_state_dict(self.before)

    def _edited(self) -> bool:
        self.budget.edits += 1
        return self.budget.within(1.0)

    def _between(self, edits: int, state: Callable[[], Saved]) -> None:
        self.told(f"playing: {edits} edits")
        self.keep(playing=state())

    def _log(self, numbers: dict[str, float]) -> None:
        """Nothing that was cut short: where the training goes on, it is not a part of it."""
        for name, number in numbers.items():
            self.log.record(name, number)
        self.log.dump(self.budget.edits)

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


@contextmanager
def _asked_to_end(budget: _Budget) -> Iterator[None]:
    """The first Ctrl-C asks the training to end; the second one breaks it off."""
    from qas.simulators.interrupt import first_signal_asks

    def ask() -> None:
        budget.asked = True

    with first_signal_asks(ask):
        yield
