"""`simplify` keeps the prepared state, never adds gates, and removes what it promises to remove."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit, Gate
from qas.gates import GATES
from qas.simplify import merge_runs, simplify, without_small_rotations, wrap_angles

# Angles at and around the special ones, so that cancellations happen, and any other.
ANGLES = st.one_of(
    st.sampled_from([k * math.pi / 2 for k in range(-8, 9)]),
    st.sampled_from([1e-10, -1e-10, 2 * math.pi - 1e-10, 4 * math.pi, 0.7, -0.7]),
    st.floats(-10, 10, allow_nan=False),
)


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    n_qubits = draw(st.integers(1, 4))
    # Few kinds at a time make neighbours meet more often.
    names = [name for name, spec in GATES.items() if spec.n_qubits <= n_qubits]
    kinds = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5))
    gates = []
    for _ in range(draw(st.integers(0, 16))):
        spec = GATES[draw(st.sampled_from(kinds))]
        qubits = draw(st.permutations(range(n_qubits)))[: spec.n_qubits]
        gates.append(Gate(spec.name, tuple(qubits), tuple(draw(ANGLES) for _ in range(spec.n_angles))))
    return Circuit(n_qubits, gates)


def prepared(circuit: Circuit) -> np.ndarray:
    return circuit.to_matrix()[:, 0]


def overlap(a: Circuit, b: Circuit) -> float:
    return abs(np.vdot(prepared(a), prepared(b)))


@settings(max_examples=200, deadline=None)
@given(circuits())
def test_the_prepared_state_is_kept_and_nothing_is_added(circuit: Circuit) -> None:
    short = simplify(circuit)
    assert short.n_qubits == circuit.n_qubits
    assert len(short) <= len(circuit) and short.two_qubit_gates <= circuit.two_qubit_gates
    # The overlap is quadratic in what angles below the tolerance change.
    assert overlap(circuit, short) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(circuits())
def test_a_second_pass_changes_nothing(circuit: Circuit) -> None:
    once = simplify(circuit)
    assert simplify(once) == once


@settings(max_examples=100, deadline=None)
@given(circuits())
def test_what_is_kept_are_gates_of_the_circuit(circuit: Circuit) -> None:
    kinds = {(g.name, frozenset(g.qubits)) for g in circuit}
    assert {(g.name, frozenset(g.qubits)) for g in simplify(circuit)} <= kinds


@settings(max_examples=200, deadline=None)
@given(circuits())
def test_every_column_is_kept_where_the_whole_matrix_counts(circuit: Circuit) -> None:
    short = simplify(circuit, whole=True)
    assert len(short) <= len(circuit) and short.two_qubit_gates <= circuit.two_qubit_gates
    before, after = circuit.to_matrix(), short.to_matrix()
    assert min(np.abs(before - after).max(), np.abs(before + after).max()) < 1e-8
    assert simplify(short, whole=True) == short


@pytest.mark.parametrize(
    ("gates", "left"),
    [
        ([("rz", 0, 0.4), ("cx", (0, 1)), ("cz", (1, 2)), ("t", 2)], 4),  # |0…0> sees none
        ([("ry", 0, 2 * math.pi), ("rzz", (0, 1), -4 * math.pi), ("cx", (0, 1)), ("cx", (0, 1))], 0),
        ([("ry", 0, 0.3), ("cz", (1, 2)), ("ry", 0, 0.5), ("cz", (2, 1))], 1),
        ([("ry", 0, 0.3), ("cz", (0, 1)), ("ry", 0, -0.3)], 3),
    ],
)
def test_redundancies_of_the_whole_matrix(gates: Sequence[Any], left: int) -> None:
    assert len(simplify(Circuit(3, gates), whole=True)) == left


def test_a_circuit_without_redundancy_is_returned_as_it_is() -> None:
    circuit = Circuit(2, [("ry", 0, 0.3), ("cx", (0, 1)), ("rx", 1, 0.2), ("cx", (0, 1))])
    assert simplify(circuit) is circuit


START: list[Any] = [("ry", 0, 0.4), ("ry", 1, 0.9), ("ry", 2, 1.3)]


@pytest.mark.parametrize(
    ("gates", "left"),
    [
        ([], 0),
        ([("rz", 0, 0.4), ("z", 1), ("s", 2), ("t", 0), ("cz", (0, 1)), ("rzz", (1, 2), 0.3)], 0),  # |0…0> sees none
        ([("cx", (0, 1)), ("cx", (1, 2))], 0),  # controls in |0⟩
        ([("x", 0), ("cx", (1, 2)), ("cz", (0, 1))], 1),
        ([("rx", 0, 0.0), ("rxx", (0, 1), 2 * math.pi), ("ry", 2, -4 * math.pi)], 0),
        ([*START, ("rx", 0, 0.3), ("rx", 0, 0.5)], 4),
        ([*START, ("rx", 0, 0.3), ("ry", 1, 0.2), ("rx", 0, -0.3), ("ry", 1, -0.2)], 3),  # around other qubits
        ([*START, ("rzz", (0, 1), 0.3), ("rzz", (1, 0), 0.5)], 4),  # symmetric
        ([*START, ("cx", (0, 1)), ("cx", (0, 1))], 3),
        ([*START, ("cx", (0, 1)), ("rx", 2, 0.1), ("cx", (0, 1))], 4),
        ([*START, ("cx", (0, 1)), ("cx", (1, 0))], 5),  # not the same gate
        ([*START, ("cz", (0, 1)), ("cz", (1, 0))], 3),
        ([*START, ("swap", (0, 1)), ("swap", (1, 0))], 3),
        ([*START, ("cx", (0, 1)), ("h", 2), ("h", 2), ("cx", (0, 1))], 3),  # nested
        ([*START, ("h", 0), ("x", 0), ("x", 0), ("h", 0)], 3),
        ([*START, ("cx", (0, 1)), ("rz", 1, 0.2), ("rz", 1, -0.2), ("cx", (0, 1))], 3),
        ([*START, ("s", 0), ("s", 0)], 5),  # not its own inverse
        ([*START, ("cx", (0, 1)), ("rx", 1, 0.2), ("cx", (0, 1))], 6),
        ([*START, ("cx", (0, 1)), ("cx", (1, 2)), ("cx", (0, 1))], 6),
    ],
)
def test_known_redundancies_go(gates: Sequence[Any], left: int) -> None:
    circuit = Circuit(3, gates)
    short = simplify(circuit)
    assert len(short) == left
    assert overlap(circuit, short) == pytest.approx(1.0, abs=1e-12)


def test_added_angles_are_the_sum() -> None:
    short = simplify(Circuit(1, [("rx", 0, 0.3), ("rx", 0, 0.5), ("rx", 0, -0.1)]))
    assert len(short) == 1 and short.angles == pytest.approx([0.7])


def test_the_tolerance_of_angles() -> None:
    circuit = Circuit(1, [("ry", 0, 1e-5)])
    assert len(simplify(circuit)) == 1
    assert len(simplify(circuit, angle_tolerance=1e-4)) == 0


def test_diagonal_gates_count_once_the_qubit_has_left_zero() -> None:
    circuit = Circuit(2, [("h", 0), ("rz", 0, 0.5), ("h", 0), ("swap", (0, 1)), ("rz", 1, 0.4)])
    assert len(simplify(circuit)) == 5


# ---------------------------------------------------------------------- angles and runs
SETS = [
    ("rx", "ry", "rz"), ("ry", "rz"), ("rz", "rx"), ("ry",), ("h", "ry"), ("u", "rx"), ("h", "t", "sx", "x"),
    ("rz", "x", "sx"), ("x", "y", "z", "h", "rx", "ry", "rz", "u"),
]  # fmt: skip
LONGEST = {SETS[0]: (2, 3), SETS[1]: (2, 3), SETS[2]: (2, 3), SETS[3]: (1, 1), SETS[5]: (1, 1), SETS[8]: (1, 1)}
"""What a run of any length comes down to: at the beginning, and elsewhere."""


@st.composite
def run_circuits(draw: st.DrawFn) -> tuple[tuple[str, ...], Circuit]:
    names, n_qubits = draw(st.sampled_from(SETS)), draw(st.integers(1, 3))
    gates = []
    for _ in range(draw(st.integers(0, 12))):
        if n_qubits > 1 and draw(st.integers(0, 4)) == 0:
            gates.append(Gate("cx", tuple(draw(st.permutations(range(n_qubits)))[:2])))
            continue
        spec = GATES[draw(st.sampled_from(names))]
        angles = tuple(draw(ANGLES) for _ in range(spec.n_angles))
        gates.append(Gate(spec.name, (draw(st.integers(0, n_qubits - 1)),), angles))
    return names, Circuit(n_qubits, gates)


@settings(max_examples=150, deadline=None)
@given(run_circuits(), st.booleans())
def test_merged_runs_and_wrapped_angles_make_the_same(given: tuple[tuple[str, ...], Circuit], whole: bool) -> None:
    names, circuit = given
    short = merge_runs(circuit, (*names, "cx"), whole=whole)
    wrapped = wrap_angles(short)
    assert len(short) <= len(circuit) and short.two_qubit_gates == circuit.two_qubit_gates
    assert {g.name for g in short} <= {*names, "cx"}
    assert all(-math.pi < angle <= math.pi for angle in wrapped.angles)
    if whole:
        difference = circuit.to_matrix() @ wrapped.to_matrix().conj().T
        assert np.abs(difference - difference[0, 0] * np.eye(len(difference))).max() < 1e-8
    else:
        assert overlap(circuit, wrapped) == pytest.approx(1.0, abs=1e-12)
    before, after = short.to_matrix(), wrapped.to_matrix()
    assert min(np.abs(before - after).max(), np.abs(before + after).max()) < 1e-12
    if circuit.n_qubits == 1 and names in LONGEST:
        assert len(short) <= LONGEST[names][whole]


def test_the_runs_of_published_circuits_are_one_gate() -> None:
    """Y·U·Y·RY on one qubit, behind a two-qubit gate."""
    gates: list[Any] = [("h", 0), ("cx", (0, 1)), ("y", 1), ("u", 1, 0.3, 1.2, -2.0), ("y", 1), ("ry", 1, 9.42)]
    short = merge_runs(Circuit(2, gates), ("h", "y", "u", "ry", "cx"))
    assert [g.name for g in short] == ["h", "cx", "u"]
    circuit = Circuit(2, gates[:2])
    assert merge_runs(circuit, ("h", "cx", "u")) is circuit


def test_small_rotations_go_together_then_one_by_one() -> None:
    circuit = Circuit(2, [("rz", 0, 1.9e-5), ("rx", 0, 6.2832), ("ry", 1, 0.5), ("cx", (0, 1))])
    assert [len(c) for c in without_small_rotations(circuit, 1e-3)] == [2, 3, 3]
    assert without_small_rotations(Circuit(1, [("ry", 0, 0.5)]), 1e-3) == []
