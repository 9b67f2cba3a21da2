"""The command line: torn words, sizes beyond any machine, odd texts in pictures and pages."""

# ruff: noqa: E501 - lists of inputs

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from folders import finished, home
from values import RAW, Rng, pick

import qas
from qas.cli import main
from qas.drawing import save_figure
from qas.page import error_axis, legend, new_figure

SIZES = [
    "1000000",
    "1000000000",
    "10000000000000000000",
    "9" * 30,
    "-1",
    "0",
    "1e9",
    "nan",
    "inf",
    "",
    "a",
    "2",
    "3",
    "1_0",
]
HUGE = SIZES[1:4]
WORDS = [
    "[[[" * 5000, "1e400", "\x00", "é", "$(x)", "-", "--", "=", "a=", "=b", "policy=a", "x=[[[", "--json", "h2-2", "nothing", "../..", "/dev/zero", "/",
    "n_steps=1000000000", "memory=1000000000", "pool_size=1000000000", "layers=100000", "hidden=[1000000000]", "envs=1000000000", "width=-1", "{}",
]  # fmt: skip


def _called(words: list[str]) -> Any:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    told = [line for line in err.getvalue().splitlines() if line.startswith("qas: error:")]
    assert code in (0, 2), f"exit code {code}"
    assert "Traceback" not in err.getvalue() and (code == 0) == (not told) and len(told) <= 1, err.getvalue()
    if code == 2:
        raise qas.errors.QasError(told[0])
    return out.getvalue().count("nan")


def sizes(rng: Rng) -> Any:
    """Sizes that no machine has, and none at all."""
    out = tempfile.mkdtemp(dir=home())
    size, huge = pick(rng, SIZES), pick(rng, HUGE)
    search = ["search", "h2-2", "--quiet", "--no-report", "--out", out]
    calls = [
        [*search, "--agent", pick(rng, ["random", "evolution", "ddqn"]), "--steps", "2", "--max-gates", pick(rng, ["1000000", huge])],
        [*search, "--agent", "ddqn", "--steps", "2", "-o", f"{pick(rng, ['memory', 'n_step', 'envs', 'batch_size', 'updates'])}={huge}"],
        [*search, "--agent", "sb3", "--steps", "2", "-o", f'settings={{"n_steps": {huge}}}'],
        [*search, "--agent", "sb3", "--steps", "2", "-o", "algorithm=DQN", "-o", f'settings={{"buffer_size": {huge}}}'],
        ["search", "lih-4", "--quiet", "--no-report", "--out", out, "--agent", "knn", "--steps", "2", "-o", f"pool_size={huge}"],
        [*search, "--agent", "random", "--steps", size, "--evaluations", "3"],
        [*search, "--agent", "random", "--evaluations", "3", "--seed", size],
        [*search, "--agent", "random", "--evaluations", "3", "--shots", size],
        [*search, "--agent", "random", "--evaluations", "3", "--evaluator", f"{pick(rng, ['max_evaluations', 'workers', 'tolerance'])}={size}"],
        ["pool", "build", "--quiet", "--qubits", "2", "--gates", "3", "--size", huge, "--out", out],
        ["pool", "build", "--quiet", "--qubits", "2", "--gates", pick(rng, ["1000000", huge]), "--size", "10", "--out", out],
        ["pool", "build", "--quiet", "--qubits", "2", "--gates", "3", "--task", "tfim-2", "--starts", huge, "--out", out],
        ["pool", "build", "--quiet", "--qubits", pick(rng, HUGE), "--gates", "3", "--size", "10", "--out", out],
        ["backbone", "train", "digits-tiny", "--quiet", "--examples", huge, "--out", out],
        ["finetune", "--task", "digits", "--method", "quantum-peft", "--layers", pick(rng, ["100000", huge]), "--quiet", "--out", out],
        ["evaluate", str(finished("random")), "--shots", size],
    ]  # fmt: skip
    return _called(pick(rng, calls))


def words(rng: Rng) -> Any:
    """Commands whose words are torn."""
    run = str(finished("random"))
    calls = [
        ["search", "h2-2", "--quiet", "--no-report", "--steps", "2", "--agent", "random", "--out", tempfile.mkdtemp(dir=home())],
        ["inspect", run], ["inspect", run, "--json"], ["evaluate", run], ["problems"], ["agents"], ["noise"], ["devices"], ["pool", "show", run],
        ["policy", "show", run], ["report", run, "--out", str(home() / "page.html")], ["search", "--resume", run], ["encoder", "list"],
        ["backbone", "list"], ["campaign", run], ["shrink", run, "--quiet"],
    ]  # fmt: skip
    call = list(pick(rng, calls))
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(1, len(call) + 1))
        act = rng.random()
        if act < 0.4 and at < len(call):
            call[at] = pick(rng, WORDS + RAW)
        elif act < 0.5 and at < len(call):
            del call[at]
        elif act < 0.8:
            call[at:at] = ["-o", pick(rng, WORDS)] if call[0] == "search" else [pick(rng, WORDS)]
        else:
            call[at:at] = [
                pick(rng, ["--seed", "--out", "--noise", "--gates", "--coupling", "--target", "--seconds"]),
                pick(rng, WORDS + SIZES),
            ]
    if call[0] == "search" and "--steps" not in call:
        call += ["--steps", "2"]
    return _called(call)


TEXTS = [
    "$\\foo{$",
    "$\\frac{$",
    "$$",
    "$",
    "\\",
    "a$b$c",
    "{",
    "%",
    "_^",
    "\n",
    "\x07",
    "é",
    "名",
    "$\\mathrm{" * 20,
    "<b>",
    "&amp;",
    "\ud800",
    "x" * 5000,
    "\\$\\foo{$$",
]


def pictures(rng: Rng) -> Any:
    """Texts of others in figures."""
    unit, name, title = (pick(rng, TEXTS) for _ in range(3))
    act = rng.random()
    path = Path(home()) / pick(rng, ["f.svg", "f.png"])
    if act < 0.4:
        circuit = qas.Circuit(2, [("rx", 0, 0.1), ("cx", (0, 1))])
        save_figure(circuit.draw("mpl", title=title), path)
        return 0
    problem = qas.problem({"XX": 1.0, "ZI": 0.5}, name="fuzz", unit=unit, description=name)
    figure, axes = new_figure(title)
    axes.plot([1, 2], [0.1, 0.2], label=f"with noise {name}")
    error_axis(axes, problem, np.array([0.1, 0.2]), lowest=0.1)
    legend(figure)
    save_figure(figure, path)
    return 0


CLASSES = {"sizes": sizes, "command line": words, "pictures": pictures}
