"""Fine-tuning: figures counted by hand, what is saved comes back, splits stay apart, wrong calls end in one line."""

from __future__ import annotations

import copy
import json
import math
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import qas
from qas.adapters.architecture import Architecture
from qas.adapters.packed import HEADER_BYTES
from qas.circuits import Circuit
from qas.cli import main
from qas.errors import QasError, RunError
from qas.finetuning import METHODS
from qas.finetuning import finetune as module
from qas.finetuning.backbones import VisionTransformer, save_backbone
from qas.finetuning.files import load, save
from qas.finetuning.finetune import Outcome, Settings, finetune, outputs, prepare_head, resolve, score, train
from qas.finetuning.methods import Lora, Method, attach, detach, total_bits
from qas.finetuning.stored import Stored
from qas.finetuning.tasks import Split, Task

Capture = pytest.CaptureFixture[str]

CIRCUIT = Circuit(4, [("ry", (q,), 0.0) for q in range(4)] + [("cz", (0, 1)), ("ry", (1,), 0.0), ("ry", (0,), 0.0)])
SIDES = 2  # q and v of the one block
ADAPTER, STEM = "adapter_model.safetensors", "base_model.model."


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


def architecture(method: str) -> Architecture | None:
    return Architecture.from_circuit(CIRCUIT) if method.startswith("searched") else None


def settings(method: Any, **more: Any) -> Settings:
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
    # (method, settings, parameters, bits) on two layers from 16 to 16 features
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
    size = save(folder, given, adapters, outcome, history, model=model, origin=origin)
    stored = {n: t for n, t in load_file(folder / ADAPTER).items() if not n.startswith(STEM + "head.")}
    payload = sum(8 * t.numel() * t.element_size() for t in stored.values())
    described = 0 if circuit is None else DESCRIPTION
    header = (
        8 * HEADER_BYTES if any(name.endswith(".packed") for name in stored) else 0
    )  # then all layers are in one tensor
    assert 0 <= payload - (bits - described) - header < 8 * max(1, len(adapters))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert size == (folder / ADAPTER).stat().st_size == metrics.pop("file_bytes")
    assert metrics == vars(outcome)
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    assert (folder / "curve.png").stat().st_size > 1000
    # It computes with the stored form already, and a fresh model does the same.
    again = vit()
    found, loaded = load(folder, again)
    assert found.to_json() == given.to_json() and list(loaded) == list(adapters)
    assert torch.equal(outputs(again, task.test), outputs(model, task.test))
    assert score(again, task.test, "accuracy") == outcome.test
    # peft does the same, where it has the method, and says so where it has not.
    plain = vit()
    plain.replace_head(4)
    assert (folder / "adapter_config.json").exists() == (given.method.peft_names is not None)
    if given.method.peft_names is None:
        assert "peft has no form of this method" in (folder / "README.md").read_text()
        with pytest.raises(ValueError, match="adapter_config.json"):
            peft.PeftModel.from_pretrained(plain, str(folder))
    else:
        theirs = peft.PeftModel.from_pretrained(plain, str(folder))
        assert torch.equal(outputs(theirs, task.test), outputs(model, task.test))
    # The frozen part is as it was.
    detach(model)
    if method != "full":
        end = weights(model)
        assert end.keys() == start.keys()
        assert all(torch.equal(end[n], start[n]) for n in start if not n.startswith("head."))


@pytest.mark.parametrize("method", ["searched", "quantum-peft", "lora", "bi-lora", "full", "linear-probe"])
def test_folders_of_the_first_version_are_still_read(method: str, tmp_path: Path) -> None:
    """They had the stored form of each layer under its name, the head and the circuit in files of their own."""
    model, _, parts, _ = tuned(method, **({"bits": 3} if method in ("searched", "quantum-peft") else {}))
    given = settings(method, **({"bits": 3} if method in ("searched", "quantum-peft") else {}))
    tensors = {f"{layer}.{n}" if layer else n: t for layer, part in parts.items() for n, t in part.pack().items()}
    save_file(tensors, tmp_path / "adapter.safetensors")
    save_file({n: t.clone() for n, t in model.head.state_dict().items()}, tmp_path / "head.safetensors")
    circuit = architecture(method)
    about = {"settings": given.to_json(), "circuit": None if circuit is None else circuit.to_json(), "task": "toy"}
    (tmp_path / "config.json").write_text(json.dumps({"format": "qas-finetune", "version": 1} | about))
    again = vit()
    load(tmp_path, again)
    assert torch.equal(outputs(again, toy().test), outputs(model, toy().test))


def test_the_toy_task_is_learned() -> None:
    model, outcome, _, history = tuned("lora", toy(n=80), epochs=30, learning_rate=2e-2)
    assert outcome.test > 0.6 > outcome.chance + 0.2
    assert history[-1].loss < history[0].loss
    assert outcome.validation == history[-1].validation == score(model, toy(n=80).validation, "accuracy")


@pytest.mark.parametrize("method", ["bi-lora", "quantum-peft"])
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
    pack = Stored.pack

    def coarse(self: Stored) -> dict[str, Tensor]:
        return {name: torch.zeros_like(tensor) for name, tensor in pack(self).items()}

    monkeypatch.setattr(Stored, "pack", coarse)
    model, outcome, _, _ = tuned("lora", scale=5.0, epochs=4)
    assert outcome.stored_error > 1e-3
    detach(model)
    assert outcome.test == score(model, toy().test, "accuracy"), "metrics are those of the stored form"


def test_large_outputs_are_judged_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuned("lora")[1]
    monkeypatch.setattr(module, "_OUTPUTS", 2 * 4)
    seen = []
    forward = VisionTransformer.forward
    monkeypatch.setattr(
        VisionTransformer, "forward", lambda self, x: seen.append((self.training, len(x))) or forward(self, x)
    )
    parts = tuned("lora")[1]
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


# ---------------------------------------------------------------------- on and off
def shaken(model: nn.Module) -> None:
    """Trained parameters away from where the adapter is the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("method", METHODS)
def test_every_registered_method_comes_off_without_a_trace_and_merges(method: str) -> None:
    model, task = vit(2), toy()
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    before, plain = outputs(model, task.test), weights(model)
    made = settings(method).method
    parts = attach(model, made, architecture(method))
    assert METHODS.about(method) and isinstance(made, Method) and made.name == method
    trained = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad)
    if method == "linear-probe":
        assert not parts and not trained
        return
    if method == "full":
        assert trained == sum(p.numel() for p in model.parameters())
        return
    assert list(parts) == [f"blocks.{k}.attention.{side}" for k in (0, 1) for side in "qv"] and trained
    start = 0.0 if method.startswith(("lora", "vera", "random", "taylor")) else 1e-2
    assert float((outputs(model, task.test) - before).abs().max()) <= start
    shaken(model)
    changed = outputs(model, task.test)
    assert not torch.allclose(changed, before, atol=1e-3)
    merged = copy.deepcopy(model)
    detach(merged, merge=True)
    assert torch.allclose(outputs(merged, task.test), changed, atol=1e-5)
    detach(model)
    for bare in (model, merged):
        assert not any("adapter" in n or "lora" in n or "vera" in n for n, _ in bare.named_modules())
    assert same(weights(model), plain) and torch.equal(outputs(model, task.test), before)
    attach(model, made, architecture(method))  # and goes on again


def test_a_method_is_a_name_a_class_an_object_or_settings_of_peft() -> None:
    import peft

    named = tuned("lora", rank=2)[1]
    for given in (Lora(rank=2), Settings(Lora, rank=2).method):
        assert replace(finetune(vit(), toy(), settings(given))[0], seconds=0) == replace(named, seconds=0)
    model = vit()
    outcome, parts, _ = finetune(model, toy(), settings(peft.PsoftConfig(r=4, target_modules=["q", "v"])))
    assert outcome.trainable > 0 and outcome.adapter_bits == 32 * outcome.trainable and list(parts) == [""]
    shared = finetune(vit(), toy(), settings(peft.UniLoraConfig(theta_d_length=16, r=2)))[0]
    assert shared.trainable == 16 and shared.stored_error == 0
    with pytest.raises(QasError, match="unknown method"):
        settings(peft.PsoftConfig(r=4)).to_json()


def test_a_third_party_method_is_registered_and_used_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(Lora):
        """LoRA of rank 1"""

        def __init__(self) -> None:
            super().__init__(rank=1)

    monkeypatch.setitem(METHODS._things, "narrow", Narrow)
    assert tuned("narrow")[1].trainable == SIDES * 2 * 16 and METHODS.about("narrow") == "LoRA of rank 1"


def test_weights_that_are_not_finite_are_not_merged() -> None:
    model = vit()
    attach(model, Lora())
    with torch.no_grad():
        model.blocks[0].attention.q.lora_A.default.parametrizations.weight.original.fill_(torch.nan)
    with pytest.raises(QasError, match="finite"):
        detach(model, merge=True)
    detach(model)
    assert same(weights(model), weights(vit()))


WRONG_ON: list[tuple[Settings, str]] = [
    (settings("lora", targets=("w",)), "is named w; the model has embed, fc1, fc2, k, proj, q, v"),
    (settings("lora", targets=("q", "w")), "is named w"),
    (settings("lora", targets=("head",)), "is named head"),
    (
        settings("lora", rank=17),
        r"blocks.0.attention.q \(16 to 16 features\): rank is a whole .* 1 to 16, got 17",
    ),
    (settings("random-subspace", size=257), "size is a whole number from 1 to 256, got 257"),
    (settings("taylor", layers=17), "intrinsic rank is a whole number from 1 to 16"),
    (settings("searched"), "^method searched needs a run or an OpenQASM file$"),
    (settings("searched-rotation"), "^method searched-rotation needs a run"),
]


@pytest.mark.parametrize(("given", "words"), WRONG_ON, ids=[f"{w[0].method.name}-{w[1][:12]}" for w in WRONG_ON])
def test_settings_that_do_not_fit_leave_the_model_alone(given: Settings, words: str) -> None:
    model = vit()
    with pytest.raises(QasError, match=words) as caught:
        attach(model, given.method)
    assert "\n" not in str(caught.value)
    assert same(weights(model), weights(vit())) and all(p.requires_grad for p in model.parameters())


def test_circuits_that_do_not_fit_are_refused() -> None:
    def tried(method: str, *gates: Any, qubits: int = 4) -> None:
        attach(vit(), settings(method).method, Architecture.from_circuit(Circuit(qubits, gates)))

    with pytest.raises(QasError, match=r"q \(16 to 16 features\): .* lowest 4 of 5 qubits, and of this circuit these"):
        tried("searched", ("ry", (4,), 0.1), qubits=5)
    with pytest.raises(QasError, match="without: there would be nothing to train"):
        tried("searched-rotation", ("cz", (0, 1)))
    tried("searched", ("rx", (0,), 0.1), qubits=3)
    tried("searched", ("ry", (0,), 0.1), qubits=2)  # two more axes
    with pytest.raises(QasError, match="goes with the methods searched and searched-rotation, got lora"):
        finetune(vit(), toy(), settings("lora"), CIRCUIT)


def test_a_model_takes_adapters_once() -> None:
    model = vit()
    attach(model, Lora())
    with pytest.raises(QasError, match="carries adapters already"):
        attach(model, Lora())


def test_models_and_tasks_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(QasError, match="task toy is about text, and the backbone about images"):
        finetune(vit(), replace(toy(), kind="text"), settings("lora"))
    with pytest.raises(QasError, match="shape"):
        finetune(vit(size=32), toy(), settings("lora"))
    with pytest.raises(QasError, match="nothing to train"):
        finetune(nn.Linear(2, 2), toy(), settings("linear-probe"))


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
    parts = attach(vit(3), settings("searched").method, circuit)
    assert total_bits(parts, circuit) == 6 * 32 * 20 + DESCRIPTION
    assert total_bits(parts) == 6 * 32 * 20


def test_circuit_layers_share_their_frames() -> None:
    parts = attach(vit(2), settings("quantum-peft").method)
    assert len({id(a.bank) for a in parts.values()}) == 1  # type: ignore[union-attr]


def test_progress_tells_every_epoch() -> None:
    told: list[Any] = []
    model = vit()
    prepare_head(model, toy(), 0)
    attach(model, Lora())
    history = train(model, toy(), settings("lora", epochs=3), on_progress=told.append)
    assert told == history and [(p.epoch, p.epochs) for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.seconds for p in told) == [p.seconds for p in told]


# ---------------------------------------------------------------------- settings
BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "lorra"}, "did you mean 'lora'"),
    ({"method": 3}, "the method is a name, a Method class or an instance"),
    ({"method": "bi-lora", "bits": 9}, "bits is a whole number from 1 to 8, got 9"),
    ({"method": "lora", "bits": 4}, "setting of the method lora 'bits'"),
    ({"method": "linear-probe", "rank": 4}, "the method linear-probe has no settings, got 'rank'"),
    ({"method": "lora", "rank": 1.5}, "rank of the method lora must be int, got 1.5"),
    ({"method": "lora", "epochs": 0}, "epochs is a whole number of at least 1"),
    ({"method": "lora", "batch": True}, "batch is a whole number of at least 1"),
    ({"method": "taylor", "layers": -1}, "layers is a whole number from 0"),
    ({"method": "random-subspace", "size": 0}, "size is a whole number of at least 1"),
    ({"method": "lora", "seed": -1}, "seed is a whole number of at least 0"),
    ({"method": "lora", "learning_rate": 0}, "learning_rate is a finite number above 0"),
    ({"method": "lora", "head_rate": math.inf}, "head_rate is a finite number above 0"),
    ({"method": "lora", "weight_decay": -1}, "weight_decay is a finite number of at least 0"),
    ({"method": "lora", "scale": 0}, "scale is a finite number other than 0"),
    ({"method": "lora", "targets": ()}, "targets are names"),
    ({"method": "lora", "targets": "qv"}, "targets are names"),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_wrong_settings_are_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(QasError, match=words) as caught:
        Settings(**given)
    assert "\n" not in str(caught.value)


def test_settings_come_back_from_json_and_from_those_of_earlier_versions() -> None:
    given = settings("bi-lora", rank=3, targets=("q",), seed=4)
    assert given.method.bits == 1  # type: ignore[attr-defined]
    assert Settings.from_json(json.loads(json.dumps(given.to_json()))) == given
    old = {"method": "lora", "bits": None, "rank": 3, "layers": 1, "size": 64, "targets": ["q"], "scale": None}
    assert (
        Settings.from_json(old | {"epochs": 2, "learning_rate": None, "seed": 4}).to_json()
        == Settings("lora", rank=3, targets=("q",), epochs=2, seed=4).to_json()
    )


# ---------------------------------------------------------------------- files
@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, outcome, adapters, history = tuned("lora")
    folder = tmp_path_factory.mktemp("saved") / "once"
    save(folder, settings("lora"), adapters, outcome, history, model=model, origin={})
    return folder


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_once, tmp_path / "saved"))


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FIRST = f"{STEM}blocks.0.attention.q.lora_B.weight"


def with_tensors(path: Path, **tensors: Tensor) -> None:
    save_file(load_file(path) | {STEM + name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)


def without(path: Path, *names: str) -> None:
    save_file({name: tensor for name, tensor in load_file(path).items() if name.removeprefix(STEM) not in names}, path)


LACK = torch.full((16, 8), math.nan).half()


DAMAGE: list[tuple[str, Any, str]] = [
    ("no files", lambda f: [p.unlink() for p in f.iterdir()], "is missing: .*config.json"),
    ("another format", lambda f: edited(f / "config.json", format="x"), "a JSON object of format"),
    ("newer", lambda f: edited(f / "config.json", version=99), "newer version of this program"),
    ("cut config", lambda f: (f / "config.json").write_text('{"format"'), "damaged or cut short"),
    ("settings", lambda f: edited(f / "config.json", settings={"epochs": 1}), "settings.method"),
    ("method", lambda f: edited(f / "config.json", settings={"method": "x", "targets": ["q"]}), "unknown method"),
    ("no adapter", lambda f: (f / ADAPTER).unlink(), "missing"),
    ("cut adapter", lambda f: (f / ADAPTER).write_bytes(b"1234"), "damaged"),
    ("no head", lambda f: without(f / ADAPTER, "head.weight", "head.bias"), "has no head, and the model needs one"),
    ("wide head", lambda f: with_tensors(f / ADAPTER, head__weight=torch.ones(4, 5)), "another model"),
    ("odd head", lambda f: without(f / ADAPTER, "head.bias"), "another model"),
    ("lacking", lambda f: without(f / ADAPTER, FIRST.replace("_B", "_A").removeprefix(STEM)), "stores down, up, got"),
    ("superfluous", lambda f: with_tensors(f / ADAPTER, blocks__1__q__up=torch.ones(1)), "another model"),
    ("not finite", lambda f: with_tensors(f / ADAPTER, **{FIRST.removeprefix(STEM): LACK}), "finite"),
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
    assert not any(isinstance(m, BaseTunerLayer) for m in model.modules())


def test_a_folder_is_not_loaded_onto_another_model(saved: Path, tmp_path: Path) -> None:
    for other in (vit(2), vit(dim=8)):
        with pytest.raises(QasError):
            load(saved, other)
    model, outcome, adapters, history = tuned("full")
    save(tmp_path / "full", settings("full"), adapters, outcome, history, model=model, origin={})
    wide = vit(dim=8)
    with pytest.raises(RunError, match="another model"):
        load(tmp_path / "full", wide)
    assert all(torch.equal(t, weights(wide)[n]) for n, t in weights(vit(dim=8)).items() if not n.startswith("head."))


def test_a_folder_with_files_is_never_written_to(saved: Path) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    model, outcome, adapters, history = tuned("linear-probe")
    with pytest.raises(RunError, match="new or empty"):
        save(saved, settings("linear-probe"), adapters, outcome, history, model=model, origin={})
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


# ---------------------------------------------------------------------- command line
@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone for digits, circuits and a run of a molecule."""
    folder = tmp_path_factory.mktemp("home")
    save_backbone(folder / "small", vit())
    save_backbone(folder / "wide", vit(size=32))
    (folder / "found.qasm").write_text(CIRCUIT.to_qasm())
    (folder / "high.qasm").write_text(Circuit(5, [("ry", (4,), 0.1)]).to_qasm())
    (folder / "wide.qasm").write_text(Circuit(5, [("ry", (0,), 0.1)]).to_qasm())
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
    (calls("--bits", "9"), "got 9"),
    (calls("--method", "lora", "--bits", "2"), "setting of the method lora 'bits'"),
    (calls("--rank", "0"), "a whole number of at least 1 is needed"),
    (calls("--targets", "w"), "named w; the model has embed, fc1"),
    (calls("--targets", ","), "targets are names"),
    (calls("--method", "linear-probe", "--rank", "2"), "method linear-probe has no settings"),
    (calls("--size", "9"), "setting of the method quantum-peft 'size'"),
    (calls("--method", "quantum-peft-rotation", "--scale", "2"), "setting of the method quantum-peft-rotation 'scale'"),
    (calls("--learning-rate", "nan"), "--learning-rate: a positive number"),
    (calls("--out", "full"), "new or empty: full"),
    (calls("--out", "found.qasm"), "new or empty"),
    (calls("--out", "found.qasm/deep/out"), "cannot write"),
    (calls("wide.qasm", "wide.qasm"), "layers of different widths, got 32 and 32"),
    (calls("high.qasm"), "lowest 4 of 5 qubits, and of this circuit these have no angles"),
    (calls("cut.qasm"), "qasm"),
    (calls("missing.qasm"), "missing.qasm"),
    (calls("nowhere/run"), "no such run folder or OpenQASM file"),
    (calls("full"), "full"),
    (calls("quantum-peft"), "a run or a circuit is needed"),
    (calls("a", "b"), "a run folder or an OpenQASM file, got a"),
    (calls("--rnak", "2"), "did you mean '--rank'"),
    (calls("--task", "digits", given=("--backbone", "smal")), "unknown backbone 'smal'"),
    (calls("--task", "digts", given=()), "did you mean 'digits'"),
    (calls("--task", "digits", given=("--examples", "3")), "train is a whole number of at least 20, got 3"),
    (calls("--task", "digits", given=("--examples", "99999")), "there are 1397 digits"),
    (calls("--task", "digits", given=("--backbone", "wide", "--examples", "40")), "images have the shape"),
    (calls(given=()), "give either --task NAME or --model DIR --data FILE"),
    (calls("--task", "digits", given=("--model", "small", "--data", "data.csv")), "give either --task"),
    (calls("--model", "small", given=()), "a model and its data go together"),
    (calls("--data", "data.csv", given=()), "a model and its data go together"),
    (calls("--model", "a", "--data", "b", given=("--backbone", "small")), "--backbone goes with --task"),
    (calls("--model", "a", "--data", "b", given=("--examples", "50")), "no folder of a transformers model"),
    (("backbone", "train", "digits-tny", "--out", "new"), "did you mean 'digits-tiny'"),
    (("backbone", "train", "digits-tiny", "--out", "full"), "new or empty: full"),
    (("backbone", "train", "digits-tiny", "--out", "found.qasm/deep"), "cannot write"),
    (("backbone", "train", "digits-tiny", "--out", "new", "--examples", "5"), "examples is a whole number of at least"),
    (("backbone", "train", "digits-tiny"), "--out"),
    (("backbone",), "ACTION"),
    (("backbone", "lst"), "lst"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w[0])[:60] for w in WRONG])
def test_wrong_calls_end_in_one_line_and_leave_nothing(
    words: tuple[str, ...], message: str, at_home: Path, capsys: Capture
) -> None:
    assert message in fails(capsys, *words)


def test_missing_packages_are_named_with_their_extra(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "transformers", None)  # type: ignore[arg-type]
    from qas.finetuning import tasks

    for cached in vars(tasks).values():
        getattr(cached, "cache_clear", lambda: None)()
    assert "quantum-architecture-search[peft]" in fails(capsys, *calls())
    line = fails(capsys, "finetune", "--model", "small", "--data", "data.csv")
    assert "quantum-architecture-search[peft]" in line


def test_a_folder_that_cannot_be_written_is_found_before_the_training(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qas.finetuning import backbones, folders

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(folders, "finetune", never)
    monkeypatch.setattr(backbones, "pretrain", never)
    for words in (calls(), ("backbone", "train", "digits-tiny")):
        assert "cannot write" in fails(capsys, *words, "--out", "/proc/none")


def test_a_circuit_is_tuned_from_the_command_line(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "deep" / "out"
    assert main([*calls("found.qasm", "--bits", "8", "--out", str(out)), "--json"]) == 0
    told, err = capsys.readouterr()
    found = json.loads(told)
    widths = found.pop("widths")
    assert err == "" and Path(found.pop("path")) == out.resolve()
    assert found == json.loads((out / "metrics.json").read_text())
    assert found["adapter_bits"] == SIDES * (8 * 12 + 32 + 16 * 8) + DESCRIPTION
    assert found["trainable"] == 40 and found["head_parameters"] == 16 * 10 + 10
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["method"] == "searched" and config["task"] == "digits" and config["backbone"] == "small"
    about = json.loads((out / "adapter_config.json").read_text())
    assert about["circuit"] == Architecture.from_circuit(CIRCUIT, "found").to_json()
    assert about["widths"] == {"16": "4 qubits, 6 angles"} == widths
    assert about["target_modules"] == ["q", "v"] and about["modules_to_save"] == ["head"]
    model, task, _, _ = resolve("searched", {"epochs": 1}, task="digits", backbone="small", examples=40)
    load(out, model)
    assert score(model, task.test, "accuracy") == found["test"]


def test_the_answer_for_people_names_figures_and_folder(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main([*calls("--method", "lora", "--rank", "1", "--out", str(out))[:-1]]) == 0
    told, err = capsys.readouterr()
    for words in ("digits, lora", "test accuracy", "64 (head apart: 170)", "1,024", str(out)):
        assert words in told
    assert "validation 0." in err


def test_the_same_seed_gives_the_same_metrics(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    found = []
    for name in ("a", "b"):
        assert main([*calls("--seed", "3", "--out", str(tmp_path / name)), "--json"]) == 0
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()) | {"seconds": 0})
        capsys.readouterr()
    assert found[0] == found[1]
    files = [(tmp_path / name / ADAPTER).read_bytes() for name in ("a", "b")]
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
    save_backbone(tmp_path / "backbones" / "sprites-wide", vit())
    assert main(["backbone", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["backbone", "list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert set(known) == {"backbones", "tasks", "methods"} and set(known["methods"]) == set(METHODS)
    assert "sprites" in known["tasks"], "the name in the README"
    assert known["backbones"]["mine"] == "in backbones/mine"
    assert known["backbones"]["digits-tiny"].endswith("comes with the package")
    assert "comes with the package" not in known["backbones"]["sprites-wide"]
    assert all(name in text for part in known.values() for name in part)


def test_a_backbone_is_trained_from_the_command_line(at_home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["backbone", "train", "digits-tiny", "--examples", "128", "--out", str(out), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["path"]) == out.resolve() and found["provenance"]["examples"] == 128
    assert sorted(p.name for p in out.iterdir()) == ["backbone.json", "weights.safetensors"]
