"""Inputs that no honest user gives, thousands of them: nothing but one line may come of them.

    python benchmarks/fuzz/run.py --inputs 10000 --seed 0 --out results/reliability/fuzzing.json
    python benchmarks/fuzz/run.py --only OpenQASM --inputs 500 --seed 1
    python benchmarks/fuzz/run.py --only pools --again 1234 --seed 0

An input passes if it is read or refused: a `QasError` of one line, or exit code 0 or 2 with one line. All else counts:
other exceptions, more than 10 seconds of processor time (or 5 minutes by the clock), a process that dies, and numbers
that are not finite in what an accepted input gave. Each input follows from the seed, its class and its number alone, so
that `--again` makes a single one anew, with its traceback. Each class runs in a process of its own, of at most 6 GB,
which is replaced where an input ends it.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib
import json
import resource
import selectors
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SHARES = {
    "calls": {"channels": 15, "operators": 8, "circuits": 8, "budgets": 10, "settings": 9},
    "texts": {"OpenQASM": 12},
    "folders": {
        "runs": 8, "checkpoints": 5, "weights": 4, "adapter tensors": 4, "files": 8, "pools": 3, "studies": 2,
    },
    "commands": {"sizes": 1, "command line": 2, "pictures": 1},
}  # fmt: skip
"""Module -> its classes of inputs -> their shares of all, in percent."""
MODULES = {name: module for module, shares in SHARES.items() for name in shares}
PERCENT = {name: percent for shares in SHARES.values() for name, percent in shares.items()}
SECONDS, CLOCK, MEMORY, LONGEST = 10.0, 300.0, 6 * 2**30, 1200
OUTCOMES = ("read", "refused", "traceback", "hang", "died", "not finite")


# ---------------------------------------------------------------------- the process that tries inputs
def trial_of(name: str) -> Any:
    """What draws and tries inputs of a class."""
    return importlib.import_module(MODULES[name]).CLASSES[name]


def attempt(trial: Any, name: str, seed: int, number: int) -> tuple[str, str]:
    """Outcome of one input, and what was told."""
    import numpy as np

    from qas.errors import QasError

    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    try:
        given = trial(rng)
    except QasError as error:
        told = str(error)
        return (
            ("refused", told)
            if "\n" not in told and len(told) < 1500
            else ("traceback", f"a message of many lines: {told[:300]!r}")
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
    return ("read", "") if finite(given) else ("not finite", repr(given)[:300])


def finite(given: Any) -> bool:
    """Whether all numbers in what an input gave are finite."""
    import numpy as np

    if isinstance(given, (list, tuple)):
        return all(map(finite, given))
    if hasattr(given, "isfinite"):
        return bool(given.isfinite().all())
    if isinstance(given, (float, np.floating, np.ndarray)) and np.asarray(given).dtype.kind in "fc":
        return bool(np.isfinite(given).all())
    return True


def work(name: str, seed: int, first: int, last: int) -> None:
    """Try inputs, and write a line before and after each."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    trial = trial_of(name)
    attempt(trial, name, seed, 10**9)  # what is made once is made here
    for number in range(first, last):
        out.write(json.dumps([number]) + "\n")
        out.write(json.dumps([number, *attempt(trial, name, seed, number)]) + "\n")


# ---------------------------------------------------------------------- the process that watches
def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(name: str, seed: int, count: int) -> Iterator[tuple[int, str, str]]:
    """Number, outcome and words of each input of a class."""
    first = 0
    while first < count:
        before = first
        command = [sys.executable, __file__, "--work", name, str(seed), str(first), str(count)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
        ) as child:
            for number, outcome, told in _lines(child):
                yield number, outcome, told
                first = number + 1
        if first == before:
            raise SystemExit(f"the class {name} does not begin: python {__file__} --only {name!r} --again 0")


def tried(name: str, seed: int, count: int) -> tuple[Counter[str], list[dict[str, Any]]]:
    """How often each outcome was, and what should not have been."""
    counts: Counter[str] = Counter()
    bad = []
    for number, outcome, told in watched(name, seed, count):
        counts[outcome] += 1
        if outcome not in ("read", "refused"):
            bad.append({"class": name, "number": number, "outcome": outcome, "told": told})
            print(f"{name} {number}: {outcome}: {told}", flush=True)
    if not counts["read"]:
        bad.append({"class": name, "outcome": "idle", "told": "no input was read: what refuses all refuses nothing"})
    print(name, dict(counts), flush=True)
    return counts, bad


def _lines(child: subprocess.Popen[bytes]) -> Iterator[tuple[int, str, str]]:
    assert child.stdout is not None
    number, begun, used, rest = -1, time.monotonic(), 0.0, b""
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while True:
            if ready.select(timeout=1.0):
                piece = os.read(child.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    number, *found = json.loads(line)
                    if found:
                        yield number, *found
                        number = -1 - number
                begun, used = time.monotonic(), spent(child.pid)
            elif number >= 0 and (spent(child.pid) - used > SECONDS or time.monotonic() - begun > CLOCK):
                child.kill()
                yield (
                    number,
                    "hang",
                    f"{spent(child.pid) - used:.0f} s of processor time, {time.monotonic() - begun:.0f} s by the clock",
                )
                return
    if number >= 0:
        yield number, "died", f"exit code {child.wait()}"


def table(counts: dict[str, Counter[str]], seed: int) -> str:
    lines = [f"| class | inputs | {' | '.join(OUTCOMES)} |", "|---|" + "---:|" * (1 + len(OUTCOMES))]
    for name, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        lines.append(f"| {name} | {found.total()} | " + " | ".join(str(found[o]) for o in OUTCOMES) + " |")
    return "\n".join(lines) + f"\n\nSeed {seed}.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="classes at a time")
    parser.add_argument("--only", choices=PERCENT, action="append", help="classes; all inputs are of these")
    parser.add_argument("--again", type=int, metavar="NUMBER", help="one input, with its traceback")
    parser.add_argument("--out", type=Path, help="JSON file; the table is printed")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        name, *numbers = arguments.work
        work(name, *map(int, numbers))
        return 0
    chosen = arguments.only or list(PERCENT)
    if arguments.again is not None:
        import numpy as np

        rng = np.random.default_rng([arguments.seed, zlib.crc32(chosen[0].encode()), arguments.again])
        print(trial_of(chosen[0])(rng))
        return 0
    whole = sum(PERCENT[name] for name in chosen)
    sizes = [-(-arguments.inputs * PERCENT[name] // whole) for name in chosen]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(lambda name, size: tried(name, arguments.seed, size), chosen, sizes))
    counts = dict(zip(chosen, (each for each, _ in found), strict=True))
    bad = [each for _, some in found for each in some]
    print(table(counts, arguments.seed))
    if arguments.out is not None:
        told = {"seed": arguments.seed, "counts": counts, "bad": bad}
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
