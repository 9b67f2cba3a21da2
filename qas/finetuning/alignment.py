r"""The gradient of a task in rotations of a model's layers, pooled into one matrix that architectures are searched for.

A rotation of the inputs, W -> W exp(θ/2 A), changes the loss by θ/2 tr((WᵀG)ᵀ A) to first order, G = dL/dW; only the
skew part of WᵀG counts. Layers that share one architecture share its strings but not its angles, so what counts for
the choice of strings is the sum over layers of the squared coefficients.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from qas.adapters.problems import string_coefficients, string_energies, with_string
from qas.circuits import Circuit
from qas.errors import QasError
from qas.finetuning.finetune import Settings, prepare_head, train
from qas.finetuning.methods import attach, target_layers, trained_head
from qas.finetuning.tasks import Task
from qas.hamiltonians import walsh_hadamard


def pooled_matrix(matrices: list[np.ndarray]) -> np.ndarray:
    """A skew matrix whose squared string coefficients are the sums of those of the skew parts of `matrices`.

    Args:
        matrices: square, all of one side, a power of two.

    Raises:
        QasError: none, or sides that differ or are no power of two.
    """
    sides = {m.shape for m in matrices}
    if len(sides) != 1:
        raise QasError(f"layers that share an architecture have one size, got {sorted(sides)}")
    rows, columns = next(iter(sides))
    if rows != columns or rows & (rows - 1):
        raise QasError(f"a pooled gradient is square with a power of two of rows, got {rows} x {columns}")
    energy = np.zeros((rows, rows))
    for matrix in matrices:
        energy += string_coefficients((matrix - matrix.T) / 2) ** 2
    # M[i ^ x, i] = Σ_z c[x, z] (-1)^|i & z| / N inverts the transform of the coefficients.
    table = np.sqrt(energy)
    walsh_hadamard(table)
    index = np.arange(rows)
    pooled = np.zeros((rows, rows))
    for x in range(rows):
        pooled[index ^ x, index] = table[x] / rows
    return (pooled - pooled.T) / 2


def task_gradient(
    model: nn.Module, task: Task, settings: Settings, targets: tuple[str, ...] | None = None
) -> np.ndarray:
    """The pooled gradient of a task on its training split, after the head alone was trained.

    Args:
        model: a frozen backbone, left with the trained head.
        task: what is learned; nothing depends on its validation and test splits.
        settings: head rate, epochs, batch and seed, of method "linear-probe".
        targets: last parts of the names of linear layers; default queries and values.

    Returns:
        float64, shape (in_features, in_features) of the target layers.

    Raises:
        QasError: targets of different or unsuitable sizes, or none.
    """
    prepare_head(model, task, settings.seed)
    layers = {name: model.get_submodule(name) for name in target_layers(model, targets)}
    attach(model, settings.method)
    if trained_head(model) is not None:
        train(model, task, settings)
    for layer in layers.values():
        cast(nn.Parameter, layer.weight).requires_grad_(True)
    model.eval()
    inputs, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
    for chosen in torch.arange(len(task.train)).split(settings.batch):
        logits = model(inputs[chosen])
        nn.functional.cross_entropy(logits.flatten(0, -2), labels[chosen].flatten(), reduction="sum").backward()
    found = []
    for layer in layers.values():
        weight = cast(nn.Parameter, layer.weight)
        assert weight.grad is not None
        own, slope = weight.detach(), weight.grad
        if not isinstance(layer, nn.Linear):  # transformers' Conv1D keeps its weight the other way round
            own, slope = own.T, slope.T
        found.append((own.T @ slope).double().numpy() / len(task.train))
        weight.grad = None
        weight.requires_grad_(False)
    return pooled_matrix(found)


def aligned_circuit(gradient: np.ndarray, angles: int) -> Circuit:
    """A circuit whose angles turn the `angles` strings that carry most of a gradient, the best first.

    Args:
        gradient: square, a power of two of rows; its skew part counts.
        angles: at most the number of antisymmetric strings, N (N - 1) / 2.

    Returns:
        RY gates at angle 0, each behind the cx and cz that carry it to its string; the best there is for the goal
        ``gradient`` of `AdapterProblem`.
    """
    size = len(gradient)
    energies = string_energies((gradient - gradient.T) / 2)
    circuit = Circuit(size.bit_length() - 1)
    for place in np.argsort(energies, axis=None)[::-1][:angles].tolist():
        circuit = with_string(circuit, divmod(place, size))
    return circuit
