"""Adapters that circuits are compared with: low-rank matrices, one random subspace, scaled random matrices.

Each counts every bit that it stores (`stored_bits`); rank, scale and bits belong to the configuration. What a layer
computes with in training are the values that are stored, so that storing and loading changes no output.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from qas.adapters.base import Adapter, DeltaAdapter, check_tensors
from qas.adapters.quantize import (
    angle_codes,
    angles_from_codes,
    checked_bits,
    checked_norm,
    dequantize_codes,
    half_codes,
    pack_bits,
    packed_bytes,
    quantize,
    quantize_angles,
    quantize_codes,
    to_half,
    unpack_bits,
)
from qas.errors import QasError, UnknownNameError

FLOATS = {"float16": torch.float16, "float32": torch.float32}
"""Types that values without `bits` may be stored in."""


# ---------------------------------------------------------------------- checks
def _whole(what: str, value: Any, least: int = 1) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise QasError(f"{what} is a whole number, got {value!r}") from None
    if number < least:
        raise QasError(f"{what} is at least {least}, got {number}")
    return number


def _checked_rank(rank: Any, in_features: Any, out_features: Any) -> int:
    most = min(_whole("in_features", in_features), _whole("out_features", out_features))
    if _whole("rank", rank) > most:
        raise QasError(f"rank is at most the smaller side of the layer, {most}, got {rank}")
    return int(rank)


def _scale(scale: Any) -> float:
    return 1.0 if scale is None else _finite("scale", scale)


def _finite(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise QasError(f"{what} is a finite number, got {value!r}")
    return number


def _checked_seed(seed: Any) -> int:
    if _whole("seed", seed, 0) >= 2**32:
        raise QasError(f"seed is stored in 32 bits, got {seed}")
    return int(seed)


def _checked_dropout(dropout: Any) -> float:
    if not 0 <= _finite("dropout", dropout) < 1:
        raise QasError(f"dropout is at least 0 and below 1, got {dropout}")
    return float(dropout)


# ---------------------------------------------------------------------- stored forms
Tensors = Mapping[str, Tensor]
Wanted = dict[str, tuple[tuple[int, ...], torch.dtype]]


class _Form(abc.ABC):
    """How float32 values are stored: named tensors; the name of a single one is empty."""

    keeps_rounded = True
    """Whether values that are rounded already stay as they are."""

    @abc.abstractmethod
    def rounded(self, values: Tensor) -> Tensor:
        """The values that would be stored, for training."""

    @abc.abstractmethod
    def pack(self, values: Tensor) -> dict[str, Tensor]:
        """The stored form of `values`."""

    @abc.abstractmethod
    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        """The values, float32, that tensors of the right shapes and types stand for."""

    @abc.abstractmethod
    def wanted(self, shape: torch.Size) -> Wanted:
        """Shape and type of every stored tensor."""

    @abc.abstractmethod
    def stored_bits(self, count: int) -> int:
        """Payload of `count` values."""


@dataclass(frozen=True)
class _Floats(_Form):
    dtype: torch.dtype

    def rounded(self, values: Tensor) -> Tensor:
        return to_half(values) if self.dtype == torch.float16 else values

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        if self.dtype == torch.float16:
            return {"": half_codes(values)}
        if not torch.isfinite(values).all():
            raise QasError("values of an adapter must be finite to be stored, got NaN or infinity")
        return {"": values.to(self.dtype, copy=True)}

    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        return tensors[""].float()

    def wanted(self, shape: torch.Size) -> Wanted:
        return {"": (tuple(shape), self.dtype)}

    def stored_bits(self, count: int) -> int:
        return count * 8 * self.dtype.itemsize


@dataclass(frozen=True)
class _Gaussian(_Form):
    """Levels for normally distributed entries; mean and deviation as float32."""

    bits: int
    norm: str
    keeps_rounded = False

    def rounded(self, values: Tensor) -> Tensor:
        return quantize(values, self.bits, self.norm)

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        codes, mu, sd = quantize_codes(values, self.bits, self.norm)
        return {".codes": pack_bits(codes, self.bits), ".scale": torch.stack([mu, sd]).float()}

    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        codes = unpack_bits(tensors[".codes"], self.bits, shape.numel())
        mu, sd = tensors[".scale"]
        values = dequantize_codes(codes, mu, sd, self.bits, self.norm, shape)
        if not torch.isfinite(values).all():
            raise QasError(f"stored mean and deviation must give finite values, got {float(mu):.3g}, {float(sd):.3g}")
        return values

    def wanted(self, shape: torch.Size) -> Wanted:
        packed = packed_bytes(shape.numel(), self.bits)
        return {".codes": ((packed,), torch.uint8), ".scale": ((2,), torch.float32)}

    def stored_bits(self, count: int) -> int:
        return count * self.bits + 64


@dataclass(frozen=True)
class _Uniform(_Form):
    """A uniform grid; its first point and its step as float16."""

    bits: int

    def rounded(self, values: Tensor) -> Tensor:
        return quantize_angles(values, self.bits)

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        codes, low, step = angle_codes(values, self.bits)
        return {".codes": pack_bits(codes, self.bits), ".grid": torch.stack([low, step])}

    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        codes = unpack_bits(tensors[".codes"], self.bits, shape.numel())
        return angles_from_codes(codes.reshape(shape), *tensors[".grid"])

    def wanted(self, shape: torch.Size) -> Wanted:
        packed = packed_bytes(shape.numel(), self.bits)
        return {".codes": ((packed,), torch.uint8), ".grid": ((2,), torch.float16)}

    def stored_bits(self, count: int) -> int:
        return count * self.bits + 32


def _floats(stored: str) -> _Floats:
    if stored not in FLOATS:
        raise UnknownNameError("stored type", stored, FLOATS)
    return _Floats(FLOATS[stored])


def _matrix_form(bits: int | None, norm: str, stored: str) -> _Form:
    floats, norm = _floats(stored), checked_norm(norm)
    return floats if bits is None else _Gaussian(checked_bits(bits), norm)


def _vector_form(bits: int | None, stored: str) -> _Form:
    floats = _floats(stored)
    return floats if bits is None else _Uniform(checked_bits(bits))


class _Values(nn.Module):
    """Trainable float32 values; called, it gives the values that it would store, differentiable.

    What was taken over from a stored form stays exactly that until `weight` changes.
    """

    exact: Tensor | None

    def __init__(self, start: Tensor, form: _Form) -> None:
        super().__init__()
        self.form = form
        self.weight = nn.Parameter(start)
        self.register_buffer("exact", None, persistent=False)
        self._taken: dict[str, Tensor] = {}

    def _float_weight(self) -> Tensor:
        # Casting a whole model to bfloat16 casts adapters too.
        return self.weight if self.weight.dtype == torch.float64 else self.weight.float()

    def forward(self) -> Tensor:
        weight = self._float_weight()
        rounded = self.form.rounded(weight)
        if self.exact is None:
            return rounded
        # A condition in Python would make an accelerator wait.
        return torch.where((self.weight == self.exact).all(), weight, rounded)

    @torch.no_grad()
    def pack(self) -> dict[str, Tensor]:
        if self.exact is not None and torch.equal(self.weight, self.exact):
            return {name: tensor.clone() for name, tensor in self._taken.items()}
        return {name: tensor.cpu() for name, tensor in self.form.pack(self._float_weight()).items()}

    @torch.no_grad()
    def take(self, values: Tensor, tensors: Tensors) -> None:
        """Go on from `values`, read from `tensors`."""
        self.weight.copy_(values)
        if not self.form.keeps_rounded:
            self.exact = self.weight.detach().clone()
            self._taken = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


class _Stored(Adapter):
    """An adapter whose trainable values are all `_Values`, stored under the names of the attributes."""

    def _values(self) -> dict[str, _Values]:
        return {name: child for name, child in self.named_children() if isinstance(child, _Values)}

    @property
    def stored_bits(self) -> int:
        return sum(values.form.stored_bits(values.weight.numel()) for values in self._values().values())

    def pack(self) -> dict[str, Tensor]:
        return {name + end: tensor for name, part in self._values().items() for end, tensor in part.pack().items()}

    def unpack(self, tensors: Tensors) -> None:
        parts = self._values()
        wanted = {name: part.form.wanted(part.weight.shape) for name, part in parts.items()}
        check_tensors(tensors, {name + end: entry for name in wanted for end, entry in wanted[name].items()})
        own = {name: {end: tensors[name + end] for end in wanted[name]} for name in parts}
        # All is read before anything is taken over: a refused file leaves the adapter as it was.
        read = {name: part.form.read(own[name], part.weight.shape) for name, part in parts.items()}
        for name, part in parts.items():
            part.take(read[name], own[name])


# ---------------------------------------------------------------------- low rank
class _Bottleneck(_Stored):
    """Two matrices, `down` (rank, in_features) and `up` (out_features, rank), started as published."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        form: _Form,
        scale: float | None,
        dropout: float,
        generator: torch.Generator | None,
    ) -> None:
        rank = _checked_rank(rank, in_features, out_features)
        super().__init__(in_features, out_features)
        self.rank = rank
        self.scale = _scale(scale)
        self.dropout = _checked_dropout(dropout)
        self.down = _Values(torch.empty(self.rank, self.in_features), form)
        self.up = _Values(torch.zeros(self.out_features, self.rank), form)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        if not isinstance(form, _Floats):
            # The published start: zeros would all get the code below zero.
            nn.init.trunc_normal_(self.up.weight, std=1e-3, a=-2e-3, b=2e-3, generator=generator)

    def _narrow(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.down().to(x.dtype))

    def _widen(self, inner: Tensor, dtype: torch.dtype) -> Tensor:
        if self.dropout:
            inner = functional.dropout(inner, self.dropout, self.training)
        return functional.linear(inner, (self.scale * self.up()).to(inner.dtype)).to(dtype)


class LoraAdapter(_Bottleneck, DeltaAdapter):
    """ΔW = s B A with A = `down` (rank, in_features) and B = `up` (out_features, rank).

    Without `bits` it is LoRA (Hu et al., arXiv:2106.09685): A Kaiming-uniform as in peft, B = 0, so the change is zero
    at the start. With `bits` it is Bi-LoRA (Jie et al., arXiv:2307.16867): both matrices are quantized in training, and
    B starts from a normal distribution of deviation 1e-3 cut at ±2e-3, so the change is small at the start, not zero.

    Stored: `up` and `down`, either as floats of 16 or 32 bits, or with `bits` as codes several to a byte and mean and
    deviation of each matrix as float32 (entries x bits + 64 bits for each matrix). After `unpack` the layer computes
    exactly with the stored values, and `pack` gives them back, until training changes them.

    Args:
        in_features, out_features: sides of the layer.
        rank: columns of B, 1 to the smaller side.
        bits: None, or bits of one entry, 1 to 8.
        alpha: sets s = alpha / rank, as in peft.
        scale: s itself; without both, s = 1.
        norm: error that the levels make least, "l1" or "l2" (`gaussian_levels`).
        stored: without `bits`, "float16" (training sees the rounded values) or "float32".
        dropout: share of the rank dimension dropped in training.
        generator: draws the start; default the global one of torch.

    Raises:
        QasError: a rank, scale, dropout or `bits` out of range, or both `alpha` and `scale`.
        UnknownNameError: unknown `norm` or `stored`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 8,
        bits: int | None = None,
        alpha: float | None = None,
        scale: float | None = None,
        norm: str = "l1",
        generator: torch.Generator | None = None,
        *,
        stored: str = "float16",
        dropout: float = 0.0,
    ) -> None:
        if alpha is not None and scale is not None:
            raise QasError(f"give alpha or scale, got alpha {alpha} and scale {scale}")
        if alpha is not None:
            scale = _finite("alpha", alpha) / _checked_rank(rank, in_features, out_features)
        form = _matrix_form(bits, norm, stored)
        super().__init__(in_features, out_features, rank, form, scale, dropout, generator)

    def delta(self, x: Tensor) -> Tensor:
        return self._widen(self._narrow(x), x.dtype)

    def delta_weight(self) -> Tensor:
        return (self.scale * self.up()) @ self.down()


class AdaptFormerAdapter(_Bottleneck):
    """Beside the MLP of a transformer block: base(x) + s Up ReLU(Down x) (Chen et al., arXiv:2205.13535), no biases.

    `base` is the whole branch beside it, and both get the same x. In the published recipe x is the stream after
    attention before its normalization, so there `base` is ``lambda x: drop(mlp(norm(x)))``; the caller adds the
    residual. With `bits` it is Bi-AdaptFormer (arXiv:2307.16867). Start, stored form and arguments are those of
    `LoraAdapter`; dropout acts behind the ReLU. It cannot be merged.

    Raises:
        QasError: a rank, scale, dropout or `bits` out of range.
        UnknownNameError: unknown `norm` or `stored`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 8,
        bits: int | None = None,
        scale: float | None = None,
        norm: str = "l1",
        generator: torch.Generator | None = None,
        *,
        stored: str = "float16",
        dropout: float = 0.0,
    ) -> None:
        form = _matrix_form(bits, norm, stored)
        super().__init__(in_features, out_features, rank, form, scale, dropout, generator)

    def forward(self, x: Tensor, base: Callable[[Tensor], Tensor]) -> Tensor:
        out = base(x)
        return out + self._widen(functional.relu(self._narrow(x)), x.dtype).to(out.dtype)

    def merged(self, weight: Tensor) -> Tensor:
        raise QasError("an AdaptFormer cannot be merged, as no matrix does what its ReLU does")

    def unmerged(self, weight: Tensor) -> Tensor:
        raise QasError("an AdaptFormer cannot be unmerged, as it cannot be merged")


# ---------------------------------------------------------------------- seeded
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _scrambled(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def random_keys(seed: int, count: int, start: int = 0) -> NDArray[np.uint64]:
    """Numbers `start` to `start` + `count` of a fixed random sequence without repetitions, uint64.

    SplitMix64 (Steele, Lea and Flood 2014) from a scrambled seed: integer arithmetic alone, so the same on every
    machine and with every version of every library, which no library promises of its own generators.
    """
    first = _scrambled(np.array([seed], dtype=np.uint64))
    return _scrambled(first + _GOLDEN * np.arange(start + 1, start + count + 1, dtype=np.uint64))


class _Seeded(_Stored, DeltaAdapter):
    """An adapter around fixed random numbers, which its stored form holds as a seed of 32 bits."""

    def __init__(self, in_features: int, out_features: int, seed: int, scale: float | None) -> None:
        super().__init__(in_features, out_features)
        self.seed = _checked_seed(seed)
        self.scale = _scale(scale)

    @abc.abstractmethod
    def _sow(self) -> None:
        """Make the fixed numbers from `seed`."""

    @property
    def stored_bits(self) -> int:
        return super().stored_bits + 32

    def pack(self) -> dict[str, Tensor]:
        return {"seed": torch.tensor([self.seed], dtype=torch.uint32), **super().pack()}

    def unpack(self, tensors: Tensors) -> None:
        if "seed" not in tensors:
            raise QasError(f"an adapter of this kind stores a seed, got {', '.join(sorted(tensors))}")
        check_tensors({"seed": tensors["seed"]}, {"seed": ((1,), torch.uint32)})
        super().unpack({name: tensor for name, tensor in tensors.items() if name != "seed"})
        seed = int(tensors["seed"][0])
        if seed != self.seed:
            self.seed = seed
            self._sow()


class RandomSubspaceAdapter(_Seeded):
    """ΔW = s reshape(P θ): a fixed random subspace of `size` dimensions (Li et al. 2018, arXiv:1804.08838).

    P is a hashed sign projection, one nonzero in each row, as in UniLoRA: a seeded shuffle deals the entries of W to
    the 2 `size` pairs of an entry of θ and a sign, evenly, and an entry that got (j, ±) becomes ±θ_j / √(entries of j).
    So the columns of P are orthonormal, ||ΔW||_F = s ||θ||, and only the shuffle is kept (4 bytes for each entry of W).
    θ = 0 at the start, and so is the change.

    Stored: θ as float16, or with `bits` on a uniform grid (`quantize_angles`, plus 32 bits), and the seed (32 bits).

    Args:
        in_features, out_features: sides of the layer.
        size: entries of θ, 1 to in_features x out_features.
        seed: of P, 0 to 2^32 - 1.
        bits: None, or bits of one entry of θ, 1 to 8.
        scale: s; default 1.
        stored: without `bits`, "float16" or "float32".

    Raises:
        QasError: a size, seed, scale or `bits` out of range.
        UnknownNameError: unknown `stored`.
    """

    norms: Tensor
    shuffle: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        seed: int,
        *,
        bits: int | None = None,
        scale: float | None = None,
        stored: str = "float16",
    ) -> None:
        most = _whole("in_features", in_features) * _whole("out_features", out_features)
        if _whole("size", size) > most:
            raise QasError(f"size is at most the number of entries of the layer, {most}, got {size}")
        form = _vector_form(bits, stored)
        super().__init__(in_features, out_features, seed, scale)
        self.size = int(size)
        self.theta = _Values(torch.zeros(self.size), form)
        # The entry of rank i in the shuffle belongs to pair i modulo 2 size: to j = i or, with a minus, i - size.
        each, rest = divmod(most, 2 * self.size)
        pairs = each + (torch.arange(2 * self.size) < rest).int()
        self.register_buffer("norms", pairs.reshape(2, -1).sum(0).sqrt(), persistent=False)
        self.register_buffer("shuffle", torch.empty(most, dtype=torch.int32), persistent=False)
        self._sow()

    def _sow(self) -> None:
        count = self.shuffle.numel()
        indices = np.arange(count, dtype=np.uint64)
        # Sorting keys whose low bits are the indices is several times faster than sorting indices by keys.
        low_bits = np.uint64((1 << (count - 1).bit_length()) - 1)
        order = np.sort((random_keys(self.seed, count) & ~low_bits) | indices) & low_bits
        ranks = np.empty(count, dtype=np.int32)
        ranks[order] = indices
        self.shuffle.copy_(torch.from_numpy(ranks))

    def delta_weight(self) -> Tensor:
        entries = self.scale * self.theta() / self.norms
        pairs = torch.cat([entries, -entries])
        count = self.shuffle.numel()
        # Every entry of W reads its own copy: gradients add up in a fixed order, on an accelerator too.
        copies = pairs.repeat(-(-count // len(pairs)))[:count]
        return copies.index_select(0, self.shuffle).reshape(self.out_features, self.in_features)

    def delta(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.delta_weight().to(x.dtype)).to(x.dtype)


class VeraAdapter(_Seeded):
    """ΔW = s diag(b) B diag(d) A with fixed random A and B (VeRA, Kopiczko et al., arXiv:2310.11454).

    A (rank, in_features) and B (out_features, rank) are uniform in ±√(6 / columns) (Kaiming), drawn from the seed; one
    seed gives all layers of one shape the same matrices, as published. Trained are b, 0 at the start, so the change is
    zero, and d, 0.1 at the start.

    Stored: b and d as float16, or with `bits` each on a uniform grid of its own (`quantize_angles`, plus 32 bits each),
    and the seed (32 bits).

    Args:
        in_features, out_features: sides of the layer.
        rank: 1 to the smaller side.
        seed: of A and B, 0 to 2^32 - 1.
        d_start: d at the start.
        bits: None, or bits of one entry of b and d, 1 to 8.
        scale: s; default 1.
        stored: without `bits`, "float16" or "float32".

    Raises:
        QasError: a rank, seed, start, scale or `bits` out of range.
        UnknownNameError: unknown `stored`.
    """

    fixed_a: Tensor
    fixed_b: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        seed: int,
        *,
        d_start: float = 0.1,
        bits: int | None = None,
        scale: float | None = None,
        stored: str = "float16",
    ) -> None:
        rank = _checked_rank(rank, in_features, out_features)
        form = _vector_form(bits, stored)
        super().__init__(in_features, out_features, seed, scale)
        self.rank = rank
        self.b = _Values(torch.zeros(self.out_features), form)
        self.d = _Values(torch.full((self.rank,), _finite("d_start", d_start)), form)
        self.register_buffer("fixed_a", torch.empty(self.rank, self.in_features), persistent=False)
        self.register_buffer("fixed_b", torch.empty(self.out_features, self.rank), persistent=False)
        self._sow()

    def _sow(self) -> None:
        start = 0
        for matrix in (self.fixed_a, self.fixed_b):
            keys = random_keys(self.seed, matrix.numel(), start)
            uniform = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
            drawn = torch.from_numpy(uniform * math.sqrt(6 / matrix.shape[1]))
            matrix.copy_(drawn.reshape(matrix.shape))
            start += matrix.numel()

    def delta(self, x: Tensor) -> Tensor:
        inner = functional.linear(x, self.fixed_a.to(x.dtype)) * self.d().to(x.dtype)
        return (functional.linear(inner, self.fixed_b.to(x.dtype)) * (self.scale * self.b()).to(x.dtype)).to(x.dtype)

    def delta_weight(self) -> Tensor:
        return (self.scale * self.b())[:, None] * self.fixed_b @ (self.d()[:, None] * self.fixed_a)
