"""The folder of a training: what is trained, and its state as it goes, so that a killed one can go on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from qas.agents.base import Search
from qas.agents.rl.models import Saved
from qas.checks import shortened
from qas.errors import QasError, RunError
from qas.files import (
    LOCK,
    disk_errors,
    hold,
    load_checkpoint,
    parse_json,
    read_versioned,
    refuse_links,
    save_checkpoint,
    to_json,
    versioned,
    write_json,
)

FORMAT, VERSION = "qas-policy-training", 1
_CONFIG, _CHECKPOINT = "config.json", "checkpoint"
_SHARE = 0.05
"""Of the time that writing may take."""


class Kept:
    """The state of a training, as of the last point at which it was complete.

    Args:
        folder: where it is written now and then, as often as a search's; None: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._waiting: Saved | None = None
        self._written, self._took = time.perf_counter(), 0.0

    def load(self) -> Saved | None:
        """What was kept; None: nothing yet.

        Raises:
            RunError: it is damaged.
        """
        return None if self.folder is None else load_checkpoint(self.folder / _CHECKPOINT)

    def keep(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take in a state, and write it if that is due; what becomes of the arrays later does not matter.

        Raises:
            RunError: it cannot be written.
        """
        if self.folder is None:
            return
        self._waiting = dict(state), {name: np.array(array) for name, array in arrays.items()}
        if time.perf_counter() - self._written > max(Search.checkpoint_every, self._took / _SHARE):
            self.write()

    def write(self) -> None:
        """Write what was taken in last, if it is not written yet.

        Raises:
            RunError: it cannot be written.
        """
        if self.folder is not None and self._waiting is not None:
            begun = time.perf_counter()
            save_checkpoint(self.folder / _CHECKPOINT, *self._waiting)
            self._waiting, self._written = None, time.perf_counter()
            self._took = self._written - begun


@contextmanager
def kept_in(folder: Path | None, config: Mapping[str, Any]) -> Iterator[Kept]:
    """Be the only one who trains in a folder, made if missing; at the end what was taken in last is written.

    Args:
        folder: new, empty, or of the same training; None: nothing is kept.
        config: what is trained and how, JSON-able.

    Raises:
        RunError: it holds something else or another training, another process trains there, or it cannot be written.
    """
    if folder is None:
        yield Kept(None)
        return
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    with hold(folder, "the training"):
        _check_same(folder, parse_json(to_json(config)))
        kept = Kept(folder)
        try:
            yield kept
        except BaseException:
            with suppress(QasError):
                kept.write()
            raise
        kept.write()


def _check_same(folder: Path, config: dict[str, Any]) -> None:
    refuse_links(folder)
    file = folder / _CONFIG
    if not file.exists():
        if any(entry.name != LOCK for entry in folder.iterdir()):
            raise RunError(f"the folder of a new training must be new or empty: {folder}")
        write_json(file, versioned(FORMAT, VERSION, config))
        return
    before = read_versioned(file, FORMAT, VERSION, "the training")
    for name, value in config.items():
        held = before.get(name)
        if held != value:
            if isinstance(held, list) and isinstance(value, list):
                held, value = ([each for each in one if each not in two] for one, two in ((held, value), (value, held)))
            told = f"{name.replace('_', ' ')} {shortened(held)}, got {shortened(value)}"
            raise RunError(f"{folder} holds a training with {told}; give another file, or remove that folder")
