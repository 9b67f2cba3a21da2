"""``qas backbone``: pre-train small models offline, list what fine-tuning knows."""

from __future__ import annotations

import argparse
from typing import Any

from qas.cli import parser as read
from qas.cli.progress import bar
from qas.cli.show import answer, listing


def add(commands: Any) -> None:
    about = "Pre-trains small models offline, and lists them."
    actions = read.group(commands, "backbone", "models to fine-tune", about)
    train = read.command(actions, "train", "pre-train one", "Pre-trains a small model, in minutes.", _train)
    train.option("preset", "PRESET", "a name from qas backbone list")
    train.option("--examples", "N", "training examples (default: by preset)", read.count)
    train.option("--seed", "N", "fixes the training (default 0)", read.natural)
    train.option("--out", "DIR", "folder, new or empty", required=True)
    train.output(progress=True)
    read.command(actions, "list", "presets, tasks and methods", "Lists presets, tasks and methods.", _list).output()


def _train(arguments: argparse.Namespace) -> int:
    from qas.files import new_folder
    from qas.finetuning.backbones import pretrain

    preset = arguments.preset
    with new_folder(arguments.out, "the backbone") as out, bar(arguments.quiet) as shown:
        model = pretrain(
            preset,
            out=out,
            on_progress=lambda told: shown(f"loss {told['loss']:.4g}", told["step"], told["steps"]),
            **read.given(arguments, "seed", "examples"),
        )
    lines = [f"{preset}: {model.provenance}", "", f"folder  {out}"]
    lines.append(f"fine-tune it  qas finetune --task NAME --backbone {out}")
    return answer(arguments, {"path": str(out.resolve()), "provenance": model.provenance}, *lines)


def _list(arguments: argparse.Namespace) -> int:
    from qas.finetuning.backbones import PRESETS, SHIPPED, list_backbones
    from qas.finetuning.methods import list_methods
    from qas.finetuning.tasks import list_tasks

    backbones = {
        name: f"{preset.config}, about {preset.minutes} min"
        + ", comes with the package" * (SHIPPED / name / "backbone.json").exists()
        for name, preset in PRESETS.items()
    }
    backbones |= {name: f"in backbones/{name}" for name in list_backbones() if name not in PRESETS}
    known = {"backbones": backbones, "tasks": list_tasks(), "methods": list_methods()}
    return answer(arguments, known, *(line for title in known for line in (title, *listing(known[title], "  "))))
