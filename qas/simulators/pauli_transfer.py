"""The Pauli-transfer engine: exact density-matrix simulation with noise on a real vector of 4**n numbers."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import TooLargeError
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, unitary_ptm
from qas.simulators import _insertion_kernels as insertion_kernels
from qas.simulators import _ptm_kernels as kernels
from qas.simulators import interrupt
from qas.simulators.base import check_angles
from qas.simulators.compiled import CompiledSimulator, finished
from qas.simulators.insertions import Curves, Generators

MAX_QUBITS = 12
"""Largest register: one state of 12 qubits takes 134 MB, and a gradient keeps about ten."""

KEPT_BYTES = 1 << 28
"""Memory for states kept by a gradient; beyond it the sweep recomputes segment by segment."""

_AXIS_PAIR = {"X": (2, 3), "Y": (3, 1), "Z": (1, 2)}


@functools.cache  # asked for at every gradient
def _memory_limit() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 34


class PauliTransferSimulator(CompiledSimulator):
    """Exact energies and gradients of noisy circuits, up to 12 qubits.

    Each gate, with its noise, acts as a local real map on the vector of Pauli expectation values (the Liouville-space
    form of Jones and Gacon, arXiv:2009.02823, for the gradient).
    """

    name = "pauli-transfer"
    about = "with noise, compiled, exact gradients, up to 12 qubits"

    def __init__(self, noise: NoiseModel | None = None) -> None:
        super().__init__(noise)
        self._kind: list[int] = []
        self._low: list[int] = []
        self._high: list[int] = []
        self._matrix: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []
        self._pointer: list[np.ndarray] = []
        self._offset: list[int] = []
        self._coefficient: list[np.ndarray] = []
        self._library: kernels.Library | None = None
        self._local = threading.local()

    # ------------------------------------------------------------------ operations
    def _operations(self, gate: Gate) -> list[tuple[int, int]]:
        """Rows of the library for one gate, as (operation, which of the gate's angles or -1)."""
        spec = gate_spec(gate.name)
        noise = None if self.noise is None else self.noise.channel(gate.name, gate.qubits)
        if spec.n_qubits == 1:
            (qubit,) = gate.qubits
            after = np.eye(4) if noise is None else noise
            if gate.name == "u":
                # U(θ, φ, λ) is RZ(φ) RY(θ) RZ(λ) up to a phase.
                return [
                    (self._add_rotation("Z", qubit, np.eye(4)), 2),
                    (self._add_rotation("Y", qubit, np.eye(4)), 0),
                    (self._add_rotation("Z", qubit, after), 1),
                ]
            if spec.axis:
                return [(self._add_rotation(spec.axis, qubit, after), 0)]
            return [(self._add(0, qubit, -1, matrix=after @ unitary_ptm(spec.matrix())), -1)]
        if spec.axis:
            rows = [(self._add_two_rotation(gate), 0)]
            return rows if noise is None else [*rows, (self._add_two(gate.qubits, noise), -1)]
        ptm = unitary_ptm(spec.matrix())
        return [(self._add_two(gate.qubits, ptm if noise is None else noise @ ptm), -1)]

    def _add(
        self,
        kind: int,
        low: int,
        high: int,
        *,
        matrix: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
        pointer: np.ndarray | None = None,
    ) -> int:
        self._kind.append(kind)
        self._low.append(low)
        self._high.append(high)
        self._matrix.append(np.zeros(16) if matrix is None else matrix.ravel(order="F"))
        self._pairs.append(np.zeros((4, 2), dtype=np.int64) if pairs is None else pairs)
        self._pointer.append(np.zeros((2, 17), dtype=np.int64) if pointer is None else pointer)
        self._library = None
        return len(self._kind) - 1

    def _add_rotation(self, axis: str, qubit: int, after: np.ndarray) -> int:
        pairs = np.zeros((4, 2), dtype=np.int64)
        pairs[0] = _AXIS_PAIR[axis]
        return self._add(1, qubit, -1, matrix=after, pairs=pairs)

    def _add_two_rotation(self, gate: Gate) -> int:
        low, high = sorted(gate.qubits)
        quarter = unitary_ptm(gate_spec(gate.name).matrix(np.pi / 2))
        turned = [(a, b) for b, a in np.argwhere(quarter > 0.5) if a != b]
        pairs = [[((i & 3) << (2 * low)) + ((i >> 2) << (2 * high)) for i in pair] for pair in turned]
        return self._add(3, low, high, pairs=np.array(pairs, dtype=np.int64))

    def _add_two(self, qubits: tuple[int, ...], ptm: np.ndarray) -> int:
        low, high = sorted(qubits)
        if qubits[0] > qubits[1]:
            ptm = ptm.reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16)
        pointer = np.zeros((2, 17), dtype=np.int64)
        for side, matrix in enumerate((ptm, ptm.T)):
            if low == 0:
                # Lanes are the letters of qubit 0: a row is one letter of the other qubit, a source is one element.
                blocks = matrix.reshape(4, 4, 16).transpose(0, 2, 1)
                self._fill(
                    pointer[side], [[(j, lanes) for j, lanes in enumerate(block)] for block in blocks], low, high
                )
            else:
                rows = [[(j, np.full(4, entry)) for j, entry in enumerate(row)] for row in matrix]
                self._fill(pointer[side], rows, low, high)
        return self._add(2, low, high, pointer=pointer)

    def _fill(self, pointer: np.ndarray, rows: list[list[tuple[int, np.ndarray]]], low: int, high: int) -> None:
        pointer[0] = len(self._offset)
        for r, row in enumerate(rows):
            for j, lanes in row:
                if np.any(lanes != 0.0):
                    self._offset.append(((j & 3) << (2 * low)) + ((j >> 2) << (2 * high)))
                    self._coefficient.append(lanes)
            pointer[r + 1 :] = len(self._offset)

    @property
    def library(self) -> kernels.Library:
        with self._lock:  # another thread may be adding an operation
            if self._library is None:
                self._library = kernels.Library(
                    np.array(self._kind, dtype=np.int64),
                    np.array(self._low, dtype=np.int64),
                    np.array(self._high, dtype=np.int64),
                    np.array(self._matrix, dtype=np.float64).reshape(-1, 16),
                    np.array(self._pairs, dtype=np.int64).reshape(-1, 4, 2),
                    np.array(self._pointer, dtype=np.int64).reshape(-1, 2, 17),
                    np.array(self._offset, dtype=np.int64),
                    np.array(self._coefficient, dtype=np.float64).reshape(-1, 4),
                )
            return self._library

    # ------------------------------------------------------------------ evaluation
    def check_size(self, n_qubits: int) -> None:
        if n_qubits > MAX_QUBITS:
            need = 4**n_qubits * 8
            raise TooLargeError(
                f"the pauli-transfer engine holds at most {MAX_QUBITS} noisy qubits, got {n_qubits}: one state would "
                f"take {need / 1e9:.1f} GB, a gradient about {12 * need / 1e9:.0f} GB"
            )
        if 4 * 4**n_qubits * 8 > _memory_limit():
            raise TooLargeError(
                f"{n_qubits} noisy qubits need {4 * 4**n_qubits * 8 / 1e9:.1f} GB, this machine has "
                f"{_memory_limit() / 1e9:.1f} GB"
            )

    def _observable(self, hamiltonian: Hamiltonian) -> tuple[np.ndarray, np.ndarray]:
        vector = hamiltonian.pauli_vector
        if self.noise is not None and self.noise.readout:
            vector = self.noise.apply_readout(vector)
        index = np.flatnonzero(vector)
        return index, vector[index]

    def _work(self, rows: int, size: int) -> np.ndarray:
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < rows * size:
            buffer = self._local.buffer = np.empty(rows * size)
        return buffer[: rows * size].reshape(rows, size)

    def segment_length(self, n_ops: int, n_qubits: int) -> int:
        """How many operations the reverse sweep keeps states for at a time."""
        if n_ops * 4**n_qubits * 8 <= KEPT_BYTES:
            return max(n_ops, 1)
        return max(1, int(np.ceil(np.sqrt(n_ops))))

    def gradient_work(self, n_ops: int, n_qubits: int) -> tuple[int, np.ndarray]:
        segment = self.segment_length(n_ops, n_qubits)
        rows = 4 + max(1, -(-n_ops // segment)) + segment
        if rows * 4**n_qubits * 8 > _memory_limit():
            raise TooLargeError(
                f"the gradient of {n_ops} operations on {n_qubits} noisy qubits keeps "
                f"{rows * 4**n_qubits * 8 / 1e9:.1f} GB, this machine has {_memory_limit() / 1e9:.1f} GB"
            )
        return segment, self._work(rows, 4**n_qubits)

    def kernel_arguments(self, circuit: Circuit, hamiltonian: Hamiltonian, no_sv: Any, no_ptm: Any) -> tuple[Any, ...]:
        compiled = self.compiled(circuit)
        segment, work = self.gradient_work(len(compiled.ops), circuit.n_qubits)
        index, weight = self.observable(hamiltonian)
        arguments = (self.library, compiled.ops, compiled.slots, circuit.n_qubits, index, weight, segment, work)
        return True, no_sv, arguments

    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        values = check_angles(circuit, hamiltonian, angles)
        compiled = self.compiled(circuit)
        index, weight = self.observable(hamiltonian)
        work, stop = self._work(2, 4**circuit.n_qubits), interrupt.current().address
        arguments = (values, circuit.n_qubits, index, weight, work, stop)
        return finished(kernels.value(self.library, compiled.ops, compiled.slots, *arguments))

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        values = check_angles(circuit, hamiltonian, angles)
        compiled = self.compiled(circuit)
        index, weight = self.observable(hamiltonian)
        segment, work = self.gradient_work(len(compiled.ops), circuit.n_qubits)
        gradient = np.empty(circuit.n_angles)
        arguments = (values, circuit.n_qubits, index, weight, segment, work, gradient, interrupt.current().address)
        energy = kernels.value_and_gradient(self.library, compiled.ops, compiled.slots, *arguments)
        return finished(energy), gradient

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        values = check_angles(circuit, hamiltonian, angles)
        vector = self.pauli_expectations(circuit, values)
        if self.noise is None or not self.noise.readout:
            return vector[hamiltonian.pauli_index]
        flips = self.noise.readout_flips(circuit.n_qubits)
        letters = hamiltonian.letters
        result = np.empty(len(hamiltonian))
        for k, row in enumerate(letters):
            result[k] = _measured_term(vector, row, flips)
        return result

    def _insertion_slopes(
        self, circuit: Circuit, hamiltonian: Hamiltonian, generators: Generators, angles: np.ndarray
    ) -> np.ndarray:
        compiled = self.compiled(circuit)
        gates = max(len(circuit), 1)
        # One kept state for each gate of a segment, and one for each segment.
        segment = gates if gates * 4**circuit.n_qubits * 8 <= KEPT_BYTES else math.ceil(math.sqrt(gates))
        rows = 4 + -(-gates // segment) + segment
        values = np.empty((len(circuit) + 1, len(generators.strings)))
        energy = insertion_kernels.ptm_sweep(
            self.library,
            compiled.ops,
            compiled.slots,
            angles,
            circuit.n_qubits,
            *self.observable(hamiltonian),
            self._work(rows, 4**circuit.n_qubits),
            self.gate_starts(circuit),
            segment,
            generators.tables,
            values,
            interrupt.current().address,
        )
        finished(energy)
        return values

    def _append_curves(
        self, circuit: Circuit, hamiltonian: Hamiltonian, generators: Generators, angles: np.ndarray
    ) -> Curves:
        state = self.pauli_expectations(circuit, angles)
        index, weight = self.observable(hamiltonian)
        adjoint = np.zeros(len(state))
        adjoint[index] = weight
        curves = Curves(np.zeros(len(generators.strings)), np.zeros(len(generators.strings)))
        insertion_kernels.ptm_append(state, adjoint, index, weight, generators.tables, *curves)
        return curves

    def pauli_expectations(self, circuit: Circuit, angles: np.ndarray | None = None) -> np.ndarray:
        """Tr(P ρ) of all 4**n Pauli strings before readout, float64; base-4 digit q is the letter of qubit q."""
        compiled = self.compiled(circuit)
        work = self._work(2, 4**circuit.n_qubits)
        values = circuit.angles if angles is None else angles
        stop = interrupt.current().address
        row = kernels.state(self.library, compiled.ops, compiled.slots, values, circuit.n_qubits, work, stop)
        if row < 0:
            interrupt.check()
        return work[row].copy()


def _measured_term(vector: np.ndarray, letters: np.ndarray, flips: np.ndarray) -> float:
    """One Pauli string through the readout: each measured letter L becomes (1 - p01 - p10) L + (p10 - p01) I."""
    parts = {0: 1.0}
    for q, letter in enumerate(letters):
        if letter:
            p01, p10 = flips[q]
            kept = {index + (int(letter) << (2 * q)): w * (1 - p01 - p10) for index, w in parts.items()}
            shift = p10 - p01
            parts = kept | ({index: w * shift for index, w in parts.items()} if shift else {})
    return float(sum(w * vector[index] for index, w in parts.items()))
