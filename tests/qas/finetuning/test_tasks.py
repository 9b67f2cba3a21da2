"""Tasks: labels recomputed from the images alone, parts that share nothing, and every refusal."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy import ndimage

from qas.errors import MissingExtraError, QasError, UnknownNameError
from qas.finetuning import TASKS, tasks
from qas.finetuning.tasks import (
    SHAPES,
    SOURCES,
    Split,
    Sprites,
    Task,
    draw_counts,
    draw_shapes,
    list_tasks,
    load_source,
    load_task,
    paint,
)

N_CLASSES = {draw_counts: 8, draw_shapes: 6}

AREAS = {
    "disc": np.pi,
    "square": 2.0,
    "triangle": 1.2 * 1.5 / 2,
    "star": 5 * 0.45 * np.sin(np.pi / 5),
    "cross": 2 * 1.9 * 0.6 - 0.6**2,
    "ring": np.pi * (1 - 0.56**2),
}
"""Areas of the shapes at radius 1, by hand."""


def clean(draw: Any, size: int, seed: int = 0) -> tuple[Sprites, np.ndarray, np.ndarray]:
    """Scenes in pure white, their images on black, and their labels."""
    labels = np.arange(size) % N_CLASSES[draw]
    sprites = draw(labels, np.random.default_rng(seed))
    sprites = replace(sprites, brightness=np.ones_like(sprites.brightness))
    return sprites, paint(sprites), labels


def one(kind: str, x: float = 16.3, y: float = 15.2, radius: float = 8.0, angle: float = 0.4) -> Sprites:
    values = (SHAPES.index(kind), x, y, radius, angle, 1.0)
    return Sprites(*(np.array([[value]]) for value in values))


def digests(split: Split) -> set[bytes]:
    return {hashlib.sha256(example.tobytes()).digest() for example in split.inputs}


# ---------------------------------------------------------------------- shapes
def polygon(kind: str) -> np.ndarray | None:
    """Corners at radius 1, or None where edges are round."""
    turns = np.exp(2j * np.pi * np.arange(10) / 10)
    corners = {
        "square": np.exp(1j * np.pi * (np.arange(4) / 2 + 0.25)),
        "triangle": np.array([1, -0.5 + 0.6j, -0.5 - 0.6j]),
        "star": turns * np.where(np.arange(10) % 2, 0.45, 1.0),
        "cross": np.array([0.95 + 0.3j, 0.3 + 0.3j, 0.3 + 0.95j, -0.3 + 0.95j]),
    }
    if kind == "cross":
        arms = corners["cross"]
        return np.concatenate([arms[:3] * 1j**k for k in range(4)])
    return corners.get(kind)


def inside(kind: str, z: np.ndarray) -> np.ndarray:
    """Which complex points lie in the shape of radius 1."""
    corners = polygon(kind)
    if corners is not None:
        outline = Outline(np.stack([corners.real, corners.imag], axis=1))
        return outline.contains_points(np.stack([z.real.ravel(), z.imag.ravel()], axis=1)).reshape(z.shape)
    return {
        "disc": abs(z) < 1,
        "ring": (abs(z) < 1) & (abs(z) > 0.56),
    }[kind]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("angle", [0.7])
def test_shapes_against_counting_points(kind: str, angle: float) -> None:
    """Coverage of a pixel is about the share of its 256 points that lie inside."""
    sprite = one(kind, radius=9.0, angle=angle)
    along = (np.arange(32 * 16) + 0.5) / 16
    z = (along[None, :] - 16.3 + 1j * (along[:, None] - 15.2)) * np.exp(-1j * angle) / 9.0
    share = inside(kind, z).reshape(32, 16, 32, 16).mean((1, 3))
    image = paint(sprite)[0]
    assert image.dtype == np.float32 and image.min() == 0.0 and image.max() == 1.0
    assert abs(image.sum() - share.sum()) < 0.02 * share.sum()
    assert np.abs(image - share).max() < 0.55
    assert np.abs(image - share).mean() < 0.006
    # nothing is hard-edged: pixels on the border are grey
    assert np.count_nonzero((image > 0.05) & (image < 0.95)) > 20


@pytest.mark.parametrize("kind", SHAPES)
def test_a_full_turn_changes_nothing_and_a_quarter_turns_the_image(kind: str) -> None:
    start = paint(one(kind, 16.0, 16.0, angle=0.3))
    np.testing.assert_allclose(paint(one(kind, 16.0, 16.0, angle=0.3 + 2 * np.pi)), start, atol=1e-4)
    # y points down: a quarter turn from the right to the bottom
    np.testing.assert_allclose(
        paint(one(kind, 16.0, 16.0, angle=0.3 + np.pi / 2)), np.rot90(start, -1, axes=(1, 2)), atol=1e-4
    )


def test_later_slots_cover_earlier_ones_and_the_background_stays() -> None:
    sprites = Sprites(
        kinds=np.array([[0, 1, -1]]),
        x=np.array([[10.0, 13.0, 16.0]]),
        y=np.full((1, 3), 16.0),
        radius=np.full((1, 3), 6.0),
        angle=np.zeros((1, 3)),
        brightness=np.array([[0.9, 0.4, 1.0]]),
    )
    background = np.full((1, 32, 32), 0.25)
    image = paint(sprites, background)
    assert image[0, 16, 6] == pytest.approx(0.9) and image[0, 16, 12] == pytest.approx(0.4)
    assert image[0, 0, 0] == 0.25 and (background == 0.25).all()
    assert len(sprites) == 1 and sprites[0].x.shape == (3,)


# ---------------------------------------------------------------------- labels, from the images alone


def test_count_is_the_number_of_connected_components() -> None:
    _, images, labels = clean(draw_counts, 400)
    found = [ndimage.label(image > 0.25, np.ones((3, 3)))[1] for image in images]
    np.testing.assert_array_equal(np.array(found) - 1, labels)


def test_shape_is_told_by_the_share_of_the_circle_that_is_filled() -> None:
    sprites, images, labels = clean(draw_shapes, 600)
    filled = images.sum((1, 2)) / sprites.radius[:, 0] ** 2
    nearest = np.abs(filled[:, None] - np.array([AREAS[name] for name in SHAPES])).min(1)
    np.testing.assert_allclose(nearest, 0.0, atol=0.08)
    np.testing.assert_allclose(filled, [AREAS[SHAPES[label]] for label in labels], atol=0.08)


@pytest.mark.parametrize("draw", N_CLASSES)
def test_sprites_lie_wholly_inside(draw: Any) -> None:
    sprites, _, _ = clean(draw, 300)
    there = sprites.kinds >= 0
    for centre in (sprites.x, sprites.y):
        assert (centre - sprites.radius)[there].min() >= -1e-9 and (centre + sprites.radius)[there].max() <= 32 + 1e-9


# ---------------------------------------------------------------------- tasks
def check(task: Task, train: int, validation: int, test: int) -> None:
    assert [len(task.train), len(task.validation), len(task.test)] == [train, validation, test]
    for split in (task.train, task.validation, task.test):
        assert split.labels.dtype == np.int64 and split.inputs.dtype == np.float32
        assert split.labels.min() >= 0 and split.labels.max() < task.n_classes
        assert np.abs(split.inputs).max() <= 1.0
    both = task.train_and_validation
    assert len(both) == train + validation
    np.testing.assert_array_equal(both.inputs[:train], task.train.inputs)
    np.testing.assert_array_equal(both.labels[train:], task.validation.labels)


@pytest.mark.parametrize("name", TASKS)
def test_every_registered_task_is_fixed_by_its_seed_and_its_parts_share_nothing(name: str) -> None:
    task, again, other = (load_task(name, seed=seed, train=104, test=60) for seed in (3, 3, 4))
    assert task.metric == "accuracy" and task.backbone and "\n" not in list_tasks()[name]
    for part in ("train", "validation", "test"):
        one_, two = getattr(task, part), getattr(again, part)
        np.testing.assert_array_equal(one_.inputs, two.inputs)
        np.testing.assert_array_equal(one_.labels, two.labels)
        assert not np.array_equal(one_.inputs, getattr(other, part).inputs)
    check(task, 84, 20, 60)
    seen = [digests(split) for split in (task.train, task.validation, task.test)]
    assert len(set.union(*seen)) == 164


DIGESTS = {"sprites": "836da60553f6", "digits": "86203dfa6051"}


@pytest.mark.parametrize("name", DIGESTS)
def test_labels_are_those_of_the_published_results(name: str) -> None:
    task = load_task(name, seed=1, train=100, test=50)
    labels = np.concatenate([task.train.labels, task.validation.labels, task.test.labels])
    assert hashlib.sha256(labels.tobytes()).hexdigest()[:12] == DIGESTS[name]


def test_default_sizes_follow_the_protocol() -> None:
    check(load_task("digits"), 800, 200, 397)
    sprites = load_task("sprites")
    check(sprites, 800, 200, 2000)
    assert np.ptp(np.bincount(sprites.test.labels)) <= 1, "balanced"


def test_a_task_is_a_function_too() -> None:
    assert load_task(tasks.digits, seed=2, train=20, test=5).name == "digits"


def test_every_background_differs_and_the_sprite_is_brighter() -> None:
    """Scenes are drawn before their backgrounds, so the same stream tells where the sprites of a split are."""
    split = tasks._sprite_split(draw_shapes, 6, 200, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.arange(200) % 6)
    sprites = draw_shapes(labels, rng)
    np.testing.assert_array_equal(split.labels, labels)
    mask = paint(replace(sprites, brightness=np.ones_like(sprites.brightness)))
    grey = (split.inputs + 1) / 2
    front = (grey * (mask > 0.99)).sum((1, 2)) / (mask > 0.99).sum((1, 2))
    back = (grey * (mask < 0.01)).sum((1, 2)) / (mask < 0.01).sum((1, 2))
    np.testing.assert_allclose(front, sprites.brightness[:, 0], atol=0.12)
    assert (front > back + 0.15).all() and back.std() > 0.05
    spread = np.array([image[empty].std() for image, empty in zip(grey, mask < 0.01, strict=True)])
    assert spread.min() > 0.005 and spread.max() > 0.08


# ---------------------------------------------------------------------- sources
@pytest.mark.parametrize("source", SOURCES)
def test_sources_are_fixed_by_their_seed_and_held_out_ones_are_apart(source: str) -> None:
    first, again, other = (load_source(source, 64, seed=seed) for seed in (0, 0, 1))
    held = load_source(source, 64, held_out=True)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not digests(first) & digests(other) and not digests(first) & digests(held)
    assert len(first) == len(held) == 64


def test_tasks_use_no_digit_of_the_source() -> None:
    from sklearn.datasets import load_digits

    every = load_digits().images.astype(np.float32) / 16
    images, labels = tasks._digits()
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in every)
    assert len({image.tobytes() for image in images}) == 1797
    for seed in (0, 1):
        task = load_task("digits", seed=seed)
        used = np.concatenate([task.train.inputs, task.validation.inputs, task.test.inputs])
        assert len({image.tobytes() for image in used}) == 1397
        source = tasks._plain_view(images[:400], np.random.default_rng(0)) * 2 - 1
        assert not {image.tobytes() for image in used} & {image.tobytes() for image in source}
    assert np.bincount(labels[:400]).min() >= 25


def test_held_out_digits_are_other_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.arange(1797, dtype=np.float32)[:, None, None] / 2000 * np.ones((1, 8, 8), np.float32)
    monkeypatch.setattr(tasks, "_digits", lambda: (numbers, np.arange(1797)))
    trained, held = (set(load_source("digits", 2000, held_out=h).labels.tolist()) for h in (False, True))
    assert held == set(range(0, 400, 10)) and trained == set(range(400)) - held


# ---------------------------------------------------------------------- digits
def test_views_show_the_same_digits() -> None:
    loaded = {name: load_task(name, seed=1) for name in TASKS if name.startswith("digits")}
    plain = loaded["digits"]
    for task in loaded.values():
        np.testing.assert_array_equal(task.test.labels, plain.test.labels)
        assert task.n_classes == 10 and 0.05 < task.chance < 0.2
    np.testing.assert_allclose(loaded["digits-inverted"].train.inputs, -plain.train.inputs, atol=1e-6)


def test_plain_digits_are_the_small_ones_enlarged() -> None:
    """Bilinear interpolation between pixel centres, written out for the inner pixels."""
    images, _ = tasks._digits()
    found = tasks._plain_view(images[:5], np.random.default_rng(0))
    for row, column in [(2, 3), (7, 8), (12, 5), (13, 13)]:
        y, x = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
        top, left = int(y), int(x)
        a, b = y - top, x - left
        wanted = (
            (1 - a) * (1 - b) * images[:5, top, left]
            + (1 - a) * b * images[:5, top, left + 1]
            + a * (1 - b) * images[:5, top + 1, left]
            + a * b * images[:5, top + 1, left + 1]
        )
        np.testing.assert_allclose(found[:, row, column], wanted, atol=1e-6)


def test_digits_are_turned_by_the_angle_and_shifted_to_the_right_and_down() -> None:
    images, _ = tasks._digits()
    ones, still = np.ones(3), np.zeros((2, 3))
    plain = tasks._moved(images[:3], np.zeros(3), ones, still)
    turned = tasks._moved(images[:3], np.full(3, np.pi / 2), ones, still)
    np.testing.assert_allclose(turned, np.rot90(plain, -1, axes=(1, 2)), atol=1e-5)
    shifted = tasks._moved(images[:3], np.zeros(3), ones, np.array([[2.0] * 3, [1.0] * 3]))
    np.testing.assert_allclose(shifted[:, 2:, 3:], plain[:, 1:-1, 1:-2], atol=1e-6)
    small = tasks._moved(images[:3], np.zeros(3), ones / 2, still)
    np.testing.assert_allclose(small[:, 4:12, 4:12], images[:3], atol=1e-6)
    assert not small[:, :4].any() and not small[:, 12:].any()


def test_rotated_digits_turn_either_way_by_up_to_75_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    moved = tasks._moved

    def spy(images: np.ndarray, angle: np.ndarray, *more: np.ndarray) -> np.ndarray:
        seen.append(np.rad2deg(angle))
        return moved(images, angle, *more)

    monkeypatch.setattr(tasks, "_moved", spy)
    load_task("digits-rotated")
    angles = np.concatenate(seen)
    assert len(angles) == 1397 and -75 <= angles.min() < -70 and 70 < angles.max() <= 75


def test_clutter_lies_behind_a_smaller_digit() -> None:
    task, plain = load_task("digits-clutter"), load_task("digits")
    lit = (task.train.inputs + 1) / 2
    assert lit[:, :2].mean() > 1.5 * ((plain.train.inputs + 1) / 2)[:, :, :2].mean()
    assert lit.max() == pytest.approx(1.0, abs=0.02)
    single = tasks._cluttered_view(tasks._digits()[0][:1], np.random.default_rng(0))
    assert single.shape == (1, 16, 16) and single.dtype == np.float32


# ---------------------------------------------------------------------- chance
def test_chance_of_images_is_the_share_of_the_commonest_class() -> None:
    images = np.zeros((4, 2, 2), np.float32)
    splits = [Split(images, np.array(labels)) for labels in ([0, 1, 1, 2], [1, 0, 2, 2], [1, 1, 0, 1])]
    assert Task("x", "image", *splits, n_classes=3, metric="accuracy").chance == 0.75


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("name", "message"),
    [("sprite", "did you mean 'sprites'"), ("digits-rotate", "did you mean 'digits-rotated'"), (3, "task '3'")],
)
def test_unknown_tasks(name: object, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_task(name)


@pytest.mark.parametrize("settings", [{"seed": -1}, {"train": 19}, {"train": "many"}, {"test": 0}], ids=str)
def test_sizes_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(QasError, match=f"{next(iter(settings))} is a whole number of at least"):
        load_task("sprites", **settings)


def test_there_are_only_so_many_digits() -> None:
    with pytest.raises(QasError, match="there are 1397 digits for train and test together, got 1398"):
        load_task("digits", train=1000, test=398)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*\[peft\]"):
        load_task("digits")
    with pytest.raises(MissingExtraError):
        load_source("digits", 1)
