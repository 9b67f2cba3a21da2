"""Problems of a Hamiltonian: a circuit is judged on the energy of the state that it prepares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qas.checks import finite_number, one_line, shortened, whole_number
from qas.circuits import Circuit
from qas.errors import QasError, TooLargeError
from qas.fermions import Molecule
from qas.files import check_versioned, versioned
from qas.hamiltonians import Hamiltonian
from qas.problems.base import BaseProblem, OperatorProblem
from qas.problems.triviality import Triviality, basis_states_needed
from qas.tapering import Tapering

if TYPE_CHECKING:
    from qas.noise import NoiseModel
    from qas.simulators.base import Objective, Simulator

FORMAT = "qas-problem"
VERSION = 1
"""Schema version of `Problem.to_json`."""
CHEMICAL_ACCURACY = 1.6e-3
"""Error in hartree below which a molecular energy counts as solved (1 kcal/mol)."""
REFERENCES = ("exact", "product_state", "basis_state")
"""Energies that are known of a problem, lowest first."""
SIMPLE = ("unrestricted", "determinants")
"""What else may be known: energy of the best determinant in unrestricted orbitals, number that the threshold takes."""

_MEMORY_LIMIT = 2 << 30


@dataclass(frozen=True)
class Problem(OperatorProblem):
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
    """Known values: ``exact``, ``product_state``, ``basis_state`` and ``determinants``, which are computed at first use
    where they are not given, and ``unrestricted``."""

    whole_matrix: ClassVar[bool] = False
    device_objective: ClassVar[str] = "zne"

    def __post_init__(self) -> None:
        if not isinstance(self.hamiltonian, Hamiltonian):
            raise QasError(f"a problem needs a Hamiltonian, got {type(self.hamiltonian).__name__}")
        if self.threshold is None:
            object.__setattr__(self, "threshold", 1e-3 * self._norm if self._norm > 1e-12 else 1e-9)
        super().__post_init__()
        unknown = set(self.references) - {*REFERENCES, *SIMPLE}
        if unknown:
            names = ", ".join((*REFERENCES, *SIMPLE))
            raise QasError(f"reference values are named {names}, got {', '.join(map(str, unknown))}")
        known = {key: finite_number(key, self.references[key]) for key in REFERENCES if key in self.references}
        ordered = [known[key] for key in REFERENCES if key in known]
        slack = 1e-6 * max(1.0, *(abs(v) for v in ordered)) if ordered else 0.0
        if any(low > high + slack for low, high in zip(ordered, ordered[1:], strict=False)):
            raise QasError(f"reference energies satisfy exact <= product_state <= basis_state, got {known}")
        if "unrestricted" in self.references:
            known["unrestricted"] = finite_number("unrestricted", self.references["unrestricted"])
        if "determinants" in self.references:
            known["determinants"] = whole_number("the number of determinants", self.references["determinants"])
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
    def unrestricted(self) -> float | None:
        """Lowest energy found of a determinant whose alpha and beta orbitals may differ, in `unit`; None: not known."""
        return self.references.get("unrestricted")

    @cached_property
    def determinants(self) -> int:
        """Basis states whose best superposition solves the problem: see `qas.problems.triviality.basis_states_needed`.

        Raises:
            TooLargeError: not given, and more than 16 qubits.
        """
        assert self.threshold is not None
        threshold = self.threshold
        return int(self._reference("determinants", lambda: basis_states_needed(self.hamiltonian, threshold)))

    @property
    def triviality(self) -> Triviality:
        """What simple states reach.

        Raises:
            TooLargeError: as of `product_state` and `determinants`.
        """
        assert self.threshold is not None
        return Triviality(
            product_state=self.error(self.product_state),
            unrestricted=None if self.unrestricted is None else self.error(self.unrestricted),
            determinants=self.determinants,
            threshold=self.threshold,
        )

    @cached_property
    def molecule(self) -> Molecule | None:
        """Electrons, mapping and tapering of a molecular problem; None for other operators.

        Raises:
            QasError: the provenance says it is a molecule, but what it says does not fit the operator.
        """
        found = Molecule.from_provenance(self.provenance)
        if found is not None and found.n_qubits != self.n_qubits:
            raise QasError(f"{self.name} is a molecule on {found.n_qubits} qubits, got an operator on {self.n_qubits}")
        return found

    @cached_property
    def determinant(self) -> str:
        """The reference state as bits, the rightmost one qubit 0's.

        Of a molecule the determinant of the lowest orbitals, which is the Hartree-Fock state in its own orbitals; of
        other operators the basis state of lowest energy, the first one of equal ones.

        Raises:
            TooLargeError: no molecule, and more qubits than memory holds.
        """
        if self.molecule is not None:
            return self.molecule.encode_determinant()
        if 8 << self.n_qubits > _MEMORY_LIMIT:
            raise TooLargeError(f"the lowest basis state is searched on up to 28 qubits, got {self.n_qubits}")
        return self.hamiltonian.basis_state

    def tapered(self, *, sector: Sequence[int] | None = None, name: str | None = None) -> Problem:
        """The problem on fewer qubits: without one for each Pauli string that commutes with all terms.

        Args:
            sector: value of each of `qas.tapering.symmetries`; None: of a molecule that of the reference determinant,
                of other operators that of the ground state.
            name: id; None: ``<name>-tapered``.

        Raises:
            QasError: no symmetry, a sector that does not fit, or a molecule from which qubits were taken already.
            TooLargeError: more qubits than can be diagonalized, and no sector given.
        """
        molecule = self.molecule
        if molecule is not None and molecule.tapering is not None:
            raise QasError(f"{self.name} has no qubit left to taper: its mapping or tapering took them already")
        determinant = self.determinant if molecule is not None and sector is None else None
        tapering = Tapering.of(self.hamiltonian, determinant=determinant, sector=sector)
        # A determinant stays one, and the molecule's lowest state lies in its sector or is not what is sought.
        kept = SIMPLE if molecule is not None and sector is None else ()
        return Problem(
            name=name or f"{self.name}-tapered",
            hamiltonian=tapering.taper(self.hamiltonian),
            unit=self.unit,
            threshold=self.threshold,
            description=f"{self.description}, tapered".removeprefix(", "),
            provenance=self.provenance | {"tapering": tapering.to_json()},
            references={key: self.references[key] for key in kept if key in self.references},
        )

    @property
    def reference_circuit(self) -> Circuit:
        """X gates that prepare `determinant` from |0…0>."""
        ones = [q for q, bit in enumerate(reversed(self.determinant)) if bit == "1"]
        return Circuit(self.n_qubits, [("x", [q], []) for q in ones])

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

    def simulator(self, noise: NoiseModel | None = None, engine: Any = None, shots: int | None = None) -> Simulator:
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
        masks = len(np.unique(self.hamiltonian.masks[0])) if self.n_qubits < 60 else 1
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
        names = ("name", "description", "n_qubits", "unit", "threshold")
        data = versioned(FORMAT, VERSION, {name: getattr(self, name) for name in names})
        for key in REFERENCES:
            try:
                data[key] = getattr(self, key)
            except TooLargeError:
                continue
        data |= {key: self.references[key] for key in SIMPLE if key in self.references}
        data["provenance"] = json.loads(json.dumps(self.provenance))
        data["terms"] = self.hamiltonian.terms
        return data

    @classmethod
    def from_json(cls, data: Any) -> Problem:
        """Rebuild a problem from the dict that `to_json` made.

        Raises:
            QasError: not such a dict, a newer schema version, or a missing, malformed or inconsistent entry.
        """
        data = check_versioned(data, FORMAT, VERSION, "a problem file")
        missing = [key for key in ("name", "terms", "n_qubits", "unit", "threshold") if key not in data]
        if missing:
            raise QasError(
                f"a problem file needs name, terms, n_qubits, unit and threshold; missing: {', '.join(missing)}"
            )
        terms = data["terms"]
        if not isinstance(terms, Mapping):
            raise QasError(f"the terms of a problem file map Pauli strings to numbers, got {shortened(terms)}")
        hamiltonian = Hamiltonian({str(p): finite_number(f"the coefficient of {p}", c) for p, c in terms.items()})
        if data["n_qubits"] != hamiltonian.n_qubits:
            raise QasError(
                f"n_qubits is {shortened(data['n_qubits'])} but the terms act on {hamiltonian.n_qubits} qubits"
            )
        provenance = data.get("provenance", {})
        if not isinstance(provenance, Mapping):
            raise QasError(f"the provenance of a problem file is a JSON object, got {shortened(provenance)}")
        return cls(
            name=data["name"],
            hamiltonian=hamiltonian,
            unit=data["unit"],
            threshold=finite_number("the threshold", data["threshold"]),
            description=data.get("description", ""),
            provenance=dict(provenance),
            references={key: data[key] for key in (*REFERENCES, *SIMPLE) if key in data},
        )


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
        raise QasError(f"cannot read a Hamiltonian from {type(hamiltonian).__name__}: {one_line(error)}") from None
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
