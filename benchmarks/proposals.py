"""Pool searches: seconds for one proposal over 100,000 points, and for a whole run.

    python benchmarks/proposals.py --out results/speed/proposals.json
    python benchmarks/proposals.py --whole 1000 --searchers bo --options '{"acquisition": "level-set"}'
    python benchmarks/proposals.py --whole 1000 --searchers dngo

A proposal is one ask of `bo` after 500 observations, each preceded by telling it the batch before; one in about twenty
scores the whole pool again or fits hyper-parameters, so the mean is given beside the median. One core. The objective is
a smooth function of 4 of the dimensions with noise, so that fits have something to find; values cost nothing.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qas.agents.pool.bayesian import BayesianSearcher
from qas.agents.pool.reinforce import ReinforceSearcher
from qas.agents.pool.searchers import KnnSearcher, PoolSearcher, RandomSearcher

SEARCHERS: dict[str, Any] = {
    "random": RandomSearcher,
    "knn": KnnSearcher,
    "reinforce": ReinforceSearcher,
    "bo": BayesianSearcher,
    "dngo": partial(BayesianSearcher, surrogate="dngo"),
}


def pool(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clustered points and their values, between 0 and about 1."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, d))
    points = centres[rng.integers(50, size=n)] + 0.6 * rng.normal(size=(n, d))
    target = points[rng.integers(n)]
    values = np.exp(-0.15 * ((points - target)[:, :4] ** 2).sum(axis=1)) + 0.05 * rng.normal(size=n)
    return points.astype(np.float32), values


def whole_run(searcher: PoolSearcher, values: np.ndarray, queries: int) -> tuple[float, float, list[float]]:
    """Wall-clock and processor seconds of a run, and wall-clock seconds of each ask and tell in it."""
    times: list[float] = []
    begin, busy = time.perf_counter(), time.process_time()
    while len(searcher.told[0]) < queries:
        start = time.perf_counter()
        batch = searcher.ask()
        searcher.tell(batch, values[batch])
        times.append(time.perf_counter() - start)
    return time.perf_counter() - begin, time.process_time() - busy, times


def proposals(searcher: PoolSearcher, values: np.ndarray, observations: int, repeats: int) -> list[float]:
    """Seconds of single proposals; the first, which fits everything from nothing, is not counted."""
    rng = np.random.default_rng(1)
    known = rng.choice(len(values), size=observations, replace=False)
    searcher.tell(known, values[known], prior=True)
    batch = searcher.ask()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        searcher.tell(batch, values[batch])
        batch = searcher.ask()
        times.append(time.perf_counter() - start)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--observations", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument(
        "--whole", type=int, default=0, metavar="QUERIES", help="also time whole runs of so many queries"
    )
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=list(SEARCHERS))
    parser.add_argument("--options", type=json.loads, default={}, help="options of bo, and of no other, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()

    points, values = pool(args.points, args.dimensions, args.seed)
    searcher = BayesianSearcher(points, np.random.default_rng(args.seed), **args.options)
    times = proposals(searcher, values, args.observations, args.repeats)
    rows: dict[str, Any] = {
        "bo proposal": {"median_seconds": float(np.median(times)), "mean_seconds": float(np.mean(times)),
                        "largest_seconds": float(np.max(times))}
    }  # fmt: skip
    row = rows["bo proposal"]
    print(
        f"one proposal, {args.points} points in {args.dimensions} dimensions, {args.observations} observations: "
        f"median {row['median_seconds']:.3f} s, mean {row['mean_seconds']:.3f} s, "
        f"largest {row['largest_seconds']:.3f} s"
    )
    del searcher
    good = values >= np.quantile(values, 0.99)
    for name in args.searchers if args.whole else []:
        options = args.options if name == "bo" else {}
        searcher = SEARCHERS[name](points, np.random.default_rng(args.seed), **options)
        seconds, busy, times = whole_run(searcher, values, args.whole)
        told, seen = searcher.told
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows[f"{name}, {args.whole} queries"] = {
            "seconds": seconds,
            "processor_seconds": busy, "slowest_ask": max(times), "top_percent_found": int(good[told].sum()),
            "best": float(seen.max()), "peak_memory_mb_so_far": memory,
        }  # fmt: skip
        print(
            f"{name}: {args.whole} queries in {seconds:.1f} s ({busy:.1f} s of processor time), "
            f"slowest ask {max(times):.2f} s, "
            f"{good[told].sum()} of the best 1 %, best {seen.max():.3f}, peak {memory:.0f} MB so far"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
