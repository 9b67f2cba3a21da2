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
from qas.mitigation.recipe import MitigatedEnergy, Mitigation, read_mitigation

__all__ = [
    "EXTRAPOLATIONS",
    "NODES",
    "Exponential",
    "Extrapolated",
    "Extrapolation",
    "Linear",
    "MitigatedEnergy",
    "Mitigation",
    "PolyExponential",
    "Polynomial",
    "Richardson",
    "make_extrapolation",
    "read_mitigation",
    "read_nodes",
]
