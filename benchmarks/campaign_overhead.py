"""What a campaign costs beyond its searches: the same searches by `qas campaign` and by hand, two at a time.

    python benchmarks/campaign_overhead.py --out results/speed/campaign_overhead.json
    python benchmarks/campaign_overhead.py --check

By hand are two Python processes that call `qas.search` for every other search of the study, one after the other, each
with as many threads as a worker has; nothing is shown, and no reports are written. Pairs are measured in turn, every
other one begins with the other side. Wall time and the processor time of all processes are compared, whole commands
with their start; what both found is compared too. On a machine with other work the processor time is the one to read.
`--check` fails where the median of its ratios is above the limit. Prints one line of JSON a pair.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

AT_ONCE = 2
REACH = 0.03
"""Share of the time by hand that a campaign may take on top."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=40_000)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--hand", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hand:
        by_hand(json.loads(given.hand[0]), Path(given.hand[1]), int(given.hand[2]))
        return
    study = {"problems": ["lih-4"], "agents": ["evolution", "random"], "seeds": given.seeds}
    study |= {"evaluations": given.evaluations}
    pairs = [pair(study, number) for number in range(given.pairs)]
    ratios = {name: [p[f"campaign {name}"] / p[f"by hand {name}"] - 1 for p in pairs] for name in ("cpu", "wall")}
    found = {
        "study": study,
        "pairs": pairs,
        **{
            f"overhead {name}": {"median": statistics.median(r), "least": min(r), "most": max(r)}
            for name, r in ratios.items()
        },
    }
    print(json.dumps({name: value for name, value in found.items() if name != "pairs"}))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    if given.check and found["overhead cpu"]["median"] > REACH:
        sys.exit(f"a campaign takes {found['overhead cpu']['median']:.1%} on top, at most {REACH:.0%} are wanted")


def pair(study: dict[str, Any], number: int) -> dict[str, float]:
    """Seconds of both sides."""
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = [("campaign", campaign), ("by hand", hand)]
        for side, run in sides if number % 2 else sides[::-1]:
            begin, before = time.perf_counter(), processor_time()
            run(study, folder / side)
            told[f"{side} wall"] = time.perf_counter() - begin
            told[f"{side} cpu"] = processor_time() - before
        if fronts(folder / "campaign" / "runs") != fronts(folder / "by hand"):
            sys.exit("both sides found different circuits")
    print(json.dumps(told), flush=True)
    return told


def processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def campaign(study: dict[str, Any], out: Path) -> None:
    file = out.with_suffix(".toml")
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in study.items()))
    command = ["campaign", str(file), "--workers", str(AT_ONCE), "--out", str(out), "--quiet", "--json"]
    subprocess.run([sys.executable, "-m", "qas", *command], check=True, stdout=subprocess.DEVNULL)


def hand(study: dict[str, Any], out: Path) -> None:
    threads = str(max(1, len(os.sched_getaffinity(0)) // AT_ONCE))
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, threads)
    command = [sys.executable, __file__, "--hand", json.dumps(study), str(out)]
    processes = [subprocess.Popen([*command, str(part)], env=environment) for part in range(AT_ONCE)]
    if sum(process.wait() for process in processes):
        sys.exit("the searches by hand failed")


def by_hand(study: dict[str, Any], out: Path, part: int) -> None:
    """Every other search of a study."""
    import qas

    searches = [
        (problem, agent, seed)
        for problem in study["problems"]
        for agent in study["agents"]
        for seed in range(study["seeds"])
    ]
    for problem, agent, seed in searches[part::AT_ONCE]:
        name = f"{problem}-{agent}-s{seed}"
        qas.search(problem, agent=agent, seed=seed, evaluations=study["evaluations"], out=out / name, report=False)


def fronts(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/circuits.jsonl"))}


if __name__ == "__main__":
    main()
