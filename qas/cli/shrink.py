"""``qas shrink``: make a circuit as small as it can be at an accuracy."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from qas.cli import INTERRUPTED, show
from qas.cli import parser as read
from qas.cli.evaluate import read_target
from qas.cli.progress import tell

if TYPE_CHECKING:
    from qas.shrinking import Shrunk
    from qas.vqe import Evaluation


def add(commands: Any) -> None:
    about = (
        "Lowers a circuit to rx, ry, rz and cx, and takes out gates, CX first, with all angles optimized again, as "
        "long as its error stays within the tolerance. Ctrl-C stops it and loses nothing."
    )
    parser = read.command(commands, "shrink", "make a circuit smaller", about, run)
    option = parser.option
    option("target", "RUN|FILE.qasm", "a run folder, or a circuit in OpenQASM 3 or 2")
    option("--problem", "NAME", "as for qas search (needed with a file; default: the run's)", kind="problems")
    read.add_problem(parser)
    about = "largest error a circuit may have: its energy minus the problem's exact one (default: the threshold)"
    option("--tolerance", "E", about, read.positive)
    option("--circuit", "K", "of a run: number in the front, or best (default)")
    option("--engine", "NAME", "statevector, torch, … (default: the fastest exact one)", kind="engines")
    option("--seconds", "S", "longest time (default: until nothing more goes)", read.seconds)
    option("--evaluations", "N", "most calls of the objective", read.count)
    option("--seed", "N", "fixes what is drawn (default 0)", read.natural, default=0)
    about = "rounds in a row that may bring nothing, of moving CX where nothing more goes (default 0)"
    option("--moves", "N", about, read.natural, default=0)
    option("-o --out", "DIR", "folder for the front, new or empty: OpenQASM 3 and JSON (default: none is written)")
    parser.output(progress=True)


def run(arguments: argparse.Namespace) -> int:
    circuit, problem, origin = read_target(arguments)
    if origin is not None and origin.noise is not None:
        print("shrinking compares exact energies: the noise of the run is left out", file=sys.stderr)
    from qas.files import new_folder
    from qas.shrinking import shrink

    if arguments.out is not None:
        new_folder(arguments.out, "the front").discard()  # refused before the work, not after it
    found = shrink(
        circuit,
        problem,
        on_accept=None if arguments.quiet else _Progress(),
        **read.given(arguments, "tolerance", "engine", "seconds", "evaluations", "seed", "moves"),
    )
    places = []
    if arguments.out is not None:
        from qas.publishing import publish

        places = ["", f"front        {publish(found.circuits, found.problem, arguments.out)}"]
    done = show.answer(arguments, found.to_json(), *_text(found), *places)
    return INTERRUPTED if found.interrupted else done


class _Progress:
    """Tells of each circuit with fewer CX than all before it."""

    def __init__(self) -> None:
        self.fewest: int | None = None

    def __call__(self, found: Evaluation) -> None:
        if self.fewest is None or found.circuit.two_qubit_gates < self.fewest:
            self.fewest = found.circuit.two_qubit_gates
            tell(f"{self.fewest} CX, {len(found.circuit)} gates, error {found.error:.3g}")


def _text(found: Shrunk) -> list[str]:
    from qas.page import short_unit

    unit = short_unit(found.problem.unit)
    ended = "nothing more goes" if found.finished else "stopped before nothing more went"
    rows = [["two-qubit", "gates", "depth", f"error ({unit})" if unit else "error"]]
    rows += [[*map(str, (r.two_qubit_gates, r.gates, r.circuit.depth)), f"{r.error + 0.0:.3g}"] for r in found.front]
    start = found.start.circuit
    return [
        *show.drawing(found.best.circuit, "smallest circuit"),
        "",
        *show.judged(found.problem, found.best, "", None),
        "",
        f"from {start.two_qubit_gates} CX and {len(start)} gates, error {found.start.error:.3g}, to "
        f"{found.best.two_qubit_gates} CX and {found.best.gates} gates at an error of at most {found.tolerance:g}: "
        f"{ended}, {found.evaluations:,} evaluations, {found.seconds:,.1f} s",
        "",
        "front (error against two-qubit gates)",
        *show.table(rows),
    ]
