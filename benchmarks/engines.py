"""Speed of the engines: noisy energies against Aer's density matrix, gradients against energies, state vector.

    python benchmarks/engines.py --check --out results/speed/engines.json

Both sides run in one process, in turn, on one thread, with circuits, observables and noise built beforehand; a time is
the median of many single calls. The noise is thermal relaxation after every gate, the observable a transverse-field
Ising Hamiltonian, two gates in five are CX.

The first table compares whole calls, as a user of each library sees them: ours is `Simulator.expectation` on a circuit
used before (its program is remembered, as while angles are optimized), Aer's is `AerSimulator.run(...).result()` on a
transpiled circuit, shots=1. "faster" is the ratio of these two. The second table says where the time goes:

* fresh circuit: our whole call on a `Circuit` made from its gates within the call, as for a new architecture, so that
  its program is built too; what the simulator has worked out for single gates with their noise stays;
* 50 in a job: one `run` of 50 circuits of Aer that differ in their angles, divided by 50;
* inside Aer: the time that Aer reports for simulating the one circuit of a whole call (`time_taken` of its result),
  without assembling the job, attaching the noise and returning the result.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import qas
from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.noise import ONE_QUBIT_GATES, TWO_QUBIT_GATES, NoiseModel, thermal_relaxation
from qas.simulators import make_simulator
from qas.testing import random_circuit

SIZES = ((4, 40), (6, 70), (8, 100))
REACH = {4: 100.0, 6: 30.0, 8: 5.0}
GRADIENT_REACH = 5.0
T1, T2, TIME_ONE, TIME_TWO = 120e-6, 100e-6, 35e-9, 400e-9
JOB = 50


def our_noise() -> NoiseModel:
    one, two = thermal_relaxation(T1, T2, TIME_ONE), thermal_relaxation(T1, T2, TIME_TWO)
    return NoiseModel("thermal").add(one, ONE_QUBIT_GATES).add(two, TWO_QUBIT_GATES)


class AerEnergy:
    """One call of Aer, everything that can be prepared prepared.

    Attributes:
        inside: seconds that Aer reports for the circuit of each single call so far.
    """

    def __init__(self, circuit: Circuit, hamiltonian: Hamiltonian, *, noisy: bool, seed: int) -> None:
        from qiskit import transpile

        rng = np.random.default_rng(seed)
        others = [circuit.with_angles(rng.uniform(-np.pi, np.pi, size=circuit.n_angles)) for _ in range(JOB - 1)]
        self.backend = aer_backend(noisy=noisy)
        self.quantum = []
        for one in (circuit, *others):
            quantum = one.to_qiskit()
            quantum.save_expectation_value(hamiltonian.to_qiskit(), list(range(circuit.n_qubits)), label="energy")
            self.quantum.append(transpile(quantum, self.backend, optimization_level=0))
        self.inside: list[float] = []

    def __call__(self) -> float:
        result = self.backend.run(self.quantum[0], shots=1).result()
        energy = float(result.data(0)["energy"])
        self.inside.append(result.results[0].time_taken)
        return energy

    def job(self) -> list[float]:
        """The energies of all circuits, in one job."""
        result = self.backend.run(self.quantum, shots=1).result()
        return [float(result.data(k)["energy"]) for k in range(JOB)]


def aer_backend(*, noisy: bool) -> Any:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel as AerNoiseModel
    from qiskit_aer.noise import thermal_relaxation_error

    options: dict[str, Any] = {"method": "statevector"}
    if noisy:
        model = AerNoiseModel()
        two = thermal_relaxation_error(T1, T2, TIME_TWO)
        model.add_all_qubit_quantum_error(thermal_relaxation_error(T1, T2, TIME_ONE), ["rx", "ry", "rz"])
        model.add_all_qubit_quantum_error(two.tensor(two), ["cx"])
        options = {"method": "density_matrix", "noise_model": model}
    return AerSimulator(max_parallel_threads=1, **options)


def medians(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of one call of each, made in turn; short calls are made several times in each turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in calls.items():
            turn = time.perf_counter()
            for _ in range(20):
                start = time.perf_counter()
                call()
                stop = time.perf_counter()
                times[name].append(stop - start)
                if stop - turn > 0.005:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def measure(n_qubits: int, n_gates: int, seconds: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n_qubits])
    circuit = random_circuit(n_qubits, n_gates, rng, gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = qas.load_problem(f"tfim-{n_qubits}").hamiltonian
    noisy, pure = make_simulator(our_noise()), make_simulator()
    aer, aer_pure = (AerEnergy(circuit, hamiltonian, noisy=flag, seed=seed) for flag in (True, False))
    for ours, theirs in ((noisy, aer), (pure, aer_pure)):
        gap = abs(ours.expectation(circuit, hamiltonian) - theirs())
        if gap > 1e-8:
            raise SystemExit(f"the engines disagree by {gap:.2g}: nothing to compare")
    angles = np.array(circuit.angles)
    row = medians(
        {
            "noisy": lambda: noisy.expectation(circuit, hamiltonian, angles),
            "noisy_gradient": lambda: noisy.expectation_and_gradient(circuit, hamiltonian, angles),
            "pure": lambda: pure.expectation(circuit, hamiltonian, angles),
            "pure_gradient": lambda: pure.expectation_and_gradient(circuit, hamiltonian, angles),
            "noisy_fresh": lambda: noisy.expectation(Circuit(circuit.n_qubits, circuit.gates), hamiltonian),
            "pure_fresh": lambda: pure.expectation(Circuit(circuit.n_qubits, circuit.gates), hamiltonian),
            "aer_noisy": aer,
            "aer_pure": aer_pure,
        },
        seconds,
    )
    jobs = medians({"aer_noisy_job": aer.job, "aer_pure_job": aer_pure.job}, seconds / 4)
    row |= {name: value / JOB for name, value in jobs.items()}
    row |= {"aer_noisy_inside": statistics.median(aer.inside), "aer_pure_inside": statistics.median(aer_pure.inside)}
    return {
        "n_qubits": n_qubits,
        "n_gates": n_gates,
        "n_angles": circuit.n_angles,
        "seconds": row,
        "noisy_speedup": row["aer_noisy"] / row["noisy"],
        "noisy_gradient_ratio": row["noisy_gradient"] / row["noisy"],
        "pure_speedup": row["aer_pure"] / row["pure"],
        "pure_gradient_ratio": row["pure_gradient"] / row["pure"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| circuit | noisy energy | Aer | faster | with gradient | ÷ energy | pure energy | Aer | faster | ÷ energy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        t = {name: f"{1e6 * value:.1f} µs" for name, value in row["seconds"].items()}
        lines.append(
            f"| {row['n_qubits']} qubits, {row['n_gates']} gates | {t['noisy']} | {t['aer_noisy']} "
            f"| {row['noisy_speedup']:.0f}× | {t['noisy_gradient']} | {row['noisy_gradient_ratio']:.1f} "
            f"| {t['pure']} | {t['aer_pure']} | {row['pure_speedup']:.0f}× | {row['pure_gradient_ratio']:.1f} |"
        )
    return "\n".join(lines)


def parts_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| circuit | noise | our whole call | fresh circuit | Aer's whole call | 50 in a job | inside Aer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for kind, noise in (("noisy", "thermal"), ("pure", "none")):
            names = (kind, f"{kind}_fresh", f"aer_{kind}", f"aer_{kind}_job", f"aer_{kind}_inside")
            times = " | ".join(f"{1e6 * row['seconds'][name]:.1f} µs" for name in names)
            lines.append(f"| {row['n_qubits']} qubits, {row['n_gates']} gates | {noise} | {times} |")
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        n = row["n_qubits"]
        if row["noisy_speedup"] < REACH[n]:
            found.append(f"{n} qubits: {row['noisy_speedup']:.1f}× Aer, wanted {REACH[n]:g}×")
        for kind in ("noisy", "pure"):
            if row[f"{kind}_gradient_ratio"] > GRADIENT_REACH:
                ratio = row[f"{kind}_gradient_ratio"]
                found.append(f"{n} qubits, {kind}: gradient ÷ energy is {ratio:.2f}, wanted at most {GRADIENT_REACH:g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a number to reach is missed")
    args = parser.parse_args()
    rows = [measure(n, gates, args.seconds, args.seed) for n, gates in SIZES]
    print(table(rows), parts_table(rows), sep="\n\n")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
    failures = missed(rows)
    for line in failures:
        print("missed:", line, file=sys.stderr)
    return 1 if args.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
