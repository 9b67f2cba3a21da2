"""What mitigated objectives cost: `zne` with its gradient against `noisy` with its gradient, alternately.

python benchmarks/objectives.py            # table
python benchmarks/objectives.py --check    # fails where a ratio exceeds the number of nodes by more than 10 %, and with
                                           # folding the sum of the folds
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from timing import in_turn

import qas
from qas.circuits import Circuit
from qas.mitigation import make_objective
from qas.simulators import make_simulator
from qas.testing.random import random_circuit

PROBLEMS = {"lih-4": 24, "lih-6": 40, "h2o-8-bohr": 60}
"""Problem -> gates of the circuit."""
OBJECTIVES = ("readout", "zne", "zne:nodes=1-3-5,fit=richardson", "zne:nodes=1-3-5,fit=exponential", "zne:scale=fold")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a ratio is too large")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each comparison; the shortest call counts")
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
        operator, angles = problem.hamiltonian, circuit.angles
        for text in OBJECTIVES:
            scored = make_objective(text).simulator(engine)
            nodes = [node.noise.factor for node in scored.nodes]  # type: ignore[attr-defined]
            # A folded circuit is as much longer as its node says; nothing else makes gates longer.
            limit = 1.1 * (sum(nodes) if "fold" in text else len(nodes))
            times = in_turn(
                {
                    "noisy": lambda: engine.expectation_and_gradient(copy, operator, angles),  # noqa: B023
                    text: lambda: scored.expectation_and_gradient(circuit, operator, angles),  # noqa: B023
                },
                arguments.seconds,
            )
            raw, found = (min(values) for values in times.values())
            too_slow += found / raw > limit
            row = f"{name:12}  {gates:5}  {text:35}  {len(nodes):5}  {1e6 * found:6.0f}"
            print(f"{row}  {found / raw:5.2f}  {limit:5.2f}", flush=True)
    return int(arguments.check and too_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
