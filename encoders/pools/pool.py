"""Circuit pools: many distinct architectures on disk, labelled with the energies that optimized angles reach.

A pool folder holds ``manifest.json`` (space, seed, hashes of all files), ``circuits/`` (Parquet shards of rows) and
``labels/<task>/`` (the task's problem, and one Parquet shard of labels for each shard of circuits). Shards are written
once, as a whole; building a pool that was interrupted repeats none of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

import numpy as np

from qas.checks import finite_number, one_line, shortened, whole_number
from qas.circuits import Circuit
from qas.encoders.pools.spaces import CircuitSpace, SpaceTold
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.estimates import affordable
from qas.files import (
    LOCK,
    check_versioned,
    disk_errors,
    hold,
    read_bytes,
    read_json,
    read_text,
    read_versioned,
    refuse_links,
    remove_temporary,
    sha256,
    to_json,
    versioned,
    write_atomic,
    write_json,
)
from qas.noise import NoiseModel, load_noise
from qas.problems import BaseProblem, Problem, load_problem, require_hamiltonian
from qas.schema import Count, Positive, Within, conform
from qas.scores import SCORES, Score, load_score
from qas.simulators.base import BaseObjective, Simulator

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "qas-pool"
LABELLED = "qas-labelled-pool"
VERSION = 1
SHARD = 5_000
"""Circuits in one file; also the work that a killed build may repeat."""
_LEAST_SECONDS = 1e-4
"""What one optimization of angles takes at least."""
_PATIENCE = 600.0
"""Seconds that a build waits for its turn to change the manifest."""


class PoolError(QasError):
    """A pool folder that is missing, damaged, or written by a newer version."""


@dataclass(frozen=True)
class LabelSettings:
    """How angles are optimized for labels."""

    starts: int = 5
    """random starts, angles uniform in [-π, π)"""
    max_evaluations: int = 200
    """most evaluations of one start"""
    tolerance: float = 1e-7
    """energy that may be left unfound, problem's unit"""

    def __post_init__(self) -> None:
        whole_number("starts", self.starts, 1, 2**31)
        whole_number("max_evaluations", self.max_evaluations)
        finite_number("tolerance", self.tolerance, above=0)


@dataclass(frozen=True)
class Labels:
    """What optimized angles reach on one task, in the order of the pool's rows."""

    problem: Problem
    noise: NoiseModel | None
    settings: LabelSettings
    energies: np.ndarray
    """optimized energy of every start, problem's unit, float64, shape (size, starts)"""
    evaluations: np.ndarray
    """calls of the objective over all starts, int64, shape (size,)"""
    angles: list[np.ndarray]
    """angles of the best start, radians, one float64 array for each circuit"""

    @property
    def best(self) -> np.ndarray:
        """Lowest energy over the starts, float64, shape (size,)."""
        return self.energies.min(axis=1)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of the energy over the starts, float64, shape (size,)."""
        return self.energies.std(axis=1)


@dataclass(frozen=True)
class PoolProgress:
    """A snapshot for displays."""

    task: str
    """task being labelled; empty while circuits are drawn"""
    done: int
    """circuits labelled for this task, those found on disk included"""
    size: int


class _Entry(TypedDict):
    identity: str
    settings: dict[str, Any]
    shards: list[str | None]


class _Manifest(TypedDict):
    space: SpaceTold
    placed: list[list[str | int]]
    size: Count
    seed: Annotated[int, Within(0)]
    shard_size: Positive
    circuits: list[str]
    labels: dict[str, _Entry]


class _Labelling(TypedDict):
    problem: dict[str, Any]
    noise: dict[str, Any] | None


class _Labelled(TypedDict):
    name: str
    threshold: float
    pool: str
    task: str
    score: str
    labels: str


# ---------------------------------------------------------------------- reading
class Pool:
    """A pool folder, opened.

    Raises:
        PoolError: the folder is missing, no pool, damaged, or from a newer version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        if not self.path.is_dir():
            raise PoolError(f"no such pool folder: {self.path}")
        if not (self.path / "manifest.json").exists():
            raise PoolError(f"not a pool folder (no manifest.json): {self.path}")
        data = _read_manifest(self.path)
        self.manifest: dict[str, Any] = data
        try:
            self.space = CircuitSpace.from_json(data["space"])
        except QasError as error:
            raise PoolError(f"the manifest of the pool is damaged: {self.path}: {error}") from None
        self.size, self.seed, self.shard_size = data["size"], data["seed"], data["shard_size"]
        self._shards, self._labels = data["circuits"], data["labels"]
        if data["placed"] != [[gate.name, *gate.qubits] for gate in self.space.placed]:
            raise PoolError(f"the tokens of the pool stand for other gates than those of this program: {self.path}")
        if len(self._shards) != -(-self.size // self.shard_size):
            raise PoolError(f"the manifest of the pool is damaged: {self.path}: {len(self._shards)} shards of circuits")
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"Pool({self.size:,} circuits, {self.space!r}, tasks: {', '.join(self.tasks) or 'none'})"

    @property
    def tasks(self) -> list[str]:
        """Tasks whose labels are complete."""
        return [task for task, entry in self._labels.items() if all(entry["shards"])]

    @property
    def rows(self) -> np.ndarray:
        """All architectures, canonical, int16, shape (size, max_gates); hashes are checked when they are first read.

        Raises:
            PoolError: a shard is missing, cut short, or not what the manifest says.
        """
        if self._rows is None:
            parts = []
            for shard, digest in enumerate(self._shards):
                parts.append(_read_tokens(self.path, shard, digest, self.space))
            rows = np.concatenate(parts) if parts else np.zeros((0, self.space.max_gates), dtype=np.int16)
            if len(rows) != self.size:
                raise PoolError(f"the pool has {len(rows):,} circuits, its manifest says {self.size:,}: {self.path}")
            self._rows = self.space.check_rows(rows)
        return self._rows

    def circuit(self, index: int) -> Circuit:
        """One circuit, angles 0."""
        return self.space.circuit(self.rows[index])

    def labels(self, task: str) -> Labels:
        """The labels of a task.

        Raises:
            UnknownNameError: the pool has no such task.
            PoolError: its labels are incomplete or damaged.
        """
        if task not in self._labels:
            raise UnknownNameError("task of the pool", task, self._labels)
        entry = self._labels[task]
        missing = sum(digest is None for digest in entry["shards"])
        if missing or len(entry["shards"]) != len(self._shards):
            raise PoolError(
                f"the labels of {task} are not complete ({missing} of {len(self._shards)} shards are missing); run the "
                f"same qas pool build again to go on: {self.path}"
            )
        try:
            settings = LabelSettings(**entry["settings"])
        except (TypeError, QasError) as error:
            raise PoolError(f"the settings of {task} are damaged: {self.path}: {error}") from None
        problem, noise = _read_task(self, task, settings, entry["identity"])
        energies, evaluations, angles = [], [], []
        for shard, digest in enumerate(entry["shards"]):
            table = _read_shard(_labels_file(self.path, task, shard), digest, _label_columns(settings.starts))
            energies.append(_matrix(table, "energies", settings.starts))
            evaluations.append(table["evaluations"].to_numpy())
            column = table["angles"].combine_chunks()
            flat, offsets = column.values.to_numpy(), column.offsets.to_numpy()
            angles += [flat[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
        found = Labels(problem, noise, settings, np.concatenate(energies), np.concatenate(evaluations), angles)
        if len(found.energies) != self.size or not np.isfinite(found.energies).all():
            raise PoolError(
                f"the labels of {task} do not fit the pool or hold numbers that are not finite: {self.path}"
            )
        return found

    def table(self, task: str, score: str = "published") -> TabularProblem:
        """A labelled task as a problem; see `TabularProblem`."""
        labels = self.labels(task)
        path = self.path.resolve()
        return TabularProblem(
            self.space,
            self.rows,
            labels,
            load_score(score, labels.problem),
            pool=str(path),
            task=task,
            name=re.sub(r"[^A-Za-z0-9._+-]", "-", f"labelled-{path.name}-{task}"),
        )

    def identity(self, task: str) -> str:
        """What the labels of a task depend on, as one hash.

        Raises:
            UnknownNameError: the pool has no such task.
        """
        if task not in self._labels:
            raise UnknownNameError("task of the pool", task, self._labels)
        return str(self._labels[task]["identity"])


class LookUp(BaseObjective):
    """The label of one circuit; its angles are those of the label, whatever it is asked with."""

    def __init__(self, circuit: Circuit, energy: float) -> None:
        super().__init__(circuit)
        self.energy = energy

    def _value(self, angles: np.ndarray) -> float:
        return self.energy

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        return self.energy, np.zeros(self.n_angles)


@dataclass(frozen=True, eq=False)
class TabularProblem(BaseProblem):
    """A labelled pool as a problem: its circuits are judged by look-up, so that a study of many seeds takes seconds.

    The energy is minus the score of the best start. It is that of a whole circuit of the pool at the angles of its
    label; other circuits cannot be judged, so only agents that choose from a pool search it, and they choose from this
    one.

    Raises:
        PoolError: labels that do not fit the rows.
    """

    space: CircuitSpace
    rows: np.ndarray
    """int16, shape (size, max_gates)"""
    labels: Labels
    score: Score
    pool: str = ""
    """Folder of the pool; empty where it is in memory only."""
    task: str = ""
    name: str = "labelled"
    unit: str = "score"
    threshold: float | None = None
    """How far the score may be from that of a solved task, to count as found."""
    description: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    whole_matrix: ClassVar[bool] = False
    listed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels.energies):
            raise PoolError(f"a labelled pool has a label for each of {len(self.rows)} circuits, got other labels")
        task = self.task or self.labels.problem.name
        words = f"{len(self.rows):,} circuits labelled with {task}, found by look-up"
        object.__setattr__(self, "threshold", self.threshold or -self.exact - self.score.threshold)
        object.__setattr__(self, "description", self.description or words)
        super().__post_init__()

    @classmethod
    def load(cls, text: str) -> TabularProblem:
        """The problem of ``POOL:TASK``, such as ``pools/q4:state-4-0``; ``POOL:TASK:SCORE`` for another score.

        Raises:
            UnknownNameError: no such task or score.
            PoolError: no such pool, or one that is damaged.
        """
        pool, _, task = text.rpartition(":")
        score = "published"
        if task in SCORES:
            score, (pool, _, task) = task, pool.rpartition(":")
        if not pool:
            raise QasError(f"a labelled problem is POOL:TASK, such as pools/q4:state-4-0, got {shortened(text)}")
        return Pool(pool).table(task, score)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same circuits with the same scores."""
        if not isinstance(other, TabularProblem) or self.space != other.space:
            return False
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.name, self.space, len(self)))

    # ------------------------------------------------------------------ what is known
    @cached_property
    def values(self) -> np.ndarray:
        """Score of every circuit (best start), float64, shape (size,)."""
        return self.score(self.labels.best)

    @property
    def n_qubits(self) -> int:
        return self.space.n_qubits

    @cached_property
    def exact(self) -> float:
        """-1, a solved task, or less if a circuit of the pool is better."""
        best = float(self.values.max())
        return -best if best > 1 + 1e-9 else -1.0

    @property
    def lower_bound(self) -> float:
        return -max(1.0, float(self.values.max()))

    @property
    def mixed_energy(self) -> float:
        return 0.0

    @property
    def spread(self) -> float:
        return float(np.ptp(self.values)) or 1.0

    @property
    def summary(self) -> str:
        return f"{len(self):,} labels"

    @property
    def search_gates(self) -> tuple[str, ...]:
        return self.space.gates

    @property
    def max_gates(self) -> int:
        return self.space.max_gates

    @property
    def good(self) -> np.ndarray:
        """Which circuits reach the score's threshold, bool, shape (size,)."""
        return self.values >= self.score.threshold

    @property
    def base_rate(self) -> float:
        """Share of circuits that reach the threshold: what random search finds."""
        return float(self.good.mean())

    def top(self, count: int = 100) -> np.ndarray:
        """Indices of the best circuits, best first; of equals the earlier one."""
        return np.argsort(-self.values, kind="stable")[:count]

    def circuit(self, index: int) -> Circuit:
        """One circuit with the angles of its best start."""
        return self.space.circuit(self.rows[index]).with_angles(self.labels.angles[index])

    # ------------------------------------------------------------------ how a circuit is judged
    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {row.tobytes(): index for index, row in reversed(list(enumerate(self.rows)))}

    def index(self, circuit: Circuit) -> int:
        """Where the pool has this architecture.

        Raises:
            CircuitError: it does not.
        """
        found = self._places.get(self.space.row(circuit).tobytes())
        if found is None:
            raise CircuitError(f"{self.name} knows the {len(self):,} circuits of its pool only, got another one")
        return found

    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> LookUp:
        return LookUp(circuit, -float(self.values[self.index(circuit)]))

    def simplify(self, circuit: Circuit, angle_tolerance: float = 1e-9) -> Circuit:
        """`circuit` itself: a label is of a whole circuit of the pool."""
        return circuit

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        if not self.pool:
            raise QasError("a labelled pool that is in memory only cannot be written to a file")
        told = {name: getattr(self, name) for name in ("name", "threshold", "pool", "task")}
        labels = Pool(self.pool).identity(self.task)
        return versioned(LABELLED, 1, told | {"score": self.score.name, "labels": labels})

    @classmethod
    def from_json(cls, data: Any) -> TabularProblem:
        """Open the pool again.

        Raises:
            QasError: not such a dict, a newer version, or no such pool with these labels.
        """
        held = check_versioned(data, LABELLED, 1, "a labelled problem")
        conform(held, _Labelled, "the labelled problem", error=QasError)
        task, opened = held["task"], Pool(held["pool"])
        found = replace(opened.table(task, held["score"]), name=held["name"], threshold=held["threshold"])
        if opened.identity(task) != held["labels"]:
            raise PoolError(f"the labels of {task} have changed since the file was written: {held['pool']}")
        return found


# ---------------------------------------------------------------------- building
def build_pool(
    folder: str | os.PathLike[str],
    space: CircuitSpace,
    size: int,
    *,
    seed: int = 0,
    tasks: Sequence[str | BaseProblem] = (),
    noise: str | NoiseModel | None = None,
    settings: LabelSettings | None = None,
    jobs: int | None = None,
    on_progress: Callable[[PoolProgress], None] | None = None,
) -> Pool:
    """Draw a pool of distinct circuits and label it; go on where an earlier call stopped.

    Calling it again with the same space, size and seed adds what is missing: the rest of a task, or further tasks.
    Labels depend on the seed, the task and the settings only, not on the number of processes and threads.

    Args:
        folder: pool folder; new, or one of the same space, size and seed.
        space: which circuits to draw; see `CircuitSpace.sample`.
        size: number of circuits, no architecture twice.
        seed: fixes circuits and start angles.
        tasks: problems with a Hamiltonian, or names of `qas.list_problems`.
        noise: hardware noise of the labels; the task is then called ``<problem>@<noise>``.
        settings: how labels are optimized.
        jobs: processes, and threads where there are fewer shards of circuits; default one for each core.

    Raises:
        UnknownNameError: no such problem or noise.
        QasError: a problem with another number of qubits or without a Hamiltonian, a space with too few circuits, sizes
            out of range.
        PoolError: the folder holds something else, or another pool, or other label settings for a task.
    """
    path, size = Path(folder), whole_number("the number of circuits", size)
    settings = settings or LabelSettings()
    seconds = _LEAST_SECONDS * len(tasks) * size * settings.starts / (jobs or os.cpu_count() or 1)
    energies = 16.0 * min(size, SHARD) * settings.starts
    affordable(f"labels of {size} circuits from {settings.starts} starts take", memory=energies, seconds=seconds)
    model = load_noise(noise)
    problems: dict[str, Problem] = {}
    for task in tasks:
        named = load_problem(task) if isinstance(task, str) else task
        problem = require_hamiltonian(named, "the label of a pool")
        if problem.n_qubits != space.n_qubits:
            raise QasError(f"{problem.name} has {problem.n_qubits} qubits, the circuits of the pool {space.n_qubits}")
        if problems.setdefault(_task_name(problem, model), problem) != problem:
            raise QasError(f"two different tasks are called {problem.name}; give one of them another name")
    pool = _open_or_create(path, space, size, seed, on_progress)
    for name, problem in problems.items():
        _label(pool, name, problem, model, settings, jobs or os.cpu_count() or 1, on_progress)
    return Pool(path)


def _task_name(problem: Problem, noise: NoiseModel | None) -> str:
    return problem.name if noise is None else f"{problem.name}@{re.sub(r'[^A-Za-z0-9._+-]', '-', noise.name)}"


def _open_or_create(
    path: Path, space: CircuitSpace, size: int, seed: int, on_progress: Callable[[PoolProgress], None] | None
) -> Pool:
    whole_number("a seed", seed, 0)
    if path.exists() and not path.is_dir():
        raise PoolError(f"a pool is a folder, got a file: {path}")
    if not (path / "manifest.json").exists():
        _draw(path, space, size, seed, on_progress)
    pool = Pool(path)
    if (pool.space, pool.size, pool.seed) != (space, size, seed):
        raise PoolError(f"the folder holds another pool ({pool!r}, seed {pool.seed}); choose another one: {path}")
    return pool


def _draw(
    path: Path, space: CircuitSpace, size: int, seed: int, on_progress: Callable[[PoolProgress], None] | None
) -> None:
    """Draw the circuits of a new pool and write its manifest, unless another build was faster."""
    # What a build leaves that was killed before it had a manifest: shards, or the temporary file of the manifest.
    own = re.compile(rf"circuits$|\.?manifest\.json|{re.escape(LOCK)}")
    with disk_errors(path):
        if path.exists() and not all(own.match(entry.name) for entry in path.iterdir()):
            raise PoolError(f"the folder of a new pool must be new or empty: {path}")
    if on_progress is not None:
        on_progress(PoolProgress("", 0, size))
    rows = space.sample_unique(size, np.random.default_rng(seed))
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with hold(path, "the pool", wait=_PATIENCE):
        if (path / "manifest.json").exists():
            return
        _own_folder(path, "circuits")
        digests = []
        for shard in range(-(-size // SHARD)):
            part = rows[shard * SHARD : (shard + 1) * SHARD]
            digests.append(_write_shard(_circuits_file(path, shard), _circuit_table(space, part)))
        manifest = {
            "space": space.to_json(),
            "placed": [[gate.name, *gate.qubits] for gate in space.placed],
            "size": size,
            "seed": seed,
            "shard_size": SHARD,
            "circuits": digests,
            "labels": {},
        }
        write_json(path / "manifest.json", versioned(FORMAT, VERSION, manifest))


def _read_manifest(path: Path) -> dict[str, Any]:
    file, what = path / "manifest.json", "the manifest of the pool"
    data = read_versioned(file, FORMAT, VERSION, what, error=PoolError)
    return conform(data, _Manifest, what, where=file, error=PoolError)


def _own_folder(path: Path, *names: str) -> Path:
    """A folder inside the pool, made if missing; a link there is refused, as what is written would land outside."""
    for name in names:
        refuse_links(path)
        path /= name
        with disk_errors(path):
            path.mkdir(exist_ok=True)
    return path


def _label(
    pool: Pool,
    task: str,
    problem: Problem,
    noise: NoiseModel | None,
    settings: LabelSettings,
    jobs: int,
    on_progress: Callable[[PoolProgress], None] | None,
) -> None:
    """Label what is missing of one task, as the only process that does."""
    folder = _own_folder(pool.path, "labels", task)
    with hold(folder, f"the labelling of {task}"):
        remove_temporary(folder)  # also of a worker that was killed alone
        content = to_json({"problem": problem.to_json(), "noise": None if noise is None else noise.to_json()}, indent=1)
        identity = _identity(pool, settings, content)
        digests = _begin_task(pool, task, content, identity, settings)
        todo = [shard for shard, digest in enumerate(digests) if digest is None]
        sizes = [min(pool.shard_size, pool.size - shard * pool.shard_size) for shard in range(len(digests))]
        done = pool.size - sum(sizes[shard] for shard in todo)
        if on_progress is not None:
            on_progress(PoolProgress(task, done, pool.size))
        for shard, digest, rows in _work(pool, task, settings, identity, todo, jobs):
            with _changed_manifest(pool.path) as manifest:
                manifest["labels"][task]["shards"][shard] = digest
            done += rows
            if on_progress is not None:
                on_progress(PoolProgress(task, done, pool.size))


def _begin_task(pool: Pool, task: str, content: str, identity: str, settings: LabelSettings) -> list[str | None]:
    """Enter a task in the manifest, or find what is there of it; returns the hashes of the shards that are labelled."""
    path, count = pool.path, len(pool.manifest["circuits"])
    with _changed_manifest(path) as manifest:
        entry = manifest["labels"].get(task)
        if entry is None:
            write_atomic(path / "labels" / task / "problem.json", content + "\n")
            entry = {"identity": identity, "settings": _described(settings), "shards": [None] * count}
            manifest["labels"][task] = entry
        elif entry.get("identity") != identity or len(entry.get("shards", ())) != count:
            raise PoolError(f"the pool has labels of {task} made with other settings; choose another folder: {path}")
        for shard in range(count):
            file = _labels_file(path, task, shard)
            if entry["shards"][shard] is None:
                # A shard is renamed into place when it is complete; a build may be killed before the manifest knows it.
                entry["shards"][shard] = _adopt(file, identity)
            elif not file.exists():
                raise PoolError(f"a shard is missing: {file}")
    return list(entry["shards"])


@contextmanager
def _changed_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """The manifest as it is now, written back at the end; builds of other tasks take turns."""
    with hold(path, "the manifest of the pool", wait=_PATIENCE):
        manifest = _read_manifest(path)
        yield manifest
        write_json(path / "manifest.json", manifest)


def _work(
    pool: Pool, task: str, settings: LabelSettings, identity: str, todo: list[int], jobs: int
) -> Iterator[tuple[int, str, int]]:
    """(shard, hash, circuits) of every shard as it is finished."""
    # Processes first, as each has a GIL of its own; where there are fewer shards than jobs, threads in each.
    jobs, workers = min(jobs, len(todo)), max(1, jobs // max(1, len(todo)))
    if jobs <= 1:
        for shard in todo:
            yield _label_shard(pool.path, task, settings, identity, workers, shard)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as executor:
        waiting = list(reversed(todo))
        running: set[Future[tuple[int, str, int]]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    shard = waiting.pop()
                    running.add(executor.submit(_label_shard, pool.path, task, settings, identity, workers, shard))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool:
            raise PoolError("a labelling process was killed (out of memory?); finished shards are kept") from None
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    import signal

    # Ctrl-C reaches the whole group; the parent stops, and a worker ends with the shard it is at.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent that was killed cannot stop its workers; without it they would wait for work forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _label_shard(
    path: Path, task: str, settings: LabelSettings, identity: str, workers: int, shard: int
) -> tuple[int, str, int]:
    """Label one shard of circuits, by so many threads, and write it."""
    from qas.optimizers import minimize_many
    from qas.simulators import make_simulator

    pool = Pool(path)
    problem, noise = _read_task(pool, task, settings, identity)
    rows = _read_tokens(path, shard, pool.manifest["circuits"][shard], pool.space)
    simulator = make_simulator(noise)
    rng = np.random.default_rng([pool.seed, int.from_bytes(hashlib.sha256(task.encode()).digest()[:8]), shard])
    circuits = [pool.space.circuit(row) for row in rows]
    many: list[tuple[int, BaseObjective, np.ndarray]] = []
    for k, circuit in enumerate(circuits):
        starts = rng.uniform(-np.pi, np.pi, size=(settings.starts, circuit.n_angles))
        for start in starts if circuit.n_angles else starts[:1]:
            many.append((k, simulator.objective(circuit, problem.hamiltonian), start))
    found = minimize_many(
        [objective for _, objective, _ in many],
        [start for *_, start in many],
        max_evaluations=settings.max_evaluations,
        tolerance=settings.tolerance,
        workers=workers,
    )
    values: list[list[Any]] = [[] for _ in circuits]
    for (k, *_), result in zip(many, found, strict=True):
        values[k].append(result)
    energies = np.array([[result.fun for result in results] * (settings.starts // len(results)) for results in values])
    evaluations = np.array([sum(result.nfev for result in results) for results in values], dtype=np.int64)
    angles = [min(reversed(results), key=lambda result: result.fun).x for results in values]  # of equals the last
    labels = _label_table(energies, evaluations, angles)
    labels = labels.replace_schema_metadata({"identity": identity, "content": _content(labels)})
    return shard, _write_shard(_labels_file(path, task, shard), labels), len(rows)


# ---------------------------------------------------------------------- files
def _circuits_file(path: Path, shard: int) -> Path:
    return path / "circuits" / f"{shard:05d}.parquet"


def _labels_file(path: Path, task: str, shard: int) -> Path:
    return path / "labels" / task / f"{shard:05d}.parquet"


def _described(settings: LabelSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in LabelSettings.__dataclass_fields__}


def _identity(pool: Pool, settings: LabelSettings, content: str) -> str:
    """What labels depend on, as one hash: settings, problem and noise, circuits, seed."""
    parts = to_json(_described(settings)) + content + to_json(pool.manifest["circuits"]) + str(pool.seed)
    return sha256(parts.encode())


def _read_task(pool: Pool, task: str, settings: LabelSettings, identity: str) -> tuple[Problem, NoiseModel | None]:
    file, what = pool.path / "labels" / task / "problem.json", f"the problem of {task}"
    content = read_text(file, what, error=PoolError)
    if _identity(pool, settings, content.removesuffix("\n")) != identity:
        raise PoolError(f"the problem or the settings of {task} were changed after it was labelled: {file}")
    data = conform(read_json(file, what, PoolError), _Labelling, what, where=file, error=PoolError)
    try:
        noise = None if data["noise"] is None else NoiseModel.from_json(data["noise"])
        return Problem.from_json(data["problem"]), noise
    except QasError as error:
        raise PoolError(f"the problem of {task} is damaged: {file}: {error}") from None


def _circuit_table(space: CircuitSpace, rows: np.ndarray) -> pa.Table:
    import pyarrow as pa

    used = rows >= 0
    two = used & (space.first[rows] != space.last[rows])
    values = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.table(
        {
            "tokens": pa.FixedSizeListArray.from_arrays(values, rows.shape[1]),
            "gates": pa.array(used.sum(axis=1).astype(np.int16)),
            "two_qubit_gates": pa.array(two.sum(axis=1).astype(np.int16)),
            "depth": pa.array((space.layers(rows).max(axis=1, initial=-1) + 1).astype(np.int16)),
        }
    )


def _label_table(energies: np.ndarray, evaluations: np.ndarray, angles: list[np.ndarray]) -> pa.Table:
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum([len(a) for a in angles])]).astype(np.int32)
    return pa.table(
        {
            "energy": pa.array(energies.min(axis=1)),
            "spread": pa.array(energies.std(axis=1)),
            "energies": pa.FixedSizeListArray.from_arrays(pa.array(energies.ravel()), energies.shape[1]),
            "evaluations": pa.array(evaluations),
            "angles": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(angles))),
        }
    )


def _write_shard(file: Path, table: pa.Table) -> str:
    """Write a Parquet file as a whole; returns its sha256."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    write_atomic(file, content)
    return sha256(content)


def _table(content: bytes) -> pa.Table:
    """The table of a Parquet file; by this thread alone, as threads of Arrow that hold objects of Python can abort a
    process at its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)


def _read_shard(file: Path, digest: str, columns: Iterable[pa.Field]) -> pa.Table:
    """A shard, if it has these columns without gaps.

    Raises:
        PoolError: missing, changed, damaged, or with other columns.
    """
    import pyarrow as pa

    content = read_bytes(file, "a shard", digest, error=PoolError)
    try:
        table = _table(content)
        table.validate(full=True)
    except pa.ArrowException as error:
        raise PoolError(f"a shard is damaged: {file}: {one_line(error)}") from None
    for due in columns:
        told = table.schema.field(due.name) if due.name in table.schema.names else None
        if told is None or told.type != due.type or table[due.name].null_count:
            got = "none" if told is None else told.type if told.type != due.type else "missing values"
            raise PoolError(f"a shard has a column {due.name} of type {due.type}, got {got}: {file}")
    return table


def _adopt(file: Path, identity: str) -> str | None:
    """The hash of a complete shard of this task that the manifest does not know yet; None if there is none."""
    import pyarrow as pa

    try:
        content = file.read_bytes()
        table = _table(content)
        told = table.schema.metadata or {}
        whole = told.get(b"identity") == identity.encode() and told.get(b"content") == _content(table).encode()
    except (OSError, ValueError, pa.ArrowException):  # no such file, cut short, or damaged
        return None
    return sha256(content) if whole else None


def _content(table: pa.Table) -> str:
    """A hash of names and values: a shard tells it of itself, as the manifest may not know its file."""
    return sha256(json.dumps(table.to_pydict()).encode())


def _label_columns(starts: int) -> list[pa.Field]:
    import pyarrow as pa

    energies, angles = pa.list_(pa.float64(), starts), pa.list_(pa.float64())
    return [pa.field("energies", energies), pa.field("evaluations", pa.int64()), pa.field("angles", angles)]


def _read_tokens(path: Path, shard: int, digest: str, space: CircuitSpace) -> np.ndarray:
    """Rows of a shard of circuits, int16, shape (size, max_gates)."""
    import pyarrow as pa

    width = space.max_gates
    columns = [pa.field("tokens", pa.list_(pa.int16(), width))]
    return _matrix(_read_shard(_circuits_file(path, shard), digest, columns), "tokens", width)


def _matrix(table: pa.Table, name: str, width: int) -> np.ndarray:
    return table[name].combine_chunks().flatten().to_numpy().reshape(-1, width)


def summarize(pool: Pool, task: str) -> dict[str, Any]:
    """What the labels of a task say: best error, mean spread between starts, evaluations; where the task has a
    published score, its threshold and the share of circuits above it.

    Raises:
        UnknownNameError: the pool has no such task.
    """
    labels = pool.labels(task)
    found: dict[str, Any] = {
        "task": task,
        "best_error": float(labels.problem.error(labels.best.min())),
        "spread": float(labels.spread.mean()),
        "evaluations": int(labels.evaluations.sum()),
    }
    with suppress(QasError):
        table = pool.table(task)
        found |= {"threshold": table.score.threshold, "share_above": table.base_rate}
    return found
