"""Fine-tuning a Hugging Face model from a local folder on the user's own data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from qas.adapters.tasks import Split, Task
from qas.errors import MissingExtraError, QasError, RunError

LENGTH = 128
"""Tokens of one example, at most."""
TARGETS = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("c_attn",), ("q", "v"))
"""Names of query and value layers in the usual families; the first that a model has are adapted by default."""

_LEAST = 10
_PARTS = (0.7, 0.1)


class LocalModel(nn.Module):
    """A transformers model as one function from token ids and mask, int64 (n, 2, length), to logits.

    Attributes:
        model: the transformers model.
        head: the new classification head, or None for a language model.
    """

    def __init__(self, model: nn.Module, classifies: bool) -> None:
        super().__init__()
        self.model = model
        self._classifies = classifies

    @property
    def head(self) -> nn.Module | None:
        if not self._classifies:
            return None
        for name in ("score", "classifier"):
            if hasattr(self.model, name):
                return getattr(self.model, name)
        raise QasError(f"a classifier with a head named score or classifier is needed, got {type(self.model).__name__}")

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(input_ids=inputs[:, 0], attention_mask=inputs[:, 1]).logits

    def default_targets(self) -> tuple[str, ...]:
        """Names of the query and value layers.

        Raises:
            QasError: no family of names fits.
        """
        names = {name.rpartition(".")[2] for name, _ in self.model.named_modules()}
        for family in TARGETS:
            if set(family) <= names:
                return family
        raise QasError("the query and value layers of this model have no usual names; name layers with --targets")


def load_local(model_path: Path, data_path: Path, seed: int = 0) -> tuple[LocalModel, Task]:
    """A model and the task that a data file poses.

    Args:
        model_path: folder of a transformers model with its tokenizer; nothing is downloaded.
        data_path: ``.txt`` for language modelling; ``.csv`` or ``.jsonl`` with the columns text and label for
            classification.
        seed: of the split, 70 % training, 10 % validation, 20 % test.

    Raises:
        MissingExtraError: no transformers.
        QasError: no such folder or file, or data that cannot be read.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("fine-tuning a transformers model", "peft") from None
    if not (model_path / "config.json").is_file():
        raise RunError(f"no folder of a transformers model (with config.json): {model_path}")
    if not data_path.is_file():
        raise RunError(f"no such data file: {data_path}")
    suffix = data_path.suffix.lower()
    if suffix not in (".txt", ".csv", ".jsonl"):
        raise QasError(f"data is a .txt, .csv or .jsonl file, got {data_path.name!r}")
    classifies = suffix != ".txt"
    texts, labels, names = _read_examples(data_path) if classifies else ([], [], [])
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_path, local_files_only=True)
        if classifies:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                model_path, num_labels=len(names), local_files_only=True
            )
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(model_path, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a damaged or unfit folder
        raise RunError(f"the model cannot be loaded: {model_path}: {str(error).splitlines()[0]}") from None
    limit = min(LENGTH, int(getattr(model.config, "max_position_embeddings", LENGTH) or LENGTH))
    if classifies:
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        model.config.pad_token_id = tokenizer.pad_token_id
        task = _classification(tokenizer, texts, labels, len(names), limit, data_path.stem, seed)
    else:
        task = _language(tokenizer, data_path, limit, int(model.config.vocab_size), seed)
    return LocalModel(model, classifies), task


def _read_examples(path: Path) -> tuple[list[str], list[int], list[str]]:
    """Texts, labels as numbers, and the names of the labels."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8") as stream:
                rows: list[Any] = list(csv.DictReader(stream))
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise RunError(f"the data cannot be read: {path}: {error}") from None
    if not all(isinstance(row, dict) and row.get("text") and row.get("label") is not None for row in rows):
        raise QasError(f"every example has a text and a label: {path}")
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
    numbers = np.array(labels, dtype=np.int64)
    splits = [Split(inputs[part], numbers[part]) for part in _cut(len(numbers), seed)]
    return Task(name, "text", *splits, n_classes, "accuracy")


def _language(tokenizer: Any, path: Path, limit: int, vocabulary: int, seed: int) -> Task:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"the data cannot be read: {path}: {error}") from None
    ids = np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)
    count = (len(ids) - 1) // limit
    if count < _LEAST:
        raise QasError(f"at least {_LEAST * limit + 1} tokens are needed, got {len(ids)}: {path}")
    tokens = ids[: count * limit].reshape(count, limit)
    following = ids[1 : count * limit + 1].reshape(count, limit)
    inputs = np.stack([tokens, np.ones_like(tokens)], axis=1)
    splits = [Split(inputs[part], following[part]) for part in _cut(count, seed)]
    return Task(path.stem, "text", *splits, vocabulary, "bits_per_token")
