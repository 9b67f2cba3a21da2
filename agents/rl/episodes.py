"""The circuit builder as the learning agents see it: every optimization goes through the search's one budget."""

from __future__ import annotations

from qas.agents.base import Search
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.curricula import RandomHalting
from qas.errors import UnknownNameError

_HALTING = ("none", "random")


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
        gates=search.alphabet.gates,
        coupling=search.alphabet.coupling,
        directions=search.alphabet.directions,
        random_halting=random_halting,
        evaluator=search.meter,
    )
