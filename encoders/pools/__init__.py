"""Circuit pools: spaces of circuits, labels, points, screens."""

from qas.encoders.registries import POINTS, SCREENS

__all__ = ["POINTS", "SCREENS"]
