"""Simulators: exact energies and gradients of circuits, with and without hardware noise."""

from __future__ import annotations

from qas.errors import UnknownNameError
from qas.noise import NoiseModel, load_noise
from qas.simulators.base import BaseObjective, Objective, Simulator

__all__ = ["BaseObjective", "Objective", "Simulator", "list_engines", "make_simulator"]

_ENGINES = {
    "statevector": "noise-free, compiled, exact gradients, up to 20 qubits",
    "pauli-transfer": "with noise, compiled, exact gradients, up to 12 qubits",
    "aer": "Qiskit Aer: state vector or density matrix, gradients by parameter shift",
}


def list_engines() -> dict[str, str]:
    """Engine name -> one line about it."""
    return dict(_ENGINES)


def make_simulator(noise: NoiseModel | str | None = None, engine: str | None = None) -> Simulator:
    """A simulator: state vector without noise, Pauli transfer with noise, or the engine named.

    Args:
        noise: a model, a preset name, or None.
        engine: "statevector", "pauli-transfer" or "aer"; None picks the fastest exact one.

    Raises:
        UnknownNameError: unknown noise or engine.
        QasError: a noisy model for the noise-free engine.
    """
    model = load_noise(noise)
    if engine is None:
        engine = "statevector" if model is None else "pauli-transfer"
    if engine not in _ENGINES:
        raise UnknownNameError("engine", engine, _ENGINES)
    if engine == "statevector":
        from qas.simulators.statevector import StatevectorSimulator

        return StatevectorSimulator(model)
    if engine == "pauli-transfer":
        from qas.simulators.pauli_transfer import PauliTransferSimulator

        return PauliTransferSimulator(model)
    from qas.simulators.aer import AerSimulator

    return AerSimulator(model)
