"""Environment steps per second of the DDQN agent in a real search, learning included.

    python benchmarks/env_steps.py --check --out results/speed/env_steps.json

One architecture is optimized in each step, so the steps are the rows of the run's history. The rate is that of the
whole run; the second half, where circuits are long and every step learns, is told apart.
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
from pathlib import Path

import qas

REACH = 200.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="lih-4")
    parser.add_argument("--noise", default=None)
    parser.add_argument("--agent", default="ddqn")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if fewer than 200 steps a second")
    args = parser.parse_args()

    rows = []
    print("| seed | steps | steps/s | second half | evaluations/s | best error |\n|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = qas.search(
                args.problem, agent=args.agent, noise=args.noise, seconds=args.seconds, seed=seed,
                out=Path(folder) / "run", report=False,
            )  # fmt: skip
            late = run.history()["seconds"] > run.seconds / 2
        row = {
            "seed": seed,
            "steps": run.architectures,
            "seconds": run.seconds,
            "steps_per_second": run.architectures / run.seconds,
            "second_half": float(late.sum()) / (run.seconds / 2),
            "evaluations_per_second": run.evaluations / run.seconds,
            "best_error": run.best.error,
        }
        rows.append(row)
        print(
            f"| {seed} | {row['steps']} | {row['steps_per_second']:.0f} | {row['second_half']:.0f} "
            f"| {row['evaluations_per_second']:.0f} | {row['best_error']:.2e} |",
            flush=True,
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
    slowest = min(row["steps_per_second"] for row in rows)
    if slowest < REACH:
        print(f"missed: {slowest:.0f} steps per second, wanted {REACH:g}", file=sys.stderr)
    return 1 if args.check and slowest < REACH else 0


if __name__ == "__main__":
    sys.exit(main())
