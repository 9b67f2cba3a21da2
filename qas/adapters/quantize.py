"""Few-bit weights and angles: the value a layer computes with in training is the value that is stored.

Weights follow Jie, Wang and Deng, "Revisiting the parameter efficiency of adapters from the perspective of precision
redundancy" (ICCV 2023, arXiv:2307.16867): all entries of a matrix are standardized together and rounded to the best
levels for a normal distribution. Angles are rounded to a uniform grid. Rounding passes gradients straight through
(Bengio, Leonard and Courville 2013, arXiv:1308.3432), so training sees the rounded values and moves the exact ones.

On an accelerator the functions in the training path do not look for NaN, as every look would wait for the device; NaN
goes through them into the loss. The functions that make codes always look.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded
from scipy.special import ndtr, ndtri
from torch import Tensor
from torch.autograd.function import once_differentiable

from qas.adapters.base import readable, traced
from qas.checks import whole_number
from qas.errors import QasError, UnknownNameError

MAX_BITS = 8
"""Most bits of one code; a code fits a byte."""
NORMS = ("l1", "l2")
"""What levels make least: the mean absolute error or the mean squared error."""
SPREAD_GUARD = 1e-5
"""Added to the standard deviation that weights are divided by, as published."""
_HALF_SPACING = 2.0**-10


def checked_bits(bits: Any) -> int:
    """`bits` as an int.

    Raises:
        QasError: not a whole number from 1 to 8.
    """
    return whole_number("bits", bits, 1, MAX_BITS)


def checked_norm(norm: Any) -> str:
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
    return str(norm)


def _checked_float(what: str, values: Tensor) -> None:
    if values.dtype not in (torch.float32, torch.float64):
        raise QasError(f"{what} are float32 or float64, got {values.dtype}")
    if values.numel() == 0:
        raise QasError(f"{what} have at least one entry, got shape {tuple(values.shape)}")


# ---------------------------------------------------------------------- levels
def gaussian_levels(bits: int, norm: str = "l1") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 2^bits levels that quantize a standard normal variable best, and the thresholds between them.

    Each threshold is the midpoint of its neighbouring levels; each level is the conditional median ("l1") or the
    conditional mean ("l2", Lloyd 1982, Max 1960) of what lies between its thresholds. The density is log-concave, so
    there is exactly one such quantizer. A level x is assigned to z with thresholds[x - 1] < z <= thresholds[x].

    Returns:
        levels, ascending, shape (2^bits,), and thresholds, shape (2^bits - 1,). Read-only, computed once.

    Raises:
        QasError: `bits` is not a whole number from 1 to 8.
        UnknownNameError: `norm` is neither "l1" nor "l2".
    """
    return _gaussian_levels(checked_bits(bits), checked_norm(norm))


@cache
def _gaussian_levels(bits: int, norm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = 2 ** (bits - 1)
    # Best levels at high resolution have the density f^(1/2) or f^(1/3) (Panter and Dite 1951): a wider Gaussian.
    negative = np.sqrt(NORMS.index(norm) + 2) * ndtri((np.arange(half) + 0.5) / (2 * half))
    step = np.array([np.inf])
    while np.abs(step).max() > 1e-10:  # Newton converges quadratically: what is left after this step is rounding.
        centres, left, right = _centres(negative, norm)
        bands = np.zeros((3, half))
        bands[0, 1:] = -right[:-1] / 2
        bands[1] = 1 - (left + right) / 2
        bands[2, :-1] = -left[1:] / 2
        step = solve_banded((1, 1), bands, centres - negative)
        negative = negative + step
    levels = np.concatenate([negative, -negative[::-1]])
    thresholds = (levels[1:] + levels[:-1]) / 2
    levels.flags.writeable = thresholds.flags.writeable = False
    return levels, thresholds


def _centres(negative: np.ndarray, norm: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Conditional medians or means of the cells of the negative levels; derivatives by lower and upper threshold.

    The positive half is the mirror image; the cumulative distribution is accurate on this side only.
    """
    thresholds = np.concatenate([[-np.inf], (negative[1:] + negative[:-1]) / 2, [0.0]])
    below, density = ndtr(thresholds), _density(thresholds)
    if norm == "l1":
        centres = ndtri((below[1:] + below[:-1]) / 2)
        left, right = density[:-1] / (2 * _density(centres)), density[1:] / (2 * _density(centres))
    else:
        mass = np.diff(below)
        centres = -np.diff(density) / mass
        left, right = np.zeros_like(centres), (thresholds[1:] - centres) * density[1:] / mass
        left[1:] = (centres - thresholds[:-1])[1:] * density[1:-1] / mass[1:]
    right[-1] = 0.0  # The threshold at 0 stays where it is.
    return centres, left, right


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@cache
def _tables(bits: int, norm: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # An inference tensor could not be used in training later.
        levels, thresholds = (torch.tensor(t, dtype=dtype, device=device) for t in _gaussian_levels(bits, norm))
    return levels, thresholds


# ---------------------------------------------------------------------- weights
def quantize(weight: Tensor, bits: int, norm: str = "l1") -> Tensor:
    """The nearest storable values, for training: sd Q(z) + mu with z = (weight - mu) / (sd + 1e-5).

    mu is the mean and sd the unbiased standard deviation of all entries (0 for a single entry); Q rounds to
    `gaussian_levels`. The gradient goes straight through Q, and through mu and sd: with g the gradient by the result
    and m entries, dL/dw_j = g_j + z_j / (m - 1) sum_i g_i (Q(z_i) - z_i). The guard 1e-5 is not differentiated.

    Args:
        weight: any shape with at least one entry, float32 or float64.
        bits: bits of one entry, 1 to 8.
        norm: error that the levels make least, "l1" or "l2".

    Returns:
        Shape, dtype and device of `weight`. `dequantize_codes` of `quantize_codes` gives exactly the same.

    Raises:
        QasError: `bits` out of range, no entries, another dtype, or (on the CPU) entries that are not finite.
        UnknownNameError: unknown norm.
    """
    bits, norm = checked_bits(bits), checked_norm(norm)
    _checked_float("weights", weight)
    return _Quantize.apply(weight, bits, norm)


def quantize_codes(weight: Tensor, bits: int, norm: str = "l1") -> tuple[Tensor, Tensor, Tensor]:
    """Codes of `quantize`: uint8 numbers of levels in the shape of `weight`, and mu and sd, scalars of its dtype.

    Raises:
        QasError: `bits` out of range, no entries, another dtype, or entries that are not finite.
        UnknownNameError: unknown norm.
    """
    bits, norm = checked_bits(bits), checked_norm(norm)
    _checked_float("weights", weight)
    with torch.no_grad():
        codes, mu, sd, _ = _encode(weight, bits, norm)
        _check_spread(mu, sd)
    return codes.to(torch.uint8), mu, sd


def dequantize_codes(
    codes: Tensor, mu: Tensor, sd: Tensor, bits: int, norm: str = "l1", shape: Sequence[int] | None = None
) -> Tensor:
    """The values that `codes` stand for, dtype of `mu`.

    Args:
        codes: whole numbers below 2^bits, any shape.
        mu: mean, a scalar tensor.
        sd: standard deviation, a scalar tensor.
        bits: bits of one entry, 1 to 8.
        norm: that of `quantize_codes`.
        shape: of the result; default that of `codes`.

    Raises:
        QasError: `bits` out of range, a code of 2^bits or more, or a shape with another number of entries.
        UnknownNameError: unknown norm.
    """
    bits, norm = checked_bits(bits), checked_norm(norm)
    codes = _checked_codes(codes, bits).long()
    shape = tuple(codes.shape if shape is None else shape)
    if np.prod(shape, dtype=int) != codes.numel():
        raise QasError(f"a matrix of shape {shape} has {np.prod(shape, dtype=int)} codes, got {codes.numel()}")
    return _decode(_tables(bits, norm, mu.dtype, codes.device)[0][codes.reshape(shape)], mu, sd)


def _encode(weight: Tensor, bits: int, norm: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mu = weight.mean()
    sd = weight.std() if weight.numel() > 1 else torch.zeros_like(mu)
    z = (weight - mu) / (sd + SPREAD_GUARD)
    return torch.bucketize(z, _tables(bits, norm, weight.dtype, weight.device)[1]), mu, sd, z


def _decode(rounded: Tensor, mu: Tensor, sd: Tensor) -> Tensor:
    return rounded * sd + mu


def _check_spread(mu: Tensor, sd: Tensor) -> None:
    if not bool(torch.isfinite(mu) & torch.isfinite(sd)):
        raise QasError(f"weights must be finite, as must mean and deviation, got {float(mu):.3g} and {float(sd):.3g}")


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int, norm: str) -> Tensor:
        codes, mu, sd, z = _encode(weight, bits, norm)
        if readable(weight):
            _check_spread(mu, sd)
        rounded = _tables(bits, norm, weight.dtype, weight.device)[0][codes]
        ctx.save_for_backward(z, rounded)
        return _decode(rounded, mu, sd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        z, rounded = ctx.saved_tensors
        through_spread = (grad * (rounded - z)).sum() / max(z.numel() - 1, 1)
        return grad + z * through_spread, None, None


# ---------------------------------------------------------------------- bits
def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes one after the other, lowest bit first, in uint8 bytes, shape (ceil(m bits / 8),); unused bits are 0.

    Args:
        codes: m whole numbers below 2^bits, any shape.
        bits: bits of one code, 1 to 8; codes may lie across two bytes.

    Raises:
        QasError: `bits` out of range, not whole numbers, or a code of 2^bits or more.
    """
    bits = checked_bits(bits)
    flat = _checked_codes(codes, bits).reshape(-1, 1).to(torch.uint8)
    digits = (flat >> torch.arange(bits, dtype=torch.uint8, device=codes.device) & 1).reshape(-1)
    digits = torch.nn.functional.pad(digits, (0, -digits.numel() % 8)).reshape(-1, 8)
    return (digits << torch.arange(8, dtype=torch.uint8, device=codes.device)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of `pack_bits`: uint8 codes, shape (..., count), from bytes of shape (..., ceil(count bits / 8)).

    Raises:
        QasError: `bits` out of range, not the uint8 bytes of `count` codes, or an unused bit that is not 0.
    """
    bits = checked_bits(bits)
    if packed.dtype != torch.uint8 or packed.shape[-1:] != (packed_bytes(count, bits),):
        rule = f"{count} codes of {bits} bits take uint8 bytes of shape (..., {packed_bytes(count, bits)})"
        raise QasError(f"{rule}, got {packed.dtype} of shape {tuple(packed.shape)}")
    used = count * bits % 8
    if used and bool((packed[..., -1] >> used).any()):
        raise QasError(f"bits after the last of {count} codes of {bits} bits are 0, got a 1")
    if bits == 8:
        return packed.clone()
    start = torch.arange(count, device=packed.device) * bits
    first, wide = start // 8, torch.nn.functional.pad(packed, (0, 1)).int()
    pairs = wide[..., first] | wide[..., first + 1] << 8  # a code may go on in the next byte
    return (pairs >> start % 8 & 2**bits - 1).to(torch.uint8)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return -(-count * bits // 8)


def _checked_codes(codes: Tensor, bits: int) -> Tensor:
    if codes.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
        raise QasError(f"codes are whole numbers, got {codes.dtype}")
    if codes.numel():
        low, high = (int(value) for value in codes.aminmax())
        if low < 0 or high >= 2**bits:
            raise QasError(f"codes of {bits} bits are 0 to {2**bits - 1}, got {low if low < 0 else high}")
    return codes


# ---------------------------------------------------------------------- angles
def quantize_angles(angles: Tensor, bits: int) -> Tensor:
    """The nearest storable angles, for training: all lie on one grid low + code step, code = 0 .. 2^bits - 1.

    low is the least angle and step is (largest - low) / (2^bits - 1), both rounded to float16; the least angle gets
    the first code and the largest the last. So the error of an angle is about half a step, plus at most half the
    spacing of float16 at low (0.001 at pi). Angles that all lie within 2^-10 of their size become one value. Angles
    that are quantized already stay exactly as they are. The gradient goes straight through.

    Args:
        angles: radians, any shape with at least one entry, float32 or float64; not reduced to one turn. Any other
            values that share one scale may be given.
        bits: bits of one angle, 1 to 8.

    Returns:
        Shape, dtype and device of `angles`. `angles_from_codes` of `angle_codes` gives exactly the same.

    Raises:
        QasError: `bits` out of range, no entries, another dtype, or (on the CPU) angles that are not finite or beyond
            float16 (65504).
    """
    _checked_float("angles", angles)
    return quantize_each([angles.reshape(-1)], bits)[0].reshape(angles.shape)


def quantize_each(vectors: Sequence[Tensor], bits: int) -> list[Tensor]:
    """`quantize_angles` of several vectors of one length, dtype and device, each on a grid of its own."""
    bits = checked_bits(bits)
    with torch.no_grad():
        stacked = torch.stack(list(vectors))
        codes, low, step = _angle_codes(stacked, bits)
        if readable(stacked):
            _check_grid(low, step)
        rounded = torch.addcmul(low, codes, step)  # the product is exact, so this is `_on_grid` to the last bit
    return _straight_through_each(vectors, rounded)


def angle_codes(angles: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of `quantize_angles`: uint8 in the shape of `angles`, and low and step, float16 scalars in radians.

    Raises:
        QasError: `bits` out of range, no entries, another dtype, or angles that are not finite or beyond float16.
    """
    bits = checked_bits(bits)
    _checked_float("angles", angles)
    with torch.no_grad():
        codes, low, step = _angle_codes(angles.reshape(1, -1), bits)
        _check_grid(low, step)
    return codes.to(torch.uint8).reshape(angles.shape), low.half().reshape(()), step.half().reshape(())


def angles_from_codes(codes: Tensor, low: Tensor, step: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The angles (radians) that `codes` stand for, in the shape of `codes`; `dtype` is that of the quantized angles.

    Raises:
        QasError: codes outside 0 .. 255, or not whole numbers.
    """
    return _on_grid(_checked_codes(codes, MAX_BITS), low, step, dtype)


def _angle_codes(angles: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row, shape (rows, n); low and step have shape (rows, 1). All in the dtype of the angles.

    Every line is a kernel or two on an accelerator, where their number is what this costs.
    """
    least, largest = angles.aminmax(dim=-1, keepdim=True)
    last = 2**bits - 1
    low = least.half().to(angles.dtype)
    step = ((largest - low) / last).half().to(angles.dtype)
    # A step is kept only where values on the grid determine it again: then quantizing twice is quantizing once.
    span = step * last
    kept = span / _HALF_SPACING > torch.maximum(-low, low + span)
    per_unit = kept * last / (largest - least).clamp_min(torch.finfo(angles.dtype).tiny)
    return ((angles - least) * per_unit).round(), low, step * kept  # an infinite step becomes NaN


def _on_grid(codes: Tensor, low: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype) * step.to(dtype) + low.to(dtype)


def _check_grid(low: Tensor, step: Tensor) -> None:
    wrong = ~(torch.isfinite(low) & torch.isfinite(step))
    if bool(wrong.any()):
        got = f"{float(low[wrong][0]):.3g} and {float(step[wrong][0]):.3g}"
        raise QasError(f"angles must be finite, as must their least value and step in float16, got {got}")


# ---------------------------------------------------------------------- halves
def to_half(values: Tensor) -> Tensor:
    """`values` rounded to float16, for training: dtype as given, the gradient goes straight through.

    Raises:
        QasError: another dtype than float32 or float64, or (on the CPU) values that are not finite or beyond 65504.
    """
    return halve_each([values])[0]


def halve_each(vectors: Sequence[Tensor]) -> list[Tensor]:
    """`to_half` of several tensors of one shape, dtype and device."""
    if vectors[0].dtype not in (torch.float32, torch.float64):
        raise QasError(f"values are float32 or float64, got {vectors[0].dtype}")
    with torch.no_grad():
        halves = (torch.stack(list(vectors)) if len(vectors) > 1 else vectors[0][None]).half()
        if readable(halves):
            _check_halves(halves)
        rounded = halves.to(vectors[0].dtype)
    return _straight_through_each(vectors, rounded)


def half_codes(values: Tensor) -> Tensor:
    """`values` as they are stored: float16, equal to `to_half` in value.

    Raises:
        QasError: values that are not finite or beyond 65504.
    """
    halves = values.detach().half()
    _check_halves(halves)
    return halves


def _check_halves(halves: Tensor) -> None:
    if not bool(torch.isfinite(halves).all()):
        raise QasError("values must be finite and at most 65504, the largest of float16, got NaN or larger")


def _straight_through_each(vectors: Sequence[Tensor], rounded: Tensor) -> list[Tensor]:
    if not torch.is_grad_enabled() and not traced():
        return list(rounded.unbind())
    return [_StraightThrough.apply(one, row) for one, row in zip(vectors, rounded.unbind(), strict=True)]


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
