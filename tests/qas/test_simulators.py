"""One contract for every engine, checked against dense matrices, and what only the compiled engines promise."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, TooLargeError, UnknownNameError
from qas.gates import GATES
from qas.hamiltonians import Hamiltonian
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    amplitude_damping,
    kraus,
    list_noise,
    load_noise,
    phase_damping,
    thermal_relaxation,
)
from qas.optimizers import bfgs, minimize
from qas.simulators import _ptm_kernels, _sv_kernels, list_engines, make_simulator, pauli_transfer, statevector
from qas.simulators.base import Simulator
from qas.simulators.compiled import CompiledSimulator
from qas.simulators.dense import density_matrix, measured_matrix
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.testing import random_circuit, random_hamiltonian

SEED = 402_118_377


# ---------------------------------------------------------------------- random instances
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


def build_noise(name: str) -> NoiseModel | None:
    return asymmetric_noise() if name == "asymmetric" else load_noise(name)


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


@functools.lru_cache(maxsize=2000)
def _dense_state(circuit: Circuit, noise_name: str) -> np.ndarray:
    return density_matrix(circuit, build_noise(noise_name))


def dense_expectation(circuit: Circuit, hamiltonian: Hamiltonian, noise: NoiseModel | None) -> float:
    """The dense twin; it is slow, so its states are shared between tests."""
    rho = _dense_state(circuit, "none" if noise is None else noise.name)
    return float(np.trace(measured_matrix(hamiltonian, noise) @ rho).real)


def gradient_circuit(n_qubits: int, noise: NoiseModel | None) -> Circuit:
    """One circuit with every gate that fits; the same for every test, because its dense gradient is slow."""
    return covering_circuit(n_qubits, 0, noise, np.random.default_rng([SEED, 10 + n_qubits]))


def shifted_gradient(circuit: Circuit, hamiltonian: Hamiltonian, noise: NoiseModel | None) -> np.ndarray:
    """Parameter shift on dense matrices."""
    gradient = np.empty(circuit.n_angles)
    for k in range(circuit.n_angles):
        shift = math.pi / 2 * np.eye(circuit.n_angles)[k]
        up, down = (circuit.with_angles(circuit.angles + sign * shift) for sign in (1, -1))
        gradient[k] = (dense_expectation(up, hamiltonian, noise) - dense_expectation(down, hamiltonian, noise)) / 2
    return gradient


NOISES = ["none", *list_noise(), "asymmetric"]


# ---------------------------------------------------------------------- the contract
class SimulatorContract:
    """What every engine must do; a subclass names its engine."""

    engine: ClassVar[str]
    tolerance: ClassVar[float] = 1e-11
    noisy_limit: ClassVar[str | None] = "at most"

    @pytest.fixture(params=NOISES)
    def noise(self, request: pytest.FixtureRequest) -> NoiseModel | None:
        return build_noise(request.param)

    def make(self, noise: NoiseModel | None = None) -> Simulator:
        return make_simulator(noise, self.engine)

    @pytest.mark.parametrize("n_qubits", [1, 2, 3, 4])
    def test_energy_of_every_gate_equals_the_dense_twin(self, noise: NoiseModel | None, n_qubits: int) -> None:
        rng = np.random.default_rng([SEED, n_qubits])
        simulator = self.make(noise)
        for _ in range(2 if n_qubits < 4 else 1):
            circuit = covering_circuit(n_qubits, 2, noise, rng)
            hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 20), rng)
            exact = dense_expectation(circuit, hamiltonian, noise)
            assert abs(simulator.expectation(circuit, hamiltonian) - exact) < self.tolerance

    @pytest.mark.parametrize("n_qubits", [1, 2, 3])
    def test_gradient_equals_the_parameter_shift_of_the_dense_twin(
        self, noise: NoiseModel | None, n_qubits: int
    ) -> None:
        rng = np.random.default_rng([SEED, 15 + n_qubits])
        circuit = gradient_circuit(n_qubits, noise)
        hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 16), rng)
        energy, gradient = self.make(noise).expectation_and_gradient(circuit, hamiltonian)
        assert gradient.shape == (circuit.n_angles,) and gradient.dtype == np.float64
        assert abs(energy - dense_expectation(circuit, hamiltonian, noise)) < self.tolerance
        expected = shifted_gradient(circuit, hamiltonian, noise)
        assert np.abs(expected).max() > 1e-3, "the instance must be able to fail"
        assert np.abs(gradient - expected).max() < self.tolerance

    @pytest.mark.parametrize("n_qubits", [1, 3])
    def test_terms_equal_single_string_expectations(self, noise: NoiseModel | None, n_qubits: int) -> None:
        rng = np.random.default_rng([SEED, 20 + n_qubits])
        circuit = covering_circuit(n_qubits, 0, noise, rng)
        hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 24), rng)
        simulator = self.make(noise)
        terms = simulator.term_expectations(circuit, hamiltonian)
        assert terms.shape == (len(hamiltonian),)
        single = [dense_expectation(circuit, Hamiltonian({s: 1.0}), noise) for s in hamiltonian.strings]
        assert np.abs(terms - single).max() < self.tolerance
        assert abs(terms @ hamiltonian.coefficients - simulator.expectation(circuit, hamiltonian)) < 1e-10

    def test_given_angles_replace_the_circuits_own(self, noise: NoiseModel | None) -> None:
        rng = np.random.default_rng([SEED, 30])
        circuit = legal(random_circuit(3, 20, rng), noise, rng)
        hamiltonian = random_hamiltonian(3, 16, rng)
        simulator = self.make(noise)
        angles = rng.uniform(-7, 7, size=circuit.n_angles)
        moved = circuit.with_angles(angles)
        exact = dense_expectation(moved, hamiltonian, noise)
        for given in (angles, angles.tolist(), np.repeat(angles, 2)[::2]):
            assert abs(simulator.expectation(circuit, hamiltonian, given) - exact) < self.tolerance
        terms = simulator.term_expectations(circuit, hamiltonian, angles)
        assert np.abs(terms - simulator.term_expectations(moved, hamiltonian)).max() < self.tolerance
        gradients = [
            simulator.expectation_and_gradient(*c)[1] for c in ((circuit, hamiltonian, angles), (moved, hamiltonian))
        ]
        assert np.abs(gradients[0] - gradients[1]).max() < self.tolerance

    @pytest.mark.parametrize("n_qubits", [1, 2, 4])
    def test_circuits_without_gates_or_without_angles(self, noise: NoiseModel | None, n_qubits: int) -> None:
        rng = np.random.default_rng([SEED, 40 + n_qubits])
        fixed = [name for name, spec in GATES.items() if not spec.n_angles]
        hamiltonian = random_hamiltonian(n_qubits, min(4**n_qubits, 12), rng)
        simulator = self.make(noise)
        for circuit in (Circuit(n_qubits), legal(random_circuit(n_qubits, 9, rng, gates=fixed), noise, rng)):
            exact = dense_expectation(circuit, hamiltonian, noise)
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            assert abs(energy - exact) < self.tolerance
            assert abs(simulator.expectation(circuit, hamiltonian, []) - exact) < self.tolerance
            assert gradient.shape == (0,)

    @pytest.mark.parametrize("string", ["YII", "YXZ", "YYY"])
    def test_hamiltonians_with_y(self, noise: NoiseModel | None, string: str) -> None:
        """Strings with an odd number of Y have imaginary matrix entries, with an even number real ones."""
        circuit = gradient_circuit(3, noise)
        hamiltonian = Hamiltonian({string: 0.7, "ZIZ": -0.2})
        energy, gradient = self.make(noise).expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - dense_expectation(circuit, hamiltonian, noise)) < self.tolerance
        assert np.abs(gradient - shifted_gradient(circuit, hamiltonian, noise)).max() < self.tolerance

    def test_a_constant_is_the_energy_of_everything(self, noise: NoiseModel | None) -> None:
        circuit = Circuit(2, [("rx", 0, 0.3), ("cx", (0, 1))])
        energy, gradient = self.make(noise).expectation_and_gradient(circuit, Hamiltonian({"II": -3.5}))
        assert energy == pytest.approx(-3.5, abs=1e-12)
        assert np.abs(gradient).max() < 1e-12
        assert self.make(noise).term_expectations(circuit, Hamiltonian({"II": -3.5})) == pytest.approx([1.0])

    def test_results_do_not_depend_on_the_history_of_calls(self, noise: NoiseModel | None) -> None:
        rng = np.random.default_rng([SEED, 60])
        cases = [
            (legal(random_circuit(n, 12, rng), noise, rng), random_hamiltonian(n, 4, rng))
            for n in (3, 1, 4, 2, 3, 4, 1, 2, 3, 4)
        ]
        fresh = [self.make(noise).expectation_and_gradient(*case) for case in cases]
        used = self.make(noise)
        for _ in range(2):
            for index in rng.permutation(len(cases)):
                energy, gradient = used.expectation_and_gradient(*cases[index])
                assert energy == fresh[index][0]
                assert np.array_equal(gradient, fresh[index][1])
                assert used.expectation(*cases[index]) == pytest.approx(energy, abs=1e-12)

    def test_results_are_the_callers_own(self) -> None:
        simulator = self.make()
        circuit, hamiltonian = Circuit(2, [("rx", 0, 0.3), ("cx", (0, 1))]), Hamiltonian({"ZZ": 1.0, "IY": 0.3})
        energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
        terms = simulator.term_expectations(circuit, hamiltonian)
        kept = gradient.copy(), terms.copy()
        simulator.expectation_and_gradient(circuit, hamiltonian, [1.4])
        simulator.term_expectations(circuit, hamiltonian, [1.4])
        assert np.array_equal(gradient, kept[0]) and np.array_equal(terms, kept[1])
        gradient[:] = 9.0
        assert simulator.expectation_and_gradient(circuit, hamiltonian)[0] == energy

    @pytest.mark.parametrize("method", ["expectation", "expectation_and_gradient", "term_expectations"])
    def test_bad_input_is_one_line(self, method: str) -> None:
        call = getattr(self.make(), method)
        circuit, hamiltonian = Circuit(2, [("rx", 0, 0.1), ("ry", 1, 0.2)]), Hamiltonian({"ZZ": 1.0})
        bad: list[tuple[tuple, str]] = [
            ((circuit, hamiltonian, [0.1, float("nan")]), "finite"),
            ((circuit, hamiltonian, [float("inf"), 0.1]), "finite"),
            ((circuit, hamiltonian, [0.1]), "2 angles"),
            ((circuit, hamiltonian, [0.1, 0.2, 0.3]), "2 angles"),
            ((circuit, hamiltonian, [[0.1, 0.2]]), "2 angles"),
            ((circuit, Hamiltonian({"ZZZ": 1.0})), "qubits"),
            ((Circuit(1), hamiltonian), "qubits"),
        ]
        for arguments, words in bad:
            with pytest.raises(CircuitError, match=words) as caught:
                call(*arguments)
            assert "\n" not in str(caught.value)

    def test_a_gate_the_device_lacks_is_refused(self) -> None:
        if self.noisy_limit is None:
            pytest.skip("a noise-free engine")
        simulator = self.make(load_noise("ibm-ourense"))
        for circuit, words in [(Circuit(4, [("cx", (0, 3))]), "couples only"), (Circuit(5, [("x", 4)]), "describes 4")]:
            with pytest.raises(CircuitError, match=words) as caught:
                simulator.expectation(circuit, Hamiltonian({"Z" * circuit.n_qubits: 1.0}))
            assert "\n" not in str(caught.value)

    def test_too_many_qubits_are_refused_before_memory_is_taken(self) -> None:
        cases = [(None, 40)] if self.noisy_limit is None else [(load_noise("depolarizing"), 14), (None, 40)]
        for noise, n_qubits in cases:
            with pytest.raises(TooLargeError, match="at most") as caught:
                self.make(noise).expectation(Circuit(n_qubits), Hamiltonian({"Z" * n_qubits: 1.0}))
            assert "\n" not in str(caught.value) and str(n_qubits) in str(caught.value)

    def test_threads_share_one_simulator(self, noise: NoiseModel | None) -> None:
        rng = np.random.default_rng([SEED, 70])
        hamiltonians = [random_hamiltonian(n, 4, rng) for n in (1, 2, 3, 4)]
        cases = []
        for index in range(16):
            n = 1 + index % 4
            cases.append((legal(random_circuit(n, 15, rng), noise, rng), hamiltonians[n - 1]))
        simulator = self.make(noise)
        serial = [simulator.expectation_and_gradient(*case) for case in cases]
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(lambda case: simulator.expectation_and_gradient(*case), cases * 2))
        for (energy, gradient), (other, other_gradient) in zip(serial * 2, parallel, strict=True):
            assert energy == other and np.array_equal(gradient, other_gradient)


class TestAer(SimulatorContract):
    engine = "aer"


class TestPauliTransfer(SimulatorContract):
    engine = "pauli-transfer"


class TestStatevector(SimulatorContract):
    engine = "statevector"
    noisy_limit = None

    @pytest.fixture(params=["none"])
    def noise(self, request: pytest.FixtureRequest) -> NoiseModel | None:
        return build_noise(request.param)

    def test_noise_is_refused(self) -> None:
        with pytest.raises(QasError, match="noise-free") as caught:
            self.make(load_noise("depolarizing"))
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- projectors in the state-vector engine
def _state(n_qubits: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    psi = rng.normal(size=2**n_qubits) + 1j * rng.normal(size=2**n_qubits)
    if kind == "real":
        psi = psi.real.astype(complex)
    elif kind == "zeros":
        psi[rng.random(len(psi)) < 0.5] = 0.0
        psi[0] += 1.0
    elif kind == "basis":
        psi = np.eye(2**n_qubits)[rng.integers(2**n_qubits)].astype(complex)
    elif kind == "ghz":
        psi = np.eye(2**n_qubits)[0] + 1j * np.eye(2**n_qubits)[-1]
    elif kind == "plus":
        psi = np.ones(2**n_qubits, dtype=complex)
    elif kind == "steep":
        psi *= 10.0 ** -np.arange(len(psi)).clip(max=7)
    return psi / np.linalg.norm(psi)


def _taken(hamiltonian: Hamiltonian) -> bool:
    return statevector._projector(*hamiltonian.xor_diagonals)[0] is not None


@pytest.mark.parametrize("kind", ["random", "real", "zeros", "basis", "ghz", "plus", "steep"])
@pytest.mark.parametrize("n_qubits", [1, 2, 3])
def test_energies_and_gradients_of_projectors(n_qubits: int, kind: str) -> None:
    rng = np.random.default_rng([SEED, 100 + n_qubits])
    simulator, circuit = make_simulator(), gradient_circuit(n_qubits, None)
    psi = _state(n_qubits, kind, rng)
    for scale in (-1.0, 1.0, -37.5, 1e-6):
        hamiltonian = Hamiltonian.from_matrix(scale * np.outer(psi, psi.conj()), tolerance=1e-14)
        if kind in ("random", "real", "plus", "steep"):
            assert _taken(hamiltonian)
        exact = scale * np.vdot(psi, psi @ density_matrix(circuit).T).real
        tolerance = 1e-12 * abs(scale)
        assert abs(simulator.expectation(circuit, hamiltonian) - exact) < tolerance
        energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - exact) < tolerance
        expected = shifted_gradient(circuit, hamiltonian, None)
        assert np.abs(gradient - expected).max() < tolerance
        terms = simulator.term_expectations(circuit, hamiltonian)
        assert abs(terms @ hamiltonian.coefficients - energy) < 10 * tolerance


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 6, 8])
def test_target_states_take_the_short_path(n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 110 + n_qubits])
    psi = _state(n_qubits, "random", rng)
    hamiltonian = Hamiltonian.from_matrix(-np.outer(psi, psi.conj()), tolerance=1e-14)
    vector, sign = statevector._projector(*hamiltonian.xor_diagonals)
    assert vector is not None and sign == -1.0
    assert abs(abs(np.vdot(vector, psi)) - 1.0) < 1e-12 and abs(np.linalg.norm(vector) - 1.0) < 1e-12
    circuit = random_circuit(n_qubits, 30, rng)
    simulator = make_simulator()
    state = simulator.state(circuit)  # type: ignore[attr-defined]
    assert abs(simulator.expectation(circuit, hamiltonian) + abs(np.vdot(psi, state)) ** 2) < 1e-12
    found = minimize(simulator.objective(circuit, hamiltonian), np.array(circuit.angles), max_evaluations=30)
    assert abs(found.fun - simulator.expectation(circuit, hamiltonian, found.x)) < 1e-12


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4])
def test_what_is_almost_a_projector_is_none(n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 120 + n_qubits])
    simulator, size = make_simulator(), 2**n_qubits
    psi, phi = (_state(n_qubits, "random", rng) for _ in range(2))
    projector = np.outer(psi, psi.conj())
    circuit = gradient_circuit(n_qubits, None) if n_qubits < 4 else random_circuit(4, 20, rng)
    state = simulator.state(circuit)  # type: ignore[attr-defined]
    others = {
        "shifted": np.eye(size),
        "two states": np.outer(phi, phi.conj()),
        "one entry": np.diag(np.eye(size)[0]),
        "off the diagonal": np.eye(size)[::-1] * 1.0,
    }
    for name, other in others.items():
        for weight in (1.0, -0.9, 1e-3, 1e-6, -1e-9, 1e-11):
            matrix = projector + weight * other
            hamiltonian = Hamiltonian.from_matrix(matrix, tolerance=1e-16)
            # A change of 1e-11 can leave a projector to rounding; its energy is right either way.
            assert not _taken(hamiltonian) or abs(weight) < 1e-10, (name, weight)
            exact = np.vdot(state, matrix @ state).real
            assert abs(simulator.expectation(circuit, hamiltonian) - exact) < 1e-13
    for matrix in (projector * np.where(np.eye(size) > 0, 1, 0), projector.real - 0.1, np.diag(np.arange(size) + 1.0)):
        hamiltonian = Hamiltonian.from_matrix(matrix)
        if np.linalg.matrix_rank(matrix) > 1:
            assert not _taken(hamiltonian)
        assert abs(simulator.expectation(circuit, hamiltonian) - np.vdot(state, matrix @ state).real) < 1e-12


def test_a_projector_that_lacks_entries_is_none() -> None:
    """|v><v| without the entries between two of its states: each permuted diagonal that is there fits."""
    psi = np.array([0.6, 0.5, 0.4, 0.0])
    matrix = np.outer(psi, psi)
    matrix[1, 2] = matrix[2, 1] = 0.0
    hamiltonian = Hamiltonian.from_matrix(matrix)
    assert hamiltonian.xor_diagonals[0].tolist() == [0, 1, 2] and not _taken(hamiltonian)
    circuit = Circuit(2, [("ry", 0, 0.8), ("cx", (0, 1)), ("ry", 1, 1.1)])
    exact = dense_expectation(circuit, hamiltonian, None)
    assert abs(make_simulator().expectation(circuit, hamiltonian) - exact) < 1e-14


def test_small_operators_that_are_no_projectors() -> None:
    for terms in (
        {"I": 0.0},
        {"I": 1.0},
        {"X": 1.0},
        {"Y": -1.0},
        {"Z": 1.0},
        {"I": 0.5, "Z": 0.4},
        {"I": -0.5, "X": 0.4},
    ):
        hamiltonian = Hamiltonian(terms)
        assert not _taken(hamiltonian), terms
        circuit = Circuit(1, [("u", 0, 0.4, 1.2, -0.3)])
        exact = dense_expectation(circuit, hamiltonian, None)
        assert abs(make_simulator().expectation(circuit, hamiltonian) - exact) < 1e-14
    assert _taken(Hamiltonian({"I": 0.5, "Z": -0.5})) and _taken(Hamiltonian({"I": -0.5, "Y": 0.5}))


def test_projectors_and_other_operators_share_one_simulator() -> None:
    rng = np.random.default_rng([SEED, 130])
    simulator, circuit = make_simulator(), random_circuit(3, 20, rng)
    psi = _state(3, "random", rng)
    operators = [
        Hamiltonian.from_matrix(-np.outer(psi, psi.conj())),
        random_hamiltonian(3, 20, rng),
        Hamiltonian.from_matrix(np.outer(psi, psi.conj())),
        Hamiltonian({"ZZZ": 1.0}),
    ]
    expected = [make_simulator().expectation_and_gradient(circuit, h) for h in operators]
    for _ in range(2):
        for h, (energy, gradient) in zip(operators, expected, strict=True):
            found, slope = simulator.expectation_and_gradient(circuit, h)
            assert found == energy and np.array_equal(slope, gradient)
    assert expected[0][0] == pytest.approx(-expected[2][0], abs=1e-14)
    assert not np.allclose(expected[0][1], 0.0)


# ---------------------------------------------------------------------- choosing an engine
def test_every_listed_engine_has_a_contract() -> None:
    assert set(list_engines()) == {cls.engine for cls in SimulatorContract.__subclasses__()}


def test_the_default_engine_follows_the_noise() -> None:
    assert make_simulator().name == "statevector"
    assert make_simulator("none").name == "statevector"
    assert make_simulator("depolarizing").name == "pauli-transfer"
    with pytest.raises(UnknownNameError, match="statevector"):
        make_simulator(engine="statevectr")
    with pytest.raises(UnknownNameError, match="ibm-mumbai"):
        make_simulator("ibm-mumbay")


def test_fourteen_noisy_qubits_name_the_memory_and_the_limit() -> None:
    with pytest.raises(TooLargeError, match=r"at most 12 .*got 14.* 2\.1 GB"):
        make_simulator("depolarizing").expectation(Circuit(14), Hamiltonian({"Z" * 14: 1.0}))


# ---------------------------------------------------------------------- the compiled engines
@pytest.mark.parametrize("n_qubits", [5, 6, 7, 8])
def test_pauli_transfer_without_noise_is_the_state_vector(n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 80, n_qubits])
    pure, mixed = make_simulator(engine="statevector"), make_simulator(engine="pauli-transfer")
    for _ in range(3):
        circuit = random_circuit(n_qubits, 60, rng)
        hamiltonian = random_hamiltonian(n_qubits, 40, rng)
        energy, gradient = pure.expectation_and_gradient(circuit, hamiltonian)
        other, other_gradient = mixed.expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - other) < 1e-11
        assert np.abs(gradient - other_gradient).max() < 1e-11
        terms = pure.term_expectations(circuit, hamiltonian), mixed.term_expectations(circuit, hamiltonian)
        assert np.abs(terms[0] - terms[1]).max() < 1e-11


@pytest.mark.parametrize("kept", [0, 1, 4**3 * 8, 4**3 * 8 * 7])
@pytest.mark.parametrize("n_gates", [0, 1, 2, 3, 7, 16, 17, 31])
def test_recomputed_segments_give_the_same_gradient(monkeypatch: pytest.MonkeyPatch, kept: int, n_gates: int) -> None:
    rng = np.random.default_rng([SEED, 90, n_gates])
    noise = asymmetric_noise()
    circuit, hamiltonian = random_circuit(3, n_gates, rng), random_hamiltonian(3, 30, rng)
    energy, gradient = PauliTransferSimulator(noise).expectation_and_gradient(circuit, hamiltonian)
    monkeypatch.setattr(pauli_transfer, "KEPT_BYTES", kept)
    simulator = PauliTransferSimulator(noise)
    n_ops = len(simulator.program(circuit).ops)
    if n_ops > max(2, kept // (4**3 * 8)):
        assert simulator.segment_length(n_ops, 3) < n_ops, "the instance must be cut"
    other, other_gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
    assert other == pytest.approx(energy, abs=1e-14)
    assert other_gradient == pytest.approx(gradient, abs=1e-13)


@pytest.mark.parametrize("segment", [1, 2, 5, 11, 12, 13])
def test_any_length_of_segment_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch, segment: int) -> None:
    rng = np.random.default_rng([SEED, 95])
    circuit, hamiltonian = random_circuit(2, 12, rng, gates=["rx", "ry", "cx", "h"]), random_hamiltonian(2, 15, rng)
    energy, gradient = PauliTransferSimulator(asymmetric_noise()).expectation_and_gradient(circuit, hamiltonian)
    monkeypatch.setattr(PauliTransferSimulator, "segment_length", lambda self, n_ops, n_qubits: segment)
    other, other_gradient = PauliTransferSimulator(asymmetric_noise()).expectation_and_gradient(circuit, hamiltonian)
    assert other == pytest.approx(energy, abs=1e-14)
    assert other_gradient == pytest.approx(gradient, abs=1e-13)


def test_pauli_expectations_are_all_single_string_energies() -> None:
    rng = np.random.default_rng([SEED, 97])
    noise = asymmetric_noise()
    circuit = covering_circuit(2, 3, noise, rng)
    rho = density_matrix(circuit, noise)
    vector = PauliTransferSimulator(noise).pauli_expectations(circuit)
    for index, value in enumerate(vector):
        string = "IXYZ"[index // 4] + "IXYZ"[index % 4]
        assert abs(value - np.trace(Hamiltonian({string: 1.0}).to_matrix() @ rho).real) < 1e-12


def _warm(simulator: CompiledSimulator, circuit: Circuit, hamiltonian: Hamiltonian) -> None:
    simulator.expectation(circuit, hamiltonian)
    simulator.expectation(circuit, hamiltonian, np.array(circuit.angles))
    simulator.expectation_and_gradient(circuit, hamiltonian)
    simulator.expectation_and_gradient(circuit, hamiltonian, np.array(circuit.angles))
    simulator.term_expectations(circuit, hamiltonian)
    simulator.objective(circuit, hamiltonian).minimize_compiled(np.array(circuit.angles), 5, 1e-9)  # type: ignore[attr-defined]


@pytest.mark.parametrize("noise", [None, asymmetric_noise()], ids=["statevector", "pauli-transfer"])
def test_new_architectures_compile_nothing(noise: NoiseModel | None) -> None:
    rng = np.random.default_rng([SEED, 98])
    simulator = make_simulator(noise)
    assert isinstance(simulator, CompiledSimulator)
    module = _sv_kernels if noise is None else _ptm_kernels
    kernels: list[Callable] = [value for value in vars(module).values() if hasattr(value, "signatures")]
    kernels.append(bfgs.bfgs)

    def count() -> list[int]:
        return [len(kernel.signatures) for kernel in kernels]  # type: ignore[attr-defined]

    _warm(simulator, random_circuit(3, 4, rng, gates=["rx", "cx"]), Hamiltonian({"ZZZ": 1.0}))
    before = count()
    assert sum(before) > 0
    for index in range(50):
        n_qubits = 1 + index % 4
        circuit = random_circuit(n_qubits, int(rng.integers(0, 25)), rng)
        hamiltonian = random_hamiltonian(n_qubits, 4, rng)
        simulator.expectation(circuit, hamiltonian)
        simulator.expectation_and_gradient(circuit, hamiltonian, np.array(circuit.angles))
        if circuit.n_angles:
            simulator.objective(circuit, hamiltonian).minimize_compiled(np.array(circuit.angles), 3, 1e-9)  # type: ignore[attr-defined]
    assert count() == before


_RACE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from qas.noise import NoiseModel
from qas.simulators import make_simulator
from qas.testing import random_circuit, random_hamiltonian

rng = np.random.default_rng(5)
noise = NoiseModel.depolarizing(0.01, 0.02) if sys.argv[1] == "pauli-transfer" else None
hamiltonian = random_hamiltonian(4, 30, rng)
circuits = [random_circuit(4, 25, rng) for _ in range(60)]
serial = [make_simulator(noise).expectation(c, hamiltonian) for c in circuits]
sys.setswitchinterval(1e-6)  # threads change places as often as they can
for _ in range(5):
    simulator = make_simulator(noise)
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda c: simulator.expectation(c, hamiltonian), circuits))
    assert np.abs(np.array(parallel) - serial).max() < 1e-12
"""


@pytest.mark.parametrize("engine", ["statevector", "pauli-transfer"])
def test_gates_may_join_the_library_while_other_threads_compute(engine: str) -> None:
    """In a process of its own: what goes wrong here can end the process."""
    done = subprocess.run([sys.executable, "-c", _RACE, engine], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
