"""Circuit adapters: frames and rotations against dense matrices, storing, merging, and every way autograd is used."""

from __future__ import annotations

import copy
import io
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import qas
from qas.adapters.architecture import Architecture, layout, quantum_peft
from qas.adapters.base import Adapter, DeltaAdapter
from qas.adapters.circuit import (
    CircuitAdapter,
    FrameAdapter,
    MapBank,
    RotationAdapter,
    TaylorAdapter,
    fused_relative,
    share_maps,
    start_offsets,
)
from qas.adapters.packed import Inbox, JointForm, PackedAdapter
from qas.errors import QasError

CIRCUIT = qas.Circuit(5, [("ry", q, 0.0) for q in range(5)] + [("cx", (0, 3)), ("cz", (1, 4)), ("ry", 3, 0.0)])
COMPLEX = qas.Circuit(4, [("rx", q, 0.0) for q in range(4)] + [("cx", (0, 3)), ("rz", 3, 0.0), ("ryy", (1, 2), 0.0)])
STILL = qas.Circuit(5, [("cx", (0, 3)), ("x", 1)])
MAKERS: dict[str, Callable[..., Adapter]] = {
    "frames": lambda **k: CircuitAdapter(24, 32, rank=4, layers=2, generator=generator(), **k),
    "found": lambda **k: CircuitAdapter(32, 32, CIRCUIT, rank=4, generator=generator(), **k),
    "complex": lambda **k: CircuitAdapter(32, 20, COMPLEX, rank=4, generator=generator(), **k),
    "still": lambda **k: CircuitAdapter(32, 32, STILL, rank=4, generator=generator(), **k),
    "taylor": lambda **k: TaylorAdapter(24, 20, rank=4, intrinsic_rank=2, generator=generator(), **k),
    "rotation": lambda **k: RotationAdapter(24, 20, layers=2, **k),
    "rotation-output": lambda **k: RotationAdapter(20, 44, layers=1, side="output", **k),
    "rotation-part": lambda **k: RotationAdapter(29, 20, **k),
    "rotation-complex": lambda **k: RotationAdapter(32, 20, COMPLEX, **k),
}
EVERY = pytest.mark.parametrize("name", list(MAKERS))
BITS = pytest.mark.parametrize("bits", [None, 3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def linear(adapter: Adapter, dtype: torch.dtype = torch.float32) -> nn.Linear:
    base = nn.Linear(adapter.in_features, adapter.out_features, dtype=dtype)
    with torch.no_grad():
        base.weight.copy_(normal(*base.weight.shape, seed=3) / math.sqrt(adapter.in_features))
        base.bias.copy_(normal(adapter.out_features, seed=4))
    return base.requires_grad_(False)


def moved(adapter: Any, scale: float = 0.3) -> Any:
    """Away from the start."""
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.add_(scale * normal(*parameter.shape, seed=7 + number))
    return adapter


class Chain(nn.Module):
    """Square adapted layers one after the other, checkpointed in one of torch's two ways or not at all."""

    def __init__(self, adapters: list[Any], way: str = "plain") -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)
        self.base = linear(adapters[0])
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        for adapter in self.adapters:

            def step(value: Tensor, adapter: Any = adapter) -> Tensor:
                return torch.tanh(adapter(value, self.base))

            x = step(x) if self.way == "plain" else checkpoint(step, x, use_reentrant=self.way == "reentrant")
        return x

    def gradients(self) -> list[Tensor]:
        found = [p.grad.clone() for p in self.adapters.parameters() if p.grad is not None]
        self.zero_grad()
        return found


def chain(way: str = "plain", *, share: bool = True, bits: int | None = None, count: int = 3) -> Chain:
    adapters = [
        moved(CircuitAdapter(32, 32, layers=2, rank=4, bits=bits, generator=generator(k))) for k in range(count)
    ]
    if share:
        share_maps(adapters)
    return Chain(adapters, way)


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


def close(a: list[Tensor], b: list[Tensor], atol: float = 1e-6) -> None:
    assert len(a) == len(b) > 0
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, atol=atol, rtol=1e-5)


# ---------------------------------------------------------------------- what they compute
def test_a_frame_adapter_adds_the_scaled_product_of_its_frames() -> None:
    adapter = moved(CircuitAdapter(24, 32, layers=2, rank=4, scale=1.7, generator=generator()))
    (left, left_angles), (right, right_angles) = adapter.sides()
    u = left.program.matrix(left_angles.detach().double().numpy())[:, :4]
    v = right.program.matrix(right_angles.detach().double().numpy())[:, :4]
    wanted = 1.7 * u @ np.diag(adapter.values.detach().numpy()) @ v.T
    np.testing.assert_allclose(adapter.delta_weight().detach().numpy(), wanted, atol=1e-6)
    x = normal(2, 5, 24)
    np.testing.assert_allclose(adapter.delta(x).detach().numpy(), x.numpy() @ wanted.T, atol=1e-5)


def test_parameters_are_counted_as_published() -> None:
    for q, layers, rank in ((12, 2, 8), (10, 3, 4), (6, 1, 1)):
        adapter = CircuitAdapter(1 << q, 1 << q, layers=layers, rank=rank)
        assert sum(p.numel() for p in adapter.parameters()) == 2 * ((2 * layers + 1) * q - 2 * layers) + rank
    taylor = TaylorAdapter(1024, 1024, intrinsic_rank=1, rank=1)
    assert len(taylor.angles) + 1 == 2 * 1024 - 1


def test_the_taylor_frame_is_the_exponential_of_a_skew_matrix() -> None:
    adapter = TaylorAdapter(24, 20, rank=5, intrinsic_rank=3, generator=generator()).double()
    entries = adapter.angles.detach().numpy()
    for frame, features, start in zip(adapter.frames(), (20, 24), (0, 20 * 3 - 6), strict=True):
        lower = np.zeros((features, features))
        taken = entries[start : start + features * 3 - 6]
        lower[np.tril_indices(features, -1, 3)] = taken
        wanted = scipy.linalg.expm(lower - lower.T)[:, :5]
        np.testing.assert_allclose(frame.detach().numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("norm", [0.0, 1e-3, 1.0, 6.0, 1e3])
def test_the_taylor_frame_is_orthonormal_at_any_size(norm: float) -> None:
    """At small norms it is the truncated series of the paper; gradients are finite everywhere."""
    adapter = TaylorAdapter(64, 48, rank=8, intrinsic_rank=2, generator=generator())
    with torch.no_grad():
        adapter.angles.mul_(norm / adapter.angles.norm())
    u, v = adapter.frames()
    for frame in (u, v):
        assert largest(frame.T @ frame - torch.eye(8)) <= 1e-5
    (u.sum() + v.square().sum()).backward()
    assert adapter.angles.grad is not None and torch.isfinite(adapter.angles.grad).all()
    if norm <= 1:
        lower = torch.zeros(48, 48)
        lower[tuple(torch.tril_indices(48, 2, -1))] = adapter.angles.detach()[: 48 * 2 - 3]
        skew, series, term = lower - lower.T, torch.eye(48), torch.eye(48)
        for order in range(1, 19):
            term = skew @ term / order
            series = series + term
        torch.testing.assert_close(u, series[:, :8], atol=1e-6, rtol=0)


@pytest.mark.parametrize("features", [64, 96, 352, 1024])
def test_frames_are_orthonormal(features: int) -> None:
    makers: list[Callable[[], FrameAdapter]] = [
        lambda: CircuitAdapter(features, features, layers=3, rank=8, generator=generator()),
        lambda: TaylorAdapter(features, features, rank=8, generator=generator()),
    ]
    for make in makers:
        for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
            for frame in make().to(dtype).frames():
                assert frame.dtype == dtype
                assert largest(frame.T @ frame - torch.eye(8, dtype=dtype)) <= bound


def test_padded_sides_keep_the_first_rows() -> None:
    adapter = CircuitAdapter(19, 37, rank=19, generator=generator())
    u, v = adapter.frames()
    assert (u.shape, v.shape) == ((37, 19), (19, 19))
    assert float(torch.linalg.matrix_norm(v.detach(), 2)) <= 1 + 1e-5


@EVERY
@BITS
def test_the_start_changes_nothing(name: str, bits: int | None) -> None:
    adapter = MAKERS[name](bits=bits)
    base = linear(adapter)
    x = normal(3, 7, adapter.in_features)
    difference = largest(adapter(x, base) - base(x))
    exact = name not in ("rotation", "rotation-complex")
    assert difference == 0.0 if exact else difference < 2e-6
    assert adapter.merged(base.weight).equal(base.weight) or not exact


def test_a_rotation_that_needs_no_offset_starts_exactly_at_the_identity() -> None:
    for layers, features in ((0, 32), (1, 32), (1, 48)):
        adapter = RotationAdapter(features, 8, layers=layers)
        assert start_offsets(adapter.architecture) is None
        base, x = linear(adapter), normal(5, features)
        assert adapter.merged(base.weight).equal(base.weight)
        torch.testing.assert_close(adapter(x, base), base(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("features", [32, 24, 29])
def test_a_rotation_multiplies_the_weight_by_an_orthogonal_matrix(side: str, features: int) -> None:
    sides = (features, 20) if side == "input" else (20, features)
    adapter = moved(RotationAdapter(*sides, layers=2, side=side)).double()
    eye = torch.eye(features, dtype=torch.float64)
    matrix = adapter._rotate(eye).T
    assert largest(matrix.T @ matrix - eye) <= 1e-12
    size = layout(features, exact=True).size
    off = (matrix - eye).detach().abs()
    assert float(off[size:].sum()) == 0.0 and float(off.max()) > 0.01
    base = linear(adapter, torch.float64)
    wanted = base.weight @ matrix if side == "input" else matrix @ base.weight
    torch.testing.assert_close(adapter.merged(base.weight), wanted, atol=1e-12, rtol=0)
    x = normal(3, sides[0], dtype=torch.float64)
    torch.testing.assert_close(adapter(x, base), x @ wanted.T + base.bias, atol=1e-12, rtol=0)


def numerical_rank(adapter: RotationAdapter) -> int:
    """Rank of the Jacobian at the start, by central differences."""
    eye = torch.eye(adapter.size, dtype=torch.float64)
    steps = 1e-5 * torch.eye(len(adapter.angles), dtype=torch.float64)
    rows = [(adapter.rotation(step, eye) - adapter.rotation(-step, eye)).reshape(-1) / 2e-5 for step in steps]
    return int(torch.linalg.matrix_rank(torch.stack(rows), atol=1e-5))


@pytest.mark.parametrize(("features", "layers"), [(16, 2), (64, 2), (64, 4), (48, 2), (80, 3)])
def test_offsets_make_nearly_all_directions_differ_at_the_start(features: int, layers: int) -> None:
    adapter = RotationAdapter(features, features, layers=layers)
    architecture = adapter.architecture
    # Givens rotations between levels of equal parity commute with every Clifford gate: each but the first repeats.
    m, turns = architecture.odd, sum(name == "so" for name, _ in architecture.gates)
    repeated = max(0, turns - 1) * sum((a ^ b) & 1 == 0 for b in range(m) for a in range(b))
    rank = numerical_rank(adapter)
    assert architecture.tangent_rank < architecture.n_angles - repeated
    assert architecture.n_angles - repeated - 1 <= rank <= architecture.n_angles - repeated
    assert fused_relative(architecture) is adapter.rotation


def test_a_layer_without_tokens_passes() -> None:
    for name in MAKERS:
        adapter = MAKERS[name]()
        base = linear(adapter)
        for shape in ((0,), (2, 0)):
            assert adapter(torch.zeros(*shape, adapter.in_features), base).shape == (*shape, adapter.out_features)
        assert adapter(torch.zeros(adapter.in_features), base).shape == (adapter.out_features,)


# ---------------------------------------------------------------------- merging
@EVERY
@pytest.mark.parametrize("bits", [None, 4])
def test_merged_layers_do_the_same_and_unmerging_restores_the_weight(name: str, bits: int | None) -> None:
    adapter = moved(MAKERS[name](bits=bits))
    if isinstance(adapter, FrameAdapter):
        with torch.no_grad():
            adapter.values.mul_(0.2)
    base = linear(adapter)
    x = normal(9, adapter.in_features)
    merged = linear(adapter)
    with torch.no_grad():
        merged.weight.copy_(adapter.merged(base.weight))
    assert largest(merged.weight - base.weight) > 1e-3
    torch.testing.assert_close(adapter(x, base), merged(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(adapter.unmerged(merged.weight), base.weight, atol=1e-6, rtol=0)


@EVERY
def test_merging_keeps_the_dtype_and_float64_weights_lose_nothing(name: str) -> None:
    adapter = moved(MAKERS[name]())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        weight = linear(adapter, dtype).weight
        merged = adapter.merged(weight)
        assert merged.dtype == dtype and not merged.requires_grad
    torch.testing.assert_close(adapter.unmerged(merged), weight, atol=1e-14, rtol=0)


# ---------------------------------------------------------------------- storing
@EVERY
@pytest.mark.parametrize("bits", [None, 1, 3, 8])
def test_storing_and_reading_change_no_output(name: str, bits: int | None) -> None:
    adapter = moved(MAKERS[name](bits=bits))
    base, x = linear(adapter), normal(4, adapter.in_features)
    before = adapter(x, base)
    stored = adapter.pack()
    bits_in_file = 8 * sum(t.numel() * t.itemsize for t in stored.values())
    assert adapter.stored_bits <= bits_in_file < adapter.stored_bits + 8
    other = moved(MAKERS[name](bits=bits), 2.0)
    other.unpack(stored)
    assert other(x, base).equal(before)
    again = other.pack()
    assert set(again) == set(stored) and all(again[key].equal(stored[key]) for key in stored)
    adapter.unpack(stored)
    assert adapter(x, base).equal(before)


def test_bits_of_the_published_sizes_are_the_published_ones() -> None:
    for features, layers, wanted in ((64, 1, 416), (64, 4, 896), (128, 2, 656), (1024, 1, 608), (4096, 4, 1760)):
        adapter = CircuitAdapter(features, features, layers=layers, rank=8, bits=8)
        assert adapter.stored_bits == wanted == 8 * adapter.pack()["packed"].numel()


@EVERY
@BITS
def test_damaged_stored_forms_are_refused_and_change_nothing(name: str, bits: int | None) -> None:
    adapter = moved(MAKERS[name](bits=bits))
    before = [p.detach().clone() for p in adapter.parameters()]
    stored = adapter.pack()
    key = sorted(stored)[0]
    damaged: list[dict[str, Tensor]] = [
        {},
        stored | {"else": torch.zeros(1)},
        stored | {key: torch.cat([stored[key], stored[key][:1], torch.zeros(1, dtype=stored[key].dtype)])},
        stored | {key: stored[key].to(torch.float64)},
    ]
    if bits is None:
        last = sorted(stored)[-1]
        damaged.append(stored | {last: torch.full_like(stored[last], math.nan)} if stored[last].numel() else {})
    else:
        damaged.append({"packed": torch.full_like(stored["packed"], 255)})
    for tensors in damaged:
        with pytest.raises(QasError) as caught:
            adapter.unpack(tensors)
        assert "\n" not in str(caught.value)
    assert all(p.equal(b) for p, b in zip(adapter.parameters(), before, strict=True))


def test_values_that_are_not_finite_are_not_stored() -> None:
    for bits in (None, 4):
        adapter = CircuitAdapter(16, 16, rank=2, bits=bits)
        with torch.no_grad():
            adapter.angles[0] = math.nan
        with pytest.raises(QasError, match="finite"):
            adapter.pack()
        adapter = CircuitAdapter(16, 16, rank=2, bits=bits)
        with torch.no_grad():
            assert adapter.values is not None
            adapter.values[0] = math.inf
        with pytest.raises(QasError, match="finite"):
            adapter.pack()


def lay(adapter: Any, packed: Tensor, way: str = "set") -> None:
    """As transformers lays tensors by name, which nobody sees before the next use, or as ``load_state_dict`` does."""
    if way == "set":
        adapter.packed = packed.clone()
    else:
        adapter.load_state_dict({"packed": packed}, strict=False, assign=way == "assigned")


@pytest.mark.parametrize("joint", [True, False])
def test_a_stored_form_laid_into_the_inbox_is_taken_over_once(joint: bool) -> None:
    sources = {name: moved(MAKERS["frames"](bits=3), scale) for name, scale in (("b", 0.3), ("a", 0.5))}
    base, x = linear(sources["a"]), normal(4, 24)
    for way in ("copied", "assigned", "set"):
        targets = {name: MAKERS["frames"](bits=3) for name in sources}
        for layers in [targets] if joint else [{name: target} for name, target in targets.items()]:
            Inbox(layers, joint)
        forms = {name: source.pack()["packed"] for name, source in sources.items()}
        laid = {"a": JointForm(targets).join(forms)} if joint else forms
        start = {name: target(x, base) for name, target in targets.items()}
        for name, packed in laid.items():
            lay(targets[name], packed, way)
        if way == "set":
            assert targets["b"].state_dict()["angles"].equal(sources["b"].current_angles())
        for name, source in sources.items():
            assert targets[name](x, base).equal(source(x, base)) and not start[name].equal(source(x, base))
        assert not any(targets[name].packed.any() for name in laid)
        with torch.no_grad():
            targets["b"].angles.add_(0.5)
        assert not targets["b"](x, base).equal(sources["b"](x, base))
        copied = MAKERS["frames"](bits=3)
        copied.load_state_dict(copy.deepcopy(sources["b"]).state_dict())
        assert copied(x, base).equal(sources["b"](x, base))


@pytest.mark.parametrize("mode", [True, False])
def test_a_stored_form_is_taken_over_when_the_mode_is_set_as_compiled_layers_cannot(mode: bool) -> None:
    source, target = moved(MAKERS["frames"](bits=3), 0.3), MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    lay(target, source.pack()["packed"])
    assert target.train(mode).training == mode and not target.packed.any()
    assert target.rounded("angles", target.angles).equal(source.current_angles())


def test_a_stored_form_is_seen_where_an_earlier_tensor_was() -> None:
    source, target = moved(MAKERS["frames"](bits=3), 0.3), MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    packed, first = source.pack()["packed"], id(target.packed)
    # What is laid there is moved before anybody looks, to where the first, empty one was if that is free again.
    target._buffers["packed"] = packed
    held = [packed.clone() for _ in range(100)]
    target._buffers["packed"] = next((tensor for tensor in held if id(tensor) == first), held[-1])
    assert target.current_angles().equal(source.current_angles())


def test_a_stored_form_is_taken_over_by_one_of_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = moved(MAKERS["frames"](bits=3), 0.3), MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    lay(target, source.pack()["packed"])
    take, other = PackedAdapter.take, threading.Thread(target=target.current_angles)

    def slow(adapter: Any, values: dict[str, Tensor]) -> None:
        if other.ident is None:
            other.start()
            other.join(0.1)  # long enough to take it over, too, and to empty the place
        take(adapter, values)

    monkeypatch.setattr(PackedAdapter, "take", slow)
    assert target.current_angles().equal(source.current_angles())
    other.join()


def test_a_stored_form_waits_until_there_are_parameters() -> None:
    source, target = moved(MAKERS["frames"](bits=3), 0.3), MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    target.to("meta").load_state_dict(source.pack(), strict=False, assign=True)
    assert target.eval().packed.equal(source.pack()["packed"])


@pytest.mark.parametrize("way", ["copied", "assigned"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's own
def test_compiled_layers_compute_with_what_was_loaded(way: str) -> None:
    sources = {name: moved(MAKERS["frames"](bits=3), scale) for name, scale in (("b", 0.3), ("a", 0.5))}
    targets = {name: MAKERS["frames"](bits=3) for name in sources}
    Inbox(targets)
    base, x = linear(sources["a"]), normal(4, 24)
    torch._dynamo.reset()
    compiled = torch.compile(targets["b"], backend="eager", fullgraph=True)
    with torch.no_grad():
        before = compiled(x, base)
        lay(targets["a"], JointForm(targets).join({k: source.pack()["packed"] for k, source in sources.items()}), way)
        found, wanted = compiled(x, base), sources["b"](x, base)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert largest(before - wanted) > 0.1


@pytest.mark.parametrize("way", ["assigned", "given", "inference"])
def test_the_tensor_that_was_laid_stays_as_it_is(way: str) -> None:
    source, target = moved(MAKERS["frames"](bits=3), 0.3), MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    with torch.inference_mode(way == "inference"):
        packed = source.pack()["packed"].clone()
    if way == "assigned":
        target.load_state_dict({"packed": packed}, strict=False, assign=True)
    else:
        target.packed = packed
    assert target.current_angles().equal(source.current_angles())
    assert packed.equal(source.pack()["packed"]) and not target.packed.any()


def test_loaded_angles_replace_what_still_waits_in_the_inbox() -> None:
    sources = [moved(MAKERS["frames"](bits=3), scale) for scale in (0.3, 0.5)]
    target = MAKERS["frames"](bits=3)
    Inbox({"a": target}, joint=False)
    lay(target, sources[0].pack()["packed"])
    target.load_state_dict(sources[1].state_dict(), strict=False)
    assert target.eval().angles.equal(sources[1].angles)


@pytest.mark.parametrize("way", ["copied", "set"])
def test_a_stored_form_that_cannot_be_taken_over_changes_nothing_and_is_refused_until_another_comes(way: str) -> None:
    sources = {name: moved(MAKERS["frames"](bits=3), scale) for name, scale in (("b", 0.3), ("a", 0.5))}
    targets = {name: MAKERS["frames"](bits=3) for name in sources}
    Inbox(targets)
    forms = {name: source.pack()["packed"] for name, source in sources.items()}
    good, bad = JointForm(targets).join(forms), JointForm(targets).join(forms | {"b": torch.full_like(forms["b"], 255)})
    start = targets["a"].angles.detach().clone()
    for _ in range(2):
        with pytest.raises(QasError, match="must be finite"):
            lay(targets["a"], bad, way)
            targets["b"].eval()
    assert targets["a"].angles.equal(start)
    held = targets["b"].angles.data
    targets["b"].angles.data = torch.empty(0)  # as where each process has a part
    with pytest.raises(QasError, match="loaded before their parameters are sharded"):
        lay(targets["a"], good, way)
        targets["a"].eval()
    targets["b"].angles.data = held
    assert all(targets[name].current_angles().equal(source.current_angles()) for name, source in sources.items())


def test_a_joint_form_knows_its_layers_and_its_bytes() -> None:
    adapters = {name: moved(MAKERS["frames"](bits=3), 0.1 * k) for k, name in enumerate("cab")}
    forms = {name: adapter.pack()["packed"] for name, adapter in adapters.items()}
    form = JointForm(adapters)
    joint = form.join(forms)
    assert joint.dtype == torch.uint8 and len(joint) == form.size == 12 + sum(a.packed_size for a in adapters.values())
    assert joint[12:].equal(torch.cat([forms["a"], forms["b"], forms["c"]]))
    assert all(found.equal(forms[name]) for name, found in JointForm(adapters).split(joint).items())
    for other in ({"x" + name: adapter for name, adapter in adapters.items()}, dict.fromkeys("ab", adapters["a"])):
        words = "of layers with other names or settings|bytes of type torch.uint8, got shape"
        with pytest.raises(QasError, match=words):
            JointForm(other).split(joint)
    for place in range(len(joint)):
        broken = joint.clone()
        broken[place] ^= 4
        with pytest.raises(QasError, match="other names or settings" if place < 8 else "these are damaged"):
            form.split(broken)


# ---------------------------------------------------------------------- gradients
@EVERY
def test_gradients_are_finite_differences(name: str) -> None:
    adapter = moved(MAKERS[name]()).double()
    base = linear(adapter, torch.float64)
    x = normal(3, adapter.in_features, dtype=torch.float64).requires_grad_()
    target = normal(3, adapter.out_features, seed=5, dtype=torch.float64)
    parameters = [p for p in adapter.parameters() if p.numel()]

    def loss() -> Tensor:
        return (adapter(x, base) * target).sum()

    found = torch.autograd.grad(loss(), [x, *parameters])
    for tensor, gradient in zip([x, *parameters], found, strict=True):
        flat = tensor.detach().reshape(-1)
        for k in range(0, flat.numel(), max(1, flat.numel() // 12)):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    flat[k] += sign * 1e-6
                    values.append(float(loss()))
                    flat[k] -= sign * 1e-6
            assert float(gradient.reshape(-1)[k]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def test_at_the_start_the_singular_values_alone_have_a_gradient() -> None:
    adapter = MAKERS["frames"]()
    adapter(normal(4, 24), linear(adapter)).square().sum().backward()
    assert adapter.angles.grad.abs().max() == 0 and adapter.values.grad.abs().min() > 0


@pytest.mark.parametrize("bits", [None, 3])
@pytest.mark.parametrize("way", ["plain", "reentrant", "not reentrant"])
def test_shared_frames_and_checkpoints_give_the_gradients_of_plain_layers(way: str, bits: int | None) -> None:
    x, target = normal(6, 32).requires_grad_(), normal(6, 32, seed=1)
    alone, shared = chain(share=False, bits=bits), chain(way, bits=bits)
    for _ in range(2):
        for model in (alone, shared):
            (model(x) * target).sum().backward()
        close(shared.gradients(), alone.gradients())


@pytest.mark.parametrize("way", ["plain", "reentrant", "not reentrant"])
def test_gradients_accumulate_over_any_order_of_passes(way: str) -> None:
    inputs = [normal(6, 32, seed=k).requires_grad_() for k in range(2)]
    alone, shared = chain(share=False), chain(way)
    for x in inputs:  # micro-batches
        alone(x).square().sum().backward()
    wanted = alone.gradients()
    for x in inputs:
        shared(x).square().sum().backward()
    close(shared.gradients(), wanted)
    outputs = [shared(x).square().sum() for x in inputs]  # two forward passes, one backward pass
    torch.stack(outputs).sum().backward()
    close(shared.gradients(), wanted)
    outputs = [shared(x).square().sum() for x in inputs]  # two forward passes, a backward pass each
    for loss in outputs:
        loss.backward()
    close(shared.gradients(), wanted)


def test_two_losses_of_one_pass_can_go_back_separately() -> None:
    alone, shared = chain(share=False), chain()
    x = normal(6, 32)
    for model in (alone, shared):
        y = model(x)
        y[:3].sum().backward(retain_graph=True)
        y[3:].square().sum().backward()
    close(shared.gradients(), alone.gradients())


def test_training_with_shared_frames_is_training_without() -> None:
    found = []
    for share in (False, True):
        model = chain(share=share)
        optimizer = torch.optim.AdamW(model.adapters.parameters(), lr=0.01, fused=True)
        losses = []
        for step in range(5):
            loss = (model(normal(6, 32, seed=step)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                losses.append(float(model(normal(6, 32)).sum()))
        found.append(losses)
    assert len(set(found[0])) == 10
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


# ---------------------------------------------------------------------- the cache of frames
def test_frames_are_computed_once_as_long_as_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, model, x = counted(monkeypatch), chain(), normal(6, 32)
    with torch.no_grad():
        for _ in range(3):
            model(x)
    assert len(calls) == 1
    model(x).sum().backward()
    assert len(calls) == 2
    model(x)
    assert len(calls) == 3


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda a: a.angles.add_(0.3),
    "behind the version": lambda a: a.angles.data.add_(0.3),
    "new data": lambda a: setattr(a.angles, "data", a.angles.data + 0.3),
    "new parameter": lambda a: setattr(a, "angles", nn.Parameter(a.angles.detach() + 0.3)),
    "read": lambda a: a.unpack(a.pack() | {"angles": a.angles.detach() + 0.3}),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_changed_angles_are_noticed(change: str) -> None:
    for grad in (False, True):
        model = chain()
        x = normal(6, 32)
        with torch.set_grad_enabled(grad):
            before = model(x)
            with torch.no_grad():
                CHANGES[change](model.adapters[1])
            after = model(x)
        twin = Chain([copy.deepcopy(a) for a in model.adapters])
        assert not after.equal(before)
        torch.testing.assert_close(after, twin(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", ["in place", "behind the version", "new data"])
def test_changed_singular_values_are_noticed_where_they_are_rounded_with_the_angles(way: str) -> None:
    model, x = chain(bits=8), normal(6, 32)
    with torch.no_grad():
        before = model(x)
        values = model.adapters[1].values
        if way == "in place":
            values.add_(0.5)
        elif way == "behind the version":
            values.data.add_(0.5)
        else:
            values.data = values.data + 0.5
        after = model(x)
        twin = Chain([copy.deepcopy(a) for a in model.adapters])
        assert not after.equal(before)
        torch.testing.assert_close(after, twin(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", [None, 8])
def test_where_a_look_would_wait_changes_that_torch_is_told_of_are_noticed(
    bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qas.adapters.circuit.readable", lambda tensor: False)  # as on an accelerator
    calls, model, x = counted(monkeypatch), chain(bits=bits), normal(6, 32)
    with torch.no_grad():
        for name in ("angles", "values"):
            before = model(x)
            count = len(calls)
            assert model(x).equal(before) and len(calls) == count
            parameter = getattr(model.adapters[1], name)
            parameter.data.add_(0.3)
            torch.autograd.graph.increment_version(parameter)
            after = model(x)
            twin = Chain([copy.deepcopy(a) for a in model.adapters])
            assert not after.equal(before)
            torch.testing.assert_close(after, twin(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", [None, 8])
def test_where_a_look_would_wait_nothing_is_kept_of_what_inference_made(
    bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qas.adapters.circuit.readable", lambda tensor: False)  # as on an accelerator
    calls, x = counted(monkeypatch), normal(6, 32)
    with torch.inference_mode():
        model = chain(bits=bits)
        for name in ("angles", "values"):
            before = model(x)
            getattr(model.adapters[1], name).add_(0.3)
            after = model(x)
            assert not after.equal(before)
            torch.testing.assert_close(after, Chain([copy.deepcopy(a) for a in model.adapters])(x), atol=1e-6, rtol=0)
    assert not calls


def test_memory_given_to_new_angles_does_not_bring_old_frames_back() -> None:
    adapter = moved(CircuitAdapter(16, 16, rank=2, generator=generator()))
    with torch.no_grad():
        for k in range(20):
            adapter.angles.data = normal(len(adapter.angles), seed=k)
            (architecture, angles), _ = adapter.sides()
            wanted = architecture.program.matrix(angles.numpy())[:, :2]
            np.testing.assert_allclose(adapter.frames()[0].numpy(), wanted, atol=1e-6)


def test_frames_of_evaluation_do_not_leak_into_training() -> None:
    model, x = chain(), normal(6, 32)
    with torch.inference_mode():
        model(x)
    with torch.no_grad():
        model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.adapters.parameters())
    model.adapters.requires_grad_(False)
    with torch.inference_mode():
        model(x)
    free = x.clone().requires_grad_()
    model(free).sum().backward()
    assert free.grad is not None


def test_frozen_adapters_share_a_bank_with_trained_ones() -> None:
    model = chain()
    model.adapters[1].requires_grad_(False)
    alone = chain(share=False)
    alone.adapters[1].requires_grad_(False)
    x = normal(6, 32)
    for each in (model, alone):
        each(x).square().sum().backward()
        assert each.adapters[1].angles.grad is None
    close(model.gradients(), alone.gradients())


def test_banks_hold_different_sizes_and_precisions() -> None:
    adapters = [
        moved(CircuitAdapter(16, 32, rank=2, generator=generator(0))),
        moved(CircuitAdapter(32, 16, rank=3, generator=generator(1))),
        moved(CircuitAdapter(24, 24, rank=2, bits=4, generator=generator(2))),
        moved(CircuitAdapter(16, 32, rank=2, generator=generator(3))).double(),
        TaylorAdapter(16, 16, rank=2),
    ]
    wanted = [a.delta_weight().detach() for a in adapters]
    share_maps(adapters)
    assert len({id(a.bank) for a in adapters[:4]}) == 1  # type: ignore[attr-defined]
    for adapter, weight in zip(adapters, wanted, strict=True):
        assert adapter.delta_weight().equal(weight)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each batch of a bank."""
    calls: list[int] = []
    compute = MapBank._compute
    monkeypatch.setattr(MapBank, "_compute", lambda self: (calls.append(1), compute(self))[1])
    return calls


def test_a_checkpointed_step_makes_its_matrices_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients in the forward pass, and with them when the first block is computed again."""
    calls, model, x = counted(monkeypatch), chain("reentrant", count=6), normal(6, 32).requires_grad_()
    for step in range(1, 3):
        model(x).sum().backward()
        model.gradients()
        with torch.no_grad():
            for adapter in model.adapters:
                adapter.angles.add_(0.1)
        assert len(calls) == 2 * step


def test_replicas_and_threads_make_their_own() -> None:
    model, x = chain(), normal(6, 32)
    wanted = model(x)
    wanted.sum().backward()
    gradients = model.gradients()
    replicas = copy.copy(model)
    replicas._modules = dict(model._modules)
    replicas.adapters = nn.ModuleList(a._replicate_for_data_parallel() for a in model.adapters)  # type: ignore[operator]
    for replica, adapter in zip(replicas.adapters, model.adapters, strict=True):
        for name, parameter in adapter.named_parameters():
            setattr(replica, name, parameter * 1.0)
    found = replicas(x)
    assert found.equal(wanted)
    found.sum().backward()
    close(model.gradients(), gradients)
    results: list[Any] = []

    def work(grad: bool) -> None:
        for _ in range(20):
            with torch.set_grad_enabled(grad):
                value = model(x)
            results.append(value.detach().equal(wanted))
            if grad:
                torch.autograd.grad(value.sum(), list(model.adapters.parameters()))

    threads = [threading.Thread(target=work, args=(k > 0,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 60


# ---------------------------------------------------------------------- transforms of torch
TRACED = pytest.mark.parametrize("make", [
    pytest.param(lambda bits: chain(bits=bits, count=2), id="frames"),
    pytest.param(lambda bits: Chain([moved(RotationAdapter(32, 32, layers=1, bits=bits))]), id="rot"),
])  # fmt: skip


@TRACED
@pytest.mark.parametrize("bits", [3])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's own
def test_compiled_without_breaks_the_gradients_are_the_same(make: Callable[[Any], Chain], bits: int | None) -> None:
    model, x = make(bits), normal(6, 32)
    model(x).square().sum().backward()
    wanted = model.gradients()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        compiled(x).square().sum().backward()
        close(model.gradients(), wanted, atol=2e-5)


@TRACED
@BITS
def test_gradients_of_single_samples_come_from_vmap(make: Callable[[Any], Chain], bits: int | None) -> None:
    model, x = make(bits), normal(4, 32)
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(held: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, held, (sample[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for k in range(len(x)):
        model(x[k : k + 1]).square().sum().backward()
        for name, parameter in model.named_parameters():
            if name in found:
                assert parameter.grad is not None
                torch.testing.assert_close(found[name][k], parameter.grad, atol=2e-5, rtol=1e-4)
        model.zero_grad()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("way", ["plain", "reentrant", "not reentrant"])
@TRACED
@BITS
def test_cuda_does_what_the_processor_does(make: Callable[[Any], Chain], bits: int | None, way: str) -> None:
    model, x = make(bits), normal(6, 32)
    model.way = way
    share_maps(model.adapters)  # type: ignore[arg-type]
    other = copy.deepcopy(model).cuda()
    share_maps(other.adapters)  # type: ignore[arg-type]
    for _ in range(2):
        found = []
        for one, data in ((model, x.clone()), (other, x.cuda())):
            data.requires_grad_()
            one(data).square().sum().backward()
            found.append([g.cpu() for g in one.gradients()])
        close(found[1], found[0], atol=2e-5)
        with torch.no_grad():
            for one in (model, other):
                for adapter in one.adapters:
                    adapter.angles.add_(0.1)
    torch.set_float32_matmul_precision("high")
    try:
        for one, wanted in zip(other.adapters, model.adapters, strict=True):
            for matrix, reference in zip(one.matrices(), wanted.matrices(), strict=True):
                assert largest(matrix.cpu() - reference) < 1e-6
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------------- copies, modes, precisions
@EVERY
@BITS
def test_copies_and_pickles_compute_the_same_for_themselves(name: str, bits: int | None) -> None:
    adapter = moved(MAKERS[name](bits=bits))
    share_maps([adapter])
    base, x = linear(adapter), normal(3, adapter.in_features)
    wanted = adapter(x, base)
    stream = io.BytesIO()
    torch.save(adapter, stream)
    stream.seek(0)
    for other in (copy.deepcopy(adapter), torch.load(stream, weights_only=False)):
        assert other(x, base).equal(wanted)
        moved(other, 1.0)
        assert adapter(x, base).equal(wanted)
        assert isinstance(other, CircuitAdapter) is isinstance(adapter, CircuitAdapter)
        if isinstance(other, CircuitAdapter):
            assert other.bank.adapters == [other]


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_layers_of_other_precision_are_adapted_in_theirs(name: str, dtype: torch.dtype) -> None:
    adapter = moved(MAKERS[name]())
    base, x = linear(adapter, dtype), normal(3, adapter.in_features).to(dtype)
    found = adapter(x, base)
    assert found.dtype == dtype and torch.isfinite(found).all()
    wanted = adapter(x.float(), linear(adapter))
    torch.testing.assert_close(found.float(), wanted, atol=0.1, rtol=0.1)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in adapter.parameters())


@EVERY
def test_adapters_cast_to_few_bits_still_make_orthogonal_maps_and_store_exactly(name: str) -> None:
    dtype = torch.bfloat16
    adapter = moved(MAKERS[name]()).to(dtype)
    base, x = linear(adapter, dtype), normal(3, adapter.in_features).to(dtype)
    before = adapter(x, base)
    assert before.dtype == dtype
    adapter.unpack(adapter.pack())
    assert adapter(x, base).equal(before)
    before.sum().backward()
    if isinstance(adapter, CircuitAdapter) and name in ("frames", "found"):
        for frame in adapter.frames():
            assert frame.dtype == torch.float32
            assert largest(frame.T @ frame - torch.eye(4)) <= 1e-5


def test_autocast_leaves_frames_in_full_precision() -> None:
    for name in ("frames", "taylor"):
        adapter = moved(MAKERS[name]())
        wanted, weight = adapter.frames(), adapter.delta_weight()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for frame, other in zip(adapter.frames(), wanted, strict=True):
                assert frame.equal(other)
            assert adapter.delta_weight().equal(weight)
            adapter(normal(3, 24), linear(adapter)).sum().backward()


@EVERY
def test_training_mode_changes_nothing(name: str) -> None:
    adapter = moved(MAKERS[name](bits=4))
    base, x = linear(adapter), normal(3, adapter.in_features)
    assert adapter.train()(x, base).equal(adapter.eval()(x, base))
    with torch.inference_mode():
        assert adapter(x, base).equal(adapter(x, base))


@pytest.mark.parametrize("bits", [None, 4])
def test_adapters_made_in_inference_mode_compute(bits: int | None) -> None:
    with torch.inference_mode():
        for name in MAKERS:
            adapter = moved(MAKERS[name](bits=bits))
            adapter(normal(3, adapter.in_features), linear(adapter))


def test_adapters_on_the_meta_device_have_shapes() -> None:
    for name in ("frames", "taylor", "rotation"):
        adapter = MAKERS[name](bits=4).to("meta")
        base = linear(adapter).to("meta")
        assert adapter(torch.zeros(3, adapter.in_features, device="meta"), base).shape == (3, adapter.out_features)


# ---------------------------------------------------------------------- edges
def test_a_frame_may_be_as_wide_as_the_layer() -> None:
    adapter = CircuitAdapter(16, 16, rank=16, generator=generator())
    u, v = adapter.frames()
    for frame in (u, v):
        torch.testing.assert_close(frame @ frame.T, torch.eye(16), atol=1e-6, rtol=0)


def test_one_qubit_is_enough() -> None:
    adapter = moved(CircuitAdapter(2, 2, qas.Circuit(1, [("ry", 0, 0.0)]), rank=2))
    assert adapter(normal(3, 2), linear(adapter)).shape == (3, 2)
    rotation = RotationAdapter(2, 2, qas.Circuit(1, [("ry", 0, 0.0)]))
    with torch.no_grad():
        rotation.angles.fill_(0.8)
    c, s = math.cos(0.4), math.sin(0.4)
    torch.testing.assert_close(rotation.merged(torch.eye(2)), torch.tensor([[c, -s], [s, c]]), atol=1e-6, rtol=0)


def test_frames_of_a_circuit_without_angles_are_fixed() -> None:
    for circuit in (STILL, qas.Circuit(5)):
        adapter = moved(CircuitAdapter(32, 32, circuit, rank=4, bits=2))
        assert len(adapter.angles) == 0 and adapter.stored_bits == 32 + 16 * 4
        adapter(normal(3, 32), linear(adapter)).sum().backward()
        assert adapter.values is not None and adapter.values.grad is not None
    with pytest.raises(QasError, match="needs a circuit with angles"):
        RotationAdapter(32, 32, STILL)


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: CircuitAdapter(16, 16, rank=17), "rank is a whole number from 1 to 16, got 17"),
    (lambda: CircuitAdapter(16, 8, rank=9), "rank is a whole number from 1 to 8, got 9"),
    (lambda: CircuitAdapter(16, 16, rank=0), "rank is a whole number from 1 to 16, got 0"),
    (lambda: CircuitAdapter(16, 16, rank=2.0), "got 2.0"),  # type: ignore[arg-type]
    (lambda: CircuitAdapter(16, 16, bits=0), "bits is a whole number from 1 to 8, got 0"),
    (lambda: CircuitAdapter(16, 16, bits=9), "got 9"),
    (lambda: RotationAdapter(16, 16, bits=16), "got 16"),
    (lambda: CircuitAdapter(16, 16, scale=0.0), "scale is a finite number other than 0"),
    (lambda: CircuitAdapter(16, 16, scale=math.nan), "scale is a finite number"),
    (lambda: CircuitAdapter(1, 16), "rank is a whole number from 1 to 1, got 8"),
    (lambda: CircuitAdapter(16, 0), "a whole number of at least 1, got 0"),
    (lambda: CircuitAdapter(16.0, 16), "a whole number of at least 1, got 16.0"),  # type: ignore[arg-type]
    (lambda: CircuitAdapter(16, 16, layers=-1), "layers is a whole number"),
    (lambda: CircuitAdapter(16, 16, "taylor"), "taylor has gates for each size"),
    (lambda: CircuitAdapter(16, 16, "quantum"), "unknown adapter architecture"),
    (lambda: TaylorAdapter(16, 16, intrinsic_rank=17), "intrinsic rank is a whole number from 1 to 16"),
    (lambda: TaylorAdapter(16, 16, rank=17), "rank is a whole number from 1 to 16"),
    (lambda: RotationAdapter(16, 16, side="left"), "'input' or 'output', got 'left'"),
    (lambda: RotationAdapter(1, 16), "a whole number of at least 2"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_settings_that_do_not_fit_are_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_architecture_of_a_layer_is_described_once() -> None:
    adapter = CircuitAdapter(32, 32, CIRCUIT, rank=2)
    assert adapter.description_bits == Architecture.from_circuit(CIRCUIT).description_bits > 16
    assert CircuitAdapter(32, 32, rank=2).description_bits == RotationAdapter(32, 32).description_bits == 16
    assert isinstance(adapter, DeltaAdapter)


def test_complex_gates_are_padded_where_real_ones_get_an_odd_axis() -> None:
    adapter = CircuitAdapter(96, 96, COMPLEX)
    assert (adapter.architecture.size, adapter.architecture.odd) == (128, 1)


def test_offsets_leave_an_architecture_alone_that_needs_none() -> None:
    assert start_offsets(quantum_peft(64, 1)[0]) is None
    assert start_offsets(Architecture(2, (("t", (0,)), ("ry", (0,)), ("ry", (0,))))) is None
