"""Mitigated objectives: against Aer with the same recipe, differences, and their spread against sampling."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

import qas
from qas.circuits import Circuit, Gate
from qas.envs.builder import CircuitBuilderEnv
from qas.errors import NotPhysicalError, QasError
from qas.hamiltonians import Hamiltonian
from qas.mitigation import Linear, Noisy, Polynomial, Readout, ZeroNoise, make_objective, scaled, scored_by
from qas.mitigation.objectives import spelled
from qas.mitigation.sampling import groups_of
from qas.mitigation.simulator import CompiledMitigated, Mitigated
from qas.noise import NoiseModel, amplitude_damping, depolarizing, load_noise
from qas.registry import recorded
from qas.simulators import make_simulator
from qas.simulators.dense import density_matrix
from qas.testing.random import random_circuit, random_hamiltonian
from qas.testing.simulators import asymmetric_noise
from qas.vqe import Evaluator

SEED = 51_377_026
GATES = ("rx", "ry", "rz", "h", "cx", "cz", "swap")


def mumbai_patch() -> NoiseModel:
    return qas.load_device("fake_mumbai").patch(3, shape="line").noise()


def instance(noise: NoiseModel, n_gates: int = 14) -> tuple[Circuit, Hamiltonian]:
    """A circuit of gates that can be folded, on coupled pairs, and an operator with letters of all kinds."""
    rng = np.random.default_rng(SEED)
    circuit = random_circuit(3, n_gates, rng, gates=GATES)
    pairs = itertools.cycle(((0, 1), (2, 1), (1, 0), (1, 2)))
    gates = [Gate(g.name, next(pairs), g.angles) if len(g.qubits) == 2 else g for g in circuit]
    return Circuit(3, gates), random_hamiltonian(3, 14, rng)


# ---------------------------------------------------------------------- independent answers
def aer_state(circuit: Circuit, noise: NoiseModel, channels: int = 1, folds: int = 1) -> np.ndarray:
    """Aer's density matrix of a circuit whose noise, or whose two-qubit gates with it, are written out repeatedly.

    Qubits wait as the schedule of what is written out says.
    """
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import PTM, Kraus
    from qiskit_aer import AerSimulator

    quantum = QuantumCircuit(circuit.n_qubits)
    run = Circuit(circuit.n_qubits, [g for g in circuit for _ in range(folds if len(g.qubits) == 2 else 1)])
    for gate, waiting in zip(run, noise.idle_channels(run) or [[]] * len(run), strict=True):
        getattr(quantum, gate.name)(*gate.angles, *gate.qubits)
        ptm = noise.channel(gate.name, gate.qubits)
        maps = [] if ptm is None else [(gate.qubits, ptm)]
        for qubits, ptm in [*maps, *(((qubit,), ptm) for qubit, ptm in waiting)]:
            for _ in range(channels):
                quantum.append(Kraus(PTM(ptm)).to_instruction(), list(qubits))
    quantum.save_density_matrix()
    result = AerSimulator(method="density_matrix", zero_threshold=0.0).run(quantum).result()
    return np.asarray(result.data()["density_matrix"])


def letter_basis(letter: int) -> np.ndarray:
    """The rotation that turns a letter into Z."""
    hadamard = np.array([[1, 1], [1, -1]]) / math.sqrt(2)
    return {1: hadamard, 2: hadamard @ np.diag([1, -1j])}.get(letter, np.eye(2))


def read_distribution(state: np.ndarray, basis: np.ndarray, noise: NoiseModel) -> np.ndarray:
    """Probabilities of what is read of each outcome, the readout flipped bit by bit."""
    turn, assignment = np.eye(1), np.eye(1)
    for letter, (p01, p10) in zip(basis, noise.readout_flips(len(basis)), strict=True):
        turn = np.kron(letter_basis(int(letter)), turn)
        assignment = np.kron([[1 - p01, p10], [p01, 1 - p10]], assignment)
    return assignment @ np.diag(turn @ state @ turn.conj().T).real


def shot_values(hamiltonian: Hamiltonian, group: list[int], noise: NoiseModel, inverted: bool) -> np.ndarray:
    """What one outcome counts in a group's energy: products of ±1, or of (±1 - b) / a where readout is inverted."""
    values = np.zeros(1 << hamiltonian.n_qubits)
    flips = noise.readout_flips(hamiltonian.n_qubits)
    for outcome, term in itertools.product(range(len(values)), group):
        product = hamiltonian.coefficients[term]
        for q, letter in enumerate(hamiltonian.letters[term]):
            if letter:
                z = 1.0 - 2.0 * (outcome >> q & 1)
                p01, p10 = flips[q]
                product *= (z - (p10 - p01)) / (1 - p01 - p10) if inverted else z
        values[outcome] += product
    return values


def groups(hamiltonian: Hamiltonian) -> list[tuple[list[int], np.ndarray]]:
    return [(group, hamiltonian.letters[group].max(axis=0)) for group in groups_of(hamiltonian)]


def measured(state: np.ndarray, hamiltonian: Hamiltonian, noise: NoiseModel, inverted: bool) -> float:
    """The energy that endless measurements give."""
    return hamiltonian.identity + sum(
        float(read_distribution(state, basis, noise) @ shot_values(hamiltonian, group, noise, inverted))
        for group, basis in groups(hamiltonian)
    )


# ---------------------------------------------------------------------- energies
@pytest.mark.parametrize("noise", [load_noise("ibm-mumbai"), mumbai_patch(), asymmetric_noise()], ids=lambda m: m.name)
def test_readout_channel_and_folded_extrapolation_are_aers(noise: NoiseModel) -> None:
    circuit, operator = instance(noise)
    engine = make_simulator(noise)
    at = {f: measured(aer_state(circuit, noise, channels=f), operator, noise, True) for f in (1, 2, 3)}
    folded = {f: measured(aer_state(circuit, noise, folds=f), operator, noise, True) for f in (1, 3, 5)}
    limit = operator.identity
    lines = {
        "noisy:kappa=1": measured(aer_state(circuit, noise), operator, noise, False),
        "readout": at[1],
        "zne:nodes=1-3": (3 * at[1] - at[3]) / 2,
        "zne:nodes=1-2-3,fit=richardson": 3 * at[1] - 3 * at[2] + at[3],
        "zne:nodes=1-3,scale=fold": (3 * folded[1] - folded[3]) / 2,
        "zne:nodes=1-3-5,fit=richardson,scale=fold": (15 * folded[1] - 10 * folded[3] + 3 * folded[5]) / 8,
        "zne:nodes=1-2,fit=exponential": limit + (at[1] - limit) ** 2 / (at[2] - limit),
    }
    assert len({round(value, 6) for value in lines.values()}) == len(lines), "the instance must be able to fail"
    for text, expected in lines.items():
        found = make_objective(text).simulator(engine).estimate(circuit, operator)  # type: ignore[attr-defined]
        assert abs(found.mitigated - expected) < 1e-9 and not found.fell_back, text


@pytest.mark.parametrize("text", ["readout", "zne:nodes=1-2-4", "zne:nodes=1-3-5,fit=exponential", "zne:scale=fold"])
def test_gradients_and_slopes_are_differences_of_the_score(text: str) -> None:
    """With noise on some gates only, rz is the rotation that is inserted without noise of its own."""
    noise = NoiseModel("some").add(depolarizing(0.008), ["rx", "ry"]).add(depolarizing(0.015, 2), ["cx", "cz", "swap"])
    noise = noise.add(amplitude_damping(0.01), ["cx", "rx"]).add_readout(0.03, 0.01, [0]).add_readout(0.02, 0.05, [2])
    circuit, operator = instance(noise)
    # Far below the value at infinite noise, so that the exponential holds.
    operator = Hamiltonian.from_matrix(operator.to_matrix() - 3 * density_matrix(circuit))
    objective = make_objective(text + (",shots=500,kappa=2" if ":" in text else ":shots=500,kappa=2"))
    score: Any = objective.simulator(make_simulator(noise))
    value, gradient = score.expectation_and_gradient(circuit, operator)
    assert value == pytest.approx(score.expectation(circuit, operator), abs=1e-13)
    plain = Mitigated(noise, score.nodes, score.recipe)
    other, other_gradient = plain.expectation_and_gradient(circuit, operator)
    assert abs(value - other) < 1e-12 and np.abs(gradient - other_gradient).max() < 1e-11
    other, other_gradient = objective.simulator(make_simulator(noise, "torch")).expectation_and_gradient(
        circuit, operator
    )
    assert abs(value - other) < 1e-11 and np.abs(gradient - other_gradient).max() < 1e-10
    step = 1e-5

    def slope(made: Any) -> float:
        return (score.expectation(made(step), operator) - score.expectation(made(-step), operator)) / (2 * step)

    rows = np.eye(circuit.n_angles)
    expected = [slope(lambda h, row=row: circuit.with_angles(circuit.angles + h * row)) for row in rows]
    size = max(1.0, np.abs(expected).max())
    assert np.abs(expected).max() > 1e-2 and np.abs(gradient - expected).max() < 1e-8 * size
    found = score.insertion_gradients(circuit, operator, ["IIZ", "ZII"])
    for place in range(len(circuit) + 1):
        for column, qubit in enumerate((0, 2)):

            def made(angle: float, place: int = place, qubit: int = qubit) -> Circuit:
                return circuit.insert(place, Gate("rz", (qubit,), (angle,)))

            assert abs(found[place, column] - slope(made)) < 1e-8 * size


def test_costs_of_inserted_gates_are_exact_where_the_score_is_linear() -> None:
    noise = load_noise("ibm-mumbai")
    assert noise is not None
    circuit, operator = instance(noise)
    score = make_objective("zne:nodes=1-3,kappa=0").simulator(make_simulator(noise))
    _, costs = score.insertion_gradients(circuit, operator, ["IXI", "YII"], costs=True)
    here = score.expectation(circuit, operator)
    for place in (0, 5, len(circuit)):
        for column, gate in enumerate((Gate("rx", (1,), (0.0,)), Gate("ry", (2,), (0.0,)))):
            assert costs[place, column] == pytest.approx(
                score.expectation(circuit.insert(place, gate), operator) - here, abs=1e-12
            )


def test_edge_sizes() -> None:
    noise = NoiseModel.depolarizing(0.01, 0.02).add_readout(0.02, 0.04)
    for circuit, terms in ((Circuit(1), {"Z": 0.7}), (Circuit(2, [("h", 0), ("cx", (0, 1))]), {"ZZ": 1.0, "XX": 0.5})):
        score: Any = ZeroNoise().simulator(make_simulator(noise))
        value, gradient = score.expectation_and_gradient(circuit, Hamiltonian(terms))
        assert gradient.shape == (0,) and math.isfinite(value)
    constant = score.estimate(Circuit(2), Hamiltonian({"II": -2.0}))
    assert constant.score == pytest.approx(-2.0, abs=1e-12) and constant.sigma == 0.0


# ---------------------------------------------------------------------- what sampling costs
@pytest.mark.parametrize("text", ["noisy:kappa=1", "readout", "zne:nodes=1-3", "zne:nodes=1-2-3,fit=exponential"])
def test_sigma_is_the_spread_of_sampled_estimates(text: str) -> None:
    noise = asymmetric_noise(3)
    circuit, operator = instance(noise)
    objective = make_objective(f"{text}{',' if ':' in text else ':'}shots=60000")
    score: Any = objective.simulator(make_simulator(noise))
    rng, recipe, experiments = np.random.default_rng(SEED), score.recipe, 4000
    share = score.observable(operator).measured.share
    found = np.full((experiments, len(score.nodes)), operator.identity)
    for k, (node, part) in enumerate(zip(score.nodes, recipe.shares, strict=True)):
        state = density_matrix(circuit, node.noise)
        for (group, basis), weight in zip(groups(operator), share, strict=True):
            shots = round(60_000 * part * weight)
            counts = rng.multinomial(shots, read_distribution(state, basis, noise), size=experiments)
            found[:, k] += counts @ shot_values(operator, group, noise, recipe.inverted) / shots
    if recipe.exponential:
        limit = operator.identity
        estimates = limit + np.sign(found[0, 0] - limit) * np.exp(np.log(np.abs(found - limit)) @ recipe.fit)
    else:
        estimates = found @ recipe.fit
    exact = score.estimate(circuit, operator)
    assert exact.sigma == pytest.approx(estimates.std(), rel=0.05)
    assert exact.mitigated == pytest.approx(estimates.mean(), abs=5 * exact.sigma / math.sqrt(experiments) + 2e-3)
    assert exact.score == pytest.approx(exact.mitigated + objective.kappa * exact.sigma, abs=1e-12)


def test_a_whole_assignment_matrix_is_the_product_of_flips_where_it_is_one() -> None:
    noise = asymmetric_noise(3)
    circuit, operator = instance(noise)
    whole = np.eye(1)
    for p01, p10 in noise.readout_flips(3):
        whole = np.kron([[1 - p01, p10], [p01, 1 - p10]], whole)
    engine = make_simulator(noise)
    one, other = (
        Readout(assignment=matrix).simulator(engine).estimate(circuit, operator)  # type: ignore[attr-defined]
        for matrix in (None, whole.tolist())
    )
    assert other == pytest.approx(one, abs=1e-12)
    together: Any = Readout(assignment=(0.8 * whole + 0.2 * whole[::-1]).tolist())  # at times all qubits are misread
    found = together.simulator(engine).estimate(circuit, operator)
    assert found.mitigated == pytest.approx(one.mitigated, abs=1e-12) and found.sigma > 1.1 * one.sigma


# ---------------------------------------------------------------------- searching with them
def test_minimizations_stay_compiled_and_agree_in_threads() -> None:
    problem = qas.load_problem("h2-2")
    evaluator = Evaluator(problem, load_noise("ibm-mumbai"), objective="zne:nodes=1-3-5,fit=exponential")
    circuit = random_circuit(2, 8, np.random.default_rng(SEED), gates=("rx", "ry", "cx"))
    assert isinstance(evaluator.simulator, CompiledMitigated)
    assert hasattr(problem.objective(circuit, evaluator.simulator), "minimize_compiled")
    one = evaluator.evaluate(circuit, np.random.default_rng(1))
    many = list(evaluator.evaluate_many([circuit] * 4, [np.random.default_rng(1)] * 4, exact_start=True, workers=2))
    assert one.inverse_hessian is not None
    again = evaluator.evaluate(circuit, np.random.default_rng(1), exact_start=True)
    assert [found.energy for found in many] == [again.energy] * 4
    _, gradient = evaluator.simulator.expectation_and_gradient(one.circuit, problem.hamiltonian)
    assert np.abs(gradient).max() < 1e-3 and one.energy < evaluator.energy(circuit)


def test_the_environment_judges_by_the_objective() -> None:
    objective = "zne:nodes=1-3,kappa=0.5"
    env = CircuitBuilderEnv("h2-2", "ibm-mumbai", objective=objective)
    env.reset(seed=0)
    info = env.step(np.int64(len(env.actions) - 2))[-1]
    evaluator = Evaluator(env.problem, load_noise("ibm-mumbai"), objective=objective)
    assert info["energy"] == pytest.approx(evaluator.energy(info["circuit"]), abs=1e-12)
    with pytest.raises(QasError, match="leave it out beside an evaluator"):
        CircuitBuilderEnv("h2-2", objective=objective, evaluator=evaluator)


def test_a_run_keeps_its_objective_and_what_its_circuits_are_worth(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"agent": "evolution", "noise": "ibm-mumbai", "seed": 3, "report": False}
    objective = ZeroNoise(nodes="1-3-5", fit="richardson", shots=100_000)
    whole = qas.search("h2-2", objective=objective, evaluations=300, out=tmp_path / "a", **settings | {"report": True})
    assert whole.objective == "zne:nodes=1-3-5,fit=richardson,shots=100000"
    problem, best = whole.problem, whole.best
    assert isinstance(problem, qas.Problem) and best.outcomes is not None
    raw = Evaluator(problem, whole.noise)
    assert best.outcomes.noisy == pytest.approx(raw.energy(best.circuit), abs=1e-12)
    same = Evaluator(problem, whole.noise, objective=whole.objective)
    assert best.energy == pytest.approx(same.energy(best.circuit), abs=1e-12)
    assert best.energy == pytest.approx(best.outcomes.mitigated + best.outcomes.sigma, abs=1e-9)
    assert best.outcomes.reoptimized <= best.noise_free_energy + 1e-9
    assert problem.error(best.outcomes.noisy) > problem.error(best.outcomes.readout) > 0
    assert qas.load_run(whole.path).front == whole.front
    page = (whole.path / "report.html").read_text()
    assert "zne:nodes=1-3-5" in page and "readout inverted" in page
    from qas.agents.launch import resume

    qas.search("h2-2", objective=objective, evaluations=150, out=tmp_path / "b", **settings)
    again = resume(tmp_path / "b", evaluations=300, report=False)
    assert [r.energy for r in again.front] == [r.energy for r in whole.front]


def test_an_extrapolation_without_an_answer_becomes_a_line_and_says_so_once() -> None:
    noise = NoiseModel("decay").add(amplitude_damping(0.4), ["x"])
    circuit, operator = Circuit(1, [("x", 0), ("rx", 0, 0.0)]), Hamiltonian({"Z": 1.0})
    score: Any = ZeroNoise(fit="exponential", kappa=0.0).simulator(make_simulator(noise))
    at = [1 - 2 * 0.6**factor for factor in (1, 3)]
    assert at[0] < 0 < at[1]
    with pytest.warns(UserWarning, match="did not converge") as caught:
        values = [score.expectation(circuit, operator) for _ in range(3)]
    assert len(caught) == 1 and values == pytest.approx([(3 * at[0] - at[1]) / 2] * 3, abs=1e-12)
    assert np.isfinite(score.expectation_and_gradient(circuit, operator)[1]).all()
    evaluator = Evaluator(qas.problem({"Z": 1.0}), noise, objective=ZeroNoise(fit="exponential"))
    with pytest.warns(UserWarning, match="did not converge"):
        evaluator.evaluate(circuit, np.random.default_rng(0))


@pytest.mark.parametrize(
    "objective",
    [
        ZeroNoise(fit=Polynomial(degree=3), nodes=(1, 3, 5, 7, 9), scale="fold", shots=1000, kappa=0.5),
        ZeroNoise(fit=Polynomial(degree=None), nodes=(1, 1.123456789, 2)),
        ZeroNoise(fit=Linear()),
        ZeroNoise(fit="exponential"),
        Readout(kappa=2.0),
    ],
)
def test_what_an_objective_is_spelled_as_makes_it_again(objective: Any) -> None:
    for text in (spelled(objective), json.loads(json.dumps(recorded(objective)))):  # a run's folder has the latter
        again = make_objective(text)
        assert spelled(again) == spelled(objective).replace(",fit=linear", "").replace(":fit=linear", "")
        assert all(np.array_equal(one, other) for one, other in zip(again.recipe(), objective.recipe(), strict=True))
        assert getattr(again, "nodes", None) == getattr(objective, "nodes", None)


def test_noise_to_a_fractional_power_is_checked() -> None:
    noise = load_noise("ibm-mumbai")
    assert noise is not None
    half = scaled(noise, 1.5).channel("cx", (0, 1))
    cubed, whole = scaled(noise, 3).channel("cx", (0, 1)), noise.channel("cx", (0, 1))
    assert half is not None and cubed is not None and whole is not None
    assert np.abs(half @ half - cubed).max() < 1e-12 and np.abs(cubed - whole @ whole @ whole).max() < 1e-14
    swapped = NoiseModel("flip").add(depolarizing(4 / 3), ["x"])  # shrinks letters by -1/3: it has no real root
    with pytest.raises(NotPhysicalError, match="whole numbers"):
        scaled(swapped, 1.5).channel("x", (0,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("zne:nodes=3", "two or more different strengths"),
        ("zne:nodes=1-1", "two or more different strengths"),
        ("zne:nodes=0-1", "at least 1"),
        ("zne:nodes=1-2,scale=fold", "1, 3, 5"),
        ("zne:scale=pulse", "channel or fold"),
        ("zne:shots=0", "shots is a whole number of at least 1"),
        ("readout:shots=-5", "shots is a whole number of at least 1"),
        ("zne:kappa=-1", "kappa"),
        ("zne:fit=cubic", "cubic"),
        ("zne:node=1-3", "nodes"),
        ("zen", "zne"),
    ],
)
def test_bad_settings_are_one_line(given: str, words: str) -> None:
    with pytest.raises(QasError, match=words) as caught:
        make_objective(given)
    assert "\n" not in str(caught.value)


def test_objectives_that_mean_nothing_are_refused() -> None:
    problem = qas.load_problem("h2-2")
    noise = load_noise("ibm-mumbai")
    folded: Any = ZeroNoise(scale="fold").simulator(make_simulator(noise))
    lost = NoiseModel().add_readout(0.5, 0.5)
    bad = [
        (lambda: Evaluator(problem, objective="zne"), "needs noise"),
        (lambda: Evaluator(problem, noise, objective="zne", shots=100, optimizer="spsa"), "zne:shots=100"),
        (
            lambda: Evaluator(problem, noise, objective="zne", optimizer="rotosolve").evaluate(
                Circuit(2, [("rx", 0, 0.1)]), np.random.default_rng(0)
            ),
            "not linear",
        ),
        (lambda: folded.expectation(Circuit(2, [("rxx", (0, 1), 0.3)]), problem.hamiltonian), "rxx"),
        (lambda: Evaluator(problem, lost, objective="readout").energy(Circuit(2)), "p01 \\+ p10"),
        # A file would have said what the noise is before it is scaled.
        (lambda: qas.search(problem, noise=scaled(noise, 3.0), agent="random", steps=1), "3 times as strong"),
        (lambda: Readout(assignment=[[0.9, 0.2], [0.2, 0.8]]), "columns sum to 1"),
        (lambda: scored_by(Noisy(kappa=1), None), "without a device"),
    ]
    for call, words in bad:
        with pytest.raises(QasError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Evaluator(problem, noise).simulator.name == "pauli-transfer"
