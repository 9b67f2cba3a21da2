"""Circuits as tensors, and back: what agents and models look at."""

from qas.encoders.layers import LayerEncoding, split_gates

__all__ = ["LayerEncoding", "split_gates"]
