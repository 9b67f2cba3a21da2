"""Circuits for other programs: files, objects of PennyLane and Cirq, and scripts that run as they are.

OpenQASM and Qiskit circuits both ways are in `qas.interop`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qas.circuits import Circuit, Gate
from qas.drawing import FIGURES, check_folder, draw_figure, draw_latex, save_figure
from qas.errors import MissingExtraError, QasError
from qas.files import write_atomic

if TYPE_CHECKING:
    from qas.problems import BaseProblem

SCRIPTS = (".cirq.py", ".pennylane.py", ".py")
"""Ends of names of scripts, for Cirq, PennyLane and Qiskit; the first that fits counts."""
_KINDS = f"{', '.join(FIGURES)}, .tex, .qasm, .qpy, .py (Qiskit), .cirq.py or .pennylane.py"


def save_circuit(
    circuit: Circuit,
    path: str | os.PathLike[str],
    problem: BaseProblem | None = None,
    layout: Sequence[int] | None = None,
) -> None:
    """Write a circuit, whole or not at all; the end of the name says as what.

    =========================  =====================================================================================
    .png, .svg, .pdf, .tex     a picture, or LaTeX
    .qasm                      OpenQASM 3, on physical qubits where there is a layout
    .qpy                       a Qiskit circuit; its metadata has problem and layout
    .py                        a Python script that measures the energy with Qiskit, on Aer or a backend
    .cirq.py, .pennylane.py    a Python script that computes the energy with Cirq or PennyLane
    =========================  =====================================================================================

    Args:
        circuit: architecture and angles.
        path: the file.
        problem: what scripts compute the energy of.
        layout: device qubit of each qubit.

    Raises:
        QasError: another end, a script without a problem, or a layout that is not as many different qubits.
        CircuitError: the circuit is too long for a picture.
        RunError: a folder that does not exist or cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in FIGURES:
        save_figure(draw_figure(circuit), path)
        return
    if kind not in (".tex", ".qasm", ".qpy", ".py"):
        raise QasError(f"a circuit is saved as {_KINDS}, got {path.name!r}")
    check_folder(path)
    if kind == ".tex":
        write_atomic(path, draw_latex(circuit))
    elif kind == ".qasm":
        write_atomic(path, circuit.to_qasm(layout))
    elif kind == ".qpy":
        write_atomic(path, _qpy(circuit, problem, layout))
    else:
        write_atomic(path, script(circuit, problem, next(s for s in SCRIPTS if path.name.lower().endswith(s)), layout))


def _qpy(circuit: Circuit, problem: BaseProblem | None, layout: Sequence[int] | None) -> bytes:
    from qiskit import qpy

    circuit.to_qasm(layout)  # refuses a layout that is none
    made = circuit.decompose().to_qiskit()
    made.metadata = {"problem": problem and problem.name, "layout": None if layout is None else list(layout)}
    stream = io.BytesIO()
    qpy.dump(made, stream)
    return stream.getvalue()


# ---------------------------------------------------------------------- other libraries
_PENNYLANE = {
    "rx": "RX", "ry": "RY", "rz": "RZ", "u": "U3", "x": "PauliX", "y": "PauliY", "z": "PauliZ", "h": "Hadamard",
    "s": "S", "sdg": "S", "t": "T", "tdg": "T", "sx": "SX", "cx": "CNOT", "cz": "CZ", "ecr": "ECR", "swap": "SWAP",
    "rxx": "IsingXX", "ryy": "IsingYY", "rzz": "IsingZZ",
}  # fmt: skip
_ADJOINT = ("sdg", "tdg")
_CIRQ_ANGLE = {"rx": "rx", "ry": "ry", "rz": "rz"}
_CIRQ_TURNS = {"rxx": "XXPowGate", "ryy": "YYPowGate", "rzz": "ZZPowGate"}
_CIRQ_POWER = {
    "x": ("X", 1.0), "y": ("Y", 1.0), "z": ("Z", 1.0), "h": ("H", 1.0), "s": ("S", 1.0), "sdg": ("S", -1.0),
    "t": ("T", 1.0), "tdg": ("T", -1.0), "sx": ("X", 0.5), "cx": ("CNOT", 1.0), "cz": ("CZ", 1.0),
    "swap": ("SWAP", 1.0),
}  # fmt: skip


def to_pennylane(circuit: Circuit) -> list[Any]:
    """The circuit as PennyLane operators, wire k for qubit k; excitations decomposed.

    Raises:
        MissingExtraError: PennyLane is not installed.
    """
    try:
        import pennylane as qml
    except ImportError:
        raise MissingExtraError("Circuit.to_pennylane", "pennylane") from None
    operators = []
    for gate in circuit.decompose():
        operator = getattr(qml, _PENNYLANE[gate.name])(*gate.angles, wires=list(gate.qubits))
        operators.append(qml.adjoint(operator) if gate.name in _ADJOINT else operator)
    return operators


def to_cirq(circuit: Circuit) -> Any:
    """The circuit as a `cirq.Circuit`, ``cirq.LineQubit(k)`` for qubit k, up to a global phase; excitations decomposed.

    Raises:
        MissingExtraError: Cirq is not installed.
    """
    try:
        import cirq
    except ImportError:
        raise MissingExtraError("Circuit.to_cirq", "cirq") from None
    wires = cirq.LineQubit.range(circuit.n_qubits)
    operations = []
    for gate in _for_cirq(circuit):
        if gate.name in _CIRQ_ANGLE:
            made = getattr(cirq, _CIRQ_ANGLE[gate.name])(gate.angles[0])
        elif gate.name in _CIRQ_TURNS:
            made = getattr(cirq, _CIRQ_TURNS[gate.name])(exponent=gate.angles[0] / math.pi, global_shift=-0.5)
        else:
            name, power = _CIRQ_POWER[gate.name]
            made = getattr(cirq, name) ** power
        operations.append(made.on(*(wires[q] for q in gate.qubits)))
    return cirq.Circuit(operations)


def _for_cirq(circuit: Circuit) -> Iterator[Gate]:
    """Gates that Cirq has by name, up to a global phase."""
    for gate in circuit.decompose():
        if gate.name == "u":
            theta, phi, lam = gate.angles
            for name, angle in (("rz", lam), ("ry", theta), ("rz", phi)):
                yield Gate(name, gate.qubits, (angle,))
        elif gate.name == "ecr":
            # ECR is S on its first qubit and √X on its second, then CX and X on the first.
            first, second = ((q,) for q in gate.qubits)
            yield from (Gate("s", first), Gate("sx", second), Gate("cx", gate.qubits), Gate("x", first))
        else:
            yield gate


# ---------------------------------------------------------------------- scripts
def script(
    circuit: Circuit, problem: BaseProblem | None, kind: str = ".py", layout: Sequence[int] | None = None
) -> str:
    """Python that builds a circuit and prints its energy; it needs the library, not this package.

    Args:
        circuit: excitations are decomposed.
        problem: what the energy is of.
        kind: of `SCRIPTS`.
        layout: device qubit of each qubit, for Qiskit.

    Raises:
        QasError: no problem, or one without a Hamiltonian on the circuit's qubits.
    """
    from qas.problems import Problem

    if not isinstance(problem, Problem):
        got = "none" if problem is None else problem.name
        raise QasError(f"a script computes the energy of a problem with a Hamiltonian, got {got}")
    head, gates, tail = _LIBRARIES[kind]
    terms = ",\n".join(f'    ("{string}", {weight!r})' for string, weight in problem.hamiltonian.terms.items())
    circuit.to_qasm(layout)  # refuses a layout that is none
    values = {
        "problem": problem.name,
        "n": circuit.n_qubits,
        "exact": repr(problem.exact),
        "unit": "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in problem.unit),
        "layout": None if layout is None else list(layout),
    }
    parts = [head, "TERMS = [  # the rightmost letter is qubit 0's", terms + ",", "]", "", gates(circuit), tail]
    text = "\n".join(parts)
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def _qiskit_lines(circuit: Circuit) -> str:
    lines = ["circuit = QuantumCircuit(@n@)"]
    for gate in circuit.decompose():
        lines.append(f"circuit.{gate.name}({', '.join(map(repr, (*map(float, gate.angles), *gate.qubits)))})")
    return "\n".join(lines)


def _pennylane_lines(circuit: Circuit) -> str:
    lines = []
    for gate in circuit.decompose():
        angles = "".join(f"{float(angle)!r}, " for angle in gate.angles)
        made = f"qml.{_PENNYLANE[gate.name]}({angles}wires={list(gate.qubits)})"
        lines.append(f"    qml.adjoint({made})" if gate.name in _ADJOINT else f"    {made}")
    return "\n".join(["def circuit():", *(lines or ["    pass"]), ""])


def _cirq_lines(circuit: Circuit) -> str:
    lines = ["q = cirq.LineQubit.range(@n@)", "circuit = cirq.Circuit("]
    for gate in _for_cirq(circuit):
        if gate.name in _CIRQ_ANGLE:
            made = f"cirq.{_CIRQ_ANGLE[gate.name]}({float(gate.angles[0])!r})"
        elif gate.name in _CIRQ_TURNS:
            turns = float(gate.angles[0]) / math.pi
            made = f"cirq.{_CIRQ_TURNS[gate.name]}(exponent={turns!r}, global_shift=-0.5)"
        else:
            name, power = _CIRQ_POWER[gate.name]
            made = f"cirq.{name}" if power == 1.0 else f"(cirq.{name} ** {power})"
        lines.append(f"    {made}.on({', '.join(f'q[{k}]' for k in gate.qubits)}),")
    return "\n".join([*lines, ")"])


_QISKIT_HEAD = '''"""Energy of a circuit for @problem@; see --help. Needs qiskit-aer, for devices qiskit-ibm-runtime."""

import argparse

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

EXACT = @exact@  # lowest energy, @unit@
LAYOUT = @layout@  # device qubit of each qubit; None: the transpiler chooses
'''
_QISKIT_TAIL = """

def load_backend(name, submit):
    if name == "aer":
        from qiskit_aer import AerSimulator

        return AerSimulator()
    if name.startswith("fake_"):
        from qiskit_ibm_runtime import fake_provider

        kinds = {getattr(kind, "backend_name", None): kind for kind in vars(fake_provider).values()}
        if name not in kinds:
            raise SystemExit(f"qiskit-ibm-runtime has no backend {name}")
        return kinds[name]()
    if not submit:
        raise SystemExit(f"nothing is sent to {name} without --submit")
    from qiskit_ibm_runtime import QiskitRuntimeService

    return QiskitRuntimeService().backend(name)


def make_estimator(name, backend):
    if name == "aer":
        from qiskit_aer.primitives import EstimatorV2

        return EstimatorV2.from_backend(backend)
    if name.startswith("fake_"):
        from qiskit.primitives import BackendEstimatorV2

        return BackendEstimatorV2(backend=backend)
    try:
        from qiskit_ibm_runtime.executor_estimator import EstimatorV2
    except ImportError:
        from qiskit_ibm_runtime import EstimatorV2
    return EstimatorV2(mode=backend)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="aer", help="aer (exact), fake_torino, ibm_torino, ...")
    parser.add_argument("--shots", type=int, default=10_000, help="measurements of each setting on a backend")
    parser.add_argument("--level", type=int, default=0, help="transpile level; 0 leaves native circuits as they are")
    parser.add_argument("--submit", action="store_true", help="send the circuit over the network")
    words = parser.parse_args()
    if words.shots < 1 or words.level not in range(4):
        parser.error("--shots is at least 1, --level from 0 to 3")
    backend = load_backend(words.backend, words.submit)
    layout = None if words.backend == "aer" else LAYOUT
    manager = generate_preset_pass_manager(words.level, backend=backend, initial_layout=layout, seed_transpiler=0)
    placed = manager.run(circuit)
    operator = SparsePauliOp.from_list(TERMS)
    if placed.layout is not None:
        operator = operator.apply_layout(placed.layout)
    precision = 0.0 if words.backend == "aer" else words.shots**-0.5
    estimator = make_estimator(words.backend, backend)
    data = estimator.run([(placed, operator)], precision=precision).result()[0].data
    print(f"energy {float(data.evs):.10f} +- {float(data.stds):.2g}, exact {EXACT:.10f}, depth {placed.depth()}")
"""
_PENNYLANE_HEAD = '''"""Energy of a circuit for @problem@. Needs PennyLane."""

import pennylane as qml

EXACT = @exact@  # lowest energy, @unit@
'''
_PENNYLANE_TAIL = """
WIRES = {k: k for k in range(@n@)}
words = [qml.pauli.string_to_pauli_word(string[::-1], wire_map=WIRES) for string, _ in TERMS]
hamiltonian = qml.dot([weight for _, weight in TERMS], words)


@qml.qnode(qml.device("default.qubit", wires=@n@))
def energy():
    circuit()
    return qml.expval(hamiltonian)


if __name__ == "__main__":
    print(f"energy {float(energy()):.10f}, exact {EXACT:.10f}")
"""
_CIRQ_HEAD = '''"""Energy of a circuit for @problem@. Needs Cirq."""

import cirq
import numpy as np

EXACT = @exact@  # lowest energy, @unit@
'''
_CIRQ_TAIL = """
hamiltonian = sum(weight * cirq.DensePauliString(string[::-1]).on(*q) for string, weight in TERMS)


def energy():
    simulator = cirq.Simulator(dtype=np.complex128)
    values = simulator.simulate_expectation_values(circuit, observables=hamiltonian, qubit_order=q)
    return float(np.real(values[0]))


if __name__ == "__main__":
    print(f"energy {energy():.10f}, exact {EXACT:.10f}")
"""
_LIBRARIES = {
    ".py": (_QISKIT_HEAD, _qiskit_lines, _QISKIT_TAIL),
    ".pennylane.py": (_PENNYLANE_HEAD, _pennylane_lines, _PENNYLANE_TAIL),
    ".cirq.py": (_CIRQ_HEAD, _cirq_lines, _CIRQ_TAIL),
}
