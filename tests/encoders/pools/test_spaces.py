"""Circuit spaces: canonical rows, layers, sampling, and what a space refuses."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit, Gate
from qas.encoders.pools.spaces import PADDING, CircuitSpace, distinct
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import POOL_GATES, gate_spec

FREE = CircuitSpace(4, ("rx", "x", "cx", "cz", "swap"), max_gates=8, min_gates=0, max_depth=0, ring=())
COUPLED = CircuitSpace(5, max_gates=8, min_gates=3, max_depth=4, coupling=[(1, 0), (1, 2), (2, 3), (3, 4)])
SPACES = [CircuitSpace(4, max_gates=10), CircuitSpace(8, max_gates=20), FREE, COUPLED]


def random_rows(space: CircuitSpace, size: int, seed: int) -> np.ndarray:
    """Any sequences of tokens, deep ones too, not in canonical order."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(space.n_tokens, size=(size, space.max_gates))
    rows[np.arange(space.max_gates) >= rng.integers(space.max_gates + 1, size=(size, 1))] = PADDING
    return rows


def commuted(circuit: Circuit, rng: random.Random) -> Circuit:
    """The circuit with neighbouring gates on disjoint qubits exchanged, and symmetric gates written either way."""
    gates = [
        Gate(g.name, g.qubits[::-1], g.angles) if gate_spec(g.name).symmetric and rng.random() < 0.5 else g
        for g in circuit
    ]
    for _ in range(30):
        if len(gates) < 2:
            break
        i = rng.randrange(len(gates) - 1)
        if not set(gates[i].qubits) & set(gates[i + 1].qubits):
            gates[i], gates[i + 1] = gates[i + 1], gates[i]
    return Circuit(circuit.n_qubits, gates)


# ---------------------------------------------------------------------- placed gates, rows
def test_published_spaces() -> None:
    for n, gates, placed in [(4, 10, 48), (8, 20, 128)]:
        space = CircuitSpace(n, max_gates=gates)
        assert space.gates == POOL_GATES
        assert (space.n_tokens, space.max_depth, space.min_gates) == (placed, 5, gates)
        assert [g.qubits for g in space.placed if g.name == "cx"] == [(q, (q + 1) % n) for q in range(n)]
        assert sum(g.name == "swap" for g in space.placed) == n * (n - 1) // 2


def test_tables_over_tokens() -> None:
    for space in SPACES:
        for token, gate in enumerate(space.placed):
            assert space.gates[space.kind[token]] == gate.name
            assert (space.first[token], space.last[token]) == (gate.qubits[0], gate.qubits[-1])
            assert space.symmetric[token] == gate_spec(gate.name).symmetric
        assert len({(g.name, g.qubits) for g in space.placed}) == space.n_tokens


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_commuting_gates_have_one_row(seed: int, rng: random.Random) -> None:
    circuit = FREE.circuit(random_rows(FREE, 1, seed)[0])
    other = commuted(circuit, rng)
    assert circuit.key == other.key
    np.testing.assert_array_equal(FREE.row(circuit), FREE.row(other))


def test_rows_are_equal_exactly_when_keys_are() -> None:
    small = CircuitSpace(3, ("x", "cx", "cz"), max_gates=3, min_gates=0, max_depth=0, ring=())
    tokens = itertools.product(range(-1, small.n_tokens), repeat=3)
    rows = np.array([row for row in tokens if list(row) == sorted(row, key=lambda t: t == PADDING)])
    canonical = [row.tobytes() for row in small.canonical(rows)]
    keys = [small.circuit(row).key for row in rows]
    assert len(set(zip(canonical, keys, strict=True))) == len(set(canonical)) == len(set(keys))


@pytest.mark.parametrize("space", SPACES)
def test_layers_are_moments(space: CircuitSpace) -> None:
    rows = random_rows(space, 200, 1)
    for row, layers in zip(rows, space.layers(rows), strict=True):
        circuit = space.circuit(row)
        assert layers.tolist() == [*circuit.moments, *[-1] * (space.max_gates - len(circuit))]


@pytest.mark.parametrize("space", SPACES)
def test_canonical_keeps_the_circuit(space: CircuitSpace) -> None:
    rows = random_rows(space, 100, 2)
    canonical = space.canonical(rows)
    assert canonical.dtype == np.int16
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    for row, same in zip(rows, canonical, strict=True):
        assert space.circuit(row).key == space.circuit(same).key


@pytest.mark.parametrize("space", SPACES)
def test_rows_of_circuits(space: CircuitSpace) -> None:
    for row in space.sample(100, np.random.default_rng(3)):
        np.testing.assert_array_equal(space.row(space.circuit(row)), row)


def test_row_says_why_not() -> None:
    space = CircuitSpace(4, max_gates=10)
    for circuit, why in [
        (Circuit(5), "the gates are on 4 qubits, got a circuit of 5"),
        (Circuit(4, [("x", q % 4) for q in range(11)]), "at most 10 gates, got 11"),
        (Circuit(4, [("x", 0)] * 6), "at most 5 layers, got 6"),
        (Circuit(4, [("s", 0)]), "the gates are x, y, .*, got s"),
        (Circuit(4, [("cx", (1, 0))]), "cx may act on 0-1 1-2 2-3 3-0, got 1-0"),
    ]:
        with pytest.raises(CircuitError, match=why):
            space.row(circuit)
    with pytest.raises(CircuitError, match="swap may act on 0-1 1-2 2-3 3-4, got 0-2"):
        COUPLED.row(Circuit(5, [("swap", (0, 2))]))


def test_check_rows() -> None:
    good = FREE.sample(3, np.random.default_rng(4))
    np.testing.assert_array_equal(FREE.check_rows(good.astype(np.int64)), good)
    assert FREE.check_rows(np.zeros((0, 8), dtype=int)).shape == (0, 8)
    for bad, why in [
        (good[0], "shape"),
        (good[:, :-1], "shape"),
        (good.astype(float), "float64"),
        (np.full((1, 8), FREE.n_tokens), f"tokens of this space are -1..{FREE.n_tokens - 1}, got {FREE.n_tokens}"),
        (np.full((1, 8), -2), "got -2"),
        (np.array([[0, -1, 0, 0, 0, 0, 0, 0]]), "a gate behind padding"),
    ]:
        with pytest.raises(CircuitError, match=why):
            FREE.check_rows(bad)
    with pytest.raises(CircuitError, match="whole numbers"):
        FREE.check_rows([[0], [1, 2]])


# ---------------------------------------------------------------------- sampling
@pytest.mark.parametrize("space", SPACES)
def test_samples_lie_in_the_space(space: CircuitSpace) -> None:
    rows = space.sample(300, np.random.default_rng(5))
    assert rows.shape == (300, space.max_gates)
    for row in rows:
        circuit = space.circuit(row)
        assert space.min_gates <= len(circuit) <= space.max_gates
        assert circuit.depth <= space.max_depth
        for gate in circuit:
            if gate.name in space.ring:
                assert gate.qubits[1] == (gate.qubits[0] + 1) % space.n_qubits
            if space.coupling is not None and len(gate.qubits) == 2:
                assert (min(gate.qubits), max(gate.qubits)) in space.coupling


def test_kinds_and_places_are_uniform_before_the_depth_rule() -> None:
    space = CircuitSpace(4, max_gates=10, min_gates=0, max_depth=0)
    rows = space.sample(20_000, np.random.default_rng(6))
    lengths = (rows != PADDING).sum(axis=1)
    assert np.allclose(np.bincount(lengths, minlength=11) / len(rows), 1 / 11, atol=0.01)
    tokens = rows[rows != PADDING]
    assert np.allclose(np.bincount(space.kind[tokens]) / len(tokens), 1 / 11, atol=0.005)
    for kind in range(11):
        places = np.bincount(tokens, minlength=space.n_tokens)[space.kind == kind]
        assert np.allclose(places / places.sum(), 1 / len(places), atol=0.02)


def test_sample_is_deterministic() -> None:
    for space in SPACES:
        one, other = (space.sample(50, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(one, other)
    assert SPACES[0].sample(0, np.random.default_rng(7)).shape == (0, 10)


def test_sample_unique() -> None:
    space = CircuitSpace(3, ("x", "cx"), max_gates=4, min_gates=0)
    one, other = (space.sample_unique(100, np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert len({space.circuit(row).key for row in one}) == 100
    np.testing.assert_array_equal(space.canonical(one), one)


def test_a_space_can_be_drawn_empty() -> None:
    space = CircuitSpace(2, ("x", "cz"), max_gates=2, min_gates=0)
    # no gate; x0, x1, cz; x0 x0, x1 x1, x0 x1, x cz and cz x on either qubit, cz cz
    assert space.sample_unique(12, np.random.default_rng(9)).shape == (12, 2)
    with pytest.raises(QasError, match="a pool of 13 was asked for, but the space holds about 12 circuits"):
        space.sample_unique(13, np.random.default_rng(9))


def test_impossible_depth() -> None:
    space = CircuitSpace(1, ("x",), max_gates=4, max_depth=3)
    with pytest.raises(QasError, match="allow more depth or fewer gates"):
        space.sample(1, np.random.default_rng(10))


def test_distinct_keeps_the_first() -> None:
    rows = np.array([[3, 1], [0, 2], [3, 1], [0, 1], [0, 2]], dtype=np.int16)
    assert distinct(rows).tolist() == [[3, 1], [0, 2], [0, 1]]


# ---------------------------------------------------------------------- making a space
def test_defaults() -> None:
    assert CircuitSpace(4, max_gates=10).ring == ("cx",)
    assert COUPLED.ring == () and COUPLED.coupling == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert CircuitSpace(3, ("rx", "cz"), max_gates=4).ring == ()
    assert CircuitSpace(1, max_gates=4).gates == ("x", "y", "z", "h", "rx", "ry", "rz", "u")
    assert CircuitSpace(4, max_gates=10, max_depth=0).max_depth == 10


@pytest.mark.parametrize("space", SPACES)
def test_json(space: CircuitSpace) -> None:
    again = CircuitSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and hash(again) == hash(space) and again.placed == space.placed
    assert space != CircuitSpace(6, max_gates=3) and space != 3


def test_errors() -> None:
    wrong: list[tuple[str, dict[str, object]]] = [
        ("at most 64 qubits", {"n_qubits": 65}),
        ("number of qubits", {"n_qubits": 0}),
        ("max_gates is a whole number from 1", {"max_gates": 0}),
        ("max_gates is a whole number", {"max_gates": 2.5}),
        ("min_gates is at most max_gates", {"min_gates": 11}),
        ("no gate of cx", {"n_qubits": 1, "gates": ("cx",)}),
        ("names every gate once", {"gates": ("x", "x")}),
        ("two-qubit gates of the set", {"ring": ("x",)}),
        ("no coupled pair may carry cx", {"coupling": []}),
        ("two different qubits of 0..3, got 0-4", {"coupling": [(0, 4)]}),
        ("a list of pairs", {"coupling": [1]}),
    ]
    for why, arguments in wrong:
        with pytest.raises(QasError, match=why):
            CircuitSpace(**{"n_qubits": 4, "max_gates": 10, **arguments})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'cx'"):
        CircuitSpace(4, ("cnot",), max_gates=4)
    malformed: list[dict[str, object]] = [{}, {"n_qubits": 3}, {**SPACES[0].to_json(), "coupling": 3}]
    for data in malformed:
        with pytest.raises(QasError):
            CircuitSpace.from_json(data)
