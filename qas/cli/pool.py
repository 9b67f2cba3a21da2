"""``qas pool``: draw pools of circuits, label them, show them."""

from __future__ import annotations

import argparse
from typing import Any

from qas.cli import parser as read
from qas.cli.progress import bar
from qas.cli.show import answer, table


def add(commands: Any) -> None:
    about = "Draws pools of circuits and labels them with energies."
    actions = read.group(commands, "pool", "circuit pools", about)
    about = "Draws distinct circuits and labels them; the same command again goes on where it stopped."
    build = read.command(actions, "build", "draw and label a pool", about, _build)
    option = build.option
    option("--qubits", "N", "number of qubits", read.count, required=True)
    option("--gates", "N", "gates of a circuit", read.count, required=True)
    option("--min-gates", "N", "fewest gates (default: as many)", read.natural)
    option("--depth", "N", "most layers, 0 for no limit (default 2 gates / qubits)", read.natural)
    option("--gate-set", "A,B", "gates to draw (default: the eleven published ones)", read.names)
    option("--ring", "A,B", "gates that go from a qubit to the next one only (default cx)", read.names)
    option("--coupling", "0-1,1-2", "pairs that may carry two-qubit gates", read.pairs)
    option("--size", "N", "number of circuits (default 100000)", read.count, default=100_000)
    again: dict[str, Any] = {"action": "append", "default": [], "kind": "problems"}
    option("--task", "NAME", "label for this problem; may be given again", **again)
    option("--noise", "NAME", "noise of the labels (default none)", kind="noise")
    option("--starts", "N", "optimizations of each circuit, the best counts (default 5)", read.count, default=5)
    option("--seed", "N", "fixes circuits and start angles (default 0)", read.natural, default=0)
    option("--jobs", "N", "processes (default: one for each core)", read.count)
    option("--out", "DIR", "pool folder, new or to be continued", required=True)
    build.output(progress=True)
    show = read.command(actions, "show", "what a pool holds", "What a pool holds.", _show)
    show.option("pool", "POOL", "a pool folder")
    show.output()


def _build(arguments: argparse.Namespace) -> int:
    from qas.encoders.pools.pool import LabelSettings, build_pool
    from qas.encoders.pools.spaces import CircuitSpace
    from qas.gates import POOL_GATES

    space = CircuitSpace(
        arguments.qubits,
        arguments.gate_set or POOL_GATES,
        max_gates=arguments.gates,
        max_depth=arguments.depth,
        **read.given(arguments, "min_gates", "ring", "coupling"),
    )
    with bar(arguments.quiet) as shown:
        build_pool(
            arguments.out,
            space,
            arguments.size,
            seed=arguments.seed,
            tasks=arguments.task,
            noise=arguments.noise,
            settings=LabelSettings(starts=arguments.starts),
            jobs=arguments.jobs,
            on_progress=lambda p: shown(f"labelling {p.task}" if p.task else "drawing circuits", p.done, p.size),
        )
    arguments.pool = arguments.out
    return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from qas.encoders.pools.pool import Pool, summarize

    pool = Pool(arguments.pool)
    tasks = [summarize(pool, task) for task in pool.tasks]
    s = pool.space
    gates = f"{s.max_gates}" if s.min_gates == s.max_gates else f"{s.min_gates} to {s.max_gates}"
    size = f"{len(pool):,} circuits of {s.n_qubits} qubits, {gates} gates, at most {s.max_depth} layers"
    lines = [f"{pool.path}: {size}", f"gates: {', '.join(s.gates)}"]
    if tasks:
        names = list(dict.fromkeys(name for row in tasks for name in row))
        cells = [[_cell(row.get(name, "")) for name in names] for row in tasks]
        lines += ["", *table([[name.replace("_", " ") for name in names], *cells])]
    data = {"path": str(pool.path), "size": len(pool), "space": s.to_json(), "tasks": tasks}
    return answer(arguments, data, *lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
