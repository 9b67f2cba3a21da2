"""Random legal circuits: the baseline every agent has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec


class RandomAgent(Agent):
    """Draws a length, then legal actions, then uniform angles, and optimizes."""

    name: ClassVar[str] = "random"
    about: ClassVar[str] = "random legal circuits of random length, angles optimized"

    def __init__(self) -> None:
        pass

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)

    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            self.meter.evaluate(self.draw(), self.rng)

    def draw(self) -> Circuit:
        """One random circuit; no gate directly repeats the last one on all its qubits."""
        alphabet, n = self.search.alphabet, self.search.problem.n_qubits
        last = np.full(n, -1, dtype=np.int64)
        gates = []
        for _ in range(int(self.rng.integers(1, self.search.max_gates + 1))):
            action = int(self.rng.choice(np.flatnonzero(alphabet.legal(last))))
            alphabet.update(last, action)
            gate = alphabet.gate(action)
            count = gate_spec(gate.name).n_angles
            gates.append(Gate(gate.name, gate.qubits, tuple(self.rng.uniform(-np.pi, np.pi, size=count).tolist())))
        return Circuit(n, gates)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"rng": rng_state(self.rng)}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.rng = restore_rng(state["rng"])
