"""Callbacks: whatever they do, a search finds the same, and keeps it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import qas
from qas.agents.launch import resume
from qas.callbacks import CALLBACKS, Callback, Snapshot, make_callback
from qas.cli import main
from qas.errors import MissingExtraError, QasError, UnknownNameError
from qas.record import Record
from qas.testing import CallbackContract

SETTINGS: dict[str, Any] = {"agent": "random", "evaluations": 4_000, "max_gates": 6, "report": False}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches this short end before anything is told."""
    monkeypatch.setattr(Record, "tell_every", 0.005)


class TestTensorBoard(CallbackContract):
    callback = "tensorboard"

    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("tensorboard")


def test_what_is_registered_has_its_contract_or_a_fake() -> None:
    assert sorted(CALLBACKS) == ["tensorboard", "wandb"]


def test_a_function_hears_of_the_search_and_false_ends_it(tmp_path: Path) -> None:
    told: list[Snapshot] = []

    def heard(snapshot: Snapshot) -> bool | None:
        told.append(snapshot)
        return False if len(told) == 2 else None

    run = qas.search("h2-2", out=tmp_path / "run", callbacks=[heard], **SETTINGS | {"evaluations": 10**6})
    assert run.status == "interrupted" and len(told) >= 2
    last = told[-1].numbers()
    assert last["error"] == told[-1].progress.best_error and last["front"] == len(told[-1].front)
    assert told[0].progress.evaluations < told[1].progress.evaluations <= run.evaluations
    assert {s.folder for s in told} == {tmp_path / "run"}


@pytest.mark.parametrize("when", ["on_start", "__call__", "on_end"])
def test_one_that_raises_ends_the_search_in_order(when: str, tmp_path: Path) -> None:
    class Bad(Callback):
        pass

    def fail(*_: Any) -> None:
        raise RuntimeError("no\nnetwork")

    setattr(Bad, when, fail)
    with pytest.raises(
        QasError, match=r"^the callback Bad failed: RuntimeError: no network; the run is kept in"
    ) as raised:
        qas.search("h2-2", out=tmp_path / "run", callbacks=[Bad], **SETTINGS)
    assert "\n" not in str(raised.value)
    found = qas.load_run(tmp_path / "run")
    assert found.status == {"on_start": "running", "__call__": "interrupted", "on_end": "finished"}[when]
    if when == "__call__":
        whole = qas.search("h2-2", out=tmp_path / "whole", **SETTINGS)
        again = resume(tmp_path / "run", report=False)
        assert [(r.error, r.circuit.key) for r in again.front] == [(r.error, r.circuit.key) for r in whole.front]


def test_weights_and_biases_is_told_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match=r"\[wandb\]"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        make_callback("wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    begun: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []
    ended: list[int] = []
    board = SimpleNamespace(log=lambda data, step: logged.append((data, step)), finish=lambda: ended.append(1))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: begun.append(how) or board))
    run = qas.search("h2-2", out=tmp_path / "run", callbacks=["wandb"], **SETTINGS)
    assert begun[0]["mode"] == "offline" and begun[0]["config"]["seed"] == 0 and ended == [1]
    assert logged and logged[-1][0]["error"] >= run.best.error and logged[-1][1] <= run.evaluations


def test_callbacks_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers_in_threads: None
) -> None:
    (tmp_path / "my_callbacks.py").write_text(
        "number = 3\n"
        "def note(snapshot):\n    (snapshot.folder / 'noted').write_text(str(snapshot.progress.evaluations))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [
        "search",
        "h2-2",
        "--agent",
        "random",
        "--evaluations",
        "4000",
        "--max-gates",
        "6",
        "--quiet",
        "--no-report",
    ]
    assert main([*words, "--out", "run", "--callback", "my_callbacks:note"]) == 0
    assert int((tmp_path / "run" / "noted").read_text()) > 0
    study = {"problems": ["h2-2"], "agents": ["random"], "evaluations": 20_000, "max_gates": 6}
    done = qas.campaign(study, out="campaign", workers=1, callbacks=["my_callbacks:note"])
    assert (done.path / "runs" / "h2-2-random-s0" / "noted").exists()
    capsys.readouterr()
    for given, told in {
        "tensorbord": "did you mean 'tensorboard'", "my_callbacks:none": "cannot be imported",
        "my_callbacks:number": "a callback is a name", "none:none": "cannot be imported: No module named 'none'",
    }.items():  # fmt: skip
        assert main([*words, "--out", "other", "--callback", given]) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(UnknownNameError):
        qas.campaign(study, out="other", callbacks=["mine"])
    with pytest.raises(QasError, match="copied to its workers") as raised:
        qas.campaign(study, out="other", callbacks=[lambda snapshot: None])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "other").exists()
