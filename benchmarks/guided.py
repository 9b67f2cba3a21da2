"""Guided evolution against unguided at equal evaluations, the same seeds for both; no circuit grows beside either.

    python benchmarks/guided.py --problems lih-6 heisenberg-8 --evaluations 60000 --seeds 5 --out results/guided

Writes `runs.csv` (rows that are there are not run again) and `table.md`: for numbers of
two-qubit gates, the error that circuits with at most so many have, and the mean of log10(guided / unguided) over the
pairs with its 95 % interval (Student). Below zero, guided is better. Times are told beside, because a sweep of slopes
counts as one evaluation and takes about as long as ten.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import json
import math
import shlex
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import qas
from qas.comparison import interval
from qas.runs import envelope

COLUMNS = ("problem", "agent", "seed", "budget", "options", "best_error", "evaluations", "seconds", "envelope")
ARMS = ('{"guided": true, "grow": false}', '{"guided": false}')
_FLOOR = 1e-10
"""Errors below are all the same: solved."""


def run_arm(problem: str, seed: int, evaluations: int, arm: str) -> dict[str, Any]:
    """One search in a folder that is thrown away; what the table needs of it."""
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            problem, agent="evolution", seed=seed, evaluations=evaluations, options=json.loads(arm),
            out=Path(folder) / "run", report=False,
        )  # fmt: skip
    return {
        "problem": problem,
        "agent": "evolution",
        "seed": seed,
        "budget": f"evaluations={evaluations}",
        "options": arm,
        "best_error": run.best.error,
        "evaluations": run.evaluations,
        "seconds": round(run.seconds, 2),
        "envelope": json.dumps([(result.two_qubit_gates, result.error) for result in envelope(run.front)]),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier call; a killed one can have left half a row."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [{key: row[key] for key in COLUMNS} for row in csv.DictReader(stream) if row.get("envelope")]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def lowest(row: dict[str, Any], two: int) -> float:
    """Best error with at most so many two-qubit gates."""
    return max(_FLOOR, min(error for count, error in json.loads(row["envelope"]) if count <= two))


def sizes(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Numbers of two-qubit gates to compare at: about eight, up to the largest that any front has."""
    largest = max(count for pair in pairs for row in pair for count, _ in json.loads(row["envelope"]))
    return sorted({round(largest * k / 8) for k in range(1, 9)} - {0}) or [0]


def table(rows: list[dict[str, Any]]) -> str:
    columns = (
        "problem",
        "budget",
        "seeds",
        "two-qubit gates",
        "guided: median",
        "unguided: median",
        "better",
        "log10 ratio",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * 8 + "|"]
    times = [
        "| problem | guided: best error | unguided: best error | guided: seconds | unguided: seconds |",
        "|---" * 5 + "|",
    ]
    for problem, budget in sorted({(row["problem"], row["budget"]) for row in rows}):
        here = [row for row in rows if (row["problem"], row["budget"]) == (problem, budget)]
        arms = [{int(row["seed"]): row for row in here if row["options"] == arm} for arm in ARMS]
        pairs = [(arms[0][seed], arms[1][seed]) for seed in sorted(arms[0].keys() & arms[1].keys())]
        if not pairs:
            continue
        for two in sizes(pairs):
            errors = [[lowest(pair[arm], two) for pair in pairs] for arm in (0, 1)]
            ratios = [math.log10(a / b) for a, b in zip(*errors, strict=True)]
            wins = f"{sum(r < 0 for r in ratios)}, worse {sum(r > 0 for r in ratios)}"
            middle = [f"{statistics.median(each):.2e}" for each in errors]
            mean = f"{statistics.mean(ratios):+.2f} ± {interval(ratios):.2f}"
            lines.append(f"| {problem} | {budget} | {len(pairs)} | ≤ {two} | {' | '.join(middle)} | {wins} | {mean} |")
        best = [", ".join(f"{float(pair[arm]['best_error']):.1e}" for pair in pairs) for arm in (0, 1)]
        spent = [f"{statistics.median(float(pair[arm]['seconds']) for pair in pairs):.0f}" for arm in (0, 1)]
        times.append(f"| {problem} | {' | '.join(best)} | {' | '.join(spent)} |")
    return "\n".join([*lines, "", *times])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runs.csv"
    rows: list[dict[str, Any]] = list(read_rows(path))
    done = {(row["problem"], row["budget"], int(row["seed"]), row["options"]) for row in rows}
    budget = f"evaluations={args.evaluations}"
    for seed, problem, arm in product(range(args.seeds), args.problems, ARMS):
        if (problem, budget, seed, arm) not in done:
            row = run_arm(problem, seed, args.evaluations, arm)
            rows.append(row)
            write_rows(path, rows)
            print(f"{problem} {arm} {seed}: {row['best_error']:.3e} in {row['seconds']} s", flush=True)
            (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{table(rows)}\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
