"""``qas inspect``: show what a run found."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from qas.cli import show
from qas.cli.parser import command, qubits
from qas.errors import QasError, RunError

if TYPE_CHECKING:
    from qas.runs import Result, Run


def add(commands: Any) -> None:
    parser = command(commands, "inspect", "show a run", "Shows what a run found.", run)
    parser.option("folder", "RUN", "a run folder")
    parser.flag("--front", "all circuits of the front, which also counts gates of every kind")
    parser.option("--circuit", "K", "one circuit: its number in the front, or best")
    parser.flag("--qasm", "print the circuit as OpenQASM 3 and nothing else")
    about = "write the circuit: .png .svg .pdf .tex .qasm .qpy, or as a script: .py (Qiskit), .cirq.py, .pennylane.py"
    parser.option("--save", "FILE", about)
    parser.option("--layout", "Q-Q-…", "of --save: device qubits (default: those of the run's patch)", qubits)
    parser.output()


def run(arguments: argparse.Namespace) -> int:
    from qas.report import run_to_json
    from qas.runs import load_run

    found = load_run(arguments.folder)
    if arguments.circuit is not None or arguments.qasm or arguments.save:
        return _one(found, pick(found, arguments.circuit), arguments)
    front = [*show.heading(found), "", *show.front(found, found.front)]
    return show.answer(arguments, run_to_json(found), *(front if arguments.front else show.summary(found)))


def _one(found: Run, result: Result, arguments: argparse.Namespace) -> int:
    if arguments.save:
        from qas.export import save_circuit

        patch = (found.config.get("device") or {}).get("physical")
        save_circuit(result.circuit, arguments.save, found.problem, arguments.layout or patch)
    if arguments.qasm:
        print(result.circuit.to_qasm(), end="")
    elif arguments.json or arguments.circuit is not None:
        name = "best circuit" if arguments.circuit in (None, "best") else f"circuit {arguments.circuit}"
        show.answer(arguments, result.to_json(), *show.heading(found), "", *show.described(found, result, name))
    return 0


def pick(found: Run, which: str | None) -> Result:
    """The circuit with this number in the front, or the best."""
    if which in (None, "best"):
        return found.best
    last = len(found.front) - 1
    if last < 0:
        raise RunError(f"the run has no circuit yet: {found.path}")
    if not which.isdecimal() or len(which) > 9 or int(which) > last:
        raise QasError(f"a circuit is a number from 0 to {last}, or best, got {which!r} (see qas inspect RUN --front)")
    return found.front[int(which)]
