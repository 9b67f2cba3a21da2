"""Backbones: against slow twins, causality, files that are damaged in every way, and training."""

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

from qas.finetuning import backbones
from qas.errors import QasError, RunError, UnknownNameError
from qas.finetuning.backbones import (
    PRESETS,
    SHIPPED,
    Attention,
    Backbone,
    Block,
    ByteGpt,
    GptConfig,
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
GPT = GptConfig(dim=8, depth=2, heads=2, context=6)


def alive(config: VitConfig | GptConfig, seed: int = 0) -> Any:
    """A model whose every weight is random, biases and head too, float64."""
    model = build_backbone(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def images(size: int = 8, n: int = 5) -> Tensor:
    return torch.randn(n, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def texts(n: int = 4, length: int = 6) -> Tensor:
    return torch.randint(256, (n, length), generator=torch.Generator().manual_seed(1))


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
            seen = t + 1 if layer.causal else len(x)
            weights = np.exp(k[:seen, mine] @ q[t, mine] / math.sqrt(width))
            mixed[t, mine] = weights @ v[:seen, mine] / weights.sum()
    return slow_linear(mixed, layer.proj)


def slow_mlp(x: np.ndarray, block: Block) -> np.ndarray:
    inner = slow_linear(slow_normal(x, block.norm2), block.mlp.fc1)
    gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return slow_linear(gelu, block.mlp.fc2)


def slow_block(x: np.ndarray, block: Block) -> np.ndarray:
    x = x + slow_attention(slow_normal(x, block.norm1), block.attention)
    return x + slow_mlp(x, block)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_against_a_slow_twin(causal: bool, heads: int) -> None:
    torch_state = torch.get_rng_state()
    layer = Attention(8, heads, causal).double()
    torch.set_rng_state(torch_state)
    x = texts(3, 5).double()[..., None] / 256 - torch.arange(8) / 5
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


def test_gpt_against_a_slow_twin() -> None:
    model, batch = alive(GPT), texts()
    found = model(batch)
    assert found.shape == (4, 6, 256) and model.features(batch).shape == (4, 6, 8)
    for row, text in zip(found, batch, strict=True):
        x = array(model.token.weight)[text.numpy()] + array(model.position)
        for block in model.blocks:
            x = slow_block(x, block)
        np.testing.assert_allclose(array(row), slow_linear(slow_normal(x, model.norm), model.head), atol=1e-10)


# ---------------------------------------------------------------------- behaviour
@pytest.mark.parametrize("changed", range(6))
def test_a_later_byte_changes_nothing_before_it(changed: int) -> None:
    model, text = alive(GPT), texts()
    other = text.clone()
    other[:, changed] = (other[:, changed] + 1) % 256
    before, after = model(text), model(other)
    torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=0)
    assert (before[:, changed:] != after[:, changed:]).any(2).all()


def test_shorter_texts_have_the_same_scores() -> None:
    model, text = alive(GPT), texts()
    torch.testing.assert_close(model(text[:, :4]), model(text)[:, :4], rtol=0, atol=1e-12)


def test_every_image_is_judged_alone_and_every_pixel_matters() -> None:
    model, batch = alive(VIT), images().requires_grad_()
    torch.testing.assert_close(model(batch)[2:3], model(batch[2:3]), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(model(batch)[0].square().sum(), batch)
    assert (gradient[0] != 0).all() and not gradient[1:].any()


@pytest.mark.parametrize(("config", "batch"), [(VIT, images), (GPT, texts)], ids=["vit", "gpt"])
def test_gradients_reach_every_parameter(config: VitConfig | GptConfig, batch: Callable[[], Tensor]) -> None:
    model = alive(config)
    model(batch()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.endswith("k.bias"), name  # softmax does not see a shift of all keys


@pytest.mark.parametrize("config", [VIT, GPT], ids=["vit", "gpt"])
def test_layers_stand_under_the_names_that_adapters_aim_at(config: VitConfig | GptConfig) -> None:
    model = build_backbone(config)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inner = [f"attention.{part}" for part in ("q", "k", "v", "proj")] + ["mlp.fc1", "mlp.fc2"]
    found = [name for name in names if name.startswith("blocks")]
    assert found == [f"blocks.{k}.{part}" for k in range(2) for part in inner]
    assert [name for name in names if name not in found] == (["embed", "head"] if config is VIT else ["head"])


class Recorder(nn.Module):
    """Stands in for the MLP term: half the branch, and keeps what it was called with."""

    def forward(self, x: Tensor, mlp_branch: Callable[[Tensor], Tensor]) -> Tensor:
        self.seen = x
        return 0.5 * mlp_branch(x)


def test_parallel_reads_the_stream_after_the_attention() -> None:
    model, batch = alive(VIT), images()
    block, x = (
        model.blocks[0],
        alive(VIT).embed(images().unflatten(2, (4, 2)).flatten(2).unflatten(1, (4, 2)).flatten(2)),
    )
    middle = slow_attention(slow_normal(array(x[0]), block.norm1), block.attention) + array(x[0])
    plain = model(batch)
    block.parallel = Recorder()
    np.testing.assert_allclose(array(block(x)[0]), middle + 0.5 * slow_mlp(middle, block), atol=1e-12)
    np.testing.assert_allclose(array(block.parallel.seen[0]), middle, atol=1e-12)
    assert not torch.allclose(model(batch), plain)
    block.parallel = None
    torch.testing.assert_close(model(batch), plain, rtol=0, atol=0)


def test_parallel_is_a_part_of_the_model() -> None:
    block = Block(8, 2, causal=False)
    assert "parallel" not in dict(block.named_children())
    block.parallel = nn.Bilinear(8, 8, 8)
    assert "parallel.weight" in block.state_dict()


def test_a_seed_fixes_the_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (VisionTransformer(8, 4, 8, 2, 2, 3, seed=seed) for seed in (0, 0, 1))
    ByteGpt(8, 2, 2, 6).features(texts())
    first.replace_head(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.blocks[1].mlp.fc2.weight, again.blocks[1].mlp.fc2.weight)
    assert not torch.equal(first.embed.weight, other.embed.weight)


@pytest.mark.parametrize("config", [VIT, GPT], ids=["vit", "gpt"])
def test_fresh_weights(config: VitConfig | GptConfig) -> None:
    model = build_backbone(config)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.requires_grad
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias") or name.startswith("head"):
            assert not parameter.any(), name
        else:
            assert 0 < parameter.std() < 0.5 and abs(parameter.mean()) < 0.2, name
    inputs = images().float() if config is VIT else texts()
    assert not model(inputs).any() and model.provenance == {}


def test_a_new_head_starts_at_zero_and_keeps_the_rest() -> None:
    model = VisionTransformer(8, 4, 8, 2, 2, 3).half()
    kept = model.embed.weight
    model.replace_head(7)
    assert model.config == VitConfig(8, 4, 8, 2, 2, 7) and model.embed.weight is kept
    assert model.head.weight.shape == (7, 8) and model.head.weight.dtype == torch.float16
    assert not model.head.weight.any() and not model.head.bias.any() and model.head.weight.requires_grad
    with pytest.raises(QasError, match="n_classes is from 1 to 65536, got 0"):
        model.replace_head(0)
    assert model.config.n_classes == 7


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sprites-tiny", 205_638),
        ("sprites-small", 804_486),
        ("sprites-wide", 3_181_830),
        ("digits-tiny", 202_826),
        ("text-tiny", 875_520),
        ("text-small", 3_323_648),
    ],
)
def test_sizes_of_presets(name: str, parameters: int) -> None:
    preset = PRESETS[name]
    model = build_backbone(preset.config, seed=None)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert all(parameter.is_meta for parameter in model.parameters())
    assert preset.source == {"text": "text"}.get(name[:4], name.partition("-")[0]) and preset.source in SOURCES
    assert set(PRESETS) >= {name} and 1 <= preset.minutes <= 25


@pytest.mark.parametrize("shape", [(2, 8, 7), (2, 1, 8, 8), (8, 8)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(QasError, match=r"images have the shape \(B, 8, 8\), got \("):
        build_backbone(VIT)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 7), (2, 0), (3,)])
def test_texts_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(QasError, match=r"texts have the shape \(B, 1 to 6\), got \("):
        build_backbone(GPT)(torch.zeros(shape, dtype=torch.int64))


# ---------------------------------------------------------------------- configurations
@pytest.mark.parametrize("config", [VIT, GPT, *(preset.config for preset in PRESETS.values())])
def test_configurations_go_through_json(config: VitConfig | GptConfig) -> None:
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim is from 1 to 8192, got 0"),
        ({"dim": 8.0}, r"dim is a whole number, got 8\.0"),
        ({"depth": 129}, "depth is from 1 to 128, got 129"),
        ({"heads": 3}, "heads divides dim, got 3 and 8"),
        ({"heads": 16}, "heads is from 1 to 8, got 16"),
        ({"patch": 3}, "patch divides image_size, got 3 and 8"),
        ({"patch": 9}, "patch is from 1 to 8, got 9"),
        ({"image_size": 2048}, "image_size is from 1 to 1024, got 2048"),
        ({"n_classes": True}, "n_classes is a whole number, got True"),
        ({"kind": "rnn"}, "a backbone has a config of kind vit or gpt, got "),
        ({"kind": "gpt"}, "a config of kind gpt has the sizes dim, depth, heads, context, got image_size"),
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


def test_a_context_out_of_range_and_a_negative_seed() -> None:
    with pytest.raises(QasError, match="context is from 1 to 65536, got 0"):
        ByteGpt(8, 1, 2, 0)
    with pytest.raises(QasError, match="seed is at least 0, got -1"):
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


def test_accuracy_and_bits_per_byte_by_hand() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]], np.float32)
    labels = np.array([1, 1, 1])
    model = Fixed().train()
    for batch_size in (1, 2, 256):
        assert evaluate_backbone(model, Split(scores, labels), batch_size=batch_size) == pytest.approx(2 / 3)
        text = Split(scores[:, None, :], labels[:, None])
        log = -np.log2(np.exp(scores[:, 1]) / np.exp(scores).sum(1))
        assert evaluate_backbone(model, text, batch_size=batch_size) == pytest.approx(log.mean())
    assert model.training
    with pytest.raises(QasError, match="an evaluation needs at least one example, got none"):
        evaluate_backbone(model, Split(scores[:0], labels[:0]))
    with pytest.raises(QasError, match="batch_size is at least 1, got 0"):
        evaluate_backbone(model, Split(scores, labels), batch_size=0)


def test_a_uniform_model_needs_eight_bits() -> None:
    split = Split(texts().numpy(), texts().numpy())
    assert evaluate_backbone(build_backbone(GPT), split) == pytest.approx(8.0)


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize("config", [VIT, GPT], ids=["vit", "gpt"])
@pytest.mark.parametrize("half", [False, True])
def test_save_and_load(tmp_path: Path, config: VitConfig | GptConfig, half: bool) -> None:
    model = alive(config).float()
    path = save_backbone(tmp_path / "a" / "b", model, {"why": "test", "bad": math.nan}, half=half)
    before = torch.get_rng_state()
    again = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(again) is type(model) and again.config == config and not again.training
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
    model.blocks[0].parallel = nn.Linear(8, 8)
    with pytest.raises(QasError, match=r"saved without adapters .* got blocks\.0\.parallel\.bias"):
        save_backbone(tmp_path / "x", model)
    model.blocks[0].parallel = None
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
        ({"format": "other"}, "described by a file of format qas-backbone, got "),
        ({"version": 2}, "read up to format version 1, got 2; update qas"),
        ({"version": None}, "read up to format version 1, got None"),
        ({"version": 0}, "read up to format version 1, got 0"),
        ({"config": ...}, "the description of the backbone lacks config"),
        ({"weights_sha256": ...}, "the description of the backbone lacks weights_sha256"),
        ({"provenance": ...}, "the description of the backbone lacks provenance"),
        ({"provenance": "me"}, "the description of the backbone lacks a provenance of names"),
        ({"config": {"kind": "vit"}}, r"has the sizes image_size.*backbone\.json"),
        (
            {"config": config_to_json(VIT) | {"depth": 10**9}},
            r"depth is from 1 to 128, got 1000000000: .*backbone\.json",
        ),
        ({"config": config_to_json(VIT) | {"dim": 16}}, r"the tensor .* has shape \(.*16.*\), got \(8,.*"),
        ({"config": config_to_json(VIT) | {"depth": 3}}, r"the tensor blocks\.2\..* has shape .*, got none"),
        ({"config": config_to_json(VIT) | {"depth": 1}}, r"the tensor blocks\.1\..* has shape none, got \("),
        ({"weights_sha256": "0" * 64}, "have sha256 000000000000…, got "),
        ({"weights_sha256": 7}, "have sha256 7…, got "),
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
        with pytest.raises(QasError, match="have sha256"):
            load_backbone(saved)
    weights.write_bytes(b"\x80\x04N.")
    rewrite(saved, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(QasError, match="the weights of the backbone are damaged"):
        load_backbone(saved)
    weights.unlink()
    with pytest.raises(QasError, match="the weights of the backbone are missing"):
        load_backbone(saved)
    weights.mkdir()
    with pytest.raises(QasError, match="the weights of the backbone cannot be read"):
        load_backbone(saved)
    weights.rmdir()
    weights.write_bytes(whole)
    about.write_text(text[:50])
    with pytest.raises(QasError, match="the description of the backbone is damaged or cut short"):
        load_backbone(saved)
    about.write_text("[]")
    with pytest.raises(QasError, match="described by a file of format"):
        load_backbone(saved)
    about.unlink()
    with pytest.raises(QasError, match="the description of the backbone is missing"):
        load_backbone(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"head.bias": np.array([0, np.nan, 0], np.float32)}, r"got NaN or infinity in head\.bias"),
        (lambda t: t | {"head.bias": np.array([0, np.inf, 0], np.float32)}, r"got NaN or infinity in head\.bias"),
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
        QasError, match=r"text-small is not shipped and has to be trained first, some 12 minutes: qas backbone train "
    ):
        load_backbone("text-small")
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


def test_sprites_tiny_is_shipped() -> None:
    assert (SHIPPED / "sprites-tiny" / "backbone.json").exists()


# ---------------------------------------------------------------------- training
@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that take a second."""
    presets = {
        "sprites": Preset(VitConfig(32, 8, 16, 1, 2, 6), "sprites", 128, 1, batch_size=32),
        "digits": Preset(VitConfig(16, 4, 32, 1, 2, 10), "digits", 6400, 1, batch_size=64, learning_rate=5e-3),
        "text": Preset(GptConfig(16, 1, 2, 128), "text", 320, 1, batch_size=16, learning_rate=1e-2),
        "wild": Preset(VitConfig(16, 8, 16, 1, 2, 10), "digits", 640, 1, batch_size=64, learning_rate=1e30),
    }
    monkeypatch.setattr(backbones, "PRESETS", presets)
    monkeypatch.setattr(backbones, "_HELD_OUT", {"sprites": 60, "digits": 300, "text": 8})


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
        "examples": 6400,
        "seconds": 0,
        "loss": 0,
    }
    assert told[0]["loss"] == pytest.approx(math.log(10), abs=0.05) and told[-1]["loss"] < 0.8 * told[0]["loss"]
    about = model.provenance
    assert about["score"] > 0.35 and about["metric"] == "accuracy" and about["held_out"] == 300 and about["seed"] == 2
    assert about["final_loss"] == told[-1]["loss"] and about["examples"] == 6400 and about["threads"] == 1
    assert {"python", "torch", "numpy"} <= about["versions"].keys()
    again = load_backbone(tmp_path / "digits")
    assert again.provenance == about and not model.training
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    held_out = load_source("digits", 300, seed=2, held_out=True)
    assert evaluate_backbone(again, held_out) == about["score"]


def test_text_is_learnt(small: None) -> None:
    told: list[dict[str, Any]] = []
    model = pretrain("text", on_progress=told.append)
    assert told[0]["loss"] == pytest.approx(math.log(256), abs=0.05) and told[-1]["loss"] < 4.2
    assert model.provenance["metric"] == "bits_per_byte" and 2 < model.provenance["score"] < 6.5


def same(one: Backbone, two: Backbone) -> bool:
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
    with pytest.raises(QasError, match="examples is at least 64, got 63"):
        pretrain("digits", examples=63)
    with pytest.raises(QasError, match="seed is at least 0, got -3"):
        pretrain("digits", seed=-3)
    with pytest.raises(QasError, match="threads is at least 1, got 0"):
        pretrain("digits", threads=0)
    with pytest.raises(QasError, match=r"the training diverged by step \d+ of 10, its loss is (nan|inf)"):
        pretrain("wild", out=tmp_path / "wild")
    assert not (tmp_path / "wild").exists()
