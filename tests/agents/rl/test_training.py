"""Imitation of a teacher, playing, and the command that does both."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qas.agents.base import Search
from qas.agents.rl import training
from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.imitation import Lessons, _taken, distribution, fit, taught_episode, worths
from qas.agents.rl.improving import improve
from qas.agents.rl.policy import TrainedPolicy, load_policy, untrained
from qas.agents.rl.resuming import Kept
from qas.agents.rl.starts import Starts
from qas.agents.rl.training import leave_out, train_policy
from qas.cli import main
from qas.envs.candidates import FEATURES
from qas.envs.editor import CircuitEditorEnv
from qas.envs.families import FAMILIES, Family, Instance
from qas.errors import MissingExtraError, QasError, RunError
from qas.files import hold, load_checkpoint, save_checkpoint
from qas.simulators.interrupt import first_signal_asks
from qas.testing.agents import call_at

SMALL = {"width": 16, "heads": 2, "layers": 1}
TINY = Family("tiny", "two small problems", (Instance("h2-2"), Instance("tfim-2")), (Instance("heisenberg-2"),))


def environment() -> CircuitEditorEnv:
    return CircuitEditorEnv(family=TINY, candidates=16, max_edits=6, evaluations_each=4)


def test_the_teacher_knows_where_every_edit_leads_and_changes_nothing() -> None:
    env = environment()
    _, info = env.reset(seed=0)
    before = env.get_state()
    values = worths(env)
    assert env.get_state() == before
    assert (np.isfinite(values) == info["action_mask"]).all()
    for row in np.argsort(-values)[:3]:
        edit = env.table.edits[row]
        if edit is None or edit.kind == "stop":
            continue
        after, spent = env.foreseen(int(row))
        _, _, _, _, told = env.step(int(row))
        assert (told["circuit"], told["energy"]) == (after.circuit, after.energy) and spent > 0
        env.set_state(before)


def test_a_policy_learns_what_the_teacher_chose() -> None:
    env, rng, lessons = environment(), np.random.default_rng(0), Lessons()
    for _ in range(6):
        taught_episode(env, None, rng, lessons)
    assert len(lessons.candidates) == len(lessons.wish) == len(lessons) > 6
    policy = untrained().policy
    policy.standardize(np.stack(lessons.candidates), np.stack(lessons.general))
    first = fit(policy, lessons, epochs=1, rng=rng, learning_rate=1e-6)
    last = fit(policy, lessons, epochs=100, rng=rng, learning_rate=3e-3)
    assert last < 0.3 * first, (first, last)


def test_values_have_a_temperature_of_powers_of_ten() -> None:
    found = distribution(np.array([0.1, 0.1, 0.0, -np.inf]))
    assert found.sum() == pytest.approx(1) and found[0] == found[1] > 20 * found[2] > 0 == found[3]


def test_an_edit_is_worth_what_it_wins_less_its_gates() -> None:
    env = environment()
    env.reset(seed=0, options={"instance": "tfim-2"})
    values, promised = worths(env), closed_form_scores(env.table.features)
    seen = 0
    for row, edit in enumerate(env.table.edits):
        if edit is None or edit.kind in ("stop", "undo"):
            continue
        after, spent = env.foreseen(row)
        floor = env.gap * 1e-4
        errors = [max(env.problem.error(energy), floor) for energy in (env.energy, after.energy)]
        gates = after.circuit.two_qubit_gates - env.circuit.two_qubit_gates
        worth = np.log10(errors[0] / errors[1]) - 0.005 * gates
        rate = (env.table.evaluations + 4) / (env.table.evaluations + spent) if worth > 0 else 1.0
        promise = 3e-3 * (promised[row] - np.log(1e-9))
        assert values[row] == pytest.approx(worth * min(rate, 1.5) + promise, abs=1e-9)
        seen += gates > 0
    assert seen, "an edit with two-qubit gates is among them"


def test_returns_are_discounted_and_most_steps_are_the_students(monkeypatch: pytest.MonkeyPatch) -> None:
    env, rng, lessons = environment(), np.random.default_rng(0), Lessons()
    rewards: list[float] = []
    step = env.step

    def noted(action: int) -> Any:
        result = step(action)
        rewards.append(result[1])
        return result

    monkeypatch.setattr(env, "step", noted)
    taught_episode(env, None, rng, lessons)
    for k, reward in enumerate(rewards):
        assert lessons.returns[k] == pytest.approx(reward + 0.97 * (*lessons.returns, 0.0)[k + 1])
    assert len(rewards) == len(lessons) and max(rewards) > 0
    mask, wish = np.array([True, True, True, False]), np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)

    class Student:
        def scores(self, observation: Any) -> np.ndarray:
            return np.array([0.0, 50.0, 0.0, 99.0])

    drawn = np.bincount([_taken(Student(), {}, mask, wish, rng) for _ in range(3000)], minlength=4) / 3000  # type: ignore[arg-type]
    assert drawn == pytest.approx([0.9 * 0.3 + 0.1 / 3, 0.9 * 0.7 + 0.1 / 3, 0.1 / 3, 0.0], abs=0.03)


def test_edits_that_are_none_are_not_learned_from() -> None:
    policy, lessons = untrained(**SMALL).policy, Lessons()
    with torch.no_grad():
        policy.score.weight.zero_()
    features, general = policy.sizes["n_features"], policy.sizes["n_general"]
    lessons.candidates.append(np.ones((8, features), np.float32).ravel())
    lessons.general.append(np.ones(general, np.float32))
    lessons.mask.append(np.arange(8) < 2)
    lessons.wish.append(np.eye(8, dtype=np.float32)[0])
    lessons.returns.append(0.0)
    assert fit(policy, lessons, epochs=1, rng=np.random.default_rng(0)) == pytest.approx(np.log(2), abs=1e-6)


def test_playing_is_kept_only_where_it_does_better(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = training._Budget(60.0, None)
    stages = training._Stages(TINY, training.untrained(**SMALL), budget, 0, lambda *_: None, Kept(None))

    def played(policy: Any, *_: Any, **__: Any) -> int:
        with torch.no_grad():
            policy.score.bias.add_(1.0)
        return 7

    monkeypatch.setattr(training, "improve", played)
    stages.trained.settings = {}
    for area, moved in ((0.4, 0.0), (0.5, 0.0), (0.6, 1.0)):
        before = stages.policy.score.bias.item()
        monkeypatch.setattr(stages, "_judged", lambda policy, a=area: a)
        stages.areas = {"imitation": 0.5}
        stages._play()
        assert stages.found["edits played"] == 7
        assert stages.policy.score.bias.item() - before == pytest.approx(moved)


def test_playing_changes_the_policy_and_no_global_generator() -> None:
    policy = untrained(**SMALL).policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    state = torch.get_rng_state()
    told: list[int] = []
    steps = 0

    def may_go_on() -> bool:
        nonlocal steps
        steps += 1
        return steps <= 260

    assert improve(policy, environment(), seed=0, may_go_on=may_go_on, told=lambda n, _: told.append(n)) >= 256
    assert torch.equal(torch.get_rng_state(), state) and told[0] == 0
    after = policy.state_dict()
    assert not torch.equal(after["score.weight"], before["score.weight"])
    assert not torch.equal(after["rows.weight"], before["rows.weight"])


def test_a_family_without_one_of_its_instances() -> None:
    family = leave_out(TINY, "tfim-2")
    assert [each.name for each in family.train] == ["h2-2", "heisenberg-2"]
    assert [each.name for each in family.test] == ["tfim-2"]
    with pytest.raises(QasError, match="unknown instance of family tiny"):
        leave_out(TINY, "lih-4")


def test_nothing_of_a_device_that_is_left_out_is_trained_on() -> None:
    here = [Instance(problem, device) for problem in ("h2-2", "tfim-2") for device in ("fake_fez", "fake_torino")]
    family = leave_out(Family("devices", "two on each", tuple(here)), "fake_fez")
    assert [each.name for each in family.train] == ["h2-2@fake_torino", "tfim-2@fake_torino"]
    assert [each.name for each in family.test] == ["h2-2@fake_fez", "tfim-2@fake_fez"]


def test_nothing_that_is_left_out_is_drawn() -> None:
    every = (Instance("h2-2"), Instance("tfim-2"))
    drawing = Family("drawing", "draws", every, drawn=lambda rng: every[int(rng.integers(2))])
    rng, left = np.random.default_rng(0), leave_out(drawing, "tfim-2")
    assert {drawing.draw(rng).name for _ in range(40)} == {"h2-2", "tfim-2"}
    assert {left.draw(rng).name for _ in range(40)} == {"h2-2"}
    with pytest.raises(QasError, match="draws what it is tested on"):
        replace(left, drawn=lambda rng: every[1]).draw(rng)
    with pytest.raises(QasError, match="names of their own"):
        Family("twice", "one name", (Instance("h2-2", "fake_fez", "zne"), Instance("h2-2", "fake_fez", "noisy")))


@pytest.mark.usefixtures("short")
def test_training_is_repeatable_up_to_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"seconds": 1e-3, "seed": 3, "imitation_only": True, "sizes": SMALL}
    runs = [train_policy(TINY, **settings)]
    monkeypatch.setattr("qas.agents.rl.starts._searched", None)  # known circuits are not searched for
    runs.append(train_policy(TINY, starts=Starts.from_json(runs[0].starts), **settings))
    assert runs[0].starts == runs[1].starts
    with pytest.raises(QasError, match="those of other problems"):
        train_policy(leave_out(TINY, "tfim-2"), starts=Starts.from_json(runs[0].starts[::-1]), **settings)
    for name, value in runs[0].policy.state_dict().items():
        assert torch.equal(value, runs[1].policy.state_dict()[name])
    assert runs[0].training["stages"] == ["imitation"] and set(runs[0].training["areas"]) >= {"imitation"}
    assert len(runs[0].starts) == 2
    policy, column = runs[0].policy, FEATURES.index("log_gain_per_gate")
    assert policy.direct.weight[0, column].item() == pytest.approx(10.0, abs=0.5), "it began as the closed form"
    assert policy.get_buffer("rows_scale")[column] != 1.0 and policy.get_buffer("general_mean").abs().max() > 0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of seconds, and whatever is complete is written."""
    for name, value in (("STARTS_EVALUATIONS", 300), ("BEFORE_FIT", 2), ("EPOCHS", 2), ("JUDGED", 2), ("EDITS", 8)):
        monkeypatch.setattr(training, f"_{name}", value)
    monkeypatch.setattr("qas.agents.rl.improving.ROLLOUT", 64)
    monkeypatch.setattr(Search, "checkpoint_every", -1.0)
    monkeypatch.setattr("qas.agents.rl.resuming._SHARE", 1e9)


def outcome(trained: TrainedPolicy) -> Any:
    told = {name: value for name, value in trained.training.items() if name != "seconds"}
    return told, trained.starts, {name: value.tolist() for name, value in trained.policy.state_dict().items()}


@pytest.mark.parametrize("steps", [1, 9])
def test_a_budget_in_edits_is_kept_within_an_episode(steps: int) -> None:
    found = train_policy(TINY, steps=steps, sizes=SMALL, imitation_only=True)
    assert found.training["states"] == steps


@pytest.mark.usefixtures("short")
def test_a_training_that_is_killed_and_interrupted_again_and_again_ends_as_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted: list[str] = []

    def told(what: str, spent: float, whole: float) -> None:
        for at in ("imitation: 9 ", "playing: 64 "):
            if what.startswith(at) and at not in interrupted:
                interrupted.append(at)
                signal.raise_signal(signal.SIGINT)

    def train(folder: str, **settings: Any) -> TrainedPolicy:
        return train_policy(TINY, steps=200, seed=2, sizes=SMALL, folder=tmp_path / folder, **settings)

    class Killed(BaseException):
        pass

    keep = Kept.keep
    kinds: list[tuple[str, int]] = []

    def kept(self: Kept, state: Any, arrays: Any) -> None:
        keep(self, state, arrays)
        kind = "playing" if "playing" in state else "imitation" if state["areas"] else "starts"
        kinds.append((kind, state["edits"]))
        if len(kinds) % 7 == 1 or (kind == "playing" and kinds.count(kinds[-1]) == 1):
            raise Killed

    whole = train("whole")
    assert not whole.training["interrupted"]
    monkeypatch.setattr(Kept, "keep", kept)
    lives, last = 0, None
    while last is None or last.training["interrupted"]:
        lives += 1
        with contextlib.suppress(Killed):
            last = train("killed", on_progress=told)
            assert last.training["stages"][:1] == ["imitation"], "what there is can be used"
    assert lives > 6 and len(interrupted) == 2 and {"starts", "imitation"} < {kind for kind, _ in kinds}
    assert len({edits for kind, edits in kinds if kind == "playing"}) == 2, "rollouts"
    assert outcome(last) == outcome(whole)
    assert outcome(train("killed")) == outcome(whole), "it has ended"


@pytest.mark.usefixtures("short")
def test_a_policy_is_trained_and_asked_with_so_many_rows_and_blind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES._things, "tiny", TINY)
    rows: list[tuple[int, Any]] = []
    reset = CircuitEditorEnv.reset

    def noted(self: CircuitEditorEnv, **given: Any) -> Any:
        observation, info = reset(self, **given)
        rows.append((self.candidates, observation))
        return observation, info

    monkeypatch.setattr(CircuitEditorEnv, "reset", noted)
    path = str(tmp_path / "p.safetensors")
    call = ["policy", "train", "tiny", "--steps", "30", "--quiet", "--out", path, "--candidates", "16"]
    assert main([*call, "--without", "log_gain_per_gate", "gain"]) == 0
    assert "gain, log_gain_per_gate" in capsys.readouterr().out
    trained = load_policy(path)
    assert trained.training["edits played"] > 0 and trained.settings["candidates"] == 16
    search = ["search", "heisenberg-2", "--agent", "editor", "--evaluations", "9", "--no-report", "--quiet"]
    assert main([*search, "-o", f"policy={path}", "--out", str(tmp_path / "run")]) == 0
    assert {count for count, _ in rows} == {16} and len(rows) > 4
    for _, observation in rows:
        table = observation["candidates"].reshape(16, -1).copy()
        columns = [FEATURES.index(name) for name in ("gain", "log_gain_per_gate")]
        table[np.ix_(table.any(axis=1), columns)] = 0.7  # rows of zeros are none
        scores = trained.policy.scores(observation)
        assert np.array_equal(scores, trained.policy.scores({**observation, "candidates": table.ravel()}))
    for words, said in (
        (["--without", "gain"], "with features left out ['log_gain_per_gate'], got []"),
        (["--without", "gian"], "unknown feature 'gian'"),
        (["--without", "log_gain_per_gate", "gain", "--candidates", "9"], "with environment {"),
        (["--candidates", "7"], "candidates"),
    ):
        capsys.readouterr()
        assert main([*call, *words]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, told


@pytest.mark.usefixtures("short")
def test_seconds_that_have_passed_count_and_another_training_is_refused(tmp_path: Path) -> None:
    def train(**settings: Any) -> TrainedPolicy:
        return train_policy(TINY, **{"seconds": 1e6, "seed": 4, "sizes": SMALL, "folder": tmp_path / "run"} | settings)

    def told(what: str, spent: float, whole: float) -> None:
        if what.startswith("imitation: 3 "):
            signal.raise_signal(signal.SIGINT)

    def state() -> Path:
        folder = tmp_path / "run" / "checkpoint"
        return folder / (folder / "CURRENT").read_text() / "state.json"

    assert train(on_progress=told).training["interrupted"]
    checkpoint = tmp_path / "run" / "checkpoint"
    whole, arrays = load_checkpoint(checkpoint) or ({}, {})
    for stated, held in (
        ({"stages": ["imitation"]}, {}),
        ({"areas": {"imitation": 0.5}}, {}),
        ({}, {"lessons.returns": arrays["lessons.returns"][1:]}),
        ({}, {"lessons.general": arrays["lessons.general"][:, 1:]}),
    ):
        save_checkpoint(checkpoint, whole | stated, arrays | held)
        with pytest.raises(RunError, match="the state of the training is damaged"):
            train()
    save_checkpoint(checkpoint, whole, arrays)
    state().write_text(json.dumps(json.loads(state().read_text()) | {"passed": 2e6}))
    ended = train()
    assert ended.training["seconds"] >= 2e6 and ended.training["stages"] == ["imitation"]
    for settings, words in (
        ({"seed": 5}, "with seed 4, got 5"),
        ({"seconds": None, "steps": 9}, "with seconds 1000000.0, got None"),
        ({"imitation_only": True}, "with imitation only False, got True"),
        ({"sizes": SMALL | {"layers": 0}}, "with network {"),
    ):
        with pytest.raises(RunError, match=words) as refused:
            train(**settings)
        assert "\n" not in str(refused.value)
    with pytest.raises(RunError, match="with instances \\['tfim-2'\\], got \\['heisenberg-2'\\]"):
        train_policy(leave_out(TINY, "tfim-2"), seconds=1e6, seed=4, sizes=SMALL, folder=tmp_path / "run")
    with hold(tmp_path / "run", "the training"), pytest.raises(RunError, match="the training is being written by"):
        train()
    state().write_text(state().read_text().replace("passed", "spent"))
    with pytest.raises(RunError, match="the state of the training lacks passed"):
        train()


@pytest.mark.usefixtures("short")
def test_tensorboard_is_told_of_all_stages_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train(at: str = "never") -> TrainedPolicy:
        def told(what: str, spent: float, whole: float) -> None:
            if what.startswith(at):
                signal.raise_signal(signal.SIGINT)

        return train_policy(
            TINY, steps=200, seed=3, sizes=SMALL, folder=tmp_path / "run", tensorboard=True, on_progress=told
        )

    train("imitation: 9 ")
    train("playing: 64 ")
    trained = train()
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]}
    assert {"imitation/loss", "imitation/agreement", "train/loss", "train/approx_kl", "rollout/ep_rew_mean"} < set(
        found
    )
    areas, states = trained.training["areas"], trained.training["states"]
    assert [(each.step, round(each.value, 4)) for each in found["front/policy"]] == [
        (0, areas["random weights"]), (states, areas["imitation"]), (200, areas["playing"])
    ]  # fmt: skip
    assert found["front/closed_form"][0].value == pytest.approx(areas["closed form"], abs=1e-4)
    for tag in ("imitation/agreement", "train/loss"):
        steps = [each.step for each in found[tag]]
        assert steps == sorted(set(steps)) and steps[-1] <= 200, tag
    assert all(0 <= each.value <= 1 for each in found["imitation/agreement"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tensorboard\]"):
        train()


@pytest.mark.usefixtures("short")
def test_the_command_trains_shows_and_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES._things, "tiny", TINY)
    path = tmp_path / "tiny.safetensors"
    call = ["policy", "train", "tiny", "--seconds", "0.1", "--imitation-only", "--quiet", "--json", "--out", str(path)]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "tiny"
    assert main(["policy", "show", str(path)]) == 0
    assert "2 training problems" in capsys.readouterr().out
    before = load_policy(path)
    assert main([word for word in call if word != "--quiet"]) == 0
    assert "had ended before, and nothing is left to do" in capsys.readouterr().err
    assert (load_policy(path).digest, load_policy(path).training) == (before.digest, before.training)
    assert main([*call, "--seed", "1"]) == 2
    assert "tiny.training holds a training with seed 0, got 1; give another file" in capsys.readouterr().err
    (tmp_path / "other.safetensors").write_bytes(path.read_bytes())
    assert main([*call[:-1], str(tmp_path / "other.safetensors")]) == 2
    assert "--out is a new file" in capsys.readouterr().err
    assert main(["policy", "train", "tinny", "--out", "x.safetensors"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err
    out = str(tmp_path / "run")
    search = ["search", "heisenberg-2", "--agent", "editor", "--evaluations", "30", "--no-report", "--quiet"]
    assert main([*search, "-o", f"policy={path}", "-o", "start=predicted", "--out", out]) == 0
    assert load_policy(path).family == "tiny"


def test_a_start_from_a_policy_needs_one() -> None:
    from qas.agents.rl.editor import EditorAgent

    with pytest.raises(QasError, match="takes a circuit from a policy's training"):
        EditorAgent(start="nearest")


def test_one_ctrl_c_ends_the_training_in_its_first_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search hears it and ends in order, and so does what it is a part of."""
    call_at(10, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    told: list[str] = []
    found = train_policy(TINY, seconds=600, sizes=SMALL, on_progress=lambda what, passed, whole: told.append(what))
    assert found.training["interrupted"] and found.training["stages"] == [] and len(found.starts) == 1
    assert len(told) == 1, "nothing was begun after it"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_breaks_off_whichever_block_heard_the_first() -> None:
    for first_inside in (True, False):
        asked: list[str] = []
        with pytest.raises(KeyboardInterrupt), first_signal_asks(lambda told=asked: told.append("outer")):
            if not first_inside:
                signal.raise_signal(signal.SIGINT)
            with first_signal_asks(lambda told=asked: told.append("inner")):
                signal.raise_signal(signal.SIGINT)
                assert first_inside and asked == ["inner", "outer"]
            signal.raise_signal(signal.SIGINT)
        assert asked == (["inner", "outer"] if first_inside else ["outer", "inner"])
