"""Compile kernels, which are then on disk: ``python tests/compile_kernels.py statevector|pauli-transfer|others``."""

from __future__ import annotations

import sys

import numpy as np

from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import make_simulator


def compile_engine(engine: str) -> None:
    noise = None if engine == "statevector" else NoiseModel.depolarizing(0.01, 0.02)
    simulator = make_simulator(noise, engine=engine)
    circuit, hamiltonian = Circuit(2, [("ry", 0, 0.1), ("cx", (0, 1))]), Hamiltonian({"ZZ": 1.0, "XI": 0.5})
    simulator.objective(circuit, hamiltonian).minimize_compiled(circuit.angles, 2, 1e-9)
    simulator.insertion_gradients(circuit, hamiltonian)
    simulator.append_gains(circuit, hamiltonian)


def compile_others() -> None:
    """What agents compile of their own: reduced forms and profiles of circuits, and the network of deep Q-learning."""
    import torch

    from qas.agents.rl.learners import Batch, BitsLearner
    from qas.agents.rl.networks import BitsNetwork
    from qas.encoders.pools.profiles import profiles
    from qas.encoders.pools.reduction import reduce_rows
    from qas.encoders.pools.spaces import CircuitSpace

    rng, rows = np.random.default_rng(0), np.arange(4)
    space = CircuitSpace(2, ("rx", "cx"), max_gates=3, min_gates=1)
    circuits = space.sample(4, rng)
    reduce_rows(circuits, space)
    profiles(circuits, space, rng)
    data = {
        "positions": np.zeros((4, 2), np.int32), "numbers": np.zeros((4, 1), np.float32), "next": rows,
        "reward": np.zeros(4, np.float32), "discount": np.zeros(4, np.float32), "action": rows % 3,
        "legal": np.ones((4, 3), bool),
    }  # fmt: skip
    learner = BitsLearner(BitsNetwork(5, 1, (8,), 3, torch.Generator()), 1e-3)
    learner.learn(data, Batch(rows, np.ones(4, np.float32)))
    learner.values(data, rows)


if __name__ == "__main__":
    compile_others() if sys.argv[1] == "others" else compile_engine(sys.argv[1])
