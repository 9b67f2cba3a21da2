"""Pool searchers around other people's Bayesian optimization: BoTorch and Optuna's GPSampler, for comparison."""

from __future__ import annotations

import abc
import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from qas.agents.pool.bayesian import DESIGNS, best_positions, spread_design
from qas.agents.pool.gaussian_process import standard_units
from qas.agents.pool.searchers import Indices, PoolSearcher, squared_distances, whole_number
from qas.errors import MissingExtraError, QasError


class _Library(PoolSearcher):
    """A searcher whose model is made anew from the record at every ask: nothing else needs to be saved."""

    def __init__(self, points: ArrayLike, rng: np.random.Generator, *, batch: int, initial: int, design: str) -> None:
        super().__init__(points, rng)
        if design not in DESIGNS:
            raise QasError(f"design is one of {', '.join(DESIGNS)}, got {design!r}")
        self.batch, self.initial, self.design = whole_number("batch", batch), whole_number("initial", initial), design
        centre, scale = standard_units(self.points)
        self._x = np.ascontiguousarray((self.points - centre) / scale, dtype=np.float64)

    def _choose(self) -> Indices:
        left = np.flatnonzero(self._open)
        if self._n_seen < self.initial:
            return spread_design(self._x, left, self.initial - self._n_seen, self.rng, self.design)
        if len(self._told) < 2:
            return self._random_open(self.batch)
        if len(left) <= self.batch:
            return left
        return self._propose(left)

    @abc.abstractmethod
    def _propose(self, left: Indices) -> Indices:
        """Points to ask for, among those left."""


class BotorchSearcher(_Library):
    """BoTorch: SingleTaskGP with its default priors, qLogExpectedImprovement, sequential greedy over a screened set.

    Args:
        batch, initial, design: as in `BayesianSearcher`.
        shortlist: points, best in single-point log expected improvement, that `optimize_acqf_discrete` sees.
        samples: quasi-Monte Carlo samples.
        matern: Matern-5/2 with the same priors instead of BoTorch's default kernel.

    Raises:
        MissingExtraError: BoTorch is not installed.
    """

    name: ClassVar[str] = "botorch"
    about: ClassVar[str] = "BoTorch's SingleTaskGP and qLogEI over a screened set (extra 'bo')"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        batch: int = 5,
        initial: int = 16,
        design: str = "kmeans++",
        shortlist: int = 1000,
        samples: int = 128,
        matern: bool = True,
    ) -> None:
        super().__init__(points, rng, batch=batch, initial=initial, design=design)
        self.shortlist, self.samples = whole_number("shortlist", shortlist), whole_number("samples", samples)
        self.matern = bool(matern)
        _import_botorch()

    def _propose(self, left: Indices) -> Indices:
        _import_botorch()
        import torch
        from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement
        from botorch.optim import optimize_acqf_discrete
        from botorch.sampling import SobolQMCNormalSampler

        told, values = self.told
        x = torch.from_numpy(self._x)
        seed = int(self.rng.integers(2**31))
        # A failed fit is repeated from random hyper-parameters, drawn from torch's global generator.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            model = self._model(x[told], torch.from_numpy(values)[:, None])
            best = float(values.max())
            single = LogExpectedImprovement(model, best_f=best)
            with torch.no_grad():
                parts = [single(x[part][:, None, :]) for part in np.array_split(left, 1 + len(left) // 4096)]
            short = left[best_positions(torch.cat(parts).numpy(), self.shortlist)]
            acquisition = qLogExpectedImprovement(
                model,
                best_f=best,
                sampler=SobolQMCNormalSampler(torch.Size([self.samples]), seed=seed),
                X_pending=x[self._pending] if self._pending else None,
            )
            choices = x[short]
            found, _ = optimize_acqf_discrete(acquisition, q=self.batch, choices=choices, return_acq_values=False)
        return self._recognised(found.numpy(), short)

    def _model(self, x: Any, y: Any) -> Any:
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
        from gpytorch.mlls import ExactMarginalLogLikelihood

        kernel = get_covar_module_with_dim_scaled_prior(x.shape[-1], use_rbf_kernel=False) if self.matern else None
        model = SingleTaskGP(x, y, covar_module=kernel)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def _recognised(self, found: np.ndarray, short: Indices) -> Indices:
        """Indices of the points found; BoTorch returns coordinates, and copies of a point share them."""
        chosen: list[int] = []
        for row in found:
            for index in short[np.flatnonzero((self._x[short] == row).all(axis=1))]:
                if int(index) not in chosen:
                    chosen.append(int(index))
                    break
        return np.array(chosen or [int(short[0])], dtype=np.int64)


def _import_botorch() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import botorch  # noqa: F401
    except ImportError:
        raise MissingExtraError("the searcher botorch", "bo") from None


class OptunaSearcher(_Library):
    """Optuna's GPSampler proposes in the box of the embeddings; the nearest unvisited point is taken in its place.

    The study is told the actual embedding of every point, not the one proposed; pending points are its running trials.

    Args:
        batch, initial, design: as in `BayesianSearcher`.
        deterministic: fix the noise to the sampler's minimum.
    """

    name: ClassVar[str] = "optuna"
    about: ClassVar[str] = "Optuna's GPSampler proposes in the box, the nearest unvisited point is taken"

    def __init__(
        self,
        points: ArrayLike,
        rng: np.random.Generator,
        *,
        batch: int = 1,
        initial: int = 16,
        design: str = "kmeans++",
        deterministic: bool = False,
    ) -> None:
        super().__init__(points, rng, batch=batch, initial=initial, design=design)
        self.deterministic = bool(deterministic)

    def _propose(self, left: Indices) -> Indices:
        import optuna
        from optuna.distributions import FloatDistribution

        low, high = self._x.min(axis=0), self._x.max(axis=0)
        box = {f"x{j}": FloatDistribution(float(a), float(b)) for j, (a, b) in enumerate(zip(low, high, strict=True))}
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                study = self._study(box)
                chosen: list[int] = []
                for _ in range(min(self.batch, len(left))):
                    proposal = study.ask(fixed_distributions=box)
                    study.tell(proposal, state=optuna.trial.TrialState.FAIL)
                    distance = squared_distances(self._x, np.array([proposal.params[k] for k in box]))
                    distance[~self._open] = np.inf
                    distance[chosen] = np.inf
                    chosen.append(int(np.argmin(distance)))
                    study.add_trial(self._trial(chosen[-1], box, None))
        finally:
            optuna.logging.set_verbosity(before)
        return np.array(chosen, dtype=np.int64)

    def _study(self, box: dict[str, Any]) -> Any:
        import optuna

        sampler = optuna.samplers.GPSampler(
            seed=int(self.rng.integers(2**31)), n_startup_trials=1, deterministic_objective=self.deterministic
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for index, value in zip(self._told, self._values, strict=True):
            study.add_trial(self._trial(index, box, value))
        for index in self._pending:
            study.add_trial(self._trial(index, box, None))
        return study

    def _trial(self, index: int, box: dict[str, Any], value: float | None) -> Any:
        import optuna

        params = {k: float(v) for k, v in zip(box, self._x[index], strict=True)}
        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        return optuna.trial.create_trial(state=state, value=value, params=params, distributions=box)
