"""Shot noise: energies as they are estimated from a finite number of measurements."""

from __future__ import annotations

from typing import Any

import numpy as np

from qas.checks import whole_number
from qas.errors import QasError


class SampledObjective:
    """An objective estimated from measurements.

    Every Pauli term P_k is measured on its own with `shots` shots, so that the estimate is

        E = c_0 + Σ_k c_k (⟨P_k⟩ + ε_k),   ε_k ~ N(0, (1 - ⟨P_k⟩²) / shots),

    with independent errors: the central limit of real counting, whose variance depends on the state. The identity term
    c_0 is a constant and carries no noise. (CRLQAS draws ε_k with the variance 1/shots for every state and for the
    identity too.)

    Args:
        objective: gives `terms(angles)` and `hamiltonian`, as `qas.simulators.base.Objective`.
        shots: measurements of each term, at least 1.
        rng: source of the noise.

    Attributes:
        shots: measurements of each term in the next call; may be changed between calls.
        shots_used: single-term measurements made so far: the sum over calls of shots times measured terms.

    Raises:
        QasError: fewer than 1 shot, or an objective without single terms.
    """

    def __init__(self, objective: Any, shots: int, rng: np.random.Generator) -> None:
        hamiltonian = getattr(objective, "hamiltonian", None)
        if hamiltonian is None or not hasattr(objective, "terms"):
            raise QasError(f"shot noise needs an objective with single Pauli terms, got {type(objective).__name__}")
        self.objective = objective
        self.shots = whole_number("shots", shots)
        self.shots_used = 0
        self._rng = rng
        self._coefficients = hamiltonian.coefficients
        self._measured = np.array([set(string) != {"I"} for string in hamiltonian.strings])

    @property
    def n_angles(self) -> int:
        return self.objective.n_angles

    @property
    def nfev(self) -> int:
        """Calls of the underlying objective."""
        return self.objective.nfev

    @property
    def njev(self) -> int:
        """Gradients of the underlying objective; sampling makes none."""
        return self.objective.njev

    def standard_deviation(self, terms: np.ndarray) -> float:
        """Standard deviation of the estimate where the terms have these expectation values, shape (n_terms,)."""
        variance = np.clip(1.0 - terms**2, 0.0, 1.0) * self._measured / self.shots
        return float(np.sqrt(np.sum(self._coefficients**2 * variance)))

    def __call__(self, angles: np.ndarray) -> float:
        """One estimate of the energy at `angles`, shape (n_angles,)."""
        exact = np.asarray(self.objective.terms(angles), dtype=np.float64)
        spread = np.sqrt(np.clip(1.0 - exact**2, 0.0, 1.0) / self.shots) * self._measured
        self.shots_used += self.shots * int(self._measured.sum())
        return float(self._coefficients @ (exact + spread * self._rng.standard_normal(len(exact))))
