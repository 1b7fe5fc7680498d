r"""Variance preserving schedules in closed form: :math:`\alpha^2 + \sigma^2 = 1`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import FromLogSNR, VariancePreserving, f64

__all__ = ["Cosine", "Laplace", "Polynomial", "SigmoidSchedule", "TrigFlow"]


@final
@dataclass(frozen=True)
class Cosine(VariancePreserving):
    r"""Variance preserving, :math:`\alpha_t = \cos(\tfrac\pi2\tfrac{t+s}{1+s}) / \cos(\tfrac\pi2\tfrac{s}{1+s})`.

    Source: Nichol & Dhariwal, 2021, in continuous time and without their clipping; ``s`` keeps the first noise small.
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        if not 0 <= self.s < 1:
            raise ValueError(f"s must lie in [0, 1), got {self.s}")

    def _start(self) -> float:
        return 0.5 * math.pi * self.s / (1 + self.s)

    def alpha(self, t: Tensor | float) -> Tensor:
        angle = 0.5 * math.pi * (f64(t) + self.s) / (1 + self.s)
        return torch.cos(angle).clamp(min=0) / math.cos(self._start())

    def sigma(self, t: Tensor | float) -> Tensor:
        turn, start = 0.5 * math.pi * f64(t) / (1 + self.s), self._start()
        # 1 - cos^2(a)/cos^2(b) = sin(a+b) sin(a-b) / cos^2(b): no cancellation near t = 0
        square = torch.sin(turn + 2 * start) * torch.sin(turn)
        return square.clamp(min=0).sqrt() / math.cos(start)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        speed, start = 0.5 * math.pi / (1 + self.s), self._start()
        turn = speed * f64(t)
        rate = -speed * torch.sin(turn + start) / math.cos(start)
        alpha, sigma = self(t)
        # sigma_dot = -alpha alpha_dot / sigma; without an offset both vanish at t = 0 and leave cos(turn)
        return rate, -alpha * rate / sigma if self.s else speed * torch.cos(turn)

    def time(self, log_snr: Tensor | float) -> Tensor:
        alpha, sigma = self.at(log_snr)
        start = self._start()
        c, from_0 = alpha * math.cos(start), alpha * math.sin(start)
        s = torch.hypot(sigma, from_0)
        # tan(angle - start), the difference s - from_0 being sigma^2 / (s + from_0): no cancellation near t = 0
        ahead = sigma * (sigma / (s + from_0).clamp(min=1e-300))
        turn = torch.atan2(ahead, c + s * math.tan(start))
        return turn * 2 / math.pi * (1 + self.s)


@final
@dataclass(frozen=True)
class Polynomial(VariancePreserving):
    r"""Variance preserving, :math:`\alpha_t = 1 - t^p` up to a precision :math:`s`.

    :math:`\alpha^2 = (1-2s)(1-t^p)^2 + s`: neither end is reached, :math:`\sigma_0^2 = s` and :math:`\alpha_1^2 = s`.
    ``Polynomial(2)`` is the schedule ``polynomial_2`` of EDM (Hoogeboom et al., ICML 2022), in continuous time.
    """

    power: float = 2.0
    precision: float = 1e-5

    def __post_init__(self) -> None:
        if self.power <= 0 or not 0 <= self.precision < 0.5:
            raise ValueError(
                f"need power > 0 and 0 <= precision < 0.5, got {self.power} and {self.precision}"
            )

    def alpha(self, t: Tensor | float) -> Tensor:
        return ((1 - 2 * self.precision) * (1 - f64(t) ** self.power) ** 2 + self.precision).sqrt()

    def sigma(self, t: Tensor | float) -> Tensor:
        u = f64(t) ** self.power
        return (self.precision + (1 - 2 * self.precision) * u * (2 - u)).clamp(min=0).sqrt()

    def time(self, log_snr: Tensor | float) -> Tensor:
        # 1 - (1-u)^2 = u (2-u) is solved for u from the noise's side, where it is exact for small u
        w = ((torch.sigmoid(-f64(log_snr)) - self.precision) / (1 - 2 * self.precision)).clamp(0, 1)
        u = w / (1 + (1 - w).sqrt())
        return u ** (1 / self.power)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = f64(t)
        u, u_dot = t**self.power, self.power * t ** (self.power - 1)
        alpha, sigma = self(t)
        half = (1 - 2 * self.precision) * (1 - u) * u_dot
        return -half / alpha, half / sigma


@final
@dataclass(frozen=True)
class TrigFlow(VariancePreserving):
    r"""The quarter circle :math:`\alpha = \cos(\pi t/2)`, :math:`\sigma = \sin(\pi t/2)` (Lu & Song, sCM, 2024)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.sin(
            0.5 * math.pi * (1 - f64(t))
        )  # exactly zero at t = 1, which cos(pi/2) is not

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sin(0.5 * math.pi * f64(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        half = 0.25 * f64(log_snr)
        return torch.atan2(torch.exp(-half), torch.exp(half)) * 2 / math.pi

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return -0.5 * math.pi * self.sigma(t), 0.5 * math.pi * self.alpha(t)


@final
@dataclass(frozen=True)
class SigmoidSchedule(VariancePreserving):
    r"""Variance preserving, :math:`\alpha^2` a piece of a sigmoid stretched to [0, 1].

    With :math:`u(t) = (\mathrm{start} + t(\mathrm{end} - \mathrm{start}))/\tau` and s the logistic sigmoid,
    :math:`\alpha_t^2 = (s(u_1) - s(u_t)) / (s(u_1) - s(u_0))`; both ends are reached. A smaller ``tau`` is steeper.
    Source: Jabri et al., 2022; Chen, 2023, without their clipping.

    Raises ``ValueError`` unless start < end, tau > 0 and (end - start)/tau <= 500.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        if not self.start < self.end or self.tau <= 0 or self.end - self.start > 500 * self.tau:
            raise ValueError(
                "need start < end, tau > 0 and (end - start)/tau of at most 500, "
                f"got {self.start}, {self.end} and {self.tau}"
            )

    def _ends(self) -> tuple[float, float, float]:
        """Half of u at t = 0 and at t = 1, and their difference."""
        return (
            self.start / self.tau / 2,
            self.end / self.tau / 2,
            (self.end - self.start) / self.tau / 2,
        )

    def _share(self, end: float, gone: Tensor, u: Tensor) -> Tensor:
        # s(2a) - s(2b) = sinh(a - b) / (2 cosh a cosh b): no cancellation at either end
        square = torch.sinh(gone) * math.cosh(end) / (math.sinh(self._ends()[2]) * torch.cosh(u))
        return square.clamp(min=0).sqrt()

    def alpha(self, t: Tensor | float) -> Tensor:
        u0, _, width = self._ends()
        return self._share(u0, width * (1 - f64(t)), u0 + width * f64(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        u0, u1, width = self._ends()
        return self._share(u1, width * f64(t), u0 + width * f64(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        u0, u1, width = self._ends()
        # the SNR is sinh(w(1-t)) cosh(u0) / (sinh(wt) cosh(u1)); solved for tanh(wt)
        snr = torch.exp(f64(log_snr)) * math.cosh(u1)
        part = math.cosh(u0) * math.exp(-width) + snr
        return torch.log1p(2 * math.sinh(width) * math.cosh(u0) / part) / (2 * width)


@final
@dataclass(frozen=True)
class Laplace(FromLogSNR):
    r"""Variance preserving, its log-SNR being Laplace distributed when times are drawn evenly.

    :math:`\lambda_t = \mu - b\,\mathrm{sgn}(\tfrac12 - t)\log(1 - 2|t - \tfrac12|)`, of density
    :math:`e^{-|\lambda-\mu|/b}/2b`: training dwells where data and noise balance. Source: Hang et al., 2024. The tails
    are short: with b = 0.5 the log-SNR is within 3.5 of ``mu`` for all but a thousandth of the times, and a small
    ``b`` squeezes high noise into times that no float can tell from 1.
    """

    mu: float = 0.0
    b: float = 0.5

    def __post_init__(self) -> None:
        if self.b <= 0:
            raise ValueError(f"b must be positive, got {self.b}")

    def log_snr(self, t: Tensor | float) -> Tensor:
        t = f64(t)
        near = torch.log(2 * torch.where(t < 0.5, t, 1 - t))
        return self.mu + self.b * torch.where(t < 0.5, -near, near)

    def time(self, log_snr: Tensor | float) -> Tensor:
        away = (f64(log_snr) - self.mu) / self.b
        tail = 0.5 * torch.exp(-away.abs())
        return torch.where(away > 0, tail, 1 - tail)
