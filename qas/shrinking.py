"""Shrinking: the smallest circuit that can be made of another one, at fixed accuracy.

CX go first, then rotations. A CX, or two in a row on the same qubits, are taken out with rotations put in their place,
and all angles are optimized again from there; what is left of a circuit is rewritten by the rules of `qas.rewriting`.
Rotations are taken out in the order of their deletion costs, many at once where the quadratic model allows it. The
bound on the error rises in steps to the tolerance, so that the cheapest deletions come first and the whole front of
error against CX is passed on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from qas.checks import finite_number, whole_number
from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError
from qas.meter import Budget, Meter, SearchEnded
from qas.page import short_unit
from qas.problems import BaseProblem, OperatorProblem, load_problem, require_operator
from qas.rewriting import compress, native, peephole
from qas.runs import Front, Result, envelope
from qas.schema import Count, Gates
from qas.simplify import wrap_angles
from qas.simulators.interrupt import Interrupted, first_signal_asks, stop_when
from qas.vqe import Evaluation, Evaluator

if TYPE_CHECKING:
    from qas.simulators import Simulator

_SHARES = (0.01, 0.1, 0.4, 1.0)
"""Of what the tolerance leaves of the error: the bounds of the stages."""
_MOST = 2000
"""Evaluations of the first optimization."""
_DECIDES = 600
"""Evaluations of one that decides whether a circuit is accepted."""
_OF_ROTATIONS = 0.3
"""Of what a stage allows, what rotations may take before its CX go."""
_ROUNDS = 3
"""Times that rotations are ranked before the CX of a stage go."""
_LOOK = 24
"""Evaluations after which deletions of CX are compared."""
_LOOKED_AT = 16, 64
"""Fewest and most cuts that are compared before the last stage: a third of them."""
_LARGE = 100
"""CX, or cuts, beyond which fewer products and fewer cuts are looked at."""
_TRIES = {False: 4, True: 16}
"""Cuts of CX in a row that may fail before the last stage and in it. Rotations: before it as many, in it all."""
_MOVES_TRIED = 2
"""Moves of a round that are optimized to the end."""
_SHAKES = (0.1, 0.3)
"""Standard deviations, in radians, of what is added to the angles where nothing more goes, for another minimum."""
_TURNS = ((0.0, 0.0), (math.pi, 0.0), (0.0, math.pi), (math.pi, math.pi), (0.5 * math.pi,) * 2, (-0.5 * math.pi,) * 2)
"""(rz of the control, rx of the target), the products nearest to a CX: each has an overlap of 1/2 with it, or 1/√2."""


@dataclass(frozen=True)
class Shrunk:
    """What became of a circuit. Energies in the problem's unit."""

    problem: OperatorProblem
    tolerance: float
    """largest error of a circuit that was kept"""
    start: Evaluation
    """the circuit given, in {rx, ry, rz, cx}, its angles optimized"""
    front: list[Result] = field(repr=False)
    """of each number of CX the circuit of lowest error, where it beats all with fewer; fewest CX first"""
    best: Result
    """fewest CX, then fewest gates, within the tolerance"""
    evaluations: int
    """calls of the objective; a gradient counts as one"""
    seconds: float
    finished: bool
    """nothing more goes; False: the budget, or Ctrl-C, ended it"""
    interrupted: bool = False
    """it was Ctrl-C, or another signal"""

    @property
    def circuits(self) -> list[Result]:
        """`best`, and those of `front` that are others."""
        return [self.best, *(result for result in self.front if result.circuit != self.best.circuit)]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, with each circuit as OpenQASM 3."""
        start = self.start
        return {
            "problem": self.problem.name,
            "unit": self.problem.unit,
            "tolerance": self.tolerance,
            "start": {
                "gates": len(start.circuit),
                "two_qubit_gates": start.circuit.two_qubit_gates,
                "energy": start.energy,
                "error": start.error,
            },
            "best": self.best.to_json(),
            "front": [result.to_json() for result in self.front],
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "finished": self.finished,
        }


def shrink(
    circuit: Circuit,
    problem: str | BaseProblem,
    *,
    tolerance: float | None = None,
    engine: str | type[Simulator] | Simulator | None = None,
    seconds: float | None = None,
    evaluations: int | None = None,
    seed: int = 0,
    moves: int = 0,
    on_accept: Callable[[Evaluation], None] | None = None,
) -> Shrunk:
    """The circuit with as few CX, and then gates, as are found to do at an accuracy.

    Ctrl-C ends it as a budget does: what was found by then is returned.

    Args:
        circuit: any; it is lowered to {rx, ry, rz, cx}.
        problem: a name of `qas.list_problems`, or a problem with a Hamiltonian or a target unitary.
        tolerance: largest error, energy minus the problem's exact energy in its unit, that a circuit may have; None:
            the problem's threshold. The circuit given must meet it once its angles are optimized.
        engine: as of `qas.evaluate`.
        seconds: longest time, or None.
        evaluations: most calls of the objective, or None.
        seed: fixes what is drawn.
        moves: rounds in a row that may bring nothing, of walking on where nothing more goes (see `shrinking`).
        on_accept: called with each circuit that was found, as it comes.

    Raises:
        UnknownNameError: unknown problem or engine.
        CircuitError: circuit and problem differ in size.
        TooLargeError: more qubits than the engine, or an eigensolver for the exact energy, can hold.
        QasError: a problem of another kind, a circuit that misses the tolerance, numbers out of range, or a
            budget that ends before the circuit given was optimized once.
    """
    if not isinstance(circuit, Circuit):
        raise QasError(f"a Circuit is shrunk, got {type(circuit).__name__} (see Circuit.from_qiskit, .from_qasm)")
    target = require_operator(load_problem(problem) if isinstance(problem, str) else problem, "shrinking")
    if circuit.n_qubits != target.n_qubits:
        raise CircuitError(
            f"the circuit has {circuit.n_qubits} qubits, but problem {target.name} needs {target.n_qubits}"
        )
    allowed = finite_number("the tolerance", target.threshold if tolerance is None else tolerance, above=0)
    limited = seconds is not None or evaluations is not None
    budget = Budget(seconds, evaluations) if limited else None
    rng = np.random.default_rng(whole_number("seed", seed, 0))
    evaluator = Evaluator(
        target, engine=engine, max_evaluations=_MOST, start_noise=0.0, tolerance=min(1e-7, 1e-4 * allowed)
    )
    meter = Meter(evaluator, budget)
    meter.simulator.check_size(target.n_qubits)
    target.error(0.0)  # a problem too large to be solved is refused here, not after minutes
    steps = shrinking(circuit, meter, allowed, rng, moves=whole_number("moves", moves, 0))
    return _shrunk(target, meter, allowed, steps, on_accept)


def _shrunk(
    problem: OperatorProblem,
    meter: Meter,
    tolerance: float,
    steps: Generator[Evaluation, None, None],
    on_accept: Callable[[Evaluation], None] | None,
) -> Shrunk:
    began, finished = time.perf_counter(), False
    found: list[tuple[Evaluation, int]] = []
    meter.start_clock()
    deadline = None if meter.budget is None else meter.budget.seconds
    with (
        first_signal_asks(lambda: None),
        stop_when(deadline) as stop,
        suppress(SearchEnded, Interrupted),
        closing(steps),
    ):
        for evaluation in steps:
            found.append((evaluation, meter.evaluations))
            if on_accept is not None:
                on_accept(evaluation)
        finished = True
    if not found and stop.reason == "signal":
        raise KeyboardInterrupt
    if not found:
        raise QasError("the budget ends before the angles of the circuit given are optimized; give a larger one")
    kept = Front(0.0)
    for evaluation, count in found:
        kept.add(evaluation.circuit, evaluation.energy, evaluation.error, count)
    results = [Result(c, energy, error, energy, error, count) for error, energy, c, count in kept.points]
    best = min(results, key=lambda r: (r.two_qubit_gates, r.gates, r.error))
    seconds = time.perf_counter() - began
    interrupted = stop.reason == "signal" and not finished
    front = envelope(results)
    return Shrunk(problem, tolerance, found[0][0], front, best, meter.evaluations, seconds, finished, interrupted)


def shrinking(
    circuit: Circuit, meter: Meter, tolerance: float, rng: np.random.Generator, *, moves: int = 0
) -> Generator[Evaluation, None, None]:
    """Every circuit that is found on the way from a circuit to the smallest of at most an error.

    Args:
        circuit: any, on the qubits of the meter's problem.
        meter: judges, and counts.
        tolerance: largest error, problem's unit.
        rng: draws starts and moves.
        moves: rounds in a row that may bring nothing, of walking where nothing more goes: one CX is put elsewhere, and
            CX are taken out from there.

    Yields:
        The circuit in {rx, ry, rz, cx}, rewritten and its angles optimized; then each that was accepted after it, its
        error within the tolerance. The number of CX never rises, but that of gates may where that of CX falls.

    Raises:
        QasError: the circuit misses the tolerance with its angles optimized.
        SearchEnded: nothing is left to spend.
    """
    start = lowered(circuit, meter, tolerance, rng)
    yield start
    yield from Shrinker(start, meter, tolerance, rng, moves=moves).run()


def lowered(circuit: Circuit, meter: Meter, tolerance: float, rng: np.random.Generator) -> Evaluation:
    """A circuit in {rx, ry, rz, cx}, rewritten and its angles optimized.

    Raises:
        QasError: it misses the tolerance.
        SearchEnded: nothing is left to spend.
    """
    whole = meter.problem.whole_matrix
    plain = compress(native(circuit, whole=whole), whole=whole)
    start = meter.evaluate(plain, rng, max_evaluations=_MOST, exact_start=True)
    if start.error > tolerance:
        meter.left()  # where the budget has cut the optimization short, that is what ends it
        unit = short_unit(meter.problem.unit)
        raise QasError(
            f"the circuit misses the tolerance to begin with: its error is {start.error:.3g} {unit} with its angles "
            f"optimized, and at most {tolerance:.3g} {unit} is asked for".replace("  ", " ")
        )
    return start


class _Cut(NamedTuple):
    """Some CX taken out of a circuit, with rotations in their place."""

    positions: tuple[int, ...]
    """of the CX in the circuit that the cuts are compared in"""
    turns: np.ndarray
    """angles of the rotations, radians, shape (4 * positions,)"""
    error: float

    @property
    def by_position(self) -> Iterator[tuple[int, np.ndarray]]:
        """The angles in the place of each CX."""
        return ((p, self.turns[4 * k : 4 * k + 4]) for k, p in enumerate(self.positions))


def _joined(cuts: Sequence[_Cut]) -> _Cut:
    """Cuts of different CX as one."""
    turns = dict(pair for cut in cuts for pair in cut.by_position)
    places = tuple(sorted(turns))
    return _Cut(places, np.concatenate([turns[p] for p in places]), math.inf)


_PARTS: tuple[tuple[str, float], ...] = (
    *((kind, share) for share in _SHARES for kind in ("rotations", "cx")),
    ("bare", 1.0),
    *(("minima", scale) for scale in _SHAKES),
    ("moves", 0.0),
)
"""What is done in turn; from "bare" on again and again, as long as CX go."""
_NUMBERS = {"begun": float, "here": float, "part": int, "done": int, "before": int, "waiting": int, "moves": int}
_AGAIN = [kind for kind, _ in _PARTS].index("bare")


class ShrinkerState(TypedDict):
    """What a checkpoint holds of a `Shrinker`."""

    current: tuple[Gates, float, float]
    parent: Gates
    begun: float
    here: float
    part: Count
    done: Count
    before: Count
    waiting: Count
    moves: Count


class Shrinker:
    """A circuit on its way to the smallest one; between two steps its state is a few numbers and circuits.

    Args:
        start: where to begin, of {rx, ry, rz, cx}, its angles optimized; see `lowered`.
        meter, tolerance, rng, moves: as of `shrinking`.
        pause: called between two steps, where `state` is complete.
    """

    def __init__(
        self,
        start: Evaluation,
        meter: Meter,
        tolerance: float,
        rng: np.random.Generator,
        *,
        moves: int = 0,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.current = start
        self.meter, self.tolerance, self.rng, self.moves, self.pause = meter, tolerance, rng, moves, pause
        problem = require_operator(meter.problem, "shrinking")
        self.hamiltonian, self.whole = problem.hamiltonian, problem.whole_matrix
        self.begun = self.here = start.error
        self.part, self.done = 0, 0
        """where in `_PARTS`, and how many steps of that are done"""
        self.before = start.circuit.two_qubit_gates
        self.parent, self.waiting = start.circuit, moves
        """of the walk: where it stands, and rounds that may still bring nothing"""

    def run(self) -> Generator[Evaluation, None, None]:
        """Each circuit that is accepted; see `shrinking`."""
        steps = {
            "rotations": self._fewer_rotations,
            "cx": self._fewer_cx_in_part,
            "bare": self._bare,
            "minima": self._from_another_minimum,
            "moves": self._by_a_move,
        }
        while self.part < len(_PARTS):
            self.pause()
            kind, amount = _PARTS[self.part]
            if not self.done:
                self.here = self.current.error
                self.parent, self.waiting = self.current.circuit, self.moves
            if (yield from steps[kind](amount)):
                self.done += 1
            else:
                self._next_part()

    def _next_part(self) -> None:
        self.part, self.done = self.part + 1, 0
        count = self.current.circuit.two_qubit_gates
        if self.part == len(_PARTS) and count < self.before:
            self.part = _AGAIN
        if self.part == _AGAIN:
            self.before = count

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """JSON-able; `restore` takes it back on a shrinker of the same meter and tolerance."""
        current = [self.current.circuit.to_list(), self.current.energy, self.current.error]
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {"current": current, "parent": self.parent.to_list(), **numbers}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        n = self.meter.problem.n_qubits
        gates, energy, error = state["current"]
        self.current = Evaluation(Circuit(n, gates), float(energy), float(error), 0)
        self.parent = Circuit(n, state["parent"])
        for name, kind in _NUMBERS.items():
            setattr(self, name, kind(state[name]))

    # ------------------------------------------------------------------ parts
    def _bound(self, share: float) -> float:
        return self.begun + share * (self.tolerance - self.begun)

    def _fewer_rotations(self, share: float) -> Generator[Evaluation, None, bool]:
        """Take out the cheapest rotations by the quadratic model; whether to go on."""
        found = self._without_rotations(self.here + _OF_ROTATIONS * (self._bound(share) - self.here), last=False)
        if found is None:
            return False
        yield self._accept(found)
        return self.done + 1 < _ROUNDS

    def _bare(self, share: float) -> Generator[Evaluation, None, bool]:
        """Take out rotations as long as any goes."""
        found = self._without_rotations(self.tolerance, last=True)
        if found is not None:
            yield self._accept(found)
        return found is not None

    def _fewer_cx_in_part(self, share: float) -> Generator[Evaluation, None, bool]:
        return (yield from self._fewer_cx(self._bound(share), share == _SHARES[-1]))

    def _from_another_minimum(self, scale: float) -> Generator[Evaluation, None, bool]:
        """Take out CX from where the angles come to from shaken ones."""
        if self.current.circuit.two_qubit_gates:
            dressed = _dressed(self.current.circuit, self.whole)
            shaken = dressed.angles + self.rng.normal(scale=scale, size=dressed.n_angles)
            yield from self._cut_on(self._optimized(dressed.with_angles(shaken)).circuit)
        return False

    def _by_a_move(self, _: float) -> Generator[Evaluation, None, bool]:
        """Walk over circuits of as many CX within the tolerance, and take out CX on the way."""
        if not self.waiting or not self.current.circuit.two_qubit_gates:
            return False
        self.waiting -= 1
        moved = self._moved(self.parent)
        self.parent = self.current.circuit if moved is None else moved.circuit
        if (yield from self._cut_on(self.parent)):
            self.parent, self.waiting = self.current.circuit, self.moves
        return True

    def _cut_on(self, parent: Circuit) -> Generator[Evaluation, None, bool]:
        """Take out CX of a circuit, and where any goes, all that go after it."""
        if not (yield from self._cut_from(parent, self.tolerance, last=False)):
            return False
        while (yield from self._fewer_cx(self.tolerance, last=True)):
            pass
        return True

    def _moved(self, parent: Circuit) -> Evaluation | None:
        """The best of some circuits with one CX elsewhere; None if all of them miss the tolerance."""
        base = _dressed(compress(parent, whole=self.whole), self.whole)
        trials = (_with_a_move(base, self.rng) for _ in range(_LOOKED_AT[0]))
        with closing(self.meter.evaluate_many(trials, self.rng, max_evaluations=_LOOK, exact_start=True)) as looks:
            nearest = sorted(looks, key=lambda found: found.error)[:_MOVES_TRIED]
        tried = [self._optimized(found.circuit) for found in nearest]
        best = min(tried, key=lambda found: found.error)
        return best if best.error <= self.tolerance else None

    def _optimized(self, circuit: Circuit, most: int = _DECIDES) -> Evaluation:
        return self.meter.evaluate(circuit, self.rng, max_evaluations=most, exact_start=True)

    def _accept(self, found: Evaluation) -> Evaluation:
        """Go on from a circuit, rewritten."""
        circuit = compress(wrap_angles(found.circuit), whole=self.whole)
        if circuit is not found.circuit:
            energy = self.meter.energy(circuit)
            found = Evaluation(circuit, energy, self.meter.problem.error(energy), found.evaluations)
        self.current = found
        return found

    # ------------------------------------------------------------------ CX
    def _fewer_cx(self, bound: float, last: bool) -> Generator[Evaluation, None, bool]:
        """Take out CX: from the circuit as it is, and if none goes, from it with rotations put in everywhere.

        Returns:
            Whether any went.
        """
        if not self.current.circuit.two_qubit_gates:
            return False
        if (yield from self._cut_from(self.current.circuit, bound, last)):
            return True
        dressed = self._optimized(_dressed(self.current.circuit, self.whole))
        return (yield from self._cut_from(dressed.circuit, bound, last))

    def _cut_from(self, base: Circuit, bound: float, last: bool) -> Generator[Evaluation, None, bool]:
        groups = _groups(base)
        working, removed, failed = base, dict[int, np.ndarray](), 0
        cuts = self._looked_at(base, groups, bound, last)
        many = self._that_may_go(cuts, bound)
        while many > 1 and not removed:
            found = self._optimized(_without(base, base, {}, _joined(cuts[:many])))
            if found.error <= bound:
                removed = {p: turns for cut in cuts[:many] for p, turns in cut.by_position}
                working, cuts = found.circuit, cuts[many:]
                yield self._accept(found)
            many //= 3
        for cut in cuts:
            if any(p in removed for p in cut.positions):
                continue
            if self.current.circuit.two_qubit_gates < working.two_qubit_gates:
                break  # rewriting has found more: the other cuts are of a circuit that is no more
            trial = _without(base, working, removed, cut)
            found = self._optimized(trial)
            if found.error > bound:
                failed += 1
                if failed >= _TRIES[last]:
                    break
                continue
            working, failed = found.circuit, 0
            removed |= dict(cut.by_position)
            yield self._accept(found)
        return bool(removed)

    def _that_may_go(self, cuts: list[_Cut], bound: float) -> int:
        """How many of the first cuts seem to go together: their rises add up to half of what is allowed."""
        taken: set[int] = set()
        left = 0.5 * (bound - self.current.error)
        for count, cut in enumerate(cuts):
            left -= max(0.0, cut.error - self.current.error)
            if left < 0 or not taken.isdisjoint(cut.positions):
                return count
            taken.update(cut.positions)
        return len(cuts)

    def _looked_at(self, base: Circuit, groups: list[tuple[int, ...]], bound: float, last: bool) -> list[_Cut]:
        """Cuts, the most promising first, by their errors after a short optimization."""
        cuts = sorted((self._screened(base, group) for group in groups), key=lambda cut: cut.error)
        least, most = _LOOKED_AT
        many = len(cuts) if last and len(cuts) <= _LARGE else min(max(least, len(cuts) // 3), most)
        trials = [_without(base, base, {}, cut) for cut in cuts[:many]]
        looked = []
        with closing(
            self.meter.evaluate_many(trials, self.rng, max_evaluations=_LOOK, exact_start=True)
        ) as evaluations:
            for cut, found in zip(cuts, evaluations, strict=False):
                looked.append(cut._replace(turns=_turns_of(base, found.circuit, cut.positions), error=found.error))
        # Within the bound more CX are better; beyond it the nearest is.
        return sorted(looked, key=lambda cut: (cut.error > bound, (cut.error - bound) / len(cut.positions)))

    def _screened(self, base: Circuit, group: tuple[int, ...]) -> _Cut:
        """A cut with the best of a few products in the place of its CX."""
        choices = _TURNS if len(group) == 1 and base.two_qubit_gates <= _LARGE else _TURNS[:1]
        turns = [np.array([rz, 0.0, rx, 0.0] * len(group)) for rz, rx in choices]
        circuits = [_without(base, base, {}, _Cut(group, each, 0.0)) for each in turns]
        self.meter.spend_each(len(circuits))
        energies = self.meter.simulator.expectation_many(circuits, self.hamiltonian, workers=1)
        best = int(np.argmin(energies))
        return _Cut(group, turns[best], self.meter.problem.error(float(energies[best])))

    # ------------------------------------------------------------------ rotations
    def _without_rotations(self, bound: float, last: bool) -> Evaluation | None:
        """The circuit without as many rotations as the bound seems to allow, or without any one; None: none goes."""
        circuit, slack = self.current.circuit, bound - self.current.error
        if not circuit.n_angles:
            return None
        self.meter.spend_each(2 * circuit.n_angles)
        costs = self.meter.simulator.deletion_costs(circuit, self.hamiltonian)
        order = np.argsort(costs)
        places = np.array([k for k, gate in enumerate(circuit) if gate.angles])[order]
        many = int(np.searchsorted(np.cumsum(costs[order]), 0.5 * slack))
        while many > 1:
            found = self._deleted(places[:many], bound)
            if found.error <= bound:
                return found
            many //= 3
        for tried in range(len(places)):
            if not last and (costs[order[tried]] > slack or tried >= _TRIES[last]):
                return None
            found = self._deleted(places[tried : tried + 1], bound)
            if found.error <= bound:
                return found
        return None

    def _deleted(self, places: np.ndarray, bound: float) -> Evaluation:
        """The circuit without the gates at some places; far from the bound after a look, it is optimized no further."""
        gone = set(places.tolist())
        circuit = self.current.circuit
        left = Circuit(circuit.n_qubits, [gate for k, gate in enumerate(circuit) if k not in gone])
        found = self._optimized(peephole(left, whole=self.whole), _LOOK)
        if bound < found.error < bound + self.tolerance:
            found = self._optimized(found.circuit)
        return found


# ---------------------------------------------------------------------- circuits with CX taken out
def _groups(circuit: Circuit) -> list[tuple[int, ...]]:
    """Positions of each CX, and of each two that follow each other on the same two qubits."""
    places = [k for k, gate in enumerate(circuit) if gate.name == "cx"]
    by_pair: dict[frozenset[int], list[int]] = {}
    for k in places:
        by_pair.setdefault(frozenset(circuit[k].qubits), []).append(k)
    return [(k,) for k in places] + [pair for same in by_pair.values() for pair in pairwise(same)]


def _substitute(cx: Gate, turns: np.ndarray) -> list[Gate]:
    """Rotations in the place of a CX: beside those of its neighbours, any on both qubits."""
    control, target = cx.qubits
    places = (("rz", control), ("ry", control), ("rx", target), ("ry", target))
    return [Gate(name, (q,), (float(angle),)) for (name, q), angle in zip(places, turns, strict=True)]


def _without(base: Circuit, working: Circuit, removed: dict[int, np.ndarray], cut: _Cut) -> Circuit:
    """`working` without the CX of a cut as well.

    Args:
        base: what positions mean.
        working: `base` with the CX at `removed` substituted, all angles its own.
    """
    chosen = dict(cut.by_position)
    gates: list[Gate] = []
    place = 0
    for position in range(len(base)):
        if position in removed:
            gates += working.gates[place : place + 4]
            place += 4
            continue
        if position in chosen:
            gates += _substitute(working[place], chosen[position])
        else:
            gates.append(working[place])
        place += 1
    return Circuit(base.n_qubits, gates)


def _turns_of(base: Circuit, found: Circuit, positions: tuple[int, ...]) -> np.ndarray:
    """Angles that the substitutes for the CX at some positions have come to."""
    offsets = [p + 3 * k for k, p in enumerate(sorted(positions))]
    assert len(found) == len(base) + 3 * len(positions)
    return np.array([gate.angles[0] for start in offsets for gate in found.gates[start : start + 4]])


def _with_a_move(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    """The circuit with one CX substituted and another put in, half of the time on one of the same qubits."""
    gates = list(circuit.gates)
    old = int(rng.choice([k for k, gate in enumerate(gates) if gate.name == "cx"]))
    first, second = (int(q) for q in rng.choice(circuit.n_qubits, 2, replace=False))
    shared = gates[old].qubits[int(rng.integers(2))]
    if rng.random() < 0.5 and shared != second:
        first = shared
    turns = [np.array([rz, 0.0, rx, 0.0]) for rz, rx in (_TURNS[int(k)] for k in rng.integers(len(_TURNS), size=2))]
    new = Gate("cx", (first, second) if rng.random() < 0.5 else (second, first))
    place = int(rng.integers(len(gates) + 1))
    gates[old : old + 1] = _substitute(gates[old], turns[0])
    gates[place:place] = [new, *_substitute(new, turns[1])]
    return Circuit(circuit.n_qubits, gates)


def _dressed(circuit: Circuit, whole: bool) -> Circuit:
    """The circuit with rotations by 0 at its beginning and after each CX, so that every run of gates makes any.

    Args:
        whole: it need not begin in |0…0⟩.
    """
    first = ("rz", "ry", "rz") if whole else ("ry", "rz")
    gates = [Gate(name, (q,), (0.0,)) for q in range(circuit.n_qubits) for name in first]
    for gate in circuit:
        gates.append(gate)
        if gate.name == "cx":
            control, target = gate.qubits
            added = (("ry", control), ("rz", control), ("ry", target), ("rx", target))
            gates += [Gate(name, (q,), (0.0,)) for name, q in added]
    return Circuit(circuit.n_qubits, gates)
