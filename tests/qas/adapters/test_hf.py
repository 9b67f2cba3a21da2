"""Circuit adapters in peft and transformers: tiny random models, dense matrices, files, merging, every refusal."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

import qas
from qas.adapters import _peft, hf
from qas.adapters.architecture import Architecture, load_architecture, quantum_peft
from qas.adapters.circuit import MapBank
from qas.adapters.hf import PREFIX, CircuitAdapterConfig, CircuitLayer, CircuitModel, adapter_bytes
from qas.adapters.packed import HEADER_BYTES, JointForm
from qas.adapters.quantize import MAX_BITS
from qas.errors import MissingExtraError, QasError

pytestmark = [
    pytest.mark.peft,
    # peft 0.21 asks transformers 5.23 for this on every model; it is for peft to stop.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

IDS = torch.arange(12).reshape(2, 6)
FILE = "adapter_model.safetensors"
RANK = 4

GATES = "ry 0, ry 3, cx 0 1, ry 1, cz 1 4, ry 4, h 2, ry 2"
SEARCHED = Architecture(
    5, tuple((name, tuple(map(int, wires))) for name, *wires in (gate.split() for gate in GATES.split(", ")))
).to_json()

SETTINGS: dict[str, dict[str, Any]] = {
    "frames": {},
    "two layers": {"layers": 2},
    "1 bit": {"bits": 1},
    "3 bits": {"bits": 3},
    "8 bits": {"bits": 8},
    "taylor": {"circuit": "taylor", "layers": 2},
    "taylor 5 bits": {"circuit": "taylor", "bits": 5},
    "rotation": {"form": "rotation"},
    "output rotation": {"form": "rotation", "side": "output"},
    "rotation 6 bits": {"form": "rotation", "bits": 6},
    "searched": {"circuit": SEARCHED, "target_modules": ["q_proj", "o_proj"]},
    "searched rotation": {"circuit": SEARCHED, "form": "rotation"},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


# ---------------------------------------------------------------------- models
def settings_of(**changes: Any) -> CircuitAdapterConfig:
    return CircuitAdapterConfig(**({"rank": RANK, "target_modules": ["q_proj", "v_proj"]} | changes))


def llama(kind: type = LlamaForCausalLM, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        **changes,
    )
    return kind(config).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


class Plain(nn.Module):
    """Two linear layers without a transformers config, 43*8 -> 48 -> 96, and one that is never a target."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(344, 48), nn.Linear(48, 96, bias=False), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def plain() -> Plain:
    torch.manual_seed(0)
    return Plain()


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def adapters(model: nn.Module, name: str = "default") -> list[Any]:
    layers = [m for m in model.modules() if isinstance(m, CircuitLayer)]
    return [layer.qas_circuit_adapters[name] for layer in layers if name in layer.qas_circuit_adapters]


def layers_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, CircuitLayer)]


def trained(model: Any, name: str = "default", seed: int = 1) -> Any:
    """The model, its adapters moved off their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapters(model, name):
            for parameter in adapter.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def adapted(base: Any = None, **changes: Any) -> Any:
    return trained(get_peft_model(llama() if base is None else base, settings_of(**changes))).eval()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Same modules and weights, and nothing of peft left."""
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(type(module).__module__.startswith(("peft", "qas")) for module in model.modules())
    assert not hasattr(model, "peft_config")


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def dense(architecture: Architecture, angles: Tensor) -> np.ndarray:
    """The matrix of RY, CZ, CX and H gates by Kronecker products, qubit 0 least significant."""
    n, left = architecture.n_qubits, [float(a) for a in angles][::-1]

    def on(wire: int, matrix: np.ndarray) -> np.ndarray:
        return np.kron(np.kron(np.eye(2 ** (n - 1 - wire)), matrix), np.eye(2**wire))

    total = np.eye(2**n)
    for name, wires in architecture.gates:
        one = on(wires[0], np.diag([0.0, 1.0]))
        if name == "ry":
            half = left.pop() / 2
            cos, sin = math.cos(half), math.sin(half)
            gate = on(wires[0], np.array([[cos, -sin], [sin, cos]]))
        elif name == "h":
            gate = on(wires[0], np.array([[1, 1], [1, -1]]) / math.sqrt(2))
        else:
            flip = np.array([[0.0, 1.0], [1.0, 0.0]]) if name == "cx" else np.diag([1.0, -1.0])
            gate = np.eye(2**n) - one + one @ on(wires[1], flip)
        total = gate @ total
    assert not left
    return total


def payload(file: Path) -> int:
    """Bytes of a safetensors file behind its header."""
    return file.stat().st_size - 8 - int.from_bytes(file.read_bytes()[:8], "little")


# ---------------------------------------------------------------------- computing
@every_setting
def test_a_new_adapter_changes_nothing(settings: dict[str, Any]) -> None:
    base = llama()
    before = logits(base)
    model = get_peft_model(base, settings_of(**settings)).eval()
    change = difference(logits(model), before)
    offset = settings.get("form") == "rotation"  # angles measured from quarter turns: the identity up to rounding
    assert change <= 1e-6 if offset else change == 0.0


@pytest.mark.parametrize("settings", [{}, {"layers": 3}, {"circuit": SEARCHED}, {"scale": 0.5}], ids=str)
def test_the_change_is_the_product_of_dense_frames(settings: dict[str, Any]) -> None:
    base = nn.Sequential(nn.Linear(32, 32 if "circuit" in settings else 64))
    weight, bias = base[0].weight.detach().double().numpy(), base[0].bias.detach().numpy()
    model = trained(get_peft_model(base, settings_of(target_modules=["0"], **settings)))
    (adapter,) = adapters(model)
    sides = []
    angles = adapter.angles.detach()
    for features in (len(weight), 32):
        gates = quantum_peft(features, settings.get("layers", 1))[0]
        if "circuit" in settings:
            gates = load_architecture(SEARCHED)
        own, angles = angles[: gates.n_angles], angles[gates.n_angles :]
        sides.append(dense(gates, own)[:, :RANK])
    scale = settings.get("scale", (len(weight) * 32) ** 0.25)
    change = scale * (sides[0] * adapter.values.detach().numpy()) @ sides[1].T
    layer = model.base_model.model[0]
    np.testing.assert_allclose(layer.get_delta_weight("default").detach().numpy(), change, atol=2e-6)
    x = torch.randn(7, 32)
    wanted = x.numpy() @ (weight + change).T + bias
    np.testing.assert_allclose(model(x).detach().numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.matrix_rank(change), RANK)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_rotation_leaves_the_singular_values(side: str) -> None:
    model = adapted(form="rotation", side=side)
    layer = next(m for m in model.modules() if isinstance(m, CircuitLayer))
    before = torch.linalg.svdvals(layer.base_layer.weight.detach())
    turned = layer.merged_weight(["default"])
    assert difference(turned, layer.base_layer.weight) > 1e-2
    torch.testing.assert_close(torch.linalg.svdvals(turned), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"circuit": "taylor"}, {"form": "rotation"}, {"bits": 4}], ids=str)
def test_sizes_that_are_no_power_of_two_are_adapted(settings: dict[str, Any], tmp_path: Path) -> None:
    model = trained(get_peft_model(plain(), settings_of(target_modules=["first", "second"], **settings)))
    x = torch.randn(3, 344)
    found = model(x)
    assert difference(found, plain()(x)) > 1e-3
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(plain(), str(tmp_path))
    assert difference(loaded(x), found if settings.get("bits") is None else loaded.merge_and_unload()(x)) <= 1e-5
    assert difference(model.merge_and_unload()(x), found) <= 1e-5


def test_a_layer_of_768_is_adapted_exactly_and_padded_rows_are_cut() -> None:
    model = trained(get_peft_model(nn.Sequential(nn.Linear(768, 48)), settings_of(target_modules=["0"])))
    (adapter,) = adapters(model)
    u, v = adapter.frames()
    assert u.shape == (48, RANK) and v.shape == (768, RANK)
    torch.testing.assert_close(v.T @ v, torch.eye(RANK), atol=1e-5, rtol=0)


def test_only_adapters_and_the_new_head_are_trained(capsys: pytest.CaptureFixture[str]) -> None:
    model = get_peft_model(llama(LlamaForSequenceClassification, num_labels=3), settings_of(task_type=TaskType.SEQ_CLS))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("qas_circuit_adapters" in name or "score.modules_to_save" in name for name in names)
    # q: 32 to 32, v: 32 to 16, twice; 3q - 2 angles a side and one value for each column.
    adapter = 2 * (13 + 13 + RANK + 13 + 10 + RANK)
    model.print_trainable_parameters()
    assert f"trainable params: {adapter + 3 * 32:,} " in capsys.readouterr().out


def test_one_step_moves_the_values_and_a_second_the_angles() -> None:
    model = get_peft_model(llama(), settings_of())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    start = [a.angles.detach().clone() for a in adapters(model)]
    losses = []
    for _ in range(6):
        loss = model(input_ids=IDS, labels=IDS).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert all(
        difference(a.angles, was) > 0 and a.values.abs().min() > 0
        for a, was in zip(adapters(model), start, strict=True)
    )


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("settings", [{}, {"bits": 4}, {"form": "rotation"}, {"circuit": "taylor"}], ids=str)
def test_gradients_are_the_same_under_checkpointing(settings: dict[str, Any], reentrant: bool) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = adapted(**settings).train()
        if checkpointing:
            base = model.get_base_model()
            switch = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
            switch({"use_reentrant": reentrant})
            base.enable_input_require_grads()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    for found, wanted in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["3 bits", "taylor", "output rotation"])
def test_angles_stay_float32_on_a_base_of_half_precision(name: str, dtype: torch.dtype) -> None:
    settings = SETTINGS[name]
    model = adapted(llama().to(dtype), **settings)
    assert all(p.dtype == torch.float32 for a in adapters(model) for p in a.parameters())
    found = logits(model)
    exact = adapted(**settings)
    assert found.dtype == dtype and torch.isfinite(found).all()
    assert difference(found.float(), logits(exact)) < 0.05 * float(logits(exact).abs().max())
    merged = logits(model.merge_and_unload())
    assert merged.dtype == dtype and difference(merged.float(), logits(exact)) < 0.05 * float(logits(exact).abs().max())


@pytest.mark.parametrize("settings", [{}, {"bits": 4}, {"form": "rotation"}, {"circuit": "taylor"}], ids=str)
def test_autocast_costs_no_more_than_its_own_rounding(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    wanted = logits(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(input_ids=IDS, labels=IDS)
    found.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert difference(found.logits.float(), wanted) < 0.03 * float(wanted.abs().max())


def test_biases_are_trained_saved_and_loaded_when_asked(tmp_path: Path) -> None:
    model = trained(get_peft_model(plain(), settings_of(target_modules=["first"], bias="all")))
    with torch.no_grad():
        model.base_model.model.first.base_layer.bias.add_(1.0)
    assert model.base_model.model.head.bias.requires_grad and not model.base_model.model.head.weight.requires_grad
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(plain(), str(tmp_path))
    x = torch.randn(3, 344)
    assert torch.equal(loaded(x), model(x))


# ---------------------------------------------------------------------- files
@every_setting
def test_saved_and_loaded_the_model_computes_exactly_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    model = adapted(**settings)
    model.save_pretrained(str(tmp_path))
    wanted = logits(model)
    for extra in ({}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        loaded = PeftModel.from_pretrained(llama(), str(tmp_path), **extra).eval()
        assert difference(logits(loaded), wanted) == 0.0
        assert all(p.requires_grad == bool(extra.get("is_trainable")) for a in adapters(loaded) for p in a.parameters())
        assert not any(p.is_meta for p in loaded.parameters())
    loaded.save_pretrained(str(tmp_path / "again"))
    assert (tmp_path / "again" / FILE).read_bytes() == (tmp_path / FILE).read_bytes()


@pytest.mark.parametrize(("bits", "layers"), [(None, 1), (1, 1), (3, 2), (MAX_BITS, 2)])
def test_the_file_holds_the_predicted_bits_and_a_header(bits: int | None, layers: int, tmp_path: Path) -> None:
    model = adapted(bits=bits, layers=layers)
    model.save_pretrained(str(tmp_path))
    total = 0
    for out_qubits in (5, 4, 5, 4):  # q and v of two blocks, all of 5 qubits at the input
        angles = (2 * layers + 1) * (out_qubits + 5) - 4 * layers
        total += 4 * (angles + RANK) if bits is None else 4 + 2 * RANK + -(-angles * bits // 8)
    file = tmp_path / FILE
    assert payload(file) == total + (0 if bits is None else HEADER_BYTES)
    assert 0 <= 8 * total - sum(a.stored_bits for a in adapters(model)) < 8 * 4
    assert adapter_bytes(tmp_path) == file.stat().st_size
    dtypes = {tensor.dtype for tensor in load_file(file).values()}
    assert dtypes == ({torch.float32} if bits is None else {torch.uint8})


def test_the_file_of_many_layers_is_hardly_larger_than_their_angles(tmp_path: Path) -> None:
    """64 layers of 256 features at rank 8: 44 angles of a byte, 8 values of two and a grid of four each."""
    base = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"q_proj": nn.Linear(256, 256)}) for _ in range(64))})
    model = trained(get_peft_model(base, settings_of(rank=8, bits=8, target_modules=["q_proj"])))
    model.save_pretrained(str(tmp_path))
    assert sum(adapter.stored_bits for adapter in adapters(model)) == 8 * 4096
    assert adapter_bytes(tmp_path) <= 1.15 * 4096


def test_the_settings_come_back_from_disk(tmp_path: Path) -> None:
    for number, (name, settings) in enumerate(SETTINGS.items()):
        config = settings_of(**settings, exclude_modules=["head"], layers_to_transform=[1], layers_pattern="layers")
        config.save_pretrained(str(tmp_path / str(number)))
        for kind in (PeftConfig, CircuitAdapterConfig):
            found = kind.from_pretrained(str(tmp_path / str(number)))
            assert isinstance(found, CircuitAdapterConfig) and found.to_dict() == config.to_dict() == asdict(config), (
                name
            )
        assert found.peft_type == "QAS_CIRCUIT" and found.peft_type.value == "QAS_CIRCUIT"
        assert json.loads((tmp_path / str(number) / "adapter_config.json").read_text())["peft_type"] == "QAS_CIRCUIT"


def test_the_best_circuit_of_a_run_becomes_an_adapter(tmp_path: Path) -> None:
    run = qas.search("adapter-16", agent="evolution", steps=300, out=tmp_path / "run", report=False)
    base = nn.Sequential(nn.Linear(16, 16))
    by_run = CircuitAdapterConfig.from_run(run, rank=RANK, target_modules=["0"], bits=6)
    by_path = CircuitAdapterConfig.from_run(tmp_path / "run", rank=RANK, target_modules=["0"], bits=6)
    assert by_run.circuit["hash"] == by_path.circuit["hash"] == Architecture.from_circuit(run.best.circuit).hash
    model = trained(get_peft_model(base, by_path))
    model.save_pretrained(str(tmp_path / "adapter"))
    x = torch.randn(3, 16)
    wanted = model(x)
    loaded = PeftModel.from_pretrained(
        nn.Sequential(nn.Linear(16, 16)).requires_grad_(False), str(tmp_path / "adapter")
    )
    loaded.base_model.model[0].base_layer.load_state_dict(model.base_model.model[0].base_layer.state_dict())
    assert torch.equal(loaded(x), wanted)


@pytest.mark.parametrize("settings", [{}, {"target_modules": ["o_proj"], "layers_to_transform": [1]}], ids=str)
def test_files_of_version_1_have_a_tensor_for_each_layer(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = settings | {"bits": 5}
    old = adapted(schema_version=1, **settings)
    wanted = logits(old)
    old.save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / FILE)
    assert len(tensors) == len(adapters(old)) and all(t.dtype == torch.uint8 for t in tensors.values())
    assert {tensor.numel() for tensor in tensors.values()} == {a.packed_size for a in adapters(old)}
    loaded = PeftModel.from_pretrained(llama(), str(tmp_path))
    assert difference(logits(loaded), wanted) == 0.0
    loaded.save_pretrained(str(tmp_path / "again"))  # under the old version as the old layout
    assert (tmp_path / "again" / FILE).read_bytes() == (tmp_path / FILE).read_bytes()
    by_name = llama()
    by_name.load_adapter(str(tmp_path))
    assert difference(logits(by_name), wanted) == 0.0
    new = adapted(**settings)
    peft.set_peft_model_state_dict(new, tensors)
    assert difference(logits(new), wanted) == 0.0
    new.save_pretrained(str(tmp_path / "new"))
    assert len(load_file(tmp_path / "new" / FILE)) == 1
    new.load_adapter(str(tmp_path), "old")
    new.set_adapter("old")
    assert difference(logits(new), wanted) == 0.0


def test_a_state_dict_given_by_hand_is_what_is_stored() -> None:
    model = adapted(bits=5)
    full = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = peft.get_peft_model_state_dict(model)
    trained(model, seed=2)
    found = peft.get_peft_model_state_dict(model, state_dict=full)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in found)
    assert any(not torch.equal(found[key], tensor) for key, tensor in peft.get_peft_model_state_dict(model).items())
    bare = {name: tensor for name, tensor in full.items() if not name.endswith("packed")}
    assert all(torch.equal(a, wanted[key]) for key, a in peft.get_peft_model_state_dict(model, bare).items())
    assert not any(
        hf.PREFIX in key for key in peft.get_peft_model_state_dict(model, {"base_model.other": torch.ones(1)})
    )
    some = {name: tensor for name, tensor in bare.items() if "layers.0" in name}
    with pytest.raises(QasError, match=r"for all layers at once, got a state dict without .*layers\.1.*q_proj"):
        peft.get_peft_model_state_dict(model, some)
    name = next(name for name in full if name.endswith("angles"))
    for broken in (bare | {name: full[name][:0]}, {key: tensor for key, tensor in bare.items() if key != name}):
        with pytest.raises(QasError, match=r"a state dict holds .*angles of shape \(26,\), got"):
            peft.get_peft_model_state_dict(model, broken)


@pytest.mark.parametrize("settings", [{}, {"bits": 2}], ids=str)
def test_state_dicts_move_between_peft_and_injected_models(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    tensors = peft.get_peft_model_state_dict(model)
    for low in (False, True):
        bare = peft.inject_adapter_in_model(settings_of(**settings), llama(), "other", low_cpu_mem_usage=low)
        peft.set_peft_model_state_dict(bare, tensors, "other", low_cpu_mem_usage=low)
        assert difference(logits(bare), logits(model)) == 0.0
        back = peft.get_peft_model_state_dict(bare, adapter_name="other")
        assert all(torch.equal(tensor, tensors[f"base_model.model.{key}"]) for key, tensor in back.items())


def test_injection_follows_the_keys_of_a_state_dict() -> None:
    only_q = {key: t for key, t in peft.get_peft_model_state_dict(adapted()).items() if "q_proj" in key}
    only_q = {key.removeprefix("base_model.model."): tensor for key, tensor in only_q.items()}
    with pytest.warns(RuntimeWarning, match="additional target modules"):
        bare = peft.inject_adapter_in_model(settings_of(), llama(), state_dict=only_q)
    assert len(adapters(bare)) == 2
    joint = peft.get_peft_model_state_dict(adapted(bits=4))
    assert len(adapters(peft.inject_adapter_in_model(settings_of(bits=4), llama(), state_dict=joint))) == 4
    base = llama()
    before = weights(base)
    with pytest.raises(QasError, match=r"model.layers.0.self_attn.q_proj .*rank is a whole number from 1 to 32"):
        peft.inject_adapter_in_model(settings_of(circuit="taylor", layers=33), base, state_dict=only_q)
    assert_untouched(base, before)


@pytest.mark.parametrize("settings", [{}, {"bits": 3}, {"form": "rotation", "bits": 4}], ids=str)
def test_transformers_own_interface_saves_and_loads(settings: dict[str, Any], tmp_path: Path) -> None:
    model = llama()
    model.add_adapter(settings_of(**settings))
    wanted = logits(trained(model))
    model.save_pretrained(tmp_path)
    assert (tmp_path / FILE).exists() and not (tmp_path / "model.safetensors").exists()
    loaded = llama()
    loaded.load_adapter(str(tmp_path))
    assert difference(logits(loaded), wanted) == 0.0
    assert difference(logits(PeftModel.from_pretrained(llama(), str(tmp_path))), wanted) == 0.0
    loaded.disable_adapters()
    assert torch.equal(logits(loaded), logits(llama()))
    loaded.enable_adapters()
    with pytest.warns(UserWarning, match="multiple adapters"):
        loaded.add_adapter(settings_of(**settings), "other")
    assert loaded.active_adapters() == ["other"]
    loaded.set_adapter("default")
    assert difference(logits(loaded), wanted) == 0.0
    loaded.delete_adapter("other")
    assert difference(logits(loaded), wanted) == 0.0


def test_a_new_head_is_saved_with_the_adapter(tmp_path: Path) -> None:
    model = adapted(llama(LlamaForSequenceClassification, num_labels=3), modules_to_save=["score"], bits=4)
    with torch.no_grad():
        model.base_model.model.score.modules_to_save["default"].weight.add_(1.0)
    wanted = logits(model)
    model.save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / FILE)
    assert {t.dtype for key, t in tensors.items() if "score" not in key} == {torch.uint8}
    assert tensors["base_model.model.score.weight"].shape == (3, 32)
    loaded = PeftModel.from_pretrained(llama(LlamaForSequenceClassification, num_labels=3), str(tmp_path))
    assert difference(logits(loaded), wanted) == 0.0


def trainer(folder: Path, steps: int, every: int, **settings: Any) -> Trainer:
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(32).reshape(4, 8)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=every,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model=get_peft_model(llama(), settings_of(**settings)), args=arguments, train_dataset=rows)


@pytest.mark.parametrize("settings", [{}, {"form": "rotation", "bits": 5}], ids=str)
def test_a_trainer_resumes_to_the_last_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    unbroken = trainer(tmp_path / "unbroken", 4, 4, **settings)
    unbroken.train()
    first = trainer(tmp_path / "broken", 2, 2, **settings)
    first.train()
    folder = tmp_path / "broken" / "checkpoint-2"
    loaded = PeftModel.from_pretrained(llama(), str(folder))
    assert difference(logits(loaded), logits(first.model.eval())) == 0.0
    tensors = load_file(folder / FILE)
    assert len(tensors) == (1 if settings else 8)  # what is deployed holds nothing else
    resumed = trainer(tmp_path / "broken", 4, 4, **settings)
    resumed.train(resume_from_checkpoint=str(folder))
    assert resumed.state.global_step == 4
    for found, wanted, start in zip(*map(adapters, (resumed.model, unbroken.model, first.model)), strict=True):
        for name, parameter in found.named_parameters():
            assert parameter.equal(wanted.get_parameter(name)) and not parameter.equal(start.get_parameter(name))


def placed(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file under the names that they have in the model."""
    return {key.replace(".packed", ".default.packed"): tensor for key, tensor in stored.items()}


def lay(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """As transformers does: by name, and nobody sees it before the next use."""
    for key, tensor in tensors.items():
        place, _, name = key.rpartition(".")
        setattr(model.get_submodule(place), name, tensor.clone())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "laid before"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_copy_of_a_model_takes_what_is_laid_into_its_inbox(version: int, way: str) -> None:
    settings = {"bits": 4, "schema_version": version}
    source, first = adapted(**settings), get_peft_model(llama(), settings_of(**settings)).eval()
    wanted, start = logits(source), logits(first)
    stored = peft.get_peft_model_state_dict(source)
    laid = placed(stored)
    assert len(laid) == (4 if version == 1 else 1) and laid.keys() <= first.state_dict().keys()
    if way == "laid before":
        lay(first, laid)
    twin = copied(first) if way == "pickle" else copy.deepcopy(first)
    if way != "laid before":
        twin.load_state_dict(laid, strict=False)
    assert torch.equal(logits(twin), wanted) and difference(wanted, start) > 0
    assert torch.equal(logits(first), wanted if way == "laid before" else start)


@pytest.mark.parametrize("number", [0, -1])
def test_a_copied_layer_has_its_part_of_what_was_laid_and_a_shallow_one_stays_out(number: int) -> None:
    source, model = adapted(bits=4), get_peft_model(llama(), settings_of(bits=4)).eval()
    lay(model, placed(peft.get_peft_model_state_dict(source)))
    own, wanted = adapters(model)[number], adapters(source)[number].current_angles()
    shallow, deep = copy.copy(own), copy.deepcopy(own)
    assert torch.equal(deep.current_angles(), wanted) and not deep.angles.is_set_to(own.angles)
    assert shallow.inbox is own.inbox and own.inbox._adapters[own.place] is own
    assert shallow not in own.bank.adapters
    assert torch.equal(logits(model), logits(source))


def test_tensors_that_peft_loads_replace_those_still_in_the_inbox() -> None:
    source, model = adapted(bits=4), get_peft_model(llama(), settings_of(bits=4)).eval()
    first = peft.get_peft_model_state_dict(source)
    for laid in (first, {key: tensor ^ 255 for key, tensor in first.items()}):  # some that fit, others that do not
        lay(model, placed(laid))
        trained(source, seed=7)
        peft.set_peft_model_state_dict(model, peft.get_peft_model_state_dict(source))
        assert torch.equal(logits(model), logits(source))


def test_a_copied_model_makes_its_frames_in_one_batch_as_the_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    compute = MapBank._compute
    monkeypatch.setattr(MapBank, "_compute", lambda self: (calls.append(len(self.adapters)), compute(self))[1])
    model = adapted(bits=8)
    for twin in (copy.deepcopy(model), copied(model)):
        logits(twin)
    assert calls == [4, 4]


def copied(model: Any) -> Any:
    """By way of a file."""
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@every_setting
def test_a_copied_or_pickled_model_computes_the_same(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    wanted = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), wanted)
    assert torch.equal(logits(copied(model)), wanted)
    trained(twin, seed=2)
    assert difference(logits(twin), wanted) > 0
    assert torch.equal(logits(model), wanted)


# ---------------------------------------------------------------------- merging
@pytest.mark.parametrize("make, safe", [(llama, True), (gpt2, False)], ids=["linear", "conv1d"])
@every_setting
def test_merged_and_unmerged_agree_and_the_base_comes_back(
    settings: dict[str, Any], make: Callable[[], Any], safe: bool
) -> None:
    if make is gpt2:
        settings = settings | {"target_modules": ["c_attn" if "circuit" not in settings else "attn.c_proj"]}
    base = make()
    before = {name: tensor for name, tensor in weights(base).items() if name != "lm_head.weight"}
    model = adapted(base, **settings)
    wanted, plain_logits = logits(model), logits(make())
    assert difference(wanted, plain_logits) > 1e-3
    model.merge_adapter(safe_merge=safe)
    assert difference(logits(model), wanted) <= 1e-5
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        model.merge_adapter(safe_merge=safe)
    assert difference(logits(model), wanted) <= 1e-5
    model.unmerge_adapter()
    for name, tensor in model.get_base_model().state_dict().items():
        key = name.replace(".base_layer", "")
        assert hf.PREFIX in name or key == "lm_head.weight" or difference(tensor, before[key]) <= 1e-6
    assert difference(logits(model), wanted) <= 1e-5
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
    merged = model.merge_and_unload(safe_merge=safe)
    assert type(merged) is type(base) and not any(isinstance(m, BaseTunerLayer) for m in merged.modules())
    assert difference(logits(merged), wanted) <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"form": "rotation", "bits": 6}, {"circuit": "taylor"}], ids=str)
def test_what_was_merged_is_taken_out_whatever_the_adapter_holds_by_then(settings: dict[str, Any]) -> None:
    model, other = adapted(**settings), trained(adapted(**settings), seed=5)
    base, plain = weights(model), logits(model)
    layer = next(module for module in model.modules() if isinstance(module, CircuitLayer))
    changes = layer.get_delta_weight("default")
    model.merge_adapter()
    assert difference(layer.get_delta_weight("default"), changes) < 1e-5
    peft.set_peft_model_state_dict(model, peft.get_peft_model_state_dict(other))
    assert difference(logits(model), plain) < 1e-4  # until then the merged adapters count
    model = copy.deepcopy(model)
    model.unmerge_adapter()
    for name, tensor in base.items():
        assert PREFIX in name or difference(model.state_dict()[name], tensor) < 1e-5
    assert difference(logits(model), logits(other)) < 1e-4


def test_unloading_gives_the_base_model_back() -> None:
    base = llama()
    before = weights(base)
    assert_untouched(adapted(base, modules_to_save=["lm_head"]).unload(), before)


def test_several_adapters_are_switched_summed_merged_in_part_and_deleted() -> None:
    base, x = nn.Sequential(nn.Linear(32, 32)), torch.randn(5, 32)
    weight, bias = base[0].weight.detach().clone(), base[0].bias.detach().clone()
    model = trained(get_peft_model(base, settings_of(target_modules=["0"]), "one"), "one")
    model.add_adapter("two", settings_of(target_modules=["0"], rank=2, bits=6))
    trained(model, "two", seed=2)
    layer = model.base_model.model[0]
    delta = {name: layer.get_delta_weight(name).detach() for name in ("one", "two")}

    def assert_computes(*names: str) -> None:
        wanted = x @ (weight + sum((delta[name] for name in names), torch.zeros(()))).T + bias
        assert difference(model(x), wanted) <= 1e-5

    assert_computes("one")
    assert not any(p.requires_grad for p in adapters(model, "two")[0].parameters())
    model.set_adapter("two")
    assert_computes("two")
    assert [a.angles.requires_grad for name in ("one", "two") for a in adapters(model, name)] == [False, True]
    with model.disable_adapter():
        assert_computes()
    model.base_model.set_adapter(["one", "two"])
    assert_computes("one", "two")
    model.merge_adapter(["two"])
    assert_computes("two")  # as in peft, a merged layer computes with what is merged
    with pytest.raises(ValueError, match="while they are merged"):
        model.delete_adapter("two")
    with pytest.warns(UserWarning, match="additionally merging one"):
        model.merge_adapter()
    assert_computes("one", "two")
    with model.disable_adapter():
        assert difference(model(x), x @ weight.T + bias) <= 1e-6
    assert not layer.merged
    assert_computes("one", "two")
    model.base_model.set_adapter("two")
    model.delete_adapter("one")
    assert_computes("two")
    assert layer.qas_circuit_adapters.keys() == {"two"}
    merged = model.merge_and_unload()
    assert difference(merged(x), x @ (weight + delta["two"]).T + bias) <= 1e-5


def test_rotations_and_frames_merge_in_the_order_in_which_they_are_active() -> None:
    x = torch.randn(5, 32)
    for first, second in (
        ({}, {"form": "rotation"}),
        ({"form": "rotation"}, {}),
        ({"form": "rotation"}, {"form": "rotation", "side": "output"}),
    ):
        base = nn.Sequential(nn.Linear(32, 32))
        weight = base[0].weight.detach().clone()
        model = trained(get_peft_model(base, settings_of(target_modules=["0"], **first), "one"), "one")
        model.add_adapter("two", settings_of(target_modules=["0"], **second))
        trained(model, "two", seed=2)
        model.base_model.set_adapter(["one", "two"])
        wanted = model(x)
        model.merge_adapter()
        assert difference(model(x), wanted) <= 1e-5
        model.unmerge_adapter()
        assert difference(model.base_model.model[0].base_layer.weight, weight) <= 1e-6


def test_adapters_are_saved_and_loaded_side_by_side(tmp_path: Path) -> None:
    model = trained(get_peft_model(llama(), settings_of(), "one"), "one").eval()
    model.add_adapter("two", settings_of(target_modules=["v_proj", "o_proj"], bits=7))
    trained(model, "two", seed=2)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(llama(), str(tmp_path / "one"), "one").eval()
    loaded.load_adapter(str(tmp_path / "two"), "renamed")
    for here, there in (("one", "one"), ("two", "renamed")):
        model.set_adapter(here)
        loaded.set_adapter(there)
        assert difference(logits(loaded), logits(model)) == 0.0


@pytest.mark.parametrize("make, targets", [(llama, ["q_proj", "v_proj"]), (gpt2, ["c_attn"])], ids=["linear", "conv1d"])
@pytest.mark.parametrize("settings", [{}, {"bits": 5}, {"circuit": "taylor"}], ids=str)
def test_at_its_own_rank_an_adapter_is_exactly_a_lora(
    make: Callable[[], Any], targets: list[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(make(), **settings, target_modules=targets)
    assert model.supports_lora_conversion()
    peft.save_as_lora(tmp_path, model, rank=RANK)
    if make is gpt2:
        path = tmp_path / "adapter_config.json"  # peft's conversion does not say which way round the weights lie
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fan_in_fan_out": True}))
    lora = PeftModel.from_pretrained(make(), str(tmp_path))
    assert difference(logits(lora), logits(model)) <= 1e-5


def test_a_rotation_is_no_lora() -> None:
    model = adapted(form="rotation")
    assert not model.supports_lora_conversion()
    with pytest.raises(TypeError, match="do not support LoRA conversion"):
        peft.convert_to_lora(model, rank=RANK)


# ---------------------------------------------------------------------- which layers
@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({"target_modules": ["q_proj"]}, {"0.q_proj", "1.q_proj"}),
        ({"target_modules": r".*layers\.1\.self_attn\.[kv]_proj"}, {"1.k_proj", "1.v_proj"}),
        ({"target_modules": None}, {"0.q_proj", "0.v_proj", "1.q_proj", "1.v_proj"}),
        ({"layers_to_transform": [1]}, {"1.q_proj", "1.v_proj"}),
        ({"layers_to_transform": 0, "layers_pattern": "layers"}, {"0.q_proj", "0.v_proj"}),
        ({"exclude_modules": ["v_proj"]}, {"0.q_proj", "1.q_proj"}),
        (
            {"target_modules": "all-linear"},
            {f"{n}.{k}_proj" for n in (0, 1) for k in ("q", "k", "v", "o", "gate", "up", "down")},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_target_modules_choose_layers_as_everywhere_in_peft(settings: dict[str, Any], wanted: set[str]) -> None:
    model = get_peft_model(llama(), settings_of(**settings))
    names = [name.split(".") for name in layers_of(model)]
    assert {f"{name[name.index('layers') + 1]}.{name[-1]}" for name in names} == wanted
    status = model.get_model_status()
    assert status.peft_types == {"default": "QAS_CIRCUIT"} and status.num_adapter_layers == len(wanted)
    assert status.enabled and status.active_adapters == ["default"] and status.requires_grad == {"default": True}
    for layer in model.get_layer_status():
        assert layer.module_type == "qas.CircuitLayer" and layer.enabled and layer.available_adapters == ["default"]


def test_gpt2_has_defaults_too() -> None:
    names = layers_of(get_peft_model(gpt2(), settings_of(target_modules=None)))
    assert len(names) == 2 and all(name.endswith("c_attn") for name in names)


def test_a_second_adapter_by_regular_expression_meets_layers_and_not_their_insides() -> None:
    model = adapted(target_modules=".*q_proj.*")
    model.add_adapter("second", settings_of(target_modules=".*q_proj.*", rank=2))
    assert len(adapters(model, "second")) == 2 == len(layers_of(model))


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bits": 0}, "bits is a whole number from 1 to 8, got 0"),
        ({"bits": 9}, "bits is a whole number from 1 to 8, got 9"),
        ({"bits": 2.5}, "got 2.5"),
        ({"rank": 0}, "rank is a whole number of at least 1, got 0"),
        ({"rank": True}, "rank is a whole number of at least 1, got True"),
        ({"rank_pattern": {"q_proj": 0}}, "rank of q_proj is a whole number of at least 1, got 0"),
        ({"rank_pattern": {"q_proj": 2}, "form": "rotation"}, "a rotation has none"),
        ({"init_weights": "gaussian"}, "init_weights is True or False, got 'gaussian'"),
        ({"layers": -1}, "layers is a whole number of at least 0, got -1"),
        ({"form": "butterfly"}, "form is one of frames, rotation, got 'butterfly'"),
        ({"bias": "some"}, "bias is none or all, got 'some'"),
        ({"circuit": "quantumpeft"}, "did you mean 'quantum-peft'"),
        ({"circuit": "no/such/run"}, "no such run folder"),
        ({"circuit": 5}, "got int"),
        ({"circuit": "taylor", "form": "rotation"}, "a rotation needs a circuit"),
        ({"circuit": SEARCHED | {"hash": "0" * 32}}, "have hash"),
        ({"circuit": SEARCHED | {"gates": SEARCHED["gates"][1:]}}, "have hash"),
        ({"circuit": SEARCHED | {"version": 2}}, "newer version of this program"),
        ({"schema_version": hf.SCHEMA_VERSION + 1}, "can be read, got version 3"),
        ({"layers_pattern": "layers"}, "give both"),
        ({"layers_to_transform": [1], "target_modules": "all-linear"}, "as a list of names, got the text 'all-linear'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QasError, match=message) as caught:
        settings_of(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"scale": float("nan")}, "scale is a finite number, got nan"),
        ({"form": "rotation", "side": "left"}, "acts on the side 'input' or 'output', got 'left'"),
        ({"circuit": "taylor", "layers": 20}, "intrinsic rank is a whole number from 1 to 16"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "model.embed_tokens: .*got Embedding"),
        ({"target_modules": ["self_attn"]}, "self_attn: .*got LlamaAttention"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("way", ["inject", "transformers"])
def test_a_layer_that_does_not_fit_leaves_the_model_as_it_was(settings: dict[str, Any], message: str, way: str) -> None:
    base = llama()
    before = weights(base)
    config = settings_of(**settings)
    calls: dict[str, Callable[[], Any]] = {
        "inject": lambda: peft.inject_adapter_in_model(config, base),
        "transformers": lambda: base.add_adapter(config),
    }
    with pytest.raises(QasError, match=message) as caught:
        calls[way]()
    assert "\n" not in str(caught.value)
    assert_untouched(base, before)


def test_a_second_adapter_that_does_not_fit_leaves_the_first_as_it_was() -> None:
    model = adapted(llama(), target_modules=["o_proj"])
    before, layers = weights(model), len(layers_of(model))
    with pytest.raises(QasError, match="rank is a whole number"):
        model.add_adapter("second", settings_of(circuit="taylor", layers=17))
    assert weights(model).keys() == before.keys() and len(layers_of(model)) == layers
    assert model.peft_config.keys() == {"default"} and not adapters(model, "second")


def test_a_second_injection_that_fails_leaves_no_settings_behind() -> None:
    base = llama()
    base.add_adapter(settings_of())
    for settings, message in (
        ({"circuit": "taylor", "layers": 99}, "rank"),
        ({"target_modules": ["nowhere"]}, "not found"),
    ):
        with pytest.warns(UserWarning, match="multiple adapters"), pytest.raises(ValueError, match=message):
            base.add_adapter(settings_of(**settings), "second")
        assert base.peft_config.keys() == {"default"}
    with pytest.warns(UserWarning, match="multiple adapters"):
        base.add_adapter(settings_of(), "second")
    assert len(adapters(base, "second")) == 4


def test_a_rank_beyond_a_narrow_layer_is_clipped_and_told_once(tmp_path: Path) -> None:
    config = settings_of(rank=20, target_modules="all-linear", rank_pattern={r"layers.1.mlp.\w+": 3, "o_proj": 40})
    with pytest.warns(UserWarning, match="ranks are at most the narrower side of a layer") as told:
        model = get_peft_model(llama(), config)
    (warning,) = [w for w in told if "narrower" in str(w.message)]
    narrow = [f"model.layers.{k}.self_attn.{name}" for k in (0, 1) for name in ("k_proj has 16", "v_proj has 16")]
    narrow += [f"model.layers.{k}.self_attn.o_proj has 32" for k in (0, 1)]
    assert sorted(str(warning.message).split(": ")[1].split(", ")) == sorted(narrow)
    ranks = {n: m.qas_circuit_adapters["default"].rank for n, m in model.named_modules() if isinstance(m, CircuitLayer)}
    for name, rank in ranks.items():
        wanted = 16 if name.endswith(("k_proj", "v_proj")) else 32 if "o_proj" in name else 3 if "1.mlp" in name else 20
        assert rank == wanted
    with torch.no_grad():
        trained(model).save_pretrained(str(tmp_path))
    with pytest.warns(UserWarning, match="narrower"):
        loaded = PeftModel.from_pretrained(llama(), str(tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    get_peft_model(llama(), settings_of(rank=33, form="rotation"))  # has no rank to clip: warnings are errors here


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_random_start_changes_the_model_when_asked_for(settings: dict[str, Any]) -> None:
    plain, model = logits(llama()), get_peft_model(llama(), settings_of(**settings, init_weights=False))
    assert difference(logits(model), plain) > 0.01
    assert difference(logits(model.merge_and_unload()), logits(model)) < 1e-5


@pytest.mark.parametrize("settings", [{}, {"bits": 3}, {"form": "rotation"}, {"circuit": "taylor"}], ids=str)
def test_adapters_are_kept_in_the_precision_of_the_layers_when_asked_for(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = get_peft_model(llama().bfloat16(), settings_of(**settings), autocast_adapter_dtype=False)
    assert all(p.dtype == torch.bfloat16 for a in adapters(model) for p in a.parameters())
    trained(model)
    wanted = logits(model)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(llama().bfloat16(), str(tmp_path), autocast_adapter_dtype=False)
    assert difference(logits(loaded), wanted) <= (0.05 if "bits" in settings else 0)
    model(input_ids=IDS).logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for a in adapters(model) for p in a.parameters())


def test_a_layer_that_torch_reads_instead_of_calling_is_refused() -> None:
    base = nn.ModuleDict({"attention": nn.MultiheadAttention(32, 4)})
    before = weights(base)
    with pytest.raises(QasError, match=r"attention.out_proj: .*read, never called"):
        get_peft_model(base, settings_of(target_modules=["out_proj"]))
    assert_untouched(base, before)


def test_targets_that_match_nothing_are_named() -> None:
    base = llama()
    before = weights(base)
    with pytest.raises(ValueError, match="Target modules .*nowhere.* not found"):
        get_peft_model(base, settings_of(target_modules=["nowhere"]))
    with pytest.raises(ValueError, match="specify `target_modules`"):
        get_peft_model(plain(), settings_of(target_modules=None))
    assert_untouched(base, before)


def broken_halves() -> Tensor:
    """What a program would store that does not look at its numbers."""
    named = dict(hf._stored_adapters(adapted(bits=4), "default"))
    joint = JointForm(hf._by_layer(named))
    forms = {hf._layer(stem): adapter.pack()["packed"] for stem, adapter in named.items()}
    for packed in forms.values():
        packed[:2] = torch.tensor([torch.nan], dtype=torch.float16).view(torch.uint8)
    return joint.join(forms)


Damage = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def on_last(change: Callable[[Tensor], Tensor], ending: str) -> Damage:
    """Change the last of the tensors whose name ends so: layers before it fit."""

    def damage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        key = [key for key in sorted(tensors) if key.endswith(ending)][-1]
        return tensors | {key: change(tensors[key].clone())}

    return damage


def spoiled(tensor: Tensor) -> Tensor:
    tensor[0] = torch.nan
    return tensor


def flipped(place: int) -> Callable[[Tensor], Tensor]:
    """One bit of one byte."""
    return lambda packed: packed ^ (torch.arange(len(packed)) == place).to(torch.uint8)


def without(part: str) -> Damage:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if part not in key}


def renamed(old: str, new: str) -> Damage:
    """The first tensor once more under another name."""

    def damage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        key = min(tensors)
        assert old in key
        return tensors | {key.replace(old, new): tensors[key].clone()}

    return damage


DAMAGES: dict[str, tuple[int | None, Damage, str]] = {
    "missing layer": (None, without("1.self_attn.v_proj"), "stores angles, values, got"),
    "missing": (None, without("values"), "stores angles, values, got angles"),
    "superfluous": (None, renamed("angles", "more"), r"has no place for: .*layers\.0\..*more"),
    "other layer": (None, renamed("layers.0", "layers.7"), r"has no place for: .*layers\.7"),
    "shape": (
        None,
        on_last(lambda t: t[1:], "angles"),
        r"angles has shape \(23,\) and type torch.float32, got \(22,\)",
    ),
    "dtype": (None, on_last(lambda t: t.half(), "values"), "got .* torch.float16"),
    "nan": (None, on_last(spoiled, "values"), "stored values must be finite"),
    "packed missing": (4, without("packed"), "stores packed, got nothing"),
    "packed shape": (4, on_last(lambda t: t[:-1], "packed"), r"of 4 layers are 110 bytes of .*, got shape \(109,\)"),
    "packed dtype": (4, on_last(lambda t: t.float(), "packed"), "torch.float32"),
    "packed layers": (4, on_last(flipped(3), "packed"), "these are of layers with other names or settings"),
    "packed checksum": (4, on_last(flipped(9), "packed"), "these are damaged: their checksum is another"),
    "packed bytes": (4, on_last(flipped(-1 + 110), "packed"), "these are damaged: their checksum is another"),
    "packed nan": (4, lambda t: {min(t): broken_halves()}, "finite"),
    "float for bits": (4, renamed("packed", "angles"), "stores packed, got angles, packed"),
}


@pytest.mark.parametrize("bits, damage, message", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_and_the_base_model_untouched(
    bits: int | None, damage: Damage, message: str, tmp_path: Path
) -> None:
    adapted(bits=bits).save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / FILE)
    save_file(damage(tensors), tmp_path / FILE, metadata={"format": "pt"})
    base = llama()
    before = weights(base)
    with pytest.raises(QasError, match=message) as caught:
        PeftModel.from_pretrained(base, str(tmp_path), low_cpu_mem_usage=bits is None)
    assert "\n" not in str(caught.value)
    assert_untouched(base, before)

    save_file(tensors, tmp_path / FILE, metadata={"format": "pt"})
    model = PeftModel.from_pretrained(base, str(tmp_path))
    wanted = logits(model)
    with pytest.raises(QasError, match=message):
        peft.set_peft_model_state_dict(model, damage(tensors))
    assert torch.equal(logits(model), wanted)  # an adapter that was loaded stays

    (tmp_path / "second").mkdir()
    save_file(damage(tensors), tmp_path / "second" / FILE, metadata={"format": "pt"})
    (tmp_path / "second" / "adapter_config.json").write_text((tmp_path / "adapter_config.json").read_text())
    with pytest.raises(QasError, match=message):
        model.load_adapter(str(tmp_path / "second"), "second")
    assert model.peft_config.keys() == {"default"} and not adapters(model, "second")
    assert torch.equal(logits(model), wanted)


def test_a_pickle_is_refused_before_it_is_read(tmp_path: Path) -> None:
    adapted().save_pretrained(str(tmp_path))
    torch.save(load_file(tmp_path / FILE), tmp_path / "adapter_model.bin")
    (tmp_path / FILE).unlink()
    base = llama()
    before = weights(base)
    with pytest.raises(QasError, match="never from a pickle, got adapter_model.bin in") as caught:
        PeftModel.from_pretrained(base, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert_untouched(base, before)


@pytest.mark.parametrize("left", [4, -1])
def test_a_truncated_file_is_refused_and_the_base_model_untouched(left: int, tmp_path: Path) -> None:
    adapted().save_pretrained(str(tmp_path))
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:left])
    base = llama()
    before = weights(base)
    with pytest.raises(QasError, match="a complete safetensors file, got"):
        PeftModel.from_pretrained(base, str(tmp_path))
    assert_untouched(base, before)


def test_settings_on_disk_are_checked_before_the_model_is_changed(tmp_path: Path) -> None:
    adapted(circuit=SEARCHED, target_modules=["q_proj"]).save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"schema_version": 3}, "version 3"),
        ({"circuit": config["circuit"] | {"gates": config["circuit"]["gates"][::-1]}}, "have hash"),
        ({"bits": 11}, "got 11"),
        ({"circuit": "taylor", "layers": 64}, "rank is a whole number from 1 to 32"),
    ):
        path.write_text(json.dumps(config | change))
        base = llama()
        before = weights(base)
        with pytest.raises(QasError, match=message):
            PeftModel.from_pretrained(base, str(tmp_path))
        assert_untouched(base, before)
    path.write_text(json.dumps(config | {"schema_version": 3, "invented_later": 1}))
    with pytest.warns(UserWarning, match="invented_later"), pytest.raises(QasError, match="version 3"):
        PeftModel.from_pretrained(llama(), str(tmp_path))


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("field", ["angles", "values"])
def test_what_is_not_finite_is_neither_saved_nor_merged(bits: int | None, field: str, tmp_path: Path) -> None:
    model = adapted(bits=bits)
    with torch.no_grad():
        getattr(adapters(model)[-1], field)[0] = torch.nan
    before = weights(model)
    with pytest.raises(QasError, match="finite"):
        model.save_pretrained(str(tmp_path))
    assert not (tmp_path / FILE).exists()
    for merge in (model.merge_adapter, model.merge_and_unload, lambda: model.merge_and_unload(safe_merge=True)):
        with pytest.raises(QasError, match="NaN or infinity|finite"):
            merge()
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if hf.PREFIX not in name)
    assert len(layers_of(model)) == 4 and not any(m.merged for m in model.modules() if isinstance(m, CircuitLayer))


def test_a_sum_too_large_for_half_precision_is_not_merged() -> None:
    model = adapted(llama().half())
    with torch.no_grad():
        adapters(model)[-1].values.fill_(1e6)
    with pytest.raises(QasError, match="would put NaN or infinity into the weights"):
        model.merge_adapter()
    assert not any(m.merged for m in model.modules() if isinstance(m, CircuitLayer))


def test_adapters_that_are_not_there_are_not_merged() -> None:
    with pytest.raises(QasError, match="adapters to merge are default, got 'other'"):
        adapted().merge_adapter(["other"])
    with pytest.raises(QasError, match="this layer has the adapters default, got 'other'"):
        adapted().base_model.model.model.layers[0].self_attn.q_proj.get_delta_weight("other")


def test_quantized_weights_are_not_merged() -> None:
    model = adapted()
    layer = next(m for m in model.modules() if isinstance(m, CircuitLayer))
    layer.base_layer.weight = nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(QasError, match=r"merge with weights of .*got torch.int8"):
        model.merge_and_unload()
    assert len(layers_of(model)) == 4 and layer.base_layer.weight.dtype == torch.int8


def test_a_weighted_sum_is_refused() -> None:
    model = adapted()
    with pytest.raises(QasError, match="a weighted sum of circuit adapters is no circuit"):
        model.add_weighted_adapter(["default"], [0.5], "sum")


def loaded_with(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that checks peft, once more, beside another version of it."""
    true = importlib.metadata.version

    def version(name: str) -> str:
        if name != "peft":
            return true(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    spec = importlib.util.spec_from_file_location("peft_once_more", _peft.__file__)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("found", [None, "0.20.0", "0.9", "0"])
def test_without_a_peft_that_can_do_it_the_extra_is_named(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match=r"peft>=0\.21, tested up to 0\.21; .*\[peft\]"):
        loaded_with(found, monkeypatch)


@pytest.mark.parametrize("found", ["0.22.0", "0.100.1", "1.0rc1"])
def test_newer_versions_of_peft_are_taken_with_a_warning(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=rf"tested up to 0\.21; found {found}"):
        loaded_with(found, monkeypatch)


def test_a_peft_whose_inner_parts_are_elsewhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded_with("0.21.9", monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(BaseTuner, "_remap_adapter_state_dict_for_load")
        with pytest.raises(MissingExtraError, match=r"found 0\.21\.9, whose tuners lack _remap_adapter_state_"):
            loaded_with("0.21.9", patch)
    monkeypatch.delattr(peft.tuners.tuners_utils, "check_adapters_to_merge")
    with pytest.raises(MissingExtraError, match=r"tested up to 0\.21; found 0\.21\.9: .*check_adapters_to_merge"):
        loaded_with("0.21.9", monkeypatch)


def test_registering_twice_changes_nothing() -> None:
    before = len(peft.PEFT_TYPE_TO_CONFIG_MAPPING), len(peft.PEFT_TYPE_TO_TUNER_MAPPING)
    hf.register()
    assert (len(peft.PEFT_TYPE_TO_CONFIG_MAPPING), len(peft.PEFT_TYPE_TO_TUNER_MAPPING)) == before
    assert peft.PEFT_TYPE_TO_TUNER_MAPPING["QAS_CIRCUIT"] is CircuitModel  # type: ignore[index]
