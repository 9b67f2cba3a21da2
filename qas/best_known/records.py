"""Records of the atlas: a circuit, what it achieves, and who found it; which of them stay; their files."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.errors import RunError
from qas.files import check_versioned, parse_json, read_bytes, to_json, versioned, write_atomic
from qas.gates import SEARCH_GATES
from qas.problems import OperatorProblem
from qas.simulators import Simulator

FORMAT, VERSION = "qas-atlas", 1
_LARGEST_PLAIN = 1_000_000
"""Bytes of the largest file that is not compressed."""
_OFFSET = 0.12345
"""Keeps fractions with few digits away from where steps meet."""


def tolerance(error: float) -> float:
    """Errors that differ by no more are equal: 1e-9 in the unit of the problem, plus 1e-5 of the error.

    The first is what another simulator reproduces, the second what optimizations of the same circuit leave.
    """
    return 1e-9 + 1e-5 * abs(error)


def fingerprint(problem: OperatorProblem) -> str:
    """Name of an operator: the same for equal terms up to rounding (1e-8), whatever the problem is called."""
    text = ";".join(f"{string}:{steps}" for string, steps in sorted(stepped(problem, 1e-8)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def stepped(problem: OperatorProblem, step: float) -> list[tuple[str, int]]:
    """Terms of an operator with their weights in whole steps, those of none left out."""
    rounded = ((string, math.floor(weight / step + _OFFSET)) for string, weight in problem.hamiltonian.terms.items())
    return [(string, steps) for string, steps in rounded if steps]


# ---------------------------------------------------------------------- one circuit
def counted(circuit: Circuit, problem: OperatorProblem) -> Circuit:
    """The circuit as records hold and count it: its gates on two qubits are CX and CZ, which cost the same.

    Whatever else acts on several qubits is decomposed, where a problem is one of states as far as what it makes of
    |0…0⟩ needs it.
    """
    from_zero = not problem.whole_matrix
    plain = circuit.decompose(from_zero=from_zero)
    others = {gate.name for gate in plain if len(gate.qubits) > 1} - {"cx", "cz"}
    return plain.decompose(SEARCH_GATES, from_zero=from_zero) if others else plain


@dataclass(frozen=True)
class KnownCircuit:
    """A circuit of the atlas. Energies are noise-free and in the problem's unit."""

    two_qubit_gates: int
    gates: int
    depth: int
    n_angles: int
    error: float
    """energy minus the problem's exact value"""
    energy: float
    found: Mapping[str, Any]
    """who found it: agent, seed, budget, version and options; or the folder of published results, or paper and doi"""
    qasm: str
    """OpenQASM 3 with all angles"""

    @cached_property
    def circuit(self) -> Circuit:
        """The circuit with its angles."""
        return Circuit.from_qasm(self.qasm)

    @property
    def angles(self) -> np.ndarray:
        """Angles in radians, shape (n_angles,)."""
        return self.circuit.angles

    @classmethod
    def judged(
        cls, circuit: Circuit, problem: OperatorProblem, found: Mapping[str, Any], simulator: Simulator | None = None
    ) -> KnownCircuit:
        """What a circuit achieves, computed anew, of the circuit as `counted`."""
        plain = counted(circuit, problem)
        energy = problem.energy(plain, simulator)
        sizes = plain.two_qubit_gates, len(plain), plain.depth, plain.n_angles
        return cls(*sizes, problem.error(energy), energy, dict(found), plain.to_qasm())

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back."""
        names = ("two_qubit_gates", "gates", "depth", "n_angles", "error", "energy")
        return {name: getattr(self, name) for name in names} | {"found": dict(self.found), "qasm": self.qasm}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KnownCircuit:
        sizes: dict[str, Any] = {
            name: whole_number(name, data[name], 0) for name in ("two_qubit_gates", "gates", "depth", "n_angles")
        }
        error, energy = (finite_number(name, data[name]) for name in ("error", "energy"))
        if not isinstance(data["found"], Mapping) or not isinstance(data["qasm"], str):
            raise RunError("found is an object and qasm is text")
        return cls(**sizes, error=error, energy=energy, found=dict(data["found"]), qasm=data["qasm"])


def best_of(known: Iterable[KnownCircuit], offered: Iterable[KnownCircuit] = ()) -> list[KnownCircuit]:
    """The front of error against two-qubit gates, fewest two-qubit gates first.

    Of each number of two-qubit gates the lowest error stays; of errors within the `tolerance` of it the circuit with
    the fewest gates, then angles, then what was known before. A number stays only if its error is lower, by more than
    the tolerance, than that of every smaller one.

    Args:
        known: what stays where what is offered is no better.
        offered: what may take its place.
    """
    counts: dict[int, list[tuple[bool, KnownCircuit]]] = {}
    for new, circuits in ((False, known), (True, offered)):
        for circuit in circuits:
            counts.setdefault(circuit.two_qubit_gates, []).append((new, circuit))
    front: list[KnownCircuit] = []
    for two in sorted(counts):
        lowest = min(circuit.error for _, circuit in counts[two])
        equal = [each for each in counts[two] if each[1].error <= lowest + tolerance(lowest)]
        best = min(equal, key=lambda each: (each[1].gates, each[1].n_angles, each[0], each[1].error))[1]
        if not front or best.error < front[-1].error - tolerance(front[-1].error):
            front.append(best)
    return front


# ---------------------------------------------------------------------- files
@dataclass(frozen=True)
class Header:
    """First line of a file: which problem its circuits are for."""

    problem: str
    hamiltonian: str
    """`fingerprint` of the problem when the circuits were found"""
    n_qubits: int
    unit: str
    exact: float
    threshold: float

    @classmethod
    def of(cls, problem: OperatorProblem) -> Header:
        assert problem.threshold is not None
        sizes = problem.n_qubits, problem.unit, problem.exact, problem.threshold
        return cls(problem.name, fingerprint(problem), *sizes)


def write_records(path: Path, header: Header, circuits: Sequence[KnownCircuit]) -> Path:
    """Write a file of records, a line each, compressed if it is large.

    Args:
        path: ends in ``.jsonl``; a compressed file has ``.gz`` behind it, and takes the place of the other.

    Returns:
        The file.

    Raises:
        RunError: it cannot be written.
    """
    lines = [to_json(versioned(FORMAT, VERSION, vars(header))), *(to_json(each.to_json()) for each in circuits)]
    text = ("\n".join(lines) + "\n").encode()
    packed = path.with_name(f"{path.name}.gz")
    place, other = (packed, path) if len(text) > _LARGEST_PLAIN else (path, packed)
    write_atomic(place, gzip.compress(text, mtime=0) if place is packed else text)
    other.unlink(missing_ok=True)
    return place


def read_records(path: Path) -> tuple[Header, list[KnownCircuit]]:
    """Read a file of records.

    Raises:
        RunError: missing, damaged, or of a newer version.
    """
    data = read_bytes(path, "the file of records")
    try:
        first, *lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        told = check_versioned(parse_json(first), FORMAT, VERSION, "the file of records", where=path, error=RunError)
        header = Header(
            str(told["problem"]),
            str(told["hamiltonian"]),
            whole_number("n_qubits", told["n_qubits"]),
            str(told["unit"]),
            finite_number("exact", told["exact"]),
            finite_number("threshold", told["threshold"], above=0),
        )
        return header, [KnownCircuit.from_json(parse_json(line)) for line in lines if line]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"the file of records is damaged or cut short: {path}: {error}") from None
