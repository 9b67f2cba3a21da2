"""Observations as Stable-Baselines3 reads them: bits and numbers in one layer, tables by rows with shared weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from qas.agents.rl.policy import CandidatePolicy

_TABLES = ("actions", "candidates")
"""Names of tables in observations; each has a row for every action, and ``general`` beside it."""
_ONES = 40
"""Bits of an observation that are one, about."""


class BitsAndNumbers(BaseFeaturesExtractor):
    """A linear layer over all bits and numbers, the numbers divided by their bounds.

    Only a few dozen of thousands of bits are ever one; with weights scaled by their full number the circuit would
    hardly be seen.

    Args:
        observation_space: of bits and boxes.
        features_dim: width of the layer.
    """

    def __init__(self, observation_space: spaces.Dict, features_dim: int) -> None:
        super().__init__(observation_space, features_dim)
        parts = observation_space.spaces
        self.boxes = [name for name, part in parts.items() if isinstance(part, spaces.Box)]
        self.bits = [name for name in parts if name not in self.boxes]
        self.sizes = [math.prod(parts[name].shape or ()) for name in (*self.bits, *self.boxes)]
        bounds = [torch.as_tensor(parts[name].high, dtype=torch.float32).ravel() for name in self.boxes]  # type: ignore[attr-defined]
        self.register_buffer("bounds", torch.cat(bounds) if bounds else torch.ones(0))
        self.layer = nn.Linear(sum(self.sizes), features_dim)
        with torch.no_grad():
            self.layer.weight.uniform_(-(_ONES**-0.5), _ONES**-0.5)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        bits = [observations[name].float().flatten(1) for name in self.bits]
        numbers = torch.cat([observations[name].flatten(1) for name in self.boxes], dim=1)
        return nn.functional.leaky_relu(self.layer(torch.cat([*bits, numbers / self.get_buffer("bounds")], dim=1)))


class RowScores(BaseFeaturesExtractor):
    """A score for each row of a table, and the value of the state behind them, by a `CandidatePolicy`.

    Args:
        observation_space: a table, flat, and general features.
        rows: of the table.
        width: of a new policy, rounded up to a multiple of its heads.
        policy: one that is there already, instead.
    """

    def __init__(
        self, observation_space: spaces.Dict, rows: int, width: int = 0, policy: CandidatePolicy | None = None
    ) -> None:
        super().__init__(observation_space, features_dim=rows + 1)
        self.table = next(name for name in _TABLES if name in observation_space.spaces)
        numbers, general = (math.prod(observation_space[name].shape or ()) for name in (self.table, "general"))
        self.policy = policy or CandidatePolicy(numbers // rows, general, width=4 * math.ceil(width / 4))

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        scores, values = self.policy(observations[self.table], observations["general"])
        return torch.cat([scores, values.unsqueeze(-1)], dim=-1)


class _Apart(nn.Module):
    """Takes scores and value apart."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = count, 1

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return features[..., :-1]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return features[..., -1:]


class ScoredActor:
    """An actor-critic policy whose logits and value are its features."""

    def _build_mlp_extractor(self: Any) -> None:
        self.mlp_extractor = _Apart(self.features_dim - 1)

    def _build(self: Any, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.action_net, self.value_net = nn.Identity(), nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class _Values(nn.Module):
    """The state's value and what each action adds to the mean (Wang et al., arXiv:1511.06581), for each quantile.

    Args:
        quantiles: how many; their distances are the same for all actions, so that actions stay exchangeable.
    """

    def __init__(self, quantiles: int = 1) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.linspace(-0.1, 0.1, quantiles) if quantiles > 1 else torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scores, value = features[..., :-1], features[..., -1:]
        values = value + scores - scores.mean(-1, keepdim=True)
        return values.unsqueeze(1) + self.spread[:, None]


class _ScoredValues(_Values):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features).squeeze(1)


class _ScoredQ:
    """A Q-network whose values are its features."""

    def make_q_net(self: Any) -> Any:
        net = super().make_q_net()  # type: ignore[misc]
        net.q_net = _ScoredValues()
        return net


class _ScoredQuantiles:
    """A quantile network whose values are its features."""

    def make_quantile_net(self: Any) -> Any:
        net = super().make_quantile_net()  # type: ignore[misc]
        net.quantile_net = _Values(self.n_quantiles)
        return net


_SCORED: dict[type, type] = {
    ActorCriticPolicy: ScoredActor,
    MaskableActorCriticPolicy: ScoredActor,
    DQNPolicy: _ScoredQ,
    QRDQNPolicy: _ScoredQuantiles,
}


def policy_for(
    algorithm: type[BaseAlgorithm],
    space: spaces.Dict,
    actions: int,
    hidden: tuple[int, ...] = (0,),
    *,
    policy: CandidatePolicy | None = None,
) -> tuple[type[Any], dict[str, Any]]:
    """The policy class for an algorithm and an observation, and its settings.

    Args:
        algorithm: of Stable-Baselines3 or sb3-contrib, or one that is derived from these.
        space: what is observed: a table with a row for each action, or else bits and boxes.
        actions: how many there are.
        hidden: widths of the hidden layers; of a table the first is the width of its rows.
        policy: what scores the rows of a table, instead of a new one.
    """
    base = algorithm.policy_aliases["MultiInputPolicy"]
    settings: dict[str, Any] = {"net_arch": list(hidden[1:])}
    if issubclass(base, (ActorCriticPolicy, MaskableActorCriticPolicy)):
        settings["ortho_init"] = False  # the layers below have scales of their own
    scored = next((part for known, part in _SCORED.items() if issubclass(base, known)), None)
    if scored is not None and any(name in space.spaces for name in _TABLES):
        extractor: dict[str, Any] = {"rows": actions, "width": hidden[0], "policy": policy}
        settings |= {"features_extractor_class": RowScores, "features_extractor_kwargs": extractor}
        return type(f"Scored{base.__name__}", (scored, base), {}), settings
    extractor = {"features_dim": hidden[0]}
    return base, settings | {"features_extractor_class": BitsAndNumbers, "features_extractor_kwargs": extractor}
