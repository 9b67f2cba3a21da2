"""Gradients of a task in rotations of layers, and circuits aligned with them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from qas.adapters.architecture import Architecture
from qas.adapters.circuit import RotationAdapter
from qas.adapters.problems import AdapterProblem, string_coefficients, tangent_strings
from qas.cli import main
from qas.errors import QasError
from qas.finetuning.alignment import aligned_circuit, pooled_matrix, skew_matrix, task_gradient
from qas.finetuning.backbones import VisionTransformer, save_backbone
from qas.finetuning.finetune import Settings
from qas.finetuning.tasks import Split, Task

RNG = np.random.default_rng(716_203)


def string_matrix(x: int, z: int, size: int) -> np.ndarray:
    """X^x Z^z, column by column."""
    matrix = np.zeros((size, size))
    for i in range(size):
        matrix[i ^ x, i] = (-1) ** (i & z).bit_count()
    return matrix


def small_task(images: int = 40) -> Task:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, images)
    inputs = rng.normal(size=(images, 16, 16)).astype(np.float32) + labels[:, None, None].astype(np.float32) / 3
    half = images // 2
    parts = [Split(inputs[a:b], labels[a:b]) for a, b in ((0, half), (half, half + 10), (half + 10, images))]
    return Task("small", "image", *parts, 3, "accuracy")


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_pooled_matrix_has_the_summed_energies_of_its_parts(size: int) -> None:
    parts = [RNG.normal(size=(size, size)) for _ in range(3)]
    pooled = pooled_matrix(parts)
    for x in range(size):
        for z in range(size):
            string = string_matrix(x, z, size)
            wanted = sum(np.trace(string.T @ (p - p.T) / 2) ** 2 for p in parts)
            assert np.trace(string.T @ pooled) ** 2 == pytest.approx(wanted, abs=1e-10)
    assert np.abs(pooled + pooled.T).max() < 1e-12


@pytest.mark.parametrize(("features", "size"), [(24, 8), (20, 4), (16, 16), (37, 4)])
def test_pooling_over_an_odd_axis_gives_the_slopes_of_a_rotation(features: int, size: int) -> None:
    weight, slope = torch.from_numpy(RNG.normal(size=(2, 5, features)))
    pooled = pooled_matrix([(weight.T @ slope).numpy()])
    assert pooled.shape == (size, size)
    circuit = aligned_circuit(pooled, 3)
    adapter = RotationAdapter(features, 5, Architecture.from_circuit(circuit)).double()
    coefficients = string_coefficients(pooled)
    for k, string in enumerate(tangent_strings(circuit)):  # the loss is tr(slopeᵀ W R)
        loss = []
        for angle in (1e-4, -1e-4):
            with torch.no_grad():
                adapter.angles.zero_()[k] = angle
            loss.append(float((slope * adapter.merged(weight)).sum()))
        assert abs(loss[0] - loss[1]) / 2e-4 == pytest.approx(abs(coefficients[string]) / 2, rel=1e-5)


def test_a_matrix_is_made_of_its_energies() -> None:
    energies = RNG.uniform(1, 2, (8, 8))
    found = string_coefficients(skew_matrix(energies)) ** 2
    antisymmetric = np.array([[(x & z).bit_count() % 2 for z in range(8)] for x in range(8)])
    np.testing.assert_allclose(found, energies * antisymmetric, atol=1e-12)


def test_matrices_of_different_sizes_or_shapes_are_refused() -> None:
    with pytest.raises(QasError, match="one size"):
        pooled_matrix([np.eye(4), np.eye(8)])
    with pytest.raises(QasError, match="one size"):
        pooled_matrix([])
    with pytest.raises(QasError, match="is square"):
        pooled_matrix([np.zeros((4, 8))])


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("angles", [1, 3, 6])
def test_an_aligned_circuit_turns_the_strings_that_carry_most(n: int, angles: int) -> None:
    size = 1 << n
    gradient = RNG.normal(size=(size, size))
    circuit = aligned_circuit(gradient, angles)
    skew = (gradient - gradient.T) / 2
    energies = {(x, z): np.trace(string_matrix(x, z, size).T @ skew) ** 2 for x in range(size) for z in range(size)}
    best = sorted(energies, key=lambda k: -energies[k])[:angles]
    assert set(tangent_strings(circuit)) == set(best)
    problem = AdapterProblem("aligned", n, "gradient", angles, gradient)
    assert problem.energy(circuit) == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_of_a_task_is_that_of_the_loss_in_a_rotation() -> None:
    task = small_task()
    model = VisionTransformer(16, 8, 16, 1, 2, 3, seed=1)
    settings = Settings("linear-probe", epochs=2, batch=8, seed=0)
    gradient = task_gradient(model, task, settings, ("q",))
    assert gradient.shape == (16, 16)
    coefficients = string_coefficients(gradient)

    def loss(angle: float, generator: np.ndarray) -> float:
        turned = copy.deepcopy(model).double()
        layer = turned.blocks[0].attention.q
        rotation = torch.linalg.matrix_exp(torch.from_numpy(generator) * angle / 2)
        with torch.no_grad():
            layer.weight.copy_(layer.weight @ rotation)
            logits = turned(torch.from_numpy(task.train.inputs).double())
            return float(nn.functional.cross_entropy(logits, torch.from_numpy(task.train.labels)))

    for x, z in ((1, 1), (3, 2), (5, 4), (8, 8), (9, 7), (15, 1)):
        generator = string_matrix(x, z, 16)
        assert np.abs(generator + generator.T).max() == 0
        slope = (loss(1e-4, generator) - loss(-1e-4, generator)) / 2e-4
        # With one layer, pooling keeps the size of each coefficient and drops its sign.
        assert abs(coefficients[x, z]) / 2 == pytest.approx(abs(slope), rel=1e-3, abs=1e-7)


def test_a_layer_that_keeps_its_weight_the_other_way_round_has_the_same_gradient() -> None:
    task, settings = small_task(), Settings("linear-probe", epochs=1, batch=8, seed=0)
    model = VisionTransformer(16, 8, 16, 1, 2, 3, seed=1)
    twin = copy.deepcopy(model)
    linear, turned = twin.blocks[0].attention.q, Conv1D(16, 16)
    with torch.no_grad():
        turned.weight.copy_(linear.weight.T)
        turned.bias.copy_(linear.bias)
    twin.blocks[0].attention.q = turned
    wanted, found = (task_gradient(each, task, settings, ("q",)) for each in (model, twin))
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-6 * float(np.abs(wanted).max()))


def test_targets_that_match_nothing_are_refused() -> None:
    model = VisionTransformer(16, 8, 16, 1, 2, 3, seed=1)
    with pytest.raises(QasError, match="no linear layer to adapt is named nothing"):
        task_gradient(model, small_task(), Settings("linear-probe", epochs=1), ("nothing",))


def test_the_command_line_writes_a_gradient_that_a_search_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_backbone("small", VisionTransformer(16, 8, 16, 1, 2, 10, seed=1))
    common = ["finetune", "--task", "digits-inverted", "--backbone", "small", "--examples", "40", "--epochs", "1"]
    assert main([*common, "--gradient", "g.npy"]) == 0
    assert "adapter-gradient g.npy" in capsys.readouterr().out
    assert np.load("g.npy").shape == (16, 16)
    search = ["search", "adapter-gradient", "g.npy", "--agent", "adapt", "--steps", "5", "--out", "run", "--quiet"]
    assert main([*search, "--no-report"]) == 0
    capsys.readouterr()
    for wrong, words in (
        (["--gradient", "g.txt"], "written as .npy"),
        (["--gradient", "missing/g.npy"], "folder that exists"),
        (["--gradient", "h.npy", "--bits", "8"], "leave out --bits"),
        (["--gradient", "h.npy", "--method", "lora"], "leave out --method"),
    ):
        assert main([*common, *wrong]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "h.npy").exists()
