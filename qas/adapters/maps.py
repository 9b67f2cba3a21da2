"""Circuits as differentiable linear maps: orthonormal columns of an architecture, and rotations of activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qas.adapters.program import ODD, Clifford, Program, Rotation, compile_program
from qas.errors import QasError

BLOCK_BITS = 6
"""Most bits of one block of a fused rotation: 64 x 64 matrices keep a processor's matrix units busy."""

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class _Columns(torch.autograd.Function):
    """`Program.columns` with a gradient that keeps the angles and, on the processor, the final state only.

    What the backward pass needs is kept in attributes instead of saved tensors: layers that share one batch may run
    backward at different times, inside activation checkpoints too.
    """

    @staticmethod
    def forward(ctx: Any, angles: Tensor, program: Program, columns: int) -> Tensor:
        ctx.program, ctx.columns, ctx.angles, ctx.final = program, columns, angles.detach().clone(), None
        if angles.device.type != "cpu":
            return _columns_by_torch(ctx.angles, program, columns)
        ctx.final = program.rotated(ctx.angles.numpy(), columns, _NUMPY[angles.dtype])
        state = ctx.final
        if program.skeleton:
            state = program.apply_skeleton(state)
        return torch.from_numpy(state)[..., :columns].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        if ctx.final is None:
            with torch.enable_grad():
                angles = ctx.angles.clone().requires_grad_()
                state = _columns_by_torch(angles, ctx.program, ctx.columns)
                (gradient,) = torch.autograd.grad(state, angles, cotangent)
            return gradient, None, None
        full = np.zeros_like(ctx.final)
        if ctx.program.skeleton:
            source, sign = ctx.program.permutation
            full[:, source, : ctx.columns] = cotangent.numpy() * sign[:, None].astype(full.dtype)
        else:
            full[..., : ctx.columns] = cotangent.numpy()
        found = ctx.program.gradient(ctx.angles.numpy(), ctx.final.copy(), full, ctx.columns)
        return torch.from_numpy(found).to(cotangent.dtype), None, None


def _columns_by_torch(angles: Tensor, program: Program, columns: int) -> Tensor:
    """The same with plain tensor operations: for other devices."""
    size = 1 << program.n_bits
    state = torch.eye(program.n_features, columns, dtype=angles.dtype, device=angles.device)
    state = state.expand(len(angles), -1, -1)
    index = torch.arange(program.n_features, device=angles.device)
    bits, level = index & (size - 1), index >> program.n_bits
    for r in program.rotations:
        sign, x, z = r.string
        phi = angles.new_full((len(angles),), r.angle) if r.slot is None else r.coefficient * angles[:, r.slot]
        cosine, sine = torch.cos(phi / 2)[:, None, None], torch.sin(phi / 2)[:, None, None]
        partner = index ^ x
        weight = torch.where(_parity((partner & (size - 1)) & z), -sign, sign)
        if r.levels is None:
            if r.parity:
                weight = torch.where(level % 2 == 1, -weight, weight)
            turned = state[:, partner] * weight[:, None]
            state = cosine * state + sine * turned
            continue
        a, b = r.levels
        other = torch.where(level == a, b, torch.where(level == b, a, level))
        partner = (other << program.n_bits) | (bits ^ x)
        # By S from level a to level b, by -Sᵀ back: the sign is that of the bits on level a.
        weight = torch.where(level == a, torch.where(_parity(bits & z), sign, -sign), weight)
        turned = cosine * state + sine * state[:, partner] * weight[:, None]
        state = torch.where(((level == a) | (level == b))[:, None], turned, state)
    if program.skeleton:
        source, signs = (torch.from_numpy(part).to(angles.device) for part in program.permutation)
        state = state[:, source] * signs.to(state.dtype)[:, None]
    return state


def _parity(value: Tensor) -> Tensor:
    for shift in (32, 16, 8, 4, 2, 1):
        value = value ^ (value >> shift)
    return (value & 1).bool()


def orthonormal_columns(angles: Tensor, program: Program, columns: int) -> Tensor:
    """First columns of the map of `program`, shape (batch, n_features, columns).

    Args:
        angles: radians, float32 or float64, shape (batch, n_angles); layers of one architecture form a batch.
        program: what to apply.
        columns: 1 to n_features.

    Raises:
        QasError: another dtype or shape.
    """
    if angles.dtype not in _NUMPY:
        raise QasError(f"angles of a circuit layer are float32 or float64, got {angles.dtype}")
    if angles.ndim != 2 or angles.shape[1] != program.n_angles:
        raise QasError(f"angles have shape (batch, {program.n_angles}), got {tuple(angles.shape)}")
    if not 1 <= columns <= program.n_features:
        raise QasError(f"a map of {program.n_features} features has 1 to {program.n_features} columns, got {columns}")
    return _Columns.apply(angles, program, columns)


# ---------------------------------------------------------------------- rotations of activations
@dataclass(frozen=True)
class _Block:
    """One dense pass: the axes are brought into `order`, then `program` acts on the axes from `first` on."""

    order: tuple[int, ...] | None
    """permutation of the axes before the pass, None if they lie right"""
    shape: tuple[int, int, int]
    """(before, block, after) of the features"""
    program: Program
    slots: tuple[int, ...]


class FusedRotation:
    """An architecture as few dense passes over features, tokens innermost; neighbouring gates are fused into blocks.

    Args:
        operations: as from `qas.adapters.program.lower`.
        n_bits, odd: features are odd * 2**n_bits.
        block_bits: most bits of a block.
    """

    def __init__(
        self, operations: Sequence[Rotation | Clifford], n_bits: int, odd: int = 1, block_bits: int = BLOCK_BITS
    ) -> None:
        self.n_bits, self.odd = n_bits, odd
        self.n_features = odd << n_bits
        groups = _group(operations, n_bits, block_bits)
        # Axes from the slowest to the fastest: the odd one, then bits from the highest down.
        self._axes = ([ODD] if odd > 1 else []) + list(range(n_bits - 1, -1, -1))
        self.blocks, order = self._place(groups)
        self._back = None if order == self._axes else tuple(order.index(a) for a in self._axes)
        self._end = tuple(self._dimension(a) for a in order)

    def __len__(self) -> int:
        return len(self.blocks)

    def _dimension(self, axis: int) -> int:
        return self.odd if axis == ODD else 2

    def _place(self, groups: list[tuple[set[int], list[Rotation | Clifford]]]) -> tuple[list[_Block], list[int]]:
        order = list(self._axes)
        blocks = []
        for wires, members in groups:
            places = sorted(order.index(w) for w in wires)
            moved = None
            odd_inside = ODD in wires and order[places[0]] != ODD
            if places[-1] - places[0] + 1 != len(places) or odd_inside:
                inside = sorted((order[p] for p in places), key=lambda a: (a != ODD, -a))
                new = inside + [a for a in order if a not in wires]
                moved = tuple(order.index(a) for a in new)
                order, places = new, list(range(len(wires)))
            local = [order[p] for p in places]
            before = int(np.prod([self._dimension(a) for a in order[: places[0]]], dtype=np.int64))
            size = int(np.prod([self._dimension(a) for a in local], dtype=np.int64))
            program, slots = _local(members, local, self.odd)
            blocks.append(_Block(moved, (before, size, self.n_features // before // size), program, slots))
        return blocks, order

    def matrices(self, angles: Tensor) -> list[Tensor]:
        """The dense block of each pass, from angles (n_angles,)."""
        found = []
        for block in self.blocks:
            own = angles[list(block.slots)][None]
            found.append(orthonormal_columns(own, block.program, block.program.n_features)[0])
        return found

    def __call__(self, angles: Tensor, features: Tensor, *, inverse: bool = False) -> Tensor:
        """R X, or R^T X, for X of shape (n_features, columns), columns contiguous; angles (n_angles,)."""
        blocks = [m.to(features.dtype) for m in self.matrices(angles)]
        columns = features.shape[1]
        if inverse:
            return self._undo(blocks, features, columns)
        order = list(self._axes)
        for block, matrix in zip(self.blocks, blocks, strict=True):
            if block.order is not None:
                features = self._permute(features, order, block.order)
                order = [order[p] for p in block.order]
            features = _pass(matrix, features, block.shape)
        if self._back is not None:
            features = self._permute(features, order, self._back)
        return features.reshape(self.n_features, columns)

    def _undo(self, blocks: list[Tensor], features: Tensor, columns: int) -> Tensor:
        orders = [list(self._axes)]
        for block in self.blocks:
            last = orders[-1]
            orders.append(last if block.order is None else [last[p] for p in block.order])
        if self._back is not None:
            features = self._permute(features, self._axes, _inverse(self._back))
        for position in range(len(blocks) - 1, -1, -1):
            block = self.blocks[position]
            features = _pass(blocks[position].T, features, block.shape)
            if block.order is not None:
                features = self._permute(features, orders[position + 1], _inverse(block.order))
        return features.reshape(self.n_features, columns)

    def _permute(self, features: Tensor, order: Sequence[int], permutation: Sequence[int]) -> Tensor:
        shape = [self._dimension(a) for a in order]
        return features.reshape(*shape, -1).permute(*permutation, len(shape)).contiguous()


def _inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(permutation))


def _pass(matrix: Tensor, features: Tensor, shape: tuple[int, int, int]) -> Tensor:
    before, size, _ = shape
    if before == 1:
        return matrix @ features.reshape(size, -1)
    return torch.bmm(matrix.expand(before, size, size), features.reshape(before, size, -1))


def _wires(op: Rotation | Clifford, n_bits: int) -> set[int]:
    if isinstance(op, Clifford):
        return set(op.wires)
    _, x, z = op.string
    wires = {q for q in range(n_bits) if (x | z) >> q & 1}
    return wires | {ODD} if op.levels is not None else wires


def _group(
    operations: Iterable[Rotation | Clifford], n_bits: int, block_bits: int
) -> list[tuple[set[int], list[Rotation | Clifford]]]:
    """Greedy fusion: each gate joins the block that it widens least, among those it can still reach."""
    groups: list[tuple[set[int], list[Rotation | Clifford]]] = []
    for op in operations:
        wires = _wires(op, n_bits)
        last = max((i for i, (held, _) in enumerate(groups) if held & wires), default=-1)
        reach = [
            (len(wires - groups[i][0]), _spread(groups[i][0] | wires), i)
            for i in range(max(last, 0), len(groups))
            if _weight(groups[i][0] | wires) <= block_bits
        ]
        if reach:
            _, _, best = min(reach)
            groups[best][0].update(wires)
            groups[best][1].append(op)
        else:
            groups.append((set(wires), [op]))
    merged: list[tuple[set[int], list[Rotation | Clifford]]] = []
    for wires, members in groups:
        if merged and _weight(merged[-1][0] | wires) <= block_bits:
            merged[-1][0].update(wires)
            merged[-1][1].extend(members)
        else:
            merged.append((set(wires), list(members)))
    return merged


def _weight(wires: set[int]) -> int:
    return len(wires) + (ODD in wires)  # the odd axis is at least as large as one bit and a half


def _spread(wires: set[int]) -> int:
    return max(wires) - min(wires)


def _local(members: Sequence[Rotation | Clifford], axes: Sequence[int], odd: int) -> tuple[Program, tuple[int, ...]]:
    """The members as a program on their own axes (slowest first), and which angles of the whole it takes."""
    bits = [a for a in axes if a != ODD]
    place = {a: len(bits) - 1 - i for i, a in enumerate(bits)} | {ODD: ODD}

    def mask(value: int) -> int:
        return sum(1 << place[q] for q in bits if value >> q & 1)

    slots: dict[int, int] = {}
    ops: list[Rotation | Clifford] = []
    for op in members:
        if isinstance(op, Clifford):
            ops.append(Clifford(op.name, tuple(place[w] for w in op.wires)))
            continue
        slot = None if op.slot is None else slots.setdefault(op.slot, len(slots))
        sign, x, z = op.string
        ops.append(Rotation((sign, mask(x), mask(z)), slot, op.coefficient, op.angle, op.parity, op.levels))
    levels = odd if ODD in axes else 1
    return compile_program(ops, len(bits), len(slots), odd=levels), tuple(slots)


def inverse_operations(operations: Iterable[Rotation | Clifford]) -> list[Rotation | Clifford]:
    """The inverse of what operations do at angles zero: their signed permutations and fixed rotations, reversed."""
    found: list[Rotation | Clifford] = []
    for op in operations:
        if isinstance(op, Clifford):
            found.append(op)  # x, z, cx, cz and swap undo themselves
        elif op.slot is None:
            found.append(Rotation(op.string, None, angle=-op.angle, parity=op.parity, levels=op.levels))
    return found[::-1]


def relative_rotation(
    operations: Sequence[Rotation | Clifford], n_bits: int, odd: int = 1, block_bits: int = BLOCK_BITS
) -> FusedRotation:
    """L^-1 R(angles) M^-1 where R(0) = L M: the identity at angles zero.

    The skeleton is split in time order where that costs the fewest passes; any split reaches as many directions.
    """
    fixed = [i for i, op in enumerate(operations) if isinstance(op, Clifford) or op.slot is None]
    cuts = sorted({0, len(operations), *fixed[:: max(1, len(fixed) // 16)]})
    best = None
    for cut in cuts:
        whole = [*inverse_operations(operations[:cut]), *operations, *inverse_operations(operations[cut:])]
        found = FusedRotation(whole, n_bits, odd, block_bits)
        cost = sum(b.shape[1] + (32 if b.order else 0) for b in found.blocks)
        if best is None or cost < best[0]:
            best = (cost, found)
    assert best is not None
    return best[1]
