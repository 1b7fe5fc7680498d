r"""A schedule that was trained on a table of discrete steps, made continuous.

Networks of the DDPM family know a table :math:`\bar\alpha_1 > \dots > \bar\alpha_N` (Ho et al., 2020) and were
trained at its N noise levels only. Between them the log-SNR is interpolated, so that any grid may ask for any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import FromLogSNR, f64
from sciffusion.schedule.invert import invert

__all__ = ["Tabulated"]


@final
@dataclass(frozen=True, eq=False)
class Tabulated(FromLogSNR):
    r"""Variance preserving, :math:`\alpha^2` at the times k/N, k = 1..N, being the N numbers of ``alpha2``.

    In between, the log-SNR follows the monotone cubic of Fritsch and Carlson (1980). Below 1/N the variance of the
    noise falls as a power of t, to clean data at t = 0; where the last number is zero (no signal left), that of the
    data falls as a power of 1 - t after the last but one. Both powers are those that leave the slope continuous.

    Raises ``ValueError`` unless there are at least three numbers, which fall strictly, lie below 1 and are positive,
    but for the last, which may be zero.

    >>> float(Tabulated(torch.tensor([0.9, 0.5, 0.1])).alpha(2 / 3)) ** 2  # doctest: +ELLIPSIS
    0.5...
    """

    alpha2: Tensor
    _knots: tuple[Tensor, Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        a2 = self.alpha2.detach().to("cpu", torch.float64).flatten()
        inside = bool((a2[:-1] > 0).all() and (a2 < 1).all() and (a2[-1:] >= 0).all())
        if len(a2) < 3 or not inside or not bool((a2.diff() < 0).all()):
            raise ValueError(
                "alpha2 must be three numbers or more that fall strictly from below 1 to 0 or above it, got "
                f"{len(a2)} from {a2[:3].tolist()} to {a2[-3:].tolist()}; give the squares of alpha, least noise first"
            )
        n, a2 = len(a2), a2[: len(a2) - int(a2[-1] == 0)]
        level = torch.log(a2) - torch.log1p(-a2)
        secant = level.diff() * n
        before, after = secant[:-1], secant[1:]
        ends = torch.stack([1.5 * secant[0] - 0.5 * after[0], 1.5 * secant[-1] - 0.5 * before[-1]])
        first, last = ends.clamp(max=0).maximum(3 * secant[[0, -1]])
        slopes = torch.cat([first[None], 2 * before * after / (before + after), last[None]])
        times = torch.arange(1, len(a2) + 1, dtype=torch.float64) / n
        object.__setattr__(self, "_knots", (times, level, slopes))

    def __repr__(self) -> str:
        return f"Tabulated({len(self.alpha2)} steps, alpha2 from {self.alpha2[0]:.4g} to {self.alpha2[-1]:.4g})"

    def _cubic(self, t: Tensor) -> Tensor:
        times, level, slope = (knots.to(t.device) for knots in self._knots)
        i = torch.searchsorted(times, t.detach().contiguous()).clamp(1, len(times) - 1) - 1
        h = 1 / len(self.alpha2)
        u = (t - times[i]) / h
        rise = level[i + 1] - level[i]
        # Hermite's cubic in a form that is exact at both knots
        a, b = slope[i] * h - rise, rise - slope[i + 1] * h
        return level[i] + u * rise + u * (1 - u) * (a * (1 - u) + b * u)

    def _end(self, k: int) -> tuple[float, Callable[[Tensor], Tensor]]:
        """The last knot on the side k = 0 (data) or -1 (noise), and |log-SNR| by the distance to that end."""
        times, level, slope = (float(knots[k]) for knots in self._knots)
        width = times if k == 0 else 1 - times
        least = 1 / (1 + torch.exp(f64(abs(level) if (level > 0) == (k == 0) else -abs(level))))
        power = -slope * width * (1 - least)

        def away(distance: Tensor) -> Tensor:
            part = least * (distance / width) ** power
            return torch.log1p(-part) - torch.log(part)

        return times, away

    def log_snr(self, t: Tensor | float) -> Tensor:
        t = f64(t)
        first, near_data = self._end(0)
        out = torch.where(t < first, near_data(t.clamp(max=first)), self._cubic(t.clamp(min=first)))
        if len(self._knots[0]) == len(self.alpha2):
            return out
        last, near_noise = self._end(-1)
        return torch.where(t > last, -near_noise((1 - t).clamp(max=1 - last)), out)

    def time(self, log_snr: Tensor | float) -> Tensor:
        """As ever; beyond the last number of the table, the time 1."""
        return invert(self.log_snr, self.slope, f64(log_snr))
