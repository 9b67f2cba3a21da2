"""Random circuits: the baseline every agent has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, ClassVar, TypedDict

import numpy as np

from qas.agents.base import Agent, DrawnAhead, Search, restore_rng
from qas.agents.pool.agent import POOL_SIZE, PoolAgent
from qas.agents.pool.searchers import PoolSearcher, RandomSearcher
from qas.circuits import Circuit, Gate
from qas.gates import gate_spec
from qas.schema import RngState


class _State(TypedDict):
    rng: RngState


class RandomAgent(PoolAgent):
    """Draws circuits and optimizes their angles, from uniform ones.

    A length, then legal gates; or, with an encoder, a pool or a screen (and on a labelled pool), one of the candidates
    of every pool agent, none twice before all had their turn.

    Args:
        encoder, pool, pool_size, screen, screen_keep, starts: as for every pool agent; without the first, the second
            and the fourth the others mean nothing.
    """

    name: ClassVar[str] = "random"
    about: ClassVar[str] = "random legal circuits of random length, or circuits of a pool; angles optimized"
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        encoder: str | None = None,
        pool: str | None = None,
        pool_size: int = POOL_SIZE,
        screen: str | None = None,
        screen_keep: float = 0.2,
        starts: int = 1,
    ) -> None:
        super().__init__(
            encoder=encoder, pool=pool, pool_size=pool_size, screen=screen, screen_keep=screen_keep, starts=starts
        )
        self._named = not (encoder is None and pool is None and screen is None)

    @classmethod
    def todays_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of an older run as they are called today: what points it had never mattered."""
        return {name: value for name, value in options.items() if name != "features"}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return Agent.example.__func__(cls)  # type: ignore[attr-defined]

    def prepare(self, search: Search) -> None:
        self.from_pool = self._named or search.problem.listed
        if self.from_pool:
            super().prepare(search)
        else:
            Agent.prepare(self, search)
            self.rng = search.rng(1)
            self.drawn = DrawnAhead(self.rng)

    def defaults(self, problem: Any) -> dict[str, Any]:
        return super().defaults(problem) if self._named or problem.listed else {}

    def _points(self) -> tuple[Any, np.ndarray]:
        return None, np.zeros((len(self.rows), 1), dtype=np.float32)

    def make_searcher(self, points: np.ndarray, rng: np.random.Generator) -> PoolSearcher:
        return RandomSearcher(points, rng)

    def run(self) -> None:
        if self.from_pool:
            super().run()
        self.search.safe_point(self)
        with closing(self.meter.evaluate_many(self._draws(), self.rng)) as results:
            for _ in results:
                self.drawn.settle()
                self.search.safe_point(self)

    def _draws(self) -> Iterator[Circuit]:
        while True:
            self.drawn.mark()
            yield self.draw()

    def draw(self) -> Circuit:
        """One random circuit; no gate directly repeats the last one on all its qubits."""
        alphabet, n = self.search.alphabet, self.search.problem.n_qubits
        last = np.full(n, -1, dtype=np.int64)
        gates = []
        for _ in range(int(self.rng.integers(1, self.search.max_gates + 1))):
            action = int(self.rng.choice(np.flatnonzero(alphabet.legal(last))))
            alphabet.update(last, action)
            gate = alphabet.gate(action)
            count = gate_spec(gate.name).n_angles
            gates.append(Gate(gate.name, gate.qubits, tuple(self.rng.uniform(-np.pi, np.pi, size=count).tolist())))
        return Circuit(n, gates)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return super().state() if self.from_pool else ({"rng": self.drawn.state}, {})

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if self.from_pool:
            super().restore(state, arrays)
        else:
            self.rng = restore_rng(state["rng"])
            self.drawn = DrawnAhead(self.rng)
