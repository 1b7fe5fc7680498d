"""Statistics as forecasts: climatology, persistence, damped persistence, and linear regression with a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import xarray as xr

__all__ = ["Climatology", "DampedPersistence", "LocalRidge", "Ridge"]


@final
@dataclass(frozen=True, eq=False)
class Climatology:
    """What is usual at a date: a mean, waves of the year, and a constant for each hour of the day that occurs.

    Make one by :meth:`fit`. ``coefficients`` (1 + 2 harmonics + hours - 1, ...), ``hours`` the first of which is the
    one that the mean is for.
    """

    coefficients: np.ndarray
    harmonics: int
    hours: np.ndarray

    @staticmethod
    def fit(times: np.ndarray, values: np.ndarray, *, harmonics: int = 2) -> Climatology:
        """Least squares over ``values`` (T, ...) at ``times`` (T,), of any calendar, with ``harmonics`` waves a year.

        Less than a year of data bears no waves: give ``harmonics=0``. Raises ``ValueError`` for another number of
        values, or fewer than the numbers to fit.
        """
        if len(times) != len(values):
            raise ValueError(f"values must be ({len(times)}, ...), one a time, got {values.shape}")
        hours = np.unique(_hour(times))
        design = _design(times, harmonics, hours)
        if len(design) < design.shape[1]:
            raise ValueError(f"values must be at least {design.shape[1]} times, got {len(design)}")
        flat = values.reshape(len(values), -1).astype(np.float64)
        found = np.linalg.lstsq(design, flat)[0]
        return Climatology(found.reshape(-1, *values.shape[1:]), harmonics, hours)

    def at(self, times: np.ndarray) -> np.ndarray:
        """The usual fields at ``times``, (T, ...). Raises ``ValueError`` for an hour of the day that was not fitted."""
        unknown = np.setdiff1d(_hour(times), self.hours)
        if len(unknown):
            raise ValueError(
                f"times must have hours among {self.hours.tolist()}, which were fitted, got {unknown.tolist()}"
            )
        return np.tensordot(_design(times, self.harmonics, self.hours), self.coefficients, 1)


def _hour(times: np.ndarray) -> np.ndarray:
    return np.asarray(xr.DataArray(times, dims="time").dt.hour)


def _design(times: np.ndarray, harmonics: int, hours: np.ndarray) -> np.ndarray:
    clock = xr.DataArray(times, dims="time").dt
    angle = 2 * np.pi * (np.asarray(clock.dayofyear) - 1 + np.asarray(clock.hour) / 24) / 365.2425
    waves = [f(k * angle) for k in range(1, harmonics + 1) for f in (np.cos, np.sin)]
    own = [(_hour(times) == hour).astype(np.float64) for hour in hours[1:]]
    return np.stack([np.ones(len(times)), *waves, *own], 1)


@final
@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """Today's anomaly, times a number for each place: 1 everywhere is persistence.

    ``factor`` (...), and the ``spread`` of the errors (...), with which the forecast is a Gaussian.
    """

    factor: np.ndarray
    spread: np.ndarray

    @staticmethod
    def fit(anomalies: np.ndarray, steps: int) -> DampedPersistence:
        """Least squares from anomalies (T, ...), evenly spaced, to those ``steps`` later.

        Raises ``ValueError`` for fewer than one step, or too few anomalies.
        """
        if not 1 <= steps < len(anomalies):
            raise ValueError(f"steps must lie in 1..{len(anomalies) - 1}, got {steps}")
        now, later = anomalies[:-steps], anomalies[steps:]
        power = (now**2).sum(0)
        factor = (now * later).sum(0) / np.where(power > 0, power, 1.0)
        return DampedPersistence(factor, np.sqrt(((later - factor * now) ** 2).mean(0)))

    def __call__(self, anomalies: np.ndarray) -> np.ndarray:
        """The forecast (..., as fitted)."""
        return self.factor * anomalies


@final
@dataclass(frozen=True, eq=False)
class Ridge:
    """Linear regression with a penalty on the squared coefficients.

    Make one by :meth:`fit`. ``spread`` (q,) is the root mean square of the errors that each sample has when it is left
    out, with which the prediction is a Gaussian. Source: Hoerl & Kennard, Technometrics 12, 1970.
    """

    coefficients: np.ndarray
    constant: np.ndarray
    penalty: float
    spread: np.ndarray

    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray, *, penalty: float | None = None) -> Ridge:
        """From predictors (n, p) to predictands (n, q).

        ``penalty`` in units of the predictors' mean variance times n; None: the one of 25 from 1e-8 to 1e4 with the
        least error left out, exact and at once for all samples. Raises ``ValueError`` for shapes that do not match, or
        a penalty that is not positive.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
            raise ValueError(
                f"x and y must be (n, p) and (n, q) with n > 1, got {x.shape}, {y.shape}"
            )
        if penalty is not None and not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty}")
        x, y = x.astype(np.float64), y.astype(np.float64)
        x_mean, y_mean = x.mean(0), y.mean(0)
        u, s, v = np.linalg.svd(x - x_mean, full_matrices=False)
        within = u.T @ (y - y_mean)
        unit = (s**2).sum() / x.shape[1]

        def left_out(share: float) -> np.ndarray:
            kept = s**2 / (s**2 + share * unit)
            lever = (u**2) @ kept + 1 / len(x)
            errors = y - y_mean - u @ (kept[:, None] * within)
            return errors / np.maximum(1 - lever, 1e-12)[:, None]

        trials = np.logspace(-8, 4, 25) if penalty is None else np.array([penalty])
        scores = [float((left_out(share) ** 2).mean()) for share in trials]
        best = float(trials[int(np.argmin(scores))])
        coefficients = v.T @ ((s / (s**2 + best * unit))[:, None] * within)
        spread = np.sqrt((left_out(best) ** 2).mean(0))
        return Ridge(coefficients, y_mean - x_mean @ coefficients, best, spread)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The prediction (n, q)."""
        return x @ self.coefficients + self.constant


@final
@dataclass(frozen=True, eq=False)
class LocalRidge:
    """From coarse cells to fine ones by one :class:`Ridge` for all places: a cell's neighbourhood predicts its inside.

    Make one by :meth:`fit`. ``reach``: cells on each side that are seen; beyond the edge they go on as they are there.
    """

    ridge: Ridge
    factor: int
    reach: int

    @staticmethod
    def fit(
        coarse: np.ndarray, fine: np.ndarray, *, reach: int = 2, penalty: float | None = None
    ) -> LocalRidge:
        """From fields (n, h, w) and (n, f h, f w). Raises ``ValueError`` for sizes that are no multiples."""
        n, h, w = coarse.shape
        factor = fine.shape[1] // h
        if fine.shape != (n, factor * h, factor * w) or factor < 1:
            raise ValueError(
                f"fine must be ({n}, f {h}, f {w}) for coarse {coarse.shape}, got {fine.shape}"
            )
        blocks = fine.reshape(n, h, factor, w, factor).transpose(0, 1, 3, 2, 4)
        y = blocks.reshape(-1, factor * factor)
        return LocalRidge(Ridge.fit(_around(coarse, reach), y, penalty=penalty), factor, reach)

    def __call__(self, coarse: np.ndarray) -> np.ndarray:
        """The fine fields (n, f h, f w)."""
        n, h, w = coarse.shape
        blocks = self.ridge(_around(coarse, self.reach))
        blocks = blocks.reshape(n, h, w, self.factor, self.factor).transpose(0, 1, 3, 2, 4)
        return blocks.reshape(n, h * self.factor, w * self.factor)


def _around(coarse: np.ndarray, reach: int) -> np.ndarray:
    """Every cell's neighbourhood, (n h w, (2 reach + 1)^2)."""
    size = 2 * reach + 1
    wide = np.pad(coarse, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(wide, (size, size), (1, 2)).reshape(-1, size**2)
