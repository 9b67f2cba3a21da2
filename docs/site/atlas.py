"""The atlas as a page: a table that sorts, and the circuits of each problem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gallery import raw

from qas.best_known.fronts import all_fronts
from qas.page import digits, escape


def cell(value: Any, shown: str | None = None) -> str:
    """A cell of a table; `value` is what it sorts by where something else is shown."""
    if value is None:
        return "<td></td>"
    if shown is None:
        return f"<td>{escape(value)}</td>"
    return f"<td data-v='{escape(value)}'>{shown}</td>"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of HTML whose columns sort by a click."""
    head = "".join(f"<th><button>{escape(name)}</button></th>" for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        "<div class='table-wrapper'><table class='docutils sorts'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _summary(front: Any) -> list[str]:
    header, solving, best = front.header, front.solving, front.best
    name = header.problem
    solved = [point for point in front.published if point.error <= header.threshold]
    published = min((p.two_qubit_gates for p in solved if p.two_qubit_gates is not None), default=None)
    return [
        cell(name, f"<a href='#atlas-{escape(name)}'><code>{escape(name)}</code></a>"),
        cell(header.n_qubits),
        cell(None if solving is None else solving.two_qubit_gates),
        cell(published),
        cell(best.two_qubit_gates),
        cell(best.error, digits(best.error)),
        cell(header.unit),
        cell(len(front)),
    ]


def _who(found: dict[str, Any]) -> str:
    if "agent" in found:
        return f"{found['agent']}, seed {found['seed']}" if "seed" in found else str(found["agent"])
    return str(next(iter(found.values()), ""))


def _circuits(front: Any) -> Iterator[str]:
    name, unit = escape(front.problem), front.unit
    heads = ("two-qubit gates", "gates", "depth", "angles", f"error ({unit})", "found by")
    rows = (
        [cell(c.two_qubit_gates), cell(c.gates), cell(c.depth), cell(c.n_angles), cell(c.error, digits(c.error)),
         cell(_who(dict(c.found)))]
        for c in front
    )  # fmt: skip
    yield f"<details id='atlas-{name}'><summary><code>{name}</code>, {len(front)} circuits</summary>"
    yield table(heads, rows)
    for point in front.published:
        counts = "" if point.two_qubit_gates is None else f" with {point.two_qubit_gates} two-qubit gates"
        error = f"{'below ' if point.bound else ''}{point.error:.3g} {unit}"
        yield f"<p class='soft'>Published: {error}{counts}, {escape(point.method)} ({escape(point.source)}).</p>"
    yield "</details>"


def fronts(_: str) -> str:
    """The whole atlas, as HTML within Markdown."""
    known = list(all_fronts())
    heads = (
        "problem", "qubits", "two-qubit gates to the threshold", "published", "most", "lowest error", "unit", "known",
    )  # fmt: skip
    return raw("\n".join([table(heads, map(_summary, known)), *(line for front in known for line in _circuits(front))]))
