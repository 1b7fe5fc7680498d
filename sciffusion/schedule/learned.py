r"""A schedule that is learned with the model.

.. math:: \lambda_\theta(t) = \lambda_0 - (\lambda_0 - \lambda_1)\,\frac{m(t) - m(0)}{m(1) - m(0)},\qquad
          m(t) = a t + \sum_k w_k\,\mathrm{sigmoid}(s_k t + b_k),\quad a, w_k, s_k > 0.

Kingma et al., Variational diffusion models, 2021. Of a bound on the likelihood in continuous time, the expectation
depends on the ends alone; the shape between them changes nothing but the variance of its estimate, and is fitted to
make that least.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.schedule.base import FromLogSNR, f64
from sciffusion.schedule.invert import invert

__all__ = ["Learned"]


_EVEN = 1e-3
"""This part of the fall is always even in time, lest a curve grow so flat that floats cannot invert it."""


def _positive(raw: Tensor) -> Tensor:
    return nn.functional.softplus(raw)


def _raw(positive: float) -> float:
    """What softplus makes into this number."""
    return positive + math.log(-math.expm1(-positive))


@final
class Learned(FromLogSNR, nn.Module):
    r"""A variance preserving schedule whose log-SNR is a monotone network of the time.

    The log-SNR falls from ``high`` at t = 0 to ``low`` at t = 1, whatever the parameters; it starts as a straight line.
    With ``train_ends`` the ends are parameters too. Hand the parameters to the optimiser beside the denoiser's, which
    does not hold them, in two groups::

        schedule = Learned()
        loss = objective(denoiser, x0, noise=noise)                    # process = Gaussian(schedule)
        loss.mean.backward(inputs=[*denoiser.parameters(), *schedule.ends()], retain_graph=True)
        loss.per_sample.square().mean().backward(inputs=schedule.interior())    # least variance, equal expectation

    The second line holds where the objective is the likelihood's bound, whose expectation the interior cannot change;
    for another loss it would follow the loss itself, and find the times that are easiest.

    Args:
        high: log-SNR at t = 0 (13.3 in the paper).
        low: log-SNR at t = 1 (-5 in the paper).
        width: number of sigmoids, their places even in time at the start.
        train_ends: whether ``high`` and ``low`` are learned.

    Raises ``ValueError`` unless low < high and width >= 1.
    """

    def __init__(
        self, high: float = 13.3, low: float = -5.0, *, width: int = 64, train_ends: bool = True
    ) -> None:
        super().__init__()
        if not -math.inf < low < high < math.inf or width < 1:
            raise ValueError(
                f"need low < high, both finite, and width >= 1; got {low}, {high}, {width}"
            )
        sharp = 2.0 * math.sqrt(width)
        places = (torch.arange(width) + 0.5) / width
        self.slope_raw = nn.Parameter(torch.tensor(_raw(1.0)))
        self.height_raw = nn.Parameter(torch.full((width,), _raw(0.1 / width)))
        self.sharp_raw = nn.Parameter(torch.full((width,), _raw(sharp)))
        self.bias = nn.Parameter(-sharp * places)
        self.top = nn.Parameter(torch.tensor(float(high)), requires_grad=train_ends)
        self.span_raw = nn.Parameter(torch.tensor(_raw(high - low)), requires_grad=train_ends)

    @property
    def frozen(self) -> bool:
        return False

    def interior(self) -> list[nn.Parameter]:
        """The parameters of the shape between the ends."""
        return [self.slope_raw, self.height_raw, self.sharp_raw, self.bias]

    def ends(self) -> list[nn.Parameter]:
        """The parameters of both ends, where they are learned."""
        return [p for p in (self.top, self.span_raw) if p.requires_grad]

    def _rise(self, t: Tensor) -> Tensor:
        height, sharp, bias = (p.to(t.device, t.dtype) for p in self.interior()[1:])
        bumps = torch.sigmoid(_positive(sharp) * t[..., None] + bias) * _positive(height)
        return _positive(self.slope_raw.to(t.device, t.dtype)) * t + bumps.sum(-1)

    def log_snr(self, t: Tensor | float) -> Tensor:
        t = f64(t)
        first, last = self._rise(t.new_tensor([0.0, 1.0]))
        done = (1 - _EVEN) * (self._rise(t) - first) / (last - first) + _EVEN * t
        return self.top.to(done) - _positive(self.span_raw.to(done)) * done

    def time(self, log_snr: Tensor | float) -> Tensor:
        """As ever; beyond both ends, which the shape does not reach, the nearer of them."""
        return invert(self.log_snr, self.slope, f64(log_snr))

    def __repr__(self) -> str:
        low, high = (float(self.log_snr(t).detach()) for t in (1.0, 0.0))
        return f"Learned(high={high:.3g}, low={low:.3g}, width={len(self.bias)})"
