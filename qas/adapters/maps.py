"""Circuits as differentiable linear maps: orthonormal columns of an architecture, and rotations of activations.

Two paths make the maps of layers, for many layers at once: the compiled kernels on the processor, and dense blocks in
torch everywhere else, which is also what `torch.compile` and the transforms of `torch.func` see.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qas.adapters.architecture import Architecture
from qas.adapters.base import readable, traced
from qas.adapters.program import ODD, Clifford, Program, Rotation, compile_program
from qas.errors import QasError

BLOCK_BITS = 6
"""Most bits of one block of a fused rotation: 64 x 64 matrices keep a processor's matrix units busy."""

COLUMN_BITS = 4
"""The same where few columns are turned: more passes, but blocks that cost less to make."""

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
_PAIR = -2
"""The axis of states and their cotangents, beside the odd one and the bits."""


# ---------------------------------------------------------------------- maps of many layers at once
class LayerMap(ABC):
    """What one side of a layer needs from its angles: matrices. Maps that are equal are made together."""

    n_angles: int
    shapes: list[tuple[int, int]]
    """of the matrices"""
    fused: FusedRotation
    """what the torch path multiplies"""

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Have ready what `by_torch` needs there."""
        if device.type != "meta":
            self.fused.constants(device, dtype)

    @abstractmethod
    def by_kernel(self, angles: np.ndarray) -> tuple[list[Tensor], Any]:
        """The matrices, each of shape (batch, rows, columns), on the processor, and what `kernel_gradient` needs."""

    @abstractmethod
    def kernel_gradient(self, angles: np.ndarray, kept: Any, rows: np.ndarray, cotangents: list[Tensor]) -> np.ndarray:
        """dL/dangles of the layers `rows`, float64, shape (rows, n_angles)."""

    @abstractmethod
    def by_torch(self, angles: Tensor) -> list[Tensor]:
        """As `by_kernel`, in plain tensor operations, from shape (batch, n_angles)."""

    @abstractmethod
    def torch_gradient(self, angles: Tensor, outputs: list[Tensor], cotangents: list[Tensor]) -> Tensor:
        """dL/dangles, from the angles and what `by_torch` made of them."""


@dataclass(frozen=True)
class ColumnsMap(LayerMap):
    """The first columns of a circuit's matrix, and of these the first rows."""

    architecture: Architecture
    columns: int
    rows: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "fused", fused_columns(self.architecture))

    @property
    def shapes(self) -> list[tuple[int, int]]:  # type: ignore[override]
        return [(self.rows, self.columns)]

    @property
    def n_angles(self) -> int:  # type: ignore[override]
        return self.architecture.n_angles

    def by_kernel(self, angles: np.ndarray) -> tuple[list[Tensor], np.ndarray]:
        program = self.architecture.program
        final = state = program.rotated(angles, self.columns, angles.dtype.type)
        if program.skeleton:
            state = program.apply_skeleton(state)
        return [torch.from_numpy(state)[:, : self.rows, : self.columns].clone()], final

    def kernel_gradient(
        self, angles: np.ndarray, kept: np.ndarray, rows: np.ndarray, cotangents: list[Tensor]
    ) -> np.ndarray:
        program, final = self.architecture.program, kept[rows]
        full = np.zeros_like(final)
        source, sign = program.permutation
        signed = cotangents[0].numpy() * sign[: self.rows, None].astype(full.dtype)
        full[:, source[: self.rows], : self.columns] = signed
        return program.gradient(angles[rows], final, full, self.columns)

    def by_torch(self, angles: Tensor) -> list[Tensor]:
        with without_autocast(angles.device):
            return [self.fused.columns(angles, self.columns)[:, : self.rows]]

    def torch_gradient(self, angles: Tensor, outputs: list[Tensor], cotangents: list[Tensor]) -> Tensor:
        final, cotangent = outputs[0], cotangents[0]
        with without_autocast(angles.device):
            if self.rows < self.fused.n_features:  # what lies below is needed to undo the rotations
                final = self.fused.columns(angles, self.columns)
                cotangent = torch.nn.functional.pad(cotangent, (0, 0, 0, self.fused.n_features - self.rows))
            return self.fused.columns_gradient(angles, final, cotangent)


@dataclass(frozen=True)
class BlocksMap(LayerMap):
    """The dense blocks of a fused rotation."""

    fused: FusedRotation

    @property
    def n_angles(self) -> int:  # type: ignore[override]
        return self.fused.n_angles

    @property
    def shapes(self) -> list[tuple[int, int]]:  # type: ignore[override]
        return [(size, size) for size in self.fused.sizes]

    def by_kernel(self, angles: np.ndarray) -> tuple[list[Tensor], list[np.ndarray]]:
        found, kept = [], []
        for block in self.fused.blocks:
            own = angles[:, list(block.slots)]
            kept.append(block.program.rotated(own, block.program.n_features, angles.dtype.type))
            found.append(torch.from_numpy(block.program.apply_skeleton(kept[-1])[..., : block.program.n_features]))
        return found, kept

    def kernel_gradient(
        self, angles: np.ndarray, kept: list[np.ndarray], rows: np.ndarray, cotangents: list[Tensor]
    ) -> np.ndarray:
        found = np.zeros((len(rows), self.n_angles))
        for block, final, cotangent in zip(self.fused.blocks, kept, cotangents, strict=True):
            program, state = block.program, final[rows]
            full = np.zeros_like(state)
            source, sign = program.permutation
            full[:, source, : program.n_features] = cotangent.numpy() * sign[:, None].astype(full.dtype)
            own = angles[np.ix_(rows, np.array(block.slots, dtype=np.int64))]
            found[:, list(block.slots)] += program.gradient(own, state, full, program.n_features)
        return found

    def by_torch(self, angles: Tensor) -> list[Tensor]:
        with without_autocast(angles.device):
            matrices = self.fused.dense(angles)
        return [matrices[:, j, :size, :size] for j, size in enumerate(self.fused.sizes)]

    def torch_gradient(self, angles: Tensor, outputs: list[Tensor], cotangents: list[Tensor]) -> Tensor:
        return self.fused.dense_gradient(angles, lambda _: _padded(cotangents, self.fused.largest))


def _padded(matrices: Sequence[Tensor], size: int) -> Tensor:
    """Matrices of shape (batch, d, d) with zeros to the right and below, stacked in axis 1."""
    pads = ((0, size - m.shape[2], 0, size - m.shape[1]) for m in matrices)
    return torch.stack([torch.nn.functional.pad(m, p) if any(p) else m for m, p in zip(matrices, pads, strict=True)], 1)


@dataclass(frozen=True)
class _Group:
    """Sides of equal maps: where their angles start among all, and where their matrices go."""

    map: LayerMap
    starts: tuple[int, ...]
    outputs: tuple[int, ...]

    def put(self, batches: Sequence[Tensor], found: list[Any]) -> None:
        """Matrices of all sides to their places."""
        for k, batch in enumerate(batches):
            for out, matrix in zip(self.outputs, batch.unbind(), strict=True):
                found[out + k] = matrix


class Layers:
    """The maps of many layers, from one vector of angles for each.

    Args:
        maps: for each layer its maps, whose angles stand one after the other in its vector.
    """

    def __init__(self, maps: Sequence[Sequence[LayerMap]]) -> None:
        sides: dict[LayerMap, list[tuple[int, int]]] = {}
        at, outputs = 0, 0
        self.outputs: list[tuple[int, int]] = []
        for own in maps:
            first = outputs
            for one in own:
                sides.setdefault(one, []).append((at, outputs))
                at, outputs = at + one.n_angles, outputs + len(one.shapes)
            self.outputs.append((first, outputs))
        self.size, self.n_outputs = at, outputs
        self.groups = [_Group(one, *zip(*held, strict=True)) for one, held in sides.items()]
        self._held: dict[torch.device, list[Tensor]] = {}

    def __call__(self, vectors: Sequence[Tensor], spent: bytearray | None = None) -> list[tuple[Tensor, ...]]:
        """The matrices of each layer.

        Args:
            vectors: angles in radians, float32 or float64, all of one type and on one device.
            spent: is set to 1 at the number of each layer through whose matrices a backward pass has gone.

        Raises:
            QasError: another type or another number of angles.
        """
        for vector in vectors:
            if vector.dtype not in _NUMPY:
                raise QasError(f"angles of a circuit layer are float32 or float64, got {vector.dtype}")
        if sum(len(vector) for vector in vectors) != self.size:
            raise QasError(f"the layers have {self.size} angles, got {sum(len(vector) for vector in vectors)}")
        if traced():
            found = self._by_torch(vectors)
        else:
            found = list(_Made.apply(self, bytearray(len(vectors)) if spent is None else spent, *vectors))
        return [tuple(found[first:last]) for first, last in self.outputs]

    def _by_torch(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        found: list[Any] = [None] * self.n_outputs
        flat = vectors[0] if len(vectors) == 1 else torch.cat(list(vectors))
        for group in self.groups:
            angles = torch.stack([flat.narrow(0, at, group.map.n_angles) for at in group.starts])
            group.put(group.map.by_torch(angles), found)
        return found

    def places(self, device: torch.device) -> list[Tensor]:
        """For each group where its angles stand among all, shape (sides, n_angles)."""
        held = self._held.get(device)
        if held is None:
            with torch.inference_mode(False):
                held = self._held[device] = [
                    torch.tensor(group.starts)[:, None].add(torch.arange(group.map.n_angles)).to(device)
                    for group in self.groups
                ]
        return held


class _Made(torch.autograd.Function):
    """`Layers` with a gradient that keeps the angles and the last states only, and is made for the layers that ask.

    What the backward pass needs is kept in attributes instead of saved tensors: layers that share one batch may run
    backward at different times, inside activation checkpoints too.
    """

    @staticmethod
    def forward(ctx: Any, layers: Layers, spent: bytearray, *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.layers, ctx.spent = layers, spent
        ctx.lengths = [len(vector) for vector in vectors]
        flat = torch.cat(vectors) if len(vectors) > 1 else vectors[0].detach()
        ctx.kernel, ctx.groups = readable(flat), []
        found: list[Any] = [None] * layers.n_outputs
        with _full_precision(flat.device):
            for group, places in zip(layers.groups, layers.places(flat.device), strict=True):
                angles = flat[places]
                if ctx.kernel:
                    outputs, kept = group.map.by_kernel(angles.numpy())
                else:
                    outputs = kept = group.map.by_torch(angles)
                ctx.groups.append((angles, kept))
                group.put(outputs, found)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        layers: Layers = ctx.layers
        asked = [any(cotangents[k] is not None for k in range(*outputs)) for outputs in layers.outputs]
        for member in np.flatnonzero(asked):
            ctx.spent[member] = 1
        angles = ctx.groups[0][0] if ctx.groups else torch.zeros(0)
        flat = angles.new_zeros(layers.size)
        with _full_precision(flat.device):
            for group, places, (angles, kept) in zip(
                layers.groups, layers.places(flat.device), ctx.groups, strict=True
            ):
                _add_gradient(group, places, angles, kept, cotangents, flat, kernel=ctx.kernel)
        parts = flat.split(ctx.lengths)
        return None, None, *(part if wanted else None for part, wanted in zip(parts, asked, strict=True))


def _add_gradient(
    group: _Group,
    places: Tensor,
    angles: Tensor,
    kept: Any,
    cotangents: Sequence[Tensor | None],
    flat: Tensor,
    *,
    kernel: bool,
) -> None:
    """Puts the gradient of a group's sides, where there are cotangents, into the flat one."""
    shapes = list(enumerate(group.map.shapes))
    rows = [r for r, out in enumerate(group.outputs) if any(cotangents[out + k] is not None for k, _ in shapes)]
    if not rows or not group.map.n_angles:
        return
    stacks = []
    for k, shape in shapes:
        given = [cotangents[group.outputs[r] + k] for r in rows]
        stacks.append(torch.stack([angles.new_zeros(shape) if g is None else g for g in given]))
    if kernel:
        found = torch.from_numpy(group.map.kernel_gradient(angles.numpy(), kept, np.array(rows), stacks))
        places = places[rows]
    elif len(rows) == len(angles):
        found = group.map.torch_gradient(angles, kept, stacks)
    else:
        chosen = torch.tensor(rows, device=angles.device)
        found = group.map.torch_gradient(angles[chosen], [part[chosen] for part in kept], stacks)
        places = places[chosen]
    flat.index_copy_(0, places.reshape(-1), found.to(flat.dtype).reshape(-1))


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No TensorFloat-32 in products: an error of a block is an error of the whole frame."""
    exact, switch = "highest", torch.set_float32_matmul_precision
    try:
        held = torch.get_float32_matmul_precision() if device.type == "cuda" else exact
    except RuntimeError:  # torch's later switches have been used, after which the first is no good
        exact, switch = "ieee", partial(setattr, torch.backends.cuda.matmul, "fp32_precision")
        held = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else exact
    if held != exact:
        switch(exact)
    try:
        yield
    finally:
        if held != exact:
            switch(held)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in the precision of the angles: an error of an angle is an error of the whole frame."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


# ---------------------------------------------------------------------- rotations of activations
@dataclass(frozen=True)
class _Block:
    """One dense pass: the axes are brought into `order`, then `program` acts on the axes from `first` on."""

    axes: tuple[int, ...]
    """of the block, the slowest first"""
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
        groups = min(_group(operations, n_bits, block_bits), _windows(operations, n_bits, block_bits), key=len)
        # Axes from the slowest to the fastest: the odd one, then bits from the highest down.
        self._axes = ([ODD] if odd > 1 else []) + list(range(n_bits - 1, -1, -1))
        self.blocks, order = self._place(groups)
        self._back = None if order == self._axes else tuple(order.index(a) for a in self._axes)
        self.sizes = [block.shape[1] for block in self.blocks]
        self.largest = max(self.sizes, default=1)
        self.n_angles = 1 + max(
            (op.slot for op in operations if isinstance(op, Rotation) and op.slot is not None), default=-1
        )
        self._fronts: list[tuple[int, ...]] = []
        """the axes before each block, those of the block first"""
        for block in self.blocks:
            before = self._fronts[-1] if self._fronts else self._axes
            self._fronts.append((*block.axes, *(a for a in before if a not in block.axes)))
        self._held: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def __deepcopy__(self, memo: Any) -> FusedRotation:
        return self  # nothing in it changes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_factors"} | {"_held": {}}

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
            blocks.append(
                _Block(tuple(local), moved, (before, size, self.n_features // before // size), program, slots)
            )
        return blocks, order

    # ------------------------------------------------------------------ dense blocks in torch
    @cached_property
    def _factors(self) -> tuple[np.ndarray, ...]:
        """Each block as a product of K + cos(φ/2) C + sin(φ/2) D: slots, halves of coefficients and fixed angles, of
        shape (blocks, factors), K, of shape (blocks, factors, largest, largest), C beside D, of shape (blocks, factors,
        2, largest, largest), and what share of a factor's slope goes to each angle, (blocks * factors, n_angles).

        Identities fill up the number of factors to a power of two, and blocks to the size of the largest.
        """
        most = max((len(block.program.rotations) for block in self.blocks), default=1)
        factors = 1 << max(0, most - 1).bit_length()
        shape = (len(self.blocks), factors)
        slots, halves, fixed = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
        still, turning = (np.zeros((*shape, *of, self.largest, self.largest)) for of in ((), (2,)))
        even, odd = turning[:, :, 0], turning[:, :, 1]
        still[:] = np.eye(self.largest)
        for j, block in enumerate(self.blocks):
            size, program = block.shape[1], block.program
            for f, r in enumerate(program.rotations):
                slots[j, f] = 0 if r.slot is None else block.slots[r.slot]
                halves[j, f], fixed[j, f] = (0.0, r.angle / 2) if r.slot is None else (r.coefficient / 2, 0.0)
                parts = _rotation_parts(r, program.n_bits, size)
                for whole, part in zip((still, even, odd), parts, strict=True):
                    whole[j, f, :size, :size] = part
            last = max(0, len(program.rotations) - 1)
            source, sign = program.permutation
            for whole in (still, even, odd):
                whole[j, last, :size] = sign[:, None] * whole[j, last, source]
        shares = np.zeros((slots.size, self.n_angles))
        if self.n_angles:
            shares[np.arange(slots.size), slots.reshape(-1)] = halves.reshape(-1)
        return slots, halves, fixed, still, turning, shares

    def constants(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The factors as tensors."""
        held = self._held.get((device, dtype))
        if held is None:
            with torch.inference_mode(False):
                slots, *numbers = (torch.from_numpy(part).to(device) for part in self._factors)
                held = self._held[device, dtype] = (slots, *(part.to(dtype) for part in numbers))
        return held

    def dense(self, angles: Tensor) -> Tensor:
        """All blocks, shape (batch, blocks, largest, largest), from angles of shape (batch, n_angles)."""
        _, _, products = self._products(angles)
        return products[-1][:, :, 0]

    def _products(self, angles: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cosines and sines of the factors, and factors, products of two neighbours, of four and so on."""
        slots, halves, fixed, still, turning, _ = self.constants(angles.device, angles.dtype)
        if not self.n_angles:
            angles = angles.new_zeros(len(angles), 1)
        phi = torch.addcmul(fixed, angles[:, slots], halves)[..., None, None]
        cosines, sines = phi.cos(), phi.sin()
        even, odd = turning.unbind(2)
        products = [torch.addcmul(torch.addcmul(still, cosines, even), sines, odd)]
        while products[-1].shape[2] > 1:
            first, second = _neighbours(products[-1])
            products.append(second @ first)
        return cosines, sines, products

    def dense_gradient(self, angles: Tensor, cotangent: Any) -> Tensor:
        """dL/dangles, where `cotangent` makes dL/dblocks from the blocks."""
        *_, turning, shares = self.constants(angles.device, angles.dtype)
        with without_autocast(angles.device):
            cosines, sines, products = self._products(angles)
            slopes = cotangent(products[-1][:, :, 0])[:, :, None]
            for product in products[-2::-1]:
                first, second = _neighbours(product)
                slopes = torch.stack([second.mT @ slopes, slopes @ first.mT], 3).reshape(product.shape)
            # Of each factor the parts of dL/dcos and dL/dsin: its slope against the C and D of the same place.
            parts = slopes.reshape(*slopes.shape[:3], self.largest**2).permute(1, 2, 0, 3) @ turning.flatten(3).mT
            by_cosine, by_sine = parts.permute(2, 0, 1, 3).unbind(3)
            found = by_sine * cosines[..., 0, 0] - by_cosine * sines[..., 0, 0]
            return found.reshape(len(angles), len(shares)) @ shares

    def columns(self, angles: Tensor, columns: int) -> Tensor:
        """First columns of the map, shape (batch, n_features, columns), from angles of shape (batch, n_angles)."""
        blocks, batch = self.dense(angles), len(angles)
        state = torch.eye(self.n_features, columns, dtype=angles.dtype, device=angles.device).expand(batch, -1, -1)
        order = tuple(self._axes)
        for j, (front, size) in enumerate(zip(self._fronts, self.sizes, strict=True)):
            state = self._moved(state, order, front)
            state = blocks[:, j, :size, :size] @ state.reshape(batch, size, -1)
            order = front
        return self._moved(state, order, tuple(self._axes)).reshape(batch, self.n_features, columns)

    def columns_gradient(self, angles: Tensor, final: Tensor, cotangent: Tensor) -> Tensor:
        """dL/dangles from the last state and dL/dstate: blocks are undone on both, so no other state is kept."""

        def swept(blocks: Tensor) -> Tensor:
            batch, slopes = len(final), []
            both, order = torch.stack([final, cotangent], 1), (_PAIR, *self._axes)
            for j in range(len(self.blocks) - 1, -1, -1):
                size = self.sizes[j]
                inside, rest = self._fronts[j][: len(self.blocks[j].axes)], self._fronts[j][len(self.blocks[j].axes) :]
                front = (*inside, _PAIR, *rest)
                after = self._moved(both, order, front).reshape(batch, size, -1)
                both = blocks[:, j, :size, :size].mT @ after
                states, slope = both.view(batch, size, 2, -1)[:, :, 0], after.view(batch, size, 2, -1)[:, :, 1]
                slopes.append(slope @ states.mT)
                order = front
            return _padded(slopes[::-1], self.largest)

        return self.dense_gradient(angles, swept)

    def _moved(self, state: Tensor, order: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
        """A batch of states whose axes are `order` with `wanted` axes, columns innermost."""
        if order == wanted:
            return state
        state = state.reshape(len(state), *(2 if a == _PAIR else self._dimension(a) for a in order), -1)
        return state.permute(0, *(1 + order.index(a) for a in wanted), len(order) + 1)

    # ------------------------------------------------------------------ activations
    def matrices(self, angles: Tensor) -> tuple[Tensor, ...]:
        """The dense block of each pass, from angles (n_angles,)."""
        return Layers([[BlocksMap(self)]])([angles])[0]

    def __call__(self, angles: Tensor, features: Tensor, *, inverse: bool = False) -> Tensor:
        """R X, or R^T X, for X of shape (n_features, columns), columns contiguous; angles (n_angles,)."""
        return self.turned(self.matrices(angles), features, inverse=inverse)

    def turned(self, matrices: Sequence[Tensor], features: Tensor, *, inverse: bool = False) -> Tensor:
        """As a call, from the blocks."""
        blocks = [m.to(features.dtype) for m in matrices]
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


def _neighbours(product: Tensor) -> tuple[Tensor, Tensor]:
    """Every first and every second of the matrices along axis 2."""
    first, second = product.unflatten(2, (-1, 2)).unbind(3)
    return first, second


def _rotation_parts(r: Rotation, n_bits: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, C and D of a rotation K + cos(φ/2) C + sin(φ/2) D, shape (size, size)."""
    sign, x, z = r.string
    index = np.arange(size)
    bits, level = index & ((1 << n_bits) - 1), index >> n_bits
    partner = index ^ x
    weight = np.where(np.bitwise_count(partner & ((1 << n_bits) - 1) & z) & 1, -sign, sign)
    turned = np.ones(size, dtype=bool)
    if r.parity:
        weight = np.where(level % 2 == 1, -weight, weight)
    if r.levels is not None:
        a, b = r.levels
        other = np.where(level == a, b, np.where(level == b, a, level))
        partner, turned = (other << n_bits) | (bits ^ x), (level == a) | (level == b)
        # By S from level a to level b, by -Sᵀ back: the sign is that of the bits on level a.
        weight = np.where(level == a, np.where(np.bitwise_count(bits & z) & 1, sign, -sign), weight)
    slope = np.zeros((size, size))
    slope[index, partner] = np.where(turned, weight, 0)
    return np.diag(np.where(turned, 0.0, 1.0)), np.diag(np.where(turned, 1.0, 0.0)), slope


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


def _windows(
    operations: Iterable[Rotation | Clifford], n_bits: int, block_bits: int
) -> list[tuple[set[int], list[Rotation | Clifford]]]:
    """Fusion of gates between neighbours: each block takes what most can be taken now within some run of bits."""
    left = [(op, _wires(op, n_bits)) for op in operations]
    runs = [set(range(k, min(k + block_bits, n_bits))) for k in range(max(1, n_bits - block_bits + 1))]
    groups = []
    while left:
        tries = [(window, *_taken(left, window)) for window in (*runs, left[0][1])]
        window, taken, left = max(tries, key=lambda found: len(found[1]))
        groups.append((set(window), taken))
    return groups


def _taken(
    operations: Sequence[tuple[Rotation | Clifford, set[int]]], window: set[int]
) -> tuple[list[Rotation | Clifford], list[tuple[Rotation | Clifford, set[int]]]]:
    """Operations on wires of the window only that nothing before them holds back, and the others."""
    blocked: set[int] = set()
    taken, others = [], []
    for op, wires in operations:
        if wires <= window and not wires & blocked:
            taken.append(op)
        else:
            blocked |= wires
            others.append((op, wires))
    return taken, others


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


@functools.lru_cache(maxsize=64)
def fused_columns(architecture: Architecture) -> FusedRotation:
    """The circuit in blocks for few columns; made once for all layers that share it."""
    return FusedRotation(architecture.operations, architecture.n_bits, architecture.odd, COLUMN_BITS)
