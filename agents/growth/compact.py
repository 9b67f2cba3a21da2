"""The most compact circuits: grow, lower to native gates, evolve and shrink at fixed accuracy."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.growth.adapt import AdaptAgent, AdaptState
from qas.agents.growth.evolution import EvolutionAgent, EvolutionState
from qas.agents.growth.frames import Frame, tapering_of
from qas.agents.growth.inserting import InsertionGrowth, InsertionState
from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.errors import QasError
from qas.files import part_of
from qas.gates import SEARCH_GATES
from qas.guidance import Guide
from qas.problems import BaseProblem, require_hamiltonian
from qas.schema import Count, Gates, RngState
from qas.shrinking import Shrinker, ShrinkerState, lowered
from qas.vqe import Evaluation

_ENOUGH = 1 / 3
"""Of the tolerance: error at which a circuit of excitations grows no further."""
_ROOM = 1.1
"""Error allowed to a circuit that misses the tolerance, in terms of what it has."""
_HOPELESS = 64, 2
"""CX at which excitations that miss the tolerance are given up: at least, and in terms of the fewest known."""
_LEAST_EVOLVED = 5_000
"""Evaluations of a turn of evolution, at least; else as many as all else has taken since the last one."""
_ABOVE, _BELOW = 2, 8
"""CX more and fewer than the fewest within the tolerance: the window that evolution works in."""
_WALKED = 60
"""CX of the largest circuit that is walked on over others of as many CX."""
_TURNS = {
    1: ("insert", "evolve", "excite"),
    2: ("insert", "outward", "excite", "evolve", "outward", "evolve all"),
}
"""What is done in turn when no circuit waits to be shrunk, by the number of frames."""


class _Task(NamedTuple):
    """What is to be shrunk."""

    circuit: Circuit
    tolerance: float
    frame: int


class _State(TypedDict):
    growth: AdaptState
    insertion: InsertionState | None
    evolutions: list[EvolutionState]
    rng: RngState
    waiting: list[tuple[Gates, float, Count]]
    shrinker: ShrinkerState | None
    turn: tuple[Count, Count, Count, str]
    best: list[Count | None]


class CompactAgent(Agent):
    """Grows circuits until they are accurate, and evolves and shrinks them while they stay so.

    Most work is done on few qubits: where a molecule has symmetries that are strings of Z, qubits are taken away as by
    `Problem.tapered`, and each circuit found there is one of the problem too, with the qubits taken away computed by
    CX behind it (see `qas.tapering.Tapering.embedded`). Turns follow each other:

    1. A circuit of native gates grows from the reference determinant by the insertions, at any place, that win most
       energy for their CX (see `qas.agents.growth.inserting.InsertionGrowth`), until it meets the tolerance or nothing
       is won.
    2. What is best on few qubits is taken to all of them.
    3. A circuit grows by the operators of a pool (see `qas.agents.growth.adapt.AdaptAgent`), and is lowered to rx, ry,
       rz and cx, which costs an excitation of few basis states a few CX only.
    4. Guided evolution (see `qas.agents.growth.evolution.EvolutionAgent`) works on all circuits found so far that have
       about as many CX as the best one within the tolerance, or a few less; on few qubits, and in a turn of its own on
       all of them, where these circuits are small.

    Each circuit that meets the tolerance with fewer CX than all before, or comes of growth, is shrunk: CX and rotations
    are taken out, the cheapest first, and all angles optimized again, while the error stays within the tolerance (see
    `qas.shrinking`). Rounds of growth after the first grow other circuits.

    Args:
        tolerance: error that circuits may have, problem's unit; None: the problem's threshold.
        pool, generalized, start, rank, candidates, layers, choices: as of agent ``adapt``.
        insertions: candidates among insertions that are optimized before the best is kept; 0: nothing grows so.
        evolve: whether there is evolution.
        taper: whether symmetries take qubits away.
        moves: rounds without success after which a small circuit is not walked on while it shrinks.
    """

    name: ClassVar[str] = "compact"
    about: ClassVar[str] = "grows, lowers to native gates, evolves and shrinks at fixed accuracy"
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        tolerance: float | None = None,
        pool: str | None = None,
        generalized: bool = True,
        start: str | None = None,
        rank: str = "gradient",
        candidates: int = 20,
        layers: bool = False,
        choices: int = 8,
        insertions: int = 5,
        evolve: bool = True,
        taper: bool = True,
        moves: int = 5,
    ) -> None:
        self.tolerance = None if tolerance is None else finite_number("the tolerance", tolerance, above=0)
        self.pool, self.generalized, self.start, self.rank = pool, generalized, start, rank
        self.candidates = whole_number("candidates", candidates)
        self.layers = layers
        self.choices = whole_number("choices", choices)
        self.insertions = whole_number("insertions", insertions, 0)
        self.evolve, self.taper = bool(evolve), bool(taper)
        self.moves = whole_number("moves", moves, 0)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"problem": "heisenberg-3", "options": {"candidates": 2, "tolerance": 0.1}}

    def _adapt(self) -> AdaptAgent:
        names = ("pool", "generalized", "start", "rank", "candidates", "layers", "choices")
        return AdaptAgent(**{name: getattr(self, name) for name in names})

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        usual = self._adapt().defaults(require_hamiltonian(problem, "agent compact"))
        gates = list(dict.fromkeys([*SEARCH_GATES, *usual["gates"]]))
        return usual | {"gates": gates, "evaluator": {"max_evaluations": 2000, "tolerance": 1e-7}}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        problem = require_hamiltonian(search.problem, "agent compact")
        if search.noise is not None or search.meter.shots is not None:
            raise QasError("agent compact takes no noise and no shots: what shrinks is compared exactly")
        missing = [name for name in SEARCH_GATES if name not in search.alphabet.gates]
        if missing:
            raise QasError(f"agent compact needs the gates {', '.join(SEARCH_GATES)}; missing: {missing[0]}")
        threshold = problem.threshold if self.tolerance is None else self.tolerance
        assert threshold is not None
        self.bound = threshold
        self.rng = search.rng(2)
        self.growth = self._adapt()
        self.growth.prepare(search)
        tapering = tapering_of(problem) if self.taper else None
        self.frames = [Frame(self)] if tapering is None else [Frame(self, tapering), Frame(self)]
        """where insertions and evolution work, and the problem's own qubits last; one frame may be both"""
        inner = self.frames[0].search
        guide = Guide.fitting(inner.alphabet, inner.meter)
        self.insertion = None
        if guide is not None and self.insertions:
            self.insertion = InsertionGrowth(
                inner, guide, search.rng(3), candidates=self.insertions, choices=self.choices
            )
        self.evolutions = [EvolutionAgent(grow=False) for _ in self.frames]
        """one in each frame"""
        for evolution, frame in zip(self.evolutions, self.frames, strict=True):
            evolution.prepare(frame.search)
        self.waiting: deque[_Task] = deque()
        self.shrinker: Shrinker | None = None
        self.turn, self.until = 0, 0
        """of `_TURNS`, and evaluations at which a turn of evolution ends; 0: it has not begun"""
        self.since = 0
        """evaluations when the last turn of evolution ended"""
        self.best: list[int | None] = [None] * len(self.frames)
        """fewest CX within the tolerance, in each frame"""
        self.taken_out = ""
        """key of the last circuit that was taken to all qubits"""

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        turns = {
            "insert": self._insert,
            "evolve": lambda: self._evolve(0),
            "outward": self._take_outward,
            "excite": self._excite,
            "evolve all": self._evolve_on_all_qubits,
        }
        order = _TURNS[len(self.frames)]
        while True:
            self.search.safe_point(self)
            if self.waiting:
                self._shrink(self.waiting[0])
                self.waiting.popleft()
            elif turns[order[self.turn]]():
                self.turn = (self.turn + 1) % len(order)

    def _insert(self) -> bool:
        """One insertion more; whether the turn is over."""
        growth = self.insertion
        if growth is None:
            return True
        found = growth.step()
        if found is None:
            return True
        self._found(found, 0)
        if found.error > self.bound:
            return False
        self._shrink_later(found.circuit, 0)
        growth.restart()
        return True

    def _evolve(self, frame: int) -> bool:
        """A step of evolution; whether the turn is over."""
        if not self.evolve:
            return True
        meter, evolution, fewest = self.search.meter, self.evolutions[frame], self.best[frame]
        if not self.until:
            self.until = meter.evaluations + max(_LEAST_EVOLVED, meter.evaluations - self.since)
        if fewest is not None:
            evolution.narrow(fewest - max(_BELOW, fewest // 10), fewest + _ABOVE)
        evolution.step()
        if meter.evaluations < self.until:
            return False
        self.until, self.since = 0, meter.evaluations
        for circuit in evolution.within(self.bound)[:1]:
            self._shrink_later(circuit, frame)
        return True

    def _evolve_on_all_qubits(self) -> bool:
        """As `_evolve`, for what is small."""
        fewest, last = self.best[-1], len(self.frames) - 1
        return not last or fewest is None or fewest > _WALKED or self._evolve(last)

    def _take_outward(self) -> bool:
        """What has fewest CX on all qubits, of what is best on few, is shrunk there; the turn is over at once."""
        if self.best[0] is not None:
            accurate = [c for c in self.evolutions[0].within(self.bound) if c.two_qubit_gates <= self.best[0] + _ABOVE]
            taken = min(map(self.frames[0].outward, accurate), key=lambda c: (c.two_qubit_gates, len(c)), default=None)
            if taken is not None and taken.key != self.taken_out:
                self.taken_out = taken.key
                self._shrink_later(taken, 1)
        return True

    def _excite(self) -> bool:
        """One operator more; whether the turn is over."""
        growth, last = self.growth, len(self.frames) - 1
        before, error = growth.circuit, growth.error
        growth.step()
        if growth.circuit is None:
            if before is not None and before.n_angles and error > self.bound:
                self._shrink_later(before, last, _ROOM * error)
            return True
        if growth.error <= self.bound:
            self._shrink_later(growth.circuit, last)
        done = growth.error <= _ENOUGH * self.bound
        least, times = _HOPELESS
        fewest = self.best[last]
        done |= fewest is not None and growth.circuit.two_qubit_gates > max(least, times * fewest)
        if done:
            growth.restart()
        return done

    def _shrink_later(self, circuit: Circuit, frame: int, tolerance: float | None = None) -> None:
        self.waiting.append(_Task(circuit, self.bound if tolerance is None else tolerance, frame))

    def _found(self, found: Evaluation, frame: int) -> None:
        """Note a circuit, and let it breed."""
        count, known = found.circuit.two_qubit_gates, self.best[frame]
        if found.error <= self.bound and (known is None or count < known):
            self.best[frame] = count
        self.evolutions[frame].welcome(found)

    # ------------------------------------------------------------------ shrinking
    def _shrink(self, task: _Task) -> None:
        shrinker = self.shrinker
        if shrinker is None:
            meter = self.frames[task.frame].meter
            start = lowered(task.circuit, meter, task.tolerance, self.rng)
            self._found(start, task.frame)
            shrinker = self.shrinker = self._shrinker(start, task)
        with closing(shrinker.run()) as steps:
            for found in steps:  # the meter has shown it to the record
                self._found(found, task.frame)
        self.shrinker = None

    def _shrinker(self, start: Evaluation, task: _Task) -> Shrinker:
        moves = self.moves if start.circuit.two_qubit_gates <= _WALKED else 0
        meter = self.frames[task.frame].meter
        return Shrinker(start, meter, task.tolerance, self.rng, moves=moves, pause=lambda: self.search.safe_point(self))

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        growth, arrays = self.growth.state()
        evolutions = [evolution.state() for evolution in self.evolutions]
        arrays |= {f"{k}.{name}": array for k, (_, held) in enumerate(evolutions) for name, array in held.items()}
        waiting = [[task.circuit.to_list(), task.tolerance, task.frame] for task in self.waiting]
        insertion, more = (None, {}) if self.insertion is None else self.insertion.state()
        arrays |= {f"insertion.{name}": array for name, array in more.items()}
        state = {
            "growth": growth,
            "insertion": insertion,
            "evolutions": [evolution for evolution, _ in evolutions],
            "rng": rng_state(self.rng),
            "waiting": waiting,
            "shrinker": None if self.shrinker is None else self.shrinker.state(),
            "turn": [self.turn, self.until, self.since, self.taken_out],
            "best": self.best,
        }
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.growth.restore(state["growth"], arrays)
        if self.insertion is not None:
            self.insertion.restore(state["insertion"], part_of(arrays, "insertion"))
        for k, (evolution, held) in enumerate(zip(self.evolutions, state["evolutions"], strict=True)):
            evolution.restore(held, part_of(arrays, str(k)))
        self.rng = restore_rng(state["rng"])
        tasks = ((gates, float(tolerance), int(frame)) for gates, tolerance, frame in state["waiting"])
        self.waiting = deque(_Task(Circuit(self.frames[f].n_qubits, gates), t, f) for gates, t, f in tasks)
        self.turn, self.until, self.since, self.taken_out = state["turn"]
        self.best = list(state["best"])
        self.shrinker = None
        if state["shrinker"] is not None:
            task = self.waiting[0]
            self.shrinker = self._shrinker(Evaluation(task.circuit, 0.0, 0.0, 0), task)
            self.shrinker.restore(state["shrinker"])
