"""Bayesian optimization of architectures, over a pool and beyond it, with an Optuna study as its ledger."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qas.agents.base import Search, SearchEnded
from qas.agents.pool.agent import POOL_SIZE, PoolAgent
from qas.agents.pool.gaussian_process import GaussianProcess, log_expected_improvement, standard_units
from qas.agents.pool.ledger import Ledger
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.vqe import Evaluation

PROPOSERS = ("gp", "botorch", "optuna", "dngo")
"""Who proposes circuits of the pool."""
MODES = ("open", "pool")

_REFIT = 1.2  # growth of the observations after which hyper-parameters are fitted anew
_RADIUS = (0.05, 0.4, 2.0)  # least, first and largest, in standard deviations of the latents


class BoAgent(PoolAgent):
    """Bayesian optimization with an exact Gaussian process on the points of circuits.

    ``mode="pool"`` chooses among the candidates of the pool. ``mode="open"`` begins there and then leaves it: each step
    draws new circuits around the best ones (latents moved within a trust region and decoded under the grammar of the
    space, and local changes of gates), adds fresh random ones, and evaluates those of the largest expected improvement.
    The trust region grows after improvements and shrinks without them.

    Every circuit is a trial of an Optuna study, in the run folder or in `storage`.

    Args:
        mode: ``"open"`` or ``"pool"``.
        proposer: for the pool: ``"gp"`` (own exact process), ``"botorch"`` (extra `bo`), ``"optuna"`` (its GPSampler,
            snapped to the pool) or ``"dngo"``.
        acquisition: of ``"gp"``: ``"log-ei"``, ``"thompson"``, ``"level-set"`` or ``"mean"``.
        batch: circuits chosen together.
        initial: circuits evaluated before the first fit.
        storage: Optuna storage URL or journal file; runs that share one learn from each other.
        study: name of the study; default from problem, noise and number of qubits.
        encoder, pool, pool_size, screen, screen_keep, features, starts: as for every pool agent.

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
        mode: str = "open",
        proposer: str = "gp",
        acquisition: str = "log-ei",
        batch: int = 5,
        initial: int = 16,
        storage: str | None = None,
        study: str | None = None,
        encoder: str | None = None,
        pool: str | None = None,
        pool_size: int = POOL_SIZE,
        screen: str | None = None,
        screen_keep: float = 0.2,
        features: str | None = None,
        starts: int = 1,
    ) -> None:
        for what, value, known in (("mode", mode, MODES), ("proposer", proposer, PROPOSERS)):
            if value not in known:
                raise UnknownNameError(what, value, known)
        if mode == "open" and proposer != "gp":
            raise QasError(f"the proposer {proposer} chooses from a pool only: add mode=pool")
        if acquisition != "log-ei" and (mode == "open" or proposer != "gp"):
            raise QasError(f"the acquisition {acquisition} is for the proposer gp on a pool: add mode=pool")
        self.mode, self.acquisition = mode, acquisition
        self.n_batch, self.n_initial = int(batch), int(initial)
        self.searcher_name = "bo" if proposer == "gp" else proposer  # type: ignore[misc]
        super().__init__(
            encoder=encoder,
            pool=pool,
            pool_size=pool_size,
            screen=screen,
            screen_keep=screen_keep,
            features=features,
            starts=starts,
        )
        self.storage, self.study = storage, study

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        if self.mode == "open" and self.encoder.model != "gvae":
            raise QasError(
                f"leaving the pool needs the decoder of a gvae encoder, got {self.encoder.model}: add mode=pool"
            )
        self._ledger: Ledger | None = None
        self.count = 0
        """Circuits evaluated by this run."""
        self.radius = _RADIUS[1]
        self.successes = self.failures = 0
        self.seen = np.zeros((0, self.space.max_gates), dtype=np.int16)
        """Circuits evaluated, by this run or by those that share its study."""
        self.energies = np.zeros(0)
        self.known_trials: set[int] = set()
        self._tried: set[bytes] = set()
        self._elsewhere: set[bytes] = set()  # being evaluated by other runs
        self._process: GaussianProcess | None = None
        self._blocks: list[int] = []  # observations of the process at its last fit, and after each addition since
        self._where: dict[bytes, int] = {}  # reduced form -> candidate, where a study is shared
        if self.storage is not None:
            self._where = {key: index for index, key in enumerate(self._keys(self.rows))}
            self._open_ledger()  # one that does not answer is refused before a folder is made

    def searcher_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"batch": self.n_batch, "initial": self.n_initial}
        return options | ({"acquisition": self.acquisition} if self.searcher_name == "bo" else {})

    # ------------------------------------------------------------------ the ledger
    @property
    def ledger(self) -> Ledger:
        """The study; that in the run folder is opened at first use: only then is there a folder."""
        return self._ledger or self._open_ledger()

    def _open_ledger(self) -> Ledger:
        problem, noise = self.search.problem, self.search.noise
        name = self.study or f"{problem.name}-{noise.name if noise else 'noise-free'}-{self.space.n_qubits}q"
        self._ledger = Ledger(self._folder, name, self.storage)
        return self._ledger

    @property
    def _folder(self) -> Path:
        recorder = self.search.record.recorder
        assert recorder is not None
        return recorder.folder

    def optimize(self, row: np.ndarray) -> Evaluation:
        self.ledger.begin(self.count, self.space.circuit(row))
        try:
            found = super().optimize(row)
        except SearchEnded:
            self.ledger.finish(None, {}, cut=True)
            raise
        circuit = found.circuit
        self.ledger.finish(
            found,
            {
                "error": found.error,
                "gates": len(circuit),
                "two_qubit_gates": circuit.two_qubit_gates,
                "depth": circuit.depth,
                "evaluations": found.evaluations,
            },
            cut=not self.meter.may_spend,
        )
        self.count += 1
        return found

    def _hear(self) -> None:
        """Take in what runs that share the study have found."""
        self._elsewhere.clear()
        for number, circuit, energy in self.ledger.others(self.known_trials):
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
        if self.ledger.shared:
            self._hear()
        if self.mode == "pool" or len(self.energies) < self.n_initial:
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
        """The most promising of many new circuits, one after the other, each given the expected value of the former."""
        candidates = self._around_the_best()
        process = self._surrogate()
        points = self.features(candidates)
        chosen: list[int] = []
        best = float(-self.energies.min())
        for _ in range(min(self.n_batch, len(candidates))):
            mean, std = process.predict(points)
            scores = log_expected_improvement(mean, np.maximum(std, 1e-9), best)
            scores[chosen] = -np.inf
            pick = int(scores.argmax())
            chosen.append(pick)
            process = process.condition(points[pick : pick + 1], mean[pick : pick + 1])
            best = max(best, float(mean[pick]))
        return candidates[chosen]

    def _surrogate(self) -> GaussianProcess:
        """The process on all observations, fitted anew when they have grown enough."""
        size = len(self.energies)
        if self._process is None or size >= _REFIT * self._blocks[0]:
            points = self.features(self.seen)
            self._process = (self._process or self._new_process()).fit(points, -self.energies)
            self._blocks = [size]
        elif size > self._blocks[-1]:
            self._append(self._process, self._blocks[-1], size)
            self._blocks.append(size)
        return self._process

    def _new_process(self) -> GaussianProcess:
        centre, scale = standard_units(self.points)
        return GaussianProcess("matern", centre=centre, scale=scale)

    def _append(self, process: GaussianProcess, start: int, stop: int) -> None:
        process.append(self.features(self.seen[start:stop]), -self.energies[start:stop])

    def _around_the_best(self) -> np.ndarray:
        """New circuits: decoded around the best ones, changed a little, and random; no reduced form seen before."""
        order = np.argsort(self.energies, kind="stable")[:10]
        parents = self.seen[order[np.minimum(self.rng.geometric(0.25, size=800) - 1, len(order) - 1)]]
        latents = self.encoder.latents(parents[:400])
        noise = self.rng.normal(size=latents.shape).astype(np.float32) * self.encoder.module.latent_std.numpy()
        # Some of the nodes move, so that a step can be large and still local.
        moved = self.rng.random(latents.shape[:2]) < self.rng.uniform(0.1, 1.0, size=(len(latents), 1))
        decoded = self.encoder.decode(
            latents + self.radius * noise * moved[:, :, None], coupling=self.search.alphabet.coupling
        )
        tokens = np.flatnonzero(self.allowed)
        changed = mutate(parents, self.space, tokens, self.rng)
        fresh = self.rows[self.rng.integers(len(self.rows), size=400)]
        rows = np.concatenate([self.cut_to_fit(decoded), self.cut_to_fit(changed), fresh])
        kept, taken = [], self._tried | self._elsewhere
        for index, key in enumerate(self._keys(rows)):
            if key not in taken:
                taken.add(key)
                kept.append(index)
        if not kept:
            # Everything near is known: circuits may be tried again from other angles.
            return fresh[: self.n_batch]
        return rows[kept]

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        theta = None if self._process is None or self._process.kernel is None else self._process.kernel.theta.tolist()
        own = {
            "count": self.count,
            "radius": self.radius,
            "successes": self.successes,
            "failures": self.failures,
            "known_trials": sorted(self.known_trials),
            "blocks": self._blocks,
            "theta": theta,
        }
        return state | {"bo": json.dumps(own)}, arrays | {"seen": self.seen, "energies": self.energies}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        own = json.loads(state["bo"])
        self.count, self.radius = int(own["count"]), float(own["radius"])
        self.successes, self.failures = int(own["successes"]), int(own["failures"])
        self.known_trials = {int(number) for number in own["known_trials"]}
        self._note(self.space.check_rows(arrays["seen"]), np.asarray(arrays["energies"], dtype=np.float64))
        if own["theta"] is not None:
            self._fit_again(np.array(own["theta"]), [int(size) for size in own["blocks"]])

    def _fit_again(self, theta: np.ndarray, blocks: list[int]) -> None:
        """The process as it was, step by step, because sums in another order round otherwise."""
        first = slice(blocks[0])
        points, values = self.features(self.seen[first]), -self.energies[first]
        process = self._new_process()
        process.take_units(points.astype(float), values)
        process.set(theta, process.inputs(points), (values - process.y_mean) / process.y_std)
        for start, stop in pairwise(blocks):
            self._append(process, start, stop)
        self._process, self._blocks = process, blocks


def mutate(rows: np.ndarray, space: CircuitSpace, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Circuits with one to three small changes: a gate replaced, moved, taken out or put in, or two exchanged.

    Changes that break the depth limit of the space or cancel are drawn anew, at most ten times; then the circuit stays
    as it is.

    Args:
        rows: canonical, shape (size, max_gates).
        tokens: placed gates that may be put in.
    """
    changed = rows.copy()
    waiting = np.arange(len(rows))
    for _ in range(10):
        tried = np.full((len(waiting), space.max_gates), PADDING, dtype=np.int16)
        for i, row in enumerate(rows[waiting]):
            gates = _changed([token for token in row.tolist() if token != PADDING], space, tokens, rng)
            tried[i, : len(gates)] = gates
        tried = space.canonical(tried)
        fine = (space.layers(tried).max(axis=1, initial=-1) < space.max_depth) & (tried != rows[waiting]).any(axis=1)
        changed[waiting[fine]] = tried[fine]
        waiting = waiting[~fine]
        if not len(waiting):
            break
    return changed


def _changed(gates: list[int], space: CircuitSpace, tokens: np.ndarray, rng: np.random.Generator) -> list[int]:
    for _ in range(1 + min(2, int(rng.geometric(0.6)) - 1)):
        kind, size = rng.random(), len(gates)
        new = int(tokens[rng.integers(len(tokens))])
        if size == 0 or (kind < 0.2 and size < space.max_gates):
            gates.insert(int(rng.integers(size + 1)), new)
        elif kind < 0.6:
            gates[int(rng.integers(size))] = new
        elif kind < 0.75:
            gates.insert(int(rng.integers(size)), gates.pop(int(rng.integers(size))))
        elif kind < 0.9 or size <= space.min_gates:
            i, j = rng.integers(size, size=2)
            gates[i], gates[j] = gates[j], gates[i]
        else:
            gates.pop(int(rng.integers(size)))
    return gates
