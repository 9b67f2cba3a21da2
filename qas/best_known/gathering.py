"""What may join the atlas: circuits of runs, campaigns, published fronts and record files, judged anew."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from qas.best_known.fronts import FOLDER, all_fronts
from qas.best_known.records import (
    Header,
    KnownCircuit,
    best_of,
    counted,
    fingerprint,
    read_records,
    tolerance,
    write_records,
)
from qas.checks import one_line
from qas.circuits import Circuit
from qas.errors import QasError, RunError
from qas.files import new_folder, read_json
from qas.interop import read_circuit_file
from qas.mitigation.objectives import spelled
from qas.problems import OperatorProblem, load_problem
from qas.runs import Result, Run, load_run, run_folders

_FRONT = "front.json"
"""File that makes a folder a published front; see `qas.publishing`."""
_KEPT_APART = ("start", "storage")
"""Options of an agent that say nothing about how it searched, or more than a reader should know."""


@lru_cache(maxsize=4)
def named(name: str) -> OperatorProblem:
    """The problem of a name, once for many circuits.

    Raises:
        QasError: none has it, or it is not one of an operator.
    """
    problem = load_problem(name)
    if not isinstance(problem, OperatorProblem) or problem.name != name:
        raise QasError(f"the atlas holds circuits for Hamiltonians and unitaries that are known by name, got {name}")
    return problem


def found_by(run: Run) -> dict[str, Any]:
    """Who found the circuits of a run, as records tell it."""
    config = run.config
    found = {
        "agent": run.agent,
        "seed": run.seed,
        "budget": {name: limit for name, limit in config["budget"].items() if limit is not None},
        "version": config.get("versions", {}).get("quantum-architecture-search"),
        "options": {name: value for name, value in config["options"].items() if name not in _KEPT_APART},
    }
    if run.noise is not None:
        found |= {"noise": run.noise.name, "objective": spelled(config.get("objective", "noisy"))}
    start = config.get("start")
    if start is not None or isinstance(config["options"].get("start"), list):
        found["begun_from"] = (start or {}).get("source", "a circuit")
    return found


# ---------------------------------------------------------------------- reading
def candidates(path: str | os.PathLike[str]) -> Iterator[tuple[OperatorProblem, list[KnownCircuit]]]:
    """Problems and circuits of a run, a campaign, a published front, or a file of records; all energies are computed.

    Raises:
        QasError: nothing of the kind, damaged, or of a problem that is not known by name or has changed.
    """
    place = Path(path)
    if place.is_file():
        yield _of_records(place)
    elif (place / _FRONT).is_file():
        yield _of_front(place)
    else:
        runs = map(load_run, run_folders(place))
        yield from (of_run(run) for run in runs if run.front or run.path == place)


def of_run(run: Run) -> tuple[OperatorProblem, list[KnownCircuit]]:
    """The problem of a run, and its circuits.

    Raises:
        QasError: no circuit yet, or a problem that is not known by name.
    """
    if not run.front:
        raise RunError(f"the run has no circuit yet: {run.path}")
    problem = named(run.problem.name)
    _check_same(problem, fingerprint(run.problem) if isinstance(run.problem, OperatorProblem) else "", run.path)
    return problem, _judged(_promising(run.front, problem), problem, found_by(run))


def _promising(front: Iterable[Result], problem: OperatorProblem) -> list[Circuit]:
    """Those that no other beats by more than the tolerance with as few two-qubit gates, by what the run says."""
    results = sorted(
        ((counted(r.circuit, problem), r.noise_free_error) for r in front), key=lambda r: r[0].two_qubit_gates
    )
    kept, lowest = [], math.inf
    for _, equal in groupby(results, key=lambda r: r[0].two_qubit_gates):
        same = list(equal)
        lowest = min(lowest, *(error for _, error in same))
        kept += [circuit for circuit, error in same if error <= lowest + 2 * tolerance(lowest)]
    return kept


def _of_records(path: Path) -> tuple[OperatorProblem, list[KnownCircuit]]:
    header, circuits = read_records(path)
    problem = named(header.problem)
    _check_same(problem, header.hamiltonian, path)
    simulator = problem.simulator()
    return problem, [KnownCircuit.judged(each.circuit, problem, each.found, simulator) for each in circuits]


def _of_front(folder: Path) -> tuple[OperatorProblem, list[KnownCircuit]]:
    told = read_json(folder / _FRONT, "the front")
    given = load_problem(folder / "problem.json")
    problem = named(given.name)
    _check_same(problem, fingerprint(given) if isinstance(given, OperatorProblem) else "", folder)
    circuits = [read_circuit_file(folder / Path(row["file"]).name) for row in told["circuits"]]
    return problem, _judged(circuits, problem, {"published": "/".join(folder.resolve().parts[-3:])})


def _judged(circuits: Iterable[Circuit], problem: OperatorProblem, found: Mapping[str, Any]) -> list[KnownCircuit]:
    simulator = problem.simulator()
    return best_of([], [KnownCircuit.judged(circuit, problem, found, simulator) for circuit in circuits])


def _check_same(problem: OperatorProblem, given: str, where: object) -> None:
    if given != fingerprint(problem):
        raise QasError(f"the Hamiltonian is not that of {problem.name}: {where}")


# ---------------------------------------------------------------------- joining
def join(paths: Iterable[str | os.PathLike[str]], folder: Path = FOLDER) -> Iterator[str]:
    """Let circuits join the records in a folder, one run or front after the other; yields a line on each.

    Args:
        paths: runs, campaigns, published fronts, and files of records.
        folder: where the records are.

    Raises:
        QasError: a path that is nothing of the kind.
    """
    known = {front.problem: front.header for front in all_fronts(folder)}
    circuits = {front.problem: list(front.circuits) for front in all_fronts(folder)}
    for path in paths:
        for problem, offered in candidates(path):
            name, header = problem.name, Header.of(problem)
            before = circuits.get(name, [])
            if name in known and known[name].hamiltonian != header.hamiltonian:
                yield f"{name}: the problem has changed, its {len(before)} records go"
                before = []
            after = best_of(before, offered)
            new = sum(all(circuit is not other for other in before) for circuit in after)
            if new:
                write_records(folder / f"{name}.jsonl", header, after)
            known[name], circuits[name] = header, after
            yield f"{name}: {len(after)} records, {new} of them new"


def submission(run: Run, out: str | os.PathLike[str] | None) -> tuple[Path, list[KnownCircuit]]:
    """Write those circuits of a run that the atlas would take to a file of records in a new folder.

    Each is computed anew, and read back and evaluated by Qiskit.

    Returns:
        The file, and the circuits that it holds.

    Raises:
        QasError: none would be taken, a problem that is not known by name, or a circuit that Qiskit disagrees on.
    """
    from qas.best_known.verification import Referee

    problem, circuits = of_run(run)
    known = next((front.circuits for front in all_fronts() if front.problem == problem.name), ())
    taken = [c for c in best_of(known, circuits) if all(c is not other for other in known)]
    if not taken:
        raise QasError(f"the atlas has circuits as good as all of this run's: {run.path}")
    referee = Referee(problem)
    faults = [fault for circuit in taken for fault in referee.faults(circuit)]
    if faults:
        raise QasError(f"not every circuit reproduces: {one_line(faults[0])}")
    with new_folder(out, "the submission", stem=f"{problem.name}-submission") as folder:
        return write_records(folder / f"{problem.name}.jsonl", Header.of(problem), taken), taken
