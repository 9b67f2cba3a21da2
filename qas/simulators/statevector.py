"""The state-vector engine: exact noise-free energies and gradients."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError, TooLargeError
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import _insertion_kernels as insertion_kernels
from qas.simulators import _sv_kernels as kernels
from qas.simulators import interrupt
from qas.simulators.base import check_angles
from qas.simulators.compiled import CompiledSimulator, finished
from qas.simulators.insertions import Curves, Generators, term_groups

MAX_QUBITS = 20
"""Largest register: a state of 20 qubits takes 17 MB; the Hamiltonian's diagonals take more."""

_KINDS = {"rx": 0, "ry": 1, "rz": 2, "cx": 4, "cz": 5, "swap": 6, "rxx": 7, "ryy": 7, "rzz": 7}


class StatevectorSimulator(CompiledSimulator):
    """Exact noise-free energies and gradients, up to 20 qubits.

    Raises:
        QasError: a noise model was given; this engine has none.
    """

    name = "statevector"
    about = "noise-free, compiled, exact gradients, up to 20 qubits"

    def __init__(self, noise: NoiseModel | None = None) -> None:
        super().__init__()
        if noise is not None:
            raise QasError(f"the statevector engine is noise-free, got noise {noise.name!r}; use pauli-transfer or aer")
        self._entries: list[tuple[int, int, int, np.ndarray, int, int]] = []
        self._library: kernels.Library | None = None
        self._local = threading.local()

    def check_size(self, n_qubits: int) -> None:
        if n_qubits > MAX_QUBITS:
            raise TooLargeError(
                f"the statevector engine holds at most {MAX_QUBITS} qubits, got {n_qubits}: one state would take "
                f"{16 * 2.0**n_qubits / 1e9:.3g} GB"
            )

    def _add(self, kind: int, first: int, second: int, matrix: np.ndarray | None = None, x: int = 0, z: int = 0) -> int:
        both = np.zeros((2, 4), dtype=complex)
        if matrix is not None:
            both[0], both[1] = matrix.ravel(), matrix.conj().T.ravel()
        self._entries.append((kind, first, second, both, x, z))
        self._library = None
        return len(self._entries) - 1

    def _operations(self, gate: Gate) -> list[tuple[int, int]]:
        spec = gate_spec(gate.name)
        bits = [1 << q for q in gate.qubits]
        if gate.name == "u":
            # U(θ, φ, λ) is RZ(φ) RY(θ) RZ(λ) up to a phase.
            return [(self._add(2, bits[0], 0), 2), (self._add(1, bits[0], 0), 0), (self._add(2, bits[0], 0), 1)]
        if spec.n_qubits == 1 and spec.axis is None:
            return [(self._add(3, bits[0], 0, spec.matrix()), -1)]
        kind = _KINDS[gate.name]
        if kind == 7:
            assert spec.axis is not None
            x = sum(bit for bit, letter in zip(bits, spec.axis, strict=True) if letter in "XY")
            z = sum(bit for bit, letter in zip(bits, spec.axis, strict=True) if letter in "ZY")
            return [(self._add(kind, bits[0], bits[1], x=x, z=z), 0)]
        return [(self._add(kind, bits[0], bits[1] if len(bits) == 2 else 0), 0 if spec.n_angles else -1)]

    @property
    def library(self) -> kernels.Library:
        with self._lock:  # another thread may be adding an operation
            if self._library is None:
                kind, first, second, matrix, x, z = zip(*self._entries, strict=True) if self._entries else ((),) * 6
                self._library = kernels.Library(
                    np.array(kind, dtype=np.int64),
                    np.array(first, dtype=np.int64),
                    np.array(second, dtype=np.int64),
                    np.array(matrix, dtype=np.complex128).reshape(-1, 2, 4).view(np.float64),
                    np.array(x, dtype=np.int64),
                    np.array(z, dtype=np.int64),
                )
            return self._library

    def _observable(self, hamiltonian: Hamiltonian) -> Any:
        masks, diagonals = hamiltonian.xor_diagonals
        vector, sign = _projector(masks, diagonals)
        if vector is not None:
            # A target state fills the whole matrix, but is applied in 2^n steps instead of 4^n.
            return masks[:0], vector.view(np.float64), np.array([sign])
        real = diagonals.real.ravel()
        imag = diagonals.imag.ravel() if np.any(diagonals.imag) else np.empty(0)
        return masks, real, imag

    def work(self, n_qubits: int) -> np.ndarray:
        """Scratch of this thread, float64, shape (2, 2·2**n)."""
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or buffer.shape[1] != 2 << n_qubits:
            buffer = self._local.buffer = np.empty((2, 2 << n_qubits))
        return buffer

    def kernel_arguments(self, circuit: Circuit, hamiltonian: Hamiltonian, no_sv: Any, no_ptm: Any) -> tuple[Any, ...]:
        compiled = self.compiled(circuit)
        arguments = (
            self.library,
            compiled.ops,
            compiled.slots,
            *self.observable(hamiltonian),
            self.work(circuit.n_qubits),
        )
        return False, arguments, no_ptm

    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        values = check_angles(circuit, hamiltonian, angles)
        compiled = self.compiled(circuit)
        observable = self.observable(hamiltonian)
        work, stop = self.work(circuit.n_qubits), interrupt.current().address
        return finished(kernels.value(self.library, compiled.ops, compiled.slots, values, *observable, work, stop))

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        values = check_angles(circuit, hamiltonian, angles)
        compiled = self.compiled(circuit)
        gradient = np.empty(circuit.n_angles)
        energy = kernels.value_and_gradient(
            self.library,
            compiled.ops,
            compiled.slots,
            values,
            *self.observable(hamiltonian),
            self.work(circuit.n_qubits),
            gradient,
            interrupt.current().address,
        )
        return finished(energy), gradient

    def state(self, circuit: Circuit, angles: np.ndarray | None = None) -> np.ndarray:
        """State after the circuit from |0…0>, complex128, shape (2**n,)."""
        compiled = self.compiled(circuit)
        psi = np.empty(1 << circuit.n_qubits, dtype=np.complex128)
        values = circuit.angles if angles is None else angles
        stop = interrupt.current().address
        if not kernels.run(self.library, compiled.ops, compiled.slots, values, psi.view(np.float64), stop):
            interrupt.check()
        return psi

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        values = check_angles(circuit, hamiltonian, angles)
        psi = self.state(circuit, values)
        index = np.arange(len(psi))
        result = np.empty(len(hamiltonian))
        for k, (x, z) in enumerate(zip(*hamiltonian.masks, strict=True)):
            phase = (1j) ** (int(x & z).bit_count() % 4) * (1.0 - 2.0 * (np.bitwise_count(index & z) & 1))
            result[k] = np.vdot(psi[index ^ x], phase * psi).real
        return result

    def _insertion_slopes(
        self, circuit: Circuit, hamiltonian: Hamiltonian, generators: Generators, angles: np.ndarray
    ) -> np.ndarray:
        values = np.empty((len(circuit) + 1, len(generators.strings)))
        gates = self.gate_operations(circuit)
        energy = insertion_kernels.sweep(
            self.library,
            gates,
            angles,
            *self.observable(hamiltonian),
            self.work(circuit.n_qubits),
            generators.tables,
            values,
            interrupt.current().address,
        )
        finished(energy)
        return values

    def _append_curves(
        self, circuit: Circuit, hamiltonian: Hamiltonian, generators: Generators, angles: np.ndarray
    ) -> Curves:
        curves = Curves(np.zeros(len(generators.strings)), np.zeros(len(generators.strings)))
        gates = self.gate_operations(circuit)
        energy = insertion_kernels.append(
            self.library,
            gates,
            angles,
            *self.observable(hamiltonian),
            self.work(circuit.n_qubits),
            generators.tables,
            term_groups(hamiltonian),
            hamiltonian.coefficients,
            *curves,
            interrupt.current().address,
        )
        finished(energy)
        return curves


def _projector(masks: np.ndarray, diagonals: np.ndarray) -> tuple[np.ndarray | None, float]:
    """v, complex128 (2**n,), and a sign such that H = ± |v><v|; None where H is no such operator."""
    size = diagonals.shape[1]
    if len(masks) * 2 < size:
        return None, 0.0
    largest = int(np.abs(diagonals[0]).argmax()) if masks[0] == 0 else 0
    peak = diagonals[0, largest].real
    if masks[0] != 0 or abs(peak) < 1e-300:
        return None, 0.0
    column = np.zeros(size, dtype=np.complex128)
    column[largest ^ masks] = diagonals[np.arange(len(masks)), largest ^ masks]
    vector = column / np.sqrt(abs(peak))
    sign = float(np.sign(peak))
    index = np.arange(size)
    rebuilt = sign * vector[index] * vector[index ^ masks[:, None]].conj()
    if np.abs(rebuilt - diagonals).max() > 1e-13 * abs(peak):
        return None, 0.0
    missing = np.setdiff1d(index, masks)
    for x in missing:
        if np.abs(vector * vector[index ^ x].conj()).max() > 1e-13 * abs(peak):
            return None, 0.0
    return vector, sign
