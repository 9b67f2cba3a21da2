"""What can be said about a perfect device from measurements on a noisy one, and what a search makes of it."""

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
from qas.mitigation.objectives import (
    OBJECTIVES,
    Noisy,
    Readout,
    Scored,
    ZeroNoise,
    list_objectives,
    make_objective,
    scored_by,
)
from qas.mitigation.recipe import MitigatedEnergy, Mitigation, read_mitigation
from qas.mitigation.scaling import scaled
from qas.mitigation.score import Estimate

__all__ = [
    "EXTRAPOLATIONS",
    "NODES",
    "OBJECTIVES",
    "Estimate",
    "Exponential",
    "Extrapolated",
    "Extrapolation",
    "Linear",
    "MitigatedEnergy",
    "Mitigation",
    "Noisy",
    "PolyExponential",
    "Polynomial",
    "Readout",
    "Richardson",
    "Scored",
    "ZeroNoise",
    "list_objectives",
    "make_extrapolation",
    "make_objective",
    "read_mitigation",
    "read_nodes",
    "scaled",
    "scored_by",
]
