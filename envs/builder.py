"""The circuit builder: a Gymnasium environment in which every action appends one gate."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, SupportsIndex, TypedDict

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from qas.checks import whole_number
from qas.circuits import Circuit
from qas.devices import Device
from qas.encoders.layers import LayerEncoding
from qas.envs.curricula import Curriculum, RandomHalting, load_curriculum
from qas.envs.effects import MOST_QUBITS, Effects, Gains, LookAhead
from qas.envs.observations import Observation, Observer, load_observer
from qas.envs.rewards import Reward, Transition, load_reward
from qas.envs.settings import judged_by, told
from qas.errors import QasError, UnknownNameError
from qas.mitigation.objectives import Scored
from qas.noise import NoiseModel
from qas.problems import BaseProblem, Problem, load_problem
from qas.schema import Count, Gates, Positive, RngState, conform
from qas.simulators import Simulator
from qas.simulators.compiled import CompiledSimulator
from qas.simulators.statevector import StatevectorSimulator
from qas.vqe import CircuitEvaluator, Evaluation

_ORDERS = ("append_then_optimise", "legacy_lag")
_OPTIONS = ("circuit", "training", "restart_curriculum")
_FORMAT = "qas-circuit-builder"
_STATE_VERSION = 2

_effects, _look_ahead = lru_cache(maxsize=16)(Effects), lru_cache(maxsize=16)(LookAhead)


class _State(TypedDict):
    problem: str
    actions: Any
    max_gates: Positive
    order: str
    optimise_every: Any
    rng: RngState
    circuit: Gates
    gains: list[list[float]] | None
    energy: float
    running: bool
    training: bool
    steps: Count
    halt_step: Count | None
    curriculum: dict[str, Any]


class Asked(NamedTuple):
    """A circuit that a step waits for."""

    circuit: Circuit
    rng: np.random.Generator
    as_it_is: bool
    """one evaluation at its own angles, instead of an optimisation from there"""

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of `CircuitEvaluator.evaluate`."""
        return {"max_evaluations": 1, "exact_start": True} if self.as_it_is else {}


Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class CircuitBuilderEnv(gymnasium.Env[Observation, np.int64]):
    """Build a circuit gate by gate; after every gate all angles are optimised and the energy decides the reward.

    ## Action Space

    `Discrete(len(env.actions))`: the number of a gate in `env.actions` (an `Alphabet`). For the usual gate set
    without coupling: CNOTs 0 .. n(n-1)-1, then RX, RY, RZ of qubit 0, of qubit 1, and so on. `info["action_mask"]` and
    `action_masks()` tell which actions are legal; an action is illegal when it repeats the most recent gate on every
    qubit it touches, or when its gate would leave the present state as it is, up to a phase: a rotation about an axis
    that the state is an eigenstate of, a CNOT whose control is in |0>. The second rule looks at the noise-free state
    vector (of problems that judge the state only, up to 14 qubits), in which rotations that stand at angle 0 count as
    turned by one radian. Where nothing would be legal (a set of a single gate), everything is. An illegal action is not
    refused: its gate is appended like any other (it is redundant, not wrong) and `info["illegal"]` is True.

    ## Observation Space

    A `Dict`, by the argument `observation`: "layers" (`qas.envs.observations.Layers`: layer tensor, energy,
    threshold), "lookahead" (`Ahead`: a row of features for each action), "graph" (`Graph`: gates and wires).

    ## Rewards

    By default `IncrementalFixedEnds`: +5 for success, -5 when the circuit is as long as it may become, else the share
    of the missing energy that the step has won, clipped to [-1, 1]. See `qas.envs.list_rewards()` for others.

    ## Starting State

    The empty circuit, or `reset(options={"circuit": circuit})`, whose gates must be in `env.actions` and whose
    angles are kept as they are until the first step. Further options: `training=False` leaves the curriculum untouched
    during the episode; `restart_curriculum=True` puts it back to its beginning. `reset(seed=…)` seeds everything that
    is random (start angles, shots, halting) but does not restart the curriculum, which lives across episodes.

    ## Episode End

    `terminated`: ``|energy - target|`` is below the threshold of the curriculum (then `info["success"]` is True; the
    target is the problem's exact value unless the curriculum has its own), or the circuit has `max_gates` gates.
    `truncated`, otherwise: random halting ended the episode (then `info["halted"]` is True). A further `step` raises
    `gymnasium.error.ResetNeeded`.

    ## Info

    `circuit` (with its angles), `energy`, `error` (energy minus exact value), `threshold` (used for this step),
    `evaluations` (calls of the objective in this step, a sweep of gains counts as one), `action_mask`, `illegal`,
    `success`, `halted`.

    ## Arguments

    Args:
        problem: a `Problem` or a name of `qas.list_problems()`.
        noise: a `NoiseModel`, a name of `qas.list_noise()`, or None. With an `evaluator`: None, meaning its noise.
        device: a `Device`, a name of `qas.list_devices()` or a file, instead of `noise` and `evaluator`: gates are
            native, on a patch of it.
        patch: which of its qubits; see `qas.patches.patch_for`.
        objective: what counts as energy under the noise, such as ``"zne:nodes=1-3-5"``; see `qas.mitigation`. With an
            `evaluator`: None, meaning its objective; else None means "noisy", or for a device what the problem says,
            mostly "zne".
        max_gates: longest circuit, and number of layers in the observation.
        gates: gate set, names from the gate table; None: the problem's, `qas.gates.SEARCH_GATES` for a Hamiltonian.
        coupling: undirected pairs that may carry two-qubit gates; None: those of the noise model, or all.
        directions: ordered pairs in which two-qubit gates may act; None: those of the device, or both orders.
        reward: a name of `REWARDS`, a class, or a function from `Transition` to float. See `load_reward`.
        curriculum: a name of `CURRICULA` (default "moving"), a `Curriculum` class, a number (a fixed threshold), or a
            `Curriculum`, which is copied. See `load_curriculum`.
        random_halting: a `RandomHalting`, its arguments as a mapping, or None for no random halting.
        order: "append_then_optimise", or "legacy_lag": all angles but the new one are optimised *before* the new gate
            is appended with angle 0, as the published code does.
        observation: a name of `OBSERVATIONS` or an `Observer` class.
        optimise_every: angles are optimised after every so many steps, and when the episode ends; "end": only then.
            In between a new rotation takes the angle that is best with all others held, in closed form (a sweep, which
            costs an evaluation), where the engine knows it: exact energies of a Hamiltonian on at most 14 qubits; else
            0.
        evaluator: optimises the angles; None: `Evaluator(problem, noise, objective=objective)`.
        render_mode: "ansi" (text), "rgb_array" (image; its width grows with the circuit), or None.

    Raises:
        UnknownNameError: an unknown problem, noise, gate, reward, curriculum, order or observation.
        QasError: arguments that are malformed or do not fit together.

    ## Deviations from CRLQAS

    Patel et al., "Curriculum reinforcement learning for quantum architecture search under hardware errors", ICLR 2024,
    arXiv:2402.03500, and its published code.

    * Angles are optimised after the gate is appended (`order="legacy_lag"` for the published behaviour).
    * A random halt truncates; it does not terminate. As there, it brings no -5.
    * The mask forbids the repeats named above, where the published code used two differing action tables, and also
      what does nothing on the present state.
    * The threshold is part of the observation.
    * The energy in the observation is counted from that of |0…0>; both, and the first reward, are under the noise.
    * Angles are never part of the observation.
    * The length limit counts gates, those of a start circuit included.
    * The best energy behind the moving threshold never contains shot noise; the default curriculum scales with the
      problem's threshold and shifts every 50 episodes.
    * Random halting is one clipped draw for each episode, and off by default.
    * Zero denominators in the reward give 0 if nothing changed, else ±1.

    ## Version History

    * v0: first version. Changed since: the length limit terminates (it truncated), gates that do nothing on the present
      state are masked, and the threshold is observed; states of version 1 are not read.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self,
        problem: str | BaseProblem,
        noise: str | NoiseModel | None = None,
        *,
        device: str | Device | None = None,
        patch: str | Sequence[int] | None = None,
        objective: str | Mapping[str, Any] | type[Scored] | Scored | None = None,
        max_gates: int = 40,
        gates: Sequence[str] | None = None,
        coupling: Iterable[Sequence[int]] | None = None,
        directions: Iterable[Sequence[int]] | None = None,
        reward: str | Reward | type[Reward] = "incremental_with_fixed_ends",
        curriculum: str | float | Curriculum | type[Curriculum] | None = None,
        random_halting: RandomHalting | Mapping[str, Any] | None = None,
        order: str = "append_then_optimise",
        observation: str | type[Observer] = "layers",
        optimise_every: int | str = 1,
        evaluator: CircuitEvaluator | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.problem: BaseProblem = problem if isinstance(problem, BaseProblem) else load_problem(problem)
        self.max_gates = whole_number("max_gates", max_gates)
        if order not in _ORDERS:
            raise UnknownNameError("order", order, _ORDERS)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(map(repr, self.metadata["render_modes"]))
            raise QasError(f"render_mode is one of {modes} or None, got {render_mode!r}")
        self.order = order
        self.optimise_every = _checked_every(optimise_every, order)
        self.render_mode = render_mode
        n = self.problem.n_qubits
        self.evaluator, self.actions = judged_by(
            self.problem, noise=noise, device=device, patch=patch, objective=objective, gates=gates, coupling=coupling,
            directions=directions, evaluator=evaluator,
        )  # fmt: skip
        self.encoding = LayerEncoding(n, self.actions.gates, max_layers=self.max_gates)
        self.reward = load_reward(reward)
        self.curriculum = load_curriculum(curriculum, self.problem)
        self._fresh_curriculum = self.curriculum.to_state()
        self.random_halting = _checked_halting(random_halting)

        # A little wider than the spread, so that rounding to float32 stays inside.
        self.energy_bound = self.problem.spread * (1 + 1e-6) + 1e-6
        self.zero_energy = self.evaluator.energy(Circuit(n))
        state_is_all = self.problem.simulated and not self.problem.whole_matrix and n <= MOST_QUBITS
        self._effects: Effects | None = _effects(self.actions) if state_is_all else None
        own = self.evaluator.simulator
        self._states = own if isinstance(own, StatevectorSimulator) else None
        self._engine = _engine_of_gains(self.evaluator)
        self._circuit = Circuit(n)
        self._gains: Gains | None = None
        self._paulis: np.ndarray | None = None
        self.observer = load_observer(observation, self)
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space: spaces.Space[Observation] = self.observer.space  # type: ignore[assignment]
        self._running = False
        self._over = False
        self._training = True
        self._halt_step: int | None = None
        self._steps = 0
        self._sweeps = 0
        self._energy = self.zero_energy
        self._place_circuit(Circuit(n))

    # ------------------------------------------------------------------ Gymnasium
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: seeds all randomness of the environment.
            options: "circuit", "training", "restart_curriculum"; see the class.

        Raises:
            QasError: an unknown option, or a start circuit that does not fit.
        """
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            if name not in _OPTIONS:
                raise UnknownNameError("reset option", name, _OPTIONS)
        circuit = options.get("circuit")
        if circuit is None:
            circuit = Circuit(self.problem.n_qubits)
        self._place_circuit(self._checked_start(circuit))
        self._training = bool(options.get("training", True))
        if options.get("restart_curriculum", False):
            self.curriculum = type(self.curriculum).from_state(self._fresh_curriculum)
        self._energy = self.evaluator.energy(circuit) if len(circuit) else self.zero_energy
        self._steps = self._sweeps = 0
        self._halt_step = None if self.random_halting is None else self.random_halting.draw(self.np_random)
        self._running, self._over = True, False
        observation = self.observer.observe(self)
        return observation, self._info(self.curriculum.threshold, evaluations=min(1, len(circuit)))

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append the gate of `action`, optimise, and judge.

        Raises:
            ResetNeeded: no episode is running.
            QasError: no such action.
        """
        moves = self.moves(action)
        try:
            asked = next(moves)
            while True:
                asked = moves.send(self.evaluator.evaluate(asked.circuit, asked.rng, **asked.settings))
        except StopIteration as end:
            step: Step = end.value
            return step

    def moves(self, action: SupportsIndex) -> Generator[Asked, Evaluation, Step]:
        """A step that yields the circuits it waits for, is sent what became of each, and returns what `step` does.

        Raises:
            ResetNeeded, QasError: as `step`, when it begins.
        """
        if not self._running:
            raise ResetNeeded("no episode is running: call reset() before step()")
        number = self.actions.check(action)
        illegal = not self._mask[number]
        self._sweeps = 0
        at_limit = len(self._circuit) + 1 >= self.max_gates
        halting = self._halt_step is not None and self._steps >= self._halt_step
        if self.order == "legacy_lag":
            found, evaluations = yield from self._lagging(number)
        else:
            found, evaluations = yield from self._advance(number, at_limit or halting)
        previous, energy = self._energy, found.energy
        self._energy = energy
        self._append(number, found.circuit)
        if self._training and self.curriculum.uses_energies:
            evaluations += self._tell_curriculum(energy)

        threshold = self.curriculum.threshold
        error = abs(energy - self.target)
        success = bool(error < threshold)
        halted = halting and not success and not at_limit
        transition = Transition(energy, previous, self.target, error, threshold, success, at_limit, halted)
        reward = float(self.reward(transition))
        self._steps += 1
        self._over = success or at_limit
        if transition.done:
            self._running = False
            if self._training:
                self.curriculum.end_episode(success)
        observation = self.observer.observe(self)
        info = self._info(threshold, evaluations=evaluations, illegal=illegal, success=success, halted=halted)
        return observation, reward, self._over, halted, info

    def render(self) -> Any:
        """The circuit as text or as an RGB image, uint8, shape (height, width, 3)."""
        if self.render_mode == "ansi":
            return f"{self._circuit}\n{self._summary()}\n"
        if self.render_mode == "rgb_array":
            return self._image()
        return None

    # ------------------------------------------------------------------ for agents
    @property
    def circuit(self) -> Circuit:
        """The circuit built so far, with its angles."""
        return self._circuit

    @property
    def energy(self) -> float:
        """Energy of `circuit`, as it was rewarded, problem's unit."""
        return self._energy

    @property
    def target(self) -> float:
        """Energy that errors are counted from, problem's unit."""
        target = self.curriculum.target
        return self.problem.exact if target is None else target

    @property
    def paulis(self) -> np.ndarray:
        """Expectation values of the noise-free state, float64; first those of `qas.envs.effects.local_strings`.

        Raises:
            QasError: a problem that does not judge the state, or too many qubits.
        """
        if self._effects is None:
            raise QasError(f"the state of {self.problem.name} is not looked at: see the action mask")
        if self._paulis is None:
            self._paulis = self._effects.values(self._circuit, self._states)
        return self._paulis

    @property
    def gains(self) -> Gains:
        """What appending each gate would bring; a sweep, which counts as an evaluation. Zeros in a terminal state.

        Raises:
            QasError: as `require_gains`.
        """
        if self._gains is None:
            self.require_gains("looking ahead")
            if self._over:
                return Gains(*np.zeros((4, len(self.actions))))
            assert self._engine is not None and isinstance(self.problem, Problem)
            self.evaluator.spend()
            self._sweeps += 1
            self._gains = _look_ahead(self.actions)(self._circuit, self._engine, self.problem.hamiltonian)
        return self._gains

    def require_gains(self, what: str) -> None:
        """Refuse what needs gains where there are none.

        Raises:
            QasError: no Hamiltonian, shots, or too many qubits.
        """
        if self._engine is None or self._effects is None:
            raise QasError(
                f"{what} needs exact energies of a Hamiltonian on at most {MOST_QUBITS} qubits, got {self.problem.name}"
                + ("" if self.evaluator.shots is None else f" with {self.evaluator.shots} shots")
            )

    def action_masks(self) -> np.ndarray:
        """Which actions are legal, bool, shape (len(actions),); the name that sb3-contrib asks for."""
        return self._mask.copy()

    def get_state(self) -> dict[str, Any]:
        """JSON-able state in the middle of an episode or between two; `set_state` continues exactly from there."""
        values = {
            "problem": self.problem.name,
            "actions": self.actions.to_json(),
            "max_gates": self.max_gates,
            "order": self.order,
            "optimise_every": self.optimise_every,
            "rng": self.np_random.bit_generator.state,
            "circuit": self._circuit.to_list(),
            "gains": None if self._gains is None else [column.tolist() for column in self._gains],
            "energy": self._energy,
            "running": self._running,
            "training": self._training,
            "steps": self._steps,
            "halt_step": self._halt_step,
            "curriculum": self.curriculum.to_state(),
        }
        return {"format": _FORMAT, "version": _STATE_VERSION} | values

    def set_state(self, state: Mapping[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Go to a state of `get_state`; returns observation and info, as `reset` does.

        The wrappers of `gymnasium.make` insist on a `reset` before `step`: call it first, then `unwrapped.set_state`.

        Raises:
            QasError: not such a state, or that of another problem, gate set, length limit, order, interval of
                optimisations or curriculum.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT or state.get("version") != _STATE_VERSION:
            raise QasError(f"this is not a state of the circuit builder, version {_STATE_VERSION}")
        conform(state, _State, "the state of the circuit builder", error=QasError)
        here = {
            "problem": self.problem.name,
            "actions": self.actions.to_json(),
            "max_gates": self.max_gates,
            "order": self.order,
            "optimise_every": self.optimise_every,
        }
        for name, value in here.items():
            if state[name] != value:
                raise QasError(f"the state belongs to {name} {state[name]}, but the environment has {value}")
        try:
            circuit = Circuit(self.problem.n_qubits, state["circuit"])
            curriculum = type(self.curriculum).from_state(state["curriculum"])
            gains = None if state["gains"] is None else Gains(*np.array(state["gains"], dtype=np.float64))
            if gains is not None and any(column.shape != (len(self.actions),) for column in gains):
                raise QasError("the state of the circuit builder is malformed: gains of other actions")
            energy, steps = float(state["energy"]), int(state["steps"])
            halt_step = None if state["halt_step"] is None else int(state["halt_step"])
            if len(circuit) > self.max_gates:
                raise QasError(f"the circuit of the state has {len(circuit)} gates, more than {self.max_gates}")
            self.actions.last_of(circuit)
            self.np_random.bit_generator.state = state["rng"]
        except QasError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise QasError(f"the state of the circuit builder is malformed: {error}") from None
        self._place_circuit(circuit)
        self._energy, self._steps, self._halt_step = energy, steps, halt_step
        self._running, self._training = bool(state["running"]), bool(state["training"])
        self._over, self._sweeps = not self._running, 0
        self._gains = gains
        self.curriculum = curriculum
        return self.present()

    def present(self) -> tuple[Observation, dict[str, Any]]:
        """Observation and info of the present state, without a step."""
        observation = self.observer.observe(self)
        return observation, self._info(self.curriculum.threshold, evaluations=0)

    # ------------------------------------------------------------------ steps
    def _advance(self, number: int, last: bool) -> Generator[Asked, Evaluation, tuple[Evaluation, int]]:
        """The circuit with one more gate, and the evaluations it took."""
        every = self.optimise_every
        if last or (isinstance(every, int) and (self._steps + 1) % every == 0):
            gate = self.actions.gate(number)
            found = yield Asked(self._circuit.extended(gate), self.np_random, False)
            return found, found.evaluations
        gate = self.actions.gate(number, self._best_angles(number))
        found = yield Asked(self._circuit.extended(gate), self.np_random, True)
        if abs(found.energy - self.target) >= self.curriculum.threshold:
            return found, found.evaluations
        best = yield Asked(found.circuit, self.np_random, False)
        return best, found.evaluations + best.evaluations

    def _best_angles(self, number: int) -> tuple[float, ...] | None:
        """Angles of a new gate with all others held; None for zeros."""
        if self._engine is None or self._effects is None or len(self.actions.gate(number).angles) != 1:
            return None
        return (float(self.gains.angle[number]),)

    def _lagging(self, number: int) -> Generator[Asked, Evaluation, tuple[Evaluation, int]]:
        """As `_advance`, in the order of the published code."""
        circuit, evaluations = self._circuit, 0
        if circuit.n_angles:
            tuned = yield Asked(circuit, self.np_random, False)
            circuit, evaluations = tuned.circuit, tuned.evaluations
        longer = circuit.extended(self.actions.gate(number))
        found = yield Asked(longer, self.np_random, True)
        return found, evaluations + found.evaluations

    def _tell_curriculum(self, energy: float) -> int:
        """Tell the curriculum an exact energy; returns the evaluations this took."""
        if self.evaluator.shots is None:
            self.curriculum.observe(energy)
            return 0
        self.curriculum.observe(self.evaluator.energy(self._circuit))
        return 1

    def _place_circuit(self, circuit: Circuit) -> None:
        self._last = self.actions.last_of(circuit)  # first: it refuses gates that are no actions
        self._circuit = circuit
        self.observer.begin(circuit)
        self._look_at_state()

    def _append(self, action: int, circuit: Circuit) -> None:
        self._circuit = circuit
        self.actions.update(self._last, action)
        self.observer.append(self.actions.gate(action))
        self._look_at_state()

    def _look_at_state(self) -> None:
        self._gains = self._paulis = None
        mask = self.actions.legal(self._last)
        if self._effects is not None:
            mask &= self._effects.changes(self._effects.paulis(self._effects.state(self._circuit, self._states)))
        self._mask = mask if mask.any() else np.ones_like(mask)

    def _checked_start(self, circuit: Any) -> Circuit:
        if not isinstance(circuit, Circuit):
            raise QasError(f"the start circuit is a Circuit, got {type(circuit).__name__}")
        if len(circuit) >= self.max_gates:
            raise QasError(f"a start circuit has fewer than max_gates = {self.max_gates} gates, got {len(circuit)}")
        return circuit

    # ------------------------------------------------------------------ what is handed out
    def _info(
        self,
        threshold: float,
        *,
        evaluations: int,
        illegal: bool = False,
        success: bool = False,
        halted: bool = False,
    ) -> dict[str, Any]:
        return {
            "circuit": self._circuit,
            "energy": self._energy,
            "error": self.problem.error(self._energy),
            "threshold": threshold,
            "evaluations": evaluations + self._sweeps,
            "action_mask": self._mask.copy(),
            "illegal": illegal,
            "success": success,
            "halted": halted,
        }

    # ------------------------------------------------------------------ rendering
    def _summary(self) -> str:
        limits = f"threshold {self.curriculum.threshold:.2e}, gate {len(self._circuit)} of {self.max_gates}"
        return f"{told(self.problem.name, self.problem, self._energy)}, {limits}"

    def _image(self) -> np.ndarray:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        from qas.drawing import draw_figure

        canvas = FigureCanvasAgg(draw_figure(self._circuit, title=self._summary()))
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3].copy()


# ---------------------------------------------------------------------- arguments
def _checked_every(every: Any, order: str) -> int | str:
    if every != "end":
        every = whole_number('optimise_every, unless it is "end",', every)
    if every != 1 and order != _ORDERS[0]:
        raise QasError(f"order {order} optimises at every step, got optimise_every {every!r}")
    return every  # type: ignore[no-any-return]


def _engine_of_gains(evaluator: CircuitEvaluator) -> Simulator | None:
    """What knows gains in closed form: the engine of the angles, without noise where that has none; or None."""
    if not isinstance(evaluator.problem, Problem) or evaluator.shots is not None:
        return None
    own = evaluator.simulator
    return own if isinstance(own, CompiledSimulator) else evaluator.problem.simulator()


def _checked_halting(halting: RandomHalting | Mapping[str, Any] | None) -> RandomHalting | None:
    if halting is None or isinstance(halting, RandomHalting):
        return halting
    try:
        return RandomHalting(**halting)
    except QasError:
        raise
    except TypeError:
        fields = ", ".join(RandomHalting.__dataclass_fields__)
        raise QasError(f"random_halting is a RandomHalting or a mapping of {fields}, got {halting!r}") from None
