"""What gates would do to a state: masks and gains against dense matrices and energies."""

from __future__ import annotations

import numpy as np
import pytest

from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.devices import load_device
from qas.envs.effects import Effects, LookAhead, PauliTable, costs_of, local_strings
from qas.hamiltonians import Hamiltonian
from qas.noise import load_noise
from qas.patches import patch_for
from qas.problems import load_problem
from qas.simulators import make_simulator
from qas.simulators.dense import circuit_matrix

SETS = {
    "usual": (3, ("rx", "ry", "rz", "cx")),
    "fixed": (3, ("h", "s", "x", "cz", "swap", "ecr")),
    "pairs": (3, ("rxx", "rzz", "u", "cx")),
    "excitations": (4, ("x", "single_excitation", "double_excitation", "mvp_ceo")),
    "one qubit": (1, ("rx", "rz", "h")),
}
SPECIAL = np.array([0.4, np.pi, np.pi / 2, -np.pi / 2])


def drawn(alphabet: Alphabet, length: int, rng: np.random.Generator) -> Circuit:
    tokens = rng.integers(len(alphabet), size=length)
    return Circuit(
        alphabet.n_qubits,
        [alphabet.gate(t, rng.choice(SPECIAL, size=len(alphabet.placed[t].angles)).tolist()) for t in tokens],
    )


@pytest.mark.parametrize("name", SETS)
def test_gates_that_do_nothing_are_those_of_the_dense_matrices(name: str) -> None:
    n, gates = SETS[name]
    alphabet, rng = Alphabet(n, gates), np.random.default_rng(3)
    effects = Effects(alphabet)
    seen = set()
    for length in (0, 1, 2, 3, 5, 8):
        circuit = drawn(alphabet, length, rng)
        psi = circuit_matrix(circuit)[:, 0]
        assert abs(np.vdot(effects.state(circuit), psi)) == pytest.approx(1.0)
        changes = effects.changes(effects.paulis(effects.state(circuit)))
        for token, gate in enumerate(alphabet.placed):
            turned = Circuit(n, [gate.with_angles(tuple(rng.uniform(0.5, 2.5, size=len(gate.angles))))])
            differs = abs(np.vdot(psi, circuit_matrix(turned) @ psi)) < 1 - 1e-9
            assert changes[token] == differs or gate.name == "u", f"{gate} after {circuit.gates}"
            seen.add(bool(changes[token]))
    assert seen == {True, False}


def test_rotations_at_angle_zero_count_as_turned() -> None:
    alphabet = Alphabet(2)
    effects = Effects(alphabet)
    changes = effects.changes(effects.paulis(effects.state(Circuit(2, [("ry", 0, 2 * np.pi)]))))
    there = {str(Circuit(2, [g])[0]) for g, c in zip(alphabet.placed, changes, strict=True) if c}
    assert there == {"cx 0,1", "rx(0) 0", "ry(0) 0", "rz(0) 0", "rx(0) 1", "ry(0) 1"}


def test_sixteen_of_twenty_four_do_nothing_at_first() -> None:
    effects = Effects(Alphabet(4))
    assert (~effects.changes(effects.paulis(effects.state(Circuit(4))))).sum() == 16


def test_expectations_of_strings() -> None:
    rng = np.random.default_rng(0)
    psi = rng.normal(size=8) + 1j * rng.normal(size=8)
    psi /= np.linalg.norm(psi)
    strings = (*local_strings(3), "XYZ", "YYY", "ZXY")
    dense = [np.vdot(psi, Hamiltonian({string: 1.0}).to_matrix() @ psi).real for string in strings]
    assert PauliTable(strings)(psi) == pytest.approx(dense)


@pytest.mark.parametrize(
    ("name", "noise"), [("usual", None), ("pairs", None), ("excitations", None), ("usual", "ibm-mumbai")]
)
def test_gains_slopes_and_curvatures_are_those_of_energies(name: str, noise: str | None) -> None:
    n, gates = SETS[name]
    alphabet, rng = Alphabet(n, gates), np.random.default_rng(1)
    hamiltonian = load_problem(f"heisenberg-{n}").hamiltonian
    engine, free = make_simulator(load_noise(noise)), make_simulator()
    circuit = drawn(alphabet, 6, rng)
    circuit = circuit.with_angles(rng.normal(size=circuit.n_angles))
    ahead = LookAhead(alphabet)
    found = ahead(circuit, engine, hamiltonian)
    if noise:  # gains are those of a gate without noise of its own: nothing to compare with but signs
        assert (found.gain >= 0).all() and np.abs(found.gain - ahead(circuit, free, hamiltonian).gain).max() > 1e-6
        return

    def energy(token: int, angle: float) -> float:
        return engine.expectation(Circuit(n, (*circuit.gates, alphabet.gate(token, (angle,)))), hamiltonian)

    for token in np.flatnonzero(ahead.turns).tolist():
        here, step = energy(token, 0.0), 1e-3
        curve = [energy(token, angle) for angle in np.linspace(-2 * np.pi, 2 * np.pi, 200)]
        assert energy(token, found.angle[token]) == pytest.approx(here - found.gain[token], abs=1e-10)
        assert min(curve) > here - found.gain[token] - 1e-10
        up, down = energy(token, step), energy(token, -step)
        assert found.slope[token] == pytest.approx((up - down) / (2 * step), abs=1e-5)
        if found.gain[token] > 1e-9 and not alphabet.placed[token].name.endswith("excitation"):
            assert found.curvature[token] == pytest.approx((up + down - 2 * here) / step**2, abs=1e-5)


def test_a_fixed_gate_is_told_what_a_rotation_between_two_of_it_brings() -> None:
    alphabet, rng = Alphabet(3), np.random.default_rng(2)
    hamiltonian, engine = load_problem("heisenberg-3").hamiltonian, make_simulator()
    circuit = Circuit(3, [alphabet.gate(t, rng.normal(size=1)) for t in (7, 8, 9, 10, 11, 12, 7)])
    found = LookAhead(alphabet)(circuit, engine, hamiltonian)
    here = engine.expectation(circuit, hamiltonian)
    for token in range(6):
        cx = alphabet.gate(token)
        between = [(name, q) for q in cx.qubits for name in ("rx", "ry", "rz")]
        lowest = min(
            engine.expectation(Circuit(3, (*circuit.gates, cx, (name, q, angle), cx)), hamiltonian)
            for name, q in between
            for angle in np.linspace(-np.pi, np.pi, 181)
            if (name, q) not in (("rz", cx.qubits[0]), ("rx", cx.qubits[1]))  # which CX lets pass
        )
        assert found.gain[token] == pytest.approx(here - lowest, abs=2e-3)


def test_costs_of_a_device() -> None:
    part = patch_for(4, load_device("fake_marrakesh"), "best")
    noise = part.noise()
    alphabet = Alphabet(4, ("rz", "sx", "x", "cz"), directions=part.directions)
    costs = costs_of(alphabet, noise)
    two = np.array([gate.name == "cz" for gate in alphabet.placed])
    virtual = np.array([gate.name == "rz" for gate in alphabet.placed])
    assert (costs.two_qubit_gates == two).all() and costs.duration.max() == 1.0
    assert (costs.duration[virtual] == 0).all() and (costs.infidelity[virtual] == 0).all()
    assert (costs.infidelity[two] > 1e-4).all() and (costs.infidelity[~two & ~virtual] > 0).all()
    free = costs_of(Alphabet(2, ("rx", "double_excitation", "single_excitation")), None)
    assert free.two_qubit_gates.max() == 2 and not free.infidelity.any()
