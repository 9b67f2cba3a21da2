"""Circuits with what they achieve as a training set: deduplicated, one line each, split by problem.

The parts ``train``, ``validation`` and ``test`` share no problem, and no close relative of one: a molecule in all its
geometries, active spaces, mappings and taperings is one family, so is a spin model of any size and fields; and problems
whose Pauli terms are those of another one with the qubits in another order are of the same family.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from qas.best_known.fronts import KnownFront, all_fronts
from qas.best_known.gathering import named
from qas.best_known.records import fingerprint, stepped
from qas.circuits import Circuit, Gate
from qas.errors import QasError
from qas.files import new_folder, to_json, write_atomic
from qas.gates import gate_spec
from qas.problems import OperatorProblem, Problem
from qas.runs import Run, load_run, run_folders
from qas.simplify import wrap_angles

PARTS = ("train", "validation", "test")
LICENCE = "Apache-2.0"
"""That of the atlas."""
_PACKAGE = "quantum-architecture-search"
_TENTHS = {"train": 8, "validation": 1, "test": 1}
_SALT = "qas-126 "
"""Chosen so that the families of the package spread: water and nitrogen test, the Ising model validates."""
_MOST_NAMES = 40
"""Problems that the data card names of a part."""
_ANGLE_DIGITS = 9
"""Decimals of angles, in radians, by which circuits are told apart."""


@dataclass(frozen=True)
class Example:
    """A circuit, and what it achieves noise-free."""

    circuit: Circuit
    energy: float
    found: dict[str, Any]
    """where it is from: agent and seed, or pool"""


@dataclass(frozen=True)
class Source:
    """Circuits of one problem."""

    problem: OperatorProblem
    kind: str
    """front, atlas or pool"""
    size: int
    examples: Callable[[], Iterator[Example]]


@dataclass(frozen=True)
class Corpus:
    """A corpus that was written.

    Attributes:
        path: its folder.
        counts: part -> circuits.
        problems: part -> names of its problems.
        duplicates: circuits that were left out because an equal one of the same problem was there.
    """

    path: Path
    counts: dict[str, int]
    problems: dict[str, list[str]]
    duplicates: int
    kinds: dict[str, int] = field(default_factory=dict)


# ---------------------------------------------------------------------- sources
def sources_of_folders(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """The fronts of runs, and of all runs of campaigns.

    Raises:
        QasError: no run, damaged, or a problem of another kind than Hamiltonians and target unitaries.
    """
    return [_of_run(load_run(folder)) for path in paths for folder in run_folders(path)]


def _of_run(run: Run) -> Source:
    problem = run.problem
    if not isinstance(problem, OperatorProblem):
        raise QasError(f"a corpus holds circuits for Hamiltonians and unitaries, got {problem.name}: {run.path}")
    found = {"agent": run.agent, "seed": run.seed, "version": run.config.get("versions", {}).get(_PACKAGE)}
    return Source(
        problem,
        "front",
        len(run.front),
        lambda: (Example(each.circuit, each.noise_free_energy, found) for each in run.front),
    )


def sources_of_atlas() -> list[Source]:
    """All circuits of the atlas."""
    return [_of_front(front) for front in all_fronts()]


def _of_front(front: KnownFront) -> Source:
    kept = ("agent", "seed", "version", "published", "paper", "doi")
    return Source(
        named(front.problem),
        "atlas",
        len(front),
        lambda: (Example(e.circuit, e.energy, {k: e.found[k] for k in kept if k in e.found}) for e in front),
    )


# ---------------------------------------------------------------------- families and parts
def families(problems: Iterable[OperatorProblem]) -> dict[OperatorProblem, str]:
    """The family of each problem: problems of one family belong into the same part."""
    told = {problem: (_family(problem), _invariant(problem)) for problem in problems}
    joined: dict[str, set[str]] = {}
    for both in told.values():
        relatives = set(both).union(*(joined.get(each, ()) for each in both))
        joined |= dict.fromkeys(relatives, relatives)
    names = dict(told.values())

    def first(family: str) -> str:
        """The name that all relatives go by: one that is told, if there is one."""
        return min(joined[family] & names.keys(), key=lambda name: (name.endswith(names[name]), name))

    return {problem: first(family) for problem, (family, _) in told.items()}


def _family(problem: OperatorProblem) -> str:
    """Name of a family as the provenance tells it; of operators that tell nothing, and of random targets, their own."""
    told = problem.provenance
    if "geometry" in told:
        atoms = Counter(str(atom[0]) for atom in told["geometry"])
        return "molecule " + "".join(f"{name}{count if count > 1 else ''}" for name, count in sorted(atoms.items()))
    kind = str(told.get("family", "operator"))
    own = kind in ("state", "unitary", "maxcut", "operator")
    return f"{kind} {_invariant(problem)}" if own else kind


def _invariant(problem: OperatorProblem) -> str:
    """The same for Hamiltonians that differ by the order of their qubits: letters counted, and weights of all terms."""
    rows = sorted((*(string.count(letter) for letter in "XYZ"), steps) for string, steps in stepped(problem, 1e-6))
    return hashlib.blake2b(repr((problem.n_qubits, rows)).encode(), digest_size=6).hexdigest()


def part_of(family: str) -> str:
    """The part that a family belongs to, fixed by its name alone: eight tenths, one and one."""
    place = int.from_bytes(hashlib.blake2b((_SALT + family).encode(), digest_size=8).digest()) % sum(_TENTHS.values())
    for part, tenths in _TENTHS.items():
        if place < tenths:
            return part
        place -= tenths
    raise AssertionError


# ---------------------------------------------------------------------- canonical circuits
def canonical(circuit: Circuit) -> Circuit:
    """The circuit with its gates in an order that does not depend on how gates on disjoint qubits were written.

    Layer by layer (every gate as early as it can be), inside a layer by qubits; qubits of symmetric gates ascend;
    angles lie in (-π, π]. Its matrix is the same up to its sign.
    """
    wrapped = wrap_angles(circuit)
    rows = []
    for layer, gate in zip(wrapped.moments, wrapped.gates, strict=True):
        qubits = tuple(sorted(gate.qubits)) if gate_spec(gate.name).symmetric else gate.qubits
        rows.append((layer, qubits, gate.name, gate.angles))
    return Circuit(circuit.n_qubits, [Gate(name, qubits, angles) for _, qubits, name, angles in sorted(rows)])


def identity(circuit: Circuit, problem: str) -> str:
    """Name of a canonical circuit; angles count up to nine decimals.

    Args:
        circuit: as `canonical` gives it.
        problem: what tells its problem from others.
    """
    digest = hashlib.blake2b(f"{problem} {circuit.n_qubits}".encode(), digest_size=12)
    for gate in circuit:
        angles = [round(angle, _ANGLE_DIGITS) + 0.0 for angle in gate.angles]
        digest.update(f";{gate.name}{gate.qubits}{angles}".encode())
    return digest.hexdigest()


def record(source: Source, example: Example, licence: str) -> dict[str, Any]:
    """One line of a corpus, JSON-able."""
    circuit, problem = canonical(example.circuit), source.problem
    error = problem.error(example.energy)
    assert problem.threshold is not None
    return {
        "id": identity(circuit, fingerprint(problem)),
        "problem": problem.name,
        "n_qubits": circuit.n_qubits,
        "energy": example.energy,
        "error": error,
        "within_threshold": error <= problem.threshold,
        "unit": problem.unit,
        "two_qubit_gates": circuit.two_qubit_gates,
        "gates": circuit.n_gates,
        "depth": circuit.depth,
        "angles": circuit.n_angles,
        "counts": circuit.counts,
        "source": source.kind,
        "found": example.found,
        "licence": licence,
        "circuit": circuit.to_list(),
        "qasm": circuit.to_qasm(),
    }


# ---------------------------------------------------------------------- writing
def write_corpus(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    *,
    licence: str = LICENCE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Write a corpus to a new or empty folder.

    ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` have a circuit a line, ``problems.jsonl`` the problems with
    their Pauli terms or their target, ``README.md`` says what is in it. Of equal circuits of a problem (gates on
    disjoint qubits in any order) the first one stays.

    Args:
        sources: circuits, in the order that they are written in.
        out: the folder.
        licence: of the circuits, as every line names it.
        on_progress: called now and then with the number of circuits that are done, and of all.

    Raises:
        QasError: no circuit.
        RunError: the folder holds files, or cannot be written.
    """
    known = families(source.problem for source in sources)
    parts = {problem: part_of(family) for problem, family in known.items()}
    size = sum(source.size for source in sources)
    counts, kinds, duplicates = Counter[str](), Counter[str](), 0
    used: dict[OperatorProblem, int] = {}
    seen: set[str] = set()
    with new_folder(out, "the corpus") as folder, ExitStack() as stack:
        streams = {part: stack.enter_context(tempfile.TemporaryFile("w+", dir=folder)) for part in PARTS}
        for source in sources:
            for example in source.examples():
                line = record(source, example, licence)
                if line["id"] in seen:
                    duplicates += 1
                    continue
                seen.add(line["id"])
                part = parts[source.problem]
                streams[part].write(json.dumps(line) + "\n")
                counts[part] += 1
                kinds[source.kind] += 1
                used[source.problem] = used.get(source.problem, 0) + 1
                if on_progress is not None and not len(seen) % 5000:
                    on_progress(len(seen) + duplicates, size)
        if not seen:
            raise QasError("a corpus has at least one circuit, got none")
        for part, stream in streams.items():
            stream.flush()
            write_atomic(folder / f"{part}.jsonl", partial(_copied, stream))
        described = [_described(problem, known[problem], parts[problem], used[problem]) for problem in used]
        write_atomic(folder / "problems.jsonl", "".join(to_json(each) + "\n" for each in described))
        names = {part: [each["problem"] for each in described if each["part"] == part] for part in PARTS}
        made = Corpus(folder, {part: counts[part] for part in PARTS}, names, duplicates, dict(kinds))
        write_atomic(folder / "README.md", _card(made, licence))
    return made


def _copied(stream: IO[str], to: IO[bytes]) -> None:
    stream.seek(0)
    shutil.copyfileobj(stream.buffer, to)  # type: ignore[attr-defined]


def _asked_for(problem: OperatorProblem) -> dict[str, Any]:
    return {"terms": problem.hamiltonian.terms} if isinstance(problem, Problem) else problem.to_json()


def _described(problem: OperatorProblem, family: str, part: str, circuits: int) -> dict[str, Any]:
    asked = _asked_for(problem)
    return {
        "problem": problem.name,
        "family": family,
        "part": part,
        "circuits": circuits,
        "n_qubits": problem.n_qubits,
        "unit": problem.unit,
        "exact": problem.exact,
        "threshold": problem.threshold,
        "description": problem.description,
        **{key: asked[key] for key in ("terms", "target") if key in asked},
    }


_ABOUT = {
    "front": "fronts of searches: of each number of gates the best circuit found, angles optimized",
    "atlas": "best known circuits (the atlas of the package)",
    "pool": "random architectures of a pool, angles those of the best of several optimizations",
}


_CARD = """\
# Quantum circuits and their energies

Written by quantum-architecture-search {version}; licence of the circuits: {licence}.

| part | circuits | problems | which |
|---|---|---|---|
{rows}

{size:,} circuits:

{kinds}

{duplicates:,} copies were left out: circuits of the same problem that are equal when gates on disjoint qubits may
change places, with equal angles to nine decimals.

A line has the problem (its Pauli terms or target are in `problems.jsonl`), the noise-free energy and its error above
the exact one in the unit named, whether that is within the problem's threshold, counts, where the circuit is from, and
the circuit twice: as gates `[name, qubits, angles]` and as OpenQASM 3. Qubit 0 is the rightmost letter of a Pauli
string and the least significant bit; angles are radians. Circuits act on |0...0>, those for a target on any state:
`target` is a unitary matrix of `side` rows, row by row as little-endian complex128 in base64.

Parts share no family of problems: a molecule in all geometries, active spaces, mappings and taperings is one, a spin
model of all sizes and fields is one, and so are problems that differ by the order of their qubits. The part of a family
depends on its name alone, so corpora of other circuits agree on it; a part can be empty.

It is no uniform sample. Fronts hold what searches chose to keep, and energies of pools are those of a few
optimizations, not of the best angles.
"""


def _card(made: Corpus, licence: str) -> str:
    """The data card."""
    rows = []
    for part in PARTS:
        names = sorted(made.problems[part])
        which = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
        rows.append(f"| {part} | {made.counts[part]:,} | {len(names)} | {which} |")
    return _CARD.format(
        version=version("quantum-architecture-search"),
        licence=licence,
        rows="\n".join(rows),
        size=sum(made.counts.values()),
        kinds="\n".join(f"- {count:,}: {_ABOUT[kind]} (`{kind}`)" for kind, count in sorted(made.kinds.items())),
        duplicates=made.duplicates,
    )
