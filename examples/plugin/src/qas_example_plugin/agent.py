"""Hill climbing: one gate is inserted, deleted or replaced; what is no worse is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from qas.agents import Agent
from qas.agents.base import Search, restore_rng, rng_state
from qas.circuits import Circuit
from qas.errors import QasError


class HillClimbAgent(Agent):
    """Hill climbing by changes of a single gate, from the empty circuit; it starts anew where nothing helps.

    Args:
        patience: changes in a row that may fail before a new start.
    """

    name = "hillclimb"
    about = "changes one gate at a time and keeps what is no worse"

    def __init__(self, *, patience: int = 50) -> None:
        if patience < 1:
            raise QasError(f"patience is at least 1, got {patience}")
        self.patience = patience

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.circuit = Circuit(search.problem.n_qubits)
        self.energy = np.inf
        self.failures = 0

    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            found = self.meter.evaluate(self._changed(), self.rng)
            if found.energy <= self.energy:
                self.failures = 0 if found.energy < self.energy else self.failures + 1
                self.circuit, self.energy = found.circuit, found.energy
            else:
                self.failures += 1
            if self.failures >= self.patience:
                self.circuit, self.energy, self.failures = Circuit(self.circuit.n_qubits), np.inf, 0

    def _changed(self) -> Circuit:
        """The circuit with one gate more, less or another, all its other angles kept."""
        size = len(self.circuit)
        moves = ["insert"] * (size < self.search.max_gates) + ["delete"] * (size > 1) + ["replace"] * (size > 0)
        move = moves[self.rng.integers(len(moves))]
        alphabet = self.search.alphabet
        gate = alphabet.gate(int(self.rng.integers(len(alphabet))))
        if move == "insert":
            return self.circuit.insert(int(self.rng.integers(size + 1)), gate)
        place = int(self.rng.integers(size))
        return self.circuit.delete(place) if move == "delete" else self.circuit.replace(place, gate)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        energy = float(self.energy) if np.isfinite(self.energy) else None
        own = {"circuit": self.circuit.to_list(), "energy": energy, "failures": self.failures}
        return own | {"rng": rng_state(self.rng)}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.circuit = Circuit(self.circuit.n_qubits, state["circuit"])
        self.energy = np.inf if state["energy"] is None else state["energy"]
        self.failures = state["failures"]
        self.rng = restore_rng(state["rng"])
