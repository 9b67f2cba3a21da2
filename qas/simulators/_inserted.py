"""Rotations as gates of a device: which gates they are, energies with them inserted, the noise they bring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError
from qas.gates import gate_spec
from qas.noise import NoiseModel, unitary_ptm

_TO_Z = {"X": ("ry", -math.pi / 2), "Y": ("rx", math.pi / 2)}
"""What turns a letter into Z."""


def places_of(string: str) -> list[tuple[int, str]]:
    """Qubit and letter where a Pauli string is not the identity, the lowest qubit first."""
    return [(q, letter) for q, letter in enumerate(reversed(string)) if letter != "I"]


def rotation_gates(string: str, angle: float) -> list[Gate]:
    """exp(-iθP/2) of a Pauli string, not the identity, in rx, ry, rz and cx.

    On one qubit it is a gate. On several, ry(-π/2) and rx(π/2) turn X and Y into Z, a chain of cx from the lowest qubit
    to the highest brings the parity there, rz turns it, and all is undone.
    """
    places = places_of(string)
    if len(places) == 1:
        ((qubit, letter),) = places
        return [Gate(f"r{letter.lower()}", (qubit,), (angle,))]
    turns = [(q, *_TO_Z[letter]) for q, letter in places if letter != "Z"]
    before = [Gate(name, (q,), (turn,)) for q, name, turn in turns]
    after = [Gate(name, (q,), (-turn,)) for q, name, turn in turns]
    chain = [Gate("cx", (a, b)) for (a, _), (b, _) in itertools.pairwise(places)]
    return [*before, *chain, Gate("rz", (places[-1][0],), (angle,)), *reversed(chain), *after]


def device_gates(string: str, noise: NoiseModel) -> list[Gate]:
    """The gates a device runs for a rotation about a string on one or two qubits, at angle 0.

    A rotation on one qubit is rx, ry or rz. One about XX, YY or ZZ is rxx, ryy or rzz where the model has noise for
    that gate; all others are made as `rotation_gates` says.

    Raises:
        CircuitError: a pair that the device does not couple, or a qubit it does not have.
    """
    places = places_of(string)
    letters = {letter for _, letter in places}
    if len(places) == 2 and len(letters) == 1:
        gate = Gate(f"r{2 * letters.pop().lower()}", tuple(q for q, _ in places), (0.0,))
        if noise.channel(gate.name, gate.qubits) is not None:
            return [gate]
    return rotation_gates(string, 0.0)


class Inserting:
    """Energies of a circuit with rotations really inserted.

    Args:
        energy: of a circuit.
        circuit: what is inserted into.
    """

    def __init__(self, energy: Callable[[Circuit], float], circuit: Circuit) -> None:
        self._energy, self._circuit = energy, circuit
        self._here = energy(circuit)

    def _at(self, position: int, rotations: Iterable[tuple[str, float]]) -> float:
        gates = self._circuit.gates
        new = [gate for string, angle in rotations for gate in rotation_gates(string, angle)]
        return self._energy(Circuit(self._circuit.n_qubits, (*gates[:position], *new, *gates[position:])))

    def curve(self, position: int, string: str) -> tuple[float, float]:
        """Slope and fall (see `Curves`) from the energies at ±π/2 (parameter shift)."""
        if set(string) == {"I"}:
            return 0.0, 0.0
        up, down = (self._at(position, [(string, sign * math.pi / 2)]) for sign in (1, -1))
        return (up - down) / 2, self._here - (up + down) / 2

    def sum_curve(self, terms: Mapping[str, float], scale: float) -> np.ndarray:
        """(α, β, γ, δ) of an appended sum of commuting strings, from four energies.

        Raises:
            QasError: strings that do not commute.
        """
        for one, other in itertools.combinations(terms, 2):
            if sum(a != b and "I" not in (a, b) for a, b in zip(one, other, strict=True)) % 2:
                raise QasError(f"this engine inserts sums of commuting strings, got {one} and {other}")
        end = len(self._circuit)
        shifts = np.array([math.pi / 4, math.pi / 2, -math.pi / 2, math.pi])
        sin, cos = np.sin(shifts), np.cos(shifts) - 1.0
        rises = [self._at(end, [(p, 2 * phi * w / scale) for p, w in terms.items()]) - self._here for phi in shifts]
        return np.linalg.solve(np.stack([sin, cos, sin * cos, cos**2], axis=1), rises)


# ---------------------------------------------------------------------- noise
class Channels(NamedTuple):
    """What inserted gates do at angle 0, less nothing, as maps of the Pauli strings of two qubits; pair by pair."""

    low: np.ndarray  # int64 (pairs,)
    high: np.ndarray  # int64 (pairs,)
    first: np.ndarray  # int64 (pairs + 1,): first gate of each pair
    column: np.ndarray  # int64 (gates,): where the cost belongs
    start: np.ndarray  # int64 (gates + 1,): first entry of each gate
    entry: np.ndarray  # int64 (entries,): 16 · row + column of the map, a local string being low + 4 · high
    value: np.ndarray  # float64 (entries,)
    missing: np.ndarray  # int64: columns of gates that the device does not have


def channels_table(strings: Sequence[str], n_qubits: int, noise: NoiseModel | None) -> Channels:
    """Maps of the rotations about strings on at most two qubits; a one-qubit gate gets any partner.

    Args:
        n_qubits: at least 2.

    Raises:
        QasError: a string on more than two qubits.
    """
    pairs: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    missing = []
    for column, string in enumerate(strings):
        places = places_of(string)
        if len(places) > 2:
            raise QasError(f"the noise of an inserted gate is known on one and two qubits, got {string!r}")
        if noise is None or not places:
            continue
        qubits = sorted({places[0][0], places[-1][0] if len(places) == 2 else (places[0][0] + 1) % n_qubits})
        try:
            change = _map(device_gates(string, noise), qubits, noise) - np.eye(16)
        except CircuitError:
            missing.append(column)
            continue
        if np.any(change):
            pairs.setdefault((qubits[0], qubits[1]), []).append((column, change.ravel()))
    gates = [gate for held in pairs.values() for gate in held]
    entries = [np.flatnonzero(change) for _, change in gates]
    values = [change[entry] for (_, change), entry in zip(gates, entries, strict=True)]
    return Channels(
        np.array([low for low, _ in pairs], dtype=np.int64),
        np.array([high for _, high in pairs], dtype=np.int64),
        np.cumsum([0, *map(len, pairs.values())], dtype=np.int64),
        np.array([column for column, _ in gates], dtype=np.int64),
        np.cumsum([0, *map(len, entries)], dtype=np.int64),
        np.concatenate([*entries, np.zeros(0, dtype=np.int64)]),
        np.concatenate([*values, np.zeros(0)]),
        np.array(missing, dtype=np.int64),
    )


def _map(gates: Iterable[Gate], qubits: Sequence[int], noise: NoiseModel) -> np.ndarray:
    """Transfer matrix of gates with their noise on two qubits, the first being the lower digit, shape (16, 16)."""
    total = np.eye(16)
    for gate in gates:
        matrix = unitary_ptm(gate_spec(gate.name).matrix(*gate.angles))
        channel = noise.channel(gate.name, gate.qubits)
        if channel is not None:
            matrix = channel @ matrix
        if len(gate.qubits) == 1:
            matrix = np.kron(np.eye(4), matrix) if gate.qubits[0] == qubits[0] else np.kron(matrix, np.eye(4))
        total = matrix @ total
    return total
