"""Fine-tuning methods against each other at equal tuning: accuracy against adapter bits, robustness, controls.

    python benchmarks/adapter_table.py RUN --out results/adapters [--jobs 2] [--seeds 5]

RUN is the run of a search whose circuit the methods `searched` use (`qas search adapter-64 --agent evolution
--seconds 60 --seed 0`). Every method gets the same three learning rates, factors 1/3, 1 and 3 around its own middle,
tried once for each task on the validation split (seed 1000); the best of them is used for all seeds. Training sees the
800 training examples, the test split is looked at once for each run. Rows already in runs.csv are not run again.
`--report-only` makes table.md and the pictures from runs.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from qas.comparison import interval

TASKS = ("digits-rotated", "digits-clutter", "digits-inverted")
EPOCHS = 10
TUNING_SEED = 1000
FACTORS = (1 / 3, 1.0, 3.0)
NOISE = (0.02, 0.1, 0.3)
HEAD_RATE = 1e-2

# label -> (settings, which circuit, middle learning rate)
METHODS: dict[str, tuple[dict[str, Any], str | None, float]] = {
    "adapter off (linear probe)": ({"method": "linear-probe"}, None, 1e-2),
    "full fine-tuning": ({"method": "full"}, None, 1e-3),
    "LoRA r=1, float16": ({"method": "lora", "rank": 1}, None, 1e-2),
    "LoRA r=4, float16": ({"method": "lora", "rank": 4}, None, 1e-2),
    "Bi-LoRA r=1, 1 bit": ({"method": "bi-lora", "rank": 1, "bits": 1}, None, 1e-2),
    "Bi-LoRA r=4, 1 bit": ({"method": "bi-lora", "rank": 4, "bits": 1}, None, 1e-2),
    "Bi-LoRA r=16, 1 bit": ({"method": "bi-lora", "rank": 16, "bits": 1}, None, 1e-2),
    "Quantum-PEFT L=1, 8 bits": ({"method": "quantum-peft", "layers": 1, "bits": 8}, None, 3e-2),
    "Quantum-PEFT L=3, 8 bits": ({"method": "quantum-peft", "layers": 3, "bits": 8}, None, 3e-2),
    "Quantum-PEFT L=3, 4 bits": ({"method": "quantum-peft", "layers": 3, "bits": 4}, None, 3e-2),
    "searched, 8 bits": ({"method": "searched", "bits": 8}, "found", 3e-2),
    "searched, 4 bits": ({"method": "searched", "bits": 4}, "found", 3e-2),
    "Quantum-PEFT rotation L=3, 8 bits": (
        {"method": "quantum-peft-rotation", "layers": 3, "bits": 8},
        None,
        3e-2,
    ),
    "searched rotation, 8 bits": ({"method": "searched-rotation", "bits": 8}, "found", 3e-2),
    "rotation aligned with the task, 8 bits": ({"method": "searched-rotation", "bits": 8}, "aligned", 3e-2),
    "Taylor K'=1, 8 bits": ({"method": "taylor", "bits": 8}, None, 1e-2),
    "random subspace, equal parameters, 8 bits": ({"method": "random-subspace", "size": 80, "bits": 8}, None, 1e-2),
    "VeRA r=16, equal parameters": ({"method": "vera", "rank": 16}, None, 1e-2),
    "PSOFT r=8, float16 (peft)": ({"peft": ("PsoftConfig", {"r": 8})}, None, 1e-2),
    "WaveFT n=80, float16 (peft)": ({"peft": ("WaveFTConfig", {"n_frequency": 80})}, None, 1e-1),
    "TinyLoRA u=64, float16 (peft)": ({"peft": ("TinyLoraConfig", {"r": 2, "u": 64})}, None, 1e-2),
    "UniLoRA 512 shared, float16 (peft)": ({"peft": ("UniLoraConfig", {"theta_d_length": 512, "r": 4})}, None, 1e-2),
    "searched without entanglers, 8 bits": ({"method": "searched", "bits": 8}, "no entanglers", 3e-2),
    "random skeleton of equal gates, 8 bits": ({"method": "searched", "bits": 8}, "random", 3e-2),
}
ROBUST = ("LoRA r=1, float16", "Quantum-PEFT L=3, 8 bits", "searched, 8 bits", "Bi-LoRA r=4, 1 bit")
FIELDS = (
    "phase", "label", "task", "seed", "learning_rate", "validation", "test", "bits", "trainable", "seconds", "noise",
)  # fmt: skip


def circuit_of(kind: str | None, run: str, seed: int, task: Any) -> Any:
    """The circuit of a method: the one found, the same without two-qubit gates, one with its gates shuffled, or one of
    as many angles that is aligned with the gradient of the task's training split."""
    from qas.adapters.architecture import Architecture, load_architecture
    from qas.finetuning.alignment import aligned_circuit, task_gradient
    from qas.finetuning.backbones import load_backbone
    from qas.finetuning.finetune import Settings

    if kind is None:
        return None
    found = load_architecture(run)
    if kind == "found":
        return found
    if kind == "aligned":
        probe = Settings("linear-probe", epochs=EPOCHS, head_rate=HEAD_RATE, seed=seed)
        gradient = task_gradient(load_backbone(task.backbone), task, probe)
        return Architecture.from_circuit(aligned_circuit(gradient, found.n_angles), "aligned")
    if kind == "no entanglers":
        gates = tuple(g for g in found.gates if len(g[1]) == 1)
        return Architecture(found.n_qubits, gates, name="no entanglers")
    rng = np.random.default_rng([seed, 4])
    gates = tuple(
        (name, tuple(int(w) for w in rng.permutation(found.n_qubits)[: len(wires)]))
        for name, wires in (found.gates[i] for i in rng.permutation(len(found.gates)))
    )
    return Architecture(found.n_qubits, gates, name="random skeleton")


def one(label: str, task_name: str, seed: int, factor: float, run: str, phase: str) -> dict[str, Any]:
    """One training; at the end, for some methods, the accuracy with noise on what is stored."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    from qas.finetuning.backbones import load_backbone
    from qas.finetuning.finetune import Settings, finetune
    from qas.finetuning.tasks import load_task

    settings, kind, middle = METHODS[label]
    rate = middle * factor
    task = load_task(task_name, seed=seed)
    model = load_backbone(task.backbone)
    head = rate if settings.get("method") == "linear-probe" else HEAD_RATE
    others = "peft" in settings
    if others:
        import peft

        name, given = settings["peft"]
        settings = {"method": getattr(peft, name)(target_modules=["q", "v"], **given)}
    chosen = Settings(epochs=EPOCHS, learning_rate=rate, values_rate=rate, head_rate=head, seed=seed, **settings)
    row = {"phase": phase, "label": label, "task": task_name, "seed": seed, "learning_rate": f"{rate:.6g}"}
    try:
        outcome, parts, _ = finetune(model, task, chosen, circuit_of(kind, run, seed, task))
    except ValueError as error:  # a learning rate that diverges is a result too
        return row | {"validation": 0.0, "test": 0.0, "noise": str(error)[:80]}
    noise = json.dumps(robustness(model, parts, task, seed)) if phase == "test" and label in ROBUST else ""
    return row | {
        "validation": f"{outcome.validation:.5f}",
        "test": f"{outcome.test:.5f}" if phase == "test" else "",
        # Other methods of peft count at float16, plus 32 bits for a seed.
        "bits": 16 * outcome.trainable + 32 if others else outcome.adapter_bits,
        "trainable": outcome.trainable,
        "seconds": f"{outcome.seconds:.1f}",
        "noise": noise,
    }


def robustness(model: Any, parts: Any, task: Any, seed: int) -> dict[str, list[float]]:
    """Normal noise on angles (circuits) or weights (LoRA): strength -> [relative error of ΔW, test accuracy].

    The strength is in radians for angles, in units of the standard deviation of each tensor for weights; what is
    comparable is the relative error of ΔW that it makes.
    """
    import torch

    from qas.adapters.circuit import FrameAdapter
    from qas.finetuning.finetune import score

    generator = torch.Generator().manual_seed(seed)
    found = {}
    for strength in NOISE:
        errors, saved = [], []
        for name, part in parts.items():
            layer = model.get_submodule(name)
            with torch.no_grad():
                before = layer.get_delta_weight("default")
                exact = isinstance(part, FrameAdapter)
                if exact:
                    saved.append((part, "bits", part.bits))
                    part.angles.copy_(part.current_angles())
                    part.bits = None
                    places = [[part.angles]]
                else:  # what was read from the stored form is not rounded again as long as both say the same
                    kept = [part.values["down"], part.values["up"]]
                    places = [[v.weight] if v.exact is None else [v.weight, v.exact] for v in kept]
                for place in places:
                    size = 1.0 if exact else float(place[0].std())
                    noise = strength * size * torch.randn(place[0].shape, generator=generator)
                    for value in place:
                        saved.append((value, None, value.clone()))
                        value.add_(noise)
                after = layer.get_delta_weight("default")
                errors.append(float((after - before).norm() / before.norm().clamp(min=1e-12)))
        accuracy = score(model, task.test, task.metric)
        with torch.no_grad():
            for owner, name, value in saved:
                if name is None:
                    owner.copy_(value)
                else:
                    setattr(owner, name, value)
        found[str(strength)] = [round(float(np.mean(errors)), 4), round(accuracy, 4)]
    return found


# ---------------------------------------------------------------------- the campaign
def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def jobs_left(
    rows: list[dict[str, str]], seeds: int, tasks: tuple[str, ...]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """(tuning jobs, test jobs) that runs.csv does not have; test jobs only where the tuning is complete."""
    have = {(r["phase"], r["label"], r["task"], r["seed"], r["learning_rate"]) for r in rows}
    tuning, test = [], []
    for task in tasks:
        for label, (_, _, middle) in METHODS.items():
            wanted = [
                (label, task, TUNING_SEED, f, "tune")
                for f in FACTORS
                if ("tune", label, task, str(TUNING_SEED), f"{middle * f:.6g}") not in have
            ]
            tuning += wanted
            if wanted:
                continue
            tried = [r for r in rows if r["phase"] == "tune" and r["label"] == label and r["task"] == task]
            best = max(tried, key=lambda r: float(r["validation"]))
            factor = min(FACTORS, key=lambda f: abs(middle * f - float(best["learning_rate"])))
            test += [
                (label, task, seed, factor, "test")
                for seed in range(seeds)
                if not any(r["phase"] == "test" and (r["label"], r["task"], r["seed"]) == (label, task, str(seed))
                           for r in rows)
            ]  # fmt: skip
    return tuning, test


def work(jobs: list[tuple[Any, ...]], run: str, processes: int) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for future in as_completed([pool.submit(one, *job[:4], run, job[4]) for job in jobs]):
            yield future.result()


def campaign(arguments: argparse.Namespace) -> None:
    path = arguments.out / "runs.csv"
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task, phase in itertools.product(TASKS, (0, 1)):
        jobs = jobs_left(read(path), arguments.seeds, (task,))[phase]
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
            if fresh:
                writer.writeheader()
            for number, row in enumerate(work(jobs, arguments.run, arguments.jobs), 1):
                writer.writerow(row)
                stream.flush()
                print(f"{number}/{len(jobs)} {row['phase']} {row['label']}, {row['task']}, seed {row['seed']}: "
                      f"validation {row['validation']}, test {row['test']}", flush=True)  # fmt: skip


# ---------------------------------------------------------------------- table and pictures
def report(out: Path) -> None:
    rows = [r for r in read(out / "runs.csv") if r["phase"] == "test"]
    labels = [label for label in METHODS if any(r["label"] == label for r in rows)]
    tasks = [t for t in TASKS if any(r["task"] == t for r in rows)]
    values = {
        (label, task): {
            int(r["seed"]): 100 * float(r["test"]) for r in rows if (r["label"], r["task"]) == (label, task)
        }
        for label in labels
        for task in tasks
    }
    bits = {label: next(int(r["bits"]) for r in rows if r["label"] == label and r["bits"]) for label in labels}
    trainable = {
        label: next(int(r["trainable"]) for r in rows if r["label"] == label and r["bits"]) for label in labels
    }
    mean = {label: float(np.mean([np.mean(list(values[label, task].values())) for task in tasks])) for label in labels}
    lines = [
        "| method | adapter bits | trainable | " + " | ".join(f"{t}, %" for t in tasks) + " | mean, % |",
        "|---|---:|---:|" + "---:|" * (len(tasks) + 1),
    ]
    for label in labels:
        cells = []
        for task in tasks:
            own = list(values[label, task].values())
            cells.append(f"{np.mean(own):.1f} ± {interval(own):.1f}")
        lines.append(f"| {label} | {bits[label]:,} | {trainable[label]:,} | {' | '.join(cells)} | {mean[label]:.1f} |")
    lines += ["", "Paired differences in percentage points over tasks and seeds, 95 % bootstrap interval:", ""]
    lines += ["| first | second | first - second |", "|---|---|---|"]
    for first, second in (
        ("searched, 8 bits", "Quantum-PEFT L=3, 8 bits"),
        ("searched, 4 bits", "Quantum-PEFT L=3, 4 bits"),
        ("searched rotation, 8 bits", "Quantum-PEFT rotation L=3, 8 bits"),
        ("rotation aligned with the task, 8 bits", "Quantum-PEFT rotation L=3, 8 bits"),
        ("rotation aligned with the task, 8 bits", "searched rotation, 8 bits"),
        ("searched, 8 bits", "random skeleton of equal gates, 8 bits"),
        ("searched, 8 bits", "searched without entanglers, 8 bits"),
        ("searched, 8 bits", "random subspace, equal parameters, 8 bits"),
        ("searched, 8 bits", "VeRA r=16, equal parameters"),
        ("searched, 8 bits", "WaveFT n=80, float16 (peft)"),
        ("searched, 8 bits", "Bi-LoRA r=4, 1 bit"),
        ("searched, 8 bits", "LoRA r=1, float16"),
    ):
        if first not in labels or second not in labels:
            continue
        pairs = np.array([
            values[first, t][s] - values[second, t][s]
            for t in tasks
            for s in values[first, t]
            if s in values[second, t]
        ])  # fmt: skip
        draws = np.random.default_rng(0).choice(pairs, (10_000, len(pairs))).mean(axis=1)
        low, high = np.quantile(draws, (0.025, 0.975))
        lines.append(f"| {first} | {second} | {pairs.mean():+.1f} ({low:+.1f} to {high:+.1f}) |")
    lines += [
        "",
        "Noise on what is stored: test accuracy lost, percentage points, at the relative error of ΔW it makes:",
    ]
    lines += ["", "| method | " + " | ".join(f"strength {s}" for s in NOISE) + " |", "|---|" + "---|" * len(NOISE)]
    for label in ROBUST:
        found = [
            (json.loads(r["noise"]), float(r["test"])) for r in rows if r["label"] == label and r["noise"][:1] == "{"
        ]
        if not found:
            continue
        cells = []
        for strength in map(str, NOISE):
            lost = np.mean([100 * (test - noisy[strength][1]) for noisy, test in found])
            error = np.mean([noisy[strength][0] for noisy, _ in found])
            cells.append(f"{lost:.1f} (error {error:.2f})")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(out / "frontier.png", labels, bits, mean)


def draw(path: Path, labels: list[str], bits: dict[str, int], mean: dict[str, float]) -> None:
    """Mean accuracy over the tasks against adapter bits, numbered, the frontier as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"searched": "#c2410c", "Quantum-PEFT": "#1f5fa8", "Bi-LoRA": "#3f7d3a", "LoRA": "#3f7d3a"}
    lines = {"adapter off (linear probe)": "adapter off", "full fine-tuning": "full fine-tuning"}
    figure, (axes, side) = pyplot.subplots(
        1, 2, figsize=(9.6, 5.0), dpi=130, layout="constrained", width_ratios=(2.2, 1)
    )
    points = sorted((bits[label], mean[label], label) for label in labels if label not in lines)
    side.axis("off")
    for number, (x, y, label) in enumerate(points, 1):
        colour = next((c for word, c in colours.items() if label.startswith(word)), "#777777")
        axes.plot(x, y, "o", color=colour, ms=5)
        below = number % 2 == 0
        axes.annotate(
            str(number), (x, y), textcoords="offset points", xytext=(4, -9 if below else 3), fontsize=8, color=colour
        )
        text = f"{number:2d}  {label}"
        side.text(0, 1 - number / (len(points) + 1), text, fontsize=7.5, color=colour, transform=side.transAxes)
    best, frontier = -np.inf, []
    for x, y, _ in sorted(points, key=lambda p: (p[0], -p[1])):
        if y > best:
            best = y
            frontier.append((x, y))
    axes.step(*zip(*frontier, strict=True), where="post", color="#bbbbbb", lw=1.2, zorder=0)
    for label, shown in lines.items():
        if label in mean:
            axes.axhline(mean[label], color="#777777", lw=1, ls=(0, (2, 2)))
            axes.annotate(shown, (points[-1][0], mean[label]), fontsize=8, color="#555555", va="bottom", ha="right")
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = [k * 10**e for e in range(3, 7) for k in (1, 2, 5) if points[0][0] / 1.3 < k * 10**e < points[-1][0] * 1.3]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlabel("adapter bits in all (scales, seeds, description of the circuit; head apart)")
    axes.set_ylabel("mean test accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="run folder of the searched circuit")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report_only:
        if not arguments.run:
            parser.error("a run folder is needed")
        campaign(arguments)
    report(arguments.out)


if __name__ == "__main__":
    main()
