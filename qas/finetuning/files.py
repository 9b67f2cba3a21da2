"""Folders of fine-tunings: what peft reads, `PeftModel.from_pretrained(model, folder)`, with figures beside it.

Settings and weights lie as peft has them, head included, in ``adapter_config.json`` and ``adapter_model.safetensors``.
Methods that peft has no form for (`Method.peft_names`) store theirs in the same file, without settings for peft.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from qas.adapters.architecture import Architecture, Architectures, load_architecture
from qas.adapters.hf import PeftConfig, told_settings
from qas.checks import shortened
from qas.errors import QasError, RunError, UnknownNameError
from qas.files import new_folder, read_json, read_tensors, read_versioned, versioned, write_atomic, write_json
from qas.finetuning.backbones import VisionTransformer
from qas.finetuning.finetune import Outcome, Progress, Settings
from qas.finetuning.local import LocalModel, PooledModel
from qas.finetuning.methods import attach, detach, trained_head
from qas.finetuning.stored import Part, Trained
from qas.schema import conform

FORMAT = "qas-finetune"
VERSION = 2
"""Layout of a fine-tuning folder; a newer one is refused. The first had names of its own, which are still read."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
"""Of all names in a weights file of peft."""
_LOAD = 'model = PeftModel.from_pretrained(model, "this folder")'


def save(
    folder: Path,
    settings: Settings,
    parts: Mapping[str, Part],
    outcome: Outcome,
    history: Iterable[Progress],
    *,
    model: nn.Module,
    origin: Mapping[str, Any],
) -> int:
    """Write a fine-tuning folder: ``adapter_model.safetensors`` and ``README.md``, ``adapter_config.json`` where peft
    has the method, ``config.json``, ``metrics.json``, ``history.csv`` and ``curve.png``.

    Returns:
        Bytes of ``adapter_model.safetensors``.

    Raises:
        RunError: the folder holds files already, or cannot be written.
    """
    from safetensors.torch import save as serialize

    history = list(history)
    config = _peft_config(model, settings, parts)
    about = versioned(FORMAT, VERSION, {"settings": settings.to_json(), **origin})
    data = serialize(_weights(model, settings, parts), {"format": "pt"})
    with new_folder(folder, "the fine-tuning"):
        write_atomic(folder / WEIGHTS, data)
        if config is not None:
            write_json(folder / CONFIG, config)
        write_json(folder / "config.json", about)
        write_json(folder / "metrics.json", asdict(outcome) | {"file_bytes": len(data)})
        write_atomic(folder / "history.csv", _table(history))
        write_atomic(folder / "README.md", model_card(model, settings, outcome, origin))
        _draw(folder / "curve.png", history, outcome, settings)
    return len(data)


def load(folder: Path, model: nn.Module) -> tuple[Settings, dict[str, Part]]:
    """Put the adapters and the head of a fine-tuning folder onto a fresh backbone, in place.

    Raises:
        QasError: a folder that is missing, damaged, of a newer version, or that does not fit the model.
    """
    what = "the configuration of the fine-tuning"
    config = read_versioned(folder / "config.json", FORMAT, VERSION, what)
    conform(config, _Told, what, where=folder)
    first = config["version"] == 1
    tensors, new_head = _first_weights(folder) if first else _split(folder, model)
    try:
        settings = Settings.from_json(config["settings"])
        circuit = _circuit(folder, settings, config.get("circuit") if first else None)
    except UnknownNameError:
        raise
    except (TypeError, QasError) as error:
        raise RunError(f"the fine-tuning folder is damaged: {folder}: {error}") from None
    if (not new_head) != (trained_head(model) is None):
        raise RunError(
            f"the folder has {'a' if new_head else 'no'} head, and the model "
            f"{'none' if trained_head(model) is None else 'needs one'}: {folder}"
        )
    parts = attach(model, settings.method, circuit, seed=settings.seed)
    try:
        if settings.method.peft_names == {} and not first:
            _take_from_peft(model, tensors)
        else:
            outer, names = ("", {}) if first else (_outer(model), settings.method.peft_names or {})
            _take(parts, {outer + name: tensor for name, tensor in tensors.items()}, names)
        if new_head:
            if isinstance(model, VisionTransformer) and "bias" in new_head:
                model.replace_head(len(new_head["bias"]))
            Trained(cast(nn.Module, trained_head(model)).state_dict()).unpack(new_head)
    except BaseException as error:
        detach(model)
        if isinstance(error, QasError) and not isinstance(error, RunError):
            raise RunError(f"{error}: {folder}") from None
        raise
    return settings, parts


class _Named(TypedDict):
    method: str


class _Told(TypedDict):
    settings: _Named


def _circuit(folder: Path, settings: Settings, told: Any) -> Architecture | Architectures | None:
    """Of the methods that take one; `told` in the configuration of the first version."""
    if told is not None:
        return Architecture.from_json(told)
    if not settings.method.takes_circuit:
        return None
    about = read_json(folder / CONFIG, "the settings of the adapter")
    circuit = about.get("circuit") if isinstance(about, dict) else None
    if not isinstance(circuit, dict):
        raise RunError(f"the settings of the adapter have the gates of a circuit, got {shortened(circuit)}")
    return load_architecture(circuit)


# ---------------------------------------------------------------------- what peft reads
def bare(model: nn.Module) -> nn.Module:
    """What a user hands to peft: the transformers model, or a backbone."""
    return model.model if isinstance(model, LocalModel | PooledModel) else model


def _outer(model: nn.Module) -> str:
    """What stands before names of the bare model in those of the whole."""
    return "" if bare(model) is model else "model."


@contextmanager
def _seen_by_peft(model: nn.Module) -> Iterator[Any]:
    """The bare model, with the settings of the adapters that `attach` left on the whole."""
    inner: Any = bare(model)
    if inner is model:
        yield inner
        return
    inner.peft_config = cast(Any, model).peft_config
    try:
        yield inner
    finally:
        del inner.peft_config


def _heads(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that are trained as a head, by their names in the bare model, or in the whole where it has none."""
    head = trained_head(model)
    if head is None or isinstance(model, PooledModel):
        return {} if head is None else {"head": head}
    modules = list(head.children()) if isinstance(model, LocalModel) else [head]
    return {name: module for name, module in bare(model).named_modules() if any(module is m for m in modules)}


def _stem(name: str) -> str:
    return f"{name}." if name else ""


def _weights(model: nn.Module, settings: Settings, parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """All tensors under peft's names; where peft has no form, layer and stored name, separated by a dot."""
    names = settings.method.peft_names
    if names == {}:
        from peft import get_peft_model_state_dict

        with _seen_by_peft(model) as inner:
            found = get_peft_model_state_dict(inner, save_embedding_layers=False)
    else:
        own = {} if names is None else names
        found = {
            (_stem(layer) + own.get(name, name)).removeprefix(_outer(model)): tensor
            for layer, part in parts.items()
            for name, tensor in part.pack().items()
        }
    for name, head in _heads(model).items():
        found |= {f"{name}.{key}": t for key, t in head.state_dict().items()}
    return {_PREFIX + name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}


def _peft_config(model: nn.Module, settings: Settings, parts: Mapping[str, Part]) -> dict[str, Any] | None:
    """The settings by which peft finds layers and head again; None where peft has no form of the method."""
    if settings.method.peft_names is None:
        return None
    config = cast(PeftConfig, cast(Any, model).peft_config["default"])
    changes = {
        "base_model_name_or_path": _origin(model),
        "inference_mode": True,
        "modules_to_save": None if isinstance(model, PooledModel) else sorted(_heads(model)) or None,
        "target_modules": _targets(bare(model), [layer.removeprefix(_outer(model)) for layer in parts]),
        "task_type": _task_type(model),
    }
    return told_settings(config, **changes)


def _origin(model: nn.Module) -> str | None:
    return getattr(getattr(bare(model), "config", None), "_name_or_path", None) or None


def _task_type(model: nn.Module) -> str | None:
    if not isinstance(model, LocalModel):
        return "FEATURE_EXTRACTION" if isinstance(model, PooledModel) else None
    return "CAUSAL_LM" if trained_head(model) is None else "SEQ_CLS"


def _targets(model: nn.Module, layers: list[str]) -> list[str]:
    """The last parts of the names where these name no other module; else the names."""
    ends = {layer.rpartition(".")[2] for layer in layers}
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    inside = {name for name in meant if any(name.startswith(f"{layer}.") for layer in layers)}
    return sorted(ends if meant - inside == set(layers) else layers)


def _split(folder: Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the adapters, named as in the bare model, and those of the head, named as in its state dict."""
    heads = _heads(model)
    adapters, head = {}, {}
    for full, tensor in _tensors(folder / WEIGHTS).items():
        name = full.removeprefix(_PREFIX)
        own = next((h for h in heads if name.startswith(f"{h}.")), None)
        if own is None:
            adapters[name] = tensor
        else:
            key = name.removeprefix(f"{own}.")
            head[f"{own.replace('.', '-')}.{key}" if isinstance(model, LocalModel) else key] = tensor
    return adapters, head


def _take_from_peft(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    from peft import set_peft_model_state_dict

    with _seen_by_peft(model) as inner:
        set_peft_model_state_dict(inner, tensors)


def _take(parts: Mapping[str, Part], tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Give every layer the tensors that begin with its name; `names`: stored name -> that in the file."""
    stored = {theirs: own for own, theirs in names.items()}
    given: dict[str, dict[str, Tensor]] = {name: {} for name in parts}
    for key, tensor in tensors.items():
        name = next((name for name in parts if key.startswith(_stem(name))), None)
        if name is None:
            raise RunError("the adapters are those of another model")
        rest = key.removeprefix(_stem(name))
        given[name][stored.get(rest, rest)] = tensor
    for name, part in parts.items():
        part.unpack(given[name])


# ---------------------------------------------------------------------- files
def _tensors(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_tensors(path, "the fine-tuning").items()}


def _first_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adapters and head of the first version."""
    head = folder / "head.safetensors"
    return _tensors(folder / "adapter.safetensors"), _tensors(head) if head.exists() else {}


def _table(history: Iterable[Progress]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("epoch", "seconds", "loss", "validation"))
    writer.writerows((p.epoch, f"{p.seconds:.3f}", f"{p.loss:.6g}", f"{p.validation:.6g}") for p in history)
    return stream.getvalue()


def model_card(model: nn.Module, settings: Settings, outcome: Outcome, origin: Mapping[str, Any]) -> str:
    """Markdown that says what the folder holds, how good it is and how it is loaded, with the head that peft's have."""
    name, base = settings.method.name, _origin(model)
    rows = {
        **outcome.scores(),
        "trained numbers": f"{outcome.trainable:,}, and {outcome.head_parameters:,} of the head",
        "adapter bits": f"{outcome.adapter_bits:,}",
        "epochs": str(outcome.epochs),
    }
    about = [] if base is None else [f"base_model: {json.dumps(base)}"]
    task = origin.get("task") or Path(str(origin.get("data", "a task"))).stem
    lines = ["---", *about, "library_name: peft", "tags:", "- qas", f"- {name}", "---", "", f"# {task}: {name}", ""]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]
    return "\n".join([*lines, *_loading(model, settings, origin)]) + "\n"


def _loading(model: nn.Module, settings: Settings, origin: Mapping[str, Any]) -> list[str]:
    """Lines of Python that put the adapter onto its model."""
    names = settings.method.peft_names
    if names is None:
        return ["peft has no form of this method; `qas.finetuning.files.load` puts it onto its model."]
    code = ["import qas.adapters.hf  # circuits in peft: quantum-architecture-search[peft]"] if names == {} else []
    code += ["from peft import PeftModel"]
    if isinstance(model, PooledModel):
        code += ["from safetensors.torch import load_file", "from transformers import AutoModel", ""]
        code += [f"model = AutoModel.from_pretrained({json.dumps(_origin(model))})"]
        weights = f'weights = load_file("this folder/{WEIGHTS}")  # of the head, on the mean over tokens'
        head = [weights, *(f'{n} = weights["{_PREFIX}head.{n}"]' for n in ("weight", "bias"))]
        return ["```python", *code, _LOAD, *head, "```"]
    if isinstance(model, LocalModel):
        config: Any = model.model.config
        classifies = trained_head(model) is not None
        kind = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
        more = f", num_labels={config.num_labels}" if classifies else ""
        code += [f"from transformers import {kind}", ""]
        code += [f"model = {kind}.from_pretrained({json.dumps(_origin(model))}{more})"]
        code += [f"model.config.pad_token_id = {config.pad_token_id}"] if classifies else []
    else:
        code += ["from qas.finetuning.backbones import load_backbone", ""]
        code += [f"model = load_backbone({json.dumps(origin.get('backbone', 'its name'))})"]
        code += [f"model.replace_head({model.head.out_features})"] if isinstance(model, VisionTransformer) else []
    return ["```python", *code, _LOAD, "```"]


def _draw(path: Path, history: list[Progress], outcome: Outcome, settings: Settings) -> None:
    """Loss and validation metric over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = outcome.metric.replace("_", " ")
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
    right.set_ylabel(f"validation {words}", color="#1f5fa8")
    if outcome.metric == "accuracy":
        right.set_ylim(0, 1)
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
    test = f"{100 * outcome.test:.1f} %" if outcome.metric == "accuracy" else f"{outcome.test:.3f}"
    figure.suptitle(
        f"{settings.method.name}: test {words} {test}, {outcome.adapter_bits:,} adapter bits",
        fontsize=10,
    )
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())
