"""What the compared methods store: rounded values of peft's own layers, a random subspace, or weights as they are.

Every stored bit is counted (`stored_bits`); rank, scale and bits belong to the configuration. What a layer computes
with in training are the values that are stored, so that storing and loading changes no output.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from qas.adapters.base import DeltaAdapter, check_tensors
from qas.adapters.quantize import (
    angle_codes,
    angles_from_codes,
    checked_bits,
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
from qas.checks import whole_number
from qas.errors import QasError

Tensors = Mapping[str, Tensor]
Wanted = dict[str, tuple[tuple[int, ...], torch.dtype]]


class Part(Protocol):
    """What is stored of one adapted layer, or of a whole model; every `qas.adapters.base.Adapter` is one."""

    @property
    def stored_bits(self) -> int:
        """Bits of payload of `pack`."""

    def pack(self) -> dict[str, Tensor]:
        """The stored form, named tensors."""

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `pack` returned.

        Raises:
            QasError: other names, shapes or types, or values that are not finite; nothing is changed then.
        """


# ---------------------------------------------------------------------- forms
class Form(abc.ABC):
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


class Halves(Form):
    """float16."""

    def __repr__(self) -> str:
        return "Halves()"

    def rounded(self, values: Tensor) -> Tensor:
        return to_half(values)

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        return {"": half_codes(values)}

    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        return tensors[""].float()

    def wanted(self, shape: torch.Size) -> Wanted:
        return {"": (tuple(shape), torch.float16)}

    def stored_bits(self, count: int) -> int:
        return 16 * count


@dataclass(frozen=True)
class Gaussian(Form):
    """Levels for normally distributed entries (Jie et al., arXiv:2307.16867); mean and deviation as float32."""

    bits: int
    keeps_rounded = False

    def rounded(self, values: Tensor) -> Tensor:
        return quantize(values, self.bits)

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        codes, mu, sd = quantize_codes(values, self.bits)
        return {".codes": pack_bits(codes, self.bits), ".scale": torch.stack([mu, sd]).float()}

    def read(self, tensors: Tensors, shape: torch.Size) -> Tensor:
        codes = unpack_bits(tensors[".codes"], self.bits, shape.numel())
        mu, sd = tensors[".scale"]
        values = dequantize_codes(codes, mu, sd, self.bits, shape=shape)
        if not torch.isfinite(values).all():
            raise QasError(f"stored mean and deviation must give finite values, got {float(mu):.3g}, {float(sd):.3g}")
        return values

    def wanted(self, shape: torch.Size) -> Wanted:
        packed = packed_bytes(shape.numel(), self.bits)
        return {".codes": ((packed,), torch.uint8), ".scale": ((2,), torch.float32)}

    def stored_bits(self, count: int) -> int:
        return count * self.bits + 64


@dataclass(frozen=True)
class Uniform(Form):
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


# ---------------------------------------------------------------------- parts
class Values(nn.Module):
    """One parameter of a module that from now on gives the values it would store, differentiable (a parametrization).

    What was taken over from a stored form stays exactly that until the parameter changes.

    Args:
        owner: the module.
        name: of its parameter.
        form: how it is stored.
    """

    exact: Tensor | None

    def __init__(self, owner: nn.Module, name: str, form: Form) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("exact", None, persistent=False)
        self._taken: dict[str, Tensor] = {}
        parametrize.register_parametrization(owner, name, self, unsafe=True)
        # A tuple, so that the module is no part of its own part.
        self._place = (owner.parametrizations[name],)  # type: ignore[union-attr, index]

    @property
    def weight(self) -> Tensor:
        """The parameter itself, as it is trained."""
        return cast(Tensor, cast(Any, self._place[0]).original)

    def forward(self, weight: Tensor) -> Tensor:
        # Casting a whole model to bfloat16 casts adapters too.
        wide = weight if weight.dtype == torch.float64 else weight.float()
        rounded = self.form.rounded(wide)
        if self.exact is None:
            return rounded
        # A condition in Python would make an accelerator wait.
        return torch.where((weight == self.exact).all(), wide, rounded)

    @torch.no_grad()
    def pack(self) -> dict[str, Tensor]:
        weight = self.weight
        if self.exact is not None and torch.equal(weight, self.exact):
            return {name: tensor.clone() for name, tensor in self._taken.items()}
        return {name: tensor.cpu() for name, tensor in self.form.pack(weight.float()).items()}

    @torch.no_grad()
    def take(self, values: Tensor, tensors: Tensors) -> None:
        """Go on from `values`, read from `tensors`."""
        self.weight.copy_(values)
        if not self.form.keeps_rounded:
            self.exact = self.weight.detach().clone()
            self._taken = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


class Stored:
    """Parameters of a layer that are rounded in training, and the seed of its fixed random numbers if it has any.

    Args:
        values: name in the stored form -> parameter.
        seed: 0 to 2^32 - 1, stored in 32 bits.
    """

    def __init__(self, values: Mapping[str, Values], seed: int | None = None) -> None:
        self.values = dict(values)
        self.seed = None if seed is None else whole_number("seed", seed, 0, 2**32 - 1)

    @property
    def stored_bits(self) -> int:
        own = sum(v.form.stored_bits(v.weight.numel()) for v in self.values.values())
        return own + (0 if self.seed is None else 32)

    def pack(self) -> dict[str, Tensor]:
        seed = {} if self.seed is None else {"seed": torch.tensor([self.seed], dtype=torch.uint32)}
        return seed | {name + end: tensor for name, v in self.values.items() for end, tensor in v.pack().items()}

    def unpack(self, tensors: Tensors) -> None:
        ends = {name: v.form.wanted(v.weight.shape) for name, v in self.values.items()}
        wanted: Wanted = {name + end: entry for name in ends for end, entry in ends[name].items()}
        check_tensors(tensors, wanted | ({} if self.seed is None else {"seed": ((1,), torch.uint32)}))
        if self.seed is not None and int(tensors["seed"][0]) != self.seed:
            raise QasError(f"the seed of the layer is {self.seed}, got {int(tensors['seed'][0])}")
        own = {name: {end: tensors[name + end] for end in ends[name]} for name in ends}
        # All is read before anything is taken over: a refused file leaves the layer as it was.
        read = {name: v.form.read(own[name], v.weight.shape) for name, v in self.values.items()}
        for name, v in self.values.items():
            v.take(read[name], own[name])


class Trained:
    """Parameters stored as they are, float32."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = dict(parameters)

    @property
    def stored_bits(self) -> int:
        return 32 * sum(p.numel() for p in self.parameters.values())

    def pack(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def unpack(self, tensors: Tensors) -> None:
        if {n: t.shape for n, t in self.parameters.items()} != {n: t.shape for n, t in tensors.items()}:
            raise QasError("the weights are those of another model")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])


# ---------------------------------------------------------------------- fixed random numbers
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


def random_matrix(seed: int, rows: int, columns: int, start: int = 0) -> Tensor:
    """Uniform in ±√(6 / columns) (Kaiming), float32, from numbers `start` on of the sequence of `random_keys`."""
    uniform = (random_keys(seed, rows * columns, start) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    return torch.from_numpy(uniform * math.sqrt(6 / columns)).reshape(rows, columns).float()


class RandomSubspaceAdapter(DeltaAdapter):
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
        scale: s.

    Raises:
        QasError: a size, seed or `bits` out of range.
    """

    norms: Tensor
    shuffle: Tensor
    theta: Tensor

    def __init__(
        self, in_features: int, out_features: int, size: int, seed: int, *, bits: int | None = None, scale: float = 1.0
    ) -> None:
        entries = in_features * out_features
        size = whole_number("size", size, 1, entries)
        form = Halves() if bits is None else Uniform(checked_bits(bits))
        super().__init__(in_features, out_features)
        self.size, self.scale = size, scale
        self.theta = nn.Parameter(torch.zeros(size))
        self.stored = Stored({"theta": Values(self, "theta", form)}, seed)
        # The entry of rank i in the shuffle belongs to pair i modulo 2 size: to j = i or, with a minus, i - size.
        each, rest = divmod(entries, 2 * size)
        pairs = each + (torch.arange(2 * size) < rest).int()
        self.register_buffer("norms", pairs.reshape(2, -1).sum(0).sqrt(), persistent=False)
        indices = np.arange(entries, dtype=np.uint64)
        # Sorting keys whose low bits are the indices is several times faster than sorting indices by keys.
        low_bits = np.uint64((1 << (entries - 1).bit_length()) - 1)
        order = np.sort((random_keys(seed, entries) & ~low_bits) | indices) & low_bits
        ranks = np.empty(entries, dtype=np.int32)
        ranks[order] = indices
        self.register_buffer("shuffle", torch.from_numpy(ranks), persistent=False)

    def delta_weight(self) -> Tensor:
        entries = self.scale * self.theta / self.norms
        pairs = torch.cat([entries, -entries])
        count = self.shuffle.numel()
        # Every entry of W reads its own copy: gradients add up in a fixed order, on an accelerator too.
        copies = pairs.repeat(-(-count // len(pairs)))[:count]
        return copies.index_select(0, self.shuffle).reshape(self.out_features, self.in_features)

    def delta(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.delta_weight().to(x.dtype)).to(x.dtype)

    @property
    def stored_bits(self) -> int:
        return self.stored.stored_bits

    def pack(self) -> dict[str, Tensor]:
        return self.stored.pack()

    def unpack(self, tensors: Tensors) -> None:
        self.stored.unpack(tensors)
