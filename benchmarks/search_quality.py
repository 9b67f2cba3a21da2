"""What the agents find: best error and front for agents × problems × noise × seeds at one budget.

    python benchmarks/search_quality.py --problems lih-4 --noise none ibm-mumbai --evaluations 200000 --jobs 2 \
        --criterion "error<1.6e-3, cx<=4, gates<=15" --out results/quality/lih-4

Writes `runs.csv` (one row for each run, with its envelope: the best error of every number of two-qubit gates) and
`table.md`. Rows that are already there are not run again, so an interrupted campaign continues with the same command.
With a budget in seconds, use as many jobs as there are idle cores.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import json
import multiprocessing
import re
import shlex
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t as student

import qas
from qas.agents import AGENTS
from qas.scores import entanglement_score

COLUMNS = (
    "problem", "noise", "agent", "seed", "budget", "options", "space", "best_error", "r", "gates", "two_qubit_gates",
    "evaluations", "architectures", "seconds", "envelope", "front",
)  # fmt: skip
_LIMIT = re.compile(r"\s*(error|cx|gates)\s*(<=|<)\s*([0-9.eE+-]+)\s*")


class Task(NamedTuple):
    problem: str
    noise: str
    agent: str
    seed: int
    budget: str
    options: str
    space: str
    """gates and max_gates as JSON; empty for the agent's defaults"""


def run_task(task: Task) -> dict[str, Any]:
    """One search in a folder that is thrown away; what the table needs of it."""
    kind, _, amount = task.budget.partition("=")
    limits: dict[str, Any] = {kind: float(amount) if kind == "seconds" else int(amount)}
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            task.problem, agent=task.agent, noise=None if task.noise == "none" else task.noise, seed=task.seed,
            options=json.loads(task.options), out=Path(folder) / "run", report=False, **limits,
            **json.loads(task.space or "{}"),
        )  # fmt: skip
    best = run.best
    try:
        r: float | str = float(entanglement_score(run.problem)(best.energy))
    except qas.QasError:
        r = ""
    lowest: dict[int, float] = {}
    for result in run.front:
        lowest[result.two_qubit_gates] = min(result.error, lowest.get(result.two_qubit_gates, float("inf")))
    envelope = [
        (two, error) for two, error in sorted(lowest.items()) if error <= min(lowest[t] for t in lowest if t <= two)
    ]
    return {
        **task._asdict(),
        "best_error": best.error,
        "r": r,
        "gates": best.gates,
        "two_qubit_gates": best.two_qubit_gates,
        "evaluations": run.evaluations,
        "architectures": run.architectures,
        "seconds": round(run.seconds, 2),
        "envelope": json.dumps(envelope),
        "front": json.dumps([(r.error, r.two_qubit_gates, r.gates) for r in run.front]),
    }


# ---------------------------------------------------------------------- criteria
def parse_criterion(text: str) -> list[tuple[str, str, float]]:
    limits = []
    for part in text.split(","):
        found = _LIMIT.fullmatch(part)
        if not found:
            raise SystemExit(f"a criterion looks like 'error<1.6e-3, cx<=4, gates<=15', got {text!r}")
        limits.append((found[1], found[2], float(found[3])))
    return limits


def holds(limits: list[tuple[str, str, float]], front: list[tuple[float, int, int]]) -> bool:
    """Whether one circuit of the front meets all limits at once; cx counts every two-qubit gate."""

    def meets(error: float, two: int, gates: int) -> bool:
        values = {"error": error, "cx": two, "gates": gates}
        return all(values[k] < bound if sign == "<" else values[k] <= bound for k, sign, bound in limits)

    return any(meets(*point) for point in front)


# ---------------------------------------------------------------------- files
def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("front")]  # a killed campaign can leave half a row


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda r: (r["problem"], r["noise"], r["budget"], r["agent"], int(r["seed"])))
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def interval(values: list[float]) -> float:
    """Half width of the 95 % interval of a mean (Student)."""
    if len(values) < 2:
        return float("nan")
    return float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def table(rows: list[dict[str, Any]], criteria: list[str]) -> str:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row.get(k) or "" for k in ("problem", "noise", "agent", "budget", "options", "space"))
        groups.setdefault(key, []).append(row)
    head = ["problem", "noise", "agent", "budget", "seeds", "error: median", "best", "worst", "gates", "cx", "seconds"]
    with_r = any(row.get("r") not in (None, "") for row in rows)
    if with_r:
        head += ["r: mean (95 % interval)", "evaluations"]
    lines = ["| " + " | ".join([*head, *criteria]) + " |", "|" + "---|" * (len(head) + len(criteria))]
    for (problem, noise, agent, budget, options, space), group in sorted(groups.items()):
        errors = [float(r["best_error"]) for r in group]
        middle = [statistics.median(float(r[k]) for r in group) for k in ("gates", "two_qubit_gates", "seconds")]
        met = [
            f"{sum(holds(parse_criterion(c), json.loads(r['front'])) for r in group)}/{len(group)}" for c in criteria
        ]
        name = agent if options == "{}" else f"{agent} {options}"
        if space:
            limits = json.loads(space)
            kinds = [f"{len(limits['gates'])} kinds"] if "gates" in limits else []
            most = [f"at most {limits['max_gates']} gates"] if "max_gates" in limits else []
            name += f" ({', '.join(most + kinds)})"
        shares = [float(r["r"]) for r in group if r.get("r") not in (None, "")]
        extra = []
        if with_r:
            half = interval(shares)
            extra = [f"{statistics.mean(shares):.4f} ± {half:.4f}" if shares else "–",
                     f"{statistics.median(float(r['evaluations']) for r in group):,.0f}"]  # fmt: skip
        cells = [
            problem, noise, name, budget, str(len(group)), f"{statistics.median(errors):.2e}", f"{min(errors):.2e}",
            f"{max(errors):.2e}", f"{middle[0]:g}", f"{middle[1]:g}", f"{middle[2]:.1f}", *extra, *met,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["lih-4"])
    parser.add_argument("--agents", nargs="+", default=[a for a in AGENTS if a != "adapt"], choices=list(AGENTS))
    parser.add_argument("--noise", nargs="+", default=["none"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--options", default="{}", help="settings of the agent, as JSON")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--seconds", type=float)
    budget.add_argument("--evaluations", type=int)
    budget.add_argument("--steps", type=int, help="architectures")
    parser.add_argument("--gates", nargs="+", help="gates that may be used")
    parser.add_argument("--max-gates", type=int)
    parser.add_argument("--criterion", action="append", default=[], help='such as "error<1.6e-3, cx<=4, gates<=15"')
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a run of this call misses a criterion")
    args = parser.parse_args()
    for criterion in args.criterion:
        parse_criterion(criterion)

    text = f"steps={args.steps}" if args.steps else f"evaluations={args.evaluations}"
    if args.seconds:
        text = f"seconds={args.seconds:g}"
    given = {"gates": args.gates, "max_gates": args.max_gates}
    given = {name: value for name, value in given.items() if value is not None}
    space = json.dumps(given, sort_keys=True) if given else ""
    options = json.dumps(json.loads(args.options), sort_keys=True)
    cells = product(args.problems, args.noise, args.agents, range(args.seeds))
    tasks = [Task(problem, noise, agent, seed, text, options, space) for problem, noise, agent, seed in cells]
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runs.csv"
    rows: list[dict[str, Any]] = list(read_rows(path))

    def key(row: dict[str, Any]) -> Task:
        return Task(*(str(row.get(k) or "") if k != "seed" else int(row[k]) for k in Task._fields))  # type: ignore[arg-type]

    done = {key(row) for row in rows}
    todo = [task for task in tasks if task not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=args.jobs, mp_context=context) as pool:
        for future in as_completed([pool.submit(run_task, task) for task in todo]):
            row = future.result()
            rows.append(row)
            write_rows(path, rows)
            print(f"{row['problem']} {row['noise']} {row['agent']} {row['seed']}: {row['best_error']:.3e}", flush=True)
    wanted = [row for row in rows if key(row) in set(tasks)]
    result = table(wanted, args.criterion)
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{result}\n")
    print(result)
    fine = all(holds(parse_criterion(c), json.loads(row["front"])) for c in args.criterion for row in wanted)
    return 0 if fine or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
