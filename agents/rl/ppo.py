"""Proximal policy optimization with action masks, from sb3-contrib, on the circuit builder."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from qas.agents.base import Agent, Search
from qas.agents.rl.episodes import make_environment
from qas.agents.rl.improving import global_randomness
from qas.errors import QasError


class _RolloutStart(BaseCallback):
    """Between two rollouts the state of the agent is complete."""

    def __init__(self, agent: PpoAgent) -> None:
        super().__init__()
        self.agent = agent

    def _on_rollout_start(self) -> None:
        agent = self.agent
        agent.search.record.note = (
            f"{agent.model.num_timesteps} steps, {agent.model._n_updates // agent.model.n_epochs} updates"
        )
        agent.search.safe_point(agent)

    def _on_step(self) -> bool:
        return True


class PpoAgent(Agent):
    """MaskablePPO (sb3-contrib) on the same environment and budget as every other agent.

    Args:
        n_steps: environment steps in one rollout.
        batch_size: steps in one gradient update.
        n_epochs: passes over a rollout.
        learning_rate: of Adam.
        gamma: discount.
        gae_lambda: of the generalized advantage estimate.
        ent_coef: weight of the entropy bonus.
        hidden: widths of the hidden layers of policy and value network.
        halting: "none", or "random": episodes end early at a random length.
    """

    name: ClassVar[str] = "ppo"
    about: ClassVar[str] = "masked proximal policy optimization (sb3-contrib's MaskablePPO)"

    def __init__(
        self,
        *,
        n_steps: int = 256,
        batch_size: int = 64,
        n_epochs: int = 4,
        learning_rate: float = 3e-4,
        gamma: float = 0.95,
        gae_lambda: float = 0.95,
        ent_coef: float = 0.01,
        hidden: tuple[int, ...] | list[int] = (128, 128),
        halting: str = "none",
    ) -> None:
        if min(n_steps, batch_size, n_epochs) < 1 or n_steps % batch_size or batch_size < 2:
            raise QasError(
                f"ppo needs n_steps to be a multiple of batch_size >= 2, and n_epochs >= 1, got {n_steps}, "
                f"{batch_size}, {n_epochs}"
            )
        if not (0 < gamma <= 1 and 0 <= gae_lambda <= 1 and learning_rate > 0) or not hidden or min(hidden) < 1:
            raise QasError("ppo needs 0 < gamma <= 1, 0 <= gae_lambda <= 1, learning_rate > 0 and hidden sizes >= 1")
        self.n_steps, self.batch_size, self.n_epochs = int(n_steps), int(batch_size), int(n_epochs)
        self.learning_rate, self.gamma, self.gae_lambda = learning_rate, gamma, gae_lambda
        self.ent_coef, self.hidden, self.halting = ent_coef, tuple(hidden), halting

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"hidden": [16], "n_steps": 16, "batch_size": 8, "n_epochs": 2}
        return super().example() | {"options": small}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.seed = int(search.rng(1).integers(2**31))
        self.restored: dict[str, Any] | None = None
        self.env = make_environment(search, halting=self.halting)
        with global_randomness(self.seed):
            self.model = MaskablePPO(
                "MultiInputPolicy",
                DummyVecEnv([lambda: self.env]),  # as it is: a Monitor around it would have state of its own
                n_steps=self.n_steps,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                gamma=self.gamma,
                gae_lambda=self.gae_lambda,
                ent_coef=self.ent_coef,
                policy_kwargs={"net_arch": list(self.hidden)},
                seed=self.seed,
                device="cpu",
            )

    def run(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # layers this small lose time to a second thread
        try:
            with global_randomness(self.seed):
                if self.restored is not None:
                    torch.set_rng_state(self.restored["torch"])
                    np.random.set_state(self.restored["numpy"])  # noqa: NPY002
                while True:
                    self.model.learn(
                        2**40, callback=_RolloutStart(self), reset_num_timesteps=self.model._last_obs is None
                    )
        finally:
            torch.set_num_threads(threads)

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        model = self.model
        kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
        arrays = {f"policy.{k}": v.numpy() for k, v in model.policy.state_dict().items()}
        for index, moments in model.policy.optimizer.state_dict()["state"].items():
            arrays |= {f"adam.{index}.{k}": v.numpy() for k, v in moments.items()}
        arrays["rng.torch"] = torch.get_rng_state().numpy()
        arrays["rng.numpy"] = np.asarray(keys)
        assert model._last_episode_starts is not None
        state = {
            "env": self.env.get_state(),
            "timesteps": model.num_timesteps,
            "updates": model._n_updates,
            "episode_starts": [bool(b) for b in model._last_episode_starts],
            "numpy": [kind, int(position), int(has_gauss), float(cached)],
        }
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        model = self.model
        observation, _ = self.env.set_state(state["env"])
        model.policy.load_state_dict(
            {k.removeprefix("policy."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("policy.")}
        )
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in arrays.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
        optimizer = model.policy.optimizer
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        model.num_timesteps, model._n_updates = state["timesteps"], state["updates"]
        model._last_obs = {k: v[None] for k, v in observation.items()}
        model._last_episode_starts = np.array(state["episode_starts"])
        kind, position, has_gauss, cached = state["numpy"]
        self.restored = {
            "torch": torch.from_numpy(arrays["rng.torch"].copy()),
            "numpy": (kind, arrays["rng.numpy"], position, has_gauss, cached),
        }
