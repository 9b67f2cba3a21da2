"""Bayesian optimization of architectures, over a pool and beyond it, with an Optuna study as its ledger."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Search, SearchEnded
from qas.agents.pool.agent import PoolAgent
from qas.agents.pool.bayesian import AcquisitionLike, BayesianSearcher, SurrogateLike
from qas.agents.pool.candidates import CandidateSource, Decoder, FixedPool, Mutations
from qas.agents.pool.ledger import HIDDEN, Ledger, without_password
from qas.agents.pool.surrogates import Choice
from qas.checks import whole_number
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.simulators.interrupt import current
from qas.vqe import Evaluation

MODES = ("open", "pool")
STORAGE = "QAS_STORAGE"
"""Environment variable with the storage of a resumed run."""

_PARENTS = 800
_RADIUS = (0.05, 0.4, 2.0)  # least, first and largest, in standard deviations of the latents


class BoAgent(PoolAgent):
    """Bayesian optimization: a surrogate on the points of circuits, an acquisition that chooses batches of them.

    ``mode="pool"`` chooses among the candidates of the pool. ``mode="open"`` begins there and then leaves it: each step
    draws new circuits around the best ones (latents moved within a trust region and decoded under the grammar of the
    space, and local changes of gates), adds fresh random ones, and evaluates those that the acquisition chooses. The
    trust region grows after improvements and shrinks without them.

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
        study: name of the study; default from problem, noise and number of qubits.
        candidates: encoder, pool, pool_size, screen, screen_keep, features, starts, as for every pool agent.

    References:
        Eriksson et al., "Scalable global optimization via local Bayesian optimization", NeurIPS 2019 (trust region).
        Moss, Ober, Diethe, "Return of the latent space COWBOYS", ICML 2025, arXiv:2507.03910 (a process on structure
        instead of latents).
    """

    name: ClassVar[str] = "bo"
    about: ClassVar[str] = "Bayesian optimization over and beyond a circuit pool; every circuit is an Optuna trial"

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
        super().__init__(**candidates)
        if mode is not None and mode not in MODES:
            raise UnknownNameError("mode", mode, MODES)
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
        super().prepare(search)
        self.leaves = self.mode != "pool" if self.table is None else self.mode == "open"
        """Whether it leaves the pool."""
        if self.leaves and self.trained is None:
            raise QasError(f"{search.problem.name} knows the circuits of its pool only: leave out mode=open")
        self._sources: list[CandidateSource] = []
        if self.leaves and self.trained is not None:
            tokens = np.flatnonzero(self.rules.allowed)
            decoder = Decoder(self.trained, self.rules.coupling)
            self._sources = [decoder, Mutations(self.space, tokens), FixedPool(self.rows)]
        assert isinstance(self.searcher, BayesianSearcher)
        self._model = copy.copy(self.searcher.surrogate)
        self._model.prepare(self.points)
        self._ledger: Ledger | None = None
        self.count = 0
        """Circuits evaluated by this run."""
        self.lowest = np.inf
        """Lowest energy among them."""
        self.radius = _RADIUS[1]
        self.successes = self.failures = 0
        self.seen = np.zeros((0, self.space.max_gates), dtype=np.int16)
        """Circuits evaluated, by this run or by those that share its study."""
        self.energies = np.zeros(0)
        self.known_trials: set[int] = set()
        self._tried: set[bytes] = set()
        self._elsewhere: set[bytes] = set()  # being evaluated by other runs
        self._where: dict[bytes, int] = {}  # reduced form -> candidate, where a study is shared
        if self.storage is not None:
            self._where = {key: index for index, key in enumerate(self._keys(self.rows))}
            self._open_ledger()  # one that does not answer is refused before a folder is made

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
        self._ledger = Ledger(recorder.folder, name, where, self.space)
        return self._ledger

    def optimized(self, rows: np.ndarray) -> Generator[Evaluation, None, None]:
        ledger = self.ledger
        if ledger is None:
            yield from super().optimized(rows)
            return
        with closing(super().optimized(rows)) as results:
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
                    self.searcher.exclude([index])
                continue
            self.known_trials.add(number)
            self._note(row[None], np.array([energy]))
            if index is not None and index not in self.searcher.told[0]:
                self.searcher.tell([index], [-energy], prior=True)

    def _note(self, rows: np.ndarray, energies: np.ndarray) -> None:
        self.seen = np.concatenate([self.seen, rows])
        self.energies = np.concatenate([self.energies, energies])
        self._tried.update(self._keys(rows))

    def _keys(self, rows: np.ndarray) -> list[bytes]:
        return [row.tobytes() for row in self.forms(rows)]

    # ------------------------------------------------------------------ proposals
    def propose(self) -> np.ndarray:
        if self.ledger is not None and self.ledger.shared:
            self._hear()
        if not self.leaves or len(self.energies) < self.initial:
            return super().propose()
        self.asked = self.asked[:0]
        return self._new_circuits()

    def learn(self, rows: np.ndarray, values: list[float]) -> None:
        before = self.energies.min(initial=np.inf)
        energies = -np.array(values)
        self._note(rows, energies)
        if len(self.asked):
            super().learn(rows, values)
            return
        improved = energies.min() < before - 1e-6 * max(1.0, abs(before))
        self.successes, self.failures = (self.successes + 1, 0) if improved else (0, self.failures + 1)
        if self.successes >= 2:
            self.radius, self.successes = min(2.0 * self.radius, _RADIUS[2]), 0
        elif self.failures >= 4:
            self.radius, self.failures = max(0.5 * self.radius, _RADIUS[0]), 0

    def _new_circuits(self) -> np.ndarray:
        """Those of many new circuits that the acquisition chooses."""
        rows, values = self._around_the_best(), -self.energies
        assert isinstance(self.searcher, BayesianSearcher)
        acquisition = self.searcher.acquisition
        self._model.learn(_Points(self), values, self.rng, thorough=True)
        posterior = self._model.posterior_once(self.points_of(rows))
        target = self._model.standard(acquisition.target(values))
        among = Choice(posterior, np.arange(len(rows)), target, self.batch, self.rng, self.points[:0])
        return rows[acquisition.choose(among)]

    def _around_the_best(self) -> np.ndarray:
        """New circuits around the best ones and from the pool; no reduced form seen before."""
        order = np.argsort(self.energies, kind="stable")[:10]
        parents = self.seen[order[np.minimum(self.rng.geometric(0.25, size=_PARENTS) - 1, len(order) - 1)]]
        drawn = [source.draw(parents, self.radius, self.rng) for source in self._sources]
        rows = self.rules.cut_to_fit(np.concatenate(drawn))
        kept, taken = [], self._tried | self._elsewhere
        for index, key in enumerate(self._keys(rows)):
            if key not in taken:
                taken.add(key)
                kept.append(index)
        # Where everything near is known, circuits may be tried again from other angles.
        return rows[kept] if kept else rows[-self.batch :]

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        model, more = self._model.state()
        own = {
            "count": self.count,
            "radius": self.radius,
            "successes": self.successes,
            "failures": self.failures,
            "known_trials": sorted(self.known_trials),
            "lowest": None if np.isinf(self.lowest) else self.lowest,
            "model": model,
        }
        arrays |= {f"model.{name}": array for name, array in more.items()}
        return state | {"bo": json.dumps(own)}, arrays | {"seen": self.seen, "energies": self.energies}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        own = json.loads(state["bo"])
        self.count, self.radius = int(own["count"]), float(own["radius"])
        self.successes, self.failures = int(own["successes"]), int(own["failures"])
        self.known_trials = {int(number) for number in own["known_trials"]}
        self._note(self.space.check_rows(arrays["seen"]), np.asarray(arrays["energies"], dtype=np.float64))
        lowest = own.get("lowest", self.energies.min(initial=np.inf))
        self.lowest = np.inf if lowest is None else float(lowest)
        model = own.get("model")
        more = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
        if model is None:  # of a run from before surrogates were options
            first, *blocks = own["blocks"] or [0]
            model = {"n_fit": first, "blocks": blocks}
            more = {} if own["theta"] is None else {"theta": np.array(own["theta"])}
        self._model.restore(model, more, _Points(self), -self.energies, lambda size: None)


class _Points:
    """Points of the circuits seen, made when a slice of them is asked for."""

    def __init__(self, agent: BoAgent) -> None:
        self._agent = agent

    def __len__(self) -> int:
        return len(self._agent.seen)

    def __getitem__(self, where: slice) -> np.ndarray:
        return self._agent.points_of(self._agent.seen[where])
