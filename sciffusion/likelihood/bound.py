r"""The evidence lower bound of Gaussian fields under the reverse SDE, in continuous time.

.. math:: -\log p(x_0) \le \underbrace{\tfrac12\mathrm{SNR}_1\,\|x_0\|^2}_{\text{prior}}
   + \tfrac12\int \Big(-\frac{d\,\mathrm{SNR}}{dt}\Big)\,E\,\|x_0 - \hat x_0(x_t)\|^2\,dt
   + \underbrace{\tfrac d2\log\frac{2\pi e\,\sigma_{t_0}^2}{\alpha_{t_0}^2} + \tfrac12\log\det\Sigma}_{\text{data}},

norms being those of the noise, :math:`\|v\|^2 = v^T\Sigma^{-1}v`. For the exact denoiser it is an equality (as the
least noise goes to zero): every reverse step then has the law of the data's own path. Source: Kingma et al., VDM, 2021;
Song et al., 2021; as an identity, Kong et al., Information-theoretic diffusion, 2023.

The integral is estimated from draws of the log-SNR, evenly spaced from a random start, and of the noise, each with its
mirror image. From every draw the error of a linear denoiser is taken away, :math:`\hat x_0^{lin} =
\alpha s^2x_t/(\alpha^2s^2+\sigma^2)`, whose part of the bound is known: with q for the SNR and w = 1 + q s^2,

.. math:: \tfrac12\int\frac{\|x_0\|^2 + q\,s^4 d}{(1 + q\,s^2)^2}\,dq
   = \tfrac12\Big[-\frac{\|x_0\|^2}{s^2w} + d\,\big(\log w + \tfrac1w\big)\Big].

It shares the draw's own error at little noise, where errors are largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.likelihood.flow import ends
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.space import GaussianSpace
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["nelbo"]


def nelbo(
    denoiser: Denoiser,
    x0: Value,
    seed: int | Sequence[int] | Noise = 0,
    *,
    draws: int = 256,
    sigma_data: float = 1.0,
    low: float = -20.0,
    high: float = 20.0,
) -> Tensor:
    """The negative evidence lower bound of every sample, nats, (B,) float64; unbiased, from ``2 draws`` calls.

    Args:
        denoiser: with its condition bound; all fields Gaussian.
        x0: clean data, a tensor or a state in any layout.
        seed: an integer, one per sample, or a running stream.
        draws: of the log-SNR and the noise; the error falls as the root of it.
        sigma_data: s, of the linear denoiser that is compared with, in units of the noise's scale; it changes the
            error of the estimate alone.
        low: the log-SNR at which the prior is met.
        high: the log-SNR at which the data are taken up.

    Raises ``ValueError`` for fields without Gaussian noise, non-finite data, less than one draw, a ``sigma_data`` that
    is not positive, and where the schedule has no log-SNR between ``low`` and ``high``.
    """
    process, clock, batch = denoiser.process, denoiser.process.clock, batch_of(x0)
    process.check(x0)
    if draws < 1 or not sigma_data > 0:
        raise ValueError(
            f"draws must be at least 1 and sigma_data positive, got {draws}, {sigma_data}"
        )
    noise = seed if isinstance(seed, Noise) else Noise(seed)
    spaces = {k: _space(denoiser, k) for k in process.fields(x0)}
    data = {k: s.project(process.fields(x0)[k], layout_of(x0, k)) for k, s in spaces.items()}
    x0 = process.rebuild(x0, data)
    norms = {k: s.norm2(data[k], layout_of(x0, k)).double() for k, s in spaces.items()}
    dofs = {k: s.dof(data[k], layout_of(x0, k)).double() for k, s in spaces.items()}

    prior_end, data_end, t_prior, t_data = ends(process, x0, low, high)
    out = torch.zeros(batch, dtype=torch.float64, device=next(iter(data.values())).device)
    for k, space in spaces.items():
        schedule, layout = process.field(k).clock, layout_of(x0, k)
        with torch.no_grad():
            first, last = (float(schedule.log_snr(t)) for t in (t_prior, t_data))
        out = out + 0.5 * math.exp(first) * norms[k]
        out = out + 0.5 * dofs[k] * (math.log(2 * math.pi) + 1 - last)
        out = out + space.log_volume(data[k], layout).double()
        most, least = (1 + sigma_data**2 * math.exp(v) for v in (last, first))
        out = out + 0.5 * norms[k] / sigma_data**2 * (1 / least - 1 / most)
        out = out + 0.5 * dofs[k] * (math.log(most / least) + 1 / most - 1 / least)

    shift, total = noise.scalars(batch), torch.zeros_like(out)
    with torch.no_grad():
        for i in range(draws):
            log_snr = prior_end + (data_end - prior_end) * (i + shift) / draws
            t = clock.time(log_snr).clamp(0, 1).to(out.device)
            (alpha, sigma), (a, s) = clock(t), clock.rates(t)
            speed = (2 * (a / alpha - s / sigma)).abs()  # |d log_snr / dt| of the clock
            eps = process.draw(x0, noise)
            for sign in (1.0, -1.0):
                mirrored = process.rebuild(
                    x0, {k: sign * e for k, e in process.fields(eps).items()}
                )
                x_t = process.perturb(x0, t, noise, mirrored).x_t
                predicted = process.fields(denoiser(x_t, t).x0)
                for k, space in spaces.items():
                    layout = layout_of(x0, k)
                    error = space.norm2(layout.clean(predicted[k] - data[k]), layout).double()
                    alpha, sigma = process.field(k).clock(t)
                    below = alpha**2 * sigma_data**2 + sigma**2
                    gain = (alpha * sigma_data**2 / below).to(data[k])
                    linear = layout.expand(gain, data[k]) * process.fields(x_t)[k]
                    drawn = space.norm2(layout.clean(linear - data[k]), layout).double()
                    a, s = process.field(k).clock.rates(t)
                    falls = 2 * alpha * (alpha * s - a * sigma) / sigma**3  # -dSNR/dt
                    total = total + 0.5 * falls / speed * (error - drawn)
    return out + (data_end - prior_end) * total / (2 * draws)


def _space(denoiser: Denoiser, name: str | None) -> GaussianSpace:
    process = denoiser.process.field(name)
    space = process.space if isinstance(process, Gaussian) else None
    if not isinstance(space, GaussianSpace):
        raise ValueError(
            f"the field {name!r} has no bound of this kind: its noise is not Gaussian ({process})"
        )
    return space
