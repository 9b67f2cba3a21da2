"""The network that extrapolates: trained on circuits like its own, with true derivatives, better than a line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import qas
from qas.circuits import Circuit
from qas.errors import QasError
from qas.mitigation import Linear, read_mitigation
from qas.mitigation.folding import folded
from qas.mitigation.learned import Examples, Learned, examples_of, near_clifford
from qas.simulators import make_simulator

NODES = (1.0, 3.0, 5.0)
NOISE = qas.NoiseModel.depolarizing(1e-3, 2e-2).add_readout(0.03, 0.06)
CIRCUIT = Circuit(
    3,
    [("ry", q, 0.4 + q) for q in range(3)]
    + [("cx", (0, 1)), ("rz", 1, -0.9), ("cx", (1, 2)), ("ry", 2, 0.8), ("cx", (0, 1)), ("ry", 1, 1.3), ("rx", 0, 0.5)],
)
PROBLEM = qas.load_problem("heisenberg-3")


def test_training_circuits_are_near_clifford_and_near_the_circuit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = near_clifford(CIRCUIT, rng, free=2)
        assert [(g.name, g.qubits) for g in drawn] == [(g.name, g.qubits) for g in CIRCUIT]
        quarters = np.array(drawn.angles) / (np.pi / 2)
        assert (np.abs(quarters - np.round(quarters)) > 1e-9).sum() <= 2
        assert np.abs(quarters - np.array(CIRCUIT.angles) / (np.pi / 2)).max() < 1.6 + 0.6
    assert near_clifford(Circuit(2, [("h", 0)]), rng) == Circuit(2, [("h", 0)])


def test_trained_networks_beat_the_line_on_their_circuits() -> None:
    rng, off = np.random.default_rng(5), {"linear": [], "learned": []}
    for _ in range(2):
        circuit = CIRCUIT.with_angles(rng.normal(size=CIRCUIT.n_angles))
        for fit, errors in off.items():
            report = qas.evaluate(circuit, PROBLEM, noise=NOISE, mitigate=f"readout,zne:fit={fit}")
            errors.append(report.mitigated.energy - report.noise_free_energy)
    assert np.linalg.norm(off["learned"]) < np.linalg.norm(off["linear"]) / 2
    again = qas.evaluate(circuit, PROBLEM, noise=NOISE, mitigate="readout,zne:fit=learned")
    assert again.mitigated == report.mitigated  # the seed fixes the training


def test_derivatives_and_standard_error() -> None:
    simulator = make_simulator(replace(NOISE, readout={}))
    rng = np.random.default_rng(1)

    def measure(circuit: Circuit, scale: float) -> float:
        return simulator.expectation(folded(circuit, scale), PROBLEM.hamiltonian)

    examples = examples_of(CIRCUIT, PROBLEM.hamiltonian, NODES, measure, rng, 60)
    way = Learned().train(NODES, examples, spread=1e-3)
    values = np.array([measure(CIRCUIT, node) for node in NODES])
    found = way(NODES, values, (1e-3, 2e-3, 1e-3))
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        slope = (way(NODES, values + step).value - way(NODES, values - step).value) / 2e-5
        assert found.weights[k] == pytest.approx(slope, abs=1e-6)
    assert found.standard_error == pytest.approx(np.linalg.norm(found.weights * (1e-3, 2e-3, 1e-3)))


def test_a_network_learns_what_is_linear_exactly_enough() -> None:
    rng = np.random.default_rng(2)
    exact = rng.normal(size=200)
    values = exact[:, None] * (1 - 0.05 * np.array(NODES)) + 0.1
    way = Learned().train(NODES, Examples(values, exact))
    assert way(NODES, values[0]).value == pytest.approx(exact[0], abs=0.1)
    assert Linear()(NODES, values[0]).value == pytest.approx(exact[0] + 0.1)


def test_on_a_backend_it_is_trained_on_what_is_known_of_its_noise() -> None:
    noise = replace(NOISE, readout={})
    report = qas.evaluate(CIRCUIT, PROBLEM, noise=noise, backend="aer", mitigate="zne:fit=learned", shots=300_000)
    exact = qas.evaluate(CIRCUIT, PROBLEM, noise=noise, mitigate="zne:fit=learned")
    assert report.mitigated.recipe.startswith("zne:fit=learned")
    tolerance = 5 * report.mitigated.standard_error + abs(exact.energy - exact.noise_free_energy) / 5
    assert report.mitigated.energy == pytest.approx(exact.noise_free_energy, abs=tolerance)


def test_bad_input() -> None:
    few = Examples(np.zeros((3, 3)), np.zeros(3))
    with pytest.raises(QasError, match="10 finite examples"):
        Learned().train(NODES, few)
    with pytest.raises(QasError, match="trained before it is used"):
        Learned()(NODES, (1.0, 2.0, 3.0))
    with pytest.raises(QasError, match="symmetry or fit=learned"):
        read_mitigation("symmetry,zne:fit=learned")
    way = Learned().train(NODES, Examples(np.random.default_rng(0).normal(size=(20, 3)), np.zeros(20)))
    with pytest.raises(QasError, match="trained at the nodes"):
        way((1.0, 3.0), (1.0, 2.0))
