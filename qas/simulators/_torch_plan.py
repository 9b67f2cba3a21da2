"""What the torch engine does for one architecture: blocks of gates on two qubits, each one small matrix.

A map is written as the matrix that acts on row vectors from the right, so that products stand in the order of time. The
local dimension d is 2 for amplitudes and 4 for Pauli vectors (digits I X Y Z).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
from qas.noise import NoiseModel, exchange_qubits, unitary_ptm


@dataclass(frozen=True)
class Turn:
    """``constant + cos(scale·θ)·even + sin(scale·θ)·odd``, the map of one rotation; scale is 1/2 for amplitudes."""

    slot: int
    constant: np.ndarray
    even: np.ndarray
    odd: np.ndarray

    def then(self, fixed: np.ndarray) -> Turn:
        return Turn(self.slot, self.constant @ fixed, self.even @ fixed, self.odd @ fixed)

    def after(self, fixed: np.ndarray) -> Turn:
        return Turn(self.slot, fixed @ self.constant, fixed @ self.even, fixed @ self.odd)


Factor = Turn | np.ndarray


@functools.cache
def rotation(name: str, noisy: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(constant, even, odd) of the rotation gate `name`; see `Turn`."""
    matrix = gate_spec(name).matrix
    if not noisy:
        odd = matrix(np.pi).T
        return np.zeros_like(odd), matrix(0.0), np.rint(odd.real) + 1j * np.rint(odd.imag)
    zero, half, quarter = (np.rint(unitary_ptm(matrix(angle)).T) for angle in (0.0, np.pi, np.pi / 2))
    return (zero + half) / 2, (zero - half) / 2, quarter - (zero + half) / 2


def turned(name: str, slot: int, noisy: bool) -> Turn:
    return Turn(slot, *rotation(name, noisy))


def append(chain: list[Factor], factor: Factor) -> None:
    """Add a factor; what is fixed goes into a neighbour, so that a chain is one matrix or rotations alone."""
    if chain and not isinstance(factor, Turn):
        last = chain[-1]
        chain[-1] = last.then(factor) if isinstance(last, Turn) else last @ factor
    elif chain and not isinstance(chain[-1], Turn):
        chain[-1] = factor.after(chain[-1])  # type: ignore[union-attr]
    else:
        chain.append(factor)


@dataclass
class Layer:
    """One-qubit chains on the two qubits of a block, then a two-qubit map."""

    high: list[Factor]
    low: list[Factor]
    pair: Factor


@dataclass
class Block:
    """Gates on one pair of qubits (high, low), or a chain on one qubit, that act in one step."""

    qubits: tuple[int, ...]
    layers: list[Layer] = field(default_factory=list)
    chain: list[Factor] = field(default_factory=list)


class Planner:
    """Puts gates into blocks: a gate joins the last block of its pair as long as nothing else touched the two qubits.

    Args:
        circuit: the architecture.
        noise: of its gates and its readout, or None for amplitudes.
        separate: one block for each gate in their order instead, behind one for each qubit that does nothing, so that
            the state has all qubits from the first gate on; the readout comes last.
    """

    def __init__(self, circuit: Circuit, noise: NoiseModel | None, *, separate: bool = False) -> None:
        self.noise = noise
        self.size = 2 if noise is None else 4
        self.blocks: list[Block] = []
        self._pending: list[list[Factor]] = [[] for _ in range(circuit.n_qubits)]
        self._owner: list[Block | None] = [None] * circuit.n_qubits
        if separate:
            self.blocks += [Block((qubit,)) for qubit in range(circuit.n_qubits)]
        slot = 0
        channels: list[np.ndarray | None] = [None] * len(circuit) if noise is None else noise.channels(circuit)
        for gate, channel in zip(circuit.gates, channels, strict=True):
            self._add(gate, slot, None if channel is None else channel.T)
            slot += len(gate.angles)
            if separate:
                self._close(gate.qubits)
        if noise is not None and noise.readout:
            for qubit, (p01, p10) in enumerate(noise.readout_flips(circuit.n_qubits)):
                if p01 or p10:
                    append(self._pending[qubit], _readout(p01, p10))
        self._finish()

    def _add(self, gate: Gate, slot: int, after: np.ndarray | None) -> None:
        noisy, spec = self.noise is not None, gate_spec(gate.name)
        if spec.n_qubits == 2:
            self._add_pair(gate, slot, after)
            return
        chain = self._pending[gate.qubits[0]]
        if gate.name == "u":
            # U(θ, φ, λ) is RZ(φ) RY(θ) RZ(λ) up to a phase.
            for name, which in (("rz", 2), ("ry", 0), ("rz", 1)):
                append(chain, turned(name, slot + which, noisy))
        elif spec.axis:
            append(chain, turned(gate.name, slot, noisy))
        else:
            append(chain, _fixed(gate, noisy))
        if after is not None:
            append(chain, after)

    def _add_pair(self, gate: Gate, slot: int, after: np.ndarray | None) -> None:
        noisy, spec = self.noise is not None, gate_spec(gate.name)
        exchange: Callable[[np.ndarray], np.ndarray] = np.asarray
        if gate.qubits[0] > gate.qubits[1]:
            exchange = exchange_qubits if noisy else _exchange
        factors: list[Factor] = []
        append(factors, turned(gate.name, slot, noisy) if spec.axis else exchange(_fixed(gate, noisy)))
        if after is not None:
            append(factors, exchange(after))
        low, high = sorted(gate.qubits)
        block = self._owner[low]
        if block is None or block is not self._owner[high]:
            block = self._owner[low] = self._owner[high] = Block((high, low))
            self.blocks.append(block)
        block.layers.append(Layer(self._taken(high), self._taken(low), factors[0]))

    def _taken(self, qubit: int) -> list[Factor]:
        chain, self._pending[qubit] = self._pending[qubit], []
        return chain

    def _close(self, qubits: tuple[int, ...]) -> None:
        """Let nothing more join what acts on `qubits`."""
        for qubit in qubits:
            if self._owner[qubit] is None:
                self.blocks.append(Block((qubit,), chain=self._taken(qubit)))
            self._owner[qubit] = None

    def _finish(self) -> None:
        """Chains behind the last two-qubit gate join its block; those of qubits without one stand alone."""
        for qubit, chain in enumerate(self._pending):
            block = self._owner[qubit]
            if not chain:
                continue
            if block is None:
                self.blocks.append(Block((qubit,), chain=chain))
                continue
            high, low = block.qubits
            chains = [self._taken(q) if self._owner[q] is block else [] for q in (high, low)]
            if any(chains):
                block.layers.append(Layer(chains[0], chains[1], np.eye(self.size**2)))


def _fixed(gate: Gate, noisy: bool) -> np.ndarray:
    matrix = gate_spec(gate.name).matrix()
    return (unitary_ptm(matrix) if noisy else matrix).T


def _exchange(matrix: np.ndarray) -> np.ndarray:
    return matrix.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)


def _readout(p01: float, p10: float) -> np.ndarray:
    """Each measured letter L becomes (1 - p01 - p10) L + (p10 - p01) I: a map of the Pauli vector."""
    matrix = np.diag([1.0] + [1.0 - p01 - p10] * 3)
    matrix[0, 1:] = p10 - p01
    return matrix


@dataclass(frozen=True)
class Step:
    """How one block meets the state: the axes of its qubits go to the front.

    The block's map has d^`known` rows, for its qubits that the state has
    already, while the others start in |0>.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    known: int
    order: tuple[int, ...]
    """qubits of the state's axes after the block"""
    start: np.ndarray | None
    """picks the rows of the block's map for qubits that start in |0>, shape (d^known, d^k); None: all rows"""


def steps(blocks: list[Block], size: int) -> tuple[list[Step], tuple[int, ...]]:
    """One step for each block, and the qubits in the order of the axes of the last state."""
    zero = start_vector(size)
    order: tuple[int, ...] = ()
    found = []
    for block in blocks:
        known = [qubit for qubit in block.qubits if qubit in order]
        places = sorted(order.index(qubit) for qubit in known)
        shape, axes, last = [], [], 0
        for place in places:
            shape += [size ** (place - last), size]
            last = place + 1
        shape.append(size ** (len(order) - last))
        axes = [2 * places.index(order.index(qubit)) + 1 for qubit in known]
        axes += [axis for axis in range(len(shape)) if axis not in axes]
        start = None
        if len(known) < len(block.qubits):
            start = np.ones((1, 1))
            for qubit in block.qubits:
                start = np.kron(start, np.eye(size) if qubit in known else zero[None])
        order = (*block.qubits, *(qubit for qubit in order if qubit not in block.qubits))
        found.append(Step(tuple(shape), tuple(axes), len(known), order, start))
    return found, order


def start_vector(size: int) -> np.ndarray:
    """|0> of one qubit: amplitudes, or I + Z as a Pauli vector."""
    return np.array([1.0, 0.0] if size == 2 else [1.0, 0.0, 0.0, 1.0])


def layers_of(blocks: list[Block]) -> Iterator[tuple[int, Layer]]:
    """(position of the block, layer), in the order of time."""
    for position, block in enumerate(blocks):
        for layer in block.layers:
            yield position, layer
