"""Folders of runs and campaigns on other stores: whatever fsspec opens, such as ``s3://bucket/run``.

Work is done in a folder of this machine, and a thread mirrors it: files that have changed go up every few seconds, and
the pointer of a checkpoint, as it was before they were read, goes last. Stores of objects take a file as a whole or not
at all; on others it is written to another name and moved. So what is there can be gone on with at any moment, even if
this process is killed; it then lacks at most the last `EVERY` seconds.

One writer at a time is what the object ``.lock`` is for. It is made only where there is none: at once on stores with
conditional writes (such as S3), by a look and a write on others, where two that begin in the same moment may both think
that they are alone. The lock of a process of this machine that has ended is taken over; who held any other must be
known to have ended, and the lock removed by hand.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qas.errors import MissingExtraError, QasError, RunError
from qas.files import LOCK, lock_of_this_process, who_holds

EVERY = 10.0
"""Seconds between uploads."""
_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}
"""Stores of objects, which take one as a whole."""
_POINTER = "CURRENT"
"""Name of the file that says which checkpoint counts (`qas.files.save_checkpoint`)."""


def is_remote(path: object) -> bool:
    """Whether a path is the address of another store; ``file://`` is this machine's."""
    return isinstance(path, str) and "://" in path and not path.startswith(("file://", "local://"))


def near(path: str | os.PathLike[str]) -> Path:
    """A folder of this machine with what is at a path; of another store a copy, which ends with this process.

    Raises:
        RunError: the store cannot be read.
    """
    if not is_remote(path):
        text = os.fspath(path)
        return Path(text.removeprefix("file://").removeprefix("local://"))
    mirror = _Mirror(str(path))
    mirror.pull()
    return mirror.folder


def address_of(path: Path) -> str:
    """Where the original of a path is, for messages."""
    for folder, (address, _) in _copies.items():
        if path.is_relative_to(folder):
            return "/".join([address, *path.relative_to(folder).parts])
    return str(path)


@contextmanager
def placed(path: str | os.PathLike[str] | None, what: str, *, fresh: bool) -> Iterator[Path | None]:
    """Where to work on a folder: itself, or for one of another store a folder that is mirrored there.

    Args:
        path: the folder; None stays None.
        what: what it holds, for messages: ``"the run"``.
        fresh: it has to be empty.

    Raises:
        RunError: another process writes it, it holds something and should not, or the store cannot be used. If the last
            upload fails, the message names the folder of this machine that has everything.
    """
    if path is None:
        yield None
        return
    if not is_remote(path):
        yield near(path)
        return
    mirror = _Mirror(str(path))
    with mirror.held(what):
        if fresh and mirror.names():
            raise RunError(f"the folder of {what} must be new or empty: {path} (to continue: --resume)")
        mirror.pull()
        over = threading.Event()
        thread = threading.Thread(target=mirror.follow, args=(over,), name="qas-mirror", daemon=True)
        thread.start()
        try:
            yield mirror.folder
        finally:
            over.set()
            thread.join()
            mirror.finish(what)


class _Mirror:
    """A folder of this machine and its twin on another store."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        try:
            self.store, root = fsspec.core.url_to_fs(address)
        except ImportError as error:
            if address.startswith(("s3://", "s3a://")):
                raise MissingExtraError("a folder on S3", "s3") from None
            raise QasError(f"the store of {address} needs another package: {error}") from None
        except Exception as error:  # of many kinds, by store
            raise QasError(f"no store for {address}: {_line(error)}") from None
        self.root = root.rstrip("/")
        self._whole = not {self.store.protocol, *self.store.protocol}.isdisjoint(_WHOLE)
        self._own = tempfile.TemporaryDirectory(prefix="qas-", ignore_cleanup_errors=True)
        self.folder = Path(self._own.name) / (self.root.rpartition("/")[2] or "folder")
        self.folder.mkdir()
        _copies[self.folder] = (address.rstrip("/"), self._own)
        self._known: dict[str, object] = {}
        """name of a file there -> what it was like here, or the text of a pointer"""

    # ------------------------------------------------------------------ the lock
    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Be the only writer there, as far as the store allows it.

        Raises:
            RunError: another process is.
        """
        place, mine = self._at(LOCK), lock_of_this_process(what)
        with _telling(self.address):
            if not self._whole:
                self.store.makedirs(self.root, exist_ok=True)
            try:
                self.store.pipe_file(place, mine.encode(), mode="create")
            except FileExistsError:
                holder = _holder(self.store.cat_file(place).decode(errors="replace"))
                if holder is not None:
                    where = f"{self.address}/{LOCK}"
                    raise RunError(f"{what} is being written by {holder}; if that has ended, remove {where}") from None
                self.store.pipe_file(place, mine.encode())
        try:
            yield
        finally:
            with suppress(Exception):  # by then everything is there
                if self.store.cat_file(place).decode() == mine:
                    self.store.rm_file(place)

    # ------------------------------------------------------------------ down
    def names(self) -> list[str]:
        """Files there, without those that begin with a dot."""
        with _telling(self.address):
            try:
                self.store.invalidate_cache()
                found = self.store.find(self.root)
            except FileNotFoundError:
                return []
        names = [name[len(self.root) :].lstrip("/") for name in found]
        return sorted(name for name in names if not name.rpartition("/")[2].startswith("."))

    def pull(self) -> None:
        """Bring everything here."""
        names = self.names()
        with _telling(self.address):
            for name in sorted(names, key=_is_pointer, reverse=True):  # first, as in `push`
                target = self.folder / name
                if not target.resolve().is_relative_to(self.folder.resolve()):
                    raise RunError(f"a name in {self.address} leads out of it: {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # an older checkpoint that has just been removed
                    target.write_bytes(self.store.cat_file(self._at(name)))
                    self._known[name] = target.read_text() if _is_pointer(name) else _look(target)

    # ------------------------------------------------------------------ up
    def follow(self, over: threading.Event) -> None:
        """Upload until told to end; what goes wrong is tried again."""
        told = False
        while not over.wait(EVERY):
            try:
                self.push()
            except (RunError, OSError) as error:
                if not told:
                    warnings.warn(f"{error}; it is tried again", stacklevel=1)
                told = True

    def finish(self, what: str) -> None:
        """The last upload."""
        try:
            self.push()
        except RunError as error:
            saved = Path(tempfile.mkdtemp(prefix="qas-kept-")) / self.folder.name
            shutil.copytree(self.folder, saved)
            raise RunError(f"{error}; {what} is in {saved}") from None

    def push(self) -> None:
        """Upload what has changed; pointers of checkpoints last, as they were before everything else was read.

        The checkpoint that a pointer there names stays there until the pointer names another.
        """
        pointers, names = self._pointers(), self._files()
        # One that has moved on while the files were listed names a checkpoint of which some may not be among them.
        pointers = {name: text for name, text in self._pointers().items() if pointers.get(name) == text}
        lost = set()
        for name, path in names.items():
            if _is_pointer(name):
                continue
            try:
                looks = _look(path)
                if self._known.get(name) != looks:
                    self._put(name, path.read_bytes())
                    self._known[name] = looks
            except FileNotFoundError:
                lost.add(name.rpartition("/")[0])
        for name, text in pointers.items():
            if _named(name, text) not in lost and self._known.get(name) != text:
                self._put(name, text.encode())
                self._known[name] = text
        named = {_named(name, str(text)) for name, text in self._known.items() if _is_pointer(name)}
        for name in [name for name in self._known if name not in names and name.rpartition("/")[0] not in named]:
            with _telling(self.address), suppress(FileNotFoundError):
                self.store.rm_file(self._at(name))
            del self._known[name]

    def _files(self) -> dict[str, Path]:
        """Name there -> file here. Folders may go while they are walked through, which `os.walk` lets pass."""
        paths = (Path(at, name) for at, _, names in os.walk(self.folder) for name in names if name[0] != ".")
        return {path.relative_to(self.folder).as_posix(): path for path in sorted(paths)}

    def _pointers(self) -> dict[str, str]:
        return {name: path.read_text() for name, path in self._files().items() if _is_pointer(name)}

    def _put(self, name: str, data: bytes) -> None:
        place = self._at(name)
        with _telling(self.address):
            if self._whole:
                self.store.pipe_file(place, data)
                return
            folder, _, last = place.rpartition("/")
            self.store.makedirs(folder, exist_ok=True)
            self.store.pipe_file(f"{folder}/.{last}.part", data)
            self.store.mv(f"{folder}/.{last}.part", place)

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"


_copies: dict[Path, tuple[str, Any]] = {}
"""Folders of this process -> of what they are copies; they are removed when it ends."""


def _holder(told: str) -> str | None:
    try:
        return who_holds(told)
    except ValueError:
        return "another process"


def _is_pointer(name: str) -> bool:
    return name.rpartition("/")[2] == _POINTER


def _named(pointer: str, text: str) -> str:
    """The folder that a pointer with this text names."""
    return f"{pointer.rpartition('/')[0]}/{text.strip()}"


def _look(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _telling(address: str) -> Iterator[None]:
    """Turn whatever a store raises into one clear line."""
    try:
        yield
    except QasError:
        raise
    except Exception as error:  # of many kinds, by store
        raise RunError(f"the store of {address} does not do as asked: {_line(error)}") from None
