"""Tables and pictures about encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qas.encoders import CircuitSpace, load_encoder, train
from qas.encoders.pools.pool import LabelSettings, Pool, build_pool
from qas.encoders.report import distance_correlation, draw_map, metrics_table, principal_plane, save_map
from qas.encoders.trained import TrainedEncoder
from qas.errors import QasError

SPACE = CircuitSpace(2, ("rx", "ry", "cx"), max_gates=4, min_gates=1, max_depth=0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    settings = LabelSettings(starts=1, max_evaluations=20)
    return build_pool(tmp_path_factory.mktemp("pool"), SPACE, 80, tasks=["h2-2"], settings=settings, jobs=1)


@pytest.fixture(scope="module")
def encoder(pool: Pool) -> TrainedEncoder:
    return train(pool.rows, SPACE, epochs=1, profile_walks=0, sizes={"width": 8, "d": 3}, threads=1)


@pytest.fixture(scope="module")
def published(pool: Pool) -> TrainedEncoder:
    return train(pool.rows, SPACE, model="url-v1", epochs=1, sizes={"d": 2}, threads=1)


def test_metrics_stand_side_by_side(encoder: TrainedEncoder, published: TrainedEncoder) -> None:
    lines = metrics_table({"ours": encoder, "theirs": published}).splitlines()
    assert lines[0] == "| held-out circuits | ours | theirs |"
    assert all(line.count("|") == 4 for line in lines)
    assert "gvae, ports, d = 3" in lines[2] and "url-v1, gsqas, d = 2" in lines[2]
    exact = next(line for line in lines if "exact match" in line)
    assert f"{100 * encoder.metrics['exact_match']:.2f} %" in exact
    assert any("100.00 %" in line for line in lines if line.startswith("| executable prior"))
    assert metrics_table({"x": TrainedEncoder(SPACE, encoder.module)}).count("\n") == 2, "nothing was measured"


def test_the_plane_is_that_of_the_leading_axes() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    points = rng.normal(size=(5000, 4)) * [0.1, 3.0, 0.1, 2.0] @ axes.T + 7.0
    plane, share = principal_plane(points)
    assert share == pytest.approx(np.array([9.0, 4.0]) / 13.02, abs=0.03)
    assert plane.std(axis=0) == pytest.approx([3.0, 2.0], rel=0.05)
    assert abs(np.corrcoef(plane.T)[0, 1]) < 1e-9 and plane.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.ones((7, 3)), np.arange(5.0)[:, None]])
def test_few_equal_or_flat_points_have_a_map(points: np.ndarray, tmp_path: Path) -> None:
    plane, share = principal_plane(points)
    assert plane.shape == (len(points), 2) and np.isfinite(plane).all() and (share <= 1 + 1e-12).all()
    draw_map(points, np.zeros(len(points)), "a task", tmp_path / "map.svg")
    assert "a task" in (tmp_path / "map.svg").read_text() or (tmp_path / "map.svg").stat().st_size > 1000


@pytest.mark.parametrize("name", ["map.png", "map.svg"])
def test_maps(name: str, encoder: TrainedEncoder, pool: Pool, tmp_path: Path) -> None:
    save_map(encoder, pool, "h2-2", tmp_path / name, size=50)
    assert (tmp_path / name).stat().st_size > 3000


def test_maps_that_cannot_be_drawn(encoder: TrainedEncoder, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(QasError, match="h2-2"):
        save_map(encoder, pool, "h2-22", tmp_path / "map.png")
    with pytest.raises(QasError, match="nowhere"):
        save_map(encoder, pool, "h2-2", tmp_path / "nowhere" / "map.png")
    same_shape = CircuitSpace(2, ("ry", "rx", "cx"), max_gates=4, min_gates=1, max_depth=0)
    other = train(same_shape.canonical(pool.rows), same_shape, epochs=1, profile_walks=0, sizes={"width": 8, "d": 2})
    with pytest.raises(QasError, match="another space"):
        save_map(other, pool, "h2-2", tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_encoder_has_the_same_table(encoder: TrainedEncoder, tmp_path: Path) -> None:
    again = load_encoder(encoder.save(tmp_path / "e"))
    assert metrics_table({"x": again}) == metrics_table({"x": encoder})


def test_rank_correlation_of_distance_and_energy() -> None:
    rng = np.random.default_rng(0)
    line = rng.random(300)[:, None]
    assert distance_correlation(line, 3 * line[:, 0], rng, pairs=2000) == pytest.approx(1.0)
    assert abs(distance_correlation(line, rng.random(300), rng, pairs=5000)) < 0.15
    assert distance_correlation(line, np.ones(300), rng, pairs=100) == 0.0, "equal energies say nothing"
