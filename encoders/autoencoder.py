"""Variational graph autoencoders of circuits: their interface, and the one whose decoder cannot leave the space.

They take the arrays of a `GraphEncoding` and have gaussian latents for each node; `gvae` decodes gates under a grammar.
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
from torch.optim.lr_scheduler import LambdaLR

from qas.checks import finite_number, finite_output, whole_number
from qas.encoders.graphs import GraphBatch, GraphEncoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.encoders.registries import MODELS
from qas.errors import QasError

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
    """Centred functional profile (`qas.encoders.pools.profiles`), float32, shape (B, P)."""


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
    """Name in `qas.encoders.MODELS`."""
    reads: ClassVar[str | None] = None
    """The only encoding it reads; None: any graph encoding, ``"ports"`` unless told otherwise."""
    grammatical: ClassVar[bool] = False
    """Whether every latent decodes to a circuit of the space."""
    batch_size: ClassVar[int] = 256
    """Circuits in a training step, unless told otherwise."""
    learning_rate: ClassVar[float] = 2e-3
    """Of the optimizer, unless told otherwise."""
    clip: ClassVar[float] = 1.0
    """Largest norm of a gradient in training."""
    learns_profile: ClassVar[bool] = False
    """Whether it takes `n_profile`, and profiles in its batches."""
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
        self.d = (16 if self.space.n_qubits <= 4 else 32) if d is None else whole_number("d", d, most=_LARGEST)
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

    @abc.abstractmethod
    def decode(self, z: Tensor, grammar: Grammar, either_order: bool) -> tuple[np.ndarray, np.ndarray]:
        """The circuits of latents (B, L, d): rows with every gate at the position of its latent, int16, shape
        (B, max_gates), all padding where there is none, and which there are, bool, shape (B,).

        Args:
            grammar: what is allowed.
            either_order: accept the other order of two qubits where the space has only that one.
        """

    def optimizer(self, rate: float, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR | None]:
        """How it is trained: AdamW, a one-percent warm-up and a cosine to zero over all steps."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, fused=True)

        def factor(step: int) -> float:
            done = step / steps
            return done / 0.01 + 1e-3 if done < 0.01 else 0.5 * (1.0 + math.cos(math.pi * done))

        return optimizer, LambdaLR(optimizer, factor)

    def end_training(self) -> None:
        """Forget what only training needs."""

    def likeliest(self, z: Tensor) -> Tensor | None:
        """The likeliest tokens of latents, without a grammar, shape (B, max_gates), n_tokens for "end"; None if it has
        none."""
        return None

    def label_validity(self, z: Tensor) -> float:
        """Share of latents with START first, END last and gates between; 1 where the decoder writes them itself."""
        return 1.0

    def accuracies(self, graphs: GraphBatch, means: Tensor) -> dict[str, float | None] | None:
        """Accuracies of a decoder of nodes and edges; None: they are counted on the decoded circuits."""
        return None

    def n_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.parameters())


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
    learns_profile = True

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
        self.width = whole_number("width", width, most=_LARGEST)
        self.message = whole_number("message", message, most=_LARGEST)
        self.n_layers = whole_number("n_layers", n_layers, most=_LARGEST)
        self.n_profile = whole_number("n_profile", n_profile, 0, most=_LARGEST)
        self.beta = finite_number("beta", beta, least=0)
        self.free_nats = finite_number("free_nats", free_nats, least=0)
        self.profile_weight = finite_number("profile_weight", profile_weight, least=0)
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

    def end_training(self) -> None:
        self.profile, self.n_profile = None, 0

    def scores(self, z: Tensor) -> Tensor:
        """Score of every placed gate, then of "end", shape (B, L, n_tokens + 1), from latents (B, L, d)."""
        return self.tokens(functional.silu(self.opened(z)))

    def decode(self, z: Tensor, grammar: Grammar, either_order: bool) -> tuple[np.ndarray, np.ndarray]:
        return grammar.decode(finite_output("the encoder", self.scores(z)).numpy()), np.ones(len(z), dtype=bool)

    def likeliest(self, z: Tensor) -> Tensor:
        return self.scores(z).argmax(2)

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


# ---------------------------------------------------------------------- building
def build_model(
    name: str | type[Autoencoder],
    encoding: GraphEncoding,
    generator: torch.Generator,
    sizes: Mapping[str, Any] | None = None,
) -> Autoencoder:
    """A model with fresh weights drawn from `generator`.

    Args:
        name: a name of `qas.encoders.MODELS`, or a subclass of `Autoencoder`.

    Raises:
        UnknownNameError: no such model.
        QasError: an encoding that the model does not read, or sizes it does not have.
    """
    kind = model_class(name)
    if kind.reads is not None and encoding.name != kind.reads:
        raise QasError(f"the model {kind.name} reads the encoding {kind.reads}, got {encoding.name}")
    # torch draws default weights from its global generator before ours replace them
    with torch.random.fork_rng(devices=[]):
        try:
            return kind(encoding, generator, **(sizes or {}))  # type: ignore[call-arg, arg-type]
        except TypeError:
            raise QasError(f"the sizes do not fit the model {kind.name}, got {sizes}") from None


def model_class(model: str | type[Autoencoder]) -> type[Autoencoder]:
    """The class of a name of `qas.encoders.MODELS`; a class passes.

    Raises:
        UnknownNameError: no such model.
    """
    is_class = isinstance(model, type) and issubclass(model, Autoencoder)
    return model if is_class else MODELS[model]  # type: ignore[index, return-value]
