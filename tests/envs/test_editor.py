"""The circuit editor: gains and costs against slow twins, what edits make, what is counted, and what is handed out."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.spatial.distance import cdist

import qas
from qas.alphabet import Alphabet
from qas.circuits import Circuit, Gate
from qas.envs.builder import CircuitBuilderEnv
from qas.envs.candidates import FEATURES, KINDS, Bench, Draft, Limits, Table, sandwiched, scale_of, tabulated
from qas.envs.editor import DECADES, CircuitEditorEnv, Front
from qas.envs.families import Family, Instance
from qas.errors import QasError
from qas.guidance import Curvature, edited, gates_of
from qas.meter import Budget, Meter, SearchEnded
from qas.simulators.insertions import exact_hessian
from qas.testing.random import random_circuit
from qas.vqe import Evaluator

WIDE = Limits(1000, 1000)
COLUMN = {name: k for k, name in enumerate(FEATURES)}
ALPHABET = Alphabet(3, ("cx", "rx", "ry", "rz"))


def dense(circuit: Circuit, matrix: np.ndarray) -> float:
    psi = circuit.to_matrix()[:, 0]
    return float(np.vdot(psi, matrix @ psi).real)


def random_problem(rng: np.random.Generator, n: int = 3) -> qas.Problem:
    strings = {"".join(rng.choice(list("IXYZ"), n)): float(rng.normal()) for _ in range(10)}
    return qas.problem(strings | {"Z" * n: 0.4, "X" + "I" * (n - 1): 0.3}, name="random")


def drafted(circuit: Circuit, bench: Bench, inverse: np.ndarray | None = None) -> Draft:
    packed = None if inverse is None else Curvature(inverse[np.tril_indices(len(inverse))].astype(np.float32))
    return Draft(circuit, bench.evaluator.energy(circuit), packed, (0,) * len(circuit))


# ---------------------------------------------------------------------- what the table says
@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_gains_are_those_of_a_line_search_with_the_inserted_gates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    circuit = random_circuit(3, int(rng.integers(0, 8)), rng, ("cx", "rx", "ry", "rz"))
    bench, matrix = Bench(Evaluator(problem), ALPHABET), problem.hamiltonian.to_matrix()
    table = tabulated(bench, drafted(circuit, bench), 60, WIDE, probes=60)
    here, checked = dense(circuit, matrix), 0
    for edit in [e for e in table.edits if e is not None and e.place is not None and e.numbers["exact"]][::5]:
        place, won = edit.place, 0.0
        assert place is not None
        for k, best in enumerate(edit.angles):

            def energy(angle: float, k: int = k, place: Any = place) -> float:
                turns = [angle if j == k else 0.0 for j in range(len(place.slopes))]
                return dense(edited(circuit, (), [(place.position, gates_of(place.block.ways[0], turns))]), matrix)

            start = min(np.linspace(-math.pi, math.pi, 13), key=energy)
            lowest = minimize_scalar(
                energy, bounds=(start - 0.6, start + 0.6), method="bounded", options={"xatol": 1e-9}
            )
            won += here - lowest.fun
            assert energy(best) == pytest.approx(lowest.fun, abs=1e-7)
        assert edit.numbers["gain"] * bench.scale == pytest.approx(won, abs=1e-7)
        checked += 1
    assert checked


def test_costs_of_small_angles_are_what_leaving_them_out_costs_when_the_others_follow() -> None:
    small = 0.02
    terms = {"IZ": -1.0, "ZI": -0.6, "ZZ": -0.3}
    moved = {"IX": 1.0, "XI": 0.5, "XX": 0.7, "YX": 0.4}
    problem = qas.problem(terms | {s: small * c for s, c in moved.items()}, name="nearly-diagonal")
    turns = [("ry", 0, 0.0), ("ry", 1, 0.0), ("cx", (0, 1)), ("ry", 0, 0.0), ("rx", 0, 0.0), ("cx", (0, 1))]
    circuit = Circuit(2, turns)
    bench = Bench(Evaluator(problem), Alphabet(2))
    objective = problem.objective(circuit)

    def lowest(free: list[int]) -> Any:
        def part(x: np.ndarray) -> tuple[float, np.ndarray]:
            angles = np.zeros(circuit.n_angles)
            angles[free] = x
            value, slope = objective.value_and_gradient(angles)
            return value, slope[free]

        return minimize(part, np.full(len(free), 0.01), jac=True, method="BFGS", options={"gtol": 1e-9})

    found = lowest([0, 1, 2, 3])
    hessian = exact_hessian(lambda x: objective.value_and_gradient(x)[1], found.x)
    draft = drafted(circuit.with_angles(found.x), bench, np.linalg.inv(hessian))
    table = tabulated(bench, draft, 40, WIDE)
    costs = {e.deleted: e.numbers["cost"] * bench.scale for e in table.edits if e is not None and "cost" in e.numbers}
    slots = {
        frozenset([0]): [0],
        frozenset([1]): [1],
        frozenset([3]): [2],
        frozenset([4]): [3],
        frozenset([3, 4]): [2, 3],
    }
    assert costs.keys() == slots.keys() and sandwiched(circuit) == [frozenset([3, 4])]
    for gone, angles in slots.items():
        rise = lowest([k for k in range(4) if k not in angles]).fun - found.fun
        assert rise > 1e-6 and costs[gone] == pytest.approx(rise, rel=0.03)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(3)))
def test_qubits_in_another_order_give_the_same_rows_in_another_order(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    circuit = random_circuit(3, 4, rng, ("cx", "ry", "rz"))

    def moved(string: str) -> str:
        letters = dict(zip(order, reversed(string), strict=True))
        return "".join(letters[q] for q in reversed(range(3)))

    terms = {moved(s): c for s, c in problem.hamiltonian.terms.items()}
    gates = [Gate(g.name, tuple(order[q] for q in g.qubits), g.angles) for g in circuit]
    rows = []
    for each, made in ((problem, circuit), (qas.problem(terms, name="moved"), Circuit(3, gates))):
        bench = Bench(Evaluator(each), Alphabet(3, ("cx", "ry", "rz")))
        table = tabulated(bench, drafted(made, bench), 400, WIDE)
        rows.append(table.features[table.mask].astype(float))
        assert table.mask.sum() < 350, "none is cut off"
    assert len(rows[0]) == len(rows[1])
    apart = cdist(rows[0], rows[1], "chebyshev")
    assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-4


def test_scales_are_known_without_solving_anything_and_move_with_the_unit() -> None:
    terms = {"ZZ": 3.0, "XX": 0.3, "YY": -0.4, "II": 7.0}
    assert scale_of(qas.Hamiltonian(terms)) == pytest.approx(0.5)
    assert scale_of(qas.Hamiltonian({"ZZ": 3.0, "ZI": 4.0, "II": 1.0})) == pytest.approx(5.0)
    tables = []
    for factor in (1.0, 32.0):
        problem = qas.problem({s: factor * c for s, c in terms.items()}, name="scaled")
        bench = Bench(Evaluator(problem), Alphabet(2))
        circuit = Circuit(2, [("ry", 0, 0.3), ("cx", (0, 1)), ("rz", 1, 0.2)])
        tables.append(tabulated(bench, drafted(circuit, bench, np.eye(2) / factor), 30, WIDE).features)
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-5)


# ---------------------------------------------------------------------- what edits do
def played(env: CircuitEditorEnv, rng: np.random.Generator, count: int) -> list[tuple[Any, ...]]:
    """Random legal edits, none of them `stop`."""
    found = []
    for _ in range(count):
        legal = [k for k in np.flatnonzero(env.action_masks()) if env.table.edits[k].kind != "stop"]  # type: ignore[union-attr]
        found.append(env.step(int(rng.choice(legal))))
    return found


@pytest.mark.parametrize(
    ("problem", "given_settings"),
    [
        ("h2-4", {}),
        ("tfim-3", {"gates": ("cz", "ry", "rz"), "coupling": [(0, 1), (1, 2)], "probes": 4}),
        ("h2-4", {"gates": ("single_excitation", "double_excitation", "rx")}),
        ("h2-2", {"device": "fake_torino", "max_two_qubit_gates": 3}),
    ],
    ids=["rotations", "coupling", "excitations", "device"],
)
def test_every_edit_makes_a_circuit_of_the_alphabet_with_the_energy_that_is_told(
    problem: str, given_settings: dict[str, Any]
) -> None:
    env = CircuitEditorEnv(problem, candidates=24, max_edits=100, evaluations_each=10, **given_settings)
    rng = np.random.default_rng(5)
    env.reset(seed=5)
    kinds = set()
    for _ in range(6):
        state = env.get_state()
        for action in np.flatnonzero(env.action_masks()):
            env.set_state(state)
            obs, _, _, _, info = env.step(int(action))
            assert env.observation_space.contains(obs)
            circuit = info["circuit"]
            native = env.alphabet.native
            for gate in circuit:
                assert (native.has(gate) or gate.name in "z s sdg t tdg") if native else env.alphabet.index(gate) >= 0
            assert circuit.two_qubit_gates <= env.limits.two_qubit_gates and len(circuit) <= env.limits.gates
            assert info["energy"] == pytest.approx(env.bench.evaluator.energy(circuit), abs=1e-9)
            assert info["edit"] in KINDS
            kinds.add(info["edit"])
        env.set_state(state)
        played(env, rng, 1)
    assert {"deletion", "shake", "undo", "stop"} <= kinds and kinds & {"rotation", "entangler", "excitation"}


@pytest.mark.parametrize("device", ["fake_torino", "fake_brisbane"])
def test_no_edit_makes_a_native_circuit_longer_than_it_may_be(device: str) -> None:
    settings: dict[str, Any] = {"candidates": 24, "max_edits": 100, "evaluations_each": 2, "max_gates": 40}
    env = CircuitEditorEnv("heisenberg-3", device=device, **settings)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    longest = 0
    for _ in range(30):
        placed = [k for k, edit in enumerate(env.table.edits) if edit is not None and edit.place is not None]
        others = [k for k, edit in enumerate(env.table.edits) if edit is not None and edit.deleted]
        longest = max(longest, *(len(env.foreseen(k)[0].circuit) for k in placed or others))
        env.step(int(rng.choice(placed or others)))
    assert 38 <= longest <= 40


def test_what_is_too_long_in_native_gates_takes_no_row_and_no_probe() -> None:
    problem, alphabet = qas.load_problem("heisenberg-3"), Alphabet(3, ("rz", "sx", "x", "cz"))
    bench, rng = Bench(Evaluator(problem), alphabet), np.random.default_rng(4)
    circuit = alphabet.simplified(random_circuit(3, 40, rng, alphabet.moves.gates), problem)

    def table(most: int, probes: int = 0) -> Table:
        return tabulated(bench, drafted(circuit, bench), 24, Limits(100, most), probes=probes)

    def inserted(table: Table) -> set[str]:
        return {edit.key for edit in table.edits if edit is not None and edit.place is not None}

    anything, near, nothing = table(1000), table(len(circuit) + 6), table(0)
    assert len(inserted(anything)) == len(inserted(near)) == 24 - 4 - 6 and not inserted(nothing)
    assert inserted(anything) != inserted(near), "some were too long"
    assert table(0, probes=3).evaluations - nothing.evaluations == 3, "of deletions alone"


def test_what_is_left_out_between_equal_gates_takes_them_along() -> None:
    env = CircuitEditorEnv("h2-2", max_edits=20)
    _, info = env.reset(seed=0, options={"circuit": Circuit(2, [("ry", 0, 0.4), ("cx", (0, 1)), ("ry", 0, 0.3),
                                                                ("rx", 0, 0.1), ("cx", (0, 1))])})  # fmt: skip
    both = next(k for k, e in enumerate(env.table.edits) if e is not None and len(e.deleted) == 2)
    assert env.table.features[both, COLUMN["two_qubit_gates"]] == -0.5
    _, _, _, _, after = env.step(both)
    assert (info["two_qubit_gates"], after["two_qubit_gates"]) == (2, 0)


def test_every_evaluation_is_counted_and_the_budget_ends_the_game() -> None:
    problem = qas.load_problem("lih-4")
    meter = Meter(Evaluator(problem), Budget(evaluations=400))
    env = CircuitEditorEnv(problem, evaluator=meter, evaluations_each=12, probes=2)
    _, info = env.reset(seed=0)
    told, rng = info["evaluations"], np.random.default_rng(0)
    with pytest.raises(SearchEnded):
        while True:
            told += played(env, rng, 1)[0][-1]["evaluations"]
            assert told == meter.evaluations
    assert meter.evaluations == 400


def test_angles_that_the_evaluator_left_unfinished_can_be_optimised_on() -> None:
    problem = qas.load_problem("lih-4")
    circuit = random_circuit(4, 12, np.random.default_rng(0), ("ry", "rz", "cx"))
    for most, offered in ((5, True), (500, False)):
        env = CircuitEditorEnv(problem, evaluator=Evaluator(problem, max_evaluations=most), evaluations_each=400)
        env.reset(seed=0, options={"circuit": circuit})
        assert any(edit is not None and edit.kind == "optimise" for edit in env.table.edits) == offered


def test_rewards_add_up_to_the_area_under_the_front() -> None:
    env = CircuitEditorEnv("h2-4", max_edits=12)
    _, info = env.reset(seed=2)
    found = played(env, np.random.default_rng(2), 12)
    assert [each[3] for each in found] == [False] * 11 + [True] and not any(each[2] for each in found)
    assert sum(each[1] for each in found) == pytest.approx(found[-1][-1]["area"] - info["area"])
    with pytest.raises(ResetNeeded):
        env.step(0)


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(1e-8, 10.0)), max_size=12))
def test_the_front_keeps_the_best_of_every_size(points: list[tuple[int, float]]) -> None:
    front = Front(2.0, 5)
    for two, error in points:
        front.add(Circuit(2, [("cx", (0, 1))] * two), error)
    heights = [
        min(DECADES, max([0.0, *(math.log10(2.0 / error) for two, error in points if two <= most)]))
        for most in range(6)
    ]
    assert front.area == pytest.approx(sum(heights) / 6 / DECADES, abs=1e-12)
    kept = sorted((two, error) for two, (error, _) in front.best.items())
    assert all(a[1] > b[1] for a, b in zip(kept, kept[1:], strict=False))


def test_a_state_goes_on_as_the_unbroken_episode() -> None:
    first, second = (CircuitEditorEnv("lih-4", evaluations_each=8) for _ in range(2))
    first.reset(seed=3)
    played(first, np.random.default_rng(0), 5)
    state = json.loads(json.dumps(first.get_state()))
    _, info = second.set_state(state)
    assert info["evaluations"] == 0 and info["circuit"] == first.circuit
    for action in (0, 9, 29, 30, 1):
        one, two = (env.step(action if env.action_masks()[action] else 29) for env in (first, second))
        assert one[1:4] == two[1:4] and one[4]["circuit"] == two[4]["circuit"]
        np.testing.assert_array_equal(one[0]["candidates"], two[0]["candidates"])
        np.testing.assert_array_equal(one[0]["general"], two[0]["general"])
    assert second.get_state() == first.get_state()
    with pytest.raises(QasError, match="features"):
        second.set_state(state | {"features": 0})
    for limit in ("max_edits", "max_two_qubit_gates", "max_gates", "probes"):
        with pytest.raises(QasError, match=f"the state has {limit} .*, but the environment has 3"):
            CircuitEditorEnv("lih-4", evaluations_each=8, **{limit: 3}).set_state(state)
    with pytest.raises(QasError, match="malformed"):
        second.set_state(state | {"draft": state["draft"] | {"ages": [1]}})


def test_drawn_instances_of_one_name_are_told_apart_and_a_state_knows_them() -> None:
    def drawn(rng: np.random.Generator) -> Instance:
        return Instance(qas.problem({"ZZ": 1.0, "XI": float(rng.normal()), "IX": 0.5}), "fake_torino", "noisy")

    family = Family("drawn", "two qubits in a random field", (Instance("tfim-2"),), drawn=drawn)
    first, second = (CircuitEditorEnv(family=family, evaluations_each=4) for _ in range(2))
    exact = set()
    for _ in range(3):
        first.reset(seed=None if exact else 1)
        assert isinstance(first.instance.problem, qas.Problem) and first.problem.exact == first.instance.problem.exact
        exact.add(first.problem.exact)
    assert len(exact) == 3
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert second.get_state() == first.get_state() and second.problem.exact == first.problem.exact
    actions = np.flatnonzero(first.action_masks())
    assert first.step(actions[0])[1:4] == second.step(actions[0])[1:4]
    other = Instance(first.instance.problem, "fake_torino", "zne")
    first.reset(options={"instance": other})
    assert isinstance(first.bench.evaluator, Evaluator) and first.bench.evaluator.objective != "noisy"
    assert type(first.bench.evaluator.objective) is not type(second.bench.evaluator.objective)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- as others see it
def test_it_is_an_environment_for_gymnasium_and_stable_baselines() -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = gymnasium.make("qas/CircuitEditor-v0", family="xxz-ring", max_edits=4, evaluations_each=5).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        check_for_sb3(env)
    made = [lambda: gymnasium.make("qas/CircuitEditor-v0", problem="h2-2", max_edits=3)] * 2
    vector = gymnasium.vector.SyncVectorEnv(made)
    obs, info = vector.reset(seed=0)
    assert obs["candidates"].shape == (2, 32 * len(FEATURES)) and info["action_mask"].shape == (2, 32)
    assert vector.step(np.array([28, 31]))[2].tolist() == [True, True], "a row without an edit stops, as stop does"


def test_instances_of_any_size_share_one_space() -> None:
    env = CircuitEditorEnv(family="lih-4-curve", part="test", evaluations_each=5)
    names = [env.reset(seed=0)[1]["instance"] for _ in range(3)]
    assert names == [each.name for each in qas.load_family("lih-4-curve").test[:3]]
    for asked in ("xxz-chain-6-0", qas.load_family("lih-4-curve").train[0], "h2-2"):
        obs, info = env.reset(options={"instance": asked})
        assert env.observation_space.contains(obs) and info["instance"] == getattr(asked, "name", asked)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "a problem or a family, got neither"),
        ({"problem": "h2-2", "family": "xxz-ring"}, "got both"),
        ({"family": "xxz-rings"}, "did you mean 'xxz-ring'"),
        ({"family": "xxz-ring", "noise": "ibm-mumbai"}, "got noise beside it"),
        ({"family": "xxz-ring", "part": "all"}, "train"),
        ({"problem": "h2-2", "reward": "frnt"}, "did you mean 'front'"),
        ({"problem": "h2-2", "candidates": 3}, "candidates"),
        ({"problem": "adapter-8"}, "needs a Hamiltonian"),
        ({"problem": "h2-2", "gates": ("cx", "x")}, "rotations among the gates"),
        ({"problem": "h2-2", "patch": "line"}, "a patch is one of a device"),
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(QasError, match=words) as told:
        CircuitEditorEnv(**arguments)
    assert "\n" not in str(told.value)


def test_bad_resets_are_told_in_one_line() -> None:
    env = CircuitEditorEnv("h2-2", max_two_qubit_gates=1)
    for options, words in (
        ({"circut": None}, "did you mean 'circuit'"),
        ({"instance": "h2-4"}, "is for h2-2"),
        ({"instance": [1]}, "."),
        ({"circuit": Circuit(3)}, "as many qubits"),
        ({"circuit": Circuit(2, [("swap", (0, 1))])}, "got swap"),
        ({"circuit": Circuit(2, [("cx", (0, 1)), ("ry", 1, 0.1), ("cx", (0, 1))])}, "at most 1 two-qubit gates"),
    ):
        with pytest.raises(QasError, match=words):
            env.reset(options=options)
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_gates_and_noise_fit_together_as_in_the_builder() -> None:
    """A pair that the device does not couple would have no error."""
    noise = qas.load_device("fake_lagos").noise()
    assert noise.coupling is not None and (0, 3) not in noise.coupling
    for kind in (CircuitEditorEnv, CircuitBuilderEnv):
        with pytest.raises(QasError, match="the noise couples only"):
            kind("lih-4", noise=noise, coupling=[(0, 3)])
        with pytest.raises(QasError, match="describes 7 qubits, but tfim-8 has 8"):
            kind("tfim-8", noise=noise)
