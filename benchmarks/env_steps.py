"""Environment steps per second of the DDQN agent in a real search, learning included.

    python benchmarks/env_steps.py --check --out results/speed/env_steps.json
    python benchmarks/env_steps.py --settings '{}' '{"envs": 8}' '{"envs": 8, "observation": "lookahead"}'

For each setting (options of the agent, as JSON) and seed one search of `--seconds`, after a short one that is not
counted, in which what must be compiled is; the settings take turns. Steps are those of the episodes that ended. The
rate is that of the whole run; that by the process's own time tells what a machine that has nothing else to do would
make of it, if the search has a core to itself.
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

import qas

REACH = {1: 400.0, 8: 1500.0}
"""Steps a second that are wanted, by the circuits that are built at once; `optimise_every` is 1."""

_WARM = 2.0
_SOON = {"learn_after": 50}
"""In a search that is not counted: seconds, and options with which it learns in that time."""


def run_one(problem: str, noise: str | None, options: dict[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    begun: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            problem, agent="ddqn", noise=noise, options=options, seconds=seconds, seed=seed, report=False,
            out=Path(folder) / "run", on_start=lambda line: begun.append(time.process_time()),
        )  # fmt: skip
        own = time.process_time() - begun[0]
        steps = int(run.episodes()["gates"].sum())
    return {
        "options": options,
        "seed": seed,
        "steps": steps,
        "seconds": run.seconds,
        "steps_per_second": steps / run.seconds,
        "steps_per_own_second": steps / own,
        "evaluations_per_second": run.evaluations / run.seconds,
        "best_error": run.best.error,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="lih-4")
    parser.add_argument("--noise", default=None)
    parser.add_argument("--settings", nargs="+", type=json.loads, default=[{}, {"envs": 8}], help="options, as JSON")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each search")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if the best seed makes too few steps a second"
    )
    args = parser.parse_args()

    for options in args.settings:
        run_one(args.problem, args.noise, options | _SOON, _WARM, 0)
    rows = []
    print("| options | seed | steps | steps/s | steps per second of its own | evaluations/s | best error |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        for options in args.settings:
            row = run_one(args.problem, args.noise, options, args.seconds, seed)
            rows.append(row)
            rates = [f"{row[k]:.0f}" for k in ("steps_per_second", "steps_per_own_second", "evaluations_per_second")]
            cells = [json.dumps(options), str(seed), str(row["steps"]), *rates, f"{row['best_error']:.2e}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
    missed = False
    for options in args.settings:
        fastest = max(row["steps_per_second"] for row in rows if row["options"] == options)
        wanted = REACH.get(options.get("envs", 1), 0.0) if options.get("optimise_every", 1) == 1 else 0.0
        if fastest < wanted:
            missed = True
            print(
                f"missed with {json.dumps(options)}: {fastest:.0f} steps a second, wanted {wanted:g}", file=sys.stderr
            )
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
