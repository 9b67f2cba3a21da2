"""The page of a comparison: one file of HTML that needs nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from qas.comparison.figures import best_front, course_figure, front_figure
from qas.comparison.groups import Arm, Comparison, Group
from qas.comparison.tables import Cell, Criterion, Table, criteria_of, differences, overview, runs, success, summary
from qas.drawing import draw_text
from qas.errors import RunError
from qas.files import to_json, write_atomic
from qas.page import digits, drawn_circuit, escape, page, section, svg
from qas.runs import Result, Run, lowest_error

_MOST_TEXT = 6_000
"""Characters of a circuit that is shown where the pointer is."""
_MOST_TEXTS = 600_000
"""Characters of all of them; what comes later is told in numbers only."""
_MOST_PICTURES = 1_200_000
"""Characters of all figures and drawn circuits; what comes later is told in text and numbers only."""
_MOST_FIGURES = 12
"""Groups with figures; more would take too long."""
_SHORT = str.maketrans("─│●⊕", "~|@&")
"""Letters of drawn circuits -> ASCII ones that no drawing has; a page would be three times as large without."""
_LONGEST_PICTURE = 120
"""Gates of a circuit that is drawn as a picture."""

_STYLE = """
main{max-width:1320px}
td a,a.run{color:inherit;text-decoration:underline;text-decoration-color:var(--c7b8794);text-underline-offset:3px}
td a:hover,a.run:hover{text-decoration-color:currentColor}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(310px,100%),1fr));gap:12px 18px}
.figures>div{min-width:0}h3{font-size:.95rem;margin:20px 0 6px}
table.sorts th,table.sorts td{text-align:right}
table.sorts th:first-child,table.sorts td:first-child{text-align:left;padding-left:0}
.sorts th{white-space:normal;vertical-align:bottom}
.sorts button{all:unset;cursor:pointer;font:inherit;color:inherit}.sorts button:focus-visible{outline:2px solid}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
#tip{position:fixed;z-index:9;max-width:min(680px,94vw);max-height:70vh;overflow:auto;background:var(--cffffff);
border:1px solid var(--c7b8794);border-radius:8px;padding:10px 12px;box-shadow:0 6px 24px rgba(0,0,0,.25)}
#tip pre{font-size:11.5px;line-height:1.3}#tip p{margin:0 0 6px;font-size:.85rem}
.warn{border-color:var(--ca9780b)}.warn li{overflow-wrap:anywhere}
summary{margin-top:16px}ul{margin:.3em 0;padding-left:1.3em}
"""

_SCRIPT = """
const letters = {'~': '─', '|': '│', '@': '●', '&': '⊕'};
const circuits = JSON.parse(document.getElementById('circuits').textContent);
for (const table of document.querySelectorAll('table.sorts')) {
  const body = table.tBodies[0];
  table.querySelectorAll('th button').forEach((button, column) => button.addEventListener('click', () => {
    const head = button.parentElement, up = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of table.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)], [p, q] = [Number(x), Number(y)];
      if (x === '' || y === '') return (x === '') - (y === '');
      const order = Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p < q ? -1 : p > q ? 1 : 0;
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
const tip = document.createElement('div');
tip.id = 'tip'; tip.hidden = true; document.body.append(tip);
let shown = null;
function show(mark) {
  shown = mark;
  const [about, text] = circuits[mark.dataset.c];
  const line = document.createElement('p'), pre = document.createElement('pre');
  line.textContent = about; pre.textContent = text.replace(/[~|@&]/g, letter => letters[letter]);
  tip.replaceChildren(line, pre);
  tip.hidden = false;
  const at = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(at.left, innerWidth - size.width - 8)) + 'px';
  const below = at.bottom + 10 + size.height < innerHeight;
  tip.style.top = Math.max(8, below ? at.bottom + 10 : at.top - size.height - 10) + 'px';
}
function hide() { tip.hidden = true; shown = null; }
for (const mark of document.querySelectorAll('[data-c]')) {
  mark.addEventListener('pointerenter', event => { if (event.pointerType === 'mouse') show(mark); });
  mark.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') hide(); });
  mark.addEventListener('focus', () => { if (mark.matches(':focus-visible')) show(mark); });
  mark.addEventListener('blur', hide);
  // A finger has no hover: its first touch shows the circuit, the second follows the link.
  mark.addEventListener('click', event => {
    if (event.pointerType === 'touch' && shown !== mark) { event.preventDefault(); show(mark); }
  });
}
document.addEventListener('click', event => { if (shown && !event.target.closest('[data-c],#tip')) hide(); });
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target && target.closest('details');
  if (details) { details.open = true; target.scrollIntoView(); }
}
addEventListener('hashchange', open); open();
"""


def write_page(
    comparison: Comparison, path: Path, title: str, *, error: float | None = None, criteria: Sequence[Criterion] = ()
) -> None:
    """Write the page of a comparison.

    Args:
        comparison: what is compared.
        path: of the page; links to runs are relative to it.
        title: its heading.
        error: largest error of a success; default the threshold of each problem.
        criteria: what else counts as one.

    Raises:
        RunError: the page would be written over one of the runs' own, or cannot be written.
    """
    if any(os.path.realpath(path) == os.path.realpath(run.path / "report.html") for run in comparison.runs):
        raise RunError(f"the report.html of a run is its own page; give another name for the comparison, got {path}")
    write_atomic(path, _Page(comparison, path).html(title, error, criteria))


class _Page:
    """Where links lead, and which circuits the page holds."""

    def __init__(self, comparison: Comparison, path: Path) -> None:
        self.comparison = comparison
        self._folder = os.path.abspath(path.parent)
        self._circuits: list[tuple[str, str]] = []
        self._numbers: dict[int, int] = {}
        self._texts = self._pictures = 0
        self._anchors = {
            id(arm): f"runs-{k}" for k, arm in enumerate(arm for group in comparison.groups for arm in group.arms)
        }

    def html(self, title: str, error: float | None, criteria: Sequence[Criterion]) -> str:
        groups = self.comparison.groups
        parts = [self._heading(title)]
        if len(groups) > 1:
            parts.append(section("Median errors", self._table(overview(self.comparison))))
        for number, group in enumerate(groups):
            parts.append(self._group(group, number, criteria_of(group, error, criteria)))
        held = to_json(self._circuits).replace("<", "\\u003c")
        parts.append(f"<script type='application/json' id='circuits'>{held}</script>")
        return page(title, parts, style=_STYLE, script=_SCRIPT)

    def _heading(self, title: str) -> str:
        count, groups = len(self.comparison.runs), len(self.comparison.groups)
        told = f"{count:,} run{'s' * (count != 1)}" + (f" in {groups} groups" if groups > 1 else "")
        told += ". Lines are medians over seeds, bands quartiles; numbers lead to their runs, "
        told += "and show their circuits under the pointer."
        text = f"<h1>{escape(title)}</h1><p class='soft'>{told}</p>"
        left = self.comparison.left_out
        if left:
            lines = "".join(f"<li>{escape(line)}</li>" for line in left[:20])
            more = f"<p>and {len(left) - 20} more</p>" if len(left) > 20 else ""
            text += f"<section class='warn'><h2>Left out: {len(left)}</h2><ul>{lines}</ul>{more}</section>"
        return text

    def _group(self, group: Group, number: int, criteria: Sequence[Criterion]) -> str:
        parts = []
        if group.problem.description:
            parts.append(f"<p class='soft'>{escape(group.problem.description)}</p>")
        if number < _MOST_FIGURES and self._pictures < _MOST_PICTURES:
            parts.append(self._counted(f"<div class='figures'>{''.join(self._figures(group, number))}</div>"))
        else:
            parts.append("<p class='soft'>Figures are drawn of the first groups only.</p>")
        tables = [summary(group), success(group, criteria), differences(group)]
        parts += [f"<h3>{escape(table.title)}</h3>{self._table(table)}" for table in tables if table.rows]
        parts.append(self._best(group, number))
        rows = self._table(runs(group))
        parts.append(f"<details><summary>All {len(group.runs)} runs</summary>{rows}</details>")
        return f"<section id='group-{number}'><h2>{escape(group.title)}</h2>{''.join(parts)}</section>"

    def _figures(self, group: Group, number: int) -> Iterator[str]:
        links = {}
        for arm in group.arms:
            for result, run in best_front(arm):
                links[id(result)] = f"circuit:{self._circuit(result, run)}:{self._link(run)}"
        front = svg(front_figure(group, links=links), f"front{number}", f"Fronts of {group.title}", letters=True)
        yield f"<div>{re.sub(_MARK, _marked, front)}</div>"
        for field in ("evaluations", "seconds"):
            name = f"{field}{number}"
            yield f"<div>{svg(course_figure(group, field), name, f'Error against {field}', letters=True)}</div>"

    def _best(self, group: Group, number: int) -> str:
        best = lowest_error(run.best for run in group.runs)
        arm, run = next((arm, run) for arm in group.arms for run in arm.runs if run.best == best)
        told = f"<a class='run' href='{escape(self._link(run))}'>{escape(arm.label)}, seed {run.seed}</a>"
        if self._pictures < _MOST_PICTURES and len(best.circuit) <= _LONGEST_PICTURE:
            body = self._counted(drawn_circuit(best.circuit, f"circuit{number}", f"Best circuit of {group.title}"))
        else:
            body = f"<pre>{escape(draw_text(best.circuit)[:_MOST_TEXT])}</pre>"
        return f"<h3>Best circuit</h3>{body}<p class='soft'>error {digits(best.error)}, by {told}</p>"

    def _counted(self, picture: str) -> str:
        self._pictures += len(picture)
        return picture

    # ------------------------------------------------------------------ tables
    def _table(self, table: Table) -> str:
        head = "".join(f"<th><button>{escape(name)}</button></th>" for name in table.heads)
        named: set[str] = set()
        rows = []
        for row in table.rows:
            name = ""
            if table.title == "Runs" and isinstance(row[0].source, Arm):
                anchor = self._anchors[id(row[0].source)]
                name = "" if anchor in named else f" id='{anchor}'"
                named.add(anchor)
            rows.append(f"<tr{name}>{''.join(self._cell(cell, table) for cell in row)}</tr>")
        note = f"<p class='soft'>{escape(table.note)}</p>" if table.note else ""
        body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        return f"<div class='wide'><table class='sorts'>{body}</table></div>{note}"

    def _cell(self, cell: Cell, table: Table) -> str:
        text = escape(cell.text)
        value = "" if cell.value is None else f" data-v='{cell.value:.9g}'"
        if isinstance(cell.source, Run):
            number = self._circuit(cell.source.best, cell.source)
            text = f"<a href='{escape(self._link(cell.source))}' data-c='{number}'>{text}</a>"
        elif isinstance(cell.source, Arm) and table.title == "Median errors" and cell.value is None:
            text = f"<a href='#group-{self._number_of(cell.source)}'>{text}</a>"
        elif isinstance(cell.source, Arm) and table.title != "Runs":
            text = f"<a href='#{self._anchors[id(cell.source)]}'>{text}</a>"
        return f"<td{value}>{text}</td>"

    def _number_of(self, arm: Arm) -> int:
        return next(k for k, group in enumerate(self.comparison.groups) if any(arm is each for each in group.arms))

    # ------------------------------------------------------------------ runs and circuits
    def _link(self, run: Run) -> str:
        """Address of a run: its own page, or where it has none its folder."""
        target = run.path / "report.html"
        path = os.path.relpath(os.path.abspath(target if target.exists() else run.path), self._folder)
        return quote(path.replace(os.sep, "/") + ("" if target.exists() else "/"))

    def _circuit(self, result: Result, run: Run) -> int:
        """Number of a circuit among those that the page holds."""
        if id(result) not in self._numbers:
            text = draw_text(result.circuit, 90).translate(_SHORT)
            if len(text) > _MOST_TEXT or self._texts + len(text) > _MOST_TEXTS:
                text = "too large to be drawn here" if len(text) > _MOST_TEXT else "drawn on the page of its run"
            self._texts += len(text)
            sizes = f"{result.two_qubit_gates} two-qubit gates, {result.gates} gates, depth {result.circuit.depth}"
            about = f"{run.agent}, seed {run.seed}: error {digits(result.error)}, {sizes}"
            self._numbers[id(result)] = len(self._circuits)
            self._circuits.append((about, text))
        return self._numbers[id(result)]


_MARK = r'xlink:href="circuit:(\d+):([^"]*)"'


def _marked(found: re.Match[str]) -> str:
    return f'href="{found[2]}" data-c="{found[1]}"'
