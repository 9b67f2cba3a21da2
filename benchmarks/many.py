"""Circuits whose angles are optimized in a second, by one thread and by several, and searches by one and by several.

    python benchmarks/many.py --out results/speed/many.json
    python benchmarks/many.py --workers 4 --check

Random circuits of each size, all different and new to the simulator, random Hamiltonians; hardware noise is that of
``ibm-mumbai``. Rounds alternate between the numbers of threads and the best of each counts, because other programs on
the machine only ever slow one of them down. ``one call each`` is a loop over `Evaluator.evaluate`, the others
`Evaluator.evaluate_many`; all find the same, which is checked. `--check` fails where several threads gain less than
the share of an even gain that is wanted, on a machine with nothing else to do.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import qas
from qas.circuits import Circuit
from qas.noise import load_noise
from qas.problems import Problem
from qas.simulators import workers
from qas.testing.random import random_circuit, random_hamiltonian
from qas.vqe import Evaluator

CASES = (
    (4, 20, None),
    (6, 30, None),
    (8, 40, None),
    (4, 20, "ibm-mumbai"),
    (6, 30, "ibm-mumbai"),
    (8, 40, "ibm-mumbai"),
)
"""Qubits, gates, noise."""
SEARCHES = (("lih-4", None, 1500), ("lih-6", "ibm-mumbai", 150))
"""Problem, noise, architectures."""
GATES = ("rx", "ry", "rz", "cx")
REACH = 0.7
"""Share of an even gain, from 6 qubits on; on 4 without noise Python is half of the work."""


def batch(n_qubits: int, gates: int, seconds: float, evaluator: Evaluator) -> list[Circuit]:
    """As many circuits as one thread optimizes in about this time."""
    rng = np.random.default_rng(1)
    made = [random_circuit(n_qubits, gates, rng, GATES) for _ in range(12)]
    list(evaluator.evaluate_many(made, rng, workers=1))
    begin = time.perf_counter()
    list(evaluator.evaluate_many(made, rng, workers=1))
    each = (time.perf_counter() - begin) / len(made)
    return [random_circuit(n_qubits, gates, rng, GATES) for _ in range(max(24, min(2000, round(seconds / each))))]


def one_round(evaluator: Evaluator, made: list[Circuit], count: int) -> tuple[float, list[float]]:
    """Circuits per second, and the energies; 0 threads: one call each."""
    fresh = [Circuit(c.n_qubits, c.gates) for c in made]
    rng = np.random.default_rng(2)
    begin = time.perf_counter()
    if count:
        energies = [found.energy for found in evaluator.evaluate_many(fresh, rng, workers=count)]
    else:
        energies = [evaluator.evaluate(c, rng).energy for c in fresh]
    return len(fresh) / (time.perf_counter() - begin), energies


def measure(case: tuple[int, int, str | None], count: int, rounds: int, seconds: float) -> dict[str, Any]:
    n_qubits, gates, noise = case
    hamiltonian = random_hamiltonian(n_qubits, 20 * n_qubits, np.random.default_rng(0))
    evaluator = Evaluator(Problem("random", hamiltonian), load_noise(noise))
    made = batch(n_qubits, gates, seconds, evaluator)
    one_round(evaluator, made[:24], count)  # compiles
    best = {0: 0.0, 1: 0.0, count: 0.0}
    known: list[float] | None = None
    for _ in range(rounds):
        for threads in best:
            rate, energies = one_round(evaluator, made, threads)
            assert known is None or energies == known, "the energies depend on the number of threads"
            best[threads], known = max(best[threads], rate), energies
    return {
        "qubits": n_qubits, "gates": gates, "noise": noise, "circuits": len(made), "one_call_each": best[0],
        "one_thread": best[1], "several": best[count], "gain": best[count] / best[0],
    }  # fmt: skip


def searches(count: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for problem, noise, steps in SEARCHES:
        for agent in ("evolution", "beam", "random"):
            best = {1: np.inf, count: np.inf}
            for _ in range(rounds):
                for threads in best:
                    workers.cores = lambda threads=threads: threads  # type: ignore[assignment, misc]
                    with tempfile.TemporaryDirectory() as folder:
                        run = qas.search(
                            problem,
                            agent=agent,
                            noise=noise,
                            steps=steps,
                            seed=0,
                            out=Path(folder) / "run",
                            report=False,
                        )
                    best[threads] = min(best[threads], run.seconds)
            rows.append({"problem": problem, "noise": noise, "agent": agent, "architectures": steps,
                         "seconds_one": best[1], "seconds_several": best[count],
                         "gain": best[1] / best[count]})  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads, at least 2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one round by one thread, about")
    parser.add_argument("--no-searches", action="store_true", help="leave out whole searches")
    parser.add_argument("--check", action="store_true", help="fail below what is wanted")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.workers < 2:
        parser.error(f"--workers is at least 2, got {args.workers}")
    print(f"| qubits | gates | noise | one call each | one thread | {args.workers} threads | gain |")
    print("|---|---|---|---|---|---|---|")
    rows, missed = [], 0
    for case in CASES:
        row = measure(case, args.workers, args.rounds, args.seconds)
        rows.append(row)
        missed += row["qubits"] >= 6 and row["gain"] < REACH * args.workers
        print(
            f"| {row['qubits']} | {row['gates']} | {row['noise'] or '–'} | {row['one_call_each']:,.0f} /s "
            f"| {row['one_thread']:,.0f} /s | {row['several']:,.0f} /s | {row['gain']:.2f} |",
            flush=True,
        )
    found = [] if args.no_searches else searches(args.workers, min(3, args.rounds))
    if found:
        print(f"\n| search | noise | agent | architectures | one thread | {args.workers} threads | gain |")
        print("|---|---|---|---|---|---|---|")
    for row in found:
        print(
            f"| {row['problem']} | {row['noise'] or '–'} | {row['agent']} | {row['architectures']:,} "
            f"| {row['seconds_one']:.2f} s | {row['seconds_several']:.2f} s | {row['gain']:.2f} |"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        told = {"command": " ".join(sys.argv), "workers": args.workers, "rows": rows, "searches": found}
        args.out.write_text(json.dumps(told, indent=1) + "\n")
    if missed:
        print(f"missed: {missed} cases gain less than {REACH:g} of {args.workers}", file=sys.stderr)
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
