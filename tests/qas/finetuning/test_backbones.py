"""Backbones: against slow twins, files that are damaged in every way, and training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from qas.errors import QasError, RunError, UnknownNameError
from qas.finetuning import backbones
from qas.finetuning.backbones import (
    PRESETS,
    SHIPPED,
    Attention,
    Block,
    Preset,
    VisionTransformer,
    VitConfig,
    build_backbone,
    config_from_json,
    config_to_json,
    evaluate_backbone,
    list_backbones,
    load_backbone,
    pretrain,
    save_backbone,
)
from qas.finetuning.tasks import SOURCES, Split, load_source

VIT = VitConfig(image_size=8, patch=4, dim=8, depth=2, heads=2, n_classes=3)


def alive(config: VitConfig, seed: int = 0) -> Any:
    """A model whose every weight is random, biases and head too, float64."""
    model = build_backbone(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def images(size: int = 8, n: int = 5) -> Tensor:
    return torch.randn(n, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---------------------------------------------------------------------- against slow twins
def slow_normal(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * array(layer.weight) + array(layer.bias)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def slow_linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def slow_attention(x: np.ndarray, layer: Attention) -> np.ndarray:
    """One text, head by head and token by token, shape (T, dim)."""
    q, k, v = (slow_linear(x, part) for part in (layer.q, layer.k, layer.v))
    width = x.shape[1] // layer.heads
    mixed = np.zeros_like(x)
    for head in range(layer.heads):
        mine = slice(head * width, (head + 1) * width)
        for t in range(len(x)):
            weights = np.exp(k[:, mine] @ q[t, mine] / math.sqrt(width))
            mixed[t, mine] = weights @ v[:, mine] / weights.sum()
    return slow_linear(mixed, layer.proj)


def slow_mlp(x: np.ndarray, block: Block) -> np.ndarray:
    inner = slow_linear(slow_normal(x, block.norm2), block.mlp.fc1)
    gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return slow_linear(gelu, block.mlp.fc2)


def slow_block(x: np.ndarray, block: Block) -> np.ndarray:
    x = x + slow_attention(slow_normal(x, block.norm1), block.attention)
    return x + slow_mlp(x, block)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_against_a_slow_twin(heads: int) -> None:
    torch_state = torch.get_rng_state()
    layer = Attention(8, heads).double()
    torch.set_rng_state(torch_state)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = layer(x)
    assert found.shape == (3, 5, 8)
    for row, one in zip(found, x, strict=True):
        np.testing.assert_allclose(array(row), slow_attention(array(one), layer), atol=1e-12)


def test_vision_transformer_against_a_slow_twin() -> None:
    model, batch = alive(VIT), images()
    found = model(batch)
    assert found.shape == (5, 3)
    for row, image in zip(found, batch.numpy(), strict=True):
        patches = [image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].ravel() for i in range(2) for j in range(2)]
        x = slow_linear(np.array(patches), model.embed) + array(model.position)
        for block in model.blocks:
            x = slow_block(x, block)
        np.testing.assert_allclose(array(row), slow_linear(slow_normal(x.mean(0), model.norm), model.head), atol=1e-10)


# ---------------------------------------------------------------------- behaviour


def test_every_image_is_judged_alone_and_every_pixel_matters() -> None:
    model, batch = alive(VIT), images().requires_grad_()
    torch.testing.assert_close(model(batch)[2:3], model(batch[2:3]), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(model(batch)[0].square().sum(), batch)
    assert (gradient[0] != 0).all() and not gradient[1:].any()


def test_gradients_reach_every_parameter() -> None:
    model = alive(VIT)
    model(images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.endswith("k.bias"), name  # softmax does not see a shift of all keys


def test_layers_stand_under_the_names_that_adapters_aim_at() -> None:
    model = build_backbone(VIT)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inner = [f"attention.{part}" for part in ("q", "k", "v", "proj")] + ["mlp.fc1", "mlp.fc2"]
    found = [name for name in names if name.startswith("blocks")]
    assert found == [f"blocks.{k}.{part}" for k in range(2) for part in inner]
    assert [name for name in names if name not in found] == ["embed", "head"]


class Recorder(nn.Module):
    """Stands in for the MLP term: half the branch, and keeps what it was called with."""

    def forward(self, x: Tensor, mlp_branch: Callable[[Tensor], Tensor]) -> Tensor:
        self.seen = x
        return 0.5 * mlp_branch(x)


def test_a_seed_fixes_the_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (VisionTransformer(8, 4, 8, 2, 2, 3, seed=seed) for seed in (0, 0, 1))
    first.replace_head(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.blocks[1].mlp.fc2.weight, again.blocks[1].mlp.fc2.weight)
    assert not torch.equal(first.embed.weight, other.embed.weight)


def test_fresh_weights() -> None:
    model = build_backbone(VIT)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.requires_grad
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias") or name.startswith("head"):
            assert not parameter.any(), name
        else:
            assert 0 < parameter.std() < 0.5 and abs(parameter.mean()) < 0.2, name
    assert not model(images().float()).any() and model.provenance == {}


def test_a_new_head_starts_at_zero_and_keeps_the_rest() -> None:
    model = VisionTransformer(8, 4, 8, 2, 2, 3).half()
    kept = model.embed.weight
    model.replace_head(7)
    assert model.config == VitConfig(8, 4, 8, 2, 2, 7) and model.embed.weight is kept
    assert model.head.weight.shape == (7, 8) and model.head.weight.dtype == torch.float16
    assert not model.head.weight.any() and not model.head.bias.any() and model.head.weight.requires_grad
    with pytest.raises(QasError, match="n_classes is a whole number from 1 to 65536, got 0"):
        model.replace_head(0)
    assert model.config.n_classes == 7


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sprites-tiny", 205_638),
        ("sprites-small", 804_486),
        ("sprites-wide", 3_181_830),
        ("digits-tiny", 202_826),
    ],
)
def test_sizes_of_presets(name: str, parameters: int) -> None:
    preset = PRESETS[name]
    model = build_backbone(preset.config, seed=None)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert all(parameter.is_meta for parameter in model.parameters())
    assert preset.source == name.partition("-")[0] and preset.source in SOURCES
    assert set(PRESETS) >= {name} and 1 <= preset.minutes <= 25


@pytest.mark.parametrize("shape", [(2, 8, 7), (2, 1, 8, 8), (8, 8)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(QasError, match=r"images have the shape \(B, 8, 8\), got \("):
        build_backbone(VIT)(torch.zeros(shape))


# ---------------------------------------------------------------------- configurations
@pytest.mark.parametrize("config", [VIT, *(preset.config for preset in PRESETS.values())])
def test_configurations_go_through_json(config: VitConfig) -> None:
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 8.0}, r"dim is a whole number from 1 to 8192, got 8\.0"),
        ({"heads": 3}, "heads divides dim, got 3 and 8"),
        ({"patch": 3}, "patch divides image_size, got 3 and 8"),
        ({"image_size": 2048}, "image_size is a whole number from 1 to 1024, got 2048"),
        ({"kind": "gpt"}, "a backbone has a config of kind vit, got "),
        ({"width": 3}, "a config of kind vit has the sizes image_size, .* got .*width"),
    ],
)
def test_configurations_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(QasError, match=message):
        config_from_json(config_to_json(VIT) | change)


@pytest.mark.parametrize("data", [None, [], "vit", {}, {"kind": ["vit"]}, {"kind": "vit"}])
def test_configurations_of_another_form(data: object) -> None:
    with pytest.raises(QasError, match="a backbone has a config|has the sizes"):
        config_from_json(data)


def test_a_negative_seed() -> None:
    with pytest.raises(QasError, match="seed is a whole number of at least 0, got -1"):
        VisionTransformer(8, 4, 8, 1, 2, 3, seed=-1)


# ---------------------------------------------------------------------- evaluation
class Fixed(nn.Module):
    """Scores that are the input, with one unused parameter to tell the device."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        assert not self.training
        return inputs


def test_accuracy_by_hand() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]], np.float32)
    labels = np.array([1, 1, 1])
    model = Fixed().train()
    for batch_size in (1, 2, 256):
        assert evaluate_backbone(model, Split(scores, labels), batch_size=batch_size) == pytest.approx(2 / 3)
    with pytest.raises(QasError, match="an evaluation needs at least one example, got none"):
        evaluate_backbone(model, Split(scores[:0], labels[:0]))
    with pytest.raises(QasError, match="batch_size is a whole number of at least 1, got 0"):
        evaluate_backbone(model, Split(scores, labels), batch_size=0)


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize("half", [False, True])
def test_save_and_load(tmp_path: Path, half: bool) -> None:
    model = alive(VIT).float()
    path = save_backbone(tmp_path / "a" / "b", model, {"why": "test", "bad": math.nan}, half=half)
    before = torch.get_rng_state()
    again = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(again) is type(model) and again.config == VIT and not again.training
    assert again.provenance == {"why": "test", "bad": None}
    for (name, one), two in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert two.dtype == torch.float32 and two.device.type == "cpu"
        assert torch.equal(two, one.half().float() if half else one), name
    assert all(parameter.requires_grad for parameter in again.parameters())
    stored = load_file(path / "weights.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(np.float16 if half else np.float32)}
    assert sorted(file.name for file in path.iterdir()) == ["backbone.json", "weights.safetensors"]


def test_saving_twice_gives_the_same_bytes_and_keeps_the_provenance(tmp_path: Path) -> None:
    model = build_backbone(VIT)
    model.provenance = {"seed": 3}
    save_backbone(tmp_path / "a", model)
    again = load_backbone(tmp_path / "a")
    assert again.provenance == {"seed": 3}
    save_backbone(tmp_path / "b", again)
    for name in ("backbone.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    save_backbone(tmp_path / "a", build_backbone(VIT, seed=1))
    assert not torch.equal(load_backbone(tmp_path / "a").embed.weight, again.embed.weight)  # type: ignore[operator, union-attr]


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    model = build_backbone(VIT)
    model.blocks[0].more = nn.Linear(8, 8)
    with pytest.raises(QasError, match=r"saved without adapters .* got blocks\.0\.more\.bias"):
        save_backbone(tmp_path / "x", model)
    del model.blocks[0].more
    model.head = nn.utils.skip_init(nn.Linear, 8, 4)
    with pytest.raises(QasError, match=r"with the sizes of its config, got head\.bias"):
        save_backbone(tmp_path / "x", model)
    model.replace_head(3)
    with torch.no_grad():
        model.head.bias[0] = 1e5
    save_backbone(tmp_path / "x", model)
    with pytest.raises(QasError, match=r"finite numbers in float16, got others in head\.bias"):
        save_backbone(tmp_path / "y", model, half=True)
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with pytest.raises(QasError, match=r"finite numbers in float32, got others in head\.bias"):
        save_backbone(tmp_path / "y", model)
    assert not (tmp_path / "y").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        save_backbone(tmp_path / "file" / "z", build_backbone(VIT))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_backbone(tmp_path / "saved", build_backbone(VIT), {"seed": 0})


def rewrite(saved: Path, **changes: object) -> None:
    about = json.loads((saved / "backbone.json").read_text())
    about = {key: value for key, value in (about | changes).items() if value is not ...}
    (saved / "backbone.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "a JSON object of format 'qas-backbone', got "),
        ({"version": 2}, "newer version of this program"),
        ({"config": ...}, "the description of the backbone lacks config"),
        ({"weights_sha256": ...}, "the description of the backbone lacks weights_sha256"),
        ({"provenance": ...}, "the description of the backbone lacks provenance"),
        ({"provenance": "me"}, "the description of the backbone is damaged at provenance"),
        ({"config": {"kind": "vit"}}, r"has the sizes image_size.*backbone\.json"),
        (
            {"config": config_to_json(VIT) | {"depth": 10**9}},
            r"depth is a whole number from 1 to 128, got 1000000000: .*backbone\.json",
        ),
        ({"config": config_to_json(VIT) | {"dim": 16}}, r"the tensor .* has shape \(.*16.*\), got \(8,.*"),
        ({"config": config_to_json(VIT) | {"depth": 3}}, r"the tensor blocks\.2\..* has shape .*, got none"),
        ({"config": config_to_json(VIT) | {"depth": 1}}, r"the tensor blocks\.1\..* has shape none, got \("),
        ({"weights_sha256": "0" * 64}, r"weights is cut short or was changed \(sha256 .*noted 000000000000"),
    ],
)
def test_descriptions_that_do_not_fit(saved: Path, changes: dict[str, object], message: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(QasError, match=message) as caught:
        load_backbone(saved)
    assert "\n" not in str(caught.value)


def test_files_that_are_damaged_or_missing(saved: Path) -> None:
    weights, about = saved / "weights.safetensors", saved / "backbone.json"
    whole, text = weights.read_bytes(), about.read_text()
    for data in (whole[:-1], whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(data)
        with pytest.raises(QasError, match="cut short or was changed"):
            load_backbone(saved)
    weights.write_bytes(b"\x80\x04N.")
    rewrite(saved, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(QasError, match="the file of weights is damaged"):
        load_backbone(saved)
    weights.unlink()
    with pytest.raises(QasError, match="the file of weights is missing"):
        load_backbone(saved)
    weights.mkdir()
    with pytest.raises(QasError, match="the file of weights cannot be read"):
        load_backbone(saved)
    weights.rmdir()
    weights.write_bytes(whole)
    about.write_text(text[:50])
    with pytest.raises(QasError, match="the description of the backbone is damaged or cut short"):
        load_backbone(saved)
    about.write_text("[]")
    with pytest.raises(QasError, match="a JSON object of format"):
        load_backbone(saved)
    about.unlink()
    with pytest.raises(QasError, match="the description of the backbone is missing"):
        load_backbone(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t | {"head.bias": np.array([0, np.nan, 0], np.float32)},
            r"got NaN, infinity or a larger one in head\.bias",
        ),
        (
            lambda t: t | {"head.bias": np.array([0, np.inf, 0], np.float32)},
            r"got NaN, infinity or a larger one in head\.bias",
        ),
        (lambda t: t | {"head.bias": np.zeros(3)}, r"head\.bias holds float16 or float32, got float64"),
        (lambda t: t | {"head.bias": np.zeros(4, np.float32)}, r"head\.bias has shape \(3,\), got \(4,\)"),
        (lambda t: t | {"more": np.zeros(2, np.float32)}, r"more has shape none, got \(2,\)"),
        (lambda t: {k: v for k, v in t.items() if k != "norm.bias"}, r"norm\.bias has shape \(8,\), got none"),
    ],
)
def test_weights_that_do_not_fit(saved: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
    weights = saved / "weights.safetensors"
    save_file(change(load_file(weights)), weights)
    rewrite(saved, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(QasError, match=message):
        load_backbone(saved)


def test_names_are_looked_up_here_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "sprites-tiny" in list_backbones() and "mine" not in list_backbones()
    save_backbone("backbones/mine", build_backbone(VIT))
    save_backbone("backbones/sprites-tiny", build_backbone(VIT))
    assert list_backbones().count("sprites-tiny") == 1 and "mine" in list_backbones()
    assert load_backbone("mine").config == load_backbone("sprites-tiny").config == VIT
    assert load_backbone(SHIPPED / "sprites-tiny").config == PRESETS["sprites-tiny"].config


def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'sprite-tiny'; did you mean 'sprites-tiny'\?"):
        load_backbone("sprite-tiny")
    with pytest.raises(
        QasError, match=r"sprites-wide is not shipped and has to be trained first, some 22 minutes: qas backbone train "
    ):
        load_backbone("sprites-wide")
    for nothing in ("", ".", tmp_path):
        with pytest.raises(QasError, match="unknown backbone"):
            load_backbone(nothing)


# ---------------------------------------------------------------------- what is shipped
@pytest.mark.parametrize("name", sorted(path.parent.name for path in SHIPPED.glob("*/backbone.json")))
def test_shipped_backbones_have_the_score_they_state(name: str) -> None:
    """On a fresh sample, within four standard errors."""
    model = load_backbone(SHIPPED / name)
    told = model.provenance
    assert model.config == PRESETS[name].config and told["preset"] == name and told["metric"] == "accuracy"
    assert told["examples"] == PRESETS[name].examples and told["command"].startswith("qas backbone train ")
    size = 1000
    found = evaluate_backbone(model, load_source(told["source"], size, seed=12345, held_out=True))
    assert abs(found - told["score"]) < 4 * math.sqrt(0.25 / size) and told["score"] > 0.8
    assert (SHIPPED / name / "weights.safetensors").stat().st_size < 500_000


# ---------------------------------------------------------------------- training
@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that take a second."""
    presets = {
        "sprites": Preset(VitConfig(32, 8, 16, 1, 2, 6), "sprites", 128, 1, batch_size=32),
        "digits": Preset(VitConfig(16, 4, 32, 1, 2, 10), "digits", 3200, 1, batch_size=32, learning_rate=5e-3),
        "wild": Preset(VitConfig(16, 8, 16, 1, 2, 10), "digits", 640, 1, batch_size=64, learning_rate=1e30),
    }
    monkeypatch.setattr(backbones, "PRESETS", presets)
    monkeypatch.setattr(backbones, "_HELD_OUT", {"sprites": 60, "digits": 300})


def test_training_learns_and_tells_about_it(small: None, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    before = torch.get_rng_state()
    model = pretrain("digits", out=tmp_path / "digits", seed=2, on_progress=told.append, threads=1)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert [line["step"] for line in told] == list(range(1, 101))
    assert told[-1] | {"seconds": 0, "loss": 0} == {
        "step": 100,
        "steps": 100,
        "examples": 3200,
        "seconds": 0,
        "loss": 0,
    }
    assert told[0]["loss"] == pytest.approx(math.log(10), abs=0.05) and told[-1]["loss"] < 0.9 * told[0]["loss"]
    about = model.provenance
    assert about["score"] > 0.2 and about["metric"] == "accuracy" and about["held_out"] == 300 and about["seed"] == 2
    assert about["final_loss"] == told[-1]["loss"] and about["examples"] == 3200 and about["threads"] == 1
    assert {"python", "torch", "numpy"} <= about["versions"].keys()
    again = load_backbone(tmp_path / "digits")
    assert again.provenance == about and not model.training
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    held_out = load_source("digits", 300, seed=2, held_out=True)
    assert evaluate_backbone(again, held_out) == about["score"]


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_same_seed_trains_the_same_weights(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_CHUNK", 64)
    first, again, other = (pretrain("sprites", seed=seed, threads=1) for seed in (0, 0, 1))
    assert same(first, again) and not same(first, other)
    assert first.provenance["command"] == "qas backbone train sprites --seed 0 --out backbones/sprites"
    short = pretrain("sprites", examples=70, threads=1).provenance
    assert " --examples 70 " in short["command"] and short["examples"] == 70


def test_batches_are_all_different_and_as_many_as_asked_for(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_CHUNK", 70)
    preset = backbones.PRESETS["sprites"]
    batches = list(backbones._batches(preset, 0, 5))
    assert [len(inputs) for inputs, _ in batches] == [32] * 5
    assert len({image.numpy().tobytes() for inputs, _ in batches for image in inputs}) == 160


def test_what_training_refuses(small: None, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown preset 'digit'; did you mean 'digits'"):
        pretrain("digit")
    with pytest.raises(QasError, match="examples is a whole number of at least 32, got 31"):
        pretrain("digits", examples=31)
    with pytest.raises(QasError, match="seed is a whole number of at least 0, got -3"):
        pretrain("digits", seed=-3)
    with pytest.raises(QasError, match="threads is a whole number of at least 1, got 0"):
        pretrain("digits", threads=0)
    with pytest.raises(QasError, match=r"the training diverged by step \d+ of 10, its loss is (nan|inf)"):
        pretrain("wild", out=tmp_path / "wild")
    assert not (tmp_path / "wild").exists()
