"""What a reader should know about the outcome of a search, one line each: mostly that something else does better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from qas.errors import QasError
from qas.files import read_json
from qas.mitigation.objectives import spelled
from qas.noise import NoiseModel
from qas.problems import BaseProblem
from qas.runs import Result, lowest_error

_MOST_FOLDERS = 1000
_MOST_CONFIGS = 20


def remarks_on(
    front: Sequence[Result],
    problem: BaseProblem,
    noise: NoiseModel | None,
    folder: Path | None = None,
    objective: str = "noisy",
) -> list[str]:
    """Remarks on what a search found.

    Args:
        front: its circuits.
        problem: what was searched.
        noise: under which the energies are, or None.
        folder: that of the run; the runs beside it are compared with.
        objective: what was minimized, as `qas.mitigation.objectives.spelled` tells it.
    """
    if not front:
        return ["the search ended before a circuit was judged"]
    best = lowest_error(front)
    remarks = _beside_product_state(best, problem, noise)
    if folder is not None:
        remarks += _beside_other_runs(best, problem, noise, folder, objective)
    return remarks


def _beside_product_state(best: Result, problem: BaseProblem, noise: NoiseModel | None) -> list[str]:
    try:
        product = problem.product_state
    except QasError:  # too large to compute
        product = None
    if product is None:
        return []
    slack = 1e-6 * max(1.0, abs(product))
    known = f"the best product state, {product:.6g} {problem.unit}".rstrip()
    if best.noise_free_energy > product + slack:
        device = "on a perfect device the best circuit" if noise is not None else "the best circuit"
        return [f"{device} ends at {best.noise_free_energy:.6g}, above {known}: one-qubit gates alone do better"]
    if best.energy > product + slack:
        return [f"under the noise the best circuit ends at {best.energy:.6g}, above {known}, without noise"]
    return []


def _beside_other_runs(
    best: Result, problem: BaseProblem, noise: NoiseModel | None, folder: Path, objective: str
) -> list[str]:
    """At most one line, on the best run in the same folder that asked the same and is better by the threshold."""
    assert problem.threshold is not None
    asked = {"problem": problem.to_json(), "noise": None if noise is None else noise.to_json()}
    better = sorted((error, path) for error, path in _summaries(folder) if error < best.error - problem.threshold)
    for error, path in better[:_MOST_CONFIGS]:
        config = _read(path / "config.json")
        same = spelled(config.get("objective", "noisy")) == objective
        if same and all(config.get(name) == value for name, value in asked.items()):
            agent = config.get("agent", "another agent")
            return [f"{agent} reached an error of {error:.3g}, this search {best.error:.3g}: see {path}"]
    return []


def _summaries(folder: Path) -> Iterator[tuple[float, Path]]:
    """Lowest error and folder of the finished runs beside a run."""
    try:
        beside = list(islice(folder.resolve().parent.iterdir(), _MOST_FOLDERS))
    except OSError:
        return
    for path in beside:
        if path != folder.resolve() and not path.is_symlink() and (path / "summary.json").is_file():
            error = _read(path / "summary.json").get("best_error")
            if isinstance(error, (int, float)):
                yield float(error), path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path, path.name)
    except QasError:
        return {}
    return found if isinstance(found, dict) else {}
