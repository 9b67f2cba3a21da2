"""`qas.search`: one call from a problem to a run folder."""

from __future__ import annotations

import inspect
import math
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from qas.agents import AGENTS
from qas.agents.base import Agent, Search
from qas.alphabet import Alphabet
from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import QasError, RunError, UnknownNameError
from qas.files import write_json
from qas.meter import Budget, Meter, SearchEnded
from qas.noise import NoiseModel, load_noise
from qas.problems import BaseProblem, load_problem, problem_from_json
from qas.record import Progress, Record
from qas.registry import settings_of
from qas.runs import Recorder, Run, load_run, read_config
from qas.vqe import Evaluator

_PACKAGES = (
    "numpy", "scipy", "numba", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "qiskit", "optuna",
)  # fmt: skip


def search(
    problem: str | BaseProblem,
    *,
    agent: str | type[Agent] | Agent = "ddqn",
    noise: str | NoiseModel | None = None,
    seconds: float | None = None,
    evaluations: int | None = None,
    steps: int | None = None,
    target: float | None = None,
    seed: int = 0,
    max_gates: int | None = None,
    gates: Sequence[str] | None = None,
    coupling: Sequence[tuple[int, int]] | None = None,
    evaluator: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    report: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Search a circuit for a problem on a noisy device.

    The first limit reached ends the search; with none given it runs 60 seconds. The clock starts when the kernels are
    compiled. Ctrl-C ends it early and loses nothing.

    Args:
        problem: a name of `qas.list_problems` or a `Problem`.
        agent: a name of `qas.list_agents`, an `Agent` class, or an instance with its settings.
        noise: a name of `qas.list_noise`, a `NoiseModel`, or None for a perfect device.
        seconds: wall-clock budget.
        evaluations: budget of objective calls; a gradient counts as one.
        steps: budget of architectures.
        target: error at which the search is content and ends, problem's unit.
        seed: fixes the run, wall-clock budgets aside.
        max_gates: longest circuit; default what the agent's encoder holds, else the problem's (40, or 70 beyond 4
            qubits).
        gates: gates that may be used; default those of the agent's encoder, else the problem's
            (`qas.gates.SEARCH_GATES`).
        coupling: pairs that may carry two-qubit gates; default: those of the noise model, else all.
        evaluator: settings of `qas.vqe.Evaluator` (optimizer, max_evaluations, tolerance, start_noise, shots, …).
        options: the agent's own settings.
        out: run folder, new or empty; default ``results/<problem>-<agent>-<time>``.
        report: write ``report.html`` at the end.
        on_progress: called a few times each second.

    Returns:
        The run; its folder holds everything.

    Raises:
        UnknownNameError: unknown problem, agent, noise or gate.
        QasError: settings that do not fit.
        RunError: the folder cannot be used.
    """
    if seconds is None and evaluations is None and steps is None:
        seconds = 60.0
    goal = load_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(goal, BaseProblem):
        raise QasError(f"problem is a name or a Problem, got {type(problem).__name__} (see qas.problem)")
    model = load_noise(noise)
    settings = dict(evaluator or {})
    _check_keywords(Evaluator, settings, "evaluator", {"problem", "noise"})
    # What the problem refuses, such as a register too large, comes before anything slow is computed.
    goal.simulator(model, settings.get("engine"), settings.get("shots"))
    player = make_agent(agent, {} if options is None else options)
    usual = player.defaults(goal)
    if max_gates is None:
        max_gates = usual.get("max_gates", goal.max_gates)
    if gates is None:
        gates = usual.get("gates", goal.search_gates)
    config: dict[str, Any] = {
        "agent": AGENTS.name_of(player) or player.name,
        "options": settings_of(player) if isinstance(agent, Agent) else dict(options or {}),
        "seed": seed,
        "problem": goal.to_json(),
        "noise": None if model is None else model.to_json(),
        "budget": _budget(seconds, evaluations, steps, target),
        "max_gates": max_gates,
        "gates": list(gates) if isinstance(gates, (list, tuple)) else gates,
        "coupling": _pairs(coupling),
        "evaluator": settings,
        "versions": _versions(),
    }
    _check_config(config)
    with Recorder.reserve(out, f"{goal.name}-{config['agent']}") as recorder:
        state = _build(config, player, recorder, on_progress)
        recorder.create(config)
        return _conduct(state, player, report)


def resume(
    path: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    evaluations: int | None = None,
    steps: int | None = None,
    target: float | None = None,
    agent: type[Agent] | Agent | None = None,
    report: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Continue an interrupted or killed run from its last checkpoint, or a finished one with a larger budget.

    At the same seed, and a budget in evaluations or steps, the run ends as the unbroken one would.

    Args:
        path: the run folder.
        seconds, evaluations, steps, target: replace the limits of the run; totals, what is already used counts.
        agent: that of the run, where it is not registered here.

    Raises:
        RunError: no run there, damaged, from a newer version, or its budget is used up.
    """
    run = load_run(path)
    config = dict(read_config(run.path))
    new = _budget(seconds, evaluations, steps, target)
    if any(v is not None for v in new.values()):
        config["budget"] = new
    _check_config(config)
    used = {"seconds": run.seconds, "evaluations": run.evaluations, "steps": run.architectures}
    for name, amount in used.items():
        limit = config["budget"].get(name)
        if limit is not None and amount >= limit:
            raise RunError(
                f"the run has used {amount:.10g} of {limit:.10g} {name}; give a larger total to go on, such as "
                f"--{name} {math.ceil(2 * amount)}"
            )
    player = make_agent(agent or config["agent"], config["options"])
    with Recorder.take_over(run.path) as recorder:
        state = _build(config, player, recorder, on_progress)
        state.restore(player, run.path)
        if config["budget"] != run.config["budget"]:
            write_json(run.path / "config.json", config)
        return _conduct(state, player, report)


def _check_config(config: dict[str, Any]) -> None:
    """Refuse settings of the wrong kind, whether they come from a caller or from a file."""
    whole_number("seed", config["seed"], 0)
    whole_number("max_gates", config["max_gates"])
    for name in ("options", "evaluator", "budget"):
        if not isinstance(config[name], dict) or not all(isinstance(key, str) for key in config[name]):
            raise QasError(f"{name} is a mapping from names to values, got {config[name]!r}")
    limits = [field.name for field in fields(Budget)]
    unknown = set(config["budget"]) - set(limits)
    if unknown:
        raise UnknownNameError("budget", min(unknown), limits)
    Budget(**config["budget"])
    gates, coupling = config["gates"], config.get("coupling")
    if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
        raise QasError(f"gates is a list of gate names, got {gates!r}")
    if coupling is not None and not (
        isinstance(coupling, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in coupling)
    ):
        raise QasError(f"coupling is a list of pairs of qubits, got {coupling!r}")


def make_agent(given: str | type[Agent] | Agent, options: Mapping[str, Any]) -> Agent:
    """The agent that a caller names, or hands over as a class or an instance.

    Raises:
        UnknownNameError: no such agent or option.
        QasError: an option of the wrong kind.
    """
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise QasError(f"options is a mapping from names to values, got {options!r}")
    if not isinstance(given, Agent):
        kind = AGENTS[given] if isinstance(given, str) else given
        if isinstance(kind, type):
            _check_keywords(kind, dict(options), f"agent {getattr(kind, 'name', kind.__name__)}", set())
    return AGENTS.make(given, Agent, **options)


def _budget(*limits: float | None) -> dict[str, float | None]:
    """As ``config.json`` has it; the target only where there is one."""
    found = dict(zip((field.name for field in fields(Budget)), limits, strict=True))
    return {name: limit for name, limit in found.items() if limit is not None or name != "target"}


def _build(
    config: dict[str, Any],
    player: Agent,
    recorder: Recorder | None,
    on_progress: Callable[[Progress], None] | None,
) -> Search:
    problem = problem_from_json(config["problem"])
    noise = None if config["noise"] is None else NoiseModel.from_json(config["noise"])
    if noise is not None:
        noise.check_register(problem.n_qubits)
    coupling = config.get("coupling")
    pairs = [tuple(p) for p in coupling] if coupling is not None else None
    if pairs is None and noise is not None and noise.coupling is not None:
        pairs = sorted(p for p in noise.coupling if max(p) < problem.n_qubits)
    _check_keywords(Evaluator, config["evaluator"], "evaluator", {"problem", "noise"})
    evaluator = Evaluator(problem, noise, **config["evaluator"])
    alphabet = Alphabet(problem.n_qubits, tuple(config["gates"]), coupling=pairs)
    record = Record(problem, recorder, on_progress)
    meter = Meter(evaluator, Budget(**config["budget"]), record)
    state = Search(problem, alphabet, config["max_gates"], config["seed"], meter, record)
    # One gradient compiles the kernels, and refuses a register too large before a folder is made.
    warm = Circuit(problem.n_qubits, alphabet.placed)
    evaluator.evaluate(warm, np.random.default_rng(0), max_evaluations=2)
    player.prepare(state)
    return state


def _conduct(state: Search, player: Agent, report: bool) -> Run:
    status = "finished"
    recorder = state.record.recorder
    assert recorder is not None
    try:
        state.start_clock()
        with _interrupts(state):
            try:
                player.run()
            except SearchEnded:
                status = "interrupted" if state.stop_requested else "finished"
        # No checkpoint here: the budget ends anywhere, and one is only taken where the agent's state is complete.
        recorder.flush()
        state.record.write(state.meter, status)
    finally:
        recorder.close()
    run = load_run(recorder.folder)
    if report:
        from qas.report import write_report

        write_report(run)
    return run


@contextmanager
def _interrupts(state: Search) -> Iterator[None]:
    """The first Ctrl-C (or TERM) asks the search to stop where its state is complete; a second one stops it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if state.stop_requested:
            raise KeyboardInterrupt
        state.stop_requested = True

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pairs(coupling: Any) -> Any:
    """Pairs as JSON has them; what is no list of pairs is left for the check."""
    try:
        return None if coupling is None else [list(pair) for pair in coupling]
    except TypeError:
        return coupling


def _check_keywords(target: Any, given: dict[str, Any], what: str, own: set[str]) -> None:
    known = sorted(set(inspect.signature(target).parameters) - own - {"self"})
    hints = get_type_hints(target.__init__)
    for name, value in given.items():
        if name not in known:
            raise (
                UnknownNameError(f"setting of {what}", name, known)
                if known
                else QasError(f"{what} has no settings, got {name!r}")
            )
        if not _fits(value, hints.get(name, Any)):
            wanted = hints[name]
            shown = wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")
            raise QasError(f"{name} of {what} must be {shown}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a setting has the type its signature names; lists, which JSON has, stand for tuples."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is None or hint is NoneType:
        return value is None
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint in (bool, Any)
    if hint is int:
        return isinstance(value, (int, np.integer))
    if hint is float:
        return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
    if origin in (tuple, list):
        parts = [part for part in get_args(hint) if part is not ...]
        return isinstance(value, (tuple, list)) and all(any(_fits(v, p) for p in parts) for v in value)
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("quantum-architecture-search", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
