"""What appending each gate of an alphabet would do to a state: nothing at all, or how far the energy could fall."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.envs import _effects_kernels as kernels
from qas.excitations import generators_of
from qas.gates import PAULI_MATRICES, gate_spec
from qas.hamiltonians import Hamiltonian, string_masks
from qas.noise import NoiseModel
from qas.simulators.base import Simulator
from qas.simulators.insertions import Generator, pauli_generators
from qas.simulators.statevector import StatevectorSimulator

_SAME = 1e-12
"""Variances below this are none."""
_STANDS_AT_ZERO = 1e-3
"""Angles closer to a multiple of 2π than this, in radians, wait for what other gates make of them."""
MOST_QUBITS = 14
"""Largest register whose state vector is looked at after every gate."""


class PauliTable:
    """Expectation values of given Pauli strings, all from one state vector.

    Args:
        strings: of one length, in the order of the results.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = tuple(strings)
        self.column = {string: k for k, string in enumerate(self.strings)}
        masks = np.array([string_masks(string) for string in self.strings], dtype=np.int64).reshape(-1, 2)
        self._x, self._z = masks.T.copy()

    def __call__(self, psi: np.ndarray) -> np.ndarray:
        """Values, float64, shape (strings,), for a normalized state, complex128, shape (2**n,)."""
        values = np.empty(len(self.strings))
        kernels.expectations(np.ascontiguousarray(psi), self._x, self._z, values)
        return values


class Effects:
    """Which gates change a state by more than a phase, whatever their angles.

    A gate that is a fixed unitary U changes the state unless \\|⟨U⟩\\| = 1; one that turns about generators changes it
    unless ⟨G²⟩ = ⟨G⟩² for each of them. Both moments are linear in a few Pauli expectation values.

    Args:
        alphabet: the gates.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        n = alphabet.n_qubits
        self._simulator = StatevectorSimulator()
        moments = [(token, m) for token, gate in enumerate(alphabet.placed) for m in _moments(gate.name)]
        strings = dict.fromkeys(local_strings(n))
        places = []
        for token, pair in moments:
            qubits = alphabet.placed[token].qubits
            places.append([{_placed(s, qubits, n): value for s, value in moment.items()} for moment in pair])
            strings |= dict.fromkeys(itertools.chain(*places[-1]))
        self.paulis = PauliTable(strings)
        self._token = np.array([token for token, _ in moments], dtype=np.int64)
        starts: list[int] = [0]
        columns: list[int] = []
        weights: list[tuple[float, float, float]] = []
        for first, second in places:
            for string in dict.fromkeys((*first, *second)):
                columns.append(self.paulis.column[string])
                before = complex(first.get(string, 0.0))
                weights.append((before.real, before.imag, complex(second.get(string, 0.0)).real))
            starts.append(len(columns))
        self._starts, self._columns = np.array(starts, dtype=np.int64), np.array(columns, dtype=np.int64)
        self._weights = np.array(weights, dtype=np.float64).reshape(-1, 3)
        self._always = np.ones(len(alphabet), dtype=bool)
        self._always[self._token] = False

    def state(self, circuit: Circuit, simulator: StatevectorSimulator | None = None) -> np.ndarray:
        """The noise-free state that gates are judged on, complex128, shape (2**n,).

        Rotations that stand at angle 0 count as turned by one radian: what follows may put them to use.
        """
        return (simulator or self._simulator).state(circuit, _put_to_use(circuit.angles))

    def values(self, circuit: Circuit, simulator: StatevectorSimulator | None = None) -> np.ndarray:
        """Values of `paulis` of the noise-free state as it is.

        Args:
            simulator: one that knows the circuit already.
        """
        return self.paulis((simulator or self._simulator).state(circuit))

    def changes(self, paulis: np.ndarray) -> np.ndarray:
        """Which gates change the state, bool, shape (len(alphabet),), from the values of `paulis` of it."""
        changed = self._always.copy()
        kernels.mark(paulis, self._starts, self._columns, self._weights, self._token, _SAME, changed)
        return changed


def _put_to_use(angles: np.ndarray) -> np.ndarray:
    """Angles with 1 in the place of 0; the same array where there is none."""
    turned = angles.copy()
    return turned if kernels.replace_zeros(turned, _STANDS_AT_ZERO, 1.0) else angles


@functools.cache
def local_strings(n_qubits: int) -> tuple[str, ...]:
    """The identity, then all Pauli strings on one qubit and on two."""
    return ("I" * n_qubits, *pauli_generators(n_qubits))


def _placed(letters: str, qubits: tuple[int, ...], n_qubits: int) -> str:
    """Letters of a gate's qubits, in their order, as a string of the register."""
    string = ["I"] * n_qubits
    for qubit, letter in zip(qubits, letters, strict=True):
        string[n_qubits - 1 - qubit] = letter
    return "".join(string)


Moment = Mapping[str, complex]


@functools.cache
def _moments(name: str) -> tuple[tuple[Moment, Moment], ...]:
    """(U or G, 1 or G²) of a fixed gate or of each generator, by Pauli letters; none where it may do anything."""
    spec = gate_spec(name)
    one = {"I" * spec.n_qubits: 1.0 + 0j}
    if spec.axis:
        return (({spec.axis: 1.0 + 0j}, one),)
    if not spec.n_angles:
        return ((_letters(spec.matrix()), one),)
    found = []
    size, full = 1 << spec.n_qubits, (1 << spec.n_qubits) - 1
    for k in range(spec.n_angles if spec.exchanges else 0):
        generator = np.zeros((size, size), dtype=np.complex128)
        for state, weights in spec.exchanges:
            generator[full - state, state] += 1j * weights[k]
            generator[state, full - state] -= 1j * weights[k]
        found.append((_letters(generator), _letters(generator @ generator)))
    return tuple(found)


def _letters(matrix: np.ndarray) -> Moment:
    """A matrix as a sum of Pauli strings, the letter of the first qubit first."""
    n = len(matrix).bit_length() - 1
    found = {}
    for letters in itertools.product("IXYZ", repeat=n):
        pauli = functools.reduce(lambda low, letter: np.kron(PAULI_MATRICES[letter], low), letters, np.eye(1))
        value = complex(np.trace(pauli @ matrix)) / len(matrix)
        if abs(value) > 1e-12:
            found["".join(letters)] = value
    return found


# ---------------------------------------------------------------------- what a gate would bring
class Gains(NamedTuple):
    """What appending each gate would bring, all other angles held; float64, shape (len(alphabet),) each."""

    gain: np.ndarray
    """E - min E(θ) >= 0, problem's unit"""
    slope: np.ndarray
    """dE/dθ at θ = 0"""
    curvature: np.ndarray
    """d²E/dθ² at θ = 0; 0 where nothing is gained, and for excitations"""
    angle: np.ndarray
    """where the minimum lies, radians"""


class LookAhead:
    """Gains of all gates in closed form, from one sweep.

    A gate of one angle has its own curve a + b cos θ + c sin θ. A fixed gate is told what a rotation behind it on one
    of its qubits, with the gate undone after that, would bring at best: for CX rotations about XX, YX, ZY and ZZ. Where
    the alphabet makes none by that, all strings on its qubits count.

    Args:
        alphabet: the gates.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        n = alphabet.n_qubits
        columns: dict[Generator, int] = {}
        own = np.full(len(alphabet), -1, dtype=np.int64)
        choices: list[list[int]] = [[] for _ in alphabet.placed]
        turned = {(gate_spec(g.name).axis, g.qubits[0]) for g in alphabet.placed if len(g.qubits) == 1}
        for token, gate in enumerate(alphabet.placed):
            found = _generators(gate, turned, n)
            choices[token] = [columns.setdefault(generator, len(columns)) for generator in found]
            if len(gate.angles) == 1:
                own[token] = choices[token][0]
        self.generators = tuple(columns)
        self._sums = [k for k, generator in enumerate(self.generators) if not isinstance(generator, str)]
        width = max(map(len, choices))
        self._choices = np.array([(*c, *[len(columns)] * (width - len(c))) for c in choices], dtype=np.int64)
        self.turns = own >= 0
        """gates with one angle"""

    def __call__(self, circuit: Circuit, simulator: Simulator, hamiltonian: Hamiltonian) -> Gains:
        """Gains at the circuit's own angles; see `Simulator.append_gains`, which is called once.

        Raises:
            QasError: an engine without such a sweep.
        """
        gain, angle = simulator.append_gains(circuit, hamiltonian, self.generators)
        still = np.abs(angle) < 1e-12  # gains of rounding errors have no curve
        turn = np.where(still, 1.0, angle) / 2
        slope = np.where(still, 0.0, -gain / np.tan(turn))
        curvature = np.where(still, 0.0, gain * (0.5 / np.sin(turn) ** 2 - 1.0))
        if self._sums:
            chosen = [self.generators[k] for k in self._sums]
            slopes = simulator.insertion_gradients(circuit, hamiltonian, chosen, positions=[len(circuit)])
            slope[self._sums], curvature[self._sums] = slopes[0], 0.0
        table = np.append(np.stack([gain, slope, curvature, angle]), [[-1.0], [0.0], [0.0], [0.0]], axis=1)
        best = self._choices[np.arange(len(self._choices)), table[0][self._choices].argmax(axis=1)]
        found = table[:, best]
        found[0] = np.maximum(found[0], 0.0)
        return Gains(*found)


def _generators(gate: Gate, turned: set[tuple[str | None, int]], n_qubits: int) -> list[Generator]:
    """What a gate turns about; of a fixed one, or one of several angles, what it helps to turn about."""
    spec = gate_spec(gate.name)
    if spec.axis:
        return [_placed(spec.axis, gate.qubits, n_qubits)]
    if spec.exchanges:
        return list(generators_of(gate, n_qubits))
    every = ["".join(letters) for letters in itertools.product("XYZ", repeat=len(gate.qubits))]
    made = [] if spec.n_angles else _conjugated(gate, turned)
    return [_placed(letters, gate.qubits, n_qubits) for letters in made or every]


def _conjugated(gate: Gate, turned: set[tuple[str | None, int]]) -> list[str]:
    """U† P U of the one-qubit rotations that there are, where that is a string on both qubits."""
    matrix = gate_spec(gate.name).matrix()
    found: list[str] = []
    for place, qubit in enumerate(gate.qubits):
        for axis in "XYZ":
            letters = ["I"] * len(gate.qubits)
            letters[place] = axis
            pauli = functools.reduce(lambda low, letter: np.kron(PAULI_MATRICES[letter], low), letters, np.eye(1))
            made = _letters(matrix.conj().T @ pauli @ matrix)
            if (axis, qubit) in turned and len(gate.qubits) == 2 and len(made) == 1 and "I" not in next(iter(made)):
                found += made
    return found


# ---------------------------------------------------------------------- what a gate costs
class Costs(NamedTuple):
    """What each gate costs wherever it stands; float64, shape (len(alphabet),) each."""

    two_qubit_gates: np.ndarray
    duration: np.ndarray
    """in durations of the longest gate; 0 where the noise model has none"""
    infidelity: np.ndarray
    """1 - entanglement fidelity of its noise, to first order; 0 without noise"""


def costs_of(alphabet: Alphabet, noise: NoiseModel | None) -> Costs:
    """Costs of the gates of an alphabet under a noise model."""
    found = np.zeros((3, len(alphabet)))
    durations = {} if noise is None or noise.idle is None else noise.idle.durations
    for token, gate in enumerate(alphabet.placed):
        circuit = Circuit(alphabet.n_qubits, [gate]).decompose()
        found[0, token] = circuit.two_qubit_gates
        found[1, token] = sum(durations.get((g.name, g.qubits), 0.0) for g in circuit)
        ptms = [] if noise is None else [noise.channel(g.name, g.qubits) for g in circuit]
        found[2, token] = sum(1.0 - float(np.trace(ptm)) / len(ptm) for ptm in ptms if ptm is not None)
    found[1] /= found[1].max() or 1.0
    return Costs(*found)
