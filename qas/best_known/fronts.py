"""Fronts of the atlas, as the package ships them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qas.best_known.published import Published, published
from qas.best_known.records import Header, KnownCircuit, fingerprint, read_records, tolerance
from qas.errors import QasError, RunError, UnknownNameError
from qas.problems import BaseProblem, OperatorProblem, load_problem

FOLDER = Path(__file__).parents[1] / "data" / "atlas"
"""Where the records are."""


@dataclass(frozen=True)
class KnownFront:
    """The best known circuits of a problem, fewest two-qubit gates first: a sequence of `KnownCircuit`.

    Attributes:
        header: the problem, and the fingerprint of its Hamiltonian.
        circuits: none has an error that another reaches with as few two-qubit gates.
        published: what papers report of the problem.
    """

    header: Header
    circuits: tuple[KnownCircuit, ...]
    published: tuple[Published, ...] = ()

    @property
    def problem(self) -> str:
        return self.header.problem

    @property
    def unit(self) -> str:
        return self.header.unit

    def __len__(self) -> int:
        return len(self.circuits)

    def __iter__(self) -> Iterator[KnownCircuit]:
        return iter(self.circuits)

    def __getitem__(self, index: int) -> KnownCircuit:
        return self.circuits[index]

    @property
    def best(self) -> KnownCircuit:
        """The circuit of lowest error."""
        return self.circuits[-1]

    def at(self, two_qubit_gates: int) -> KnownCircuit | None:
        """The best circuit with at most so many two-qubit gates; None if there is none."""
        fits = [each for each in self.circuits if each.two_qubit_gates <= two_qubit_gates]
        return fits[-1] if fits else None

    @property
    def solving(self) -> KnownCircuit | None:
        """The circuit with the fewest two-qubit gates whose error is at most the threshold; None if there is none."""
        return next((each for each in self.circuits if each.error <= self.header.threshold), None)

    @property
    def ahead(self) -> tuple[Published, ...]:
        """Published points that no circuit here reaches: with as few two-qubit gates none has as low an error."""
        return tuple(point for point in self.published if not self._reaches(point))

    def _reaches(self, point: Published) -> bool:
        two = self.best.two_qubit_gates if point.two_qubit_gates is None else point.two_qubit_gates
        mine = self.at(two)
        return mine is not None and mine.error <= point.error + tolerance(point.error)

    def __repr__(self) -> str:
        return f"KnownFront({self.problem}, {len(self)} circuits, best error {self.best.error:.3g})"


def known_problems() -> tuple[str, ...]:
    """Names of the problems that the atlas has circuits of."""
    return tuple(map(_problem_of, _files("*")))


def _files(name: str, folder: Path = FOLDER) -> list[Path]:
    found = (path for path in folder.glob(f"{name}.jsonl*") if path.name != "published.jsonl")
    return sorted(found, key=_problem_of)


def _problem_of(path: Path) -> str:
    return path.name.partition(".jsonl")[0]


def read_front(path: Path) -> KnownFront:
    """A front from its file, without a look at the problem.

    Raises:
        RunError: it is damaged, or holds no circuit.
    """
    header, circuits = read_records(path)
    if not circuits:
        raise RunError(f"the file of records holds no circuit: {path}")
    return KnownFront(header, tuple(circuits), published(header.problem))


def all_fronts(folder: Path = FOLDER) -> Iterator[KnownFront]:
    """Every front, by name of the problem; whether the problems have changed is not checked."""
    return map(read_front, _files("*", folder))


def atlas(problem: str | BaseProblem) -> KnownFront:
    """The best known circuits of a problem, and what papers report of it.

    Args:
        problem: a name of `known_problems`, or a problem of such a name.

    Raises:
        UnknownNameError: the atlas has no circuit of it.
        QasError: its Hamiltonian is another one than that of the circuits.
    """
    goal = load_problem(problem) if isinstance(problem, str) else problem
    name = goal.name
    if name not in known_problems():
        raise UnknownNameError("problem of the atlas", name, known_problems())
    (path,) = _files(name)
    front = read_front(path)
    if not isinstance(goal, OperatorProblem) or fingerprint(goal) != front.header.hamiltonian:
        raise QasError(f"the atlas's circuits of {name} are for another problem than the one given")
    return front


def atlas_or_none(problem: BaseProblem) -> KnownFront | None:
    """As `atlas`; None where it has nothing on exactly this problem."""
    if problem.name not in known_problems():
        return None
    try:
        return atlas(problem)
    except QasError:
        return None
