"""Molecules as problems: integrals from PySCF, encoded on qubits and freed of those that symmetries fix."""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qas.checks import one_line, shortened, whole_number
from qas.errors import MissingExtraError, QasError, TooLargeError, UnknownNameError
from qas.fermions import MAPPINGS, Molecule, jordan_wigner
from qas.hamiltonians import Hamiltonian
from qas.orbitals import ORBITALS, Rotation, fixed_orbitals, hartree_fock, localized, natural, unrestricted
from qas.problems import CHEMICAL_ACCURACY, MOLECULES, Problem, load_problem
from qas.tapering import Tapering

GUESSES = {
    "minao": "superposed atoms in a minimal basis",
    "1e": "orbitals of the bare nuclei",
    "atom": "superposed Hartree-Fock atoms",
    "huckel": "orbitals of extended Hückel theory",
}
"""Starting points of Hartree-Fock, named as in PySCF."""
USUAL = {"basis": "sto-3g", "charge": 0, "spin": 0, "guess": "minao", "mapping": "parity"} | {
    "orbitals": "rhf",
    "taper": False,
}
"""Settings that names of molecules do not tell."""
MAX_QUBITS = 16
"""Largest molecule, in qubits after mapping and tapering."""
MAX_SPIN_ORBITALS = 20
"""Largest molecule before tapering."""
CUTOFF = 1e-9
"""Pauli terms with smaller coefficients (hartree) are rounding of the integrals and are left out."""
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
"""Atomic numbers; an atom's core is that of the last noble gas before it."""
ORBITALS_OF_NOBLE_GASES = (0, 1, 5, 9, 18, 27, 43)
"""Full orbitals of nothing and of each of them."""
BOHR_IN_ANGSTROM = 0.52917721092
"""Length of one bohr in ångström, as in PySCF (CODATA 2010)."""

Atom = tuple[str, tuple[float, float, float]]
Geometry = str | Sequence[tuple[str, Sequence[float]]]
Active = tuple[int, int | Sequence[int]]


def molecule(
    geometry: Geometry,
    *,
    basis: str = "sto-3g",
    charge: int = 0,
    spin: int = 0,
    active: Active | None = None,
    freeze_core: bool | Sequence[int] = False,
    orbitals: str = "rhf",
    mapping: str = "parity",
    taper: bool = False,
    unit: str = "angstrom",
    guess: str = "minao",
    name: str | None = None,
) -> Problem:
    """Electronic structure of a molecule as a qubit problem, in hartree.

    The identity term holds the nuclear repulsion and the energy of the frozen core, so energies are total energies.
    `Problem.exact` is the lowest energy over the whole space of qubits; ``provenance["sector_energy"]`` is the lowest
    one with the right numbers of electrons (CASCI by PySCF), which may lie higher. `Problem.molecule` knows the
    electrons and how the qubits hold them, `Problem.determinant` the reference determinant.

    Args:
        geometry: ``"N 0 0 0; N 0 0 1.0977"`` (atoms separated by ``;`` or line ends) or ``[("N", (0, 0, 0)), …]``.
        basis: a basis set that PySCF knows.
        charge: total charge in elementary charges.
        spin: number of unpaired electrons, 2S.
        active: ``(electrons, orbitals)``: so many orbitals around the Fermi level, or ``(electrons, [1, 2, 5])``: these
            molecular orbitals, counted from 0 by energy. The lowest other orbitals hold the remaining electrons in
            pairs. None: all electrons in all orbitals but those of `freeze_core`.
        freeze_core: instead of `active`: True keeps pairs of electrons in the noble-gas shell of every atom, a list in
            these Hartree-Fock orbitals, counted from 0 by energy.
        orbitals: of the active space, a key of `qas.orbitals.ORBITALS`; core orbitals are Hartree-Fock's always.
        mapping: a key of `MAPPINGS`.
        taper: take away a qubit for every Z2 symmetry of the operator: parities of electrons, and reflections and
            rotations by 180 degrees of the molecule that its orbitals respect; the sector is that of the reference
            determinant.
        unit: of the coordinates, ``"angstrom"`` or ``"bohr"``.
        guess: where Hartree-Fock starts, a key of `GUESSES`; it matters where Hartree-Fock has several solutions.
        name: id of the problem; default: formula, number of qubits, active electrons and orbitals, for two atoms the
            bond length in angstrom, and where that does not tell all a hash of the rest: ``lih-4-2e3o-1.6-5c0f1e``.

    Raises:
        MissingExtraError: PySCF is not installed.
        UnknownNameError: no such mapping, unit, guess or kind of orbitals.
        TooLargeError: more than 16 qubits, or more than 20 before tapering.
        QasError: malformed geometry, unknown basis, electrons that do not fit charge, spin or active space, frozen
            orbitals that do not exist or hold no pair, a Hartree-Fock calculation that does not converge, or the name
            of a shipped molecule that is another one.

    References:
        PySCF: Sun et al., J. Chem. Phys. 153, 024109 (2020), https://doi.org/10.1063/5.0006074.
        Parity encoding and tapering: Bravyi et al., arXiv:1701.08213, https://arxiv.org/abs/1701.08213.
    """
    for kind, chosen, known in (
        ("mapping", mapping, MAPPINGS),
        ("unit of length", unit, ("angstrom", "bohr")),
        ("Hartree-Fock guess", guess, GUESSES),
        ("kind of orbitals", orbitals, ORBITALS),
    ):
        if chosen not in known:
            raise UnknownNameError(kind, chosen, known)
    if not isinstance(basis, str) or not re.fullmatch(r"[A-Za-z0-9+*(),\-_ ]{1,60}", basis):
        raise QasError(f"basis is the name of a basis set such as 'sto-3g', got {basis!r}")
    if not isinstance(taper, bool):
        raise QasError(f"taper is True or False, got {shortened(taper)}")
    charge = whole_number("the charge", charge, -1000, 1000)
    spin = whole_number("spin, the number of unpaired electrons,", spin, 0)
    atoms = _read_geometry(geometry, unit)
    request, frozen = _read_active(active), _read_frozen(freeze_core)
    if request is not None and frozen is not False:
        raise QasError("active says which orbitals are frozen: give active or freeze_core, got both")
    try:
        import pyscf
    except ImportError:
        raise MissingExtraError("qas.molecule", "chem") from None

    mol = _build(atoms, basis, charge, spin, unit)
    if frozen is not False:
        request = _unfrozen(frozen, mol, spin)
    electrons, space, core = _active_space(request, mol.nelectron, spin, int(mol.nao))
    _check_size(len(space), mapping, taper)
    field = hartree_fock(mol, guess)
    made = _active_integrals(field, space, core, ((electrons + spin) // 2, (electrons - spin) // 2))
    lowest, turned = unrestricted(made.one_body, made.two_body, made.n_alpha, made.n_beta)
    for flipped in range(1, min(made.n_beta, len(space) - made.n_alpha) + 1):
        counts = made.n_alpha + flipped, made.n_beta - flipped
        lowest = min(lowest, unrestricted(made.one_body, made.two_body, *counts)[0])
    rotation = turned if orbitals == "uhf" else _rotation(orbitals, field, made)
    encoded_by, hamiltonian = _encode(made, rotation, mapping, taper)
    formula = _formula(symbol for symbol, _ in atoms)
    settings = {
        "basis": basis,
        "charge": charge,
        "spin": spin,
        "guess": guess,
        "active_orbitals": list(space),
        "mapping": mapping,
    }
    usual = settings | USUAL | {"active_orbitals": list(range(len(core), len(core) + len(space)))}
    what, tail = _told_apart(atoms, unit, settings | {"orbitals": orbitals, "taper": taper}, usual)
    n_qubits = hamiltonian.n_qubits
    kinds = {"rhf": "ROHF" if spin else "RHF", "uhf": "UHF"}
    problem = Problem(
        name=name if name is not None else f"{formula}-{n_qubits}-{electrons}e{len(space)}o{tail}".lower(),
        hamiltonian=hamiltonian,
        unit="hartree",
        threshold=CHEMICAL_ACCURACY,
        description=f"{formula}{what}, {basis.upper()}, {electrons}e in {len(space)} orbitals, {mapping}"
        + (", tapered" if taper else ""),
        provenance={
            "family": "molecule",
            "geometry": [[symbol, list(position)] for symbol, position in atoms],
            "geometry_unit": unit,
            **settings,
            "orbitals": kinds.get(orbitals, orbitals),
            "active_electrons": electrons,
            "core_orbitals": list(core),
            "qubit_order": "alpha orbitals by energy, then beta orbitals; qubit 0 is the rightmost letter",
            "cutoff": CUTOFF,
            "nuclear_repulsion": float(mol.energy_nuc()),
            "hartree_fock": float(field.e_tot),
            "sector_energy": made.energy,
            "versions": {"pyscf": pyscf.__version__},
        }
        | ({"tapering": encoded_by.tapering.to_json()} if taper and encoded_by.tapering else {}),
        references={"unrestricted": lowest + made.constant},
    )
    _refuse_shipped_name(problem)
    return problem


# ---------------------------------------------------------------------- input
def _read_geometry(geometry: Any, unit: str) -> list[Atom]:
    rule = "geometry is 'Symbol x y z; Symbol x y z; …' or a list of (symbol, (x, y, z))"
    if isinstance(geometry, str):
        lines = [line.replace(",", " ").split() for line in re.split(r"[;\n]", geometry) if line.strip()]
        rows: list[Any] = [(line[0], line[1:]) for line in lines if line]
    elif isinstance(geometry, (list, tuple)):
        rows = list(geometry)
    else:
        raise QasError(f"{rule}, got {type(geometry).__name__}")
    if not rows:
        raise QasError(f"{rule}; got no atoms")
    atoms = []
    for row in rows:
        try:
            symbol, position = row
            x, y, z = (float(value) for value in position)
        except (TypeError, ValueError):
            raise QasError(f"{rule}, got {row!r}") from None
        if not isinstance(symbol, str) or not re.fullmatch(r"[A-Za-z]{1,2}", symbol):
            raise QasError(f"{rule}, got the symbol {symbol!r}")
        if not all(map(math.isfinite, (x, y, z))):
            raise QasError(f"coordinates are finite numbers, got {row!r}")
        atoms.append((symbol.capitalize(), (x, y, z)))
    shortest = 0.1 if unit == "angstrom" else 0.1 / BOHR_IN_ANGSTROM
    for i, (first, here) in enumerate(atoms):
        for second, there in atoms[:i]:
            if math.dist(here, there) < shortest:
                raise QasError(
                    f"atoms are at least 0.1 angstrom apart, got {second} {there} and {first} {here} in {unit}"
                )
    return atoms


def _read_active(active: Any) -> tuple[int, int | tuple[int, ...]] | None:
    """(electrons, number of orbitals or distinct orbital indices), checked as far as it goes without the molecule."""
    if active is None:
        return None
    rule = "active is (electrons, orbitals) with a number of orbitals or a list of their indices"
    if not isinstance(active, (tuple, list)) or len(active) != 2:
        raise QasError(f"{rule}, got {active!r}")
    electrons = whole_number("the number of active electrons", active[0])
    if isinstance(active[1], (list, tuple, range, np.ndarray)):
        chosen = tuple(whole_number("the index of an active orbital", orbital, 0) for orbital in active[1])
        if not chosen or len(set(chosen)) != len(chosen):
            raise QasError(f"active orbitals are different indices from 0, got {list(chosen)}")
        return electrons, tuple(sorted(chosen))
    return electrons, whole_number("the number of active orbitals", active[1])


def _active_space(
    request: tuple[int, int | tuple[int, ...]] | None, total: int, spin: int, n_orbitals: int
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Active electrons, indices of the active orbitals, indices of the doubly occupied core orbitals."""
    electrons, wanted = request if request is not None else (total, n_orbitals)
    if electrons > total:
        raise QasError(f"the molecule has {total} electrons, got an active space with {electrons}")
    if (total - electrons) % 2:
        raise QasError(f"core electrons come in pairs, got {electrons} active of {total} electrons")
    if electrons < spin:
        raise QasError(f"{spin} unpaired electrons must be active, got an active space with {electrons} electrons")
    n_core = (total - electrons) // 2
    if isinstance(wanted, int):
        chosen = tuple(range(n_core, n_core + wanted))
    else:
        chosen = wanted
    if chosen[-1] >= n_orbitals:
        raise QasError(f"the basis has orbitals 0 to {n_orbitals - 1}, got active orbitals {list(chosen)}")
    rest = [orbital for orbital in range(n_orbitals) if orbital not in chosen]
    if n_core > len(rest):
        raise QasError(f"{n_core} core orbitals are needed besides the active ones, only {len(rest)} are left")
    if (electrons + spin) // 2 > len(chosen):
        raise QasError(f"{len(chosen)} orbitals do not hold {electrons} electrons with {spin} unpaired")
    return electrons, chosen, tuple(rest[:n_core])


def _read_frozen(freeze_core: Any) -> bool | tuple[int, ...]:
    if isinstance(freeze_core, bool):
        return freeze_core
    if not isinstance(freeze_core, (list, tuple, range, np.ndarray)):
        raise QasError(f"freeze_core is True, False or a list of orbitals, got {shortened(freeze_core)}")
    chosen = tuple(whole_number("the index of a frozen orbital", orbital, 0) for orbital in freeze_core)
    if len(set(chosen)) != len(chosen):
        raise QasError(f"frozen orbitals are different indices from 0, got {list(chosen)}")
    return chosen


def _unfrozen(frozen: bool | tuple[int, ...], mol: Any, spin: int) -> tuple[int, tuple[int, ...]]:
    """Electrons and orbitals that are left when some orbitals are frozen; True: the noble-gas shell of every atom."""
    if isinstance(frozen, bool):
        shells = (bisect_left(NOBLE_GASES, int(mol.atom_charge(atom))) for atom in range(mol.natm))
        frozen = tuple(range(sum(ORBITALS_OF_NOBLE_GASES[shell] for shell in shells)))
    pairs = (mol.nelectron - spin) // 2
    if wrong := [orbital for orbital in frozen if orbital >= pairs]:
        rule = (
            f"frozen orbitals hold a pair of electrons: those are 0 to {pairs - 1}" if pairs else "no orbital is full"
        )
        raise QasError(f"{rule}, got {wrong[0]}")
    electrons = mol.nelectron - 2 * len(frozen)
    if electrons < 1:
        raise QasError(f"freeze_core leaves an electron, got {len(frozen)} orbitals for {mol.nelectron} electrons")
    return electrons, tuple(orbital for orbital in range(int(mol.nao)) if orbital not in frozen)


def _check_size(n_orbitals: int, mapping: str, taper: bool) -> None:
    """Before Hartree-Fock: tapering takes away two qubits at least, how many more the orbitals decide."""
    n_qubits = 2 * n_orbitals - {"parity": 2, "parity-single": 1}.get(mapping, 0)
    if n_qubits < 1 or (taper and n_orbitals < 2):
        rule = "tapering and the parity mapping remove two qubits and need two active orbitals"
        raise QasError(f"{rule}, got 1; use 'jordan-wigner'")
    if 2 * n_orbitals > MAX_SPIN_ORBITALS or (n_qubits > MAX_QUBITS and not taper):
        raise TooLargeError(
            f"molecules have up to {MAX_QUBITS} qubits, {MAX_SPIN_ORBITALS} before tapering, got {n_qubits} from "
            f"{n_orbitals} orbitals; give a smaller active=(electrons, orbitals)"
        )


def _told_apart(atoms: list[Atom], unit: str, settings: dict[str, Any], usual: dict[str, Any]) -> tuple[str, str]:
    """What tells a molecule from others of its formula and size: words for the description, the end of its name.

    Two atoms have their distance in angstrom. All else that is not as usual is in a hash: the positions of more atoms,
    rounded to 1e-6 angstrom, and settings that differ.
    """
    rest: dict[str, Any] = {key: value for key, value in settings.items() if value != usual[key]}
    words = tail = ""
    scale = 1.0 if unit == "angstrom" else BOHR_IN_ANGSTROM
    if len(atoms) == 2:
        length = f"{scale * math.dist(atoms[0][1], atoms[1][1]):.8g}"
        words, tail = f" at {length} angstrom", f"-{length}"
    elif len(atoms) > 2:
        rest["positions"] = [[symbol, [round(scale * x, 6) + 0.0 for x in position]] for symbol, position in atoms]
    if rest:
        tail += "-" + hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:6]
    return words, tail


def _refuse_shipped_name(made: Problem) -> None:
    """Raises QasError: the name is that of a shipped molecule, and this one is another."""
    if (MOLECULES / f"{made.name}.json").exists():
        shipped = load_problem(made.name).provenance
        keys = ("geometry", "geometry_unit", "basis", "charge", "spin", "guess", "active_orbitals", "mapping")
        for key in (*keys, "orbitals", "tapering"):
            if shipped.get(key) != made.provenance.get(key):
                told = f"with the {key.replace('_', ' ')} {shortened(shipped.get(key))}"
                raise QasError(f"{made.name} is the name of a shipped molecule {told}; choose another name for this")


def _formula(symbols: Iterable[str]) -> str:
    counts = Counter(symbols)
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts.items())


# ---------------------------------------------------------------------- chemistry
def _build(atoms: list[Atom], basis: str, charge: int, spin: int, unit: str) -> Any:
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    known = [str(symbol) for symbol in ELEMENTS[1:]]
    for symbol, _ in atoms:
        if symbol not in known:
            raise QasError(f"unknown element {symbol!r}; use the symbols of the periodic table, such as 'Li'")
    electrons = sum(known.index(symbol) + 1 for symbol, _ in atoms) - charge
    if electrons < 1:
        raise QasError(f"a molecule has at least one electron, got {electrons} at charge {charge}")
    if (electrons - spin) % 2 or spin > electrons:
        raise QasError(
            f"{electrons} electrons at charge {charge} cannot have {spin} unpaired; choose spin or charge to fit"
        )
    try:
        return gto.M(atom=atoms, basis=basis, charge=charge, spin=spin, unit=unit, verbose=0)
    except Exception as error:
        # PySCF has no common error for a basis that it does not know or that lacks an element.
        raise QasError(f"PySCF cannot build the molecule in basis {basis!r}: {one_line(error)}") from None


@dataclass(frozen=True)
class _Integrals:
    """The electrons of an active space in Hartree-Fock orbitals; energies in hartree."""

    orbitals: np.ndarray
    """coefficients of the active orbitals, shape (n_basis, n)"""
    n_alpha: int
    n_beta: int
    constant: float
    """of the nuclei and the core electrons"""
    one_body: np.ndarray
    """shape (n, n)"""
    two_body: np.ndarray
    """chemists' order, shape (n, n, n, n)"""
    energy: float
    """of the ground state, by CASCI"""
    density: np.ndarray
    """of the ground state, summed over spin, shape (n, n)"""


def _active_integrals(field: Any, space: Sequence[int], core: Sequence[int], electrons: tuple[int, int]) -> _Integrals:
    """Integrals and ground state of an active space.

    Args:
        field: converged Hartree-Fock object.
        space: active orbitals.
        core: doubly occupied orbitals.
        electrons: active ones of spin up and down.
    """
    from pyscf import ao2mo, mcscf

    overlap = field.mol.intor("int1e_ovlp")
    coefficients = fixed_orbitals(field.mo_energy, field.mo_occ, field.mo_coeff, overlap)
    ordered = np.hstack([coefficients[:, list(core)], coefficients[:, list(space)]])
    casci = mcscf.CASCI(field, len(space), electrons)
    casci.fcisolver.conv_tol = 1e-12
    one_body, constant = casci.get_h1eff(ordered)
    two_body = ao2mo.restore(1, casci.get_h2eff(ordered), len(space))
    energy, _, state, *_ = casci.kernel(ordered)
    return _Integrals(
        orbitals=ordered[:, len(core) :],
        n_alpha=electrons[0],
        n_beta=electrons[1],
        constant=float(constant),
        one_body=np.asarray(one_body),
        two_body=np.asarray(two_body),
        energy=float(energy),
        density=np.asarray(casci.fcisolver.make_rdm1(state, len(space), electrons)),
    )


def _rotation(kind: str, field: Any, made: _Integrals) -> Rotation:
    """Of the restricted kinds of `ORBITALS`: the same for alpha and beta."""
    turn = np.eye(len(made.one_body))
    if kind == "natural":
        turn = natural(made.density)
    elif kind == "localized":
        turn = localized(field.mol, made.orbitals, field.get_fock(), made.n_alpha, made.n_beta)
    return turn, turn


def _encode(made: _Integrals, rotation: Rotation, mapping: str, taper: bool) -> tuple[Molecule, Hamiltonian]:
    """How qubits hold the electrons, and the operator on them.

    Raises:
        TooLargeError: more qubits than allowed are left after tapering.
    """
    operator = _without_rounding(jordan_wigner(*_spin_orbitals(made, rotation)))
    counts = len(made.one_body), made.n_alpha, made.n_beta
    molecule = Molecule(*counts, mapping)
    if taper:
        whole = Molecule(*counts, "parity-full" if mapping.startswith("parity") else mapping)
        tapering = Tapering.of(whole.encode(operator), determinant=whole.encode_determinant())
        molecule = Molecule(*counts, mapping, tapering)
    if molecule.n_qubits > MAX_QUBITS:
        raise TooLargeError(
            f"molecules have up to {MAX_QUBITS} qubits, got {molecule.n_qubits} after tapering; "
            "give a smaller active=(electrons, orbitals)"
        )
    terms = molecule.encode(operator).terms
    identity = "I" * molecule.n_qubits
    terms[identity] = terms.get(identity, 0.0) + made.constant
    return molecule, _without_rounding(Hamiltonian(terms))


def _without_rounding(operator: Hamiltonian) -> Hamiltonian:
    identity = "I" * operator.n_qubits
    terms = {p: c for p, c in operator.terms.items() if abs(c) >= CUTOFF or p == identity}
    return Hamiltonian(terms or {identity: 0.0})


def _spin_orbitals(made: _Integrals, rotation: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Integrals over spin orbitals, alpha first, after a rotation; shapes (2n, 2n) and (2n, 2n, 2n, 2n)."""
    n = len(made.one_body)
    one_body, two_body = np.zeros((2 * n,) * 2), np.zeros((2 * n,) * 4)
    spins = [(slice(s * n, s * n + n), turn) for s, turn in enumerate(rotation)]
    for here, u in spins:
        one_body[here, here] = u.T @ made.one_body @ u
        for there, v in spins:
            two_body[here, here, there, there] = np.einsum(
                "pqrs,pi,qj,rk,sl->ijkl", made.two_body, u, u, v, v, optimize=True
            )
    return one_body, two_body


__all__ = ["BOHR_IN_ANGSTROM", "GUESSES", "MAPPINGS", "MAX_QUBITS", "molecule"]
