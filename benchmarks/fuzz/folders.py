"""Files and folders that are damaged: runs, checkpoints, pools, encoders, noise, devices, problems, adapters."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from values import RAW, Rng, pick, spoilt, torn

import qas
from qas.adapters.architecture import Architecture, quantum_peft
from qas.agents.base import Search
from qas.agents.launch import resume
from qas.agents.rl.policy import load_policy, untrained
from qas.campaigns import load_campaign
from qas.campaigns.study import load_study
from qas.devices import load_device
from qas.encoders import load_encoder
from qas.encoders.pools.pool import LabelSettings, Pool, build_pool
from qas.encoders.pools.spaces import CircuitSpace
from qas.encoders.trained import SHIPPED, TrainedEncoder
from qas.files import read_json_lines, read_tensors, sha256
from qas.problems import load_problem

AGENTS = ("random", "evolution", "beam", "adapt", "compact", "bo", "ddqn", "sb3", "editor")


@functools.cache
def home() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@functools.cache
def finished(agent: str) -> Path:
    """A finished run with a checkpoint, made once."""
    Search.checkpoint_every = 0.01
    asked: dict[str, Any] = {"problem": "h2-2", "max_gates": 6} | qas.agents.AGENTS[agent].example()
    return qas.search(agent=agent, evaluations=200, report=False, out=home() / f"run-{agent}", **asked).path


@functools.cache
def pool() -> Path:
    space = CircuitSpace(2, ("ry", "cx"), max_gates=3, min_gates=1, max_depth=0)
    return build_pool(home() / "pool", space, 12, tasks=["tfim-2"], settings=LabelSettings(1, 20), jobs=1).path


def copied(folder: Path) -> Path:
    target = home() / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target


def _spoil(path: Path, rng: Rng) -> None:
    """Damage a JSON file, or put something else in its place."""
    act = rng.random()
    if act < 0.9:
        text = path.read_text()
        path.write_text(spoilt(json.loads(text), rng), errors="surrogatepass")
    elif act < 0.94:
        path.unlink()
        os.mkfifo(path)
    elif act < 0.97:
        path.unlink()
        path.symlink_to(pick(rng, ["/dev/zero", "/dev/urandom", "/dev/full", "/nowhere", "/"]))
    else:
        path.write_bytes(rng.bytes(200))


def runs(rng: Rng) -> Any:
    """A run's own files, read."""
    folder = copied(finished("random"))
    file = folder / pick(rng, ["config.json", "summary.json", "circuits.jsonl", "history.csv"])
    if file.suffix == ".json":
        _spoil(file, rng)
    elif file.suffix == ".jsonl":
        lines = file.read_text().splitlines()
        at = int(rng.integers(len(lines)))
        lines[at] = spoilt(json.loads(lines[at]), rng)
        file.write_text("\n".join(lines), errors="surrogatepass")
    else:
        file.write_text(torn(file.read_text(), rng), errors="surrogatepass")
    run = qas.load_run(folder)
    return [len(run.history()), run.best.energy, run.evaluations, repr(run), run.device is None]


def checkpoints(rng: Rng) -> Any:
    """A checkpoint, gone on from."""
    folder = copied(finished(pick(rng, list(AGENTS))))
    state = next((folder / "checkpoint").glob("*/state.json"))
    arrays = state.with_name("arrays.safetensors")
    if arrays.exists() and rng.random() < 0.2:
        arrays.write_bytes(_weights(arrays.read_bytes(), rng))
    elif rng.random() < 0.05:
        (folder / "checkpoint" / "CURRENT").write_text(pick(rng, RAW))
    else:
        _spoil(state, rng)
    run = resume(folder, evaluations=230, report=False)
    return [run.best.energy, run.best.error, run.evaluations]


def _weights(content: bytes, rng: Rng) -> bytes:
    """A file of tensors with damaged numbers, shapes, names, or bytes."""
    tensors = {name: array.copy() for name, array in load(content).items()}
    name = pick(rng, sorted(tensors))
    act = rng.random()
    if act < 0.5 and tensors[name].dtype.kind == "f" and tensors[name].size:
        flat = tensors[name].reshape(-1)
        scale = np.finfo(flat.dtype).max / 4
        flat[int(rng.integers(flat.size))] = pick(rng, [np.nan, np.inf, -scale, scale, 1e4, -1e4])
        if rng.random() < 0.3:
            flat[:] = scale
    elif act < 0.6:
        del tensors[name]
    elif act < 0.7:
        tensors[name] = tensors[name].reshape(-1)[:-1] if tensors[name].size else np.zeros(3, np.float32)
    elif act < 0.8:
        tensors[name] = tensors[name].astype(pick(rng, [np.int8, np.float64, np.int64, np.bool_]))
    else:
        letters = bytearray(content)
        for _ in range(3):
            letters[int(rng.integers(len(letters)))] = int(rng.integers(256))
        return bytes(letters if rng.random() < 0.5 else content[: int(rng.integers(len(content)))])
    return save(tensors)


def weights(rng: Rng) -> Any:
    """Encoders and policies of damaged weights, used."""
    if rng.random() < 0.5:
        folder = copied(SHIPPED / "q4")
        file, about = folder / "weights.safetensors", folder / "encoder.json"
        file.write_bytes(_weights(file.read_bytes(), rng))
        told = json.loads(about.read_text())
        told["weights_sha256"] = sha256(file.read_bytes()) if rng.random() < 0.9 else told["weights_sha256"]
        about.write_text(json.dumps(told))
        encoder: TrainedEncoder = load_encoder(folder)
        rows = encoder.space.sample(3, rng)
        return [encoder.embed(rows), encoder.decode(encoder.sample_latents(2, rng))]
    policy = home() / "policy.safetensors"
    untrained(seed=1).save(policy)
    whole = policy.read_bytes()
    spoiled = _weights(whole, rng)
    head = int.from_bytes(whole[:8], "little")
    with contextlib.suppress(SafetensorError):  # with the description that a policy has
        spoiled = save(load(spoiled), json.loads(whole[8 : 8 + head])["__metadata__"])
    policy.write_bytes(spoiled)
    held = load_policy(policy)
    n = len(held.features)
    table = rng.normal(size=(4, n)).astype(np.float32)
    return held.policy.scores({"candidates": table, "general": rng.normal(size=len(held.general)).astype(np.float32)})


def adapters(rng: Rng) -> Any:
    """Adapter layers that read damaged tensors, and their outputs."""
    from qas.adapters.circuit import CircuitAdapter, RotationAdapter

    circuit, _ = quantum_peft(16)
    kind: Callable[..., Any] = pick(rng, [CircuitAdapter, RotationAdapter])
    options: dict[str, Any] = {"rank": 2} if kind is CircuitAdapter else {"side": pick(rng, ["input", "output"])}
    bits = pick(rng, [None, 4])
    layer = kind(16, 16, circuit, bits=bits, **options)
    file = home() / "adapter.safetensors"
    file.write_bytes(_weights(save({name: t.numpy().copy() for name, t in layer.pack().items()}), rng))
    found = {name: torch.from_numpy(a.copy()) for name, a in read_tensors(file, "the adapter").items()}
    layer.unpack(found)
    with torch.no_grad():
        return layer(torch.ones(2, 16), lambda x: x)


@functools.cache
def documents() -> dict[str, tuple[Any, str, Callable[[Path], Any]]]:
    """Kind of file -> its honest content, its name, and what reads it."""
    problem = load_problem("h2-2")

    def device(path: Path) -> Any:
        found = load_device(path)
        return [found.t1 is not None, found.noise() is not None, str(found)]

    def noise(path: Path) -> Any:
        model = qas.load_noise(path)
        assert model is not None
        return [str(model), model.readout_flips(2), model.channel("cx", (0, 1))]

    def opened(path: Path) -> Any:
        found = load_problem(str(path))
        return [found.exact, found.threshold]

    def architecture(path: Path) -> Any:
        return Architecture.from_json(json.loads(path.read_text())).n_angles

    line = load_problem("h2-2").to_json()
    small = (
        load_device("fake_torino")
        if "fake_torino" in qas.devices.DEVICES
        else load_device(next(iter(qas.devices.DEVICES)))
    )
    return {
        "noise": (qas.load_noise("ibm-ourense").to_json(), "n.json", noise),  # type: ignore[union-attr]
        "device": (small.patch(3).to_json(), "d.json", device),
        "problem": (problem.to_json(), "p.json", opened),
        "operator": ({"XX": 1.0, "ZI": -0.5, "IZ": 0.25}, "o.json", opened),
        "lines": ([line["terms"]], "l.jsonl", lambda path: read_json_lines(path, "the data")),
        "architecture": (quantum_peft(8)[0].to_json(), "a.json", architecture),
        "adapter problem": (load_problem("adapter-16").to_json(), "ap.json", opened),
    }


def files(rng: Rng) -> Any:
    """One file that a user names."""
    content, name, read = pick(rng, list(documents().values()))
    path = home() / name
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(content))
    if read.__name__ == "architecture":
        path.write_text(
            json.dumps(
                json.loads(json.dumps(content))
                | {
                    pick(rng, ["gates", "odd", "n_qubits", "hash", "name"]): pick(
                        rng, [None, 3, "a", [["ry"]], [[1]], 10**9, {}]
                    )
                }
            )
        )
        return read(path)
    _spoil(path, rng)
    return read(path)


def pools(rng: Rng) -> Any:
    """A pool with a damaged manifest, a damaged problem, or shards with other columns."""
    folder = copied(pool())
    act = rng.random()
    if act < 0.5:
        _spoil(folder / "manifest.json", rng)
    elif act < 0.65:
        _spoil(next(folder.glob("labels/*/problem.json")), rng)
    else:
        _retype(folder, rng)
    found = Pool(folder)
    labels = found.labels("tfim-2")
    return [found.rows, labels.energies, labels.evaluations, np.concatenate(labels.angles)]


def _retype(folder: Path, rng: Rng) -> None:
    """A shard with a column missing, of another type, with gaps, or torn, under the hash that it has then."""
    shard = pick(rng, sorted(folder.rglob("*.parquet")))
    table = pq.read_table(shard)
    name = pick(rng, table.column_names)
    place = table.column_names.index(name)
    count = len(table)
    act = int(rng.integers(5))
    if act == 0:
        table = table.drop_columns([name])
    elif act < 4:
        columns = [pa.array([value] * count) for value in ("a", 1.5, 7, [1.0], [None, 1])]
        columns.append(pa.array([None] * count, table.schema.field(name).type))
        table = table.set_column(place, name, pick(rng, columns))
    buffer = io.BytesIO()
    pq.write_table(table if act < 4 else table.slice(0, int(rng.integers(count))), buffer)
    old, new = sha256(shard.read_bytes()), sha256(buffer.getvalue())
    shard.write_bytes(buffer.getvalue())
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old, new))


def studies(rng: Rng) -> Any:
    """A campaign's file, or its folder."""
    text = 'problems = ["h2-2"]\nagents = ["random"]\nseeds = 2\nsteps = 3\n[options]\nrandom = {}\n'
    if rng.random() < 0.5:
        path = home() / "study.toml"
        path.write_text(torn(text, rng), errors="surrogatepass")
        return len(load_study(path).tasks)
    folder = home() / "campaign"
    folder.mkdir(exist_ok=True)
    file = folder / "campaign.json"
    file.unlink(missing_ok=True)
    told = {"problems": ["h2-2"], "agents": ["random"], "seeds": 2, "steps": 3}
    file.write_text(json.dumps({"format": "qas-campaign", "version": 1, "study": told}))
    _spoil(file, rng)
    return len(load_campaign(folder).status())


CLASSES = {
    "runs": runs,
    "checkpoints": checkpoints,
    "weights": weights,
    "adapter tensors": adapters,
    "files": files,
    "pools": pools,
    "studies": studies,
}
