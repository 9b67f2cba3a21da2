"""One decorator for every compiled function."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit, types

_FILES = (
    "_entry.py",
    "_lanes.py",
    "_team.py",
    "_sv_kernels.py",
    "_ptm_kernels.py",
    "_ptm_program.py",
    "_insertion_kernels.py",
    "_insertion_sums.py",
    "_insertion_ptm.py",
    "_tied.py",
    "../mitigation/_combined.py",
    "../optimizers/bfgs.py",
    "../optimizers/batch.py",
    "../adapters/_kernels.py",
)


def _stamp(*files: Path) -> tuple[tuple[int, int], ...]:
    return tuple((s.st_mtime_ns, s.st_size) for s in (file.stat() for file in files))


_LISTED = [(Path(__file__).parent / name).resolve() for name in _FILES]
_STAMP = _stamp(*_LISTED)


def _or_nothing(load: Callable[[], dict[Any, Any]]) -> Callable[[], dict[Any, Any]]:
    """An index that names types of an older version cannot be read, and holds nothing of use."""

    def load_index() -> dict[Any, Any]:
        try:
            return load()
        except (AttributeError, ImportError, pickle.UnpicklingError, EOFError):
            return {}

    return load_index


def compiled(*, inline: bool = False, spliced: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile with Numba, cached on disk, without the GIL.

    Numba renews a cached function when its own file changes, but callees from other files are compiled into it; so the
    stamp covers every file with compiled code.

    What unpacks the arguments of a call from Python takes as long to compile as a short function itself. So Python can
    only call functions that are neither inlined nor named with an underscore; from others it gets a `TypeError`.

    Args:
        inline: compile into the caller; a call costs reference counts on every array passed.
        spliced: for a long function with one caller: its source becomes the caller's, and is not compiled by itself.
    """
    options: dict[str, Any] = {"inline": "always"} if spliced else {"cache": True, "forceinline": inline}

    def decorate(function: Callable[..., Any]) -> Any:
        inner = inline or spliced or function.__name__.startswith("_")
        options.update(no_cfunc_wrapper=True, no_cpython_wrapper=inner)
        dispatcher: Any = njit(nogil=True, error_model="numpy", boundscheck=False, **options)(function)
        dispatcher.get_call_template = _for_any_whole_number(dispatcher.get_call_template)
        if inner:
            dispatcher._insert, dispatcher._compile_for_args = _not_at_all, _refused
        return stamped(dispatcher)

    return decorate


def _not_at_all(*_: Any) -> None:
    """Instead of telling a dispatcher where the machine code for a call from Python is: there is none."""


def _refused(*_: Any, **__: Any) -> None:
    raise TypeError("this function is called by compiled code alone")


def _for_any_whole_number(template: Callable[..., Any]) -> Callable[..., Any]:
    """Called with constants, a function is not compiled for each of them, nor for values that a loop goes on from."""

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        plain = [types.unliteral(arg) if isinstance(arg, types.IntegerLiteral) else arg for arg in args]
        return template(tuple(plain), kws)

    return get_call_template


def stamped(function: Any) -> Any:
    """A function of Numba's whose copy on disk is renewed when any file with compiled code changes, or its own, where
    that is not among them because nothing else compiles it in."""
    cache_file = getattr(getattr(function, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        own = Path(function.__wrapped__.__code__.co_filename).resolve()
        cache_file._source_stamp = _STAMP if own in _LISTED else (*_STAMP, *_stamp(own))
        cache_file._load_index = _or_nothing(cache_file._load_index)
    return function
