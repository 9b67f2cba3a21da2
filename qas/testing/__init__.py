"""For tests and benchmarks: random circuits and Hamiltonians, and contracts that every registered thing must keep.

A contract is a pytest class; subclass it in your own tests and say what it is about::

    from qas.testing import AgentContract

    class TestMine(AgentContract):
        agent = "mine"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qas.testing.random import random_circuit, random_hamiltonian

if TYPE_CHECKING:
    from qas.testing.agents import AgentContract
    from qas.testing.callbacks import CallbackContract
    from qas.testing.encodings import EncodingContract
    from qas.testing.problems import ProblemContract
    from qas.testing.searchers import SearcherContract
    from qas.testing.simulators import SimulatorContract

_CONTRACTS = {
    "AgentContract": "agents",
    "CallbackContract": "callbacks",
    "EncodingContract": "encodings",
    "ProblemContract": "problems",
    "SearcherContract": "searchers",
    "SimulatorContract": "simulators",
}

__all__ = [
    "AgentContract",
    "CallbackContract",
    "EncodingContract",
    "ProblemContract",
    "SearcherContract",
    "SimulatorContract",
    "random_circuit",
    "random_hamiltonian",
]


def __getattr__(name: str) -> Any:
    # The contracts need pytest.
    if name not in _CONTRACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_CONTRACTS[name]}"), name)
