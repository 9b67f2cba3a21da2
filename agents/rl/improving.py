"""A policy made better by playing: MaskablePPO of sb3-contrib with the policy inside."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from qas.agents.rl.heads import policy_for
from qas.agents.rl.models import (
    ModelState,
    Saved,
    global_randomness,
    logger,
    model_state,
    restore_model,
    restore_randomness,
)
from qas.agents.rl.policy import CandidatePolicy
from qas.envs.editor import CircuitEditorEnv
from qas.schema import Count, taken_up

ROLLOUT = 256
"""Edits between two updates."""


class PlayState(ModelState):
    """The state of `improve` between two rollouts, beside its arrays."""

    env: dict[str, Any]
    rewards: list[float]
    """of the episode so far"""
    episodes: list[dict[str, float]]
    """the last ones, for the log"""
    begun: Count
    """edits before the first one"""


class _Watch(BaseCallback):
    def __init__(self, may_go_on: Callable[[], bool], between: Callable[[], None]) -> None:
        super().__init__()
        self.may_go_on, self.between = may_go_on, between

    def _on_step(self) -> bool:
        return self.may_go_on()

    def _on_rollout_start(self) -> None:
        self.logger.dump(self.num_timesteps)  # of the last update: what goes on from here does not know it any more
        self.between()


def improve(
    policy: CandidatePolicy,
    env: CircuitEditorEnv,
    *,
    seed: int,
    may_go_on: Callable[[], bool],
    told: Callable[[int, Callable[[], Saved]], None],
    begun: int = 0,
    saved: Saved | None = None,
    log: Logger | None = None,
    learning_rate: float = 1e-4,
) -> int:
    """Train a policy in place until `may_go_on` says no.

    Args:
        policy: where to begin.
        env: what is played.
        seed: of everything that is drawn.
        may_go_on: asked after every edit.
        told: told the number of edits so far before every rollout of 256, and what gives the state to go on from.
        begun: edits that were made before, which the log counts on from.
        saved: such a state: everything goes on from there, and `policy` and `begun` are its.
        log: where losses, rewards and the like go.
        learning_rate: of Adam.

    Returns:
        Edits that were played.
    """
    assert isinstance(env.observation_space, spaces.Dict)
    kind, settings = policy_for(MaskablePPO, env.observation_space, env.candidates, policy=policy)
    game: Monitor[Any, Any] = Monitor(env)

    def state() -> Saved:
        found, arrays = model_state(model)
        own = {
            "env": env.get_state(),
            "rewards": list(game.rewards),
            "episodes": list(model.ep_info_buffer or ()),
            "begun": begun,
        }
        return found | own, arrays

    with global_randomness(seed):
        model = MaskablePPO(
            kind,
            DummyVecEnv([lambda: game]),
            n_steps=ROLLOUT,
            batch_size=64,
            n_epochs=4,
            learning_rate=learning_rate,
            gamma=0.97,
            gae_lambda=0.95,
            clip_range=0.1,
            target_kl=0.03,
            ent_coef=1e-3,
            max_grad_norm=0.5,
            policy_kwargs=settings,
            seed=seed,
            device="cpu",
        )
        model.set_logger(log or logger(None))
        model.num_timesteps = begun
        if saved is not None:
            begun = _go_on(model, game, env, saved)
        model.learn(
            2**40 - model.num_timesteps,
            callback=_Watch(may_go_on, lambda: told(model.num_timesteps - begun, state)),
            reset_num_timesteps=False,
        )
    policy.eval()
    return int(model.num_timesteps - begun)


def _go_on(model: MaskablePPO, game: Monitor[Any, Any], env: CircuitEditorEnv, saved: Saved) -> int:
    """Set model, environment and generators to a saved state; returns the edits before the first one."""
    state, arrays = saved
    observation, _ = env.set_state(state["env"])
    game.rewards, game.needs_reset = list(state["rewards"]), False
    with taken_up("the state that playing goes on from"):
        restore_model(model, state, arrays, observation)
        restore_randomness(state, arrays)
    model.ep_info_buffer, model.ep_success_buffer = (
        deque(held, maxlen=model._stats_window_size) for held in (state["episodes"], ())
    )
    return int(state["begun"])
