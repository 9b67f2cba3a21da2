"""Several threads at one noisy circuit: the same numbers, and nobody is left waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, amplitude_damping, depolarizing
from qas.optimizers import minimize
from qas.simulators import pauli_transfer, workers
from qas.simulators.interrupt import Interrupted, stop_when
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.testing import random_circuit

NOISES = {
    "undone": NoiseModel.depolarizing(0.01, 0.02),
    "kept": NoiseModel("reset").add(amplitude_damping(1.0), ["rx", "ry"]).add(depolarizing(0.02, 2), ["cx"]),
}


def _ising(n_qubits: int) -> Hamiltonian:
    pairs = {"".join("Z" if q in (k, k + 1) else "I" for q in range(n_qubits)): 1.0 for k in range(n_qubits - 1)}
    return Hamiltonian(pairs | {"".join("X" if q == k else "I" for q in range(n_qubits)): 0.7 for k in range(n_qubits)})


def _use(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(workers, "cores", lambda: count)


def _all_workers_idle() -> bool:
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        if sum(t.name == "qas-worker" for t in threading.enumerate()) == len(workers._idle):
            return True
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("n_qubits", [9, 10])
def test_any_number_of_threads_gives_the_same_bits(n_qubits: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([n_qubits, len(kind)])
    circuit, hamiltonian = random_circuit(n_qubits, 30, rng), _ising(n_qubits)
    monkeypatch.setattr(pauli_transfer, "GRADIENT_STATES", 6)
    monkeypatch.setattr(pauli_transfer, "GRADIENT_BYTES", 0)
    found = []
    for count in (1, 2, 3):
        _use(monkeypatch, count)
        simulator = PauliTransferSimulator(NOISES[kind])
        energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
        vector = simulator.pauli_expectations(circuit)
        found.append((energy, simulator.expectation(circuit, hamiltonian), gradient.tobytes(), vector.tobytes()))
    assert found[0] == found[1] == found[2] and abs(found[0][0]) > 1e-3
    assert _all_workers_idle()


def test_gates_on_a_second_small_group_between_those_of_a_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of groups that threads share and of groups that they do not, in turn."""
    rng = np.random.default_rng(5)
    gates = [g for q in range(8) for g in (("ry", q, rng.normal()), ("cx", (q, q + 1)))]
    for _ in range(8):
        q = int(rng.integers(8))
        gates += [("ry", q, rng.normal()), ("ry", q + 1, 0.2), ("cx", (q, q + 1)), ("rx", 9, 0.3), ("cx", (9, 10))]
    circuit = Circuit(11, [*gates, ("ry", 9, 0.7), ("cx", (8, 9)), ("ry", 8, 0.4)])
    found = []
    for count in (1, 2, 3):
        _use(monkeypatch, count)
        simulator = PauliTransferSimulator(NOISES["undone"])
        found += [simulator.expectation_and_gradient(circuit, _ising(11))[1] for _ in range(2)]
    assert np.ptp(found, axis=0).max() == 0.0 and np.abs(found[0]).max() > 1e-3


def test_a_minimization_in_threads_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    circuit, hamiltonian = random_circuit(9, 25, rng), _ising(9)
    found = []
    for count in (1, 2):
        _use(monkeypatch, count)
        objective = PauliTransferSimulator(NOISES["undone"]).objective(circuit, hamiltonian)
        found.append(minimize(objective, circuit.angles, max_evaluations=12))
    assert found[0].nfev == found[1].nfev > 3
    assert np.array_equal(found[0].x, found[1].x) and found[0].fun == found[1].fun


def test_a_deadline_ends_work_in_threads_and_later_work_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    circuit, hamiltonian = random_circuit(10, 60, rng), _ising(10)
    _use(monkeypatch, 2)
    simulator = PauliTransferSimulator(NOISES["undone"])
    expected = simulator.expectation_and_gradient(circuit, hamiltonian)
    for seconds in (0.0, 0.003, 0.01, 0.03, 0.1, 0.3):
        with stop_when(seconds) as stop:
            try:
                while not stop:
                    result = minimize(simulator.objective(circuit, hamiltonian), circuit.angles, tolerance=1e-300)
                    assert result.success or result.message == "stopped: interrupted"
            except Interrupted:
                pass
            assert stop.reason == "deadline"
        assert _all_workers_idle()
    energy, gradient = simulator.expectation_and_gradient(circuit, hamiltonian)
    assert energy == expected[0] and np.array_equal(gradient, expected[1])


def test_an_error_of_a_helper_is_raised_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    circuit, hamiltonian = random_circuit(9, 20, rng), _ising(9)
    _use(monkeypatch, 3)
    simulator = PauliTransferSimulator(NOISES["undone"])
    expected = simulator.expectation(circuit, hamiltonian)
    made = simulator._helper
    rows: list[int] = []

    def fails_at(turn: int) -> Callable[[int], Any]:
        def helper(n_rows: int) -> Any:
            rows.append(n_rows)
            if len(rows) >= turn:
                raise MemoryError("no room for a helper")
            return made(n_rows)

        return helper

    for turn in (1, 2):
        rows.clear()
        with monkeypatch.context() as patch, pytest.raises(MemoryError, match="no room for a helper"):
            patch.setattr(simulator, "_helper", fails_at(turn))
            simulator.expectation(circuit, hamiltonian)
    assert _all_workers_idle()
    assert simulator.expectation(circuit, hamiltonian) == expected


def test_threads_start_no_threads_and_one_core_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    circuit, hamiltonian = random_circuit(9, 20, rng), _ising(9)
    simulator = PauliTransferSimulator(NOISES["undone"])
    lent: list[object] = []
    monkeypatch.setattr("qas.simulators._team.lend", lent.append)
    _use(monkeypatch, 1)
    alone = simulator.expectation(circuit, hamiltonian)
    _use(monkeypatch, 2)
    inside = list(workers.in_order(lambda c: simulator.expectation(c, hamiltonian), [circuit, circuit], 2))
    assert inside == [alone, alone] and not lent
