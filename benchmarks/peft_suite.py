"""peft's own tests of its tuners, run on circuit adapters: nothing of them is kept here.

    pip download --no-deps --no-binary :all: peft==0.21.2 && tar xzf peft-0.21.2.tar.gz
    python benchmarks/peft_suite.py peft-0.21.2 --out results/adapters/peft_suite.json
    python benchmarks/peft_suite.py peft-0.21.2 --form rotation -k merge      # some, as pytest chooses them

The folder is an unpacked source distribution (or checkout) of the peft that is installed. Its test modules are imported
from there, and wherever they are parametrized by methods, the parameters are replaced: each case of LoRA whose settings
circuit adapters have too (target_modules, modules_to_save, rank, start, bias) becomes one of ours; tests without such a
case are left out. The tiny random models they want from the hub are made from their configuration, with fresh weights,
and laid into a cache of hub files in a temporary folder, so that no network is needed. "Refused" counts tests that save
a pickle and want it loaded, which is never done here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

MODULES = (
    "test_config",
    "test_custom_models",
    "test_decoder_models",
    "test_encoder_decoder_models",
    "test_feature_extraction_models",
    "test_seq_classifier",
    "test_token_classification_qa",
)
PACKAGE = "published_tests_of_peft"
SETTINGS = {"r": "rank", "init_lora_weights": "init_weights"} | {
    name: name for name in ("target_modules", "modules_to_save", "bias", "task_type", "rank_pattern")
}
"""Settings of LoRA that circuit adapters have, and what they are called there."""
MEANINGLESS = {"lora_alpha", "lora_dropout"}
"""Settings of LoRA that may be left out: what is tested does not depend on them."""
LAYERS = {"lin0", "lin1", "Conv1D", "conv1d"}
"""Layers of peft's own small networks that are linear."""
NETWORKS = {"MLP", "MLP2", "MLP_LayerNorm", "EmbConv1D"}
"""Those networks whose linear layers stand alone."""


REFUSAL = "QasError: adapters are read from adapter_model.safetensors, never from a pickle"
STAND_INS = {"datasets": ["load_dataset"], "diffusers": ["StableDiffusionPipeline"], "parameterized": ["parameterized"]}


# ---------------------------------------------------------------------- models
def tiny() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name on the hub: class in transformers, and its configuration."""
    bert = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 5, "num_attention_heads": 4}
    llama = bert | {"num_hidden_layers": 2, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
    # The tests' texts are of tokens 1 and 2, so neither is the padding, whose embedding is zero.
    words = {"vocab_size": 1024, "pad_token_id": 3, "bos_token_id": 0, "eos_token_id": 4}
    gpt = {"n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 512} | words
    opt = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 4, "num_hidden_layers": 5}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 5, "num_heads": 4, "decoder_start_token_id": 0}
    bart = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4}
    bart |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2}
    gemma = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 32}
    ours = "peft-internal-testing/tiny"
    return {
        f"{ours}-random-OPTForCausalLM": ("OPTForCausalLM", opt | words | {"num_attention_heads": 4}),
        f"{ours}-random-GPT2LMHeadModel": ("GPT2LMHeadModel", gpt),
        "hf-internal-testing/tiny-random-gpt2": ("GPT2LMHeadModel", gpt),
        f"{ours}-random-GPTJForCausalLM": ("GPTJForCausalLM", gpt | {"rotary_dim": 4}),
        "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", llama | words),
        f"{ours}-dummy-qwen2": ("Qwen2ForCausalLM", llama | words),
        "hf-internal-testing/tiny-random-Gemma3ForCausalLM": ("Gemma3ForCausalLM", llama | words | gemma),
        "hf-internal-testing/tiny-random-MistralForCausalLM": ("MistralForCausalLM", llama | words),
        f"{ours}-random-T5ForConditionalGeneration-calibrated": ("T5ForConditionalGeneration", t5 | words),
        f"{ours}-random-BartForConditionalGeneration": ("BartForConditionalGeneration", bart | words),
        f"{ours}-random-BertModel": ("BertModel", bert | words),
        f"{ours}-random-RobertaModel": ("RobertaModel", bert | words),
        f"{ours}-random-DebertaModel": ("DebertaModel", bert | words | {"pos_att_type": ["c2p", "p2c"]}),
        f"{ours}-random-DebertaV2Model": ("DebertaV2Model", bert | words | {"pos_att_type": ["c2p", "p2c"]}),
        f"{ours}-random-BertForSequenceClassification": ("BertForSequenceClassification", bert | words),
        f"{ours}-random-RobertaForSequenceClassification": ("RobertaForSequenceClassification", bert | words),
        "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
            "LlamaForSequenceClassification",
            llama | words,
        ),
    }


def lay_out(cache: Path) -> None:
    """Models in a folder that looks as if they had come from the hub."""
    import peft
    import torch
    import transformers

    for number, (name, (kind, settings)) in enumerate(tiny().items()):
        model_class = getattr(transformers, kind)
        torch.manual_seed(number)
        model = model_class(model_class.config_class(**settings))
        model.save_pretrained(place(cache, name, "main"))
    peft.LoraConfig(target_modules=["q_proj"]).save_pretrained(
        str(place(cache, "peft-internal-testing/tiny-opt-lora-revision", "test"))
    )


def place(cache: Path, name: str, revision: str) -> Path:
    """Folder of a revision of a model, as hub files are kept."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text("0" * 40)
    return folder / "snapshots" / ("0" * 40)


# ---------------------------------------------------------------------- cases
class Cases:
    """Cases of LoRA turned into cases of circuit adapters."""

    def __init__(self, form: str) -> None:
        from peft import LoraConfig

        from qas.adapters import CircuitAdapterConfig

        self.theirs, self.ours, self.form = LoraConfig, CircuitAdapterConfig, form

    def settings(self, given: dict[str, Any]) -> dict[str, Any] | None:
        """Ours; None where LoRA is asked for something of its own."""
        if not set(given) <= set(SETTINGS) | MEANINGLESS or given.get("bias", "none") == "lora_only":
            return None
        if not isinstance(given.get("init_lora_weights", True), bool):
            return None
        found = {SETTINGS[name]: value for name, value in given.items() if name in SETTINGS}
        return found | ({"form": self.form} if self.form != "frames" else {})

    def turned(self, names: Sequence[str], row: Any) -> tuple[Any, ...] | None:
        """One row of a table of parameters."""
        values = dict(zip(names, row if len(names) > 1 else [row], strict=True))
        if values.get("model_id", "MLP") in NETWORKS | {"MLP"} or "/" in values["model_id"]:
            found = {name: self._value(value) for name, value in values.items()}
            if None not in [found[n] for n, v in values.items() if v is not None] and self._known(found, values):
                return tuple(found.values())
        return None

    def _value(self, value: Any) -> Any:
        if value is self.theirs:
            return self.ours
        if isinstance(value, self.theirs):
            given = {n: v for n, v in vars(value).items() if v and n in SETTINGS and n != "bias"}
            settings = self.settings(given | {"init_lora_weights": value.init_lora_weights})
            return self.ours(**settings) if settings and set(value.target_modules or ["none"]) <= LAYERS else None
        if isinstance(value, dict):
            return self.settings(value)
        return value.replace("LoRA", "circuit").replace("lora", "circuit") if isinstance(value, str) else value

    def _known(self, found: dict[str, Any], values: dict[str, Any]) -> bool:
        if not any(v is self.theirs or isinstance(v, self.theirs) for v in values.values()):
            return False
        targets = [s.get("target_modules") for s in found.values() if isinstance(s, dict)]
        if "/" in found.get("model_id", "MLP/") or "model_id" not in found:
            return True
        return all(set([t] if isinstance(t, str) else t or []) <= LAYERS for t in targets)

    def table(self, names: Sequence[str], rows: Iterable[Any]) -> list[Any]:
        """Ours, each once."""
        found: dict[str, Any] = {}
        for row in rows:
            ours = self.turned(names, getattr(row, "values", row))
            if ours is not None:
                found.setdefault(repr(ours[1:] if isinstance(ours[0], str) else ours), ours)
        return [row if len(names) > 1 else row[0] for row in found.values()]


def methods_of(names: Sequence[str]) -> bool:
    return any(name.startswith(("config_cls", "config_class", "config0")) for name in names)


# ---------------------------------------------------------------------- pytest
class Published(pytest.Module):
    """A test module of the package that the folder is."""

    cases: Cases

    def _getobj(self) -> Any:
        with absent():
            module = importlib.import_module(f"{PACKAGE}.{self.path.stem}")
        for function in _functions(module):
            marks = [self._turned(mark) for mark in getattr(function, "pytestmark", [])]
            if all(mark is not None for mark in marks):
                function.pytestmark = marks
                function.__dict__["of_circuits"] = any(methods_of(_names(mark)) for mark in marks)
        return module

    def _turned(self, mark: pytest.Mark) -> pytest.Mark | None:
        names = _names(mark)
        if not methods_of(names):
            return mark
        rows = self.cases.table(names, mark.args[1])
        return pytest.mark.parametrize(mark.args[0], rows, **mark.kwargs).mark if rows else None


def _names(mark: pytest.Mark) -> list[str]:
    if mark.name != "parametrize":
        return []
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _functions(module: types.ModuleType) -> Iterator[Any]:
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield from (v for v in vars(value).values() if isinstance(v, types.FunctionType))
        elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
            yield value


class Suite:
    """What pytest does differently here, and what came out."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.outcomes: dict[str, str] = {}
        """of each test: passed, failed or skipped, or refused: a file was a pickle, which is never read here"""

    def pytest_pycollect_makemodule(self, module_path: Path, parent: Any) -> pytest.Module:
        module = Published.from_parent(parent, path=module_path)
        module.cases = self.cases
        return module

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        ours = [item for item in items if getattr(getattr(item, "function", None), "of_circuits", False)]
        config.hook.pytest_deselected(items=[item for item in items if item not in ours])
        items[:] = ours

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            refused = report.outcome == "failed" and REFUSAL in report.longreprtext
            self.outcomes[report.nodeid] = "refused" if refused else report.outcome


def published(folder: Path) -> list[str]:
    """Make the tests of the folder a package, and name its modules.

    Raises:
        SystemExit: it has none, or is another version than the one that is installed.
    """
    tests = folder / "tests"
    paths = [tests / f"{name}.py" for name in MODULES]
    if not all(path.is_file() for path in paths):
        raise SystemExit(f"the folder is an unpacked source distribution of peft with its tests, got {folder}")
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(tests)]
    sys.modules[PACKAGE] = package
    return [str(path) for path in paths]


@contextmanager
def absent() -> Iterator[None]:
    """Stand-ins for packages that the modules import and the tests run here do not need."""
    missing = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
        vars(sys.modules[name]).update({inner: type(inner, (), {}) for inner in STAND_INS[name]})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


class Everything(dict[str, int]):
    """Models that were fetched before: all of them."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--form", choices=["frames", "rotation"], default="frames")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="which tests, as of pytest")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    paths = published(given.folder)
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        lay_out(Path(cache))
        with absent():
            importlib.import_module(f"{PACKAGE}.testing_utils")._HUB_MODEL_ACCESSES = Everything()
        suite = Suite(Cases(given.form))
        options = [
            "-c",
            os.devnull,
            "--rootdir",
            str(given.folder),
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
        ]
        code = pytest.main([*options, "-k", given.k, *paths], plugins=[suite])
    counts = Counter(suite.outcomes.values())
    print(json.dumps(counts))
    if given.out:
        failed = sorted(name.split("::", 1)[1] for name, outcome in suite.outcomes.items() if outcome == "failed")
        told = {"peft": importlib.metadata.version("peft"), "form": given.form, **counts, "failures": failed}
        given.out.write_text(json.dumps(told, indent=1) + "\n")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
