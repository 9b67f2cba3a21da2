"""The encodings and models of older papers, kept to read and reproduce these; new work uses `ports` and `gvae`.

The encodings ``gsqas`` and ``signed``, and the autoencoders ``url-v1`` and ``url-v3``, which decode node types, qubit
columns and edges side by side, so that these need not fit together.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qas.checks import finite_output
from qas.circuits import Gate
from qas.encoders.autoencoder import Autoencoder, Batch, Grammar, kl_divergence, reset_linear, sampled
from qas.encoders.graphs import CircuitGraph, Edge, GraphBatch, GraphEncoding, Node, edge_metrics, wire_edges
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import CircuitError
from qas.gates import gate_spec


# ---------------------------------------------------------------------- encodings
class _ColumnEncoding(GraphEncoding):
    """Encodings that tell the qubits by columns of the node rows and have at most one edge between two gates."""

    def _end_columns(self) -> np.ndarray:
        return np.ones(self.space.n_qubits, dtype=np.int8)

    def _gates(self, graph: CircuitGraph, order: Sequence[int], ends: tuple[int, int]) -> list[Gate]:
        gates = [self._gate(graph.nodes[node]) for node in order]
        wires = wire_edges(graph.n_qubits, zip(order, gates, strict=True), ends, self._idle_wires)
        due = {(e.source, e.target): e.weight for e in self._edges(wires)}
        told = {(e.source, e.target): e.weight for e in graph.edges}
        for pair in sorted(due.keys() | told.keys()):
            if due.get(pair, 0) != told.get(pair, 0):
                raise CircuitError(
                    f"the edges of a {self.name} graph follow its gates: nodes {pair[0]} and {pair[1]} are joined by an"
                    f" edge of weight {due.get(pair, 0)}, got {told.get(pair, 0)}"
                )
        if len(told) < len(graph.edges):
            raise CircuitError(f"a {self.name} graph has at most one edge between two nodes, got parallel edges")
        return gates

    def _gate(self, node: Node) -> Gate:
        qubits = tuple(node.qubits)
        if len(qubits) != gate_spec(node.gate).n_qubits:
            raise CircuitError(f"{node.gate} acts on {gate_spec(node.gate).n_qubits} qubit(s), got {qubits}")
        if any(type(q) is not int or not 0 <= q < self.space.n_qubits for q in qubits):
            raise CircuitError(f"qubits are 0..{self.space.n_qubits - 1}, got {qubits} in {node.gate}")
        low, high = (qubits[0], qubits[-1]) if self._directed else (min(qubits), max(qubits))
        token = int(self._tokens[self.space.gates.index(node.gate), low, high])
        if token < 0:
            raise CircuitError(f"{node.gate} does not act on {'-'.join(map(str, qubits))} in this space")
        return self.space.placed[token]


class GsqasEncoding(_ColumnEncoding):
    """The encoding of GSQAS and of the first versions of the QAS-URL paper.

    n_qubits columns: 1 on every qubit of a gate, all ones at START and END. Adjacency: 1 where a gate directly follows
    another on at least one wire. Idle wires leave no edge.

    The roles of control and target are lost, hence lossless only in spaces where every such gate acts in one
    direction on a pair (as CNOT on a ring of three or more qubits). Elsewhere the order of the nodes, which inside a
    layer goes by control, may still hint at them; `decode` does not use it.

    References:
        He et al., "GSQAS: graph self-supervised quantum architecture search", arXiv:2303.12381; Sun et al.,
        arXiv:2401.11576v2, section 4.1.
    """

    name = "gsqas"
    _directed = False

    @property
    def is_lossless(self) -> bool:
        """Whether every directed gate of the space may act on each pair in one direction only."""
        places = Counter((g.name, frozenset(g.qubits)) for g in self.space.placed)
        return max(places.values()) == 1

    def _columns(self, qubits: tuple[int, ...], symmetric: bool) -> np.ndarray:
        columns = np.zeros(self.space.n_qubits, dtype=np.int8)
        columns[list(qubits)] = 1
        return columns

    def _connect(
        self, adjacency: np.ndarray, who: np.ndarray, source: np.ndarray, port: np.ndarray, target: Any, entered: int
    ) -> None:
        adjacency[who, 0, source, target] = 1

    def _first_last(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _lowest_highest(columns)

    def _edges(self, wires: Sequence[Edge]) -> tuple[Edge, ...]:
        return tuple(Edge(a, b) for a, b in sorted(_successions(wires)))


class SignedEncoding(_ColumnEncoding):
    """The encoding of the later versions of the QAS-URL paper.

    n_qubits columns: control -1, target +1; both qubits of a symmetric gate and the one of a one-qubit gate +1; all
    ones at START and END. Adjacency: the number of wires, 1 or 2, on which a gate directly follows another (1 for
    ``cx 0,1; x 0; cx 0,1`` from the first CNOT to the second, although they share two qubits); START and END count in
    the same way. Idle wires leave no edge. Lossless: the node rows alone tell the circuit.

    References:
        Sun, Wu, Ma, Tresp, "Quantum architecture search with unsupervised representation learning", arXiv:2401.11576,
        section 4.1.
    """

    name = "signed"

    def _columns(self, qubits: tuple[int, ...], symmetric: bool) -> np.ndarray:
        columns = np.zeros(self.space.n_qubits, dtype=np.int8)
        columns[list(qubits)] = 1
        if len(qubits) == 2 and not symmetric:
            columns[qubits[0]] = -1
        return columns

    def _connect(
        self, adjacency: np.ndarray, who: np.ndarray, source: np.ndarray, port: np.ndarray, target: Any, entered: int
    ) -> None:
        adjacency[who, 0, source, target] += 1

    def _first_last(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        directed = (columns < 0).any(axis=-1)
        low, high = _lowest_highest(columns)
        return np.where(directed, columns.argmin(axis=-1), low), np.where(directed, columns.argmax(axis=-1), high)

    def _edges(self, wires: Sequence[Edge]) -> tuple[Edge, ...]:
        return tuple(Edge(a, b, weight=count) for (a, b), count in sorted(_successions(wires).items()))


def _lowest_highest(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = columns != 0
    return used.argmax(axis=-1), columns.shape[-1] - 1 - used[..., ::-1].argmax(axis=-1)


def _successions(wires: Iterable[Edge]) -> Counter[tuple[int, int]]:
    """On how many wires one node directly follows another."""
    return Counter((e.source, e.target) for e in wires)


# ---------------------------------------------------------------------- models
@dataclass(frozen=True)
class Parts:
    """What a decoder says of every node and pair of nodes, before anything is rounded."""

    kinds: Tensor
    """Scores of the node types [START, gates, END], shape (B, N, K)."""
    qubits: Tensor
    """Qubit columns, shape (B, N, n_qubits): probabilities (`url-v1`) or values from -1 to 1 (`url-v3`)."""
    adjacency: Tensor
    """Edges, shape (B, N, N): probabilities (`url-v1`) or weights (`url-v3`)."""


class GinLayer(nn.Module):
    """One layer of a graph isomorphism network: ReLU(BN(MLP((1 + eps) h + A h))).

    The MLP is linear, BatchNorm, ReLU, linear; eps is learned and starts at 0.

    References:
        Xu et al., "How powerful are graph neural networks?", arXiv:1810.00826, equation 4.1.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.inner = nn.Linear(inputs, width)
        self.inner_norm = nn.BatchNorm1d(width)
        self.outer = nn.Linear(width, width)
        self.outer_norm = nn.BatchNorm1d(width)

    def forward(self, h: Tensor, adjacency: Tensor) -> Tensor:
        """New node states, shape (B, N, width), from states (B, N, inputs) and symmetric edges (B, N, N)."""
        mixed = torch.baddbmm(h, adjacency, h) + self.eps * h
        flat = mixed.flatten(0, 1)
        flat = self.outer(functional.relu(self.inner_norm(self.inner(flat))))
        return functional.relu(self.outer_norm(flat)).unflatten(0, h.shape[:2])


class PublishedModel(Autoencoder):
    """The encoder both published models share: four GIN layers on A + Aᵀ; decoders read every node, START to END."""

    hidden: ClassVar[int] = 128
    n_layers: ClassVar[int] = 4
    signed: ClassVar[bool]
    """Whether qubit columns are negative on controls."""
    batch_size = 32
    learning_rate = 1e-3
    clip = 5.0

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, encoding.n_nodes, d)
        self.n_kinds = encoding.n_kinds
        widths = [encoding.n_features] + [self.hidden] * self.n_layers
        self.layers = nn.ModuleList(GinLayer(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def _add_heads(self, generator: torch.Generator) -> None:
        self.mu = nn.Linear(self.hidden, self.d)
        self.log_sigma = nn.Linear(self.hidden, self.d)
        self.columns = nn.Linear(self.d, self.encoding.n_features)
        reset_linear(self, generator)

    @property
    def sizes(self) -> dict[str, Any]:
        return {"d": self.d}

    def _states(self, features: Tensor, adjacency: Tensor) -> list[Tensor]:
        edges = adjacency[:, 0]
        edges = edges + edges.transpose(1, 2)
        states = [features]
        for layer in self.layers:
            states.append(layer(states[-1], edges))
        return states[1:]

    @abc.abstractmethod
    def parts(self, z: Tensor) -> Parts:
        """Decode latents of shape (B, N, d)."""

    def optimizer(self, rate: float, steps: int) -> tuple[torch.optim.Optimizer, None]:
        """Adam at one rate, as published."""
        return torch.optim.Adam(self.parameters(), lr=rate, fused=True), None

    def decode(self, z: Tensor, grammar: Grammar, either_order: bool) -> tuple[np.ndarray, np.ndarray]:
        parts = self.parts(z)
        finite_output("the encoder", parts.kinds)
        finite_output("the encoder", parts.qubits)
        return read_parts(parts, self.space, self.signed, grammar.allowed, either_order)

    def label_validity(self, z: Tensor) -> float:
        kinds = self.parts(z).kinds.numpy().argmax(2)
        end = self.n_kinds - 1
        length = (kinds[:, 1:] == end).argmax(1)
        inside = np.arange(kinds.shape[1] - 1) < length[:, None]
        gates = (kinds[:, 1:] > 0) & (kinds[:, 1:] < end)
        ended = (kinds[:, 1:] == end).any(1)
        return float(((kinds[:, 0] == 0) & ended & (gates | ~inside).all(1)).mean())

    def accuracies(self, graphs: GraphBatch, means: Tensor) -> dict[str, float | None]:
        parts, k = self.parts(means), self.n_kinds
        kinds, qubits = parts.kinds.numpy().argmax(2), parts.qubits.numpy()
        nodes = graphs.mask
        levels = np.rint(qubits) if self.signed else (qubits > 0.5)
        right = levels == graphs.features[..., k:]
        gates = nodes.copy()
        gates[:, 0] = False
        gates[np.arange(len(graphs)), graphs.lengths + 1] = False
        return {
            "gate_accuracy": float((kinds == graphs.features[..., :k].argmax(2))[nodes].mean()),
            "qubit_accuracy": float(right.all(2)[gates].mean()) if gates.any() else 1.0,
            "qubit_entry_accuracy": float(right[nodes].mean()),
            **edge_metrics(parts.adjacency.numpy(), graphs.adjacency.sum(axis=1)),
        }


class UrlV1(PublishedModel):
    """The model released with the first versions of the paper, after arch2vec.

    The release is not fully told by text; where "as published" needed a decision:

    - the head called "logvar" is log sigma: its exponential multiplies the noise, and the divergence agrees;
    - dropout (0.3, scaled by 1/0.7) acts on z once, and both decoders read the thinned z;
    - the soft-max named in the release's configuration is not applied: both blocks of columns pass a sigmoid;
    - both cross-entropies are means over all entries; that of the edges counts the lower triangle and the diagonal as
      zeros that are met exactly, so the sum over pairs i < j is divided by B N²;
    - the divergence is 1/(B N) times the mean over nodes, with the size of the batch at hand, smaller in the last one;
    - nodes behind END (circuits with fewer gates than the space allows; the paper has none) are learned like others,
      with rows and edges of zeros;
    - nodes stand in canonical order instead of the order of drawing, and the spurious edges of the released builder
      are not made.

    Reads the encoding ``gsqas``; its latents are those of all nodes, START and END included.

    References:
        Sun, Wu, Ma, Tresp, arXiv:2401.11576v2; Yan et al., "Does unsupervised architecture representation learning
        help neural architecture search?", arXiv:2006.06936.
    """

    name = "url-v1"
    signed = False
    reads = "gsqas"
    dropout: ClassVar[float] = 0.3

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, generator, d)
        self._add_heads(generator)

    def encode(self, features: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        h = self._states(features, adjacency)[-1]
        return self.mu(h), self.log_sigma(h)

    def loss(self, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        mu, log_sigma = self.encode(batch.features, batch.adjacency)
        z = sampled(mu, log_sigma, generator)
        kept = torch.rand(z.shape, generator=generator) >= self.dropout
        z = z * kept / (1.0 - self.dropout)
        columns = functional.binary_cross_entropy_with_logits(self.columns(z), batch.features)
        products = torch.bmm(z, z.transpose(1, 2))
        pairs = functional.binary_cross_entropy_with_logits(products, batch.adjacency[:, 0], reduction="none")
        edges = pairs.triu(1).mean()
        kl = kl_divergence(mu, log_sigma).sum(2).mean()
        return columns + edges + self.beta(*mu.shape[:2]) * kl, {"columns": columns, "edges": edges, "kl": kl}

    @staticmethod
    def beta(batch: int, nodes: int) -> float:
        """Weight of the mean divergence of a node, 1 / (batch * nodes)."""
        return 1.0 / (batch * nodes)

    def parts(self, z: Tensor) -> Parts:
        columns = torch.sigmoid(self.columns(z))
        edges = torch.sigmoid(torch.bmm(z, z.transpose(1, 2)))
        return Parts(columns[..., : self.n_kinds], columns[..., self.n_kinds :], edges)


class UrlV3(PublishedModel):
    """The model of the later versions of the paper: a fusion layer, and a decoder for signed qubits and weighted edges.

    Types are softmax(F2(z_i)), qubits tanh(F2(z_i)), edges ReLU(F1(z_i · z_j)). The paper leaves open, and this class
    decides: the fusion concatenates the outputs of the four layers into one linear layer with ReLU; F1 is one slope
    and offset; losses are cross-entropies of the type, of the sign of each qubit in {-1, 0, 1} and of the weight of
    each pair i < j in {0, 1, 2}, where a value v has the logits -(v - k)² / τ with τ learned; pairs with an edge weigh
    three times as much; the ReLU keeps a slope of 0.01 below zero in training, so that no pair is lost for good; the
    divergence has the weight 1/(32 N), with a linear warm-up over the first fifth of the training. Nodes behind END
    are left out of all but the edges.

    Reads the encoding ``signed``; its latents are those of all nodes, START and END included.

    References:
        Sun, Wu, Ma, Tresp, "Quantum architecture search with unsupervised representation learning", arXiv:2401.11576.
    """

    name = "url-v3"
    signed = True
    reads = "signed"

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, generator, d)
        self.fusion = nn.Linear(self.n_layers * self.hidden, self.hidden)
        self._add_heads(generator)
        self.slope = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.log_tau = nn.Parameter(torch.full((2,), -1.0))

    def encode(self, features: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        h = functional.relu(self.fusion(torch.cat(self._states(features, adjacency), dim=2)))
        return self.mu(h), self.log_sigma(h)

    def loss(self, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        mu, log_sigma = self.encode(batch.features, batch.adjacency)
        z = sampled(mu, log_sigma, generator)
        columns = self.columns(z)
        kinds, signs = batch.features[..., : self.n_kinds], batch.features[..., self.n_kinds :]
        real = kinds.sum(2) > 0
        types = functional.cross_entropy(columns[real][:, : self.n_kinds], kinds[real].argmax(1))
        tau = torch.exp(self.log_tau)
        qubits = _nearest_loss(torch.tanh(columns[real][:, self.n_kinds :]), signs[real], (-1.0, 0.0, 1.0), tau[0])
        i, j = np.triu_indices(z.shape[1], 1)
        weights = batch.adjacency[:, 0, i, j]
        values = functional.leaky_relu(self.slope * (z[:, i] * z[:, j]).sum(2) + self.offset, 0.01)
        edges = _nearest_loss(values, weights, (0.0, 1.0, 2.0), tau[1], 1.0 + 2.0 * (weights > 0))
        kl = kl_divergence(mu, log_sigma).sum(2).mean()
        beta = min(1.0, 5.0 * progress) / (32 * z.shape[1])
        return types + qubits + edges + beta * kl, {"types": types, "qubits": qubits, "edges": edges, "kl": kl}

    def parts(self, z: Tensor) -> Parts:
        columns = self.columns(z)
        edges = functional.relu(self.slope * torch.bmm(z, z.transpose(1, 2)) + self.offset)
        return Parts(columns[..., : self.n_kinds].softmax(2), torch.tanh(columns[..., self.n_kinds :]), edges)


def _nearest_loss(
    values: Tensor, targets: Tensor, classes: tuple[float, ...], tau: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of classes on a line, logits -(value - class)² / tau; all of the shape of `values`."""
    levels = values.new_tensor(classes)
    log_p = functional.log_softmax(-((values.unsqueeze(-1) - levels) ** 2) / tau, dim=-1)
    chosen = (targets - classes[0]).long().clamp_(0, len(classes) - 1)
    loss = -log_p.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    return loss.mean() if weight is None else (weight * loss).sum() / weight.sum()


# ---------------------------------------------------------------------- circuits of what a model decodes
def read_parts(
    parts: Parts, space: CircuitSpace, signed: bool, allowed: np.ndarray, either_order: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (not canonical; all padding where there is no circuit) and whether there is one, by the published rule.

    Args:
        parts: of B circuits.
        signed: whether qubit columns are negative on controls.
        allowed: which tokens may occur, bool, shape (n_tokens,).
        either_order: accept the other order of two qubits where the space has only that one.
    """
    kinds = parts.kinds.numpy().argmax(2)
    values = parts.qubits.numpy()
    end = len(space.gates) + 1
    has_end = (kinds[:, 1:] == end).any(1)
    length = (kinds[:, 1:] == end).argmax(1)
    inside = np.arange(space.max_gates) < length[:, None]
    kind = kinds[:, 1:-1] - 1
    first, last = _strongest(values[:, 1:-1], signed)
    single = np.array([gate_spec(name).n_qubits == 1 for name in space.gates])
    is_gate = (kind >= 0) & (kind < len(space.gates))
    kind = np.where(is_gate, kind, 0)
    last = np.where(single[kind], values[:, 1:-1].argmax(2), last)
    first = np.where(single[kind], last, first)
    table = space.alphabet.table(allowed, either_order=either_order)
    token = np.where(is_gate, table[kind, first, last], -1)
    built = has_end & (kinds[:, 0] == 0) & ((token >= 0) | ~inside).all(1)
    rows = np.where(inside & built[:, None], token, PADDING).astype(np.int16)
    built &= space.layers(rows).max(axis=1, initial=-1) < space.max_depth
    rows[~built] = PADDING
    return rows, built


def _strongest(values: np.ndarray, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """First and second qubit told by qubit columns, shape (B, N, n_qubits) -> (B, N)."""
    if values.shape[2] == 1:
        return np.zeros(values.shape[:2], dtype=np.int64), np.zeros(values.shape[:2], dtype=np.int64)
    order = np.argsort(-np.abs(values), axis=2, kind="stable")
    first, last = order[..., 0], order[..., 1]
    if signed:
        one, two = (np.take_along_axis(values, q[..., None], axis=2)[..., 0] for q in (first, last))
        first, last = np.where(one <= two, first, last), np.where(one <= two, last, first)
    return first, last
