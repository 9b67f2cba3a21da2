"""Notebooks as pages: their cells become Markdown, code blocks and what they showed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser


def markdown_of(notebook: dict[str, Any]) -> str:
    return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell))


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield f"```text\n{''.join(output['text']).rstrip()}\n```"
        else:
            picture = "".join(output["data"]["image/png"])
            alternative = "What this cell draws"
            yield f"```{{raw}} html\n<img class='shown' alt='{alternative}' src='data:image/png;base64,{picture}'>\n```"


class NotebookParser(MystParser):
    """MyST, after the notebook has become Markdown."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: Any) -> None:
        super().parse(markdown_of(json.loads(inputstring)), document)


def setup(app: Any) -> dict[str, bool]:
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
