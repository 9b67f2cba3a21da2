"""Circuits as tensors and graphs, and back: what agents and models look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qas.encoders.graphs import CircuitGraph, GraphBatch, GraphEncoding, load_encoding
from qas.encoders.layers import LayerEncoding
from qas.encoders.pools.spaces import CircuitSpace
from qas.encoders.registries import ENCODINGS, MODELS
from qas.gates import POOL_GATES

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder, list_encoders, load_encoder
    from qas.encoders.training import train

_LAZY = {"TrainedEncoder": "trained", "list_encoders": "trained", "load_encoder": "trained", "train": "training"}

__all__ = [
    "ENCODINGS",
    "MODELS",
    "POOL_GATES",
    "CircuitGraph",
    "CircuitSpace",
    "GraphBatch",
    "GraphEncoding",
    "LayerEncoding",
    "TrainedEncoder",
    "list_encoders",
    "load_encoder",
    "load_encoding",
    "train",
]


def __getattr__(name: str) -> Any:
    # These import torch, which takes seconds.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
