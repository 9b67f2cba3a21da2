"""Many builders at once: the contract of Gymnasium, and the same results as one after the other."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import qas.envs
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.vector import CircuitBuilderVectorEnv
from qas.errors import QasError
from qas.meter import Budget, Meter
from qas.problems import load_problem
from qas.vqe import Evaluator

TFIM = load_problem("tfim-3")


def make(num_envs: int = 3, **settings: Any) -> CircuitBuilderVectorEnv:
    envs = gymnasium.make_vec(qas.envs.ENV_ID, num_envs=num_envs, problem=TFIM, **settings).unwrapped
    assert isinstance(envs, CircuitBuilderVectorEnv)
    return envs


def choose(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


@pytest.mark.parametrize("observation", list(qas.envs.OBSERVATIONS))
@pytest.mark.parametrize("every", [1, 3, "end"])
def test_the_same_as_one_after_the_other(observation: str, every: int | str) -> None:
    settings: dict[str, Any] = {"max_gates": 5, "curriculum": 2.0, "observation": observation, "optimise_every": every}
    envs = make(**settings)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    alone = [CircuitBuilderEnv(TFIM, **settings) for _ in range(3)]
    observations, infos = envs.reset(seed=4)
    pairs = [env.reset(seed=4 + k) for k, env in enumerate(alone)]
    rng, ended = np.random.default_rng(0), np.zeros(3, dtype=bool)
    for _ in range(15):
        assert observations in envs.observation_space
        for k, (observation_k, info) in enumerate(pairs):
            assert all(np.array_equal(observations[key][k], value) for key, value in observation_k.items())
            assert np.array_equal(infos["action_mask"][k], info["action_mask"])
            assert infos["circuit"][k] == info["circuit"] and infos["evaluations"][k] == info["evaluations"]
        actions = choose(envs.action_masks(), rng)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        pairs, ends = [], []
        for k, env in enumerate(alone):
            if ended[k]:
                pairs.append(env.reset())
                ends.append((0.0, False, False))
                continue
            *front, info = env.step(actions[k])
            pairs.append((front[0], info))
            ends.append(tuple(front[1:]))
        assert list(zip(rewards, terminated, truncated, strict=True)) == ends
        ended = terminated | truncated
    assert ended.any() or len(envs.envs[0].circuit)


def test_one_curriculum_learns_from_all() -> None:
    envs = make(max_gates=2)
    envs.reset(seed=0)
    for _ in range(9):
        envs.step(choose(envs.action_masks(), np.random.default_rng(1)))
    assert len({id(env.curriculum) for env in envs.envs}) == 1
    assert envs.envs[0].curriculum.to_state()["episodes"] == 9


def test_state_continues_identically() -> None:
    def play(envs: CircuitBuilderVectorEnv, steps: int, seed: int) -> list[Any]:
        rng, seen = np.random.default_rng(seed), []
        for _ in range(steps):
            observations, rewards, terminated, _, infos = envs.step(choose(envs.action_masks(), rng))
            seen.append(
                [observations["circuit"].tolist(), rewards.tolist(), terminated.tolist(), list(infos["circuit"])]
            )
        return seen

    settings: dict[str, Any] = {"max_gates": 4, "random_halting": {"low": 1, "high": 3, "successes": 1}}
    first, second = make(**settings), make(**settings)
    first.reset(seed=2)
    play(first, 5, 0)
    state = json.loads(json.dumps(first.get_state()))
    second.reset(seed=9)
    second.set_state(state)
    assert play(first, 12, 1) == play(second, 12, 1)
    assert second.get_state() == first.get_state()
    with pytest.raises(QasError, match="of 3 circuit builders, but there are 2"):
        make(2, **settings).set_state(state)
    with pytest.raises(QasError, match="not a state"):
        second.set_state({})


def test_a_meter_counts_what_the_infos_say() -> None:
    meter = Meter(Evaluator(TFIM), Budget(evaluations=100_000))
    envs = CircuitBuilderVectorEnv(TFIM, 4, evaluator=meter, max_gates=6, observation="lookahead", optimise_every="end")
    at_first = meter.evaluations
    _, infos = envs.reset(seed=0)
    told = int(infos["evaluations"].sum())
    assert told == 4, "a sweep each: the energy of |0…0⟩ is known"
    for _ in range(6):
        told += int(envs.step(choose(envs.action_masks(), np.random.default_rng(3)))[4]["evaluations"].sum())
    assert meter.evaluations - at_first == told
    assert meter.architectures >= 24


def test_part_of_the_episodes_begins_anew() -> None:
    envs = make(max_gates=5, curriculum=1e-12)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(choose(envs.action_masks(), np.random.default_rng(0)))
    _, infos = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert [len(circuit) for circuit in infos["circuit"]] == [2, 0, 2]


def test_seeds_may_be_numbers_of_numpy() -> None:
    envs = make(max_gates=5)

    def drawn(seed: Any) -> list[Any]:
        envs.reset(seed=seed)
        return [env.np_random.bit_generator.state for env in envs.envs]

    assert drawn(4) == drawn(np.int64(4)) == drawn(np.arange(4, 7)) == drawn([4, np.int32(5), 6]) != drawn(5)
    for wrong in (1.5, -1, [1, 2, -3], np.array([0.5, 1.0, 2.0])):
        with pytest.raises(QasError, match="a seed is a whole number"):
            envs.reset(seed=wrong)


def test_wrong_arguments() -> None:
    with pytest.raises(QasError, match="one problem"):
        CircuitBuilderVectorEnv([TFIM, load_problem("tfim-2")], 2)  # type: ignore[arg-type]
    with pytest.raises(QasError, match="num_envs"):
        CircuitBuilderVectorEnv(TFIM, 0)
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(QasError, match="action for each of 3"):
        envs.step(np.array([0]))
    with pytest.raises(QasError, match="mask for each"):
        envs.reset(seed=[1, 2])
