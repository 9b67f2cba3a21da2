"""Fit of random orthogonal targets at equal bits: circuits found for the target against Quantum-PEFT's circuit.

    python benchmarks/adapter_fit.py [--seeds 10] [--angles 36] [--evaluations 10000] --out results/adapters/fit.csv

Targets are Haar-random orthogonal 64 x 64 matrices. Every row gets the same number of evaluations (a gradient is one):
Quantum-PEFT's circuit spends them on restarts from random angles, the agents on architectures. Angles are rounded to 8
bits at the end (grid from lowest to highest angle, as stored); the error is ||R - Q|| / ||Q||, sign free.

Two comparisons: equal angle bits (the description of the circuit counts nothing, as where many layers share it or
where it is drawn from a seed), and equal total bits, where each string of the found circuit costs its log2 N(N-1)/2
bits too and Quantum-PEFT gets more layers until it has as many bits.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import math
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from qas.comparison import interval

SIZE = 64
BITS = 8


def rounded(angles: np.ndarray, bits: int) -> np.ndarray:
    """Angles on their grid, as adapters store them."""
    import torch

    from qas.adapters.quantize import quantize_angles

    return quantize_angles(torch.from_numpy(np.array(angles)), bits).numpy()


def error(overlap: float) -> float:
    """||R - Q|| / ||Q|| for orthogonal matrices of |tr(R^T Q)| / N = overlap."""
    return math.sqrt(max(0.0, 2 - 2 * overlap))


def restarts(problem: Any, circuit: Any, evaluations: int, seed: int) -> tuple[float, float]:
    """(overlap, overlap with rounded angles) of the best of as many optimizations as the evaluations allow."""
    from scipy.optimize import minimize

    objective = problem.objective(circuit)
    rng = np.random.default_rng([seed, 1])
    best: tuple[float, np.ndarray] | None = None
    while objective.nfev < evaluations:
        limit = evaluations - objective.nfev
        start = rng.uniform(-np.pi, np.pi, circuit.n_angles)
        found = minimize(
            objective.value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxfun": min(400, limit)}
        )
        if best is None or found.fun < best[0]:
            best = float(found.fun), found.x
    assert best is not None
    return 1 - best[0], 1 - objective(rounded(best[1], BITS))


def brickwork(angles: int) -> Any:
    """Quantum-PEFT's circuit with at least so many angles."""
    from qas.adapters.architecture import quantum_peft
    from qas.circuits import Circuit

    layers = 0
    while quantum_peft(SIZE, layers)[0].n_angles < angles:
        layers += 1
    architecture, _ = quantum_peft(SIZE, layers)
    gates = [(name, wires, *([0.0] if name == "ry" else [])) for name, wires in architecture.gates]
    return Circuit(architecture.n_qubits, gates)


def one(seed: int, angles: int, evaluations: int) -> list[dict[str, Any]]:
    from scipy.stats import ortho_group

    import qas
    from qas.adapters.problems import matrix_problem

    target = ortho_group.rvs(SIZE, random_state=seed)
    string_bits = math.log2(SIZE * (SIZE - 1) / 2)
    rows = []

    def add(method: str, count: int, bits: float, overlaps: tuple[float, float]) -> None:
        rows.append(
            {
                "seed": seed,
                "asked": angles,
                "method": method,
                "angles": count,
                "angle_bits": BITS * count,
                "total_bits": math.ceil(BITS * count + 32 + bits),
                "error": f"{error(overlaps[0]):.5f}",
                "error_rounded": f"{error(overlaps[1]):.5f}",
            }
        )

    problem = matrix_problem(target, angles=angles, name=f"haar-{seed}")
    circuit = brickwork(angles)
    add("quantum-peft", circuit.n_angles, 16, restarts(problem, circuit, evaluations, seed))
    total = 0
    for agent in ("adapt", "evolution", "random"):
        with tempfile.TemporaryDirectory() as folder:
            run = qas.search(
                problem,
                agent=agent,
                evaluations=evaluations,
                seed=seed,
                out=Path(folder) / "run",
                report=False,
                evaluator={"max_evaluations": 100},
            )
        best = min(run.front, key=lambda r: r.error).circuit
        objective = problem.objective(best)
        overlaps = 1 - objective(best.angles), 1 - objective(rounded(best.angles, BITS))
        add(agent, best.n_angles, string_bits * best.n_angles, overlaps)
        if agent == "adapt":
            total = rows[-1]["total_bits"]
    more = brickwork((total - 48) // BITS)
    wide = matrix_problem(target, angles=more.n_angles, name=f"haar-{seed}")
    add("quantum-peft, equal total bits", more.n_angles, 16, restarts(wide, more, evaluations, seed))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| asked angles | method | angles | total bits | error | error, 8-bit angles | difference to quantum-peft |",
        "|---:|---|---:|---:|---|---|---|",
    ]

    def shown(values: list[float]) -> str:
        return f"{np.mean(values):.4f} ± {interval(values):.4f}"

    for asked in sorted({int(r["asked"]) for r in rows}):
        group = [r for r in rows if int(r["asked"]) == asked]
        base = {int(r["seed"]): float(r["error_rounded"]) for r in group if r["method"] == "quantum-peft"}
        for method in dict.fromkeys(r["method"] for r in group):
            own = [r for r in group if r["method"] == method]
            exact = [float(r["error"]) for r in own]
            coarse = [float(r["error_rounded"]) for r in own]
            paired = [float(r["error_rounded"]) - base[int(r["seed"])] for r in own]
            counts = [np.mean([float(r[k]) for r in own]) for k in ("angles", "total_bits")]
            gap = "–" if method == "quantum-peft" else shown(paired)
            lines.append(
                f"| {asked} | {method} | {counts[0]:.0f} | {counts[1]:.0f} | {shown(exact)} | {shown(coarse)} | {gap} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--angles", type=int, nargs="+", default=[36])
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    jobs = [(seed, angles, arguments.evaluations) for angles in arguments.angles for seed in range(arguments.seeds)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        for found in pool.map(one, *zip(*jobs, strict=True)):
            rows += found
            print(
                f"seed {found[0]['seed']}: " + ", ".join(f"{r['method']} {r['error_rounded']}" for r in found),
                flush=True,
            )
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = table(rows)
    arguments.out.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
