"""Bayesian optimization of architectures, over a pool and beyond it, with an Optuna study as its ledger."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, ClassVar, TypedDict

import numpy as np

from qas.agents.base import Search, SearchEnded
from qas.agents.growth.changes import Changes
from qas.agents.pool.agent import PoolAgent
from qas.agents.pool.bayesian import AcquisitionLike, BayesianSearcher, SurrogateLike
from qas.agents.pool.ledger import HIDDEN, Ledger, without_password
from qas.agents.pool.surrogates import Choice
from qas.checks import whole_number
from qas.circuits import Circuit
from qas.encoders.pools.pool import TabularProblem
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.files import parse_json, part_of, sha256
from qas.problems import BaseProblem
from qas.registry import recorded
from qas.schema import Count, Gates, conform
from qas.simulators.interrupt import current
from qas.vqe import Evaluation

MODES = ("open", "pool")
STORAGE = "QAS_STORAGE"
"""Environment variable with the storage of a resumed run."""

_FIRST = 2_000
"""Circuits drawn where the search leaves them behind."""
_CHILDREN = 300
"""Changed circuits among which a batch is chosen."""
_CHANGES = 0.7
"""Mean number of changes of each beyond the first."""
_PARENTS = 10
"""Best circuits that are changed."""
_ANY = 0.5
"""Share of steps, before the problem is solved, on which any number of two-qubit gates is allowed."""
_FRESH = 0.3
"""Share of changed circuits that begin with uniform angles: those of a parent on a plateau are stationary."""
_DESCRIBES = ("name", "description", "provenance")
_SHAKE = 0.1
"""Standard deviation, in radians, of what is added to inherited angles: it leaves saddle points."""


class _State(TypedDict):
    count: Count
    known_trials: list[int]
    lowest: float | None
    model: dict[str, Any]
    trying: list[Gates]
    done: list[Gates]


class BoAgent(PoolAgent):
    """Bayesian optimization: a surrogate on the points of circuits, an acquisition that chooses batches of them.

    ``mode="pool"`` chooses among the candidates of the pool. ``mode="open"`` begins with a layer of rotations and a few
    random circuits; then each step draws a number of two-qubit gates, of the front or beyond it, changes the best
    circuits with at most so many (`Changes`; of equal ones the newest, so that plateaus are crossed), leaves out what
    is known but for gates without effect, and evaluates what the acquisition chooses. Most of these begin with the
    angles of their parents, some with uniform ones.

    Every circuit is a trial of an Optuna study, in the run folder or in `storage`.

    Args:
        mode: ``"open"`` or ``"pool"``; default open, on a labelled pool pool.
        surrogate: a name of `qas.agents.pool.SURROGATES`, a class, an instance, or settings with their ``name``.
        acquisition: likewise of `qas.agents.pool.ACQUISITIONS`, such as ``{"name": "level-set", "threshold": 0.95}`` or
            in one string ``"level-set:threshold=0.95"``. Values are minus energies.
        batch: circuits chosen together.
        initial: circuits evaluated before the first fit.
        storage: Optuna storage URL or journal file; runs that share one learn from each other. A password in it is not
            kept with the run.
        study: name of the study; default from problem, noise and number of qubits. Circuits in it that were judged by
            another problem, noise or objective are left out, with a warning.
        candidates: encoder, pool, pool_size, screen, screen_keep, features, starts, as for every pool agent. In open
            mode circuits are those of the search's own gates and lengths unless an encoder or a pool is named.

    References:
        Moss, Ober, Diethe, "Return of the latent space COWBOYS", ICML 2025, arXiv:2507.03910 (a process on structure
        instead of latents).
    """

    name: ClassVar[str] = "bo"
    about: ClassVar[str] = "Bayesian optimization of changed circuits, or over a pool; every circuit is an Optuna trial"

    def __init__(
        self,
        *,
        mode: str | None = None,
        surrogate: SurrogateLike = "gp",
        acquisition: AcquisitionLike = "log-ei",
        batch: int = 5,
        initial: int = 16,
        storage: str | None = None,
        study: str | None = None,
        **candidates: Any,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise UnknownNameError("mode", mode, MODES)
        super().__init__(**(({} if mode == "pool" else {"pool_size": _FIRST}) | candidates))
        self.surrogate, self.acquisition = surrogate, acquisition
        self.initial = whole_number("initial", initial)
        self.mode, self.storage, self.study = mode, storage, study
        self.batch = whole_number("batch", batch)
        self.make_searcher(np.zeros((1, 1)), np.random.default_rng())  # settings are checked before anything is slow

    @classmethod
    def todays_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of an older run as they are called today."""
        new = dict(options)
        if "proposer" in new:
            new["surrogate"] = new.pop("proposer")
        if new.get("surrogate") == "optuna":
            raise QasError("Optuna's sampler proposes no circuits any more: the run can be read, not continued")
        return new

    @classmethod
    def kept_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as the run folder keeps them: without the password of the storage."""
        storage = options.get("storage")
        return dict(options) | ({"storage": without_password(storage)} if isinstance(storage, str) else {})

    def prepare(self, search: Search) -> None:
        if self.mode == "open" and isinstance(search.problem, TabularProblem):
            raise QasError(f"{search.problem.name} knows the circuits of its pool only: leave out mode=open")
        self.leaves = self._leaves(search.problem)
        """Whether it leaves the pool."""
        super().prepare(search)
        self.changes = Changes(search.alphabet)
        assert isinstance(self.searcher, BayesianSearcher)
        self._model = copy.copy(self.searcher.surrogate)
        self._model.prepare(self.points)
        self._ledger: Ledger | None = None
        self.count = 0
        """Circuits evaluated by this run."""
        self.lowest = np.inf
        """Lowest energy among them."""
        self.trying: list[Circuit] = []
        """The batch being evaluated, with the angles it begins with, where it was not drawn from the pool."""
        self.done: list[Circuit] = []
        """What has been evaluated of the batch, with optimized angles."""
        self.circuits: list[Circuit] = []
        """Circuits evaluated, by this run or by those that share its study, with optimized angles."""
        self.seen = np.zeros((0, self.space.max_gates), dtype=np.int16)
        """Their rows."""
        self.energies = np.zeros(0)
        self.known_trials: set[int] = set()
        self._tried: set[bytes] = set()
        self._elsewhere: set[bytes] = set()  # being evaluated by other runs
        self._where: dict[bytes, int] = {}  # reduced form -> candidate, where a study is shared
        if self.storage is not None:
            self._where = {key: index for index, key in enumerate(self._keys(self.rows))}
            self._open_ledger()  # one that does not answer is refused before a folder is made

    def _leaves(self, problem: BaseProblem) -> bool:
        return self.mode != "pool" and not isinstance(problem, TabularProblem)

    def needs_encoder(self, problem: BaseProblem) -> bool:
        return super().needs_encoder(problem) and not (
            self._leaves(problem)
            and self.encoder is None
            and self.pool is None
            and self.features not in ("latent", "all")
            and not problem.whole_matrix
        )

    def circuit_space(self) -> CircuitSpace:
        if self.trained is not None or self.table is not None:
            return super().circuit_space()
        known = self.search.alphabet
        return CircuitSpace(
            known.n_qubits, known.gates, max_gates=self.search.max_gates, min_gates=1, max_depth=0, ring=(),
            coupling=known.coupling, directions=known.directions,
        )  # fmt: skip

    def make_searcher(self, points: np.ndarray, rng: np.random.Generator) -> BayesianSearcher:
        return BayesianSearcher(
            points, rng, surrogate=self.surrogate, acquisition=self.acquisition,
            batch=self.batch, initial=self.initial,
        )  # fmt: skip

    # ------------------------------------------------------------------ the ledger
    @property
    def ledger(self) -> Ledger | None:
        """The study; that in the run folder is opened at first use: only then is there a folder. None in memory."""
        in_memory = self.storage is None and self.search.record.recorder is None
        return None if in_memory else self._ledger or self._open_ledger()

    def _open_ledger(self) -> Ledger:
        problem, noise, recorder, where = (
            self.search.problem,
            self.search.noise,
            self.search.record.recorder,
            self.storage,
        )
        if where is not None and HIDDEN in where:
            where = os.environ.get(STORAGE)
            if where is None:
                raise QasError(
                    f"the password of {self.storage} is not kept with the run: give the storage again "
                    f"(--storage URL, or the environment variable {STORAGE})"
                )
        if recorder is None:
            raise QasError("a storage is for runs in a folder: a search in memory takes none")
        name = self.study or f"{problem.name}-{noise.name if noise else 'noise-free'}-{self.space.n_qubits}q"
        self._ledger = Ledger(recorder.folder, name, where, self.space, self._goal())
        return self._ledger

    def _goal(self) -> str:
        """Equal where energies can be compared: of the same problem, noise and objective, up to rounding."""
        evaluator = self.meter.evaluator
        noise = None if evaluator.noise is None else evaluator.noise.to_json()
        asked = [evaluator.problem.to_json(), noise, recorded(evaluator.objective), evaluator.shots]
        return sha256(json.dumps(_rounded(asked), sort_keys=True).encode())[:16]

    def optimized(self, rows: np.ndarray) -> Generator[Evaluation, None, None]:
        with closing(super().optimized(rows)) as results:
            for found in results if self.ledger is None else self._entered(self.ledger, rows, results):
                self.done.append(found.circuit)
                yield found

    def _entered(self, ledger: Ledger, rows: np.ndarray, results: Iterator[Evaluation]) -> Iterator[Evaluation]:
        """The results, each written into the ledger."""
        for row in rows:
            ledger.begin(self.count, self.space.circuit(row))
            try:
                found = next(results)
            except SearchEnded:
                ledger.finish(None)
                raise
            # What the budget cut short counts as complete if it is the best all the same.
            cut = not self.meter.may_spend or bool(current())
            ledger.finish(found, cut=cut, best=found.energy < self.lowest)
            self.lowest = min(self.lowest, found.energy)
            self.count += 1
            yield found

    def _hear(self) -> None:
        """Take in what runs that share the study have found."""
        ledger = self.ledger
        assert ledger is not None
        self._elsewhere.clear()
        self.held_elsewhere.clear()
        for number, circuit, energy in ledger.others(self.known_trials):
            try:
                row = self.space.row(circuit)
            except CircuitError:  # of another space
                self.known_trials.add(number)
                continue
            key = self._keys(row[None])[0]
            index = self._where.get(key)
            if energy is None:
                self._elsewhere.add(key)
                if index is not None:
                    self.held_elsewhere.append(index)
                continue
            self.known_trials.add(number)
            self._note([circuit], np.array([energy]))
            if index is not None and index not in self.searcher.told[0]:
                self.searcher.tell([index], [-energy], prior=True)

    def _note(self, circuits: list[Circuit], energies: np.ndarray) -> None:
        """Remember circuits, without gates that do nothing where the space holds what is left."""
        kept = [self._simplified(circuit) or circuit for circuit in circuits]
        self.circuits += kept
        rows = np.stack([self.space.row(circuit) for circuit in kept]) if kept else self.seen[:0]
        self.seen = np.concatenate([self.seen, rows])
        self.energies = np.concatenate([self.energies, energies])
        self._tried.update(self._keys(rows))

    def _keys(self, rows: np.ndarray) -> list[bytes]:
        return [row.tobytes() for row in self.forms(rows)]

    def _simplified(self, circuit: Circuit) -> Circuit | None:
        """A circuit without gates that do nothing; None where the space or the search does not hold it."""
        less = self.search.simplify(circuit) if self.leaves else circuit
        try:
            return less if self.rules.permitted(self.space.row(less)[None])[0] else None
        except CircuitError:
            return None

    # ------------------------------------------------------------------ proposals
    def propose(self) -> np.ndarray:
        if self.ledger is not None and self.ledger.shared:
            self._hear()
        if self.leaves and (not len(self.energies) or len(self.energies) >= self.initial):
            self.trying = self._new_circuits() if len(self.energies) else self._layer()
        if not self.trying:
            return super().propose()
        self.asked = self.asked[:0]
        return np.stack([self.space.row(circuit) for circuit in self.trying])

    def learn(self, rows: np.ndarray, values: list[float]) -> None:
        self._note(self.done, -np.array(values))
        if len(self.asked):
            super().learn(rows, values)
        self.trying, self.done = [], []

    def circuits_of(self, rows: np.ndarray) -> list[Circuit]:
        return self.trying[-len(rows) :] if self.trying else super().circuits_of(rows)

    def start_angles(self, circuit: Circuit, trial: int) -> np.ndarray:
        if trial or not self.trying:
            return super().start_angles(circuit, trial)
        return circuit.angles

    def _layer(self) -> list[Circuit]:
        """One of every one-qubit gate on every qubit: product states are among the first to be judged."""
        gates = [self.changes.gate(token, self.rng) for token in self.changes.one]
        layer = self._simplified(Circuit(self.space.n_qubits, gates))
        return [layer] if layer is not None and len(layer) else []

    def _new_circuits(self) -> list[Circuit]:
        """Those of many changed circuits that the acquisition chooses."""
        most = self._drawn_size()
        within = np.array([circuit.two_qubit_gates <= most for circuit in self.circuits])
        children = self._children(within, most)
        if not children:
            return []
        rows = np.stack([self.space.row(child) for child in children])
        assert isinstance(self.searcher, BayesianSearcher)
        acquisition, values = self.searcher.acquisition, -self.energies
        self._model.learn(_Points(self), values, self.rng, thorough=True)
        posterior = self._model.posterior_once(self.points_of(rows))
        target = self._model.standard(acquisition.target(values[within]))
        among = Choice(posterior, np.arange(len(rows)), target, self.batch, self.rng, self.points[:0])
        return [self._begun(children[index]) for index in acquisition.choose(among)]

    def _begun(self, circuit: Circuit) -> Circuit:
        """The circuit with the angles it begins with: most inherit them."""
        if self.rng.random() < _FRESH:
            return circuit.with_angles(self.rng.uniform(-np.pi, np.pi, size=circuit.n_angles))
        return circuit.with_angles(circuit.angles + self.rng.normal(scale=_SHAKE, size=circuit.n_angles))

    def _drawn_size(self) -> int:
        """Most two-qubit gates of the next circuits: any, or a number at which the front has a circuit."""
        sizes = np.array([circuit.two_qubit_gates for circuit in self.circuits])
        front, lowest = [], np.inf
        for size in np.unique(sizes).tolist():
            least = float(self.energies[sizes == size].min())
            if least < lowest - self._tolerance(lowest):
                front.append(size)
                lowest = least
        if self.rng.random() < _ANY and not self.search.problem.solved(lowest):
            return self.search.max_gates
        return int(self.rng.choice(front))

    @staticmethod
    def _tolerance(energy: float) -> float:
        """Difference below which energies count as equal."""
        return 1e-6 * max(1.0, abs(energy)) if np.isfinite(energy) else 0.0

    def _children(self, within: np.ndarray, most: int) -> list[Circuit]:
        """Changes of the best circuits of those given, no reduced form seen before."""
        known = np.flatnonzero(within)
        energies = self.energies[known]
        steps = np.round((energies - energies.min()) / self._tolerance(float(energies.min())))
        parents = known[np.lexsort((-known, steps))[:_PARENTS]]
        drawn = parents[np.minimum(self.rng.geometric(0.25, size=_CHILDREN) - 1, len(parents) - 1)]
        changed = [self.changes.several(self.circuits[parent], _CHANGES, self.rng) for parent in drawn]
        found = [child for child in map(self._simplified, changed) if child is not None and len(child)]
        found = [child for child in found if child.two_qubit_gates <= most]
        kept, taken = [], self._tried | self._elsewhere
        rows = [self.space.row(child) for child in found]
        for child, key in zip(found, self._keys(np.stack(rows)) if rows else [], strict=True):
            if key not in taken:
                taken.add(key)
                kept.append(child)
        # Where everything near is known, circuits may be tried again from other angles.
        return kept or found[-self.batch :]

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        model, more = self._model.state()
        own = {
            "count": self.count,
            "known_trials": sorted(self.known_trials),
            "lowest": None if np.isinf(self.lowest) else self.lowest,
            "model": model,
            "trying": [circuit.to_list() for circuit in self.trying],
            "done": [circuit.to_list() for circuit in self.done],
        }
        arrays |= {f"model.{name}": array for name, array in more.items()}
        tokens = np.full_like(self.seen, PADDING)
        for row, circuit in zip(tokens, self.circuits, strict=True):
            row[: len(circuit)] = self.space.alphabet.tokens_of(circuit)
        angles = np.concatenate([np.zeros(0), *(circuit.angles for circuit in self.circuits)])
        return state | {"bo": json.dumps(own)}, arrays | {"seen": tokens, "angles": angles, "energies": self.energies}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        own = conform(parse_json(state["bo"]), _State, "the state of the search")
        self.count, n = int(own["count"]), self.space.n_qubits
        self.known_trials = {int(number) for number in own["known_trials"]}
        self.trying = [Circuit(n, gates) for gates in own["trying"]]
        self.done = [Circuit(n, gates) for gates in own["done"]]
        self.energies = np.asarray(arrays["energies"], dtype=np.float64)
        tokens = self.space.check_rows(arrays["seen"])
        self.seen = self.space.canonical(tokens)
        self.circuits, rest = [], np.asarray(arrays["angles"], dtype=np.float64)
        for circuit in map(self.space.circuit, tokens):
            self.circuits.append(circuit.with_angles(rest[: circuit.n_angles]))
            rest = rest[circuit.n_angles :]
        self._tried.update(self._keys(self.seen))
        self.lowest = np.inf if own["lowest"] is None else float(own["lowest"])
        model = part_of(arrays, "model")
        self._model.restore(own["model"], model, _Points(self), -self.energies, lambda size: None)


def _rounded(told: Any) -> Any:
    """JSON without what only describes, and with numbers as two machines compute them alike."""
    if isinstance(told, Mapping):
        return {key: _rounded(value) for key, value in told.items() if key not in _DESCRIBES}
    if isinstance(told, list | tuple):
        return [_rounded(value) for value in told]
    return f"{told:.8g}" if isinstance(told, float) else told


class _Points:
    """Points of the circuits seen, made when a slice of them is asked for."""

    def __init__(self, agent: BoAgent) -> None:
        self._agent = agent

    def __len__(self) -> int:
        return len(self._agent.seen)

    def __getitem__(self, where: slice) -> np.ndarray:
        return self._agent.points_of(self._agent.seen[where])
