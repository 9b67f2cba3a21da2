"""The record of a search: every circuit it evaluated, the front of the best, and the run folder they are written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from qas.callbacks import Snapshot, Watch
from qas.circuits import Circuit
from qas.meter import Meter
from qas.mitigation.objectives import make_objective, spelled
from qas.mitigation.outcomes import Judge
from qas.native import NativeGates, simplified, with_rz
from qas.problems import BaseProblem, Problem
from qas.remarks import remarks_on
from qas.runs import Front, Recorder, Result
from qas.simulators import Simulator
from qas.simulators.interrupt import Interrupted, current, shielded, stop_when
from qas.tidying import Tidier
from qas.vqe import Evaluation


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


class Episode(NamedTuple):
    """One episode of an agent that plays an environment."""

    evaluations: int
    """of the search, when it ended"""
    gates: int
    error: float
    """of its last circuit, problem's unit"""
    success: bool
    """its error fell below the threshold of the curriculum"""
    test: bool
    """played greedily, to see what was learned"""


class Record:
    """What was found, told by a `Meter`.

    Args:
        problem: what is searched for.
        recorder: writes the run folder; None: nothing is written.
        on_progress: called a few times each second.
        native: gates of the device that circuits consist of, or None.
    """

    tell_every: ClassVar[float] = 0.2
    """seconds between snapshots"""

    def __init__(
        self,
        problem: BaseProblem,
        recorder: Recorder | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        native: NativeGates | None = None,
    ) -> None:
        self.problem, self.native = problem, native
        self.recorder = recorder
        self.on_progress = on_progress
        self.front = Front()
        self.best_error = np.inf
        self.note = ""
        self.scalars: dict[str, float] = {}
        """further numbers that the agent tells while it works, by name, for callbacks"""
        self.watch: Watch | None = None
        self.episodes: list[Episode] = []
        self._last_progress = 0.0
        self._noise_free_energies: dict[Circuit, float] = {}  # of the front as it was last written

    @cached_property
    def _noise_free(self) -> Simulator | None:
        return self.problem.simulator()

    # ------------------------------------------------------------------ what the meter calls
    def take(self, found: Evaluation, meter: Meter, rng: np.random.Generator, *, tidy: bool = False) -> Evaluation:
        """Note an evaluation, and offer its circuit to the front without redundant gates.

        Args:
            found: as the evaluator returned it, counted already.
            meter: pays for what the offer costs.
            rng: source of shot noise.
            tidy: return what was offered instead of `found`.
        """
        offered = self._offered(found, meter, rng, always=tidy)
        if offered is not None:
            shown = offered.circuit if self.native is None else with_rz(offered.circuit)
            self.front.add(shown, offered.energy, offered.error, meter.evaluations)
            self.best_error = min(self.best_error, offered.error)
            if tidy:
                found = offered
        now = meter.seconds
        if self.recorder is not None:
            c = found.circuit
            self.recorder.row(
                (meter.evaluations, now, found.energy, found.error, c.n_gates, c.two_qubit_gates, c.n_angles,
                 self.best_error)
            )  # fmt: skip
        if now - self._last_progress > self.tell_every and (self.on_progress is not None or self.watch is not None):
            self._last_progress = now
            self._tell(meter)
        return found

    def _tell(self, meter: Meter) -> None:
        progress = self.progress(meter)
        if self.on_progress is not None:
            self.on_progress(progress)
        if self.watch is not None and self.recorder is not None:
            self.watch(Snapshot(progress, self.front, dict(self.scalars), self.recorder.folder))

    def episode(self, meter: Meter, circuit: Circuit, error: float, success: bool, *, test: bool = False) -> None:
        """Note the end of an episode; see `Episode`."""
        self.episodes.append(Episode(meter.evaluations, len(circuit), float(error), bool(success), test))
        told = {"episodes": len(self.episodes), "episode error": error, "episode gates": len(circuit)}
        self.scalars |= {name: float(value) for name, value in told.items()}

    def _offered(self, found: Evaluation, meter: Meter, rng: np.random.Generator, *, always: bool) -> Evaluation | None:
        """What is offered to the front for an evaluation: without redundant gates, and measured afresh under shots.

        None if it has no chance to join. Noise-free and exact, the energy is that of the shorter circuit too; under
        noise that is evaluated anew, for every agent alike. Under shots the smallest of many noisy values would be a
        lucky one, so a candidate is measured once more and only that value counts.
        """
        evaluator = meter.evaluator
        may_spend = meter.may_spend and not current()
        promising = found.error <= self.front.lowest(found.circuit.two_qubit_gates)
        if evaluator.shots is not None:
            if not (promising or always) or not may_spend:
                return found if always else None
            with shielded():
                again = evaluator.evaluate(found.circuit, rng, max_evaluations=1, exact_start=True)
            meter.evaluations += again.evaluations
            return again
        if evaluator.noise is None and not (promising or always):
            return None
        circuit = simplified(found.circuit, self.problem, self.native, 1e-7)
        if circuit is found.circuit:
            return found
        if evaluator.noise is None:
            return replace(found, circuit=circuit, inverse_hessian=None)
        if not may_spend:
            return found
        meter.evaluations += 1
        with shielded():  # an optimization that was cut short is recorded as well
            energy = evaluator.energy(circuit)
        return Evaluation(circuit, energy, self.problem.error(energy), found.evaluations + 1)

    # ------------------------------------------------------------------ what was found
    def progress(self, meter: Meter) -> Progress:
        best = self.front.best
        return Progress(
            meter.seconds,
            meter.evaluations,
            meter.architectures,
            best[0] if best else np.inf,
            best[2].n_gates if best else 0,
            best[2].two_qubit_gates if best else 0,
            meter.fraction,
            len(self.front),
            self.note,
        )

    def results(self, meter: Meter, front: Front | None = None) -> list[Result]:
        """A front with noise-free energies; None: that of the search."""
        exact = meter.noise is None and meter.shots is None
        known, self._noise_free_energies = self._noise_free_energies, {}
        results = []
        for error, energy, circuit, evaluations in (front or self.front).points:
            free = energy if exact else known.get(circuit)
            if free is None:
                free = self.problem.energy(circuit, self._noise_free)
            self._noise_free_energies[circuit] = free
            results.append(Result(circuit, energy, error, free, self.problem.error(free), evaluations))
        return results

    def write(self, meter: Meter, status: str) -> None:
        """Replace front, best circuit and summary in the run folder."""
        self._write(meter, status, self.front, self.results(meter))

    def finish(self, meter: Meter, status: str, gates: Iterable[str], seconds: float | None) -> None:
        """Write the outcome of the search, its front tidied; see `qas.tidying`.

        Args:
            meter: of the search. A tenth of its evaluations may be spent beyond them.
            status: "finished" or "interrupted".
            gates: names that circuits may use.
            seconds: longest time that tidying may take, and as long again what the circuits are worth; or None.
        """
        if self.recorder is None:
            return
        # What comes now can be cut short, and a search that is finished is not gone on with.
        self.write(meter, "running" if status == "finished" else status)
        tidier = Tidier(meter.evaluator, gates, meter.evaluations // 10, seconds, self.native)
        front = tidier(self.front)
        results = self._judged(self.results(meter, front), meter, seconds)
        remarks = remarks_on(
            results, self.problem, meter.noise, self.recorder.folder, spelled(meter.evaluator.objective)
        )
        self._write(meter, status, front, results, tidying=tidier.evaluations, remarks=remarks)

    def _judged(self, results: list[Result], meter: Meter, seconds: float | None) -> list[Result]:
        """Results with their outcomes, as far as the time goes; nothing is counted."""
        engine = meter.evaluator.engine_under_noise
        if meter.noise is None or not isinstance(self.problem, Problem) or engine is None:
            return results
        judge = Judge(self.problem, engine, make_objective(meter.evaluator.objective))
        known: list[Result] = []
        with stop_when(seconds), suppress(Interrupted):
            for result in results:
                known.append(replace(result, outcomes=judge(result.circuit)))
        return known + results[len(known) :]

    def _write(self, meter: Meter, status: str, front: Front, results: list[Result], **more: Any) -> None:
        if self.recorder is None:
            return
        best = front.best
        summary = {
            "status": status,
            "evaluations": meter.evaluations,
            "architectures": meter.architectures,
            "seconds": round(meter.seconds, 3),
            "best_error": best[0] if best else None,
        }
        self.recorder.write(results, summary | more, self.episodes)

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """JSON-able; `restore` takes it back."""
        state: dict[str, Any] = {"best_error": self.best_error, "front": self.front.to_json()}
        if self.episodes:
            state["episodes"] = [list(episode) for episode in self.episodes]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.best_error = np.inf if state["best_error"] is None else float(state["best_error"])
        self.front = Front.from_json(state["front"])
        self.episodes = [Episode(*episode) for episode in state.get("episodes", [])]
