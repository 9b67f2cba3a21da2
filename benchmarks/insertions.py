"""Speed of insertion gradients: gains of all one- and two-qubit rotations at the end, slopes at all positions.

    python benchmarks/insertions.py --check --out results/speed/insertions.json

One thread. The circuits are random, of rx, ry, rz and two CX in five gates, or layered: rotations of all qubits, then a
chain of CX. The observable has random strings, as many as a molecule of that size; the noise is thermal relaxation
after every gate. Gains of appended rotations include the run of the circuit. A sweep gives the slopes of all one- and
two-qubit strings at every position of the circuit; its time is divided by that of one energy with its gradient. All
calls are made in turn, so a busy machine slows them alike; a time is the lower quartile of many single calls.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import in_turn, thermal_noise

from qas.circuits import Circuit, Gate
from qas.noise import NoiseModel
from qas.simulators import make_simulator
from qas.simulators.insertions import pauli_generators
from qas.testing import random_circuit, random_hamiltonian

GATES = 40
TERMS = {4: 100, 6: 118, 8: 193}
GAINS_REACH = {4: 33e-6, 6: 111e-6, 8: 600e-6}
"""Seconds for the gains of all one- and two-qubit rotations after a noise-free circuit."""
SWEEP_REACH = {8: 5.0}
"""Time of a sweep divided by that of energy and gradient."""


def layered(n_qubits: int, rng: np.random.Generator) -> Circuit:
    """Layers of rotations and a chain of CX, cut after `GATES` gates."""
    gates: list[Gate] = []
    while len(gates) < GATES:
        axis = ("rx", "ry", "rz")[rng.integers(3)]
        gates += [Gate(axis, (q,), (float(rng.uniform(-3, 3)),)) for q in range(n_qubits)]
        gates += [Gate("cx", (q, q + 1)) for q in range(n_qubits - 1)]
    return Circuit(n_qubits, gates[:GATES])


def quartiles(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Lower quartile of the seconds of one call of each, made in turn."""
    return {name: float(np.quantile(values, 0.25)) for name, values in in_turn(calls, seconds).items()}


def measure(n_qubits: int, kind: str, noise: NoiseModel | None, seconds: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n_qubits])
    circuit = layered(n_qubits, rng)
    if kind == "random":
        circuit = random_circuit(n_qubits, GATES, rng, gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = random_hamiltonian(n_qubits, TERMS[n_qubits], rng)
    simulator = make_simulator(noise)
    row = quartiles(
        {
            "energy": lambda: simulator.expectation(circuit, hamiltonian),
            "gradient": lambda: simulator.expectation_and_gradient(circuit, hamiltonian),
            "gains": lambda: simulator.append_gains(circuit, hamiltonian),
            "sweep": lambda: simulator.insertion_gradients(circuit, hamiltonian),
        },
        seconds,
    )
    return {
        "n_qubits": n_qubits,
        "circuit": kind,
        "noisy": noise is not None,
        "generators": len(pauli_generators(n_qubits)),
        "seconds": row,
        "sweep_ratio": row["sweep"] / row["gradient"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    head = (
        "qubits",
        "strings",
        "circuit",
        "noise",
        "energy",
        "with gradient",
        "gains at the end",
        "all positions",
        "÷ gradient",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        times = " | ".join(f"{1e6 * row['seconds'][name]:.1f} µs" for name in ("energy", "gradient", "gains", "sweep"))
        noise = "thermal" if row["noisy"] else "none"
        size = f"{row['n_qubits']} | {row['generators']}"
        lines.append(f"| {size} | {row['circuit']} | {noise} | {times} | {row['sweep_ratio']:.1f} |")
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        n, gains = row["n_qubits"], row["seconds"]["gains"]
        where = f"{n} qubits, {row['circuit']}, {'thermal noise' if row['noisy'] else 'no noise'}"
        if not row["noisy"] and gains > GAINS_REACH[n]:
            found.append(f"{where}: gains take {1e6 * gains:.0f} µs, wanted at most {1e6 * GAINS_REACH[n]:.0f} µs")
        if row["sweep_ratio"] > SWEEP_REACH.get(n, np.inf):
            found.append(f"{where}: sweep ÷ gradient is {row['sweep_ratio']:.1f}, wanted at most {SWEEP_REACH[n]:g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a number to reach is missed")
    args = parser.parse_args()
    rows = [
        measure(n, kind, noise, args.seconds, args.seed)
        for noise in (None, thermal_noise())
        for n in TERMS
        for kind in ("random", "layered")
    ]
    print(table(rows))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
    failures = missed(rows)
    for line in failures:
        print("missed:", line, file=sys.stderr)
    return 1 if args.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
