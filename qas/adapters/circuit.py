"""Adapter layers made of circuits: low-rank updates between orthonormal frames, and rotations."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qas.adapters.architecture import Architecture, load_architecture, quantum_peft
from qas.adapters.base import Adapter, DeltaAdapter, readable, traced
from qas.adapters.maps import (
    BlocksMap,
    ColumnsMap,
    FusedRotation,
    LayerMap,
    Layers,
    relative_rotation,
    without_autocast,
)
from qas.adapters.packed import PackedAdapter, version_of
from qas.adapters.program import Clifford, Rotation, compile_program, takes_offset
from qas.adapters.quantize import halve_each, quantize_each
from qas.checks import finite_number, whole_number
from qas.errors import QasError

RANK = 8


def frame_architecture(source: Any, features: int, layers: int = 1) -> Architecture:
    """What stands on one side of a frame adapter: ``"quantum-peft"`` with `layers`, or any architecture.

    Raises:
        QasError: an unknown source, or a circuit that does not fit the layer.
    """
    if isinstance(source, str) and source == "quantum-peft":
        return quantum_peft(features, layers)[0]
    return load_architecture(source).for_layer(features)[0]


class _Shared(PackedAdapter):
    """An adapter whose matrices are made together with those of other layers."""

    bank: MapBank

    def _share(self, *maps: LayerMap) -> None:
        """Say what is needed from the angles, in their order."""
        self.maps = maps
        self.alone = Layers([maps])
        MapBank([self])
        self._prepare()

    def _prepare(self) -> None:
        for one in self.maps:
            one.prepare(self.angles.device, torch.promote_types(self.angles.dtype, torch.float32))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> _Shared:
        super()._apply(fn, recurse)
        self._prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "alone"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        bank = self.__dict__.get("bank")  # files of earlier versions have none
        self._share(*self.maps)
        if bank is not None:
            bank.join(self)

    def matrices(self) -> tuple[Tensor, ...]:
        """Of its maps, in the precision of the angles."""
        return self.bank.of(self)[0]

    @property
    def is_watched(self) -> bool:
        """Whether changes of the parameters can be seen: on the processor by a look, elsewhere as torch counts them,
        which it does not for tensors that were made in inference mode."""
        return readable(self.angles) or not any(tensor.is_inference() for tensor in _inputs(self))

    @property
    def is_exchanged(self) -> bool:
        """Whether somebody puts other content behind the parameters and leaves no trace, as FSDP2 does, which asks to
        be told of loaded state dicts."""
        return bool(self._load_state_dict_post_hooks)


@dataclass(frozen=True)
class _State:
    """What matrices were computed from; holding the tensors keeps their places from being given to others."""

    tensors: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]
    versions: tuple[int, ...]
    copies: tuple[Tensor, ...] | None
    """on the processor, where a look is cheap: changes through ``.data`` leave no trace in the version"""
    modes: tuple[bool, ...]

    @classmethod
    def of(cls, adapter: _Shared) -> _State:
        adapter.collect()
        tensors = _inputs(adapter)
        memory = tuple(tensor.detach() for tensor in tensors)
        copies = tuple(tensor.clone() for tensor in memory) if readable(adapter.angles) else None
        return cls(tensors, memory, tuple(map(version_of, tensors)), copies, _modes(tensors))

    def holds(self, adapter: _Shared) -> bool:
        """Whether matrices of `adapter` would come out the same now, and fit the present modes of autograd."""
        adapter.collect()
        tensors = _inputs(adapter)
        return (
            self.modes == _modes(tensors)
            and all(
                was is now and memory.data_ptr() == now.data_ptr() and version == version_of(now)
                for was, now, memory, version in zip(self.tensors, tensors, self.memory, self.versions, strict=True)
            )
            and (self.copies is None or all(map(torch.equal, self.copies, tensors)))
        )


def _inputs(adapter: _Shared) -> tuple[Tensor, ...]:
    """What a bank computes from: angles, and singular values where it rounds them."""
    values = None if adapter.bits is None else adapter.values
    return (adapter.angles,) if values is None else (adapter.angles, values)


def _modes(tensors: Sequence[Tensor]) -> tuple[bool, ...]:
    # What is computed in inference mode can never take part in a backward pass, not even as a constant.
    grad = torch.is_grad_enabled()
    return torch.is_inference_mode_enabled(), *(grad and tensor.requires_grad for tensor in tensors)


@dataclass(frozen=True)
class _Held:
    """What was made for one adapter of a batch: its matrices, and its rounded singular values where it has bits."""

    state: _State
    made: tuple[tuple[Tensor, ...], Tensor | None]
    spent: bytearray
    """of each adapter of the batch, whether a backward pass has gone through its matrices"""
    number: int
    given: bytearray
    """one entry: whether the adapter has got its matrices"""

    def serves(self, adapter: _Shared) -> bool:
        if self.spent[self.number] or not adapter.is_whole:
            return False
        if self.given[0] and self.state.copies is None and adapter.is_exchanged:
            return False
        return self.state.holds(adapter)


class MapBank:
    """Matrices of layers that are made together.

    A layer that asks gets its matrices from the last batch as long as its own angles have not changed (off the
    processor: as torch counts changes) and no backward pass has gone through them since; a new batch is made of all
    layers that have none by then. What is no member, such as a replica of one for another device, makes its own, and so
    do those whose changes nobody sees, and all under `torch.compile` and the transforms of `torch.func`. A layer whose
    parameters are sharded takes part only while they are whole, so a unit of FSDP2 has a batch of its own. A copy
    serves the layers that are copied with it.
    """

    def __init__(self, adapters: Iterable[_Shared]) -> None:
        self.adapters: list[_Shared] = []
        self._members: set[int] = set()
        self._layers: dict[tuple[int, ...], Layers] = {}
        self._found: dict[int, _Held] = {}
        for adapter in adapters:
            self.join(adapter)

    def __getstate__(self) -> dict[str, Any]:
        return {"adapters": [], "_members": set(), "_layers": {}, "_found": {}}

    def join(self, adapter: _Shared) -> None:
        """From now on the adapter is computed here."""
        adapter.bank = self
        self.adapters.append(adapter)
        self._members.add(id(adapter))

    def of(self, adapter: _Shared) -> tuple[tuple[Tensor, ...], Any]:
        """Matrices of one adapter, and its rounded singular values, None where it has no bits or no values.

        Raises:
            QasError: its parameters are sharded and not whole now.
        """
        if traced() or id(adapter) not in self._members or not adapter.is_watched:
            matrices = adapter.alone([adapter.current_angles()])[0]
            rounded = adapter.bits is not None and adapter.values is not None
            return matrices, adapter.rounded("values", adapter.wide_values()) if rounded else None
        held = self._found.get(id(adapter))
        if held is None or not held.serves(adapter):
            if not adapter.is_whole:
                raise QasError("the parameters of this layer are sharded: it computes in the forward pass of its model")
            self._found = found = self._compute()  # other threads may put theirs there
            held = found[id(adapter)]
        held.given[0] = True
        return held.made

    def _compute(self) -> dict[int, _Held]:
        found = {}
        missing = []
        for adapter in self.adapters:
            held = self._found.get(id(adapter))
            if held is not None and held.serves(adapter):
                found[id(adapter)] = held
            elif adapter.is_whole and adapter.is_watched:
                missing.append(adapter)
        batches: dict[tuple[Any, ...], list[tuple[_Shared, _State, Tensor, Tensor | None]]] = {}
        states = [_State.of(adapter) for adapter in missing]
        for made in zip(missing, states, angles_of(missing), values_of(missing), strict=True):
            angles = made[2]
            batches.setdefault((angles.dtype, angles.device, angles.requires_grad), []).append(made)
        for members in batches.values():
            names = tuple(id(adapter) for adapter, *_ in members)
            layers = self._layers.get(names)
            if layers is None:
                layers = self._layers[names] = Layers([adapter.maps for adapter, *_ in members])
            spent = bytearray(len(members))
            matrices = layers([angles for _, _, angles, _ in members], spent)
            for number, ((adapter, state, _, values), own) in enumerate(zip(members, matrices, strict=True)):
                rounded = None if adapter.bits is None else values
                found[id(adapter)] = _Held(state, (own, rounded), spent, number, bytearray(1))
        return found


def angles_of(adapters: Sequence[_Shared]) -> list[Tensor]:
    """The current angles of each; those of equal length and bits are quantized together."""
    found = [adapter.wide_angles() for adapter in adapters]
    for (bits, *_), numbers in _alike(adapters, found).items():
        for k, angles in zip(numbers, quantize_each([found[k] for k in numbers], bits), strict=True):
            found[k] = angles
    return found


def values_of(adapters: Sequence[PackedAdapter]) -> list[Tensor | None]:
    """The current singular values of each, None where it has none; those of equal length are rounded together."""
    found: list[Any] = [None if adapter.values is None else adapter.wide_values() for adapter in adapters]
    for numbers in _alike(adapters, found).values():
        for k, values in zip(numbers, halve_each([found[k] for k in numbers]), strict=True):
            found[k] = values
    return found


def _alike(adapters: Sequence[PackedAdapter], vectors: Sequence[Tensor | None]) -> dict[tuple[Any, ...], list[int]]:
    """(bits, length, type, device) -> the numbers of adapters whose vectors can be rounded together."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for k, (adapter, vector) in enumerate(zip(adapters, vectors, strict=True)):
        if adapter.bits is not None and vector is not None and len(vector):
            alike.setdefault((adapter.bits, len(vector), vector.dtype, vector.device), []).append(k)
    return alike


def share_maps(adapters: Iterable[Adapter]) -> None:
    """Let the circuits of one model's adapters be computed in common batches."""
    MapBank(a for a in adapters if isinstance(a, _Shared))


class FrameAdapter(PackedAdapter, DeltaAdapter):
    r"""ΔW = s U diag(λ) Vᵀ with orthonormal frames U and V; what makes the frames is up to the subclass.

    λ = 0 at the start, so the change is exactly zero; the first step moves λ alone (spec of Quantum-PEFT,
    arXiv:2503.05431). The gradient of λ is smaller than that of W by about the width of the layer, hence the default
    scale, the square root of the geometric mean of both sides.

    Args:
        in_features, out_features: sides of the layer.
        rank: K, columns of the frames.
        scale: s.
        bits: None for float32, else angles of 1 to 8 bits and λ as float16.
    """

    def __init__(
        self, in_features: int, out_features: int, start: Tensor, rank: int, scale: float | None, bits: int | None
    ) -> None:
        rank = whole_number("rank", rank, 1, min(in_features, out_features))
        super().__init__(in_features, out_features, start, rank, bits)
        self.rank = rank
        self.scale = (in_features * out_features) ** 0.25 if scale is None else finite_number("scale", scale)
        if self.scale == 0:
            raise QasError(f"scale is a finite number other than 0, got {scale!r}")

    @property
    def meaning(self) -> str:
        return f"{super().meaning} frames {self.scale:.6g}"  # the last digits of a root are not the same everywhere

    @abc.abstractmethod
    def frames(self) -> tuple[Tensor, Tensor]:
        """U (out_features, rank) and V (in_features, rank), in the precision of the angles."""

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, V and λ."""
        return *self.frames(), self.current_values()

    def delta(self, x: Tensor) -> Tensor:
        u, v, values = self.factors()
        inner = (x @ v.to(x.dtype)) * (self.scale * values).to(x.dtype)
        return inner @ u.to(x.dtype).T

    def delta_weight(self) -> Tensor:
        u, v, values = self.factors()
        with without_autocast(u.device):
            return (u * (self.scale * values)) @ v.T


class CircuitAdapter(_Shared, FrameAdapter):
    """Frames from a circuit: the first `rank` columns of its matrix, one set of angles for each side.

    Where the circuit has more rows than a side, the first ones are kept, and the columns are orthonormal no longer.

    Frames stay until a backward pass has gone through them or the angles change. Off the processor a look at the angles
    would wait for the device, so there only changes that torch counts are seen: after others between two evaluations,
    such as ``angles.data.copy_(…)``, call ``torch.autograd.graph.increment_version(angles)``. The same holds for
    `RotationAdapter` and its blocks.

    Args:
        in_features, out_features, rank, scale, bits: as for `FrameAdapter`.
        circuit: ``"quantum-peft"``, or whatever `load_architecture` takes.
        layers: of the named circuit.
        generator: draws the angles, uniform in ±π (never zero: there an ansatz can lose most of its directions).

    Raises:
        QasError: rank, bits or scale out of range, or a circuit that does not fit the layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        circuit: Any = "quantum-peft",
        *,
        layers: int = 1,
        rank: int = RANK,
        scale: float | None = None,
        bits: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        architecture = frame_architecture(circuit, out_features, layers)
        other = frame_architecture(circuit, in_features, layers)
        count = architecture.n_angles + other.n_angles
        start = (2 * torch.rand(count, generator=generator) - 1) * math.pi
        super().__init__(in_features, out_features, start, rank, scale, bits)
        self.architecture, self.other_architecture = architecture, other
        sides = ((architecture, out_features), (other, in_features))
        self._share(*(ColumnsMap(side, self.rank, features) for side, features in sides))

    def sides(self) -> tuple[tuple[Architecture, Tensor], tuple[Architecture, Tensor]]:
        """Architecture and current angles of the side of U and of the side of V."""
        angles = self.current_angles()
        first = self.architecture.n_angles
        return (self.architecture, angles[:first]), (self.other_architecture, angles[first:])

    def frames(self) -> tuple[Tensor, Tensor]:
        u, v = self.matrices()
        return u, v

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        (u, v), values = self.bank.of(self)
        return u, v, self.current_values() if values is None else values

    @property
    def meaning(self) -> str:
        return f"{super().meaning} {self.architecture.hash} {self.other_architecture.hash}"

    @property
    def description_bits(self) -> int:
        """Bits of the architecture; they count once for all layers that share it."""
        return self.architecture.description_bits


class TaylorAdapter(FrameAdapter):
    r"""Frames U = exp(A) applied to the first `rank` columns of the identity (Quantum-PEFT's Taylor map).

    A = B - Bᵀ with B strictly lower triangular and zero outside its first `intrinsic_rank` columns K':
    N K' - K'(K'+1)/2 parameters for each side. Linear in N, unlike the circuit. The paper truncates Σ_p A^p / p!, which
    is orthogonal for small A only; this is what the series tends to, orthonormal at any size.

    Args:
        in_features, out_features, rank, scale, bits: as for `FrameAdapter`.
        intrinsic_rank: K'.
        generator: draws B from a normal distribution of variance 1/N.

    Raises:
        QasError: rank, intrinsic rank, bits or scale out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        intrinsic_rank: int = 1,
        rank: int = RANK,
        scale: float | None = None,
        bits: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.intrinsic_rank = whole_number("intrinsic rank", intrinsic_rank, 1, min(in_features, out_features))
        parts = [torch.randn(self._count(n), generator=generator) / math.sqrt(n) for n in (out_features, in_features)]
        super().__init__(in_features, out_features, torch.cat(parts), rank, scale, bits)

    @property
    def meaning(self) -> str:
        return f"{super().meaning} taylor {self.intrinsic_rank}"

    def _count(self, features: int) -> int:
        k = self.intrinsic_rank
        return features * k - k * (k + 1) // 2

    def frames(self) -> tuple[Tensor, Tensor]:
        entries = self.current_angles()
        first = self._count(self.out_features)
        return self._frame(entries[:first], self.out_features), self._frame(entries[first:], self.in_features)

    def _frame(self, entries: Tensor, features: int) -> Tensor:
        k = self.intrinsic_rank
        rows, columns = torch.tril_indices(features, k, -1, device=entries.device)
        # Small beside the layer, so double precision costs little and leaves rounding to the result.
        wide = entries if entries.device.type == "mps" else entries.double()
        with without_autocast(entries.device):
            lower = wide.new_zeros(features, k).index_put((rows, columns), wide)
            return lower_exponential(lower, self.rank).to(entries.dtype)


def lower_exponential(lower: Tensor, columns: int) -> Tensor:
    """First columns of exp(A), A = L Eᵀ - E Lᵀ, for L of shape (n, k) and E the first k columns of the identity.

    A = P Qᵀ has rank 2 k at most: exp(A) = 1 + P φ(Qᵀ P) Qᵀ with φ(M) = Σ_j M^j / (j + 1)!, the upper right block of
    exp [[M, 1], [0, 0]]. Sides are weighted by the root of the norm of L, on which nothing depends: that keeps M as
    small as A.
    """
    features, k = lower.shape
    weight = lower.detach().norm().clamp_min(1.0).sqrt()
    unit = torch.eye(features, k, dtype=lower.dtype, device=lower.device) * weight
    left, right = torch.cat([lower / weight, -unit], 1), torch.cat([unit, lower / weight], 1)
    inner = right.T @ left
    whole = nn.functional.pad(
        torch.cat([inner, torch.eye(2 * k, dtype=lower.dtype, device=lower.device)], 1), (0, 0, 0, 2 * k)
    )
    series = torch.linalg.matrix_exp(whole)[: 2 * k, 2 * k :]
    start = torch.eye(features, columns, dtype=lower.dtype, device=lower.device)
    return start + left @ (series @ right[:columns].T)


class RotationAdapter(_Shared):
    """W R: the inputs are rotated by a circuit, or R W: the outputs are; norms and angles between features stay.

    R is the circuit relative to its Clifford skeleton, the identity at angles zero. Where two angles of the circuit
    turn the same direction there, each angle is measured from a seeded multiple of π/2 instead, so that (nearly) all
    directions differ (on an odd axis, turns between levels of equal parity stay repeated); the start is then the
    identity up to rounding instead of exactly, as it is with fixed gates that are no signed permutations (h, s, sx, t).

    Args:
        circuit, layers: as for `CircuitAdapter`; a layer of another size than 2^n m is rotated in
            its first 2^n m features.
        side: "input" or "output".
        bits: None for float32, else angles of 1 to 8 bits.

    Raises:
        QasError: bits out of range, a circuit that does not fit the layer or has no angles, or an unknown side.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        circuit: Any = "quantum-peft",
        *,
        layers: int = 1,
        side: str = "input",
        bits: int | None = None,
    ) -> None:
        if side not in ("input", "output"):
            raise QasError(f"a rotation acts on the side 'input' or 'output', got {side!r}")
        features = in_features if side == "input" else out_features
        if isinstance(circuit, str) and circuit == "quantum-peft":
            architecture, place = quantum_peft(features, layers, exact=True)
        else:
            architecture, place = load_architecture(circuit).for_layer(features, exact=True)
        if not architecture.n_angles:
            raise QasError("a rotation needs a circuit with angles, got one without: there would be nothing to train")
        super().__init__(in_features, out_features, torch.zeros(architecture.n_angles), 0, bits)
        self.architecture, self.side, self.size = architecture, side, place.size
        self.rotation = fused_relative(architecture)
        self._share(BlocksMap(self.rotation))

    @property
    def meaning(self) -> str:
        return f"{super().meaning} rotation {self.side} {self.architecture.hash}"

    def _rotate(self, x: Tensor, inverse: bool = False) -> Tensor:
        """R on the last axis of `x`, in its dtype; blocks are made in the dtype of the angles."""
        rows = x[..., : self.size]
        turned = self.rotation.turned(self.matrices(), rows.reshape(-1, self.size).T.contiguous(), inverse=inverse)
        turned = turned.T.reshape(rows.shape)
        return turned if self.size == x.shape[-1] else torch.cat([turned, x[..., self.size :]], dim=-1)

    def forward(self, x: Tensor, base: Callable[[Tensor], Tensor]) -> Tensor:
        if self.side == "input":
            return base(self._rotate(x))
        bias = base(torch.zeros_like(x[..., :1, :] if x.ndim > 1 else x))
        out = base(x)
        plain = out - bias
        return out + (self._rotate(plain) - plain)  # exactly `out` where R is the identity

    @torch.no_grad()
    def _merge(self, weight: Tensor, inverse: bool) -> Tensor:
        angles = self.current_angles().double()
        wide = weight.double()
        source = wide.T if self.side == "output" else wide
        # Rows of W meet R from the right: (W R)ᵀ = Rᵀ Wᵀ.
        turns_back = inverse if self.side == "output" else not inverse
        rows = source[:, : self.size].T.contiguous()
        turned = self.rotation(angles.to(wide.device), rows, inverse=turns_back).T
        whole = torch.cat([turned, source[:, self.size :]], dim=1)
        return (whole.T if self.side == "output" else whole).to(weight.dtype).contiguous()

    def merged(self, weight: Tensor) -> Tensor:
        return self._merge(weight, inverse=False)

    def unmerged(self, weight: Tensor) -> Tensor:
        return self._merge(weight, inverse=True)

    @property
    def description_bits(self) -> int:
        return self.architecture.description_bits


def start_offsets(architecture: Architecture, tries: int = 64) -> list[int] | None:
    """Quarter turns from which each angle is measured, so that as many angles as possible turn directions of their own.

    None where no offset is needed, or none can help because the circuit has fixed rotations that are no Clifford gates.
    """
    ops, bits, angles = architecture.operations, architecture.n_bits, architecture.n_angles
    relative = architecture.relative_program
    if any(r.slot is None for r in relative.rotations) or relative.tangent_rank == angles:
        return None
    rng = np.random.default_rng(0)
    best: tuple[int, list[int]] = (relative.tangent_rank, [])
    for _ in range(tries):
        offsets = rng.integers(0, 4, size=angles).tolist()
        program = compile_program(ops, bits, angles, odd=architecture.odd, absorb_quarters=True, offsets=offsets)
        best = max(best, (program.tangent_rank, offsets), key=lambda item: item[0])
        if best[0] == angles:
            break
    return best[1] or None


@functools.lru_cache(maxsize=32)
def fused_relative(architecture: Architecture) -> FusedRotation:
    """The circuit as a fused rotation that is the identity at angles zero; made once for all layers that share it."""
    offsets = start_offsets(architecture)
    ops: list[Rotation | Clifford] = []
    for op in architecture.operations:
        ops.append(op)
        if offsets is None or not isinstance(op, Rotation) or op.slot is None or not takes_offset(op):
            continue
        if offsets[op.slot]:
            ops.append(Rotation(op.string, None, angle=offsets[op.slot] * math.pi / 2))
    return relative_rotation(ops, architecture.n_bits, architecture.odd)
