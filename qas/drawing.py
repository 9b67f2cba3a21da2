"""Circuits as text for the terminal and as matplotlib figures for papers and reports. Qubit 0 is drawn at the top."""

from __future__ import annotations

import io
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qas.circuits import Circuit, Gate
from qas.errors import CircuitError, QasError, RunError
from qas.files import write_atomic
from qas.gates import gate_spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDS = {"cx": ("●", "⊕"), "cz": ("●", "●"), "swap": ("×", "×")}
_LABELS = {"sdg": "S†", "tdg": "T†", "sx": "√X", "single_excitation": "SE", "double_excitation": "DE"}
_LABELS |= {"ovp_ceo": "CEO", "mvp_ceo": "CEO"}
_PLACES = {2: "ia", 4: "ijab"}
"""What the qubits of an excitation are called: from i and j to a and b."""


def _label(gate: Gate) -> str:
    return _LABELS.get(gate.name, gate.name.upper())


def _boxes(gate: Gate) -> list[tuple[str, str]]:
    """(label, angles) of the box on each of a gate's qubits; an excitation has its angles in the first one."""
    label, angles = _label(gate), _angles(gate)
    if gate_spec(gate.name).exchanges:
        return [(f"{label} {c}", "" if k else angles) for k, c in enumerate(_PLACES[len(gate.qubits)])]
    return [(label, angles)] * len(gate.qubits)


def _angle(value: float) -> str:
    """Three significant digits with a true minus sign; no negative zero."""
    return f"{value + 0.0:.3g}".replace("-", "−")


def _angles(gate: Gate) -> str:
    return ", ".join(map(_angle, gate.angles))


def _columns(circuit: Circuit) -> list[list[Gate]]:
    """Layers of the circuit, split so that no two gates of one column share or cross a wire."""
    layers: list[list[list[Gate]]] = [[] for _ in range(1 + max(circuit.moments, default=-1))]
    for layer, gate in zip(circuit.moments, circuit.gates, strict=True):
        low, high = min(gate.qubits), max(gate.qubits)
        for column in layers[layer]:
            if all(high < min(other.qubits) or low > max(other.qubits) for other in column):
                column.append(gate)
                break
        else:
            layers[layer].append([gate])
    return [column for layer in layers for column in layer]


# ---------------------------------------------------------------------- text
def draw_text(circuit: Circuit, width: int = 100) -> str:
    """Unicode drawing with one row for each qubit and rows between them for vertical lines.

    Angles are in radians to 3 significant digits. Circuits wider than `width` characters continue in further blocks,
    marked » and «; a single gate is never split, so a block can be wider than a very small `width`.
    """
    n = circuit.n_qubits
    names = [f"q{q}: " for q in range(n)]
    indent = max(map(len, names))
    names = [name.rjust(indent) for name in names]
    blocks: list[list[list[str]]] = [[]]
    used = indent
    for column in (_text_column(gates, n) for gates in _columns(circuit)):
        size = len(column[0]) + 1
        if blocks[-1] and used + size + 4 > width:
            blocks.append([])
            used = indent
        blocks[-1].append(column)
        used += size
    spaced = any(len(gate.qubits) > 1 for gate in circuit)
    drawn = []
    for i, block in enumerate(blocks):
        left = "«─" if i else "──"
        right = "──»" if i < len(blocks) - 1 else "──"
        rows = []
        for row in range(0, 2 * n - 1, 1 if spaced else 2):
            if row % 2 == 0:
                rows.append(names[row // 2] + left + "─".join(c[row] for c in block) + right)
            else:
                rows.append((" " * (indent + 2) + " ".join(c[row] for c in block)).rstrip())
        drawn.append("\n".join(rows))
    return "\n\n".join(drawn)


def _text_column(gates: list[Gate], n_qubits: int) -> list[str]:
    """The 2n - 1 rows (wires and the spaces between them) of one column, all of the same length."""
    cells: dict[int, str] = {}
    crossed: set[int] = set()
    for gate in gates:
        texts = [f"[{label}({angles})]" if angles else f"[{label}]" for label, angles in _boxes(gate)]
        cells |= {2 * q: text for q, text in zip(gate.qubits, _ENDS.get(gate.name, texts), strict=True)}
        crossed |= set(range(2 * min(gate.qubits) + 1, 2 * max(gate.qubits)))
    width = max(map(len, cells.values()))
    rows = []
    for row in range(2 * n_qubits - 1):
        fill = " " if row % 2 else "─"
        line = ("│" if row % 2 else "┼") if row in crossed else fill
        text = cells.get(row, line)
        # The centre of every cell falls on the same character, so that vertical lines meet it.
        before = (width - 1) // 2 - (len(text) - 1) // 2
        rows.append(fill * before + text + fill * (width - before - len(text)))
    return rows


# ---------------------------------------------------------------------- figure
@dataclass(frozen=True)
class _Colour:
    face: str
    edge: str


_COLOURS = {
    "X": _Colour("#fbe3e0", "#b23a2e"),
    "Y": _Colour("#e1f1e4", "#2d7d46"),
    "Z": _Colour("#dfeaf8", "#2460a7"),
    "H": _Colour("#fdf1d2", "#a9780b"),
    "U": _Colour("#ece4f6", "#6b429f"),
}
_KIND = {"x": "X", "sx": "X", "y": "Y", "h": "H", "u": "U"}
_INK = "#1f2933"
_WIRE = "#7b8794"
_LINK = "#16324f"

_LONGEST_TEXT = 200


def plain(text: str) -> str:
    """Text of others for a picture: as it is, whatever matplotlib would read as a formula, on one line."""
    line = " ".join(text.split())[:_LONGEST_TEXT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line).replace("$", r"\$")


_MATH = {"S†": r"$\mathrm{S}^\dagger$", "T†": r"$\mathrm{T}^\dagger$", "√X": r"$\sqrt{\mathrm{X}}$"}

_BOX = 0.62
"""Height of a gate box; all lengths of the figure are in units of the distance between two wires."""
_UNIT = 0.62
"""Inches of one unit."""
_GAP = 0.2
_ROW_WIDTH = 17.0
_MAX_HEIGHT = 300.0
"""Inches; beyond it raster formats exceed what they can hold."""


def _colour(gate: Gate) -> _Colour:
    if gate_spec(gate.name).exchanges:
        return _COLOURS["U"]
    axis = gate_spec(gate.name).axis
    return _COLOURS[axis[0] if axis else _KIND.get(gate.name, "Z")]


def _box_width(gate: Gate) -> float:
    """Width of the box that `gate` needs, in units."""
    if gate.name in _ENDS:
        return 0.4
    boxes = _boxes(gate)
    least = max(_BOX, 0.3 + 0.13 * len(boxes[0][0])) if gate_spec(gate.name).exchanges else _BOX
    return max(least, 0.86, 0.24 + 0.105 * len(boxes[0][1])) if gate.angles else least


def _rows_of_columns(circuit: Circuit) -> list[list[tuple[float, float, list[Gate]]]]:
    """Columns placed from left to right as (centre, width, gates) and broken into rows, in units."""
    rows: list[list[tuple[float, float, list[Gate]]]] = [[]]
    right = _GAP
    for gates in _columns(circuit):
        width = max(map(_box_width, gates))
        if rows[-1] and right + width > _ROW_WIDTH:
            rows.append([])
            right = _GAP
        rows[-1].append((right + width / 2, width, gates))
        right += width + _GAP
    return rows


def draw_figure(circuit: Circuit, title: str | None = None) -> Figure:
    """The circuit as a matplotlib `Figure`, free of pyplot's global state.

    Boxes are coloured by axis (X red, Y green, Z blue), angles are in radians to 3 significant digits, and long
    circuits continue in further rows.

    Raises:
        CircuitError: the circuit is too long for one figure.
    """
    from matplotlib.figure import Figure

    rows = _rows_of_columns(circuit)
    length = max((row[-1][0] + row[-1][1] / 2 for row in rows if row), default=1.0) + _GAP
    pitch = circuit.n_qubits + 0.55
    height = len(rows) * pitch - 0.55
    title = plain(title or "")
    head = 0.65 if title else 0.0
    size = ((length + 1.0) * _UNIT, (height + head + 0.1) * _UNIT)
    if size[1] > _MAX_HEIGHT:
        raise CircuitError(f"a circuit of {len(circuit)} gates is too long for a figure; draw it as text")
    # A short circuit still needs room for its title.
    shown_width = max(size[0], 0.085 * len(title) + 0.4 if title else 0.0)
    figure = Figure(figsize=(shown_width, size[1]), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, size[0] / shown_width, 1.0))
    axes.set_xlim(-0.75, length + 0.25)
    axes.set_ylim(-(height - 0.45), 0.55 + head)
    axes.set_axis_off()
    if title:
        axes.text(-0.62, 0.5 + head / 2, title, fontsize=12, fontweight="bold", color=_INK, va="center")
    for i, row in enumerate(rows):
        top = -i * pitch
        end = length if i < len(rows) - 1 or not row else row[-1][0] + row[-1][1] / 2 + _GAP
        _draw_wires(axes, circuit.n_qubits, top, end, starts=i == 0, ends=i == len(rows) - 1)
        for x, _, gates in row:
            for gate in gates:
                _draw_gate(axes, gate, x, top)
    return figure


def _draw_wires(axes: Axes, n_qubits: int, top: float, end: float, *, starts: bool, ends: bool) -> None:
    for q in range(n_qubits):
        y = top - q
        axes.text(-0.16, y, f"$q_{{{q}}}$", fontsize=11, color=_INK, ha="right", va="center")
        axes.plot([0.0, end], [y, y], color=_WIRE, linewidth=1.0, zorder=1, solid_capstyle="butt")
        if not ends:
            axes.plot([end, end + 0.2], [y, y], color=_WIRE, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1)
        if not starts:
            axes.plot([-0.12, 0.0], [y, y], color=_WIRE, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1)


def _draw_gate(axes: Axes, gate: Gate, x: float, top: float) -> None:
    ys = [top - q for q in gate.qubits]
    if len(ys) > 1:
        ink = _LINK if gate.name in _ENDS else _colour(gate).edge
        axes.plot([x, x], [min(ys), max(ys)], color=ink, linewidth=1.6, zorder=2, solid_capstyle="butt")
    for y, end, box in zip(ys, _ENDS.get(gate.name, ("box",) * len(ys)), _boxes(gate), strict=True):
        if end == "box":
            _draw_box(axes, gate, x, y, *box)
        else:
            _draw_end(axes, end, x, y)


def _draw_end(axes: Axes, end: str, x: float, y: float) -> None:
    from matplotlib.patches import Circle

    if end == "●":
        axes.add_patch(Circle((x, y), 0.095, facecolor=_LINK, edgecolor="none", zorder=4))
    elif end == "⊕":
        r = 0.2
        axes.add_patch(Circle((x, y), r, facecolor="white", edgecolor=_LINK, linewidth=1.6, zorder=3))
        axes.plot([x - r, x + r], [y, y], color=_LINK, linewidth=1.6, zorder=4, solid_capstyle="butt")
        axes.plot([x, x], [y - r, y + r], color=_LINK, linewidth=1.6, zorder=4, solid_capstyle="butt")
    else:
        r = 0.13
        for sign in (-1, 1):
            axes.plot([x - r, x + r], [y - sign * r, y + sign * r], color=_LINK, linewidth=1.8, zorder=4)


def _draw_box(axes: Axes, gate: Gate, x: float, y: float, base: str, angles: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = _colour(gate)
    width = _box_width(gate)
    corner = (x - width / 2, y - _BOX / 2)
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch(
            corner, width, _BOX, boxstyle=style, facecolor=colour.face, edgecolor=colour.edge, linewidth=1.1, zorder=3
        )
    )
    style_of_text: dict[str, Any] = {"color": _INK, "ha": "center", "va": "center", "zorder": 5}
    text = f"$\\mathrm{{{base[0]}}}_{{\\mathrm{{{base[1:]}}}}}$" if gate_spec(gate.name).axis else base
    text = _MATH.get(base, text)
    if angles:
        axes.text(x, y + 0.115, text, fontsize=10.5, **style_of_text)
        axes.text(x, y - 0.165, angles, fontsize=7, **style_of_text)
    else:
        axes.text(x, y, text, fontsize=11.5, **style_of_text)


# ---------------------------------------------------------------------- LaTeX
_TEX = {"S†": r"S^\dagger", "T†": r"T^\dagger", "√X": r"\sqrt{X}"}
_TEX_STARTS = {r"\control{}": r"\ctrl", r"\targX{}": r"\swap"}
_TEX_ENDS = {"●": r"\control{}", "⊕": r"\targ{}", "×": r"\targX{}"}


def draw_latex(circuit: Circuit) -> str:
    """A LaTeX document that compiles by itself; its ``quantikz`` environments can be copied into a paper.

    Angles are in radians to 3 significant digits; a long circuit continues in further environments.
    """
    blocks = []
    for row in _rows_of_columns(circuit):
        cells = [[rf"\lstick{{$q_{{{q}}}$}}"] for q in range(circuit.n_qubits)]
        for _, _, gates in row:
            column = {q: text for gate in gates for q, text in _latex_cells(gate).items()}
            for q, wire in enumerate(cells):
                wire.append(column.get(q, r"\qw"))
        lines = [" & ".join([*wire, r"\qw"]) for wire in cells]
        blocks.append("\\begin{quantikz}\n" + " \\\\\n".join(lines) + "\n\\end{quantikz}\n")
    return (
        "\\documentclass[border=4pt,varwidth=100cm]{standalone}\n"
        "\\usepackage{amsmath,tikz}\n\\usetikzlibrary{quantikz}\n"
        "\\begin{document}\n" + "\n\\medskip\n".join(blocks) + "\\end{document}\n"
    )


def _latex_cells(gate: Gate) -> dict[int, str]:
    """What stands on each wire of a gate; the upper one carries the line between them."""
    angles = ", ".join(map(_latex_angle, gate.angles))
    ends = [_TEX_ENDS[end] for end in _ENDS[gate.name]] if gate.name in _ENDS else []
    for base, shown in () if ends else _boxes(gate):
        name = f"{base[0]}_{{{base[1:]}}}" if gate_spec(gate.name).axis and len(base) > 1 else _TEX.get(base, base)
        name = rf"\text{{{base}}}" if gate_spec(gate.name).exchanges else name
        ends.append(rf"\gate{{{name}({angles})}}" if shown else rf"\gate{{{name}}}")
    cells = dict(zip(gate.qubits, ends, strict=True))
    wires = sorted(cells)
    for upper, lower in itertools.pairwise(wires):
        start = cells[upper]
        cells[upper] = _TEX_STARTS.get(start, rf"{start}\vqw") + f"{{{lower - upper}}}"
    return cells


def _latex_angle(value: float) -> str:
    digits, _, power = f"{value + 0.0:.3g}".partition("e")
    return rf"{digits} \cdot 10^{{{int(power)}}}" if power else digits


# ---------------------------------------------------------------------- files
FIGURES = (".png", ".svg", ".pdf")
"""Ends of names of pictures."""


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as .png, .svg or .pdf; the file appears complete or not at all.

    Raises:
        QasError: another suffix.
        RunError: a folder that does not exist or cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FIGURES:
        raise QasError(f"a figure is saved as .png, .svg or .pdf, got {path.name!r}")
    check_folder(path)
    dpi = min(200.0, 60_000 / max(figure.get_size_inches()))  # a PNG has at most 65,536 pixels a side
    stream = io.BytesIO()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(stream, format=kind[1:], dpi=dpi, metadata=undated)
    write_atomic(path, stream.getvalue())


def check_folder(path: Path) -> None:
    """Refuse a file in a folder that does not exist.

    Raises:
        RunError: it does not.
    """
    if not path.parent.is_dir():
        raise RunError(f"the folder {path.parent} does not exist")
