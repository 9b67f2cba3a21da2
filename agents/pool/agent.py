"""Agents that search among the circuits of a pool, seen as points: the second leg of architecture search.

The candidates are circuits of an encoder's space that obey the search's gates, coupling and length: those of a pool
folder, or circuits drawn anew. A *searcher* (`qas.agents.pool.searchers`) chooses among their points and knows nothing of
circuits; the agent optimizes the angles of what it chose and tells it the energy.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.pool.searchers import PoolSearcher, make_searcher
from qas.alphabet import NONE
from qas.encoders.pools.points import CircuitFeatures
from qas.encoders.pools.reduction import reduce_rows
from qas.encoders.pools.screens import screen as screened
from qas.encoders.pools.spaces import PADDING, CircuitSpace, distinct
from qas.errors import CircuitError, QasError
from qas.problems import BaseProblem
from qas.vqe import Evaluation

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

POOL_SIZE = 10_000
"""Circuits drawn where no pool is given."""


def encoder_for(name: str | None, n_qubits: int) -> TrainedEncoder:
    """The encoder of that name, or the shipped one for so many qubits.

    Raises:
        QasError: there is none, or it is for another number of qubits.
    """
    from qas.encoders import trained

    if name is None:
        name = f"q{n_qubits}"
        if name not in trained.list_encoders():
            raise QasError(
                f"encoders come with the package for 4 and 8 qubits, the problem has {n_qubits}; train one with qas "
                "pool build and qas encoder train, and name its folder with --encoder"
            )
        shipped = trained.SHIPPED / name  # goes before a folder of that name which happens to be here
        name = str(shipped) if shipped.is_dir() else name
    encoder = trained.load_encoder(name)
    if encoder.space.n_qubits != n_qubits:
        raise QasError(f"encoder {name} is for {encoder.space.n_qubits} qubits, the problem has {n_qubits}")
    return encoder


def translate(rows: np.ndarray, source: CircuitSpace, target: CircuitSpace) -> np.ndarray:
    """Rows of one space as canonical rows of another.

    Raises:
        QasError: the target space does not hold the circuits; the message says what differs.
    """
    if source == target:
        return rows
    if source.n_qubits != target.n_qubits:
        raise QasError(f"the pool is for {source.n_qubits} qubits, the encoder for {target.n_qubits}")
    if source.max_gates > target.max_gates:
        raise QasError(f"the pool has circuits of {source.max_gates} gates, the encoder holds {target.max_gates}")
    if source.max_depth > target.max_depth:
        raise QasError(f"the pool has circuits of {source.max_depth} layers, the encoder holds {target.max_depth}")
    tokens = source.alphabet.tokens_in(target.alphabet)
    for token in np.flatnonzero(tokens == NONE):
        try:
            target.alphabet.index(source.placed[token])
        except CircuitError as error:
            raise QasError(f"the pool does not fit the encoder: {error}") from None
    wide = np.full((len(rows), target.max_gates), PADDING, dtype=np.int16)
    wide[:, : source.max_gates] = np.append(tokens, PADDING)[rows]
    return target.canonical(wide)


class PoolAgent(Agent):
    """Evaluates circuits that a searcher chooses from a pool.

    Circuits with equal reduced forms (`qas.encoders.pools.reduction`) make equal states and so reach equal energies without
    noise; of these only the one with the fewest gates is a candidate. Where a problem judges whole matrices, all are.

    Args:
        encoder: a folder, or the name of a shipped encoder; default the shipped one for the problem's qubits.
        pool: a pool folder whose circuits are the candidates; default: circuits drawn from the encoder's space.
        pool_size: how many are drawn.
        screen: a name of `qas.encoders.pools.SCREENS`; only the best circuits by that proxy are candidates. Its own work is
            done before the clock starts and counts as no evaluations; ``fluctuation`` looks at the problem's energy.
        screen_keep: share of the candidates that a screen keeps.
        features: what the searcher looks at, a name of `qas.encoders.pools.points.FEATURES`; default ``"structure"`` up to
            5 qubits and ``"reduced"`` beyond, which found most on labelled pools (``results/unsupervised``). They see
            of a circuit only the states it makes: where a problem judges whole matrices it is ``"latent"``.
        starts: optimizations of each circuit, from random angles; the best counts.
    """

    searcher_name: ClassVar[str]

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
        if pool_size < 2:
            raise QasError(f"pool_size is at least 2, got {pool_size}")
        if not 0 < screen_keep <= 1:
            raise QasError(f"screen_keep lies above 0 and at most at 1, got {screen_keep}")
        if starts < 1:
            raise QasError(f"starts is at least 1, got {starts}")
        self.encoder_name, self.pool, self.pool_size, self.starts = encoder, pool, int(pool_size), int(starts)
        self.screen, self.screen_keep, self.features_name = screen, float(screen_keep), features

    @classmethod
    def example(cls) -> dict[str, Any]:
        return super().example() | {"options": {"pool_size": 100}}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.encoder = encoder_for(self.encoder_name, search.problem.n_qubits)
        self.space = self.encoder.space
        self.allowed = self._allowed_tokens()
        rows = self._candidates(self.pool, self.pool_size)
        if self.screen is not None:
            kept = screened(self.screen, rows, self.space, search.problem, search.rng(3), self.screen_keep)
            rows = rows[np.sort(kept)]
        self.rows = rows
        self._digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
        features = self.features_name
        if features is None:
            of_states = "structure" if self.space.n_qubits <= 5 else "reduced"
            features = "latent" if search.problem.whole_matrix else of_states
        self.features = CircuitFeatures(features, self.space, self.encoder).fit(rows)
        self.points = self.features(rows)
        self.searcher = self._make_searcher()
        self.asked = np.empty(0, dtype=np.int64)
        """Which candidates the batch is made of."""
        self.batch = rows[:0]
        self.values: list[float] = []

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        space = encoder_for(self.encoder_name, problem.n_qubits).space
        return {"gates": list(space.gates), "max_gates": space.max_gates}

    # ------------------------------------------------------------------ candidates
    def _allowed_tokens(self) -> np.ndarray:
        """Which placed gates of the encoder's space the search's gates and coupling allow, bool, (n_tokens,)."""
        alphabet = self.search.alphabet
        foreign = [name for name in alphabet.gates if name not in self.space.gates]
        if foreign:
            raise QasError(f"the encoder knows the gates {', '.join(self.space.gates)}, got {foreign[0]}")
        return self.space.alphabet.tokens_in(alphabet) != NONE

    def permitted(self, rows: np.ndarray) -> np.ndarray:
        """Which circuits obey the search's gates, coupling and length, bool, shape (size,)."""
        fine = np.append(self.allowed, True)[rows].all(axis=1)  # -1, the padding, reads the last entry
        return fine & ((rows != PADDING).sum(axis=1) <= self.search.max_gates)

    def cut_to_fit(self, rows: np.ndarray) -> np.ndarray:
        """Circuits without the gates that the search does not allow, ended at its longest length; canonical rows."""
        fine = np.append(self.allowed, False)[rows]
        fine &= np.cumsum(fine, axis=1) <= self.search.max_gates
        order = np.argsort(~fine, axis=1, kind="stable")
        return self.space.canonical(np.take_along_axis(np.where(fine, rows, PADDING), order, axis=1))

    def _candidates(self, pool: str | None, size: int) -> np.ndarray:
        if pool is not None:
            from qas.encoders.pools.pool import Pool

            found = Pool(pool)
            rows = translate(found.rows, found.space, self.space)
            rows = rows[self.permitted(rows)]
            if len(rows) < 2:
                raise QasError("the pool has fewer than 2 circuits with the gates, coupling and length of the search")
        else:
            rows = self._draw(size)
        if self.search.problem.whole_matrix:
            return rows
        return rows[one_of_each(rows, self.space, noisy=self.search.noise is not None)]

    def forms(self, rows: np.ndarray) -> np.ndarray:
        """Rows of tokens, equal where circuits reach equal energies without noise, whatever the problem looks at."""
        return rows if self.search.problem.whole_matrix else reduce_rows(rows, self.space)

    def _draw(self, size: int) -> np.ndarray:
        """Circuits of the encoder's space that the search permits."""
        space, most = self.space, min(self.space.max_gates, self.search.max_gates)
        gates = {space.placed[token].name for token in np.flatnonzero(self.allowed)}
        if not gates:
            raise QasError(f"the coupling leaves no place for {', '.join(self.search.alphabet.gates)} in the encoder")
        coupling = self.search.alphabet.coupling
        if coupling is not None and space.coupling is not None:
            coupling = tuple(pair for pair in coupling if pair in space.coupling)
        if coupling is None and len(gates) == len(space.gates) and most == space.max_gates:
            narrow = space
        else:
            narrow = CircuitSpace(
                space.n_qubits,
                [name for name in space.gates if name in gates],
                max_gates=most,
                min_gates=min(space.min_gates, most),
                max_depth=space.max_depth,
                ring=[name for name in space.ring if name in gates],
                coupling=coupling if coupling is not None else space.coupling,
            )
        # A small space may hold fewer circuits: repetitions are dropped instead of refused.
        return translate(distinct(narrow.sample(size, self.search.rng(2))), narrow, space)

    def _make_searcher(self) -> PoolSearcher:
        return make_searcher(self.searcher_name, self.points, self.search.rng(4), **self.searcher_options())

    def searcher_options(self) -> dict[str, Any]:
        """Settings of the searcher."""
        return {}

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        while True:
            self.search.safe_point(self)
            if not len(self.batch):
                self.batch = self.propose()
                continue
            found = self.optimize(self.batch[len(self.values)])
            self.values.append(self.value(found))
            if len(self.values) == len(self.batch):
                self.learn(self.batch, self.values)
                self.batch, self.values = self.batch[:0], []

    def propose(self) -> np.ndarray:
        """Rows to evaluate next, at least one."""
        self.asked = self.searcher.ask()
        if not len(self.asked):
            # Every candidate was evaluated: another round, from other angles.
            self.searcher = self._make_searcher()
            self.asked = self.searcher.ask()
        return self.rows[self.asked]

    def learn(self, rows: np.ndarray, values: list[float]) -> None:
        """Take in the values of the rows proposed last."""
        self.searcher.tell(self.asked, values)

    def value(self, found: Evaluation) -> float:
        """What the searcher maximizes."""
        return -found.energy

    def optimize(self, row: np.ndarray) -> Evaluation:
        """The best of `starts` optimizations from uniform angles."""
        circuit = self.space.circuit(row)
        best: Evaluation | None = None
        for _ in range(self.starts if circuit.n_angles else 1):
            angles = self.rng.uniform(-np.pi, np.pi, size=circuit.n_angles)
            found = self.meter.evaluate(circuit.with_angles(angles), self.rng, exact_start=True)
            if best is None or found.energy < best.energy:
                best = found
        assert best is not None
        return best

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = self.searcher.state()
        own = {
            "rng": rng_state(self.rng),
            "asked": self.asked.tolist(),
            "values": self.values,
            "searcher": state,
            "encoder": self.encoder.fingerprint,
            "candidates": self._digest,
        }
        return own, {f"searcher.{name}": array for name, array in arrays.items()} | {"batch": self.batch}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if state["encoder"] != self.encoder.fingerprint:
            raise QasError("the run was made with another encoder of this name; name the folder of the old one")
        if state["candidates"] != self._digest:
            raise QasError("the pool of the run has changed since it was started")
        self.rng = restore_rng(state["rng"])
        self.asked = np.array(state["asked"], dtype=np.int64)
        self.values = [float(v) for v in state["values"]]
        self.batch = self.space.check_rows(arrays["batch"])
        prefix = "searcher."
        self.searcher.restore(
            state["searcher"], {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        )


def one_of_each(rows: np.ndarray, space: CircuitSpace, *, noisy: bool = False) -> np.ndarray:
    """Indices, in order, of one circuit for every reduced form: the one with the fewest gates, of equals the first.

    Args:
        noisy: two-qubit gates count first, as they cost most on a device.
    """
    used = rows != PADDING
    gates = used.sum(axis=1)
    two = (used & (space.first[rows] != space.last[rows])).sum(axis=1)
    order = np.lexsort((gates, two)) if noisy else np.argsort(gates, kind="stable")
    _, first = np.unique(reduce_rows(rows, space)[order], axis=0, return_index=True)
    return np.sort(order[first])


class KnnAgent(PoolAgent):
    """Walks from the best circuit to its nearest neighbour that was not evaluated yet."""

    name: ClassVar[str] = "knn"
    about: ClassVar[str] = "walks a circuit pool: always the nearest new neighbour of the best circuit so far"
    searcher_name: ClassVar[str] = "knn"
