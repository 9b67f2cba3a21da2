"""The rooms of the house: imports point downwards, and no two rooms need each other."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
ABOVE = ("qas.encoders", "qas.envs", "qas.agents")
"""What stands on the other modules of `qas`, lowest first."""
ALLOWED = {"qas", "qas.campaigns", "qas.cli", "qas.testing"}
"""Rooms that may reach up: the front door, campaigns, the command line, and the contracts."""
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
"""What an import can stand in; expressions are most of a tree."""


def modules() -> Iterator[tuple[str, Path]]:
    for folder, prefix in (
        ("qas", "qas"),
        ("encoders", "qas.encoders"),
        ("envs", "qas.envs"),
        ("agents", "qas.agents"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([prefix, *(part for part in parts if part != "__init__")]), path


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Modules of `qas` that a file imports at once, or with `lazy` inside functions too; not those for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qas"):
            assert node.module is not None
            yield from ([f"qas.{alias.name}" for alias in node.names] if node.module == "qas" else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("qas"))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif isinstance(node, STATEMENTS) and (lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            yield from imports(node, lazy=lazy)


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules()}


def graph(*, lazy: bool) -> nx.DiGraph:
    found, known = nx.DiGraph(), trees()
    for name, tree in known.items():
        for target in imports(tree, lazy=lazy):
            target = target if target in known else target.rpartition(".")[0]
            if target in known and target != "qas" and room(target) != room(name) and name != "qas":
                found.add_edge(room(name), room(target))
    return found


def test_no_two_rooms_need_each_other() -> None:
    assert list(nx.simple_cycles(graph(lazy=False))) == []


def test_imports_point_downwards_even_where_they_are_lazy() -> None:
    for source, target in graph(lazy=True).edges:
        if target in ABOVE and source not in ALLOWED:
            assert source in ABOVE and ABOVE.index(source) > ABOVE.index(target), f"{source} imports {target}"


LIGHT = (
    ("import qas.problems, qas.molecules", "torch numba qiskit networkx scipy pyscf"),
    ("qas.problems.list_problems()", "torch numba qiskit networkx scipy pyscf"),
    ("import qas.interop, qas.drawing", "qiskit matplotlib"),
    ("import qas.optimizers", "qiskit scipy"),
    ("import qas.simulators.aer", "qiskit scipy"),
    ("qas.simulators.list_engines()", "torch"),
    ("qas.drawing.draw_figure(qas.circuits.Circuit(2, [('cx', (0, 1))]))", "qiskit matplotlib.pyplot"),
)
"""What is done one after the other in one process, and what must not be imported by then."""


def test_what_is_heavy_is_imported_where_it_is_used() -> None:
    code = "import sys\n" + "".join(
        f"{done}\nassert not (set({heavy!r}.split()) & set(sys.modules)), {done!r}\n" for done, heavy in LIGHT
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
