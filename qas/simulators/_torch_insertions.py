"""Slopes of rotations inserted into a circuit, for all Pauli strings, with torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qas.circuits import Circuit
from qas.gates import PAULI_MATRICES
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators._torch_sweep import (
    AmplitudeObservables,
    Place,
    Program,
    adjoint_sweep,
    forward_sweep,
)

_PAULIS = np.array([PAULI_MATRICES[letter] for letter in "IXYZ"])

_SIGNS = np.array([[1.0 if 0 in (a, b) or a == b else -1.0 for b in range(4)] for a in range(4)])
"""1 where two letters commute, -1 where they anticommute"""


class Slopes:
    """Im⟨λ|P|ψ⟩ of Pauli strings P: how fast exp(-iθP/2) changes the energy at θ = 0.

    Args:
        strings: on as many qubits as the states.
        place: of the states.
    """

    def __init__(self, strings: Sequence[str], place: Place) -> None:
        self.n_qubits, self.place = len(strings[0]), place
        if place.noisy:
            digits = [["IXYZ".index(letter) for letter in string] for string in strings]
            self.index = place.indices(np.array(digits) @ 4 ** np.arange(self.n_qubits)[::-1])
        else:
            self.amplitudes = AmplitudeObservables([Hamiltonian({string: 1.0}) for string in strings], place)

    def __call__(self, state: Tensor, gradient: Tensor) -> Tensor:
        """Float64, shape (n_strings,), from a state of shape (1, d^n) and the energy's gradient by it."""
        if not self.place.noisy:
            return self.amplitudes.between(gradient, state)[0].imag / 2  # the gradient is 2 λ
        # With E = Tr(Λρ) the slope is Tr(Λ · (-i/2)[P, ρ]) = Im Tr(P ρ Λ), the same dense product for all P.
        product = self._operator(state[0]) @ self._operator(gradient[0]) / 2**self.n_qubits
        return self._traces(product)[self.index].imag

    def _operator(self, vector: Tensor) -> Tensor:
        """Σ_P v_P P, complex128, shape (2**n, 2**n), from shape (4**n,)."""
        n = self.n_qubits
        local = torch.as_tensor(_PAULIS.reshape(4, 4).T.copy(), device=vector.device)
        digits = on_each_qubit(local, vector.to(torch.complex128), n).view((2,) * (2 * n))
        return digits.permute(*range(0, 2 * n, 2), *range(1, 2 * n, 2)).reshape(2**n, 2**n)

    def _traces(self, matrix: Tensor) -> Tensor:
        """Tr(P M) of all P, complex128, shape (4**n,), from shape (2**n, 2**n)."""
        n = self.n_qubits
        digits = matrix.reshape((2,) * (2 * n)).permute(*(axis for q in range(n) for axis in (q, n + q)))
        local = torch.as_tensor(_PAULIS.conj().reshape(4, 4), device=matrix.device)
        return on_each_qubit(local, digits.reshape(-1), n)


def on_each_qubit(local: Tensor, vector: Tensor, n_qubits: int) -> Tensor:
    """A map of four digits on every qubit, shape (4, 4), applied to shape (4**n,)."""
    for qubit in range(n_qubits):
        vector = (local @ vector.view(-1, 4, 4**qubit)).reshape(-1)
    return vector


class Places:
    """States of one circuit and gradients by them at the places between its gates.

    Args:
        circuit, noise, place: as of the engine.
        hamiltonian: its readout flips are put into its coefficients.
        angles: shape (1, n_angles).
        keep: number of states that memory holds; where there are more, every so many are made again.
    """

    def __init__(
        self,
        circuit: Circuit,
        noise: NoiseModel | None,
        place: Place,
        hamiltonian: Hamiltonian,
        angles: Tensor,
        keep: int,
    ) -> None:
        quiet = None if noise is None else replace(noise, readout={})
        self.program = Program(circuit, quiet, place, separate=True)
        self.maps = self.program.maps(angles)
        self.stride = 1 if len(self.maps) <= keep else math.isqrt(len(self.maps) - 1) + 1
        self.last, self.kept = forward_sweep(self.program, self.maps, 1, self.stride)
        self.state = self.program.ended(self.last)
        if noise is None:
            one = torch.ones(1, 1, dtype=torch.float64, device=place.device)
            self.gradient = AmplitudeObservables([hamiltonian], place).adjoint(self.state, one)
        else:
            self.gradient = place.state(noise.apply_readout(hamiltonian.pauli_vector))[None]

    def slopes(self, of: Slopes) -> Tensor:
        """Slopes before each gate and after the last one, float64, shape (n_gates + 1, n_strings)."""
        n, program = self.program.n_qubits, self.program
        rows = [of(self.state, self.gradient)]

        def visit(number: int, state: Tensor, gradient: Tensor) -> None:
            if number >= n:
                order = program.steps[number - 1].order
                rows.append(of(program.in_order(state, order), program.in_order(gradient, order)))

        adjoint_sweep(program, self.kept, self.maps, program.ended_adjoint(self.gradient), self.stride, visit)
        return torch.stack(rows[::-1])


def falls(places: Places, strings: Sequence[str], terms: np.ndarray, hamiltonian: Hamiltonian) -> np.ndarray:
    """(E(0) - E(π)) / 2 of appended rotations: the part of the energy that anticommutes with the string.

    Args:
        places: of the circuit.
        strings: of the rotations.
        terms: expectation values of the Hamiltonian's terms; used without noise only.
        hamiltonian: of the energy.
    """
    digits = np.array([["IXYZ".index(letter) for letter in reversed(string)] for string in strings])
    if not places.program.place.noisy:
        pairs = _SIGNS[digits[:, None], hamiltonian.letters[None]].prod(axis=2)
        return (1.0 - pairs) / 2 @ (hamiltonian.coefficients * terms)
    parts = (places.gradient * places.state)[0].to(torch.float64)
    signs = torch.as_tensor(_SIGNS, device=parts.device)
    turned = on_each_qubit(signs, parts, places.program.n_qubits).cpu().numpy()
    return (turned[0] - turned[digits @ 4 ** np.arange(places.program.n_qubits)]) / 2
