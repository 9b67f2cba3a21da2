"""Campaigns: what a study asks for is done, whatever happens to those who do it."""

from __future__ import annotations

import errno
import importlib
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import qas
from qas.campaigns import Campaign, Study, load_campaign, load_study, running
from qas.campaigns.campaign import State
from qas.campaigns.running import Outcome, perform, settle, status_of
from qas.campaigns.workers import Workers
from qas.cli import main
from qas.cli.campaign import _Watch
from qas.errors import QasError, RunError
from qas.files import disk_errors
from qas.record import Progress

SMALL = {"problems": ["h2-2", "tfim-2"], "agents": ["random"], "seeds": 2, "evaluations": 120, "max_gates": 6}


def found(campaign: Campaign) -> list[Any]:
    return [(run.path.name, run.evaluations, [(r.error, r.circuit.key) for r in run.front]) for run in campaign.runs]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The runs of `SMALL`, one after the other in this process."""
    folder = tmp_path_factory.mktemp("campaign") / "whole"
    study = load_study(SMALL)
    for task in study.tasks:
        assert perform(task, folder).status == "finished"
    return Campaign(folder, study)


# ---------------------------------------------------------------------- studies
def test_every_combination_is_a_search_and_runs_override_what_stands_above(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        """
        problems = ["h2-2", "lih-4"]
        agents = ["evolution", "random"]
        noise = ["none", "ibm-mumbai"]
        devices = ["fake_lagos"]
        seeds = [3, 5]
        steps = 10
        [options.evolution]
        population = 3
        [[runs]]
        [[runs]]
        label = "large"
        problems = ["tfim-6"]
        agents = "evolution"
        noise = "none"
        devices = []
        seeds = 1
        options.evolution.population = 9
        """
    )
    tasks = load_study(file).tasks
    assert len(tasks) == 2 * 2 * 3 * 2 + 1 == len({task.name for task in tasks})
    assert tasks[0].name == "h2-2-evolution-s3"
    assert dict(tasks[0].settings) == {
        "problem": "h2-2", "agent": "evolution", "options": {"population": 3}, "steps": 10, "seed": 3,
    }  # fmt: skip
    assert dict(tasks[5].settings)["device"] == "fake_lagos" and tasks[5].name == "h2-2-evolution-fake-lagos-s5"
    assert tasks[-1].name == "tfim-6-evolution-large-s0" and tasks[-1].settings["options"] == {"population": 9}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"problem": ["h2-2"]}, "unknown key of a study 'problem'; did you mean 'problems'?"),
        ({"problems": []}, r"problems is a list of names, got \[\]"),
        ({"problems": ["lih-5"]}, "unknown problem 'lih-5'"),
        ({"agents": ["evolutoin"]}, "did you mean 'evolution'"),
        ({"noise": ["ibm-mumbay"]}, "did you mean 'ibm-mumbai'"),
        ({"devices": 3}, "devices is a list of names, got 3"),
        ({"objectives": ["zme"]}, "unknown objective 'zme'"),
        ({"seeds": 0}, "seeds, unless they are a list, is a whole number from 1"),
        ({"seeds": [-1]}, "a seed is a whole number of at least 0, got -1"),
        ({"gates": ["ry", "cxx"]}, "unknown gate 'cxx'"),
        ({"gates": "ry,cx"}, "gates is a list of gate names, got 'ry,cx'"),
        ({"coupling": [[0, 1, 2]]}, "coupling is a list of pairs"),
        ({"max_gates": 0}, "max_gates is a whole number from 1"),
        ({"evaluator": 3}, "evaluator is a mapping"),
        ({"evaluations": 0}, "evaluations is a whole number of at least 1, got 0"),
        ({"evaluations": None}, "evaluations is a whole number|a search needs a budget"),
        ({"options": {"random": {"depth": 3}}}, "unknown"),
        ({"options": {"rendom": {}}}, "unknown agent 'rendom'; did you mean 'random'"),
        ({"patch": "0,1"}, "a patch is one of a device, got patch '0,1' without devices"),
        ({"coupling": [[0, 9]]}, "0-9|2 qubits"),
        ({"label": "a" * 300}, "the name of a search has at most 200 letters"),
        ({"label": date(1979, 5, 27)}, "a study holds texts, numbers, lists and tables: .*date"),
        ({"options": 3}, "options is a table with a table for each agent, got 3"),
        ({"evaluator": {"tolerence": 1e-9}}, "did you mean 'tolerance'"),
        ({"runs": []}, r"runs is a list of tables, got \[\]"),
        ({"runs": [{}, {}]}, "two searches of the study would be called h2-2-random-s0"),
        ({"seeds": 10**9}, "seeds, unless they are a list, is a whole number from 1 to"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_study_is_refused_in_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(QasError, match=told) as raised:
        Study.of(SMALL | change)
    assert "\n" not in str(raised.value)


def test_what_a_failure_says_is_no_markup() -> None:
    progress = Progress(1.0, 10, 2, 0.1, 3, 1, 0.5, 1, "note [/a]")
    tasks = {task.name: task for task in Study.of(SMALL).tasks}
    one, two, *_ = tasks
    state = State(tasks, {two: Outcome(two, "failed", "why [rx, ry] [/tmp/x]")}, {one: progress}, {"h2[/c]": 0.1})
    console = Console(file=io.StringIO(), width=200)
    _Watch().live(state, SimpleNamespace(update=lambda table, refresh: console.print(table)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in shown for text in ("note [/a]", "why [rx, ry] [/tmp/x]", "h2[/c]"))


def test_the_studies_of_published_tables_can_be_read() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "campaigns").glob("*.toml"))
    tasks = {file.stem: load_study(file).tasks for file in files}
    assert len(tasks["molecules"]) == 120 and len(tasks["heisenberg"]) == 240


# ---------------------------------------------------------------------- running
def test_workers_find_what_one_search_after_the_other_finds(
    whole: Campaign, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    done = qas.campaign(SMALL, out=tmp_path / "out", workers=2)
    assert found(done) == found(whole) and set(done.status().values()) == {"finished"}
    assert found(load_campaign(done.path)) == found(whole)
    before = {path: path.stat().st_mtime_ns for path in (done.path / "runs").rglob("*") if path.is_file()}
    request.getfixturevalue("workers_in_threads")
    qas.campaign(SMALL, out=tmp_path / "out", workers=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is finished is left alone"
    with pytest.raises(RunError, match="holds the campaign of another study"):
        qas.campaign(SMALL | {"seeds": 3}, out=tmp_path / "out")


def test_the_same_campaign_may_be_begun_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("qas.campaigns.campaign")  # its name is that of a function, too
    reserve, study = module.new_folder, load_study(SMALL)

    def late(path: Any, *words: Any, **settings: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(module, "new_folder", reserve)
            module._folder(study, path)
        return reserve(path, *words, **settings)

    monkeypatch.setattr(module, "new_folder", late)
    assert module._folder(study, tmp_path / "a") == tmp_path / "a"
    with pytest.raises(RunError, match="holds the campaign of another study"):
        module._folder(load_study(SMALL | {"seeds": 7}), tmp_path / "b")


def test_a_search_goes_on_in_another_worker_when_its_own_is_killed(tmp_path: Path) -> None:
    study = load_study(SMALL | {"problems": ["h2-2"], "seeds": 1, "evaluations": 10_000})
    killed: list[int] = []

    def kill_once(name: str, _: object) -> None:
        worker = next(worker for worker in workers._workers if worker.task and worker.task.name == name)
        if not killed:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    workers = Workers(1, tmp_path / "killed", report=False, tell=kill_once)
    outcomes = list(workers.run(study.tasks))
    assert killed and [outcome.status for outcome in outcomes] == ["finished"]
    for task in study.tasks:
        perform(task, tmp_path / "whole")
    assert found(Campaign(tmp_path / "killed", study)) == found(Campaign(tmp_path / "whole", study))


def test_a_search_that_kills_its_workers_is_given_up_and_the_reason_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    died = SimpleNamespace(start=lambda: None, join=lambda *_: None, is_alive=lambda: False, pid=None, exitcode=-9)
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **_: died)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    file = tmp_path / "study.toml"
    file.write_text('problems = ["h2-2"]\nagents = ["random"]\nsteps = 3\nseeds = 2\n')
    assert main(["campaign", str(file), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "0 of 2 searches finished" in out and "goes on" not in out
    for name, status in load_campaign(tmp_path / "out").status().items():
        note = tmp_path / "out" / "failed" / f"{name}.txt"
        assert status == "failed" and str(note) in out
        assert note.read_text() == "3 workers died on it, the last with exit code -9\n"


def test_a_search_that_fails_is_noted_and_tried_again(tmp_path: Path) -> None:
    study = load_study({"problems": ["h2-2"], "agents": ["random", "adapt"], "noise": ["ibm-mumbai"], "steps": 3})
    coupled = load_study({"problems": ["h2-2"], "agents": ["adapt"], "coupling": [[0, 1]], "steps": 3})
    (task,) = coupled.tasks
    outcome = perform(task, tmp_path)
    settle(tmp_path, outcome)
    assert outcome.status == status_of(tmp_path, task.name) == "failed" and "coupling" in outcome.told
    assert (tmp_path / "failed" / f"{task.name}.txt").read_text() == outcome.told + "\n"
    assert perform(study.tasks[0], tmp_path).status == "finished"
    quick = study.tasks[0].name
    assert status_of(tmp_path, quick) == "finished" and status_of(tmp_path, quick, report=True) == "begun"
    assert perform(study.tasks[0], tmp_path, report=True).status == status_of(tmp_path, quick, report=True)


def test_a_disk_that_is_full_ends_a_campaign_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers_in_threads: None
) -> None:
    """A search fails, and its reason cannot be noted either."""
    file = tmp_path / "study.toml"
    file.write_text('problems = ["h2-2"]\nagents = ["adapt"]\ncoupling = [[0, 1]]\nsteps = 3')
    whole = running.write_atomic

    def full(path: Path, content: Any) -> None:
        with disk_errors(path):
            raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(running, "write_atomic", full)
    words = ["campaign", str(file), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]
    assert main(words) == 2
    assert re.fullmatch(r"qas: error: no space left on the disk for \S+; files .*\n", capsys.readouterr().err)
    monkeypatch.setattr(running, "write_atomic", whole)
    assert main(words) == 1 and "failed: h2-2-adapt-s0" in capsys.readouterr().out


def test_ctrl_c_ends_in_order_and_the_same_command_goes_on(tmp_path: Path) -> None:
    table = SMALL | {"problems": ["h2-2"], "evaluations": 40_000}
    file = tmp_path / "study.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    command = [sys.executable, "-m", "qas", "campaign", str(file), "--out", str(tmp_path / "out"), "--workers", "1"]
    first = tmp_path / "out" / "runs" / "h2-2-random-s0"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (first / "history.csv").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "goes on with the others" in out
    status = load_campaign(tmp_path / "out").status()
    assert status["h2-2-random-s1"] == "waiting" and qas.load_run(first).status in ("interrupted", "finished")
    small = load_study(table).tasks[0]
    assert perform(small, tmp_path / "out").status == "finished"


def test_the_command_says_what_is_wrong_with_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.toml"
    for text, told in (("problems = [", "a study is a file in TOML"), ("agents = 3\nsteps = 1", "problems is a list")):
        file.write_text(text)
        assert main(["campaign", str(file)]) == 2
        assert told in capsys.readouterr().err
    assert main(["campaign", str(tmp_path / "none.toml")]) == 2
    assert "the study is missing" in capsys.readouterr().err
