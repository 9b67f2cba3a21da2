"""Agents: everything that proposes architectures, behind one interface and one budget."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qas.errors import UnknownNameError

if TYPE_CHECKING:
    from qas.agents.base import Agent
    from qas.agents.launch import resume, search

__all__ = ["AGENTS", "list_agents", "load_agent", "resume", "search"]

AGENTS = {
    "ddqn": "qas.agents.ddqn:DdqnAgent",
    "ppo": "qas.agents.ppo:PpoAgent",
    "evolution": "qas.agents.evolution:EvolutionAgent",
    "beam": "qas.agents.beam:BeamAgent",
    "adapt": "qas.agents.adapt:AdaptAgent",
    "random": "qas.agents.random_search:RandomAgent",
    "bo": "qas.agents.bo:BoAgent",
    "reinforce": "qas.agents.latent:ReinforceAgent",
    "knn": "qas.agents.latent:KnnAgent",
}
"""Agent name -> where its class is; loaded on first use, because some need torch."""
POOL_AGENTS = ("bo", "reinforce", "knn", "random")
"""Agents that search a circuit pool."""
POOL_OPTIONS = ("encoder", "pool", "screen")
"""Options of the agents that search a circuit pool; with one of them `random` draws from a pool too."""


def load_agent(name: str, options: Iterable[str] = ()) -> type[Agent]:
    """The class of an agent.

    Args:
        name: a key of `AGENTS`.
        options: names of the settings it will be given.

    Raises:
        UnknownNameError: no such agent; the nearest name is suggested.
    """
    if name not in AGENTS:
        raise UnknownNameError("agent", name, AGENTS)
    place = AGENTS[name]
    if name == "random" and any(option in POOL_OPTIONS for option in options):
        place = "qas.agents.latent:PoolRandomAgent"
    module, cls = place.split(":")
    return getattr(importlib.import_module(module), cls)


def list_agents() -> dict[str, str]:
    """Agent name -> one line about it."""
    return {name: load_agent(name).about for name in AGENTS}


def __getattr__(name: str) -> Any:
    if name in ("search", "resume"):
        value = getattr(importlib.import_module("qas.agents.launch"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'qas.agents' has no attribute {name!r}")
