"""The most compact circuits of molecules: agent compact on several seeds, the best of every number of CX published.

    python benchmarks/compact.py --problems lih-12 --seeds 5 --seconds 600 --out results/compact

Writes a folder for each problem, which `scripts/referee.py` checks (see `qas.publishing`), and `runs.csv`, a row for
each run. Runs that are already there are not made again; what they found stays in the folders. One thread.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from kept import found_before, republish

import qas
from qas.runs import envelope

COLUMNS = ("problem", "seed", "options", "seconds", "evaluations", "cnots", "error", "gates", "envelope")


def row_of(run: Any, seed: int, options: str) -> dict[str, Any]:
    accurate = [r for r in run.front if r.error <= run.problem.threshold]
    best = min(accurate, key=lambda r: (r.two_qubit_gates, r.gates), default=None)
    return {
        "problem": run.problem.name,
        "seed": seed,
        "options": options,
        "seconds": f"{run.seconds:.0f}",
        "evaluations": run.evaluations,
        "cnots": best.two_qubit_gates if best else "",
        "error": f"{best.error:.4g}" if best else "",
        "gates": best.gates if best else "",
        "envelope": json.dumps([[r.two_qubit_gates, float(f"{r.error:.4g}")] for r in envelope(run.front)]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--options", default="{}", help="options of the agent as JSON")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "runs.csv"
    rows: list[dict[str, Any]] = []
    if file.exists():
        with file.open() as lines:
            rows = list(csv.DictReader(lines))
    done = {(r["problem"], int(r["seed"]), r["options"]) for r in rows}
    for name in arguments.problems:
        for seed in range(arguments.seeds):
            if (name, seed, arguments.options) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                run = qas.search(
                    name, agent="compact", seed=seed, seconds=arguments.seconds, report=False,
                    options=json.loads(arguments.options), out=Path(folder) / "run",
                )  # fmt: skip
                results = envelope([*run.front, *found_before(arguments.out / name, run.problem)])
            republish(results, run.problem, arguments.out / name)
            rows.append(row_of(run, seed, arguments.options))
            print(rows[-1], flush=True)
            with file.open("w", newline="") as lines:
                writer = csv.DictWriter(lines, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
