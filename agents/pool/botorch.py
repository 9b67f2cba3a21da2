"""BoTorch's Gaussian process as a surrogate, for comparison (extra ``bo``)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qas.agents.pool.surrogates import Array, Choice, Observed, Positions, Posterior, Surrogate, standard_units
from qas.errors import MissingExtraError

_CHUNK = 4096


class BotorchPosterior(Posterior):
    """Of a BoTorch model; batches by qLogExpectedImprovement, sequential greedy."""

    def __init__(self, model: Any, surrogate: BotorchSurrogate, points: NDArray[np.floating]) -> None:
        import torch

        self._model, self._surrogate, self._x = model, surrogate, surrogate.inputs(points)
        moments = []
        with torch.no_grad():
            for part in self._x.split(_CHUNK):
                found = model.posterior(part[:, None, :])  # one point at a time: no joint covariance is made
                moments.append(torch.stack([found.mean.flatten(), found.variance.clamp_min(1e-20).sqrt().flatten()]))
        self.mean, self.std = torch.cat(moments, dim=1).numpy()

    def sample(self, where: Positions, count: int, rng: np.random.Generator) -> Array:
        import torch

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(rng.integers(2**31)))
            return self._model.posterior(self._x[where]).rsample(torch.Size([count]))[..., 0].numpy()

    def improve(self, short: Positions, among: Choice, samples: int | None) -> Positions:
        import torch
        from botorch.acquisition import qLogExpectedImprovement
        from botorch.optim import optimize_acqf_discrete
        from botorch.sampling import SobolQMCNormalSampler

        if len(short) <= among.count:
            return short
        sampler = SobolQMCNormalSampler(torch.Size([samples or 128]), seed=self._surrogate.seed)
        pending = self._surrogate.inputs(among.pending) if len(among.pending) else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gain = qLogExpectedImprovement(self._model, best_f=among.target, sampler=sampler, X_pending=pending)
            choices = self._x[short]
            found, _ = optimize_acqf_discrete(gain, q=among.count, choices=choices, return_acq_values=False)
        # BoTorch returns coordinates, and copies of a point share them.
        chosen: list[int] = []
        for row in found:
            same = torch.nonzero((choices == row).all(dim=1)).flatten().tolist()
            chosen.extend([position for position in same if position not in chosen][:1])
        return short[chosen or [0]]


class BotorchSurrogate(Surrogate):
    """BoTorch's SingleTaskGP with its default priors, fitted anew on all observations.

    Args:
        matern: Matern-5/2 with the same priors instead of BoTorch's default kernel.

    Raises:
        MissingExtraError: BoTorch is not installed.
    """

    about = "BoTorch's SingleTaskGP (extra 'bo')"

    def __init__(self, *, matern: bool = True) -> None:
        self.matern = bool(matern)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import botorch  # noqa: F401
        except ImportError:
            raise MissingExtraError("the surrogate botorch", "bo") from None

    def prepare(self, points: ArrayLike) -> None:
        self._centre, self._scale = standard_units(np.asarray(points))

    def inputs(self, points: NDArray[np.floating]) -> Any:
        """Standardised points as a float64 tensor."""
        import torch

        return torch.from_numpy(np.ascontiguousarray((points - self._centre) / self._scale, dtype=np.float64))

    def learn(self, points: Observed, values: Array, rng: np.random.Generator, *, thorough: bool = False) -> bool:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
        from gpytorch.mlls import ExactMarginalLogLikelihood

        x, self.seed = self.inputs(points[:]), int(rng.integers(2**31))
        kernel = get_covar_module_with_dim_scaled_prior(x.shape[-1], use_rbf_kernel=False) if self.matern else None
        # A failed fit is repeated from random hyper-parameters, drawn from torch's global generator.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            self._model = SingleTaskGP(x, torch.from_numpy(values)[:, None], covar_module=kernel)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(self._model.likelihood, self._model))
        return True

    def posterior(self, points: NDArray[np.floating]) -> Posterior:
        return BotorchPosterior(self._model, self, points)
