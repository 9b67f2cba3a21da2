"""What is exported means the same circuit: read again, or run, and compared."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qiskit import qpy

import qas
from qas.circuits import Circuit
from qas.errors import CircuitError, MissingExtraError, QasError, RunError
from qas.export import save_circuit, script
from qas.gates import GATES

PROBLEM = qas.load_problem("heisenberg-3")


def every_gate(seed: int = 0, names: tuple[str, ...] = tuple(GATES)) -> Circuit:
    """A circuit of 3 qubits with each gate, on qubits in either order, at random angles."""
    rng = np.random.default_rng(seed)
    gates: list[tuple[object, ...]] = [("u", q, *rng.normal(size=3)) for q in range(3)]
    for name in [*names, *names[::-1]]:
        spec = GATES[name]
        gates.append(
            (name, tuple(int(q) for q in rng.permutation(3)[: spec.n_qubits]), *rng.normal(size=spec.n_angles))
        )
    return Circuit(3, [*gates, ("single_excitation", (2, 0), 0.3)])


def energy(circuit: Circuit) -> float:
    return qas.evaluate(circuit, PROBLEM).energy


def test_physical_qubits_read_back_as_the_circuit() -> None:
    circuit = every_gate()
    text = circuit.to_qasm(physical=[117, 4, 12])
    assert "barrier $117, $4, $12;" in text and "qubit[" not in text
    again = Circuit.from_qasm(text)
    assert again == Circuit.from_qasm(circuit.to_qasm())
    assert Circuit.from_qasm(Circuit(2).to_qasm(physical=[90, 7])) == Circuit(2)
    plain = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nx $2;\nbarrier $2, $0;\nx $0;\n'  # no order: their own numbers
    assert [gate.qubits for gate in Circuit.from_qasm(plain)] == [(2,), (0,)]
    for wrong in ([0, 1], [1, 1, 2]):
        with pytest.raises(CircuitError, match="each of 3 qubits is another physical one"):
            circuit.to_qasm(physical=wrong)
    with pytest.raises(QasError, match="a physical qubit"):
        circuit.to_qasm(physical=[-1, 2, 3])


def test_qpy_reads_back_as_the_circuit(tmp_path: Path) -> None:
    circuit = every_gate(1)
    save_circuit(circuit, tmp_path / "c.qpy", PROBLEM, [5, 3, 2])
    with (tmp_path / "c.qpy").open("rb") as file:
        (found,) = qpy.load(file)
    assert Circuit.from_qiskit(found) == circuit.decompose()
    assert found.metadata == {"problem": "heisenberg-3", "layout": [5, 3, 2]}


def run_script(path: Path, *words: str) -> float:
    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = re.search(r"energy (-?[\d.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def test_the_qiskit_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = every_gate(2)
    save_circuit(circuit, tmp_path / "c.PY", PROBLEM, [3, 2, 1])
    os.rename(tmp_path / "c.PY", tmp_path / "c.py")
    text = (tmp_path / "c.py").read_text()
    assert "import qas" not in text and "LAYOUT = [3, 2, 1]" in text
    assert run_script(tmp_path / "c.py") == pytest.approx(energy(circuit), abs=1e-8)
    for words, told in (
        (["--backend", "ibm_x"], "without --submit"),
        (["--shots", "0"], "--shots is at least 1"),
        (["--level", "4"], "--level from 0 to 3"),
    ):
        monkeypatch.setattr(sys, "argv", ["c.py", *words])
        with pytest.raises(SystemExit) as refused:
            runpy.run_path(str(tmp_path / "c.py"), run_name="__main__")
        assert refused.value.code and told in f"{refused.value.code}{capsys.readouterr().err}"


@pytest.mark.parametrize("library", ["pennylane", "cirq"])
def test_scripts_and_objects_of_other_libraries(library: str, tmp_path: Path) -> None:
    circuit = every_gate(3)
    text = script(circuit, PROBLEM, f".{library}.py")
    compile(text, "script", "exec")
    convert = circuit.to_pennylane if library == "pennylane" else circuit.to_cirq
    try:
        found = convert()
    except MissingExtraError as error:
        assert f"[{library}]" in str(error)
        pytest.skip(f"{library} is not installed")
    save_circuit(circuit, tmp_path / f"c.{library}.py", PROBLEM)
    assert run_script(tmp_path / f"c.{library}.py") == pytest.approx(energy(circuit), abs=1e-8)
    if library == "cirq":
        import cirq

        theirs = found.unitary(qubit_order=cirq.LineQubit.range(3)[::-1])
    else:
        import pennylane as qml

        theirs = qml.matrix(qml.tape.QuantumScript(found), wire_order=[2, 1, 0])
    assert abs(np.vdot(theirs, circuit.to_matrix())) / 8 == pytest.approx(1.0, abs=1e-10)


def test_bad_input(tmp_path: Path) -> None:
    circuit = Circuit(2, [("h", 0)])
    for name, message in (("c.gif", r"\.pennylane\.py, got 'c.gif'"), ("c", "saved as"), ("c.py", "got none")):
        with pytest.raises(QasError, match=message):
            save_circuit(circuit, tmp_path / name)
    with pytest.raises(QasError, match="with a Hamiltonian, got unitary-2"):
        save_circuit(circuit, tmp_path / "c.py", qas.problems.unitary(circuit))
    with pytest.raises(RunError, match="does not exist"):
        save_circuit(circuit, tmp_path / "no" / "c.qpy")
    with pytest.raises(CircuitError, match="another physical one"):
        save_circuit(circuit, tmp_path / "c.qpy", None, [1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [".py", ".pennylane.py", ".cirq.py"])
def test_a_unit_is_no_code(kind: str) -> None:
    problem = qas.problem({"XX": 1.0}, unit="x\nimport evil\x85\u2028y")
    text = script(Circuit(2, [("ry", 0, 0.1)]), problem, kind)
    (line,) = (line for line in text.splitlines() if "import evil" in line)
    assert line.startswith("EXACT = ") and line.index("#") < line.index("import")
