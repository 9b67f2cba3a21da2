"""Callbacks: what is told of a search while it runs, to TensorBoard, Weights & Biases or code of your own.

As in Optuna a callback may be any function, of one `Snapshot`; as in Stable-Baselines3 it may be an object with a
beginning and an end, and ends the search in order when it returns False. One that raises ends the search in order too:
everything is kept, and the error names it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qas.checks import shortened
from qas.errors import MissingExtraError, QasError
from qas.registry import Registry

if TYPE_CHECKING:
    from qas.record import Progress
    from qas.runs import Front, Run


@dataclass(frozen=True)
class Snapshot:
    """A search at one moment.

    Attributes:
        progress: evaluations, seconds, best error and the like.
        front: the circuits that no other beats, so far; to be read only.
        scalars: further numbers that the agent tells, by name.
        folder: of the run.
    """

    progress: Progress
    front: Front
    scalars: Mapping[str, float]
    folder: Path

    def numbers(self) -> dict[str, float]:
        """What there is to plot against evaluations: name -> finite number."""
        p = self.progress
        named = {
            "error": p.best_error, "gates": p.best_gates, "two-qubit gates": p.best_two_qubit_gates,
            "front": p.front_size, "seconds": p.seconds, "architectures": p.architectures, **self.scalars,
        }  # fmt: skip
        return {name: float(value) for name, value in named.items() if math.isfinite(value)}


class Callback:
    """Is told of one search. All methods may be left as they are."""

    def on_start(self, folder: Path, config: Mapping[str, Any]) -> None:
        """A search begins or goes on: its folder, and its settings as in ``config.json``."""

    def __call__(self, snapshot: Snapshot) -> bool | None:
        """Something has happened; called a few times each second. False ends the search in order."""
        return None

    def on_end(self, run: Run) -> None:
        """The search has ended, and everything is written."""


class _Plain(Callback):
    """A function as a callback."""

    def __init__(self, function: Callable[[Snapshot], bool | None]) -> None:
        self.function = function

    def __call__(self, snapshot: Snapshot) -> bool | None:
        return self.function(snapshot)


class TensorBoard(Callback):
    """Writes the numbers of a search for TensorBoard into ``tensorboard`` of its run folder, against evaluations."""

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingExtraError("the callback tensorboard", "tensorboard")
        self._writer: Any = None
        self._folder = Path()

    def on_start(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder

    def __call__(self, snapshot: Snapshot) -> None:
        at = snapshot.progress.evaluations
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a killed run has told beyond its checkpoint is told again.
            self._writer = SummaryWriter(str(self._folder / "tensorboard"), purge_step=at)
        for name, value in snapshot.numbers().items():
            self._writer.add_scalar(f"search/{name}", value, at)

    def on_end(self, run: Run) -> None:
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases(Callback):
    """Logs the numbers of a search to Weights & Biases, against evaluations.

    It writes into the run folder and sends nothing (``wandb sync`` does), unless the environment variable
    ``WANDB_MODE`` says otherwise; project, entity and the like are read from the environment too.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise MissingExtraError("the callback wandb", "wandb")
        self._run: Any = None

    def on_start(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(dir=str(folder), name=folder.name, config=dict(config), mode=mode)

    def __call__(self, snapshot: Snapshot) -> None:
        self._run.log(snapshot.numbers(), step=snapshot.progress.evaluations)

    def on_end(self, run: Run) -> None:
        self._run.finish()


CALLBACKS = Registry(
    "callbacks",
    "callback",
    {"tensorboard": "qas.callbacks:TensorBoard", "wandb": "qas.callbacks:WeightsAndBiases"},
)


def make_callback(given: Any) -> Callback:
    """A callback from a name of `CALLBACKS`, ``"MODULE:NAME"``, a class, an instance or a function of a `Snapshot`.

    Raises:
        UnknownNameError: no such name.
        QasError: it cannot be imported, or is none.
        MissingExtraError: it needs a package that is not here.
    """
    thing = given
    if isinstance(given, str):
        thing = _imported(given) if ":" in given else CALLBACKS[given]
    if inspect.isclass(thing):
        try:
            thing = thing()
        except TypeError as error:
            raise QasError(
                f"a class of callbacks can be made without arguments, got {shortened(given)}: {error}"
            ) from None
    if isinstance(thing, Callback):
        return thing
    if callable(thing):
        return _Plain(thing)
    raise QasError(f"a callback is a name, MODULE:NAME or a function of a snapshot, got {shortened(given)}")


def _imported(given: str) -> Any:
    module, _, name = given.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QasError(f"the callback {given!r} cannot be imported: {error}") from None
    finally:
        if added:
            sys.path.remove(here)


class Watch:
    """The callbacks of one search, and what became of them.

    Args:
        callbacks: as `make_callback` takes them.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
            raise QasError(f"callbacks are a list, got {shortened(callbacks)}")
        self._callbacks = [(_named(given), make_callback(given)) for given in callbacks]
        self._failed = ""
        self._stop: Callable[[], None] = lambda: None

    def start(self, folder: Path, config: Mapping[str, Any], stop: Callable[[], None]) -> None:
        """The search begins; `stop` asks it to end in order.

        Raises:
            QasError: a callback failed.
        """
        self._stop = stop
        self._each(lambda callback: callback.on_start(folder, config))
        self._raise(folder)

    def __call__(self, snapshot: Snapshot) -> None:
        """Tell all of a moment."""
        self._each(lambda callback: callback(snapshot))

    def end(self, run: Run) -> None:
        """The search has ended.

        Raises:
            QasError: a callback failed, now or before.
        """
        self._each(lambda callback: callback.on_end(run))
        self._raise(run.path)

    def _each(self, call: Callable[[Callback], bool | None]) -> None:
        for name, callback in self._callbacks:
            try:
                if call(callback) is False:
                    self._stop()
            except Exception as error:
                told = " ".join(str(error).split())
                self._failed = self._failed or f"{name} failed: {type(error).__name__}: {told}"
                self._stop()

    def _raise(self, folder: Path) -> None:
        if self._failed:
            raise QasError(f"the callback {self._failed}; the run is kept in {folder}")


def _named(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
