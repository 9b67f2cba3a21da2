"""`search` and `resume`: what they take, what they refuse and how fast, when they end, and what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import qas
from qas.agents import AGENTS, resume
from qas.agents.base import Search
from qas.agents.growth.evolution import EvolutionAgent
from qas.agents.growth.random import RandomAgent
from qas.errors import QasError, RunError
from qas.files import LOCK
from qas.meter import Budget
from qas.record import Record
from qas.runs import load_run
from qas.testing.agents import found
from qas.tidying import Tidier


class _Mine(RandomAgent):
    """Random search under another name."""

    name = "mine-alone"

    def __init__(self, *, share: float = 0.5) -> None:
        super().__init__()
        self.share = share


def small(out: Path, **settings: Any) -> Any:
    given = {"agent": "random", "evaluations": 200, "max_gates": 5, "report": False} | settings
    return qas.search(given.pop("problem", "h2-2"), out=out, **given)


class _Killed(BaseException):
    pass


def _kill(*_: Any, **__: Any) -> Any:
    raise _Killed


# ---------------------------------------------------------------------- the end
@pytest.mark.parametrize("budget", [{"evaluations": 200}, {"evaluations": 200, "target": 1.8}])
def test_a_search_that_is_killed_at_its_end_ends_as_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any]
) -> None:
    monkeypatch.setattr(Search, "checkpoint_every", 0.0)
    whole = small(tmp_path / "whole", **budget)
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(Tidier, "__call__", _kill)
        small(tmp_path / "part", **budget)
    part = load_run(tmp_path / "part")
    assert part.status == "running" and part.evaluations == whole.evaluations
    assert found(resume(part.path, report=False)) == found(whole)
    assert (whole.best.error <= budget.get("target", 0)) == ("target" in budget), "which it reaches"


def test_a_search_that_is_killed_before_its_report_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []

    def kill(run: qas.Run) -> None:
        held.append((run.path / LOCK).read_text())
        _kill()

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr("qas.report.write_report", kill)
        small(tmp_path / "run", report=True)
    with pytest.raises(RunError, match="has used 200 of 200"):
        resume(tmp_path / "run", report=False)
    for lock in (None, json.dumps(json.loads(held[0]) | {"born": "1"})):
        (tmp_path / "run" / "report.html").unlink(missing_ok=True)
        if lock:
            (tmp_path / "run" / LOCK).write_text(lock)
        assert resume(tmp_path / "run").status == "finished"
        assert (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / LOCK).exists()
    with pytest.raises(RunError, match="has used 200 of 200"):
        resume(tmp_path / "run")


# ---------------------------------------------------------------------- names, classes, instances
def test_an_agent_is_a_name_a_class_or_an_instance(tmp_path: Path) -> None:
    options = {"population": 3}
    named = small(tmp_path / "name", agent="evolution", options=options)
    given = EvolutionAgent(population=3)
    for name, agent, more in (("class", EvolutionAgent, options), ("first", given, None), ("second", given, None)):
        run = small(tmp_path / name, agent=agent, options=more)
        assert found(run) == found(named)
        assert (run.agent, run.config["options"]) == ("evolution", options)


def test_an_agent_that_is_not_registered_is_handed_over_again(tmp_path: Path) -> None:
    whole = small(tmp_path / "whole", agent=_Mine(share=0.25))
    assert whole.config["options"] == {"share": 0.25} and whole.agent == "mine-alone" not in AGENTS
    part = small(tmp_path / "part", agent=_Mine(share=0.25), evaluations=90)
    for settings, words in (
        ({}, "mine-alone is not registered here: give its class"),
        ({"agent": EvolutionAgent}, "made by agent mine-alone, got evolution"),
        ({"agent": _Mine(share=0.75)}, "has the options .*0.25.*, got .*0.75"),
    ):
        with pytest.raises(RunError, match=words) as caught:
            resume(part.path, evaluations=200, report=False, **settings)
        assert "\n" not in str(caught.value)
    assert found(resume(part.path, evaluations=200, agent=_Mine(share=0.25), report=False)) == found(whole)
    part = small(tmp_path / "other", agent=_Mine, options={"share": 0.25}, evaluations=90)
    assert found(resume(part.path, evaluations=200, agent=_Mine, report=False)) == found(whole)


# ---------------------------------------------------------------------- what is refused
BAD: list[tuple[dict[str, Any], str]] = [
    ({"agent": "ddqm"}, "ddqn"),
    ({"agent": 3}, "a name, an Agent class or an instance"),
    ({"agent": EvolutionAgent(), "options": {"population": 2}}, "has its settings already"),
    ({"noise": "ibm-mumbay"}, "ibm-mumbai"),
    ({"problem": "h2-22"}, "h2-2"),
    ({"gates": ["rx", "cxx"]}, "cx"),
    ({"evaluations": 0}, "at least 1"),
    ({"evaluations": None, "seconds": float("nan")}, "above 0"),
    ({"target": -1.0}, "above 0"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"max_gates": 0}, "max_gates"),
    ({"evaluator": {"tolerence": 1e-3}}, "tolerance"),
    ({"evaluator": {"optimizer": "lbfgs"}}, "l-bfgs"),
    ({"coupling": [(0, 7)]}, "0-7"),
    ({"agent": "beam", "options": {"widht": 2}}, "width"),
    ({"agent": "beam", "options": {"width": 0}}, "at least 1"),
    ({"agent": "beam", "options": {"width": 1.5}}, "width of the agent beam must be int"),
    ({"agent": "evolution", "options": {"changes": -1.0}}, "changes"),
    ({"agent": "random", "options": {"width": 2}}, "unknown setting of the agent random"),
    ({"agent": "ddqn", "options": {"gamma": 1.5}}, "gamma"),
    ({"agent": "ddqn", "options": {"hidden": []}}, "hidden"),
    ({"agent": "ddqn", "options": {"halting": "rando"}}, "random"),
    ({"agent": "ppo"}, "did you mean 'sb3'"),
    ({"agent": "sb3", "options": {"algorithm": "PP0"}}, "did you mean 'PPO'"),
    ({"agent": "sb3", "options": {"algorithm": dict}}, "derived from an on-policy one"),
    ({"agent": "sb3", "options": {"settings": {"n_step": 1}}}, "n_steps"),
    ({"agent": "sb3", "options": {"settings": {"gamma": "a"}}}, "gamma of the algorithm MaskablePPO must be float"),
    ({"agent": "sb3", "options": {"env": "editor", "halting": "random"}}, "halting is an option of the builder"),
    ({"agent": "sb3", "options": {"reward": "fronts", "env": "editor"}}, "front"),
    ({"preset": "crlqas-lih-5"}, "crlqas-lih-"),
    ({"agent": "ddqn", "preset": "crlqas-lih-4"}, "for agent ddqn on lih-4, got agent ddqn on h2-2"),
    ({"agent": "sb3", "preset": "crlqas-h2-2"}, "for agent ddqn on h2-2, got agent sb3 on h2-2"),
    ({"agent": "ddqn", "options": {"curriculum": "moving:target=1,bal=2"}}, "ball"),
    ({"agent": "knn", "options": {"encoder": "q3"}}, "unknown encoder"),
    ({"agent": "knn", "problem": "lih-6"}, "4 and 8 qubits"),
]


@pytest.mark.parametrize(("settings", "words"), BAD, ids=[bad[1] for bad in BAD])
def test_bad_settings_are_one_line_and_leave_no_folder(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(QasError, match=words) as caught:
        small(tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_wrong_names_are_told_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, qas\n"
        "for given in ({'agent': 'evolutoin'}, {'seed': -1}, {'gates': ['cxx']}, {'evaluator': {'shot': 3}}):\n"
        "    try: qas.search('lih-4', **given)\n"
        "    except qas.QasError: continue\n"
        "    raise SystemExit('taken')\n"
        "print(sorted({'torch', 'qiskit', 'stable_baselines3'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_folders_are_never_overwritten(tmp_path: Path) -> None:
    run = small(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
    with pytest.raises(RunError, match="new or empty"):
        small(run.path)
    assert {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()} == before
    assert found(load_run(run.path)) == found(run)
    with pytest.raises(QasError, match="needs a budget"):
        Budget()


# ---------------------------------------------------------------------- when it ends
def test_a_target_ends_the_search_and_the_run_says_so(tmp_path: Path) -> None:
    run = small(tmp_path / "run", agent="evolution", evaluations=5000, target=1e-6)
    assert run.best.error <= 1e-6 and run.evaluations < 5000 and run.config["budget"]["target"] == 1e-6
    with pytest.raises(RunError, match="has reached its target 1e-06"):
        resume(run.path, evaluations=9000, target=1e-6)


def test_a_clock_ends_an_optimization_inside_and_its_best_is_recorded(tmp_path: Path) -> None:
    """One optimization of 10 noisy qubits takes longer than the whole budget."""
    begin = time.perf_counter()
    said: list[str] = []
    run = small(
        tmp_path / "run", problem="heisenberg-10", agent="evolution", noise="ibm-mumbai", evaluations=None,
        seconds=1.0, max_gates=60, on_start=said.append,
    )  # fmt: skip
    assert run.seconds < 20.0 and run.front and len(run.history()) == run.architectures > 0
    assert time.perf_counter() - begin < 60, "compiling included"
    assert len(said) == 1 and "1 s allow at most about" in said[0] and "\n" not in said[0]


def test_ctrl_c_ends_an_optimization_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qas.agents.launch._GRACE", 0.2)

    def press(line: str) -> None:
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()

    begin = time.perf_counter()
    run = small(
        tmp_path / "run", problem="heisenberg-10", agent="evolution", noise="ibm-mumbai", evaluations=10**6,
        max_gates=60, on_start=press,
    )  # fmt: skip
    assert run.status == "interrupted" and run.front
    assert run.seconds < 4.0 and time.perf_counter() - begin < 60
    assert not (run.path / "checkpoint").exists(), "an optimization that was cut short is in no checkpoint"


# ---------------------------------------------------------------------- what it says
@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"evaluations": 200}, "200 take at least about"),
        ({"evaluations": None, "steps": 4}, "4 architectures of up to 200 evaluations take up to 800"),
    ],
)
def test_the_cost_is_told_before_the_search(budget: dict[str, Any], words: str, tmp_path: Path) -> None:
    said: list[str] = []
    run = small(tmp_path / "run", on_start=said.append, **budget)
    assert len(said) == 1 and said[0].startswith("an evaluation of 4 gates takes about ") and words in said[0]
    assert run.evaluations <= 800, "what was measured is not counted"


def test_a_poor_outcome_is_remarked_upon(tmp_path: Path) -> None:
    good = small(tmp_path / "good", agent="evolution", evaluations=1500, target=1e-6)
    assert good.remarks == []
    poor = small(tmp_path / "poor", gates=["rz", "cx"], evaluations=30)
    above, beside = poor.remarks
    assert "above the best product state" in above and "one-qubit gates alone do better" in above
    assert beside.startswith("evolution reached an error of") and str(good.path) in beside
    assert load_run(poor.path).remarks == poor.remarks
    summary = json.loads((poor.path / "summary.json").read_text())
    assert summary["remarks"] == poor.remarks and summary["tidying"] == poor.tidying


def test_going_on_that_is_cut_short_keeps_what_a_finished_run_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "tell_every", 0.0)
    how: dict[str, Any] = {"agent": "evolution", "report": False}
    whole = qas.search("h2-3", evaluations=3000, out=tmp_path / "whole", **how)
    found = qas.search("h2-3", evaluations=1500, out=tmp_path / "run", **how)

    def killed(*_: Any) -> None:
        raise MemoryError

    for cut in ("killed", "stopped", "killed", "killed", "stopped"):
        if cut == "killed":
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(Search, "safe_point", killed)
                resume(found.path, evaluations=3000, report=False)
            assert load_run(found.path).status != "finished", "it did not end at the new budget"
        else:
            stopped = resume(found.path, evaluations=3000, report=False, callbacks=[lambda _: False])
            assert stopped.status == "interrupted" and stopped.evaluations == found.evaluations
            assert stopped.front == found.front and stopped.history().tolist() == found.history().tolist()
    on = resume(found.path, report=False)
    assert on.status == "finished" and on.front == whole.front and on.evaluations == whole.evaluations
    assert sorted(os.listdir(on.path)) == sorted(os.listdir(whole.path))
