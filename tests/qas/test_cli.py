"""The command line: what it prints and leaves on disk; one line and exit code 2 for input that does not fit."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import qas
from qas.agents import AGENTS
from qas.cli import main
from qas.cli.progress import Watch, bar, sparkline, watched
from qas.cli.show import clock
from qas.record import Progress
from qas.registry import options_of
from qas.runs import VERSION, Run, load_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cli") / "run"
    return qas.search("h2-2", agent="evolution", noise="ibm-mumbai", steps=30, out=folder)


@pytest.fixture(scope="module")
def resumable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted, with a checkpoint that holds arrays."""
    folder = tmp_path_factory.mktemp("cli") / "interrupted"

    def stop(progress: Progress) -> None:
        if progress.architectures >= 12:
            signal.raise_signal(signal.SIGINT)

    limits = {"evaluations": 100_000, "max_gates": 6}
    found = qas.search("h2-2", agent="ddqn", **limits, out=folder, report=False, on_progress=stop)
    assert found.status == "interrupted"
    return folder


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _fails(capsys: Capture, *words: str) -> str:
    """The error line of a command that must fail as input does."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qas: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err
    return err


# ---------------------------------------------------------------------- start
HEAVY = {"torch", "qiskit", "numba", "matplotlib", "rich"}
LIGHT = ("--version", "--help", "problems", "noise", "search --help", "completion bash --words search --agent e")
WRONG_WORDS = (
    "serch", "search lih4", "search lih-4 --agent evolutoin", "search lih-4 --agnet ddqn", "search no.json",
    "search lih-4 --noise ibm-x", "search lih-4 --engine stat", "search lih-4 --optimizer lbfgs", "inspect nowhere",
    "search lih-4 --gates rx,cxx", "search --resume nowhere",
    "evaluate no.qasm", "evaluate nowhere", "pool show nowhere", "pool build --qubits 2", "finetune --task nothing",
    "finetune --task digits --method lara", "encoder train p --out o --model gvea", "backbone list --jsn",
)  # fmt: skip
"""Told before anything heavy is imported: what takes a second or two would make a typing error wait for it."""


def test_light_commands_and_wrong_words_import_nothing_heavy() -> None:
    """One after the other in one process; `import qas` alone does not even import NumPy."""
    code = (
        f"import qas, sys\nheavy = {HEAVY!r}\nassert not (heavy | {{'numpy'}}) & set(sys.modules)\n"
        f"from qas.cli import main\nfor words in {LIGHT + WRONG_WORDS!r}:\n"
        f"    assert main(words.split()) == (0 if words in {LIGHT!r} else 2), words\n"
        "    assert not heavy & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_console_script() -> None:
    words = [sys.executable, "-m", "qas", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"qas {qas.__version__}\n"


def test_output_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "qas", "problems"]
    try:
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writer)
    assert done.returncode == 141 and done.stderr == ""


def test_help_and_lists(capsys: Capture) -> None:
    assert main([]) == 0
    commands = re.findall(r"^    (\w+)", capsys.readouterr().out, flags=re.M)
    assert {"problems", "agents", "search", "inspect", "evaluate", "pool", "finetune", "completion"} <= set(commands)
    for command in commands:
        assert main([command, "--help"]) == 0
        assert f"qas {command}" in capsys.readouterr().out
    for command, known in (("problems", qas.list_problems()), ("noise", qas.list_noise())):
        assert main([command]) == 0
        assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == list(known)
        assert main([command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == known


def test_what_is_known_of_a_problem(capsys: Capture) -> None:
    assert main(["problems", "h4-8-tapered"]) == 0
    text = capsys.readouterr().out
    for words in ("5 qubits, 132 Pauli terms", "0.0678", "solves it: 11", "not trivial", "2 alpha", "tapered: Z"):
        assert words in text
    assert main(["problems", "ch2-8", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["trivial"] is True and known["determinant"] == "01110111" and known["electrons"]["orbitals"] == 4
    assert main(["problems", "state-2-0"]) == 0 and "tapered" not in capsys.readouterr().out
    assert main(["problems", "adapter-4"]) == 0 and "qubits" in capsys.readouterr().out
    assert main(["problems", "lih-13"]) == 2 and "did you mean" in capsys.readouterr().err


def test_agents_with_their_settings(capsys: Capture) -> None:
    assert main(["agents"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert main(["agents", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: agent["about"] for name, agent in told.items()} == qas.list_agents()
    for name, agent in told.items():
        assert list(agent["options"]) == list(options_of(AGENTS[name])) and agent["about"] in text
        assert all(f"{key}=" in text for key in agent["options"])
    assert told["ddqn"]["options"]["n_step"] == 5 and "hidden=[128, 128]" in text


def test_completion(capsys: Capture) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "qas completion" in capsys.readouterr().out
    for words, offered in (
        (["se"], ["search"]),
        (["search", "beh2-6"], ["beh2-6", "beh2-6-bohr", "beh2-6-curve-LENGTH"]),
        (["search", "lih-4", "--no"], ["--no-report", "--noise"]),
        (["search", "lih-4", "--agent", "e"], ["editor", "evolution"]),
        (["search", "--seconds", ""], []),
        (["encoder", ""], ["list", "train"]),
        (["evaluate", "run", "--bac"], ["--backend"]),
    ):
        assert main(["completion", "bash", "--words", *words]) == 0
        assert capsys.readouterr().out.split() == offered, words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash(tmp_path: Path) -> None:
    (tmp_path / "qas").write_text(f'#!/bin/sh\nexec {sys.executable} -m qas "$@"\n')
    (tmp_path / "qas").chmod(0o755)
    script = 'eval "$(qas completion bash)"; COMP_WORDS=(qas search lih-4 --agent evo); COMP_CWORD=4; _qas; '
    script += 'echo "${COMPREPLY[@]}"'
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.stdout == "evolution\n" and done.stderr == ""


# ---------------------------------------------------------------------- search
def test_search(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["search", "h2-2", "--agent", "evolution", "--noise", "ibm-mumbai", "--steps", "20", "--seed", "3"]
    assert main([*words, "--max-gates", "9", "-o", "population=2", "--out", str(folder), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = qas.load_run(folder)
    assert found.architectures == 20 and found.seed == 3
    assert found.config["options"] == {"population": 2} and found.config["max_gates"] == 9
    shown = (str(folder), "report.html", "exact", "noisy", "noise-free", "product state", "front", "--resume", "q0")
    for text in (*shown, *found.remarks):
        assert text in out
    assert f"{found.best.energy:.8f}" in out and f"{found.problem.exact:.8f}" in out


def test_search_settings(capsys: Capture, tmp_path: Path) -> None:
    words = ["search", "h2-3", "--agent", "random", "--evaluations", "200", "--gates", "rx,ry,cz"]
    words += ["--coupling", "0-1,1-2", "--optimizer", "rotosolve", "--evaluator", "max_evaluations=30"]
    words += ["--engine", "statevector", "--no-report"]
    assert main([*words, "--out", str(tmp_path / "run"), "--json", "--quiet"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["evaluations"] == 200
    assert data["best"]["error"] == min(r["error"] for r in data["front"])
    found = qas.load_run(data["path"])
    assert found.config["evaluator"] == {"max_evaluations": 30, "engine": "statevector", "optimizer": "rotosolve"}
    assert not (found.path / "report.html").exists()
    for result in found.front:
        assert set(result.counts) <= {"rx", "ry", "cz"}
        assert all(sorted(g.qubits) in ([0, 1], [1, 2]) for g in result.circuit if len(g.qubits) == 2)


def test_search_with_shots(capsys: Capture, tmp_path: Path) -> None:
    words = ["search", "h2-2", "--agent", "random", "--steps", "3", "--shots", "100", "--optimizer", "cobyla"]
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet", "--no-report"]) == 0
    assert "as measured" in capsys.readouterr().out


def test_problems_and_noise_in_files(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python can build, the command line can read."""
    monkeypatch.chdir(tmp_path)
    Path("terms.json").write_text(json.dumps({"ZZ": 1.0, "XI": 0.5}))
    Path("problem.json").write_text(json.dumps(qas.maxcut(nx.cycle_graph(3), name="triangle").to_json()))
    Path("model.json").write_text(json.dumps(qas.NoiseModel.depolarizing(1e-3, 1e-2).to_json()))
    few = ["--agent", "random", "--steps", "2", "--quiet", "--json", "--no-report"]
    for words, name, qubits in (
        (["terms.json"], "terms", 2),
        (["--hamiltonian", "terms.json"], "terms", 2),
        (["problem.json", "--noise", "model.json"], "triangle", 3),
    ):
        assert main(["search", *words, *few, "--out", f"run{len(os.listdir())}"]) == 0
        found = load_run(json.loads(capsys.readouterr().out)["path"])
        assert (found.problem.name, found.problem.n_qubits) == (name, qubits)
    assert found.noise == qas.load_noise("model.json")
    assert main(["evaluate", str(found.path / "best.qasm"), "--problem", "problem.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["noise"] is None


def test_a_molecule_from_words(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def molecule(geometry: str, **settings: Any) -> Any:
        told.update(settings, geometry=geometry)
        return qas.load_problem("h2-2")

    monkeypatch.setattr("qas.molecules.molecule", molecule)
    words = ["search", "--geometry", "H 0 0 0; H 0 0 1.4", "--basis", "6-31g", "--active", "2,2", "--charge", "0"]
    words += [
        "--mapping",
        "parity",
        "--orbitals",
        "natural",
        "--taper",
        "--freeze-core",
        "--agent",
        "random",
        "--steps",
        "1",
        "--quiet",
        "--no-report",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    assert told == {
        "geometry": "H 0 0 0; H 0 0 1.4", "basis": "6-31g", "active": (2, 2), "charge": 0, "mapping": "parity",
        "orbitals": "natural", "taper": True, "freeze_core": True,
    }  # fmt: skip


def test_target_and_what_an_energy_costs(capsys: Capture, tmp_path: Path) -> None:
    words = ["search", "h2-2", "--agent", "evolution", "--target", "1e-3", "--steps", "500", "--no-report"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    assert "evaluation of" in err.splitlines()[0]
    found = load_run(tmp_path / "run")
    assert found.best.error <= 1e-3 and found.architectures < 500 and found.config["budget"]["target"] == 1e-3


def test_resume_with_a_larger_budget(capsys: Capture, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["search", "h2-2", "--agent", "evolution", "--quiet", "--no-report", "--out"]
    assert main([*words, str(whole), "--steps", "40"]) == 0
    assert main([*words, str(parts), "--steps", "20"]) == 0
    assert main(["search", "--resume", str(parts), "--steps", "40", "--quiet", "--no-report"]) == 0
    assert qas.load_run(parts).front == qas.load_run(whole).front
    assert qas.load_run(parts).config["budget"]["steps"] == 40
    assert "h2-2" in capsys.readouterr().out


def test_interrupt_keeps_everything(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["search", "h2-3", "--agent", "evolution", "--steps", "20000", "--no-report", "--out"]
    original = Watch.plain

    def interrupted(self: Watch, progress: Progress) -> None:
        original(self, progress)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "plain", interrupted)
        assert main([*words, str(parts)]) == 130
    out = capsys.readouterr().out
    assert f"qas search --resume {parts}" in out and "interrupted" in out
    stopped = qas.load_run(parts)
    assert stopped.status == "interrupted" and 0 < stopped.architectures < 20000 and stopped.front
    steps = str(stopped.architectures + 200)
    assert main(["search", "--resume", str(parts), "--steps", steps, "--quiet", "--no-report"]) == 0
    words[words.index("20000")] = steps
    assert main([*words, str(whole), "--quiet"]) == 0
    assert qas.load_run(parts).front == qas.load_run(whole).front


def test_interrupt_before_the_search(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qas.agents.launch._build", interrupt)
    assert main(["search", "h2-2", "--agent", "random", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "qas: interrupted\n"
    assert not (tmp_path / "run").exists()


def test_progress_lines(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch("h2-2, agent random", "Ha")
    watch.explain_start()
    assert "compiled" in capsys.readouterr().err
    watch.plain(Progress(1.0, 100, 10, 0.5, 3, 1, 0.1, 2, "note"))
    assert capsys.readouterr().err == ""
    watch._next_line = 0.0
    watch.plain(Progress(3.0, 500, 20, 0.25, 4, 1, 0.25, 2, "a note"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for text in ("0:03", "0.25 Ha", "4 gates", "167 evaluations/s", "7 architectures/s", "0:09 left", "a note"):
        assert text in line


def test_live_display(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch("h2-2, agent [random]", "Ha")
    for k in range(600):
        text = watch.live(Progress(k / 5, 100 * k, 10 * k, 10.0**-k if k < 300 else 0.0, 3, 1, k / 600, 2, "[note]"))
    for part in ("[random]", "500 evaluations/s", "50 architectures/s", "[note]", "Ctrl-C", "█"):
        assert part in text
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with watched("h2-2, agent [random]", "Ha") as show, bar(False) as done:
        show(Progress(1.0, 100, 10, 0.5, 3, 1, 0.1, 2, "[note]"))
        done("[labelling]", 3, 4)


def test_small_formats() -> None:
    assert (clock(0), clock(59.6), clock(3661)) == ("0:00", "1:00", "1:01:01")
    assert sparkline([]) == "" and set(sparkline([1.0, 1.0])) == {"▁"}
    falling = sparkline([1.0, 0.1, 0.01, float("inf"), -1.0])
    assert falling[0] == "█" and falling[-1] == "▁"


# ---------------------------------------------------------------------- inspect and evaluate
def test_inspect(capsys: Capture, run: Run, tmp_path: Path) -> None:
    path = str(run.path)
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert f"{run.best.energy:.8f}" in text and "report.html" in text and "ibm-mumbai" in text
    assert main(["inspect", path, "--front"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4 + len(run.front)
    assert main(["inspect", path, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["front"]) == len(run.front)
    assert main(["inspect", path, "--circuit", "0"]) == 0
    assert "circuit 0" in capsys.readouterr().out
    assert main(["inspect", path, "--circuit", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] == run.front[0].error
    assert main(["inspect", path, "--qasm"]) == 0
    assert qas.Circuit.from_qasm(capsys.readouterr().out) == run.best.circuit
    for name in ("c.png", "c.svg", "c.pdf", "c.tex", "c.qasm"):
        assert main(["inspect", path, "--save", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 50
    assert qas.Circuit.from_qasm((tmp_path / "c.qasm").read_text()) == run.best.circuit


def test_inspect_a_run_without_circuits(capsys: Capture, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    for name in ("circuits.jsonl", "summary.json"):
        (folder / name).unlink()
    assert main(["inspect", str(folder)]) == 0
    assert "no circuit yet" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] is None
    for words in (["--circuit", "0"], ["--qasm"]):
        assert "no circuit yet" in _fails(capsys, "inspect", str(folder), *words)
    assert "no circuit yet" in _fails(capsys, "evaluate", str(folder))


def test_evaluate(capsys: Capture, run: Run, tmp_path: Path) -> None:
    assert main(["evaluate", str(run.path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["energy"] == pytest.approx(run.best.energy, abs=1e-10) and data["noise"] == "ibm-mumbai"
    assert main(["evaluate", str(run.path), "--engine", "aer", "--shots", "200", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert "standard error" in text and "engine aer" in text and "200 shots" in text
    assert main(["evaluate", str(run.path), "--noise", "none", "--json", "--circuit", "0"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["noise"] is None and data["energy"] == pytest.approx(run.front[0].noise_free_energy, abs=1e-10)
    file = str(run.path / "best.qasm")
    assert main(["evaluate", file, "--problem", "h2-2", "--engine", "aer", "--noise", "ibm-mumbai", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["energy"] == pytest.approx(run.best.energy, abs=1e-10)
    assert main(["evaluate", str(run.path), "--mitigate", "readout,zne", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["mitigated"]
    assert abs(data["error"]) < abs(run.best.error) and len(data["steps"]) == 3
    steps = ["--mitigate", "readout,symmetry:by=z2,zne:fit=linear,nodes=1-3", "--shots", "20000"]
    assert main(["evaluate", str(run.path), "--backend", "aer", "--transpile-level", "1", *steps]) == 0
    text = capsys.readouterr().out
    assert "symmetry verified" in text and "transpile level 1" in text and "settings at each strength" in text
    assert main(["evaluate", file, "--problem", "h2-2"]) == 0
    assert "no noise" in capsys.readouterr().out


# ---------------------------------------------------------------------- pools and encoders
POOL_WORDS = ["--qubits", "2", "--gates", "4", "--min-gates", "1", "--gate-set", "rx,ry,rz,cx", "--depth", "0"]
POOL_WORDS += ["--size", "60", "--jobs", "1", "--starts", "1"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty circuits of two qubits, labelled for h2-2."""
    folder = tmp_path_factory.mktemp("pools") / "p2"
    assert main(["pool", "build", *POOL_WORDS, "--task", "h2-2", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_pool_build_goes_on_and_shows(capsys: Capture, tmp_path: Path) -> None:
    folder = str(tmp_path / "p2")
    build = ["pool", "build", *POOL_WORDS, "--out", folder]
    assert main([*build, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and json.loads(out)["size"] == 60 and json.loads(out)["tasks"] == []
    before = _snapshot(tmp_path / "p2")
    assert main([*build, "--task", "h2-2"]) == 0
    out, err = capsys.readouterr()
    assert "60 circuits of 2 qubits, 1 to 4 gates" in out and "h2-2" in out and "labelling h2-2, 60 of 60" in err
    after = _snapshot(tmp_path / "p2")
    assert {k: v for k, v in after.items() if k in before and k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }
    assert main(["pool", "show", folder]) == 0
    assert capsys.readouterr().out == out
    assert main(["pool", "show", folder, "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert task["task"] == "h2-2" and task["best_error"] >= -1e-9 and task["evaluations"] > 60
    for words, message in [
        (["--seed", "1"], "another pool"),
        (["--size", "61"], "another pool"),
        (["--gates", "5"], "another pool"),
        (["--task", "h2-2", "--starts", "2"], "settings"),
        (["--task", "h2-22"], "did you mean 'h2-2'"),
        (["--task", "lih-4"], "4 qubits"),
        (["--noise", "ibm-mumbay"], "ibm-mumbai"),
    ]:
        assert message in _fails(capsys, *build, "--quiet", *words)
    assert _snapshot(tmp_path / "p2") == after


def test_encoder_train_and_search(capsys: Capture, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qas.encoders.trained.SHIPPED", tmp_path / "none")
    assert main(["encoder", "train", str(pool), "--epochs", "1", "--out", "encoders/mine"]) == 0
    out, err = capsys.readouterr()
    assert "whole circuit, exact match" in out and "--encoder encoders/mine" in out and "training, loss" in err
    assert {p.name for p in Path("encoders/mine").iterdir()} == {
        "encoder.json", "weights.safetensors", "metrics.md", "latent-map.png",
    }  # fmt: skip
    assert Path("encoders/mine/metrics.md").read_text().strip() in out
    assert main(["encoder", "list"]) == 0
    assert capsys.readouterr().out.startswith("mine  TrainedEncoder(gvae on ports")
    assert main(["encoder", "list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["mine"]
    before = _snapshot(Path("encoders"))
    assert "new or empty" in _fails(capsys, "encoder", "train", str(pool), "--out", "encoders/mine")
    assert _snapshot(Path("encoders")) == before
    for agent in ("bo", "knn", "reinforce", "random"):
        words = [
            "search",
            "h2-2",
            "--agent",
            agent,
            "--encoder",
            "mine",
            "--pool",
            str(pool),
            "--screen",
            "expressibility",
        ]
        words += ["--noise", "ibm-mumbai", "--steps", "6", "--out", agent, "--json", "--quiet", "--no-report"]
        assert main([*words, *(["--storage", "sqlite:///shared.db"] if agent == "bo" else [])]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["agent"] == agent and found["architectures"] == 6
        assert load_run(agent).config["max_gates"] == 4
        assert main(["inspect", agent]) == 0
        assert agent in capsys.readouterr().out
        assert main(["search", "--resume", agent, "--steps", "8", "--quiet", "--json", "--no-report"]) == 0
        assert json.loads(capsys.readouterr().out)["architectures"] == 8


def test_encoder_train_without_labels(capsys: Capture, tmp_path: Path) -> None:
    folder, out = str(tmp_path / "p"), tmp_path / "e"
    assert main(["pool", "build", *POOL_WORDS, "--out", folder, "--quiet"]) == 0
    words = ["encoder", "train", folder, "--model", "url-v1", "--epochs", "1", "--quiet", "--json", "--out", str(out)]
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["circuits"] == 60
    assert {p.name for p in out.iterdir()} == {"encoder.json", "weights.safetensors", "metrics.md"}


def test_wrong_words_about_pools_and_encoders(
    capsys: Capture, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _snapshot(pool)
    for words, message in [
        ("pool", "ACTION"),
        ("pool biuld", "build"),
        ("pool build --gates 3 --out p", "--qubits"),
        ("pool build --qubits 2 --gates 3 --out p --sise 5", "did you mean '--size'"),
        ("pool build --qubits 2 --gates 3 --out p --gate-set rx,cxx", "did you mean 'cx'"),
        ("pool build --qubits 2 --gates 1 --out p --size 1000 --quiet", "holds about"),
        ("pool build --qubits 2 --gates 3 --out p --min-gates 4", "min_gates"),
        ("pool build --qubits 2 --gates 3 --out p --coupling 0-7", "0..1"),
        ("pool show nowhere", "no such pool"),
        ("pool show .", "not a pool"),
        ("encoder", "ACTION"),
        ("encoder train nowhere --out e", "no such pool"),
        (f"encoder train {pool} --out e --quiet --model gvea", "did you mean 'gvae'"),
        (f"encoder train {pool} --out e --quiet --encoding port", "did you mean 'ports'"),
        (f"encoder train {pool} --out e --task h2-3", "h2-2"),
        (f"encoder train {pool} --out e --epoch 3", "did you mean '--epochs'"),
        (f"encoder train {pool} --out {pool}", "new or empty"),
        ("search h2-2 --encoder q4", "agent evolution 'encoder'"),
        ("search h2-2 --agent knn --storage sqlite:///x.db", "agent knn 'storage'"),
        ("search h2-2 --agent random --storage sqlite:///x.db", "storage"),
        ("search h2-2 --agent evolution --screen expressibility", "screen"),
        ("search h2-2 --agent sb3 --pool p", "pool"),
        ("search h2-2 --agent knn --encoder nothing", "unknown encoder"),
        ("search lih-6 --agent knn", "4 and 8 qubits, the problem has 6"),
        ("search --resume r --storage sqlite:///x.db", "no such run folder"),
        ("search --resume r --encoder q4", "leave out --encoder"),
    ]:
        assert message in _fails(capsys, *words.split()), words
    assert list(tmp_path.iterdir()) == [] and _snapshot(pool) == before


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("study.db", "URL such as"),
        ("postgresql://me:s3cr3t@127.0.0.1:1/db", "does not answer"),
        ("nodialect://me:s3cr3t@host/db", "does not answer"),
        ("sqlite:////nowhere/x.db", "does not answer"),
    ],
)
def test_a_storage_that_does_not_answer_leaves_no_run(
    capsys: Capture, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["search", "h2-2", "--agent", "bo", "-o", "pool_size=20", "--steps", "3", "--storage", storage, "--quiet"]
    line = _fails(capsys, *words)
    assert message in line and "s3cr3t" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_report_tells_no_password(encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does any other file of the run: to resume it, the storage is given again."""
    where = f"sqlite:///{tmp_path}/x.db?password=s3cr3t"
    monkeypatch.setattr("qas.agents.pool.ledger._open_storage", lambda where: f"sqlite:///{tmp_path}/x.db")
    words = ["search", "h2-2", "--agent", "bo", "-o", "pool_size=20", "--steps", "3", "--storage", where]
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    leaks = {name for name, data in _snapshot(tmp_path / "run").items() if b"s3cr3t" in data}
    assert (tmp_path / "run" / "report.html").exists() and not leaks


# ---------------------------------------------------------------------- input that does not fit
WRONG = [
    ("serch h2-2", "did you mean 'search'"),
    ("search", "a problem"),
    ("search h2-2 --agnet ddqn", "did you mean '--agent'"),
    ("search h2-2 extra", "h2-2"),
    ("search h2-2 --seconds", "--seconds"),
    ("search h2-2 --seconds -3", "positive number"),
    ("search h2-2 --seconds nan", "positive number"),
    ("search h2-2 --seconds inf", "positive number"),
    ("search h2-2 --evaluations 0", "whole number of at least 1"),
    ("search h2-2 --steps 1.5", "whole number of at least 1"),
    ("search h2-2 --seed -1", "whole number of at least 0"),
    ("search h2-2 --max-gates 0", "whole number of at least 1"),
    ("search h2-2 --coupling 0,1", "pairs of qubits"),
    ("search h2-2 --coupling 0-1-2", "pairs of qubits"),
    ("search h2-2 --coupling 0-7 --agent random", "0..1"),
    ("search h2-2 -o population", "key=value"),
    ("search h22", "did you mean 'h2-2'"),
    ("search tfim-99", "2 to 20"),
    ("search h2-2 --noise ibm-mumbay", "did you mean 'ibm-mumbai'"),
    ("search h2-2 --agent ddqm", "did you mean 'ddqn'"),
    ("search h2-2 --agent random --gates rx,cxx", "did you mean 'cx'"),
    ("search h2-2 --agent random --gates ,", "gate"),
    ("search h2-2 --agent random --engine state", "did you mean 'statevector'"),
    ("search h2-2 --agent random --optimizer lbfgs", "did you mean 'l-bfgs'"),
    ("search h2-2 --agent random --shots 10", "shots"),
    ("search h2-2 --agent random -o depth=3", "unknown setting of the agent random"),
    ("search h2-2 --agent evolution -o populations=3", "did you mean 'population'"),
    ("search h2-2 --agent evolution -o population=abc", "must be int"),
    ("search h2-2 --agent evolution -o population=0", "at least 1"),
    ("search h2-2 --agent random --evaluator tolerance=[]", "must be float"),
    ("search h2-2 --agent random --evaluator tolerances=1", "did you mean 'tolerance'"),
    ("search h2-2 --agent random --evaluator engine=[1]", "must be"),
    ("search tfim-14 --noise ibm-mumbai --agent evolution", "at most 13 noisy qubits"),
    ("search lih-6 --noise ibm-ourense --agent random", "qubits"),
    ("search h2-2 --resume somewhere", "leave out PROBLEM"),
    ("search --resume somewhere --agent ddqn", "leave out --agent"),
    ("search --resume somewhere", "no such run folder"),
    ("inspect", "RUN"),
    ("inspect somewhere", "no such run folder"),
    ("inspect .", "not a run folder"),
    ("evaluate somewhere", "no such run folder"),
    ("evaluate some.qasm --problem h2-2", "does not exist"),
    ("search h2-2 --hamiltonian h.json", "only one of them"),
    ("search --hamiltonian h.json", "h.json"),
    ("search nothing.json", "the problem file is missing"),
    ("search h2-2 --basis sto-3g", "goes with --geometry"),
    ("search --geometry H --active 2", "electrons and orbitals"),
    ("search h2-2 --noise model.json", "model.json"),
    ("search h2-2 --target 0", "positive number"),
    ("completion csh", "unknown shell"),
]


def test_wrong_words(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, message in WRONG:
        assert message in _fails(capsys, *words.split()), words
    assert list(tmp_path.iterdir()) == []


def test_wrong_words_about_a_run(capsys: Capture, run: Run, tmp_path: Path) -> None:
    before = _snapshot(run.path)
    path = str(run.path)
    for words, message in [
        (["inspect", path, "--circuit", "99"], "a number from 0"),
        (["inspect", path, "--circuit", "-1"], "a number from 0"),
        (["inspect", path, "--circuit", "x"], "a number from 0"),
        (["inspect", path, "--circuit", "9" * 5000], "a number from 0"),
        (["inspect", path, "--save", str(tmp_path / "c.gif")], ".qasm"),
        (["inspect", path, "--save", str(tmp_path / "no" / "c.png")], "does not exist"),
        (["inspect", path, "--save", str(tmp_path / "no" / "c.qasm")], "does not exist"),
        (["evaluate", path, "--problem", "lih-4"], "2 qubits, but problem lih-4 needs 4"),
        (["evaluate", path, "--shots", "0"], "whole number"),
        (["evaluate", path, "--mitigate", "zne:nodes=1"], "two or more different strengths"),
        (["evaluate", path, "--backend", "ibm_torino"], "without --submit"),
        (["evaluate", path, "--backend", "aerr"], "did you mean 'aer'"),
        (["evaluate", path, "--layout", "0-x"], "qubits such as 5-3-2"),
        (["evaluate", path + "/best.qasm"], "--problem"),
        (["evaluate", path, "--engine", "statevector"], "statevector"),
        (["evaluate", path + "/best.qasm", "--circuit", "1", "--problem", "h2-2"], "--circuit"),
        (["search", "h2-2", "--agent", "random", "--out", path], "new or empty"),
        (["search", "h2-2", "--agent", "random", "--out", path + "/best.qasm"], "new or empty"),
        (["search", "h2-2", "--agent", "random", "--out", path + "/best.qasm/x"], "best.qasm"),
        (["inspect", path + "/config.json"], "got a file"),
    ]:
        assert message in _fails(capsys, *words)
    assert _snapshot(run.path) == before and list(tmp_path.iterdir()) == []


HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "qubit[2] q;\nrx(0.1) q[5];\n", "line 4"),
        (HEAD + "qubit[2] q;\nrx(0.0/0.0) q[0];\n", "line 4"),
        (HEAD + "qubit[2] q;\nrx(nan) q[0];\n", "nan"),
        (HEAD + "qubit[3] q;\nrx(0.1) q[0];\n", "3 qubits, but problem h2-2 needs 2"),
        (HEAD + "qubit[2] q;\nbit[2] c;\nh q[0];\nc[0] = measure q[0];\n", "measurement"),
        (HEAD + "qubit[2] q;\nbit c;\nif (c) { x q[0]; }\n", "classical control"),
        (HEAD + "input angle a;\nqubit[2] q;\nrx(a) q[0];\n", "unbound"),
        (HEAD + "qubit[2] q;\nfoo q[0];\n", "line 4"),
        (HEAD + "qubit[2] q;\nrx(0.1 q[0]", "OpenQASM"),
        ("", "empty"),
        ("\x00\x01", "OpenQASM"),
        ('OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\nmeasure q -> c;\n', "measurement"),
    ],
)
def test_wrong_circuit_files(capsys: Capture, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.qasm"
    path.write_text(text)
    assert message in _fails(capsys, "evaluate", str(path), "--problem", "h2-2", "--noise", "ibm-mumbai")
    assert path.read_text() == text


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_runs(capsys: Capture, resumable: Path, tmp_path: Path, share: float) -> None:
    """Each file is cut in turn: the answer is one line, or the right result, and no other file changes."""
    names = [n for n in _snapshot(resumable) if not n.endswith("report.html")]
    assert {"config.json", "summary.json", "history.csv", "circuits.jsonl", "best.qasm"} < set(names)
    assert any(n.endswith("arrays.safetensors") for n in names)
    for number, name in enumerate(names):
        folder = Path(shutil.copytree(resumable, tmp_path / str(number)))
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])
        before = _snapshot(folder)
        if name in ("config.json", "summary.json") or (name == "circuits.jsonl" and share):
            assert str(folder) in _fails(capsys, "inspect", str(folder))
            assert str(folder) in _fails(capsys, "evaluate", str(folder))
        else:
            assert main(["inspect", str(folder)]) == 0
        if name != "best.qasm" and not (name == "circuits.jsonl" and not share):
            _fails(capsys, "search", "--resume", str(folder), "--steps", "14")
        assert _snapshot(folder) == before


def test_missing_pieces_of_a_checkpoint(capsys: Capture, resumable: Path, tmp_path: Path) -> None:
    for name in ("arrays.safetensors", "state.json"):
        folder = Path(shutil.copytree(resumable, tmp_path / name))
        next(folder.glob(f"checkpoint/*/{name}")).unlink()
        before = _snapshot(folder)
        _fails(capsys, "search", "--resume", str(folder), "--steps", "14")
        assert _snapshot(folder) == before


def test_newer_run(capsys: Capture, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"version": VERSION + 1}))
    before = _snapshot(folder)
    for words in (["inspect", str(folder)], ["evaluate", str(folder)], ["search", "--resume", str(folder)]):
        assert "newer version" in _fails(capsys, *words)
    assert _snapshot(folder) == before


def _no_space(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_at_the_start(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qas.files.os.fsync", _no_space)
    words = ["search", "h2-2", "--agent", "random", "--steps", "3", "--quiet", "--out", str(tmp_path / "run")]
    line = _fails(capsys, *words)
    assert "no space left" in line
    assert not (tmp_path / "run").exists()


def test_full_disk_while_searching(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history goes to a device that is always full; what the run wrote before stays readable."""
    from qas.runs import Recorder

    def full(self: Recorder) -> None:
        self._stream = open("/dev/full", "a")  # noqa: SIM115

    monkeypatch.setattr(Recorder, "_open", full)
    folder = tmp_path / "run"
    words = ["search", "h2-2", "--agent", "random", "--steps", "3", "--quiet", "--out", str(folder)]
    assert "no space left" in _fails(capsys, *words)
    monkeypatch.undo()
    assert main(["inspect", str(folder)]) == 0


def test_full_disk_on_resume(capsys: Capture, resumable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(resumable, tmp_path / "run"))
    before = _snapshot(folder)
    monkeypatch.setattr("qas.files.os.fsync", _no_space)
    steps = str(load_run(folder).architectures + 10)
    assert "no space left" in _fails(capsys, "search", "--resume", str(folder), "--steps", steps, "--quiet")
    monkeypatch.undo()
    after = _snapshot(folder)
    assert {k: v for k, v in after.items() if k != "history.csv"} == {
        k: v for k, v in before.items() if k != "history.csv"
    }
    assert main(["search", "--resume", str(folder), "--steps", steps, "--quiet", "--no-report"]) == 0


def test_a_used_up_budget_is_refused_and_nothing_is_touched(capsys: Capture, resumable: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(resumable, tmp_path / "run"))
    before = _snapshot(folder)
    assert "has used" in _fails(capsys, "search", "--resume", str(folder), "--evaluations", "5")
    assert "has used" in _fails(capsys, "search", "--resume", str(folder), "--seconds", "0.001")
    assert _snapshot(folder) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", {"seconds": "x"}),
        ("budget", {"minutes": 1}),
        ("seed", -3),
        ("max_gates", -1),
        ("coupling", 5),
        ("gates", None),
        ("options", ["a"]),
    ],
)
def test_a_config_edited_by_hand_is_checked(
    capsys: Capture, resumable: Path, tmp_path: Path, field: str, value: Any
) -> None:
    folder = Path(shutil.copytree(resumable, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    _fails(capsys, "search", "--resume", str(folder), *([] if field == "budget" else ["--steps", "3000"]))


def test_no_permission(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr("qas.runs.Path.mkdir", refuse)
    words = ["search", "h2-2", "--agent", "random", "--steps", "3", "--quiet", "--out", str(tmp_path / "run")]
    line = _fails(capsys, *words)
    assert "Permission denied" in line


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("qas.noise.list_noise", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["noise"])


def test_search_outside_the_main_thread(tmp_path: Path) -> None:
    codes: list[int] = []
    words = ["search", "h2-2", "--agent", "random", "--steps", "3", "--quiet", "--no-report"]
    words += ["--out", str(tmp_path / "run")]
    thread = threading.Thread(target=lambda: codes.append(main(words)))
    thread.start()
    thread.join(120)
    assert codes == [0]
