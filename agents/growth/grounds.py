"""What ADAPT grows on: where a circuit starts, what may be appended, and in which order it is worth trying."""

from __future__ import annotations

import abc
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Search
from qas.circuits import Circuit
from qas.errors import QasError
from qas.excitations import Operator, operator_pool
from qas.problems import Problem
from qas.problems.protocols import GrownByStrings

RANKS = {"gradient": "by the size of the slope", "gain": "by what the operator alone can win, in closed form"}


class Ground(abc.ABC):
    """A problem as ADAPT sees it; operators are numbered."""

    judges_start: ClassVar[bool]
    """Whether the circuit without operators is worth an evaluation."""

    @property
    @abc.abstractmethod
    def start(self) -> Circuit:
        """The circuit without operators."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Settings of the search that hold where the caller gives none."""
        return {}

    @abc.abstractmethod
    def prepare(self, search: Search) -> None:
        """Take over a search.

        Raises:
            QasError: it does not let the operators be appended.
        """

    def has_room(self, circuit: Circuit) -> bool:
        """Whether another operator may be appended."""
        return True

    @abc.abstractmethod
    def ranked(self, circuit: Circuit) -> np.ndarray:
        """Numbers of the operators worth trying, the best first, int64; equal ones by number."""

    @abc.abstractmethod
    def grown(self, circuit: Circuit, chosen: list[int]) -> Circuit:
        """The circuit with some operators appended at angle 0, in their order."""

    @abc.abstractmethod
    def qubits(self, number: int) -> tuple[int, ...]:
        """Qubits that an operator acts on."""


def descending(strengths: np.ndarray, least: float) -> np.ndarray:
    """Positions of what is larger than `least`, the largest first; what differs by rounding alone counts as equal."""
    rounded = np.round(strengths, 10)
    order = np.argsort(-rounded, kind="stable")
    return order[strengths[order] > least]


class StringGround(Ground):
    """An adapter layer, grown by rotations of any of the 4^n Pauli strings.

    The slopes of all strings come from one Walsh-Hadamard transform for each X mask. A string is reached by two-qubit
    gates that carry a RY to it; they stay in the circuit, because both problems leave the Clifford skeleton out, as
    rotations do. For ``adapter-target`` the slope is that of the fit; for ``adapter-gradient`` it is the coefficient of
    a string that is not turned yet, and the first round is the best architecture there is.
    """

    judges_start = False

    def __init__(self, problem: Any) -> None:
        self.problem: GrownByStrings = problem
        self.n_qubits: int = problem.n_qubits

    @property
    def start(self) -> Circuit:
        return Circuit(self.n_qubits)

    def prepare(self, search: Search) -> None:
        missing = {"ry", "cx", "cz"} - set(search.alphabet.gates)
        if missing or search.alphabet.coupling is not None:
            raise QasError("agent adapt needs the gates ry, cx and cz on all pairs of qubits")
        least = 1 + 3 * (self.n_qubits - 1) // 2
        if search.max_gates < least:
            raise QasError(f"agent adapt needs at least {least} gates on {self.n_qubits} qubits to turn any string")

    def has_room(self, circuit: Circuit) -> bool:
        return circuit.n_angles < self.problem.angles

    def ranked(self, circuit: Circuit) -> np.ndarray:
        slopes = np.abs(self.problem.string_slopes(circuit))
        index = np.arange(len(slopes))
        turns = np.bitwise_count(index[:, None] & index) % 2 == 1
        return descending(np.where(turns, slopes, -1.0).ravel(), -0.5)

    def grown(self, circuit: Circuit, chosen: list[int]) -> Circuit:
        for number in chosen:
            circuit = self.problem.with_string(circuit, divmod(number, 1 << self.n_qubits))
        return circuit

    def qubits(self, number: int) -> tuple[int, ...]:
        x, z = divmod(number, 1 << self.n_qubits)
        return tuple(q for q in range(self.n_qubits) if (x | z) >> q & 1)


class OperatorGround(Ground):
    """A Hamiltonian, grown from a basis state by the operators of a pool."""

    judges_start = True

    def __init__(
        self, problem: Problem, pool: str | None, generalized: bool, start: str | None, rank: str, slope: float
    ) -> None:
        kind = pool or ("pauli" if problem.molecule is None else "qeb")
        self.problem, self.kind, self.rank, self.slope = problem, kind, rank, slope
        self.operators: list[Operator] = operator_pool(problem, kind, generalized=generalized)
        self._start = problem.reference_circuit if start is None else _determinant(problem, start)
        self._owner = np.repeat(np.arange(len(self.operators)), [len(o.generators) for o in self.operators])
        self._generators = [generator for operator in self.operators for generator in operator.generators]

    @property
    def start(self) -> Circuit:
        return self._start

    @cached_property
    def gates(self) -> list[str]:
        """Names of all gates that a circuit may have."""
        names = dict.fromkeys(gate.name for operator in self.operators for gate in operator.gates)
        return list(dict.fromkeys(["x", *names]))

    @property
    def defaults(self) -> dict[str, Any]:
        return {"gates": self.gates, "max_gates": 100_000}

    def prepare(self, search: Search) -> None:
        missing = [name for name in self.gates if name not in search.alphabet.gates]
        if missing:
            raise QasError(f"the {self.kind} pool needs the gates {', '.join(self.gates)}; missing: {missing[0]}")
        if search.alphabet.coupling is not None:
            raise QasError("agent adapt appends operators on any qubits, got a coupling")
        self.simulator = search.meter.simulator
        if not len(self.ranked(self._start)):
            raise QasError(
                f"no operator of the {self.kind} pool has a slope at the start {self._bits} of {self.problem.name}; "
                "choose another pool or start"
            )

    @property
    def _bits(self) -> str:
        ones = {q for gate in self._start for q in gate.qubits}
        return "".join("1" if q in ones else "0" for q in reversed(range(self.problem.n_qubits)))

    def ranked(self, circuit: Circuit) -> np.ndarray:
        h, end = self.problem.hamiltonian, [len(circuit)]
        slopes = self.simulator.insertion_gradients(circuit, h, self._generators, positions=end)[0]
        steep = np.sqrt(np.bincount(self._owner, slopes**2))
        if self.rank == "gradient":
            return descending(steep, self.slope)
        gains, _ = self.simulator.append_gains(circuit, h, self._generators)
        return descending(np.where(steep > self.slope, np.bincount(self._owner, gains), -1.0), -0.5)

    def grown(self, circuit: Circuit, chosen: list[int]) -> Circuit:
        gates = [gate for number in chosen for gate in self.operators[number].gates]
        return Circuit(circuit.n_qubits, (*circuit.gates, *gates))

    def qubits(self, number: int) -> tuple[int, ...]:
        return self.operators[number].qubits


def _determinant(problem: Problem, bits: str) -> Circuit:
    """X gates that prepare a determinant of a molecule, or a basis state of another Hamiltonian.

    Raises:
        QasError: bits that are none, or a determinant with other numbers of electrons.
    """
    if problem.molecule is not None:
        bits = problem.molecule.encode_determinant(bits)
    if len(bits) != problem.n_qubits or not set(bits) <= set("01"):
        raise QasError(f"the start is {problem.n_qubits} bits for {problem.name}, got {bits!r}")
    return Circuit(problem.n_qubits, [("x", q) for q, bit in enumerate(reversed(bits)) if bit == "1"])
