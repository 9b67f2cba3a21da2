"""Small random changes of a circuit: a gate put in, taken out, replaced or moved, or two exchanged."""

from __future__ import annotations

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
from qas.guidance import edited


class Changes:
    """Changes circuits within an alphabet; gates that stay keep their angles, new ones get small ones.

    Args:
        alphabet: of the circuits; native ones are changed by rotations and tidied afterwards (`Alphabet.moves`).
    """

    def __init__(self, alphabet: Alphabet) -> None:
        self.native = alphabet.native is not None
        self.moves = alphabet.moves
        """what circuits are changed by"""
        placed = self.moves.placed
        self.one = [token for token, gate in enumerate(placed) if len(gate.qubits) == 1]
        """those on one qubit"""
        self.two = [token for token, gate in enumerate(placed) if len(gate.qubits) > 1]
        """those on more"""

    def gate(self, token: int, rng: np.random.Generator) -> Gate:
        """A placed gate with small random angles."""
        gate = self.moves.gate(token)
        count = gate_spec(gate.name).n_angles
        return Gate(gate.name, gate.qubits, tuple(rng.normal(scale=0.3, size=count).tolist())) if count else gate

    def several(self, circuit: Circuit, more: float, rng: np.random.Generator) -> Circuit:
        """A circuit after one change and a Poisson number, of mean `more`, of further ones."""
        for _ in range(1 + rng.poisson(more)):
            circuit = self.one_of(circuit, rng)
        return circuit

    def one_of(self, circuit: Circuit, rng: np.random.Generator) -> Circuit:
        """A circuit after one change."""
        size = len(circuit)
        kind = rng.random()
        if size == 0 or kind < 0.2:
            return circuit.insert(int(rng.integers(size + 1)), self._drawn(self.one or self.two, rng))
        if kind < 0.4 and self.two:
            return self._with_block(circuit, int(rng.integers(size + 1)), rng)
        if kind < 0.6:
            return edited(circuit, {int(rng.integers(size))}, (), native=self.native)
        index = int(rng.integers(size))
        gate = circuit[index]
        if kind < 0.8:
            return circuit.replace(index, self._drawn(self.two if len(gate.qubits) > 1 else self.one, rng))
        if kind < 0.9:
            return circuit.delete(index).insert(int(rng.integers(size)), gate)
        other = int(rng.integers(size))
        return circuit.replace(index, circuit[other]).replace(other, gate)

    def _drawn(self, tokens: list[int], rng: np.random.Generator) -> Gate:
        return self.gate(tokens[int(rng.integers(len(tokens)))], rng)

    def _with_block(self, circuit: Circuit, index: int, rng: np.random.Generator) -> Circuit:
        """A two-qubit gate followed by a one-qubit gate on one of its qubits, or that gate between two of them."""
        two = self._drawn(self.two, rng)
        circuit = circuit.insert(index, two)
        near = [token for token in self.one if self.moves.gate(token).qubits[0] in two.qubits]
        if near:
            circuit = circuit.insert(index + 1, self._drawn(near, rng))
            if rng.random() < 0.5:
                circuit = circuit.insert(index + 2, two)
        return circuit
