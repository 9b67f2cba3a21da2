"""Noise models in and out of Qiskit: Aer noise models, calibrated backends, and our models as Aer noise models.

Qiskit is imported inside the functions, so that importing this module is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from qas.checks import whole_number
from qas.errors import QasError
from qas.gates import GATES
from qas.noise import (
    ONE_QUBIT_GATES,
    TWO_QUBIT_GATES,
    Channel,
    NoiseModel,
    depolarizing,
    embed_pair,
    exchange_qubits,
    pauli_basis,
    thermal_relaxation,
)

WHOLE_DEVICE_LIMIT = 12
"""Largest device that `from_backend` reads without being told which qubits are in use."""

OPEN_ENDED_QUBITS = 16
"""Qubits described by `from_aer` when a model mixes all-qubit and local errors and no number is given."""

_IGNORED = frozenset({"id", "delay", "measure", "reset"})
_VIRTUAL = ("rz", "z", "s", "sdg", "t", "tdg")
_ONE_PULSE = ("h", "sx")
_TWO_PULSES = ("rx", "ry", "u")
_PULSES = {"sx": "rz", "u2": "u1"}
"""Native gate of one pulse -> native rotation about z, newest devices first."""
_ENTANGLERS = ("cx", "cz", "ecr")


# ---------------------------------------------------------------------- transfer matrices
def _basis_vectors(n_qubits: int) -> np.ndarray:
    """Column-stacked Pauli matrices as columns, complex128, shape (4**k, 4**k)."""
    return np.array([p.ravel(order="F") for p in pauli_basis(n_qubits)]).T


def _superoperator_ptm(superoperator: np.ndarray) -> np.ndarray:
    """PTM of a column-stacking superoperator as Qiskit's `SuperOp` holds it, float64, shape (4**k, 4**k)."""
    n_qubits = (len(superoperator).bit_length() - 1) // 2
    vectors = _basis_vectors(n_qubits)
    return (vectors.conj().T @ superoperator @ vectors).real / 2**n_qubits


def _kraus_operators(ptm: np.ndarray) -> list[np.ndarray]:
    """Kraus operators of a PTM, each complex128, shape (2**k, 2**k).

    Qiskit's own conversion drops Choi eigenvalues below 1e-8, which is visible at our accuracy.
    """
    size = math.isqrt(len(ptm))
    basis = pauli_basis(size.bit_length() - 1)
    choi = np.einsum("ij,jba,icd->acbd", ptm, basis, basis).reshape(len(ptm), -1) / size
    values, vectors = np.linalg.eigh((choi + choi.conj().T) / 2)
    kept = values > 1e-15
    return [
        math.sqrt(value) * vector.reshape(size, size).T
        for value, vector in zip(values[kept], vectors.T[kept], strict=True)
    ]


def _is_identity(ptm: np.ndarray) -> bool:
    return bool(np.array_equal(ptm, np.eye(len(ptm))))


# ---------------------------------------------------------------------- from Aer
def from_aer(noise_model: Any, n_qubits: int | None = None, strict: bool = True) -> NoiseModel:
    """Read a `qiskit_aer.noise.NoiseModel` exactly.

    All-qubit errors act everywhere, except where a local error on the same gate replaces them, as in Aer. Errors on
    ``id``, ``delay``, ``measure`` and ``reset`` instructions, and on gates that are not in our gate table (such as
    ``ecr``), are left out: no circuit of ours can trigger them. A reset *inside* an error (Aer writes thermal
    relaxation with T2 <= T1 that way) is part of the channel and is read exactly.

    The order of the qubits of a symmetric gate (cz, swap, rxx, ryy, rzz) has no meaning here: an error on one order of
    a pair acts on the other order too, and where Aer has different errors for the two, that of (lower, higher) is read.
    Where every two-qubit error of the model is local, their pairs become the result's `coupling`.

    Args:
        noise_model: the model to read.
        n_qubits: number of qubits in use; errors on higher qubits are left out, and the result refuses higher qubits.
            None: any number; only where an all-qubit error and a local error meet on one gate, the result describes
            the first `OPEN_ENDED_QUBITS` qubits (or as many as the model mentions) and refuses higher ones.
        strict: refuse models under which circuits of ours would run with less noise than the model means, such as
            `qiskit_aer.noise.NoiseModel.from_backend`, whose errors sit on a device's native gates only.

    Raises:
        QasError: not an Aer noise model, an error on more than two qubits, a readout error on several qubits at once,
            or a custom noise pass other than relaxation during delays. With `strict` also: an error on a two-qubit gate
            outside our gate table, errors on one-qubit gates but none on rx and ry, a cx error in only one direction of
            a pair, or an error that depends on the order of a symmetric gate's qubits.
    """
    for field in ("_default_quantum_errors", "_local_quantum_errors", "_local_readout_errors"):
        if not hasattr(noise_model, field):
            raise QasError(f"from_aer reads a qiskit_aer.noise.NoiseModel, got {type(noise_model).__name__}")
    if n_qubits is not None:
        whole_number("the number of qubits of a noise model", n_qubits)
    _refuse_what_cannot_be_read(noise_model)
    everywhere = {g: e for g, e in noise_model._default_quantum_errors.items() if g not in _IGNORED}
    local = {g: e for g, e in noise_model._local_quantum_errors.items() if g not in _IGNORED}
    reader = _ErrorReader()
    model = NoiseModel("aer", n_qubits=n_qubits)
    if strict:
        _refuse_noise_on_foreign_gates(everywhere, local)
        _refuse_errors_of_one_order(everywhere, local, n_qubits, reader)

    mixed = [g for g in everywhere if local.get(g) and g in GATES]
    described = n_qubits
    if mixed and described is None:
        described = max(OPEN_ENDED_QUBITS, *(1 + q for g in mixed for pair in local[g] for q in pair))
        model = replace(model, n_qubits=described)
    for gate, error in everywhere.items():
        if gate not in GATES:
            continue
        places: list[tuple[int, ...]] | None = None
        if gate in mixed:
            assert described is not None
            own = set(local[gate])
            if GATES[gate].symmetric:
                own |= {p[::-1] for p in own}
            places = [p for p in permutations(range(described), GATES[gate].n_qubits) if p not in own]
        model = model.add(reader.channel(f"aer {gate}", error), gate, places)
    for gate, errors in local.items():
        for qubits, error in errors.items():
            if gate not in GATES or (described is not None and max(qubits) >= described):
                continue
            if GATES[gate].symmetric and qubits[0] > qubits[1] and qubits[::-1] in errors:
                continue
            channel = reader.channel(f"aer {gate} {','.join(map(str, qubits))}", error)
            model = model.add(channel, gate, [tuple(qubits)])
    model = replace(model, coupling=_coupling(everywhere, local, n_qubits))
    return _read_readout(model, noise_model)


_Everywhere = Mapping[str, Any]
_Local = Mapping[str, Mapping[tuple[int, ...], Any]]


def _coupling(everywhere: _Everywhere, local: _Local, n_qubits: int | None) -> frozenset[tuple[int, int]] | None:
    """Pairs with a two-qubit error, if there are any and all of them are local."""
    pairs = {(min(q), max(q)) for errors in local.values() for q in errors if len(q) == 2}
    if not pairs or any(error.num_qubits == 2 for error in everywhere.values()):
        return None
    return frozenset(pair for pair in pairs if n_qubits is None or max(pair) < n_qubits)


def _refuse_noise_on_foreign_gates(everywhere: _Everywhere, local: _Local) -> None:
    sizes = {gate: error.num_qubits for gate, error in everywhere.items()}
    sizes |= {gate: len(next(iter(errors))) for gate, errors in local.items() if errors}
    foreign = sorted(gate for gate, size in sizes.items() if size == 2 and gate not in GATES)
    if foreign:
        raise QasError(
            f"from_aer would lose the errors on {', '.join(foreign)}, which no circuit here contains; read a device "
            "with NoiseModel.from_backend, or pass strict=False"
        )
    single = sorted(gate for gate, size in sizes.items() if size == 1)
    if single and not {"rx", "ry"} & set(single):
        raise QasError(
            f"the model has errors on {', '.join(single)} but none on rx and ry, which would run free of noise; read "
            "a device with NoiseModel.from_backend, or pass strict=False"
        )


def _refuse_errors_of_one_order(
    everywhere: _Everywhere, local: _Local, n_qubits: int | None, reader: _ErrorReader
) -> None:
    """Refuse asymmetric gates with an error in one direction only, symmetric ones with an error for each."""
    for gate in TWO_QUBIT_GATES:
        orders = [(gate, everywhere[gate], everywhere[gate])] if gate in everywhere else []
        for pair, error in local.get(gate, {}).items():
            if n_qubits is not None and max(pair) >= n_qubits:
                continue
            other = local[gate].get(pair[::-1])
            if other is not None:
                orders.append((f"{gate} on {pair} and {pair[::-1]}", error, other))
            elif not GATES[gate].symmetric and gate not in everywhere:
                raise QasError(
                    f"{gate} has an error on {pair} but none on {pair[::-1]}, which would run free of noise; add one, "
                    "or pass strict=False"
                )
        if GATES[gate].symmetric:
            for what, one, other in orders:
                turned = exchange_qubits(reader.channel(what, other).ptm)
                if not np.allclose(reader.channel(what, one).ptm, turned, rtol=0, atol=1e-12):
                    raise QasError(
                        f"the order of the qubits of {gate} has no meaning here, but the error on {what} depends on "
                        "it; make it symmetric, or pass strict=False"
                    )


def _refuse_what_cannot_be_read(noise_model: Any) -> None:
    from qiskit.circuit import Delay

    if getattr(noise_model, "_nonlocal_quantum_errors", None):
        raise QasError("from_aer reads errors on a gate's own qubits, got a nonlocal error")
    local = [(g, e) for g, errors in noise_model._local_quantum_errors.items() for e in errors.values()]
    for gate, error in [*noise_model._default_quantum_errors.items(), *local]:
        if error.num_qubits > 2:
            raise QasError(f"from_aer reads errors on 1 or 2 qubits, got {error.num_qubits} after {gate}")
    for noise_pass in noise_model._custom_noise_passes:
        # NoiseModel.from_backend always adds relaxation during delays; our circuits have none.
        kinds = getattr(noise_pass, "_ops", ())
        if not kinds or any(kind is not Delay for kind in kinds):
            raise QasError(f"from_aer cannot read a custom noise pass, got {type(noise_pass).__name__}")


def _read_readout(model: NoiseModel, noise_model: Any) -> NoiseModel:
    def flips(error: Any) -> tuple[float, float]:
        table = np.asarray(error.probabilities, dtype=np.float64)
        if table.shape != (2, 2):
            raise QasError(f"from_aer reads readout errors of single qubits, got a table of shape {table.shape}")
        return float(table[0, 1]), float(table[1, 0])

    if noise_model._default_readout_error is not None:
        model = model.add_readout(*flips(noise_model._default_readout_error))
    for qubits, error in noise_model._local_readout_errors.items():
        pair = flips(error)
        if model.n_qubits is None or qubits[0] < model.n_qubits:
            model = model.add_readout(*pair, [qubits[0]])
    return model


class _ErrorReader:
    """Turns Aer `QuantumError`s into channels; remembers the matrices of the instructions it has met."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], np.ndarray] = {}

    def channel(self, name: str, error: Any) -> Channel:
        total = np.zeros((4**error.num_qubits,) * 2)
        for circuit, probability in zip(error.circuits, error.probabilities, strict=True):
            step = np.eye(len(total))
            for instruction in circuit.data:
                places = [circuit.find_bit(bit).index for bit in instruction.qubits]
                step = self._embedded(instruction.operation, places, error.num_qubits) @ step
            total += probability * step
        return Channel(name, total)

    def _embedded(self, operation: Any, places: list[int], n_qubits: int) -> np.ndarray:
        key = (operation.name, n_qubits, *places, *(_hashable(p) for p in operation.params))
        if key not in self._known:
            self._known[key] = self._read(operation, places, n_qubits)
        return self._known[key]

    @staticmethod
    def _read(operation: Any, places: list[int], n_qubits: int) -> np.ndarray:
        from qiskit.quantum_info import SuperOp

        local = _superoperator_ptm(SuperOp(operation).data)
        if len(places) == n_qubits:
            return exchange_qubits(local) if places == [1, 0] else local
        identity = np.eye(4)
        return embed_pair(local, identity) if places == [0] else embed_pair(identity, local)


def _hashable(parameter: Any) -> Any:
    return parameter.tobytes() if isinstance(parameter, np.ndarray) else parameter


# ---------------------------------------------------------------------- from a calibrated device
def from_backend(backend: Any, qubits: Sequence[int] | None = None) -> NoiseModel:
    """Read the calibration of a Qiskit backend (`BackendV2` with a target), for the qubits in use only.

    Every native gate carries the channel that `qiskit_aer.noise.NoiseModel.from_backend` gives it at temperature 0: a
    depolarizing channel, then thermal relaxation (T2 cut to 2·T1) over the gate's duration on each of its qubits, with
    the depolarizing probability chosen so that both together have the reported average gate infidelity. Readout flips
    come from the measurement calibration. Qubits are renumbered: qubit i of the model is ``qubits[i]`` of the device.

    A gate that the device does not have natively carries the noise of the native gates it compiles to, all of it after
    the gate:

    ============================  ==========================================================================
    rz, z, s, sdg, t, tdg         the channel of the native rz: none where rz is virtual (error 0)
    sx, h                         one sx channel
    x, y                          one x channel; two sx channels where x is not native
    rx, ry, u                     two sx channels
    cx, cz                        one channel of the pair's native entangler (of cx, cz, ecr the first it has)
    rxx, ryy, rzz                 two channels of that entangler
    swap                          three channels of that entangler
    ============================  ==========================================================================

    On devices of before 2021 with native u1, u2, u3 the rotation about z is u1, the single pulse is u2, and the two
    pulses of rx, ry, u, x and y are one u3.

    The one-qubit gates around a compiled two-qubit gate add nothing. An entangler calibrated in both directions is
    taken in the direction of the gate, one calibrated in a single direction serves both, with its qubits exchanged.
    Symmetric gates (cz, swap, rxx, ryy, rzz) have one channel for a pair, that of the direction (lower, higher).
    Pairs without calibration, or with a reported error of 1 or more (IBM's mark for a broken pair), are not in
    `coupling`, and gates on them are refused. Noise during idle times and crosstalk are not in the model.

    Args:
        backend: a calibrated backend, for example from `qiskit_ibm_runtime.fake_provider`.
        qubits: device qubits in use, in the order of the model's qubits. None: the whole device, up to 12 qubits.

    Raises:
        QasError: no target or no calibration, no native rz and sx (or u1, u2 and u3), more than 12 qubits without
            `qubits`, or qubits that are repeated or out of range.
    """
    device = getattr(backend, "name", None)
    label = device if isinstance(device, str) else type(backend).__name__
    target = getattr(backend, "target", None)
    if target is None or not hasattr(target, "qubit_properties"):
        raise QasError(f"from_backend reads a calibrated BackendV2 with a target, got {label}")
    if target.num_qubits is None:
        raise QasError(f"backend {label} has no qubits of its own, so it has no calibration to read")
    chosen = _chosen_qubits(label, target.num_qubits, qubits)
    pulse = next((p for p, turn in _PULSES.items() if {p, turn} <= set(target.operation_names)), None)
    if pulse is None:
        names = ", ".join(sorted(target.operation_names))
        shown = names if len(names) < 100 else names[:100] + "…"
        raise QasError(f"from_backend reads devices with native rz and sx, but {label} has {shown}")
    device_reader = _Device(label, target, chosen, pulse)
    name = label if qubits is None else f"{label}[{','.join(map(str, chosen))}]"
    model = NoiseModel(name, n_qubits=len(chosen), coupling=frozenset(device_reader.coupled_pairs()))
    for position in range(len(chosen)):
        for channel, gates in device_reader.one_qubit_noise(position):
            model = model.add(channel, gates, [position])
        flips = device_reader.readout(position)
        if any(flips):
            model = model.add_readout(*flips, [position])
    for a, b in sorted(model.coupling or ()):
        for pair in ((a, b), (b, a)):
            for channel, gates in device_reader.two_qubit_noise(pair):
                here = tuple(gate for gate in gates if pair == (a, b) or not GATES[gate].symmetric)
                if here:
                    model = model.add(channel, here, [pair])
    return model


def _chosen_qubits(label: str, size: int, qubits: Sequence[int] | None) -> list[int]:
    if qubits is None:
        if size > WHOLE_DEVICE_LIMIT:
            raise QasError(f"{label} has {size} qubits; choose the ones in use, for example qubits=[0, 1, 2, 3]")
        return list(range(size))
    try:
        chosen = [int(q) for q in qubits]
        exact = all(a == b for a, b in zip(chosen, qubits, strict=True))
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise QasError(f"qubits is a list of qubit numbers such as [5, 3, 2], got {qubits!r}")
    if not chosen:
        raise QasError("qubits must name at least one qubit, got none")
    if len(set(chosen)) != len(chosen):
        raise QasError(f"qubits must differ, got {chosen}")
    if min(chosen) < 0 or max(chosen) >= size:
        raise QasError(f"{label} has qubits 0..{size - 1}, got {chosen}")
    return chosen


class _Device:
    """The calibration of the chosen qubits; qubits are positions in `chosen`, not device numbers."""

    def __init__(self, label: str, target: Any, chosen: list[int], pulse: str) -> None:
        self.label = label
        self.pulse = pulse
        self.target = target
        self.chosen = chosen
        self._cache: dict[tuple[str, tuple[int, ...]], Channel | None] = {}

    def _properties(self, gate: str, places: tuple[int, ...]) -> Any:
        """Error and duration (s) of a native gate, or None."""
        if gate not in self.target.operation_names:
            return None
        table = self.target[gate]
        return None if table is None else table.get(tuple(self.chosen[p] for p in places))

    def _relaxation(self, place: int, duration: float) -> Channel:
        calibration = self.target.qubit_properties
        qubit = calibration[self.chosen[place]] if calibration else None
        t1, t2 = getattr(qubit, "t1", None), getattr(qubit, "t2", None)
        t1 = math.inf if t1 is None else t1
        t2 = 2 * t1 if t2 is None else min(t2, 2 * t1)
        return thermal_relaxation(t1, t2, duration)

    def native(self, gate: str, places: tuple[int, ...]) -> Channel | None:
        """What follows a native gate, as in Aer's `basic_device_gate_errors`; None if nothing does."""
        if (gate, places) not in self._cache:
            self._cache[gate, places] = self._native(gate, places)
        return self._cache[gate, places]

    def _native(self, gate: str, places: tuple[int, ...]) -> Channel | None:
        properties = self._properties(gate, places)
        if properties is None:
            return None
        size, dim = 4 ** len(places), 2 ** len(places)
        ptm = np.eye(size)
        if properties.duration:
            relax = [self._relaxation(p, properties.duration).ptm for p in places]
            ptm = relax[0] if len(places) == 1 else embed_pair(*relax)
        if properties.error:
            # Average gate fidelity (d·F_process + 1)/(d + 1), with F_process = Tr(PTM)/4^n (Nielsen, 2002).
            fidelity = (dim * np.trace(ptm) / size + 1) / (dim + 1)
            error = min(properties.error, dim / (dim + 1))
            if error > 1 - fidelity:
                p = dim * (error - (1 - fidelity)) / (dim * fidelity - 1)
                ptm = ptm @ depolarizing(min(p, size / (size - 1)), len(places)).ptm
        if _is_identity(ptm):
            return None
        where = ",".join(str(self.chosen[p]) for p in places)
        return Channel(f"{self.label} {gate} {where}", ptm)

    def _calibrated(self, gate: str, places: tuple[int, ...]) -> bool:
        properties = self._properties(gate, places)
        return properties is not None and properties.error is not None and properties.error < 1

    # ------------------------------------------------------------------ one qubit
    def one_qubit_noise(self, position: int) -> Iterator[tuple[Channel, tuple[str, ...]]]:
        """Channels on one qubit, with the gates that carry each of them."""
        place = (position,)
        pulse_properties = self._properties(self.pulse, place)
        if pulse_properties is None or (pulse_properties.error is None and pulse_properties.duration is None):
            raise QasError(f"{self.label} has no calibration of {self.pulse} on qubit {self.chosen[position]}")
        own = tuple(g for g in ONE_QUBIT_GATES if self._properties(g, place) is not None)
        turn, pulse, flip = (self.native(g, place) for g in (_PULSES[self.pulse], self.pulse, "x"))
        twice = _repeated(pulse, 2) if self.pulse == "sx" else self.native("u3", place)
        for channel, gates in (
            (turn, _VIRTUAL),
            (pulse, _ONE_PULSE),
            (flip if "x" in own else twice, ("x", "y")),
            (twice, _TWO_PULSES),
        ):
            compiled = tuple(g for g in gates if g not in own)
            if channel is not None and compiled:
                yield channel, compiled
        for gate in own:
            channel = self.native(gate, place)
            if channel is not None:
                yield channel, (gate,)

    def readout(self, position: int) -> tuple[float, float]:
        """(p01, p10) of the qubit; (0, 0) without calibration."""
        properties = self._properties("measure", (position,))
        if properties is None:
            return 0.0, 0.0
        p01 = getattr(properties, "prob_meas1_prep0", None)
        p10 = getattr(properties, "prob_meas0_prep1", None)
        if p01 is None or p10 is None:
            p01 = p10 = properties.error
        return (0.0, 0.0) if p01 is None else (float(p01), float(p10))

    # ------------------------------------------------------------------ two qubits
    def _entangler(self, pair: tuple[int, int]) -> tuple[str, tuple[int, int]] | None:
        """The native gate that makes entanglement on the pair, and the direction it is calibrated in."""
        for gate in _ENTANGLERS:
            for direction in (pair, pair[::-1]):
                if self._calibrated(gate, direction):
                    return gate, direction
        return None

    def coupled_pairs(self) -> Iterator[tuple[int, int]]:
        """Calibrated pairs (a, b), a < b."""
        for a in range(len(self.chosen)):
            for b in range(a + 1, len(self.chosen)):
                if self._entangler((a, b)) is not None:
                    yield a, b

    def _directed(self, gate: str, pair: tuple[int, int], direction: tuple[int, int]) -> Channel | None:
        channel = self.native(gate, direction)
        if channel is None or direction == pair:
            return channel
        return Channel(channel.name, exchange_qubits(channel.ptm))

    def two_qubit_noise(self, pair: tuple[int, int]) -> Iterator[tuple[Channel, tuple[str, ...]]]:
        """Channels on a coupled pair, first qubit first, with the gates that carry each of them."""
        found = self._entangler(pair)
        assert found is not None, "the pair is coupled"
        once = self._directed(found[0], pair, found[1])
        own: dict[str, Channel | None] = {}
        for gate in TWO_QUBIT_GATES:
            for direction in (pair, pair[::-1]):
                if gate not in own and self._calibrated(gate, direction):
                    own[gate] = self._directed(gate, pair, direction)
        for channel, gates in (
            (once, ("cx", "cz", "ecr")),
            (_repeated(once, 2), ("rxx", "ryy", "rzz")),
            (_repeated(once, 3), ("swap",)),
        ):
            compiled = tuple(g for g in gates if g not in own)
            if channel is not None and compiled:
                yield channel, compiled
        for gate, native in own.items():
            if native is not None:
                yield native, (gate,)


def _repeated(channel: Channel | None, times: int) -> Channel | None:
    if channel is None:
        return None
    return Channel(f"{channel.name} x{times}", np.linalg.matrix_power(channel.ptm, times))


# ---------------------------------------------------------------------- to Aer
def to_aer(model: NoiseModel, n_qubits: int) -> Any:
    """The model as a `qiskit_aer.noise.NoiseModel` for circuits of our gates on `n_qubits` qubits.

    Every gate and every choice of qubits gets its channel as a local error, and every qubit its readout error.
    Circuits must reach Aer untranspiled: a compiled gate has another name, and so another error. Aer cannot refuse
    gates outside `coupling`; they run without noise there.

    Raises:
        QasError: fewer than 1 qubit, or more than the model describes.
    """
    if n_qubits < 1:
        raise QasError(f"a noise model describes at least 1 qubit, got {n_qubits}")
    model.check_register(n_qubits)
    uses = []
    for gate, spec in GATES.items():
        for qubits in permutations(range(n_qubits), spec.n_qubits):
            ordered = (min(qubits), max(qubits))
            if len(qubits) == 1 or model.coupling is None or ordered in model.coupling:
                uses.append((gate, qubits))
    return aer_noise(model, n_qubits, uses)


def aer_noise(model: NoiseModel, n_qubits: int, uses: Iterable[tuple[str, tuple[int, ...]]]) -> Any:
    """As `to_aer`, with errors only for the gates on qubits named in `uses`: much faster for one circuit.

    Raises:
        CircuitError: a gate that the model refuses.
    """
    from qiskit.quantum_info import Kraus
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import QuantumError, ReadoutError

    result = AerNoiseModel(basis_gates=list(GATES))
    errors: dict[bytes, Any] = {}
    for gate, qubits in uses:
        ptm = model.channel(gate, qubits)
        if ptm is None or _is_identity(ptm):
            continue
        key = ptm.tobytes()
        if key not in errors:
            errors[key] = QuantumError(Kraus(_kraus_operators(ptm)))
            # Aer would drop noise weaker than 1e-8 as ideal, and takes most of the time to find that out.
            errors[key].ideal = lambda: False
        result.add_quantum_error(errors[key], gate, list(qubits), warnings=False)
    for error in errors.values():
        del error.ideal
    for qubit, (p01, p10) in enumerate(model.readout_flips(n_qubits)):
        if p01 or p10:
            result.add_readout_error(ReadoutError([[1 - p01, p01], [p10, 1 - p10]]), [qubit], warnings=False)
    return result
