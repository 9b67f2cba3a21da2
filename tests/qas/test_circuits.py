"""Gates and circuits: rules, immutability, measures, canonical keys."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import GATES
from qas.hamiltonians import Hamiltonian
from qas.simulators import make_simulator
from qas.testing import random_circuit

SEEDS = st.integers(0, 2**32 - 1)


def shuffled(circuit: Circuit, rng: np.random.Generator, swaps: int = 200) -> Circuit:
    """The circuit after random exchanges of neighbours on disjoint qubits, symmetric gates turned round at random."""
    gates = list(circuit)
    for i in rng.integers(max(1, len(gates) - 1), size=swaps):
        if i + 1 < len(gates) and not set(gates[i].qubits) & set(gates[i + 1].qubits):
            gates[i], gates[i + 1] = gates[i + 1], gates[i]
    for i, gate in enumerate(gates):
        if GATES[gate.name].symmetric and rng.random() < 0.5:
            gates[i] = Gate(gate.name, gate.qubits[::-1], gate.angles)
    return Circuit(circuit.n_qubits, gates)


# ---------------------------------------------------------------------- gates
@pytest.mark.parametrize("name", GATES)
def test_every_gate_matrix_is_unitary(name):
    spec = GATES[name]
    matrix = spec.matrix(*np.linspace(-1.3, 2.1, spec.n_angles))
    assert matrix.shape == (2**spec.n_qubits,) * 2
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rx", (0, 1), (0.1,)), "rx acts on 1 qubit"),
        (("rx", (0,)), "rx takes 1 angle"),
        (("cx", (1, 1)), "two different qubits"),
        (("x", (-1,)), "numbered from 0"),
        (("rx", (0,), (math.nan,)), "finite"),
        (("u", (0,), (0.0, math.inf, 0.0)), "finite"),
    ],
)
def test_malformed_gates_are_refused_in_one_line(arguments, message):
    with pytest.raises(CircuitError, match=message) as error:
        Gate(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "near"), [("rxy", "'rx'|'ry'"), ("cnx", "'cx'"), ("swp", "'swap'")])
def test_unknown_gates_name_the_nearest(name, near):
    with pytest.raises(UnknownNameError, match=f"did you mean ({near})") as error:
        Gate(name, (0,))
    assert isinstance(error.value, QasError) and "\n" not in str(error.value)


def test_gates_and_circuits_cannot_be_changed():
    gate = Gate("rx", (0,), (0.1,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        gate.angles = (0.2,)
    circuit = Circuit(2, [gate])
    with pytest.raises(AttributeError):
        circuit.n_qubits = 3
    with pytest.raises(ValueError, match="read-only"):
        circuit.angles[0] = 1.0
    longer = circuit.append("cx", (0, 1))
    assert len(circuit) == 1 and len(longer) == 2
    assert hash(circuit) == hash(Circuit(2, [("rx", 0, 0.1)])) and circuit == Circuit(2, [("rx", [0], [0.1])])
    assert circuit != Circuit(3, [gate]) and circuit != Circuit(2, [("rx", 0, 0.2)])


# ---------------------------------------------------------------------- circuits
@pytest.mark.parametrize(
    ("n_qubits", "gates", "message"),
    [
        (0, [], "1 to 10000 qubits"),
        ("two", [], "whole number"),
        (2.5, [], "whole number"),
        (2, [("cx", (0, 2))], "out of range"),
        (2, [("rx",)], "a gate is"),
        (2, [5], "a gate is"),
        (2, [("rx", "a", 0.1)], "a gate is"),
        (2, [("rx", 0, "much")], "a gate is"),
        (2, [("rx", 0.5, 0.1)], "a gate is"),
        (2, [("rx", 0, 1j)], "a gate is"),
    ],
)
def test_malformed_circuits_are_refused_in_one_line(n_qubits, gates, message):
    with pytest.raises(CircuitError, match=message) as error:
        Circuit(n_qubits, gates)
    assert "\n" not in str(error.value)


def test_numpy_integers_are_qubits():
    circuit = Circuit(np.int64(2), [("cx", np.array([0, 1])), ("u", np.int32(1), np.array([0.1, 0.2, 0.3]))])
    assert circuit == Circuit(2, [("cx", (0, 1)), ("u", 1, 0.1, 0.2, 0.3)])
    json.dumps(circuit.to_list())


def test_measures_of_a_known_circuit():
    circuit = Circuit(3, [("h", 0), ("rx", 2, 0.5), ("cx", (0, 1)), ("rzz", (1, 2), 0.1), ("h", 0)])
    assert circuit.moments == (0, 0, 1, 2, 2)
    assert circuit.depth == 3
    assert circuit.counts == {"cx": 1, "h": 2, "rx": 1, "rzz": 1}
    assert circuit.count("h") == 2 and circuit.count("swap") == 0
    assert circuit.two_qubit_gates == 2 and circuit.n_angles == 2
    assert Circuit(2).depth == 0 and Circuit(2).counts == {}
    assert repr(circuit) == "Circuit(3 qubits, 5 gates, 2 two-qubit, 2 angles, depth 3)"
    with pytest.raises(UnknownNameError):
        circuit.count("cnot")


def test_editing_returns_the_expected_gates():
    circuit = Circuit(2, [("x", 0), ("y", 0), ("z", 1)])

    def names(c):
        return [g.name for g in c]

    assert names(circuit.delete(-1)) == ["x", "y"] and names(circuit.delete(0)) == ["y", "z"]
    assert names(circuit.replace(-1, Gate("h", (0,)))) == ["x", "y", "h"]
    assert names(circuit.insert(1, Gate("h", (0,)))) == ["x", "h", "y", "z"]
    for position in (3, -4):
        with pytest.raises(CircuitError, match="3 gates"):
            circuit.delete(position)
        with pytest.raises(CircuitError, match="3 gates"):
            circuit.replace(position, Gate("h", (0,)))
    with pytest.raises(CircuitError, match="out of range"):
        circuit.replace(0, Gate("h", (2,)))


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_angles_and_lists_round_trip(seed):
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(1, 6)), int(rng.integers(0, 30)), rng)
    other = rng.uniform(-7, 7, circuit.n_angles)
    changed = circuit.with_angles(other)
    assert changed.angles.dtype == np.float64 and changed.angles.tolist() == other.tolist()
    assert changed.with_angles(circuit.angles) == circuit
    assert changed.key == circuit.key
    assert Circuit(circuit.n_qubits, json.loads(json.dumps(circuit.to_list()))) == circuit


def test_wrong_angles_are_refused():
    circuit = Circuit(1, [("rx", 0, 0.1)])
    with pytest.raises(CircuitError, match="1 angles, got 2"):
        circuit.with_angles([0.1, 0.2])
    with pytest.raises(CircuitError, match="finite"):
        circuit.with_angles([math.nan])


def test_draw_knows_its_styles():
    circuit = Circuit(1, [("x", 0)])
    assert circuit.draw() == str(circuit)
    assert hasattr(circuit.draw("mpl", title="one gate"), "savefig")
    with pytest.raises(CircuitError, match="'text' or 'mpl'"):
        circuit.draw("latex")


# ---------------------------------------------------------------------- keys
@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_key_ignores_the_order_of_disjoint_gates(seed):
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(2, 7)), int(rng.integers(2, 30)), rng)
    other = shuffled(circuit, rng)
    assert other.key == circuit.key and other.depth == circuit.depth and other.counts == circuit.counts
    if circuit.n_qubits <= 4:
        np.testing.assert_allclose(other.to_matrix(), circuit.to_matrix(), atol=1e-12)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_key_sees_every_changed_gate(seed):
    """Removing, doubling or renaming one gate is never an allowed reordering."""
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(2, 6)), int(rng.integers(1, 20)), rng)
    i = int(rng.integers(len(circuit)))
    gate = circuit[i]
    shape = (len(gate.qubits), len(gate.angles))
    others = [n for n, s in GATES.items() if n != gate.name and (s.n_qubits, s.n_angles) == shape]
    assert circuit.delete(i).key != circuit.key
    assert circuit.insert(i, gate).key != circuit.key
    if others:
        assert circuit.replace(i, Gate(str(rng.choice(others)), gate.qubits, gate.angles)).key != circuit.key


def test_key_tells_different_circuits_apart():
    def key(*gates, n=3):
        return Circuit(n, gates).key

    assert key(("cx", (0, 1))) != key(("cx", (1, 0)))
    assert key(("cz", (0, 1))) == key(("cz", (1, 0)))
    assert key(("h", 0), ("x", 0)) != key(("x", 0), ("h", 0))
    assert key(("cx", (0, 1)), ("cx", (1, 2))) != key(("cx", (1, 2)), ("cx", (0, 1)))
    assert key(("h", 0)) != key(("h", 0), n=4)
    assert key(("x", 1), ("x", 0), ("cx", (0, 1))) == key(("x", 0), ("x", 1), ("cx", (0, 1)))


# ---------------------------------------------------------------------- test utilities
def test_random_circuit_obeys_its_arguments():
    circuit = random_circuit(3, 50, np.random.default_rng(0), ["rx", "cz"])
    assert circuit.n_qubits == 3 and len(circuit) == 50 and set(circuit.counts) == {"rx", "cz"}
    assert circuit == random_circuit(3, 50, np.random.default_rng(0), ["rx", "cz"])
    assert random_circuit(1, 30, np.random.default_rng(1)).two_qubit_gates == 0
    with pytest.raises(CircuitError, match="none of the gates"):
        random_circuit(1, 1, np.random.default_rng(1), ["cx"])
    with pytest.raises(CircuitError, match="at least 0"):
        random_circuit(1, -1, np.random.default_rng(1))
    with pytest.raises(UnknownNameError):
        random_circuit(1, 1, np.random.default_rng(1), ["cnot"])


def test_a_used_circuit_pickles_and_copies() -> None:
    circuit = Circuit(2, [("rx", 0, 0.3), ("cx", (0, 1))])
    simulator = make_simulator()
    hamiltonian = Hamiltonian({"ZZ": 1.0})
    energy = simulator.expectation(circuit, hamiltonian)
    for again in (pickle.loads(pickle.dumps(circuit)), copy.deepcopy(circuit)):
        assert again == circuit
        assert make_simulator("ibm-mumbai").expectation(again, hamiltonian) != energy
        assert simulator.expectation(again, hamiltonian) == energy
    turned = circuit.with_angles([1.0])
    assert simulator.expectation(turned, hamiltonian) == simulator.expectation(Circuit(2, turned.gates), hamiltonian)


def test_a_longer_circuit_knows_what_a_new_one_finds_out() -> None:
    circuit = Circuit(4, [("rx", 0, 0.3), ("cx", (0, 1))])
    for name, qubits, angles in [
        ("ry", (3,), (0.1,)), ("cx", (1, 2), ()), ("single_excitation", (0, 1), (0.2,)), ("u", (2,), (0.1, 0.2, 0.3)),
    ]:  # fmt: skip
        measured = circuit.two_qubit_gates, circuit.depth
        longer = circuit.with_angles(circuit.angles + 1.0).extended(Gate(name, qubits, angles))
        again = Circuit(4, longer.gates)
        assert longer == again and hash(longer) == hash(again) and longer.angles.tolist() == again.angles.tolist()
        assert not longer.angles.flags.writeable
        for what in ("two_qubit_gates", "depth", "n_gates", "moments", "key"):
            assert getattr(longer, what) == getattr(again, what), what
        assert (circuit.two_qubit_gates, circuit.depth) == measured
        circuit = longer
    with pytest.raises(CircuitError, match="out of range"):
        circuit.extended(Gate("rx", (4,), (0.1,)))


@pytest.mark.parametrize("angles", [(0.4, 1e15, 0.7), (-2e14, 0.3, 1e15), (1.0, -1e17, 1e16 + 2)])
def test_u_is_unitary_and_the_product_of_its_rotations_at_huge_angles(angles: tuple[float, float, float]) -> None:
    matrix = GATES["u"].matrix(*angles)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(2), atol=1e-14)
    theta, phi, lam = angles
    rotations = [GATES[name].matrix(angle) for name, angle in (("rz", phi), ("ry", theta), ("rz", lam))]
    product = rotations[0] @ rotations[1] @ rotations[2]
    assert abs(np.trace(product.conj().T @ matrix)) == pytest.approx(2.0, abs=1e-12)
    for engine in ("statevector", "pauli-transfer"):  # whose kernels take u as these rotations
        values = [
            make_simulator(engine=engine).expectation(Circuit(1, gates), Hamiltonian({"X": 0.4, "Y": 0.3, "Z": 1.0}))
            for gates in ([("h", 0), ("u", 0, *angles)], [("h", 0), ("rz", 0, lam), ("ry", 0, theta), ("rz", 0, phi)])
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-12)
