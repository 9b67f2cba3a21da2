"""Fine-tuning: figures counted by hand, what is saved comes back, splits stay apart, wrong calls end in one line."""

from __future__ import annotations

import json
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import qas
from qas.finetuning import finetune as module
from qas.adapters.architecture import Architecture
from qas.circuits import Circuit
from qas.cli import main
from qas.errors import QasError, RunError, UnknownNameError
from qas.finetuning.backbones import ByteGpt, VisionTransformer, save_backbone
from qas.finetuning.finetune import (
    METHODS,
    Outcome,
    Settings,
    attach,
    detach,
    finetune,
    load,
    outputs,
    prepare_head,
    resolve,
    save,
    score,
    total_bits,
    train,
)
from qas.finetuning.lowrank import LoraAdapter
from qas.finetuning.tasks import Split, Task

Capture = pytest.CaptureFixture[str]

CIRCUIT = Circuit(4, [("ry", (q,), 0.0) for q in range(4)] + [("cz", (0, 1)), ("ry", (1,), 0.0), ("ry", (0,), 0.0)])
SIDES = 2  # q and v of the one block


def vit(depth: int = 1, dim: int = 16, size: int = 16) -> VisionTransformer:
    model = VisionTransformer(image_size=size, patch=8, dim=dim, depth=depth, heads=2, n_classes=3, seed=1)
    return model.eval()


def toy(seed: int = 0, n: int = 40) -> Task:
    """How bright a noisy image is."""
    rng = np.random.default_rng(seed)

    def split(size: int) -> Split:
        labels = rng.integers(0, 4, size)
        images = rng.normal(scale=0.3, size=(size, 16, 16)).astype(np.float32)
        return Split(images + 0.6 * labels[:, None, None].astype(np.float32) - 0.9, labels)

    return Task("toy", "image", split(n), split(n // 4), split(n), 4, "accuracy")


def prose(n: int = 20) -> Task:
    """A byte follows its predecessor in the alphabet, mostly."""
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        text = (rng.integers(0, 8, (size, 1)) + np.arange(9)) % 8 + 97
        return Split(text[:, :-1].copy(), text[:, 1:].copy())

    return Task("abc", "text", split(n), split(5), split(5), 256, "bits_per_byte")


def architecture(method: str) -> Architecture | None:
    return Architecture.from_circuit(CIRCUIT) if method.startswith("searched") else None


def settings(method: str, **more: Any) -> Settings:
    return Settings(method, **{"epochs": 2, "batch": 20} | more)


def tuned(method: str, task: Task | None = None, **more: Any) -> tuple[VisionTransformer, Outcome, Any, Any]:
    model = vit()
    found = finetune(model, task or toy(), settings(method, **more), architecture(method))
    return model, *found


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# ---------------------------------------------------------------------- figures
DESCRIPTION = Architecture.from_circuit(CIRCUIT).description_bits
VIT_PARAMETERS = sum(p.numel() for n, p in vit().named_parameters() if not n.startswith("head."))
FIGURES: list[tuple[str, dict[str, Any], int, int]] = [
    # (method, settings, parameters, bits) on two layers from 16 to 16 features, or beside one MLP
    ("searched", {}, SIDES * (2 * 6 + 8), 32 * SIDES * (2 * 6 + 8) + DESCRIPTION),
    ("searched", {"bits": 4, "rank": 3}, SIDES * (2 * 6 + 3), SIDES * (4 * 12 + 32 + 16 * 3) + DESCRIPTION),
    ("searched-rotation", {}, SIDES * 6, 32 * SIDES * 6 + DESCRIPTION),
    ("searched-rotation", {"bits": 8}, SIDES * 6, SIDES * (8 * 6 + 32) + DESCRIPTION),
    ("quantum-peft", {}, SIDES * (2 * 10 + 8), 32 * SIDES * 28),
    ("quantum-peft", {"layers": 2, "bits": 8}, SIDES * (2 * 16 + 8), SIDES * (8 * 32 + 32 + 16 * 8)),
    ("quantum-peft-rotation", {}, SIDES * 10, 32 * SIDES * 10),
    ("taylor", {"rank": 2}, SIDES * (2 * 15 + 2), 32 * SIDES * 32),
    ("taylor", {"layers": 2, "bits": 2}, SIDES * (2 * 29 + 8), SIDES * (2 * 58 + 32 + 16 * 8)),
    ("lora", {}, SIDES * 2 * 16 * 8, 16 * SIDES * 2 * 16 * 8),
    ("lora", {"rank": 1, "targets": ("fc1",)}, 16 + 64, 16 * 80),
    ("bi-lora", {}, SIDES * 2 * 16 * 8, SIDES * 2 * (16 * 8 + 64)),
    ("bi-lora", {"rank": 3, "bits": 2}, SIDES * 2 * 16 * 3, SIDES * 2 * (2 * 16 * 3 + 64)),
    ("adaptformer", {}, 2 * 16 * 8, 16 * 2 * 16 * 8),
    ("bi-adaptformer", {"rank": 5}, 2 * 16 * 5, 2 * (16 * 5 + 64)),
    ("vera", {"rank": 4}, SIDES * (16 + 4), SIDES * (16 * 20 + 32)),
    ("random-subspace", {"size": 30}, SIDES * 30, SIDES * (16 * 30 + 32)),
    ("random-subspace", {"size": 30, "bits": 8}, SIDES * 30, SIDES * (8 * 30 + 32 + 32)),
    ("linear-probe", {}, 0, 0),
    ("full", {}, VIT_PARAMETERS, 32 * VIT_PARAMETERS),
]


def test_every_method_is_counted_by_hand() -> None:
    assert {method for method, *_ in FIGURES} == set(METHODS)


@pytest.mark.parametrize(("method", "chosen", "parameters", "bits"), FIGURES, ids=[f"{f[0]}{f[1]}" for f in FIGURES])
def test_figures_are_those_counted_by_hand_and_files_come_back(
    method: str, chosen: dict[str, Any], parameters: int, bits: int, tmp_path: Path
) -> None:
    task = toy()
    start = weights(vit())
    model, outcome, adapters, history = tuned(method, task, **chosen)
    assert (outcome.trainable, outcome.adapter_bits) == (parameters, bits)
    assert outcome.head_parameters == 16 * 4 + 4
    assert (outcome.metric, outcome.epochs, outcome.chance) == ("accuracy", 2, task.chance)
    # What was counted is what is stored, up to the last byte of each tensor.
    folder = tmp_path / "out"
    origin = {"task": "toy"}
    given = settings(method, **chosen)
    circuit = architecture(method)
    size = save(folder, given, adapters, outcome, history, model=model, circuit=circuit, origin=origin)
    stored = load_file(folder / "adapter.safetensors")
    payload = sum(8 * t.numel() * t.element_size() for t in stored.values())
    described = 0 if circuit is None else DESCRIPTION
    assert 0 <= payload - (bits - described) < 8 * max(1, len(stored))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert size == (folder / "adapter.safetensors").stat().st_size == metrics.pop("file_bytes")
    assert metrics == vars(outcome)
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    assert (folder / "curve.png").stat().st_size > 1000
    # It computes with the stored form already, and a fresh model does the same.
    again = vit()
    found, loaded = load(folder, again)
    assert found == given and list(loaded) == list(adapters)
    assert torch.equal(outputs(again, task.test), outputs(model, task.test))
    assert score(again, task.test, "accuracy") == outcome.test
    # The frozen part is as it was.
    detach(model, adapters)
    if method != "full":
        end = weights(model)
        assert end.keys() == start.keys()
        assert all(torch.equal(end[n], start[n]) for n in start if not n.startswith("head."))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "linear-probe"])
def test_adapters_are_trained(method: str) -> None:
    model, _, adapters, _ = tuned(method, scale=2.0 if method == "lora" else None)
    assert any(float(p.abs().sum()) for a in adapters.values() for p in a.state_dict().values()) or method == "full"
    before = outputs(model, toy().test)
    detach(model, adapters)
    if method != "full":
        assert not torch.allclose(outputs(model, toy().test), before, atol=1e-6), "adapters do something"


def test_the_toy_task_is_learned() -> None:
    model, outcome, _, history = tuned("lora", toy(n=80), epochs=30, learning_rate=2e-2)
    assert outcome.test > 0.6 > outcome.chance + 0.2
    assert history[-1].loss < history[0].loss
    assert outcome.validation == history[-1].validation == score(model, toy(n=80).validation, "accuracy")


@pytest.mark.parametrize("method", ["linear-probe", "adaptformer", "full", "quantum-peft"])
def test_a_seed_fixes_everything_and_leaves_the_global_generators_alone(method: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, figures, _, history = tuned(method)
    assert torch.rand(1) == expected
    second, others, _, again = tuned(method)
    assert replace(figures, seconds=0) == replace(others, seconds=0)
    assert [(p.loss, p.validation) for p in history] == [(p.loss, p.validation) for p in again]
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(tuned(method, seed=1)[0]))


def test_the_stored_error_is_that_of_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuned("lora")[1].stored_error == 0.0
    pack = LoraAdapter.pack

    def coarse(self: LoraAdapter) -> dict[str, Tensor]:
        return {name: torch.zeros_like(tensor) for name, tensor in pack(self).items()}

    monkeypatch.setattr(LoraAdapter, "pack", coarse)
    model, outcome, adapters, _ = tuned("lora", scale=5.0, epochs=4)
    assert outcome.stored_error > 1e-3
    detach(model, adapters)
    assert outcome.test == score(model, toy().test, "accuracy"), "metrics are those of the stored form"


def test_large_outputs_are_judged_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finetune(gpt(), prose(), settings("lora"))[0]
    monkeypatch.setattr(module, "_OUTPUTS", 2 * 256 * 8)
    seen = []
    forward = ByteGpt.forward
    monkeypatch.setattr(ByteGpt, "forward", lambda self, x: seen.append((self.training, len(x))) or forward(self, x))
    parts = finetune(gpt(), prose(), settings("lora"))[0]
    assert max(n for training, n in seen if not training) == 2
    assert (parts.test, parts.validation) == pytest.approx((whole.test, whole.validation), rel=1e-6)


# ---------------------------------------------------------------------- splits
def test_test_and_validation_examples_never_reach_the_training() -> None:
    task, other = toy(0), toy(1)
    first = tuned("lora", task)[0]
    assert same(weights(first), weights(tuned("lora", replace(task, test=other.test))[0]))
    assert same(weights(first), weights(tuned("lora", replace(task, validation=other.validation))[0]))
    assert not same(weights(first), weights(tuned("lora", replace(task, train=other.train))[0]))


def test_validation_examples_are_trained_on_where_asked_for() -> None:
    task = toy()
    model = vit()
    finetune(model, task, settings("lora"), with_validation=True)
    joined = replace(task, train=task.train_and_validation)
    assert same(weights(model), weights(tuned("lora", joined)[0]))


def test_the_metric_is_that_after_the_last_epoch() -> None:
    model, outcome, _, history = tuned("full", epochs=4, learning_rate=0.02)
    assert [p.epoch for p in history] == [1, 2, 3, 4]
    assert outcome.test == score(model, toy().test, "accuracy")
    assert outcome.validation == history[-1].validation


# ---------------------------------------------------------------------- text
def gpt(context: int = 16) -> ByteGpt:
    return ByteGpt(dim=16, depth=1, heads=2, context=context, seed=2).eval()


@pytest.mark.parametrize("method", ["lora", "quantum-peft", "bi-adaptformer", "full"])
def test_text_keeps_the_head_of_the_model(method: str, tmp_path: Path) -> None:
    model = gpt()
    head = weights(model.head)
    outcome, adapters, history = finetune(model, prose(), settings(method, epochs=3))
    assert outcome.metric == "bits_per_byte" and outcome.head_parameters == 0
    assert same(weights(model.head), head) == (method != "full")
    if method == "full":
        assert outcome.trainable == sum(p.numel() for p in model.parameters())
    save(tmp_path / "out", settings(method, epochs=3), adapters, outcome, history, model=model, circuit=None, origin={})
    assert not (tmp_path / "out" / "head.safetensors").exists()
    again = gpt()
    load(tmp_path / "out", again)
    assert torch.equal(outputs(again, prose().test), outputs(model, prose().test))


def test_bits_per_byte_are_the_mean_code_length() -> None:
    task, model = prose(), gpt()
    odds = torch.log_softmax(outputs(model, task.test), -1)
    wanted = -float(odds.gather(-1, torch.from_numpy(task.test.labels)[..., None]).mean()) / math.log(2)
    assert score(model, task.test, "bits_per_byte", 2) == pytest.approx(wanted, rel=1e-5)


def test_a_head_of_text_can_be_adapted() -> None:
    outcome, adapters, _ = finetune(gpt(), prose(), settings("lora", targets=("head",), rank=2))
    assert list(adapters) == ["head"] and outcome.trainable == 2 * (16 + 256)


# ---------------------------------------------------------------------- on and off
def shaken(adapters: Any) -> None:
    """Parameters away from where the adapter is the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for adapter in adapters.values():
            for parameter in adapter.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("method", METHODS)
def test_adapters_come_off_without_a_trace(method: str) -> None:
    model, task = vit(2), toy()
    before, plain = outputs(model, task.test), weights(model)
    adapters = attach(model, settings(method), architecture(method))
    assert all(p.requires_grad for a in adapters.values() for p in a.parameters())
    frozen = [p for n, p in model.named_parameters() if not any(n.startswith(f"{a}.adapter") for a in adapters)]
    if adapters and "adaptformer" not in method:
        assert not any(p.requires_grad for p in frozen)
    shaken(adapters)
    detach(model, adapters)
    assert same(weights(model), plain) and torch.equal(outputs(model, task.test), before)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("adaptformer", "bi-adaptformer")])
def test_merging_keeps_the_outputs(method: str) -> None:
    model, task = vit(2), toy()
    model.replace_head(4)
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    targets = ("q", "v") if method == "searched" else ("q", "v", "fc1")
    adapters = attach(model, settings(method, targets=targets), architecture(method))
    plain = outputs(model, task.test)
    shaken(adapters)
    changed = outputs(model, task.test)
    assert not adapters or not torch.allclose(changed, plain, atol=1e-3)
    detach(model, adapters, merge=True)
    assert not any(isinstance(m, module.AdaptedLayer) for m in model.modules())
    assert torch.allclose(outputs(model, task.test), changed, atol=1e-5)


def test_an_adaptformer_is_not_merged_and_stays() -> None:
    model = vit(2)
    adapters = attach(model, settings("adaptformer"))
    assert list(adapters) == ["blocks.0.parallel", "blocks.1.parallel"]
    shaken(adapters)
    before = outputs(model, toy().test)
    with pytest.raises(QasError, match="cannot be merged"):
        detach(model, adapters, merge=True)
    assert torch.equal(outputs(model, toy().test), before)


def test_weights_that_are_not_finite_are_not_merged() -> None:
    model = vit()
    adapters = attach(model, settings("lora"))
    with torch.no_grad():
        adapters["blocks.0.attention.q"].down.weight.fill_(math.inf)  # type: ignore[union-attr, operator]
    with pytest.raises(QasError, match="finite"):
        detach(model, adapters, merge=True)
    detach(model, adapters)
    assert same(weights(model), weights(vit()))


def test_a_linear_layer_named_parallel_is_an_ordinary_one() -> None:
    model = nn.Sequential()
    model.add_module("parallel", nn.Linear(8, 8))
    adapters = attach(model, settings("lora", targets=("parallel",), rank=2))
    assert isinstance(model.parallel, module.AdaptedLayer)
    shaken(adapters)
    x = torch.ones(1, 8)
    before = model(x)
    detach(model, adapters, merge=True)
    assert isinstance(model.parallel, nn.Linear) and torch.allclose(model(x), before, atol=1e-5)


WRONG_ON: list[tuple[Settings, str]] = [
    (settings("lora", targets=("w",)), "is named w; the model has embed, fc1, fc2, k, proj, q, v"),
    (settings("lora", targets=("q", "w")), "is named w"),
    (settings("lora", targets=("head",)), "is named head"),
    (settings("lora", rank=17), r"blocks.0.attention.q \(16 to 16 features\): rank is at most .* 16, got 17"),
    (settings("bi-adaptformer", rank=17), "rank is at most .* 16, got 17"),
    (settings("quantum-peft", rank=17), "rank is at most .* 16, got 17"),
    (settings("random-subspace", size=257), "at most .* 256, got 257"),
    (settings("taylor", layers=17), "intrinsic rank is at most"),
    (settings("searched"), "^method searched needs a run or an OpenQASM file$"),
    (settings("searched-rotation"), "^method searched-rotation needs a run"),
]


@pytest.mark.parametrize(("given", "words"), WRONG_ON, ids=[f"{w[0].method}-{w[1][:12]}" for w in WRONG_ON])
def test_settings_that_do_not_fit_leave_the_model_alone(given: Settings, words: str) -> None:
    model = vit()
    with pytest.raises(QasError, match=words) as caught:
        attach(model, given)
    assert "\n" not in str(caught.value)
    assert same(weights(model), weights(vit())) and all(p.requires_grad for p in model.parameters())


def test_circuits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(QasError, match=r"q \(16 to 16 features\): a circuit of 3 qubits fits layers of"):
        attach(vit(), settings("searched"), Architecture.from_circuit(Circuit(3, [("ry", (0,), 0.1)])))
    with pytest.raises(QasError, match="complex gates, two real features"):
        attach(vit(), settings("searched"), Architecture.from_circuit(Circuit(4, [("rx", (0,), 0.1)])))
    with pytest.raises(QasError, match="without: there would be nothing to train"):
        attach(vit(), settings("searched-rotation"), Architecture.from_circuit(Circuit(4, [("cz", (0, 1))])))
    attach(vit(), settings("searched"), Architecture.from_circuit(Circuit(3, [("rx", (0,), 0.1)])))
    with pytest.raises(QasError, match="goes with the methods searched and searched-rotation, got lora"):
        finetune(vit(), toy(), settings("lora"), CIRCUIT)


def test_a_model_takes_adapters_once() -> None:
    for method in ("lora", "adaptformer"):
        model = vit()
        attach(model, settings(method))
        with pytest.raises(QasError, match="carries adapters already"):
            attach(model, settings("lora"))
    with pytest.raises(QasError, match="needs a model of this package"):
        attach(nn.Sequential(nn.Linear(2, 2)), settings("adaptformer"))


def test_models_and_tasks_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(QasError, match="needs a backbone for image, got one of kind gpt"):
        finetune(gpt(), toy(), settings("lora"))
    with pytest.raises(QasError, match="needs a backbone for text, got one of kind vit"):
        finetune(vit(), prose(), settings("lora"))
    with pytest.raises(QasError, match="shape"):
        finetune(vit(size=32), toy(), settings("lora"))
    with pytest.raises(QasError, match="nothing to train"):
        finetune(gpt(), prose(), settings("linear-probe"))


def test_a_training_that_diverges_says_so() -> None:
    task = toy()
    broken = replace(task, train=Split(np.full_like(task.train.inputs, np.nan), task.train.labels))
    with pytest.raises(QasError, match="NaN or infinite in epoch 1; lower the learning rate"):
        finetune(vit(), broken, settings("lora"))


def test_the_heads_are_drawn_from_the_seed() -> None:
    first, second, other = vit(), vit(), vit()
    prepare_head(first, toy(), 3)
    prepare_head(second, toy(), 3)
    prepare_head(other, toy(), 4)
    assert torch.equal(first.head.weight, second.head.weight) and first.head.weight.shape == (4, 16)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_description_of_a_circuit_counts_once() -> None:
    circuit = Architecture.from_circuit(CIRCUIT)
    adapters = attach(vit(3), settings("searched"), circuit)
    assert total_bits(adapters.values(), circuit) == 6 * 32 * 20 + DESCRIPTION
    assert total_bits(adapters.values()) == 6 * 32 * 20


def test_circuit_layers_share_their_frames() -> None:
    adapters = attach(vit(2), settings("quantum-peft"))
    assert len({id(a.bank) for a in adapters.values()}) == 1  # type: ignore[union-attr]


def test_progress_tells_every_epoch() -> None:
    told: list[Any] = []
    model = vit()
    prepare_head(model, toy(), 0)
    adapters = attach(model, settings("lora", epochs=3))
    history = train(model, adapters, toy(), settings("lora", epochs=3), on_progress=told.append)
    assert told == history and [(p.epoch, p.epochs) for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.seconds for p in told) == [p.seconds for p in told]


# ---------------------------------------------------------------------- settings
BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "lorra"}, "did you mean 'lora'"),
    ({"method": "bi-lora", "bits": 0}, "got 0"),
    ({"method": "bi-lora", "bits": 9}, "got 9"),
    ({"method": "quantum-peft", "bits": True}, "bits"),
    ({"method": "lora", "bits": 4}, "lora has no bits to choose"),
    ({"method": "vera", "bits": 4}, "vera has no bits"),
    ({"method": "full", "bits": 4}, "full has no bits"),
    ({"method": "linear-probe", "bits": 4}, "linear-probe has no bits"),
    ({"method": "lora", "rank": 0}, "rank is at least 1, got 0"),
    ({"method": "lora", "rank": 1.5}, "rank is a whole number"),
    ({"method": "lora", "epochs": 0}, "epochs is at least 1"),
    ({"method": "lora", "epochs": True}, "epochs is a whole number"),
    ({"method": "lora", "batch": 0}, "batch is at least 1"),
    ({"method": "taylor", "layers": -1}, "layers is at least 0"),
    ({"method": "random-subspace", "size": 0}, "size is at least 1"),
    ({"method": "lora", "seed": -1}, "seed is at least 0"),
    ({"method": "lora", "learning_rate": 0}, "learning_rate is a positive number"),
    ({"method": "lora", "learning_rate": math.nan}, "learning_rate is a positive number"),
    ({"method": "lora", "learning_rate": "x"}, "learning_rate is a positive number"),
    ({"method": "lora", "head_rate": math.inf}, "head_rate is a positive number"),
    ({"method": "lora", "head_rate": None}, "head_rate is a positive number"),
    ({"method": "lora", "weight_decay": -1}, "weight_decay is not negative"),
    ({"method": "lora", "weight_decay": None}, "weight_decay is not negative"),
    ({"method": "lora", "scale": 0}, "scale is a finite number other than 0"),
    ({"method": "lora", "scale": math.inf}, "scale is a finite number"),
    ({"method": "lora", "targets": ()}, "targets are names"),
    ({"method": "lora", "targets": "qv"}, "targets are names"),
    ({"method": "lora", "targets": ("q", "")}, "targets are names"),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_wrong_settings_are_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(QasError, match=words) as caught:
        Settings(**given)
    assert "\n" not in str(caught.value)


def test_defaults_of_settings() -> None:
    assert Settings("bi-lora").bits == Settings("bi-adaptformer").bits == 1
    assert Settings("lora").bits is None
    assert Settings("lora", learning_rate=0.5).rate == 0.5
    assert all(Settings(method).rate > 0 for method in METHODS)
    with pytest.raises(UnknownNameError):
        Settings("searchd")


# ---------------------------------------------------------------------- files
@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, outcome, adapters, history = tuned("lora")
    folder = tmp_path / "saved"
    save(folder, settings("lora"), adapters, outcome, history, model=model, circuit=None, origin={})
    return folder


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FIRST = "blocks.0.attention.q.up"
ADAPTER, HEAD = "adapter.safetensors", "head.safetensors"


def with_tensors(path: Path, **tensors: Tensor) -> None:
    save_file(load_file(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)


DAMAGE: list[tuple[str, Any, str]] = [
    ("no files", lambda f: [p.unlink() for p in f.iterdir()], "config.json is missing"),
    ("another format", lambda f: edited(f / "config.json", format="x"), "not a fine-tuning folder"),
    ("newer", lambda f: edited(f / "config.json", version=99), "version 1 to 1 can be read, got 99"),
    ("no version", lambda f: edited(f / "config.json", version=None), "can be read, got None"),
    ("cut config", lambda f: (f / "config.json").write_text('{"format"'), "damaged or cut short"),
    ("settings", lambda f: edited(f / "config.json", settings={"method": "lora"}), "damaged.*targets"),
    ("method", lambda f: edited(f / "config.json", settings={"method": "x", "targets": ["q"]}), "unknown method"),
    ("circuit", lambda f: edited(f / "config.json", circuit={"format": "x"}), "damaged.*adapter architecture"),
    ("no adapter", lambda f: (f / ADAPTER).unlink(), "damaged"),
    ("cut adapter", lambda f: (f / ADAPTER).write_bytes(b"1234"), "damaged"),
    ("no head", lambda f: (f / HEAD).unlink(), "has no head, and the model needs one"),
    ("cut head", lambda f: (f / HEAD).write_bytes(bytes(20)), "damaged"),
    ("wide head", lambda f: with_tensors(f / HEAD, weight=torch.ones(4, 5)), "another model"),
    ("odd head", lambda f: save_file({"weight": torch.ones(4, 16)}, f / HEAD), "another model"),
    ("lacking", lambda f: save_file({FIRST: torch.ones(16, 8).half()}, f / ADAPTER), "stores down, up, got"),
    ("superfluous", lambda f: with_tensors(f / ADAPTER, blocks__1__q__up=torch.ones(1)), "another model"),
    ("not finite", lambda f: with_tensors(f / ADAPTER, **{FIRST: torch.full((16, 8), math.nan).half()}), "finite"),
]


@pytest.mark.parametrize(("damage", "words"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_a_damaged_folder_is_refused_and_the_model_stays_without_adapters(damage: Any, words: str, saved: Path) -> None:
    damage(saved)
    model = vit()
    with pytest.raises(QasError, match=words) as caught:
        load(saved, model)
    assert "\n" not in str(caught.value)
    left = weights(model)
    assert all(torch.equal(left[n], t) for n, t in weights(vit()).items() if not n.startswith("head."))
    assert not any(isinstance(m, module.AdaptedLayer) for m in model.modules())


def test_a_folder_is_not_loaded_onto_another_model(saved: Path, tmp_path: Path) -> None:
    for other in (vit(2), vit(dim=8), gpt()):
        with pytest.raises(QasError):
            load(saved, other)
    model, outcome, adapters, history = tuned("full")
    save(tmp_path / "full", settings("full"), adapters, outcome, history, model=model, circuit=None, origin={})
    wide = vit(dim=8)
    with pytest.raises(RunError, match="another model"):
        load(tmp_path / "full", wide)
    assert all(torch.equal(t, weights(wide)[n]) for n, t in weights(vit(dim=8)).items() if not n.startswith("head."))


def test_a_folder_with_files_is_never_written_to(saved: Path) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    model, outcome, adapters, history = tuned("linear-probe")
    with pytest.raises(RunError, match="new or empty"):
        save(saved, settings("linear-probe"), adapters, outcome, history, model=model, circuit=None, origin={})
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


# ---------------------------------------------------------------------- command line
@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone for digits, one for text, circuits and a run of a molecule."""
    folder = tmp_path_factory.mktemp("home")
    save_backbone(folder / "small", vit())
    save_backbone(folder / "wide", vit(size=32))
    save_backbone(folder / "bytes", gpt(128))
    (folder / "found.qasm").write_text(CIRCUIT.to_qasm())
    (folder / "complex.qasm").write_text(Circuit(4, [("rx", (0,), 0.1)]).to_qasm())
    (folder / "cut.qasm").write_text(CIRCUIT.to_qasm()[:-30] + "nonsense")
    qas.search("h2-2", agent="random", steps=10, seed=0, out=folder / "molecule", report=False)
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").write_text("mine")
    (folder / "data.csv").write_text("text,label\n")
    return folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


SMALL = ("--task", "digits", "--backbone", "small", "--examples", "40", "--epochs", "1", "--quiet")


def fails(capsys: Capture, *words: str) -> str:
    """The error line of a command that must fail as input does, and leave nothing behind."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qas: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert sorted(Path().rglob("*")) == before or (sorted({*Path().rglob("*")} - {*before}) == [Path("results")])
    return err


def calls(*words: str, given: tuple[str, ...] = SMALL) -> tuple[str, ...]:
    return ("finetune", *words, *given)


WRONG: list[tuple[tuple[str, ...], str]] = [
    (calls("--method", "searched"), "method searched needs a run or an OpenQASM file"),
    (calls("found.qasm", "--method", "lora"), "goes with the methods searched and searched-rotation, got lora"),
    (calls("--method", "lorra"), "did you mean 'lora'"),
    (calls("--bits", "0"), "--bits: a whole number of at least 1"),
    (calls("--bits", "9"), "got 9"),
    (calls("--method", "lora", "--bits", "2"), "lora has no bits to choose"),
    (calls("--rank", "17"), "rank is at most"),
    (calls("--rank", "x"), "--rank: a whole number"),
    (calls("--targets", "w"), "named w; the model has embed, fc1"),
    (calls("--targets", ","), "targets are names"),
    (calls("--method", "linear-probe", "--rank", "2"), "method linear-probe has no rank to choose"),
    (calls("--method", "linear-probe", "--learning-rate", "1"), "has no learning rate to choose"),
    (calls("--method", "lora", "--layers", "2"), "method lora has no layers to choose"),
    (calls("--method", "adaptformer", "--targets", "q"), "method adaptformer has no targets to choose"),
    (calls("--size", "9"), "method quantum-peft has no size to choose"),
    (calls("--method", "quantum-peft-rotation", "--scale", "2"), "has no scale to choose"),
    (calls("--scale", "0"), "--scale: a positive number"),
    (calls("--learning-rate", "nan"), "--learning-rate: a positive number"),
    (calls("--out", "full"), "new or empty: full"),
    (calls("--out", "found.qasm"), "new or empty"),
    (calls("--out", "found.qasm/deep/out"), "cannot write"),
    (calls("molecule"), "a circuit of 2 qubits fits layers of"),
    (calls("complex.qasm"), "complex gates"),
    (calls("cut.qasm"), "qasm"),
    (calls("missing.qasm"), "missing.qasm"),
    (calls("nowhere/run"), "no such run folder or OpenQASM file"),
    (calls("full"), "full"),
    (calls("quantum-peft"), "a run or a circuit is needed"),
    (calls("a", "b"), "unexpected argument 'b'"),
    (calls("--rnak", "2"), "did you mean '--rank'"),
    (calls("--task", "digits", given=("--backbone", "smal")), "unknown backbone 'smal'"),
    (calls("--task", "digts", given=()), "did you mean 'digits'"),
    (calls("--task", "digits", given=("--examples", "3")), "train is at least 20, got 3"),
    (calls("--task", "digits", given=("--examples", "99999")), "there are 1397 digits"),
    (calls("--task", "digits", given=("--backbone", "bytes", "--examples", "40")), "for image, got one of kind gpt"),
    (calls("--task", "digits", given=("--backbone", "wide", "--examples", "40")), "images have the shape"),
    (calls(given=()), "give either --task NAME or --model DIR --data FILE"),
    (calls("--task", "digits", given=("--model", "small", "--data", "data.csv")), "give either --task"),
    (calls("--model", "small", given=()), "--model and --data go together"),
    (calls("--data", "data.csv", given=()), "--model and --data go together"),
    (calls("--model", "a", "--data", "b", given=("--backbone", "small")), "--backbone goes with --task"),
    (calls("--model", "a", "--data", "b", given=("--examples", "50")), "--examples goes with --task"),
    (("backbone", "train", "digits-tny", "--out", "new"), "did you mean 'digits-tiny'"),
    (("backbone", "train", "digits-tiny", "--out", "full"), "new or empty: full"),
    (("backbone", "train", "digits-tiny", "--out", "found.qasm/deep"), "cannot write"),
    (("backbone", "train", "digits-tiny", "--out", "new", "--examples", "5"), "examples is at least"),
    (("backbone", "train", "digits-tiny"), "--out"),
    (("backbone",), "ACTION"),
    (("backbone", "lst"), "lst"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w[0])[:60] for w in WRONG])
def test_wrong_calls_end_in_one_line_and_leave_nothing(
    words: tuple[str, ...], message: str, at_home: Path, capsys: Capture
) -> None:
    assert message in fails(capsys, *words)


def test_text_without_a_backbone_says_how_to_make_one(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "list_backbones", lambda: ["digits-tiny"])
    line = fails(capsys, "finetune", "--task", "text-prose", "--examples", "40")
    assert "qas backbone train text-tiny --out text-tiny" in line and "--backbone text-tiny" in line


def test_missing_packages_are_named_with_their_extra(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "transformers", None)  # type: ignore[arg-type]
    from qas.adapters import tasks

    for cached in vars(tasks).values():
        getattr(cached, "cache_clear", lambda: None)()
    assert "quantum-architecture-search[peft]" in fails(capsys, *calls())
    line = fails(capsys, "finetune", "--model", "small", "--data", "data.csv")
    assert "quantum-architecture-search[peft]" in line


def test_a_folder_that_cannot_be_written_is_found_before_the_training(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qas.adapters import backbones

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(module, "finetune", never)
    monkeypatch.setattr(backbones, "pretrain", never)
    for words in (calls(), ("backbone", "train", "digits-tiny")):
        assert "cannot write" in fails(capsys, *words, "--out", "/proc/none")


def test_a_circuit_is_tuned_from_the_command_line(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "deep" / "out"
    assert main([*calls("found.qasm", "--bits", "8", "--out", str(out)), "--json"]) == 0
    told, err = capsys.readouterr()
    found = json.loads(told)
    assert err == "" and Path(found.pop("path")) == out.resolve()
    assert found == json.loads((out / "metrics.json").read_text())
    assert found["adapter_bits"] == SIDES * (8 * 12 + 32 + 16 * 8) + DESCRIPTION
    assert found["trainable"] == 40 and found["head_parameters"] == 16 * 10 + 10
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["method"] == "searched" and config["task"] == "digits" and config["backbone"] == "small"
    assert config["circuit"]["gates"] == Architecture.from_circuit(CIRCUIT).to_json()["gates"]
    model, task, _, _ = resolve("searched", {"epochs": 1}, task="digits", backbone="small", examples=40)
    load(out, model)
    assert score(model, task.test, "accuracy") == found["test"]


def test_the_answer_for_people_names_figures_and_folder(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main([*calls("--method", "lora", "--rank", "1", "--out", str(out))[:-1]]) == 0
    told, err = capsys.readouterr()
    for words in ("digits, lora", "test accuracy", "trainable parameters  64 (head apart: 170)", "1,024", str(out)):
        assert words in told
    assert "validation accuracy" in err


def test_the_same_seed_gives_the_same_metrics(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    found = []
    for name in ("a", "b"):
        assert main([*calls("--seed", "3", "--out", str(tmp_path / name)), "--json"]) == 0
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()) | {"seconds": 0})
        capsys.readouterr()
    assert found[0] == found[1]
    files = [(tmp_path / name / "adapter.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_an_interrupted_training_ends_in_130_and_leaves_no_folder(
    at_home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.score

    def stop(*arguments: Any) -> float:
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(module, "score", stop)
    assert main(calls("--out", str(tmp_path / "out"))) == 130
    assert capsys.readouterr().err == "qas: interrupted\n"
    assert not (tmp_path / "out").exists()


def test_an_interrupt_while_writing_leaves_no_half_file(
    at_home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    replaced: list[str] = []
    rename = os.replace

    def stop(source: Any, target: Any) -> None:
        replaced.append(Path(target).name)
        if len(replaced) == 3:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("qas.files.os.replace", stop)
    assert main(calls("--out", str(tmp_path / "out"))) == 130
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(replaced[:2])


def test_backbones_tasks_and_methods_are_listed(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    save_backbone(tmp_path / "backbones" / "mine", vit())
    save_backbone(tmp_path / "backbones" / "text-tiny", gpt(128))
    assert main(["backbone", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["backbone", "list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert set(known) == {"backbones", "tasks", "methods"} and set(known["methods"]) == set(METHODS)
    assert known["backbones"]["mine"] == "in backbones/mine"
    assert known["backbones"]["digits-tiny"].endswith("comes with the package")
    assert "comes with the package" not in known["backbones"]["text-tiny"]
    assert all(name in text for part in known.values() for name in part)


def test_a_backbone_is_trained_from_the_command_line(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["backbone", "train", "digits-tiny", "--examples", "128", "--out", str(out), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["path"]) == out.resolve() and found["provenance"]["examples"] == 128
    assert sorted(p.name for p in out.iterdir()) == ["backbone.json", "weights.safetensors"]
