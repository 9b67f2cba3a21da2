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
