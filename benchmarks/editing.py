"""Editing circuits by a trained policy, against what it has to beat, on the test instances of a family.

    qas policy train xxz-ring --out xxz-ring.safetensors --seconds 1200
    python benchmarks/editing.py --family xxz-ring --policy xxz-ring.safetensors --evaluations 3000 --share 0.05 \
        --out results/learning/xxz-ring
    python benchmarks/editing.py --family lih-4-devices --leave-out fake_torino fake_fez fake_montreal fake_brisbane \
        --policy '{}.safetensors' --evaluations 5000 --contenders editor twin untrained random evolution \
        evolution+nearest --out results/learning/lih-4-devices

Contenders, each with the same number of energy evaluations (a sweep of gradients counts as one):

- ``editor``: the policy, from the reference determinant; ``editor+nearest`` and ``editor+predicted``: the policy from
  the circuit of the nearest training problem, or from the common circuit at interpolated angles;
- ``untrained``, ``untrained+nearest``, ``untrained+predicted``: the same without a policy: greedy by closed-form gain
  for each two-qubit gate, with its own defaults; ``twin``: with the policy's settings (rows, evaluations of an edit);
- ``random``: a network of random weights in the policy's place;
- ``evolution``: guided evolution from scratch; ``evolution+nearest``: from the circuit of the nearest training problem;
- ``adapt``: ADAPT-VQE;
- ``predicted``, ``nearest``: those circuits as they are, no evaluation at all.

On devices the pairs of the patches differ, so a policy starts from no other circuit, and ``evolution+nearest`` from
what guided evolution finds on the training device whose two-qubit gates err most alike, with the same seed and budget
(not counted): routed to the asked device, the problem's qubits where the transpiler leaves them (`qas.routing`).

With ``--share S`` a run ends at an error of S times the product state's, and evaluations up to there are compared
(where it does not come to that: the budget). Without, the lowest errors within the budget are. The table has
for each contender the mean over the instances and seeds, and the mean of log2 (contender / editor) over the pairs with
its 95 % interval (Student, over instances, of one instance over seeds): above zero, the editor is better. `runs.csv`
has a row for each run; those that are there are not made again. One thread a run.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import math
import multiprocessing
import shlex
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from kept import read_rows, search, write_rows

from qas.agents.rl.policy import load_policy
from qas.agents.rl.starts import Starts
from qas.agents.rl.training import leave_out
from qas.circuits import Circuit
from qas.comparison import interval
from qas.envs.candidates import Bench
from qas.envs.families import Family, Instance, load_family
from qas.envs.settings import judged_by
from qas.files import sha256
from qas.problems import Problem

CONTENDERS = (
    "editor", "editor+nearest", "editor+predicted", "untrained", "untrained+nearest", "untrained+predicted", "twin",
    "random", "evolution", "evolution+nearest", "adapt", "predicted", "nearest",
)  # fmt: skip
COLUMNS = (
    "family", "instance", "contender", "policy", "seed", "budget", "share", "score", "error", "gap", "evaluations",
    "two_qubit_gates", "seconds", "front",
)  # fmt: skip
FLOOR = 1e-10
"""Errors below are all the same: solved."""


class Task(NamedTuple):
    family: str
    instance: str
    contender: str
    policy: str
    """first digits of the hash of its file"""
    seed: int
    budget: int
    share: float


def asked_family(name: str, left_out: str | None) -> Family:
    """The family, what is left out in the place of its test instances."""
    family = load_family(name)
    return family if left_out is None else leave_out(family, left_out)


def run_task(task: Task, left_out: str | None, path: str) -> dict[str, Any] | None:
    """One search in a folder that is thrown away; None where the contender has nothing to begin with."""
    tested = asked_family(task.family, left_out).test
    instance = next(each for each in tested if each.name == task.instance)
    problem = instance.load()
    assert isinstance(problem, Problem)
    gap = problem.error(problem.product_state)
    kind, _, start = task.contender.partition("+")
    if kind in ("predicted", "nearest"):
        circuit = getattr(Starts.from_json(load_policy(path).starts), kind)(problem)
        if circuit is None or instance.device is not None:
            return None
        error = problem.error(problem.energy(circuit))
        found = {"error": error, "evaluations": 0, "two_qubit_gates": circuit.two_qubit_gates, "seconds": 0.0}
        return {**task._asdict(), "gap": gap, "score": score(task, error, gap, 0), **found, "front": "[]"}
    where: dict[str, Any] = {}
    if instance.device is not None:
        where = {"device": instance.device, "objective": instance.objective}
    if start and instance.device is not None:
        if task.contender != "evolution+nearest":
            return None
        where["start"] = circuit = carried(asked_family(task.family, left_out), instance, task.seed, task.budget)
        where["max_gates"] = max(20 * problem.n_qubits, 4 * len(circuit))
        options: dict[str, Any] | None = {}
    else:
        options = options_of(kind, start, path, problem)
    if options is None:
        return None
    agent = "editor" if kind in ("untrained", "twin", "random") else kind
    with tempfile.TemporaryDirectory() as folder:
        run = search(
            problem, agent=agent, options=options, seed=task.seed,
            evaluations=task.budget, target=task.share * gap if task.share else None, out=Path(folder) / "run",
            report=False, **where,
        )  # fmt: skip
        history = run.history()
    error, reached = float(history["best_error"].min()), int(history["evaluations"][-1])
    done = bool(task.share) and error <= task.share * gap
    best = run.best
    return {
        **task._asdict(),
        "score": score(task, error, gap, reached if done else task.budget),
        "error": error,
        "gap": gap,
        "evaluations": run.evaluations,
        "two_qubit_gates": best.two_qubit_gates,
        "seconds": round(run.seconds, 2),
        "front": json.dumps([(r.error, r.two_qubit_gates) for r in run.front]),
    }


def carried(family: Family, asked: Instance, seed: int, evaluations: int) -> Circuit:
    """A circuit of the nearest training device."""

    def error(instance: Instance) -> float:
        return Bench(*judged_by(instance.load(), device=instance.device, objective=instance.objective)).mean_error

    there = error(asked)
    near = min(family.train, key=lambda each: abs(math.log(error(each) / there)))
    with tempfile.TemporaryDirectory() as folder:
        return search(
            near.load(), agent="evolution", seed=seed, evaluations=evaluations, out=Path(folder) / "run", report=False,
            device=near.device, objective=near.objective,
        ).best.circuit  # fmt: skip


def score(task: Task, error: float, gap: float, evaluations: int) -> float:
    """What is compared: evaluations up to a share of the gap, or the error."""
    if not task.share:
        return max(error, FLOOR)
    return float(evaluations) if error <= task.share * gap else float(task.budget)


def options_of(kind: str, start: str, path: str, problem: Problem) -> dict[str, Any] | None:
    """Settings of an agent; None where there is no circuit to begin with."""
    held = load_policy(path)
    options: dict[str, Any] = {}
    if kind == "editor":
        options = {"policy": path} | ({"start": start} if start else {})
    elif kind in ("untrained", "twin", "random"):
        options = {"policy": "random" if kind == "random" else "none"}
        options |= {name: held.settings[name] for name in ("candidates", "evaluations_each") if kind != "untrained"}
    if start and (kind != "editor" or start == "predicted"):
        circuit = getattr(Starts.from_json(held.starts), start)(problem)
        if circuit is None:
            return None
        options |= {} if kind == "editor" else {"start": circuit.to_list()}
    return options


# ---------------------------------------------------------------------- the table
def table(rows: list[dict[str, Any]]) -> str:
    head = ["instances", "contender", "runs", "mean score", "median", "worst", "reached", "two-qubit gates", "ratio"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group_of(row["instance"], row["family"]), []).append(row)
    if all("@" in group for group in groups) and len(groups) > 1:
        groups["all"] = rows
    for group, here in sorted(groups.items()):
        own = {(r["instance"], r["seed"]): float(r["score"]) for r in here if r["contender"] == "editor"}
        for contender in CONTENDERS:
            mine = [row for row in here if row["contender"] == contender]
            if mine:
                lines.append(f"| {group} | {contender} | {' | '.join(cells(mine, own))} |")
    return "\n".join(lines)


def cells(rows: list[dict[str, Any]], own: dict[tuple[str, str], float]) -> list[str]:
    scores = [float(row["score"]) for row in rows]
    share = float(rows[0]["share"])
    shown = (lambda x: f"{x:.0f}") if share else (lambda x: f"{x:.2e}")
    reached = sum(float(r["error"]) <= share * float(r["gap"]) for r in rows) if share else len(rows)
    two = statistics.median(int(row["two_qubit_gates"]) for row in rows)
    ratios: dict[str, list[float]] = {}
    for row in rows:
        other = own.get((row["instance"], row["seed"]))
        if other and float(row["score"]) > 0:
            ratios.setdefault(row["instance"], []).append(math.log2(float(row["score"]) / other))
    means = [statistics.mean(each) for each in ratios.values()]
    if len(means) == 1:
        (means,) = ratios.values()
    ratio = f"{statistics.mean(means):+.2f} ± {interval(means):.2f}" if means else "–"
    return [
        str(len(rows)), shown(statistics.mean(scores)), shown(statistics.median(scores)), shown(max(scores)),
        f"{reached}/{len(rows)}" if share else "–", f"{two:g}", ratio,
    ]  # fmt: skip


def group_of(instance: str, family: str) -> str:
    """Instances of a spin family by their number of sites; others all together."""
    size = instance.removeprefix(f"{family}-").partition("-")[0]
    return f"{size} sites" if family.startswith("xxz") else instance if "@" in instance else "all"


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["instance"], row["contender"], int(row["seed"])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True)
    parser.add_argument("--policy", required=True, help="file of qas policy train; {}: what is left out")
    parser.add_argument("--leave-out", nargs="+", default=[None], metavar="NAME", help="asked instead of the test part")
    parser.add_argument("--instances", nargs="+", help="only those whose names contain one of these")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--evaluations", type=int, required=True)
    parser.add_argument("--share", type=float, default=0.0, help="of the product state's error, at which runs end")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    args = parser.parse_args()
    tasks: dict[Task, tuple[str | None, str]] = {}
    for left_out in args.leave_out:
        names = [each.name for each in asked_family(args.family, left_out).test]
        asked = [name for name in names if not args.instances or any(part in name for part in args.instances)]
        policy = args.policy.replace("{}", left_out or "")
        mark = sha256(Path(policy).read_bytes())[:12] if Path(policy).is_file() else policy
        print(f"{policy}: {load_policy(policy)!r}", flush=True)
        tasks |= {
            Task(args.family, name, contender, mark, seed, args.evaluations, args.share): (left_out, policy)
            for seed, name, contender in product(range(args.seeds), asked, args.contenders)
            if seed == 0 or contender not in ("predicted", "nearest")
        }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runs.csv"
    rows: list[dict[str, Any]] = [*read_rows(path)]
    done = {tuple(str(row[name]) for name in Task._fields) for row in rows}
    todo = {task: where for task, where in tasks.items() if tuple(map(str, task)) not in done}
    print(f"{len(todo)} runs to make, {len(tasks) - len(todo)} are there", flush=True)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_task, task, *where) for task, where in todo.items()]):
            row = future.result()
            if row is not None:
                rows.append({name: str(value) for name, value in row.items()})
                write_rows(path, COLUMNS, in_order(rows))
                print(f"{row['instance']} {row['contender']} {row['seed']}: {row['score']:.4g}", flush=True)
    wanted = {tuple(map(str, task)) for task in tasks}
    result = table([row for row in rows if tuple(str(row[name]) for name in Task._fields) in wanted])
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{result}\n")
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
