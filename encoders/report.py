"""What an encoder is worth, as a table and as a map of its latent space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qas.encoders.pools import Pool
from qas.errors import QasError

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

_ROWS = {
    "exact_match": "whole circuit, exact match",
    "gate_accuracy": "gate types",
    "qubit_accuracy": "qubits",
    "adjacency_accuracy": "adjacency",
    "edge_precision": "edge precision",
    "edge_recall": "edge recall",
    "edge_false_positive_rate": "edge false-positive rate",
    "validity": "executable prior samples",
    "validity_labels": "prior samples valid by labels alone",
    "uniqueness": "distinct among executable",
    "novelty": "new among distinct",
    "kld": "KL divergence per node (nats)",
    "falpos_mean": "Falpos_mean as published",
}


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
    seconds = [encoder.settings.get("seconds") for encoder in encoders.values()]
    if any(value is not None for value in seconds):
        lines.append("| training (s) | " + " | ".join("–" if v is None else f"{v:.0f}" for v in seconds) + " |")
    return "\n".join(lines)


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
    draw_map(encoder.embed(rows), pool.labels(task).best[: len(rows)], task, path)


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


def draw_map(points: np.ndarray, energies: np.ndarray, task: str, path: Path) -> None:
    """Scatter plot of points on their principal plane; low energies on top."""
    from matplotlib.figure import Figure

    from qas.drawing import save_figure

    plane, share = principal_plane(points)
    order = np.argsort(-energies, kind="stable")
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    dots = axes.scatter(*plane[order].T, c=energies[order], s=3, cmap="viridis_r", linewidths=0, rasterized=True)
    figure.colorbar(dots, ax=axes, label="energy with optimized angles")
    axes.set_xlabel(f"first principal axis ({100 * share[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal axis ({100 * share[-1]:.0f} %)" if len(share) > 1 else "")
    axes.set_title(f"{len(points):,} circuits, {task}")
    save_figure(figure, path)
