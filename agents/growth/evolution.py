"""Evolution of circuits on exact gradients, guided by the slopes of what could be inserted; angles are inherited."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, NotRequired, TypedDict

import numpy as np

from qas.agents import starts
from qas.agents.base import Agent, DrawnAhead, Search, restore_rng
from qas.agents.growth.changes import Changes
from qas.agents.growth.frames import Inner
from qas.agents.growth.inserting import InsertionGrowth, InsertionState
from qas.agents.settings import room_for_depth
from qas.alphabet import Alphabet
from qas.checks import whole_number
from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.files import part_of
from qas.gates import SEARCH_GATES
from qas.guidance import Curvature, Guide, Study, edited
from qas.meter import Budget, Meter, SearchEnded
from qas.problems import BaseProblem, Problem
from qas.registry import settings_of
from qas.schema import Count, Gates, RngState, conform
from qas.simulators.workers import worker_count
from qas.vqe import Evaluation

_WORTH_IT = 256
"""Numbers in a state, below which making a child takes longer than judging it."""
_EXCHANGE = 0.5
"""Share of guided changes that insert in the place of a gate that costs little."""
_DELETE = 0.1
"""Share of guided changes that delete only."""
_LOCAL = 0.5
"""Share of insertions on one qubit."""
_SHAKEN = 0.5
"""Share of children that start from angles with noise on them; the others save evaluations, and can stay on saddles."""
_REPLACED = 0.5
"""Share of deleted two-qubit gates that leave rotations in their place."""
_LAYERS = 4
"""Layers that a search begins with, at most, where the caller does not say."""
_LAYERED = 0.75
"""Share of the budget after which no further circuit of layers is begun, where none grows."""
_BEFORE = 0.25
"""Share of the budget after which a circuit begins to grow; without one it does so at once."""
_GROWING = 0.25
"""Share of the budget that it has for that."""
_GROWN_EACH = 40
"""Most evaluations of a circuit that grows."""
_SMALL = 4
"""Qubits up to which nothing grows: evolution finds as much by itself."""
_TURNS = ("ry", "rz")
"""Rotations of the layers that a search begins with."""
_PRUNED = 4
"""Deletions tried of a new leader, cheapest first."""


@dataclass(eq=False)
class _Member:
    circuit: Circuit
    error: float
    costs: list[float | None] = field(default_factory=list)
    """estimated rise of the energy without each gate, None where it is not known; kept where the search is guided"""
    paid: list[str] = field(default_factory=list)
    """what has been counted of what was found out of it"""
    spent: dict[str, int] = field(default_factory=dict)
    """evaluations that each of it took"""
    curvature: Curvature | None = None
    """what its optimization learned; kept where the search is guided"""
    study: Study | None = None
    removal: np.ndarray | None = None
    """float64 (n_gates,): estimated rise of the energy without each gate"""

    def inherited(self, child: Circuit) -> np.ndarray | None:
        """The inverse Hessian that a child begins with."""
        return None if self.curvature is None else self.curvature.inherited(self.circuit, child)


class _Child(NamedTuple):
    circuit: Circuit
    parent: _Member
    used: tuple[str, ...] = ()
    """what was used of what was found out of the parent"""


class _Unrecorded:
    """What a meter tells of circuits that are no results: they are freed of redundant gates at most."""

    best_error = math.inf

    def __init__(self, problem: BaseProblem) -> None:
        self.problem = problem

    def take(self, found: Evaluation, meter: Meter, rng: np.random.Generator, *, tidy: bool = False) -> Evaluation:
        """The circuit, simplified where asked for, as the record would keep it."""
        shorter = self.problem.simplify(found.circuit, 1e-7) if tidy else found.circuit
        return found if shorter is found.circuit else replace(found, circuit=shorter, inverse_hessian=None)


_Start = tuple[Circuit, "np.ndarray | None"]
"""A circuit, and the inverse Hessian that it begins with."""


class EvolutionState(TypedDict):
    """What a checkpoint holds of an `EvolutionAgent`."""

    rng: RngState
    cells: list[tuple[Count, list[tuple[Gates, float, list[float | None], list[str], bool]]]]
    tried: dict[str, Count]
    refused: Count
    growth: NotRequired[InsertionState]
    until: NotRequired[float | None]
    rehearsal: NotRequired[dict[str, Any]]


class EvolutionAgent(Agent):
    """A population that keeps the best circuits of every number of two-qubit gates.

    Each step picks a number of two-qubit gates, a parent there, and changes it a little; the child inherits the angles
    of the gates it keeps, is freed of trivially redundant gates, and is optimized. It then competes with the circuits
    that have as many two-qubit gates as itself. New elites are pruned: gates whose removal costs nothing are removed.

    Where exact energies of a Hamiltonian have slopes (see `Guide.fitting`), changes are guided: rotations, alone or one
    or two of them between equal two-qubit gates, and excitations are drawn among all places by their squared slopes, as
    in ADAPT-VQE (Grimsley et al. 2019) but everywhere; gates are deleted by what that is estimated to cost; and of two
    circuits with equal energy the newer one stays, so that the population drifts. Optimizations begin with the parent's
    inverse Hessian (as in Ramôa et al., arXiv:2401.05172). What is found out of a parent is counted where it is used:
    one evaluation for each sweep of slopes, and one for each gate without angles that is left out.

    A population ends where no small change helps, on more than four qubits often near product states. A guided search
    therefore spends up to a quarter of its budget on one circuit that grows from the reference determinant by the most
    promising insertions (`InsertionGrowth`); all that it is on the way joins the population. Under noise, where small
    circuits count, only circuits for molecules grow.

    Under noise a search begins without it, where slopes lead further than to the few gates that pay at once; the best
    circuits of every size, trained again under the noise, are what evolution goes on from.

    Args:
        population: circuits kept for each number of two-qubit gates.
        changes: mean number of changes a child gets beyond the first.
        guided: follow slopes and costs where there are any.
        blind: share of children whose changes are drawn evenly all the same; they insert single two-qubit gates, which
            have no slope.
        small: how far a guided search favours parents with few two-qubit gates: those with k of them by
            (k + 2)^-small. 0: all alike, which goes fastest to low errors; 1: more is tried of the small ones.
        layers: most layers of rotations and entanglers, of random angles, that the population begins with beside a
            product state. None: 4; for a molecule without a coupling 0, as slopes lead on from its reference state.
        grow: let a circuit grow, where slopes guide and nothing is given to start from.
        noise_free: share of the budget that a search for exact energies under noise spends without it first; nothing
            where it has a start.
        start: circuits that join the first ones, their angles optimised from those they have, the best first: a list of
            gates as `Circuit.to_list` gives them, or of such lists. `qas.search(start=…)` fills it.
    """

    name: ClassVar[str] = "evolution"
    about: ClassVar[str] = "mutates the best circuits of every size, angles inherited, redundant gates pruned"
    begins: ClassVar[bool] = True
    State: ClassVar[Any] = EvolutionState

    def __init__(
        self,
        *,
        population: int = 6,
        changes: float = 0.7,
        guided: bool = True,
        blind: float = 0.2,
        small: float = 0.0,
        layers: int | None = None,
        grow: bool = True,
        noise_free: float = 0.5,
        start: list[Any] | None = None,
    ) -> None:
        self.population = whole_number("population", population)
        if not 0 <= small <= 4:
            raise QasError(f"small lies between 0 and 4, got {small}")
        if not 0 <= changes <= 20:
            raise QasError(f"changes lies between 0 and 20, got {changes}")
        if not 0 <= blind <= 1:
            raise QasError(f"blind is a share between 0 and 1, got {blind}")
        if not 0 <= noise_free < 1:
            raise QasError(f"noise_free is a share from 0 to below 1, got {noise_free}")
        self.layers = None if layers is None else whole_number("layers", layers, 0)
        self.noise_free = float(noise_free)
        self.changes, self.guided, self.blind, self.small = float(changes), bool(guided), float(blind), float(small)
        self.grow, self.start = bool(grow), start

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        return room_for_depth(problem)

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.drawn = DrawnAhead(self.rng)
        self.guide = Guide.fitting(search.alphabet, search.meter) if self.guided else None
        self._trying: deque[_Child] = deque()
        """Children whose results are to come."""
        self.first = [] if self.start is None else starts.start_circuits(self.start, search)
        self.cells: dict[int, list[_Member]] = {}
        self.tried: dict[str, int] = {}
        self.refused = 0
        self.window: tuple[int, int] | None = None
        """fewest two-qubit gates of parents, and most of children; None: any"""
        self.blindly = Changes(search.alphabet)
        """changes drawn evenly"""
        self.growth = self._growth()
        """what grows a circuit beside the population, until that is over"""
        self.until: float | None = None
        """share of the budget at which it is, once it has begun"""
        self.rehearsal = self._rehearsal()
        """the search without noise, while it lasts"""

    @property
    def _of_a_molecule(self) -> bool:
        problem = self.search.problem
        return isinstance(problem, Problem) and problem.molecule is not None

    def _growth(self) -> InsertionGrowth | None:
        guide, search = self.guide, self.search
        if guide is None or not self.grow or self.start is not None or search.problem.n_qubits <= _SMALL:
            return None
        if search.noise is not None and not self._of_a_molecule:
            return None
        return InsertionGrowth(search, guide, search.rng(2), candidates=1, choices=1, max_evaluations=_GROWN_EACH)

    def _rehearsal(self) -> EvolutionAgent | None:
        search, meter = self.search, self.meter
        noisy = search.noise is not None and meter.shots is None and search.problem.simulated
        if not noisy or not self.noise_free or self.start is not None:
            return None
        agent = EvolutionAgent(**settings_of(self) | {"noise_free": 0.0, "grow": self.growth is not None})
        quiet = replace(meter.evaluator, noise=None, objective="noisy")
        unrecorded: Any = _Unrecorded(search.problem)
        inner = Meter(quiet, self._share(meter.budget), unrecorded, spent=meter.spent)
        own = search.alphabet
        # In a device's own gates two pulses and three angles are one rotation, and searches go half as fast.
        ideal = own if own.native is None else Alphabet(own.n_qubits, SEARCH_GATES, own.coupling, connected=False)
        agent.prepare(Inner(search.problem, ideal, search.max_gates, search.seed, inner, search.record, outer=self))
        return agent

    def _share(self, budget: Budget | None) -> Budget | None:
        """The part of a budget that is spent without noise."""
        if budget is None:
            return None
        counts = {name: getattr(budget, name) for name in ("evaluations", "steps")}
        parts = {name: max(1, int(self.noise_free * n)) for name, n in counts.items() if n is not None}
        seconds = None if budget.seconds is None else self.noise_free * budget.seconds
        return Budget(seconds=seconds, **parts)

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            self.step()

    def step(self) -> None:
        """Begin a population, or breed until it changes."""
        if not self.cells:
            self._seed()
            if self.rehearsal is None:
                self._seed_layers()
        elif self.rehearsal is not None:
            self._rehearse(self.rehearsal)
        elif self.growth is not None and (self.meter.budget is None or self.meter.fraction >= _BEFORE):
            self._grow(self.growth)
        else:
            self._breed()

    def welcome(self, found: Evaluation) -> None:
        """Take in a circuit whose angles are optimized."""
        self._insert(self._member(found))

    def narrow(self, fewest: int, most: int) -> None:
        """Work with numbers of two-qubit gates in a window from now on, and forget circuits outside it."""
        self.window = fewest, most
        self.cells = {two: members for two, members in self.cells.items() if fewest <= two <= most}

    def within(self, error: float) -> list[Circuit]:
        """The circuits of the population that have at most an error, fewest two-qubit gates first, then best first."""
        return [m.circuit for two in sorted(self.cells) for m in self.cells[two] if m.error <= error]

    def _rehearse(self, other: EvolutionAgent) -> None:
        """A step without noise; when it is time, what leads there is trained under the noise."""
        try:
            other.step()
            self.search.record.note = f"without noise, {len(other.cells)} sizes"
            return
        except SearchEnded:
            self.meter.left()  # that of the whole search goes on
        for circuit in map(self.search.simplify, other.leaders()):
            if len(circuit) <= self.search.max_gates:  # a rotation is up to five native gates
                self.welcome(self.meter.evaluate(circuit, self.rng, exact_start=True, tidy=True))
        self.rehearsal = None

    def leaders(self) -> list[Circuit]:
        """The best circuit of each number of two-qubit gates that beats all smaller ones, fewest first."""
        return [self.cells[cell][0].circuit for cell in self._leading()]

    def _seed(self) -> None:
        """What the caller gave, the empty circuit, and one layer of every one-qubit gate: the best product state."""
        n = self.search.problem.n_qubits
        for first in self._best_first(self.first):
            self._offer(first, exact_start=True)
        self._offer(Circuit(n))
        layer = [self.blindly.gate(token, self.rng) for token in self.blindly.one]
        for _ in range(3):
            start = Circuit(n, layer)
            start = start if self.search.alphabet.native is None else self.search.simplify(start)
            if 0 < len(start) <= self.search.max_gates:
                self._offer(start)

    def _best_first(self, circuits: list[Circuit]) -> list[Circuit]:
        """What is given, once each of several was judged as it is, those first that have most gates to be good by."""
        if len(circuits) < 2:
            return circuits
        last_first = circuits[::-1]
        seen = [self.meter.evaluate(each, self.rng, exact_start=True, max_evaluations=1) for each in last_first]
        return [last_first[k] for k in np.argsort([found.energy for found in seen], kind="stable")]

    def _seed_layers(self) -> None:
        """Rotations of every qubit between entanglers on all coupled pairs, or on a chain, from any angles."""
        problem, coupling, moves = self.search.problem, self.search.alphabet.coupling, self.blindly.moves
        fixed = [gate for gate in map(moves.gate, self.blindly.two) if not gate.angles]
        if coupling is None:
            fixed = [gate for gate in fixed if abs(gate.qubits[0] - gate.qubits[1]) == 1]
        pairs = {frozenset(gate.qubits): gate for gate in reversed(fixed)}
        turns = [gate for gate in map(moves.gate, self.blindly.one) if gate.name in _TURNS]
        most = self.layers
        if most is None:
            most = 0 if coupling is None and self._of_a_molecule else _LAYERS
        until = _LAYERED if self.growth is None else _BEFORE
        for layers in range(1, most + 1 if pairs and turns else 0):
            circuit = Circuit(problem.n_qubits, [*turns, *pairs.values()] * layers + turns)
            if len(circuit) <= self.search.max_gates and self.meter.fraction < until:
                self._offer(circuit.with_angles(self.rng.uniform(-math.pi, math.pi, circuit.n_angles)))

    def _grow(self, growth: InsertionGrowth) -> None:
        """Insert once more into the circuit that grows."""
        used = self.meter.fraction
        self.until = used + _GROWING if self.until is None else self.until
        found = growth.step() if used < self.until else None
        if found is None:
            self.growth = None
        else:
            self.welcome(found)
            self.search.record.note = f"growing, {found.circuit.two_qubit_gates} two-qubit gates"

    def _breed(self) -> None:
        """Children of the population as it stands, up to the first that changes it.

        Most do not, so that children are made and worked on before those ahead of them are judged; what a change makes
        void was only time.
        """
        leader: _Member | None = None
        with closing(self._judged(self._children())) as results:
            for found in results:
                self.drawn.settle()
                child = self._trying.popleft()
                self._count(child.circuit.key)
                self._pay(child.parent, child.used)
                member = self._member(found)
                before = list(self._cell(member))
                leader = member if self._insert(member) else None
                if self._cell(member) != before or not self.tried:
                    break
                self.search.safe_point(self)
        self._trying.clear()
        self.drawn.rewind()
        if leader is not None:
            self._prune(leader)

    def _children(self) -> Iterator[_Start]:
        self.drawn.mark()
        while True:
            refused = 0 if self._trying else self.refused
            while self._refuses((child := self._child()).circuit):
                refused += 1
                if refused >= 1000 and self._trying:
                    return  # what comes next depends on what is tried by then
                if refused >= 1000:
                    self.search.safe_point(self)
                    # A small space is exhausted: without another round the budget would never be used up.
                    self.tried.clear()
                    self.refused = refused = 0
            self._trying.append(child)
            yield self._shaken(child.circuit), child.parent.inherited(child.circuit)
            self.drawn.mark()

    def _child(self) -> _Child:
        parent, guide = self._choose_parent(), self.guide
        if guide is None:
            return _Child(self.search.simplify(self._mutated(parent.circuit)), parent)
        used: tuple[str, ...] = ()
        if not len(parent.circuit) or self.rng.random() < self.blind:
            child = self._mutated(parent.circuit)
        else:
            child, used = self._guided(guide, parent)
        return _Child(self.search.simplify(child), parent, used)

    def _shaken(self, circuit: Circuit) -> Circuit:
        if self.guide is None or self.rng.random() >= _SHAKEN:
            return circuit
        return circuit.with_angles(circuit.angles + self.rng.normal(scale=0.1, size=circuit.n_angles))

    def _mutated(self, circuit: Circuit) -> Circuit:
        return self.blindly.several(circuit, self.changes, self.rng)

    def _guided(self, guide: Guide, parent: _Member) -> tuple[Circuit, tuple[str, ...]]:
        """Insertions drawn by slope, a few cheap gates deleted in exchange or not; or such a deletion alone."""
        rng, kind = self.rng, self.rng.random()
        deleted: set[int] = set()
        inserted: list[tuple[int, tuple[Gate, ...]]] = []
        if kind < _DELETE + _EXCHANGE:
            cheapest = np.argsort(self._removal(guide, parent), kind="stable").tolist()
            for _ in range(1 + rng.poisson(0.3)):
                deleted.add(cheapest[min(int(rng.geometric(0.25)), len(cheapest)) - 1])
            products = [(index, guide.nearest_product(parent.circuit[index], rng)) for index in sorted(deleted)]
            inserted += [each for each in products if rng.random() < _REPLACED]
        if kind >= _DELETE:
            study = self._study(guide, parent)
            for _ in range(1 + rng.poisson(self.changes)):
                choices = (study.local, study.entangling)[:: 1 if rng.random() < _LOCAL else -1]
                inserted += [guide.draw(choice, rng) for choice in choices if choice.found][:1]
        used = ("removal",) * bool(deleted) + ("study",) * (kind >= _DELETE)
        return edited(parent.circuit, deleted, inserted, native=guide.native), used

    def _study(self, guide: Guide, member: _Member) -> Study:
        if member.study is None:
            member.study = guide.study(member.circuit)
            member.spent["study"] = member.study.evaluations
        return member.study

    def _removal(self, guide: Guide, member: _Member) -> np.ndarray:
        if member.removal is None:
            member.removal, member.spent["removal"] = guide.deletion_costs(member.circuit, member.costs)
        return member.removal

    def _pay(self, member: _Member, used: Iterable[str]) -> None:
        """Count what was found out at the first child that it was used for: children ahead may come to nothing."""
        for each in used:
            if each not in member.paid:
                member.paid.append(each)
                self.meter.spend_each(member.spent[each])

    def _member(self, found: Evaluation) -> _Member:
        if self.guide is None:
            return _Member(found.circuit, found.error)
        costs = self.guide.angle_costs(found.circuit, found.inverse_hessian)
        return _Member(found.circuit, found.error, costs, curvature=Curvature.of(found))

    def _refuses(self, child: Circuit) -> bool:
        times = self.tried.get(child.key, 0) + sum(child.key == other.circuit.key for other in self._trying)
        many = self.window is not None and child.two_qubit_gates > self.window[1]
        return many or len(child) > self.search.max_gates or times >= 2

    def _count(self, key: str) -> None:
        self.refused = 0
        self.tried[key] = self.tried.get(key, 0) + 1
        if len(self.tried) > 200_000:
            self.tried.clear()

    def _choose_parent(self) -> _Member:
        low, high = self.window or (0, math.inf)
        cells = [two for two in sorted(self.cells) if low <= two <= high] or [min(self.cells)]
        # Cells that beat all smaller ones lead; the others are picked now and then.
        pool = self._leading(cells) if self.rng.random() < 0.8 else cells
        if self.guide is None:
            cell = pool[self.rng.integers(len(pool))]
        else:
            weight = (2.0 + np.array(pool)) ** -self.small
            cell = pool[int(self.rng.choice(len(pool), p=weight / weight.sum()))]
        members = self.cells[cell]
        rank = min(int(self.rng.geometric(0.4)) - 1, len(members) - 1)
        return members[rank]

    def _leading(self, cells: Iterable[int] | None = None) -> list[int]:
        """The cells that beat all smaller ones, of some in rising order, or of all."""
        leading, lowest = [], np.inf
        for cell in sorted(self.cells) if cells is None else cells:
            best = self.cells[cell][0].error
            if best < lowest * 0.999 - 1e-12:
                leading.append(cell)
                lowest = best
        return leading

    def _offer(self, circuit: Circuit, *, exact_start: bool = False) -> _Member | None:
        found = self.meter.evaluate(circuit, self.rng, exact_start=exact_start, tidy=True)
        member = self._member(found)
        improved = self._insert(member)
        if improved:
            self._prune(member)
        return member if improved else None

    def _cell(self, member: _Member) -> list[_Member]:
        return self.cells.get(member.circuit.two_qubit_gates, [])

    def _insert(self, member: _Member) -> bool:
        """Put a member into its cell; returns whether it leads there."""
        cell = self.cells.setdefault(member.circuit.two_qubit_gates, [])
        # rz costs nothing on a device, so that native circuits with idle ones are as good but for what is left to find.
        tolerance = 1e-12 + (1e-6 if self.search.alphabet.native is None else 1e-4) * abs(member.error)
        key, leader = member.circuit.key, cell[0] if cell else member
        for held in cell:
            shorter = len(held.circuit) < len(member.circuit) + (self.guide is None)
            same_energy = abs(held.error - member.error) <= tolerance and shorter
            if same_energy or (held.circuit.key == key and held.error <= member.error):
                return False
        cell[:] = [
            held
            for held in cell
            if held.circuit.key != key
            and not (abs(held.error - member.error) <= tolerance and len(held.circuit) >= len(member.circuit))
        ]
        cell.append(member)
        cell.sort(key=lambda m: m.error)
        del cell[self.population :]
        drifted = abs(leader.error - member.error) <= tolerance and len(leader.circuit) == len(member.circuit)
        return cell[0] is member and not (leader is not member and drifted)

    def _prune(self, member: _Member) -> None:
        """Remove gates while that costs almost nothing; every shorter circuit is offered to the front on its way."""
        current = member
        for _ in range(len(member.circuit)):
            best: _Member | None = None
            with closing(self._deletions(current)) as results:
                for found in results:
                    self.drawn.settle()
                    candidate = self._member(found)
                    if candidate.error <= current.error + 1e-10 + 0.01 * abs(current.error):
                        best = candidate
                        break
                    self._insert(candidate)
            self.drawn.rewind()
            if best is None:
                return
            self._insert(best)
            current = best

    def _deletions(self, member: _Member) -> Generator[Evaluation, None, None]:
        """What is left of a circuit without one of its gates: the cheapest few, or all in random order."""

        def shorter() -> Iterator[_Start]:
            self.drawn.mark()
            for index in order:
                less = self.search.simplify(edited(circuit, {int(index)}, (), native=native))
                yield less, member.inherited(less)
                self.drawn.mark()

        circuit, native = member.circuit, self.search.alphabet.native is not None
        if self.guide is None:
            order = self.rng.permutation(len(circuit))
        else:
            order = np.argsort(self._removal(self.guide, member), kind="stable")[:_PRUNED]
            self._pay(member, ("removal",))
        return self._judged(shorter(), max_evaluations=60)

    def _judged(
        self, starts: Iterator[_Start], max_evaluations: int | None = None
    ) -> Generator[Evaluation, None, None]:
        """Evaluations of circuits of which the first that is good makes those behind it void."""
        known: deque[np.ndarray | None] = deque()

        def circuits() -> Iterator[Circuit]:
            for circuit, inverse in starts:
                known.append(inverse)
                yield circuit

        size = 1 << self.search.problem.n_qubits * (1 if self.search.noise is None else 2)
        workers = worker_count() if size >= _WORTH_IT else 1
        return self.meter.evaluate_many(
            circuits(),
            self.rng,
            max_evaluations=max_evaluations,
            exact_start=self.guide is not None,
            inverse_hessians=(known.popleft() for _ in itertools.count()),
            tidy=True,
            workers=workers,
            ahead=workers + 1,
        )

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        cells = [
            [two, [[m.circuit.to_list(), m.error, m.costs, m.paid, m.curvature is not None] for m in members]]
            for two, members in self.cells.items()
        ]
        known = [m.curvature.packed for members in self.cells.values() for m in members if m.curvature is not None]
        state = {"rng": self.drawn.state, "cells": cells, "tried": self.tried, "refused": self.refused}
        arrays = {"curvatures": np.concatenate(known)} if known else {}
        if self.growth is not None:
            state["growth"], more = self.growth.state()
            state["until"] = self.until
            arrays |= more
        if self.rehearsal is not None:
            state["rehearsal"], more = self.rehearsal.state()
            arrays |= {f"rehearsal.{name}": array for name, array in more.items()}
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        n = self.search.problem.n_qubits
        if self.rehearsal is not None and "rehearsal" in state:
            within = conform(state["rehearsal"], EvolutionState, "the checkpoint")
            self.rehearsal.restore(within, part_of(arrays, "rehearsal"))
        else:
            self.rehearsal = None
        self.rng = restore_rng(state["rng"])
        self.drawn = DrawnAhead(self.rng)
        self.cells, rest = {}, arrays.get("curvatures", np.empty(0, dtype=np.float32))
        for two, members in state["cells"]:
            self.cells[two] = []
            for gates, error, costs, paid, known in members:
                member = _Member(Circuit(n, gates), error, costs, paid)
                if known:
                    size = member.circuit.n_angles * (member.circuit.n_angles + 1) // 2
                    member.curvature, rest = Curvature(rest[:size]), rest[size:]
                self.cells[two].append(member)
        self.tried = {str(k): int(v) for k, v in state["tried"].items()}
        self.refused = int(state["refused"])
        if self.growth is not None and "growth" in state:
            self.growth.restore(state["growth"], arrays)
            self.until = state["until"]
        else:
            self.growth = None
