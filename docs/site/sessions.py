"""Pages as sessions: run their Python blocks and commands in order, and compare or write what they show.

A session is a tutorial (Markdown) or a notebook. In a tutorial, a block marked ``text`` is what the block before it
prints; ``…`` in it stands for anything. In a notebook, outputs are those of its cells.

    python docs/site/sessions.py docs/tutorials/*.md examples/*.ipynb     # writes what differs

The tests run the same and fail where something differs.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1`*[ ]*$", flags=re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of Markdown: its language ("" if none is named), its text, and where the text lies in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(markdown: str) -> list[Block]:
    return [Block(m[2].strip(), m[3], m.start(3), m.end(3)) for m in FENCE.finditer(markdown)]


@dataclass
class Output:
    """What a piece of a session showed: text, and pictures as PNG in base64."""

    text: str = ""
    pictures: list[str] = field(default_factory=list)


class Session:
    """One reader at one prompt: names stay from block to block, and files in the working folder."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def python(self, code: str, *, shows_last: bool = False) -> Output:
        """Run Python; with `shows_last` the value of the last expression and all open figures are shown, as a notebook
        does."""
        tree = ast.parse(code)
        last = tree.body.pop() if shows_last and tree.body and isinstance(tree.body[-1], ast.Expr) else None
        stream, value = io.StringIO(), None
        with contextlib.redirect_stdout(stream):
            exec(compile(tree, "<block>", "exec"), self.names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<block>", "eval"), self.names)
                if value is not None and not hasattr(value, "savefig"):
                    print(repr(value))
        figures = [*_open_figures(), *([value] if hasattr(value, "savefig") else [])] if shows_last else []
        return Output(stream.getvalue(), [_as_png(figure) for figure in figures])

    def command(self, line: str) -> Output:
        """Run ``qas …`` in this process; what it says of its progress is left out."""
        from qas.cli import main

        program, *words = shlex.split(line, comments=True)
        if program != "qas":
            raise ValueError(f"a session runs commands of qas, got {line!r}")
        stream, progress = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(progress):
            code = main(words)
        if code:
            raise RuntimeError(f"{line}: exit code {code}\n{progress.getvalue()}")
        return Output(stream.getvalue())


def _open_figures() -> Iterator[Any]:
    """Figures of pyplot, closed, as a notebook shows them after each cell."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot else ():
        figure = pyplot.figure(number)
        pyplot.close(number)
        yield figure


def _as_png(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=72, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()


def lines_of(block: Block) -> list[str]:
    """Commands of a block without a language, continued lines joined."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def matches(shown: str, printed: str) -> bool:
    """Whether what a page shows is what was printed; ``…`` stands for anything (but is not all there is),
    spaces at the ends of lines for nothing."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    if not shown.strip(" \n…"):
        return not printed.strip()
    pattern = ".*?".join(re.escape(part) for part in tidy(shown).split("…"))
    return re.fullmatch(pattern, tidy(printed), flags=re.S) is not None


# ---------------------------------------------------------------------- tutorials
def run_tutorial(markdown: str) -> list[tuple[Block, str]]:
    """Blocks of shown output, each with what was printed."""
    session, printed, found = Session(), "", []
    for block in blocks(markdown):
        if block.language == "python":
            printed = session.python(block.text).text
        elif block.language == "":
            printed = "".join(session.command(line).text for line in lines_of(block))
        elif block.language == "text":
            found.append((block, printed))
    return found


def rewritten_tutorial(markdown: str) -> str:
    for block, printed in reversed(run_tutorial(markdown)):
        if not matches(block.text, printed):
            markdown = markdown[: block.start] + printed.strip("\n") + "\n" + markdown[block.end :]
    return markdown


# ---------------------------------------------------------------------- notebooks
def shown_text(cell: dict[str, Any]) -> str:
    """The text that a cell's outputs show."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def run_notebook(notebook: dict[str, Any]) -> list[tuple[dict[str, Any], Output]]:
    """Code cells, each with what it showed."""
    session = Session()
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(cell, session.python("".join(cell["source"]), shows_last=True)) for cell in cells]


def markdown_of(notebook: dict[str, Any]) -> str:
    """The notebook as a page: code blocks, and what they showed."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _page_of(cell))


def _page_of(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield f"```text\n{''.join(output['text']).rstrip()}\n```"
        else:
            source = "data:image/png;base64," + "".join(output["data"]["image/png"])
            yield f"```{{raw}} html\n<img class='shown' alt='what this cell draws' src='{source}'>\n```"


def rewritten_notebook(text: str) -> str:
    notebook = json.loads(text)
    for cell, output in run_notebook(notebook):
        if matches(shown_text(cell), output.text) and bool(output.pictures) == ("image/png" in json.dumps(cell)):
            continue
        cell["outputs"] = [
            *([{"name": "stdout", "output_type": "stream", "text": _lines(output.text)}] if output.text else []),
            *(
                {"data": {"image/png": picture}, "metadata": {}, "output_type": "display_data"}
                for picture in output.pictures
            ),
        ]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def shown_and_printed(page: Path) -> list[tuple[str, str]]:
    """Every output that a page shows, with what was printed in its place."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        return [(shown_text(cell), output.text) for cell, output in run_notebook(json.loads(text))]
    return [(block.text, printed) for block, printed in run_tutorial(text)]


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path)
    os.environ.setdefault("COLUMNS", "100")
    for page in parser.parse_args().pages:
        rewrite = rewritten_notebook if page.suffix == ".ipynb" else rewritten_tutorial
        place, home = page.resolve(), Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                text = rewrite(place.read_text())
            finally:
                os.chdir(home)
        if text != place.read_text():
            place.write_text(text)
            print(f"{page}: written")


if __name__ == "__main__":
    main()
