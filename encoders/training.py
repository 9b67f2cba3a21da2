"""Training of encoders on circuits without labels, and what there is to measure about them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from qas.checks import finite_number, whole_number
from qas.encoders.autoencoder import Autoencoder, Batch, build_model, kl_divergence, model_class
from qas.encoders.graphs import GraphEncoding, PortsEncoding, edge_metrics, load_encoding
from qas.encoders.pools.pool import Pool
from qas.encoders.pools.profiles import profiles
from qas.encoders.pools.spaces import PADDING, CircuitSpace, distinct
from qas.encoders.trained import TrainedEncoder
from qas.errors import QasError, UnknownNameError
from qas.files import new_folder, write_atomic
from qas.torch_threads import torch_threads

HELD_OUT = 0.1
"""Share of the circuits, the last ones, that is not trained on."""
PRIOR_SAMPLES = 10_000
"""Latents drawn to measure validity, uniqueness and novelty."""


# ---------------------------------------------------------------------- training
def train(
    rows: Any,
    space: CircuitSpace,
    *,
    encoding: str | type[GraphEncoding] | GraphEncoding | None = None,
    model: str | type[Autoencoder] = "gvae",
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
        encoding: a graph encoding of `qas.encoders.ENCODINGS`, its class or an instance; default that of the model.
        model: a name of `qas.encoders.MODELS`, or a class.
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
    kind = model_class(model)
    rows = space.canonical(rows)
    if len(rows) < 20:
        raise QasError(f"training needs at least 20 circuits, got {len(rows)}")
    batch_size = whole_number("batch_size", kind.batch_size if batch_size is None else batch_size, 2)
    rate = finite_number("learning_rate", kind.learning_rate if learning_rate is None else learning_rate, above=0)
    seed = whole_number("seed", seed, 0)
    epochs = whole_number("epochs", epochs)
    graphs = load_encoding(encoding if encoding is not None else kind.reads or PortsEncoding, space)
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
        "profile_walks": profile_walks if kind.learns_profile else 0,
    }
    with torch_threads(threads):
        started = time.perf_counter()
        data = _Data(rows[:n_train], graphs)
        sizes = dict(sizes or {})
        if kind.learns_profile and profile_walks:
            data.profile = _centred(profiles(rows[:n_train], space, rng, profile_walks))
            sizes.setdefault("n_profile", data.profile.shape[1])
        settings["preparation_seconds"] = round(time.perf_counter() - started, 2)
        net = build_model(kind, graphs, generator, sizes)
        settings |= _fit(net, data, epochs, batch_size, rate, generator, on_progress)
        net.end_training()
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


def _fit(
    net: Autoencoder,
    data: _Data,
    epochs: int,
    batch_size: int,
    rate: float,
    generator: torch.Generator,
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    # A single circuit has no batch statistics: a last batch of one is left out.
    per_epoch = len(data) // batch_size + (len(data) % batch_size > 1)
    total, step, history = epochs * per_epoch, 0, []
    optimizer, scheduler = net.optimizer(rate, total)
    finished: dict[str, torch.Tensor] | None = None
    try:
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            net.train()
            sums: dict[str, torch.Tensor] = {}
            for index in torch.randperm(len(data), generator=generator).split(batch_size)[:per_epoch]:
                loss, told = net.loss(data.batch(index), generator, step / total)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), net.clip)
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
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
    prior_samples: int | None = None,
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
    return told | _prior_metrics(encoder, rng, train_rows, PRIOR_SAMPLES if prior_samples is None else prior_samples)


def same_rows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which canonical rows are equal, bool, shape (B,)."""
    return (one == other).all(axis=1)


def _part_metrics(
    encoder: TrainedEncoder, rows: np.ndarray, means: np.ndarray, decoded: np.ndarray
) -> dict[str, float | None]:
    graphs = encoder.graphs.encode_rows(rows)
    with torch.inference_mode():
        told = encoder.module.accuracies(graphs, torch.from_numpy(means))
    if told is not None:
        return told
    again = encoder.graphs.encode_rows(decoded)
    table = np.append(encoder.space.kind, -1)
    gates = rows != PADDING
    columns = _qubit_columns(encoder, decoded) == _qubit_columns(encoder, rows)
    return {
        "gate_accuracy": float((table[decoded] == table[rows]).mean()),
        "qubit_accuracy": float(columns.all(2)[gates].mean()) if gates.any() else 1.0,
        "qubit_entry_accuracy": float(columns.mean()),
        **edge_metrics(again.adjacency.sum(axis=1), graphs.adjacency.sum(axis=1)),
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
    with torch.inference_mode():
        label_validity = encoder.module.label_validity(torch.from_numpy(z))
    rows, built = encoder.try_decode(z)
    built &= _inside(rows, encoder.space)
    found = distinct(rows[built])
    known = None if train_rows is None else {row.tobytes() for row in encoder.space.canonical(train_rows)}
    new = None if known is None else sum(row.tobytes() not in known for row in found)
    return {
        "prior_samples": samples,
        "validity": float(built.mean()),
        "validity_unmasked": unmasked_validity(encoder, z),
        "validity_labels": label_validity,
        "uniqueness": len(found) / max(1, int(np.count_nonzero(built))),
        "novelty": None if new is None or not len(found) else new / len(found),
    }


def _inside(rows: np.ndarray, space: CircuitSpace) -> np.ndarray:
    """Which circuits have a length and a depth of the space, bool, shape (B,)."""
    deep = space.layers(rows).max(axis=1, initial=-1) >= space.max_depth
    return ~deep & ((rows != PADDING).sum(axis=1) >= space.min_gates)


def unmasked_validity(encoder: TrainedEncoder, z: np.ndarray) -> float | None:
    """Share of latents whose likeliest gates, position by position, are a circuit of the space; None if it has none."""
    with torch.inference_mode():
        likeliest = encoder.module.likeliest(torch.from_numpy(z))
    if likeliest is None:
        return None
    tokens = likeliest.numpy()
    ended = np.maximum.accumulate(tokens == encoder.space.n_tokens, axis=1)
    return float(_inside(np.where(ended, PADDING, tokens), encoder.space).mean())


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
