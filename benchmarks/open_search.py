"""`bo` with its defaults on problems it was not tuned on: at equal numbers of trained circuits, and at equal shots.

    python benchmarks/open_search.py circuits --seeds 10 --jobs 2 --out results/open-search/circuits
    python benchmarks/open_search.py shots --seeds 10 --jobs 2 --out results/open-search/shots

``circuits``: six 4-qubit problems, 200 circuits each whose angles are optimized. `bo`, `random` and `reinforce` with
their defaults, and, as the last chooses from a pool of the published space, the first two with its gates and length as
well. Of a run: its error; the circuits it trained until the error was below 1 % of the gap, the way from the best
product state to the ground state; and its front, the mean over 0 to 12 two-qubit gates of log10 of the lowest error
with at most so many, in units of the gap, between 1e-6 and 1.

``shots``: circuits of a device judged by its score, the mitigated energy with its standard error. Each call of the
objective counts as its shots, 10,000, so that a training of 100 calls is a million. `bo`, guided evolution, which
searches under noise from its first call on, and `random` on four pairs of problem and device. For each of several
numbers of shots, of which the search is told: the lowest score less the exact energy, and of the circuit that the
search ends with the mitigated error and its standard error.

Writes `runs.csv`, one row for each run, and `table.md`: means, and differences of `bo` from each rival over the same
seeds with 95 % intervals (Student). Runs that are already there are not made again. One thread a run.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from device_search import load_problem
from kept import complete, read_rows, search

import qas
from qas.comparison import interval
from qas.devices import load_device
from qas.gates import POOL_GATES
from qas.problems.spins import heisenberg

PROBLEMS = ("cluster-4", "state-4-1", "state-4-2", "state-4-3", "state-4-4", "fields-4")
PAIRS = (("lih-4", "fake_torino"), ("lih-4", "fake_brisbane"), ("h2-4", "fake_brisbane"), ("field-4", "fake_torino"))
NARROW = {"gates": list(POOL_GATES), "max_gates": 10}
CIRCUITS: dict[str, tuple[str, dict[str, Any]]] = {
    "bo": ("bo", {}),
    "random": ("random", {}),
    "reinforce": ("reinforce", {}),
    "bo, pool's space": ("bo", NARROW),
    "random, pool's space": ("random", NARROW),
}
"""Contenders: agent and settings of the search."""
SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bo": ("bo", {}),
    "evolution": ("evolution", {"options": {"noise_free": 0.0}}),
    "random": ("random", {}),
}
RIVALS = {
    "bo": ("random", "reinforce", "evolution"),
    "bo, pool's space": ("random, pool's space", "reinforce"),
}
PER_CALL = 10_000
MARKS = (100, 300, 1000, 3000)
"""Calls of the objective that searches at equal shots are told."""
STEPS = 200
FIRST = 17
"""Circuits of `bo` that are no changes of others."""
SIZES = 13
EXTRA = ("improvements_first", "improvements_changed", "evaluations", "seconds")
OF_CIRCUITS = ("error", "until", "front")
OF_SHOTS = tuple(f"{what} at {mark * PER_CALL:.0e}" for what in ("score", "error", "sigma") for mark in MARKS)


class Task(NamedTuple):
    """One run."""

    problem: str
    device: str
    contender: str
    seed: int


# ---------------------------------------------------------------------- one run
def searched(
    problem: Any, task: Task, contenders: dict[str, tuple[str, dict[str, Any]]], **more: Any
) -> tuple[Any, np.ndarray, float]:
    """A run whose folder is thrown away, its history, and its processor seconds."""
    agent, settings = contenders[task.contender]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = search(
            problem, agent=agent, seed=task.seed, report=False, out=Path(folder) / "run", **settings, **more
        )  # fmt: skip
        return run, run.history(), time.process_time() - began


def at_equal_circuits(task: Task) -> dict[str, Any]:
    if task.problem == "fields-4":
        fields = np.random.default_rng(task.seed).uniform(-1.0, 1.0, 4)
        problem: Any = heisenberg(4, field=fields.tolist())
    else:
        problem = qas.load_problem(task.problem)
    _, history, seconds = searched(problem, task, CIRCUITS, steps=STEPS)
    gap = problem.product_state - problem.exact
    errors, two = history["energy"] - problem.exact, history["two_qubit_gates"]
    best = np.minimum.accumulate(errors)
    front = [min(1.0, errors[two <= most].min(initial=gap) / gap) for most in range(SIZES)]
    better = np.append(True, best[1:] < best[:-1] - 1e-6)
    return task._asdict() | {
        "error": max(0.0, float(best[-1])),
        "until": int(np.argmax(best < 0.01 * gap)) + 1 if best[-1] < 0.01 * gap else STEPS,
        "front": float(np.log10(np.maximum(front, 1e-6)).mean()),
        "improvements_first": int(better[:FIRST].sum()),
        "improvements_changed": int(better[FIRST:].sum()),
        "evaluations": int(history["evaluations"][-1]),
        "seconds": round(seconds, 1),
    }


def at_equal_shots(task: Task) -> dict[str, Any]:
    problem = load_problem(task.problem, task.seed)
    device = load_device(task.device).patch(problem.n_qubits, "line", "best")
    objective = f"zne:shots={PER_CALL}"
    row: dict[str, Any] = task._asdict() | {"circuits": 0, "seconds": 0.0}
    for mark in MARKS:
        run, history, seconds = searched(problem, task, SHOTS, device=device, objective=objective, evaluations=mark)
        outcomes = run.best.outcomes
        row["circuits"], row["seconds"] = len(history), round(row["seconds"] + seconds, 1)
        at = f"at {mark * PER_CALL:.0e}"
        row[f"score {at}"] = float(history["energy"].min()) - problem.exact
        row[f"error {at}"], row[f"sigma {at}"] = outcomes.mitigated - problem.exact, outcomes.sigma
    return row


# ---------------------------------------------------------------------- table
def table(rows: list[dict[str, Any]], measures: tuple[str, ...]) -> str:
    """Means of each contender, and the mean difference of `bo` from each rival over the same seeds."""
    groups: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows:
        contenders = groups.setdefault((row["problem"], row["device"]), {})
        contenders.setdefault(row["contender"], {})[int(row["seed"])] = row
    extra = [name for name in ("improvements_first", "improvements_changed", "circuits", "evaluations", "seconds")
             if name in rows[0]]  # fmt: skip
    head = ["problem", "contender", "seeds", *measures, *(name.replace("_", ": ") for name in extra)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (problem, device), contenders in groups.items():
        where = f"{problem} {device}".strip()
        for name, runs in contenders.items():
            means = [f"{statistics.mean(float(r[m]) for r in runs.values()):.3g}" for m in (*measures, *extra)]
            lines.append("| " + " | ".join([where, name, str(len(runs)), *means]) + " |")
        for own, rivals in RIVALS.items():
            for rival in (name for name in rivals if name in contenders and own in contenders):
                seeds = sorted(contenders[own].keys() & contenders[rival].keys())
                cells = []
                for measure in measures:
                    ours, theirs = ([float(contenders[who][seed][measure]) for seed in seeds] for who in (own, rival))
                    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
                    cells.append(f"{statistics.mean(differences):+.2g} ± {interval(differences):.2g}")
                cells += ["–"] * len(extra)
                lines.append("| " + " | ".join([where, f"{own} – {rival}", str(len(seeds)), *cells]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("equal", choices=("circuits", "shots"))
    parser.add_argument("--problems", nargs="+", help="some of them only")
    parser.add_argument("--contenders", nargs="+", help="some of them only")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    args = parser.parse_args()
    of_circuits = args.equal == "circuits"
    pairs = [(problem, "") for problem in PROBLEMS] if of_circuits else PAIRS
    names = args.contenders or list(CIRCUITS if of_circuits else SHOTS)
    tasks = [
        Task(problem, device, name, seed)
        for seed, (problem, device), name in product(range(args.seeds), pairs, names)
        if problem in (args.problems or [problem])
    ]
    run, measures = (at_equal_circuits, OF_CIRCUITS) if of_circuits else (at_equal_shots, OF_SHOTS)
    columns = (*Task._fields, *measures, *(EXTRA if of_circuits else ("circuits", "seconds")))
    complete(args.out / "runs.csv", columns, tasks, run, jobs=args.jobs)
    made = table(read_rows(args.out / "runs.csv"), measures)
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{made}\n")
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
