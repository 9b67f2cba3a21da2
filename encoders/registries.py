"""What can be named here: encodings of circuits, models that learn from them, points of circuits, screens of pools.

Nothing is imported before it is used: models need torch, which takes seconds.
"""

from __future__ import annotations

from qas.registry import Registry

ENCODINGS = Registry(
    "encodings",
    "encoding",
    {
        "ports": "qas.encoders.graphs:PortsEncoding",
        "layers": "qas.encoders.graphs:SpaceLayers",
        "signed": "qas.encoders.published:SignedEncoding",
        "gsqas": "qas.encoders.published:GsqasEncoding",
    },
)
"""Name -> a class that takes a `CircuitSpace` and encodes its circuits; see `qas.testing.EncodingContract`."""

MODELS = Registry(
    "models",
    "model",
    {
        "gvae": "qas.encoders.autoencoder:Gvae",
        "url-v1": "qas.encoders.published:UrlV1",
        "url-v3": "qas.encoders.published:UrlV3",
    },
)
"""Name -> `qas.encoders.autoencoder.Autoencoder` class; the first is the default."""

POINTS = Registry(
    "points",
    "points",
    {
        "structure": "qas.encoders.pools.points:Structure",
        "reduced": "qas.encoders.pools.points:Reduced",
        "profile": "qas.encoders.pools.points:Profile",
        "latent": "qas.encoders.pools.points:Latent",
        "all": "qas.encoders.pools.points:Everything",
    },
)
"""Name -> `qas.encoders.pools.points.Points` class: what stands for a circuit where a searcher looks at it."""

SCREENS = Registry(
    "screens",
    "screen",
    {
        "expressibility": "qas.encoders.pools.screens:by_expressibility",
        "fluctuation": "qas.encoders.pools.screens:by_fluctuation",
    },
)
"""Name -> `qas.encoders.pools.screens.Screen`. ``expressibility`` (negative, so that larger is better) and
``fluctuation`` (relative, the only one that knows the problem) simulate 200 states of each circuit, without noise."""
