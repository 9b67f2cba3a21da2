"""Building blocks of pages and their figures: self-contained, for light and dark, for wide and narrow screens.

Figures are made without pyplot, so nothing global changes. In a page their colours become CSS variables, which lets
one drawing serve light and dark.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from qas.circuits import Circuit
from qas.drawing import draw_figure, draw_text, plain
from qas.errors import CircuitError, QasError
from qas.problems import CHEMICAL_ACCURACY, BaseProblem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FLOOR = 1e-12
"""Errors below this, rounding and negative values included, are drawn at it: a logarithmic axis has no zero."""

UNITS = {"hartree": "Ha"}
INK, SOFT, GRID, PAPER = "#1f2933", "#7b8794", "#e4e7eb", "#ffffff"
MAIN, SECOND, GOOD = "#2460a7", "#c2571a", "#2d7d46"
THIRD = "#6b429f"
COLOURS = (MAIN, SECOND, THIRD, "#0f7f8c", "#b0357f", "#a9780b", "#b23a2e", "#52606d")
"""Of curves that are compared; green is the threshold."""


def short_unit(unit: str) -> str:
    """The unit as written after a number."""
    return UNITS.get(unit, unit)


def product_state(problem: BaseProblem) -> float | None:
    """What one-qubit gates reach; None where that has no meaning for the problem, or is too large to compute."""
    try:
        return problem.product_state
    except QasError:
        return None


def threshold_name(problem: BaseProblem) -> str:
    """What reaching the problem's threshold is called."""
    chemical = problem.unit == "hartree" and problem.threshold == CHEMICAL_ACCURACY
    return "chemical accuracy" if chemical else "threshold"


# ---------------------------------------------------------------------- figures
def floored(values: Iterable[float]) -> list[float]:
    return [max(float(v), FLOOR) for v in values]


_WIDTH, _PLOT = 4.8, 3.1
"""Inches: a width at which text can be read where a telephone shrinks it, and the height of axes."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _LINE = 0.82, 0.22, 0.34, 0.56, 0.175
"""Inches around the axes, and of a line of the legend."""
_LONGEST_LABEL = 58
"""Characters of a line of the legend."""


def new_figure(title: str | None) -> tuple[Figure, Axes]:
    """A figure with empty axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _PLOT + _TOP + _BOTTOM), facecolor=PAPER)
    axes = figure.add_subplot(facecolor=PAPER)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT)
    axes.tick_params(which="both", colors=INK)
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(plain(title), loc="left", color=INK, fontsize=12, fontweight="bold")
    return figure, axes


def logarithmic(axis: Axis, low: float, high: float) -> None:
    """Make an axis of positive numbers logarithmic, with labels in plain letters.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        low, high: its ends.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    (axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim)(low, high)
    narrow = high < 60 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: _power(value))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """A number of a logarithmic axis, such as 0.02 or 5·10⁻⁶."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    digits, _, power = f"{value:.0e}".partition("e")
    raised = f"10{int(power)}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))[2:]
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def error_axis(axes: Axes, problem: BaseProblem, drawn: Sequence[float], *, lowest: float | None) -> None:
    """Logarithmic error axis with the threshold and, if it is above the exact value, the best product state."""
    axes.set_ylabel(plain(f"error{unit_suffix(problem)}"), color=INK)
    assert problem.threshold is not None
    lines = [(problem.threshold, threshold_name(problem), GOOD, (0, (5, 3)))]
    product = product_state(problem)
    if product is not None:
        lines.append((problem.error(product), "product state, no noise", SOFT, (0, (1, 2))))
    lines = [line for line in lines if line[0] > FLOOR]
    for value, label, colour, dashes in lines:
        axes.axhline(value, color=colour, linewidth=1.3, linestyle=dashes, zorder=1.5, label=f"{label} ({value:.2g})")
    values = [*drawn, *(value for value, *_ in lines)] or [FLOOR]
    logarithmic(axes.yaxis, min(values) / 2.5, max(values) * 2.5)
    if lowest is not None and lowest < FLOOR:
        # Above the axes, where no legend can come to lie on it.
        note = f"errors below {FLOOR:.0e} are drawn there"
        axes.text(1.0, 1.01, note, transform=axes.transAxes, fontsize=8, color=SOFT, ha="right", va="bottom")


def legend(figure: Figure) -> None:
    """Below the axes: inside it would cover a point or its label. The last thing that is done to a figure."""
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    below = _BOTTOM + _LINE * len(labels) + 0.08
    height = _PLOT + _TOP + below
    figure.set_size_inches(_WIDTH, height)
    axes.set_position((_LEFT / _WIDTH, below / height, 1 - (_LEFT + _RIGHT) / _WIDTH, _PLOT / height))
    cut = (label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…" for label in labels)
    short = [plain(label) for label in cut]
    if labels:
        figure.legend(
            handles, short, loc="lower left", bbox_to_anchor=(0.0, 0.0), fontsize=8.5, frameon=False, labelcolor=INK,
            labelspacing=0.3, borderpad=0.3,
        )  # fmt: skip


# ---------------------------------------------------------------------- page
DARK = {
    INK: "#e4e9ef", SOFT: "#8d99a8", GRID: "#2b333f", PAPER: "#171c24", MAIN: "#79b0f2", SECOND: "#f0935a",
    GOOD: "#6fc98a", "#16324f": "#a9c4e4", "#fbe3e0": "#4d2723", "#b23a2e": "#e58176", "#e1f1e4": "#1f3d28",
    "#dfeaf8": "#1e3552", "#fdf1d2": "#46380f", "#a9780b": "#d9ab45", "#ece4f6": "#38294c", "#6b429f": "#b591e4",
    "#0f7f8c": "#5cc5d0", "#b0357f": "#ee8dc6", "#52606d": "#9fb0c0",
}  # fmt: skip
"""Colours of the figures -> what they become on a dark page."""


def variable(colour: str) -> str:
    return f"--c{colour[1:]}"


STYLE = """
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


def escape(value: Any) -> str:
    return html.escape(str(value))


def page(title: str, parts: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page of HTML.

    Args:
        title: of the window.
        parts: what stands in the body, as HTML.
        style: CSS beside that of every page.
        script: JavaScript that runs when the body is there.
    """
    colours = {
        "light": ";".join(f"{variable(c)}:{c}" for c in DARK),
        "dark": ";".join(f"{variable(light)}:{dark}" for light, dark in DARK.items()),
    }
    return "\n".join(
        [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width,initial-scale=1'>",
            f"<title>{escape(title)}</title><style>{STYLE % colours}{style}</style></head><body><main>",
            *parts,
            "</main>" + (f"<script>{script}</script>" if script else "") + "</body></html>\n",
        ]
    )


def drawn_circuit(circuit: Circuit, name: str, label: str) -> str:
    """A circuit as HTML: its picture, or text where it is too long for one, and its gates counted."""
    counts = ", ".join(f"{count} {gate}" for gate, count in circuit.counts.items())
    try:
        picture = svg(draw_figure(circuit), name, label, natural_size=True)
    except CircuitError:
        picture = f"<pre>{escape(draw_text(circuit))}</pre>"
    return f"<div class='wide'>{picture}</div><p class='soft'>{escape(counts)}; angles in radians</p>"


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def digits(value: float) -> str:
    return f"{value + 0.0:.3g}".replace("-", "−")


def unit_suffix(problem: BaseProblem) -> str:
    """The unit as it stands behind the name of a quantity; empty where there is none."""
    unit = short_unit(problem.unit)
    return f" ({unit})" if unit else ""


def svg(figure: Figure, name: str, label: str, *, natural_size: bool = False, letters: bool = False) -> str:
    """The figure as inline SVG: ids made unique by `name`, colours replaced by the page's variables.

    With `letters` its text is text of the page, in the reader's own font, which takes less space than outlines.
    """
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none" if letters else "path"}):  # ids the same each time
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#|url\(#', lambda m: f"{m[0]}{name}-", text)
    text = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    for colour in DARK:
        text = re.sub(rf"{colour}\b", f"var({variable(colour)})", text)
    if not natural_size:
        text = re.sub(r'\b(width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f"<svg role='img' aria-label='{escape(label)}'", 1)
