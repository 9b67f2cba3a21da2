"""The circuit builder: Gymnasium's and SB3's contracts, determinism, resuming, and the rules of the game."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import qas.envs
from qas.circuits import Circuit
from qas.envs import FixedThreshold, MovingThreshold, RandomHalting, register
from qas.envs.builder import CircuitBuilderEnv
from qas.errors import QasError, UnknownNameError
from qas.noise import NoiseModel, load_noise
from qas.problems import load_problem, problem
from qas.vqe import Evaluator

TFIM = load_problem("tfim-3")
ONE_QUBIT = problem({"X": 0.6, "Z": 0.8, "I": 2.0}, name="one-qubit", threshold=1e-4)


def make(spec: Any = TFIM, **arguments: Any) -> CircuitBuilderEnv:
    env = gymnasium.make(qas.envs.ENV_ID, problem=spec, **arguments).unwrapped
    assert isinstance(env, CircuitBuilderEnv)
    return env


def rollout(env: CircuitBuilderEnv, steps: int, rng: np.random.Generator, mask: np.ndarray | None = None) -> list[Any]:
    """Legal random steps with resets in between; everything that was handed out."""
    seen: list[Any] = []
    if mask is None:
        observation, info = env.reset()
        seen += [observation, info]
        mask = info["action_mask"]
    for _ in range(steps):
        action = rng.choice(np.flatnonzero(mask))
        observation, reward, terminated, truncated, info = env.step(action)
        seen += [observation, reward, terminated, truncated, info]
        if terminated or truncated:
            observation, info = env.reset()
            seen += [observation, info]
        mask = info["action_mask"]
    return seen


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


# ---------------------------------------------------------------------- contracts of other libraries
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "noisy": {"noise": "ibm-mumbai"},
    "coupled": {"noise": "ibm-ourense"},
    "halting": {"random_halting": {"successes": 5, "probability": 0.5, "low": 2, "high": 9}},
    "lag": {"order": "legacy_lag"},
    "lookahead": {"observation": "lookahead", "optimise_every": "end"},
    "graph": {"observation": "graph", "optimise_every": 3},
    "device": {"spec": "h2-2", "device": "fake_marrakesh", "observation": "lookahead"},
    "one qubit": {"spec": ONE_QUBIT, "curriculum": 1e-12},
    "clifford": {"gates": ("h", "s", "cz"), "curriculum": "moving-lower-bound"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("error")
def test_gymnasium_check_env(variant: str) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(make(**VARIANTS[variant], max_gates=8))


@pytest.mark.parametrize("variant", ["plain", "halting", "one qubit", "lookahead", "graph"])
def test_stable_baselines_check_env(variant: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(**VARIANTS[variant], max_gates=8, render_mode="ansi"), warn=True, skip_render_check=False)


def test_stable_baselines_ppo_trains_unchanged() -> None:
    from stable_baselines3 import PPO

    env = gymnasium.make(qas.envs.ENV_ID, problem="tfim-2", max_gates=6)
    model = PPO("MultiInputPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    assert model.num_timesteps == 64


def test_maskable_ppo_takes_only_legal_actions() -> None:
    from sb3_contrib import MaskablePPO

    env = gymnasium.make(qas.envs.ENV_ID, problem="tfim-2", max_gates=6, curriculum=1e-12)
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    builder = env.unwrapped
    assert isinstance(builder, CircuitBuilderEnv)
    observation, _ = builder.reset(seed=1)
    ended = False
    while not ended:
        action, _ = model.predict(observation, action_masks=builder.action_masks())  # type: ignore[arg-type]
        observation, _, terminated, truncated, info = builder.step(action)
        assert not info["illegal"]
        ended = terminated or truncated


def test_vector_environment() -> None:
    envs = gymnasium.make_vec(qas.envs.ENV_ID, num_envs=2, vectorization_mode="sync", problem=TFIM, max_gates=3)
    observations, infos = envs.reset(seed=3)
    for _ in range(5):
        observations, rewards, _, _, infos = envs.step(envs.action_space.sample())
    assert observations["circuit"].shape == (2, 3, 6, 3) and rewards.shape == (2,)
    assert infos["action_mask"].shape == (2, 15)


def test_registration() -> None:
    register()
    register()
    assert qas.envs.ENV_ID in gymnasium.registry
    spec = gymnasium.make(qas.envs.ENV_ID, problem="tfim-2", noise="ibm-mumbai", max_gates=3).spec
    assert spec is not None
    assert gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec.to_json())).unwrapped.max_gates == 3  # type: ignore[attr-defined]


def test_importing_is_light_and_the_id_can_name_the_module(tmp_path: Path) -> None:
    code = (
        "import sys, gymnasium, qas.envs\n"
        "assert not {'torch', 'qiskit', 'matplotlib', 'qas.envs.builder'} & set(sys.modules)\n"
        "env = gymnasium.make('qas.envs:qas/CircuitBuilder-v0', problem='tfim-2')\n"
        "assert type(env.unwrapped) is qas.envs.CircuitBuilderEnv\n"
        "assert not {'torch', 'qiskit', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=dict(os.environ))


# ---------------------------------------------------------------------- determinism and resuming
@pytest.mark.parametrize("variant", ["plain", "halting", "lag"])
def test_seeded_rollouts_are_equal(variant: str) -> None:
    results = []
    for _ in range(2):
        env = make(**VARIANTS[variant], max_gates=8)
        env.reset(seed=11)
        results.append(rollout(env, 60, np.random.default_rng(5)))
    assert same(*results)
    env.reset(seed=12)
    assert not same(results[0], rollout(env, 60, np.random.default_rng(5)))


@pytest.mark.parametrize("variant", ["plain", "halting", "lag", "lookahead", "graph"])
@pytest.mark.parametrize("played", [0, 1, 13])
def test_state_continues_identically(variant: str, played: int) -> None:
    curriculum = MovingThreshold(TFIM.exact, accept_error=3.0, ball=0.1, shift_time=11, successes_per_cut=1)
    first, second = (make(**VARIANTS[variant], max_gates=5, curriculum=curriculum) for _ in range(2))
    first.reset(seed=3)
    rollout(first, played, np.random.default_rng(4))
    state = json.loads(json.dumps(first.get_state()))
    second.reset(seed=99)
    observation, info = second.set_state(state)
    assert second.get_state() == first.get_state()
    assert same(observation, first.observer.observe(first))
    if "circuit" in observation:
        assert same(observation["circuit"], first.encoding.encode(first.circuit))
    assert same(info["action_mask"], first.action_masks())
    a, b = (rollout(env, 40, np.random.default_rng(6), env.action_masks()) for env in (first, second))
    assert same(a, b)
    assert second.get_state() == first.get_state()


def test_states_that_do_not_fit() -> None:
    env = make(max_gates=4)
    env.reset(seed=0)
    env.step(0)
    good = env.get_state()
    before = json.dumps(env.get_state())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"format": "x"}, "not a state"),
        ({"version": 1}, "version 2"),
        ({"problem": "tfim-9"}, "tfim-9"),
        ({"max_gates": 5}, "max_gates"),
        ({"order": "legacy_lag"}, "order"),
        ({"optimise_every": 3}, "optimise_every"),
        ({"actions": {}}, "actions"),
        ({"circuit": [["h", [0], []]]}, "got h"),
        ({"circuit": 3}, "damaged at circuit"),
        ({"circuit": [["rx", [0], [0.1]]] * 5}, "5 gates"),
        ({"curriculum": {"kind": "FixedThreshold"}}, "not the state"),
        ({"rng": {"bit_generator": "MT19937"}}, "damaged at rng"),
        ({"energy": None}, "damaged at energy"),
        ({"gains": [[0.0]] * 4}, "gains of other actions"),
    ]
    for change, message in changes:
        with pytest.raises(QasError, match=message) as caught:
            env.set_state(good | change)
        assert "\n" not in str(caught.value)
    others: list[Any] = [{k: v for k, v in good.items() if k != "rng"}, None, []]
    for state in others:
        with pytest.raises(QasError):
            env.set_state(state)
    assert json.dumps(env.get_state()) == before


# ---------------------------------------------------------------------- rules of the game
def test_observation_follows_the_circuit() -> None:
    env = make(max_gates=10, curriculum=1e-12)
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    assert not observation["circuit"].any() and observation["energy"] == 0.0
    zero = info["energy"]
    assert zero == pytest.approx(Evaluator(TFIM).energy(Circuit(3)))
    for length in range(1, 11):
        observation, _, _, _, info = env.step(rng.integers(len(env.actions)))
        circuit = info["circuit"]
        assert len(circuit) == length
        assert same(observation["circuit"], env.encoding.encode(circuit))
        assert observation["energy"] == np.float32(info["energy"] - zero)
        assert observation in env.observation_space
        assert not (info["action_mask"] & ~env.actions.legal(env.actions.last_of(circuit))).any()
        assert info["energy"] == pytest.approx(Evaluator(TFIM).energy(circuit), abs=1e-10)
        assert info["error"] == TFIM.error(info["energy"])


def test_angles_are_optimised_after_the_gate() -> None:
    env = make(ONE_QUBIT, curriculum=1e-4)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(1)
    assert info["error"] < 1e-8 and reward == 5.0 and terminated and not truncated


def test_lag_reports_the_new_gate_at_angle_zero() -> None:
    env = make(order="legacy_lag", max_gates=12, curriculum=1e-12)
    twin = make(max_gates=12, curriculum=1e-12)
    rng = np.random.default_rng(2)
    env.reset(seed=7)
    evaluator = Evaluator(TFIM)
    for _ in range(12):
        before, state = env.circuit, env.np_random.bit_generator.state
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        _, _, _, _, info = env.step(action)
        after = info["circuit"]
        assert not any(after[-1].angles)
        # what the optimiser makes of the circuit before the step, with the same randomness
        twin.np_random.bit_generator.state = state
        tuned = evaluator.evaluate(before, twin.np_random).circuit if before.n_angles else before
        assert after.gates[:-1] == tuned.gates
        appended = Circuit(3, (*tuned.gates, env.actions.gate(action)))
        assert info["energy"] == evaluator.energy(appended)


def test_the_lag_delays_the_gain_by_one_step() -> None:
    energies = {}
    for order in ("append_then_optimise", "legacy_lag"):
        env = make(ONE_QUBIT, order=order, curriculum=FixedThreshold(1e-12, target=-100.0))
        _, info = env.reset(seed=0)
        energies[order] = [info["energy"]] + [env.step(action)[4]["energy"] for action in (1, 0, 2)]
    assert energies["append_then_optimise"] == pytest.approx([2.8, 1.0, 1.0, 1.0])
    assert energies["legacy_lag"] == pytest.approx([2.8, 2.8, 1.0, 1.0])


@pytest.mark.parametrize("every", [1, 3, "end"])
def test_angles_between_optimisations_are_the_best_for_the_new_gate(every: int | str) -> None:
    env = make(max_gates=7, curriculum=1e-12, optimise_every=every)
    engine, rng = Evaluator(TFIM), np.random.default_rng(5)
    env.reset(seed=0)
    for step in range(1, 8):
        before, energy = env.circuit, env.energy
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        gain, angle = env.gains.gain[action], env.gains.angle[action]
        info = env.step(action)[4]
        assert info["energy"] == pytest.approx(engine.energy(info["circuit"]), abs=1e-12)
        if step == 7 or (every != "end" and step % int(every) == 0):
            slopes = engine.simulator.expectation_and_gradient(info["circuit"], TFIM.hamiltonian)[1]
            assert np.abs(slopes).max(initial=0.0) < 1e-3
            continue
        assert info["circuit"].gates[:-1] == before.gates
        if info["circuit"][-1].angles:
            assert info["circuit"][-1].angles == (angle,) and info["evaluations"] == 1
            assert info["energy"] == pytest.approx(energy - gain, abs=1e-12)


def test_a_success_between_optimisations_is_optimised() -> None:
    env = make(ONE_QUBIT, curriculum=0.5, optimise_every="end")
    env.reset(seed=0)
    _, _, terminated, _, info = env.step(1)
    assert terminated and info["success"] and info["error"] < 1e-8 and info["evaluations"] > 3


def test_the_threshold_is_observed_as_it_will_be_used() -> None:
    curriculum = MovingThreshold(ONE_QUBIT.exact, accept_error=1.0, ball=0.5, shift_time=11, successes_per_cut=1)
    env = make(ONE_QUBIT, curriculum=curriculum)
    env.reset(seed=0)
    env.step(1)
    observation, _ = env.reset()
    assert observation["threshold"] == np.float32(env.step(1)[4]["threshold"]) == np.float32(0.95)


def test_rows_of_the_look_ahead() -> None:
    env = make("lih-4", observation="lookahead", max_gates=8, curriculum=1e-12)
    observer: Any = env.observer
    observation, info = env.reset(seed=0)
    for action in (13, 0, 17):
        rows = observation["actions"].reshape(len(env.actions), -1)
        seen = dict(zip(observer.features, rows.T, strict=True))
        assert np.array_equal(seen["legal"] > 0, info["action_mask"])
        assert seen["gain"] == pytest.approx(env.gains.gain / observer.scale, abs=1e-6)
        assert seen["slope"] == pytest.approx(env.gains.slope / observer.scale, abs=1e-6)
        assert seen["gain_share"].max() == 1.0
        assert np.array_equal(seen["two_qubit_gates"] > 0, seen["kind_cx"] > 0)
        assert (seen["coupling"][:12] > 0).all() and not seen["coupling"][12:].any()
        for k, gate in enumerate(env.actions.placed):
            string = "".join("Z" if q == gate.qubits[-1] else "I" for q in reversed(range(4)))
            value = Evaluator(problem({string: 1.0}, name="z")).energy(env.circuit)
            assert seen["z_last"][k] == pytest.approx(value, abs=1e-6)
            assert seen["gates_first"][k] == np.float32(sum(gate.qubits[0] in g.qubits for g in env.circuit) / 8)
        observation, _, _, _, info = env.step(action)
        general = dict(zip(observer.general, observation["general"], strict=True))
        assert general["energy"] == pytest.approx((env.energy - env.zero_energy) / observer.scale, abs=1e-6)
        assert general["gates"] == len(env.circuit) / 8


def test_a_graph_has_the_wires_of_the_circuit() -> None:
    env = make(max_gates=6, observation="graph", curriculum=1e-12)
    start = Circuit(3, [("ry", 2, 0.1), ("cx", (2, 0)), ("cx", (0, 2)), ("rx", 0, 0.3)])
    observation, _ = env.reset(options={"circuit": start})
    assert np.argwhere(observation["edges"]).tolist() == [[0, 1], [1, 2], [2, 3]]
    kinds = [env.actions.gates[row[:4].argmax()] for row in observation["nodes"][:4]]
    assert kinds == ["ry", "cx", "cx", "rx"] and not observation["nodes"][4:].any()
    ports = observation["nodes"][1, 4:].reshape(2, 3)
    assert ports.argmax(axis=1).tolist() == [2, 0] and ports.sum() == 2


def test_length_limit_terminates() -> None:
    env = make(max_gates=3, curriculum=1e-12, random_halting={"low": 2, "high": 2})
    env.reset(seed=0)
    ends = [env.step(action)[1:] for action in (0, 1, 2)]
    assert [(terminated, truncated) for _, terminated, truncated, _ in ends] == [(False, False)] * 2 + [(True, False)]
    assert ends[-1][0] == -5.0 and ends[-1][3]["halted"] is False and ends[-1][3]["success"] is False
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_success_at_the_length_limit_terminates() -> None:
    env = make(ONE_QUBIT, max_gates=1, curriculum=1e-4)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated, info["success"]) == (5.0, True, False, True)


def test_random_halting_truncates() -> None:
    env = make(
        max_gates=30, curriculum=1e-12, random_halting=RandomHalting(successes=5, probability=0.5, low=2, high=9)
    )
    env.reset(seed=1)
    lengths = []
    for _ in range(30):
        env.reset()
        expected = env.get_state()["halt_step"]
        ended, steps = False, 0
        while not ended:
            _, reward, terminated, ended, info = env.step(0)
            steps += 1
        assert steps == expected + 1
        assert info["halted"] is True and not terminated and -1 <= reward <= 1
        lengths.append(steps)
    assert min(lengths) >= 3 and max(lengths) <= 10 and len(set(lengths)) > 3


def test_curriculum_across_episodes() -> None:
    curriculum = MovingThreshold(
        ONE_QUBIT.exact, accept_error=1.0, ball=0.5, shift_time=11, successes_per_cut=2, cuts=5
    )
    env = make(ONE_QUBIT, curriculum=curriculum)
    thresholds = []
    env.reset(seed=0)
    for _ in range(12):
        env.reset()
        _, _, terminated, _, info = env.step(1)
        assert terminated
        thresholds.append(round(info["threshold"], 9))
    assert thresholds == [1.0, 1.0, 0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5]
    assert curriculum.threshold == 1.0
    env.reset(seed=0, options={"training": False})
    state = env.curriculum.to_state()
    env.step(1)
    assert env.curriculum.to_state() == state
    env.reset(options={"restart_curriculum": True})
    assert env.curriculum.to_state() == curriculum.to_state()


def test_curriculum_sees_no_shot_noise() -> None:
    shots = Evaluator(ONE_QUBIT, optimizer="rotosolve", shots=10, max_evaluations=8)
    env = make(ONE_QUBIT, evaluator=shots, curriculum=MovingThreshold(ONE_QUBIT.exact, accept_error=1.0))
    energies = []
    env.reset(seed=0)
    for _ in range(40):
        env.reset()
        info = env.step(1)[4]
        energies.append(info["energy"])
        assert info["evaluations"] <= 9
    assert min(energies) < ONE_QUBIT.exact - 0.1
    assert ONE_QUBIT.exact <= env.curriculum.to_state()["lowest"] < ONE_QUBIT.exact + 0.1


def test_lag_with_shots() -> None:
    shots = Evaluator(TFIM, optimizer="spsa", shots=100, max_evaluations=9)
    results = []
    for _ in range(2):
        env = make(evaluator=shots, max_gates=5, curriculum=1e-12, order="legacy_lag")
        env.reset(seed=0)
        results.append(rollout(env, 4, np.random.default_rng(1)))
    assert same(*results)
    assert results[0][-1]["energy"] != Evaluator(TFIM).energy(results[0][-1]["circuit"])


def test_a_lower_bound_is_what_errors_are_counted_from() -> None:
    env = make(curriculum="moving-lower-bound", reward="negative_above_threshold")
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(7)
    error = info["energy"] - (-6.0)
    assert terminated and error > info["error"] + 1.0
    assert reward == pytest.approx(info["threshold"] / error)


def test_illegal_actions_are_flagged_and_executed() -> None:
    env = make(max_gates=5, curriculum=1e-12)
    env.reset(seed=0)
    played = [("cx", (0, 1)), ("ry", (0,)), ("ry", (0,)), ("cx", (0, 1))]
    flags = [env.step(env.actions.index(Circuit(3, [(*gate, *[0.0] * (gate[0] == "ry"))])[0]))[4] for gate in played]
    assert [info["illegal"] for info in flags] == [True, False, True, False]
    assert len(env.circuit) == 4


def test_something_is_always_legal() -> None:
    env = make(ONE_QUBIT, gates=("rz",), curriculum=1e-12)
    env.reset(seed=0)
    env.step(0)
    assert env.action_masks().all()
    assert env.step(0)[4]["illegal"] is False


def test_one_qubit_has_no_two_qubit_gates() -> None:
    env = make(ONE_QUBIT)
    assert len(env.actions) == 3 and env.observation_space["circuit"].shape == (40, 4, 1)  # type: ignore[index]


def test_noise_changes_the_energy() -> None:
    energies = []
    for noise in (None, "ibm-mumbai", "ibm-mumbai-max"):
        env = make(noise=noise, max_gates=6, curriculum=1e-12)
        _, info = env.reset(seed=0)
        seen = [info["energy"]]
        for action in (6, 0, 9, 3, 12):
            seen.append(env.step(action)[4]["energy"])
        energies.append(seen)
    noiseless, median, worst = (np.array(e) for e in energies)
    assert (abs(noiseless - median) > 1e-4).all() and (abs(median - worst) > 1e-4).all()
    assert noiseless[-1] < median[-1] < worst[-1]


def test_coupling_of_the_device() -> None:
    env = make("tfim-4", noise="ibm-ourense")
    assert env.actions.coupling == ((0, 1), (1, 2), (1, 3)) and len(env.actions) == 18
    assert make("tfim-3", noise="ibm-ourense").actions.coupling == ((0, 1), (1, 2))
    with pytest.raises(QasError, match="couples only"):
        make("tfim-4", noise="ibm-ourense", coupling=[(0, 1), (1, 2), (2, 3)])
    assert len(make("tfim-4", coupling=[(0, 1), (1, 2), (2, 3)]).actions) == 18
    env = make("tfim-4", evaluator=Evaluator(load_problem("tfim-4"), load_noise("ibm-ourense")))
    assert len(env.actions) == 18
    env.reset(seed=0)
    rollout(env, 20, np.random.default_rng(0))


def test_start_circuit() -> None:
    circuit = Circuit(3, [("ry", 0, 0.4), ("cx", (0, 1)), ("ry", 0, -0.4)])
    env = make(max_gates=5, curriculum=1e-12)
    observation, info = env.reset(seed=0, options={"circuit": circuit})
    assert info["circuit"] == circuit and info["energy"] == Evaluator(TFIM).energy(circuit)
    assert same(observation["circuit"], env.encoding.encode(circuit))
    assert not info["action_mask"][env.actions.index(circuit[2])]
    env.step(5)
    assert env.step(4)[2] is True
    with pytest.raises(QasError, match="fewer than max_gates"):
        make(max_gates=3).reset(options={"circuit": circuit})
    for wrong in (Circuit(2), Circuit(3, [("h", 0)]), [("rx", 0)]):
        before = env.get_state()
        with pytest.raises(QasError):
            env.reset(options={"circuit": wrong})
        assert env.get_state() == before
    with pytest.raises(UnknownNameError, match="circuit"):
        env.reset(options={"circiut": circuit})


def test_actions_outside_the_space() -> None:
    env = make()
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for action in (-1, 15, 1.5, "cx"):
        with pytest.raises(QasError, match="action"):
            env.step(action)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": "lih-44"}, "lih-4"),
        ({"noise": "ibm-mumbay"}, "ibm-mumbai"),
        ({"noise": "ibm-ourense", "spec": "tfim-5"}, "describes 4 qubits"),
        ({"max_gates": 0}, "max_gates"),
        ({"max_gates": 2.5}, "max_gates"),
        ({"gates": ("rx", "cnot")}, "unknown gate"),
        ({"coupling": [(0, 1)]}, "no path"),
        ({"reward": "incremental_with_fixed_end"}, "incremental_with_fixed_ends"),
        ({"curriculum": "mt"}, "unknown curriculum"),
        ({"curriculum": -1.0}, "finite number above 0"),
        ({"random_halting": {"successes": 0}}, "successes"),
        ({"random_halting": {"p": 0.5}}, "probability"),
        ({"random_halting": True}, "mapping"),
        ({"order": "optimise_then_append"}, "append_then_optimise"),
        ({"observation": "lokahead"}, "lookahead"),
        ({"observation": 3}, "Observer"),
        ({"observation": "lookahead", "evaluator": Evaluator(TFIM, shots=9, optimizer="spsa")}, "with 9 shots"),
        ({"optimise_every": 0}, "optimise_every"),
        ({"optimise_every": "never"}, "optimise_every"),
        ({"optimise_every": 2, "order": "legacy_lag"}, "every step"),
        ({"render_mode": "human"}, "rgb_array"),
        ({"evaluator": Evaluator(ONE_QUBIT)}, "one-qubit"),
        ({"evaluator": Evaluator(TFIM), "noise": "ibm-mumbai"}, "leave it out"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    arguments = {"problem": arguments.get("spec", TFIM)} | {k: v for k, v in arguments.items() if k != "spec"}
    with pytest.raises(QasError, match=message) as caught:
        CircuitBuilderEnv(**arguments)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- rendering
def test_rendering() -> None:
    env = make("lih-4", render_mode="ansi")
    env.reset(seed=0)
    env.step(0)
    text = env.render()
    assert "q0" in text and "lih-4: energy" in text and "hartree" in text and "gate 1 of 40" in text
    env = make("lih-4", render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.std() > 0
    env = make()
    env.reset(seed=0)
    assert env.render() is None


def test_noise_of_the_same_evaluator_may_be_repeated() -> None:
    noise = NoiseModel.depolarizing(1e-3, 1e-2)
    assert make(noise=noise, evaluator=Evaluator(TFIM, noise)).evaluator.noise == noise


def test_a_register_too_large_for_gains_begins_new_rotations_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qas.envs.builder.MOST_QUBITS", 1)
    env = CircuitBuilderEnv("h2-2", optimise_every=2, max_gates=4)
    env.reset(seed=0)
    rotation = next(k for k, gate in enumerate(env.actions.placed) if gate.name == "ry")
    _, _, _, _, info = env.step(rotation)
    assert info["circuit"].angles.tolist() == [0.0] and info["evaluations"] == 1
