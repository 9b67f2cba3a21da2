"""Circuits to and from Qiskit and OpenQASM."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit import Gate as QiskitGate
from qiskit.circuit import Parameter, library
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator, random_clifford, random_unitary

from qas.circuits import Circuit
from qas.errors import CircuitError
from qas.gates import GATES
from qas.interop import MAX_FILE_BYTES, read_circuit_file
from qas.qasm import MOST_STATEMENTS, read_plain
from qas.testing import random_circuit

SEEDS = st.integers(0, 2**32 - 1)
HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\n'
HEAD2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\n'


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two unitaries after the best global phase is taken out."""
    overlap = np.vdot(a, b)
    return float(np.abs(b - a * overlap / abs(overlap)).max())


def draw(seed: int, most: int = 25) -> Circuit:
    rng = np.random.default_rng(seed)
    return random_circuit(int(rng.integers(1, 6)), int(rng.integers(0, most)), rng)


def refuse(source: object) -> str:
    read = Circuit.from_qiskit if isinstance(source, QuantumCircuit) else Circuit.from_qasm
    with pytest.raises(CircuitError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------- round trips
@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_qiskit_sees_the_same_unitary(seed):
    circuit = draw(seed)
    theirs = circuit.to_qiskit()
    assert theirs.num_qubits == circuit.n_qubits
    np.testing.assert_allclose(Operator(theirs).data, circuit.to_matrix(), atol=1e-12)
    assert Circuit.from_qiskit(theirs) == circuit


@pytest.mark.parametrize("name", GATES)
def test_every_gate_has_qiskits_matrix(name):
    spec = GATES[name]
    circuit = Circuit(3, [(name, (2, 0)[: spec.n_qubits], *np.linspace(0.3, -2.0, spec.n_angles))])
    np.testing.assert_allclose(Operator(circuit.to_qiskit()).data, circuit.to_matrix(), atol=1e-14)
    assert Circuit.from_qasm(circuit.to_qasm()) == circuit


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_qasm_round_trips_bit_for_bit(seed):
    circuit = draw(seed)
    again = Circuit.from_qasm(circuit.to_qasm())
    assert again.to_list() == circuit.to_list()
    assert again.angles.tobytes() == circuit.angles.tobytes()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_extreme_angles_round_trip_bit_for_bit(angles):
    gates = [("rx", 0, a) for a in angles] + [("rzz", (1, 0), a) for a in angles]
    circuit = Circuit(2, gates)
    again = Circuit.from_qasm(circuit.to_qasm())
    assert [g.name for g in again] == [g.name for g in circuit]
    assert again.angles.tobytes() == circuit.angles.tobytes()


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_qiskit_reads_our_qasm_as_the_same_unitary(seed):
    circuit = draw(seed)
    assert distance(Operator(qasm3.loads(circuit.to_qasm())).data, circuit.to_matrix()) < 1e-12


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_qiskits_own_qasm_is_read_gate_for_gate(seed):
    circuit = draw(seed)
    theirs = circuit.to_qiskit()
    for text in (qasm3.dumps(theirs), qasm2.dumps(theirs)):
        again = Circuit.from_qasm(text)
        assert [(g.name, g.qubits) for g in again] == [(g.name, g.qubits) for g in circuit]
        np.testing.assert_allclose(again.angles, circuit.angles, atol=1e-12)


def test_definitions_are_written_only_when_used():
    assert "gate" not in Circuit(2, [("rx", 0, 0.1), ("cx", (0, 1))]).to_qasm().replace("stdgates", "")
    text = Circuit(2, [("ryy", (0, 1), 0.1)]).to_qasm()
    assert "gate ryy" in text and "gate rxx" not in text


# ---------------------------------------------------------------------- foreign gates
def foreign_gates():
    rng = np.random.default_rng(5)
    skip = {"delay", "measure", "reset", "id", "global_phase", *GATES}
    for name, gate in get_standard_gate_name_mapping().items():
        if name not in skip:
            yield gate.base_class(*rng.uniform(-3, 3, len(gate.params)).tolist())
    yield library.CXGate(ctrl_state=0)
    yield library.RXGate(0.4).control(2, ctrl_state=1, annotated=False)
    yield library.XGate().control(2, annotated=True)
    yield library.HGate().inverse(annotated=True)
    yield random_clifford(2, seed=1)
    yield library.UnitaryGate(random_unitary(4, seed=1))
    yield library.PermutationGate([2, 0, 1])
    yield library.StatePreparation([0.6, 0.8])
    inner = QuantumCircuit(2, name="mine")
    inner.cp(0.3, 1, 0)
    inner.rzz(0.2, 0, 1)
    yield inner.to_gate()
    yield inner.to_instruction()
    yield inner.to_gate().power(2)


@pytest.mark.parametrize("gate", list(foreign_gates()), ids=lambda g: g.name)
def test_foreign_gates_are_unrolled_to_the_same_unitary(gate):
    n = gate.num_qubits + 1
    theirs = QuantumCircuit(n)
    theirs.h(0)
    theirs.append(gate, list(range(1, n))[::-1])
    theirs.rx(0.7, n - 1)
    ours = Circuit.from_qiskit(theirs)
    assert distance(Operator(theirs).data, ours.to_matrix()) < 1e-10
    assert ours[0].name == "h" and ours[len(ours) - 1].angles == (0.7,)


def test_known_gates_inside_composites_stay():
    inner = QuantumCircuit(2)
    inner.rzz(0.25, 1, 0)
    inner.cp(0.5, 0, 1)
    outer = QuantumCircuit(3)
    outer.append(inner.to_gate(), [2, 0])
    ours = Circuit.from_qiskit(outer)
    assert (ours[0].name, ours[0].qubits, ours[0].angles) == ("rzz", (0, 2), (0.25,))


def test_things_without_effect_are_dropped():
    theirs = QuantumCircuit(2, 2, global_phase=0.3)
    theirs.id(0)
    theirs.barrier()
    theirs.delay(10, 1)
    theirs.append(library.GlobalPhaseGate(0.2), [])
    theirs.x(1)
    assert Circuit.from_qiskit(theirs).to_list() == [["x", [1], []]]


def test_a_custom_gate_with_our_name_is_ours_only_if_it_is_the_same_gate():
    same = 'include "stdgates.inc";\ngate rzz(t) a, b { cx b, a; rz(t) a; cx b, a; }\nqubit[2] q;\nrzz(0.3) q[1], q[0];'
    assert Circuit.from_qasm(same).to_list() == [["rzz", [1, 0], [0.3]]]
    other = same.replace("rz(t)", "rz(2*t)")
    ours = Circuit.from_qasm(other)
    assert [g.name for g in ours] == ["cx", "rz", "cx"] and ours.angles.tolist() == [0.6]
    version2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\ngate rxx(t) a,b { rz(t) a; }\nqreg q[2];\nrxx(0.3) q[0],q[1];'
    assert Circuit.from_qasm(version2).to_list() == [["rz", [0], [0.3]]]
    impostor = QuantumCircuit(1)
    impostor.x(0)
    gate = impostor.to_gate()
    gate.name = "h"
    theirs = QuantumCircuit(1)
    theirs.append(gate, [0])
    assert Circuit.from_qiskit(theirs).to_list() == [["x", [0], []]]


def test_bound_expressions_become_numbers():
    a = Parameter("a")
    theirs = QuantumCircuit(1)
    theirs.rx(2 * a + 1, 0)
    assert Circuit.from_qiskit(theirs.assign_parameters({a: 0.25})).angles.tolist() == [1.5]


def test_expressions_registers_and_broadcasts_are_read():
    text = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit a;\nqubit[2] b;\nh b;\nrx(-pi/2) a;\ngphase(0.1);\n'
    assert Circuit.from_qasm(text) == Circuit(3, [("h", 1), ("h", 2), ("rx", 0, -math.pi / 2)])
    text = HEAD2 + "ry(pi/4) q[1]; sx q[0]; ryy(0.5) q[0],q[1]; u(1,2,3) q[0];"
    expected = [("ry", 1, math.pi / 4), ("sx", 0), ("ryy", (0, 1), 0.5), ("u", 0, 1.0, 2.0, 3.0)]
    assert Circuit.from_qasm(text) == Circuit(2, expected)


# ---------------------------------------------------------------------- refusals, Qiskit
def test_unbound_parameters_are_named():
    theirs = QuantumCircuit(1)
    theirs.rx(Parameter("alpha") * Parameter("beta"), 0)
    assert "unbound parameters: alpha, beta" in refuse(theirs)


def test_measurements_resets_and_control_are_refused():
    measured = QuantumCircuit(1)
    measured.measure_all()
    assert "a measurement" in refuse(measured) and "remove_final_measurements" in refuse(measured)
    reset = QuantumCircuit(1)
    reset.reset(0)
    assert "a reset" in refuse(reset) and "unitary circuits with fixed angles" in refuse(reset)
    prepared = QuantumCircuit(1)
    prepared.initialize([0, 1], 0)
    assert "state initialization" in refuse(prepared)
    branched = QuantumCircuit(1, 1)
    with branched.if_test((branched.clbits[0], 1)):
        branched.x(0)
    assert "if_else" in refuse(branched)
    looped = QuantumCircuit(1)
    with looped.for_loop(range(3)):
        looped.x(0)
    assert "for_loop" in refuse(looped)
    hidden = QuantumCircuit(1, 1)
    hidden.append(measured.to_instruction(), [0], [0])
    assert "classical bits" in refuse(hidden)


def test_other_objects_are_refused():
    opaque = QuantumCircuit(1)
    opaque.append(QiskitGate("mystery", 1, []), [0])
    assert "'mystery' has no definition" in refuse(opaque)
    nameless = QuantumCircuit(1)
    nameless.append(QiskitGate("rx", 1, [0.3]), [0])
    assert "'rx' has no definition" in refuse(nameless)
    assert "at least 1 qubit" in refuse(QuantumCircuit())
    with pytest.raises(CircuitError, match="got str"):
        Circuit.from_qiskit("OPENQASM 3.0;")


# ---------------------------------------------------------------------- refusals, OpenQASM
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("// nothing\n/* at\nall */", "is empty"),
        ("OPENQASM 3.0;", "no qubits"),
        ("hello world", "line 1"),
        ("OPENQASM 3.0;\nqubit[2 q;", "line 2: unexpected 'q'"),
        ("OPENQASM 3.0;\nqubit[2] q;\n$%&;", "line 3"),
        (HEAD + "x q[0];\nfoo q[0];\nx q[1];", "line 5: gate 'foo' is not defined"),
        (HEAD + "rx q[0];", "line 4: wrong number of angles"),
        (HEAD2 + "x q[0];\nrx q[0];", "line 6: wrong number of angles"),
        (HEAD + "x q[0];\nx q[7];", "line 5: qubit index out of range"),
        (HEAD + "cx q[0], q[0];", "line 4: duplicate"),
        (HEAD + "rx(1/0) q[0];", "line 4: division by zero"),
        (HEAD + "rx(1e400) q[0];", "finite"),
        (HEAD + "rx(" + "(" * 3000 + "1" + ")" * 3000 + ") q[0];", "at most 32 deep"),
        (HEAD + "input float theta;\nrx(theta) q[0];", "unbound parameters: theta"),
        (HEAD + "bit[2] c;\nc = measure q;", "line 5: .*a measurement.*remove"),
        (HEAD + "measure q[0];", "line 4: .*a measurement"),
        (HEAD + "reset q[0];", "line 4: .*a reset"),
        (HEAD + "bit c;\nif (c) { x q[0]; }", "line 5: .*an if statement"),
        (HEAD + "for int i in [0:1] { x q[i]; }", "a for loop"),
        (HEAD + "while (true) { x q[0]; }", "a while loop"),
        (HEAD + "float x = 3.0;", "line 4: .*float"),
        ('include "other.inc";\nqubit q;', "line 1"),
        ("qubit[1000000] q;", "at most 30 qubits, got 1000000"),
        ("qubit[20] a;\nqubit[20] b;", "at most 30 qubits, got 40"),
        ("const int n = 1000000;\nqubit[n] q;", "at most 30 qubits"),
        ("qubit[2*500000] q;", "whole number"),
        ('include "stdgates.inc";\nx $100000000;', "at most 30 qubits"),
        (HEAD + "bit[1000000000] c;", "classical bits"),
        (HEAD + "ctrl(1000000) @ x q[0], q[1];", "line 4: .*modifier"),
        (HEAD2 + "foo q[0];", "line 5: 'foo' is not defined"),
        (HEAD2 + "rx(0.1) q[0]", "unexpected end"),
        (HEAD2 + "measure q -> c;", "a measurement"),
        (HEAD2 + "reset q;", "a reset"),
        (HEAD2 + "if (c == 1) x q[0];", "if_else"),
        (HEAD2 + "opaque foo a;\nfoo q[0];", "'foo' has no definition"),
        ('OPENQASM 2.0;\ninclude "/etc/hostname";\nqreg q[2];', "line 2"),
        ("OPENQASM 2.0;\nqreg q[1000000];", "at most 30 qubits"),
        ("OPENQASM 2.0;\nqreg q[99999999999999999999999];", "too large"),
    ],
)
def test_bad_text_is_refused_in_one_line(text, message, capfd):
    with pytest.raises(CircuitError, match=message) as error:
        Circuit.from_qasm(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert capfd.readouterr() == ("", "")


def test_exploding_definitions_are_refused_before_they_explode():
    nested = "".join(f"gate g{i + 1} a {{ g{i} a; g{i} a; }}\n" for i in range(60))
    text = f'include "stdgates.inc";\ngate g0 a {{ x a; }}\n{nested}qubit q;\ng60 q;'
    assert f"at most {MOST_STATEMENTS} gates" in refuse(text)
    wide = ", ".join(f"q[{i}]" for i in range(12))
    names = ", ".join(f"a{i}" for i in range(12))
    assert "pow" in refuse(f'include "stdgates.inc";\ngate g {names} {{ x a0; }}\nqubit[12] q;\npow(2) @ g {wide};')


def random_text(rng: np.random.Generator) -> str:
    """A text in the plain part of OpenQASM 2 or 3, as people write it."""
    version = int(rng.integers(2, 4))
    sizes = rng.integers(1, 4, size=rng.integers(1, 3)).tolist()
    names = [
        name for name, spec in GATES.items() if name not in ("ecr", "u", *(("rxx", "ryy", "rzz") * (version == 3)))
    ]
    numbers = ["1", "-0.25", "pi", "-pi/2", "3*pi/4", "1e-3", ".5", "2.", "- 7 * pi / 8", "0.1234567890123456789"]
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";'] if version == 2 else ["OPENQASM 3.0;", 'include "stdgates.inc";']
    lines += [f"qreg r{k}[{n}];" if version == 2 else f"qubit[{n}] r{k};" for k, n in enumerate(sizes)]
    wires = [f"r{k}[{i}]" for k, n in enumerate(sizes) for i in range(n)]
    for _ in range(12):
        name = str(rng.choice([n for n in names if GATES[n].n_qubits <= len(wires)] + ["p", "U", "barrier"]))
        spec = GATES.get({"p": "rz", "U": "u", "barrier": "x"}.get(name, name))
        angles = ", ".join(rng.choice(numbers, size=spec.n_angles))
        chosen = ",".join(rng.choice(wires, size=spec.n_qubits, replace=False))
        lines.append(f"{name}{f'({angles})' * bool(angles)} {chosen};" + " // x" * int(rng.integers(2)))
    return "\n".join(lines)


def test_the_plain_reader_reads_as_qiskit_does(monkeypatch):
    rng = np.random.default_rng(5)
    texts = [random_text(rng) for _ in range(40)] + [random_circuit(3, 12, rng=rng).to_qasm() for _ in range(5)]
    texts += [random_circuit(3, 12, rng=rng).to_qasm((4, 0, 7))]
    ours = [Circuit.from_qasm(text) for text in texts]
    monkeypatch.setattr("qas.interop.read_plain", lambda bare, definitions: read_plain("", {}))  # the library alone
    for text, circuit in zip(texts, ours, strict=True):
        theirs = Circuit.from_qasm(text)
        assert circuit == theirs, text


@pytest.mark.parametrize("angle", ["pi/0", "2*pi/0.0", "-pi/0e1"])
def test_no_angle_is_divided_by_zero(angle):
    for head in (HEAD2, 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\n'):
        with pytest.raises(CircuitError, match="(?i)zero"):
            Circuit.from_qasm(f"{head}rx({angle}) q[0];")


def test_bytes_are_refused():
    with pytest.raises(CircuitError, match="got bytes"):
        Circuit.from_qasm(b"OPENQASM 3.0;")


# ---------------------------------------------------------------------- files
def test_files_are_read_and_bad_files_refused(tmp_path):
    circuit = Circuit(2, [("rxx", (0, 1), 0.1), ("h", 0)])
    path = tmp_path / "best.qasm"
    path.write_text(circuit.to_qasm())
    assert read_circuit_file(path) == circuit and read_circuit_file(str(path)) == circuit

    binary, large, broken = tmp_path / "b.qasm", tmp_path / "l.qasm", tmp_path / "x.qasm"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    large.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    broken.write_text("OPENQASM 3.0;\nqubit[2 q;")
    for bad, message in [
        (tmp_path / "none.qasm", "is missing"),
        (tmp_path, "Is a directory"),
        (binary, "no text in UTF-8"),
        (large, "at most"),
        (broken, r"x\.qasm: OpenQASM line 2"),
    ]:
        with pytest.raises(CircuitError, match=message) as error:
            read_circuit_file(bad)
        assert "\n" not in str(error.value)


def test_phase_gates_become_z_rotations():
    theirs = QuantumCircuit(1)
    theirs.p(0.3, 0)
    assert Circuit.from_qiskit(theirs).to_list() == [["rz", [0], [0.3]]]
