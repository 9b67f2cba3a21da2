"""Idle noise: what happens to a qubit that waits for its next gate, or for the measurement.

A circuit runs as late as possible: all qubits are measured together at its end, and each gate starts as late as the
gates behind it allow. Between its gates, and up to the measurement, a qubit relaxes. Before its first gate it does not:
it is in its ground state, towards which it relaxes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from qas.checks import finite_number, whole_number
from qas.errors import CircuitError, NotPhysicalError, QasError
from qas.noise import relaxation_ptm
from qas.schema import conform

if TYPE_CHECKING:
    from qas.circuits import Circuit

Place = tuple[str, tuple[int, ...]]
"""A gate and the qubits it acts on."""

DIGITS = 18
"""Waiting times are rounded to 1e-18 s, so that sums of the same durations in another order are the same time."""


@functools.lru_cache(maxsize=1 << 14)
def _relaxed(t1: float, t2: float, time: float) -> np.ndarray:
    """Transfer matrix of relaxation to the ground state, float64, shape (4, 4), read-only; T2 is cut to 2·T1."""
    ptm = relaxation_ptm(t1, min(t2, 2 * t1), time)
    ptm.flags.writeable = False
    return ptm


Moments = list[float | str | None]
"""Times in a file; see `times_from_json`."""


class _Told(TypedDict):
    t1: Moments
    t2: Moments
    durations: dict[str, list[list[int | float | str]]]


@dataclass(frozen=True)
class Idle:
    """Relaxation of waiting qubits.

    Raises:
        NotPhysicalError: T1 or T2 not positive, or a negative duration.
        QasError: another number of T1 than of T2.
    """

    t1: tuple[float, ...]
    """of each qubit, seconds; infinite where it does not decay"""
    t2: tuple[float, ...]
    """of each qubit, seconds; at most 2·T1 counts"""
    durations: Mapping[Place, float]
    """of each gate on its qubits, seconds; gates that are not named take no time"""

    def __post_init__(self) -> None:
        if len(self.t1) != len(self.t2):
            raise QasError(f"idle noise has T1 and T2 of each qubit, got {len(self.t1)} and {len(self.t2)} of them")
        for name, times in (("T1", self.t1), ("T2", self.t2)):
            for time in times:
                if not time > 0:
                    raise NotPhysicalError(f"{name} is a positive time in seconds, got {time}")
        for (gate, qubits), time in self.durations.items():
            if not (math.isfinite(time) and time >= 0):
                raise NotPhysicalError(f"a duration is a time in seconds, got {time} of {gate} on {qubits}")

    @property
    def n_qubits(self) -> int:
        return len(self.t1)

    def waits(self, circuit: Circuit) -> tuple[list[list[tuple[int, float]]], float]:
        """(qubit, seconds it waits) after each gate, and the seconds from the first gate to the measurement.

        Excitations are decomposed; the gates are then those of ``circuit.decompose()``.

        Raises:
            CircuitError: more qubits than there are T1 and T2.
        """
        waits, begins = self.schedule(circuit)
        return waits, round(max(begins), DIGITS)

    def schedule(self, circuit: Circuit) -> tuple[list[list[tuple[int, float]]], list[float]]:
        """As `waits`, with the seconds from each qubit's first gate to the measurement, 0 where it has none."""
        if circuit.n_qubits > self.n_qubits:
            raise CircuitError(f"idle noise describes {self.n_qubits} qubits, got {circuit.n_qubits}")
        run = circuit if circuit.lowering is None else circuit.lowering.circuit
        next_start = [0.0] * circuit.n_qubits  # seconds before the measurement
        waits: list[list[tuple[int, float]]] = []
        for gate in reversed(run.gates):
            name, qubits = gate.name, gate.qubits
            end = max([next_start[qubit] for qubit in qubits])
            found = [(qubit, round(end - start, DIGITS)) for qubit in qubits if (start := next_start[qubit]) < end]
            waits.append([(qubit, time) for qubit, time in found if time > 0.0])
            start = end + self.durations.get((name, qubits), 0.0)
            for qubit in qubits:
                next_start[qubit] = start
        return waits[::-1], next_start

    def channels(self, circuit: Circuit) -> list[list[tuple[int, np.ndarray]]]:
        """(qubit, transfer matrix of shape (4, 4)) after each gate; see `waits`."""
        return self.channels_of(self.schedule(circuit)[0])

    def channels_of(self, waits: Iterable[Iterable[tuple[int, float]]]) -> list[list[tuple[int, np.ndarray]]]:
        """Waits in seconds as transfer matrices."""
        return [[(qubit, _relaxed(self.t1[qubit], self.t2[qubit], time)) for qubit, time in found] for found in waits]

    # ------------------------------------------------------------------ JSON
    def to_json(self) -> dict[str, Any]:
        """JSON-able description; `from_json` reads it back bit for bit."""
        by_gate: dict[str, list[Any]] = {}
        for (gate, qubits), time in self.durations.items():
            by_gate.setdefault(gate, []).append([*qubits, time])
        return {"t1": times_to_json(self.t1), "t2": times_to_json(self.t2), "durations": by_gate}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Idle:
        """Read what `to_json` wrote.

        Raises:
            QasError: malformed fields.
        """
        conform(data, _Told, "the description of waiting", error=QasError)
        durations = {}
        for gate, rows in data["durations"].items():
            for *qubits, time in rows:
                place = tuple(whole_number("a qubit with a duration", q, 0) for q in qubits)
                durations[str(gate), place] = seconds("a duration", time)
        return cls(times_from_json("T1", data["t1"]), times_from_json("T2", data["t2"]), durations)


# ---------------------------------------------------------------------- times as text
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "ps": 1e-12}
"""Both the micro sign and the Greek letter mean micro."""


def seconds(what: str, value: Any) -> float:
    """A time in seconds, from a number of seconds or from text with its unit, such as ``"120 us"``.

    Raises:
        QasError: neither, or a negative time.
    """
    if isinstance(value, str):
        number, _, unit = value.strip().rpartition(" ")
        try:
            return finite_number(what, float(number), least=0.0, most=1e30) * _UNITS[unit]
        except (KeyError, ValueError):
            raise QasError(f"{what} is seconds, or text such as '120 us', got {value!r}") from None
    return finite_number(what, value, least=0.0)


def times_to_json(times: Sequence[float]) -> list[float | None]:
    """Times in seconds; None for infinite ones, which JSON does not have."""
    return [time if math.isfinite(time) else None for time in times]


def times_from_json(what: str, times: Iterable[Any]) -> tuple[float, ...]:
    """Read what `times_to_json` wrote; times may also be text with a unit.

    Raises:
        QasError: neither, or a time that is not positive.
    """
    found = tuple(math.inf if time is None else seconds(what, time) for time in times)
    if 0.0 in found:
        raise NotPhysicalError(f"{what} is a positive time in seconds, got 0")
    return found
