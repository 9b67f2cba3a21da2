"""Simulators: exact energies and gradients of circuits, with and without hardware noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qas.errors import QasError
from qas.noise import NoiseModel, load_noise
from qas.registry import Registry
from qas.simulators.base import BaseObjective, Objective, Simulator

__all__ = ["ENGINES", "BaseObjective", "Objective", "Simulator", "list_engines", "make_simulator"]

ENGINES = Registry(
    "engines",
    "engine",
    {
        "statevector": "qas.simulators.statevector:StatevectorSimulator",
        "pauli-transfer": "qas.simulators.pauli_transfer:PauliTransferSimulator",
        "aer": "qas.simulators.aer:AerSimulator",
        "torch": "qas.simulators.torch_engine:TorchSimulator",
    },
)
"""Name -> class that is made with a noise model or None."""


def list_engines() -> dict[str, str]:
    """Engine name -> one line about it."""
    return {name: ENGINES.about(name) for name in ENGINES}


def make_simulator(
    noise: NoiseModel | str | None = None,
    engine: str | Mapping[str, Any] | type[Simulator] | Simulator | None = None,
) -> Simulator:
    """A simulator: state vector without noise, Pauli transfer with noise, or the engine named.

    Args:
        noise: a model, a preset name, or None.
        engine: a name of `list_engines`, with settings if it has any (``"torch:device=cuda"``, or a mapping with its
            ``name``), a `Simulator` class, or an instance with its noise; None picks the fastest exact one.

    Raises:
        UnknownNameError: unknown noise or engine, or a setting that the engine does not have.
        QasError: a noisy model for the noise-free engine, or beside an instance that has another one.
    """
    model = load_noise(noise)
    if engine is None:
        engine = "statevector" if model is None else "pauli-transfer"
    if isinstance(engine, Simulator) and model is not None and engine.noise != model:
        raise QasError(f"this engine has its own noise, got noise {model.name!r} beside it")
    return ENGINES.make(engine, Simulator, model)
