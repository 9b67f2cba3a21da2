"""What benchmarks keep: runs as rows of a file, and the circuits they found as published fronts.

Not a benchmark itself: `device_search.py`, `qubit_order.py`, `learning.py`, `open_search.py` and `synthesis.py` use it,
of it only the files `editing.py` and `policy_ablations.py`, and only the fronts `compact.py`.
"""

from __future__ import annotations

import csv
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import qas
from qas.publishing import publish
from qas.runs import Result

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A file of rows, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def complete(
    path: Path,
    columns: Sequence[str],
    tasks: Sequence[Any],
    run: Callable[..., dict[str, Any] | None],
    *,
    arguments: Sequence[Any] = (),
    jobs: int = 1,
    then: Callable[[list[Row]], None] | None = None,
) -> list[Row]:
    """Make the runs whose rows are missing; returns those of all tasks, sorted.

    Args:
        path: of the file; it may hold rows of other tasks, which stay.
        columns: of the file, the fields of a task among them.
        tasks: named tuples, all of one type.
        run: makes a row of a task and `arguments`, in another process; None where there is nothing to make.
        jobs: processes.
        then: called with all rows of the file in the end, and where it ends early.
    """
    if not tasks:
        raise SystemExit("there is nothing to run: no task has these names")
    fields = type(tasks[0])._fields
    rows = {tuple(row[name] for name in fields): row for row in read_rows(path)}
    asked = {tuple(map(str, task)): task for task in tasks}
    missing = [task for key, task in asked.items() if key not in rows]
    print(f"{len(missing)} of {len(asked)} runs to make", flush=True)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(run, task, *arguments) for task in missing]):
                found = future.result()
                if found is None:
                    continue
                row = {name: str(found.get(name, "")) for name in columns}
                rows[tuple(row[name] for name in fields)] = row
                write_rows(path, columns, [rows[key] for key in sorted(rows, key=_in_order)])
                print(" ".join(f"{name}={row[name]}" for name in columns if len(row[name]) < 40), flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            if then is not None:
                then([rows[key] for key in sorted(rows, key=_in_order)])
    return [rows[key] for key in sorted(asked.keys() & rows.keys(), key=_in_order)]


def _in_order(key: tuple[str, ...]) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in key]


def search(*problem: Any, **settings: Any) -> qas.Run:
    """`qas.search` to its end: the row of one that a signal ended would stand for a whole one.

    Raises:
        KeyboardInterrupt: it was.
    """
    run = qas.search(*problem, **settings)
    if run.status != "finished":
        raise KeyboardInterrupt
    return run


# ---------------------------------------------------------------------- circuits
def found_before(folder: Path, problem: Any) -> list[Result]:
    """The circuits in a folder, judged anew."""
    results = []
    for file in sorted(folder.glob("*.qasm")):
        circuit = qas.Circuit.from_qasm(file.read_text())
        energy = problem.energy(circuit)
        results.append(Result(circuit, energy, problem.error(energy), energy, problem.error(energy), 0))
    return results


def republish(results: list[Result], problem: Any, folder: Path) -> None:
    """As `qas.publishing.publish`, in the place of a folder that may be there."""
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    for left in (new, old):  # of a run that was cut off
        shutil.rmtree(left, ignore_errors=True)
    publish(results, problem, new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
