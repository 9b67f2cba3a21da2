"""The Markdown files tell the truth: their links and paths exist, their commands parse, their Python blocks run.

Python blocks run as they stand, so their budgets are small. What a shell command names need not exist, only its words
have to be those of the command.
"""

from __future__ import annotations

import argparse
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

import pytest

from qas.cli.parser import Parser, build_parser
from qas.registry import OWNERS, registry

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
MADE_BY_USERS = ("pools/", "encoders/mine", "encoders/q", "results/layer", "results/RUN", "results/quality", "path/to/")
SLOW_IMPORTS = ["numba", "scipy.optimize", "networkx", "torch", "qiskit"]
"""What takes a second or two to import, of other packages: imported once for all Python blocks."""
FOLDERS = ("qas", "envs", "agents", "encoders", "tests", "benchmarks", "examples", "results", "docs", "scripts", ".ci")


def _pages(*names: str) -> Any:
    pages = [page for page in PAGES if not names or page.name in names]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def _code(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def _spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def _commands(page: Path) -> Iterator[tuple[bool, list[str]]]:
    """Words of every shell command, and whether it is to be run: in code blocks and tables, unless it has a gap."""
    rows = [line for line in _prose(page).splitlines() if line.startswith("|")]
    lines = [line for block in _code(page, "") for line in block.replace("\\\n", " ").splitlines()]
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


@_pages()
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    qas, scripts = build_parser(), {}
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
    [(page, number) for page in PAGES for number in range(len(_code(page, "python")))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_python_blocks_run(page: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a process of its own, as a reader would run it, where nothing of this package is imported yet."""
    monkeypatch.chdir(tmp_path)
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(SLOW_IMPORTS)
    with ProcessPoolExecutor(1, mp_context=forked) as process:
        process.submit(exec, _code(page, "python")[number], {"__name__": "__main__"}).result(timeout=300)


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
