"""Frozen networks for adapters to change: a small vision transformer and a byte-level GPT, trained on this machine.

Layers stand as separate `nn.Linear` modules under the names that adapters aim at: ``q``, ``k``, ``v`` and ``proj`` of
the attention, ``fc1`` and ``fc2`` of the MLP. Blocks normalise first (Xiong et al. 2020, arXiv:2002.04745); the vision
transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) averages over its patches instead of reading a class token
(Beyer et al. 2022, arXiv:2205.01580).
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qas.errors import QasError, UnknownNameError
from qas.files import disk_errors, read_json, to_json, write_atomic
from qas.finetuning.tasks import CONTEXT, DIGIT_SIZE, SHAPES, SPRITE_SIZE, Split, load_source, whole_number

FORMAT = "qas-backbone"
FORMAT_VERSION = 1
SHIPPED = Path(__file__).parent / "data"
"""Folder of the backbones that come with the package."""

_HALF_MAX = float(torch.finfo(torch.float16).max)


# ---------------------------------------------------------------------- configurations
@dataclass(frozen=True)
class VitConfig:
    """Sizes of a `VisionTransformer`.

    Attributes:
        image_size: width and height of an image, pixels, 1 to 1024.
        patch: width and height of a patch, pixels; divides image_size.
        dim: width of the stream, 1 to 8192.
        depth: blocks, 1 to 128.
        heads: attention heads of a block; divides dim.
        n_classes: outputs of the head, 1 to 65536.

    Raises:
        QasError: a size out of range.
    """

    image_size: int
    patch: int
    dim: int
    depth: int
    heads: int
    n_classes: int
    kind: ClassVar[str] = "vit"

    def __post_init__(self) -> None:
        whole_number("image_size", self.image_size, 1, 1024)
        whole_number("patch", self.patch, 1, self.image_size)
        if self.image_size % self.patch:
            raise QasError(f"patch divides image_size, got {self.patch} and {self.image_size}")
        _check_blocks(self.dim, self.depth, self.heads)
        whole_number("n_classes", self.n_classes, 1, 65536)


@dataclass(frozen=True)
class GptConfig:
    """Sizes of a `ByteGpt`.

    Attributes:
        dim: width of the stream, 1 to 8192.
        depth: blocks, 1 to 128.
        heads: attention heads of a block; divides dim.
        context: longest text, bytes, 1 to 65536.

    Raises:
        QasError: a size out of range.
    """

    dim: int
    depth: int
    heads: int
    context: int
    kind: ClassVar[str] = "gpt"

    def __post_init__(self) -> None:
        _check_blocks(self.dim, self.depth, self.heads)
        whole_number("context", self.context, 1, 65536)


BackboneConfig = VitConfig | GptConfig


def _check_blocks(dim: int, depth: int, heads: int) -> None:
    whole_number("dim", dim, 1, 8192)
    whole_number("depth", depth, 1, 128)
    whole_number("heads", heads, 1, dim)
    if dim % heads:
        raise QasError(f"heads divides dim, got {heads} and {dim}")


def config_to_json(config: BackboneConfig) -> dict[str, Any]:
    """The configuration as a dict of JSON values, with its kind."""
    return {"kind": config.kind, **asdict(config)}


def config_from_json(data: Any) -> BackboneConfig:
    """The inverse of `config_to_json`.

    Raises:
        QasError: not such a dict, or a size out of range.
    """
    kinds = {"vit": VitConfig, "gpt": GptConfig}
    if not isinstance(data, Mapping) or data.get("kind") not in list(kinds):
        raise QasError(f"a backbone has a config of kind {' or '.join(kinds)}, got {data!r}")
    kind: type[BackboneConfig] = kinds[data["kind"]]
    sizes = {name: value for name, value in data.items() if name != "kind"}
    due = [field.name for field in dataclasses.fields(kind)]
    if sorted(sizes) != sorted(due):
        raise QasError(f"a config of kind {kind.kind} has the sizes {', '.join(due)}, got {', '.join(sizes)}")
    return kind(**sizes)


# ---------------------------------------------------------------------- models
class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) of linear layers q, k, v and proj.

    Args:
        dim: width of the stream.
        heads: divides `dim`.
        causal: let a token look at itself and earlier ones only.
    """

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, dim) to the same shape."""
        q, k, v = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """fc1, GELU, fc2; four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., dim) to the same shape."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """``x = x + attention(norm1(x))``, then ``x + mlp(norm2(x))``.

    Attributes:
        parallel: None, or a module that stands in for the second term (AdaptFormer, Chen et al. 2022,
            arXiv:2205.13535). It is called with the stream after the attention, not normalised, and the MLP branch,
            and the block returns ``x + parallel(x, mlp_branch)``.
    """

    parallel: nn.Module | None

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.register_module("parallel", None)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, dim) to the same shape."""
        x = x + self.attention(self.norm1(x))
        if self.parallel is None:
            return x + self._mlp_branch(x)
        return x + self.parallel(x, self._mlp_branch)

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))


class Backbone(nn.Module, abc.ABC):
    """What both models share.

    Attributes:
        config: sizes; those of the head follow `replace_head`.
        provenance: how it was trained, JSON-able; empty for a fresh one.
    """

    config: BackboneConfig
    head: nn.Linear
    blocks: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}

    @abc.abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """What the head reads, shape (..., dim)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, shape (..., n_classes); see `features` for the inputs."""
        return self.head(self.features(inputs))

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        """Weights and positions from a normal distribution of spread 0.02 cut at two spreads, as in ViT and GPT-2;
        layers that write to the stream are scaled by its number of terms; biases and the head start at zero."""
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or name.startswith("head."):
                parameter.zero_()
            else:
                deep = name.endswith(("proj.weight", "fc2.weight"))
                spread = 0.02 / math.sqrt(2 * len(self.blocks)) if deep else 0.02
                # the spread of a linear layer that keeps the size of what it reads, where 0.02 is meant for dim 768
                if parameter.ndim == 2 and not name.startswith(("position", "token")):
                    spread *= math.sqrt(768 / parameter.shape[1])
                nn.init.trunc_normal_(parameter, std=spread, a=-2 * spread, b=2 * spread, generator=generator)


class VisionTransformer(Backbone):
    """Grey images to class scores.

    The same seed gives the same weights; the global generator of torch is left alone.

    Args:
        image_size: width and height of an image, pixels.
        patch: width and height of a patch, pixels; divides image_size.
        dim: width of the stream.
        depth: number of blocks.
        heads: divides dim.
        n_classes: outputs of the head.
        seed: of the weights; None leaves them without memory, on the meta device.

    Raises:
        QasError: a size out of range.
    """

    config: VitConfig

    def __init__(
        self, image_size: int, patch: int, dim: int, depth: int, heads: int, n_classes: int, *, seed: int | None = 0
    ) -> None:
        config = VitConfig(image_size, patch, dim, depth, heads, n_classes)
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.embed = nn.Linear(patch * patch, dim)
            self.position = nn.Parameter(torch.empty((image_size // patch) ** 2, dim))
            self.blocks = nn.Sequential(*(Block(dim, heads, causal=False) for _ in range(depth)))
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, n_classes)
        if seed is not None:
            self._initialise(whole_number("seed", seed, 0))

    def features(self, inputs: Tensor) -> Tensor:
        """Normalised mean over patches, shape (B, dim).

        Args:
            inputs: images from -1 to 1, shape (B, image_size, image_size).

        Raises:
            QasError: images of another shape.
        """
        size, patch = self.config.image_size, self.config.patch
        if inputs.ndim != 3 or inputs.shape[1:] != (size, size):
            raise QasError(f"images have the shape (B, {size}, {size}), got {tuple(inputs.shape)}")
        rows = inputs.unflatten(2, (size // patch, patch)).unflatten(1, (size // patch, patch))
        patches = rows.transpose(2, 3).flatten(3).flatten(1, 2)
        return self.norm(self.blocks(self.embed(patches) + self.position).mean(1))

    def replace_head(self, n_classes: int) -> None:
        """Put a head for other classes in place, all zeros.

        Raises:
            QasError: `n_classes` out of range.
        """
        self.config = dataclasses.replace(self.config, n_classes=n_classes)
        like = self.position
        self.head = torch.nn.utils.skip_init(
            nn.Linear, self.config.dim, n_classes, device=like.device, dtype=like.dtype
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class ByteGpt(Backbone):
    """Bytes to scores of the byte that follows each; a byte sees itself and earlier ones.

    The same seed gives the same weights; the global generator of torch is left alone.

    Args:
        dim: width of the stream.
        depth: number of blocks.
        heads: divides dim.
        context: longest text, bytes.
        seed: of the weights; None leaves them without memory, on the meta device.

    Raises:
        QasError: a size out of range.
    """

    config: GptConfig

    def __init__(self, dim: int, depth: int, heads: int, context: int, *, seed: int | None = 0) -> None:
        config = GptConfig(dim, depth, heads, context)
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.token = nn.Embedding(256, dim)
            self.position = nn.Parameter(torch.empty(context, dim))
            self.blocks = nn.Sequential(*(Block(dim, heads, causal=True) for _ in range(depth)))
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, 256)
        if seed is not None:
            self._initialise(whole_number("seed", seed, 0))

    def features(self, inputs: Tensor) -> Tensor:
        """Normalised stream, shape (B, T, dim).

        Args:
            inputs: bytes 0 to 255, int64, shape (B, T), T from 1 to context.

        Raises:
            QasError: texts of another shape.
        """
        if inputs.ndim != 2 or not 1 <= inputs.shape[1] <= self.config.context:
            raise QasError(f"texts have the shape (B, 1 to {self.config.context}), got {tuple(inputs.shape)}")
        return self.norm(self.blocks(self.token(inputs) + self.position[: inputs.shape[1]]))


def build_backbone(config: BackboneConfig, *, seed: int | None = 0) -> Backbone:
    """A fresh model of these sizes; seed as in the models."""
    if isinstance(config, VitConfig):
        return VisionTransformer(**asdict(config), seed=seed)
    return ByteGpt(**asdict(config), seed=seed)


def evaluate_backbone(model: nn.Module, split: Split, *, batch_size: int = 256) -> float:
    """The metric of a task on a split: accuracy of an image model, bits per byte of a text model.

    Args:
        model: inputs to logits, on any device; left in the mode it was in.
        split: at least one example.
        batch_size: examples at a time.

    Raises:
        QasError: no example, or `batch_size` out of range.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    if not len(split):
        raise QasError("an evaluation needs at least one example, got none")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            some = slice(start, start + batch_size)
            logits = model(torch.from_numpy(split.inputs[some]).to(device))
            labels = torch.from_numpy(split.labels[some]).to(device)
            if labels.ndim == 1:
                total += float((logits.argmax(1) == labels).sum())
            else:
                total += float(
                    functional.cross_entropy(logits.flatten(0, 1).double(), labels.flatten(), reduction="sum")
                )
    model.train(training)
    return total / split.labels.size / (1.0 if split.labels.ndim == 1 else math.log(2.0))


# ---------------------------------------------------------------------- files
def save_backbone(
    folder: str | os.PathLike[str],
    model: Backbone,
    provenance: Mapping[str, Any] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write `weights.safetensors` and `backbone.json` into a folder, which is made if missing.

    Args:
        folder: where to.
        model: without adapters.
        provenance: how it was trained, JSON-able; default that of the model.
        half: store float16, which rounds the weights; else float32, which is exact.

    Raises:
        QasError: the model carries adapters, or weights that are not finite in the stored precision.
        RunError: the folder cannot be written.
    """
    from safetensors.numpy import save

    path = Path(folder)
    due = {name: tuple(t.shape) for name, t in build_backbone(model.config, seed=None).state_dict().items()}
    held = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    if due != {name: tuple(tensor.shape) for name, tensor in held.items()}:
        odd = sorted(name for name in due.keys() | held.keys() if name not in due or name not in held) or sorted(
            name for name in due if due[name] != tuple(held[name].shape)
        )
        raise QasError(f"a backbone is saved without adapters and with the sizes of its config, got {odd[0]}")
    for name, tensor in held.items():
        limit = _HALF_MAX if half else math.inf
        if not (torch.isfinite(tensor).all() and (tensor.abs() <= limit).all()):
            raise QasError(f"weights are finite numbers in {'float16' if half else 'float32'}, got others in {name}")
    kind = np.float16 if half else np.float32
    weights = save({name: np.array(held[name].numpy(), dtype=kind, order="C") for name in sorted(held)})
    about = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": config_to_json(model.config),
        "parameters": sum(tensor.numel() for tensor in held.values()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "provenance": dict(model.provenance if provenance is None else provenance),
    }
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    # The description names the hash of the weights: written last, it never speaks of weights that are not there yet.
    write_atomic(path / "weights.safetensors", weights)
    write_atomic(path / "backbone.json", to_json(about, indent=2) + "\n")
    return path


def list_backbones() -> list[str]:
    """Names that `load_backbone` finds: those under ``backbones/`` in the current directory, and those shipped."""
    return sorted({p.parent.name for root in (Path("backbones"), SHIPPED) for p in root.glob("*/backbone.json")})


def load_backbone(name: str | os.PathLike[str]) -> Backbone:
    """Load a backbone, in evaluation mode, float32, on the CPU.

    Args:
        name: an existing folder, else a folder under ``backbones/`` in the current directory, else a shipped one.

    Raises:
        UnknownNameError: no such backbone.
        QasError: a preset that has to be trained first; a file that is missing or damaged, was written by a newer
            version, or does not fit the others.
    """
    folder = _find_backbone(name)
    where = folder / "backbone.json"
    about = read_json(where, "the description of the backbone")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise QasError(f"a backbone is described by a file of format {FORMAT}, got {where}")
    if not isinstance(about.get("version"), int) or not 1 <= about["version"] <= FORMAT_VERSION:
        told = about.get("version")
        raise QasError(f"backbones are read up to format version {FORMAT_VERSION}, got {told}; update qas: {where}")
    lacking = [key for key in ("config", "weights_sha256", "provenance") if key not in about]
    if lacking or not isinstance(about["provenance"], dict):
        raise QasError(f"the description of the backbone lacks {(lacking or ['a provenance of names'])[0]}: {where}")
    try:
        model = build_backbone(config_from_json(about["config"]), seed=None)
    except QasError as error:
        raise QasError(f"{error}: {where}") from None
    tensors = _read_weights(folder / "weights.safetensors", about["weights_sha256"], model)
    model.load_state_dict(
        {key: torch.from_numpy(array.astype(np.float32)) for key, array in tensors.items()}, assign=True
    )
    model.provenance = about["provenance"]
    return model.requires_grad_(True).eval()


def _find_backbone(name: str | os.PathLike[str]) -> Path:
    for path in (Path(name), Path("backbones") / name, SHIPPED / name):
        if path.name and ((path / "backbone.json").exists() or (path / "weights.safetensors").exists()):
            return path
    told = os.fspath(name)
    if told in PRESETS:
        raise QasError(
            f"the backbone {told} is not shipped and has to be trained first, some {PRESETS[told].minutes} minutes: "
            f"{_command(told, 0, None)}"
        )
    raise UnknownNameError("backbone", told, {*list_backbones(), *PRESETS})


def _read_weights(path: Path, expected: Any, model: Backbone) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise QasError(f"the weights of the backbone are missing: {path}") from None
    except OSError as error:
        raise QasError(f"the weights of the backbone cannot be read: {path}: {error.strerror or error}") from None
    told = hashlib.sha256(data).hexdigest()
    if told != expected:
        raise QasError(f"the weights of the backbone have sha256 {str(expected)[:12]}…, got {told[:12]}…: {path}")
    try:
        tensors = load(data)
    except Exception as error:  # safetensors raises a class of its own
        raise QasError(f"the weights of the backbone are damaged: {path}: {error}") from None
    due = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(due.keys() | tensors.keys()):
        want, got = due.get(name), tensors[name].shape if name in tensors else None
        if want != got:
            raise QasError(f"the tensor {name} has shape {want or 'none'}, got {got or 'none'}: {path}")
        if tensors[name].dtype not in (np.float16, np.float32):
            raise QasError(f"the tensor {name} holds float16 or float32, got {tensors[name].dtype}: {path}")
        if not np.isfinite(tensors[name]).all():
            raise QasError(f"weights are finite numbers, got NaN or infinity in {name}: {path}")
    return tensors


# ---------------------------------------------------------------------- training
@dataclass(frozen=True)
class Preset:
    """A backbone of standard size and how it is trained.

    Attributes:
        config: sizes.
        source: what it is trained on, as in `qas.finetuning.tasks.load_source`.
        examples: images, or windows of CONTEXT bytes, seen in all.
        minutes: what that takes on two cores, roughly.
        batch_size: examples of a step.
        learning_rate: the highest one.
    """

    config: BackboneConfig
    source: str
    examples: int
    minutes: int
    batch_size: int = 128
    learning_rate: float = 2e-3


def _sprite_vit(dim: int, heads: int) -> VitConfig:
    return VitConfig(SPRITE_SIZE, patch=4, dim=dim, depth=4, heads=heads, n_classes=len(SHAPES))


PRESETS = MappingProxyType(
    {
        "sprites-tiny": Preset(_sprite_vit(64, 4), "sprites", 300_000, 9),
        "sprites-small": Preset(_sprite_vit(128, 4), "sprites", 150_000, 11),
        "sprites-wide": Preset(_sprite_vit(256, 8), "sprites", 100_000, 22),
        "digits-tiny": Preset(VitConfig(DIGIT_SIZE, 4, 64, 4, 4, 10), "digits", 200_000, 2),
        "text-tiny": Preset(GptConfig(128, 4, 4, CONTEXT), "text", 60_000, 9, batch_size=32),
        "text-small": Preset(GptConfig(256, 4, 8, CONTEXT), "text", 25_000, 12, batch_size=32),
    }
)
"""The backbones that `pretrain` makes."""

_HELD_OUT = {"sprites": 6000, "digits": 2000, "text": 1000}
_CHUNK = 8192


def pretrain(
    preset: str,
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    examples: int | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    threads: int | None = None,
) -> Backbone:
    """Train a backbone on its source and keep it, float16.

    AdamW with weight decay 0.05, five percent of the steps as warm-up and a cosine to zero, gradients cut to norm 1.
    Images and text are drawn afresh all the time. The same seed on the same machine and threads gives the same weights.
    Weights are rounded before they are judged, so that the figure is that of what is stored.

    Args:
        preset: a name in `PRESETS`.
        out: folder to write; None writes none.
        seed: of weights and examples.
        examples: images, or windows of CONTEXT bytes, seen in all; default that of the preset, some minutes.
        on_progress: called about a hundred times with step, steps, examples, seconds and the mean loss (nats) since.
        threads: torch threads to use; default as they are. Restored at the end.

    Returns:
        The model, in evaluation mode. Its provenance names preset, command, seed, settings, seconds, versions, and its
        score on held-out examples of the source (accuracy or bits per byte).

    Raises:
        UnknownNameError: no such preset.
        QasError: an argument out of range, the source is not to be had, or the training diverged.
        RunError: the folder cannot be written.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    chosen = PRESETS[preset]
    seed = whole_number("seed", seed, 0)
    examples = whole_number("examples", chosen.examples if examples is None else examples, chosen.batch_size)
    started = time.perf_counter()
    with _threads(threads):
        model = build_backbone(chosen.config, seed=seed)
        loss = _fit(model, chosen, seed, examples, on_progress)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half())
        held_out = load_source(chosen.source, _HELD_OUT[chosen.source], seed=seed, held_out=True)
        score = evaluate_backbone(model.eval(), held_out)
        used_threads = torch.get_num_threads()
    model.provenance = {
        "preset": preset,
        "command": _command(preset, seed, None if examples == chosen.examples else examples),
        "seed": seed,
        "source": chosen.source,
        "examples": examples,
        "batch_size": chosen.batch_size,
        "learning_rate": chosen.learning_rate,
        "final_loss": loss,
        "metric": "bits_per_byte" if chosen.source == "text" else "accuracy",
        "score": score,
        "held_out": len(held_out),
        "seconds": round(time.perf_counter() - started, 1),
        "threads": used_threads,
        "versions": _versions(),
    }
    if out is not None:
        save_backbone(out, model, half=True)
    return model


def _command(preset: str, seed: int, examples: int | None) -> str:
    more = "" if examples is None else f" --examples {examples}"
    return f"qas backbone train {preset} --seed {seed}{more} --out backbones/{preset}"


def _versions() -> dict[str, str]:
    told = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    for package in ("quantum-architecture-search", "scikit-learn"):
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            continue
    return told


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(whole_number("threads", count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    model: Backbone,
    preset: Preset,
    seed: int,
    examples: int,
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> float:
    """Train in place; the mean loss, nats, of the last hundredth."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=preset.learning_rate, weight_decay=0.05, fused=True)
    steps = examples // preset.batch_size
    every, started = max(1, steps // 100), time.perf_counter()
    total, since, told = torch.zeros(()), 0, math.nan
    for step, (inputs, labels) in enumerate(_batches(preset, seed, steps), start=1):
        rate = min(step / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * (step - 1) / steps))
        optimizer.param_groups[0]["lr"] = preset.learning_rate * rate
        logits = model(inputs)
        loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total, since = total + loss.detach(), since + 1
        if step % every == 0 or step == steps:
            told = float(total) / since
            total, since = torch.zeros(()), 0
            if not math.isfinite(told):
                raise QasError(f"the training diverged by step {step} of {steps}, its loss is {told}")
            if on_progress is not None:
                seconds = time.perf_counter() - started
                done = step * preset.batch_size
                on_progress({"step": step, "steps": steps, "examples": done, "seconds": seconds, "loss": told})
    return told


def _batches(preset: Preset, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches drawn in chunks, so that a long training does not hold all its examples at once."""
    seeds = np.random.default_rng([seed, 1])
    per_chunk = _CHUNK // preset.batch_size
    for start in range(0, steps, per_chunk):
        size = preset.batch_size * min(per_chunk, steps - start)
        chunk = load_source(preset.source, size, seed=int(seeds.integers(2**62)))
        inputs, labels = torch.from_numpy(chunk.inputs), torch.from_numpy(chunk.labels)
        yield from zip(inputs.split(preset.batch_size), labels.split(preset.batch_size), strict=True)
