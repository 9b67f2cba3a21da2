"""What every simulator offers: expectation values and gradients of a circuit, and objectives for the optimizers."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel


class BaseObjective(abc.ABC):
    """What one architecture is judged by, as a function of its angles; counts its own calls.

    A subclass that can minimize itself faster than SciPy has a method ``minimize_compiled(start, max_evaluations,
    tolerance)``; see `qas.simulators.compiled.CompiledObjective`.

    Attributes:
        nfev: calls of the objective; a gradient counts as one of them.
        njev: gradients among them.
        threaded: several of its kind may be minimized at once in different threads, and gain from it.
        scratch: bytes that a minimization in one thread may take; 0 where that is of no account.
    """

    threaded: ClassVar[bool] = False
    scratch: int = 0

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.n_angles = circuit.n_angles
        self.nfev = 0
        self.njev = 0

    def __call__(self, angles: np.ndarray) -> float:
        """Energy at `angles`, shape (n_angles,)."""
        self.nfev += 1
        return self._value(angles)

    def value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and its gradient, float64, shape (n_angles,)."""
        self.nfev += 1
        self.njev += 1
        return self._value_and_gradient(angles)

    @abc.abstractmethod
    def _value(self, angles: np.ndarray) -> float: ...

    @abc.abstractmethod
    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]: ...


class Objective(BaseObjective):
    """Energy of one architecture as a function of its angles, by a simulator."""

    def __init__(self, simulator: Simulator, circuit: Circuit, hamiltonian: Hamiltonian) -> None:
        super().__init__(circuit)
        self.simulator = simulator
        self.hamiltonian = hamiltonian

    def _value(self, angles: np.ndarray) -> float:
        return self.simulator.expectation(self.circuit, self.hamiltonian, angles)

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        return self.simulator.expectation_and_gradient(self.circuit, self.hamiltonian, angles)

    def terms(self, angles: np.ndarray) -> np.ndarray:
        """Measured expectation value of each Pauli term, shape (n_terms,), in the order of `hamiltonian.strings`."""
        self.nfev += 1
        return self.simulator.term_expectations(self.circuit, self.hamiltonian, angles)


class Simulator(abc.ABC):
    """One engine with one noise model. All methods are deterministic and leave the simulator unchanged.

    To add an engine: subclass, and register the class (`qas.simulators.ENGINES`, or an entry point in the group
    ``qas.engines``), or hand it to `make_simulator`. An engine that draws shots itself has a method ``sample(circuit,
    hamiltonian, shots, seed)`` that returns an estimate and its standard error.

    Args:
        noise: a noise model, or None for a perfect device.
    """

    name: str
    about: ClassVar[str] = ""
    """one line for lists"""
    noise: NoiseModel | None

    def __init__(self, noise: NoiseModel | None = None) -> None:
        self.noise = noise

    @abc.abstractmethod
    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        """Tr(H ρ), with readout flips applied to H.

        Args:
            circuit: n qubits.
            hamiltonian: on the same number of qubits.
            angles: replaces the circuit's own angles, radians, shape (n_angles,).

        Raises:
            CircuitError: sizes that differ, wrong number of angles, angles that are not finite, or a gate the device
                does not have.
            TooLargeError: more qubits than the engine can hold.
        """

    @abc.abstractmethod
    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """As `expectation`, with the exact gradient in all angles, float64, shape (n_angles,)."""

    def expectation_many(
        self,
        circuits: Sequence[Circuit],
        hamiltonian: Hamiltonian,
        angles: Sequence[Sequence[float] | np.ndarray | None] | np.ndarray | None = None,
        *,
        workers: int | None = None,
    ) -> np.ndarray:
        """Energies of many circuits, float64, shape (n_circuits,), each as `expectation` gives it.

        The compiled engines work on all cores; the others on one circuit after the other.

        Args:
            circuits: on as many qubits as the Hamiltonian; the same circuit may occur often.
            hamiltonian: as of `expectation`.
            angles: for each circuit what replaces its own, or None; or None for all.
            workers: threads; None: one for each core that the process may use.

        Raises:
            CircuitError, TooLargeError: as `expectation`, or angles for another number of circuits.
            QasError: workers below 1.
        """
        chosen = list(circuits)
        given = [None] * len(chosen) if angles is None else list(angles)
        if len(given) != len(chosen):
            raise CircuitError(f"there are angles for each of {len(chosen)} circuits, got {len(given)} arrays of them")
        whole_number("workers", 1 if workers is None else workers)
        found = self._expectations(list(zip(chosen, given, strict=True)), hamiltonian, workers)
        return np.array(found, dtype=np.float64)

    def _expectations(
        self, pairs: list[tuple[Circuit, Any]], hamiltonian: Hamiltonian, workers: int | None
    ) -> list[float]:
        return [self.expectation(circuit, hamiltonian, values) for circuit, values in pairs]

    @abc.abstractmethod
    def term_expectations(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        """Measured ⟨P_k⟩ of each Pauli term, float64, shape (n_terms,), in the order of `hamiltonian.strings`."""

    def objective(self, circuit: Circuit, hamiltonian: Hamiltonian) -> Objective:
        """The energy of `circuit` as a function of its angles."""
        return Objective(self, circuit, hamiltonian)

    def check_size(self, n_qubits: int) -> None:  # noqa: B027
        """Refuse registers that do not fit; an engine without a limit of its own refuses none.

        Raises:
            TooLargeError: with the memory it would need and the limit.
        """


def check_angles(circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """The angles to use, float64, contiguous; refuses sizes that do not fit and values that are not finite."""
    if circuit.n_qubits != hamiltonian.n_qubits:
        raise CircuitError(f"the circuit has {circuit.n_qubits} qubits but the Hamiltonian has {hamiltonian.n_qubits}")
    if angles is None:
        return circuit.angles
    values = np.ascontiguousarray(angles, dtype=np.float64)
    if values.shape != (circuit.n_angles,):
        raise CircuitError(f"the circuit has {circuit.n_angles} angles, got an array of shape {values.shape}")
    if not math.isfinite(values.sum()):
        raise CircuitError("angles must be finite, got NaN or infinity")
    return values
