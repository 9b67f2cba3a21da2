"""Spin ladders: two Heisenberg chains, coupled rung by rung."""

from __future__ import annotations

import qas
from qas.problems import Family, Problem

MOST = 8
"""Rungs of the longest ladder."""


class Ladder(Family):
    """Heisenberg ladders of N rungs, 2 N qubits; rung r joins the qubits 2 r and 2 r + 1."""

    pattern = "ladder-N"
    about = f"Heisenberg ladder of N rungs, 2 to {MOST}"
    small = ("ladder-2",)

    @property
    def rule(self) -> str:
        return f"{self.pattern} with N from 2 to {MOST}"

    def load(self, member: str) -> Problem:
        if not (member.isdecimal() and 2 <= int(member) <= MOST):
            raise self.wrong(member)
        return ladder(int(member))


def ladder(rungs: int, *, leg: float = 1.0, rung: float = 1.0) -> Problem:
    """Sum of X X + Y Y + Z Z over the bonds of a ladder with open ends.

    Args:
        rungs: at least 2.
        leg: coupling along the legs.
        rung: coupling of the rungs.
    """
    n = 2 * rungs
    bonds = {(2 * r, 2 * r + 1): rung for r in range(rungs)}
    bonds |= {(q, q + 2): leg for q in range(n - 2)}
    terms = {_string(n, bond, letter): weight for bond, weight in bonds.items() for letter in "XYZ"}
    return qas.problem(terms, name=f"ladder-{rungs}", description=f"Heisenberg ladder of {rungs} rungs")


def _string(n: int, qubits: tuple[int, int], letter: str) -> str:
    return "".join(letter if qubit in qubits else "I" for qubit in reversed(range(n)))
