"""Data to judge adapters on, made or found on this machine: sprites, handwritten digits, and Python's own library.

Nothing is downloaded. Sprites are drawn here, in the manner of the structured tasks of VTAB (Zhai et al. 2019,
arXiv:1910.04867) on dSprites; digits come with scikit-learn (a part of UCI's optical digits); text is the library code,
the test code and the language reference that Python brings with it, so it differs between Python versions.

A backbone is trained on a *source* (`load_source`), adapters on a *task* (`load_task`). Both draw from streams of
random numbers of their own, and share no digit and no file.
"""

from __future__ import annotations

import functools
import operator
import os
import sysconfig
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from qas.errors import MissingExtraError, QasError, UnknownNameError

SPRITE_SIZE = 32
"""Width and height of a sprite image, pixels."""
DIGIT_SIZE = 16
"""Width and height of a digit image, pixels."""
CONTEXT = 128
"""Bytes of a text window."""
SHAPES = ("disc", "square", "triangle", "star", "cross", "ring")
"""The classes of the source; each has its centre of mass in its centre."""
ALL_SHAPES = (*SHAPES, "crescent", "dome")

_ASYMMETRIC = ("triangle", "crescent", "dome")
_SOLID = ("disc", "square", "triangle", "star", "cross")
_BIN_MARGIN = 0.1
_X_RANGE = (5.0, 27.0)
_RADIUS_RANGE = (2.5, 11.5)
_MAX_COUNT = 8
_OVERLAP = (0.15, 0.6)
_CHUNK = 512
_BLOCK_WINDOWS = 32
_HELD_OUT_BLOCKS = 50
_SOURCE_DIGITS = 400
_PARTS = ("train", "validation", "test")

_TASKS = {
    "sprites-location": "which of 16 bins the sprite's centre lies in, from left to right",
    "sprites-orientation": "which of 16 directions the sprite points to",
    "sprites-count": "how many sprites there are, 1 to 8",
    "sprites-scale": "which of 6 sizes the sprite has",
    "sprites-occlusion": "whether one of two sprites hides a part of the other",
    "sprites-shape": "which of 6 shapes the sprite has; the source task of sprites",
    "digits": "which digit was written, as in the source",
    "digits-rotated": "which digit was written, turned by up to 75 degrees either way",
    "digits-inverted": "which digit was written, dark on light",
    "digits-clutter": "which digit was written, smaller and off centre among pieces of others",
    "text-prose": "the next byte of Python's language reference",
    "text-tests": "the next byte of the test code of Python's standard library",
}
_ALIASES = {"sprites": "sprites-count"}
_DEFAULT_TEST = {"sprites": 2000, "digits": 397, "text": 500}

SOURCES = MappingProxyType(
    {
        "sprites": "sprites with the shape as label",
        "digits": "slightly moved, turned and scaled digits that no task uses",
        "text": "library code of Python's standard library",
    }
)
"""What backbones are trained on."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of a task.

    Attributes:
        inputs: images, float32 from -1 to 1, shape (n, height, width); or bytes, int64, shape (n, CONTEXT).
        labels: int64, shape (n,); of text the bytes that follow each byte, shape (n, CONTEXT).
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """A task with its three parts, which share no example.

    Attributes:
        name: as in `list_tasks`.
        kind: "image" or "text".
        train: four fifths of the training examples.
        validation: the last fifth, to choose settings by.
        test: for the final figure and nothing else.
        n_classes: labels are 0 to n_classes - 1.
        metric: "accuracy", from 0 to 1, more is better; or "bits_per_byte", less is better.
    """

    name: str
    kind: str
    train: Split
    validation: Split
    test: Split
    n_classes: int
    metric: str

    @property
    def train_and_validation(self) -> Split:
        """All training examples, to train with settings that were chosen before."""
        return Split(
            np.concatenate([self.train.inputs, self.validation.inputs]),
            np.concatenate([self.train.labels, self.validation.labels]),
        )

    @property
    def chance(self) -> float:
        """The metric on the test split of the best answer that does not look at the input.

        Accuracy: the share of the class that is most common in training. Bits: those of a code made for the byte
        frequencies of the training examples, each counted once more than seen.
        """
        counts = np.bincount(self.train_and_validation.labels.ravel(), minlength=self.n_classes)
        if self.metric == "accuracy":
            return float(np.mean(self.test.labels == counts.argmax()))
        bits = -np.log2((counts + 1) / (counts.sum() + self.n_classes))
        return float(bits[self.test.labels].mean())


# ---------------------------------------------------------------------- loading
def list_tasks() -> dict[str, str]:
    """Names that `load_task` knows, each with one line on what is asked; "sprites" stands for "sprites-count"."""
    return dict(_TASKS)


def load_task(name: str, *, seed: int = 0, train: int = 1000, test: int | None = None) -> Task:
    """The data of a task; the same seed and sizes give the same arrays.

    Every part of a sprite task has as many examples of each class, give or take one.

    Args:
        name: as in `list_tasks`, or "sprites".
        seed: of the examples and their order.
        train: training examples, at least 20; a fifth of them, rounded down, is set aside as validation split.
        test: test examples, at least 1; default 2000 sprites, 397 digits or 500 windows of text. There are 1397 digits
            and as many windows as the text has for `train` and `test` together.

    Raises:
        UnknownNameError: no such task.
        QasError: a size or seed out of range, more examples than there are, or a part of Python's library is not
            installed.
        MissingExtraError: digits without scikit-learn.
    """
    known = _ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(known, str) or known not in _TASKS:
        raise UnknownNameError("task", name, [*_TASKS, *_ALIASES])
    seed = whole_number("seed", seed, 0)
    family = known.partition("-")[0]
    train = whole_number("train", train, 20)
    sizes = (train - train // 5, train // 5, whole_number("test", _DEFAULT_TEST[family] if test is None else test, 1))
    if family == "sprites":
        target = known.partition("-")[2]
        parts = [_sprite_split(target, n, _stream(seed, known, part)) for n, part in zip(sizes, _PARTS, strict=True)]
        n_classes = _SPRITE_TASKS[target][1]
    elif family == "digits":
        parts, n_classes = _digit_splits(known, sizes, seed), 10
    else:
        parts, n_classes = _text_splits(known, sizes, seed), 256
    kind, metric = ("text", "bits_per_byte") if family == "text" else ("image", "accuracy")
    return Task(known, kind, parts[0], parts[1], parts[2], n_classes, metric)


def load_source(source: str, size: int, *, seed: int = 0, held_out: bool = False) -> Split:
    """Examples to train a backbone on, or held-out ones to judge it by.

    Args:
        source: a name in `SOURCES`.
        size: examples, at least 1. Digits are 400, each repeated in another position, angle and size; held-out ones are
            every tenth of them. Windows of text start anywhere; held-out ones lie in blocks of their own.
        seed: of the examples and their order.
        held_out: draw from what training does not see.

    Raises:
        UnknownNameError: no such source.
        QasError: a size or seed out of range, or Python's library is not installed as files.
        MissingExtraError: digits without scikit-learn.
    """
    if not isinstance(source, str) or source not in SOURCES:
        raise UnknownNameError("source", source, SOURCES)
    size = whole_number("size", size, 1)
    rng = _stream(whole_number("seed", seed, 0), f"source-{source}", "held-out" if held_out else "train")
    if source == "sprites":
        return _sprite_split("shape", size, rng)
    return _digit_source(size, rng, held_out) if source == "digits" else _text_source(size, rng, held_out)


def whole_number(what: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int.

    Raises:
        QasError: not a whole number, or out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise QasError(f"{what} is a whole number, got {value!r}") from None
    if number < least or (most is not None and number > most):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise QasError(f"{what} is {span}, got {number}")
    return number


def _stream(seed: int, name: str, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{name}/{part}".encode())])


# ---------------------------------------------------------------------- sprites
@dataclass(frozen=True)
class Sprites:
    """The shapes of n images, up to k in each, painted in the order of their slots; every array has shape (n, k).

    Attributes:
        kinds: index into `ALL_SHAPES`, -1 for none.
        x: centre, pixels from the left edge; the first pixel reaches from 0 to 1.
        y: centre, pixels from the upper edge.
        radius: of the circle around the shape, pixels.
        angle: radians; 0 points to the right, π/2 down.
        brightness: 0 is black, 1 is white.
    """

    kinds: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    brightness: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index: Any) -> Sprites:
        return Sprites(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def paint(sprites: Sprites, background: np.ndarray | None = None) -> np.ndarray:
    """Anti-aliased images, float32 from 0 to 1 where `background` is, shape (n, 32, 32).

    Args:
        sprites: what to paint.
        background: what to paint on, shape (n, 32, 32), left as it is; None is black.
    """
    shape = (len(sprites), SPRITE_SIZE, SPRITE_SIZE)
    image = np.zeros(shape, np.float32) if background is None else background.astype(np.float32)
    for slot in range(sprites.kinds.shape[1]):
        for kind in range(len(ALL_SHAPES)):
            rows = np.flatnonzero(sprites.kinds[:, slot] == kind)
            for some in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                cover = _cover(kind, sprites[some, slot])
                image[some] += cover * (sprites.brightness[some, slot].astype(np.float32)[:, None, None] - image[some])
    return image


def draw_scenes(target: str, size: int, rng: np.random.Generator) -> tuple[Sprites, np.ndarray]:
    """Sprites of `size` images without their background, and their labels, int64, shape (size,).

    Values that a label stands for keep a tenth of a bin away from its edges, so that no label is a matter of rounding.

    Args:
        target: a sprite task without its prefix, such as "location".
        size: number of images, at least 1.
        rng: source of all randomness.

    Raises:
        UnknownNameError: no such task.
        QasError: `size` out of range.
    """
    if not isinstance(target, str) or target not in _SPRITE_TASKS:
        raise UnknownNameError("sprite task", target, _SPRITE_TASKS)
    draw, n_classes = _SPRITE_TASKS[target]
    labels = rng.permutation(np.arange(whole_number("size", size, 1)) % n_classes)
    return draw(labels, rng), labels


def _sprite_split(target: str, size: int, rng: np.random.Generator) -> Split:
    sprites, labels = draw_scenes(target, size, rng)
    images = paint(sprites, _background(size, rng))
    images += _noise(size, rng)
    return Split(2.0 * images.clip(0.0, 1.0) - 1.0, labels)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A grey level, a gradient in some direction, and up to four specks, smaller than any sprite."""
    level = rng.uniform(0.05, 0.3, size)
    slope, direction = rng.uniform(0.0, 0.25, size), rng.uniform(0.0, 2 * np.pi, size)
    along = (np.arange(SPRITE_SIZE) + 0.5) / SPRITE_SIZE - 0.5
    across = (slope * np.cos(direction))[:, None] * along
    down = (slope * np.sin(direction))[:, None] * along
    image = (level[:, None, None] + across[:, None, :] + down[:, :, None]).astype(np.float32)
    shape = (size, 4)
    specks = Sprites(
        kinds=np.where(np.arange(4) < rng.integers(0, 5, size)[:, None], ALL_SHAPES.index("disc"), -1),
        x=rng.uniform(0, SPRITE_SIZE, shape),
        y=rng.uniform(0, SPRITE_SIZE, shape),
        radius=rng.uniform(0.5, 1.0, shape),
        angle=np.zeros(shape),
        brightness=rng.uniform(0.3, 0.7, shape),
    )
    return paint(specks, image)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((size, SPRITE_SIZE, SPRITE_SIZE), dtype=np.float32)
    noise *= rng.uniform(0.01, 0.1, size).astype(np.float32)[:, None, None]
    return noise


def _within_bins(labels: np.ndarray, n_bins: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    inside = rng.uniform(_BIN_MARGIN, 1.0 - _BIN_MARGIN, len(labels))
    return low + (high - low) / n_bins * (labels + inside)


def _kinds(names: tuple[str, ...], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.array([ALL_SHAPES.index(name) for name in names])[rng.integers(len(names), size=shape)]


def _one_sprite(names: tuple[str, ...], radius: np.ndarray, rng: np.random.Generator, **given: np.ndarray) -> Sprites:
    """One sprite that lies wholly inside each image; `radius` and what `given` replaces have shape (n,)."""
    size = len(radius)
    room = SPRITE_SIZE - 2 * radius
    drawn = {
        "kinds": _kinds(names, (size,), rng),
        "x": radius + room * rng.uniform(size=size),
        "y": radius + room * rng.uniform(size=size),
        "radius": radius,
        "angle": rng.uniform(0.0, 2 * np.pi, size),
        "brightness": rng.uniform(0.55, 1.0, size),
    }
    return Sprites(**{name: value[:, None] for name, value in (drawn | given).items()})


def _shape_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    return _one_sprite(SHAPES, rng.uniform(3.5, 9.0, len(labels)), rng, kinds=labels)


def _location_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    x = _within_bins(labels, 16, *_X_RANGE, rng)
    return _one_sprite(SHAPES, rng.uniform(3.0, 5.0, len(labels)), rng, x=x)


def _orientation_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    angle = _within_bins(labels, 16, 0.0, 2 * np.pi, rng)
    return _one_sprite(_ASYMMETRIC, rng.uniform(5.0, 9.0, len(labels)), rng, angle=angle)


def _scale_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    return _one_sprite(SHAPES, _within_bins(labels, 6, *_RADIUS_RANGE, rng), rng)


def _count_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    """Sprites in different cells of a 3 by 3 grid, at least 1.5 pixels apart."""
    shape, cell = (len(labels), _MAX_COUNT), SPRITE_SIZE / 3
    cells = rng.permuted(np.tile(np.arange(9), (len(labels), 1)), axis=1)[:, :_MAX_COUNT]
    radius = rng.uniform(2.2, 3.4, shape)
    play = cell / 2 - 0.75 - radius
    return Sprites(
        kinds=np.where(np.arange(_MAX_COUNT) <= labels[:, None], _kinds(SHAPES, shape, rng), -1),
        x=(cells % 3 + 0.5) * cell + play * rng.uniform(-1.0, 1.0, shape),
        y=(cells // 3 + 0.5) * cell + play * rng.uniform(-1.0, 1.0, shape),
        radius=radius,
        angle=rng.uniform(0.0, 2 * np.pi, shape),
        brightness=rng.uniform(0.55, 1.0, shape),
    )


def _occlusion_scenes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    """Two sprites of different brightness: apart (0), or the second over 15 to 60 percent of the first (1)."""
    sprites = _two_sprites(labels, rng)
    while True:
        rows = np.flatnonzero(labels == 1)
        white = replace(sprites[rows], brightness=np.ones((len(rows), 2)))
        under, over = (paint(replace(white, kinds=_only(white.kinds, slot))) for slot in (0, 1))
        hidden = np.minimum(under, over).sum((1, 2)) / under.sum((1, 2))
        again = rows[(hidden < _OVERLAP[0]) | (hidden > _OVERLAP[1])]
        if not len(again):
            return sprites
        redrawn = _two_sprites(labels[again], rng)
        for name in Sprites.__dataclass_fields__:
            getattr(sprites, name)[again] = getattr(redrawn, name)


def _only(kinds: np.ndarray, slot: int) -> np.ndarray:
    return np.where(np.arange(kinds.shape[1]) == slot, kinds, -1)


def _two_sprites(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    size = len(labels)
    radius = rng.uniform(3.5, 5.5, (size, 2))
    reach = radius.sum(1)
    apart = np.where(labels == 0, reach + rng.uniform(1.5, 4.0, size), reach * rng.uniform(0.3, 0.8, size))
    direction = rng.uniform(0.0, 2 * np.pi, size)
    bright = np.stack([rng.uniform(0.75, 1.0, size), rng.uniform(0.5, 0.62, size)], axis=1)
    centres = []
    for step in (np.cos(direction), np.sin(direction)):
        offsets = np.stack([-step, step], axis=1) * apart[:, None] / 2
        low, high = (radius - offsets).max(1), (SPRITE_SIZE - radius - offsets).min(1)
        centres.append((low + (high - low) * rng.uniform(size=size))[:, None] + offsets)
    return Sprites(
        kinds=_kinds(_SOLID, (size, 2), rng),
        x=centres[0],
        y=centres[1],
        radius=radius,
        angle=rng.uniform(0.0, 2 * np.pi, (size, 2)),
        brightness=rng.permuted(bright, axis=1),
    )


_SPRITE_TASKS: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], Sprites], int]] = {
    "location": (_location_scenes, 16),
    "orientation": (_orientation_scenes, 16),
    "count": (_count_scenes, _MAX_COUNT),
    "scale": (_scale_scenes, 6),
    "occlusion": (_occlusion_scenes, 2),
    "shape": (_shape_scenes, len(SHAPES)),
}


# ---------------------------------------------------------------------- shapes
def _cover(kind: int, sprites: Sprites) -> np.ndarray:
    """Share of every pixel that the shape covers, float32, shape (n, 32, 32); the arrays of `sprites` have shape (n,).

    A pixel's share falls linearly over one pixel across an edge, by the signed distance of its centre to the edge.
    """
    x, y, radius, cos, sin = (
        value.astype(np.float32)[:, None, None]
        for value in (sprites.x, sprites.y, sprites.radius, np.cos(sprites.angle), np.sin(sprites.angle))
    )
    along = np.arange(SPRITE_SIZE, dtype=np.float32) + np.float32(0.5)
    dx, dy = (along[None, None, :] - x) / radius, (along[None, :, None] - y) / radius
    distance = _DISTANCES[ALL_SHAPES[kind]](cos * dx + sin * dy, cos * dy - sin * dx)
    return np.clip(np.float32(0.5) - radius * distance, 0.0, 1.0)


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 1


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(np.sqrt(0.5))


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Isosceles, so that it points somewhere: base 1.2 at u = -0.5, apex at u = 1, centre of mass at 0."""
    norm = np.hypot(0.6, 1.5)
    return np.maximum(-0.5 - u, np.float32(0.6 / norm) * (u - 1) + np.float32(1.5 / norm) * np.abs(v))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points on the unit circle, inner corners at 0.45."""
    sector = np.float32(2 * np.pi / 5)
    folded = np.abs(np.remainder(np.arctan2(v, u) + sector / 2, sector) - sector / 2)
    r = np.hypot(u, v)
    inner = 0.45 * np.exp(0.5j * sector)
    edge = 1 - inner
    normal = np.array([-edge.imag, edge.real]) / abs(edge)
    return np.float32(normal[0]) * (r * np.cos(folded) - 1) + np.float32(normal[1]) * (r * np.sin(folded))


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(
        np.maximum(u - np.float32(0.95), v - np.float32(0.3)), np.maximum(u - np.float32(0.3), v - np.float32(0.95))
    )


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - np.float32(0.78)) - np.float32(0.22)


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A disc less a smaller one to its right, so that its horns point to +u."""
    return np.maximum(np.hypot(u, v) - 1, np.float32(0.8) - np.hypot(u - np.float32(0.5), v))


def _dome(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Half a disc, its round side to +u."""
    u = u + np.float32(0.39)
    return np.maximum(np.hypot(u, v) - np.float32(0.92), -u)


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "dome": _dome,
}


# ---------------------------------------------------------------------- digits
@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 digits, float32 from 0 to 1, shape (n, 8, 8), and their labels, in a fixed random order.

    The first ones are the source; the order must not depend on a seed, or a backbone would know test images.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("the digits (scikit-learn)", "peft") from None
    bunch = load_digits()
    order = np.random.default_rng(1797).permutation(len(bunch.target))
    return (bunch.images[order] / 16).astype(np.float32), bunch.target[order].astype(np.int64)


def _digit_source(size: int, rng: np.random.Generator, held_out: bool) -> Split:
    images, labels = _digits()
    mine = (np.arange(_SOURCE_DIGITS) % 10 == 0) == held_out
    rows = np.flatnonzero(mine)[rng.integers(np.count_nonzero(mine), size=size)]
    angle = rng.uniform(-np.pi / 18, np.pi / 18, size)
    scale = rng.uniform(0.85, 1.1, size)
    shift = rng.uniform(-1.5, 1.5, (2, size))
    grey = _moved(images[rows], angle, scale, shift)
    grey *= rng.uniform(0.7, 1.0, (size, 1, 1)).astype(np.float32)
    grey += rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(0.03)
    return Split(2.0 * grey.clip(0.0, 1.0) - 1.0, labels[rows])


def _digit_splits(name: str, sizes: tuple[int, int, int], seed: int) -> list[Split]:
    images, labels = _digits()
    rows = np.arange(_SOURCE_DIGITS, len(labels))
    _check_supply("digits", sum(sizes), len(rows))
    rows = _stream(seed, "digits", "order").permutation(rows)
    ends = np.cumsum(sizes)
    splits = []
    for end, size, part in zip(ends, sizes, _PARTS, strict=True):
        mine = rows[end - size : end]
        grey = _DIGIT_VIEWS[name](images[mine], _stream(seed, name, part))
        splits.append(Split(2.0 * grey.clip(0.0, 1.0) - 1.0, labels[mine]))
    return splits


def _check_supply(what: str, wanted: int, there: int) -> None:
    if wanted > there:
        raise QasError(f"there are {there} {what} for train and test together, got {wanted}")


def _moved(images: np.ndarray, angle: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Digits at 16 by 16, turned about their centre, scaled, then shifted; bilinear, black outside.

    Args:
        images: shape (n, 8, 8).
        angle: radians, shape (n,).
        scale: 1 fills the image, shape (n,).
        shift: pixels to the right and down, shape (2, n).
    """
    from scipy.ndimage import map_coordinates

    along = np.arange(DIGIT_SIZE) + 0.5 - DIGIT_SIZE / 2
    dx = along[None, None, :] - shift[0][:, None, None]
    dy = along[None, :, None] - shift[1][:, None, None]
    cos, sin = (f(angle)[:, None, None] / scale[:, None, None] / 2 for f in (np.cos, np.sin))
    x, y = cos * dx + sin * dy + 3.5, cos * dy - sin * dx + 3.5
    n = np.broadcast_to(np.arange(len(images))[:, None, None], x.shape)
    return map_coordinates(images, np.stack([n, y, x]), order=1, mode="constant", prefilter=False)


def _plain_view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = len(images)
    return _moved(images, np.zeros(size), np.ones(size), np.zeros((2, size)))


def _rotated_view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = len(images)
    angle = np.deg2rad(rng.uniform(-75.0, 75.0, size))
    return _moved(images, angle, np.ones(size), np.zeros((2, size)))


def _inverted_view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 1.0 - _plain_view(images, rng)


def _cluttered_view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Six 5 by 5 pieces of other digits of the same part, three quarters as bright, around and behind the digit."""
    size, piece = len(images), 5
    view = np.zeros((size, DIGIT_SIZE, DIGIT_SIZE), np.float32)
    plain, here = _plain_view(images, rng), np.arange(size)[:, None, None]
    for _ in range(6):
        others = (np.arange(size) + rng.integers(1, max(size, 2), size)) % size
        from_y, from_x, to_y, to_x = (
            corner[:, None] + np.arange(piece) for corner in rng.integers(0, DIGIT_SIZE - piece + 1, (4, size))
        )
        target = (here, to_y[:, :, None], to_x[:, None, :])
        view[target] = np.maximum(
            view[target], 0.75 * plain[others[:, None, None], from_y[:, :, None], from_x[:, None, :]]
        )
    digit = _moved(images, np.zeros(size), np.full(size, 0.8), rng.uniform(-1.5, 1.5, (2, size)))
    return np.maximum(view, digit)


_DIGIT_VIEWS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "digits": _plain_view,
    "digits-rotated": _rotated_view,
    "digits-inverted": _inverted_view,
    "digits-clutter": _cluttered_view,
}


# ---------------------------------------------------------------------- text
_NOT_LIBRARY = frozenset(
    ["site-packages", "dist-packages", "__pycache__", "pydoc_data", "test", "tests", "idle_test", "lib-dynload"]
)


def _python_files(root: Path, skip: frozenset[str]) -> list[Path]:
    """Python files under `root` in an order that no file system has a say in; folders named in `skip` are left out."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in skip]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def _joined(files: list[Path]) -> np.ndarray:
    return np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)


def _language_reference() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return ""
    return "\n".join(topics[key] for key in sorted(topics))


@functools.cache
def _corpus(name: str) -> np.ndarray:
    """All bytes of a text, uint8: "library", "text-prose" or "text-tests"."""
    root = Path(sysconfig.get_paths()["stdlib"])
    if name == "library":
        text = _joined(_python_files(root, _NOT_LIBRARY))
    elif name == "text-tests":
        text = _joined(_python_files(root / "test", frozenset(["__pycache__"])))
    else:
        text = np.frombuffer(_language_reference().encode(), np.uint8)
    if len(text) < 64 * (CONTEXT + 1):
        what = {"library": "the library code", "text-tests": "the test code"}.get(name, "the language reference")
        raise QasError(f"this needs {what} of Python's standard library, and this Python came without it: {root}")
    return text


def _text_splits(name: str, sizes: tuple[int, int, int], seed: int) -> list[Split]:
    """Windows that do not overlap, the parts in blocks of their own: neighbours of a test window are not trained on."""
    text = _corpus(name)
    n_windows = len(text) // (CONTEXT + 1)
    windows = text[: n_windows * (CONTEXT + 1)].reshape(n_windows, CONTEXT + 1)
    block = min(_BLOCK_WINDOWS, max(1, n_windows // 64))
    blocks = [-(-size // block) for size in sizes]
    if sum(blocks) > n_windows // block:
        raise QasError(
            f"there are {n_windows} windows of text, in blocks of {block} that no two parts share; "
            f"train and test asked for {sum(sizes)}"
        )
    rng = _stream(seed, name, "order")
    starts = block * rng.permutation(n_windows // block)[: sum(blocks)]
    rows = (starts[:, None] + np.arange(block)).ravel()
    ends = block * np.cumsum(blocks)
    return [
        _next_bytes(windows[rng.permutation(rows[end - block * count : end])[:size]])
        for end, count, size in zip(ends, blocks, sizes, strict=True)
    ]


def _text_source(size: int, rng: np.random.Generator, held_out: bool) -> Split:
    text = _corpus("library")
    length = _BLOCK_WINDOWS * (CONTEXT + 1)
    n_blocks = len(text) // length
    every = min(_HELD_OUT_BLOCKS, n_blocks)
    blocks = np.flatnonzero((np.arange(n_blocks) % every == every - 1) == held_out)
    starts = blocks[rng.integers(len(blocks), size=size)] * length + rng.integers(length - CONTEXT, size=size)
    return _next_bytes(text[starts[:, None] + np.arange(CONTEXT + 1)])


def _next_bytes(windows: np.ndarray) -> Split:
    windows = windows.astype(np.int64)
    return Split(windows[:, :-1], windows[:, 1:])
