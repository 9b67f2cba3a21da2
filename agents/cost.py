"""Before a search starts: kernels compiled, and what an evaluation costs here."""

from __future__ import annotations

import time
from itertools import repeat

import numpy as np

from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.meter import Budget
from qas.optimizers import MOST_TOGETHER
from qas.vqe import Evaluator

_REPEATS = 5
_LONGEST = 0.1


def short_circuit(alphabet: Alphabet) -> Circuit:
    """One gate of each kind, on as few qubits as they fit: enough to compile all kernels, cheap on any register."""
    first = {gate.name: gate for gate in reversed(alphabet.placed)}
    by_size: list[Gate] = sorted(first.values(), key=lambda gate: len(gate.qubits))
    return Circuit(alphabet.n_qubits, by_size)


def warm_up(evaluator: Evaluator, circuit: Circuit) -> None:
    """Compile the kernels, and refuse a register or settings that do not fit; counts as no evaluations."""
    rng = np.random.default_rng(0)
    evaluator.evaluate(circuit, rng, max_evaluations=2)
    if evaluator.workers() > 1:
        jobs = evaluator.jobs([circuit] * MOST_TOGETHER, rng, repeat(None), lambda: 2, False)
        evaluator.optimize_together(list(jobs))


def cost_line(evaluator: Evaluator, circuit: Circuit, budget: Budget) -> str:
    """What an evaluation of a short circuit costs on this machine, and what the budget allows, in one line.

    Measured for a tenth of a second, or by one evaluation if that takes longer.
    """
    shortest, spent = np.inf, 0.0
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        found = evaluator.evaluate(circuit, np.random.default_rng(0), max_evaluations=2)
        taken = time.perf_counter() - begin
        shortest, spent = min(shortest, taken / found.evaluations), spent + taken
        if spent > _LONGEST:
            break
    gates = f"{len(circuit)} gate{'s' if len(circuit) > 1 else ''}"
    return f"an evaluation of {gates} takes about {_time(shortest)} here: {_allowance(shortest, budget, evaluator)}"


def _allowance(cost: float, budget: Budget, evaluator: Evaluator) -> str:
    said = []
    if budget.seconds is not None:
        said.append(f"{budget.seconds:g} s allow at most about {_round(budget.seconds / cost)}")
    if budget.evaluations is not None:
        said.append(f"{budget.evaluations:,} take at least about {_time(cost * budget.evaluations)}")
    if budget.steps is not None:
        most = evaluator.max_evaluations
        said.append(
            f"{budget.steps:,} architectures of up to {most} evaluations take up to {_round(budget.steps * most)}"
        )
    return ", ".join(said) + "; longer circuits cost more"


def _time(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def _round(count: float) -> str:
    """Two figures."""
    return f"{float(f'{max(1.0, count):.2g}'):,.0f}"
