"""Batches whose rows name their adapters, against the same rows one by one through the adapter that is active."""

from __future__ import annotations

import copy
import gc
import os
import random
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from qas.adapters.hf import CircuitAdapterConfig, CircuitLayer
from qas.adapters.mixed import MixedBank, Rows
from qas.adapters.serving import AdapterStore
from qas.errors import QasError
from qas.finetuning.methods import RandomSubspace

pytestmark = [
    pytest.mark.peft,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

IDS = torch.arange(30).reshape(5, 6)
USERS = ["ann", "ben", "cleo"]
NAMES = ["ben", "__base__", "ann", "cleo", "ben"]
FORMS: dict[str, dict[str, Any]] = {
    "frames": {},
    "two layers of 3 bits": {"layers": 2, "bits": 3},
    "taylor": {"circuit": "taylor"},
    "rotation": {"form": "rotation"},
    "output rotation": {"form": "rotation", "side": "output", "bits": 8},
}


def settings_of(**changes: Any) -> CircuitAdapterConfig:
    return CircuitAdapterConfig(**({"rank": 4, "target_modules": ["c_attn", "c_proj"]} | changes))


def gpt2() -> Any:
    """Layers of transformers' Conv1D, from 32 to 96 and 48 to 32 features."""
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at first, and rotations of outputs leave them out
                parameter.normal_(std=0.3)
    return model


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForSequenceClassification(LlamaConfig(**sizes, vocab_size=64, pad_token_id=0))


def served(base: nn.Module, **configs: CircuitAdapterConfig) -> Any:
    """Adapters off their start, in evaluation mode."""
    (first, config), *others = configs.items()
    model = get_peft_model(base, config, adapter_name=first)
    for name, config in others:
        model.add_adapter(name, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qas_circuit" in name or "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def alike(base: nn.Module | None = None, **changes: Any) -> Any:
    return served(base or gpt2(), **{name: settings_of(**changes) for name in USERS})


def logits(model: Any, ids: Tensor = IDS, **named: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **named).logits


def one_by_one(model: Any, names: Sequence[str], ids: Tensor = IDS) -> Tensor:
    found = []
    for name, row in zip(names, ids, strict=True):
        if name == "__base__":
            with model.disable_adapter():
                found.append(logits(model, row[None]))
        else:
            model.set_adapter(name)
            found.append(logits(model, row[None]))
    return torch.cat(found)


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def bank(model: Any) -> Any:
    return model.base_model.mixed


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "names",
    [NAMES, ["ann", "ben", "cleo", "ann", "ben"], ["__base__"] * 5, ["cleo"]],
    ids=["some", "every", "base", "one"],
)
def test_each_row_goes_through_its_own_adapter(changes: dict[str, Any], names: list[str]) -> None:
    model, ids = alike(**changes), IDS[: len(names)]
    together = logits(model, ids, adapter_names=names)
    assert gap(together, one_by_one(model, names, ids)) < 1e-5
    with model.disable_adapter():
        assert bool(gap(together, logits(model, ids)) > 1e-3) == (set(names) != {"__base__"})


def test_adapters_of_other_forms_ranks_and_layers_share_a_batch() -> None:
    model = served(
        gpt2(),
        ann=settings_of(),
        ben=settings_of(rank=2, bits=8, target_modules=["c_attn"]),
        cleo=settings_of(form="rotation", layers_to_transform=[1], layers_pattern="h"),
        dora=settings_of(form="rotation", side="output", target_modules=["c_fc"]),
    )
    names = ["dora", "cleo", "ben", "ann", "__base__"]
    assert gap(logits(model, adapter_names=names), one_by_one(model, names)) < 1e-5


def test_heads_that_are_trained_as_a_whole_are_chosen_by_row_too() -> None:
    model = alike(llama(), target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    names = ["ann", "ben", "cleo", "ben", "ann"]
    together = logits(model, adapter_names=names)
    assert gap(together, one_by_one(model, names)) < 1e-5
    assert (
        len({round(float(value), 5) for value in logits(model, IDS[:1].expand(5, 6), adapter_names=names)[:, 0]}) == 3
    )


def test_a_model_in_half_precision_serves_mixed_batches() -> None:
    model = alike(gpt2().bfloat16())
    assert gap(logits(model, adapter_names=NAMES), one_by_one(model, NAMES)) < 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 2},
        {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
        {"num_return_sequences": 3, "do_sample": True, "top_k": 1},
    ],
    ids=str,
)
def test_texts_are_written_by_the_adapter_of_each_row(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 64}
    model = alike(
        T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)), target_modules=["q", "v"], rank=2
    )
    settings = settings | {"max_new_tokens": 4, "min_new_tokens": 4}
    together = model.generate(input_ids=IDS, adapter_names=NAMES, **settings)
    times = len(together) // len(IDS)
    for k, name in enumerate(NAMES):
        model.set_adapter("ann" if name == "__base__" else name)
        row = slice(times * k, times * (k + 1))
        if name == "__base__":
            with model.disable_adapter():
                alone = model.generate(input_ids=IDS[k : k + 1], **settings)
        else:
            alone = model.generate(input_ids=IDS[k : k + 1], **settings)
        assert torch.equal(together[row], alone)


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_gradients_are_those_of_the_rows_one_by_one(changes: dict[str, Any]) -> None:
    model, names = alike(**changes), ["ann", "ben", "ann"]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters = {
        n: p.requires_grad_() for n, p in model.named_parameters() if "qas_circuit" in n and ".cleo." not in n
    }
    model(input_ids=IDS[:3], adapter_names=names).logits.square().sum().backward()
    found = {name: parameter.grad for name, parameter in parameters.items()}
    model.zero_grad()
    for k, name in enumerate(names):
        model.set_adapter(name)
        for parameter in parameters.values():
            parameter.requires_grad_()
        model(input_ids=IDS[k : k + 1]).logits.square().sum().backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None and found[name] is not None
        assert gap(found[name], parameter.grad) < 1e-4 * float(parameter.grad.abs().max()) + 1e-5


@pytest.mark.parametrize("way", ["in place", "data", "state dict", "another"])
def test_matrices_are_kept_between_batches_until_their_angles_change(way: str) -> None:
    model = alike(bits=8)
    before = logits(model, adapter_names=NAMES)
    held = dict(bank(model)._users)
    assert gap(before, logits(model, adapter_names=NAMES)) == 0
    assert all(bank(model)._users[name] is user for name, user in held.items()) and set(held) == {"ann", "ben", "cleo"}
    layer = next(m for m in model.modules() if isinstance(m, CircuitLayer))
    adapter: Any = layer.qas_circuit_adapters["ben"]
    with torch.no_grad():
        if way == "in place":
            adapter.angles.add_(0.5)
        elif way == "data":
            adapter.values.data = adapter.values.data + 0.5
        elif way == "state dict":
            other = copy.deepcopy(adapter)
            other.values.add_(0.5)
            adapter.load_state_dict(dict(other.named_parameters()), strict=False)
        else:
            model.delete_adapter("ben")
            model.add_adapter("ben", settings_of(bits=8))
    after = logits(model, adapter_names=NAMES)
    assert gap(after, one_by_one(model, NAMES)) < 1e-5 and gap(after[[1, 2, 3]], before[[1, 2, 3]]) < 1e-5
    assert gap(after[0], before[0]) > 1e-3
    assert bank(model)._users["ann"] is held["ann"]


def test_the_names_used_last_are_kept_and_no_more_than_asked_for() -> None:
    model = alike()
    bank(model).kept = 2
    for names in (["ann", "ben"], ["cleo", "ann"]):
        logits(model, IDS[:2], adapter_names=names)
    assert list(bank(model)._users) == ["ann", "cleo"] or list(bank(model)._users) == ["cleo", "ann"]
    full = bank(model).bytes_held
    assert gap(logits(model, adapter_names=NAMES), one_by_one(model, NAMES)) < 1e-5  # more than are kept
    assert bank(model).bytes_held == full
    bank(model).kept = 0
    logits(model, adapter_names=NAMES)
    assert bank(model).bytes_held == 0
    with pytest.raises(QasError, match="the number of adapters kept"):
        bank(model).kept = -1


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_whatever_is_kept_rows_are_those_of_a_bank_that_keeps_nothing(kept: int) -> None:
    model = alike(target_modules=["attn.c_proj"], bits=8)
    tables = [m.qas_circuit_adapters for m in model.modules() if isinstance(m, CircuitLayer)]
    ours, plain, draws = MixedBank(kept), MixedBank(0), random.Random(kept)
    for _ in range(30):
        with torch.no_grad():
            adapter: Any = tables[draws.randrange(2)][draws.choice(USERS)]
            way = draws.choice(["nothing", "in place", "data", "another"])
            if way == "in place":
                adapter.angles.add_(0.5)
            elif way == "data":
                adapter.values.data.mul_(1.5).add_(0.1)
            elif way == "another":
                adapter.angles = nn.Parameter(adapter.angles.flip(0))
            names = draws.choices([*USERS, "__base__"], k=4)
            x = torch.ones(4, 1, 32)
            found, wanted = (tables_through(bank.rows(names, tables), tables, x) for bank in (ours, plain))
        assert gap(found, wanted) < 1e-6
        assert len(ours._users) <= kept and not plain._users
    assert ours.bytes_held == len(ours._users) * 2 * 4 * (32 + 32 + 1) * 4


def tables_through(rows: Rows, tables: Sequence[Any], x: Tensor) -> Tensor:
    return torch.cat([rows.through(table, x, lambda value: 0 * value) for table in tables])


def test_rows_outlive_what_is_kept_and_matrices_a_deleted_adapter_does_not() -> None:
    model = alike()
    tables = [m.qas_circuit_adapters for m in model.modules() if isinstance(m, CircuitLayer)]
    bank(model).kept = 1
    with torch.no_grad():
        rows = bank(model).rows(["ann", "ben"], tables)
        bank(model).rows(["cleo"], tables)
    found = logits(model, IDS[:2], adapter_names=rows)
    assert gap(found, one_by_one(model, ["ann", "ben"], IDS[:2])) < 1e-5
    adapter = weakref.ref(tables[0]["cleo"])
    assert list(bank(model)._users) == ["cleo"]
    model.delete_adapter("cleo")
    gc.collect()
    assert bank(model).bytes_held == 0 and adapter() is None


def test_what_inference_made_serves_a_later_backward_pass() -> None:
    model = alike()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        model(input_ids=IDS, adapter_names=NAMES)
    head = model.base_model.model.transformer.ln_f.weight.requires_grad_()
    embedded = model.get_input_embeddings().weight.requires_grad_()
    model(input_ids=IDS, adapter_names=NAMES).logits.square().sum().backward()
    assert head.grad is not None and bool(embedded.grad.any())


def test_threads_and_copies_are_served() -> None:
    model = alike()
    bank(model).kept = 1
    wanted = {name: one_by_one(model, [name, "__base__"] * 2, IDS[:4]) for name in USERS}
    twin = copy.deepcopy(model)
    assert gap(logits(twin, IDS[:4], adapter_names=["ann", "__base__"] * 2), wanted["ann"]) < 1e-5
    table = [m for m in model.modules() if isinstance(m, CircuitLayer)]
    gaps: list[float] = []

    @torch.no_grad()
    def serve(name: str) -> None:
        x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
        layer = table[0]
        for _ in range(20):
            rows = bank(model).rows([name, "__base__", name], [m.qas_circuit_adapters for m in table])
            out = layer(x, adapter_names=rows)
            alone = layer(x, adapter_names=[name, "__base__", name])
            gaps.append(gap(out, alone))

    threads = [threading.Thread(target=serve, args=(name,)) for name in USERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gaps) == 60 and max(gaps) < 1e-6


def test_what_cannot_be_served_is_told() -> None:
    model = alike()
    with pytest.raises(QasError, match=r"non-existing adapter\(s\): dora, eve; there are ann, ben, cleo"):
        logits(model, adapter_names=["ann", "dora", "eve", "ann", "ann"])
    with pytest.raises(QasError, match="Length of `adapter_names` .*got 2 and 5 respectively"):
        logits(model, adapter_names=["ann", "ben"])
    assert gap(logits(model), one_by_one(model, ["ann"] * 5)) < 1e-5  # the refused batch left nothing behind
    with pytest.raises(QasError, match="when the model is in training mode"):
        model.train()(input_ids=IDS, adapter_names=NAMES)
    model.eval().merge_adapter(["ben"])
    with pytest.raises(QasError, match="there are merged adapters, .*, got ben merged"):
        logits(model, adapter_names=NAMES)
    layer = next(m for m in model.modules() if isinstance(m, CircuitLayer))
    with pytest.raises(QasError, match="there are merged adapters, .*, got ben merged"):
        layer(torch.zeros(1, 1, 32), adapter_names=["ann"])


def test_adapters_that_are_no_circuits_are_refused_in_one_line(tmp_path: Path) -> None:
    model = get_peft_model(gpt2(), RandomSubspace(size=8, bits=4).config(None, ".*c_attn")).eval()
    with pytest.raises(QasError, match="rows of a batch go through circuits, got ParametrizedRandomSubspaceAdapter"):
        logits(model, adapter_names=["default"] * 5)
    with pytest.raises(QasError, match="a store holds circuits of few bits"):
        AdapterStore(model)
    for use in (lambda: model.save_pretrained(str(tmp_path)), lambda: set_peft_model_state_dict(model, {})):
        with pytest.raises(QasError, match="peft's files hold circuits, got .* in transformer.h.0.attn.c_attn"):
            use()
