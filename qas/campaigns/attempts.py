"""Attempts: how a search that may be tried on several machines never has two writers.

Nobody can know that a process of a machine that does not answer has ended: it may only be cut off, and go on writing as
soon as it is heard again. No lock and no lease helps against that, since it may be halted between looking at its lease
and writing. Here every attempt has a folder of its own, ``attempts/NAME/TOKEN``, which no other process writes, so that
a late one spoils nothing:

* an attempt begins with a copy of what was furthest, the checkpoint first, so that all other files are as new;
* the process that holds the campaign, and it alone, moves the folder of an attempt that has ended to ``runs/NAME``;
  which of several that is, Ray decides, which hands back one result for each search.

What this rests on: the holder of the campaign is one process (`qas.files.hold`), and a file that was replaced by a
rename is read as the old one or the new. Neither clocks nor heartbeats matter.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from qas.errors import QasError, RunError
from qas.files import disk_errors, load_checkpoint, write_atomic
from qas.runs import RUNS, read_summary

ATTEMPTS = "attempts"
"""Folder of a campaign with the attempts at searches that have not ended."""

_LATER = ("summary.json", "report.html")
"""Files that may be newer than the checkpoint, unless the search has ended: one that goes on writes them anew."""
_TRIES = 10
"""Copies that may fail because the source is being written."""


def new_attempt(folder: Path, name: str) -> Path:
    """The folder of a new attempt at a search, with what the furthest one so far has left, if there is one.

    Raises:
        RunError: the campaign's folder cannot be written.
    """
    own = folder / ATTEMPTS / name / uuid.uuid4().hex
    with disk_errors(own):
        own.parent.mkdir(parents=True, exist_ok=True)
        source = _furthest([folder / RUNS / name, *_attempts(folder, name)])
        if source is not None:
            copy_run(source, own)
    return own


def place(folder: Path, name: str, token: str) -> None:
    """Make an attempt that has ended the run of its search; the others are removed. For the holder of the campaign.

    Raises:
        RunError: the campaign's folder cannot be written.
    """
    home, run = folder / ATTEMPTS / name, folder / RUNS / name
    with disk_errors(run):
        run.parent.mkdir(exist_ok=True)
        if run.exists():
            os.rename(run, home / uuid.uuid4().hex)
        os.rename(home / token, run)
    _remove(home)


def adopt(folder: Path, name: str) -> None:
    """Make a copy of the furthest attempt at a search its run, if there is one. For the holder of the campaign.

    Raises:
        RunError: the campaign's folder cannot be written.
    """
    if not _attempts(folder, name):
        return
    finished = read_summary(folder / RUNS / name)["status"] == "finished"
    own = None if finished else new_attempt(folder, name)
    if own is not None and own.exists():
        place(folder, name, own.name)
    else:
        _remove(folder / ATTEMPTS / name)


def adopt_all(folder: Path) -> None:
    """`adopt` for whatever a campaign that was cut short has left."""
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder / ATTEMPTS)):
            adopt(folder, name)


def copy_run(source: Path, target: Path) -> None:
    """Copy a run folder, which another process may be writing, as of its last checkpoint.

    The checkpoint comes first and what it speaks of afterwards: files of a run only grow, or are replaced as a whole.

    Raises:
        RunError: the source changes too often.
    """
    for _ in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            ended = read_summary(source)["status"] == "finished"
            left_out = ("checkpoint", "report.html") if ended else ("checkpoint", *_LATER)
            _copy_checkpoint(source / "checkpoint", target / "checkpoint")
            # The configuration last: it makes a folder one that can be gone on with.
            for entry in sorted(source.iterdir(), key=lambda entry: entry.name == "config.json"):
                if entry.name.startswith(".") or entry.is_symlink() or entry.name in left_out:
                    continue
                if entry.is_dir():
                    shutil.copytree(entry, target / entry.name)
                else:
                    write_atomic(target / entry.name, entry.read_bytes())
            return
        except (FileNotFoundError, shutil.Error):
            continue
    raise RunError(f"the run changes while it is copied: {source}")


def _copy_checkpoint(source: Path, target: Path) -> None:
    pointer = source / "CURRENT"
    if pointer.exists():
        name = pointer.read_text().strip()
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(".*"))
        write_atomic(target / "CURRENT", name)


def _remove(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)  # a process believed to be dead may still write in there
    with suppress(OSError):
        home.parent.rmdir()


def _attempts(folder: Path, name: str) -> list[Path]:
    with suppress(OSError):
        return sorted((folder / ATTEMPTS / name).iterdir())
    return []


def _furthest(folders: list[Path]) -> Path | None:
    """The folder where the search has ended, or whose checkpoint has used most; None if it has begun in none."""

    def used(folder: Path) -> tuple[bool, int, float]:
        try:
            ended = read_summary(folder)["status"] == "finished"
            found = load_checkpoint(folder / "checkpoint")
            return (ended, *((0, 0.0) if found is None else (int(found[0]["evaluations"]), float(found[0]["seconds"]))))
        except (QasError, OSError, LookupError, TypeError, ValueError):  # damaged, or replaced meanwhile
            return (False, 0, 0.0)

    begun = [folder for folder in folders if (folder / "config.json").exists()]
    return max(begun, key=used, default=None)
