"""Files: written as a whole or not at all, by one process at a time, with a header that says what they are."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from qas.checks import MOST, one_line, shortened
from qas.errors import QasError, RunError

LOCK = ".lock"
"""File in a folder that a process is writing: who it is."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")
"""What `write_atomic` writes to; a process that is killed leaves it."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, no permission, …) into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(f"no space left on the disk for {path}; files written before are intact") from None
        if error.errno == errno.ELOOP:
            raise RunError(f"{path} is a link, and only files of the folder itself are written") from None
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


# ---------------------------------------------------------------------- writing
def write_atomic(path: Path, write: Callable[[IO[bytes]], Any] | str | bytes) -> None:
    """Write to a temporary file beside `path`, then rename: `path` holds the old content or the new, nothing else.

    A link of that name is replaced, and what it pointed to stays as it was. Who may read the file is up to the umask.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        name = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
        try:
            with open(name, "xb") as stream:
                if callable(write):
                    write(stream)
                else:
                    stream.write(write.encode() if isinstance(write, str) else write)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


def open_to_append(path: Path, size: int | None = None) -> IO[str]:
    """Open a text file of our own for appending, made if missing.

    Args:
        path: a link is refused; a file that has further names elsewhere is copied first.
        size: bytes that stay; None: all.

    Raises:
        RunError: a link, no plain file, shorter than `size`, or not to be written.
    """
    with disk_errors(path):
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK), "rb") as stream:
                told = os.fstat(stream.fileno())
                whole = told.st_size if size is None else size
                if told.st_size < whole:
                    raise RunError(f"the file is shorter ({told.st_size} bytes) than it was ({whole}): {path}")
                if told.st_nlink > 1 or told.st_size > whole:
                    write_atomic(path, stream.read(whole))
        except FileNotFoundError:
            if size:
                raise RunError(f"the file is missing: {path}") from None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK
        return open(os.open(path, flags, 0o666), "a", buffering=1 << 16)


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes were writing, here and in folders below; those with a lock are left to its holder.

    For the only writer of the folder.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False) and not is_locked(Path(entry)):
                remove_temporary(Path(entry))
            elif _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.unlink(entry)


def refuse_links(folder: Path) -> None:
    """Refuse a folder of ours in which a name points elsewhere: what is written there would land outside.

    Raises:
        RunError: a link lies in it.
    """
    with disk_errors(folder), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise RunError(f"{entry.path} is a link, and only files of the folder itself are written")


# ---------------------------------------------------------------------- one writer at a time
class Held:
    """A folder that this process alone writes until `release`.

    As a context manager it gives the folder's path; an exception also removes the folder if it was made for this and
    is still empty.
    """

    def __init__(self, path: Path, mine: str | None, made: list[Path]) -> None:
        self.path = path
        self._mine, self._made, self._pid = mine, made, os.getpid()

    def release(self) -> None:
        """Let others write; nothing if that was done before."""
        if self._mine is not None and self._pid == os.getpid():
            _reserved.pop(self.path.resolve(), None)
            _give_back(self.path / LOCK, self._mine)
        self._mine = None

    def discard(self) -> None:
        """Release, and remove what was made for it as far as that is empty."""
        self.release()
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: Any, *_: object) -> None:
        self.release() if kind is None else self.discard()


_reserved: dict[Path, int] = {}
"""New folders held by this process -> the thread that made them."""


def hold(folder: str | os.PathLike[str], what: str, *, wait: float = 0.0) -> Held:
    """Become the only writer of an existing folder. Readers need nothing of the kind.

    The lock is a file that names process and host, made exclusively, so that it works on shared disks too. That of a
    process of this machine that has ended is taken over, and its temporary files are removed.

    Args:
        folder: where.
        what: what is written, for messages: ``"the run"``.
        wait: seconds to wait for another writer.

    Raises:
        RunError: another process writes it, or the folder cannot be written.
    """
    return _held(Path(folder), what, wait)[0]


def is_locked(folder: Path) -> bool:
    """Whether a folder has a writer, or had one that was killed."""
    return os.path.lexists(folder / LOCK)


def _held(path: Path, what: str, wait: float = 0.0) -> tuple[Held, str | None]:
    """As `hold`, and what the lock said that was taken over, if there was one."""
    with disk_errors(path):
        mine, dead = _take(path / LOCK, what, wait)
    if dead is not None:
        remove_temporary(path)
    return Held(path, mine, []), dead


def new_folder(
    path: str | os.PathLike[str] | None, what: str, *, stem: str = "", instead: str = "", in_parts: bool = False
) -> Held:
    """Reserve a folder for something new: it is made, or an empty one is taken, and held.

    Inside ``with new_folder(…)`` the same thread may reserve the folder again as long as it is empty, so that a caller
    can reserve it before long work and a saving function at the end. What a killed process has left of the same thing
    is removed, so that the same command works again.

    Args:
        path: the folder; None: ``results/<stem>-<time>``, with a number behind it if that is taken.
        what: what it is to hold, for messages: ``"the run"``.
        stem: how the name begins where `path` is None.
        instead: what else to do if the folder is taken, for the message.
        in_parts: what is there of it is worth something before all of it is, and is never removed.

    Raises:
        RunError: it holds files, is none, is being written by another process, or cannot be written.
    """
    named = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    tries = range(1, 1000) if path is None else (1,)
    for number in tries:
        own = Path("results") / (named if number == 1 else f"{named}-{number}")
        folder = own if path is None else Path(path)
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        with disk_errors(folder):
            if folder.exists() and path is None:
                continue
            mine = _reserved.get(folder.resolve()) == threading.get_ident()
            if in_parts or mine or not is_locked(folder):
                _refuse_taken(folder, what, instead, told=not mine)
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                if path is None:
                    continue  # another process was faster
        place = folder.resolve()
        if mine:
            return Held(folder, None, [])
        held, dead = _held(folder, what)
        held._made = made
        try:
            if dead is not None and not in_parts and _purpose(dead) == what:
                _clear(folder)
            _refuse_taken(folder, what, instead)
        except BaseException:
            held.discard()
            raise
        _reserved[place] = threading.get_ident()
        return held
    raise RunError(f"no free folder name for results/{stem}")


def _refuse_taken(folder: Path, what: str, instead: str, *, told: bool = False) -> None:
    """Refuse a folder with something in it; `told`: where somebody writes it, by saying who."""

    def counts(name: str) -> bool:
        return not name.startswith(LOCK) and not _TEMPORARY.fullmatch(name)

    if folder.exists() and (not folder.is_dir() or any(map(counts, os.listdir(folder)))):
        holder = _living(folder / LOCK) if told else None
        if holder is not None:
            raise RunError(_held_by(what, holder, folder / LOCK))
        raise RunError(f"the folder of {what} must be new or empty: {folder}{instead and f' ({instead})'}")


def _clear(folder: Path) -> None:
    with disk_errors(folder), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry)
            elif not entry.name.startswith(LOCK):
                os.unlink(entry)


def _take(lock: Path, what: str, wait: float) -> tuple[str, str | None]:
    """Make the lock file; returns its content, and that of the dead one in whose place it is."""
    mine = lock_of_this_process(what)
    end, pause = time.monotonic() + wait, 0.005
    while not _make(lock, mine):
        told = _content(lock)
        if told is None:
            continue  # given back just now
        holder = _holder(lock, told)
        if holder is None:
            # One process at a time replaces a dead lock, and only if it is that one still.
            second = lock.with_name(f"{lock.name}.taking")
            taking, _ = _take(second, what, max(wait, 5.0))
            try:
                if _content(lock) == told:
                    write_atomic(lock, mine)
                    return mine, told
            finally:
                _give_back(second, taking)
        elif time.monotonic() >= end:
            raise RunError(_held_by(what, holder, lock))
        else:
            time.sleep(pause)
            pause = min(1.2 * pause, 0.25)
    return mine, None


def _held_by(what: str, holder: str, lock: Path) -> str:
    return f"{what} is being written by {holder}; if that has ended, remove {lock}"


def _living(lock: Path) -> str | None:
    """Who holds a lock, in words; None if there is none, or it says nothing of anybody who lives."""
    with contextlib.suppress(ValueError):
        return who_holds(_content(lock) or "")
    return None


def _make(lock: Path, mine: str) -> bool:
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with open(handle, "w") as stream:
            stream.write(mine)
    except BaseException:
        lock.unlink(missing_ok=True)
        raise
    # Not so where this process was halted in between, and another one took the empty file for a dead one's.
    return _content(lock) == mine


def _give_back(lock: Path, mine: str) -> None:
    with contextlib.suppress(OSError):
        if _content(lock) == mine:
            lock.unlink()


def _content(lock: Path) -> str | None:
    """What a lock file says, empty if that cannot be read; None if there is none."""
    try:
        with open(os.open(lock, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK), errors="replace") as stream:
            return stream.read(2000)
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def lock_of_this_process(what: str) -> str:
    """What a lock says that this process holds for something, such as ``"the run"``; no two are the same."""
    return json.dumps(_myself() | {"what": what, "token": uuid.uuid4().hex})


def _purpose(told: str) -> str | None:
    """What a lock was held for; None if it does not say."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(parse_json(told)["what"])
    return None


def _myself() -> dict[str, Any]:
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return {"pid": os.getpid(), "host": socket.gethostname(), "pids": space, "born": _born(os.getpid())}


def _holder(lock: Path, told: str) -> str | None:
    """Who holds a lock, in words; None if it is nobody who lives."""
    try:
        return who_holds(told)
    except ValueError:
        time.sleep(1.0)  # it may be in the middle of being written
        return None if _content(lock) == told else "a process that has just begun"


def who_holds(told: str) -> str | None:
    """Who holds a lock that says this, in words; None if it is nobody who lives.

    A process of another host is taken to live.

    Raises:
        ValueError: it is no lock.
    """
    try:
        data = parse_json(told)
        pid, host, space, born = (data[name] for name in ("pid", "host", "pids", "born"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no lock: {error}") from None
    if not (isinstance(pid, int) and pid > 0):
        raise ValueError("no lock: a process is a positive number")
    here = _myself()
    if (host, space) == (here["host"], here["pids"]):
        now = _born(pid)
        if now is None or (now and born and now != born):
            return None
    return f"process {pid} on {one_line(host)}"


def _born(pid: int) -> str | None:
    """When a process of this machine began, by the kernel's count, so that one that got a used number is told apart.

    Empty where that cannot be known; None if there is no such process.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except (OSError, ValueError, IndexError):
        pass
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except OSError:  # a process of another user
            pass
    return ""


# ---------------------------------------------------------------------- JSON
def to_json(data: Any, *, indent: int | None = None) -> str:
    """JSON text; NumPy scalars are written as numbers, and a number that is not finite as null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): clean(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(v) for v in value]
        if isinstance(value, np.ndarray):
            return clean(value.tolist())
        if isinstance(value, np.generic):
            return clean(value.item())
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(clean(data), indent=indent, allow_nan=False)


def write_json(path: Path, data: Any, *, indent: int | None = 1) -> None:
    """Write a JSON file as `write_atomic` does."""
    write_atomic(path, to_json(data, indent=indent) + "\n")


MAX_JSON_BYTES = 2**28
MAX_JSON_DEPTH = 64
MAX_DIGITS = 64
"""Of a whole number in JSON; the state of a generator has 39."""


def array_to_text(array: np.ndarray, dtype: str) -> str:
    """Base64 of the bytes of an array, row by row, such as JSON can hold."""
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def array_from_text(text: str, dtype: str, shape: Sequence[int], what: str) -> np.ndarray:
    """What `array_to_text` wrote.

    Args:
        what: for the message.

    Raises:
        QasError: other letters, or another number of bytes than the shape has.
    """
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).reshape(shape)
    except ValueError as error:
        raise QasError(f"{what} is damaged: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """JSON as the standard has it, within bounds that hold for whatever reads it on.

    Numbers are finite (NaN and Infinity, which Python's reader takes, are none), whole ones have at most `MAX_DIGITS`
    digits, arrays and objects are at most `MAX_JSON_DEPTH` deep, and strings can be written again.

    Raises:
        ValueError: malformed, or beyond a bound.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"JSON has at most {MAX_JSON_BYTES} bytes, got {len(text)}")
    text = text.decode() if isinstance(text, bytes) else text
    # Strings hold brackets too, but are only taken out where that matters.
    if _depth(text) > MAX_JSON_DEPTH and _depth(re.sub(r'"(?:[^"\\]|\\.)*"', "", text)) > MAX_JSON_DEPTH:
        raise ValueError(f"arrays and objects are nested at most {MAX_JSON_DEPTH} deep")
    data = _DECODER.decode(text)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(data, ensure_ascii=False).encode()  # half of a pair of code units is no text
    return data


def _depth(text: str) -> int:
    codes = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8)
    steps: np.ndarray = np.zeros(256, dtype=np.int8)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    marks = codes[(codes == 91) | (codes == 93) | (codes == 123) | (codes == 125)]
    return int(np.cumsum(steps[marks], dtype=np.int64).max(initial=0))


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"a whole number has at most {MAX_DIGITS} digits, got {one_line(text)}")
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{one_line(text)} is no finite number")
    return number


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_real)


def read_json(path: Path, what: str, error: type[QasError] = RunError) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises:
        RunError: missing, unreadable, cut short, or beyond a bound.
    """
    data = read_bytes(path, what, most=MAX_JSON_BYTES, error=error)
    try:
        return parse_json(data)
    except ValueError as told:
        raise error(f"{what} is damaged or cut short: {path}: {one_line(told)}") from None


def read_json_lines(path: Path, what: str, error: type[QasError] = RunError) -> list[Any]:
    """Read a file with JSON on each line that is not empty, as `read_json`."""
    text = read_text(path, what, most=MAX_JSON_BYTES, error=error)
    try:
        return [parse_json(line) for line in text.split("\n") if line.strip()]
    except ValueError as told:
        raise error(f"{what} is damaged or cut short: {path}: {one_line(told)}") from None


# ---------------------------------------------------------------------- headers and hashes
def versioned(format: str, version: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the header that says what it is."""
    return {"format": format, "version": version, **data}


def check_versioned(
    data: Any,
    format: str | None,
    version: int,
    what: str,
    *,
    where: object = "",
    error: type[QasError] = QasError,
) -> dict[str, Any]:
    """`data`, if its header is that of `versioned` with this format, and no newer version.

    Args:
        data: what was read.
        format: the format's name; None: the header has a version only.
        version: newest version that can be read.
        what: what it is, for messages: ``"the pool"``.
        where: its file, for messages.
        error: class of the exception.

    Raises:
        QasError: another format, a newer version, or none.
    """
    at = f": {where}" if str(where) else ""
    if not isinstance(data, Mapping) or (format is not None and data.get("format") != format):
        kind = "a JSON object" if format is None else f"a JSON object of format {format!r}"
        raise error(f"{what} is {kind}, got {shortened(data)}{at}")
    told = data.get("version")
    if not isinstance(told, int) or isinstance(told, bool) or told < 1:
        raise error(f"the version of {what} is a whole number from 1 to {version}, got {shortened(told)}{at}")
    if told > version:
        raise error(
            f"{what} was written by a newer version of this program (format version {told}, this one reads up to "
            f"{version}){at}"
        )
    return dict(data)


def read_versioned(
    path: Path, format: str | None, version: int, what: str, *, error: type[QasError] = RunError
) -> dict[str, Any]:
    """Read a JSON file and check its header; see `check_versioned`.

    Raises:
        RunError: missing, unreadable, cut short, another format, or a newer version.
    """
    return check_versioned(read_json(path, what, error), format, version, what, where=path, error=error)


def sha256(data: bytes) -> str:
    """Hash of a file's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


MAX_FILE_BYTES = 2**32


def read_bytes(
    path: Path, what: str, digest: object = None, *, most: int = MAX_FILE_BYTES, error: type[QasError] = RunError
) -> bytes:
    """Read a regular file, and compare its hash with the one that was noted when it was written.

    Args:
        path: where; links are followed.
        what: what it is, for messages.
        digest: the hash, or None.
        most: bytes that it may have.
        error: class of the exception.

    Raises:
        RunError: missing, unreadable, larger, no regular file (a pipe or a device may never end), or changed since.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            told = os.fstat(stream.fileno())
            if not stat.S_ISREG(told.st_mode):
                raise error(f"{what} is no regular file: {path}")
            if told.st_size > most:
                raise error(f"{what} has at most {most} bytes, got {told.st_size}: {path}")
            data = stream.read(most)
    except FileNotFoundError:
        raise error(f"{what} is missing: {path}") from None
    except OSError as told:
        raise error(f"{what} cannot be read: {path}: {told.strerror or told}") from None
    except ValueError as told:
        if isinstance(told, QasError):
            raise
        raise error(f"{what} cannot be read: {one_line(repr(os.fspath(path)))}: {told}") from None
    if digest is not None and sha256(data) != digest:
        raise error(
            f"{what} is cut short or was changed (sha256 {sha256(data)[:12]}…, noted {one_line(digest)[:12]}…): {path}"
        )
    return data


def read_text(path: Path, what: str, *, most: int = MAX_FILE_BYTES, error: type[QasError] = RunError) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; see `read_bytes`.

    Raises:
        RunError: as `read_bytes`, or no text.
    """
    try:
        return read_bytes(path, what, most=most, error=error).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise error(f"{what} is no text in UTF-8: {path}") from None


def read_tensors(
    path: Path, what: str, digest: object = None, *, error: type[QasError] = RunError
) -> dict[str, np.ndarray]:
    """Read a safetensors file of finite numbers; see `read_bytes`.

    Raises:
        RunError: missing, unreadable, changed since, damaged, or with numbers that are not finite.
    """
    from safetensors.numpy import load

    data = read_bytes(path, what, digest, error=error)
    try:
        tensors = load(data)
    except Exception as told:  # safetensors raises a class of its own
        raise error(f"{what} is damaged or cut short: {path}: {one_line(told)}") from None
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not (np.abs(array) <= min(MOST, float(np.finfo(array.dtype).max))).all():
            rule = f"{what} holds finite numbers up to {MOST:g}"
            raise error(f"{rule}, got NaN, infinity or a larger one in {one_line(name)}: {path}")
    return tensors


def read_array(path: Path, what: str, *, error: type[QasError] = RunError) -> np.ndarray:
    """Read a .npy file, which holds no objects; see `read_bytes`.

    Raises:
        RunError: missing, unreadable, or damaged.
    """
    data = read_bytes(path, what, error=error)
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as told:  # NumPy raises whatever a damaged header makes it
        raise error(f"{what} is damaged or cut short: {path}: {one_line(told)}") from None
    if not isinstance(found, np.ndarray):
        raise error(f"{what} holds one array, got an archive: {path}")
    return found


# ---------------------------------------------------------------------- checkpoints
_STATE, _ARRAYS, _DIGEST = "state.json", "arrays.safetensors", "arrays_sha256"


def save_checkpoint(folder: Path, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Replace the checkpoint in `folder` as a whole: a new subfolder is written, then the pointer file is renamed.

    Raises:
        RunError: `folder` is a link or cannot be written.
    """
    pointer = folder / "CURRENT"
    with disk_errors(folder):
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "a link")
        folder.mkdir(exist_ok=True)
        old = (_content(pointer) or "").strip()
        number = int(old) + 1 if old.isdecimal() else 0
        while not _cleared(folder / str(number)):
            number += 1
        target = folder / str(number)
        target.mkdir()
    try:
        tensors = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        if tensors:
            from safetensors.numpy import save

            content = save(tensors)
            write_atomic(target / _ARRAYS, content)
            state = state | {_DIGEST: sha256(content)}
        write_atomic(target / _STATE, to_json(state))
        write_atomic(pointer, target.name)
    except BaseException:
        _cleared(target)
        raise
    for stale in folder.iterdir():
        if stale.name.isdecimal() and stale.name != target.name:
            _cleared(stale)


def _cleared(target: Path) -> bool:
    """Remove an old checkpoint and nothing else; whether nothing is left of that name."""
    with contextlib.suppress(OSError):
        if not target.is_symlink():
            for entry in target.iterdir():
                if entry.name in (_STATE, _ARRAYS) or entry.name.startswith((f".{_STATE}.", f".{_ARRAYS}.")):
                    entry.unlink()
            target.rmdir()
    return not os.path.lexists(target)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The checkpoint in `folder`, or None if there is none yet.

    Raises:
        RunError: it is damaged.
    """
    pointer = folder / "CURRENT"
    if not pointer.exists():
        return None
    name = read_text(pointer, "the checkpoint pointer").strip()
    if not (name.isdecimal() and len(name) < 20):
        raise RunError(f"the checkpoint pointer is damaged: {pointer}")
    path = folder / name
    state = read_json(path / _STATE, "the checkpoint")
    digest = state.pop(_DIGEST, None) if isinstance(state, dict) else None
    there = digest is not None or (path / _ARRAYS).exists()
    return state, read_tensors(path / _ARRAYS, "the checkpoint", digest) if there else {}


def part_of(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arrays of one part of what was saved, those called ``NAME.…``, by what is behind the point."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
