"""Spin chains: transverse-field Ising, Heisenberg and cluster models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qas.checks import finite_number, whole_number
from qas.errors import QasError
from qas.hamiltonians import Hamiltonian
from qas.problems.families import MAX_QUBITS, Family
from qas.problems.hamiltonian import Problem


def tfim(n: int, *, coupling: float = 1.0, field: float = 1.0, periodic: bool = True) -> Problem:
    r"""Transverse-field Ising model, :math:`H = J \sum_{<ij>} Z_i Z_j + h \sum_i X_i`.

    Positive J is antiferromagnetic, so odd rings are frustrated; ``coupling=-1`` is the ferromagnet. On even rings and
    open chains the spectrum does not depend on the signs of J and h.

    Args:
        n: number of spins, 2 to 20.
        coupling: J, in the unit of the energies.
        field: h, in the same unit.
        periodic: ring; two spins have one bond either way.

    Raises:
        QasError: n out of range, a number that is not finite, or J = h = 0.
    """
    n, periodic, coupling, field = _checked("tfim", n, periodic, coupling, field)
    terms = [(pauli_string(n, {i: "Z", j: "Z"}), coupling) for i, j in _bonds(n, periodic)]
    terms += [(pauli_string(n, {i: "X"}), field) for i in range(n)]
    return _spins(tfim, "J ΣZZ + h ΣX", n, periodic, coupling, field, terms)


def heisenberg(n: int, *, coupling: float = 1.0, field: float = 1.0, periodic: bool = True) -> Problem:
    r"""Heisenberg chain in a field, :math:`H = J \sum_{<ij>} (X_i X_j + Y_i Y_j + Z_i Z_j) + h \sum_i Z_i`.

    Args:
        n: number of spins, 2 to 20.
        coupling: J (positive: antiferromagnet), in the unit of the energies.
        field: h, in the same unit.
        periodic: ring; two spins have one bond.

    Raises:
        QasError: n out of range, a number that is not finite, or J = h = 0.
    """
    n, periodic, coupling, field = _checked("heisenberg", n, periodic, coupling, field)
    terms = [(pauli_string(n, {i: a, j: a}), coupling) for i, j in _bonds(n, periodic) for a in "XYZ"]
    terms += [(pauli_string(n, {i: "Z"}), field) for i in range(n)]
    return _spins(heisenberg, "J Σ(XX+YY+ZZ) + h ΣZ", n, periodic, coupling, field, terms)


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
    n, periodic, coupling, field = _checked("cluster", n, periodic, coupling, field)
    terms = []
    for i in range(n):
        sides = [(i + step) % n for step in (-1, 1) if periodic or 0 <= i + step < n]
        terms.append((pauli_string(n, {i: "X"} | dict.fromkeys(sides, "Z")), -coupling))
    terms += [(pauli_string(n, {i: "X"}), -field) for i in range(n)]
    return _spins(cluster, "-J ΣZXZ - h ΣX", n, periodic, coupling, field, terms)


def _checked(family: str, n: Any, periodic: bool, coupling: Any, field: Any) -> tuple[int, bool, float, float]:
    n = whole_number(f"the number of spins of {family}", n, 2, MAX_QUBITS)
    coupling, field = finite_number("the coupling", coupling), finite_number("the field", field)
    if coupling == 0.0 and field == 0.0:
        raise QasError(f"{family} needs a coupling or a field, got 0 for both")
    return n, bool(periodic) and n >= 3, coupling, field


def _bonds(n: int, periodic: bool) -> list[tuple[int, int]]:
    return [(i, (i + 1) % n) for i in range(n if periodic else n - 1)]


def pauli_string(n: int, letters: Mapping[int, str]) -> str:
    """Pauli string on n qubits of some qubits' letters, I elsewhere; the rightmost letter is qubit 0's."""
    return "".join(letters.get(q, "I") for q in reversed(range(n)))


def _spins(
    model: Callable[..., Problem],
    formula: str,
    n: int,
    periodic: bool,
    coupling: float,
    field: float,
    terms: Iterable[tuple[str, float]],
) -> Problem:
    family, usual = model.__name__, (model.__kwdefaults__ or {})["field"]
    name = f"{family}-{n}" + ("" if periodic or n == 2 else "-open")
    name += ("" if coupling == 1.0 else f"-j{coupling:g}") + ("" if field == usual else f"-h{field:g}")
    shape = "ring" if periodic else "open chain"
    return Problem(
        name=name,
        hamiltonian=Hamiltonian(terms),
        unit="J",
        description=f"{n} spins, {shape}, H = {formula}, J = {coupling:g}, h = {field:g}",
        provenance={
            "family": family,
            "formula": f"H = {formula}",
            "n": n,
            "coupling": coupling,
            "field": field,
            "periodic": periodic,
        },
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


TFIM = Chain(tfim, "transverse-field Ising ring, ΣZZ + ΣX")
HEISENBERG = Chain(heisenberg, "Heisenberg ring, Σ(XX+YY+ZZ) + ΣZ")
CLUSTER = Chain(cluster, "cluster-state ring, -ΣZXZ")
