"""Follow every link of a built site: pages, anchors, pictures, scripts. Nothing may be missing, or come from elsewhere.

    python docs/site/links.py build/site

Links to other sites are checked for their form only; what a page needs to be read (pictures, scripts, styles) has to be
in the folder.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

NEEDED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that load something, and where they say what."""


class Page(HTMLParser):
    """Ids, links and needs of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.needs: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in NEEDED and NEEDED[tag] in given:
            self.needs.append(given[NEEDED[tag]])


@cache
def read(path: Path) -> Page:
    return Page(path.read_text())


def broken(target: str, page: Path) -> str | None:
    """What is wrong with a link of a page, or None."""
    parts = urlsplit(target)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return None if well_formed(target) else "malformed"
    place = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not place.is_file():
        return "missing"
    if parts.fragment and place.suffix == ".html" and unquote(parts.fragment) not in read(place).ids:
        return "no such anchor"
    return None


def well_formed(target: str) -> bool:
    """Whether an external link has a form that can be right."""
    parts = urlsplit(target)
    return parts.scheme == "mailto" or (
        parts.scheme == "https" and bool(re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)) and " " not in target
    )


def check(folder: Path) -> Iterator[str]:
    """A line for each link that is broken, and for each thing that a page would fetch from elsewhere."""
    for page in sorted(folder.rglob("*.html")):
        held = read(page.resolve())
        for target in dict.fromkeys([*held.links, *held.needs]):
            wrong = broken(target, page.resolve())
            if wrong:
                yield f"{page.relative_to(folder)}: {target}: {wrong}"
        for target in held.needs:
            if urlsplit(target).netloc:
                yield f"{page.relative_to(folder)}: {target}: from another site"
    for sheet in sorted(folder.rglob("*.css")):
        for target in re.findall(r"(?:@import\s+|url\()['\"]?((?:https?:)?//[^'\")\s]+)", sheet.read_text()):
            yield f"{sheet.relative_to(folder)}: {target}: from another site"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    lines = list(check(folder))
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(list(folder.rglob('*.html')))} pages, {len(lines)} broken links")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
