"""Circuits of training problems for new ones: frames, nearest problems, predicted angles."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qas
from qas.agents.rl.starts import Starts, best_frame, framed, framed_terms, made
from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.problems import Problem
from qas.simulators import make_simulator


def random_circuit(n: int, rng: np.random.Generator) -> Circuit:
    gates: list[tuple] = []
    for _ in range(30):
        a, b = (int(q) for q in rng.permutation(n)[:2])
        name = ("rx", "ry", "rz", "cx", "cz", "rxx", "ryy", "rzz")[rng.integers(8)]
        angles = () if name in ("cx", "cz") else (float(rng.normal()),)
        gates.append((name, a if name in ("rx", "ry", "rz") else (a, b), *angles))
    return Circuit(n, gates)


def random_terms(n: int, rng: np.random.Generator) -> dict[str, float]:
    return {"".join(rng.choice(list("IXYZ"), size=n)): float(rng.normal()) for _ in range(20)}


def test_a_circuit_in_a_frame_has_the_energy_of_the_hamiltonian_in_it() -> None:
    rng, simulator = np.random.default_rng(0), make_simulator()
    for frame in range(8):
        circuit, terms = random_circuit(3, rng), random_terms(3, rng)
        turned = framed(circuit, frame)
        assert turned is not None and turned.key == circuit.key
        energy = simulator.expectation(turned, Hamiltonian(framed_terms(terms, frame)))
        assert energy == pytest.approx(simulator.expectation(circuit, Hamiltonian(terms)), abs=1e-10)


def test_excitations_have_frames_and_pulses_have_none() -> None:
    simulator, terms = make_simulator(), random_terms(4, np.random.default_rng(1))
    circuit = Circuit(4, [("x", 0), ("x", 1)]).append("rx", 2, 0.4)
    for name, qubits in (("single_excitation", (0, 2)), ("double_excitation", (0, 1, 2, 3))):
        grown = circuit.append(name, qubits, 0.7)
        turned = framed(grown, 0b0110)
        assert turned is not None
        energy = simulator.expectation(turned, Hamiltonian(framed_terms(terms, 0b0110)))
        assert energy == pytest.approx(simulator.expectation(grown, Hamiltonian(terms)), abs=1e-10)
    assert framed(Circuit(1, [("sx", 0)]), 1) is None


def test_the_best_frame_undoes_a_change_of_signs() -> None:
    rng = np.random.default_rng(2)
    for frame in (0, 5, 9):
        terms = random_terms(4, rng)
        found = best_frame(terms, framed_terms(terms, frame), 4)
        assert framed_terms(framed_terms(terms, frame), found) == terms


def curve(field: float, frame: int = 0) -> Problem:
    """A transverse-field Ising chain of four sites, its signs as in a frame."""
    terms = {"ZZII": 1.0, "IZZI": 1.0, "IIZZ": 1.0, "XIII": field, "IXII": field, "IIXI": field, "IIIX": field}
    return qas.problem(Hamiltonian(framed_terms(terms, frame)), name=f"curve-{field:g}-{frame}")


def test_angles_of_a_curve_are_predicted_whatever_the_signs() -> None:
    train = [
        curve(field, frame) for field, frame in zip(np.linspace(0.6, 1.6, 8), (0, 3, 0, 5, 15, 0, 9, 2), strict=True)
    ]
    starts = Starts.from_json(json.loads(json.dumps(made(train, evaluations=2500).to_json())))
    assert len(starts) == 8
    for asked in (curve(1.03, 6), curve(1.5)):
        nearest, predicted = starts.nearest(asked), starts.predicted(asked)
        assert nearest is not None and predicted is not None
        trained = max(min(each.errors) for each in starts.known)
        assert asked.error(asked.energy(predicted)) < trained + 2e-3
        assert asked.error(asked.energy(predicted)) < 0.2 * asked.error(asked.energy(nearest)) + trained
    larger = starts.nearest(qas.load_problem("tfim-6"))
    assert larger is not None and larger.n_qubits == 6
    assert starts.predicted(qas.load_problem("tfim-6")) is None
    assert starts.nearest(qas.load_problem("h2-2")) is None
