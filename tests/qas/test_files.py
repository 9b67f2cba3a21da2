"""Files: written as a whole, by one process at a time, never through links, with headers that are checked."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qas
from qas.agents import resume
from qas.encoders.pools.pool import LabelSettings, PoolProgress, build_pool
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import QasError, RunError
from qas.files import (
    LOCK,
    _born,
    _myself,
    check_versioned,
    hold,
    load_checkpoint,
    new_folder,
    open_to_append,
    parse_json,
    read_bytes,
    read_json,
    read_tensors,
    read_text,
    read_versioned,
    save_checkpoint,
    sha256,
    to_json,
    versioned,
    write_atomic,
)
from qas.runs import Front, Recorder

RACERS, ROUNDS = 4, 20


# ---------------------------------------------------------------------- whole or not at all
def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qas.files.os.fsync", full)
    with pytest.raises(RunError, match="no space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        write_atomic(tmp_path / "no" / "a.txt", "x")


def test_json_has_no_nan() -> None:
    data = {"a": np.float64("nan"), "b": [np.int64(3), np.array([1.0, np.inf])]}
    assert to_json(data) == '{"a": null, "b": [3, [1.0, null]]}'


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError):
        read_json(path, "the file")


def test_checkpoints_replace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    assert load_checkpoint(folder) is None
    for count in range(3):
        save_checkpoint(folder, {"count": count}, {"w": np.full(2, float(count))})
    found = load_checkpoint(folder)
    assert found is not None and found[0] == {"count": 2} and (found[1]["w"] == 2.0).all()
    assert sorted(p.name for p in folder.iterdir()) == ["2", "CURRENT"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qas.files.os.fsync", full)
    with pytest.raises(RunError, match="no space left"):
        save_checkpoint(folder, {"count": 3}, {"w": np.zeros(2)})
    found = load_checkpoint(folder)
    assert found is not None and found[0] == {"count": 2}


@pytest.mark.parametrize("pointer", ["", "../elsewhere", "x", "²"])
def test_damaged_checkpoint_pointer(tmp_path: Path, pointer: str) -> None:
    save_checkpoint(tmp_path / "c", {"a": 1}, {})
    (tmp_path / "c" / "CURRENT").write_text(pointer)
    with pytest.raises(RunError, match="pointer"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_says_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", "x")
        with Recorder.reserve(tmp_path / "run") as recorder:
            recorder.create({})
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "run" / "config.json", tmp_path / "run" / "history.csv"):
        assert stat.S_IMODE(path.stat().st_mode) == mode


# ---------------------------------------------------------------------- one writer at a time
def _race(act: Callable[[int, int], Any]) -> list[list[Any]]:
    """What `act(racer, round)` returns in processes that begin each round together: a list for each round."""
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(RACERS), context.Queue()

    def racer(number: int) -> None:
        for k in range(ROUNDS):
            barrier.wait(60)
            try:
                found.put((k, act(number, k)))
            except RunError as error:
                found.put((k, error))

    processes = [context.Process(target=racer, args=(number,)) for number in range(RACERS)]
    for process in processes:
        process.start()
    rounds: list[list[Any]] = [[] for _ in range(ROUNDS)]
    for _ in range(RACERS * ROUNDS):
        k, result = found.get(timeout=60)
        rounds[k].append(result)
    for process in processes:
        process.join(60)
    return rounds


@pytest.mark.parametrize("given", ["new", "empty", "dead lock"])
def test_one_process_gets_a_folder(tmp_path: Path, given: str) -> None:
    for k in range(ROUNDS) if given != "new" else ():
        (tmp_path / f"run-{k}").mkdir()
        if given == "dead lock":
            (tmp_path / f"run-{k}" / LOCK).write_text(json.dumps(_myself() | {"born": "1"}))

    def begin(racer: int, k: int) -> int:
        Recorder.reserve(tmp_path / f"run-{k}").create({"racer": racer})  # and is not closed
        return racer

    for k, results in enumerate(_race(begin)):
        winners = [r for r in results if not isinstance(r, RunError)]
        assert winners == [json.loads((tmp_path / f"run-{k}" / "config.json").read_text())["racer"]]
        assert all("being written" in str(r) or "new or empty" in str(r) for r in results if isinstance(r, RunError))


def test_names_of_runs_begun_in_the_same_second_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def reserve(racer: int, k: int) -> str:
        return str(new_folder(None, "the run", stem="h2").path)

    names = [name for results in _race(reserve) for name in results]
    assert len(set(names)) == RACERS * ROUNDS and all(Path(name).is_dir() for name in names)


def test_taking_turns(tmp_path: Path) -> None:
    """What is read, changed and written under a lock loses nothing."""
    write_atomic(tmp_path / "count", "0")

    def count(racer: int, k: int) -> None:
        with hold(tmp_path, "the count", wait=60):
            write_atomic(tmp_path / "count", str(int((tmp_path / "count").read_text()) + 1))

    assert not any(isinstance(r, RunError) for results in _race(count) for r in results)
    assert (tmp_path / "count").read_text() == str(RACERS * ROUNDS)
    assert [p.name for p in tmp_path.iterdir()] == ["count"]


def test_who_holds_a_lock(tmp_path: Path) -> None:
    lock, me = tmp_path / LOCK, _myself()

    def refused(data: dict[str, Any], match: str) -> None:
        lock.write_text(json.dumps(data))
        with pytest.raises(RunError, match=match) as caught:
            hold(tmp_path, "the run")
        assert "\n" not in str(caught.value) and json.loads(lock.read_text()) == data

    here = f"the run is being written by process {os.getpid()} on {socket.gethostname()}; .*remove .*lock"
    refused(me, here)
    refused(me | {"born": ""}, here)  # written where that cannot be known
    refused(me | {"host": "elsewhere", "pid": 2**22 + 1}, "on elsewhere")
    if me["pids"]:
        refused(me | {"pids": "pid:[1]", "pid": 2**22 + 1}, "being written")  # another container of this host
    child = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, "the run"))
    lock.unlink()
    child.start()
    child.join()
    assert json.loads(lock.read_text())["pid"] == child.pid and _born(child.pid or 0) is None
    with hold(tmp_path, "the run"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": -1, "host": "a", "pids": "", "born": ""}'])
def test_a_damaged_lock_is_a_dead_one(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    hold(tmp_path, "the run").release()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_reserved_and_given_back(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b", "the run") as outer:
        with new_folder(outer, "the run") as inner:  # a saving function inside
            assert inner == outer
        assert (outer / LOCK).exists()
        with pytest.raises(RunError, match="being written"):
            hold(outer, "the run")
        (outer / "file").write_text("x")
        with pytest.raises(RunError, match="new or empty"):
            new_folder(outer, "the run")
    assert [p.name for p in outer.iterdir()] == ["file"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "c" / "d", "the run"):
        _ = 1 / 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def _killed_writer(folder: Path, what: str) -> None:
    """Leave the lock of a process that was killed in the middle of writing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(json.dumps(_myself() | {"born": "1", "what": what}))
    (folder / ".state.json.0123456789ab").write_text("{")


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    _killed_writer(tmp_path / "run", "the run")
    _killed_writer(tmp_path / "run" / "part", "the part")
    (tmp_path / "run" / "checkpoint").mkdir()
    for name in ("checkpoint/.CURRENT.ba9876543210", "checkpoint/.keep", ".mine.txt", "..lock.0123456789ab"):
        (tmp_path / "run" / name).write_text("x")
    hold(tmp_path / "run", "the run").release()
    kept = {".mine.txt", "checkpoint/.keep", "part/.lock", "part/.state.json.0123456789ab"}
    assert _files(tmp_path / "run") == kept, "a folder below with a lock is its holder's"
    (tmp_path / "run" / ".other.json.0123456789ab").write_text("{")
    hold(tmp_path / "run", "the run").release()
    assert len(_files(tmp_path / "run")) == 5, "nobody was killed: another process may be writing it"


def test_a_new_thing_takes_the_folder_of_one_whose_maker_was_killed(tmp_path: Path) -> None:
    for name, left in (("a", "the run"), ("b", "the encoder")):
        _killed_writer(tmp_path / name, left)
        with new_folder(tmp_path / name, "the encoder"):
            assert _files(tmp_path / name) == {LOCK}, "a temporary file is nothing"
        _killed_writer(tmp_path / name, left)
        (tmp_path / name / "weights").mkdir()
        (tmp_path / name / "weights" / "0").write_text("x")
    for name, what, in_parts in (("a", "the encoder", False), ("a", "the run", True), ("b", "the encoder", True)):
        with pytest.raises(RunError, match="must be new or empty"):
            new_folder(tmp_path / name, what, in_parts=in_parts)
        _killed_writer(tmp_path / name, "the run" if name == "a" else "the encoder")
    assert "weights/0" in _files(tmp_path / "a") & _files(tmp_path / "b")
    with new_folder(tmp_path / "b", "the encoder"):
        assert _files(tmp_path / "b") == {LOCK}


def _interrupted(folder: Path) -> qas.Run:
    """A run that stopped at a checkpoint."""
    asked = []

    def stop(progress: object) -> None:
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGINT))

    return qas.search("h2-2", agent="evolution", steps=3000, max_gates=6, out=folder, report=False, on_progress=stop)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = _interrupted(tmp_path_factory.mktemp("files") / "run")
    assert run.status == "interrupted" and load_checkpoint(run.path / "checkpoint") is not None
    return run.path


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(stopped, tmp_path / "run"))


def test_a_run_has_one_writer_and_any_number_of_readers(folder: Path) -> None:
    told: list[str] = []

    def meanwhile(progress: object) -> None:
        if told:
            return
        for act in (lambda: resume(folder, steps=4000), lambda: qas.search("h2-2", agent="random", out=folder)):
            with pytest.raises(RunError) as caught:
                act()
            told.append(str(caught.value))
        assert qas.load_run(folder).agent == "evolution"
        raise KeyboardInterrupt  # as a second Ctrl-C does

    before = len(qas.load_run(folder).history())
    with pytest.raises(KeyboardInterrupt):
        resume(folder, steps=before + 50, on_progress=meanwhile, report=False)
    assert all(f"the run is being written by process {os.getpid()} on" in line for line in told) and len(told) == 2
    assert not (folder / LOCK).exists()
    assert len(resume(folder, steps=before + 20, report=False).history()) == before + 20


# ---------------------------------------------------------------------- links
@pytest.mark.parametrize("name", ["history.csv", "checkpoint", "study.log", "config.json"])
def test_a_run_with_links_is_not_resumed(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (folder / name).rename(outside) if (folder / name).exists() else outside.write_text("mine")
    if outside.is_dir():
        (outside / "7").mkdir()
        (outside / "7" / "thesis.tex").write_text("mine")

    def held() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in [outside, *outside.rglob("*")] if p.is_file()}

    before = held()
    (folder / name).symlink_to(outside)
    with pytest.raises(RunError, match=f"{name} is a link"):
        resume(folder, steps=4000, report=False)
    assert held() == before and not (folder / LOCK).exists()


def test_links_are_replaced_and_never_followed(tmp_path: Path) -> None:
    for place in ("a", "b", "c"):
        (tmp_path / place).write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_atomic(tmp_path / "link", "ours")
    (tmp_path / "linked.csv").symlink_to(tmp_path / "b")
    with pytest.raises(RunError, match="is a link"):
        open_to_append(tmp_path / "linked.csv", 0)
    os.link(tmp_path / "c", tmp_path / "twice.csv")
    with open_to_append(tmp_path / "twice.csv", 2) as stream:
        stream.write("!")
    assert (tmp_path / "twice.csv").read_text() == "mi!" and (tmp_path / "link").read_text() == "ours"
    (tmp_path / LOCK).symlink_to(tmp_path / "a")
    hold(tmp_path, "the run").release()
    assert [(tmp_path / place).read_text() for place in ("a", "b", "c")] == ["mine"] * 3
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(RunError), open_to_append(tmp_path / "pipe.csv", 10):
        pass


def test_a_checkpoint_removes_only_what_checkpoints_wrote(tmp_path: Path) -> None:
    folder, outside = tmp_path / "checkpoint", tmp_path / "outside"
    for place in (outside, folder / "notes", folder / "0"):
        place.mkdir(parents=True)
        (place / "thesis.tex").write_text("mine")
        (place / "state.json").write_text("{}")
    (folder / "1").symlink_to(outside)
    (folder / "4").mkdir()
    (folder / "4" / ".state.json.abc").write_text("{")  # of a run that was killed
    for count in range(3):
        save_checkpoint(folder, {"count": count}, {})
    found = load_checkpoint(folder)
    assert found is not None and found[0] == {"count": 2}
    assert sorted(p.name for p in folder.iterdir()) == ["0", "1", "4", "CURRENT", "notes"]
    assert [p.name for p in (folder / "4").iterdir()] == ["state.json"]
    for place in (outside, folder / "notes", folder / "0"):
        assert (place / "thesis.tex").read_text() == "mine"
    assert len(list(outside.iterdir())) == len(list((folder / "notes").iterdir())) == 2
    linked = tmp_path / "linked"
    linked.symlink_to(outside)
    with pytest.raises(RunError, match="is a link"):
        save_checkpoint(linked, {}, {})


# ---------------------------------------------------------------------- damaged numbers
@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", '"-1"', "true"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_front_with_a_damaged_energy_is_refused(folder: Path, value: str, place: int) -> None:
    circuits = (folder / "circuits.jsonl").read_bytes()
    state = next((folder / "checkpoint").glob("*/state.json"))
    data = json.loads(state.read_text())
    data["front"][0][place] = "HERE"
    state.write_text(json.dumps(data).replace('"HERE"', value))
    with pytest.raises(QasError, match=r"damaged.*(needed|finite)"):
        resume(folder, steps=4000, report=False)
    assert (folder / "circuits.jsonl").read_bytes() == circuits and not (folder / LOCK).exists()
    with pytest.raises(QasError, match="damaged"):
        Front.from_json(json.loads(state.read_text())["front"])
    (folder / "circuits.jsonl").write_text(circuits.decode().replace('"energy": ', f'"energy": {value}, "old": ', 1))
    with pytest.raises(RunError, match="front is damaged"):
        qas.load_run(folder)


# ---------------------------------------------------------------------- pools
def test_builds_of_two_tasks_at_once_keep_both(tmp_path: Path) -> None:
    space = CircuitSpace(2, ("ry", "cx"), max_gates=3, min_gates=1, max_depth=0)
    settings = LabelSettings(1, 20)
    told = []

    def meanwhile(progress: PoolProgress) -> None:
        if progress.task == "tfim-2" and not told:
            told.append("")
            build_pool(tmp_path, space, 12, tasks=["h2-2"], settings=settings, jobs=1)
            with pytest.raises(RunError, match="the labelling of tfim-2 is being written by"):
                build_pool(tmp_path, space, 12, tasks=["tfim-2"], settings=settings, jobs=1)

    pool = build_pool(tmp_path, space, 12, tasks=["tfim-2"], settings=settings, jobs=1, on_progress=meanwhile)
    assert sorted(pool.tasks) == ["h2-2", "tfim-2"]
    assert not list(tmp_path.rglob(f"{LOCK}*"))


# ---------------------------------------------------------------------- headers and hashes
def test_headers(tmp_path: Path) -> None:
    whole = versioned("qas-thing", 2, {"a": 1})
    assert check_versioned(whole, "qas-thing", 3, "the thing") == {"format": "qas-thing", "version": 2, "a": 1}
    for data, match in [
        (whole | {"version": 4}, "newer version .*version 4, this one reads up to 3"),
        (whole | {"version": True}, "a whole number from 1 to 3, got True"),
        (whole | {"version": 0}, "got 0"),
        (whole | {"format": "other"}, "of format 'qas-thing'"),
        ([], "a JSON object of format"),
    ]:
        with pytest.raises(QasError, match=f"the thing .*{match}|version of the thing .*{match}"):
            check_versioned(data, "qas-thing", 3, "the thing")
    (tmp_path / "a").write_text('{"version": 9}')
    with pytest.raises(RunError, match=r"newer version .*: .*a$"):
        read_versioned(tmp_path / "a", None, 1, "the thing")


def test_hashes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, "it", sha256(b"12345")) == b"12345"
    with pytest.raises(RunError, match="it is cut short or was changed .*noted 00"):
        read_bytes(path, "it", "00")
    with pytest.raises(RunError, match="it is damaged"):
        read_tensors(path, "it")
    with pytest.raises(RunError, match="it is missing"):
        read_tensors(tmp_path / "b", "it")


# ---------------------------------------------------------------------- JSON from outside
BEYOND = [
    "[" * 200_000,
    '{"a":' * 70 + "1" + "}" * 70,
    "1" * 65,
    "1e400",
    "-Infinity",
    "NaN",
    '"\\ud800"',
    "{",
    "\x00",
    "[1,]",
]


@pytest.mark.parametrize("text", BEYOND, ids=lambda text: text[:8])
def test_json_beyond_the_bounds_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RunError, match="the thing is damaged") as caught:
        read_json(path, "the thing")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_json_within_the_bounds_is_read() -> None:
    state = np.random.default_rng(0).bit_generator.state
    assert parse_json(json.dumps(state)) == state
    assert parse_json('["' + "[" * 500 + '", 1e300, "\\ud83d\\ude00"]') == ["[" * 500, 1e300, "\U0001f600"]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(RunError, match="the thing is no regular file"):
            read_bytes(tmp_path / name, "the thing")
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(RunError, match="at most 4 bytes, got 5"):
        read_bytes(tmp_path / "large", "the thing", most=4)
    with pytest.raises(RunError, match="cannot be read"):
        read_text(Path("a\0b"), "the thing")


DAMAGE = [
    ("tried", {"tried": 3}, "agent.tried"),
    (
        "rng",
        {"rng": {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}, "has_uint32": 0, "uinteger": 0}},
        "rng",
    ),
    ("cells", {"cells": [["a", []]]}, r"cells\[0\]\[0\]"),
]


@pytest.mark.parametrize(("name", "change", "words"), DAMAGE, ids=[name for name, _, _ in DAMAGE])
def test_a_damaged_checkpoint_names_its_field(folder: Path, name: str, change: dict[str, Any], words: str) -> None:
    state = next((folder / "checkpoint").glob("*/state.json"))
    data = json.loads(state.read_text())
    state.write_text(json.dumps(data | {"agent": data["agent"] | change}))
    with pytest.raises(RunError, match=f"the checkpoint is damaged at .*{words.removeprefix('agent.')}"):
        resume(folder, steps=4000, report=False)
