"""What an agent remembers: observations in a ring, with the return that each action brought, replayed by priority."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from qas.checks import shortened
from qas.errors import QasError

_MOST_BYTES = 1 << 26
"""Memory that observations may take; fewer are held where they are large."""


class Encoder:
    """Observations as networks take them: the positions of the ones of all bits, and all numbers in a row.

    A layer tensor of thousands of bits holds at most one one for each gate.

    Args:
        space: observations of boxes and bits.
        width: most ones that an observation has.
    """

    def __init__(self, space: spaces.Dict, width: int) -> None:
        bits = [name for name, part in space.items() if isinstance(part, spaces.MultiBinary)]
        self._boxes = [name for name, part in space.items() if isinstance(part, spaces.Box)]
        if len(bits) + len(self._boxes) < len(space):
            raise QasError(f"the agent reads observations of bits and boxes, got {space}")
        self._bits = bits
        self.bits = sum(int(np.prod(space[name].shape or ())) for name in bits)
        """how many; as a position it means "none\""""
        self.width = width if bits else 0
        self.numbers = sum(int(np.prod(space[name].shape or ())) for name in self._boxes)

    def __call__(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Positions, int32, shape (width,), and numbers, float32, shape (numbers,), of one observation."""
        positions = np.full(self.width, self.bits, dtype=np.int32)
        if self.width:
            ones = np.flatnonzero(np.concatenate([observation[name].ravel() for name in self._bits]))
            positions[: len(ones)] = ones
        return positions, np.concatenate([observation[name].ravel() for name in self._boxes])


class Memory:
    """A ring of observations; those whose return is known are transitions that can be replayed.

    Transitions are drawn in proportion to (error + 0.01 of the largest)ᵅ of their last update (Schaul et al.,
    "Prioritized experience replay", ICLR 2016, arXiv:1511.05952, proportional variant), new ones as the largest.

    Args:
        capacity: most observations held; fewer where they are large.
        encoder: of the observations.
        actions: how many there are.
        alpha: exponent of the priorities; 0: all alike.
    """

    def __init__(self, capacity: int, encoder: Encoder, actions: int, alpha: float) -> None:
        kind = np.float32 if encoder.numbers < 64 else np.float16
        each = 4 * encoder.width + np.dtype(kind).itemsize * encoder.numbers + actions
        self.capacity, self.alpha = max(1, min(capacity, _MOST_BYTES // each)), alpha
        self.data: dict[str, np.ndarray] = {
            "positions": np.zeros((self.capacity, encoder.width), dtype=np.int32),
            "numbers": np.zeros((self.capacity, encoder.numbers), dtype=kind),
            "legal": np.zeros((self.capacity, actions), dtype=bool),
            "action": np.zeros(self.capacity, dtype=np.int64),
            "reward": np.zeros(self.capacity, dtype=np.float32),
            "discount": np.zeros(self.capacity, dtype=np.float32),  # γⁿ, or 0 after a true end
            "next": np.zeros(self.capacity, dtype=np.int64),
            "priority": np.zeros(self.capacity, dtype=np.float64),  # 0 for what is no transition yet
        }
        self.position = 0
        self.held = 0
        self.transitions = 0
        self.largest = 1.0

    def put(self, encoded: tuple[np.ndarray, np.ndarray], legal: np.ndarray) -> int:
        """Keep an observation in the place of the oldest; returns its row."""
        row, data = self.position, self.data
        self.transitions -= bool(data["priority"][row])
        data["positions"][row], data["numbers"][row] = encoded
        data["legal"][row], data["priority"][row] = legal, 0.0
        self.position = (row + 1) % self.capacity
        self.held = max(self.held, row + 1)
        return row

    def complete(self, row: int, action: int, reward: float, discount: float, following: int) -> None:
        """The observation in a row becomes a transition to another row."""
        for name, value in (("action", action), ("reward", reward), ("discount", discount), ("next", following)):
            self.data[name][row] = value
        self.transitions += not self.data["priority"][row]
        self.data["priority"][row] = self.largest**self.alpha

    def sample(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows of transitions, drawn with replacement, and the weights that correct for it, float32, at most 1."""
        heap = np.cumsum(self.data["priority"][: self.held])
        rows = np.searchsorted(heap, rng.random(count) * heap[-1], side="right")
        weights = (heap[-1] / (self.transitions * self.data["priority"][rows])) ** 0.5
        return rows, (weights / weights.max()).astype(np.float32)

    def learned(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Priorities of rows after an update, from absolute errors."""
        self.largest = max(self.largest, float(errors.max()))
        self.data["priority"][rows] = (errors + 0.01 * self.largest) ** self.alpha

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-able state, and arrays; `restore` takes them back."""
        state = {name: getattr(self, name) for name in ("position", "held", "transitions", "largest")}
        return state, {name: column[: self.held] for name, column in self.data.items()}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if state["position"] >= self.capacity or state["held"] > self.capacity:
            raise QasError(f"the memory holds {self.capacity} observations, its state is of {shortened(state)}")
        for name in ("position", "held", "transitions", "largest"):
            setattr(self, name, state[name])
        for name, column in arrays.items():
            self.data[name][: len(column)] = column
