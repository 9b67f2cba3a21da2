"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from qas.errors import RunError


@contextmanager
def disk_errors(path: Path) -> Any:
    """Turn the operating system's refusals (full disk, no permission, …) into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(f"no space left on the disk for {path}; files written before are intact") from None
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any] | str | bytes) -> None:
    """Write to a temporary file beside `path`, then rename: `path` holds the old content or the new, nothing else.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with disk_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                if callable(write):
                    write(stream)
                else:
                    stream.write(write.encode() if isinstance(write, str) else write)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def free_folder(stem: str) -> Path:
    """``results/<stem>-<time>``, with a number behind it if that is taken.

    Raises:
        RunError: a thousand are taken.
    """
    stem = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = Path("results") / (stem + suffix)
        if not folder.exists():
            return folder
    raise RunError(f"no free folder name for results/{stem}")


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


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        RunError: missing, unreadable or cut short.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{what} is missing: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{what} cannot be read: {path}: {error}") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{what} is damaged or cut short: {path}: {error}") from None


def save_checkpoint(folder: Path, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Replace the checkpoint in `folder` as a whole: a new subfolder is written, then the pointer file is renamed."""
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        pointer = folder / "CURRENT"
        old = pointer.read_text(errors="replace").strip() if pointer.exists() else ""
        new = f"{int(old) + 1 if old.isdecimal() else 0}"
        target = folder / new
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
    try:
        write_atomic(target / "state.json", to_json(state))
        tensors = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        if tensors:
            from safetensors.numpy import save

            write_atomic(target / "arrays.safetensors", save(tensors))
        write_atomic(pointer, new)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    for stale in folder.iterdir():
        if stale.is_dir() and stale.name != new:
            shutil.rmtree(stale, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The checkpoint in `folder`, or None if there is none yet.

    Raises:
        RunError: it is damaged.
    """
    pointer = folder / "CURRENT"
    if not pointer.exists():
        return None
    name = pointer.read_text(errors="replace").strip()
    if not name.isdecimal():
        raise RunError(f"the checkpoint pointer is damaged: {pointer}")
    state = read_json(folder / name / "state.json", "the checkpoint")
    arrays: dict[str, np.ndarray] = {}
    path = folder / name / "arrays.safetensors"
    if path.exists():
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
        except Exception as error:  # safetensors raises its own class, and OSError for cut files
            raise RunError(f"the checkpoint is damaged or cut short: {path}: {error}") from None
    return state, arrays
