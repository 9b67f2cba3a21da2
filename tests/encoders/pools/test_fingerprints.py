"""Counts over circuits: against plain loops, and under what leaves a circuit the same."""

from __future__ import annotations

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.encoders.pools.fingerprints import fingerprints, roles
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import CircuitError
from qas.gates import GATES, gate_spec

SPACES = {
    "published": CircuitSpace(4, max_gates=10),
    "all gates": CircuitSpace(3, tuple(GATES), max_gates=12, min_gates=0, max_depth=0, ring=()),
    "one qubit": CircuitSpace(1, ("rx", "h"), max_gates=6, min_gates=0, max_depth=0),
    "one pair": CircuitSpace(2, ("cx",), max_gates=5, min_gates=1, max_depth=0),
}


def by_loops(circuit: Circuit, space: CircuitSpace) -> np.ndarray:
    """The same counts, gate by gate and wire by wire."""
    names: list[str] = []
    for name in space.gates:
        two, symmetric = gate_spec(name).n_qubits == 2, gate_spec(name).symmetric
        names += [f"{name} first", f"{name} last"] if two and not symmetric else [name]
    placed = []
    for token in space.placed:
        pair = sorted(token.qubits) if gate_spec(token.name).symmetric else list(token.qubits)
        hits = [
            g
            for g in circuit
            if g.name == token.name and (sorted(g.qubits) if gate_spec(g.name).symmetric else list(g.qubits)) == pair
        ]
        placed.append(len(hits))
    pairs = []
    for qubit in range(space.n_qubits):
        wire = ["end"]
        for g in circuit:
            if qubit in g.qubits:
                side = " first" if g.qubits[0] == qubit else " last"
                wire.append(g.name + side if len(g.qubits) == 2 and not gate_spec(g.name).symmetric else g.name)
        wire.append("end")
        steps = list(zip(wire, wire[1:], strict=False))
        pairs += [steps.count((a, b)) for a in [*names, "end"] for b in [*names, "end"]]
    return np.array(placed + pairs)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_counts_equal_plain_loops(space: CircuitSpace) -> None:
    rows = space.sample(60, np.random.default_rng(1))
    found = fingerprints(rows, space)
    assert found.dtype == np.uint8
    for row, counts in zip(rows, found, strict=True):
        np.testing.assert_array_equal(counts, by_loops(space.circuit(row), space))


def test_one_circuit_by_hand() -> None:
    space = CircuitSpace(2, ("h", "cx"), max_gates=3, min_gates=0, max_depth=0, ring=())
    first, last, count = roles(space)
    assert [(g.name, g.qubits) for g in space.placed] == [("h", (0,)), ("h", (1,)), ("cx", (0, 1)), ("cx", (1, 0))]
    assert (first.tolist(), last.tolist(), count) == ([0, 0, 1, 1], [0, 0, 2, 2], 3)
    row = space.row(Circuit(2, [("h", 0), ("cx", (0, 1)), ("cx", (1, 0))]))
    counts = fingerprints(row[None], space)[0]
    assert counts[:4].tolist() == [1, 0, 1, 1]
    wires = counts[4:].reshape(2, 4, 4)
    assert sorted(map(tuple, np.argwhere(wires).tolist())) == [
        *((0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 0)),  # start, h, control, target, end
        *((1, 1, 3), (1, 2, 1), (1, 3, 2)),  # start, target, control, end
    ]
    assert wires.max() == 1


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_counts_add_up(space: CircuitSpace) -> None:
    rows = space.sample(200, np.random.default_rng(2))
    counts = fingerprints(rows, space).astype(int)
    placed, pairs = counts[:, : space.n_tokens], counts[:, space.n_tokens :]
    _, _, roles_count = roles(space)
    pairs = pairs.reshape(len(rows), space.n_qubits, roles_count + 1, roles_count + 1)
    np.testing.assert_array_equal(placed.sum(axis=1), (rows != PADDING).sum(axis=1))
    # Every wire starts once and ends once, and what enters a role leaves it.
    assert (pairs[:, :, roles_count].sum(axis=2) == 1).all() and (pairs[:, :, :, roles_count].sum(axis=2) == 1).all()
    np.testing.assert_array_equal(pairs.sum(axis=2), pairs.sum(axis=3))
    width = np.where(space.first != space.last, 2, 1)
    np.testing.assert_array_equal(pairs.sum(axis=(1, 2, 3)), placed @ width + space.n_qubits)


def test_the_order_of_independent_gates_does_not_matter() -> None:
    space = SPACES["all gates"]
    rng = np.random.default_rng(3)
    rows = space.sample(300, rng)
    shuffled = rows.copy()
    for row in shuffled:
        for _ in range(30):
            i = int(rng.integers(space.max_gates - 1))
            a, b = row[i], row[i + 1]
            if b >= 0 and not {space.first[a], space.last[a]} & {space.first[b], space.last[b]}:
                row[i], row[i + 1] = b, a
    assert (shuffled != rows).any(axis=1).sum() > 100
    np.testing.assert_array_equal(fingerprints(shuffled, space), fingerprints(rows, space))


def test_the_order_of_other_gates_does() -> None:
    space = CircuitSpace(2, ("h", "cx"), max_gates=2, ring=())
    pairs: list[tuple[list, list]] = [
        ([("h", 0), ("cx", (0, 1))], [("cx", (0, 1)), ("h", 0)]),
        ([("cx", (0, 1)), ("h", 1)], [("cx", (1, 0)), ("h", 1)]),
        ([("h", 0), ("h", 0)], [("h", 0), ("h", 1)]),
    ]
    for one, other in pairs:
        rows = np.array([space.row(Circuit(2, one)), space.row(Circuit(2, other))])
        counts = fingerprints(rows, space)
        assert (counts[0] != counts[1]).any()


def test_long_circuits_do_not_wrap_around() -> None:
    space = CircuitSpace(1, ("x",), max_gates=300, min_gates=300, max_depth=0)
    counts = fingerprints(np.zeros((1, 300), dtype=np.int16), space)[0]
    assert counts.tolist() == [300, 299, 1, 1, 0]


def test_edge_shapes() -> None:
    space = SPACES["published"]
    _, _, count = roles(space)
    width = space.n_tokens + 4 * (count + 1) ** 2
    assert fingerprints(np.zeros((0, 10), dtype=np.int16), space).shape == (0, width)
    empty = fingerprints(np.full((1, 10), PADDING), space)
    assert empty.shape == (1, width) and empty.sum() == 4, "start and end of each wire"
    with pytest.raises(CircuitError, match="shape"):
        fingerprints(np.zeros((2, 9), dtype=np.int16), space)
