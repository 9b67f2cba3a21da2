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

from qas.adapters.architecture import layout
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
        matrices: square, all of one side. Of a side 2^n m with an odd axis of m levels (`layout` of
            `qas.adapters.architecture`) rotations count that turn all levels alike, as gates on qubits do: they see the
            trace over the levels.

    Returns:
        float64, shape (2^n, 2^n).

    Raises:
        QasError: none, sides that differ, or matrices that are not square or smaller than 2 x 2.
    """
    sides = {m.shape for m in matrices}
    if len(sides) != 1:
        raise QasError(f"layers that share an architecture have one size, got {sorted(sides)}")
    rows, columns = next(iter(sides))
    if rows != columns:
        raise QasError(f"a pooled gradient is square, got {rows} x {columns}")
    return skew_matrix(np.sum([string_coefficients(_shared((m - m.T) / 2)) ** 2 for m in matrices], axis=0))


def _shared(matrix: np.ndarray) -> np.ndarray:
    """Trace over the odd axis of the layout: tr((1 x P)ᵀ M) = tr(Pᵀ _shared(M)) for P on the qubits."""
    place = layout(len(matrix), exact=True)
    levels = (place.odd, 1 << place.n_qubits)
    return np.einsum("kikj->ij", matrix[: place.size, : place.size].reshape(levels + levels))


def skew_matrix(energies: np.ndarray) -> np.ndarray:
    """A skew matrix with given squares of its string coefficients, those of symmetric strings passed over.

    Args:
        energies: shape (N, N), row x and column z, none negative.
    """
    # M[i ^ x, i] = Σ_z c[x, z] (-1)^|i & z| / N inverts the transform of the coefficients.
    table = np.sqrt(energies)
    walsh_hadamard(table)
    index = np.arange(len(table))
    matrix = np.zeros_like(table)
    for x in range(len(table)):
        matrix[index ^ x, index] = table[x] / len(table)
    return (matrix - matrix.T) / 2


def task_gradient(
    model: nn.Module, task: Task, settings: Settings, targets: tuple[str, ...] | None = None
) -> np.ndarray:
    """The pooled gradient of a task on its training split, after the head alone was trained.

    Args, raises:
        as of `layer_gradients`; and layers of different sizes are refused.

    Returns:
        float64, shape (2^n, 2^n) for target layers of 2^n m input features; see `pooled_matrix`.
    """
    return pooled_matrix(layer_gradients(model, task, settings, targets))


def layer_gradients(
    model: nn.Module, task: Task, settings: Settings, targets: tuple[str, ...] | None = None
) -> list[np.ndarray]:
    """WᵀG of each target layer on the training split of a task, after the head alone was trained.

    Args:
        model: a frozen backbone, left with the trained head.
        task: what is learned; nothing depends on its validation and test splits.
        settings: head rate, epochs, batch and seed, of method "linear-probe".
        targets: last parts of the names of linear layers; default queries and values.

    Returns:
        float64, shape (in_features, in_features) each; G is the derivative of the mean loss in the weight W.

    Raises:
        QasError: a target that no layer has, or none and no usual name.
    """
    prepare_head(model, task, settings.seed)
    layers = {name: model.get_submodule(name) for name in target_layers(model, targets)}
    attach(model, settings.method)
    if trained_head(model) is not None:
        train(model, task, settings, watch=False)
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
        # transformers' Conv1D keeps its weight the other way round.
        product = own.T @ slope if isinstance(layer, nn.Linear) else own @ slope.T
        found.append(product.double().numpy() / len(task.train))
        weight.grad = None
        weight.requires_grad_(False)
    return found


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
