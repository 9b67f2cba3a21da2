"""What benchmarks share: calls of rivals timed in turn, and the noise that engines are measured under."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from qas.noise import ONE_QUBIT_GATES, TWO_QUBIT_GATES, NoiseModel, thermal_relaxation

T1, T2, TIME_ONE, TIME_TWO = 120e-6, 100e-6, 35e-9, 400e-9


def thermal_noise() -> NoiseModel:
    """Thermal relaxation after every gate."""
    one, two = thermal_relaxation(T1, T2, TIME_ONE), thermal_relaxation(T1, T2, TIME_TWO)
    return NoiseModel("thermal").add(one, ONE_QUBIT_GATES).add(two, TWO_QUBIT_GATES)


def in_turn(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of single calls of each, made in turn; short calls are made several times in each turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in calls.items():
            turn = time.perf_counter()
            for _ in range(20):
                start = time.perf_counter()
                call()
                stop = time.perf_counter()
                times[name].append(stop - start)
                if stop - turn > 0.005:
                    break
    return times


def medians(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of one call of each; see `in_turn`."""
    return {name: statistics.median(values) for name, values in in_turn(calls, seconds).items()}


def launches(call: Callable[[], Any]) -> int:
    """Kernels that a call launches on CUDA; where there is none, operations on tensors that would each launch one.

    These are the innermost operations that compute: those that make views, or memory without content, do not count.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    call()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        call()
        if cuda:
            torch.cuda.synchronize()
    if cuda:
        return sum(event.count for event in found.key_averages() if "LaunchKernel" in event.key)
    return sum(map(_kernels, (event for event in found.events() if event.cpu_parent is None)))


def _kernels(event: Any) -> int:
    inside = sum(map(_kernels, event.cpu_children))
    name = event.name.removeprefix("aten::")
    return inside or int(name != event.name and name not in NO_KERNEL)


NO_KERNEL = {
    "_local_scalar_dense", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "contiguous", "detach", "detach_",
    "diagonal", "empty", "empty_like", "empty_permuted", "empty_strided", "expand", "is_nonzero", "is_same_size",
    "item", "lift_fresh", "mT", "narrow", "new_empty", "new_empty_strided", "permute", "reshape", "resize_",
    "resolve_conj", "resolve_neg", "result_type", "select", "set_", "slice", "split", "split_with_sizes", "squeeze",
    "t", "to", "transpose", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
}  # fmt: skip
"""Operations that launch nothing."""
