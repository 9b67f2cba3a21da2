"""Points for searchers: what stands for a circuit where a surrogate or a distance looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.encoders.fingerprints import fingerprints
from qas.encoders.profiles import profiles
from qas.encoders.reduction import reduce_rows, reduced_space
from qas.encoders.spaces import CircuitSpace
from qas.errors import QasError, UnknownNameError

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

FEATURES = {
    "reduced": "counts over the reduced form, on their leading principal axes",
    "profile": "mean and mean square of local Paulis at random angles, on their leading principal axes",
    "latent": "the encoder's embedding, the mean of its latents over the nodes",
    "both": "reduced and latent side by side",
}
"""Name -> one line about it."""
DIMENSIONS = 32
"""Principal axes of `reduced` and `profile` unless told otherwise."""

_SAMPLE = 20_000
_BLOCK = 5_000
_WALKS = 16


class CircuitFeatures:
    """A fixed map from circuits to points, float32; fit it once on a pool, then use it on any circuit of the space.

    ``reduced`` counts what is left of a circuit when gates without effect are gone (`reduce_rows`, `fingerprints`) and
    keeps the principal axes of these counts, each in units of its standard deviation over the pool. ``profile`` does the
    same with what the circuit does at random angles (`qas.encoders.profiles`). Neither needs training. ``latent`` is the published representation: the mean of the encoder's latents over the nodes.

    Args:
        name: a key of `FEATURES`.
        space: the circuits' space.
        encoder: for ``latent`` and ``both``; its space must be `space`.
        dimensions: principal axes of ``reduced`` and ``profile``.

    Raises:
        UnknownNameError: no such features.
        QasError: an encoder is missing or has another space.
    """

    def __init__(
        self,
        name: str,
        space: CircuitSpace,
        encoder: TrainedEncoder | None = None,
        *,
        dimensions: int = DIMENSIONS,
    ) -> None:
        if name not in FEATURES:
            raise UnknownNameError("features", name, FEATURES)
        if name in ("latent", "both") and encoder is None:
            raise QasError(f"the features {name!r} need an encoder")
        if encoder is not None and encoder.space != space:
            raise QasError("the encoder is for another circuit space")
        if dimensions < 1:
            raise QasError(f"features have at least 1 dimension, got {dimensions}")
        self.name, self.space, self.encoder, self.dimensions = name, space, encoder, int(dimensions)
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, rows: np.ndarray) -> CircuitFeatures:
        """Find axes and units from the rows of a pool, at most the first 20,000 of them."""
        rows = rows[:_SAMPLE]
        arrays: dict[str, np.ndarray] = {}
        if self.name != "latent":
            counts = self._counts(rows)
            used = np.flatnonzero(np.abs(counts).max(axis=0, initial=0) > 0)
            data = counts[:, used].astype(np.float64)
            centre = data.mean(axis=0)
            values, axes = np.linalg.eigh(np.cov(data.T, bias=True).reshape(len(used), len(used)))
            kept = np.argsort(-values)[: self.dimensions]
            kept = kept[values[kept] > 1e-9 * max(values.max(initial=0.0), 1e-300)]
            scaled = axes[:, kept] / np.sqrt(values[kept])
            # A pool of equal circuits has no axis; a constant column keeps it a pool of points.
            arrays = {"used": used, "centre": centre, "axes": scaled if kept.size else np.zeros((len(used), 1))}
        self._arrays = arrays
        return self

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Points of circuits, float32, shape (size, d).

        Raises:
            QasError: not fitted yet.
            CircuitError: rows that are not of the space.
        """
        parts = []
        if self.name != "latent":
            if not self._arrays:
                raise QasError("features are fitted on a pool before they are used")
            rows = self.space.check_rows(rows)
            blocks = [self._reduced(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)]
            parts.append(np.concatenate([np.zeros((0, self._arrays["axes"].shape[1]), np.float32), *blocks]))
        if self.name in ("latent", "both"):
            assert self.encoder is not None
            parts.append(self.encoder.embed(rows))
        return np.concatenate(parts, axis=1)

    def _reduced(self, rows: np.ndarray) -> np.ndarray:
        counts = self._counts(rows)[:, self._arrays["used"]]
        return ((counts - self._arrays["centre"]) @ self._arrays["axes"]).astype(np.float32)

    def _counts(self, rows: np.ndarray) -> np.ndarray:
        reduced, space = reduce_rows(rows, self.space), reduced_space(self.space)
        if self.name == "profile":
            return profiles(reduced, space, np.random.default_rng(0), _WALKS, common=True)
        return fingerprints(reduced, space)

    def state(self) -> dict[str, np.ndarray]:
        """Axes and units, by name; `restore` takes them back."""
        return dict(self._arrays)

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._arrays = {name: np.asarray(arrays[name]) for name in ("used", "centre", "axes") if name in arrays}
