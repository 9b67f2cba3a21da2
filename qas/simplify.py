"""Removing gates that do nothing, to the state a circuit prepares from |0…0> or to its whole matrix."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Iterator
from itertools import islice, permutations

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError
from qas.gates import DIAGONAL_GATES, EXCITATIONS, GATES, gate_spec

_SELF_INVERSE = frozenset({"x", "y", "z", "h", "cx", "cz", "ecr", "swap"})


def simplify(circuit: Circuit, *, angle_tolerance: float = 1e-9, whole: bool = False) -> Circuit:
    """An equal circuit with no trivially redundant gates, for a register that starts in |0…0>.

    Repeats until nothing changes: neighbouring rotations about the same axis, and equal excitations, are added;
    neighbouring equal self-inverse gates cancel; rotations and excitations by a multiple of 2π go; gates that are
    diagonal on qubits still in |0⟩, excitations of such qubits, and CX whose control is still in |0⟩, go. The prepared
    state is the same up to a global phase.

    Args:
        circuit: what is simplified; returned itself if nothing goes.
        angle_tolerance: rotations closer than this to a multiple of 2π go, radians.
        whole: keep every column of the circuit's matrix, not the first alone: no gate goes because of |0⟩. The matrix
            is the same up to its sign.
    """
    gates, before = list(circuit.gates), -1
    while len(gates) != before:
        before = len(gates)
        gates = _pass(gates, circuit.n_qubits, angle_tolerance, whole)
    return circuit if len(gates) == len(circuit) else Circuit(circuit.n_qubits, gates)


def _pass(gates: list[Gate], n_qubits: int, tolerance: float, whole: bool) -> list[Gate]:
    kept: list[Gate | None] = []
    last: list[list[int]] = [[] for _ in range(n_qubits)]  # positions in `kept` of the gates on each qubit
    ground = [not whole] * n_qubits
    for gate in gates:
        name = gate.name
        qubits, spec = gate.qubits, GATES.get(name) or EXCITATIONS[name]
        first, second, many = qubits[0], qubits[-1], len(qubits) > 2
        if ground[first] or ground[second]:
            every = ground[first] and ground[second] and not (many and not all(ground[q] for q in qubits))
            if (
                (every and (name in DIAGONAL_GATES or spec.exchanges))
                or (name == "cx" and ground[first])
                or name == "cz"
            ):
                continue
        turns = spec.axis or spec.exchanges  # the same up to its sign after 2π
        small = turns and abs(math.remainder(gate.angles[0], 2 * math.pi)) < tolerance
        if small and (len(gate.angles) == 1 or _next_to_nothing(gate.angles, tolerance)):
            continue
        where = last[first][-1] if last[first] else -1
        if where >= 0 and last[second] and last[second][-1] == where and not (many and _apart(last, qubits)):
            partner = kept[where]
            if partner is not None and partner.name == name and _same_qubits(partner, gate, spec.symmetric):
                if turns:
                    angles = zip(partner.angles, gate.angles, strict=True)
                    kept[where] = partner.with_angles(tuple([a + b for a, b in angles]))
                    continue
                if name in _SELF_INVERSE:
                    kept[where] = None
                    for qubit in qubits:
                        last[qubit].pop()
                    continue
        position = len(kept)
        for qubit in qubits:
            last[qubit].append(position)
            ground[qubit] = False
        kept.append(gate)
    return [g for g in kept if g is not None]


def _apart(last: list[list[int]], qubits: tuple[int, ...]) -> bool:
    """Whether the last gates on some qubits differ."""
    return len({last[q][-1] if last[q] else -1 for q in qubits}) > 1


def _next_to_nothing(angles: tuple[float, ...], tolerance: float) -> bool:
    """Whether all angles are so close to multiples of 2π."""
    return all(abs(math.remainder(angle, 2 * math.pi)) < tolerance for angle in angles)


def _same_qubits(a: Gate, b: Gate, symmetric: bool) -> bool:
    return a.qubits == b.qubits or (symmetric and a.qubits == b.qubits[::-1])


# ---------------------------------------------------------------------- angles
def wrap_angles(circuit: Circuit) -> Circuit:
    """The same circuit with all angles in (-π, π]; its matrix is the same up to its sign."""
    wrapped = [math.remainder(angle, 2 * math.pi) for angle in circuit.angles.tolist()]
    return circuit.with_angles([math.pi if angle <= -math.pi else angle for angle in wrapped])


def without_small_rotations(circuit: Circuit, below: float) -> list[Circuit]:
    """The circuit without all its rotations closer to a multiple of 2π than `below`, then without one of them each.

    Excitations count as rotations.
    """
    small = [
        i for i, gate in enumerate(circuit) if gate.angles and gate.name != "u" and _next_to_nothing(gate.angles, below)
    ]
    choices = [small] + ([[i] for i in small] if len(small) > 1 else [])
    return [
        Circuit(circuit.n_qubits, [g for i, g in enumerate(circuit) if i not in chosen]) for chosen in choices if chosen
    ]


# ---------------------------------------------------------------------- other gate sets
_QUARTER = math.pi / 2


def rewritten(circuit: Circuit, gates: Iterable[str], *, whole: bool = False) -> Circuit:
    """An equal circuit of certain gates, up to a global phase, runs of one-qubit gates merged.

    Args:
        circuit: without excitations (see `Circuit.decompose`).
        gates: names that may be used.
        whole: keep the circuit's whole matrix, not the state that it makes of |0…0⟩ alone.

    Raises:
        CircuitError: a gate that cannot be made of them.
    """
    names = tuple(gates)
    made = merge_runs(_with_two_qubit_gates(circuit, names), names, whole=whole)
    for gate in made:
        if gate.name not in names:
            raise CircuitError(f"{gate.name} cannot be made of {', '.join(names)}")
    return made


def _with_two_qubit_gates(circuit: Circuit, names: tuple[str, ...]) -> Circuit:
    """The circuit with two-qubit gates outside a set made of those that are in it and one-qubit gates."""
    done: list[Gate] = []
    open_gates = list(reversed(circuit.gates))
    while open_gates:
        gate = open_gates.pop()
        known = len(gate.qubits) == 1 or gate.name in names or not {"cx", "cz"}.intersection(names)
        if known:
            done.append(gate)
        else:
            open_gates += reversed(_of_cx(gate))
    return Circuit(circuit.n_qubits, done)


def _of_cx(gate: Gate) -> list[Gate]:
    """A two-qubit gate by CX, or CX by CZ, and one-qubit gates."""
    a, b = gate.qubits
    there, back = Gate("cx", (a, b)), Gate("cx", (b, a))
    if gate.name in ("cx", "cz"):
        other = Gate("cz" if gate.name == "cx" else "cx", (a, b))
        return [Gate("h", (b,)), other, Gate("h", (b,))]
    if gate.name == "swap":
        return [there, back, there]
    if gate.name == "ecr":
        return [there, Gate("s", (a,)), Gate("x", (a,)), Gate("sx", (b,))]
    middle = [there, Gate("rz", (b,), gate.angles), there]
    if gate.name == "rzz":
        return middle
    name, first, last = ("h", (), ()) if gate.name == "rxx" else ("rx", (_QUARTER,), (-_QUARTER,))
    return [*(Gate(name, (q,), first) for q in (a, b)), *middle, *(Gate(name, (q,), last) for q in (a, b))]


# ---------------------------------------------------------------------- runs of one-qubit gates
def merge_runs(circuit: Circuit, gates: Iterable[str], *, whole: bool = False) -> Circuit:
    """An equal circuit whose runs of one-qubit gates are as short as a gate set allows.

    A run is what stands on one qubit between two gates on two qubits; it is a rotation of the Bloch sphere, and one
    ``u``, three rotations about two axes, or fewer, make any. A run at the beginning needs to make a state of |0⟩ only.
    Sequences of up to two fixed gates, or of one fixed gate and a rotation, are found too. A run with gates outside the
    set is rewritten where the set can make it, if need be longer.

    Args:
        circuit: what is shortened; returned itself if no run changes.
        gates: names that may be used.
        whole: keep the circuit's whole matrix up to a global phase, not the state that it makes of |0…0> alone.
    """
    names = [name for name in gates if gate_spec(name).n_qubits == 1]
    shorter: dict[int, list[Gate]] = {}
    for run, at_start in _runs(circuit):
        own = [circuit[i] for i in run]
        below = len(run) if all(gate.name in names for gate in own) else _LONGEST + 1
        found = _shortest(own, names, whole or not at_start, below)
        if found is not None:
            qubits = circuit[run[0]].qubits
            shorter |= {i: [] for i in run} | {run[0]: [Gate(name, qubits, angles) for name, angles in found]}
    if not shorter:
        return circuit
    return Circuit(circuit.n_qubits, [g for i, gate in enumerate(circuit) for g in shorter.get(i, [gate])])


def _runs(circuit: Circuit) -> Iterator[tuple[list[int], bool]]:
    """Positions of each run of one-qubit gates, and whether the qubit was in |0⟩ before it."""
    runs: dict[int, list[int]] = {}
    coupled: set[int] = set()
    for position, gate in enumerate(circuit):
        if len(gate.qubits) == 1:
            runs.setdefault(gate.qubits[0], []).append(position)
            continue
        for qubit in gate.qubits:
            if qubit in runs:
                yield runs.pop(qubit), qubit not in coupled
        coupled.update(gate.qubits)
    for qubit, run in runs.items():
        yield run, qubit not in coupled


_Sequence = list[tuple[str, tuple[float, ...]]]
_AXES = {name: np.eye(3)["XYZ".index(spec.axis)] for name, spec in GATES.items() if spec.axis and spec.n_qubits == 1}
_EQUAL = 1e-10
"""Matrices whose entries differ by less are the same."""
_LONGEST = 3
"""Gates of the longest run that is made."""


def _shortest(run: list[Gate], names: list[str], whole: bool, below: int) -> _Sequence | None:
    """The shortest sequence found, of fewer gates than `below`, that does the same as a run; None if there is none."""
    matrix = _product([(gate.name, gate.angles) for gate in run])
    for sequences in islice((_none, _singles, _pairs, _triples), below):
        for sequence in sequences(matrix, names, whole):
            difference = _product(sequence).conj().T @ matrix
            same = abs(difference[1, 0]) < _EQUAL
            if same and (not whole or abs(difference[0, 0] - difference[1, 1]) < _EQUAL):
                return sequence
    return None


def _product(sequence: _Sequence) -> np.ndarray:
    matrix = np.eye(2, dtype=complex)
    for name, angles in sequence:
        matrix = GATES[name].matrix(*angles) @ matrix
    return matrix


def _none(matrix: np.ndarray, names: list[str], whole: bool) -> Iterator[_Sequence]:
    yield []


def _singles(matrix: np.ndarray, names: list[str], whole: bool) -> Iterator[_Sequence]:
    """Each gate at the angles that come nearest."""
    for name in names:
        if name in _AXES:
            yield [(name, (_angle(matrix, name) if whole else _turn(name, np.eye(3)[2], _bloch(matrix)),))]
        elif GATES[name].n_angles == 0:
            yield [(name, ())]
    if "u" in names:
        yield [("u", u_angles(matrix))]


def _pairs(matrix: np.ndarray, names: list[str], whole: bool) -> Iterator[_Sequence]:
    """Two rotations, or a fixed gate before or after anything."""
    for first, second in permutations([name for name in names if name in _AXES], 2):
        yield _two_rotations(matrix, first, second) if whole else _two_turns(_bloch(matrix), first, second)
    for fixed in (name for name in names if GATES[name].n_angles == 0):
        gate = GATES[fixed].matrix()
        for sequence in _singles(gate.conj().T @ matrix, names, whole):
            yield [*sequence, (fixed, ())]
        for name in (name for name in names if name in _AXES):
            rest = matrix @ gate.conj().T
            angle = _angle(rest, name) if whole else _turn(name, _bloch(gate), _bloch(matrix))
            yield [(fixed, ()), (name, (angle,))]


def _triples(matrix: np.ndarray, names: list[str], whole: bool) -> Iterator[_Sequence]:
    """Euler's angles: every rotation of the sphere is three about two axes in turn."""
    w, vector = _quaternion(matrix)
    for outer, inner in permutations([name for name in names if name in _AXES], 2):
        a, b = _AXES[outer], _AXES[inner]
        qa, qb, qc = a @ vector, b @ vector, np.cross(a, b) @ vector
        total, gap = 2 * math.atan2(qa, w), 2 * math.atan2(qc, qb)
        middle = 2 * math.atan2(math.hypot(qb, qc), math.hypot(w, qa))
        yield [(outer, ((total - gap) / 2,)), (inner, (middle,)), (outer, ((total + gap) / 2,))]


def _quaternion(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """(w, v) with the matrix proportional to w - i v·σ."""
    m = matrix / cmath.sqrt(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    vector = [-(m[0, 1] + m[1, 0]).imag / 2, (m[1, 0] - m[0, 1]).real / 2, (m[1, 1] - m[0, 0]).imag / 2]
    return float((m[0, 0] + m[1, 1]).real / 2), np.array(vector)


def _bloch(matrix: np.ndarray) -> np.ndarray:
    """Bloch vector of the state that a matrix makes of |0⟩."""
    zero, one = matrix[:, 0]
    cross = complex(np.conj(zero) * one)
    return np.array([2 * cross.real, 2 * cross.imag, abs(zero) ** 2 - abs(one) ** 2])


def _angle(matrix: np.ndarray, name: str) -> float:
    """Angle of the rotation that comes nearest to a matrix."""
    w, vector = _quaternion(matrix)
    return 2 * math.atan2(_AXES[name] @ vector, w)


def _turn(name: str, start: np.ndarray, end: np.ndarray) -> float:
    """Angle that turns one Bloch vector nearest to another."""
    axis = _AXES[name]
    return math.atan2(axis @ np.cross(start, end), start @ end - (axis @ start) * (axis @ end))


def _two_rotations(matrix: np.ndarray, first: str, second: str) -> _Sequence:
    w, vector = _quaternion(matrix)
    a, b = _AXES[second], _AXES[first]
    qa, qb, qc = a @ vector, b @ vector, np.cross(a, b) @ vector
    half = math.atan2(qa, w) if math.hypot(qa, w) > math.hypot(qb, qc) else math.atan2(qc, qb)
    cos, sin = math.cos(half), math.sin(half)
    return [(first, (2 * math.atan2(qb * cos + qc * sin, w * cos + qa * sin),)), (second, (2 * half,))]


def _two_turns(end: np.ndarray, first: str, second: str) -> _Sequence:
    """From |0⟩: the first rotation sets the coordinate that the second one keeps."""
    axis, pole = _AXES[second], np.eye(3)[2]
    across = np.cross(_AXES[first], pole)  # where the first rotation moves the pole to
    kept, rest = axis @ end, math.sqrt(max(0.0, 1.0 - (axis @ end) ** 2))
    angle = math.atan2(rest, kept) if abs(axis @ pole) > 0.5 else math.atan2(kept * (axis @ across), rest)
    turned = math.cos(angle) * pole + math.sin(angle) * across
    return [(first, (angle,)), (second, (_turn(second, turned, end),))]


def u_angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """Angles of the ``u`` that is proportional to a matrix."""
    (a, b), (c, d) = matrix.tolist()
    theta = 2 * math.atan2(abs(c), abs(a))
    if abs(a) < 1e-9:
        return theta, cmath.phase(c) - cmath.phase(-b), 0.0
    phi = cmath.phase(c) - cmath.phase(a) if abs(c) > 1e-12 else 0.0
    return theta, phi, cmath.phase(d) - cmath.phase(a) - phi
