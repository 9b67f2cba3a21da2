"""The campaign: a folder with one run for each search of a study, and what is missing of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from qas.campaigns.running import Outcome, status_of
from qas.campaigns.study import Study, Task, load_study
from qas.campaigns.workers import Workers
from qas.checks import whole_number
from qas.errors import RunError
from qas.files import check_versioned, hold, new_folder, read_json, versioned, write_json
from qas.record import Progress
from qas.runs import CAMPAIGN, RUNS, Run, load_run
from qas.schema import conform
from qas.simulators.workers import cores

_FORMAT, _VERSION = "qas-campaign", 1


@dataclass(frozen=True)
class Campaign:
    """A folder of runs.

    Attributes:
        path: the folder.
        study: its searches.
    """

    path: Path
    study: Study

    def status(self) -> dict[str, str]:
        """Name of each search -> "finished", "failed", "begun" or "waiting"; one that runs now has begun."""
        return {task.name: status_of(self.path, task.name) for task in self.study.tasks}

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of the study."""
        status = self.status()
        return [load_run(self.path / RUNS / task.name) for task in self.study.tasks if status[task.name] == "finished"]


@dataclass
class State:
    """What is known of a campaign in progress, for displays.

    Attributes:
        tasks: by name.
        outcomes: of those that ended, by name; those that were finished before are among them.
        running: the last snapshot of each search that runs.
        best: problem -> lowest error so far.
    """

    tasks: Mapping[str, Task]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, Progress] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return len(self.tasks)

    def count(self, status: str) -> int:
        """How many searches ended so."""
        return sum(outcome.status == status for outcome in self.outcomes.values())

    def note(self, name: str, progress: Progress) -> None:
        """Take in a snapshot of a search."""
        self.running[name] = progress
        problem = self.tasks[name].settings["problem"]
        self.best[problem] = min(self.best.get(problem, float("inf")), progress.best_error)


class _Told(TypedDict):
    study: dict[str, Any]


def load_campaign(path: str | os.PathLike[str]) -> Campaign:
    """Read a campaign's folder.

    Raises:
        RunError: it is none, or of a newer version.
    """
    folder = Path(path)
    if not (folder / CAMPAIGN).is_file():
        raise RunError(f"not a campaign (no {CAMPAIGN}): {folder}")
    data = read_json(folder / CAMPAIGN, "the campaign")
    check_versioned(data, _FORMAT, _VERSION, "the campaign", error=RunError)
    conform(data, _Told, "the campaign", where=folder)
    return Campaign(folder, Study.of(data["study"]))


def campaign(
    study: str | os.PathLike[str] | Mapping[str, Any] | Study,
    *,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    report: bool = False,
    on_change: Callable[[State], None] | None = None,
) -> Campaign:
    """Do all searches of a study that are not finished in a folder.

    Each is an ordinary run in ``OUT/runs``; what was interrupted or killed goes on from its checkpoint, and at the same
    seed and a budget in evaluations or steps ends as the unbroken run would. What failed has its reason in
    ``OUT/failed``, and is tried again. Ctrl-C ends in order.

    Args:
        study: a TOML file, a table as `Study.of` has it, or a `Study`.
        out: the folder, new or that of the same study; default that of the study, or ``results/campaign-<time>``.
        workers: searches at a time on this machine, which share its cores; default one for each core.
        report: write each run's own ``report.html``.
        on_change: called whenever something is new.

    Returns:
        The campaign; `Campaign.status` says what is left.

    Raises:
        QasError: a study that does not fit, or the folder of another one.
        RunError: the folder cannot be used.
    """
    plan = load_study(study)
    count = cores() if workers is None else whole_number("workers", workers)
    folder = _folder(plan, plan.out if out is None else out)
    with hold(folder, "the campaign"):
        state = State({task.name: task for task in plan.tasks})
        tell = on_change or (lambda _: None)
        missing = []
        for task in plan.tasks:
            if status_of(folder, task.name) == "finished":
                state.outcomes[task.name] = Outcome(task.name, "finished")
            else:
                missing.append(task)

        def note(name: str, progress: Progress) -> None:
            state.note(name, progress)
            tell(state)

        tell(state)
        if missing:
            for outcome in Workers(count, folder, report=report, tell=note).run(missing):
                state.running.pop(outcome.name, None)
                state.outcomes[outcome.name] = outcome
                tell(state)
    return Campaign(folder, plan)


def _folder(study: Study, out: str | os.PathLike[str] | None) -> Path:
    """The folder of a study: begun, or that it was begun in."""
    if out is not None and (Path(out) / CAMPAIGN).is_file():
        known = load_campaign(out)
        if dict(known.study.told) != dict(study.told):
            raise RunError(f"the folder holds the campaign of another study: {out}")
        return Path(out)
    with new_folder(out, "the campaign", stem="campaign", instead="or that of the same study") as folder:
        write_json(folder / CAMPAIGN, versioned(_FORMAT, _VERSION, {"study": dict(study.told)}))
    return folder
