"""Agents: everything that proposes architectures, behind one interface and one budget.

`qas.agents.rl` plays the circuit builder, `qas.agents.growth` grows and edits circuits, `qas.agents.pool` chooses among
many candidates. To add one, see `qas.agents.base.Agent`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qas.registry import Registry

if TYPE_CHECKING:
    from qas.agents.base import Agent
    from qas.agents.launch import resume, search

__all__ = ["AGENTS", "Agent", "list_agents", "resume", "search"]

AGENTS = Registry(
    "agents",
    "agent",
    {
        "ddqn": "qas.agents.rl.ddqn:DdqnAgent",
        "sb3": "qas.agents.rl.sb3:Sb3Agent",
        "editor": "qas.agents.rl.editor:EditorAgent",
        "evolution": "qas.agents.growth.evolution:EvolutionAgent",
        "beam": "qas.agents.growth.beam:BeamAgent",
        "adapt": "qas.agents.growth.adapt:AdaptAgent",
        "compact": "qas.agents.growth.compact:CompactAgent",
        "random": "qas.agents.growth.random:RandomAgent",
        "bo": "qas.agents.pool.bo:BoAgent",
        "reinforce": "qas.agents.pool.reinforce:ReinforceAgent",
        "knn": "qas.agents.pool.agent:KnnAgent",
    },
    replaced={"ppo": "sb3"},
)
"""Agent name -> class; loaded on first use, because some need torch."""

_LAZY = {"Agent": "base", "search": "launch", "resume": "launch"}


def list_agents() -> dict[str, str]:
    """Agent name -> one line about it."""
    return {name: AGENTS.about(name) for name in AGENTS}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"qas.agents.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'qas.agents' has no attribute {name!r}")
