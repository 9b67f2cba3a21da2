"""The pictures of the README: search, then draw the front and the best circuit below chemical accuracy.

python benchmarks/pictures.py --problem lih-4 --evaluations 400000 --seed 0 --out results/pictures
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import qas
from qas.drawing import draw_figure, save_figure
from qas.report import front_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="lih-4")
    parser.add_argument("--agent", default="evolution")
    parser.add_argument("--noise", default=None)
    parser.add_argument("--evaluations", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/pictures"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            args.problem, agent=args.agent, noise=args.noise, evaluations=args.evaluations, seed=args.seed,
            out=Path(folder) / "run", report=False,
        )  # fmt: skip
    solved = [r for r in run.front if run.problem.solved(r.energy)] or [run.best]
    chosen = min(solved, key=lambda r: (r.two_qubit_gates, r.gates))
    save_figure(front_figure(run), args.out / "front.png")
    title = (
        f"{run.problem.name}: error {chosen.error:.1e} {run.problem.unit}, {chosen.two_qubit_gates} CNOT, "
        f"{chosen.gates} gates"
    )
    save_figure(draw_figure(chosen.circuit, title=title), args.out / "circuit.png")
    (args.out / "circuit.qasm").write_text(chosen.circuit.to_qasm())
    print(title)


if __name__ == "__main__":
    main()
