"""Drawings: what the text says, and that figures hold every gate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qas
from qas.circuits import Circuit
from qas.drawing import _columns, draw_figure, draw_latex, draw_text, plain, save_figure
from qas.errors import CircuitError, QasError, RunError
from qas.export import save_circuit
from qas.page import error_axis, legend, new_figure
from qas.testing import random_circuit

SEEDS = st.integers(0, 2**32 - 1)


def test_known_drawings():
    circuit = Circuit(2, [("h", 0), ("cx", (0, 1)), ("rx", 1, -0.30004), ("swap", (1, 0))])
    assert draw_text(circuit) == ("q0: ──[H]─●────────────×──\n          │            │\nq1: ──────⊕─[RX(−0.3)]─×──")
    assert draw_text(Circuit(2, [("sdg", 1)])) == "q0: ────────\nq1: ──[S†]──"
    assert draw_text(Circuit(1)) == "q0: ────"
    assert "−0" not in draw_text(Circuit(1, [("rz", 0, -0.0)]))
    crossing = draw_text(Circuit(3, [("rzz", (2, 0), 1.23456)]))
    assert crossing == ("q0: ──[RZZ(1.23)]──\n           │\nq1: ───────┼───────\n           │\nq2: ──[RZZ(1.23)]──")


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_text_shows_every_gate_once_within_the_width(seed):
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(1, 12)), int(rng.integers(0, 60)), rng)
    width = int(rng.integers(60, 140))
    text = draw_text(circuit, width=width)
    assert max(map(len, text.split("\n"))) <= width
    rows = circuit.n_qubits if circuit.two_qubit_gates == 0 else 2 * circuit.n_qubits - 1
    for block in re.split(r"\n\n(?= *q0: )", text):
        lines = block.split("\n")
        assert len(lines) == rows
        wires = lines[:: 2 if rows > circuit.n_qubits else 1]
        assert len(set(map(len, wires))) == 1, "wires of a block end together"
    counts = circuit.counts
    assert text.count("⊕") == counts.get("cx", 0)
    assert text.count("●") == counts.get("cx", 0) + 2 * counts.get("cz", 0)
    assert text.count("×") == 2 * counts.get("swap", 0)
    boxes = len(re.findall(r"\[[^\]]*\]", text))
    ends = sum(len(g.qubits) for g in circuit if g.name not in ("cx", "cz", "swap"))
    assert boxes == ends


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_columns_never_collide_and_keep_the_circuit(seed):
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(2, 9)), int(rng.integers(0, 40)), rng)
    columns = _columns(circuit)
    for column in columns:
        wires = [q for g in column for q in range(min(g.qubits), max(g.qubits) + 1)]
        assert len(wires) == len(set(wires))
    redrawn = Circuit(circuit.n_qubits, [g for column in columns for g in column])
    assert redrawn.key == circuit.key and redrawn.depth == circuit.depth


def test_a_narrow_terminal_still_gets_every_gate():
    text = draw_text(Circuit(1, [("u", 0, 0.1, 0.2, 0.3), ("x", 0)]), width=1)
    assert text == "q0: ──[U(0.1, 0.2, 0.3)]──»\n\nq0: «─[X]──"


def test_figures_grow_with_the_circuit_and_carry_every_label():
    rng = np.random.default_rng(11)
    circuit = random_circuit(4, 60, rng)
    figure = draw_figure(circuit, title="costs 5$ and $6")
    texts = [t.get_text() for t in figure.axes[0].texts]
    boxed = sum(len(g.qubits) for g in circuit if g.name not in ("cx", "cz", "swap"))
    with_angles = sum(len(g.qubits) for g in circuit if g.angles)
    rows = texts.count("$q_{0}$")
    assert rows > 1
    assert len(texts) == boxed + with_angles + rows * circuit.n_qubits + 1
    assert figure.get_figheight() > draw_figure(Circuit(4, circuit.gates[:3])).get_figheight()
    assert figure.get_figwidth() < 13


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        (".png", b"\x89PNG"),
        (".svg", b"<?xml"),
        (".PDF", b"%PDF"),
        (".tex", b"\\documentclass"),
        (".qasm", b"OPENQASM 3"),
    ],
)
def test_saved_circuits_are_complete_files(tmp_path, suffix, start):
    path = tmp_path / f"circuit{suffix}"
    path.write_bytes(b"old")
    circuit = Circuit(3, [("h", 0), ("cx", (0, 2)), ("u", 1, 0.1, 0.2, 0.3)])
    save_circuit(circuit, path)
    first = path.read_bytes()
    assert first.startswith(start) and os.listdir(tmp_path) == [path.name]
    save_circuit(circuit, path)
    assert suffix in (".png", ".svg") or path.read_bytes() == first
    with pytest.raises(RunError, match="does not exist"):
        save_circuit(circuit, tmp_path / "no" / path.name)
    with pytest.raises(QasError, match=r"\.png, \.svg, \.pdf, \.tex, \.qasm.*, got 'a\.gif'"):
        save_circuit(circuit, tmp_path / "a.gif")


def test_known_latex():
    gates = [("rx", 0, -0.30004), ("cx", (2, 0)), ("sdg", 1), ("rzz", (0, 1), 1e-5), ("swap", (1, 2)), ("cz", (1, 2))]
    text = draw_latex(Circuit(3, [*gates, ("u", 0, 0.1, 0.2, -0.0), ("sx", 2)]))
    rows = re.search(r"\\begin\{quantikz\}\n(.*)\n\\end\{quantikz\}", text, re.DOTALL)[1].split(" \\\\\n")
    cells = [row.replace(r"\gate", "").split(" & ") for row in rows]
    assert cells == [
        [r"\lstick{$q_{0}$}", "{R_{X}(-0.3)}", r"\targ{}\vqw{2}", r"{R_{ZZ}(1 \cdot 10^{-5})}\vqw{1}",
         "{U(0.1, 0.2, 0)}",
         r"\qw", r"\qw", r"\qw"],
        [r"\lstick{$q_{1}$}", r"{S^\dagger}", r"\qw", r"{R_{ZZ}(1 \cdot 10^{-5})}", r"\swap{1}",
         r"\ctrl{1}", r"\qw", r"\qw"],
        [r"\lstick{$q_{2}$}", r"\qw", r"\control{}", r"\qw", r"\targX{}", r"\control{}", r"{\sqrt{X}}", r"\qw"],
    ]  # fmt: skip


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_latex_has_every_gate_in_blocks_of_equal_rows(seed):
    rng = np.random.default_rng(seed)
    circuit = random_circuit(int(rng.integers(1, 9)), int(rng.integers(0, 80)), rng)
    text = draw_latex(circuit)
    counts = circuit.counts
    assert text.count(r"\targ{}") == counts.get("cx", 0)
    assert text.count(r"\targX{}") == text.count(r"\swap{") == counts.get("swap", 0)
    assert text.count(r"\control{}") + text.count(r"\ctrl{") == counts.get("cx", 0) + 2 * counts.get("cz", 0)
    assert text.count(r"\gate{") == sum(len(g.qubits) for g in circuit if g.name not in ("cx", "cz", "swap"))
    assert sum(text.count(line) for line in (r"\vqw{", r"\ctrl{", r"\swap{")) == circuit.two_qubit_gates
    for block in re.findall(r"\\begin\{quantikz\}\n(.*?)\n\\end\{quantikz\}", text, re.DOTALL):
        rows = block.split(" \\\\\n")
        assert len(rows) == circuit.n_qubits and len({row.count(" & ") for row in rows}) == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tmp_path):
    style = subprocess.run(["kpsewhich", "tikzlibraryquantikz.code.tex"], capture_output=True, check=False)
    if style.returncode:
        pytest.skip("the package quantikz is not installed")
    save_circuit(random_circuit(4, 70, np.random.default_rng(3)), tmp_path / "c.tex")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "c.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_saving_refuses_in_one_line(tmp_path):
    circuit = Circuit(1, [("x", 0)])
    with pytest.raises(QasError, match=r"\.png, \.svg or \.pdf"):
        save_figure(draw_figure(circuit), tmp_path / "circuit.gif")
    with pytest.raises(RunError, match="does not exist"):
        save_figure(draw_figure(circuit), tmp_path / "no" / "circuit.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(RunError, match="cannot write"):
        save_figure(draw_figure(circuit), tmp_path / "folder.png")
    assert os.listdir(tmp_path) == ["folder.png"]
    with pytest.raises(CircuitError, match="too long"):
        draw_figure(Circuit(30, [("u", 0, 0.1, 0.2, 0.3)] * 400))


ODD = ["$\\foo{$", r"$\frac{$", "$$", "a$b$c", "\\", "\\$x$", "_^{", "\x07\n", "x" * 5000]


@pytest.mark.parametrize("text", ODD, ids=[text[:6] for text in ODD])
def test_text_of_others_is_drawn_as_it_is(text, tmp_path):
    assert "$" not in plain(text).replace(r"\$", "") and len(plain(text)) < 500
    problem = qas.problem({"XX": 1.0, "ZI": 0.5}, name="odd", unit=text)
    figure, axes = new_figure(text)
    axes.plot([1, 2], [0.1, 0.2], label=f"with noise {text}")
    error_axis(axes, problem, [0.1, 0.2], lowest=0.1)
    legend(figure)
    save_figure(figure, tmp_path / "page.svg")
    save_figure(draw_figure(Circuit(1, [("x", 0)]), title=text), tmp_path / "circuit.svg")
