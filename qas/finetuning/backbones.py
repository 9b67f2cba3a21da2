"""Frozen networks for adapters to change: small vision transformers, trained on this machine.

Layers stand as separate `nn.Linear` modules under the names that adapters aim at: ``q``, ``k``, ``v`` and ``proj`` of
the attention, ``fc1`` and ``fc2`` of the MLP. Blocks normalise first (Xiong et al. 2020, arXiv:2002.04745); the vision
transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) averages over its patches instead of reading a class token
(Beyer et al. 2022, arXiv:2205.01580), and normalises the average, which no model of transformers does.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qas.checks import shortened, whole_number
from qas.errors import QasError, UnknownNameError
from qas.estimates import affordable
from qas.files import disk_errors, read_tensors, read_versioned, sha256, versioned, write_atomic, write_json
from qas.finetuning.tasks import DIGIT_SIZE, SHAPES, SPRITE_SIZE, Split, load_source
from qas.schema import conform
from qas.torch_threads import torch_threads

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

    def __post_init__(self) -> None:
        whole_number("image_size", self.image_size, 1, 1024)
        whole_number("patch", self.patch, 1, self.image_size)
        if self.image_size % self.patch:
            raise QasError(f"patch divides image_size, got {self.patch} and {self.image_size}")
        whole_number("dim", self.dim, 1, 8192)
        whole_number("depth", self.depth, 1, 128)
        whole_number("heads", self.heads, 1, self.dim)
        if self.dim % self.heads:
            raise QasError(f"heads divides dim, got {self.heads} and {self.dim}")
        whole_number("n_classes", self.n_classes, 1, 65536)


def config_to_json(config: VitConfig) -> dict[str, Any]:
    """The configuration as a dict of JSON values, with its kind."""
    return {"kind": "vit", **asdict(config)}


def config_from_json(data: Any) -> VitConfig:
    """The inverse of `config_to_json`.

    Raises:
        QasError: not such a dict, or a size out of range.
    """
    if not isinstance(data, Mapping) or data.get("kind") != "vit":
        raise QasError(f"a backbone has a config of kind vit, got {shortened(data)}")
    sizes = {name: value for name, value in data.items() if name != "kind"}
    due = [field.name for field in dataclasses.fields(VitConfig)]
    if sorted(sizes) != sorted(due):
        raise QasError(f"a config of kind vit has the sizes {', '.join(due)}, got {', '.join(sizes)}")
    return VitConfig(**sizes)


# ---------------------------------------------------------------------- models
class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) of linear layers q, k, v and proj.

    Args:
        dim: width of the stream.
        heads: divides `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, dim) to the same shape."""
        q, k, v = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
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
    """``x = x + attention(norm1(x))``, then ``x + mlp(norm2(x))``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, dim) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
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

    Attributes:
        config: sizes; those of the head follow `replace_head`.
        provenance: how it was trained, JSON-able; empty for a fresh one.

    Raises:
        QasError: a size out of range.
    """

    def __init__(
        self, image_size: int, patch: int, dim: int, depth: int, heads: int, n_classes: int, *, seed: int | None = 0
    ) -> None:
        config = VitConfig(image_size, patch, dim, depth, heads, n_classes)
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = {}
        with torch.device("meta"):
            self.embed = nn.Linear(patch * patch, dim)
            self.position = nn.Parameter(torch.empty((image_size // patch) ** 2, dim))
            self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, n_classes)
        if seed is not None:
            self._initialise(whole_number("seed", seed, 0))

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
                if parameter.ndim == 2 and not name.startswith("position"):
                    spread *= math.sqrt(768 / parameter.shape[1])
                nn.init.trunc_normal_(parameter, std=spread, a=-2 * spread, b=2 * spread, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, shape (B, n_classes); see `features` for the inputs."""
        return self.head(self.features(inputs))

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


def build_backbone(config: VitConfig, *, seed: int | None = 0) -> VisionTransformer:
    """A fresh model of these sizes; seed as in the model."""
    return VisionTransformer(**asdict(config), seed=seed)


@torch.inference_mode()
def evaluate_backbone(model: nn.Module, split: Split, *, batch_size: int = 256) -> float:
    """Accuracy on a split of at least one example; the model is left in evaluation mode.

    Raises:
        QasError: no example, or `batch_size` out of range.
    """
    batch_size = whole_number("batch_size", batch_size)
    if not len(split):
        raise QasError("an evaluation needs at least one example, got none")
    model.eval()
    parts = torch.from_numpy(split.inputs).split(batch_size), torch.from_numpy(split.labels).split(batch_size)
    right = sum(int((model(inputs).argmax(1) == labels).sum()) for inputs, labels in zip(*parts, strict=True))
    return right / len(split)


# ---------------------------------------------------------------------- files
def save_backbone(
    folder: str | os.PathLike[str],
    model: VisionTransformer,
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
        "config": config_to_json(model.config),
        "parameters": sum(tensor.numel() for tensor in held.values()),
        "weights_sha256": sha256(weights),
        "provenance": dict(model.provenance if provenance is None else provenance),
    }
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    # The description names the hash of the weights: written last, it never speaks of weights that are not there yet.
    write_atomic(path / "weights.safetensors", weights)
    write_json(path / "backbone.json", versioned(FORMAT, FORMAT_VERSION, about), indent=2)
    return path


def list_backbones() -> list[str]:
    """Names that `load_backbone` finds: those under ``backbones/`` in the current directory, and those shipped."""
    return sorted({p.parent.name for root in (Path("backbones"), SHIPPED) for p in root.glob("*/backbone.json")})


class _Description(TypedDict):
    config: dict[str, Any]
    weights_sha256: str
    provenance: dict[str, Any]


def load_backbone(name: str | os.PathLike[str]) -> VisionTransformer:
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
    about = read_versioned(where, FORMAT, FORMAT_VERSION, "the description of the backbone")
    conform(about, _Description, "the description of the backbone", where=where)
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


def _read_weights(path: Path, expected: Any, model: VisionTransformer) -> dict[str, np.ndarray]:
    tensors = read_tensors(path, "the file of weights", expected)
    due = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(due.keys() | tensors.keys()):
        want, got = due.get(name), tensors[name].shape if name in tensors else None
        if want != got:
            raise QasError(f"the tensor {name} has shape {want or 'none'}, got {got or 'none'}: {path}")
        if tensors[name].dtype not in (np.float16, np.float32):
            raise QasError(f"the tensor {name} holds float16 or float32, got {tensors[name].dtype}: {path}")
    return tensors


# ---------------------------------------------------------------------- training
@dataclass(frozen=True)
class Preset:
    """A backbone of standard size and how it is trained.

    Attributes:
        config: sizes.
        source: what it is trained on, as in `qas.finetuning.tasks.load_source`.
        examples: images seen in all.
        minutes: what that takes on two cores, roughly.
        batch_size: examples of a step.
        learning_rate: the highest one.
    """

    config: VitConfig
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
    }
)
"""The backbones that `pretrain` makes."""

_HELD_OUT = {"sprites": 6000, "digits": 2000}
_CHUNK = 8192


def pretrain(
    preset: str,
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    examples: int | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    threads: int | None = None,
) -> VisionTransformer:
    """Train a backbone on its source and keep it, float16.

    AdamW with weight decay 0.05, five percent of the steps as warm-up and a cosine to zero, gradients cut to norm 1.
    Images are drawn afresh all the time. The same seed on the same machine and threads gives the same weights.
    Weights are rounded before they are judged, so that the figure is that of what is stored.

    Args:
        preset: a name in `PRESETS`.
        out: folder to write; None writes none.
        seed: of weights and examples.
        examples: images seen in all; default that of the preset, some minutes.
        on_progress: called about a hundred times with step, steps, examples, seconds and the mean loss (nats) since.
        threads: torch threads to use; default as they are. Restored at the end.

    Returns:
        The model, in evaluation mode. Its provenance names preset, command, seed, settings, seconds, versions, and its
        accuracy on held-out examples of the source.

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
    seconds = 15 * chosen.minutes * examples / chosen.examples  # on a machine four times as fast
    affordable(f"training on {examples} examples takes", seconds=seconds)
    started = time.perf_counter()
    with torch_threads(threads):
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
        "metric": "accuracy",
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


def _fit(
    model: VisionTransformer,
    preset: Preset,
    seed: int,
    examples: int,
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> float:
    """Train in place; the mean loss, nats, of the last hundredth."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=preset.learning_rate, weight_decay=0.05, fused=True)
    steps = examples // preset.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * done / steps))
    )
    every, started = max(1, steps // 100), time.perf_counter()
    total, since, told = torch.zeros(()), 0, math.nan
    for step, (inputs, labels) in enumerate(_batches(preset, seed, steps), start=1):
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
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
