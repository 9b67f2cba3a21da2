"""Blocks in Markdown that stand for what is made at build time: ``{room}``, ``{agents}``, ``{gallery}``, …."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atlas
import gallery
import reference

MADE: dict[str, Callable[[str], str]] = {
    "room": reference.room,
    "agents": reference.agents,
    "gallery": gallery.fronts,
    "circuits": gallery.others,
    "atlas": atlas.fronts,
}
"""Name of a block -> function from the words behind the name to Markdown."""
BLOCK = re.compile(rf"^```\{{({'|'.join(MADE)})\}} *(.*)\n```$", flags=re.M)


def expand(text: str) -> str:
    """The page with every block replaced by what it stands for."""
    return BLOCK.sub(lambda block: MADE[block[1]](block[2].strip()), text)


def _on_read(app: Any, name: str, source: list[str]) -> None:
    if Path(app.env.doc2path(name)).suffix == ".md":
        source[0] = expand(source[0])


def _list_table(table: str) -> str:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (rows[0], *rows[2:]):
        lines += [f"   {' ' if k else '*'} - {cell}" for k, cell in enumerate(row)]
    return "\n".join([*lines, "", ""])


_KEPT: dict[str, list[str]] = {}


def _before_napoleon(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the text of an attribute for its type: keep the text as it was."""
    if what in ("attribute", "data") or (what == "property" and "Raises:" not in lines):
        _KEPT[name] = list(lines)


def _on_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings as reStructuredText.

    Bars are bars (|0⟩); the headings and tables of environments, which are Markdown as Gymnasium's are, become its own;
    constants do not have the docstring of their type.
    """
    lines[:] = _KEPT.pop(name, lines)
    if what == "data" and inspect.getdoc(type(thing)) == "\n".join(lines).strip():
        lines.clear()
    text = re.sub(r"^## (.*)$", r".. rubric:: \1", "\n".join(lines), flags=re.M)
    text = re.sub(r"(?:^\|.*\n?)+", lambda table: _list_table(table[0]), text, flags=re.M)
    text = re.sub(r"(`+)[^`]*\1|\|", lambda m: m[0] if m[1] else r"\|", text)
    lines[:] = text.splitlines()


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _on_read)
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _on_docstring, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
