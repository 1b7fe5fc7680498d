"""Pairs of Gaussian fields that may be noised to different times, and their exact denoiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense
from sciffusion.process import Gaussian, Joint
from sciffusion.schedule import RectifiedFlow
from sciffusion.state import State, Value, batch_of

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64)


def pair(a: Tensor, b: Tensor) -> State:
    """A state of two fields (B, 1)."""
    return State({"a": a, "b": b}, Dense(len(a)))


class Pairs(Denoiser):
    """The exact denoiser of pairs with the mean and covariance above, each field with a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Joint({"a": Gaussian(RectifiedFlow()), "b": Gaussian(RectifiedFlow())})
        self.seen: list[dict[str, Tensor]] = []
        self.inputs: list[State] = []

    def forward(
        self,
        x_t: Value,
        t: Tensor | Mapping[str, Tensor],
        cond: Condition = None,
        previous: Value | None = None,
    ) -> Prediction:
        assert isinstance(x_t, State)
        times = {k: t[k] if isinstance(t, Mapping) else torch.as_tensor(t) for k in x_t}
        self.seen.append(times)
        self.inputs.append(x_t)
        each = torch.stack([v.double().expand(batch_of(x_t)) for v in times.values()], -1)
        x = torch.cat([x_t[k].double() for k in x_t], 1)
        alpha, sigma = RectifiedFlow()(each)
        out = []
        for y, a, s in zip(x, alpha, sigma, strict=True):
            observed = torch.diag(a) @ COVARIANCE @ torch.diag(a) + torch.diag(s**2)
            gain = COVARIANCE @ torch.diag(a) @ torch.linalg.inv(observed)
            out.append(MEAN + gain @ (y - a * MEAN))
        made = torch.stack(out)
        fields = {k: made[:, i : i + 1].to(x_t[k]) for i, k in enumerate(x_t)}
        return Prediction(x_t.replace(fields), x_t, next(iter(times.values())), self.process)
