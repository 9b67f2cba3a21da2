"""Double deep Q-learning on the circuit builder (CRLQAS, section 2 of the specification of its agent).

Deviations from the published code, all on purpose: the bootstrap of an n-step return carries γⁿ; illegal actions are
masked in the target as well; the length limit is a true end, while a random halt is a truncation and bootstraps;
replay is prioritised; some episodes are played greedily to see what was learned; every step, the last one included, is
followed by an update; the network is sized for a CPU.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any, ClassVar, NamedTuple, TypedDict

import numpy as np
import torch

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.rl.episodes import make_environments
from qas.agents.rl.learners import Batch, BitsLearner, Learner, TorchLearner
from qas.agents.rl.memory import Encoder, Memory
from qas.agents.rl.networks import BitsNetwork, RowsNetwork
from qas.checks import finite_output, whole_number
from qas.envs import OBSERVATIONS, REWARDS
from qas.envs.curricula import check_curriculum
from qas.envs.observations import Ahead
from qas.errors import QasError
from qas.files import part_of
from qas.schema import Count, RngState, Within
from qas.torch_threads import torch_threads


class _Step(NamedTuple):
    row: int
    """of the observation, in the memory"""
    action: int
    reward: float


class _Memory(TypedDict):
    position: Count
    held: Count
    transitions: Count
    largest: float


class _State(TypedDict):
    epsilon: Annotated[float, Within(0, 1)]
    updated: Count
    episodes: Count
    successes: Count
    tests: Count
    tests_solved: Count
    rows: list[Count]
    rng: RngState
    env: dict[str, Any] | None
    replay: _Memory
    recent: list[list[tuple[Count, Count, float]]]
    testing: list[bool]


class DdqnAgent(Agent):
    """Double DQN with masked actions, n-step returns and prioritised replay, on several circuits at once.

    Args:
        hidden: widths of the hidden layers.
        learning_rate: of Adam.
        batch_size: transitions in one update.
        memory: observations held.
        priority: exponent of the priorities in replay; 0: uniform.
        n_step: length of the returns.
        gamma: discount; None: 0.005 ** (1 / max_gates), so that an episode's end still counts 0.5 %.
        epsilon_decay: factor on ε after every step from the first update on.
        epsilon_floor: lowest ε.
        target_every: updates between copies to the target network.
        learn_after: transitions before the first update.
        updates: after a step of all circuits.
        learn: False: ε stays 1 and nothing is learned, all else is the same: the control that says what learning is
            worth.
        test_every: after so many episodes one is played greedily (with ``learn=False`` at random, as all are), within
            the budget, and tells the curriculum nothing; 0: none.
        envs: circuits built at once.
        reward, curriculum, halting, observation, optimise_every: of the environment; see
            `qas.agents.rl.episodes.settings_of_environment`.
    """

    name: ClassVar[str] = "ddqn"
    about: ClassVar[str] = "double deep Q-learning, masked, n-step, prioritised, moving-threshold curriculum (CRLQAS)"
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] = (128, 128),
        learning_rate: float = 3e-4,
        batch_size: int = 64,
        memory: int = 20_000,
        priority: float = 0.6,
        n_step: int = 5,
        gamma: float | None = None,
        epsilon_decay: float = 0.9995,
        epsilon_floor: float = 0.05,
        target_every: int = 250,
        learn_after: int = 500,
        updates: int = 1,
        learn: bool = True,
        test_every: int = 20,
        envs: int = 1,
        reward: str = "incremental_with_fixed_ends",
        curriculum: str | float = "moving",
        halting: str = "none",
        observation: str = "layers",
        optimise_every: int | str = 1,
    ) -> None:
        if not hidden:
            raise QasError("ddqn has at least 1 hidden layer, got none")
        for width in hidden:
            whole_number("a size of hidden", width, 1, 2**14)
        sizes = {"batch_size": batch_size, "n_step": n_step, "updates": updates, "envs": envs}
        for name, size in sizes.items():
            whole_number(name, size, 1, 2**14)
        for name, count in {"memory": memory, "target_every": target_every, "learn_after": learn_after}.items():
            whole_number(name, count, 1, 2**31)
        whole_number("test_every", test_every, 0, 2**31)
        if not (0 < epsilon_decay <= 1 and 0 <= epsilon_floor <= 1 and learning_rate > 0 and 0 <= priority <= 1):
            raise QasError(
                "ddqn needs 0 < epsilon_decay <= 1, 0 <= epsilon_floor <= 1, 0 <= priority <= 1 and learning_rate > 0"
            )
        if gamma is not None and not 0 <= gamma <= 1:
            raise QasError(f"gamma lies between 0 and 1, got {gamma}")
        REWARDS.check(reward)
        OBSERVATIONS.check(observation)
        check_curriculum(curriculum)
        self.hidden, self.learning_rate, self.gamma = tuple(hidden), learning_rate, gamma
        self.batch_size, self.memory, self.n_step = int(batch_size), int(memory), int(n_step)
        self.priority, self.updates, self.learn = float(priority), int(updates), learn
        self.epsilon_decay, self.epsilon_floor = float(epsilon_decay), float(epsilon_floor)
        self.target_every, self.learn_after = int(target_every), int(learn_after)
        self.test_every, self.envs = int(test_every), int(envs)
        self.reward, self.curriculum, self.halting = reward, curriculum, halting
        self.observation, self.optimise_every = observation, optimise_every

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"hidden": [16], "batch_size": 8, "learn_after": 10, "target_every": 5, "memory": 60, "test_every": 3}
        return super().example() | {"options": small}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.discount = 0.005 ** (1 / search.max_gates) if self.gamma is None else float(self.gamma)
        self.rng = search.rng(1)
        names = ("reward", "curriculum", "halting", "observation", "optimise_every")
        self.env = make_environments(search, self.envs, **{name: getattr(self, name) for name in names})
        space: Any = self.env.single_observation_space
        ports = max(len(gate.qubits) for gate in search.alphabet.placed)
        self.encoder = Encoder(space, search.max_gates * (1 + 2 * ports))
        actions = len(search.alphabet)
        room = self.envs * (self.n_step + 2)
        self.replay = Memory(max(self.memory, room), self.encoder, actions, self.priority)
        if self.replay.capacity < room:
            raise QasError(
                f"ddqn needs room for {room} observations of {self.encoder.numbers} numbers; give fewer envs"
            )
        if self.learn and self.replay.capacity - room < self.learn_after:
            raise QasError(
                f"ddqn learns after {self.learn_after} transitions (learn_after), got a memory of "
                f"{self.replay.capacity} observations, {room} of which may be on their way"
            )
        generator = torch.Generator().manual_seed(int(search.rng(2).integers(2**62)))
        with torch.random.fork_rng(devices=[]):  # torch draws default weights from its global generator first
            self.learner = self._learner(generator)
        self.epsilon = 1.0
        self.updated = self.episodes = self.successes = self.tests = self.tests_solved = 0
        self.recent: list[deque[_Step]] = [deque() for _ in range(self.envs)]
        self.rows: list[int] = []
        """rows of the present observations; none before the first step"""
        self.testing = np.zeros(self.envs, dtype=bool)

    def _learner(self, generator: torch.Generator) -> Learner:
        actions, numbers = len(self.search.alphabet), self.encoder.numbers
        if isinstance(self.env.envs[0].observer, Ahead):
            general = len(Ahead.general)
            rows = RowsNetwork(actions, (numbers - general) // actions, general, self.hidden, generator)
            return TorchLearner(rows, self.learning_rate)
        return BitsLearner(BitsNetwork(self.encoder.bits, numbers, self.hidden, actions, generator), self.learning_rate)

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        with torch_threads(1):
            if not self.rows:
                observations, infos = self.env.reset(seed=int(self.rng.integers(2**31)))
                self.rows = [self._keep(k, observations, infos["action_mask"]) for k in range(self.envs)]
            while True:
                self.search.safe_point(self)
                self._step()

    def _step(self) -> None:
        """One step in each environment, and what is learned from it."""
        actions = self._act()
        following, rewards, terminated, truncated, infos = self.env.step(actions)
        ended = terminated | truncated
        rows = [-1 if over else self._keep(k, following, infos["action_mask"]) for k, over in enumerate(terminated)]
        for k, recent in enumerate(self.recent):
            recent.append(_Step(self.rows[k], int(actions[k]), float(rewards[k])))
            if len(recent) == self.n_step:
                self._remember(recent, rows[k], terminated[k])
            while ended[k] and recent:
                self._remember(recent, rows[k], terminated[k])
        self.rows = rows
        if self.learn:
            self._learn()
        for k in np.flatnonzero(ended).tolist():
            self._end_episode(k, infos)

    def _end_episode(self, k: int, infos: dict[str, Any]) -> None:
        success, test = bool(infos["success"][k]), bool(self.testing[k])
        record = self.search.record
        record.episode(self.meter, infos["circuit"][k], infos["error"][k], success, test=test)
        if test:
            self.tests, self.tests_solved = self.tests + 1, self.tests_solved + success
        else:
            self.episodes, self.successes = self.episodes + 1, self.successes + success
        record.note = f"episode {self.episodes}, {self.successes} solved, ε {self.epsilon:.2f}"
        if self.test_every:
            record.note += f", greedy {self.tests_solved} of {self.tests}"
        self.testing[k] = bool(self.test_every) and not test and self.episodes % self.test_every == 0
        chosen = np.arange(self.envs) == k
        observations, infos = self.env.reset(options={"reset_mask": chosen, "training": not self.testing[k]})
        self.rows[k] = self._keep(k, observations, infos["action_mask"])

    def _keep(self, k: int, observations: dict[str, np.ndarray], legal: np.ndarray) -> int:
        encoded = self.encoder({name: column[k] for name, column in observations.items()})
        return self.replay.put(encoded, legal[k])

    def _act(self) -> np.ndarray:
        """An action for each environment, legal, greedy or at random."""
        epsilon = np.where(self.testing & self.learn, 0.0, self.epsilon)
        random = self.rng.random(self.envs) < epsilon
        legal = self.replay.data["legal"][self.rows]
        chosen = np.array([_any_of(mask, self.rng) for mask in legal], dtype=np.int64)
        if random.all():
            return chosen
        values = finite_output("the network of ddqn", self.learner.values(self.replay.data, np.array(self.rows)))
        return np.where(random, chosen, np.where(legal, values, -np.inf).argmax(axis=1))

    def _remember(self, recent: deque[_Step], following: int, ended: bool) -> None:
        """Complete the return from the oldest recent step to the observation in row `following`; forget that step."""
        total, discount = 0.0, 1.0
        for step in recent:
            total += discount * step.reward
            discount *= self.discount
        first = recent.popleft()
        self.replay.complete(first.row, first.action, total, *((0.0, first.row) if ended else (discount, following)))

    def _learn(self) -> None:
        if self.replay.transitions < self.learn_after:
            return
        for _ in range(self.updates):
            self._update()
        self.epsilon = max(self.epsilon_floor, self.epsilon * self.epsilon_decay**self.envs)

    def _update(self) -> None:
        batch = Batch(*self.replay.sample(self.batch_size, self.rng))
        errors = self.learner.learn(self.replay.data, batch)
        if self.priority:
            self.replay.learned(batch.rows, errors.astype(np.float64))
        self.updated += 1
        if self.updated % self.target_every == 0:
            self.learner.follow()

    # ------------------------------------------------------------------ state
    _COUNTS = ("epsilon", "updated", "episodes", "successes", "tests", "tests_solved", "rows")

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        replay, columns = self.replay.state()
        arrays = self.learner.arrays() | {f"replay.{k}": v for k, v in columns.items()}
        state = {name: getattr(self, name) for name in self._COUNTS}
        state |= {"rng": rng_state(self.rng), "env": self.env.get_state() if self.rows else None, "replay": replay}
        state |= {"recent": [[list(step) for step in recent] for recent in self.recent]}
        return state | {"testing": self.testing.tolist()}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        counts = {len(state[name]) for name in ("recent", "testing")} | (
            {len(state["rows"])} if state["rows"] else set()
        )
        if counts != {self.envs} or max(state["rows"], default=0) >= self.replay.capacity:
            raise QasError(f"the state is of {counts} circuits in a memory of others, got {self.envs}")
        for name in self._COUNTS:
            setattr(self, name, state[name])
        self.rng = restore_rng(state["rng"])
        if state["env"] is not None:
            self.env.set_state(state["env"])
        self.recent = [deque(_Step(*step) for step in recent) for recent in state["recent"]]
        self.testing = np.array(state["testing"], dtype=bool)
        self.replay.restore(state["replay"], part_of(arrays, "replay"))
        self.learner.restore(arrays)


def _any_of(mask: np.ndarray, rng: np.random.Generator) -> int:
    places = mask.nonzero()[0]
    return int(places[rng.integers(len(places))])
