"""Is anything learned? Agents that play, each against its twin that learns nothing, at equal evaluations.

    python benchmarks/learning.py --problems lih-4 lih-6 heisenberg-5 --agents ddqn --seeds 10 --evaluations 100000 \
        --jobs 2 --out results/learning/ddqn
    python benchmarks/learning.py --problems lih-4 --agents 'sb3:{"algorithm": "DQN"}' \
        'ddqn:{"observation": "lookahead"}' --seeds 3 --out /tmp/try

An agent is a name, or a name with options as JSON behind a colon; an option ``evaluator`` holds settings of the angle
optimization. Its twin has the same options and ``learn=false``: every action is drawn from the legal ones. Writes
`runs.csv` (one row for each run) and `table.md`: best errors, the share of episodes below the problem's threshold by
fifths of the evaluations (greedy tests left out), and the mean of the paired log10 ratios of best errors, agent over
twin at the same seed, with its 95 % interval (Student): below 0 the agent is better. Rows that are there are not run
again, so an interrupted campaign continues with the same command.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import math
import shlex
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from kept import complete, search

from qas.comparison import interval
from qas.episodes import by_fifths


class Task(NamedTuple):
    problem: str
    noise: str
    agent: str
    options: str
    """as JSON, without the twin's"""
    twin: str
    """"yes" or "no\""""
    evaluations: int
    seed: int


COLUMNS = (
    *Task._fields, "best_error", "two_qubit_gates", "front", "episodes", "solved", "tests", "tests_solved",
    "median_error", "seconds",
)  # fmt: skip


def run_task(task: Task) -> dict[str, Any]:
    """One search in a folder that is thrown away; what the tables need of it."""
    options = json.loads(task.options) | ({"learn": False} if task.twin == "yes" else {})
    evaluator = options.pop("evaluator", None)
    with tempfile.TemporaryDirectory() as folder:
        run = search(
            task.problem, agent=task.agent, noise=None if task.noise == "none" else task.noise, options=options,
            evaluator=evaluator, evaluations=task.evaluations, seed=task.seed, out=Path(folder) / "run", report=False,
        )  # fmt: skip
        fifths = by_fifths(run, task.evaluations)
    return {
        **task._asdict(),
        "best_error": run.best.error,
        "two_qubit_gates": run.best.two_qubit_gates,
        "front": json.dumps([(r.error, r.two_qubit_gates) for r in run.front]),
        "episodes": sum(fifth.episodes for fifth in fifths),
        "solved": json.dumps([fifth.solved for fifth in fifths]),
        "tests": sum(fifth.tests for fifth in fifths),
        "tests_solved": sum(fifth.tests_solved for fifth in fifths),
        "median_error": json.dumps([fifth.median_error for fifth in fifths]),
        "seconds": round(run.seconds, 1),
    }


# ---------------------------------------------------------------------- files and tables
def key(row: dict[str, Any]) -> Task:
    return Task(*(int(row[k]) if k in ("evaluations", "seed") else str(row[k]) for k in Task._fields))  # type: ignore[arg-type]


def shares(group: list[dict[str, Any]]) -> str:
    """Success by fifths, the mean over seeds."""
    parts = [
        [s for s in column if s is not None] for column in zip(*(json.loads(r["solved"]) for r in group), strict=True)
    ]
    return " / ".join(f"{statistics.mean(part):.2f}" if part else "–" for part in parts)


def paired(agent: list[dict[str, Any]], twin: list[dict[str, Any]]) -> tuple[str, str]:
    """Mean log10 ratio of best errors with its interval, and at how many seeds the agent is lower."""
    other = {int(row["seed"]): float(row["best_error"]) for row in twin}
    both = [(float(row["best_error"]), other[int(row["seed"])]) for row in agent if int(row["seed"]) in other]
    ratios = [math.log10(max(a, 1e-12) / max(b, 1e-12)) for a, b in both]
    if not ratios:
        return "–", "–"
    lower = sum(a < b for a, b in both)
    return f"{statistics.mean(ratios):+.2f} ± {interval(ratios):.2f}", f"{lower}/{len(both)}"


def table(rows: list[dict[str, Any]]) -> str:
    groups: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in sorted(rows, key=key):
        cell = tuple(str(row[k]) for k in ("problem", "noise", "agent", "options", "evaluations"))
        groups.setdefault(cell, {}).setdefault(row["twin"], []).append(row)
    lines = [
        "| problem | noise | agent | evaluations | seeds | error: median | best | worst | episodes | solved, by fifths "
        "| tests solved | log10 ratio to the twin | lower |",
        "|" + "---|" * 13,
    ]
    for (problem, noise, agent, options, evaluations), pair in groups.items():
        name = agent if options == "{}" else f"{agent} {options}"
        for twin, group in sorted(pair.items()):
            errors = [float(row["best_error"]) for row in group]
            tests = [sum(int(row[k]) for row in group) for k in ("tests_solved", "tests")]
            ratio = paired(group, pair.get("yes", [])) if twin == "no" else ("", "")
            who = name if twin == "no" else f"twin of {agent}: learns nothing"
            cells = [
                problem, noise, who, evaluations, str(len(group)),
                f"{statistics.median(errors):.2e}", f"{min(errors):.2e}", f"{max(errors):.2e}",
                f"{statistics.mean(float(row['episodes']) for row in group):.0f}", shares(group),
                f"{tests[0]}/{tests[1]}" if twin == "no" else "", *ratio,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["lih-4", "lih-6", "heisenberg-5"])
    parser.add_argument("--noise", nargs="+", default=["none"])
    parser.add_argument("--agents", nargs="+", default=["ddqn"], help="a name, or such as 'ddqn:{\"n_step\": 1}'")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    args = parser.parse_args()

    tasks = []
    for problem, noise, agent, seed, twin in product(
        args.problems, args.noise, args.agents, range(args.seeds), ("no", "yes")
    ):
        name, _, options = agent.partition(":")
        given = json.dumps(json.loads(options or "{}"), sort_keys=True)
        tasks.append(Task(problem, noise, name, given, twin, args.evaluations, seed))
    result = table(complete(args.out / "runs.csv", COLUMNS, tasks, run_task, jobs=args.jobs))
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{result}\n")
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
