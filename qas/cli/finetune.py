"""``qas finetune``: adapt a neural network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qas.cli import parser as read
from qas.cli.progress import bar
from qas.cli.show import answer, clock, listing
from qas.errors import QasError

_SETTINGS = (
    "bits", "rank", "layers", "size", "targets", "epochs", "learning_rate", "values_rate", "head_rate", "scale", "seed",
)  # fmt: skip
_WORDS = ("task", "backbone", "model", "data", "method", "examples", "out")


def add(commands: Any) -> None:
    about = "Adapts a frozen model to a task; writes a folder with metrics, adapter files and a picture. "
    about += "qas backbone list names tasks, methods and models."
    what = "adapt a neural network, with found circuits or their rivals"
    parser = read.command(commands, "finetune", what, about, run)
    option = parser.option
    what = "circuit for the methods searched and searched-rotation; several for layers of several widths"
    option("circuit", "RUN|FILE.qasm", what, nargs="*")
    option("--task", "NAME", "a task that comes with the package", kind="tasks")
    option("--backbone", "NAME", "a name or a folder of qas backbone train (default: by task)")
    option("--model", "DIR", "instead: minilm, smollm2, or a local Hugging Face model with its tokenizer")
    option("--data", "FILE", "with --model: 20news, r52, r8, snippets, friends, or a .txt, .csv, .jsonl or .tab file")
    option("--method", "NAME", "how (default searched with a RUN, else quantum-peft)", kind="methods")
    option("--bits", "B", "bits of an angle or a weight, 1 to 8 (default: not quantized)", read.count)
    option("--rank", "K", "columns of frames, or width of the bottleneck (default 8)", read.count)
    option("--layers", "L", "of quantum-peft; intrinsic rank of taylor (default 1)", read.count)
    option("--size", "P", "parameters of each random subspace (default 64)", read.count)
    option("--targets", "A,B", "linear layers to adapt (default: queries and values)", lambda t: tuple(read.names(t)))
    option("--epochs", "N", "passes over the training examples (default 30)", read.count)
    option("--learning-rate", "X", "of adapters; of circuits that of angles (default by method)", read.positive)
    option("--values-rate", "X", "learning rate of singular values (default 0.01)", read.positive)
    option("--head-rate", "X", "learning rate of a new head (default 0.01)", read.positive)
    option("--scale", "X", "of adapters", read.positive)
    option("--gradient", "FILE", "only write the gradient of the task, for qas search adapter-gradient FILE")
    option("--examples", "N", "for training and validation (default 1000; of a file all)", read.count)
    option("--seed", "N", "fixes data, start and order (default 0)", read.natural)
    option("--out", "DIR", "folder, new or empty (default results/finetune-TASK-METHOD-TIME)")
    parser.output(progress=True)


def run(arguments: argparse.Namespace) -> int:
    settings = read.given(arguments, *_SETTINGS)
    if arguments.gradient is not None:
        return _gradient(arguments, settings)
    with bar(arguments.quiet) as shown:
        from qas.finetuning.folders import finetune_to_folder

        done = finetune_to_folder(
            arguments.circuit or None,
            **read.given(arguments, *_WORDS),
            on_progress=lambda p: shown(f"loss {p.loss:.4g}, validation {p.validation:.4g}", p.epoch, p.epochs),
            **settings,
        )
    outcome = done.outcome
    rows = {
        **outcome.scores(),
        "trainable parameters": f"{outcome.trainable:,} (head apart: {outcome.head_parameters:,})",
        "adapter bits": f"{outcome.adapter_bits:,}",
        "adapter file": f"{done.file_bytes:,} bytes, head included",
        **{f"layers of {features} features": told for features, told in sorted(done.widths.items(), key=_features)},
        "training": f"{clock(outcome.seconds)}, {outcome.epochs} epochs",
        "folder": str(done.folder),
    }
    data = {"path": str(done.folder.resolve()), "file_bytes": done.file_bytes} | vars(outcome)
    data |= {"widths": done.widths} if done.widths else {}
    return answer(arguments, data, f"{done.task}, {done.method}", *listing(rows, "  "))


def _features(row: tuple[str, str]) -> int:
    return -int(row[0])


def _gradient(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    alone = "circuit model data method bits rank layers size learning_rate scale out"
    for name in alone.split():
        if getattr(arguments, name) not in (None, []):
            shown = "RUN" if name == "circuit" else "--" + name.replace("_", "-")
            raise QasError(f"--gradient belongs to a task alone: leave out {shown}")
    from qas.finetuning.folders import save_task_gradient

    path = Path(arguments.gradient)
    matrix = save_task_gradient(path, **read.given(arguments, "task", "backbone", "examples"), **settings)
    return answer(
        arguments,
        {"path": str(path.resolve()), "shape": list(matrix.shape)},
        f"{arguments.task}: gradient of {matrix.shape[0]} x {matrix.shape[1]} in {path}",
        f"find a circuit  qas search adapter-gradient {path} --agent adapt --evaluations 200",
        f"and use it      qas finetune RUN --task {arguments.task} --method searched-rotation",
    )
