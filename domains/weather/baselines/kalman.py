r"""Kalman filters for ensembles, and 3D-Var: the rivals of a generative model in data assimilation.

Between observations :math:`y = h(x) + e`, :math:`e\sim N(0, R)` with diagonal R, an ensemble of states is carried by
the model; an analysis moves it to the posterior of a Gaussian prior with the ensemble's mean and covariance. Small
ensembles underrate their spread, so the deviations from the mean are inflated after every analysis; far observations
that only seem to correlate are left out by localisation.

Arrays: an ensemble (N, n), what it would observe (N, p), observations (p,), their variance, a number or (p,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

__all__ = [
    "ETKF",
    "LETKF",
    "Analyses",
    "EnsembleFilter",
    "StochasticEnKF",
    "ThreeDVar",
    "cycle",
    "gaspari_cohn",
]

Map = Callable[[np.ndarray], np.ndarray]
"""From states (N, n) to later states (N, n), or to what is observed of them (N, p)."""


def gaspari_cohn(distance: np.ndarray, half_width: float) -> np.ndarray:
    """A bell of compact support: 1 at distance 0, 5/24 at ``half_width``, 0 from twice that on.

    Source: Gaspari & Cohn, Q. J. R. Meteorol. Soc. 125, 1999, equation 4.10.
    """
    r = np.abs(distance) / half_width
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    far = 4 - 5 * r + 5 / 3 * r**2 + 5 / 8 * r**3 - r**4 / 2 + r**5 / 12
    far = far - 2 / (3 * np.maximum(r, 1.0))
    return np.where(r < 1, near, np.where(r < 2, far, 0.0))


class EnsembleFilter(ABC):
    """An analysis step."""

    @abstractmethod
    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The ensemble given y: from forecasts (N, n) and their observations (N, p); y and variance are (p,)."""


def _centred(ensemble: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(ensemble) < 2:
        raise ValueError(f"ensemble must have at least 2 members, got {len(ensemble)}")
    mean = ensemble.mean(0)
    return mean, ensemble - mean


def _weights(gram: np.ndarray, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the members in the analysis mean, (..., N), and in its deviations, (..., N, N): the symmetric root.

    ``gram`` (..., N, N) is Y R^-1 Y^T of the observed deviations, ``projected`` (..., N) is Y R^-1 (y - mean).
    """
    size = gram.shape[-1]
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0) + (size - 1)
    back = np.swapaxes(vectors, -1, -2)
    mean = (vectors / values[..., None, :]) @ (back @ projected[..., None])
    root = vectors * np.sqrt((size - 1) / values)[..., None, :]
    return mean[..., 0], root @ back


def _rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal (size, size) that keeps the vector of ones, hence the ensemble's mean."""
    basis = np.eye(size)
    basis[:, 0] = 1.0
    basis, _ = np.linalg.qr(basis)
    inner, upper = np.linalg.qr(rng.standard_normal((size - 1, size - 1)))
    turn = np.eye(size)
    turn[1:, 1:] = inner * np.sign(np.diag(upper))  # uniform over the orthogonal group
    return basis @ turn @ basis.T


@final
@dataclass(frozen=True)
class ETKF(EnsembleFilter):
    """The ensemble transform Kalman filter: the Kalman filter of the ensemble's mean and covariance, without noise.

    ``inflation`` multiplies the deviations after the analysis; ``rotate`` mixes them at random, with mean and
    covariance kept. Source: Bishop et al., Mon. Weather Rev. 129, 2001; the symmetric root: Hunt et al., Physica D
    230, 2007; rotations: Sakov & Oke, Mon. Weather Rev. 136, 2008.
    """

    inflation: float = 1.0
    rotate: bool = False

    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        mean, deviations = _centred(ensemble)
        expected, seen = _centred(observed)
        scaled = seen / variance
        shift, root = _weights(scaled @ seen.T, scaled @ (y - expected))
        if self.rotate:
            root = _rotation(len(ensemble), rng) @ root
        return mean + shift @ deviations + self.inflation * (root @ deviations)


@final
@dataclass(frozen=True, eq=False)
class LETKF(EnsembleFilter):
    """The local ETKF: every number of the state sees the observations near it, weighted by :func:`gaspari_cohn`.

    ``distance``: from each number of the state to each observation, (n, p), in the unit of ``half_width``. Source: Hunt
    et al., Physica D 230, 2007. Raises ``ValueError`` for distances of another shape.
    """

    distance: np.ndarray
    half_width: float
    inflation: float = 1.0
    rotate: bool = False

    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        shape = (ensemble.shape[1], observed.shape[1])
        if self.distance.shape != shape:
            raise ValueError(
                f"distance must be {shape}, states by observations, got {self.distance.shape}"
            )
        mean, deviations = _centred(ensemble)
        expected, seen = _centred(observed)
        near = gaspari_cohn(self.distance, self.half_width) / variance
        scaled = seen * near[:, None, :]  # (n, N, p)
        shift, root = _weights(scaled @ seen.T, scaled @ (y - expected))
        if self.rotate:
            root = _rotation(len(ensemble), rng) @ root
        moved = np.einsum("ij,ji->i", shift, deviations)
        return mean + moved + self.inflation * np.einsum("ikj,ji->ki", root, deviations)


@final
@dataclass(frozen=True)
class StochasticEnKF(EnsembleFilter):
    """The ensemble Kalman filter in which every member sees the observations with errors of its own.

    The errors are drawn without a mean. Source: Burgers, van Leeuwen & Evensen, Mon. Weather Rev. 126, 1998.
    """

    inflation: float = 1.0

    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        _, deviations = _centred(ensemble)
        _, seen = _centred(observed)
        errors = rng.standard_normal(observed.shape) * np.sqrt(variance)
        innovations = y + errors - errors.mean(0) - observed
        total = seen.T @ seen / (len(seen) - 1) + np.diag(variance)
        gain = np.linalg.solve(total, seen.T @ deviations / (len(seen) - 1))
        moved = ensemble + innovations @ gain
        mean = moved.mean(0)
        return mean + self.inflation * (moved - mean)


@final
@dataclass(frozen=True, eq=False)
class ThreeDVar(EnsembleFilter):
    """3D-Var with linear observations: every member is corrected by the gain of one fixed background covariance.

    ``covariance`` (n, n) of the forecasts' errors, ``operator`` (p, n) the observations' matrix; an ensemble of one
    state will do. Source: Lorenc, Q. J. R. Meteorol. Soc. 112, 1986.
    """

    covariance: np.ndarray
    operator: np.ndarray

    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        cross = self.operator @ self.covariance
        total = cross @ self.operator.T + np.diag(variance)
        return ensemble + (y - observed) @ np.linalg.solve(total, cross)


@final
@dataclass(frozen=True, eq=False)
class Analyses:
    """What :func:`cycle` found: the ensembles after each analysis, (T, N, n)."""

    ensembles: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(T, n)."""
        return self.ensembles.mean(1)

    @property
    def spread(self) -> np.ndarray:
        """The root over the state of the mean variance of the members, (T,)."""
        return np.sqrt(self.ensembles.var(1, ddof=1).mean(-1))

    def rmse(self, truth: np.ndarray) -> np.ndarray:
        """The root of the mean squared error of the ensemble mean, (T,), for the truth (T, n)."""
        return np.sqrt(((self.mean - truth) ** 2).mean(-1))


def cycle(
    method: EnsembleFilter,
    ensemble: np.ndarray,
    forecast: Map,
    observe: Map,
    observations: np.ndarray,
    variance: float | np.ndarray,
    *,
    seed: int = 0,
) -> Analyses:
    """Carry an ensemble (N, n) from observation to observation, (T, p): forecast, then analyse, T times.

    ``forecast`` takes an ensemble from one time of observation to the next, the first to the first observation.
    ``seed``: of rotations and perturbed observations. Raises ``ValueError`` for a variance that is not positive, or
    observations of another shape than ``observe`` makes.
    """
    rng, found = np.random.default_rng(seed), []
    wide = np.broadcast_to(np.asarray(variance, dtype=np.float64), observations.shape[1:])
    if not bool((wide > 0).all()):
        raise ValueError("variance must be positive; give exact observations a small one")
    for y in observations:
        ensemble = forecast(ensemble)
        observed = observe(ensemble)
        if observed.shape != (len(ensemble), *y.shape):
            raise ValueError(
                f"observations must be (T, {observed.shape[-1]}), as observe makes them, got {observations.shape}"
            )
        ensemble = method.analyse(ensemble, observed, y, wide, rng)
        found.append(ensemble)
    return Analyses(np.stack(found))
