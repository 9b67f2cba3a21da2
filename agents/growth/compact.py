"""The most compact circuits: grow by excitations, lower to native gates, shrink at fixed accuracy."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from typing import Any, ClassVar, NamedTuple

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.growth.adapt import AdaptAgent
from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.errors import QasError
from qas.gates import SEARCH_GATES
from qas.problems import BaseProblem, require_hamiltonian
from qas.shrinking import shrinking

_ENOUGH = 1 / 3
"""Of the tolerance: error at which a circuit grows no further."""
_ROOM = 1.1
"""Error allowed to a circuit that misses the tolerance, in terms of what it has."""


class _Task(NamedTuple):
    """What is to be shrunk."""

    circuit: Circuit
    tolerance: float


class CompactAgent(Agent):
    """Grows circuits by ADAPT until they are accurate, and takes gates out of them while they stay so.

    A round grows a circuit by the operators of a pool (see `qas.agents.growth.adapt.AdaptAgent`) until its error is a
    third of the tolerance, or nothing is won. Each circuit on the way that meets the tolerance is lowered to rx, ry, rz
    and cx, which costs an excitation of few basis states a few CX only, and shrunk: CX and rotations are taken out, the
    cheapest first, and all angles optimized again, while the error stays within the tolerance (see `qas.shrinking`).
    Rounds after the first grow other circuits.

    Args:
        tolerance: error that circuits may have, problem's unit; None: the problem's threshold.
        pool, generalized, start, rank, candidates, layers, choices: as of agent ``adapt``.
    """

    name: ClassVar[str] = "compact"
    about: ClassVar[str] = "grows by excitations, lowers to native gates, and shrinks at fixed accuracy"

    def __init__(
        self,
        *,
        tolerance: float | None = None,
        pool: str | None = None,
        generalized: bool = True,
        start: str | None = None,
        rank: str = "gradient",
        candidates: int = 20,
        layers: bool = False,
        choices: int = 8,
    ) -> None:
        self.tolerance = None if tolerance is None else finite_number("the tolerance", tolerance, above=0)
        self.pool, self.generalized, self.start, self.rank = pool, generalized, start, rank
        self.candidates = whole_number("candidates", candidates)
        self.layers = layers
        self.choices = whole_number("choices", choices)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"problem": "heisenberg-3", "options": {"candidates": 2, "tolerance": 0.1}}

    def _adapt(self) -> AdaptAgent:
        names = ("pool", "generalized", "start", "rank", "candidates", "layers", "choices")
        return AdaptAgent(**{name: getattr(self, name) for name in names})

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        usual = self._adapt().defaults(require_hamiltonian(problem, "agent compact"))
        gates = list(dict.fromkeys([*SEARCH_GATES, *usual["gates"]]))
        return usual | {"gates": gates, "evaluator": {"max_evaluations": 2000, "tolerance": 1e-7}}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        problem = require_hamiltonian(search.problem, "agent compact")
        if search.noise is not None or search.meter.shots is not None:
            raise QasError("agent compact takes no noise and no shots: what shrinks is compared exactly")
        missing = [name for name in SEARCH_GATES if name not in search.alphabet.gates]
        if missing:
            raise QasError(f"agent compact needs the gates {', '.join(SEARCH_GATES)}; missing: {missing[0]}")
        threshold = problem.threshold if self.tolerance is None else self.tolerance
        assert threshold is not None
        self.bound = threshold
        self.rng = search.rng(2)
        self.growth = self._adapt()
        self.growth.prepare(search)
        self.waiting: deque[_Task] = deque()

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            if self.waiting:
                self._shrink(self.waiting[0])
                self.waiting.popleft()
            else:
                self._grow()

    def _grow(self) -> None:
        """One operator more; a circuit that is to be shrunk waits for it."""
        growth = self.growth
        before, error = growth.circuit, growth.error
        growth.step()
        if growth.circuit is None:
            if before is not None and before.n_angles and error > self.bound:
                self.waiting.append(_Task(before, _ROOM * error))
        elif growth.error <= self.bound:
            self.waiting.append(_Task(growth.circuit, self.bound))
            if growth.error <= _ENOUGH * self.bound:
                growth.restart()

    def _shrink(self, task: _Task) -> None:
        with closing(shrinking(task.circuit, self.meter, task.tolerance, self.rng)) as steps:
            for _ in steps:
                pass  # the meter has shown it to the record

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        growth, arrays = self.growth.state()
        waiting = [[task.circuit.to_list(), task.tolerance] for task in self.waiting]
        return {"growth": growth, "rng": rng_state(self.rng), "waiting": waiting}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.growth.restore(state["growth"], arrays)
        self.rng = restore_rng(state["rng"])
        n = self.search.problem.n_qubits
        self.waiting = deque(_Task(Circuit(n, gates), float(tolerance)) for gates, tolerance in state["waiting"])
