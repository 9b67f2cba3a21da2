"""Agents that search among the circuits of a pool, seen as points: the second leg of architecture search.

A *searcher* (`qas.agents.pool.searchers`) chooses among points and knows nothing of circuits; the agent optimizes the
angles of what it chose and tells it the energy.
"""

from __future__ import annotations

import abc
import hashlib
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

import numpy as np

from qas.agents.base import Agent, DrawnAhead, Search, restore_rng
from qas.agents.pool.candidates import Rules, encoder_for, one_of_each
from qas.agents.pool.searchers import KnnSearcher, PoolSearcher
from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.encoders.pools.points import CircuitFeatures
from qas.encoders.pools.pool import TabularProblem
from qas.encoders.pools.reduction import reduce_rows
from qas.encoders.pools.screens import screen as screened
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import QasError
from qas.estimates import affordable
from qas.files import part_of
from qas.problems import BaseProblem
from qas.schema import Count, Positive, RngState
from qas.vqe import Evaluation

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

POOL_SIZE = 10_000
"""Circuits drawn where no pool is given."""
_MANY, _FEW = 20_000, 256
"""Candidates from which on the cost of points is estimated, by that of a few."""

_last_points: dict[Any, tuple[CircuitFeatures, np.ndarray]] = {}


class _SearcherState(TypedDict):
    searcher: str
    rng: RngState
    n_screen: NotRequired[Count]
    n_fit: NotRequired[Count]
    blocks: NotRequired[list[Count]]
    baseline: NotRequired[float]
    next_batch: NotRequired[Positive]
    last: NotRequired[int]
    start: NotRequired[int]
    batch: NotRequired[list[Count]]
    rewards: NotRequired[list[tuple[Count, float]]]


class _State(TypedDict):
    rng: RngState
    asked: list[Count]
    values: list[float]
    searcher: _SearcherState
    encoder: str | None
    candidates: str
    bo: NotRequired[str]


class PoolAgent(Agent):
    """Evaluates circuits that a searcher chooses from a pool.

    Circuits with equal reduced forms (`qas.encoders.pools.reduction`) make equal states and so reach equal energies
    without noise; of these only the one with the fewest gates is a candidate. Where a problem judges whole matrices,
    all are. A labelled pool (`TabularProblem`) brings its candidates along, every one of them.

    Args:
        encoder: a folder, or the name of a shipped encoder; default the shipped one for the problem's qubits.
        pool: a pool folder whose circuits are the candidates; default: circuits drawn from the encoder's space.
        pool_size: how many are drawn.
        screen: a name of `qas.encoders.pools.SCREENS`; only the best circuits by that proxy are candidates. Its own
            work is done before the clock starts and counts as no evaluations; ``fluctuation`` looks at the problem's
            energy.
        screen_keep: share of the candidates that a screen keeps.
        features: what the searcher looks at, a name of `qas.encoders.pools.POINTS`; default ``"structure"`` up
            to 5 qubits and ``"reduced"`` beyond, which found most on labelled pools (``results/unsupervised``). They
            see of a circuit only the states it makes: where a problem judges whole matrices it is ``"latent"``.
        starts: optimizations of each circuit, from random angles; the best counts.
    """

    chooses: ClassVar[bool] = True
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        encoder: str | None = None,
        pool: str | None = None,
        pool_size: int = POOL_SIZE,
        screen: str | None = None,
        screen_keep: float = 0.2,
        features: str | None = None,
        starts: int = 1,
    ) -> None:
        self.encoder, self.pool, self.screen, self.features = encoder, pool, screen, features
        self.pool_size, self.starts = whole_number("pool_size", pool_size, 2), whole_number("starts", starts)
        self.screen_keep = finite_number("screen_keep", screen_keep, above=0)
        if self.screen_keep > 1:
            raise QasError(f"screen_keep lies above 0 and at most at 1, got {screen_keep}")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return super().example() | {"options": {"pool_size": 100}}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.drawn = DrawnAhead(self.rng)
        problem, alphabet = search.problem, search.alphabet
        self.table = problem if isinstance(problem, TabularProblem) else None
        """Where circuits are looked up instead of optimized."""
        if self.table is not None and self.pool is not None:
            raise QasError(f"{problem.name} is a pool already: leave out the pool {self.pool}")
        self.trained: TrainedEncoder | None = None
        if self.needs_encoder(problem):
            self.trained = encoder_for(self.encoder, problem.n_qubits)
        self.space = self.circuit_space()
        self.rules = Rules(self.space, alphabet, search.max_gates)
        self.rows = self._screened(self._rows())
        self._digest = hashlib.sha256(np.ascontiguousarray(self.rows).tobytes()).hexdigest()
        self.points_of, self.points = self._points()
        """Rows -> points; and the points of all candidates."""
        self.searcher = self.new_searcher()
        self.asked = np.empty(0, dtype=np.int64)
        """Which candidates the batch is made of."""
        self.held_elsewhere: list[int] = []
        """Candidates that other runs evaluate now."""
        self.current = self.rows[:0]
        """The batch being evaluated, rows."""
        self.values: list[float] = []

    def needs_encoder(self, problem: BaseProblem) -> bool:
        """Whether an encoder says what the circuits are, or looks at them."""
        return self.encoder is not None or self.features in ("latent", "all") or not isinstance(problem, TabularProblem)

    def circuit_space(self) -> CircuitSpace:
        """The space of the circuits: the labelled pool's, or the encoder's."""
        known = self.trained if self.table is None else self.table
        assert known is not None
        return known.space

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        if isinstance(problem, TabularProblem) or not self.needs_encoder(problem):
            return {}
        space = encoder_for(self.encoder, problem.n_qubits).space
        return {"gates": list(space.gates), "max_gates": space.max_gates}

    # ------------------------------------------------------------------ candidates and their points
    def _rows(self) -> np.ndarray:
        problem = self.search.problem
        if self.table is not None:
            return self.table.rows[self.rules.permitted(self.table.rows)]
        found = self.rules.of_pool(self.pool) if self.pool is not None else None
        rows = self.rules.draw(self.pool_size, self.search.rng(2)) if found is None else found
        return (
            rows if problem.whole_matrix else rows[one_of_each(rows, self.space, noisy=self.search.noise is not None)]
        )

    def _screened(self, rows: np.ndarray) -> np.ndarray:
        if self.screen is None:
            return rows
        kept = screened(self.screen, rows, self.space, self.search.problem, self.search.rng(3), self.screen_keep)
        return rows[np.sort(kept)]

    def _points(self) -> tuple[CircuitFeatures, np.ndarray]:
        name = self.features
        if name is None:
            of_states = "structure" if self.space.n_qubits <= 5 else "reduced"
            name = "latent" if self.search.problem.whole_matrix else of_states
        key = (name, self.space, self._digest, None if self.trained is None else self.trained.fingerprint)
        if key not in _last_points:  # a study of many seeds on one pool makes its points once
            features = CircuitFeatures(name, self.space, self.trained).fit(self.rows)
            self._check_cost(features)
            _last_points.clear()
            _last_points[key] = features, features(self.rows)
        return _last_points[key]

    def _check_cost(self, features: CircuitFeatures) -> None:
        """Refuse more candidates than points can be made for, by the time and memory of a few."""
        count = len(self.rows)
        if count > _MANY:
            begin = time.perf_counter()
            each = features(self.rows[:_FEW]).nbytes / _FEW
            seconds = (time.perf_counter() - begin) / _FEW
            affordable(f"the points of {count} circuits take", memory=2 * each * count, seconds=seconds * count)

    def forms(self, rows: np.ndarray) -> np.ndarray:
        """Rows of tokens, equal where circuits reach equal energies without noise, whatever the problem looks at."""
        return rows if self.search.problem.whole_matrix else reduce_rows(rows, self.space)

    def new_searcher(self) -> PoolSearcher:
        """A searcher that knows nothing yet."""
        # Labelled pools have been searched with the generator of the seed itself since the first published results.
        return self.make_searcher(self.points, self.search.rng(4 if self.table is None else 0))

    @abc.abstractmethod
    def make_searcher(self, points: np.ndarray, rng: np.random.Generator) -> PoolSearcher:
        """A searcher on the points of all candidates."""

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            if not len(self.current):
                self.current = self.propose()
                continue
            with closing(self.optimized(self.current[len(self.values) :])) as results:
                for found in results:
                    self.values.append(self.value(found))
                    if len(self.values) < len(self.current):
                        self.search.safe_point(self)
            self.learn(self.current, self.values)
            self.current, self.values = self.current[:0], []

    def propose(self) -> np.ndarray:
        """Rows to evaluate next, at least one."""
        self.asked = self.searcher.ask(self.held_elsewhere)
        if not len(self.asked) and self.held_elsewhere:
            self.asked = self.searcher.ask()  # they may be held for ever by runs that are no more
        if not len(self.asked):
            # Every candidate was evaluated: another round, from other angles.
            self.searcher = self.new_searcher()
            self.asked = self.searcher.ask()
        return self.rows[self.asked]

    def learn(self, rows: np.ndarray, values: list[float]) -> None:
        """Take in the values of the rows proposed last."""
        self.searcher.tell(self.asked, values)

    def value(self, found: Evaluation) -> float:
        """What the searcher maximizes."""
        return -found.energy

    def optimized(self, rows: np.ndarray) -> Generator[Evaluation, None, None]:
        """The best of `starts` optimizations for each row, or the label of one that has one."""
        circuits = self.circuits_of(rows)
        with closing(self.meter.evaluate_many(self._started(circuits), self.rng, exact_start=True)) as results:
            for circuit in circuits:
                trials = self._trials(circuit)
                best = next(results)
                for found in islice(results, trials - 1):
                    best = found if found.energy < best.energy else best
                self.drawn.settle()
                yield best

    def circuits_of(self, rows: np.ndarray) -> list[Circuit]:
        """The circuits whose angles are optimized for the last rows of the batch."""
        return [self.space.circuit(row) for row in rows]

    def start_angles(self, circuit: Circuit, trial: int) -> np.ndarray:
        """What an optimization starts from, radians: uniform angles."""
        return self.rng.uniform(-np.pi, np.pi, size=circuit.n_angles)

    def _trials(self, circuit: Circuit) -> int:
        return self.starts if self.table is None and circuit.n_angles else 1

    def _started(self, circuits: list[Circuit]) -> Iterator[Circuit]:
        """Each circuit with the angles to start from, as often as there are starts."""
        for circuit in circuits:
            self.drawn.mark()
            if self.table is not None:
                yield self.table.circuit(self.table.index(circuit))
                continue
            for trial in range(self._trials(circuit)):
                yield circuit.with_angles(self.start_angles(circuit, trial))

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = self.searcher.state()
        own = {
            "rng": self.drawn.state,
            "asked": self.asked.tolist(),
            "values": self.values,
            "searcher": state,
            "encoder": None if self.trained is None else self.trained.fingerprint,
            "candidates": self._digest,
        }
        return own, {f"searcher.{name}": array for name, array in arrays.items()} | {"batch": self.current}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if state["encoder"] != (None if self.trained is None else self.trained.fingerprint):
            raise QasError("the run was made with another encoder of this name; name the folder of the old one")
        if state["candidates"] != self._digest:
            raise QasError("the pool of the run has changed since it was started")
        self.rng = restore_rng(state["rng"])
        self.drawn = DrawnAhead(self.rng)
        self.asked = np.array(state["asked"], dtype=np.int64)
        self.values = [float(v) for v in state["values"]]
        self.current = self.space.check_rows(arrays["batch"])
        self.searcher.restore(state["searcher"], part_of(arrays, "searcher"))


class KnnAgent(PoolAgent):
    """Walks from the best circuit to its nearest neighbour that was not evaluated yet."""

    name: ClassVar[str] = "knn"
    about: ClassVar[str] = "walks a circuit pool: always the nearest new neighbour of the best circuit so far"

    def make_searcher(self, points: np.ndarray, rng: np.random.Generator) -> PoolSearcher:
        return KnnSearcher(points, rng)
