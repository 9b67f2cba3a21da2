"""Fine-tuning from names to files: what ``qas finetune`` does, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qas.adapters.architecture import load_architecture
from qas.errors import QasError
from qas.files import new_folder, write_atomic
from qas.finetuning.alignment import task_gradient
from qas.finetuning.files import save
from qas.finetuning.finetune import Outcome, Progress, finetune, resolve


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning wrote, and its figures."""

    folder: Path
    task: str
    method: str
    outcome: Outcome
    file_bytes: int
    """of ``adapter_model.safetensors``"""
    widths: dict[str, str]
    """how a circuit serves layers, by their features"""


def finetune_to_folder(
    circuit: Any = None,
    *,
    task: str | None = None,
    backbone: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    method: str | None = None,
    examples: int | None = None,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Finetuned:
    """Adapt a model to a task and write a folder with metrics, adapter files and a picture.

    Args:
        circuit: of the methods that take one: a run folder, an OpenQASM file, whatever `load_architecture` takes, a
            list of them for layers of several widths.
        task: a name in `qas.finetuning.TASKS`, learned by `backbone`, a name or a folder (default by task).
        model: instead, "minilm", "smollm2", or the folder of a Hugging Face model with its tokenizer, which learns
            `data`: a file, or the name of a corpus (`qas.finetuning.packaged`).
        method: a name of `qas.finetuning.METHODS`; default "searched" with a circuit, else "quantum-peft".
        examples: training and validation; default 1000 of a task or a named corpus, all of a file.
        out: folder, new or empty; default ``results/finetune-<task>-<method>-<time>``.
        on_progress: called after each epoch.
        settings: of `qas.finetuning.finetune.Settings`.

    Raises:
        QasError: words that do not go together, unknown names, or what cannot be read.
        RunError: the folder holds files already, or cannot be written.
    """
    _check_words(task=task, backbone=backbone, model=model, data=data)
    architecture = None if circuit is None else load_architecture(circuit)
    method = method or ("quantum-peft" if circuit is None else "searched")
    network, found, chosen, origin = resolve(
        method, settings, task=task, backbone=_text(backbone), model=_text(model), data=_text(data),
        examples=examples,
    )  # fmt: skip
    with new_folder(out, "the fine-tuning", stem=f"finetune-{found.name}-{method}") as folder:
        outcome, adapters, history = finetune(network, found, chosen, architecture, on_progress=on_progress)
        size = save(folder, chosen, adapters, outcome, history, model=network, origin=origin)
    config = getattr(network, "peft_config", {}).get("default")
    return Finetuned(folder, found.name, method, outcome, size, dict(getattr(config, "widths", None) or {}))


def save_task_gradient(
    path: str | os.PathLike[str],
    *,
    task: str | None,
    backbone: str | os.PathLike[str] | None = None,
    examples: int | None = None,
    targets: tuple[str, ...] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Write `task_gradient` of a task to a ``.npy`` file, for the problem ``adapter-gradient``; returns it.

    Raises:
        QasError: unknown names, a path that is no ``.npy`` in a folder that exists, or unsuitable target layers.
    """
    _check_words(task=task, backbone=backbone, model=None, data=None)
    file = Path(path)
    if file.suffix.lower() != ".npy" or not file.parent.is_dir():
        raise QasError(f"a gradient is written as .npy into a folder that exists, got {path}")
    network, found, chosen, _ = resolve(
        "linear-probe", settings, task=task, backbone=_text(backbone), examples=examples
    )
    matrix = task_gradient(network, found, chosen, targets)
    write_atomic(file, lambda stream: np.save(stream, matrix))
    return matrix


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _check_words(*, task: Any, backbone: Any, model: Any, data: Any) -> None:
    if (model is None) != (data is None):
        raise QasError("a model and its data go together: --model DIR and --data FILE")
    if (task is None) == (model is None):
        raise QasError("give either --task NAME or --model DIR --data FILE (qas backbone list names the tasks)")
    if model is not None and backbone is not None:
        raise QasError("--backbone goes with --task; a Hugging Face model is named by --model")
