"""The errors a user can cause, each one line: the rule, then what was received."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QasError(ValueError):
    """Base of every error caused by input; the command line prints it as one line and exits with code 2."""


class UnknownNameError(QasError):
    """A name that is not in the list it was looked up in; the message suggests the nearest one."""

    def __init__(self, kind: str, name: object, known: Iterable[str], meant: str | None = None) -> None:
        known = sorted(known)
        lowered = {each.lower(): each for each in known}
        close = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.4)
        near = [meant] if meant else [lowered[each] for each in close]
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
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
