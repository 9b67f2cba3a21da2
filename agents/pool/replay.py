"""Searches on labelled pools in memory: the agents of ``qas search``, look-ups instead of optimizations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qas.agents.base import Agent, Search
from qas.alphabet import Alphabet
from qas.encoders.pools.pool import TabularProblem
from qas.meter import Budget, Meter, SearchEnded
from qas.record import Record
from qas.vqe import Evaluation, Evaluator


@dataclass(frozen=True)
class Replay:
    """What one agent found on a `TabularProblem`."""

    indices: np.ndarray
    """circuits in the order of the queries, int64, shape (queries,)"""
    values: np.ndarray
    """their scores, float64, shape (queries,)"""
    threshold: float

    @property
    def found(self) -> np.ndarray:
        """Circuits at or above the threshold after each query, int64, shape (queries,)."""
        return np.cumsum(self.values >= self.threshold)

    @property
    def best(self) -> np.ndarray:
        """Best score after each query, float64, shape (queries,)."""
        return np.maximum.accumulate(self.values)

    def recall(self, table: TabularProblem, count: int = 100) -> float:
        """Share of the pool's best `count` circuits that were queried; scores equal to 1e-6 stand for each other."""
        least = table.values[table.top(count)[-1]]
        return min(1.0, float((self.values >= least - 1e-6).sum()) / min(count, len(table)))


class _Queries(Record):
    """Notes which circuits were looked up, and nothing else."""

    def __init__(self, table: TabularProblem) -> None:
        super().__init__(table)
        self.table = table
        self.indices: list[int] = []

    def take(self, found: Evaluation, meter: Meter, rng: np.random.Generator, *, tidy: bool = False) -> Evaluation:
        self.indices.append(self.table.index(found.circuit))
        return found


def replay(
    table: TabularProblem, agent: str | type[Agent] | Agent, *, queries: int = 1000, seed: int = 0, **options: Any
) -> Replay:
    """Run an agent on a labelled pool; the same as ``qas search "labelled" POOL:TASK --steps QUERIES``, without a folder.

    Args:
        table: the pool with one task.
        agent: one that chooses from a pool: a name of `qas.list_agents`, a class, or an instance.
        queries: look-ups; fewer if the pool is smaller.
        seed: fixes the search.
        options: settings of the agent.

    Raises:
        UnknownNameError: no such agent or setting.
        QasError: settings that do not fit, or an agent that makes its own circuits.
    """
    from qas.agents.settings import make_agent

    player, record = make_agent(agent, options), _Queries(table)
    meter = Meter(Evaluator(table), Budget(steps=queries), record)
    search = Search(table, Alphabet(table.n_qubits, table.search_gates), table.max_gates, seed, meter, record)
    player.prepare(search)
    # A longer one would go through the pool a second time.
    meter.budget = Budget(steps=min(queries, len(table)))
    try:
        player.run()
    except SearchEnded:
        pass
    indices = np.array(record.indices, dtype=np.int64)
    return Replay(indices, table.values[indices], table.score.threshold)
