"""Does a graph autoencoder of evolved circuits propose better insertions than closed-form slopes do?

    python benchmarks/latent_edits.py fronts --out fronts.jsonl
    python benchmarks/latent_edits.py train --fronts fronts.jsonl --seed 0 --out autoencoder.safetensors
    python benchmarks/latent_edits.py test --fronts fronts.jsonl --model autoencoder.safetensors \\
        --out results/learning/latent-edits

``fronts``: circuits that `evolution` finds for training members of six families: random-field XXZ rings and chains of 4
to 6 spins, LiH in 4 and 6 qubits, H4 and BeH2 over bond length.

``train``: a variational autoencoder of circuits as graphs (gates are nodes, wires are edges), conditioned on the
coefficients of the Hamiltonian on each qubit and each two. It knows no order or number of qubits. Gates are taken out,
a few next to each other or any number of all, and it puts them back one by one: a distribution over places × gates ×
qubits. The latent is a few numbers for each qubit, held to about two nats there, so that it is no copy.

``test``: evolution on members that were not trained on (other fields, other lengths, rings of 8 and 10 spins), at equal
evaluations and from product states (with layers of random angles to begin with, nearly all evaluations go into taking
their gates out), insertions of guided children from other sources: `guided`, by slopes as ever; `trained`, `untrained`,
the network, latents drawn half from the prior and half from the posterior of the circuit at hand; `random`, changes
drawn evenly; and mixtures by halves. Contenders with `start` are guided and begin with one more circuit. Of a run: its
front, the mean over 0 to 3n two-qubit gates of log10 of the lowest error with at most so many, in units of the gap from
the best product state to the ground state, not below 1e-6; and by source the children that came to lead the front, and
the evaluations that they all took.

The rule, fixed before the first test: the network is kept if `trained` or `guided+trained` has a better front than
`guided`, outside the 95 % interval of paired runs, in some group, and a worse one in none; better there than the same
contender with the untrained network; and again so on other seeds (`--first-seed 10`).
"""
# ruff: noqa: E402 - the number of threads is fixed before libraries are imported

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import csv
import functools
import itertools
import json
import math
import multiprocessing
import shlex
import statistics
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import qas
from qas.agents.growth.evolution import EvolutionAgent
from qas.agents.rl.starts import Known, Starts
from qas.circuits import Circuit, Gate
from qas.comparison import interval
from qas.envs.candidates import scale_of
from qas.envs.families import load_family
from qas.guidance import edited
from qas.runs import envelope

torch.set_num_threads(1)

CURVES = ("lih-4-curve", "lih-6-curve", "h4-8-curve", "beh2-6-curve")
SPINS = tuple(f"xxz-{shape}-{n}-{seed}" for shape in ("ring", "chain") for n in (4, 5, 6) for seed in range(100, 106))
RINGS = {f"xxz-ring-{n}": tuple(f"xxz-ring-{n}-{seed}" for seed in range(20)) for n in (8, 10)}
MOLECULES = {name: tuple(each.name for each in load_family(name).test) for name in ("lih-6-curve", "h4-8-curve")}
GROUPS = RINGS | MOLECULES
"""Problems of the test; a seed takes one of them by turns."""
EVALUATIONS = dict.fromkeys(RINGS, 4000) | dict.fromkeys(MOLECULES, 3000)
CONTENDERS = (
    "guided", "trained", "untrained", "random", "guided+trained", "guided+untrained",
    "start trained", "start untrained", "start nearest",
)  # fmt: skip
BINS = 8
"""Of angles."""
AXES = ("rx", "ry", "rz")
KINDS = (*AXES, "cx")
MOST = 4
"""Gates put into a child, at most."""
AT_ONCE = 4
"""Children that a network makes of one parent in one go."""
FLOOR = 1e-6


# ---------------------------------------------------------------------- circuits as graphs
class Graph(NamedTuple):
    """Nodes: a beginning and an end of each wire, then gates. Stretches of wires between them are where gates fit."""

    nodes: np.ndarray  # float32 (nodes, 8): kind, cos and sin of the angle
    stretches: np.ndarray  # int64 (stretches, 5): node behind, node ahead, role in either, qubit
    pairs: np.ndarray  # int64 (pairs, 2): stretches that exist at once, in both orders
    at: list[int]
    """positions of stretches, then of pairs"""
    ones: list[tuple[int, int]]
    """missing rotations: stretch, and number of axis and bin"""
    twos: list[int]
    """missing CX: pairs, control first"""


def graph_of(circuit: Circuit, missing: frozenset[int] = frozenset()) -> Graph:
    n = circuit.n_qubits
    nodes = [[0.0] * 8 for _ in range(2 * n)]
    for q in range(n):
        nodes[q][4] = nodes[n + q][5] = 1.0
    stretches = [[q, n + q, 0, 0, q] for q in range(n)]
    at, here = [0] * n, list(range(n))
    pairs = list(itertools.permutations(here, 2))
    pair_at, ones, twos, position = [0] * len(pairs), [], [], 0
    for index, gate in enumerate(circuit.gates):
        if index in missing:
            if len(gate.qubits) == 1:
                ones.append((here[gate.qubits[0]], AXES.index(gate.name) * BINS + _bin(gate.angles[0])))
            else:
                twos.append(pairs.index((here[gate.qubits[0]], here[gate.qubits[1]])))
            continue
        position += 1
        row = [0.0] * 8
        row[KINDS.index(gate.name)] = 1.0
        row[6:] = (math.cos(gate.angles[0]), math.sin(gate.angles[0])) if gate.angles else (0.0, 0.0)
        for role, q in enumerate(gate.qubits):
            stretches[here[q]][1], stretches[here[q]][3] = len(nodes), role
            here[q] = len(stretches)
            stretches.append([len(nodes), n + q, role, 0, q])
            at.append(position)
        nodes.append(row)
        others = set(here)
        for q in gate.qubits:
            others.discard(here[q])
            pairs += [pair for other in others for pair in ((here[q], other), (other, here[q]))]
        pair_at += [position] * (len(pairs) - len(pair_at))
    return Graph(np.array(nodes, dtype=np.float32), np.array(stretches), np.array(pairs), at + pair_at, ones, twos)


def _bin(angle: float) -> int:
    return int((angle % (2 * math.pi)) / (2 * math.pi) * BINS) % BINS


class Conditions(NamedTuple):
    """What a network is told of a Hamiltonian."""

    alone: Tensor  # (qubits, 6): coefficient of each letter alone, and the root of summed squares of all with it
    pairs: Tensor  # (ordered pairs, 18): the same of two letters


@functools.lru_cache(maxsize=512)
def conditions(name: str) -> Conditions:
    hamiltonian = qas.load_problem(name).hamiltonian
    n, scale = hamiltonian.n_qubits, scale_of(hamiltonian)
    alone, both = np.zeros((n, 2, 3)), np.zeros((n, n, 2, 9))
    for string, c in hamiltonian.terms.items():
        letters = [(q, "XYZ".index(p)) for q, p in enumerate(reversed(string)) if p != "I"]
        for q, p in letters:
            alone[q, 0, p] += c * (len(letters) == 1)
            alone[q, 1, p] += c * c
        for (a, p), (b, r) in itertools.permutations(letters, 2):
            both[a, b, 0, 3 * p + r] += c * (len(letters) == 2)
            both[a, b, 1, 3 * p + r] += c * c
    for found in (alone, both):
        found[..., 1, :] = np.sqrt(found[..., 1, :])
    order = np.array(list(itertools.permutations(range(n), 2)))
    tensor = functools.partial(torch.tensor, dtype=torch.float32)
    return Conditions(
        tensor(alone.reshape(n, 6) / scale), tensor(both[order[:, 0], order[:, 1]].reshape(-1, 18) / scale)
    )


class Batch(NamedTuple):
    """Several graphs in one, with the graph that each part belongs to."""

    nodes: Tensor
    stretches: Tensor
    pairs: Tensor
    couples: Tensor  # int64 (2, ordered pairs of qubits)
    alone: Tensor
    coupling: Tensor
    couple_of: Tensor  # int64 (pairs,): the couple that a pair of stretches is on
    graph_of_stretch: Tensor
    graph_of_pair: Tensor
    graph_of_qubit: Tensor
    ones: Tensor  # int64 (missing, 3): graph, stretch, number
    twos: Tensor  # int64 (missing, 2): graph, pair


def batch_of(graphs: Sequence[Graph], conditions: Sequence[Conditions]) -> Batch:
    parts: dict[str, list[Any]] = {name: [] for name in Batch._fields}
    node = stretch = pair = qubit = couple = 0
    for number, (graph, about) in enumerate(zip(graphs, conditions, strict=True)):
        n = len(about.alone)
        couples = np.array(list(itertools.permutations(range(n), 2)))
        on = graph.stretches[:, 4]
        a, b = on[graph.pairs[:, 0]], on[graph.pairs[:, 1]]
        parts["couple_of"].append(couple + a * (n - 1) + b - (b > a))
        parts["nodes"].append(graph.nodes)
        parts["stretches"].append(graph.stretches + np.array([node, node, 0, 0, qubit]))
        parts["pairs"].append(graph.pairs + stretch)
        parts["couples"].append(couples.T + qubit)
        parts["alone"].append(about.alone)
        parts["coupling"].append(about.pairs)
        parts["graph_of_stretch"].append(np.full(len(on), number))
        parts["graph_of_pair"].append(np.full(len(a), number))
        parts["graph_of_qubit"].append(np.full(n, number))
        parts["ones"] += [(number, stretch + s, k) for s, k in graph.ones]
        parts["twos"] += [(number, pair + p) for p in graph.twos]
        node, stretch, pair = node + len(graph.nodes), stretch + len(on), pair + len(a)
        qubit, couple = qubit + n, couple + n * (n - 1)
    ones, twos = (torch.tensor(parts.pop(name), dtype=torch.int64) for name in ("ones", "twos"))
    told = {name: torch.cat(parts.pop(name)) for name in ("alone", "coupling")}
    couples = torch.from_numpy(np.concatenate(parts.pop("couples"), axis=1))
    rest = {name: torch.from_numpy(np.concatenate(found)) for name, found in parts.items()}
    return Batch(**rest, **told, couples=couples, ones=ones.reshape(-1, 3), twos=twos.reshape(-1, 2))


# ---------------------------------------------------------------------- the network
WIDTH, LATENT = 40, 4


def _mlp(size: int, out: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(size), nn.Linear(size, WIDTH), nn.GELU(), nn.Linear(WIDTH, out))


class Layer(nn.Module):
    """Gates hear of the stretches around them, wires of those they are coupled to, stretches of both."""

    def __init__(self) -> None:
        super().__init__()
        self.told, self.heard = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.stretch = _mlp(2 * WIDTH), _mlp(4 * WIDTH + 2)

    def forward(self, x: Tensor, e: Tensor, batch: Batch, coupling: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        behind, ahead, role, next_role, q = batch.stretches.T
        told, every = self.told(e).view(-1, 4, WIDTH), torch.arange(len(e))
        sums = (
            torch.zeros_like(x).index_add(0, behind, told[every, role]).index_add(0, ahead, told[every, 2 + next_role])
        )
        x = x + self.gate(torch.cat([x, sums], dim=1))
        wires = per_qubit(e, batch)
        a, b = batch.couples
        heard = functional.gelu(self.heard(wires)[b] + coupling) * strength
        wires = wires.index_add(0, a, heard)
        parts = [e, x[behind], x[ahead], wires[q], torch.stack([role, next_role], dim=1).float()]
        return x, e + self.stretch(torch.cat(parts, dim=1))


def per_qubit(e: Tensor, batch: Batch) -> Tensor:
    """Means over the stretches of each wire."""
    q = batch.stretches[:, 4]
    sums = torch.zeros(len(batch.alone), e.shape[1]).index_add(0, q, e)
    return sums / torch.bincount(q, minlength=len(sums))[:, None]


class Body(nn.Module):
    """Numbers for each stretch of wire, from the circuit, the Hamiltonian, and a latent for each qubit."""

    def __init__(self, layers: int, latent: int) -> None:
        super().__init__()
        self.node, self.alone, self.coupling = nn.Linear(8, WIDTH), nn.Linear(6 + latent, WIDTH), nn.Linear(18, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, batch: Batch, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, coupling = self.node(batch.nodes), self.coupling(batch.coupling)
        strength = batch.coupling.norm(dim=1, keepdim=True).tanh()
        alone = self.alone(batch.alone if z is None else torch.cat([batch.alone, z], dim=1))
        e = alone[batch.stretches[:, 4]]
        for layer in self.layers:
            x, e = layer(x, e, batch, coupling, strength)
        return e, coupling


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Body(2, 0), Body(3, LATENT)
        self.posterior = nn.Linear(WIDTH, 2 * LATENT)
        self.one = _mlp(WIDTH, len(AXES) * BINS)
        self.control, self.target, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, (qubits, LATENT) each."""
        mean, log_std = self.posterior(per_qubit(self.encoder(batch)[0], batch)).chunk(2, dim=1)
        return mean, log_std.clamp(-5.0, 2.0)

    def decode(self, batch: Batch, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of rotations (stretches, axes × bins) and of CX (pairs,)."""
        e, coupling = self.decoder(batch, z)
        control, target = batch.pairs.T
        mixed = self.control(e)[control] + self.target(e)[target] + coupling[batch.couple_of]
        return self.one(e), self.two(functional.gelu(mixed))[:, 0]

    def loss(self, whole: Batch, rest: Batch, free: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Nats a circuit of which `free` for each qubit are not charged; nats a gate; divergence of each qubit."""
        mean, log_std = self.encode(whole)
        z = mean + log_std.exp() * torch.randn(mean.shape, generator=rng)
        ones, twos = self.decode(rest, z)
        graphs = int(rest.graph_of_qubit[-1]) + 1
        top = torch.full((graphs,), -1e9).scatter_reduce(0, rest.graph_of_stretch, ones.detach().amax(dim=1), "amax")
        top = top.scatter_reduce(0, rest.graph_of_pair, twos.detach(), "amax")
        total = torch.zeros(graphs).index_add(
            0, rest.graph_of_stretch, (ones - top[rest.graph_of_stretch, None]).exp().sum(dim=1)
        )
        total = total.index_add(0, rest.graph_of_pair, (twos - top[rest.graph_of_pair]).exp())
        every = total.log() + top
        lost = (every[rest.ones[:, 0]] - ones[rest.ones[:, 1], rest.ones[:, 2]]).sum()
        lost = lost + (every[rest.twos[:, 0]] - twos[rest.twos[:, 1]]).sum()
        divergence = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum(dim=1)
        charged = torch.zeros(graphs).index_add(0, rest.graph_of_qubit, divergence - free).clamp(min=0.0)
        return lost / graphs + charged.mean(), lost / (len(rest.ones) + len(rest.twos)), divergence.mean()


# ---------------------------------------------------------------------- learning
def taken_out(circuit: Circuit, rng: np.random.Generator) -> frozenset[int]:
    """Gates to be put back: up to four on one or two qubits, or any number from anywhere."""
    size = len(circuit)
    if rng.random() < 0.5:
        return frozenset(rng.permutation(size)[: int(rng.integers(1, size + 1))].tolist())
    first, most = int(rng.integers(size)), int(rng.integers(1, MOST + 1))
    near = set(circuit[first].qubits)
    chosen = [k for k in range(first, size) if set(circuit[k].qubits) <= near]
    return frozenset(chosen[:most])


def read_fronts(path: Path) -> list[tuple[str, Circuit, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["problem"], Circuit(row["n_qubits"], row["gates"]), row["error"]) for row in rows]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    noise = torch.Generator().manual_seed(args.seed)
    rng, net = np.random.default_rng(args.seed), Autoencoder()
    rows = [(conditions(name), circuit) for name, circuit, _ in read_fronts(args.fronts) if len(circuit)]
    numbers = rng.permutation(len(rows))
    held, kept = numbers[: len(rows) // 20], numbers[len(rows) // 20 :]
    whole = [graph_of(circuit) for _, circuit in rows]
    print(f"{sum(p.numel() for p in net.parameters())} numbers, {len(kept)} circuits", flush=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps)

    def loss(chosen: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        told, circuits = [rows[k][0] for k in chosen], [rows[k][1] for k in chosen]
        rest = [graph_of(circuit, taken_out(circuit, rng)) for circuit in circuits]
        return net.loss(batch_of([whole[k] for k in chosen], told), batch_of(rest, told), args.free, noise)

    began = time.process_time()
    for step in range(args.steps):
        if step % 150 == 0 or step == args.steps - 1:
            with torch.no_grad():
                _, each, nats = loss(held, np.random.default_rng(0))
            print(
                f"{step} {time.process_time() - began:.0f} s: held out {each:.3f} nats a gate, {nats:.2f} a qubit",
                flush=True,
            )
        found, _, _ = loss(rng.choice(kept, args.batch), rng)
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    save_file(net.state_dict(), args.out)


def front_circuits(problem: str, seed: int, evaluations: int) -> list[dict[str, Any]]:
    """What a search ends with: the best of the population of each size that leads, and those nearly as good."""
    agent = EvolutionAgent(grow=False)
    with tempfile.TemporaryDirectory() as folder:
        qas.search(problem, agent=agent, evaluations=evaluations, seed=seed, out=Path(folder) / "run", report=False)
    return [
        {"problem": problem, "n_qubits": m.circuit.n_qubits, "error": m.error, "gates": m.circuit.to_list()}
        for two in agent._leading()
        for m in agent.cells[two]
        if two and m.error <= 1.5 * agent.cells[two][0].error + 1e-9
    ]


def make_fronts(args: argparse.Namespace) -> None:
    curves = [instance.name for name in CURVES for instance in load_family(name).train]
    names = (*SPINS, *curves)
    found = functools.partial(front_circuits, seed=args.seed, evaluations=args.evaluations)
    with args.out.open("w") as stream, ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for name, circuits in zip(names, pool.map(found, names), strict=True):
            stream.writelines(json.dumps(row) + "\n" for row in circuits)
            print(f"{name}: {len(circuits)} circuits", flush=True)


# ---------------------------------------------------------------------- proposals
class Proposer:
    """Puts gates into circuits of one problem.

    Args:
        problem: its name.
        model: file of a trained network; None: random weights.
    """

    def __init__(self, problem: str, model: str | None) -> None:
        self.net, self.told = _network(model), conditions(problem)

    @torch.no_grad()
    def put_in(
        self, circuits: Sequence[Circuit], counts: Sequence[int], rng: np.random.Generator, prior: Sequence[bool]
    ) -> list[Circuit]:
        """Each circuit with so many more gates, one after the other, for one latent."""
        found, n = list(circuits), circuits[0].n_qubits
        z = torch.from_numpy(rng.normal(size=(len(found), n, LATENT)).astype(np.float32))
        here = [k for k, known in enumerate(prior) if not known]
        if here:
            mean, log_std = self.net.encode(batch_of([graph_of(found[k]) for k in here], [self.told] * len(here)))
            z[here] = (mean + log_std.exp() * z[here].flatten(0, 1)).reshape(len(here), n, LATENT)
        for done in range(max(counts)):
            left = [k for k, count in enumerate(counts) if count > done]
            graphs = [graph_of(found[k]) for k in left]
            ones, twos = self.net.decode(batch_of(graphs, [self.told] * len(left)), z[left].flatten(0, 1))
            each_one = ones.split([len(graph.stretches) for graph in graphs])
            each_two = twos.split([len(graph.pairs) for graph in graphs])
            for k, graph, one, two in zip(left, graphs, each_one, each_two, strict=True):
                heap = torch.cat([one.flatten(), two]).double().softmax(0).cumsum(0).numpy()
                drawn = min(int(np.searchsorted(heap, rng.random() * heap[-1], side="right")), len(heap) - 1)
                found[k] = found[k].insert(*self._gate(graph, drawn, rng))
        return found

    def _gate(self, graph: Graph, drawn: int, rng: np.random.Generator) -> tuple[int, Gate]:
        each, stretches = len(AXES) * BINS, graph.stretches
        if drawn < len(stretches) * each:
            stretch, number = divmod(drawn, each)
            angle = (number % BINS + rng.random()) * 2 * math.pi / BINS
            return graph.at[stretch], Gate(AXES[number // BINS], (int(stretches[stretch, 4]),), (angle,))
        pair = drawn - len(stretches) * each
        first, second = (int(stretches[s, 4]) for s in graph.pairs[pair])
        return graph.at[len(stretches) + pair], Gate("cx", (first, second))


@functools.lru_cache(maxsize=2)
def _network(model: str | None) -> Autoencoder:
    torch.manual_seed(0)
    net = Autoencoder().eval()
    if model is not None:
        net.load_state_dict(load_file(model))
    return net


class ProposingAgent(EvolutionAgent):
    """Evolution whose guided children get their insertions from several sources by turns.

    Args:
        sources: among ``guided``, ``trained``, ``untrained`` and ``random``.
        model: file of the trained network.
        start: as of `EvolutionAgent`.
    """

    def __init__(self, *, sources: list[str], model: str, start: list[Any] | None = None) -> None:
        super().__init__(layers=0, grow=False, start=start)
        self.sources, self.model = list(sources), model

    def prepare(self, search: Any) -> None:
        super().prepare(search)
        name = search.problem.name
        used = [source for source in self.sources if source in ("trained", "untrained")]
        self.nets = {source: Proposer(name, self.model if source == "trained" else None) for source in used}
        self.waiting: dict[str, Any] = {source: weakref.WeakKeyDictionary() for source in self.nets}
        self.source, self.counts = "seed", {}
        """where the circuit in hand comes from; source -> children, those that came to lead, evaluations"""

    def _guided(self, guide: Any, parent: Any) -> tuple[Circuit, tuple[str, ...]]:
        source = self.sources[int(self.rng.integers(len(self.sources)))]
        if source in self.nets and self.rng.random() < 0.1:
            costs = np.argsort(self._removal(guide, parent), kind="stable").tolist()
            index = costs[min(int(self.rng.geometric(0.25)), len(costs)) - 1]
            return edited(parent.circuit, {index}, ()), ("removal", "from deletion")
        if source == "guided":
            circuit, used = super()._guided(guide, parent)
            return circuit, (*used, f"from {source if 'study' in used else 'deletion'}")
        if source == "random":
            return self._mutated(parent.circuit), (f"from {source}",)
        waiting = self.waiting[source].setdefault(parent, [])
        waiting += [] if waiting else self._proposed(guide, parent, source)
        circuit, used = waiting.pop()
        return circuit, (*used, f"from {source}")

    def _proposed(self, guide: Any, parent: Any, source: str) -> list[tuple[Circuit, tuple[str, ...]]]:
        """Some children of a parent at once: gates that cost little left out of every other one, and others put in."""
        rng, begun = self.rng, []
        for _ in range(AT_ONCE):
            deleted: set[int] = set()
            if rng.random() < 0.5:
                costs = np.argsort(self._removal(guide, parent), kind="stable").tolist()
                for _ in range(1 + rng.poisson(0.3)):
                    deleted.add(costs[min(int(rng.geometric(0.25)), len(costs)) - 1])
            begun.append((edited(parent.circuit, deleted, ()), ("removal",) * bool(deleted)))
        counts, prior = rng.integers(1, MOST + 1, AT_ONCE).tolist(), (rng.random(AT_ONCE) < 0.5).tolist()
        circuits = self.nets[source].put_in([circuit for circuit, _ in begun], counts, rng, prior)
        return [(circuit, used) for circuit, (_, used) in zip(circuits, begun, strict=True)]

    # What follows only counts.
    def _pay(self, member: Any, used: Any) -> None:
        told = [each for each in used if each.startswith("from ")]
        self.source = told[0].removeprefix("from ") if told else "blind" if self.source != "pruning" else "pruning"
        before = self.meter.evaluations
        super()._pay(member, [each for each in used if not each.startswith("from ")])
        self._tally(2, self.meter.evaluations - before)

    def _member(self, found: Any) -> Any:
        self._tally(0, 1)
        self._tally(2, found.evaluations)
        return super()._member(found)

    def _insert(self, member: Any) -> bool:
        leads = super()._insert(member)
        self._tally(1, int(leads and member.circuit.two_qubit_gates in self._leading()))
        return leads

    def _prune(self, member: Any) -> None:
        self.source = "pruning"
        super()._prune(member)
        self.source = "seed"

    def _tally(self, which: int, more: int) -> None:
        self.counts.setdefault(self.source, [0, 0, 0])[which] += more


# ---------------------------------------------------------------------- the test
class Task(NamedTuple):
    group: str
    problem: str
    seed: int
    contender: str
    evaluations: int


@functools.lru_cache(maxsize=1)
def known_circuits(path: Path) -> tuple[Starts, float]:
    """Circuits that were trained on, by problem; and how many gates they have for each qubit."""
    rows = read_fronts(path)
    found: dict[str, Known] = {}
    for name, circuit, error in rows:
        terms = found[name].terms if name in found else dict(qas.load_problem(name).hamiltonian.terms)
        known = found.setdefault(name, Known(circuit.n_qubits, terms, [], []))
        known.circuits.append(circuit)
        known.errors.append(error)
    return Starts(list(found.values())), statistics.mean(len(c) / c.n_qubits for _, c, _ in rows)


def start_of(task: Task, fronts: Path, model: str) -> list[Any] | None:
    kind = task.contender.removeprefix("start ")
    if kind == task.contender:
        return None
    problem, (starts, each) = qas.load_problem(task.problem), known_circuits(fronts)
    if kind == "nearest":
        circuit = starts.nearest(problem)
    else:
        proposer = Proposer(task.problem, model if kind == "trained" else None)
        rng, count = np.random.default_rng([task.seed, 7]), round(each * problem.n_qubits)
        circuit = proposer.put_in([Circuit(problem.n_qubits)], [count], rng, [True])[0]
    return circuit.to_list()


def run_task(task: Task, fronts: Path, model: str) -> dict[str, Any]:
    problem, began = qas.load_problem(task.problem), time.process_time()
    start = start_of(task, fronts, model)
    agent = ProposingAgent(sources=["guided"] if start else task.contender.split("+"), model=model, start=start)
    with tempfile.TemporaryDirectory() as folder:
        run = qas.search(
            problem, agent=agent, evaluations=task.evaluations, seed=task.seed, out=Path(folder) / "run", report=False
        )  # fmt: skip
        best = [(result.two_qubit_gates, result.error) for result in envelope(run.front)]
    gap, sizes = problem.product_state - problem.exact, range(3 * problem.n_qubits + 1)
    lowest = [min((error for two, error in best if two <= most), default=gap) / gap for most in sizes]
    return task._asdict() | {
        "front": statistics.mean(math.log10(min(1.0, max(FLOOR, each))) for each in lowest),
        "error": run.best.error,
        "seconds": round(time.process_time() - began, 2),
        "sources": json.dumps(agent.counts),
    }


def table(rows: list[dict[str, Any]]) -> str:
    head = ["problems", "contender", "runs", "front", "minus guided", "minus untrained twin", "CPU seconds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for group in GROUPS:
        here = {(row["contender"], int(row["seed"])): row for row in rows if row["group"] == group}
        for contender in CONTENDERS:
            mine = {seed: row for (name, seed), row in here.items() if name == contender}
            if mine:
                cells = [str(len(mine)), f"{statistics.mean(float(r['front']) for r in mine.values()):.3f}"]
                twin = contender.replace("trained", "untrained") if "untrained" not in contender else contender
                for rival in ("guided", twin):
                    pairs = [(row, here.get((rival, seed))) for seed, row in mine.items()]
                    apart = [float(row["front"]) - float(other["front"]) for row, other in pairs if other]
                    known = len(apart) > 1 and rival != contender
                    cells.append(f"{statistics.mean(apart):+.3f} ± {interval(apart):.3f}" if known else "–")
                cells.append(f"{statistics.mean(float(r['seconds']) for r in mine.values()):.1f}")
                lines.append(f"| {group} | {contender} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *by_source(rows)])


def by_source(rows: list[dict[str, Any]]) -> list[str]:
    """Children, those that came to lead the front, and the latter for each 1,000 evaluations, a mean over runs."""
    lines = ["| problems | contender | source | children | came to lead | of 1,000 evaluations |", "|---" * 6 + "|"]
    for group, contender in itertools.product(GROUPS, CONTENDERS[:6]):
        here = [row for row in rows if (row["group"], row["contender"]) == (group, contender)]
        for source in contender.split("+"):
            counts = np.array([json.loads(row["sources"]).get(source, [0, 0, 0]) for row in here]).reshape(-1, 3)
            children, led, _ = counts.sum(axis=0)
            rates = [1000 * run[1] / run[2] for run in counts if run[2]]
            mean = f"{statistics.mean(rates):.1f} ± {interval(rates):.1f}" if len(rates) > 1 else "–"
            lines.append(f"| {group} | {contender} | {source} | {children} | {led} | {mean} |")
    return lines


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("sources")]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["group"], int(row["seed"]), row["contender"])))
    temporary.replace(path)


def test(args: argparse.Namespace) -> None:
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    tasks = [
        Task(group, GROUPS[group][seed % len(GROUPS[group])], seed, contender, EVALUATIONS[group])
        for seed, group, contender in itertools.product(seeds, args.groups, args.contenders)
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runs.csv"
    rows = read_rows(path)
    done = {tuple(str(row[name]) for name in Task._fields) for row in rows}
    todo = [task for task in tasks if tuple(map(str, task)) not in done]
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_task, task, args.fronts, args.model) for task in todo]):
            row = future.result()
            rows.append({name: str(value) for name, value in row.items()})
            write_rows(path, rows)
            print(f"{row['problem']} {row['contender']} {row['seed']}: {row['front']:.3f}", flush=True)
    wanted = {tuple(map(str, task)) for task in tasks}
    result = table([row for row in rows if tuple(str(row[name]) for name in Task._fields) in wanted])
    (args.out / "table.md").write_text(f"Made by `{shlex.join(['python', *sys.argv])}`\n\n{result}\n")
    print(result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("fronts")
    made.add_argument("--evaluations", type=int, default=4000)
    made.add_argument("--jobs", type=int, default=1)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, required=True)
    made.set_defaults(run=make_fronts)
    learned = commands.add_parser("train")
    learned.add_argument("--fronts", type=Path, required=True)
    learned.add_argument("--steps", type=int, default=1200)
    learned.add_argument("--batch", type=int, default=32)
    learned.add_argument("--free", type=float, default=2.0, help="nats of the latent of each qubit that cost nothing")
    learned.add_argument("--seed", type=int, default=0)
    learned.add_argument("--out", type=Path, required=True)
    learned.set_defaults(run=train)
    tested = commands.add_parser("test")
    tested.add_argument("--fronts", type=Path, required=True)
    tested.add_argument("--model", required=True)
    tested.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    tested.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    tested.add_argument("--seeds", type=int, default=5)
    tested.add_argument("--first-seed", type=int, default=0)
    tested.add_argument("--jobs", type=int, default=1)
    tested.add_argument("--out", type=Path, required=True, help="folder for runs.csv and table.md")
    tested.set_defaults(run=test)
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
