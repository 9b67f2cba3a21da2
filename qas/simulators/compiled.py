"""What the two compiled engines share: circuits as arrays, cached observables, compiled minimization."""

from __future__ import annotations

import abc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from qas.circuits import Circuit, Gate
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators import interrupt
from qas.simulators._entry import GRADIENT, VALUE, Call
from qas.simulators.base import Objective, Simulator, check_angles
from qas.simulators.workers import in_order, worker_count


class CompiledCircuit(NamedTuple):
    """A circuit as arrays for the kernels."""

    n_qubits: int
    ops: np.ndarray  # int64 (n_ops,): rows of the simulator's library
    slots: np.ndarray  # int64 (n_ops,): index of the angle, or -1


class GateOperations(NamedTuple):
    """A circuit as operations of the kernels, gate by gate."""

    ops: np.ndarray  # int64 (n_ops,): rows of the simulator's library
    slots: np.ndarray  # int64 (n_ops,): index of the angle, or -1
    starts: np.ndarray  # int64 (n_gates + 1,): first operation of each gate, and their number
    masks: np.ndarray  # int64 (n_gates,): bit mask of each gate's qubits


def finished(energy: float) -> float:
    """What a kernel returned, if it came to its end.

    Raises:
        Interrupted: it did not.
    """
    if energy != energy:
        interrupt.check()
    return energy


class CompiledSimulator(Simulator):
    """Base of the engines whose kernels are compiled once: gates are data, so a new circuit compiles nothing."""

    sweeps = True

    def __init__(self, noise: NoiseModel | None = None) -> None:
        super().__init__(noise)
        self._rows: dict[tuple[str, tuple[int, ...]], list[tuple[int, int]]] = {}
        self._waiting: dict[tuple[int, bytes], list[tuple[int, int]]] = {}
        self._observables: OrderedDict[int, tuple[Hamiltonian, Any]] = OrderedDict()
        self._lock = threading.RLock()
        self._local = threading.local()
        self.counting = threading.Lock()
        """Held while objectives count: one of them may be minimized by several threads, from several starts."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.noise,)  # tables and scratch memory are rebuilt on demand

    @abc.abstractmethod
    def check_size(self, n_qubits: int) -> None:
        """Refuse registers that do not fit.

        Raises:
            TooLargeError: with the memory it would need and the limit.
        """

    @abc.abstractmethod
    def _operations(self, gate: Gate) -> list[tuple[int, int]]: ...

    def _wait(self, qubit: int, ptm: np.ndarray) -> list[tuple[int, int]]:
        """As `_operations`, for the channel of a waiting qubit; of engines with idle noise."""
        raise NotImplementedError

    def _gate_entries(self, circuit: Circuit, first: int = 0) -> Iterator[tuple[Gate, list[tuple[int, int]]]]:
        """Each gate from the first one on with its operations, and with those of the qubits that wait after it."""
        waiting = None if self.noise is None else self.noise.idle_channels(circuit)
        for k, gate in enumerate(circuit.pattern[first:], first):
            key = gate.name, gate.qubits
            entry = self._rows.get(key) or self._remembered(self._rows, key, self._operations, gate)
            for qubit, ptm in () if waiting is None else waiting[k]:
                entry = entry + self._remembered(self._waiting, (qubit, ptm.tobytes()), self._wait, qubit, ptm)
            yield gate, entry

    def _remembered(self, known: dict[Any, Any], key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
        entry = known.get(key)
        if entry is None:
            with self._lock:
                entry = known.get(key) or make(*arguments)
                known[key] = entry
        return entry

    @abc.abstractmethod
    def _observable(self, hamiltonian: Hamiltonian) -> Any: ...

    @abc.abstractmethod
    def call(self, circuit: Circuit, hamiltonian: Hamiltonian, *, gradient: bool = True) -> Call:
        """The arguments of the engine's entry point, for this thread.

        Args:
            gradient: whether there is memory for a gradient.
        """

    def _last_call(self, circuit: Circuit, hamiltonian: Hamiltonian, *, gradient: bool) -> Call:
        """As `call`, the same again where this thread asks for the same circuit and observable again."""
        asked = self.compiled(circuit), self.observable(hamiltonian)
        calls = self._local.__dict__.setdefault("calls", {})
        held = calls.get(gradient)
        if held is not None and held[0] is asked[0] and held[1] is asked[1]:
            return held[2]
        call = self.call(circuit, hamiltonian, gradient=gradient)
        calls[gradient] = (*asked, call)
        return call

    def _forget_calls(self) -> None:
        self._local.__dict__.pop("calls", None)

    def expectation(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> float:
        values = check_angles(circuit, hamiltonian, angles)
        return finished(self._last_call(circuit, hamiltonian, gradient=False).run(VALUE, values))

    def expectation_and_gradient(
        self, circuit: Circuit, hamiltonian: Hamiltonian, angles: Sequence[float] | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        values = check_angles(circuit, hamiltonian, angles)
        call = self._last_call(circuit, hamiltonian, gradient=True)
        return finished(call.run(GRADIENT, values)), call.gradient.copy()

    def _assembled(self, n_qubits: int, ops: np.ndarray, slots: np.ndarray) -> Any:
        """What the kernels take for a circuit."""
        return CompiledCircuit(n_qubits, ops, slots)

    def compiled(self, circuit: Circuit) -> Any:
        """The circuit as arrays. The circuit carries them along, and so do its copies with other angles.

        Raises:
            TooLargeError: more qubits than the engine can hold.
            CircuitError: more qubits than the noise describes, or a gate that it refuses.
        """
        held = circuit.__dict__.get("_compiled")
        if held is not None and held[0] is self:
            return held[1]
        self.check_size(circuit.n_qubits)
        if self.noise is not None:
            self.noise.check_register(circuit.n_qubits)
        ops: list[int] = []
        slots: list[int] = []
        position = first = 0
        shorter = circuit.__dict__.get("_shorter")
        if shorter is not None and shorter[0] is self and isinstance(shorter[1], CompiledCircuit):
            ops, slots = shorter[1].ops.tolist(), shorter[1].slots.tolist()
            first = len(circuit) - 1
            position = circuit.n_angles - len(circuit.pattern[-1].angles)
        for gate, entry in self._gate_entries(circuit, first):
            for op, which in entry:
                ops.append(op)
                slots.append(position + which if which >= 0 else -1)
            position += len(gate.angles)
        result = self._assembled(circuit.n_qubits, np.array(ops, dtype=np.int64), np.array(slots, dtype=np.int64))
        circuit.__dict__["_compiled"] = (self, result)
        return result

    def gate_operations(self, circuit: Circuit) -> GateOperations:
        """The circuit as operations, gate by gate. The circuit carries them along, and so do its copies.

        Raises:
            TooLargeError, CircuitError: as `compiled`.
        """
        held = circuit.__dict__.get("_gate_operations")
        if held is not None and held[0] is self:
            return held[1]
        self.compiled(circuit)
        ops: list[int] = []
        slots: list[int] = []
        starts = [0]
        position = 0
        for gate, entry in self._gate_entries(circuit):
            for op, which in entry:
                ops.append(op)
                slots.append(position + which if which >= 0 else -1)
            position += len(gate.angles)
            starts.append(len(ops))
        masks = [sum(1 << q for q in gate.qubits) for gate in circuit.pattern]
        result = GateOperations(*(np.array(part, dtype=np.int64) for part in (ops, slots, starts, masks)))
        circuit.__dict__["_gate_operations"] = (self, result)
        return result

    def observable(self, hamiltonian: Hamiltonian) -> Any:
        """The Hamiltonian as arrays for the kernels; the last few are remembered."""
        found = self._observables.get(id(hamiltonian))
        if found is not None:
            return found[1]
        with self._lock:
            data = self._observable(hamiltonian)
            self._observables[id(hamiltonian)] = (hamiltonian, data)
            if len(self._observables) > 8:
                self._observables.popitem(last=False)
        return data

    def state_bytes(self, n_qubits: int) -> int:
        """Memory of one state."""
        return 16 << n_qubits if self.noise is None else 8 << (2 * n_qubits)

    @abc.abstractmethod
    def gradient_bytes(self, n_qubits: int) -> int:
        """Most memory that a gradient takes, whatever the circuit."""

    def _expectations(
        self, pairs: list[tuple[Circuit, Any]], hamiltonian: Hamiltonian, workers: int | None
    ) -> list[float]:
        # A part for each thread at a time: single energies of small circuits are shorter than what a hand-over takes.
        largest = max((circuit.n_qubits for circuit, _ in pairs), default=1)
        count = worker_count(workers, 4 * self.state_bytes(largest))
        size = max(1, min(64, len(pairs) // (4 * count)))
        parts = [pairs[first : first + size] for first in range(0, len(pairs), size)]

        def energies(part: list[tuple[Circuit, Any]]) -> list[float]:
            return super(CompiledSimulator, self)._expectations(part, hamiltonian, 1)

        found = in_order(energies, parts, min(count, len(parts)), one_core=workers == 1)
        return [energy for part in found for energy in part]

    def objective(self, circuit: Circuit, hamiltonian: Hamiltonian) -> CompiledObjective:
        return CompiledObjective(self, circuit, hamiltonian)


class CompiledObjective(Objective):
    """An objective whose whole minimization can run in compiled code, in several threads at once."""

    simulator: CompiledSimulator
    threaded: ClassVar[bool] = True

    def __init__(self, simulator: CompiledSimulator, circuit: Circuit, hamiltonian: Hamiltonian) -> None:
        super().__init__(simulator, circuit, hamiltonian)
        self.scratch = simulator.gradient_bytes(circuit.n_qubits)

    def minimize_compiled(
        self,
        start: np.ndarray,
        max_evaluations: int | None,
        tolerance: float,
        inverse_hessian: np.ndarray | None = None,
    ) -> Any:
        """BFGS in compiled code; see `qas.optimizers.bfgs.minimize_bfgs`."""
        from qas.optimizers.bfgs import minimize_bfgs

        settings = max_evaluations, tolerance, inverse_hessian
        return self.counted(minimize_bfgs(self.simulator, self.circuit, self.hamiltonian, start, *settings))

    def counted(self, result: Any) -> Any:
        """A result of compiled code, its calls counted."""
        with self.simulator.counting:
            self.nfev += result.nfev
            self.njev += result.njev
        return result
