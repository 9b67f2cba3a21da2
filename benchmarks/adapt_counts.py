"""ADAPT baselines: CNOT at chemical accuracy beside published counts.

    python benchmarks/adapt_counts.py --check --out results/adapt

Writes `counts.csv`; rows that are already there are not run again. One thread. `--check` fails where a count differs
from the published one by more than 15 %. Published: QEB-ADAPT and qubit-ADAPT, Yordanov et al., arXiv:2011.10540, from
the tables of its code release; counts are those of whole excitations, 13 CX a double and 2 a single one.
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
from typing import Any, NamedTuple

import qas

ACCURACY = 1.6e-3
COLUMNS = (
    "problem",
    "options",
    "published",
    "cnots",
    "from_zero",
    "operators",
    "depth",
    "error",
    "evaluations",
    "seconds",
)


class Row(NamedTuple):
    problem: str
    options: dict[str, Any]
    published: int | None


ROWS = [
    Row("lih-12", {"pool": "qeb", "candidates": 10}, 52),
    Row("lih-12", {"pool": "qeb"}, 65),
    Row("lih-12", {"pool": "qeb", "candidates": 30, "generalized": True}, None),
    Row("lih-12", {"pool": "qubit"}, None),
    Row("lih-12", {"pool": "ceo"}, None),
    Row("lih-12", {"pool": "fermionic"}, None),
    Row("lih-12-3.0", {"pool": "qeb", "candidates": 10}, 38),
    Row("lih-12-3.0", {"pool": "qeb", "candidates": 10, "generalized": True}, None),
    Row("h6-12-1.5", {"pool": "qeb"}, 1306),
    Row("h6-12-1.5", {"pool": "qubit"}, 1724),
]


def measured(row: Row, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            row.problem, agent="adapt", options=row.options, target=ACCURACY, seconds=seconds, seed=0, report=False,
            out=Path(folder) / "run",
        )  # fmt: skip
    circuit = run.best.circuit
    reached = run.best.error <= ACCURACY
    return {
        "problem": row.problem,
        "options": json.dumps(row.options),
        "published": row.published or "",
        "cnots": circuit.two_qubit_gates if reached else "",
        "from_zero": circuit.decompose(from_zero=True).two_qubit_gates,
        "operators": circuit.n_angles,
        "depth": circuit.depth,
        "error": f"{run.best.error:.6g}",
        "evaluations": run.evaluations,
        "seconds": f"{run.seconds:.1f}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest time of a row")
    parser.add_argument("--only", default="", help="rows whose problem begins so")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    file = arguments.out / "counts.csv"
    done: dict[tuple[str, str], dict[str, Any]] = {}
    if file.exists():
        with file.open() as lines:
            done = {(r["problem"], r["options"]): r for r in csv.DictReader(lines)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        key = row.problem, json.dumps(row.options)
        if key in done or not row.problem.startswith(arguments.only):
            continue
        done[key] = measured(row, arguments.seconds)
        print(done[key], flush=True)
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, COLUMNS)
            writer.writeheader()
            writer.writerows(
                done[r.problem, json.dumps(r.options)] for r in ROWS if (r.problem, json.dumps(r.options)) in done
            )
    off = [
        f"{r['problem']} {r['options']}: {r['cnots'] or 'not reached'} against {r['published']}"
        for r in done.values()
        if r["published"] and (not r["cnots"] or abs(int(r["cnots"]) / int(r["published"]) - 1) > 0.15)
    ]
    print("\n".join(off) or "all counts within 15 % of the published ones")
    return 1 if arguments.check and off else 0


if __name__ == "__main__":
    sys.exit(main())
