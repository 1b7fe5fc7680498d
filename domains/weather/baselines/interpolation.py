r"""Optimal interpolation of scattered observations, and the interpolation of coarse fields by polynomials.

Optimal interpolation is the posterior of a Gaussian field with the mean and covariance of past fields: with
observations :math:`y = Hx + e`, :math:`e\sim N(0, R)`,

.. math:: m + SH^T(HSH^T+R)^{-1}(y - Hm), \qquad S - SH^T(HSH^T+R)^{-1}HS .

A covariance of few samples sees relations that are not there, so it is shrunk to its diagonal.
Source: Gandin, Objective analysis of meteorological fields, 1963; the amount of shrinkage for independent samples:
Schäfer & Strimmer, Stat. Appl. Genet. Mol. Biol. 4, 2005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["GaussianAnalysis", "OptimalInterpolation", "best_shrinkage", "enlarge"]


def best_shrinkage(fields: np.ndarray) -> float:
    """The share of the diagonal with the least expected squared error, for independent fields (n, P).

    Fields that follow each other in time are not independent; more shrinkage is then better.
    """
    x = fields - fields.mean(0)
    n = len(x)
    gram = x @ x.T if n < x.shape[1] else x.T @ x
    squares = (x**2).mean(0)
    # sums over pairs of places, with the diagonal taken off, of the products' mean squared and variance
    means = (gram**2).sum() / n**2 - (squares**2).sum()
    variances = ((x**2).sum(1) ** 2).sum() / n - (x**4).sum() / n - means
    return float(np.clip(variances / (n - 1) / means, 0.0, 1.0)) if means > 0 else 1.0


@final
@dataclass(frozen=True, eq=False)
class OptimalInterpolation:
    """A Gaussian law of fields with P numbers: the covariance is factor^T factor + diag(own).

    Make one by :meth:`fit`. ``mean`` (P,), ``factor`` (r, P), ``own`` (P,).
    """

    mean: np.ndarray
    factor: np.ndarray
    own: np.ndarray

    @staticmethod
    def fit(fields: np.ndarray, *, shrinkage: float | None = None) -> OptimalInterpolation:
        """The law of past fields (n, P): their mean, their covariance shrunk to its diagonal.

        ``shrinkage`` from 0, the samples' covariance, to 1, its diagonal; None: :func:`best_shrinkage`. Subtract a
        climatology first where there is one. Raises ``ValueError`` for fewer than two fields, numbers that are not
        finite, or a shrinkage outside 0..1.
        """
        if fields.ndim != 2 or len(fields) < 2:
            raise ValueError(f"fields must be (n, P) with n > 1, got {fields.shape}")
        if not bool(np.isfinite(fields).all()):
            raise ValueError("fields must be finite; leave out the places where they are not")
        share = best_shrinkage(fields) if shrinkage is None else shrinkage
        if not 0 <= share <= 1:
            raise ValueError(f"shrinkage must lie in 0..1, got {shrinkage}")
        mean = fields.mean(0)
        x = (fields - mean) / math.sqrt(len(fields) - 1)
        return OptimalInterpolation(mean, math.sqrt(1 - share) * x, share * (x**2).sum(0))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Fields of the law, (n, P)."""
        x = rng.standard_normal((n, len(self.factor))) @ self.factor
        return self.mean + x + rng.standard_normal(x.shape) * np.sqrt(self.own)

    def analyse(
        self, values: np.ndarray, where: np.ndarray, variance: float | np.ndarray
    ) -> GaussianAnalysis:
        """The law given observations (..., k), with errors of ``variance``, a number or (k,).

        ``where``: the places (k,), integers, or a matrix (k, P) whose rows say of which sums the values are. Leading
        dimensions of ``values`` are times with the same places, each analysed by itself. Raises ``ValueError`` for
        places outside the field, or a number of values that is not theirs.
        """
        points = len(self.mean)
        if where.ndim == 1 and len(where) and not 0 <= where.min() <= where.max() < points:
            raise ValueError(f"where must lie in 0..{points - 1}, got {where.min()}..{where.max()}")
        if where.ndim == 2 and where.shape[1] != points:
            raise ValueError(f"where must have {points} columns, one a place, got {where.shape}")
        if values.shape[-1:] != (len(where),):
            raise ValueError(f"values must be (..., {len(where)}), one a place, got {values.shape}")
        errors = np.broadcast_to(np.asarray(variance, dtype=np.float64), len(where))
        if where.ndim == 2:
            cross = (self.factor @ where.T).T @ self.factor + where * self.own
            total, expected = cross @ where.T, where @ self.mean
        else:
            cross, expected = self._rows(where), self.mean[where]
            total = cross[:, where]
        gain = np.linalg.solve(total + np.diag(errors), cross)  # (k, P)
        mean = self.mean + (values - expected) @ gain
        left = np.maximum(self.variance - (gain * cross).sum(0), 0.0)
        return GaussianAnalysis(mean, left, self, where, errors, gain)

    @cached_property
    def variance(self) -> np.ndarray:
        """Of each number, (P,)."""
        return (self.factor**2).sum(0) + self.own

    @cached_property
    def _covariance(self) -> np.ndarray:
        return self.factor.T @ self.factor + np.diag(self.own)

    def _rows(self, where: np.ndarray) -> np.ndarray:
        """Of the covariance, (k, P): out of the whole where that takes no more memory than the factor."""
        if len(self.mean) <= len(self.factor):
            return self._covariance[where]
        cross = self.factor[:, where].T @ self.factor
        cross[np.arange(len(where)), where] += self.own[where]
        return cross


@final
@dataclass(frozen=True, eq=False)
class GaussianAnalysis:
    """The posterior of optimal interpolation: ``mean`` (..., P) and ``variance`` (P,), which no value changes."""

    mean: np.ndarray
    variance: np.ndarray
    law: OptimalInterpolation
    where: np.ndarray
    errors: np.ndarray
    gain: np.ndarray

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Fields of the posterior, (n, ..., P), by correcting fields of the prior (Matheron's rule)."""
        rng = np.random.default_rng(seed)
        count = n * int(np.prod(self.mean.shape[:-1]))
        x = self.law.sample(count, rng) - self.law.mean
        seen = x[:, self.where] if self.where.ndim == 1 else x @ self.where.T
        seen = seen + rng.standard_normal(seen.shape) * np.sqrt(self.errors)
        return self.mean + (x - seen @ self.gain).reshape(n, *self.mean.shape)

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """The continuous ranked probability score of the Gaussian at each place, (..., P): Gneiting et al., 2005."""
        spread = np.sqrt(np.maximum(self.variance, np.finfo(np.float64).tiny))
        z = torch.from_numpy(np.asarray((truth - self.mean) / spread, dtype=np.float64))
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        score = z * torch.special.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
        return spread * score.numpy()


def enlarge(
    coarse: Tensor, factor: int, kind: Literal["bilinear", "bicubic"], *, circular: bool = False
) -> Tensor:
    """Coarse cells (..., h, w) on a grid ``factor`` times as fine, (..., factor h, factor w).

    The values lie at the middles of cells; beyond the edge they go on as they are there, or with ``circular`` around
    the globe along the last dimension. Raises ``ValueError`` for a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    x = coarse.reshape(-1, 1, *coarse.shape[-2:])
    if circular:
        x = torch.cat([x[..., -2:], x, x[..., :2]], -1)
    x = functional.interpolate(x, scale_factor=factor, mode=kind, align_corners=False)
    if circular:
        x = x[..., 2 * factor : -2 * factor]
    return x.reshape(*coarse.shape[:-2], *x.shape[-2:])
