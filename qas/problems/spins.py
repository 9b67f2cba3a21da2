"""Spins on rings, chains and graphs: transverse-field Ising, Heisenberg and cluster models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import finite_number, shortened, whole_number
from qas.errors import QasError
from qas.hamiltonians import Hamiltonian
from qas.problems.families import MAX_QUBITS, Family
from qas.problems.hamiltonian import Problem

if TYPE_CHECKING:
    import networkx as nx


def tfim(
    n: int | nx.Graph, *, coupling: float = 1.0, field: float | Sequence[float] = 1.0, periodic: bool = True
) -> Problem:
    r"""Transverse-field Ising model, :math:`H = J \sum_{<ij>} Z_i Z_j + h \sum_i X_i`.

    Positive J is antiferromagnetic, so odd rings are frustrated; ``coupling=-1`` is the ferromagnet. On even rings and
    open chains the spectrum does not depend on the signs of J and h.

    Args:
        n: number of spins, 2 to 20; or a graph of so many nodes, whose edges are the bonds and whose q-th node is
            qubit q.
        coupling: J, in the unit of the energies.
        field: h, in the same unit; or one number for each spin.
        periodic: ring; two spins have one bond either way. A graph says itself what it is.

    Raises:
        QasError: n out of range, no simple graph, a number that is not finite, not one field a spin, or J = h = 0.
    """
    model = _read("tfim", n, periodic, coupling, field)
    terms = [(pauli_string(model.n, {i: "Z", j: "Z"}), model.coupling) for i, j in model.bonds]
    terms += [(pauli_string(model.n, {i: "X"}), h) for i, h in enumerate(model.fields)]
    return _spins(tfim, "J ΣZZ + h ΣX", model, terms)


def heisenberg(
    n: int | nx.Graph,
    *,
    coupling: float = 1.0,
    field: float | Sequence[float] = 1.0,
    anisotropy: float = 1.0,
    periodic: bool = True,
) -> Problem:
    r"""Heisenberg (XXZ) model in a field, :math:`H = J \sum_{<ij>} (X_i X_j + Y_i Y_j + Δ Z_i Z_j) + h \sum_i Z_i`.

    Args:
        n: number of spins, 2 to 20; or a graph of so many nodes, whose edges are the bonds and whose q-th node is
            qubit q.
        coupling: J (positive: antiferromagnet), in the unit of the energies.
        field: h, in the same unit; or one number for each spin.
        anisotropy: Δ; other values than 1 make it the XXZ model.
        periodic: ring; two spins have one bond. A graph says itself what it is.

    Raises:
        QasError: n out of range, no simple graph, a number that is not finite, not one field a spin, or J = h = 0.
    """
    model = _read("heisenberg", n, periodic, coupling, field)
    delta = finite_number("the anisotropy", anisotropy)
    strengths = {"X": model.coupling, "Y": model.coupling, "Z": model.coupling * delta}
    terms = [(pauli_string(model.n, {i: a, j: a}), strengths[a]) for i, j in model.bonds for a in "XYZ"]
    terms += [(pauli_string(model.n, {i: "Z"}), h) for i, h in enumerate(model.fields)]
    made = _spins(heisenberg, "J Σ(XX+YY+ZZ) + h ΣZ" if delta == 1 else "J Σ(XX+YY+ΔZZ) + h ΣZ", model, terms)
    if delta == 1:
        return made
    return replace(
        made,
        name=f"{made.name}-d{delta:g}",
        description=f"{made.description}, Δ = {delta:.3g}",
        provenance=made.provenance | {"anisotropy": delta},
    )


def cluster(n: int, *, coupling: float = 1.0, field: float = 0.0, periodic: bool = True) -> Problem:
    r"""Cluster model in a field, :math:`H = -J \sum_i Z_{i-1} X_i Z_{i+1} - h \sum_i X_i`.

    An open chain keeps its end terms :math:`X_0 Z_1` and :math:`Z_{n-2} X_{n-1}`. Without a field the ground state is
    the cluster state with energy -n J, on a ring and on a chain.

    Args:
        n: number of spins, 2 to 20.
        coupling: J, in the unit of the energies.
        field: h, in the same unit.
        periodic: ring; two spins are a chain either way.

    Raises:
        QasError: n out of range, a number that is not finite, or J = h = 0.
    """
    n = whole_number("the number of spins of cluster", n, 2, MAX_QUBITS)
    model = _read("cluster", n, periodic, coupling, finite_number("the field", field))
    terms = []
    for i in range(n):
        sides = [(i + step) % n for step in (-1, 1) if model.periodic or 0 <= i + step < n]
        terms.append((pauli_string(n, {i: "X"} | dict.fromkeys(sides, "Z")), -model.coupling))
    terms += [(pauli_string(n, {i: "X"}), -h) for i, h in enumerate(model.fields)]
    return _spins(cluster, "-J ΣZXZ - h ΣX", model, terms)


@dataclass(frozen=True)
class _Model:
    """Checked settings of a spin model."""

    n: int
    shape: str
    """``"ring"``, ``"open chain"`` or ``"graph"``"""
    bonds: list[tuple[int, int]]
    coupling: float
    field: float | list[float]
    """as given: the same for all spins, or one for each"""

    @property
    def periodic(self) -> bool:
        return self.shape == "ring"

    @property
    def fields(self) -> list[float]:
        return self.field if isinstance(self.field, list) else [self.field] * self.n


def _read(family: str, n: Any, periodic: bool, coupling: Any, field: Any) -> _Model:
    if hasattr(n, "edges"):
        shape = "graph"
        n, bonds = _graph_bonds(family, n)
    else:
        n = whole_number(f"the number of spins of {family}", n, 2, MAX_QUBITS)
        shape = "ring" if bool(periodic) and n >= 3 else "open chain"
        bonds = [(i, (i + 1) % n) for i in range(n if shape == "ring" else n - 1)]
    coupling = finite_number("the coupling", coupling)
    if isinstance(field, (list, tuple, np.ndarray)):
        field = [finite_number("the field", h) for h in field]
        if len(field) != n:
            raise QasError(f"{family} takes one field for each of the {n} spins, got {len(field)}")
    else:
        field = finite_number("the field", field)
    model = _Model(n, shape, bonds, coupling, field)
    if coupling == 0.0 and not any(model.fields):
        raise QasError(f"{family} needs a coupling or a field, got 0 for both")
    return model


def _graph_bonds(family: str, graph: Any) -> tuple[int, list[tuple[int, int]]]:
    if not hasattr(graph, "nodes") or graph.is_directed() or graph.is_multigraph():
        raise QasError(f"{family} takes a number of spins or an undirected graph without parallel edges")
    nodes = list(graph.nodes)
    if not 2 <= len(nodes) <= MAX_QUBITS:
        raise QasError(f"{family} takes graphs of 2 to {MAX_QUBITS} nodes, got {len(nodes)}")
    qubit = {node: q for q, node in enumerate(nodes)}
    pairs = ((qubit[a], qubit[b]) for a, b in graph.edges)
    bonds = sorted((min(pair), max(pair)) for pair in pairs)
    if loops := [a for a, b in bonds if a == b]:
        raise QasError(f"{family} takes graphs without loops, got one at node {shortened(nodes[loops[0]])}")
    return len(nodes), bonds


def pauli_string(n: int, letters: Mapping[int, str]) -> str:
    """Pauli string on n qubits of some qubits' letters, I elsewhere; the rightmost letter is qubit 0's."""
    return "".join(letters.get(q, "I") for q in reversed(range(n)))


def _spins(model: Callable[..., Problem], formula: str, made: _Model, terms: Iterable[tuple[str, float]]) -> Problem:
    family, usual = model.__name__, (model.__kwdefaults__ or {})["field"]
    suffix = {"graph": "-graph", "open chain": "-open" if made.n > 2 else ""}.get(made.shape, "")
    alike = not isinstance(made.field, list)
    name = f"{family}-{made.n}{suffix}" + ("" if made.coupling == 1.0 else f"-j{made.coupling:g}")
    name += ("" if made.field == usual else f"-h{made.field:g}") if alike else "-fields"
    fields = f"h = {made.field:g}" if alike else f"h from {min(made.fields):.3g} to {max(made.fields):.3g}"
    provenance = {
        "family": family,
        "formula": f"H = {formula}",
        "n": made.n,
        "coupling": made.coupling,
        "field": made.field,
        "periodic": made.periodic,
    }
    return Problem(
        name=name,
        hamiltonian=Hamiltonian(terms),
        unit="J",
        description=f"{made.n} spins, {made.shape}, H = {formula}, J = {made.coupling:g}, {fields}",
        provenance=provenance | ({"edges": made.bonds} if made.shape == "graph" else {}),
    )


class Chain(Family):
    """Rings ``word-N`` and open chains ``word-N-open`` of a model at its usual coupling and field."""

    def __init__(self, model: Callable[..., Problem], about: str) -> None:
        word = model.__name__
        self.pattern = f"{word}-N"
        self.about = f"{about}, N = 2 to {MAX_QUBITS}; {word}-N-open for an open chain"
        self.small = (f"{word}-3", f"{word}-4-open")
        self._model = model

    @property
    def rule(self) -> str:
        return f"{self.word}-N or {self.word}-N-open with N from 2 to {MAX_QUBITS}"

    def load(self, member: str) -> Problem:
        match = re.fullmatch(r"(\d{1,9})(-open)?", member, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_QUBITS:
            raise self.wrong(member)
        return self._model(int(match[1]), periodic=match[2] is None)

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        return (f"{self.word}-{numbers[0]}",) if numbers and 2 <= numbers[0] <= MAX_QUBITS else self.small


class RandomField(Family):
    """Heisenberg rings ``heisenberg-field-N-SEED`` and open chains ``…-open``; a seed draws the fields from -1 to 1."""

    pattern = "heisenberg-field-N-SEED"
    about = f"Heisenberg ring in seeded random fields from -1 to 1, N = 2 to {MAX_QUBITS}; …-open for an open chain"
    small = ("heisenberg-field-3-0", "heisenberg-field-4-1-open")

    @property
    def rule(self) -> str:
        return f"{self.pattern} or {self.pattern}-open with N from 2 to {MAX_QUBITS}"

    def load(self, member: str) -> Problem:
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})(-open)?", member, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_QUBITS:
            raise self.wrong(member)
        n, seed = int(match[1]), int(match[2])
        made = heisenberg(n, field=random_fields(n, seed), periodic=match[3] is None)
        return replace(
            made, name=f"{self.word}-{n}-{seed}{match[3] or ''}", provenance=made.provenance | {"seed": seed}
        )

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        n, seed = (*numbers[:2], 0, 0)[:2]
        return (f"{self.word}-{n}-{seed}",) if 2 <= n <= MAX_QUBITS else self.small


class RandomXXZ(Family):
    """XXZ models ``word-N-SEED`` in random fields: a seed draws the fields from -1 to 1 and Δ from 0.5 to 1.5.

    Args:
        word: beginning of their names.
        about: one line on the shape.
        shape: the spins' number or graph, made from N and the seed.
        periodic: as of `heisenberg`.
    """

    def __init__(self, word: str, about: str, shape: Callable[[int, int], Any], *, periodic: bool = True) -> None:
        self.pattern, self.small = f"{word}-N-SEED", (f"{word}-3-0", f"{word}-4-1")
        self.about = f"XXZ {about} in seeded random fields from -1 to 1, Δ from 0.5 to 1.5, N = 2 to {MAX_QUBITS}"
        self._shape, self._periodic = shape, periodic

    @property
    def rule(self) -> str:
        return f"{self.pattern} with N from 2 to {MAX_QUBITS}"

    def load(self, member: str) -> Problem:
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})", member, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_QUBITS:
            raise self.wrong(member)
        n, seed = int(match[1]), int(match[2])
        delta = float(np.random.default_rng([n, seed, 1]).uniform(0.5, 1.5))
        fields, shape = random_fields(n, seed), self._shape(n, seed)
        made = heisenberg(shape, field=fields, anisotropy=delta, periodic=self._periodic)
        return replace(made, name=f"{self.word}-{n}-{seed}", provenance=made.provenance | {"seed": seed})

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        n, seed = (*numbers[:2], 0, 0)[:2]
        return (f"{self.word}-{n}-{seed}",) if 2 <= n <= MAX_QUBITS else self.small


def random_fields(n: int, seed: int) -> list[float]:
    """Fields of n spins, each drawn evenly from -1 to 1."""
    return np.random.default_rng([n, seed]).uniform(-1.0, 1.0, n).tolist()


TFIM = Chain(tfim, "transverse-field Ising ring, ΣZZ + ΣX")
HEISENBERG = Chain(heisenberg, "Heisenberg ring, Σ(XX+YY+ZZ) + ΣZ")
CLUSTER = Chain(cluster, "cluster-state ring, -ΣZXZ")
RANDOM_FIELD = RandomField()
XXZ_RING = RandomXXZ("xxz-ring", "ring", lambda n, seed: n)
XXZ_CHAIN = RandomXXZ("xxz-chain", "open chain", lambda n, seed: n, periodic=False)
