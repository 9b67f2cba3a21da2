"""What a run found, as figures and as one self-contained page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.best_known import KnownFront, compare
from qas.best_known.fronts import atlas_or_none
from qas.circuits import Circuit
from qas.episodes import Fifth, by_fifths, told
from qas.errors import QasError
from qas.files import write_atomic
from qas.noise import list_noise, load_noise
from qas.page import (
    INK,
    MAIN,
    PAPER,
    SECOND,
    SOFT,
    THIRD,
    digits,
    drawn_circuit,
    error_axis,
    escape,
    floored,
    legend,
    logarithmic,
    new_figure,
    page,
    product_state,
    section,
    short_unit,
    svg,
    threshold_name,
    unit_suffix,
)
from qas.problems import BaseProblem, load_problem
from qas.runs import Result, Run, envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["convergence_figure", "front_figure", "write_report"]

_MOST_DOTS = 600
"""Architectures drawn in the convergence figure; every drawn one makes the page larger."""
_MOST_LABELS = 9


def search_command(run: Run) -> str | None:
    """The command line that repeats the run; None if problem or noise are not known by name."""
    config, budget = run.config, run.config["budget"]
    try:
        known = load_problem(run.problem.name) == run.problem
    except QasError:
        return None
    if not known or (run.noise and (run.noise.name not in list_noise() or load_noise(run.noise.name) != run.noise)):
        return None
    words = ["qas", "search", run.problem.name, "--agent", run.agent]
    words += ["--noise", run.noise.name] if run.noise else []
    words += ["--objective", run.objective] if run.objective != "noisy" else []
    for name, limit in budget.items():
        words += [f"--{name}", repr(limit)] if limit is not None else []
    words += ["--seed", str(run.seed), "--max-gates", str(config["max_gates"]), "--gates", ",".join(config["gates"])]
    if config.get("coupling"):
        words += ["--coupling", ",".join(f"{a}-{b}" for a, b in config["coupling"])]
    for flag, settings in (("-o", config["options"]), ("--evaluator", config["evaluator"])):
        for key, value in settings.items():
            if key == "storage":  # it may hold a password
                return None
            if not isinstance(value, (int, float, str)) or (isinstance(value, str) and not value.isprintable()):
                return None
            words += [flag, f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    return shlex.join(words)


# ---------------------------------------------------------------------- figures
def front_figure(run: Run, title: str | None = None) -> Figure:
    """Error against two-qubit gates: the two-dimensional front, and behind it the circuits saved for fewer gates.

    Numbers beside the points are the gates of each circuit. With noise, open circles show the same circuits and angles
    on a perfect device. Behind all that stand the best known circuits of the problem and published points, if there are
    any.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(title)
    kept = envelope(run.front)
    shown = [r.error for r in run.front] + ([r.noise_free_error for r in kept] if run.noise else [])
    if run.front:
        others = [r for r in run.front if r not in kept]
        axes.plot(
            [r.two_qubit_gates for r in others],
            floored(r.error for r in others),
            "o", color=SOFT, markersize=3.5, alpha=0.55, linestyle="none", zorder=2,
            label="fewer gates" if others else None,
        )  # fmt: skip
        counts, errors = [r.two_qubit_gates for r in kept], floored(r.error for r in kept)
        axes.plot(counts, errors, color=MAIN, linewidth=1.3, drawstyle="steps-post", alpha=0.6, zorder=3)
        name = (f"best with noise {run.noise.name}" if run.noise else "best of each count") + " (number: all gates)"
        axes.plot(counts, errors, "o", color=MAIN, markersize=7, linestyle="none", zorder=4, label=name)
        if run.noise:
            perfect = floored(r.noise_free_error for r in kept)
            axes.plot(
                counts, perfect, "o", markersize=7, markerfacecolor=PAPER, markeredgecolor=SECOND,
                markeredgewidth=1.5, linestyle="none", zorder=3.5, label="the same circuits, no noise",
            )  # fmt: skip
        step = math.ceil(len(kept) / _MOST_LABELS)
        for result, error in list(zip(kept, errors, strict=True))[::-step]:
            where = (result.two_qubit_gates, error)
            axes.annotate(
                f"{result.gates}", where, xytext=(6, 5), textcoords="offset points", fontsize=8.5, color=INK, zorder=5
            )
        most = max(1, *(r.two_qubit_gates for r in run.front))
        known = atlas_or_none(run.problem)
        if known is not None:
            most, theirs = _behind(axes, known, most)
            shown += theirs
        axes.set_xlim(-0.4, most + 0.6)
    error_axis(axes, run.problem, floored(shown), lowest=min(shown, default=None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("two-qubit gates", color=INK)
    legend(figure)
    return figure


def _behind(axes: Axes, known: KnownFront, most: int) -> tuple[int, list[float]]:
    """Draw the best known circuits and published points; returns where the axis ends, and the errors drawn.

    Args:
        axes: of a front.
        known: what is drawn, up to a little more than its first circuit below the threshold.
        most: two-qubit gates of the largest circuit of the run.
    """
    solving = known.solving or known.best
    most = max(most, min(solving.two_qubit_gates + 2, 2 * most))
    circuits = [each for each in known if each.two_qubit_gates <= most]
    points = [p for p in known.published if p.two_qubit_gates is not None and p.two_qubit_gates <= most]
    lines = [p for p in known.published if p.two_qubit_gates is None]
    marked: tuple[tuple[Sequence[Any], str, str], ...] = (
        (circuits, "_", "best known (atlas)"),
        (points, "x", "published"),
    )
    for each, marker, label in marked:
        axes.plot(
            [one.two_qubit_gates for one in each], floored(one.error for one in each), marker, color=THIRD,
            markersize=9 if marker == "_" else 6, markeredgewidth=1.6, linestyle="none", zorder=2.5,
            label=label if each else None,
        )  # fmt: skip
    if circuits:
        last = circuits[-1]
        counts = [*(one.two_qubit_gates for one in circuits), most + 0.6]
        errors = floored([*(one.error for one in circuits), last.error])
        axes.plot(counts, errors, color=THIRD, linewidth=1.0, drawstyle="steps-post", alpha=0.5, zorder=2.4)
    for point in lines:
        axes.axhline(
            point.error, color=THIRD, linewidth=1.0, linestyle=(0, (1, 3)), zorder=1.4,
            label=f"published, {point.method} ({point.error:.2g})",
        )  # fmt: skip
    drawn: list[Any] = [*circuits, *points, *lines]
    return most, [one.error for one in drawn]


def best_so_far(run: Run) -> np.ndarray:
    """Where the best error fell: ``history.csv`` cut to these rows and the last one, what tidying brought in it.

    Not the lowest of all errors: under noise and shots it is what was offered to the front that counts.

    Returns:
        A structured array as `Run.history` returns it, of finite errors only; empty if nothing was evaluated.

    Raises:
        RunError: the history is damaged.
    """
    rows = _finite(run.history())
    if not len(rows):
        return rows
    best = np.minimum.accumulate(rows["best_error"])
    kept = rows[[*np.flatnonzero(np.diff(best, prepend=np.inf) < 0), -1]]
    kept["best_error"] = np.minimum.accumulate(kept["best_error"])
    if run.front:
        kept["best_error"][-1] = min(kept["best_error"][-1], run.best.error)
    return kept


def _finite(rows: np.ndarray) -> np.ndarray:
    return rows[np.isfinite(rows["error"]) & np.isfinite(rows["best_error"])]


def convergence_figure(run: Run, title: str | None = None) -> Figure:
    """Best error so far against evaluations, with a sample of the architectures behind it."""
    figure, axes = new_figure(title)
    rows, best = _finite(run.history()), best_so_far(run)
    drawn: list[float] = []
    if len(rows):
        sample = rows[np.unique(np.geomspace(1, len(rows), _MOST_DOTS).astype(int)) - 1]
        axes.plot(
            sample["evaluations"], floored(sample["error"]), "o", color=SOFT, markersize=2.5, alpha=0.5,
            linestyle="none", markeredgewidth=0, zorder=2, label="architectures (a sample)",
        )  # fmt: skip
        counts, errors = best["evaluations"], floored(best["best_error"])
        axes.plot(counts, errors, color=MAIN, linewidth=2, drawstyle="steps-post", zorder=3, label="best so far")
        drawn = [*errors, *floored(sample["error"])]
        if rows["evaluations"][-1] > 100:
            logarithmic(axes.xaxis, max(1.0, counts[0] / 1.3), 1.3 * counts[-1])
    error_axis(axes, run.problem, drawn, lowest=float(rows["error"].min()) if len(rows) else None)
    axes.set_xlabel("evaluations of the objective", color=INK)
    legend(figure)
    return figure


# ---------------------------------------------------------------------- page
def write_report(run: Run) -> Path:
    """Write ``report.html`` into the run's folder: one page without outside resources.

    Returns:
        The page's path.

    Raises:
        RunError: the history is damaged, the disk is full, or the folder cannot be written.
    """
    path = run.path / "report.html"
    write_atomic(path, _page(run))
    return path


def _page(run: Run) -> str:
    title = f"{run.problem.name}, agent {run.agent}" + (f", noise {run.noise.name}" if run.noise else "")
    parts = [_heading(run)]
    if run.front:
        parts += [
            _numbers(run),
            section("Best circuit", drawn_circuit(run.best.circuit, "circuit", "The best circuit")),
        ]
    else:
        parts.append(section("Best circuit", "<p>No circuit was evaluated yet.</p>"))
    front = svg(front_figure(run), "front", "Pareto front: error against two-qubit gates")
    convergence = svg(convergence_figure(run), "convergence", "Best error against evaluations")
    parts.append(f"<div class='pair'>{section('Pareto front', front)}{section('Convergence', convergence)}</div>")
    if run.front:
        parts.append(section("Error against two-qubit gates", _table(run) + _beside_atlas(run)))
    fifths = by_fifths(run)
    if fifths:
        parts.append(section("Episodes, by fifths of the evaluations", _episodes(fifths)))
    parts.append(section("This run", _settings(run)))
    if run.front:
        qasm = escape(run.best.circuit.to_qasm())
        parts.append(
            f"<section><details><summary>Best circuit as OpenQASM 3</summary><pre>{qasm}</pre></details></section>"
        )
    return page(title, parts)


def _heading(run: Run) -> str:
    noise = f"noise {escape(run.noise.name)}" if run.noise else "no noise"
    text = f"<h1>{escape(run.problem.name)}</h1>"
    if run.problem.description:
        text += f"<p>{escape(run.problem.description)}</p>"
    return text + (
        f"<p class='soft'>agent {escape(run.agent)}, {noise}, seed {run.seed}, {escape(run.status)} after "
        f"{run.seconds:,.1f} s</p>"
    )


def _numbers(run: Run) -> str:
    best, problem = run.best, run.problem
    unit = f" {short_unit(problem.unit)}".rstrip()
    assert problem.threshold is not None
    ratio = best.error / problem.threshold
    goal = f"{threshold_name(run.problem)} {problem.threshold:.2g}{unit}"
    solved = ratio <= 1
    reached = f"below {goal}" if solved else f"{ratio:.3g} × {goal}"
    cells = [
        (f"{digits(best.error)}{unit}", _measured(run), reached, solved),
        (f"{best.energy:.6f}".replace("-", "−"), f"energy{unit_suffix(problem)}", f"exact {problem.exact:.6f}", False),
    ]
    if best.outcomes is not None:
        error, spread = (digits(value) for value in (problem.error(best.outcomes.mitigated), best.outcomes.sigma))
        cells.append((f"{error}{unit}", "error mitigated", f"± {spread}{unit}, {best.outcomes.by}", False))
    if run.noise:
        perfect = best.noise_free_error <= problem.threshold
        cells.append((f"{digits(best.noise_free_error)}{unit}", "error without noise", "same angles", perfect))
    two = best.two_qubit_gates
    cells += [
        (f"{best.gates} / {two}", "gates / two-qubit gates", f"depth {best.circuit.depth}", False),
        (f"{run.evaluations:,}", "evaluations", f"{run.architectures:,} architectures", False),
    ]
    inner = "".join(
        f"<div class='number{' good' if good else ''}'><span>{escape(label)}</span><b>{escape(value)}</b>"
        f"<span>{escape(below).replace('-', '−') if 'exact' in below else escape(below)}</span></div>"
        for value, label, below, good in cells
    )
    return f"<div class='numbers'>{inner}</div>"


def _measured(run: Run) -> str:
    """What the error of a circuit is called."""
    name = run.objective.partition(":")[0]
    return f"error, {name} score" if name != "noisy" else "error with noise" if run.noise else "error"


def _table(run: Run) -> str:
    suffix = escape(unit_suffix(run.problem))
    # What a circuit achieves comes first: on a narrow screen the last columns have to be scrolled to.
    judged = all(r.outcomes is not None for r in run.front)
    heads = ["two-qubit gates", f"error{suffix}", *([f"error, no noise{suffix}"] if run.noise else [])]
    if judged:
        heads[2:] = ["raw", "readout inverted", "mitigated", "no noise", "no noise, re-optimized"]
    heads += ["gates", "depth", *run.on_device(Circuit(run.problem.n_qubits)), "angles", f"energy{suffix}"]
    rows = []
    assert run.problem.threshold is not None
    for r in envelope(run.front):
        cells = [str(r.two_qubit_gates), digits(r.error), *([digits(r.noise_free_error)] if run.noise else [])]
        if judged:
            cells[2:] = _outcomes(r, run.problem)
        cells += [str(r.gates), str(r.circuit.depth), *run.on_device(r.circuit).values()]
        cells += [str(r.circuit.n_angles), f"{r.energy:.8f}".replace("-", "−")]
        good = " class='good'" if r.error <= run.problem.threshold else ""
        rows.append(f"<tr{good}>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    head = "".join(f"<th>{h}</th>" for h in heads)
    note = (
        f"<p class='soft'>Green: {escape(threshold_name(run.problem))} reached. All {len(run.front)} circuits of the "
        "front, which also counts gates of every kind, are in <code>circuits.jsonl</code>.</p>"
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"


def _beside_atlas(run: Run) -> str:
    found = compare(run)
    return "" if found is None else f"<p>Beside the atlas it {escape(found.line)}.</p>"


def _episodes(fifths: list[Fifth]) -> str:
    """Success by fifths, greedy tests apart."""
    head, *rows = told(fifths)
    cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<div class='wide'><table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table></div>"


def _outcomes(result: Result, problem: BaseProblem) -> list[str]:
    """Errors of a circuit in all the ways that it is judged."""
    known = result.outcomes
    assert known is not None
    raw, readout, mitigated, again = (
        digits(problem.error(energy)) for energy in (known.noisy, known.readout, known.mitigated, known.reoptimized)
    )
    return [raw, readout, f"{mitigated} ± {digits(known.sigma)}", digits(result.noise_free_error), again]


def _settings(run: Run) -> str:
    config, problem = run.config, run.problem
    budget = ", ".join(f"{v:,} {k}" if isinstance(v, int) else f"{v:g} {k}" for k, v in config["budget"].items() if v)

    def pairs(settings: Any) -> str:
        shown = {k: v for k, v in (settings or {}).items() if k != "storage"}  # a URL may hold a password
        return ", ".join(f"{k} = {v}" for k, v in shown.items()) if shown else "defaults"

    rows = [
        ("problem", f"{problem.name}, {problem.n_qubits} qubits, {problem.summary}"),
        ("exact energy", f"{problem.exact:.10f} {problem.unit}".rstrip()),
        ("agent", f"{run.agent}; {pairs(config.get('options'))}"),
        ("noise", run.noise.name if run.noise else "none"),
        ("objective", run.objective),
        ("angles", pairs(config.get("evaluator"))),
        ("gates", f"{', '.join(config.get('gates', ()))}; at most {config.get('max_gates')}"),
        ("coupling", _coupling(run)),
        ("budget", budget),
        ("seed", str(run.seed)),
        ("versions", ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items())),
    ]
    product = product_state(problem)
    if product is not None:
        rows.insert(2, ("best product state", f"{product:.10f} {problem.unit}".rstrip()))
    command = search_command(run)
    body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    if command:
        body += f"<tr><th>again</th><td><code>{escape(command)}</code></td></tr>"
    return f"<table class='settings'><tbody>{body}</tbody></table>"


def _coupling(run: Run) -> str:
    pairs = run.config.get("coupling") or (run.noise and run.noise.coupling and sorted(run.noise.coupling))
    return ", ".join(f"{a}-{b}" for a, b in pairs) if pairs else "all pairs"


def run_to_json(run: Run) -> dict[str, Any]:
    """What other programs may want to know of a run, JSON-able; see `Run.front` and `Result.to_json`."""
    p = run.problem
    known = compare(run)
    return {
        "path": str(run.path.resolve()),
        "status": run.status,
        "problem": p.name,
        "agent": run.agent,
        "noise": run.noise.name if run.noise else None,
        "objective": run.objective,
        "seed": run.seed,
        "evaluations": run.evaluations,
        "architectures": run.architectures,
        "seconds": run.seconds,
        "unit": p.unit,
        "exact": p.exact,
        "product_state": product_state(p),
        "threshold": p.threshold,
        "best": run.best.to_json() if run.front else None,
        "front": [r.to_json() for r in run.front],
        "atlas": None if known is None else {"line": known.line, "differences": known.differences},
        "episodes_by_fifths": [fifth.to_json() for fifth in by_fifths(run)],
    }
