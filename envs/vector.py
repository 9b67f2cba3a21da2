"""Many circuit builders of one problem at once: the circuits of a step are optimised together."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypedDict

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from qas.checks import whole_number
from qas.envs.builder import Asked, CircuitBuilderEnv, Observation, Step
from qas.errors import QasError
from qas.problems import BaseProblem
from qas.schema import conform
from qas.vqe import Evaluation

_FORMAT = "qas-circuit-builders"


class _State(TypedDict):
    envs: list[dict[str, Any]]
    ended: list[bool]


class CircuitBuilderVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Circuit builders side by side, as ``gymnasium.make_vec("qas/CircuitBuilder-v0", num_envs=8, problem=…)`` makes
    them.

    Each is a `CircuitBuilderEnv` with its own randomness; they have one evaluator, which is asked for the circuits of a
    step together (`CircuitEvaluator.evaluate_many`), and one curriculum, which learns from the episodes of all. Where
    the compiled engines optimise, the results are those of one builder after the other, but for a curriculum that moves
    while some of them wait for an optimisation that it decides on (`optimise_every`).

    An episode that ended begins anew in the next step, whose action is ignored (`AutoresetMode.NEXT_STEP`).
    ``reset(seed=s)`` seeds the builders with s, s + 1, …; a list gives each its own. With the option "reset_mask",
    bool, shape (num_envs,), only those episodes begin; all other options are those of a builder.

    Args:
        problem: one for all, as of `CircuitBuilderEnv`.
        num_envs: how many.
        **settings: further arguments of `CircuitBuilderEnv`.

    Raises:
        UnknownNameError, QasError: as `CircuitBuilderEnv`; several problems.
    """

    metadata = CircuitBuilderEnv.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, problem: str | BaseProblem, num_envs: int = 1, **settings: Any) -> None:
        if not isinstance(problem, (str, BaseProblem)):
            raise QasError(f"the circuits of a vector environment are of one problem, got {type(problem).__name__}")
        self.num_envs = whole_number("num_envs", num_envs)
        first = CircuitBuilderEnv(problem, **settings)
        rest: dict[str, Any] = {
            "evaluator": first.evaluator,
            "gates": first.actions.gates,
            "coupling": first.actions.coupling,
        }
        rest |= {"directions": first.actions.directions, "curriculum": first.curriculum}
        given = {k: v for k, v in settings.items() if k not in ("noise", "device", "patch", "objective", *rest)}
        self.envs = [first, *(CircuitBuilderEnv(first.problem, **given, **rest) for _ in range(self.num_envs - 1))]
        self.evaluator = first.evaluator
        self.render_mode = first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._share(first)

    # ------------------------------------------------------------------ Gymnasium
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in each builder, or in those of ``options["reset_mask"]``.

        Raises:
            QasError: as of `CircuitBuilderEnv.reset`; not a seed or a mask for each.
        """
        options = dict(options or {})
        chosen = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=bool)))
        seeds = self._seeds(seed)
        if chosen.shape != (self.num_envs,) or chosen.dtype != bool or len(seeds) != self.num_envs:
            raise QasError(
                f"there are a seed and a mask for each of {self.num_envs} circuits, got other numbers of them"
            )
        found = []
        for k, env in enumerate(self.envs):
            if chosen[k]:
                found.append(env.reset(seed=seeds[k], options=options))
                self._share(env)
            else:
                found.append(env.present())
        self._ended[chosen] = False
        return self._observations([o for o, _ in found]), self._infos([i for _, i in found])

    def _seeds(self, given: Any) -> list[int | None]:
        """Of each builder: numbers may be NumPy's, which Gymnasium refuses."""
        if given is None:
            return [None] * self.num_envs
        if np.ndim(given) == 0:
            first = whole_number("a seed", given, 0)
            return [first + k for k in range(self.num_envs)]
        return [None if seed is None else whole_number("a seed", seed, 0) for seed in given]

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step in each builder.

        Raises:
            ResetNeeded: no episode was begun.
            QasError: not an action for each, or no such action.
        """
        if len(actions) != self.num_envs:
            raise QasError(f"there is an action for each of {self.num_envs} circuits, got {len(actions)}")
        steps: list[Step | None] = [None] * self.num_envs
        moves: dict[int, Generator[Asked, Evaluation, Step]] = {}
        for k, env in enumerate(self.envs):
            if self._ended[k]:
                observation, info = env.reset()
                steps[k] = observation, 0.0, False, False, info
            else:
                moves[k] = env.moves(actions[k])
        waiting: dict[int, Asked] = {}
        for k, move in moves.items():
            self._go_on(k, move, None, waiting, steps)
        while waiting:
            for k, found in self._evaluated(waiting):
                del waiting[k]
                self._go_on(k, moves[k], found, waiting, steps)
        observations, rewards, terminated, truncated, infos = zip(*(s for s in steps if s is not None), strict=True)
        self._ended = np.array(terminated) | np.array(truncated)
        return (
            self._observations(observations),
            np.array(rewards, dtype=np.float64),
            np.array(terminated),
            np.array(truncated),
            self._infos(infos),
        )

    @staticmethod
    def _go_on(
        k: int,
        move: Generator[Asked, Evaluation, Step],
        found: Evaluation | None,
        waiting: dict[int, Asked],
        steps: list[Step | None],
    ) -> None:
        """Send a builder what it waits for; it asks for something else, or its step is done."""
        try:
            waiting[k] = next(move) if found is None else move.send(found)
        except StopIteration as end:
            steps[k] = end.value

    def _evaluated(self, waiting: Mapping[int, Asked]) -> list[tuple[int, Evaluation]]:
        """What became of the circuits that are asked for in the same way as the first."""
        as_it_is = next(iter(waiting.values())).as_it_is
        chosen = {k: asked for k, asked in waiting.items() if asked.as_it_is == as_it_is}
        settings = next(iter(chosen.values())).settings
        results = self.evaluator.evaluate_many(
            (asked.circuit for asked in chosen.values()), (asked.rng for asked in chosen.values()), **settings
        )
        with closing(results):
            return list(zip(chosen, results, strict=True))

    def render(self) -> tuple[Any, ...] | None:
        """What each builder renders."""
        return None if self.render_mode is None else tuple(env.render() for env in self.envs)

    # ------------------------------------------------------------------ for agents
    def action_masks(self) -> np.ndarray:
        """Which actions are legal, bool, shape (num_envs, actions)."""
        return np.stack([env.action_masks() for env in self.envs])

    def get_state(self) -> dict[str, Any]:
        """JSON-able state; `set_state` continues exactly from there."""
        return {"format": _FORMAT, "envs": [env.get_state() for env in self.envs], "ended": self._ended.tolist()}

    def set_state(self, state: Mapping[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Go to a state of `get_state`; returns observations and infos, as `reset` does.

        Raises:
            QasError: not such a state, of another number of builders, or as of `CircuitBuilderEnv.set_state`.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
            raise QasError("this is not a state of a vector of circuit builders")
        conform(state, _State, "the state of a vector of circuit builders", error=QasError)
        if not len(state["envs"]) == len(state["ended"]) == self.num_envs:
            raise QasError(f"the state is of {len(state['envs'])} circuit builders, but there are {self.num_envs}")
        found = [env.set_state(each) for env, each in zip(self.envs, state["envs"], strict=True)]
        self._share(self.envs[0])
        self._ended = np.array(state["ended"], dtype=bool)
        return self._observations([o for o, _ in found]), self._infos([i for _, i in found])

    def _share(self, source: CircuitBuilderEnv) -> None:
        for env in self.envs:
            env.curriculum = source.curriculum

    # ------------------------------------------------------------------ what is handed out
    def _observations(self, observations: Sequence[Observation]) -> Observation:
        spaces: Any = self.single_observation_space
        return {name: np.array([o[name] for o in observations], dtype=spaces[name].dtype) for name in spaces}

    def _infos(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Infos by name, an entry for each builder; ``_name`` says that all have it, as in other vectors."""
        found: dict[str, Any] = {}
        for name, first in infos[0].items():
            column: np.ndarray = np.empty(self.num_envs, dtype=object)
            for k, info in enumerate(infos):
                column[k] = info[name]
            plain = isinstance(first, (bool, int, float, np.ndarray))
            found[name] = np.array(column.tolist()) if plain else column
            found[f"_{name}"] = np.ones(self.num_envs, dtype=bool)
        return found
