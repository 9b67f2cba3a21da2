"""What some agents need of a problem beyond `BaseProblem`, by name."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from qas.circuits import Circuit


@runtime_checkable
class GrownByStrings(Protocol):
    """A problem whose circuits grow by rotations of Pauli strings, the steepest first; agent ``adapt`` needs it.

    A string X^x Z^z on n qubits is named by two masks (x, z) below N = 2^n.
    """

    angles: int
    """rotations that a circuit is asked for"""

    @property
    def has_slopes(self) -> bool:
        """Whether `string_slopes` means something; a family of problems may have it for some of them only."""
        ...

    def string_slopes(self, circuit: Circuit) -> np.ndarray:
        """What one more rotation by each string would win first, at the circuit's own angles, float64, shape (N, N)."""
        ...

    def with_string(self, circuit: Circuit, string: tuple[int, int]) -> Circuit:
        """The circuit with one more rotation, at angle 0, that turns a string."""
        ...
