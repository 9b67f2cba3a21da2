"""Published settings of agents, by name: what `qas.search` takes for a problem where the caller says nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qas.errors import QasError
from qas.registry import Registry


@dataclass(frozen=True)
class Preset:
    """Settings of a search as they were published."""

    about: str
    """one line, the source included"""
    agent: str
    problem: str
    max_gates: int
    episodes: int
    """that were played; the budget is the caller's"""
    options: Mapping[str, Any]
    """of the agent"""
    evaluator: Mapping[str, Any] = field(default_factory=dict)
    """settings of `qas.vqe.Evaluator`"""


def _crlqas(
    problem: str, *, width: int, rate: float, n_step: int, gamma: float, gates: int, episodes: int, evaluations: int,
    moving: str,
) -> Preset:  # fmt: skip
    """What the configurations of CRLQAS without noise say, with the lower bound as target of the moving threshold."""
    options = {
        "hidden": [width] * 5,
        "learning_rate": rate,
        "batch_size": 1000,
        "memory": 20_000,
        "priority": 0.0,
        "n_step": n_step,
        "gamma": gamma,
        "epsilon_decay": 0.99995,
        "epsilon_floor": 0.05,
        "target_every": 500,
        "learn_after": 1000,
        "test_every": 0,
        "reward": "incremental_with_fixed_ends",
        "curriculum": f"moving:{moving},cuts=10",
    }
    evaluator = {"optimizer": "cobyla", "max_evaluations": evaluations, "start_noise": 0.0}
    about = f"CRLQAS on {problem} without noise: {episodes:,} episodes (ICLR 2024, arXiv:2402.03500, published code)"
    return Preset(about, "ddqn", problem, gates, episodes, options, evaluator)


_SMALL: dict[str, Any] = {"width": 1000, "rate": 1e-4, "n_step": 1, "gamma": 0.88, "gates": 40}
_LARGE: dict[str, Any] = {"rate": 1e-4, "n_step": 6, "evaluations": 1000}
_SLOW = "ball=1e-3,shift_time=2000,successes_per_cut=50"
_FAST = "ball=5e-4,shift_time=500,successes_per_cut=25"

PRESETS = Registry(
    "presets",
    "preset",
    {
        "crlqas-h2-2": _crlqas(
            "h2-2", **_SMALL, episodes=10_000, evaluations=100,
            moving=f"target=-1.320446,accept_error=0.97,success_switch=0.97,{_FAST}",
        ),
        "crlqas-h2-3": _crlqas(
            "h2-3", **_SMALL, episodes=15_000, evaluations=100,
            moving=f"target=-1.983914,accept_error=1.63,success_switch=1.63,{_FAST}",
        ),
        "crlqas-h2-4": _crlqas(
            "h2-4", **_SMALL, episodes=20_000, evaluations=1000,
            moving=f"target=-1.990097,accept_error=1.0160872,success_switch=1.0160872,{_FAST}",
        ),
        "crlqas-lih-4": _crlqas(
            "lih-4", **(_SMALL | {"rate": 3e-4, "n_step": 5}), episodes=30_000, evaluations=1000,
            moving=f"target=-10.0717,accept_error=2.45,success_switch=4,{_FAST}",
        ),
        "crlqas-lih-6": _crlqas(
            "lih-6", width=2000, gamma=0.93, gates=70, episodes=40_000, **_LARGE,
            moving=f"target=-10.134828,accept_error=2.9,success_switch=2.9,{_SLOW}",
        ),
        "crlqas-h2o-8": _crlqas(
            "h2o-8-bohr", width=5000, gamma=0.98, gates=250, episodes=50_000, **_LARGE,
            moving=f"target=-77.891067,accept_error=5,success_switch=5,{_SLOW}",
        ),
    },
)  # fmt: skip
"""Name -> `Preset`."""


def preset_for(name: str, problem: str, agent: str) -> Preset:
    """The preset of that name, for a search.

    Raises:
        UnknownNameError: no such preset.
        QasError: one for another problem or agent.
    """
    preset: Preset = PRESETS[name]
    if (preset.problem, preset.agent) != (problem, agent):
        raise QasError(f"preset {name} is for agent {preset.agent} on {preset.problem}, got agent {agent} on {problem}")
    return preset
