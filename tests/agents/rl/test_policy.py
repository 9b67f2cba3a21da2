"""The policy that scores edits, its files, and the agent that plays it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import qas
from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.editor import EditorAgent
from qas.agents.rl.policy import CandidatePolicy, chosen, load_policy, untrained
from qas.agents.rl.starts import Known, Starts
from qas.circuits import Circuit
from qas.envs.candidates import FEATURES, GENERAL
from qas.envs.editor import CircuitEditorEnv
from qas.errors import QasError, UnknownNameError

SMALL = {"width": 16, "heads": 2, "layers": 1}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def table(rng: np.random.Generator, rows: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    candidates = rng.normal(size=(batch, rows, 7)).astype(np.float32)
    return torch.from_numpy(candidates), torch.from_numpy(rng.normal(size=(batch, 4)).astype(np.float32))


@pytest.mark.parametrize("layers", [0, 2])
def test_permuted_rows_have_permuted_scores_and_the_same_value(layers: int, rng: np.random.Generator) -> None:
    policy = CandidatePolicy(7, 4, layers=layers).eval()
    candidates, general = table(rng, 11)
    order = torch.from_numpy(rng.permutation(11))
    scores, values = policy(candidates, general)
    permuted, same = policy(candidates[:, order], general)
    assert torch.allclose(permuted, scores[:, order], atol=1e-5) and torch.allclose(same, values, atol=1e-5)
    assert scores.std() > 1e-3


def test_padding_changes_nothing_and_one_row_will_do(rng: np.random.Generator) -> None:
    policy = CandidatePolicy(7, 4).eval()
    candidates, general = table(rng, 5)
    padded = torch.cat([candidates, torch.zeros(3, 9, 7)], dim=1)
    for given, expected in zip(policy(padded, general), policy(candidates, general), strict=True):
        assert torch.allclose(given[:, :5] if given.ndim == 2 else given, expected, atol=1e-5)
    assert all(torch.isfinite(each).all() for each in policy(candidates[:, :1], general))


def test_rows_look_at_each_other_only_with_attention(rng: np.random.Generator) -> None:
    candidates, general = table(rng, 6)
    changed = candidates.clone()
    changed[:, 5] += 1.0
    for layers, alone in ((0, True), (1, False)):
        policy = CandidatePolicy(7, 4, layers=layers).eval()
        same = torch.allclose(policy(candidates, general)[0][:, :5], policy(changed, general)[0][:, :5], atol=1e-6)
        assert same == alone


def test_it_is_small_and_its_weights_are_seeded() -> None:
    state = torch.get_rng_state()
    first, second, other = (untrained(seed).policy for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.n_parameters < 100_000
    assert torch.equal(first.score.weight, second.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)


def test_a_file_gives_the_policy_back(tmp_path: Path, rng: np.random.Generator) -> None:
    trained = untrained(3, width=8, heads=2, layers=1)
    trained.family, trained.settings, trained.training = "xxz-ring", {"candidates": 16}, {"seed": 3}
    candidates = rng.normal(size=(2, 9, len(FEATURES))).astype(np.float32)
    general = rng.normal(size=(2, len(GENERAL))).astype(np.float32)
    trained.policy.standardize(candidates, general)
    trained.save(tmp_path / "p.safetensors")
    read = load_policy(tmp_path / "p.safetensors")
    assert (read.family, read.settings, read.training) == ("xxz-ring", {"candidates": 16}, {"seed": 3})
    observation = {"candidates": candidates[0], "general": general[0]}
    assert np.array_equal(read.policy.scores(observation), trained.policy.scores(observation))


@pytest.mark.parametrize("layers", [0, 2])
def test_a_blinded_policy_is_blind_and_so_is_its_file(layers: int, tmp_path: Path, rng: np.random.Generator) -> None:
    path, names = tmp_path / "p.safetensors", ("log_gain", "gain", "log_gain_per_gate", "error", "won")
    candidates = rng.normal(size=(2, 9, len(FEATURES))).astype(np.float32)
    general = rng.normal(size=(2, len(GENERAL))).astype(np.float32)
    trained = untrained(layers=layers, without=names)
    trained.policy.standardize(candidates, general)
    trained.policy.trusting(FEATURES.index("log_gain_per_gate"), 10.0)
    trained.save(path)
    read = load_policy(path)
    assert read.without == ("gain", "log_gain", "log_gain_per_gate", "error", "won") == trained.without
    assert read.digest == trained.digest

    def scores(policy: CandidatePolicy, *changed: str) -> np.ndarray:
        table, whole = candidates[0].copy(), general[0].copy()
        for name in changed:
            table[:, [k for k, other in enumerate(FEATURES) if other == name]] = rng.normal(size=(9, 1))
            whole[[k for k, other in enumerate(GENERAL) if other == name]] = rng.normal()
        return policy.scores({"candidates": table, "general": whole})

    assert np.array_equal(scores(read.policy), scores(trained.policy))
    assert np.array_equal(scores(read.policy, *names), scores(trained.policy))
    for seen in ("slope", "edits_left"):
        assert not np.array_equal(scores(read.policy, seen), scores(trained.policy)), seen
    with safetensors.safe_open(path, "pt") as file:  # as files were before there were blinded policies
        about = {name: value for name, value in file.metadata().items() if name != "without"}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, about)
    seeing = load_policy(path)
    assert seeing.without == () and seeing.digest != read.digest
    for name in names:
        assert not np.array_equal(scores(seeing.policy, name), scores(seeing.policy)), name


def test_features_that_there_are_not_are_refused_in_one_line() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown feature 'log_gian'.*'log_gain'") as told:
        untrained(without=["gain", "log_gian"])
    assert "\n" not in str(told.value)


def test_another_feature_version_is_refused_in_one_line(tmp_path: Path) -> None:
    trained = untrained(width=8, heads=2, layers=0)
    trained.feature_version += 1
    trained.save(tmp_path / "p.safetensors")
    with pytest.raises(QasError, match=rf"version {trained.feature_version - 1}, got one of version") as told:
        load_policy(tmp_path / "p.safetensors")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(content)
    with pytest.raises(QasError, match="policy"):
        load_policy(path)
    with pytest.raises(QasError, match="unknown policy"):
        load_policy(tmp_path / "missing.safetensors")


def test_choices_are_legal_and_follow_the_scores(rng: np.random.Generator) -> None:
    scores, mask = np.array([3.0, 1.0, 2.0, 9.0]), np.array([True, True, True, False])
    assert chosen(scores, mask, 0.0, rng) == 0
    drawn = np.bincount([chosen(scores, mask, 1.0, rng) for _ in range(4000)], minlength=4) / 4000
    expected = np.where(mask, np.exp(scores), 0.0)
    assert drawn == pytest.approx(expected / expected.sum(), abs=0.03)


def test_the_control_takes_the_largest_gain_for_each_two_qubit_gate() -> None:
    env = CircuitEditorEnv("lih-4")
    observation, info = env.reset(seed=0)
    best = int(np.argmax(np.where(info["action_mask"], closed_form_scores(observation["candidates"]), -np.inf)))
    worth = [
        0.0 if edit is None or edit.place is None else edit.numbers["gain"] / max(1, edit.place.block.two_qubit_gates)
        for edit in env.table.edits
    ]
    assert worth[best] == max(worth) > 0


def test_a_flat_table_is_the_same_table(rng: np.random.Generator) -> None:
    policy = CandidatePolicy(7, 4).eval()
    candidates, general = table(rng, 5)
    for given, expected in zip(policy(candidates.flatten(1), general), policy(candidates, general), strict=True):
        assert torch.equal(given, expected)


def test_a_policy_and_its_control_have_the_same_limits(tmp_path: Path) -> None:
    """Also where the policy was trained with others: its twin would reach what it may not."""
    trained = untrained(**SMALL)
    trained.settings = {"candidates": 16, "evaluations_each": 3}
    trained.save(tmp_path / "policy.safetensors")
    limits = []
    for policy in (str(tmp_path / "policy.safetensors"), "none", "random"):
        agent = EditorAgent(policy=policy, candidates=16, evaluations_each=3)
        qas.search("h2-2", agent=agent, evaluations=5, out=tmp_path / f"run-{len(limits)}", report=False)
        env = agent.env
        limits.append((env.limits, env.max_edits, env.candidates, env.evaluations_each, env.start))
    assert limits[0] == limits[1] == limits[2]


def test_a_start_from_a_policy_is_as_long_as_it_becomes(tmp_path: Path) -> None:
    """On a device: nine turns that become few gates will do, and the better circuit whose five become many will not."""
    problem = qas.load_problem("h2-2")
    turns = [("rz", 0, 0.2), ("rz", 1, 0.1)] * 4
    long = [("ry", 0, 0.3), ("rx", 1, 0.4), ("cx", (0, 1)), ("ry", 0, 0.3), ("rx", 1, 0.4)]
    circuits = [Circuit(2, [*turns, ("x", 0)]), Circuit(2, long)]
    trained = untrained(**SMALL)
    trained.starts = Starts([Known(2, problem.hamiltonian.terms, circuits, [0.2, 0.1])]).to_json()
    trained.save(tmp_path / "policy.safetensors")
    for most, written in ((6, circuits[0]), (20, circuits[1])):
        agent = EditorAgent(policy=str(tmp_path / "policy.safetensors"), start="nearest")
        out = tmp_path / f"run-{most}"
        qas.search("h2-2", agent=agent, device="fake_torino", max_gates=most, evaluations=5, out=out, report=False)
        assert agent.begun is not None and agent.begun == agent.search.simplify(written)
        assert 0 < len(agent.begun) <= most
