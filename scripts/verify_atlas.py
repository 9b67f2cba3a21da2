"""Check the records of the atlas with Qiskit: parsing, counting, energies and what is dominated.

    python scripts/verify_atlas.py

Each circuit is parsed by Qiskit, evaluated as a Qiskit state vector on an operator made of the problem's Pauli strings,
and compared with what its record claims, to 1e-9; the exact energies are computed by SciPy. Records that another one
dominates are refused, and published points that none reaches are told. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from qas.best_known.fronts import FOLDER, KnownFront, all_fronts
from qas.best_known.gathering import named
from qas.best_known.verification import verify
from qas.checks import whole_number
from qas.errors import QasError


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help="those to check (default all)")
    parser.add_argument("--sample", type=int, metavar="N", help="evaluate N circuits of each front only")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the records are (default: in this checkout)")
    arguments = parser.parse_args(words)
    wrong, circuits, begun = 0, 0, time.perf_counter()
    try:
        if arguments.sample is not None:
            whole_number("--sample", arguments.sample)
        fronts = _chosen(arguments.problems, arguments.folder)
        for front in fronts:
            faults = verify(front, named(front.problem), most=arguments.sample)
            circuits, wrong = circuits + len(front), wrong + bool(faults)
            print(f"{front.problem}: {len(front)} circuits, {'as they say' if not faults else 'FALSE'}", flush=True)
            for line in faults:
                print(f"  {line}")
            for point in front.ahead:
                counted = "" if point.two_qubit_gates is None else f" with {point.two_qubit_gates} CX"
                print(f"  published and not reached: {point.error:g}{counted} ({point.method})")
    except QasError as error:
        print(f"verify_atlas: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    told = "all are as they say" if not wrong else f"{wrong} fronts are not as they say"
    print(f"{len(fronts)} fronts, {circuits} circuits in {time.perf_counter() - begun:.0f} s: {told}")
    return 1 if wrong else 0


def _chosen(problems: list[str], folder: Path) -> list[KnownFront]:
    known = {front.problem: front for front in all_fronts(folder)}
    missing = [name for name in problems if name not in known]
    if missing or not known:
        raise QasError(f"no records of {', '.join(missing) or 'anything'} in {folder}")
    return [known[name] for name in problems or known]


if __name__ == "__main__":
    sys.exit(main())
