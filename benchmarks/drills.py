"""Drills: commands are killed at random moments, and two at once want the same folder.

    python benchmarks/drills.py kills --out DIR --json results/reliability/kills.json
    python benchmarks/drills.py kills --out DIR --kinds pool campaign --kills 20
    python benchmarks/drills.py locks --out DIR --json results/reliability/locks.json
    python benchmarks/drills.py disks --out DIR --json results/reliability/disks.json       (as root: it mounts)

**kills**: killed commands are given again until they end; do they end as the unbroken ones? A *kind* is one command
with a budget in evaluations, circuits, epochs or edits. It is done once unbroken. Then it begins in a new folder, gets
SIGKILL when it has used a random share of the processor time of the unbroken one, is given again, and so on; after
`LIVES` kills it may end. That is a *case*; cases follow until a kind has had its kills. Where a command has several
processes, all of them are killed, or the first alone, or one of the others alone. Checkpoints are written every
`CHECKPOINT_EVERY` seconds, so that most kills come between two. A case is lost if

- what it ends with is not that of the unbroken command (`contents` of each kind says what is compared: everything but
  times, what holds times, and remarks on neighbours), or it does not end within `MOST` commands;
- a lock, a temporary file or a process is left at its end.

Cases that are done stay in DIR/cases.jsonl: the same command goes on. Prints a table, and fails if a case is lost.

**locks**: two processes begin the same command in the same folder at the same moment. One
has to be refused with one line that names the process and the host of the other, and exit code 2. The other one is
killed; then the folder has to be free, and every tenth time the command is given once more and has to end. A study in
SQLite is what runs share: there both have to end, and the study to hold what both have found.

**disks**: on a disk of its own (tmpfs) that is full or read-only from the beginning, or gets full at a random moment, a
command has to end with one line that says so, and exit code 2; what it has written before has to be whole files. Once
there is space, it is given again and has to end as the unbroken one. What is made in one go (encoders, fine-tunings,
corpora) goes to another folder then, if the first one holds a part of it: a command never removes what it wrote.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ray_drill import children
from ray_drill import contents as contents_of_a_run

from qas.agents.base import Search
from qas.cli import main as qas_main
from qas.encoders.pools import pool
from qas.errors import RunError
from qas.files import hold, read_tensors

CHECKPOINT_EVERY = 0.15
"""Seconds; the usual ten are longer than these searches."""
SHARD = 60
"""Circuits in a file of a pool; the usual 5,000 are more than these pools have."""
ROLLOUT = 64
"""Edits between two updates of a policy; the usual 256 are more than this training plays."""
LIVES = 6
"""Kills of one case, at most."""
MOST = 20
"""Commands of one case, at most."""
MARK = "QAS_DRILL"
"""Variable in the environment of all processes of a case."""

# Processes that a command begins import this file too.
Search.checkpoint_every = CHECKPOINT_EVERY
pool.SHARD = SHARD


# ---------------------------------------------------------------------- what is killed
@dataclass(frozen=True)
class Kind:
    """One command.

    Attributes:
        words: of the command, but for the folder.
        contents: what of a folder is the same at the same seed.
        goes_on: what it goes on from, for the table.
        kills: how many it gets.
        again: the words by which it is given again, where they differ.
        ended: whether nothing is left to do in a folder, where the command would refuse it.
        beside: makes what the command needs, once, in a folder, whose path takes the place of HERE in the words.
    """

    words: str
    contents: Callable[[Path], Any]
    goes_on: str
    kills: int
    again: str | None = None
    ended: Callable[[Path], bool] = lambda folder: False
    beside: Callable[[Path], None] | None = None


def run_has_ended(folder: Path) -> bool:
    summary = folder / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] == "finished" and unlocked(folder)


def unlocked(folder: Path) -> bool:
    """Whether a folder that is made in one go is done: it holds something, and has no writer that was killed."""
    return folder.is_dir() and any(folder.iterdir()) and not (folder / ".lock").exists()


def a_run(folder: Path) -> Any:
    """Remarks speak of the runs beside it, by their paths."""
    summary = json.loads((folder / "summary.json").read_text())
    episodes = folder / "episodes.csv"
    return [
        contents_of_a_run(folder),
        {name: value for name, value in summary.items() if name not in ("seconds", "remarks")},
        episodes.read_bytes() if episodes.exists() else b"",
        (folder / "report.html").exists(),
    ]


def a_campaign(folder: Path) -> Any:
    return [
        (folder / "campaign.json").read_bytes(),
        {run.name: a_run(run) for run in sorted((folder / "runs").iterdir())},
    ]


def a_pool(folder: Path) -> Any:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def an_encoder(folder: Path) -> Any:
    about = without_seconds(json.loads((folder / "encoder.json").read_text()))
    return [about, (folder / "weights.safetensors").read_bytes(), sorted(path.name for path in folder.iterdir())]


FINE_TUNED = ("adapter_model.safetensors", "adapter_config.json", "config.json")


def a_finetuning(folder: Path) -> Any:
    rows = [row[:1] + row[2:] for row in csv.reader((folder / "history.csv").read_text().splitlines())]
    files = {name: (folder / name).read_bytes() for name in FINE_TUNED}
    metrics = without_seconds(json.loads((folder / "metrics.json").read_text()))
    return [rows, files, metrics, sorted(path.name for path in folder.iterdir())]


def a_policy(folder: Path) -> Any:
    from qas.agents.rl.policy import load_policy

    held = load_policy(folder / "policy.safetensors")
    files = sorted(path.name for path in folder.iterdir())
    return [held.digest, held.starts, held.settings, without_seconds(held.training), files]


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if "seconds" not in key}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def searched(agent: str, words: str, evaluations: int) -> Kind:
    options = f"--evaluations {evaluations} --max-gates 8 {words}"
    return Kind(f"search --agent {agent} {options}", a_run, "checkpoint", 13, "search --resume", run_has_ended)


STUDY = """
problems = ["h2-2", "h2-4"]
agents = ["evolution", "random"]
seeds = 1
evaluations = 2000
max_gates = 8
"""
POOL = "pool build --qubits 2 --gates 6 --task h2-2 --seed 3"
SMALL = "-o hidden=[16] -o batch_size=8 -o learn_after=10 -o target_every=5 -o memory=60 -o test_every=3"


def a_study_file(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY)


def a_small_pool(folder: Path) -> None:
    Command(f"{POOL} --size 200 --jobs 1 --out {folder / 'pool'}".split(), folder.name).wait()


KINDS: dict[str, Kind] = {
    "evolution": searched("evolution", "h2-4", 8000),
    "evolution, noise": searched("evolution", "h2-2 --noise ibm-mumbai", 3000),
    "beam": searched("beam", "h2-4", 8000),
    "adapt": searched("adapt", "h2-4 -o pool=qubit", 4000),
    "compact": searched("compact", "heisenberg-3 -o candidates=2 -o tolerance=0.1", 3000),
    "random": searched("random", "h2-4", 8000),
    "editor": searched("editor", "h2-4", 3000),
    "ddqn": searched("ddqn", f"h2-2 {SMALL}", 3000),
    "sb3": searched("sb3", 'h2-2 -o hidden=[16,16] -o settings={"n_steps":16,"batch_size":8,"n_epochs":2}', 2000),
    "bo": searched("bo", "h2-2", 500),
    "bo, SQLite": searched("bo", "h2-2 --storage sqlite:///HERE/CASE.db", 250),
    "reinforce": searched("reinforce", "heisenberg-4 --max-gates 10 -o pool_size=2000", 3000),
    "knn": searched("knn", "heisenberg-4 --max-gates 10 -o pool_size=2000", 3000),
    "campaign": Kind(
        "campaign HERE/study.toml --workers 2 --reports", a_campaign, "checkpoints", 24, beside=a_study_file
    ),
    "pool": Kind(f"{POOL} --size 600 --jobs 3", a_pool, "files of 60 circuits", 20),
    "encoder": Kind(
        "encoder train HERE/pool --epochs 1", an_encoder, "its beginning", 8, ended=unlocked, beside=a_small_pool
    ),
    "policy": Kind(
        "policy train drill --steps 400 --out FOLDER/policy.safetensors", a_policy, "episode, fit or rollout", 12
    ),
    "finetune": Kind(
        "finetune --task digits --epochs 1 --examples 24", a_finetuning, "its beginning", 8, ended=unlocked
    ),
}  # fmt: skip


# ---------------------------------------------------------------------- processes
class Command:
    """``qas WORDS`` in a process that begins with all that this one has loaded, as that takes longer than the searches.

    Args:
        words: of the command.
        token: marks it and all that it begins.
        gate: a pipe; it waits until that is closed.
    """

    def __init__(self, words: list[str], token: str, gate: tuple[int, int] | None = None) -> None:
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._give(words, token, gate)

    def _give(self, words: list[str], token: str, gate: tuple[int, int] | None) -> NoReturn:
        code = 1
        try:
            os.environ[MARK] = token
            sys.argv = [__file__, "qas", *words]
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self._said.fileno(), 2)
            faulthandler.enable()
            if gate is not None:
                os.close(gate[1])
                os.read(gate[0], 1)
            code = qas_main([*words, *(["--quiet"] if words[0] != "report" else [])])
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.005)
        assert self.code is not None
        return self.code

    @property
    def said(self) -> str:
        """Its standard error."""
        self._said.seek(0)
        return self._said.read()


def load() -> None:
    """What commands begin with: one thread, and kernels."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    import matplotlib.figure  # noqa: F401
    import optuna  # noqa: F401
    import stable_baselines3  # noqa: F401
    import torch  # noqa: F401

    import qas
    import qas.campaigns
    import qas.comparison.page
    import qas.encoders.training
    import qas.finetuning.folders
    import qas.report
    from qas.agents.rl import improving
    from qas.envs.families import FAMILIES, Family, Instance

    FAMILIES.register("drill", Family("drill", "two small problems", (Instance("h2-2"), Instance("tfim-2"))))
    improving.ROLLOUT = ROLLOUT
    with tempfile.TemporaryDirectory() as home:
        for noise in (None, "ibm-mumbai"):
            qas.search("h2-2", agent="evolution", noise=noise, steps=6, out=Path(home, str(noise)), report=False)


def used(pid: int) -> float:
    """Seconds of the processor that a process and what it has begun have used."""
    ticks = 0
    for each in (pid, *children(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def left_of(token: str) -> list[int]:
    """Processes of a case that live."""

    def marked(entry: Path) -> bool:
        try:
            return f"{MARK}={token}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and marked(entry)]


def killed(process: Command, after: float, draw: random.Random) -> str:
    """Kill a command when it has used so many seconds of the processor; returns who was killed, "" if it ended before.

    The other processes of one that is killed alone have to end by themselves.
    """
    while used(process.pid) < after:
        if process.poll() is not None:
            return ""
        time.sleep(0.004)
    time.sleep(0.02 * draw.random())
    others = [pid for pid in children(process.pid) if b"resource_tracker" not in cmdline(pid)]
    who = draw.choice(["all", "first", "other"]) if others else "all"
    victims = {"all": [process.pid, *others], "first": [process.pid], "other": [draw.choice(others)] if others else []}
    if process.poll() is not None:
        return ""
    for pid in victims[who]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return who


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# ---------------------------------------------------------------------- cases
@dataclass
class Case:
    """What became of one folder."""

    kind: str
    number: int
    killed: dict[str, int] = field(default_factory=lambda: {"all": 0, "first": 0, "other": 0})
    commands: int = 0
    refused: list[str] = field(default_factory=list)
    """errors of commands that were not killed"""
    equal: bool = False
    left: list[str] = field(default_factory=list)
    """locks, temporary files and processes"""

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    @property
    def lost(self) -> bool:
        return not self.equal or bool(self.left)


def case(name: str, number: int, home: Path, whole: Path, seconds: float) -> Case:
    """Begin a kind in a new folder, and kill it until it ends."""
    kind, told, draw = KINDS[name], Case(name, number), random.Random(f"{name} {number}")
    folder, token = home / f"case-{number}", uuid.uuid4().hex
    shutil.rmtree(folder, ignore_errors=True)
    if "FOLDER" in kind.words:
        folder.mkdir()
    for stale in home.glob(f"case-{number}.db*"):
        stale.unlink()
    while told.commands < MOST and not kind.ended(folder):
        told.commands += 1
        process = Command(words_for(kind, folder), token)
        who = killed(process, 0.9 * seconds * draw.random(), draw) if told.kills < LIVES else ""
        if who:
            told.killed[who] += 1
        if process.wait() == 0 and not who:
            break
        if process.code not in (0, -signal.SIGKILL):
            told.refused.append(process.said.strip()[-2000:])
    told.equal = same(kind, folder, whole)
    told.left = [path.relative_to(home).as_posix() for path in folder.rglob(".*")]
    told.left += [f"process {pid}" for pid in still_left(token)]
    if not told.lost:
        shutil.rmtree(folder)
    return told


def words_for(kind: Kind, folder: Path, home: Path | None = None) -> list[str]:
    if kind.again is not None and (folder / "config.json").exists():
        return [*kind.again.split(), str(folder)]
    words = kind.words.replace("HERE", str(home or folder.parent)).replace("CASE", folder.name)
    if "FOLDER" in words:
        return words.replace("FOLDER", str(folder)).split()
    return [*words.split(), "--out", str(folder)]


def same(kind: Kind, folder: Path, whole: Path) -> bool:
    def plain(path: Path) -> str:
        return repr(kind.contents(path)).replace(f"{path.name}.db", "")

    try:
        return plain(folder) == plain(whole)
    except (OSError, ValueError, KeyError) as error:
        print(f"{folder}: {error!r}", file=sys.stderr)
        return False


def still_left(token: str, patience: float = 30.0) -> list[int]:
    end = time.monotonic() + patience
    while (left := left_of(token)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def unbroken(name: str, home: Path) -> tuple[Path, float]:
    """A kind done at once, and the processor time it took."""
    kind, folder, note = (KINDS | WRITERS)[name], home / "whole", home / "seconds.json"
    if not note.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if kind.beside is not None:
            kind.beside(home)
        folder.mkdir()
        process, seconds = Command(words_for(kind, folder), "whole"), 0.0
        while process.poll() is None:
            seconds = max(seconds, used(process.pid))
            time.sleep(0.05)
        if process.code:
            sys.exit(f"{name}: {process.said}")
        note.write_text(json.dumps(seconds))
    return folder, json.loads(note.read_text())


# ---------------------------------------------------------------------- two at once
ENDED_EVERY = 10
"""Contests of which one is ended by a third command."""
WORDS = {
    "run": "search --resume FOLDER --steps 1000000 --no-report",
    "new run": "search h2-2 --agent random --steps 1000000 --out FOLDER --no-report",
    "pool": f"{POOL} --size 400 --jobs 1 --out FOLDER",
    "campaign": "campaign HERE/study.toml --workers 1 --out FOLDER",
    "study in SQLite": (
        "search h2-2 --agent bo --steps 4 --storage sqlite:///FOLDER/study.db --no-report --out FOLDER/RUN"
    ),
}
THIRD = {"run": "search --resume FOLDER --steps 60 --no-report", "pool": WORDS["pool"], "campaign": WORDS["campaign"]}


@dataclass
class Contest:
    """What became of two commands at once."""

    kind: str
    number: int
    codes: list[int]
    said: list[str]
    told: bool = False
    """the second was told who holds it, in one line"""
    free: bool = False
    """once the first is gone"""
    ended: bool | None = None
    """the third command; None: there was none"""

    @property
    def right(self) -> bool:
        return self.told and self.free and self.ended is not False


def contest(kind: str, number: int, home: Path) -> Contest:
    folder = home / f"{kind.replace(' ', '-')}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "run":
        shutil.copytree(home / "begun", folder)
    elif kind == "study in SQLite":
        folder.mkdir()
    gate, both = os.pipe(), []
    for k in (0, 1):
        words = WORDS[kind].replace("HERE", str(home)).replace("FOLDER", str(folder)).replace("RUN", str(k))
        both.append(Command(words.split(), "contest", gate))
    time.sleep(0.02)
    for end in gate:
        os.close(end)
    found = (_shared if kind == "study in SQLite" else _exclusive)(kind, number, home, folder, both)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _exclusive(kind: str, number: int, home: Path, folder: Path, both: list[Command]) -> Contest:
    while (second := next((k for k in (0, 1) if both[k].poll() is not None), None)) is None:
        time.sleep(0.002)
    first = both[1 - second]
    for pid in (first.pid, *children(first.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    told = both[second].said
    found = Contest(kind, number, [both[second].wait(), first.wait()], [told, first.said])
    holder = f"is being written by process {first.pid} on {socket.gethostname()}; if that has ended, remove "
    found.told = found.codes == [2, -signal.SIGKILL] and holder in told and told.count("\n") == 1
    try:
        hold(folder, "it").release()
        found.free = True
    except RunError as error:
        found.said.append(str(error))
    if kind in THIRD and number % ENDED_EVERY == 0:
        words = THIRD[kind].replace("HERE", str(home)).replace("FOLDER", str(folder))
        third = Command(words.split(), "third")
        found.ended = third.wait() == 0
        found.said.append(third.said)
    return found


def _shared(kind: str, number: int, home: Path, folder: Path, both: list[Command]) -> Contest:
    import optuna

    found = Contest(kind, number, [each.wait() for each in both], [each.said for each in both])
    storage = f"sqlite:///{folder}/study.db"
    trials = [
        trial
        for study in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=study, storage=storage).get_trials(deepcopy=False)
    ]
    found.told = found.free = found.codes == [0, 0] and sum(trial.state.is_finished() for trial in trials) == 8
    return found


def locks(given: argparse.Namespace) -> None:
    home, ledger = given.out.resolve(), given.out / "contests.jsonl"
    home.mkdir(parents=True, exist_ok=True)
    (home / "study.toml").write_text(STUDY)
    if not (home / "begun").exists():
        begun = Command(f"search h2-2 --agent random --steps 40 --no-report --out {home / 'begun'}".split(), "begun")
        if begun.wait():
            sys.exit(begun.said)
    done = [Contest(**json.loads(line)) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    known = {(one.kind, one.number) for one in done}
    todo = [(kind, number) for number in range(given.tries) for kind in given.kinds if (kind, number) not in known]
    for kind, number in todo:
        done.append(contest(kind, number, home))
        with ledger.open("a") as stream:
            stream.write(json.dumps(asdict(done[-1])) + "\n")
        if not done[-1].right:
            print(json.dumps(asdict(done[-1])), file=sys.stderr, flush=True)
    rows = []
    for kind in given.kinds:
        own = [one for one in done if one.kind == kind and one.number < given.tries]
        rows.append(
            {
                "what": kind, "wanted by two": len(own), "as it should be": sum(one.right for one in own),
                "given a third time": sum(one.ended is not None for one in own),
                "and ended": sum(bool(one.ended) for one in own),
            }
        )  # fmt: skip
    print(markdown(rows, words=1))
    write(given.json, {"rows": rows, "contests": [asdict(one) for one in done if not one.right]})
    if any(row["as it should be"] < row["wanted by two"] for row in rows):
        sys.exit("some were not as they should be")


# ---------------------------------------------------------------------- no space
def a_small_study(folder: Path) -> None:
    (folder / "small.toml").write_text(STUDY.replace("2000", "300"))
    Command(f"campaign {folder}/small.toml --workers 1 --out {folder}/study".split(), folder.name).wait()


def a_page(folder: Path) -> Any:
    return [(folder / "runs.csv").read_bytes(), (folder / "page.html").exists(), len(list(folder.iterdir()))]


WRITERS: dict[str, Kind] = {name: KINDS[name] for name in ("random", "campaign", "pool", "encoder", "finetune")} | {
    "report": Kind(
        "report HERE/study --out FOLDER/page.html --csv FOLDER/runs.csv", a_page, "", 0, beside=a_small_study
    ),
    "corpus": Kind("export corpus HERE/study", a_pool, "", 0, ended=unlocked, beside=a_small_study),
}  # fmt: skip
DISK = 2**26
"""Bytes of the disk."""
HOW = ("full", "gets full", "read-only")
_FULL = "no space left on the disk"
SAYS = {"full": _FULL, "gets full": _FULL, "read-only": "Read-only file system"}


@dataclass
class Filled:
    """What became of a command without space."""

    kind: str
    how: str
    number: int
    code: int = 0
    said: str = ""
    told: bool = False
    """one line that says what is wrong, and exit code 2; or it needed no space any more"""
    whole: bool = False
    """all files that are there can be read"""
    equal: bool = False
    """what it ends with, once there is space"""
    left: list[str] = field(default_factory=list)
    again: str = ""

    @property
    def right(self) -> bool:
        return self.told and self.whole and self.equal and not self.left


def filled(name: str, how: str, number: int, home: Path, disk: Path, whole: Path, seconds: float) -> Filled:
    kind, told, draw = WRITERS[name], Filled(name, how, number), random.Random(f"{name} {how} {number}")
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk))
    try:
        folder = disk / "case"
        folder.mkdir()
        if how == "full":
            fill(disk)
        elif how == "read-only":
            mount("-o", "remount,ro", str(disk))
        process = Command(words_for(kind, folder, home), "disk")
        if how == "gets full":
            after = seconds * draw.random()
            while process.poll() is None and used(process.pid) < after:
                time.sleep(0.004)
            fill(disk)
        told.code, said = process.wait(), process.said
        told.said = said.strip()
        one_line = said.count("\n") == 1 and SAYS[how] in said and told.code == 2
        told.told = one_line or (how == "gets full" and told.code == 0)
        if how == "read-only":
            mount("-o", "remount,rw", str(disk))
        (disk / "ballast").unlink(missing_ok=True)
        told.whole = all(map(readable, folder.rglob("[!.]*")))
        if told.code:
            folder = disk / "again" if kind.ended(folder) and kind.again is None else folder
            again = Command(words_for(kind, folder, home), "disk")
            again.wait()
            told.again = again.said.strip()
        told.equal = same(kind, folder, whole)
        told.left = [path.relative_to(disk).as_posix() for path in disk.rglob(".*")]
    finally:
        umount(disk)
    return told


def fill(disk: Path) -> None:
    with open(disk / "ballast", "ab") as stream, suppress(OSError):
        while True:
            os.write(stream.fileno(), bytes(2**12))


def readable(path: Path) -> bool:
    """Whether a file is whole, as far as its kind tells."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            read_tensors(path, "the file")
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.read_table(path)
    except Exception as error:
        print(f"{path}: {error!r}", file=sys.stderr)
        return False
    return True


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def umount(disk: Path) -> None:
    subprocess.run(["umount", str(disk)], check=True)


def disks(given: argparse.Namespace) -> None:
    disk, ledger = given.out.resolve() / "disk", given.out / "disks.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    done = [Filled(**json.loads(line)) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    known = {(one.kind, one.how, one.number) for one in done}
    rows = []
    for name in given.kinds:
        home = (given.out / name.replace(", ", "-")).resolve()
        whole, seconds = unbroken(name, home)
        todo = [("full", 0), ("read-only", 0), *(("gets full", number) for number in range(given.tries))]
        for how, number in todo:
            if (name, how, number) in known:
                continue
            done.append(filled(name, how, number, home, disk, whole, seconds))
            with ledger.open("a") as stream:
                stream.write(json.dumps(asdict(done[-1])) + "\n")
            if not done[-1].right:
                print(json.dumps(asdict(done[-1])), file=sys.stderr, flush=True)
        for how in HOW:
            own = [one for one in done if (one.kind, one.how) == (name, how)]
            rows.append(
                {
                    "command": name, "disk": how, "times": len(own), "refused": sum(one.code == 2 for one in own),
                    "in one line": sum(one.told and one.code == 2 for one in own),
                    "files whole": sum(one.whole for one in own), "equal at the end": sum(one.equal for one in own),
                    "leave something": sum(bool(one.left) for one in own),
                }
            )  # fmt: skip
    print(markdown(rows))
    write(given.json, {"rows": rows, "not right": [asdict(one) for one in done if not one.right]})
    if not all(one.right for one in done):
        sys.exit("some were not as they should be")


def done_before(ledger: Path) -> Iterator[Case]:
    if ledger.exists():
        for line in ledger.read_text().splitlines():
            yield Case(**json.loads(line))


# ---------------------------------------------------------------------- commands
def kills(given: argparse.Namespace) -> None:
    given.out.mkdir(parents=True, exist_ok=True)
    ledger = given.out / "cases.jsonl"
    cases = list(done_before(ledger))
    for name in given.kinds:
        home = (given.out / name.replace(", ", "-")).resolve()
        whole, seconds = unbroken(name, home)
        own = [one for one in cases if one.kind == name]
        while sum(one.kills for one in own) < (given.kills or KINDS[name].kills):
            own.append(case(name, len(own), home, whole, seconds))
            cases.append(own[-1])
            with ledger.open("a") as stream:
                stream.write(json.dumps(asdict(own[-1])) + "\n")
            print(json.dumps(asdict(own[-1])), file=sys.stderr, flush=True)
    rows = [row(name, [one for one in cases if one.kind == name]) for name in given.kinds]
    rows.append({"command": "all", "goes on from": ""} | {key: sum(r[key] for r in rows) for key in list(rows[0])[2:]})
    print(markdown(rows))
    write(given.json, {"rows": rows, "cases": [asdict(one) for one in cases]})
    if rows[-1]["lost"]:
        sys.exit(f"{rows[-1]['lost']} cases are lost")


def row(name: str, cases: list[Case]) -> dict[str, Any]:
    by = {who: sum(one.killed[who] for one in cases) for who in ("all", "first", "other")}
    return {
        "command": name,
        "goes on from": KINDS[name].goes_on,
        "kills": sum(by.values()),
        "of all processes": by["all"],
        "of the first": by["first"],
        "of another": by["other"],
        "cases": len(cases),
        "equal": sum(one.equal for one in cases),
        "leave something": sum(bool(one.left) for one in cases),
        "refused commands": sum(len(one.refused) for one in cases),
        "lost": sum(one.lost for one in cases),
    }


def write(path: Path | None, figures: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n")


def markdown(rows: list[dict[str, Any]], words: int = 2) -> str:
    rule = ["---" if column < words else "---:" for column in range(len(rows[0]))]
    lines = [list(rows[0]), rule, *([str(value) for value in each.values()] for each in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    drills = parser.add_subparsers(required=True)
    for act, kinds, number, default, about in (
        (kills, KINDS, "--kills", None, "of each kind; default what stands in KINDS"),
        (locks, WORDS, "--tries", 200, "of each kind"),
        (disks, WRITERS, "--tries", 5, "of each kind at random moments"),
    ):
        drill = drills.add_parser(act.__name__)
        drill.add_argument("--out", type=Path, required=True, help="folder, gone on with")
        drill.add_argument("--json", type=Path, help="where the figures go")
        drill.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds), metavar="KIND")
        drill.add_argument(number, type=int, default=default, help=about)
        drill.set_defaults(act=act)
    given = parser.parse_args()
    load()
    given.act(given)


if __name__ == "__main__":
    main()
