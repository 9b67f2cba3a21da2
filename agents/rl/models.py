"""Models of Stable-Baselines3: what they draw from, their state, and where they log."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from qas.agents.base import rng_state
from qas.checks import finite_output
from qas.errors import MissingExtraError
from qas.files import part_of
from qas.schema import Count, RngState

_COUNTS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
"""Of algorithms, where they have them."""
_JUDGES = ("predict_values", "quantile_net", "q_net")
"""What a policy of Stable-Baselines3 values observations with."""


Saved = tuple[dict[str, Any], dict[str, np.ndarray]]
"""JSON-able state, and arrays."""


class ModelState(TypedDict):
    """What `model_state` tells of a model, beside its arrays."""

    counts: NotRequired[dict[str, float]]
    starts: NotRequired[list[bool | float]]
    actions: NotRequired[RngState]
    numpy: NotRequired[tuple[str, Count, Count, float]]
    buffer: NotRequired[tuple[Count, bool]]


# ---------------------------------------------------------------------- randomness
@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Stable-Baselines3 draws from the global generators: seed them here, and give them back as they were."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def restore_randomness(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """The global generators as they were when `model_state` was called; inside `global_randomness`."""
    kind, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, arrays["rng.numpy"], position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(arrays["rng.torch"].copy()))


# ---------------------------------------------------------------------- state
def model_state(model: Any) -> Saved:
    """JSON-able state and arrays of a model between two rollouts, that of the global generators among them.

    What the environment is at, others know.
    """
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    arrays = {f"policy.{name}": value.numpy() for name, value in model.policy.state_dict().items()}
    for index, moments in model.policy.optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer.{index}.{name}": np.asarray(value) for name, value in moments.items()}
    arrays |= {"rng.torch": torch.get_rng_state().numpy(), "rng.numpy": np.asarray(keys)}
    state: dict[str, Any] = {
        "counts": {name: getattr(model, name) for name in _COUNTS if hasattr(model, name)},
        "starts": model._last_episode_starts.tolist(),
        "actions": rng_state(model.action_space.np_random),
        "numpy": [kind, int(position), int(has_gauss), float(cached)],
    }
    if isinstance(model, OffPolicyAlgorithm):
        buffer: Any = model.replay_buffer
        state["buffer"] = [buffer.pos, buffer.full]
        arrays |= {f"buffer.{name}": _packed(column[: buffer.size()]) for name, column in _columns(buffer).items()}
    return state, arrays


def restore_model(
    model: Any, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], observation: Mapping[str, np.ndarray]
) -> None:
    """Let a new model go on from a state; the global generators are for `restore_randomness`.

    Args:
        model: as it was made when the one began that the state is of.
        state: of `model_state`.
        arrays: of `model_state`.
        observation: what the environment shows where the model goes on.

    Raises:
        QasError: its numbers make values that are not finite.
    """
    weights = part_of(arrays, "policy")
    model.policy.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in part_of(arrays, "optimizer").items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for name in _COUNTS:
        if name in state["counts"]:
            setattr(model, name, state["counts"][name])
    model._last_obs = {name: value[None] for name, value in observation.items()}
    judge = next(net for name in _JUDGES if (net := getattr(model.policy, name, None)) is not None)
    with torch.no_grad():
        finite_output("the network", judge(model.policy.obs_to_tensor(model._last_obs)[0]))
    model._last_episode_starts = np.array(state["starts"]).reshape(model.n_envs)
    model.action_space.np_random.bit_generator.state = state["actions"]
    if isinstance(model, OffPolicyAlgorithm):
        buffer: Any = model.replay_buffer
        held = part_of(arrays, "buffer")
        buffer.pos, buffer.full = int(state["buffer"][0]), bool(state["buffer"][1])
        for name, column in _columns(buffer).items():
            column[: buffer.size()] = _unpacked(held[name], column)


def _columns(buffer: Any) -> dict[str, np.ndarray]:
    """Arrays of a replay buffer, by name."""
    found = {name: getattr(buffer, name) for name in ("actions", "rewards", "dones", "timeouts")}
    for name in ("observations", "next_observations"):
        found |= {f"{name}.{key}": column for key, column in getattr(buffer, name).items()}
    return found


def _packed(column: np.ndarray) -> np.ndarray:
    """Bits in an eighth of the room, all else as it is."""
    if column.dtype != np.int8:
        return column
    return np.packbits(column.reshape(len(column), int(np.prod(column.shape[1:]))), axis=1)


def _unpacked(array: np.ndarray, column: np.ndarray) -> np.ndarray:
    """What `_packed` made of rows like those of a column."""
    if column.dtype != np.int8:
        return array
    shape = column.shape[1:]
    return np.unpackbits(array, axis=1, count=int(np.prod(shape))).reshape(-1, *shape).astype(np.int8)


# ---------------------------------------------------------------------- logs
def check_tensorboard(what: str) -> None:
    """Refuse what writes logs for TensorBoard where that is not here.

    Raises:
        MissingExtraError: it is not; `what` asked for it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError(what, "tensorboard")


class _GoingOn(TensorBoardOutputFormat):
    """Writes for TensorBoard, which then shows nothing that was written before of a step and those behind it."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step)
        self._is_closed = False


def logger(folder: Path | None, step: int = 0) -> Logger:
    """A logger of Stable-Baselines3 that writes for TensorBoard.

    Args:
        folder: where; None: nothing is written.
        step: the first one that is logged; what a killed process has logged of it and of those behind it is told again.
    """
    formats: list[KVWriter] = [] if folder is None else [_GoingOn(folder, step)]
    return Logger(None if folder is None else str(folder), formats)
