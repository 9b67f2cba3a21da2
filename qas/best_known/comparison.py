"""How a run stands to the best known circuits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from qas.best_known.fronts import KnownFront, atlas_or_none
from qas.best_known.records import counted, tolerance
from qas.problems import require_operator
from qas.runs import Run


@dataclass(frozen=True)
class Comparison:
    """Noise-free errors of a run beside those of the atlas, for each number of two-qubit gates.

    Attributes:
        differences: of the best circuits with at most 0, 1, 2, … two-qubit gates the run's error minus the atlas's, in
            the problem's unit: 0 where they are equal up to the tolerance or both have none, infinite where one has
            none.
        unit: of the differences.
        begun_from_atlas: the search began from circuits of the atlas.
    """

    differences: tuple[float, ...]
    unit: str
    begun_from_atlas: bool = False

    @property
    def improves(self) -> bool:
        """Whether the run has a circuit that belongs into the atlas for its error."""
        return any(difference < 0 for difference in self.differences)

    @property
    def line(self) -> str:
        """The comparison in one line."""
        told = [
            self._clause(sign, words)
            for sign, words in ((0, "equals the best known front"), (-1, "improves it"), (1, "behind"))
        ]
        known = [clause for clause in told if clause]
        line = "; ".join(known).replace("improves it", "improves the best known front", 0 if told[0] else 1)
        if not told[0] and not told[1]:
            line = line.replace("behind", "behind the best known front", 1)
        return line + (" (begun from the atlas)" if self.begun_from_atlas else "")

    def _clause(self, sign: int, words: str) -> str:
        """What holds where the differences have a sign; empty where none has it."""
        last = len(self.differences) - 1
        signs = [(difference > 0) - (difference < 0) for difference in self.differences]
        ranges = []
        for found, group in groupby(range(last + 1), key=signs.__getitem__):
            places = list(group)
            if found == sign:
                ranges.append((places[0], places[-1]))
        if not ranges:
            return ""
        if ranges == [(0, last)]:
            return words + self._most(sign)
        return f"{words} {_joined([_range(first, end, last) for first, end in ranges])}" + self._most(sign)

    def _most(self, sign: int) -> str:
        sizes = [abs(d) for d in self.differences if d * sign > 0 and abs(d) != float("inf")]
        if not sign or not sizes:
            return ""
        unit = {"hartree": "Ha"}.get(self.unit, self.unit)
        return f" by {'up to ' if len(set(sizes)) > 1 else ''}{max(sizes):.2g} {unit}".rstrip()


def _range(first: int, end: int, last: int) -> str:
    """A range of two-qubit gates in words, where all there is ends at `last`."""
    if first == 0 and end == 0:
        return "without CX"
    if end == last:
        return f"from {first} CX on"
    if first == 0:
        return f"up to {end} CX"
    return f"at {first} CX" if first == end else f"from {first} to {end} CX"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def compare(run: Run) -> Comparison | None:
    """How a run stands to the atlas; None if that has nothing on its problem, or the run has no circuit.

    Only noise-free errors are compared: of circuits that were found under noise those on a perfect device. Gates on two
    qubits count as those of the atlas do, in CX and CZ.
    """
    known = atlas_or_none(run.problem) if run.front else None
    if known is None:
        return None
    problem = require_operator(run.problem, "the atlas")
    begun = bool((run.config.get("start") or {}).get("atlas"))
    own = [(counted(result.circuit, problem).two_qubit_gates, result.noise_free_error) for result in run.front]
    return Comparison(_differences(own, known), known.unit, begun)


def _differences(own: Sequence[tuple[int, float]], known: KnownFront) -> tuple[float, ...]:
    theirs = [(each.two_qubit_gates, each.error) for each in known]
    last = max(two for two, _ in [*own, *theirs])
    differences = []
    for most in range(last + 1):
        mine, other = (min((e for two, e in points if two <= most), default=float("inf")) for points in (own, theirs))
        equal = mine == other or abs(mine - other) <= tolerance(min(mine, other))
        differences.append(0.0 if equal else mine - other)
    return tuple(differences)
