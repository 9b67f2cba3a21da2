"""Low-rank and random-subspace adapters: what they compute, what they store, and that both are the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from qas.adapters.base import Adapter, DeltaAdapter
from qas.adapters.quantize import pack_bits, quantize, quantize_angles, quantize_codes, to_half
from qas.errors import QasError, UnknownNameError
from qas.finetuning.lowrank import (
    AdaptFormerAdapter,
    LoraAdapter,
    RandomSubspaceAdapter,
    VeraAdapter,
    random_keys,
)

IN, OUT = 10, 7
FORMS = [{}, {"stored": "float32"}, *({"bits": bits} for bits in (1, 3, 8))]
Maker = Callable[..., Adapter]
MAKERS: dict[str, Maker] = {
    "lora": lambda seed=0, **k: LoraAdapter(IN, OUT, 3, scale=0.7, generator=generator(seed), **k),
    "lora-l2": lambda seed=0, **k: LoraAdapter(IN, OUT, 7, alpha=3, norm="l2", generator=generator(seed), **k),
    "adaptformer": lambda seed=0, **k: AdaptFormerAdapter(IN, OUT, 5, scale=0.3, generator=generator(seed), **k),
    "subspace": lambda seed=0, **k: RandomSubspaceAdapter(IN, OUT, 23, seed, scale=2.0, **k),
    "vera": lambda seed=0, **k: VeraAdapter(IN, OUT, 4, seed, scale=-1.5, **k),
}
EVERY = pytest.mark.parametrize(("name", "form"), [(name, form) for name in MAKERS for form in FORMS])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def frozen(in_features: int = IN, out_features: int = OUT) -> nn.Linear:
    base = nn.Linear(in_features, out_features)
    with torch.no_grad():
        base.weight.copy_(normal(out_features, in_features, seed=91))
        base.bias.copy_(normal(out_features, seed=92))
    return base.requires_grad_(False)


def trained(name: str, **form: Any) -> Adapter:
    """An adapter somewhere away from its start, every parameter float32."""
    adapter = MAKERS[name](**form)
    assert all(p.dtype == torch.float32 for p in adapter.parameters())
    with torch.no_grad():
        for i, parameter in enumerate(adapter.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=50 + i))
    return adapter


def bits_of(tensors: dict[str, Tensor]) -> int:
    return 8 * sum(tensor.nbytes for tensor in tensors.values())


# ---------------------------------------------------------------------- all of them
@EVERY
def test_what_is_stored_is_what_training_saw(name: str, form: dict[str, Any], tmp_path: Path) -> None:
    adapter, base, x = trained(name, **form), frozen(), normal(6, IN, seed=3)
    expected = adapter(x, base)
    stored = adapter.pack()
    assert all(not tensor.requires_grad and tensor.device.type == "cpu" for tensor in stored.values())
    safetensors.torch.save_file(stored, tmp_path / "adapter.safetensors")
    loaded = MAKERS[name](seed=12, **form)
    assert not torch.equal(loaded(x, base), expected)
    loaded.unpack(safetensors.torch.load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(loaded(x, base), expected)
    again = loaded.pack()
    assert list(again) == list(stored) and all(torch.equal(again[key], stored[key]) for key in stored)
    adapter.unpack(stored)
    assert torch.equal(adapter(x, base), expected), "the same adapter may take back its own"
    if isinstance(adapter, DeltaAdapter) and isinstance(loaded, DeltaAdapter):
        assert torch.equal(loaded.delta_weight(), adapter.delta_weight())


@EVERY
def test_every_bit_is_counted(name: str, form: dict[str, Any]) -> None:
    adapter = trained(name, **form)
    stored = adapter.pack()
    counts = [parameter.numel() for parameter in adapter.parameters()]
    payload, padding = 32 * ("seed" in stored), 0
    for count in counts:
        if "bits" in form:
            payload += count * form["bits"] + (32 if "seed" in stored else 64)
            padding += -count * form["bits"] % 8
        else:
            payload += count * (32 if "stored" in form else 16)
    assert adapter.stored_bits == payload
    assert bits_of(stored) == payload + padding


@EVERY
def test_merging(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = trained(name, **form), frozen(), normal(6, IN, seed=3)
    if not isinstance(adapter, DeltaAdapter):
        with pytest.raises(QasError, match="an AdaptFormer cannot be merged, as no matrix does what its ReLU does"):
            adapter.merged(base.weight)
        with pytest.raises(QasError, match="an AdaptFormer cannot be unmerged, as it cannot be merged"):
            adapter.unmerged(base.weight)
        return
    merged = adapter.merged(base.weight)
    assert merged.dtype == torch.float32 and not merged.requires_grad
    delta = adapter.delta_weight()
    assert delta.dtype == torch.float32 and delta.shape == (OUT, IN) and delta.norm() > 1e-3
    torch.testing.assert_close(adapter(x, base), x @ merged.T + base.bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(adapter.delta(x), x @ delta.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(adapter.unmerged(merged), base.weight, rtol=0, atol=1e-6)
    assert adapter.merged(base.weight.bfloat16()).dtype == torch.bfloat16


@EVERY
def test_the_start(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = MAKERS[name](**form), frozen(), normal(6, IN, seed=3)
    change = (adapter(x, base) - base(x)).detach().abs().max()
    if "bits" in form and name.startswith(("lora", "adapt")):
        assert 0 < float(change) < 0.05, "small, not zero"
    else:
        assert float(change) == 0.0
    adapter(x, base).square().sum().backward()
    assert any(float(p.grad.abs().max()) > 0 for p in adapter.parameters() if p.grad is not None)


@EVERY
def test_other_types_of_layers(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = trained(name, **form), frozen(), normal(2, 3, IN, seed=3)
    expected = adapter(x, base)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.2)):
        layer = frozen().to(dtype)
        out = adapter(x.to(dtype), layer)
        assert out.dtype == dtype and out.shape == (2, 3, OUT)
        torch.testing.assert_close(out.float(), expected, rtol=0, atol=tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        out = adapter(x, base)
        if isinstance(adapter, DeltaAdapter):
            assert adapter.delta(x).dtype == torch.float32
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.2)
    cast = trained(name, **form).to(torch.bfloat16)
    torch.testing.assert_close(cast(x, base), expected, rtol=0, atol=1.5)
    cast.pack()


@EVERY
def test_training_goes_on_from_the_stored_values(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = MAKERS[name](seed=4, **form), frozen(), normal(20, IN, seed=3)
    adapter.unpack(trained(name, **form).pack())
    target = normal(20, OUT, seed=8)
    optimizer = torch.optim.Adam(adapter.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = (adapter(x, base) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.97 * losses[0]
    other = MAKERS[name](seed=5, **form)
    other.unpack(adapter.pack())
    assert torch.equal(other(x, base), adapter(x, base))


@EVERY
def test_refused_tensors_change_nothing(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = trained(name, **form), frozen(), normal(6, IN, seed=3)
    expected = adapter(x, base)
    good = MAKERS[name](seed=9, **form).pack()
    last = list(good)[-1]
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({key: good[key] for key in good if key != last}, "stores .*, got"),
        ({**good, "more": good[last]}, "stores .*, got .*more"),
        ({**good, last: good[last][:-1]}, f"stored {last} has shape .* got"),
        ({**good, last: good[last].double()}, f"stored {last} has .* torch.float64"),
        ({**good, last: torch.full_like(good[last], math.nan)}, f"stored {last} must be finite"),
    ]
    if "seed" in good:
        wrong.append(({key: good[key] for key in good if key != "seed"}, "stores a seed, got"))
        wrong.append(({**good, "seed": good["seed"].int()}, "stored seed has shape"))
    for key in good:
        if key.endswith(".codes"):
            filled = {**good, key: torch.full_like(good[key], 255)}
            count = adapter.get_parameter(key.replace(".codes", ".weight")).numel()
            if count * form["bits"] % 8:
                wrong.append((filled, "bits after the last of"))
    for tensors, message in wrong:
        with pytest.raises(QasError, match=message):
            adapter.unpack(tensors)
        assert torch.equal(adapter(x, base), expected)


@EVERY
def test_values_that_are_not_finite_are_not_stored(name: str, form: dict[str, Any]) -> None:
    adapter = trained(name, **form)
    with torch.no_grad():
        next(adapter.parameters()).view(-1)[0] = math.nan
    with pytest.raises(QasError, match="must be finite"):
        adapter.pack()


def test_scales_that_overflow_are_refused() -> None:
    adapter = LoraAdapter(IN, OUT, 2, bits=2)
    stored = adapter.pack()
    stored["up.scale"] = torch.tensor([0.0, 3.4e38])
    with pytest.raises(QasError, match="stored mean and deviation must give finite values, got 0, 3.4e\\+38"):
        adapter.unpack(stored)


def test_a_stored_adapter_survives_a_state_dict_of_its_weights() -> None:
    """`state_dict` holds the exact values that training moves; loading it leaves the stored values behind."""
    first, second = LoraAdapter(IN, OUT, 2, bits=1), LoraAdapter(IN, OUT, 2, bits=1)
    x, base = normal(5, IN), frozen()
    second.unpack(first.pack())
    assert set(second.state_dict()) == {"down.weight", "up.weight"}
    other = trained("lora", bits=1)
    third = LoraAdapter(IN, OUT, 3, bits=1, scale=0.7)
    third.unpack(MAKERS["lora"](bits=1).pack())
    third.load_state_dict(other.state_dict())
    assert torch.equal(third(x, base), other(x, base))


# ---------------------------------------------------------------------- low rank
@pytest.mark.parametrize("bits", [None, 1, 4])
def test_lora_by_hand(bits: int | None) -> None:
    adapter, x = trained("lora", bits=bits), normal(6, IN, seed=3).double()
    assert isinstance(adapter, LoraAdapter)
    round_off = to_half if bits is None else lambda w: quantize(w, bits)
    down, up = (round_off(part.weight.detach()).double().numpy() for part in (adapter.down, adapter.up))
    assert down.shape == (3, IN) and up.shape == (OUT, 3)
    expected = np.array([[0.7 * sum(up[o] * (down @ row)) for o in range(OUT)] for row in x.numpy()])
    np.testing.assert_allclose(adapter.delta(x).detach().numpy(), expected, atol=1e-6)


def test_lora_scales() -> None:
    assert LoraAdapter(IN, OUT, 4).scale == 1.0
    assert LoraAdapter(IN, OUT, 4, alpha=2).scale == 0.5
    assert LoraAdapter(IN, OUT, 4, scale=-3).scale == -3.0
    with pytest.raises(QasError, match=r"give alpha or scale, got alpha 1 and scale 2"):
        LoraAdapter(IN, OUT, 4, alpha=1, scale=2)
    with pytest.raises(QasError, match="alpha is a finite number, got inf"):
        LoraAdapter(IN, OUT, 4, alpha=math.inf)


def test_published_starts() -> None:
    plain, few = (LoraAdapter(400, 500, 100, bits=bits, generator=generator(0)) for bits in (None, 1))
    for adapter in (plain, few):
        down = adapter.down.weight.detach()
        assert float(down.abs().max()) <= 1 / math.sqrt(400) + 1e-9
        assert float(down.var()) == pytest.approx(1 / (3 * 400), rel=0.03), "the start of nn.Linear, as in peft"
    assert not plain.up.weight.any()
    up = few.up.weight.detach()
    assert float(up.abs().max()) <= 2e-3 and float(up.mean()) == pytest.approx(0.0, abs=2e-5)
    assert float(up.std()) == pytest.approx(0.8796e-3, rel=0.02), "a normal distribution cut at two deviations"


def test_starts_come_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (LoraAdapter(IN, OUT, 3, bits=2, generator=generator(seed)) for seed in (1, 1, 2))
    RandomSubspaceAdapter(IN, OUT, 5, 0)
    VeraAdapter(IN, OUT, 5, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_adaptformer_by_hand() -> None:
    adapter, x = trained("adaptformer", bits=3), normal(6, IN, seed=3)
    assert isinstance(adapter, AdaptFormerAdapter)
    branch = nn.Sequential(nn.LayerNorm(IN), nn.Linear(IN, 4 * IN), nn.GELU(), nn.Linear(4 * IN, OUT))
    down, up = (quantize(part.weight.detach(), 3).numpy() for part in (adapter.down, adapter.up))
    change = 0.3 * np.maximum(x.numpy() @ down.T, 0) @ up.T
    assert np.abs(change).max() > 0.01
    np.testing.assert_allclose((adapter(x, branch) - branch(x)).detach().numpy(), change, atol=1e-6)


@pytest.mark.parametrize("kind", [LoraAdapter, AdaptFormerAdapter])
def test_dropout_acts_on_the_rank_in_training_only(kind: type) -> None:
    adapter = kind(3, 40, 3, dropout=0.25, stored="float32", generator=generator(0))
    with torch.no_grad():
        adapter.down.weight.copy_(torch.eye(3))
        adapter.up.weight.copy_(torch.eye(40)[:, :3])
    x, base = torch.ones(4000, 3), lambda x: torch.zeros(len(x), 40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = adapter(x, base).detach()[:, :3]
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert float((out == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    adapter.eval()
    assert torch.equal(adapter(x, base)[:, :3], x)


def test_published_file_sizes() -> None:
    """arXiv:2307.16867, ViT-B with 10 classes: the committed files have exactly these sizes."""

    def head() -> int:
        codes, mu, sd = quantize_codes(normal(10, 768), 1)
        return 8 * pack_bits(codes, 1).nbytes + 8 * (mu.nbytes + sd.nbytes)

    former = AdaptFormerAdapter(768, 768, 1, bits=1)
    assert 12 * former.stored_bits + head() == 12 * bits_of(former.pack()) + head() == 27_712
    lora = LoraAdapter(768, 768, 32, bits=1)
    assert 12 * 2 * lora.stored_bits + head() == 12 * 2 * bits_of(lora.pack()) + head() == 1_190_464
    assert 27_712 == 8 * 3_464 and 1_190_464 == 8 * 148_808


@pytest.mark.parametrize(("width", "lora", "few_1", "few_16"), [(64, 2_048, 256, 2_176), (768, 24_576, 1_664, 24_704)])
def test_bits_of_a_square_layer(width: int, lora: int, few_1: int, few_16: int) -> None:
    assert LoraAdapter(width, width, 1).stored_bits == lora
    assert LoraAdapter(width, width, 1, bits=1).stored_bits == few_1
    assert LoraAdapter(width, width, 16, bits=1).stored_bits == few_16


def test_many_one_bit_columns_learn_what_one_cannot() -> None:
    target = torch.outer(normal(32, seed=1), normal(32, seed=2)) / 32
    losses = []
    for rank in (1, 16):
        adapter = LoraAdapter(32, 32, rank, bits=1, generator=generator(0))
        optimizer = torch.optim.Adam(adapter.parameters(), 1e-2)
        for _ in range(200):
            loss = (adapter.delta_weight() - target).square().sum() / target.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    # Signs share a fraction 2/pi of the squared norm with a Gaussian vector, here on both sides.
    assert losses[0] == pytest.approx(1 - (2 / math.pi) ** 2, abs=0.1)
    assert losses[1] < 0.45


# ---------------------------------------------------------------------- seeded
def test_random_keys_are_those_of_splitmix64() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [int(key) for key in random_keys(0, 4)] == published
    assert [int(key) for key in random_keys(0, 2, start=2)] == published[2:]
    assert len(set(random_keys(5, 10_000).tolist()) | set(random_keys(6, 10_000).tolist())) == 20_000


def columns(adapter: RandomSubspaceAdapter) -> np.ndarray:
    """P, shape (entries, size), from one unit vector after the other."""
    found = []
    for j in range(adapter.size):
        with torch.no_grad():
            adapter.theta.weight.zero_()
            adapter.theta.weight[j] = 1.0
        found.append(adapter.delta_weight().detach().double().numpy().ravel())
    return np.array(found).T


@pytest.mark.parametrize("size", [1, 3, 13, 40, 69, 70])
def test_the_subspace_is_orthonormal(size: int) -> None:
    projection = columns(RandomSubspaceAdapter(IN, OUT, size, 3, stored="float32"))
    np.testing.assert_allclose(projection.T @ projection, np.eye(size), atol=1e-6)
    assert (np.count_nonzero(projection, axis=1) == 1).all()
    counts = np.count_nonzero(projection, axis=0)
    assert counts.max() - counts.min() <= 1 or 2 * size < 70
    assert counts.max() - counts.min() <= 2
    assert (np.abs((projection > 0).sum(0) - (projection < 0).sum(0)) <= 1).all(), "signs are even too"


def test_the_subspace_belongs_to_the_seed() -> None:
    first, same, other = (columns(RandomSubspaceAdapter(IN, OUT, 9, s, stored="float32")) for s in (1, 1, 2**32 - 1))
    np.testing.assert_array_equal(first, same)
    assert (np.argmax(first != 0, axis=1) == np.argmax(other != 0, axis=1)).mean() < 0.4
    # Which entries share an angle does not depend on the machine or on the version of any library.
    pinned = RandomSubspaceAdapter(4, 2, 2, 0, stored="float32")
    order = sorted(range(8), key=lambda i: int(random_keys(0, 8)[i]))
    expected = np.zeros((8, 2))
    for rank, entry in enumerate(order):
        expected[entry, rank % 2] = (1 if rank % 4 < 2 else -1) / 2
    np.testing.assert_array_equal(columns(pinned), expected)


@pytest.mark.parametrize("bits", [None, 2])
def test_the_subspace_by_hand(bits: int | None) -> None:
    adapter = trained("subspace", bits=bits)
    assert isinstance(adapter, RandomSubspaceAdapter)
    theta = adapter.theta.weight.detach()
    projection = columns(RandomSubspaceAdapter(IN, OUT, 23, 0, stored="float32"))
    values = (to_half(theta) if bits is None else quantize_angles(theta, bits)).double().numpy()
    delta = adapter.delta_weight()
    np.testing.assert_allclose(delta.detach().numpy(), 2 * (projection @ values).reshape(OUT, IN), atol=1e-6)
    assert float(delta.detach().norm()) == pytest.approx(2 * np.linalg.norm(values), rel=1e-5)
    grad = normal(OUT, IN, seed=4)
    delta.backward(grad)
    slope = 2 * projection.T @ grad.double().numpy().ravel()
    assert adapter.theta.weight.grad is not None
    np.testing.assert_allclose(adapter.theta.weight.grad.numpy(), slope, atol=1e-5)


def test_vera_by_hand() -> None:
    adapter = trained("vera", bits=4)
    assert isinstance(adapter, VeraAdapter)
    b, d = (quantize_angles(part.weight.detach(), 4).double().numpy() for part in (adapter.b, adapter.d))
    second, first = adapter.fixed_b.double().numpy(), adapter.fixed_a.double().numpy()
    expected = -1.5 * np.diag(b) @ second @ np.diag(d) @ first
    np.testing.assert_allclose(adapter.delta_weight().detach().numpy(), expected, atol=1e-6)
    assert {name for name, _ in adapter.named_parameters()} == {"b.weight", "d.weight"}


def test_vera_starts_and_draws() -> None:
    adapter = VeraAdapter(300, 200, 150, 7, d_start=0.25)
    assert not adapter.b.weight.any() and torch.equal(adapter.d(), torch.full((150,), 0.25))
    assert torch.equal(VeraAdapter(5, 5, 2, 0).d.weight, torch.full((2,), 0.1))
    for matrix, fan in ((adapter.fixed_a, 300), (adapter.fixed_b, 150)):
        assert float(matrix.abs().max()) <= math.sqrt(6 / fan) + 1e-6
        assert float(matrix.mean()) == pytest.approx(0.0, abs=2e-3)
        assert float(matrix.var()) == pytest.approx(2 / fan, rel=0.03)
    key = int(random_keys(7, 1)[0])
    assert float(adapter.fixed_a[0, 0]) == pytest.approx((2 * key / 2**64 - 1) * math.sqrt(6 / 300), rel=1e-6)
    key = int(random_keys(7, 150 * 300 + 1)[-1])
    assert float(adapter.fixed_b[0, 0]) == pytest.approx((2 * key / 2**64 - 1) * math.sqrt(6 / 150), rel=1e-6)
    same, other = VeraAdapter(300, 200, 150, 7), VeraAdapter(300, 200, 150, 8)
    assert torch.equal(same.fixed_b, adapter.fixed_b) and not torch.equal(other.fixed_b, adapter.fixed_b)


def test_seeds_are_stored_and_taken_over() -> None:
    adapter = VeraAdapter(IN, OUT, 3, 2**32 - 1)
    stored = adapter.pack()
    assert stored["seed"].dtype == torch.uint32 and stored["seed"].tolist() == [2**32 - 1]
    other = VeraAdapter(IN, OUT, 3, 0)
    other.unpack(stored)
    assert other.seed == 2**32 - 1 and torch.equal(other.fixed_a, adapter.fixed_a)


def test_sixteen_bits_cost_what_they_say() -> None:
    assert VeraAdapter(768, 512, 256, 0).stored_bits == 16 * (512 + 256) + 32
    assert RandomSubspaceAdapter(768, 768, 256, 0).stored_bits == 16 * 256 + 32
    assert RandomSubspaceAdapter(768, 768, 256, 0, bits=3).stored_bits == 3 * 256 + 32 + 32


# ---------------------------------------------------------------------- refusals
RANKED: list[Maker] = [LoraAdapter, AdaptFormerAdapter, lambda i, o, rank, **k: VeraAdapter(i, o, rank, 0, **k)]
SEEDED: list[Maker] = [RandomSubspaceAdapter, VeraAdapter]
ANY: list[Maker] = [*RANKED, lambda i, o, size, **k: RandomSubspaceAdapter(i, o, size, 0, **k)]


@pytest.mark.parametrize("make", RANKED)
def test_ranks_fit_the_layer(make: Maker) -> None:
    with pytest.raises(QasError, match="rank is at most the smaller side of the layer, 7, got 8"):
        make(IN, OUT, 8)
    with pytest.raises(QasError, match="rank is at least 1, got 0"):
        make(IN, OUT, 0)
    for rank in (1.5, True, "8"):
        with pytest.raises(QasError, match=f"rank is a whole number, got {rank!r}"):
            make(IN, OUT, rank)


@pytest.mark.parametrize("make", ANY)
def test_what_all_refuse(make: Maker) -> None:
    assert make(IN, OUT, 1, scale=None).scale == make(IN, OUT, 1).scale == 1.0  # type: ignore[attr-defined]
    with pytest.raises(QasError, match="in_features is at least 1, got 0"):
        make(0, OUT, 1)
    with pytest.raises(QasError, match="out_features is a whole number, got 7.0"):
        make(IN, 7.0, 1)
    for scale in (math.nan, math.inf, "much"):
        with pytest.raises(QasError, match=f"scale is a finite number, got {scale!r}"):
            make(IN, OUT, 1, scale=scale)
    with pytest.raises(QasError, match="bits is a whole number from 1 to 8, got 9"):
        make(IN, OUT, 1, bits=9)
    for bits in (None, 2):
        with pytest.raises(UnknownNameError, match="unknown stored type 'float17'; did you mean 'float16'"):
            make(IN, OUT, 1, stored="float17", bits=bits)


@pytest.mark.parametrize("make", [LoraAdapter, AdaptFormerAdapter])
def test_what_bottlenecks_refuse(make: Maker) -> None:
    for bits in (None, 2):
        with pytest.raises(UnknownNameError, match="unknown norm 'l3'"):
            make(IN, OUT, 1, bits=bits, norm="l3")
    for dropout in (1.0, -0.1):
        with pytest.raises(QasError, match=f"dropout is at least 0 and below 1, got {dropout}"):
            make(IN, OUT, 1, dropout=dropout)
    with pytest.raises(QasError, match="dropout is a finite number, got nan"):
        make(IN, OUT, 1, dropout=math.nan)


@pytest.mark.parametrize("make", SEEDED)
def test_seeds_have_32_bits(make: Maker) -> None:
    with pytest.raises(QasError, match="seed is stored in 32 bits, got 4294967296"):
        make(IN, OUT, 3, 2**32)
    with pytest.raises(QasError, match="seed is at least 0, got -1"):
        make(IN, OUT, 3, -1)
    with pytest.raises(QasError, match="seed is a whole number, got None"):
        make(IN, OUT, 3, None)


def test_other_refusals() -> None:
    with pytest.raises(QasError, match="size is at most the number of entries of the layer, 70, got 71"):
        RandomSubspaceAdapter(IN, OUT, 71, 0)
    with pytest.raises(QasError, match="size is at least 1, got 0"):
        RandomSubspaceAdapter(IN, OUT, 0, 0)
    with pytest.raises(QasError, match="d_start is a finite number, got nan"):
        VeraAdapter(IN, OUT, 3, 0, d_start=math.nan)


# ---------------------------------------------------------------------- accelerator
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EVERY
def test_an_accelerator_stores_what_it_computed(name: str, form: dict[str, Any]) -> None:
    adapter, base, x = trained(name, **form).cuda(), frozen().cuda(), normal(6, IN, seed=3).cuda()
    expected = adapter(x, base)
    loaded = MAKERS[name](seed=12, **form).cuda()
    loaded.unpack(adapter.pack())
    assert torch.equal(loaded(x, base), expected)
    loaded(x, base).sum().backward()
    torch.testing.assert_close(loaded.cpu()(x.cpu(), base.cpu()), expected.cpu(), rtol=0, atol=1e-2)
