"""Agents that need an encoder get a tiny one, whatever comes with the package."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _tiny_encoders(encoders: object) -> None:
    pass
