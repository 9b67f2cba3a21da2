"""Circuit graphs: layout, round trips, a slow twin, the faults of the reference code, and malformed graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit, Gate
from qas.encoders import ENCODINGS, CircuitGraph, CircuitSpace, GraphBatch, GraphEncoding, load_encoding
from qas.encoders.graphs import END, START, Edge, Node, SpaceLayers
from qas.encoders.pools.spaces import PADDING
from qas.errors import CircuitError, UnknownNameError
from qas.gates import gate_spec

SPACES = {
    "4q": CircuitSpace(4, max_gates=10),
    "8q": CircuitSpace(8, max_gates=20),
    "coupled": CircuitSpace(
        5, ("rx", "cx", "cz", "rzz", "h"), max_gates=12, min_gates=0, coupling=[(0, 1), (1, 2), (1, 3), (3, 4)]
    ),
    "free": CircuitSpace(3, ("cx", "swap", "u"), max_gates=6, min_gates=0, max_depth=0, ring=()),
    "one": CircuitSpace(1, ("rx", "cx", "h"), max_gates=3, min_gates=0),
}
GRAPH_ENCODINGS = [name for name in ENCODINGS if issubclass(ENCODINGS[name], GraphEncoding)]


def load(name: str, space: CircuitSpace) -> GraphEncoding:
    encoding = load_encoding(name, space)
    assert isinstance(encoding, GraphEncoding)
    return encoding


def gate(name: str, *qubits: int) -> Gate:
    return Gate(name, qubits, (0.0,) * gate_spec(name).n_angles)


def two_qubit_space(max_gates: int = 4) -> CircuitSpace:
    return CircuitSpace(3, ("x", "rx", "cx", "cz"), max_gates=max_gates, min_gates=0, max_depth=0, ring=())


def all_rows(space: CircuitSpace) -> np.ndarray:
    """Every sequence of at most max_gates tokens, canonical ones and others."""
    found = [
        [*tokens, *[PADDING] * (space.max_gates - size)]
        for size in range(space.max_gates + 1)
        for tokens in itertools.product(range(space.n_tokens), repeat=size)
    ]
    return np.array(found)


# ---------------------------------------------------------------------- a slow twin, from the definitions
def followers(circuit: Circuit) -> nx.MultiDiGraph:
    """One edge for every wire between two gates; gate i is node i + 1."""
    graph = nx.MultiDiGraph()
    end = len(circuit) + 1
    graph.add_nodes_from(range(end + 1))
    for wire in range(circuit.n_qubits):
        on_wire = [(i + 1, g.qubits.index(wire)) for i, g in enumerate(circuit.gates) if wire in g.qubits]
        stops = [(0, wire), *on_wire, (end, wire)]
        for (a, p), (b, q) in itertools.pairwise(stops):
            graph.add_edge(a, b, source_port=p, target_port=q, wire=wire)
    return graph


def canonical(circuit: Circuit) -> Circuit:
    gates = []
    for layer, g in zip(circuit.moments, circuit.gates, strict=True):
        g = replace(g, qubits=tuple(sorted(g.qubits)), angles=g.angles) if gate_spec(g.name).symmetric else g
        gates.append((layer, g.qubits[0], g))
    return Circuit(circuit.n_qubits, [g for _, _, g in sorted(gates, key=lambda item: item[:2])])


def twin(name: str, space: CircuitSpace, circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
    circuit = canonical(circuit)
    n, kinds, size = space.n_qubits, [START, *space.gates, END], space.max_gates + 2
    features = np.zeros((size, len(kinds) + (2 * n if name == "ports" else n)))
    for node, kind in enumerate([START, *(g.name for g in circuit), END]):
        features[node, kinds.index(kind)] = 1
        if kind in (START, END):
            features[node, len(kinds) : len(kinds) + n] = 1
    for node, g in enumerate(circuit, 1):
        for port, qubit in enumerate(g.qubits):
            column = len(kinds) + qubit + (n * port if name == "ports" else 0)
            control = name == "signed" and len(g.qubits) == 2 and port == 0 and not gate_spec(g.name).symmetric
            features[node, column] = -1 if control else 1
    end = len(circuit) + 1
    adjacency = np.zeros((4 if name == "ports" else 1, size, size))
    for a, b, data in followers(circuit).edges(data=True):
        if name == "ports":
            p = 0 if a == 0 else data["source_port"]
            q = 0 if b == end else data["target_port"]
            adjacency[2 * p + q, a, b] += 1
        elif (a, b) != (0, end):
            adjacency[0, a, b] = adjacency[0, a, b] + 1 if name == "signed" else 1
    return features, adjacency


@pytest.mark.parametrize("name", GRAPH_ENCODINGS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_batches_against_the_twin(name: str, space: CircuitSpace) -> None:
    rows = space.sample(60, np.random.default_rng(1))
    encoding = load(name, space)
    batch = encoding.encode_rows(rows)
    assert batch.features.dtype == batch.adjacency.dtype == np.int8
    assert batch.features.shape == (60, encoding.n_nodes, encoding.n_features)
    assert batch.adjacency.shape == (60, encoding.n_relations, encoding.n_nodes, encoding.n_nodes)
    for row, features, adjacency, length in zip(rows, batch.features, batch.adjacency, batch.lengths, strict=True):
        circuit = space.circuit(row)
        expected = twin(name, space, circuit)
        np.testing.assert_array_equal(features, expected[0])
        np.testing.assert_array_equal(adjacency, expected[1])
        assert length == len(circuit)
    assert not np.tril(batch.adjacency).any()
    np.testing.assert_array_equal(batch.mask, batch.features.any(axis=2))


@pytest.mark.parametrize("name", GRAPH_ENCODINGS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_single_graphs_against_the_twin(name: str, space: CircuitSpace) -> None:
    encoding = load(name, space)
    for row in space.sample(25, np.random.default_rng(2)):
        circuit = canonical(space.circuit(row))
        graph = encoding.encode(circuit).to_networkx()
        wires = followers(circuit)
        names = [START, *(g.name for g in circuit), END]
        assert [graph.nodes[node]["gate"] for node in graph] == names
        if name == "ports":
            assert isinstance(graph, nx.MultiDiGraph)
            assert nx.utils.edges_equal(graph.edges(data=True), wires.edges(data=True), directed=True)
            continue
        weights = {(a, b): d["weight"] for a, b, d in graph.edges(data=True)}
        pairs = {pair for pair in wires.edges() if pair != (0, len(names) - 1)}
        assert weights == {p: wires.number_of_edges(*p) if name == "signed" else 1 for p in pairs}


def test_published_sizes() -> None:
    for n, gates, nodes, columns in [(4, 10, 12, 17), (8, 20, 22, 21), (12, 20, 22, 25)]:
        for name in ("gsqas", "signed"):
            encoding = load(name, CircuitSpace(n, max_gates=gates))
            assert (encoding.n_nodes, encoding.n_features, encoding.n_relations) == (nodes, columns, 1)


# ---------------------------------------------------------------------- round trips
@pytest.mark.parametrize("name", list(ENCODINGS))
@pytest.mark.parametrize("space", [SPACES["4q"], SPACES["8q"], SPACES["coupled"]], ids=["4q", "8q", "coupled"])
def test_round_trip_of_many_rows(name: str, space: CircuitSpace) -> None:
    rows = space.sample(3_000, np.random.default_rng(3))
    encoding = load_encoding(name, space)
    if isinstance(encoding, SpaceLayers):
        tensors = encoding.encode_rows(rows)
        assert tensors.shape == (3_000, *encoding.shape)
        for row, tensor in zip(rows[:50], tensors[:50], strict=True):
            circuit = space.circuit(row)
            np.testing.assert_array_equal(encoding.encode(circuit), tensor)
            assert encoding.decode(tensor).key == circuit.key
        return
    back = encoding.decode_rows(encoding.encode_rows(rows))
    if encoding.is_lossless:
        np.testing.assert_array_equal(back, rows)
    else:
        assert name == "gsqas" and (back != rows).any()
        for one, other in zip(encoding.encode_rows(back).features, encoding.encode_rows(rows).features, strict=True):
            assert sorted(map(bytes, one)) == sorted(map(bytes, other))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(GRAPH_ENCODINGS)), st.sampled_from(list(SPACES)), st.integers(0, 2**32), st.randoms())
def test_networkx_round_trip_under_relabelling(name: str, space_name: str, seed: int, random: object) -> None:
    space = SPACES[space_name]
    encoding = load(name, space)
    circuit = space.circuit(space.sample(1, np.random.default_rng(seed))[0])
    graph = encoding.encode(circuit)
    told = graph.to_networkx()
    assert CircuitGraph.from_networkx(told) == graph
    mixed = shuffled(told, random)
    decoded = encoding.decode(CircuitGraph.from_networkx(mixed))
    if encoding.is_lossless:
        assert decoded.key == circuit.key
        assert encoding.encode(decoded) == graph
    else:
        assert nx.is_isomorphic(encoding.encode(decoded).to_networkx(), told, node_match=lambda a, b: a == b)


def shuffled(graph: nx.DiGraph, random: object) -> nx.DiGraph:
    """The graph with other labels, its nodes and edges in another order."""
    nodes, edges = list(graph.nodes(data=True)), list(graph.edges(data=True))
    random.shuffle(nodes)  # type: ignore[attr-defined]
    random.shuffle(edges)  # type: ignore[attr-defined]
    mixed = type(graph)(**graph.graph)
    mixed.add_nodes_from((f"node {label}", data) for label, data in nodes)
    mixed.add_edges_from((f"node {a}", f"node {b}", data) for a, b, data in edges)
    return mixed


def test_ports_decode_from_topology_alone() -> None:
    for space in SPACES.values():
        encoding = load("ports", space)
        for row in space.sample(20, np.random.default_rng(5)):
            circuit = space.circuit(row)
            graph = encoding.encode(circuit)
            nodes = tuple(Node(node.gate) for node in graph.nodes)
            edges = tuple(replace(e, wire=None) for e in graph.edges)
            assert encoding.decode(CircuitGraph("ports", space.n_qubits, nodes, edges)).key == circuit.key


# ---------------------------------------------------------------------- injectivity
def batch_keys(batch: GraphBatch) -> list[bytes]:
    return [f.tobytes() + a.tobytes() for f, a in zip(batch.features, batch.adjacency, strict=True)]


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_injective_on_all_circuits_of_a_space(name: str) -> None:
    space = two_qubit_space(max_gates=2)
    rows = all_rows(space)
    encoding = load_encoding(name, space)
    encoded = encoding.encode_rows(rows)
    codes = batch_keys(encoded) if isinstance(encoded, GraphBatch) else [t.tobytes() for t in encoded]
    keys = [space.circuit(row).key for row in rows]
    pairs = set(zip(keys, codes, strict=True))
    assert len(pairs) == len(set(keys)), "one code for each key"
    assert (len(pairs) == len(set(codes))) is encoding.is_lossless is (name != "gsqas")


def test_port_edges_alone_are_injective() -> None:
    space = CircuitSpace(2, ("x", "cx", "swap"), max_gates=3, min_gates=0, max_depth=0, ring=())
    encoding = load("ports", space)
    seen: dict[object, str] = {}
    for row in all_rows(space):
        circuit = space.circuit(row)
        graph = encoding.encode(circuit)
        code = (tuple(node.gate for node in graph.nodes), tuple(replace(e, wire=None) for e in graph.edges))
        assert seen.setdefault(code, circuit.key) == circuit.key
    assert len(set(seen.values())) == len(seen)


def spaces_by_direction() -> Iterator[CircuitSpace]:
    yield CircuitSpace(3, ("cx", "x"), max_gates=2, min_gates=0, max_depth=0)
    yield CircuitSpace(2, ("cx", "x"), max_gates=2, min_gates=0, max_depth=0)
    yield CircuitSpace(2, ("cz", "x"), max_gates=2, min_gates=0, max_depth=0)
    yield CircuitSpace(3, ("cx", "x"), max_gates=2, min_gates=0, max_depth=0, ring=())
    yield CircuitSpace(3, ("cx", "cz"), max_gates=2, min_gates=0, max_depth=0, coupling=[(0, 1)])
    yield CircuitSpace(3, ("cx", "cz"), max_gates=2, min_gates=0, max_depth=0, coupling=[(0, 1)], ring="cx")
    yield CircuitSpace(1, ("cx", "x"), max_gates=2, min_gates=0)


def test_gsqas_says_where_it_is_lossless() -> None:
    verdicts = []
    for space in spaces_by_direction():
        encoding = load("gsqas", space)
        rows = np.unique(space.canonical(all_rows(space)), axis=0)
        codes = batch_keys(encoding.encode_rows(rows))
        assert encoding.is_lossless is (len(set(codes)) == len(rows))
        restored = [encoding.decode(encoding.encode(space.circuit(r))).key == space.circuit(r).key for r in rows]
        assert all(restored) is encoding.is_lossless
        verdicts.append(encoding.is_lossless)
    assert verdicts == [True, False, True, False, False, True, True]
    assert load("gsqas", SPACES["4q"]).is_lossless


def test_gsqas_takes_the_lower_control_where_the_direction_is_lost() -> None:
    free = load("gsqas", two_qubit_space())
    assert free.decode(free.encode(Circuit(3, [("cx", (2, 0))]))).gates == (gate("cx", 0, 2),)
    ring = load("gsqas", SPACES["4q"])
    assert ring.decode(ring.encode(Circuit(4, [("cx", (3, 0))]))).gates == (gate("cx", 3, 0),)


# ---------------------------------------------------------------------- the faults of the reference code
@pytest.mark.parametrize("second", ["cx", "cz"])
def test_two_consecutive_gates_on_one_pair(second: str) -> None:
    """The released builder adds an edge to the next earlier ancestor, or to START."""
    space = two_qubit_space()
    circuit = Circuit(3, [("cx", (0, 1)), (second, (0, 1))])
    assert load("gsqas", space).encode(circuit).edges == (Edge(0, 1), Edge(1, 2), Edge(2, 3))
    assert load("signed", space).encode(circuit).edges == (
        Edge(0, 1, weight=2),
        Edge(1, 2, weight=2),
        Edge(2, 3, weight=2),
    )
    ports = load("ports", space).encode(circuit)
    assert [e for e in ports.edges if (e.source, e.target) == (1, 2)] == [Edge(1, 2, 0, 0, 0), Edge(1, 2, 1, 1, 1)]
    assert [e for e in ports.edges if (e.source, e.target) == (0, 2)] == []
    assert [e for e in ports.edges if (e.source, e.target) == (0, 3)] == [Edge(0, 3, 2, 2, 2)]
    assert ports.to_networkx().number_of_edges(1, 2) == 2


def test_crossed_wires_between_two_gates() -> None:
    space = two_qubit_space()
    graph = load("ports", space).encode(Circuit(3, [("cx", (0, 1)), ("cx", (1, 0))]))
    between = [e for e in graph.edges if (e.source, e.target) == (1, 2)]
    assert between == [Edge(1, 2, 0, 1, 0), Edge(1, 2, 1, 0, 1)]
    batch = load("ports", space).encode_rows(space.row(Circuit(3, [("cx", (0, 1)), ("cx", (1, 0))]))[None])
    assert batch.adjacency[0, :, 1, 2].tolist() == [0, 1, 1, 0]


def test_an_ancestor_with_a_gate_in_between_keeps_weight_one() -> None:
    circuit = Circuit(3, [("cx", (0, 1)), ("x", 0), ("cx", (0, 1))])
    graph = load("signed", two_qubit_space()).encode(circuit)
    weights = {(e.source, e.target): e.weight for e in graph.edges}
    assert weights == {(0, 1): 2, (1, 2): 1, (1, 3): 1, (2, 3): 1, (3, 4): 2}


def test_equal_gates_are_different_nodes() -> None:
    """The released builder finds nodes by comparing gates, so that repeated ones fall together."""
    space = two_qubit_space()
    circuit = Circuit(3, [("x", 0), ("x", 0), ("x", 0), ("x", 0)])
    for name in GRAPH_ENCODINGS:
        graph = load(name, space).encode(circuit)
        pairs = [(e.source, e.target) for e in graph.edges if (e.source, e.target) != (0, 5)]
        assert pairs == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
        batch = load(name, space).encode_rows(space.row(circuit)[None])
        assert np.diagonal(batch.adjacency[0].sum(axis=0), 1).tolist() == [1] * 5


def test_circuits_that_differ_by_angles_or_order_are_one_architecture() -> None:
    """The released uniqueness check never finds a repetition: it compares gates with circuits, and angles too."""
    space = two_qubit_space()
    a = Circuit(3, [("rx", 0, 0.1), ("x", 2), ("cz", (0, 1))])
    b = Circuit(3, [("x", 2), ("rx", 0, 2.5), ("cz", (1, 0))])
    for name in GRAPH_ENCODINGS:
        assert load(name, space).encode(a) == load(name, space).encode(b)
    rows = np.stack([space.row(a), space.row(b)])
    assert len(np.unique(rows, axis=0)) == 1


# ---------------------------------------------------------------------- START, END, idle wires, permutations
def test_start_end_and_idle_wires() -> None:
    space = two_qubit_space(max_gates=2)
    for circuit in (Circuit(3), Circuit(3, [("x", 1)])):
        g = len(circuit)
        for name in GRAPH_ENCODINGS:
            encoding = load(name, space)
            graph = encoding.encode(circuit)
            assert [graph.nodes[0], graph.nodes[-1]] == [Node(START, (0, 1, 2)), Node(END, (0, 1, 2))]
            batch = encoding.encode_rows(space.row(circuit)[None])
            assert batch.lengths.tolist() == [g]
            features, kinds = batch.features[0], encoding.n_kinds
            assert features[0, :kinds].tolist() == [1] + [0] * (kinds - 1)
            assert features[g + 1, :kinds].tolist() == [0] * (kinds - 1) + [1]
            columns = [1, 1, 1, 0, 0, 0] if name == "ports" else [1, 1, 1]
            assert features[0, kinds:].tolist() == features[g + 1, kinds:].tolist() == columns
            idle = batch.adjacency[0, 0, 0, g + 1]
            assert idle == (3 - g if name == "ports" else 0)
            assert encoding.decode(graph) == circuit.with_angles([])
            assert len(batch[:1]) == 1 and len(batch[np.array([], dtype=int)]) == 0


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 2**32))
def test_permuting_qubits_permutes_columns_and_ports(order: list[int], seed: int) -> None:
    space = CircuitSpace(4, ("rx", "h", "cx", "cz"), max_gates=8, min_gates=0, max_depth=0, ring=())
    circuit = space.circuit(space.sample(1, np.random.default_rng(seed))[0])
    moved = Circuit(4, [Gate(g.name, tuple(order[q] for q in g.qubits), g.angles) for g in circuit])
    for name in GRAPH_ENCODINGS:
        encoding = load(name, space)
        here, there = (encoding.encode_rows(space.row(c)[None]) for c in (circuit, moved))
        kinds, place = encoding.n_kinds, np.argsort(order)
        blocks = np.split(here.features[0, :, kinds:], 2 if name == "ports" else 1, axis=1)
        columns = np.concatenate([block[:, place] for block in blocks], axis=1)
        rows = np.concatenate([here.features[0, :, :kinds], columns], axis=1)
        if name == "ports":
            here_rows = {tuple(sorted((tuple(r[kinds : kinds + 4]), tuple(r[kinds + 4 :])))) for r in rows}
            there_rows = there.features[0]
            assert here_rows == {
                tuple(sorted((tuple(r[kinds : kinds + 4]), tuple(r[kinds + 4 :])))) for r in there_rows
            }
        else:
            assert sorted(map(tuple, rows)) == sorted(map(tuple, there.features[0]))
        assert here.adjacency.sum() == there.adjacency.sum()
    graph = load("ports", space).encode(circuit)
    ends = {0, len(graph.nodes) - 1}
    edges = [
        replace(
            e,
            source_port=order[e.source_port] if e.source in ends else e.source_port,
            target_port=order[e.target_port] if e.target in ends else e.target_port,
            wire=None,
        )
        for e in graph.edges
        if e.source_port is not None and e.target_port is not None
    ]
    mapped = CircuitGraph("ports", 4, tuple(Node(node.gate) for node in graph.nodes), tuple(edges))
    assert load("ports", space).decode(mapped).key == moved.key


# ---------------------------------------------------------------------- errors
def test_unknown_encoding() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ports'"):
        load_encoding("port", SPACES["4q"])


def test_layers_of_too_deep_rows() -> None:
    space = SPACES["4q"]
    with pytest.raises(CircuitError, match="holds 5 layers, got a circuit of 10"):
        load_encoding("layers", space).encode_rows(np.zeros((1, 10), dtype=int))
    assert load_encoding("layers", space).encode_rows(np.zeros((0, 10), dtype=int)).shape[0] == 0


def test_malformed_port_graphs() -> None:
    space = two_qubit_space()
    encoding = load("ports", space)
    good = encoding.encode(Circuit(3, [("cx", (0, 1)), ("x", 1)]))
    nodes, edges = good.nodes, good.edges

    def refuse(why: str, nodes: tuple[Node, ...] = nodes, edges: tuple[Edge, ...] = edges) -> None:
        with pytest.raises(CircuitError, match=why) as error:
            encoding.decode(CircuitGraph("ports", 3, nodes, edges))
        assert "\n" not in str(error.value)

    refuse("one START and one END, got 0 and 1", (Node("x"), *nodes[1:]))
    refuse("one START and one END, got 1 and 2", (*nodes, Node(END)))
    refuse("the gates are x, rx, cx, cz, got foo", (nodes[0], Node("foo"), *nodes[2:]))
    refuse("the gates are x, rx, cx, cz, got swap", (nodes[0], Node("swap"), *nodes[2:]))
    refuse(
        r"enters every port of a gate; at port 1 of node 1 \(x\), got one too many", (nodes[0], Node("x"), *nodes[2:])
    )
    refuse("one edge enters every port of a gate; at port .*, got none", edges=edges[:-1])
    refuse("one edge leaves every port of a gate", edges=(*edges[:-1], replace(edges[-1], source_port=7)))
    refuse("has 6 edges, got 7", edges=(*edges, edges[0]))
    refuse("no cycle", edges=(*edges, Edge(2, 1, 0, 0)))
    refuse("edges join nodes 0..3, got 9", edges=(*edges, Edge(0, 9, 0, 0)))
    crossed = tuple(
        replace(e, target_port={0: 1, 1: 0}.get(e.target_port or 0, 2)) if e.target == 3 else e for e in edges
    )
    refuse("the wire at port 0 of END comes from START, got 1", edges=crossed)
    refuse("node of START|port", edges=())


def test_malformed_column_graphs() -> None:
    for name in ("gsqas", "signed"):
        encoding = load(name, two_qubit_space())
        good = encoding.encode(Circuit(3, [("cx", (0, 1)), ("x", 1)]))
        nodes, edges = good.nodes, good.edges

        for why, wrong in [
            ("the edges of a", replace(good, edges=edges[:-1])),
            ("the edges of a", replace(good, edges=(*edges, Edge(0, 3)))),
            ("the edges of a", replace(good, edges=(replace(edges[0], weight=3), *edges[1:]))),
            ("parallel edges", replace(good, edges=(*edges, edges[0]))),
            ("no cycle", replace(good, edges=(*edges, Edge(2, 1)))),
            ("acts on 2 qubit", replace(good, nodes=(nodes[0], Node("cx", (0,)), *nodes[2:]))),
            ("qubits are 0..2, got", replace(good, nodes=(nodes[0], Node("cx", (0, 3)), *nodes[2:]))),
            ("cx does not act on 1-1", replace(good, nodes=(nodes[0], Node("cx", (1, 1)), *nodes[2:]))),
            ("reads .* graphs of 3 qubits", replace(good, n_qubits=4)),
            ("reads .* graphs of 3 qubits", replace(good, encoding="ports")),
        ]:
            with pytest.raises(CircuitError, match=why):
                encoding.decode(wrong)
        with pytest.raises(CircuitError, match="reads a CircuitGraph, got int"):
            encoding.decode(3)  # type: ignore[arg-type]


def test_decoded_circuits_lie_in_the_space() -> None:
    wide, narrow = CircuitSpace(4, ("x",), max_gates=9, max_depth=0), CircuitSpace(4, ("x",), max_gates=9, max_depth=3)
    for name in GRAPH_ENCODINGS:
        graph = load(name, wide).encode(Circuit(4, [("x", 0)] * 5))
        with pytest.raises(CircuitError, match="at most 3 layers, got 5"):
            load(name, narrow).decode(graph)
    tensor = load_encoding("layers", two_qubit_space()).encode(Circuit(3, [("cx", (1, 0))]))
    ring = load_encoding("layers", CircuitSpace(3, ("x", "rx", "cx", "cz"), max_gates=4, max_depth=0))
    with pytest.raises(CircuitError, match="cx may act on"):
        ring.decode(tensor)


def test_malformed_networkx_graphs() -> None:
    graph = load("ports", two_qubit_space()).encode(Circuit(3, [("x", 1)])).to_networkx()
    with pytest.raises(CircuitError, match="got an undirected one"):
        CircuitGraph.from_networkx(nx.Graph())
    with pytest.raises(CircuitError, match="missing: encoding"):
        CircuitGraph.from_networkx(nx.DiGraph())
    with pytest.raises(CircuitError, match="got int"):
        CircuitGraph.from_networkx(3)
    del graph.nodes[1]["gate"]
    with pytest.raises(CircuitError, match="missing: gate"):
        CircuitGraph.from_networkx(graph)
    for _, _, data in graph.edges(data=True):
        del data["target_port"]
    graph.nodes[1]["gate"] = "x"
    with pytest.raises(CircuitError, match="missing: target_port"):
        CircuitGraph.from_networkx(graph)


@pytest.mark.parametrize("name", GRAPH_ENCODINGS)
def test_malformed_batches(name: str) -> None:
    space = SPACES["4q"]
    encoding = load(name, space)
    good = encoding.encode_rows(space.sample(5, np.random.default_rng(6)))

    def refuse(why: str, **changes: np.ndarray) -> None:
        with pytest.raises(CircuitError, match=why):
            encoding.decode_rows(replace(good, **changes))

    refuse("a batch of this encoding has features", features=good.features[:, :-1])
    refuse("a batch of this encoding has features", lengths=good.lengths[0])
    refuse("lengths are whole numbers from 0 to 10", lengths=good.lengths + 1)
    refuse("graph 0 of the batch", lengths=good.lengths - 1)
    features, adjacency = good.features.copy(), good.adjacency.copy()
    features[3, 1] = 0
    refuse("graph 3 of the batch", features=features)
    adjacency[2, 0, 0, 5] += 1
    refuse("graph 2 of the batch: its edges", adjacency=adjacency)
    assert encoding.decode_rows(good[:0]).shape == (0, 10)


def test_batches_decode_in_any_order_of_commuting_gates() -> None:
    space = two_qubit_space(max_gates=2)
    a, b = space.row(Circuit(3, [("x", 0), ("x", 1)])), space.row(Circuit(3, [("x", 1)]))
    for name in GRAPH_ENCODINGS:
        encoding = load(name, space)
        swapped = encoding.encode_rows(a[None])
        order = [0, 2, 1, 3]
        swapped = GraphBatch(swapped.features[:, order], swapped.adjacency[:, :, order][..., order], swapped.lengths)
        np.testing.assert_array_equal(encoding.decode_rows(swapped), a[None])
        np.testing.assert_array_equal(encoding.decode_rows(encoding.encode_rows(b[None])), b[None])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(GRAPH_ENCODINGS)), st.integers(0, 2**32))
def test_damaged_graphs_never_decode_to_something_else(name: str, seed: int) -> None:
    """One edge taken away or moved: an error, or a graph that is again exactly that of the decoded circuit."""
    rng = np.random.default_rng(seed)
    space = SPACES["free"]
    encoding = load(name, space)
    graph = encoding.encode(space.circuit(space.sample(1, rng)[0]))
    if not graph.edges:
        return
    edges = list(graph.edges)
    victim = int(rng.integers(len(edges)))
    target = int(rng.integers(len(graph.nodes)))
    edges[victim] = replace(edges[victim], target=target)
    damaged = replace(graph, edges=tuple(edges))
    try:
        decoded = encoding.decode(damaged)
    except CircuitError:
        return
    again = encoding.encode(decoded)
    assert nx.is_isomorphic(again.to_networkx(), damaged.to_networkx(), node_match=lambda a, b: a["gate"] == b["gate"])
