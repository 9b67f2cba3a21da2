"""Circuits aligned with gradients of tasks, for stage 5 of `adapter_real.py`, and what they capture of a held-out task.

    python benchmarks/adapter_transfer.py --snippets vaderSentiment-3.3.2.tar.gz --out results/adapters/real

Gradients are those of the training examples of the tuning seed; no test example is read. Writes `transfer/*.qasm`,
which stage 5 trains, and `transfer.md`. `results/adapters/PREREGISTERED.md` says what is concluded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import adapter_real as real
import numpy as np

ANGLES = 48
"""As many as the searched circuit of 54 angles has on the qubits; the odd axis adds six to each."""
EVOLVED = 1000
"""Evaluations of agent `evolution`, for comparison."""
DRAWS = 20
"""Circuits of random strings."""


def gradients(name: str, arguments: argparse.Namespace, *, shuffled: bool = False) -> np.ndarray:
    """WᵀG of the adapted layers with a trained head and no adapter, float64 (6, 384, 384); kept in a file.

    With `shuffled` labels all that is left of a task is how the model sees its texts.
    """
    import torch

    from qas.finetuning.alignment import layer_gradients
    from qas.finetuning.finetune import Settings

    place = arguments.cache / f"{name}-{'shuffled' if shuffled else 'gradients'}.npy"
    if not place.exists():
        off = real.Tuning("adapter off", real.read(arguments.out / "runs.csv")).best()
        if off is None:
            raise SystemExit("the learning rate of the head comes from the trials of the probe, which are not done")
        found = real.states(name, real.TUNING_SEED, real.FIRST, arguments)
        task = real.task_of(name, found, "validation")
        if shuffled:
            task.train.labels[:] = np.random.default_rng(7).permutation(task.train.labels)
        torch.manual_seed(real.TUNING_SEED)
        head = dict(off[0])["head"]
        settings = Settings("linear-probe", epochs=real.EPOCHS, batch=real.BATCH, head_rate=head, seed=real.TUNING_SEED)
        np.save(place, np.stack(layer_gradients(real.upper_model(found, real.FIRST), task, settings)))
    return np.load(place)


def dealt(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same energies, dealt out to antisymmetric strings at random."""
    from qas.adapters.problems import string_coefficients
    from qas.finetuning.alignment import skew_matrix

    energies = string_coefficients(matrix) ** 2
    index = np.arange(len(matrix))
    own = np.bitwise_count(index[:, None] & index) % 2 == 1  # odd numbers of Y
    energies[own] = rng.permutation(energies[own])
    return skew_matrix(energies)


def evolved(matrix: np.ndarray) -> Any:
    """What `qas search adapter-gradient FILE --agent evolution` finds."""
    import qas
    from qas.adapters.problems import matrix_problem

    problem = matrix_problem(matrix, goal="gradient", angles=ANGLES)
    return qas.search(problem, agent="evolution", evaluations=EVOLVED, seed=0).best.circuit


def shortened(circuit: Any) -> Any:
    """The same strings in an order that takes fewer gates: the next is always one that takes fewest."""
    from qas.adapters.problems import carried_string, tangent_strings, with_string
    from qas.circuits import Circuit

    made, left = Circuit(circuit.n_qubits), sorted(set(tangent_strings(circuit)))
    while left:
        left.sort(key=lambda string: len(carried_string(made, string)[0]))
        made = with_string(made, left.pop(0))
    return made


def captured(circuit: Any, matrix: np.ndarray) -> float:
    """Share, per cent, of a gradient's energy in strings of the qubits that the angles of a circuit turn."""
    from qas.adapters.problems import string_energies, tangent_strings

    energies = string_energies(matrix)
    return 100 * sum(float(energies[string]) for string in set(tangent_strings(circuit)))


def pooled_others(task: str, pooled: dict[str, np.ndarray]) -> np.ndarray:
    """Of all tasks but one, each with norm 1."""
    from qas.finetuning.alignment import pooled_matrix

    return pooled_matrix([matrix / np.linalg.norm(matrix) for name, matrix in pooled.items() if name != task])


def circuits(task: str, pooled: dict[str, np.ndarray], shuffled: dict[str, np.ndarray], out: Path) -> dict[str, Any]:
    """The circuits of a held-out task; those that stage 5 trains are written where it reads them."""
    from qas.finetuning.alignment import aligned_circuit

    others = pooled_others(task, pooled)
    rng = np.random.default_rng([5, real.TASKS.index(task)])
    goals = {"own": [pooled[task]], "others": [others], "dealt": [dealt(others, rng) for _ in range(real.SEEDS)]}
    goals["shuffled"] = [pooled_others(task, shuffled)]
    found: dict[str, Any] = {}
    for what, matrices in goals.items():
        found[what] = [shortened(aligned_circuit(matrix, ANGLES)) for matrix in matrices]
        for seed, circuit in enumerate(found[what] if what != "shuffled" else []):
            file = real.aligned_file(out, what, task, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(circuit.to_qasm())
    return found | {"evolved": [evolved(others)]}


def shown(shares: Iterable[float]) -> str:
    values = list(shares)
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def report(out: Path, whole: dict[str, np.ndarray], pooled: dict[str, np.ndarray], found: dict[str, Any]) -> None:
    from qas.adapters.problems import matrix_problem, string_coefficients, tangent_strings
    from qas.interop import read_circuit_file

    unaligned = read_circuit_file(out / "searched-52.qasm")
    random = [
        real.random_strings(unaligned.n_qubits, ANGLES, np.random.default_rng([6, draw])) for draw in range(DRAWS)
    ]
    columns = (
        "held-out task", "bound", "its own", "other tasks'", "by evolution", "labels shuffled", "dealt out",
        "unaligned", "random strings", "other tasks' / random", "strings in common",
    )  # fmt: skip
    lines = [
        f"Share, per cent, of a held-out task's gradient that the {ANGLES} angles of a circuit turn to first order; "
        "100 is what all strings of the seven qubits carry, in the six adapted layers together. Columns say whose "
        "gradient the circuit is aligned with; labels shuffled: all they know is how the model sees the texts; dealt "
        "out: each of their energies on a string at random.",
        "",
        f"| {' | '.join(columns)} |",
        "|---|" + "---:|" * (len(columns) - 1),
    ]
    for task, matrix in pooled.items():
        shares = {what: [captured(c, matrix) for c in made] for what, made in found[task].items()}
        shares |= {"unaligned": [captured(unaligned, matrix)], "random": [captured(c, matrix) for c in random]}
        bound = 100 * matrix_problem(matrix, goal="gradient", angles=ANGLES).best_alignment
        cells = [
            shown(shares[what]) for what in ("own", "others", "evolved", "shuffled", "dealt", "unaligned", "random")
        ]
        ratio = shares["others"][0] / np.mean(shares["random"])
        own, others = (set(tangent_strings(found[task][what][0])) for what in ("own", "others"))
        lines.append(f"| {task} | {bound:.2f} | {' | '.join(cells)} | {ratio:.1f} | {len(own & others)} |")
    lines += [
        "",
        f"± is the standard deviation over {real.SEEDS} dealings and {DRAWS} circuits of random strings; strings in "
        "common are those of the first two circuits. Circuits are the best there are for what they are aligned with "
        f"(`aligned_circuit`), but for those by evolution, which had {EVOLVED:,} evaluations.",
        "",
        "| task | of the whole skew gradient, all strings of the qubits carry, % | of that, the best string, % |",
        "|---|---:|---:|",
    ]
    for task, layers in whole.items():
        energies = string_coefficients(pooled[task]) ** 2 / 384  # each string has squared norm 384 on the layer
        total = sum(float(np.sum(((m - m.T) / 2) ** 2)) for m in layers)
        lines.append(f"| {task} | {100 * energies.sum() / total:.2f} | {100 * energies.max() / energies.sum():.2f} |")
    (out / "transfer.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/adapters/real"))
    parser.add_argument("--snippets", default="vaderSentiment-3.3.2.tar.gz", help="source distribution")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "qas-adapter-real")
    arguments = parser.parse_args()
    from qas.finetuning.alignment import pooled_matrix

    whole = {name: gradients(name, arguments) for name in real.TASKS}
    pooled = {name: pooled_matrix(list(layers)) for name, layers in whole.items()}
    shuffled = {name: pooled_matrix(list(gradients(name, arguments, shuffled=True))) for name in real.TASKS}
    found = {task: circuits(task, pooled, shuffled, arguments.out) for task in real.TASKS}
    report(arguments.out, whole, pooled, found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
