"""Runs: what a search found, on disk and as objects.

A run folder holds ``config.json`` (everything needed to repeat the run), ``history.csv`` (one row per evaluated
architecture), ``circuits.jsonl`` (the Pareto front), ``best.qasm``, ``checkpoint/`` and ``report.html``.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np

from qas.circuits import Circuit
from qas.devices import Device
from qas.errors import QasError, RunError
from qas.files import (
    Held,
    disk_errors,
    hold,
    is_locked,
    new_folder,
    open_to_append,
    read_json,
    read_json_lines,
    read_text,
    read_versioned,
    refuse_links,
    to_json,
    write_atomic,
    write_json,
)
from qas.mitigation.objectives import spelled
from qas.mitigation.outcomes import Outcomes
from qas.native import pulse_count
from qas.noise import NoiseModel
from qas.problems import BaseProblem, problem_from_json
from qas.remote import address_of, near
from qas.schema import Count, Gates, Positive, Qubits, Time, Within, conform

VERSION = 1
"""Version of the folder's layout; a newer one is refused."""


class _Budget(TypedDict, total=False):
    seconds: Annotated[float, Within(1e-9)] | None
    evaluations: Positive | None
    steps: Positive | None
    target: Annotated[float, Within(0)] | None


class _Start(TypedDict):
    source: str
    atlas: bool
    circuits: Count


class _Config(TypedDict):
    """What a resumed run needs from ``config.json``."""

    agent: str
    options: dict[str, Any]
    seed: Annotated[int, Within(0)]
    problem: dict[str, Any]
    noise: dict[str, Any] | None
    budget: _Budget
    max_gates: Positive
    gates: list[str]
    evaluator: dict[str, Any]
    coupling: NotRequired[list[tuple[Count, Count]] | None]
    objective: NotRequired[str | dict[str, Any]]
    device: NotRequired[dict[str, Any] | None]
    start: NotRequired[_Start]
    versions: NotRequired[dict[str, str]]


class _Summary(TypedDict):
    status: Literal["running", "interrupted", "finished"]
    evaluations: Count
    architectures: Count
    seconds: Time
    tidying: NotRequired[Count]
    remarks: NotRequired[list[str]]
    best_error: NotRequired[float | None]


class _Found(TypedDict):
    """A line of ``circuits.jsonl``, as far as it is read."""

    n_qubits: Qubits
    circuit: Gates
    energy: float
    error: float
    noise_free_energy: float
    noise_free_error: float
    evaluations: Count
    outcomes: NotRequired[dict[str, Any] | None]


EPISODE_COLUMNS = ("evaluations", "gates", "error", "success", "test")
CAMPAIGN, RUNS, FAILED = "campaign.json", "runs", "failed"
"""File that makes a folder a campaign, and its folders of runs and of reasons why searches failed."""

HISTORY_COLUMNS = ("evaluations", "seconds", "energy", "error", "gates", "two_qubit_gates", "angles", "best_error")


@dataclass(frozen=True)
class Result:
    """One circuit with its optimized angles and what it achieves. Energies in the problem's unit."""

    circuit: Circuit
    energy: float
    """objective under the run's noise: raw or mitigated, with the cost of measuring it"""
    error: float
    """energy minus the problem's exact value"""
    noise_free_energy: float
    """energy of the same circuit and angles on a perfect device"""
    noise_free_error: float
    evaluations: int
    """evaluations the run had used when it found this circuit"""
    outcomes: Outcomes | None = None
    """what it is worth raw, mitigated and on a perfect device; None without noise, and until the search has ended"""

    @property
    def counts(self) -> dict[str, int]:
        """Gate name -> how often it occurs."""
        return self.circuit.counts

    @property
    def two_qubit_gates(self) -> int:
        return self.circuit.two_qubit_gates

    @property
    def gates(self) -> int:
        return self.circuit.n_gates

    def to_json(self) -> dict[str, Any]:
        """JSON-able; the OpenQASM text is there for readers, `gates` for exact reading."""
        return {
            "error": self.error,
            "energy": self.energy,
            "noise_free_error": self.noise_free_error,
            "noise_free_energy": self.noise_free_energy,
            "gates": self.gates,
            "two_qubit_gates": self.two_qubit_gates,
            "depth": self.circuit.depth,
            "evaluations": self.evaluations,
            "outcomes": None if self.outcomes is None else self.outcomes.to_json(),
            "n_qubits": self.circuit.n_qubits,
            "circuit": self.circuit.to_list(),
            "key": self.circuit.key,
            "qasm": self.circuit.to_qasm(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        conform(data, _Found, "a circuit of the front")
        energy, error, quiet, quiet_error = (
            float(data[name]) for name in ("energy", "error", "noise_free_energy", "noise_free_error")
        )
        return cls(
            Circuit(data["n_qubits"], data["circuit"]),
            energy,
            error,
            quiet,
            quiet_error,
            data["evaluations"],
            None if data.get("outcomes") is None else Outcomes.from_json(data["outcomes"]),
        )


FrontEntry = tuple[float, float, Qubits, Gates, Count]
"""A circuit of a front in a checkpoint."""


def checked_points(data: Any) -> Iterator[tuple[float, float, Circuit, int]]:
    """(error, energy, circuit, evaluations) of a front as a checkpoint holds it.

    Raises:
        RunError: malformed, or with an energy that is not finite: it would displace what is good.
    """
    conform(data, list[FrontEntry], "the front of the checkpoint")
    try:
        for error, energy, n_qubits, gates, evaluations in data:
            yield float(error), float(energy), Circuit(n_qubits, gates), evaluations
    except QasError as told:
        raise RunError(f"the front of the checkpoint is damaged: {told}") from None


def rounding(energy: float) -> float:
    """Energies that differ by no more are equal: what is left of them is the rounding of sums in floating point."""
    return 1e-12 * max(1.0, abs(energy))


class Front:
    """Circuits that no other beats in error, two-qubit gates and gates at once.

    A circuit joins when its error is lower, by more than `margin` of it plus 1e-12, than that of every circuit with at
    most as many two-qubit gates and at most as many gates; of equal size the lower error stays. It drives out larger
    circuits whose error is not lower by more than rounding.
    """

    def __init__(self, margin: float = 1e-3) -> None:
        self.margin = margin
        self._points: dict[tuple[int, int], tuple[float, float, Circuit, int]] = {}

    def __len__(self) -> int:
        return len(self._points)

    def accepts(self, error: float, two: int, gates: int) -> bool:
        """Whether a circuit with these numbers would join."""
        held = self._points.get((two, gates))
        if held is not None and error >= held[0]:
            return False
        smaller = (p[0] for (t, g), p in self._points.items() if t <= two and g <= gates and (t, g) != (two, gates))
        return bool(error + 1e-12 + self.margin * abs(error) < min(smaller, default=np.inf))

    def lowest(self, two: int) -> float:
        """Lowest error, with the margin, of all points with at most `two` two-qubit gates; infinity if none."""
        error = min((p[0] for (t, _), p in self._points.items() if t <= two), default=np.inf)
        return error + 1e-12 + self.margin * abs(error)

    def add(self, circuit: Circuit, energy: float, error: float, evaluations: int) -> bool:
        """Offer a circuit; returns whether it joined."""
        two, gates = circuit.two_qubit_gates, circuit.n_gates
        if not self.accepts(error, two, gates):
            return False
        self._points[two, gates] = (error, energy, circuit, evaluations)
        beaten = [
            place
            for place, point in self._points.items()
            if place != (two, gates) and place[0] >= two and place[1] >= gates and point[0] >= error - rounding(energy)
        ]
        for place in beaten:
            del self._points[place]
        return True

    @property
    def points(self) -> list[tuple[float, float, Circuit, int]]:
        """(error, energy, circuit, evaluations), sorted by two-qubit gates, then gates."""
        return [self._points[key] for key in sorted(self._points)]

    @property
    def best(self) -> tuple[float, float, Circuit, int] | None:
        """The point of lowest error; of equals the smaller circuit."""
        lowest = min((p[0] for p in self._points.values()), default=np.inf)
        equal = [key for key, p in self._points.items() if p[0] <= lowest + rounding(p[1])]
        return self._points[min(equal)] if equal else None

    def to_json(self) -> list[Any]:
        return [[error, energy, c.n_qubits, c.to_list(), count] for error, energy, c, count in self.points]

    @classmethod
    def from_json(cls, data: Iterable[Any]) -> Front:
        front = cls()
        for error, energy, circuit, count in checked_points(data):
            front._points[circuit.two_qubit_gates, circuit.n_gates] = (error, energy, circuit, count)
        return front


def lowest_error(front: Iterable[Result]) -> Result:
    """The circuit of lowest error; of those equal up to rounding the one with the fewest two-qubit gates, then gates.

    Raises:
        ValueError: no circuits.
    """
    results = list(front)
    lowest = min(r.error for r in results)
    equal = [r for r in results if r.error <= lowest + rounding(r.energy)]
    return min(equal, key=lambda r: (r.two_qubit_gates, r.gates, r.error))


def envelope(front: Iterable[Result]) -> list[Result]:
    """The two-dimensional front, error against two-qubit gates: of each count the best, where it beats all fewer."""
    counts: dict[int, list[Result]] = {}
    for result in front:
        counts.setdefault(result.two_qubit_gates, []).append(result)
    kept: list[Result] = []
    for two in sorted(counts):
        best = lowest_error(counts[two])
        if not kept or best.error < kept[-1].error - rounding(best.energy):
            kept.append(best)
    return kept


@dataclass(frozen=True)
class Run:
    """A finished or interrupted search.

    Attributes:
        path: its folder.
        config: settings, versions and seed, as in ``config.json``.
        status: "running", "interrupted" or "finished".
        front: circuits that no other beats in error, two-qubit gates and gates at once, sorted by two-qubit gates.
        evaluations: calls of the objective; a gradient counts as one.
        architectures: circuits whose angles were optimized.
        seconds: time spent searching.
        tidying: calls of the objective that went into tidying the front after the search, beyond `evaluations`.
        remarks: what a reader should know about the outcome, one line each.
    """

    path: Path
    config: dict[str, Any]
    problem: BaseProblem
    noise: NoiseModel | None
    status: str
    front: list[Result]
    evaluations: int
    architectures: int
    seconds: float
    tidying: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def best(self) -> Result:
        """The circuit of lowest error; of equals, up to rounding, the smaller one.

        Raises:
            RunError: nothing was evaluated yet.
        """
        if not self.front:
            raise RunError(f"the run has no circuit yet: {self.path}")
        return lowest_error(self.front)

    @property
    def agent(self) -> str:
        return self.config["agent"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    def on_device(self, circuit: Circuit) -> dict[str, str]:
        """What a circuit costs on the device of the run beside its gates, as words and numbers; empty without one."""
        if self.device is None:
            return {}
        return {"pulses": str(pulse_count(circuit)), "µs": f"{1e6 * self.device.duration(circuit):.3g}"}

    @cached_property
    def device(self) -> Device | None:
        """The patch that was searched for, or None."""
        held = self.config.get("device")
        return None if held is None else Device.from_json(held)

    @property
    def objective(self) -> str:
        """What was minimized, such as ``"zne:nodes=1-3-5"``."""
        return spelled(self.config.get("objective", "noisy"))

    def history(self) -> np.ndarray:
        """One row per architecture that was evaluated on the run's objective, structured array with the fields of
        `HISTORY_COLUMNS`; what a search under noise tries without it first is counted, and has no row."""
        path = self.path / "history.csv"
        return _read_columns(path, read_text(path, "the history"), HISTORY_COLUMNS, "history")

    def episodes(self) -> np.ndarray:
        """One row per episode of an agent that plays an environment, structured array with the fields of
        `EPISODE_COLUMNS` (see `qas.record.Episode`); none of other agents."""
        path = self.path / "episodes.csv"
        text = read_text(path, "the table of episodes") if path.exists() else ""
        return _read_columns(path, text, EPISODE_COLUMNS, "table of episodes")

    def __repr__(self) -> str:
        best = f"{self.best.error:.3g}" if self.front else "none"
        return f"Run({self.problem.name}, {self.agent}, {self.status}, best error {best}, {self.path})"


def _read_columns(path: Path, text: str, columns: Sequence[str], what: str) -> np.ndarray:
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]  # a killed run can leave half a line
    dtype = [(name, float) for name in columns]
    if not lines:
        return np.zeros(0, dtype=dtype)
    try:
        return np.atleast_1d(np.loadtxt(io.StringIO("\n".join(lines)), delimiter=",", dtype=dtype))
    except ValueError as error:
        raise RunError(f"the {what} is damaged: {path}: {error}") from None


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder, here or at an address that fsspec opens, such as ``s3://bucket/run``.

    Raises:
        RunError: the folder is missing, no run, damaged, or written by a newer version.
    """
    folder = near(path)
    config = read_config(folder)
    summary = read_summary(folder)
    front = []
    circuits = folder / "circuits.jsonl"
    if circuits.exists():
        lines = read_json_lines(circuits, "the front")
        try:
            front = [Result.from_json(line) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"the front is damaged or cut short: {circuits}: {error}") from None
    try:
        if config.get("device") is not None:
            Device.from_json(config["device"])
        problem = problem_from_json(config["problem"])
        noise = None if config["noise"] is None else NoiseModel.from_json(config["noise"])
    except KeyError as error:
        raise RunError(f"config.json lacks the field {error}: {folder}") from None
    except QasError as error:
        raise RunError(f"config.json is damaged: {folder}: {error}") from None
    return Run(
        folder,
        config,
        problem,
        noise,
        summary["status"],
        front,
        summary["evaluations"],
        summary["architectures"],
        summary["seconds"],
        summary["tidying"],
        summary["remarks"],
    )


def run_folders(path: str | os.PathLike[str]) -> list[Path]:
    """The run folders of a campaign, here or at an address, by name; of anything else the folder itself."""
    folder = near(path)
    if not (folder / CAMPAIGN).is_file():
        return [folder]
    within = folder / RUNS
    return sorted(each for each in within.iterdir() if each.is_dir()) if within.is_dir() else []


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a run folder; of a run that has not written one yet, what that stands for.

    Raises:
        RunError: it is damaged.
    """
    summary: dict[str, Any] = {
        "status": "running", "evaluations": 0, "architectures": 0, "seconds": 0.0, "tidying": 0, "remarks": [],
    }  # fmt: skip
    path = folder / "summary.json"
    if not path.exists():
        return summary
    return summary | conform(read_json(path, "the summary"), _Summary, "the summary", where=path)


def is_complete(folder: Path, report: bool) -> bool:
    """Whether nothing is left to do of a run: it is finished, unlocked, and has its report if one is wanted."""
    finished = (folder / "config.json").exists() and read_summary(folder)["status"] == "finished"
    return finished and not is_locked(folder) and (not report or (folder / "report.html").exists())


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a run folder, checked for version and completeness."""
    if not folder.exists():
        raise RunError(f"no such run folder: {address_of(folder)}")
    if not folder.is_dir():
        raise RunError(f"a run is a folder, got a file: {address_of(folder)}")
    if not (folder / "config.json").exists():
        raise RunError(f"not a run folder (no config.json): {address_of(folder)}")
    config = read_versioned(folder / "config.json", None, VERSION, "the run")
    return conform(config, _Config, "config.json", where=folder)


_ASIDE = ".before"
_CHECKPOINT = "checkpoint"
_FOUND = ("history.csv", "episodes.csv", "circuits.jsonl", "best.qasm", "report.html", "summary.json")
"""Files with what a search has found; the summary last, which tells of the others."""


def _copy(source: Path, target: Path) -> None:
    if (source / _CHECKPOINT).exists():
        shutil.copytree(source / _CHECKPOINT, target / _CHECKPOINT)
    for name in _FOUND:
        if (source / name).exists():
            write_atomic(target / name, (source / name).read_bytes())


class Recorder:
    """Writes a run folder while a search is going on, as the only process that does.

    As a context manager it closes at the end; an exception also removes the folder if nothing is in it yet.
    """

    def __init__(self, folder: Path, held: Held | None = None) -> None:
        self.folder = folder
        self._held = held
        self._stream: IO[str] | None = None

    @classmethod
    def reserve(cls, folder: str | os.PathLike[str] | None, stem: str = "run") -> Recorder:
        """Reserve a new or empty folder; None: ``results/<stem>-<time>``.

        Raises:
            RunError: the folder holds files, is another process's, or cannot be written.
        """
        held = new_folder(folder, "the run", stem=stem, instead="to continue a run: --resume", in_parts=True)
        return cls(held.path, held)

    @classmethod
    def take_over(cls, folder: Path) -> Recorder:
        """Become the writer of a run that is there already.

        Raises:
            RunError: another process writes it, links lie in it, or it cannot be written.
        """
        held = hold(folder, "the run")
        try:
            with disk_errors(folder):
                # Optuna's lock of the study is a link; who left it is gone, since the folder is held here.
                (folder / "study.log.lock").unlink(missing_ok=True)
            refuse_links(folder)
        except BaseException:
            held.release()
            raise
        return cls(folder, held)

    def create(self, config: dict[str, Any]) -> None:
        """Begin a run in a new folder.

        Raises:
            RunError: the folder already holds files, is another process's, or cannot be written.
        """
        if self._held is None:
            self._held = self.reserve(self.folder)._held
        write_json(self.folder / "config.json", {"version": VERSION, **config})
        self.restart()

    def restart(self) -> None:
        """Begin the history anew: the run was killed before its first checkpoint."""
        write_atomic(self.folder / "history.csv", ",".join(HISTORY_COLUMNS) + "\n")
        self._open()

    def reopen(self, history_bytes: int) -> None:
        """Continue a run: cut the history back to what the checkpoint had seen."""
        self._open(history_bytes)

    def _open(self, size: int | None = None) -> None:
        self._stream = open_to_append(self.folder / "history.csv", size)

    def set_aside(self, seen: int) -> None:
        """Keep what a run has found beyond its checkpoint, which had seen so many evaluations, until `settle`.

        A search that goes on makes that part again, and may be cut short before it gets there.
        """
        aside, now = self.folder / _ASIDE, read_summary(self.folder)
        with disk_errors(aside):
            if aside.exists():  # going on was cut short before
                if now["evaluations"] < read_summary(aside)["evaluations"]:
                    return
                shutil.rmtree(aside)
            if now["evaluations"] <= seen:
                return
            part = aside.with_name(f"{_ASIDE}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _copy(self.folder, part)
            os.rename(part, aside)

    def settle(self, status: str) -> None:
        """Take back what was set aside, unless the search has ended or got as far; call it last."""
        aside = self.folder / _ASIDE
        if not aside.exists():
            return
        with disk_errors(aside):
            before = read_summary(aside)
            if status != "finished" and read_summary(self.folder)["evaluations"] < before["evaluations"]:
                self._close_history()
                shutil.rmtree(self.folder / _CHECKPOINT, ignore_errors=True)
                _copy(aside, self.folder)
                write_json(self.folder / "summary.json", before | {"status": status})
            shutil.rmtree(aside)

    def row(self, values: tuple[float, ...]) -> None:
        """Append one architecture to the history."""
        assert self._stream is not None
        evaluations, seconds, energy, error, gates, two, angles, best = values
        with disk_errors(self.folder / "history.csv"):
            self._stream.write(
                f"{evaluations},{seconds:.3f},{energy:.12g},{error:.6g},{gates},{two},{angles},{best:.6g}\n"
            )

    def flush(self) -> int:
        """Force the history to disk; returns its size in bytes."""
        assert self._stream is not None
        with disk_errors(self.folder / "history.csv"):
            self._stream.flush()
            os.fsync(self._stream.fileno())  # a checkpoint never tells of more than there is
            return os.fstat(self._stream.fileno()).st_size

    def write(self, front: list[Result], summary: dict[str, Any], episodes: Sequence[tuple[Any, ...]] = ()) -> None:
        """Replace front, best circuit and summary, and the episodes of an agent that plays them."""
        write_atomic(self.folder / "circuits.jsonl", "".join(to_json(r.to_json()) + "\n" for r in front))
        if front:
            write_atomic(self.folder / "best.qasm", lowest_error(front).circuit.to_qasm())
        if episodes:
            rows = (f"{at},{gates},{error:.6g},{success:d},{test:d}\n" for at, gates, error, success, test in episodes)
            write_atomic(self.folder / "episodes.csv", ",".join(EPISODE_COLUMNS) + "\n" + "".join(rows))
        write_json(self.folder / "summary.json", summary)

    def close(self) -> None:
        """Finish the history and let others write; nothing if that was done before."""
        try:
            self._close_history()
        finally:
            if self._held is not None:
                self._held.release()

    def _close_history(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with disk_errors(self.folder / "history.csv"):
                stream.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.close()
        if kind is not None and self._held is not None:
            self._held.discard()
