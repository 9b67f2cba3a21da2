"""Ways to extrapolate to no noise, compared on circuits that searches found.

    python benchmarks/extrapolation.py --problems lih-4 lih-6 heisenberg-6 --noises ibm-mumbai fake_torino \\
        fake_sherbrooke --seeds 5 --evaluations 6000 --shots 1000000 --out results/devices

Evolution searches each problem without noise (on the couplings of the noise model); of each front up to `--circuits`
circuits are taken, spread over their numbers of two-qubit gates. Flips are inverted in all arms, the noise is made
stronger by folding, and the shots of one experiment, all nodes together, are the same for all arms. Written to
`extrapolation.csv`, one row for a circuit and an arm: bias (the extrapolated exact values less the energy without noise
at the same angles), standard error (predicted from the state), and the root mean square error over `--experiments`
experiments; and to `extrapolation.md`: medians, and the mean of log10(RMSE / RMSE of the exponential) with its 95 %
interval (Student) over groups of one problem, noise and seed. Below zero an arm is better than the exponential.

Arms: none (no mitigation beyond readout); linear, Richardson, exponential and poly-exponential; learned: a network
trained for each circuit on near-Clifford circuits whose noisy values are simulated exactly, which costs no shots and
takes the noise model for the device; learned-measured: their values have the spread of so many shots as the circuit
itself, which a device would have to spend on each of the 300; learned-equal: the circuit and 40 training circuits share
the shots of one experiment, half for it and half for them.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qas
from qas.circuits import Circuit
from qas.comparison import interval
from qas.mitigation.counting import Counts, Flips, divided, mixed_error, outcome_probabilities, settings_of
from qas.mitigation.extrapolation import Extrapolation, make_extrapolation
from qas.mitigation.folding import folded
from qas.mitigation.learned import Examples, Learned, examples_of
from qas.mitigation.recipe import Mitigation
from qas.noise import NoiseModel
from qas.problems import Problem
from qas.simulators.pauli_transfer import PauliTransferSimulator

torch.set_num_threads(1)
FITS: dict[str, tuple[str, tuple[float, ...]]] = {
    "linear-1-3": ("linear", (1.0, 3.0)),
    "linear": ("linear", (1.0, 3.0, 5.0)),
    "richardson": ("richardson", (1.0, 3.0, 5.0)),
    "exponential-1-3": ("exponential", (1.0, 3.0)),
    "exponential": ("exponential", (1.0, 3.0, 5.0)),
    "poly-exponential": ("poly-exponential", (1.0, 3.0, 5.0)),
}
LEARNED = ("learned", "learned-measured", "learned-equal")
NODES = (1.0, 3.0, 5.0)
CONTROL = "exponential"
COLUMNS = (
    "problem", "noise", "seed", "two_qubit", "gates", "arm", "bias", "sigma", "rmse", "fallbacks", "seconds",
)  # fmt: skip


def noise_of(name: str, n_qubits: int) -> NoiseModel:
    """A preset, or the best patch of a device with its idle noise."""
    if name in qas.list_noise():
        return qas.load_noise(name)
    return qas.load_device(name).patch(n_qubits).noise()


def found_circuits(problem: Problem, noise: NoiseModel, seed: int, evaluations: int, most: int) -> Iterator[Circuit]:
    """Circuits of a noise-free front with at least one two-qubit gate, spread over their numbers of them."""
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            problem, agent="evolution", evaluations=evaluations, seed=seed, coupling=noise.coupling,
            out=Path(folder) / "run", report=False,
        )  # fmt: skip
    best: dict[int, Any] = {}
    for result in run.front:
        count = result.two_qubit_gates
        if count and (count not in best or result.error < best[count].error):
            best[count] = result
    counts = sorted(best)
    chosen = {counts[round(k * (len(counts) - 1) / max(1, most - 1))] for k in range(most)} if counts else set()
    yield from (best[count].circuit for count in sorted(chosen))


class Device:
    """Values of circuits of one problem under one noise: exact, and their standard errors from shots."""

    def __init__(self, problem: Problem, noise: NoiseModel) -> None:
        self.hamiltonian = problem.hamiltonian
        self.flips = noise.readout_flips(problem.n_qubits)
        self.simulator = PauliTransferSimulator(noise)
        self.exact = PauliTransferSimulator(replace(noise, readout={}))
        self.settings = settings_of([self.hamiltonian])

    def value(self, circuit: Circuit, scale: float) -> float:
        return self.exact.expectation(folded(circuit, scale), self.hamiltonian)

    def error(self, circuit: Circuit, scale: float, shots: int) -> float:
        """Standard error of the value with readout inverted."""
        vector = self.simulator.pauli_expectations(folded(circuit, scale))
        read = [outcome_probabilities(vector, setting.basis, self.flips) for setting in self.settings]
        counts = Counts(self.settings, read, divided(shots, [self.hamiltonian], self.settings))
        found = counts.estimates([self.hamiltonian], Flips.known(self.flips))
        return float(np.sqrt(found.covariance[0, 0]))


def train(device: Device, circuit: Circuit, arm: str, shots: int, rng: np.random.Generator) -> Learned:
    """The network of an arm."""
    count = 40 if arm == "learned-equal" else 300
    examples = examples_of(circuit, device.hamiltonian, NODES, device.value, rng, count)
    own = shots // 2 if arm == "learned-equal" else shots
    spread = mixed_error(device.hamiltonian, own // len(NODES))
    if arm != "learned":
        each = shots // 2 // count if arm == "learned-equal" else shots
        noise = mixed_error(device.hamiltonian, max(1, each // len(NODES)))
        examples = Examples(examples.values + noise * rng.normal(size=examples.values.shape), examples.exact)
    made = Learned().train(NODES, examples, limit=device.hamiltonian.identity, spread=spread, seed=0)
    assert isinstance(made, Learned)
    return made


def judge(
    device: Device,
    circuit: Circuit,
    way: Extrapolation,
    nodes: tuple[float, ...],
    shots: int,
    truth: float,
    experiments: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Bias, standard error and root mean square error of a way."""
    share = Mitigation(nodes=nodes, extrapolation=make_extrapolation("linear")).shares(nodes, shots)
    values = np.array([device.value(circuit, node) for node in nodes])
    errors = np.array([device.error(circuit, node, number) for node, number in zip(nodes, share, strict=True)])
    apply = partial(way, nodes, limit=device.hamiltonian.identity)
    found = apply(values, errors)
    drawn = [apply(values + errors * rng.normal(size=len(nodes))) for _ in range(experiments)]
    off = np.array([each.value for each in drawn]) - truth
    return {
        "bias": found.value - truth,
        "sigma": found.standard_error,
        "rmse": float(np.sqrt(np.mean(off**2))),
        "fallbacks": sum(bool(each.fallback) for each in drawn),
    }


def rows_of(problem: Problem, noise_name: str, seed: int, words: argparse.Namespace) -> Iterator[dict[str, Any]]:
    noise = noise_of(noise_name, problem.n_qubits)
    device = Device(problem, noise)
    for k, circuit in enumerate(found_circuits(problem, noise, seed, words.evaluations, words.circuits)):
        truth = qas.evaluate(circuit, problem).energy
        raw, error = device.value(circuit, 1.0) - truth, device.error(circuit, 1.0, words.shots)
        about = {"problem": problem.name, "noise": noise_name, "seed": seed, "two_qubit": circuit.two_qubit_gates}
        about["gates"] = circuit.n_gates
        none = {"bias": raw, "sigma": error, "rmse": float(np.hypot(raw, error)), "fallbacks": 0, "seconds": 0.0}
        yield about | {"arm": "none"} | none
        for arm in (*FITS, *LEARNED):
            rng = np.random.default_rng([seed, k])
            start = time.perf_counter()
            shots = words.shots // 2 if arm == "learned-equal" else words.shots
            way: Extrapolation
            if arm in LEARNED:
                way, nodes = train(device, circuit, arm, words.shots, rng), NODES
            else:
                way, nodes = make_extrapolation(FITS[arm][0]), FITS[arm][1]
            found = judge(device, circuit, way, nodes, shots, truth, words.experiments, rng)
            yield about | {"arm": arm} | found | {"seconds": round(time.perf_counter() - start, 2)}


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over circuits, and each arm against the control."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    by_arm = {arm: {key(row): row for row in rows if row["arm"] == arm} for arm in arms}
    circuits = [k for k in by_arm[CONTROL] if all(k in by_arm[arm] for arm in arms)]
    head = ("arm", "median abs. bias (1e-3)", "median standard error", "median RMSE", "log10(RMSE / control)", "groups")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm in arms:
        own = [by_arm[arm][k] for k in circuits]
        bias, sigma, rmse = (1e3 * statistics.median(abs(float(r[c])) for r in own) for c in ("bias", "sigma", "rmse"))
        groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for k in circuits:
            groups[k[:3]].append(float(np.log10(float(by_arm[arm][k]["rmse"]) / float(by_arm[CONTROL][k]["rmse"]))))
        means = [statistics.fmean(values) for values in groups.values()]
        compared = "control" if arm == CONTROL else f"{statistics.fmean(means):+.3f} ± {interval(means):.3f}"
        lines.append(f"| {arm} | {bias:.2f} | {sigma:.2f} | {rmse:.2f} | {compared} | {len(groups)} |")
    return "\n".join([*lines, "", f"{len(circuits)} circuits."])


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("problem", "noise", "seed", "two_qubit", "gates"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["lih-4"])
    parser.add_argument("--noises", nargs="+", default=["ibm-mumbai", "fake_torino"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=6000)
    parser.add_argument("--circuits", type=int, default=4, help="of each front")
    parser.add_argument("--shots", type=int, default=1_000_000)
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/devices"))
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    path = words.out / "extrapolation.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(row["problem"], row["noise"], row["seed"]) for row in rows}
    for name in words.problems:
        for noise in words.noises:
            for seed in range(words.seeds):
                if (name, noise, str(seed)) in done:
                    continue
                rows += list(rows_of(qas.load_problem(name), noise, seed, words))
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                print(name, noise, seed, len(rows), flush=True)
    command = f"python benchmarks/extrapolation.py {shlex.join(sys.argv[1:])}"
    (words.out / "extrapolation.md").write_text(f"`{command}`\n\n{table(rows)}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
