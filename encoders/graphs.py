"""Circuits as directed acyclic graphs of gates, and as layer tensors."""

from __future__ import annotations

import abc
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qas.circuits import Circuit, Gate
from qas.encoders.layers import LayerEncoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.encoders.registries import ENCODINGS
from qas.errors import CircuitError, QasError
from qas.gates import gate_spec

if TYPE_CHECKING:
    import networkx as nx

START = "START"
"""Name of the node before all gates."""
END = "END"
"""Name of the node behind all gates."""


# ---------------------------------------------------------------------- one graph
@dataclass(frozen=True, slots=True)
class Node:
    """One gate of a circuit graph, or its START or END."""

    gate: str
    """Gate name, ``"START"`` or ``"END"``."""
    qubits: tuple[int, ...] = ()
    """Qubits the gate acts on: control first (`signed`), by port (`ports`), ascending (`gsqas`); all at START, END."""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`target` is the next gate behind `source` on one wire (`ports`) or on `weight` wires (the others)."""

    source: int
    """Position of the node the edge leaves."""
    target: int
    """Position of the node it enters."""
    source_port: int | None = None
    """Which qubit of the source gate, 0 or 1; at START the qubit itself. Only `ports` has ports."""
    target_port: int | None = None
    """Which qubit of the target gate, 0 or 1; at END the qubit itself."""
    wire: int | None = None
    """The qubit; follows from the ports, and `decode` does not read it."""
    weight: int = 1
    """`signed`: number of wires on which the target directly follows the source; otherwise 1."""


@dataclass(frozen=True)
class CircuitGraph:
    """The graph of one circuit. `GraphEncoding.encode` puts START first, then the gates in canonical order, then END.

    Whether it is the graph of a circuit at all is checked by `GraphEncoding.decode`.
    """

    encoding: str
    """Name of the encoding."""
    n_qubits: int
    """Number of wires."""
    nodes: tuple[Node, ...]
    """START, gates, END; a graph read from networkx may have them in any order."""
    edges: tuple[Edge, ...]
    """Sorted."""

    def to_networkx(self) -> nx.DiGraph:
        """The graph for networkx: a MultiDiGraph for `ports`, where edges may be parallel, otherwise a DiGraph.

        Nodes 0, 1, … carry `gate` and `qubits`; edges carry `weight`, for `ports` instead `source_port`, `target_port`
        and `wire`; the graph carries `encoding` and `n_qubits`.
        """
        import networkx as nx

        ports = self.encoding == PortsEncoding.name
        kind = nx.MultiDiGraph if ports else nx.DiGraph
        graph = kind(encoding=self.encoding, n_qubits=self.n_qubits)
        for position, node in enumerate(self.nodes):
            graph.add_node(position, gate=node.gate, qubits=node.qubits)
        for e in self.edges:
            carried = (
                {"source_port": e.source_port, "target_port": e.target_port, "wire": e.wire}
                if ports
                else {"weight": e.weight}
            )
            graph.add_edge(e.source, e.target, **carried)
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph) -> CircuitGraph:
        """Read a graph such as `to_networkx` makes. Labels and order of the nodes are free; `qubits` and `wire` of a
        `ports` graph may be missing.

        Raises:
            CircuitError: an undirected graph, or attributes that are missing or of another type.
        """
        try:
            if not graph.is_directed():
                raise CircuitError("a circuit graph is directed, got an undirected one")
            ports = graph.graph["encoding"] == PortsEncoding.name
            number = {label: position for position, label in enumerate(graph)}
            nodes = tuple(Node(data["gate"], tuple(data.get("qubits", ()))) for _, data in graph.nodes(data=True))
            edges = [
                Edge(number[a], number[b], data["source_port"], data["target_port"], data.get("wire"))
                if ports
                else Edge(number[a], number[b], weight=data["weight"])
                for a, b, data in graph.edges(data=True)
            ]
            return cls(graph.graph["encoding"], graph.graph["n_qubits"], nodes, tuple(sorted(edges, key=_place)))
        except KeyError as error:
            raise CircuitError(
                "a circuit graph carries encoding and n_qubits, its nodes gate, its edges weight or source_port and "
                f"target_port; missing: {error.args[0]}"
            ) from None
        except (AttributeError, TypeError):
            raise CircuitError(
                f"a circuit graph is a networkx graph with attributes as in to_networkx, got {type(graph).__name__}"
            ) from None


# ---------------------------------------------------------------------- many graphs
@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of many circuits as arrays of equal size: B circuits, N = max_gates + 2 nodes.

    Node 0 is START, nodes 1 to g the gates in canonical order, node g + 1 is END; the rest is padding, all zero.
    """

    features: np.ndarray
    """Node rows, int8, shape (B, N, F); what the columns mean depends on the encoding."""
    adjacency: np.ndarray
    """Number of edges i -> j of each relation, int8, shape (B, R, N, N); strictly upper triangular."""
    lengths: np.ndarray
    """Number of gates g, int64, shape (B,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: slice | np.ndarray) -> GraphBatch:
        return GraphBatch(self.features[index], self.adjacency[index], self.lengths[index])

    @property
    def mask(self) -> np.ndarray:
        """True at START, gates and END, False at padding; bool, shape (B, N)."""
        return np.arange(self.features.shape[1]) < self.lengths[:, None] + 2


# ---------------------------------------------------------------------- encodings
class GraphEncoding(abc.ABC):
    """Circuits of a space as graphs: nodes are gates between a START and an END, edges lead along the wires.

    Columns of the node rows: one-hot over [START, the gates of the space in their order, END], then the qubit columns
    of the encoding.

    Args:
        space: the circuits to encode.
    """

    name: ClassVar[str]
    """Name in `qas.encoders.ENCODINGS`."""
    n_relations: ClassVar[int] = 1
    """Number of kinds of edges, R."""
    _idle_wires: ClassVar[bool] = False
    _directed: ClassVar[bool] = True

    def __init__(self, space: CircuitSpace) -> None:
        self.space = space

    @property
    def is_lossless(self) -> bool:
        """Whether `decode(encode(c))` has the architecture of `c` (`Circuit.key`) for every circuit of the space."""
        return True

    @property
    def n_nodes(self) -> int:
        """Number of nodes with START and END, N."""
        return self.space.max_gates + 2

    @property
    def n_kinds(self) -> int:
        """Number of node kinds: START, the gates, END; the one-hot part of the columns."""
        return len(self.space.gates) + 2

    @property
    def n_features(self) -> int:
        """Number of columns of the node rows, F."""
        return self._node_rows.shape[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r})"

    # ------------------------------------------------------------------ what differs between encodings
    @abc.abstractmethod
    def _columns(self, qubits: tuple[int, ...], symmetric: bool) -> np.ndarray:
        """Qubit columns of a gate, int8."""

    @abc.abstractmethod
    def _end_columns(self) -> np.ndarray:
        """Qubit columns of START and END, int8."""

    @abc.abstractmethod
    def _connect(
        self, adjacency: np.ndarray, who: np.ndarray, source: np.ndarray, port: np.ndarray, target: Any, entered: int
    ) -> None:
        """Add, for the circuits `who` (each at most once), an edge from (source, port) to (target, entered)."""

    @abc.abstractmethod
    def _first_last(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last qubit told by qubit columns, shapes (…, columns) -> (…)."""

    @abc.abstractmethod
    def _edges(self, wires: Sequence[Edge]) -> tuple[Edge, ...]:
        """The edges of the encoding, sorted, from one edge for every wire between two gates."""

    @abc.abstractmethod
    def _gates(self, graph: CircuitGraph, order: Sequence[int], ends: tuple[int, int]) -> list[Gate]:
        """The gates at the nodes `order`, a topological one, of a graph with START and END at `ends`."""

    # ------------------------------------------------------------------ many circuits
    @cached_property
    def _node_rows(self) -> np.ndarray:
        """Rows of the tokens, then START, END and padding, int8, shape (n_tokens + 3, F)."""
        kinds = np.eye(self.n_kinds, dtype=np.int8)
        rows = [
            np.concatenate([kinds[1 + kind], self._columns(gate.qubits, bool(symmetric))])
            for gate, kind, symmetric in zip(self.space.placed, self.space.kind, self.space.symmetric, strict=True)
        ]
        rows += [np.concatenate([kind, self._end_columns()]) for kind in (kinds[0], kinds[-1])]
        return np.stack([*rows, np.zeros_like(rows[0])])

    def encode_rows(self, rows: Any) -> GraphBatch:
        """The graphs of many circuits.

        Args:
            rows: whole numbers, shape (B, max_gates): rows of the space, in any order of their gates. The depth is not
                checked.

        Raises:
            CircuitError: not rows of the space.
        """
        return self._encode(self.space.canonical(rows))

    def _encode(self, rows: np.ndarray) -> GraphBatch:
        space, size = self.space, len(rows)
        everyone = np.arange(size)
        lengths = np.count_nonzero(rows != PADDING, axis=1)
        features = np.zeros((size, self.n_nodes, self.n_features), dtype=np.int8)
        features[:, 0] = self._node_rows[-3]
        features[:, 1:-1] = self._node_rows[rows]  # PADDING is -1: the last row, zeros
        features[everyone, lengths + 1] = self._node_rows[-2]
        adjacency = np.zeros((size, self.n_relations, self.n_nodes, self.n_nodes), dtype=np.int8)
        node = np.zeros((size, space.n_qubits), dtype=np.int64)  # the last node on each wire so far, and its port
        port = np.zeros_like(node)
        for position in range(rows.shape[1]):
            who = np.flatnonzero(rows[:, position] != PADDING)
            first, last = space.first[rows[who, position]], space.last[rows[who, position]]
            self._connect(adjacency, who, node[who, first], port[who, first], position + 1, 0)
            pair = first != last
            both, second = who[pair], last[pair]
            self._connect(adjacency, both, node[both, second], port[both, second], position + 1, 1)
            node[who, first] = node[who, last] = position + 1
            port[who, first] = 0
            port[both, second] = 1
        for qubit in range(space.n_qubits):
            who = everyone if self._idle_wires else np.flatnonzero(node[:, qubit])
            self._connect(adjacency, who, node[who, qubit], port[who, qubit], lengths[who] + 1, 0)
        return GraphBatch(features, adjacency, lengths)

    def decode_rows(self, batch: GraphBatch) -> np.ndarray:
        """The rows of many graphs, canonical, int16, shape (B, max_gates). Gates are read from the node rows; every
        other number has to be the one that `encode_rows` writes, except that the gates may stand in any order that
        the wires allow. The depth is not checked.

        Raises:
            CircuitError: wrong shapes, or a graph that is not that of gates of the space.
        """
        features, adjacency, lengths = self._check_batch(batch)
        kinds = features[:, 1:-1, 1 : self.n_kinds - 1].argmax(axis=2)
        rows = self._tokens[(kinds, *self._first_last(features[:, 1:-1, self.n_kinds :]))]
        padding = np.arange(self.space.max_gates) >= lengths[:, None]
        unknown = np.argwhere((rows < 0) & ~padding)
        if len(unknown):
            graph, node = unknown[0]
            raise CircuitError(f"graph {graph} of the batch: node {node + 1} is no gate of the space")
        rows[padding] = PADDING
        again = self._encode(rows)
        wrong = (again.features != features).any(axis=(1, 2)) | (again.adjacency != adjacency).any(axis=(1, 2, 3))
        if wrong.any():
            graph = int(wrong.argmax())
            what = "node rows" if (again.features[graph] != features[graph]).any() else "edges"
            raise CircuitError(f"graph {graph} of the batch: its {what} are not those of a circuit of the space")
        return self.space.canonical(rows)

    def _check_batch(self, batch: GraphBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        features, adjacency, lengths = (np.asarray(a) for a in (batch.features, batch.adjacency, batch.lengths))
        n, size = self.n_nodes, len(lengths) if lengths.ndim == 1 else -1
        shapes = (size, n, self.n_features), (size, self.n_relations, n, n)
        if size < 0 or (features.shape, adjacency.shape) != shapes:
            raise CircuitError(
                f"a batch of this encoding has features (B, {n}, {self.n_features}), adjacency (B, {self.n_relations}, "
                f"{n}, {n}) and lengths (B,), got {features.shape}, {adjacency.shape} and {lengths.shape}"
            )
        if lengths.dtype.kind not in "iu" or np.any((lengths < 0) | (lengths > self.space.max_gates)):
            told = f"{lengths.dtype} from {lengths.min()} to {lengths.max()}" if size else f"{lengths.dtype}"
            raise CircuitError(f"lengths are whole numbers from 0 to {self.space.max_gates}, got {told}")
        return features, adjacency, lengths

    @cached_property
    def _tokens(self) -> np.ndarray:
        """(kind, first, last) -> token, -1 where there is none; int16, shape (gates, n_qubits, n_qubits)."""
        return self.space.alphabet.table(either_order=not self._directed).astype(np.int16)

    # ------------------------------------------------------------------ one circuit
    def encode(self, circuit: Circuit) -> CircuitGraph:
        """The graph of a circuit; its angles are dropped.

        Raises:
            CircuitError: the space does not hold the circuit; the message says why.
        """
        gates = self.space.circuit(self.space.row(circuit)).gates
        n, end = self.space.n_qubits, len(gates) + 1
        every = tuple(range(n))
        seen = [Node(g.name, g.qubits if self._directed else tuple(sorted(g.qubits))) for g in gates]
        wires = wire_edges(n, enumerate(gates, 1), (0, end), self._idle_wires)
        return CircuitGraph(self.name, n, (Node(START, every), *seen, Node(END, every)), self._edges(wires))

    def decode(self, graph: CircuitGraph) -> Circuit:
        """The circuit of a graph, angles 0; nodes may be in any order. `gsqas` does not tell control from target: of
        the two the space then allows, the lower qubit becomes the control.

        Raises:
            CircuitError: a graph of another encoding, a cycle, not one START and one END, an unknown gate, a gate on
                the wrong number of wires, edges that do not fit the gates, or a circuit outside the space.
        """
        if not isinstance(graph, CircuitGraph):
            raise CircuitError(f"decode reads a CircuitGraph, got {type(graph).__name__}")
        if (graph.encoding, graph.n_qubits) != (self.name, self.space.n_qubits):
            raise CircuitError(
                f"this encoding reads {self.name} graphs of {self.space.n_qubits} qubits, got a graph "
                f"{graph.encoding!r} of {graph.n_qubits}"
            )
        ends = _ends(graph)
        for node in graph.nodes:
            if node.gate not in (START, END, *self.space.gates):
                raise CircuitError(f"the gates are {', '.join(self.space.gates)}, got {node.gate}")
        order = [node for node in _topological(graph) if node not in ends]
        circuit = Circuit(self.space.n_qubits, self._gates(graph, order, ends))
        self.space.row(circuit)
        return circuit


class PortsEncoding(GraphEncoding):
    """One edge for every wire between two gates, with the port it leaves and the port it enters. Lossless.

    Port 0 of a gate is its control (or first, lower qubit), port 1 its target. The topology alone tells the circuit:
    at START and END the port is the number of the qubit, and idle wires lead from START to END, so `decode` reads
    neither the qubits of the nodes nor the wires of the edges.

    2 n_qubits columns: one-hot qubit of port 0, one-hot qubit of port 1; START and END have ones in the block of port
    0 and zeros in the other. Four relations in batches: 2 p + q for an edge from port p to port q, where START and END
    count as port 0 (their ports are then told by the node rows).
    """

    name = "ports"
    n_relations = 4
    _idle_wires = True

    def _columns(self, qubits: tuple[int, ...], symmetric: bool) -> np.ndarray:
        columns = np.zeros((2, self.space.n_qubits), dtype=np.int8)
        columns[range(len(qubits)), list(qubits)] = 1
        return columns.ravel()

    def _end_columns(self) -> np.ndarray:
        return np.repeat(np.array([1, 0], dtype=np.int8), self.space.n_qubits)

    def _connect(
        self, adjacency: np.ndarray, who: np.ndarray, source: np.ndarray, port: np.ndarray, target: Any, entered: int
    ) -> None:
        adjacency[who, 2 * port + entered, source, target] += 1

    def _first_last(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        zero, one = np.split(columns, 2, axis=-1)
        first = zero.argmax(axis=-1)
        return first, np.where(one.any(axis=-1), one.argmax(axis=-1), first)

    def _edges(self, wires: Sequence[Edge]) -> tuple[Edge, ...]:
        return tuple(sorted(wires))

    def _gates(self, graph: CircuitGraph, order: Sequence[int], ends: tuple[int, int]) -> list[Gate]:
        (start, end), n = ends, graph.n_qubits
        ports = {start: (0, n), end: (n, 0)}
        ports |= {node: (gate_spec(graph.nodes[node].gate).n_qubits,) * 2 for node in order}
        entering: dict[tuple[int, Any], tuple[int, Any]] = {
            (e.target, e.target_port): (e.source, e.source_port) for e in graph.edges
        }
        leaving = {(e.source, e.source_port) for e in graph.edges}
        due_in = {(node, port) for node, (count, _) in ports.items() for port in range(count)}
        due_out = {(node, port) for node, (_, count) in ports.items() for port in range(count)}
        for side, told, due in (("enters", entering.keys(), due_in), ("leaves", leaving, due_out)):
            for node, port in sorted(told ^ due, key=str):
                got = "none" if (node, port) in due else "one too many"
                raise CircuitError(
                    f"one edge {side} every port of a gate; at port {port} of node {node} "
                    f"({graph.nodes[node].gate}), got {got}"
                )
        if len(graph.edges) != len(due_in):
            raise CircuitError(f"a graph of these gates has {len(due_in)} edges, got {len(graph.edges)}")
        wire = {(start, port): port for port in range(n)}
        gates = []
        for node in order:
            name = graph.nodes[node].gate
            spec = gate_spec(name)
            qubits = tuple(wire[entering[node, port]] for port in range(spec.n_qubits))
            wire |= {(node, port): qubit for port, qubit in enumerate(qubits)}
            gates.append(Gate(name, qubits, (0.0,) * spec.n_angles))
        for qubit in range(n):
            if wire[entering[end, qubit]] != qubit:
                raise CircuitError(
                    f"the wire at port {qubit} of END comes from START, got {wire[entering[end, qubit]]}"
                )
        return gates


# ---------------------------------------------------------------------- layers
class SpaceLayers(LayerEncoding):
    """The layer tensors of a space's circuits: `LayerEncoding` of its gates and depth, with the interface of the graph
    encodings.

    Args:
        space: the circuits to encode.
    """

    name = "layers"

    def __init__(self, space: CircuitSpace) -> None:
        super().__init__(space.n_qubits, space.gates, max_layers=space.max_depth)
        self.space = space

    def encode(self, circuit: Circuit) -> np.ndarray:
        """The tensor of `circuit`, int8, shape (max_depth, rows, n_qubits).

        Raises:
            CircuitError: the space does not hold the circuit; the message says why.
        """
        self.space.row(circuit)
        return super().encode(circuit)

    def decode(self, tensor: Any) -> Circuit:
        """The circuit of a tensor, as `LayerEncoding.decode`.

        Raises:
            CircuitError: a malformed tensor, or a circuit outside the space.
        """
        circuit = super().decode(tensor)
        self.space.row(circuit)
        return circuit

    def encode_rows(self, rows: Any) -> np.ndarray:
        """The tensors of many circuits, int8, shape (B, max_depth, rows, n_qubits).

        Args:
            rows: rows of the space, whole numbers, shape (B, max_gates).

        Raises:
            CircuitError: not rows of the space, or a circuit that is too deep.
        """
        rows = self.space.check_rows(rows)
        layers = self.space.layers(rows)
        if layers.max(initial=-1) >= self.max_layers:
            raise CircuitError(f"the encoding holds {self.max_layers} layers, got a circuit of {layers.max() + 1}")
        cells = np.stack([np.argwhere(self._one_gate(gate))[0] for gate in self.space.placed])
        tensors = np.zeros((len(rows), *self.shape), dtype=np.int8)
        circuit, position = np.nonzero(rows != PADDING)
        row, column = cells[rows[circuit, position]].T
        tensors[circuit, layers[circuit, position], row, column] = 1
        return tensors

    def _one_gate(self, gate: Gate) -> np.ndarray:
        tensor = self.empty()
        self.encode_gate_into(tensor, 0, gate)
        return tensor[0]


def load_encoding(encoding: Any, space: CircuitSpace) -> Any:
    """An encoding of the circuits of a space.

    Args:
        encoding: a name of `qas.encoders.ENCODINGS`, a class that takes a space, or an encoding of this space.
        space: the circuits to encode.

    Raises:
        UnknownNameError: no such encoding; the nearest name is suggested.
        QasError: an encoding of another space.
    """
    if isinstance(encoding, type):
        return encoding(space)
    if isinstance(encoding, str) or not hasattr(encoding, "space"):
        return ENCODINGS[encoding](space)
    if encoding.space != space:
        raise QasError(f"the encoding is for another space: {encoding.space!r}, got {space!r}")
    return encoding


# ---------------------------------------------------------------------- helpers
def _place(edge: Edge) -> tuple[Any, ...]:
    return edge.source, edge.target, edge.source_port, edge.target_port


def wire_edges(n_qubits: int, gates: Iterable[tuple[int, Gate]], ends: tuple[int, int], idle: bool) -> list[Edge]:
    """One edge for every wire between two nodes; wires without a gate have one if `idle`.

    Args:
        gates: (node, gate) in the order of the circuit.
        ends: nodes of START and END.
    """
    start, end = ends
    tips = [(start, qubit) for qubit in range(n_qubits)]
    edges = []
    for node, gate in gates:
        for port, qubit in enumerate(gate.qubits):
            edges.append(Edge(tips[qubit][0], node, tips[qubit][1], port, qubit))
            tips[qubit] = node, port
    last = enumerate(tips)
    return edges + [Edge(node, end, port, qubit, qubit) for qubit, (node, port) in last if idle or node != start]


def _ends(graph: CircuitGraph) -> tuple[int, int]:
    """Positions of START and END.

    Raises:
        CircuitError: not one of each.
    """
    names = [node.gate for node in graph.nodes]
    if names.count(START) != 1 or names.count(END) != 1:
        raise CircuitError(
            f"a circuit graph has one START and one END, got {names.count(START)} and {names.count(END)}"
        )
    return names.index(START), names.index(END)


def _topological(graph: CircuitGraph) -> list[int]:
    """The nodes in a topological order, always the same one.

    Raises:
        CircuitError: an edge to or from no node, or a cycle.
    """
    size = len(graph.nodes)
    followers: list[list[int]] = [[] for _ in range(size)]
    waiting = [0] * size
    for e in graph.edges:
        for end in (e.source, e.target):
            if type(end) is not int or not 0 <= end < size:
                raise CircuitError(f"edges join nodes 0..{size - 1}, got {end}")
        followers[e.source].append(e.target)
        waiting[e.target] += 1
    ready = [node for node in range(size) if not waiting[node]]
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for follower in followers[node]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    if len(order) < size:
        raise CircuitError(f"a circuit graph has no cycle, got one through {size - len(order)} nodes or fewer")
    return order


def edge_metrics(predicted: np.ndarray, true: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Edges against predictions, shapes (B, N, N), over the pairs of nodes i < j; see `evaluate_encoder`.

    A rate of nothing (no predicted edge, no true edge, no pair without) is 1 for precision and recall, 0 otherwise.
    """
    i, j = np.triu_indices(true.shape[1], 1)
    values, joined = predicted[:, i, j].astype(np.float64), true[:, i, j] > 0
    hit = values > threshold
    right, n_hit, n_joined = (int(np.count_nonzero(a)) for a in (hit & joined, hit, joined))
    apart = joined.size - n_joined
    return {
        "adjacency_accuracy": float((hit == joined).mean()),
        "edge_precision": right / n_hit if n_hit else 1.0,
        "edge_recall": right / n_joined if n_joined else 1.0,
        "edge_false_positive_rate": (n_hit - right) / apart if apart else 0.0,
        "falpos_mean": float(values[~joined].mean()) if apart else 0.0,
        "mean_edge": float(values[joined].mean()) if n_joined else 1.0,
    }
