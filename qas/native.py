"""Circuits in a device's own gates: virtual rz, pulses sx and x, and one entangling gate on calibrated pairs.

A run of one-qubit gates becomes ``rz``, ``rz sx rz`` or ``rz sx rz sx rz``, whichever is the shortest (McKay et al.,
Phys. Rev. A 96, 022330, 2017), or ``x rz``. What is left of rz at its end moves on through entangling gates that
commute with it, into the next run; equal entangling gates that meet cancel. The same pass makes any circuit native and
makes a native circuit shorter, so that a search can edit one as it likes and tidy it afterwards.

Runs are unit quaternions (w, x, y, z), the matrix w - i (x X + y Y + z Z). Angles are free unless told otherwise: what
is made of a circuit holds for all its angles, since a twin of it with other angles decides how many pulses a run needs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError
from qas.hamiltonians import Hamiltonian

ENTANGLERS = ("cx", "cz", "ecr")
PULSES = ("sx", "x")

TURNS = {"z": math.pi, "s": math.pi / 2, "sdg": -math.pi / 2, "t": math.pi / 4, "tdg": -math.pi / 4}
"""Gates that are rz by fixed angles, radians."""

NATIVE_TOLERANCE = 5e-4
"""In searches angles of native circuits this close to one that saves gates become that one before they are optimized,
radians."""

Quaternion = tuple[float, float, float, float]
Pair = tuple[int, int]


class NativeGates(NamedTuple):
    """The gates of a device, or of a patch of one."""

    entangler: str
    """cx, cz or ecr; empty where there is none"""
    directions: frozenset[Pair] | None
    """ordered pairs that carry it; None: all"""
    flip: bool
    """x is native"""

    def has(self, gate: Gate) -> bool:
        """Whether a gate is native where it stands."""
        if len(gate.qubits) == 1:
            return gate.name in ("rz", "sx") or (self.flip and gate.name == "x")
        return gate.name == self.entangler and (self.directions is None or gate.qubits in self.directions)

    def order(self, name: str, pair: Pair) -> Pair:
        """The order in which a coupled pair carries the entangler, that given if it may be.

        Raises:
            CircuitError: the pair is not coupled.
        """
        if self.entangler and self.directions is None:
            return pair
        held = self.directions if self.entangler and self.directions is not None else frozenset()
        if pair in held:
            return pair
        if pair[::-1] in held:
            return pair[1], pair[0]
        pairs = " ".join(f"{a}-{b}" for a, b in sorted({(min(p), max(p)) for p in held})) or "no pair"
        raise CircuitError(f"two-qubit gates act on coupled pairs only ({pairs}), got {name} on {pair[0]}-{pair[1]}")


class HasGates(Protocol):
    """A device, a patch of one, or an alphabet."""

    @property
    def native(self) -> NativeGates | None: ...


def _gates_of(where: NativeGates | HasGates) -> NativeGates:
    found = where if isinstance(where, NativeGates) else where.native
    if found is None:
        raise CircuitError("native gates are rz, sx, x and one of cx, cz and ecr, got others")
    return found


def native_set(gates: Collection[str], directions: Iterable[Pair] | None = None) -> NativeGates | None:
    """What a gate set is as native gates; None: it has others than rz, sx, x and at most one entangler.

    Args:
        gates: names.
        directions: ordered pairs that carry the entangler; None: all.
    """
    entanglers = [name for name in gates if name in ENTANGLERS]
    if not {"rz", "sx"} <= set(gates) <= {"rz", "sx", "x", *entanglers} or len(entanglers) > 1:
        return None
    pairs = None if directions is None else frozenset((a, b) for a, b in directions)
    return NativeGates(entanglers[0] if entanglers else "", pairs, "x" in gates)


def native(
    circuit: Circuit,
    gates: NativeGates | HasGates,
    *,
    whole: bool = False,
    free: bool = True,
    hamiltonian: Hamiltonian | None = None,
) -> Circuit:
    """The circuit in native gates, equal up to a global phase; no qubit is moved.

    Args:
        circuit: any; excitations are decomposed.
        gates: a device, a patch of one, or its gates.
        whole: keep the whole matrix, not the state that the circuit makes of |0…0⟩ alone.
        free: the circuit's angles may change: for all of them there are angles of the result, which does not depend
            on their values. Otherwise these angles alone count, and runs are as short as they allow.
        hamiltonian: what is measured at the end; rz before the measurement goes on qubits where all its terms are I or
            Z. None: keep the state.

    Raises:
        CircuitError: a two-qubit gate on a pair that is not coupled, or an alphabet of other gates.
    """
    unseen = set() if hamiltonian is None else _diagonal_qubits(hamiltonian)
    return _made(circuit, _gates_of(gates), whole, None if free else _EQUAL, unseen)


def tidied(
    circuit: Circuit,
    gates: NativeGates,
    *,
    angle_tolerance: float = 1e-9,
    whole: bool = False,
    fixed: bool = False,
) -> Circuit:
    """A circuit in native gates with no more of them than are needed; the circuit itself where nothing goes.

    Args:
        circuit: native, or with others inserted that become native.
        gates: of the device.
        angle_tolerance: runs that are this close to one of fewer pulses become that, and rz this close to nothing go,
            radians.
        whole: keep the whole matrix, not the state that the circuit makes of |0…0⟩ alone.
        fixed: turns about Z by multiples of π/4 are written as z, s, sdg, t and tdg, so that there are fewer angles to
            optimize; `with_rz` makes them native.

    Raises:
        CircuitError: as `native`.
    """
    made = _made(circuit, gates, whole, angle_tolerance, fixed=fixed)
    there = all(gates.has(gate) or (fixed and gate.name in TURNS) for gate in circuit)
    return circuit if there and _size(made) >= _size(circuit) else made


def with_rz(circuit: Circuit) -> Circuit:
    """The circuit with rz in the place of z, s, sdg, t and tdg; itself where there are none."""
    if not any(gate.name in TURNS for gate in circuit):
        return circuit
    gates = [Gate("rz", g.qubits, (TURNS[g.name],)) if g.name in TURNS else g for g in circuit]
    return Circuit(circuit.n_qubits, gates)


class Simplifies(Protocol):
    """A problem."""

    @property
    def whole_matrix(self) -> bool: ...
    def simplify(self, circuit: Circuit, angle_tolerance: float = 1e-9) -> Circuit: ...


def simplified(
    circuit: Circuit, problem: Simplifies, gates: NativeGates | None, angle_tolerance: float = 1e-9
) -> Circuit:
    """A circuit of the same energy with no more gates, native where a search is; `circuit` itself where nothing goes.

    Args:
        circuit: what is simplified.
        problem: what it is judged on.
        gates: those of the device, or None; turns about Z by fixed angles are written as `tidied` says.
        angle_tolerance: as of `tidied`, or of the problem's own `simplify`, radians.
    """
    if gates is None:
        return problem.simplify(circuit, angle_tolerance)
    return tidied(circuit, gates, angle_tolerance=angle_tolerance, whole=problem.whole_matrix, fixed=True)


# ---------------------------------------------------------------------- leaving gates out
def middles(circuit: Circuit) -> dict[int, int]:
    """Position of each sx and rz of a pair of pulses, ``sx rz sx`` -> that of its rz."""
    found: dict[int, int] = {}
    run: dict[int, list[int]] = {}
    for position, gate in enumerate(circuit):
        if len(gate.qubits) > 1:
            for qubit in gate.qubits:
                run.pop(qubit, None)
            continue
        (qubit,) = gate.qubits
        held = run.setdefault(qubit, [])
        held.append(position)
        if [circuit[k].name for k in held[-3:]] == ["sx", "rz", "sx"]:
            found |= dict.fromkeys(held[-3:], held[-2])
            held.clear()
    return found


def short_of(angle: float, name: str) -> float:
    """How far rz between two pulses is from an angle at which they are fewer, radians.

    Args:
        angle: of the rz.
        name: "rz" for no pulse at all, at π; "sx" for one of the two, at ±π/2.
    """
    if name == "rz":
        return _wrapped(angle - math.pi)
    return _wrapped(angle - math.copysign(math.pi / 2, _wrapped(angle)))


def remaining(circuit: Circuit, deleted: Collection[int]) -> list[Gate | None]:
    """The gates of a native circuit without some of them, at their positions; what is left is to be tidied.

    One pulse of two goes by the nearest angle at which one is enough, and both by that at which they do nothing.
    """
    found: list[Gate | None] = [None if k in deleted else gate for k, gate in enumerate(circuit)]
    pairs = middles(circuit)
    for position in sorted(deleted, key=lambda k: circuit[k].name, reverse=True):
        if position in pairs:
            middle = pairs[position]
            angle = circuit[middle].angles[0]
            found[position] = circuit[position]
            found[middle] = Gate("rz", circuit[middle].qubits, (angle - short_of(angle, circuit[position].name),))
    return found


def _made(
    circuit: Circuit,
    gates: NativeGates,
    whole: bool,
    tolerance: float | None,
    unseen: Collection[int] = (),
    fixed: bool = False,
) -> Circuit:
    """Passes until no entanglers meet."""
    circuit = circuit.decompose(from_zero=not whole)
    while True:
        one = _Pass(circuit.n_qubits, gates, whole, tolerance, fixed)
        circuit = one.circuit(circuit, unseen)
        if not one.cancelled:
            return circuit


def pulse_count(circuit: Circuit) -> int:
    """Number of sx and x."""
    return sum(gate.name in PULSES for gate in circuit)


def _size(circuit: Circuit) -> tuple[int, int, int, int]:
    return circuit.two_qubit_gates, pulse_count(circuit), len(circuit), circuit.n_angles


def _diagonal_qubits(hamiltonian: Hamiltonian) -> set[int]:
    letters = [set(column) for column in zip(*hamiltonian.strings, strict=True)]
    return {q for q, held in enumerate(reversed(letters)) if held <= {"I", "Z"}}


# ---------------------------------------------------------------------- gates as quaternions
_R = math.sqrt(0.5)
_ONE: Quaternion = (1.0, 0.0, 0.0, 0.0)
_EIGHTH = math.cos(math.pi / 8), math.sin(math.pi / 8)
_FIXED: dict[str, Quaternion] = {
    "x": (0.0, 1.0, 0.0, 0.0),
    "y": (0.0, 0.0, 1.0, 0.0),
    "z": (0.0, 0.0, 0.0, 1.0),
    "h": (0.0, _R, 0.0, _R),
    "s": (_R, 0.0, 0.0, _R),
    "sdg": (_R, 0.0, 0.0, -_R),
    "t": (_EIGHTH[0], 0.0, 0.0, _EIGHTH[1]),
    "tdg": (_EIGHTH[0], 0.0, 0.0, -_EIGHTH[1]),
    "sx": (_R, _R, 0.0, 0.0),
    "sxdg": (_R, -_R, 0.0, 0.0),
}
_AXIS = {"rx": 1, "ry": 2, "rz": 3}
_EQUAL = 1e-9
"""Angles that differ by less are equal, where no other tolerance is asked for."""
_GENERIC = 0.6180339887498949
"""The twin's angles are fractional parts of its multiples: no two have anything to do with each other."""

Local = tuple[str, int]
"""A fixed one-qubit gate, by name, on the first (0) or second (1) qubit of a pair."""
_TO_CZ: dict[str, tuple[list[Local], list[Local]]] = {
    "cz": ([], []),
    "cx": ([("h", 1)], [("h", 1)]),
    "ecr": ([("h", 1)], [("h", 1), ("s", 0), ("x", 0), ("sx", 1)]),
}
"""Gate -> what stands before and after a CZ that is made that gate."""
_OF_CZ: dict[str, tuple[list[Local], list[Local]]] = {
    "cz": ([], []),
    "cx": ([("h", 1)], [("h", 1)]),
    "ecr": ([("h", 1)], [("x", 0), ("sdg", 0), ("sxdg", 1), ("h", 1)]),
}
"""Entangler -> what stands before and after it that is made a CZ."""
_TURNS = {"rxx": ("h", "h"), "ryy": ("sx", "sxdg"), "rzz": ("", "")}
"""What turns the axis into ZZ, and back."""
_LETTERS = {"cz": "ZZ", "cx": "ZX", "ecr": "-X"}
"""Paulis that an entangler commutes with, on its first and second qubit; ecr turns Z on the first round."""


def _times(a: Quaternion, b: Quaternion) -> Quaternion:
    """The product of matrices, b acting first."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def _turn(axis: int, angle: float) -> Quaternion:
    values = [math.cos(angle / 2), 0.0, 0.0, 0.0]
    values[axis] = math.sin(angle / 2)
    return values[0], values[1], values[2], values[3]


def _gate(name: str, angles: tuple[float, ...]) -> Quaternion:
    if name == "u":
        theta, phi, lam = angles
        return _times(_turn(3, phi), _times(_turn(2, theta), _turn(3, lam)))
    return _turn(_AXIS[name], angles[0]) if angles else _FIXED[name]


def _wrapped(angle: float) -> float:
    angle = math.remainder(angle, 2 * math.pi)
    return math.pi if angle <= -math.pi else angle


class _Form(NamedTuple):
    """rz(before), sx, rz(between), sx, rz(after), or its shorter kin."""

    before: float
    between: float
    after: float


def _polar(q: Quaternion) -> float:
    """Angle of the rotation about an axis of the equator that is left when rz is taken off on both sides, 0 to π."""
    w, x, y, z = q
    return 2 * math.atan2(math.hypot(x, y), math.hypot(w, z))


_NOTHING, _ONE_SX, _FLIP, _TWO_SX = range(4)
_PULSES_OF = (0, 1, 1, 2)


def _kind(q: Quaternion, tolerance: float) -> int:
    """The fewest pulses that make a run."""
    polar = _polar(q)
    for kind, angle in ((_NOTHING, 0.0), (_ONE_SX, math.pi / 2), (_FLIP, math.pi)):
        if abs(polar - angle) <= tolerance:
            return kind
    return _TWO_SX


def _forms(q: Quaternion, kind: int) -> list[_Form]:
    """Angles of a run of one kind: all choices that there are."""
    w, x, y, z = q
    total, gap = 2 * math.atan2(z, w), 2 * math.atan2(-x, y)  # φ + λ and φ - λ of RZ(φ) RY(θ) RZ(λ)
    if kind == _NOTHING:
        return [_Form(0.0, 0.0, total)]
    if kind == _FLIP:
        return [_Form(0.0, 0.0, gap + math.pi)]
    if kind == _ONE_SX:
        return [_Form((total - gap - math.pi) / 2, 0.0, (total + gap + math.pi) / 2)]
    polar = _polar(q)
    pairs = [(total, gap)]
    if polar < _EQUAL:  # the gap is free
        pairs = [(total, total), (total, -total)]
    elif math.pi - polar < _EQUAL:  # the sum is free
        pairs = [(gap, gap), (-gap, gap)]
    found = []
    for both, apart in pairs:
        phi, lam = (both + apart) / 2, (both - apart) / 2
        found += [
            _Form(lam, polar + math.pi, phi + math.pi),
            _Form(lam + math.pi, math.pi - polar, phi),
        ]
    return found


# ---------------------------------------------------------------------- the pass
class _Run(NamedTuple):
    """What becomes of a run: rz before, pulses, rz after; of each rz the angle, and that of the twin."""

    kind: int
    before: tuple[float, float]
    between: tuple[float, float]
    after: tuple[float, float]
    same: tuple[Gate | None, Gate | None, Gate | None] = (None, None, None)
    """the rz before, between and after the pulses, where they are those of the circuit"""


_STILL = 0.0, 0.0


class _Pass:
    """One way through a circuit: runs are gathered, and written when an entangler ends them.

    Args:
        tolerance: runs and rz within this of shorter ones become these, radians; None: only what is shorter at all
            angles.
        fixed: rz by a multiple of π/4, within the tolerance, becomes a gate without angle.
    """

    def __init__(
        self, n_qubits: int, gates: NativeGates, whole: bool, tolerance: float | None, fixed: bool = False
    ) -> None:
        self.n_qubits, self.gates, self.whole, self.tolerance, self.fixed = n_qubits, gates, whole, tolerance, fixed
        self.carried: list[tuple[float, float]] = [_STILL] * n_qubits
        """rz that moved here through entanglers, of each qubit, and of its twin"""
        self.run: list[list[tuple[str, tuple[float, ...], Gate | None]]] = [[] for _ in range(n_qubits)]
        """what follows it and is not written yet: names, angles, and the circuit's own gates"""
        self.out: list[Gate | None] = []
        self.held: list[list[int]] = [[] for _ in range(n_qubits)]
        """positions in `out` of what is written on each qubit"""
        self.cancelled = False
        """entanglers met: runs may stand side by side"""
        self._drawn = 0

    def circuit(self, circuit: Circuit, unseen: Collection[int] = ()) -> Circuit:
        """All gates of a circuit; rz at the end is left out on some qubits."""
        for gate in circuit:
            if len(gate.qubits) == 1:
                self.run[gate.qubits[0]].append((gate.name, gate.angles, gate))
            else:
                self._two(gate)
        for qubit in range(self.n_qubits):
            run = self._formed(qubit)
            after = self._write(qubit, run)
            if qubit not in unseen:
                self._rz(qubit, after, run.same[2])
        return Circuit(self.n_qubits, [gate for gate in self.out if gate is not None])

    def _two(self, gate: Gate) -> None:
        name, (a, b) = gate.name, gate.qubits
        if name == "swap":
            for pair in ((a, b), (b, a), (a, b)):
                self._entangled("cx", pair)
        elif gate.angles:
            into, back = _TURNS[name]
            self._locals([(into, 0), (into, 1)] if into else [], (a, b))
            self._entangled("cx", (a, b))
            self.run[b].append(("rz", gate.angles, None))
            self._entangled("cx", (a, b))
            self._locals([(back, 0), (back, 1)] if back else [], (a, b))
        elif name == self.gates.entangler and self.gates.has(gate):
            self._entangle((a, b), gate)
        else:
            self._entangled(name, (a, b))

    def _locals(self, gates: Iterable[Local], pair: Pair) -> None:
        for name, which in gates:
            self.run[pair[which]].append((name, (), None))

    def _entangled(self, name: str, pair: Pair) -> None:
        """cx, cz or ecr, by the entangler in an order that the pair carries."""
        order = self.gates.order(name, pair)
        if name == self.gates.entangler and order == pair:
            self._entangle(order)
            return
        (before, after), (inner_before, inner_after) = _TO_CZ[name], _OF_CZ[self.gates.entangler]
        self._locals(before, pair)
        self._locals(inner_before, order)
        self._entangle(order)
        self._locals(inner_after, order)
        self._locals(after, pair)

    # ------------------------------------------------------------------ entanglers
    def _entangle(self, pair: Pair, same: Gate | None = None) -> None:
        name = self.gates.entangler
        runs = [self._formed(q) for q in pair]
        still = [run.kind == _NOTHING for run in runs]
        ground = [one and self._in_ground(q) for one, q in zip(still, pair, strict=True)]
        if ground[0] or (ground[1] and name == "cz"):
            if name == "ecr":  # of |0⟩ it is a pulse on each qubit
                self._locals([("x", 0), ("sx", 1)], pair)
        elif not (all(still) and self._cancels(pair, runs)):
            for qubit, letter, run in zip(pair, _LETTERS[name], runs, strict=True):
                after = self._write(qubit, run)
                if letter == "X":
                    self._rz(qubit, after, run.same[2])
                else:
                    self.carried[qubit] = after if letter == "Z" else (-after[0], -after[1])
            self._append(same or Gate(name, pair))

    def _in_ground(self, qubit: int) -> bool:
        """Whether nothing is written on a qubit that is in |0⟩ at the start."""
        return not self.whole and not self.held[qubit]

    def _cancels(self, pair: Pair, runs: list[_Run]) -> bool:
        """Whether an entangler undoes an earlier one that it meets, which is then gone."""
        places = list(zip(pair, _LETTERS[self.gates.entangler], runs, strict=True))
        if any(letter == "X" and not self._vanishes(*run.after) for _, letter, run in places):
            return False
        found = {self._equal_before(qubit, letter, pair) for qubit, letter, _ in places}
        if None in found or len(found) > 1:
            return False
        (position,) = found
        assert position is not None
        self.out[position] = None
        self.cancelled = True
        for qubit, letter, run in places:
            self.held[qubit].remove(position)
            if letter == "-":
                self.carried[qubit], self.run[qubit] = (-run.after[0], -run.after[1]), []
        return True

    def _equal_before(self, qubit: int, letter: str, pair: Pair) -> int | None:
        """Position of the entangler on a pair that one can meet on a qubit."""
        for position in reversed(self.held[qubit]):
            gate = self.out[position]
            assert gate is not None
            if len(gate.qubits) == 1:
                if gate.name != "rz" or letter != "Z":
                    return None
            elif gate.qubits == pair or (gate.name == "cz" and gate.qubits == pair[::-1]):
                return position
            elif letter == "-" or _LETTERS[gate.name][gate.qubits.index(qubit)] != letter:
                return None
        return None

    # ------------------------------------------------------------------ runs
    def _formed(self, qubit: int) -> _Run:
        """What becomes of a run."""
        found = None if self.tolerance is None else self._as_it_is(qubit)
        return found or self._made(qubit)

    def _as_it_is(self, qubit: int) -> _Run | None:
        """A run that is as short as it gets by its gates alone; None: it must be made anew."""
        parts, twins = ([first, 0.0, 0.0] for first in self.carried[qubit])
        own: list[Gate | None] = [None, None, None]
        pulses = ""
        for name, angles, gate in self.run[qubit]:
            if name in TURNS or name == "rz":
                k = len(pulses)
                own[k] = None if parts[k] or not (self.fixed or name == "rz") else gate
                parts[k] += TURNS.get(name) or angles[0]
                twins[k] += TURNS.get(name) or self._others(1)[0]
            elif name == "sx" and pulses in ("", "s"):
                pulses += "s"
            elif name == "x" and not pulses:
                pulses = "x"
            else:
                return None
        kind = {"": _NOTHING, "s": _ONE_SX, "x": _FLIP, "ss": _TWO_SX}[pulses]
        if kind == _TWO_SX and abs(math.remainder(parts[1], math.pi / 2)) <= (self.tolerance or 0.0):
            return None
        before, between, after = zip(parts, twins, strict=True)
        last = own[2]
        if kind == _NOTHING:
            before, after, last = _STILL, before, own[0]
        elif kind == _FLIP:
            last = None if before[0] else own[1]
            before, after = _STILL, (between[0] - before[0], between[1] - before[1])
        elif kind == _ONE_SX:
            after, last = between, own[1]
        return _Run(kind, before, between, after, (own[0], own[1], last))

    def _made(self, qubit: int) -> _Run:
        """A run as short as its matrix, and that of its twin, allow."""
        run, twin = (_turn(3, angle) for angle in self.carried[qubit])
        for name, angles, _ in self.run[qubit]:
            matrix = _gate(name, angles)
            run = _times(matrix, run)
            if angles:
                matrix = _gate(name, self._others(len(angles)))
            twin = _times(matrix, twin)
        always = _kind(twin, _EQUAL)
        kind = always if self.tolerance is None else _kind(run, self.tolerance)
        if _PULSES_OF[kind] < _PULSES_OF[always]:
            twin = run
        else:
            kind = always
        here, there = self._chosen(_forms(run, kind), _forms(twin, kind), self._in_ground(qubit))
        before, between, after = zip(here, there, strict=True)
        return _Run(kind, before, between, after)

    def _others(self, count: int) -> tuple[float, ...]:
        """Angles of the twin."""
        self._drawn += count
        return tuple([0.4 + 0.9 * ((self._drawn - k) * _GENERIC % 1.0) for k in range(count)])

    def _chosen(self, forms: list[_Form], twins: list[_Form], ground: bool) -> tuple[_Form, _Form]:
        """A form of a run with the fewest rz, and one of its twin; where both count, angles that never change agree."""

        def gone(form: _Form) -> int:
            return (not ground and self._vanishes(form.before, form.before)) + self._vanishes(form.after, form.after)

        def agreeing(here: _Form, there: _Form) -> int:
            pairs = ((here.before, there.before), (here.after, there.after))
            return sum(abs(_wrapped(one - other)) < _EQUAL for one, other in pairs)

        if self.tolerance is not None:
            here = max(forms, key=gone)
            return here, twins[forms.index(here) % len(twins)]
        there = max(twins, key=gone)
        return max(forms, key=lambda here: agreeing(here, there)), there

    def _vanishes(self, angle: float, twin: float) -> bool:
        """Whether rz goes."""
        if self.tolerance is not None:
            return abs(_wrapped(angle)) < self.tolerance
        return abs(_wrapped(angle)) < _EQUAL and abs(_wrapped(twin)) < _EQUAL

    # ------------------------------------------------------------------ writing
    def _write(self, qubit: int, run: _Run) -> tuple[float, float]:
        """Write a run but for the rz at its end, which is returned, with that of the twin."""
        ground = self._in_ground(qubit)
        self.run[qubit], self.carried[qubit] = [], _STILL
        if not ground:
            self._rz(qubit, run.before, run.same[0])
        if run.kind == _FLIP and self.gates.flip:
            self._append(Gate("x", (qubit,)))
        elif run.kind != _NOTHING:
            self._append(Gate("sx", (qubit,)))
            if run.kind == _TWO_SX:
                self._append(run.same[1] or self._turn(qubit, run.between))
            if run.kind != _ONE_SX:
                self._append(Gate("sx", (qubit,)))
        return _STILL if ground and run.kind in (_NOTHING, _FLIP) else run.after  # of a basis state it is a phase

    def _rz(self, qubit: int, angles: tuple[float, float], same: Gate | None = None) -> None:
        if not self._vanishes(*angles):
            self._append(same or self._turn(qubit, angles))

    def _turn(self, qubit: int, angles: tuple[float, float]) -> Gate:
        """An rz, or the gate without angle that it always is."""
        angle = _wrapped(angles[0])
        for name, turn in TURNS.items() if self.fixed else ():
            if abs(_wrapped(angle - turn)) < (self.tolerance or _EQUAL):
                return Gate(name, (qubit,))
        return Gate("rz", (qubit,), (angle,))

    def _append(self, gate: Gate) -> None:
        for qubit in gate.qubits:
            self.held[qubit].append(len(self.out))
        self.out.append(gate)
