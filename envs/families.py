"""Families: problems that are alike, some to learn on and others to be asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qas.checks import shortened
from qas.errors import QasError
from qas.problems import BaseProblem, load_problem, problem_from_json
from qas.problems.curves import SHIPPED, Curve
from qas.registry import Registry, recorded

if TYPE_CHECKING:
    from qas.devices import Device


@dataclass(frozen=True)
class Instance:
    """One member of a family: a problem, and where it runs."""

    problem: str | BaseProblem
    """a name of `qas.list_problems()`, or the problem itself"""
    device: str | Device | None = None
    """a name of `qas.list_devices()`, or the device; None: without noise"""
    objective: str | Mapping[str, Any] | None = None
    """what counts as energy on the device; None: "zne\""""

    @property
    def name(self) -> str:
        """The problem's name, and the device's behind an ``@``."""
        problem = self.problem if isinstance(self.problem, str) else self.problem.name
        device = getattr(self.device, "name", self.device)
        return problem if device is None else f"{problem}@{device}"

    def load(self) -> BaseProblem:
        """The problem."""
        return load_problem(self.problem)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-able; `from_json` reads it back."""
        problem, device = (
            each if each is None or isinstance(each, str) else each.to_json() for each in (self.problem, self.device)
        )
        return {"problem": problem, "device": device, "objective": recorded(self.objective)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Instance:
        """What `to_json` told.

        Raises:
            QasError: a damaged problem or device.
        """
        from qas.devices import Device

        problem, device = data["problem"], data["device"]
        return cls(
            problem if isinstance(problem, str) else problem_from_json(problem),
            device if device is None or isinstance(device, str) else Device.from_json(device),
            data["objective"],
        )


@dataclass(frozen=True)
class Family:
    """Instances that one policy is trained on and asked about.

    To add a family, register one (`FAMILIES`, or an entry point in the group ``qas.families``)::

        [project.entry-points."qas.families"]
        ladders = "my_package:LADDERS"

    Raises:
        QasError: no instances to train on, or two of one name: results are told apart by it.
    """

    name: str
    about: str
    """one line for lists"""
    train: tuple[Instance, ...]
    test: tuple[Instance, ...] = ()
    """unseen in training"""
    drawn: Callable[[np.random.Generator], Instance] | None = field(default=None, compare=False)
    """draws one of endlessly many to train on; None: those of `train`"""

    def __post_init__(self) -> None:
        if not self.train:
            raise QasError(f"a family has instances to train on, {shortened(self.name)} has none")
        both = {each.name for each in self.train} & {each.name for each in self.test}
        if both:
            raise QasError(f"what family {self.name} is tested on is not trained on, got {sorted(both)[0]} for both")
        names = Counter(each.name for each in (*self.train, *self.test))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise QasError(f"instances of family {self.name} have names of their own, got {twice[0]} twice")

    def draw(self, rng: np.random.Generator) -> Instance:
        """An instance to train on.

        Raises:
            QasError: nothing but instances of the test was drawn.
        """
        if self.drawn is None:
            return self.train[int(rng.integers(len(self.train)))]
        unseen = {each.name for each in self.test}
        for _ in range(_DRAWS):
            found = self.drawn(rng)
            if found.name not in unseen:
                return found
        raise QasError(f"family {self.name} draws what it is tested on, got {found.name}")


_DRAWS = 1000
"""Draws among which one is of no instance of the test."""
_SEEDS = 100
"""Random instances with seeds below this are for tests."""


def _spins(shape: str) -> Family:
    name = f"xxz-{shape}"

    def members(sizes: Sequence[int], seeds: range) -> tuple[Instance, ...]:
        return tuple(Instance(f"{name}-{n}-{seed}") for n in sizes for seed in seeds)

    def drawn(rng: np.random.Generator) -> Instance:
        return Instance(f"{name}-{rng.integers(4, 7)}-{rng.integers(_SEEDS, 2**31)}")

    about = f"random-field XXZ, {shape}s of 4 to 6 sites; tested on other fields of 6, 8 and 10"
    train = members((4, 5, 6), range(_SEEDS, _SEEDS + 4))
    return Family(name, about, train, members((6, 8, 10), range(4)), drawn)


def _curve(curve: Curve) -> Family:
    train, test = (tuple(map(Instance, names)) for names in (curve.train, curve.test))
    return Family(curve.word, f"{curve.name} over its bond length; tested between and beyond", train, test)


_DEVICES = ("fake_montreal", "fake_brisbane", "fake_fez", "fake_torino")
"""Of different entanglers and generations; the last one is left out."""


def _devices(problem: str) -> Family:
    *train, test = (Instance(problem, device, "zne") for device in _DEVICES)
    about = f"{problem} with the noise of {', '.join(_DEVICES[:-1])}, extrapolated to none; tested on {_DEVICES[-1]}"
    return Family(f"{problem}-devices", about, tuple(train), (test,))


FAMILIES = Registry(
    "families",
    "family",
    {f"xxz-{shape}": _spins(shape) for shape in ("ring", "chain", "graph")}
    | {curve.word: _curve(curve) for curve in SHIPPED.values()}
    | {"lih-4-devices": _devices("lih-4")},
)
"""Name -> `Family`."""


def list_families() -> dict[str, str]:
    """Family name -> one line about it."""
    return {name: FAMILIES.about(name) for name in FAMILIES}


def load_family(family: str | Family) -> Family:
    """A family by its name; one that is given is returned as it is.

    Raises:
        UnknownNameError: no such family; the nearest name is suggested.
        QasError: something else was given, or is registered under the name.
    """
    found = FAMILIES[family] if isinstance(family, str) else family
    if not isinstance(found, Family):
        raise QasError(f"a family is a name or a qas.envs.Family, got {shortened(family)}")
    return found
