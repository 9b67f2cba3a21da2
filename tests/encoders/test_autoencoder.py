"""The graph autoencoders: parts against slow twins, published sizes, and a decoder that cannot leave the space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qas.circuits import Circuit
from qas.encoders import MODELS
from qas.encoders.autoencoder import Batch, Grammar, RelationalLayer, build_model, kl_divergence
from qas.encoders.graphs import GraphEncoding, load_encoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.encoders.published import GinLayer, UrlV1
from qas.errors import QasError, UnknownNameError

SPACES = {
    "ring": CircuitSpace(4, max_gates=10),
    "coupling": CircuitSpace(5, ["rx", "h", "cx", "cz"], max_gates=8, min_gates=3, coupling=[(0, 1), (1, 2), (3, 4)]),
    "tight": CircuitSpace(3, ["rz", "cx", "swap"], max_gates=6, max_depth=3),
    "tight pairs": CircuitSpace(4, ["cx", "rzz"], max_gates=6, max_depth=3, ring=()),
    "some singles": CircuitSpace(2, ["cx"], max_gates=4, min_gates=0),
    "one qubit": CircuitSpace(1, ["x", "rx", "cx"], max_gates=4, min_gates=1),
    "shallow": CircuitSpace(3, max_gates=2, min_gates=0, max_depth=1),
}
READS = {"gvae": "ports", "url-v1": "gsqas", "url-v3": "signed"}


def graphs(space: CircuitSpace, name: str = "ports") -> GraphEncoding:
    encoding = load_encoding(name, space)
    assert isinstance(encoding, GraphEncoding)
    return encoding


def made(model: str, space: CircuitSpace, seed: int = 0, encoding: str | None = None, **sizes: int):
    return build_model(model, graphs(space, encoding or READS[model]), torch.Generator().manual_seed(seed), sizes)


def batch_of(space: CircuitSpace, encoding: str, size: int = 6, seed: int = 0) -> Batch:
    rows = space.sample(size, np.random.default_rng(seed))
    graph = graphs(space, encoding).encode_rows(rows)
    tokens = np.where(rows == PADDING, space.n_tokens, rows).astype(np.int64)
    return Batch(
        torch.from_numpy(graph.features).float(), torch.from_numpy(graph.adjacency).float(), torch.from_numpy(tokens)
    )


# ---------------------------------------------------------------------- sizes
@pytest.mark.parametrize(("n", "gates", "d", "parameters"), [(4, 10, 16, 124_357), (8, 20, 32, 129_401)])
def test_url_v1_has_the_published_size(n: int, gates: int, d: int, parameters: int) -> None:
    model = made("url-v1", CircuitSpace(n, max_gates=gates))
    assert model.d == d
    assert model.n_parameters() == parameters


@pytest.mark.parametrize(("n", "gates"), [(4, 10), (8, 20)])
def test_gvae_weights_stay_below_a_megabyte(n: int, gates: int) -> None:
    assert 4 * made("gvae", CircuitSpace(n, max_gates=gates)).n_parameters() < 950_000


@pytest.mark.parametrize("model", MODELS)
def test_shapes(model: str) -> None:
    space = SPACES["coupling"]
    net = made(model, space)
    batch = batch_of(space, READS[model])
    mu, log_sigma = net.encode(batch.features, batch.adjacency)
    assert mu.shape == log_sigma.shape == (6, net.n_latents, net.d)
    assert net.n_latents == space.max_gates + (0 if model == "gvae" else 2)
    loss, told = net.loss(batch, torch.Generator().manual_seed(0), 0.5)
    assert torch.isfinite(loss)
    assert {"kl"} < told.keys()
    loss.backward()
    # The head of the profile is absent here; everything that is there learns.
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("encoding", ["ports", "signed", "gsqas"])
def test_gvae_reads_every_graph_encoding(encoding: str) -> None:
    space = SPACES["ring"]
    batch = batch_of(space, encoding)
    loss, _ = made("gvae", space, encoding=encoding).loss(batch, torch.Generator(), 1.0)
    assert torch.isfinite(loss)


def test_published_models_refuse_other_encodings() -> None:
    with pytest.raises(QasError, match="the model url-v1 reads the encoding gsqas, got ports"):
        made("url-v1", SPACES["ring"], encoding="ports")


def test_unknown_model_and_sizes() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gvae'"):
        made("gvea", SPACES["ring"], encoding="ports")
    with pytest.raises(QasError, match="the sizes do not fit the model gvae"):
        made("gvae", SPACES["ring"], colour=3)


@pytest.mark.parametrize("model", MODELS)
def test_weights_come_from_the_generator_alone(model: str) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (made(model, SPACES["one qubit" if model == "gvae" else "ring"], seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------------- layers
def test_gin_layer_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = GinLayer(3, 5).eval()
    with torch.no_grad():
        layer.eps.fill_(0.3)
        layer.inner_norm.running_mean.uniform_(generator=generator)
        layer.outer_norm.running_var.uniform_(0.5, 2.0, generator=generator)
    h = torch.randn(2, 4, 3, generator=generator)
    adjacency = (torch.rand(2, 4, 4, generator=generator) < 0.5).float()
    adjacency = adjacency + adjacency.transpose(1, 2)
    out = layer(h, adjacency)
    for b in range(2):
        for i in range(4):
            x = 1.3 * h[b, i]
            for j in range(4):
                x = x + adjacency[b, i, j] * h[b, j]
            x = torch.relu(_norm(layer.inner_norm, layer.inner(x)))
            x = torch.relu(_norm(layer.outer_norm, layer.outer(x)))
            torch.testing.assert_close(out[b, i], x)


def _norm(norm: torch.nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.weight * (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) + norm.bias


def test_relational_layer_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = RelationalLayer(6, 2, 3)
    h = torch.randn(2, 4, 6, generator=generator)
    relations = (torch.rand(2, 3, 4, 4, generator=generator) < 0.5).float()
    out = layer(h, relations.transpose(1, 2).flatten(1, 2))
    for b in range(2):
        for i in range(4):
            x = (1.0 + layer.eps) * h[b, i] + layer.mix.bias
            for r in range(3):
                told = sum(relations[b, r, i, j] * layer.narrow(h[b, j]) for j in range(4))
                x = x + layer.mix.weight[:, 2 * r : 2 * r + 2] @ told
            x = h[b, i] + layer.outer(torch.nn.functional.silu(layer.inner(layer.norm(x))))
            torch.testing.assert_close(out[b, i], x)


@pytest.mark.parametrize("model", MODELS)
def test_renumbering_nodes_renumbers_latents(model: str) -> None:
    """Models see edges, not positions: any order of the gates gives every gate the same latent."""
    space = SPACES["ring"]
    net = made(model, space).eval()
    batch = batch_of(space, READS[model])
    order = torch.tensor([0, *(1 + np.random.default_rng(1).permutation(space.max_gates)), space.max_gates + 1])
    turned = batch.adjacency[:, :, order][:, :, :, order]
    mu, _ = net.encode(batch.features, batch.adjacency)
    again, _ = net.encode(batch.features[:, order], turned)
    inner = order[1:-1] - 1 if model == "gvae" else order
    torch.testing.assert_close(again, mu[:, inner], rtol=1e-4, atol=1e-5)


def test_latents_do_not_depend_on_the_batch() -> None:
    space = SPACES["ring"]
    net = made("gvae", space).eval()
    batch = batch_of(space, "ports")
    mu, _ = net.encode(batch.features, batch.adjacency)
    alone, _ = net.encode(batch.features[2:3], batch.adjacency[2:3])
    torch.testing.assert_close(alone[0], mu[2], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- losses
def test_divergence_against_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mu, log_sigma = torch.randn(2, 50, generator=generator)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, log_sigma.exp()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, log_sigma), expected)


def test_url_v1_weighs_the_divergence_as_published() -> None:
    assert UrlV1.beta(32, 12) == pytest.approx(1 / 384)
    assert UrlV1.beta(32, 22) == pytest.approx(1 / 704)


def test_url_v1_loss_by_hand() -> None:
    space = CircuitSpace(2, ["h", "cx"], max_gates=2)
    net = made("url-v1", space, d=3)
    batch = batch_of(space, "gsqas", size=4)
    loss, told = net.loss(batch, torch.Generator().manual_seed(5), 0.0)
    net.train()
    generator = torch.Generator().manual_seed(5)
    mu, log_sigma = net.encode(batch.features, batch.adjacency)
    z = mu + log_sigma.exp() * torch.randn(mu.shape, generator=generator)
    z = torch.where(torch.rand(z.shape, generator=generator) < 0.3, 0.0, z / 0.7)
    columns = torch.sigmoid(net.columns(z))
    edges = torch.sigmoid((z @ z.transpose(1, 2)).double()).triu(1)  # a sigmoid is soon 1 in single precision
    bce = torch.nn.functional.binary_cross_entropy
    sigma2 = torch.exp(2 * log_sigma)
    kl = -0.5 / (4 * 4) * (1 + 2 * log_sigma - mu**2 - sigma2).sum(2).mean()
    expected = bce(columns, batch.features) + bce(edges, batch.adjacency[:, 0].double()).float() + kl
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(told["kl"] / 16, kl)


# ---------------------------------------------------------------------- the grammar
def slow_decode(space: CircuitSpace, scores: np.ndarray, pairs: set[tuple[int, int]] | None) -> list[int]:
    """The grammar in words: steps through circuits, and counts room layer by layer."""
    allowed = [pairs is None or len(g.qubits) == 1 or (min(g.qubits), max(g.qubits)) in pairs for g in space.placed]
    grammar = Grammar(space, pairs)
    circuit, tokens = Circuit(space.n_qubits), []

    def room(circuit: Circuit) -> int:
        free = [0] * space.n_qubits
        for layer, gate in zip(circuit.moments, circuit.gates, strict=True):
            for q in gate.qubits:
                free[q] = layer + 1
        left = [space.max_depth - f for f in free]
        singles = sum(left[q] for q in range(space.n_qubits) if grammar.single[q])
        return singles + max((sum(min(left[a], left[b]) for a, b in m) for m in grammar.matchings), default=0)

    least = space.min_gates if room(circuit) >= space.min_gates else 0
    for position in range(space.max_gates):
        best, choice = -np.inf, None
        for token, gate in enumerate(space.placed):
            after = circuit.append(gate.name, gate.qubits, *gate.angles)
            fits = after.depth <= space.max_depth and room(after) >= least - position - 1
            if allowed[token] and fits and scores[position, token] > best:
                best, choice = scores[position, token], token
        if choice is None or (position >= least and scores[position, -1] > best):
            break
        gate = space.placed[choice]
        circuit = circuit.append(gate.name, gate.qubits, *gate.angles)
        tokens.append(choice)
    return tokens


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SPACES)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 50.0, 1e30]),
    narrow=st.booleans(),
)
def test_any_scores_decode_into_the_space_as_the_slow_twin_does(
    name: str, seed: int, scale: float, narrow: bool
) -> None:
    space = SPACES[name]
    rng = np.random.default_rng(seed)
    scores = scale * rng.standard_normal((3, space.max_gates, space.n_tokens + 1))
    pairs = {(0, 1)} if narrow and space.n_qubits > 1 else None
    grammar = Grammar(space, pairs)
    rows = space.check_rows(grammar.decode(scores))
    for row, one in zip(rows, scores, strict=True):
        assert [t for t in row.tolist() if t != PADDING] == slow_decode(space, one, pairs)
        circuit = space.circuit(row)
        assert (space.row(circuit) == space.canonical(row[None])[0]).all()
        assert circuit.depth <= space.max_depth
        assert grammar.least <= len(circuit) <= space.max_gates
        if pairs is None:
            assert len(circuit) >= space.min_gates
        else:
            assert all(tuple(sorted(g.qubits)) in pairs for g in circuit if len(g.qubits) == 2)


@pytest.mark.parametrize("name", ["ring", "coupling", "tight", "one qubit", "shallow"])
def test_every_circuit_of_the_space_can_be_said(name: str) -> None:
    space = SPACES[name]
    rows = space.sample(300, np.random.default_rng(0))
    scores = np.zeros((len(rows), space.max_gates, space.n_tokens + 1))
    np.put_along_axis(scores, np.where(rows == PADDING, space.n_tokens, rows)[..., None].astype(np.int64), 1.0, axis=2)
    assert (Grammar(space).decode(scores) == rows).all()


def test_a_coupling_that_leaves_nothing() -> None:
    with pytest.raises(QasError, match="leaves at least one gate of the space"):
        Grammar(SPACES["some singles"], [])
    with pytest.raises(QasError, match="pairs two different qubits of 0..3, got 1-9"):
        Grammar(SPACES["ring"], [(1, 9)])
    with pytest.raises(QasError, match="a coupling is a list of pairs"):
        Grammar(SPACES["ring"], 3)
