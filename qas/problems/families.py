"""Families of problems: what `load_problem` finds by name, and the door by which other packages bring their own."""

from __future__ import annotations

import abc
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from qas.checks import one_line, shortened
from qas.errors import QasError, UnknownNameError
from qas.files import read_json
from qas.problems.base import BaseProblem
from qas.problems.files import READERS, read_content
from qas.problems.hamiltonian import FORMAT, Problem, problem
from qas.registry import Registry

MAX_QUBITS = 20
"""Largest member of the spin and max-cut families."""
MOLECULES = Path(__file__).parents[1] / "data" / "molecules"
"""Where the shipped molecules are."""


class Family(abc.ABC):
    """Problems that are known by name, and the format of their files.

    A family is a class without arguments, or an instance of one, and registered under the word that names of its
    members begin with, before a hyphen or a space. A package registers it as an entry point::

        [project.entry-points."qas.problems"]
        ladder = "my_package:Ladder"

    with, in ``my_package``::

        class Ladder(qas.problems.Family):
            pattern = "ladder-N"
            about = "Heisenberg ladder of N rungs"
            small = ("ladder-2",)

            def load(self, member):  # "4" of "ladder-4"
                if not (member.isdecimal() and 2 <= int(member) <= 8):
                    raise self.wrong(member)
                return qas.problem(..., name=f"ladder-{member}")

    A family whose members are made from a file has a pattern such as ``"ladder-file FILE"``; then `load` gets what
    stands behind the space, as the user wrote it.
    """

    pattern: str
    """How its members are named, for lists; capital letters stand for what is to be filled in."""
    about: str
    """One line about it."""
    small: tuple[str, ...] = ()
    """Names of members small enough for tests; suggested for names that are nearly theirs."""
    formats: ClassVar[Mapping[str, Any]] = {}
    """Format in problem files -> the `BaseProblem` that reads it, or where that class is: ``"module:Class"``."""

    @property
    def word(self) -> str:
        """What it is registered under and names of its members begin with."""
        return re.split(r" |-(?=[A-Z])", self.pattern)[0]

    @property
    def takes(self) -> str:
        """What its names need behind a space, such as ``FILE``; empty: nothing."""
        return self.pattern.partition(" ")[2]

    @property
    def rule(self) -> str:
        """How its members are named, for messages; more than the pattern where that does not say all."""
        return self.pattern

    @abc.abstractmethod
    def load(self, member: str) -> BaseProblem:
        """The problem behind a name.

        Args:
            member: what follows the family's word, without the hyphen or space in between: in lower case, or the file.

        Raises:
            QasError: no such member (`wrong`), or a file that cannot be read.
        """

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        """Names of members to suggest for an unknown name; all of them exist.

        Args:
            numbers: those in the unknown name.
        """
        return self.small

    def examples(self, folder: Path) -> tuple[str, ...]:
        """Names of small members for tests.

        Args:
            folder: where files may be written that they need.
        """
        return self.small

    def wrong(self, member: str) -> QasError:
        """The error for a name that breaks the rule."""
        name = f"{self.word}-{member}" if member else self.word
        return QasError(f"{self.word} problems are named {self.rule}, got {shortened(name)}")


class Seeded(Family):
    """Random problems of N qubits that a seed tells apart: ``word-N-SEED``.

    Args:
        word: beginning of their names.
        make: makes the member from N and the seed.
        most: largest N; the smallest is 2.
        about: one line.
        small: as of `Family`.
    """

    def __init__(
        self, word: str, make: Callable[[int, int], BaseProblem], most: int, about: str, small: tuple[str, ...]
    ) -> None:
        self.pattern, self.about, self.small = f"{word}-N-SEED", about, small
        self._make, self._most = make, most

    @property
    def rule(self) -> str:
        return f"{self.pattern} with N from 2 to {self._most}"

    def load(self, member: str) -> BaseProblem:
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})", member, flags=re.ASCII)
        if not match or not 2 <= int(match[1]) <= self._most:
            raise self.wrong(member)
        return self._make(int(match[1]), int(match[2]))

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        n, seed = (*numbers[:2], 0, 0)[:2]
        return (f"{self.word}-{n}-{seed}",) if 2 <= n <= self._most else self.small


class Single(Family):
    """One problem with a name of its own.

    Args:
        name: its name.
        make: makes it.
        about: one line; None: its description.
    """

    def __init__(self, name: str, make: Callable[[], BaseProblem], about: str | None = None) -> None:
        self.pattern, self.small, self._make, self._about = name, (name,), make, about

    @property
    def about(self) -> str:  # type: ignore[override]
        return self._make().description if self._about is None else self._about

    def load(self, member: str) -> BaseProblem:
        return self._make()


def _molecule(path: Path) -> Problem:
    return Problem.from_json(read_json(path, "a shipped molecule"))


def _tapered(path: Path) -> Problem:
    return _molecule(path).tapered(name=f"{path.stem}-tapered-jw")


PROBLEMS = Registry(
    "problems",
    "problem family",
    {
        path.stem: Single(path.stem, partial(_molecule, path))
        for path in sorted(MOLECULES.glob("*.json"), key=lambda p: p.stem)
    }
    | {
        f"{path.stem}-jw": Single(f"{path.stem}-jw", partial(_tapered, MOLECULES / f"{path.stem[:-8]}.json"))
        for path in sorted(MOLECULES.glob("*-tapered.json"), key=lambda p: p.stem)
    }
    | {
        "lih-4-curve": "qas.problems.curves:LIH_4",
        "lih-6-curve": "qas.problems.curves:LIH_6",
        "h4-8-curve": "qas.problems.curves:H4_8",
        "beh2-6-curve": "qas.problems.curves:BEH2_6",
        "tfim": "qas.problems.spins:TFIM",
        "heisenberg": "qas.problems.spins:HEISENBERG",
        "heisenberg-field": "qas.problems.spins:RANDOM_FIELD",
        "xxz-ring": "qas.problems.spins:XXZ_RING",
        "xxz-chain": "qas.problems.spins:XXZ_CHAIN",
        "xxz-graph": "qas.problems.graphs:XXZ_GRAPHS",
        "cluster": "qas.problems.spins:CLUSTER",
        "tfim-graph": "qas.problems.graphs:TFIM_GRAPHS",
        "heisenberg-graph": "qas.problems.graphs:HEISENBERG_GRAPHS",
        "maxcut-4-url": "qas.problems.graphs:PUBLISHED_4",
        "maxcut-8-url": "qas.problems.graphs:PUBLISHED_8",
        "maxcut": "qas.problems.graphs:RANDOM_GRAPHS",
        "state": "qas.problems.states:RANDOM_STATES",
        "toffoli-3": "qas.problems.unitaries:TOFFOLI_3",
        "toffoli-4": "qas.problems.unitaries:TOFFOLI_4",
        "fredkin-3": "qas.problems.unitaries:FREDKIN_3",
        "peres-3": "qas.problems.unitaries:PERES_3",
        "qft-2": "qas.problems.unitaries:QFT_2",
        "qft-3": "qas.problems.unitaries:QFT_3",
        "qft-4": "qas.problems.unitaries:QFT_4",
        "unitary": "qas.problems.unitaries:RANDOM_UNITARIES",
        "unitary-target": "qas.problems.unitaries:UNITARY_FILE",
        "labelled": "qas.encoders.labelled:LabelledPools",
        "adapter": "qas.adapters.problems:Directions",
        "adapter-target": "qas.adapters.problems:TARGET_FILE",
        "adapter-gradient": "qas.adapters.problems:GRADIENT_FILE",
    },
)
"""Word that names begin with -> `Family`."""


def family(word: str) -> Family:
    """The family that is registered under a word.

    Raises:
        UnknownNameError: none is.
        QasError: what is registered is no family, or cannot be loaded.
    """
    thing = PROBLEMS[word]
    made = thing() if isinstance(thing, type) and issubclass(thing, Family) else thing
    if not isinstance(made, Family):
        raise QasError(f"a problem family is a subclass of qas.problems.Family or an instance, got {shortened(thing)}")
    return made


def list_problems() -> dict[str, str]:
    """Ids that `load_problem` knows, each with one line about it; capital letters stand for what is to be filled in."""
    return {each.pattern: each.about for each in map(family, PROBLEMS)}


def needs_file(name: str) -> bool:
    """Whether `load_problem` wants something behind this name, after a space: mostly the path of a file."""
    word = name.strip().lower()
    return word in PROBLEMS and bool(family(word).takes)


def load_problem(source: str | os.PathLike[str] | BaseProblem) -> BaseProblem:
    """A problem by its name, or from a file.

    Args:
        source: a molecule such as ``lih-4``; a member of a family such as ``tfim-6`` or ``adapter-target dW.npy``; the
            path of a file (see `qas.problems.files`): a problem or Pauli strings in .json, an operator in .qpy, a
            matrix in .npy; or a problem, which is returned as it is.

    Raises:
        UnknownNameError: no such id; the message names the nearest one.
        RunError: no such file, or one that is damaged.
        QasError: a malformed member of a family, such as ``tfim-0``, or a file that holds something else.
    """
    if isinstance(source, BaseProblem):
        return source
    if isinstance(source, os.PathLike):
        return _read_file(Path(source))
    if not isinstance(source, str):
        raise QasError(f"a problem is loaded by its name or from a file, got {type(source).__name__}")
    name, _, rest = source.strip().partition(" ")
    found, rest = _find(name), rest.strip()
    if Path(source.strip()).suffix.lower() in READERS and not (found and found[0].takes and rest):
        return _read_file(Path(source.strip()))
    if found is None:
        raise UnknownNameError("problem", shortened(source)[1:-1], _suggestions(source))
    its, member = found
    if its.takes:
        if member or not rest:
            raise QasError(
                f"{its.word} needs {its.takes} behind its name, as in {its.pattern}; got {shortened(source)}"
            )
        return its.load(rest)
    if rest:
        raise QasError(f"{name} takes nothing behind its name, got {shortened(source)}")
    return its.load(member)


def _read_file(path: Path) -> BaseProblem:
    content = read_content(path)
    try:
        if isinstance(content, Mapping) and "format" in content:
            return problem_from_json(content)
        name = re.sub(r"[^A-Za-z0-9._+-]+|^[._+-]+", "-", path.stem).strip("-")[:90] or "custom"
        name = f"file-{name}" if _find(name) else name  # it is not what else has that name
        return problem(content, name=name, description=f"operator of the file {one_line(path.name)}")
    except QasError as error:
        raise QasError(f"{path}: {error}") from None


def problem_from_json(data: Any) -> BaseProblem:
    """Rebuild a problem of any kind from the dict that its `to_json` made.

    Raises:
        QasError: a format that no family reads, or a dict that the class of its format refuses.
    """
    return (_reader(data.get("format")) if isinstance(data, Mapping) else Problem).from_json(data)


def _reader(named: Any) -> type[BaseProblem]:
    if named != FORMAT and isinstance(named, str):
        for each in map(family, PROBLEMS):
            kind = each.formats.get(named)
            if isinstance(kind, str):
                module, attribute = kind.split(":")
                kind = getattr(importlib.import_module(module), attribute)
            if kind is not None:
                return kind
    return Problem


def _find(name: str) -> tuple[Family, str] | None:
    """Family of a name, that of the longest word the name begins with, and what follows the word."""
    pieces = name.lower().split("-")
    for end in range(len(pieces), 0, -1):
        word = "-".join(pieces[:end])
        if word in PROBLEMS:
            its = family(word)
            if end == len(pieces) or its.pattern != word:
                return its, "-".join(pieces[end:])
    return None


def _suggestions(name: str) -> Iterator[str]:
    numbers = [int(digits) for digits in re.findall(r"\d{1,9}", name, flags=re.ASCII)]
    for each in map(family, PROBLEMS):
        yield from each.near(numbers)
