"""Runs from folders, grouped by what may be compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qas.checks import one_line
from qas.errors import QasError, RunError
from qas.files import to_json
from qas.problems import BaseProblem
from qas.remote import near
from qas.report import best_so_far
from qas.runs import CAMPAIGN, FAILED, RUNS, Run, is_complete, load_run, run_folders

_SPACE = ("gates", "max_gates", "coupling")


@dataclass(frozen=True)
class Arm:
    """Runs that differ by their seeds only.

    Attributes:
        label: the agent, and in brackets what tells the arm from others of the group with that agent.
        runs: finished ones with a circuit, by seed; at least one.
        courses: of each run, where its best error fell; see `qas.report.best_so_far`.
    """

    label: str
    runs: tuple[Run, ...]
    courses: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Group:
    """Arms on one problem under one condition.

    Attributes:
        title: problem, noise and objective; no other group of the comparison has it.
        arms: at least one.
    """

    title: str
    arms: tuple[Arm, ...]

    @property
    def problem(self) -> BaseProblem:
        return self.arms[0].runs[0].problem

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms for run in arm.runs]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        groups: at least one.
        left_out: runs that were given and are not compared, and why: one line each.
    """

    groups: tuple[Group, ...]
    left_out: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]


def gather(paths: Iterable[str | os.PathLike[str]]) -> Comparison:
    """The finished runs of folders, each that of a run or of a campaign.

    Runs that have not ended, that found no circuit, that cannot be read, or that repeat another one, its seed included,
    are left out, and said to be.

    Raises:
        RunError: a folder that is neither, or no finished run in any of them.
    """
    runs: dict[str, tuple[Run, np.ndarray]] = {}
    left_out: list[str] = []
    known: dict[str, Path] = {}
    for folder in _folders(paths):
        where = os.path.realpath(folder)
        if where in runs:
            continue
        if (told := _failure(folder)) is not None:
            left_out.append(f"{folder}: failed ({told})")
            continue
        try:
            run = load_run(folder)
            course = best_so_far(run)
        except QasError as error:
            left_out.append(f"{folder}: {one_line(error)}")
            continue
        if run.status != "finished":
            left_out.append(f"{folder}: not finished ({one_line(run.status)})")
        elif not run.front:
            left_out.append(f"{folder}: found no circuit")
        elif (first := known.setdefault(_search(run), folder)) is not folder:
            left_out.append(f"{folder}: the same search as {first}, seed {run.seed} included")
        else:
            runs[where] = run, course
    if not runs:
        told = f": {left_out[0]}" if len(left_out) == 1 else f", {len(left_out)} that are not" if left_out else ""
        raise RunError(f"a comparison needs a finished run, got none{told}")
    return Comparison(_grouped(list(runs.values())), tuple(left_out))


def _folders(paths: Iterable[str | os.PathLike[str]]) -> Iterable[Path]:
    for given in paths:
        path = near(given)
        if not any((path / name).is_file() for name in (CAMPAIGN, "config.json")):
            raise RunError(f"a report is of run folders and campaigns, got {path}")
        found = run_folders(path)
        yield from found
        notes = (path / FAILED).glob("*.txt") if (path / CAMPAIGN).is_file() else ()
        # A search that failed at once has left no folder.
        yield from sorted({path / RUNS / note.stem for note in notes} - set(found))


def _failure(folder: Path) -> str | None:
    """Why a search of a campaign failed, the first line of what it left; None for any other run."""
    note = folder.parent.parent / FAILED / f"{folder.name}.txt"
    if folder.parent.name != RUNS or not note.is_file():
        return None
    with suppress(RunError):
        if is_complete(folder, report=False):
            return None
    return one_line(note.read_text(errors="replace").strip().rpartition("\n")[2])


def _search(run: Run) -> str:
    """Equal for runs that would be counted as two seeds of an arm and are not."""
    placed = None if run.device is None else list(run.device.physical)
    return to_json([_condition(run), placed, run.agent, _settings(run), run.seed])


# ---------------------------------------------------------------------- grouping
def _condition(run: Run) -> list[Any]:
    """What runs have in common that are compared; which of a patch's qubits is which is a matter of the search."""
    where, device = run.config["noise"], run.device
    if device is not None:
        in_order = sorted(range(device.n_qubits), key=device.physical.__getitem__)
        where = device.restricted(in_order).to_json()
    return [run.config["problem"], where, run.objective]


def _grouped(runs: list[tuple[Run, np.ndarray]]) -> tuple[Group, ...]:
    groups: dict[str, list[tuple[Run, np.ndarray]]] = {}
    for run, course in runs:
        groups.setdefault(to_json(_condition(run)), []).append((run, course))
    titles = _distinct([_title(members[0][0]) for members in groups.values()])
    found = [Group(title, _arms(members)) for title, members in zip(titles, groups.values(), strict=True)]
    return tuple(sorted(found, key=lambda group: group.title))


def _title(run: Run) -> str:
    words = [run.problem.name, f"noise {run.noise.name}" if run.noise else "no noise"]
    return ", ".join(words if run.objective == "noisy" else [*words, f"objective {run.objective}"])


def _distinct(labels: list[str]) -> list[str]:
    """Labels with a number behind those that others have too."""
    seen: dict[str, int] = {}
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
    counts = dict.fromkeys(seen, 0)
    found = []
    for label in labels:
        counts[label] += 1
        found.append(label if seen[label] == 1 else f"{label} [{counts[label]}]")
    return found


def _arms(runs: list[tuple[Run, np.ndarray]]) -> tuple[Arm, ...]:
    arms: dict[str, list[tuple[Run, np.ndarray]]] = {}
    for run, course in runs:
        arms.setdefault(to_json([run.agent, _settings(run)]), []).append((run, course))
    firsts = [each[0][0] for each in arms.values()]
    labels = _distinct([_label(run, firsts) for run in firsts])
    found = []
    for label, members in zip(labels, arms.values(), strict=True):
        ordered = sorted(members, key=lambda member: member[0].seed)
        found.append(Arm(label, *(tuple(each) for each in zip(*ordered, strict=True))))  # type: ignore[arg-type]
    return tuple(sorted(found, key=lambda arm: arm.label))


def _settings(run: Run) -> dict[str, Any]:
    """What the user set, beside the agent, the condition and the seed."""
    found: dict[str, Any] = {}
    for section in ("options", "evaluator", "budget"):
        for name, value in _held(section, run).items():
            found[f"{section}.{name}" if name in found else name] = value
    return found | {f"run.{name}" if name in found else name: run.config.get(name) for name in _SPACE}


def _held(key: str, run: Run) -> Mapping[str, Any]:
    # Where a study is stored is no setting, and may hold a password; that it is shared is one: such runs are not alone.
    held = {name: value for name, value in run.config[key].items() if name != "storage"}
    return held | ({"storage": "shared"} if run.config[key].get("storage") is not None else {})


def _label(run: Run, others: list[Run]) -> str:
    """The agent with those of its settings that not all arms of this agent have."""
    mine, rivals = _settings(run), [_settings(other) for other in others if other.agent == run.agent]
    told = []
    for key, value in mine.items():
        if value is not None and any(rival.get(key) != value for rival in rivals):
            shown = f"{len(value)} kinds" if key == "gates" else to_json(value).strip('"')
            told.append(f"{key}={shown[:40]}")
    return f"{run.agent} ({', '.join(told)})" if told else run.agent
