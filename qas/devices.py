"""Calibrated devices: native gates with their errors and durations, T1, T2, readout, coupling.

A `Device` is read from any Qiskit backend, from a calibration that comes with this package, or from a file; its noise
model, the best patch of it for a number of qubits, and its durations follow from that. Qiskit is imported nowhere.

To add a device, register a `Device` or a function that returns one (`DEVICES`, or an entry point in the group
``qas.devices``).
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from qas.checks import finite_number, shortened, whole_number
from qas.errors import MissingExtraError, QasError, UnknownNameError
from qas.files import read_json
from qas.gates import GATES
from qas.idle import Idle, Moments, seconds, times_from_json, times_to_json
from qas.native import NativeGates, native_set
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    depolarizing,
    embed_pair,
    exchange_qubits,
    relaxation_ptm,
)
from qas.registry import Registry
from qas.schema import Count, conform

if TYPE_CHECKING:
    from qas.circuits import Circuit

MODEL_LIMIT = 32
"""Largest device that is made a noise model: read the qubits in use, or take a patch."""

ENTANGLERS = ("cx", "cz", "ecr")
"""Native two-qubit gates that are known; where a pair has several, the first of them is used."""

_VIRTUAL = ("rz", "z", "s", "sdg", "t", "tdg")
_ONE_PULSE = ("h", "sx")
_TWO_PULSES = ("rx", "ry", "u")
_PULSES = {"sx": "rz", "u2": "u1"}
"""Native gate of one pulse -> native rotation about z, newest devices first."""
_READ = frozenset({*GATES, *ENTANGLERS, "u1", "u2", "u3"})
"""Gates whose calibration is kept."""

Places = Mapping[tuple[int, ...], "Calibration"]


class Calibration(NamedTuple):
    """What is known of one gate on its qubits."""

    error: float | None
    """average gate infidelity; None: not known"""
    duration: float | None
    """seconds; None: not known"""


class _Table(TypedDict):
    qubits: list[list[Count]]
    error: list[float | None]
    duration: Moments


class _Told(TypedDict):
    name: str
    physical: list[Count]
    t1: Moments
    t2: Moments
    readout: list[tuple[float, float]]
    gates: dict[str, _Table]


@dataclass(frozen=True, repr=False)
class Device:
    """A calibrated device, or a patch of one. Immutable; qubits are numbered from 0 in a patch too."""

    name: str
    """such as ``fake_torino``; a patch adds its qubits, ``fake_torino[10,11,12]``"""
    gates: Mapping[str, Places]
    """native gate -> its qubits, in its own order -> error and duration"""
    t1: tuple[float, ...]
    """seconds, of each qubit; infinite where it is not known"""
    t2: tuple[float, ...]
    """seconds, of each qubit; infinite where it is not known"""
    readout: tuple[tuple[float, float], ...]
    """(p01, p10) of each qubit: the probabilities to read 1 for 0 and 0 for 1"""
    physical: tuple[int, ...]
    """number of each qubit on the whole device"""
    date: str = ""
    """of the calibration, as YYYY-MM-DD; empty where it is not known"""
    source: str = ""
    """where the calibration comes from"""

    # ------------------------------------------------------------------ what it has
    @property
    def n_qubits(self) -> int:
        return len(self.physical)

    @property
    def backend_name(self) -> str:
        """Name of the whole device."""
        return self.name.partition("[")[0]

    @functools.cached_property
    def entangler(self) -> str:
        """The native two-qubit gate that most pairs carry.

        Raises:
            QasError: there is none.
        """
        gate = max(ENTANGLERS, key=lambda name: len(self.gates.get(name, {})))
        if gate not in self.gates:
            raise QasError(f"device {self.name} has no two-qubit gate of {', '.join(ENTANGLERS)}")
        return gate

    @property
    def native_gates(self) -> tuple[str, ...]:
        """What circuits may consist of so that they run as they stand: rz, sx, x where it is native, the entangler.

        On devices with native u1, u2 and u3 these are rz, one u2 and one u3.
        """
        flip = ("x",) if "x" in self.gates or "u3" in self.gates else ()
        two = (self.entangler,) if self.n_qubits > 1 and self.coupling else ()
        return ("rz", "sx", *flip, *two)

    @functools.cached_property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Ordered pairs that carry the entangler as calibrated, sorted."""
        return tuple(sorted((a, b) for a, b in self.gates[self.entangler])) if self.coupling else ()

    @functools.cached_property
    def native(self) -> NativeGates | None:
        """The gates as `qas.native` takes them."""
        return native_set(self.native_gates, self.directions if self.coupling and self.n_qubits > 1 else ())

    @functools.cached_property
    def coupling(self) -> frozenset[tuple[int, int]]:
        """Pairs (low, high) that carry the entangler in one direction or both.

        Where a device has several kinds of entanglers on different pairs, those of the others are not among them:
        circuits that run as they stand have one kind.
        """
        places = self.gates[self.entangler] if not self.gates.keys().isdisjoint(ENTANGLERS) else ()
        return frozenset((min(pair), max(pair)) for pair in places)

    @functools.cached_property
    def _compiled(self) -> _Compiled:
        return _Compiled(self)

    @functools.cached_property
    def schedule(self) -> Idle:
        """Durations of all gates on this device, and how waiting qubits relax."""
        places: list[tuple[int, ...]] = [(q,) for q in range(self.n_qubits)]
        places += [order for pair in sorted(self.coupling) for order in (pair, pair[::-1])]
        durations: dict[tuple[str, tuple[int, ...]], float] = {}
        for place in places:
            for gates, native in self._compiled.gates_on(place):
                durations |= {(gate, place): native.duration for gate in gates if native.duration}
        return Idle(self.t1, self.t2, durations)

    def duration(self, circuit: Circuit) -> float:
        """Seconds from the first gate to the measurement, when all gates run as late as they can."""
        return self.schedule.waits(circuit)[1]

    # ------------------------------------------------------------------ parts of it
    def restricted(self, qubits: Sequence[int]) -> Device:
        """The device with some of its qubits, renumbered: qubit i of the result is ``qubits[i]`` of this one.

        Raises:
            QasError: no qubits, or ones that are repeated or not there.
        """
        chosen = _chosen_qubits(self.name, self.n_qubits, qubits)
        number = {q: position for position, q in enumerate(chosen)}
        gates = {}
        for gate, places in self.gates.items():
            kept = {tuple(number[q] for q in place): c for place, c in places.items() if number.keys() >= set(place)}
            if kept:
                gates[gate] = kept
        physical = tuple(self.physical[q] for q in chosen)
        return replace(
            self,
            name=f"{self.backend_name}[{','.join(map(str, physical))}]",
            gates=gates,
            t1=tuple(self.t1[q] for q in chosen),
            t2=tuple(self.t2[q] for q in chosen),
            readout=tuple(self.readout[q] for q in chosen),
            physical=physical,
        )

    def coupled_by(self, pairs: Iterable[tuple[int, int]]) -> Device:
        """The device with two-qubit gates on some of its pairs only, given in either order."""
        kept = {frozenset(pair) for pair in pairs}
        gates = {
            gate: {place: c for place, c in places.items() if len(place) == 1 or frozenset(place) in kept}
            for gate, places in self.gates.items()
        }
        return replace(self, gates={gate: places for gate, places in gates.items() if places})

    def patch(self, n_qubits: int, shape: str = "best", which: str = "best") -> Device:
        """Connected qubits of this device, renumbered from 0; see `qas.patches`.

        Args:
            n_qubits: how many.
            shape: "line", "ring", "tree", or "best" for whichever connected qubits are best, with all their pairs.
            which: the "best" such patch by predicted fidelity, or the "median" one.

        Raises:
            QasError: more qubits than the device has, or no patch of that shape.
            UnknownNameError: another shape or choice.
        """
        from qas.patches import choose

        return choose(self, n_qubits, shape, which)

    # ------------------------------------------------------------------ its noise
    def noise(self, idle: bool = True) -> NoiseModel:
        """The device's noise as channels after gates, readout flips, and relaxation of waiting qubits.

        Every native gate carries the channel that `qiskit_aer.noise.NoiseModel.from_backend` gives it at temperature 0:
        a depolarizing channel, then thermal relaxation (T2 cut to 2·T1) over the gate's duration on each of its qubits,
        with the depolarizing probability chosen so that both together have the calibrated average gate infidelity.

        A gate that the device does not have natively carries the noise of the native gates it compiles to, all of it
        after the gate, and takes as long as they do:

        ============================  ==========================================================================
        rz, z, s, sdg, t, tdg         the channel of the native rz: none where rz is virtual (error 0)
        sx, h                         one sx channel
        x, y                          one x channel; two sx channels where x is not native
        rx, ry, u                     two sx channels
        cx, cz, ecr                   one channel of the pair's native entangler (of cx, cz, ecr the first it has)
        rxx, ryy, rzz                 two channels of that entangler
        swap                          three channels of that entangler
        ============================  ==========================================================================

        On devices of before 2021 with native u1, u2, u3 the rotation about z is u1, the single pulse is u2, and the two
        pulses of rx, ry, u, x and y are one u3.

        The one-qubit gates around a compiled two-qubit gate add nothing. An entangler calibrated in both directions is
        taken in the direction of the gate, one calibrated in a single direction serves both, with its qubits exchanged.
        Symmetric gates (cz, swap, rxx, ryy, rzz) have one channel for a pair, that of the direction (lower, higher).
        Crosstalk is not in the model.

        Args:
            idle: whether waiting qubits relax (`qas.idle`).

        Raises:
            QasError: more than 32 qubits, or a qubit whose pulse is not calibrated.
        """
        if self.n_qubits > MODEL_LIMIT:
            raise QasError(
                f"{self.name} has {self.n_qubits} qubits; choose the ones in use, for example qubits=[0, 1, 2, 3], or "
                "a patch"
            )
        model = NoiseModel(self.name, n_qubits=self.n_qubits, coupling=self.coupling)
        for qubit in range(self.n_qubits):
            for gates, native in self._compiled.gates_on((qubit,)):
                if native.channel is not None:
                    model = model.add(native.channel, gates, [qubit])
            if any(self.readout[qubit]):
                model = model.add_readout(*self.readout[qubit], [qubit])
        for a, b in sorted(self.coupling):
            for pair in ((a, b), (b, a)):
                for gates, native in self._compiled.gates_on(pair):
                    here = tuple(gate for gate in gates if pair == (a, b) or not GATES[gate].symmetric)
                    if here and native.channel is not None:
                        model = model.add(native.channel, here, [pair])
        return replace(model, idle=self.schedule) if idle else model

    # ------------------------------------------------------------------ for people
    def __repr__(self) -> str:
        return f"<Device {self.name!r}: {self.n_qubits} qubits>"

    def __str__(self) -> str:
        """One line: size, entangler, date."""
        dated = f", calibrated {self.date}" if self.date else ""
        gates = ", ".join(gate for gate in ENTANGLERS if gate in self.gates) or "no two-qubit gates"
        return f"device {self.name}: {self.n_qubits} qubits, {gates}{dated}"

    # ------------------------------------------------------------------ constructors and conversions
    @classmethod
    def from_backend(cls, backend: Any, *, qubits: Sequence[int] | None = None) -> Device:
        """Read the calibration of a Qiskit backend (`BackendV2` with a target).

        Pairs without calibration, or with a reported error of 1 or more (IBM's mark for a broken pair), are left out
        with a warning.

        Args:
            backend: a calibrated backend, for example from `qiskit_ibm_runtime.fake_provider`.
            qubits: device qubits to read, in the order of the result's qubits. None: all.

        Raises:
            QasError: no target or no calibration, no native rz and sx (or u1, u2 and u3), or qubits that are repeated
                or not there.
        """
        return _read_backend(backend, qubits)

    def to_json(self) -> dict[str, Any]:
        """Complete JSON-able description; `from_json` reads it back bit for bit."""
        gates = {
            gate: {
                "qubits": [list(place) for place in places],
                "error": [calibration.error for calibration in places.values()],
                "duration": [calibration.duration for calibration in places.values()],
            }
            for gate, places in self.gates.items()
        }
        return {
            "name": self.name,
            "date": self.date,
            "source": self.source,
            "physical": list(self.physical),
            "t1": times_to_json(self.t1),
            "t2": times_to_json(self.t2),
            "readout": [list(pair) for pair in self.readout],
            "gates": gates,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Device:
        """Read what `to_json` wrote. Times are seconds, or text with a unit, such as ``"120 us"``.

        Pairs without an error, or with one of 1 or more, are left out with a warning, as by `from_backend`.

        Raises:
            QasError: missing or malformed fields.
        """
        conform(data, _Told, "the description of a device", error=QasError)
        try:
            physical = tuple(whole_number("a qubit of a device", q, 0) for q in data["physical"])
            readout = tuple((_flip(p01), _flip(p10)) for p01, p10 in data["readout"])
            tables = {gate: table for gate, table in data["gates"].items() if gate in _READ}
            gates = {gate: _places(gate, table, len(physical)) for gate, table in tables.items()}
            t1, t2 = (times_from_json(name.upper(), data[name]) for name in ("t1", "t2"))
            texts = {name: str(data.get(name, "")) for name in ("date", "source")}
            found = cls(str(data["name"]), gates, t1, t2, readout, physical, **texts)
        except ValueError as error:
            if isinstance(error, QasError):
                raise
            raise QasError(f"malformed description of a device: {error}") from None
        if not len(t1) == len(t2) == len(readout) == len(physical) > 0:
            counts = f"{len(t1)} T1, {len(t2)} T2, {len(readout)} readout"
            raise QasError(f"a device has T1, T2 and readout of each of its {len(physical)} qubits, got {counts}")
        if len(set(physical)) < len(physical):
            raise QasError(f"qubits of a device have different numbers, got {shortened(list(physical))}")
        return _without_broken_pairs(found)


def native_gates_of(device: Device, gates: Sequence[str] | None) -> list[str]:
    """The gates that circuits for a device consist of: those given if it has them, else all native ones.

    Raises:
        QasError: a gate outside the native set.
    """
    native = device.native_gates
    for gate in gates or ():
        if gate not in native:
            raise QasError(f"the native gates of {device.name} are {', '.join(native)}, got {gate}")
    return list(native if gates is None else gates)


def _flip(value: Any) -> float:
    return finite_number("a readout error", value, least=0.0, most=1.0)


def _places(gate: str, table: Mapping[str, Any], n_qubits: int) -> dict[tuple[int, ...], Calibration]:
    """One gate of a device's description."""
    places: dict[tuple[int, ...], Calibration] = {}
    size = GATES[gate].n_qubits if gate in GATES else 1
    for qubits, error, duration in zip(table["qubits"], table["error"], table["duration"], strict=True):
        place = tuple(whole_number(f"a qubit of {gate}", q, 0, n_qubits - 1) for q in qubits)
        if len(place) != size or len(set(place)) < size or place in places:
            raise QasError(f"{gate} is calibrated once on {size} different qubit(s), got {list(place)}")
        places[place] = Calibration(
            None if error is None else finite_number(f"an error of {gate}", error, least=0.0),
            None if duration is None else seconds(f"a duration of {gate}", duration),
        )
    return places


def _broken(calibration: Any) -> bool:
    """Whether a two-qubit gate does not work: its error is not told, or 1, which is IBM's mark for that."""
    error = getattr(calibration, "error", None)
    return error is None or not error < 1


def _without_broken_pairs(device: Device) -> Device:
    """The device without two-qubit gates that do not work; pairs that lose their entangler are warned of."""
    working = {
        gate: {place: c for place, c in places.items() if len(place) == 1 or not _broken(c)}
        for gate, places in device.gates.items()
    }
    if working == device.gates:
        return device
    found = replace(device, gates={gate: places for gate, places in working.items() if places})
    _warn_of_broken(device.name, [[device.physical[q] for q in pair] for pair in device.coupling - found.coupling])
    return found


def _warn_of_broken(label: str, pairs: Iterable[Sequence[int]]) -> None:
    shown = [f"{min(pair)}-{max(pair)}" for pair in sorted(map(sorted, pairs))]
    if shown:
        more = f" and {len(shown) - 20} more pairs" if len(shown) > 20 else ""
        warnings.warn(f"{label}: no working gate on {' '.join(shown[:20])}{more}; left out", stacklevel=4)


def _chosen_qubits(label: str, size: int, qubits: Sequence[int]) -> list[int]:
    try:
        chosen = [int(q) for q in qubits]
        exact = all(a == b for a, b in zip(chosen, qubits, strict=True))
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise QasError(f"qubits is a list of qubit numbers such as [5, 3, 2], got {shortened(qubits)}")
    if not chosen:
        raise QasError("qubits must name at least one qubit, got none")
    if len(set(chosen)) != len(chosen):
        raise QasError(f"qubits must differ, got {chosen}")
    if min(chosen) < 0 or max(chosen) >= size:
        raise QasError(f"{label} has qubits 0..{size - 1}, got {chosen}")
    return chosen


# ---------------------------------------------------------------------- noise of native and of compiled gates
class _Native(NamedTuple):
    """What a gate does to the device besides its purpose."""

    channel: Channel | None
    duration: float
    """seconds"""

    def times(self, count: int) -> _Native:
        """So many of it, one after the other."""
        channel = self.channel
        if channel is not None and count > 1:
            channel = Channel(f"{channel.name} x{count}", np.linalg.matrix_power(channel.ptm, count))
        return _Native(channel, count * self.duration)

    def exchanged(self) -> _Native:
        """The same with the two qubits exchanged."""
        if self.channel is None:
            return self
        return _Native(Channel(self.channel.name, exchange_qubits(self.channel.ptm)), self.duration)


class _Compiled:
    """What all gates of our table cost on a device: its own, and those that are made of them."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.pulse = next((p for p, turn in _PULSES.items() if {p, turn} <= device.gates.keys()), "sx")
        self._known: dict[tuple[str, tuple[int, ...]], _Native] = {}

    def gates_on(self, place: tuple[int, ...]) -> Iterator[tuple[tuple[str, ...], _Native]]:
        """Gates on a qubit, or on a coupled pair in this order, with what they do there.

        Raises:
            QasError: a qubit whose pulse is not calibrated.
        """
        return self._one_qubit(place) if len(place) == 1 else self._two_qubits((place[0], place[1]))

    def native(self, gate: str, place: tuple[int, ...]) -> _Native:
        """Of a gate as calibrated."""
        if (gate, place) not in self._known:
            calibration = self.device.gates.get(gate, {}).get(place)
            found = _Native(None, 0.0) if calibration is None else self._calibrated(gate, place, calibration)
            self._known[gate, place] = found
        return self._known[gate, place]

    def _calibrated(self, gate: str, place: tuple[int, ...], calibration: Calibration) -> _Native:
        """As Aer's `basic_device_gate_errors`."""
        size, dim = 4 ** len(place), 2 ** len(place)
        duration = calibration.duration or 0.0
        ptm = np.eye(size)
        if duration:
            relax = [self._relaxation(qubit, duration) for qubit in place]
            ptm = relax[0] if len(place) == 1 else embed_pair(*relax)
        if calibration.error:
            # Average gate fidelity (d·F_process + 1)/(d + 1), with F_process = Tr(PTM)/4^n (Nielsen, 2002).
            fidelity = (dim * np.trace(ptm) / size + 1) / (dim + 1)
            error = min(calibration.error, dim / (dim + 1))
            if error > 1 - fidelity:
                p = dim * (error - (1 - fidelity)) / (dim * fidelity - 1)
                ptm = ptm @ depolarizing(min(p, size / (size - 1)), len(place)).ptm
        if np.array_equal(ptm, np.eye(size)):
            return _Native(None, duration)
        where = ",".join(str(self.device.physical[qubit]) for qubit in place)
        return _Native(Channel(f"{self.device.backend_name} {gate} {where}", ptm), duration)

    def _relaxation(self, qubit: int, duration: float) -> np.ndarray:
        t1, t2 = self.device.t1[qubit], self.device.t2[qubit]
        return relaxation_ptm(t1, min(t2, 2 * t1), duration)

    def _one_qubit(self, place: tuple[int, ...]) -> Iterator[tuple[tuple[str, ...], _Native]]:
        table = self.device.gates
        if place not in table.get(self.pulse, {}):
            number = self.device.physical[place[0]]
            raise QasError(f"{self.device.backend_name} has no calibration of {self.pulse} on qubit {number}")
        own = tuple(gate for gate in ONE_QUBIT_GATES if place in table.get(gate, {}))
        turn, pulse, flip = (self.native(gate, place) for gate in (_PULSES[self.pulse], self.pulse, "x"))
        twice = pulse.times(2) if self.pulse == "sx" else self.native("u3", place)
        for gates, native in (
            (_VIRTUAL, turn),
            (_ONE_PULSE, pulse),
            (("x", "y"), flip if "x" in own else twice),
            (_TWO_PULSES, twice),
        ):
            compiled = tuple(gate for gate in gates if gate not in own)
            if compiled:
                yield compiled, native
        for gate in own:
            yield (gate,), self.native(gate, place)

    def _two_qubits(self, pair: tuple[int, int]) -> Iterator[tuple[tuple[str, ...], _Native]]:
        once = next(found for gate in ENTANGLERS if (found := self._directed(gate, pair)) is not None)
        own = {gate: found for gate in TWO_QUBIT_GATES if (found := self._directed(gate, pair)) is not None}
        for gates, native in (
            (ENTANGLERS, once),
            (("rxx", "ryy", "rzz"), once.times(2)),
            (("swap",), once.times(3)),
        ):
            compiled = tuple(gate for gate in gates if gate in GATES and gate not in own)
            if compiled:
                yield compiled, native
        for gate, native in own.items():
            yield (gate,), native

    def _directed(self, gate: str, pair: tuple[int, int]) -> _Native | None:
        """A gate in the direction of the pair, else in the other one; None if it is calibrated in neither."""
        table = self.device.gates.get(gate, {})
        if pair in table:
            return self.native(gate, pair)
        return self.native(gate, pair[::-1]).exchanged() if pair[::-1] in table else None


# ---------------------------------------------------------------------- from a backend
def _read_backend(backend: Any, qubits: Sequence[int] | None) -> Device:
    name = getattr(backend, "name", None)
    label = name if isinstance(name, str) else type(backend).__name__
    target = getattr(backend, "target", None)
    if target is None or not hasattr(target, "qubit_properties"):
        raise QasError(f"a device is read from a calibrated BackendV2 with a target, got {label}")
    if target.num_qubits is None:
        raise QasError(f"backend {label} has no qubits of its own, so it has no calibration to read")
    chosen = list(range(target.num_qubits)) if qubits is None else _chosen_qubits(label, target.num_qubits, qubits)
    pulse = next((p for p, turn in _PULSES.items() if {p, turn} <= set(target.operation_names)), None)
    if pulse is None:
        raise QasError(f"a device has native rz and sx, but {label} has {_names(target.operation_names)}")
    gates, broken = _read_gates(target, chosen)
    if pulse not in gates or not any(c.error is not None or c.duration is not None for c in gates[pulse].values()):
        raise QasError(f"{label} has no calibration of {pulse}")
    _warn_of_broken(label, broken)
    calibrated = target.qubit_properties
    found = [calibrated[q] if calibrated else None for q in chosen]
    properties = _properties(backend)
    shown = label if qubits is None else f"{label}[{','.join(map(str, chosen))}]"
    return Device(
        shown,
        gates,
        tuple(_time(getattr(qubit, "t1", None)) for qubit in found),
        tuple(_time(getattr(qubit, "t2", None)) for qubit in found),
        tuple(_read_readout(target, properties, q) for q in chosen),
        tuple(chosen),
        _date(properties),
        _source(backend),
    )


def _read_gates(target: Any, chosen: list[int]) -> tuple[dict[str, Places], set[tuple[int, int]]]:
    """Calibrated gates by their new places, and the device's pairs whose entangler does not work."""
    number = {q: position for position, q in enumerate(chosen)}
    gates: dict[str, Places] = {}
    broken: set[tuple[int, int]] = set()
    for gate in sorted(_READ.intersection(target.operation_names)):
        places = {}
        for qubits, row in (target[gate] or {}).items():
            if qubits is None or not number.keys() >= set(qubits):
                continue
            error, duration = getattr(row, "error", None), getattr(row, "duration", None)
            if len(qubits) == 2 and _broken(row):
                broken |= {(min(qubits), max(qubits))} if gate in ENTANGLERS else set()
            elif row is not None and (error is not None or duration is not None):
                places[tuple(number[q] for q in qubits)] = Calibration(error, duration)
        if places:
            gates[gate] = places
    working = {frozenset(chosen[q] for q in place) for gate in ENTANGLERS for place in gates.get(gate, {})}
    return gates, {pair for pair in broken if frozenset(pair) not in working}


def _read_readout(target: Any, properties: Any, qubit: int) -> tuple[float, float]:
    """(p01, p10) of a qubit; twice their mean where only that is told, (0, 0) without calibration."""
    table = target["measure"] if "measure" in target.operation_names else None
    row = None if table is None else table.get((qubit,))
    names = ("prob_meas1_prep0", "prob_meas0_prep1")
    flips: list[Any] = [getattr(row, name, None) for name in names]
    with suppress(Exception):  # as of `_properties`
        known = properties.qubit_property(qubit)
        flips = [known[name][0] if told is None else told for name, told in zip(names, flips, strict=True)]
    p01, p10 = [getattr(row, "error", None) or 0.0] * 2 if None in flips else flips
    return float(p01), float(p10)


def _time(value: float | None) -> float:
    return math.inf if value is None or not value > 0 else float(value)


def _properties(backend: Any) -> Any:
    """What a backend of IBM tells beside its target; None where it tells nothing."""
    with warnings.catch_warnings(), suppress(Exception):  # whatever others do when asked for what they do not have
        warnings.simplefilter("ignore")
        return backend.properties()
    return None


def _date(properties: Any) -> str:
    """Day of the calibration; empty where it is not told."""
    with suppress(Exception):  # as of `_properties`
        return properties.last_update_date.date().isoformat()
    return ""


def _source(backend: Any) -> str:
    """Package, version and class of a backend."""
    from importlib.metadata import PackageNotFoundError, version

    package = type(backend).__module__.partition(".")[0]
    with suppress(PackageNotFoundError):
        package = f"{package.replace('_', '-')} {version(package)}"
    return f"{package} {type(backend).__name__}"


def _names(names: Iterable[str]) -> str:
    text = ", ".join(sorted(names))
    return text if len(text) < 100 else text[:100] + "…"


# ---------------------------------------------------------------------- devices by name
SHIPPED = (
    "fake_torino",
    "fake_fez",
    "fake_marrakesh",
    "fake_brisbane",
    "fake_sherbrooke",
    "fake_kyiv",
    "fake_mumbai",
    "fake_montreal",
    "fake_guadalupe",
    "fake_lagos",
)
"""Calibrations that come with this package, made by ``scripts/make_devices.py``."""


class _Shipped:
    """A calibration that comes with this package, read when it is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    @functools.cached_property
    def device(self) -> Device:
        path = files("qas") / "data" / "devices" / f"{self.name}.json"
        return Device.from_json(read_json(Path(str(path)), "a calibration"))

    @property
    def about(self) -> str:
        return str(self.device).partition(": ")[2]

    def __call__(self) -> Device:
        return self.device


DEVICES = Registry("devices", "device", {name: _Shipped(name) for name in SHIPPED})
"""Device name -> the device, or a function that returns it."""


def list_devices() -> dict[str, str]:
    """Device name -> one line about it. The fake backends of the extra ``ibm`` can be loaded besides."""
    return {name: DEVICES.about(name) for name in DEVICES}


def load_device(name: str | os.PathLike[str] | Device) -> Device:
    """A device by name, or from a file.

    Args:
        name: a name of `list_devices`; with the extra ``ibm`` also that of any fake backend of qiskit-ibm-runtime; a
            path ending in ``.json`` with what `Device.to_json` returns; a `Device`, which passes through.

    Raises:
        UnknownNameError: no such device; the nearest name is suggested.
        QasError: the file cannot be read, or describes no device.
    """
    if isinstance(name, Device):
        return name
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise QasError(f"a device is a name, a file or a Device, got {shortened(name)}")
    if text.lower().endswith(".json"):
        try:
            return Device.from_json(read_json(Path(text), "a description of a device", QasError))
        except QasError as error:
            raise QasError(f"{text}: {error}" if text not in str(error) else str(error)) from None
    if text not in DEVICES:
        return Device.from_backend(fake_backend(text))
    found = DEVICES[text]
    return found if isinstance(found, Device) else found()


def fake_backends() -> dict[str, Any]:
    """Name of each fake backend of qiskit-ibm-runtime -> its class; empty where the extra ``ibm`` is not installed."""
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError:
        return {}
    classes = {getattr(thing, "backend_name", None): thing for thing in vars(fake_provider).values()}
    return {name: thing for name, thing in classes.items() if isinstance(name, str)}


def fake_backend(name: str) -> Any:
    """A fake backend of qiskit-ibm-runtime.

    Raises:
        UnknownNameError: there is no such device.
        MissingExtraError: it may be one of the extra, which is not installed.
    """
    classes = fake_backends()
    if not classes and name.startswith("fake_"):
        raise MissingExtraError(f"device {name!r} (here are {', '.join(DEVICES)})", "ibm")
    if name not in classes:
        raise UnknownNameError("device", name, {*DEVICES, *classes})
    return classes[name]()
