"""A circuit as a layer of a torch model: some angles are data, the others are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian

if TYPE_CHECKING:
    from qas.simulators.torch_engine import TorchSimulator


class CircuitLayer(nn.Module):
    """Expectation values of a circuit as a function of data and trainable angles.

    Data go into the angles unchanged: scale and shift them before. The values keep the dtype and device of the data.

    Args:
        simulator: where it is computed, with which noise.
        circuit: its angles are where the trainable ones start.
        observables: one operator or several, on the same number of qubits.
        inputs: positions among the angles, from 0, that data take, in the order of the data's last axis.

    Attributes:
        angles: trainable angles, float64, radians, shape (n_angles - n_inputs,), in the circuit's order.

    Raises:
        CircuitError: sizes that differ, or a gate the device does not have.
        QasError: no observables, or inputs that are not different positions among the angles.
    """

    order: Tensor

    def __init__(
        self,
        simulator: TorchSimulator,
        circuit: Circuit,
        observables: Hamiltonian | Sequence[Hamiltonian],
        inputs: Iterable[int] = (),
    ) -> None:
        super().__init__()
        self.simulator, self.circuit = simulator, circuit
        self.observables = (observables,) if isinstance(observables, Hamiltonian) else tuple(observables)
        most = circuit.n_angles - 1
        taken = [whole_number("an input's position among the angles", index, 0, most) for index in inputs]
        if len(set(taken)) < len(taken):
            raise QasError(f"each input has an angle of its own, got positions {taken}")
        free = [index for index in range(circuit.n_angles) if index not in set(taken)]
        self.n_inputs = len(taken)
        self.angles = nn.Parameter(torch.tensor(circuit.angles[free]))
        order = sorted(range(circuit.n_angles), key=[*taken, *free].__getitem__)
        self.register_buffer("order", torch.tensor(order, dtype=torch.int64), persistent=False)
        with torch.no_grad():
            simulator.expectations_batch(circuit, self.observables, circuit.angles[None])

    def forward(self, data: Tensor | None = None) -> Tensor:
        """Values, shape (..., n_observables), for data of shape (..., n_inputs); None stands for no data at all.

        Raises:
            CircuitError: data of another shape.
        """
        if data is None:
            data = self.angles.new_zeros(0)
        if data.shape[-1:] != (self.n_inputs,):
            raise CircuitError(
                f"the layer takes {self.n_inputs} inputs on the last axis, got shape {tuple(data.shape)}"
            )
        flat = data.reshape(-1, self.n_inputs) if self.n_inputs else data.new_zeros(data.shape[:-1].numel(), 0)
        trained = self.angles.expand(len(flat), -1).to(data.device)
        angles = torch.cat([flat.to(trained.dtype), trained], dim=1)[:, self.order.to(data.device)]
        values = self.simulator.expectations_batch(self.circuit, self.observables, angles)
        return values.to(data.dtype).reshape(*data.shape[:-1], len(self.observables))

    def extra_repr(self) -> str:
        """One line for the printed model."""
        return f"{self.circuit!r}, {self.n_inputs} inputs, {len(self.observables)} observables"
