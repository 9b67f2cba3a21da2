"""``qas encoder``: train graph autoencoders on pools, list them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qas.cli import parser as read
from qas.cli.progress import bar
from qas.cli.show import answer, listing


def add(commands: Any) -> None:
    about = "Trains graph autoencoders on pools, and lists them."
    actions = read.group(commands, "encoder", "circuit encoders", about)
    about = "Trains a graph autoencoder on a pool; no labels are needed."
    train = read.command(actions, "train", "train one on a pool", about, _train)
    option = train.option
    option("pool", "POOL", "a pool folder")
    option("--encoding", "NAME", "ports, signed or gsqas (default: that of the model)", kind="encodings")
    option("--model", "NAME", "gvae, url-v1 or url-v3 (default gvae)", kind="models", default="gvae")
    option("--epochs", "N", "passes over the pool (default 16)", read.count, default=16)
    option("--seed", "N", "fixes the training (default 0)", read.natural, default=0)
    option("--out", "DIR", "encoder folder, new or empty", required=True)
    option("--task", "NAME", "colour the latent map by this label (default: the pool's first)")
    train.output(progress=True)
    read.command(actions, "list", "those that come with the package", "Lists encoders.", _list).output()


def _train(arguments: argparse.Namespace) -> int:
    from qas.encoders.report import metrics_table
    from qas.encoders.training import train_on_pool

    out = Path(arguments.out)
    with bar(arguments.quiet) as shown:
        encoder = train_on_pool(
            arguments.pool,
            out,
            on_progress=lambda told: shown(f"training, loss {told['loss']:.4g}", told["epoch"], told["epochs"]),
            **read.given(arguments, "task", "encoding", "model", "epochs", "seed"),
        )
    lines = [repr(encoder), "", metrics_table({out.name: encoder}), "", f"encoder folder  {out}"]
    lines.append(f"search with it  qas search PROBLEM --agent bo --encoder {out}")
    return answer(arguments, {"path": str(out), "metrics": encoder.metrics, "settings": encoder.settings}, *lines)


def _list(arguments: argparse.Namespace) -> int:
    from qas.encoders.trained import list_encoders, load_encoder

    known = {name: repr(load_encoder(name)) for name in list_encoders()}
    return answer(arguments, known, *listing(known))
