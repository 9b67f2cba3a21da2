"""Circuits that are routed to a device make the same state, on coupled pairs, each qubit where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.circuits import Circuit
from qas.devices import Device
from qas.routing import arranged, in_place, routed


@pytest.fixture(scope="module")
def line() -> Device:
    return qas.load_device("fake_torino").patch(4, "line")


def circuit_of(seed: int, n_qubits: int, gates: int) -> Circuit:
    """Rotations, CX and excitations anywhere."""
    rng = np.random.default_rng(seed)
    made: list[tuple[object, ...]] = []
    for _ in range(gates):
        kind = rng.integers(4)
        qubits = [int(q) for q in rng.permutation(n_qubits)]
        angle = float(rng.uniform(-3, 3))
        if kind == 0:
            made.append(("ry", qubits[0], angle))
        elif kind == 1:
            made.append(("rx", qubits[0], angle))
        elif kind == 2:
            made.append(("cx", (qubits[0], qubits[1])))
        else:
            made.append(("rzz", (qubits[0], qubits[1]), angle))
    return Circuit(n_qubits, made)


def overlap(a: Circuit, b: Circuit) -> float:
    """|<a|b>|, from Qiskit."""
    from qiskit.quantum_info import Statevector

    return abs(np.vdot(Statevector(a.to_qiskit()).data, Statevector(b.to_qiskit()).data))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.booleans())
def test_the_state_is_the_same_on_coupled_pairs(line: Device, seed: int, gates: int, moved: bool) -> None:
    circuit = circuit_of(seed, 4, gates)
    made, order = routed(circuit, line, moved=moved)
    assert overlap(made, circuit) == pytest.approx(1, abs=1e-7)
    assert sorted(order) == [0, 1, 2, 3] and (moved or order == (0, 1, 2, 3))
    native = line.restricted(order).native
    assert native is not None and all(map(native.has, made))


def test_what_fits_is_left_where_it_is(line: Device) -> None:
    native = Circuit(4, [("sx", 0), ("cz", line.directions[0])])
    assert in_place(native, line) is native
    compiled = in_place(Circuit(4, [("ry", 2, 0.4), ("cx", (2, 1))]), line)
    assert compiled is not None and compiled.counts.keys() <= set(line.native_gates)
    assert in_place(Circuit(4, [("cx", (0, 2))]), line) is None


CHAIN = Circuit(4, [("ry", 2, 0.3), ("cx", (2, 0)), ("ry", 0, 0.2), ("cx", (0, 3)), ("ry", 3, 0.4), ("cx", (3, 1))])
STAR = Circuit(4, [("ry", 1, 0.7), ("cx", (1, 0)), ("cx", (1, 2)), ("cx", (1, 3))])


@pytest.mark.parametrize("preferred", [CHAIN, STAR])
def test_one_order_for_all(line: Device, preferred: Circuit) -> None:
    """That of the circuit with the lowest score; a chain in another order than the line's then needs no swap."""
    circuits, device = arranged([CHAIN, STAR], line, lambda made, _: 1 - overlap(made, preferred))
    assert sorted(device.physical) == sorted(line.physical)
    for made, circuit in zip(circuits, [CHAIN, STAR], strict=True):
        assert overlap(made, circuit) == pytest.approx(1, abs=1e-7)
        assert device.native is not None and all(map(device.native.has, made))
    if preferred is CHAIN:
        assert circuits[0].two_qubit_gates == 3 and sorted(device.coupling) == [(0, 2), (0, 3), (1, 3)]
