"""Circuits on devices: placed on their qubits, and measured through Qiskit's primitives (V2).

A backend is Aer, a fake backend of qiskit-ibm-runtime, a device of an IBM account, or any other Qiskit backend. All are
measured the same way: the circuit is transpiled once, with its qubits pinned; strengths of the noise and bases of the
measurement are added to what came out, in native gates, and nothing is transpiled after that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import one_line, shortened, whole_number
from qas.circuits import Circuit
from qas.devices import Device, fake_backends
from qas.errors import CircuitError, MissingExtraError, QasError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.mitigation.folding import folded_qiskit
from qas.noise import NoiseModel

if TYPE_CHECKING:
    from qas.mitigation.counting import Request

LEVELS = (0, 1, 2, 3)
"""Optimization levels of Qiskit's transpiler."""
PRIMITIVES = ("sampler", "estimator")
SHOTS = 100_000
"""Measurements in all unless told otherwise."""
_LOCAL = ("qiskit_aer.", "qiskit_ibm_runtime.fake_provider.", "qiskit.providers.")
"""Modules whose backends run on this machine."""


# ---------------------------------------------------------------------- backends
def load_backend(given: Any, noise: NoiseModel | None = None, *, n_qubits: int = 1, submit: bool = False) -> Any:
    """A Qiskit backend (`BackendV2`) by name, or the object itself.

    Args:
        given: ``aer``; the name of a fake backend, such as ``fake_torino`` (extra ``ibm``); the name of a device of the
            user's IBM account, such as ``ibm_torino``; or a `BackendV2`.
        noise: of ``aer``.
        n_qubits: of the circuit.
        submit: whether circuits may leave this machine. An account is not even asked without.

    Raises:
        UnknownNameError: no such backend; the nearest name is suggested.
        MissingExtraError: the extra ``ibm`` is not installed.
        QasError: a device that is reached over the network without `submit`, no account, one that cannot be reached, or
            something that is no backend.
    """
    if not isinstance(given, str):
        from qiskit.providers import BackendV2

        if not isinstance(given, BackendV2):
            raise QasError(f"a backend is a name or a Qiskit BackendV2, got {type(given).__name__}")
        if not submit and not is_local(given):
            raise QasError(f"nothing is sent to {given.name} without submit=True (--submit)")
        return given
    if given == "aer":
        from qiskit_aer import AerSimulator

        model = None if noise is None else noise.to_aer(n_qubits)
        return AerSimulator(noise_model=model, zero_threshold=0.0)
    if given.startswith("ibm_"):
        if not submit:
            raise QasError(f"nothing is sent to {given} without --submit; rehearse on fake_{given[4:]} or aer")
        return _account_backend(given)
    known = fake_backends()
    if given not in known:
        if not known and given.startswith("fake_"):
            raise MissingExtraError(f"backend {given!r}", "ibm")
        raise UnknownNameError("backend", given, {"aer", *known})
    return known[given]()


def is_local(backend: Any) -> bool:
    """Whether a backend is a simulator on this machine."""
    return type(backend).__module__.startswith(_LOCAL)


def _account_backend(name: str) -> Any:
    try:
        from qiskit_ibm_runtime import QiskitRuntimeService
    except ImportError:
        raise MissingExtraError(f"backend {name!r}", "ibm") from None
    try:
        return QiskitRuntimeService().backend(name)
    except Exception as error:  # no account, no network, no such device: all kinds of errors of several libraries
        rule = "an IBM device needs an account that knows it (QiskitRuntimeService.save_account)"
        raise QasError(f"{rule}; {name}: {one_line(error)}") from None


# ---------------------------------------------------------------------- a circuit on its qubits
@dataclass(frozen=True)
class Shape:
    """How large a circuit is."""

    depth: int
    counts: Mapping[str, int]
    """gate name -> how often it occurs"""
    two_qubit_gates: int
    duration: float | None
    """seconds until the measurement; None where a gate has no duration on the device"""

    @classmethod
    def of(cls, circuit: Any, target: Any) -> Shape:
        """Of a `qiskit.QuantumCircuit`."""
        counts = {str(name): int(count) for name, count in circuit.count_ops().items() if name != "barrier"}
        two = sum(len(i.qubits) == 2 and i.operation.name != "barrier" for i in circuit.data)
        return cls(circuit.depth(), counts, two, _duration(circuit, target))

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "counts": dict(self.counts)}


def _duration(circuit: Any, target: Any) -> float | None:
    """Length of the longest path, seconds."""
    free = [0.0] * circuit.num_qubits
    for instruction in circuit.data:
        qubits = tuple(circuit.find_bit(bit).index for bit in instruction.qubits)
        time = 0.0
        if instruction.operation.name != "barrier":
            table = target[instruction.operation.name] if instruction.operation.name in target.operation_names else {}
            properties = table.get(qubits)
            if properties is None or properties.duration is None:
                return None
            time = properties.duration
        end = max(free[q] for q in qubits) + time
        for q in qubits:
            free[q] = end
    return max(free)


@dataclass(frozen=True)
class Placed:
    """A circuit as a device runs it."""

    circuit: Any
    """`qiskit.QuantumCircuit` on the whole device"""
    qubits: tuple[int, ...]
    """device qubit that holds each qubit of the problem when it is measured"""
    start: tuple[int, ...]
    """device qubit that each qubit of the circuit begins on"""
    level: int
    before: Shape
    after: Shape


def place(circuit: Circuit, backend: Any, layout: Sequence[int] | None = None, level: int = 0) -> Placed:
    """Transpile a circuit with its qubits pinned.

    Args:
        circuit: excitations are decomposed.
        backend: a `BackendV2`.
        layout: device qubit of each qubit of the circuit; None: the device's best patch, of a simulator without
            coupling the first qubits.
        level: 0 keeps a circuit of native gates on coupled pairs gate for gate, and otherwise only translates and
            routes; 1 to 3 optimize more and more.

    Raises:
        TooLargeError: more qubits than the device has.
        QasError: a level that is not 0 to 3, or a layout that is not so many different qubits of the device.
    """
    level = whole_number("the transpile level", level, LEVELS[0], LEVELS[-1])
    target, n = backend.target, circuit.n_qubits
    if target.num_qubits is not None and n > target.num_qubits:
        raise TooLargeError(f"{backend.name} has {target.num_qubits} qubits, got a circuit of {n}")
    plain = circuit.decompose().to_qiskit()
    start = _layout(layout, backend, n)
    from qiskit.transpiler import generate_preset_pass_manager

    with _one_line_errors(f"{backend.name} cannot run the circuit"):
        manager = generate_preset_pass_manager(
            optimization_level=level, backend=backend, initial_layout=list(start), seed_transpiler=0
        )
        made = manager.run(plain)
    qubits = start if made.layout is None else tuple(made.layout.final_index_layout())
    wide = _on_device(plain, start, made.num_qubits)
    return Placed(made, qubits, start, level, Shape.of(wide, target), Shape.of(made, target))


def _layout(layout: Sequence[int] | None, backend: Any, n_qubits: int) -> tuple[int, ...]:
    if layout is None:
        if backend.coupling_map is None:
            return tuple(range(n_qubits))
        return device_of(backend).patch(n_qubits).physical
    rule = f"a layout is a different qubit of {backend.name} for each of the circuit's {n_qubits}"
    top = None if backend.target.num_qubits is None else backend.target.num_qubits - 1
    chosen = tuple(whole_number("a device qubit of the layout", q, 0, top) for q in layout)
    if len(chosen) != n_qubits or len(set(chosen)) != n_qubits:
        raise QasError(f"{rule}, got {shortened(list(layout))}")
    return chosen


def _on_device(circuit: Any, qubits: Sequence[int], size: int) -> Any:
    from qiskit import QuantumCircuit

    return QuantumCircuit(size).compose(circuit, list(qubits))


def device_of(backend: Any) -> Device:
    """The calibration of a backend, broken pairs left out without a word.

    Raises:
        QasError: the backend has no calibration.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Device.from_backend(backend)


def noise_of(backend: Any, qubits: Sequence[int], noise: NoiseModel | None) -> NoiseModel | None:
    """What is known of the noise between preparation and measurement: the calibration of these qubits, of Aer `noise`.

    Raises:
        QasError: a device without calibration.
    """
    if type(backend).__module__.startswith("qiskit_aer.") and backend.coupling_map is None:
        return None if noise is None else replace(noise, readout={})
    # Fake backends do not let qubits relax that wait.
    return replace(device_of(backend).restricted(qubits).noise(idle=not is_local(backend)), readout={})


@dataclass(frozen=True)
class Execution:
    """Where and how a circuit was run."""

    backend: str
    primitive: str
    """of `PRIMITIVES`"""
    qubits: tuple[int, ...]
    """device qubit that each qubit of the circuit began on"""
    transpile_level: int
    before: Shape
    """of the circuit as it was given, on these qubits"""
    after: Shape
    """of the circuit that was run"""

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "before": self.before.to_json(), "after": self.after.to_json()}


# ---------------------------------------------------------------------- measurements
def counts_of(placed: Placed, backend: Any, requests: Sequence[Request], seed: int) -> list[np.ndarray]:
    """The share of each bit string, through the backend's `SamplerV2`, all circuits in one job.

    Args:
        placed: the circuit.
        backend: where it runs.
        requests: strengths of the noise by gate folding, bases, and the same number of shots for each.
        seed: of simulators.

    Returns:
        float64, shape (2**n,) each, qubit 0 of the problem the least significant bit.

    Raises:
        QasError: what the backend refuses.
    """
    n = len(placed.qubits)
    circuits = [_read_in(placed, request, backend) for request in requests]
    with _one_line_errors(f"{backend.name} refused the circuits"):
        job = _primitive("sampler", backend, seed).run(circuits, shots=requests[0].shots)
    with _one_line_errors(f"{backend.name} failed, job {job.job_id()}"):
        counted = [result.data.read.get_int_counts() for result in job.result()]
    shares = []
    for counts in counted:
        share = np.zeros(1 << n)
        share[list(counts)] = list(counts.values())
        shares.append(share / share.sum())
    return shares


def _read_in(placed: Placed, request: Request, backend: Any) -> Any:
    """The circuit with stronger noise, or a prepared state, measured in a basis: rz and sx turn X and Y to Z."""
    from qiskit import ClassicalRegister

    circuit = folded_qiskit(placed.circuit, request.scale)
    if request.prepared:
        circuit = placed.circuit.copy_empty_like()
        for qubit, bit in zip(placed.qubits, reversed(request.prepared), strict=True):
            if bit == "1":
                circuit.x(qubit)
    read = ClassicalRegister(len(placed.qubits), "read")
    circuit.add_register(read)
    for qubit, letter in zip(placed.qubits, reversed(request.basis), strict=True):
        if letter == "X":
            circuit.rz(math.pi / 2, qubit)
        if letter in "XY":
            circuit.sx(qubit)
    circuit.barrier(placed.qubits)
    circuit.measure(placed.qubits, read)
    if {"rz", "sx", "x"} <= set(backend.target.operation_names):
        return circuit
    from qiskit.transpiler import generate_preset_pass_manager

    everywhere = list(range(circuit.num_qubits))
    return generate_preset_pass_manager(optimization_level=0, backend=backend, initial_layout=everywhere).run(circuit)


def estimated(
    placed: Placed, backend: Any, hamiltonian: Hamiltonian, shots: int | None, seed: int
) -> tuple[float, float | None]:
    """The energy by the backend's own `EstimatorV2`, and its standard error as the backend tells it.

    Aer without shots is exact; it knows no flips at readout. Elsewhere each setting is measured `shots` times.

    Raises:
        QasError: no shots on a device, or what the backend refuses.
    """
    operator = hamiltonian.to_qiskit().apply_layout(list(placed.qubits), num_qubits=placed.circuit.num_qubits)
    precision = 0.0 if shots is None else 1 / math.sqrt(shots)
    with _one_line_errors(f"{backend.name} refused the circuit"):
        job = _primitive("estimator", backend, seed).run([(placed.circuit, operator)], precision=precision)
    with _one_line_errors(f"{backend.name} failed, job {job.job_id()}"):
        data = job.result()[0].data
    return float(data.evs), None if shots is None else float(data.stds)


def _primitive(kind: str, backend: Any, seed: int) -> Any:
    """The V2 primitive of a backend: Aer's, those of qiskit-ibm-runtime, or Qiskit's for any backend."""
    sampler = kind == "sampler"
    where = type(backend).__module__
    if where.startswith("qiskit_aer."):
        from qiskit_aer.primitives import EstimatorV2, SamplerV2

        return SamplerV2.from_backend(backend, seed=seed) if sampler else EstimatorV2.from_backend(backend)
    if where.startswith("qiskit_ibm_runtime.") and not is_local(backend):
        try:  # from 0.50 on the top-level names are deprecated ones
            from qiskit_ibm_runtime.executor_estimator import EstimatorV2 as Estimator
            from qiskit_ibm_runtime.executor_sampler import SamplerV2 as Sampler
        except ImportError:
            from qiskit_ibm_runtime import EstimatorV2 as Estimator
            from qiskit_ibm_runtime import SamplerV2 as Sampler
        return (Sampler if sampler else Estimator)(mode=backend)
    from qiskit.primitives import BackendEstimatorV2, BackendSamplerV2

    return (BackendSamplerV2 if sampler else BackendEstimatorV2)(backend=backend, options={"seed_simulator": seed})


@contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    """Whatever the libraries of a backend raise, as one line."""
    try:
        yield
    except QasError:
        raise
    except Exception as error:
        raise CircuitError(f"{what}: {one_line(error)}") from error
