"""Compile the kernels of one engine, which keeps them on disk: ``python tests/compile_kernels.py ENGINE``."""

from __future__ import annotations

import sys

from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import make_simulator


def compile_kernels(engine: str) -> None:
    noise = None if engine == "statevector" else NoiseModel.depolarizing(0.01, 0.02)
    simulator = make_simulator(noise, engine=engine)
    circuit, hamiltonian = Circuit(2, [("ry", 0, 0.1), ("cx", (0, 1))]), Hamiltonian({"ZZ": 1.0, "XI": 0.5})
    simulator.objective(circuit, hamiltonian).minimize_compiled(circuit.angles, 2, 1e-9)
    simulator.insertion_gradients(circuit, hamiltonian)
    simulator.append_gains(circuit, hamiltonian)


if __name__ == "__main__":
    compile_kernels(sys.argv[1])
