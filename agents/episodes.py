"""The circuit builder as the learning agents see it: every optimization goes through the search's one budget."""

from __future__ import annotations

import numpy as np

from qas.agents.base import Search
from qas.circuits import Circuit
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.curricula import RandomHalting
from qas.errors import UnknownNameError
from qas.vqe import Evaluation, Evaluator

_HALTING = ("none", "random")


class CountedEvaluator(Evaluator):
    """The search's evaluator, with every optimization counted and recorded by the search."""

    def __init__(self, search: Search) -> None:
        self.__dict__.update(search.evaluator.__dict__)
        self.search = search

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
    ) -> Evaluation:
        return self.search.evaluate(circuit, rng, max_evaluations=max_evaluations, exact_start=exact_start)

    def energy(self, circuit: Circuit) -> float:
        return self.search.energy(circuit)


def make_environment(search: Search, halting: str = "none") -> CircuitBuilderEnv:
    """The environment of a search.

    Raises:
        UnknownNameError: `halting` is neither "none" nor "random".
    """
    if halting not in _HALTING:
        raise UnknownNameError("halting", halting, _HALTING)
    limit = search.max_gates
    random_halting = None
    if halting == "random":
        # CRLQAS: mean and spread of its negative binomial, scaled from 70 gates to this limit.
        random_halting = RandomHalting(successes=limit, probability=0.573, low=max(1, limit * 25 // 70), high=limit)
    return CircuitBuilderEnv(
        search.problem,
        noise=search.noise,
        max_gates=limit,
        gates=search.table.gates,
        coupling=search.table.coupling,
        random_halting=random_halting,
        evaluator=CountedEvaluator(search),
    )
