"""Native circuits drawn at random, and what Qiskit makes of a device: Aer's own noise model, Qiskit's own schedule.

Nothing here uses our noise models or schedules, so that both can be checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qas.circuits import Circuit
from qas.devices import Device
from qas.hamiltonians import Hamiltonian


def random_native_circuit(device: Device, n_gates: int, rng: np.random.Generator) -> Circuit:
    """Gates of a device on its qubits and directions, drawn at random; half of them entangle."""
    *single, entangler = device.native_gates if device.coupling else (*device.native_gates, None)
    gates: list[Any] = []
    for _ in range(n_gates):
        if entangler is not None and rng.random() < 0.5:
            gates.append((entangler, device.directions[rng.integers(len(device.directions))]))
            continue
        name = single[rng.integers(len(single))]
        angles = [rng.uniform(-math.pi, math.pi)] if name == "rz" else []
        gates.append((name, int(rng.integers(device.n_qubits)), *angles))
    return Circuit(device.n_qubits, gates)


def target_of(device: Device) -> Any:
    """A device as a `qiskit.transpiler.Target`."""
    from qiskit.circuit import Delay, Measure, Parameter
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    times = zip(device.t1, device.t2, strict=True)
    target = Target(num_qubits=device.n_qubits, qubit_properties=[QubitProperties(*_finite(pair)) for pair in times])
    standard = get_standard_gate_name_mapping()
    for name, places in device.gates.items():
        rows = {place: InstructionProperties(duration=c.duration, error=c.error) for place, c in places.items()}
        target.add_instruction(standard[name].base_class(*map(Parameter, standard[name].params and ["θ"])), rows)
    flips = {(q,): InstructionProperties(duration=1e-6, error=sum(pair) / 2) for q, pair in enumerate(device.readout)}
    target.add_instruction(Measure(), flips)
    target.add_instruction(Delay(Parameter("t")), dict.fromkeys(flips))
    return target


def _finite(times: Sequence[float]) -> list[float | None]:
    return [time if math.isfinite(time) else None for time in times]


def part_of(target: Any, qubits: Sequence[int]) -> Any:
    """Some qubits of a target, renumbered; gates that do not work are left out."""
    from qiskit.transpiler import Target

    calibrated = target.qubit_properties
    found = Target(num_qubits=len(qubits), qubit_properties=[calibrated[q] for q in qubits])
    for name in {"rz", "sx", "x", "cx", "cz", "ecr", "measure", "delay"}.intersection(target.operation_names):
        rows = {q: row for q, row in target[name].items() if set(q) <= set(qubits)}
        kept = {
            tuple(map(list(qubits).index, q)): row
            for q, row in rows.items()
            if (getattr(row, "error", None) or 0.0) < 1
        }
        if kept:
            found.add_instruction(target.operation_from_name(name), kept)
    return found


def aer_energies(target: Any, circuit: Circuit, hamiltonian: Hamiltonian) -> tuple[float, float]:
    """Energies of a native circuit by Aer with `NoiseModel.from_backend`: as it stands, and with its delays.

    Readout is left out. Delays come from Qiskit's own as-late-as-possible schedule; Aer's model relaxes qubits in them.
    Its errors stand in the circuit as superoperators: attached to gates they would lose their rarest branches, up to
    2e-9 of the state.
    """
    from qiskit import QuantumCircuit
    from qiskit.transpiler import PassManager
    from qiskit.transpiler.passes import ALAPScheduleAnalysis, PadDelay
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

    bare = QuantumCircuit(circuit.n_qubits)
    for gate in circuit:
        getattr(bare, gate.name)(*gate.angles, *gate.qubits)
    delayed = PassManager([ALAPScheduleAnalysis(target=target), PadDelay(target=target)]).run(bare)
    model = NoiseModel.from_backend(backend_of(target))
    simulator = AerSimulator(method="density_matrix", zero_threshold=0.0)
    found = []
    for quantum in (bare, delayed):
        noisy = _with_errors(quantum, model)
        noisy.save_expectation_value(hamiltonian.to_qiskit(), range(circuit.n_qubits), label="energy")
        found.append(float(simulator.run(noisy, shots=1).result().data()["energy"]))
    return found[0], found[1]


def _with_errors(quantum: Any, model: Any) -> Any:
    """A Qiskit circuit with the errors of Aer's noise model after gates and delays."""
    from qiskit.quantum_info import SuperOp

    for relax in model._custom_noise_passes:
        quantum = relax(quantum)
    noisy = quantum.copy_empty_like()
    known: dict[int, Any] = {}
    for instruction in quantum.data:
        places = tuple(quantum.find_bit(bit).index for bit in instruction.qubits)
        if instruction.operation.name != "delay":
            noisy.append(instruction.operation, places)
        error = model._local_quantum_errors.get(instruction.operation.name, {}).get(places)
        if error is not None:
            if id(error) not in known:
                known[id(error)] = SuperOp(error).to_instruction()
            noisy.append(known[id(error)], places)
    return noisy


def backend_of(target: Any) -> Any:
    """A backend that has this target and runs nothing."""
    from qiskit.providers import BackendV2, Options

    class Patch(BackendV2):
        target = None
        max_circuits = None

        @classmethod
        def _default_options(cls) -> Options:
            return Options()

        def run(self, run_input: Any, **options: Any) -> Any:
            raise NotImplementedError

    backend = Patch(name="patch")
    backend.target = target
    return backend
