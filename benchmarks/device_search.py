"""Circuits searched on a device's own terms against noise-free ones that are transpiled to it, at equal evaluations.

    python benchmarks/device_search.py --evaluations 8000 --seeds 5 --jobs 2 --out results/devices/search

Contenders, each with the same number of calls of the objective:

- ``device``: guided evolution on the device's gates and coupling, judged by the objective.
- ``noise-free``: guided evolution without noise with half of the calls, where no circuit grows, as small ones count;
  the circuits of its front transpiled at level 3 with 20 seeds each (`qas.routing`), of which the one with the fewest
  two-qubit gates, then gates, is kept; their angles trained by the objective with the other half.
- ``begun``: evolution without noise with half of the calls; with the rest the search of ``device``, from its front.
- ``adapt``: the same with the front of ADAPT (qubit excitations).
- ``hea``: layers of rz sx rz sx rz on each qubit and of entanglers on all coupled pairs, one to six of them; angles
  trained by the objective from random ones.

The circuit of the lowest score is taken. `runs.csv` has a row for each run: errors of the mitigated, readout-inverted
and raw energies, the standard error, and with ``--experiments`` the root mean square error of so many simulated
experiments with 10^6 shots. `pairs.csv` has the paired differences by problem and device. One thread a run; runs that
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
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import complete, search, write_rows

import qas
from qas.circuits import Circuit, Gate
from qas.comparison import interval
from qas.devices import Device, load_device
from qas.mitigation.outcomes import Judge, Outcomes
from qas.problems import Problem
from qas.routing import routed
from qas.runs import envelope
from qas.vqe import Evaluation, Evaluator

PAIRS = [
    *(("lih-4", device, patch) for device in (
        "fake_torino", "fake_fez", "fake_marrakesh", "fake_brisbane", "fake_sherbrooke", "fake_mumbai",
    ) for patch in ("best", "median")),
    *((problem, device, "best") for problem in ("lih-6", "field-6") for device in (
        "fake_torino", "fake_marrakesh", "fake_sherbrooke",
    )),
    *(("h2o-8-bohr", device, "best") for device in ("fake_torino", "fake_marrakesh")),
]  # fmt: skip
CONTENDERS = ("device", "noise-free", "adapt", "hea", "begun")
LAYERS = 6
COLUMNS = (
    "problem", "device", "patch", "contender", "seed", "evaluations", "two_qubit_gates", "gates", "depth", "score",
    "mitigated", "sigma", "readout", "noisy", "noise_free", "rmse", "seconds",
)  # fmt: skip


class Task(NamedTuple):
    """One run."""

    problem: str
    device: str
    patch: str
    contender: str
    seed: int


class Setting(NamedTuple):
    """What a run is judged on."""

    problem: Problem
    device: Device
    evaluator: Evaluator
    evaluations: int
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 77])


class Found(NamedTuple):
    """A circuit on the device, and the device with its qubits in the order of the problem's."""

    circuit: Circuit
    device: Device
    score: float


def load_problem(name: str, seed: int) -> Problem:
    """A problem by its name; ``field-N`` is a Heisenberg chain in random fields, another one for each three seeds."""
    kind, _, size = name.partition("-")
    if kind != "field":
        return qas.load_problem(name)  # type: ignore[return-value]
    from qas.problems.spins import heisenberg

    fields = np.random.default_rng([int(size), seed % 3]).uniform(-2.0, 2.0, int(size))
    return heisenberg(int(size), field=fields.tolist(), periodic=False)


# ---------------------------------------------------------------------- contenders
def trained(setting: Setting, circuits: Iterable[tuple[Circuit, Device]], evaluations: int, **how: Any) -> Found:
    """The best of some circuits, their angles trained by the objective with equal shares of the evaluations."""
    waiting, left, found = list(circuits), evaluations, list[Found]()
    rng = setting.rng()
    for k, (circuit, device) in enumerate(waiting):
        share = left // (len(waiting) - k)
        judge = Evaluator(
            setting.problem, device.noise(), objective=setting.evaluator.objective, max_evaluations=max(1, share)
        )
        result: Evaluation = judge.evaluate(circuit, rng, **how)
        left -= result.evaluations
        found.append(Found(result.circuit, device, result.energy))
    return min(found, key=lambda each: each.score)


def searched(setting: Setting, agent: str, evaluations: int, **keywords: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return search(
            setting.problem, agent=agent, evaluations=evaluations, seed=setting.seed, report=False,
            out=Path(folder) / "run", **keywords,
        )  # fmt: skip


def on_device(setting: Setting) -> Found:
    run = searched(
        setting, "evolution", setting.evaluations, device=setting.device, objective=setting.evaluator.objective
    )
    return Found(run.best.circuit, setting.device, run.best.energy)


def from_noise_free(setting: Setting, agent: str) -> Found:
    options: dict[str, Any] = {}
    if agent == "evolution":
        options["grow"] = False
    elif setting.problem.molecule is not None:
        options["pool"] = "qeb"
    run = searched(setting, agent, setting.evaluations // 2, options=options)
    front = [result.circuit for result in envelope(run.front) if result.two_qubit_gates]
    made = [routed(circuit, setting.device) for circuit in front or [run.best.circuit]]
    there = [(each.circuit, setting.device.restricted(each.order)) for each in made]
    return trained(setting, there, setting.evaluations - run.evaluations, exact_start=True)


def begun_from_noise_free(setting: Setting) -> Found:
    options = {"grow": setting.problem.molecule is not None}
    before = searched(setting, "evolution", setting.evaluations // 2, options=options)
    run = searched(
        setting, "evolution", setting.evaluations - before.evaluations, device=setting.device, patch="line",
        objective=setting.evaluator.objective, start=before,
    )  # fmt: skip
    assert run.device is not None
    return Found(run.best.circuit, run.device, run.best.energy)


def layered(device: Device, layers: int, rng: np.random.Generator) -> Circuit:
    turn = ("rz", "sx", "rz", "sx", "rz")
    gates: list[Gate] = []
    for layer in range(layers + 1):
        for q in range(device.n_qubits):
            angles = iter(rng.uniform(-math.pi, math.pi, 3))
            gates += [Gate(name, (q,), (float(next(angles)),) if name == "rz" else ()) for name in turn]
        if layer < layers:
            pairs = {frozenset(pair): pair for pair in device.directions}
            gates += [Gate(device.entangler, pair) for pair in pairs.values()]
    return Circuit(device.n_qubits, gates)


def hardware_efficient(setting: Setting) -> Found:
    rng = setting.rng()
    circuits = [layered(setting.device, layers, rng) for layers in range(1, LAYERS + 1)]
    return trained(setting, ((c, setting.device) for c in circuits), setting.evaluations, exact_start=True)


def contend(setting: Setting, contender: str) -> Found:
    if contender == "device":
        return on_device(setting)
    if contender == "hea":
        return hardware_efficient(setting)
    if contender == "begun":
        return begun_from_noise_free(setting)
    return from_noise_free(setting, "adapt" if contender == "adapt" else "evolution")


# ---------------------------------------------------------------------- judging
def rms_error(found: Found, setting: Setting, experiments: int) -> float:
    """Root mean square error of simulated experiments, in the problem's unit."""
    objective = setting.evaluator.objective
    nodes = "-".join(f"{node:g}" for node in objective.nodes)
    errors = []
    for k in range(experiments):
        told = qas.evaluate(
            found.circuit, setting.problem, noise=found.device.noise(), shots=objective.shots, seed=k,
            mitigate=f"readout,zne:fit={objective.fit},nodes={nodes}",
        )  # fmt: skip
        errors.append(told.mitigated.energy - setting.problem.exact)
    return float(np.sqrt(np.mean(np.square(errors))))


def run(task: Task, evaluations: int, objective: str, experiments: int) -> dict[str, Any]:
    began = time.perf_counter()
    problem = load_problem(task.problem, task.seed)
    device = load_device(task.device).patch(problem.n_qubits, "line", task.patch)
    evaluator = Evaluator(problem, device.noise(), objective=objective)
    setting = Setting(problem, device, evaluator, evaluations, task.seed)
    found = contend(setting, task.contender)
    judge = Evaluator(problem, found.device.noise(), objective=objective)
    engine = judge.engine_under_noise
    assert engine is not None
    told: Outcomes = Judge(problem, engine, judge.objective)(found.circuit)
    errors = {name: problem.error(getattr(told, name)) for name in ("mitigated", "readout", "noisy")}
    return task._asdict() | {
        "evaluations": evaluations,
        "two_qubit_gates": found.circuit.two_qubit_gates,
        "gates": len(found.circuit),
        "depth": found.circuit.depth,
        "score": f"{problem.error(judge.energy(found.circuit)):.6g}",
        **{name: f"{error:.6g}" for name, error in errors.items()},
        "sigma": f"{told.sigma:.6g}",
        "noise_free": f"{problem.error(problem.energy(found.circuit)):.6g}",
        "rmse": f"{rms_error(found, setting, experiments):.6g}" if experiments else "",
        "seconds": f"{time.perf_counter() - began:.1f}",
    }


PAIRED = (
    "problem", "device", "patch", "rival", "seeds", "device_score", "rival_score", "ratio", "difference",
    "half_interval",
)  # fmt: skip


def paired(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of each problem, device and patch: score of the device's search and of each rival, mean difference, 95 %."""
    by_pair: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
    for row in rows:
        key = row["problem"], row["device"], row["patch"]
        by_pair.setdefault(key, {}).setdefault(row["contender"], {})[int(row["seed"])] = float(row["score"])
    for key, scores in by_pair.items():
        own = scores.get("device", {})
        for rival in CONTENDERS[1:]:
            seeds = sorted(own.keys() & scores.get(rival, {}).keys())
            if not seeds:
                continue
            ours, theirs = (np.array([of[s] for s in seeds]) for of in (own, scores[rival]))
            difference = ours - theirs
            yield {
                "problem": key[0], "device": key[1], "patch": key[2], "rival": rival, "seeds": len(seeds),
                "device_score": f"{ours.mean():.6g}", "rival_score": f"{theirs.mean():.6g}",
                "ratio": f"{ours.mean() / theirs.mean():.4g}", "difference": f"{difference.mean():.6g}",
                "half_interval": f"{interval(difference.tolist()):.6g}",
            }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=None, help="those of the built-in pairs only")
    parser.add_argument("--devices", nargs="+", default=None, help="those of the built-in pairs only")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--objective", default="zne")
    parser.add_argument("--evaluations", type=int, default=8000)
    parser.add_argument("--experiments", type=int, default=0, help="simulated experiments of each found circuit")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = [
        pair for pair in PAIRS
        if pair[0] in (arguments.problems or [pair[0]]) and pair[1] in (arguments.devices or [pair[1]])
    ]  # fmt: skip
    tasks = [
        Task(*pair, contender, seed)
        for seed, pair, contender in itertools.product(range(arguments.seeds), pairs, arguments.contenders)
    ]
    complete(
        arguments.out / "runs.csv", COLUMNS, tasks, run, jobs=arguments.jobs,
        arguments=(arguments.evaluations, arguments.objective, arguments.experiments),
        then=lambda rows: write_rows(arguments.out / "pairs.csv", PAIRED, list(paired(rows))),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
