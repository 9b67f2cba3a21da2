"""Molecules over bond lengths: one file holds a problem's strings once, and its coefficients at each length."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qas.files import read_versioned
from qas.hamiltonians import Hamiltonian
from qas.problems.families import Family
from qas.problems.hamiltonian import REFERENCES, SIMPLE, Problem

CURVES = Path(__file__).parents[1] / "data" / "curves"
"""Where the shipped curves are."""
FORMAT, VERSION = "qas-curve", 1


class Curve(Family):
    """A shipped molecule at some bond lengths: ``lih-4-curve-2.4`` at 2.4 ångström.

    Args:
        name: of the file in `CURVES`, such as ``lih-4``.
        train: lengths to learn on, ångström.
        test: lengths between and beyond these.
    """

    def __init__(self, name: str, train: Sequence[float], test: Sequence[float]) -> None:
        self.name, self.lengths = name, sorted([*train, *test])
        self.pattern = f"{name}-curve-LENGTH"
        shortest, longest = self.lengths[0], self.lengths[-1]
        self.about = f"{name} at {len(self.lengths)} bond lengths from {shortest:g} to {longest:g} angstrom"
        self.train, self.test = (tuple(f"{name}-curve-{length:g}" for length in part) for part in (train, test))
        self.small = self.train[:2]

    @functools.cached_property
    def _data(self) -> dict[str, Any]:
        return dict(read_versioned(CURVES / f"{self.name}.json", FORMAT, VERSION, "a shipped curve"))

    @property
    def rule(self) -> str:
        return f"{self.pattern} with LENGTH one of {' '.join(f'{length:g}' for length in self.lengths)}"

    def load(self, member: str) -> Problem:
        data = self._data
        try:
            length = f"{float(member):g}"
            found = data["members"][length]
        except (ValueError, KeyError):
            raise self.wrong(member) from None
        return Problem(
            name=f"{self.word}-{length}",
            hamiltonian=Hamiltonian({s: c for s, c in zip(data["terms"], found["coefficients"], strict=True) if c}),
            unit=data["unit"],
            threshold=data["threshold"],
            description=f"{self.name} at {length} angstrom",
            provenance=data["provenance"] | found["provenance"],
            references={key: found[key] for key in (*REFERENCES, *SIMPLE) if key in found},
        )

    def near(self, numbers: list[int]) -> tuple[str, ...]:
        return (*self.train, *self.test)


def _steps(first: float, step: float) -> list[float]:
    return [round(first + step * k, 3) for k in range(10)]


_LIH = _steps(1.2, 0.3), [1.05, 1.35, 1.65, 1.95, 2.25, 2.55, 3.15, 3.75, 4.05, 4.2]
LIH_4, LIH_6 = Curve("lih-4", *_LIH), Curve("lih-6", *_LIH)
H4_8 = Curve("h4-8", _steps(0.7, 0.15), [0.6, 0.775, 0.925, 1.075, 1.225, 1.375, 1.525, 1.825, 2.2, 2.4])
BEH2_6 = Curve("beh2-6", _steps(0.95, 0.1), [0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 1.9, 1.95])
"""Followed as long as the third orbital is of the pi pair; beyond 2 ångström a sigma orbital lies lower."""
SHIPPED = {curve.name: curve for curve in (LIH_4, LIH_6, H4_8, BEH2_6)}
