"""Every engine keeps the contract; and what only the compiled engines promise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.mitigation import make_objective
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    NoiseModel,
    amplitude_damping,
    depolarizing,
    thermal_relaxation,
)
from qas.optimizers import bfgs, minimize
from qas.simulators import (
    ENGINES,
    Simulator,
    _ptm_program,
    _sv_kernels,
    list_engines,
    make_simulator,
    pauli_transfer,
    statevector,
)
from qas.simulators.compiled import CompiledSimulator
from qas.simulators.dense import circuit_matrix, dense_expectation, density_matrix
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.simulators.statevector import StatevectorSimulator
from qas.testing import SimulatorContract, random_circuit, random_hamiltonian
from qas.testing.simulators import asymmetric_noise, covering_circuit, random_kraus, shifted_gradient

SEED = 402_118_377


# ---------------------------------------------------------------------- the contract
class TestEngines(SimulatorContract):
    """Every registered engine."""

    @pytest.fixture(params=list(ENGINES))
    def subject(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def test_only_the_state_vector_refuses_noise(self, subject: str, simulators: list[Simulator]) -> None:
        assert len(simulators) == (1 if subject == "statevector" else 3)
        assert list_engines()[subject] and simulators[0].name == subject


def test_engines_that_are_none_are_refused() -> None:
    for engine, noise, words in (
        (3, None, "got int"),
        (Circuit, None, "got Circuit"),
        (make_simulator("depolarizing"), "ibm-mumbai", "ibm-mumbai"),
        ("statevector", "depolarizing", "noise-free"),
    ):
        with pytest.raises(QasError, match=words) as caught:
            make_simulator(noise, engine)  # type: ignore[arg-type]
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
@pytest.mark.parametrize("n_qubits", [1, 3])
def test_energies_and_gradients_of_projectors(n_qubits: int, kind: str) -> None:
    rng = np.random.default_rng([SEED, 100 + n_qubits])
    simulator, circuit = make_simulator(), covering_circuit(n_qubits, 0, None, rng)
    psi = _state(n_qubits, kind, rng)
    for scale in (-1.0, 37.5, 1e-6):
        hamiltonian = Hamiltonian.from_matrix(scale * np.outer(psi, psi.conj()), tolerance=1e-14)
        if kind in ("random", "real", "plus", "steep"):
            assert _taken(hamiltonian)
        exact = scale * np.vdot(psi, psi @ density_matrix(circuit).T).real
        tolerance = 1e-12 * abs(scale)
        assert abs(simulator.expectation(circuit, hamiltonian) - exact) < tolerance
        energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - exact) < tolerance
        expected = shifted_gradient(simulator, circuit, hamiltonian)
        assert np.abs(gradient - expected).max() < tolerance
        terms = simulator.term_expectations(circuit, hamiltonian)
        assert abs(terms @ hamiltonian.coefficients - energy) < 10 * tolerance


@pytest.mark.parametrize("n_qubits", [1, 3, 6])
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


@pytest.mark.parametrize("n_qubits", [1, 3])
def test_what_is_almost_a_projector_is_none(n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 120 + n_qubits])
    simulator, size = make_simulator(), 2**n_qubits
    psi, phi = (_state(n_qubits, "random", rng) for _ in range(2))
    projector = np.outer(psi, psi.conj())
    circuit = covering_circuit(n_qubits, 0, None, rng)
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
def test_the_default_engine_follows_the_noise() -> None:
    assert make_simulator().name == "statevector"
    assert make_simulator("none").name == "statevector"
    assert make_simulator("depolarizing").name == "pauli-transfer"
    with pytest.raises(UnknownNameError, match="statevector"):
        make_simulator(engine="statevectr")
    with pytest.raises(UnknownNameError, match="ibm-mumbai"):
        make_simulator("ibm-mumbay")


def test_fourteen_noisy_qubits_name_the_memory_and_the_limit() -> None:
    with pytest.raises(TooLargeError, match=r"at most 13 .*got 14.* 2\.1 GB"):
        make_simulator("depolarizing").expectation(Circuit(14), Hamiltonian({"Z" * 14: 1.0}))


# ---------------------------------------------------------------------- the compiled engines
@pytest.mark.parametrize("n_qubits", [5, 8])
def test_pauli_transfer_without_noise_is_the_state_vector(n_qubits: int) -> None:
    rng = np.random.default_rng([SEED, 80, n_qubits])
    pure, mixed = make_simulator(engine="statevector"), make_simulator(engine="pauli-transfer")
    for _ in range(2):
        circuit = random_circuit(n_qubits, 60, rng)
        hamiltonian = random_hamiltonian(n_qubits, 40, rng)
        energy, gradient = pure.expectation_and_gradient(circuit, hamiltonian)
        other, other_gradient = mixed.expectation_and_gradient(circuit, hamiltonian)
        assert abs(energy - other) < 1e-11
        assert np.abs(gradient - other_gradient).max() < 1e-11
        terms = pure.term_expectations(circuit, hamiltonian), mixed.term_expectations(circuit, hamiltonian)
        assert np.abs(terms[0] - terms[1]).max() < 1e-11


def _noises(rng: np.random.Generator) -> list[NoiseModel]:
    """Noise of every shape: products, factors before and after, no product, and noise that cannot be undone."""
    mixed = random_kraus(2, 0.2, rng)
    thermal = thermal_relaxation(50e-6, 70e-6, 2e-6)
    both = NoiseModel("both orders").add(depolarizing(0.02, 2), TWO_QUBIT_GATES).add(thermal, TWO_QUBIT_GATES)
    return [
        both.add(thermal, ONE_QUBIT_GATES),
        NoiseModel("relaxed first").add(thermal, TWO_QUBIT_GATES).add(depolarizing(0.02, 2), TWO_QUBIT_GATES),
        NoiseModel("no product").add(mixed, TWO_QUBIT_GATES).add(random_kraus(1, 0.1, rng), ONE_QUBIT_GATES),
        NoiseModel.depolarizing(0.3, 0.5),
        NoiseModel.depolarizing(1.0, 1.0),
        NoiseModel("reset").add(thermal_relaxation(1.0, 1.0, 1e3), ("rx", "h", "cx", "rzz")),
        asymmetric_noise(),
    ]


@pytest.mark.parametrize(("n_qubits", "stored"), [(1, 6), (2, 0), (3, 0), (4, 0), (4, 3), (4, 6), (5, 0)])
def test_states_that_are_kept_or_undone_give_the_dense_gradient(
    monkeypatch: pytest.MonkeyPatch, n_qubits: int, stored: int
) -> None:
    monkeypatch.setattr(pauli_transfer, "STORED_QUBITS", stored)
    rng = np.random.default_rng([SEED, 90, n_qubits])
    for noise in _noises(rng):
        simulator = PauliTransferSimulator(noise)
        for n_gates in (0, 1, 25):
            circuit = random_circuit(n_qubits, n_gates, rng)
            hamiltonian = random_hamiltonian(n_qubits, min(20, 4**n_qubits), rng)
            energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
            exact = dense_expectation(circuit, hamiltonian, noise)
            assert abs(energy - exact) < 1e-11, noise.name
            assert abs(simulator.expectation(circuit, hamiltonian) - exact) < 1e-11, noise.name
            if circuit.n_angles:
                assert np.abs(gradient - shifted_gradient(simulator, circuit, hamiltonian)).max() < 1e-11, noise.name


def test_undone_states_of_larger_registers_give_the_gradient_of_kept_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([SEED, 91])
    for noise in (*_noises(rng)[:5], NoiseModel.depolarizing(0.1, 0.2)):
        circuit, hamiltonian = random_circuit(7, 120, rng), random_hamiltonian(7, 60, rng)
        found = []
        for stored in (12, 0):
            monkeypatch.setattr(pauli_transfer, "STORED_QUBITS", stored)
            found.append(PauliTransferSimulator(noise).expectation_and_gradient(circuit, hamiltonian))
        assert found[1][0] == pytest.approx(found[0][0], abs=1e-13)
        assert np.abs(found[1][1] - found[0][1]).max() < 1e-10, noise.name


def test_long_chains_of_lossy_gates_on_one_qubit() -> None:
    noise = NoiseModel.depolarizing(0.6, 0.0)
    circuit = Circuit(2, [("ry", 0, 0.2)] + [("ry", 0, 0.01), ("rx", 0, 0.02)] * 12 + [("cx", (0, 1))])
    simulator, hamiltonian = PauliTransferSimulator(noise), Hamiltonian({"ZZ": 1e8, "XI": 1.0})
    gradient = simulator.expectation_and_gradient(circuit, hamiltonian)[1]
    exact = shifted_gradient(simulator, circuit, hamiltonian)
    assert gradient == pytest.approx(exact, rel=1e-9, abs=1e-11)


def _damped() -> NoiseModel:
    return NoiseModel("damped").add(amplitude_damping(1.0), ONE_QUBIT_GATES).add(depolarizing(0.01, 2), TWO_QUBIT_GATES)


@pytest.mark.parametrize(
    "noise", [NoiseModel.depolarizing(0.001, 0.01), NoiseModel.depolarizing(1.0, 0.1), _damped()], ids=lambda n: n.name
)
@pytest.mark.parametrize(("n_qubits", "megabytes"), [(10, 150), (12, 1500)])
def test_a_gradient_needs_little_memory(n_qubits: int, megabytes: int, noise: NoiseModel) -> None:
    circuit = random_circuit(n_qubits, 200, np.random.default_rng(3))
    simulator = PauliTransferSimulator(noise)
    header = simulator.compiled(circuit).program.steps[0]
    columns = _ptm_program.HOME_SIZE, _ptm_program.KET_SIZE, _ptm_program.SLOTS_SIZE
    assert 8 * sum(header[column] for column in columns) <= simulator.gradient_bytes(n_qubits) < 1e6 * megabytes


def test_states_calculated_again_give_the_gradient_of_kept_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([SEED, 94])
    pieces = []
    for noise in (NoiseModel.depolarizing(0.1, 1.0, per_qubit=True), NoiseModel.depolarizing(1.0, 0.1), _damped()):
        for n_qubits, states in ((2, 3), (4, 4), (5, 3), (5, 6), (6, 9)):
            circuit, hamiltonian = random_circuit(n_qubits, 40, rng), random_hamiltonian(n_qubits, 3, rng)
            kept, slopes = PauliTransferSimulator(noise).expectation_and_gradient(circuit, hamiltonian)
            with monkeypatch.context() as patch:
                patch.setattr(pauli_transfer, "GRADIENT_BYTES", 8 * states * 4 ** max(4, n_qubits))
                patch.setattr(pauli_transfer, "GRADIENT_STATES", 0)
                simulator = PauliTransferSimulator(noise)
                again = Circuit(n_qubits, circuit.gates)
                energy, gradient = simulator.expectation_and_gradient(again, hamiltonian)
                pieces.append(len(simulator.compiled(again).program.actions))
            assert energy == pytest.approx(kept, abs=1e-13)
            assert np.abs(gradient - slopes).max() < 1e-12
    assert sum(count > 2 for count in pieces) > 10 and max(pieces) > 50


def test_single_precision_keeps_what_it_states() -> None:
    """In one test: its kernels are compiled nowhere else."""
    rng = np.random.default_rng([SEED, 92])
    for noise in (*_noises(rng)[:3], NoiseModel.depolarizing(0.001, 0.01)):
        for n_qubits, n_gates in ((2, 30), (5, 100), (7, 200)):
            circuit, hamiltonian = random_circuit(n_qubits, n_gates, rng), random_hamiltonian(n_qubits, 15, rng)
            single = make_simulator(noise, "pauli-transfer:precision=single")
            scale = single.resolution * np.abs(hamiltonian.coefficients).sum()
            assert scale > 0.0
            energy, gradient = make_simulator(noise).expectation_and_gradient(circuit, hamiltonian)
            found, slopes = single.expectation_and_gradient(circuit, hamiltonian)
            assert 0.0 < abs(found - energy) < scale
            assert np.abs(slopes - gradient).max() < scale
    noise = asymmetric_noise(5)
    circuit, hamiltonian = random_circuit(5, 30, rng), random_hamiltonian(5, 20, rng)
    single, double = PauliTransferSimulator(noise, precision="single"), PauliTransferSimulator(noise)
    scale = single.resolution * np.abs(hamiltonian.coefficients).sum()
    slopes, exact = (s.insertion_gradients(circuit, hamiltonian) for s in (single, double))
    assert 0.0 < np.abs(slopes - exact).max() < scale
    gains, exact = (s.append_gains(circuit, hamiltonian)[0] for s in (single, double))
    np.testing.assert_allclose(gains, exact, atol=2 * scale)
    noise = NoiseModel.depolarizing(0.001, 0.01).add_readout(0.03, 0.01)
    engines = make_simulator(noise, "pauli-transfer:precision=single"), make_simulator(noise)
    for text in ("readout:shots=500,kappa=2", "zne:nodes=1-2-4,shots=500,kappa=2"):
        scores: list[Any] = [make_objective(text).simulator(engine) for engine in engines]
        (found, slopes), (score, exact) = (s.expectation_and_gradient(circuit, hamiltonian) for s in scores)
        assert 0.0 < abs(found - score) < 10 * scale and np.abs(slopes - exact).max() < 100 * scale
    objective = single.objective(circuit, hamiltonian)
    with pytest.raises(QasError, match="the tolerance is at least the engine's resolution"):
        minimize(objective, circuit.angles, tolerance=1e-9)
    with pytest.raises(QasError, match="precision is one of double, single, got 'half'"):
        make_simulator(noise, "pauli-transfer:precision=half")


def test_a_gradient_that_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauli_transfer, "memory_limit", lambda: 3 * 4**8 * 8)
    circuit, hamiltonian = random_circuit(8, 200, np.random.default_rng(0)), Hamiltonian({"Z" * 8: 1.0})
    simulator = make_simulator(NoiseModel.depolarizing(0.1, 1.0))  # nothing of it can be undone
    with pytest.raises(TooLargeError, match=r"8 noisy qubits keeps .* GB of states, this machine has") as caught:
        simulator.expectation_and_gradient(circuit, hamiltonian)
    assert "\n" not in str(caught.value)


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
    module = _sv_kernels if noise is None else _ptm_program
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
hamiltonian = random_hamiltonian(4, 30, rng)
circuits = [random_circuit(4, 25, rng) for _ in range(60)]
for noise in (None, NoiseModel.depolarizing(0.01, 0.02)):
    sys.setswitchinterval(5e-3)
    serial = [make_simulator(noise).expectation(c, hamiltonian) for c in circuits]
    sys.setswitchinterval(1e-6)  # threads change places as often as they can
    for _ in range(5):
        simulator = make_simulator(noise)
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(lambda c: simulator.expectation(c, hamiltonian), circuits))
        assert np.abs(np.array(parallel) - serial).max() < 1e-12
"""


def test_gates_may_join_the_library_while_other_threads_compute() -> None:
    """In a process of its own: what goes wrong here can end the process."""
    done = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("noise", [None, asymmetric_noise()], ids=["statevector", "pauli-transfer"])
def test_circuits_grown_gate_by_gate_are_those_built_at_once(noise: NoiseModel | None) -> None:
    """Two engines take turns, and two circuits grow side by side: what one leaves on a circuit does not mislead."""
    rng = np.random.default_rng([SEED, 99])
    simulator, free = make_simulator(noise), StatevectorSimulator()
    hamiltonian = random_hamiltonian(3, 6, rng)
    whole = [random_circuit(3, 12, rng, gates=["rx", "u", "cx", "h", "rzz", "ry"]) for _ in range(2)]
    grown = [Circuit(3), Circuit(3)]
    for k in range(12):
        for one in (0, 1):
            grown[one] = grown[one].extended(whole[one][k])
            built = Circuit(3, whole[one].gates[: k + 1])
            expected = simulator.expectation_and_gradient(built, hamiltonian)
            found = simulator.expectation_and_gradient(grown[one], hamiltonian)
            assert found[0] == expected[0] and (found[1] == expected[1]).all()
            for angles in (built.angles, built.angles + 1.0):  # the second in the call of the first
                there = circuit_matrix(built.with_angles(angles))[:, 0]
                assert abs(np.vdot(free.state(grown[one], angles), there)) == pytest.approx(1.0)
            grown[one] = grown[one].with_angles(grown[one].angles)
    assert [circuit.gates for circuit in grown] == [circuit.gates for circuit in whole]
