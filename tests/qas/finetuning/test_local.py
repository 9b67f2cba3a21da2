"""Fine-tuning of Hugging Face models on one's own data: tiny random models with tokenizers made here, no downloads."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qas.adapters.architecture import Architecture
from qas.circuits import Circuit
from qas.cli import main
from qas.errors import QasError, RunError
from qas.finetuning.files import load, save
from qas.finetuning.finetune import Settings, finetune, outputs, resolve, score
from qas.finetuning.local import LENGTH, LocalModel, PooledModel, load_local
from qas.finetuning.methods import Lora, attach, detach, target_layers
from qas.finetuning.tasks import Split
from qas.finetuning.widths import qubits_of

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = [
    pytest.mark.peft,
    # peft 0.21 asks transformers 5.23 for this on every model; it is for peft to stop.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

Capture = pytest.CaptureFixture[str]

LINES = [
    f"the {size} {thing} {verb} {place}"
    for size in ("small", "large", "old")
    for thing in ("cat", "dog", "fish")
    for verb in ("sleeps", "eats", "runs")
    for place in ("here", "there")
]
GOOD = ("cat", "fish")


def make_tokenizer(folder: Path, **special: str) -> Any:
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=["<unk>", "<end>", "<pad>"], show_progress=False)
    raw.train_from_iterator(LINES, trainer)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", **special)
    made.save_pretrained(folder)
    return made


def make_model(folder: Path, kind: str, **more: Any) -> Path:
    """A random model of 16 features and one block, with its tokenizer."""
    tokenizer = make_tokenizer(folder, **({"eos_token": "<end>"} if kind != "bert" else {"pad_token": "<pad>"}))
    sizes = {"vocab_size": len(tokenizer)} | more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            sizes = {
                "n_embd": 16,
                "n_layer": 1,
                "n_head": 2,
                "n_positions": 32,
                "bos_token_id": 1,
                "eos_token_id": 1,
            } | sizes
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
        else:
            sizes = {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            } | sizes
            sizes |= {"max_position_embeddings": 32}
            if kind == "llama":
                model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=1, **sizes))
            else:
                model = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    for kind in ("gpt2", "llama", "bert"):
        make_model(folder / kind, kind)
    (folder / "lines.txt").write_text("\n".join(LINES * 8))
    examples = [(line, "yes" if line.split()[2] in GOOD else "no") for line in LINES]
    with (folder / "lines.csv").open("w", newline="", encoding="utf-8-sig") as stream:  # as spreadsheets write it
        csv.writer(stream).writerows([("text", "label"), *examples])
    rows = [json.dumps({"text": text, "label": int(label == "yes"), "more": 1}) for text, label in examples]
    (folder / "lines.jsonl").write_text("\n".join(rows) + "\n\n")
    return folder


def quick(method: str, **more: Any) -> dict[str, Any]:
    return (
        {"epochs": 1, "batch": 20}
        | ({"rank": 2} if method in ("lora", "bi-lora", "quantum-peft", "vera") else {})
        | more
    )


def as_told(folder: Path, base: Path) -> dict[str, Any]:
    """What the lines of Python in a folder's README make."""
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    assert json.dumps(str(base)) in code
    scope: dict[str, Any] = {}
    exec(code.replace("this folder", str(folder)), scope)
    return scope


@torch.no_grad()
def by_peft(folder: Path, base: Path, task: Any) -> Any:
    """Outputs of what peft makes of a folder and its model."""
    ids, mask = torch.from_numpy(task.test.inputs).unbind(1)
    model = as_told(folder, base)["model"].eval()
    assert type(model).__name__.startswith("PeftModelFor")
    return model(input_ids=ids, attention_mask=mask).logits


def ready(method: str, home: Path, kind: str, data: str, **more: Any) -> tuple[Any, Any, Settings]:
    model, task, settings, _ = resolve(method, quick(method, **more), model=str(home / kind), data=str(home / data))
    return model, task, settings


# ---------------------------------------------------------------------- data
def test_a_table_and_lines_of_json_give_the_same_examples(home: Path) -> None:
    _, table = load_local(home / "gpt2", home / "lines.csv", 3)
    _, lines = load_local(home / "gpt2", home / "lines.jsonl", 3)
    for a, b in ((table.train, lines.train), (table.validation, lines.validation), (table.test, lines.test)):
        assert np.array_equal(a.inputs, b.inputs) and np.array_equal(a.labels, b.labels)
    assert (table.name, table.kind, table.n_classes, table.metric) == ("lines", "text", 2, "accuracy")
    assert [len(s) for s in (table.train, table.validation, table.test)] == [38, 5, 11]


def test_splits_share_no_example_and_follow_the_seed(home: Path) -> None:
    _, task = load_local(home / "gpt2", home / "lines.csv", 0)
    parts = [{row.tobytes() for row in s.inputs[:, 0]} for s in (task.train, task.validation, task.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(LINES)
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "gpt2")
    for split in (task.train, task.test):
        for (ids, mask), label in zip(split.inputs, split.labels, strict=True):
            text = tokenizer.decode(ids[mask == 1])
            assert (text.split()[2] in GOOD) == bool(label)
            assert len(ids) == 32, "no longer than the model reads"
    assert np.array_equal(load_local(home / "gpt2", home / "lines.csv", 0)[1].test.inputs, task.test.inputs)
    assert not np.array_equal(load_local(home / "gpt2", home / "lines.csv", 1)[1].test.inputs, task.test.inputs)


def test_labels_of_text_are_the_following_tokens(home: Path) -> None:
    model, task = load_local(home / "llama", home / "lines.txt", 0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "llama")
    ids = tokenizer((home / "lines.txt").read_text())["input_ids"]
    assert task.metric == "bits_per_token" and task.n_classes == len(tokenizer)
    seen = []
    for split in (task.train, task.validation, task.test):
        assert (split.inputs[:, 1] == 1).all()
        assert np.array_equal(split.inputs[:, 0, 1:], split.labels[:, :-1])
        seen += [tuple(row) for row in split.inputs[:, 0]]
    windows = [tuple(ids[i : i + 32]) for i in range(0, len(ids) - 32, 32)]
    assert sorted(seen) == sorted(windows)
    assert LENGTH == 128
    # The metric of a model that knows nothing is about the size of its vocabulary.
    assert score(model, task.test, task.metric) == pytest.approx(np.log2(len(tokenizer)), abs=0.3)


def test_examples_may_be_fewer_than_there_are(home: Path) -> None:
    _, task = load_local(home / "bert", home / "lines.csv", 0, examples=20)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [16, 4, 20]
    parts = [{row.tobytes() for row in s.inputs[:, 0]} for s in (task.train, task.validation, task.test)]
    assert len(set.union(*parts)) == 40
    with pytest.raises(QasError, match="there are 54 examples"):
        load_local(home / "bert", home / "lines.csv", 0, examples=54)


@pytest.fixture(scope="module")
def encoder(home: Path) -> Path:
    """A folder as sentence-transformers writes it."""
    folder = home / "encoder"
    shutil.copytree(home / "bert", folder)
    transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_sentence_encoder_gets_a_head_on_the_mean_of_its_tokens(encoder: Path, home: Path, tmp_path: Path) -> None:
    model, task = load_local(encoder, home / "lines.csv", 1)
    assert isinstance(model, PooledModel)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        for row in task.test.inputs:
            text = tokenizer.decode(row[0][row[1] == 1], skip_special_tokens=True)
            alone = tokenizer(text, return_tensors="pt")["input_ids"]
            wanted = model.head(model.model(alone).last_hidden_state[0].mean(0))
            assert torch.allclose(model(torch.from_numpy(row[None]))[0], wanted, atol=1e-5)
    settings = Settings("quantum-peft", rank=2, bits=8, epochs=1)
    outcome, parts, history = finetune(model, task, settings)
    assert outcome.head_parameters == 2 * 16 + 2
    save(tmp_path / "out", settings, parts, outcome, history, model=model, origin={})
    again = load_local(encoder, home / "lines.csv", 5)[0]
    load(tmp_path / "out", again)
    assert torch.equal(outputs(again, task.test), outputs(model, task.test))
    # peft puts the adapters onto the encoder; the head lies beside them.
    scope = as_told(tmp_path / "out", encoder)
    ids, mask = torch.from_numpy(task.test.inputs).unbind(1)
    with torch.no_grad():
        hidden = scope["model"].eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        found = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) @ scope["weight"].T + scope["bias"]
    assert torch.allclose(found, outputs(model, task.test), atol=1e-5)


def test_texts_of_one_length_go_together(home: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 33, 500)
    mask = (np.arange(32) < lengths[:, None]).astype(np.int64)
    split = Split(np.stack([mask, mask], axis=1), np.zeros(500, np.int64))
    for part in (split, Split(split.inputs[:7], split.labels[:7])):
        batches = part.batches(20, np.random.default_rng(1))
        assert sorted(np.concatenate(batches)) == list(range(len(part)))
        assert all(len(b) == 20 for b in batches if len(b) != len(part) % 20)
    padded = sum(len(b) * lengths[b].max() for b in split.batches(20, np.random.default_rng(1)))
    plain = sum(20 * lengths[b].max() for b in np.random.default_rng(1).permutation(500).reshape(25, 20))
    assert padded < 1.2 * lengths.sum() < plain
    first, second = (np.concatenate(split.batches(20, np.random.default_rng(k))).tolist() for k in (1, 2))
    assert first != second


# ---------------------------------------------------------------------- training
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("gpt2", "lora"),
        ("llama", "lora"),
        ("bert", "quantum-peft-rotation"),
        ("bert", "linear-probe"),
        ("gpt2", "full"),
    ],
)
def test_classifiers_are_trained_saved_and_loaded(method: str, kind: str, home: Path, tmp_path: Path) -> None:
    model, task, settings = ready(method, home, kind, "lines.csv")
    outcome, adapters, history = finetune(model, task, settings)
    heads = {"gpt2": 2 * 16, "llama": 2 * 16, "bert": 2 * 16 + 2 + 16 * 16 + 16}  # bert: with a new pooler
    assert outcome.head_parameters == heads[kind]
    assert outcome.stored_error < 1e-5 and outcome.metric == "accuracy"
    if method == "full":
        rest = sum(p.numel() for p in model.parameters()) - heads[kind]
        assert (outcome.trainable, outcome.adapter_bits) == (rest, 32 * rest)
    if method == "lora":
        assert outcome.trainable == {"gpt2": 2 * (16 + 48), "llama": 2 * (32 + 24), "bert": 2 * 64}[kind]
    save(tmp_path / "out", settings, adapters, outcome, history, model=model, origin={})
    again = load_local(home / kind, home / "lines.csv", 5)[0]
    load(tmp_path / "out", again)
    assert torch.equal(outputs(again, task.test), outputs(model, task.test))
    if settings.method.peft_names is not None:
        assert torch.allclose(by_peft(tmp_path / "out", home / kind, task), outputs(model, task.test), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("gpt2", "bi-lora"), ("llama", "quantum-peft"), ("gpt2", "vera"), ("llama", "random-subspace"), ("llama", "full")],
)
def test_language_models_are_trained_saved_and_loaded(method: str, kind: str, home: Path, tmp_path: Path) -> None:
    more = {"size": 10} if method == "random-subspace" else {}
    model, task, settings = ready(method, home, kind, "lines.txt", learning_rate=1e-2, **more)
    before = score(model, task.test, task.metric)
    outcome, adapters, history = finetune(model, task, settings)
    assert outcome.head_parameters == 0 and outcome.metric == "bits_per_token"
    if method == "full":
        assert outcome.test < before
    save(tmp_path / "out", settings, adapters, outcome, history, model=model, origin={})
    again = load_local(home / kind, home / "lines.txt", 0)[0]
    load(tmp_path / "out", again)
    assert torch.equal(outputs(again, task.test), outputs(model, task.test))
    if settings.method.peft_names is not None:
        assert torch.allclose(by_peft(tmp_path / "out", home / kind, task), outputs(model, task.test), atol=1e-5)


def test_a_seed_fixes_head_dropout_and_order(home: Path) -> None:
    """GPT-2 has dropout, which draws from torch's global generator."""
    torch.manual_seed(1)
    expected = torch.rand(1)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        model, task, settings = ready("lora", home, "gpt2", "lines.csv", epochs=2)
        finetune(model, task, settings)
        assert torch.rand(1) == expected
        found.append(outputs(model, task.test))
        torch.manual_seed(99)
    assert torch.equal(found[0], found[1])


def test_a_training_learns(home: Path) -> None:
    model, task, settings = ready("full", home, "llama", "lines.csv", epochs=30, learning_rate=5e-3)
    outcome, _, _ = finetune(model, task, settings)
    assert outcome.test > 0.9 > outcome.chance


@pytest.mark.parametrize("method", ["lora", "vera", "quantum-peft", "quantum-peft-rotation"])
def test_merging_into_transposed_weights_keeps_the_outputs(method: str, home: Path) -> None:
    model, task, settings = ready(method, home, "gpt2", "lines.csv")
    plain = outputs(model, task.test)
    attach(model, settings.method)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    changed = outputs(model, task.test)
    assert not torch.allclose(changed, plain, atol=1e-6)
    detach(model, merge=True)
    assert torch.allclose(outputs(model, task.test), changed, atol=1e-5)


def test_merging_into_a_head_leaves_the_tied_embedding_alone(home: Path) -> None:
    model, task, settings = ready("lora", home, "gpt2", "lines.txt", targets=("lm_head",))
    embedding = model.model.get_input_embeddings().weight
    assert model.model.lm_head.weight is embedding
    before = embedding.detach().clone()
    parts = attach(model, settings.method)
    assert list(parts) == ["model.lm_head"]
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.5)
    changed = outputs(model, task.test)
    detach(model, merge=True)
    assert torch.allclose(outputs(model, task.test), changed, atol=1e-5)
    assert torch.equal(model.model.get_input_embeddings().weight, before)


def test_queries_and_values_are_the_usual_targets(home: Path) -> None:
    wanted = {"gpt2": {"c_attn"}, "llama": {"q_proj", "v_proj"}, "bert": {"query", "value"}}
    for kind, names in wanted.items():
        model = load_local(home / kind, home / "lines.csv")[0]
        assert {name.rpartition(".")[2] for name in target_layers(model, None)} == names
    with pytest.raises(QasError, match="name layers with --targets"):
        target_layers(nn.Sequential(nn.Linear(2, 2)), None)
    with pytest.raises(QasError, match="a head named score or classifier"):
        LocalModel(nn.Sequential(nn.Linear(2, 2)), classifies=True)


def test_a_small_circuit_fits_layers_of_other_widths(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """Of 2 qubits on layers from 16 to 48, and from 16 to 8 features."""
    (tmp_path / "found.qasm").write_text(Circuit(2, [("ry", (0,), 0.1), ("cz", (0, 1)), ("ry", (1,), 0.2)]).to_qasm())
    for kind in ("gpt2", "llama"):
        out = tmp_path / kind
        words = called(home, kind, "lines.csv", "--rank", "4", "--out", str(out))
        assert main([words[0], str(tmp_path / "found.qasm"), *words[1:]]) == 0
        capsys.readouterr()
        load(out, load_local(home / kind, home / "lines.csv")[0])


@pytest.fixture(scope="module")
def grouped(home: Path) -> Path:
    """Grouped-query attention: queries of 256 features, keys and values of 128."""
    return make_model(home / "grouped", "llama", hidden_size=256, intermediate_size=64)


def test_one_search_serves_all_widths_of_a_model(
    grouped: Path, home: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the model to a folder that peft reads, on the command line."""
    monkeypatch.chdir(tmp_path)
    search = ("search", "adapter", "--model", str(grouped), "--evaluations", "60", "--quiet", "--no-report")
    assert main([*search, "--out", "run"]) == 0
    assert "adapter-256+128" in capsys.readouterr().out
    assert main(["search", "--resume", "run", "--evaluations", "80", "--quiet", "--no-report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problem"] == "adapter-256+128"
    tune = ("finetune", "run", "--model", str(grouped), "--data", str(home / "lines.csv"), "--epochs", "1", "--quiet")
    assert main([*tune, "--bits", "8", "--out", "out"]) == 0
    told = capsys.readouterr().out
    widths = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["widths"]
    assert set(widths) == {"256", "128"} and widths["128"].startswith("7 of 8 qubits, ")
    assert all(f"layers of {features} features" in told and words in told for features, words in widths.items())
    model, task = load_local(grouped, home / "lines.csv")
    load(tmp_path / "out", model)
    assert torch.allclose(by_peft(tmp_path / "out", grouped, task), outputs(model, task.test), atol=1e-5)
    queries, values = (model.model.model.layers[0].self_attn.get_submodule(f"{n}_proj") for n in "qv")
    angles = [layer.qas_circuit_adapters.default.angles.numel() for layer in (queries, values)]
    assert angles[0] == 2 * int(widths["256"].split(", ")[1].split()[0]) > angles[1]


def test_circuits_of_several_widths_go_together(grouped: Path, home: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, qubits in (("wide", 8), ("narrow", 7)):
        gates = [("ry", (q,), 0.1) for q in range(qubits)]
        (tmp_path / f"{name}.qasm").write_text(Circuit(qubits, gates).to_qasm())
    tune = ("finetune", "--model", str(grouped), "--data", str(home / "lines.csv"), "--epochs", "1", "--quiet")
    both = (str(tmp_path / "wide.qasm"), str(tmp_path / "narrow.qasm"))
    assert main([*tune, *both, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["widths"] == {"256": "8 qubits, 8 angles", "128": "7 qubits, 7 angles"}
    model, task = load_local(grouped, home / "lines.csv")
    load(tmp_path / "out", model)
    assert torch.allclose(by_peft(tmp_path / "out", grouped, task), outputs(model, task.test), atol=1e-5)


SEARCHES = [
    (("search", "adapter"), "or adapter --model DIR, got 'adapter'"),
    (("search", "adapter-64", "--model", "x"), "--model goes with the problem adapter"),
    (("search", "--model", "x"), "--model goes with the problem adapter"),
    (("search", "adapter", "--targets", "q"), "it goes with --model"),
    (("search", "adapter", "--model", "x"), "no folder of a transformers model"),
    (("search", "adapter", "--model", "grouped", "--targets", "w"), "named w; the model has down_proj"),
    (("search", "adapter", "--model", "broken"), "the model cannot be read: broken"),
]


@pytest.mark.parametrize(("words", "message"), SEARCHES, ids=[" ".join(s[0]) for s in SEARCHES])
def test_models_that_cannot_be_searched_for_end_in_one_line(
    words: tuple[str, ...], message: str, grouped: Path, tmp_path: Path, capsys: Capture, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "lama"}')
    (tmp_path / "grouped").symlink_to(grouped)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("qas: error: ") and err.count("\n") == 1
    assert message in err and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("widths", "qubits"),
    [
        ([256, 128], [8, 7]), ([576, 192], [6]), ([384], [7]), ([768, 3072], [10]), ([11008, 4096], [12]), ([22], [2]),
        ([4096, 1024, 14336], [12, 10]),
    ],
)  # fmt: skip
def test_a_problem_has_the_qubits_that_the_widths_of_a_model_need(widths: list[int], qubits: list[int]) -> None:
    assert qubits_of(widths) == qubits
    # What it asks for are the cuts that layers get.
    wide = Architecture(qubits[0], tuple(("ry", (q,)) for q in range(qubits[0])))
    used = {min(wide.for_layer(width)[0].n_qubits, qubits[0]) for width in widths if width > 22}
    assert used <= set(qubits)


# ---------------------------------------------------------------------- what must never run
CODE = ("mine.LlamaConfig", "mine.LlamaForCausalLM")


def test_code_of_a_model_folder_is_never_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even after a yes on the standard input, which transformers would ask for."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(home / "llama", folder)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
    (folder / "mine.py").write_text(code)
    about = json.loads((folder / "config.json").read_text())
    about |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.LlamaConfig", "AutoModelForCausalLM": "mine.LlamaForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="cannot be loaded"):
        load_local(folder, home / "lines.txt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickles_are_never_loaded(name: str, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(home / "llama", folder)
    if name == "pytorch_model.bin":
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / name)
    else:
        peft = pytest.importorskip("peft")
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules=["q_proj"]))
        wrapped.peft_config["default"].base_model_name_or_path = str(folder)
        wrapped.peft_config["default"].save_pretrained(folder)
        torch.save(peft.get_peft_model_state_dict(wrapped), folder / name)
    with pytest.raises(RunError, match=f"never from a pickle, got .*{name}") as caught:
        load_local(folder, home / "lines.txt")
    assert "\n" not in str(caught.value)


def test_heads_are_not_adapted(home: Path) -> None:
    model = load_local(home / "llama", home / "lines.csv")[0]
    with pytest.raises(QasError, match="no linear layer to adapt is named score"):
        attach(model, Lora(targets=("score",)))


def test_half_precision_is_trained_in_full(home: Path, tmp_path: Path) -> None:
    half = transformers.LlamaForCausalLM.from_pretrained(home / "llama").to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    make_tokenizer(tmp_path / "half", eos_token="<end>")
    model = load_local(tmp_path / "half", home / "lines.txt")[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_model_that_was_a_classifier_gets_a_head_for_the_new_classes(home: Path, tmp_path: Path) -> None:
    old = transformers.BertForSequenceClassification(
        transformers.BertConfig.from_pretrained(home / "bert", num_labels=5)
    )
    old.save_pretrained(tmp_path / "old")
    make_tokenizer(tmp_path / "old", pad_token="<pad>")
    model, task = load_local(tmp_path / "old", home / "lines.csv")
    assert outputs(model, task.test).shape == (len(task.test), 2)


# ---------------------------------------------------------------------- command line
def called(home: Path, kind: str, data: str, *words: str) -> tuple[str, ...]:
    return ("finetune", "--model", str(home / kind), "--data", str(home / data), "--epochs", "1", "--quiet", *words)


def test_a_language_model_is_tuned_from_the_command_line(home: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main([*called(home, "gpt2", "lines.txt", "--rank", "2", "--out", str(out)), "--json"]) == 0
    told, err = capsys.readouterr()
    found = json.loads(told)
    assert err == "" and found["metric"] == "bits_per_token" and found["head_parameters"] == 0
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["targets"] is None and config["model"] == str(home / "gpt2")
    assert main([*called(home, "llama", "lines.jsonl", "--method", "linear-probe", "--out", str(tmp_path / "b"))]) == 0
    assert "lines, linear-probe" in capsys.readouterr().out


def _spoilt(folder: Path, home: Path, what: str) -> tuple[Path, Path]:
    """A model folder and a data file, one of them wrong."""
    model, data = folder / "model", folder / "data.csv"
    if what == "tokens":
        make_model(model, "llama", vocab_size=4)
        data.write_bytes((home / "lines.csv").read_bytes())
        return model, data
    model.mkdir()
    for path in (home / "llama").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    data.write_bytes((home / "lines.csv").read_bytes())
    lines = data.read_text(encoding="utf-8-sig").splitlines()
    spoil: dict[str, Any] = {
        "no config": lambda: (model / "config.json").unlink(),
        "cut config": lambda: (model / "config.json").write_text('{"model_type"'),
        "unknown kind": lambda: (model / "config.json").write_text('{"model_type": "lama"}'),
        "no tokenizer": lambda: [p.unlink() for p in model.glob("token*")],
        "no weights": lambda: (model / "model.safetensors").unlink(),
        "cut weights": lambda: (model / "model.safetensors").write_bytes(b"123456789"),
        "lacking weights": lambda: _drop(model / "model.safetensors", "model.layers.0.self_attn.q_proj.weight"),
        "empty label": lambda: data.write_text("\n".join([*lines, "text without,"])),
        "blank text": lambda: data.write_text("\n".join([*lines, "  ,yes"])),
        "empty": lambda: data.write_text(""),
        "bytes": lambda: data.write_bytes(b"text,label\n\xff\xfe,yes\n"),
        "no data": data.unlink,
    }
    spoil[what]()
    return model, data


def _drop(path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})


SPOILT = [
    ("no config", "no folder of a transformers model"),
    ("cut config", "cannot be loaded"),
    ("unknown kind", "cannot be loaded"),
    ("no tokenizer", "cannot be loaded"),
    ("no weights", "cannot be loaded"),
    ("cut weights", "cannot be loaded"),
    ("lacking weights", "lacks weights of model.layers.0.self_attn.q_proj"),
    ("tokens", "the model only 4 tokens"),
    ("empty label", "got example 55 without"),
    ("blank text", "got example 55 without"),
    ("empty", "got 0 of 0"),
    ("bytes", "no text in UTF-8"),
    ("no data", "no such data file"),
]


@pytest.mark.parametrize(("what", "words"), SPOILT, ids=[s[0] for s in SPOILT])
def test_damaged_models_and_data_end_in_one_line(
    what: str, words: str, home: Path, tmp_path: Path, capsys: Capture
) -> None:
    model, data = _spoilt(tmp_path, home, what)
    capsys.readouterr()
    assert main(["finetune", "--model", str(model), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("qas: error: ") and err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out").exists()


WRONG = [
    (("gpt2", "lines.txt", "--method", "linear-probe"), "nothing to train"),
    (("gpt2", "lines.csv", "--targets", "q_proj"), "named q_proj; the model has c_attn, c_fc, c_proj"),
    (("llama", "lines.csv", "--method", "lora", "--rank", "9"), "v_proj (16 to 8 features): rank is a whole number"),
    (("llama", "lines.json"), "no such data file"),
    (("bert", "lines.txt"), "does not look ahead, got BertLMHeadModel"),
    (("llama", "llama/config.json"), "data is a .txt, .csv, .jsonl or .tab file"),
    (("llama", "short.txt"), "at least 321 tokens are needed"),
    (("llama", "broken.jsonl"), "damaged or cut short"),
    (("llama", "list.jsonl"), "got example 1 without"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_calls_end_in_one_line(
    words: tuple[str, ...], message: str, home: Path, tmp_path: Path, capsys: Capture
) -> None:
    (home / "short.txt").write_text("the cat sleeps")
    (home / "broken.jsonl").write_text('{"text": "a"')
    (home / "list.jsonl").write_text("[1]\n" * 20)
    capsys.readouterr()
    assert main([*called(home, *words), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("qas: error: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
