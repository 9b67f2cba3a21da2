"""Attempts at a search by several machines: none spoils what another one writes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import qas
from qas.agents.base import Search
from qas.campaigns import Campaign, Study, cluster, load_study
from qas.campaigns.attempts import ATTEMPTS, adopt_all, new_attempt, place
from qas.campaigns.cluster import _attempt, connected
from qas.campaigns.running import Outcome, perform, settle, status_of
from qas.cli import main
from qas.errors import MissingExtraError, QasError
from qas.files import load_checkpoint, save_checkpoint
from qas.record import Record
from qas.runs import load_run

LONG: dict[str, Any] = {"problems": ["h2-2"], "agents": ["random"], "evaluations": 4_000, "max_gates": 6}
NAME = "h2-2-random-s0"


def contents(run: Path) -> list[Any]:
    """What of a run is the same at the same seed."""
    rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    kept = [row[:1] + row[2:] for row in rows]  # without seconds
    return [kept, *((run / name).read_bytes() for name in ("config.json", "circuits.jsonl", "best.qasm"))]


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(LONG)


@pytest.fixture(scope="module")
def whole(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unbroken run."""
    folder = tmp_path_factory.mktemp("attempts")
    assert perform(study.tasks[0], folder).status == "finished"
    return folder / "runs" / NAME


@pytest.fixture
def folder(study: Study, tmp_path: Path) -> Path:
    """A campaign in which nothing has begun."""
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "campaign.json").write_text("{}")
    return tmp_path / "campaign"


def halted(study: Study, folder: Path, do: Callable[[Path], None]) -> Outcome:
    """An attempt that is halted once, after its first checkpoint, while other things are done; then it goes on."""
    done: list[Path] = []

    def heard(name: str, progress: Any) -> None:
        (own,) = done or (folder / ATTEMPTS / name).iterdir()
        if not done and (own / "checkpoint" / "CURRENT").exists():
            done.append(own)
            do(own)

    outcome = _attempt(study.tasks[0], str(folder), {}, SimpleNamespace(post=SimpleNamespace(remote=heard)))
    assert done, "there was a checkpoint"
    return outcome


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "checkpoint_every", 0.05)
    monkeypatch.setattr(Record, "tell_every", 0.0)
    monkeypatch.setattr(cluster, "_POST_EVERY", 0.0)


@pytest.mark.usefixtures("often")
def test_a_lost_attempt_that_goes_on_spoils_nothing(study: Study, folder: Path, whole: Path) -> None:
    run = folder / "runs" / NAME

    def another(lost: Path) -> None:
        assert status_of(folder, NAME) == "begun"
        begun: list[int] = []
        board = SimpleNamespace(post=SimpleNamespace(remote=lambda _, progress: begun.append(progress.evaluations)))
        outcome = _attempt(study.tasks[0], str(folder), {}, board)
        assert outcome.status == "finished" and outcome.token != lost.name
        state = load_checkpoint(lost / "checkpoint")
        assert state is not None and begun[0] > state[0]["evaluations"] > 0, "it began where the lost one stood"
        os.rename(lost, folder / "aside")  # its files are open, and it is not removed with its kind
        place(folder, NAME, outcome.token)
        os.makedirs(lost.parent)
        os.rename(folder / "aside", lost)
        settle(folder, outcome)
        assert contents(run) == contents(whole)

    late = halted(study, folder, another)
    assert late.status == "finished" and (folder / ATTEMPTS / NAME / late.token).exists()
    assert contents(run) == contents(whole) and status_of(folder, NAME) == load_run(run).status == "finished"
    adopt_all(folder)
    assert not (folder / ATTEMPTS).exists(), "what the lost one wrote is swept away by the next campaign"
    assert contents(run) == contents(whole)


@pytest.mark.usefixtures("often")
def test_what_a_lost_campaign_left_is_gone_on_with(study: Study, folder: Path, whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    halted(study, folder, lambda _: shutil.copytree(folder, killed) and None)
    adopt_all(killed)
    run = killed / "runs" / NAME
    assert (run / "checkpoint" / "CURRENT").exists() and not (killed / ATTEMPTS).exists()
    assert status_of(killed, NAME) == "begun"
    assert perform(study.tasks[0], killed).status == "finished" and contents(run) == contents(whole)
    assert [run.status for run in Campaign(killed, study).runs] == ["finished"]


def test_the_furthest_attempt_is_gone_on_with_from_its_checkpoint(folder: Path, whole: Path) -> None:
    home = folder / ATTEMPTS / NAME
    for name, checkpoint in (("behind", False), ("ahead", True), ("damaged", True)):
        shutil.copytree(whole, home / name)
        (home / name / "summary.json").unlink()
        if not checkpoint:
            shutil.rmtree(home / name / "checkpoint", ignore_errors=True)
    save_checkpoint(home / "ahead" / "checkpoint", {"evaluations": 7, "seconds": 1.0}, {})
    save_checkpoint(home / "damaged" / "checkpoint", {"evaluations": "many", "seconds": 1.0}, {})
    own = new_attempt(folder, NAME)
    found = load_checkpoint(own / "checkpoint")
    assert found is not None and found[0]["evaluations"] == 7
    assert sorted(path.name for path in own.iterdir()) == [
        "best.qasm",
        "checkpoint",
        "circuits.jsonl",
        "config.json",
        "history.csv",
    ]
    shutil.copytree(whole, folder / "runs" / NAME)
    place(folder, NAME, own.name)
    found = load_checkpoint(folder / "runs" / NAME / "checkpoint")
    assert found is not None and found[0]["evaluations"] == 7, "it takes the place of what was there"
    assert not (folder / ATTEMPTS).exists()


def test_what_has_ended_is_not_searched_again_for_its_report(study: Study, folder: Path, whole: Path) -> None:
    run = folder / "runs" / NAME
    shutil.copytree(whole, run)
    history = (run / "history.csv").read_bytes()
    outcome = _attempt(study.tasks[0], str(folder), {"report": True}, SimpleNamespace())
    place(folder, NAME, outcome.token)
    assert outcome.status == "finished" and (run / "report.html").exists()
    assert (run / "history.csv").read_bytes() == history
    shutil.copytree(run, folder / ATTEMPTS / NAME / "late")
    shutil.rmtree(run)
    save_checkpoint(folder / ATTEMPTS / NAME / "late" / "checkpoint", {"evaluations": 7, "seconds": 1.0}, {})
    adopt_all(folder)
    assert load_run(run).status == "finished" and (run / "history.csv").read_bytes() == history


def test_a_node_that_does_not_see_the_folder_and_a_cluster_that_is_none(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception, match="does not see the campaign's folder"):
        _attempt(study.tasks[0], str(tmp_path), {}, None)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(QasError, match="no Ray cluster answers at 127.0.0.1:9") as raised, connected("127.0.0.1:9"):
        pass
    assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"\[ray\]"):
        qas.campaign(LONG, out=tmp_path / "out", ray="auto")
    assert not (tmp_path / "out").exists()
    file = tmp_path / "study.toml"
    file.write_text('problems = ["h2-2"]\nagents = ["random"]\nsteps = 3\n')
    assert main(["campaign", str(file), "--ray", "auto", "--workers", "2"]) == 2
    assert "got both" in capsys.readouterr().err
    assert main(["campaign", str(file), "--cpus", "2"]) == 2
    assert "give its address too" in capsys.readouterr().err
