"""Problems: what a circuit is judged on. Mostly a Hamiltonian, what is known about it, and where both come from."""

from __future__ import annotations

import abc
import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError, TooLargeError, UnknownNameError
from qas.gates import POOL_GATES, SEARCH_GATES, gate_spec
from qas.hamiltonians import Hamiltonian
from qas.simplify import simplify

if TYPE_CHECKING:
    import networkx as nx

    from qas.noise import NoiseModel
    from qas.simulators.base import BaseObjective, Objective, Simulator

FORMAT = "qas-problem"
VERSION = 1
"""Schema version of `Problem.to_json`."""
PROBLEM_FORMATS = {FORMAT: "qas.problems:Problem", "qas-adapter-problem": "qas.adapters.problems:AdapterProblem",
                   "qas-labelled-pool": "qas.encoders.pools.pool:TabularProblem"}  # fmt: skip
"""Format of a problem file -> where the class that reads it is; loaded on first use."""
CHEMICAL_ACCURACY = 1.6e-3
"""Error in hartree below which a molecular energy counts as solved (1 kcal/mol)."""
MAX_QUBITS = 20
"""Largest member of the spin and max-cut families."""
MAX_TARGET_QUBITS = 8
"""Largest target state: as an operator it has up to 4^n Pauli terms."""

_MEMORY_LIMIT = 2 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_MOLECULES = Path(__file__).parents[1] / "data" / "molecules"
_REFERENCES = ("exact", "product_state", "basis_state")


class BaseProblem(abc.ABC):
    """What every problem is: a number for each circuit, how low it can get, and when that is low enough.

    To add a kind of problem, subclass this as a frozen dataclass with the fields below (more may be added), implement
    what is abstract, and name its file format in `PROBLEM_FORMATS`. Environment, agents, runs, reports and the command
    line know problems only by what is here. The number is called energy, and a good circuit has a low one.

    Raises:
        QasError: a name that cannot be part of a folder name, a threshold that is not positive, unit or description
            that are no text, or an origin that is not JSON-able.
    """

    name: str
    """Id; letters, digits and ``. _ + -``, so that a run folder can carry it."""
    unit: str
    """Unit of all energies; empty if unknown."""
    threshold: float | None
    """Error regarded as success, in `unit`; a number once the problem is made."""
    description: str
    """One line for lists."""
    provenance: dict[str, Any]
    """Where the problem comes from; JSON-able."""

    whole_matrix: ClassVar[bool] = True
    """Judges the circuit's whole matrix, up to its sign; False: the state that it makes of |0…0>, up to its phase."""
    simulated: ClassVar[bool] = False
    """Simulators judge it, so that noise, engines and shots mean something."""
    listed: ClassVar[bool] = False
    """Judges the circuits of a list only, such as a labelled pool: agents that make circuits of their own are refused."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise QasError(
                f"a problem name is 1 to 100 letters, digits and . _ + - (first a letter or digit), got {self.name!r}"
            )
        for label, text in (("unit", self.unit), ("description", self.description)):
            if not isinstance(text, str):
                raise QasError(f"the {label} of a problem is text, got {text!r}")
        threshold = _finite(self.threshold, "the threshold")
        if threshold <= 0:
            raise QasError(f"the threshold of a problem is positive, got {threshold}")
        try:
            provenance = json.loads(json.dumps(self.provenance, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise QasError(f"the provenance of a problem must be JSON-able: {error}") from None
        if not isinstance(provenance, dict):
            raise QasError(f"the provenance of a problem is a mapping, got {type(provenance).__name__}")
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "provenance", provenance)

    # ------------------------------------------------------------------ what is known
    @property
    @abc.abstractmethod
    def n_qubits(self) -> int:
        """Number of qubits of the circuits."""

    @property
    @abc.abstractmethod
    def exact(self) -> float:
        """Lowest energy there is, or the lower bound that errors are counted from, in `unit`."""

    @property
    def product_state(self) -> float | None:
        """What one-qubit gates alone reach, in `unit`; None where that has no meaning."""
        return None

    @property
    def basis_state(self) -> float | None:
        """What X gates alone reach, in `unit`; None where that has no meaning."""
        return None

    @property
    @abc.abstractmethod
    def lower_bound(self) -> float:
        """An energy that no circuit goes below, known without solving the problem, in `unit`; at most `exact`."""

    @property
    @abc.abstractmethod
    def mixed_energy(self) -> float:
        """Energy from which progress is counted, in `unit`, above `exact`: about that of a circuit at random angles."""

    @property
    @abc.abstractmethod
    def spread(self) -> float:
        """Upper bound on how far the energies of two circuits are apart, in `unit`; finite."""

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """A few words on its size for reports."""

    def error(self, energy: float) -> float:
        """``energy - exact`` in `unit`; not below zero for a noiseless expectation value, up to rounding."""
        return energy - self.exact

    def solved(self, energy: float) -> bool:
        """Whether the error of `energy` is at most the threshold."""
        assert self.threshold is not None
        return self.error(energy) <= self.threshold

    # ------------------------------------------------------------------ how a circuit is judged
    def simulator(
        self, noise: NoiseModel | None = None, engine: str | None = None, shots: int | None = None
    ) -> Simulator | None:
        """What `objective` and `energy` judge circuits with; None for problems that are judged without a simulator.

        Args:
            noise: hardware noise.
            engine: a name of `qas.simulators.list_engines`; None: the fastest exact one.
            shots: measurements that the energies are to be estimated from.

        Raises:
            UnknownNameError: no such engine.
            TooLargeError: more qubits than the engine can hold.
            QasError: noise, engine or shots that mean nothing here, or that do not go together.
        """
        given = [what for what, value in (("noise", noise), ("engine", engine), ("shots", shots)) if value is not None]
        if given:
            raise QasError(
                f"{self.name} is judged without a simulator and takes no noise, engine or shots, got "
                f"{' and '.join(given)}"
            )
        return None

    @abc.abstractmethod
    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> BaseObjective:
        """The energy of `circuit` as a function of its angles.

        Args:
            circuit: an architecture; its own angles do not matter.
            simulator: as `simulator` made it; None: that of a perfect device.

        Raises:
            CircuitError: a circuit with another number of qubits, or gates that cannot be judged; some say so only
                when the objective is called.
        """

    def energy(self, circuit: Circuit, simulator: Simulator | None = None) -> float:
        """Energy of `circuit` at its own angles, in `unit`; arguments and errors as of `objective`."""
        return float(self.objective(circuit, simulator)(circuit.angles))

    # ------------------------------------------------------------------ how it is searched
    def simplify(self, circuit: Circuit, angle_tolerance: float = 1e-9) -> Circuit:
        """A circuit of the same energy without trivially redundant gates; `circuit` itself if there are none.

        Args:
            circuit: gates with their angles.
            angle_tolerance: rotations closer than this to a multiple of 2π go, radians.
        """
        return simplify(circuit, angle_tolerance=angle_tolerance, whole=self.whole_matrix)

    @property
    def search_gates(self) -> tuple[str, ...]:
        """Gates that a search uses unless told otherwise."""
        return SEARCH_GATES

    @property
    def max_gates(self) -> int:
        """Longest circuit of a search unless told otherwise (CRLQAS section 1.9: 40 gates on up to 4 qubits)."""
        return 40 if self.n_qubits <= 4 else 70

    # ------------------------------------------------------------------ files
    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All of the problem as a JSON-able dict with its ``format``; `from_json` reads it back bit for bit."""

    @classmethod
    @abc.abstractmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a problem from the dict that `to_json` made.

        Raises:
            QasError: not such a dict, a newer schema version, or a missing, malformed or inconsistent entry.
        """


@dataclass(frozen=True)
class Problem(BaseProblem):
    """A Hamiltonian whose ground state is sought.

    Immutable; equal problems have equal name, operator, unit, threshold and origin.

    Raises:
        QasError: a name that cannot be part of a folder name, a threshold that is not positive, a reference value that
            is not finite or out of order (exact <= product_state <= basis_state), or an origin that is not JSON-able.
    """

    name: str
    """Id; letters, digits and ``. _ + -``, so that a run folder can carry it."""
    hamiltonian: Hamiltonian
    """Operator whose ground state is sought; constants such as the nuclear repulsion sit in its identity term."""
    unit: str = ""
    """Unit of all energies: ``"hartree"``, ``"J"``, ``"cut weight"``; empty if unknown."""
    threshold: float | None = None
    """Error regarded as success, in `unit`. None: 0.001 of the sum of |coefficients| without the identity."""
    description: str = ""
    """One line for lists."""
    provenance: dict[str, Any] = field(default_factory=dict, hash=False)
    """Where the operator comes from (geometry with its unit, active space, graph, versions, …); JSON-able."""
    references: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    """Known values among ``exact``, ``product_state``, ``basis_state``; the others are computed at first use."""

    whole_matrix: ClassVar[bool] = False
    simulated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.hamiltonian, Hamiltonian):
            raise QasError(f"a problem needs a Hamiltonian, got {type(self.hamiltonian).__name__}")
        if self.threshold is None:
            object.__setattr__(self, "threshold", 1e-3 * self._norm if self._norm > 1e-12 else 1e-9)
        super().__post_init__()
        unknown = set(self.references) - set(_REFERENCES)
        if unknown:
            raise QasError(f"reference values are named {', '.join(_REFERENCES)}, got {', '.join(map(str, unknown))}")
        known = {key: _finite(self.references[key], key) for key in _REFERENCES if key in self.references}
        ordered = [known[key] for key in _REFERENCES if key in known]
        slack = 1e-6 * max(1.0, *(abs(v) for v in ordered)) if ordered else 0.0
        if any(low > high + slack for low, high in zip(ordered, ordered[1:], strict=False)):
            raise QasError(f"reference energies satisfy exact <= product_state <= basis_state, got {known}")
        object.__setattr__(self, "references", known)

    def __str__(self) -> str:
        return f"{self.name}: {self.description or self.hamiltonian!r}"

    @property
    def n_qubits(self) -> int:
        """Number of qubits of the operator."""
        return self.hamiltonian.n_qubits

    @cached_property
    def exact(self) -> float:
        """Ground energy of the operator over the whole space of qubits, in `unit`.

        Raises:
            TooLargeError: not given, and more qubits than an eigensolver can hold.
        """
        return self._reference("exact", lambda: self.hamiltonian.ground_energy)

    @cached_property
    def product_state(self) -> float:
        """Lowest energy of a product state, in `unit`: what one-qubit gates alone reach.

        Found by seeded local searches, hence an upper bound on the true minimum.

        Raises:
            TooLargeError: not given, and more qubits than memory holds.
            QasError: the given exact value is not a ground energy, because a product state lies below it.
        """
        value = self._reference("product_state", lambda: self.hamiltonian.product_state_energy)
        exact = self.exact
        if value < exact - 1e-6 * max(1.0, abs(exact)):
            raise QasError(f"the exact energy of {self.name} cannot be {exact}: a product state has energy {value}")
        # Where a product state is exact, rounding must not put it below the ground energy.
        return max(exact, value)

    @cached_property
    def basis_state(self) -> float:
        """Lowest energy of a computational basis state, in `unit`: what X gates alone reach.

        Raises:
            TooLargeError: not given, and more qubits than memory holds.
        """
        return self._reference("basis_state", lambda: self.hamiltonian.basis_state_energy)

    @property
    def lower_bound(self) -> float:
        """The identity coefficient minus the sum of all other |coefficients|, in `unit`."""
        return self.hamiltonian.identity - self._norm

    @property
    def mixed_energy(self) -> float:
        """Energy of the maximally mixed state, the identity coefficient, in `unit`."""
        return self.hamiltonian.identity

    @property
    def spread(self) -> float:
        """Twice the sum of all |coefficients| but that of the identity, in `unit`."""
        return 2.0 * self._norm

    @property
    def summary(self) -> str:
        """Its number of terms, as in ``14 Pauli terms``."""
        return f"{len(self.hamiltonian)} Pauli terms"

    @property
    def _norm(self) -> float:
        return float(np.abs(self.hamiltonian.coefficients).sum()) - abs(self.hamiltonian.identity)

    def simulator(
        self, noise: NoiseModel | None = None, engine: str | None = None, shots: int | None = None
    ) -> Simulator:
        """The engine of that name, or the fastest exact one; it is the same for any number of shots.

        Raises:
            UnknownNameError: no such engine.
            TooLargeError: more qubits than the engine can hold.
            QasError: a noisy model for a noise-free engine.
        """
        from qas.simulators import make_simulator

        made = make_simulator(noise, engine)
        made.check_size(self.n_qubits)
        return made

    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> Objective:
        """The expectation value of the operator as a function of the angles of `circuit`."""
        return (simulator or self.simulator()).objective(circuit, self.hamiltonian)

    def _reference(self, key: str, compute: Callable[[], float]) -> float:
        if key in self.references:
            return self.references[key]
        masks = len(np.unique([_x_mask(p) for p in self.hamiltonian.strings])) if self.n_qubits < 60 else 1
        if self.n_qubits >= 60 or masks * 16 << self.n_qubits > _MEMORY_LIMIT:
            raise TooLargeError(
                f"{key} of {self.name} ({self.n_qubits} qubits, {len(self.hamiltonian)} terms) needs more than "
                f"{_MEMORY_LIMIT >> 30} GiB; give its value with the problem"
            )
        return float(compute())

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """All of the problem as a JSON-able dict; `from_json` reads it back bit for bit.

        Reference values that are unknown and too large to compute are left out.
        """
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "description": self.description,
            "n_qubits": self.n_qubits,
            "unit": self.unit,
            "threshold": self.threshold,
        }
        for key in _REFERENCES:
            try:
                data[key] = getattr(self, key)
            except TooLargeError:
                continue
        data["provenance"] = json.loads(json.dumps(self.provenance))
        data["terms"] = self.hamiltonian.terms
        return data

    @classmethod
    def from_json(cls, data: Any) -> Problem:
        """Rebuild a problem from the dict that `to_json` made.

        Raises:
            QasError: not such a dict, a newer schema version, or a missing, malformed or inconsistent entry.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise QasError(f"a problem file is a JSON object with format {FORMAT!r}, got {_short(data)}")
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
            raise QasError(f"problem files of version 1 to {VERSION} can be read, got version {_short(version)}")
        missing = [key for key in ("name", "terms", "n_qubits", "unit", "threshold") if key not in data]
        if missing:
            raise QasError(
                f"a problem file needs name, terms, n_qubits, unit and threshold; missing: {', '.join(missing)}"
            )
        terms = data["terms"]
        if not isinstance(terms, Mapping):
            raise QasError(f"the terms of a problem file map Pauli strings to numbers, got {_short(terms)}")
        hamiltonian = Hamiltonian({str(p): _finite(c, f"the coefficient of {p}") for p, c in terms.items()})
        if data["n_qubits"] != hamiltonian.n_qubits:
            raise QasError(f"n_qubits is {_short(data['n_qubits'])} but the terms act on {hamiltonian.n_qubits} qubits")
        provenance = data.get("provenance", {})
        if not isinstance(provenance, Mapping):
            raise QasError(f"the provenance of a problem file is a JSON object, got {_short(provenance)}")
        return cls(
            name=data["name"],
            hamiltonian=hamiltonian,
            unit=data["unit"],
            threshold=_finite(data["threshold"], "the threshold"),
            description=data.get("description", ""),
            provenance=dict(provenance),
            references={key: data[key] for key in _REFERENCES if key in data},
        )


def problem_from_json(data: Any) -> BaseProblem:
    """Rebuild a problem of any kind from the dict that its `to_json` made.

    Raises:
        QasError: a format that `PROBLEM_FORMATS` does not have, or a dict that the class of its format refuses.
    """
    named = str(data.get("format")) if isinstance(data, Mapping) else FORMAT
    module, kind = PROBLEM_FORMATS.get(named, PROBLEM_FORMATS[FORMAT]).split(":")
    return getattr(importlib.import_module(module), kind).from_json(data)


def require_hamiltonian(problem: BaseProblem, what: str) -> Problem:
    """`problem`, if it is one of a Hamiltonian.

    Args:
        problem: what circuits are judged on.
        what: what needs the Hamiltonian, for the message; singular.

    Raises:
        QasError: it is another kind of problem.
    """
    if not isinstance(problem, Problem):
        raise QasError(f"{what} needs a problem with a Hamiltonian, got {problem.name}")
    return problem


def problem(
    hamiltonian: Any,
    *,
    name: str = "custom",
    exact: float | None = None,
    unit: str = "",
    threshold: float | None = None,
    description: str = "",
) -> Problem:
    """A problem from a SparsePauliOp, a dict of Pauli strings, a list of pairs or a dense Hermitian matrix.

    Args:
        hamiltonian: whatever `Hamiltonian.read` accepts.
        name: id of the problem.
        exact: ground energy, if known; otherwise computed at first use.
        unit: unit of the energies.
        threshold: error regarded as success; None: 0.001 of the sum of |coefficients| without the identity.
        description: one line.

    Raises:
        QasError: the operator is malformed or not Hermitian, or `exact` or `threshold` is not a usable number.
    """
    try:
        operator = Hamiltonian.read(hamiltonian)
    except QasError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise QasError(f"cannot read a Hamiltonian from {type(hamiltonian).__name__}: {_line(error)}") from None
    references = {} if exact is None else {"exact": exact}
    return Problem(
        name=name,
        hamiltonian=operator,
        unit=unit,
        threshold=threshold,
        description=description,
        provenance={"family": "custom"},
        references=references,
    )


# ---------------------------------------------------------------------- spin chains
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
    n, periodic = _chain("tfim", n, periodic)
    terms = [(_string(n, {i: "Z", j: "Z"}), coupling) for i, j in _bonds(n, periodic)]
    terms += [(_string(n, {i: "X"}), field) for i in range(n)]
    return _spin_problem("tfim", "J ΣZZ + h ΣX", n, periodic, coupling, field, 1.0, terms)


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
    n, periodic = _chain("heisenberg", n, periodic)
    terms = [(_string(n, {i: a, j: a}), coupling) for i, j in _bonds(n, periodic) for a in "XYZ"]
    terms += [(_string(n, {i: "Z"}), field) for i in range(n)]
    return _spin_problem("heisenberg", "J Σ(XX+YY+ZZ) + h ΣZ", n, periodic, coupling, field, 1.0, terms)


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
    n, periodic = _chain("cluster", n, periodic)
    terms = []
    for i in range(n):
        sides = [(i + step) % n for step in (-1, 1) if periodic or 0 <= i + step < n]
        terms.append((_string(n, {i: "X"} | dict.fromkeys(sides, "Z")), -_finite(coupling, "the coupling")))
    terms += [(_string(n, {i: "X"}), -_finite(field, "the field")) for i in range(n)]
    return _spin_problem("cluster", "-J ΣZXZ - h ΣX", n, periodic, coupling, field, 0.0, terms)


def _chain(family: str, n: Any, periodic: bool) -> tuple[int, bool]:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 2 <= n <= MAX_QUBITS:
        raise QasError(f"{family} takes 2 to {MAX_QUBITS} spins, got {n}")
    n = int(n)
    return n, bool(periodic) and n >= 3


def _bonds(n: int, periodic: bool) -> list[tuple[int, int]]:
    return [(i, (i + 1) % n) for i in range(n if periodic else n - 1)]


def _string(n: int, letters: Mapping[int, str]) -> str:
    return "".join(letters.get(q, "I") for q in reversed(range(n)))


def _spin_problem(
    family: str,
    formula: str,
    n: int,
    periodic: bool,
    coupling: float,
    strength: float,
    usual: float,
    terms: Iterable[tuple[str, float]],
) -> Problem:
    coupling, strength = _finite(coupling, "the coupling"), _finite(strength, "the field")
    if coupling == 0.0 and strength == 0.0:
        raise QasError(f"{family} needs a coupling or a field, got 0 for both")
    name = f"{family}-{n}" + ("" if periodic or n == 2 else "-open")
    name += ("" if coupling == 1.0 else f"-j{coupling:g}") + ("" if strength == usual else f"-h{strength:g}")
    shape = "ring" if periodic else "open chain"
    return Problem(
        name=name,
        hamiltonian=Hamiltonian(terms),
        unit="J",
        description=f"{n} spins, {shape}, H = {formula}, J = {coupling:g}, h = {strength:g}",
        provenance={
            "family": family,
            "formula": f"H = {formula}",
            "n": n,
            "coupling": coupling,
            "field": strength,
            "periodic": periodic,
        },
    )


# ---------------------------------------------------------------------- max-cut
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
        edges.append((i, j, _finite(weight, f"the weight of edge {a!r}-{b!r}")))
    if not any(weight for *_, weight in edges):
        raise QasError(f"maxcut takes graphs with at least one edge of nonzero weight, got {len(edges)} edges")
    edges.sort()
    index = np.arange(1 << n)
    weights = np.zeros(1 << n)
    for i, j, weight in edges:
        weights += weight * ((index >> i ^ index >> j) & 1)
    best = int(weights.argmax())
    total = sum(weight for *_, weight in edges)
    terms = [("I" * n, -total / 2)] + [(_string(n, {i: "Z", j: "Z"}), weight / 2) for i, j, weight in edges]
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
        references=dict.fromkeys(_REFERENCES, energy),
    )


def _random_maxcut(n: int, seed: int) -> Problem:
    import networkx as nx

    if not 2 <= n <= MAX_QUBITS:
        raise QasError(f"maxcut takes graphs of 2 to {MAX_QUBITS} nodes, got {n}")
    rng = np.random.default_rng([n, seed])
    regular = n % 2 == 0 and n >= 4
    while True:
        draw = int(rng.integers(2**31))
        drawn = nx.random_regular_graph(3, n, seed=draw) if regular else nx.gnp_random_graph(n, 0.5, seed=draw)
        if nx.is_connected(drawn):
            break
    # Node order decides which qubit a node gets; networkx does not promise one.
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(sorted(tuple(sorted(edge)) for edge in drawn.edges))
    made = maxcut(graph, name=f"maxcut-{n}-{seed}")
    kind = "random 3-regular" if regular else "random (edge probability 1/2)"
    provenance = made.provenance | {"graph": kind, "seed": seed, "networkx": nx.__version__}
    return Problem(
        name=made.name,
        hamiltonian=made.hamiltonian,
        unit=made.unit,
        description=f"{made.description}, {kind}",
        provenance=provenance,
        references=made.references,
    )


# ---------------------------------------------------------------------- state preparation
def state_preparation(state: Any, *, name: str | None = None) -> Problem:
    r"""Preparation of a target state from :math:`|0\dots0\rangle`, :math:`H = -|\psi\rangle\langle\psi|`.

    The energy is minus the fidelity, so the error is the infidelity. `basis_state` and `product_state` tell how much of
    the target a basis state and a product state reach.

    Args:
        state: the target, shape (2**n,) with n from 1 to 8, index in Qiskit's order (qubit 0 least significant); a
            `Circuit` stands for the state it prepares. Normalized here.
        name: id; default ``state-<n>``.

    Raises:
        QasError: no vector of 2**n finite numbers, or the zero vector.
    """
    if isinstance(state, Circuit):
        from qas.simulators.statevector import StatevectorSimulator

        provenance: dict[str, Any] = {"target": state.to_list()}
        psi = StatevectorSimulator().state(state)
    else:
        provenance = {}
        try:
            psi = np.array(state, dtype=np.complex128)
        except (TypeError, ValueError):
            raise QasError(f"a target state is a vector of 2^n numbers, got {_short(state)}") from None
    n = psi.size.bit_length() - 1
    if psi.ndim != 1 or not 1 <= n <= MAX_TARGET_QUBITS or psi.size != 1 << n:
        raise QasError(
            f"a target state is a vector of 2^n numbers with n from 1 to {MAX_TARGET_QUBITS}, got shape {psi.shape}"
        )
    norm = float(np.linalg.norm(psi))
    if not (math.isfinite(norm) and norm > 1e-12):
        raise QasError(f"a target state is finite and not zero, got a vector of norm {norm}")
    psi /= norm
    product = _product_fidelity(psi, n)
    return Problem(
        name=name or f"state-{n}",
        hamiltonian=Hamiltonian.from_matrix(-np.outer(psi, psi.conj()), tolerance=1e-14),
        unit="fidelity",
        threshold=0.01,
        description=f"preparation of a state of {n} qubits, H = -|ψ><ψ|, a product state reaches {product:.3f}",
        provenance={"family": "state", "formula": "H = -|ψ><ψ|", "n": n} | provenance,
        references={
            "exact": -1.0,
            "product_state": -product,
            "basis_state": -float((np.abs(psi) ** 2).max()),
        },
    )


def _product_fidelity(psi: np.ndarray, n: int, starts: int = 40) -> float:
    """Largest |<product|psi>|², by seeded starts of one-qubit-at-a-time maximization; a lower bound on the true one."""
    rng = np.random.default_rng(0)
    tensor = psi.reshape((2,) * n)
    best = float(np.abs(psi).max())  # a basis state is a product state, and random starts may miss it
    for _ in range(starts):
        factors = rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2))
        factors /= np.linalg.norm(factors, axis=1, keepdims=True)
        value = 0.0
        for _ in range(200):
            before = value
            for axis in range(n):
                rest = tensor
                for other in reversed(range(n)):
                    if other != axis:
                        rest = np.tensordot(rest, factors[other].conj(), axes=(other, 0))
                value = float(np.linalg.norm(rest))
                factors[axis] = rest / value if value > 1e-300 else factors[axis]
            if value - before < 1e-12:
                break
        best = max(best, value)
    return min(1.0, best**2)


def _random_target(n: int, seed: int) -> Problem:
    """The state of a random circuit of the kind that fills the published pools: 5n/2 gates, at most 5 layers.

    Most such circuits on few qubits entangle little or nothing; targets of which a product state reaches more than 0.9
    are drawn anew.
    """
    rng = np.random.default_rng([n, seed])
    kinds = [name for name in POOL_GATES if gate_spec(name).n_qubits <= n]
    while True:
        gates = []
        for _ in range(5 * n // 2):
            name = kinds[int(rng.integers(len(kinds)))]
            qubits: tuple[int, ...] = (int(rng.integers(n)),)
            if name == "cx":
                qubits = (qubits[0], (qubits[0] + 1) % n)
            elif gate_spec(name).n_qubits == 2:
                qubits = (qubits[0], (qubits[0] + int(rng.integers(1, n))) % n)
            angles = rng.uniform(0.0, 2.0 * np.pi, size=gate_spec(name).n_angles)
            gates.append(Gate(name, qubits, tuple(angles.tolist())))
        circuit = Circuit(n, gates)
        if circuit.depth <= 5 and circuit.two_qubit_gates:
            made = state_preparation(circuit, name=f"state-{n}-{seed}")
            if made.product_state > -0.9:
                break
    return replace(made, provenance=made.provenance | {"seed": seed})


# ---------------------------------------------------------------------- names
_PUBLISHED_GRAPHS = {
    "maxcut-4-url": "01 03 12 23",
    "maxcut-8-url": "01 06 07 12 16 24 27 37 36 45 46 51 56 57 67",
}
"""The graphs of arXiv:2401.11576 as its code release has them; largest cuts 4 and 12."""


def _published_maxcut(name: str) -> Problem:
    import networkx as nx

    edges = [(int(pair[0]), int(pair[1])) for pair in _PUBLISHED_GRAPHS[name].split()]
    graph = nx.Graph()
    graph.add_nodes_from(range(1 + max(map(max, edges))))
    graph.add_edges_from(edges)
    made = maxcut(graph, name=name)
    return replace(made, description=f"{made.description}, the graph of arXiv:2401.11576")


_CHAINS: dict[str, Callable[..., Problem]] = {"tfim": tfim, "heisenberg": heisenberg, "cluster": cluster}
_FAMILIES = {
    "tfim-N": f"transverse-field Ising ring, ΣZZ + ΣX, N = 2 to {MAX_QUBITS}; tfim-N-open for an open chain",
    "heisenberg-N": f"Heisenberg ring, Σ(XX+YY+ZZ) + ΣZ, N = 2 to {MAX_QUBITS}; heisenberg-N-open for an open chain",
    "cluster-N": f"cluster-state ring, -ΣZXZ, N = 2 to {MAX_QUBITS}; cluster-N-open for an open chain",
    "maxcut-N-url": "max-cut of the published graphs of arXiv:2401.11576, N = 4 or 8",
    "state-N-SEED": f"state of a seeded random circuit, -|ψ><ψ|, N = 2 to {MAX_TARGET_QUBITS}",
    "labelled FILE": "a labelled pool, judged by look-up; FILE is POOL:TASK, such as pools/q4:state-4-0",
    "maxcut-N-SEED": f"max-cut of a seeded random graph, N = 2 to {MAX_QUBITS}, 3-regular for even N >= 4",
}


def list_problems() -> dict[str, str]:
    """Ids that `load_problem` knows, each with one line about it; capital letters stand for what is to be filled in."""
    return {name: _read_molecule(name).description for name in _molecule_names()} | _families()


def needs_file(name: str) -> bool:
    """Whether `load_problem` wants the path of a file behind this name, after a space."""
    return f"{name.strip().lower()} FILE" in _families()


def load_problem(name: str) -> BaseProblem:
    """The problem with this id: a molecule, or a member of a family such as ``tfim-6``, ``adapter-target dW.npy``.

    Raises:
        UnknownNameError: no such id; the message names the nearest one.
        QasError: a malformed member of a family, such as ``tfim-0``.
    """
    if not isinstance(name, str):
        raise QasError(f"a problem is loaded by its name, got {type(name).__name__}")
    key = name.strip().lower()
    if key.startswith("adapter-"):
        from qas.adapters.problems import load_adapter_problem

        member, space, path = name.strip().partition(" ")
        return load_adapter_problem(member.lower() + space + path)
    if key.startswith("labelled "):
        from qas.encoders.pools.pool import TabularProblem

        return TabularProblem.load(name.strip()[len("labelled ") :].strip())
    molecules = _molecule_names()
    if key in molecules:
        return _read_molecule(key)
    family, _, rest = key.partition("-")
    if family in _CHAINS:
        match = re.fullmatch(r"(\d{1,9})(-open)?", rest, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_QUBITS:
            raise QasError(
                f"{family} problems are named {family}-N or {family}-N-open with N from 2 to {MAX_QUBITS}, "
                f"got {_short(name)}"
            )
        return _CHAINS[family](int(match[1]), periodic=match[2] is None)
    if key in _PUBLISHED_GRAPHS:
        return _published_maxcut(key)
    if family == "state":
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})", rest, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_TARGET_QUBITS:
            raise QasError(
                f"state problems are named state-N-SEED with N from 2 to {MAX_TARGET_QUBITS}, got {_short(name)}"
            )
        return _random_target(int(match[1]), int(match[2]))
    if family == "maxcut":
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})", rest, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= MAX_QUBITS:
            raise QasError(f"maxcut problems are named maxcut-N-SEED with N from 2 to {MAX_QUBITS}, got {_short(name)}")
        return _random_maxcut(int(match[1]), int(match[2]))
    digits = re.findall(r"\d+", key)
    # A forgotten hyphen ("tfim6") should be answered with the member that was meant, not with a placeholder.
    members = [f"{chain}-{digits[0]}" for chain in _CHAINS] if digits else list(_families())
    raise UnknownNameError("problem", _line(name), [*molecules, *members])


def _families() -> dict[str, str]:
    from qas.adapters.problems import FAMILIES

    return _FAMILIES | FAMILIES


def _molecule_names() -> list[str]:
    return sorted(path.stem for path in _MOLECULES.glob("*.json"))


def _read_molecule(name: str) -> Problem:
    path = _MOLECULES / f"{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QasError(f"the data file of problem {name!r} cannot be read: {_line(error)}") from None
    return Problem.from_json(data)


# ---------------------------------------------------------------------- checks
def _finite(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise QasError(f"{what} is a finite number, got {_short(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise QasError(f"{what} is a finite number, got {_short(value)}")
    return number


def _x_mask(string: str) -> int:
    return sum(1 << q for q, letter in enumerate(reversed(string)) if letter in "XY")


def _short(value: Any) -> str:
    return _line(repr(value))


def _line(message: object) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= 80 else text[:77] + "..."
