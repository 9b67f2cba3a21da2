"""Variational graph autoencoders of circuits: two as published, and one whose decoder cannot leave the space.

All of them take the arrays of a `GraphEncoding` and have gaussian latents for each node. `url-v1` and `url-v3` decode
node types, qubit columns and edges side by side, which need not fit together; `gvae` decodes gates under a grammar.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qas.checks import whole_number
from qas.encoders.graphs import GraphEncoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import QasError, UnknownNameError

LATENT_LIMIT = 100.0
"""Latents are cut to this size before decoding; those of circuits stay below 10."""

_CHUNK = 4096
_LARGEST = 100_000


@dataclass(frozen=True)
class Batch:
    """One minibatch of B circuits, N = max_gates + 2 nodes."""

    features: Tensor
    """Node rows, float32, shape (B, N, F)."""
    adjacency: Tensor
    """Edges i -> j of each relation, float32, shape (B, R, N, N)."""
    tokens: Tensor
    """Tokens of the gates, n_tokens behind the last gate, int64, shape (B, max_gates)."""
    profile: Tensor | None = None
    """Centred functional profile (`qas.encoders.profiles.profiles`), float32, shape (B, P)."""


@dataclass(frozen=True)
class Parts:
    """What a decoder says of every node and pair of nodes, before anything is rounded."""

    kinds: Tensor
    """Scores of the node types [START, gates, END], shape (B, N, K)."""
    qubits: Tensor
    """Qubit columns, shape (B, N, n_qubits): probabilities (`url-v1`) or values from -1 to 1 (`url-v3`)."""
    adjacency: Tensor
    """Edges, shape (B, N, N): probabilities (`url-v1`) or weights (`url-v3`)."""


class Autoencoder(nn.Module, abc.ABC):
    """Base of the models.

    Args:
        encoding: the graphs it reads.
        generator: source of the initial weights.
        d: numbers in the latent of one node; default 16 up to 4 qubits, otherwise 32.

    Raises:
        QasError: sizes out of range.
    """

    name: ClassVar[str]
    """Name in `MODELS`."""
    grammatical: ClassVar[bool] = False
    """Whether every latent decodes to a circuit of the space."""
    n_latents: int
    """Nodes that have a latent, L."""
    latent_mean: Tensor
    """Mean of mu over the training circuits, shape (L, d)."""
    latent_std: Tensor
    """Its standard deviation, shape (L, d)."""

    def __init__(self, encoding: GraphEncoding, n_latents: int, d: int | None) -> None:
        super().__init__()
        self.encoding = encoding
        self.space: CircuitSpace = encoding.space
        self.n_latents = n_latents
        self.d = (16 if self.space.n_qubits <= 4 else 32) if d is None else _size("d", d)
        self.register_buffer("latent_mean", torch.zeros(n_latents, self.d))
        self.register_buffer("latent_std", torch.ones(n_latents, self.d))

    @property
    @abc.abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Arguments that build the same model again, JSON-able."""

    @abc.abstractmethod
    def encode(self, features: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latents, both of shape (B, L, d)."""

    @abc.abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a minibatch, and its parts for the log.

        Args:
            generator: source of the noise.
            progress: share of the training that is done, 0 to 1; for warm-ups.
        """

    def n_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.parameters())


def _size(what: str, value: Any, least: int = 1) -> int:
    number = whole_number(what, value, least)
    if number > _LARGEST:
        raise QasError(f"sizes of a model are at most {_LARGEST}, got {what} = {number}")
    return number


def _weight(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise QasError(f"{what} is a number from 0, got {value!r}")
    return float(value)


# ---------------------------------------------------------------------- parts of models
def kl_divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Divergence of N(mu, sigma²) from N(0, 1), nats, elementwise."""
    return 0.5 * (mu * mu + torch.exp(2.0 * log_sigma) - 1.0) - log_sigma


def sampled(mu: Tensor, log_sigma: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from N(mu, sigma²), same shape."""
    return mu + torch.exp(log_sigma) * torch.randn(mu.shape, generator=generator)


def reset_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights and biases of all linear layers anew, uniform within ± fan_in ** -0.5."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)


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


class RelationalLayer(nn.Module):
    """A graph isomorphism layer with an own linear map for every relation and direction, and a skip connection.

    h + MLP(LN((1 + eps) h + sum_r W_r A_r P h)): messages are narrowed by one map P that all relations share.
    """

    def __init__(self, width: int, message: int, relations: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.narrow = nn.Linear(width, message, bias=False)
        self.mix = nn.Linear(relations * message, width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        """New node states from states (B, N, width) and edges into i of every relation (B, N * relations, N)."""
        told = torch.bmm(edges, self.narrow(h)).view(h.shape[0], h.shape[1], -1)
        mixed = self.norm((1.0 + self.eps) * h + self.mix(told))
        return h + self.outer(functional.silu(self.inner(mixed)))


# ---------------------------------------------------------------------- the published models
class _PublishedModel(Autoencoder):
    """The encoder both published models share: four GIN layers on A + Aᵀ; decoders read every node, START to END."""

    hidden: ClassVar[int] = 128
    n_layers: ClassVar[int] = 4
    reads: ClassVar[str]

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, encoding.n_nodes, d)
        if encoding.name != self.reads:
            raise QasError(f"the model {self.name} reads the encoding {self.reads}, got {encoding.name}")
        self.n_kinds = encoding.n_kinds
        widths = [encoding.n_features] + [self.hidden] * self.n_layers
        self.layers = nn.ModuleList(GinLayer(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

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


class UrlV1(_PublishedModel):
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
    reads = "gsqas"
    dropout: ClassVar[float] = 0.3

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, generator, d)
        self.mu = nn.Linear(self.hidden, self.d)
        self.log_sigma = nn.Linear(self.hidden, self.d)
        self.columns = nn.Linear(self.d, encoding.n_features)
        reset_linear(self, generator)

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


class UrlV3(_PublishedModel):
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
    reads = "signed"

    def __init__(self, encoding: GraphEncoding, generator: torch.Generator, d: int | None = None) -> None:
        super().__init__(encoding, generator, d)
        self.fusion = nn.Linear(self.n_layers * self.hidden, self.hidden)
        self.mu = nn.Linear(self.hidden, self.d)
        self.log_sigma = nn.Linear(self.hidden, self.d)
        self.columns = nn.Linear(self.d, encoding.n_features)
        reset_linear(self, generator)
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


# ---------------------------------------------------------------------- our model
class Gvae(Autoencoder):
    """Relational, bidirectional graph encoder with layer fusion; a decoder of one placed gate for every latent.

    The latents are those of the positions 1 to max_gates; START and END only pass messages. A latent alone scores all
    placed gates and "end" (`scores`), and `Grammar.decode` turns the scores of all positions into a circuit of the
    space, whatever they are.

    Training: cross-entropy of the tokens from a sampled latent; the divergence from N(0, 1), of which `free_nats` for
    each node are free, with a linear warm-up of its weight over the first fifth; and, so that the mean over the
    nodes tells more than which gates there are, a head that predicts the functional profile of the circuit from it.
    For it every latent also sees the mean state of all nodes.

    Args:
        width: of node states.
        message: of narrowed messages.
        n_layers: number of message passing layers.
        beta: weight of the divergence beside the cross-entropy of a token, both nats.
        free_nats: divergence per node, in the mean over a batch, that costs nothing.
        n_profile: size of the functional profile; 0 without that head.
        profile_weight: of the mean squared error of the profile, whose variance is 1.
    """

    name = "gvae"
    grammatical = True

    def __init__(
        self,
        encoding: GraphEncoding,
        generator: torch.Generator,
        d: int | None = None,
        width: int = 80,
        message: int = 24,
        n_layers: int = 5,
        beta: float = 0.005,
        free_nats: float = 4.0,
        n_profile: int = 0,
        profile_weight: float = 5.0,
    ) -> None:
        super().__init__(encoding, encoding.n_nodes - 2, d)
        self.width, self.message = _size("width", width), _size("message", message)
        self.n_layers, self.n_profile = _size("n_layers", n_layers), _size("n_profile", n_profile, 0)
        self.beta, self.free_nats = _weight("beta", beta), _weight("free_nats", free_nats)
        self.profile_weight = _weight("profile_weight", profile_weight)
        self.enter = nn.Linear(encoding.n_features, width)
        relations = 2 * encoding.n_relations
        self.layers = nn.ModuleList(RelationalLayer(width, message, relations) for _ in range(n_layers))
        self.fusion = nn.Linear((n_layers + 1) * width, width)
        self.context = nn.Linear(width, width)
        self.mu = nn.Linear(width, self.d)
        self.log_sigma = nn.Linear(width, self.d)
        self.opened = nn.Linear(self.d, width)
        self.tokens = nn.Linear(width, self.space.n_tokens + 1)
        self.profile = (
            nn.Sequential(nn.Linear(self.d, width), nn.SiLU(), nn.Linear(width, n_profile)) if n_profile else None
        )
        reset_linear(self, generator)

    @property
    def sizes(self) -> dict[str, Any]:
        names = ("d", "width", "message", "n_layers", "beta", "free_nats", "n_profile", "profile_weight")
        return {name: getattr(self, name) for name in names}

    def encode(self, features: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        edges = torch.cat([adjacency, adjacency.transpose(2, 3)], dim=1).transpose(1, 2).flatten(1, 2)
        h = self.enter(features)
        states = [h]
        for layer in self.layers:
            h = layer(h, edges)
            states.append(h)
        fused = self.fusion(torch.cat(states, dim=2)[:, 1:-1]) + self.context(h.mean(1, keepdim=True))
        fused = functional.silu(fused)
        return self.mu(fused), self.log_sigma(fused)

    def drop_profile(self) -> None:
        """Forget the head that only training needs."""
        self.profile, self.n_profile = None, 0

    def scores(self, z: Tensor) -> Tensor:
        """Score of every placed gate, then of "end", shape (B, L, n_tokens + 1), from latents (B, L, d)."""
        return self.tokens(functional.silu(self.opened(z)))

    def loss(self, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        mu, log_sigma = self.encode(batch.features, batch.adjacency)
        z = sampled(mu, log_sigma, generator)
        tokens = functional.cross_entropy(self.scores(z).flatten(0, 1), batch.tokens.flatten())
        kl = kl_divergence(mu, log_sigma).sum(2).mean()
        beta = self.beta * min(1.0, 5.0 * progress)
        loss = tokens + beta * functional.relu(kl - self.free_nats)
        told = {"tokens": tokens, "kl": kl}
        if self.profile is not None and batch.profile is not None:
            error = functional.mse_loss(self.profile(z.mean(1)), batch.profile)
            loss, told["profile"] = loss + self.profile_weight * error, error
        return loss, told


class Grammar:
    """Turns scores of placed gates into circuits of a space, whatever the scores are.

    Positions are filled in order. Each takes the gate, or "end", of the highest score (of equal ones the first) among
    those that are allowed: a gate may not exceed the depth, nor leave too little room for `min_gates`; "end" is
    allowed from `min_gates` on. Where nothing is allowed the circuit ends.

    The room is counted exactly where every qubit may carry one-qubit gates: each free layer on a qubit holds one.
    Other qubits count by fixed disjoint pairs, which is a lower bound; there a dense circuit of the space may come out
    otherwise. If `min_gates` is out of reach from the start (a narrow coupling), it is not asked for.

    Args:
        space: the circuits to make.
        coupling: undirected pairs that may carry two-qubit gates, within those of the space; None: those of the space.

    Raises:
        QasError: a malformed coupling, or no gate is left.
    """

    def __init__(self, space: CircuitSpace, coupling: Any = None) -> None:
        self.space = space
        self.allowed = np.ones(space.n_tokens, dtype=bool)
        pair = space.first != space.last
        if coupling is not None:
            self.allowed = space.alphabet.coupled(coupling)
            if not self.allowed.any():
                raise QasError("a coupling leaves at least one gate of the space, got one that leaves none")
        self.pair = pair
        self.single = np.zeros(space.n_qubits, dtype=bool)
        self.single[space.first[self.allowed & ~pair]] = True
        self.matchings = self._matchings()
        free = np.zeros((1, space.n_qubits), dtype=np.int16)
        self.least = space.min_gates if self._room(free)[0] >= space.min_gates else 0

    def _matchings(self) -> list[np.ndarray]:
        """Sets of disjoint pairs of qubits that carry no one-qubit gates, each of shape (pairs, 2)."""
        space = self.space
        usable = np.flatnonzero(self.allowed & self.pair & ~self.single[space.first] & ~self.single[space.last])
        pairs = list(dict.fromkeys((int(space.first[t]), int(space.last[t])) for t in usable))
        found = []
        for start in pairs:
            chosen, taken = [start], set(start)
            for pair in pairs:
                if taken.isdisjoint(pair):
                    chosen.append(pair)
                    taken |= set(pair)
            found.append(np.array(chosen))
        return found

    def _room(self, free: np.ndarray) -> np.ndarray:
        """Number of gates that surely fit behind the first free layers, shape (…, n_qubits) -> (…)."""
        left = self.space.max_depth - free
        room = left[..., self.single].sum(-1)
        if self.matchings:
            room = room + np.max([left[..., m].min(-1).sum(-1) for m in self.matchings], axis=0)
        return room

    def decode(self, scores: np.ndarray) -> np.ndarray:
        """Rows in the order of the positions (not canonical), int16, shape (B, max_gates).

        Args:
            scores: finite numbers, shape (B, max_gates, n_tokens + 1), the last one for "end".
        """
        parts = [self._decode(scores[start : start + _CHUNK]) for start in range(0, len(scores), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, self.space.max_gates), dtype=np.int16)

    def _decode(self, scores: np.ndarray) -> np.ndarray:
        space, size = self.space, len(scores)
        free = np.zeros((size, space.n_qubits), dtype=np.int16)
        rows = np.full((size, space.max_gates), PADDING, dtype=np.int16)
        alive = np.arange(size)
        for position in range(space.max_gates):
            legal = np.zeros((len(alive), space.n_tokens + 1), dtype=bool)
            legal[:, :-1] = self._legal(free[alive], self.least - position - 1)
            legal[:, -1] = position >= self.least
            legal[~legal.any(1), -1] = True
            # Bounded below, so that even a score of minus infinity stays above what is not legal.
            bounded = np.maximum(scores[alive, position], np.finfo(scores.dtype).min)
            token = np.where(legal, bounded, -np.inf).argmax(1)
            going = token < space.n_tokens
            alive, token = alive[going], token[going]
            if not len(alive):
                break
            rows[alive, position] = token
            first, last = space.first[token], space.last[token]
            layer = np.maximum(free[alive, first], free[alive, last]) + 1
            free[alive, first] = free[alive, last] = layer
        return rows

    def _legal(self, free: np.ndarray, needed: int) -> np.ndarray:
        """Which tokens may come next, bool, shape (B, n_tokens), if `needed` gates have to follow them."""
        space = self.space
        layer = np.maximum(free[:, space.first], free[:, space.last]) + 1
        legal = self.allowed & (layer <= space.max_depth)
        # One gate uses up at most all layers of two qubits.
        tight = np.flatnonzero(self._room(free) < needed + 2 * space.max_depth)
        if needed > 0 and len(tight):
            after = np.repeat(free[tight, None, :], space.n_tokens, axis=1)
            tokens = np.arange(space.n_tokens)
            after[:, tokens, space.first] = after[:, tokens, space.last] = layer[tight]
            legal[tight] &= self._room(after) >= needed
        return legal


# ---------------------------------------------------------------------- the registry
MODELS: dict[str, type[UrlV1] | type[UrlV3] | type[Gvae]] = {m.name: m for m in (Gvae, UrlV1, UrlV3)}
"""Name -> model; the first is the default."""


def build_model(
    name: str, encoding: GraphEncoding, generator: torch.Generator, sizes: Mapping[str, Any] | None = None
) -> Autoencoder:
    """A model with fresh weights drawn from `generator`.

    Raises:
        UnknownNameError: no such model.
        QasError: an encoding that the model does not read, or sizes it does not have.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    # torch draws default weights from its global generator before ours replace them
    with torch.random.fork_rng(devices=[]):
        try:
            return MODELS[name](encoding, generator, **(sizes or {}))
        except TypeError:
            raise QasError(f"the sizes do not fit the model {name}, got {sizes}") from None
