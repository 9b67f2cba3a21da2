"""``qas search``: find a circuit."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

from qas.cli import INTERRUPTED, show
from qas.cli import parser as read
from qas.cli.progress import tell, watched
from qas.errors import QasError

_BUDGET = ("seconds", "evaluations", "steps")
_ANY_TIME = (*_BUDGET, "target", "storage", "resume", "callback", "no_report", "json", "quiet", "run")
"""Options that a resumed run takes too; all others it has already."""


def add(commands: Any) -> None:
    about = "Searches a circuit; writes a run folder. Ctrl-C stops it and loses nothing."
    parser = read.command(commands, "search", "find a circuit", about, run)
    option = parser.option
    option("problem", "PROBLEM", "a name from qas problems, or a .json or .qpy file", nargs="?", kind="problems")
    option("file", "FILE", "for the problems that have FILE behind their name", nargs="?")
    option(
        "--model",
        "DIR",
        "with the problem adapter: a local model (or minilm, smollm2); one circuit for all its target layers",
    )
    option("--targets", "A,B", "with --model: linear layers to adapt (default: queries and values)", read.names)
    read.add_problem(parser)
    option("--agent", "NAME", "a name from qas agents (default evolution)", kind="agents")
    option("--preset", "NAME", "published settings, such as crlqas-lih-4 (see qas agents)", kind="presets")
    option("--noise", "NAME", "a name from qas noise, or a noise model in a .json file (default none)", kind="noise")
    option("--device", "NAME", "a name from qas devices, or a file, to search for instead of --noise", kind="devices")
    option("--patch", "SHAPE", "its qubits: best, line, ring, tree, median, line:median, or 5,3,2 (default best)")
    option(
        "--objective", "NAME", "noisy, readout, zne, … also zne:nodes=1-3-5 (default noisy; of a device zne)",
        kind="objectives",
    )  # fmt: skip
    limits = parser.add_argument_group("budget (the first limit reached ends the search; default 60 seconds)")
    limits.add_argument("--seconds", type=read.seconds, metavar="S", help="wall-clock time")
    limits.add_argument("--evaluations", type=read.count, metavar="N", help="calls of the objective")
    limits.add_argument("--steps", type=read.count, metavar="N", help="circuits whose angles are optimized")
    limits.add_argument("--target", type=read.positive, metavar="E", help="error that is good enough, such as 1e-10")
    option("--seed", "N", "fixes the run (default 0)", read.natural)
    option("--max-gates", "N", "longest circuit (default mostly 40, or 70 beyond 4 qubits)", read.count)
    option("--gates", "A,B", "gates that may be used (default mostly rx,ry,rz,cx)", read.names)
    option("--coupling", "0-1,1-2", "pairs that may carry two-qubit gates", read.pairs)
    pools = parser.add_argument_group("settings of the agents that choose from circuit pools, as with -o")
    pools.add_argument("--encoder", metavar="NAME", help="a folder, or one of qas encoder list (default by qubits)")
    pools.add_argument("--pool", metavar="DIR", help="candidates (default: drawn from the encoder's space)")
    pools.add_argument("--screen", metavar="NAME", help="keeps the best by fluctuation or expressibility")
    pools.add_argument("--storage", metavar="URL", help="Optuna storage that several machines share (agent bo)")
    option("--engine", "NAME", "statevector, pauli-transfer, … (default: the fastest exact one)", kind="engines")
    option("--optimizer", "NAME", "of the angles: l-bfgs, adam, cobyla, …", kind="optimizers")
    option("--shots", "N", "measurements of each Pauli term (default: exact values)", read.count)
    again: dict[str, Any] = {"metavar": "KEY=VALUE", "type": read.setting, "action": "append"}
    parser.add_argument("-o", "--option", dest="options", help="setting of the agent (see qas agents)", **again)
    parser.add_argument("--evaluator", help="setting of the angle optimization", **again)
    option("--start", "WHAT", "begin with circuits: atlas, a run folder or an OpenQASM file (agents evolution, editor)")
    option("--out", "DIR", "run folder, new or empty (default results/PROBLEM-AGENT-TIME)")
    option("--resume", "RUN", "continue this run; a budget given with it is the new total")
    parser.add_argument("--callback", **read.CALLBACK)
    parser.flag("--no-report", "write no report.html")
    parser.output(progress=True)


def run(arguments: argparse.Namespace) -> int:
    found = _started(arguments) if arguments.resume is None else _resumed(arguments)
    from qas.report import run_to_json

    done = show.answer(arguments, run_to_json(found), *show.summary(found))
    return INTERRUPTED if found.status == "interrupted" else done


@contextlib.contextmanager
def _watched(arguments: argparse.Namespace, problem: Any, agent: str, noise: Any) -> Iterator[dict[str, Any]]:
    """Keywords of `search` and `resume` that both commands give, most of them for the display."""
    from qas.page import short_unit

    keywords = read.given(arguments, *_BUDGET, "target") | {"report": not arguments.no_report}
    keywords["callbacks"] = arguments.callback or ()
    if arguments.quiet:
        yield keywords
        return
    with watched(show.label(problem.name, agent, noise), short_unit(problem.unit)) as on_progress:
        yield keywords | {"on_progress": on_progress, "on_start": tell}


def _resumed(arguments: argparse.Namespace) -> Any:
    for name, value in vars(arguments).items():
        if name not in _ANY_TIME and value is not None:
            option = "--" + name.replace("_", "-").replace("options", "option")
            shown = name.upper() if name in ("problem", "file") else option
            raise QasError(f"--resume takes its settings from the run: leave out {shown} (a new budget may be given)")
    from qas.runs import load_run

    before = load_run(arguments.resume)
    with _watched(arguments, before.problem, before.agent, before.noise) as keywords:
        from qas.agents.launch import resume

        options = read.given(arguments, "storage")  # what a run folder keeps without its password
        return resume(arguments.resume, options=options, **keywords)


def _started(arguments: argparse.Namespace) -> Any:
    from qas.devices import load_device
    from qas.noise import load_noise

    agent = arguments.agent or _agent_of(arguments.preset) or "evolution"
    noise = load_noise(arguments.noise)
    device = None if arguments.device is None else load_device(arguments.device)
    problem = _problem(arguments)
    if problem is None:
        raise QasError("search needs a problem, e.g. qas search lih-4 (qas problems lists them), or --resume RUN")
    evaluator = _evaluator_settings(arguments) | read.given(arguments, "engine", "optimizer", "shots")
    options = _agent_settings(arguments, agent) | read.given(arguments, "encoder", "pool", "screen", "storage")
    with _watched(arguments, problem, agent, device or noise) as keywords:
        from qas.agents.launch import search

        return search(
            problem,
            agent=agent,
            noise=noise,
            device=device,
            evaluator=evaluator,
            options=options,
            **read.given(
                arguments, "preset", "patch", "objective", "seed", "max_gates", "gates", "coupling", "start", "out"
            ),
            **keywords,
        )


def _problem(arguments: argparse.Namespace) -> Any:
    if arguments.model is None:
        if arguments.targets is not None:
            raise QasError("--targets names layers of a model: it goes with --model")
        return read.read_problem(arguments, arguments.problem, arguments.file)
    if arguments.problem != "adapter" or arguments.file is not None:
        raise QasError("--model goes with the problem adapter: qas search adapter --model DIR")
    from qas.finetuning.widths import model_problem

    return model_problem(arguments.model, arguments.targets)


def _agent_of(preset: str | None) -> str | None:
    if preset is None:
        return None
    from qas.agents.presets import PRESETS

    return str(PRESETS[preset].agent)


def _agent_settings(arguments: argparse.Namespace, agent: str) -> dict[str, Any]:
    if not arguments.options:
        return {}  # then the agent need not be imported
    from qas.agents import AGENTS
    from qas.registry import read_settings

    return read_settings(AGENTS[agent], arguments.options)


def _evaluator_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.evaluator:
        return {}
    from qas.registry import read_settings
    from qas.vqe import Evaluator

    return read_settings(Evaluator, arguments.evaluator)
