"""A comparison as files: the table of its runs, its tables in Markdown, its figures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qas.comparison.figures import course_figure, front_figure
from qas.comparison.groups import Comparison
from qas.comparison.tables import Criterion, Table, criteria_of, differences, records, success, summary, to_markdown
from qas.drawing import save_figure
from qas.files import disk_errors, to_json, write_atomic


def write_csv(comparison: Comparison, path: Path) -> None:
    """One row for each run; budgets, options and fronts are JSON in their cells.

    Raises:
        RunError: the file cannot be written.
    """
    rows = records(comparison)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: to_json(value) if isinstance(value, (dict, list)) else value for key, value in row.items()}
        )
    write_atomic(path, stream.getvalue())


def tables_of(
    comparison: Comparison, error: float | None = None, criteria: Sequence[Criterion] = ()
) -> Iterator[tuple[str, list[Table]]]:
    """Title and tables of each group that are the same on a page, in Markdown and on a terminal."""
    for group in comparison.groups:
        tables = [summary(group), success(group, criteria_of(group, error, criteria)), differences(group)]
        yield group.title, [table for table in tables if table.rows]


def write_markdown(
    comparison: Comparison, path: Path, title: str, error: float | None = None, criteria: Sequence[Criterion] = ()
) -> None:
    """The tables of a comparison in Markdown.

    Raises:
        RunError: the file cannot be written.
    """
    parts = [f"# {' '.join(title.split())}"]
    for heading, tables in tables_of(comparison, error, criteria):
        parts.append(f"## {' '.join(heading.split())}")
        for table in tables:
            parts += [to_markdown(table), *([table.note] if table.note else [])]
    write_atomic(path, "\n\n".join(parts) + "\n")


def summary_json(
    comparison: Comparison, error: float | None = None, criteria: Sequence[Criterion] = ()
) -> dict[str, Any]:
    """Tables and runs of a comparison, JSON-able: numbers where tables have numbers, else their text."""
    groups = [
        {
            "title": title,
            "tables": {
                table.title: [
                    {
                        head: cell.text if cell.value is None else cell.value
                        for head, cell in zip(table.heads, row, strict=True)
                    }
                    for row in table.rows
                ]
                for table in tables
            },
        }
        for title, tables in tables_of(comparison, error, criteria)
    ]
    return {"groups": groups, "runs": records(comparison), "left_out": list(comparison.left_out)}


def save_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """The three figures of each group, as .svg and .png.

    Returns:
        The files.

    Raises:
        RunError: the folder cannot be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, group in enumerate(comparison.groups):
        stem = re.sub(r"[^A-Za-z0-9.]+", "-", group.title).strip("-")[:80]
        stem = f"{number}-{stem}" if len(comparison.groups) > 1 else stem
        figures = {"front": front_figure(group, group.title)}
        figures |= {field: course_figure(group, field, group.title) for field in ("evaluations", "seconds")}
        for name, figure in figures.items():
            for end in (".svg", ".png"):
                written.append(folder / f"{stem}-{name}{end}")
                save_figure(figure, written[-1])
    return written
