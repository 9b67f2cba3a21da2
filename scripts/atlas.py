"""Let circuits join the atlas that the package ships (maintainers).

    python scripts/atlas.py results/atlas-small results/compact/lih-12 lih-4.jsonl

Takes runs, campaigns, published fronts (`qas.publishing`) and the record files of ``qas atlas submit``. Every energy is
computed anew; a circuit joins where it is better than what is known (`qas.best_known.records.best_of`). Then
``scripts/verify_atlas.py`` has to agree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qas.best_known.fronts import FOLDER
from qas.best_known.gathering import join
from qas.errors import QasError


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="PATH", help="runs, campaigns, published fronts, record files")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the records are (default: in this checkout)")
    arguments = parser.parse_args(words)
    try:
        for line in join(arguments.paths, arguments.folder):
            print(line, flush=True)
    except QasError as error:
        print(f"atlas: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
