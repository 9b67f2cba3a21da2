"""One thread for each test process, and fixtures for tests of everything that searches in the space of an encoder."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before anything that starts threads is imported, here and in processes that tests start: pytest-xdist has a worker on
# every core already, and two of them with two threads each take longer than one after the other.
for _name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


def pytest_sessionstart(session: pytest.Session) -> None:
    """Every process would compile the same kernels anew: they are on disk before the workers start."""
    if getattr(session.config.option, "numprocesses", None):
        script = Path(__file__).with_name("compile_kernels.py")
        parts = ("statevector", "pauli-transfer", "others")
        compilers = [subprocess.Popen([sys.executable, script, part]) for part in parts]
        assert [compiler.wait() for compiler in compilers] == [0] * len(compilers), "the kernels do not compile"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[Any]:
    """Thousands of tests are collected, all of which stay: looking through them costs half a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_power_failures() -> Iterator[None]:
    """Files are not forced onto the disk: that takes milliseconds each time, thousands of times, and no test pulls the
    plug. What a killed process has written is there without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def workers_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign's workers are threads of this process: to start one of their own takes seconds."""

    class Worker(threading.Thread):
        pid = exitcode = None

        def __init__(self, *, target: Any, args: tuple[Connection, Any, Any], daemon: bool) -> None:
            end = Connection(os.dup(args[0].fileno()))  # the campaign closes the one that it has handed over
            super().__init__(target=target, args=(end, *args[1:]), daemon=daemon)

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Worker)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(os, "setsid", lambda: None)


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hardly trained encoders q2 and q4, whose circuits are those of the other agents."""
    from qas.encoders import CircuitSpace, train

    folder = tmp_path_factory.mktemp("encoders")
    for qubits, gates in ((2, 6), (4, 9)):
        space = CircuitSpace(qubits, ("rx", "ry", "rz", "cx"), max_gates=gates, min_gates=1, max_depth=0)
        rows = space.sample(64, np.random.default_rng(0))
        sizes = {"width": 16, "d": 3}
        encoder = train(rows, space, epochs=1, batch_size=32, profile_walks=0, sizes=sizes, threads=1)
        encoder.save(folder / f"q{qubits}")
    return folder


@pytest.fixture
def encoders(tiny_encoders: Path) -> Iterator[Path]:
    """The tiny encoders stand where those of the package would: `bo`, `knn` and `reinforce` find them by qubits."""
    with pytest.MonkeyPatch.context() as patch:  # tests undo their own
        patch.setattr("qas.encoders.trained.SHIPPED", tiny_encoders)
        yield tiny_encoders
