"""Circuits that a new problem may begin with: those of the training problems of its family, and their angles.

Hamiltonians of neighbouring problems can differ by more than what changes along the family: the signs of a molecule's
orbitals are arbitrary. Conjugation with Z on some qubits undoes that, and on a circuit it is a change of signs of
angles; so problems are compared in the best such frame.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.excitations import generators_of
from qas.gates import gate_spec
from qas.hamiltonians import string_masks, walsh_hadamard
from qas.problems import Problem
from qas.runs import envelope
from qas.vqe import Evaluator

_CIRCUITS = 6
"""Circuits kept of each problem, at most."""
_DIRECTIONS = 3
"""Directions in which Hamiltonians vary that angles are interpolated along, at most."""
_LEAST = 1e-3
"""Share of the largest variation below which a direction does not count."""


# ---------------------------------------------------------------------- frames
def best_frame(first: dict[str, float], second: dict[str, float], n_qubits: int) -> int:
    """Qubits (as bits) whose conjugation with Z brings the second Hamiltonian nearest to the first."""
    overlaps = np.zeros(1 << n_qubits)
    for string, weight in first.items():
        overlaps[string_masks(string)[0]] += weight * second.get(string, 0.0)
    walsh_hadamard(overlaps)
    best = overlaps.max()
    return int(np.flatnonzero(overlaps >= best - 1e-9 * abs(best))[0])


def framed_terms(terms: dict[str, float], frame: int) -> dict[str, float]:
    """A Hamiltonian conjugated with Z on the qubits of a frame."""
    return {s: -c if (string_masks(s)[0] & frame).bit_count() % 2 else c for s, c in terms.items()}


def framed(circuit: Circuit, frame: int) -> Circuit | None:
    """The circuit that makes the same state, but for Z on the qubits of a frame: angles change their signs.

    None where a gate has no such twin (SX, for example).
    """
    gates: list[Gate] = []
    for gate in reversed(circuit.gates):
        if gate.name == "cx":
            control, target = gate.qubits
            frame ^= (frame >> target & 1) << control
        elif gate.name not in ("cz", "x", "z"):
            flips = _flips(gate, frame, circuit.n_qubits)
            if flips is None:
                return None
            gate = gate.with_angles(tuple(-angle for angle in gate.angles)) if flips else gate
        gates.append(gate)
    return Circuit(circuit.n_qubits, reversed(gates))


def _flips(gate: Gate, frame: int, n_qubits: int) -> bool | None:
    """Whether the angle of a gate changes its sign under conjugation with Z; None: that is not all that changes."""
    if not any(frame >> q & 1 for q in gate.qubits):
        return False
    if len(gate.angles) != 1:
        return None
    axis = gate_spec(gate.name).axis
    if axis:
        return sum(letter in "XY" and frame >> q & 1 for q, letter in zip(gate.qubits, axis, strict=True)) % 2 == 1
    if gate_spec(gate.name).primitive:
        return None
    (generator,) = generators_of(gate, n_qubits)
    strings = [generator] if isinstance(generator, str) else list(generator.terms)
    parities = {(string_masks(string)[0] & frame).bit_count() % 2 for string in strings}
    return bool(parities.pop()) if len(parities) == 1 else None


# ---------------------------------------------------------------------- what is known
@dataclass
class Known:
    """A training problem with its circuits."""

    n_qubits: int
    terms: dict[str, float]
    circuits: list[Circuit]
    errors: list[float]


class Starts:
    """Circuits of the training problems of a family.

    Args:
        known: the problems; those of equal size in one frame, with circuits of the same architectures in the same order
            where `made` found them.
    """

    def __init__(self, known: Sequence[Known] = ()) -> None:
        self.known = list(known)
        self._best: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.known)

    def nearest(self, problem: Problem) -> Circuit | None:
        """The best circuit of the most similar training problem, as `near` has it; None: there is none."""
        return next(self.near(problem), None)

    def near(self, problem: Problem) -> Iterator[Circuit]:
        """The circuits of the training problems, the most similar ones first, their angles in the frame of this one.

        Problems of the same size come first; of others the largest smaller ones, on the first qubits. Those of one
        problem come by their errors.
        """
        for known, frame in self._by_distance(problem):
            for k in np.argsort(known.errors):
                circuit = Circuit(problem.n_qubits, known.circuits[int(k)].gates)
                turned = framed(circuit, frame)
                yield circuit if turned is None else turned

    def predicted(self, problem: Problem) -> Circuit | None:
        """The common architecture that does best on training problems left out, its angles interpolated.

        Angles are cubic radial basis functions, with a linear trend, of the few directions in which the Hamiltonians
        vary most. None where there is no common architecture.
        """
        alike = [each for each in self.known if each.n_qubits == problem.n_qubits]
        shared = self._shared(alike)
        if not shared:
            return None
        _, frame = self._by_distance(problem)[0]
        terms = framed_terms(problem.hamiltonian.terms, frame)
        if problem.n_qubits not in self._best:
            self._best[problem.n_qubits] = min(shared, key=lambda k: self._left_out(alike, k))
        return framed(_interpolated(alike, self._best[problem.n_qubits], terms), frame)

    def _by_distance(self, problem: Problem) -> list[tuple[Known, int]]:
        """The training problems, the most similar ones first, each with the frame of this one relative to it."""
        sizes = {each.n_qubits for each in self.known if each.circuits and each.n_qubits <= problem.n_qubits}
        alike = [each for each in self.known if each.circuits and each.n_qubits == max(sizes, default=0)]
        if max(sizes, default=0) < problem.n_qubits:
            return [(each, 0) for each in alike]
        terms = problem.hamiltonian.terms
        near = [(*_nearby(each, terms), each) for each in alike]
        near.sort(key=lambda found: found[0])
        return [(each, frame) for _, frame, each in near]

    @staticmethod
    def _shared(alike: Sequence[Known]) -> list[int]:
        """Numbers of the circuits that have the same architecture for all."""
        if len(alike) < 4:
            return []
        count = min(len(each.circuits) for each in alike)
        return [k for k in range(count) if len({each.circuits[k].key for each in alike}) == 1]

    def _left_out(self, alike: Sequence[Known], which: int) -> float:
        """Mean error of the predictions for each problem from all others, by its energy."""
        from qas.hamiltonians import Hamiltonian
        from qas.simulators import make_simulator

        simulator, total = make_simulator(), 0.0
        for k, left in enumerate(alike):
            others = [*alike[:k], *alike[k + 1 :]]
            circuits = [_interpolated(others, which, left.terms), left.circuits[which]]
            energies = simulator.expectation_many(circuits, Hamiltonian(left.terms), workers=1)
            total += float(energies[0] - energies[1]) + left.errors[which]
        return total / len(alike)

    # ------------------------------------------------------------------ as JSON
    def to_json(self) -> list[dict[str, Any]]:
        """JSON-able; `from_json` takes it back."""
        return [
            {
                "n_qubits": each.n_qubits,
                "terms": each.terms,
                "circuits": [circuit.to_list() for circuit in each.circuits],
                "errors": each.errors,
            }
            for each in self.known
        ]

    @classmethod
    def from_json(cls, data: Any) -> Starts:
        """Of what `to_json` returned.

        Raises:
            QasError: something else.
        """
        try:
            return cls(
                [
                    Known(
                        int(each["n_qubits"]),
                        {str(s): float(c) for s, c in each["terms"].items()},
                        [Circuit(int(each["n_qubits"]), gates) for gates in each["circuits"]],
                        [float(error) for error in each["errors"]],
                    )
                    for each in data
                ]
            )
        except QasError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QasError(f"the start circuits of the policy are damaged: {error!r}") from None


def _distance(first: dict[str, float], second: dict[str, float]) -> float:
    """Root of the summed squared differences of the coefficients, but for the identity's."""
    strings = {s for s in (*first, *second) if set(s) != {"I"}}
    return float(sum((first.get(s, 0.0) - second.get(s, 0.0)) ** 2 for s in strings) ** 0.5)


def _interpolated(alike: Sequence[Known], which: int, terms: dict[str, float]) -> Circuit:
    """A common circuit at the angles that its angles for the known problems suggest for another one."""
    from scipy.interpolate import RBFInterpolator

    strings = sorted({s for each in alike for s in each.terms if set(s) != {"I"}})
    points = np.array([[each.terms.get(s, 0.0) for s in strings] for each in alike])
    here = np.array([terms.get(s, 0.0) for s in strings])
    centre = points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(points - centre, full_matrices=False)
    most = min(_DIRECTIONS, len(alike) - 2)
    kept = directions[:most][sizes[:most] > _LEAST * sizes[0]]
    angles = _unwound(np.array([each.circuits[which].angles for each in alike]))
    circuit = alike[0].circuits[which]
    if not len(kept) or not circuit.n_angles:
        return circuit
    known, asked = (points - centre) @ kept.T, (here - centre) @ kept.T
    scale = np.abs(known).max()
    fit = RBFInterpolator(known / scale, angles, kernel="cubic", degree=1)
    return circuit.with_angles(fit(asked[None] / scale)[0])


def _unwound(angles: np.ndarray) -> np.ndarray:
    """Angles of several problems, shape (problems, angles), each column without jumps of full turns from the first."""
    return angles[0] + (angles - angles[0] + np.pi) % (2 * np.pi) - np.pi


# ---------------------------------------------------------------------- making them
def made(
    problems: Sequence[Problem],
    *,
    evaluations: int,
    seed: int = 0,
    begun: Starts | None = None,
    on_progress: Callable[[Starts, int], None] | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Starts:
    """Circuits for the problems: of each size one is searched by guided evolution, the others take its circuits over.

    From there they spread to the nearest problem that has none, angles in its frame and optimised again, so that along
    a family the angles of one architecture change steadily.

    Args:
        problems: of any sizes.
        evaluations: of each search.
        seed: of the searches.
        begun: what the same call had found, or one with another seed or other evaluations; they are not made again.
        on_progress: told what there is after each problem, and how many problems there are.
        may_go_on: asked before each problem; where it says no, those that are done are all.

    Raises:
        QasError: `begun` is of other problems.
    """
    held = iter([] if begun is None else begun.known)
    found = Starts()
    for n in sorted({problem.n_qubits for problem in problems}):
        left = _spread([problem for problem in problems if problem.n_qubits == n], evaluations, seed, held)
        while may_go_on() and (each := next(left, None)) is not None:
            found.known.append(each)
            if on_progress is not None:
                on_progress(found, len(problems))
    return found


def _spread(problems: list[Problem], evaluations: int, seed: int, held: Iterator[Known]) -> Iterator[Known]:
    """Problems of one size, each as soon as it has its circuits; the first ones as they are held already."""
    n = problems[0].n_qubits
    left = {k: dict(problem.hamiltonian.terms) for k, problem in enumerate(problems)}
    first = _central(list(left.values()), n)
    terms = left.pop(first)
    found = [_next(held, terms) or Known(n, terms, *_searched(problems[first], evaluations, seed))]
    yield found[0]
    while left:
        pairs = [(_nearby(each, terms), k, each) for k, terms in left.items() for each in found]
        (_, frame), k, source = min(pairs, key=lambda pair: pair[0][0])
        terms = framed_terms(left.pop(k), frame)
        found.append(_next(held, terms) or _taken_over(problems[k], source, terms, frame, seed))
        yield found[-1]


def _next(held: Iterator[Known], terms: dict[str, float]) -> Known | None:
    """The next one that is held, where there is one: in a frame of Z conjugations, which change signs alone."""
    each = next(held, None)
    if each is not None and any(abs(each.terms.get(s, 0.0)) != abs(c) for s, c in terms.items()):
        raise QasError("the start circuits are those of other problems")
    return each


def _nearby(known: Known, terms: dict[str, float]) -> tuple[float, int]:
    """Distance of a Hamiltonian from a known one in its best frame, and this frame."""
    frame = best_frame(known.terms, terms, known.n_qubits)
    return _distance(known.terms, framed_terms(terms, frame)), frame


def _central(all_terms: list[dict[str, float]], n_qubits: int) -> int:
    """The Hamiltonian with the smallest summed distance from all others."""
    each = [Known(n_qubits, terms, [], []) for terms in all_terms]
    return int(np.argmin([sum(_nearby(one, other)[0] for other in all_terms) for one in each]))


def _searched(problem: Problem, evaluations: int, seed: int) -> tuple[list[Circuit], list[float]]:
    """Circuits of the front of guided evolution, and their errors."""
    from qas.agents.launch import search

    with tempfile.TemporaryDirectory() as folder:
        run = search(
            problem, agent="evolution", evaluations=evaluations, seed=seed, out=Path(folder) / "run", report=False
        )
        front = envelope(run.front)
    kept = [result for result in front if result.two_qubit_gates][-_CIRCUITS:]
    return [result.circuit for result in kept], [result.error for result in kept]


def _taken_over(problem: Problem, source: Known, terms: dict[str, float], frame: int, seed: int) -> Known:
    """Circuits of a known problem with the angles of another one, in the frame of the known one where that can be."""
    evaluator, rng = Evaluator(problem), np.random.default_rng(seed)
    if any(framed(circuit, frame) is None for circuit in source.circuits):
        terms, frame = dict(problem.hamiltonian.terms), 0  # all of its circuits are kept in one frame
    circuits, errors = [], []
    for circuit in source.circuits:
        begun = framed(circuit, frame)
        assert begun is not None
        found = evaluator.evaluate(begun, rng, exact_start=True)
        back = framed(found.circuit, frame)
        assert back is not None
        circuits.append(back)
        errors.append(found.error)
    return Known(problem.n_qubits, terms, circuits, errors)
