"""The circuit editor: a Gymnasium environment in which an action inserts gates anywhere, leaves some out, or stops."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from qas.alphabet import Alphabet
from qas.checks import shortened, whole_number
from qas.circuits import Circuit, Gate
from qas.devices import Device
from qas.envs.candidates import BOUND, FEATURE_VERSION, FEATURES, GENERAL, Bench, Draft, Edit, Limits, Table, tabulated
from qas.envs.families import Family, Instance, load_family
from qas.envs.settings import judged_by, told
from qas.errors import QasError, UnknownNameError
from qas.guidance import Curvature
from qas.mitigation.objectives import Scored
from qas.noise import NoiseModel
from qas.problems import BaseProblem, Problem, load_problem
from qas.vqe import CircuitEvaluator, Evaluation

Observation = dict[str, np.ndarray]

DECADES = 4.0
"""Powers of ten below the best basis state's error down to which the front counts."""
PARTS = ("train", "test")
STARTS = ("reference", "empty")

_SHAKEN = 0.2
"""Standard deviation, in radians, of what is added to all angles when they are shaken."""
_LONGER = 4
"""Times the limit of evaluations, where all that is asked for is to optimise further."""
_TWO_EACH = 4
"""Two-qubit gates for each qubit that circuits may have, where the caller does not say."""
_GATES_EACH = 25
"""Gates for each qubit, likewise."""
_KEPT = 64
"""Instances whose tables are kept."""
_LEAST_WON = 1e-9
"""Of the scale: what counts as lower."""
_OPTIONS = ("instance", "circuit")
_STATE = "qas-circuit-editor"
_STATE_VERSION = 3


class Edited(NamedTuple):
    """What a reward may look at."""

    energy: float
    """after the edit, problem's unit"""
    previous_energy: float
    gap: float
    """error of the best basis state, problem's unit; see `gap_of`"""
    area: float
    """under the front after the edit; see `Front.area`"""
    previous_area: float
    kind: str
    """of the edit"""


EditReward = Callable[[Edited], float]


def front_progress(step: Edited) -> float:
    """What the front has gained in area: all rewards of an episode add up to at most 1."""
    return step.area - step.previous_area


def energy_won(step: Edited) -> float:
    """The energy won, as a share of the best basis state's error, clipped to [-1, 1]."""
    return max(-1.0, min(1.0, (step.previous_energy - step.energy) / step.gap))


EDIT_REWARDS: dict[str, EditReward] = {"front": front_progress, "energy": energy_won}
"""Name -> what an edit is worth; the first is the default."""


class Front:
    """The best circuit of each number of two-qubit gates, and the area under their log errors.

    Args:
        gap: error at which it begins, problem's unit; see `gap_of`.
        most: two-qubit gates that count.
    """

    def __init__(self, gap: float, most: int) -> None:
        self.gap, self.most = gap, most
        self.best: dict[int, tuple[float, Circuit]] = {}
        """two-qubit gates -> (error, circuit), where no smaller circuit is as good"""

    def add(self, circuit: Circuit, error: float) -> bool:
        """Take in a circuit; whether it is better than all that have no more two-qubit gates."""
        two = circuit.two_qubit_gates
        if any(other <= two and held <= error for other, (held, _) in self.best.items()):
            return False
        self.best = {k: each for k, each in self.best.items() if k < two or each[0] < error}
        self.best[two] = error, circuit
        return True

    @property
    def area(self) -> float:
        """Mean over 0 … `most` two-qubit gates of log10(gap / error) of the best circuit with no more, from 0 to 1.

        Errors count up to the gap and down to ``10**-DECADES`` of it.
        """
        heights, lowest = 0.0, math.inf
        for two in range(self.most + 1):
            lowest = min(lowest, self.best.get(two, (math.inf,))[0])
            share = max(lowest / self.gap, 10**-DECADES)
            heights += -math.log10(share) / DECADES if share < 1.0 else 0.0
        return heights / (self.most + 1)


class CircuitEditorEnv(gymnasium.Env[Observation, np.int64]):
    """Edit a circuit: every action inserts gates, leaves gates out, or tries again; then all angles are optimised.

    ## Action Space

    `Discrete(candidates)`: a row of the table of edits that `info["action_mask"]` and `action_masks()` allow. A row
    that holds no edit stops the episode like `stop`, and `info["illegal"]` is True.

    ## Observation Space

    `Dict` of

    | key | space | meaning |
    |---|---|---|
    | candidates | Box, float32, shape (candidates * features,) | the table, row by row; see `qas.envs.candidates` |
    | general | Box, float32, shape (len(GENERAL),) | the circuit as a whole |

    `obs["candidates"].reshape(-1, len(FEATURES))` has an edit each row; it is flat because learners expect vectors or
    images. All numbers are dimensionless, so that a policy carries over between problems and sizes; none knows the
    exact energy. The same problem with its qubits in another order has the same rows in another order.

    ## Rewards

    "front": what the front of the episode's circuits, log error against two-qubit gates, gains in area (`Front.area`);
    what an episode earns adds up to at most 1. "energy": the energy won, as a share of the best basis state's error,
    clipped to [-1, 1]. Or a function of `Edited`.

    ## Starting State

    With `family` an instance that it draws, else the problem. The circuit is the reference determinant (of a molecule
    Hartree-Fock, else the lowest basis state) or empty. `reset(options={"instance": …, "circuit": …})`: an `Instance`,
    the name of a problem or of an instance of the family, and a circuit whose gates are in `env.alphabet`; its angles
    are optimised first.

    ## Episode End

    `terminated`: `stop` was chosen. `truncated`: after `max_edits` edits. A further `step` raises
    `gymnasium.error.ResetNeeded`.

    ## Info

    `circuit`, `energy`, `error` (energy minus exact value), `two_qubit_gates`, `evaluations` (calls of the objective
    in this step, those of the next table among them), `action_mask`, `instance` (its name), `edit` (kind of the edit),
    `area`, `illegal`.

    ## Arguments

    Args:
        problem: a `Problem` of a Hamiltonian or a name of `qas.list_problems()`; None with a family.
        family: a `Family` or a name of `qas.envs.list_families()`, instead of a problem.
        part: "train" draws instances to train on, "test" those of the family's test in turn.
        candidates: rows of the table, at least 8.
        max_edits: edits of an episode.
        max_two_qubit_gates: most two-qubit gates of a circuit; None: 4 for each qubit.
        max_gates: most gates; None: 25 for each qubit.
        evaluations_each: most evaluations of an edit's optimisation, which begins with what its parent's knew of the
            curvature.
        probes: energies spent on each table to make gains and costs exact; see `qas.envs.candidates.tabulated`.
        reward: "front", "energy" or a function.
        start: "reference" or "empty".
        noise, device, patch, objective, gates, coupling, directions, evaluator: of a single problem, as of
            `CircuitBuilderEnv`.
        render_mode: "ansi" (text), or None.

    Raises:
        UnknownNameError: an unknown problem, family, part, start or reward.
        QasError: arguments that are malformed or do not fit together, or a problem whose energies have no exact slopes.

    ## Version History

    * v0: first version.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 2}  # noqa: RUF012
    feature_version = FEATURE_VERSION

    front: Front
    """the best circuits of the episode"""
    _table: Table
    _draft: Draft
    _previous: Draft | None
    _tried: dict[str, int]
    _general: np.ndarray
    _edits: int

    def __init__(
        self,
        problem: str | BaseProblem | None = None,
        *,
        family: str | Family | None = None,
        part: str = "train",
        candidates: int = 32,
        max_edits: int = 40,
        max_two_qubit_gates: int | None = None,
        max_gates: int | None = None,
        evaluations_each: int = 30,
        probes: int = 0,
        reward: str | EditReward = "front",
        start: str = "reference",
        noise: str | NoiseModel | None = None,
        device: str | Device | None = None,
        patch: str | Sequence[int] | None = None,
        objective: str | Mapping[str, Any] | type[Scored] | Scored | None = None,
        gates: Sequence[str] | None = None,
        coupling: Iterable[Sequence[int]] | None = None,
        directions: Iterable[Sequence[int]] | None = None,
        evaluator: CircuitEvaluator | None = None,
        render_mode: str | None = None,
    ) -> None:
        if (problem is None) == (family is None):
            raise QasError("the editor takes a problem or a family, got " + ("neither" if problem is None else "both"))
        for what, given, known in (("part of a family", part, PARTS), ("start", start, STARTS)):
            if given not in known:
                raise UnknownNameError(what, given, known)
        if isinstance(reward, str) and reward not in EDIT_REWARDS:
            raise UnknownNameError("reward of the editor", reward, EDIT_REWARDS)
        if not isinstance(reward, str) and not callable(reward):
            raise QasError(f"a reward is a name or a function, got {shortened(reward)}")
        if render_mode not in (None, "ansi"):
            raise QasError(f"render_mode is 'ansi' or None, got {render_mode!r}")
        self.family = None if family is None else load_family(family)
        self.part, self.start, self.render_mode = part, start, render_mode
        self.candidates = whole_number("candidates", candidates, 8)
        self.max_edits = whole_number("max_edits", max_edits)
        self.evaluations_each = whole_number("evaluations_each", evaluations_each)
        self.probes = whole_number("probes", probes, 0)
        self._limits = tuple(
            None if given is None else whole_number(name, given)
            for name, given in (("max_two_qubit_gates", max_two_qubit_gates), ("max_gates", max_gates))
        )
        self.reward: EditReward = EDIT_REWARDS[reward] if isinstance(reward, str) else reward
        self._settings: dict[str, Any] = {
            "noise": noise, "device": device, "patch": patch, "objective": objective, "gates": gates,
            "coupling": coupling, "directions": directions, "evaluator": evaluator,
        }  # fmt: skip
        beside = [name for name, value in self._settings.items() if value is not None and name != "gates"]
        if self.family is not None and beside:
            raise QasError(f"a family says itself where its instances run, got {beside[0]} beside it")
        self._benches: OrderedDict[str, tuple[Instance, Bench]] = OrderedDict()
        self._turn = 0
        self.observation_space: spaces.Space[Observation] = spaces.Dict(  # type: ignore[assignment]
            {
                "candidates": spaces.Box(-BOUND, BOUND, (self.candidates * len(FEATURES),), np.float32),
                "general": spaces.Box(-BOUND, BOUND, (len(GENERAL),), np.float32),
            }
        )
        self.action_space = spaces.Discrete(self.candidates)
        self._running = False
        if problem is not None:
            # Arguments that do not fit together are told here and not at the first reset.
            self._only: Instance | None = Instance(load_problem(problem), device, None)
            self._enter(self._only)
        else:
            self._only = None
            assert self.family is not None
            self._enter(self.family.train[0])
        self._forget()

    # ------------------------------------------------------------------ Gymnasium
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: seeds all randomness of the environment.
            options: "instance", "circuit"; see the class.

        Raises:
            QasError: an unknown option, or an instance or circuit that does not fit.
        """
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            if name not in _OPTIONS:
                raise UnknownNameError("reset option", name, _OPTIONS)
        self._enter(self._chosen(options.get("instance")))
        circuit = options.get("circuit")
        circuit = self._start_circuit() if circuit is None else self._checked_start(circuit)
        found = self.bench.evaluator.evaluate(
            circuit, self.np_random, max_evaluations=self.evaluations_each, exact_start=True
        )
        self._forget()
        self._draft = self._drafted(found, (0,) * len(circuit))
        self._first = self._lowest = found.energy
        self._best_two = found.circuit.two_qubit_gates
        self.front.add(found.circuit, found.error)
        self._running = True
        spent = found.evaluations + self._look()
        return self._observation(), self._info(spent, "start")

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Do an edit, optimise, and judge.

        Raises:
            ResetNeeded: no episode is running.
            QasError: no such action.
        """
        if not self._running:
            raise ResetNeeded("no episode is running: call reset() before step()")
        number = whole_number("an action", action, 0, self.candidates - 1)
        edit = self._table.edits[number]
        if edit is None or edit.kind == "stop":
            self._running = False
            return self._observation(), 0.0, True, False, self._info(0, "stop", illegal=edit is None)
        before, area = self._draft, self.front.area
        self._tried[edit.key] = self._tried.get(edit.key, 0) + 1
        after, self._spent = self._done(edit)
        self._previous = before if edit.kind != "undo" else None
        self._draft = after
        self._edits += 1
        self._won = before.energy - after.energy
        self.front.add(after.circuit, self.problem.error(after.energy))
        self._note(after)
        spent = self._spent + self._look()
        worth = self.reward(Edited(after.energy, before.energy, self.front.gap, self.front.area, area, edit.kind))
        truncated = self._edits >= self.max_edits
        self._running = not truncated
        return self._observation(), float(worth), False, truncated, self._info(spent, edit.kind)

    def render(self) -> Any:
        """The circuit as text."""
        return f"{self.circuit}\n{self._summary()}\n" if self.render_mode == "ansi" else None

    # ------------------------------------------------------------------ for agents
    @property
    def circuit(self) -> Circuit:
        """The circuit as it is edited, its angles optimised."""
        return self._draft.circuit

    @property
    def energy(self) -> float:
        """Energy of `circuit`, problem's unit."""
        return self._draft.energy

    @property
    def alphabet(self) -> Alphabet:
        """Gates of the instance's circuits."""
        return self.bench.alphabet

    @property
    def table(self) -> Table:
        """What may be done next."""
        return self._table

    def foreseen(self, action: int) -> tuple[Draft, int]:
        """The circuit that an action leads to and the evaluations that this takes; nothing is changed.

        Raises:
            QasError: the row holds no edit that leads to a circuit.
        """
        edit = self._table.edits[action]
        if edit is None or edit.kind == "stop":
            raise QasError(f"an edit leads to a circuit, got action {action}, which stops")
        before = self.np_random.bit_generator.state
        try:
            return self._done(edit)
        finally:
            self.np_random.bit_generator.state = before

    def action_masks(self) -> np.ndarray:
        """Which actions are edits, bool, shape (candidates,); the name that sb3-contrib asks for."""
        return self._table.mask

    def get_state(self) -> dict[str, Any]:
        """JSON-able state in the middle of an episode or between two; `set_state` continues exactly from there."""
        values = {
            "instance": self.instance.name,
            "drawn": None if self.instance in self._known.values() else self.instance.to_json(),
            **self._kept_to,
            "rng": self.np_random.bit_generator.state,
            "draft": _draft_to_json(self._draft),
            "previous": None if self._previous is None else _draft_to_json(self._previous),
            "front": [[two, error, circuit.to_list()] for two, (error, circuit) in sorted(self.front.best.items())],
            "tried": dict(self._tried),
            "first": self._first,
            "lowest": self._lowest,
            "best_two": self._best_two,
            "won": self._won,
            "since": self._since,
            "edits": self._edits,
            "spent": self._spent,
            "turn": self._turn,
            "running": self._running,
        }
        return {"format": _STATE, "version": _STATE_VERSION, "features": FEATURE_VERSION} | values

    def set_state(self, state: Mapping[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Go to a state of `get_state`; returns observation and info, as `reset` does, and counts no evaluations.

        Raises:
            QasError: not such a state, that of another version of the features, of other limits, probes or number of
                candidates, or an instance that is not here.
        """
        if not isinstance(state, Mapping) or state.get("format") != _STATE or state.get("version") != _STATE_VERSION:
            raise QasError(f"this is not a state of the circuit editor, version {_STATE_VERSION}")
        for name, value in {"features": FEATURE_VERSION, **self._kept_to}.items():
            if state.get(name) != value:
                raise QasError(f"the state has {name} {state.get(name)}, but the environment has {value}")
        try:
            drawn = state["drawn"]
            self._enter(self._chosen(state["instance"] if drawn is None else Instance.from_json(drawn)))
            self._forget()
            n = self.problem.n_qubits
            self._draft = _draft_from_json(n, state["draft"])
            self._previous = None if state["previous"] is None else _draft_from_json(n, state["previous"])
            for two, error, gates in state["front"]:
                self.front.best[int(two)] = float(error), Circuit(n, gates)
            self._tried = {str(key): int(count) for key, count in state["tried"].items()}
            self._first, self._lowest, self._won = (float(state[name]) for name in ("first", "lowest", "won"))
            self._best_two, self._since, self._edits, self._spent, self._turn = (
                int(state[name]) for name in ("best_two", "since", "edits", "spent", "turn")
            )
            self._running = bool(state["running"])
            self.np_random.bit_generator.state = state["rng"]
        except QasError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise QasError(f"the state of the circuit editor is malformed: {error!r}") from None
        self._look(counted=False)
        return self._observation(), self._info(0, "start")

    @property
    def _kept_to(self) -> dict[str, Any]:
        """What an environment has to share with the one whose state it takes over."""
        two, gates = self._limits
        return {
            "candidates": self.candidates,
            "max_edits": self.max_edits,
            "max_two_qubit_gates": two,
            "max_gates": gates,
            "evaluations_each": self.evaluations_each,
            "probes": self.probes,
        }

    # ------------------------------------------------------------------ instances
    @property
    def _known(self) -> dict[str, Instance]:
        """Instances that a name is enough for."""
        if self.family is None:
            assert self._only is not None
            return {self._only.name: self._only}
        return {each.name: each for each in (*self.family.train, *self.family.test)}

    def _chosen(self, given: Any) -> Instance:
        """What a caller asked for, or else what the family draws."""
        if self.family is None:
            assert self._only is not None
            if given not in (None, self._only, self._only.name):
                raise QasError(f"this environment is for {self._only.name}, got instance {shortened(given)}")
            return self._only
        if given is not None:
            if isinstance(given, Instance):
                return given
            return (self._known.get(given) if isinstance(given, str) else None) or Instance(load_problem(given))
        if self.part == "train":
            return self.family.draw(self.np_random)
        if not self.family.test:
            raise QasError(f"family {self.family.name} has no instances to test on")
        self._turn += 1
        return self.family.test[(self._turn - 1) % len(self.family.test)]

    def _enter(self, instance: Instance) -> None:
        """Make an instance the one that is played."""
        name = instance.name
        held, bench = self._benches.pop(name, (None, None))
        if bench is None or held != instance:  # drawn ones may share a name
            settings = (
                self._settings
                if instance is self._only
                else {"device": instance.device, "objective": instance.objective, "gates": self._settings["gates"]}
            )
            bench = Bench(*judged_by(instance.load(), **settings))
            if len(self._benches) >= _KEPT:
                self._benches.popitem(last=False)
        self._benches[name] = instance, bench
        self.instance, self.bench, self.problem = instance, bench, bench.problem
        two, gates = self._limits
        n = self.problem.n_qubits
        self.limits = Limits(_TWO_EACH * n if two is None else two, _GATES_EACH * n if gates is None else gates)
        self.gap = gap_of(self.problem)

    def _start_circuit(self) -> Circuit:
        """The reference determinant by the alphabet's own gates, or no gates."""
        n, alphabet = self.problem.n_qubits, self.alphabet
        turn = next((name for name in ("rx", "ry") if name in alphabet.moves.gates), None)
        if self.start == "empty" or (turn is None and "x" not in alphabet.gates):
            return Circuit(n)
        ones = [q for q, bit in enumerate(reversed(self.problem.determinant)) if bit == "1"]
        gates = [Gate(turn, (q,), (math.pi,)) if turn else Gate("x", (q,)) for q in ones]
        return alphabet.simplified(Circuit(n, gates), self.problem)

    def _checked_start(self, circuit: Any) -> Circuit:
        if not isinstance(circuit, Circuit):
            raise QasError(f"the start circuit is a Circuit, got {type(circuit).__name__}")
        if circuit.n_qubits != self.problem.n_qubits:
            raise QasError(
                f"the start circuit has as many qubits as {self.problem.name}, {self.problem.n_qubits}, got "
                f"{circuit.n_qubits}"
            )
        alphabet = self.alphabet
        for gate in circuit.gates:
            turned = alphabet.native is not None and len(gate.qubits) == 1  # any of them is made native
            if not turned and gate not in alphabet.moves:
                alphabet.index(gate)  # says why not
        for name, have, most in (
            ("two-qubit gates", circuit.two_qubit_gates, self.limits.two_qubit_gates),
            ("gates", len(circuit), self.limits.gates),
        ):
            if have > most:
                raise QasError(f"a start circuit has at most {most} {name} here, got {have}")
        return circuit

    # ------------------------------------------------------------------ edits
    def _done(self, edit: Edit) -> tuple[Draft, int]:
        """The circuit after an edit, and the evaluations that it took."""
        draft = self._draft
        if edit.kind == "undo":
            assert self._previous is not None
            return self._previous, 0
        limit = self.evaluations_each * (_LONGER if edit.kind == "optimise" else 1)
        circuit = draft.circuit
        if edit.kind == "shake":
            noise = self.np_random.normal(scale=_SHAKEN, size=circuit.n_angles)
            circuit = circuit.with_angles(circuit.angles + noise)
        known, ages = draft.curvature, draft.ages
        inverse = None if known is None else known.matrix()
        if edit.deleted or edit.place is not None:
            # Gates are told apart by identity, and equal ones may be one object.
            own = Circuit(circuit.n_qubits, map(copy.copy, circuit.gates))
            circuit = self.alphabet.simplified(edit.applied(self.bench, own, self.np_random), self.problem)
            inverse = None if known is None else known.inherited(own, circuit)
            held = {id(gate): age for gate, age in zip(own.gates, draft.ages, strict=True)}
            ages = tuple(held.get(id(gate), -1) + 1 for gate in circuit.gates)
        found = self.bench.evaluator.evaluate(
            circuit, self.np_random, max_evaluations=limit, exact_start=True, inverse_hessian=inverse
        )
        if edit.kind == "shake" and found.energy >= draft.energy:
            return draft, found.evaluations
        return self._drafted(found, ages), found.evaluations

    def _drafted(self, found: Evaluation, ages: tuple[int, ...]) -> Draft:
        return Draft(found.circuit, found.energy, Curvature.of(found), ages, found.settled)

    def _note(self, draft: Draft) -> None:
        """Keep the lowest energy, and forget what was tried of worse circuits."""
        if draft.energy < self._lowest - _LEAST_WON * self.bench.scale:
            self._lowest, self._best_two, self._since = draft.energy, draft.circuit.two_qubit_gates, 0
            self._tried.clear()
        else:
            self._since += 1

    def _look(self, *, counted: bool = True) -> int:
        """Make the table of the circuit; returns the evaluations this took."""
        self._table = tabulated(
            self.bench,
            self._draft,
            self.candidates,
            self.limits,
            probes=self.probes,
            undo=self._previous is not None,
            tried=self._tried,
        )
        self._general = self._overall()
        if counted:
            self.bench.spend(self._table.evaluations)
        return self._table.evaluations

    def _forget(self) -> None:
        """An episode in which nothing has happened."""
        self.front = Front(self.gap, self.limits.two_qubit_gates)
        self._previous = None
        self._tried = {}
        self._edits, self._since, self._spent, self._best_two = 0, 0, 0, 0
        self._won, self._first, self._lowest = 0.0, 0.0, 0.0

    # ------------------------------------------------------------------ what is handed out
    def _observation(self) -> Observation:
        return {"candidates": self._table.features.flatten(), "general": self._general.copy()}

    def _overall(self) -> np.ndarray:
        """`GENERAL`, float32."""
        circuit, bench, table, n = self.circuit, self.bench, self._table, self.problem.n_qubits
        two, scale = circuit.two_qubit_gates, self.bench.scale
        edits = [edit for edit in table.edits if edit is not None]
        slopes = [edit.numbers.get("slope", 0.0) for edit in edits]
        costs = [edit.numbers["log_cost"] for edit in edits if "log_cost" in edit.numbers]
        values = {
            "won": (self._first - self.energy) / scale,
            "above_best": (self.energy - self._lowest) / scale,
            "last": self._won / scale,
            "since": self._since / (self._since + 8),
            "edits_left": 1 - self._edits / self.max_edits,
            "two_qubit_gates": two / self.limits.two_qubit_gates,
            "best_two_qubit_gates": self._best_two / self.limits.two_qubit_gates,
            "density": two / (two + 4 * n),
            "angles": circuit.n_angles / (circuit.n_angles + 8 * n),
            "depth": circuit.depth / (circuit.depth + 32),
            "qubits": n / 10,
            "slope": math.sqrt(sum(slope**2 for slope in slopes)),
            "log_gain": table.largest("log_gain"),
            "log_cost": min(costs, default=1.0),
            "bloch": table.bloch,
            "correlation": table.correlation,
            "evaluations": self._spent / (_LONGER * self.evaluations_each),
            "noise": float(bench.evaluator.noise is not None),
            "error": 100 * bench.mean_error,
            "native": float(bench.guide.native),
        }
        assert tuple(values) == GENERAL
        return np.clip(np.array(list(values.values())), -BOUND, BOUND).astype(np.float32)

    def _info(self, evaluations: int, edit: str, *, illegal: bool = False) -> dict[str, Any]:
        return {
            "circuit": self.circuit,
            "energy": self.energy,
            "error": self.problem.error(self.energy),
            "two_qubit_gates": self.circuit.two_qubit_gates,
            "evaluations": evaluations,
            "action_mask": self._table.mask,
            "instance": self.instance.name,
            "edit": edit,
            "area": self.front.area,
            "illegal": illegal,
        }

    def _summary(self) -> str:
        limits = f"{self.circuit.two_qubit_gates} two-qubit gates, edit {self._edits} of {self.max_edits}"
        return f"{told(self.instance.name, self.problem, self.energy)}, {limits}"


# ---------------------------------------------------------------------- arguments
def gap_of(problem: Problem) -> float:
    """What errors are measured by in rewards: that of the best basis state, or half the spread where that is exact."""
    gap = problem.error(problem.basis_state)
    return gap if gap > 1e-9 * problem.spread else problem.spread / 2 or 1.0


def _draft_to_json(draft: Draft) -> dict[str, Any]:
    return {
        "circuit": draft.circuit.to_list(),
        "energy": draft.energy,
        "curvature": None if draft.curvature is None else draft.curvature.packed.tolist(),
        "ages": list(draft.ages),
        "settled": draft.settled,
    }


def _draft_from_json(n_qubits: int, data: Mapping[str, Any]) -> Draft:
    circuit = Circuit(n_qubits, data["circuit"])
    packed = None if data["curvature"] is None else np.array(data["curvature"], dtype=np.float32)
    size = circuit.n_angles
    if len(data["ages"]) != len(circuit) or (packed is not None and packed.shape != (size * (size + 1) // 2,)):
        raise QasError("the state of the circuit editor is malformed: a circuit with ages or curvatures of another")
    known = None if packed is None else Curvature(packed)
    ages = tuple(int(age) for age in data["ages"])
    return Draft(circuit, float(data["energy"]), known, ages, bool(data["settled"]))
