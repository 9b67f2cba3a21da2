"""What deep Q-learning does with a network: action values, and updates; by PyTorch, or in compiled code."""

from __future__ import annotations

import abc
import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from qas.agents.rl import _perceptron as kernels
from qas.agents.rl.networks import BitsNetwork, tensors_of

Arrays = dict[str, np.ndarray]


class Batch(NamedTuple):
    """Transitions that are learned from, by the rows of a memory (see `qas.agents.rl.memory.Memory`)."""

    rows: np.ndarray
    weights: np.ndarray
    """in the loss, float32"""


class Learner(abc.ABC):
    """An online and a target network, trained by double deep Q-learning with the Huber loss and Adam.

    Args:
        network: the online network at its start, and the target.
        rate: of learning.
    """

    @abc.abstractmethod
    def __init__(self, network: nn.Module, rate: float) -> None: ...

    @abc.abstractmethod
    def values(self, data: Arrays, rows: np.ndarray) -> np.ndarray:
        """Action values of the online network, float32, shape (rows, actions)."""

    @abc.abstractmethod
    def learn(self, data: Arrays, batch: Batch) -> np.ndarray:
        """One update; returns \\|value - goal\\| before it, float32, shape (transitions,)."""

    @abc.abstractmethod
    def follow(self) -> None:
        """The target network becomes the online one."""

    @abc.abstractmethod
    def arrays(self) -> Arrays:
        """Weights and moments by name, ``online.…``, ``target.…`` and ``adam.…``; `restore` takes them back."""

    @abc.abstractmethod
    def restore(self, arrays: Arrays) -> None:
        """Go on from saved arrays."""


class TorchLearner(Learner):
    """Any network, by PyTorch."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.online, self.target = network, copy.deepcopy(network)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)

    @staticmethod
    def _seen(data: Arrays, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = data["numbers"][rows].astype(np.float32, copy=False)
        return torch.from_numpy(data["positions"][rows]), torch.from_numpy(numbers)

    def values(self, data: Arrays, rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = self.online(*self._seen(data, rows)).numpy()
        return found

    def learn(self, data: Arrays, batch: Batch) -> np.ndarray:
        rows, following = batch.rows, data["next"][batch.rows]
        reward, discount = torch.from_numpy(data["reward"][rows]), torch.from_numpy(data["discount"][rows])
        with torch.no_grad():
            seen = self._seen(data, following)
            wish = self.online(*seen).masked_fill(torch.from_numpy(~data["legal"][following]), -torch.inf)
            future = self.target(*seen).gather(1, wish.argmax(1, keepdim=True)).squeeze(1)
            goal = reward + discount * future
        action = torch.from_numpy(data["action"][rows]).unsqueeze(1)
        value = self.online(*self._seen(data, rows)).gather(1, action).squeeze(1)
        loss = torch.from_numpy(batch.weights) * nn.functional.smooth_l1_loss(value, goal, reduction="none")
        self.optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        self.optimizer.step()
        return (value.detach() - goal).abs().numpy()

    def follow(self) -> None:
        self.target.load_state_dict(self.online.state_dict())

    def arrays(self) -> Arrays:
        found = tensors_of(self.online, "online") | tensors_of(self.target, "target")
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{index}.{k}": v.numpy() for k, v in moments.items()}
        return found

    def restore(self, arrays: Arrays) -> None:
        for owner, network in (("online", self.online), ("target", self.target)):
            names = network.state_dict()
            network.load_state_dict({name: torch.from_numpy(arrays[f"{owner}.{name}"]) for name in names})
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in arrays.items():
            owner, _, rest = name.partition(".")
            if owner == "adam":
                index, key = rest.split(".")
                moments.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
        if moments:
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})


class BitsLearner(Learner):
    """A `BitsNetwork`, in compiled code: what `TorchLearner` computes, up to rounding, in a fraction of its time."""

    def __init__(self, network: BitsNetwork, rate: float) -> None:
        self.rate, self.updates = rate, 0
        bits, self.numbers = network.bag.num_embeddings - 1, network.numbers.in_features
        self.widths = [network.bag.embedding_dim, *(len(tensors_of(layer, "")[".bias"]) for layer in network.layers)]
        filled = [-(-width // kernels.LANES) * kernels.LANES for width in self.widths]
        self.sizes = np.array([bits, self.numbers, *filled], dtype=np.int64)
        size = (bits + 2 + self.numbers) * filled[0] + sum(
            (a + 1) * b for a, b in zip(filled[:-1], filled[1:], strict=True)
        )
        self.online, self.target, self.first, self.second, self._slopes = np.zeros((5, size), dtype=np.float32)
        self._live = np.zeros(bits, dtype=bool)
        self._put(self.online, tensors_of(network, ""))
        self.follow()

    def values(self, data: Arrays, rows: np.ndarray) -> np.ndarray:
        chosen = self._filled(rows)
        states = np.empty(len(chosen) * int(self.sizes[2:].sum()), dtype=np.float32)
        kernels.forward(self.online, self.sizes, data["positions"], chosen, self._numbers(data, chosen), states)
        last = int(self.sizes[-1])
        return states[-len(chosen) * last :].reshape(-1, last)[: len(rows), : self.widths[-1]]

    def learn(self, data: Arrays, batch: Batch) -> np.ndarray:
        count, rows = len(batch.rows), self._filled(batch.rows)
        following = data["next"][rows]
        share = np.zeros(len(rows), dtype=np.float32)  # nothing is learned from what fills up
        share[:count] = batch.weights / np.float32(count)
        self.updates += 1
        rate = np.float32(self.rate / (1.0 - kernels.BETA_1**self.updates))
        root = np.float32(math.sqrt(1.0 - kernels.BETA_2**self.updates))
        errors = np.empty(len(rows), dtype=np.float32)
        seen = data["positions"], self._numbers(data, rows), self._numbers(data, following)
        legal = data["legal"][following]
        told = rows, following, data["action"][rows], data["reward"][rows], data["discount"][rows], legal, share
        moments = self.first, self.second, self._slopes, self._live
        kernels.update(self.online, self.target, *moments, self.sizes, seen, told, rate, root, errors)
        return errors[:count]

    def follow(self) -> None:
        self.target[:] = self.online

    def arrays(self) -> Arrays:
        found: Arrays = {}
        for owner, vector in (("online", self.online), ("target", self.target)):
            found |= {f"{owner}.{name}": part.copy() for name, part in self._parts(vector).items()}
        if self.updates:
            for moment, vector in (("exp_avg", self.first), ("exp_avg_sq", self.second)):
                parts = enumerate(self._parts(vector).values())
                found |= {f"adam.{index}.{moment}": part.copy() for index, part in parts}
            steps = np.array(self.updates, dtype=np.float32)
            found |= {f"adam.{index}.step": steps for index in range(len(self._parts(self.online)))}
        return found

    def restore(self, arrays: Arrays) -> None:
        for owner, vector in (("online", self.online), ("target", self.target)):
            self._put(vector, {f".{name}": arrays[f"{owner}.{name}"] for name in self._parts(vector)})
        self.updates = int(np.asarray(arrays.get("adam.0.step", 0)).item())
        if self.updates:
            for moment, vector in (("exp_avg", self.first), ("exp_avg_sq", self.second)):
                parts = self._parts(vector)
                for index, part in enumerate(parts.values()):
                    part[:] = arrays[f"adam.{index}.{moment}"]
        moved = (self._parts(self.first)["bag.weight"] != 0) | (self._parts(self.second)["bag.weight"] != 0)
        self._live[:] = moved[:-1].any(axis=1)

    # ------------------------------------------------------------------ parts of the vectors
    def _parts(self, vector: np.ndarray) -> Arrays:
        """Views of a vector, by the names of `BitsNetwork` and in its order and shapes."""
        bits, numbers, *filled = self.sizes.tolist()
        shapes = [("bag.weight", bits + 1, 0), ("numbers.weight", numbers, 0), ("numbers.bias", 1, 0)]
        for k in range(1, len(filled)):
            shapes += [(f"layers.{k - 1}.weight", filled[k - 1], k), (f"layers.{k - 1}.bias", 1, k)]
        found: Arrays = {}
        here = 0
        for name, inputs, layer in shapes:
            part = vector[here : here + inputs * filled[layer]].reshape(inputs, filled[layer])
            here += part.size
            part = part[: self.widths[layer - 1] if layer and inputs > 1 else inputs, : self.widths[layer]]
            found[name] = part if name.startswith("bag") else part[0] if name.endswith("bias") else part.T
        return found

    def _put(self, vector: np.ndarray, arrays: Arrays) -> None:
        for name, part in self._parts(vector).items():
            part[:] = arrays[f".{name}"]

    @staticmethod
    def _filled(rows: np.ndarray) -> np.ndarray:
        """Rows, some of them once more, so that they are a multiple of what the kernels take together."""
        return np.resize(rows, -(-len(rows) // kernels.ROWS) * kernels.ROWS)

    def _numbers(self, data: Arrays, rows: np.ndarray) -> np.ndarray:
        return data["numbers"][rows].astype(np.float32, copy=False)
