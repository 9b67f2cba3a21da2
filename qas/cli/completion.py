"""``qas completion``: words that a shell offers behind what was typed so far."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from qas.cli.parser import Parser, build_parser, command
from qas.errors import QasError

# They hand the words behind "qas" to "qas completion --words"; without an answer files are offered.
_BASH = """\
_qas() {
    local IFS=$'\\n'
    COMPREPLY=($(qas completion bash --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _qas qas"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{_BASH}",
    "fish": "complete -c qas -a '(qas completion fish --words (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'",
}
_ABOUT = """Prints what a shell needs to complete words, for its start file:
bash: source <(qas completion bash); zsh: source <(qas completion zsh); fish: qas completion fish | source"""


def add(commands: Any) -> None:
    parser = command(commands, "completion", "completion of words by a shell", _ABOUT, run)
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help="bash, zsh or fish")
    parser.add_argument("--words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    print(_SCRIPTS[arguments.shell] if arguments.words is None else "\n".join(complete(arguments.words)))
    return 0


def complete(words: Sequence[str]) -> list[str]:
    """What the last of the words behind ``qas``, perhaps empty, may become."""
    *before, last = words or [""]
    parser, depth = build_parser(), 0
    for word in before:
        child = parser.children().get(word)
        if child is not None:
            parser, depth = child, depth + 1
    return sorted(word for word in _candidates(parser, before[depth:], last) if word.startswith(last))


def _candidates(parser: Parser, before: Sequence[str], last: str) -> Iterable[str]:
    options = parser._option_string_actions
    owner = options.get(before[-1]) if before else None
    if owner is not None and owner.nargs != 0:
        return _names(owner)
    if last.startswith("-"):
        return [name for name, action in options.items() if action.help != argparse.SUPPRESS]
    if parser.children():
        return parser.children()
    free = next((a for a in parser._actions if not a.option_strings), None)
    return [] if free is None or any(not word.startswith("-") for word in before) else _names(free)


def _names(action: argparse.Action) -> Iterable[str]:
    """Names that an argument may take; none where a file or a number is wanted."""
    kind = getattr(action, "kind", "")
    if not kind:
        return action.choices or []
    with contextlib.suppress(QasError):
        if kind == "problems":
            from qas.problems import list_problems

            return [name.partition(" ")[0] for name in list_problems()]
        from qas.registry import registry

        return list(registry(kind))
    return []
