"""What a run found, as figures and as one self-contained page.

Figures are made without pyplot, so nothing global changes. In the page their colours become CSS variables, which lets
one drawing serve light and dark.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.circuits import Circuit
from qas.episodes import Fifth, by_fifths, told
from qas.errors import CircuitError, QasError
from qas.files import write_atomic
from qas.noise import list_noise, load_noise
from qas.problems import CHEMICAL_ACCURACY, BaseProblem, load_problem
from qas.runs import Result, Run, envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["convergence_figure", "front_figure", "write_report"]

FLOOR = 1e-12
"""Errors below this, rounding and negative values included, are drawn at it: a logarithmic axis has no zero."""

_UNITS = {"hartree": "Ha"}
_INK, _SOFT, _GRID, _PAPER = "#1f2933", "#7b8794", "#e4e7eb", "#ffffff"
_MAIN, _SECOND, _GOOD = "#2460a7", "#c2571a", "#2d7d46"
_MOST_DOTS = 600
"""Architectures drawn in the convergence figure; every drawn one makes the page larger."""
_MOST_LABELS = 9


def short_unit(unit: str) -> str:
    """The unit as written after a number."""
    return _UNITS.get(unit, unit)


def product_state(problem: BaseProblem) -> float | None:
    """What one-qubit gates reach; None where that has no meaning for the problem, or is too large to compute."""
    try:
        return problem.product_state
    except QasError:
        return None


def threshold_name(run: Run) -> str:
    """What reaching the problem's threshold is called."""
    chemical = run.problem.unit == "hartree" and run.problem.threshold == CHEMICAL_ACCURACY
    return "chemical accuracy" if chemical else "threshold"


def search_command(run: Run) -> str | None:
    """The command line that repeats the run; None if problem or noise are not known by name."""
    config, budget = run.config, run.config["budget"]
    try:
        known = load_problem(run.problem.name) == run.problem
    except QasError:
        return None
    if not known or (run.noise and (run.noise.name not in list_noise() or load_noise(run.noise.name) != run.noise)):
        return None
    words = ["qas search", run.problem.name, "--agent", run.agent]
    words += ["--noise", run.noise.name] if run.noise else []
    words += ["--objective", run.objective] if run.objective != "noisy" else []
    for name in ("seconds", "evaluations", "steps"):
        words += [f"--{name}", f"{budget[name]:g}" if name == "seconds" else str(budget[name])] if budget[name] else []
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
    return " ".join(words)


# ---------------------------------------------------------------------- figures
def _floored(values: Iterable[float]) -> list[float]:
    return [max(float(v), FLOOR) for v in values]


def _new_figure(title: str | None) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # Narrow enough for its text to be read where a telephone shrinks it.
    figure = Figure(figsize=(4.8, 4.4), facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot(facecolor=_PAPER)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_SOFT)
    axes.tick_params(which="both", colors=_INK)
    axes.grid(True, which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", color=_INK, fontsize=12, fontweight="bold", parse_math=False)
    return figure, axes


def _error_axis(axes: Axes, run: Run, drawn: Sequence[float], *, lowest: float | None) -> None:
    """Logarithmic error axis with the threshold and, if it is above the exact value, the best product state."""
    axes.set_yscale("log")
    axes.set_ylabel(f"error{_suffix(run.problem)}", color=_INK)
    assert run.problem.threshold is not None
    lines = [(run.problem.threshold, threshold_name(run), _GOOD, (0, (5, 3)))]
    product = product_state(run.problem)
    if product is not None:
        lines.append((run.problem.error(product), "product state, no noise", _SOFT, (0, (1, 2))))
    lines = [line for line in lines if line[0] > FLOOR]
    for value, label, colour, dashes in lines:
        axes.axhline(value, color=colour, linewidth=1.3, linestyle=dashes, zorder=1.5, label=f"{label} ({value:.2g})")
    values = [*drawn, *(value for value, *_ in lines)]
    axes.set_ylim(min(values) / 2.5, max(values) * 2.5)
    if lowest is not None and lowest < FLOOR:
        # Above the axes, where no legend can come to lie on it.
        note = f"errors below {FLOOR:.0e} are drawn there"
        axes.text(1.0, 1.01, note, transform=axes.transAxes, fontsize=8, color=_SOFT, ha="right", va="bottom")


def _legend(figure: Figure) -> None:
    """Below the axes: inside it would cover a point or its label."""
    figure.legend(loc="outside lower left", fontsize=8.5, frameon=False, labelcolor=_INK)


def front_figure(run: Run, title: str | None = None) -> Figure:
    """Error against two-qubit gates: the two-dimensional front, and behind it the circuits saved for fewer gates.

    Numbers beside the points are the gates of each circuit. With noise, open circles show the same circuits and angles
    on a perfect device.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _new_figure(title)
    kept = envelope(run.front)
    shown = [r.error for r in run.front] + ([r.noise_free_error for r in kept] if run.noise else [])
    if run.front:
        others = [r for r in run.front if r not in kept]
        axes.plot(
            [r.two_qubit_gates for r in others],
            _floored(r.error for r in others),
            "o", color=_SOFT, markersize=3.5, alpha=0.55, linestyle="none", zorder=2,
            label="fewer gates" if others else None,
        )  # fmt: skip
        counts, errors = [r.two_qubit_gates for r in kept], _floored(r.error for r in kept)
        axes.plot(counts, errors, color=_MAIN, linewidth=1.3, drawstyle="steps-post", alpha=0.6, zorder=3)
        name = (f"best with noise {run.noise.name}" if run.noise else "best of each count") + " (number: all gates)"
        axes.plot(counts, errors, "o", color=_MAIN, markersize=7, linestyle="none", zorder=4, label=name)
        if run.noise:
            perfect = _floored(r.noise_free_error for r in kept)
            axes.plot(
                counts, perfect, "o", markersize=7, markerfacecolor=_PAPER, markeredgecolor=_SECOND,
                markeredgewidth=1.5, linestyle="none", zorder=3.5, label="the same circuits, no noise",
            )  # fmt: skip
        step = math.ceil(len(kept) / _MOST_LABELS)
        for result, error in list(zip(kept, errors, strict=True))[::-step]:
            where = (result.two_qubit_gates, error)
            axes.annotate(
                f"{result.gates}", where, xytext=(6, 5), textcoords="offset points", fontsize=8.5, color=_INK, zorder=5
            )
        most = max(r.two_qubit_gates for r in run.front)
        axes.set_xlim(-0.4, max(most, 1) + 0.6)
    _error_axis(axes, run, _floored(shown), lowest=min(shown, default=None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("two-qubit gates", color=_INK)
    _legend(figure)
    return figure


def convergence_figure(run: Run, title: str | None = None) -> Figure:
    """Best error so far against evaluations, with a sample of the architectures behind it."""
    figure, axes = _new_figure(title)
    rows = run.history()
    rows = rows[np.isfinite(rows["error"]) & np.isfinite(rows["best_error"])]
    drawn: list[float] = []
    if len(rows):
        sample = rows[np.unique(np.geomspace(1, len(rows), _MOST_DOTS).astype(int)) - 1]
        axes.plot(
            sample["evaluations"], _floored(sample["error"]), "o", color=_SOFT, markersize=2.5, alpha=0.5,
            linestyle="none", markeredgewidth=0, zorder=2, label="architectures (a sample)",
        )  # fmt: skip
        # Not the lowest of all errors: under noise and shots it is what was offered to the front that counts.
        best = np.minimum.accumulate(rows["best_error"])
        changes = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
        last = min(best[-1], run.best.error) if run.front else best[-1]
        counts = [*rows["evaluations"][changes], rows["evaluations"][-1]]
        errors = _floored([*best[changes], last])
        axes.plot(counts, errors, color=_MAIN, linewidth=2, drawstyle="steps-post", zorder=3, label="best so far")
        drawn = [*errors, *_floored(sample["error"])]
        if rows["evaluations"][-1] > 100:
            axes.set_xscale("log")
    _error_axis(axes, run, drawn, lowest=float(rows["error"].min()) if len(rows) else None)
    axes.set_xlabel("evaluations of the objective", color=_INK)
    _legend(figure)
    return figure


# ---------------------------------------------------------------------- page
_DARK = {
    _INK: "#e4e9ef", _SOFT: "#8d99a8", _GRID: "#2b333f", _PAPER: "#171c24", _MAIN: "#79b0f2", _SECOND: "#f0935a",
    _GOOD: "#6fc98a", "#16324f": "#a9c4e4", "#fbe3e0": "#4d2723", "#b23a2e": "#e58176", "#e1f1e4": "#1f3d28",
    "#dfeaf8": "#1e3552", "#fdf1d2": "#46380f", "#a9780b": "#d9ab45", "#ece4f6": "#38294c", "#6b429f": "#b591e4",
}  # fmt: skip
"""Colours of the figures -> what they become on a dark page."""


def _variable(colour: str) -> str:
    return f"--c{colour[1:]}"


_STYLE = """
:root{color-scheme:light dark;%(light)s;--page:#f4f6f8}
@media(prefers-color-scheme:dark){:root{%(dark)s;--page:#0f1318}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--c1f2933);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
 "Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.75rem;line-height:1.2;margin:0}
h2{font-size:1.05rem;margin:0 0 12px}
p{margin:.3em 0}.soft{color:var(--c7b8794)}
section{background:var(--cffffff);border:1px solid var(--ce4e7eb);border-radius:10px;padding:18px 20px;margin-top:18px}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin-top:20px}
.number{background:var(--cffffff);border:1px solid var(--ce4e7eb);border-radius:10px;padding:12px 16px}
.number b{display:block;font-size:1.4rem;font-weight:650;line-height:1.3;white-space:nowrap}
.number.good b{color:var(--c2d7d46)}
.number span{font-size:.84rem;color:var(--c7b8794);display:block}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%%),1fr));gap:0 18px}
.pair section{min-width:0}
svg{display:block;max-width:100%%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%%;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:6px 12px;text-align:right;border-bottom:1px solid var(--ce4e7eb);white-space:nowrap}
th{font-weight:600;color:var(--c7b8794)}
.settings th,.settings td{text-align:left;white-space:normal;vertical-align:top;overflow-wrap:anywhere}
.settings th{width:11em}tr:last-child>*{border-bottom:0}
tr.good td{color:var(--c2d7d46)}
pre{margin:0;overflow-x:auto;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(max-width:600px){main{padding:18px 10px 40px}section{padding:14px 12px}h1{font-size:1.45rem}
.numbers{grid-template-columns:1fr 1fr;gap:10px}.number{padding:10px 12px}.number b{font-size:1.15rem}
th,td{padding:6px 5px}th{white-space:normal;vertical-align:bottom}.settings th{width:6.5em}}
details summary{cursor:pointer;font-weight:600}details pre{margin-top:12px}
"""


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
    colours = {
        "light": ";".join(f"{_variable(c)}:{c}" for c in _DARK),
        "dark": ";".join(f"{_variable(light)}:{dark}" for light, dark in _DARK.items()),
    }
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{_text(title)}</title><style>{_STYLE % colours}</style></head><body><main>",
        _heading(run),
    ]
    if run.front:
        parts += [_numbers(run), _section("Best circuit", _circuit(run.best))]
    else:
        parts.append(_section("Best circuit", "<p>No circuit was evaluated yet.</p>"))
    front = _svg(front_figure(run), "front", "Pareto front: error against two-qubit gates")
    convergence = _svg(convergence_figure(run), "convergence", "Best error against evaluations")
    parts.append(f"<div class='pair'>{_section('Pareto front', front)}{_section('Convergence', convergence)}</div>")
    if run.front:
        parts.append(_section("Error against two-qubit gates", _table(run)))
    fifths = by_fifths(run)
    if fifths:
        parts.append(_section("Episodes, by fifths of the evaluations", _episodes(fifths)))
    parts.append(_section("This run", _settings(run)))
    if run.front:
        qasm = _text(run.best.circuit.to_qasm())
        parts.append(
            f"<section><details><summary>Best circuit as OpenQASM 3</summary><pre>{qasm}</pre></details></section>"
        )
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _text(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _error(value: float) -> str:
    return f"{value + 0.0:.3g}".replace("-", "−")


def _suffix(problem: BaseProblem) -> str:
    """The unit as it stands behind the name of a quantity; empty where there is none."""
    unit = short_unit(problem.unit)
    return f" ({unit})" if unit else ""


def _heading(run: Run) -> str:
    noise = f"noise {_text(run.noise.name)}" if run.noise else "no noise"
    text = f"<h1>{_text(run.problem.name)}</h1>"
    if run.problem.description:
        text += f"<p>{_text(run.problem.description)}</p>"
    return text + (
        f"<p class='soft'>agent {_text(run.agent)}, {noise}, seed {run.seed}, {_text(run.status)} after "
        f"{run.seconds:,.1f} s</p>"
    )


def _numbers(run: Run) -> str:
    best, problem = run.best, run.problem
    unit = f" {short_unit(problem.unit)}".rstrip()
    assert problem.threshold is not None
    ratio = best.error / problem.threshold
    goal = f"{threshold_name(run)} {problem.threshold:.2g}{unit}"
    solved = ratio <= 1
    reached = f"below {goal}" if solved else f"{ratio:.3g} × {goal}"
    cells = [
        (f"{_error(best.error)}{unit}", _measured(run), reached, solved),
        (f"{best.energy:.6f}".replace("-", "−"), f"energy{_suffix(problem)}", f"exact {problem.exact:.6f}", False),
    ]
    if best.outcomes is not None:
        error, spread = (_error(value) for value in (problem.error(best.outcomes.mitigated), best.outcomes.sigma))
        cells.append((f"{error}{unit}", "error mitigated", f"± {spread}{unit}, {best.outcomes.by}", False))
    if run.noise:
        perfect = best.noise_free_error <= problem.threshold
        cells.append((f"{_error(best.noise_free_error)}{unit}", "error without noise", "same angles", perfect))
    two = best.two_qubit_gates
    cells += [
        (f"{best.gates} / {two}", "gates / two-qubit gates", f"depth {best.circuit.depth}", False),
        (f"{run.evaluations:,}", "evaluations", f"{run.architectures:,} architectures", False),
    ]
    inner = "".join(
        f"<div class='number{' good' if good else ''}'><span>{_text(label)}</span><b>{_text(value)}</b>"
        f"<span>{_text(below).replace('-', '−') if 'exact' in below else _text(below)}</span></div>"
        for value, label, below, good in cells
    )
    return f"<div class='numbers'>{inner}</div>"


def _measured(run: Run) -> str:
    """What the error of a circuit is called."""
    name = run.objective.partition(":")[0]
    return f"error, {name} score" if name != "noisy" else "error with noise" if run.noise else "error"


def _circuit(best: Result) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in best.counts.items())
    try:
        picture = _svg(best.circuit.draw("mpl"), "circuit", "The best circuit", natural_size=True)  # type: ignore[arg-type]
    except CircuitError:
        picture = f"<pre>{_text(best.circuit.draw())}</pre>"
    return f"<div class='wide'>{picture}</div><p class='soft'>{_text(counts)}; angles in radians</p>"


def _table(run: Run) -> str:
    suffix = _text(_suffix(run.problem))
    # What a circuit achieves comes first: on a narrow screen the last columns have to be scrolled to.
    judged = all(r.outcomes is not None for r in run.front)
    heads = ["two-qubit gates", f"error{suffix}", *([f"error, no noise{suffix}"] if run.noise else [])]
    if judged:
        heads[2:] = ["raw", "readout inverted", "mitigated", "no noise", "no noise, re-optimized"]
    heads += ["gates", "depth", *run.on_device(Circuit(run.problem.n_qubits)), "angles", f"energy{suffix}"]
    rows = []
    assert run.problem.threshold is not None
    for r in envelope(run.front):
        cells = [str(r.two_qubit_gates), _error(r.error), *([_error(r.noise_free_error)] if run.noise else [])]
        if judged:
            cells[2:] = _outcomes(r, run.problem)
        cells += [str(r.gates), str(r.circuit.depth), *run.on_device(r.circuit).values()]
        cells += [str(r.circuit.n_angles), f"{r.energy:.8f}".replace("-", "−")]
        good = " class='good'" if r.error <= run.problem.threshold else ""
        rows.append(f"<tr{good}>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    head = "".join(f"<th>{h}</th>" for h in heads)
    note = (
        f"<p class='soft'>Green: {_text(threshold_name(run))} reached. All {len(run.front)} circuits of the front, "
        "which also counts gates of every kind, are in <code>circuits.jsonl</code>.</p>"
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"


def _episodes(fifths: list[Fifth]) -> str:
    """Success by fifths, greedy tests apart."""
    head, *rows = told(fifths)
    cells = "".join("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>" for row in rows)
    heads = "".join(f"<th>{_text(name)}</th>" for name in head)
    return f"<div class='wide'><table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table></div>"


def _outcomes(result: Result, problem: BaseProblem) -> list[str]:
    """Errors of a circuit in all the ways that it is judged."""
    known = result.outcomes
    assert known is not None
    raw, readout, mitigated, again = (
        _error(problem.error(energy)) for energy in (known.noisy, known.readout, known.mitigated, known.reoptimized)
    )
    return [raw, readout, f"{mitigated} ± {_error(known.sigma)}", _error(result.noise_free_error), again]


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
    body = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in rows)
    if command:
        body += f"<tr><th>again</th><td><code>{_text(command)}</code></td></tr>"
    return f"<table class='settings'><tbody>{body}</tbody></table>"


def _coupling(run: Run) -> str:
    pairs = run.config.get("coupling") or (run.noise and run.noise.coupling and sorted(run.noise.coupling))
    return ", ".join(f"{a}-{b}" for a, b in pairs) if pairs else "all pairs"


def _svg(figure: Figure, name: str, label: str, *, natural_size: bool = False) -> str:
    """The figure as inline SVG: ids made unique by `name`, colours replaced by the page's variables."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name}):  # ids that are the same each time
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#|url\(#', lambda m: f"{m[0]}{name}-", text)
    for colour in _DARK:
        text = re.sub(rf"{colour}\b", f"var({_variable(colour)})", text)
    if not natural_size:
        text = re.sub(r'\b(width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f"<svg role='img' aria-label='{_text(label)}'", 1)


def run_to_json(run: Run) -> dict[str, Any]:
    """What other programs may want to know of a run, JSON-able; see `Run.front` and `Result.to_json`."""
    p = run.problem
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
        "episodes_by_fifths": [fifth.to_json() for fifth in by_fifths(run)],
    }
