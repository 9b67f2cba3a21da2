"""Widths of the layers of a local model, and the problem of a circuit that serves them all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qas.adapters.architecture import layout
from qas.adapters.problems import MAX_QUBITS, AdapterProblem, directions_problem
from qas.checks import one_line
from qas.errors import MissingExtraError, RunError
from qas.finetuning.methods import target_layers
from qas.finetuning.packaged import MODELS, packaged_model


def model_problem(
    model: str | os.PathLike[str], targets: Iterable[str] | None = None, *, angles: int = 0
) -> AdapterProblem:
    """The problem of one circuit for all layers of a model that are to be adapted, such as ``adapter-256+128``.

    One circuit and not one for each width: it is one run, it is described once, and what narrower layers get of it, its
    gates on their qubits, is searched for with it.

    Args:
        model: folder of a transformers model, or a name in `qas.finetuning.packaged.MODELS`; weights are not read.
        targets: last parts of the names of linear layers; default queries and values.
        angles: of the widest layer, as of `AdapterProblem`.

    Raises:
        MissingExtraError: no transformers, or no package of this name.
        QasError: no such folder, or no such layers.
    """
    path = packaged_model(str(model)) if str(model) in MODELS else Path(model)
    layers = target_layers(_skeleton(path), None if targets is None else tuple(targets))
    return directions_problem(qubits_of(features for sides in layers.values() for features in sides), angles)


def qubits_of(widths: Iterable[int]) -> list[int]:
    """Qubits of one circuit for the widest layers, and those that narrower layers cut it to; the most first.

    A layer of 2^n m features (m odd, up to 11) counts n qubits: the odd axis comes with every circuit.
    """
    own = {width: min(MAX_QUBITS, max(2, layout(width).n_qubits)) for width in widths}
    most = max(own.values())
    return sorted({most, *(n for width, n in own.items() if width <= 1 << most - 1)}, reverse=True)


def _skeleton(path: Path) -> nn.Module:
    """The model of a folder or a GGUF file, without weights."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("the layers of a transformers model", "peft") from None
    whole = path.suffix == ".gguf" and path.is_file()
    if not whole and not (path / "config.json").is_file():
        raise RunError(f"no folder of a transformers model (with config.json), nor one of {', '.join(MODELS)}: {path}")
    safe: dict[str, Any] = {"trust_remote_code": False}
    try:
        place = {"gguf_file": path.name} if whole else {}
        folder = path.parent if whole else path
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **place, **safe)
        with torch.device("meta"):
            return transformers.AutoModel.from_config(config, **safe)
    except Exception as error:  # transformers raises many kinds for a damaged or unfit folder
        raise RunError(f"the model cannot be read: {path}: {one_line(error)}") from None
