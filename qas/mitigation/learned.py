"""Learned zero-noise extrapolation: a small network that is trained on circuits like the one it is for.

The training circuits have the gates of the circuit, and angles that are multiples of π/2 but for a few: what they do
without noise can be computed for any number of qubits, and the noise of the device acts on them as on the circuit. From
their values at several strengths of the noise the network learns the value without.

References:
    Lowe et al., Phys. Rev. Research 3, 033098 (2021), https://arxiv.org/abs/2011.01157: near-Clifford circuits at
    several strengths of the noise, a linear map. Liao et al., Nature Machine Intelligence 6, 1478 (2024),
    https://arxiv.org/abs/2309.17368: networks instead of the linear map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qas.circuits import Circuit
from qas.errors import QasError
from qas.hamiltonians import Hamiltonian
from qas.mitigation.extrapolation import NODES, Extrapolation, intercept_weights

CIRCUITS = 300
"""Training circuits unless told otherwise."""
FREE_ANGLES = 3
"""Angles of a training circuit that are not multiples of π/2."""
HIDDEN = 16
STEPS = 400
"""Of the optimizer."""


@dataclass(frozen=True)
class Examples:
    """What a network is trained on."""

    values: np.ndarray
    """at each strength of the noise, float64, shape (n_examples, n_nodes)"""
    exact: np.ndarray
    """without noise, float64, shape (n_examples,)"""


def near_clifford(circuit: Circuit, rng: np.random.Generator, free: int = FREE_ANGLES) -> Circuit:
    """The circuit at the multiples of π/2 next to its angles, but for `free` of them, and for some that are moved on.

    Angles stay near the circuit's, so that what is learned holds there; one in four goes on to another multiple, and
    hardly any two training circuits are the same.
    """
    angles = np.array(circuit.angles)
    quarters = np.round(angles / (math.pi / 2)) + rng.integers(-1, 2, len(angles)) * (rng.random(len(angles)) < 0.25)
    kept = rng.permutation(len(angles))[:free]
    moved = quarters * math.pi / 2
    moved[kept] = angles[kept] + rng.normal(scale=0.3, size=len(kept))
    return circuit.with_angles(moved)


def examples_of(
    circuit: Circuit,
    hamiltonian: Hamiltonian,
    nodes: Sequence[float],
    measure: Callable[[Circuit, float], float],
    rng: np.random.Generator,
    circuits: int = CIRCUITS,
) -> Examples:
    """Training circuits, measured.

    Args:
        circuit: what the network is for.
        hamiltonian: the energy.
        nodes: strengths of the noise.
        measure: a circuit's energy at a strength of the noise.
        rng: draws the training circuits.
        circuits: how many.
    """
    from qas.simulators import make_simulator

    perfect = make_simulator()
    drawn = [near_clifford(circuit, rng) for _ in range(circuits)]
    values = np.array([[measure(each, node) for node in nodes] for each in drawn])
    return Examples(values, np.array([perfect.expectation(each, hamiltonian) for each in drawn]))


class Learned(Extrapolation):
    """A network from the values at the nodes to the one without noise, trained by `train`.

    Its output is that of the straight line and a learned part, so that untrained it is linear. Where it stands in text
    (``fit=learned``) it is trained for each circuit before the circuit is measured.
    """

    about = "a small network: trained on near-Clifford circuits of the same gates"

    def __init__(self) -> None:
        self._network: Any = None
        self._nodes: tuple[float, ...] = NODES
        self._scale = 1.0
        self._limit = 0.0

    @property
    def learns(self) -> bool:  # type: ignore[override]
        """Whether it has still to be trained."""
        return self._network is None

    def prepared(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        nodes: Sequence[float],
        measure: Callable[[Circuit, float], float],
        spread: float,
        seed: int,
    ) -> Extrapolation:
        """Trained for a circuit, unless it is trained already."""
        if not self.learns:
            return self
        examples = examples_of(circuit, hamiltonian, nodes, measure, np.random.default_rng(seed))
        return self.train(nodes, examples, limit=hamiltonian.identity, spread=spread, seed=seed)

    def train(
        self,
        nodes: Sequence[float],
        examples: Examples,
        *,
        limit: float = 0.0,
        spread: float = 0.0,
        seed: int = 0,
    ) -> Learned:
        """A network trained on examples.

        Args:
            nodes: strengths of the noise.
            examples: values there and without noise.
            limit: value at infinite noise.
            spread: standard error of a value that is going to be extrapolated: the network sees examples with as much.
            seed: of its weights and of the spread.

        Raises:
            QasError: fewer than 10 examples, or one that is not finite.
        """
        import torch

        if len(examples.exact) < 10 or not (np.isfinite(examples.values).all() and np.isfinite(examples.exact).all()):
            raise QasError(f"a network is trained on 10 finite examples or more, got {len(examples.exact)}")
        made = Learned()
        made._nodes, made._limit = tuple(nodes), limit
        made._scale = float(np.std(examples.values)) or 1.0
        random = torch.Generator().manual_seed(seed)
        inputs = torch.from_numpy((examples.values - limit) / made._scale)
        wanted = torch.from_numpy((examples.exact - limit) / made._scale)
        network = _network(len(made._nodes), seed)
        line = torch.from_numpy(intercept_weights(made._nodes, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            shaken = inputs + spread / made._scale * torch.randn(inputs.shape, generator=random, dtype=inputs.dtype)
            loss = ((shaken @ line + network(shaken)[:, 0] - wanted) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        made._network = network
        return made

    def _at_zero(self, nodes: np.ndarray, values: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        if self.learns:
            raise QasError("a learned extrapolation is trained before it is used (qas.mitigation.learned)")
        if tuple(nodes) != self._nodes:
            raise QasError(f"the network was trained at the nodes {self._nodes}, got {tuple(nodes)}")
        import torch

        inputs = torch.from_numpy((values - self._limit) / self._scale).requires_grad_()
        line = torch.from_numpy(intercept_weights(self._nodes, 1))
        output = inputs @ line + self._network(inputs[None])[0, 0]
        output.backward()
        assert inputs.grad is not None
        return self._limit + self._scale * float(output.detach()), inputs.grad.numpy()


def _network(n_inputs: int, seed: int) -> Any:
    import torch

    random = torch.get_rng_state()
    torch.manual_seed(seed)
    last = torch.nn.Linear(HIDDEN, 1)
    inner = (torch.nn.Linear(n_inputs, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Tanh())
    network = torch.nn.Sequential(*inner, last).double()
    torch.set_rng_state(random)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return network
