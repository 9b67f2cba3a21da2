"""Quantum architecture search: find a good circuit for a problem and a noisy device.

Names are loaded on first use, so that ``import qas`` stays fast and pulls in neither torch nor qiskit.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qas._gymnasium import register_when_loaded

__version__ = "0.1.0"

_EXPORTS = {
    "BaseProblem": "qas.problems",
    "Channel": "qas.noise",
    "Circuit": "qas.circuits",
    "Device": "qas.devices",
    "Evaluator": "qas.vqe",
    "Gate": "qas.circuits",
    "Hamiltonian": "qas.hamiltonians",
    "NoiseModel": "qas.noise",
    "Problem": "qas.problems",
    "QasError": "qas.errors",
    "Result": "qas.runs",
    "Run": "qas.runs",
    "atlas": "qas.best_known",
    "campaign": "qas.campaigns",
    "evaluate": "qas.evaluation",
    "list_agents": "qas.agents",
    "list_devices": "qas.devices",
    "list_families": "qas.envs",
    "list_noise": "qas.noise",
    "list_problems": "qas.problems",
    "load_device": "qas.devices",
    "load_family": "qas.envs",
    "load_noise": "qas.noise",
    "load_problem": "qas.problems",
    "load_run": "qas.runs",
    "maxcut": "qas.problems",
    "molecule": "qas.molecules",
    "problem": "qas.problems",
    "search": "qas.agents",
    "shrink": "qas.shrinking",
}
_MODULES = (
    "agents", "best_known", "campaigns", "circuits", "corpus", "devices", "encoders", "envs", "errors", "gates",
    "hamiltonians", "noise", "optimizers", "problems", "runs", "simulators", "testing", "vqe",
)  # fmt: skip

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from qas.agents import list_agents, search
    from qas.best_known import atlas
    from qas.campaigns import campaign
    from qas.circuits import Circuit, Gate
    from qas.devices import Device, list_devices, load_device
    from qas.envs import list_families, load_family
    from qas.errors import QasError
    from qas.evaluation import evaluate
    from qas.hamiltonians import Hamiltonian
    from qas.molecules import molecule
    from qas.noise import Channel, NoiseModel, list_noise, load_noise
    from qas.problems import BaseProblem, Problem, list_problems, load_problem, maxcut, problem
    from qas.runs import Result, Run, load_run
    from qas.shrinking import shrink
    from qas.vqe import Evaluator


register_when_loaded()


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"qas.{name}")
    raise AttributeError(f"module 'qas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
