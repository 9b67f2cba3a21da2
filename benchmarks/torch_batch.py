"""Circuits in a second of the torch engine against batch size, beside the compiled engines, with noise and without.

    python benchmarks/torch_batch.py --out results/speed/torch_batch.json
    python benchmarks/torch_batch.py --devices cuda --threads 16 --out results/speed/torch_batch_cuda.json

One architecture, two gates in five are CX, at random angles; noise is thermal relaxation after every gate, the
observable a transverse-field Ising Hamiltonian. Circuits in a second of energies, and of energies with all their
gradients: a batch in one call of the torch engine, in double and single precision; the compiled engine does the same
circuits one after the other in one thread, and with `--threads` in as many, which share one interpreter: on small
registers that is their limit, and as many processes do that many times what one thread does. Times are the shortest of
a few calls. On CUDA also the most memory that a call took, and the kernels that it launched.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import launches, thermal_noise

import qas
from qas.circuits import Circuit
from qas.hamiltonians import Hamiltonian
from qas.simulators import make_simulator
from qas.simulators.torch_engine import TorchSimulator
from qas.simulators.workers import in_order
from qas.testing import random_circuit

SIZES = {4: 40, 6: 70, 8: 100, 10: 100, 12: 100}
"""Gates of each number of qubits."""
BATCHES = (1, 16, 256, 4096, 65536)
KINDS = ("energies", "gradients")


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


def compiled_rates(
    noise: Any, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray, seconds: float, threads: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Circuits in a second of the compiled engine, in one thread and in `threads`."""
    engine = make_simulator(noise)

    def energy(row: np.ndarray) -> float:
        return engine.expectation(circuit, hamiltonian, row)

    def gradient(row: np.ndarray) -> Any:
        return engine.expectation_and_gradient(circuit, hamiltonian, row)

    calls = dict(zip(KINDS, (energy, gradient), strict=True))
    alone = {kind: 1 / shortest(lambda call=call: call(angles[0]), seconds) for kind, call in calls.items()}
    yield "compiled, one by one", alone
    if threads > 1:
        found = {}
        for kind, call in calls.items():
            rows = angles[: max(threads, min(len(angles), int(seconds * threads * alone[kind] / 2)))]
            found[kind] = len(rows) / shortest(
                lambda call=call, rows=rows: list(in_order(call, rows, threads)), seconds
            )
        yield f"compiled, {threads} threads", found


def batch_call(
    simulator: TorchSimulator, circuit: Circuit, hamiltonian: Hamiltonian, points: np.ndarray, kind: str
) -> Callable[[], Any]:
    def energies() -> Any:
        with torch.no_grad():
            return simulator.expectation_batch(circuit, hamiltonian, points).cpu()

    return energies if kind == "energies" else lambda: simulator.gradients_batch(circuit, hamiltonian, points)


def cost(call: Callable[[], Any]) -> dict[str, float]:
    """Peak of memory in bytes and launches of one call on CUDA."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    return {"bytes": torch.cuda.max_memory_allocated(), "launches": launches(call)}


def measure(n_qubits: int, noisy: bool, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    noise, seconds, batches = thermal_noise() if noisy else None, arguments.seconds, sorted(arguments.batches)
    rng = np.random.default_rng([arguments.seed, n_qubits])
    circuit = random_circuit(n_qubits, SIZES[n_qubits], rng, gates=["rx", "ry", "rz", "cx", "cx"])
    hamiltonian = qas.load_problem(f"tfim-{n_qubits}").hamiltonian
    angles = rng.uniform(-np.pi, np.pi, size=(max(batches), circuit.n_angles))
    case = {"n_qubits": n_qubits, "noisy": noisy, "n_gates": SIZES[n_qubits], "n_angles": circuit.n_angles}
    rows: list[dict[str, Any]] = [
        case | {"engine": name, "batch": 1, "per_second": rates}
        for name, rates in compiled_rates(noise, circuit, hamiltonian, angles, seconds, arguments.threads)
    ]
    exact = make_simulator(noise).expectation_and_gradient(circuit, hamiltonian, angles[0])
    for device in arguments.devices:
        for precision in ("double", "single"):
            simulator = TorchSimulator(noise, device=device, precision=precision)
            found = simulator.expectation_and_gradient(circuit, hamiltonian, angles[0])
            gap = max(np.abs(a - b).max(initial=0.0) for a, b in zip(found, exact, strict=True))
            if gap > 1e-9 + simulator.objective(circuit, hamiltonian).resolution:
                raise SystemExit(f"the engines disagree by {gap:.2g}: nothing to compare")
            slowest = dict.fromkeys(KINDS, 0.0)
            for batch in batches:
                row = case | {"engine": f"{device}, {precision}", "batch": batch, "gap": gap, "per_second": {}}
                for kind in KINDS:
                    if batch * slowest[kind] > 10 * seconds:
                        continue
                    call = batch_call(simulator, circuit, hamiltonian, angles[:batch], kind)
                    took = shortest(call, seconds)
                    row["per_second"][kind], slowest[kind] = batch / took, took / batch
                    if device.startswith("cuda") and took < seconds:
                        row[kind] = cost(call)
                rows.append(row)
        print(f"{n_qubits} {'noisy' if noisy else 'pure'} qubits on {device}: largest gap {gap:.1e}", flush=True)
    return rows


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """Circuits in a second: engines downwards, sizes and batches sideways."""
    sizes = sorted({(row["n_qubits"], row["n_gates"]) for row in rows})
    lines = [
        "| engine, batch | " + " | ".join(f"{n} qubits, {g} gates" for n, g in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for engine, batch in dict.fromkeys((row["engine"], row["batch"]) for row in rows):
        held = {r["n_qubits"]: r["per_second"] for r in rows if (r["engine"], r["batch"]) == (engine, batch)}
        cells = [f"{held[n][kind]:,.3g}" if kind in held.get(n, {}) else "–" for n, _ in sizes]
        what = engine if engine.startswith("compiled") else f"torch {engine}, {batch}"
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], parents=[_parser])
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser.add_argument("--devices", nargs="+", default=devices, help="of the torch engine")
    parser.add_argument("--qubits", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="batch sizes")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for noisy in (True, False):
        for n_qubits in args.qubits:
            rows += measure(n_qubits, noisy, args)
            if args.out:
                write(args.out, args.threads, rows)
    for noisy in (True, False):
        for kind in KINDS:
            chosen = [row for row in rows if row["noisy"] == noisy]
            print(f"{kind}, {'noisy' if noisy else 'pure'}, circuits in a second\n\n{table(chosen, kind)}\n")
    return 0


def write(path: Path, threads: int, rows: list[dict[str, Any]]) -> None:
    machine = {
        "threads": threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    command = "benchmarks/torch_batch.py " + " ".join(sys.argv[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
