"""Which qubit of the problem sits on which qubit of the device: along a path, in the device's order, in random order.

    python benchmarks/qubit_order.py --evaluations 8000 --seeds 5 --jobs 2 --out results/devices/qubit_order

The same best patch of a device, guided evolution with the same budget and seeds, judged by the mitigated energy and its
standard error (``zne``):

- ``path``: as patches are numbered, along a path through them or from branch to branch.
- ``ascending``: in rising order of the device's numbers.
- ``random``: another order for each seed.

`runs.csv` has a row for each run, `table.md` means, ranges and paired ratios to ``path``. One thread a run; runs that
are already there are not made again.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import itertools
import math
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from device_search import load_problem
from kept import complete, read_rows, search

import qas
from qas.comparison import interval

PAIRS = [
    *(("lih-4", device) for device in ("fake_torino", "fake_fez", "fake_montreal", "fake_marrakesh")),
    *((problem, device) for problem in ("lih-6", "beh2-6-bohr", "field-6") for device in ("fake_fez", "fake_montreal")),
]
ORDERS = ("path", "ascending", "random")
COLUMNS = ("problem", "device", "order", "seed", "qubits", "evaluations", "two_qubit_gates", "score", "noise_free")


class Task(NamedTuple):
    """One run."""

    problem: str
    device: str
    order: str
    seed: int
    evaluations: int


def run(task: Task) -> dict[str, Any]:
    problem, device = load_problem(task.problem, task.seed), qas.load_device(task.device)
    qubits = list(device.patch(problem.n_qubits).physical)
    if task.order == "ascending":
        qubits.sort()
    if task.order == "random":
        qubits = np.random.default_rng([task.seed, 5]).permutation(sorted(qubits)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        best = search(
            problem, agent="evolution", device=device, patch=qubits, evaluations=task.evaluations, seed=task.seed,
            report=False, out=Path(folder) / "run",
        ).best  # fmt: skip
    return task._asdict() | {
        "qubits": "-".join(map(str, qubits)),
        "two_qubit_gates": best.circuit.two_qubit_gates,
        "score": f"{problem.error(best.energy):.6g}",
        "noise_free": f"{problem.error(problem.energy(best.circuit)):.6g}",
    }


def table(rows: list[dict[str, Any]], command: str) -> str:
    """Mean and range of scores of each order, and log2 of its ratio to ``path`` with the 95 % interval over seeds."""
    lines = ["| problem | device | seeds | path | ascending | | random | |", "|---|---|---|---|---|---|---|---|"]
    for problem, device in PAIRS:
        scores = {
            order: {int(r["seed"]): float(r["score"]) for r in rows if (r["problem"], r["device"], r["order"]) == key}
            for order in ORDERS
            for key in [(problem, device, order)]
        }
        own = scores["path"]
        if not own:
            continue
        cells = [problem, device, str(len(own)), _told(own.values())]
        for order in ORDERS[1:]:
            shared = sorted(own.keys() & scores[order].keys())
            ratios = [math.log2(scores[order][seed] / own[seed]) for seed in shared]
            cells += [_told(scores[order].values()), f"{np.mean(ratios):+.2f} ± {interval(ratios):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return f"""# Order of a problem's qubits on a device

Mean score, its range over seeds, and log2 of the ratio to `path` on paired seeds with its 95 % interval. In mHa;
`field-6` in thousandths of a coupling.

{chr(10).join(lines)}

Made by `{command}`
"""


def _told(scores: Any) -> str:
    values = 1e3 * np.array(list(scores))
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=None, help="those of the built-in pairs only")
    parser.add_argument("--evaluations", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = [pair for pair in PAIRS if pair[0] in (arguments.problems or [pair[0]])]
    tasks = [
        Task(*p, order, seed, arguments.evaluations)
        for seed, p, order in itertools.product(range(arguments.seeds), pairs, ORDERS)
    ]
    complete(arguments.out / "runs.csv", COLUMNS, tasks, run, jobs=arguments.jobs)
    rows = [row for row in read_rows(arguments.out / "runs.csv") if int(row["evaluations"]) == arguments.evaluations]
    (arguments.out / "table.md").write_text(table(rows, shlex.join(["python", *sys.argv])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
