"""Architecture search as a Gymnasium game: one action appends one gate.

``import qas`` registers ``qas/CircuitBuilder-v0``::

    import gymnasium
    import qas

    env = gymnasium.make("qas/CircuitBuilder-v0", problem="lih-4", noise="ibm-mumbai")

Gymnasium imports a module that the id names, so ``gymnasium.make("qas.envs:qas/CircuitBuilder-v0", …)`` needs no
import at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qas._gymnasium import ENV_ID, register
from qas.envs.curricula import (
    CURRICULA,
    Curriculum,
    FixedThreshold,
    MovingThreshold,
    RandomHalting,
    load_curriculum,
)
from qas.envs.observations import OBSERVATIONS, Observer, list_observations
from qas.envs.rewards import REWARDS, Transition, list_rewards, load_reward

if TYPE_CHECKING:
    from qas.envs.builder import CircuitBuilderEnv
    from qas.envs.vector import CircuitBuilderVectorEnv

__all__ = [
    "CURRICULA",
    "ENV_ID",
    "OBSERVATIONS",
    "REWARDS",
    "CircuitBuilderEnv",
    "CircuitBuilderVectorEnv",
    "Curriculum",
    "FixedThreshold",
    "MovingThreshold",
    "Observer",
    "RandomHalting",
    "Transition",
    "list_observations",
    "list_rewards",
    "load_curriculum",
    "load_reward",
    "register",
]


def __getattr__(name: str) -> Any:
    # The environment brings the compiled simulators with it; registering alone should stay cheap.
    if name == "CircuitBuilderEnv":
        from qas.envs.builder import CircuitBuilderEnv

        return CircuitBuilderEnv
    if name == "CircuitBuilderVectorEnv":
        from qas.envs.vector import CircuitBuilderVectorEnv

        return CircuitBuilderVectorEnv
    raise AttributeError(f"module 'qas.envs' has no attribute {name!r}")


register()
