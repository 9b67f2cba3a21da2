"""Circuits as adapter layers for fine-tuning neural networks.

Names are loaded on first use: searching an architecture needs neither torch nor peft.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qas.adapters.architecture import Architecture, load_architecture, quantum_peft
    from qas.adapters.circuit import CircuitAdapter, RotationAdapter, TaylorAdapter, share_maps
    from qas.adapters.hf import CircuitAdapterConfig
    from qas.adapters.problems import AdapterProblem, load_adapter_problem, matrix_problem
    from qas.adapters.training import parameter_groups

_EXPORTS = {
    "AdapterProblem": "problems",
    "Architecture": "architecture",
    "CircuitAdapter": "circuit",
    "CircuitAdapterConfig": "hf",
    "RotationAdapter": "circuit",
    "TaylorAdapter": "circuit",
    "load_adapter_problem": "problems",
    "load_architecture": "architecture",
    "matrix_problem": "problems",
    "parameter_groups": "training",
    "quantum_peft": "architecture",
    "share_maps": "circuit",
}

__all__ = [
    "AdapterProblem",
    "Architecture",
    "CircuitAdapter",
    "CircuitAdapterConfig",
    "RotationAdapter",
    "TaylorAdapter",
    "load_adapter_problem",
    "load_architecture",
    "matrix_problem",
    "parameter_groups",
    "quantum_peft",
    "share_maps",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
