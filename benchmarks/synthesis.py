"""Fewest CX for target unitaries: searched and shrunk circuits beside those of compilers.

    python benchmarks/synthesis.py --seeds 5 --jobs 1 --out results/synthesis

- ``search``: guided evolution, then `qas.shrink` of its best circuit; ``random``: the same of random circuits, the
  control for the search. Both search for as many evaluations; shrinking comes on top.
- ``qiskit``: Qiskit's synthesis of the matrix at optimization level 3; ``qiskit, shrunk``: `qas.shrink` of that, the
  control for both.
- ``bqskit``: BQSKit's compilation of the matrix at level 3, of ``unitary-3`` at level 1, as level 3 takes more than
  five minutes there; one worker (``pip install bqskit==1.2.1 bqskitrs==0.4.1``).

Of named targets seeds are those of the contenders; ``unitary-3-SEED`` is another target for each. An infidelity of at
most 1e-10 counts. `runs.csv` has a row for each run, `table.md` CX (median, range) and seconds of processor time, and a
folder for each target the smallest circuit of all runs of ours, as `scripts/referee.py` reads it. One thread a run;
runs that are already there are not made again.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import itertools
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import complete, found_before, republish, search

import qas
from qas.circuits import Circuit
from qas.problems import UnitaryProblem

TARGETS = ("toffoli-3", "peres-3", "fredkin-3", "qft-3", "unitary-3", "toffoli-4", "qft-4")
CONTENDERS = ("search", "random", "qiskit", "qiskit, shrunk", "bqskit")
OURS = ("search", "random", "qiskit, shrunk")
EXACT = 1e-10
_NEW = "new"
"""Folder of circuits that are not published yet."""
EVALUATIONS, MOVES = {3: 60_000, 4: 400_000}, {3: 30, 4: 60}
"""of a search, and rounds that a shrinking may go without success, by qubits"""
COLUMNS = ("target", "contender", "seed", "cx", "gates", "infidelity", "seconds", "evaluations")


class Task(NamedTuple):
    """One run."""

    target: str
    contender: str
    seed: int


def problem_of(task: Task) -> UnitaryProblem:
    name = f"{task.target}-{task.seed}" if task.target.startswith("unitary-") else task.target
    problem = qas.load_problem(name)
    assert isinstance(problem, UnitaryProblem)
    return problem


def searched(task: Task, problem: UnitaryProblem) -> tuple[Circuit | None, int]:
    """The circuit that a search ends with, shrunk, and all evaluations; None where it never gets there."""
    agent = "evolution" if task.contender == "search" else "random"
    with tempfile.TemporaryDirectory() as folder:
        run = search(
            problem, agent=agent, evaluations=EVALUATIONS[problem.n_qubits], seed=task.seed, report=False,
            out=Path(folder) / "run",
        )  # fmt: skip
    solving = [result for result in run.front if result.error <= EXACT]
    if not solving:
        return None, run.evaluations
    circuit, more = shrunk(min(solving, key=lambda r: r.two_qubit_gates).circuit, problem, task.seed)
    return circuit, run.evaluations + more


def shrunk(circuit: Circuit, problem: UnitaryProblem, seed: int) -> tuple[Circuit, int]:
    found = qas.shrink(circuit, problem, tolerance=EXACT, seed=seed, moves=MOVES[problem.n_qubits])
    if found.interrupted:
        raise KeyboardInterrupt
    return found.best.circuit, found.evaluations


def transpiled(problem: UnitaryProblem, seed: int) -> Circuit:
    from qiskit import QuantumCircuit, transpile
    from qiskit.circuit.library import UnitaryGate

    circuit = QuantumCircuit(problem.n_qubits)
    circuit.append(UnitaryGate(problem.target), range(problem.n_qubits))
    made = transpile(circuit, basis_gates=["rx", "ry", "rz", "cx"], optimization_level=3, seed_transpiler=seed)
    return Circuit.from_qiskit(made)


def compiled(problem: UnitaryProblem, task: Task) -> Circuit:
    from bqskit import compile as bqskit_compile
    from bqskit.compiler import Compiler
    from bqskit.ir.lang.qasm2 import OPENQASM2Language
    from bqskit.qis import UnitaryMatrix

    # BQSKit counts the first qubit as the most significant.
    index = [int(format(k, f"0{problem.n_qubits}b")[::-1], 2) for k in range(len(problem.target))]
    level = 1 if task.target == "unitary-3" else 3
    matrix = UnitaryMatrix(problem.target[np.ix_(index, index)])
    with Compiler(num_workers=1) as compiler:
        made = bqskit_compile(
            matrix, optimization_level=level, synthesis_epsilon=EXACT / 2, compiler=compiler, seed=task.seed
        )
    return Circuit.from_qasm(OPENQASM2Language().encode(made))


def seconds_spent() -> float:
    """Of processor time, by this process and by those that it has waited for."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def run(task: Task, out: Path) -> dict[str, Any]:
    problem = problem_of(task)
    problem.energy(Circuit(problem.n_qubits))  # what is compiled once per machine is not timed
    began, evaluations = seconds_spent(), 0
    circuit: Circuit | None
    if task.contender in ("search", "random"):
        circuit, evaluations = searched(task, problem)
    elif task.contender == "bqskit":
        circuit = compiled(problem, task)
    else:
        circuit = transpiled(problem, task.seed)
        if task.contender == "qiskit, shrunk":
            circuit, evaluations = shrunk(circuit, problem, task.seed)
    row: dict[str, Any] = task._asdict() | {
        "seconds": f"{seconds_spent() - began:.1f}",
        "evaluations": evaluations or "",
    }
    if circuit is None:
        return row
    error = problem.error(problem.energy(circuit))
    counts = {"cx": circuit.two_qubit_gates, "gates": len(circuit)} if error <= EXACT else {}
    if counts and task.contender in OURS:
        folder = out / _NEW / problem.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{task.contender}-{task.seed}.qasm").write_text(circuit.to_qasm())
    return row | counts | {"infidelity": f"{max(error, 0.0):.1e}"}


def table(rows: list[dict[str, str]], command: str) -> str:
    lines = [f"| target | {' | '.join(CONTENDERS)} |", "|---" * (1 + len(CONTENDERS)) + "|"]
    for target in TARGETS:
        cells = [_cell([r for r in rows if (r["target"], r["contender"]) == (target, name)]) for name in CONTENDERS]
        if any(cells):
            lines.append(f"| `{target}` | {' | '.join(cells)} |")
    return f"""# Fewest CX for target unitaries

Of all seeds the median number of CX with its range, where the infidelity is at most 1e-10; how many got there, where
not all did; and median seconds of processor time.

{chr(10).join(lines)}

Made by `{command}`
"""


def _cell(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    counts = sorted(int(row["cx"]) for row in rows if row["cx"])
    seconds = np.median([float(row["seconds"]) for row in rows])
    if not counts:
        return f"none of {len(rows)}; {seconds:.3g} s"
    spread = f" ({counts[0]} to {counts[-1]})" if counts[0] < counts[-1] else ""
    there = "" if len(counts) == len(rows) else f", {len(counts)} of {len(rows)}"
    return f"{np.median(counts):g}{spread}{there}; {seconds:.3g} s"


def published(out: Path) -> None:
    """Let the smallest circuit of each target take its folder."""
    for folder in sorted((out / _NEW).glob("*")):
        problem = qas.load_problem(folder.name)
        known = found_before(out / folder.name, problem)
        best = min(known + found_before(folder, problem), key=lambda r: (r.two_qubit_gates, r.gates))
        if best not in known:
            republish([best], problem, out / folder.name)
    shutil.rmtree(out / _NEW, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    wanted = itertools.product(arguments.targets, arguments.contenders, range(arguments.seeds))
    command = shlex.join(["python", *sys.argv])

    def write(rows: list[dict[str, str]]) -> None:
        (arguments.out / "table.md").write_text(table(rows, command))
        published(arguments.out)

    tasks = [Task(*each) for each in wanted]
    complete(
        arguments.out / "runs.csv", COLUMNS, tasks, run, arguments=(arguments.out,), jobs=arguments.jobs, then=write
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
