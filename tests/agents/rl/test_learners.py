"""Deep Q-learning in compiled code against its twin by PyTorch: autograd, and Adam of `torch.optim`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from qas.agents.rl.learners import Batch, BitsLearner, TorchLearner
from qas.agents.rl.networks import BitsNetwork

SHAPES = [
    # (bits, numbers, hidden layers, actions, batch): full and partly filled registers, one layer and three
    (40, 2, (16, 32), 16, 8),
    (11, 1, (8,), 5, 6),
    (20, 70, (12, 20, 7), 3, 5),
]


def remembered(bits: int, numbers: int, actions: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Thirty observations that are transitions to each other; some bits never occur."""
    count, width = 30, 6
    positions = np.full((count, width), bits, dtype=np.int32)
    for row in positions:
        ones = rng.choice(bits - 2, rng.integers(0, width + 1), replace=False)
        row[: len(ones)] = np.sort(ones)
    legal = rng.random((count, actions)) < 0.5
    legal[:, 0] |= ~legal.any(axis=1)
    return {
        "positions": positions,
        "numbers": rng.normal(size=(count, numbers)).astype(np.float32 if numbers < 64 else np.float16),
        "legal": legal,
        "action": rng.integers(0, actions, count),
        "reward": (3 * rng.normal(size=count)).astype(np.float32),
        "discount": np.where(rng.random(count) < 0.2, 0.0, 0.9).astype(np.float32),
        "next": rng.integers(0, count, count),
    }


@pytest.mark.parametrize(("bits", "numbers", "hidden", "actions", "size"), SHAPES)
def test_compiled_updates_are_those_of_pytorch(
    bits: int, numbers: int, hidden: tuple[int, ...], actions: int, size: int
) -> None:
    rng = np.random.default_rng(0)
    network = BitsNetwork(bits, numbers, hidden, actions, torch.Generator().manual_seed(1))
    data = remembered(bits, numbers, actions, rng)
    slow, fast = TorchLearner(copy.deepcopy(network), 3e-3), BitsLearner(network, 3e-3)
    begun = fast.arrays()

    def agree() -> None:
        expected, found = slow.arrays(), fast.arrays()
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert found[name].shape == array.shape, name
            assert found[name] == pytest.approx(array, rel=1e-3, abs=2e-5), name
        every = np.arange(len(data["next"]) - 1)
        assert fast.values(data, every) == pytest.approx(slow.values(data, every), rel=1e-3, abs=1e-4)

    agree()
    for step in range(40):
        batch = Batch(rng.integers(0, len(data["next"]), size), rng.random(size).astype(np.float32))
        assert fast.learn(data, batch) == pytest.approx(slow.learn(data, batch), rel=1e-3, abs=1e-4)
        if step % 15 == 14:
            slow.follow()
            fast.follow()
        if step == 20:  # from saved arrays it goes on in the same way, to the last bit
            again = BitsLearner(network, 3e-3)
            again.restore(fast.arrays())
            twice = copy.deepcopy(batch)
            expected = fast.learn(data, batch), fast.arrays()
            found = again.learn(data, twice), again.arrays()
            slow.learn(data, batch)
            assert (found[0] == expected[0]).all()
            assert all((found[1][name] == array).all() for name, array in expected[1].items())
    agree()
    moved: Any = {name: np.abs(fast.arrays()[name] - array).max(initial=0.0) for name, array in begun.items()}
    assert all(moved[f"online.{name}"] > 1e-3 for name in ("bag.weight", "numbers.bias", "layers.0.weight"))
    assert (fast.arrays()["online.bag.weight"][-3:] == begun["online.bag.weight"][-3:]).all(), "never seen"
