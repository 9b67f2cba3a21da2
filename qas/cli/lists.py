"""``qas problems``, ``families``, ``noise``, ``devices`` and ``agents``: what has a name, and what is known of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from qas.cli.parser import command, count
from qas.cli.show import answer, listing, table
from qas.errors import QasError
from qas.gates import gate_spec

if TYPE_CHECKING:
    from qas.devices import Calibration, Device
    from qas.problems import BaseProblem
    from qas.registry import Registry


def add(commands: Any) -> None:
    for name, about, run in (
        ("problems", "what can be searched", _problems),
        ("families", "families of problems that one policy learns", _families),
        ("noise", "noise models that have a name", _noise),
        ("objectives", "what can be minimized under noise", _objectives),
        ("devices", "calibrated devices, and their best qubits", _devices),
        ("agents", "ways to search, and their settings", _agents),
    ):
        parser = command(commands, name, about, f"Lists {about}.", run)
        if name == "problems":
            known = "what is known of one problem: energies, and how trivial it is"
            parser.option("problem", "NAME", known, kind="problems", nargs="*")
        if name == "families":
            parser.option("family", "NAME", "the instances of one family", kind="families", nargs="?")
        if name == "devices":
            parser.option("device", "NAME", "a patch of one device: errors and map", kind="devices", nargs="?")
            parser.option("--patch", "SHAPE", "best, line, ring, tree, median, line:median, or 5,3,2 (default best)")
            parser.option("--qubits", "N", "qubits of the patch (default 4, of few-qubit devices all)", count)
        parser.output()


def _problems(arguments: argparse.Namespace) -> int:
    from qas.problems import list_problems, load_problem

    if not arguments.problem:
        return answer(arguments, list_problems(), *listing(list_problems()))
    problem = load_problem(" ".join(arguments.problem))
    if problem.n_qubits >= _LARGE:
        print(f"solving {problem.name} on {problem.n_qubits} qubits, which can take minutes", file=sys.stderr)
    known = _known(problem)
    return answer(arguments, known, *_told(problem, known))


def _families(arguments: argparse.Namespace) -> int:
    from qas.envs import list_families, load_family

    if arguments.family is None:
        return answer(arguments, list_families(), *listing(list_families()))
    family = load_family(arguments.family)
    parts = {part: [each.name for each in getattr(family, part)] for part in ("train", "test")}
    lines = [f"{family.name}: {family.about}", *(f"{part}: {' '.join(names)}" for part, names in parts.items())]
    lines += ["and endlessly many more to train on"] if family.drawn is not None else []
    return answer(arguments, {"name": family.name, "about": family.about, **parts}, *lines)


def _known(problem: BaseProblem) -> dict[str, Any]:
    """What can be told of a problem, JSON-able; None where it has no meaning or is too large to compute."""
    from qas.problems import Problem

    names = ["name", "description", "n_qubits", "unit", "threshold", "exact", "product_state", "basis_state"]
    if isinstance(problem, Problem):
        names += ["unrestricted", "determinants", "determinant"]
    known = {name: _value(problem, name) for name in names}
    if isinstance(problem, Problem):
        triviality, molecule = _value(problem, "triviality"), problem.molecule
        known |= {"terms": len(problem.hamiltonian), "trivial": triviality and triviality.trivial}
        if molecule is not None:
            known["electrons"] = {"alpha": molecule.n_alpha, "beta": molecule.n_beta, "orbitals": molecule.n_orbitals}
            known["tapering"] = molecule.tapering and molecule.tapering.to_json()
    return known


def _value(problem: BaseProblem, name: str) -> Any:
    from qas.errors import TooLargeError

    try:
        return getattr(problem, name)
    except TooLargeError:
        return None


_LARGE = 14
"""Qubits from which on what is known of a problem takes long to compute."""
_STATES = {"exact": "exact", "product_state": "product state", "basis_state": "basis state"} | {
    "unrestricted": "determinant in unrestricted orbitals"
}


def _told(problem: BaseProblem, known: dict[str, Any]) -> list[str]:
    """`_known` for readers."""
    from qas.page import short_unit

    unit = short_unit(problem.unit)
    suffix = f" ({unit})" if unit else ""
    lines = [f"{problem.name}: {problem.description}"]
    lines += [
        f"{problem.n_qubits} qubits, {problem.summary}; solved at an error of {problem.threshold:.3g} {unit}".rstrip()
    ]
    energies = {label: known[name] for name, label in _STATES.items() if known.get(name) is not None}
    rows = [(label, f"{energy:.8f}", f"{problem.error(energy) + 0.0:.3g}") for label, energy in energies.items()]
    lines += ["", *table([("", f"energy{suffix}", f"error{suffix}"), *rows]), ""]
    if known.get("determinants"):
        lines.append(f"basis states whose best superposition solves it: {known['determinants']}")
    if known.get("trivial") is not None:
        lines.append(
            "trivial: a product state or a determinant in unrestricted orbitals solves it"
            if known["trivial"]
            else "not trivial"
        )
    if known.get("electrons"):
        lines.append("{alpha} alpha and {beta} beta electrons in {orbitals} orbitals".format(**known["electrons"]))
    if known.get("tapering"):
        signs = {1: "+", -1: "-"}
        pairs = zip(known["tapering"]["symmetries"], known["tapering"]["sector"], strict=True)
        lines.append("tapered: " + ", ".join(f"{string} = {signs[sign]}1" for string, sign in pairs))
    if known.get("determinant"):
        lines.append(f"reference state: |{known['determinant']}>")
    return lines


def _noise(arguments: argparse.Namespace) -> int:
    from qas.noise import list_noise

    return answer(arguments, list_noise(), *listing(list_noise()))


def _devices(arguments: argparse.Namespace) -> int:
    from qas.devices import list_devices, load_device
    from qas.patches import patch_for

    if arguments.device is None:
        if arguments.patch is not None or arguments.qubits is not None:
            raise QasError("a patch is one of a device: name it too, as in qas devices fake_torino --patch line")
        more = "With the extra ibm every fake backend of qiskit-ibm-runtime is known by its name, too."
        return answer(arguments, list_devices(), *listing(list_devices()), "", more)
    device = load_device(arguments.device)
    listed = arguments.patch is not None and arguments.patch[:1].isdigit()
    if listed and arguments.qubits is not None:
        raise QasError("a patch is its qubits, or a shape and --qubits, got both")
    size = arguments.patch.count(",") + 1 if listed else arguments.qubits or min(4, device.n_qubits)
    patch = patch_for(size, device, arguments.patch or "best")
    return answer(arguments, patch.to_json(), *_calibration(device, patch))


def _calibration(device: Device, patch: Device) -> list[str]:
    """A patch for readers: its gates, what is known of each qubit and pair, and the map."""
    about = [str(device), f"{device.source}", f"patch {patch.name}, gates {', '.join(patch.native_gates)}", ""]
    rows: list[tuple[str, ...]] = [
        ("qubit", "of device", "T1 (us)", "T2 (us)", "sx error", "sx (ns)", "reads 1 for 0", "reads 0 for 1")
    ]
    pulse = patch.gates.get("sx") or patch.gates["u2"]
    for q, physical in enumerate(patch.physical):
        times = (f"{1e6 * t:.0f}" for t in (patch.t1[q], patch.t2[q]))
        flips = (f"{p:.2g}" for p in patch.readout[q])
        rows.append((str(q), str(physical), *times, *_told_gate(pulse[q,]), *flips))
    pairs = [("pair", "of device", f"{patch.entangler} error", f"{patch.entangler} (ns)")] if patch.coupling else []
    either = patch.coupling and gate_spec(patch.entangler).symmetric
    for a, b in patch.directions:
        if either and a > b and (b, a) in patch.directions:
            continue
        known = _told_gate(patch.gates[patch.entangler][a, b])
        pairs.append((f"{a}-{b}", f"{patch.physical[a]}-{patch.physical[b]}", *known))
    joined = ", ".join(f"{a}-{b}" for a, b in sorted(patch.coupling))
    return [*about, *table(rows), "", *table(pairs), "", f"map: {joined or 'no pairs'}"]


def _told_gate(known: Calibration) -> tuple[str, str]:
    error, duration = known
    return "-" if error is None else f"{error:.2g}", "-" if duration is None else f"{1e9 * duration:.0f}"


def _objectives(arguments: argparse.Namespace) -> int:
    from qas.mitigation import OBJECTIVES

    return _with_settings(arguments, OBJECTIVES, "Settings stand behind the name, as in zne:nodes=1-3-5.")


def _agents(arguments: argparse.Namespace) -> int:
    from qas.agents import AGENTS
    from qas.agents.presets import PRESETS

    how = "A setting is given as -o KEY=VALUE, its value as JSON or plain text."
    presets = ["", "Published settings, given as --preset NAME:", *listing({n: PRESETS.about(n) for n in PRESETS})]
    return _with_settings(arguments, AGENTS, "\n".join([how, *presets]))


def _with_settings(arguments: argparse.Namespace, table: Registry, how: str) -> int:
    """A registry's names with the settings of what they name, and how these are given."""
    from qas.registry import options_of

    known: dict[str, Any] = {
        name: {"about": table.about(name), "options": {key: p.default for key, p in options_of(table[name]).items()}}
        for name in table
    }
    lines = [line for name, thing in known.items() for line in _thing(name, **thing)]
    return answer(arguments, known, *lines, "", how)


def _thing(name: str, about: str, options: dict[str, Any]) -> list[str]:
    import json
    import textwrap

    shown = ", ".join(f"{key}={json.dumps(value, default=str)}".replace(" ", "\0") for key, value in options.items())
    wrapped = textwrap.wrap(shown, 100, break_long_words=False, break_on_hyphens=False)
    return [f"{name:10} {about}", *(f"{'':11}{line}".replace("\0", " ") for line in wrapped)]
