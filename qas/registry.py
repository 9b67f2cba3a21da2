"""Registries: one table of names for each kind of thing that can be named, open to other packages.

A registry knows what this package brings, what was registered at run time, and what installed packages declare as entry
points in the group ``qas.<kind>``::

    [project.entry-points."qas.agents"]
    mine = "my_package:MyAgent"

Wherever a name is taken, the thing itself is too: a class, or an instance with its settings.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, get_type_hints

import numpy as np

from qas.checks import shortened
from qas.errors import QasError, UnknownNameError
from qas.files import parse_json
from qas.schema import fits, name_of

REGISTRIES: dict[str, Registry] = {}
"""Kind, as in the entry-point group ``qas.<kind>`` -> its registry; filled as the owners are imported."""

OWNERS = {
    "agents": "qas.agents",
    "presets": "qas.agents.presets",
    "acquisitions": "qas.agents.pool",
    "surrogates": "qas.agents.pool",
    "callbacks": "qas.callbacks",
    "curricula": "qas.envs",
    "devices": "qas.devices",
    "observations": "qas.envs",
    "families": "qas.envs",
    "rewards": "qas.envs",
    "encodings": "qas.encoders",
    "models": "qas.encoders",
    "points": "qas.encoders.pools",
    "screens": "qas.encoders.pools",
    "engines": "qas.simulators",
    "methods": "qas.finetuning",
    "tasks": "qas.finetuning",
    "noise": "qas.noise",
    "extrapolations": "qas.mitigation",
    "objectives": "qas.mitigation",
    "optimizers": "qas.optimizers",
    "problems": "qas.problems",
}
"""Kind -> the module that owns its registry."""


def registry(kind: str) -> Registry:
    """The registry of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind not in OWNERS:
        raise UnknownNameError("kind of registry", kind, OWNERS)
    importlib.import_module(OWNERS[kind])
    return REGISTRIES[kind]


class Registry(Mapping[str, Any]):
    """Name -> thing, loaded on first use.

    Iterating gives the names of this package first, in their order, then those of others. A name of this package or one
    registered at run time wins over an entry point of the same name.

    Args:
        kind: plural, as in the entry-point group ``qas.<kind>``.
        what: singular, for messages.
        built_in: name -> where it is (``"module:attribute"``), or the thing itself.
        replaced: names of the past -> those of today, for messages.
    """

    def __init__(
        self, kind: str, what: str, built_in: Mapping[str, Any], replaced: Mapping[str, str] | None = None
    ) -> None:
        self.kind, self.what = kind, what
        self.replaced = dict(replaced or {})
        self._things: dict[str, Any] = dict(built_in)
        self._entry_points: dict[str, Any] | None = None
        REGISTRIES[kind] = self

    # ------------------------------------------------------------------ names
    def _others(self) -> dict[str, Any]:
        if self._entry_points is None:
            self._entry_points = {point.name: point for point in entry_points(group=f"qas.{self.kind}")}
        return self._entry_points

    def __iter__(self) -> Iterator[str]:
        yield from self._things
        yield from sorted(self._others().keys() - self._things.keys())

    def __len__(self) -> int:
        return len(self._things.keys() | self._others().keys())

    def __contains__(self, name: object) -> bool:
        return name in self._things or name in self._others()

    def check(self, name: Any) -> str:
        """`name`, if it is in the registry.

        Raises:
            UnknownNameError: it is not; the nearest name is suggested.
        """
        if not isinstance(name, str) or name not in self:
            raise UnknownNameError(self.what, name, self, self.replaced.get(str(name)))
        return name

    # ------------------------------------------------------------------ things
    def __getitem__(self, name: str) -> Any:
        """The thing of that name.

        Raises:
            UnknownNameError: no such name; the nearest one is suggested.
            QasError: another package declares it and cannot be imported.
        """
        self.check(name)
        thing = self._things.get(name)
        if isinstance(thing, str):
            module, attribute = thing.split(":")
            thing = self._things[name] = getattr(importlib.import_module(module), attribute)
        elif thing is None:
            point = self._others()[name]
            try:
                thing = self._things[name] = point.load()
            except Exception as error:  # whatever the other package does while it is imported
                package = point.dist.name if point.dist else point.value
                raise QasError(
                    f"the {self.what} {name} of the package {package} cannot be loaded: {type(error).__name__}: {error}"
                ) from error
        return thing

    def register(self, name: str, thing: Any = None) -> Any:
        """Add a thing at run time; without `thing` a decorator.

        Raises:
            QasError: the name is taken by something else.
        """
        if thing is None:
            return lambda decorated: self.register(name, decorated)
        if self._things.get(name, thing) is not thing:
            raise QasError(f"the {self.what} {name} is registered already")
        self._things[name] = thing
        return thing

    def name_of(self, thing: Any) -> str | None:
        """The name under which a class (or the class of an instance) is registered; None if it is not.

        Nothing is imported for it.
        """
        kind = thing if hasattr(thing, "__qualname__") else type(thing)
        where = f"{kind.__module__}:{kind.__qualname__}"
        for name, held in self._things.items():
            if held is kind or held is thing or held == where:
                return name
        return next((name for name, point in self._others().items() if point.value == where), None)

    def about(self, name: str) -> str:
        """One line about it: its `about`, else the first line of its docstring."""
        thing = self[name]
        return getattr(thing, "about", None) or (inspect.getdoc(thing) or "").partition("\n")[0]

    def make(self, given: Any, base: type, *arguments: Any, **settings: Any) -> Any:
        """What a caller gave, as an instance of `base`: a name, a class, an instance, or a mapping.

        Args:
            given: a name of the registry, a subclass of `base`, an instance of it, or settings with their ``name``, as
                in ``{"name": "level-set", "threshold": 0.95}`` or, in one string, ``"level-set:threshold=0.95"``.
            base: what it must be.
            arguments: the constructor's positional arguments, if it is not an instance.
            settings: the constructor's keywords, if it is not an instance.

        Raises:
            UnknownNameError: no such name, or no such setting.
            QasError: something else was given, or settings together with an instance.
        """
        if isinstance(given, base):
            if settings:
                raise QasError(f"this {self.what} has its settings already, got {', '.join(settings)} beside it")
            return given
        if isinstance(given, str) and ":" in given:
            given = spelled_out(given)
        if isinstance(given, Mapping):
            settings = {k: v for k, v in given.items() if k != "name"} | settings
            given = given.get("name")
        kind: Callable[..., Any] = given
        if not (isinstance(given, type) and issubclass(given, base)):
            if not isinstance(given, str):
                shown = given.__name__ if isinstance(given, type) else type(given).__name__
                raise QasError(f"the {self.what} is a name, a {base.__name__} class or an instance of one, got {shown}")
            kind = self[given]
        check_settings(kind, settings, f"the {self.what} {given if isinstance(given, str) else given.__name__}")
        return kind(*arguments, **settings)


def spelled_out(text: str) -> dict[str, Any]:
    """``"level-set:threshold=0.95,quantile=0.5"`` as a mapping; values are JSON, or else text.

    Raises:
        QasError: something else than ``setting=value`` behind the name.
    """
    name, _, rest = text.partition(":")
    found: dict[str, Any] = {"name": name}
    for part in rest.split(","):
        key, sign, value = part.partition("=")
        if not (sign and key.strip()):
            raise QasError(f"settings behind a name are written name:setting=value,setting=value, got {text!r}")
        try:
            found[key.strip()] = parse_json(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found


def read_settings(kind: Callable[..., Any], texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings written as text: JSON where they are, but what the signature says is text stays so (``start=1100``)."""
    hints = _hints(kind)
    found: dict[str, Any] = {}
    for name, text in texts:
        try:
            value = parse_json(text)
        except ValueError:
            value = text
        hint = hints.get(name, Any)
        number = isinstance(value, (int, float))
        found[name] = text if number and not fits(value, hint) and fits(text, hint) else value
    return found


def check_settings(
    kind: Callable[..., Any], settings: Mapping[str, Any], what: str, known: Iterable[str] | None = None
) -> None:
    """Refuse settings that a class or function does not take, or whose type is not the one it names.

    Args:
        kind: its keyword-only parameters are the settings.
        settings: what is given.
        what: what is set, as messages name it.
        known: names of the settings, where they are others.

    Raises:
        UnknownNameError: no such setting.
        QasError: no settings at all, or a value of another type.
    """
    known = options_of(kind) if known is None else known
    hints = _hints(kind)
    for name, value in settings.items():
        if name not in known:
            if not known:
                raise QasError(f"{what} has no settings, got {name!r}")
            raise UnknownNameError(f"setting of {what}", name, known)
        if not fits(value, hints.get(name, Any)):
            raise QasError(f"{name} of {what} must be {name_of(hints[name])}, got {shortened(value)}")


def _hints(kind: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters; none where a name in them cannot be resolved at run time."""
    found: dict[str, Any] = {}
    for function in _takers(kind):
        try:
            found = get_type_hints(function) | found
        except NameError:
            continue
    return found


def options_of(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword options of a class or function: keyword-only parameters, in their order.

    Where a constructor ends in ``**options`` those of the class it extends follow.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in _takers(kind):
        parameters = inspect.signature(function).parameters.values()
        found |= {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in found}
    return found


def _takers(kind: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The function; or the constructor of a class and those that it hands further keywords on to."""
    if not isinstance(kind, type):
        yield kind
        return
    for base in kind.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is not None:
            yield constructor
            parameters = inspect.signature(constructor).parameters.values()
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return


def settings_of(thing: Any) -> dict[str, Any]:
    """The settings of an instance: its constructor's keyword options, kept as attributes of the same names.

    Only those that differ from their defaults are returned.
    """
    found = {name: (getattr(thing, name), p.default) for name, p in options_of(type(thing)).items()}
    return {name: value for name, (value, default) in found.items() if value is not default and value != default}


def recorded(value: Any) -> Any:
    """A setting as JSON has it: things that a registry knows by their name, with their settings if they have any.

    What no registry knows is told by the name of its class, which a reader understands and `Registry.make` refuses.

    Raises:
        QasError: a number that is not finite.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise QasError(f"a setting is a finite number, got {value!r}")
        return value
    if isinstance(value, Mapping):
        return {str(key): recorded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [recorded(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    names = (table.name_of(kind) for table in REGISTRIES.values())
    name = next((name for name in names if name is not None), f"{kind.__module__}:{kind.__qualname__}")
    settings = {} if value is kind else {key: recorded(item) for key, item in settings_of(value).items()}
    return {"name": name, **settings} if settings else name
