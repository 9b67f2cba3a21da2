"""Whether an agent that plays episodes gets better: success by fifths of its run, greedy tests apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from qas.runs import Run

FIFTHS = 5


@dataclass(frozen=True)
class Fifth:
    """Episodes that ended in one fifth of the evaluations."""

    episodes: int
    """greedy tests left out"""
    solved: float | None
    """share of them whose error is below the problem's threshold; None without any"""
    successes: float | None
    """share of them below the threshold of the curriculum"""
    median_error: float | None
    """problem's unit"""
    tests: int
    """episodes that were played greedily"""
    tests_solved: int
    """of these, below the problem's threshold"""

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def by_fifths(run: Run, evaluations: int | None = None) -> list[Fifth]:
    """Success by fifths of a run; empty where no episodes were played.

    Args:
        run: of an agent that plays an environment.
        evaluations: what is divided; None: what the run has used.
    """
    episodes = run.episodes()
    if not len(episodes):
        return []
    whole = evaluations or run.evaluations
    fifth = np.minimum((episodes["evaluations"] * FIFTHS / whole).astype(int), FIFTHS - 1)
    threshold = float(run.problem.threshold or 0.0)
    return [_fifth(episodes[fifth == k], threshold) for k in range(FIFTHS)]


def _fifth(episodes: np.ndarray, threshold: float) -> Fifth:
    played, tests = episodes[episodes["test"] == 0], episodes[episodes["test"] > 0]
    found = (played["error"] < threshold).mean, (played["success"] > 0).mean
    solved, successes = (float(share()) if len(played) else None for share in found)
    median = float(np.median(played["error"])) if len(played) else None
    return Fifth(len(played), solved, successes, median, len(tests), int((tests["error"] < threshold).sum()))


def told(fifths: list[Fifth]) -> list[tuple[str, ...]]:
    """Rows of a table for readers, the head first."""
    rows: list[tuple[str, ...]] = [
        ("fifth", "episodes", "solved", "by the curriculum", "median error", "greedy tests solved")
    ]
    for k, each in enumerate(fifths):
        shares = ("–" if share is None else f"{100 * share:.0f} %" for share in (each.solved, each.successes))
        median = "–" if each.median_error is None else f"{each.median_error:.2g}"
        tests = f"{each.tests_solved} of {each.tests}" if each.tests else "–"
        rows.append((str(k + 1), str(each.episodes), *shares, median, tests))
    return rows
