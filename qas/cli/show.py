"""How results are shown on a terminal."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qas.circuits import Circuit
    from qas.evaluation import EvaluationReport
    from qas.hardware import Execution
    from qas.mitigation import MitigatedEnergy
    from qas.problems import BaseProblem
    from qas.runs import Result, Run


def answer(arguments: argparse.Namespace, data: Any, *lines: str) -> int:
    """Print what was found: for other programs if they asked for it, else for readers; returns the exit code."""
    from qas.files import to_json

    print(to_json(data, indent=1) if arguments.json else "\n".join(lines))
    return 0


def listing(known: Mapping[str, str], indent: str = "") -> list[str]:
    """Names with a line about each."""
    width = max(map(len, known), default=0)
    return [f"{indent}{name:{width}}  {about}" for name, about in known.items()]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under each other, ranged right; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}"


def quantity(value: float, unit: str) -> str:
    return f"{value + 0.0:.3g} {unit}".strip()


def drawing(circuit: Circuit, title: str) -> list[str]:
    from qas.drawing import draw_text

    counts = ", ".join(f"{count} {name}" for name, count in circuit.counts.items())
    size = f"{len(circuit)} gates" + (f" ({counts})" if counts else "") + f", depth {circuit.depth}"
    if circuit.lowering is not None:
        size += f"; decomposed {circuit.n_gates} gates, {circuit.two_qubit_gates} of them cx"
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, 160))
    return [f"{title}: {size}", "", draw_text(circuit, width)]


def judged(problem: BaseProblem, found: Result | EvaluationReport, measured: str, noise: Any) -> list[str]:
    """A circuit's energies under each other, and whether the threshold is reached.

    Args:
        problem: what the circuit is judged on.
        found: its energies.
        measured: how they were measured, if not exactly; else empty.
        noise: whether the device was noisy.
    """
    from qas.page import product_state, short_unit
    from qas.problems import CHEMICAL_ACCURACY

    rows = [("exact", problem.exact, 0.0), (f"this circuit{measured and ', '}{measured}", found.energy, found.error)]
    rows += [(f"this circuit, {name}", energy, problem.error(energy)) for name, energy in worth(found)]
    if measured:
        rows.append(("this circuit, noise-free", found.noise_free_energy, found.noise_free_error))
    product = product_state(problem)
    if product is not None:
        rows.append(("product state, noise-free" if noise else "product state", product, problem.error(product)))
    unit = short_unit(problem.unit)
    suffix = f" ({unit})" if unit else ""
    width = max(len(name) for name, *_ in rows)
    lines = [f"{'':{width}}  {'energy' + suffix:>18}  {'error' + suffix:>14}"]
    lines += [f"{name:{width}}  {energy:18.8f}  {part + 0.0:14.3g}" for name, energy, part in rows]
    threshold = problem.threshold
    assert threshold is not None
    goal = "chemical accuracy" if unit == "Ha" and threshold == CHEMICAL_ACCURACY else "threshold"
    ratio = found.error / threshold
    reached = "reached" if ratio <= 1 else f"not reached, the error is {ratio:.3g} times as large"
    known = getattr(found, "outcomes", None)
    if known is not None:
        lines.append(f"mitigated by {known.by}: ± {quantity(known.sigma, unit)} from its shots")
    return [*lines, f"{goal} ({quantity(threshold, unit)}): {reached}"]


def worth(found: Result | EvaluationReport) -> list[tuple[str, float]]:
    """What is known of a circuit beside its score and its noise-free energy: names and energies."""
    known = getattr(found, "outcomes", None)
    if known is None:
        return []
    named = {"noisy": known.noisy, "readout inverted": known.readout, "mitigated": known.mitigated}
    named = {name: energy for name, energy in named.items() if energy != found.energy}
    return [*named.items(), ("noise-free, angles again optimized", known.reoptimized)]


def mitigated(found: MitigatedEnergy, exact: float, unit: str) -> list[str]:
    """The energy after each step of mitigation."""
    suffix = f" ({unit})" if unit else ""
    rows = [["", f"energy{suffix}", f"error{suffix}", "standard error"]]
    for step in found.steps:
        spread = f"{step.standard_error:.3g}" if found.shots else "0"
        rows.append([step.name, f"{step.energy:.8f}", f"{step.energy - exact + 0.0:.3g}", spread])
    lines = [f"mitigation {found.recipe}", *table(rows)]
    if found.kept is not None:
        lines.append(f"in the right sector: {100 * found.kept:.1f} % of the runs")
    if found.shots:
        lines.append(f"{found.shots:,} shots in all, {found.settings} settings at each strength of the noise")
    return lines


def execution(found: Execution) -> list[str]:
    """Where a circuit was run, and what the transpiler made of it."""
    names = sorted({*found.before.counts, *found.after.counts})
    rows = [["", "as given", "as run"]]
    for name, of in (("depth", "depth"), ("two-qubit gates", "two_qubit_gates")):
        rows.append([name, *(str(getattr(shape, of)) for shape in (found.before, found.after))])
    rows += [[name, *(str(shape.counts.get(name, 0)) for shape in (found.before, found.after))] for name in names]
    times = [shape.duration for shape in (found.before, found.after)]
    rows.append(["duration", *("-" if time is None else f"{1e6 * time:.3g} µs" for time in times)])
    qubits = "-".join(map(str, found.qubits))
    return [f"{found.backend}, qubits {qubits}, transpile level {found.transpile_level}", *table(rows)]


# ---------------------------------------------------------------------- runs
def label(problem: str, agent: str, noise: Any, objective: str = "noisy") -> str:
    score = "" if objective == "noisy" else f", objective {objective}"
    return f"{problem}, agent {agent}, " + (f"noise {noise.name}" if noise else "no noise") + score


def heading(run: Run) -> list[str]:
    about = f"{run.problem.name}: {run.problem.description}" if run.problem.description else run.problem.name
    state = "still running, or killed," if run.status == "running" else run.status
    searched = label(run.problem.name, run.agent, run.noise, run.objective)
    return [
        about,
        f"{searched}, seed {run.seed}: {state} after {run.seconds:,.1f} s, "
        f"{run.evaluations:,} evaluations, {run.architectures:,} architectures",
        *([f"begun from {start['source']}"] if (start := run.config.get("start")) else []),
    ]


def described(run: Run, result: Result, title: str) -> list[str]:
    """One circuit of a run."""
    shots = run.config.get("evaluator", {}).get("shots")
    name = run.objective.partition(":")[0]
    measured = f"{name} score" if name != "noisy" else "noisy" if run.noise else "as measured" if shots else ""
    costs = run.on_device(result.circuit)
    lasts = [f"{costs['µs']} µs on the device, {costs['pulses']} pulses"] if costs else []
    return [*drawing(result.circuit, title), *lasts, "", *judged(run.problem, result, measured, run.noise)]


def front(run: Run, results: Sequence[Result]) -> list[str]:
    """One row for each circuit; the first column is its number for --circuit."""
    from qas.circuits import Circuit
    from qas.page import short_unit

    unit = short_unit(run.problem.unit)
    on_device = list(run.on_device(Circuit(run.problem.n_qubits)))
    judged = bool(results) and all(r.outcomes is not None for r in results)
    heads = ["raw", "readout", "mitigated", "sigma", "noise-free", "re-opt."] if judged else ["noise-free"]
    rows = [["#", "two-qubit", "gates", "depth", *on_device, f"error ({unit})" if unit else "error", *heads]]
    index = {id(r): k for k, r in enumerate(run.front)}
    for r in results:
        sizes = (index[id(r)], r.two_qubit_gates, r.gates, r.circuit.depth, *run.on_device(r.circuit).values())
        errors = [r.error, r.noise_free_error]
        if judged:
            errors[1:] = errors_of(r, run.problem)
        rows.append([*map(str, sizes), *(f"{error + 0.0:.3g}" for error in errors)])
    return table(rows if run.noise else [row[:-1] for row in rows])


def errors_of(result: Result, problem: BaseProblem) -> list[float]:
    """Errors raw, with readout inverted, mitigated, sigma, noise-free, and noise-free with other angles."""
    known = result.outcomes
    assert known is not None
    under_noise = [problem.error(energy) for energy in (known.noisy, known.readout, known.mitigated)]
    return [*under_noise, known.sigma, result.noise_free_error, problem.error(known.reoptimized)]


def summary(run: Run) -> list[str]:
    """All that a user wants to know after a search."""
    from qas.runs import envelope

    found = ["no circuit yet"]
    if run.front:
        found = [*described(run, run.best, "best circuit"), "", "front (error against two-qubit gates)"]
        found += front(run, envelope(run.front))
    remarks = [*run.remarks, *beside_atlas(run)]
    return [*heading(run), "", *found, "", *episodes(run), *remarks, *([""] if remarks else []), *places(run)]


def beside_atlas(run: Run) -> list[str]:
    """A line on how a run stands to the best known circuits, if any are known of its problem."""
    import shlex

    from qas.best_known import compare
    from qas.remote import address_of

    found = compare(run)
    if found is None:
        return []
    more = [f"offer it   qas atlas submit {shlex.quote(address_of(run.path))}"] if found.improves else []
    return [f"beside the atlas it {found.line}", *more]


def episodes(run: Run) -> list[str]:
    """Success by fifths of a run, if its agent plays episodes."""
    from qas.episodes import by_fifths, told

    fifths = by_fifths(run)
    return ["episodes, by fifths of the evaluations", *table(told(fifths)), ""] if fifths else []


def places(run: Run) -> list[str]:
    """Where everything is, and what to do next."""
    import shlex

    from qas.remote import address_of

    path = shlex.quote(address_of(run.path))
    lines = [f"run folder   {address_of(run.path)}"]
    if (run.path / "report.html").exists():
        lines.append(f"report       {address_of(run.path / 'report.html')}")
    budget, more = run.config["budget"], ""
    if run.status == "finished":
        name = next(k for k in ("seconds", "evaluations", "steps") if budget.get(k))
        more = f" --{name} {2 * budget[name]:g}" if name == "seconds" else f" --{name} {2 * budget[name]}"
    lines += [f"continue     qas search --resume {path}{more}", f"look again   qas inspect {path}"]
    return lines + ([f"cross-check  qas evaluate {path} --engine aer"] if run.problem.simulated else [])
