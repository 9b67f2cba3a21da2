"""Networks from observations to action values, sized for a CPU."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn


class BitsNetwork(nn.Module):
    """A multilayer perceptron with leaky ReLUs from (positions of ones, numbers) to action values.

    The first linear layer is the sum of as many of its columns as there are ones: an embedding bag, which costs a
    hundredth of the full product.

    Args:
        bits: how many there are; position `bits` means "none".
        numbers: how many there are beside them.
        hidden: widths of the hidden layers.
        actions: how many there are.
        generator: source of the initial weights.
    """

    def __init__(
        self, bits: int, numbers: int, hidden: tuple[int, ...], actions: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(bits + 1, hidden[0], mode="sum", padding_idx=bits)
        self.numbers = nn.Linear(numbers, hidden[0])
        sizes = [*hidden, actions]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        # Only a few dozen of the bits are ever one; scaled by their full number the circuit would hardly be seen.
        parts = [(self.bag.weight, 40), (self.numbers.weight, numbers), (self.numbers.bias, 40)]
        _initialise([*parts, *_of_layers(self.layers)], generator)
        with torch.no_grad():
            self.bag.weight[bits] = 0.0

    def forward(self, positions: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Action values, shape (batch, actions), from positions (batch, width) and numbers (batch, numbers)."""
        state = self.bag(positions) + self.numbers(numbers)
        for layer in self.layers:
            state = layer(nn.functional.leaky_relu(state, 0.01))
        return state


class RowsNetwork(nn.Module):
    """The value of each action from its row of features, by weights that all actions share.

    Each row meets the general features and the mean of the rows of all legal actions; so a permutation of the actions
    permutes their values.

    Args:
        actions: how many there are.
        features: columns of a row; the first says whether the action is legal.
        general: further numbers.
        hidden: widths of the two layers; the last is used where there is one.
        generator: source of the initial weights.
    """

    def __init__(
        self, actions: int, features: int, general: int, hidden: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.actions, self.features = actions, features
        first, second = hidden[0], hidden[-1]
        self.row, self.general = nn.Linear(features, first), nn.Linear(general, first)
        self.mixed, self.mean, self.value = nn.Linear(first, second), nn.Linear(first, second), nn.Linear(second, 1)
        _initialise(_of_layers((self.row, self.general, self.mixed, self.mean, self.value)), generator)

    def forward(self, positions: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Action values, shape (batch, actions), from numbers (batch, actions · features + general)."""
        size = self.actions * self.features
        rows = numbers[:, :size].view(-1, self.actions, self.features)
        seen = nn.functional.leaky_relu(self.row(rows) + self.general(numbers[:, size:]).unsqueeze(1), 0.01)
        legal = rows[..., :1]
        mean = (seen * legal).sum(1) / legal.sum(1).clamp(min=1.0)
        both = nn.functional.leaky_relu(self.mixed(seen) + self.mean(mean).unsqueeze(1), 0.01)
        return self.value(both).squeeze(2)  # type: ignore[no-any-return]


def _of_layers(layers: Iterable[nn.Module]) -> list[tuple[torch.Tensor, int]]:
    """Parameters, and the inputs that each sums."""
    found: list[tuple[torch.Tensor, int]] = []
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        found += [(layer.weight, layer.in_features), (layer.bias, layer.in_features)]
    return found


def _initialise(parameters: Iterable[tuple[torch.Tensor, int]], generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter, inputs in parameters:
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)


def tensors_of(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Weights by name, as arrays."""
    return {f"{prefix}.{name}": weight.numpy() for name, weight in module.state_dict().items()}
