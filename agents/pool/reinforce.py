"""REINFORCE over a pool, as Sun, Wu, Ma and Tresp describe it (arXiv 2401.11576; released code, section on RL).

A recurrent Gaussian policy acts in embedding space; the environment answers an action with the nearest unvisited point,
whose embedding is the next state. Rewards are not discounted: it is a contextual bandit with memory within a batch.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from qas.agents.pool.agent import PoolAgent
from qas.agents.pool.searchers import Indices, PoolSearcher, squared_distances
from qas.checks import finite_output, whole_number
from qas.errors import QasError
from qas.vqe import Evaluation

BATCHES = (8, 16, 24, 32)
"""batch sizes, one more than thresholds"""

PAPER_SETTINGS: dict[str, dict[str, Any]] = {
    "fidelity-4": {"alpha": 0.8, "baseline": 0.5, "thresholds": (0.5, 0.7, 0.95)},
    "maxcut-4": {"alpha": 0.7, "baseline": 0.9, "thresholds": (0.8, 0.9, 0.95)},
    "vqe-4": {"alpha": 0.7, "baseline": 0.5, "thresholds": (0.7, 0.9, 0.95)},
    "fidelity-8": {"alpha": 0.8, "baseline": 0.2, "thresholds": (0.2, 0.5, 0.75)},
    "maxcut-8": {"alpha": 0.7, "baseline": 0.7, "thresholds": (0.7, 0.9, 0.925)},
    "vqe-8": {"alpha": 0.7, "baseline": 0.5, "thresholds": (0.6, 0.8, 0.9)},
}
"""Task and number of qubits -> options of the released searches; the last threshold is the task's own."""


class Policy(nn.Module):
    """LSTM cell d -> hidden, linear hidden -> d: the mean of a Gaussian with identity covariance.

    Weights are drawn as PyTorch draws them, uniform within 1 / sqrt(hidden), but from a generator of their own.
    """

    def __init__(self, dimensions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.cell = nn.utils.skip_init(nn.LSTMCell, dimensions, hidden)
        self.head = nn.utils.skip_init(nn.Linear, hidden, dimensions)
        bound = 1 / math.sqrt(hidden)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, state: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Action mean (1, d) and the next memory, from an embedding (1, d); no memory at the start of a batch."""
        h, c = self.cell(state, memory)
        return self.head(h), (h, c)


class ReinforceSearcher(PoolSearcher):
    """LSTM policy trained by policy gradient; actions are matched to the nearest unvisited point in L2.

    The first ask is one random point, the first state; unlike in the paper it counts as a query. Each later ask is one
    whole batch. When all of it is told, in whatever parts, the baseline moves first, b <- alpha b + (1 - alpha) mean
    reward, then the loss mean(-log p (reward - b)) is descended by Adam, the memory is reset, and the mean reward sets
    the next batch size. Points told with `prior` are not asked again, but the policy does not learn from them. Ties in
    distance go to the lower index.

    Args:
        alpha: inertia of the baseline, 0 to 1.
        baseline: its first value.
        thresholds: mean rewards, ascending, from which a batch has 16, 24 and 32 points instead of 8.
        first_batch: points of the first batch.
        lr: of Adam.
        hidden: size of the LSTM.

    Raises:
        QasError: an option out of its range; or ask while a batch is not told in full.
    """

    name: ClassVar[str] = "reinforce"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        alpha: float = 0.8,
        baseline: float = 0.5,
        thresholds: tuple[float, ...] = (0.5, 0.7, 0.95),
        first_batch: int = 16,
        lr: float = 1e-2,
        hidden: int = 128,
    ) -> None:
        super().__init__(points, rng)
        if not 0 <= alpha <= 1:
            raise QasError(f"alpha lies between 0 and 1, got {alpha!r}")
        if not (math.isfinite(baseline) and lr > 0):
            raise QasError(f"baseline is finite and lr positive, got {baseline!r} and {lr!r}")
        if len(thresholds) != len(BATCHES) - 1 or list(thresholds) != sorted(thresholds):
            raise QasError(f"thresholds are three ascending numbers, got {thresholds!r}")
        self.alpha, self.baseline = float(alpha), float(baseline)
        self.thresholds = tuple(float(t) for t in thresholds)
        self.next_batch = whole_number("first_batch", first_batch)
        self._embeddings = np.ascontiguousarray(self.points, dtype=np.float32)
        self._squares = np.einsum("ij,ij->i", self._embeddings, self._embeddings)
        self._largest = float(self._squares.max())
        self._generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.policy = Policy(self.points.shape[1], whole_number("hidden", hidden), self._generator)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=float(lr))
        self._last = -1  # the point whose embedding is the state
        self._batch: list[int] = []
        self._start = -1  # the state the batch began from
        self._actions = np.empty((0, self.points.shape[1]), dtype=np.float32)
        self._rewards: dict[int, float] = {}

    # ------------------------------------------------------------------ acting
    def _choose(self) -> Indices:
        if self._batch:
            raise QasError(f"reinforce learns from whole batches: tell the {len(self._pending)} pending points first")
        if self._last < 0:
            first = self._random_open(1)
            self._last = int(first[0])
            return first
        self._start = self._last
        closed = ~self._open
        actions, memory = [], None
        with torch.no_grad():
            for _ in range(min(self.next_batch, self.n_open)):
                mean, memory = self.policy(self._state(self._last), memory)
                action = finite_output("the policy of reinforce", mean) + torch.randn(
                    mean.shape, generator=self._generator
                )
                actions.append(action.numpy()[0])
                self._last = self._nearest(actions[-1], closed)
                closed[self._last] = True
                self._batch.append(self._last)
        self._actions = np.stack(actions)
        return np.array(self._batch, dtype=np.int64)

    def _state(self, index: int) -> Tensor:
        return torch.from_numpy(self._embeddings[index][None, :])

    def _nearest(self, action: NDArray[np.float32], closed: NDArray[np.bool_]) -> int:
        # A matrix-vector product shortlists all points that rounding could make the nearest; among them it is exact.
        square = float(action @ action)
        rough = self._squares - 2 * (self._embeddings @ action)
        rough[closed] = np.inf
        near = np.flatnonzero(rough <= rough.min() + 1e-5 * (square + self._largest))
        return int(near[np.argmin(squared_distances(self._embeddings[near], action))])

    # ------------------------------------------------------------------ learning
    def _learn(self, indices: Indices, values: NDArray[np.float64]) -> None:
        of_batch = set(self._batch)
        self._rewards |= {i: v for i, v in zip(indices.tolist(), values.tolist(), strict=True) if i in of_batch}
        if self._batch and len(self._rewards) == len(self._batch):
            self._step(np.array([self._rewards[i] for i in self._batch]))
            self._batch, self._rewards = [], {}

    def _step(self, rewards: NDArray[np.float64]) -> None:
        mean = float(rewards.mean())
        self.baseline = self.alpha * self.baseline + (1 - self.alpha) * mean
        loss = self._loss(rewards)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.next_batch = BATCHES[int(np.searchsorted(self.thresholds, mean, side="right"))]

    def _loss(self, rewards: NDArray[np.float64]) -> Tensor:
        """mean(-log p (reward - baseline)) of the current batch; the policy is still the one that acted."""
        memory, logs = None, []
        half_log = 0.5 * self.points.shape[1] * math.log(2 * math.pi)
        for before, action in zip([self._start, *self._batch[:-1]], torch.from_numpy(self._actions), strict=True):
            mean, memory = self.policy(self._state(before), memory)
            logs.append(-0.5 * ((action - mean[0]) ** 2).sum() - half_log)
        advantage = torch.as_tensor(rewards - self.baseline, dtype=torch.float32)
        return -(torch.stack(logs) * advantage).mean()

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, arrays = super().state()
        known = sorted(self._rewards)
        state |= {"baseline": self.baseline, "next_batch": self.next_batch, "last": self._last, "start": self._start}
        state |= {"batch": list(self._batch), "rewards": [[i, self._rewards[i]] for i in known]}
        arrays |= {"actions": self._actions.copy(), "generator": self._generator.get_state().numpy()}
        for key, value in self.policy.state_dict().items():
            arrays[f"policy.{key}"] = value.numpy().copy()
        for number, moments in self.optimizer.state_dict()["state"].items():
            for key, value in moments.items():
                arrays[f"adam.{number}.{key}"] = np.asarray(value).copy()
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        self.baseline, self.next_batch = float(state["baseline"]), int(state["next_batch"])
        self._last, self._start = int(state["last"]), int(state["start"])
        self._batch = [int(i) for i in state["batch"]]
        self._rewards = {int(i): float(v) for i, v in state["rewards"]}
        self._actions = arrays["actions"].astype(np.float32)
        self._generator.set_state(torch.from_numpy(arrays["generator"].astype(np.uint8)))
        weights = {k[7:]: torch.from_numpy(np.array(v)) for k, v in arrays.items() if k.startswith("policy.")}
        self.policy.load_state_dict(weights)
        saved = self.optimizer.state_dict()
        saved["state"] = {}
        for key, value in arrays.items():
            if key.startswith("adam."):
                _, number, what = key.split(".")
                saved["state"].setdefault(int(number), {})[what] = torch.from_numpy(np.array(value))
        self.optimizer.load_state_dict(saved)


class ReinforceAgent(PoolAgent):
    """The published policy-gradient search in the latent space.

    Its rewards lie between 0 and 1: here the share of the way from the problem's mixed energy (of a Hamiltonian that of
    the maximally mixed state) down to the exact one.

    Args:
        alpha, baseline, thresholds: as of `ReinforceSearcher`; `PAPER_SETTINGS` has those of the published searches.
        candidates: encoder, pool, pool_size, screen, screen_keep, features, starts, as for every pool agent.
    """

    name: ClassVar[str] = "reinforce"
    about: ClassVar[str] = "policy gradient in the latent space of a graph autoencoder (QAS-URL)"

    def __init__(
        self,
        *,
        alpha: float = 0.8,
        baseline: float = 0.5,
        thresholds: tuple[float, ...] = (0.5, 0.7, 0.95),
        **candidates: Any,
    ) -> None:
        super().__init__(**candidates)
        self.alpha, self.baseline, self.thresholds = alpha, baseline, tuple(thresholds)
        self.make_searcher(np.zeros((1, 1)), np.random.default_rng())  # settings are checked before anything is slow

    def make_searcher(self, points: np.ndarray, rng: np.random.Generator) -> PoolSearcher:
        return ReinforceSearcher(points, rng, alpha=self.alpha, baseline=self.baseline, thresholds=self.thresholds)

    def value(self, found: Evaluation) -> float:
        problem = self.search.problem
        way = problem.mixed_energy - problem.exact
        # Of a constant every circuit is as good as any.
        return max(0.0, (problem.mixed_energy - found.energy) / way) if way > 0 else 1.0
