"""One search of a campaign, wherever it runs: begun, gone on with, or found finished."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from qas.agents.launch import resume, search
from qas.campaigns.attempts import ATTEMPTS
from qas.campaigns.study import Task
from qas.errors import QasError, RunError
from qas.files import disk_errors, write_atomic
from qas.record import Progress
from qas.runs import FAILED, RUNS, is_complete


class Outcome(NamedTuple):
    """How a search ended."""

    name: str
    status: str
    """"finished", "interrupted" or "failed\""""
    told: str = ""
    """why it failed, one line"""
    text: str = ""
    """the same at length"""
    token: str = ""
    """of the attempt, where searches are tried in folders of their own"""


def status_of(folder: Path, name: str, *, report: bool = False) -> str:
    """What the files of a campaign say of a search: "finished", "failed", "begun" or "waiting".

    Args:
        folder: of the campaign.
        name: of the search.
        report: one that lacks its own report is not finished.
    """
    run = folder / RUNS / name
    begun = (run / "config.json").exists()
    with suppress(RunError):  # a damaged one is begun: going on with it tells what is wrong
        if is_complete(run, report):
            return "finished"
    if _note(folder, name).exists():
        return "failed"
    return "begun" if begun or (folder / ATTEMPTS / name).exists() else "waiting"


def perform(
    task: Task,
    folder: Path,
    *,
    report: bool = False,
    callbacks: Sequence[Any] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Do one search of a campaign, from where it stands.

    A search that fails is begun or gone on with by the next call.

    Args:
        task: which.
        folder: of the campaign; its run folder is made in ``runs``.
        report: write the run's own ``report.html``.
        callbacks: as of `qas.search`.
        on_progress: called a few times each second.

    Returns:
        How it ended; a campaign goes on whatever goes wrong in one of its searches.
    """
    return attempt(task, folder / RUNS / task.name, report=report, callbacks=callbacks, on_progress=on_progress)


def attempt(task: Task, run: Path, *, report: bool = False, **how: Any) -> Outcome:
    """Do one search in a folder of its own, from where that stands; nothing else is written."""
    try:
        if (run / "config.json").exists():
            if is_complete(run, report):
                return Outcome(task.name, "finished")
            found = resume(run, report=report, **how)
        else:
            settings: dict[str, Any] = dict(task.settings)
            found = search(settings.pop("problem"), out=run, report=report, **how, **settings)
    except QasError as error:
        return Outcome(task.name, "failed", str(error), str(error))
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(task.name, "failed", told, traceback.format_exc())
    return Outcome(task.name, found.status)


def settle(folder: Path, outcome: Outcome) -> None:
    """Note in the campaign's folder why a search failed; nothing stays of one that did not. For its holder.

    Raises:
        RunError: the folder cannot be written, which may be why the search failed.
    """
    note = _note(folder, outcome.name)
    with disk_errors(note):
        if outcome.status == "failed":
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(note, (outcome.text or outcome.told).rstrip() + "\n")
            return
        with suppress(FileNotFoundError):
            os.unlink(note)


def _note(folder: Path, name: str) -> Path:
    return folder / FAILED / f"{name}.txt"
