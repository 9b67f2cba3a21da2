"""Circuit pools: spaces of circuits, labels, points, screens."""
