"""What an encoder is worth, as a table and as a map of its latent space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qas.encoders.pools.pool import Pool
from qas.errors import QasError

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

_ROWS = {
    "exact_match": "whole circuit, exact match",
    "exact_match_either_order": "… whichever order of a pair's qubits",
    "gate_accuracy": "gate types",
    "qubit_accuracy": "qubits",
    "adjacency_accuracy": "adjacency",
    "edge_precision": "edge precision",
    "edge_recall": "edge recall",
    "edge_false_positive_rate": "edge false-positive rate",
    "validity": "executable prior samples",
    "validity_unmasked": "… without the grammar's mask",
    "validity_labels": "prior samples valid by labels alone",
    "uniqueness": "distinct among executable",
    "novelty": "new among distinct",
    "kld": "KL divergence per node (nats)",
    "falpos_mean": "Falpos_mean as published",
}

_DISTANCE = "distance_correlation/"


def metrics_table(encoders: Mapping[str, TrainedEncoder]) -> str:
    """Markdown table of the metrics on held-out circuits, one column for each encoder; rates in per cent."""
    lines = ["| held-out circuits | " + " | ".join(encoders) + " |", "|---|" + "---|" * len(encoders)]
    about = [f"{e.model}, {e.encoding}, d = {e.d}, {e.module.n_parameters():,} parameters" for e in encoders.values()]
    lines.append("| model | " + " | ".join(about) + " |")
    for key, label in _ROWS.items():
        values = [encoder.metrics.get(key) for encoder in encoders.values()]
        if all(value is None for value in values):
            continue
        cells = ["–" if v is None else f"{v:.4f}" if key == "kld" else f"{100 * v:.2f} %" for v in values]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for key in dict.fromkeys(k for e in encoders.values() for k in e.metrics if k.startswith(_DISTANCE)):
        values = [encoder.metrics.get(key) for encoder in encoders.values()]
        label = f"rank correlation of latent distance with energy difference, {key.removeprefix(_DISTANCE)}"
        lines.append(f"| {label} | " + " | ".join("–" if v is None else f"{v:.3f}" for v in values) + " |")
    seconds = [_seconds(encoder) for encoder in encoders.values()]
    if any(value is not None for value in seconds):
        lines.append("| training (s) | " + " | ".join("–" if v is None else f"{v:.0f}" for v in seconds) + " |")
    return "\n".join(lines)


def _seconds(encoder: TrainedEncoder) -> float | None:
    """Time the training took, preparation included."""
    history = encoder.settings.get("history")
    if not history:
        return None
    return float(encoder.settings.get("preparation_seconds", 0.0)) + sum(float(epoch["seconds"]) for epoch in history)


def distance_correlation(
    points: np.ndarray, energies: np.ndarray, rng: np.random.Generator, *, pairs: int = 50_000
) -> float:
    """Spearman's rank correlation between distance in a space of points and difference in energy, over random pairs.

    0 if distance says nothing (or all are equal), 1 if it orders the differences.

    Args:
        points: shape (size, d), at least 2.
        energies: shape (size,), any unit.
    """
    from scipy.stats import spearmanr

    one, other = rng.integers(len(points), size=(2, pairs))
    one, other = one[one != other], other[one != other]
    apart = np.linalg.norm(points[one] - points[other], axis=1)
    different = np.abs(energies[one] - energies[other])
    if len(one) < 2 or np.ptp(apart) == 0 or np.ptp(different) == 0:
        return 0.0
    return float(spearmanr(apart, different).statistic)


def distance_correlations(encoder: TrainedEncoder, pool: Pool) -> dict[str, float]:
    """`distance_correlation` of an encoder's embedding for every task of a pool, on circuits held out in training."""
    first = int(encoder.settings.get("trained_on", 0))
    points = encoder.embed(pool.rows[first:])
    rng = np.random.default_rng(0)
    return {
        f"{_DISTANCE}{task}": distance_correlation(points, pool.labels(task).best[first:], rng) for task in pool.tasks
    }


def neighbour_r2(points: np.ndarray, energies: np.ndarray, rng: np.random.Generator, *, known: int = 2000) -> float:
    """R² of the mean energy of the 10 nearest of `known` random points, on as many other points.

    Raises:
        QasError: fewer than `known` + 11 points.
    """
    from scipy.spatial import cKDTree

    if len(points) < known + 11:
        raise QasError(f"the neighbour test needs at least {known + 11} points, got {len(points)}")
    order = rng.permutation(len(points))
    train, test = order[:known], order[known : 2 * known]
    _, nearest = cKDTree(points[train]).query(points[test], k=10)
    predicted = energies[train][nearest].mean(axis=1)
    left = energies[test]
    return float(1.0 - ((left - predicted) ** 2).sum() / ((left - left.mean()) ** 2).sum())


def save_map(encoder: TrainedEncoder, pool: Pool, task: str, path: Path, *, size: int = 20_000) -> None:
    """A picture of the encoder's embedding of a pool, on its two leading principal axes, coloured by a label.

    Args:
        encoder: for circuits of the pool's space.
        pool: labelled for `task`.
        task: whose best energies give the colour.
        path: ``.png`` or ``.svg``.
        size: most circuits drawn.

    Raises:
        QasError: the encoder is for another space, the pool has no such task, or the file cannot be written.
    """
    if encoder.space != pool.space:
        raise QasError(f"the encoder is for another space than the pool: {encoder.space!r}, got {pool.space!r}")
    rows = pool.rows[:size]
    labels = pool.labels(task)
    draw_map(encoder.embed(rows), labels.best[: len(rows)], task, path, unit=labels.problem.unit)


def principal_plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of points on their two leading principal axes, (size, 2), and the shares of variance there, (2,)."""
    centred = points - points.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / max(len(points) - 1, 1))
    order = np.argsort(-values)[:2]
    plane = centred @ axes[:, order]
    if plane.shape[1] < 2:
        plane = np.column_stack([plane, np.zeros(len(plane))])
    share = values[order] / max(values.sum(), 1e-300)
    return plane, share


def draw_map(points: np.ndarray, energies: np.ndarray, task: str, path: Path, *, unit: str = "") -> None:
    """Scatter plot of points on their principal plane; low energies on top."""
    from matplotlib.figure import Figure

    from qas.drawing import plain, save_figure

    plane, share = principal_plane(points)
    order = np.argsort(-energies, kind="stable")
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    dots = axes.scatter(
        plane[order, 0], plane[order, 1], c=energies[order], s=3, cmap="viridis", linewidths=0, rasterized=True
    )
    figure.colorbar(dots, ax=axes, label=plain("energy with optimized angles" + (f" ({unit})" if unit else "")))
    axes.set_xlabel(f"first principal axis ({100 * share[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal axis ({100 * share[-1]:.0f} %)" if len(share) > 1 else "")
    axes.set_title(plain(f"{len(points):,} circuits, {task}"))
    save_figure(figure, path)
