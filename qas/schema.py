"""Shapes of data from outside, told by typing annotations: settings of registered things, and files.

The shape of a file is a `TypedDict` beside what writes it; `conform` names the field that differs.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np

from qas.checks import one_line, shortened
from qas.errors import QasError, RunError


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both allowed, or of the length of a list."""

    least: float = -math.inf
    most: float = math.inf

    def __str__(self) -> str:
        return f"of at least {self.least:g}" if self.most == math.inf else f"from {self.least:g} to {self.most:g}"


Count = Annotated[int, Within(0, 2**63 - 1)]
Positive = Annotated[int, Within(1, 2**63 - 1)]
Qubits = Annotated[int, Within(1, 10_000)]
Time = Annotated[float, Within(0)]
Gates = list[tuple[str, list[int], list[float]]]
"""A circuit as `Circuit.to_list` has it."""


class _Pcg(TypedDict):
    state: Annotated[int, Within(0, 2**128 - 1)]
    inc: Annotated[int, Within(0, 2**128 - 1)]


class RngState(TypedDict):
    """The state of a NumPy generator."""

    bit_generator: Literal["PCG64"]
    state: _Pcg
    has_uint32: Annotated[int, Within(0, 1)]
    uinteger: Annotated[int, Within(0, 2**32 - 1)]


class Misfit(NamedTuple):
    """Where data differ from their shape."""

    where: str
    """such as ``budget.seconds``; empty: the whole"""
    rule: str
    got: str
    """empty: nothing is there"""

    def inside(self, place: str) -> Misfit:
        """As seen from what holds it."""
        return self._replace(where=place + self.where)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type that an annotation names; lists, which JSON has, stand for tuples."""
    return misfit(value, hint) is None


def conform(data: Any, shape: Any, what: str, *, where: object = "", error: type[QasError] = RunError) -> Any:
    """`data`, if they have a shape; keys beyond it are left alone.

    Args:
        data: what was read.
        shape: a `TypedDict` or another annotation.
        what: what it is, for messages: ``"the summary"``.
        where: its file, for messages.
        error: class of the exception.

    Raises:
        RunError: a field is missing or of another type.
    """
    found = misfit(data, shape)
    if found is None:
        return data
    field, file = one_line(found.where.lstrip(".")), f": {where}" if str(where) else ""
    if not found.got:
        raise error(f"{what} lacks {field}{file}")
    raise error(f"{what} is damaged{field and f' at {field}'}: {found.rule} is needed, got {found.got}{file}")


@contextmanager
def taken_up(what: str, *, where: object = "") -> Iterator[None]:
    """Around what goes on from read data: a failure is theirs, as shapes do not tell all, such as sizes of arrays.

    Args:
        what: what it is, for messages: ``"the checkpoint"``.
        where: its file or folder, for messages.

    Raises:
        RunError: something other than a `QasError` was raised that unfitting data raise.
    """
    try:
        yield
    except QasError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        file = f": {where}" if str(where) else ""
        raise RunError(f"{what} is damaged{file}: {one_line(repr(error))}") from None


def misfit(value: Any, hint: Any) -> Misfit | None:
    """The first place at which a value differs from an annotation, or None."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return None
    if origin is Annotated:
        found = misfit(value, parts[0])
        size: Any = len(value) if isinstance(value, (list, tuple)) else value
        if found is None and all(each.least <= size <= each.most for each in parts[1:] if isinstance(each, Within)):
            return None
        return found if found is not None and found.where else _wrong(value, hint)
    if origin in (Union, UnionType):
        tried = [misfit(value, part) for part in parts]
        deep = [each for each in tried if each is not None and each.where]
        return None if None in tried else deep[0] if deep else _wrong(value, hint)
    if origin is Literal:
        return None if any(type(value) is type(part) and value == part for part in parts) else _wrong(value, hint)
    if is_typeddict(hint) and isinstance(value, Mapping):
        return _table(value, hint)
    if origin in (tuple, list) and isinstance(value, (tuple, list)):
        return _items(value, origin, parts)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        found_at = ((name, misfit(name, parts[0]) or misfit(item, parts[1])) for name, item in value.items())
        return next((each.inside(f".{one_line(name)}") for name, each in found_at if each), None)
    plain = dict if is_typeddict(hint) else origin or hint
    return None if _is(value, plain) else _wrong(value, hint)


def _wrong(value: Any, hint: Any) -> Misfit:
    return Misfit("", name_of(hint), shortened(value))


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type; a truth value is no number, and a number is finite."""
    if kind is None or kind is NoneType:
        return value is None
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind is bool
    if kind is int:
        return isinstance(value, (int, np.integer))
    if kind is float:
        return isinstance(value, (int, float, np.integer, np.floating)) and abs(cast(float, value)) <= _LARGEST
    return isinstance(value, kind) if isinstance(kind, type) else True


_LARGEST = sys.float_info.max


@functools.cache
def _fields(shape: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Name and annotation of each field of a `TypedDict`, and whether it must be there."""
    hints = get_type_hints(shape, include_extras=True)
    plain = {name: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for name, hint in hints.items()}
    return tuple((name, hint, name in shape.__required_keys__ and hint is hints[name]) for name, hint in plain.items())


def _table(value: Mapping[str, Any], shape: Any) -> Misfit | None:
    for name, hint, needed in _fields(shape):
        if name in value:
            found = misfit(value[name], hint)
            if found is not None:
                return found.inside(f".{name}")
        elif needed:
            return Misfit(f".{name}", name_of(hint), "")
    return None


def _items(value: Sequence[Any], origin: type, parts: tuple[Any, ...]) -> Misfit | None:
    exact = origin is tuple and Ellipsis not in parts and bool(parts)
    if exact and len(value) != len(parts):
        return Misfit("", f"{len(parts)} entries", shortened(value))
    for k, item in enumerate(value):
        found = misfit(item, parts[k] if exact else parts[0] if parts else Any)
        if found is not None:
            return found.inside(f"[{k}]")
    return None


def name_of(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        return " ".join([{int: "a whole number", float: "a number"}.get(kind, name_of(kind)), *map(str, more)])
    if is_typeddict(hint):
        return "an object"
    if get_origin(hint) in (dict, list, tuple):
        return "an object" if get_origin(hint) is dict else "a list"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
