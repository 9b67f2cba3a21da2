"""Data to judge adapters on, made or found on this machine: sprites and handwritten digits.

Nothing is downloaded. Sprites are drawn here, in the manner of the structured tasks of VTAB (Zhai et al. 2019,
arXiv:1910.04867) on dSprites; digits come with scikit-learn (a part of UCI's optical digits).

A backbone is trained on a *source* (`load_source`), adapters on a *task* (`load_task`). Both draw from streams of
random numbers of their own, and share no digit.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from qas.checks import whole_number
from qas.errors import MissingExtraError, QasError, UnknownNameError
from qas.finetuning import TASKS

SPRITE_SIZE = 32
"""Width and height of a sprite image, pixels."""
DIGIT_SIZE = 16
"""Width and height of a digit image, pixels."""
SHAPES = ("disc", "square", "triangle", "star", "cross", "ring")
"""The classes of the source; each has its centre of mass in its centre."""

_MAX_COUNT = 8
_CHUNK = 512
_POOL = 8
_SOURCE_DIGITS = 400
_PARTS = ("train", "validation", "test")

SOURCES = MappingProxyType(
    {
        "sprites": "sprites with the shape as label",
        "digits": "slightly moved, turned and scaled digits that no task uses",
    }
)
"""What backbones are trained on."""


Drawn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of a task.

    Attributes:
        inputs: images, float32 from -1 to 1, shape (n, height, width); or token ids and mask, int64, (n, 2, length).
        labels: int64, shape (n,); of language modelling the token that follows each, shape (n, length).
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, without padding; 1 for images."""
        tokens = self.inputs.dtype == np.int64
        return self.inputs[:, 1].sum(axis=-1) if tokens else np.ones(len(self), dtype=np.int64)

    def batches(self, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Numbers of all examples in random batches; in each stand texts of about one length, so that few pad others.

        Only within `_POOL` batches are texts sorted: which meet is still drawn anew in every epoch.
        """
        order, lengths = rng.permutation(len(self)), self.lengths
        if lengths.min() == lengths.max():
            return np.split(order, range(size, len(order), size))
        found = []
        for pool in np.split(order, range(size * _POOL, len(order), size * _POOL)):
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            found += np.split(pool, range(size, len(pool), size))
        return [found[k] for k in rng.permutation(len(found))]


@dataclass(frozen=True)
class Task:
    """A task with its three parts, which share no example.

    Attributes:
        name: of the data.
        kind: "image" or "text".
        train: four fifths of the training examples.
        validation: the last fifth, to choose settings by.
        test: for the final figure and nothing else.
        n_classes: labels are 0 to n_classes - 1.
        metric: "accuracy", from 0 to 1, more is better; or "bits_per_token", less is better.
        backbone: the model that is adapted where nothing else is said.
    """

    name: str
    kind: str
    train: Split
    validation: Split
    test: Split
    n_classes: int
    metric: str
    backbone: str = ""

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

        Accuracy: the share of the class that is most common in training. Bits: those of a code made for the
        frequencies of tokens in the training examples, each counted once more than seen.
        """
        counts = np.bincount(self.train_and_validation.labels.ravel(), minlength=self.n_classes)
        if self.metric == "accuracy":
            return float(np.mean(self.test.labels == counts.argmax()))
        bits = -np.log2((counts + 1) / (counts.sum() + self.n_classes))
        return float(bits[self.test.labels].mean())


# ---------------------------------------------------------------------- loading
def list_tasks() -> dict[str, str]:
    """Names that `load_task` knows, each with one line on what is asked."""
    return {name: TASKS.about(name) for name in TASKS}


def load_task(task: Any, *, seed: int = 0, train: int = 1000, test: int | None = None) -> Task:
    """The data of a task; the same seed and sizes give the same arrays.

    Args:
        task: a name in `qas.finetuning.TASKS`, or a function of seed, train and test as those are.
        seed: of the examples and their order.
        train: training examples, at least 20; a fifth of them, rounded down, is set aside as validation split.
        test: test examples, at least 1; default by task.

    Raises:
        UnknownNameError: no such task.
        QasError: a size or seed out of range, or more examples than there are.
        MissingExtraError: digits without scikit-learn.
    """
    make = task if callable(task) else TASKS[task]
    seed, train = whole_number("seed", seed, 0), whole_number("train", train, 20)
    return cast(Task, make(seed=seed, train=train, test=None if test is None else whole_number("test", test)))


def load_source(source: str, size: int, *, seed: int = 0, held_out: bool = False) -> Split:
    """Examples to train a backbone on, or held-out ones to judge it by.

    Args:
        source: a name in `SOURCES`.
        size: examples, at least 1. Digits are 400, each repeated in another position, angle and size; held-out ones are
            every tenth of them.
        seed: of the examples and their order.
        held_out: draw from what training does not see.

    Raises:
        UnknownNameError: no such source.
        QasError: a size or seed out of range.
        MissingExtraError: digits without scikit-learn.
    """
    if not isinstance(source, str) or source not in SOURCES:
        raise UnknownNameError("source", source, SOURCES)
    size = whole_number("size", size)
    rng = _stream(whole_number("seed", seed, 0), f"source-{source}", "held-out" if held_out else "train")
    return _digit_source(size, rng, held_out) if source == "digits" else _sprite_split(draw_shapes, 6, size, rng)


def _sizes(train: int, test: int) -> tuple[int, int, int]:
    return train - train // 5, train // 5, test


def _image_task(name: str, splits: list[Split], n_classes: int, backbone: str) -> Task:
    train, validation, test = splits
    return Task(name, "image", train, validation, test, n_classes, "accuracy", backbone)


def _stream(seed: int, name: str, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{name}/{part}".encode())])


# ---------------------------------------------------------------------- sprites
@dataclass(frozen=True)
class Sprites:
    """The shapes of n images, up to k in each, painted in the order of their slots; every array has shape (n, k).

    Attributes:
        kinds: index into `SHAPES`, -1 for none.
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


Drawing = Callable[[np.ndarray, np.random.Generator], Sprites]


def paint(sprites: Sprites, background: np.ndarray | None = None) -> np.ndarray:
    """Anti-aliased images, float32 from 0 to 1 where `background` is, shape (n, 32, 32).

    Args:
        sprites: what to paint.
        background: what to paint on, shape (n, 32, 32), left as it is; None is black.
    """
    shape = (len(sprites), SPRITE_SIZE, SPRITE_SIZE)
    image = np.zeros(shape, np.float32) if background is None else background.astype(np.float32)
    for slot in range(sprites.kinds.shape[1]):
        for kind in range(len(SHAPES)):
            rows = np.flatnonzero(sprites.kinds[:, slot] == kind)
            for some in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                cover = _cover(kind, sprites[some, slot])
                image[some] += cover * (sprites.brightness[some, slot].astype(np.float32)[:, None, None] - image[some])
    return image


def _sprite_split(draw: Drawing, n_classes: int, size: int, rng: np.random.Generator) -> Split:
    labels = rng.permutation(np.arange(size) % n_classes)
    images = paint(draw(labels, rng), _background(size, rng))
    images += _noise(size, rng)
    return Split(2.0 * images.clip(0.0, 1.0) - 1.0, labels)


def sprites(*, seed: int, train: int, test: int | None) -> Task:
    """how many sprites there are, 1 to 8"""
    sizes = zip(_sizes(train, test or 2000), _PARTS, strict=True)
    splits = [_sprite_split(draw_counts, _MAX_COUNT, n, _stream(seed, "sprites-count", part)) for n, part in sizes]
    return _image_task("sprites", splits, _MAX_COUNT, "sprites-tiny")


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
        kinds=np.where(np.arange(4) < rng.integers(0, 5, size)[:, None], SHAPES.index("disc"), -1),
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


def _kinds(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.integers(len(SHAPES), size=shape)


def draw_shapes(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    """One sprite that lies wholly inside each image; the labels say which shape it has."""
    size = len(labels)
    radius = rng.uniform(3.5, 9.0, size)
    room = SPRITE_SIZE - 2 * radius
    _kinds((size,), rng)  # part of the stream that shipped backbones were trained on
    drawn = {
        "kinds": labels,
        "x": radius + room * rng.uniform(size=size),
        "y": radius + room * rng.uniform(size=size),
        "radius": radius,
        "angle": rng.uniform(0.0, 2 * np.pi, size),
        "brightness": rng.uniform(0.55, 1.0, size),
    }
    return Sprites(**{name: value[:, None] for name, value in drawn.items()})


def draw_counts(labels: np.ndarray, rng: np.random.Generator) -> Sprites:
    """One sprite more than the label says, in different cells of a 3 by 3 grid, 1.5 pixels apart or more."""
    shape, cell = (len(labels), _MAX_COUNT), SPRITE_SIZE / 3
    cells = rng.permuted(np.tile(np.arange(9), (len(labels), 1)), axis=1)[:, :_MAX_COUNT]
    radius = rng.uniform(2.2, 3.4, shape)
    play = cell / 2 - 0.75 - radius
    return Sprites(
        kinds=np.where(np.arange(_MAX_COUNT) <= labels[:, None], _kinds(shape, rng), -1),
        x=(cells % 3 + 0.5) * cell + play * rng.uniform(-1.0, 1.0, shape),
        y=(cells // 3 + 0.5) * cell + play * rng.uniform(-1.0, 1.0, shape),
        radius=radius,
        angle=rng.uniform(0.0, 2 * np.pi, shape),
        brightness=rng.uniform(0.55, 1.0, shape),
    )


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
    distance = _DISTANCES[SHAPES[kind]](cos * dx + sin * dy, cos * dy - sin * dx)
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


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
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


def _digit_task(name: str, view: Drawn, seed: int, train: int, test: int | None) -> Task:
    images, labels = _digits()
    sizes = _sizes(train, test or 397)
    rows = np.arange(_SOURCE_DIGITS, len(labels))
    if sum(sizes) > len(rows):
        raise QasError(f"there are {len(rows)} digits for train and test together, got {sum(sizes)}")
    rows = _stream(seed, "digits", "order").permutation(rows)
    splits = []
    for end, size, part in zip(np.cumsum(sizes), sizes, _PARTS, strict=True):
        mine = rows[end - size : end]
        grey = view(images[mine], _stream(seed, name, part))
        splits.append(Split(2.0 * grey.clip(0.0, 1.0) - 1.0, labels[mine]))
    return _image_task(name, splits, 10, "digits-tiny")


def digits(*, seed: int, train: int, test: int | None) -> Task:
    """which digit was written, as in the source"""
    return _digit_task("digits", _plain_view, seed, train, test)


def digits_rotated(*, seed: int, train: int, test: int | None) -> Task:
    """which digit was written, turned by up to 75 degrees either way"""
    return _digit_task("digits-rotated", _rotated_view, seed, train, test)


def digits_inverted(*, seed: int, train: int, test: int | None) -> Task:
    """which digit was written, dark on light"""
    return _digit_task("digits-inverted", _inverted_view, seed, train, test)


def digits_clutter(*, seed: int, train: int, test: int | None) -> Task:
    """which digit was written, smaller and off centre among pieces of others"""
    return _digit_task("digits-clutter", _cluttered_view, seed, train, test)


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
