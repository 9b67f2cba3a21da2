"""Edits of a circuit as a table of fixed size: what could be inserted, left out or tried again, and what speaks for it.

Every number in the table is dimensionless and belongs to one edit alone, and none depends on how qubits are numbered,
on the exact energy, or on the size of the register, so that what is learned on one problem can be asked on another.
Energies are divided by `Bench.scale`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.gates import gate_spec
from qas.guidance import Block, Curvature, Guide, Place, Study, edited, fan_string, gates_of
from qas.hamiltonians import Hamiltonian
from qas.noise import infidelity
from qas.problems import Problem
from qas.simulators import make_simulator
from qas.simulators.insertions import pauli_generators, wrapped
from qas.vqe import CircuitEvaluator

FEATURE_VERSION = 1
"""Rises whenever a column changes its place or its meaning: a policy fits tables of its own version only."""

KINDS = ("rotation", "entangler", "excitation", "deletion", "optimise", "shake", "undo", "stop")
"""Kinds of edits: rotations on one qubit, rotations with two-qubit gates, and excitations are inserted; gates are left
out; all angles are optimised further, or again from angles with noise on them; the last edit is taken back; the episode
ends."""

NUMBERS = {
    "gain": "energy that the inserted rotations would win one by one, the other angles held",
    "log_gain": "how many powers of ten the gain is above 1e-6, divided by 6; 0: not above",
    "log_gain_per_gate": "the same of the gain for each two-qubit gate",
    "rank": "1 for the largest gain or smallest cost of its kind, 1/2 for the next, 1/3, …",
    "slope": "root of the summed squared slopes at angle 0",
    "curvature": "mean second derivative at angle 0",
    "step": "largest first angle, share of a half turn",
    "exact": "1 where gain or cost is that of energies; 0 where the curvature is a guess",
    "cost": "energy that leaving out is estimated to cost",
    "log_cost": "as log_gain, of the cost",
    "angle": "largest angle left out, share of a half turn",
    "two_qubit_gates": "how many more there will be, quarters",
    "gates": "how many more there will be, eighths",
    "angles": "how many more there will be, quarters",
    "qubits": "how many are acted on, quarters",
    "position": "share of the gates that stand before it",
    "level": "share of the circuit's depth that lies before it on its qubits",
    "first": "1 before all gates",
    "last": "1 behind all gates",
    "age": "edits since the youngest gate left out was inserted, as x / (x + 8)",
    "tried": "edits of this kind at this place since the circuit was last better, as x / (x + 1)",
    "bloch": "mean squared length of its qubits' Bloch vectors",
    "z": "mean <Z> of its qubits",
    "correlation": "mean over its pairs of a third of the summed squares of connected correlations",
    "weight": "mean over its qubits of the share of the Hamiltonian's weight that acts on them",
    "coupling": "mean over its pairs of the share of the weight on each of the two that acts on both",
    "local_energy": "energy of the terms on all its qubits, share of their weight",
    "error": "infidelity of the gates inserted or left out, per cent",
    "used": "mean over its pairs of their share of the circuit's two-qubit gates",
}  # fmt: skip
"""Column behind the kinds -> what it holds; 0 where it says nothing of an edit."""

FEATURES = (*KINDS, *NUMBERS)
"""Names of the columns of a table: `KINDS` (1 for the row's own), then `NUMBERS`."""

GENERAL_NUMBERS = {
    "won": "energy below that of the start",
    "above_best": "energy above the lowest of the episode",
    "last": "energy that the last edit won",
    "since": "edits since the energy was last the lowest, as x / (x + 8)",
    "edits_left": "share of the edits",
    "two_qubit_gates": "share of the most that there may be",
    "best_two_qubit_gates": "the same, of the circuit of lowest energy",
    "density": "two-qubit gates for each qubit, as x / (x + 4)",
    "angles": "angles for each qubit, as x / (x + 8)",
    "depth": "as x / (x + 32)",
    "qubits": "tenths",
    "slope": "root of the summed squared slopes of the rotations in the table",
    "log_gain": "as of the best insertion",
    "log_cost": "as of the cheapest deletion",
    "bloch": "mean squared length of all Bloch vectors",
    "correlation": "mean over all pairs, as of a row",
    "evaluations": "evaluations of the last edit, share of the most",
    "noise": "1 on a noisy device",
    "error": "mean infidelity of its two-qubit gates, per cent",
    "native": "1 where circuits consist of a device's own gates",
}  # fmt: skip
"""Number about the whole circuit -> what it is; energies are divided by the scale."""

GENERAL = tuple(GENERAL_NUMBERS)
"""Names of the numbers about the whole circuit."""

BOUND = 10.0
"""Features lie between -BOUND and BOUND."""

_COLUMN = {name: k for k, name in enumerate(FEATURES)}
_FARTHEST = 0.5
"""Largest first angle of a rotation whose curvature is a guess, radians."""
_FLAT = 1e-9
"""Swings of the energy below this, of the scale, are rounding errors."""
_ALIKE = 2
"""Places of one block that are listed before others get a row."""
_RUN = 5
"""Native gates on one qubit between two of two, at most."""


# ---------------------------------------------------------------------- where circuits are edited
class Bench:
    """All that edits of circuits on one problem need and that does not depend on the circuit.

    Args:
        evaluator: judges circuits; where it counts (a `qas.meter.Meter`), all that is looked at is counted too.
        alphabet: gates that circuits may have.

    Raises:
        QasError: no exact energies of a Hamiltonian on a compiled engine, or no rotations.
    """

    def __init__(self, evaluator: CircuitEvaluator, alphabet: Alphabet) -> None:
        guide = Guide.fitting(alphabet, evaluator)
        problem = evaluator.problem
        if guide is None or not isinstance(problem, Problem):
            raise QasError(
                "circuits are edited by exact slopes: that needs a Hamiltonian, a compiled engine without shots, and "
                f"rotations among the gates, got {problem.name} with {', '.join(alphabet.gates)}"
            )
        self.evaluator, self.alphabet, self.problem, self.guide = evaluator, alphabet, problem, guide
        self.n_qubits = problem.n_qubits
        self.scale = scale_of(problem.hamiltonian)
        """What energies are divided by; see `scale_of`."""
        self.strings = list(problem.hamiltonian.strings)
        self._state = make_simulator()
        self._turning: dict[str | Hamiltonian, np.ndarray] = {}
        self._on_all: dict[tuple[int, ...], tuple[np.ndarray, float]] = {}
        self._measured = Hamiltonian(dict.fromkeys([*self.strings, *pauli_generators(self.n_qubits)], 1.0))
        self._places = {string: k for k, string in enumerate(self._measured.strings)}

    def spend(self, evaluations: int) -> None:
        """Count evaluations where the evaluator counts."""
        spend = getattr(self.evaluator, "spend_each", None)
        if spend is not None:
            spend(evaluations)

    def expectations(self, circuit: Circuit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Without noise: of the Hamiltonian's strings; of X, Y, Z of each qubit; of their products for each two.

        Returns:
            float64, shapes (terms,), (qubits, 3) and (qubits, qubits, 3, 3), the last one 0 for a qubit with itself.
        """
        values = np.append(self._state.term_expectations(circuit, self._measured), 0.0)
        return values[self._own], values[self._alone], values[self._both]

    @cached_property
    def _own(self) -> np.ndarray:
        return np.array([self._places[s] for s in self.strings])

    @cached_property
    def _alone(self) -> np.ndarray:
        n = self.n_qubits
        return np.array([[self._places[_string(n, {q: a})] for a in "XYZ"] for q in range(n)])

    @cached_property
    def _both(self) -> np.ndarray:
        n = self.n_qubits
        found = np.full((n, n, 3, 3), len(self._places))
        for a, b in itertools.permutations(range(n), 2):
            found[a, b] = [[self._places[_string(n, {a: p, b: q})] for q in "XYZ"] for p in "XYZ"]
        return found

    @cached_property
    def touched(self) -> np.ndarray:
        """Which terms act on which qubits, float64, shape (terms, qubits)."""
        return np.array([[letter != "I" for letter in reversed(s)] for s in self.strings], dtype=np.float64)

    @cached_property
    def weights(self) -> np.ndarray:
        """Summed |coefficients| of the terms on both qubits of a pair, and on each qubit, shape (qubits, qubits)."""
        return self.touched.T @ (np.abs(self.problem.hamiltonian.coefficients)[:, None] * self.touched)

    @cached_property
    def coupling(self) -> np.ndarray:
        """Weight on both qubits of a pair, over the geometric mean of the weights on each, shape (qubits, qubits)."""
        alone = np.sqrt(self.weights.diagonal())
        return self.weights / np.maximum(np.outer(alone, alone), 1e-300)

    @cached_property
    def total(self) -> float:
        """Summed |coefficients| of all terms but the identity."""
        return max(self.problem.spread / 2, 1e-300)

    def on_all(self, qubits: tuple[int, ...]) -> tuple[np.ndarray, float]:
        """Positions of the terms that act on all of some qubits, and their summed |coefficients|."""
        if qubits not in self._on_all:
            terms = np.flatnonzero(self.touched[:, list(qubits)].all(axis=1))
            self._on_all[qubits] = terms, float(np.abs(self.problem.hamiltonian.coefficients)[terms].sum())
        return self._on_all[qubits]

    @cached_property
    def turning(self) -> np.ndarray:
        """Matrix that makes curvatures of appended rotations about the guide's generators of energies of terms."""
        return np.array([self.turning_about(generator) for generator in self.guide.generators])

    def turning_about(self, generator: str | Hamiltonian) -> np.ndarray:
        """A row of `turning`: a rotation by a half turn about a string flips the sign of terms that anticommute."""
        if generator not in self._turning:
            terms = {generator: 1.0} if isinstance(generator, str) else generator.terms
            row = np.zeros(len(self.strings))
            for string, weight in terms.items():
                row -= weight**2 * np.array([_anticommute(string, other) for other in self.strings])
            self._turning[generator] = row
        return self._turning[generator]

    @cached_property
    def errors(self) -> np.ndarray:
        """Infidelity of a two-qubit gate of each pair, and of a rotation of each qubit, shape (qubits, qubits)."""
        found = np.full((self.n_qubits, self.n_qubits), math.inf)
        noise = self.evaluator.noise
        for gate in self.alphabet.placed if noise is not None else ():
            if len(gate.qubits) <= 2 and gate.name not in ("rz", "x"):
                lost = infidelity(noise.channel(gate.name, gate.qubits))  # type: ignore[union-attr]
                for a, b in ((gate.qubits[0], gate.qubits[-1]), (gate.qubits[-1], gate.qubits[0])):
                    found[a, b] = min(found[a, b], lost)
        return np.where(np.isfinite(found), found, 0.0)

    @cached_property
    def mean_error(self) -> float:
        """Mean infidelity of two-qubit gates."""
        pairs = self.errors[~np.eye(self.n_qubits, dtype=bool)]
        return float(pairs[pairs > 0].mean()) if (pairs > 0).any() else 0.0


def scale_of(hamiltonian: Hamiltonian) -> float:
    """What energies are measured by: the root of the summed squares of the coefficients that are not diagonal.

    That is the energy's mean standard deviation over basis states, which is known without solving anything and grows
    with what basis states miss; for a diagonal operator it is the same of all coefficients but the identity's.
    """
    terms = [(s, c) for s, c in hamiltonian.terms.items() if set(s) != {"I"}]
    for chosen in ([c for s, c in terms if set(s) & set("XY")], [c for _, c in terms]):
        found = math.sqrt(sum(c * c for c in chosen))
        if found > 0.0:
            return found
    return 1.0


def _anticommute(first: str, second: str) -> bool:
    return sum(a != "I" != b and a != b for a, b in zip(first, second, strict=True)) % 2 == 1


# ---------------------------------------------------------------------- a circuit on it
class Draft(NamedTuple):
    """A circuit with what is known of it."""

    circuit: Circuit
    energy: float
    curvature: Curvature | None
    ages: tuple[int, ...]
    """edits that each gate has lived through"""
    settled: bool = True
    """the optimisation ended before its limit"""


@dataclass(frozen=True)
class Edit:
    """One row of a table."""

    kind: str
    key: str
    """what it is tried under: the same for the same edit of circuits that resemble each other"""
    place: Place | None = None
    """of an insertion"""
    angles: tuple[float, ...] = ()
    """first ones of its rotations, radians"""
    deleted: frozenset[int] = frozenset()
    """positions of gates that are left out"""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def applied(self, bench: Bench, circuit: Circuit, rng: np.random.Generator) -> Circuit:
        """The circuit after an insertion or deletion, its gates as they were; one way of several is drawn."""
        inserted: list[tuple[int, tuple[Gate, ...]]] = []
        if self.place is not None:
            ways = self.place.block.ways
            inserted = [(self.place.position, gates_of(ways[int(rng.integers(len(ways)))], self.angles))]
        return edited(circuit, self.deleted, inserted, native=bench.guide.native)


class Table(NamedTuple):
    """The edits of one circuit."""

    edits: tuple[Edit | None, ...]
    """one for each row; None: the row is empty"""
    features: np.ndarray  # float32 (rows, FEATURES)
    evaluations: int
    """what it took to make it"""
    bloch: float
    """mean squared length of all Bloch vectors"""
    correlation: float
    """mean over all pairs, as of a row"""

    @property
    def mask(self) -> np.ndarray:
        """Which rows hold an edit, bool, shape (rows,)."""
        return np.array([edit is not None for edit in self.edits])

    def largest(self, column: str) -> float:
        return float(self.features[:, _COLUMN[column]].max(initial=0.0))


class Limits(NamedTuple):
    """What circuits may grow to."""

    two_qubit_gates: int
    gates: int


def tabulated(
    bench: Bench,
    draft: Draft,
    rows: int,
    limits: Limits,
    *,
    probes: int = 0,
    undo: bool = False,
    tried: Mapping[str, int] | None = None,
) -> Table:
    """The table of a circuit: some insertions, the cheapest deletions, and what can be done without either.

    It takes a sweep of slopes, one more at each end where qubits are still in |0⟩, and one measurement of all terms.

    Args:
        bench: where.
        draft: the circuit.
        rows: of the table, at least 8: a quarter for deletions, a quarter for rotations on one qubit, the last four for
            optimising, shaking, taking back and stopping, the others for what brings two-qubit gates.
        limits: insertions beyond them are not listed; others take their rows.
        probes: insertions, the most promising ones first, whose curvature is made exact by one energy for each of their
            strings; and as many gates without angles, the oldest first, whose deletion is.
        undo: there is an edit to take back.
        tried: how often edits were tried, by their keys.
    """
    view = _View(bench, draft)
    study = bench.guide.study(draft.circuit)
    deletions, spent = _deletions(view, rows // 4, probes)
    fewer = rows // 4 - len(deletions)
    room = rows - len(KINDS[4:]) - rows // 4 + fewer
    insertions = _insertions(view, study, room, limits)
    insertions, more = _probed(view, insertions, probes, limits)
    moves: list[Edit | None] = [None] * (room - len(insertions))
    moves += [Edit("optimise", "optimise") if draft.circuit.n_angles and not draft.settled else None]
    moves += [Edit("shake", "shake") if draft.circuit.n_angles else None]
    moves += [Edit("undo", "undo") if undo else None, Edit("stop", "stop")]
    edits = (*_ranked(insertions, "gain", -1), *_ranked(deletions, "cost", 1), *moves)
    counted = study.evaluations + 1 + spent + more
    correlation = _over_pairs(view.correlation, range(bench.n_qubits))
    return Table(edits, _features(edits, tried or {}), counted, float(view.bloch.mean()), correlation)


# ---------------------------------------------------------------------- insertions
def _insertions(view: _View, study: Study, room: int, limits: Limits) -> list[Edit]:
    """The most promising ones that fit: up to a third on one qubit, and those with two-qubit gates."""
    free_two = limits.two_qubit_gates - view.circuit.two_qubit_gates
    free = limits.gates - len(view.circuit)

    def fits(block: Block) -> bool:
        way = block.ways[0]
        gates = 0 if view.bench.guide.native else len(way) + 2 * len(way[0].before)
        return block.two_qubit_gates <= free_two and gates <= free

    def fitting(places: Sequence[Place]) -> Iterator[Edit]:
        too_long = 0
        for place in _varied(place for place in places if fits(place.block)):
            edit = _insertion(view, place)
            if _short(view, edit, limits):
                yield edit
            else:
                # Writing them takes time, and where there is hardly any room left none may be short enough.
                too_long += 1
                if too_long == room:
                    return

    local, entangling = fitting(study.local.found), fitting(study.entangling.found)
    turns = list(itertools.islice(local, room // 3))
    others = list(itertools.islice(entangling, room - len(turns)))
    turns += itertools.islice(local, room - len(turns) - len(others))
    return [*turns, *others]


def _varied(places: Iterable[Place]) -> Iterator[Place]:
    """All of them, those of a block beyond the first `_ALIKE` behind all others."""
    times: dict[int, int] = {}
    left: list[Place] = []
    for place in places:
        block = id(place.block)
        times[block] = times.get(block, 0) + 1
        if times[block] <= _ALIKE:
            yield place
        else:
            left.append(place)
    yield from left


def _short(view: _View, edit: Edit, limits: Limits) -> bool:
    """In native gates: how many there are of them at the angles of an edit, only writing it tells."""
    bench, place = view.bench, edit.place
    if not bench.guide.native or place is None:
        return True
    two = place.block.two_qubit_gates
    if len(view.circuit) + two + _RUN * (len(_qubits(place.block.ways[0])) + 2 * two) <= limits.gates:
        return True
    written = (edited(view.circuit, (), [(place.position, gates_of(w, edit.angles))]) for w in place.block.ways)
    return all(len(bench.alphabet.simplified(circuit, bench.problem)) <= limits.gates for circuit in written)


def _insertion(view: _View, place: Place, curvatures: Sequence[float] | None = None) -> Edit:
    """An insertion with its gain, from exact slopes and, unless they are given, guessed curvatures."""
    way = place.block.ways[0]
    given = curvatures is not None
    known = curvatures if curvatures is not None else view.guessed(place)
    gates = len(way) + len(way[0].before) + len(way[0].after)
    flat = _FLAT * view.bench.scale
    pairs = [_lowest(slope, curvature, flat) for slope, curvature in zip(place.slopes, known, strict=True)]
    exact = given or (place.position == len(view.circuit) and all(gate_spec(i.rotation.name).axis for i in way))
    exact = exact and not view.bench.evaluator.noise
    angles = tuple(angle if exact else max(-_FARTHEST, min(_FARTHEST, angle)) for _, angle in pairs)
    gain = sum(gain for gain, _ in pairs) / view.bench.scale
    two = place.block.two_qubit_gates
    qubits = _qubits(way)
    rotation = gate_spec(way[0].rotation.name)
    kind = "excitation" if not rotation.primitive else "entangler" if two else "rotation"
    numbers = {
        "gain": gain,
        "log_gain": _decades(gain),
        "log_gain_per_gate": _decades(gain / max(1, two)),
        "slope": math.sqrt(sum(slope**2 for slope in place.slopes)) / view.bench.scale,
        "curvature": sum(known) / len(known) / view.bench.scale,
        "step": max(abs(angle) for angle in angles) / math.pi,
        "exact": float(exact),
        "two_qubit_gates": two / 4,
        "gates": gates / 8,
        "angles": len(place.slopes) / 4,
        "error": view.error(qubits, two, len(way)),
        **view.at(place.position),
        **view.around(qubits),
        "level": view.level(place.position, qubits),
    }
    key = f"{kind} {place.position} {way[0].rotation.name} {','.join(map(str, place.block.columns))} {sorted(qubits)}"
    return Edit(kind, key, place=place, angles=angles, numbers=numbers)


def _lowest(slope: float, curvature: float, flat: float) -> tuple[float, float]:
    """(gain, angle) of the minimum of slope sin θ + curvature (1 - cos θ); (0, 0) where that stays within `flat`."""
    swing = math.hypot(slope, curvature)
    if swing <= flat:
        return 0.0, 0.0
    gain = slope * slope / (swing + curvature) if curvature > 0.0 else swing - curvature
    return gain, math.atan2(-slope, curvature)


def _probed(view: _View, insertions: list[Edit], probes: int, limits: Limits) -> tuple[list[Edit], int]:
    """Insertions with exact curvatures: half of what a half turn about each string alone costs.

    One that is too long at the angles found with them is left out.
    """
    guide, circuit = view.bench.guide, view.circuit
    open_ones = [
        (k, edit.place)
        for k, edit in sorted(enumerate(insertions), key=lambda each: -each[1].numbers["log_gain_per_gate"])
        if edit.place is not None and not edit.numbers["exact"] and edit.kind != "excitation"
    ][:probes]
    turned = [
        edited(circuit, (), [(place.position, gates_of(place.block.ways[0], _half_turn(place, which)))])
        for _, place in open_ones
        for which in range(len(place.slopes))
    ]
    if not turned:
        return insertions, 0
    energies = guide.simulator.expectation_many([circuit, *turned], guide.hamiltonian, workers=1)
    rises = iter(((energies[1:] - energies[0]) / 2).tolist())
    exact = {k: _insertion(view, place, [next(rises) for _ in place.slopes]) for k, place in open_ones}
    found = [exact.get(k, edit) for k, edit in enumerate(insertions)]
    return [edit for k, edit in enumerate(found) if k not in exact or _short(view, edit, limits)], len(turned)


def _half_turn(place: Place, which: int) -> list[float]:
    return [math.pi if k == which else 0.0 for k in range(len(place.slopes))]


# ---------------------------------------------------------------------- deletions
def _deletions(view: _View, room: int, probes: int) -> tuple[list[Edit], int]:
    """The cheapest ones: single gates, all rotations between two equal two-qubit gates, and gates without angles."""
    circuit, guide = view.circuit, view.bench.guide
    costs = guide.angle_costs(circuit, view.inverse_hessian)
    fixed = [k for k, cost in enumerate(costs) if cost is None]
    oldest = sorted(fixed, key=lambda k: (-view.ages[k], k))
    probed = set(oldest[:probes])
    known = [math.inf if cost is None and k not in probed else cost for k, cost in enumerate(costs)]
    energies, spent = guide.deletion_costs(circuit, known) if probed else (known, 0)
    found = [(float(cost), frozenset([k])) for k, cost in enumerate(energies) if cost is not None and cost < 1e100]
    if not guide.native:
        found += [(view.joint_cost(inside), inside) for inside in view.sandwiched if len(inside) > 1]
    found.sort(key=lambda each: each[0])
    edits = [_deletion(view, gone, cost, exact=bool(gone & probed)) for cost, gone in found[:room]]
    unknown = [k for k in oldest if k not in probed][: room - len(edits)]
    edits += [_deletion(view, frozenset([k]), None) for k in unknown]
    return edits, spent


def sandwiched(circuit: Circuit) -> list[frozenset[int]]:
    """Positions of the rotations between two equal CX or CZ with nothing else between: without them both would go."""
    found = []
    for first, gate in enumerate(circuit):
        if gate.name not in ("cx", "cz"):
            continue
        inside: list[int] = []
        for k in range(first + 1, len(circuit)):
            other = circuit[k]
            if not set(other.qubits) & set(gate.qubits):
                continue
            if len(other.qubits) == 1 and other.angles:
                inside.append(k)
                continue
            if inside and (other.name, other.qubits) == (gate.name, gate.qubits):
                found.append(frozenset(inside))
            break
    return found


def _deletion(view: _View, deleted: frozenset[int], cost: float | None, *, exact: bool = False) -> Edit:
    gates = [view.circuit[k] for k in sorted(deleted)]
    qubits = frozenset(q for gate in gates for q in gate.qubits)
    two = view.freed(deleted)
    numbers = {
        "exact": float(exact),
        "angle": max((abs(math.remainder(x, 2 * math.pi)) for g in gates for x in g.angles), default=0.0) / math.pi,
        "two_qubit_gates": -two / 4,
        "gates": -(len(gates) + (two if gates[0].angles else 0)) / 8,
        "angles": -sum(len(gate.angles) for gate in gates) / 4,
        "age": _saturated(min(view.ages[k] for k in deleted), 8),
        "error": view.error(qubits, two, sum(len(g.qubits) == 1 for g in gates)),
        **view.at(min(deleted)),
        **view.around(qubits),
        "level": view.level(min(deleted), qubits),
    }
    if cost is not None:
        relative = max(cost, 0.0) / view.bench.scale
        numbers |= {"cost": relative, "log_cost": _decades(relative)}
    key = f"deletion {','.join(f'{g.name}-{g.qubits}' for g in gates)} {len(view.circuit) - min(deleted)}"
    return Edit("deletion", key, deleted=deleted, numbers=numbers)


# ---------------------------------------------------------------------- numbers
class _View:
    """What the features of all rows of one circuit share."""

    def __init__(self, bench: Bench, draft: Draft) -> None:
        self.bench, self.circuit, self.ages = bench, draft.circuit, draft.ages
        self.inverse_hessian = None if draft.curvature is None else draft.curvature.matrix()
        terms, bloch, both = bench.expectations(draft.circuit)
        self.energies = terms * bench.problem.hamiltonian.coefficients
        n = bench.n_qubits
        self.bloch, self.z = (bloch**2).sum(axis=1), bloch[:, 2]
        connected = both - bloch[:, None, :, None] * bloch[None, :, None, :]
        self.correlation = (connected**2).sum(axis=(2, 3)) / 3
        np.fill_diagonal(self.correlation, 0.0)
        self._known: dict[tuple[int, ...], dict[str, float]] = {}
        self.pairs = np.zeros((n, n))
        for gate in draft.circuit:
            for a in gate.qubits:
                for b in gate.qubits:
                    self.pairs[a, b] += a != b
        self.depth = max(1, draft.circuit.depth)
        self.levels = _levels(draft.circuit)

    @cached_property
    def curvatures(self) -> np.ndarray:
        """Of rotations about the guide's generators, appended; exact for those of one string."""
        return self.bench.turning @ self.energies

    def guessed(self, place: Place) -> list[float]:
        """Curvatures of a block: those it would have at the end."""
        firsts = [way[0] for way in place.block.ways]
        if len(firsts[0].before) < 2:
            return [float(self.curvatures[column]) for column in place.block.columns]
        # A fan: its strings are none of the guide's generators, and there is one for each head.
        found = []
        for fan in firsts:
            found.append(self.bench.turning_about(fan_string(self.bench.n_qubits, fan)) @ self.energies)
        return [float(np.mean(found))]

    def joint_cost(self, deleted: Iterable[int]) -> float:
        """Estimated rise of the energy when several angles go to 0 together and the others follow."""
        slots: list[int] = []
        first = 0
        for k, gate in enumerate(self.circuit):
            slots += range(first, first + len(gate.angles)) if k in deleted else ()
            first += len(gate.angles)
        angles = wrapped(self.circuit.angles[slots])
        if self.inverse_hessian is None:
            return float(angles @ angles) / 2
        block = self.inverse_hessian[np.ix_(slots, slots)]
        return float(angles @ np.linalg.lstsq(block, angles, rcond=None)[0]) / 2

    def freed(self, deleted: frozenset[int]) -> int:
        """Two-qubit gates that go with these gates, without looking further than to the next ones."""
        gone = sum(len(self.circuit[k].qubits) > 1 for k in deleted)
        return gone + (0 if gone or self.bench.guide.native else 2 * (deleted in self.sandwiched))

    @cached_property
    def sandwiched(self) -> list[frozenset[int]]:
        return sandwiched(self.circuit)

    def at(self, position: int) -> dict[str, float]:
        size = max(1, len(self.circuit))
        return {
            "position": position / size,
            "first": float(position == 0),
            "last": float(position == len(self.circuit)),
        }

    def level(self, position: int, qubits: Iterable[int]) -> float:
        return max(int(self.levels[position, q]) for q in qubits) / self.depth

    def error(self, qubits: Iterable[int], two_qubit_gates: int, turns: int) -> float:
        """Of so many two-qubit gates and rotations on these qubits, per cent."""
        if self.bench.evaluator.noise is None:
            return 0.0
        chosen, errors = sorted(qubits), self.bench.errors
        return 100 * (_over_pairs(errors, chosen) * two_qubit_gates + float(errors[chosen, chosen].mean()) * turns)

    def around(self, qubits: Iterable[int]) -> dict[str, float]:
        """What is known of these qubits."""
        chosen = tuple(sorted(qubits))
        if chosen not in self._known:
            self._known[chosen] = self._around(list(chosen))
        return self._known[chosen]

    def _around(self, chosen: list[int]) -> dict[str, float]:
        bench = self.bench
        on_all, weight = bench.on_all(tuple(chosen))
        return {
            "qubits": len(chosen) / 4,
            "bloch": float(self.bloch[chosen].mean()),
            "z": float(self.z[chosen].mean()),
            "correlation": _over_pairs(self.correlation, chosen),
            "weight": float(bench.weights[chosen, chosen].mean()) / bench.total,
            "coupling": _over_pairs(bench.coupling, chosen),
            "local_energy": float(self.energies[on_all].sum()) / weight if weight else 0.0,
            "used": _over_pairs(self.pairs, chosen) / max(1, self.circuit.two_qubit_gates),
        }


def _over_pairs(matrix: np.ndarray, chosen: Sequence[int]) -> float:
    """Mean of the entries of the pairs of some qubits; 0 for one alone."""
    count = len(chosen)
    if count < 2:
        return 0.0
    if count == 2:
        return float(matrix[chosen[0], chosen[1]])
    part = matrix[np.ix_(chosen, chosen)]
    return float(part.sum() - part.trace()) / (count * (count - 1))


def _levels(circuit: Circuit) -> np.ndarray:
    """Depth that lies before each position on each qubit, int64, shape (positions, qubits)."""
    now = [0] * circuit.n_qubits
    rows = [tuple(now)]
    for gate in circuit:
        depth = 1 + max(now[q] for q in gate.qubits)
        for q in gate.qubits:
            now[q] = depth
        rows.append(tuple(now))
    return np.array(rows, dtype=np.int64)


def _qubits(way: tuple[Any, ...]) -> frozenset[int]:
    return frozenset(q for i in way for gate in (*i.before, i.rotation, *i.after) for q in gate.qubits)


def _string(n_qubits: int, letters: Mapping[int, str]) -> str:
    return "".join(letters.get(q, "I") for q in reversed(range(n_qubits)))


def _decades(value: float) -> float:
    return max(0.0, 6 + math.log10(max(value, 1e-300))) / 6


def _saturated(count: float, half: float) -> float:
    return count / (count + half)


def _ranked(edits: Sequence[Edit], by: str, sign: int) -> list[Edit]:
    """Edits with their rank among those of their kind; equal ones have the same rank."""
    found = []
    for edit in edits:
        others = [e.numbers[by] for e in edits if e.kind == edit.kind and by in e.numbers]
        own = edit.numbers.get(by)
        better = 0 if own is None else sum(sign * (own - other) > 1e-6 * abs(own) for other in others)
        found.append(replace(edit, numbers={**edit.numbers, "rank": 0.0 if own is None else 1 / (1 + better)}))
    return found


def _features(edits: Sequence[Edit | None], tried: Mapping[str, int]) -> np.ndarray:
    found = np.zeros((len(edits), len(FEATURES)), dtype=np.float32)
    for row, edit in zip(found, edits, strict=True):
        if edit is None:
            continue
        row[_COLUMN[edit.kind]] = 1.0
        row[_COLUMN["tried"]] = _saturated(tried.get(edit.key, 0), 1)
        for name, value in edit.numbers.items():
            row[_COLUMN[name]] = min(BOUND, max(-BOUND, value))
    return found
