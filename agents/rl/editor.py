"""Edits of circuits, chosen by a trained policy or by the gain that they promise."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np

from qas.agents import starts
from qas.agents.base import Agent, Search, restore_rng, rng_state
from qas.agents.rl.closed_form import closed_form_scores
from qas.agents.rl.episodes import make_editor
from qas.agents.rl.policy import TrainedPolicy, chosen, load_policy, untrained
from qas.agents.rl.starts import Starts
from qas.agents.settings import room_for_depth
from qas.checks import finite_number, whole_number
from qas.circuits import Circuit
from qas.envs.editor import Front, Observation
from qas.errors import QasError, RunError
from qas.problems import BaseProblem, Problem
from qas.schema import Count, Gates, RngState
from qas.torch_threads import torch_threads

_OF_THE_EDITOR = ("reference", "empty")
_OF_THE_POLICY = ("nearest", "predicted")
_AGAIN = 0.5
"""Share of the later episodes that begin with a circuit of the front."""


class _State(TypedDict):
    rng: RngState
    episodes: Count
    best: list[tuple[Count, float, Gates]]
    policy: str
    env: NotRequired[dict[str, Any]]
    playing: bool


class EditorAgent(Agent):
    """Plays the circuit editor: insertions anywhere, deletions, further optimisation, one edit after the other.

    The first episode takes the edit of highest score each time; later ones draw edits by softmax, half of them from the
    start and half from a circuit of the front, so that any budget is used. Without a policy, edits are scored by the
    logarithm of their closed-form gain for each two-qubit gate, which is the untrained control.

    Args:
        policy: a file of ``qas policy train``, a name of a policy that comes with the package, "none" for the closed
            form, or "random" for a network of random weights (seeded by the run).
        temperature: of the softmax in later episodes; 0: all episodes choose alike.
        start: "reference" (of a molecule Hartree-Fock, else the lowest basis state), "empty", "nearest" (the circuit of
            the most similar training problem), "predicted" (that of all training problems, its angles interpolated), or
            gates as `Circuit.to_list` gives them, or a list of such lists, of which the last that fits is taken.
            `qas.search(start=…)` fills it.
        candidates: rows of the table of edits; None: as the policy was trained, else 32.
        max_edits: edits of an episode; None: 12 for each qubit.
        evaluations_each: most evaluations of an edit; None: as the policy was trained, else 6, as few are needed where
            an optimisation begins with what the last one knew of the curvature.
    """

    name: ClassVar[str] = "editor"
    about: ClassVar[str] = "edits circuits by a policy that is trained on a family, or by closed-form gain"
    begins: ClassVar[bool] = True
    State: ClassVar[Any] = _State

    def __init__(
        self,
        *,
        policy: str = "none",
        temperature: float = 0.5,
        start: str | list[Any] = "reference",
        candidates: int | None = None,
        max_edits: int | None = None,
        evaluations_each: int | None = None,
    ) -> None:
        self.policy, self.start = policy, start
        self.temperature = finite_number("temperature", temperature, least=0)
        limits = {"candidates": (candidates, 8), "max_edits": (max_edits, 1), "evaluations_each": (evaluations_each, 1)}
        for name, (value, least) in limits.items():
            setattr(self, name, None if value is None else whole_number(name, value, least))
        if start in _OF_THE_POLICY and policy in ("none", "random"):
            raise QasError(f"start={start} takes a circuit from a policy's training, got policy={policy}")

    def defaults(self, problem: BaseProblem) -> dict[str, Any]:
        return room_for_depth(problem)

    def prepare(self, search: Search) -> None:
        super().prepare(search)
        self.rng = search.rng(1)
        self.trained = self._trained()
        trained = {} if self.trained is None else self.trained.settings
        given = {name: getattr(self, name) for name in ("candidates", "max_edits", "evaluations_each")}
        settings = {name: trained.get(name) if value is None else value for name, value in given.items()}
        settings = {name: value for name, value in settings.items() if value is not None}
        in_place = isinstance(self.start, str) and self.start in _OF_THE_EDITOR
        self.env = make_editor(search, start=self.start if in_place else "reference", **settings)
        self.begun = self._begun()
        self.front = Front(self.env.gap, self.env.limits.two_qubit_gates)
        """of all episodes"""
        self.episodes = 0
        self.observation: Observation | None = None
        self.mask = np.zeros(0, dtype=bool)

    def _trained(self) -> TrainedPolicy | None:
        if self.policy == "none":
            return None
        if self.policy == "random":
            return untrained(int(self.search.rng(2).integers(2**31)))
        return load_policy(self.policy)

    def _begun(self) -> Circuit | None:
        """The circuit that episodes begin with; None: what the environment says."""
        problem = self.search.problem
        assert isinstance(problem, Problem)
        if self.start in _OF_THE_EDITOR:
            return None
        if not isinstance(self.start, str) or self.start not in _OF_THE_POLICY:
            return starts.start_circuits(self.start, self.search)[-1]
        assert self.trained is not None
        known = Starts.from_json(self.trained.starts)
        predicted = known.predicted(problem) if self.start == "predicted" else None
        circuits = itertools.chain([] if predicted is None else [predicted], known.near(problem))
        made = (starts.written(circuit, self.search) for circuit in circuits)
        most = self.env.limits.two_qubit_gates
        return next((circuit for circuit in made if circuit is not None and circuit.two_qubit_gates <= most), None)

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        with torch_threads(1):
            while True:
                self.search.safe_point(self)
                self._step()

    def _step(self) -> None:
        """Begin an episode, or edit."""
        if self.observation is None:
            seed = int(self.rng.integers(2**31)) if self.episodes == 0 else None
            observation, info = self.env.reset(seed=seed, options={"circuit": self._first()})
            ended = False
        else:
            action = chosen(self._scores(self.observation), self.mask, self._warmth, self.rng)
            observation, _, terminated, truncated, info = self.env.step(action)
            ended = terminated or truncated
        self.mask = info["action_mask"]
        self.front.add(info["circuit"], info["error"])
        self.observation = None if ended else observation
        self.episodes += ended
        self.search.record.note = f"episode {self.episodes + 1}, last edit: {info['edit']}"

    @property
    def _warmth(self) -> float:
        return self.temperature if self.episodes else 0.0

    def _first(self) -> Circuit | None:
        """What the episode begins with."""
        best = self.front.best
        again = bool(self.episodes and best and self.rng.random() < _AGAIN)
        if not again:
            return self.begun
        held = sorted(best)
        return best[held[int(self.rng.integers(len(held)))]][1]

    def _scores(self, observation: Observation) -> np.ndarray:
        if self.trained is None:
            return closed_form_scores(observation["candidates"])
        return self.trained.policy.scores(observation)

    @property
    def _digest(self) -> str:
        return "" if self.trained is None else self.trained.digest

    # ------------------------------------------------------------------ state
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        best = [[two, error, circuit.to_list()] for two, (error, circuit) in sorted(self.front.best.items())]
        state = {"rng": rng_state(self.rng), "episodes": self.episodes, "best": best, "policy": self._digest}
        playing = self.observation is not None
        if playing or self.episodes:
            state["env"] = self.env.get_state()
        return state | {"playing": playing}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if state["policy"] != self._digest:
            raise RunError(f"the policy has changed since the run was started: {self.policy}")
        n = self.search.problem.n_qubits
        self.rng, self.episodes = restore_rng(state["rng"]), int(state["episodes"])
        self.front.best = {int(two): (float(error), Circuit(n, gates)) for two, error, gates in state["best"]}
        if "env" in state:
            observation, info = self.env.set_state(state["env"])
            self.mask = info["action_mask"]
            self.observation = observation if state["playing"] else None
