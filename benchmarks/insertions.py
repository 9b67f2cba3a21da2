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
import functools
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import in_turn, thermal_noise

import qas
from qas.circuits import Circuit, Gate
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import make_simulator
from qas.simulators.insertions import pauli_generators
from qas.testing import random_circuit, random_hamiltonian

GATES = 40
TERMS = {4: 100, 6: 118, 8: 193}
POOL_REACH = {"slopes": 2e-3, "gains": 5e-3}
"""Seconds for 200 excitations appended to a circuit that keeps the number of electrons, LiH on 12 qubits."""
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


def excitation(n_qubits: int, create: tuple[int, ...], destroy: tuple[int, ...]) -> Hamiltonian:
    """i(T - T†) of qubits excited from `destroy` to `create`, with Jordan-Wigner's chains of Z between them."""
    chain = [z for pair in (create, destroy) if len(pair) == 2 for z in range(min(pair) + 1, max(pair))]
    chain += [] if len(create) == 2 else range(min(create + destroy) + 1, max(create + destroy))
    terms = {}
    for letters in itertools.product("XY", repeat=2 * len(create)):
        weight = np.prod(
            [
                1 if letter == "X" else -1j if q in create else 1j
                for q, letter in zip(create + destroy, letters, strict=True)
            ]
        )
        if abs(weight.imag) > 0.5:
            string = dict(zip(create + destroy, letters, strict=True))
            for q in chain:
                string[q] = {"I": "Z", "Z": "I"}.get(string.get(q, "I"), string.get(q, "I"))
            terms["".join(string.get(q, "I") for q in reversed(range(n_qubits)))] = -weight.imag * 2.0 ** (
                1 - len(letters)
            )
    return Hamiltonian(terms)


def measure_pool(seconds: float, seed: int) -> dict[str, Any]:
    """All single and double excitations of LiH's Hartree-Fock determinant, at the end of two circuits."""
    hamiltonian = qas.molecule("Li 0 0 0; H 0 0 1.546", basis="sto-3g", mapping="jordan-wigner").hamiltonian
    occupied, rng = [0, 1, 6, 7], np.random.default_rng(seed)
    free = [q for q in range(12) if q not in occupied]
    pool = [excitation(12, (a,), (i,)) for i in occupied for a in free]
    pairs = itertools.product(itertools.combinations(free, 2), itertools.combinations(occupied, 2))
    pool += [excitation(12, create, destroy) for create, destroy in pairs]
    start = [Gate("x", (q,)) for q in occupied]
    turns = [(tuple(map(int, rng.choice(12, 2, replace=False))), (float(rng.normal()),)) for _ in range(20)]
    conserving = Circuit(12, [*start, *(Gate(name, pair, turn) for pair, turn in turns for name in ("rxx", "ryy"))])
    circuits = {"conserving": conserving, "layered": layered(12, rng)}
    simulator, calls = make_simulator(), {}
    for name, circuit in circuits.items():
        end = [len(circuit)]
        calls[f"{name} gradient"] = functools.partial(simulator.expectation_and_gradient, circuit, hamiltonian)
        calls[f"{name} slopes"] = functools.partial(
            simulator.insertion_gradients, circuit, hamiltonian, pool, positions=end
        )
        calls[f"{name} gains"] = functools.partial(simulator.append_gains, circuit, hamiltonian, pool)
    return {"generators": len(pool), "terms": len(hamiltonian), "seconds": quartiles(calls, seconds)}


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


def missed(rows: list[dict[str, Any]], pool: dict[str, Any]) -> list[str]:
    found = []
    for name, most in POOL_REACH.items():
        seconds = pool["seconds"][f"conserving {name}"]
        if seconds > most:
            found.append(f"excitations: {name} take {1e3 * seconds:.1f} ms, wanted at most {1e3 * most:.1f} ms")
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
    pool = measure_pool(args.seconds, args.seed)
    print(f"\n{pool['generators']} excitations at the end of a circuit of 12 qubits, {pool['terms']} terms:")
    for name, value in pool["seconds"].items():
        print(f"  {name}: {1e3 * value:.2f} ms")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows, "pool": pool}, indent=1) + "\n")
    failures = missed(rows, pool)
    for line in failures:
        print("missed:", line, file=sys.stderr)
    return 1 if args.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
