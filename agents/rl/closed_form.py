"""The control of every policy: edits scored by what they promise in closed form, nothing learned."""

from __future__ import annotations

import numpy as np

from qas.envs.candidates import FEATURES

_ELSE = {"optimise": 1e-6, "stop": 1e-7}
"""What edits that bring no gates are worth, share of the problem's scale."""
_LEAST = 1e-9


def closed_form_scores(candidates: np.ndarray) -> np.ndarray:
    """Logarithm of the gain of each insertion for each two-qubit gate, float64, shape (K,).

    Args:
        candidates: a table, shape (K, len(FEATURES)), or (K * len(FEATURES),) as the editor hands it out.
    """
    candidates = candidates.reshape(-1, len(FEATURES))
    columns = {name: candidates[:, k].astype(np.float64) for k, name in enumerate(FEATURES)}
    inserts = columns["rotation"] + columns["entangler"] + columns["excitation"] > 0
    worth = np.where(inserts, columns["gain"] / np.maximum(1.0, 4 * columns["two_qubit_gates"]), 0.0)
    for kind, value in _ELSE.items():
        worth = np.where(columns[kind] > 0, value, worth)
    return np.log(np.maximum(worth, _LEAST))
