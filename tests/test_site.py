"""The site: every page stands in a table of contents, every public name in the reference, and no link may be broken."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import atlas
import expansion
import gallery
import links
import pytest
import reference

import qas

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = "\n".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
ROOMS = re.findall(r"^```\{room\} (\S+)$", REFERENCE, flags=re.M)


def test_every_page_stands_in_a_table_of_contents() -> None:
    tables = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), flags=re.M | re.S)
    lines = [line for table in tables for line in table.splitlines() if line and not line.startswith(":")]
    listed = [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("examples/*.ipynb")]
    expected = {path.resolve().with_suffix("") for path in pages if path.name != "index.md"}
    found = [(DOCS / line).resolve() for line in listed]
    assert len(found) == len(set(found))
    assert expected <= set(found)
    assert all(path.with_suffix(".md").is_file() or path.with_suffix(".ipynb").is_file() for path in found)


def test_every_public_name_is_in_the_reference() -> None:
    entries = set(re.findall(r"^\.\. auto(?:class|function|data):: (\S+)$", expansion.expand(REFERENCE), flags=re.M))
    described = {id(_find(entry)) for entry in entries if not entry.endswith("__version__")}
    packages = ["qas", *qas._MODULES, *_rooms_with_exports()]
    for name in dict.fromkeys(name if name.startswith("qas") else f"qas.{name}" for name in packages):
        assert name in ROOMS, name
        module = import_module(name)
        for export in reference.public(module):
            value = getattr(module, export)
            named = inspect.isclass(value) or inspect.isroutine(value)
            assert (id(value) in described) if named else f"{name}.{export}" in entries, f"{name}.{export}"


def _rooms_with_exports() -> list[str]:
    """Packages that list what they export, wherever they lie."""
    found = []
    for folder in ("qas", "envs", "agents", "encoders"):
        for path in (ROOT / folder).rglob("__init__.py"):
            if re.search(r"^__all__", path.read_text(), flags=re.M):
                parts = path.parent.relative_to(ROOT).parts
                found.append(".".join(parts if folder == "qas" else ("qas", *parts)))
    return found


def _find(entry: str) -> object:
    module, _, name = entry.rpartition(".")
    return getattr(import_module(module), name)


def test_docstrings_become_what_sphinx_reads() -> None:
    lines = ["Of |0⟩ and ``|``.", "", "## Rewards", "", "| key | space |", "|---|---|", "| a | Box, (n,) |", "", "End"]
    expansion._on_docstring(None, "class", "x", object(), None, lines)
    assert lines[:3] == [r"Of \|0⟩ and ``|``.", "", ".. rubric:: Rewards"]
    rows = [line for line in lines if line.strip().startswith(("*", "-"))]
    assert rows == ["   * - key", "     - space", "   * - a", "     - Box, (n,)"] and lines[-1] == "End"


def test_a_published_front_becomes_a_section() -> None:
    text = "\n".join(gallery._front(ROOT / "results" / "compact" / "h4-8-1.5"))
    assert "## h4-8-1.5" in text and text.count("<svg") == 2 and "mHa" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (DOCS / target).is_file()


def test_tables_of_the_atlas_sort_by_numbers() -> None:
    text = atlas.table(("problem", "error"), [[atlas.cell("lih-4"), atlas.cell(1e-9, "10⁻⁹")]])
    assert text.count("<button>") == 2 and "data-v='1e-09'" in text


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("<a href='other.html#there'>x</a><img src='data:image/png;base64,AA'>", None),
        ("<a href='https://example.org/a?b=c#d'>x</a>", None),
        ("<a href='other.html#nowhere'>x</a>", "no such anchor"),
        ("<a href='gone.html'>x</a>", "missing"),
        ("<a href='http:/example.org'>x</a>", "malformed"),
        ("<script src='https://example.org/x.js'></script>", "from another site"),
        ("<img src='gone.png'>", "missing"),
    ],
)
def test_links_of_a_site_are_followed(body: str, wrong: str | None, tmp_path: Path) -> None:
    links.read.cache_clear()
    (tmp_path / "index.html").write_text(body)
    (tmp_path / "other.html").write_text("<h1 id='there'>x</h1>")
    found = list(links.check(tmp_path))
    assert not found if wrong is None else len(found) == 1 and found[0].endswith(wrong)
