"""The reference: what a module exports, from its own list and its docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import qas
from qas.registry import Registry


def public(module: ModuleType) -> list[str]:
    """What a module exports: its `__all__`, or the functions and classes that were made in it."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not name.startswith("__")]
    mine = [(name, value) for name, value in vars(module).items() if not name.startswith("_")]
    return [
        name
        for name, value in mine
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    ]


def _elsewhere(module: ModuleType, name: str) -> str | None:
    """The shorter name under which an export is described: that of `qas`."""
    if module is qas:
        return None
    value = getattr(module, name)
    return next((f"qas.{short}" for short in qas.__all__ if getattr(qas, short) is value), None)


def _directive(full: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f".. autoclass:: {full}"
        yield "   :members:"
    elif inspect.isroutine(value):
        yield f".. autofunction:: {full}"
    else:
        yield f".. autodata:: {full}"
        yield "   :no-value:"
    yield ""


def _names_of(registry: Registry) -> Iterator[str]:
    """A table of what is registered."""
    yield "| name | what |"
    yield "|---|---|"
    for name in registry:
        yield f"| `{name}` | {registry.about(name).replace('|', chr(92) + '|')} |"
    yield ""


def _rst(lines: list[str]) -> list[str]:
    return ["````{eval-rst}", *lines, "````", ""]


def room(name: str) -> str:
    """Everything that a module exports, as Markdown: its docstring, then an entry for each name."""
    module = import_module(name)
    parts = [f"## {name}", "", *_rst([f".. automodule:: {name}", "   :no-members:", ""])]
    also = []
    for export in public(module):
        value = getattr(module, export)
        short = _elsewhere(module, export)
        if short:
            also.append(f"{{py:obj}}`{short}`")
            continue
        parts += _rst(list(_directive(f"{name}.{export}", value)))
        if isinstance(value, Registry):
            parts += _names_of(value)
    if also:
        parts += [f"Also here: {', '.join(also)}.", ""]
    return "\n".join(parts)


def agents(_: str) -> str:
    """Every registered agent with its settings."""
    from qas.agents import AGENTS

    parts = []
    for name in AGENTS:
        agent = AGENTS[name]
        parts += [f"### {name}", "", *_rst([f".. autoclass:: {agent.__module__}.{agent.__qualname__}", ""])]
    return "\n".join(parts)
