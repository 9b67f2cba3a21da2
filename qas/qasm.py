"""OpenQASM text before a parser sees it: its limits, and a reader of its own for the plain part of the language.

The plain part is what circuits consist of: registers, barriers, and gates of our table on single qubits of them, with
angles that are numbers or multiples of pi. It is read at a few microseconds a gate, as the library would read it
(tests compare them); whatever else a text holds is left to the library, and for that the limits are narrower.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError
from qas.gates import GATES

MAX_QUBITS = 30
"""Largest number of qubits accepted from text, checked before anything is allocated."""
MAX_GATES = 200_000
"""Largest number of gates a read circuit may unroll to: nested definitions can grow exponentially."""
MOST_STATEMENTS = 5_000
"""Statements, and gates they unroll to, of a text beyond the plain part: the library takes a millisecond for each."""

_MOST_NESTED, _MOST_DIGITS, _LONGEST = 32, 40, 4_000

_NAMES = {name: name for name in GATES if GATES[name].n_qubits < 3} | {"U": "u", "p": "rz", "u1": "rz"}
_UNKNOWN = {"2": {"ecr", "u"}, "3": {"ecr", "rxx", "ryy", "rzz", "u"}}
"""Version -> names of ours that its standard file lacks, or defines otherwise."""
_RESERVED = {"barrier", "bit", "euler", "gate", "pi", "qubit", "tau"}
_HEAD = re.compile(r'\s*OPENQASM\s+([23])(?:\.\d+)?\s*;\s*include\s*"(stdgates|qelib1)\.inc"\s*;')
_DECLARED = {
    "2": re.compile(r"qreg\s+(?P<name>[a-z]\w*)\s*\[\s*(?P<size>\d+)\s*\]", re.ASCII),
    "3": re.compile(r"qubit(?:\s*\[\s*(?P<size>\d+)\s*\]\s*|\s+)(?P<name>[A-Za-z_]\w*)", re.ASCII),
}
_WIRE = r"(?:[A-Za-z_]\w*\s*\[\s*\d+\s*\]|\$\d+)"
_WIRES = rf"{_WIRE}(?:\s*,\s*{_WIRE})*"
_BARRIER = re.compile(rf"barrier\s+({_WIRES})", re.ASCII)
_APPLIED = re.compile(rf"([A-Za-z_]\w*)(?:\s*\(([^()]*)\)\s*|\s+)({_WIRES})", re.ASCII)
_PLACE = re.compile(r"(\w+)\s*\[\s*(\d+)\s*\]|\$(\d+)", re.ASCII)
_NUMBER = r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_ANGLE = re.compile(rf"\s*(-?)\s*(?:{_NUMBER}|(?:{_NUMBER}\s*\*\s*)?pi(?:\s*/\s*{_NUMBER})?)\s*", re.ASCII)


class NotPlainError(Exception):
    """A text beyond the plain part, from a place on."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


# ---------------------------------------------------------------------- limits
def check_limits(bare: str, place: int) -> None:
    """Refuse a text, without its comments, that a parser would take too long for.

    Args:
        bare: the text.
        place: where it leaves the plain part.

    Raises:
        CircuitError: beyond a limit, with the line.
    """
    number = re.search(rf"(?<![A-Za-z_])\d[\da-fA-FxXoObB_]{{{_MOST_DIGITS},}}", bare)
    if number:
        raise _error(f"a number has at most {_MOST_DIGITS} digits", bare, number.start())
    depth = 0
    for mark in re.finditer(r"[()\[\]{}]", bare):
        depth += 1 if mark[0] in "([{" else -1
        if depth > _MOST_NESTED:
            raise _error(f"parentheses are nested at most {_MOST_NESTED} deep", bare, mark.start())
    signs = re.search(rf"(?:[-+~!]\s*){{{_MOST_NESTED + 1},}}", bare)
    if signs:
        raise _error(f"at most {_MOST_NESTED} signs stand before a number", bare, signs.start())
    start = 0
    for statement in bare.split(";"):
        if len(statement) > _LONGEST and len(" ".join(statement.split())) > _LONGEST:
            raise _error(f"a statement has at most {_LONGEST} characters", bare, start)
        start += len(statement) + 1
    total = _written_out(bare)
    if total > MOST_STATEMENTS:
        rule = (
            f"texts with more than gates on single qubits with numbers as angles have at most {MOST_STATEMENTS} gates"
        )
        raise _error(f"{rule}; got {total:.6g}, and something else here", bare, place)


def _written_out(bare: str) -> float:
    """Statements of a text with its definitions written out."""
    sizes: dict[str, float] = {}

    def size(body: str) -> float:
        called = (re.match(r"\s*(?:.*@)?\s*(\w+)", part, re.DOTALL) for part in body.split(";"))
        return sum(sizes.get(found[1], 1.0) for found in called if found)

    def note(definition: re.Match[str]) -> str:
        sizes[definition[1]] = max(1.0, size(definition[2]))
        return " "

    return size(re.sub(r"\bgate\s+(\w+)[^{;]*\{([^}]*)\}", note, bare))


# ---------------------------------------------------------------------- the plain part
def read_plain(bare: str, definitions: Mapping[str, str]) -> Circuit:
    """The circuit of a text in the plain part of the language.

    Args:
        bare: the text without comments.
        definitions: gate name -> how `to_qasm` defines it; no other definition is known.

    Raises:
        NotPlainError: something else is in it, right or wrong.
    """
    head = _HEAD.match(bare)
    if head is None or (head[1] == "2") != (head[2] == "qelib1"):
        raise NotPlainError(0)
    version, body = head[1], bare[head.end() :]
    names = {name: own for name, own in _NAMES.items() if name not in _UNKNOWN[version]}
    for name, text in definitions.items():
        if text in body:
            body, names[name] = body.replace(text, " " * len(text), 1), name
    registers = _Registers(version)
    gates: list[Gate] = []
    place = head.end()
    for statement in body.split(";"):
        plain = statement.strip()
        applied = _APPLIED.fullmatch(plain)
        try:
            if applied is not None and applied[1] in names:
                angles = tuple(map(_angle, applied[2].split(","))) if applied[2] else ()
                gates.append(Gate(names[applied[1]], registers.wires(applied[3]), angles))
            elif barrier := _BARRIER.fullmatch(plain):
                registers.wires(barrier[1])
            elif plain and (gates or not registers.declare(plain, names)):
                raise NotPlainError(place)
        except (CircuitError, LookupError, ValueError, ZeroDivisionError):
            raise NotPlainError(place) from None
        place += len(statement) + 1
    if not registers.size:
        raise NotPlainError(place)
    return Circuit(registers.size, gates)


class _Registers:
    """Qubits by the registers of a text, or physical ones."""

    def __init__(self, version: str) -> None:
        self.pattern = _DECLARED[version]
        self.physical = version == "3"
        self.known: dict[str, range] = {}
        self.size = 0

    def declare(self, statement: str, gates: Container[str]) -> bool:
        """Whether the statement declares a register."""
        found = self.pattern.fullmatch(statement)
        if found is None or found["name"] in self.known or found["name"] in gates or found["name"] in _RESERVED:
            return False
        size = int(found["size"] or 1)
        if not 1 <= size <= MAX_QUBITS - self.size or (self.size and not self.known):
            return False
        self.known[found["name"]] = range(self.size, self.size + size)
        self.size += size
        return True

    def wires(self, text: str) -> tuple[int, ...]:
        """Numbers of different qubits.

        Raises:
            LookupError: no such qubit.
            ValueError: the same one twice.
        """
        found = tuple(
            self.known[name][int(index)] if name else self._held(int(number))
            for name, index, number in _PLACE.findall(text)
        )
        if len(set(found)) < len(found):
            raise ValueError
        return found

    def _held(self, number: int) -> int:
        if self.known or not self.physical or number >= MAX_QUBITS:
            raise LookupError
        self.size = max(self.size, number + 1)
        return number


def _angle(text: str) -> float:
    """A number, or a multiple of pi.

    Raises:
        ValueError: something else, or infinite.
        ZeroDivisionError: pi / 0.
    """
    found = _ANGLE.fullmatch(text)
    if found is None:
        raise ValueError
    sign, number, factor, divisor = found.groups()
    if number:
        value = float(number)
    else:
        value = (float(factor) * math.pi if factor else math.pi) / float(divisor or 1)
    if not math.isfinite(value):
        raise ValueError
    return -value if sign else value


def _error(rule: str, bare: str, place: int) -> CircuitError:
    return CircuitError(f"OpenQASM line {bare.count(chr(10), 0, place) + 1}: {rule}")
