"""Fine-tuning with adapters: one call from a frozen model and a task to a folder with metrics and adapter files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qas.adapters.architecture import load_architecture
from qas.adapters.training import REST, VALUES, parameter_groups
from qas.checks import finite_number, finite_output, whole_number
from qas.errors import QasError
from qas.finetuning import METHODS
from qas.finetuning.backbones import VisionTransformer, list_backbones, load_backbone
from qas.finetuning.local import load_local
from qas.finetuning.methods import Full, Method, attach, body, make_method, total_bits, trained_head
from qas.finetuning.stored import Part
from qas.finetuning.tasks import Split, Task, load_task
from qas.registry import options_of

_OUTPUTS = 1 << 25
"""Most outputs held at once where nothing is trained: 128 MiB."""


class Settings:
    """What is trained and how.

    Args:
        method: a name in `qas.finetuning.METHODS`, a class or an instance of `Method`, or settings of peft such as
            ``peft.PsoftConfig(r=8)``.
        epochs: passes over the training examples.
        batch: examples of a step.
        learning_rate: of the adapter, of circuits their angles; default that of the method.
        values_rate: learning rate of the values between two frames.
        head_rate: learning rate of the head.
        weight_decay: of AdamW.
        seed: of start and order.
        options: of the method, as ``rank=4``.

    Raises:
        UnknownNameError: no such method, or no such option of it.
        QasError: a number out of range.
    """

    def __init__(
        self,
        method: Any,
        *,
        epochs: int = 30,
        batch: int = 50,
        learning_rate: float | None = None,
        values_rate: float = VALUES,
        head_rate: float = REST,
        weight_decay: float = 1e-4,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.method: Method = make_method(method, **options)
        self.epochs = whole_number("epochs", epochs)
        self.batch = whole_number("batch", batch)
        own = self.method.learning_rate if learning_rate is None else learning_rate
        self.learning_rate = finite_number("learning_rate", own, above=0)
        self.values_rate = finite_number("values_rate", values_rate, above=0)
        self.head_rate = finite_number("head_rate", head_rate, above=0)
        self.weight_decay = finite_number("weight_decay", weight_decay, least=0)
        self.seed = whole_number("seed", seed, 0)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back.

        Raises:
            QasError: a method that is not registered, which no name brings back.
        """
        training = {name: value for name, value in vars(self).items() if name != "method"}
        options = {name: getattr(self.method, name) for name in options_of(type(self.method))}
        return {"method": METHODS.check(self.method.name), **options, **training}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """Read what `to_json` wrote, or what earlier versions did: settings of other methods are passed over."""
        given = {name: value for name, value in data.items() if value is not None}
        known = {*options_of(cls), *options_of(METHODS[given["method"]])}
        unread = {"bits", "rank", "layers", "size", "scale", "targets"} - known
        return cls(given.pop("method"), **{name: value for name, value in given.items() if name not in unread})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


# ---------------------------------------------------------------------- training
@dataclass(frozen=True)
class Outcome:
    """Figures of one fine-tuning.

    Attributes:
        metric: "accuracy" (more is better) or "bits_per_token" (less is better).
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

    def scores(self) -> dict[str, str]:
        """Test and validation metric and chance, by their names, as they are shown to people."""
        factor, form = (100, "{:.2f} %") if self.metric == "accuracy" else (1, "{:.4f}")
        name = self.metric.replace("_", " ")
        found = {f"test {name}": self.test, f"validation {name}": self.validation, "chance": self.chance}
        return {what: form.format(factor * value) for what, value in found.items()}


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
    task: Task,
    settings: Settings,
    *,
    with_validation: bool = False,
    watch: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Progress]:
    """Train adapters and head by AdamW, cosine schedule with a tenth of warm-up.

    Args:
        model: with adapters attached.
        task: what is learned; a model with a head trains that too.
        settings: epochs, batch, learning rates, seed.
        with_validation: train on the validation split too.
        watch: compute the metric of the validation split after each epoch; else it is NaN.
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
    own = [p for p in body(model).values() if p.requires_grad]
    if not own + head:
        raise QasError(f"{settings.method.name} has nothing to train on this model")
    optimizer = torch.optim.AdamW(_groups(model, head, settings))
    split = task.train_and_validation if with_validation else task.train
    steps = settings.epochs * math.ceil(len(split) / settings.batch)
    schedule = cosine_schedule(optimizer, steps)
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
            for chosen in map(torch.from_numpy, split.batches(settings.batch, rng)):
                with parametrize.cached():  # peft asks more than once for weights that are rounded
                    logits = model(inputs[chosen])
                loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels[chosen].flatten())
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(own + head, 1.0)
                losses.append(float(loss.detach()))
                if not (math.isfinite(losses[-1]) and torch.isfinite(norm)):
                    raise QasError(f"the loss became NaN or infinite in epoch {epoch + 1}; lower the learning rate")
                optimizer.step()
                schedule.step()
            found = score(model, task.validation, task.metric, _at_once(task)) if watch else math.nan
            seconds = time.perf_counter() - started
            history.append(Progress(epoch + 1, settings.epochs, float(np.mean(losses)), found, seconds))
            if on_progress is not None:
                on_progress(history[-1])
    return history


def cosine_schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rates that rise over the first tenth of `steps` and fall to zero along a cosine."""
    warm = max(1, steps // 10)
    rates = torch.optim.lr_scheduler
    return rates.ChainedScheduler([
        rates.LinearLR(optimizer, 1 / warm, total_iters=warm - 1),
        rates.CosineAnnealingLR(optimizer, steps),
    ])  # fmt: skip


def _groups(model: nn.Module, head: list[nn.Parameter], settings: Settings) -> list[dict[str, Any]]:
    """What is trained by its learning rates, the head apart."""
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = parameter_groups(model, angles=rate, values=settings.values_rate, rest=rate, weight_decay=decay)
    apart = {id(p) for p in head}
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in apart]
    head_rate = rate if isinstance(settings.method, Full) else settings.head_rate
    groups.append({"params": head, "lr": head_rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def _at_once(task: Task, most: int = 250) -> int:
    """Examples whose logits may be held at once."""
    return max(1, min(most, _OUTPUTS // (task.n_classes * task.validation.labels[0].size)))


@torch.no_grad()
def outputs(model: nn.Module, split: Split, batch: int = 250) -> Tensor:
    """Logits of a split, without dropout."""
    model.eval()
    with parametrize.cached():
        return torch.cat([model(part) for part in torch.from_numpy(split.inputs).split(batch)])


@torch.no_grad()
def score(model: nn.Module, split: Split, metric: str, batch: int = 250) -> float:
    """Accuracy, or mean bits per token."""
    model.eval()
    total = 0.0
    order = np.argsort(split.lengths, kind="stable")  # texts of one length do not pad each other
    inputs, labels = torch.from_numpy(split.inputs[order]), torch.from_numpy(split.labels[order])
    for part, wanted in zip(inputs.split(batch), labels.split(batch), strict=True):
        with parametrize.cached():
            logits = finite_output("the model with its adapters", model(part))
        if metric == "accuracy":
            total += float((logits.argmax(-1) == wanted).sum())
        else:
            total += float(nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="sum"))
    return total / labels.numel() / (1.0 if metric == "accuracy" else math.log(2))


def prepare_head(model: nn.Module, task: Task, seed: int) -> None:
    """A new head for the classes of an image task; other models have theirs.

    Raises:
        QasError: a model and a task that do not go together.
    """
    if not isinstance(model, VisionTransformer):
        return
    if task.kind != "image":
        raise QasError(f"task {task.name} is about {task.kind}, and the backbone about images")
    model.replace_head(task.n_classes)
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 0]).integers(2**31)))
    with torch.no_grad():
        model.head.weight.copy_(0.02 * torch.randn(model.head.weight.shape, generator=generator))


def resolve(
    method: Any,
    chosen: Mapping[str, Any],
    *,
    task: str | None = None,
    backbone: str | None = None,
    model: str | None = None,
    data: str | None = None,
    examples: int | None = None,
) -> tuple[nn.Module, Task, Settings, dict[str, Any]]:
    """What the words of a command line stand for.

    Args:
        method, chosen: method and further settings, as `Settings` takes them.
        task: a name in `qas.finetuning.TASKS`, with `backbone`, a name or folder (default: by task).
        model, data: instead, what `qas.finetuning.local.load_local` takes.
        examples: training and validation examples; default 1000 of a task or a named corpus, all of a file.

    Returns:
        model, task, settings, and their origin as JSON-able names.

    Raises:
        QasError: unknown names, settings that the method does not read, or what cannot be read.
    """
    settings = Settings(method, **chosen)
    if task is None:
        local, found = load_local(model or "", data or "", settings.seed, examples)
        told = {} if examples is None else {"examples": examples}
        return local, found, settings, {"model": str(model), "data": str(data), **told}
    examples = 1000 if examples is None else examples
    found = load_task(task, seed=settings.seed, train=examples)
    name = backbone or found.backbone
    if backbone is None and name not in list_backbones():
        raise QasError(f"task {task} has no backbone that comes with the package; name one by --backbone")
    return load_backbone(name), found, settings, {"task": task, "backbone": str(name), "examples": examples}


def finetune(
    model: nn.Module,
    task: Task,
    settings: Settings,
    circuit: Any = None,
    *,
    with_validation: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Outcome, dict[str, Part], list[Progress]]:
    """Adapt a model to a task through peft; the model is left with its adapters on, computing with the stored form.

    Args:
        model: a frozen backbone, changed in place.
        task: as from `qas.finetuning.tasks.load_task`.
        settings: method and training.
        circuit: of the methods that take one: whatever `load_architecture` takes.
        with_validation: train on the validation split too.
        on_progress: called after each epoch.

    Raises:
        QasError: settings, model and task that do not go together, or a training that diverged.
    """
    architecture = load_architecture(circuit) if circuit is not None else None
    prepare_head(model, task, settings.seed)
    parts = attach(model, settings.method, architecture, seed=settings.seed)
    history = train(model, task, settings, with_validation=with_validation, on_progress=on_progress)
    batch = _at_once(task)
    first = _at_once(task, len(task.validation))
    some = Split(task.validation.inputs[:first], task.validation.labels[:first])
    before = outputs(model, some, batch)
    for part in parts.values():
        part.unpack(part.pack())
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
        adapter_bits=total_bits(parts, architecture),
        stored_error=difference,
        seconds=history[-1].seconds,
        epochs=len(history),
    )
    return outcome, parts, history
