"""Circuits that are routed to a device make the same state, on coupled pairs, each qubit where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.circuits import Circuit
from qas.devices import Device
from qas.routing import in_place, routed


@pytest.fixture(scope="module", params=["fake_torino", "fake_brisbane"])
def line(request: pytest.FixtureRequest) -> Device:
    """Of cz, and of ecr in one direction."""
    return qas.load_device(request.param).patch(4, "line")


def circuit_of(seed: int, n_qubits: int, gates: int) -> Circuit:
    """Rotations, CX and excitations anywhere."""
    rng = np.random.default_rng(seed)
    made: list[tuple[object, ...]] = []
    for _ in range(gates):
        kind = rng.integers(5)
        qubits = [int(q) for q in rng.permutation(n_qubits)]
        angle = float(rng.uniform(-3, 3))
        if kind == 0:
            made.append(("ry", qubits[0], angle))
        elif kind == 1:
            made.append(("rx", qubits[0], angle))
        elif kind == 2:
            made.append(("cx", (qubits[0], qubits[1])))
        elif kind == 3:
            made.append(("rzz", (qubits[0], qubits[1]), angle))
        else:
            made.append(("double_excitation", tuple(qubits[:4]), angle))
    return Circuit(n_qubits, made)


def overlap(a: Circuit, b: Circuit) -> float:
    """|<a|b>|, from Qiskit."""
    from qiskit.quantum_info import Statevector

    return abs(np.vdot(Statevector(a.to_qiskit()).data, Statevector(b.to_qiskit()).data))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.booleans())
def test_the_state_is_the_same_on_coupled_pairs(line: Device, seed: int, gates: int, moved: bool) -> None:
    circuit = circuit_of(seed, 4, gates)
    made, order = routed(circuit, line, moved=moved)
    assert overlap(made, circuit) == pytest.approx(1, abs=1e-7)
    assert sorted(order) == [0, 1, 2, 3] and (moved or order == (0, 1, 2, 3))
    native = line.restricted(order).native
    assert native is not None and all(map(native.has, made))


def test_what_fits_is_left_where_it_is(line: Device) -> None:
    native = Circuit(4, [("sx", 0), (line.entangler, line.directions[0])])
    assert in_place(native, line) is native
    without = in_place(Circuit(4, [("x", 0)]), line, ["rz", "sx", line.entangler])
    assert without is not None and without.counts.keys() <= {"rz", "sx"}
    compiled = in_place(Circuit(4, [("ry", 2, 0.4), ("cx", (2, 1))]), line)
    assert compiled is not None and compiled.counts.keys() <= set(line.native_gates)
    assert in_place(Circuit(4, [("cx", (0, 2))]), line) is None
