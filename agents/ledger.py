"""The ledger of a Bayesian optimization: an Optuna study with one trial for each architecture.

It lies in the run folder (``study.log``; ``optuna-dashboard study.log`` opens it) or in a storage that several machines
share. A shared study is also how they learn from each other: circuits of the others count as observations.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qas.circuits import Circuit
from qas.errors import QasError
from qas.vqe import Evaluation

if TYPE_CHECKING:
    import optuna

FILE = "study.log"
"""Journal in the run folder."""


class Entry(NamedTuple):
    """A circuit that another run evaluated, or is evaluating."""

    number: int
    """the trial's number in the study"""
    circuit: Circuit
    energy: float | None
    """None while it runs"""


class Ledger:
    """One run's view of a study. Energies are minimized.

    Args:
        folder: run folder.
        study: name of the study.
        storage: an Optuna storage URL such as ``sqlite:///study.db`` or ``postgresql://…``, or the path of a journal
            file that ends in ``.log``; None: a journal in the run folder.
        owner: name of this run in a shared study.

    Raises:
        QasError: the storage cannot be opened or does not answer; the study is of another kind.
    """

    def __init__(self, folder: Path, study: str, storage: str | None, owner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.owner = owner
        self.shared = storage is not None
        where = storage if storage is not None else str(folder / FILE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._study = optuna.create_study(
                    storage=_open_storage(where),
                    study_name=study,
                    direction="minimize",
                    sampler=optuna.samplers.RandomSampler(seed=0),
                    load_if_exists=True,
                )
        except QasError:
            raise
        except Exception as error:  # each storage has error classes of its own
            raise QasError(f"the storage {_hidden(where)} does not answer: {_first_line(error)}") from None
        if self._study.directions != [optuna.study.StudyDirection.MINIMIZE]:
            raise QasError(f"the study {study} in {_hidden(where)} is not one that minimizes an energy")
        self._own: dict[int, optuna.trial.FrozenTrial] = {}
        self._finished: set[int] = set()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.user_attrs.get("owner") == owner:
                self._own[int(trial.user_attrs["number"])] = trial

    def begin(self, number: int, circuit: Circuit) -> None:
        """Announce the run's `number`-th circuit; a resumed run finds those it had announced before."""
        if number in self._own:
            return
        trial = self._study.ask()
        trial.set_user_attr("circuit", [circuit.n_qubits, circuit.to_list()])
        trial.set_user_attr("owner", self.owner)
        trial.set_user_attr("number", number)
        self._own[number] = trial._cached_frozen_trial

    def finish(self, number: int, found: Evaluation, metrics: dict[str, Any]) -> None:
        """Enter what the run's `number`-th circuit achieved; nothing if that was entered before a resume."""
        trial = self._own[number]
        if trial.state.is_finished() or number in self._finished:
            return
        storage, key = self._study._storage, trial._trial_id
        storage.set_trial_user_attr(key, "qasm", found.circuit.to_qasm())
        storage.set_trial_user_attr(key, "metrics", metrics)
        self._study.tell(trial.number, found.energy)
        self._finished.add(number)

    def others(self, since: set[int]) -> list[Entry]:
        """Circuits of other runs in a shared study, trials in `since` left out."""
        if not self.shared:
            return []
        entries = []
        for trial in self._study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if trial.number in since or attributes.get("owner") in (self.owner, None) or "circuit" not in attributes:
                continue
            n_qubits, gates = attributes["circuit"]
            energy = trial.value if trial.state.is_finished() else None
            entries.append(Entry(trial.number, Circuit(n_qubits, gates), None if energy is None else float(energy)))
        return entries


def _open_storage(where: str) -> Any:
    import optuna

    if where.endswith(".log") and "://" not in where:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(where))
    if "://" not in where:
        raise QasError(
            f"a storage is a URL such as sqlite:///study.db, or a journal file that ends in .log, got {where!r}"
        )
    return optuna.storages.get_storage(where)


def _hidden(where: str) -> str:
    """A storage URL without its password."""
    scheme, mark, rest = where.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{account.partition(':')[0]}{at}{host}" if at else where


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
