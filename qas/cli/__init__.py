"""The command line: ``qas`` and one of its commands, see ``qas --help``.

Answers go to standard output, progress and errors to standard error. Input that does not fit ends in one line and exit
code 2, Ctrl-C in 130. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qas import __version__
from qas.errors import QasError, RunError, UnknownNameError

if TYPE_CHECKING:
    from qas.circuits import Circuit
    from qas.evaluation import EvaluationReport
    from qas.problems import BaseProblem
    from qas.record import Progress
    from qas.runs import Result, Run

_SLOW_START = 4.0
"""Seconds after which a start is slow enough to be explained."""
_PLAIN_EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""
_INTERRUPTED = 130


# ---------------------------------------------------------------------- arguments
class _Parser(argparse.ArgumentParser):
    """Raises instead of printing the usage, so that every wrong call ends in one line."""

    def error(self, message: str) -> NoReturn:
        raise QasError(f"{message} (see {self.prog} --help)")


def _number(kind: type, least: float, what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text.replace("_", ""))
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
        return value

    return read


_count = _number(int, 1, "a whole number of at least 1 is needed")
_seed = _number(int, 0, "a whole number of at least 0 is needed")
_seconds = _number(float, 1e-9, "a positive number of seconds is needed")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _pairs(text: str) -> list[tuple[int, int]]:
    try:
        return [(int(a), int(b)) for a, b in (pair.split("-") for pair in _names(text))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"pairs of qubits such as 0-1,1-2 are needed, got {text!r}") from None


def _setting(text: str) -> tuple[str, Any]:
    """key=value; the value is read as JSON where it is JSON."""
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise argparse.ArgumentTypeError(f"a setting is written key=value, got {text!r}")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="qas", allow_abbrev=False, description="Quantum architecture search: find good circuits for noisy devices."
    )
    parser.add_argument("--version", action="version", version=f"qas {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, about in (
        ("problems", "what can be searched"),
        ("noise", "noise models that have a name"),
        ("agents", "ways to search"),
    ):
        listing = commands.add_parser(name, help=about, description=f"Lists {about}.", allow_abbrev=False)
        listing.add_argument("--json", action="store_true", help="for other programs")
    _add_search(commands)
    _add_inspect(commands)
    _add_evaluate(commands)
    _add_pool(commands)
    _add_encoder(commands)
    _add_finetune(commands)
    _add_backbone(commands)
    return parser


def _add_search(commands: Any) -> None:
    parser = commands.add_parser(
        "search",
        help="find a circuit",
        allow_abbrev=False,
        description="Searches a circuit; writes a run folder. Ctrl-C stops it and loses nothing.",
    )
    add = parser.add_argument
    add("problem", nargs="?", metavar="PROBLEM", help="a name from qas problems")
    add("file", nargs="?", metavar="FILE", help="for the problems that have FILE behind their name")
    add("--agent", metavar="NAME", help="a name from qas agents (default ddqn)")
    add("--noise", metavar="NAME", help="a name from qas noise (default none)")
    limits = parser.add_argument_group("budget (the first limit reached ends the search; default 60 seconds)")
    limits.add_argument("--seconds", type=_seconds, metavar="S", help="wall-clock time")
    limits.add_argument("--evaluations", type=_count, metavar="N", help="calls of the objective")
    limits.add_argument("--steps", type=_count, metavar="N", help="circuits whose angles are optimized")
    add("--seed", type=_seed, metavar="N", help="fixes the run (default 0)")
    add("--max-gates", type=_count, metavar="N", help="longest circuit (default mostly 40, or 70 beyond 4 qubits)")
    add("--gates", type=_names, metavar="A,B", help="gates that may be used (default mostly rx,ry,rz,cx)")
    add("--coupling", type=_pairs, metavar="0-1,1-2", help="pairs that may carry two-qubit gates")
    latent = parser.add_argument_group("circuit pools (agents bo, reinforce, knn, random)")
    latent.add_argument(
        "--encoder", metavar="NAME", help="a folder, or a name from qas encoder list (default: by qubits)"
    )
    latent.add_argument("--pool", metavar="DIR", help="candidates (default: drawn from the encoder's space)")
    latent.add_argument(
        "--screen", metavar="NAME", help="keep the best candidates by a proxy: fluctuation, expressibility, paths"
    )
    latent.add_argument("--storage", metavar="URL", help="Optuna storage that several machines share (agent bo)")
    add("--engine", metavar="NAME", help="statevector, pauli-transfer or aer (default: the fastest exact one)")
    add("--optimizer", metavar="NAME", help="of the angles: l-bfgs, adam, cobyla, rotosolve, spsa, adam-spsa")
    add("--shots", type=_count, metavar="N", help="measurements of each Pauli term (default: exact values)")
    add(
        "-o",
        "--option",
        dest="options",
        action="append",
        type=_setting,
        metavar="KEY=VALUE",
        help="setting of the agent",
    )
    add("--evaluator", action="append", type=_setting, metavar="KEY=VALUE", help="setting of the angle optimization")
    add("--out", metavar="DIR", help="run folder, new or empty (default results/PROBLEM-AGENT-TIME)")
    add("--resume", metavar="RUN", help="continue this run; a budget given with it is the new total")
    add("--no-report", action="store_true", help="write no report.html")
    add("--json", action="store_true", help="print the result for other programs")
    add("--quiet", action="store_true", help="show no progress")


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect", help="show a run", description="Shows what a run found.", allow_abbrev=False
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder")
    add("--front", action="store_true", help="all circuits of the front, which also counts gates of every kind")
    add("--circuit", metavar="K", help="one circuit: its number in the front, or best")
    add("--qasm", action="store_true", help="print the circuit as OpenQASM 3 and nothing else")
    add("--save", metavar="FILE", help="write the circuit as .png, .svg or .qasm")
    add("--json", action="store_true", help="for other programs")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="judge a circuit",
        allow_abbrev=False,
        description="Energy of a run's circuit, or of one in an OpenQASM 3 or 2 file, at its own angles.",
    )
    add = parser.add_argument
    add("target", metavar="RUN|FILE.qasm", help="a run folder or a circuit file")
    add("--problem", metavar="NAME", help="a name from qas problems (needed with a file; default: the run's)")
    add("--noise", metavar="NAME", help="a name from qas noise, or none (default: the run's)")
    add("--engine", "--backend", metavar="NAME", help="statevector, pauli-transfer or aer")
    add("--shots", type=_count, metavar="N", help="measurements (default: the exact value)")
    add("--seed", type=_seed, default=0, metavar="N", help="fixes what the shots draw (default 0)")
    add("--circuit", metavar="K", help="of a run: number in the front, or best (default)")
    add("--json", action="store_true", help="for other programs")


def _add_pool(commands: Any) -> None:
    actions = _group(
        commands, "pool", "circuit pools", "Draws pools of circuits and labels them with optimized energies."
    )
    build = actions.add_parser(
        "build",
        help="draw and label a pool",
        allow_abbrev=False,
        description="Draws distinct circuits and labels them; the same command again goes on where it stopped.",
    )
    add = build.add_argument
    add("--qubits", type=_count, required=True, metavar="N", help="number of qubits")
    add("--gates", type=_count, required=True, metavar="N", help="gates of a circuit")
    add(
        "--min-gates",
        type=_number(int, 0, "a whole number of at least 0 is needed"),
        metavar="N",
        help="fewest gates (default: as many)",
    )
    add(
        "--depth",
        type=_number(int, 0, "a whole number of at least 0 is needed"),
        metavar="N",
        help="most layers, 0 for no limit (default 2 gates / qubits)",
    )
    add("--gate-set", type=_names, metavar="A,B", help="gates to draw (default: the eleven published ones)")
    add("--ring", type=_names, metavar="A,B", help="gates that go from a qubit to the next one only (default cx)")
    add("--coupling", type=_pairs, metavar="0-1,1-2", help="pairs that may carry two-qubit gates")
    add("--size", type=_count, default=100_000, metavar="N", help="number of circuits (default 100000)")
    add("--task", action="append", default=[], metavar="NAME", help="label for this problem; may be given again")
    add("--noise", metavar="NAME", help="noise of the labels (default none)")
    add(
        "--starts",
        type=_count,
        default=5,
        metavar="N",
        help="optimizations of each circuit, the best counts (default 5)",
    )
    add("--seed", type=_seed, default=0, metavar="N", help="fixes circuits and start angles (default 0)")
    add("--jobs", type=_count, metavar="N", help="processes (default: one for each core)")
    add("--out", required=True, metavar="DIR", help="pool folder, new or to be continued")
    add("--quiet", action="store_true", help="show no progress")
    add("--json", action="store_true", help="for other programs")
    show = actions.add_parser("show", help="what a pool holds", allow_abbrev=False, description="What a pool holds.")
    show.add_argument("pool", metavar="POOL", help="a pool folder")
    show.add_argument("--json", action="store_true", help="for other programs")


def _add_encoder(commands: Any) -> None:
    actions = _group(commands, "encoder", "circuit encoders", "Trains graph autoencoders on pools, and lists them.")
    train = actions.add_parser(
        "train",
        help="train one on a pool",
        allow_abbrev=False,
        description="Trains a graph autoencoder on a pool; no labels are needed.",
    )
    add = train.add_argument
    add("pool", metavar="POOL", help="a pool folder")
    add("--encoding", metavar="NAME", help="ports, signed or gsqas (default: that of the model)")
    add("--model", default="gvae", metavar="NAME", help="gvae, url-v1 or url-v3 (default gvae)")
    add("--epochs", type=_count, default=16, metavar="N", help="passes over the pool (default 16)")
    add("--seed", type=_seed, default=0, metavar="N", help="fixes the training (default 0)")
    add("--out", required=True, metavar="DIR", help="encoder folder, new or empty")
    add("--task", metavar="NAME", help="colour the latent map by this label (default: the pool's first)")
    add("--quiet", action="store_true", help="show no progress")
    add("--json", action="store_true", help="for other programs")
    listing = actions.add_parser("list", help="those that come with the package", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="for other programs")


def _add_finetune(commands: Any) -> None:
    parser = commands.add_parser(
        "finetune",
        help="adapt a neural network, with found circuits or their rivals",
        allow_abbrev=False,
        description="Adapts a frozen model to a task; writes a folder with metrics, adapter files and a picture. "
        "qas backbone list names tasks, methods and models.",
    )
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN|FILE.qasm", help="circuit for the methods searched and searched-rotation")
    add("--task", metavar="NAME", help="a task that comes with the package")
    add("--backbone", metavar="NAME", help="a name or a folder of qas backbone train (default: by task)")
    add("--model", metavar="DIR", help="instead: a local Hugging Face model with its tokenizer")
    add("--data", metavar="FILE", help="with --model: .txt, or .csv or .jsonl with the columns text and label")
    add("--method", metavar="NAME", help="how (default searched with a RUN, else quantum-peft)")
    add("--bits", type=_count, metavar="B", help="bits of an angle or a weight, 1 to 8 (default: not quantized)")
    add("--rank", type=_count, metavar="K", help="columns of frames, or width of the bottleneck (default 8)")
    add("--layers", type=_count, metavar="L", help="of quantum-peft; intrinsic rank of taylor (default 1)")
    add("--size", type=_count, metavar="P", help="parameters of each random subspace (default 64)")
    add("--targets", type=_names, metavar="A,B", help="linear layers to adapt (default: queries and values)")
    add("--epochs", type=_count, metavar="N", help="passes over the training examples (default 30)")
    add("--learning-rate", type=_number(float, 1e-12, "a positive number is needed"), metavar="X", help="of adapters")
    add("--scale", type=_number(float, 1e-12, "a positive number is needed"), metavar="X", help="of adapters")
    add("--gradient", metavar="FILE", help="only write the gradient of the task, for qas search adapter-gradient FILE")
    add("--examples", type=_count, metavar="N", help="of a task, training and validation (default 1000)")
    add("--seed", type=_seed, default=0, metavar="N", help="fixes data, start and order (default 0)")
    add("--out", metavar="DIR", help="folder, new or empty (default results/finetune-TASK-METHOD-TIME)")
    add("--quiet", action="store_true", help="show no progress")
    add("--json", action="store_true", help="for other programs")


def _add_backbone(commands: Any) -> None:
    actions = _group(commands, "backbone", "models to fine-tune", "Pre-trains small models offline, and lists them.")
    train = actions.add_parser(
        "train", help="pre-train one", allow_abbrev=False, description="Pre-trains a small model, in minutes."
    )
    add = train.add_argument
    add("preset", metavar="PRESET", help="a name from qas backbone list")
    add("--examples", type=_count, metavar="N", help="training examples (default: by preset)")
    add("--seed", type=_seed, default=0, metavar="N", help="fixes the training (default 0)")
    add("--out", required=True, metavar="DIR", help="folder, new or empty")
    add("--quiet", action="store_true", help="show no progress")
    add("--json", action="store_true", help="for other programs")
    listing = actions.add_parser("list", help="presets, tasks and methods", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="for other programs")


def _group(commands: Any, name: str, about: str, description: str) -> Any:
    parser = commands.add_parser(name, help=about, allow_abbrev=False, description=description)
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    subparsers = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    if argv and not argv[0].startswith("-") and argv[0] not in subparsers:
        raise UnknownNameError("command", argv[0], subparsers)
    arguments, extra = parser.parse_known_args(argv)
    if extra:
        owner = _owner(parser, arguments)
        word = extra[0].partition("=")[0]
        if word.startswith("-"):
            raise UnknownNameError("option", word, [o for a in owner._actions for o in a.option_strings if len(o) > 2])
        raise QasError(f"unexpected argument {word!r} (see {owner.prog} --help)")
    if arguments.command is None:
        parser.print_help()
    return arguments


def _owner(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the command that was called, or of its action."""
    for name in (arguments.command, getattr(arguments, "action", None)):
        choices = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if choices and name in choices:
            parser = choices[name]
    return parser


# ---------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``qas``; None takes them from the process.

    Returns:
        0; 2 for input that does not fit, after one line on standard error; 130 after Ctrl-C; 141 if the reader of the
        output went away.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a terminal may lack letters of a circuit drawing
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except QasError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Python flushes standard output once more when it ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("qas: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _fail(message: str) -> int:
    print(f"qas: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = _parse(argv)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    commands = {
        "problems": _list,
        "noise": _list,
        "agents": _list,
        "search": _search,
        "inspect": _inspect,
        "evaluate": _evaluate,
        "pool": _pool,
        "encoder": _encoder,
        "finetune": _finetune,
        "backbone": _backbone,
    }
    return commands[arguments.command](arguments) if arguments.command else 0


def _print_json(data: Any) -> None:
    from qas.files import to_json

    print(to_json(data, indent=1))


# ---------------------------------------------------------------------- lists
def _list(arguments: argparse.Namespace) -> int:
    if arguments.command == "problems":
        from qas.problems import list_problems as entries
    elif arguments.command == "noise":
        from qas.noise import list_noise as entries
    else:
        from qas.agents import list_agents as entries
    known = entries()
    if arguments.json:
        _print_json(known)
        return 0
    width = max(map(len, known))
    for name, about in known.items():
        print(f"{name.ljust(width)}  {about}")
    return 0


# ---------------------------------------------------------------------- search
_FIXED_BY_RUN = (
    "problem", "file", "agent", "noise", "seed", "max_gates", "gates", "coupling", "engine", "optimizer", "shots",
    "options", "evaluator", "out", "encoder", "pool", "screen", "storage",
)  # fmt: skip


def _search(arguments: argparse.Namespace) -> int:
    budget = {name: getattr(arguments, name) for name in ("seconds", "evaluations", "steps")}
    if arguments.resume is not None:
        for name in _FIXED_BY_RUN:
            if getattr(arguments, name) is not None:
                option = "--" + name.replace("_", "-").replace("options", "option")
                shown = name.upper() if name in ("problem", "file") else option
                raise QasError(
                    f"--resume takes its settings from the run: leave out {shown} (a new budget may be given)"
                )
        from qas.runs import load_run

        before = load_run(arguments.resume)
        limits = budget if any(budget.values()) else before.config["budget"]
        label = _label(before.problem.name, before.agent, before.noise.name if before.noise else None)
        unit = before.problem.unit
    else:
        if arguments.problem is None:
            raise QasError("search needs a problem, e.g. qas search lih-4 (qas problems lists them), or --resume RUN")
        # What is cheap to check comes before the imports of the agents.
        from qas.noise import load_noise
        from qas.problems import load_problem

        target = load_problem(_problem_name(arguments.problem, arguments.file))
        noise = load_noise(arguments.noise)
        if not any(budget.values()):
            budget["seconds"] = 60.0
        limits = budget
        label = _label(target.name, arguments.agent or "ddqn", noise.name if noise else None)
        unit = target.unit
    with _progress(label, unit, limits, arguments.quiet) as on_progress:
        report = not arguments.no_report
        if arguments.resume is not None:
            from qas.agents.launch import resume

            run = resume(arguments.resume, **budget, report=report, on_progress=on_progress)
        else:
            run = _start(arguments, target, budget, on_progress)
    if arguments.json:
        _print_json(_run_json(run))
    else:
        print(_summary(run))
    return _INTERRUPTED if run.status == "interrupted" else 0


def _problem_name(name: str, file: str | None) -> str:
    """What `load_problem` takes: the name, and behind it the file where one is needed."""
    from qas.problems import needs_file

    if needs_file(name):
        if file is None:
            raise QasError(f"{name} needs a file behind its name (qas problems tells which), got none")
        return f"{name} {file}"
    if file is not None:
        raise QasError(f"unexpected argument {file!r}: {name} takes no file (see qas search --help)")
    return name


def _start(arguments: argparse.Namespace, problem: BaseProblem, budget: dict[str, Any], on_progress: Any) -> Run:
    from qas.agents.launch import search

    evaluator = dict(arguments.evaluator or ())
    for name in ("engine", "optimizer", "shots"):
        if getattr(arguments, name) is not None:
            evaluator[name] = getattr(arguments, name)
    given = {"gates": arguments.gates} if arguments.gates is not None else {}
    return search(
        problem,
        agent=arguments.agent or "ddqn",
        noise=arguments.noise,
        **budget,
        seed=arguments.seed or 0,
        max_gates=arguments.max_gates,
        coupling=arguments.coupling,
        evaluator=evaluator,
        options=_agent_options(arguments),
        out=arguments.out,
        report=not arguments.no_report,
        on_progress=on_progress,
        **given,
    )


def _agent_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The agent's settings, those that have an option of their own included."""
    from qas.agents import POOL_AGENTS

    options = dict(arguments.options or ())
    agent = arguments.agent or "ddqn"
    for name in ("encoder", "pool", "screen", "storage"):
        value = getattr(arguments, name)
        if value is None:
            continue
        agents = ("bo",) if name == "storage" else POOL_AGENTS
        if agent not in agents:
            raise QasError(f"--{name} is for the agents {', '.join(agents)}, got agent {agent}")
        options[name] = value
    return options


def _label(problem: str, agent: str, noise: str | None) -> str:
    return f"{problem}, agent {agent}, " + (f"noise {noise}" if noise else "no noise")


# ---------------------------------------------------------------------- progress
@contextlib.contextmanager
def _progress(
    label: str, unit: str, limits: dict[str, Any], quiet: bool
) -> Iterator[Callable[[Progress], None] | None]:
    """Shows a search on standard error: a live display on a terminal, a line now and then elsewhere."""
    from qas.report import short_unit

    if quiet:
        yield None
        return
    watch = _Watch(label, short_unit(unit), limits)
    if not sys.stderr.isatty():
        slow = threading.Timer(_SLOW_START, watch.explain_start)
        slow.daemon = True
        slow.start()
        try:
            yield watch.plain
        finally:
            slow.cancel()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, get_renderable=watch.renderable, refresh_per_second=5, transient=True):
        yield watch.note


class _Watch:
    """What is known about a search in progress, and how it is shown."""

    def __init__(self, label: str, unit: str, limits: dict[str, Any]) -> None:
        self.label = label
        self.unit = unit
        self.limits = limits
        self.begun = time.perf_counter()
        self.last: Progress | None = None
        self.seen = self.begun
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=30)
        self._errors: list[float] = []
        self._next_line = _PLAIN_EVERY

    def note(self, progress: Progress) -> None:
        """Take in a snapshot."""
        self.last = progress
        self.seen = time.perf_counter()
        self._recent.append((progress.seconds, progress.evaluations, progress.architectures))
        self._errors.append(progress.best_error)
        if len(self._errors) > 480:
            del self._errors[::2]

    def rates(self) -> tuple[float, float]:
        """Evaluations and architectures per second, over the last few seconds."""
        if not self._recent:
            return 0.0, 0.0
        first, last = self._recent[0], self._recent[-1]
        if len(self._recent) < 3 or last[0] <= first[0]:
            first = (0.0, 0, 0)
        passed = max(last[0] - first[0], 1e-9)
        return (last[1] - first[1]) / passed, (last[2] - first[2]) / passed

    def left(self) -> str:
        """Time left as far as it can be told."""
        p = self.last
        if p is None or p.fraction <= 0:
            return "?"
        remaining = p.seconds * (1 - p.fraction) / p.fraction - (time.perf_counter() - self.seen)
        return _clock(max(remaining, 0.0))

    def explain_start(self) -> None:
        """Say why nothing happens yet."""
        if self.last is None:
            print("qas: preparing; kernels are compiled once per machine, the clock has not started", file=sys.stderr)

    def plain(self, progress: Progress) -> None:
        """Take in a snapshot and print a line if one is due."""
        self.note(progress)
        if time.perf_counter() - self.begun < self._next_line:
            return
        self._next_line = time.perf_counter() - self.begun + _PLAIN_EVERY
        evaluations, architectures = self.rates()
        line = (
            f"qas: {_clock(progress.seconds)}, best error {_quantity(progress.best_error, self.unit)} "
            f"({progress.best_gates} gates, {progress.best_two_qubit_gates} on two qubits), {evaluations:,.0f} "
            f"evaluations/s, {architectures:,.0f} architectures/s, {self.left()} left"
        )
        print(line + (f", {progress.note}" if progress.note else ""), file=sys.stderr, flush=True)

    def renderable(self) -> Any:
        """The live display."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        p = self.last
        if p is None:
            slow = time.perf_counter() - self.begun > _SLOW_START
            what = (
                "preparing; kernels are compiled once per machine, the clock has not started" if slow else "preparing"
            )
            return Text(f"{self.label}\n{what} …")
        evaluations, architectures = self.rates()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=1.0, completed=p.fraction, width=32),
            Text(f"{_clock(p.seconds)}, {self.left()} left"),
            Text(_sparkline(self._errors), style="blue"),
        )
        body = Table.grid(padding=(0, 2))
        body.add_row(
            Text("best error"),
            Text(_quantity(p.best_error, self.unit), style="bold"),
            Text(f"{p.best_gates} gates, {p.best_two_qubit_gates} on two qubits; {p.front_size} circuits in the front"),
        )
        body.add_row(
            Text("speed"),
            Text(f"{evaluations:,.0f} evaluations/s"),
            Text(f"{architectures:,.0f} architectures/s; {p.evaluations:,} evaluations so far"),
        )
        rows: list[Any] = [Text(self.label, style="bold"), head, body]
        if p.note:
            rows.append(Text(p.note, style="dim", no_wrap=True, overflow="ellipsis"))
        rows.append(Text("Ctrl-C stops and keeps everything", style="dim"))
        return Group(*rows)


def _sparkline(errors: Sequence[float], width: int = 24) -> str:
    """The logarithm of the best error over time as block characters."""
    import math

    values = [math.log10(max(e, 1e-15)) for e in errors if math.isfinite(e)]
    if len(values) < 2:
        return ""
    picked = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    low, high = min(picked), max(picked)
    if high - low < 1e-9:
        return "▁" * width
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / (high - low))] for v in picked)


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}"


def _quantity(value: float, unit: str) -> str:
    return f"{value + 0.0:.3g} {unit}".strip()


# ---------------------------------------------------------------------- what was found
def _summary(run: Run) -> str:
    """All that a user wants to know after a search."""
    lines = [*_heading(run), ""]
    if not run.front:
        lines.append("no circuit yet")
    else:
        lines += [*_describe(run, run.best, "best circuit"), "", "front (error against two-qubit gates)"]
        from qas.runs import envelope

        lines += _table(run, envelope(run.front))
    lines += ["", *_places(run)]
    return "\n".join(lines)


def _heading(run: Run) -> list[str]:
    noise = run.noise.name if run.noise else None
    about = f"{run.problem.name}: {run.problem.description}" if run.problem.description else run.problem.name
    state = "still running, or killed," if run.status == "running" else run.status
    return [
        about,
        f"{_label(run.problem.name, run.agent, noise)}, seed {run.seed}: {state} after {run.seconds:,.1f} s, "
        f"{run.evaluations:,} evaluations, {run.architectures:,} architectures",
    ]


def _describe(run: Run, result: Result, title: str) -> list[str]:
    noise_name = run.noise.name if run.noise else None
    rows: list[tuple[str, float, float]] = [("exact", run.problem.exact, 0.0)]
    if run.noise or run.config.get("evaluator", {}).get("shots"):
        rows.append(
            ("this circuit, as measured" if not run.noise else "this circuit, noisy", result.energy, result.error)
        )
        rows.append(("this circuit, noise-free", result.noise_free_energy, result.noise_free_error))
    else:
        rows.append(("this circuit", result.energy, result.error))
    return [
        *_drawing(result.circuit, title),
        "",
        *_energies(run.problem, rows, result.error, noise_name),
    ]


def _drawing(circuit: Circuit, title: str) -> list[str]:
    from qas.drawing import draw_text

    counts = ", ".join(f"{count} {name}" for name, count in circuit.counts.items())
    size = f"{len(circuit)} gates" + (f" ({counts})" if counts else "") + f", depth {circuit.depth}"
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, 160))
    return [f"{title}: {size}", "", draw_text(circuit, width)]


def _energies(problem: BaseProblem, rows: list[tuple[str, float, float]], error: float, noise: str | None) -> list[str]:
    """Energies under each other, and whether the threshold is reached."""
    from qas.problems import CHEMICAL_ACCURACY
    from qas.report import product_state, short_unit

    product = product_state(problem)
    if product is not None:
        rows = [*rows, ("product state, noise-free" if noise else "product state", product, problem.error(product))]
    unit = short_unit(problem.unit)
    suffix = f" ({unit})" if unit else ""
    width = max(len(name) for name, *_ in rows)
    lines = [f"{'':{width}}  {'energy' + suffix:>18}  {'error' + suffix:>14}"]
    lines += [f"{name:{width}}  {energy:18.8f}  {part + 0.0:14.3g}" for name, energy, part in rows]
    threshold = problem.threshold
    assert threshold is not None
    goal = "chemical accuracy" if unit == "Ha" and threshold == CHEMICAL_ACCURACY else "threshold"
    ratio = error / threshold
    reached = "reached" if ratio <= 1 else f"not reached, the error is {ratio:.3g} times as large"
    return [*lines, f"{goal} ({_quantity(threshold, unit)}): {reached}"]


def _table(run: Run, results: Sequence[Result]) -> list[str]:
    """One row for each circuit; the first column is its number for --circuit."""
    from qas.report import short_unit

    unit = short_unit(run.problem.unit)
    heads = ["#", "two-qubit", "gates", "depth", f"error ({unit})" if unit else "error"]
    heads += ["noise-free"] if run.noise else []
    index = {id(r): k for k, r in enumerate(run.front)}
    rows = [
        [str(index[id(r)]), str(r.two_qubit_gates), str(r.gates), str(r.circuit.depth), f"{r.error + 0.0:.3g}"]
        + ([f"{r.noise_free_error + 0.0:.3g}"] if run.noise else [])
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]]


def _places(run: Run) -> list[str]:
    import shlex

    path = shlex.quote(str(run.path))
    lines = [f"run folder   {run.path}"]
    if (run.path / "report.html").exists():
        lines.append(f"report       {run.path / 'report.html'}")
    budget = run.config["budget"]
    more = ""
    if run.status == "finished":
        name = next(k for k in ("seconds", "evaluations", "steps") if budget.get(k))
        more = f" --{name} {2 * budget[name]:g}" if name == "seconds" else f" --{name} {2 * budget[name]}"
    lines += [
        f"continue     qas search --resume {path}{more}",
        f"look again   qas inspect {path}",
    ]
    if run.problem.simulated:
        lines.append(f"cross-check  qas evaluate {path} --engine aer")
    return lines


def _run_json(run: Run) -> dict[str, Any]:
    from qas.report import product_state

    p = run.problem
    return {
        "path": str(run.path.resolve()),
        "status": run.status,
        "problem": p.name,
        "agent": run.agent,
        "noise": run.noise.name if run.noise else None,
        "seed": run.seed,
        "evaluations": run.evaluations,
        "architectures": run.architectures,
        "seconds": run.seconds,
        "unit": p.unit,
        "exact": p.exact,
        "product_state": product_state(p),
        "threshold": p.threshold,
        "best": run.best.to_json() if run.front else None,
        "front": [r.to_json() for r in run.front],
    }


# ---------------------------------------------------------------------- inspect
def _inspect(arguments: argparse.Namespace) -> int:
    from qas.runs import load_run

    run = load_run(arguments.run)
    wants_one = arguments.circuit is not None or arguments.qasm or arguments.save
    if not wants_one:
        if arguments.json:
            _print_json(_run_json(run))
        elif arguments.front:
            print("\n".join([*_heading(run), "", *_table(run, run.front)]))
        else:
            print(_summary(run))
        return 0
    result = _pick(run, arguments.circuit)
    if arguments.save:
        _save(result.circuit, Path(arguments.save))
    if arguments.qasm:
        print(result.circuit.to_qasm(), end="")
    elif arguments.json:
        _print_json(result.to_json())
    elif arguments.circuit is not None:
        name = "best circuit" if arguments.circuit == "best" else f"circuit {arguments.circuit}"
        print("\n".join([*_heading(run), "", *_describe(run, result, name)]))
    return 0


def _pick(run: Run, which: str | None) -> Result:
    """The circuit with this number in the front, or the best."""
    if which in (None, "best"):
        return run.best
    last = len(run.front) - 1
    if last < 0:
        raise RunError(f"the run has no circuit yet: {run.path}")
    if not which.isdecimal() or int(which) > last:
        raise QasError(f"a circuit is a number from 0 to {last}, or best, got {which!r} (see qas inspect RUN --front)")
    return run.front[int(which)]


def _save(circuit: Circuit, path: Path) -> None:
    if path.suffix.lower() == ".qasm":
        from qas.files import write_atomic

        write_atomic(path, circuit.to_qasm())
    elif path.suffix.lower() in (".png", ".svg"):
        from qas.drawing import draw_figure, save_figure

        save_figure(draw_figure(circuit), path)
    else:
        raise QasError(f"a circuit is saved as .png, .svg or .qasm, got {path.name!r}")


# ---------------------------------------------------------------------- evaluate
def _evaluate(arguments: argparse.Namespace) -> int:
    from qas.evaluation import evaluate
    from qas.noise import NoiseModel, load_noise
    from qas.problems import load_problem

    target = Path(arguments.target)
    problem = None if arguments.problem is None else load_problem(arguments.problem)
    noise: NoiseModel | None = load_noise(arguments.noise)
    if target.is_dir() or (not target.exists() and target.suffix.lower() != ".qasm"):
        from qas.runs import load_run

        run = load_run(target)
        problem = problem or run.problem
        noise = run.noise if arguments.noise is None else noise
        circuit = _pick(run, arguments.circuit).circuit
    else:
        if arguments.circuit is not None:
            raise QasError("--circuit chooses from a run; a file holds one circuit")
        if problem is None:
            raise QasError("a circuit file does not say what it is for: add --problem NAME (qas problems lists them)")
        from qas.interop import read_circuit_file

        circuit = read_circuit_file(target)
    report = evaluate(
        circuit, problem, noise=noise, shots=arguments.shots, backend=arguments.engine, seed=arguments.seed
    )
    if arguments.json:
        _print_json(report.to_json())
    else:
        print("\n".join(_evaluation_text(report, problem)))
    return 0


def _evaluation_text(report: EvaluationReport, problem: BaseProblem) -> list[str]:
    from qas.report import short_unit

    how = f"{report.shots:,} shots" if report.shots else "exact"
    noise = f"noise {report.noise}" if report.noise else "no noise"
    rows = [("exact", report.exact, 0.0)]
    if report.noise or report.shots:
        rows.append(("this circuit, noisy" if report.noise else "this circuit, shots", report.energy, report.error))
        rows.append(("this circuit, noise-free", report.noise_free_energy, report.noise_free_error))
    else:
        rows.append(("this circuit", report.energy, report.error))
    lines = [
        *_drawing(report.circuit, "circuit"),
        "",
        ", ".join([report.problem, *([noise, f"engine {report.engine}"] if problem.simulated else []), how]),
        "",
        *_energies(problem, rows, report.error, report.noise),
    ]
    if report.standard_error is not None:
        lines.append(f"standard error of the estimate: {_quantity(report.standard_error, short_unit(report.unit))}")
    return lines


# ---------------------------------------------------------------------- pools and encoders
def _pool(arguments: argparse.Namespace) -> int:
    from qas.encoders.pools.pool import LabelSettings, Pool, build_pool
    from qas.encoders.pools.spaces import CircuitSpace
    from qas.gates import POOL_GATES

    if arguments.action == "show":
        pool = Pool(arguments.pool)
    else:
        space = CircuitSpace(
            arguments.qubits,
            arguments.gate_set or POOL_GATES,
            max_gates=arguments.gates,
            min_gates=arguments.min_gates,
            max_depth=arguments.depth,
            ring=arguments.ring,
            coupling=arguments.coupling,
        )
        with _bar(arguments.quiet) as shown:
            pool = build_pool(
                arguments.out,
                space,
                arguments.size,
                seed=arguments.seed,
                tasks=arguments.task,
                noise=arguments.noise,
                settings=LabelSettings(starts=arguments.starts),
                jobs=arguments.jobs,
                on_progress=lambda p: shown(f"labelling {p.task}" if p.task else "drawing circuits", p.done, p.size),
            )
    tables = [_task_row(pool, task) for task in pool.tasks]
    if arguments.json:
        _print_json({"path": str(pool.path), "size": len(pool), "space": pool.space.to_json(), "tasks": tables})
        return 0
    s = pool.space
    print(
        f"{pool.path}: {len(pool):,} circuits of {s.n_qubits} qubits, "
        f"{s.max_gates if s.min_gates == s.max_gates else f'{s.min_gates} to {s.max_gates}'} gates, at most "
        f"{s.max_depth} layers\ngates: {', '.join(s.gates)}"
    )
    if tables:
        rows = [[k.replace("_", " ") for k in tables[0]]]
        rows += [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in tables]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print()
        for row in rows:
            print("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    return 0


def _task_row(pool: Any, task: str) -> dict[str, Any]:
    """What the labels of a task say, in numbers."""
    from qas.encoders.pools.pool import TabularProblem
    from qas.scores import load_score

    labels = pool.labels(task)
    row: dict[str, Any] = {
        "task": task,
        "best_error": float(labels.problem.error(labels.best.min())),
        "spread": float(labels.spread.mean()),
        "evaluations": int(labels.evaluations.sum()),
    }
    with contextlib.suppress(QasError):
        score = load_score("published", labels.problem)
        table = TabularProblem(pool.space, pool.rows, labels, score)
        row |= {"threshold": score.threshold, "share_above": table.base_rate}
    return row


def _encoder(arguments: argparse.Namespace) -> int:
    from qas.encoders.trained import list_encoders, load_encoder

    if arguments.action == "list":
        known = {name: repr(load_encoder(name)) for name in list_encoders()}
        if arguments.json:
            _print_json(known)
        else:
            for name, about in known.items():
                print(f"{name}  {about}")
        return 0
    from qas.encoders.pools.pool import Pool
    from qas.encoders.report import distance_correlations, metrics_table, save_map
    from qas.encoders.training import train
    from qas.files import write_atomic

    pool = Pool(arguments.pool)
    out = Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"the encoder folder must be new or empty: {out}")
    if arguments.task is not None and arguments.task not in pool.tasks:
        raise UnknownNameError("task of the pool", arguments.task, pool.tasks)
    rows = pool.rows
    with _bar(arguments.quiet) as shown:
        shown("preparing", 0, arguments.epochs)
        encoder = train(
            rows,
            pool.space,
            encoding=arguments.encoding,
            model=arguments.model,
            epochs=arguments.epochs,
            seed=arguments.seed,
            on_progress=lambda told: shown(f"training, loss {told['loss']:.4g}", told["epoch"], told["epochs"]),
        )
    encoder.save(out)  # before anything is read that could be damaged
    if pool.tasks:
        encoder.metrics |= distance_correlations(encoder, pool)
        encoder.save(out)
    write_atomic(out / "metrics.md", metrics_table({out.name: encoder}) + "\n")
    task = arguments.task or next(iter(pool.tasks), None)
    if task is not None:
        save_map(encoder, pool, task, out / "latent-map.png")
    if arguments.json:
        _print_json({"path": str(out), "metrics": encoder.metrics, "settings": encoder.settings})
    else:
        print(f"{encoder!r}\n\n{metrics_table({out.name: encoder})}\n\nencoder folder  {out}")
        print(f"search with it  qas search PROBLEM --agent bo --encoder {out}")
    return 0


# ---------------------------------------------------------------------- fine-tuning
def _finetune(arguments: argparse.Namespace) -> int:
    if (arguments.model is None) != (arguments.data is None):
        raise QasError("--model and --data go together: a folder of a model and a file to learn from")
    if (arguments.task is None) == (arguments.model is None):
        raise QasError("give either --task NAME or --model DIR --data FILE (qas backbone list names the tasks)")
    if arguments.model is not None and arguments.backbone is not None:
        raise QasError("--backbone goes with --task; a Hugging Face model is named by --model")
    if arguments.model is not None and arguments.examples is not None:
        raise QasError("--examples goes with --task; of a data file all examples are used")
    from qas.adapters.architecture import load_architecture
    from qas.finetuning.finetune import finetune, resolve, save

    circuit = None if arguments.run is None else load_architecture(arguments.run)
    method = arguments.method or ("quantum-peft" if circuit is None else "searched")
    chosen = {
        name: value
        for name in ("bits", "rank", "layers", "size", "epochs", "learning_rate", "scale", "seed")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.targets is not None:
        chosen["targets"] = tuple(arguments.targets)
    if arguments.gradient is not None:
        return _gradient(arguments, chosen)
    with _bar(arguments.quiet) as shown:
        model, task, settings, origin = resolve(
            method,
            chosen,
            task=arguments.task,
            backbone=arguments.backbone,
            model=arguments.model,
            data=arguments.data,
            examples=arguments.examples or 1000,
        )
        with _new_folder(arguments.out, f"finetune-{task.name}-{method}") as folder:
            outcome, adapters, history = finetune(
                model,
                task,
                settings,
                circuit,
                on_progress=lambda p: shown(
                    f"loss {p.loss:.4g}, validation {task.metric.replace('_', ' ')} {p.validation:.4g}",
                    p.epoch,
                    p.epochs,
                ),
            )
            size = save(folder, settings, adapters, outcome, history, model=model, circuit=circuit, origin=origin)
    if arguments.json:
        _print_json({"path": str(folder.resolve()), "file_bytes": size} | vars(outcome))
        return 0
    name, percent = outcome.metric.replace("_", " "), outcome.metric == "accuracy"
    rows = [
        (f"test {name}", f"{100 * outcome.test:.2f} %" if percent else f"{outcome.test:.4f}"),
        (f"validation {name}", f"{100 * outcome.validation:.2f} %" if percent else f"{outcome.validation:.4f}"),
        ("chance", f"{100 * outcome.chance:.2f} %" if percent else f"{outcome.chance:.4f}"),
        ("trainable parameters", f"{outcome.trainable:,} (head apart: {outcome.head_parameters:,})"),
        ("adapter bits", f"{outcome.adapter_bits:,}"),
        ("adapter file", f"{size:,} bytes"),
        ("training", f"{_clock(outcome.seconds)}, {outcome.epochs} epochs"),
        ("folder", str(folder)),
    ]
    print(f"{task.name}, {method}")
    for label, value in rows:
        print(f"  {label:26s}{value}")
    return 0


def _gradient(arguments: argparse.Namespace, chosen: dict[str, Any]) -> int:
    """Write the pooled gradient of a task in rotations of the target layers."""
    import numpy as np

    from qas.files import write_atomic
    from qas.finetuning.alignment import task_gradient
    from qas.finetuning.finetune import resolve

    for name in ("run", "model", "method", "bits", "rank", "layers", "size", "learning_rate", "scale", "out"):
        if getattr(arguments, name) is not None:
            shown = "RUN" if name == "run" else "--" + name.replace("_", "-")
            raise QasError(f"--gradient belongs to a task alone: leave out {shown}")
    path = Path(arguments.gradient)
    if path.suffix.lower() != ".npy" or not path.parent.is_dir():
        raise QasError(f"a gradient is written as .npy into a folder that exists, got {arguments.gradient}")
    model, task, settings, _ = resolve(
        "linear-probe",
        chosen,
        task=arguments.task,
        backbone=arguments.backbone,
        examples=arguments.examples or 1000,
    )
    matrix = task_gradient(model, task, settings)
    write_atomic(path, lambda stream: np.save(stream, matrix))
    if arguments.json:
        _print_json({"path": str(path.resolve()), "shape": list(matrix.shape)})
    else:
        print(f"{task.name}: gradient of {matrix.shape[0]} x {matrix.shape[1]} in {path}")
        print(f"find a circuit  qas search adapter-gradient {path} --agent adapt --evaluations 200")
        print(f"and use it      qas finetune RUN --task {task.name} --method searched-rotation")
    return 0


@contextlib.contextmanager
def _new_folder(out: str | None, stem: str) -> Iterator[Path]:
    """A new or empty folder, made and tried before long work whose result it is to hold; gone again if that fails."""
    from qas.files import disk_errors, free_folder

    folder = Path(out) if out else free_folder(stem)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"the folder must be new or empty: {folder}")
    made = not folder.exists()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    try:
        yield folder
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # what is written already stays
                folder.rmdir()
        raise


def _backbone(arguments: argparse.Namespace) -> int:
    from qas.finetuning.backbones import PRESETS, SHIPPED, list_backbones, pretrain
    from qas.finetuning.methods import list_methods
    from qas.finetuning.tasks import list_tasks

    if arguments.action == "list":
        presets = {
            name: f"{preset.config}, about {preset.minutes} min"
            + ", comes with the package" * (SHIPPED / name / "backbone.json").exists()
            for name, preset in PRESETS.items()
        }
        presets |= {name: f"in backbones/{name}" for name in list_backbones() if name not in PRESETS}
        known = {"backbones": presets, "tasks": list_tasks(), "methods": list_methods()}
        if arguments.json:
            _print_json(known)
            return 0
        for title, entries in known.items():
            print(title)
            width = max(map(len, entries))
            for name, about in entries.items():
                print(f"  {name:{width}s}  {about}")
        return 0
    if arguments.preset not in PRESETS:
        raise UnknownNameError("preset", arguments.preset, PRESETS)
    with _new_folder(arguments.out, arguments.preset) as out, _bar(arguments.quiet) as shown:
        model = pretrain(
            arguments.preset,
            out=out,
            seed=arguments.seed,
            examples=arguments.examples,
            on_progress=lambda told: shown(f"loss {told['loss']:.4g}", told["step"], told["steps"]),
        )
    if arguments.json:
        _print_json({"path": str(out.resolve()), "provenance": model.provenance})
    else:
        print(f"{arguments.preset}: {model.provenance}\n\nfolder  {out}")
        print(f"fine-tune it  qas finetune --task NAME --backbone {out}")
    return 0


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows work of known size on standard error."""
    if quiet:
        yield lambda what, done, size: None
        return
    if not sys.stderr.isatty():
        yield lambda what, done, size: print(f"qas: {what}, {done:,} of {size:,}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        bar = display.add_task("starting", total=None)
        yield lambda what, done, size: display.update(bar, description=what, completed=done, total=size)


if __name__ == "__main__":
    sys.exit(main())
