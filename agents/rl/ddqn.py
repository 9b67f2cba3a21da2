"""Double deep Q-learning on the circuit builder (CRLQAS, section 2 of the specification of its agent).

Deviations from the published code, all on purpose: the bootstrap of an n-step return carries γⁿ; illegal actions are
masked in the target as well; a time limit or a random halt is a truncation and bootstraps; every step, the last one
included, is followed by an update; the network is sized for a CPU.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.rl.episodes import make_environment
from qas.errors import QasError


class _Step(NamedTuple):
    observation: dict[str, np.ndarray]
    action: int
    reward: float


class ReplayBuffer:
    """A ring of n-step transitions; circuits are stored as the positions of the ones in their layer tensor.

    Args:
        capacity: most transitions held.
        width: most ones in a layer tensor, the longest circuit.
        actions: how many there are.
    """

    def __init__(self, capacity: int, width: int, actions: int) -> None:
        self.capacity = capacity
        self.data: dict[str, np.ndarray] = {
            "circuit": np.zeros((capacity, width), dtype=np.int32),
            "energy": np.zeros(capacity, dtype=np.float32),
            "action": np.zeros(capacity, dtype=np.int64),
            "reward": np.zeros(capacity, dtype=np.float32),
            "discount": np.zeros(capacity, dtype=np.float32),  # γⁿ, or 0 after a true end
            "next_circuit": np.zeros((capacity, width), dtype=np.int32),
            "next_energy": np.zeros(capacity, dtype=np.float32),
            "next_legal": np.zeros((capacity, actions), dtype=bool),
        }
        self.position = 0
        self.size = 0

    def add(self, **values: Any) -> None:
        """Store one transition, replacing the oldest when full."""
        for name, value in values.items():
            self.data[name][self.position] = value
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Uniform sample with replacement, as tensors of shape (count, …)."""
        rows = rng.integers(self.size, size=count)
        return {name: torch.from_numpy(column[rows]) for name, column in self.data.items()}


class QNetwork(nn.Module):
    """A multilayer perceptron with leaky ReLUs from (layer tensor, energy) to action values.

    A layer tensor of thousands of bits holds at most one one for each gate, so the first linear layer is the sum of as
    many of its columns: an embedding bag, which costs a hundredth of the full product.

    Args:
        bits: length of the flattened layer tensor; position `bits` means "no gate".
        hidden: widths of the hidden layers.
        actions: how many there are.
        generator: source of the initial weights.
    """

    def __init__(self, bits: int, hidden: tuple[int, ...], actions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(bits + 1, hidden[0], mode="sum", padding_idx=bits)
        self.energy = nn.Linear(1, hidden[0])
        sizes = [*hidden, actions]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        with torch.no_grad():
            for parameter, inputs in self._fan_in(bits):
                parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
            self.bag.weight[bits] = 0.0

    def _fan_in(self, bits: int) -> list[tuple[torch.Tensor, int]]:
        # Only a few dozen of the bits are ever one; scaled by their full number the circuit would hardly be seen.
        parts: list[tuple[torch.Tensor, int]] = [(self.bag.weight, 40)]
        parts += [(self.energy.weight, 1), (self.energy.bias, 40)]
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            parts += [(layer.weight, layer.in_features), (layer.bias, layer.in_features)]
        return parts

    def forward(self, circuit: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """Action values, shape (batch, actions), from positions (batch, width) and energies (batch,)."""
        state = self.bag(circuit) + self.energy(energy.unsqueeze(1))
        for layer in self.layers:
            state = layer(nn.functional.leaky_relu(state, 0.01))
        return state


class DdqnAgent(Agent):
    """Double DQN with masked actions and n-step returns.

    Args:
        hidden: widths of the hidden layers.
        learning_rate: of Adam.
        batch_size: transitions in one update.
        memory: transitions held.
        n_step: length of the returns.
        gamma: discount; None: 0.005 ** (1 / max_gates), so that an episode's end still counts 0.5 %.
        epsilon_decay: factor on ε after every update.
        epsilon_floor: lowest ε.
        target_every: updates between copies to the target network.
        learn_after: transitions before the first update.
        halting: "none", or "random": episodes end early at a random length (CRLQAS random halting).
    """

    name: ClassVar[str] = "ddqn"
    about: ClassVar[str] = "double deep Q-learning, masked, n-step, moving-threshold curriculum (CRLQAS)"

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] = (128, 128),
        learning_rate: float = 3e-4,
        batch_size: int = 64,
        memory: int = 20_000,
        n_step: int = 5,
        gamma: float | None = None,
        epsilon_decay: float = 0.9995,
        epsilon_floor: float = 0.05,
        target_every: int = 250,
        learn_after: int = 500,
        halting: str = "none",
    ) -> None:
        if min(batch_size, memory, n_step, target_every, learn_after) < 1 or not hidden or min(hidden) < 1:
            raise QasError("ddqn sizes (hidden, batch_size, memory, n_step, target_every, learn_after) are at least 1")
        if not (0 < epsilon_decay <= 1 and 0 <= epsilon_floor <= 1 and learning_rate > 0):
            raise QasError("ddqn needs 0 < epsilon_decay <= 1, 0 <= epsilon_floor <= 1 and learning_rate > 0")
        if gamma is not None and not 0 <= gamma <= 1:
            raise QasError(f"gamma lies between 0 and 1, got {gamma}")
        self.hidden, self.learning_rate, self.gamma, self.halting = tuple(hidden), learning_rate, gamma, halting
        self.batch_size, self.memory, self.n_step = int(batch_size), int(memory), int(n_step)
        self.epsilon_decay, self.epsilon_floor = float(epsilon_decay), float(epsilon_floor)
        self.target_every, self.learn_after = int(target_every), int(learn_after)

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"hidden": [16], "batch_size": 8, "learn_after": 10, "target_every": 5, "memory": 60}
        return super().example() | {"options": small}

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.discount = 0.005 ** (1 / search.max_gates) if self.gamma is None else float(self.gamma)
        self.rng = search.rng(1)
        self.env = make_environment(search, self.halting)
        self.bits = int(np.prod(self.env.encoding.shape))
        actions = len(search.alphabet)
        generator = torch.Generator().manual_seed(int(search.rng(2).integers(2**62)))
        with torch.random.fork_rng(devices=[]):  # torch draws default weights from its global generator first
            self.online = QNetwork(self.bits, self.hidden, actions, generator)
            self.target = QNetwork(self.bits, self.hidden, actions, generator)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=self.learning_rate, fused=True)
        self.buffer = ReplayBuffer(self.memory, search.max_gates, actions)
        self.epsilon = 1.0
        self.updates = 0
        self.episodes = 0
        self.successes = 0

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # layers this small lose time to a second thread
        try:
            while True:
                self.search.safe_point(self)
                self._episode()
        finally:
            torch.set_num_threads(threads)

    def _episode(self) -> None:
        observation, info = self.env.reset(seed=int(self.rng.integers(2**31)) if self.episodes == 0 else None)
        recent: deque[_Step] = deque()
        while True:
            action = self._act(observation, info["action_mask"])
            following, reward, terminated, truncated, info = self.env.step(action)
            recent.append(_Step(observation, action, float(reward)))
            if len(recent) == self.n_step:
                self._remember(recent, following, info["action_mask"], terminated)
            if terminated or truncated:
                while recent:
                    self._remember(recent, following, info["action_mask"], terminated)
            self._learn()
            observation = following
            if terminated or truncated:
                break
        self.episodes += 1
        self.successes += bool(terminated)
        self.search.record.note = f"episode {self.episodes}, {self.successes} solved, ε {self.epsilon:.2f}"

    def _act(self, observation: dict[str, np.ndarray], mask: np.ndarray) -> int:
        legal = np.flatnonzero(mask)
        if self.rng.random() < self.epsilon:
            return int(legal[self.rng.integers(len(legal))])
        circuit = torch.from_numpy(self._positions(observation)).unsqueeze(0)
        with torch.inference_mode():
            values = self.online(circuit, torch.from_numpy(observation["energy"]))[0].numpy()
        return int(legal[np.argmax(values[legal])])

    def _positions(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Positions of the ones of a layer tensor, int32, filled up with "no gate"."""
        ones = np.flatnonzero(observation["circuit"])
        positions = np.full(self.search.max_gates, self.bits, dtype=np.int32)
        positions[: len(ones)] = ones
        return positions

    def _remember(self, recent: deque[_Step], following: dict[str, np.ndarray], legal: np.ndarray, ended: bool) -> None:
        """Store the return from the oldest recent step to `following`, and forget that step."""
        total, discount = 0.0, 1.0
        for step in recent:
            total += discount * step.reward
            discount *= self.discount
        first = recent.popleft()
        self.buffer.add(
            circuit=self._positions(first.observation),
            energy=first.observation["energy"][0],
            action=first.action,
            reward=total,
            discount=0.0 if ended else discount,
            next_circuit=self._positions(following),
            next_energy=following["energy"][0],
            next_legal=legal,
        )

    def _learn(self) -> None:
        if self.buffer.size < self.learn_after:
            return
        batch = self.buffer.sample(self.batch_size, self.rng)
        with torch.no_grad():
            wish = self.online(batch["next_circuit"], batch["next_energy"])
            wish = wish.masked_fill(~batch["next_legal"], -torch.inf).argmax(1, keepdim=True)
            future = self.target(batch["next_circuit"], batch["next_energy"]).gather(1, wish).squeeze(1)
            goal = batch["reward"] + batch["discount"] * future
        value = self.online(batch["circuit"], batch["energy"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
        loss = nn.functional.smooth_l1_loss(value, goal)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        self.epsilon = max(self.epsilon_floor, self.epsilon * self.epsilon_decay)
        if self.updates % self.target_every == 0:
            self.target.load_state_dict(self.online.state_dict())

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {f"online.{k}": v.numpy() for k, v in self.online.state_dict().items()}
        arrays |= {f"target.{k}": v.numpy() for k, v in self.target.state_dict().items()}
        arrays |= {f"buffer.{k}": v[: self.buffer.size] for k, v in self.buffer.data.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            arrays |= {f"adam.{index}.{k}": v.numpy() for k, v in moments.items()}
        state = {
            "rng": rng_state(self.rng),
            "env": self.env.get_state(),
            "epsilon": self.epsilon,
            "updates": self.updates,
            "episodes": self.episodes,
            "successes": self.successes,
            "position": self.buffer.position,
            "size": self.buffer.size,
        }
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.rng = restore_rng(state["rng"])
        self.env.set_state(state["env"])
        self.epsilon, self.updates = state["epsilon"], state["updates"]
        self.episodes, self.successes = state["episodes"], state["successes"]
        self.buffer.position, self.buffer.size = state["position"], state["size"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        weights: dict[str, dict[str, torch.Tensor]] = {"online": {}, "target": {}}
        for name, array in arrays.items():
            owner, rest = name.split(".", 1)
            if owner == "buffer":
                self.buffer.data[rest][: len(array)] = array
            elif owner == "adam":
                index, key = rest.split(".")
                moments.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
            else:
                weights[owner][rest] = torch.from_numpy(array)
        self.online.load_state_dict(weights["online"])
        self.target.load_state_dict(weights["target"])
        if moments:
            current = self.optimizer.state_dict()
            self.optimizer.load_state_dict({"state": moments, "param_groups": current["param_groups"]})
