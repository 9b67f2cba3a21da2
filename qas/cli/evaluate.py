"""``qas evaluate``: judge a circuit."""

from __future__ import annotations

import argparse
import warnings
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
    from qas.problems import BaseProblem
    from qas.runs import Run


def add(commands: Any) -> None:
    about = "Energy of a run's circuit, or of one in an OpenQASM 3 or 2 file, at its own angles."
    parser = read.command(commands, "evaluate", "judge a circuit", about, run)
    option = parser.option
    option("target", "RUN|FILE.qasm", "a run folder or a circuit file")
    option("--problem", "NAME", "as for qas search (needed with a file; default: the run's)", kind="problems")
    read.add_problem(parser)
    option("--noise", "NAME", "as for qas search, or none (default: the run's)", kind="noise")
    option("--engine", "NAME", "statevector, pauli-transfer, aer, …", kind="engines")
    option("--shots", "N", "measurements (default: the exact value)", read.count)
    option("--seed", "N", "fixes what the shots draw (default 0)", read.natural, default=0)
    option("--circuit", "K", "of a run: number in the front, or best (default)")
    option("--mitigate", "STEPS", "readout, symmetry, zne, with commas between; zne:fit=linear,nodes=1-3-5")
    option("--backend", "NAME", "measure there: aer, a fake backend, a device of your IBM account")
    option("--layout", "Q-Q-…", "device qubits of the circuit's (default: the run's patch, or the best)", read.qubits)
    option("--transpile-level", "0..3", "0, the default, runs native circuits as they stand", read.natural)
    option("--primitive", "NAME", "sampler (default: bit strings, counted here) or estimator (the backend's)")
    parser.flag("--submit", "send the circuit to a device over the network")
    parser.output()


def run(arguments: argparse.Namespace) -> int:
    from qas.noise import load_noise

    noise = load_noise(arguments.noise)
    circuit, problem, found = read_target(arguments)
    on_backend = read.given(arguments, "layout", "transpile_level", "primitive")
    on_backend |= {"submit": True} if arguments.submit else {}
    if arguments.backend is not None:
        on_backend |= {"backend": arguments.backend}
        layout = patch_of(found, arguments.backend)
        if layout is not None:
            on_backend = {"layout": layout} | on_backend
    if arguments.noise is None and found is not None and arguments.backend in (None, "aer"):
        noise = found.noise
    from qas.evaluation import evaluate

    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        report = evaluate(
            circuit,
            problem,
            noise=noise,
            shots=arguments.shots,
            engine=arguments.engine,
            mitigate=arguments.mitigate,
            seed=arguments.seed,
            **on_backend,
        )
    for remark in remarks:
        if remark.category is UserWarning:
            tell(str(remark.message))
    return show.answer(arguments, report.to_json(), *_text(report, problem))


def patch_of(found: Run | None, backend: str) -> list[int] | None:
    """Device qubits of a run's patch, if it is one of that backend; a fake backend has the qubits of its original."""
    device = None if found is None else found.config.get("device")
    if not device:
        return None
    name = device["name"].partition("[")[0]
    same = name.removeprefix("fake_") == backend.removeprefix("fake_").removeprefix("ibm_")
    return list(device["physical"]) if same else None


def read_target(arguments: argparse.Namespace) -> tuple[Circuit, BaseProblem, Run | None]:
    """A circuit, its problem, and the run that it comes from."""
    target = Path(arguments.target)
    problem = read.read_problem(arguments, arguments.problem)
    if target.is_dir() or (not target.exists() and target.suffix.lower() != ".qasm"):
        from qas.runs import load_run

        found = load_run(arguments.target)
        circuit = pick(found, arguments.circuit).circuit
        return circuit, problem or found.problem, found
    if not target.exists():
        raise QasError(f"the circuit file does not exist: {target}")
    if arguments.circuit is not None:
        raise QasError("--circuit chooses from a run; a file holds one circuit")
    if problem is None:
        raise QasError("a circuit file does not say what it is for: add --problem NAME (qas problems lists them)")
    from qas.interop import read_circuit_file

    return read_circuit_file(target), problem, None


def _text(report: EvaluationReport, problem: BaseProblem) -> list[str]:
    from qas.page import short_unit

    unit = short_unit(report.unit)
    measured = "noisy" if report.noise else "shots" if report.shots else ""
    noise = f"noise {report.noise}" if report.noise else "no noise"
    how = [noise, f"engine {report.engine}"] if problem.simulated else []
    if report.execution is not None:
        measured = f"on {report.execution.backend}"
        how = [measured, report.execution.primitive]
    lines = [
        *show.drawing(report.circuit, "circuit"),
        "",
        ", ".join([report.problem, *how, f"{report.shots:,} shots" if report.shots else "exact"]),
        "",
        *show.judged(problem, report, measured, report.noise),
    ]
    if report.standard_error is not None:
        lines.append(f"standard error of the estimate: {show.quantity(report.standard_error, unit)}")
    if report.mitigated is not None:
        lines += ["", *show.mitigated(report.mitigated, report.exact, unit)]
    if report.execution is not None:
        lines += ["", *show.execution(report.execution)]
    return lines
