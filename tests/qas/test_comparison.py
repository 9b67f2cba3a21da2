"""Comparisons: statistics against closed forms and scipy, and what is made of runs from folders."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from scipy import stats

from qas.circuits import Circuit
from qas.cli import main
from qas.comparison import Comparison, band, gather, interval, paired, wilson
from qas.comparison.figures import _draw, best_front, course_figure, front_figure
from qas.comparison.page import write_page
from qas.comparison.statistics import Band, steps
from qas.comparison.tables import differences, parse_criterion, runs, success, summary
from qas.devices import load_device
from qas.errors import QasError, RunError
from qas.files import write_json
from qas.page import new_figure
from qas.problems import load_problem, problem
from qas.runs import HISTORY_COLUMNS, Recorder, Result


def write_run(folder: Path, name: str = "h2-2", agent: str = "random", seed: int = 0, **changes: Any) -> Path:
    """A finished run of made-up numbers, repeatable: three circuits, the better the more cx they have."""
    rng = np.random.default_rng([seed, *agent.encode()])
    target = changes.pop("target", None) or load_problem(name)
    scale = changes.pop("scale", 1.0)
    config = {
        "agent": agent, "options": {}, "seed": seed, "problem": target.to_json(), "noise": None, "device": None,
        "budget": {"seconds": None, "evaluations": 100, "steps": None}, "max_gates": 8, "gates": ["ry", "cx"],
        "coupling": None, "evaluator": {}, "objective": "noisy", "versions": {},
    } | changes  # fmt: skip
    errors = scale * np.array([0.1, 1e-2, 1e-3]) * rng.uniform(0.5, 2.0, 3)
    front = [
        Result(
            Circuit(target.n_qubits, [("ry", (0,), (float(rng.normal()),))] + [("cx", (0, 1))] * two),
            target.exact + error, error, target.exact + error, error, 10 * two + 1,
        )
        for two, error in enumerate(errors)
    ]  # fmt: skip
    with Recorder(folder) as recorder:
        recorder.create(config)
        for k, result in enumerate(front):
            recorder.row((10 * k + 1, 0.1 * k + 0.05, result.energy, result.error, k + 1, k, 1, result.error))
        recorder.row((100, 1.0, 0.0, 1.0, 3, 2, 1, front[-1].error))
        recorder.flush()
        summary = {"status": "finished", "evaluations": 100, "architectures": 4, "seconds": 1.0}
        recorder.write(front, summary | {"best_error": front[-1].error, "tidying": 0, "remarks": []})
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents on two problems at four seeds, and beside them a run that is damaged and one that has not ended."""
    folder = tmp_path_factory.mktemp("comparison") / "study"
    for name in ("h2-2", "tfim-2"):
        for agent, scale in (("random", 1.0), ("evolution", 0.1)):
            for seed in range(4):
                write_run(folder / "runs" / f"{name}-{agent}-s{seed}", name, agent, seed, scale=scale)
    damaged = write_run(folder / "runs" / "damaged")
    (damaged / "circuits.jsonl").write_text('{"error": 1')
    broken = write_run(folder / "runs" / "history")
    (broken / "history.csv").write_text(",".join(HISTORY_COLUMNS) + "\n1,2,three,4,5,6,7,8\n")
    begun = write_run(folder / "runs" / "begun")
    write_json(begun / "summary.json", json.loads((begun / "summary.json").read_text()) | {"status": "interrupted"})
    write_json(folder / "campaign.json", {"format": "qas-campaign", "version": 1, "study": {}})
    return folder


@pytest.fixture(scope="module")
def comparison(campaign: Path) -> Comparison:
    return gather([campaign])


# ---------------------------------------------------------------------- statistics
def test_intervals_are_those_of_scipy(rng: np.random.Generator) -> None:
    for count in (2, 3, 10, 60):
        values = rng.normal(3.0, 2.0, count)
        low, high = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
        assert interval(values.tolist()) == pytest.approx((high - low) / 2, rel=1e-9)
    assert np.isnan(interval([1.0])) and interval([2.0, 2.0]) == 0.0
    for trials in (1, 2, 7, 50):
        for met in {0, 1, trials // 2, trials}:
            expected = stats.binomtest(met, trials).proportion_ci(0.95, method="wilson")
            assert wilson(met, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0) and wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0
    for wrong in ((3, 2), (-1, 2), (0.5, 2)):
        with pytest.raises(QasError):
            wilson(*wrong)  # type: ignore[arg-type]


def test_bands_are_quartiles_and_know_what_is_missing(rng: np.random.Generator) -> None:
    for seeds in (1, 2, 4, 5, 8):
        values = rng.normal(size=(seeds, 7))
        assert np.allclose(band(values), np.quantile(values, [0.25, 0.5, 0.75], axis=0))
    missing = np.array([[1.0, 1.0, np.inf], [2.0, 2.0, np.inf], [3.0, np.inf, np.inf]])
    low, median, high = band(missing)
    assert low.tolist() == [1.5, 1.5, np.inf] and median.tolist() == [2.0, 2.0, np.inf]
    assert high.tolist() == [2.5, np.inf, np.inf]
    axis = np.array([0.5, 1.0, 2.0, 3.0, 9.0])
    assert steps(np.array([1.0, 3.0]), np.array([5.0, 4.0]), axis).tolist() == [np.inf, 5.0, 5.0, 4.0, 4.0]


def test_pairs_are_those_of_equal_seeds(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=6), rng.normal(size=6)
    found = paired(dict(enumerate(first)), {**dict(enumerate(second)), 9: 1e9})
    test = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None and found.pairs == 6 and found.better == int((first < second).sum())
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((test.low, test.high))
    assert paired({0: 1.0}, {1: 2.0}) is None
    same = paired({0: 1.0}, {0: 1.0})
    assert same is not None and (same.better, same.worse, same.mean) == (0, 0, 0.0) and np.isnan(same.half)
    rounded = paired({0: 2.2e-16, 1: 1e-16, 2: 1e-3}, {0: 4.4e-16, 1: 0.0, 2: 2e-3})
    assert rounded is not None and (rounded.better, rounded.worse) == (1, 0)


# ---------------------------------------------------------------------- what is compared
def test_a_campaign_is_grouped_by_problem_and_damaged_runs_are_named(comparison: Comparison, campaign: Path) -> None:
    assert [group.title for group in comparison.groups] == ["h2-2, no noise", "tfim-2, no noise"]
    assert [[arm.label for arm in group.arms] for group in comparison.groups] == [["evolution", "random"]] * 2
    assert all([run.seed for run in arm.runs] == [0, 1, 2, 3] for g in comparison.groups for arm in g.arms)
    told = "\n".join(comparison.left_out)
    assert len(comparison.left_out) == 3 and "cut short" in told and "not finished (interrupted)" in told
    assert "the history is damaged" in told
    one = campaign / "runs" / "h2-2-random-s0"
    assert len(gather([one, campaign, one]).runs) == 16, "a run given twice is one run"


def test_arms_tell_what_they_differ_in(tmp_path: Path) -> None:
    for k, options in enumerate(({}, {"guided": False}, {"guided": False, "storage": "secret"})):
        for seed in range(2):
            write_run(tmp_path / f"{k}-{seed}", seed=seed, options=options, max_gates=8 if k < 2 else 9)
    noisy = {"name": "zne", "scale": "fold"}
    write_run(tmp_path / "objective", objective=noisy)
    other = problem({"ZZ": 1.0, "XI": 0.3}, name="h2-2")
    write_run(tmp_path / "other", target=other)
    found = gather(sorted(tmp_path.iterdir()))
    assert [group.title for group in found.groups] == [
        "h2-2, no noise [1]", "h2-2, no noise [2]", "h2-2, no noise, objective zne:scale=fold",
    ]  # fmt: skip
    labels = [arm.label for arm in found.groups[0].arms]
    assert labels == [
        "random (guided=false, max_gates=8)",
        "random (guided=false, storage=shared, max_gates=9)",
        "random (max_gates=8)",
    ]


def test_equal_names_of_settings_and_other_orders_of_a_patch_are_no_repetition(tmp_path: Path) -> None:
    for name, tolerance in (("loose", 1e-2), ("tight", 1e-6)):
        write_run(tmp_path / name, options={"tolerance": tolerance}, evaluator={"tolerance": 1e-7})
    for name, physical in (("there", (0, 1)), ("back", (1, 0))):
        device = load_device("fake_lagos").restricted(list(physical))
        write_run(tmp_path / name, device=device.to_json(), noise=device.noise().to_json())
    found = gather(sorted(tmp_path.iterdir()))
    assert not found.left_out and len(found.runs) == 4
    labels = [arm.label for group in found.groups for arm in group.arms]
    assert {"random (tolerance=0.01)", "random (tolerance=1e-06)"} < set(labels)


def test_searches_that_failed_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "good")
    begun = write_run(tmp_path / "runs" / "begun")
    write_json(begun / "summary.json", json.loads((begun / "summary.json").read_text()) | {"status": "running"})
    write_json(tmp_path / "campaign.json", {"format": "qas-campaign", "version": 1, "study": {}})
    (tmp_path / "failed").mkdir()
    for name in ("good", "begun", "never"):
        (tmp_path / "failed" / f"{name}.txt").write_text("Traceback\n  line\nValueError: why\n")
    found = gather([tmp_path])
    assert [run.path.name for run in found.runs] == ["good"]
    where = tmp_path / "runs"
    assert sorted(found.left_out) == [f"{where / name}: failed (ValueError: why)" for name in ("begun", "never")]


def test_what_cannot_be_compared_is_refused(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none").mkdir()
    write_json(tmp_path / "none" / "campaign.json", {})
    with pytest.raises(RunError, match="a report is of run folders and campaigns, got"):
        gather([campaign, tmp_path / "empty"])
    with pytest.raises(RunError, match="needs a finished run, got none$"):
        gather([tmp_path / "none"])
    with pytest.raises(RunError, match=r"got none: .*begun: not finished \(interrupted\)"):
        gather([campaign / "runs" / "begun"])
    run = str(campaign / "runs" / "h2-2-random-s0")
    for words, told in (
        ([str(tmp_path / "missing")], "a report is of run folders"),
        ([run, "--out", str(tmp_path / "page.pdf")], "a report is a page, .html or .md, got 'page.pdf'"),
        ([run, "--out", f"{run}/report.html"], "is its own page"),
        ([run, "--criterion", "error=3"], "a criterion looks like"),
        ([run, "--error", "0"], "a positive number is needed"),
        ([run, "--out", str(tmp_path / "no" / "page.html")], "cannot write"),
    ):
        assert main(["report", *words]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


# ---------------------------------------------------------------------- tables and figures
def test_tables_say_what_the_runs_say(comparison: Comparison) -> None:
    group = comparison.groups[0]
    arm = group.arms[1]
    errors = [run.best.error for run in arm.runs]
    row = [cell.value for cell in summary(group).rows[1]]
    assert row[1:5] == [4, np.median(errors), min(errors), max(errors)]
    assert summary(group).rows[1][3].source is arm.runs[int(np.argmin(errors))]
    product = group.problem.product_state  # type: ignore[attr-defined]
    shares = [(product - run.best.energy) / (product - group.problem.exact) for run in arm.runs]
    assert row[-1] == pytest.approx(np.mean(shares))

    bound = float(np.median(errors))
    wanted = [parse_criterion(f"error<={bound!r}"), parse_criterion("error < 1, cx<=0, gates <=1")]
    one, small = success(group, wanted).rows[2:]
    assert one[2].text == "2/4" and one[2].value == 0.5 and one[3].value == wilson(2, 4)[0]
    assert small[2].text == "4/4" and small[4].text == ""
    met = [21.0, 21.0, np.inf, np.inf]
    assert one[4].value == np.median(met) and one[4].text == "−"
    assert success(group, [parse_criterion("error<1")]).rows[1][4].value == 1.0

    (difference,) = differences(group).rows
    gaps = [a.best.error - b.best.error for a, b in zip(*(arm.runs for arm in group.arms), strict=True)]
    assert difference[3].value == pytest.approx(np.mean(gaps)) and difference[5].text == "4 / 0"
    ratios = [np.log10(a.best.error / b.best.error) for a, b in zip(*(arm.runs for arm in group.arms), strict=True)]
    assert difference[4].value == pytest.approx(np.mean(ratios))
    assert len(runs(group).rows) == 8


def test_of_many_arms_each_is_compared_with_the_best(comparison: Comparison) -> None:
    group = comparison.groups[0]
    many = replace(group, arms=(group.arms[1],) * 8 + (group.arms[0],))
    assert [row[0].text for row in differences(many).rows] == ["evolution"] * 8
    assert len(differences(replace(group, arms=group.arms * 4)).rows) == 28


def test_bands_of_figures_are_those_of_the_fronts(comparison: Comparison) -> None:
    group = comparison.groups[0]
    figure = front_figure(group)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    fronts = np.array([[r.error for r in run.front] for run in group.arms[0].runs])
    assert np.allclose(lines[0].get_ydata(), np.median(fronts, axis=0))
    assert [f.result.error for f in best_front(group.arms[0])] == fronts.min(axis=0).tolist()
    for field, last in (("evaluations", 100.0), ("seconds", 1.0)):
        course = course_figure(group, field).axes[0].lines[0]
        assert course.get_xdata()[-1] == last and np.isclose(course.get_ydata()[-1], np.median(fronts[:, -1]))


def test_a_quartile_that_some_seeds_have_not_reached_goes_up_to_the_top(comparison: Comparison) -> None:
    figure, arm = new_figure(None), comparison.groups[0].arms[0]
    _, axes = figure
    found = Band(np.array([0.1, 0.01]), np.array([0.2, 0.02]), np.array([np.inf, 0.03]))
    drawn = _draw(axes, np.array([0, 1]), found, arm, 0)
    assert sorted(drawn) == [0.01, 0.02, 0.03, 0.1, 0.2], "what is drawn beyond it does not stretch the picture"
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert {0.1, 0.01, 0.03} < set(heights) and heights.max() > 1e20 and 0.2 not in heights


# ---------------------------------------------------------------------- the page and its command
@pytest.mark.filterwarnings("always:left out")
def test_the_command_writes_page_csv_json_and_markdown(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", str(campaign), "--csv", str(tmp_path / "runs.csv"), "--json", "--error", "0.005"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err.count("warning: left out") == 3 and len(found["runs"]) == 16 and len(found["left_out"]) == 3
    assert found["groups"][0]["tables"]["Successes"][0]["criterion"] == "error <= 0.005 Ha"
    with (tmp_path / "runs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["error"]) for row in rows] == [row["error"] for row in found["runs"]]
    text = (campaign / "report.html").read_text()
    assert found["page"] == str(campaign / "report.html") and len(text) < 400_000
    links = re.findall(r"<a [^>]*href=[\"']([^\"'#][^\"']*)", text)
    assert links and all((campaign / unquote(link)).exists() for link in links)
    anchors = re.findall(r"href='#([^']*)'", text)
    assert anchors and all(f"id='{anchor}'" in text for anchor in anchors)
    ids = re.findall(r"\bid=[\"']([^\"']+)", text)
    assert len(ids) == len(set(ids))
    held = json.loads(re.search(r"id='circuits'>(.*?)</script>", text, flags=re.S)[1])  # type: ignore[index]
    assert {int(k) for k in re.findall(r"data-c=[\"'](\d+)", text)} == set(range(len(held)))
    assert not re.search(r"(src|href)=[\"'](https?:)?//|@import|<link|<img", text), "works without a network"

    assert main([*words[:2], "--out", str(tmp_path / "table.md"), "--criterion", "error<1, cx<=1"]) == 0
    assert "| evolution | error\\<1, cx\\<=1 | 4/4 |" in (tmp_path / "table.md").read_text()


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    odd = problem({"ZZ": 1.0, "XI": 0.3}, name="odd", unit="$\\hbar\\omega$<u>", description="<img src=x onerror=1>")
    folder = write_run(tmp_path / "a'<b> #?%", target=odd, agent="<b>\"&'$x_$", options={"o": "</script>"})
    write_run(tmp_path / "second", target=odd, agent="<b>\"&'$x_$", options={"o": "<!--"})
    found = gather([folder, tmp_path / "second"])
    write_page(replace(found, left_out=("<i>x</i>: damaged",)), tmp_path / "page.html", "<title>")
    text = (tmp_path / "page.html").read_text()
    for tag in ("<b>", "<img", "<i>", "<u>", "<!--"):
        assert tag not in text
    assert text.count("<script") == text.count("</script>") == 2 and text.count("<title>") == 1
    assert f"href='{folder.name}" not in text and "a%27%3Cb%3E%20%23%3F%25/" in text


def test_a_seed_of_a_search_counts_once(tmp_path: Path) -> None:
    """Two folders of one deterministic search are no two samples."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_run(tmp_path / name, seed=seed)
    found = gather([tmp_path / name for name in "abca"])
    assert [run.path.name for run in found.runs] == ["a", "c"]
    assert found.left_out == (f"{tmp_path / 'b'}: the same search as {tmp_path / 'a'}, seed 1 included",)
