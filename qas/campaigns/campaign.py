"""The campaign: a folder with one run for each search of a study, and what is missing of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from qas.callbacks import Watch
from qas.campaigns.attempts import adopt_all
from qas.campaigns.cluster import Cluster, connected
from qas.campaigns.running import Outcome, status_of
from qas.campaigns.study import Study, Task, load_study
from qas.campaigns.workers import Workers
from qas.checks import finite_number, one_line, whole_number
from qas.errors import QasError, RunError
from qas.files import check_versioned, hold, new_folder, read_json, versioned, write_json
from qas.record import Progress
from qas.remote import is_remote, near, placed
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
    folder = near(path)
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
    ray: str | None = None,
    cpus: float | None = None,
    report: bool = False,
    callbacks: Sequence[Any] = (),
    on_change: Callable[[State], None] | None = None,
) -> Campaign:
    """Do all searches of a study that are not finished in a folder.

    Each is an ordinary run in ``OUT/runs``; what was interrupted or killed goes on from its checkpoint, and at the same
    seed and a budget in evaluations or steps ends as the unbroken run would. What failed has its reason in
    ``OUT/failed``, and is tried again. Ctrl-C ends in order.

    Args:
        study: a TOML file, a table as `Study.of` has it, or a `Study`.
        out: the folder, new or that of the same study, here or an address that fsspec opens, such as
            ``s3://bucket/campaign``; default that of the study, or ``results/campaign-<time>``.
        workers: searches at a time on this machine, which share its cores; default one for each core.
        ray: address of a Ray cluster that does them instead, or "auto" for the one of this machine; all of its nodes
            see the folder under the same path. See `qas.campaigns.attempts` for what holds when a node is lost.
        cpus: cores that Ray keeps for each search; default one.
        report: write each run's own ``report.html``.
        callbacks: of every search, as of `qas.search`; objects are copied to the processes that search.
        on_change: called whenever something is new.

    Returns:
        The campaign; `Campaign.status` says what is left.

    Raises:
        QasError: a study that does not fit, the folder of another one, or callbacks that cannot be copied.
        RunError: the folder cannot be used.
        MissingExtraError: no Ray.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise QasError("workers read the script that begins a campaign: put the call below if __name__ == '__main__':")
    plan = load_study(study)
    if ray is not None and workers is not None:
        raise QasError("searches go to workers on this machine or to a Ray cluster, got both")
    if ray is None and cpus is not None:
        raise QasError("cpus are those of a search on a Ray cluster, got none: give its address too")
    Watch(callbacks)
    if ray is None:
        _check_copied(callbacks)
    count = cores() if workers is None else whole_number("workers", workers)
    each = 1.0 if cpus is None else finite_number("cpus", cpus, above=0)
    out = plan.out if out is None else out
    if ray is not None and is_remote(out):
        raise QasError(f"a campaign on a Ray cluster has a folder that all nodes see, got {out}")
    with connected(ray), placed(out, "the campaign", fresh=False) as place:
        folder = _folder(plan, place)
        runner: Callable[..., Any] = partial(Workers, count) if ray is None else partial(Cluster, each)
        begin = partial(runner, folder, report=report, callbacks=callbacks)
        _conduct(plan, folder, begin, on_change or (lambda _: None), report)
    return Campaign(folder, plan)


def _conduct(
    plan: Study, folder: Path, runner: Callable[..., Any], tell: Callable[[State], None], report: bool
) -> None:
    """Do what is missing of a study; `runner` takes what is called with snapshots."""
    with hold(folder, "the campaign"):
        adopt_all(folder)
        state = State({task.name: task for task in plan.tasks})
        missing = []
        for task in plan.tasks:
            if status_of(folder, task.name, report=report) == "finished":
                state.outcomes[task.name] = Outcome(task.name, "finished")
            else:
                missing.append(task)

        def note(name: str, progress: Progress) -> None:
            state.note(name, progress)
            tell(state)

        tell(state)
        if missing:
            for outcome in runner(tell=note).run(missing):
                state.running.pop(outcome.name, None)
                state.outcomes[outcome.name] = outcome
                tell(state)


def _check_copied(callbacks: Sequence[Any]) -> None:
    """Refuse callbacks that cannot go to another process of this machine."""
    try:
        pickle.dumps(callbacks)
    except Exception as error:  # whatever their own code raises among it
        rule = "callbacks of a campaign are copied to its workers: names, MODULE:NAME or functions of a module"
        raise QasError(f"{rule}, got {one_line(error)}") from None


def _folder(study: Study, out: str | os.PathLike[str] | None) -> Path:
    """The folder of a study: begun, or that it was begun in."""
    there = None if out is None else Path(out) / CAMPAIGN
    if there is None or not there.is_file():
        try:
            return _begun(study, out)
        except RunError:
            if there is None or not there.is_file():
                raise
        # Else another process was faster.
    known = load_campaign(there.parent)
    if dict(known.study.told) != dict(study.told):
        raise RunError(f"the folder holds the campaign of another study: {out}")
    return there.parent


def _begun(study: Study, out: str | os.PathLike[str] | None) -> Path:
    made = new_folder(out, "the campaign", stem="campaign", instead="or that of the same study", in_parts=True)
    with made as folder:
        write_json(folder / CAMPAIGN, versioned(_FORMAT, _VERSION, {"study": dict(study.told)}))
    return folder
