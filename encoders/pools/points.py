"""Points for searchers: what stands for a circuit where a surrogate or a distance looks at it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qas.checks import whole_number
from qas.encoders.pools.fingerprints import fingerprints
from qas.encoders.pools.profiles import profiles
from qas.encoders.pools.reduction import reduce_rows, reduced_space
from qas.encoders.pools.spaces import CircuitSpace
from qas.encoders.registries import POINTS
from qas.errors import QasError
from qas.files import part_of

if TYPE_CHECKING:
    from qas.encoders.trained import TrainedEncoder

DIMENSIONS = 32
"""Principal axes of `reduced` and `profile` unless told otherwise."""

_SAMPLE = 20_000
_BLOCK = 5_000
_WALKS = 64  # over the number of qubits: the number of Paulis grows with its square


class Points:
    """One kind of points, or several kinds side by side.

    Args:
        space: the circuits' space.
        encoder: for kinds that need one; its space is `space`.
        dimensions: most coordinates, for kinds that choose how many.
    """

    name: ClassVar[str]
    """Name in `qas.encoders.pools.POINTS`, and prefix of its arrays."""
    parts: ClassVar[tuple[str, ...]] = ()
    """The kinds that stand side by side; none: it is a kind of its own."""
    of_reduced: ClassVar[bool] = False
    """Whether the rows it is given are reduced forms, of `reduced_space`."""
    needs_encoder: ClassVar[bool] = False
    """Whether it looks through an encoder."""

    def __init__(self, space: CircuitSpace, encoder: TrainedEncoder | None, dimensions: int) -> None:
        self.space, self.encoder, self.dimensions = space, encoder, dimensions
        self.arrays: dict[str, np.ndarray] = {}
        """What `fit` found, for checkpoints."""

    def fit(self, rows: np.ndarray) -> None:
        """Look at the rows of a pool."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Points of circuits, float32, shape (size, d); each row alone decides its point."""
        raise QasError(f"the points {self.name} are made by their parts: {', '.join(self.parts)}")


class _Counted(Points, abc.ABC):
    """Counts over reduced forms on their leading principal axes, each in units of its standard deviation."""

    of_reduced = True

    @abc.abstractmethod
    def counts(self, reduced: np.ndarray) -> np.ndarray:
        """What is counted, shape (size, any)."""

    def fit(self, rows: np.ndarray) -> None:
        counts = self.counts(rows)
        used = np.flatnonzero(np.abs(counts).max(axis=0, initial=0) > 0)
        data = counts[:, used].astype(np.float64)
        values, axes = np.linalg.eigh(np.cov(data.T, bias=True).reshape(len(used), len(used)))
        kept = np.argsort(-values)[: self.dimensions]
        kept = kept[values[kept] > 1e-9 * max(values.max(initial=0.0), 1e-300)]
        scaled = axes[:, kept] / np.sqrt(values[kept])
        # A pool of equal circuits has no axis; a constant column keeps it a pool of points.
        scaled = scaled if kept.size else np.zeros((len(used), 1))
        self.arrays = {"used": used, "centre": data.mean(axis=0), "axes": scaled}

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if not self.arrays:
            raise QasError("features are fitted on a pool before they are used")
        counts = self.counts(rows)[:, self.arrays["used"]]
        return ((counts - self.arrays["centre"]) @ self.arrays["axes"]).astype(np.float32)


class Reduced(_Counted):
    """Counts over the reduced form, on their leading principal axes."""

    name = "reduced"

    def counts(self, reduced: np.ndarray) -> np.ndarray:
        return fingerprints(reduced, reduced_space(self.space))


class Profile(_Counted):
    """Mean and mean square of local Paulis at random angles, on their leading principal axes."""

    name = "profile"

    def counts(self, reduced: np.ndarray) -> np.ndarray:
        walks = max(4, _WALKS // self.space.n_qubits)
        return profiles(reduced, reduced_space(self.space), np.random.default_rng(0), walks, common=True)


class Latent(Points):
    """The encoder's embedding, the mean of its latents over the nodes."""

    name = "latent"
    needs_encoder = True

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        assert self.encoder is not None
        return self.encoder.embed(rows)


class Structure(Points):
    """`Reduced` and `Profile` side by side."""

    name = "structure"
    parts = ("reduced", "profile")


class Everything(Points):
    """`Reduced`, `Profile` and `Latent` side by side."""

    name = "all"
    parts = ("reduced", "profile", "latent")


class CircuitFeatures:
    """A fixed map from circuits to points, float32; fit it once on a pool, then use it on any circuit of the space.

    ``reduced`` counts what is left of a circuit when gates without effect are gone (`reduce_rows`, `fingerprints`) and
    keeps the principal axes of these counts, each in units of its standard deviation over the pool. ``profile`` does
    the same with what the circuit does at random angles (`qas.encoders.pools.profiles`). Neither needs training.
    ``latent`` is the published representation: the mean of the encoder's latents over the nodes.

    Args:
        points: a name of `qas.encoders.pools.POINTS`, or a `Points` class.
        space: the circuits' space.
        encoder: for kinds that need one; its space must be `space`.
        dimensions: principal axes of ``reduced`` and of ``profile``.

    Raises:
        UnknownNameError: no such points.
        QasError: an encoder is missing or has another space.
    """

    def __init__(
        self,
        points: str | type[Points],
        space: CircuitSpace,
        encoder: TrainedEncoder | None = None,
        *,
        dimensions: int = DIMENSIONS,
    ) -> None:
        kind: type[Points] = points if isinstance(points, type) else POINTS[points]
        self.name, self.space, self.encoder = kind.name, space, encoder
        self.dimensions = whole_number("dimensions", dimensions)
        kinds: list[type[Points]] = [POINTS[part] for part in kind.parts] or [kind]
        if encoder is None and any(part.needs_encoder for part in kinds):
            raise QasError(f"the points {kind.name!r} need an encoder")
        if encoder is not None and encoder.space != space:
            raise QasError("the encoder is for another circuit space")
        self._parts = [part(space, encoder, self.dimensions) for part in kinds]

    def fit(self, rows: np.ndarray) -> CircuitFeatures:
        """Find axes and units from the rows of a pool, at most the first 20,000 of them.

        Raises:
            QasError: no rows.
            CircuitError: rows that are not of the space.
        """
        rows = self.space.check_rows(rows)[:_SAMPLE]
        if not len(rows):
            raise QasError("features are fitted on at least 1 circuit, got none")
        reduced = self._reduced(rows)
        for part in self._parts:
            part.fit(reduced if part.of_reduced else rows)
        return self

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Points of circuits, float32, shape (size, d).

        Raises:
            QasError: not fitted yet.
            CircuitError: rows that are not of the space.
        """
        rows = self.space.check_rows(rows)
        blocks = [rows[i : i + _BLOCK] for i in range(0, max(1, len(rows)), _BLOCK)]
        reduced = [self._reduced(block) for block in blocks]
        found = [[part(block) for block in (reduced if part.of_reduced else blocks)] for part in self._parts]
        return np.concatenate([np.concatenate(part) for part in found], axis=1)

    def _reduced(self, rows: np.ndarray) -> np.ndarray:
        """Reduced forms, if any part looks at them."""
        return reduce_rows(rows, self.space) if any(part.of_reduced for part in self._parts) else rows

    def state(self) -> dict[str, np.ndarray]:
        """Axes and units, by name; `restore` takes them back."""
        return {f"{part.name}.{key}": array for part in self._parts for key, array in part.arrays.items()}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        for part in self._parts:
            part.arrays = {key: np.asarray(array) for key, array in part_of(arrays, part.name).items()}
