"""What papers report: errors and counts, without circuits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qas.files import parse_json

_FILE = Path(__file__).parents[1] / "data" / "atlas" / "published.jsonl"


@dataclass(frozen=True)
class Published:
    """A published result on a problem."""

    problem: str
    error: float
    """in the problem's unit"""
    bound: bool
    """the error is only known to be below `error`"""
    two_qubit_gates: int | None
    """None: not told"""
    depth: int | None
    gates: int | None
    method: str
    source: str
    """paper, repository or both"""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@cache
def _all() -> tuple[Published, ...]:
    return tuple(Published(**parse_json(line)) for line in _FILE.read_text().splitlines() if line)


def published(problem: str) -> tuple[Published, ...]:
    """Published points of a problem, fewest two-qubit gates first, those without a count last."""
    points = [point for point in _all() if point.problem == problem]
    most = float("inf")
    return tuple(sorted(points, key=lambda p: (most if p.two_qubit_gates is None else p.two_qubit_gates, p.error)))
