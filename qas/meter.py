"""The meter: an evaluator with a budget, that counts every call of the objective whoever makes it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.errors import QasError
from qas.simulators.interrupt import Interrupted, current
from qas.vqe import Evaluation, Evaluator, Job

if TYPE_CHECKING:
    from qas.record import Record


class SearchEnded(Exception):
    """The budget is used up, the target is reached, or the user asked to stop."""


@dataclass(frozen=True)
class Budget:
    """When a search ends: at the first limit reached. At least one of the first three must be given.

    Raises:
        QasError: none of them, or a number out of range.
    """

    seconds: float | None = None
    evaluations: int | None = None
    steps: int | None = None
    """architectures whose angles are optimized"""
    target: float | None = None
    """error at which the search is content, problem's unit"""

    def __post_init__(self) -> None:
        if self.seconds is None and self.evaluations is None and self.steps is None:
            raise QasError("a search needs a budget: seconds, evaluations or steps")
        for name in ("evaluations", "steps"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1, 2**63 - 1)
        if self.seconds is not None:
            finite_number("seconds", self.seconds, above=0, most=1e9)
        if self.target is not None:
            finite_number("the target", self.target, above=0)


@dataclass
class Spent:
    """What meters of one search have used together."""

    evaluations: int = 0
    architectures: int = 0
    seconds_before: float = 0.0
    """of the run that was resumed"""
    started: float | None = None


class _EndedIfInterrupted:
    """Where the clock stops a calculation before it has a value, the search is at its end."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Interrupted):
            raise SearchEnded from None


_ended_if_interrupted = _EndedIfInterrupted()


class Meter:
    """What agents and the environment evaluate circuits with: the interface of an `Evaluator`, counted and limited.

    Args:
        evaluator: does the work.
        budget: when to end; None: never.
        record: is told every circuit; None: nothing is kept.
        spent: shared with another meter of the same search; None: nothing is spent yet.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        budget: Budget | None = None,
        record: Record | None = None,
        *,
        spent: Spent | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.budget = budget
        self.record = record
        self.spent = spent or Spent()

    @property
    def evaluations(self) -> int:
        """Calls of the objective; a gradient counts as one."""
        return self.spent.evaluations

    @evaluations.setter
    def evaluations(self, count: int) -> None:
        self.spent.evaluations = count

    @property
    def architectures(self) -> int:
        """Circuits whose angles were optimized."""
        return self.spent.architectures

    @architectures.setter
    def architectures(self, count: int) -> None:
        self.spent.architectures = count

    # ------------------------------------------------------------------ as an evaluator
    @property
    def problem(self) -> Any:
        return self.evaluator.problem

    @property
    def noise(self) -> Any:
        return self.evaluator.noise

    @property
    def shots(self) -> int | None:
        return self.evaluator.shots

    @property
    def simulator(self) -> Any:
        return self.evaluator.simulator

    def evaluate(
        self,
        circuit: Circuit,
        rng: np.random.Generator,
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        inverse_hessian: np.ndarray | None = None,
        tidy: bool = False,
    ) -> Evaluation:
        """Optimize a circuit's angles from its own, count it, and show it to the record.

        An optimization that the clock cuts short is counted and shown with the best angles it had.

        Args:
            circuit, rng, max_evaluations, exact_start, inverse_hessian: as in `Evaluator.evaluate`.
            tidy: return the circuit without redundant gates, as the record keeps it.

        Raises:
            SearchEnded: nothing is left to spend.
        """
        self.left()
        limit = self._limit(max_evaluations)
        with _ended_if_interrupted:
            settings: Any = {"exact_start": exact_start, "inverse_hessian": inverse_hessian}
            found = self.evaluator.evaluate(circuit, rng, max_evaluations=limit, **settings)
        return self._counted(found, rng, tidy)

    def evaluate_many(
        self,
        circuits: Iterable[Circuit],
        rng: np.random.Generator | Iterable[np.random.Generator],
        *,
        max_evaluations: int | None = None,
        exact_start: bool = False,
        tidy: bool = False,
        inverse_hessians: Iterable[np.ndarray | None] | None = None,
        workers: int | None = None,
        ahead: int | None = None,
    ) -> Generator[Evaluation, None, None]:
        """What `evaluate` does with one circuit after the other, worked on as `Evaluator.evaluate_many` says.

        Counts, record and the end of a budget are those of one after the other: what was worked on beyond it is thrown
        away, and counts as nothing. Only the circuits and their generators have gone on by then.

        Args:
            circuits, rng, max_evaluations, exact_start, inverse_hessians, workers, ahead: as of
                `Evaluator.evaluate_many`.
            tidy: as of `evaluate`.

        Raises:
            SearchEnded: nothing is left to spend, and there is another circuit.
        """
        rngs = repeat(rng) if isinstance(rng, np.random.Generator) else rng
        known = repeat(None) if inverse_hessians is None else inverse_hessians
        all_given = zip(circuits, rngs, known, strict=False)
        if self.evaluator.workers(workers) == 1:
            settings: Any = {"max_evaluations": max_evaluations, "exact_start": exact_start, "tidy": tidy}
            for circuit, generator, inverse in all_given:
                yield self.evaluate(circuit, generator, inverse_hessian=inverse, **settings)
            return
        taken: deque[Job] = deque()

        def jobs() -> Iterator[Job]:
            for circuit, generator, inverse in all_given:
                if not taken:
                    self.left()
                elif not self._may_begin(len(taken)):
                    raise SearchEnded
                job = self.evaluator.job(circuit, generator, self._limit(max_evaluations), exact_start)
                taken.append(job._replace(inverse_hessian=inverse))
                yield taken[-1]

        with closing(self.evaluator.optimized(jobs(), workers, ahead)) as results:
            while True:
                if taken:
                    self.left()
                with _ended_if_interrupted:
                    found = next(results, None)
                    if found is None:
                        return
                    job, limit = taken.popleft(), self._limit(None)
                    if limit is not None and found.evaluations > limit:
                        found = self.evaluator.optimize(job._replace(limit=min(job.limit, limit)))
                yield self._counted(found, job.rng, tidy)

    def _counted(self, found: Evaluation, rng: np.random.Generator, tidy: bool) -> Evaluation:
        self.evaluations += found.evaluations
        self.architectures += 1
        return found if self.record is None else self.record.take(found, self, rng, tidy=tidy)

    def _limit(self, max_evaluations: int | None) -> int | None:
        """Most evaluations of an architecture that begins now."""
        if self.budget is None or self.budget.evaluations is None:
            return max_evaluations
        left = self.budget.evaluations - self.evaluations
        return min(left, max_evaluations or left)

    def _may_begin(self, before: int) -> bool:
        """Whether something may be left for an architecture when so many before it are done; each costs something."""
        b = self.budget
        if b is None:
            return True
        evaluations = b.evaluations is None or self.evaluations + before < b.evaluations
        return evaluations and (b.steps is None or self.architectures + before < b.steps)

    def energy(self, circuit: Circuit) -> float:
        """Exact energy of a circuit at its own angles; counts as one evaluation.

        Raises:
            SearchEnded: nothing is left to spend.
        """
        self.left()
        with _ended_if_interrupted:
            energy = self.evaluator.energy(circuit)
        self.evaluations += 1
        return energy

    def spend(self, evaluations: int = 1) -> None:
        """Count evaluations that are made elsewhere, such as a sweep of gradients.

        Raises:
            SearchEnded: nothing is left to spend; then nothing is counted.
        """
        self.left()
        self.evaluations += evaluations

    def spend_each(self, evaluations: int) -> None:
        """As `spend`, one by one, so that a budget ends exactly where it is used up."""
        for _ in range(evaluations):
            self.spend()

    # ------------------------------------------------------------------ clock and budget
    def start_clock(self) -> None:
        """Seconds count from here."""
        self.spent.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, that of a resumed run included."""
        started = self.spent.started
        return self.spent.seconds_before + (0.0 if started is None else time.perf_counter() - started)

    @property
    def fraction(self) -> float:
        """Share of the budget used, 0 to 1."""
        b = self.budget
        if b is None:
            return 0.0
        used = ((self.seconds, b.seconds), (self.evaluations, b.evaluations), (self.architectures, b.steps))
        return min(1.0, max(amount / limit for amount, limit in used if limit))

    @property
    def seconds_left(self) -> float:
        """Infinite without a limit."""
        limit = None if self.budget is None else self.budget.seconds
        return np.inf if limit is None else limit - self.seconds

    @property
    def may_spend(self) -> bool:
        """Whether evaluations are left; at the last one an optimization may have been cut short."""
        limit = None if self.budget is None else self.budget.evaluations
        return limit is None or self.evaluations < limit

    def left(self) -> int | None:
        """Evaluations that are left; None for no limit.

        Raises:
            SearchEnded: a limit or the target is reached, or the search was asked to stop.
        """
        if current():
            raise SearchEnded
        b = self.budget
        if b is None:
            return None
        over = self.seconds_left <= 0 or not self.may_spend or (b.steps is not None and self.architectures >= b.steps)
        content = b.target is not None and self.record is not None and self.record.best_error <= b.target
        if over or content:
            raise SearchEnded
        return None if b.evaluations is None else b.evaluations - self.evaluations

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """JSON-able; `restore` takes it back."""
        return {"evaluations": self.evaluations, "architectures": self.architectures, "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting from a saved state."""
        self.evaluations, self.architectures = int(state["evaluations"]), int(state["architectures"])
        self.spent.seconds_before = float(state["seconds"])
