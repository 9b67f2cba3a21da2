"""The errors a user can cause, each one line: the rule, then what was received."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONGEST = 1000


class QasError(ValueError):
    """Base of every error caused by input; the command line prints it as one line and exits with code 2.

    What is quoted in it may hold line breaks, or be very long: the message holds neither.
    """

    def __init__(self, message: object = "") -> None:
        text = re.sub(r"\s*[\n\r\x0b\x0c\x85\u2028\u2029]\s*", " ", str(message))
        super().__init__(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 200]} … {text[-190:]}")


class UnknownNameError(QasError):
    """A name that is not in the list it was looked up in; the message suggests the nearest one."""

    def __init__(self, kind: str, name: object, known: Iterable[str], meant: str | None = None) -> None:
        known = sorted(known)
        plain = {each.lower(): each for each in known}
        near = [meant] if meant else difflib.get_close_matches(str(name).lower(), plain, n=1, cutoff=0.4)
        hint = f"did you mean {plain.get(near[0], near[0])!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {str(name)!r}; {hint}")


class CircuitError(QasError):
    """A gate or circuit that breaks a rule: qubit out of range, wrong number of angles, malformed text."""


class NotPhysicalError(QasError):
    """A channel that is not completely positive and trace preserving."""


class TooLargeError(QasError):
    """More qubits than the chosen engine can hold in memory."""


class RunError(QasError):
    """A run folder that is missing, incomplete, or written by a newer version."""


class MissingExtraError(QasError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'quantum-architecture-search[{extra}]'")
