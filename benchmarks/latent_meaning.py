"""Does distance between circuits mean anything for the objective? Rank correlations and neighbour R², by kind of points.

    python benchmarks/latent_meaning.py pools/q4 --features structure reduced profile latent --out results/unsupervised/meaning-q4.md

Distances are compared over 50,000 random pairs of the pool's last tenth, which no encoder was trained on; R² is that of
the mean energy of the 10 nearest among 2,000 labelled circuits. Means over five draws of pairs and of labelled circuits.
"""
# ruff: noqa: E501 - the command above

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from qas.encoders.pools.points import CircuitFeatures
from qas.encoders.pools.pool import Pool
from qas.encoders.report import distance_correlation, draw_map, neighbour_r2
from qas.encoders.trained import load_encoder

SEEDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument(
        "--features", nargs="+", required=True, help="structure, reduced, profile, latent or latent:DIR"
    )
    parser.add_argument("--tasks", nargs="+", help="default: all of the pool")
    parser.add_argument("--out", type=Path, required=True, help="the table; maps are written beside it")
    parser.add_argument("--map", nargs="*", default=[], help="tasks of which to draw a map for every kind of points")
    args = parser.parse_args()
    pool = Pool(args.pool)
    held_out = pool.rows[-max(len(pool) // 10, 5000) :]
    points = {}
    for features in args.features:
        name, _, where = features.partition(":")
        encoder = load_encoder(where or f"q{pool.space.n_qubits}") if name == "latent" else None
        points[features] = CircuitFeatures(name, pool.space, encoder).fit(pool.rows)(held_out)
    lines = [
        "| task | " + " | ".join(f"{f.replace('latent:', '')}" for f in points) + " |",
        "|---|" + "---|" * len(points),
    ]
    for task in args.tasks or pool.tasks:
        labels = pool.labels(task)
        energies = labels.best[-len(held_out) :]
        cells = []
        for found in points.values():
            rngs = [np.random.default_rng(seed) for seed in range(SEEDS)]
            rank = [distance_correlation(found, energies, rng) for rng in rngs]
            r2 = [neighbour_r2(found, energies, rng) for rng in rngs]
            cells.append(f"{np.mean(rank):.2f} / {np.mean(r2):.2f}")
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
        for features, found in points.items():
            if task in args.map:
                name = f"map-{task}-{features.partition(':')[0]}{Path(features.partition(':')[2]).name}.png"
                draw_map(found, energies, task, args.out.parent / name, unit=labels.problem.unit)
    text = "Rank correlation of distance with energy difference / R² of 10 neighbours\n\n" + "\n".join(lines) + "\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
