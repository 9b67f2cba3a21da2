"""Searches in a device's gates: what is found runs as it stands, and what is edited stays what it should be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import qas
from qas.agents.base import Agent, Search
from qas.agents.growth.evolution import EvolutionAgent
from qas.agents.launch import resume
from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.guidance import edited, pauli_insertions, pulse_costs
from qas.native import middles, native, remaining, simplified, tidied, with_rz
from qas.noise import NoiseModel, depolarizing
from qas.simulators.dense import dense_expectation
from qas.testing.random import random_circuit

DIRECTED = Alphabet(3, ("rz", "sx", "x", "ecr"), directions=[(1, 0), (1, 2)])
FREE = Alphabet(2, ("rz", "sx", "cz"))


def noise_of(entangler: str, n: int) -> NoiseModel:
    pairs = frozenset((q, q + 1) for q in range(n - 1))
    model = NoiseModel("line", coupling=pairs, n_qubits=n)
    return model.add(depolarizing(1e-3), ("sx", "x")).add(depolarizing(1e-2, 2), entangler)


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("evolution", {}),
        ("evolution", {"guided": False}),
        ("beam", {"width": 2}),
        ("random", {}),
        ("ddqn", {}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value,
)
def test_found_circuits_are_native_and_worth_what_is_said(agent: str, options: dict, tmp_path: Path) -> None:
    for entangler in ("cz", "ecr"):
        noise = noise_of(entangler, 2)
        run = qas.search(
            "h2-2", agent=agent, options=options, noise=noise, gates=("rz", "sx", "x", entangler), evaluations=500,
            seed=1, report=False, out=tmp_path / entangler,
        )  # fmt: skip
        gates = Alphabet(2, ("rz", "sx", "x", entangler)).native
        assert gates is not None and len(run.front) > 0
        for found in run.front:
            assert all(map(gates.has, found.circuit)), found.circuit
            energy = dense_expectation(found.circuit, run.problem.hamiltonian, noise)
            assert found.energy == pytest.approx(energy, abs=1e-9)
        if agent in ("evolution", "beam"):
            assert run.best.error < 0.02 and run.best.circuit.two_qubit_gates == 1


@pytest.mark.parametrize("noise_free", [0.0, 0.4])
def test_a_native_search_goes_on_as_the_unbroken_one(
    noise_free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before, at and after the end of the part without noise."""
    settings = {
        "agent": "evolution", "noise": noise_of("cz", 4), "gates": ("rz", "sx", "x", "cz"), "report": False,
        "evaluations": 600, "options": {"noise_free": noise_free, "layers": 1},
    }  # fmt: skip
    whole = qas.search("h2-4", out=tmp_path / "whole", **settings)
    left, safe_point = [150, 300, 450], Search.safe_point

    def stopped(self: Search, agent: Agent) -> None:
        if left and self.meter.evaluations >= left[0]:
            self.request_stop()
            del left[0]
        safe_point(self, agent)

    monkeypatch.setattr(Search, "safe_point", stopped)
    again = qas.search("h2-4", out=tmp_path / "again", **settings)
    for missing in (2, 1, 0):
        assert again.status == "interrupted" and again.evaluations < 600 and len(left) == missing
        again = resume(again.path, report=False)
    assert again.evaluations == whole.evaluations
    assert [(one.error, one.circuit) for one in again.front] == [(one.error, one.circuit) for one in whole.front]


def test_a_search_under_noise_begins_without_it_and_shows_no_energy_of_there(tmp_path: Path) -> None:
    noise = noise_of("cz", 3)
    run = qas.search(
        "heisenberg-3", agent="evolution", noise=noise, gates=("rz", "sx", "cz"), evaluations=900, seed=3,
        report=False, out=tmp_path / "run",
    )  # fmt: skip
    history = run.history()
    assert np.diff(history["evaluations"]).max() > 300 and history["evaluations"][-1] == run.evaluations == 900
    assert len(history) < run.architectures
    lowest = min(dense_expectation(one.circuit, run.problem.hamiltonian, noise) for one in run.front)
    assert history["energy"].min() == pytest.approx(lowest, abs=1e-7)


def test_what_becomes_too_long_in_native_gates_is_left_out(tmp_path: Path) -> None:
    run = qas.search(
        "heisenberg-3", agent="evolution", noise=noise_of("cz", 3), gates=("rz", "sx", "cz"), evaluations=900, seed=3,
        max_gates=8, report=False, out=tmp_path / "run",
    )  # fmt: skip
    assert max(len(one.circuit) for one in run.front) <= 8


def test_strings_along_a_line_lead_on_from_a_determinant_without_layers(tmp_path: Path) -> None:
    """Slopes of strings on coupled pairs vanish there: without those of four letters it would be left by chance."""
    line = [(q, q + 1) for q in range(5)]
    best = qas.search(
        "lih-6", agent="evolution", coupling=line, evaluations=3000, seed=2, options={"layers": 0}, report=False,
        out=tmp_path / "run",
    ).best  # fmt: skip
    assert best.error < 1e-3


def test_under_noise_only_circuits_for_molecules_grow(tmp_path: Path) -> None:
    grow: list[tuple[bool, bool]] = []

    class Watched(EvolutionAgent):
        def run(self) -> None:
            assert self.rehearsal is not None
            grow.append((self.growth is not None, self.rehearsal.growth is not None))
            super().run()

    for problem in ("lih-6", "heisenberg-6"):
        qas.search(problem, agent=Watched, noise="depolarizing", steps=1, report=False, out=tmp_path / problem)
    assert grow == [(True, True), (False, False)]


@pytest.mark.parametrize("alphabet", [DIRECTED, FREE], ids=str)
def test_inserted_rotations_become_native_and_turn_about_their_strings(alphabet: Alphabet) -> None:
    rng = np.random.default_rng(5)
    gates, n = alphabet.native, alphabet.n_qubits
    assert gates is not None
    circuit = native(
        random_circuit(n, 12, rng, alphabet.moves.gates).decompose() if n == 2 else Circuit(n), gates, whole=True
    )
    ways = pauli_insertions(alphabet.moves)
    assert {s.replace("I", "") for s in ways if s.count("I") == n - 2} >= {
        "XX",
        "ZZ",
        "XZ",
        "YZ",
        "ZX",
        "ZY",
        "XY",
        "YX",
    }
    for string, found in ways.items():
        for way in found[:2]:
            position = int(rng.integers(len(circuit) + 1))
            longer = edited(circuit, (), [(position, way.gates(0.3))], native=True)
            made = tidied(longer, gates, whole=True)
            assert all(map(gates.has, made)), string
            overlap = abs(np.vdot(made.to_matrix(), longer.to_matrix())) / 2**n
            assert overlap == pytest.approx(1.0, abs=1e-12)


def test_left_out_pulses_take_the_nearest_angle() -> None:
    gates = FREE.native
    assert gates is not None
    run = [("rz", 0, 0.4), ("sx", 0), ("rz", 0, 2.0), ("sx", 0), ("rz", 0, 0.3)]
    circuit = Circuit(2, [*run, ("cz", (0, 1)), ("sx", 1)])
    assert middles(circuit) == {1: 2, 2: 2, 3: 2}
    for position, angle, pulses in ((1, math.pi / 2, 1), (3, math.pi / 2, 1), (2, math.pi, 0)):
        left = remaining(circuit, {position})
        assert left[2] is not None and left[2].angles == pytest.approx((angle,))
        made = tidied(Circuit(2, [g for g in left if g is not None]), gates, whole=True)
        assert made.count("sx") == pulses + 1
    assert [k for k in range(7) if remaining(circuit, {k}) == [g for i, g in enumerate(circuit) if i != k]] == []
    assert [k for k in range(7) if remaining(circuit, {k})[k] is None] == [0, 4, 5, 6]
    inverse = np.diag([1.0, 2.0, 4.0])
    costs = pulse_costs(circuit, inverse)
    assert costs[0] == pytest.approx(0.4**2 / 2) and costs[4] == pytest.approx(0.3**2 / 8)
    assert costs[1] == pytest.approx((2.0 - math.pi / 2) ** 2 / 4) and costs[2] == pytest.approx((math.pi - 2) ** 2 / 4)
    assert costs[3] == max(c for c in costs if c is not None) and costs[5:] == [None, None]


def test_fixed_turns_stay_without_angles_until_they_are_shown() -> None:
    rng = np.random.default_rng(2)
    problem = qas.load_problem("h2-4")
    gates = Alphabet(4, ("rz", "sx", "x", "ecr")).native
    for _ in range(10):
        circuit = random_circuit(4, 25, rng, ("h", "ry", "cx", "x", "s"))
        made = simplified(circuit, problem, gates)
        assert made.n_angles <= circuit.n_angles, "a rotation between Clifford gates has one angle"
        assert simplified(made, problem, gates) is made
        shown = with_rz(made)
        assert set(shown.counts) <= {"rz", "sx", "x", "ecr"}
        for one in (made, shown):
            overlap = abs(np.vdot(one.to_matrix()[:, 0], circuit.to_matrix()[:, 0]))
            assert overlap == pytest.approx(1.0, abs=1e-10)
