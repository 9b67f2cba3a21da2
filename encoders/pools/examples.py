"""Circuits of labelled pools for a corpus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from qas.corpus import Example, Source
from qas.encoders.pools.pool import Pool, PoolError


def sources_of_pool(folder: str | os.PathLike[str]) -> list[Source]:
    """The circuits of a pool with their best angles, for each task that is labelled without noise.

    Raises:
        PoolError: no pool, damaged, or without such a task.
    """
    pool = Pool(folder)
    tasks = [task for task in pool.tasks if pool.labels(task).noise is None]
    if not tasks:
        raise PoolError(f"a corpus needs a pool with labels without noise, got none in {folder}")
    return [Source(pool.labels(task).problem, "pool", len(pool), partial(_examples, pool, task)) for task in tasks]


def _examples(pool: Pool, task: str) -> Iterator[Example]:
    labels, found = pool.labels(task), {"pool": pool.path.name, "seed": pool.seed}
    for index, energy in enumerate(labels.best.tolist()):
        yield Example(pool.circuit(index).with_angles(labels.angles[index]), energy, found)
