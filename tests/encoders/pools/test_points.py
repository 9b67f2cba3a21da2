"""Features: units, exactness of a saved map, pools without variety, and what is refused."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.encoders.pools import POINTS
from qas.encoders.pools.fingerprints import fingerprints
from qas.encoders.pools.points import CircuitFeatures, Points
from qas.encoders.pools.reduction import reduce_rows, reduced_space
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.encoders.trained import TrainedEncoder
from qas.errors import CircuitError, QasError, UnknownNameError
from qas.gates import POOL_GATES

SPACE = CircuitSpace(3, max_gates=7)
ROWS = SPACE.sample_unique(500, np.random.default_rng(0))


class StubEncoder:
    """As much of `TrainedEncoder` as features use."""

    space = SPACE

    def embed(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([rows.sum(axis=1), (rows != PADDING).sum(axis=1)], axis=1).astype(np.float32)


COUNTED = ["structure", "reduced", "profile"]
STUB = cast(TrainedEncoder, StubEncoder())


@pytest.mark.parametrize("name", ["reduced", "profile"])
def test_points_have_unit_variance_and_no_correlation(name: str) -> None:
    points = CircuitFeatures(name, SPACE).fit(ROWS)(ROWS)
    assert points.shape == (500, 32) and points.dtype == np.float32
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.cov(points.T, bias=True), np.eye(32), atol=1e-3)


def test_points_are_the_leading_principal_axes_of_the_counts() -> None:
    """Against the singular value decomposition, up to the sign of an axis."""
    counts = fingerprints(reduce_rows(ROWS, SPACE), reduced_space(SPACE)).astype(float)
    centred = counts - counts.mean(axis=0)
    u, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = CircuitFeatures("reduced", SPACE, dimensions=6).fit(ROWS)(ROWS)
    assert np.diff(values[:7]).max() < -0.1, "the axes must be told apart"
    overlap = points.T @ u[:, :6] / np.sqrt(len(ROWS))
    np.testing.assert_allclose(np.abs(overlap), np.eye(6), atol=1e-3)


@pytest.mark.parametrize("name", COUNTED)
def test_circuits_of_equal_reduced_form_are_one_point(name: str) -> None:
    space = CircuitSpace(3, POOL_GATES, max_gates=7, min_gates=0, max_depth=0)
    features = CircuitFeatures(name, space).fit(space.sample(500, np.random.default_rng(1)))
    texts: list[list[tuple]] = [
        [("rx", 0)],
        [("z", 1), ("rx", 0)],
        [("rx", 1), ("swap", (0, 1))],
        [("x", 0), ("rx", 0), ("rx", 0), ("y", 2), ("y", 2)],
    ]
    rows = [space.row(Circuit(3, [(n, q, *[0.0] * (n == "rx")) for n, q in text])) for text in texts]
    points = features(np.array(rows))
    assert (points == points[0]).all()
    other = space.row(Circuit(3, [("ry", 0, 0.0)]))
    assert np.abs(features(other[None]) - points[0]).max() > 0.01


@pytest.mark.parametrize("name", COUNTED)
def test_deterministic_and_restored_bit_for_bit(name: str) -> None:
    one, other = (CircuitFeatures(name, SPACE).fit(ROWS) for _ in range(2))
    points = one(ROWS)
    np.testing.assert_array_equal(points, other(ROWS))
    arrays = {key: array.copy() for key, array in one.state().items()}
    fresh = CircuitFeatures(name, SPACE)
    fresh.restore(arrays)
    np.testing.assert_array_equal(fresh(ROWS), points)
    # What is handed out is not what is used.
    one.state().clear()
    np.testing.assert_array_equal(one(ROWS), points)


def test_state_survives_a_file() -> None:
    from safetensors.numpy import load, save

    features = CircuitFeatures("structure", SPACE, dimensions=5).fit(ROWS)
    arrays = load(save({name: np.ascontiguousarray(array) for name, array in features.state().items()}))
    fresh = CircuitFeatures("structure", SPACE, dimensions=5)
    fresh.restore(arrays)
    np.testing.assert_array_equal(fresh(ROWS), features(ROWS))


@pytest.mark.parametrize("name", COUNTED)
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    features = CircuitFeatures(name, SPACE).fit(ROWS)
    whole = features(ROWS)
    monkeypatch.setattr("qas.encoders.pools.points._BLOCK", 170)
    np.testing.assert_allclose(features(ROWS), whole, rtol=1e-5, atol=1e-5)


def test_only_the_first_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qas.encoders.pools.points._SAMPLE", 300)
    some, more = CircuitFeatures("reduced", SPACE).fit(ROWS[:300]), CircuitFeatures("reduced", SPACE).fit(ROWS)
    np.testing.assert_array_equal(some(ROWS), more(ROWS))


@pytest.mark.parametrize("name", COUNTED)
def test_pools_without_variety(name: str) -> None:
    same = np.repeat(ROWS[:1], 10, axis=0)
    features = CircuitFeatures(name, SPACE).fit(same)
    width = 2 if name == "structure" else 1
    assert (features(same) == 0.0).all() and features(ROWS).shape == (500, width)
    assert np.isfinite(features(ROWS)).all()
    one = CircuitFeatures(name, SPACE).fit(ROWS[:1])
    assert (one(ROWS) == 0.0).all()
    # Nothing is left of any circuit.
    idle = CircuitSpace(2, ("rz", "cz"), max_gates=3)
    rows = idle.sample(20, np.random.default_rng(0))
    assert (CircuitFeatures(name, idle).fit(rows)(rows) == 0.0).all()


def test_constant_and_redundant_counts_give_no_axes() -> None:
    # Every circuit of two qubits begins with the same gate, and there are two kinds of circuits: one axis.
    space = CircuitSpace(2, ("rx", "cx"), max_gates=2, min_gates=1, max_depth=0, ring=())
    kinds = [space.row(Circuit(2, gates)) for gates in ([("rx", 0, 0.0)], [("rx", 0, 0.0), ("cx", (0, 1))])]
    rows = np.array([kinds[0]] * 30 + [kinds[1]] * 10)
    points = CircuitFeatures("reduced", space).fit(rows)(rows)
    assert points.shape == (40, 1)
    assert points.std() == pytest.approx(1.0, abs=1e-5)
    assert len(np.unique(points)) == 2


def test_a_circuit_unlike_the_pool_is_a_finite_point() -> None:
    space = CircuitSpace(3, POOL_GATES, max_gates=7, min_gates=0, max_depth=0)
    pool = np.array([space.row(Circuit(3, [("h", q)])) for q in range(3)])
    features = CircuitFeatures("reduced", space).fit(pool)
    assert np.isfinite(features(space.sample(200, np.random.default_rng(2)))).all()
    assert features(np.full((1, 7), PADDING)).shape == (1, 2)


def test_no_circuits() -> None:
    features = CircuitFeatures("reduced", SPACE, dimensions=4).fit(ROWS)
    assert features(ROWS[:0]).shape == (0, 4) and features(ROWS[:0]).dtype == np.float32
    with pytest.raises(QasError, match="at least 1 circuit"):
        CircuitFeatures("reduced", SPACE).fit(ROWS[:0])


def test_latents_stand_beside_counts() -> None:
    latent = CircuitFeatures("latent", SPACE, STUB).fit(ROWS)
    np.testing.assert_array_equal(latent(ROWS), StubEncoder().embed(ROWS))
    assert latent.state() == {}
    parts = [CircuitFeatures(name, SPACE, dimensions=3).fit(ROWS)(ROWS) for name in ("reduced", "profile")]
    structure = CircuitFeatures("structure", SPACE, dimensions=3).fit(ROWS)(ROWS)
    np.testing.assert_array_equal(structure, np.concatenate(parts, axis=1))
    everything = CircuitFeatures("all", SPACE, STUB, dimensions=3).fit(ROWS)(ROWS)
    np.testing.assert_array_equal(everything, np.concatenate([*parts, latent(ROWS)], axis=1))
    assert everything.shape == (500, 8) and everything.dtype == np.float32


def test_points_of_another_package_are_a_class() -> None:
    class Lengths(Points):
        """How many gates."""

        name = "lengths"

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return (rows != PADDING).sum(axis=1, keepdims=True).astype(np.float32)

    points = CircuitFeatures(Lengths, SPACE).fit(ROWS)(ROWS)
    assert points.tolist() == [[float((row != PADDING).sum())] for row in ROWS]
    assert all(POINTS.about(name).endswith(".") for name in POINTS)


def test_errors() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'latent'"):
        CircuitFeatures("latents", SPACE)
    for name in ("latent", "all"):
        with pytest.raises(QasError, match=f"{name}' need an encoder"):
            CircuitFeatures(name, SPACE)
        with pytest.raises(QasError, match="another circuit space"):
            CircuitFeatures(name, CircuitSpace(4, max_gates=10), STUB)
    with pytest.raises(QasError, match="dimensions is a whole number of at least 1, got 0"):
        CircuitFeatures("reduced", SPACE, dimensions=0)
    for name in ("structure", "reduced", "profile", "all"):
        with pytest.raises(QasError, match="fitted on a pool before"):
            CircuitFeatures(name, SPACE, STUB)(ROWS)
    with pytest.raises(CircuitError, match="shape"):
        CircuitFeatures("reduced", SPACE).fit(ROWS)(ROWS[:, :-1])
    with pytest.raises(CircuitError, match="shape"):
        CircuitFeatures("reduced", SPACE).fit(ROWS[:, :-1])
