"""``qas problems``, ``qas noise`` and ``qas agents``: what has a name."""

from __future__ import annotations

import argparse
from typing import Any

from qas.cli.parser import command
from qas.cli.show import answer, listing


def add(commands: Any) -> None:
    for name, about, run in (
        ("problems", "what can be searched", _problems),
        ("noise", "noise models that have a name", _noise),
        ("agents", "ways to search, and their settings", _agents),
    ):
        command(commands, name, about, f"Lists {about}.", run).output()


def _problems(arguments: argparse.Namespace) -> int:
    from qas.problems import list_problems

    return answer(arguments, list_problems(), *listing(list_problems()))


def _noise(arguments: argparse.Namespace) -> int:
    from qas.noise import list_noise

    return answer(arguments, list_noise(), *listing(list_noise()))


def _agents(arguments: argparse.Namespace) -> int:
    from qas.agents import AGENTS, list_agents
    from qas.registry import options_of

    known: dict[str, Any] = {
        name: {"about": about, "options": {key: p.default for key, p in options_of(AGENTS[name]).items()}}
        for name, about in list_agents().items()
    }
    lines = [line for name, agent in known.items() for line in _agent(name, **agent)]
    return answer(arguments, known, *lines, "", "A setting is given as -o KEY=VALUE, its value as JSON or plain text.")


def _agent(name: str, about: str, options: dict[str, Any]) -> list[str]:
    import json
    import textwrap

    shown = ", ".join(f"{key}={json.dumps(value, default=str)}".replace(" ", "\0") for key, value in options.items())
    wrapped = textwrap.wrap(shown, 100, break_long_words=False, break_on_hyphens=False)
    return [f"{name:10} {about}", *(f"{'':11}{line}".replace("\0", " ") for line in wrapped)]
