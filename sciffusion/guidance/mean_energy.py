"""Guidance towards any differentiable property, without differentiating the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Scale, scale_at
from sciffusion.guidance.gradient import (
    SigmaData,
    detached,
    differentiate,
    leaves,
    reweighted,
    white_variance,
)
from sciffusion.guidance.plusplus import with_noise_of
from sciffusion.guidance.smoothing import Smoothing, potential
from sciffusion.process import Gaussian, Jump
from sciffusion.state import Value, layout_of

__all__ = ["MeanEnergy"]


@final
class MeanEnergy(Denoiser):
    r"""Towards :math:`p(x_0)\,e^{-wE(x_0)}` by steps of the prediction itself, no backward pass through the network.

    .. math:: \hat x_0 \leftarrow \hat x_0 - w\,P_t\,\nabla E(\hat x_0), \qquad
              P_t = (s^{-2} + \alpha_t^2/(n\sigma_t)^2)^{-1}

    :math:`P_t` is the covariance of white data of standard deviation s = ``sigma_data`` given their noised value, under
    noise of scale n; for such data this is :class:`~sciffusion.guidance.Energy`. Jump fields are reweighted as there.
    Works at pure noise too. Source: He et al., Manifold Preserving Guided Diffusion (MPGD), 2024, with a free factor
    for :math:`P_t`; Ye et al., TFG, 2024, whose *mean guidance* takes several such steps and keeps the noise. (TFG is
    this and ``Energy`` together, one around the other, in a sampler that repeats its steps.)

    Args:
        denoiser: the model.
        fn: the energy of clean values, as for ``Energy``.
        scale: w: a number, one per sample (B,), or a function of the log-SNR; at 0 the model is called alone.
        sigma_data: s: a number, a tensor that broadcasts to the field, or by field.
        iterations: how many such steps, each at the energy of the point reached.
        smoothing: average the energy over the width of the posterior.
        keep_noise: noise again with the noise that the unguided prediction implies, as MPGD and TFG do: samplers then
            go on from a moved point.

    Raises:
        ValueError: fewer than one iteration; when called: as ``Energy``, or ``sigma_data`` leaves out a field.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        fn: Callable[[Value], Tensor],
        scale: Scale = 1.0,
        *,
        sigma_data: SigmaData,
        iterations: int = 1,
        smoothing: Smoothing | None = None,
        keep_noise: bool = False,
    ) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.denoiser, self.fn, self.scale, self.process = denoiser, fn, scale, denoiser.process
        self.sigma_data, self.iterations = sigma_data, iterations
        self.smoothing, self.keep_noise = smoothing, keep_noise

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t, keep = torch.as_tensor(t), torch.is_grad_enabled()
        scale = scale_at(self.scale, self.process.clock, t)
        plain = self.denoiser(x_t, t, cond, previous)
        if not isinstance(scale, Tensor) and scale == 0:
            return plain
        x0 = plain.x0
        with torch.enable_grad():
            for _ in range(self.iterations):
                x0 = self._step(leaves(self.process, x0, keep=keep), t, scale, keep)
        out = Prediction(x0, plain.x_t, t, self.process)
        out = with_noise_of(out, plain.x0) if self.keep_noise else out
        return out if keep else detached(out)

    def _step(self, x0: Value, t: Tensor, scale: float | Tensor, keep: bool) -> Value:
        fields = dict(self.process.fields(x0))
        energy = potential(self.fn, scale, self.smoothing, self.process, x0, t)
        for k, g in differentiate(energy, fields, x0, "fn", keep=keep).items():
            field, layout, x = self.process.field(k), layout_of(x0, k), fields[k]
            if isinstance(field, Gaussian):
                variance = white_variance(field, k, self.sigma_data, x, t, layout)
                fields[k] = x - field.space.project(variance * g, layout)
            elif isinstance(field, Jump):
                fields[k] = reweighted(x, g)
            else:
                raise ValueError(
                    f"fn depends on the field {k!r}: energies guide Gaussian and jump fields"
                )
        return self.process.rebuild(x0, fields)
