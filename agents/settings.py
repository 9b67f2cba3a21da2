"""What a run is made with: the content of ``config.json``, and the checks of it, whoever wrote it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qas.agents import AGENTS
from qas.agents.base import Agent
from qas.checks import shortened, whole_number
from qas.errors import QasError, RunError, UnknownNameError
from qas.gates import gate_spec
from qas.meter import Budget
from qas.mitigation.objectives import make_objective
from qas.problems import BaseProblem, Problem
from qas.registry import check_settings, recorded, settings_of
from qas.vqe import Evaluator

_PACKAGES = (
    "numpy", "scipy", "numba", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "qiskit", "optuna",
)  # fmt: skip

MOST_GATES = 100_000
"""Longest circuit of a search; at 10 ms an evaluation, its angles alone take days."""

_GATES_EACH = 25
"""Gates for each qubit that edited circuits may have, where the caller does not say."""


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse settings of the wrong kind, whether they come from a caller or from a file.

    Raises:
        UnknownNameError: no such limit, gate, objective, or setting of the evaluator.
        QasError: a value of the wrong kind or out of range.
    """
    whole_number("seed", config["seed"], 0, 2**63 - 1)
    if config["max_gates"] is not None:
        whole_number("max_gates", config["max_gates"], 1, MOST_GATES)
    for name in ("options", "evaluator", "budget"):
        if not isinstance(config[name], Mapping) or not all(isinstance(key, str) for key in config[name]):
            raise QasError(f"{name} is a mapping from names to values, got {shortened(config[name])}")
    limits = [field.name for field in fields(Budget)]
    for name in config["budget"]:
        if name not in limits:
            raise UnknownNameError("budget", name, limits)
    Budget(**config["budget"])
    check_settings(Evaluator, config["evaluator"], "the evaluator")
    if "objective" in config["evaluator"]:
        raise QasError("the objective stands beside the evaluator's settings, got it among them")
    make_objective(config.get("objective", "noisy"))
    gates, coupling = config["gates"], config.get("coupling")
    if gates is not None:
        if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
            raise QasError(f"gates is a list of gate names, got {shortened(gates)}")
        for gate in gates:
            gate_spec(gate)
    if coupling is not None and not (
        isinstance(coupling, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in coupling)
    ):
        raise QasError(f"coupling is a list of pairs of qubits, got {shortened(coupling)}")


def room_for_depth(problem: BaseProblem) -> dict[str, Any]:
    """Settings of a search that edits circuits: room for deep ones, from which the front's short ones do not suffer."""
    deep = isinstance(problem, Problem) and problem.n_qubits > 4
    return {"max_gates": max(problem.max_gates, _GATES_EACH * problem.n_qubits)} if deep else {}


def make_agent(given: str | type[Agent] | Agent, options: Mapping[str, Any] | None = None) -> Agent:
    """The agent that a caller names, or hands over as a class or an instance.

    Raises:
        UnknownNameError: no such agent or option.
        QasError: an option of the wrong kind, or options beside an instance, which has its own.
    """
    if not isinstance(given, (str, type, Agent)):
        raise QasError(f"the agent is a name, an Agent class or an instance of one, got {type(given).__name__}")
    return AGENTS.make(given, Agent, **(options or {}))


def agent_of_run(
    given: type[Agent] | Agent | None, config: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Agent:
    """The agent that a run goes on with.

    Args:
        given: what the caller hands over; None: what the run names.
        config: of the run.
        more: options that the run does not keep.

    Raises:
        RunError: the run's agent is not registered, or another one is given, or one with other options.
    """
    name, options = config["agent"], config["options"]
    if given is None and name in AGENTS.replaced:
        new = AGENTS.replaced[name]
        raise RunError(f"agent {name} became {new}, which cannot go on with its runs: search anew with --agent {new}")
    if given is None and name not in AGENTS:
        raise RunError(
            f"the run's agent {name} is not registered here: give its class, as in resume(path, agent=MyAgent)"
        )
    agent: type[Agent] | Agent = AGENTS[name] if given is None else given
    if name_of(agent) != name:
        raise RunError(f"the run was made by agent {name}, got {name_of(agent)}")
    kept = agent.todays_options(options)
    if not isinstance(agent, Agent):
        return make_agent(agent, kept | dict(more or {}))
    if more:
        raise QasError("an agent that is an instance has its options already: leave out options")
    own = agent.kept_options(recorded(settings_of(agent)))
    if own not in (
        agent.kept_options(options),
        agent.kept_options(recorded(settings_of(make_agent(type(agent), kept)))),
    ):
        raise RunError(f"the run's agent has the options {shortened(options)}, got {shortened(own)}")
    return agent


def name_of(agent: Agent | type[Agent]) -> str:
    """The name that a run carries: the registered one, else the agent's own if no other has it, else its class's."""
    kind = agent if isinstance(agent, type) else type(agent)
    own = getattr(kind, "name", None)
    return AGENTS.name_of(kind) or (own if own and own not in AGENTS else kind.__name__)


def budget_of(*limits: float | None) -> dict[str, float | None]:
    """Limits as ``config.json`` has them; the target only where there is one."""
    found = dict(zip((field.name for field in fields(Budget)), limits, strict=True))
    return {name: limit for name, limit in found.items() if limit is not None or name != "target"}


def pairs_of(coupling: Any) -> Any:
    """Pairs as JSON has them; what is no list of pairs is left for the check."""
    try:
        return None if coupling is None else [list(pair) for pair in coupling]
    except TypeError:
        return coupling


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run depends on."""
    found = {"python": platform.python_version()}
    for package in ("quantum-architecture-search", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
