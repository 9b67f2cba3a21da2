"""Settings of what can be named: what a constructor takes, also where it hands further ones on."""

from __future__ import annotations

from typing import Any

import pytest

from qas.errors import QasError
from qas.registry import check_settings, options_of, read_settings, settings_of


class Base:
    def __init__(self, *, size: int = 3, name: str | None = None) -> None:
        self.size, self.name = size, name


class Extended(Base):
    def __init__(self, *, rate: float = 0.5, size: int = 4, **more: Any) -> None:
        super().__init__(size=size, **more)
        self.rate = rate


class Closed(Extended):
    def __init__(self, *, depth: int = 1) -> None:
        super().__init__()
        self.depth = depth


def test_options_follow_what_a_constructor_hands_on() -> None:
    options = options_of(Extended)
    assert list(options) == ["rate", "size", "name"]
    assert options["size"].default == 4, "the nearest constructor decides"
    assert list(options_of(Closed)) == ["depth"] and list(options_of(Base)) == ["size", "name"]
    assert settings_of(Extended(name="x", rate=0.25)) == {"rate": 0.25, "name": "x"}


def test_inherited_options_are_checked_as_its_own_are() -> None:
    check_settings(Extended, {"name": None, "size": 2, "rate": 1}, "it")
    for wrong, words in (({"name": 3}, "name of it must be"), ({"size": 1.5}, "size of it must be int"),
                         ({"nane": "x"}, "'name'")):  # fmt: skip
        with pytest.raises(QasError, match=words):
            check_settings(Extended, wrong, "it")
    with pytest.raises(QasError, match="unknown setting of it 'size'"):
        check_settings(Closed, {"size": 2}, "it")


def test_text_stays_text_where_the_signature_says_so() -> None:
    def kind(*, start: str | None = None, count: int = 1, share: float = 0.5, free: Any = None) -> None: ...

    texts = [("start", "1100"), ("count", "3"), ("share", "0.25"), ("free", "[1, 2]"), ("unknown", "x=1")]
    assert read_settings(kind, texts) == {"start": "1100", "count": 3, "share": 0.25, "free": [1, 2], "unknown": "x=1"}
    assert read_settings(kind, [("start", "null"), ("count", "many")]) == {"start": None, "count": "many"}
