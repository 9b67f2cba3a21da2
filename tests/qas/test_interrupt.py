"""Deadlines and signals reach calculations while they run, and change nothing where they do not strike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from qas.circuits import Circuit
from qas.errors import QasError
from qas.hamiltonians import Hamiltonian
from qas.optimizers import OPTIMIZERS, list_optimizers, minimize
from qas.registry import options_of
from qas.simulators import interrupt, make_simulator
from qas.simulators.interrupt import Interrupted, Stop, stop_when
from qas.testing import random_circuit, random_hamiltonian

NOISY = make_simulator("ibm-mumbai")
LONG = random_circuit(11, 60, np.random.default_rng(0), ["rx", "ry", "rz", "cx"])
LONG_HAMILTONIAN = random_hamiltonian(11, 20, np.random.default_rng(1))


@pytest.fixture(scope="module", autouse=True)
def _all_is_compiled_and_imported() -> None:
    for simulator in (NOISY, make_simulator()):
        small, hamiltonian = Circuit(2, [("rx", 0, 0.1)]), Hamiltonian({"ZZ": 1.0})
        simulator.term_expectations(small, hamiltonian)
        for method in list_optimizers():
            minimize(simulator.objective(small, hamiltonian), [0.1], method=method, max_evaluations=1)


def test_a_deadline_ends_a_minimization_that_is_one_compiled_call() -> None:
    began = time.monotonic()
    with stop_when(1.0) as stop:
        try:
            result = minimize(NOISY.objective(LONG, LONG_HAMILTONIAN), LONG.angles)
            assert result.message == "stopped: interrupted" and not result.success
        except Interrupted:
            pass  # not one energy was finished
    assert stop.reason == "deadline"
    assert time.monotonic() - began < 20.0, "without a deadline it takes minutes"


def test_the_deadline_of_an_outer_block_is_over_when_it_has_ended_an_inner_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Stop, "watch", lambda self, receiver, *_: receiver.recv(1))  # a thread that does not wake up
        stack = ExitStack()
        outer = stack.enter_context(stop_when(0.05))
    with stack:
        with stop_when() as inner:
            while not inner:
                time.sleep(0.001)
        assert outer.reason == inner.reason == "deadline"
    with stop_when(60.0) as outer:
        with stop_when(0.01) as shorter:
            while not shorter:
                time.sleep(0.001)
        assert outer.reason is None
    with stop_when() as raised:  # by hand, long before any deadline
        raised.request("deadline")
    assert interrupt.current().reason is None


@pytest.mark.parametrize("method", sorted(list_optimizers()))
@pytest.mark.parametrize("engine", ["statevector", "pauli-transfer"])
def test_an_interrupted_minimization_returns_the_best_point_it_knows(method: str, engine: str) -> None:
    rng = np.random.default_rng(3)
    circuit, hamiltonian = random_circuit(4, 40, rng), random_hamiltonian(4, 30, rng)
    simulator = make_simulator(engine=engine)
    objective = simulator.objective(circuit, hamiltonian)
    known = options_of(OPTIMIZERS[method])
    endless = {name: 10**7 for name in ("max_iterations", "iterations") if name in known}
    with stop_when(0.1) as stop:
        result = minimize(objective, circuit.angles, method=method, tolerance=1e-300, rng=0, **endless)
    assert result.fun <= simulator.expectation(circuit, hamiltonian) + 1e-12
    assert result.fun == pytest.approx(simulator.expectation(circuit, hamiltonian, result.x), abs=1e-12)
    if stop and not result.success:  # a method may be at its end before
        assert result.message == "stopped: interrupted"


def test_with_shots_the_last_measured_point_is_returned() -> None:
    circuit, hamiltonian = Circuit(2, [("ry", 0, 0.1), ("ry", 1, 0.2)]), Hamiltonian({"ZZ": 1.0})
    objective = NOISY.objective(circuit, hamiltonian)
    objective.terms(circuit.angles)  # kernels are compiled before the clock starts
    with stop_when(0.2):
        result = minimize(objective, circuit.angles, method="spsa", iterations=10**7, shots=9)
    assert result.message == "stopped: interrupted" and np.isfinite(result.fun)


@pytest.mark.parametrize("engine", ["statevector", "pauli-transfer"])
def test_after_the_deadline_nothing_is_calculated_any_more(engine: str) -> None:
    simulator = make_simulator(engine=engine)
    circuit, hamiltonian = Circuit(2, [("rx", 0, 0.1)]), Hamiltonian({"ZZ": 1.0})
    expected = simulator.expectation(circuit, hamiltonian)
    with stop_when(0.0) as stop:
        while not stop:
            time.sleep(0.001)
        for method in ("expectation", "expectation_and_gradient", "term_expectations"):
            with pytest.raises(Interrupted):
                getattr(simulator, method)(circuit, hamiltonian)
        for name in list_optimizers():
            with pytest.raises(Interrupted):
                minimize(simulator.objective(circuit, hamiltonian), [0.1], method=name)
        with interrupt.shielded():
            assert simulator.expectation(circuit, hamiltonian) == expected
        with stop_when(60.0) as inner:
            assert inner.reason == "deadline"
    assert simulator.expectation(circuit, hamiltonian) == expected


def test_other_threads_go_on_and_wakeup_descriptors_are_given_back() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    seen: list[bool] = []
    with stop_when(0.0) as stop:
        while not stop:
            time.sleep(0.001)
        thread = threading.Thread(target=lambda: seen.append(bool(interrupt.current())))
        thread.start()
        thread.join()
    assert seen == [False]
    after = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after)
    assert after == before


def test_one_signal_leaves_a_grace_and_a_second_one_does_not() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with stop_when(grace=30.0) as outer, stop_when(60.0, grace=30.0) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            assert not stop and not outer
            os.kill(os.getpid(), signal.SIGINT)
            began = time.monotonic()
            while not (stop and outer):
                assert time.monotonic() - began < 10
                time.sleep(0.001)
            assert stop.reason == outer.reason == "signal"
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 2


_PROGRAM = """
import numpy as np
from qas.optimizers import minimize
from qas.simulators import make_simulator
from qas.simulators.interrupt import stop_when
from qas.testing import random_circuit, random_hamiltonian
rng = np.random.default_rng(0)
circuit, hamiltonian = random_circuit(11, 60, rng), random_hamiltonian(11, 20, rng)
objective = make_simulator("ibm-mumbai").objective(circuit, hamiltonian)
with stop_when():
    print("started", flush=True)
    minimize(objective, circuit.angles)
"""


@pytest.mark.parametrize("program", [_PROGRAM, _PROGRAM.replace("with stop_when():", "if True:")])
def test_ctrl_c_stops_a_program_in_the_middle_of_a_minimization(program: str) -> None:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"started\n"
        time.sleep(0.8)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert b"KeyboardInterrupt" in process.stderr.read()
        assert time.monotonic() - began < 20.0


def test_times_that_are_no_numbers_are_refused() -> None:
    for arguments in ({"seconds": float("nan")}, {"seconds": "soon"}, {"grace": -1.0}):
        with pytest.raises(QasError), stop_when(**arguments):  # type: ignore[arg-type]
            pass
