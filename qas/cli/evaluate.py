"""``qas evaluate``: judge a circuit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qas.cli import parser as read
from qas.cli import show
from qas.cli.inspect import pick
from qas.cli.progress import tell
from qas.errors import QasError

if TYPE_CHECKING:
    from qas.circuits import Circuit
    from qas.evaluation import EvaluationReport
    from qas.noise import NoiseModel
    from qas.problems import BaseProblem


def add(commands: Any) -> None:
    about = "Energy of a run's circuit, or of one in an OpenQASM 3 or 2 file, at its own angles."
    parser = read.command(commands, "evaluate", "judge a circuit", about, run)
    option = parser.option
    option("target", "RUN|FILE.qasm", "a run folder or a circuit file")
    option("--problem", "NAME", "as for qas search (needed with a file; default: the run's)", kind="problems")
    read.add_problem(parser)
    option("--noise", "NAME", "as for qas search, or none (default: the run's)", kind="noise")
    option("--engine", "NAME", "statevector, pauli-transfer, aer, …", kind="engines")
    option("--backend", "NAME", argparse.SUPPRESS, kind="engines")
    option("--shots", "N", "measurements (default: the exact value)", read.count)
    option("--seed", "N", "fixes what the shots draw (default 0)", read.natural, default=0)
    option("--circuit", "K", "of a run: number in the front, or best (default)")
    parser.output()


def run(arguments: argparse.Namespace) -> int:
    engine = arguments.engine
    if arguments.backend is not None:
        tell("--backend is called --engine now; this name will be gone in the next version")
        engine = engine or arguments.backend
    from qas.noise import load_noise

    noise = load_noise(arguments.noise)
    circuit, problem, of_run = read_target(arguments)
    if arguments.noise is None:
        noise = of_run
    from qas.evaluation import evaluate

    report = evaluate(circuit, problem, noise=noise, shots=arguments.shots, engine=engine, seed=arguments.seed)
    return show.answer(arguments, report.to_json(), *_text(report, problem))


def read_target(arguments: argparse.Namespace) -> tuple[Circuit, BaseProblem, NoiseModel | None]:
    """A circuit, its problem, and the noise of the run that it comes from."""
    target = Path(arguments.target)
    problem = read.read_problem(arguments, arguments.problem)
    if target.is_dir() or (not target.exists() and target.suffix.lower() != ".qasm"):
        from qas.runs import load_run

        found = load_run(target)
        circuit = pick(found, arguments.circuit).circuit
        return circuit, problem or found.problem, found.noise
    if not target.exists():
        raise QasError(f"the circuit file does not exist: {target}")
    if arguments.circuit is not None:
        raise QasError("--circuit chooses from a run; a file holds one circuit")
    if problem is None:
        raise QasError("a circuit file does not say what it is for: add --problem NAME (qas problems lists them)")
    from qas.interop import read_circuit_file

    return read_circuit_file(target), problem, None


def _text(report: EvaluationReport, problem: BaseProblem) -> list[str]:
    from qas.report import short_unit

    measured = "noisy" if report.noise else "shots" if report.shots else ""
    noise = f"noise {report.noise}" if report.noise else "no noise"
    how = [noise, f"engine {report.engine}"] if problem.simulated else []
    lines = [
        *show.drawing(report.circuit, "circuit"),
        "",
        ", ".join([report.problem, *how, f"{report.shots:,} shots" if report.shots else "exact"]),
        "",
        *show.judged(problem, report, measured, report.noise),
    ]
    if report.standard_error is not None:
        error = show.quantity(report.standard_error, short_unit(report.unit))
        lines.append(f"standard error of the estimate: {error}")
    return lines
