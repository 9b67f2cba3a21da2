"""``qas export``: data sets for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qas.cli import parser as read
from qas.cli import show
from qas.cli.progress import bar
from qas.errors import QasError


def add(commands: Any) -> None:
    actions = read.group(commands, "export", "data sets for other programs", "Writes data sets.")
    about = (
        "Writes circuits with their energies as JSON lines, without copies, split so that no problem is in two parts."
    )
    parser = read.command(actions, "corpus", "a training set of circuits", about, _corpus)
    parser.option("folders", "RUN", "runs, campaigns and labelled pools", nargs="*")
    parser.flag("--atlas", "the best known circuits too")
    parser.option("--out", "DIR", "folder, new or empty", required=True)
    parser.option("--licence", "NAME", "of the circuits (default Apache-2.0, that of the atlas)", default="Apache-2.0")
    parser.output(progress=True)


def _corpus(arguments: argparse.Namespace) -> int:
    from qas.corpus import sources_of_atlas, sources_of_folders, write_corpus

    if not (arguments.folders or arguments.atlas):
        raise QasError("a corpus is made of runs, campaigns, labelled pools or --atlas, got none of them")
    sources: list[Any] = []
    for folder in arguments.folders:
        sources += _pool(folder) if (Path(folder) / "manifest.json").is_file() else sources_of_folders([folder])
    sources += sources_of_atlas() if arguments.atlas else []
    with bar(arguments.quiet) as shown:
        made = write_corpus(
            sources,
            arguments.out,
            licence=arguments.licence,
            on_progress=lambda done, size: shown("writing circuits", done, size),
        )
    data = {"path": str(made.path), "circuits": made.counts, "problems": made.problems, "duplicates": made.duplicates}
    rows = [["part", "circuits", "problems"]]
    rows += [[part, f"{count:,}", str(len(made.problems[part]))] for part, count in made.counts.items()]
    return show.answer(arguments, data, *show.table(rows), f"{made.duplicates:,} copies left out; corpus  {made.path}")


def _pool(folder: str) -> list[Any]:
    from qas.encoders.pools.examples import sources_of_pool

    return sources_of_pool(folder)
