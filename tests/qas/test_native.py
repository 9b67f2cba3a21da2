"""Circuits in a device's gates, against dense matrices and Qiskit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.devices import load_device
from qas.errors import CircuitError, QasError
from qas.gates import EXCITATIONS, GATES
from qas.hamiltonians import Hamiltonian
from qas.native import NativeGates, native, native_set, tidied
from qas.simulators.dense import dense_expectation
from qas.testing.random import random_circuit

ENTANGLERS = ("cx", "cz", "ecr")
SPECIAL = (0.0, math.pi / 2, math.pi, -math.pi / 2, 2 * math.pi, 0.3)


def same(one: Circuit, other: Circuit, whole: bool) -> bool:
    a, b = one.to_matrix(), other.to_matrix()
    a, b = (a, b) if whole else (a[:, 0], b[:, 0])
    phase = np.vdot(a, b)
    return bool(np.abs(b - a * phase / abs(phase)).max() < 1e-9)


def gates_of(entangler: str, n: int, rng: np.random.Generator) -> NativeGates:
    """All pairs, each in one order only, or in both."""
    pairs = [(a, b) if rng.random() < 0.5 else (b, a) for a in range(n) for b in range(a + 1, n)]
    directions = None if rng.random() < 0.3 else frozenset(pairs)
    return NativeGates(entangler, directions, bool(rng.random() < 0.8))


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_native_circuits_are_the_same_in_native_gates(entangler: str) -> None:
    rng = np.random.default_rng(ENTANGLERS.index(entangler))
    for trial in range(30):
        n = int(rng.integers(1, 5))
        gates = gates_of(entangler, n, rng)
        names = (
            (*GATES, *EXCITATIONS) if trial % 10 == 0 else ("rz", "sx", "x", entangler) if trial % 3 else tuple(GATES)
        )
        circuit = random_circuit(n, int(rng.integers(0, 25)), rng, names)
        if trial % 4 == 0:
            circuit = circuit.with_angles(rng.choice(SPECIAL, circuit.n_angles))
        for whole in (True, False):
            free = native(circuit, gates, whole=whole)
            for made in (free, native(circuit, gates, whole=whole, free=False), tidied(circuit, gates, whole=whole)):
                assert same(circuit, made, whole)
                assert all(map(gates.has, made))
            shorter = tidied(free, gates, whole=whole)
            assert same(free, shorter, whole)
            assert tidied(shorter, gates, whole=whole) is shorter
            if trial % 4 and not set(circuit.counts) & set(EXCITATIONS):  # other angles are other angles of the result
                other = circuit.with_angles(rng.uniform(-7, 7, circuit.n_angles))
                assert native(other, gates, whole=whole).key == free.key


@pytest.mark.parametrize(
    ("gates", "counts"),
    [
        ([("rz", 0, 0.3), ("t", 0)], {"rz": 1}),
        ([("h", 0)], {"rz": 2, "sx": 1}),
        ([("h", 0), ("h", 0)], {}),
        ([("sx", 0), ("sx", 0)], {"x": 1}),
        ([("rx", 0, 0.3)], {"rz": 3, "sx": 2}),
        ([("ry", 0, 0.3), ("rz", 0, 0.2)], {"rz": 2, "sx": 2}),
        ([("u", 0, 0.1, 0.2, 0.3), ("h", 0), ("rx", 0, 1.0)], {"rz": 3, "sx": 2}),
        ([("cz", (0, 1)), ("rz", 0, 0.3), ("cz", (1, 0))], {"rz": 1}),
        ([("cz", (0, 1)), ("cz", (1, 2)), ("rz", 1, 0.3), ("cz", (0, 1))], {"cz": 1, "rz": 1}),
        # rz goes on through cz into the next run: two angles a run
        ([(n, q, 0.3) for _ in range(3) for n in ("rx", "rz") for q in (0, 1)] , {"rz": 6, "sx": 4}),
        ([("cx", (0, 1)), ("rz", 1, 0.4), ("cx", (0, 1))], {"cz": 2, "rz": 3, "sx": 4}),
    ],
)  # fmt: skip
def test_runs_are_as_short_as_they_get(gates: list, counts: dict[str, int]) -> None:
    made = native(Circuit(3, gates), NativeGates("cz", None, True), whole=True)
    assert made.counts == dict(sorted(counts.items()))


def test_from_zero_idle_gates_go() -> None:
    for entangler, left in (("cx", {}), ("cz", {}), ("ecr", {"sx": 1, "x": 1})):
        circuit = Circuit(2, [("rz", 0, 0.3), (entangler, (0, 1))])
        assert native(circuit, NativeGates(entangler, None, True)).counts == left


def test_rz_before_a_measurement_goes_where_z_is_measured() -> None:
    rng = np.random.default_rng(3)
    circuit = native(random_circuit(3, 20, rng, ("rx", "rz", "cx")), NativeGates("cz", None, True))
    for strings, gone in ((("IIZ", "ZZI"), {0, 1, 2}), (("IIX", "ZZI"), {1, 2})):
        hamiltonian = Hamiltonian(dict(zip(strings, (0.3, -0.7), strict=True)))
        ended = circuit.append("rz", 0, 0.3).append("rz", 1, 0.4).append("rz", 2, 0.5)
        made = native(ended, NativeGates("cz", None, True), hamiltonian=hamiltonian)
        last = {gate.qubits[0] if len(gate.qubits) == 1 else -1: gate.name for gate in made}
        assert all(last[q] != "rz" for q in gone)
        assert (last[0] == "rz") == (0 not in gone)
        assert dense_expectation(made, hamiltonian) == pytest.approx(dense_expectation(ended, hamiltonian), abs=1e-12)


def test_values_make_runs_shorter_when_tidied_and_not_when_angles_are_free() -> None:
    gates = NativeGates("cz", None, True)
    for angle, kept in ((math.pi, {}), (0.0, {"x": 1}), (math.pi / 2, {"sx": 1, "rz": 2}), (-math.pi / 2, {"sx": 1})):
        circuit = Circuit(1, [("sx", 0), ("rz", 0, angle + 1e-9), ("sx", 0)])
        short = tidied(circuit, gates, angle_tolerance=1e-7, whole=True)
        pulses = {name: count for name, count in short.counts.items() if name != "rz"}
        assert pulses == {name: count for name, count in kept.items() if name != "rz"}
        assert native(circuit, gates, whole=True).counts == {"rz": 1, "sx": 2}
        assert tidied(circuit, gates, angle_tolerance=1e-10, whole=True) is circuit


def test_pairs_that_are_not_coupled_are_refused_in_one_line() -> None:
    with pytest.raises(CircuitError, match=r"coupled pairs only \(0-1 1-2\), got rzz on 2-0|got cx on 2-0") as caught:
        native(Circuit(3, [("h", 0), ("rzz", (2, 0), 0.3)]), NativeGates("ecr", frozenset([(1, 0), (1, 2)]), True))
    assert "\n" not in str(caught.value)
    with pytest.raises(CircuitError, match="no pair"):
        native(Circuit(2, [("h", 0), ("cx", (0, 1))]), NativeGates("", None, True))


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_qiskit_leaves_native_circuits_gate_for_gate(entangler: str) -> None:
    from qiskit import transpile
    from qiskit.circuit import Parameter
    from qiskit.circuit.library import CXGate, CZGate, ECRGate, RZGate, SXGate, XGate
    from qiskit.transpiler import Target

    rng = np.random.default_rng(7)
    directions = [(1, 0), (1, 2), (3, 2)]
    target = Target(num_qubits=4)
    for gate in (RZGate(Parameter("angle")), SXGate(), XGate()):
        target.add_instruction(gate, {(q,): None for q in range(4)})
    target.add_instruction({"cx": CXGate, "cz": CZGate, "ecr": ECRGate}[entangler](), dict.fromkeys(directions))
    gates = NativeGates(entangler, frozenset(directions), True)
    circuit = Circuit(
        4, [g for g in random_circuit(4, 60, rng) if len(g.qubits) == 1 or abs(g.qubits[0] - g.qubits[1]) == 1]
    )
    made = native(circuit, gates)
    assert made.two_qubit_gates > 5
    left = Circuit.from_qiskit(transpile(made.to_qiskit(), target=target, optimization_level=0))
    for q in range(4):  # Qiskit may write gates on other qubits in another order
        assert [g for g in left if q in g.qubits] == [g for g in made if q in g.qubits]


def test_circuits_become_native_on_a_patch_of_a_device() -> None:
    rng = np.random.default_rng(11)
    for name in ("fake_marrakesh", "fake_sherbrooke", "fake_mumbai"):
        part = load_device(name).patch(3, shape="line")
        pairs = [
            g for g in random_circuit(3, 30, rng) if len(g.qubits) == 1 or tuple(sorted(g.qubits)) in part.coupling
        ]
        circuit = Circuit(3, pairs)
        made = native(circuit, part)
        assert same(circuit, made, False)
        assert {(g.name, g.qubits) for g in made} <= {
            (gate, place) for gate in part.gates for place in part.gates[gate]
        }
        assert load_device(name).patch(1).native == NativeGates("", frozenset(), True)


def test_alphabets_know_directions_and_whether_they_are_native() -> None:
    alphabet = Alphabet(3, ("rz", "sx", "x", "ecr"), directions=[(1, 0), (1, 2)])
    assert {g.qubits for g in alphabet.placed if g.name == "ecr"} == {(1, 0), (1, 2)}
    assert alphabet.coupling == ((0, 1), (1, 2)) and Alphabet.from_json(alphabet.to_json()) == alphabet
    assert alphabet != Alphabet(3, ("rz", "sx", "x", "ecr"), [(0, 1), (1, 2)])
    assert alphabet.native == native_set(("rz", "sx", "x", "ecr"), [(1, 0), (1, 2)])
    assert alphabet.native is not None and not alphabet.native.has(Gate("ecr", (0, 1)))
    turned = Alphabet(3, ("rz", "sx", "cz"), directions=[(1, 0), (2, 1)])
    assert [g.qubits for g in turned.placed if g.name == "cz"] == [(1, 0), (2, 1)]
    assert turned.index(Gate("cz", (0, 1))) == turned.index(Gate("cz", (1, 0)))
    assert turned.native is not None and turned.native.has(Gate("cz", (1, 0))) and not turned.native.flip
    for gates in (("rx", "rz", "sx", "cx"), ("rz", "cx"), ("rz", "sx", "cx", "cz")):
        assert Alphabet(3, gates).native is None
    with pytest.raises(CircuitError, match="ecr may act on 1-2 1-0, got 0-1"):
        alphabet.index(Gate("ecr", (0, 1)))
    with pytest.raises(QasError, match="pairs two different qubits"):
        Alphabet(3, ("rz", "sx", "ecr"), directions=[(1, 1)])
