"""Zero-noise extrapolation: a value without noise from values at several strengths of it.

To add a way, subclass `Extrapolation` and register it (`EXTRAPOLATIONS`, or an entry point in the group
``qas.extrapolations``), or pass the class or an instance wherever a name is taken.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qas.checks import finite_number, shortened, whole_number
from qas.errors import QasError
from qas.registry import Registry

if TYPE_CHECKING:
    from qas.circuits import Circuit
    from qas.hamiltonians import Hamiltonian

NODES = (1.0, 3.0, 5.0)
"""Strengths of the noise unless told otherwise: those that folding a gate once and twice gives."""


@dataclass(frozen=True)
class Extrapolated:
    """A value without noise, as far as it can be told from values with it."""

    value: float
    weights: np.ndarray
    """d value / d (value at each node), float64, shape (n_nodes,): what carries gradients and variances on"""
    standard_error: float
    """of `value`, from independent standard errors at the nodes, to first order; 0 without them"""
    fallback: str = ""
    """why the fit was a straight line instead of the one asked for; empty where it was not"""


class Extrapolation(abc.ABC):
    """Takes values at several strengths of the noise, 1 being the device's, to strength 0."""

    about: ClassVar[str] = ""
    """one line for lists"""
    least_nodes: int = 2
    """fewest strengths that it can be taken from"""
    learns: bool = False
    """whether `prepared` has something to do"""

    def __call__(
        self,
        nodes: Sequence[float] | np.ndarray,
        values: Sequence[float] | np.ndarray,
        errors: Sequence[float] | np.ndarray | None = None,
        *,
        limit: float = 0.0,
        bound: float = math.inf,
    ) -> Extrapolated:
        """The value at strength 0.

        A fit that does not converge, or that leads where no state is, is replaced by the straight line through the same
        values, and says so in `Extrapolated.fallback`; the result is finite always.

        Args:
            nodes: strengths, as `read_nodes` checks them, shape (n_nodes,).
            values: measured at them, finite, shape (n_nodes,).
            errors: their standard errors, shape (n_nodes,).
            limit: value at infinite noise: of an energy that of the fully mixed state, `Hamiltonian.identity`.
            bound: farthest that a value can be from `limit`: of an energy the sum of |coefficients|.

        Raises:
            QasError: too few nodes for this way or equal ones (see `check`), or another number of values.
        """
        at, measured = np.asarray(nodes, dtype=np.float64), np.asarray(values, dtype=np.float64)
        self.check(at)
        if measured.shape != at.shape:
            raise QasError(f"each node has one value, got {measured.size} at {at.size} nodes")
        value, weights, reason = *self._at_zero(at, measured, limit), ""
        if not (math.isfinite(value) and np.isfinite(weights).all() and abs(value - limit) <= bound):
            straight = intercept_weights(at, 1)
            reason = "it has no limit" if not math.isfinite(value) else "it leaves the range of the operator"
            value, weights = float(straight @ measured), straight
        spread = 0.0 if errors is None else float(np.linalg.norm(weights * np.asarray(errors, dtype=np.float64)))
        return Extrapolated(value, weights, spread, reason)

    def check(self, nodes: np.ndarray) -> None:
        """Refuse nodes that this way cannot be taken from.

        Raises:
            QasError: too few, or equal ones.
        """
        if len(set(nodes.tolist())) < len(nodes):
            raise QasError(f"nodes are different strengths of the noise, got {nodes.tolist()}")
        if len(nodes) < self.least_nodes:
            raise QasError(f"{self.about.split(':')[0]} takes at least {self.least_nodes} nodes, got {len(nodes)}")

    def prepared(
        self,
        circuit: Circuit,
        hamiltonian: Hamiltonian,
        nodes: Sequence[float],
        measure: Callable[[Circuit, float], float],
        spread: float,
        seed: int,
    ) -> Extrapolation:
        """This way made ready for one circuit; itself, unless it learns.

        Args:
            circuit: whose values are going to be extrapolated.
            hamiltonian: what they are values of.
            nodes: strengths at which they are going to be measured.
            measure: a circuit's value at a strength of the noise.
            spread: standard error that they will have, about.
            seed: fixes what is drawn.
        """
        return self

    @abc.abstractmethod
    def _at_zero(self, nodes: np.ndarray, values: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        """The value at strength 0, and its derivatives by `values`; not finite where the fit has no answer."""


class Polynomial(Extrapolation):
    """A polynomial in the strength, by least squares.

    Args:
        degree: of the polynomial, at least 1 and below the number of nodes; None: as high as the nodes allow, so that
            it goes through all values.
    """

    about = "a polynomial: least squares of the given degree"

    def __init__(self, *, degree: int | None = 2) -> None:
        self.degree = None if degree is None else whole_number("the degree of a fit", degree)
        self.least_nodes = 2 if self.degree is None else self.degree + 1

    def weights(self, nodes: Sequence[float] | np.ndarray) -> np.ndarray:
        """What each value counts at strength 0, or its logarithm, float64, shape (n_nodes,)."""
        return intercept_weights(nodes, len(nodes) - 1 if self.degree is None else self.degree)

    def _at_zero(self, nodes: np.ndarray, values: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        weights = self.weights(nodes)
        return float(weights @ values), weights


class Linear(Polynomial):
    """A straight line, by least squares."""

    about = "a straight line: least squares"

    def __init__(self) -> None:
        super().__init__(degree=1)


class Richardson(Polynomial):
    """The polynomial through all values (Temme, Bravyi, Gambetta, Phys. Rev. Lett. 119, 180509, 2017)."""

    about = "Richardson's way: the polynomial through all values"

    def __init__(self) -> None:
        super().__init__(degree=None)


class PolyExponential(Polynomial):
    """The exponential of a polynomial in the strength, towards the known value at infinite noise.

    ``E(λ) = limit ± exp(c₀ + c₁ λ + … )``, least squares for the logarithm (Giurgica-Tiron et al., IEEE QCE 2020, 306,
    https://arxiv.org/abs/2005.10921, section III). It has no answer where values lie on both sides of the limit.

    Args:
        degree: as of `Polynomial`.
    """

    about = "a poly-exponential: decay to the known limit, with a polynomial in the exponent"

    def _at_zero(self, nodes: np.ndarray, values: np.ndarray, limit: float) -> tuple[float, np.ndarray]:
        apart = values - limit
        if not ((apart > 0).all() or (apart < 0).all()):
            return math.nan, apart
        weights = self.weights(nodes)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            distance = float(np.sign(apart[0]) * np.exp(weights @ np.log(np.abs(apart))))
            return limit + distance, distance * weights / apart


class Exponential(PolyExponential):
    """Exponential decay towards the known value at infinite noise, by least squares for the logarithm."""

    about = "an exponential: decay to the known limit"

    def __init__(self) -> None:
        super().__init__(degree=1)


EXTRAPOLATIONS = Registry(
    "extrapolations",
    "extrapolation",
    {
        "linear": Linear,
        "richardson": Richardson,
        "polynomial": Polynomial,
        "exponential": Exponential,
        "poly-exponential": PolyExponential,
        "learned": "qas.mitigation.learned:Learned",
    },
)
"""Name -> class."""


def make_extrapolation(given: str | type[Extrapolation] | Extrapolation | dict[str, Any]) -> Extrapolation:
    """An extrapolation by name, as a class or an instance; settings as in ``"poly-exponential:degree=3"``.

    Raises:
        UnknownNameError: no such name or setting.
    """
    made: Extrapolation = EXTRAPOLATIONS.make(given, Extrapolation)
    return made


def read_nodes(given: object) -> tuple[float, ...]:
    """Strengths of the noise, smallest first, from a sequence or from text such as ``1-3-5``.

    Raises:
        QasError: fewer than two, equal ones, or any that is not a finite number of at least 1.
    """
    rule = "nodes are two or more different strengths of the noise, as in 1-3-5"
    try:
        parts = re.split(r"[-/ ]+", given.strip()) if isinstance(given, str) else list(given)  # type: ignore[call-overload]
        nodes = tuple(sorted(finite_number("a node", float(part), least=1.0) for part in parts))
    except (TypeError, ValueError) as error:
        reason = error if isinstance(error, QasError) else f"got {shortened(given)}"
        raise QasError(f"{rule}; {reason}") from None
    if len(nodes) < 2 or len(set(nodes)) < len(nodes):
        raise QasError(f"{rule}, got {shortened(given)}")
    return nodes


def intercept_weights(nodes: Sequence[float] | np.ndarray, degree: int) -> np.ndarray:
    """What each value counts at strength 0 in a least-squares polynomial, float64, shape (n_nodes,)."""
    at = np.asarray(nodes, dtype=np.float64)
    if degree == len(at) - 1:  # Lagrange's form; least squares lose all digits from about ten nodes on
        apart = at - at[:, None]
        return np.divide(at, apart, out=np.ones_like(apart), where=apart != 0.0).prod(axis=1)
    powers = np.vander(at / np.abs(at).max(), degree + 1, increasing=True)  # in this unit the powers stay comparable
    return np.linalg.pinv(powers)[0]
