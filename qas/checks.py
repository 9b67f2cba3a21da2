"""Checks of values that come from outside: each returns the value in its plain type, or raises one line."""

from __future__ import annotations

import math
import operator
from typing import Any

from qas.errors import QasError


def whole_number(what: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int.

    Args:
        what: what the value is, as the message begins.
        least, most: bounds, both allowed.

    Raises:
        QasError: not a whole number within the bounds; numbers such as 2.0 and truth values are none.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise QasError(f"{what} is a whole number {bounds}, got {shortened(value)}")
    return number


def finite_number(what: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """`value` as a float.

    Args:
        what: what the value is, as the message begins.
        above, least: the lower bound, without or with the bound itself.

    Raises:
        QasError: not a finite number (NumPy's count, truth values and text do not), or not within the bound.
    """
    number = math.nan
    if not isinstance(value, (bool, str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    inside = (above is None or number > above) and (least is None or number >= least)
    if not (math.isfinite(number) and inside):
        bounds = f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""
        raise QasError(f"{what} is a finite number{bounds}, got {shortened(value)}")
    return number


def shortened(value: object) -> str:
    """A value as one line of at most 80 characters, for messages."""
    return one_line(repr(value))


def one_line(text: object) -> str:
    """Text without line breaks, at most 80 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else line[:77] + "..."
