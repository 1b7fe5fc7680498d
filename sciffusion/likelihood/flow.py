r"""Log-likelihood by the probability flow.

Along the flow the log-density changes by minus the divergence (Chen et al., 2018; Song et al., 2021):

.. math:: \log p_0(x) = \log p_1(x_1) + \int_0^1 \nabla\cdot\frac{dx}{dt}\,dt,

x carried to its noise. Data are taken up at the log-SNR ``high``, where :math:`x_t = \alpha_t x`: what is measured is
the density blurred by noise of standard deviation :math:`e^{-\mathrm{high}/2}`; at the log-SNR ``low`` the density is
the prior's (at the schedule's own ends, where those come first). On a subspace, all of it is relative to the volume of
the subspace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.integrate import integrate
from sciffusion.layout import Dense
from sciffusion.likelihood.divergence import Divergence, Exact, Probes
from sciffusion.noise import Noise
from sciffusion.process import Process
from sciffusion.samplers.adaptive import Flow, log_snr_span
from sciffusion.space import LinearSpace
from sciffusion.state import Value, batch_of

__all__ = ["ends", "log_likelihood"]


def log_likelihood(
    denoiser: Denoiser,
    x0: Value,
    *,
    divergence: Divergence | None = None,
    seed: int | Sequence[int] | Noise = 0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    low: float = -20.0,
    high: float = 20.0,
) -> Tensor:
    r"""The log-density of every sample under the probability flow of a denoiser, nats, (B,).

    Args:
        denoiser: with its condition bound; all fields Gaussian. It must be differentiable in its input.
        x0: clean data, a tensor or a state in any layout. They are projected onto their spaces.
        divergence: ``Exact()`` (default: as many products as a sample has numbers), ``Hutchinson(k)``, or
            ``HutchinsonPlusPlus(k)``.
        seed: of the estimators' vectors; one per sample makes a sample's estimate independent of the batch.
        rtol: relative tolerance of the integration, of x and of the log-density.
        atol: the absolute one.
        low: the log-SNR at which the prior is met.
        high: the log-SNR at which the data are taken up.

    Raises:
        ValueError: for fields that are not Gaussian, guidance that moves the point at which it predicts, non-finite
            data, tolerances that are not positive, and where the schedule has no log-SNR between ``low`` and ``high``.
        RuntimeError: where the flow cannot be followed, for predictions that are not finite, say.
    """
    process, batch = denoiser.process, batch_of(x0)
    process.check(x0)
    divergence = divergence or Exact()
    noise = seed if isinstance(seed, Noise) else Noise(seed)
    flow = Flow(denoiser, x0)
    spaces = [_space(denoiser, k) for k in flow.names]
    data = [
        s.project(process.fields(x0)[k], l)
        for s, k, l in zip(spaces, flow.names, flow.layouts, strict=True)
    ]
    prior_end, data_end, t_prior, t_data = ends(process, x0, low, high)
    with torch.no_grad():
        alphas = [float(process.field(k).clock.alpha(t_data)) for k in flow.names]
        sigmas = [float(process.field(k).clock.sigma(t_prior)) for k in flow.names]
    probes = Probes(data, flow.layouts)
    drawn = divergence.draw(probes, noise)

    def derivative(log_snr: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            x = [v.detach().requires_grad_() for v in y[:-1]]
            inside = [s.project(v, l) for s, v, l in zip(spaces, x, flow.layouts, strict=True)]
            slopes = flow(log_snr, inside)

            def products(v: Sequence[Tensor]) -> list[Tensor]:
                grads = torch.autograd.grad(slopes, x, v, retain_graph=True, allow_unused=True)
                return [
                    torch.zeros_like(a) if g is None else g for g, a in zip(grads, x, strict=True)
                ]

            trace = divergence.trace(products, probes, drawn)
        return [*(s.detach() for s in slopes), trace.detach().to(y[-1])]

    device = data[0].device
    begin, end = (
        torch.full((batch,), v, dtype=torch.float64, device=device) for v in (data_end, prior_end)
    )
    fields, _ = integrate(
        derivative,
        [
            *(a * x for a, x in zip(alphas, data, strict=True)),
            torch.zeros(batch, dtype=torch.float64, device=device),
        ],
        [*flow.layouts, Dense(batch)],
        begin,
        end,
        rtol=rtol,
        atol=atol,
    )
    log_p = fields[-1]
    for space, layout, alpha, sigma, x in zip(
        spaces, flow.layouts, alphas, sigmas, fields[:-1], strict=True
    ):
        dof = space.dof(x, layout).to(log_p)
        log_p = log_p + space.log_prior(x / sigma, layout).to(log_p)
        log_p = log_p + dof * (math.log(alpha) - math.log(sigma))
    return log_p


def ends(
    process: Process, x0: Value, low: float, high: float
) -> tuple[float, float, Tensor, Tensor]:
    """The clock's log-SNR and the times at which the prior is met and the data are taken up.

    Raises ``ValueError`` if there is nothing between the two.
    """
    prior_end, data_end = log_snr_span(process, x0, 1.0, 0.0, low, high)
    if prior_end >= data_end:
        raise ValueError(
            f"no log-SNR of {process.clock} lies between low={low} and high={high}; widen them"
        )
    with torch.no_grad():
        t_prior, t_data = (process.clock.time(v).clamp(0, 1) for v in (prior_end, data_end))
    return prior_end, data_end, t_prior, t_data


def _space(denoiser: Denoiser, name: str | None) -> LinearSpace:
    space = getattr(denoiser.process.field(name), "space", None)
    assert isinstance(space, LinearSpace)  # Flow has refused every other field
    return space
