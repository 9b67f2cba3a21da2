"""``qas report``: compare runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qas.cli import parser as read
from qas.cli import show
from qas.errors import QasError


def add(commands: Any) -> None:
    about = (
        "Compares the finished runs of campaigns and run folders: fronts, courses and successes with their spread over "
        "seeds, on a page that needs no network."
    )
    parser = read.command(commands, "report", "compare runs on one page", about, run)
    parser.option("folders", "FOLDER", "campaigns and run folders", nargs="+")
    where = "page, .html or .md (default report.html in a campaign, else comparison.html)"
    parser.option("--out", "FILE", where, Path)
    parser.option("--error", "E", "largest error of a success (default: the threshold of each problem)", read.positive)
    parser.option("--criterion", "LIMITS", 'another one, such as "error<1e-3, cx<=4, gates<=15"', action="append")
    parser.option("--csv", "FILE", "one row for each run", Path)
    parser.option("--figures", "DIR", "the figures as .svg and .png", Path)
    parser.output()


def run(arguments: argparse.Namespace) -> int:
    import warnings

    from qas.comparison import gather
    from qas.comparison.files import save_figures, summary_json, tables_of, write_csv, write_markdown
    from qas.comparison.page import write_page
    from qas.comparison.tables import parse_criterion

    wanted = [parse_criterion(text) for text in arguments.criterion or ()]
    out = arguments.out or _place(arguments.folders)
    if out.suffix.lower() not in (".html", ".md"):
        raise QasError(f"a report is a page, .html or .md, got {out.name!r}")
    if arguments.csv is not None and arguments.csv.resolve() == out.resolve():
        raise QasError(f"the page and the table of runs are two files, got {out} for both")
    comparison = gather(arguments.folders)
    for line in comparison.left_out:
        warnings.warn(f"left out: {line}", stacklevel=1)
    title = ", ".join(Path(folder).resolve().name for folder in arguments.folders[:3])
    title += f" and {len(arguments.folders) - 3} more" if len(arguments.folders) > 3 else ""
    if out.suffix.lower() == ".html":
        write_page(comparison, out, title, error=arguments.error, criteria=wanted)
    else:
        write_markdown(comparison, out, title, arguments.error, wanted)
    if arguments.csv is not None:
        write_csv(comparison, arguments.csv)
    if arguments.figures is not None:
        save_figures(comparison, arguments.figures)
    lines = []
    for heading, tables in tables_of(comparison, arguments.error, wanted):
        for table in tables:
            rows = [list(table.heads), *([cell.text for cell in row] for row in table.rows)]
            lines += [f"{heading}: {table.title.lower()}", *show.table(rows), ""]
    found = summary_json(comparison, arguments.error, wanted) | {"page": str(out)}
    return show.answer(arguments, found, *lines, f"report  {out}")


def _place(folders: list[str]) -> Path:
    """Where the page of these folders is, if nothing else is asked for."""
    from qas.comparison.groups import CAMPAIGN

    only = Path(folders[0])
    return only / "report.html" if len(folders) == 1 and (only / CAMPAIGN).is_file() else Path("comparison.html")
