"""Problems on graphs: max-cut, and spins on seeded random graphs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from qas.checks import finite_number
from qas.errors import QasError
from qas.hamiltonians import Hamiltonian
from qas.problems.families import MAX_QUBITS, Seeded, Single
from qas.problems.hamiltonian import REFERENCES, Problem
from qas.problems.spins import RandomXXZ, heisenberg, pauli_string, random_fields, tfim

if TYPE_CHECKING:
    import networkx as nx


def maxcut(graph: nx.Graph, *, name: str | None = None) -> Problem:
    r"""Max-cut of a weighted graph, :math:`H = \frac12 \sum_{(i,j)} w_{ij} (Z_i Z_j - 1)`; ground energy -maxcut.

    Qubit q is the q-th node of the graph. The best cut is found by going through all of them; provenance keeps it as
    ``max_cut`` (its weight) and ``best_cut`` (a bit string, rightmost letter qubit 0).

    Args:
        graph: undirected, without loops; edges may carry a ``weight`` (default 1).
        name: id; default ``maxcut-<nodes>``.

    Raises:
        QasError: not such a graph, fewer than 2 or more than 20 nodes, no edge, or a weight that is not finite.
    """
    if not all(hasattr(graph, a) for a in ("nodes", "edges", "is_directed", "is_multigraph")):
        raise QasError(f"maxcut takes a networkx.Graph, got {type(graph).__name__}")
    if graph.is_directed() or graph.is_multigraph():
        raise QasError("maxcut takes an undirected graph without parallel edges, got a directed graph or a multigraph")
    nodes = list(graph.nodes)
    n = len(nodes)
    if not 2 <= n <= MAX_QUBITS:
        raise QasError(f"maxcut takes graphs of 2 to {MAX_QUBITS} nodes, got {n}")
    qubit = {node: q for q, node in enumerate(nodes)}
    edges: list[tuple[int, int, float]] = []
    for a, b, weight in graph.edges(data="weight", default=1.0):
        if a == b:
            raise QasError(f"maxcut takes graphs without loops, got one at node {a!r}")
        i, j = sorted((qubit[a], qubit[b]))
        edges.append((i, j, finite_number(f"the weight of edge {a!r}-{b!r}", weight)))
    if not any(weight for *_, weight in edges):
        raise QasError(f"maxcut takes graphs with at least one edge of nonzero weight, got {len(edges)} edges")
    edges.sort()
    index = np.arange(1 << n)
    weights = np.zeros(1 << n)
    for i, j, weight in edges:
        weights += weight * ((index >> i ^ index >> j) & 1)
    best = int(weights.argmax())
    total = sum(weight for *_, weight in edges)
    terms = [("I" * n, -total / 2)] + [(pauli_string(n, {i: "Z", j: "Z"}), weight / 2) for i, j, weight in edges]
    energy = -float(weights[best])
    return Problem(
        name=name or f"maxcut-{n}",
        hamiltonian=Hamiltonian(terms),
        unit="cut weight",
        description=f"max-cut, {n} nodes, {len(edges)} edges, best cut {-energy:g} of {total:g}",
        provenance={
            "family": "maxcut",
            "formula": "H = 1/2 Σ w (ZZ - 1)",
            "nodes": [str(node) for node in nodes],
            "edges": edges,
            "max_cut": -energy,
            "best_cut": format(best, f"0{n}b"),
        },
        # A diagonal operator has a basis state among its ground states, so all three references coincide.
        references=dict.fromkeys(REFERENCES, energy),
    )


def _random_maxcut(n: int, seed: int) -> Problem:
    graph, kind = _random_graph(n, seed)
    return _seeded(maxcut(graph), f"maxcut-{n}-{seed}", kind, seed)


def _random_tfim(n: int, seed: int) -> Problem:
    graph, kind = _random_graph(n, seed)
    return _seeded(tfim(graph), f"tfim-graph-{n}-{seed}", kind, seed)


def _random_heisenberg(n: int, seed: int) -> Problem:
    graph, kind = _random_graph(n, seed)
    return _seeded(heisenberg(graph, field=random_fields(n, seed)), f"heisenberg-graph-{n}-{seed}", kind, seed)


def _random_graph(n: int, seed: int) -> tuple[nx.Graph, str]:
    """A connected graph and what kind it is: 3-regular where there is one."""
    import networkx as nx

    rng = np.random.default_rng([n, seed])
    regular = n % 2 == 0 and n >= 4
    while True:
        draw = int(rng.integers(2**31))
        drawn = nx.random_regular_graph(3, n, seed=draw) if regular else nx.gnp_random_graph(n, 0.5, seed=draw)
        if nx.is_connected(drawn):
            break
    kind = "random 3-regular" if regular else "random (edge probability 1/2)"
    return _graph(n, sorted(tuple(sorted(edge)) for edge in drawn.edges)), kind


def _seeded(made: Problem, name: str, kind: str, seed: int) -> Problem:
    import networkx as nx

    provenance = made.provenance | {"graph": kind, "seed": seed, "networkx": nx.__version__}
    return replace(made, name=name, description=f"{made.description}, {kind}", provenance=provenance)


def _published_maxcut(n: int, pairs: str) -> Problem:
    made = maxcut(_graph(n, [(int(pair[0]), int(pair[1])) for pair in pairs.split()]), name=f"maxcut-{n}-url")
    return replace(made, description=f"{made.description}, the graph of arXiv:2401.11576")


def _graph(n: int, edges: Iterable[tuple[int, int]]) -> nx.Graph:
    """The order of nodes decides which qubit a node gets; networkx promises none for those it draws."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    return graph


_PUBLISHED = {4: "01 03 12 23", 8: "01 06 07 12 16 24 27 37 36 45 46 51 56 57 67"}
"""The graphs of arXiv:2401.11576 as its code release has them; largest cuts 4 and 12."""


def _published(n: int) -> Single:
    about = f"max-cut of a published graph of {n} nodes, arXiv:2401.11576"
    return Single(f"maxcut-{n}-url", partial(_published_maxcut, n, _PUBLISHED[n]), about)


PUBLISHED_4, PUBLISHED_8 = _published(4), _published(8)
RANDOM_GRAPHS = Seeded(
    "maxcut",
    _random_maxcut,
    MAX_QUBITS,
    f"max-cut of a seeded random graph, N = 2 to {MAX_QUBITS}, 3-regular for even N >= 4",
    ("maxcut-3-0", "maxcut-6-1"),
)
TFIM_GRAPHS = Seeded(
    "tfim-graph",
    _random_tfim,
    MAX_QUBITS,
    f"transverse-field Ising model at J = h = 1 on a seeded random graph, N = 2 to {MAX_QUBITS}",
    ("tfim-graph-3-0", "tfim-graph-4-1"),
)
HEISENBERG_GRAPHS = Seeded(
    "heisenberg-graph",
    _random_heisenberg,
    MAX_QUBITS,
    f"Heisenberg model in random fields on a seeded random graph, N = 2 to {MAX_QUBITS}",
    ("heisenberg-graph-3-0", "heisenberg-graph-4-1"),
)
XXZ_GRAPHS = RandomXXZ("xxz-graph", "on a seeded random graph", lambda n, seed: _random_graph(n, seed)[0])
