"""Fine-tuning with adapters: one call from a frozen model and a task to a folder with metrics and adapter files."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from qas.adapters.architecture import Architecture, load_architecture
from qas.adapters.base import Adapter
from qas.adapters.circuit import CircuitAdapter, RotationAdapter, TaylorAdapter, share_frames
from qas.adapters.quantize import checked_bits
from qas.errors import QasError, RunError, UnknownNameError
from qas.files import disk_errors, to_json, write_atomic
from qas.finetuning.backbones import Backbone, VisionTransformer, list_backbones, load_backbone
from qas.finetuning.local import LocalModel, load_local
from qas.finetuning.lowrank import AdaptFormerAdapter, LoraAdapter, RandomSubspaceAdapter, VeraAdapter
from qas.finetuning.tasks import Split, Task, load_task, whole_number

FORMAT = "qas-finetune"
VERSION = 1
"""Layout of a fine-tuning folder; a newer one is refused."""
METHODS = {
    "searched": "frames from a found circuit (a run, an OpenQASM file)",
    "searched-rotation": "rotation of the inputs by a found circuit",
    "quantum-peft": "frames from Quantum-PEFT's Pauli circuit (arXiv:2503.05431)",
    "quantum-peft-rotation": "rotation of the inputs by the same circuit",
    "taylor": "frames from Quantum-PEFT's Taylor map",
    "lora": "LoRA (arXiv:2106.09685)",
    "bi-lora": "few-bit LoRA (arXiv:2307.16867)",
    "adaptformer": "bottleneck beside the MLP (arXiv:2205.13535)",
    "bi-adaptformer": "few-bit AdaptFormer (arXiv:2307.16867)",
    "vera": "fixed random matrices, trained scales (arXiv:2310.11454)",
    "random-subspace": "as many parameters in a random subspace (intrinsic dimension, arXiv:1804.08838)",
    "linear-probe": "the head alone",
    "full": "all weights",
}
_CIRCUITS = ("searched", "searched-rotation")
_BESIDE_MLP = ("adaptformer", "bi-adaptformer")
_WITHOUT_ADAPTER = ("linear-probe", "full")
_USED = {
    "searched": ("bits", "rank", "scale", "targets", "learning_rate"),
    "searched-rotation": ("bits", "targets", "learning_rate"),
    "quantum-peft": ("bits", "rank", "layers", "scale", "targets", "learning_rate"),
    "quantum-peft-rotation": ("bits", "layers", "targets", "learning_rate"),
    "taylor": ("bits", "rank", "layers", "scale", "targets", "learning_rate"),
    "lora": ("rank", "scale", "targets", "learning_rate"),
    "bi-lora": ("bits", "rank", "scale", "targets", "learning_rate"),
    "adaptformer": ("rank", "scale", "learning_rate"),
    "bi-adaptformer": ("bits", "rank", "scale", "learning_rate"),
    "vera": ("rank", "scale", "targets", "learning_rate"),
    "random-subspace": ("bits", "size", "scale", "targets", "learning_rate"),
    "linear-probe": (),
    "full": ("learning_rate",),
}
"""Settings that a method reads, beside those of every training."""
_EVERYWHERE = ("epochs", "batch", "head_rate", "weight_decay", "seed")
_LEARNING_RATES = {"full": 1e-3, "lora": 1e-2, "adaptformer": 1e-2}
_LEARNING_RATE = 3e-2  # what tuning on validation splits chose for most methods
_HEAD_RATE = 1e-2
_OUTPUTS = 1 << 25
"""Most outputs held at once where nothing is trained: 128 MiB."""


@dataclass(frozen=True)
class Settings:
    """What is trained and how.

    Raises:
        UnknownNameError: no such method.
        QasError: a number out of range, or bits for a method without, or none for one that needs them.
    """

    method: str
    bits: int | None = None
    """of an angle or a weight; None: float32 angles, float16 weights"""
    rank: int | None = None
    """columns of frames, or bottleneck; default 8, of few-bit methods too"""
    layers: int = 1
    """of the named circuit; intrinsic rank of the Taylor map"""
    size: int = 64
    """parameters of each random subspace"""
    targets: tuple[str, ...] = ("q", "v")
    """last parts of the names of the linear layers to adapt"""
    epochs: int = 30
    batch: int = 50
    learning_rate: float | None = None
    """of the adapter; default by method"""
    head_rate: float = _HEAD_RATE
    """learning rate of the head"""
    weight_decay: float = 1e-4
    scale: float | None = None
    """s of the adapter; default its own"""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS)
        few_bit = self.method.startswith("bi-")
        if self.bits is not None:
            checked_bits(self.bits)
            if self.method in (*_WITHOUT_ADAPTER, "lora", "adaptformer", "vera"):
                raise QasError(f"{self.method} has no bits to choose (few-bit methods: bi-lora, bi-adaptformer)")
        elif few_bit:
            object.__setattr__(self, "bits", 1)
        for name, least in (("layers", 0), ("size", 1), ("epochs", 1), ("batch", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        if self.rank is not None:
            whole_number("rank", self.rank, 1)
        for name in ("learning_rate", "head_rate"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0) and not (value is None and name == "learning_rate"):
                raise QasError(f"{name} is a positive number, got {value!r}")
        if not (_is_number(self.weight_decay) and self.weight_decay >= 0):
            raise QasError(f"weight_decay is not negative, got {self.weight_decay!r}")
        if self.scale is not None and not (_is_number(self.scale) and self.scale):
            raise QasError(f"scale is a finite number other than 0, got {self.scale!r}")
        if (
            not isinstance(self.targets, tuple)
            or not self.targets
            or not all(isinstance(t, str) and t for t in self.targets)
        ):
            raise QasError(f"targets are names of linear layers, got {self.targets!r}")

    @property
    def rate(self) -> float:
        """Learning rate of the adapter."""
        return self.learning_rate or _LEARNING_RATES.get(self.method, _LEARNING_RATE)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# ---------------------------------------------------------------------- adapters on a model
class AdaptedLayer(nn.Module):
    """A frozen linear layer with one adapter."""

    def __init__(self, base: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.base, self.adapter = base, adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter(x, self.base)


def make_adapter(settings: Settings, sides: tuple[int, int], circuit: Architecture | None, number: int) -> Adapter:
    """The adapter of one layer, or of one MLP branch.

    Args:
        settings: method and sizes.
        sides: in_features, out_features.
        circuit: of the methods that take one.
        number: of the layer; its random numbers come from the seed and this.

    Raises:
        QasError: settings that do not fit the layer, or a method that needs a circuit without one.
    """
    method = settings.method
    seed = int(np.random.default_rng([settings.seed, 1, number]).integers(2**31))
    generator = torch.Generator().manual_seed(seed)
    if method in _CIRCUITS and circuit is None:
        raise QasError(f"method {method} needs a run or an OpenQASM file")
    source: Any = circuit if method in _CIRCUITS else "quantum-peft"
    rank = 8 if settings.rank is None else settings.rank
    own_scale: dict[str, Any] = {} if settings.scale is None else {"scale": settings.scale}
    common: dict[str, Any] = {"generator": generator} | own_scale
    if method in ("searched", "quantum-peft"):
        return CircuitAdapter(*sides, source, layers=settings.layers, rank=rank, bits=settings.bits, **common)
    if method.endswith("-rotation"):
        return RotationAdapter(*sides, source, layers=settings.layers, bits=settings.bits)
    if method == "taylor":
        return TaylorAdapter(*sides, intrinsic_rank=max(1, settings.layers), rank=rank, bits=settings.bits, **common)
    if method in ("lora", "bi-lora"):
        return LoraAdapter(*sides, rank=rank, bits=settings.bits, **common)
    if method in _BESIDE_MLP:
        return AdaptFormerAdapter(*sides, rank=rank, bits=settings.bits, **common)
    if method == "vera":
        return VeraAdapter(*sides, rank=rank, seed=seed, **own_scale)
    if method == "random-subspace":
        return RandomSubspaceAdapter(*sides, settings.size, seed, bits=settings.bits, **own_scale)
    raise QasError(f"{method} trains no adapter")


def _sides(layer: nn.Module) -> tuple[int, int] | None:
    """in_features and out_features of a linear layer, None for anything else."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        rows, columns = cast(Tensor, layer.weight).shape
        return rows, columns
    return None


def attach(model: nn.Module, settings: Settings, circuit: Architecture | None = None) -> dict[str, Adapter]:
    """Freeze a model and put adapters beside its target layers, in place.

    Args:
        model: anything with linear layers; for AdaptFormer one of `qas.finetuning.backbones`.
        settings: method, sizes, names of the target layers.
        circuit: of the methods that take one.

    Returns:
        Name of the layer -> adapter, in the order of the model; empty for methods without.

    Raises:
        QasError: a target that no layer has, settings that fit no layer, a method that needs a circuit without one, or
            a model that carries adapters; the model is as it was then.
    """
    if any(isinstance(module, Adapter) for module in model.modules()):
        raise QasError("the model carries adapters already; take them off with detach")
    if settings.method in _CIRCUITS and circuit is None:
        raise QasError(f"method {settings.method} needs a run or an OpenQASM file")
    found: dict[str, Adapter] = {}
    if settings.method in _BESIDE_MLP:
        if not isinstance(model, Backbone):
            raise QasError(f"{settings.method} needs a model of this package: it sits beside the MLP of a block")
        width = model.config.dim
        for number in range(len(model.blocks)):
            found[f"blocks.{number}.parallel"] = make_adapter(settings, (width, width), circuit, number)
    elif settings.method not in _WITHOUT_ADAPTER:
        own_head = trained_head(model)
        head = set() if own_head is None else set(own_head.modules())  # trained anyway
        linear = [
            (name, sides)
            for name, layer in model.named_modules()
            if (sides := _sides(layer)) is not None and layer not in head
        ]
        known = sorted({name.rpartition(".")[2] for name, _ in linear})
        for target in settings.targets:
            if target not in known:
                raise QasError(f"no linear layer to adapt is named {target}; the model has {', '.join(known)}")
        layers = [(name, sides) for name, sides in linear if name.rpartition(".")[2] in settings.targets]
        for number, (name, sides) in enumerate(layers):
            try:
                found[name] = make_adapter(settings, sides, circuit, number)
            except QasError as error:
                raise QasError(f"{name} ({sides[0]} to {sides[1]} features): {error}") from None
    model.requires_grad_(settings.method == "full")
    for name, adapter in found.items():
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        beside = isinstance(adapter, AdaptFormerAdapter)
        setattr(owner, child, adapter if beside else AdaptedLayer(getattr(owner, child), adapter))
        adapter.train(model.training)
    share_frames(found.values())
    return found


def detach(model: nn.Module, adapters: Mapping[str, Adapter], *, merge: bool = False) -> None:
    """Take adapters off again, in place; with `merge` their effect stays in the weights.

    Raises:
        QasError: an adapter that cannot be merged, or whose merged weight is not finite; nothing is changed then.
    """
    weights: dict[str, Tensor] = {}
    if merge:
        for name, adapter in adapters.items():
            if isinstance(adapter, AdaptFormerAdapter):
                raise QasError(f"an AdaptFormer cannot be merged into the weights, got {name}")
            layer = cast(AdaptedLayer, model.get_submodule(name)).base
            transposed = type(layer).__name__ == "Conv1D"
            source = cast(Tensor, layer.weight).detach()
            merged = adapter.merged(source.T if transposed else source)
            if not torch.isfinite(merged).all():
                raise QasError(f"merging the adapter of {name} would put NaN or infinity into the weights")
            weights[name] = (merged.T if transposed else merged).contiguous()
    for name, adapter in adapters.items():
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        if isinstance(adapter, AdaptFormerAdapter):
            setattr(owner, child, None)
            continue
        base = getattr(owner, child).base
        if name in weights:
            # A parameter of its own: the old one may be the embedding too.
            base.weight = nn.Parameter(weights[name], requires_grad=base.weight.requires_grad)
        setattr(owner, child, base)


def total_bits(adapters: Iterable[Adapter], circuit: Architecture | None = None) -> int:
    """Bits of all adapters as stored, and of the description of a found circuit, once."""
    return sum(a.stored_bits for a in adapters) + (0 if circuit is None else circuit.description_bits)


# ---------------------------------------------------------------------- training
@dataclass(frozen=True)
class Outcome:
    """Figures of one fine-tuning.

    Attributes:
        metric: "accuracy" (more is better), "bits_per_byte" or "bits_per_token" (less is better).
        validation, test: the metric after the last epoch; nothing is chosen by either.
        chance: the metric of the best answer that does not look at the input.
        trainable: trained parameters without the head; head_parameters: those of the head.
        adapter_bits: of the adapters as stored, scales, seeds and the description of a found circuit included.
        stored_error: largest difference between outputs before storing and after reading the stored form, on the
            validation split, of very large outputs on its first examples.
        seconds: of training.
    """

    metric: str
    validation: float
    test: float
    chance: float
    trainable: int
    head_parameters: int
    adapter_bits: int
    stored_error: float
    seconds: float
    epochs: int


@dataclass
class Progress:
    """After one epoch."""

    epoch: int
    epochs: int
    loss: float
    validation: float
    seconds: float


def train(
    model: nn.Module,
    adapters: Mapping[str, Adapter],
    task: Task,
    settings: Settings,
    *,
    with_validation: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Progress]:
    """Train adapters and head by AdamW, cosine schedule with a tenth of warm-up.

    Args:
        model: with adapters attached.
        adapters: as from `attach`.
        task: what is learned; images train a new head, text keeps the head of the model.
        settings: epochs, batch, learning rates, seed.
        with_validation: train on the validation split too.
        on_progress: called after each epoch.

    Returns:
        One entry for each epoch; the loss is the mean over training batches.

    Raises:
        QasError: the loss became NaN or infinite.
    """
    own_head = trained_head(model)
    head = [] if own_head is None else list(own_head.parameters())
    for parameter in head:
        parameter.requires_grad_(True)
    own = [p for a in adapters.values() for p in a.parameters() if p.requires_grad]
    if settings.method == "full":
        own = list(_without_head(model).values())
    groups = [
        {"params": own, "lr": settings.rate},
        {"params": head, "lr": settings.head_rate if settings.method != "full" else settings.rate},
    ]
    groups = [g for g in groups if g["params"]]
    if not groups:
        raise QasError(f"{settings.method} has nothing to train on this model")
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    split = task.train_and_validation if with_validation else task.train
    steps = settings.epochs * math.ceil(len(split) / settings.batch)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))),
    )
    rng = np.random.default_rng([settings.seed, 2])
    inputs, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    history = []
    started = time.perf_counter()
    # Dropout of other people's models draws from the global generator, which is put back behind the training.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.spawn(1)[0].integers(2**31)))
        for epoch in range(settings.epochs):
            model.train()
            losses = []
            order = torch.from_numpy(rng.permutation(len(split)))
            for chosen in order.split(settings.batch):
                logits = model(inputs[chosen])
                loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels[chosen].flatten())
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_([p for g in groups for p in cast(list[nn.Parameter], g["params"])], 1.0)
                losses.append(float(loss.detach()))
                if not (math.isfinite(losses[-1]) and torch.isfinite(norm)):
                    raise QasError(f"the loss became NaN or infinite in epoch {epoch + 1}; lower the learning rate")
                optimizer.step()
                schedule.step()
            found = score(model, task.validation, task.metric, _at_once(task))
            seconds = time.perf_counter() - started
            history.append(Progress(epoch + 1, settings.epochs, float(np.mean(losses)), found, seconds))
            if on_progress is not None:
                on_progress(history[-1])
    return history


def _at_once(task: Task, most: int = 250) -> int:
    """Examples whose logits may be held at once."""
    return max(1, min(most, _OUTPUTS // (task.n_classes * task.validation.labels[0].size)))


@torch.no_grad()
def outputs(model: nn.Module, split: Split, batch: int = 250) -> Tensor:
    """Logits of a split, without dropout."""
    model.eval()
    return torch.cat([model(part) for part in torch.from_numpy(split.inputs).split(batch)])


@torch.no_grad()
def score(model: nn.Module, split: Split, metric: str, batch: int = 250) -> float:
    """Accuracy, or mean bits per byte or token."""
    model.eval()
    total = 0.0
    labels = torch.from_numpy(split.labels)
    for part, wanted in zip(torch.from_numpy(split.inputs).split(batch), labels.split(batch), strict=True):
        logits = model(part)
        if metric == "accuracy":
            total += float((logits.argmax(-1) == wanted).sum())
        else:
            total += float(nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="sum"))
    return total / labels.numel() / (1.0 if metric == "accuracy" else math.log(2))


def trained_head(model: nn.Module) -> nn.Module | None:
    """The layer that is trained as a new head; None for language models, which keep theirs."""
    return model.head if isinstance(model, (VisionTransformer, LocalModel)) else None


def prepare_head(model: nn.Module, task: Task, seed: int) -> None:
    """A new head for the classes of an image task; text keeps the head of the model.

    Raises:
        QasError: a model and a task that do not go together.
    """
    wanted = "vit" if task.kind == "image" else "gpt"
    if isinstance(model, Backbone) and model.config.kind != wanted:
        raise QasError(f"task {task.name} needs a backbone for {task.kind}, got one of kind {model.config.kind}")
    if isinstance(model, VisionTransformer):
        model.replace_head(task.n_classes)
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 0]).integers(2**31)))
        with torch.no_grad():
            model.head.weight.copy_(0.02 * torch.randn(model.head.weight.shape, generator=generator))
            model.head.bias.zero_()


_BACKBONES = {"sprites": "sprites-tiny", "digits": "digits-tiny", "text": "text-tiny"}


def resolve(
    method: str,
    chosen: Mapping[str, Any],
    *,
    task: str | None = None,
    backbone: str | None = None,
    model: str | None = None,
    data: str | None = None,
    examples: int = 1000,
) -> tuple[nn.Module, Task, Settings, dict[str, Any]]:
    """What the words of a command line stand for.

    Args:
        method: a name in `METHODS`.
        chosen: further settings by name.
        task: a name of `qas.finetuning.tasks.list_tasks`, with `backbone`, a name or folder (default: by task).
        model, data: instead, the folder of a Hugging Face model and a data file.
        examples: training and validation examples of a task.

    Returns:
        model, task, settings, and their origin as JSON-able names.

    Raises:
        QasError: unknown names, settings that the method does not read, or what cannot be read.
    """
    settings = Settings(method, **chosen)
    for name in chosen:
        if name not in (*_USED[method], *_EVERYWHERE):
            raise QasError(f"method {method} has no {name.replace('_', ' ')} to choose")
    if task is None:
        local, found = load_local(Path(model or ""), Path(data or ""), settings.seed)
        if "targets" in _USED[method] and "targets" not in chosen:
            settings = replace(settings, targets=local.default_targets())
        return local, found, settings, {"model": str(model), "data": str(data)}
    found = load_task(task, seed=settings.seed, train=examples)
    name = backbone or _BACKBONES[found.name.partition("-")[0]]
    if backbone is None and name not in list_backbones():
        raise QasError(
            f"task {found.name} needs a backbone that does not come with the package: make one with 'qas backbone "
            f"train {name} --out {name}' and name it by --backbone {name}"
        )
    return load_backbone(name), found, settings, {"task": found.name, "backbone": str(name), "examples": examples}


def finetune(
    model: nn.Module,
    task: Task,
    settings: Settings,
    circuit: Any = None,
    *,
    with_validation: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Outcome, dict[str, Adapter], list[Progress]]:
    """Adapt a model to a task; the model is left with its adapters on, computing with the stored form.

    Args:
        model: a frozen backbone, changed in place.
        task: as from `qas.finetuning.tasks.load_task`.
        settings: method and training.
        circuit: of method "searched": whatever `load_architecture` takes.
        with_validation: train on the validation split too.
        on_progress: called after each epoch.

    Raises:
        QasError: settings, model and task that do not go together, or a training that diverged.
    """
    architecture = load_architecture(circuit) if circuit is not None else None
    if architecture is not None and settings.method not in _CIRCUITS:
        raise QasError(f"a run or circuit goes with the methods {' and '.join(_CIRCUITS)}, got {settings.method}")
    prepare_head(model, task, settings.seed)
    adapters = attach(model, settings, architecture)
    history = train(model, adapters, task, settings, with_validation=with_validation, on_progress=on_progress)
    batch = _at_once(task)
    first = _at_once(task, len(task.validation))
    some = Split(task.validation.inputs[:first], task.validation.labels[:first])
    before = outputs(model, some, batch)
    for adapter in adapters.values():
        adapter.unpack(adapter.pack())
    difference = float((outputs(model, some, batch) - before).abs().max())
    if not math.isfinite(difference):
        raise QasError("the outputs became NaN or infinite in the last step; lower the learning rate")
    own_head = trained_head(model)
    head = 0 if own_head is None else sum(p.numel() for p in own_head.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad) - head
    outcome = Outcome(
        metric=task.metric,
        validation=score(model, task.validation, task.metric, batch),
        test=score(model, task.test, task.metric, batch),
        chance=task.chance,
        trainable=trainable,
        head_parameters=head,
        adapter_bits=32 * trainable if settings.method == "full" else total_bits(adapters.values(), architecture),
        stored_error=difference,
        seconds=history[-1].seconds,
        epochs=len(history),
    )
    return outcome, adapters, history


# ---------------------------------------------------------------------- files
def save(
    folder: Path,
    settings: Settings,
    adapters: Mapping[str, Adapter],
    outcome: Outcome,
    history: Iterable[Progress],
    *,
    model: nn.Module,
    circuit: Architecture | None,
    origin: Mapping[str, Any],
) -> int:
    """Write a fine-tuning folder: ``config.json``, ``metrics.json``, ``history.csv``, ``adapter.safetensors``,
    ``head.safetensors`` where a head was trained, and ``curve.png``.

    Returns:
        Bytes of ``adapter.safetensors``.

    Raises:
        RunError: the folder holds files already, or cannot be written.
    """
    from safetensors.torch import save as serialize

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"the folder of a fine-tuning must be new or empty: {folder}")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    history = list(history)
    tensors = {f"{name}.{key}": tensor for name, a in adapters.items() for key, tensor in a.pack().items()}
    if settings.method == "full":
        tensors = {n: p.detach().clone() for n, p in _without_head(model).items()}
    data = serialize(tensors)
    write_atomic(folder / "adapter.safetensors", data)
    head = trained_head(model)
    if head is not None:
        own = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
        write_atomic(folder / "head.safetensors", serialize(own))
    config = {
        "format": FORMAT,
        "version": VERSION,
        "settings": asdict(settings),
        "circuit": None if circuit is None else circuit.to_json(),
        **origin,
    }
    write_atomic(folder / "config.json", to_json(config, indent=1) + "\n")
    figures = asdict(outcome) | {"file_bytes": len(data)}
    write_atomic(folder / "metrics.json", to_json(figures, indent=1) + "\n")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("epoch", "seconds", "loss", "validation"))
    writer.writerows((p.epoch, f"{p.seconds:.3f}", f"{p.loss:.6g}", f"{p.validation:.6g}") for p in history)
    write_atomic(folder / "history.csv", stream.getvalue())
    _draw(folder / "curve.png", history, outcome, settings)
    return len(data)


def load(folder: Path, model: nn.Module) -> tuple[Settings, dict[str, Adapter]]:
    """Put the adapters and the head of a fine-tuning folder onto a fresh backbone, in place.

    Raises:
        QasError: a folder that is missing, damaged, of a newer version, or that does not fit the model.
    """
    from safetensors.torch import load as deserialize

    from qas.files import read_json

    config = read_json(folder / "config.json", "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise RunError(f"not a fine-tuning folder: {folder}")
    if not isinstance(config.get("version"), int) or not 1 <= config["version"] <= VERSION:
        raise RunError(
            f"fine-tuning folders of version 1 to {VERSION} can be read, got {config.get('version')!r}: {folder}"
        )
    try:
        settings = Settings(**config["settings"] | {"targets": tuple(config["settings"]["targets"])})
        circuit = None if config["circuit"] is None else Architecture.from_json(config["circuit"])
        tensors = deserialize((folder / "adapter.safetensors").read_bytes())
        head = folder / "head.safetensors"
        new_head = deserialize(head.read_bytes()) if head.exists() else None
    except Exception as error:  # safetensors has errors of its own
        raise RunError(f"the fine-tuning folder is damaged: {folder}: {error}") from None
    if (new_head is None) != (trained_head(model) is None):
        raise RunError(
            f"the folder has {'no' if new_head is None else 'a'} head, and the model "
            f"{'none' if trained_head(model) is None else 'needs one'}: {folder}"
        )
    adapters = attach(model, settings, circuit)
    try:
        if settings.method == "full":
            _put(_without_head(model), tensors, folder)
        else:
            own = {key: next((n for n in adapters if key.startswith(f"{n}.")), None) for key in tensors}
            if None in own.values():
                raise RunError(f"the adapters are those of another model: {folder}")
            for name, adapter in adapters.items():
                adapter.unpack({k.removeprefix(f"{name}."): t for k, t in tensors.items() if own[k] == name})
        if new_head is not None:
            if isinstance(model, VisionTransformer) and "bias" in new_head:
                model.replace_head(len(new_head["bias"]))
            _put(cast(nn.Module, trained_head(model)).state_dict(), new_head, folder)
    except BaseException:
        detach(model, adapters)
        raise
    return settings, adapters


def _put(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy tensors into those of the same names.

    Raises:
        RunError: other names or shapes; nothing is copied then.
    """
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        raise RunError(f"the weights are those of another model: {folder}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _without_head(model: nn.Module) -> dict[str, nn.Parameter]:
    head = trained_head(model)
    left_out = set() if head is None else {id(p) for p in head.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) not in left_out}


def _draw(path: Path, history: list[Progress], outcome: Outcome, settings: Settings) -> None:
    """Loss and validation metric over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=130, layout="constrained")
    left = figure.subplots()
    epochs = [p.epoch for p in history]
    left.plot(epochs, [p.loss for p in history], color="#8a8a8a", lw=1.5)
    left.set_xlabel("epoch")
    left.set_ylabel("training loss", color="#6a6a6a")
    left.set_ylim(bottom=0)
    right = left.twinx()
    right.plot(epochs, [p.validation for p in history], color="#1f5fa8", lw=2)
    right.axhline(outcome.chance, color="#1f5fa8", lw=1, ls=(0, (1, 2)))
    right.annotate("chance", (epochs[0], outcome.chance), color="#1f5fa8", fontsize=8, va="bottom")
    right.set_ylabel(f"validation {outcome.metric.replace('_', ' ')}", color="#1f5fa8")
    if outcome.metric == "accuracy":
        right.set_ylim(0, 1)
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
    test = f"{100 * outcome.test:.1f} %" if outcome.metric == "accuracy" else f"{outcome.test:.3f}"
    figure.suptitle(
        f"{settings.method}: test {outcome.metric.replace('_', ' ')} {test}, {outcome.adapter_bits:,} adapter bits",
        fontsize=10,
    )
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())
