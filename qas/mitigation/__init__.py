"""What can be said about a perfect device from measurements on a noisy one."""

from qas.mitigation.extrapolation import (
    EXTRAPOLATIONS,
    NODES,
    Exponential,
    Extrapolated,
    Extrapolation,
    Linear,
    PolyExponential,
    Polynomial,
    Richardson,
    make_extrapolation,
    read_nodes,
)

__all__ = [
    "EXTRAPOLATIONS",
    "NODES",
    "Exponential",
    "Extrapolated",
    "Extrapolation",
    "Linear",
    "PolyExponential",
    "Polynomial",
    "Richardson",
    "make_extrapolation",
    "read_nodes",
]
