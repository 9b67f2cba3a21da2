"""Fine-tuning a Hugging Face model from a local folder on the user's own data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qas.errors import MissingExtraError, QasError, RunError
from qas.files import read_json_lines, read_text
from qas.finetuning.tasks import Split, Task

LENGTH = 128
"""Tokens of one example, at most."""
_HEADS = ("score", "classifier", "pre_classifier", "pooler")
"""Names of the parts of classifiers that a pre-trained model need not have."""
_LEAST = 10
_PARTS = (0.7, 0.1)
_COLUMNS = ("text", "label")
_SAFE = {"local_files_only": True, "trust_remote_code": False}
"""Of everything that transformers loads: nothing comes over the network, and no code of the folder runs."""


class LocalModel(nn.Module):
    """A transformers model as one function from token ids and mask, int64 (n, 2, length), to logits.

    Attributes:
        model: the transformers model.
        head: the modules of the classification head, new ones included; None for a language model.

    Raises:
        QasError: a classifier without a known head.
    """

    def __init__(self, model: nn.Module, classifies: bool, new: Iterable[str] = ()) -> None:
        super().__init__()
        self.model = model
        self._head = sorted({*new, *(n for n in ("score", "classifier") if hasattr(model, n))}) if classifies else None
        if self._head == []:
            raise QasError(f"a classifier has a head named score or classifier, got {type(model).__name__}")
        # A part of another part counts once.
        self._head = self._head and [n for n in self._head if not any(n.startswith(f"{m}.") for m in self._head)]

    @property
    def head(self) -> nn.Module | None:
        if self._head is None:
            return None
        return nn.ModuleDict({name.replace(".", "-"): self.model.get_submodule(name) for name in self._head})

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(input_ids=inputs[:, 0], attention_mask=inputs[:, 1]).logits


def load_local(model_path: Path, data_path: Path, seed: int = 0) -> tuple[LocalModel, Task]:
    """A model and the task that a data file poses.

    Args:
        model_path: folder of a transformers model with its tokenizer, weights as safetensors; nothing is downloaded,
            and no code or pickle of the folder is run.
        data_path: ``.txt`` for language modelling; ``.csv`` or ``.jsonl`` with the columns text and label for
            classification.
        seed: of the split, 70 % training, 10 % validation, 20 % test.

    Raises:
        MissingExtraError: no transformers.
        QasError: no such folder or file, data that cannot be read, or a model that lacks weights or does not fit.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("fine-tuning a transformers model", "peft") from None
    if not (model_path / "config.json").is_file():
        raise RunError(f"no folder of a transformers model (with config.json): {model_path}")
    _check_weights(model_path)
    if not data_path.is_file():
        raise RunError(f"no such data file: {data_path}")
    suffix = data_path.suffix.lower()
    if suffix not in (".txt", ".csv", ".jsonl"):
        raise QasError(f"data is a .txt, .csv or .jsonl file, got {data_path.name!r}")
    classifies = suffix != ".txt"
    texts, labels, names = _read_examples(data_path) if classifies else ([], [], [])
    kind: Any = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModelForCausalLM
    given: dict[str, Any] = {"num_labels": len(names), "ignore_mismatched_sizes": True} if classifies else {}
    # Half precision, in which many models are stored, is too coarse for a head or all weights to be trained in.
    given |= _SAFE | {"dtype": torch.float32, "use_safetensors": True}
    try:
        with _quiet(transformers), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of a new head
            tokenizer = transformers.AutoTokenizer.from_pretrained(model_path, **_SAFE)
            model, told = kind.from_pretrained(model_path, output_loading_info=True, **given)
    except Exception as error:  # transformers raises many kinds for a damaged or unfit folder
        raise RunError(f"the model cannot be loaded: {model_path}: {_first_line(error)}") from None
    lacking = {*told["missing_keys"], *(key if isinstance(key, str) else key[0] for key in told["mismatched_keys"])}
    new = {key.rpartition(".")[0] for key in lacking}
    damaged = sorted(name for name in new if not (classifies and set(name.split(".")) & set(_HEADS)))
    if damaged:
        raise RunError(f"the model folder lacks weights of {damaged[0]}, or has them in other sizes: {model_path}")
    limit = min(LENGTH, int(getattr(model.config, "max_position_embeddings", LENGTH) or LENGTH))
    if classifies:
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        model.config.pad_token_id = tokenizer.pad_token_id
        task = _classification(tokenizer, texts, labels, len(names), limit, data_path.stem, seed)
    else:
        task = _language(tokenizer, data_path, limit, int(model.config.vocab_size), seed)
    local = LocalModel(model, classifies, new)
    _try(local.eval(), task, model_path)
    return local, task


def _check_weights(folder: Path) -> None:
    """Refuse a folder whose weights, or those of an adapter that transformers would put on, are pickles alone.

    Raises:
        RunError: it is one.
    """
    for stem in ("pytorch_model", "adapter_model"):
        pickles = sorted(folder.glob(f"{stem}*.bin*"))
        safe = {"pytorch_model": "model", "adapter_model": "adapter_model"}[stem]
        if pickles and not any(folder.glob(f"{safe}*.safetensors")):
            raise RunError(f"weights are read from safetensors files, never from a pickle, got {pickles[0]}")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No reports and bars while a model is loaded: what matters is checked here."""
    talk = transformers.utils.logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(talk.CRITICAL)
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@torch.no_grad()
def _try(local: LocalModel, task: Task, path: Path) -> None:
    """Refuse a model that cannot take the data, or that is to predict tokens it has seen.

    Raises:
        QasError: it is one.
    """
    tokens = local.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    largest = max(int(split.inputs[:, 0].max()) for split in (task.train, task.validation, task.test))
    if largest >= tokens:
        raise QasError(f"the tokenizer has token {largest}, the model only {tokens} tokens: {path}")
    inputs = torch.from_numpy(task.train.inputs[:1])
    try:
        found = local(inputs)
    except Exception as error:  # of a model whose inputs are others
        raise QasError(f"the model cannot take token ids and a mask: {path}: {_first_line(error)}") from None
    if task.metric == "accuracy":
        return
    changed = inputs.clone()
    changed[0, 0, -1] = (changed[0, 0, -1] + 1) % tokens
    if float((local(changed) - found)[0, :-1].abs().max()) > 1e-5 * float(found.abs().max()):
        raise QasError(f"text is learned by a model that does not look ahead, got {type(local.model).__name__}: {path}")


def _read_examples(path: Path) -> tuple[list[str], list[int], list[str]]:
    """Texts, labels as numbers, and the names of the labels."""
    if path.suffix.lower() == ".csv":
        try:
            rows: list[Any] = list(csv.DictReader(io.StringIO(read_text(path, "the data"), newline="")))
        except csv.Error as error:
            raise RunError(f"the data cannot be read: {path}: {error}") from None
    else:
        rows = read_json_lines(path, "the data")
    for number, row in enumerate(rows, 1):
        if not (isinstance(row, dict) and all(row.get(k) is not None and str(row[k]).strip() for k in _COLUMNS)):
            raise QasError(f"every example has a text and a label, got example {number} without: {path}")
    names = sorted({str(row["label"]) for row in rows})
    if len(rows) < _LEAST or len(names) < 2:
        raise QasError(f"at least {_LEAST} examples of 2 classes are needed, got {len(rows)} of {len(names)}: {path}")
    return [str(row["text"]) for row in rows], [names.index(str(row["label"])) for row in rows], names


def _cut(count: int, seed: int) -> list[np.ndarray]:
    order = np.random.default_rng([seed, 3]).permutation(count)
    first = max(1, round(_PARTS[0] * count))
    second = first + max(1, round(_PARTS[1] * count))
    return [order[:first], order[first:second], order[second:]]


def _classification(
    tokenizer: Any, texts: list[str], labels: list[int], n_classes: int, limit: int, name: str, seed: int
) -> Task:
    encoded = tokenizer(texts, truncation=True, max_length=limit, padding="max_length", return_tensors="np")
    inputs = np.stack([encoded["input_ids"], encoded["attention_mask"]], axis=1).astype(np.int64)
    if not inputs[:, 1].any(axis=1).all():
        raise QasError(f"every text has a token, got none for {texts[int(inputs[:, 1].any(axis=1).argmin())][:40]!r}")
    numbers = np.array(labels, dtype=np.int64)
    train, validation, test = (Split(inputs[part], numbers[part]) for part in _cut(len(numbers), seed))
    return Task(name, "text", train, validation, test, n_classes, "accuracy")


def _language(tokenizer: Any, path: Path, limit: int, vocabulary: int, seed: int) -> Task:
    text = read_text(path, "the data")
    ids = np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)
    count = (len(ids) - 1) // limit
    if count < _LEAST:
        raise QasError(f"at least {_LEAST * limit + 1} tokens are needed, got {len(ids)}: {path}")
    tokens = ids[: count * limit].reshape(count, limit)
    following = ids[1 : count * limit + 1].reshape(count, limit)
    inputs = np.stack([tokens, np.ones_like(tokens)], axis=1)
    train, validation, test = (Split(inputs[part], following[part]) for part in _cut(count, seed))
    return Task(path.stem, "text", train, validation, test, vocabulary, "bits_per_token")
