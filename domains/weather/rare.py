"""Rare weather out of a prior, as a dataset whose members carry their weights; the mathematics are in `extremes`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.denoiser import Preconditioned

from .analysis import units_of
from .assimilation import trajectory
from .extremes import Extremes, tilt_for, tilted
from .fit import fit, template
from .observations import Custom
from .rollout import Leads, together
from .times import shift

if TYPE_CHECKING:
    from .model import WeatherModel

__all__ = ["extremes"]


def extremes(
    model: WeatherModel,
    functional: Callable[[Mapping[str, Tensor]], Tensor],
    time: Any,
    *,
    tilt: float | None = None,
    threshold: float | None = None,
    settings: Extremes | None = None,
    seed: int = 0,
) -> xr.Dataset:
    r"""Rare weather on purpose: members of the prior tilted by :math:`e^{\lambda f}`, and their weights back to it.

    Where plain samples never reach, these are plenty, and weights say how rare they are:
    ``Weighted.of(out).tail(c).return_period()`` (see :mod:`.extremes`).

    Args:
        functional: f, from the channels by name, each (B, H, W) in physical units ((B, K, H, W) of a prior of
            windows), to (B,); differentiable. The mean over a box, or a maximum softened by ``logsumexp``.
        time: the date whose season the prior is to know.
        tilt: :math:`\lambda`, per unit of f; negative towards small values.
        threshold: instead, the value of f that members are to lie around; 64 plain samples then suggest the tilt.
        settings: sampler, particles and replicas; there are as many members as both make.
        seed: of everything random.

    Returns:
        As :meth:`sample`, with ``value`` (f), ``weight`` and ``replica`` of each member as coordinates.

    Raises:
        ValueError: the model is no prior; tilt and threshold both given or both missing; no finite weights.
    """
    config, frame = model.config, model.frame
    denoiser, settings = model.module, settings or Extremes()
    if config.inputs or not isinstance(denoiser, Preconditioned) or config.log1p:
        raise ValueError(
            "extremes needs a prior: a diffusion without inputs and log1p; this model is a "
            f"{config.head} with inputs {config.inputs}"
        )
    if (tilt is None) == (threshold is None):
        raise ValueError(
            "give either tilt, or threshold for the tilt that suits it, and not the other"
        )
    fitted = fit(frame, template(frame, time))
    if len(fitted.fields) != 1:
        raise ValueError(f"time must be one date, got {len(fitted.fields)}; call again for others")
    starts, window = fitted.fields.times, len(config.targets)
    empty = torch.zeros(1, 0, frame.channels, *fitted.grid.shape, device=model.device)
    prior = trajectory(denoiser, window, window, frame.condition(empty, starts, fitted.grid))
    named = Custom(functional, frame.names)

    def value(fields: Tensor) -> Tensor:
        """f of windows (B, K, C, H, W), (B,); a prior of single states shows them without K."""
        found = named.see(fields if window > 1 else fields[:, 0])
        if found.ndim != 1:
            raise ValueError(
                f"functional must return one number for each sample, (B,), got {tuple(found.shape)}"
            )
        return found

    units, shape = units_of(frame), (window, frame.channels, *fitted.grid.shape)
    if tilt is None:
        assert threshold is not None
        tilt = tilt_for(
            prior, units, value, threshold, shape, settings.sampler, seed, device=model.device
        )
    drawn = tilted(prior, units, value, tilt, shape, settings, seed, device=model.device)
    values = frame.decode(frame.encode(drawn.fields.flatten(0, 1))).cpu()
    leads = [Leads(h, values[None, :, k]) for k, h in enumerate(config.targets)]
    if window == 1:
        out = fitted.dataset(leads[0].values, shift(starts, leads[0].hours, config.unit))
    else:
        out = together(fitted, leads, starts, config.unit)
    weighted = drawn.weighted
    count, size = weighted.values.shape
    weight = (weighted.log_weights - math.log(count)).exp()
    described = {
        "value": (weighted.values, "what the functional is of the member"),
        "weight": (weight.cpu(), "sums of weight times anything are its means in the prior"),
    }
    out = out.assign_coords(
        {k: ("member", v.flatten().numpy(), {"long_name": n}) for k, (v, n) in described.items()}
    )
    replica = np.repeat(np.arange(count), size)
    about = {"long_name": "independent run whose members were resampled among each other"}
    out = out.assign_coords(replica=("member", replica, about))
    return out.assign_attrs(tilt=tilt, effective_size=drawn.ess)
