"""Training of encoders on circuits without labels, and what there is to measure about them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from qas.checks import whole_number
from qas.encoders.autoencoder import (
    MODELS,
    Autoencoder,
    Batch,
    Gvae,
    UrlV3,
    _PublishedModel,
    build_model,
    kl_divergence,
)
from qas.encoders.graphs import GraphEncoding, load_encoding
from qas.encoders.pools.pool import Pool
from qas.encoders.pools.profiles import profiles
from qas.encoders.pools.spaces import PADDING, CircuitSpace, distinct
from qas.encoders.trained import TrainedEncoder
from qas.errors import QasError, UnknownNameError
from qas.files import new_folder, write_atomic

HELD_OUT = 0.1
"""Share of the circuits, the last ones, that is not trained on."""
PRIOR_SAMPLES = 10_000
"""Latents drawn to measure validity, uniqueness and novelty."""


# ---------------------------------------------------------------------- training
def train(
    rows: Any,
    space: CircuitSpace,
    *,
    encoding: str | None = None,
    model: str = "gvae",
    epochs: int = 16,
    seed: int = 0,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    sizes: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    profile_walks: int = 8,
    threads: int | None = None,
) -> TrainedEncoder:
    """Train an encoder on circuits, without labels.

    The last tenth of the circuits, in their order, is held out for `metrics`; the others are shuffled in every epoch.
    `gvae`: AdamW with a one-percent warm-up and a cosine to zero, gradients cut to norm 1. Published models: batches
    of 32, Adam at 1e-3, gradients cut to norm 5, as published.

    Ctrl-C after the first epoch ends the training in order: the encoder returned has the weights of the last finished
    epoch, and its ``settings["interrupted"]`` is true. Before that it raises KeyboardInterrupt, as nothing is lost.

    Args:
        rows: circuits of the space, shape (B, max_gates), at least 20.
        encoding: "ports", "signed" or "gsqas"; default that of the model ("ports" for `gvae`).
        model: "gvae", "url-v1" or "url-v3".
        epochs: passes over the circuits, at least 1.
        seed: of weights, order and noise; the same seed on the same machine and threads gives the same weights.
        on_progress: called after every epoch with epoch, epochs, seconds and the mean of every part of the loss.
        sizes: arguments of the model, such as ``{"d": 16}``.
        batch_size: circuits in a step; default 256 for `gvae`.
        learning_rate: default 2e-3 for `gvae`.
        profile_walks: walks for the functional profile of `gvae` (`profiles`), 0 to do without.
        threads: torch threads to use; default as they are. Restored at the end.

    Raises:
        UnknownNameError: no such model or encoding.
        CircuitError: not rows of the space.
        QasError: too few circuits or a size out of range.
    """
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    rows = space.canonical(rows)
    if len(rows) < 20:
        raise QasError(f"training needs at least 20 circuits, got {len(rows)}")
    published = model != Gvae.name
    batch_size = whole_number("batch_size", batch_size if batch_size is not None else 32 if published else 256, 2)
    rate = learning_rate if learning_rate is not None else 1e-3 if published else 2e-3
    epochs = whole_number("epochs", epochs)
    graphs = load_encoding(encoding if encoding is not None else str(getattr(MODELS[model], "reads", "ports")), space)
    if not isinstance(graphs, GraphEncoding):
        raise QasError(f"models read a graph encoding, got {encoding}")
    n_train = len(rows) - math.ceil(HELD_OUT * len(rows))
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    settings: dict[str, Any] = {
        "seed": seed,
        "circuits": len(rows),
        "trained_on": n_train,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": rate,
        "profile_walks": 0 if published else profile_walks,
    }
    with _threads(threads):
        started = time.perf_counter()
        data = _Data(rows[:n_train], graphs)
        sizes = dict(sizes or {})
        if not published and profile_walks:
            data.profile = _centred(profiles(rows[:n_train], space, rng, profile_walks))
            sizes.setdefault("n_profile", data.profile.shape[1])
        settings["preparation_seconds"] = round(time.perf_counter() - started, 2)
        net = build_model(model, graphs, generator, sizes)
        settings |= _fit(net, data, epochs, batch_size, rate, generator, on_progress)
        if isinstance(net, Gvae):
            net.drop_profile()
        encoder = TrainedEncoder(space, net, settings)
        _set_prior(encoder, rows[:n_train])
        encoder.metrics = evaluate_encoder(encoder, rows[n_train:], rng, train_rows=rows[:n_train])
    return encoder


class _Data:
    """Training circuits as compact tensors; minibatches are cast on the fly."""

    def __init__(self, rows: np.ndarray, graphs: GraphEncoding) -> None:
        batch = graphs.encode_rows(rows)
        self.features = torch.from_numpy(batch.features)
        self.adjacency = torch.from_numpy(batch.adjacency)
        self.tokens = torch.from_numpy(np.where(rows == PADDING, graphs.space.n_tokens, rows).astype(np.int16))
        self.profile: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, index: torch.Tensor) -> Batch:
        profile = None if self.profile is None else self.profile[index]
        return Batch(self.features[index].float(), self.adjacency[index].float(), self.tokens[index].long(), profile)


def _centred(values: np.ndarray) -> torch.Tensor:
    """Columns at mean 0, all over one number, so that their mean square is 1.

    Columns keep their own spread: what varies most between circuits is what energies depend on most.
    """
    centred = values - values.mean(0)
    return torch.from_numpy(centred / max(float(np.sqrt(np.mean(centred**2))), 1e-3))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(whole_number("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    net: Autoencoder,
    data: _Data,
    epochs: int,
    batch_size: int,
    rate: float,
    generator: torch.Generator,
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    published = isinstance(net, _PublishedModel)
    clip = 5.0 if published else 1.0
    kind = torch.optim.Adam if published else torch.optim.AdamW
    optimizer = kind(net.parameters(), lr=rate, fused=True)
    # A single circuit has no batch statistics: a last batch of one is left out.
    per_epoch = len(data) // batch_size + (len(data) % batch_size > 1)
    total, step, history = epochs * per_epoch, 0, []
    finished: dict[str, torch.Tensor] | None = None
    try:
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            net.train()
            sums: dict[str, torch.Tensor] = {}
            for index in torch.randperm(len(data), generator=generator).split(batch_size)[:per_epoch]:
                if not published:
                    _set_rate(optimizer, rate, step / total)
                loss, told = net.loss(data.batch(index), generator, step / total)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                step += 1
                for name, value in {"loss": loss, **told}.items():
                    sums[name] = sums.get(name, torch.zeros(())) + value.detach()
            line = {name: float(value) / per_epoch for name, value in sums.items()}
            if not math.isfinite(line["loss"]):
                raise QasError(f"the training diverged in epoch {epoch}; lower learning_rate, got {rate}")
            history.append({"epoch": epoch, "seconds": round(time.perf_counter() - started, 2), **line})
            finished = {name: tensor.clone() for name, tensor in net.state_dict().items()}
            if on_progress is not None:
                on_progress({"epochs": epochs, **history[-1]})
    except KeyboardInterrupt:
        if finished is None:
            raise
        net.load_state_dict(finished)
    return {"history": history, "interrupted": len(history) < epochs}


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, progress: float) -> None:
    factor = progress / 0.01 + 1e-3 if progress < 0.01 else 0.5 * (1.0 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = rate * factor


def _set_prior(encoder: TrainedEncoder, rows: np.ndarray) -> None:
    means = encoder.latents(rows)
    encoder.module.latent_mean.copy_(torch.from_numpy(means.mean(0, dtype=np.float64)))
    encoder.module.latent_std.copy_(torch.from_numpy(means.std(0, dtype=np.float64)))


# ---------------------------------------------------------------------- metrics
def evaluate_encoder(
    encoder: TrainedEncoder,
    rows: Any,
    rng: np.random.Generator,
    *,
    train_rows: Any = None,
    prior_samples: int = PRIOR_SAMPLES,
) -> dict[str, float | None]:
    """What an encoder keeps of circuits it has not seen, and what its prior samples are worth; rates from 0 to 1.

    From the means of the latents:

    - gate_accuracy: share of nodes of the right type. Published models: all nodes, START and END included, as
      published; `gvae`: positions 1 to max_gates, "end" included.
    - qubit_accuracy: share of gates with all qubits (and, where told, their roles) right; qubit_entry_accuracy: share
      of right qubit columns, as published.
    - adjacency_accuracy: share of pairs of nodes i < j that are rightly joined or not; edge_precision, edge_recall;
      edge_false_positive_rate: share of the pairs that are not joined and yet predicted so. A pair counts once,
      however many wires join it; START and END are nodes. Published models: the edge decoder at threshold 0.5;
      `gvae`: the graph of the decoded circuit.
    - falpos_mean: mean prediction on pairs that are not joined, the published metric; mean_edge: that on joined pairs.
    - exact_match: share of circuits that decode to themselves (`Circuit.key`); one that cannot be built does not.
      exact_match_either_order reads qubit pairs in whichever order the space has.
    - kld: divergence of a node's latent from N(0, 1), mean over nodes, nats; kld_scaled: over 32 N, as in the loss.

    From latents drawn as in `TrainedEncoder.sample_latents`:

    - validity: share that decodes to a circuit of the space; `gvae` has 1 by construction, and validity_unmasked is the
      share whose likeliest gates need no correction by the grammar; validity_labels: the published metric, START
      first, END last, gates between, qubits and edges ignored.
    - uniqueness: distinct architectures among the valid; novelty: share of those that are not in `train_rows` (None
      without them).

    Raises:
        CircuitError: not rows of the space.
        QasError: no circuit.
    """
    space = encoder.space
    rows = space.canonical(rows)
    if not len(rows):
        raise QasError("an evaluation needs at least one circuit, got none")
    means, stds = encoder.gaussians(rows)
    decoded, built = encoder.decode_positions(means)
    told: dict[str, float | None] = {"circuits": len(rows)}
    told |= _part_metrics(encoder, rows, means, decoded)
    told["exact_match"] = float((same_rows(space.canonical(decoded), rows) & built).mean())
    if not encoder.module.grammatical:
        again, possible = encoder.try_decode(means, either_order=True)
        told["exact_match_either_order"] = float((same_rows(again, rows) & possible).mean())
    kl = kl_divergence(torch.from_numpy(means), torch.from_numpy(np.log(stds))).sum(2)
    told["kld"] = float(kl.mean())
    told["kld_scaled"] = float(kl.mean()) / (32 * encoder.n_latents)
    return told | _prior_metrics(encoder, rng, train_rows, prior_samples)


def same_rows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which canonical rows are equal, bool, shape (B,)."""
    return (one == other).all(axis=1)


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


def _part_metrics(
    encoder: TrainedEncoder, rows: np.ndarray, means: np.ndarray, decoded: np.ndarray
) -> dict[str, float | None]:
    batch = encoder.graphs.encode_rows(rows)
    true_edges = batch.adjacency.sum(axis=1)
    k = encoder.graphs.n_kinds
    module = encoder.module
    if isinstance(module, _PublishedModel):
        with torch.inference_mode():
            parts = module.parts(torch.from_numpy(means))
        kinds, qubits = parts.kinds.numpy().argmax(2), parts.qubits.numpy()
        nodes = batch.mask
        levels = np.rint(qubits) if isinstance(module, UrlV3) else (qubits > 0.5)
        right = levels == batch.features[..., k:]
        gates = nodes.copy()
        gates[:, 0] = False
        gates[np.arange(len(rows)), batch.lengths + 1] = False
        return {
            "gate_accuracy": float((kinds == batch.features[..., :k].argmax(2))[nodes].mean()),
            "qubit_accuracy": float(right.all(2)[gates].mean()) if gates.any() else 1.0,
            "qubit_entry_accuracy": float(right[nodes].mean()),
            **edge_metrics(parts.adjacency.numpy(), true_edges),
        }
    again = encoder.graphs.encode_rows(decoded)
    table = np.append(encoder.space.kind, -1)
    gates = rows != PADDING
    columns = _qubit_columns(encoder, decoded) == _qubit_columns(encoder, rows)
    return {
        "gate_accuracy": float((table[decoded] == table[rows]).mean()),
        "qubit_accuracy": float(columns.all(2)[gates].mean()) if gates.any() else 1.0,
        "qubit_entry_accuracy": float(columns.mean()),
        **edge_metrics(again.adjacency.sum(axis=1), true_edges),
    }


def _qubit_columns(encoder: TrainedEncoder, rows: np.ndarray) -> np.ndarray:
    """Signed qubit columns at the positions of the gates, shape (B, max_gates, n_qubits)."""
    space = encoder.space
    table = np.zeros((space.n_tokens + 1, space.n_qubits), dtype=np.int8)
    tokens = np.arange(space.n_tokens)
    table[tokens, space.first] = np.where((space.first == space.last) | space.symmetric, 1, -1)
    table[tokens, space.last] = 1
    return table[rows]


def _prior_metrics(
    encoder: TrainedEncoder, rng: np.random.Generator, train_rows: Any, samples: int
) -> dict[str, float | None]:
    z = encoder.sample_latents(samples, rng)
    rows, built = encoder.try_decode(z)
    built &= _inside(rows, encoder.space)
    found = distinct(rows[built])
    known = None if train_rows is None else {row.tobytes() for row in encoder.space.canonical(train_rows)}
    new = None if known is None else sum(row.tobytes() not in known for row in found)
    return {
        "prior_samples": samples,
        "validity": float(built.mean()),
        "validity_unmasked": unmasked_validity(encoder, z),
        "validity_labels": _label_validity(encoder, z),
        "uniqueness": len(found) / max(1, int(np.count_nonzero(built))),
        "novelty": None if new is None or not len(found) else new / len(found),
    }


def _inside(rows: np.ndarray, space: CircuitSpace) -> np.ndarray:
    """Which circuits have a length and a depth of the space, bool, shape (B,)."""
    deep = space.layers(rows).max(axis=1, initial=-1) >= space.max_depth
    return ~deep & ((rows != PADDING).sum(axis=1) >= space.min_gates)


def unmasked_validity(encoder: TrainedEncoder, z: np.ndarray) -> float | None:
    """Share of latents whose likeliest gates, position by position, are a circuit of the space; None if not `gvae`."""
    if not isinstance(encoder.module, Gvae):
        return None
    with torch.inference_mode():
        tokens = encoder.module.scores(torch.from_numpy(z)).numpy().argmax(2)
    ended = np.maximum.accumulate(tokens == encoder.space.n_tokens, axis=1)
    return float(_inside(np.where(ended, PADDING, tokens), encoder.space).mean())


def _label_validity(encoder: TrainedEncoder, z: np.ndarray) -> float:
    module = encoder.module
    if not isinstance(module, _PublishedModel):
        return 1.0  # the decoder writes START, gates and END itself
    with torch.inference_mode():
        kinds = module.parts(torch.from_numpy(z)).kinds.numpy().argmax(2)
    end = module.n_kinds - 1
    length = (kinds[:, 1:] == end).argmax(1)
    inside = np.arange(kinds.shape[1] - 1) < length[:, None]
    gates = (kinds[:, 1:] > 0) & (kinds[:, 1:] < end)
    ended = (kinds[:, 1:] == end).any(1)
    return float(((kinds[:, 0] == 0) & ended & (gates | ~inside).all(1)).mean())


def train_on_pool(
    pool: str | os.PathLike[str], out: str | os.PathLike[str], *, task: str | None = None, **settings: Any
) -> TrainedEncoder:
    """Train an encoder on a pool and keep it, with a table of its metrics and, if the pool has labels, a map.

    Args:
        pool: a pool folder.
        out: folder of the encoder, new or empty.
        task: whose labels colour ``latent-map.png``; default the pool's first.
        settings: keywords of `train`.

    Raises:
        UnknownNameError: the pool has no such task; else as `train`.
        RunError: the folder holds files already, or cannot be written.
    """
    from qas.encoders.report import distance_correlations, metrics_table, save_map

    circuits = Pool(pool)
    if task is not None and task not in circuits.tasks:
        raise UnknownNameError("task of the pool", task, circuits.tasks)
    with new_folder(out, "the encoder") as folder:
        encoder = train(circuits.rows, circuits.space, **settings)
        encoder.save(folder)  # before anything is read that could be damaged
        if circuits.tasks:
            encoder.metrics |= distance_correlations(encoder, circuits)
            encoder.save(folder)
            save_map(encoder, circuits, task or circuits.tasks[0], folder / "latent-map.png")
        write_atomic(folder / "metrics.md", metrics_table({folder.name: encoder}) + "\n")
    return encoder
