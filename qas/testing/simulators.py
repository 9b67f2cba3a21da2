"""The contract of simulators: what every engine does, checked against dense matrices and parameter shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, TooLargeError
from qas.gates import GATES
from qas.hamiltonians import Hamiltonian
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    amplitude_damping,
    kraus,
    load_noise,
    phase_damping,
    thermal_relaxation,
)
from qas.simulators import Simulator, make_simulator
from qas.simulators.dense import dense_expectation
from qas.testing.random import random_circuit, random_hamiltonian

SEED = 402_118_377


def random_kraus(n_qubits: int, strength: float, rng: np.random.Generator) -> Channel:
    """With probability 1 - strength nothing, else a random channel without any symmetry."""
    size = 2**n_qubits
    tall = rng.normal(size=(3 * size, size)) + 1j * rng.normal(size=(3 * size, size))
    isometry = np.linalg.qr(tall)[0].reshape(3, size, size)
    operators = [math.sqrt(1 - strength) * np.eye(size), *(math.sqrt(strength) * isometry)]
    return kraus(operators, name=f"random on {n_qubits}")


def asymmetric_noise(n_qubits: int = 4) -> NoiseModel:
    """Everything that could be applied the wrong way round: other channels on other qubits, orders, ends of a gate."""
    rng = np.random.default_rng(SEED)
    model = NoiseModel("asymmetric")
    model = model.add(random_kraus(2, 0.2, rng), TWO_QUBIT_GATES)
    model = model.add(amplitude_damping(0.08, 0.1), TWO_QUBIT_GATES, target=0)
    model = model.add(phase_damping(0.1), ("cx", "rxx", "swap"), target=1)
    model = model.add(random_kraus(1, 0.15, rng), TWO_QUBIT_GATES, target=1)
    model = model.add(random_kraus(2, 0.3, rng), ("cx", "ryy"), [(0, 1), (2, 1), (3, 0)])
    model = model.add(thermal_relaxation(1.0, 1.7, 0.1, 0.2), ONE_QUBIT_GATES)
    model = model.add(random_kraus(1, 0.1, rng), ("rx", "u", "h", "x"), [0, 2])
    model = model.add(amplitude_damping(0.2), ("ry", "rz", "sx"), [1])
    for qubit in range(n_qubits):
        model = model.add_readout(0.01 + 0.03 * qubit, 0.12 - 0.02 * qubit, [qubit])
    return model


def legal(circuit: Circuit, noise: NoiseModel | None, rng: np.random.Generator) -> Circuit:
    """The circuit with its two-qubit gates moved onto pairs that the noise couples."""
    if noise is None or noise.coupling is None:
        return circuit
    pairs = sorted(pair for pair in noise.coupling if max(pair) < circuit.n_qubits)
    gates = []
    for gate in circuit:
        if len(gate.qubits) == 2:
            a, b = pairs[rng.integers(len(pairs))]
            gate = Gate(gate.name, (a, b) if rng.random() < 0.5 else (b, a), gate.angles)
        gates.append(gate)
    return Circuit(circuit.n_qubits, gates)


def covering_circuit(n_qubits: int, extra: int, noise: NoiseModel | None, rng: np.random.Generator) -> Circuit:
    """Every gate that fits, in random order on random qubits, with a spread start and `extra` random gates."""
    names = [name for name, spec in GATES.items() if spec.n_qubits <= n_qubits]
    gates = [Gate("ry", (q,), (float(rng.uniform(0.4, 2.7)),)) for q in range(n_qubits)]
    for name in [*rng.permutation(names).tolist(), *rng.choice(names, size=extra).tolist()]:
        gates += random_circuit(n_qubits, 1, rng, gates=[name])
    return legal(Circuit(n_qubits, gates), noise, rng)


def shifted_gradient(simulator: Simulator, circuit: Circuit, hamiltonian: Hamiltonian) -> np.ndarray:
    """The gradient from energies: dE/dθ = (E(θ + π/2) - E(θ - π/2)) / 2, float64, shape (n_angles,)."""
    shifts = math.pi / 2 * np.eye(circuit.n_angles)
    ends = [[simulator.expectation(circuit, hamiltonian, circuit.angles + s * d) for d in shifts] for s in (1, -1)]
    return (np.array(ends[0]) - np.array(ends[1])) / 2


class SimulatorContract:
    """What every engine does; a subclass names its engine.

    Noise models that the engine refuses with a `QasError` are left out; without noise it must work.
    """

    engine: ClassVar[Any]
    """a name of `qas.simulators.list_engines`, or a class"""
    tolerance: ClassVar[float] = 1e-11
    """largest difference from dense matrices"""

    @pytest.fixture
    def subject(self) -> Any:
        """The engine to test."""
        return self.engine

    @pytest.fixture
    def simulators(self, subject: Any) -> list[Simulator]:
        """One without noise, and one for each noise that the engine takes."""
        made = [make_simulator(None, subject)]
        for noise in (asymmetric_noise(), load_noise("ibm-ourense")):
            try:
                made.append(make_simulator(noise, subject))
            except QasError as error:
                assert "\n" not in str(error)
        return made

    def cases(self, simulators: list[Simulator], *sizes: int) -> Iterator[tuple[Simulator, Circuit, Hamiltonian]]:
        """Each simulator on circuits with every gate that fits, and Hamiltonians on as many qubits."""
        for n_qubits in sizes:
            rng = np.random.default_rng([SEED, n_qubits])
            hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 20), rng)
            for simulator in simulators:
                yield simulator, covering_circuit(n_qubits, 2, simulator.noise, rng), hamiltonian

    def test_energies_and_terms_of_every_gate_are_those_of_dense_matrices(self, simulators: list[Simulator]) -> None:
        for simulator, circuit, hamiltonian in self.cases(simulators, 1, 2, 3):
            exact = dense_expectation(circuit, hamiltonian, simulator.noise)
            assert abs(simulator.expectation(circuit, hamiltonian) - exact) < self.tolerance
            terms = simulator.term_expectations(circuit, hamiltonian)
            assert terms.shape == (len(hamiltonian),)
            assert abs(terms @ hamiltonian.coefficients - exact) < 10 * self.tolerance
            for k in (0, len(hamiltonian) - 1):
                single = dense_expectation(circuit, Hamiltonian({hamiltonian.strings[k]: 1.0}), simulator.noise)
                assert abs(terms[k] - single) < self.tolerance

    def test_gradients_are_parameter_shifts(self, simulators: list[Simulator]) -> None:
        for simulator, circuit, hamiltonian in self.cases(simulators, 1, 3):
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            assert gradient.shape == (circuit.n_angles,) and gradient.dtype == np.float64
            assert abs(energy - simulator.expectation(circuit, hamiltonian)) < self.tolerance
            expected = shifted_gradient(simulator, circuit, hamiltonian)
            assert np.abs(expected).max() > 1e-3, "the instance must be able to fail"
            assert np.abs(gradient - expected).max() < self.tolerance

    @pytest.mark.parametrize("string", ["YXZ", "YYI"])
    def test_hamiltonians_with_y(self, simulators: list[Simulator], string: str) -> None:
        """Strings with an odd number of Y have imaginary matrix entries, with an even number real ones."""
        hamiltonian = Hamiltonian({string: 0.7, "ZIZ": -0.2})
        for simulator, circuit, _ in self.cases(simulators, 3):
            exact = dense_expectation(circuit, hamiltonian, simulator.noise)
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            assert abs(energy - exact) < self.tolerance
            assert np.abs(gradient - shifted_gradient(simulator, circuit, hamiltonian)).max() < self.tolerance

    def test_given_angles_replace_the_circuits_own(self, simulators: list[Simulator]) -> None:
        for simulator, circuit, hamiltonian in self.cases(simulators, 3):
            angles = np.random.default_rng(SEED).uniform(-7, 7, size=circuit.n_angles)
            moved = circuit.with_angles(angles)
            exact = simulator.expectation(moved, hamiltonian)
            for given in (angles, angles.tolist(), np.repeat(angles, 2)[::2]):
                assert abs(simulator.expectation(circuit, hamiltonian, given) - exact) < self.tolerance
            terms = simulator.term_expectations(circuit, hamiltonian, angles)
            assert np.abs(terms - simulator.term_expectations(moved, hamiltonian)).max() < self.tolerance
            gradients = [simulator.expectation_and_gradient(circuit, hamiltonian, angles)[1]]
            gradients.append(simulator.expectation_and_gradient(moved, hamiltonian)[1])
            assert np.abs(gradients[0] - gradients[1]).max() < self.tolerance

    def test_circuits_without_gates_or_angles_and_constants(self, simulators: list[Simulator]) -> None:
        rng = np.random.default_rng([SEED, 40])
        fixed = [name for name, spec in GATES.items() if not spec.n_angles]
        for simulator in simulators:
            for circuit in (Circuit(3), legal(random_circuit(3, 9, rng, gates=fixed), simulator.noise, rng)):
                hamiltonian = random_hamiltonian(3, 12, rng)
                exact = dense_expectation(circuit, hamiltonian, simulator.noise)
                energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
                assert abs(energy - exact) < self.tolerance and gradient.shape == (0,)
                assert abs(simulator.expectation(circuit, hamiltonian, []) - exact) < self.tolerance
            circuit, constant = Circuit(2, [("rx", 0, 0.3), ("cx", (0, 1))]), Hamiltonian({"II": -3.5})
            energy, gradient = simulator.expectation_and_gradient(circuit, constant)
            assert energy == pytest.approx(-3.5, abs=1e-12) and np.abs(gradient).max() < 1e-12
            assert simulator.term_expectations(circuit, constant) == pytest.approx([1.0])

    def test_results_do_not_depend_on_earlier_calls_or_other_threads(self, subject: Any, simulators: Any) -> None:
        for used in simulators:
            rng = np.random.default_rng([SEED, 60])
            cases = [
                (legal(random_circuit(n, 12, rng), used.noise, rng), random_hamiltonian(n, 4, rng))
                for n in (3, 1, 4, 2, 3, 4, 1, 2)
            ]
            fresh = [make_simulator(used.noise, subject).expectation_and_gradient(*case) for case in cases]
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda case: used.expectation_and_gradient(*case), cases * 2))  # noqa: B023
            for (energy, gradient), (other, other_gradient) in zip(fresh * 2, found, strict=True):
                assert energy == other and np.array_equal(gradient, other_gradient)

    def test_results_are_the_callers_own(self, simulators: list[Simulator]) -> None:
        circuit, hamiltonian = Circuit(2, [("rx", 0, 0.3), ("cx", (0, 1))]), Hamiltonian({"ZZ": 1.0, "IY": 0.3})
        for simulator in simulators:
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            terms = simulator.term_expectations(circuit, hamiltonian)
            kept = gradient.copy(), terms.copy()
            simulator.expectation_and_gradient(circuit, hamiltonian, [1.4])
            simulator.term_expectations(circuit, hamiltonian, [1.4])
            assert np.array_equal(gradient, kept[0]) and np.array_equal(terms, kept[1])
            gradient[:] = 9.0
            assert simulator.expectation_and_gradient(circuit, hamiltonian)[0] == energy

    @pytest.mark.parametrize("method", ["expectation", "expectation_and_gradient", "term_expectations"])
    def test_bad_input_is_one_line(self, simulators: list[Simulator], method: str) -> None:
        call = getattr(simulators[-1], method)
        circuit, hamiltonian = Circuit(2, [("rx", 0, 0.1), ("ry", 1, 0.2)]), Hamiltonian({"ZZ": 1.0})
        bad: list[tuple[tuple[Any, ...], str]] = [
            ((circuit, hamiltonian, [0.1, float("nan")]), "finite"),
            ((circuit, hamiltonian, [float("inf"), 0.1]), "finite"),
            ((circuit, hamiltonian, [0.1]), "2 angles"),
            ((circuit, hamiltonian, [[0.1, 0.2]]), "2 angles"),
            ((circuit, Hamiltonian({"ZZZ": 1.0})), "qubits"),
        ]
        for arguments, words in bad:
            with pytest.raises(CircuitError, match=words) as caught:
                call(*arguments)
            assert "\n" not in str(caught.value)

    def test_what_the_device_or_the_memory_does_not_hold_is_refused(self, simulators: list[Simulator]) -> None:
        for simulator in simulators:
            if simulator.noise is not None and simulator.noise.coupling is not None:
                for circuit, words in (
                    (Circuit(4, [("cx", (0, 3))]), "couples only"),
                    (Circuit(5, [("x", 4)]), "describes 4"),
                ):
                    with pytest.raises(CircuitError, match=words) as caught:
                        simulator.expectation(circuit, Hamiltonian({"Z" * circuit.n_qubits: 1.0}))
                    assert "\n" not in str(caught.value)
            elif simulator.noise is None:
                with pytest.raises(TooLargeError, match="40") as too_large:
                    simulator.expectation(Circuit(40), Hamiltonian({"Z" * 40: 1.0}))
                assert "\n" not in str(too_large.value)

    def test_classes_and_instances_are_engines_too(self, subject: Any, simulators: list[Simulator]) -> None:
        for simulator in simulators:
            assert isinstance(simulator.name, str) and make_simulator(engine=simulator) is simulator
            made = make_simulator(simulator.noise, type(simulator))
            assert type(made) is type(simulator) and made.noise == simulator.noise
