"""What every adapter is: a small trainable module beside one frozen linear layer, with an exact stored form."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from qas.errors import QasError


class Adapter(nn.Module, abc.ABC):
    """Changes one frozen linear layer ``x -> W x + b``, W of shape (out_features, in_features).

    Parameters are float32 whatever the dtype of the layer. At the start the change is exactly zero, unless the class
    says otherwise.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = int(in_features)
        self.out_features = int(out_features)

    @abc.abstractmethod
    def forward(self, x: Tensor, base: Callable[[Tensor], Tensor]) -> Tensor:
        """Output of the changed layer, shape (..., out_features), dtype that `base` returns.

        Args:
            x: inputs, shape (..., in_features).
            base: the frozen layer.
        """

    @abc.abstractmethod
    def merged(self, weight: Tensor) -> Tensor:
        """The weight of one linear layer that does the same, shape and dtype of `weight`."""

    @abc.abstractmethod
    def unmerged(self, weight: Tensor) -> Tensor:
        """The inverse of `merged`, up to rounding."""

    @property
    @abc.abstractmethod
    def stored_bits(self) -> int:
        """Bits of payload of `pack`, scales included; file headers and unused bits of a last byte are not."""

    @abc.abstractmethod
    def pack(self) -> dict[str, Tensor]:
        """The stored form, named tensors; few-bit values are uint8, several to a byte."""

    @abc.abstractmethod
    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `pack` returned; the layer then computes with the stored values.

        Raises:
            QasError: missing or superfluous tensors, wrong shapes or dtypes, or values that are not finite.
        """


class DeltaAdapter(Adapter):
    """An adapter that adds a matrix: ``x -> W x + b + ΔW x``."""

    @abc.abstractmethod
    def delta(self, x: Tensor) -> Tensor:
        """ΔW x, shape (..., out_features), dtype of `x`."""

    @abc.abstractmethod
    def delta_weight(self) -> Tensor:
        """ΔW, float32, shape (out_features, in_features)."""

    def forward(self, x: Tensor, base: Callable[[Tensor], Tensor]) -> Tensor:
        out = base(x)
        return out + self.delta(x).to(out.dtype)

    def merged(self, weight: Tensor) -> Tensor:
        return self._added(weight, 1.0)

    def unmerged(self, weight: Tensor) -> Tensor:
        return self._added(weight, -1.0)

    @torch.no_grad()
    def _added(self, weight: Tensor, sign: float) -> Tensor:
        delta = self.delta_weight().to(weight.device)
        wide = torch.promote_types(weight.dtype, delta.dtype)
        return (weight.to(wide) + sign * delta.to(wide)).to(weight.dtype)


def traced() -> bool:
    """Whether torch follows what is computed: `torch.compile`, or a transform of `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def readable(tensor: Tensor) -> bool:
    """Whether compiled kernels, and checks of values, can take it: on the processor, and not while torch follows."""
    return tensor.device.type == "cpu" and not traced()


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    """Refuse stored tensors that are not exactly those of (shape, dtype) `wanted`.

    Raises:
        QasError: missing or superfluous names, another shape or dtype, or values that are not finite.
    """
    if set(tensors) != set(wanted):
        got = ", ".join(sorted(tensors)) or "nothing"
        raise QasError(f"an adapter of this kind stores {', '.join(sorted(wanted))}, got {got}")
    for name, (shape, dtype) in wanted.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
            raise QasError(
                f"stored {name} has shape {tuple(shape)} and type {dtype}, got {tuple(tensor.shape)} and {tensor.dtype}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise QasError(f"stored {name} must be finite, got NaN or infinity")
