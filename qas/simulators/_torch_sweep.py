"""The torch engine's arithmetic: small matrices of all blocks at once, and their sweep over a batch of states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import interrupt
from qas.simulators._torch_plan import Factor, Planner, Turn, layers_of, start_vector, steps

GATHERED = 1 << 16
"""Elements of a state that observables gather at a time, for each circuit of a batch."""


class Turns:
    """Rotations with what is fixed around them, as tensors, shape (n_turns, k, k)."""

    def __init__(self, turns: Sequence[Turn], size: int, place: Place) -> None:
        self.slots = place.indices(turn.slot for turn in turns)
        stack = np.array([[t.constant, t.even, t.odd] for t in turns]).reshape(-1, 3, size, size)
        self.constant, self.even, self.odd = place.state(stack).unsqueeze(2).unbind(1)
        self.noisy = place.noisy

    def __len__(self) -> int:
        return len(self.slots)

    def maps(self, cosines: Tensor, sines: Tensor) -> Tensor:
        """Shape (n_turns, batch, k, k), from the angles' cosines and sines, shape (n_angles, batch)."""
        cosines = cosines.index_select(0, self.slots)[:, :, None, None]
        turned = torch.addcmul(cosines * self.even, sines.index_select(0, self.slots)[:, :, None, None], self.odd)
        return turned + self.constant if self.noisy else turned


class Place:
    """Where the states are: a device and its numbers."""

    def __init__(self, device: torch.device, noisy: bool, single: bool) -> None:
        self.device, self.noisy = device, noisy
        self.real = torch.float32 if single else torch.float64
        self.dtype = self.real if noisy else torch.complex64 if single else torch.complex128
        self.size = 4 if noisy else 2

    def state(self, array: Any) -> Tensor:
        kind = np.float64 if self.noisy else np.complex128
        return torch.as_tensor(np.ascontiguousarray(array, dtype=kind)).to(self.device, self.dtype)

    def indices(self, values: Iterable[int] | np.ndarray) -> Tensor:
        values = values if isinstance(values, np.ndarray) else list(values)
        return torch.as_tensor(values, dtype=torch.int64, device=self.device)


class Program:
    """One architecture on one device: everything about it that does not depend on angles.

    Args:
        circuit: its angles are not used.
        noise: a noise model, or None for amplitudes.
        place: device and precision.
        separate: as of `Planner`.
    """

    def __init__(self, circuit: Circuit, noise: NoiseModel | None, place: Place, *, separate: bool = False) -> None:
        self.n_qubits, self.place = circuit.n_qubits, place
        size = place.size
        blocks = Planner(circuit, noise, separate=separate).blocks
        self.steps, order = steps(blocks, size)
        self.starts = [None if step.start is None else place.state(step.start) for step in self.steps]
        untouched = [qubit for qubit in range(circuit.n_qubits) if qubit not in order]
        self.rest = place.state(_power(start_vector(size), len(untouched)))
        self.order = (*order, *untouched)

        layers = list(layers_of(blocks))
        fixed = [k for k, (_, layer) in enumerate(layers) if not isinstance(layer.pair, Turn)]
        moving = [k for k, (_, layer) in enumerate(layers) if isinstance(layer.pair, Turn)]
        self.n_layers, self.n_fixed = len(layers), len(fixed)
        self.fixed = place.state(np.array([layers[k][1].pair for k in fixed]).reshape(-1, size**2, size**2))
        self.turned = Turns([layers[k][1].pair for k in moving], size**2, place)  # type: ignore[misc]
        where = {k: row for row, k in enumerate([*fixed, *moving])}
        self.rows: list[list[int]] = [[] for _ in blocks]
        for k, (position, _) in enumerate(layers):
            self.rows[position].append(where[k])
        ordered = [layers[k][1] for k in (*fixed, *moving)]
        alone = [block.chain for block in blocks if not block.layers]
        self._add_chains([layer.high for layer in ordered] + [layer.low for layer in ordered] + alone)

    def _add_chains(self, chains: list[list[Factor]]) -> None:
        """One-qubit chains as indices into the maps of all their factors; the longest chains first."""
        turns: list[Turn] = []
        fixed: list[np.ndarray] = [np.eye(self.place.size)]
        indexed = []
        for chain in chains:
            entries = []
            for factor in chain:
                group: list[Any] = turns if isinstance(factor, Turn) else fixed
                entries.append((isinstance(factor, Turn), len(group)))
                group.append(factor)
            indexed.append(entries or [(False, 0)])
        rank = sorted(range(len(chains)), key=lambda k: -len(indexed[k]))
        longest = max(map(len, indexed), default=0)
        at = [[indexed[k][j] for k in rank if len(indexed[k]) > j] for j in range(longest)]
        self.singles = Turns(turns, self.place.size, self.place)
        self.constants = self.place.state(np.array(fixed))[:, None]
        self.factors = [self.place.indices(i if turn else len(turns) + i for turn, i in entries) for entries in at]
        self.ranked = self.place.indices(np.argsort(rank).astype(np.int64))

    # ------------------------------------------------------------------ maps
    def maps(self, angles: Tensor) -> tuple[Tensor, ...]:
        """The map of each block, shape (batch, d^known, d^k), from angles of shape (batch, n_angles)."""
        scaled = angles.to(torch.float64).T * (1.0 if self.place.noisy else 0.5)
        cosines, sines = (part.to(self.place.real) for part in (scaled.cos(), scaled.sin()))
        chains = self._chains(cosines, sines)
        high, low, alone = chains.split([self.n_layers, self.n_layers, len(chains) - 2 * self.n_layers])
        layers = self._layers(high, low, cosines, sines)
        singles = iter(alone.unbind(0))
        found = []
        for rows, start in zip(self.rows, self.starts, strict=True):
            block = layers[rows[0]] if rows else next(singles)
            for row in rows[1:]:
                block = block @ layers[row]
            found.append(block if start is None else start @ block)
        return tuple(found)

    def _chains(self, cosines: Tensor, sines: Tensor) -> Tensor:
        """Products of the one-qubit chains, shape (n_chains, batch, d, d)."""
        batch = cosines.shape[1]
        pool = torch.cat([self.singles.maps(cosines, sines), self.constants.expand(-1, batch, -1, -1)])
        if not self.factors:
            return pool[:0]
        product, ended = pool.index_select(0, self.factors[0]), []
        for entries in self.factors[1:]:
            ended.append(product[len(entries) :])
            product = product[: len(entries)] @ pool.index_select(0, entries)
        return torch.cat([product, *reversed(ended)]).index_select(0, self.ranked)

    def _layers(self, high: Tensor, low: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, ...]:
        """Maps of all layers, each of shape (batch, d², d²)."""
        count, batch, size, _ = high.shape
        # As products of vectors, because their gradients are then matrix products too.
        outer = high.reshape(count * batch, size**2, 1) @ low.reshape(count * batch, 1, size**2)
        both = outer.view(count * batch, size, size, size, size).transpose(2, 3).reshape(count, batch, size**2, size**2)
        parts = both[: self.n_fixed].reshape(self.n_fixed, batch * size**2, size**2) @ self.fixed
        found = parts.view(self.n_fixed, batch, size**2, size**2).unbind(0)
        if len(self.turned):
            found += (both[self.n_fixed :] @ self.turned.maps(cosines, sines)).unbind(0)
        return found

    # ------------------------------------------------------------------ states
    def first(self, batch: int) -> Tensor:
        """The state of no qubits."""
        return torch.ones(batch, 1, dtype=self.place.dtype, device=self.place.device)

    def arranged(self, number: int, state: Tensor) -> Tensor:
        """The state with the qubits of a block in front, shape (batch, d^known, rest)."""
        interrupt.check()
        step = self.steps[number]
        batch = len(state)
        moved = state.view(batch, *step.shape).permute(0, *(1 + axis for axis in step.axes))
        return moved.reshape(batch, self.place.size**step.known, -1)

    def put_back(self, number: int, state: Tensor) -> Tensor:
        """The reverse of `arranged`, shape (batch, d^m)."""
        step = self.steps[number]
        batch = len(state)
        state = state.view(batch, *(step.shape[axis] for axis in step.axes))
        reverse = sorted(range(len(step.axes)), key=step.axes.__getitem__)
        return state.permute(0, *(1 + axis for axis in reverse)).reshape(batch, -1)

    def advanced(self, number: int, state: Tensor, map_: Tensor) -> Tensor:
        """The state after a block, shape (batch, d^m)."""
        return (map_.mT @ self.arranged(number, state)).reshape(len(state), -1)

    def ended(self, state: Tensor) -> Tensor:
        """The last state with all qubits in their order, shape (batch, d^n): digit q belongs to qubit q."""
        batch = len(state)
        if len(self.rest) > 1:
            state = (state[:, :, None] * self.rest).reshape(batch, -1)
        return self.in_order(state, self.order)

    def in_order(self, state: Tensor, order: Sequence[int]) -> Tensor:
        """A state of all qubits whose axes are `order`, as in `ended`."""
        batch = len(state)
        axes = (1 + order.index(qubit) for qubit in reversed(range(self.n_qubits)))
        return state.view(batch, *(self.place.size,) * self.n_qubits).permute(0, *axes).reshape(batch, -1)

    def ended_adjoint(self, gradient: Tensor) -> Tensor:
        """The reverse of `ended`, for gradients."""
        batch = len(gradient)
        axes = (self.n_qubits - qubit for qubit in self.order)
        gradient = gradient.view(batch, *(self.place.size,) * self.n_qubits).permute(0, *axes).reshape(batch, -1)
        return gradient.view(batch, -1, len(self.rest)) @ self.rest if len(self.rest) > 1 else gradient

    def state(self, maps: Sequence[Tensor], batch: int) -> Tensor:
        """The state after the circuit, shape (batch, d^n)."""
        state = self.first(batch)
        for number, map_ in enumerate(maps):
            state = self.advanced(number, state, map_)
        return self.ended(state)

    # ------------------------------------------------------------------ memory
    def numbers(self) -> tuple[int, int]:
        """Numbers that one circuit of a batch takes: states kept for a gradient, and small matrices."""
        kept, dimension = 0, 1
        for step in self.steps:
            kept += dimension
            dimension = int(np.prod(step.shape)) // self.place.size**step.known * self._width(step)
        small = 4 * self.n_layers * self.place.size**4 + 4 * len(self.singles) * self.place.size**2
        return kept, small

    def _width(self, step: Any) -> int:
        return self.place.size**step.known if step.start is None else step.start.shape[1]


def _power(vector: np.ndarray, count: int) -> np.ndarray:
    result = np.ones(1)
    for _ in range(count):
        result = np.kron(result, vector)
    return result


# ---------------------------------------------------------------------- observables
class PauliObservables:
    """Several operators on a Pauli vector: each a few of its numbers, weighted."""

    def __init__(self, observables: Sequence[Hamiltonian], place: Place) -> None:
        found: dict[int, int] = {}
        entries = []
        for column, observable in enumerate(observables):
            for index, value in zip(observable.pauli_index.tolist(), observable.coefficients.tolist(), strict=True):
                if index:
                    entries.append((found.setdefault(index, len(found)), column, value))
        weights = np.zeros((len(found), len(observables)))
        for row, column, value in entries:
            weights[row, column] = value
        self.gathered = len(found)
        self.index = place.indices(found)
        self.weights = torch.as_tensor(weights, device=place.device)
        self.constant = torch.as_tensor([o.identity for o in observables], dtype=torch.float64, device=place.device)

    def values(self, state: Tensor) -> Tensor:
        """Float64, shape (batch, n_observables)."""
        return state.index_select(1, self.index).to(torch.float64) @ self.weights + self.constant

    def adjoint(self, state: Tensor, gradient: Tensor) -> Tensor:
        """Gradient by the state, shape (batch, 4**n), from that by the values."""
        entries = (gradient @ self.weights.T).to(state.dtype)
        return torch.zeros_like(state).index_copy_(1, self.index, entries)


class AmplitudeObservables:
    """Several operators on amplitudes: ``(H ψ)[i] = Σ_x d_x[i] ψ[i ^ x]``.

    Flips x that the same operators have are gathered together.
    """

    def __init__(self, observables: Sequence[Hamiltonian], place: Place) -> None:
        rows: dict[int, dict[int, np.ndarray]] = {}
        for column, observable in enumerate(observables):
            masks, diagonals = observable.xor_diagonals
            for x, diagonal in zip(masks.tolist(), diagonals, strict=True):
                if x == 0:
                    diagonal = diagonal - observable.identity
                if np.any(diagonal):
                    rows.setdefault(x, {})[column] = diagonal
        groups: dict[tuple[int, ...], list[int]] = {}
        for x, columns in rows.items():
            groups.setdefault(tuple(columns), []).append(x)
        self.groups: list[tuple[Tensor, Tensor, Tensor]] = []
        self.gathered = 0
        size = 1 << observables[0].n_qubits
        for held, flips in groups.items():
            together = max(1, GATHERED // size)
            for k in range(0, len(flips), together):
                part = flips[k : k + together]
                gather = np.arange(size) ^ np.array(part)[:, None]
                self.gathered = max(self.gathered, gather.size)
                diagonal = np.array([[rows[x][column] for column in held] for x in part])
                matrix = diagonal.transpose(0, 2, 1).reshape(len(part) * size, len(held))
                self.groups.append((place.indices(gather.ravel()), place.state(matrix), place.indices(held)))
        self.constant = torch.as_tensor([o.identity for o in observables], dtype=torch.float64, device=place.device)

    def values(self, state: Tensor) -> Tensor:
        """Float64, shape (batch, n_observables)."""
        return self.between(state, state).real + self.constant

    def between(self, left: Tensor, state: Tensor) -> Tensor:
        """⟨left|H|state⟩ of the operators without their constants, complex128, shape (batch, n_observables)."""
        batch, size = state.shape
        total = torch.zeros(batch, len(self.constant), dtype=torch.complex128, device=state.device)
        for gather, matrix, columns in self.groups:
            products = state.index_select(1, gather).view(batch, -1, size) * left.conj()[:, None]
            part = products.reshape(batch, -1) @ matrix
            total = total.index_add(1, columns, part.to(total.dtype))
        return total

    def adjoint(self, state: Tensor, gradient: Tensor) -> Tensor:
        """Gradient by the state (2 H ψ, as torch counts complex gradients), shape (batch, 2**n)."""
        batch = len(state)
        total = torch.zeros_like(state)
        for gather, matrix, columns in self.groups:
            weights = 2.0 * gradient.index_select(1, columns).to(state.dtype) @ matrix.T
            total += (weights * state.index_select(1, gather)).view(batch, -1, state.shape[1]).sum(1)
        return total


Observables = PauliObservables | AmplitudeObservables


# ---------------------------------------------------------------------- gradients
class Sweep(torch.autograd.Function):
    """Expectation values as a function of the blocks' maps, with the adjoint sweep for their gradient.

    Every `stride`-th state is kept; the others are made again when the gradient needs them. Second derivatives record
    the sweep itself.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, program: Program, observables: Observables, stride: int, batch: int, *maps: Tensor
    ) -> Tensor:
        state, kept = forward_sweep(program, maps, batch, stride)
        state = program.ended(state)
        ctx.program, ctx.observables, ctx.stride, ctx.batch = program, observables, stride, batch
        ctx.save_for_backward(state, *kept, *maps)
        ctx.n_maps = len(maps)
        return observables.values(state)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        state, *rest = ctx.saved_tensors
        kept, maps = rest[: len(rest) - ctx.n_maps], rest[len(rest) - ctx.n_maps :]
        if torch.is_grad_enabled():
            values = ctx.observables.values(ctx.program.state(maps, ctx.batch))
            found = torch.autograd.grad(values, maps, gradient, create_graph=True)
            return None, None, None, None, *found
        adjoint = ctx.program.ended_adjoint(ctx.observables.adjoint(state, gradient))
        return None, None, None, None, *adjoint_sweep(ctx.program, kept, maps, adjoint, ctx.stride)


def forward_sweep(program: Program, maps: Sequence[Tensor], batch: int, stride: int) -> tuple[Tensor, list[Tensor]]:
    """The last state, and the states before every `stride`-th block."""
    state, kept = program.first(batch), []
    for number, map_ in enumerate(maps):
        if number % stride == 0:
            kept.append(state)
        state = program.advanced(number, state, map_)
    return state, kept


def adjoint_sweep(
    program: Program,
    kept: Sequence[Tensor],
    maps: Sequence[Tensor],
    adjoint: Tensor,
    stride: int,
    visit: Callable[[int, Tensor, Tensor], None] | None = None,
) -> list[Tensor]:
    """Gradients by the maps, from the gradient by the last state and the states before every `stride`-th block.

    `visit` is shown the number of each block, the state before it and the gradient by that state.
    """
    found: list[Tensor] = [adjoint] * len(maps)
    for segment in reversed(range(len(kept))):
        first = segment * stride
        last = min(first + stride, len(maps))
        states = [kept[segment]]
        for number in range(first, last - 1):
            states.append(program.advanced(number, states[-1], maps[number]))
        for number in reversed(range(first, last)):
            state, map_ = states.pop(), maps[number]
            after = adjoint.view(len(adjoint), map_.shape[-1], -1)
            found[number] = program.arranged(number, state).conj() @ after.mT
            adjoint = program.put_back(number, map_.conj() @ after)
            if visit is not None:
                visit(number, state, adjoint)
    return found
