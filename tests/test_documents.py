"""The Markdown files tell the truth: their links and paths exist, their commands parse, their Python blocks run.

Python blocks run as they stand, so their budgets are small. What a shell command names need not exist, only its words
have to be those of the command. Tutorials, the front page of the site and notebooks are sessions: their blocks and
commands run one after the other, and what they show is what is printed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import multiprocessing
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import links
import pytest
import sessions

from qas.cli.parser import Parser, build_parser
from qas.registry import OWNERS, registry

ROOT = Path(__file__).parents[1]


def _ours(path: Path) -> bool:
    folders = path.relative_to(ROOT).parts[:-1]
    return not folders or (folders[0] != "build" and not any(part.startswith(".") for part in folders))


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SESSIONS = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md")), *NOTEBOOKS]
PAGES = sorted([*filter(_ours, ROOT.rglob("*.md")), *NOTEBOOKS])
MADE_BY_USERS = ("pools/", "encoders/mine", "encoders/q", "results/layer", "results/RUN", "results/quality", "path/to/")
SLOW_IMPORTS = ["numba", "scipy.optimize", "networkx", "torch", "qiskit", "peft", "matplotlib.figure"]
"""What takes a second or two to import, of other packages: imported once for all Python blocks."""
FOLDERS = ("qas", "envs", "agents", "encoders", "tests", "benchmarks", "examples", "results", "docs", "scripts", ".ci")


def _pages(*names: str) -> Any:
    pages = [page for page in PAGES if not names or page.name in names]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def _text(page: Path) -> str:
    """The page as Markdown."""
    text = page.read_text()
    return sessions.markdown_of(json.loads(text)) if page.suffix == ".ipynb" else text


def _code(page: Path, *languages: str) -> list[str]:
    return [block.text for block in sessions.blocks(_text(page)) if block.language in languages]


def _spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def _prose(page: Path) -> str:
    return sessions.FENCE.sub("", _text(page))


def _commands(page: Path) -> Iterator[tuple[bool, list[str]]]:
    """Words of every shell command, and whether it is to be run: in code blocks and tables, unless it has a gap."""
    rows = [line for line in _prose(page).splitlines() if line.startswith("|")]
    lines = [line for block in _code(page, "", "bash") for line in block.replace("\\\n", " ").splitlines()]
    whole = [*lines, *(span for row in rows for span in _spans(row))]
    mentions = _spans("\n".join(line for line in _prose(page).splitlines() if not line.startswith("|")))
    for line in [*whole, *mentions]:
        if re.match(r"(qas|python|make) \S", line):
            yield line in whole and "…" not in line, shlex.split(line, comments=True)


def _parser_of(script: Path) -> argparse.ArgumentParser:
    """The parser that a script makes, without what the script does."""

    class Found(Exception):
        pass

    def give(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Found(parser)

    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(script.parent))
        patch.setitem(sys.modules, script.stem, module)
        patch.setattr(argparse.ArgumentParser, "parse_args", give)
        spec.loader.exec_module(module)
        with pytest.raises(Found) as found:
            module.main()
    return found.value.args[0]


def _check_script(words: list[str], parsers: dict[str, argparse.ArgumentParser]) -> None:
    name, *rest = words
    if name not in parsers:
        parsers[name] = _parser_of(ROOT / name)
    try:
        parsers[name].parse_args(rest)
    except SystemExit:
        pytest.fail(f"{name} does not take {shlex.join(rest)}")


def _check_mention(parser: Parser, words: list[str]) -> None:
    """A sentence may leave out what a command needs; commands and options it names exist."""
    for word in words:
        if parser.children() and word in parser.children():
            parser = parser.children()[word]
        elif word.startswith("-"):
            assert word in parser._option_string_actions, shlex.join(words)


@_pages()
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            assert links.well_formed(target), target
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", other.read_text(), flags=re.M)
            assert anchor in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], target


@_pages()
def test_paths_exist(page: Path) -> None:
    """Spans of code that look like a path of the repository are one."""
    for span in _spans(_prose(page)):
        path = re.fullmatch(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*", span)
        if path and not span.startswith(MADE_BY_USERS) and not re.search(r"-v\d+$", span):  # an id of Gymnasium
            assert any(ROOT.glob(span.rstrip("/"))), span


_parser, _SCRIPTS = functools.cache(build_parser), dict[str, argparse.ArgumentParser]()


@_pages()
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    qas, scripts = _parser(), _SCRIPTS
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for whole, (program, *words) in _commands(page):
        if program == "make":
            assert words[0] in targets
        elif program == "qas" and whole:
            qas.parse_args(words)
        elif program == "qas":
            _check_mention(qas, words)
        elif words[0].startswith(FOLDERS):
            assert (ROOT / words[0]).is_file(), words[0]
            if words[0].startswith("benchmarks") and words[1:]:
                _check_script(words, scripts)


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in PAGES if page not in SESSIONS for number in range(len(_code(page, "python")))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_python_blocks_run(page: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a process of its own, as a reader would run it, where nothing of this package is imported yet."""
    monkeypatch.chdir(tmp_path)
    _apart(exec, _code(page, "python")[number], {"__name__": "__main__"})


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.stem)
def test_sessions_show_what_they_print(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    shown = _apart(sessions.shown_and_printed, page)
    assert shown
    for page_says, printed in shown:
        assert sessions.matches(page_says, printed), f"the page shows\n{page_says}\nand prints\n{printed}"


def test_what_a_page_shows_is_compared() -> None:
    page = "```python\nx = 2\n```\n\n```python\nprint(x, 'of', 3)\n```\n\n```text\n%s\n```\n"
    for shown, right in (("2 of 3", True), ("2 …", True), ("3 of 3", False), ("…", False), ("2 of", False)):
        ((block, printed),) = sessions.run_tutorial(page % shown)
        assert sessions.matches(block.text, printed) is right, shown
    assert sessions.rewritten_tutorial(page % "4 of 3") == page % "2 of 3"
    assert sessions.rewritten_tutorial(page % "… of 3") == page % "… of 3"
    with pytest.raises(RuntimeError, match="exit code 2"):
        sessions.run_tutorial("```\nqas search no-such-problem --agent random\n```\n")


def _apart(function: Any, *arguments: Any) -> Any:
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(SLOW_IMPORTS)
    with ProcessPoolExecutor(1, mp_context=forked) as process:
        return process.submit(function, *arguments).result(timeout=300)


def test_every_result_and_benchmark_is_listed() -> None:
    results = (ROOT / "results" / "README.md").read_text()
    listed = {name.split("/")[0] for name in re.findall(r"^\| `([\w./-]+)`", results, flags=re.M)}
    assert listed == {path.name for path in (ROOT / "results").iterdir() if path.is_dir()}
    scripts = re.findall(r"^\| `(\w+\.py)`", (ROOT / "benchmarks" / "README.md").read_text(), flags=re.M)
    assert sorted(scripts) == sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))


def test_published_fronts_are_whole() -> None:
    fronts = sorted((ROOT / "results").glob("*/*/front.json"))
    assert fronts
    for front in fronts:
        claimed = [circuit["file"] for circuit in json.loads(front.read_text())["circuits"]]
        assert sorted(claimed) == sorted(path.name for path in front.parent.glob("*.qasm")), front.parent


def test_the_table_of_doors_names_registries() -> None:
    """CONTRIBUTING tells where things are registered: each of these tables is there, and no kind is left out."""
    kinds: set[str] = set()
    for row in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        found = re.findall(r"`qas\.(\w+)`", row.split("|")[4]) if row.count("|") >= 6 else []
        for table, kind in zip(re.findall(r"`([A-Z_]+)`", row), found, strict=False):
            owner = importlib.import_module(OWNERS[kind])
            assert getattr(owner, table) is registry(kind), row
            kinds.add(kind)
    assert kinds == set(OWNERS)
