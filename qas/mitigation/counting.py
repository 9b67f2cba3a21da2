"""Energies from counted bit strings: measurement settings, flips inverted, and how sure the result is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qas.errors import QasError
from qas.hamiltonians import Hamiltonian, string_masks, walsh_hadamard
from qas.mitigation.sampling import groups_of


@dataclass(frozen=True)
class Setting:
    """Strings that are measured together because they commute qubit by qubit."""

    basis: str
    """one letter a qubit, Z where nothing is asked for; the rightmost one is qubit 0's"""
    strings: tuple[str, ...]


def settings_of(observables: Sequence[Hamiltonian]) -> list[Setting]:
    """Bases in which all terms of several observables are measured, each term in one of them.

    Grouped as of `qas.mitigation.sampling.groups_of`, by the largest coefficient that a string has in any of them.
    """
    sizes: dict[str, float] = {}
    for observable in observables:
        for string, weight in observable.terms.items():
            sizes[string] = max(sizes.get(string, 0.0), abs(weight))
    merged = Hamiltonian(sizes)
    found = []
    for group in groups_of(merged):
        letters = merged.letters[group].max(axis=0)
        found.append(Setting("".join("ZXYZ"[k] for k in reversed(letters)), tuple(merged.strings[k] for k in group)))
    return found


def outcome_probabilities(pauli_vector: np.ndarray, basis: str, flips: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of the bit strings that a setting reads, float64, shape (2**n,), qubit 0 the least significant bit.

    Args:
        pauli_vector: Tr(P ρ) of all strings, as `PauliTransferSimulator.pauli_expectations` returns them.
        basis: of a `Setting`.
        flips: (p01, p10) of each qubit, shape (n, 2); None: read without flips.
    """
    n = len(basis)
    bits = np.arange(1 << n)[:, None] >> np.arange(n) & 1
    probabilities = pauli_vector[bits @ np.array(["IXYZ".index(c) * 4**q for q, c in enumerate(reversed(basis))])]
    walsh_hadamard(probabilities)
    probabilities = np.clip(probabilities, 0.0, None)  # rounding
    for q, (p01, p10) in enumerate(() if flips is None else flips):
        rows = probabilities.reshape(-1, 2, 1 << q)
        rows[:] = np.einsum("ij,ajb->aib", np.array([[1 - p01, p10], [p01, 1 - p10]]), rows)
    return probabilities / probabilities.sum()


@dataclass(frozen=True)
class Estimates:
    """Expectation values of several observables from the same measurements."""

    values: np.ndarray
    """float64, shape (n_observables,)"""
    covariance: np.ndarray
    """float64, shape (n_observables, n_observables)"""


@dataclass(frozen=True)
class Counts:
    """What was read in some settings."""

    settings: Sequence[Setting]
    frequencies: Sequence[np.ndarray]
    """of each setting the share of each bit string, shape (2**n,), qubit 0 the least significant bit"""
    shots: Sequence[int]
    """measurements of each setting"""

    def estimates(self, observables: Sequence[Hamiltonian], readout: Flips | None = None) -> Estimates:
        """Expectation values, and their covariance by the spread of what was read and of the flips.

        Args:
            observables: whose terms the settings hold.
            readout: flips to be inverted qubit by qubit: every measured letter L stands for
                (L - (p10 - p01)) / (1 - p01 - p10); None: taken as it was read.

        Raises:
            QasError: a qubit that is read at random, so that nothing can be inverted.
        """
        if readout is None:
            return self._estimates(observables, None)
        found = self._estimates(observables, readout.flips)
        covariance = found.covariance.copy()
        for place in zip(*np.nonzero(readout.errors), strict=True):
            moved = readout.flips.copy()
            moved[place] += readout.errors[place]
            change = self._estimates(observables, moved).values - found.values
            covariance += np.outer(change, change)
        return Estimates(found.values, covariance)

    def _estimates(self, observables: Sequence[Hamiltonian], flips: np.ndarray | None) -> Estimates:
        values = np.array([observable.identity for observable in observables])
        covariance = np.zeros((len(observables),) * 2)
        terms = [observable.terms for observable in observables]
        for setting, seen, shots in zip(self.settings, self.frequencies, self.shots, strict=True):
            read = np.array([read_values(own, setting.strings, flips) for own in terms])
            mean = read @ seen
            values += mean
            spread = read - mean[:, None]
            covariance += (spread * seen) @ spread.T / max(1, shots - 1)
        return Estimates(values, covariance)


def read_values(terms: Mapping[str, float], strings: Sequence[str], flips: np.ndarray | None = None) -> np.ndarray:
    """What each bit string says about some terms of an observable in their setting, float64, shape (2**n,).

    Raises:
        QasError: flips that cannot be inverted.
    """
    if flips is not None:
        check_invertible(flips)
    values = np.zeros(1 << len(strings[0]))
    for string in strings:
        x, z = string_masks(string)
        values[x | z] += terms.get(string, 0.0)
    for q, (p01, p10) in enumerate(() if flips is None else flips):
        kept = 1.0 - p01 - p10
        rows = values.reshape(-1, 2, 1 << q)
        rows[:, 0] -= (p10 - p01) / kept * rows[:, 1]
        rows[:, 1] /= kept
    walsh_hadamard(values)
    return values


def check_invertible(flips: np.ndarray) -> None:
    """Refuse flips (p01, p10) of each qubit, shape (n, 2), that cannot be inverted.

    Raises:
        QasError: a qubit that is read at random.
    """
    for q, (p01, p10) in enumerate(flips):
        if abs(1.0 - p01 - p10) < 1e-6:
            raise QasError(
                f"readout that tells 0 from 1 can be inverted, got p01 = {p01:g}, p10 = {p10:g} on qubit {q}"
            )


def divided(shots: int, observables: Sequence[Hamiltonian], settings: Sequence[Setting]) -> list[int]:
    """Shots of each setting, at least 2: in proportion to the standard deviation of one shot in the fully mixed state.

    Where the state is not known that keeps the variance of the sum lowest (Lagrange). Of several observables the
    squares are added up.
    """
    spreads = _spreads(observables, settings)
    total = spreads.sum()
    shares = spreads / total if total > 0 else np.full(len(settings), 1 / max(1, len(settings)))
    return [max(2, round(float(shots * share))) for share in shares]


def mixed_error(observable: Hamiltonian, shots: int) -> float:
    """Standard error of a value from so many shots in all, divided as of `divided`, in the fully mixed state."""
    return float(_spreads([observable], settings_of([observable])).sum() / np.sqrt(shots))


def _spreads(observables: Sequence[Hamiltonian], settings: Sequence[Setting]) -> np.ndarray:
    squares: dict[str, float] = {}
    for observable in observables:
        for string, weight in observable.terms.items():
            squares[string] = squares.get(string, 0.0) + weight**2
    return np.array([np.sqrt(sum(squares.get(string, 0.0) for string in s.strings)) for s in settings])


class Request(NamedTuple):
    """One circuit to be measured."""

    scale: float
    """strength of the noise, 1 is the circuit as it is"""
    basis: str
    """of a `Setting`"""
    shots: int
    prepared: str = ""
    """bits of a basis state that is read instead of the circuit, the rightmost one qubit 0's; empty: the circuit"""


@dataclass(frozen=True)
class Flips:
    """What is known of the flips at readout."""

    flips: np.ndarray
    """(p01, p10) of each qubit, float64, shape (n, 2)"""
    errors: np.ndarray
    """their standard errors, same shape"""

    @classmethod
    def known(cls, flips: np.ndarray) -> Flips:
        return cls(flips, np.zeros_like(flips))

    @classmethod
    def measured(cls, zeros: np.ndarray, ones: np.ndarray, shots: int) -> Flips:
        """From what is read where all qubits are prepared in 0, and in 1: shares of bit strings, shape (2**n,)."""
        size = len(zeros)
        bits = np.arange(size)[:, None] >> np.arange(size.bit_length() - 1) & 1
        flips = np.stack([zeros @ bits, 1.0 - ones @ bits], axis=1)
        return cls(flips, np.sqrt(np.clip(flips * (1.0 - flips), 0.25 / shots, None) / shots))


Count = Callable[[Sequence[Request]], Sequence[np.ndarray]]
"""Requests -> the share of each bit string in each, float64, shape (2**n,), qubit 0 the least significant bit."""
