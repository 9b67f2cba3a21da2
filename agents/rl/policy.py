"""A policy that scores the edits of a circuit: the same weights for every row, so that any number of them will do."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qas.checks import finite_output, whole_number
from qas.errors import QasError, UnknownNameError
from qas.files import parse_json, read_bytes, sha256, write_atomic

FORMAT = "qas-policy"
SHIPPED = Path(__file__).parent / "data"
"""Folder of the policies that come with the package."""
_REACH = 6.0
"""Standard deviations beyond which a feature is cut off: sizes and problems never seen stay in the trained range."""


class _Attention(nn.Module):
    """One layer of a transformer over the rows, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projected, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, rows: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        batch, count, width = rows.shape
        parts = self.projected(self.before(rows)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        rows = rows + self.joined(found.transpose(1, 2).reshape(batch, count, width))
        return rows + self.narrow(nn.functional.gelu(self.wide(self.after(rows))))


class CandidatePolicy(nn.Module):
    """A score for every candidate edit, and the value of the state.

    Rows are standardized, embedded with shared weights together with the general features, and look at each other in a
    few attention layers; no row knows its place in the table, so that the scores of permuted rows are permuted scores.
    A linear function of the row is added, by which a policy can begin as a formula that is known (`trusting`). Rows of
    zeros alone are padding, which nothing looks at.

    Args:
        n_features: columns of the table of candidates.
        n_general: general features.
        width: of the embedding, a multiple of `heads`.
        layers: of attention; 0: rows are scored each by itself.
        heads: of each layer.
        seed: of the weights.
        hidden: columns of the table and general features that it is blind to: whatever they hold, they are at their
            mean for it.
    """

    def __init__(
        self,
        n_features: int,
        n_general: int,
        *,
        width: int = 48,
        layers: int = 2,
        heads: int = 4,
        seed: int = 0,
        hidden: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> None:
        super().__init__()
        self.sizes = {
            "n_features": whole_number("n_features", n_features),
            "n_general": whole_number("n_general", n_general),
            "width": whole_number("width", width, 4),
            "layers": whole_number("layers", layers, 0),
            "heads": whole_number("heads", heads),
        }
        if width % heads:
            raise QasError(f"the width is a multiple of the heads, got {width} and {heads}")
        with torch.random.fork_rng(devices=[]):  # torch draws weights from its global generator
            torch.manual_seed(seed)
            self.rows, self.general = nn.Linear(n_features, width), nn.Linear(n_general, width)
            self.mixed = nn.Linear(width, width)
            self.attention = nn.ModuleList(_Attention(width, heads) for _ in range(layers))
            self.last = nn.LayerNorm(width)
            self.score = nn.Linear(width, 1)
            self.direct = nn.Linear(n_features, 1, bias=False)
            self.worth = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        with torch.no_grad():  # untrained, all candidates are nearly alike, and states worth nothing
            self.score.weight.mul_(0.1)
            self.direct.weight.zero_()
            last = self.worth[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
        for name, size, columns in (("rows", n_features, hidden[0]), ("general", n_general, hidden[1])):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
            seen = torch.ones(size)
            seen[list(columns)] = 0.0
            self.register_buffer(f"{name}_seen", seen, persistent=False)  # files hold names instead

    @property
    def n_parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def standardize(self, candidates: np.ndarray, general: np.ndarray) -> None:
        """Take mean and spread of every feature from observations.

        Args:
            candidates: shape (B, K, n_features) or (B, K * n_features); rows of zeros do not count.
            general: shape (B, n_general).
        """
        candidates = candidates.reshape(len(candidates), -1, self.sizes["n_features"])
        real = candidates[np.abs(candidates).sum(-1) > 0]
        for name, values in (("rows", real), ("general", general)):
            spread = values.std(0)
            self.get_buffer(f"{name}_mean").copy_(torch.from_numpy(values.mean(0)))
            self.get_buffer(f"{name}_scale").copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)))

    def trusting(self, column: int, weight: float) -> None:
        """Begin with a score that grows with one column of the table."""
        with torch.no_grad():
            self.direct.weight[0, column] = weight

    def _standard(self, values: torch.Tensor, name: str) -> torch.Tensor:
        mean, scale = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_scale")
        return ((values - mean) / scale).clamp(-_REACH, _REACH) * self.get_buffer(f"{name}_seen")

    def forward(self, candidates: torch.Tensor, general: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B, K) and values (B,) of tables and general features (B, n_general).

        Tables have the shape (B, K, n_features), or (B, K * n_features) as the editor hands them out.
        """
        candidates = candidates.reshape(len(candidates), -1, self.sizes["n_features"])
        real = candidates.abs().sum(-1) > 0
        rows = self.rows(self._standard(candidates, "rows"))
        whole = self.general(self._standard(general, "general"))
        rows = rows + self.mixed(nn.functional.gelu(rows + whole.unsqueeze(1)))
        # A table without rows would have no softmax: everything is looked at then.
        seen = (real | ~real.any(-1, keepdim=True))[:, None, None, :]
        for layer in self.attention:
            rows = layer(rows, seen)
        rows = self.last(rows)
        weight = real.unsqueeze(-1).float()
        mean = (rows * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        values = self.worth(torch.cat([mean, whole], dim=-1)).squeeze(-1)
        direct = self.direct(candidates * self.get_buffer("rows_seen"))
        return (self.score(rows) + direct).squeeze(-1), values

    @torch.inference_mode()
    def scores(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores of one observation of the editor, float64, shape (K,)."""
        candidates, general = (torch.from_numpy(observation[name])[None] for name in ("candidates", "general"))
        return finite_output("the policy", self(candidates, general)[0][0]).double().numpy()


def chosen(scores: np.ndarray, mask: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """A legal candidate drawn by softmax of its score over the temperature; at 0 the best one, nothing is drawn."""
    legal = np.flatnonzero(mask)
    values = scores[legal]
    if temperature <= 0:
        return int(legal[np.argmax(values)])
    weights = np.exp((values - values.max()) / temperature)
    running = np.cumsum(weights)
    return int(legal[min(int(np.searchsorted(running, rng.random() * running[-1], side="right")), len(legal) - 1)])


# ---------------------------------------------------------------------- files
@dataclass
class TrainedPolicy:
    """A policy with what is known of it, as one safetensors file holds it."""

    policy: CandidatePolicy
    features: tuple[str, ...]
    """names of the columns of the table"""
    general: tuple[str, ...]
    """names of the general features"""
    feature_version: int
    family: str = ""
    """what it was trained on"""
    settings: dict[str, Any] = field(default_factory=dict)
    """of the environment that it was trained in: candidates, edits, evaluations of each"""
    training: dict[str, Any] = field(default_factory=dict)
    """how it was trained: seed, seconds, examples, …"""
    starts: list[dict[str, Any]] = field(default_factory=list)
    """circuits of the training problems, JSON-able; see `qas.agents.rl.starts.Starts`"""
    without: tuple[str, ...] = ()
    """features that it is blind to"""

    def __repr__(self) -> str:
        trained = self.training.get("stages", "untrained")
        return f"TrainedPolicy({self.family or 'no family'}, {self.policy.n_parameters:,} parameters, {trained})"

    @property
    def digest(self) -> str:
        """Hash of the weights, and of what the policy is blind to."""
        weights = b"".join(value.numpy().tobytes() for value in self.policy.state_dict().values())
        return sha256(weights + " ".join(self.without).encode())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            RunError: the file cannot be written.
        """
        from safetensors.torch import save

        about = {
            "format": FORMAT, "sizes": self.policy.sizes, "features": self.features, "general": self.general,
            "feature_version": self.feature_version, "family": self.family, "settings": self.settings,
            "training": self.training, "starts": self.starts, "without": self.without,
        }  # fmt: skip
        tensors = {name: value.contiguous() for name, value in self.policy.state_dict().items()}
        write_atomic(Path(path), save(tensors, {name: json.dumps(value) for name, value in about.items()}))


def untrained(seed: int = 0, *, without: Collection[str] = (), **sizes: int) -> TrainedPolicy:
    """A policy of random weights for the features of today.

    Args:
        seed: of the weights.
        without: names of features that it is blind to, in the table of candidates and among the general ones.
        sizes: of the network, as of `CandidatePolicy`.

    Raises:
        UnknownNameError: no such feature.
    """
    from qas.envs.candidates import FEATURE_VERSION, FEATURES, GENERAL

    names, hidden = _blinded(without)
    policy = CandidatePolicy(len(FEATURES), len(GENERAL), seed=seed, hidden=hidden, **sizes)
    return TrainedPolicy(policy.eval(), tuple(FEATURES), tuple(GENERAL), FEATURE_VERSION, without=names)


def _blinded(without: Collection[str]) -> tuple[tuple[str, ...], tuple[list[int], list[int]]]:
    """Names of features, each once and in their order, and where they stand in the table and among the general ones."""
    from qas.envs.candidates import FEATURES, GENERAL

    known = tuple(dict.fromkeys((*FEATURES, *GENERAL)))
    for name in without:
        if name not in known:
            raise UnknownNameError("feature", name, known)
    table, general = ([k for k, name in enumerate(names) if name in without] for names in (FEATURES, GENERAL))
    return tuple(name for name in known if name in without), (table, general)


def list_policies() -> list[str]:
    """Names of the policies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def load_policy(given: str | os.PathLike[str]) -> TrainedPolicy:
    """A policy from a file, or by the name of one that comes with the package.

    Raises:
        UnknownNameError: neither a file nor a name.
        RunError: unreadable.
        QasError: no policy, or one for other features than those of today.
    """
    path = Path(given)
    if not path.is_file() and str(given) in list_policies():
        path = SHIPPED / f"{given}.safetensors"
    if not path.is_file():
        raise UnknownNameError("policy", given, ["none", "random", *list_policies(), "a .safetensors file"])
    data = read_bytes(path, "the policy")
    about, tensors = _read(data, path)
    _check_features(about, path)
    try:
        sizes = {name: int(value) for name, value in about["sizes"].items()}
        without, hidden = _blinded(about.get("without", ()))
        policy = CandidatePolicy(sizes.pop("n_features"), sizes.pop("n_general"), hidden=hidden, **sizes)
        policy.load_state_dict(tensors)
        names = tuple(about["features"]), tuple(about["general"])
        rest = {name: about[name] for name in ("family", "settings", "training", "starts")}
        return TrainedPolicy(policy.eval(), *names, int(about["feature_version"]), without=without, **rest)
    except QasError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise QasError(f"the policy is damaged: {path}: {' '.join(str(error).split())[:120]}") from None


def _read(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and tensors of a file."""
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        found = parse_json(data[8 : 8 + length]).get("__metadata__", {})
        about = {name: parse_json(value) for name, value in found.items()}
    except Exception as error:  # safetensors raises a class of its own
        raise QasError(f"the policy is damaged or cut short: {path}: {' '.join(str(error).split())[:120]}") from None
    if about.get("format") != FORMAT:
        raise QasError(f"a policy is a safetensors file of qas policy train, got {path}")
    return about, tensors


def _check_features(about: Mapping[str, Any], path: Path) -> None:
    from qas.envs.candidates import FEATURE_VERSION, FEATURES, GENERAL

    version, names = about.get("feature_version"), (about.get("features"), about.get("general"))
    if version != FEATURE_VERSION or names != (list(FEATURES), list(GENERAL)):
        raise QasError(
            f"a policy reads the features of version {FEATURE_VERSION}, got one of version {version}: train it again "
            f"(qas policy train {about.get('family') or 'FAMILY'} --out {path.name})"
        )
