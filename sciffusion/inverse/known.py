r"""Points of a sample that are known exactly, shown clean, at time 0, to a network with a noise level for each point.

A network whose noise levels may differ from point to point (the frames of a film, the steps of a series) learns every
conditional law :math:`p(x_u\mid x_k)` of unknown points given known ones at once: in training some points are shown as
they are, at time 0, and the others are predicted. The film that goes on from a picture, that ends where it should, or
that fills the time between given frames are the same model with other points known. Nothing is approximated beyond what
the network failed to learn, which sets it apart from replacement (:mod:`.repaint`) and guidance (:mod:`.posterior`).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse.operators import check_boolean
from sciffusion.process import Jump
from sciffusion.state import Value

__all__ = ["Known"]


@final
class Known(Denoiser):
    """A denoiser of samples of which some points are known; its prediction there is what is known, bit by bit.

    It serves in training as in sampling: the loss of known points is zero.

    Args:
        denoiser: of plain tensors (B, N, ...), which takes a time for each of the N points, (B, N).
        known: a clean value like the samples; what it holds at unknown points is not looked at.
        mask: True for the points that are known, (B, N) or (N,).

    Raises:
        ValueError: for a mask that is not boolean or does not fit, a state, classes, or times of single points.
    """

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor) -> None:
        super().__init__()
        check_boolean(mask)
        if not isinstance(known, Tensor) or known.ndim < 2:
            raise ValueError("known must be a plain tensor (B, N, ...)")
        if isinstance(denoiser.process.field(None), Jump):
            raise ValueError("known holds classes; only points of numbers can be shown")
        if mask.shape not in (known.shape[:2], known.shape[1:2]):
            raise ValueError(
                f"mask must be {tuple(known.shape[:2])}, a value for each point of known, got {tuple(mask.shape)}"
            )
        self.denoiser, self.process = denoiser, denoiser.process
        self.known, self.mask = known, mask.expand(known.shape[:2])

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if not isinstance(x_t, Tensor) or x_t.shape != self.known.shape:
            raise ValueError(
                f"x_t must be a tensor like known, {tuple(self.known.shape)}, got "
                f"{tuple(x_t.shape) if isinstance(x_t, Tensor) else 'a state'}"
            )
        t = torch.as_tensor(t)
        if t.ndim > 1:
            raise ValueError(f"t must be () or (B,), got {tuple(t.shape)}")
        mask = self.mask.to(x_t.device)
        wide = mask.reshape(*mask.shape, *(1,) * (x_t.ndim - 2))
        known = self.known.to(x_t)
        x_t = torch.where(wide, known, x_t)
        times = torch.where(mask, 0.0, (t if t.ndim == 0 else t.unsqueeze(1)).to(mask.device))
        x0 = self.denoiser(x_t, times, cond, previous).x0
        return Prediction(torch.where(wide, known, x0), x_t, t, self.process)
