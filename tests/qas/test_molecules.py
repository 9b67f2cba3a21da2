"""Molecules computed live against PySCF's own CASCI and against the shipped files."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest

from qas.errors import MissingExtraError, QasError, TooLargeError
from qas.hamiltonians import Hamiltonian
from qas.molecules import BOHR_IN_ANGSTROM, molecule
from qas.problems import Problem, list_problems, load_problem

H2 = "H 0 0 0; H 0 0 0.7414"


# ---------------------------------------------------------------------- input, without PySCF
@pytest.mark.parametrize(
    "geometry",
    [
        "",
        " ; ",
        "H",
        "H 0 0",
        "H 0 0 0 0",
        "H 0 0 x",
        "H 0 0 nan",
        "1 0 0 0",
        "H-1 0 0 0",
        3,
        None,
        [],
        [("H",)],
        [("H", 1)],
    ]
    + [[("H", (0, 0))], [(1, (0, 0, 0))], "H 0 0 0; H 0 0 0", "H 0 0 0; H 0 0 inf", "/etc/passwd", {"H": (0, 0, 0)}],
    ids=str,
)
def test_malformed_geometry(geometry: object) -> None:
    with pytest.raises(QasError) as caught:
        molecule(geometry)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    "options",
    [{"basis": ""}, {"basis": 3}, {"basis": "../x"}, {"charge": 0.5}, {"charge": "0"}, {"spin": -1}, {"spin": True}]
    + [
        {"active": active}
        for active in (2, (2,), (2, 2, 2), (0, 2), (2, 0), (2, []), (2, [1, 1]), (2, [-1]), ("2", 2), (2, 1.5))
    ]
    + [{"mapping": "jw"}, {"mapping": None}, {"unit": "nm"}, {"guess": "best"}, {"orbitals": "mp2"}, {"taper": 1}]
    + [{"freeze_core": frozen} for frozen in (1, "core", [-1], [0.5], [0, 0])]
    + [{"freeze_core": True, "active": (2, 2)}],
    ids=str,
)
def test_malformed_options(options: dict[str, object]) -> None:
    with pytest.raises(QasError) as caught:
        molecule(H2, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and not isinstance(caught.value, MissingExtraError)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(MissingExtraError, match=r"\[chem\]"):
        molecule(H2)


# ---------------------------------------------------------------------- chemistry
@pytest.fixture(scope="module", autouse=False)
def chem() -> None:
    """Skip where the chemistry packages are not installed."""
    pytest.importorskip("pyscf")
    pytest.importorskip("qiskit_nature")


live = [pytest.mark.chem, pytest.mark.usefixtures("chem")]


class TestLive:
    """Everything that runs PySCF."""

    pytestmark = live

    def test_all_mappings_share_the_spectrum(self) -> None:
        full = [molecule("H 0 0 0; H 0 0 1.1", mapping=m) for m in ("jordan-wigner", "parity-full", "bravyi-kitaev")]
        levels = [np.linalg.eigvalsh(made.hamiltonian.to_matrix()) for made in full]
        for other in levels[1:]:
            np.testing.assert_allclose(other, levels[0], atol=1e-8)
        for mapping, n_qubits in (("parity", 2), ("parity-single", 3)):
            made = molecule("H 0 0 0; H 0 0 1.1", mapping=mapping)
            assert made.n_qubits == n_qubits
            assert made.exact == pytest.approx(levels[0][0], abs=1e-8)
            for level in np.linalg.eigvalsh(made.hamiltonian.to_matrix()):
                assert np.abs(levels[0] - level).min() < 1e-8

    def test_reduced_parity_is_that_of_qiskit_nature(self) -> None:
        from qiskit_nature.second_q.drivers import PySCFDriver
        from qiskit_nature.second_q.mappers import ParityMapper
        from qiskit_nature.second_q.transformers import ActiveSpaceTransformer
        from qiskit_nature.units import DistanceUnit

        driver = PySCFDriver(atom="Li 0 0 0; H 0 0 2.2", basis="sto3g", unit=DistanceUnit.ANGSTROM)
        electronic = ActiveSpaceTransformer(2, 3, active_orbitals=[1, 2, 5]).transform(driver.run())
        operator = ParityMapper(num_particles=electronic.num_particles).map(electronic.second_q_ops()[0])
        constant = sum(electronic.hamiltonian.constants.values())
        levels = np.linalg.eigvalsh(operator.to_matrix()) + constant
        made = molecule("Li 0 0 0; H 0 0 2.2", active=(2, [1, 2, 5]), mapping="parity")
        np.testing.assert_allclose(np.linalg.eigvalsh(made.hamiltonian.to_matrix()), levels, atol=1e-6)

    @pytest.mark.parametrize("name", ["h2-3", "h2-4", "lih-4", "ch2-8-bohr"])
    def test_shipped_files_are_remade(self, name: str) -> None:
        shipped = load_problem(name)
        origin = shipped.provenance
        made = molecule(
            [(symbol, position) for symbol, position in origin["geometry"]],
            active=(origin["active_electrons"], origin["active_orbitals"]),
            mapping=origin["mapping"],
            unit=origin["geometry_unit"],
            guess=origin["guess"],
            name=name,
        )
        assert made.exact == pytest.approx(shipped.exact, abs=1e-7)
        assert set(made.hamiltonian.terms) == set(shipped.hamiltonian.terms)
        for string, coefficient in shipped.hamiltonian.terms.items():
            assert made.hamiltonian.terms[string] == pytest.approx(coefficient, abs=1e-7)

    def test_nitrogen_against_casci(self) -> None:
        from pyscf import gto, mcscf, scf

        made = molecule("N 0 0 0; N 0 0 1.0977", active=(6, 6))
        assert made.name == "n2-10-6e6o-1.0977" and made.n_qubits == 10 and made.unit == "hartree"
        field = scf.RHF(gto.M(atom="N 0 0 0; N 0 0 1.0977", basis="sto-3g", verbose=0)).run()
        expected = mcscf.CASCI(field, 6, 6).kernel()[0]
        assert made.provenance["sector_energy"] == pytest.approx(expected, abs=1e-7)
        assert made.exact == pytest.approx(expected, abs=1e-7)
        assert made.basis_state == pytest.approx(field.e_tot, abs=1e-6)

    def test_sector_energy_may_lie_above_the_operator_s_minimum(self) -> None:
        """An anion short of diffuse orbitals sheds its electron as soon as the operator lets it."""
        made = molecule("H 0 0 0", charge=-1, basis="6-31g", mapping="jordan-wigner")
        assert made.provenance["sector_energy"] > made.exact + 1e-3
        levels = np.linalg.eigvalsh(made.hamiltonian.to_matrix())
        assert np.abs(levels - made.provenance["sector_energy"]).min() < 1e-7

    def test_open_shells(self) -> None:
        made = molecule("O 0 0 0; O 0 0 1.2075", spin=2, active=(6, 4), mapping="jordan-wigner")
        assert made.provenance["orbitals"] == "ROHF" and made.provenance["spin"] == 2
        diagonal = np.diag(made.hamiltonian.to_matrix()).real
        assert np.abs(diagonal - made.provenance["hartree_fock"]).min() < 1e-6
        levels = made.hamiltonian.ground_energy
        assert levels <= made.provenance["sector_energy"] + 1e-8
        doublet = molecule("H 0 0 0; He 0 0 1.0", spin=1, mapping="parity")
        assert doublet.n_qubits == 2

    def test_units_of_length(self) -> None:
        angstrom = molecule("H 0 0 0; H 0 0 0.7414")
        bohr = molecule(f"H 0 0 0; H 0 0 {0.7414 / BOHR_IN_ANGSTROM}", unit="bohr")
        assert bohr.exact == pytest.approx(angstrom.exact, abs=1e-9)
        assert bohr.provenance["geometry_unit"] == "bohr"
        assert abs(molecule(H2, unit="bohr").exact - angstrom.exact) > 0.1

    def test_energy_does_not_depend_on_orientation_or_notation(self) -> None:
        tilt = np.array([1.0, 2.0, -0.5]) / math.sqrt(5.25)
        straight = molecule("Li 0 0 0\nH 0, 0, 1.6\n", active=(2, 3), mapping="jordan-wigner")
        tilted = molecule(
            [("li", (0, 0, 0)), ("H", (1.6 * tilt).tolist())], active=(2, [1, 2, 3]), mapping="jordan-wigner"
        )
        np.testing.assert_allclose(
            np.linalg.eigvalsh(straight.hamiltonian.to_matrix()),
            np.linalg.eigvalsh(tilted.hamiltonian.to_matrix()),
            atol=1e-7,
        )

    def test_frozen_core_is_in_the_identity(self) -> None:
        made = molecule("Li 0 0 0; H 0 0 1.6", active=(2, 5), mapping="jordan-wigner")
        assert made.provenance["core_orbitals"] == [0]
        # Filling no active orbital leaves the core and the nuclei: the energy of the all-zero state.
        from pyscf import gto, scf

        mol = gto.M(atom="Li 0 0 0; H 0 0 1.6", basis="sto-3g", verbose=0)
        field = scf.RHF(mol).run()
        density = 2 * np.outer(field.mo_coeff[:, 0], field.mo_coeff[:, 0])
        expected = field.energy_tot(dm=density)
        assert made.hamiltonian.to_matrix()[0, 0].real == pytest.approx(expected, abs=1e-6)

    def test_names_tell_molecules_apart(self) -> None:
        made = [molecule(f"H 0 0 0; H 0 0 {length}") for length in (0.7, 0.7414, 1.1)]
        made += [molecule(H2, mapping="parity-single"), molecule(H2, basis="6-31g", active=(2, 2))]
        made += [molecule(f"H 0 0 0; H 0 0 1; H 0 {y} 0", charge=1, active=(2, 2)) for y in (1, 1.5)]
        assert [problem.name for problem in made[:3]] == [f"h2-2-2e2o-{length}" for length in (0.7, 0.7414, 1.1)]
        assert len({problem.name for problem in made} | set(list_problems())) == len(made) + len(list_problems())
        assert molecule("H 0 0 1; H 0 1.1 1").name == made[2].name, "the same two atoms elsewhere"
        assert "at 0.7414 angstrom" in made[1].description
        for problem in made:
            assert Problem.from_json(problem.to_json()) == problem
        assert molecule(H2, name="mine").name == "mine"
        with pytest.raises(QasError, match="h2-2 is the name of a shipped molecule with the geometry") as caught:
            molecule("H 0 0 0; H 0 0 1.1", name="h2-2")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("geometry", "options"),
        [
            ("Xx 0 0 0", {}),
            ("H 0 0 0; Q 0 0 1", {}),
            (H2, {"basis": "no-such-basis"}),
            ("U 0 0 0", {"basis": "6-31g*"}),
            (H2, {"spin": 1}),
            (H2, {"charge": 1}),
            (H2, {"charge": 2}),
            (H2, {"charge": 5}),
            (H2, {"spin": 4}),
            (H2, {"spin": 2, "charge": 1}),
            (H2, {"active": (4, 2)}),
            (H2, {"active": (1, 2)}),
            (H2, {"active": (2, 3)}),
            (H2, {"active": (2, [0, 2])}),
            ("Li 0 0 0; H 0 0 1.6", {"active": (4, 1)}),
            ("Li 0 0 0; H 0 0 1.6", {"active": (2, 9)}),
            ("Li 0 0 0; H 0 0 1.6", {"active": (2, [0, 1, 2, 3, 4, 5])}),
            ("O 0 0 0; O 0 0 1.2", {"spin": 2, "active": (2, 1)}),
            ("He 0 0 0", {}),
            ("He 0 0 0", {"mapping": "jordan-wigner", "taper": True}),
            ("Li 0 0 0; H 0 0 1.6", {"freeze_core": [2]}),
            ("Li 0 0 0; H 0 0 1.6", {"freeze_core": [17]}),
            ("Li 0 0 0; H 0 0 1.6", {"freeze_core": [0, 1]}),
            ("H 0 0 0", {"spin": 1, "freeze_core": [0]}),
        ],
        ids=str,
    )
    def test_impossible_molecules(self, geometry: str, options: dict[str, object]) -> None:
        with pytest.raises(QasError) as caught:
            molecule(geometry, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value) and not isinstance(caught.value, MissingExtraError)

    @pytest.mark.parametrize(
        ("geometry", "options"),
        [("N 0 0 0; N 0 0 1.0977", {}), ("C 0 0 0; C 0 0 1.3", {"basis": "6-31g", "taper": True, "active": (8, 15)})],
    )
    def test_too_many_qubits(self, geometry: str, options: dict[str, Any]) -> None:
        with pytest.raises(TooLargeError, match="active") as caught:
            molecule(geometry, **options)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("geometry", "options"),
        [
            ("H 0 0 0; H 0 0 1.5; H 0 0 3.0; H 0 0 4.5", {}),
            ("Li 0 0 0; H 0 0 3.0", {"freeze_core": True}),
            ("H 0 0 0; H 0 0 1.5; H 0 0 3.0; H 0 0 4.5", {"spin": 2}),
        ],
        ids=["h4", "lih", "open shells"],
    )
    def test_orbitals_change_circuits_and_not_energies(self, geometry: str, options: dict[str, Any]) -> None:
        made = {
            kind: molecule(geometry, orbitals=kind, mapping="jordan-wigner", **options)
            for kind in ("rhf", "uhf", "natural", "localized")
        }
        exact, field = made["rhf"].provenance["sector_energy"], made["rhf"].provenance["hartree_fock"]
        energies = {kind: each.energy(each.reference_circuit) for kind, each in made.items()}
        assert len({each.name for each in made.values()}) == len({each.hamiltonian for each in made.values()}) == 4
        for each in made.values():
            assert each.exact == pytest.approx(made["rhf"].exact, abs=1e-8)
            assert each.provenance["sector_energy"] == pytest.approx(exact, abs=1e-8)
        # Localization mixes orbitals of equal occupation only, so the determinant stays Hartree-Fock's.
        assert energies["rhf"] == pytest.approx(field, abs=1e-8)
        assert energies["localized"] == pytest.approx(field, abs=1e-7)
        assert energies["uhf"] <= field + 1e-9 and energies["natural"] >= field - 1e-9
        assert made["uhf"].unrestricted <= energies["uhf"] + 1e-8
        if "spin" not in options:
            assert energies["uhf"] < field - 1e-2
            assert energies["uhf"] == pytest.approx(made["uhf"].unrestricted, abs=1e-8)

    def test_unrestricted_determinant_against_pyscf(self) -> None:
        from pyscf import gto, scf

        geometry = "H 0 0 0; H 0 0 1.5; H 0 0 3.0; H 0 0 4.5"
        field = scf.UHF(gto.M(atom=geometry, basis="sto-3g", verbose=0))
        # Spins up and down on alternating atoms.
        field.kernel(dm0=(np.diag([1.0, 0.0, 1.0, 0.0]), np.diag([0.0, 1.0, 0.0, 1.0])))
        assert field.converged
        assert molecule(geometry).unrestricted == pytest.approx(field.e_tot, abs=1e-8)

    def test_natural_orbitals_have_a_diagonal_density(self) -> None:
        made = molecule(
            "H 0 0 0; H 0 0 1.0; H 0 0 2.3; H 0 0 3.3", orbitals="natural", mapping="jordan-wigner", taper=False
        )
        _, state = made.hamiltonian.ground_state()
        n = made.molecule.n_orbitals
        occupied = [sum(abs(state[np.arange(256) >> q & 1 == 1]) ** 2) for q in range(8)]
        spatial = [occupied[p] + occupied[p + n] for p in range(n)]
        assert sum(spatial) == pytest.approx(4.0, abs=1e-8) and spatial == sorted(spatial, reverse=True)
        for p, q in itertools.combinations(range(n), 2):
            # <a_p† a_q + h.c.> of one spin, from the strings X Z…Z X and Y Z…Z Y.
            strings = ["I" * (7 - q) + s + "Z" * (q - p - 1) + s + "I" * p for s in "XY"]
            hop = Hamiltonian(dict.fromkeys(strings, 0.5)).to_matrix()
            assert abs(state.conj() @ hop @ state) < 1e-7

    def test_frozen_core(self) -> None:
        geometry = "Li 0 0 0; H 0 0 1.6"
        frozen, listed = (molecule(geometry, freeze_core=core) for core in (True, [0]))
        assert frozen == listed == molecule(geometry, active=(2, [1, 2, 3, 4, 5]))
        assert frozen.provenance["core_orbitals"] == [0] and frozen.molecule.n_electrons == 2
        assert molecule(geometry, freeze_core=[1]).provenance["active_orbitals"] == [0, 2, 3, 4, 5]
        assert molecule(H2, freeze_core=True) == molecule(H2)

    @pytest.mark.parametrize("mapping", ["parity", "jordan-wigner", "bravyi-kitaev", "jordan-wigner-interleaved"])
    def test_tapering_keeps_the_ground_energy(self, mapping: str) -> None:
        geometry = "H 0 0 0; H 0 0 1.5; H 0 0 3.0; H 0 0 4.5"
        whole, tapered = (molecule(geometry, mapping=mapping, taper=taper) for taper in (False, True))
        assert tapered.n_qubits == 5 and len(tapered.hamiltonian) == 132 and tapered.name != whole.name
        assert tapered.exact == pytest.approx(whole.provenance["sector_energy"], abs=1e-9)
        assert tapered.energy(tapered.reference_circuit) == pytest.approx(whole.provenance["hartree_fock"], abs=1e-8)
        assert Problem.from_json(tapered.to_json()) == tapered
        if mapping != "parity":
            later = whole.tapered().hamiltonian.terms
            assert {p for p, c in later.items() if abs(c) > 1e-9} == set(tapered.hamiltonian.terms)
            assert all(later[p] == pytest.approx(c, abs=1e-9) for p, c in tapered.hamiltonian.terms.items())
        if mapping != "jordan-wigner":
            return
        # Electrons that are not spread evenly have fewer symmetries, localized orbitals none of the point group's.
        assert molecule(geometry, mapping=mapping, taper=True, orbitals="localized").n_qubits == 6
        skew = molecule("H 0 0 0; H 0 0 1.0; H 0 0 3.0; H 0 0 4.5", mapping=mapping, taper=True)
        assert skew.n_qubits == 6

    def test_degenerate_orbitals_are_fixed(self) -> None:
        from qas.orbitals import fixed_orbitals

        rng = np.random.default_rng(3)
        overlap = np.eye(5) + 0.1
        lower = np.linalg.inv(np.linalg.cholesky(overlap)).T
        orbitals = lower @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
        energies, occupations = np.array([-3.0, -1.0, -1.0, -1.0, 2.0]), np.array([2.0, 2.0, 2.0, 2.0, 0.0])
        first = fixed_orbitals(energies, occupations, orbitals, overlap)
        np.testing.assert_allclose(first.T @ overlap @ first, np.eye(5), atol=1e-10)
        for signs in itertools.product((1.0, -1.0), repeat=2):
            turned = orbitals.copy()
            turned[:, 1:4] = turned[:, 1:4] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
            turned[:, [0, 4]] *= signs
            np.testing.assert_allclose(fixed_orbitals(energies, occupations, turned, overlap), first, atol=1e-9)
