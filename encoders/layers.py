"""The layer tensor of CRLQAS: one slice for each layer of a circuit, one entry for each gate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qas.alphabet import split_gates
from qas.checks import whole_number
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError
from qas.gates import SEARCH_GATES, gate_spec


class LayerEncoding:
    """Circuits as int8 tensors of zeros and ones, shape (max_layers, rows, n_qubits).

    Layers are those of `Circuit.moments`: every gate moves as early as it can. Each two-qubit gate kind takes
    ``n_qubits`` rows, in which ``[layer, first_row + target, control]`` is 1 (symmetric gates: the larger qubit stands
    for the target). An excitation is written as a chain, from each of its qubits to the next. Below them each one-qubit
    gate kind takes one row, in which ``[layer, row, qubit]`` is 1. Kinds keep the order of `gates`. Angles are not
    encoded.

    Args:
        n_qubits: number of qubits, at least 1.
        gates: names the circuits may use.
        max_layers: deepest circuit that fits, at least 1.

    Raises:
        UnknownNameError: a name outside the gate table.
        QasError: sizes out of range, or a malformed gate set.

    References:
        Patel et al., "Curriculum reinforcement learning for quantum architecture search under hardware errors",
        ICLR 2024, arXiv:2402.03500, section 4.
    """

    is_lossless = True
    """`decode(encode(c))` has the architecture of `c`, up to the order of gates on disjoint qubits (`Circuit.key`)."""

    def __init__(self, n_qubits: int, gates: Sequence[str] = SEARCH_GATES, *, max_layers: int) -> None:
        self.n_qubits = whole_number("the number of qubits", n_qubits)
        self.max_layers = whole_number("max_layers", max_layers)
        self.two_qubit_gates, self.one_qubit_gates = split_gates(gates)
        n = self.n_qubits
        self._first_row = {name: i * n for i, name in enumerate(self.two_qubit_gates)}
        self._first_row |= {name: len(self.two_qubit_gates) * n + i for i, name in enumerate(self.one_qubit_gates)}
        self._symmetric = frozenset(name for name in self.two_qubit_gates if gate_spec(name).symmetric)
        self.rows = len(self.two_qubit_gates) * n + len(self.one_qubit_gates)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the tensors, (max_layers, rows, n_qubits)."""
        return self.max_layers, self.rows, self.n_qubits

    def __repr__(self) -> str:
        gates = ", ".join((*self.two_qubit_gates, *self.one_qubit_gates))
        return f"LayerEncoding({self.n_qubits} qubits, {gates}, max_layers={self.max_layers})"

    def empty(self) -> np.ndarray:
        """The tensor of the empty circuit, int8."""
        return np.zeros(self.shape, dtype=np.int8)

    def encode(self, circuit: Circuit) -> np.ndarray:
        """The tensor of `circuit`, int8, shape (max_layers, rows, n_qubits).

        Raises:
            CircuitError: another number of qubits, too many layers, or a gate outside the gate set.
        """
        if circuit.n_qubits != self.n_qubits:
            raise CircuitError(f"the encoding is for {self.n_qubits} qubits, got a circuit of {circuit.n_qubits}")
        layers = 1 + max(circuit.moments, default=-1)
        if layers > self.max_layers:
            raise CircuitError(f"the encoding holds {self.max_layers} layers, got a circuit of depth {layers}")
        tensor = self.empty()
        for layer, gate in zip(circuit.moments, circuit.gates, strict=True):
            self.encode_gate_into(tensor, layer, gate)
        return tensor

    def encode_gate_into(self, tensor: np.ndarray, layer: int, gate: Gate) -> None:
        """Write one gate into layer `layer` of `tensor`, in place.

        Raises:
            CircuitError: a layer or qubit out of range, or a gate outside the gate set.
        """
        row = self._first_row.get(gate.name)
        if row is None:
            known = ", ".join((*self.two_qubit_gates, *self.one_qubit_gates))
            raise CircuitError(f"the encoding holds the gates {known}, got {gate.name}")
        if not 0 <= layer < self.max_layers:
            raise CircuitError(f"the encoding holds layers 0..{self.max_layers - 1}, got layer {layer}")
        qubits = gate.qubits
        if max(qubits) >= self.n_qubits:
            raise CircuitError(f"qubit out of range: {gate} in an encoding of {self.n_qubits} qubits")
        if len(qubits) == 1:
            tensor[layer, row, qubits[0]] = 1
            return
        if gate.name in self._symmetric and qubits[0] > qubits[1]:
            qubits = qubits[::-1]
        for control, target in itertools.pairwise(qubits):
            tensor[layer, row + target, control] = 1

    def decode(self, tensor: Any) -> Circuit:
        """The circuit of a tensor: layer by layer, inside a layer by row and then by column; all angles 0.

        Args:
            tensor: zeros and ones, shape (max_layers, rows, n_qubits). Gates need not stand in the earliest layer.

        Raises:
            CircuitError: another shape, other values, or two gates on one qubit in one layer.
        """
        try:
            array = np.asarray(tensor)
            binary = bool(np.isin(array, (0, 1)).all())
        except (TypeError, ValueError):
            raise CircuitError(f"a layer tensor is an array of numbers, got {type(tensor).__name__}") from None
        if array.shape != self.shape:
            raise CircuitError(f"a layer tensor of this encoding has shape {self.shape}, got {array.shape}")
        if not binary:
            raise CircuitError("a layer tensor holds only 0 and 1, got other values")
        gates = []
        used: set[tuple[int, int]] = set()
        for layer, gate in sorted(self._gates_of(array), key=lambda found: found[0]):
            for qubit in gate.qubits:
                if (layer, qubit) in used:
                    raise CircuitError(f"layer {layer} holds more than one gate on qubit {qubit}")
                used.add((layer, qubit))
            gates.append(gate)
        return Circuit(self.n_qubits, gates)

    def _gates_of(self, array: np.ndarray) -> Iterator[tuple[int, Gate]]:
        boundary = len(self.two_qubit_gates) * self.n_qubits
        links: dict[tuple[int, str], dict[int, int]] = {}
        for layer, row, column in np.argwhere(array).tolist():
            if row >= boundary:
                yield layer, self._gate(self.one_qubit_gates[row - boundary], (column,))
                continue
            kind, target = divmod(row, self.n_qubits)
            name = self.two_qubit_gates[kind]
            if target == column:
                raise CircuitError(f"{name} needs two different qubits, got {column} as control and target")
            if gate_spec(name).n_qubits == 2:
                yield layer, self._gate(name, (column, target))
            elif links.setdefault((layer, name), {}).setdefault(column, target) != target:
                raise CircuitError(f"layer {layer} holds more than one gate on qubit {column}")
        for (layer, name), following in links.items():
            for start in following.keys() - set(following.values()):
                chain = [start]
                while len(chain) < gate_spec(name).n_qubits and chain[-1] in following:
                    chain.append(following.pop(chain[-1]))
                if len(chain) < gate_spec(name).n_qubits:
                    raise CircuitError(f"layer {layer} holds a part of {name} on qubits {chain}")
                yield layer, self._gate(name, tuple(chain))
            if following:
                raise CircuitError(f"layer {layer} holds a part of {name} on qubits {sorted(following)}")

    def _gate(self, name: str, qubits: tuple[int, ...]) -> Gate:
        return Gate(name, qubits, (0.0,) * gate_spec(name).n_angles)
