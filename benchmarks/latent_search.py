"""Searches on labelled pools: how many good circuits each agent finds, on each kind of points, over many seeds.

    python benchmarks/latent_search.py pools/q4 --tasks state-4-0 h2-4 --features structure latent --searchers bo knn \
        --seeds 50 --jobs 2 --out results/unsupervised/searches
    python benchmarks/latent_search.py pools/q4 --tasks state-4-0 maxcut-4-url h2-4 --searchers bo \
        --options '{"surrogate": "dngo"}' --seeds 5 --jobs 2 --out results/unsupervised/searches

Every run is a search of ``qas search "labelled" pools/q4:TASK --agent SEARCHER --steps QUERIES --seed SEED`` with
``-o features=…`` and the options as ``-o``, kept in memory; `settings` says which options it adds.

Writes `runs.csv` (one row for each run, with the number of good circuits after every 25 queries), `table.md` and one
`<task>.png` for each task. Rows that are already there are not run again, so an interrupted campaign continues with the
same command, and a further command adds to the same folder.
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from qas.agents.pool.reinforce import PAPER_SETTINGS
from qas.agents.pool.replay import replay
from qas.comparison import interval
from qas.encoders.pools import POINTS
from qas.encoders.pools.pool import Pool, TabularProblem
from qas.encoders.pools.reduction import reduce_rows

COLUMNS = (
    "task", "score", "features", "searcher", "options", "queries", "seed", "threshold", "base_rate", "found",
    "distinct", "recall", "best", "seconds", "curve",
)  # fmt: skip
KEY = ("task", "score", "features", "searcher", "options", "queries", "seed")
STEP = 25
GAUSSIAN_PROCESS = {"name": "gp", "candidates": 10_000, "candidates_growth": 1.5, "refit_growth": 1.5}
"""Settings that, with batches of 10, halve the time of a replay; on single seeds they find within 5 % of what the
defaults find."""


# ---------------------------------------------------------------------- one run
@lru_cache(maxsize=2)
def _table(pool: str, task: str, score: str) -> TabularProblem:
    return Pool(pool).table(task, score)


def settings(searcher: str, options: dict[str, Any], features: str, table: TabularProblem) -> dict[str, Any]:
    """Options of the agent: those given, and those that every run has here."""
    name, _, encoder = features.partition(":")
    found: dict[str, Any] = {} if searcher == "random" else {"features": name}
    found |= {"encoder": encoder} if encoder else {}
    if searcher == "reinforce":
        # The settings that the released code has for this kind of task.
        kinds = {"state": "fidelity", "maxcut": "maxcut"}
        kind = kinds.get(table.labels.problem.provenance.get("family", ""), "vqe")
        found |= PAPER_SETTINGS[f"{kind}-{8 if table.space.n_qubits >= 8 else 4}"]
    if searcher == "bo":
        found |= {"batch": 10, "surrogate": GAUSSIAN_PROCESS}
        if options.get("acquisition") == "level-set":
            options = options | {"acquisition": {"name": "level-set", "threshold": table.score.threshold}}
    return found | options


def run_one(pool: str, key: tuple[Any, ...]) -> dict[str, Any]:
    task, score, features, searcher, options, queries, seed = key
    table = _table(pool, task, score)
    chosen = settings(searcher, json.loads(options), features, table)
    replay(table, searcher, queries=1, seed=seed, **chosen)  # points are made once and kept; their time is not counted
    started = time.process_time()
    result = replay(table, searcher, queries=queries, seed=seed, **chosen)
    good = result.indices[result.values >= result.threshold]
    return dict(zip(KEY, key, strict=True)) | {
        "threshold": result.threshold,
        "base_rate": round(table.base_rate, 6),
        "found": int(result.found[-1]),
        "distinct": len(np.unique(reduce_rows(table.rows[good], table.space), axis=0)),
        "recall": result.recall(table),
        "best": float(result.best[-1]),
        "seconds": round(time.process_time() - started, 1),
        "curve": json.dumps(result.found[STEP - 1 :: STEP].tolist()),
    }


# ---------------------------------------------------------------------- table and figures
def groups(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[k]) for k in KEY[:-1]), []).append(row)
    return dict(sorted(found.items()))


def make_table(rows: list[dict[str, Any]]) -> str:
    head = [
        "task", "threshold", "base rate", "points", "searcher", "seeds", "queries", "found (95 % interval)",
        "enrichment", "distinct", "recall of the top 100", "CPU s",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (task, _, features, searcher, options, queries), group in groups(rows).items():
        found = [float(r["found"]) for r in group]
        mean, half = float(np.mean(found)), interval(found)
        base = float(group[0]["base_rate"])
        name = searcher if options == "{}" else f"{searcher} {options.replace('|', '/')}"
        averages = {k: np.mean([float(r[k]) for r in group]) for k in ("distinct", "recall", "seconds")}
        # Where far more circuits than 100 share the best score, a recall of the top 100 says nothing.
        recall = "–" if base > 0.05 else f"{100 * averages['recall']:.0f} %"
        cells = [
            task, group[0]["threshold"], f"{100 * base:.2f} %", features, name, str(len(group)), queries,
            f"{mean:.1f} ± {half:.1f}", f"{mean / int(queries) / base:.1f}" if base else "–",
            f"{averages['distinct']:.0f}", recall, f"{averages['seconds']:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], task: str, path: Path) -> None:
    from matplotlib.figure import Figure

    from qas.drawing import save_figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    curves = []
    for (_, _, features, searcher, options, queries), group in groups([r for r in rows if r["task"] == task]).items():
        values = np.array([json.loads(r["curve"]) for r in group], dtype=float)
        label = "random" if searcher == "random" else f"{searcher} on {features}"
        given = json.loads(options)
        if given:
            label += f" ({', '.join(str(v) for v in given.values())})"
        curves.append((values[:, -1].mean(), label, values, int(queries)))
    for k, (_, label, values, queries) in enumerate(sorted(curves, key=lambda c: -c[0])):
        x = np.arange(STEP, queries + 1, STEP)[: values.shape[1]]
        low, high = np.quantile(values, [0.05, 0.95], axis=0)
        style = "-" if k < 10 else "--"
        axes.plot(x, values.mean(axis=0), style, color=f"C{k % 10}", label=f"{label} [{len(values)}]")
        axes.fill_between(x, low, high, color=f"C{k % 10}", alpha=0.15, linewidth=0)
    base = next(float(r["base_rate"]) for r in rows if r["task"] == task)
    axes.plot([0, curves[0][3]], [0, base * curves[0][3]], ":", color="grey", label="base rate")
    axes.set_xlabel("queries")
    axes.set_ylabel("circuits at or above the threshold")
    axes.set_title(f"{task}: mean and 5 to 95 % of the seeds [number of seeds]")
    axes.legend(fontsize=7)
    save_figure(figure, path)


# ---------------------------------------------------------------------- campaign
def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("curve")]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda r: tuple(str(r[k]) for k in KEY[:-1]) + (f"{int(r['seed']):06d}",))
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--features", nargs="+", default=["structure"], help=f"{', '.join(POINTS)}; or latent:ENCODER")
    parser.add_argument("--searchers", nargs="+", default=["random", "knn", "reinforce", "bo"])
    parser.add_argument("--options", default="{}", help="settings of the agent, as JSON")
    parser.add_argument("--score", default="published", choices=["published", "entanglement"])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    options = json.dumps(json.loads(args.options), sort_keys=True)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runs.csv"
    rows = read_rows(path)
    done = {tuple(str(row[k]) for k in KEY) for row in rows}
    todo = [
        (task, args.score, features, searcher, options, args.queries, seed)
        for task in args.tasks
        for features in args.features
        for searcher in args.searchers
        for seed in range(args.seeds)
    ]
    todo = [key for key in todo if tuple(map(str, key)) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=args.jobs, mp_context=context) as executor:
        for future in as_completed([executor.submit(run_one, str(args.pool), key) for key in todo]):
            row = future.result()
            write_rows(path, [*read_rows(path), row])
            print(
                f"{row['task']} {row['features']} {row['searcher']} {row['options']} {row['seed']}: {row['found']}",
                flush=True,
            )
    rows = read_rows(path)
    (args.out / "table.md").write_text(make_table(rows) + "\n")
    for task in dict.fromkeys(row["task"] for row in rows):
        draw(rows, task, args.out / f"{task}.png")
    print(make_table([r for r in rows if r["task"] in args.tasks]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
