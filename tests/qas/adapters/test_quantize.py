"""Few-bit weights and angles: published levels, gradients, and stored forms that are exactly what training saw."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from qas.adapters.quantize import _gaussian_levels as uncached
from qas.adapters.quantize import (
    angle_codes,
    angles_from_codes,
    dequantize_codes,
    gaussian_levels,
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

ALL_BITS = range(1, 9)
NAN, INF = math.nan, math.inf


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


# ---------------------------------------------------------------------- levels
PUBLISHED = {
    1: [0.6745],
    2: [0.3778, 1.2657],
    3: [0.2026, 0.6254, 1.1137, 1.7920],
    4: [0.1056, 0.3190, 0.5401, 0.7752, 1.0340, 1.3331, 1.7077, 2.2655],
}
LLOYD_MAX = {1: [0.7979], 2: [0.4528, 1.5104]}


@pytest.mark.parametrize(("norm", "table"), [("l1", PUBLISHED), ("l2", LLOYD_MAX)])
def test_levels_are_the_published_ones(norm: str, table: dict[int, list[float]]) -> None:
    for bits, positive in table.items():
        levels, _ = gaussian_levels(bits, norm)
        np.testing.assert_allclose(levels[len(levels) // 2 :], positive, atol=5.1e-5)


def test_thresholds_are_the_published_ones() -> None:
    np.testing.assert_allclose(gaussian_levels(1)[1], [0.0], atol=1e-15)
    np.testing.assert_allclose(gaussian_levels(2)[1], [-0.8217, 0.0, 0.8217], atol=5.1e-5)
    np.testing.assert_allclose(gaussian_levels(3)[1][4:], [0.414, 0.870, 1.453], atol=5.1e-4)


def distortion(bits: int, norm: str, power: int) -> float:
    """E|z - Q(z)|^power by adaptive quadrature over every cell."""
    levels, thresholds = gaussian_levels(bits, norm)
    edges = [-12.0, *thresholds, 12.0]
    total = 0.0
    for level, low, high in zip(levels, edges[:-1], edges[1:], strict=True):
        total += integrate.quad(
            lambda z, level=level: abs(z - level) ** power * stats.norm.pdf(z), low, high, points=[level], epsabs=1e-9
        )[0]
    return total


@pytest.mark.parametrize(
    ("bits", "absolute", "square", "best_square"),
    [(1, 0.473, 0.3786, 0.3634), (2, 0.266, 0.1290, 0.1175), (3, 0.143, 0.0403, 0.0345), (4, 0.0746, 0.0118, 0.0095)],
)
def test_errors_are_the_published_ones(bits: int, absolute: float, square: float, best_square: float) -> None:
    assert distortion(bits, "l1", 1) == pytest.approx(absolute, abs=5.1e-4)
    assert distortion(bits, "l1", 2) == pytest.approx(square, abs=5.1e-5)
    assert distortion(bits, "l2", 2) == pytest.approx(best_square, abs=5.1e-5)
    assert distortion(bits, "l2", 2) < distortion(bits, "l1", 2), "each is best at its own error"
    assert distortion(bits, "l1", 1) < distortion(bits, "l2", 1)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_every_level_is_the_centre_of_its_cell(bits: int, norm: str) -> None:
    levels, thresholds = gaussian_levels(bits, norm)
    assert levels.dtype == np.float64 and levels.shape == (2**bits,) and thresholds.shape == (2**bits - 1,)
    assert (np.diff(levels) > 1e-3).all(), "all are distinct"
    np.testing.assert_array_equal(levels, -levels[::-1])
    np.testing.assert_allclose(thresholds, (levels[1:] + levels[:-1]) / 2, rtol=0, atol=1e-15)
    # On the positive side with the survival function, which the solver never uses.
    lower, upper = thresholds[2 ** (bits - 1) - 1 :], [*thresholds[2 ** (bits - 1) :], np.inf]
    for level, low, high in zip(levels[2 ** (bits - 1) :], lower, upper, strict=True):
        mass = stats.norm.sf(low) - stats.norm.sf(high)
        if norm == "l1":
            assert stats.norm.sf(low) - stats.norm.sf(level) == pytest.approx(mass / 2, rel=1e-8)
        else:
            assert (stats.norm.pdf(low) - stats.norm.pdf(high)) / mass == pytest.approx(level, rel=1e-8)


def test_eight_bits_converge_and_fast() -> None:
    for norm, square in (("l1", 7e-5), ("l2", 4e-5)):
        started = time.perf_counter()
        levels, _ = uncached.__wrapped__(8, norm)
        assert time.perf_counter() - started < 0.2
        assert len(set(levels)) == 256
        z = normal(1_000_000, dtype=torch.float64)
        error = (quantize(z, 8, norm) - z).square().mean()
        assert float(error) == pytest.approx(square, rel=0.1)


def test_levels_are_computed_once_and_cannot_be_changed() -> None:
    levels, thresholds = gaussian_levels(3)
    assert gaussian_levels(3, "l1")[0] is levels
    for array in (levels, thresholds):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


# ---------------------------------------------------------------------- weights
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_weights_go_to_the_nearest_level(bits: int, norm: str) -> None:
    weight = 0.3 * normal(17, 11, seed=bits, dtype=torch.float64) - 1.2
    levels, _ = gaussian_levels(bits, norm)
    entries = weight.numpy().ravel()
    mu, sd = entries.mean(), entries.std(ddof=1)
    expected = [sd * levels[np.argmin(np.abs((w - mu) / (sd + 1e-5) - levels))] + mu for w in entries]
    np.testing.assert_allclose(quantize(weight, bits, norm).numpy().ravel(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_stored_weights_are_exactly_those_of_training(bits: int, norm: str, dtype: torch.dtype) -> None:
    weight = (0.02 * normal(13, 29, dtype=dtype) + 0.5).requires_grad_()
    codes, mu, sd = quantize_codes(weight, bits, norm)
    trained = quantize(weight, bits, norm)
    assert codes.dtype == torch.uint8 and codes.shape == weight.shape and trained.dtype == mu.dtype == sd.dtype == dtype
    assert torch.equal(dequantize_codes(codes, mu, sd, bits, norm), trained)
    unpacked = unpack_bits(pack_bits(codes, bits), bits, codes.numel())
    assert torch.equal(dequantize_codes(unpacked, mu, sd, bits, norm, (13, 29)), trained)
    assert not mu.requires_grad and trained.requires_grad


def test_monte_carlo_errors() -> None:
    weight = 3 + 2 * normal(1000, 1000)
    for bits, absolute, square in ((1, 0.473, 0.3786), (2, 0.266, 0.1290), (3, 0.143, 0.0403), (4, 0.0746, 0.0118)):
        error = (quantize(weight, bits) - weight) / 2
        assert float(error.abs().mean()) == pytest.approx(absolute, abs=2e-3)
        assert float(error.square().mean()) == pytest.approx(square, rel=2e-2)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_gradient_is_that_of_finite_differences(bits: int) -> None:
    weight = normal(4, 3, seed=5, dtype=torch.float64).requires_grad_()
    grad = normal(4, 3, seed=6, dtype=torch.float64)
    (quantize(weight, bits) * grad).sum().backward()
    start = weight.detach().numpy().ravel()

    def standardized(w: np.ndarray) -> tuple[np.ndarray, float, float]:
        mu, sd = w.mean(), w.std(ddof=1)
        return (w - mu) / sd, float(mu), float(sd)

    z, mu, sd = standardized(start)
    # Straight through Q: what it adds to z stays, mean and deviation move.
    added = (quantize(weight.detach(), bits).numpy().ravel() - mu) / sd - z

    def loss(w: np.ndarray) -> float:
        z, mu, sd = standardized(w)
        return float(grad.numpy().ravel() @ (sd * (z + added) + mu))

    h = 1e-5
    slopes = [(loss(start + h * e) - loss(start - h * e)) / (2 * h) for e in np.eye(12)]
    np.testing.assert_allclose(gradient(weight).numpy().ravel(), slopes, atol=2e-4)


def test_gradient_is_the_stated_formula() -> None:
    weight = (1e-3 * normal(5, 7, seed=1)).requires_grad_()
    grad = normal(5, 7, seed=2)
    quantize(weight, 2).backward(grad)
    codes, mu, sd = quantize_codes(weight, 2)
    levels = gaussian_levels(2)[0]
    z = [(float(w) - float(mu)) / (float(sd) + 1e-5) for w in weight.detach().flatten()]
    g = [float(x) for x in grad.flatten()]
    total = sum(gi * (levels[c] - zi) for gi, c, zi in zip(g, codes.flatten().tolist(), z, strict=True))
    expected = [gj + zj / (len(g) - 1) * total for gj, zj in zip(g, z, strict=True)]
    np.testing.assert_allclose(gradient(weight).numpy().ravel(), expected, rtol=1e-4, atol=1e-5)


def test_one_entry_and_constant_matrices_stay_as_they_are() -> None:
    for weight in (torch.tensor([[2.5]]), torch.full((3, 4), 0.75), torch.zeros(6)):
        for bits in (1, 8):
            trained = weight.clone().requires_grad_()
            rounded = quantize(trained, bits)
            assert torch.equal(rounded, weight)
            rounded.sum().backward()
            assert torch.equal(gradient(trained), torch.ones_like(weight))


def test_tables_made_for_inference_serve_training() -> None:
    from qas.adapters import quantize as module

    module._tables.cache_clear()
    weight = normal(6).requires_grad_()
    with torch.inference_mode():
        quantize(weight, 5)
    quantize(weight, 5).sum().backward()
    assert torch.isfinite(gradient(weight)).all()


@pytest.mark.parametrize("bits", [0, 9, -1, 2.5, True, None, "two"])
def test_bits_are_one_to_eight(bits: object) -> None:
    codes, one = torch.zeros(3, dtype=torch.uint8), torch.tensor(1.0)
    for call in (
        lambda: gaussian_levels(bits),  # type: ignore[arg-type]
        lambda: quantize(normal(3), bits),  # type: ignore[arg-type]
        lambda: quantize_codes(normal(3), bits),  # type: ignore[arg-type]
        lambda: dequantize_codes(codes, one, one, bits),  # type: ignore[arg-type]
        lambda: pack_bits(codes, bits),  # type: ignore[arg-type]
        lambda: unpack_bits(codes, bits, 3),  # type: ignore[arg-type]
        lambda: quantize_angles(normal(3), bits),  # type: ignore[arg-type]
        lambda: angle_codes(normal(3), bits),  # type: ignore[arg-type]
    ):
        with pytest.raises(QasError, match=f"bits is a whole number from 1 to 8, got {bits!r}"):
            call()


def test_unknown_norms() -> None:
    codes, one = torch.zeros(3, dtype=torch.uint8), torch.tensor(1.0)
    for call in (
        lambda: gaussian_levels(2, "l3"),
        lambda: quantize(normal(3), 2, "l3"),
        lambda: quantize_codes(normal(3), 2, "l3"),
        lambda: dequantize_codes(codes, one, one, 2, "l3"),
    ):
        with pytest.raises(UnknownNameError, match="unknown norm 'l3'; did you mean 'l[12]'"):
            call()


@pytest.mark.parametrize("entries", [[NAN], [0.0, NAN], [1.0, INF, 2.0], [3e38, -3e38]])
def test_weights_must_be_finite(entries: list[float]) -> None:
    for function in (quantize, quantize_codes):
        with pytest.raises(QasError, match="weights must be finite, as must mean and deviation, got"):
            function(torch.tensor(entries), 2)


def test_weights_have_entries_of_a_known_type() -> None:
    for function in (quantize, quantize_codes):
        with pytest.raises(QasError, match="weights are float32 or float64, got torch.float16"):
            function(normal(3).half(), 2)
        with pytest.raises(QasError, match=r"weights have at least one entry, got shape \(0, 3\)"):
            function(torch.zeros(0, 3), 2)


def test_codes_that_do_not_fit() -> None:
    one = torch.tensor(1.0)
    with pytest.raises(QasError, match="codes of 2 bits are 0 to 3, got 4"):
        dequantize_codes(torch.tensor([1, 4]), one, one, 2)
    with pytest.raises(QasError, match=r"a matrix of shape \(2, 2\) has 4 codes, got 3"):
        dequantize_codes(torch.tensor([1, 2, 3]), one, one, 2, shape=(2, 2))


# ---------------------------------------------------------------------- bits
@settings(deadline=None, max_examples=150)
@given(bits=st.integers(1, 8), data=st.data())
def test_packed_bytes_are_one_long_number(bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack_bits(torch.tensor(codes, dtype=torch.uint8), bits)
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    assert bytes(packed.tolist()) == number.to_bytes(math.ceil(len(codes) * bits / 8), "little")
    assert packed.dtype == torch.uint8 and packed.shape == (packed_bytes(len(codes), bits),)
    unpacked = unpack_bits(packed, bits, len(codes))
    assert unpacked.dtype == torch.uint8 and unpacked.tolist() == codes


def test_packing_takes_any_shape_and_whole_numbers() -> None:
    codes = torch.tensor([[1, 0, 1], [1, 1, 0]])
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert pack_bits(codes.to(dtype), 1).tolist() == [0b011101]
    assert pack_bits(codes.T, 1).tolist() == [0b011011]
    assert pack_bits(torch.tensor([5, 3, 7]), 3).tolist() == [0b11011101, 0b1], "the last byte is not lost"


def test_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(QasError, match="codes of 3 bits are 0 to 7, got 8"):
        pack_bits(torch.tensor([0, 8]), 3)
    with pytest.raises(QasError, match="codes of 8 bits are 0 to 255, got -1"):
        pack_bits(torch.tensor([-1, 0]), 8)
    with pytest.raises(QasError, match="codes are whole numbers, got torch.float32"):
        pack_bits(torch.tensor([0.0]), 3)


def test_unpacking_refuses_other_bytes() -> None:
    packed = torch.zeros(2, dtype=torch.uint8)
    rule = r"3 codes of 4 bits take uint8 bytes of shape \(..., 2\)"
    byte = torch.zeros(2, 1, dtype=torch.uint8)
    for wrong, got in ((byte, r"uint8 of shape \(2, 1\)"), (byte[0, 0], r"shape \(\)"), (packed.int(), "int32")):
        with pytest.raises(QasError, match=f"{rule}, got .*{got}"):
            unpack_bits(wrong, 4, 3)
    packed[1] = 0b10000
    with pytest.raises(QasError, match="bits after the last of 3 codes of 4 bits are 0, got a 1"):
        unpack_bits(packed, 4, 3)
    with pytest.raises(QasError, match="are 0, got a 1"):
        unpack_bits(torch.stack([torch.zeros_like(packed), packed]), 4, 3)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_bytes_of_many_are_unpacked_as_those_of_each(bits: int) -> None:
    for count in (0, 1, 7, 8, 29):
        codes = torch.from_numpy(np.random.default_rng(count).integers(0, 2**bits, (3, 2, count), dtype=np.uint8))
        packed = torch.stack([torch.stack([pack_bits(codes[j, k], bits) for k in range(2)]) for j in range(3)])
        unpacked = unpack_bits(packed, bits, count)
        assert unpacked.dtype == torch.uint8 and torch.equal(unpacked, codes)
        assert torch.equal(unpack_bits(packed.transpose(0, 1), bits, count), codes.transpose(0, 1))


# ---------------------------------------------------------------------- angles
def test_angles_go_to_the_nearest_point_of_the_grid() -> None:
    # Least value and step that float16 holds exactly: the textbook formula.
    for bits in ALL_BITS:
        last = 2**bits - 1
        inner = torch.rand(50, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
        angles = torch.cat([inner, torch.tensor([0.0, 1.0])]) * last / 64 - 1.5
        step = float(angles.max() - angles.min()) / last
        assert step == 1 / 64 and float(angles.min()) == -1.5
        expected = np.round((angles.numpy() + 1.5) / step) * step - 1.5
        np.testing.assert_array_equal(quantize_angles(angles, bits).numpy(), expected)


@st.composite
def angle_vectors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    size = 10.0 ** draw(st.floats(-9, 3))
    middle = draw(st.sampled_from([0.0, 1.0, -1.0])) * 10.0 ** draw(st.floats(-9, 4))
    inner = draw(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
    return (torch.tensor(inner, dtype=torch.float64) * size + middle).to(dtype)


@settings(deadline=None, max_examples=200)
@given(angles=angle_vectors(), bits=st.integers(1, 8))
@example(angles=torch.full((4,), 3.3), bits=1)
@example(angles=torch.full((1,), 65000.0), bits=8)
@example(angles=torch.tensor([3.0, 3.0 + 2.0**-9]), bits=8)
def test_angles_are_stored_exactly_and_near(angles: torch.Tensor, bits: int) -> None:
    trained = quantize_angles(angles, bits)
    codes, low, step = angle_codes(angles, bits)
    assert codes.dtype == torch.uint8 and low.dtype == step.dtype == torch.float16
    assert int(codes.max()) < 2**bits and trained.dtype == angles.dtype
    assert torch.equal(angles_from_codes(codes, low, step, angles.dtype), trained)
    assert torch.equal(quantize_angles(trained, bits), trained), "twice is once"
    # Half a step; the roundings to float16 of step (normal, subnormal) and of the least angle; nearly equal angles.
    last, size = 2**bits - 1, float(angles.abs().max())
    bound = (0.5 + last * 2.0**-11) * float(step) + last * 2.0**-25 + 2.0**-24 + 2.1 * 2.0**-10 * size
    assert float((trained - angles).abs().max()) <= bound


def test_the_error_of_one_turn_is_half_a_step() -> None:
    angles = (torch.rand(2000, generator=torch.Generator().manual_seed(0)) * 2 - 1) * math.pi
    for bits in ALL_BITS:
        step = 2 * math.pi / (2**bits - 1)
        error = quantize_angles(angles, bits) - angles
        assert float(error.abs().max()) <= step / 2 + 2e-3
        assert float(error.square().mean().sqrt()) == pytest.approx(step / math.sqrt(12), rel=0.1)


def test_gradients_of_angles_go_straight_through() -> None:
    for function in (lambda a: quantize_angles(a, 2), to_half):
        angles = normal(9).requires_grad_()
        grad = normal(9, seed=1)
        function(angles).backward(grad)
        assert torch.equal(gradient(angles), grad)


def test_equal_angles_become_one_value() -> None:
    for value in (0.0, 3.3, -1e-9, 1e4):
        for bits in ALL_BITS:
            rounded = quantize_angles(torch.full((5,), value), bits)
            assert torch.equal(rounded, torch.full((5,), float(np.float16(value))))


def test_angles_must_be_finite_and_in_float16() -> None:
    for entries in ([NAN, 0.0], [INF, 0.0], [0.0, -INF], [1e6, 2e6], [-6e4, 6e4], [-INF, INF]):
        for function in (quantize_angles, angle_codes):
            with pytest.raises(QasError, match="angles must be finite, as must their least value and step in float16"):
                function(torch.tensor(entries), 1)
    for function in (quantize_angles, angle_codes):
        with pytest.raises(QasError, match="angles are float32 or float64, got torch.int64"):
            function(torch.zeros(3, dtype=torch.int64), 1)
        with pytest.raises(QasError, match=r"angles have at least one entry, got shape \(0,\)"):
            function(torch.zeros(0), 1)


# ---------------------------------------------------------------------- halves
def test_halves_are_those_of_numpy() -> None:
    values = torch.cat([normal(500) * 10.0**k for k in range(-8, 4)])
    with np.errstate(under="ignore"):
        expected = values.numpy().astype(np.float16)
    np.testing.assert_array_equal(half_codes(values).numpy(), expected)
    for dtype in (torch.float32, torch.float64):
        rounded = to_half(values.to(dtype))
        assert rounded.dtype == dtype and torch.equal(rounded, half_codes(values).to(dtype))
        assert torch.equal(to_half(rounded), rounded)
    assert to_half(torch.zeros(0)).shape == (0,)


def test_halves_must_be_finite() -> None:
    for value in (NAN, INF, 7e4):
        for function in (to_half, half_codes):
            with pytest.raises(QasError, match="values must be finite and at most 65504, the largest of float16"):
                function(torch.tensor([0.0, value]))
    with pytest.raises(QasError, match="values are float32 or float64, got torch.bfloat16"):
        to_half(torch.zeros(2).bfloat16())


# ---------------------------------------------------------------------- accelerator
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bits", ALL_BITS)
def test_an_accelerator_gives_what_it_stores(bits: int) -> None:
    weight = normal(64, 33).cuda()
    codes, mu, sd = quantize_codes(weight, bits)
    trained = quantize(weight, bits)
    packed = pack_bits(codes, bits)
    assert torch.equal(packed.cpu(), pack_bits(codes.cpu(), bits))
    unpacked = unpack_bits(packed, bits, codes.numel())
    assert torch.equal(dequantize_codes(unpacked, mu, sd, bits, shape=weight.shape), trained)
    assert torch.equal(dequantize_codes(unpacked.cpu(), mu.cpu(), sd.cpu(), bits, shape=weight.shape), trained.cpu())
    angles = quantize_angles(weight, bits)
    assert torch.equal(angles.cpu(), quantize_angles(weight.cpu(), bits))
    assert torch.equal(angles_from_codes(*angle_codes(weight, bits)), angles)
    assert torch.isnan(quantize(torch.full((3,), NAN).cuda(), bits)).all(), "no look at the values in training"
    with pytest.raises(QasError, match="weights must be finite"):
        quantize_codes(torch.full((3,), NAN).cuda(), bits)
