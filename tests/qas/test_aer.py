"""The Aer engine against dense matrices, and its sampler against the exact readout algebra."""

from __future__ import annotations

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, load_noise
from qas.simulators.aer import AerSimulator
from qas.simulators.dense import dense_expectation
from qas.testing import random_circuit, random_hamiltonian

SEED = 715_233_904


def noisy_readout() -> NoiseModel:
    """Gate noise and a different, asymmetric flip on every qubit."""
    model = NoiseModel.depolarizing(0.01, 0.05)
    for qubit in range(4):
        model = model.add_readout(0.01 + 0.03 * qubit, 0.08 - 0.01 * qubit, [qubit])
    return model


def test_every_parametrized_gate_has_the_exact_gradient() -> None:
    rng = np.random.default_rng(SEED)
    noise = noisy_readout()
    start = [("h", 0), ("h", 1), ("u", 2, 0.3, 0.8, -0.4), ("rx", 0, 0.4), ("ry", 1, 1.1), ("rz", 2, -0.7)]
    circuit = Circuit(3, start)
    for name, angle in [("rxx", 0.6), ("ryy", -1.2), ("rzz", 0.9)]:
        circuit = circuit.append(name, (0, 2), angle).append("cx", (2, 1)).append("u", 0, 0.2, 1.3, 2.4)
    hamiltonian = random_hamiltonian(3, 30, rng)
    for model in (None, noise):
        value, gradient = AerSimulator(model).expectation_and_gradient(circuit, hamiltonian)
        assert value == pytest.approx(dense_expectation(circuit, hamiltonian, model), abs=1e-10)
        step = 1e-5
        for k in range(circuit.n_angles):
            shifted = [circuit.angles + sign * step * np.eye(circuit.n_angles)[k] for sign in (1, -1)]
            up, down = (dense_expectation(circuit.with_angles(a), hamiltonian, model) for a in shifted)
            assert gradient[k] == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_more_than_ten_angles_keep_their_order() -> None:
    circuit = Circuit(2, [("rx", k % 2, 0.1 * k) for k in range(12)] + [("cx", (0, 1)), ("ry", 0, 2.0)])
    hamiltonian = Hamiltonian({"XZ": 0.4, "ZI": 1.0, "YY": -0.3})
    angles = np.random.default_rng(SEED).normal(size=circuit.n_angles)
    exact = dense_expectation(circuit.with_angles(angles), hamiltonian)
    assert AerSimulator().expectation(circuit, hamiltonian, angles) == pytest.approx(exact, abs=1e-10)


def test_noise_changes_the_answer() -> None:
    circuit = Circuit(2, [("h", 0), ("cx", (0, 1))])
    hamiltonian = Hamiltonian({"XX": 1.0})
    noisy = AerSimulator(NoiseModel.depolarizing(0.02, 0.1)).expectation(circuit, hamiltonian)
    assert AerSimulator().expectation(circuit, hamiltonian) == pytest.approx(1.0)
    assert noisy == pytest.approx(0.98 * 0.9, abs=1e-12)


def test_small_values_are_not_cut_to_zero() -> None:
    circuit = Circuit(1, [("ry", 0, 1e-11)])
    assert AerSimulator().expectation(circuit, Hamiltonian({"X": 1.0})) == pytest.approx(1e-11, rel=1e-4)


def test_without_angles_the_gradient_is_empty() -> None:
    value, gradient = AerSimulator().expectation_and_gradient(Circuit(1, [("x", 0)]), Hamiltonian({"Z": 1.0, "I": 3.0}))
    assert value == pytest.approx(2.0)
    assert gradient.shape == (0,)


def test_sampling_agrees_with_the_exact_value_within_five_standard_errors() -> None:
    rng = np.random.default_rng(SEED + 9)
    noise = noisy_readout()
    for model in (None, noise):
        simulator = AerSimulator(model)
        for seed in range(4):
            circuit = random_circuit(3, 10, rng)
            hamiltonian = random_hamiltonian(3, 12, rng)
            estimate, error = simulator.sample(circuit, hamiltonian, 20_000, seed)
            assert abs(estimate - dense_expectation(circuit, hamiltonian, model)) < 5 * error + 1e-12


def test_readout_is_visible_in_the_samples() -> None:
    circuit, hamiltonian = Circuit(2), Hamiltonian({"ZZ": 1.0})
    noise = NoiseModel().add_readout(0.2, 0.05)
    estimate, error = AerSimulator(noise).sample(circuit, hamiltonian, 50_000, 3)
    assert abs(estimate - 0.36) < 5 * error
    assert error == pytest.approx(np.sqrt((1 - 0.36**2) / 50_000), rel=0.02)


def test_standard_error_is_the_spread_of_repeated_estimates() -> None:
    rng = np.random.default_rng(SEED + 2)
    circuit, hamiltonian = random_circuit(2, 8, rng), random_hamiltonian(2, 9, rng)
    simulator = AerSimulator()
    pairs = np.array([simulator.sample(circuit, hamiltonian, 200, seed) for seed in range(150)])
    assert pairs[:, 0].std(ddof=1) == pytest.approx(pairs[:, 1].mean(), rel=5 / np.sqrt(2 * 149))


def test_the_same_seed_gives_the_same_sample_and_the_identity_is_exact() -> None:
    circuit = Circuit(2, [("h", 0), ("ry", 1, 0.7)])
    hamiltonian = Hamiltonian({"II": -70.0, "XZ": 0.3, "ZI": 0.2})
    simulator = AerSimulator()
    assert simulator.sample(circuit, hamiltonian, 100, 4) == simulator.sample(circuit, hamiltonian, 100, 4)
    assert simulator.sample(circuit, hamiltonian, 100, 4) != simulator.sample(circuit, hamiltonian, 100, 5)
    assert simulator.sample(circuit, hamiltonian, 100, 4)[1] < 0.1
    assert simulator.sample(circuit, Hamiltonian({"II": -70.0}), 100, 4) == (-70.0, 0.0)


@pytest.mark.parametrize("shots", [0, 1, 2.5, -3])
def test_sampling_refuses_bad_shot_numbers(shots: float) -> None:
    with pytest.raises(QasError, match="shots"):
        AerSimulator().sample(Circuit(1), Hamiltonian({"Z": 1.0}), shots, 0)  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    hamiltonian = Hamiltonian({"ZZ": 1.0})
    simulator = AerSimulator()
    with pytest.raises(CircuitError, match="finite"):
        simulator.expectation(Circuit(2, [("rx", 0, 0.1)]), hamiltonian, [float("nan")])
    with pytest.raises(CircuitError, match="qubits"):
        simulator.expectation(Circuit(3), hamiltonian)
    with pytest.raises(CircuitError, match="couples only"):
        AerSimulator(load_noise("ibm-ourense")).expectation(Circuit(4, [("cx", (0, 3))]), Hamiltonian({"ZZZZ": 1.0}))
    with pytest.raises(TooLargeError, match="at most"):
        AerSimulator(load_noise("depolarizing")).expectation(Circuit(14), Hamiltonian({"Z" * 14: 1.0}))
