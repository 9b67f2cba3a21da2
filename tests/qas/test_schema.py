"""Shapes of data from outside."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest

from qas.errors import RunError
from qas.schema import Count, Gates, RngState, Within, conform, fits


class Inner(TypedDict):
    seconds: Annotated[float, Within(0)] | None


class Outer(TypedDict):
    name: str
    kind: Literal["a", "b"]
    budget: Inner
    points: list[tuple[float, Gates]]
    tried: NotRequired[dict[str, Count]]


GOOD = {"name": "x", "kind": "a", "budget": {"seconds": 1}, "points": [[0.5, [["rx", [0], [0.1]]]]], "more": object()}

WRONG = [
    ({"name": 3}, "damaged at name: str is needed, got 3: f.json"),
    ({"name": ...}, "lacks name: f.json"),
    ({"kind": "c"}, "at kind"),
    ({"budget": {"seconds": -1}}, "at budget.seconds"),
    ({"budget": {}}, "lacks budget.seconds"),
    ({"budget": [1]}, "at budget: an object"),
    ({"points": [[0.5]]}, r"at points\[0\]: 2 entries"),
    ({"points": [[math.nan, []]]}, r"at points\[0\]\[0\]"),
    ({"points": [[0.5, [["rx", [True], [0.1]]]]]}, r"at points\[0\]\[1\]\[0\]\[1\]\[0\]: int"),
    ({"tried": 4}, "at tried"),
    ({"tried": {"k": 2**70}}, "at tried.k: a whole number from 0"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_the_field_that_differs_is_named(change: dict[str, Any], words: str) -> None:
    assert conform(GOOD, Outer, "the thing", where="f.json") is GOOD
    spoilt = {name: value for name, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(RunError, match=words):
        conform(spoilt, Outer, "the thing", where="f.json")


def test_annotations_are_read_as_people_mean_them() -> None:
    state = np.random.default_rng(0).bit_generator.state
    assert fits(state, RngState) and not fits(state | {"uinteger": -1}, RngState)
    for value, hint in ((1, float), ([1, 2], tuple[int, int]), (None, int | None), ([], list[int]), (np.int64(3), int)):
        assert fits(value, hint), (value, hint)
    for value, hint in (
        (True, int),
        (10**400, float),
        ([1, "a"], tuple[int, ...]),
        ({"a": 1}, dict[str, str]),
        (1, bool),
    ):
        assert not fits(value, hint), (value, hint)
