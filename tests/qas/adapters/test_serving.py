"""Adapters of many users as packed bytes, against the same users as adapters of their own."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import runpy
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("peft")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from qas.adapters.architecture import Architecture
from qas.adapters.hf import CircuitAdapterConfig, CircuitLayer, packed_adapters
from qas.adapters.packed import JointForm
from qas.adapters.quantize import angles_from_codes
from qas.adapters.serving import AdapterStore, _rows
from qas.errors import QasError, RunError

pytestmark = [
    pytest.mark.peft,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

IDS = torch.arange(30).reshape(5, 6)
NAMES = ["ben", "__base__", "ann", "cleo", "ben"]
FORMS: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "two layers of 3 bits": {"layers": 2, "bits": 3},
    "1 bit": {"bits": 1, "target_modules": ["c_attn"]},
    "rotation": {"form": "rotation", "bits": 5},
    "output rotation": {"form": "rotation", "side": "output", "bits": 8},
}


def gpt2() -> Any:
    """Layers from 32 to 96 and from 48 to 32 features."""
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at first, and rotations of outputs leave them out
                parameter.normal_(std=0.3)
    return model


def settings_of(**changes: Any) -> CircuitAdapterConfig:
    return CircuitAdapterConfig(**({"rank": 4, "target_modules": ["c_attn", "c_proj"]} | changes))


def shaken(model: Any, seed: int) -> None:
    """The model's adapter of another user."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qas_circuit" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def stored(**changes: Any) -> tuple[AdapterStore, dict[str, Tensor]]:
    """A store of three users, and what the model answers with each one's adapter as its own."""
    model = get_peft_model(gpt2(), settings_of(**changes)).eval()
    store = AdapterStore(model)
    alone = {"__base__": logits(gpt2())}
    for seed, user in enumerate(("ann", "ben", "cleo")):
        shaken(model, seed)
        store[user] = store.packed()
        alone[user] = logits(model)
    return store, alone


def logits(model: Any, ids: Tensor = IDS, **named: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **named).logits


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_each_row_is_that_of_its_user(changes: dict[str, Any]) -> None:
    store, alone = stored(**changes)
    assert store.size == 12 + sum(-(-a.stored_bits // 8) for a in store._pattern) == store.bytes_packed / 3
    found = logits(store.model, adapter_names=store.rows(NAMES))
    for k, user in enumerate(NAMES):
        assert torch.allclose(found[k], alone[user][k], atol=1e-5)
    assert not torch.allclose(alone["ann"], alone["ben"], atol=1e-3)
    # Outside such batches the model computes with its own adapter.
    assert torch.equal(logits(store.model), alone["cleo"])


@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_are_read_as_an_adapter_reads_its_own(bits: int) -> None:
    store, _ = stored(bits=bits)
    rows = _rows([store["ben"], store["cleo"]])
    for k, row in enumerate(rows):
        forms = JointForm(packed_adapters(store.model, "default")).split(row).values()
        for adapter, form, (angles, values) in zip(store._pattern, forms, store._decoded(rows), strict=True):
            halves = np.frombuffer(form.numpy().tobytes()[: 4 + 2 * adapter.n_values], "<f2").astype(np.float32)
            digits = np.unpackbits(form.numpy()[4 + 2 * adapter.n_values :], bitorder="little")
            codes = digits[: adapter.n_angles * bits].reshape(-1, bits) @ (1 << np.arange(bits))
            low, step = torch.from_numpy(halves[:2])
            assert torch.equal(angles[k], angles_from_codes(torch.from_numpy(codes), low, step))
            np.testing.assert_array_equal(values[k].numpy(), halves[2:])


def test_bytes_are_those_of_the_file_that_peft_writes(tmp_path: Path) -> None:
    store, _ = stored(bits=8)
    cast(Any, store.model).save_pretrained(tmp_path)
    (packed,) = load_file(tmp_path / "adapter_model.safetensors").values()
    assert packed.numpy().tobytes() == store["cleo"]


def test_matrices_of_those_used_last_are_kept_and_follow_new_bytes() -> None:
    store, alone = stored(bits=8)
    store.kept = 2
    store.rows(["ann", "ben", "cleo"])
    assert list(store._users) == ["ben", "cleo"]
    held = store._users["ben"]
    store.rows(["ben", "ann"])
    assert list(store._users) == ["ben", "ann"] and store._users["ben"] is held
    per_user = sum(4 * (a.in_features + a.out_features + 1) * 4 for a in store._pattern)
    assert store.bytes_held == 2 * per_user
    store["ben"] = store["cleo"]
    found = logits(store.model, IDS[:1], adapter_names=store.rows(["ben"]))
    assert torch.allclose(found, alone["cleo"][:1], atol=1e-5)
    del store["ben"]
    assert sorted(store) == ["ann", "cleo"] and "ben" not in store._users
    store.kept = 0
    store.rows(["ann"])
    assert store.bytes_held == 0


def test_whatever_is_kept_users_are_served_from_the_bytes_they_have_now() -> None:
    store, _ = stored(bits=3, target_modules=["attn.c_proj"])
    contents = list(store.values())
    plain = AdapterStore(store.model, kept=0)
    plain.update(store)
    draws = random.Random(0)
    for kept in (0, 1, 2, 5):
        store.kept = kept
        for _ in range(15):
            user = draws.choice(["ann", "ben", "cleo", "dan"])
            store[user] = plain[user] = draws.choice(contents)
            if len(store) > 3:
                gone = draws.choice(sorted(store))
                del store[gone], plain[gone]
            names = draws.choices(sorted(store), k=4)
            for found, wanted in zip(matrices(store, names), matrices(plain, names), strict=True):
                assert torch.allclose(found, wanted, atol=1e-6)
            assert len(store._users) <= kept and store._users.keys() <= store.keys() and plain.bytes_held == 0


def matrices(store: AdapterStore, names: list[str]) -> list[Tensor]:
    users = store.rows(names)._users
    return [block for name in names for _, block in users[name].parts]  # type: ignore[misc]


def test_bytes_that_change_while_matrices_are_made_of_the_old_ones_are_served_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, _ = stored(bits=3, target_modules=["attn.c_proj"])
    made = store._made

    def slow(late: Any) -> Any:
        found = made(late)
        store["ann"] = store["ben"]  # as another thread may
        return found

    monkeypatch.setattr(store, "_made", slow)
    old, new = matrices(store, ["ann"]), matrices(store, ["ann"])
    monkeypatch.undo()
    assert all(map(torch.equal, new, matrices(store, ["ben"]))) and not torch.equal(old[0], new[0])


def test_users_come_back_from_a_folder(tmp_path: Path) -> None:
    store, alone = stored(bits=8)
    size = store.save(tmp_path / "users")
    assert sorted(p.name for p in (tmp_path / "users").iterdir()) == ["adapter_config.json", "adapters.safetensors"]
    assert size == sum(p.stat().st_size for p in (tmp_path / "users").iterdir())
    again = AdapterStore.load(gpt2(), tmp_path / "users")
    assert dict(again) == dict(store)
    found = logits(again.model, adapter_names=again.rows(NAMES))
    assert torch.allclose(found, torch.stack([alone[user][k] for k, user in enumerate(NAMES)]), atol=1e-5)
    twin = copy.deepcopy(again)
    assert again.bytes_held > 0 == twin.bytes_held and dict(twin) == dict(store)
    assert torch.equal(logits(twin.model, adapter_names=twin.rows(NAMES)), found)
    with pytest.raises(RunError, match="new or empty"):
        store.save(tmp_path / "users")
    about = json.loads((tmp_path / "users" / "adapter_config.json").read_text())
    (tmp_path / "users" / "adapter_config.json").write_text(json.dumps(about | {"bits": 7}))
    with pytest.raises(QasError, match="bytes, got"):
        AdapterStore.load(gpt2(), tmp_path / "users")
    (tmp_path / "users" / "adapters.safetensors").write_bytes(b"1234")
    with pytest.raises(RunError, match="damaged or cut short"):
        AdapterStore.load(gpt2(), tmp_path / "users")


def test_a_trained_head_stays_that_of_the_model_and_other_layers_pass_rows_on() -> None:
    config = gpt2().config
    config.pad_token_id = 0
    kind = GPT2ForSequenceClassification(config).eval()
    model = get_peft_model(kind, settings_of(bits=8, target_modules=["c_attn"], modules_to_save=["score"]))
    model.add_adapter("other", settings_of(target_modules=["c_fc"], init_weights=False))
    shaken(model.eval(), 0)
    with torch.no_grad():
        kind.score.modules_to_save["default"].weight.add_(1.0)
    store = AdapterStore(model)
    store["ann"] = store.packed()
    found, alone = logits(model, adapter_names=store.rows(["ann"] * 5)), logits(model)
    assert torch.allclose(found, alone, atol=1e-5)
    with model.disable_adapter():
        assert not torch.allclose(alone, logits(model), atol=1e-3)
    with pytest.raises(QasError, match="got a layer of another"):
        logits(get_peft_model(gpt2(), settings_of()).eval(), adapter_names=store.rows(["ann"] * 5))


def entangled(other: int) -> Architecture:
    return Architecture(5, (*(("ry", (q,)) for q in range(5)), ("cz", (0, other)), ("ry", (0,))))


ONE: dict[str, Any] = {"circuit": entangled(1), "target_modules": ["attn.c_proj"]}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (ONE, ONE | {"scale": 2.0}),
        (ONE, ONE | {"circuit": entangled(2)}),
        (ONE | {"form": "rotation"}, ONE | {"form": "rotation", "side": "output"}),
    ],
    ids=["scale", "circuit", "side"],
)
def test_bytes_of_other_settings_are_refused_however_many_they_are(own: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (AdapterStore(get_peft_model(gpt2(), settings_of(bits=8, **one)).eval()) for one in (own, other))
    first["ann"] = first.packed()
    assert first.size == second.size
    with pytest.raises(QasError, match="does not fit: .* with other names or settings"):
        second["ann"] = first["ann"]


def test_what_cannot_be_served_is_refused() -> None:
    store, _ = stored(bits=8)
    bad = bytearray(store["ann"])
    bad[12:14] = b"\x00\x7e"  # NaN
    bad[8:12] = zlib.crc32(bad[12:]).to_bytes(4, "little")
    others, _ = stored(bits=8, target_modules=["c_attn"])
    loose, _ = stored(bits=3, circuit=entangled(1), target_modules=["attn.c_proj"])
    spilled = bytearray(loose["ann"])
    spilled[-1] |= 0x80  # behind the last of 12 codes of 3 bits
    spilled[8:12] = zlib.crc32(spilled[12:]).to_bytes(4, "little")
    with pytest.raises(QasError, match="of 'dan' does not fit: bits after the last of 12 codes of 3 bits are 0"):
        loose["dan"] = bytes(spilled)
    torn = store["ann"][:-1] + bytes([store["ann"][-1] ^ 1])
    for user, packed, words in (
        ("dan", b"123", f"is {store.size} bytes, got 3 bytes"),
        ("dan", "text", "got str"),
        ("dan", bytes(bad), "finite"),
        ("dan", torn, "of 'dan' does not fit: .* these are damaged: their checksum"),
        ("dan", others["ann"], f"is {store.size} bytes, got {others.size}"),
        ("__base__", store["ann"], "named by text other than"),
        (3, store["ann"], "named by text"),
    ):
        with pytest.raises(QasError, match=words) as caught:
            store[user] = packed  # type: ignore[index, assignment]
        assert "\n" not in str(caught.value)
    with pytest.raises(QasError, match="has 3 users, and not 'dan'"):
        store.rows(["ann", "dan"])
    with pytest.raises(QasError, match="got 5 and 2"):
        logits(store.model, IDS[:2], adapter_names=store.rows(NAMES))
    store.model.train()
    with pytest.raises(QasError, match="in training mode"):
        store.model(input_ids=IDS, adapter_names=store.rows(NAMES))
    for config in (settings_of(), settings_of(circuit="taylor", bits=4)):
        with pytest.raises(QasError, match="need bits, and no taylor map"):
            AdapterStore(get_peft_model(gpt2(), config))
    lora = get_peft_model(gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with pytest.raises(QasError, match="the circuit adapter 'default', got none"):
        AdapterStore(lora)
    assert not any(isinstance(m, CircuitLayer) for m in lora.modules())


def test_the_example_serves_what_its_users_learned(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_many.py", "--users", "3"])
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "serve_many.py"), run_name="__main__")
    sizes, batch, likeness, off = capsys.readouterr().out.splitlines()
    assert sizes.startswith("3 users, 220 bytes each") and "a batch of 6 rows" in batch
    plain, ours = (float(word) for word in re.findall(r"0\.\d+", likeness))
    assert ours > plain + 0.01 and float(off.split()[-1]) < 1e-5
