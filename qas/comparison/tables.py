"""Tables of a comparison, for pages, Markdown, and other programs."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from qas.comparison.groups import Arm, Comparison, Group
from qas.comparison.statistics import interval, paired, wilson
from qas.errors import QasError
from qas.page import FLOOR, digits, product_state, short_unit, unit_suffix
from qas.runs import Run, envelope
from qas.scores import entanglement_score

_LIMIT = re.compile(r"\s*(error|cx|gates)\s*(<=|<)\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*")

_MOST_PAIRED = 8
"""Arms of which any two are compared."""


# ---------------------------------------------------------------------- criteria
class Criterion(NamedTuple):
    """What a circuit must be to count as a success."""

    text: str
    limits: tuple[tuple[str, str, float], ...]
    """("error", "cx" or "gates"; "<" or "<="; bound), all to be met by one circuit; cx are all two-qubit gates"""

    def met(self, run: Run) -> bool:
        """Whether one circuit of the run's front meets all limits."""
        return any(self._holds(r.error, r.two_qubit_gates, r.gates) for r in run.front)

    def _holds(self, error: float, cx: int, gates: int) -> bool:
        values = {"error": error, "cx": cx, "gates": gates}
        return all(values[k] < bound if sign == "<" else values[k] <= bound for k, sign, bound in self.limits)


def parse_criterion(text: str) -> Criterion:
    """Read ``"error<1.6e-3, cx<=4, gates<=15"``.

    Raises:
        QasError: malformed.
    """
    limits = []
    for part in text.split(","):
        found = _LIMIT.fullmatch(part)
        try:
            bound = float(found[3])  # type: ignore[index]
            if not math.isfinite(bound):
                raise ValueError
            limits.append((found[1], found[2], bound))  # type: ignore[index]
        except (TypeError, ValueError):
            raise QasError(f"a criterion looks like 'error<1.6e-3, cx<=4, gates<=15', got {text!r}") from None
    return Criterion(" ".join(text.split()), tuple(limits))


def criteria_of(group: Group, error: float | None, more: Sequence[Criterion]) -> list[Criterion]:
    """The criteria of a group: an error, by default the problem's threshold, and those that were asked for."""
    bound = group.problem.threshold if error is None else error
    assert bound is not None
    return [Criterion(f"error <= {bound:.3g}{unit_of(group)}", (("error", "<=", bound),)), *more]


def unit_of(group: Group) -> str:
    """The unit as it stands behind a number."""
    return f" {short_unit(group.problem.unit)}".rstrip()


# ---------------------------------------------------------------------- tables
class Cell(NamedTuple):
    """One number or name of a table."""

    text: str
    value: float | None = None
    """what it sorts by, if not by its text"""
    source: Run | Arm | Group | None = None
    """what it tells of"""


class Table(NamedTuple):
    """Cells under their heads."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def _number(value: float, source: Run | Arm, text: str | None = None) -> Cell:
    return Cell(digits(value) if text is None else text, float(value), source)


def summary(group: Group) -> Table:
    """One row for each arm: its best errors over the seeds, and medians of what they took."""
    rows = []
    shares = _shares(group)
    for arm in group.arms:
        ordered = sorted(arm.runs, key=lambda run: run.best.error)
        row = [
            Cell(arm.label, None, arm),
            _number(len(arm.runs), arm, str(len(arm.runs))),
            _number(statistics.median(run.best.error for run in arm.runs), arm),
            _number(ordered[0].best.error, ordered[0]),
            _number(ordered[-1].best.error, ordered[-1]),
            *(_median(arm, of) for of in (_gates, _two, _evaluations, _seconds)),
        ]
        if shares:
            scores = [shares(run) for run in arm.runs]
            row.append(_number(statistics.mean(scores), arm, _spread(statistics.mean(scores), interval(scores), 4)))
        rows.append(row)
    suffix = unit_suffix(group.problem)
    heads = ["agent", "runs", f"median error{suffix}", "best", "worst", "gates", "two-qubit gates"]
    heads += ["evaluations", "seconds", *(["r, mean and 95 % interval"] if shares else [])]
    note = "Gates, evaluations and seconds are medians over runs, gates those of each run's best circuit."
    if shares:
        note += " r is 0 for the best product state and 1 for the exact energy."
    return Table("Agents", heads, rows, note)


def _gates(run: Run) -> float:
    return run.best.gates


def _two(run: Run) -> float:
    return run.best.two_qubit_gates


def _evaluations(run: Run) -> float:
    return run.evaluations


def _seconds(run: Run) -> float:
    return run.seconds


def _median(arm: Arm, of: Callable[[Run], float]) -> Cell:
    value = statistics.median(of(run) for run in arm.runs)
    return _number(value, arm, f"{value:,.1f}" if of is _seconds else f"{value:,g}")


def _shares(group: Group) -> Callable[[Run], float] | None:
    """The entanglement score of a run's best circuit, where the problem has one."""
    if product_state(group.problem) is None:
        return None
    try:
        score = entanglement_score(group.problem)
    except QasError:
        return None
    return lambda run: float(score(run.best.energy))


def _spread(mean: float, half: float, places: int) -> str:
    shown = f"{mean:.{places}f}" + (f" ± {half:.{places}f}" if math.isfinite(half) else "")
    return shown.replace("-", "−")


def success(group: Group, criteria: Sequence[Criterion]) -> Table:
    """How many seeds of each arm have a circuit that meets a criterion, and how soon those with an error alone do."""
    rows = []
    for arm, criterion in itertools.product(group.arms, criteria):
        met = sum(criterion.met(run) for run in arm.runs)
        low, high = wilson(met, len(arm.runs))
        rows.append(
            [
                Cell(arm.label, None, arm),
                Cell(criterion.text),
                _number(met / len(arm.runs), arm, f"{met}/{len(arm.runs)}"),
                _number(low, arm, f"{low:.2f} to {high:.2f}"),
                *_until(arm, criterion),
            ]
        )
    heads = [
        "agent",
        "criterion",
        "runs that meet it",
        "95 % interval",
        "evaluations until then",
        "seconds until then",
    ]
    note = (
        "Intervals of shares are Wilson's. Times are medians over all runs, “−” if half of them never got there; "
        "they are known where the criterion is one of the error alone."
    )
    return Table("Successes", heads, rows, note)


def _until(arm: Arm, criterion: Criterion) -> list[Cell]:
    if [kind for kind, *_ in criterion.limits] != ["error"]:
        return [Cell(""), Cell("")]
    _, sign, bound = criterion.limits[0]
    cells = []
    for field in ("evaluations", "seconds"):
        values = [_first(course, field, sign, bound) for course in arm.courses]
        value = statistics.median(values)
        shown = "−" if not math.isfinite(value) else f"{value:,.0f}" if field == "evaluations" else f"{value:,.1f}"
        cells.append(_number(value, arm, shown))
    return cells


def _first(course: np.ndarray, field: str, sign: str, bound: float) -> float:
    """Evaluations or seconds at which the best error of a run met a bound; infinite if it never did."""
    met = course["best_error"] < bound if sign == "<" else course["best_error"] <= bound
    return float(course[field][np.argmax(met)]) if met.any() else math.inf


def differences(group: Group) -> Table:
    """Paired differences of best errors over the seeds that two arms have; see `_pairs`."""
    rows = []
    for first, second in _pairs(group.arms):
        plain = paired(_errors(first), _errors(second))
        ratio = paired(_logarithms(first), _logarithms(second))
        if plain is None or ratio is None:
            continue
        rows.append(
            [
                Cell(first.label, None, first),
                Cell(second.label, None, second),
                _number(plain.pairs, first, str(plain.pairs)),
                _number(plain.mean, first, _with_half(plain.mean, plain.half)),
                _number(ratio.mean, first, _spread(ratio.mean, ratio.half, 2)),
                _number(plain.better - plain.worse, first, f"{plain.better} / {plain.worse}"),
            ]
        )
    suffix = unit_suffix(group.problem)
    heads = ["first", "second", "pairs", f"difference of errors{suffix}", "log10 of their ratio", "better / worse"]
    note = (
        "Seeds are the pairs; means with 95 % intervals (Student); below zero the first is better. "
        f"For the ratio, errors below {FLOOR:.0e} count as that."
    )
    return Table("Paired differences", heads, rows, note)


def _pairs(arms: Sequence[Arm]) -> Iterable[tuple[Arm, Arm]]:
    """Any two arms; of many the one of lowest median error with each other one."""
    if len(arms) <= _MOST_PAIRED:
        return itertools.combinations(arms, 2)
    best = min(arms, key=lambda arm: statistics.median(run.best.error for run in arm.runs))
    return ((best, arm) for arm in arms if arm is not best)


def _errors(arm: Arm) -> dict[int, float]:
    return {run.seed: run.best.error for run in arm.runs}


def _logarithms(arm: Arm) -> dict[int, float]:
    return {run.seed: math.log10(max(run.best.error, FLOOR)) for run in arm.runs}


def _with_half(mean: float, half: float) -> str:
    return f"{digits(mean)} ± {digits(half)}" if math.isfinite(half) else digits(mean)


def runs(group: Group) -> Table:
    """One row for each run."""
    rows = []
    for arm in group.arms:
        for run in arm.runs:
            best = run.best
            whole = [best.two_qubit_gates, best.gates, best.circuit.depth, run.evaluations, run.architectures]
            rows.append(
                [
                    Cell(arm.label),
                    _number(run.seed, run, str(run.seed)),
                    _number(best.error, run),
                    *(_number(value, run, f"{value:,}") for value in whole),
                    _number(run.seconds, run, f"{run.seconds:,.1f}"),
                ]
            )
    heads = ["agent", "seed", f"error{unit_suffix(group.problem)}", "two-qubit gates", "gates", "depth"]
    return Table("Runs", [*heads, "evaluations", "architectures", "seconds"], rows)


def overview(comparison: Comparison) -> Table:
    """Median errors, a row for each group and a column for each label of an arm."""
    labels = sorted({arm.label for group in comparison.groups for arm in group.arms})
    rows = []
    for group in comparison.groups:
        arms = {arm.label: arm for arm in group.arms}
        row = [Cell(group.title, None, group)]
        for label in labels:
            arm = arms.get(label)
            if arm is None:
                row.append(Cell(""))
            else:
                row.append(_number(statistics.median(run.best.error for run in arm.runs), arm))
        rows.append(row)
    return Table("Median errors", ["problem", *labels], rows, "Each in the unit of its problem.")


# ---------------------------------------------------------------------- for other programs
def records(comparison: Comparison) -> list[dict[str, Any]]:
    """One flat record for each run, JSON-able; the fronts are lists in it."""
    return [_record(group, arm, run) for group in comparison.groups for arm in group.arms for run in arm.runs]


def _record(group: Group, arm: Arm, run: Run) -> dict[str, Any]:
    best, config = run.best, run.config
    return {
        "path": str(run.path),
        "group": group.title,
        "arm": arm.label,
        "problem": run.problem.name,
        "noise": run.noise.name if run.noise else None,
        "objective": run.objective,
        "agent": run.agent,
        "seed": run.seed,
        "budget": {name: value for name, value in config["budget"].items() if value is not None},
        "options": {name: value for name, value in config["options"].items() if name != "storage"},
        "max_gates": config["max_gates"],
        "unit": run.problem.unit,
        "error": best.error,
        "energy": best.energy,
        "noise_free_error": best.noise_free_error,
        "gates": best.gates,
        "two_qubit_gates": best.two_qubit_gates,
        "depth": best.circuit.depth,
        "evaluations": run.evaluations,
        "architectures": run.architectures,
        "seconds": run.seconds,
        "envelope": [(r.two_qubit_gates, r.error) for r in envelope(run.front)],
        "front": [(r.error, r.two_qubit_gates, r.gates) for r in run.front],
    }


def to_markdown(table: Table) -> str:
    """The table as Markdown has it."""
    lines = [table.heads, ["---"] * len(table.heads), *([cell.text for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split())) if text != "---" else text
