"""How a score comes from energies, and what it is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Recipe(NamedTuple):
    """How a score comes from energies at several strengths of the noise."""

    fit: np.ndarray
    """float64 (nodes,): weight of each energy at strength 0, or of its logarithm"""
    exponential: bool
    """whether the weights are those of logarithms of distances from the value at infinite noise"""
    straight: np.ndarray
    """float64 (nodes,): weights of the straight line, which takes the place of a fit that leads nowhere"""
    shots: int | None
    """measurements of all nodes and groups together"""
    kappa: float
    """weight of the standard error in the score"""
    inverted: bool
    """whether readout is inverted"""
    assignment: np.ndarray | None = None
    """the readout as a whole; None: the flips of the noise model"""

    @property
    def shares(self) -> np.ndarray:
        """Part of the shots that each node gets, float64, shape (nodes,): the best one where all spread alike."""
        size = np.abs(self.fit)
        return np.maximum(size / size.sum(), 1e-9)


class Estimate(NamedTuple):
    """A circuit's score and what it is made of, in the unit of the Hamiltonian."""

    score: float
    """`mitigated` plus kappa times `sigma`"""
    mitigated: float
    sigma: float | None
    """standard error of an estimate of `mitigated` from the recipe's shots; None without a number of shots"""
    fell_back: bool
    """whether the straight line took the place of the fit"""
