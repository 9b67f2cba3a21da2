"""Corpora: copies, parts, and what a line says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import qas
from qas.best_known.fronts import FOLDER, read_front
from qas.circuits import Circuit
from qas.cli import main
from qas.corpus import (
    PARTS,
    Example,
    Source,
    _of_run,
    canonical,
    families,
    identity,
    part_of,
    sources_of_folders,
    write_corpus,
)
from qas.encoders.pools.pool import LabelSettings, Pool, build_pool
from qas.encoders.pools.spaces import CircuitSpace
from qas.problems import Problem
from qas.testing.random import random_circuit


def problem_of(name: str) -> Problem:
    problem = qas.load_problem(name)
    assert isinstance(problem, Problem)
    return problem


def shuffled(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    """Neighbouring gates on disjoint qubits change places, and angles go round."""
    gates = list(circuit)
    for _ in range(60):
        k = int(rng.integers(len(gates) - 1))
        if not set(gates[k].qubits) & set(gates[k + 1].qubits):
            gates[k], gates[k + 1] = gates[k + 1], gates[k]
    turned = [g.with_angles(tuple(a + 2 * np.pi * int(rng.integers(-1, 2)) for a in g.angles)) for g in gates]
    return Circuit(circuit.n_qubits, turned)


def test_copies_are_told() -> None:
    rng = np.random.default_rng(0)
    names = set()
    for _ in range(40):
        circuit = random_circuit(4, 12, rng, gates=("rx", "ry", "rz", "cx", "cz", "rzz"))
        same = canonical(circuit)
        assert canonical(same) == same
        assert abs(np.vdot(circuit.to_matrix(), same.to_matrix())) == pytest.approx(16)
        name = identity(same, "p")
        assert identity(canonical(shuffled(circuit, rng)), "p") == name != identity(same, "another")
        moved = same.with_angles(same.angles + 1e-6)
        assert identity(moved, "p") != name or not len(same.angles)
        names.add(name)
    assert len(names) == 40


def test_relatives_share_a_part() -> None:
    lih = ("lih-4", "lih-6", "lih-4-curve-1.5", "lih-12-tapered", "lih-12-tapered-jw")
    spins = ("heisenberg-4", "heisenberg-6-open", "xxz-ring-4-0", "heisenberg-field-4-1", "heisenberg-graph-4-0")
    states = ("state-3-0", "state-3-1")
    known = families(map(problem_of, (*lih, *spins, *states)))
    named = {problem.name: family for problem, family in known.items()}
    assert len({named[name] for name in lih}) == len({named[name] for name in spins}) == 1
    assert len(set(named.values())) == 4
    # Without a word on where it is from, an operator with its qubits in another order is still recognised.
    problem = problem_of("lih-4")
    for order in list(permutations(range(4)))[1::5]:
        terms = {"".join(string[k] for k in order): weight for string, weight in problem.hamiltonian.terms.items()}
        twin = Problem(name="twin", hamiltonian=qas.Hamiltonian(terms))
        found = families([twin, problem])
        assert found[twin] == found[problem] == named["lih-4"]
    # What it equals pulls no problem away from its own relatives, and neither rounding nor traces of terms hide it.
    rings = [problem_of(name) for name in ("tfim-4", "tfim-6")]
    noisy = {string: weight * (1 + 3e-16) for string, weight in rings[0].hamiltonian.terms.items()} | {"XYZZ": 1e-11}
    halves = ({"XX": 2.0**-7 * (1 + shift), "YY": 1.0} for shift in (-2e-16, 2e-16))
    twin, *alike = (Problem(name="t", hamiltonian=qas.Hamiltonian(terms)) for terms in (noisy, *halves))
    for order in permutations([twin, *rings]):
        assert set(families(order).values()) == {"tfim"}
    assert len(set(families(alike).values())) == 1
    assert {part_of(f"family {k}") for k in range(40)} == set(PARTS)
    shares = [part_of(f"family {k}") for k in range(2000)]
    assert 0.77 < shares.count("train") / 2000 < 0.83


def test_a_corpus(tmp_path: Path) -> None:
    problems = [problem_of(name) for name in ("h2-2", "tfim-3", "h2o-8", "state-3-0")]
    sources = []
    for problem in problems:
        rng = np.random.default_rng(1)  # two problems have the same circuits, which are no copies
        circuits = [random_circuit(problem.n_qubits, 6, rng) for _ in range(5)]
        examples = [Example(c, problem.energy(c), {"agent": "me", "seed": 0}) for c in circuits]
        examples += [replace(examples[0], circuit=shuffled(circuits[0], rng))]
        sources.append(Source(problem, "front", len(examples), lambda examples=examples: iter(examples)))
    made = write_corpus(sources, tmp_path / "corpus", licence="CC0-1.0")
    assert sum(made.counts.values()) == 20 and made.duplicates == 4
    assert made.problems["test"] == ["h2o-8"] and made.problems["validation"] == ["tfim-3", "state-3-0"]
    seen = set()
    for part in PARTS:
        for line in map(json.loads, (tmp_path / "corpus" / f"{part}.jsonl").read_text().splitlines()):
            problem = problem_of(line["problem"])
            circuit = Circuit(line["n_qubits"], line["circuit"])
            assert line["problem"] in made.problems[part] and line["id"] not in seen and line["licence"] == "CC0-1.0"
            assert problem.energy(circuit) == pytest.approx(line["energy"], abs=1e-10)
            assert problem.error(line["energy"]) == line["error"] and circuit.counts == line["counts"]
            assert line["two_qubit_gates"] == circuit.two_qubit_gates
            seen.add(line["id"])
        if made.problems[part]:
            assert Circuit.from_qasm(line["qasm"]) == circuit
    assert len(seen) == 20 and "| test | 5 | 1 | h2o-8 |" in (tmp_path / "corpus" / "README.md").read_text()
    told = [json.loads(line) for line in (tmp_path / "corpus" / "problems.jsonl").read_text().splitlines()]
    assert [qas.Hamiltonian(each["terms"]) for each in told] == [problem.hamiltonian for problem in problems]


def test_energies_of_runs_under_noise_are_noise_free() -> None:
    problem, circuit = problem_of("h2-2"), Circuit(2, [("ry", 0, 0.3)])
    energy = problem.energy(circuit)
    result = qas.runs.Result(circuit, energy + 0.1, problem.error(energy) + 0.1, energy, problem.error(energy), 1)
    config = {"agent": "me", "seed": 3, "versions": {}}
    run = qas.Run(Path(), config, problem, qas.load_noise("ibm-mumbai"), "finished", [result], 1, 1, 1.0)
    ((example,),) = [list(_of_run(run).examples())]
    assert example.energy == energy and example.found["seed"] == 3


def test_runs_pools_and_the_atlas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = qas.search("h2-2", evaluations=200, out=tmp_path / "run", report=False)
    space = CircuitSpace(3, ("rx", "ry", "cx"), max_gates=5, min_gates=2)
    build_pool(tmp_path / "pool", space, 30, tasks=["tfim-3"], settings=LabelSettings(starts=2), jobs=1)
    words = ["export", "corpus", str(run.path), str(run.path), str(tmp_path / "pool"), "--json", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "corpus")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["circuits"] == {"train": len(run.front), "validation": 30, "test": 0}
    assert told["duplicates"] == len(run.front)
    labels, line = Pool(tmp_path / "pool").labels("tfim-3"), (tmp_path / "corpus" / "validation.jsonl").read_text()
    assert json.loads(line.splitlines()[0])["energy"] == labels.best[0]
    fronts = [read_front(FOLDER / f"{name}.jsonl") for name in ("h2-2", "tfim-4")]
    monkeypatch.setattr("qas.corpus.all_fronts", lambda: fronts)
    assert main(["export", "corpus", "--atlas", "--quiet", "--out", str(tmp_path / "known")]) == 0
    for part, front in zip(("train", "validation"), fronts, strict=True):
        lines = [json.loads(line) for line in (tmp_path / "known" / f"{part}.jsonl").read_text().splitlines()]
        assert [(line["energy"], line["error"], line["two_qubit_gates"]) for line in lines] == [
            (each.energy, each.error, each.two_qubit_gates) for each in front
        ]
    assert main(["export", "corpus", "--out", str(tmp_path / "none")]) == 2
    study = tmp_path / "study"
    study.mkdir()
    (study / "campaign.json").write_text("{}")
    capsys.readouterr()
    assert main(["export", "corpus", str(study), "--out", str(tmp_path / "none")]) == 2
    assert "at least one circuit, got none" in capsys.readouterr().err
    for name in ("b", "a"):
        shutil.copytree(run.path, study / "runs" / name)
    assert [source.size for source in sources_of_folders([study])] == [len(run.front)] * 2
    assert main([*words, "--out", str(tmp_path / "corpus")]) == 2
