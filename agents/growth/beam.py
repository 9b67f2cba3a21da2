"""Beam search: grow circuits by the gates that lower the energy most. Width 1 is greedy growth as in ADAPT-VQE."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.checks import whole_number
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec


class BeamAgent(Agent):
    """Extends each kept circuit by every legal gate, and by every two-qubit gate followed by a one-qubit gate.

    A lone entangling gate rarely lowers the energy, so pairs are needed. All extensions are optimized and the best
    `width` different ones kept (ADAPT-VQE, Grimsley et al. 2019, selects by gradient, which a CNOT does not have).
    At full length, or when a level brings no gain, the search starts again from the empty circuit with new random start
    angles.

    Args:
        width: circuits kept on each level.
    """

    name: ClassVar[str] = "beam"
    about: ClassVar[str] = "grows circuits by the best gates; width 1 is greedy growth as in ADAPT-VQE"

    def __init__(self, *, width: int = 3) -> None:
        self.width = whole_number("width", width)

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.beam: list[tuple[float, Circuit]] = []
        self.pending: list[tuple[float, Circuit]] = []
        self.position = 0
        gates = search.alphabet.placed
        one = [g for g in gates if len(g.qubits) == 1]
        self.extensions: list[tuple[Gate, ...]] = [(g,) for g in gates]
        self.extensions += [(t, g) for t in gates if len(t.qubits) == 2 for g in one if g.qubits[0] in t.qubits]

    def run(self) -> None:
        if not self.beam:
            self._restart()
        while True:
            total = len(self.beam) * len(self.extensions)
            while self.position < total:
                self.search.safe_point(self)
                which, extension = divmod(self.position, len(self.extensions))
                self.position += 1
                self._try(self.beam[which][1], self.extensions[extension])
            self._advance()

    def _restart(self) -> None:
        found = self.meter.evaluate(Circuit(self.search.problem.n_qubits), self.rng)
        self.beam, self.pending, self.position = [(found.error, found.circuit)], [], 0

    def _try(self, circuit: Circuit, extension: tuple[Gate, ...]) -> None:
        if len(circuit) + len(extension) > self.search.max_gates:
            return
        grown = circuit
        for gate in extension:
            count = gate_spec(gate.name).n_angles
            angles = tuple(self.rng.normal(scale=0.1, size=count).tolist())
            grown = grown.insert(len(grown), Gate(gate.name, gate.qubits, angles))
        if len(self.search.problem.simplify(grown)) != len(grown):
            return
        found = self.meter.evaluate(grown, self.rng)
        self.pending.append((found.error, found.circuit))
        self.pending.sort(key=lambda item: item[0])
        del self.pending[8 * self.width :]

    def _advance(self) -> None:
        kept: list[tuple[float, Circuit]] = []
        for error, circuit in self.pending:
            # Extensions with equal errors differ in a gate that does nothing; one of them is enough.
            if all(abs(error - other) > 1e-9 + 1e-6 * abs(error) for other, _ in kept):
                kept.append((error, circuit))
        kept = kept[: self.width]
        gain = kept and kept[0][0] < self.beam[0][0] - 1e-10
        if gain:
            self.beam, self.pending, self.position = kept, [], 0
        else:
            self._restart()

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        def pack(items: list[tuple[float, Circuit]]) -> list[Any]:
            return [[error, circuit.to_list()] for error, circuit in items]

        state = {
            "rng": rng_state(self.rng),
            "beam": pack(self.beam),
            "pending": pack(self.pending),
            "position": self.position,
        }
        return state, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        n = self.search.problem.n_qubits
        self.rng = restore_rng(state["rng"])
        self.beam = [(error, Circuit(n, gates)) for error, gates in state["beam"]]
        self.pending = [(error, Circuit(n, gates)) for error, gates in state["pending"]]
        self.position = int(state["position"])
