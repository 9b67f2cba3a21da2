"""Builder and editor as the learning agents see them: every optimization goes through the search's one budget."""

from __future__ import annotations

from typing import Any

from qas.agents.base import Search
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.curricula import RandomHalting
from qas.envs.editor import CircuitEditorEnv
from qas.envs.vector import CircuitBuilderVectorEnv
from qas.errors import UnknownNameError

_HALTING = ("none", "random")
_EDITS_EACH = 12
"""Edits of an episode for each qubit."""
_MOST_EACH = 12
"""Two-qubit gates for each qubit."""


def settings_of_environment(
    search: Search,
    *,
    reward: str = "incremental_with_fixed_ends",
    curriculum: str | float = "moving",
    halting: str = "none",
    observation: str = "layers",
    optimise_every: int | str = 1,
) -> dict[str, Any]:
    """Arguments of `CircuitBuilderEnv` for a search.

    Args:
        search: problem, alphabet, length and evaluator are its.
        reward: a name of `qas.envs.REWARDS`.
        curriculum: a name of `qas.envs.CURRICULA`, or a fixed threshold in the problem's unit.
        halting: "none", or "random": episodes end early at a random length (CRLQAS random halting).
        observation: a name of `qas.envs.OBSERVATIONS`.
        optimise_every: steps between two optimisations of the angles, or "end".

    Raises:
        UnknownNameError: no such halting.
    """
    if halting not in _HALTING:
        raise UnknownNameError("halting", halting, _HALTING)
    limit = search.max_gates
    random_halting = None
    if halting == "random":
        # CRLQAS: mean and spread of its negative binomial, scaled from 70 gates to this limit.
        random_halting = RandomHalting(successes=limit, probability=0.573, low=max(1, limit * 25 // 70), high=limit)
    return {
        "problem": search.problem,
        "noise": search.noise,
        "max_gates": limit,
        "gates": search.alphabet.gates,
        "coupling": search.alphabet.coupling,
        "directions": search.alphabet.directions,
        "reward": reward,
        "curriculum": curriculum,
        "random_halting": random_halting,
        "observation": observation,
        "optimise_every": optimise_every,
        "evaluator": search.meter,
    }


def make_environment(search: Search, **options: Any) -> CircuitBuilderEnv:
    """The environment of a search; options as of `settings_of_environment`."""
    return CircuitBuilderEnv(**settings_of_environment(search, **options))


def make_environments(search: Search, count: int, **options: Any) -> CircuitBuilderVectorEnv:
    """As `make_environment`, so many at once."""
    return CircuitBuilderVectorEnv(num_envs=count, **settings_of_environment(search, **options))


def make_editor(search: Search, **settings: Any) -> CircuitEditorEnv:
    """The circuit editor of a search; settings as of `CircuitEditorEnv`."""
    n = search.problem.n_qubits
    usual = {"max_edits": _EDITS_EACH * n, "evaluations_each": 6, "max_two_qubit_gates": _MOST_EACH * n}
    return CircuitEditorEnv(
        search.problem,
        gates=search.alphabet.gates,
        coupling=search.alphabet.coupling,
        directions=search.alphabet.directions,
        max_gates=search.max_gates,
        evaluator=search.meter,
        **(usual | settings),
    )
