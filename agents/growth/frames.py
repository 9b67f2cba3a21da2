"""Where circuits are searched: on the problem's qubits, or on those that its symmetries leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from qas.agents.base import Agent, Search
from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.gates import SEARCH_GATES
from qas.meter import Meter
from qas.problems import BaseProblem, Problem
from qas.record import Record
from qas.rewriting import compress, native
from qas.tapering import Tapering, symmetries
from qas.vqe import Evaluation


@dataclass
class Inner(Search):
    """A search that an agent makes inside its own one: safe points are those of that agent."""

    outer: Agent | None = None

    def safe_point(self, agent: Agent) -> None:
        """That of the agent outside."""
        assert self.outer is not None
        self.outer.search.safe_point(self.outer)


class _Outward:
    """A record of circuits on fewer qubits, which shows them to another record on all of them."""

    def __init__(self, record: Record, problem: BaseProblem, tapering: Tapering) -> None:
        self.record, self.problem, self.tapering = record, problem, tapering

    @property
    def best_error(self) -> float:
        return self.record.best_error

    def take(self, found: Evaluation, meter: Meter, rng: np.random.Generator, *, tidy: bool = False) -> Evaluation:
        """As `Record.take`; circuits that may join the front are rewritten on all qubits first."""
        offered, promising = found, found.error <= self.record.front.lowest(found.circuit.two_qubit_gates)
        if tidy or promising:
            simpler = self.problem.simplify(found.circuit, 1e-7)
            if simpler is not found.circuit:
                offered = replace(found, circuit=simpler, inverse_hessian=None)
        shown = self.tapering.embedded(offered.circuit)
        if promising:
            shown = compress(native(shown))
        self.record.take(replace(offered, circuit=shown, inverse_hessian=None), meter, rng)
        return offered if tidy else found


class Frame:
    """A problem to search on, and what its circuits are on the qubits of the search.

    Args:
        agent: searches; its meter counts what is done here.
        tapering: symmetries of Z alone that take qubits away; None: the search's own problem.
    """

    def __init__(self, agent: Agent, tapering: Tapering | None = None) -> None:
        search = agent.search
        self.tapering = tapering
        problem, meter = search.problem, search.meter
        if tapering is not None:
            exact = {"exact": problem.exact}  # so that errors are the same in both
            problem = replace(cast("Problem", problem).tapered(sector=tapering.sector), references=exact)
            outward: Any = _Outward(search.record, problem, tapering)
            meter = Meter(replace(meter.evaluator, problem=problem), meter.budget, outward, spent=meter.spent)
        alphabet = Alphabet(problem.n_qubits, SEARCH_GATES)
        self.search = Inner(problem, alphabet, search.max_gates, search.seed, meter, search.record, outer=agent)

    @property
    def meter(self) -> Meter:
        """Judges circuits here."""
        return self.search.meter

    @property
    def n_qubits(self) -> int:
        """Number of qubits here."""
        return self.search.problem.n_qubits

    def outward(self, circuit: Circuit) -> Circuit:
        """The circuit of the search that one of here stands for, rewritten."""
        return circuit if self.tapering is None else compress(native(self.tapering.embedded(circuit)))


def tapering_of(problem: Problem) -> Tapering | None:
    """The symmetries that make qubits of a molecule superfluous, all of Z alone; None: there are none."""
    molecule = problem.molecule
    if molecule is None or molecule.tapering is not None:
        return None
    found = symmetries(problem.hamiltonian)
    if not found or len(found) >= problem.n_qubits or any(set(string) & {"X", "Y"} for string in found):
        return None
    return Tapering.of(problem.hamiltonian, determinant=problem.determinant)
