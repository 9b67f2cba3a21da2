"""Checks of values that come from outside: each returns the value in its plain type, or raises one line."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

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
        # Bounds that nobody meets are told to those who go beyond them.
        open_ended = most is None or (most >= 2**31 and not (number is not None and number > most))
        bounds = f"of at least {least}" if open_ended else f"from {least} to {most}"
        raise QasError(f"{what} is a whole number {bounds}, got {shortened(value)}")
    return number


def finite_number(
    what: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    error: type[QasError] = QasError,
) -> float:
    """`value` as a float.

    Args:
        what: what the value is, as the message begins.
        above, least: the lower bound, without or with the bound itself.
        most: the upper bound, allowed.
        error: class of the exception.

    Raises:
        QasError: not a finite real number (NumPy's count; truth values, text and complex numbers do not), or not within
            the bounds.
    """
    number = math.nan
    if not isinstance(value, (bool, str, bytes)) and getattr(getattr(value, "dtype", None), "kind", "f") in "fiu":
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of PyTorch
            number = math.nan
    inside = (
        (above is None or number > above) and (least is None or number >= least) and (most is None or number <= most)
    )
    if not (math.isfinite(number) and inside):
        low = f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""
        bounds = low if most is None else f"{low} up to {most:g}" if least is None else f" from {least:g} to {most:g}"
        raise error(f"{what} is a finite number{bounds}, got {shortened(value)}")
    return number


MOST = 1e30
"""Largest size of an entry of an operator; its square still fits single precision's exponents twice over."""


def finite_array(what: str, value: Any, *, complex_too: bool = False, error: type[QasError] = QasError) -> np.ndarray:
    """`value` as a new array of float64 (with `complex_too` complex128), of any shape.

    Raises:
        QasError: not numbers, of lists of different lengths, not finite, or of a size above `MOST`.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.array(None)
    if array.dtype.kind not in ("fiuc" if complex_too else "fiu"):
        raise error(f"{what} is an array of {'' if complex_too else 'real '}numbers, got {shortened(value)}")
    array = np.array(array, dtype=np.complex128 if complex_too else np.float64)
    if not (np.abs(array) <= MOST).all():
        raise error(f"{what} has entries that are not finite, or larger than {MOST:g}")
    return array


def finite_output(what: str, values: Any) -> Any:
    """`values`, an array or tensor that trained weights gave: finite weights can be damaged too.

    Args:
        what: whose weights they are, as the message begins.
        values: what they gave.

    Raises:
        QasError: NaN or infinity is among the values.
    """
    if not math.isfinite(float(values.sum())):
        raise QasError(f"{what} gives numbers that are not finite: its weights are damaged")
    return values


def sequence(what: str, value: Any) -> tuple[Any, ...]:
    """`value` as a tuple.

    Raises:
        QasError: text, or nothing that can be gone through.
    """
    try:
        return tuple(None if isinstance(value, (str, bytes)) else value)  # type: ignore[arg-type]
    except TypeError:
        raise QasError(f"{what} are a list, got {shortened(value)}") from None


def shortened(value: object) -> str:
    """A value as one line of at most 80 characters, for messages."""
    return one_line(repr(value))


def one_line(text: object) -> str:
    """Text without line breaks, at most 80 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else line[:77] + "..."
