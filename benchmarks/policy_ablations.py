"""What a trained editing policy needs: policies trained without one thing each, with several seeds, asked the same.

    python benchmarks/policy_ablations.py --steps 600 --policies path/to/policies --out results/learning/ablations

Every variant is trained with every seed for as many edits, and edits circuits from Hartree-Fock on the test instances
of the family. Each is also what `qas policy train FAMILY --steps N --seed S` makes with the options in brackets:

- ``full``: as it is;
- ``imitation only`` (``--imitation-only``): not played after imitation;
- ``no closed form`` and ``no local state`` (``--without NAME …``, names in `CLOSED_FORM` and `LOCAL_STATE`): blind to
  what is known of each edit in closed form, or to what is known of its qubits; the table still lists the same edits,
  and the teacher sees everything;
- ``no attention`` (``--layers 0``): edits are scored each by itself;
- ``K 16`` and ``K 64`` (``--candidates K``): half and twice the rows of the table.

Controls: ``twin``, the same with closed-form gains for each two-qubit gate in the policy's place, for each K;
``untrained``, that with its usual settings; and ``random``, a network of random weights. Policies with the same
training seed are asked with the same seeds of the search, those with others with others.

The table has log2 (variant / full) and log2 (variant / twin of its K) of the errors, paired over instances and both
seeds, mean and two 95 % intervals (Student): over instances, of each the mean over all seeds, and over training seeds,
of each the mean over instances and searches. Above zero: worse. Its last rows compare the lowest errors with at most
`--two-qubit-gates` within the largest budget. Policies are kept in `--policies`, where trainings that
were broken off go on; `runs.csv` has a row for each run, `policies.csv` for each training, told by the first digits of
the hash of its weights; what is there is not made again. One thread.
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
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from editing import COLUMNS, FLOOR, Task, in_order, run_task
from kept import read_rows, write_rows

from qas.agents.rl.policy import TrainedPolicy
from qas.agents.rl.starts import Starts
from qas.agents.rl.training import train_policy
from qas.comparison import interval
from qas.envs.families import load_family

CLOSED_FORM = (
    "gain", "log_gain", "log_gain_per_gate", "rank", "slope", "curvature", "step", "exact", "cost", "log_cost",
)  # fmt: skip
LOCAL_STATE = ("bloch", "z", "correlation", "weight", "coupling", "local_energy")


Pair = tuple[str, int, str]
"""Instance, seed of the training, seed of the search."""


class Variant(NamedTuple):
    contender: str
    """of `editing.py`"""
    training: dict[str, Any]
    """arguments of `train_policy`; a control takes settings from that policy"""
    twin: str = "twin"


VARIANTS = {
    "full": Variant("editor", {}),
    "twin": Variant("twin", {}),
    "untrained": Variant("untrained", {}),
    "random": Variant("random", {}),
    "imitation only": Variant("editor", {"imitation_only": True}),
    "no closed form": Variant("editor", {"without": CLOSED_FORM}),
    "no attention": Variant("editor", {"sizes": {"layers": 0}}),
    "no local state": Variant("editor", {"without": LOCAL_STATE}),
    "K 16": Variant("editor", {"candidates": 16}, "twin, K 16"),
    "twin, K 16": Variant("twin", {"candidates": 16}, "twin, K 16"),
    "K 64": Variant("editor", {"candidates": 64}, "twin, K 64"),
    "twin, K 64": Variant("twin", {"candidates": 64}, "twin, K 64"),
}
"""What matters most comes first: where time runs short, all seeds of fewer variants are there."""
ABOUT = (
    "digest",
    "policy",
    "seed",
    "steps",
    "states",
    "loss",
    "imitation",
    "playing",
    "closed form",
    "kept",
    "seconds",
)


class Trainer:
    """Trains policies in a folder, or takes those that are there."""

    def __init__(self, family: str, steps: int, folder: Path) -> None:
        self.family, self.steps, self.folder = family, steps, folder
        self.starts: Starts | None = None
        self.about: dict[tuple[str, int], dict[str, Any]] = {}

    def policy(self, name: str, seed: int) -> tuple[Path, str]:
        """The file of a trained variant, and the first digits of the hash of its weights.

        Start circuits, which nobody begins with here, are made once.
        """
        name = next(other for other, variant in VARIANTS.items() if variant.training == VARIANTS[name].training)
        path = self.folder / f"{name.replace(' ', '-')}-{seed}.safetensors"
        if (name, seed) not in self.about:
            begun = time.process_time()
            trained = train_policy(
                self.family, steps=self.steps, seed=seed, starts=self.starts, folder=path.with_suffix(".training"),
                **VARIANTS[name].training,
            )  # fmt: skip
            if trained.training["interrupted"]:
                raise KeyboardInterrupt
            trained.save(path)
            self.starts = Starts.from_json(trained.starts)
            known = {"digest": trained.digest[:12], "policy": name, "seed": seed, "steps": self.steps}
            self.about[name, seed] = known | told(trained)
            print(f"{name}, seed {seed}: {time.process_time() - begun:.0f} s of CPU time, {trained!r}", flush=True)
        return path, self.about[name, seed]["digest"]


def told(trained: TrainedPolicy) -> dict[str, Any]:
    """What a training says of itself."""
    found, areas = trained.training, trained.training["areas"]
    return {
        "states": found["states"],
        "loss": round(found["cross entropy above the teacher's"], 4),
        **{stage: areas.get(stage, "") for stage in ("imitation", "playing", "closed form")},
        "kept": found["stages"][-1],
        "seconds": found["seconds"],
    }


# ---------------------------------------------------------------------- the table
def table(rows: list[dict[str, Any]], seeds: dict[str, int], most: int) -> str:
    """Of runs, the training seed of each policy, and how many two-qubit gates are allowed in the last rows."""
    head = [
        "evaluations", "variant", "policies", "mean error", "two-qubit gates",
        "log2 ratio to full", "± instances", "± seeds", "to its twin", "± instances", "± seeds",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    budgets = sorted({int(row["budget"]) for row in rows})
    for budget, limit in [*((budget, None) for budget in budgets), *((budget, most) for budget in budgets[-1:])]:
        errors: dict[str, dict[Pair, float]] = {}
        gates: dict[str, list[int]] = {}
        for row in rows:
            if int(row["budget"]) == budget:
                pair = row["instance"], seeds[row["policy"]], row["seed"]
                error, two = reached(row, limit)
                errors.setdefault(row["contender"], {})[pair] = error
                gates.setdefault(row["contender"], []).append(two)
        for name in [name for name in VARIANTS if name in errors]:
            own = errors[name]
            cells = [
                str(budget) if limit is None else f"{budget}, ≤ {limit} gates", name,
                str(len({seed for _, seed, _ in own})), f"{statistics.mean(own.values()):.2e}",
                f"{statistics.mean(gates[name]):.1f}", *compared(own, errors.get("full", {})),
                *compared(own, errors.get(VARIANTS[name].twin, {})),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def reached(row: dict[str, Any], limit: int | None) -> tuple[float, int]:
    """Lowest error of a run, and its two-qubit gates, which are at most so many; Hartree-Fock has none."""
    if limit is None:
        return float(row["score"]), int(row["two_qubit_gates"])
    return min((max(error, FLOOR), two) for error, two in json.loads(row["front"]) if two <= limit)


def compared(own: dict[Pair, float], other: dict[Pair, float]) -> list[str]:
    """Mean log2 ratio over the pairs, and half widths of its intervals over instances and over training seeds."""
    ratios = {key: math.log2(own[key] / other[key]) for key in own if key in other}
    if own is other or not ratios:
        return ["", "", ""]
    widths = []
    for part in (0, 1):
        groups: dict[Any, list[float]] = {}
        for pair, ratio in ratios.items():
            groups.setdefault(pair[part], []).append(ratio)
        means = [statistics.mean(group) for group in groups.values()]
        widths.append(f"{interval(means):.2f}" if len(means) > 1 else "–")
    return [f"{statistics.mean(ratios.values()):+.2f}", *widths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="lih-4-curve")
    parser.add_argument("--steps", type=int, required=True, help="edits of each training")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant")
    parser.add_argument("--searches", type=int, default=3, help="of each policy, with seeds of their own")
    parser.add_argument("--two-qubit-gates", type=int, default=12, metavar="G", help="allowed in the last rows")
    parser.add_argument("--policies", type=Path, required=True, help="folder for policies and their trainings")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs.csv, policies.csv and table.md")
    args = parser.parse_args()
    trainings = args.seeds * sum(VARIANTS[name].contender == "editor" for name in args.variants)
    minutes = trainings * (args.steps / 600 + args.searches / 6) / 2
    print(f"{trainings} trainings and their runs, about {minutes:.0f} minutes of CPU time for lih-4-curve", flush=True)
    for folder in (args.policies, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.family, args.steps, args.policies)
    path = args.out / "runs.csv"
    rows = read_rows(path)
    done = {tuple(str(row[name]) for name in Task._fields) for row in rows}
    instances = [each.name for each in load_family(args.family).test]
    wanted = set()
    try:
        for name in args.variants:
            for seed in range(args.seeds):
                policy, mark = trainer.policy(name, seed)
                searches = range(seed, args.seeds * args.searches, args.seeds)
                for search, budget, instance in product(searches, args.evaluations, instances):
                    task = Task(args.family, instance, name, mark, search, budget, 0.0)
                    wanted.add(tuple(map(str, task)))
                    if tuple(map(str, task)) not in done:
                        found = run_task(task._replace(contender=VARIANTS[name].contender), None, str(policy))
                        assert found is not None
                        front = [(float(f"{error:.4g}"), two) for error, two in json.loads(found["front"])]
                        found |= {"contender": name, "front": json.dumps(front)}
                        rows.append({key: str(value) for key, value in found.items()})
                write_rows(path, COLUMNS, in_order(rows))
    except KeyboardInterrupt:
        print("the same command goes on from here", flush=True)
    finally:
        write_rows(path, COLUMNS, in_order(rows))
    asked = [row for row in rows if tuple(str(row[name]) for name in Task._fields) in wanted]
    result = table(asked, {about["digest"]: about["seed"] for about in trainer.about.values()}, args.two_qubit_gates)
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{result}\n")
    known = {about["digest"]: about for about in read_rows(args.out / "policies.csv")}
    known |= {str(about["digest"]): about for about in trainer.about.values()}
    write_rows(args.out / "policies.csv", ABOUT, list(known.values()))
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
