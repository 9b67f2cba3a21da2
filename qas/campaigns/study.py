"""Studies: which searches a campaign consists of."""

from __future__ import annotations

import itertools
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qas.agents import AGENTS
from qas.agents.settings import check_config, make_agent
from qas.alphabet import checked_coupling
from qas.checks import finite_number, shortened, whole_number
from qas.devices import load_device
from qas.errors import QasError, UnknownNameError
from qas.files import read_text
from qas.mitigation.objectives import make_objective
from qas.noise import load_noise
from qas.problems import load_problem

_AXES = ("problems", "agents", "noise", "devices", "objectives", "seeds")
_LIMITS = ("evaluations", "steps", "seconds", "target")
_SETTINGS = ("max_gates", "gates", "coupling", "patch", "evaluator")
MAX_STUDY_BYTES = 2**20
_KEYS = (*_AXES, *_LIMITS, *_SETTINGS, "options", "label")
_MOST = 100_000
_LONGEST = 200
"""Letters of a name, which files have too."""
"""Searches in a study."""


@dataclass(frozen=True)
class Task:
    """One search of a study.

    Attributes:
        name: of its run folder.
        settings: keywords of `qas.search`, as JSON has them.
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """The searches of a campaign.

    Attributes:
        told: the table that describes them, as JSON has it.
        tasks: the searches, all seeds of one setting together.
        out: folder of the campaign, where the table names one.
    """

    told: Mapping[str, Any]
    tasks: tuple[Task, ...]
    out: str | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Study:
        """The study that a table describes.

        Every combination of ``problems``, ``agents``, ``noise`` and ``devices`` (the conditions are both lists one
        after the other; none: no noise), ``objectives`` and ``seeds`` (a list, or how many from 0 on) is a search with
        the budget ``evaluations``, ``steps`` or ``seconds`` and perhaps a ``target``. ``options`` has a table for each
        agent by its name; ``evaluator``, ``max_gates``, ``gates``, ``coupling`` and ``patch`` are as of `qas.search`.
        ``runs`` is a list of such tables, each a grid of its own in which the other keys are what it does not name;
        their ``label`` goes into the names of their runs.

        Raises:
            QasError: an unknown key or name, a value of the wrong kind, or two searches of the same name.
        """
        if not isinstance(table, Mapping):
            raise QasError(f"a study is a table of settings, got {shortened(table)}")
        try:
            json.dumps(dict(table), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise QasError(f"a study holds texts, numbers, lists and tables: {error}") from None
        own = {key: value for key, value in table.items() if key not in ("out", "runs")}
        _check_keys(own)
        runs = table.get("runs", [{}])
        if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
            raise QasError(f"runs is a list of tables, got {shortened(runs)}")
        out = table.get("out")
        if out is not None and not isinstance(out, str):
            raise QasError(f"out is a folder, got {shortened(out)}")
        tasks: list[Task] = []
        for run in runs:
            _check_keys(run)
            tasks += itertools.islice(_tasks(own | dict(run)), _MOST + 1)
            if len(tasks) > _MOST:
                raise QasError(f"a study has at most {_MOST:,} searches, got more")
        twice = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
        if twice:
            raise QasError(f"two searches of the study would be called {twice[0]}: give one of their runs a label")
        return cls({key: table[key] for key in table if key != "out"}, tuple(tasks), out)


def load_study(given: str | os.PathLike[str] | Mapping[str, Any] | Study) -> Study:
    """A study from a TOML file or a table.

    Raises:
        QasError: no such file, no TOML, or a table that is none of a study.
    """
    if isinstance(given, Study):
        return given
    if isinstance(given, Mapping):
        return Study.of(given)
    path = Path(given)
    text = read_text(path, "the study", most=MAX_STUDY_BYTES, error=QasError)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise QasError(f"a study is a file in TOML, got {path}: {error}") from None
    return Study.of(table)


# ---------------------------------------------------------------------- reading a table
def _check_keys(table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in _KEYS:
            raise UnknownNameError("key of a study", key, (*_KEYS, "runs", "out"))


def _tasks(table: Mapping[str, Any]) -> Iterator[Task]:
    problems, agents = (_names(table, key, least=1) for key in ("problems", "agents"))
    objectives: list[str | None] = [*_names(table, "objectives")] or [None]
    conditions = _conditions(table)
    seeds, common = _seeds(table.get("seeds", 1)), _common(table)
    options = _options(table, agents)
    label = table.get("label", "")
    if not isinstance(label, str):
        raise QasError(f"a label is text, got {shortened(label)}")
    if "patch" in common and not any("device" in condition for condition in conditions):
        raise QasError(f"a patch is one of a device, got patch {common['patch']!r} without devices")
    for problem in problems:
        n = load_problem(problem).n_qubits
        if common.get("coupling") is not None:
            checked_coupling(n, common["coupling"], connected=True)
    for named in _names(table, "objectives"):
        make_objective(named)
    for problem, agent, condition, objective in itertools.product(problems, agents, conditions, objectives):
        told = {"problem": problem, "agent": agent, **condition, "options": options[agent], **common}
        if objective is not None:
            told["objective"] = objective
        words = [problem, agent, label, *map(str, condition.values()), objective or ""]
        stem = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)))
        if len(stem) > _LONGEST:
            rule = f"the name of a search has at most {_LONGEST} letters, got {shortened(stem)}"
            raise QasError(f"{rule}: shorten its label")
        for seed in seeds:
            yield Task(f"{stem}-s{seed}", told | {"seed": seed})


def _names(table: Mapping[str, Any], key: str, least: int = 0) -> list[str]:
    found = table.get(key, [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or len(found) < least:
        raise QasError(f"{key} is a list of names, got {shortened(table.get(key))}")
    return found


def _conditions(table: Mapping[str, Any]) -> list[dict[str, str]]:
    noise, devices = _names(table, "noise"), _names(table, "devices")
    for name in noise:
        load_noise(name)
    for name in devices:
        load_device(name)
    quiet = ("", "none")
    return [
        *({} if name in quiet else {"noise": name} for name in noise or ([] if devices else ["none"])),
        *({"device": name} for name in devices),
    ]


def _seeds(given: Any) -> list[int]:
    if isinstance(given, list):
        return [whole_number("a seed", seed, 0, 2**63 - 1) for seed in given]
    return list(range(whole_number("seeds, unless they are a list,", given, 1, _MOST)))


def _options(table: Mapping[str, Any], agents: list[str]) -> dict[str, dict[str, Any]]:
    """Options by agent, for all of them."""
    given = table.get("options", {})
    if not isinstance(given, Mapping) or not all(isinstance(value, Mapping) for value in given.values()):
        raise QasError(f"options is a table with a table for each agent, got {shortened(given)}")
    for name in given:
        AGENTS.check(name)
    found = {agent: dict(given.get(agent, {})) for agent in agents}
    for agent, options in found.items():
        make_agent(agent, options)
    return found


def _common(table: Mapping[str, Any]) -> dict[str, Any]:
    limits = {key: table[key] for key in _LIMITS if key in table}
    for key in ("seconds", "target"):
        if key in limits:
            limits[key] = finite_number(key, limits[key], above=0)
    settings = {key: table[key] for key in _SETTINGS if key in table}
    none = {"seed": 0, "options": {}, "evaluator": {}, "max_gates": None, "gates": None}
    check_config(none | settings | {"budget": limits})
    return limits | settings
