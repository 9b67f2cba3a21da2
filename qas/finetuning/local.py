"""Fine-tuning a Hugging Face model from a folder or an installed package, on one's own texts or those of a package."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qas.checks import whole_number
from qas.errors import MissingExtraError, QasError, RunError
from qas.files import read_json, read_json_lines, read_text
from qas.finetuning.packaged import (
    CORPORA,
    EXTRA,
    MODELS,
    Corpus,
    packaged_corpus,
    packaged_model,
    read_snippets,
    read_tab,
)
from qas.finetuning.tasks import Split, Task

LENGTH = 128
"""Tokens of one example, at most."""
_HEADS = ("score", "classifier", "pre_classifier", "pooler")
"""Names of the parts of classifiers that a pre-trained model need not have."""
_LEAST = 10
_EXAMPLES = 1000
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
        ids, mask = _trimmed(inputs)
        return self.model(input_ids=ids, attention_mask=mask).logits


class PooledModel(nn.Module):
    """A sentence encoder and a new linear head on the mean of what it gives for the tokens of a text.

    Attributes:
        model: the transformers model.
        head: the linear layer.
    """

    def __init__(self, model: nn.Module, features: int, n_classes: int, seed: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(features, n_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.normal_(std=0.02, generator=generator)
            self.head.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        ids, mask = _trimmed(inputs)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


def _trimmed(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids and mask without the positions that are padding in all examples."""
    seen = inputs[:, 1].any(dim=0).nonzero()
    first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, inputs.shape[-1])
    return inputs[:, 0, first:last], inputs[:, 1, first:last]


# ---------------------------------------------------------------------- models
@dataclass(frozen=True)
class _Source:
    """Where a model comes from: a folder, and the GGUF file in it that holds everything, or none."""

    path: Path
    gguf: str | None = None

    @classmethod
    def of(cls, model: str | os.PathLike[str]) -> _Source:
        """Of a name in `MODELS`, a GGUF file, or a folder.

        Raises:
            MissingExtraError: the package of a name, or gguf, is not installed.
            RunError: nothing of the kind.
        """
        path = packaged_model(str(model)) if str(model) in MODELS else Path(model)
        if path.suffix.lower() == ".gguf" and path.is_file():
            if not find_spec("gguf"):
                raise MissingExtraError("a model in a GGUF file (gguf)", EXTRA)
            return cls(path.parent, path.name)
        if not (path / "config.json").is_file():
            known = ", ".join(MODELS)
            raise RunError(f"no folder of a transformers model (with config.json), nor one of {known}: {path}")
        _check_weights(path)
        return cls(path)

    @property
    def arguments(self) -> dict[str, Any]:
        """For ``from_pretrained``."""
        return {"pretrained_model_name_or_path": self.path} | ({"gguf_file": self.gguf} if self.gguf else {})

    @property
    def pools(self) -> bool:
        """Whether it is a sentence encoder that takes the mean over tokens, by what sentence-transformers writes."""
        config = self.path / "1_Pooling" / "config.json"
        if self.gguf or not config.is_file():
            return False
        told = read_json(config, "the pooling of the model")
        return isinstance(told, dict) and bool(told.get("pooling_mode_mean_tokens"))


def load_local(
    model: str | os.PathLike[str], data: str | os.PathLike[str], seed: int = 0, examples: int | None = None
) -> tuple[LocalModel | PooledModel, Task]:
    """A model and the task that data pose.

    Args:
        model: folder of a transformers model with its tokenizer, weights as safetensors; a GGUF file; or a name in
            `qas.finetuning.packaged.MODELS`. Nothing is downloaded, and no code or pickle of a folder is run. A folder
            of sentence-transformers that takes the mean over tokens gets a new linear head on that mean.
        data: ``.txt`` for language modelling; for classification ``.csv`` or ``.jsonl`` with the columns text and
            label, ``.tab`` in Orange's format, or a name in `qas.finetuning.packaged.CORPORA`.
        seed: of the split, 70 % training, 10 % validation, 20 % test; where `examples` are said, four fifths of them
            training, one validation.
        examples: training and validation examples, at least 20, and at most as many test examples; default all of a
            file, 1000 of a named corpus.

    Raises:
        MissingExtraError: no transformers, or no package that has what is named.
        QasError: no such folder or file, data that cannot be read, or a model that lacks weights or does not fit.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("fine-tuning a transformers model", "peft") from None
    source = _Source.of(model)
    file, corpus = _read_data(data)
    name = str(data) if file is None else file.name.partition(".")[0]
    names = [] if corpus is None else _checked_classes(corpus, name)
    wanted = _EXAMPLES if examples is None and file is None else examples
    count = None if wanted is None else whole_number("examples", wanted, 20)
    made, tokenizer = _load_model(transformers, source, len(names), seed)
    limit = min(LENGTH, int(getattr(made.model.config, "max_position_embeddings", LENGTH) or LENGTH))
    if corpus is not None:
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        made.model.config.pad_token_id = tokenizer.pad_token_id
        task = _classification(tokenizer, corpus, names, limit, name, seed, count)
    else:
        task = _language(tokenizer, Path(data), limit, int(made.model.config.vocab_size), seed, count)
    _try(made.eval(), task, source.path)
    return made, task


def _load_model(transformers: Any, source: _Source, n_classes: int, seed: int) -> tuple[Any, Any]:
    """The model with its head, a new one where it has none, and the tokenizer."""
    pools = source.pools and n_classes > 0
    kind: Any = transformers.AutoModelForSequenceClassification if n_classes else transformers.AutoModelForCausalLM
    kind = transformers.AutoModel if pools else kind
    given: dict[str, Any] = {}
    if n_classes and not pools:
        given = {"num_labels": n_classes, "ignore_mismatched_sizes": True}
    # Half precision, in which many models are stored, is too coarse for a head or all weights to be trained in.
    given |= {"dtype": torch.float32} if source.gguf else {"dtype": torch.float32, "use_safetensors": True}
    try:
        with _quiet(transformers), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of a new head
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source.arguments, **_SAFE)
            model, told = kind.from_pretrained(**source.arguments, output_loading_info=True, **given, **_SAFE)
    except Exception as error:  # transformers raises many kinds for a damaged or unfit folder
        raise RunError(f"the model cannot be loaded: {source.path}: {_first_line(error)}") from None
    lacking = {*told["missing_keys"], *(key if isinstance(key, str) else key[0] for key in told["mismatched_keys"])}
    new = {key.rpartition(".")[0] for key in lacking}
    damaged = sorted(name for name in new if not (n_classes and set(name.split(".")) & set(_HEADS)))
    if damaged:
        raise RunError(f"the model folder lacks weights of {damaged[0]}, or has them in other sizes: {source.path}")
    if pools:
        return PooledModel(model, int(model.config.hidden_size), n_classes, seed), tokenizer
    return LocalModel(model, n_classes > 0, new), tokenizer


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
        with redirect_stderr(io.StringIO()):  # GGUF files are read with a bar that nothing turns off
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@torch.no_grad()
def _try(local: LocalModel | PooledModel, task: Task, path: Path) -> None:
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


# ---------------------------------------------------------------------- data
def _read_data(data: str | os.PathLike[str]) -> tuple[Path | None, Corpus | None]:
    """The file, None for a named corpus; and its labelled texts, None for running text."""
    if str(data) in CORPORA:
        return None, packaged_corpus(str(data))
    path = Path(data)
    if not path.is_file():
        raise RunError(f"no such data file, nor one of {', '.join(CORPORA)}: {path}")
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".tar.gz"):
        return path, read_snippets(path)
    if suffix == ".tab":
        return path, Corpus(*read_tab(path))
    if suffix not in (".txt", ".csv", ".jsonl"):
        raise QasError(f"data is a .txt, .csv, .jsonl or .tab file, got {path.name!r}")
    return path, None if suffix == ".txt" else _read_examples(path)


def _read_examples(path: Path) -> Corpus:
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
    return Corpus([str(row["text"]) for row in rows], [str(row["label"]) for row in rows])


def _checked_classes(corpus: Corpus, name: str) -> list[str]:
    """The names of the labels."""
    names, count = sorted(set(corpus.labels)), len(corpus.texts)
    if count < _LEAST or len(names) < 2:
        raise QasError(f"at least {_LEAST} examples of 2 classes are needed, got {count} of {len(names)}: {name}")
    return names


def _cut(count: int, seed: int, examples: int | None, tested: int = 0) -> list[np.ndarray]:
    """Numbers of training, validation and test examples; those of a test part of its own are counted on from `count`.

    Raises:
        QasError: more examples than there are.
    """
    rng = np.random.default_rng([seed, 3])
    order = rng.permutation(count)
    if examples is None and not tested:
        first = max(1, round(_PARTS[0] * count))
        second = first + max(1, round(_PARTS[1] * count))
        return [order[:first], order[first:second], order[second:]]
    examples = count if examples is None else examples
    if examples > count - (not tested):
        raise QasError(f"there are {count} examples{'' if tested else ', with those to test'}, got {examples} to train")
    first, test = examples - examples // 5, order[examples:]
    if tested:
        test = count + rng.permutation(tested)
    return [order[:first], order[first:examples], test[:examples]]


def _classification(
    tokenizer: Any, corpus: Corpus, names: list[str], limit: int, name: str, seed: int, examples: int | None
) -> Task:
    known = set(names)
    tested = [pair for pair in zip(*corpus.tested, strict=True) if pair[1] in known]
    texts = [*corpus.texts, *(text for text, _ in tested)]
    labels = [*corpus.labels, *(label for _, label in tested)]
    splits: list[Split] = []
    for part in _cut(len(corpus.texts), seed, examples, len(tested)):
        own = [texts[k] for k in part]
        encoded = tokenizer(own, truncation=True, max_length=limit, padding="max_length", return_tensors="np")
        inputs = np.stack([encoded["input_ids"], encoded["attention_mask"]], axis=1).astype(np.int64)
        if not inputs[:, 1].any(axis=1).all():
            raise QasError(f"every text has a token, got none for {own[int(inputs[:, 1].any(axis=1).argmin())][:40]!r}")
        splits.append(Split(inputs, np.array([names.index(labels[k]) for k in part], dtype=np.int64)))
    train, validation, test = splits
    return Task(name, "text", train, validation, test, len(names), "accuracy")


def _language(tokenizer: Any, path: Path, limit: int, vocabulary: int, seed: int, examples: int | None) -> Task:
    text = read_text(path, "the data")
    ids = np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)
    count = (len(ids) - 1) // limit
    if count < _LEAST:
        raise QasError(f"at least {_LEAST * limit + 1} tokens are needed, got {len(ids)}: {path}")
    tokens = ids[: count * limit].reshape(count, limit)
    following = ids[1 : count * limit + 1].reshape(count, limit)
    inputs = np.stack([tokens, np.ones_like(tokens)], axis=1)
    train, validation, test = (Split(inputs[part], following[part]) for part in _cut(count, seed, examples))
    return Task(path.stem, "text", train, validation, test, vocabulary, "bits_per_token")
