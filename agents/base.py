"""What every agent shares: one budget, one way of counting, one record of what was found.

An agent proposes circuits and calls `Search.evaluate`; it stops when that raises `SearchEnded`. At the points where its
own state is complete it calls `Search.safe_point`; there checkpoints are written and interrupts take effect, so that a
resumed run continues exactly as the unbroken one would.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qas.circuits import Circuit
from qas.envs.actions import ActionTable
from qas.errors import QasError
from qas.files import load_checkpoint, save_checkpoint
from qas.noise import NoiseModel
from qas.problems import BaseProblem
from qas.runs import Front, Recorder, Result
from qas.simulators import Simulator
from qas.vqe import Evaluation, Evaluator


class SearchEnded(Exception):
    """The budget is used up, or the user asked to stop."""


@dataclass(frozen=True)
class Budget:
    """When a search ends: at the first limit reached. At least one must be given."""

    seconds: float | None = None
    evaluations: int | None = None
    steps: int | None = None
    """architectures whose angles are optimized"""

    def __post_init__(self) -> None:
        if self.seconds is None and self.evaluations is None and self.steps is None:
            raise QasError("a search needs a budget: seconds, evaluations or steps")
        for name in ("seconds", "evaluations", "steps"):
            value = getattr(self, name)
            kinds = (int, float) if name == "seconds" else (int,)
            if value is None:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < np.inf:
                whole = "" if name == "seconds" else "whole "
                raise QasError(f"{name} is a positive {whole}number, got {value!r}")


@dataclass
class Progress:
    """A snapshot for displays."""

    seconds: float
    evaluations: int
    architectures: int
    best_error: float
    best_gates: int
    best_two_qubit_gates: int
    fraction: float
    """share of the budget used, 0 to 1"""
    front_size: int
    note: str = ""
    """what the agent is doing, one short line"""


@dataclass
class Search:
    """One search in progress."""

    problem: BaseProblem
    noise: NoiseModel | None
    evaluator: Evaluator
    table: ActionTable
    max_gates: int
    budget: Budget
    seed: int
    recorder: Recorder
    on_progress: Callable[[Progress], None] | None = None
    checkpoint_every: float = 10.0
    """seconds between checkpoints"""
    front: Front = field(default_factory=Front)
    evaluations: int = 0
    architectures: int = 0
    best_error: float = np.inf
    note: str = ""
    stop_requested: bool = False
    _elapsed_before: float = 0.0
    _started: float | None = None
    _last_progress: float = 0.0
    _last_checkpoint: float = 0.0

    def __post_init__(self) -> None:
        self._noise_free_energies: dict[Circuit, float] = {}  # of the front as it was last written

    @cached_property
    def _noise_free(self) -> Simulator | None:
        return self.problem.simulator()

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """An independent generator for one purpose, fixed by the run's seed."""
        return np.random.default_rng([self.seed, purpose])

    # ------------------------------------------------------------------ clock and budget
    def start_clock(self) -> None:
        self._started = self._last_checkpoint = time.perf_counter()
        self._last_progress = 0.0

    @property
    def seconds(self) -> float:
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._elapsed_before + running

    @property
    def fraction(self) -> float:
        """Share of the budget used, 0 to 1."""
        b = self.budget
        parts = [0.0]
        if b.seconds:
            parts.append(self.seconds / b.seconds)
        if b.evaluations:
            parts.append(self.evaluations / b.evaluations)
        if b.steps:
            parts.append(self.architectures / b.steps)
        return min(1.0, max(parts))

    def _remaining(self) -> int | None:
        b = self.budget
        if (b.seconds is not None and self.seconds >= b.seconds) or (
            b.steps is not None and self.architectures >= b.steps
        ):
            raise SearchEnded
        if b.evaluations is None:
            return None
        if self.evaluations >= b.evaluations:
            raise SearchEnded
        return b.evaluations - self.evaluations

    # ------------------------------------------------------------------ what agents call
    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        tidy: bool = False,
    ) -> Evaluation:
        """Optimize a circuit's angles from its own, count it, and record it.

        A circuit that may join the front is offered without its redundant gates; under noise that changes its energy,
        which is then evaluated anew.

        Args:
            circuit: architecture and start angles.
            rng: source of start and shot noise.
            max_evaluations, exact_start: as in `Evaluator.evaluate`.
            tidy: return the circuit without redundant gates.

        Raises:
            SearchEnded: no budget is left.
        """
        remaining = self._remaining()
        limit = max_evaluations if remaining is None else min(remaining, max_evaluations or remaining)
        found = self.evaluator.evaluate(circuit, rng, max_evaluations=limit, exact_start=exact_start)
        self.evaluations += found.evaluations
        self.architectures += 1
        offered = self._offered(found, rng, always=tidy)
        if offered is not None:
            self.front.add(offered.circuit, offered.energy, offered.error, self.evaluations)
            self.best_error = min(self.best_error, offered.error)
            if tidy:
                found = offered
        now = self.seconds
        c = found.circuit
        self.recorder.row(
            (
                self.evaluations,
                now,
                found.energy,
                found.error,
                len(c),
                c.two_qubit_gates,
                c.n_angles,
                self.best_error,
            )
        )
        if self.on_progress is not None and now - self._last_progress > 0.2:
            self._last_progress = now
            self.on_progress(self.progress())
        return found

    def _offered(self, found: Evaluation, rng: np.random.Generator, *, always: bool) -> Evaluation | None:
        """What is offered to the front for an evaluation: without redundant gates, and measured afresh under shots.

        None if it has no chance to join. Noise-free and exact, the energy is that of the shorter circuit too; under
        noise that is evaluated anew, for every agent alike. Under shots the smallest of many noisy values would be a
        lucky one, so a candidate is measured once more and only that value counts.
        """
        promising = found.error <= self.front.lowest(found.circuit.two_qubit_gates)
        if self.evaluator.shots is not None:
            if not (promising or always) or not self.may_spend:
                return found if always else None
            again = self.evaluator.evaluate(found.circuit, rng, max_evaluations=1, exact_start=True)
            self.evaluations += again.evaluations
            return again
        if self.noise is None and not (promising or always):
            return None
        circuit = self.problem.simplify(found.circuit, 1e-7)
        if circuit is found.circuit:
            return found
        if self.noise is None:
            return replace(found, circuit=circuit)
        if not self.may_spend:
            return found
        self.evaluations += 1
        energy = self.evaluator.energy(circuit)
        return Evaluation(circuit, energy, self.problem.error(energy), found.evaluations + 1)

    @property
    def may_spend(self) -> bool:
        """Whether evaluations are left; at the last one an optimization may have been cut short."""
        return self.budget.evaluations is None or self.evaluations < self.budget.evaluations

    def energy(self, circuit: Circuit) -> float:
        """Exact energy of a circuit at its own angles; counted as one evaluation.

        Raises:
            SearchEnded: no budget is left.
        """
        self._remaining()
        self.evaluations += 1
        return self.evaluator.energy(circuit)

    def safe_point(self, agent: Agent) -> None:
        """Called by an agent when its state is complete: write a checkpoint if one is due, stop if asked to.

        Raises:
            SearchEnded: the user asked to stop.
        """
        if self.stop_requested:
            self.checkpoint(agent)
            raise SearchEnded
        self._remaining()
        if time.perf_counter() - self._last_checkpoint > self.checkpoint_every:
            self.checkpoint(agent)

    # ------------------------------------------------------------------ record
    def progress(self) -> Progress:
        best = self.front.best
        return Progress(
            self.seconds,
            self.evaluations,
            self.architectures,
            best[0] if best else np.inf,
            len(best[2]) if best else 0,
            best[2].two_qubit_gates if best else 0,
            self.fraction,
            len(self.front),
            self.note,
        )

    def results(self) -> list[Result]:
        """The front with noise-free energies."""
        exact = self.noise is None and self.evaluator.shots is None
        known, self._noise_free_energies = self._noise_free_energies, {}
        results = []
        for error, energy, circuit, evaluations in self.front.points:
            free = energy if exact else known.get(circuit)
            if free is None:
                free = self.problem.energy(circuit, self._noise_free)
            self._noise_free_energies[circuit] = free
            results.append(Result(circuit, energy, error, free, self.problem.error(free), evaluations))
        return results

    def summary(self, status: str) -> dict[str, Any]:
        best = self.front.best
        return {
            "status": status,
            "evaluations": self.evaluations,
            "architectures": self.architectures,
            "seconds": round(self.seconds, 3),
            "best_error": best[0] if best else None,
        }

    def checkpoint(self, agent: Agent) -> None:
        """Save everything a resumed run needs."""
        size = self.recorder.flush()
        agent_state, arrays = agent.state()
        state = {
            "evaluations": self.evaluations,
            "architectures": self.architectures,
            "best_error": self.best_error,
            "seconds": self.seconds,
            "history_bytes": size,
            "front": self.front.to_json(),
            "agent": agent_state,
        }
        save_checkpoint(self.recorder.folder / "checkpoint", state, arrays)
        self.recorder.write(self.results(), self.summary("running"))
        self._last_checkpoint = time.perf_counter()

    def restore(self, agent: Agent, folder: Path) -> bool:
        """Continue from the checkpoint in `folder`; False if the run was killed before its first one."""
        found = load_checkpoint(folder / "checkpoint")
        if found is None:
            self.recorder.restart()
            return False
        state, arrays = found
        try:
            self.evaluations = int(state["evaluations"])
            self.architectures = int(state["architectures"])
            self.best_error = np.inf if state["best_error"] is None else float(state["best_error"])
            self._elapsed_before = float(state["seconds"])
            self.front = Front.from_json(state["front"])
            history_bytes = int(state["history_bytes"])
            agent.restore(state["agent"], arrays)
        except QasError:
            raise
        except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
            raise QasError(f"the checkpoint is damaged: {folder}: {error!r}") from None
        # The only step that changes the folder comes last.
        self.recorder.reopen(history_bytes)
        return True


class Agent(abc.ABC):
    """Proposes architectures until the budget ends.

    To add an agent: subclass, give it a `name` and keyword-only options, and add it to `qas.agents.AGENTS`.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """one line for lists"""

    def __init__(self, search: Search) -> None:
        self.search = search

    @classmethod
    def defaults(cls, problem: BaseProblem, options: dict[str, Any]) -> dict[str, Any]:
        """Settings of the search (``gates``, ``max_gates``) that hold for this agent where the caller gives none."""
        return {}

    @abc.abstractmethod
    def run(self) -> None:
        """Search until `SearchEnded` is raised."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything needed to continue: a JSON-able dict, and arrays by name."""

    @abc.abstractmethod
    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned."""


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """JSON-able state of a generator."""
    return rng.bit_generator.state  # type: ignore[return-value]


def restore_rng(state: dict[str, Any]) -> np.random.Generator:
    """The generator whose state was saved."""
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    return generator
