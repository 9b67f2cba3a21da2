"""A node of a Ray cluster is lost in the middle of a campaign: do all runs end as the unbroken ones?

    python benchmarks/ray_drill.py --out DIR                # SIGKILL to the node's raylet and all of its workers
    python benchmarks/ray_drill.py --out DIR --how freeze   # halted until Ray has given it up, then let go on

The cluster is Ray's own for tests: two nodes on this machine. The same study is done by two local workers first. Each
history without its column of seconds, each front, each best circuit and each configuration is compared byte for byte.
Prints one line of JSON. Needs the extra ray.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qas
from qas.agents.base import Search
from qas.campaigns.attempts import ATTEMPTS
from qas.campaigns.campaign import State

AGENTS = ["evolution", "random"]
CHECKPOINT_EVERY = 0.2
"""Seconds; the usual ten are longer than these searches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--how", choices=("kill", "freeze"), default="kill")
    parser.add_argument("--problems", nargs="+", default=["h2-2", "h2-4"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--cpus", type=int, default=2, help="searches at a time on each node")
    given = parser.parse_args()
    study = {
        "problems": given.problems, "agents": AGENTS, "seeds": given.seeds, "evaluations": given.evaluations,
    }  # fmt: skip
    whole = qas.campaign(study, out=given.out / "whole", workers=2)
    broken, told = lose_a_node(study, given.out / "broken", given.cpus, given.how)
    names = sorted(whole.status())
    status = list(broken.status().values())
    same = sum(contents(whole.path / "runs" / name) == contents(broken.path / "runs" / name) for name in names)
    print(
        json.dumps({"runs": len(names), "finished": status.count("finished"), "equal": same, "how": given.how} | told)
    )


def lose_a_node(study: dict[str, Any], out: Path, cpus: int, how: str) -> tuple[qas.Campaign, dict[str, Any]]:
    """A campaign on a cluster of two nodes, one of which is lost when a third of the searches have ended."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    victim = cluster.add_node(num_cpus=cpus)
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": checkpoints_often},
    )
    raylet = victim.all_processes["raylet"][0].process.pid
    told: dict[str, Any] = {"searches on the node": 0, "tried again": 0}
    hit: list[int] = []
    again: set[str] = set()
    resumed: set[str] = set()
    over = threading.Event()

    def count() -> None:
        while not over.wait(0.05):
            for home in (out / ATTEMPTS).glob("*"):
                attempts = [attempt for attempt in home.glob("*") if (attempt / "config.json").exists()]
                if len(attempts) > 1:
                    again.add(home.name)
                    if sum((attempt / "checkpoint" / "CURRENT").exists() for attempt in attempts) > 1:
                        resumed.add(home.name)

    def watch(state: State) -> None:
        workers = [pid for pid in children(raylet) if b"_attempt" in title(pid)]
        if not hit and len(state.outcomes) >= state.total / 3 and len(workers) == cpus:
            hit.extend([*children(raylet), raylet])
            told["searches on the node"] = len(workers)
            told["ended before"] = len(state.outcomes)
            for pid in hit:
                os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            told["at"] = time.monotonic()
        elif how == "freeze" and again and "woken after" not in told:
            told["woken after"] = round(time.monotonic() - told["at"], 1)
            for pid in hit:
                os.kill(pid, signal.SIGCONT)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        done = qas.campaign(study, out=out, ray=cluster.address, on_change=watch)
    finally:
        over.set()
        counting.join()
        ray.shutdown()
        cluster.shutdown()
    told.pop("at", None)
    return done, told | {"tried again": len(again), "from a checkpoint": len(resumed)}


def checkpoints_often() -> None:
    Search.checkpoint_every = CHECKPOINT_EVERY


def children(pid: int) -> list[int]:
    """Processes that a process of this machine has begun, and those of these."""

    def walk(parent: int) -> Iterator[int]:
        try:
            own = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            return
        for child in map(int, own):
            yield child
            yield from walk(child)

    return list(walk(pid))


def title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def contents(run: Path) -> dict[str, Any]:
    """What of a run is the same at the same seed."""
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in ("config.json", "circuits.jsonl", "best.qasm")}
    rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    seconds = rows[0].index("seconds")
    found["history"] = [row[:seconds] + row[seconds + 1 :] for row in rows]
    return found


if __name__ == "__main__":
    main()
