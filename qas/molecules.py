"""Molecules as problems: Hartree-Fock integrals from PySCF, mapped to qubits by qiskit-nature."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qas.checks import one_line, shortened, whole_number
from qas.errors import MissingExtraError, QasError, TooLargeError, UnknownNameError
from qas.hamiltonians import Hamiltonian
from qas.problems import CHEMICAL_ACCURACY, MOLECULES, Problem, load_problem

MAPPINGS = {
    "jordan-wigner": "one qubit per spin orbital, alpha orbitals first",
    "jordan-wigner-interleaved": "one qubit per spin orbital, alpha and beta of each orbital side by side",
    "parity": "parity encoding, less the two qubits that hold the conserved parities of alpha and of all electrons",
    "parity-single": "parity encoding, less the one qubit that holds the parity of all electrons",
    "parity-full": "parity encoding, one qubit per spin orbital",
    "bravyi-kitaev": "Bravyi-Kitaev encoding, one qubit per spin orbital",
}
"""Encodings of spin orbitals; unless said otherwise with the alpha orbitals first and then the beta orbitals."""
GUESSES = {
    "minao": "superposed atoms in a minimal basis",
    "1e": "orbitals of the bare nuclei",
    "atom": "superposed Hartree-Fock atoms",
    "huckel": "orbitals of extended Hückel theory",
}
"""Starting points of Hartree-Fock, named as in PySCF."""
MAX_QUBITS = 16
"""Largest molecule, in qubits after the mapping."""
CUTOFF = 1e-9
"""Pauli terms with smaller coefficients (hartree) are rounding of the integrals and are left out."""
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
    mapping: str = "parity",
    unit: str = "angstrom",
    guess: str = "minao",
    name: str | None = None,
) -> Problem:
    """Electronic structure of a molecule as a qubit problem, in hartree.

    Orbitals are those of a restricted (open-shell, if `spin` > 0) Hartree-Fock calculation. The identity term holds the
    nuclear repulsion and the energy of the frozen core, so energies are total energies. `Problem.exact` is the lowest
    energy over the whole space of qubits; ``provenance["sector_energy"]`` is the lowest one with the right numbers of
    electrons (CASCI by PySCF), which may lie higher.

    Args:
        geometry: ``"N 0 0 0; N 0 0 1.0977"`` (atoms separated by ``;`` or line ends) or ``[("N", (0, 0, 0)), …]``.
        basis: a basis set that PySCF knows.
        charge: total charge in elementary charges.
        spin: number of unpaired electrons, 2S.
        active: ``(electrons, orbitals)``: so many orbitals around the Fermi level, or ``(electrons, [1, 2, 5])``: these
            molecular orbitals, counted from 0 by energy. The lowest other orbitals hold the remaining electrons in
            pairs. None: all electrons in all orbitals.
        mapping: a key of `MAPPINGS`.
        unit: of the coordinates, ``"angstrom"`` or ``"bohr"``.
        guess: where Hartree-Fock starts, a key of `GUESSES`; it matters where Hartree-Fock has several solutions.
        name: id of the problem; default: formula, number of qubits, active electrons and orbitals, for two atoms the
            bond length in angstrom, and where that does not tell all a hash of the rest: ``lih-4-2e3o-1.6-5c0f1e``.

    Raises:
        MissingExtraError: PySCF or qiskit-nature is not installed.
        UnknownNameError: no such mapping, unit or guess.
        TooLargeError: more than 16 qubits.
        QasError: malformed geometry, unknown basis, electrons that do not fit charge, spin or active space, a
            Hartree-Fock calculation that does not converge, or the name of a shipped molecule that is another one.

    References:
        PySCF: Sun et al., J. Chem. Phys. 153, 024109 (2020), https://doi.org/10.1063/5.0006074.
        Parity encoding and its reduction: Bravyi et al., arXiv:1701.08213, https://arxiv.org/abs/1701.08213.
    """
    if mapping not in MAPPINGS:
        raise UnknownNameError("mapping", mapping, MAPPINGS)
    if unit not in ("angstrom", "bohr"):
        raise UnknownNameError("unit of length", unit, ("angstrom", "bohr"))
    if guess not in GUESSES:
        raise UnknownNameError("Hartree-Fock guess", guess, GUESSES)
    if not isinstance(basis, str) or not re.fullmatch(r"[A-Za-z0-9+*(),\-_ ]{1,60}", basis):
        raise QasError(f"basis is the name of a basis set such as 'sto-3g', got {basis!r}")
    charge = whole_number("the charge", charge, -1000, 1000)
    spin = whole_number("spin, the number of unpaired electrons,", spin, 0)
    atoms = _read_geometry(geometry, unit)
    request = _read_active(active)
    try:
        import pyscf
        import qiskit
        import qiskit_nature
    except ImportError:
        raise MissingExtraError("qas.molecule", "chem") from None

    mol = _build(atoms, basis, charge, spin, unit)
    electrons, orbitals, core = _active_space(request, mol.nelectron, spin, int(mol.nao))
    n_qubits = _count_qubits(len(orbitals), mapping)
    field = _hartree_fock(mol, guess)
    coefficients = _fixed_orbitals(field.mo_energy, field.mo_occ, field.mo_coeff, mol.intor("int1e_ovlp"))
    ordered = np.hstack([coefficients[:, list(core)], coefficients[:, list(orbitals)]])
    constant, one_body, two_body, casci = _integrals(field, ordered, electrons, len(orbitals), spin)
    terms = _map(one_body, two_body, (electrons + spin) // 2, (electrons - spin) // 2, mapping)
    identity = "I" * n_qubits
    terms[identity] = terms.get(identity, 0.0) + constant
    hamiltonian = Hamiltonian({p: c for p, c in terms.items() if abs(c) >= CUTOFF or p == identity})
    formula = _formula(symbol for symbol, _ in atoms)
    settings = {
        "basis": basis,
        "charge": charge,
        "spin": spin,
        "guess": guess,
        "active_orbitals": list(orbitals),
        "mapping": mapping,
    }
    what, tail = _told_apart(atoms, unit, settings, list(range(len(core), len(core) + len(orbitals))))
    made = Problem(
        name=name if name is not None else f"{formula}-{n_qubits}-{electrons}e{len(orbitals)}o{tail}".lower(),
        hamiltonian=hamiltonian,
        unit="hartree",
        threshold=CHEMICAL_ACCURACY,
        description=f"{formula}{what}, {basis.upper()}, {electrons}e in {len(orbitals)} orbitals, {mapping}",
        provenance={
            "family": "molecule",
            "geometry": [[symbol, list(position)] for symbol, position in atoms],
            "geometry_unit": unit,
            **settings,
            "orbitals": "ROHF" if spin else "RHF",
            "active_electrons": electrons,
            "core_orbitals": list(core),
            "qubit_order": "alpha orbitals by energy, then beta orbitals; qubit 0 is the rightmost letter",
            "cutoff": CUTOFF,
            "nuclear_repulsion": float(mol.energy_nuc()),
            "hartree_fock": float(field.e_tot),
            "sector_energy": casci,
            "versions": {
                "pyscf": pyscf.__version__,
                "qiskit-nature": qiskit_nature.__version__,
                "qiskit": qiskit.__version__,
            },
        },
    )
    _refuse_shipped_name(made)
    return made


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


def _count_qubits(n_orbitals: int, mapping: str) -> int:
    n_qubits = 2 * n_orbitals - {"parity": 2, "parity-single": 1}.get(mapping, 0)
    if n_qubits < 1:
        raise QasError(
            "the parity mapping removes two qubits and needs two active orbitals, got 1; use 'jordan-wigner'"
        )
    if n_qubits > MAX_QUBITS:
        raise TooLargeError(
            f"molecules have up to {MAX_QUBITS} qubits, got {n_qubits} from {n_orbitals} orbitals; "
            "give a smaller active=(electrons, orbitals)"
        )
    return n_qubits


def _told_apart(atoms: list[Atom], unit: str, settings: dict[str, Any], orbitals: list[int]) -> tuple[str, str]:
    """What tells a molecule from others of its formula and size: words for the description, the end of its name.

    Two atoms have their distance in angstrom. All else that is not as usual is in a hash: the positions of more atoms,
    rounded to 1e-6 angstrom, and settings that differ from the defaults, with `orbitals` for the active ones.
    """
    usual = {
        "basis": "sto-3g",
        "charge": 0,
        "spin": 0,
        "guess": "minao",
        "active_orbitals": orbitals,
        "mapping": "parity",
    }
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
        for key in ("geometry", "geometry_unit", "basis", "charge", "spin", "guess", "active_orbitals", "mapping"):
            if shipped[key] != made.provenance[key]:
                told = f"with the {key.replace('_', ' ')} {shortened(shipped[key])}"
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


def _hartree_fock(mol: Any, guess: str) -> Any:
    """Converged restricted Hartree-Fock; by the second-order solver where the usual iteration does not converge."""
    from pyscf import scf

    field = scf.RHF(mol) if mol.spin == 0 else scf.ROHF(mol)
    # Far below chemical accuracy: leftovers of the iteration break symmetries and show up as spurious Pauli terms.
    field.conv_tol, field.conv_tol_grad, field.max_cycle = 1e-13, 1e-9, 200
    field.init_guess = guess
    field.kernel()
    if not field.converged:
        field = field.newton()
        field.conv_tol, field.conv_tol_grad = 1e-12, 1e-7
        field.kernel(field.mo_coeff, field.mo_occ)
    if not field.converged:
        raise QasError("the Hartree-Fock calculation did not converge; check geometry, charge and spin")
    return field


def _fixed_orbitals(energies: Any, occupations: Any, coefficients: Any, overlap: Any) -> np.ndarray:
    """Orbitals with every free choice fixed: signs, and rotations among orbitals of the same energy and occupation.

    Without this, an active space that cuts through degenerate orbitals would depend on the linear algebra library.

    Args:
        energies: shape (n_orbitals,), ascending.
        occupations: shape (n_orbitals,).
        coefficients: shape (n_basis, n_orbitals).
        overlap: of the basis functions, shape (n_basis, n_basis).
    """
    fixed = np.array(coefficients, dtype=np.float64)
    start = 0
    for stop in range(1, fixed.shape[1] + 1):
        together = (
            stop < fixed.shape[1]
            and abs(energies[stop] - energies[stop - 1]) < 1e-6
            and occupations[stop] == occupations[stop - 1]
        )
        if together:
            continue
        block = fixed[:, start:stop]
        done = np.zeros((len(block), 0))
        while block.shape[1]:
            # The projection onto the basis function it contains most becomes an orbital; ties go to the first function.
            weights = np.linalg.norm(overlap @ block, axis=1)
            pivot = int(np.flatnonzero(weights > weights.max() * (1 - 1e-5))[0])
            row = (overlap @ block)[pivot]
            turn = np.linalg.svd(row[None, :])[2].T
            turned = block @ turn
            first = turned[:, :1]
            first = first * np.sign((overlap @ first)[pivot])
            done, block = np.hstack([done, first]), turned[:, 1:]
        fixed[:, start:stop] = done
        start = stop
    return fixed


def _integrals(
    field: Any, orbitals: np.ndarray, electrons: int, n_active: int, spin: int
) -> tuple[float, np.ndarray, np.ndarray, float]:
    """Constant, one- and two-body integrals (chemists' order) of the active space, and its CASCI energy; hartree.

    Args:
        field: converged Hartree-Fock object.
        orbitals: core orbitals and then active orbitals, shape (n_basis, n_core + n_active).
        electrons: number of active electrons.
        n_active: number of active orbitals.
        spin: number of unpaired electrons.
    """
    from pyscf import ao2mo, mcscf

    n_alpha, n_beta = (electrons + spin) // 2, (electrons - spin) // 2
    casci = mcscf.CASCI(field, n_active, (n_alpha, n_beta))
    casci.fcisolver.conv_tol = 1e-12
    one_body, constant = casci.get_h1eff(orbitals)
    two_body = ao2mo.restore(1, casci.get_h2eff(orbitals), n_active)
    energy = casci.kernel(orbitals)[0]
    return float(constant), np.asarray(one_body), np.asarray(two_body), float(energy)


def _map(one_body: np.ndarray, two_body: np.ndarray, n_alpha: int, n_beta: int, mapping: str) -> dict[str, float]:
    """Pauli terms of the electronic Hamiltonian without its constant."""
    from qiskit_nature.second_q.hamiltonians import ElectronicEnergy
    from qiskit_nature.second_q.mappers import (
        BravyiKitaevMapper,
        InterleavedQubitMapper,
        JordanWignerMapper,
        ParityMapper,
    )

    mappers = {
        "jordan-wigner": JordanWignerMapper(),
        "jordan-wigner-interleaved": InterleavedQubitMapper(JordanWignerMapper()),
        "bravyi-kitaev": BravyiKitaevMapper(),
    }
    mapper = mappers.get(mapping, ParityMapper())
    operator = mapper.map(ElectronicEnergy.from_raw_integrals(one_body, two_body).second_q_op())
    terms = Hamiltonian.from_qiskit(operator).terms
    # Alpha orbitals come first: qubit n-1 holds the parity of all electrons, qubit n/2-1 that of the alpha electrons.
    n = 2 * len(one_body)
    if mapping in ("parity", "parity-single"):
        terms = _without_qubit(terms, n - 1, n_alpha + n_beta)
    if mapping == "parity":
        terms = _without_qubit(terms, n // 2 - 1, n_alpha)
    return terms


def _without_qubit(terms: dict[str, float], qubit: int, parity: int) -> dict[str, float]:
    """Terms with a conserved qubit replaced by its value (-1)**parity.

    Raises:
        QasError: the qubit is not conserved.
    """
    reduced: dict[str, float] = {}
    for string, coefficient in terms.items():
        position = len(string) - 1 - qubit
        letter = string[position]
        if letter not in "IZ":
            if abs(coefficient) < CUTOFF:
                continue
            raise QasError(f"qubit {qubit} is not conserved: the operator has the term {string}")
        rest = string[:position] + string[position + 1 :]
        reduced[rest] = reduced.get(rest, 0.0) + (-coefficient if letter == "Z" and parity % 2 else coefficient)
    return reduced


__all__ = ["BOHR_IN_ANGSTROM", "GUESSES", "MAPPINGS", "MAX_QUBITS", "molecule"]
