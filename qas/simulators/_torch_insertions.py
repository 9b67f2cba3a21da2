"""Slopes of rotations inserted into a circuit, for all Pauli strings, with torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qas.circuits import Circuit
from qas.gates import PAULI_MATRICES
from qas.hamiltonians import Hamiltonian
from qas.noise import NoiseModel
from qas.simulators._inserted import Channels
from qas.simulators._sums import from_derivatives
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
        product = operator_of(state[0], self.n_qubits) @ operator_of(gradient[0], self.n_qubits) / 2**self.n_qubits
        return self._traces(product)[self.index].imag

    def _traces(self, matrix: Tensor) -> Tensor:
        """Tr(P M) of all P, complex128, shape (4**n,), from shape (2**n, 2**n)."""
        n = self.n_qubits
        digits = matrix.reshape((2,) * (2 * n)).permute(*(axis for q in range(n) for axis in (q, n + q)))
        local = torch.as_tensor(_PAULIS.conj().reshape(4, 4), device=matrix.device)
        return on_each_qubit(local, digits.reshape(-1), n)


def operator_of(vector: Tensor, n_qubits: int) -> Tensor:
    """Σ_P v_P P, complex128, shape (2**n, 2**n), from shape (4**n,)."""
    local = torch.as_tensor(_PAULIS.reshape(4, 4).T.copy(), device=vector.device)
    digits = on_each_qubit(local, vector.to(torch.complex128), n_qubits).view((2,) * (2 * n_qubits))
    order = (*range(0, 2 * n_qubits, 2), *range(1, 2 * n_qubits, 2))
    return digits.permute(*order).reshape(2**n_qubits, 2**n_qubits)


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

    def at(self, positions: Sequence[int], wanted: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> list[Tensor]:
        """What functions of state and gradient give before some gates, the number of gates standing for the end.

        Returns:
            For each function its values, stacked in the order of `positions`.
        """
        n, program = self.program.n_qubits, self.program
        end = len(program.steps)
        rows = {}
        if end - n in positions:
            rows[end] = [of(self.state, self.gradient) for of in wanted]

        def visit(number: int, state: Tensor, gradient: Tensor) -> None:
            if number - n in positions:
                order = program.steps[number - 1].order
                states = program.in_order(state, order), program.in_order(gradient, order)
                rows[number] = [of(*states) for of in wanted]

        if len(positions) > len(rows):
            adjoint_sweep(program, self.kept, self.maps, program.ended_adjoint(self.gradient), self.stride, visit)
        return [torch.stack([rows[n + k][column] for k in positions]) for column in range(len(wanted))]


class Costs:
    """Σ λ (N - 1) v: what channels N change at a place.

    Args:
        channels: of inserted gates.
        size: number of results.
        n_qubits: of the register.
    """

    def __init__(self, channels: Channels, size: int, n_qubits: int) -> None:
        self.channels, self.size, self.n_qubits = channels, size, n_qubits

    def __call__(self, state: Tensor, gradient: Tensor) -> Tensor:
        """Float64, shape (size,), from a state of shape (1, 4^n) and the energy's gradient by it."""
        channels = self.channels
        found = torch.zeros(self.size, dtype=torch.float64, device=state.device)
        for pair, low, high in zip(range(len(channels.low)), channels.low, channels.high, strict=True):
            left, right = (self._rows(vector[0], int(low), int(high)) for vector in (gradient, state))
            overlaps = (left @ right.T).to(torch.float64).reshape(-1)
            for c in range(channels.first[pair], channels.first[pair + 1]):
                part = slice(channels.start[c], channels.start[c + 1])
                value = torch.as_tensor(channels.value[part], device=state.device)
                found[channels.column[c]] = overlaps[torch.as_tensor(channels.entry[part], device=state.device)] @ value
        return found

    def _rows(self, vector: Tensor, low: int, high: int) -> Tensor:
        """A vector by the strings of two qubits, low + 4 · high, shape (16, 4**(n - 2)); n = 1 has room for another."""
        n = max(self.n_qubits, 2)
        if self.n_qubits == 1:
            vector = torch.cat([vector, vector.new_zeros(12)])
        return vector.view((4,) * n).movedim((n - 1 - high, n - 1 - low), (0, 1)).reshape(16, -1)


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


class _Flips:
    """G/s of a sum of strings, as ``(G M)[i] = Σ_x d_x[i] M[i ^ x]``."""

    def __init__(self, terms: Mapping[str, float], scale: float, place: Place) -> None:
        flips, diagonals = Hamiltonian(terms).xor_diagonals
        self.gather = [place.indices(np.arange(diagonals.shape[1]) ^ x) for x in flips]
        self.diagonals = torch.as_tensor(diagonals / scale, device=place.device)

    def times(self, matrix: Tensor) -> Tensor:
        """Complex128, of the shape of `matrix`, (2**n, columns)."""
        parts = [d[:, None] * matrix[gather] for d, gather in zip(self.diagonals, self.gather, strict=True)]
        return torch.stack(parts).sum(0)

    def turned(self, matrix: Tensor) -> Tensor:
        """-i (G M - M G) of a Hermitian M."""
        product = self.times(matrix)
        return -1j * (product - product.mH)


def sum_curves(
    places: Places, sums: Sequence[Mapping[str, float]], scales: np.ndarray, hamiltonian: Hamiltonian
) -> np.ndarray:
    """(α, β, γ, δ) of appended sums with G³ = s²G (see `_sums`), float64, shape (sums, 4)."""
    place = places.program.place
    generators = (_Flips(terms, scale, place) for terms, scale in zip(sums, scales, strict=True))
    if place.noisy:
        n = places.program.n_qubits
        state, observable = operator_of(places.state[0], n) / 2**n, operator_of(places.gradient[0], n)
        rows = [_derivatives(generator, state, observable) for generator in generators]
        return from_derivatives(torch.stack(rows).cpu().numpy()) if rows else np.zeros((0, 4))
    measured = AmplitudeObservables([hamiltonian], place)
    one = torch.full((2, 1), 0.5, dtype=torch.float64, device=place.device)
    state, adjoint = places.state[0].to(torch.complex128), places.gradient[0].to(torch.complex128) / 2
    rows = []
    for generator in generators:
        first = generator.times(state[:, None])
        second = generator.times(first)
        both = torch.cat([first, second], dim=1)
        turned = both.mH @ measured.adjoint(both.T.to(place.dtype).contiguous(), one).to(torch.complex128).T
        slope, fall = adjoint.conj() @ both
        bend = turned[0, 0].real
        rows.append(
            torch.stack([2 * slope.imag, 2 * (fall.real - bend), 2 * turned[1, 0].imag, turned[1, 1].real - bend])
        )
    return torch.stack(rows).cpu().numpy() if rows else np.zeros((0, 4))


def _derivatives(generator: _Flips, state: Tensor, observable: Tensor) -> Tensor:
    """First to fourth derivative of Tr(H ρ) by φ at 0: D acts twice on ρ, and -D twice on H."""
    once = generator.turned(state)
    twice = generator.turned(once)
    back = -generator.turned(observable)
    pairs = [(observable, once), (observable, twice), (back, twice), (-generator.turned(back), twice)]
    return torch.stack([(left.conj() * right).sum().real for left, right in pairs])
