"""Reading and writing circuits of other programs: Qiskit objects, OpenQASM 3 (read and written), OpenQASM 2 (read).

Qubit 0 is the least significant bit everywhere, as in Qiskit. Global phases are dropped on reading: no expectation
value depends on them.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qas.checks import one_line, shortened, whole_number
from qas.circuits import Circuit, Gate
from qas.decomposition import Step, steps_of
from qas.errors import CircuitError
from qas.files import read_text
from qas.gates import EXCITATIONS, GATES, gate_spec
from qas.qasm import MAX_GATES, MAX_QUBITS, NotPlainError, check_limits, read_plain
from qas.simulators.interrupt import Interrupted

MAX_FILE_BYTES = 5_000_000

_MAX_CLASSICAL_BITS = 10_000
_ONLY = "only unitary circuits with fixed angles can be read"
_REMOVE = "remove the measurements first, e.g. qc.remove_final_measurements()"


# ---------------------------------------------------------------------- Qiskit
def to_qiskit(circuit: Circuit) -> Any:
    """The circuit as a `qiskit.QuantumCircuit` on ``circuit.n_qubits`` qubits, gate for gate and angle for angle.

    Excitations become gates of their names, defined by their decomposition.
    """
    from qiskit import QuantumCircuit

    result = QuantumCircuit(circuit.n_qubits)
    for gate in circuit:
        if gate.name in EXCITATIONS:
            result.append(_qiskit_excitation(gate), gate.qubits)
        else:
            getattr(result, gate.name)(*gate.angles, *gate.qubits)
    return result


def _qiskit_excitation(gate: Gate) -> Any:
    from qiskit.circuit import Gate as QiskitGate

    n_qubits = len(gate.qubits)
    result = QiskitGate(gate.name, n_qubits, list(gate.angles))
    result.definition = to_qiskit(Circuit(n_qubits, [Gate(gate.name, tuple(range(n_qubits)), gate.angles)]).decompose())
    return result


def from_qiskit(circuit: Any) -> Circuit:
    """Read a `qiskit.QuantumCircuit` with bound parameters.

    Gates of the gate table are kept as they are; all others are unrolled through their definitions. Barriers, delays,
    identities and global phases are dropped. A custom gate that has the name of one of ours becomes ours only if it is
    the same matrix up to a global phase.

    Raises:
        CircuitError: not a QuantumCircuit, unbound parameters, measurements, resets, classical control, a gate without
            a definition, or more than `MAX_GATES` gates.
    """
    from qiskit import QuantumCircuit

    if not isinstance(circuit, QuantumCircuit):
        raise CircuitError(f"a qiskit.QuantumCircuit is needed, got {type(circuit).__name__}")
    if circuit.num_qubits == 0:
        raise CircuitError("a circuit has at least 1 qubit, got a QuantumCircuit without qubits")
    if circuit.parameters:
        raise _unbound(p.name for p in circuit.parameters)
    return Circuit(circuit.num_qubits, _Unroller().circuit(circuit, range(circuit.num_qubits)))


def _unbound(names: Any) -> CircuitError:
    names = sorted(names)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return CircuitError(f"the circuit has unbound parameters: {shown}; {_ONLY}")


def _not_unitary(found: str) -> CircuitError:
    article = "an" if found[0] in "aeiou" else "a"
    cure = _REMOVE if found == "measurement" else _ONLY
    return CircuitError(f"the circuit contains {article} {found}; " + (f"{_ONLY}: {cure}" if cure is _REMOVE else cure))


@cache
def _standard_gates() -> dict[type, str]:
    """Qiskit class -> our name, for the gates that both know."""
    from qiskit.circuit.library import get_standard_gate_name_mapping

    mapping = get_standard_gate_name_mapping()
    return {mapping[name].base_class: name for name in GATES}


class _Unroller:
    """Turns Qiskit instructions into gates of the table and counts them."""

    def __init__(self) -> None:
        from qiskit.circuit import Barrier, ControlFlowOp, ControlledGate, Delay, Measure, Reset
        from qiskit.circuit.library import GlobalPhaseGate, IGate, Initialize, PhaseGate, U1Gate

        self._table = _standard_gates()
        self._dropped = (Barrier, Delay, GlobalPhaseGate, IGate)
        self._phases = (PhaseGate, U1Gate)
        self._forbidden = {Measure: "measurement", Reset: "reset", Initialize: "state initialization"}
        self._control_flow = ControlFlowOp
        self._controlled = ControlledGate
        self._count = 0

    def circuit(self, circuit: Any, wires: Sequence[int]) -> list[Gate]:
        """All gates of `circuit`, its qubit i standing on ``wires[i]``."""
        index = dict(zip(circuit.qubits, wires, strict=True))
        gates = []
        for instruction in circuit.data:
            gates += self.operation(instruction.operation, tuple(index[bit] for bit in instruction.qubits))
        return gates

    def operation(self, operation: Any, wires: tuple[int, ...]) -> list[Gate]:
        """The gates that one Qiskit operation on `wires` stands for."""
        self._refuse(operation)
        if isinstance(operation, self._dropped):
            return []
        base = getattr(operation, "base_class", type(operation))
        all_controls = not isinstance(operation, self._controlled) or (
            operation.ctrl_state == 2**operation.num_ctrl_qubits - 1
        )
        if base in self._table and all_controls:
            return self._emit(self._table[base], wires, operation.params)
        if base in self._phases:
            return self._emit("rz", wires, operation.params)
        gates = self._definition(operation, wires)
        name = operation.name
        if (name in GATES or name in EXCITATIONS) and _is_our_gate(name, operation.params, wires, gates):
            self._count -= len(gates)
            return self._emit(name, wires, operation.params)
        return gates

    def _refuse(self, operation: Any) -> None:
        for kind, found in self._forbidden.items():
            if isinstance(operation, kind):
                raise _not_unitary(found)
        if isinstance(operation, self._control_flow):
            raise _not_unitary(f"{operation.name} block (classical control)")
        if getattr(operation, "_condition", None) is not None or getattr(operation, "num_clbits", 0) > 0:
            raise _not_unitary(f"{operation.name} instruction that uses classical bits")

    def _emit(self, name: str, wires: tuple[int, ...], params: Sequence[Any]) -> list[Gate]:
        self._count += 1
        if self._count > MAX_GATES:
            raise CircuitError(f"a circuit that is read has at most {MAX_GATES} gates, got more")
        return [Gate(name, wires, tuple(float(p) for p in params))]

    def _definition(self, operation: Any, wires: tuple[int, ...]) -> list[Gate]:
        definition = getattr(operation, "definition", None)
        if definition is None:
            definition = _synthesize(operation)
        return self.circuit(definition, wires)


def _synthesize(operation: Any) -> Any:
    """Qiskit's own synthesis of an operation that carries no definition (Clifford, annotated operation, …)."""
    from qiskit import QuantumCircuit, transpile
    from qiskit.exceptions import QiskitError

    failure = CircuitError(f"gate {operation.name!r} has no definition in terms of known gates; {_ONLY}")
    small = QuantumCircuit(operation.num_qubits)
    small.append(operation, range(operation.num_qubits))
    try:
        result = transpile(small, basis_gates=list(GATES), optimization_level=0)
    except QiskitError:
        raise failure from None
    if any(i.operation.base_class not in _standard_gates() for i in result.data):
        raise failure
    return result


def _is_our_gate(name: str, params: Sequence[Any], wires: tuple[int, ...], gates: Sequence[Gate]) -> bool:
    """Whether `gates` on `wires` multiply to the matrix of our gate `name`, up to a global phase."""
    spec = gate_spec(name)
    if spec.n_qubits != len(wires) or spec.n_angles != len(params):
        return False
    local = {wire: q for q, wire in enumerate(wires)}
    steps = [(g.name, tuple(local[q] for q in g.qubits), *g.angles) for g in gates]
    theirs = Circuit(len(wires), steps).to_matrix()
    ours = spec.matrix(*(float(p) for p in params))
    overlap = np.vdot(ours, theirs)
    return bool(abs(overlap) > 0.5 and np.abs(theirs - ours * (overlap / abs(overlap))).max() < 1e-10)


# ---------------------------------------------------------------------- OpenQASM, writing
_DEFINITIONS = {
    "ecr": "gate ecr a, b { cx a, b; s a; x a; sx b; }",
    "rxx": "gate rxx(theta) a, b { h a; h b; cx a, b; rz(theta) b; cx a, b; h a; h b; }",
    "ryy": "gate ryy(theta) a, b { sx a; sx b; cx a, b; rz(theta) b; cx a, b; inv @ sx a; inv @ sx b; }",
    "rzz": "gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }",
}
"""Gates that stdgates.inc lacks; written only when used, as are excitations."""
_QUARTER = math.pi / 2


@cache
def _definition_of(name: str) -> str:
    """An excitation as a gate definition."""
    spec = gate_spec(name)
    qubits = "abcd"[: spec.n_qubits]
    angles = [f"theta{k}" if spec.n_angles > 1 else "theta" for k in range(spec.n_angles)]

    def angle(step: Step) -> str:
        turns = "pi" if step.offset == math.pi else f"{round(step.offset / _QUARTER)}*pi/2"
        terms = [f"{weight:+g}*{angle}" for weight, angle in zip(step.weights, angles, strict=False) if weight]
        return "".join(terms).removeprefix("+") or turns

    body = " ".join(
        f"{step.name}{'' if step.name == 'cx' else f'({angle(step)})'} {', '.join(qubits[q] for q in step.qubits)};"
        for step in steps_of(name)
    )
    return f"gate {name}({', '.join(angles)}) {', '.join(qubits)} {{ {body} }}"


def to_qasm(circuit: Circuit, physical: Sequence[int] | None = None) -> str:
    """OpenQASM 3 text of the circuit; angles are the shortest decimals that read back bit for bit.

    Excitations are written as gates of their own, with their decomposition as definition; `Circuit.decompose` does
    without.

    Args:
        circuit: what is written.
        physical: device qubit of each qubit: written as ``$5``, after a barrier that names them in the circuit's order,
            by which `from_qasm` numbers them again. None: a register.

    Raises:
        CircuitError: physical qubits that are not as many different ones as the circuit has.
    """
    wires = [f"q[{q}]" for q in range(circuit.n_qubits)]
    if physical is not None:
        chosen = [whole_number("a physical qubit", q, 0) for q in physical]
        if len(chosen) != circuit.n_qubits or len(set(chosen)) != len(chosen):
            rule = f"each of {circuit.n_qubits} qubits is another physical one"
            raise CircuitError(f"{rule}, got {shortened(list(physical))}")
        wires = [f"${q}" for q in chosen]
    used = circuit.counts
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
    lines += [text for name, text in _DEFINITIONS.items() if name in used]
    lines += [_definition_of(name) for name in EXCITATIONS if name in used]
    lines.append(f"qubit[{circuit.n_qubits}] q;" if physical is None else f"barrier {', '.join(wires)};")
    for gate in circuit:
        name = "U" if gate.name == "u" else gate.name
        angles = f"({', '.join(repr(float(a)) for a in gate.angles)})" if gate.angles else ""
        lines.append(f"{name}{angles} {', '.join(wires[q] for q in gate.qubits)};")
    return "\n".join(lines) + "\n"


@cache
def _definitions() -> dict[str, str]:
    """Gate name -> its definition, of all that are written."""
    return _DEFINITIONS | {name: _definition_of(name) for name in EXCITATIONS}


# ---------------------------------------------------------------------- OpenQASM, reading
def from_qasm(text: str) -> Circuit:
    """Read OpenQASM 3 or OpenQASM 2 text; the rules of `from_qiskit` hold.

    Physical qubits keep their numbers, unless the circuit begins with a barrier on all of them: then they are numbered
    in its order (see `to_qasm`).

    Raises:
        CircuitError: malformed text (with the line where it is known), more than `MAX_QUBITS` qubits, unbound
            parameters, measurements, resets, classical control.
    """
    if not isinstance(text, str):
        raise CircuitError(f"OpenQASM is read from a string, got {type(text).__name__}")
    bare = _without_comments(text)
    if not bare.strip():
        raise CircuitError("the OpenQASM text is empty")
    if renumbered := _renumbered(bare):
        text = bare = renumbered
    try:
        return read_plain(bare, _definitions())
    except NotPlainError as beyond:
        check_limits(bare, beyond.place)
    reader = _read_qasm2 if re.match(r"\s*OPENQASM\s+2\b", bare) else _read_qasm3
    try:
        circuit = reader(text, bare)
        if circuit.num_qubits == 0:
            raise _qasm_error("no qubits are declared, e.g. qubit[2] q;")
        return from_qiskit(circuit)
    except CircuitError:
        raise
    except RecursionError:
        raise CircuitError("OpenQASM: expressions or definitions are nested too deeply") from None
    except (KeyboardInterrupt, SystemExit, Interrupted):
        raise
    except BaseException as error:  # Qiskit lets whatever a text makes it through, panics of its Rust parts included
        raise _qasm_error(f"this is not read ({type(error).__name__}: {one_line(error)})") from None


def read_circuit_file(path: str | os.PathLike[str]) -> Circuit:
    """Read a circuit from an OpenQASM 3 or 2 file of at most 5 MB.

    Raises:
        CircuitError: no such file, not a file, too large, not text, or anything `from_qasm` refuses.
    """
    path = Path(path)
    text = read_text(path, "the circuit", most=MAX_FILE_BYTES, error=CircuitError)
    try:
        return from_qasm(text)
    except CircuitError as error:
        raise CircuitError(f"{path}: {error}") from None


def _renumbered(bare: str) -> str | None:
    """The text with physical qubits numbered by the barrier it begins with; None where there is none on all of them."""
    found = re.search(r"(?:^|;|})\s*barrier\s+((?:\$\d+\s*,\s*)*\$\d+)\s*;", bare)
    named = found[1].replace(" ", "").split(",") if found else []
    if not found or "$" in bare[: found.start(1)] or {*re.findall(r"\$\d+", bare)} != {*named}:
        return None
    order = {qubit.strip(): f"${k}" for k, qubit in enumerate(named)}
    return re.sub(r"\$\d+", lambda match: order[match[0]], bare)


def _without_comments(text: str) -> str:
    """The text with comments blanked and line breaks kept."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)


def _qasm_error(reason: object, line: int | None = None) -> CircuitError:
    where = f" line {line}" if line else ""
    return CircuitError(f"OpenQASM{where}: {' '.join(str(reason).split())}")


def _check_sizes(qubits: int, bits: int) -> None:
    if qubits > MAX_QUBITS:
        raise CircuitError(f"a circuit that is read has at most {MAX_QUBITS} qubits, got {qubits}")
    if bits > _MAX_CLASSICAL_BITS:
        raise CircuitError(f"a circuit that is read has at most {_MAX_CLASSICAL_BITS} classical bits, got {bits}")


def _read_qasm2(text: str, bare: str) -> Any:
    from qiskit import qasm2
    from qiskit.circuit.library import RYYGate

    # The parser dies on integers beyond 64 bits.
    huge = re.search(r"(?<![\w.])\d{19,}(?![\w.])", bare)
    if huge:
        raise _qasm_error(f"the number {huge[0][:24]}… is too large", bare.count("\n", 0, huge.start()) + 1)
    qubits, bits = (sum(map(int, re.findall(rf"\b{kind}\s+\w+\s*\[\s*(\d+)\s*\]", bare))) for kind in ("qreg", "creg"))
    _check_sizes(qubits, bits)
    # Qiskit's instructions stand in for names that qelib1.inc lacks. They replace a gate of the same name without a
    # look at its body, so names that the text defines itself are left to the text.
    defined = set(re.findall(r"\b(?:gate|opaque)\s+(\w+)", bare)) | {"u0", "delay"}
    known = [*qasm2.LEGACY_CUSTOM_INSTRUCTIONS, qasm2.CustomInstruction("ryy", 1, 2, RYYGate, builtin=True)]
    try:
        return qasm2.loads(text, include_path=(), custom_instructions=[k for k in known if k.name not in defined])
    except qasm2.QASM2ParseError as error:
        found = re.match(r"(?:[^:]*:(\d+),\d+: )?(.*)", str(error).strip("\"'"), flags=re.DOTALL)
        assert found is not None
        raise _qasm_error(found[2], int(found[1]) if found[1] else None) from None
    except TypeError as error:  # a gate that needs angles, without parentheses
        names = "|".join(k.name for k in known if k.num_params)
        found = re.search(rf"\b(?:{names})\s+[a-zA-Z]", bare)
        raise _qasm_error(_reason(error), bare.count("\n", 0, found.start()) + 1 if found else None) from None
    except (ValueError, OverflowError) as error:
        raise _qasm_error(error) from None


def _read_qasm3(text: str, bare: str) -> Any:
    from openqasm3 import ast
    from qiskit_qasm3_import import convert

    program = _parse_qasm3(text)
    _refuse_statements(program)
    _check_sizes(*_declared_sizes(program))

    def attempt(count: int) -> Any:
        return convert(ast.Program(statements=program.statements[:count], version=program.version))

    try:
        return attempt(len(program.statements))
    except RecursionError:
        raise
    except Exception as error:  # the library lets IndexError, TypeError and others through for malformed programs
        line = _failing_line(program.statements, attempt)
        raise _qasm_error(_reason(error), line) from None


def _reason(error: Exception) -> str:
    """What an exception of the OpenQASM libraries means for the person who wrote the text."""
    if isinstance(error, TypeError):
        return f"wrong number of angles or qubits ({error})"
    if isinstance(error, IndexError):
        return "qubit index out of range"
    if isinstance(error, ZeroDivisionError):
        return "division by zero"
    text = re.sub(r"^\d+,\d+: ", "", getattr(error, "message", None) or str(error))
    return text.rstrip(".") or type(error).__name__


def _parse_qasm3(text: str) -> Any:
    import openqasm3
    from openqasm3.parser import QASM3ParsingError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the lexer prints before it raises
            return openqasm3.parse(text)
    except QASM3ParsingError as error:
        found = re.match(r"L(\d+):C\d+: (.*)", str(error), flags=re.DOTALL)
        if found:
            raise _qasm_error(found[2], int(found[1])) from None
        cause = error.__cause__.args[0] if error.__cause__ is not None and error.__cause__.args else None
        token = getattr(cause, "offendingToken", None)
        if token is None:
            raise _qasm_error("malformed text") from None
        what = "unexpected end of text" if token.type == -1 else f"unexpected {token.text!r}"
        raise _qasm_error(what, token.line) from None
    except RecursionError:
        raise
    except Exception as error:  # e.g. AttributeError for a text without statements
        raise _qasm_error(f"malformed text ({error})") from None


def _failing_line(statements: Sequence[Any], attempt: Callable[[int], Any]) -> int | None:
    """Line of the first statement that cannot be converted, by bisection over prefixes of the program."""
    good, bad = 0, len(statements)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            attempt(middle)
            good = middle
        except Exception:
            bad = middle
    span = statements[bad - 1].span if statements else None
    return span.start_line if span else None


def _nodes(node: Any) -> Iterator[Any]:
    """The node and everything below it in an OpenQASM 3 syntax tree."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack += reversed(item)
        elif hasattr(item, "__dataclass_fields__"):
            yield item
            stack += [getattr(item, name) for name in item.__dataclass_fields__ if name != "span"]


_FORBIDDEN_STATEMENTS = {
    "QuantumMeasurementStatement": "measurement",
    "QuantumMeasurement": "measurement",
    "QuantumReset": "reset",
    "BranchingStatement": "if statement (classical control)",
    "SwitchStatement": "switch statement (classical control)",
    "WhileLoop": "while loop (classical control)",
    "ForInLoop": "for loop (classical control)",
}


def _refuse_statements(program: Any) -> None:
    for node in _nodes(program):
        kind = type(node).__name__
        if kind in _FORBIDDEN_STATEMENTS:
            line = f" line {node.span.start_line}" if node.span else ""
            raise CircuitError(f"OpenQASM{line}: {_not_unitary(_FORBIDDEN_STATEMENTS[kind])}")
        if kind == "IODeclaration" and node.io_identifier.name == "input":
            raise _unbound([node.identifier.name])
        if kind == "QuantumGate" and len(node.qubits) > 6 and any(m.modifier.name == "pow" for m in node.modifiers):
            # A power is taken of the dense matrix.
            raise _qasm_error(f"pow is read for gates on up to 6 qubits, got {len(node.qubits)}", node.span.start_line)
        if kind == "QuantumGateModifier" and getattr(node.argument, "value", 0) > MAX_QUBITS:
            # ctrl(1000000) @ x would be built before its qubits are counted.
            number = node.argument.value
            raise _qasm_error(
                f"a gate modifier takes a number up to {MAX_QUBITS}, got {number}",
                node.span.start_line if node.span else None,
            )


def _declared_sizes(program: Any) -> tuple[int, int]:
    """(qubits, classical bits) that the program declares, without allocating any."""
    constants: dict[str, int] = {}
    qubits = bits = 0

    def size(expression: Any, line: int) -> int:
        if expression is None:
            return 1
        value = getattr(expression, "value", constants.get(getattr(expression, "name", "")))
        if not isinstance(value, int):
            raise _qasm_error("write the size of a register as a whole number", line)
        return value

    for node in _nodes(program):
        kind = type(node).__name__
        if kind == "ConstantDeclaration" and isinstance(getattr(node.init_expression, "value", None), int):
            constants[node.identifier.name] = node.init_expression.value
        elif kind == "QubitDeclaration":
            qubits += size(node.size, node.span.start_line)
        elif kind == "ClassicalDeclaration" and type(node.type).__name__ == "BitType":
            bits += size(node.type.size, node.span.start_line)
        elif kind == "Identifier" and re.fullmatch(r"\$\d+", node.name):
            qubits = max(qubits, int(node.name[1:20]) + 1)
    return qubits, bits
