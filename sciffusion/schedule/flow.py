r"""Straight and curved paths from data to noise that need not preserve the variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import Schedule, circle, f64
from sciffusion.schedule.invert import invert

__all__ = ["Interpolant", "RectifiedFlow"]


@final
@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    r"""The straight line :math:`x_t = (1-t) x_0 + t e` (Liu et al., 2022; Lipman et al., 2022)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - f64(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return f64(t).clone()

    def time(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(-0.5 * f64(log_snr))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(f64(t))
        return -one, one


@final
@dataclass(frozen=True)
class Interpolant(Schedule):
    r"""A one-sided stochastic interpolant :math:`x_t = \alpha(t) x_0 + \sigma(t) e` from any two functions.

    ``data`` and ``noise`` take float64 times of any shape and return :math:`\alpha` and :math:`\sigma` of that shape.
    Rates come by forward-mode differentiation (so write them in torch), the time of a log-SNR by bisection. Beyond its
    ends the curve goes on along a circle about the origin. Source: Albergo, Boffi & Vanden-Eijnden, 2023.

    Raises ``ValueError`` unless both functions return float64 of their argument's shape, finite and not negative, and
    the log-SNR falls on 1025 even times and on times close to both ends.

    >>> straight = Interpolant(lambda t: 1 - t, lambda t: t)
    >>> float(straight.time(0.0))
    0.5
    """

    data: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        edge = 10.0 ** -torch.arange(9, 3, -1, dtype=torch.float64)
        t = torch.cat([torch.linspace(0, 1, 1025, dtype=torch.float64), edge, 1 - edge]).sort()[0]
        for name, c in (("data", self.data(t)), ("noise", self.noise(t))):
            if c.shape != t.shape or c.dtype != torch.float64:
                raise ValueError(
                    f"{name} must return float64 of the shape of its times {tuple(t.shape)}, "
                    f"got {c.dtype} {tuple(c.shape)}"
                )
            wrong = ~(c.isfinite() & (c >= 0))
            if bool(wrong.any()):
                raise ValueError(
                    f"{name} must be finite and not negative on [0, 1], got {float(c[wrong][0])} "
                    f"at t = {float(t[wrong][0])}"
                )
        flat = ~(self.log_snr(t).diff() < 0)
        if bool(flat.any()):
            raise ValueError(
                "data/noise must fall strictly from t = 0 to 1, it does not after "
                f"t = {float(t[:-1][flat][0])}; t = 0 is data and t = 1 is noise"
            )

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.data(f64(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.noise(f64(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        return invert(self.log_snr, self.slope, f64(log_snr))

    def at(self, log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
        radius = torch.hypot(*self(self.time(log_snr)))
        alpha, sigma = circle(f64(log_snr))
        return radius * alpha, radius * sigma
