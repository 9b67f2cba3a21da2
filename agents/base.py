"""What every agent shares: one search to work on, one way of counting, one record of what was found.

An agent proposes circuits and hands them to the search's meter; it stops when that raises `SearchEnded`. At the points
where its own state is complete it calls `Search.safe_point`; there checkpoints are written and interrupts take effect,
so that a resumed run continues exactly as the unbroken one would.
"""

from __future__ import annotations

import abc
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit
from qas.errors import QasError
from qas.files import load_checkpoint, save_checkpoint
from qas.meter import Meter, SearchEnded
from qas.noise import NoiseModel
from qas.problems import BaseProblem
from qas.record import Record
from qas.runs import FrontEntry
from qas.schema import Count, RngState, Time, conform, taken_up

__all__ = ["Agent", "DrawnAhead", "Search", "SearchEnded", "restore_rng", "rng_state"]


class _State(TypedDict):
    evaluations: Count
    architectures: Count
    seconds: Time
    best_error: float | None
    front: list[FrontEntry]
    episodes: NotRequired[list[tuple[Count, Count, float | None, bool, bool]]]
    history_bytes: Count
    agent: dict[str, Any]


@dataclass
class Search:
    """One search in progress, as its agent sees it."""

    problem: BaseProblem
    alphabet: Alphabet
    max_gates: int
    seed: int
    meter: Meter
    """evaluates, counts and ends"""
    record: Record
    """what was found"""
    checkpoint_every: ClassVar[float] = 10.0
    """seconds between checkpoints"""
    stop_requested: bool = False
    _last_checkpoint: float = 0.0

    @property
    def noise(self) -> NoiseModel | None:
        return self.meter.noise

    def simplify(self, circuit: Circuit) -> Circuit:
        """A circuit of the same energy with no more gates, as `qas.alphabet.Alphabet.simplified` says."""
        return self.alphabet.simplified(circuit, self.problem)

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """An independent generator for one purpose, fixed by the run's seed."""
        return np.random.default_rng([self.seed, purpose])

    def request_stop(self) -> None:
        """Ask the agent to stop where its state is complete."""
        self.stop_requested = True

    def start_clock(self) -> None:
        """The budget's seconds count from here."""
        self.meter.start_clock()
        self._last_checkpoint = time.perf_counter()

    def safe_point(self, agent: Agent) -> None:
        """Called by an agent when its state is complete: write a checkpoint if one is due, stop if asked to.

        Raises:
            SearchEnded: the user asked to stop, or nothing is left to spend.
        """
        self.meter.left()  # first: what the clock or a signal has cut short is no state to go on from
        if self.stop_requested:
            self.checkpoint(agent)
            raise SearchEnded
        if time.perf_counter() - self._last_checkpoint > self.checkpoint_every:
            self.checkpoint(agent)

    def checkpoint(self, agent: Agent) -> None:
        """Save everything a resumed run needs; nothing without a run folder."""
        recorder = self.record.recorder
        if recorder is None:
            return
        size = recorder.flush()
        agent_state, arrays = agent.state()
        state = self.meter.state() | self.record.state() | {"history_bytes": size, "agent": agent_state}
        save_checkpoint(recorder.folder / "checkpoint", state, arrays)
        self.record.write(self.meter, "running")
        self._last_checkpoint = time.perf_counter()

    def restore(self, agent: Agent, folder: Path) -> bool:
        """Continue from the checkpoint in `folder`; False if the run was killed before its first one."""
        recorder = self.record.recorder
        assert recorder is not None
        found = read_checkpoint(folder)
        if found is None:
            recorder.restart()
            return False
        state, arrays = found
        conform(state["agent"], agent.State, "the checkpoint", where=folder)
        with taken_up("the checkpoint", where=folder):
            self.meter.restore(state)
            self.record.restore(state)
            agent.restore(state["agent"], arrays)
        # The only step that changes the folder comes last.
        recorder.reopen(state["history_bytes"])
        return True


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """State and arrays of the last checkpoint in a run folder, what the agent holds unread; None: there is none yet.

    Raises:
        RunError: it is damaged.
    """
    found = load_checkpoint(folder / "checkpoint")
    return None if found is None else (conform(found[0], _State, "the checkpoint", where=folder), found[1])


class Agent(abc.ABC):
    """Proposes architectures until the budget ends.

    To add an agent: subclass, give it keyword-only options, and register it (`qas.agents.AGENTS`, or an entry point in
    the group ``qas.agents``); `qas.testing.AgentContract` tests it. The constructor checks the options and keeps each
    under its own name; what depends on the search is made in `prepare`, so that one instance can be handed to several
    searches.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """one line for lists"""
    chooses: ClassVar[bool] = False
    """It chooses among given circuits, so that problems which know only a list of them are open to it."""
    begins: ClassVar[bool] = False
    """It can begin with circuits that a caller hands over, by its option `start`: a list of what `Circuit.to_list`
    gives."""

    State: ClassVar[Any] = dict[str, Any]
    """the shape of what `state` tells, a `TypedDict`: what a checkpoint holds is compared with it"""

    search: Search
    meter: Meter

    def prepare(self, search: Search) -> None:
        """Take over a search, and put everything back to its beginning.

        Raises:
            QasError: options that do not fit the search.
        """
        if search.problem.listed and not self.chooses:
            raise QasError(
                f"{search.problem.name} knows the circuits of its pool only, and {self.name} makes its own: search it "
                "with bo, knn, reinforce or random"
            )
        self.search, self.meter = search, search.meter

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Arguments of `qas.search` for a search of about a second that the agent can do; contract tests make it."""
        return {"problem": "h2-2", "max_gates": 6}

    @classmethod
    def todays_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as a run folder holds them, in today's names; for agents whose options were once called otherwise."""
        return dict(options)

    @classmethod
    def kept_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as a run folder keeps them: without secrets."""
        return dict(options)

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        """Settings of the search (``gates``, ``max_gates``, those of ``evaluator``) where the caller gives none."""
        return {}

    @abc.abstractmethod
    def run(self) -> None:
        """Search until `SearchEnded` is raised."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything needed to continue: a JSON-able dict, and arrays by name."""

    @abc.abstractmethod
    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned; called after `prepare` on an equal search."""


class DrawnAhead:
    """A generator whose draws run ahead of their results, and where it stood before those that are still to come.

    What makes circuits for `Meter.evaluate_many` calls `mark` before the draws of each, and what takes the results
    calls `settle` after each: then `state` is that of a generator that draws for one circuit after the other.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._before: deque[dict[str, Any]] = deque()

    def mark(self) -> None:
        """Note where the generator stands."""
        self._before.append(rng_state(self.rng))

    def settle(self) -> None:
        """The result of the oldest draws is in."""
        self._before.popleft()

    @property
    def state(self) -> dict[str, Any]:
        """JSON-able state before the oldest draws whose result is not in."""
        return self._before[0] if self._before else rng_state(self.rng)

    def rewind(self) -> None:
        """Take back the draws whose results are not in."""
        self.rng.bit_generator.state = self.state
        self._before.clear()

    def finish(self) -> None:
        """All draws stand, also those that came to nothing."""
        self._before.clear()


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """JSON-able state of a generator."""
    return rng.bit_generator.state  # type: ignore[return-value]


def restore_rng(state: dict[str, Any]) -> np.random.Generator:
    """The generator whose state was saved.

    Raises:
        RunError: it is the state of none.
    """
    conform(state, RngState, "the state of a random generator")
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    return generator
