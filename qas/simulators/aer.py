"""The Qiskit Aer engine: state vector without noise, density matrix with noise, and real shots.

It shares no code with the compiled engines, so it also serves to check them. Circuits are handed to Aer gate for gate:
transpiling would rename gates, and noise is attached to names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators.base import Simulator, check_angles

MAX_QUBITS_PURE = 26
MAX_QUBITS_MIXED = 13
"""Largest registers: both take 1 GB for one state."""

_KEPT_MODELS = 32


class AerSimulator(Simulator):
    """Qiskit Aer as an engine.

    Args:
        noise: a noise model, or None for pure states.
    """

    name = "aer"
    about = "Qiskit Aer: state vector or density matrix, gradients by parameter shift"
    idle = True

    def __init__(self, noise: NoiseModel | None = None) -> None:
        super().__init__(noise)
        self._noise_models: dict[frozenset[tuple[str, tuple[int, ...]]], Any] = {}

    # ------------------------------------------------------------------ exact values
    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        values = self._prepared(circuit, hamiltonian, angles)
        return float(self._energies(circuit, hamiltonian, values[None])[0])

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """As `expectation`, with the exact gradient in all angles, float64, shape (n_angles,).

        Parameter shift, all 2·n_angles + 1 circuits in one Aer job: dE/dθ = (E(θ + π/2) - E(θ - π/2)) / 2 (Schuld et
        al., Phys. Rev. A 99, 032331, 2019). It holds for each angle of ``u`` too, which up to a global phase is
        RZ(φ) RY(θ) RZ(λ), and through noise, which does not depend on angles.
        """
        values = self._prepared(circuit, hamiltonian, angles)
        count = len(values)
        shifts = math.pi / 2 * np.eye(count)
        points = np.concatenate([values[None], values + shifts, values - shifts])
        energies = self._energies(circuit, hamiltonian, points)
        return float(energies[0]), (energies[1 : count + 1] - energies[count + 1 :]) / 2

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        values = self._prepared(circuit, hamiltonian, angles)
        measured = [self._measured({string: 1.0}) for string in hamiltonian.strings]
        identity = "I" * circuit.n_qubits
        needed = sorted({string for term in measured for string in term} - {identity})
        if not needed:
            return np.ones(len(hamiltonian))

        from qiskit.quantum_info import Pauli
        from qiskit_aer.library import SaveExpectationValue

        quantum, binds = self._parametrized(circuit, values[None])
        for string in needed:
            quantum.append(SaveExpectationValue(Pauli(string), label=string), range(circuit.n_qubits))
        data = self._run(circuit, quantum, binds)[0]
        data[identity] = 1.0
        return np.array([sum(weight * data[string] for string, weight in term.items()) for term in measured])

    def _energies(self, circuit: Circuit, hamiltonian: Hamiltonian, points: np.ndarray) -> np.ndarray:
        """Energies at `points`, shape (n_points, n_angles), as shape (n_points,)."""
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_aer.library import SaveExpectationValue

        terms = self._measured(hamiltonian.terms)
        quantum, binds = self._parametrized(circuit, points)
        operator = SparsePauliOp(list(terms), list(terms.values()))
        quantum.append(SaveExpectationValue(operator, label="energy"), range(circuit.n_qubits))
        return np.array([data["energy"] for data in self._run(circuit, quantum, binds)])

    def _measured(self, terms: Mapping[str, float]) -> dict[str, float]:
        """The operator as seen through the readout: each letter P becomes (1 - p01 - p10) P + (p10 - p01) I."""
        result = dict(terms)
        if self.noise is None:
            return result
        n_qubits = len(next(iter(terms)))
        for qubit, (p01, p10) in enumerate(self.noise.readout_flips(n_qubits)):
            place = n_qubits - 1 - qubit
            seen: dict[str, float] = {}
            for string, weight in result.items():
                if string[place] == "I":
                    seen[string] = seen.get(string, 0.0) + weight
                    continue
                seen[string] = seen.get(string, 0.0) + weight * (1 - p01 - p10)
                if p01 != p10:
                    dropped = f"{string[:place]}I{string[place + 1 :]}"
                    seen[dropped] = seen.get(dropped, 0.0) + weight * (p10 - p01)
            result = seen
        return result

    # ------------------------------------------------------------------ shots
    def sample(
        self, circuit: Circuit, hamiltonian: Hamiltonian, shots: int, seed: int | np.random.Generator | None = None
    ) -> tuple[float, float]:
        """Estimate the energy from simulated measurements.

        Terms that commute qubit by qubit share one measurement setting, and each setting is measured `shots` times.
        Readout flips happen bit by bit in Aer's sampler. The rotations into the measured basis are free of noise, and
        the identity term is added exactly.

        Args:
            circuit: n qubits.
            hamiltonian: on the same number of qubits.
            shots: measurements of each setting, at least 2.
            seed: an integer or a generator; None draws fresh randomness.

        Returns:
            The estimate, and its standard error from the spread of the measured values.

        Raises:
            CircuitError, TooLargeError: as `expectation`.
            QasError: fewer than 2 shots.
        """
        values = self._prepared(circuit, hamiltonian, None)
        whole_number("shots", shots, 2)
        terms = {string: c for string, c in hamiltonian.terms.items() if set(string) != {"I"}}
        if not terms:
            return hamiltonian.identity, 0.0

        from qiskit.quantum_info import SparsePauliOp

        groups = SparsePauliOp(list(terms), list(terms.values())).group_commuting(qubit_wise=True)
        run, _ = self._parametrized(circuit.with_angles(values), None)
        settings = [_with_measurement(run.copy(), group.paulis.to_labels()) for group in groups]
        aer_seed = int(np.random.default_rng(seed).integers(2**31))
        result = self._backend(circuit).run(settings, shots=shots, seed_simulator=aer_seed).result()
        _check_success(result)
        estimate, variance = hamiltonian.identity, 0.0
        for index, group in enumerate(groups):
            mean, spread = _group_statistics(result.get_counts(index), group.paulis.to_labels(), group.coeffs.real)
            estimate += mean
            variance += spread / shots
        return float(estimate), math.sqrt(variance)

    # ------------------------------------------------------------------ running Aer
    def _prepared(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None
    ) -> np.ndarray:
        """The angles to use, after all checks."""
        values = check_angles(circuit, hamiltonian, angles)
        limit = MAX_QUBITS_PURE if self.noise is None else MAX_QUBITS_MIXED
        if circuit.n_qubits > limit:
            kind = "without" if self.noise is None else "with"
            raise TooLargeError(f"engine 'aer' holds at most {limit} qubits {kind} noise, got {circuit.n_qubits}")
        if self.noise is not None:
            self.noise.check_register(circuit.n_qubits)
            for gate in circuit:
                self.noise.check(gate.name, gate.qubits)
        return values

    def _parametrized(
        self, circuit: Circuit, points: np.ndarray | None
    ) -> tuple[Any, list[dict[Any, list[float]]] | None]:
        """The circuit, and what Aer takes for its angles at `points`, shape (n_points, n_angles); None: its own."""
        from qiskit import QuantumCircuit
        from qiskit.circuit import Parameter

        quantum = QuantumCircuit(circuit.n_qubits)
        waiting = None if self.noise is None else self.noise.idle_channels(circuit)
        parameters: list[Any] = []
        for position, gate in enumerate(circuit):
            own: Sequence[Any] = gate.angles
            if points is not None:
                own = [Parameter(f"angle{len(parameters) + k}") for k in range(len(gate.angles))]
                parameters += own
            getattr(quantum, gate.name)(*own, *gate.qubits)
            for qubit, ptm in () if waiting is None else waiting[position]:
                quantum.append(_channel(ptm), [qubit])
        if points is None or not parameters:
            return quantum, None
        return quantum, [{parameter: points[:, k].tolist() for k, parameter in enumerate(parameters)}]

    def _backend(self, circuit: Circuit) -> Any:
        from qiskit_aer import AerSimulator as QiskitAerSimulator

        # Aer sets results below 1e-10 to zero by default.
        if self.noise is None:
            return QiskitAerSimulator(method="statevector", zero_threshold=0.0)
        uses = frozenset((gate.name, gate.qubits) for gate in circuit)
        key = uses | {("", (circuit.n_qubits,))}
        model = self._noise_models.get(key)
        if model is None:
            from qas.noise_import import aer_noise

            model = aer_noise(self.noise, circuit.n_qubits, uses)
            if len(self._noise_models) >= _KEPT_MODELS:
                self._noise_models.clear()
            self._noise_models[key] = model
        return QiskitAerSimulator(method="density_matrix", noise_model=model, zero_threshold=0.0)

    def _run(
        self, circuit: Circuit, quantum: Any, binds: list[dict[Any, list[float]]] | None
    ) -> list[dict[str, float]]:
        """The saved values, one dictionary for each point."""
        result = self._backend(circuit).run(quantum, shots=1, parameter_binds=binds).result()
        _check_success(result)
        return [dict(result.data(index)) for index in range(len(result.results))]


def _check_success(result: Any) -> None:
    if not result.success:
        raise QasError(f"Qiskit Aer failed: {result.status}")


def _channel(ptm: np.ndarray) -> Any:
    """A transfer matrix as an instruction."""
    from qiskit.quantum_info import Kraus

    from qas.noise_import import kraus_operators

    return Kraus(kraus_operators(ptm)).to_instruction()


def _with_measurement(quantum: Any, strings: Sequence[str]) -> Any:
    """A Qiskit circuit with measurements of every qubit in the basis shared by `strings`."""
    from qiskit import ClassicalRegister
    from qiskit.circuit.library import UnitaryGate

    from qas.gates import GATES

    hadamard, phase = GATES["h"].matrix(), GATES["sdg"].matrix()
    n_qubits = quantum.num_qubits
    quantum.add_register(ClassicalRegister(n_qubits, "c"))
    for qubit in range(n_qubits):
        letters = {string[n_qubits - 1 - qubit] for string in strings} - {"I"}
        # As matrices, because noise models attach errors to named gates.
        if letters == {"X"}:
            quantum.append(UnitaryGate(hadamard), [qubit])
        elif letters == {"Y"}:
            quantum.append(UnitaryGate(hadamard @ phase), [qubit])
        quantum.measure(qubit, qubit)
    return quantum


def _group_statistics(counts: Mapping[str, int], strings: Sequence[str], weights: np.ndarray) -> tuple[float, float]:
    """Mean and sample variance, over shots, of Σ_k c_k (±1)_k within one measurement setting."""
    bits = np.array([[c == "1" for c in outcome] for outcome in counts])
    support = np.array([[c != "I" for c in string] for string in strings])
    signs = 1.0 - 2.0 * ((bits.astype(int) @ support.T.astype(int)) % 2)
    energies = signs @ weights
    number = np.array(list(counts.values()), dtype=np.float64)
    mean = float(number @ energies / number.sum())
    return mean, float(number @ (energies - mean) ** 2 / (number.sum() - 1))
