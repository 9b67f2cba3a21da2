"""Four ways to name a problem: Pauli strings, a graph, a matrix, a Qiskit operator."""

import networkx as nx
import numpy as np
from qiskit.quantum_info import SparsePauliOp

import qas

problems = [
    qas.problem({"ZZI": 1.0, "IZZ": 1.0, "XII": 0.5, "IXI": 0.5, "IIX": 0.5}, name="my-chain"),
    qas.maxcut(nx.cycle_graph(4), name="my-ring"),
    qas.problem(np.diag([3.0, 1.0, 0.0, -1.0]) + 0.5 * np.ones((4, 4)), name="my-matrix"),
    qas.problem(SparsePauliOp.from_list([("XX", 1.0), ("YY", 1.0), ("ZZ", 1.0)]), name="my-bond"),
]
for problem in problems:
    run = qas.search(problem, agent="evolution", evaluations=20_000, seed=0, report=False)
    best = run.best
    print(f"{problem.name}: exact {problem.exact:.6f}, found {best.energy:.6f} with {best.counts}")
