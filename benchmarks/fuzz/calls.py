"""Calls from Python with values that do not fit: channels, noise models, operators, circuits, budgets, settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from values import Rng, pick, value

import qas
from qas.adapters.architecture import quantum_peft
from qas.agents import AGENTS
from qas.agents.settings import budget_of, check_config, make_agent
from qas.devices import Device
from qas.encoders.pools.pool import LabelSettings
from qas.encoders.pools.spaces import CircuitSpace
from qas.idle import Idle
from qas.meter import Budget
from qas.noise import Channel, NoiseModel, amplitude_damping, depolarizing, kraus, phase_damping, thermal_relaxation
from qas.registry import options_of, read_settings
from qas.vqe import Evaluator

RAW_WORDS = [
    "[[[" * 3000,
    "1e400",
    "NaN",
    "9" * 5000,
    "{",
    "null",
    "true",
    "",
    "-1",
    "0",
    "1e19",
    "a",
    '"a"',
    "[1,2]",
    "{}",
    "0.5",
]


def channels(rng: Rng) -> Any:
    """A channel, or a noise model and what it says of a circuit."""
    model = NoiseModel()
    v = [value(rng) for _ in range(4)]
    act = int(rng.integers(12))
    if act == 0:
        return Channel(v[0], v[1])
    if act == 1:
        return depolarizing(v[0], *([v[1]] if rng.random() < 0.5 else []))
    if act == 2:
        return thermal_relaxation(*v)
    if act == 3:
        return amplitude_damping(v[0], v[1])
    if act == 4:
        return phase_damping(v[0])
    if act == 5:
        return kraus(v[0] if rng.random() < 0.5 else [np.eye(2) * 0.5, v[0]], *v[1:2])
    if act == 6:
        return NoiseModel(v[0], coupling=v[1], n_qubits=v[2], readout={} if rng.random() < 0.5 else v[3])
    if act == 7:
        model = model.add_readout(v[0] if rng.random() < 0.5 else 0.1, v[1] if rng.random() < 0.5 else 0.1, v[2])
        return model.readout_flips(3)
    if act == 8:
        return NoiseModel.depolarizing(v[0], v[1])
    if act == 9:
        return model.add(
            v[0] if rng.random() < 0.2 else depolarizing(0.1), pick(rng, ["cx", ("rx",), v[1]]), v[2], target=v[3]
        )
    if act == 10:
        return qas.load_noise(v[0])
    return Idle.from_json({"t1": v[0], "t2": v[1], "durations": {"cx": v[2]}})


def operators(rng: Rng) -> Any:
    """An operator, and its lowest energy."""
    act = int(rng.integers(5))
    strings = ["XX", "ZI", "IY", "ZZ"]
    if act < 3:
        terms: Any = {s: float(rng.normal()) for s in strings[: int(rng.integers(1, 5))]}
        terms[pick(rng, strings)] = value(rng)
        if act == 2:
            terms = list(terms.items()) + [value(rng)] * int(rng.integers(2))
        made = qas.Hamiltonian(terms)
    elif act == 3:
        made = qas.Hamiltonian.read(value(rng))
    else:
        matrix: Any = np.diag(rng.normal(size=4)).astype(object)
        matrix[1, 1] = value(rng)
        made = qas.Hamiltonian.from_matrix(matrix)
    if made.n_qubits > 6:
        return made
    problem = qas.problem(made, name="fuzz", **({"threshold": value(rng)} if rng.random() < 0.2 else {}))
    circuit = qas.Circuit(made.n_qubits, [("ry", q, 0.3) for q in range(made.n_qubits)])
    return [problem.exact, problem.product_state, problem.energy(circuit)]


def circuits(rng: Rng) -> Any:
    """A circuit, and what it says of itself."""
    gates: list[Any] = [("rx", 0, 0.3), ("cx", (0, 1)), ("u", 1, 0.1, 0.2, 0.3)]
    for _ in range(int(rng.integers(1, 3))):
        gate = list(pick(rng, [g for g in gates if isinstance(g, tuple) and g] or [("x", 0)]))
        gate[int(rng.integers(len(gate)))] = value(rng)
        gates[int(rng.integers(len(gates)))] = pick(rng, [tuple(gate), value(rng)])
    circuit = qas.Circuit(value(rng) if rng.random() < 0.3 else 2, gates)
    if rng.random() < 0.3:
        circuit = circuit.with_angles(value(rng))
    return [circuit.depth, circuit.key, len(circuit.to_qasm()), circuit.angles]


def budgets(rng: Rng) -> Any:
    """A budget, a space of circuits, settings of labels, or the content of a configuration."""
    v = [value(rng) for _ in range(4)]
    act = int(rng.integers(6))
    if act == 0:
        return Budget(*v)
    if act == 1:
        config = {
            "seed": v[0],
            "max_gates": v[1],
            "gates": pick(rng, [None, v[3]]),
            "coupling": pick(rng, [None, v[2]]),
        }
        return check_config(config | {"options": {}, "evaluator": {}, "budget": budget_of(v[2], v[3], None, 5)})
    if act == 2:
        space = CircuitSpace(
            pick(rng, [2, v[0]]),
            max_gates=pick(rng, [4, v[1]]),
            min_gates=pick(rng, [None, v[2]]),
            max_depth=pick(rng, [None, v[3]]),
        )
        return space.sample(3, rng) if space.max_gates < 1000 else space
    if act == 3:
        return LabelSettings(v[0], v[1], v[2])
    if act == 4:
        return quantum_peft(pick(rng, [8, v[0]]), pick(rng, [1, v[1]]))[0].hash
    return Device.from_json(
        pick(
            rng,
            [v[0], {"name": v[1], "physical": [0, 1], "t1": v[2], "t2": [1e-4, 1e-4], "readout": v[3], "gates": {}}],
        )
    )


def settings(rng: Rng) -> Any:
    """Settings of agents and of the evaluator, as Python values and as words of the command line."""
    name = pick(rng, [*AGENTS, "evaluator"])
    kind: Any = Evaluator if name == "evaluator" else AGENTS[name]
    options = [o for o in options_of(kind) if o not in ("storage", "encoder", "pool", "start", "policy")]
    if not options:
        return None
    chosen = [pick(rng, options) for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.5:
        given: dict[str, Any] = read_settings(kind, [(o, pick(rng, RAW_WORDS)) for o in chosen])
    else:
        given = {o: value(rng) for o in chosen}
    if kind is Evaluator:
        return Evaluator(qas.load_problem("h2-2"), None, **given)
    return make_agent(name, given)


CLASSES = {"channels": channels, "operators": operators, "circuits": circuits, "budgets": budgets, "settings": settings}
