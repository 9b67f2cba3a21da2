"""The alphabet: numbering, round trips, and the rule for illegal actions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import GATES, SEARCH_GATES

STAR = [(0, 1), (1, 2), (1, 3)]
TABLES = [
    Alphabet(1),
    Alphabet(2),
    Alphabet(4),
    Alphabet(4, coupling=STAR),
    Alphabet(4, ("cz", "rx", "cx", "u"), coupling=STAR),
    Alphabet(3, tuple(GATES)),
    Alphabet(3, ("swap",)),
]


@pytest.mark.parametrize(("n", "count"), [(2, 8), (3, 15), (4, 24), (6, 48), (8, 80), (10, 120)])
def test_published_counts_and_numbers(n: int, count: int) -> None:
    table = Alphabet(n)
    assert len(table) == count
    for control in range(n):
        for x in range(1, n):
            expected = Gate("cx", (control, (control + x) % n))
            assert table.gate(control * (n - 1) + x - 1) == expected
    for qubit in range(n):
        for axis, name in enumerate(("rx", "ry", "rz")):
            assert table.gate(n * (n - 1) + 3 * qubit + axis) == Gate(name, (qubit,), (0.0,))


@pytest.mark.parametrize("table", TABLES, ids=repr)
def test_round_trips(table: Alphabet) -> None:
    for action in range(len(table)):
        gate = table.gate(action)
        assert table.index(gate) == action
        turned = table.gate(action, [0.5] * len(gate.angles))
        assert turned.angles == (0.5,) * len(gate.angles)
        assert table.index(turned) == action
        if len(gate.qubits) == 2 and GATES[gate.name].symmetric:
            assert table.index(Gate(gate.name, gate.qubits[::-1], gate.angles)) == action
    assert len({(table.gate(a).name, table.gate(a).qubits) for a in range(len(table))}) == len(table)
    again = Alphabet.from_json(json.loads(json.dumps(table.to_json())))
    assert again == table and hash(again) == hash(table)


def test_coupling() -> None:
    table = Alphabet(4, coupling=[(1, 0), (1, 2), (3, 1), (0, 1)])
    pairs = [table.gate(a).qubits for a in range(len(table)) if table.gate(a).name == "cx"]
    assert pairs == [(0, 1), (1, 2), (1, 3), (1, 0), (2, 1), (3, 1)]
    assert len(table) == 18
    assert len(Alphabet(4, ("cz", "rx"), coupling=STAR)) == 3 + 4
    assert table != Alphabet(4)


def _slow_illegal(table: Alphabet, gates: list[Gate]) -> list[bool]:
    """The rule, word for word."""
    illegal = []
    for action in range(len(table)):
        candidate = table.gate(action)
        same = []
        for qubit in candidate.qubits:
            before = [g for g in gates if qubit in g.qubits]
            same.append(bool(before) and table.index(before[-1]) == action)
        illegal.append(all(same))
    return illegal


@given(st.sampled_from(TABLES), st.integers(0, 2**32), st.integers(1, 30))
def test_legal_is_the_rule(table: Alphabet, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    gates: list[Gate] = []
    last = table.last_of(Circuit(table.n_qubits))
    for _ in range(steps):
        legal = table.legal(last)
        assert legal.dtype == bool and legal.shape == (len(table),)
        assert (~legal).tolist() == _slow_illegal(table, gates)
        assert (~legal).sum() <= table.n_qubits
        action = int(rng.integers(len(table)))
        gates.append(table.gate(action))
        table.update(last, action)
    np.testing.assert_array_equal(last, table.last_of(Circuit(table.n_qubits, gates)))


def test_legal_by_hand() -> None:
    table = Alphabet(3)

    def legal(*gates: tuple) -> set[str]:
        mask = table.legal(table.last_of(Circuit(3, gates)))
        return {str(table.gate(a)) for a in np.flatnonzero(~mask)}

    assert legal() == set()
    assert legal(("cx", (0, 1))) == {"cx 0,1"}
    assert legal(("cx", (0, 1)), ("rx", 0, 0.3)) == {"rx(0) 0"}
    assert legal(("cx", (0, 1)), ("rx", 2, 0.3)) == {"cx 0,1", "rx(0) 2"}
    assert legal(("cx", (0, 1)), ("cx", (1, 0))) == {"cx 1,0"}
    assert legal(("cx", (0, 1)), ("cx", (1, 2))) == {"cx 1,2"}


def test_things_outside_the_table() -> None:
    table = Alphabet(4, coupling=STAR)
    for gate in [Gate("h", (0,)), Gate("cx", (0, 2)), Gate("rx", (4,), (0.0,))]:
        with pytest.raises(CircuitError, match=gate.name):
            table.index(gate)
    with pytest.raises(CircuitError, match="4 qubits"):
        table.last_of(Circuit(3))
    for action in [-1, len(table), 1.5, "cx", None]:
        with pytest.raises(QasError, match="action"):
            table.gate(action)  # type: ignore[arg-type]
    with pytest.raises(QasError):
        table.gate(0, [0.1])


@pytest.mark.parametrize(
    ("n", "gates", "coupling", "message"),
    [
        (4, SEARCH_GATES, [(0, 1), (2, 3)], "no path from qubit 0 to qubit 2"),
        (4, SEARCH_GATES, [], "no path"),
        (2, SEARCH_GATES, [(0, 2)], "0-2"),
        (2, SEARCH_GATES, [(0, 0)], "0-0"),
        (2, SEARCH_GATES, [(0, 1, 2)], "pairs"),
        (2, SEARCH_GATES, 3, "pairs"),
        (0, SEARCH_GATES, None, "qubits"),
        ("4", SEARCH_GATES, None, "qubits"),
        (1, ("cx",), None, "fits"),
        (2, (), None, "at least one"),
        (2, ("rx", "rx"), None, "once"),
    ],
)
def test_malformed_tables(n: int, gates: tuple[str, ...], coupling: object, message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        Alphabet(n, gates, coupling)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_unknown_gate() -> None:
    with pytest.raises(UnknownNameError, match="cx"):
        Alphabet(2, ("cxx",))
    with pytest.raises(QasError):
        Alphabet.from_json({"n_qubits": 2})


def test_the_two_numberings_and_what_one_alphabet_has_of_another() -> None:
    by_kind = Alphabet(4, ("cx", "rx", "cz"), ring=("cx",), order="by-kind")
    assert [str(g.qubits) for g in by_kind.placed[:5]] == ["(0, 1)", "(1, 2)", "(2, 3)", "(3, 0)", "(0,)"]
    star = Alphabet(4, ("rx", "cx"), coupling=STAR)
    tokens = by_kind.tokens_in(star)
    held = [by_kind.placed[token] for token in np.flatnonzero(tokens >= 0)]
    assert [star.placed[token] for token in tokens[tokens >= 0]] == held
    assert {g.qubits for g in held} == {(0, 1), (1, 2), (0,), (1,), (2,), (3,)}
    assert [g.qubits for g, kept in zip(by_kind.placed, by_kind.coupled([(1, 0)]), strict=True) if kept] == [
        (0, 1), (0,), (1,), (2,), (3,), (0, 1),
    ]  # fmt: skip
    table = by_kind.table()
    for token, gate in enumerate(by_kind.placed):
        assert table[by_kind.gates.index(gate.name), gate.qubits[0], gate.qubits[-1]] == token
    assert table[0, 1, 0] == -1 and table[2, 1, 0] == table[2, 0, 1] >= 0
    assert by_kind.table(either_order=True)[0, 1, 0] == table[0, 0, 1]
    assert Alphabet.from_json(by_kind.to_json()) == by_kind != Alphabet(4, ("cx", "rx", "cz"))
    with pytest.raises(UnknownNameError, match="by-kind"):
        Alphabet(2, order="by-kinds")
