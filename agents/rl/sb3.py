"""Any algorithm of Stable-Baselines3 or sb3-contrib for discrete actions, on the circuit builder or the editor."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.rl.episodes import make_editor, make_environment
from qas.agents.rl.heads import policy_for
from qas.agents.rl.models import (
    ModelState,
    check_tensorboard,
    global_randomness,
    logger,
    model_state,
    restore_model,
    restore_randomness,
)
from qas.agents.settings import room_for_depth
from qas.checks import whole_number
from qas.envs import OBSERVATIONS, REWARDS
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.curricula import check_curriculum
from qas.envs.editor import EDIT_REWARDS, CircuitEditorEnv
from qas.errors import QasError, UnknownNameError
from qas.estimates import affordable
from qas.problems import BaseProblem
from qas.registry import check_settings
from qas.schema import RngState
from qas.torch_threads import torch_threads

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "MaskablePPO": MaskablePPO,
    "PPO": stable_baselines3.PPO,
    "A2C": stable_baselines3.A2C,
    "DQN": DQN,
    "QRDQN": sb3_contrib.QRDQN,
    "TRPO": sb3_contrib.TRPO,
}
"""Name -> algorithm; the first is the default."""

_ON_POLICY: dict[str, Any] = {"gamma": 0.95, "ent_coef": 0.01}
_PPO = _ON_POLICY | {"n_steps": 256, "batch_size": 64, "n_epochs": 4, "learning_rate": 3e-4}
_DQN: dict[str, Any] = {
    "gamma": 0.95, "learning_rate": 3e-4, "batch_size": 64, "buffer_size": 20_000, "learning_starts": 500,
    "train_freq": 1, "target_update_interval": 250, "exploration_fraction": 1.0, "exploration_final_eps": 0.05,
}  # fmt: skip
_USUAL = {
    "MaskablePPO": _PPO,
    "PPO": _PPO,
    "A2C": _ON_POLICY | {"n_steps": 16},
    "TRPO": {"gamma": 0.95, "n_steps": 256, "batch_size": 64},
    "DQN": _DQN,
    "QRDQN": _DQN,
}
"""Settings where the caller gives none: short rollouts and early updates, as steps are dear."""
_OURS = ("self", "policy", "env", "policy_kwargs", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")
"""Arguments of algorithms that are not for the caller."""
_PENALTY = 0.1
"""What an illegal action costs."""
_OF_THE_BUILDER = {"curriculum": "moving", "halting": "none", "observation": "layers", "optimise_every": 1}
"""Options that the editor has no use for, and their defaults."""


class Played(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment as an algorithm plays it.

    Episodes are noted in the search's record, and after so many of them one is played greedily. In the place of an
    illegal action a legal one is played, drawn evenly, and the reward is 0.1 less.

    Args:
        env: what is played.
        search: whose budget and record it is.
        test_every: training episodes for a greedy one; 0: none.
        greedy: the action of a greedy episode, from observation and mask; None: drawn evenly like all others.
    """

    _COUNTS = ("episodes", "successes", "tests", "tests_solved", "illegal")

    def __init__(
        self,
        env: CircuitBuilderEnv | CircuitEditorEnv,
        search: Search,
        test_every: int,
        greedy: Callable[[Any, np.ndarray], int] | None,
    ) -> None:
        super().__init__(env)
        self.inner, self.search, self.test_every, self.greedy = env, search, test_every, greedy
        self.rng = search.rng(1)
        self.episodes = self.successes = self.tests = self.tests_solved = self.illegal = 0

    def action_masks(self) -> np.ndarray:
        """Which actions are legal; the name that sb3-contrib asks for."""
        return self.inner.action_masks()

    def drawn(self) -> int:
        """A legal action, drawn evenly."""
        return int(self.rng.choice(np.flatnonzero(self.inner.action_masks())))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.test_every and self.episodes and self.episodes % self.test_every == 0:
            self._test()
        observation, _ = self.inner.reset(seed=seed, options=options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's; of its info only what Stable-Baselines3 reads, as it copies that deeply."""
        legal = bool(self.inner.action_masks()[int(action)])
        observation, reward, terminated, truncated, info = self.inner.step(int(action) if legal else self.drawn())
        if not legal:
            reward = float(reward) - _PENALTY
            self._warn()
        if not (terminated or truncated):
            return observation, reward, terminated, truncated, {}
        solved = self._note(info, test=False)
        return observation, reward, terminated, truncated, {"is_success": solved}

    def _warn(self) -> None:
        self.illegal += 1
        if self.illegal == 1:
            warnings.warn(
                f"the algorithm knows no masks: an illegal action costs {_PENALTY} and a legal one is played instead",
                stacklevel=2,
            )

    def _test(self) -> None:
        """An episode that the curriculum is not told of."""
        options = {"training": False} if isinstance(self.inner, CircuitBuilderEnv) else {}
        observation, info = self.inner.reset(options=options)
        over = False
        while not over:
            mask = self.inner.action_masks()
            action = self.drawn() if self.greedy is None else self.greedy(observation, mask)
            observation, _, terminated, truncated, info = self.inner.step(action if mask[action] else self.drawn())
            over = terminated or truncated
        self._note(info, test=True)

    def _note(self, info: dict[str, Any], *, test: bool) -> bool:
        """Write an episode down; whether it was a success."""
        threshold = self.search.problem.threshold
        solved = bool(info["success"] if "success" in info else threshold and info["error"] < threshold)
        self.search.record.episode(self.search.meter, info["circuit"], info["error"], solved, test=test)
        if test:
            self.tests, self.tests_solved = self.tests + 1, self.tests_solved + solved
        else:
            self.episodes, self.successes = self.episodes + 1, self.successes + solved
        note = f"episode {self.episodes}, {self.successes} solved"
        self.search.record.note = note + (f", greedy {self.tests_solved} of {self.tests}" if self.test_every else "")
        return solved

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """JSON-able; `restore` takes it back."""
        counts = {name: getattr(self, name) for name in self._COUNTS}
        return counts | {"rng": rng_state(self.rng), "env": self.inner.get_state()}

    def restore(self, state: Mapping[str, Any]) -> Any:
        """Go on from a state; returns the present observation."""
        for name in self._COUNTS:
            setattr(self, name, int(state[name]))
        self.rng = restore_rng(state["rng"])
        return self.inner.set_state(state["env"])[0]


class _Watch(BaseCallback):
    """Between two rollouts the state of the agent is complete."""

    def __init__(self, agent: Sb3Agent) -> None:
        super().__init__()
        self.agent = agent

    def _on_training_start(self) -> None:
        self.model._total_timesteps = self.agent.horizon  # what schedules are shares of

    def _on_rollout_start(self) -> None:
        game, record = self.agent.game, self.logger.record
        self.agent.search.safe_point(self.agent)
        record("search/best_error", self.agent.search.record.best_error)
        record("search/evaluations", self.agent.meter.evaluations)
        for name in ("episodes", "successes", "tests", "tests_solved", "illegal"):
            record(f"search/{name}", getattr(game, name))

    def _on_step(self) -> bool:
        return True


class _GameState(TypedDict):
    rng: RngState
    env: dict[str, Any]


class _State(ModelState):
    game: _GameState


class Sb3Agent(Agent):
    """An algorithm of Stable-Baselines3 on the same environments and budget as every other agent.

    Args:
        algorithm: a name of `ALGORITHMS` or a class that is derived from an on-policy algorithm, DQN or QRDQN.
            MaskablePPO never takes an illegal action; the others are taught not to, by 0.1 of reward.
        settings: arguments of the algorithm, such as ``{"n_steps": 256}``; see its documentation for the defaults, of
            which some are replaced by such as suit short episodes.
        env: "builder" or "editor".
        hidden: widths of the hidden layers.
        learn: False: all actions are drawn evenly from the legal ones and nothing is learned, all else is the same: the
            control that says what learning is worth.
        test_every: after so many episodes one is played greedily (with ``learn=False`` at random, as all are), within
            the budget, and tells the curriculum nothing; 0: none.
        horizon: environment steps that schedules run over, such as the exploration of DQN.
        tensorboard: write logs for TensorBoard into the run folder (extra ``tensorboard``).
        reward: of the environment, None for its default: `qas.envs.REWARDS` of the builder, "front" or "energy" of the
            editor.
        curriculum, halting, observation, optimise_every: of the builder; see
            `qas.agents.rl.episodes.settings_of_environment`.
    """

    name: ClassVar[str] = "sb3"
    about: ClassVar[str] = "any algorithm of Stable-Baselines3: MaskablePPO, PPO, A2C, DQN, QRDQN, TRPO"
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        algorithm: str | type = "MaskablePPO",
        settings: dict[str, Any] | None = None,
        env: str = "builder",
        hidden: tuple[int, ...] | list[int] = (128, 128),
        learn: bool = True,
        test_every: int = 20,
        horizon: int = 5_000,
        tensorboard: bool = False,
        reward: str | None = None,
        curriculum: str | float = "moving",
        halting: str = "none",
        observation: str = "layers",
        optimise_every: int | str = 1,
    ) -> None:
        kind = _algorithm(algorithm)
        if env not in ("builder", "editor"):
            raise UnknownNameError("env", env, ("builder", "editor"))
        if not hidden:
            raise QasError("sb3 has at least 1 hidden layer, got none")
        for width in hidden:
            whole_number("a size of hidden", width, 1, 2**14)
        known = [name for name in _parameters(kind) if name not in _OURS]
        check_settings(kind, settings or {}, f"the algorithm {kind.__name__}", known)
        rewards = REWARDS if env == "builder" else EDIT_REWARDS
        if reward is not None and reward not in rewards:
            raise UnknownNameError("reward", reward, rewards)
        OBSERVATIONS.check(observation)
        check_curriculum(curriculum)
        self.algorithm, self.settings, self.env, self.hidden = algorithm, settings, env, tuple(hidden)
        self.learn, self.tensorboard, self.reward = learn, tensorboard, reward
        self.test_every, self.horizon = whole_number("test_every", test_every, 0), whole_number("horizon", horizon)
        self.curriculum, self.halting = curriculum, halting
        self.observation, self.optimise_every = observation, optimise_every
        for name, usual in _OF_THE_BUILDER.items():
            if env == "editor" and getattr(self, name) != usual:
                raise QasError(f"{name} is an option of the builder, got {getattr(self, name)!r} with env=editor")
        if tensorboard:
            check_tensorboard("tensorboard=true")

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"n_steps": 16, "batch_size": 8, "n_epochs": 2}
        return super().example() | {"options": {"hidden": [16, 16], "settings": small, "test_every": 3}}

    @classmethod
    def kept_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Algorithms of the table by their names."""
        given = options.get("algorithm")
        name = next((name for name, kind in ALGORITHMS.items() if kind is given), given)
        return dict(options) | ({} if given is None else {"algorithm": name})

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        return room_for_depth(problem) if self.env == "editor" else {}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.seed = int(search.rng(2).integers(2**31))
        self.restored: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None
        self.begun = False
        self.game = Played(self._environment(), search, self.test_every, self._greedy if self.learn else None)
        self.model: Any = self._model() if self.learn else None

    def _environment(self) -> CircuitBuilderEnv | CircuitEditorEnv:
        reward = {} if self.reward is None else {"reward": self.reward}
        if self.env == "editor":
            return make_editor(self.search, **reward)
        names = ("curriculum", "halting", "observation", "optimise_every")
        return make_environment(self.search, **reward, **{name: getattr(self, name) for name in names})

    def _model(self) -> BaseAlgorithm:
        kind, space = _algorithm(self.algorithm), self.game.observation_space
        assert isinstance(space, spaces.Dict) and isinstance(self.game.action_space, spaces.Discrete)
        policy, policy_settings = policy_for(kind, space, int(self.game.action_space.n), self.hidden)
        taken = _parameters(kind)
        family = next((each.__name__ for each in kind.__mro__ if each.__name__ in _USUAL), "")
        usual = {name: value for name, value in _USUAL.get(family, {}).items() if name in taken}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in (self.settings or {}).items()}
        steps = max((v for k in ("n_steps", "buffer_size") if isinstance(v := (usual | given).get(k), int)), default=0)
        each = 8 + sum(int(np.prod(box.shape or ())) * np.dtype(box.dtype).itemsize for box in space.values())
        affordable(f"{steps} steps of {kind.__name__} take", memory=float(steps) * each, seconds=1e-5 * steps)
        # As it is: a Monitor around the environment would have a state of its own.
        envs = DummyVecEnv([lambda: self.game])
        try:
            with global_randomness(self.seed):
                model = kind(
                    policy, envs, policy_kwargs=policy_settings, seed=self.seed, device="cpu", **(usual | given)
                )
        except QasError:
            raise
        except (ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
            raise QasError(f"{kind.__name__} refuses its settings: {' '.join(str(error).split())[:160]}") from None
        self.game.action_space.seed(self.seed)
        return model

    def _greedy(self, observation: Any, mask: np.ndarray) -> int:
        masks = {"action_masks": mask} if isinstance(self.model, MaskablePPO) else {}
        action, _ = self.model.predict(observation, deterministic=True, **masks)
        return int(action)

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        with torch_threads(1):
            if self.model is None:
                self._play_evenly()
                return
            folder = self.search.record.recorder and self.search.record.recorder.folder
            logs = folder / "tensorboard" if self.tensorboard and folder else None
            self.model.set_logger(logger(logs, self.model.num_timesteps + 1))
            with global_randomness(self.seed):
                if self.restored is not None:
                    restore_randomness(*self.restored)
                # The total stays the same in a resumed run, so that every share of it does.
                try:
                    self.model.learn(
                        2**40 - self.model.num_timesteps,
                        callback=_Watch(self),
                        reset_num_timesteps=self.model._last_obs is None,
                    )
                except QasError:
                    raise
                except Exception as error:
                    if not _in_a_learner(error):
                        raise
                    told = " ".join(str(error).split())[:160]
                    raise QasError(f"{type(self.model).__name__} cannot learn with its settings: {told}") from error

    def _play_evenly(self) -> None:
        if not self.begun:
            self.game.reset(seed=self.seed)
            self.begun = True
        while True:
            self.search.safe_point(self)
            _, _, terminated, truncated, _ = self.game.step(self.game.drawn())
            if terminated or truncated:
                self.game.reset()

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = ({}, {}) if self.model is None else model_state(self.model)
        return {"game": self.game.state(), **state}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        observation = self.game.restore(state["game"])
        self.begun = True
        if self.model is not None:
            restore_model(self.model, state, arrays, observation)
            drawn = {name: array for name, array in arrays.items() if name.startswith("rng.")}  # not the replay buffer
            self.restored = state, drawn


_OWN = ("qas", "stable_baselines3", "sb3_contrib")


def _in_a_learner(error: BaseException) -> bool:
    """Whether an error comes from the learner, or what that calls, and not from the environment."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    rooms = [name.partition(".")[0] for name in frames]
    return [room for room in rooms if room in _OWN][-1:] != ["qas"]


def _algorithm(given: str | type) -> type[BaseAlgorithm]:
    """The class of an algorithm.

    Raises:
        UnknownNameError: no such name.
        QasError: a class that is no algorithm, or one whose state or actions are of another kind.
    """
    if isinstance(given, str):
        if given not in ALGORITHMS:
            raise UnknownNameError("algorithm", given, ALGORITHMS)
        return ALGORITHMS[given]
    fits = issubclass(given, (OnPolicyAlgorithm, DQN, sb3_contrib.QRDQN)) and not issubclass(given, RecurrentPPO)
    if not fits:
        raise QasError(
            f"an algorithm is a name ({', '.join(ALGORITHMS)}) or a class that is derived from an on-policy one "
            f"without memory, from DQN or from QRDQN, got {given.__name__}"
        )
    return given


def _parameters(kind: type[BaseAlgorithm]) -> list[str]:
    """Names of the arguments of an algorithm, and of those that it is derived from where it hands them on."""
    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" in vars(base):
            found = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            names += [p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            if not any(p.kind is p.VAR_KEYWORD for p in found):
                break
    return names
