"""``qas policy``: train policies that edit circuits, show what one is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qas.cli import INTERRUPTED
from qas.cli import parser as read
from qas.cli.progress import bar, tell
from qas.cli.show import answer, clock, listing
from qas.errors import QasError


def add(commands: Any) -> None:
    about = "Trains policies that choose edits of circuits (agent editor), and shows them."
    actions = read.group(commands, "policy", "policies that edit circuits", about)
    about = (
        "Trains a policy on a family of problems: by imitation, then by playing. Ctrl-C saves what there is, and the "
        "same command again goes on where it stopped; its state is kept beside the file, in NAME.training."
    )
    train = read.command(actions, "train", "train one on a family", about, _train)
    option = train.option
    option("family", "FAMILY", "a family of problems", kind="families")
    option("--out", "FILE", "where it is saved, new or to be continued, ending in .safetensors", required=True)
    option("--seconds", "S", "time to train, after the start circuits (default 600)", read.seconds)
    option("--steps", "N", "instead: edits to train on, the same on any machine", read.count)
    option("--seed", "N", "fixes what is drawn (default 0)", read.natural, default=0)
    option("--leave-out", "NAME", "instance, or its device, that is not trained on (default: those of the test)")
    option("--layers", "N", "of attention, 0 for none (default 2)", read.natural)
    option("--candidates", "K", "rows of the table of edits, at least 8 (default 32)", read.count)
    option("--without", "NAME", "features that the policy is blind to", nargs="+", default=[])
    train.flag("--imitation-only", "do not play after imitation")
    train.flag("--tensorboard", "write NAME.training/tensorboard (extra tensorboard)")
    train.output(progress=True)
    show = read.command(actions, "show", "what a policy is", "What a policy was trained on, and how it did.", _show)
    show.option("policy", "FILE", "a file, or the name of one that comes with the package")
    show.output()


def _train(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    folder = out.with_suffix(".training")
    if out.suffix != ".safetensors" or not out.parent.is_dir() or (out.exists() and not folder.is_dir()):
        raise QasError(f"--out is a new file in a folder that exists, ending in .safetensors, got {out}")
    from qas.agents.rl.training import leave_out, spent_before, train_policy
    from qas.envs.families import load_family

    family = load_family(arguments.family)
    family = family if arguments.leave_out is None else leave_out(family, arguments.leave_out)
    seconds = 600.0 if arguments.seconds is None and arguments.steps is None else arguments.seconds
    before = spent_before(folder)
    if before is None and not arguments.quiet:
        size = f"{arguments.steps:,} edits" if seconds is None else clock(seconds)
        tell(
            f"start circuits first, about a minute; then {size} of training, about a minute of comparing stages on "
            "top; Ctrl-C saves what there is, and the same command goes on from there"
        )
    unit = "edits" if seconds is None else "seconds"
    with bar(arguments.quiet) as shown:
        trained = train_policy(
            family,
            seconds=seconds,
            steps=arguments.steps,
            seed=arguments.seed,
            imitation_only=arguments.imitation_only,
            sizes=read.given(arguments, "layers"),
            candidates=arguments.candidates,
            without=arguments.without,
            folder=folder,
            tensorboard=arguments.tensorboard,
            on_progress=lambda what, spent, whole: shown(
                f"{what}, {unit}", min(round(spent), round(whole)), max(1, round(whole))
            ),
        )
    trained.save(out)
    if before is not None and before.ended and not arguments.quiet:
        tell(f"this training had ended before, and nothing is left to do: {folder} holds it")
    arguments.policy = str(out)
    shown_well = _show(arguments)
    return INTERRUPTED if trained.training["interrupted"] else shown_well


def _show(arguments: argparse.Namespace) -> int:
    from qas.agents.rl.policy import load_policy

    held = load_policy(arguments.policy)
    training = dict(held.training)
    areas = training.pop("areas", {})
    facts = {
        "family": held.family or "none",
        "parameters": f"{held.policy.n_parameters:,}",
        "features": f"{len(held.features)} of a candidate, {len(held.general)} of a circuit, version "
        f"{held.feature_version}",
        **({"blind to": ", ".join(held.without)} if held.without else {}),
        "start circuits": f"of {len(held.starts)} training problems",
        **{name: str(value) for name, value in {**held.settings, **training}.items()},
        **{f"front, {name}": f"{area:.3f}" for name, area in areas.items()},
    }
    data = {
        "path": str(arguments.policy), "family": held.family, "parameters": held.policy.n_parameters,
        "feature_version": held.feature_version, "without": held.without, "settings": held.settings,
        "training": held.training,
    }  # fmt: skip
    use = f"search with it  qas search PROBLEM --agent editor -o policy={arguments.policy}"
    return answer(arguments, data, *listing(facts), "", use)
