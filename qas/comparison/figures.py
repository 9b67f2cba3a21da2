"""Figures of a comparison: fronts and courses of its arms over each other, with bands over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qas.comparison.groups import Arm, Group
from qas.comparison.statistics import Band, band, steps
from qas.page import COLOURS, FLOOR, INK, error_axis, floored, legend, logarithmic, new_figure
from qas.runs import Result, Run, envelope, rounding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SOONEST = 0.01
"""Seconds, where a logarithmic axis of them begins."""
_PLACES = 100
"""Places of the axis at which courses are compared."""


class Found(NamedTuple):
    """A circuit and the run that found it."""

    result: Result
    run: Run


def best_front(arm: Arm) -> list[Found]:
    """Error against two-qubit gates over all seeds of an arm: of each count the best, where it beats all fewer."""
    lowest: dict[int, Found] = {}
    for run in arm.runs:
        for result in envelope(run.front):
            held = lowest.get(result.two_qubit_gates)
            if held is None or result.error < held.result.error:
                lowest[result.two_qubit_gates] = Found(result, run)
    kept: list[Found] = []
    for _, found in sorted(lowest.items()):
        if not kept or found.result.error < kept[-1].result.error - rounding(found.result.energy):
            kept.append(found)
    return kept


def front_figure(group: Group, title: str | None = None, links: dict[int, str] | None = None) -> Figure:
    """Error of the best circuit with at most so many two-qubit gates: median and quartiles over seeds.

    The dots are the best circuits of all seeds of an arm.

    Args:
        group: the arms.
        title: stands above.
        links: ``id`` of a result -> address that its dot leads to, in SVG.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(title)
    most = max(r.two_qubit_gates for run in group.runs for r in envelope(run.front))
    axis = np.arange(most + 1)
    drawn: list[float] = []
    for number, arm in enumerate(group.arms):
        curves = [envelope(run.front) for run in arm.runs]
        values = [steps(*_columns(curve), axis) for curve in curves]
        drawn += _draw(axes, axis, band(np.array(values)), arm, number)
        dots = best_front(arm)
        errors = floored(found.result.error for found in dots)
        marks = axes.scatter(
            [found.result.two_qubit_gates for found in dots], errors, s=26, color=_colour(number), zorder=4,
            marker=_MARKERS[number % len(_MARKERS)], linewidth=0,
        )  # fmt: skip
        if links:
            marks.set_urls([links.get(id(found.result), "") for found in dots])
        drawn += errors
    axes.set_xlim(-0.4, max(most, 1) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, group, drawn, "two-qubit gates, at most")
    return figure


def course_figure(group: Group, field: str, title: str | None = None) -> Figure:
    """Best error so far: median and quartiles over seeds.

    Args:
        group: the arms.
        field: what it is drawn against, "evaluations" or "seconds".
        title: stands above.
    """
    figure, axes = new_figure(title)
    drawn: list[float] = []
    courses = [[course for course in arm.courses if len(course)] for arm in group.arms]
    for number, (arm, rows) in enumerate(zip(group.arms, courses, strict=True)):
        if not rows:
            continue
        # From where all seeds have a circuit to where the last of them ended.
        first = max(max(each[field][0], _SOONEST) for each in rows)
        last = max(max(each[field][-1] for each in rows), first)
        axis = np.unique(np.geomspace(first, last, _PLACES))
        axis[0], axis[-1] = first, last
        values = np.array([steps(np.maximum(each[field], _SOONEST), each["best_error"], axis) for each in rows])
        drawn += _draw(axes, axis, band(values), arm, number)
    ends = [value for rows in courses for each in rows for value in each[field][[0, -1]]]
    if ends and max(ends) > 30 * max(min(ends), _SOONEST):
        logarithmic(axes.xaxis, max(min(ends), _SOONEST) / 1.3, 1.3 * max(ends))
    _finish(figure, axes, group, drawn, "evaluations of the objective" if field == "evaluations" else "seconds")
    return figure


# ---------------------------------------------------------------------- parts
_MARKERS = "os^Dv"
_BEYOND = 1e30
"""What an infinite quartile is drawn at: above every picture."""
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _columns(front: list[Result]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r.two_qubit_gates for r in front]), np.array([r.error for r in front])


def _draw(axes: Axes, axis: np.ndarray, found: Band, arm: Arm, number: int) -> list[float]:
    """Draw the steps of an arm where its median is finite; returns the errors drawn."""
    known = np.isfinite(found.median)
    if not known.any():
        return []
    axis = axis[known]
    low, median, high = (np.maximum(values[known], FLOOR) for values in found)
    bounded = np.isfinite(high)
    high = np.where(bounded, high, _BEYOND)
    kept = _changes(low, median, high)
    axis, low, median, high, bounded = (values[kept] for values in (axis, low, median, high, bounded))
    colour, dashes = _colour(number), _DASHES[number // len(COLOURS) % len(_DASHES)]
    name = f"{arm.label}, {len(arm.runs)} run{'s' * (len(arm.runs) > 1)}"
    if len(arm.runs) > 1:
        axes.fill_between(axis, low, high, step="post", color=colour, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(
        axis, median, color=colour, linewidth=1.8, linestyle=dashes, drawstyle="steps-post", zorder=3,
        label=name.lstrip("_"),
    )  # fmt: skip
    return [*low.tolist(), *median.tolist(), *high[bounded].tolist()]


def _changes(*curves: np.ndarray) -> np.ndarray:
    """The first and last place, and where one of the steps goes up or down: all that is to be drawn of them."""
    changed = np.zeros(len(curves[0]), dtype=bool)
    changed[[0, -1]] = True
    for values in curves:
        changed[1:] |= np.diff(values) != 0
    return changed


def _finish(figure: Figure, axes: Axes, group: Group, drawn: list[float], label: str) -> None:
    lowest = min(run.best.error for run in group.runs)
    error_axis(axes, group.problem, drawn, lowest=lowest)
    axes.set_xlabel(label, color=INK)
    legend(figure)
