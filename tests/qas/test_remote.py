"""Folders on other stores: what is there can be gone on with, whenever its writer was killed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import qas
from qas import remote
from qas.agents.base import Search
from qas.agents.launch import resume, search
from qas.campaigns import load_campaign
from qas.cli import main
from qas.errors import MissingExtraError, QasError, RunError
from qas.files import load_checkpoint, lock_of_this_process, save_checkpoint
from qas.record import Record
from qas.remote import _Mirror, near, placed

STORE = fsspec.filesystem("memory")
SETTINGS: dict[str, Any] = {"agent": "random", "evaluations": 2_000, "max_gates": 6, "report": False}


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "EVERY", 0.05)
    yield "memory://box/run"
    if STORE.exists("/box"):
        STORE.rm("/box", recursive=True)


def contents(run: Path) -> list[Any]:
    """What of a run is the same at the same seed."""
    rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    return [
        [row[:1] + row[2:] for row in rows],
        (run / "config.json").read_text(),
        (run / "circuits.jsonl").read_text(),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search("h2-2", out=tmp_path_factory.mktemp("remote") / "whole", **SETTINGS).path


def test_a_run_is_written_read_and_gone_on_with_at_an_address(
    address: str, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Search, "checkpoint_every", 1e9)  # on a busy machine ten seconds pass
    words = ["--agent", "random", "--evaluations", "1000", "--max-gates", "6", "--quiet"]
    assert main(["search", "h2-2", "--out", address, *words]) == 0
    assert f"run folder   {address}\n" in capsys.readouterr().out
    assert sorted(name.rpartition("/")[2] for name in STORE.ls("/box/run", detail=False)) == [
        "best.qasm", "circuits.jsonl", "config.json", "history.csv", "report.html", "summary.json",
    ]  # fmt: skip
    assert qas.load_run(address).evaluations == 1000
    assert main(["inspect", address]) == 0 and main(["search", "h2-2", "--out", address, *words]) == 2
    assert "must be new or empty: memory://box/run" in capsys.readouterr().err
    assert resume(address, evaluations=2000, report=False).evaluations == 2000
    assert contents(near(address))[0] == contents(whole)[0] and contents(near(address))[2] == contents(whole)[2]


def test_whenever_the_writer_is_killed_the_run_can_be_gone_on_with(
    address: str, whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Search, "checkpoint_every", 0.02)
    monkeypatch.setattr(Record, "tell_every", 0.02)

    class Killed(BaseException):
        pass

    put = _Mirror._put
    gone_on = 0
    for last in (3, 6, 9):
        place = f"{address}{last}"
        mirror, count = _Mirror(place), itertools.count(1)

        def until_killed(self: _Mirror, name: str, data: bytes, count: Any = count, last: int = last) -> None:
            if next(count) > last:
                raise Killed
            put(self, name, data)

        monkeypatch.setattr(_Mirror, "_put", until_killed)
        with pytest.raises(Killed):
            search("h2-2", out=mirror.folder / "run", on_progress=lambda _, m=mirror: m.push(), **SETTINGS)
            mirror.push()
            raise Killed
        monkeypatch.setattr(_Mirror, "_put", put)
        there = near(f"{place}/run")
        if (there / "config.json").exists():
            assert contents(resume(f"{place}/run", report=False).path) == contents(whole)
            gone_on += 1
    assert gone_on >= 2


def test_one_writer_at_a_time_and_that_of_an_ended_process_is_taken_over(address: str) -> None:
    with placed(address, "the run", fresh=True) as folder:
        assert folder is not None
        (folder / "a").write_text("1")
        with (
            pytest.raises(RunError, match="the run is being written by process"),
            placed(address, "the run", fresh=True),
        ):
            pass
    assert STORE.cat_file("/box/run/a") == b"1" and not STORE.exists("/box/run/.lock")
    STORE.pipe_file("/box/run/.lock", lock_of_this_process("the run").replace('"pid": ', '"pid": 99999').encode())
    with placed(address, "the run", fresh=False) as folder:
        assert folder is not None and (folder / "a").read_text() == "1"
        (folder / "a").unlink()
    assert not STORE.exists("/box/run/a") and not STORE.exists("/box/run/.lock")


def test_a_campaign_and_its_report_at_an_address(address: str, tmp_path: Path, workers_in_threads: None) -> None:
    study = {"problems": ["h2-2"], "agents": ["random"], "seeds": 2, "steps": 5, "max_gates": 4, "out": address}
    assert set(qas.campaign(study, workers=1).status().values()) == {"finished"}
    assert set(load_campaign(address).status().values()) == {"finished"}
    assert main(["report", address, "--out", str(tmp_path / "page.html")]) == 0
    again = qas.campaign(study, workers=1)
    assert len(again.runs) == 2
    with pytest.raises(QasError, match="a folder that all nodes see, got memory"):
        qas.campaign(study, ray="auto")


def test_addresses_that_are_none(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="memory://box/nothing$"):
        qas.load_run("memory://box/nothing")
    assert qas.load_run(f"file://{whole}").evaluations == 2000
    with pytest.raises(QasError, match="no store for nonsense://a"):
        qas.load_run("nonsense://a")
    with pytest.raises(RunError, match="not a run folder"):
        qas.load_run("memory://box/none")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _: exec("raise ImportError('Install s3fs')"))
    with pytest.raises(MissingExtraError, match=r"\[s3\]"):
        qas.load_run("s3://bucket/run")


def test_a_checkpoint_stays_until_the_pointer_names_another(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that are replaced while files are listed or go up, more often than an upload takes."""
    mirror, put, files = _Mirror(address), _Mirror._put, _Mirror._files
    checkpoint, counts = mirror.folder / "checkpoint", itertools.count()

    def write() -> None:
        save_checkpoint(checkpoint, {"count": next(counts)}, {})

    def replaced(after: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any) -> Any:
            found = after(*arguments)
            write()
            return found

        return do

    def there() -> int:
        """What a second machine could go on with, however this push was cut short."""
        found = load_checkpoint(near(address) / "checkpoint")
        assert found is not None
        return int(found[0]["count"])

    write()
    mirror.push()
    assert there() == 0
    (mirror.folder / "before").write_text("1")
    write()
    monkeypatch.setattr(_Mirror, "_put", replaced(put))
    mirror.push()
    assert there() == 0
    monkeypatch.setattr(_Mirror, "_put", put)
    monkeypatch.setattr(_Mirror, "_files", replaced(files))
    mirror.push()
    assert there() == 0
    monkeypatch.setattr(_Mirror, "_files", files)
    mirror.push()
    assert there() == next(counts) - 1
    assert len(STORE.find("/box/run/checkpoint")) == 2, "older ones are gone"


def test_a_checkpoint_that_moves_on_as_the_files_are_listed_waits(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, files, calls = _Mirror(address), _Mirror._files, itertools.count()
    checkpoint = mirror.folder / "checkpoint"
    save_checkpoint(checkpoint, {"count": 0}, {})
    mirror.push()

    def listed(self: _Mirror) -> dict[str, Path]:
        found = files(self)
        if next(calls) == 1:
            save_checkpoint(checkpoint, {"count": 1}, {})
        return found

    monkeypatch.setattr(_Mirror, "_files", listed)
    for count in (0, 1):
        mirror.push()
        found = load_checkpoint(near(address) / "checkpoint")
        assert found is not None and found[0]["count"] == count


def test_uploads_go_on_whatever_goes_wrong_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, calls = _Mirror._files, itertools.count()

    def failing(self: _Mirror) -> dict[str, Path]:
        if next(calls) < 2:
            raise FileNotFoundError("a folder that has just gone")
        return files(self)

    monkeypatch.setattr(_Mirror, "_files", failing)
    with pytest.warns(UserWarning, match="it is tried again"), placed(address, "the run", fresh=True) as folder:
        assert folder is not None
        (folder / "a").write_text("1")
        for _ in range(400):
            if STORE.exists("/box/run/a"):
                break
            time.sleep(0.05)
        assert STORE.exists("/box/run/a")
