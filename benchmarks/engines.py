"""Speed of the noisy engine: energies against Aer's density matrix, gradients against energies, gates against memory.

    python benchmarks/engines.py --check --out results/speed/engines.json

Both sides run in one process, in turn, with circuits, observables and noise built beforehand; a time is the median of
many single calls. Ours runs on one thread up to 8 noisy qubits and on all cores beyond (`OMP_NUM_THREADS=1`: on one),
Aer on all it takes (they do not spin between its calls). The noise is thermal relaxation after every gate, the
observable a transverse-field Ising Hamiltonian, two gates in five are CX.

The first table compares whole calls, as a user of each library sees them: ours is `Simulator.expectation` on a circuit
used before (its program is remembered, as while angles are optimized), Aer's is `AerSimulator.run(...).result()` on a
transpiled circuit, shots=1. "faster" is the ratio of these two. The second table says where the time goes:

* fresh circuit: our whole call on a `Circuit` made from its gates within the call, as for a new architecture, so that
  its program is built too; what the simulator has worked out for single gates with their noise stays;
* 50 in a job: one `run` of 50 circuits of Aer that differ in their angles, divided by 50 (up to 6 qubits);
* inside Aer: the time that Aer reports for simulating the one circuit of a whole call (`time_taken` of its result),
  without assembling the job, attaching the noise and returning the result.

The third table is a gate's time in passes: one pass multiplies the same 4**n numbers by a constant, in place. Single
gates, each as a block of its own: CX with noise on every pair of digits, a one-qubit gate with noise on every digit;
and the first table's circuits, where one-qubit gates join the two-qubit gates before them: energy ÷ gates ÷ pass.

With --large: 12 qubits, 100 gates, energy, gradient and the memory of the gradient's states.
"""

from __future__ import annotations

import os

# Threads of Aer that spin while they wait for its next call would slow down ours in between.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numba
import numpy as np
from timing import T1, T2, TIME_ONE, TIME_TWO, medians, thermal_noise

import qas
from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.simulators import _ptm_kernels as kernels
from qas.simulators import _ptm_program as programs
from qas.simulators import make_simulator
from qas.simulators._entry import aligned
from qas.simulators._lanes import pointer
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.testing import random_circuit

SIZES = ((4, 40), (6, 70), (8, 100), (10, 100))
REACH = {4: 450.0, 6: 200.0, 8: 80.0, 10: 30.0}
GRADIENT_REACH = 3.0
PASSES_MEAN, PASSES_WORST, PASSES_FUSED = 1.5, 2.5, 0.8
JOB = 50
JOB_QUBITS = 6
"""Largest register for jobs of many circuits; beyond it assembling a job takes no time beside simulating it."""


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
    return AerSimulator(**options)


def measure(n_qubits: int, n_gates: int, seconds: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n_qubits])
    circuit = random_circuit(n_qubits, n_gates, rng, gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = qas.load_problem(f"tfim-{n_qubits}").hamiltonian
    noisy, pure = make_simulator(thermal_noise()), make_simulator()
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
    if n_qubits <= JOB_QUBITS:
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


@numba.njit
def _scaled(times: int, vector: np.ndarray) -> None:
    for _ in range(times):
        for i in range(len(vector)):
            vector[i] *= 1.0000001


@numba.njit
def _blocks(times, vector, tiles, digits, core, constants, low_kind, high_kind, rows, buffer):  # type: ignore[no-untyped-def]
    low, high, lane, other, new_low, new_high = digits
    v, c, k = pointer(vector), pointer(core), pointer(constants)
    for _ in range(times):
        kernels.forward(
            v, v, 0, tiles, low, high, lane, other, new_low, new_high, c, k, k, low_kind, high_kind, pointer(rows),
            pointer(buffer),
        )  # fmt: skip


def _moves(low: int, high: int) -> tuple[int, int, int, int, int, int]:
    """Digits of a block before, its lanes, and its digits after."""
    others = [d for d in range(2, 5) if d not in (low, high)]
    if low >= 2:
        return low, high, 0, 1, low, high
    if high == 1:
        return low, high, others[0], others[1], others[0], others[1]
    return low, high, 1 - low, others[0], others[0], high


def passes(n_qubits: int, seconds: float) -> dict[str, Any]:
    """Time of single gates in passes, at every pair of digits; the fastest of many runs of each."""
    simulator = PauliTransferSimulator(thermal_noise())
    vector, buffer = (aligned(size, np.dtype(np.float64)) for size in (4**n_qubits, kernels.BUFFER))
    vector[:] = 1.0
    program = simulator.compiled(Circuit(2, [("cx", (0, 1))])).program
    op = int(program.steps[4, programs.OPERATION])
    core = simulator.library.whole[op, programs.CORE :].copy()
    constants = np.zeros(kernels.CONSTANTS)
    constants[kernels.FACTORS :] = simulator.library.real[op, programs.FACTOR : programs.FACTOR + 16]
    constants[[1, 6, 11, 13, 18, 23]] = 0.99
    constants[[8, 20]] = 0.01
    rows = np.zeros(64, np.int64)
    tiles = 4 ** (n_qubits - 4)
    times = max(1, 4 ** (9 - n_qubits))
    calls: dict[str, Callable[[], Any]] = {"pass": lambda: _scaled(times, vector)}
    straight = np.arange(16)
    for low, high in combinations(range(n_qubits), 2):
        for name, which, kind in (("cx", core, 0), ("one", straight, 1)):
            if name == "one" and high != (low + 1 if low < n_qubits - 1 else low):
                continue
            arguments = (tiles, _moves(low, high), which, constants, kind, 0, rows, buffer)
            calls[f"{name} {low} {high}"] = lambda a=arguments: _blocks(times, vector, *a)  # type: ignore[misc]
    found = dict.fromkeys(calls, np.inf)
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name] = min(found[name], (time.perf_counter() - start) / times)
        vector[:] = 1.0
    unit = found.pop("pass")
    single = {name: value / unit for name, value in found.items()}
    one = [value for name, value in single.items() if name.startswith("one")]
    two = [value for name, value in single.items() if name.startswith("cx")]
    return {
        "n_qubits": n_qubits,
        "pass_seconds": unit,
        "one_qubit": [float(np.mean(one)), max(one)],
        "cx": [float(np.mean(two)), max(two)],
        "all": [float(np.mean(one + two)), max(one + two)],
    }


def passes_table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| qubits | one pass | one-qubit gate: mean, worst | CX: mean, worst | a gate of the random circuit |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        one, two = row["one_qubit"], row["cx"]
        lines.append(
            f"| {row['n_qubits']} | {1e6 * row['pass_seconds']:.1f} µs | {one[0]:.2f}, {one[1]:.2f} "
            f"| {two[0]:.2f}, {two[1]:.2f} | {row['fused']:.2f} |"
        )
    return "\n".join(lines)


def large(seed: int) -> dict[str, Any]:
    """12 qubits, 100 gates: one call of each."""
    circuit = random_circuit(12, 100, np.random.default_rng([seed, 12]), gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = qas.load_problem("tfim-12").hamiltonian
    simulator = PauliTransferSimulator(thermal_noise())
    start = time.perf_counter()
    energy = simulator.expectation(circuit, hamiltonian)
    middle = time.perf_counter()
    same, _ = simulator.expectation_and_gradient(circuit, hamiltonian)
    end = time.perf_counter()
    header = simulator.compiled(circuit).program.steps[0]
    megabytes = 8e-6 * float(header[programs.HOME_SIZE] + header[programs.KET_SIZE] + header[programs.SLOTS_SIZE])
    assert abs(energy - same) < 1e-10
    return {"energy_seconds": middle - start, "gradient_seconds": end - middle, "gradient_megabytes": megabytes}


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
            known = row["seconds"]
            times = " | ".join(f"{1e6 * known[name]:.1f} µs" if name in known else "–" for name in names)
            lines.append(f"| {row['n_qubits']} qubits, {row['n_gates']} gates | {noise} | {times} |")
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]], gates: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in gates:
        n, (mean, worst) = row["n_qubits"], row["all"]
        if mean > PASSES_MEAN or worst > PASSES_WORST:
            found.append(
                f"{n} qubits: {mean:.2f} passes a gate, worst {worst:.2f}, wanted {PASSES_MEAN}, {PASSES_WORST}"
            )
        if row["fused"] > PASSES_FUSED:
            found.append(f"{n} qubits: {row['fused']:.2f} passes a gate in circuits, wanted {PASSES_FUSED}")
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
    parser.add_argument("--large", action="store_true", help="12 qubits too: about a minute")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a number to reach is missed")
    args = parser.parse_args()
    rows = [measure(n, gates, args.seconds, args.seed) for n, gates in SIZES]
    gates = [passes(n, args.seconds) for n in (8, 10)]
    for found in gates:
        (row,) = (row for row in rows if row["n_qubits"] == found["n_qubits"])
        found["fused"] = row["seconds"]["noisy"] / row["n_gates"] / found["pass_seconds"]
    print(table(rows), parts_table(rows), passes_table(gates), sep="\n\n")
    result = {"command": " ".join(sys.argv), "rows": rows, "passes": gates}
    if args.large:
        result["large"] = large(args.seed)
        print("\n12 qubits, 100 gates:", result["large"])
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    failures = missed(rows, gates)
    for line in failures:
        print("missed:", line, file=sys.stderr)
    return 1 if args.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
