"""A policy made better by playing: MaskablePPO of sb3-contrib with the policy inside."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from qas.agents.rl.heads import policy_for
from qas.agents.rl.policy import CandidatePolicy
from qas.envs.editor import CircuitEditorEnv

_STEPS = 256
"""Edits between two updates."""


class _Watch(BaseCallback):
    def __init__(self, may_go_on: Callable[[], bool], told: Callable[[int], None]) -> None:
        super().__init__()
        self.may_go_on, self.told = may_go_on, told

    def _on_step(self) -> bool:
        return self.may_go_on()

    def _on_rollout_start(self) -> None:
        self.told(self.num_timesteps)


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Stable-Baselines3 draws from the global generators: seed them here, and give them back as they were."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def improve(
    policy: CandidatePolicy,
    env: CircuitEditorEnv,
    *,
    seed: int,
    may_go_on: Callable[[], bool],
    told: Callable[[int], None],
    learning_rate: float = 1e-4,
) -> int:
    """Train a policy in place until `may_go_on` says no.

    Args:
        policy: where to begin.
        env: what is played.
        seed: of everything that is drawn.
        may_go_on: asked after every edit.
        told: the number of edits so far, now and then.
        learning_rate: of Adam.

    Returns:
        Edits that were played.
    """
    assert isinstance(env.observation_space, spaces.Dict)
    kind, settings = policy_for(MaskablePPO, env.observation_space, env.candidates, policy=policy)
    with global_randomness(seed):
        model = MaskablePPO(
            kind,
            DummyVecEnv([lambda: env]),  # type: ignore[list-item, return-value]
            n_steps=_STEPS,
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
        model.learn(2**40, callback=_Watch(may_go_on, told))
    policy.eval()
    return int(model.num_timesteps)
