"""Architecture search as a Gymnasium game: one action appends one gate, or edits the circuit anywhere.

``import qas`` registers ``qas/CircuitBuilder-v0`` and ``qas/CircuitEditor-v0``::

    import gymnasium
    import qas

    env = gymnasium.make("qas/CircuitBuilder-v0", problem="lih-4", noise="ibm-mumbai")

Gymnasium imports a module that the id names, so ``gymnasium.make("qas.envs:qas/CircuitBuilder-v0", …)`` needs no
import at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qas._gymnasium import EDITOR_ID, ENV_ID, register
from qas.envs.curricula import (
    CURRICULA,
    Curriculum,
    FixedThreshold,
    MovingThreshold,
    RandomHalting,
    load_curriculum,
)
from qas.envs.families import FAMILIES, Family, Instance, list_families, load_family
from qas.envs.observations import OBSERVATIONS, Observer, list_observations
from qas.envs.rewards import REWARDS, Transition, list_rewards, load_reward

if TYPE_CHECKING:
    from qas.envs.builder import CircuitBuilderEnv
    from qas.envs.editor import CircuitEditorEnv
    from qas.envs.vector import CircuitBuilderVectorEnv

__all__ = [
    "CURRICULA",
    "EDITOR_ID",
    "ENV_ID",
    "FAMILIES",
    "OBSERVATIONS",
    "REWARDS",
    "CircuitBuilderEnv",
    "CircuitBuilderVectorEnv",
    "CircuitEditorEnv",
    "Curriculum",
    "Family",
    "FixedThreshold",
    "Instance",
    "MovingThreshold",
    "Observer",
    "RandomHalting",
    "Transition",
    "list_families",
    "list_observations",
    "list_rewards",
    "load_curriculum",
    "load_family",
    "load_reward",
    "register",
]


_ENVIRONMENTS = {
    "CircuitBuilderEnv": "qas.envs.builder",
    "CircuitBuilderVectorEnv": "qas.envs.vector",
    "CircuitEditorEnv": "qas.envs.editor",
}


def __getattr__(name: str) -> Any:
    # The environments bring the compiled simulators with them; registering alone should stay cheap.
    if name in _ENVIRONMENTS:
        return getattr(importlib.import_module(_ENVIRONMENTS[name]), name)
    raise AttributeError(f"module 'qas.envs' has no attribute {name!r}")


register()
