"""The whole atlas in one file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from qas.best_known.fronts import KnownFront
from qas.errors import QasError
from qas.files import to_json, write_atomic

_COLUMNS = (
    "problem", "n_qubits", "unit", "exact", "threshold", "two_qubit_gates", "gates", "depth", "n_angles", "error",
    "bound", "energy", "agent", "seed", "source",
)  # fmt: skip


def export(fronts: Iterable[KnownFront], path: Path) -> int:
    """Write all records, published points among them: as JSON lines with circuits, or as a table without.

    Args:
        fronts: what is written, in this order.
        path: ends in ``.jsonl`` or ``.csv``.

    Returns:
        How many records were written.

    Raises:
        QasError: another ending.
        RunError: it cannot be written.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise QasError(f"the atlas is exported to a file .jsonl or .csv, got {path.name!r}")
    chosen = list(fronts)
    if path.suffix == ".jsonl":
        lines = [
            to_json(vars(front.header) | row)
            for front in chosen
            for row in [*(c.to_json() for c in front), *(p.to_json() | {"qasm": None} for p in front.published)]
        ]
        write_atomic(path, "".join(f"{line}\n" for line in lines))
        return len(lines)
    stream = io.StringIO()
    table = csv.DictWriter(stream, _COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
    table.writeheader()
    rows = 0
    for front in chosen:
        for each in front:
            source = each.found.get("published") or each.found.get("paper") or ""
            table.writerow(vars(front.header) | each.to_json() | dict(each.found) | {"source": source})
        for point in front.published:
            table.writerow(
                vars(front.header) | point.to_json() | {"agent": "", "source": f"{point.method}, {point.source}"}
            )
        rows += len(front) + len(front.published)
    write_atomic(path, stream.getvalue())
    return rows
