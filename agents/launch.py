"""`qas.search`: one call from a problem to a run folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from qas.agents import AGENTS
from qas.agents.base import Agent, Search, read_checkpoint
from qas.agents.cost import cost_line, short_circuit, warm_up
from qas.agents.presets import PRESETS, preset_for
from qas.agents.settings import agent_of_run, budget_of, check_config, make_agent, name_of, pairs_of, versions
from qas.agents.starts import Beginning, beginning, onto
from qas.alphabet import Alphabet, checked_coupling
from qas.callbacks import Watch
from qas.circuits import Circuit
from qas.devices import Device, load_device, native_gates_of
from qas.errors import QasError, RunError
from qas.files import hold, write_json
from qas.meter import Budget, Meter, SearchEnded
from qas.mitigation.objectives import Scored, make_objective, scored_by
from qas.native import native_set
from qas.noise import NoiseModel, load_noise
from qas.patches import numbered_by_hand, patch_for
from qas.problems import BaseProblem, load_problem
from qas.record import Progress, Record
from qas.registry import recorded, settings_of
from qas.remote import placed
from qas.runs import Recorder, Run, is_complete, load_run, read_config, read_summary
from qas.simulators.interrupt import Interrupted, first_signal_asks, stop_when
from qas.vqe import Evaluator

_GRACE = 3.0
"""Seconds that a search has, once it was asked to stop, to come to where its state is complete."""


def search(
    problem: str | BaseProblem,
    *,
    agent: str | type[Agent] | Agent | None = None,
    noise: str | NoiseModel | None = None,
    device: str | os.PathLike[str] | Device | None = None,
    patch: str | Sequence[int] | None = None,
    objective: str | Mapping[str, Any] | type[Scored] | Scored | None = None,
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
    preset: str | None = None,
    start: str | os.PathLike[str] | Circuit | Run | None = None,
    out: str | os.PathLike[str] | None = None,
    report: bool = True,
    callbacks: Sequence[Any] = (),
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Run:
    """Search a circuit for a problem on a noisy device.

    The first limit reached ends the search, in the middle of an optimization if need be; with none given it runs 60
    seconds. The clock starts when the kernels are compiled. Ctrl-C ends it early, and a resumed run loses nothing. At
    the end the front is tidied, at the cost of at most a tenth of the evaluations beyond the budget (`qas.tidying`).

    Args:
        problem: a name of `qas.list_problems` or a `Problem`.
        agent: a name of `qas.list_agents`, an `Agent` class, or an instance with its settings. A class that is not
            registered must be handed to `resume` again. None: that of the preset, else ``evolution``.
        noise: a name of `qas.list_noise`, a `NoiseModel`, or None for a perfect device.
        device: a name of `qas.list_devices`, a file or a `Device` to search for, instead of `noise`: circuits consist
            of its native gates on the pairs of a patch of it, under its noise, with waiting qubits.
        patch: which of its qubits: "best", "line", "ring", "tree", "median", both as in "line:median", or the qubits
            themselves; see `qas.patches.patch_for`.
        objective: what counts as energy under the noise: a name of `qas.mitigation.list_objectives`, with settings as
            in ``"zne:nodes=1-3-5,fit=linear"`` if it has any, a class or an instance. None: "noisy", or for a
            device what the problem says, mostly "zne".
        seconds: wall-clock budget.
        evaluations: budget of objective calls; a gradient counts as one.
        steps: budget of architectures.
        target: error at which the search is content and ends, problem's unit.
        seed: fixes the run, wall-clock budgets aside.
        max_gates: longest circuit; default what the agent says (what its encoder holds; ``evolution`` 25 for each qubit
            beyond 4 qubits), else the problem's (40, or 70 beyond 4 qubits); twice that where the gates are native ones
            (rz, sx, x and an entangler).
        gates: gates that may be used; default those of the device, else of the agent's encoder, else the problem's
            (`qas.gates.SEARCH_GATES`).
        coupling: pairs that may carry two-qubit gates; default: those of the device or noise model, else all.
        evaluator: settings of `qas.vqe.Evaluator` (optimizer, max_evaluations, tolerance, start_noise, shots, …).
        options: the agent's own settings.
        preset: a name of `qas.agents.presets.PRESETS`: published settings of an agent for a problem, which apply where
            ``options``, ``evaluator`` and ``max_gates`` say nothing.
        start: circuits to begin with, for agents that can: "atlas" for the best that are known (`qas.atlas`), a run or
            its folder (all circuits of its front), an OpenQASM 3 file, or a circuit. The run keeps them.
        out: run folder, new or empty, here or an address that fsspec opens, such as ``s3://bucket/run``; default
            ``results/<problem>-<agent>-<time>``.
        report: write ``report.html`` at the end.
        callbacks: what is told of the search while it runs: names of `qas.callbacks.CALLBACKS`, ``"MODULE:NAME"``,
            `qas.callbacks.Callback` classes or instances, or functions of a `qas.callbacks.Snapshot`.
        on_progress: called a few times each second.
        on_start: called before the clock starts with a line on what an evaluation costs here and what the budget
            allows; before that with one on what takes long.

    Returns:
        The run; its folder holds everything.

    Raises:
        UnknownNameError: unknown problem, agent, noise, device, objective or gate.
        QasError: settings that do not fit, or a callback that failed; then the run ended in order.
        RunError: the folder cannot be used.
    """
    if seconds is None and evaluations is None and steps is None:
        seconds = 60.0
    settings = {
        "options": {} if options is None else options,
        "seed": seed,
        "budget": budget_of(seconds, evaluations, steps, target),
        "max_gates": max_gates,
        "gates": list(gates) if isinstance(gates, (list, tuple)) else gates,
        "coupling": pairs_of(coupling),
        "evaluator": {} if evaluator is None else evaluator,
        "objective": make_objective(objective or "noisy"),
    }
    # Names and numbers come before anything slow is imported or computed.
    watch = Watch(callbacks)
    if isinstance(agent, str):
        AGENTS.check(agent)
    if preset is not None:
        PRESETS.check(preset)
    if agent is None:
        agent = "evolution" if preset is None else str(PRESETS[preset].agent)
    check_config(settings)
    whole = _device(device, noise, patch)
    goal = load_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(goal, BaseProblem):
        raise QasError(f"problem is a name or a Problem, got {type(problem).__name__} (see qas.problem)")
    if preset is not None:
        published = preset_for(preset, goal.name, agent if isinstance(agent, str) else name_of(agent))
        for name in ("options", "evaluator"):
            settings[name] = {**getattr(published, name), **settings[name]}
        max_gates = settings["max_gates"] = published.max_gates if max_gates is None else max_gates
    if objective is None and whole is not None:
        settings["objective"] = make_objective(goal.device_objective)
    part = None if whole is None else patch_for(goal.n_qubits, whole, patch)
    model = load_noise(noise) if part is None else part.noise()
    if part is not None:
        gates = settings["gates"] = native_gates_of(part, gates)
        _check_coupled(part, settings["coupling"])
    shots = settings["evaluator"].get("shots")
    scored_by(settings["objective"], goal.simulator(model, settings["evaluator"].get("engine"), shots), shots)
    begun = None if start is None else _begun(start, agent, goal, settings["options"])
    player = make_agent(agent, settings["options"])
    usual = player.defaults(goal)
    if gates is None:
        settings["gates"] = list(usual.get("gates", goal.search_gates))
    if max_gates is None:
        longest = usual.get("max_gates", goal.max_gates)
        # A rotation is up to five native gates, of which runs keep fewer.
        settings["max_gates"] = longest if native_set(settings["gates"]) is None else 2 * longest
    if begun is not None:
        if part is not None and whole is not None:
            fixed = numbered_by_hand(goal.n_qubits, whole, patch)
            begun, part = _on_device(begun, part, goal, settings, fixed=fixed, notice=on_start)
            model = part.noise()
        settings["options"] = {**settings["options"], "start": [circuit.to_list() for circuit in begun.circuits]}
        player = make_agent(agent, settings["options"])
    settings["evaluator"] = usual.get("evaluator", {}) | settings["evaluator"]
    if isinstance(agent, Agent):
        settings["options"] = settings_of(player)
    config: dict[str, Any] = {
        "agent": name_of(player),
        "problem": goal.to_json(),
        "noise": None if model is None else model.to_json(),
        "device": None if part is None else part.to_json(),
        **recorded(settings | {"options": player.kept_options(settings["options"])}),
        "versions": versions(),
    }
    if begun is not None:
        config["start"] = {"source": begun.source, "atlas": begun.from_atlas, "circuits": len(begun.circuits)}
    stem = f"{goal.name}-{config['agent']}"
    with placed(out, "the run", fresh=True) as folder, Recorder.reserve(folder, stem) as recorder:
        asked = config | {"evaluator": settings["evaluator"], "objective": settings["objective"]}
        state = _build(asked, goal, model, player, recorder, on_progress, on_start)
        recorder.create(config)
        return _conduct(state, player, report, watch)


def _begun(start: Any, agent: Any, goal: BaseProblem, options: Mapping[str, Any]) -> Beginning:
    """What a search begins with, for an agent that can."""
    kind: type[Agent] = AGENTS[agent] if isinstance(agent, str) else agent if isinstance(agent, type) else type(agent)
    if not kind.begins:
        able = ", ".join(name for name in AGENTS if AGENTS[name].begins)
        raise QasError(f"agent {name_of(kind)} cannot begin with given circuits; these can: {able}")
    if "start" in options:
        raise QasError("start is given once: as that of the search, or among the options of the agent")
    return beginning(start, goal)


def _on_device(
    begun: Beginning, part: Device, goal: BaseProblem, settings: dict[str, Any], *, fixed: bool, notice: Any
) -> tuple[Beginning, Device]:
    """What a search begins with on a patch, and the patch with its qubits in the order that suits it."""
    coupling = settings["coupling"]
    where = part
    if coupling is not None:
        where = part.coupled_by(checked_coupling(goal.n_qubits, coupling, connected=True))

    def score(circuit: Circuit, device: Device) -> float:
        engine = settings["evaluator"].get("engine")
        return Evaluator(goal, device.noise(), objective=settings["objective"], engine=engine).energy(circuit)

    moved = not fixed and coupling is None
    how = {"moved": moved, "whole": goal.whole_matrix, "notice": notice}
    begun, where = onto(begun, where, settings["gates"], settings["max_gates"], score, **how)
    return begun, where if moved else part


def _device(device: Any, noise: Any, patch: Any) -> Device | None:
    if device is None:
        if patch is not None:
            raise QasError(f"a patch is one of a device, got patch {patch!r} without a device")
        return None
    if noise is not None and not (isinstance(noise, str) and noise in ("", "none")):
        raise QasError("a device has its own noise: give device or noise, got both")
    return load_device(device)


def _check_coupled(device: Device, coupling: Sequence[Sequence[int]] | None) -> None:
    """Refuse pairs of a coupling that carry no gate on the device: they would seem to connect its qubits."""
    held = [list(pair) for pair in device.coupling]
    for a, b in coupling or ():
        if [a, b] not in held and [b, a] not in held:
            pairs = " ".join(f"{low}-{high}" for low, high in sorted(device.coupling)) or "none"
            raise QasError(f"a coupling has pairs that the device couples ({pairs}), got {a}-{b}")


def resume(
    path: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    evaluations: int | None = None,
    steps: int | None = None,
    target: float | None = None,
    agent: type[Agent] | Agent | None = None,
    options: Mapping[str, Any] | None = None,
    report: bool = True,
    callbacks: Sequence[Any] = (),
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Run:
    """Continue an interrupted or killed run from its last checkpoint, or a finished one with a larger budget.

    A finished one that lacks the report is given it.

    At the same seed, and a budget in evaluations or steps, the run ends as the unbroken one would.

    Args:
        path: the run folder, here or an address that fsspec opens.
        seconds, evaluations, steps, target: replace the limits of the run; totals, what is already used counts.
        agent: that of the run, where it is not registered here: its class, or an instance with the same options.
        options: settings of the agent that the folder does not keep, such as a storage with its password.
        report, callbacks, on_progress, on_start: as of `search`.

    Raises:
        RunError: no run there, damaged, from a newer version, its budget is used up, or its agent is unknown here.
    """
    watch = Watch(callbacks)
    with placed(path, "the run", fresh=False) as folder:
        assert folder is not None
        run = load_run(folder)
        config = dict(read_config(run.path))
        new = budget_of(seconds, evaluations, steps, target)
        if any(v is not None for v in new.values()):
            config["budget"] = new
        check_config(config)
        if run.status == "finished" and config["budget"] == run.config["budget"] and not is_complete(folder, report):
            return _ended(run, report)
        if run.status == "finished" or config["budget"] != run.config["budget"]:  # else it ends as it would have
            _check_budget_left(run, config["budget"])
        player = agent_of_run(agent, config, options)
        config["options"] = player.kept_options(config["options"])
        with Recorder.take_over(run.path) as recorder:
            state = _build(config, run.problem, run.noise, player, recorder, on_progress, on_start)
            seen = read_checkpoint(run.path)
            recorder.set_aside(0 if seen is None else int(seen[0]["evaluations"]))
            state.restore(player, run.path)
            if run.status == "finished":  # first, so that a killed one does not seem to have ended at the new budget
                write_json(run.path / "summary.json", read_summary(run.path) | {"status": "running"})
            if config != run.config:
                write_json(run.path / "config.json", config)
            return _conduct(state, player, report, watch)


def _ended(run: Run, report: bool) -> Run:
    """A run of which all but the report is done."""
    with hold(run.path, "the run"):
        if report:
            _write_report(run)
    return run


def _check_budget_left(run: Run, budget: dict[str, Any]) -> None:
    """Compares with what a run has used that goes on from there; one that did not end does so from its checkpoint."""
    used = {"seconds": run.seconds, "evaluations": run.evaluations, "steps": run.architectures}
    best = run.best.error if run.front else math.inf
    if run.status != "finished":
        found = read_checkpoint(run.path)
        state = {} if found is None else found[0]
        keys = {"seconds": "seconds", "evaluations": "evaluations", "steps": "architectures"}
        used = {name: state.get(key, 0) for name, key in keys.items()}
        best = math.inf if state.get("best_error") is None else state["best_error"]
    for name, amount in used.items():
        limit = budget.get(name)
        if limit is not None and amount >= limit:
            raise RunError(
                f"the run has used {amount:.10g} of {limit:.10g} {name}; give a larger total to go on, such as "
                f"--{name} {math.ceil(2 * amount)}"
            )
    target = budget.get("target")
    if target is not None and best <= target:
        raise RunError(f"the run has reached its target {target:g}, with an error of {best:g}")


def _build(
    config: dict[str, Any],
    problem: BaseProblem,
    noise: NoiseModel | None,
    player: Agent,
    recorder: Recorder | None,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Search:
    """The search that a config describes, ready to begin; nothing is written yet."""
    if noise is not None:
        noise.check_register(problem.n_qubits)
    coupling = config.get("coupling")
    pairs = [tuple(p) for p in coupling] if coupling is not None else None
    if pairs is None and noise is not None and noise.coupling is not None:
        pairs = sorted(p for p in noise.coupling if max(p) < problem.n_qubits)
    evaluator = Evaluator(problem, noise, objective=config.get("objective", "noisy"), **config["evaluator"])
    directions = None if config.get("device") is None else Device.from_json(config["device"]).directions
    alphabet = Alphabet(problem.n_qubits, tuple(config["gates"]), coupling=pairs, directions=directions)
    budget = Budget(**config["budget"])
    record = Record(problem, recorder, on_progress, alphabet.native)
    state = Search(problem, alphabet, config["max_gates"], config["seed"], Meter(evaluator, budget, record), record)
    try:
        with stop_when():
            if not problem.listed:
                warm_up(evaluator, short_circuit(alphabet))
            player.prepare(state)
            if on_start is not None and not problem.listed:
                on_start(cost_line(evaluator, short_circuit(alphabet), budget))
    except SearchEnded:
        raise QasError(f"the budget ends before agent {config['agent']} can begin; give a larger one") from None
    except Interrupted:
        raise KeyboardInterrupt from None
    return state


def _conduct(state: Search, player: Agent, report: bool, watch: Watch) -> Run:
    """Run the agent until the search ends, and write what it found."""
    recorder, meter = state.record.recorder, state.meter
    assert recorder is not None
    limit = None if meter.budget is None else meter.budget.seconds
    state.record.watch = watch
    try:
        watch.start(recorder.folder, read_config(recorder.folder), state.request_stop)
        state.start_clock()
        with first_signal_asks(state.request_stop):
            deadline = None if limit is None else max(0.0, meter.seconds_left)
            with stop_when(deadline, grace=_GRACE), suppress(SearchEnded, Interrupted):
                player.run()
            # No checkpoint here: the budget ends anywhere, and one is only taken where the agent's state is complete.
            recorder.flush()
            status = "interrupted" if state.stop_requested else "finished"
            patience = 0.5 if state.stop_requested else None if limit is None else 0.5 + 0.05 * limit
            state.record.finish(meter, status, state.alphabet.gates, patience)
            recorder.settle(status)
        run = load_run(recorder.folder)
        if report:
            _write_report(run)
    finally:
        recorder.close()
    watch.end(run)
    return run


def _write_report(run: Run) -> None:
    from qas.report import write_report

    write_report(run)
