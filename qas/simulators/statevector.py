"""The state-vector engine: exact noise-free energies and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError, TooLargeError
from qas.gates import EXCITATIONS, gate_spec
from qas.hamiltonians import Hamiltonian, walsh_hadamard
from qas.noise import NoiseModel
from qas.simulators import _insertion_kernels as insertion_kernels
from qas.simulators import _sv_kernels as kernels
from qas.simulators import interrupt
from qas.simulators._entry import ENGINE, STATE, VALUE, Call, Helped, address_of, addresses, aligned
from qas.simulators._team import SEAT_SIZE, sit
from qas.simulators.base import Asked, check_angles
from qas.simulators.compiled import CompiledSimulator, finished
from qas.simulators.insertions import Curves, group_diagonals, term_groups
from qas.simulators.workers import memory_limit

MAX_QUBITS = 24
"""Largest register: a gradient of 24 qubits takes two states of 268 MB, half of that with real amplitudes."""

STORED_BYTES = 1 << 26
"""A Hamiltonian keeps its permuted diagonals up to this size; a larger one is applied from its terms, block by block:
beyond the cache forming them anew costs no more than reading them."""

_KINDS = {"rx": 0, "ry": 1, "rz": 2, "cx": 4, "cz": 5, "swap": 6, "rxx": 7, "ryy": 7, "rzz": 7}
_REAL_KINDS = {"x": 9, "y": 8, "z": 8, "h": 8}
_ENTRIES = 1 << 20
"""Numbers that are transformed together."""
_EXCHANGE = 10
_REAL_GATES = frozenset({"ry", "cx", "cz", "swap", *_REAL_KINDS, *EXCITATIONS})
"""Gates that are real up to a phase: a circuit of them keeps the amplitudes real."""


class StatevectorSimulator(CompiledSimulator):
    """Exact noise-free energies and gradients, up to 24 qubits.

    Raises:
        QasError: a noise model was given; this engine has none.
    """

    name = "statevector"
    about = "noise-free, compiled, exact gradients, up to 24 qubits"
    runs_excitations = True

    def __init__(self, noise: NoiseModel | None = None) -> None:
        super().__init__()
        if noise is not None:
            raise QasError(f"the statevector engine is noise-free, got noise {noise.name!r}; use pauli-transfer or aer")
        self._entries: list[tuple[int, int, int, np.ndarray, int, int]] = []
        self._library: kernels.Library | None = None

    def check_size(self, n_qubits: int) -> None:
        if n_qubits > MAX_QUBITS:
            raise TooLargeError(
                f"the statevector engine holds at most {MAX_QUBITS} qubits, got {n_qubits}: two states would take "
                f"{32 * 2.0**n_qubits / 1e9:.3g} GB"
            )
        if 32 << n_qubits > memory_limit():
            raise TooLargeError(
                f"{n_qubits} qubits need {(32 << n_qubits) / 1e9:.2g} GB for two states, this machine has "
                f"{memory_limit() / 1e9:.2g} GB"
            )

    def _add(self, kind: int, first: int, second: int, matrix: np.ndarray | None = None, x: int = 0, z: int = 0) -> int:
        both = np.zeros((2, 4), dtype=complex)
        if matrix is not None:
            both[0], both[1] = matrix.ravel(), matrix.conj().T.ravel()
        self._entries.append((kind, first, second, both, x, z))
        self._library = None
        return len(self._entries) - 1

    def _operations(self, gate: Gate) -> list[tuple[int, int]]:
        spec = gate_spec(gate.name)
        bits = [1 << q for q in gate.qubits]
        if gate.name == "u":
            # U(θ, φ, λ) is RZ(φ) RY(θ) RZ(λ) up to a phase.
            return [(self._add(2, bits[0], 0), 2), (self._add(1, bits[0], 0), 0), (self._add(2, bits[0], 0), 1)]
        if spec.n_qubits == 1 and spec.axis is None:
            # Y as -iY: the phase shows nowhere, and the matrix is real.
            matrix = -1j * spec.matrix() if gate.name == "y" else spec.matrix()
            return [(self._add(_REAL_KINDS.get(gate.name, 3), bits[0], 0, matrix), -1)]
        if spec.exchanges:
            return [exchange for state, weights in spec.exchanges for exchange in self._exchanges(bits, state, weights)]
        if gate.name == "ecr":
            parts = [("cx", gate.qubits), *((name, gate.qubits[:1]) for name in ("s", "x")), ("sx", gate.qubits[1:])]
            return [op for name, qubits in parts for op in self._operations(Gate(name, qubits))]
        kind = _KINDS[gate.name]
        if kind == 7:
            assert spec.axis is not None
            x = sum(bit for bit, letter in zip(bits, spec.axis, strict=True) if letter in "XY")
            z = sum(bit for bit, letter in zip(bits, spec.axis, strict=True) if letter in "ZY")
            return [(self._add(kind, bits[0], bits[1], x=x, z=z), 0)]
        return [(self._add(kind, bits[0], bits[1] if len(bits) == 2 else 0), 0 if spec.n_angles else -1)]

    def _exchanges(self, bits: list[int], state: int, weights: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """One rotation of a pair of basis states for each unit of weight: they commute, and their angles add."""
        everything = sum(bits)
        taken = sum(bit for k, bit in enumerate(bits) if state >> k & 1)
        for which, weight in enumerate(weights):
            z = taken if weight > 0 else everything ^ taken
            for _ in range(abs(weight)):
                yield self._add(_EXCHANGE, bits[0], everything ^ bits[0], x=everything, z=z), which

    @property
    def library(self) -> kernels.Library:
        known = self._library
        if known is not None:
            return known
        with self._lock:  # another thread may be adding an operation
            if self._library is None:
                kind, first, second, matrix, x, z = zip(*self._entries, strict=True) if self._entries else ((),) * 6
                self._library = kernels.Library(
                    np.array(kind, dtype=np.int64),
                    np.array(first, dtype=np.int64),
                    np.array(second, dtype=np.int64),
                    np.array(matrix, dtype=np.complex128).reshape(-1, 2, 4).view(np.float64),
                    np.array(x, dtype=np.int64),
                    np.array(z, dtype=np.int64),
                )
            return self._library

    def _observable(self, hamiltonian: Hamiltonian) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Three arrays for the kernels, in one of three forms.

        Projectors ±|v><v|: no masks; v, interleaved; the sign. A target state fills the whole matrix, but is applied in
        2^n steps instead of 4^n. Small ones: the masks of `Hamiltonian.xor_diagonals`, filled up to a multiple of 4;
        real and, where there are any, imaginary parts of the diagonals, shape (rows / 8, masks, 8). Large ones: see
        `_by_terms`.
        """
        masks = np.unique(hamiltonian.masks[0])
        rows = max(kernels.LANES, 1 << hamiltonian.n_qubits)
        if 2 * len(masks) >= 1 << hamiltonian.n_qubits:
            vector, sign = _projector(*hamiltonian.xor_diagonals)
            if vector is not None:
                padded = np.zeros(rows, dtype=np.complex128)
                padded[: len(vector)] = vector
                return masks[:0], padded.view(np.float64), np.array([sign])
        if 8 * (len(masks) + 1) * rows > STORED_BYTES:
            return _by_terms(hamiltonian)
        return _by_diagonals(hamiltonian, rows)

    def work(self, n_qubits: int, parts: int = 2) -> np.ndarray:
        """Scratch of this thread for two states: float64, shape (2, parts·2**n), at least 8 amplitudes in a row.

        It is the same memory for real and for complex amplitudes.

        Args:
            parts: 2 for complex amplitudes, 1 for real ones.
        """
        held: tuple[int, np.ndarray] | None = self._local.__dict__.get("memory")
        rows = max(kernels.LANES, 1 << n_qubits)
        if held is None or held[0] != n_qubits:
            self._forget_calls()  # the old memory is given back first
            del held
            self._local.memory = None
            held = self._local.memory = n_qubits, aligned(4 * rows)
        return held[1][: 2 * parts * rows].reshape(2, -1)

    def gradient_bytes(self, n_qubits: int) -> int:
        return 2 * self.state_bytes(n_qubits)

    def call(self, circuit: Circuit, hamiltonian: Hamiltonian, *, gradient: bool = True) -> Call:
        parts = parts_of(circuit)
        work = self.work(circuit.n_qubits, parts)
        return self._call(circuit, parts, work[0], self.observable(hamiltonian))

    def _call(self, circuit: Circuit, parts: int, state: np.ndarray, observable: tuple[np.ndarray, ...]) -> Call:
        compiled = self.compiled(circuit)
        frame = self._frame(parts, state, observable)
        numbers = frame.numbers.copy()
        numbers[_OPS : _OPS + 2] = addresses(compiled.ops, compiled.slots)
        numbers[_N_OPS] = len(compiled.ops)
        call = Call(kernels.evaluate, circuit.n_angles, numbers, (compiled, frame))
        if circuit.n_qubits >= kernels.SHARED_QUBITS:
            seat, _, columns, held = _seat()
            call.table[kernels.SEAT : kernels.SEAT + len(columns)] = columns
            call.held = (*call.held[0], held), call.held[1]
            call.helped = Helped(seat, _seat)
        return call

    def _frame(self, parts: int, state: np.ndarray, observable: tuple[np.ndarray, ...]) -> _Frame:
        """What the calls of this thread have in common; the last few are remembered where states are small."""
        library = self.library
        frames: dict[Any, _Frame] = self._local.__dict__.setdefault("frames", {})
        key = parts, address_of(state), len(state), id(observable)
        found = frames.get(key)
        if found is not None and found.library is library:
            return found
        masks, _, imag = observable
        _, _, columns, seat = _seat()
        where = [*addresses(*library), 0, 0, *addresses(*observable, state)]
        numbers = [*where, len(library.kind), 0, len(masks), len(imag), len(state), parts, *columns, 0]
        found = _Frame(numbers, library, observable, state, seat)
        if len(state) <= _SMALL:
            while len(frames) >= 4:
                del frames[next(iter(frames))]
            frames[key] = found
        return found

    def _forget_calls(self) -> None:
        super()._forget_calls()
        for name in ("frames", "state_call"):
            self._local.__dict__.pop(name, None)

    def state(self, circuit: Circuit, angles: np.ndarray | None = None) -> np.ndarray:
        """State after the circuit from |0…0>, up to a phase, complex128, shape (2**n,)."""
        psi = np.empty(max(kernels.LANES, 1 << circuit.n_qubits), dtype=np.complex128)
        small = 2 * len(psi) <= _SMALL
        call = self._state_call(circuit) if small else self._call(circuit, 2, psi.view(np.float64), _NOTHING)
        finished(call.run(STATE, circuit.angles if angles is None else angles))
        if small:
            psi.view(np.float64)[:] = self.work(circuit.n_qubits)[0]
        return psi[: 1 << circuit.n_qubits]

    def _state_call(self, circuit: Circuit) -> Call:
        """For the state in the memory of this thread, the same again for the same circuit at other angles."""
        memory, compiled = self.work(circuit.n_qubits)[0], self.compiled(circuit)
        held = self._local.__dict__.get("state_call")
        if held is not None and held[0] is compiled:
            return held[1]  # type: ignore[no-any-return]
        call = self._call(circuit, 2, memory, _NOTHING)
        self._local.state_call = compiled, call
        return call

    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        values = check_angles(circuit, hamiltonian, angles)
        psi = self.state(circuit, values)
        x, z = hamiltonian.masks
        flips, row = np.unique(x, return_inverse=True)
        result = np.empty(len(hamiltonian))
        turned = np.array([1, 1j, -1, -1j])[np.bitwise_count(x & z) % 4]
        together = max(1, _ENTRIES // len(psi))
        for first in range(0, len(flips), together):
            # One transform gives the sums of all strings with the same X-mask.
            chosen = (row >= first) & (row < first + together)
            sums = psi[np.arange(len(psi)) ^ flips[first : first + together, None]].conj() * psi
            walsh_hadamard(sums)
            result[chosen] = (turned[chosen] * sums[row[chosen] - first, z[chosen]]).real
        return result

    def _prepared(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray) -> np.ndarray:
        """Complex memory of this thread, with the state after the circuit and the Hamiltonian times it."""
        work = self.work(circuit.n_qubits)
        finished(self._call(circuit, 2, work[0], self.observable(hamiltonian)).run(VALUE, angles))
        return work

    def _insertion_slopes(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        circuit, hamiltonian, generators, angles, positions, _ = asked
        values = np.empty((len(positions), len(generators.strings) + len(generators.sums)))
        row_of = np.full(len(circuit) + 1, -1)
        row_of[positions] = np.arange(len(positions))
        gates = self.gate_operations(circuit)
        whole = insertion_kernels.sweep(
            self.library,
            gates,
            angles,
            self._prepared(circuit, hamiltonian, angles),
            generators.tables,
            generators.sums_table,
            row_of,
            values,
            interrupt.current().address,
        )
        if not whole:
            interrupt.check()
        return values, np.zeros((len(positions), len(generators.strings)))

    def _append_curves(self, asked: Asked) -> tuple[Curves, np.ndarray, np.ndarray]:
        circuit, hamiltonian, generators, angles, _, _ = asked
        strings = Curves(np.zeros(len(generators.strings)), np.zeros(len(generators.strings)))
        sums = np.zeros((len(generators.sums), 4))
        insertion_kernels.append(
            self._prepared(circuit, hamiltonian, angles),
            generators.tables,
            generators.sums_table,
            generators.scales,
            term_groups(hamiltonian),
            hamiltonian.coefficients,
            group_diagonals(hamiltonian) if generators.sums else np.zeros((0, 1)),
            *strings,
            sums,
        )
        return strings, sums, np.zeros(len(generators.strings))


_NOTHING = np.empty(0, np.int64), np.empty(0), np.empty(0)
_SMALL = 1 << 11
"""Numbers in a state that is made in the memory of its thread and copied: that costs less than new addresses."""
_OPS, _N_OPS = kernels.OPS - ENGINE, kernels.N_OPS - ENGINE


class _Frame(NamedTuple):
    """What is the same in the calls for all circuits, and what is named there by its address."""

    numbers: list[int]
    library: kernels.Library
    observable: tuple[np.ndarray, ...]
    state: np.ndarray
    seat: np.ndarray


def _seat() -> tuple[int, int, list[int], np.ndarray]:
    """The seat of a team of one; see `Helped`."""
    words = np.empty(SEAT_SIZE, np.int64)
    sit(address_of(words), 0, 0, 1)
    return address_of(words), kernels.SEAT, [address_of(words)], words


def parts_of(circuit: Circuit) -> int:
    """Numbers in one amplitude: 1 where every gate keeps amplitudes real, else 2."""
    parts = circuit.__dict__.get("_parts")
    if parts is None:
        parts = 1 if all(gate.name in _REAL_GATES for gate in circuit.pattern) else 2
        circuit.__dict__["_parts"] = parts
    return parts


def _by_diagonals(hamiltonian: Hamiltonian, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xs, zs = hamiltonian.masks
    masks, where = np.unique(xs, return_inverse=True)
    masks = np.concatenate([masks, np.zeros(-len(masks) % kernels.MASKS, dtype=np.int64)])
    factors = hamiltonian.coefficients * (-1j) ** (np.bitwise_count(xs & zs) % 4)
    parts = []
    for coefficients in (factors.real, factors.imag):
        diagonals = np.zeros((len(masks), 1 << hamiltonian.n_qubits))
        diagonals[where, zs] = coefficients
        walsh_hadamard(diagonals)
        padded = np.zeros((len(masks), rows))
        padded[:, : diagonals.shape[1]] = diagonals
        ordered = aligned(padded.size)
        ordered.reshape(-1, len(masks), kernels.LANES)[:] = padded.reshape(len(masks), -1, kernels.LANES).swapaxes(0, 1)
        parts.append(ordered)
        if not factors.imag.any():
            return masks, parts[0], np.empty(0)
    return masks, parts[0], parts[1]


def _by_terms(hamiltonian: Hamiltonian) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Terms grouped by x: [-1, groups, (x, first term, first imaginary term, end) of each group, z of each term],
    coefficients, and nothing. (H ψ)[i] sums c (-i)^k (-1)^(z·i) ψ[i ^ x] over the terms, with k letters Y in each.
    """
    xs, zs = hamiltonian.masks
    letters = np.bitwise_count(xs & zs).astype(np.int64)
    order = np.lexsort((letters % 2, xs))
    xs, zs, letters = xs[order], zs[order], letters[order]
    signs = np.where((letters % 4 == 1) | (letters % 4 == 2), -1.0, 1.0)
    masks, first, counts = np.unique(xs, return_index=True, return_counts=True)
    last = first + counts
    middle = last - np.add.reduceat(letters % 2, first)
    groups = np.stack([masks, first, middle, last], axis=1).ravel()
    table = np.concatenate([[-1, len(masks)], groups, zs]).astype(np.int64)
    return table, hamiltonian.coefficients[order] * signs, np.empty(0)


def _projector(masks: np.ndarray, diagonals: np.ndarray) -> tuple[np.ndarray | None, float]:
    """v, complex128 (2**n,), and a sign such that H = ± |v><v|; None where H is no such operator."""
    size = diagonals.shape[1]
    if len(masks) * 2 < size:
        return None, 0.0
    largest = int(np.abs(diagonals[0]).argmax()) if masks[0] == 0 else 0
    peak = diagonals[0, largest].real
    if masks[0] != 0 or abs(peak) < 1e-300:
        return None, 0.0
    column = np.zeros(size, dtype=np.complex128)
    column[largest ^ masks] = diagonals[np.arange(len(masks)), largest ^ masks]
    vector = column / np.sqrt(abs(peak))
    sign = float(np.sign(peak))
    index = np.arange(size)
    rebuilt = sign * vector[index] * vector[index ^ masks[:, None]].conj()
    if np.abs(rebuilt - diagonals).max() > 1e-13 * abs(peak):
        return None, 0.0
    missing = np.setdiff1d(index, masks)
    for x in missing:
        if np.abs(vector * vector[index ^ x].conj()).max() > 1e-13 * abs(peak):
            return None, 0.0
    return vector, sign
