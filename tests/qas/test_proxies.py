"""Training-free proxies against enumeration, closed forms and direct computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.problems import Problem, problem, tfim
from qas.proxies import (
    BINS,
    expressibility,
    haar_divergence,
    landscape_fluctuation,
    relative_fluctuation,
)
from qas.simulators.dense import circuit_matrix
from qas.testing import random_circuit


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------- expressibility
def test_haar_random_states_are_close_to_haar() -> None:
    for n in (1, 2, 4):
        states = rng(1).normal(size=(400, 2**n, 2)) @ np.array([1, 1j])
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        fidelities = np.abs(states @ states.conj().T) ** 2
        assert 0 <= haar_divergence(fidelities[np.triu_indices(400, 1)], n) < 0.01


@pytest.mark.parametrize("n", [1, 3, 8, 20])
def test_circuits_without_angles_are_farthest_from_haar(n: int) -> None:
    expected = (2.0**n - 1) * math.log(BINS)
    assert expressibility(Circuit(n), rng()) == pytest.approx(expected, rel=1e-12)
    assert expressibility(Circuit(n, [("h", 0)]), rng()) == pytest.approx(expected, rel=1e-12)


def test_an_angle_that_changes_no_state_is_idle() -> None:
    assert expressibility(Circuit(2, [("rz", 0, 0.0)]), rng()) == pytest.approx(3 * math.log(BINS))


def test_one_rotation_in_closed_form() -> None:
    """|<ψ|φ>|² = cos²(Δ/2) has an arcsine distribution; Haar is uniform on one qubit."""
    edges = np.linspace(0, 1, BINS + 1)
    share = np.diff(2 / math.pi * np.arcsin(np.sqrt(edges)))
    expected = float(np.sum(share * np.log(share * BINS)))
    assert 0.19 < expected < math.log(4 / math.pi), "the limit of many bins is ln(4/pi)"
    for name in ("rx", "ry"):
        found = expressibility(Circuit(1, [(name, 0, 0.0)]), rng(2), samples=1500)
        assert found == pytest.approx(expected, abs=0.02)


def test_two_rotations_in_closed_form() -> None:
    """rx then rz: F = (1 + cos α cos β + sin α sin β cos γ)/2 with three independent uniform angles."""
    alpha, beta, gamma = rng(3).uniform(0, 2 * math.pi, (3, 400_000))
    fidelity = (1 + np.cos(alpha) * np.cos(beta) + np.sin(alpha) * np.sin(beta) * np.cos(gamma)) / 2
    found = expressibility(Circuit(1, [("rx", 0, 0.0), ("rz", 0, 0.0)]), rng(4), samples=1500)
    assert found == pytest.approx(haar_divergence(fidelity, 1), abs=0.01)


def test_more_gates_are_more_expressive() -> None:
    layer = [("rx", 0, 0.0), ("rz", 0, 0.0), ("rx", 1, 0.0), ("rz", 1, 0.0), ("cx", (0, 1))]
    values = [expressibility(Circuit(2, layer[:k]), rng(5)) for k in (1, 2, 4)] + [
        expressibility(Circuit(2, layer * 4), rng(5))
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.05


def test_expressibility_ignores_angles_and_is_deterministic() -> None:
    circuit = random_circuit(3, 8, rng(6), ("rx", "ry", "cx"))
    values = {expressibility(c, rng(7)) for c in (circuit, circuit.with_angles(np.ones(circuit.n_angles)))}
    assert len(values) == 1


def test_haar_divergence_against_an_integral() -> None:
    """Bin shares of a fidelity that is 0 or 1: log of the integral of the density (N-1)(1-F)^(N-2)."""
    for n, where, power in [(2, 0.0, 3), (3, 0.0, 7), (2, 1.0, 3)]:
        low = 0.0 if where == 0.0 else 9 / 10
        steps = low + (np.arange(100_000) + 0.5) / 1e6
        mass = float(np.sum(power * (1 - steps) ** (power - 1)) / 1e6)
        assert haar_divergence(np.array([where]), n, bins=10) == pytest.approx(-math.log(mass), rel=1e-6)


def test_expressibility_errors() -> None:
    with pytest.raises(QasError, match="at least 2 states, got 1"):
        expressibility(Circuit(1, [("rx", 0, 0.0)]), rng(), samples=1)
    for values in ([], [1.1], [-0.1], [math.nan]):
        with pytest.raises(QasError, match=r"fidelities lie in \[0, 1\]"):
            haar_divergence(np.array(values), 1)
    with pytest.raises(QasError, match="at least 2 bins"):
        haar_divergence(np.ones(1), 1, bins=1)


# ---------------------------------------------------------------------- fluctuations
def test_fluctuation_against_direct_computation() -> None:
    target = tfim(3)
    circuit = random_circuit(3, 9, rng(8), ("rx", "ry", "u", "cx"))
    matrix = target.hamiltonian.to_matrix()
    draws = rng(9).uniform(0, 2 * math.pi, (50, circuit.n_angles))
    energies = []
    for row in draws:
        state = circuit_matrix(circuit.with_angles(row))[:, 0]
        energies.append((state.conj() @ matrix @ state).real)
    expected = np.std(energies, ddof=1) / 6
    assert landscape_fluctuation(circuit, target, rng(9), 50) == pytest.approx(expected, rel=1e-10)
    relative = relative_fluctuation(circuit, target, rng(9), 50)
    assert relative == pytest.approx(math.sqrt(2 * circuit.n_angles) * expected, rel=1e-10)


def test_fluctuation_in_closed_form() -> None:
    """Σ Z_i behind one rx on each of M qubits is the standard landscape Σ cos θ_i: relative fluctuation 1."""
    target = problem({"ZII": 1.0, "IZI": 1.0, "IIZ": 1.0})
    circuit = Circuit(3, [("rx", q, 0.0) for q in range(3)])
    assert landscape_fluctuation(circuit, target, rng(10), 4000) == pytest.approx(1 / math.sqrt(6), rel=0.05)
    assert relative_fluctuation(circuit, target, rng(10), 4000) == pytest.approx(1, rel=0.05)


def test_fluctuation_leaves_out_the_identity_and_the_scale() -> None:
    circuit = random_circuit(2, 6, rng(11), ("rx", "ry", "cx"))
    values = [
        relative_fluctuation(circuit, problem({"II": shift, "ZZ": scale, "XI": scale}), rng(12), 20)
        for shift, scale in [(0.0, 1.0), (100.0, 1.0), (-3.0, 0.01)]
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


def test_flat_landscapes() -> None:
    target = tfim(2)
    assert relative_fluctuation(Circuit(2, [("h", 0)]), target, rng()) == 0
    assert landscape_fluctuation(Circuit(2, [("rz", 0, 0.0)]), target, rng()) == pytest.approx(0, abs=1e-12)


def test_fluctuation_errors() -> None:
    circuit = Circuit(2, [("rx", 0, 0.0)])
    with pytest.raises(CircuitError, match="the circuit has 2 qubits but the problem has 3"):
        relative_fluctuation(circuit, tfim(3), rng())
    with pytest.raises(QasError, match="at least 2 energies, got 1"):
        relative_fluctuation(circuit, tfim(2), rng(), 1)
    flat: Problem = problem({"II": 2.0}, threshold=1.0)
    with pytest.raises(QasError, match="multiple of the identity"):
        relative_fluctuation(circuit, flat, rng())
