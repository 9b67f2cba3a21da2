"""Which qubits of a device to use: patches of a shape, compared by the fidelity they predict.

A patch is judged by a circuit of a few layers, each with one entangler on every pair of the shape and two pulses and
one wait as long as an entangler on every qubit, and a measurement at the end: the product of the fidelities of all
these. Where a shape leaves the pairs open, those of its best spanning tree count, so that patches with and without
rings compare.

Qubits of a patch are numbered along a path as far as there is one: neighbours in a problem, such as sites of a chain or
orbitals in the order of their energies, are then neighbours on the device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import networkx as nx
import numpy as np

from qas.checks import shortened, whole_number
from qas.devices import ENTANGLERS, Device, load_device
from qas.errors import QasError, UnknownNameError
from qas.noise import relaxation_ptm

SHAPES = ("best", "line", "ring", "tree")
CHOICES = ("best", "median")
LAYERS = 4
"""Layers of the circuit that a patch is judged by."""
MOST = 20_000
"""Patches of one size that are looked at; where there are more, those that promise most, or some drawn at random for
the median, are grown further."""

Pair = tuple[int, int]


class Prediction:
    """Logarithms of predicted fidelities of a device's qubits and pairs; broken qubits are left out."""

    def __init__(self, device: Device) -> None:
        pulse = device.gates.get("sx") or device.gates.get("u2", {})
        times = [c.duration for gate in ENTANGLERS for c in device.gates.get(gate, {}).values() if c.duration]
        wait = float(np.median(times)) if times else 0.0
        known = any(map(math.isfinite, device.t1))
        self.qubit: dict[int, float] = {}
        for (q,), calibration in pulse.items():
            error, flips = calibration.error or 0.0, sum(device.readout[q]) / 2
            if error < 1 and flips < 1 and (not known or math.isfinite(device.t1[q])):
                waiting = _relaxed_fidelity(device.t1[q], device.t2[q], wait)
                self.qubit[q] = LAYERS * (2 * math.log1p(-error) + math.log(waiting)) + math.log1p(-flips)
        self.pair: dict[Pair, float] = {}
        for a, b in sorted(device.coupling):
            table = device.gates[device.entangler]
            errors = [table[place].error or 0.0 for place in ((a, b), (b, a)) if place in table]
            if {a, b} <= self.qubit.keys() and min(errors) < 1:
                self.pair[a, b] = LAYERS * math.log1p(-min(errors))
        self.graph = nx.Graph()
        self.graph.add_nodes_from(self.qubit)
        self.graph.add_weighted_edges_from((a, b, value) for (a, b), value in self.pair.items())

    def of(self, qubits: Iterable[int], pairs: Iterable[Pair]) -> float:
        """Logarithm of the predicted fidelity of a patch."""
        return sum(self.qubit[q] for q in qubits) + sum(self.pair[min(p), max(p)] for p in pairs)

    def tree(self, qubits: Iterable[int]) -> list[Pair]:
        """The best spanning tree of connected qubits."""
        return [(a, b) for a, b, _ in nx.maximum_spanning_edges(self.graph.subgraph(qubits))]


def _relaxed_fidelity(t1: float, t2: float, time: float) -> float:
    """Average fidelity of a qubit that waits (Nielsen, Phys. Lett. A 303, 249, 2002)."""
    ptm = relaxation_ptm(t1, min(t2, 2 * t1), time)
    return float((np.trace(ptm) / 2 + 1) / 3)


def patch_for(n_qubits: int, device: str | os.PathLike[str] | Device, patch: str | Sequence[int] | None) -> Device:
    """The part of a device that a problem runs on.

    Args:
        n_qubits: of the problem.
        device: a name, a file or a `Device`; see `qas.devices.load_device`.
        patch: a shape, "median", or both as in ``"line:median"``; or the device's qubits in the order of the problem's,
            such as ``[5, 3, 2]`` or ``"5,3,2"``. None: the best connected qubits, or the device as it is if it has no
            qubits to spare.

    Raises:
        UnknownNameError: no such device, shape or choice.
        QasError: a patch larger than the device, of another size than the problem, or not connected.
    """
    whole = load_device(device)
    if not numbered_by_hand(n_qubits, whole, patch):
        words = str(patch or "best").strip()
        shape, _, which = ("best:median" if words == "median" else words).partition(":")
        return choose(whole, n_qubits, shape, which or "best")
    if patch is None:
        return _connected(whole)
    qubits = whole.restricted(_numbers(patch) if isinstance(patch, str) else patch)
    if qubits.n_qubits != n_qubits:
        raise QasError(f"the patch has as many qubits as the problem, {n_qubits}, got {qubits.n_qubits}")
    return _connected(qubits)


def numbered_by_hand(n_qubits: int, device: Device, patch: str | Sequence[int] | None) -> bool:
    """Whether `patch_for` takes the device's qubits in an order that the caller gave."""
    if patch is None:
        return device.n_qubits == n_qubits
    return not isinstance(patch, str) or patch.strip()[:1].isdigit()


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise QasError(f"a patch is a shape or qubits such as 5,3,2, got {shortened(text)}") from None


def _connected(device: Device) -> Device:
    """The device, if its coupling connects all qubits.

    Raises:
        QasError: it does not.
    """
    graph = nx.Graph(list(device.coupling))
    graph.add_nodes_from(range(device.n_qubits))
    first, *others = [sorted(device.physical[q] for q in part) for part in nx.connected_components(graph)]
    if others:
        raise QasError(
            f"a patch of {device.backend_name} is connected, got no path from qubit {first[0]} to qubit {others[0][0]}"
        )
    return device


def choose(device: Device, n_qubits: int, shape: str = "best", which: str = "best") -> Device:
    """The patch that `Device.patch` returns.

    Qubits of a line are numbered along it, those of a ring around it, others along a path through all of them; where
    there is none, from branch to branch of a tree.
    """
    for value, known, what in ((shape, SHAPES, "shape of a patch"), (which, CHOICES, "choice of a patch")):
        if value not in known:
            raise UnknownNameError(what, value, known)
    whole_number("the number of qubits of a patch", n_qubits)
    if n_qubits > device.n_qubits:
        raise QasError(f"a patch has at most the {device.n_qubits} qubits of {device.name}, got {n_qubits}")
    if device.coupling:  # a part of it may have more pairs of another kind
        others = set(ENTANGLERS) - {device.entangler}
        device = replace(device, gates={gate: held for gate, held in device.gates.items() if gate not in others})
    prediction = Prediction(device)
    if shape in ("line", "ring"):
        grown = _grown([(q,) for q in prediction.qubit], n_qubits, _longer(prediction.graph), prediction, which)
        found = _rings(grown, prediction) if shape == "ring" else grown
        closed = shape == "ring"
        scored = [(path, prediction.of(path, _steps(path, closed=closed))) for path in found]
    else:
        sets = _grown([(q,) for q in prediction.qubit], n_qubits, _larger(prediction), prediction, which)
        scored = [(qubits, prediction.of(qubits, prediction.tree(qubits))) for qubits in sets]
    if not scored:
        what = {"ring": "ring", "line": "line"}.get(shape, "connected patch")
        raise QasError(f"{device.name} has no {what} of {n_qubits} working qubits; choose another shape or size")
    qubits = _picked(scored, which)
    if shape in ("best", "tree"):
        qubits = _numbered(qubits, prediction, shape)
    patch = device.restricted(qubits)
    if shape == "best":
        return patch
    pairs = prediction.tree(qubits) if shape == "tree" else _steps(qubits, closed=shape == "ring")
    number = {q: position for position, q in enumerate(qubits)}
    return patch.coupled_by((number[a], number[b]) for a, b in pairs)


def _picked(scored: Sequence[tuple[tuple[int, ...], float]], which: str) -> tuple[int, ...]:
    """The patch with the highest score, or that in the middle; equal scores go by the qubits' numbers."""
    ranked = sorted(scored, key=lambda entry: (-entry[1], entry[0]))
    return ranked[0 if which == "best" else len(ranked) // 2][0]


def _numbered(qubits: tuple[int, ...], prediction: Prediction, shape: str) -> tuple[int, ...]:
    """Connected qubits along the best path through all of them, or from branch to branch of their best tree.

    Where the shape is a tree, only its pairs make a path.
    """
    tree = nx.Graph(prediction.tree(qubits))
    tree.add_nodes_from(qubits)
    inside = tree if shape == "tree" else prediction.graph.subgraph(qubits)
    paths = _grown([(q,) for q in qubits], len(qubits), _longer(inside), prediction, "best")
    if paths:
        return _picked([(path, prediction.of(path, _steps(path, closed=False))) for path in paths], "best")
    apart = dict(nx.all_pairs_shortest_path_length(tree))
    walks = [_walked(tree, end) for end in sorted(tree) if tree.degree(end) == 1]
    return min(walks, key=lambda walk: sum(apart[a][b] for a, b in _steps(walk, closed=False)))


def _walked(tree: nx.Graph, start: int) -> tuple[int, ...]:
    """The nodes of a tree branch by branch, the deepest last, as there is no way back from it."""
    rooted = nx.dfs_tree(tree, start)
    depth = nx.single_source_shortest_path_length(rooted, start)
    deepest = {q: max(depth[each] for each in (q, *nx.descendants(rooted, q))) for q in rooted}

    def shallow_first(near: Iterable[int]) -> list[int]:
        return sorted(near, key=lambda q: (deepest[q], q))

    return tuple(nx.dfs_preorder_nodes(rooted, start, sort_neighbors=shallow_first))


def _steps(path: Sequence[int], *, closed: bool) -> list[Pair]:
    ends = [*path[1:], path[0]] if closed else path[1:]
    return list(zip(path, ends, strict=False))


def _longer(graph: nx.Graph) -> Callable[[tuple[int, ...]], Iterator[tuple[int, ...]]]:
    """Paths with one qubit more at their end."""
    return lambda path: ((*path, q) for q in graph[path[-1]] if q not in path)


def _larger(prediction: Prediction) -> Callable[[tuple[int, ...]], Iterator[tuple[int, ...]]]:
    """Sets with one neighbour more, as sorted tuples."""

    def grow(qubits: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        neighbours = {other for qubit in qubits for other in prediction.graph[qubit]}
        for other in neighbours.difference(qubits):
            yield tuple(sorted((*qubits, other)))

    return grow


def _grown(
    seeds: list[tuple[int, ...]],
    size: int,
    grow: Callable[[tuple[int, ...]], Iterator[tuple[int, ...]]],
    prediction: Prediction,
    which: str,
) -> list[tuple[int, ...]]:
    """All patches of a size, or as many as are looked at; a path and its reverse count once."""
    rng = np.random.default_rng(0)
    level = sorted(seeds)
    for _ in range(size - 1):
        level = sorted({longer for patch in level for longer in grow(patch)})
        if len(level) > MOST and which == "median":
            level = [level[k] for k in sorted(rng.choice(len(level), MOST, replace=False))]
        elif len(level) > MOST:
            level = sorted(level, key=lambda patch: (-_promise(patch, prediction), patch))[:MOST]
    return [patch for patch in level if patch[0] <= patch[-1]]


def _promise(patch: tuple[int, ...], prediction: Prediction) -> float:
    """What is known of a patch while it grows: its qubits, and the pairs between those that follow each other."""
    pairs = [(min(p), max(p)) for p in _steps(patch, closed=False)]
    return prediction.of(patch, [pair for pair in pairs if pair in prediction.pair])


def _rings(paths: Iterable[tuple[int, ...]], prediction: Prediction) -> list[tuple[int, ...]]:
    """Paths whose ends are coupled, each ring once: from its lowest qubit on towards the lower neighbour."""
    found = set()
    for path in paths:
        if len(path) > 2 and prediction.graph.has_edge(path[0], path[-1]):
            at = path.index(min(path))
            ring = (*path[at:], *path[:at])
            found.add(ring if ring[1] <= ring[-1] else (ring[0], *ring[:0:-1]))
    return sorted(found)
