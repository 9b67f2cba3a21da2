"""What every problem is, whatever its circuits are judged on."""

from __future__ import annotations

import abc
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qas.checks import finite_number, shortened
from qas.circuits import Circuit
from qas.errors import QasError
from qas.files import write_atomic
from qas.gates import SEARCH_GATES
from qas.simplify import simplify

if TYPE_CHECKING:
    from qas.hamiltonians import Hamiltonian
    from qas.noise import NoiseModel
    from qas.simulators.base import BaseObjective, Objective, Simulator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What names of problems match: a run folder can carry them."""


class BaseProblem(abc.ABC):
    """What every problem is: a number for each circuit, how low it can get, and when that is low enough.

    To add a kind of problem, subclass this as a frozen dataclass with the fields below (more may be added), implement
    what is abstract, and name its file format in a `Family`, so that runs open again. Environment, agents, runs,
    reports and the command line know problems only by what is here. The number is called energy, and a good circuit
    has a low one.

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
    device_objective: ClassVar[str] = "noisy"
    """What counts as energy in searches for a device, unless told otherwise; see `qas.mitigation`."""
    listed: ClassVar[bool] = False
    """Judges the circuits of a list only, such as a labelled pool; agents that make their own are refused."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            rule = "a problem name is 1 to 100 letters, digits and . _ + - (first a letter or digit)"
            raise QasError(f"{rule}, got {shortened(self.name)}")
        for label, text in (("unit", self.unit), ("description", self.description)):
            if not isinstance(text, str):
                raise QasError(f"the {label} of a problem is text, got {shortened(text)}")
        threshold = finite_number("the threshold", self.threshold, above=0.0)
        try:
            provenance = json.loads(json.dumps(self.provenance, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
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
        self, noise: NoiseModel | None = None, engine: Any = None, shots: int | None = None
    ) -> Simulator | None:
        """What `objective` and `energy` judge circuits with; None for problems that are judged without a simulator.

        Args:
            noise: hardware noise.
            engine: as of `qas.simulators.make_simulator`; None: the fastest exact one.
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

    def save(self, path: str | Path) -> None:
        """Write what `to_json` makes to a file that `qas.load_problem` reads.

        Raises:
            RunError: it cannot be written.
        """
        write_atomic(Path(path), json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    @abc.abstractmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a problem from the dict that `to_json` made.

        Raises:
            QasError: not such a dict, a newer schema version, or a missing, malformed or inconsistent entry.
        """


class OperatorProblem(BaseProblem):
    """A problem whose energies are expectation values of an operator, on the simulators that it makes."""

    hamiltonian: Hamiltonian
    """What these simulators take beside a circuit."""
    simulated: ClassVar[bool] = True

    @abc.abstractmethod
    def simulator(self, noise: NoiseModel | None = None, engine: Any = None, shots: int | None = None) -> Simulator: ...

    @abc.abstractmethod
    def objective(self, circuit: Circuit, simulator: Simulator | None = None) -> Objective: ...


def require_operator(problem: BaseProblem, what: str) -> OperatorProblem:
    """`problem`, if it is one of an operator: a Hamiltonian, or the projector on a target unitary.

    Args:
        problem: what circuits are judged on.
        what: what needs the operator, for the message; singular.

    Raises:
        QasError: it is another kind of problem.
    """
    if not isinstance(problem, OperatorProblem):
        raise QasError(f"{what} needs a problem with a Hamiltonian or a target unitary, got {problem.name}")
    return problem
