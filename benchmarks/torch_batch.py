"""Circuits in a second of the torch engine against batch size, beside the compiled engine, with noise.

    python benchmarks/torch_batch.py --out results/speed/torch_batch.json

One architecture with thermal relaxation after every gate, two gates in five are CX, at random angles; the observable
is a transverse-field Ising Hamiltonian. Circuits in a second of energies, and of energies with all their gradients: a
batch in one call of the torch engine, on the CPU and on CUDA where it is there, in double and single precision; the
compiled engine does the same circuits one after the other, in the same process. Times are the shortest of a few calls.

All use as many threads as `--threads` says (1: what one core does). A batch that would take longer than ten times
`--seconds`, by what the smaller ones took, is left out.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import argparse
import os

_parser = argparse.ArgumentParser(add_help=False)
_parser.add_argument("--threads", type=int, default=1, help="threads of every library")
_threads = str(_parser.parse_known_args()[0].threads)
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = _threads

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import thermal_noise

import qas
from qas.simulators import make_simulator
from qas.simulators.torch_engine import TorchSimulator
from qas.testing import random_circuit

SIZES = ((4, 40), (6, 70), (8, 100), (10, 100))
BATCHES = (1, 16, 256, 4096)
ENERGIES, GRADIENTS = "energies", "gradients"


def shortest(call: Callable[[], Any], seconds: float) -> float:
    """Shortest time of a call, after a first one, within about `seconds`."""
    call()
    end, best = time.perf_counter() + seconds, float("inf")
    while True:
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        best = min(best, stop - start)
        if stop > end:
            return best


def engines() -> dict[str, TorchSimulator]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {
        f"{device}, {precision}": TorchSimulator(thermal_noise(), device=device, precision=precision)
        for device in devices
        for precision in ("double", "single")
    }


def measure(n_qubits: int, n_gates: int, batches: list[int], seconds: float, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, n_qubits])
    circuit = random_circuit(n_qubits, n_gates, rng, gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = qas.load_problem(f"tfim-{n_qubits}").hamiltonian
    compiled = make_simulator(thermal_noise())
    angles = rng.uniform(-np.pi, np.pi, size=(max(batches), circuit.n_angles))
    row = {"n_qubits": n_qubits, "n_gates": n_gates, "n_angles": circuit.n_angles}
    rates = {
        ENERGIES: 1 / shortest(lambda: compiled.expectation(circuit, hamiltonian, angles[0]), seconds),
        GRADIENTS: 1 / shortest(lambda: compiled.expectation_and_gradient(circuit, hamiltonian, angles[0]), seconds),
    }
    rows = [row | {"engine": "compiled", "batch": 1, "per_second": rates}]
    exact = compiled.expectation(circuit, hamiltonian, angles[0])
    for name, simulator in engines().items():
        gap = abs(simulator.expectation(circuit, hamiltonian, angles[0]) - exact)
        if gap > 1e-10 + simulator.objective(circuit, hamiltonian).resolution:
            raise SystemExit(f"the engines disagree by {gap:.2g}: nothing to compare")
        slowest = dict.fromkeys((ENERGIES, GRADIENTS), 0.0)
        for batch in batches:
            points = angles[:batch]

            def energies(simulator: TorchSimulator = simulator, points: np.ndarray = points) -> Any:
                with torch.no_grad():
                    return simulator.expectation_batch(circuit, hamiltonian, points).cpu()

            def gradients(simulator: TorchSimulator = simulator, points: np.ndarray = points) -> Any:
                return simulator.gradients_batch(circuit, hamiltonian, points)

            found: dict[str, float | None] = {}
            for kind, call in ((ENERGIES, energies), (GRADIENTS, gradients)):
                expected = batch * slowest[kind]
                found[kind] = None if expected > 10 * seconds else batch / shortest(call, seconds)
                if rate := found[kind]:
                    slowest[kind] = 1 / rate
            rows.append(row | {"engine": name, "batch": batch, "per_second": found})
    return rows


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """Circuits in a second: engines downwards, sizes and batches sideways."""
    sizes = sorted({(row["n_qubits"], row["n_gates"]) for row in rows})
    lines = [
        "| engine, batch | " + " | ".join(f"{n} qubits, {g} gates" for n, g in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for engine, batch in dict.fromkeys((row["engine"], row["batch"]) for row in rows):
        values = {r["n_qubits"]: r["per_second"][kind] for r in rows if (r["engine"], r["batch"]) == (engine, batch)}
        cells = [f"{values[n]:,.3g}" if values.get(n) else "–" for n, _ in sizes]
        what = "compiled, one by one" if engine == "compiled" else f"torch {engine}, {batch}"
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], parents=[_parser])
    parser.add_argument("--qubits", type=int, nargs="+", default=[n for n, _ in SIZES], choices=[n for n, _ in SIZES])
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="batch sizes, ascending")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for n_qubits, n_gates in SIZES:
        if n_qubits in args.qubits:
            rows += measure(n_qubits, n_gates, sorted(args.batches), args.seconds, args.seed)
    for kind in (ENERGIES, GRADIENTS):
        print(f"{kind}, circuits in a second\n\n{table(rows, kind)}\n")
    if args.out:
        machine = {
            "threads": args.threads,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        }
        command = "benchmarks/torch_batch.py " + " ".join(sys.argv[1:])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
