"""What the commands share when they read their words."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from qas import __version__
from qas.errors import QasError, UnknownNameError

if TYPE_CHECKING:
    from qas.problems import BaseProblem

_VERBS = (
    "lists", "search", "campaign", "atlas", "report", "inspect", "evaluate", "shrink", "export", "pool", "encoder",
    "policy", "finetune", "backbone", "completion",
)  # fmt: skip
_FILES_TOO = ("problems", "noise", "devices")
"""Kinds of which a file may be named too; names of all others are looked up as soon as the words are read."""
_SETTINGS_TOO = ("engines", "objectives")
"""Kinds whose names may be followed by settings."""


class Parser(argparse.ArgumentParser):
    """Raises instead of printing the usage, so that every wrong call ends in one line."""

    unnamed = ""
    """The action that is meant where the first word names none."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self.set_defaults(run=None)

    def option(self, names: str, metavar: str, about: str, read: Any = None, *, kind: str = "", **more: Any) -> None:
        """An argument with a value; `kind` is the registry that its names come from."""
        action = self.add_argument(*names.split(), metavar=metavar, help=about, type=read, **more)
        action.kind = kind  # type: ignore[attr-defined]

    def flag(self, name: str, about: str, **more: Any) -> None:
        self.add_argument(name, action="store_true", help=about, **more)

    def output(self, *, progress: bool = False, inherits: bool = False) -> None:
        """The flags of most commands; an action inherits those that stand in front of its name, if its parent has
        them."""
        self.flag("--json", "for other programs", **({"default": argparse.SUPPRESS} if inherits else {}))
        if progress:
            self.flag("--quiet", "show no progress")

    def children(self) -> dict[str, Parser]:
        """The parsers of its commands by name."""
        return next((dict(a.choices) for a in self._actions if isinstance(a, argparse._SubParsersAction)), {})

    def error(self, message: str) -> NoReturn:
        raise QasError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UnknownNameError(str(action.metavar).lower(), value, action.choices)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, for each command in turn; an unknown option and an unknown name are told with the nearest.

        Names are looked up here, where nothing heavy has been imported.
        """
        if self.unnamed and args:
            first = next((k for k, word in enumerate(args) if not word.startswith("-")), len(args))
            own = all(word in self._option_string_actions for word in args[:first])
            if not own or (first < len(args) and args[first] not in self.children()):
                args = [*args[:first], self.unnamed, *args[first:]] if own else [self.unnamed, *args]
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            word = extra[0].partition("=")[0]
            if word.startswith("-"):
                raise UnknownNameError("option", word, [o for o in self._option_string_actions if len(o) > 2])
            self.error(f"unexpected argument {word!r}")
        for action in self._actions:
            kind, name = getattr(action, "kind", ""), getattr(found, action.dest, None)
            if kind and kind not in _FILES_TOO and name is not None:
                from qas.registry import registry

                # Some have settings behind their names; they tell themselves what is wrong with these.
                registry(kind).check(name.partition(":")[0] if kind in _SETTINGS_TOO else name)
        return found, extra


def build_parser() -> Parser:
    """The parser of ``qas`` with all its commands."""
    parser = Parser(prog="qas", description="Quantum architecture search: find good circuits for noisy devices.")
    parser.add_argument("--version", action="version", version=f"qas {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for verb in _VERBS:
        importlib.import_module(f"qas.cli.{verb}").add(commands)
    return parser


def command(commands: Any, name: str, about: str, description: str, run: Callable[[Any], int]) -> Parser:
    """A new command, or a new action of a group."""
    parser = commands.add_parser(name, help=about, description=description)
    parser.set_defaults(run=run)
    return parser


def group(commands: Any, name: str, about: str, description: str) -> Any:
    """A new command that only has actions; returns what they are added to."""
    parser = commands.add_parser(name, help=about, description=description)
    return parser.add_subparsers(metavar="ACTION", required=True)


# ---------------------------------------------------------------------- values
def number(kind: type, least: float, what: str) -> Callable[[str], Any]:
    """Reads a number of at least `least`; `what` says which are needed."""

    def read(text: str) -> Any:
        try:
            value = kind(text.replace("_", ""))
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{what} is needed, got {text!r}")
        return value

    return read


count = number(int, 1, "a whole number of at least 1")
natural = number(int, 0, "a whole number of at least 0")
seconds = number(float, 1e-9, "a positive number of seconds")
positive = number(float, 1e-300, "a positive number")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def pairs(text: str) -> list[tuple[int, int]]:
    try:
        return [(int(a), int(b)) for a, b in (pair.split("-") for pair in names(text))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"pairs of qubits such as 0-1,1-2 are needed, got {text!r}") from None


def qubits(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", "-").split("-")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"qubits such as 5-3-2 are needed, got {text!r}") from None


def setting(text: str) -> tuple[str, str]:
    """key=value; what kind of value it is, `qas.registry.read_settings` knows."""
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise argparse.ArgumentTypeError(f"a setting is written key=value, got {text!r}")
    return key.strip(), value.strip()


CALLBACK: dict[str, Any] = {
    "metavar": "NAME",
    "action": "append",
    "help": "tell tensorboard, wandb or a function MODULE:NAME of the search while it runs; may be repeated",
}
"""Of the option that both searches and campaigns have."""


def _active(text: str) -> tuple[int, int]:
    electrons, _, orbitals = text.partition(",")
    if not (electrons.isdecimal() and orbitals.isdecimal()):
        raise argparse.ArgumentTypeError(f"electrons and orbitals such as 2,5 are needed, got {text!r}")
    return int(electrons), int(orbitals)


def given(arguments: argparse.Namespace, *options: str) -> dict[str, Any]:
    """Those of the options that the user gave."""
    return {name: value for name in options if (value := getattr(arguments, name)) is not None}


# ---------------------------------------------------------------------- problems
_MOLECULE = ("basis", "active", "charge", "mapping", "orbitals", "freeze_core", "taper")


def add_problem(parser: Parser) -> None:
    """The options that say what is solved without a name from ``qas problems``."""
    add = parser.add_argument_group("instead of a name").add_argument
    add("--hamiltonian", metavar="FILE", help="Pauli strings and their weights (.json), or a SparsePauliOp (.qpy)")
    add("--geometry", metavar="XYZ", help='a molecule in angstrom, such as "Li 0 0 0; H 0 0 1.6" (extra chem)')
    add("--basis", metavar="NAME", help="of --geometry (default sto-3g)")
    add("--active", type=_active, metavar="E,O", help="of --geometry: active electrons and orbitals (default all)")
    add("--charge", type=int, metavar="Q", help="of --geometry (default 0)")
    add("--mapping", metavar="NAME", help="of --geometry: parity or jordan-wigner (default parity)")
    add("--orbitals", metavar="NAME", help="of --geometry: rhf, uhf, natural or localized (default rhf)")
    add("--freeze-core", action="store_true", default=None, help="of --geometry: without --active, keep the cores full")
    add("--taper", action="store_true", default=None, help="of --geometry: drop the qubits that symmetries fix")


def read_problem(arguments: argparse.Namespace, name: str | None, file: str | None = None) -> BaseProblem | None:
    """The problem that the words name; None if they name none.

    Raises:
        QasError: more than one, or one that cannot be read.
    """
    from qas.problems import load_problem

    molecule = given(arguments, *_MOLECULE)
    sources = [source for source in (name, arguments.hamiltonian, arguments.geometry) if source is not None]
    if len(sources) > 1:
        raise QasError("a problem is a name, --hamiltonian or --geometry, and only one of them")
    if molecule and arguments.geometry is None:
        raise QasError(f"--{next(iter(molecule)).replace('_', '-')} describes a molecule: it goes with --geometry")
    if arguments.geometry is not None:
        from qas.molecules import molecule as build

        return build(arguments.geometry, **molecule)
    return load_problem(" ".join([sources[0], *([file] if file is not None else [])])) if sources else None
