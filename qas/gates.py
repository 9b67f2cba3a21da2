"""The gate tables: every gate the framework knows, once.

To add a gate, add one `GateSpec` here. Rotations are ``exp(-i θ P / 2)``. Local matrices follow Qiskit's order: the
first qubit named by a gate is the least significant bit of its matrix.

Excitations are gates that are made of others: they rotate basis states into their complements, ``|b⟩ → cos θ |b⟩ +
sin θ |b̄⟩``, so that θ is the amplitude of a unitary coupled cluster. What they cost, and how engines and devices run
them, is their decomposition (`qas.decomposition`); the state-vector engine turns the pairs of amplitudes themselves.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qas.errors import UnknownNameError

PAULI_MATRICES = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]], dtype=complex),
    "Z": np.array([[1, 0], [0, -1]], dtype=complex),
}


class Exchange(NamedTuple):
    """exp(φ(|b̄⟩⟨b| - |b⟩⟨b̄|)) with φ = Σ weights · angles."""

    state: int
    """b: bit k is the value of the gate's k-th qubit; b̄ has all bits flipped"""
    weights: tuple[int, ...]
    """one for each angle of the gate"""


@dataclass(frozen=True)
class GateSpec:
    """What the framework needs to know about one gate."""

    name: str
    n_qubits: int
    n_angles: int
    matrix: Callable[..., np.ndarray]
    """angles -> unitary, shape (2**n_qubits, 2**n_qubits)"""
    symmetric: bool = False
    """the order of the two qubits does not matter"""
    axis: str | None = None
    """for rotations: the Pauli P of exp(-i θ P / 2), one letter for each qubit"""
    exchanges: tuple[Exchange, ...] = ()
    """for excitations: the basis states b that turn into their complements, by the sum of weights times angles"""

    @property
    def primitive(self) -> bool:
        """Whether devices run the gate as it is; excitations are decomposed."""
        return not self.exchanges


def _rotation(axis: str) -> Callable[[float], np.ndarray]:
    generator = PAULI_MATRICES[axis[0]]
    for letter in axis[1:]:
        generator = np.kron(PAULI_MATRICES[letter], generator)

    def matrix(theta: float) -> np.ndarray:
        identity = np.eye(len(generator))
        return math.cos(theta / 2) * identity - 1j * math.sin(theta / 2) * generator

    return matrix


def _constant(rows: list[list[complex]]) -> Callable[[], np.ndarray]:
    array = np.array(rows, dtype=complex)
    return lambda: array


def _u(theta: float, phi: float, lam: float) -> np.ndarray:
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    # exp(i(φ+λ)) would not be the product of the two phases where the sum of huge angles is rounded.
    p, q = cmath.exp(1j * phi), cmath.exp(1j * lam)
    return np.array([[c, -q * s], [p * s, p * q * c]], dtype=complex)


def _excitation(name: str, n_qubits: int, *exchanges: tuple[int, tuple[int, ...]]) -> GateSpec:
    parts = tuple(Exchange(*exchange) for exchange in exchanges)
    size = 1 << n_qubits

    def matrix(*angles: float) -> np.ndarray:
        array = np.eye(size, dtype=complex)
        for state, weights in parts:
            phi = math.fsum(w * a for w, a in zip(weights, angles, strict=True))
            other = size - 1 - state
            array[state, state] = array[other, other] = math.cos(phi)
            array[other, state], array[state, other] = math.sin(phi), -math.sin(phi)
        return array

    return GateSpec(name, n_qubits, len(parts[0].weights), matrix, exchanges=parts)


_R = math.sqrt(0.5)
_T = cmath.exp(1j * math.pi / 4)

GATES: dict[str, GateSpec] = {
    spec.name: spec
    for spec in [
        GateSpec("rx", 1, 1, _rotation("X"), axis="X"),
        GateSpec("ry", 1, 1, _rotation("Y"), axis="Y"),
        GateSpec("rz", 1, 1, _rotation("Z"), axis="Z"),
        GateSpec("u", 1, 3, _u),
        GateSpec("x", 1, 0, _constant([[0, 1], [1, 0]])),
        GateSpec("y", 1, 0, _constant([[0, -1j], [1j, 0]])),
        GateSpec("z", 1, 0, _constant([[1, 0], [0, -1]])),
        GateSpec("h", 1, 0, _constant([[_R, _R], [_R, -_R]])),
        GateSpec("s", 1, 0, _constant([[1, 0], [0, 1j]])),
        GateSpec("sdg", 1, 0, _constant([[1, 0], [0, -1j]])),
        GateSpec("t", 1, 0, _constant([[1, 0], [0, _T]])),
        GateSpec("tdg", 1, 0, _constant([[1, 0], [0, _T.conjugate()]])),
        GateSpec("sx", 1, 0, _constant([[0.5 + 0.5j, 0.5 - 0.5j], [0.5 - 0.5j, 0.5 + 0.5j]])),
        GateSpec("cx", 2, 0, _constant([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])),
        GateSpec("cz", 2, 0, _constant([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]]), symmetric=True),
        GateSpec(
            "ecr",
            2,
            0,
            _constant([[0, _R, 0, 1j * _R], [_R, 0, -1j * _R, 0], [0, 1j * _R, 0, _R], [-1j * _R, 0, _R, 0]]),
        ),
        GateSpec("swap", 2, 0, _constant([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), symmetric=True),
        GateSpec("rxx", 2, 1, _rotation("XX"), symmetric=True, axis="XX"),
        GateSpec("ryy", 2, 1, _rotation("YY"), symmetric=True, axis="YY"),
        GateSpec("rzz", 2, 1, _rotation("ZZ"), symmetric=True, axis="ZZ"),
    ]
}
"""Gates that engines, noise and devices know."""

EXCITATIONS: dict[str, GateSpec] = {
    spec.name: spec
    for spec in [
        # On qubits (i, a): one particle from i to a; also known as a Givens rotation.
        _excitation("single_excitation", 2, (0b01, (1,))),
        # On qubits (i, j, a, b): two particles from i and j to a and b (Yordanov et al., arXiv:2005.14475).
        _excitation("double_excitation", 4, (0b0011, (1,))),
        # On (i, j, a, b): ij → ab and ib → aj together, by one angle or by two: coupled exchange operators with one and
        # several variational parameters (Ramôa et al., arXiv:2407.08696). On (j, i, b, a) OVP is their difference.
        _excitation("ovp_ceo", 4, (0b0011, (1,)), (0b1001, (1,))),
        _excitation("mvp_ceo", 4, (0b0011, (1, 0)), (0b1001, (0, 1))),
    ]
}
"""Gates that are decomposed into those of `GATES` wherever they are counted, and run with noise or on a device."""

DIAGONAL_GATES = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "cz", "rzz"})
"""Gates whose matrices are diagonal."""

POOL_GATES = ("x", "y", "z", "h", "rx", "ry", "rz", "cx", "cz", "u", "swap")
"""The eleven gates of the published pools, in their order (arXiv:2401.11576, code release)."""

SEARCH_GATES = ("rx", "ry", "rz", "cx")
"""The default search set (CRLQAS section 2: rotations about three axes and CNOT)."""


_OTHER_NAMES = {"cnot": "cx", "not": "x", "hadamard": "h", "p": "rz", "phase": "rz", "u1": "rz", "u3": "u", "v": "sx"}
_OTHER_NAMES |= {"givens": "single_excitation", "singleexcitation": "single_excitation"}
_OTHER_NAMES |= {
    "doubleexcitation": "double_excitation",
    "qeb": "double_excitation",
    "qe": "double_excitation",
    "ceo": "ovp_ceo",
}


def gate_spec(name: str) -> GateSpec:
    """The specification of gate `name`.

    Raises:
        UnknownNameError: no such gate; the nearest name is suggested.
    """
    try:
        return GATES[name] if name in GATES else EXCITATIONS[name]
    except (KeyError, TypeError):
        other = _OTHER_NAMES.get(str(name).lower())
        raise UnknownNameError("gate", name, {**GATES, **EXCITATIONS}, other) from None
