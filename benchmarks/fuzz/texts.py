"""OpenQASM: right, torn, nested, doubled, long."""

# ruff: noqa: E501 - lists of inputs

from __future__ import annotations

from typing import Any

from values import Rng, pick, torn

from qas.circuits import Circuit
from qas.testing.random import random_circuit

_LINES = [
    "ctrl @ x q[0], q[1];", "inv @ s q[0];", "pow(2) @ h q[0];", "pow(0.5) @ x q[1];", "U(0.1, pi/2, -pi) q[0];", "barrier q;", "h q;",
    "measure q;", "reset q[0];", "rx(sin(pi/3)) q[0];", "rx(2**100) q[0];", "rx(1/0) q[0];", "rx(0x1f) q[1];", "gphase(pi);", "cx q, q;",
    "input float t;", "const int n = 3;", "def f(qubit a) { x a; }", "for int i in [0:3] { x q[i]; }", "x q[0:1];", "x q[-1];", "let a = q[0];",
    "cx q[0], q[0];", "rx(pi, pi) q[0];", "foo q[0];", "x $0;", "if (true) x q[0];", "while (true) { x q[0]; }", "opaque foo a;", "ctrl(20) @ x q[0];",
    "rx(1e400) q[0];", "rx(.5) q[0];", "p(3*pi/4) q[1];", "qubit[10] r;", "bit[1000000] c;", "delay[10ns] q[0];", "box { x q[0]; }",
    "include \"other.inc\";", "OPENQASM 2.0;", "qubit[1000000] s;", "gate g a { x a; } g q[0];", "gate x a { y a; } x q[0];", "pragma foo",
    "rx(-(-(-(1)))) q[0];", "cal { }", "extern f(int) -> int;", "rx(true) q[0];", "rx(q) q[0];", "U(0,0) q[0];", "inv @ ctrl @ pow(3) @ swap q[0], q[1], q[2];",
]  # fmt: skip


def _doubled(levels: int, version: int) -> str:
    body = "".join(f"gate g{k + 1} a {{ g{k} a; g{k} a; }}\n" for k in range(levels))
    return _head(version) + "gate g0 a { x a; }\n" + body + f"g{levels} q[0];\n"


def _head(version: int) -> str:
    if version == 2:
        return 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\n'
    return 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[3] q;\n'


def _large(rng: Rng) -> str:
    version, count = int(rng.integers(2, 4)), int(10.0 ** rng.uniform(1, 4.2))
    act = int(rng.integers(8))
    return [
        lambda: _doubled(int(rng.integers(1, 80)), version),
        lambda: _head(version) + "rx(" + "(" * count + "1" + ")" * count + ") q[0];",
        lambda: _head(version) + "rx(" + "-" * count + "1) q[0];",
        lambda: _head(version) + "rx(1" + "+1" * count + ") q[0];",
        lambda: _head(version) + "rx(" + "9" * count + ") q[0];",
        lambda: _head(version) + "rx(0.1) q[0]; cx q[0], q[1]; " * count,
        lambda: _head(version) + "rx(0.1) q[0]; " * count + "x q[9];",
        lambda: _head(version) + "/*" * count + "x q[0];" + "{" * count,
    ][act]()


def qasm(rng: Rng) -> Any:
    """A circuit read from text, and written again."""
    act = rng.random()
    if act < 0.08:
        text = _large(rng)
    elif act < 0.45:
        lines = [pick(rng, _LINES) for _ in range(int(rng.integers(1, 4)))]
        text = _head(int(rng.integers(2, 4))) + "\n".join(lines)
    else:
        circuit = random_circuit(int(rng.integers(1, 4)), int(rng.integers(0, 6)), rng)
        text = circuit.to_qasm() if rng.random() < 0.8 else _head(2) + "\n".join(pick(rng, _LINES) for _ in range(2))
        if rng.random() < 0.3:
            assert Circuit.from_qasm(text) == circuit or "qelib1" in text
        text = torn(text, rng)
    made = Circuit.from_qasm(text)
    return [made.depth, made.angles, Circuit.from_qasm(made.to_qasm()) == made]


CLASSES = {"OpenQASM": qasm}
