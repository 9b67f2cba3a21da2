"""Engines that give a mitigated score where others give an energy, so that all that uses an engine works unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.mitigation import _combined as kernels
from qas.mitigation.recipe import Estimate, Recipe
from qas.mitigation.sampling import Measurement, measurement
from qas.noise import NoiseModel
from qas.simulators._entry import STATE
from qas.simulators.base import Angles, Asked, Simulator, check_angles
from qas.simulators.compiled import CompiledObjective, CompiledSimulator, finished
from qas.simulators.insertions import NO_CHANNELS
from qas.simulators.pauli_transfer import PauliTransferSimulator
from qas.simulators.workers import memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qas.simulators.insertions import Curves


class _Observable(NamedTuple):
    """A Hamiltonian as it is measured, and the settings of `_combined.combine` for it."""

    measured: Measurement
    nodes: np.ndarray  # float64 (nodes, 3)
    settings: np.ndarray  # float64 (5,)


class Mitigated(Simulator):
    """A simulator whose expectation value is a mitigated score.

    Gradients are exact. Slopes and gains of inserted gates are those of the score; gains and costs are to first order
    in what they change where the score is not linear in energies (an exponential fit, or a weight of the standard
    error).

    Args:
        noise: the device's.
        nodes: an engine for each strength of the noise, weakest first.
        recipe: how their energies are combined.
    """

    about = "a mitigated score"
    idle = True  # engines of nodes that do not know it say so

    def __init__(self, noise: NoiseModel | None, nodes: Sequence[Simulator], recipe: Recipe) -> None:
        super().__init__(noise)
        self._set(nodes, recipe)

    def _set(self, nodes: Sequence[Simulator], recipe: Recipe) -> None:
        self.nodes, self.recipe = list(nodes), recipe
        self.name = self.nodes[0].name
        self.resolution = max(node.resolution for node in self.nodes) * float(np.abs(recipe.fit).sum())
        self.fell = np.zeros(1, dtype=np.int64)
        """Set by compiled code where an extrapolation did not converge."""
        self._warned = False
        self._measured: tuple[Hamiltonian, _Observable] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.noise, self.nodes, self.recipe)

    def check_size(self, n_qubits: int) -> None:
        for node in self.nodes:
            node.check_size(n_qubits)

    # ------------------------------------------------------------------ the score
    def observable(self, hamiltonian: Hamiltonian) -> _Observable:
        """A Hamiltonian as it is measured; the last one is remembered."""
        if self._measured is None or self._measured[0] is not hamiltonian:
            self._measured = hamiltonian, self._observable(hamiltonian)
        return self._measured[1]

    def _observable(self, hamiltonian: Hamiltonian) -> _Observable:
        recipe = self.recipe
        flips = np.zeros((hamiltonian.n_qubits, 2))
        if self.noise is not None:
            flips = self.noise.readout_flips(hamiltonian.n_qubits)
        measured = measurement(hamiltonian, flips, inverted=recipe.inverted, assignment=recipe.assignment)
        bound = float(np.abs(hamiltonian.coefficients).sum()) - abs(hamiltonian.identity)
        settings = [hamiltonian.identity, bound * (1 + 1e-9), recipe.kappa, recipe.shots or 1, recipe.exponential]
        nodes = np.stack([recipe.fit, recipe.straight, recipe.shares], axis=1)
        return _Observable(measured, nodes, np.array(settings, dtype=np.float64))

    def estimate(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> Estimate:
        """A circuit's score, and what it is made of; arguments and errors as of `expectation`."""
        values = check_angles(circuit, hamiltonian, angles)
        lowering = circuit.lowering
        if lowering is not None:
            circuit, values = lowering.circuit, lowering.angles(values)
        out, _ = self._combined(circuit, hamiltonian, values, gradient=False)
        sigma = None if self.recipe.shots is None else float(out[kernels.SIGMA])
        fallen = bool(out[kernels.FALLEN])
        return Estimate(float(out[kernels.SCORE]), float(out[kernels.MITIGATED]), sigma, fallen)

    def _combined(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray, *, gradient: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `_combined.combine` says; and for a gradient the weights of the strings at each node."""
        observable = self.observable(hamiltonian)
        values = self._values(circuit, observable.measured, angles)
        weights, known, out = scratch(observable)
        measured = observable.measured[1:]
        kernels.combine(values, weights, *measured, observable.nodes, observable.settings, known, out, gradient)
        return out, weights

    def _values(self, circuit: Circuit, measured: Measurement, angles: np.ndarray) -> np.ndarray:
        """Expectation values of all strings at each node, float64, shape (nodes, strings)."""
        strings = measured.operator(circuit.n_qubits, np.ones(len(measured.strings)))
        order = np.argsort(strings.pauli_index)
        return np.array([node.term_expectations(circuit, strings, angles)[order] for node in self.nodes])

    def _circuits(self, circuit: Circuit) -> list[Circuit]:
        """The circuit as each node takes it."""
        return [circuit] * len(self.nodes)

    def _operator(self, n_qubits: int, measured: Measurement, weights: np.ndarray) -> Any:
        """Σ weight · string as a node takes it."""
        return measured.operator(n_qubits, weights)

    def tell(self) -> None:
        """Warn, once in an engine's life, that an extrapolation did not converge."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "an extrapolation did not converge (energies on both sides of the mixed state's, or a fit far beyond "
                "them): a straight line took its place",
                stacklevel=3,
            )

    # ------------------------------------------------------------------ as an engine
    def expectation(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> float:
        out, _ = self._combined(circuit, hamiltonian, check_angles(circuit, hamiltonian, angles), gradient=False)
        if out[kernels.FALLEN]:
            self.tell()
        return float(out[kernels.SCORE])

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None
    ) -> tuple[float, np.ndarray]:
        values = check_angles(circuit, hamiltonian, angles)
        out, weights = self._combined(circuit, hamiltonian, values, gradient=True)
        measured = self.observable(hamiltonian).measured
        gradient = np.zeros(len(values))
        for node, row in zip(self.nodes, weights, strict=True):
            gradient += node.expectation_and_gradient(circuit, measured.operator(circuit.n_qubits, row), values)[1]
        return float(out[kernels.SCORE]), gradient

    def term_expectations(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> np.ndarray:
        raise QasError("a mitigated energy has no single terms: the objective's own setting shots= says what it costs")

    def _insertion_slopes(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        parts = [node._insertion_slopes(here) for node, here in self._parts(asked)]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)  # type: ignore[return-value]

    def _append_curves(self, asked: Asked) -> tuple[Curves, np.ndarray, np.ndarray]:
        from qas.simulators.insertions import Curves

        parts = [node._append_curves(here) for node, here in self._parts(asked)]
        strings, sums, costs = zip(*parts, strict=True)
        curves = Curves(*(np.sum(values, axis=0) for values in zip(*strings, strict=True)))
        return curves, np.sum(sums, axis=0), np.sum(costs, axis=0)

    def _parts(self, asked: Asked) -> Iterator[tuple[Simulator, Asked]]:
        """Engine and what it is asked, at each node."""
        circuit, hamiltonian, generators, angles, _, channels = asked
        weights = self._combined(circuit, hamiltonian, angles, gradient=True)[1]
        measured = self.observable(hamiltonian).measured
        for node, copy, row in zip(self.nodes, self._circuits(circuit), weights, strict=True):
            operator = self._operator(circuit.n_qubits, measured, row)
            there = channels if channels is NO_CHANNELS else generators.channels(node.noise)
            yield node, asked._replace(circuit=copy, hamiltonian=operator, channels=there)


def scratch(observable: _Observable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Memory for `_combined.combine`: weights, known, out."""
    measured, count = observable.measured, len(observable.nodes)
    known = np.empty((count, kernels.MEANS + len(measured.share)))
    return np.empty((count, len(measured.strings))), known, np.empty(4)


class _Weighted(NamedTuple):
    """An observable by its coefficients over all 4**n strings, as the Pauli-transfer engine reads it."""

    pauli_vector: np.ndarray


class CompiledMitigated(Mitigated, CompiledSimulator):
    """The same on the Pauli-transfer engine, all of it compiled."""

    nodes: list[PauliTransferSimulator]  # type: ignore[assignment]

    def __init__(self, noise: NoiseModel | None, nodes: Sequence[PauliTransferSimulator], recipe: Recipe) -> None:
        CompiledSimulator.__init__(self, noise)
        self._set(nodes, recipe)

    def expectation(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> float:
        self.fell[0] = 0
        score = CompiledSimulator.expectation(self, circuit, hamiltonian, angles)
        if self.fell[0]:
            self.tell()
        return score

    expectation_and_gradient = CompiledSimulator.expectation_and_gradient

    def check_size(self, n_qubits: int) -> None:
        super().check_size(n_qubits)
        need = 3 * (8 << 2 * n_qubits) * len(self.nodes)
        if need > memory_limit():
            raise TooLargeError(
                f"{n_qubits} noisy qubits at {len(self.nodes)} strengths of the noise need {need / 1e9:.1f} GB, this "
                f"machine has {memory_limit() / 1e9:.1f} GB"
            )

    def _operations(self, gate: Gate) -> list[tuple[int, int]]:
        raise NotImplementedError("each node has operations of its own")

    def observable(self, hamiltonian: Hamiltonian) -> _Observable:
        return CompiledSimulator.observable(self, hamiltonian)

    def gradient_bytes(self, n_qubits: int) -> int:
        return sum(node.gradient_bytes(n_qubits) for node in self.nodes)

    def compiled(self, circuit: Circuit) -> list[Circuit]:
        """A copy of the circuit for each node, which carries that node's arrays."""
        held = circuit.__dict__.get("_compiled")
        if held is not None and held[0] is self:
            return held[1]
        copies = [Circuit(circuit.n_qubits, circuit.gates) for _ in self.nodes]
        for node, copy in zip(self.nodes, copies, strict=True):
            node.compiled(copy)
        circuit.__dict__["_compiled"] = self, copies
        return copies

    def call(self, circuit: Circuit, hamiltonian: Hamiltonian, *, gradient: bool = True) -> kernels.Combined:
        observable = self.observable(hamiltonian)
        measured = observable.measured
        weights, known, out = scratch(observable)
        values = np.empty_like(weights)
        inner = []
        for k, (node, copy) in enumerate(zip(self.nodes, self.compiled(circuit), strict=True)):
            places = node.compiled(copy).located(measured.strings)
            inner.append(node._call(copy, places, weights[k], gradient=gradient, out=values[k]))
        arrays = (values, weights, *measured[1:], observable.nodes, observable.settings, known, out)
        return kernels.Combined(inner, arrays, self.fell)

    def _values(self, circuit: Circuit, measured: Measurement, angles: np.ndarray) -> np.ndarray:
        values = np.empty((len(self.nodes), len(measured.strings)))
        for row, node, copy in zip(values, self.nodes, self.compiled(circuit), strict=True):
            places = node.compiled(copy).located(measured.strings)
            finished(node._call(copy, places, row, gradient=False, out=row).run(STATE, angles))
        return values

    def _circuits(self, circuit: Circuit) -> list[Circuit]:
        return self.compiled(circuit)

    def _operator(self, n_qubits: int, measured: Measurement, weights: np.ndarray) -> Any:
        vector = np.zeros(4**n_qubits)
        vector[measured.strings] = weights
        return _Weighted(vector)

    def objective(self, circuit: Circuit, hamiltonian: Hamiltonian) -> CompiledObjective:
        return MitigatedObjective(self, circuit, hamiltonian)


class MitigatedObjective(CompiledObjective):
    """Warns where a minimization ends at angles from which an extrapolation does not converge."""

    simulator: CompiledMitigated

    def counted(self, result: Any) -> Any:
        if self.simulator.fell[0]:  # on the way, at least; it is set by any thread
            self.simulator.fell[0] = 0
            if self.simulator.estimate(self.circuit, self.hamiltonian, result.x).fell_back:
                self.simulator.tell()
        return super().counted(result)
