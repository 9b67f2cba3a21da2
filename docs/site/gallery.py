"""Pictures of published circuits, drawn from the files in ``results/``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qas
from qas.drawing import draw_figure
from qas.errors import CircuitError
from qas.page import DARK, GOOD, INK, MAIN, error_axis, escape, floored, new_figure, svg, variable

ROOT = Path(__file__).resolve().parents[2]
MOST_GATES = 150
"""Of a circuit that is drawn; of larger ones nothing can be seen."""


def colours() -> str:
    """CSS variables of `qas.page`, light and dark as the reader chose."""
    light = ";".join(f"{variable(c)}:{c}" for c in DARK)
    dark = ";".join(f"{variable(c)}:{d}" for c, d in DARK.items())
    return (
        f"<style>body{{{light}}}body[data-theme=dark]{{{dark}}}"
        f"@media(prefers-color-scheme:dark){{body:not([data-theme=light]){{{dark}}}}}</style>"
    )


def raw(html: str) -> str:
    """HTML that Markdown leaves as it is."""
    return f"````{{raw}} html\n{html}\n````\n"


def picture(circuit: qas.Circuit, name: str, label: str) -> str:
    """A circuit as inline SVG in a box that scrolls; a line where it is too long."""
    try:
        if len(circuit) > MOST_GATES:
            raise CircuitError("too long")
        drawn = svg(draw_figure(circuit), name, label, natural_size=True)
    except CircuitError:
        return f"<p class='soft'>{len(circuit)} gates: too many for a picture.</p>"
    return f"<div class='drawn circuit'>{drawn}</div>"


def _counts(circuit: qas.Circuit) -> str:
    return ", ".join(f"{count} {gate}" for gate, count in circuit.counts.items())


def _front_picture(problem: qas.Problem, circuits: list[dict[str, Any]], chosen: dict[str, Any], name: str) -> str:
    figure, axes = new_figure(None)
    errors = floored(c["error"] for c in circuits)
    axes.plot([c["cnots"] for c in circuits], errors, "o-", color=MAIN, markersize=4, linewidth=1.2)
    axes.plot([chosen["cnots"]], floored([chosen["error"]]), "o", color=GOOD, markersize=9)
    axes.set_xlabel("CNOTs", color=INK)
    error_axis(axes, problem, errors, lowest=None)
    figure.tight_layout()
    return f"<div class='drawn front'>{svg(figure, name, f'Front of {problem.name}')}</div>"


def _front(folder: Path) -> Iterator[str]:
    problem = qas.load_problem(str(folder / "problem.json"))
    circuits = json.loads((folder / "front.json").read_text())["circuits"]
    accurate = [c for c in circuits if c["error"] <= problem.threshold]
    chosen = min(accurate, key=lambda c: (c["cnots"], c["error"])) if accurate else circuits[-1]
    circuit = qas.Circuit.from_qasm((folder / chosen["file"]).read_text())
    name = folder.name.replace(".", "-")
    yield f"## {folder.name}\n"
    yield f"{problem.description}. "
    energies = problem.unit == "hartree"
    limit = f"within {1e3 * problem.threshold:g} mHa" if energies else f"at an infidelity below {problem.threshold:g}"
    error = (
        f"error {1e3 * chosen['error']:.2f} mHa"
        if energies
        else f"infidelity {floored([chosen['error']])[0]:.0e} or less"
    )
    reached = limit if accurate else "the best one"
    yield (
        f"Fewest CNOTs {reached}: **{chosen['cnots']} CNOTs**, CNOT depth {chosen['cnot_depth']}, "
        f"{chosen['parameters']} angles, {error}; {len(circuits)} circuit{'s' * (len(circuits) > 1)} in "
        f"[front.json](../{(folder / 'front.json').relative_to(ROOT)}), this one in "
        f"[{chosen['file']}](../{(folder / chosen['file']).relative_to(ROOT)}).\n"
    )
    front = _front_picture(problem, circuits, chosen, f"front-{name}")
    drawn = picture(circuit, f"circuit-{name}", f"{chosen['cnots']} CNOTs for {folder.name}")
    yield raw(f"{front}{drawn}<p class='soft'>{escape(_counts(circuit))}</p>")


def fronts(_: str) -> str:
    """A section for every published front, by name."""
    folders = sorted((path.parent for path in ROOT.glob("results/*/*/front.json")), key=lambda f: f.name)
    return "\n".join([raw(colours()), *("\n".join(_front(folder)) for folder in folders)])


def others(_: str) -> str:
    """Single circuits that stand beside a table of results."""
    parts = []
    for path in sorted(ROOT.glob("results/*/*.qasm")):
        circuit = qas.Circuit.from_qasm(path.read_text())
        place = path.relative_to(ROOT)
        parts.append(f"[{place}](../{place}), {circuit.n_qubits} qubits: {_counts(circuit)}.\n")
        parts.append(raw(picture(circuit, f"single-{path.parent.name}", str(place))))
    return "\n".join(parts)
