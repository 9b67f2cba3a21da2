"""Hardware noise: local channels attached to gates and qubits, and readout flips.

A channel acts after the gate it is attached to. Every channel is held as its Pauli transfer matrix (PTM)
``R_ij = Tr(P_i E(P_j)) / 2^k``, P in the order I X Y Z with the first qubit's letter varying fastest.

To add a channel, write a function that returns a `Channel`; to add a preset, register a function that returns a
`NoiseModel` (`NOISE`, or an entry point in the group ``qas.noise``); the first line of its docstring is shown in lists.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from qas.checks import finite_array, finite_number, sequence, shortened, whole_number
from qas.errors import CircuitError, NotPhysicalError, QasError, UnknownNameError
from qas.files import read_json
from qas.gates import GATES, PAULI_MATRICES, gate_spec
from qas.registry import Registry
from qas.schema import Count, Qubits, conform

if TYPE_CHECKING:
    from qas.circuits import Circuit
    from qas.idle import Idle

TOLERANCE = 1e-10
"""How far a channel may be from completely positive and trace preserving."""

ONE_QUBIT_GATES = tuple(name for name, spec in GATES.items() if spec.n_qubits == 1)
TWO_QUBIT_GATES = tuple(name for name, spec in GATES.items() if spec.n_qubits == 2)


@functools.cache
def pauli_basis(n_qubits: int) -> np.ndarray:
    """All 4**n Pauli matrices, complex128, shape (4**n, 2**n, 2**n); base-4 digit q is the letter of qubit q."""
    basis = np.ones((1, 1, 1), dtype=complex)
    for _ in range(n_qubits):
        basis = np.array([np.kron(PAULI_MATRICES[letter], lower) for letter in "IXYZ" for lower in basis])
    return basis


def unitary_ptm(matrix: np.ndarray) -> np.ndarray:
    """PTM of a unitary (or of one Kraus operator), float64, shape (4**k, 4**k)."""
    basis = pauli_basis(len(matrix).bit_length() - 1)
    moved = matrix @ basis @ matrix.conj().T
    return np.einsum("iab,jba->ij", basis, moved).real / len(matrix)


@dataclass(frozen=True, eq=False)
class Channel:
    """A completely positive, trace preserving map on 1 or 2 qubits.

    Raises:
        NotPhysicalError: the map is not CPTP to 1e-10; the message carries `name`.
    """

    name: str
    ptm: np.ndarray = field(repr=False)
    """float64, shape (4**k, 4**k)"""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise QasError(f"the name of a channel is text, got {shortened(self.name)}")
        named = f"channel {shortened(self.name)}"
        ptm = finite_array(f"the transfer matrix of {named}", self.ptm, error=NotPhysicalError)
        if ptm.shape not in ((4, 4), (16, 16)):
            raise QasError(f"{named} acts on 1 or 2 qubits, got a transfer matrix of shape {ptm.shape}")
        expected = np.zeros(len(ptm))
        expected[0] = 1.0
        loss = float(np.abs(ptm[0] - expected).max())
        if loss > TOLERANCE:
            raise NotPhysicalError(f"{named} is not trace preserving: off by {loss:.3g}")
        basis = pauli_basis(1 if len(ptm) == 4 else 2)
        choi = np.einsum("ij,jba,icd->acbd", ptm, basis, basis).reshape(len(ptm), -1) / len(ptm)
        lowest = float(np.linalg.eigvalsh((choi + choi.conj().T) / 2)[0])
        if lowest < -TOLERANCE:
            raise NotPhysicalError(f"{named} is not completely positive: Choi eigenvalue {lowest:.3g}")
        ptm[0] = expected
        ptm.flags.writeable = False
        object.__setattr__(self, "ptm", ptm)

    @property
    def n_qubits(self) -> int:
        return 1 if len(self.ptm) == 4 else 2

    def then(self, other: Channel) -> Channel:
        """This channel first, `other` second."""
        return Channel(f"{self.name}, {other.name}", other.ptm @ self.ptm)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Channel) and self.name == other.name and np.array_equal(self.ptm, other.ptm)

    def __hash__(self) -> int:
        return hash((self.name, self.ptm.tobytes()))


def _probability(what: str, value: Any, top: float = 1.0) -> float:
    return finite_number(what, value, least=0.0, most=top, error=NotPhysicalError)


def _time(what: str, value: Any) -> float:
    """Infinite where nothing decays."""
    return (
        math.inf
        if isinstance(value, float) and value == math.inf
        else finite_number(what, value, least=0.0, error=NotPhysicalError)
    )


def depolarizing(p: float, n_qubits: int = 1) -> Channel:
    """ρ -> (1-p) ρ + p I/2ⁿ on 1 or 2 qubits, as in Qiskit Aer; physical up to p = 4ⁿ/(4ⁿ-1).

    Raises:
        NotPhysicalError: p outside that range.
    """
    size = 4 ** whole_number("the number of qubits of a channel", n_qubits, 1, 2)
    p = _probability("depolarizing probability", p, size / (size - 1))
    return Channel(f"depolarizing({p:g})", np.diag([1.0] + [1.0 - p] * (size - 1)))


def thermal_relaxation(t1: float, t2: float, time: float, excited_population: float = 0.0) -> Channel:
    """Relaxation towards a thermal state over `time` (all three in the same unit, e.g. seconds).

    X and Y shrink by exp(-time/T2), Z relaxes to 1-2·excited_population at rate 1/T1 (as in Qiskit Aer).

    Raises:
        NotPhysicalError: negative time, T1 or T2 not positive, T2 > 2·T1, or a population outside [0, 1].
    """
    excited_population = _probability("excited population", excited_population)
    t1, t2, time = _time("T1", t1), _time("T2", t2), finite_number("time", time, least=0.0, error=NotPhysicalError)
    if not (t1 > 0 and t2 > 0):
        raise NotPhysicalError(f"thermal relaxation needs T1 > 0, T2 > 0, time >= 0, got {t1}, {t2}, {time}")
    if t2 > 2 * t1 * (1 + 1e-12):
        raise NotPhysicalError(f"thermal relaxation needs T2 <= 2·T1, got T1 = {t1}, T2 = {t2}")
    ptm = relaxation_ptm(t1, t2, time, excited_population)
    return Channel(f"thermal_relaxation(t/T1={time / t1:.4g}, t/T2={time / t2:.4g})", ptm)


def relaxation_ptm(t1: float, t2: float, time: float, excited_population: float = 0.0) -> np.ndarray:
    """PTM of `thermal_relaxation` for times that are physical; nothing is checked."""
    e1, e2 = math.exp(-time / t1), math.exp(-time / t2)
    ptm = np.diag([1.0, e2, e2, e1])
    ptm[3, 0] = (1 - e1) * (1 - 2 * excited_population)
    return ptm


def amplitude_damping(gamma: float, excited_population: float = 0.0) -> Channel:
    """Energy loss with probability `gamma` towards a thermal state with the given excited population."""
    gamma = _probability("amplitude damping gamma", gamma)
    excited_population = _probability("excited population", excited_population)
    ptm = np.diag([1.0, math.sqrt(1 - gamma), math.sqrt(1 - gamma), 1 - gamma])
    ptm[3, 0] = gamma * (1 - 2 * excited_population)
    return Channel(f"amplitude_damping({gamma:g})", ptm)


def phase_damping(gamma: float) -> Channel:
    """Loss of coherence: X and Y shrink by sqrt(1-gamma) (Nielsen and Chuang, section 8.3.6)."""
    gamma = _probability("phase damping gamma", gamma)
    return Channel(f"phase_damping({gamma:g})", np.diag([1.0, math.sqrt(1 - gamma), math.sqrt(1 - gamma), 1.0]))


def kraus(operators: Sequence[Any], name: str = "kraus") -> Channel:
    """ρ -> Σ_k K_k ρ K_k† from matrices of shape (2, 2) or (4, 4); the first qubit is the least significant bit.

    Raises:
        QasError: no operators, or wrong or different shapes.
        NotPhysicalError: Σ_k K_k† K_k differs from the identity.
    """
    what = f"a Kraus matrix of channel {shortened(name)}"
    arrays = [finite_array(what, k, complex_too=True) for k in sequence("Kraus matrices", operators)]
    if not arrays or any(a.shape not in ((2, 2), (4, 4)) or a.shape != arrays[0].shape for a in arrays):
        shapes = [a.shape for a in arrays]
        raise QasError(
            f"channel {shortened(name)} needs Kraus matrices that are all 2x2 or all 4x4, got shapes {shapes}"
        )
    return Channel(name, np.sum([unitary_ptm(k) for k in arrays], axis=0))


def embed_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """PTM of two one-qubit channels side by side, shape (16, 16); `first` acts on the gate's first qubit."""
    return np.kron(second, first)


def exchange_qubits(ptm: np.ndarray) -> np.ndarray:
    """A two-qubit PTM with its two qubits exchanged, shape (16, 16)."""
    return ptm.reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16)


@dataclass(frozen=True)
class Rule:
    """`channel` follows each of `gates` on each of `qubits` (None: everywhere).

    A one-qubit channel on a two-qubit gate acts on both qubits, or only on `target` (0 or 1) when given.

    The order of the qubits of a symmetric gate (cz, swap, rxx, ryy, rzz) has no meaning: there a rule on one order of a
    pair acts on the other order too, on the same qubits. In a rule that acts everywhere, the lower qubit comes first.
    """

    channel: Channel
    gates: tuple[str, ...]
    qubits: frozenset[tuple[int, ...]] | None = None
    target: int | None = None

    def names(self, qubits: tuple[int, ...]) -> bool:
        """Whether the rule is a local one, given for `qubits` in this order."""
        return self.qubits is not None and qubits in self.qubits

    def applies(self, gate: str, qubits: tuple[int, ...]) -> bool:
        """Whether noise of this rule follows `gate` on `qubits`."""
        if gate not in self.gates:
            return False
        if self.qubits is None or qubits in self.qubits:
            return True
        return GATES[gate].symmetric and qubits[::-1] in self.qubits

    def ptm(self, gate: str, qubits: tuple[int, ...]) -> np.ndarray:
        """PTM of the rule after `gate` on `qubits` where it applies, first qubit first, shape (4**k, 4**k)."""
        local = self.channel.ptm
        if len(qubits) == 2 and self.channel.n_qubits == 1:
            identity = np.eye(4)
            local = embed_pair(local if self.target != 1 else identity, local if self.target != 0 else identity)
        if GATES[gate].symmetric and (qubits[0] > qubits[1] if self.qubits is None else qubits not in self.qubits):
            return exchange_qubits(local)
        return local


class _Fields(TypedDict):
    name: str
    rules: tuple
    readout: Mapping[Any, Any]
    coupling: frozenset[Any] | None
    n_qubits: Qubits | None


class _ToldRule(TypedDict):
    name: str
    ptm: list[Any]
    gates: list[str]
    qubits: list[int | list[int]] | None
    target: int | None


class _Told(TypedDict):
    name: str
    rules: list[_ToldRule]
    readout: list[tuple[Count | None, float, float]]
    coupling: list[tuple[Count, Count]] | None
    n_qubits: Qubits | None
    idle: NotRequired[dict[str, Any] | None]


@dataclass(frozen=True, repr=False)
class NoiseModel:
    """Channels after gates, and readout flips. Immutable: `add` and `add_readout` return a new model.

    Rules act in the order they were added. Readout flips act on what is measured: an expectation value of a Pauli
    string shrinks by (1 - p01 - p10) for each measured qubit, with the offset (p10 - p01).
    """

    name: str = "custom"
    rules: tuple[Rule, ...] = ()
    readout: Mapping[int | None, tuple[float, float]] = field(default_factory=dict)
    """qubit (None: every other qubit) -> (p01, p10), the probabilities to read 1 for 0 and 0 for 1"""
    coupling: frozenset[tuple[int, int]] | None = None
    """undirected pairs that carry two-qubit gates; None: all"""
    n_qubits: int | None = None
    """number of qubits the model describes; None: any"""
    idle: Idle | None = None
    """relaxation of waiting qubits; None: waiting is free of noise"""

    def __post_init__(self) -> None:
        conform(vars(self), _Fields, "a noise model", error=QasError)

    def add(
        self,
        channel: Channel,
        gates: str | Iterable[str],
        qubits: Iterable[int | Sequence[int]] | None = None,
        *,
        target: int | None = None,
    ) -> NoiseModel:
        """The model with `channel` after each of `gates`, on `qubits` only when given.

        Args:
            channel: on 1 qubit (for two-qubit gates: acts on both, or on `target`) or 2 qubits.
            gates: names from the gate table.
            qubits: qubits, or pairs in the gate's own order, e.g. ``[(0, 1), (1, 0)]``. For symmetric gates (cz, swap,
                rxx, ryy, rzz) one order of a pair stands for both; where both are given they must say the same.
            target: 0 or 1: only the first or second qubit of a two-qubit gate (without `qubits`, the first qubit of a
                symmetric gate is the lower one).

        Raises:
            UnknownNameError: no such gate.
            QasError: a two-qubit channel on a one-qubit gate, a target that is not 0 or 1 or has nothing to choose
                from, or places that no gate can have: of the wrong number of qubits, negative or equal ones, beyond
                the model's register or its coupling.
        """
        if not isinstance(channel, Channel):
            raise QasError(f"noise is a Channel, got {shortened(channel)}")
        names = (gates,) if isinstance(gates, str) else sequence("gates with noise", gates)
        for name in names:
            if gate_spec(name).n_qubits < channel.n_qubits:
                raise QasError(f"a two-qubit channel needs a two-qubit gate, got {channel.name!r} on {name}")
            if target is not None and (channel.n_qubits == 2 or gate_spec(name).n_qubits == 1):
                raise QasError(
                    f"a target chooses where a one-qubit channel follows a two-qubit gate, got it for {name}"
                )
        if target is not None:
            target = whole_number("target", target, 0, 1)
        where = None if qubits is None else frozenset(_place(q) for q in sequence("qubits with noise", qubits))
        for name in names:
            for place in sorted(where or ()):
                if len(place) != gate_spec(name).n_qubits or len(set(place)) < len(place):
                    raise QasError(
                        f"{name} acts on {gate_spec(name).n_qubits} different qubit(s), got noise on {place}"
                    )
                self.check(name, place)
        return replace(self, rules=(*self.rules, Rule(channel, names, where, target)))

    def add_readout(self, p01: float, p10: float, qubits: Iterable[int] | None = None) -> NoiseModel:
        """The model with readout flips: p01 = P(read 1 | 0), p10 = P(read 0 | 1), on all qubits or those given."""
        pair = (_probability("readout flip p01", p01), _probability("readout flip p10", p10))
        most = None if self.n_qubits is None else self.n_qubits - 1
        where = [] if qubits is None else sequence("qubits that are read out", qubits)
        keys = [None] if qubits is None else [whole_number("a qubit that is read out", q, 0, most) for q in where]
        return replace(self, readout={**self.readout, **dict.fromkeys(keys, pair)})

    # ------------------------------------------------------------------ what the engines ask
    def check_register(self, n_qubits: int) -> None:
        """Refuse registers larger than the model describes.

        Raises:
            CircuitError: `n_qubits` exceeds the number of qubits of the model.
        """
        if self.n_qubits is not None and n_qubits > self.n_qubits:
            raise CircuitError(f"noise {self.name!r} describes {self.n_qubits} qubits, got {n_qubits}")

    def check(self, gate: str, qubits: tuple[int, ...]) -> None:
        """Refuse a gate the device does not have.

        Raises:
            CircuitError: a qubit the model does not describe, or a pair outside the coupling map.
        """
        if self.n_qubits is not None and max(qubits) >= self.n_qubits:
            raise CircuitError(f"noise {self.name!r} describes {self.n_qubits} qubits, got {gate} on {qubits}")
        if self.coupling is not None and len(qubits) == 2:
            a, b = sorted(qubits)
            if (a, b) not in self.coupling:
                pairs = " ".join(f"{i}-{j}" for i, j in sorted(self.coupling))
                raise CircuitError(f"noise {self.name!r} couples only {pairs}, got {gate} on {qubits}")

    def channel(self, gate: str, qubits: tuple[int, ...]) -> np.ndarray | None:
        """PTM of all noise after `gate` on `qubits`, shape (4**k, 4**k), or None if there is none.

        Raises:
            CircuitError: as `check`.
            QasError: rules that say different things about the two orders of a symmetric gate's qubits.
        """
        self.check(gate, qubits)
        rules = [rule for rule in self.rules if rule.applies(gate, qubits)]
        if not GATES[gate].symmetric:
            return _composed(rules, gate, qubits)
        if qubits[0] > qubits[1]:
            turned = self.channel(gate, qubits[::-1])
            return None if turned is None else exchange_qubits(turned)
        return _composed(_of_one_order(self.name, rules, gate, qubits), gate, qubits)

    def idle_channels(self, circuit: Circuit) -> list[list[tuple[int, np.ndarray]]] | None:
        """What waiting does: after each gate and its noise, (qubit, PTM of shape (4, 4)); None without idle noise.

        A qubit waits from the end of a gate to the start of its next one, or to the measurement (see `qas.idle`). The
        gates are those of the decomposed circuit.

        Raises:
            CircuitError: more qubits than idle noise describes.
        """
        return None if self.idle is None else self.idle.channels(circuit)

    def channels(self, circuit: Circuit) -> list[np.ndarray | None]:
        """PTM of all noise after each gate of a circuit of primitive gates, waiting included, as `channel`.

        Raises:
            CircuitError, QasError: as `channel` and `idle_channels`.
        """
        found = [self.channel(gate.name, gate.qubits) for gate in circuit]
        for k, waiting in enumerate(self.idle_channels(circuit) or ()):
            if waiting:
                found[k] = _then(found[k], circuit[k].qubits, dict(waiting))
        return found

    def readout_flips(self, n_qubits: int) -> np.ndarray:
        """(p01, p10) of each qubit, float64, shape (n_qubits, 2)."""
        default = self.readout.get(None, (0.0, 0.0))
        return np.array([self.readout.get(q, default) for q in range(n_qubits)], dtype=np.float64)

    def apply_readout(self, pauli_vector: np.ndarray) -> np.ndarray:
        """An observable's Pauli coefficients as seen through the readout, shape (4**n,)."""
        n = (len(pauli_vector).bit_length() - 1) // 2
        vector = np.array(pauli_vector, dtype=np.float64)
        for q, (p01, p10) in enumerate(self.readout_flips(n)):
            if p01 or p10:
                rows = vector.reshape(-1, 4, 4**q)
                rows[:, 0] += (p10 - p01) * rows[:, 1:].sum(axis=1)
                rows[:, 1:] *= 1.0 - p01 - p10
        return vector

    # ------------------------------------------------------------------ for people
    def __repr__(self) -> str:
        return f"<NoiseModel {self.name!r}: {len(self.rules)} rules on {self.n_qubits or 'any number of'} qubits>"

    def __str__(self) -> str:
        """A few lines: size, coupling, how much the commonest gates lose, how often readout errs."""
        pairs = "every pair coupled" if self.coupling is None else f"{len(self.coupling)} coupled pairs"
        lines = [f"noise {self.name}: {self.n_qubits or 'any number of'} qubits, {pairs}, {len(self.rules)} rules"]
        everywhere: dict[str, list[tuple[int, ...]]] = {"rx": [(0,)], "cx": [(0, 1)]}
        if self.coupling is not None:
            everywhere["cx"] = [*sorted(self.coupling)[:1]]
        for gate, default in everywhere.items():
            places = {place for rule in self.rules if gate in rule.gates for place in rule.qubits or default}
            held = [place for place in places if self.n_qubits is None or max(place) < self.n_qubits]
            losses = [infidelity(self.channel(gate, place)) for place in held]
            lines.append(f"  {gate}: {_range(losses)} average gate infidelity" if losses else f"  {gate}: no noise")
        flips = np.array([*self.readout.values()])
        lines.append(f"  readout: {_range(flips.ravel())} flipped" if len(flips) else "  readout: no flips")
        if self.idle is not None:
            lines.append(f"  waiting: T1 {_range(self.idle.t1)} s, T2 {_range(self.idle.t2)} s")
        return "\n".join(lines)

    # ------------------------------------------------------------------ constructors and conversions
    @classmethod
    def depolarizing(cls, p1: float, p2: float, *, per_qubit: bool = False) -> NoiseModel:
        """Depolarizing noise: `p1` after one-qubit gates, `p2` on the pair after two-qubit gates.

        With `per_qubit`, `p2` acts on each qubit of the pair separately, as in CRLQAS.
        """
        p1, p2 = finite_number("p1", p1, error=NotPhysicalError), finite_number("p2", p2, error=NotPhysicalError)
        model = cls(name=f"depolarizing({p1:g}, {p2:g})")
        if p1:
            model = model.add(depolarizing(p1), ONE_QUBIT_GATES)
        if p2:
            model = model.add(depolarizing(p2) if per_qubit else depolarizing(p2, 2), TWO_QUBIT_GATES)
        return model

    @classmethod
    def from_aer(cls, noise_model: Any, *, n_qubits: int | None = None, strict: bool = True) -> NoiseModel:
        """Read a `qiskit_aer.noise.NoiseModel`; see `qas.noise_import.from_aer`.

        With `strict`, models under which gates of ours would run free of noise by accident are refused.
        """
        from qas.noise_import import from_aer

        return from_aer(noise_model, n_qubits=n_qubits, strict=strict)

    @classmethod
    def from_backend(cls, backend: Any, *, qubits: Sequence[int] | None = None) -> NoiseModel:
        """The gates' noise and the readout of a calibrated Qiskit backend; waiting is free of noise.

        Args:
            backend: see `qas.Device.from_backend`.
            qubits: device qubits in use, in the order of the model's qubits. None: the whole device.

        Raises:
            QasError: as `qas.Device.from_backend` and `qas.Device.noise`.
        """
        from qas.devices import Device

        return Device.from_backend(backend, qubits=qubits).noise(idle=False)

    def to_aer(self, n_qubits: int) -> Any:
        """The model as a `qiskit_aer.noise.NoiseModel`; readout flips are attached for shot simulation."""
        from qas.noise_import import to_aer

        return to_aer(self, n_qubits)

    def to_json(self) -> dict[str, Any]:
        """Complete JSON-able description; `from_json` reads it back bit for bit."""
        return {
            "name": self.name,
            "rules": [
                {
                    "name": rule.channel.name,
                    "ptm": rule.channel.ptm.tolist(),
                    "gates": list(rule.gates),
                    "qubits": None if rule.qubits is None else sorted(map(list, rule.qubits)),
                    "target": rule.target,
                }
                for rule in self.rules
            ],
            "readout": [[qubit, *pair] for qubit, pair in self.readout.items()],
            "coupling": None if self.coupling is None else sorted(map(list, self.coupling)),
            "n_qubits": self.n_qubits,
            "idle": None if self.idle is None else self.idle.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NoiseModel:
        """Read what `to_json` wrote.

        Raises:
            QasError: missing or malformed fields.
        """
        from qas.idle import Idle

        conform(data, _Told, "the noise description", error=QasError)
        model = cls(name=data["name"])
        for rule in data["rules"]:
            channel = Channel(rule["name"], rule["ptm"])
            model = model.add(channel, rule["gates"], rule["qubits"], target=rule["target"])
        for qubit, p01, p10 in data["readout"]:
            model = model.add_readout(p01, p10, None if qubit is None else [qubit])
        coupling, idle = data["coupling"], data.get("idle")
        return replace(
            model,
            coupling=None if coupling is None else frozenset((a, b) for a, b in coupling),
            n_qubits=data["n_qubits"],
            idle=None if idle is None else Idle.from_json(idle),
        )


def _place(qubits: Any) -> tuple[int, ...]:
    """A qubit, or the qubits of a gate, as a tuple."""
    if isinstance(qubits, (str, bytes)) or not isinstance(qubits, Iterable):
        qubits = (qubits,)
    return tuple(whole_number("a qubit with noise", q, 0) for q in qubits)


def infidelity(ptm: np.ndarray | None) -> float:
    """1 - average gate fidelity of a channel (Nielsen, Phys. Lett. A 303, 249, 2002)."""
    if ptm is None:
        return 0.0
    size = math.isqrt(len(ptm))
    return float(1 - (np.trace(ptm) / size + 1) / (size + 1))


def _range(values: Any) -> str:
    low, high = (f"{bound:.2g}" for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _then(ptm: np.ndarray | None, qubits: tuple[int, ...], waiting: Mapping[int, np.ndarray]) -> np.ndarray:
    """`ptm` of a gate's noise, followed by one-qubit maps of some of its qubits."""
    maps = [waiting.get(qubit, _STAYS) for qubit in qubits]
    after = maps[0] if len(maps) == 1 else embed_pair(*maps)
    return after if ptm is None else after @ ptm


_STAYS = np.eye(4)


def _composed(rules: Iterable[Rule], gate: str, qubits: tuple[int, ...]) -> np.ndarray | None:
    """PTM of `rules` one after the other, or None without rules."""
    ptm = None
    for rule in rules:
        step = rule.ptm(gate, qubits)
        ptm = step if ptm is None else step @ ptm
    return ptm


def _of_one_order(model: str, rules: list[Rule], gate: str, qubits: tuple[int, ...]) -> list[Rule]:
    """The rules to apply to a symmetric gate: where both orders of its qubits have rules, those of one order."""
    other = qubits[::-1]
    forward = _composed((r for r in rules if r.names(qubits)), gate, qubits)
    backward = _composed((r for r in rules if r.names(other)), gate, other)
    if forward is None or backward is None:
        return rules
    if not np.allclose(forward, exchange_qubits(backward), rtol=0, atol=1e-12):
        raise QasError(
            f"the order of the qubits of {gate} has no meaning, but noise {model!r} differs on {qubits} and {other}; "
            "give it for one order"
        )
    return [rule for rule in rules if rule.qubits is None or rule.names(qubits)]


# ---------------------------------------------------------------------- presets
_MUMBAI_T1, _MUMBAI_T2, _MUMBAI_EXCITED = 122.286e-6, 167.2e-6, 0.0758466


def _mumbai(name: str, p1: float, p2: float, time1: float, time2: float, flip: float) -> NoiseModel:
    """CRLQAS section 4.2: depolarizing, then thermal relaxation, on every qubit a gate touches."""
    relax1 = thermal_relaxation(_MUMBAI_T1, _MUMBAI_T2, time1, _MUMBAI_EXCITED)
    relax2 = thermal_relaxation(_MUMBAI_T1, _MUMBAI_T2, time2, _MUMBAI_EXCITED)
    return (
        NoiseModel(name)
        .add(depolarizing(p1), ONE_QUBIT_GATES)
        .add(relax1, ONE_QUBIT_GATES)
        .add(depolarizing(p2), TWO_QUBIT_GATES)
        .add(relax2, TWO_QUBIT_GATES)
        .add_readout(flip, flip)
    )


def _ourense() -> NoiseModel:
    """IBM Ourense, 4 qubits with coupling 0-1, 1-2, 1-3 (CRLQAS, QCAS)

    The patch of the QCAS comparison (CRLQAS section 4.2).
    """
    t1 = (75.75e-6, 78.47e-6, 101.51e-6, 79.54e-6)
    t2 = (50.81e-6, 27.56e-6, 107.0e-6, 78.38e-6)
    flips = (0.0166, 0.0237, 0.0156, 0.0396)
    pairs = {(0, 1): 0.0098, (1, 2): 0.0095, (1, 3): 0.0130}
    model = NoiseModel("ibm-ourense", coupling=frozenset(pairs), n_qubits=4)
    for (a, b), p in pairs.items():
        model = model.add(depolarizing(p), TWO_QUBIT_GATES, [(a, b), (b, a)])
    for q in range(4):
        relax1 = thermal_relaxation(t1[q], t2[q], 35e-9, 0.0722037)
        relax2 = thermal_relaxation(t1[q], t2[q], 300e-9, 0.0722037)
        model = model.add(relax1, ONE_QUBIT_GATES, [q])
        for pair in pairs:
            if q in pair:
                other = pair[1 - pair.index(q)]
                model = model.add(relax2, TWO_QUBIT_GATES, [(q, other)], target=0)
                model = model.add(relax2, TWO_QUBIT_GATES, [(other, q)], target=1)
        model = model.add_readout(flips[q], flips[q], [q])
    return model


def _median() -> NoiseModel:
    """IBM Mumbai, median calibration of 2023-08-08 (CRLQAS)"""
    return _mumbai("ibm-mumbai", 2.44e-4, 8.25e-3, 35e-9, 416e-9, 0.0225)


def _worst() -> NoiseModel:
    """IBM Mumbai, worst calibrated values (CRLQAS)"""
    return _mumbai("ibm-mumbai-max", 1.4e-3, 0.0228, 35e-9, 739.556e-9, 0.0869)


def _ten_times_worst() -> NoiseModel:
    """IBM Mumbai, ten times the worst gate errors and times (CRLQAS)"""
    return _mumbai("ibm-mumbai-10max", 0.0148, 0.2303, 350e-9, 7395.56e-9, 0.0869)


def _depolarizing() -> NoiseModel:
    """depolarizing 1e-3 after one-qubit gates, 5e-3 on each qubit after two-qubit gates (CRLQAS)"""
    return replace(NoiseModel.depolarizing(1e-3, 5e-3, per_qubit=True), name="depolarizing")


NOISE = Registry(
    "noise",
    "noise",
    {
        "ibm-mumbai": _median,
        "ibm-mumbai-max": _worst,
        "ibm-mumbai-10max": _ten_times_worst,
        "ibm-ourense": _ourense,
        "depolarizing": _depolarizing,
    },
)
"""Preset name -> function that returns the model."""


def list_noise() -> dict[str, str]:
    """Preset name -> one line about it."""
    return {name: NOISE.about(name) for name in NOISE}


def load_noise(name: str | os.PathLike[str] | NoiseModel | None) -> NoiseModel | None:
    """A noise model by name, or from a file.

    Args:
        name: a preset; a path ending in ``.json`` with what `NoiseModel.to_json` returns; a `NoiseModel`, which passes
            through; None, "none" and "" mean no noise.

    Raises:
        UnknownNameError: no such preset; the nearest name is suggested.
        QasError: the file cannot be read, or describes no noise model; or the name of a device.
    """
    if name is None or isinstance(name, NoiseModel):
        return name
    if str(name) in ("none", ""):
        return None
    if str(name).lower().endswith(".json"):
        return _read(Path(name))
    found = _known(str(name))
    return found if isinstance(found, NoiseModel) else found()


def _known(name: str) -> Any:
    """A preset, or a function that returns it."""
    try:
        return NOISE[name]
    except UnknownNameError:
        from qas.devices import DEVICES

        if name not in DEVICES:
            raise
        rule = "a device has a noise model of its own for each patch"
        raise QasError(f"{rule}: name it as device (--device), or load_device({name!r}).patch(4).noise()") from None


def _read(path: Path) -> NoiseModel:
    data = read_json(path, "the noise file", QasError)
    try:
        return NoiseModel.from_json(data)
    except QasError as error:
        raise QasError(f"{path}: {error}") from None
