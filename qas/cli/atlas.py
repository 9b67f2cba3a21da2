"""``qas atlas``: the best known circuits of problems."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qas.cli import parser as read
from qas.cli import show
from qas.errors import QasError

if TYPE_CHECKING:
    from qas.best_known import KnownCircuit, KnownFront, Published


def add(commands: Any) -> None:
    about = "The best known circuits, beside what papers report. qas atlas PROBLEM is short for qas atlas show PROBLEM."
    parser = read.command(commands, "atlas", "the best known circuits", about, _table)
    parser.unnamed = "show"
    parser.output()
    actions = parser.add_subparsers(metavar="ACTION")
    one = read.command(actions, "show", "the front of a problem, or one circuit of it", "Shows a front.", _show)
    one.option("problem", "PROBLEM", "a name of the table", kind="problems")
    one.option("--cx", "N", "the best circuit with at most so many two-qubit gates", read.natural)
    one.flag("--qasm", "print the circuit, that of lowest error without --cx, as OpenQASM 3 and nothing else")
    one.output(inherits=True)
    every = read.command(actions, "export", "all records in one file", "Writes all records to one file.", _export)
    every.option("--out", "FILE", "JSON lines (.jsonl) or a table without circuits (.csv; default atlas.jsonl)", Path)
    every.output(inherits=True)
    what = "Writes those circuits of a run that the atlas would take to a file, after Qiskit has evaluated each."
    sent = read.command(actions, "submit", "offer circuits of a run", what, _submit)
    sent.option("folder", "RUN", "a run folder")
    sent.option("--out", "DIR", "new folder of the file (default results/PROBLEM-submission-TIME)")
    sent.output(inherits=True)


# ---------------------------------------------------------------------- the table
def _table(arguments: argparse.Namespace) -> int:
    from qas.best_known.fronts import all_fronts
    from qas.page import short_unit

    fronts = list(all_fronts())
    head = ["problem", "qubits", "records", "best error", "", "its CX", "CX within the threshold", "published"]
    rows = [head]
    for front in fronts:
        solving = front.solving
        rows.append(
            [
                front.problem,
                str(front.header.n_qubits),
                str(len(front)),
                f"{front.best.error + 0.0:.3g}",
                short_unit(front.unit),
                str(front.best.two_qubit_gates),
                "-" if solving is None else str(solving.two_qubit_gates),
                _beside(front),
            ]
        )
    circuits = sum(map(len, fronts))
    return show.answer(
        arguments,
        [_summary(front) for front in fronts],
        *_ranged(rows),
        "",
        f"{len(fronts)} problems, {circuits:,} circuits; qas atlas PROBLEM shows those of one",
    )


def _ranged(rows: list[list[str]]) -> list[str]:
    """As `show.table`, the first and the last column ranged left."""
    width = max(len(row[0]) for row in rows)
    middle = show.table([row[1:-1] for row in rows])
    widest = max(map(len, middle))
    return [f"{row[0]:{width}}  {part:{widest}}  {row[-1]}".rstrip() for row, part in zip(rows, middle, strict=True)]


def _beside(front: KnownFront) -> str:
    """Published points in a few words: those that nothing here reaches, else the one with the fewest CX."""
    if front.ahead:
        return "ahead: " + "; ".join(map(_point, front.ahead))
    return _point(front.published[0]) if front.published else ""


def _point(point: Published) -> str:
    error = f"{'<' if point.bound else ''}{point.error:.3g}"
    sizes = [f"{point.two_qubit_gates} CX"] if point.two_qubit_gates is not None else []
    sizes += [f"{point.gates} gates"] if point.gates is not None else []
    return f"{error} with {', '.join(sizes)} ({point.method})" if sizes else f"{error} ({point.method})"


def _summary(front: KnownFront) -> dict[str, Any]:
    solving = front.solving
    return vars(front.header) | {
        "records": len(front),
        "best_error": front.best.error,
        "best_two_qubit_gates": front.best.two_qubit_gates,
        "solving_two_qubit_gates": None if solving is None else solving.two_qubit_gates,
        "published": [point.to_json() for point in front.published],
        "published_ahead": [point.to_json() for point in front.ahead],
    }


# ---------------------------------------------------------------------- one problem
def _show(arguments: argparse.Namespace) -> int:
    from qas.best_known import atlas

    front = atlas(arguments.problem)
    if arguments.cx is None and not arguments.qasm:
        data = _summary(front) | {"front": [each.to_json() for each in front]}
        return show.answer(arguments, data, *_front_lines(front))
    chosen = front.best if arguments.cx is None else front.at(arguments.cx)
    if chosen is None:
        fewest = front[0].two_qubit_gates
        raise QasError(
            f"the circuits of {front.problem} have at least {fewest} two-qubit gates, got --cx {arguments.cx}"
        )
    if arguments.qasm:
        print(chosen.qasm, end="")
        return 0
    data = vars(front.header) | chosen.to_json() | {"circuit": chosen.circuit.to_list()}
    return show.answer(arguments, data, *_circuit_lines(front, chosen))


def _front_lines(front: KnownFront) -> list[str]:
    from qas.page import short_unit

    unit = short_unit(front.unit)
    rows = [["two-qubit", "gates", "depth", "angles", f"error ({unit})" if unit else "error", "found by"]]
    for each in front:
        sizes = (each.two_qubit_gates, each.gates, each.depth, each.n_angles)
        rows.append([*map(str, sizes), f"{each.error + 0.0:.3g}", _finder(each)])
    lines = [f"{front.problem}: {len(front)} circuits; exact {front.header.exact:.10f} {unit}".rstrip()]
    lines += _ranged_last(rows)
    if front.published:
        lines += ["", "published", *(f"  {_point(point)}: {point.source}" for point in front.published)]
    return [*lines, *(f"  not reached here: {_point(point)}" for point in front.ahead)]


def _ranged_last(rows: list[list[str]]) -> list[str]:
    middle = show.table([row[:-1] for row in rows])
    widest = max(map(len, middle))
    return [f"{part:{widest}}  {row[-1]}" for row, part in zip(rows, middle, strict=True)]


def _finder(circuit: KnownCircuit) -> str:
    """Who found a circuit, in a few words."""
    found = circuit.found
    if "agent" not in found:
        return str(found.get("published") or found.get("paper") or "unknown")
    budget = ", ".join(f"{limit:,} {name}" for name, limit in found.get("budget", {}).items())
    begun = f", begun from {found['begun_from']}" if "begun_from" in found else ""
    noise = f", under {found['noise']}" if "noise" in found else ""
    return f"{found['agent']}, seed {found.get('seed')}, {budget}{noise}{begun}"


def _circuit_lines(front: KnownFront, chosen: KnownCircuit) -> list[str]:
    from qas.page import short_unit

    unit = short_unit(front.unit)
    reached = "reached" if chosen.error <= front.header.threshold else "not reached"
    return [
        *show.drawing(chosen.circuit, front.problem),
        "",
        f"energy {chosen.energy:.10f} {unit}".rstrip() + f", exact {front.header.exact:.10f}",
        f"error {show.quantity(chosen.error, unit)}; threshold {show.quantity(front.header.threshold, unit)} {reached}",
        f"found by {_finder(chosen)}",
    ]


# ---------------------------------------------------------------------- files
def _export(arguments: argparse.Namespace) -> int:
    from qas.best_known.exports import export
    from qas.best_known.fronts import all_fronts

    out = arguments.out or Path("atlas.jsonl")
    count = export(all_fronts(), out)
    return show.answer(arguments, {"path": str(out), "records": count}, f"{count:,} records in {out}")


def _submit(arguments: argparse.Namespace) -> int:
    from qas.best_known.gathering import submission
    from qas.runs import load_run

    path, taken = submission(load_run(arguments.folder), arguments.out)
    data = {"path": str(path), "records": [each.to_json() for each in taken]}
    return show.answer(arguments, data, *_next_steps(path, taken))


def _next_steps(path: Path, taken: Iterable[KnownCircuit]) -> list[str]:
    circuits = list(taken)
    begun = {each.found["begun_from"] for each in circuits if "begun_from" in each.found}
    counts = ", ".join(str(each.two_qubit_gates) for each in circuits)
    lines = [f"{len(circuits)} circuits the atlas would take, with {counts} two-qubit gates; Qiskit agrees on each"]
    lines += [f"begun from {', '.join(sorted(begun))}: their records say so"] if begun else []
    return [
        *lines,
        f"records  {path}",
        "to offer them, in a checkout of the repository:",
        f"  python scripts/atlas.py {path.resolve()}",
        f"  python scripts/verify_atlas.py {path.name.partition('.jsonl')[0]}",
        "then commit qas/data/atlas and open a pull request that says how the run was made",
    ]
