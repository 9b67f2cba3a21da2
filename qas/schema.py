"""Shapes of data from outside, told by typing annotations: settings of registered things, and files.

The shape of a file is a `TypedDict` beside what writes it; `conform` names the field that differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    get_args,
    get_origin,
    get_type_hints,
)
from typing import is_typeddict as is_table

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
    if found is not None:
        field = f" at {one_line(found.where)}" if found.where else ""
        at = f": {where}" if str(where) else ""
        raise error(f"{what} is damaged{field}: {found.rule} is needed, got {found.got}{at}")
    return data


def misfit(value: Any, hint: Any, where: str = "") -> Misfit | None:
    """The first place at which a value differs from an annotation, or None."""
    origin, parts = get_origin(hint), get_args(hint)
    wrong = Misfit(where, name_of(hint), shortened(value))
    if hint is Any:
        return None
    if origin is Annotated:
        size = len(value) if isinstance(value, (list, tuple)) else value
        inner = misfit(value, parts[0], where)
        bounds = [part for part in parts[1:] if isinstance(part, Within)]
        outside = inner is None and any(not each.least <= size <= each.most for each in bounds)
        return wrong if outside else inner and inner._replace(rule=wrong.rule if inner.where == where else inner.rule)
    if origin in (Union, UnionType):
        tried = [misfit(value, part, where) for part in parts]
        deepest = max((each for each in tried if each), key=lambda each: len(each.where), default=wrong)
        return None if None in tried else deepest if deepest.where != where else wrong
    if origin is Literal:
        return None if any(value is part or (type(value) is type(part) and value == part) for part in parts) else wrong
    if is_table(hint):
        return _table(value, hint, where) if isinstance(value, Mapping) else wrong
    if origin in (tuple, list):
        return _items(value, origin, parts, where) if isinstance(value, (tuple, list)) else wrong
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        pairs = (misfit(item, part, f"{where}.{key}") for key, item in value.items() for part in parts[1:])
        keys = (misfit(key, part, f"{where}.{key}") for key in value for part in parts[:1])
        return next((each for each in (*keys, *pairs) if each), None)
    return None if _is(value, origin or hint) else wrong


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type; a truth value is no number, and a number is finite."""
    if kind is None or kind is NoneType:
        return value is None
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind is bool
    if kind is int:
        return isinstance(value, (int, np.integer))
    if kind is float:
        return isinstance(value, (int, float, np.integer, np.floating)) and _finite(value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _table(value: Mapping[str, Any], shape: Any, where: str) -> Misfit | None:
    for name, hint in get_type_hints(shape, include_extras=True).items():
        at = f"{where}.{name}" if where else name
        optional = get_origin(hint) is NotRequired
        inner = get_args(hint)[0] if optional else hint
        if name not in value and name in shape.__required_keys__:
            return Misfit(at, name_of(inner), "nothing")
        found = misfit(value[name], inner, at) if name in value else None
        if found is not None:
            return found
    return None


def _items(value: Sequence[Any], origin: type, parts: tuple[Any, ...], where: str) -> Misfit | None:
    exact = origin is tuple and Ellipsis not in parts and bool(parts)
    if exact and len(value) != len(parts):
        return Misfit(where, f"{len(parts)} entries", shortened(value))
    kinds = parts if exact else [parts[0] if parts else Any] * len(value)
    found = (misfit(item, kind, f"{where}[{k}]") for k, (item, kind) in enumerate(zip(value, kinds, strict=True)))
    return next((each for each in found if each), None)


def name_of(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        return " ".join([{int: "a whole number", float: "a number"}.get(kind, name_of(kind)), *map(str, more)])
    if is_table(hint):
        return "an object"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
