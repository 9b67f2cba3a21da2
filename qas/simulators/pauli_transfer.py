"""The Pauli-transfer engine: exact density-matrix simulation with noise on a real vector of 4**n numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError, TooLargeError
from qas.gates import gate_spec
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel, exchange_qubits, unitary_ptm
from qas.simulators import _insertion_ptm as insertion_kernels
from qas.simulators import _ptm_program as programs
from qas.simulators import interrupt
from qas.simulators._entry import STATE, Call, Helped, address_of, addresses, aligned
from qas.simulators._ptm_schedule import actions
from qas.simulators._sums import from_derivatives
from qas.simulators._team import SEAT_SIZE, sit
from qas.simulators.base import Asked, check_angles
from qas.simulators.compiled import CompiledSimulator, finished
from qas.simulators.insertions import Curves
from qas.simulators.workers import memory_limit

MAX_QUBITS = 13
"""Largest register: one state of 13 qubits takes 0.5 GB; a gradient keeps about three, and up to
`GRADIENT_STATES` where noise has shrunk states too much to undo it."""

STORED_QUBITS = 6
"""States of at most so many qubits are kept for the gradient: reading them again is cheaper than undoing blocks."""

GRADIENT_BYTES, GRADIENT_STATES = 1 << 27, 11
"""Memory for the states of a gradient, the larger one of the two; beyond it they are calculated again."""

KEPT_BYTES = 1 << 28
"""Memory for states that insertion gradients keep; beyond it the circuit is run again segment by segment."""

PRECISIONS = {"double": np.float64, "single": np.float32}
SINGLE_RESOLUTION = 1e-5
"""Largest error of the expectation value of a Pauli string in single precision, up to some hundred gates."""

LOSS_LIMITS = {"double": 1e4, "single": 10.0}
"""How much undoing may enlarge rounding errors before a state is kept."""

_TURNED = {"X": (2, 3), "Y": (3, 1), "Z": (1, 2)}
_DENSE_CORE = np.full(16, -1)


class _Assembled:
    """A circuit as the kernels take it."""

    def __init__(self, program: programs.Program, places: np.ndarray) -> None:
        self.program = program
        self.places = places
        self._located: tuple[np.ndarray, np.ndarray] | None = None

    def located(self, index: np.ndarray) -> np.ndarray:
        """Where the strings of an observable stand in the final vector; the last answer is remembered."""
        held = self._located
        if held is None or held[0] is not index:
            held = self._located = (index, programs.located(index, self.places))
        return held[1]


class PauliTransferSimulator(CompiledSimulator):
    """Exact energies and gradients of noisy circuits, up to 13 qubits.

    Each gate, with its noise, acts as a local real map on the vector of Pauli expectation values (the Liouville-space
    form of Jones and Gacon, arXiv:2009.02823, for the gradient). The gradient takes the state back gate by gate and
    keeps states only where noise makes that inaccurate; its error stays below 1e-11 of the Hamiltonian's scale.

    Args:
        noise: a noise model, or None for a perfect device.
        precision: "double", or "single" for half the memory; see `SINGLE_RESOLUTION`.

    Raises:
        QasError: another precision.
    """

    name = "pauli-transfer"
    about = "with noise, compiled, exact gradients, up to 13 qubits"
    idle = True

    def __init__(self, noise: NoiseModel | None = None, *, precision: str = "double") -> None:
        super().__init__(noise)
        if precision not in PRECISIONS:
            raise QasError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.precision = precision
        self.resolution = SINGLE_RESOLUTION if precision == "single" else 0.0
        self._loss_limit = LOSS_LIMITS[precision]
        self._entry = programs.evaluate if precision == "double" else programs.evaluate_single
        self._n_ops = 0
        self._whole = np.zeros((64, programs.WHOLE_COLUMNS), np.int64)
        self._real = np.zeros((64, programs.REAL_COLUMNS))
        self._pool: list[np.ndarray] = [np.zeros((3, 256))]
        self._library: programs.Library | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), precision=self.precision), (self.noise,)

    # ------------------------------------------------------------------ operations
    def _operations(self, gate: Gate) -> list[tuple[int, int]]:
        """Rows of the library for one gate, as (operation, which of the gate's angles or -1)."""
        spec = gate_spec(gate.name)
        noise = None if self.noise is None else self.noise.channel(gate.name, gate.qubits)
        if spec.n_qubits == 1:
            (qubit,) = gate.qubits
            if gate.name == "u":
                # U(θ, φ, λ) is RZ(φ) RY(θ) RZ(λ) up to a phase.
                return [
                    *self._rotation("Z", qubit, 2),
                    *self._rotation("Y", qubit, 0),
                    *self._rotation("Z", qubit, 1, noise),
                ]
            if spec.axis:
                return self._rotation(spec.axis, qubit, 0, noise)
            ptm = unitary_ptm(spec.matrix())
            if noise is None or _loss(noise) <= programs.CHAIN_LIMIT:
                return [(self._add_one(qubit, ptm if noise is None else noise @ ptm), -1)]
            return [(self._add_one(qubit, ptm), -1), *self._lossy(qubit, noise)]
        if spec.axis:
            # A Clifford gate that turns the axis into Z on the second qubit, and its inverse.
            turn = _clifford_of(spec.axis)
            rotation = self._rotation("Z", gate.qubits[1], 0)
            return [*self._two(gate.qubits, turn), *rotation, *self._two(gate.qubits, turn.T, noise)]
        return self._two(gate.qubits, unitary_ptm(spec.matrix()), noise)

    def _rotation(self, axis: str, qubit: int, which: int, noise: np.ndarray | None = None) -> list[tuple[int, int]]:
        if noise is not None and _loss(noise) > programs.CHAIN_LIMIT:
            return [*self._rotation(axis, qubit, which), *self._lossy(qubit, noise)]
        return [(self._add_one(qubit, np.eye(4) if noise is None else noise, turned=_TURNED[axis]), which)]

    def _lossy(self, qubit: int, noise: np.ndarray) -> list[tuple[int, int]]:
        """One-qubit noise that cannot be undone, as a core beside any other qubit."""
        low, high = (qubit - 1, qubit) if qubit else (0, 1)
        both = np.kron(noise, np.eye(4)) if qubit == high else np.kron(np.eye(4), noise)
        return self._core(low, high, np.eye(16), both)

    def _wait(self, qubit: int, ptm: np.ndarray) -> list[tuple[int, int]]:
        return self._lossy(qubit, ptm) if _loss(ptm) > programs.CHAIN_LIMIT else [(self._add_one(qubit, ptm), -1)]

    def _two(
        self, qubits: tuple[int, ...], clifford: np.ndarray, noise: np.ndarray | None = None
    ) -> list[tuple[int, int]]:
        if qubits[0] > qubits[1]:
            clifford, noise = exchange_qubits(clifford), None if noise is None else exchange_qubits(noise)
        return self._core(min(qubits), max(qubits), clifford, np.eye(16) if noise is None else noise)

    def _core(self, low: int, high: int, clifford: np.ndarray, noise: np.ndarray) -> list[tuple[int, int]]:
        """A two-qubit Clifford gate and noise, lower qubit first, as a core and one-qubit maps where it can be."""
        parts = _parts(noise)
        if parts is None:
            return [(self._add_dense(low, high, noise @ clifford), -1)]
        before, one, other, after = parts
        rows = [(self._add_core(low, high, clifford, before), -1)]
        for qubit, local in ((low, one), (high, other)):
            if np.any(local != np.eye(4)):
                rows.append((self._add_one(qubit, local), -1))
        if np.any(after != 1.0):
            rows.append((self._add_core(low, high, np.eye(16), after), -1))
        return rows

    def _add(self, kind: int, low: int, high: int, loss: float) -> int:
        op = self._n_ops
        if op == len(self._whole):  # what runs meanwhile goes on with the old tables
            self._whole = np.concatenate([self._whole, np.zeros_like(self._whole)])
            self._real = np.concatenate([self._real, np.zeros_like(self._real)])
        self._whole[op, [programs.KIND, programs.LOW, programs.HIGH]] = kind, low, high
        self._real[op, programs.LOSS] = loss
        self._n_ops, self._library = op + 1, None
        return op

    def _add_one(self, qubit: int, matrix: np.ndarray, turned: tuple[int, int] | None = None) -> int:
        op = self._add(0 if turned is None else 1, qubit, -1, _loss(matrix))
        whole, real = self._whole[op], self._real[op]
        whole[programs.PLAIN] = _plain(matrix)
        if turned is not None:
            whole[programs.TURNED], whole[programs.TURNED_TO] = turned
        real[programs.MATRIX : programs.MATRIX + 16] = matrix.ravel()
        real[programs.INVERSE : programs.INVERSE + 16] = np.linalg.inv(matrix).ravel()
        return op

    def _add_core(self, low: int, high: int, clifford: np.ndarray, factors: np.ndarray) -> int:
        source = np.abs(clifford).argmax(axis=1)
        factors = factors * np.sign(clifford[np.arange(16), source])
        smallest = float(np.abs(factors).min())
        op = self._add(2, low, high, 1.0 / smallest if smallest > 0.0 else np.inf)
        self._whole[op][programs.CORE :] = source
        self._real[op][programs.FACTOR : programs.FACTOR + 16] = factors
        return op

    def _add_dense(self, low: int, high: int, matrix: np.ndarray) -> int:
        loss = _loss(matrix)
        op = self._add(3, low, high, loss)
        self._whole[op][programs.POOL] = len(self._pool)
        self._whole[op][programs.CORE :] = _DENSE_CORE
        self._real[op][programs.FACTOR : programs.FACTOR + 16] = 1.0
        inverse = np.linalg.inv(matrix) if loss < LOSS_LIMITS[self.precision] else np.zeros((16, 16))
        self._pool.append(np.array([matrix.ravel(), inverse.ravel(), matrix.T.ravel()]))
        return op

    @property
    def library(self) -> programs.Library:
        with self._lock:  # another thread may be adding an operation
            if self._library is None:
                pool = np.array(self._pool, dtype=PRECISIONS[self.precision])
                self._library = programs.Library(self._whole[: self._n_ops], self._real[: self._n_ops], pool)
            return self._library

    def _assembled(self, n_qubits: int, ops: np.ndarray, slots: np.ndarray) -> _Assembled:
        n_qubits = max(n_qubits, 2)
        steps = np.zeros((1 + 2 * n_qubits + len(ops), programs.COLUMNS), np.int64)
        factors, places = np.zeros((len(ops), 2), np.int64), np.zeros(n_qubits, np.int64)
        library, limit = self.library, self._loss_limit
        programs.plan(library, ops, slots, n_qubits, STORED_QUBITS, limit, steps, factors, places)
        room = self.gradient_bytes(n_qubits) // np.dtype(PRECISIONS[self.precision]).itemsize
        home = int(steps[0, programs.HOME_SIZE])
        if home + steps[0, programs.KET_SIZE] > room:
            programs.place_kets(library, steps, factors, STORED_QUBITS, limit, max(1, (room - 2 * home) // 3))
        return _Assembled(programs.Program(steps, factors, actions(steps, room)), places)

    def gradient_bytes(self, n_qubits: int) -> int:
        state = 4 ** max(n_qubits, 2) * np.dtype(PRECISIONS[self.precision]).itemsize
        return min(max(GRADIENT_BYTES, GRADIENT_STATES * state), memory_limit())

    # ------------------------------------------------------------------ evaluation
    def check_size(self, n_qubits: int) -> None:
        size = 4**n_qubits * np.dtype(PRECISIONS[self.precision]).itemsize
        if n_qubits > MAX_QUBITS:
            raise TooLargeError(
                f"the pauli-transfer engine holds at most {MAX_QUBITS} noisy qubits, got {n_qubits}: one state would "
                f"take {size / 1e9:.1f} GB, a gradient at least {3 * size / 1e9:.0f} GB"
            )
        if 3 * size > memory_limit():
            raise TooLargeError(
                f"{n_qubits} noisy qubits need {3 * size / 1e9:.1f} GB, this machine has {memory_limit() / 1e9:.1f} GB"
            )

    def _observable(self, hamiltonian: Hamiltonian) -> tuple[np.ndarray, np.ndarray]:
        vector = hamiltonian.pauli_vector
        if self.noise is not None and self.noise.readout:
            vector = self.noise.apply_readout(vector)
        index = np.flatnonzero(vector)
        return index, vector[index]

    def _work(self, program: programs.Program, *, gradient: bool) -> programs.Work:
        """Memory of this thread, at least as large as the program needs."""
        header = program.steps[0]
        size = programs.VECTORS + int(header[programs.HOME_SIZE])
        if gradient:
            size += int(header[programs.KET_SIZE] + header[programs.SLOTS_SIZE])
        held = getattr(self._local, "work", None)
        if held is not None and len(held.state) >= size and len(held.maps) >= programs.MAPS + len(program.steps):
            return held
        dtype = np.dtype(PRECISIONS[self.precision])
        need = size * dtype.itemsize
        if need > memory_limit():
            raise TooLargeError(
                f"this circuit on {int(header[programs.N_DIGITS])} noisy qubits keeps {need / 1e9:.1f} GB of states, "
                f"this machine has {memory_limit() / 1e9:.1f} GB"
            )
        self._local.work = None  # the old memory is given back first
        self._forget_calls()
        work = self._local.work = _work(size, dtype, len(program.steps) + 32)
        return work

    def call(self, circuit: Circuit, hamiltonian: Hamiltonian, *, gradient: bool = True) -> Call:
        assembled = self.compiled(circuit)
        index, weight = self.observable(hamiltonian)
        return self._call(circuit, assembled.located(index), weight, gradient=gradient)

    def _call(
        self, circuit: Circuit, places: np.ndarray, weight: np.ndarray, *, gradient: bool, out: np.ndarray | None = None
    ) -> Call:
        program, library = self.compiled(circuit).program, self.library
        work = self._work(program, gradient=gradient)
        arrays = (*library, *program, *work, places, weight)
        columns = addresses(*library, *program, *work, work.state[programs.VECTORS :], places, weight)
        call = Call(self._entry, circuit.n_angles, [*columns, len(places)], arrays, out)
        if circuit.n_qubits >= programs.SHARED_DIGITS:
            seat = address_of(work.whole) + 8 * programs.SEAT
            call.helped = Helped(seat, lambda: self._helper(len(program.steps)))
        return call

    def _helper(self, n_rows: int) -> tuple[int, int, list[int], Any]:
        """What a helper has of its own: its seat, and columns of its table from `WORK` on."""
        work = _work(programs.VECTORS, np.dtype(PRECISIONS[self.precision]), n_rows)
        return address_of(work.whole) + 8 * programs.SEAT, programs.WORK, addresses(*work), work

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        values = check_angles(circuit, hamiltonian, angles)
        vector = self.pauli_expectations(circuit, values)
        if self.noise is None or not self.noise.readout:
            return vector[hamiltonian.pauli_index]
        flips = self.noise.readout_flips(circuit.n_qubits)
        letters = hamiltonian.letters
        result = np.empty(len(hamiltonian))
        for k, row in enumerate(letters):
            result[k] = _measured_term(vector, row, flips)
        return result

    def _insertion_slopes(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        circuit, hamiltonian, generators, angles, positions, channels = asked
        gates = self.gate_operations(circuit)
        n_qubits, n_gates = max(circuit.n_qubits, 2), len(circuit)
        room = 4 ** max(n_qubits, 4)
        dtype = np.dtype(PRECISIONS[self.precision])
        segment = max(n_gates, 1)
        if n_gates * room * dtype.itemsize > KEPT_BYTES:
            segment = math.ceil(math.sqrt(n_gates))
        size = insertion_kernels.VECTORS + (2 + -(-n_gates // segment) + segment) * room
        if size * dtype.itemsize > memory_limit():
            raise TooLargeError(
                f"insertion gradients of {n_gates} gates on {n_qubits} noisy qubits keep "
                f"{size * dtype.itemsize / 1e9:.1f} GB, this machine has {memory_limit() / 1e9:.1f} GB"
            )
        values = np.empty((len(positions), len(generators.expanded.strings)))
        costs = np.zeros((len(positions), len(generators.strings)))
        row_of = np.full(n_gates + 1, -1)
        row_of[positions] = np.arange(len(positions))
        energy = insertion_kernels.sweep(
            self.library,
            gates,
            angles,
            n_qubits,
            *self.observable(hamiltonian),
            aligned(size, dtype),
            segment,
            generators.expanded.tables,
            channels,
            row_of,
            values,
            costs,
            interrupt.current().address,
        )
        finished(energy)
        return generators.expanded.values(values, len(generators.strings)), costs

    def _append_curves(self, asked: Asked) -> tuple[Curves, np.ndarray, np.ndarray]:
        circuit, hamiltonian, generators, angles, _, channels = asked
        n_qubits = max(circuit.n_qubits, 2)
        vectors = aligned(insertion_kernels.VECTORS + 2 * 4 ** max(n_qubits, 4), np.dtype(np.float64))
        strings = Curves(np.zeros(len(generators.strings)), np.zeros(len(generators.strings)))
        derivatives, costs = np.zeros((len(generators.sums), 4)), np.zeros(len(generators.strings))
        insertion_kernels.append(
            self.pauli_expectations(circuit, angles),
            n_qubits,
            *self.observable(hamiltonian),
            vectors,
            generators.tables,
            generators.cosets,
            generators.scales,
            channels,
            *strings,
            derivatives,
            costs,
        )
        return strings, from_derivatives(derivatives), costs

    def pauli_expectations(self, circuit: Circuit, angles: np.ndarray | None = None) -> np.ndarray:
        """Tr(P ρ) of all 4**n Pauli strings before readout, float64; base-4 digit q is the letter of qubit q."""
        places = programs.located(np.arange(4**circuit.n_qubits), self.compiled(circuit).places)
        vector = np.empty(len(places))
        call = self._call(circuit, places, vector, gradient=False, out=vector)
        finished(call.run(STATE, circuit.angles if angles is None else angles))
        return vector


def _measured_term(vector: np.ndarray, letters: np.ndarray, flips: np.ndarray) -> float:
    """One Pauli string through the readout: each measured letter L becomes (1 - p01 - p10) L + (p10 - p01) I."""
    parts = {0: 1.0}
    for q, letter in enumerate(letters):
        if letter:
            p01, p10 = flips[q]
            kept = {index + (int(letter) << (2 * q)): w * (1 - p01 - p10) for index, w in parts.items()}
            shift = p10 - p01
            parts = kept | ({index: w * shift for index, w in parts.items()} if shift else {})
    return float(sum(w * vector[index] for index, w in parts.items()))


def _work(size: int, dtype: np.dtype, n_rows: int) -> programs.Work:
    """Memory for so many numbers and rows of a program, with the seat of a team of one."""
    whole = np.zeros(programs.SEAT + SEAT_SIZE, np.int64)
    sit(address_of(whole) + 8 * programs.SEAT, 0, 0, 1)
    return programs.Work(aligned(size, dtype), whole, np.empty((programs.MAPS + n_rows, 24)))


def _loss(matrix: np.ndarray) -> float:
    """Norm of the inverse: how much undoing the map may enlarge an error; infinite where it cannot be undone."""
    smallest = float(np.linalg.svd(matrix, compute_uv=False)[-1])
    if abs(smallest - 1.0) < 1e-12:
        return 1.0
    return 1.0 / smallest if smallest > 1e-300 else np.inf


def _plain(matrix: np.ndarray) -> bool:
    """Whether a one-qubit map is diagonal but for Z += g·I."""
    rest = matrix - np.diag(np.diag(matrix))
    rest[3, 0] = 0.0
    return not rest.any()


def _parts(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Two-qubit noise as factors, one map on each qubit (lower first), factors: what acts first stands first.

    None where it is no such product, or the one-qubit maps cannot be undone.
    """
    low, high = noise[:4, :4], noise[::4, ::4]  # what either qubit sees where the other is not looked at
    both = np.kron(high, low)
    ones = np.ones(16)
    for axis in (0, 1):
        weight = (both * both).sum(axis=axis)
        factors = (both * noise).sum(axis=axis) / np.where(weight > 0.0, weight, 1.0)
        rebuilt = both * (factors if axis == 0 else factors[:, None])
        if np.abs(rebuilt - noise).max() > 1e-15:
            continue
        if axis == 0:
            diagonals = [np.diag(m) if _plain(m) else np.ones(4) for m in (low, high)]
            local = [_shift(m) if _plain(m) else m for m in (low, high)]
            factors = factors * np.kron(diagonals[1], diagonals[0])
            if max(map(_loss, local)) <= programs.CHAIN_LIMIT:
                return factors, local[0], local[1], ones
        elif max(_loss(low), _loss(high)) <= programs.CHAIN_LIMIT:
            return ones, low, high, factors
    return None


def _shift(matrix: np.ndarray) -> np.ndarray:
    """What is left of a plain map after its diagonal."""
    left = np.eye(4)
    left[3, 0] = matrix[3, 0]
    return left


@functools.cache
def _clifford_of(axis: str) -> np.ndarray:
    """PTM of a Clifford gate that turns the Pauli string into Z on the second qubit, shape (16, 16)."""
    one = {"X": gate_spec("h").matrix(), "Y": gate_spec("rx").matrix(np.pi / 2), "Z": np.eye(2)}
    ptm = unitary_ptm(gate_spec("cx").matrix()) @ unitary_ptm(np.kron(one[axis[1]], one[axis[0]]))
    return np.rint(ptm)
