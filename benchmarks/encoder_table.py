"""What encoders keep of circuits they were not trained on: the metrics of several encoder folders in one table.

    python benchmarks/encoder_table.py q4 q8 encoders/url-v1-q4 --out results/unsupervised/encoders.md

Encoders are folders, or names of shipped ones; the metrics are those measured at the end of their training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qas.encoders.report import metrics_table
from qas.encoders.trained import load_encoder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    table = metrics_table({Path(name).name: load_encoder(name) for name in args.encoders})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(table + "\n")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
