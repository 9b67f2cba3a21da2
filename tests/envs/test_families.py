"""Families of problems: what is in them, kept apart, and the same as what it is made of."""

from __future__ import annotations

import numpy as np
import pytest

import qas
from qas.cli import main
from qas.envs.families import FAMILIES, Family, Instance
from qas.errors import QasError
from qas.molecules import molecule
from qas.problems.curves import SHIPPED


@pytest.mark.parametrize("name", list(FAMILIES))
def test_members_load_and_those_to_test_on_are_never_drawn(name: str) -> None:
    family = qas.load_family(name)
    assert family.name == name and qas.list_families()[name] == family.about
    unseen = {each.name for each in family.test}
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [family.draw(rng) for _ in range(40)]
    assert unseen and not unseen & {each.name for each in (*drawn, *family.train)}
    assert [each.name for each in drawn] == [family.draw(again).name for _ in range(40)]
    for instance in (family.train[0], drawn[-1], family.test[0]):
        problem = instance.load()
        assert instance.name.partition("@")[0] == problem.name and problem.n_qubits <= 8


@pytest.mark.parametrize("name", list(SHIPPED))
def test_curves_hold_what_they_say_and_nothing_jumps(name: str) -> None:
    curve = SHIPPED[name]
    assert len(curve.train) == len(curve.test) == len(set(curve.train) - set(curve.test)) == 10
    last = None
    for length in curve.lengths:
        problem = curve.load(f"{length:g}")
        terms = problem.hamiltonian.terms
        if last is not None:
            moved = max(abs(terms.get(s, 0.0) - last[1].get(s, 0.0)) for s in terms | last[1] if set(s) != {"I"})
            assert moved < 3 * (length - last[0]), "the orbitals are followed, with their signs"
        last = length, terms
        assert problem.exact < problem.product_state - 1e-3
    assert problem.exact == pytest.approx(problem.hamiltonian.ground_energy, abs=1e-8)
    assert problem.molecule is not None and problem.energy(problem.reference_circuit) == pytest.approx(
        problem.provenance["hartree_fock"], abs=1e-8
    )


@pytest.mark.chem
def test_a_curve_is_what_pyscf_gives() -> None:
    made = molecule("H 0 0 0; H 0 0 1.15; H 0 0 2.3; H 0 0 3.45", mapping="jordan-wigner")
    shipped = qas.load_problem("h4-8-curve-1.15")
    assert shipped.hamiltonian.terms.keys() == made.hamiltonian.terms.keys()
    for string, weight in made.hamiltonian.terms.items():
        assert shipped.hamiltonian.terms[string] == pytest.approx(weight, abs=1e-7)


@pytest.mark.parametrize(("name", "bonds"), [("xxz-ring-4-1", 4), ("xxz-chain-4-1", 3), ("xxz-graph-4-1", 6)])
def test_random_xxz_models_are_sums_of_bonds_and_fields(name: str, bonds: int) -> None:
    problem = qas.load_problem(name)
    terms, delta = problem.hamiltonian.terms, problem.provenance["anisotropy"]
    pairs = [s for s in terms if s.count("I") == 2]
    assert len(pairs) == 3 * bonds and 0.5 <= delta <= 1.5
    assert all(terms[s] == (pytest.approx(delta) if "Z" in s else 1.0) for s in pairs)
    fields = [c for s, c in terms.items() if s.count("I") == 3]
    assert len(fields) == 4 and max(map(abs, fields)) <= 1
    assert problem.hamiltonian.terms == qas.load_problem(name).hamiltonian.terms


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Family("none", "nothing", ()), "none' has none"),
        (lambda: Family("same", "one", (Instance("h2-2"),), (Instance("h2-2"),)), "got h2-2 for both"),
        (lambda: qas.load_family("lih4-curve"), "did you mean 'lih-4-curve'"),
        (lambda: qas.load_family(3), "a name or a qas.envs.Family"),  # type: ignore[arg-type]
        (lambda: qas.load_problem("lih-4-curve-7"), "LENGTH one of 1.05 1.2"),
        (lambda: qas.load_problem("xxz-ring-4"), "xxz-ring-N-SEED"),
    ],
)
def test_bad_families_are_told_in_one_line(make: object, words: str) -> None:
    with pytest.raises(QasError, match=words) as told:
        make()  # type: ignore[operator]
    assert "\n" not in str(told.value)


def test_the_command_line_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0 and main(["families", "lih-4-devices"]) == 0
    assert "lih-4@fake_torino" in capsys.readouterr().out
    assert main(["families", "lih-4-curv"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
