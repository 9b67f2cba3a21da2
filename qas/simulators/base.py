"""What every simulator offers: expectation values and gradients of a circuit, and objectives for the optimizers."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, overload

import numpy as np

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.errors import CircuitError, QasError
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel

if TYPE_CHECKING:
    from qas.decomposition import Lowering
    from qas.simulators._inserted import Channels, Inserting
    from qas.simulators.insertions import Curves, Generators


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

    @property
    def resolution(self) -> float:
        """Largest rounding error of a value, in the objective's unit; 0 where nothing below 1e-12 is asked for."""
        return 0.0

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

    @property
    def sinusoidal(self) -> bool:
        return self.simulator.linear and self.circuit.lowering is None

    @property
    def resolution(self) -> float:
        if not self.simulator.resolution:
            return 0.0
        coefficients = self.hamiltonian.coefficients
        return self.simulator.resolution * (float(abs(coefficients).sum()) - abs(self.hamiltonian.identity))

    def _value(self, angles: np.ndarray) -> float:
        return self.simulator.expectation(self.circuit, self.hamiltonian, angles)

    def _value_and_gradient(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        return self.simulator.expectation_and_gradient(self.circuit, self.hamiltonian, angles)

    def terms(self, angles: np.ndarray) -> np.ndarray:
        """Measured expectation value of each Pauli term, shape (n_terms,), in the order of `hamiltonian.strings`."""
        self.nfev += 1
        return self.simulator.term_expectations(self.circuit, self.hamiltonian, angles)


Angles = Sequence[float] | np.ndarray | None

ROUNDING = 1e-14
"""Differences of energies in double precision are rounding below so much, times the sum of all |coefficients|."""


def _of_primitives(back: Callable[[Lowering, Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for methods ``(circuit, hamiltonian, angles=None)`` of an engine, for circuits with excitations too.

    Args:
        back: what is returned, from the lowering and from what the method returns for the primitive gates.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def lowered(self: Simulator, circuit: Circuit, hamiltonian: Hamiltonian, angles: Angles = None) -> Any:
            lowering = self.lowering(circuit)
            if lowering is None:
                return method(self, circuit, hamiltonian, angles)
            values = check_angles(circuit, hamiltonian, angles)
            return back(lowering, method(self, lowering.circuit, hamiltonian, lowering.angles(values)))

        return lowered

    return decorate


value_of_primitives = _of_primitives(lambda lowering, found: found)
gradient_of_primitives = _of_primitives(lambda lowering, found: (found[0], lowering.gradient(found[1])))


def state_of_primitives(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method ``(circuit, angles=None)`` that returns the state."""

    @functools.wraps(method)
    def lowered(self: Simulator, circuit: Circuit, angles: np.ndarray | None = None) -> Any:
        lowering = self.lowering(circuit)
        if lowering is None:
            return method(self, circuit, angles)
        return method(self, lowering.circuit, lowering.angles(circuit.angles if angles is None else angles))

    return lowered


def sample_of_primitives(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose first argument is the circuit, at its own angles."""

    @functools.wraps(method)
    def lowered(self: Simulator, circuit: Circuit, *arguments: Any, **keywords: Any) -> Any:
        return method(self, circuit if self.runs_excitations else circuit.decompose(), *arguments, **keywords)

    return lowered


def call_of_primitives(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that returns the call of a compiled engine for a circuit."""

    @functools.wraps(method)
    def lowered(self: Simulator, circuit: Circuit, *arguments: Any, **keywords: Any) -> Any:
        lowering = self.lowering(circuit)
        if lowering is None:
            return method(self, circuit, *arguments, **keywords)
        from qas.simulators._tied import Tied

        return Tied(lowering, method(self, lowering.circuit, *arguments, **keywords))

    return lowered


class Asked(NamedTuple):
    """What an engine is asked about gates that could be inserted."""

    circuit: Circuit
    """as the engine runs it (see `Simulator.lowering`)"""
    hamiltonian: Hamiltonian
    generators: Generators
    angles: np.ndarray
    positions: np.ndarray
    """int64, ascending"""
    channels: Channels
    """noise of the inserted gates, where it is asked for"""


LOWERED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "expectation": value_of_primitives,
    "expectation_and_gradient": gradient_of_primitives,
    "term_expectations": value_of_primitives,
    "state": state_of_primitives,
    "pauli_expectations": state_of_primitives,
    "sample": sample_of_primitives,
    "call": call_of_primitives,
}
"""Methods of engines that see circuits of primitive gates only, and what takes excitations out before."""


class Simulator(abc.ABC):
    """One engine with one noise model. All methods are deterministic and leave the simulator unchanged.

    To add an engine: subclass, and register the class (`qas.simulators.ENGINES`, or an entry point in the group
    ``qas.engines``), or hand it to `make_simulator`. An engine that draws shots itself has a method ``sample(circuit,
    hamiltonian, shots, seed)`` that returns an estimate and its standard error.

    Excitations are an engine's business only if it says so (`runs_excitations`): else the methods of `LOWERED` get
    circuits of primitive gates only, also in subclasses, and gradients are taken back through the tied angles by the
    chain rule. Noise acts on primitive gates, so an engine with noise never runs excitations itself.

    Args:
        noise: a noise model, or None for a perfect device.

    Raises:
        QasError: idle noise, for an engine that does not know it.
    """

    name: str
    about: ClassVar[str] = ""
    """one line for lists"""
    runs_excitations: ClassVar[bool] = False
    """excitations are gates of this engine, and nothing is decomposed for it"""
    linear: bool = True
    """whether what it returns is linear in the final state, as expectation values are"""
    resolution: float = 0.0
    """largest rounding error of the expectation value of one Pauli string; 0 for engines in double precision"""
    sweeps: ClassVar[bool] = False
    """whether slopes of all gates that could be inserted take no longer than a few energies"""
    measured: ClassVar[bool] = True
    """whether a device measures what it returns, so that errors of measured values can be mitigated"""
    idle: ClassVar[bool] = False
    """whether the engine knows the noise of waiting qubits (`NoiseModel.idle`); one that does not refuses it"""
    noise: NoiseModel | None

    def __init__(self, noise: NoiseModel | None = None) -> None:
        if noise is not None and noise.idle is not None and not self.idle:
            raise QasError(f"engine {self.name!r} knows no idle noise, got noise {noise.name!r} with it")
        self.noise = noise

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, on_primitives in LOWERED.items():
            if name in cls.__dict__:
                setattr(cls, name, on_primitives(cls.__dict__[name]))

    @property
    def kind(self) -> type[Simulator]:
        """What makes an engine like this one with other noise."""
        return type(self)

    def lowering(self, circuit: Circuit) -> Lowering | None:
        """How this engine runs a circuit; None where it runs the gates as they are."""
        return None if self.runs_excitations else circuit.lowering

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
            workers: threads; None: one for each core that the process may use; 1: one core, also for large circuits.

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

    # ------------------------------------------------------------------ what inserting and deleting would bring
    @overload
    def insertion_gradients(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        positions: Sequence[int] | None = None,
        costs: Literal[False] = False,
    ) -> np.ndarray: ...

    @overload
    def insertion_gradients(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        positions: Sequence[int] | None = None,
        costs: Literal[True],
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def insertion_gradients(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        positions: Sequence[int] | None = None,
        costs: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """dE/dθ at θ = 0 of exp(-iθG/2), without noise of its own, inserted before each gate and after the last one.

        It takes no time: under idle noise qubits wait as they do without it, and it acts when they have waited for
        their next gate.

        Args:
            generators: Pauli strings, and Hamiltonians for sums of them; None: all one- and two-qubit strings, in the
                order of `qas.simulators.insertions.pauli_generators`.
            angles: as in `expectation`.
            positions: k for a place before gate k, len(circuit) for the end; None: all of them, in their order. What
                lies before the first one asked for takes no time.
            costs: also return what the noise of each inserted gate costs at θ = 0: the energy with it, less the energy
                without it, exactly. Generators are then strings on one or two qubits. The gates are rx, ry and rz; rxx,
                ryy and rzz where the noise model has noise for them; else rx, ry, rz and two cx, each with its noise
                (`qas.simulators._inserted.rotation_gates`).

        Returns:
            float64, shape (n_positions, n_generators); with `costs` a pair of them. Costs are 0 without noise, and
            infinite where the device has no such gate.

        Raises:
            QasError: generators or positions that are none; costs of wider generators; for an engine without kernels of
                its own also noise.
            CircuitError, TooLargeError: as `expectation`.
        """
        from qas.simulators.insertions import NO_CHANNELS, read_generators, read_positions

        values = check_angles(circuit, hamiltonian, angles)
        read = read_generators(circuit.n_qubits, generators)
        chosen, row = read_positions(len(circuit), positions)
        lowering = self.lowering(circuit)
        if lowering is not None:
            circuit, values, chosen = lowering.circuit, lowering.angles(values), lowering.starts[chosen]
        values = values.view()
        values.flags.writeable = False  # as those of a circuit are: kernels are compiled for one kind of array
        channels = read.channels(self.noise) if costs else NO_CHANNELS
        slopes, lost = self._insertion_slopes(Asked(circuit, hamiltonian, read, values, chosen, channels))
        if costs:
            return read.slopes(slopes)[row], read.costs(lost, self.noise)[row]
        return read.slopes(slopes)[row]

    @overload
    def append_gains(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        costs: Literal[False] = False,
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def append_gains(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        costs: Literal[True],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def append_gains(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        generators: Sequence[str | Hamiltonian] | None = None,
        angles: Sequence[float] | np.ndarray | None = None,
        *,
        costs: bool = False,
    ) -> tuple[np.ndarray, ...]:
        """How far one appended exp(-iθG/2) can lower the energy, the other angles held, in closed form.

        Args:
            generators: as in `insertion_gradients`, but each with eigenvalues 0, s and -s for some s (G³ = s²G), such
                as Pauli strings with any coefficient, excitations of one or two electrons, and exchange operators. For
                an excitation with eigenvalues 0, 1 and -1 that other codes write exp(-iθG), double the angle.
            angles: as in `expectation`.
            costs: as in `insertion_gradients`; a third array is returned. Gains are those without noise of the gate.

        Returns:
            gains E(0) - min E(θ) >= 0 and the best θ in radians, float64, shape (n_generators,) each. Where nothing is
            gained but rounding both are 0; of equal minima it is the one with the smallest |θ|, θ > 0 before θ < 0.

        Raises:
            QasError: as `insertion_gradients`; also a generator with other eigenvalues.
            CircuitError, TooLargeError: as `expectation`.
        """
        from qas.simulators.insertions import NO_CHANNELS, read_generators

        values = check_angles(circuit, hamiltonian, angles)
        read = read_generators(circuit.n_qubits, generators)
        lowering = self.lowering(circuit)
        if lowering is not None:
            circuit, values = lowering.circuit, lowering.angles(values)
        channels = read.channels(self.noise) if costs else NO_CHANNELS
        end = np.array([len(circuit)])
        strings, sums, lost = self._append_curves(Asked(circuit, hamiltonian, read, values, end, channels))
        floor = max(self.resolution, ROUNDING) * float(np.abs(hamiltonian.coefficients).sum())
        found = read.best(strings, sums, floor)
        return (*found, read.costs(lost, self.noise)) if costs else found

    def deletion_costs(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        angles: Sequence[float] | np.ndarray | None = None,
        inverse_hessian: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rise of the energy when one angle is held at 0 and all others are optimized again, in the quadratic model.

        Lagrange's condition gives θᵢ² / 2(H⁻¹)ᵢᵢ, with θᵢ modulo full turns between -π and π (the optimal brain
        surgeon's saliency; Hassibi and Stork, NIPS 1992). It holds at a minimum, and is exact where the energy is
        quadratic up to the new minimum. A gate with several angles gets one price for each of them.

        Args:
            angles: where the minimum lies; None: the circuit's own angles.
            inverse_hessian: shape (n_angles, n_angles), such as ``hess_inv`` of a compiled minimization, which knows
                only the directions it went; None, and the unit matrix that a minimization without a step returns: exact
                second derivatives, for 2 n_angles gradients. Flat directions and those that lead down cost next to
                nothing.

        Returns:
            float64, shape (n_angles,), in the energy's unit.

        Raises:
            CircuitError: an inverse Hessian of the wrong shape, or whose diagonal is not positive and finite.
            CircuitError, TooLargeError: as `expectation`.
        """
        from qas.simulators.insertions import checked_inverse, exact_hessian, inverse_diagonal, wrapped

        values = check_angles(circuit, hamiltonian, angles)
        diagonal = None if inverse_hessian is None else checked_inverse(inverse_hessian, len(values))
        if diagonal is None:

            def gradient(at: np.ndarray) -> np.ndarray:
                return self.expectation_and_gradient(circuit, hamiltonian, at)[1]

            diagonal = inverse_diagonal(exact_hessian(gradient, values))
        return wrapped(values) ** 2 / (2.0 * diagonal)

    def _insertion_slopes(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Slopes of strings and sums, shape (positions, strings + sums); costs of strings, (positions, strings)."""
        circuit, hamiltonian, generators, angles, positions, _ = asked
        inserting = self._inserting(circuit, hamiltonian, angles)
        strings = generators.expanded.strings
        slopes = [[inserting.curve(k, string)[0] for string in strings] for k in positions]
        values = np.array(slopes).reshape(len(positions), len(strings))
        lost = np.zeros((len(positions), len(generators.strings)))
        return generators.expanded.values(values, len(generators.strings)), lost

    def _append_curves(self, asked: Asked) -> tuple[Curves, np.ndarray, np.ndarray]:
        """Energies of appended rotations about strings, (α, β, γ, δ) of sums, and costs of strings."""
        circuit, hamiltonian, generators, angles, _, _ = asked
        from qas.simulators.insertions import Curves

        inserting, end = self._inserting(circuit, hamiltonian, angles), len(circuit)
        strings = np.array([inserting.curve(end, string) for string in generators.strings]).reshape(-1, 2)
        sums = [inserting.sum_curve(*pair) for pair in zip(generators.sums, generators.scales, strict=True)]
        return Curves(*strings.T), np.array(sums).reshape(-1, 4), np.zeros(len(generators.strings))

    def _inserting(self, circuit: Circuit, hamiltonian: Hamiltonian, angles: np.ndarray) -> Inserting:
        from qas.simulators._inserted import Inserting

        if self.noise is not None:
            raise QasError(f"the {self.name} engine really inserts gates, with their noise; use pauli-transfer")
        return Inserting(lambda changed: self.expectation(changed, hamiltonian), circuit.with_angles(angles))

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
    if not math.isfinite(values.sum()) and not np.isfinite(values).all():  # finite ones may overflow
        raise CircuitError("angles must be finite, got NaN or infinity")
    return values
