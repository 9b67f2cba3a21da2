"""The page of a run: self-contained, for empty fronts and for errors that are zero or negative."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import qas
from qas.circuits import Circuit
from qas.cli.parser import build_parser
from qas.drawing import save_figure
from qas.errors import QasError, RunError
from qas.page import FLOOR
from qas.report import convergence_figure, front_figure, search_command, write_report
from qas.runs import HISTORY_COLUMNS, Result, Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Without noise and with it."""
    folder = tmp_path_factory.mktemp("report")
    settings: dict[str, Any] = {"agent": "random", "steps": 30, "max_gates": 8, "report": False}
    return [qas.search("h2-2", noise=noise, out=folder / str(noise), **settings) for noise in (None, "ibm-mumbai")]


@pytest.fixture
def run(runs: list[Run]) -> Run:
    return runs[1]


class _Checker(HTMLParser):
    """Collects ids and addresses, and checks that tags close."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.stack.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def _note(self, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href"):
                self.addresses.append(value or "")


def _checked(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.stack == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(a.startswith("#") and a[1:] in checker.ids for a in checker.addresses)
    assert not re.search(r"@import|<script|<link|<img|url\((?!#)", text)
    for name in re.findall(r"url\(#([^)]*)\)", text):
        assert name in checker.ids
    return text


def test_page(runs: list[Run]) -> None:
    for run in runs:
        path = write_report(run)
        assert path == run.path / "report.html"
        text = _checked(path)
        assert "OPENQASM 3.0" in text and "chemical accuracy" in text and "prefers-color-scheme" in text
        assert (run.noise is None) == ("error without noise" not in text)
        assert [p.name for p in run.path.glob(".report*")] == []
    before = path.read_bytes()
    assert write_report(run).read_bytes() == before


def test_search_writes_the_page(tmp_path: Path) -> None:
    found = qas.search("h2-2", agent="random", steps=3, out=tmp_path / "run")
    assert (found.path / "report.html").exists()


def test_empty_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(",".join(HISTORY_COLUMNS) + "\n")
    text = _checked(write_report(replace(run, path=tmp_path, front=[], evaluations=0, architectures=0)))
    assert "No circuit" in text


def test_errors_of_zero_and_below(run: Run, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(",".join(HISTORY_COLUMNS) + "\n1,0.1,-1,-3e-16,0,0,0,-3e-16\n")
    values = [0.0, -1e-15, 2e-16, -0.3]
    front = [Result(Circuit(2, [("cx", (0, 1))] * k), -1.0, e, -1.0, e, k + 1) for k, e in enumerate(values)]
    odd = replace(run, path=tmp_path, front=front)
    _checked(write_report(odd))
    for figure in (front_figure(odd), convergence_figure(odd)):
        low, high = figure.axes[0].get_ylim()
        assert 0 < low <= FLOOR < high


def test_the_convergence_line_ends_at_the_headline(run: Run, tmp_path: Path) -> None:
    """Redundant gates are taken out before a circuit joins the front: its error is not in the column of errors."""
    rows = ["1,0.1,-1,0.5,3,1,2,0.4", "2,0.1,-1,0.086,3,1,2,0.0613", "3,0.1,-1,0.3,3,1,2,0.0613"]
    (tmp_path / "history.csv").write_text("\n".join([",".join(HISTORY_COLUMNS), *rows]) + "\n")
    for best in (0.0613, 0.05):  # tidied at the end
        front = [Result(Circuit(2, [("cx", (0, 1))]), -1.0, best, -1.0, best, 2)]
        figure = convergence_figure(replace(run, path=tmp_path, front=front))
        line = next(line for line in figure.axes[0].lines if line.get_label() == "best so far")
        assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == [0.4, 0.0613, best]


def test_the_legend_covers_nothing(run: Run) -> None:
    for figure in (front_figure(run), convergence_figure(run)):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert figure.axes[0].get_legend() is None
        axes, below = figure.axes[0].get_tightbbox(), legend.get_window_extent()
        assert axes is not None and not axes.overlaps(below) and below.x0 >= 0 and below.x1 <= figure.bbox.width


def test_without_a_unit_and_on_a_narrow_screen(tmp_path: Path) -> None:
    target = qas.problem({"XX": 1.0, "ZI": -0.5}, name="mine")
    text = _checked(qas.search(target, agent="random", steps=3, out=tmp_path / "run").path / "report.html")
    assert "()" not in text and "<span>energy</span>" in text and not re.search(r"[^\S\n]</(b|td|span)>", text)
    heads = re.findall(r"<th>(.*?)</th>", text[text.index("<thead>") : text.index("</thead>")])
    assert heads == ["two-qubit gates", "error", "gates", "depth", "angles", "energy"]


def test_names_are_escaped(tmp_path: Path) -> None:
    problem = qas.problem({"XX": 1.0, "ZI": -0.5}, name="mine", description="<b>&\"'</b> $x_1$")
    found = qas.search(problem, agent="random", steps=3, out=tmp_path / "run")
    text = _checked(found.path / "report.html")
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    assert search_command(found) is None


def test_many_circuits_and_a_circuit_too_long_to_draw(run: Run, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(",".join(HISTORY_COLUMNS) + "\n")
    front = [Result(Circuit(2, [("cx", (0, 1))] * k), -1.0, 2.0**-k, -1.0, 2.0**-k, k) for k in range(40)]
    front.append(Result(Circuit(2, [("cx", (0, 1))] * 8000), -1.0, 1e-14, -1.0, 1e-14, 99))
    _checked(write_report(replace(run, path=tmp_path, front=front)))


def test_command_repeats_the_run(runs: list[Run]) -> None:
    for run in runs:
        command = search_command(run)
        assert command is not None and command.startswith("qas search h2-2 --agent random")
        assert "--steps 30 --seed 0 --max-gates 8" in command
        assert ("--noise ibm-mumbai" in command) == (run.noise is not None)
    assert search_command(replace(run, noise=qas.NoiseModel.depolarizing(0.1, 0.1))) is None
    budget = {"seconds": 1234567.8, "evaluations": None, "steps": None, "target": 1e-3}
    odd = replace(run, noise=None, config=run.config | {"budget": budget, "options": {"policy": "x; echo y"}})
    command = search_command(odd)
    assert command is not None and "-o 'policy=x; echo y'" in command
    found = build_parser().parse_args(shlex.split(command)[1:])
    assert (found.seconds, found.target) == (1234567.8, 1e-3) and found.options == [("policy", "x; echo y")]


def test_save_figure(run: Run, tmp_path: Path) -> None:
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        save_figure(front_figure(run, "h2-2 $"), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(QasError, match=r"\.png, \.svg or \.pdf"):
        save_figure(front_figure(run), tmp_path / "a.gif")
    with pytest.raises(RunError):
        save_figure(front_figure(run), tmp_path / "no" / "a.png")


def test_no_space_for_the_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(run)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qas.files.os.fsync", full)
    with pytest.raises(RunError, match="no space left"):
        write_report(run)
    assert path.read_bytes() == before
