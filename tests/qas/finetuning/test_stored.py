"""Stored forms: what is stored is what training saw, bit by bit; and the random subspace against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qas.adapters.quantize import quantize, quantize_angles, to_half
from qas.errors import QasError
from qas.finetuning.stored import (
    Form,
    Gaussian,
    Halves,
    RandomSubspaceAdapter,
    Stored,
    Trained,
    Uniform,
    Values,
    random_keys,
    random_matrix,
)

IN, OUT = 10, 7
FORMS: list[tuple[Form, int]] = [
    # (form, bits of 70 entries)
    (Halves(), 16 * 70),
    (Gaussian(1), 70 + 64),
    (Gaussian(3), 3 * 70 + 64),
    (Uniform(1), 70 + 32),
    (Uniform(8), 8 * 70 + 32),
]
EVERY = pytest.mark.parametrize(("form", "bits"), FORMS, ids=[str(form[0]) for form in FORMS])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(form: Form, seed: int = 0) -> tuple[nn.Linear, Stored]:
    layer = nn.utils.skip_init(nn.Linear, IN, OUT, bias=False)
    layer.weight = nn.Parameter(normal(OUT, IN, seed=seed))
    return layer, Stored({"up": Values(layer, "weight", form)}, 5)


def by_hand(form: Form, weight: Tensor) -> Tensor:
    if isinstance(form, Gaussian):
        return quantize(weight, form.bits)
    return quantize_angles(weight, form.bits) if isinstance(form, Uniform) else to_half(weight)


@EVERY
def test_what_is_stored_is_what_training_saw(form: Form, bits: int) -> None:
    layer, stored = made(form)
    raw = stored.values["up"].weight.detach()
    assert torch.equal(layer.weight, by_hand(form, raw))
    packed = stored.pack()
    assert stored.stored_bits == bits + 32 and 0 <= 8 * sum(t.nbytes for t in packed.values()) - bits - 32 < 8
    other, again = made(form, seed=1)
    again.unpack(packed)
    assert torch.equal(other.weight, layer.weight)
    assert all(torch.equal(tensor, packed[name]) for name, tensor in again.pack().items())
    # Training goes on from the stored values, and rounds again as soon as it moves.
    other.weight.sum().backward()
    assert again.values["up"].weight.grad is not None
    with torch.no_grad():
        again.values["up"].weight.mul_(1.5)
    assert torch.equal(other.weight, by_hand(form, again.values["up"].weight.detach()))
    # A model in half precision computes, too.
    assert other.to(torch.bfloat16).weight.dtype == torch.float32


@EVERY
def test_refused_tensors_change_nothing(form: Form, bits: int) -> None:
    layer, stored = made(form)
    before, packed = layer.weight.detach().clone(), stored.pack()
    first = next(name for name in packed if name != "seed")
    wrong = [
        {},
        packed | {"more": torch.zeros(1)},
        packed | {first: packed[first][:-1]},
        packed | {first: packed[first].double()},
        packed | {"seed": torch.tensor([6], dtype=torch.uint32)},
    ]
    for name, tensor in packed.items():
        if tensor.is_floating_point():
            wrong.append(packed | {name: torch.full_like(tensor, math.nan)})
    for tensors in wrong:
        with pytest.raises(QasError) as caught:
            stored.unpack(tensors)
        assert "\n" not in str(caught.value)
        assert torch.equal(layer.weight, before)
    with torch.no_grad():
        stored.values["up"].weight[0, 0] = math.inf
    with pytest.raises(QasError):
        stored.pack()


def test_scales_that_overflow_are_refused() -> None:
    _, stored = made(Gaussian(2))
    with pytest.raises(QasError, match="must give finite values"):
        stored.unpack(stored.pack() | {"up.scale": torch.tensor([0.0, 3e38])})


def test_weights_as_they_are() -> None:
    layer = nn.Linear(3, 2)
    part = Trained(dict(layer.named_parameters()))
    packed = part.pack()
    assert part.stored_bits == 32 * 8
    with torch.no_grad():
        layer.weight.zero_()
    part.unpack(packed)
    assert torch.equal(layer.weight, packed["weight"]) and bool(layer.weight.any())
    with pytest.raises(QasError, match="those of another model"):
        part.unpack({"weight": packed["weight"]})


# ---------------------------------------------------------------------- fixed random numbers
def test_random_keys_are_those_of_splitmix64() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [int(key) for key in random_keys(0, 4)] == published
    assert [int(key) for key in random_keys(0, 2, start=2)] == published[2:]
    assert len(set(random_keys(5, 10_000).tolist()) | set(random_keys(6, 10_000).tolist())) == 20_000


def test_random_matrices_are_uniform_and_follow_each_other() -> None:
    whole = random_matrix(3, 40, 100)
    assert float(whole.abs().max()) <= math.sqrt(6 / 100) and float(whole.std()) == pytest.approx(
        math.sqrt(2 / 100), rel=0.03
    )
    assert torch.equal(random_matrix(3, 20, 100, start=2000), whole[20:])


def subspace(size: int, seed: int, **more: int) -> RandomSubspaceAdapter:
    return RandomSubspaceAdapter(IN, OUT, size, seed, **more)


def columns(adapter: RandomSubspaceAdapter) -> np.ndarray:
    """P, shape (entries, size), from one unit vector after the other."""
    found = []
    weight = adapter.stored.values["theta"].weight
    for j in range(adapter.size):
        with torch.no_grad():
            weight.zero_()
            weight[j] = 1.0
        found.append(adapter.delta_weight().detach().double().numpy().ravel())
    return np.array(found).T


@pytest.mark.parametrize("size", [1, 3, 13, 69, 70])
def test_the_subspace_is_orthonormal(size: int) -> None:
    projection = columns(subspace(size, 3))
    np.testing.assert_allclose(projection.T @ projection, np.eye(size), atol=1e-6)
    assert (np.count_nonzero(projection, axis=1) == 1).all()
    assert np.ptp(np.count_nonzero(projection, axis=0)) <= 2
    assert (np.abs((projection > 0).sum(0) - (projection < 0).sum(0)) <= 1).all(), "signs are even too"


def test_the_subspace_belongs_to_the_seed() -> None:
    first, same, other = (columns(subspace(9, seed)) for seed in (1, 1, 2**32 - 1))
    np.testing.assert_array_equal(first, same)
    assert (np.argmax(first != 0, axis=1) == np.argmax(other != 0, axis=1)).mean() < 0.4
    # Which entries share an angle does not depend on the machine or on the version of any library.
    order = sorted(range(8), key=lambda i: int(random_keys(0, 8)[i]))
    expected = np.zeros((8, 2))
    for rank, entry in enumerate(order):
        expected[entry, rank % 2] = (1 if rank % 4 < 2 else -1) / 2
    np.testing.assert_array_equal(columns(RandomSubspaceAdapter(4, 2, 2, 0)), expected)


@pytest.mark.parametrize("bits", [None, 2])
def test_the_subspace_by_hand(bits: int | None) -> None:
    adapter = RandomSubspaceAdapter(IN, OUT, 23, 0, bits=bits, scale=2.0)
    weight = adapter.stored.values["theta"].weight
    assert not adapter.delta_weight().any()
    with torch.no_grad():
        weight.add_(normal(23))
    projection = columns(subspace(23, 0))
    values = (to_half(weight) if bits is None else quantize_angles(weight, bits)).detach().double().numpy()
    delta = adapter.delta_weight()
    np.testing.assert_allclose(delta.detach().numpy(), 2 * (projection @ values).reshape(OUT, IN), atol=1e-6)
    grad = normal(OUT, IN, seed=4)
    delta.backward(grad)
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), 2 * projection.T @ grad.double().numpy().ravel(), atol=1e-5)
    assert torch.allclose(adapter.delta(torch.eye(IN)), delta.detach().T, atol=1e-6)
    with pytest.raises(QasError, match="seed is a whole number from 0"):
        subspace(3, 2**32)
