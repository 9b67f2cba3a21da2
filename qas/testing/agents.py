"""What every agent keeps to: it can be repeated, stopped, resumed and paid for."""

from __future__ import annotations

import functools
import itertools
import json
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import qas
from qas.agents.base import Agent, Search
from qas.agents.launch import resume
from qas.agents.settings import make_agent
from qas.circuits import Circuit
from qas.meter import Meter
from qas.registry import settings_of
from qas.runs import HISTORY_COLUMNS, Run
from qas.simulators.base import BaseObjective

_WHOLE: dict[Any, Run] = {}
_SEEDED = [name for name in HISTORY_COLUMNS if name != "seconds"]
"""Columns of a history that a seed fixes."""


class AgentContract:
    """Tests of one agent, on the search that its `Agent.example` describes.

    Subclass it and set `agent`; override `settings` for another search, and the fixture `given` for several agents.
    """

    agent: ClassVar[Any] = None
    """a registered name, a class or an instance"""
    settings: ClassVar[dict[str, Any]] = {}
    """arguments of `qas.search` that replace those of the example"""
    evaluations: ClassVar[int] = 400
    """budget of the searches"""

    @pytest.fixture
    def given(self) -> Any:
        """What is tested."""
        return self.agent

    @pytest.fixture
    def search(self, given: Any) -> Any:
        """Make a search in a folder; its settings can be overridden."""
        kind = qas.agents.AGENTS[given] if isinstance(given, str) else given
        usual = {"agent": given, "evaluations": self.evaluations, "report": False}
        return functools.partial(_search, usual | kind.example() | self.settings)

    @pytest.fixture
    def whole(self, given: Any, search: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """The search, unbroken; made once, in whatever order the tests come."""
        key = type(self), given
        if key not in _WHOLE:
            _WHOLE[key] = search(tmp_path_factory.mktemp("contract") / "whole")
        return _WHOLE[key]

    def test_it_says_what_it_is(self, given: Any) -> None:
        kind = type(make_agent(given))
        assert kind.about and "\n" not in kind.about

    def test_another_seed_makes_another_search(self, search: Any, whole: Run, tmp_path: Path) -> None:
        other, usual = search(tmp_path / "other", seed=1, evaluations=self.evaluations // 2).history(), whole.history()
        same = len(other) - 1  # the last one may have been cut short
        assert other[_SEEDED][:same].tolist() != usual[_SEEDED][:same].tolist()

    def test_every_evaluation_is_counted_and_every_architecture_in_the_history(
        self, given: Any, search: Any, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Calls of the objective as the objectives themselves count them, and what is spent by `Meter.spend`."""
        made: list[BaseObjective] = []
        spent: list[int] = []
        init, spend = BaseObjective.__init__, Meter.spend
        kind = type(make_agent(given))

        def noted(me: BaseObjective, circuit: Circuit) -> None:
            made.append(me)
            init(me, circuit)

        def counted(me: Meter, count: int = 1) -> None:
            spend(me, count)
            spent.append(count)

        def watched(method: Any) -> Any:
            def run(self: Agent, *arguments: Any) -> Any:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(BaseObjective, "__init__", noted)
                    return method(self, *arguments)

            return run

        monkeypatch.setattr(Meter, "spend", counted)
        monkeypatch.setattr(kind, "run", watched(kind.run))
        monkeypatch.setattr(kind, "prepare", watched(kind.prepare))
        run = search(tmp_path / "run")
        assert found(run) == found(whole), "a seed fixes the search"
        history = run.history()
        assert sum(objective.nfev for objective in made) + sum(spent) == run.evaluations == self.evaluations
        assert len(history) == run.architectures > 0
        assert (np.diff(history["evaluations"]) >= 1).all() and history["evaluations"][-1] <= run.evaluations
        assert history["best_error"] == pytest.approx(np.minimum.accumulate(history["error"]), rel=1e-5, abs=1e-14)

    @pytest.mark.parametrize("evaluations", [2, 37])
    def test_a_budget_of_evaluations_is_kept(self, search: Any, evaluations: int, tmp_path: Path) -> None:
        run = search(tmp_path / "run", evaluations=evaluations)
        assert run.status == "finished" and run.evaluations == evaluations
        assert len(run.history()) == run.architectures

    def test_other_budgets_are_kept(self, search: Any, whole: Run, tmp_path: Path) -> None:
        steps = search(tmp_path / "steps", evaluations=None, steps=7)
        assert steps.architectures == 7 == len(steps.history())
        seconds = search(tmp_path / "seconds", evaluations=None, seconds=0.1)
        assert seconds.status == "finished" and 0.1 <= seconds.seconds < 1.8
        history = whole.history()
        target = float(np.median(history["best_error"]))
        if target > 0:
            reached = search(tmp_path / "target", target=target).history()
            assert reached["best_error"][-1] <= target * (1 + 1e-5)
            assert (reached["best_error"][:-1] > target * (1 - 1e-5)).all(), "and goes no further"

    def test_a_search_that_is_stopped_twice_ends_as_if_unbroken(
        self, given: Any, search: Any, whole: Run, tmp_path: Path
    ) -> None:
        """Ctrl-C takes effect where the agent's state is complete."""
        part: Any = None
        for after in (0.1, 0.6):
            with pytest.MonkeyPatch.context() as patch:
                call_at(max(1, int(after * whole.architectures)), lambda: signal.raise_signal(signal.SIGINT), patch)
                part = search(tmp_path / "run") if part is None else self._resumed(given, tmp_path / "run")
            if part.status == "finished":  # the last safe point had passed
                break
            assert part.status == "interrupted" and part.evaluations < self.evaluations
        else:
            part = self._resumed(given, tmp_path / "run")
        assert found(part) == found(whole)

    def test_a_killed_search_resumes_from_its_checkpoint(
        self, given: Any, search: Any, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """States of the agent are plain. Only some are kept, so that it also goes on from earlier ones."""

        class Killed(BaseException):
            pass

        def die() -> None:
            raise Killed

        seen: list[Any] = []
        checkpoint, due = Search.checkpoint, itertools.cycle((True, False, False))

        def watched(me: Search, agent: Agent) -> None:
            if next(due):
                seen.append(agent.state())
                checkpoint(me, agent)

        monkeypatch.setattr(Search, "checkpoint", watched)
        monkeypatch.setattr(Search, "checkpoint_every", 0.0)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            call_at(max(2, whole.architectures * 2 // 3), die, patch)
            search(tmp_path / "run")
        assert found(self._resumed(given, tmp_path / "run")) == found(whole)
        for state, arrays in seen:
            json.dumps(state, allow_nan=False)
            assert all(isinstance(name, str) for name in arrays)
            assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays.values())

    def test_a_finished_search_goes_on_with_a_larger_budget(
        self, given: Any, search: Any, whole: Run, tmp_path: Path
    ) -> None:
        """Also where the first budget ended in the middle of an architecture: the longer run has no such seam."""
        first = search(tmp_path / "run", evaluations=self.evaluations // 2 + 3)
        longer = self._resumed(given, first.path, evaluations=self.evaluations)
        assert found(longer) == found(whole)

    def test_one_instance_serves_two_searches(self, given: Any, search: Any, whole: Run, tmp_path: Path) -> None:
        options = search.args[0].get("options", {})
        player = given if isinstance(given, Agent) else make_agent(given, options)
        settings = settings_of(player)
        search(tmp_path / "first", agent=player, options=None, seed=1, evaluations=self.evaluations // 4)
        assert found(search(tmp_path / "second", agent=player, options=None)) == found(whole)
        assert settings_of(player) == settings

    @staticmethod
    def _resumed(given: Any, folder: Path, **settings: Any) -> Run:
        return resume(folder, agent=None if isinstance(given, str) else given, report=False, **settings)


def _search(usual: dict[str, Any], out: Path, **settings: Any) -> Run:
    arguments = usual | settings
    return qas.search(arguments.pop("problem"), out=out, **arguments)


def found(run: Run) -> tuple[Any, ...]:
    """Everything a run found, except times."""
    front = [(r.circuit.to_list(), r.energy, r.error, r.noise_free_energy, r.evaluations) for r in run.front]
    return front, run.evaluations, run.architectures, run.tidying, run.history()[_SEEDED].tolist()


def call_at(count: int, action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something right after the given number of architectures."""
    counted = Meter._counted

    def watched(self: Meter, *arguments: Any, **settings: Any) -> Any:
        result = counted(self, *arguments, **settings)
        if self.architectures == count:
            action()
        return result

    monkeypatch.setattr(Meter, "_counted", watched)
