"""A model whose law is known: frames that follow a chain, each frequency by itself, with its exact denoiser."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.domains.audio import AudioModel
from sciffusion.domains.audio.catalogue import Catalogue
from sciffusion.layout import Masked
from sciffusion.state import State, Value

from .small import shaken

RHO = 0.8


def covariance(frames: int) -> Tensor:
    """That of a stationary chain of unit variance, (T, T)."""
    i = torch.arange(frames, dtype=torch.float64)
    return RHO ** (i[:, None] - i).abs()


class Chain(Denoiser):
    """E[x0 | x_t] of a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.process = shaken().denoiser.process
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        x, layout = x_t["mel"], x_t.layout("mel")
        assert isinstance(layout, Masked)
        alpha, sigma = (v.expand(len(x)) for v in self.process.clock(torch.as_tensor(t)))
        out = torch.zeros_like(x)
        for i, n in enumerate(layout.mask.sum(1).tolist()):
            c = covariance(n)
            noisy = alpha[i] ** 2 * c + sigma[i] ** 2 * torch.eye(n)
            gain = alpha[i] * torch.linalg.solve(noisy, c).mT
            out[i, :n] = gain.to(x) @ x[i, :n]
        return Prediction(x_t.replace({"mel": out}), x_t, torch.as_tensor(t), self.process)


@cache
def chain(longest: int = 240) -> AudioModel:
    """A model with that denoiser, of clips of up to so many samples."""
    model = shaken()
    catalogue = Catalogue(
        torch.full((2,), longest), {k: torch.zeros(2).long() for k in model.attributes}
    )
    return replace(model, denoiser=Chain(), catalogue=catalogue)  # type: ignore[arg-type]
