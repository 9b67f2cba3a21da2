"""The ledger of a Bayesian optimization: an Optuna study with one trial for each architecture.

It lies in the run folder (``study.log``; ``optuna-dashboard study.log`` opens it) or in a storage that several machines
share. A shared study is also how they learn from each other: circuits of the others count as observations.
"""

from __future__ import annotations

import re
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from qas.circuits import Circuit
from qas.encoders.pools.spaces import CircuitSpace
from qas.errors import QasError
from qas.files import disk_errors, read_text, write_atomic
from qas.vqe import Evaluation

if TYPE_CHECKING:
    import optuna

FILE = "study.log"
"""Journal in the run folder."""
OWNER_FILE = "study.owner"
"""Name of the run in a shared study, in the run folder."""
HIDDEN = "***"
"""Stands where a password was."""


_TRIES = 20
"""Of opening a storage whose tables another process makes at the same moment."""
_PATIENCE = 60.0
"""Seconds to wait for other writers of an SQLite file."""


class Entry(NamedTuple):
    """A circuit that another run evaluated, or is evaluating."""

    number: int
    """the trial's number in the study"""
    circuit: Circuit
    """with its optimized angles where it has an energy"""
    energy: float | None
    """None while it runs"""


class Ledger:
    """One run's view of a study. Energies are minimized.

    A trial is complete, or pruned where the run's budget cut it short and it is not the best of the run. Its parameters
    are what the architecture counts: gates of each kind, two-qubit gates, depth. In a shared study a circuit is
    announced as a running trial, so that others leave it out; in a run's own a trial is written when it is finished,
    all at once.

    Args:
        folder: run folder; without `storage` it must exist.
        study: name of the study.
        storage: an Optuna storage URL such as ``sqlite:///study.db`` or ``postgresql://…``, or the path of a journal
            file that ends in ``.log``; None: a journal in the run folder.
        space: of the circuits.
        goal: what energies are of; those of runs with another one cannot be compared.

    Raises:
        QasError: the storage cannot be opened or does not answer; the study is of another kind. So does every method
            when the storage stops answering.
    """

    def __init__(self, folder: Path, study: str, storage: str | None, space: CircuitSpace, goal: str = "") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.shared = storage is not None
        self._goal = goal
        self._warned = False
        self._folder = folder
        self._where = storage if storage is not None else str(folder / FILE)
        if storage is None:
            _drop_half_a_line(folder / FILE)
        with self._answering():
            self._study = _open_study(self._where, study)
            if self._study.directions != [optuna.study.StudyDirection.MINIMIZE]:
                raise QasError(f"the study {study} in {without_password(self._where)} does not minimize an energy")
            trials = self._study.get_trials(deepcopy=False)
        self.owner: str | None = None
        if self.shared and (folder / OWNER_FILE).exists():
            self.owner = read_text(folder / OWNER_FILE, "the name of the run in the study").strip()
        self._own: dict[tuple[int, str], optuna.trial.FrozenTrial] = {}
        """(number, architecture) -> trial of this run, from before a resume."""
        for trial in trials:
            told = trial.user_attrs
            own = not self.shared or told.get("owner", "") == self.owner
            kept = trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
            if own and kept and "cut" not in told and {"number", "circuit"} <= told.keys():
                self._own[told["number"], _key(told["circuit"])] = trial
        most = {"gates": space.max_gates, "two_qubit_gates": space.max_gates, "depth": space.max_depth}
        most |= dict.fromkeys(space.gates, space.max_gates)
        self._distributions = {name: optuna.distributions.IntDistribution(0, high) for name, high in most.items()}
        self._about: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self._started = datetime.now()
        self._trial: int | None = None
        self._entered = False

    def begin(self, number: int, circuit: Circuit) -> None:
        """Announce the run's `number`-th circuit; a resumed run finds those it had announced before."""
        import optuna

        self._about = {"circuit": [circuit.n_qubits, circuit.to_list()], "number": number}
        counts = {"gates": circuit.n_gates, "two_qubit_gates": circuit.two_qubit_gates, "depth": circuit.depth}
        counts |= {name: circuit.count(name) for name in self._distributions if name not in counts}
        self._counts = {"params": counts, "distributions": self._distributions}
        self._started = datetime.now()
        known = self._own.get((number, _key(self._about["circuit"])))
        self._trial = None if known is None else known._trial_id
        self._entered = known is not None and known.state.is_finished()
        if self.shared and known is None:
            self._about |= {"owner": self._name(), "goal": self._goal}
            state = optuna.trial.TrialState.RUNNING
            running = optuna.trial.create_trial(state=state, user_attrs=self._about, **self._counts)
            with self._answering():
                self._trial = self._study._storage.create_new_trial(self._study._study_id, template_trial=running)

    def finish(self, found: Evaluation | None, *, cut: bool = False, best: bool = False) -> None:
        """Enter what the circuit announced last achieved; nothing if that was entered before a resume.

        Args:
            found: None if the budget ended before anything was known.
            cut: the budget cut the optimization short.
            best: no circuit of the run is better.
        """
        import optuna

        if self._entered or (found is None and self._trial is None):
            return
        pruned = found is None or (cut and not best)
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        about: dict[str, Any] = {} if found is None else {"qasm": found.circuit.to_qasm(), "metrics": _metrics(found)}
        about |= {"cut": True} if cut else {}
        with self._answering():
            if self._trial is None:
                assert found is not None
                attributes = self._about | about
                trial = optuna.trial.create_trial(
                    state=state, value=found.energy, user_attrs=attributes, **self._counts
                )
                trial.datetime_start = self._started
                self._study.add_trial(trial)
            else:
                storage = self._study._storage
                for name, value in about.items():
                    storage.set_trial_user_attr(self._trial, name, value)
                storage.set_trial_state_values(self._trial, state, None if found is None else [found.energy])
        self._entered = True

    def others(self, since: set[int]) -> list[Entry]:
        """Circuits of other runs in a shared study, trials in `since` left out."""
        import optuna

        if not self.shared:
            return []
        with self._answering():
            trials = self._study.get_trials(deepcopy=False)
        entries, strange = [], 0
        for trial in trials:
            told = trial.user_attrs
            if trial.number in since or told.get("owner") in (self.owner, None) or "circuit" not in told:
                continue
            if told.get("goal", "") != self._goal:
                strange += 1
                continue
            n_qubits, gates = told["circuit"]
            if trial.state is optuna.trial.TrialState.COMPLETE and "cut" not in told:
                assert trial.value is not None
                entries.append(Entry(trial.number, Circuit.from_qasm(told["qasm"]), float(trial.value)))
            elif trial.state is optuna.trial.TrialState.RUNNING:
                entries.append(Entry(trial.number, Circuit(n_qubits, gates), None))
        if strange and not self._warned:
            self._warned = True
            warnings.warn(
                f"the study {self._study.study_name} has {strange} circuits that were judged by another problem, noise "
                "or objective; they are left out",
                stacklevel=2,
            )
        return entries

    def _name(self) -> str:
        """The run's name in a shared study: unique, and kept in its folder, so that it survives a move."""
        if self.owner is None:
            self.owner = uuid.uuid4().hex
            write_atomic(self._folder / OWNER_FILE, self.owner + "\n")
        return self.owner

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except QasError:
            raise
        except Exception as error:  # each storage has error classes of its own
            told = str(error).strip().splitlines() or ["no message"]
            message = _masked(f"{type(error).__name__}: {told[0]}", self._where)
            raise QasError(f"the storage {without_password(self._where)} does not answer: {message}") from None


def _metrics(found: Evaluation) -> dict[str, Any]:
    circuit = found.circuit
    return {
        "error": found.error,
        "gates": circuit.n_gates,
        "two_qubit_gates": circuit.two_qubit_gates,
        "depth": circuit.depth,
        "evaluations": found.evaluations,
    }


def _key(circuit: list[Any]) -> str:
    return Circuit(*circuit).key


def _drop_half_a_line(path: Path) -> None:
    """A run killed while it wrote leaves half a line, which would spoil the next one."""
    with disk_errors(path):
        if not path.is_file():
            return
        with open(path, "r+b") as stream:
            data = stream.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                stream.truncate(whole)


def _open_study(where: str, name: str) -> optuna.Study:
    """A study, made if missing; another process may be making it, or the tables of the storage, at the same moment."""
    import optuna

    for left in reversed(range(_TRIES)):
        try:
            return optuna.create_study(
                storage=_open_storage(where),
                study_name=name,
                direction="minimize",
                sampler=optuna.samplers.RandomSampler(seed=0),
                load_if_exists=True,
            )
        except Exception as error:  # SQLAlchemy's
            made = type(error).__name__ == "IntegrityError" or "already exists" in str(error)
            if not (made and left):
                raise
        time.sleep(0.1)
    raise AssertionError("the last try returns or raises")


def _open_storage(where: str) -> Any:
    import optuna

    if where.endswith(".log") and "://" not in where:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(where))
    if "://" not in where:
        raise QasError(
            "a storage is a URL such as sqlite:///study.db, or a journal file that ends in .log, got "
            f"{without_password(where)!r}"
        )
    if where.startswith("sqlite:"):
        waiting = {"connect_args": {"timeout": _PATIENCE}}
        return optuna.storages.get_storage(optuna.storages.RDBStorage(where, engine_kwargs=waiting))
    return optuna.storages.get_storage(where)


_SECRETS = (
    re.compile(r"^[\w+.-]+:/+[^:/]*:(?P<secret>.+)@", re.DOTALL),  # the user may hold an @
    re.compile(r"^[^:/@]+:(?P<secret>[^/].*)@", re.DOTALL),  # the scheme was forgotten
    re.compile(r"^[\w+.-]+://[^:/@]*:(?P<secret>[^/@]*[^/@\d][^/@]*)(?:/|$)"),  # the host was forgotten
    re.compile(r"(?i)[?&]\w*(?:password|passwd|pwd|secret|token|odbc_connect)=(?P<secret>[^&]+)"),
)


def without_password(where: str) -> str:
    """A storage URL without its password."""
    return _masked(where, where)


def _masked(text: str, where: str) -> str:
    """A text without the password of a URL, as written there or decoded."""
    for secret in {m.group("secret") for pattern in _SECRETS for m in pattern.finditer(where)}:
        for form in (secret, unquote(secret)):
            text = text.replace(form, HIDDEN)
    return text
