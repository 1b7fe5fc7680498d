"""Gaussian series whose points may be noised to different times, and their exact denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.process import Gaussian
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Euclidean
from sciffusion.state import Value

MEAN = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
ROOT = torch.tensor(
    [[1.0, 0, 0, 0], [0.8, 0.5, 0, 0], [0.3, 0.4, 0.6, 0], [-0.5, 0.2, 0.5, 0.7]],
    dtype=torch.float64,
)
COVARIANCE = ROOT @ ROOT.T


class Series(Denoiser):
    """The exact denoiser of Gaussian series (B, 4, 1) whose points have times of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.process = self.field = Gaussian(RectifiedFlow(), Euclidean())
        self.seen: list[Tensor] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        self.seen.append(t)
        alpha, sigma = self.field.schedule(t.double().expand(x_t.shape[:2]))
        out = []
        for x, a, s in zip(x_t[..., 0].double(), alpha, sigma, strict=True):
            observed = torch.diag(a) @ COVARIANCE @ torch.diag(a) + torch.diag(s**2)
            gain = COVARIANCE @ torch.diag(a) @ torch.linalg.inv(observed)
            out.append(MEAN + gain @ (x - a * MEAN))
        return Prediction(torch.stack(out)[..., None].to(x_t), x_t, t, self.process)
