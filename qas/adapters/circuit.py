"""Adapter layers made of circuits: low-rank updates between orthonormal frames, and rotations."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qas.adapters.architecture import Architecture, load_architecture, quantum_peft
from qas.adapters.base import Adapter, DeltaAdapter, check_tensors, readable, traced
from qas.adapters.maps import (
    BlocksMap,
    ColumnsMap,
    FusedRotation,
    LayerMap,
    Layers,
    relative_rotation,
    without_autocast,
)
from qas.adapters.program import Clifford, Rotation, compile_program, takes_offset
from qas.adapters.quantize import (
    angle_codes,
    angles_from_codes,
    checked_bits,
    half_codes,
    pack_bits,
    packed_bytes,
    quantize_angles,
    quantize_each,
    to_half,
    unpack_bits,
)
from qas.checks import finite_number, whole_number
from qas.errors import QasError

RANK = 8
TAYLOR_ORDER = 18
"""Last power of the truncated exponential; what is left is below float32 up to a norm of about 3."""


def frame_architecture(source: Any, features: int, layers: int = 1) -> Architecture:
    """What stands on one side of a frame adapter: ``"quantum-peft"`` with `layers`, or any architecture.

    Raises:
        QasError: an unknown source, or a circuit that does not fit the layer.
    """
    if isinstance(source, str) and source == "quantum-peft":
        return quantum_peft(features, layers)[0]
    return load_architecture(source).for_layer(features)[0]


class _Packed(Adapter):
    """Angles (and singular values) with a stored form: float32 tensors, or with bits one uint8 tensor.

    The uint8 tensor holds lowest angle and step as float16, the singular values as float16, and the codes of the
    angles, several to a byte. It is also a buffer, so that whoever loads state dicts by name finds a place for it: what
    is laid there is taken over at the next use, and the place emptied.
    """

    packed: Tensor

    def __init__(self, in_features: int, out_features: int, start: Tensor, n_values: int, bits: int | None) -> None:
        super().__init__(in_features, out_features)
        self.bits = None if bits is None else checked_bits(bits)
        self.angles = nn.Parameter(start)
        self.values = nn.Parameter(torch.zeros(n_values)) if n_values else None
        if self.bits is not None:
            size = 4 + 2 * n_values + packed_bytes(len(start), self.bits)
            self.register_buffer("packed", torch.zeros(size, dtype=torch.uint8))
            self._seen = self._mark()

    def _mark(self) -> tuple[int, int]:
        return id(self.packed), _version(self.packed)

    def collect(self) -> None:
        """Take over a stored form that was laid into the buffer."""
        if self.bits is None or traced() or self.packed.is_meta or self._mark() == self._seen:
            return
        if bool(self.packed.any()):
            self._read(self.packed.cpu())
            with torch.no_grad():
                self.packed.zero_()
        self._seen = self._mark()

    def current_angles(self) -> Tensor:
        """Angles that the layer computes with, radians, float32 or float64; quantized where `bits` are set."""
        angles = self.wide_angles()
        return angles if self.bits is None or not len(angles) else quantize_angles(angles, self.bits)

    def wide_angles(self) -> Tensor:
        """The angles before they are quantized, float32 or float64."""
        self.collect()
        return self.angles if self.angles.dtype == torch.float64 else self.angles.float()

    def current_values(self) -> Tensor:
        """Singular values that the layer computes with, before the scale."""
        assert self.values is not None
        self.collect()
        values = self.values if self.values.dtype == torch.float64 else self.values.float()
        return values if self.bits is None else to_half(values)

    @property
    def stored_bits(self) -> int:
        values = 0 if self.values is None else len(self.values)
        if self.bits is None:
            return 32 * (len(self.angles) + values)
        return self.bits * len(self.angles) + 32 + 16 * values

    @torch.no_grad()
    def pack(self) -> dict[str, Tensor]:
        self.collect()
        parts = {"angles": self.angles} | ({} if self.values is None else {"values": self.values})
        found = {name: part.detach().to("cpu", torch.float32).clone() for name, part in parts.items()}
        for name, part in found.items():
            if not torch.isfinite(part).all():
                raise QasError(f"{name} of an adapter must be finite to be stored, got NaN or infinity")
        if self.bits is None:
            return found
        pieces = [torch.zeros(4, dtype=torch.uint8)]
        codes = torch.zeros(0, dtype=torch.uint8)
        if len(self.angles):
            codes, low, step = angle_codes(found["angles"], self.bits)
            pieces = [torch.stack([low, step]).view(torch.uint8)]
        if "values" in found:
            pieces.append(half_codes(found["values"]).view(torch.uint8))
        return {"packed": torch.cat([*pieces, pack_bits(codes, self.bits)])}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        if self.bits is None:
            wanted = {"angles": (tuple(self.angles.shape), torch.float32)}
            if self.values is not None:
                wanted["values"] = (tuple(self.values.shape), torch.float32)
            check_tensors(tensors, wanted)
            with torch.no_grad():
                for name in wanted:
                    getattr(self, name).copy_(tensors[name])
            return
        check_tensors(tensors, {"packed": (tuple(self.packed.shape), torch.uint8)})
        self._read(tensors["packed"])

    @torch.no_grad()
    def _read(self, packed: Tensor) -> None:
        assert self.bits is not None
        count = 0 if self.values is None else len(self.values)
        # Views of another type need aligned memory, which a part of a larger tensor need not have.
        halves = packed[: 4 + 2 * count].clone().view(torch.float16)
        if not torch.isfinite(halves).all():
            raise QasError("a stored adapter must be finite, got NaN or infinity")
        codes = unpack_bits(packed[4 + 2 * count :].clone(), self.bits, len(self.angles))
        self.angles.copy_(angles_from_codes(codes, halves[0], halves[1]))
        if self.values is not None:
            self.values.copy_(halves[2:])


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for one made in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Shared(_Packed):
    """An adapter whose matrices are made together with those of other layers."""

    def _share(self, *maps: LayerMap) -> None:
        """Say what is needed from the angles, in their order."""
        self.maps = maps
        self.alone = Layers([maps])
        self.bank = MapBank([self])
        self._prepare()

    def _prepare(self) -> None:
        for one in self.maps:
            one.prepare(self.angles.device, torch.promote_types(self.angles.dtype, torch.float32))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> _Shared:
        super()._apply(fn, recurse)
        self._prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("bank", "alone")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share(*self.maps)  # a copy computes for itself until `share_maps` is called

    def matrices(self) -> tuple[Tensor, ...]:
        """Of its maps, in the precision of the angles."""
        return self.bank.matrices(self)


@dataclass(frozen=True)
class _State:
    """What matrices were computed from; holding the tensors keeps their places from being given to others."""

    angles: Tensor
    memory: Tensor
    version: int
    copy: Tensor | None
    """on the processor, where a look is cheap: changes through ``.data`` leave no trace in the version"""
    modes: tuple[bool, bool]

    @classmethod
    def of(cls, adapter: _Shared) -> _State:
        adapter.collect()
        angles, memory = adapter.angles, adapter.angles.detach()
        return cls(angles, memory, _version(angles), memory.clone() if readable(memory) else None, _modes(angles))

    def holds(self, adapter: _Shared) -> bool:
        """Whether matrices of `adapter` would come out the same now, and fit the present modes of autograd."""
        adapter.collect()
        angles = adapter.angles
        return (
            self.angles is angles
            and self.memory.data_ptr() == angles.data_ptr()
            and self.version == _version(angles)
            and self.modes == _modes(angles)
            and (self.copy is None or torch.equal(self.copy, angles))
        )


def _modes(angles: Tensor) -> tuple[bool, bool]:
    # What is computed in inference mode can never take part in a backward pass, not even as a constant.
    return torch.is_grad_enabled() and angles.requires_grad, torch.is_inference_mode_enabled()


@dataclass(frozen=True)
class _Held:
    """Matrices of one adapter, and whether a backward pass has gone through them."""

    state: _State
    matrices: tuple[Tensor, ...]
    spent: bytearray
    number: int

    def serves(self, adapter: _Shared) -> bool:
        return not self.spent[self.number] and self.state.holds(adapter)


class MapBank:
    """Matrices of layers that are made together.

    A layer that asks gets its matrices from the last batch as long as its own angles have not changed and no backward
    pass has gone through them since. What is no member, such as a replica of one for another device, makes its own,
    and so do all under `torch.compile` and the transforms of `torch.func`.
    """

    def __init__(self, adapters: Sequence[_Shared]) -> None:
        self.adapters = list(adapters)
        self._members = {id(adapter) for adapter in self.adapters}
        self._layers: dict[tuple[int, ...], Layers] = {}
        self._found: dict[int, _Held] = {}

    def matrices(self, adapter: _Shared) -> tuple[Tensor, ...]:
        """Those of one adapter."""
        if traced() or id(adapter) not in self._members:
            return adapter.alone([adapter.current_angles()])[0]
        held = self._found.get(id(adapter))
        if held is None or not held.serves(adapter):
            self._found = found = self._compute()  # other threads may put theirs there
            held = found[id(adapter)]
        return held.matrices

    def _compute(self) -> dict[int, _Held]:
        batches: dict[tuple[Any, ...], list[tuple[_Shared, _State, Tensor]]] = {}
        # A sharded adapter has no angles before its own layer runs.
        present = [adapter for adapter in self.adapters if not hasattr(adapter.angles, "device_mesh")]
        states = [_State.of(adapter) for adapter in present]
        for adapter, state, angles in zip(present, states, angles_of(present), strict=True):
            key = angles.dtype, angles.device, angles.requires_grad
            batches.setdefault(key, []).append((adapter, state, angles))
        found = {}
        for members in batches.values():
            names = tuple(id(adapter) for adapter, *_ in members)
            layers = self._layers.get(names)
            if layers is None:
                layers = self._layers[names] = Layers([adapter.maps for adapter, *_ in members])
            spent = bytearray(len(members))
            matrices = layers([angles for *_, angles in members], spent)
            for number, ((adapter, state, _), own) in enumerate(zip(members, matrices, strict=True)):
                found[id(adapter)] = _Held(state, own, spent, number)
        return found


def angles_of(adapters: Sequence[_Shared]) -> list[Tensor]:
    """The current angles of each; those of equal length and bits are quantized together."""
    found = [adapter.wide_angles() for adapter in adapters]
    alike: dict[tuple[Any, ...], list[int]] = {}
    for k, (adapter, angles) in enumerate(zip(adapters, found, strict=True)):
        if adapter.bits is not None and len(angles):
            alike.setdefault((adapter.bits, len(angles), angles.dtype, angles.device), []).append(k)
    for (bits, *_), numbers in alike.items():
        for k, angles in zip(numbers, quantize_each([found[k] for k in numbers], bits), strict=True):
            found[k] = angles
    return found


def share_maps(adapters: Iterable[Adapter]) -> None:
    """Let the circuits of one model's adapters be computed in common batches."""
    members = [a for a in adapters if isinstance(a, _Shared)]
    bank = MapBank(members)
    for adapter in members:
        adapter.bank = bank


class FrameAdapter(_Packed, DeltaAdapter):
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

    @abc.abstractmethod
    def frames(self) -> tuple[Tensor, Tensor]:
        """U (out_features, rank) and V (in_features, rank), in the precision of the angles."""

    def delta(self, x: Tensor) -> Tensor:
        u, v = self.frames()
        inner = (x @ v.to(x.dtype)) * (self.scale * self.current_values()).to(x.dtype)
        return inner @ u.to(x.dtype).T

    def delta_weight(self) -> Tensor:
        u, v = self.frames()
        with without_autocast(u.device):
            return (u * (self.scale * self.current_values())) @ v.T


class CircuitAdapter(_Shared, FrameAdapter):
    """Frames from a circuit: the first `rank` columns of its matrix, one set of angles for each side.

    Where the circuit has more rows than a side, the first ones are kept, and the columns are orthonormal no longer.

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

    @property
    def description_bits(self) -> int:
        """Bits of the architecture; they count once for all layers that share it."""
        return self.architecture.description_bits


class TaylorAdapter(FrameAdapter):
    r"""Frames U = Σ_p A^p / p! applied to the first `rank` columns of the identity (Quantum-PEFT's Taylor map).

    A = B - Bᵀ with B strictly lower triangular and zero outside its first `intrinsic_rank` columns K':
    N K' - K'(K'+1)/2 parameters for each side. Linear in N, unlike the circuit.

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
        lower = entries.new_zeros(features, k).index_put((rows, columns), entries)
        term = torch.eye(features, self.rank, dtype=entries.dtype, device=entries.device)
        total = term
        with without_autocast(entries.device):
            for order in range(1, TAYLOR_ORDER + 1):
                upper = nn.functional.pad(lower.T @ term, (0, 0, 0, features - k))
                term = (lower @ term[:k] - upper) / order
                total = total + term
        return total


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
