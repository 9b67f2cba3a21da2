"""Trained encoders: circuits to points and back, and the folders they are kept in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch

from qas.alphabet import checked_coupling
from qas.checks import finite_output
from qas.circuits import Circuit
from qas.encoders.autoencoder import LATENT_LIMIT, Autoencoder, Grammar, build_model
from qas.encoders.graphs import GraphEncoding, load_encoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace, SpaceTold
from qas.errors import QasError, UnknownNameError
from qas.files import disk_errors, read_tensors, read_versioned, sha256, versioned, write_atomic, write_json
from qas.schema import conform

FORMAT = "qas-encoder"
FORMAT_VERSION = 1
SHIPPED = Path(__file__).parent / "data"
"""Folder of the encoders that come with the package."""

_CHUNK = 2048


class _Description(TypedDict):
    space: SpaceTold
    encoding: str
    model: str
    sizes: dict[str, Any] | None
    weights_sha256: str
    settings: NotRequired[dict[str, Any] | None]
    metrics: NotRequired[dict[str, Any] | None]


class TrainedEncoder:
    """A trained model with its space: circuits of the space to latents and embeddings, and latents to circuits.

    Made by `qas.encoders.train` and `load_encoder`.

    Args:
        space: the circuits it was trained on.
        model: the trained module.
        settings: how it was trained, JSON-able.
        metrics: what `evaluate_encoder` found, JSON-able.
    """

    def __init__(
        self,
        space: CircuitSpace,
        model: Autoencoder,
        settings: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        self.space = space
        self.module = model.eval()
        self.settings = dict(settings or {})
        self.metrics = dict(metrics or {})
        self.graphs: GraphEncoding = model.encoding
        self._grammars: dict[Any, Grammar] = {}

    @property
    def encoding(self) -> str:
        """Name of the graph encoding."""
        return self.graphs.name

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.module.name

    @property
    def d(self) -> int:
        """Numbers in the latent of one node and in an embedding."""
        return self.module.d

    @property
    def n_latents(self) -> int:
        """Nodes with a latent, L: max_gates for `gvae`, two more (START, END) for the published models."""
        return self.module.n_latents

    def __repr__(self) -> str:
        return f"TrainedEncoder({self.model} on {self.encoding}, d={self.d}, {self.space!r})"

    # ------------------------------------------------------------------ circuits to points
    def latents(self, rows: Any) -> np.ndarray:
        """Means of the latents of circuits, float32, shape (B, L, d).

        Args:
            rows: rows of the space, shape (B, max_gates), in any order of their gates.

        Raises:
            CircuitError: not rows of the space.
        """
        return self.gaussians(rows)[0]

    def gaussians(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of the latents of circuits, float32, both of shape (B, L, d)."""
        rows = self.space.check_rows(rows)
        means = np.zeros((len(rows), self.n_latents, self.d), dtype=np.float32)
        stds = np.zeros_like(means)
        with torch.inference_mode():
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                batch = self.graphs.encode_rows(rows[part])
                mu, log_sigma = self.module.encode(
                    torch.from_numpy(batch.features).float(), torch.from_numpy(batch.adjacency).float()
                )
                means[part], stds[part] = mu.numpy(), log_sigma.exp().numpy()
        finite_output("the encoder", means)
        finite_output("the encoder", stds)
        return means, stds

    def embed(self, rows: Any) -> np.ndarray:
        """One point for every circuit, the mean of its latents over the nodes; float32, shape (B, d)."""
        rows = self.space.check_rows(rows)
        parts = [self.latents(rows[i : i + _CHUNK]).mean(axis=1) for i in range(0, len(rows), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, self.d), dtype=np.float32)

    def embed_circuits(self, circuits: Sequence[Circuit]) -> np.ndarray:
        """One point for every circuit, float32, shape (len(circuits), d).

        Raises:
            CircuitError: the space does not hold a circuit; the message says why.
        """
        rows = [self.space.row(circuit) for circuit in circuits]
        return self.embed(np.stack(rows) if rows else np.zeros((0, self.space.max_gates), dtype=np.int16))

    # ------------------------------------------------------------------ points to circuits
    def decode(self, latents: Any, coupling: Any = None) -> np.ndarray:
        """The circuits of latents, canonical rows, int16, shape (B, max_gates).

        With `gvae` every finite latent has one, within the gates, pairs, depth and sizes of the space.

        Args:
            latents: numbers, shape (B, L, d).
            coupling: undirected pairs that may carry two-qubit gates, a part of those of the space; None: all of them.

        Raises:
            QasError: another shape, numbers that are not finite, a malformed coupling, or latents of a published model
                that stand for no circuit (`try_decode` tells which).
        """
        rows, built = self.try_decode(latents, coupling)
        if not built.all():
            raise QasError(
                f"latents of {self.model} may stand for no circuit of the space: {np.count_nonzero(~built)} of "
                f"{len(built)} do; use try_decode, or the model gvae"
            )
        return rows

    def try_decode(
        self, latents: Any, coupling: Any = None, *, either_order: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The circuits of latents as canonical rows, and which of them there are (bool, shape (B,)).

        Published models: the type of a node is the likeliest; a one-qubit gate acts on the qubit of the largest value,
        a two-qubit gate on the two largest, the larger first (`url-v3`: the two largest sizes, the lower value first);
        the circuit ends at the first END. Without START, END or with a gate that the space does not place there, or
        deeper than the space, it is no circuit, and its row is all padding.

        Args:
            either_order: accept the other order of two qubits where the space has only that one.

        Raises:
            QasError: another shape, numbers that are not finite, or a malformed coupling.
        """
        raw, built = self.decode_positions(latents, coupling, either_order=either_order)
        return self.space.canonical(raw), built

    def decode_positions(
        self, latents: Any, coupling: Any = None, *, either_order: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `try_decode`, but with every gate at the position of its latent."""
        z = self._checked(latents)
        raw = np.full((len(z), self.space.max_gates), PADDING, dtype=np.int16)
        built = np.ones(len(z), dtype=bool)
        grammar = self._grammar(coupling)
        with torch.inference_mode():
            for start in range(0, len(z), _CHUNK):
                part = slice(start, start + _CHUNK)
                raw[part], built[part] = self.module.decode(z[part], grammar, either_order)
        return raw, built

    def _checked(self, latents: Any) -> torch.Tensor:
        try:
            array = np.asarray(latents, dtype=np.float64)
        except (TypeError, ValueError):
            raise QasError(f"latents are an array of numbers, got {type(latents).__name__}") from None
        if array.ndim != 3 or array.shape[1:] != (self.n_latents, self.d):
            raise QasError(f"latents have the shape (B, {self.n_latents}, {self.d}), got {array.shape}")
        if not np.isfinite(array).all():
            raise QasError("latents are finite numbers, got NaN or infinity")
        return torch.from_numpy(array.clip(-LATENT_LIMIT, LATENT_LIMIT).astype(np.float32))

    def _grammar(self, coupling: Any) -> Grammar:
        key = None if coupling is None else checked_coupling(self.space.n_qubits, coupling, connected=False)
        if key not in self._grammars:
            self._grammars[key] = Grammar(self.space, key)
        return self._grammars[key]

    def sample_latents(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Draws from the normal distribution that has, at every node, mean and spread of the training latents;
        float32, shape (size, L, d)."""
        noise = rng.standard_normal((size, self.n_latents, self.d), dtype=np.float32)
        return self.module.latent_mean.numpy() + self.module.latent_std.numpy() * noise

    # ------------------------------------------------------------------ files
    @property
    def fingerprint(self) -> str:
        """sha256 of the weights as saved, hexadecimal."""
        return sha256(self._weights())

    def _weights(self) -> bytes:
        from safetensors.numpy import save

        tensors = {name: np.array(t.numpy(), order="C") for name, t in sorted(self.module.state_dict().items())}
        return save(tensors)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `weights.safetensors` and `encoder.json` into a folder, which is made if missing.

        Raises:
            RunError: the folder cannot be written.
        """
        path = Path(folder)
        weights = self._weights()
        about = {
            "space": self.space.to_json(),
            "encoding": self.encoding,
            "model": self.model,
            "sizes": self.module.sizes,
            "parameters": self.module.n_parameters(),
            "weights_sha256": sha256(weights),
            "settings": self.settings,
            "metrics": self.metrics,
            "versions": {"torch": torch.__version__, "numpy": np.__version__, "qas": _own_version()},
        }
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        # The description names the weights' hash: written last, it never speaks of weights that are not there yet.
        held = path / "weights.safetensors"
        if not (held.exists() and held.read_bytes() == weights):
            write_atomic(held, weights)
        write_json(path / "encoder.json", versioned(FORMAT, FORMAT_VERSION, about), indent=2)
        return path


# ---------------------------------------------------------------------- loading
def list_encoders() -> list[str]:
    """Names that `load_encoder` knows: those under ``encoders/`` in the current directory, and those shipped."""
    found = {p.parent.name for root in (Path("encoders"), SHIPPED) for p in root.glob("*/encoder.json")}
    return sorted(found)


def find_encoder(name: str | os.PathLike[str]) -> Path:
    """The folder of an encoder: an existing folder of that path, else ``encoders/<name>``, else the shipped one.

    Raises:
        UnknownNameError: none of them; the nearest name is suggested.
    """
    for path in (Path(name), Path("encoders") / name, SHIPPED / name):
        if (path / "encoder.json").exists() or (path.is_dir() and path.name != "" and _is_encoder_like(path)):
            return path
    raise UnknownNameError("encoder", os.fspath(name), list_encoders())


def _is_encoder_like(path: Path) -> bool:
    return (path / "weights.safetensors").exists()


def load_encoder(name: str | os.PathLike[str]) -> TrainedEncoder:
    """Load a trained encoder by name (``"q4"``) or folder.

    Raises:
        UnknownNameError: no such encoder; the nearest name is suggested.
        QasError: a file is missing or damaged, or was written by a newer version.
    """
    folder = find_encoder(name)
    where = folder / "encoder.json"
    about = read_versioned(where, FORMAT, FORMAT_VERSION, "the description of the encoder")
    conform(about, _Description, "the description of the encoder", where=where)
    encoding, model, sizes, expected = (about[name] for name in ("encoding", "model", "sizes", "weights_sha256"))
    space = CircuitSpace.from_json(about["space"])
    graphs = load_encoding(encoding, space)
    if not isinstance(graphs, GraphEncoding):
        raise QasError(f"an encoder reads a graph encoding, got {encoding}: {where}")
    module = build_model(model, graphs, torch.Generator(), sizes)
    _load_weights(module, folder / "weights.safetensors", expected)
    return TrainedEncoder(space, module, about.get("settings"), about.get("metrics"))


def _load_weights(module: Autoencoder, path: Path, expected: str) -> None:
    tensors = read_tensors(path, "the file of weights of the encoder", str(expected))
    due = module.state_dict()
    for name in sorted(due.keys() | tensors.keys()):
        want = tuple(due[name].shape) if name in due else None
        got = tensors[name].shape if name in tensors else None
        if want != got:
            raise QasError(f"the tensor {name} has shape {_or_none(want)}, got {_or_none(got)}: {path}")
        if tensors[name].dtype != np.float32 and due[name].dtype == torch.float32:
            raise QasError(f"the tensor {name} holds float32, got {tensors[name].dtype}: {path}")
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})


def _or_none(shape: tuple[int, ...] | None) -> str:
    return "none (no such tensor)" if shape is None else str(shape)


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version("quantum-architecture-search")
    except PackageNotFoundError:
        return "unknown"
