"""What mitigated objectives cost: `zne` with its gradient against `noisy` with its gradient, alternately.

python benchmarks/objectives.py            # table
python benchmarks/objectives.py --check    # fails where a ratio exceeds the number of nodes by more than 10 %
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import qas
from qas.circuits import Circuit
from qas.mitigation import make_objective
from qas.simulators import Simulator, make_simulator
from qas.testing.random import random_circuit

PROBLEMS = {"lih-4": 24, "lih-6": 40, "h2o-8-bohr": 60}
"""Problem -> gates of the circuit."""
OBJECTIVES = ("readout", "zne", "zne:nodes=1-3-5,fit=richardson", "zne:nodes=1-3-5,fit=exponential", "zne:scale=fold")


def seconds(simulator: Simulator, circuit: Circuit, problem: qas.Problem, calls: int) -> float:
    """Of one value with gradient."""
    operator, angles = problem.hamiltonian, circuit.angles
    began = time.perf_counter()
    for _ in range(calls):
        simulator.expectation_and_gradient(circuit, operator, angles)
    return (time.perf_counter() - began) / calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a ratio is too large")
    parser.add_argument("--rounds", type=int, default=15, help="alternations; the smallest of each counts")
    parser.add_argument("--noise", default="ibm-mumbai")
    arguments = parser.parse_args()
    too_slow = 0
    print("problem       gates  objective                            nodes      us  ratio  limit")
    for name, gates in PROBLEMS.items():
        problem = qas.load_problem(name)
        rng = np.random.default_rng(0)
        circuit = random_circuit(problem.n_qubits, gates, rng, gates=("rx", "ry", "rz", "cx"))
        engine = make_simulator(arguments.noise)
        copy = Circuit(circuit.n_qubits, circuit.gates)  # a circuit carries the arrays of one engine
        calls = max(1, int(0.01 / max(1e-6, seconds(engine, copy, problem, 2))))
        for text in OBJECTIVES:
            scored = make_objective(text).simulator(engine)
            nodes = len(scored.nodes)  # type: ignore[attr-defined]
            seconds(scored, circuit, problem, 2)
            best = [np.inf, np.inf]
            for _ in range(arguments.rounds):
                best[0] = min(best[0], seconds(engine, copy, problem, calls))
                best[1] = min(best[1], seconds(scored, circuit, problem, calls))
            ratio, limit = best[1] / best[0], 1.1 * nodes
            too_slow += ratio > limit
            print(
                f"{name:12}  {gates:5}  {text:35}  {nodes:5}  {1e6 * best[1]:6.0f}  {ratio:5.2f}  {limit:5.2f}",
                flush=True,
            )
    return int(arguments.check and too_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
