"""Points for searchers: what stands for a circuit where a surrogate or a distance looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.encoders.pools.fingerprints import fingerprints
from qas.encoders.pools.profiles import profiles
from qas.encoders.pools.reduction import reduce_rows, reduced_space
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import QasError, UnknownNameError

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

FEATURES = {
    "structure": "reduced and profile side by side",
    "reduced": "counts over the reduced form, on their leading principal axes",
    "profile": "mean and mean square of local Paulis at random angles, on their leading principal axes",
    "latent": "the encoder's embedding, the mean of its latents over the nodes",
    "all": "reduced, profile and latent side by side",
}
"""Name -> one line about it."""
DIMENSIONS = 32
"""Principal axes of `reduced` and `profile` unless told otherwise."""

_SAMPLE = 20_000
_BLOCK = 5_000
_WALKS = 64  # over the number of qubits: the number of Paulis grows with its square


_PARTS = {
    "structure": ("reduced", "profile"),
    "reduced": ("reduced",),
    "profile": ("profile",),
    "latent": ("latent",),
    "all": ("reduced", "profile", "latent"),
}


class CircuitFeatures:
    """A fixed map from circuits to points, float32; fit it once on a pool, then use it on any circuit of the space.

    ``reduced`` counts what is left of a circuit when gates without effect are gone (`reduce_rows`, `fingerprints`) and
    keeps the principal axes of these counts, each in units of its standard deviation over the pool. ``profile`` does
    the same with what the circuit does at random angles (`qas.encoders.pools.profiles`). Neither needs training. ``latent``
    is the published representation: the mean of the encoder's latents over the nodes.

    Args:
        name: a key of `FEATURES`.
        space: the circuits' space.
        encoder: for ``latent`` and ``all``; its space must be `space`.
        dimensions: principal axes of ``reduced`` and of ``profile``.

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
        if "latent" in _PARTS[name] and encoder is None:
            raise QasError(f"the features {name!r} need an encoder")
        if encoder is not None and encoder.space != space:
            raise QasError("the encoder is for another circuit space")
        if dimensions < 1:
            raise QasError(f"features have at least 1 dimension, got {dimensions}")
        self.name, self.space, self.encoder, self.dimensions = name, space, encoder, int(dimensions)
        self._counted = [part for part in _PARTS[name] if part != "latent"]
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, rows: np.ndarray) -> CircuitFeatures:
        """Find axes and units from the rows of a pool, at most the first 20,000 of them.

        Raises:
            QasError: no rows.
            CircuitError: rows that are not of the space.
        """
        rows = self.space.check_rows(rows)[:_SAMPLE]
        if not len(rows):
            raise QasError("features are fitted on at least 1 circuit, got none")
        self._arrays = {}
        reduced = self._reduce(rows)
        for part in self._counted:
            counts = self._counts(part, reduced)
            used = np.flatnonzero(np.abs(counts).max(axis=0, initial=0) > 0)
            data = counts[:, used].astype(np.float64)
            values, axes = np.linalg.eigh(np.cov(data.T, bias=True).reshape(len(used), len(used)))
            kept = np.argsort(-values)[: self.dimensions]
            kept = kept[values[kept] > 1e-9 * max(values.max(initial=0.0), 1e-300)]
            scaled = axes[:, kept] / np.sqrt(values[kept])
            # A pool of equal circuits has no axis; a constant column keeps it a pool of points.
            scaled = scaled if kept.size else np.zeros((len(used), 1))
            self._arrays |= {f"{part}.used": used, f"{part}.centre": data.mean(axis=0), f"{part}.axes": scaled}
        return self

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Points of circuits, float32, shape (size, d).

        Raises:
            QasError: not fitted yet.
            CircuitError: rows that are not of the space.
        """
        rows = self.space.check_rows(rows)
        if self._counted and not self._arrays:
            raise QasError("features are fitted on a pool before they are used")
        blocks = [self._reduce(rows[i : i + _BLOCK]) for i in range(0, max(1, len(rows)), _BLOCK)]
        parts = [np.concatenate([self._project(part, block) for block in blocks]) for part in self._counted]
        if "latent" in _PARTS[self.name]:
            assert self.encoder is not None
            parts.append(self.encoder.embed(rows))
        return np.concatenate(parts, axis=1)

    def _project(self, part: str, reduced: np.ndarray) -> np.ndarray:
        counts = self._counts(part, reduced)[:, self._arrays[f"{part}.used"]]
        return ((counts - self._arrays[f"{part}.centre"]) @ self._arrays[f"{part}.axes"]).astype(np.float32)

    def _reduce(self, rows: np.ndarray) -> np.ndarray:
        """Reduced forms, if any part counts over them."""
        return reduce_rows(rows, self.space) if self._counted else rows

    def _counts(self, part: str, reduced: np.ndarray) -> np.ndarray:
        space = reduced_space(self.space)
        if part == "profile":
            return profiles(reduced, space, np.random.default_rng(0), max(4, _WALKS // space.n_qubits), common=True)
        return fingerprints(reduced, space)

    def state(self) -> dict[str, np.ndarray]:
        """Axes and units, by name; `restore` takes them back."""
        return dict(self._arrays)

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._arrays = {
            f"{part}.{name}": np.asarray(arrays[f"{part}.{name}"])
            for part in self._counted
            for name in ("used", "centre", "axes")
        }
