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
