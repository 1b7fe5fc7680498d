"""SDEdit: noise a value part of the way, and denoise it again.

The result keeps what survives the noise and takes the rest from the model: an edit, a repaired drawing, a relaxed
structure. Source: Meng et al., SDEdit, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from sciffusion.denoiser import Denoiser
from sciffusion.noise import Noise
from sciffusion.samplers import Sampler, Solution
from sciffusion.state import Value

__all__ = ["edit"]


def edit(
    sampler: Sampler,
    denoiser: Denoiser,
    x0: Value,
    strength: float,
    seed: int | Sequence[int] | Noise = 0,
) -> Solution:
    """Noise ``x0`` to the time ``strength`` and run the sampler from there, in all its steps.

    Strength 0 returns ``x0`` itself; strength 1 is an unconditional sample, of which ``x0`` gives only the shape.
    Raises ``ValueError`` for a strength outside [0, 1], or between 0 and the sampler's stop.
    """
    if not 0 <= strength <= 1 or 0 < strength <= sampler.stop:
        raise ValueError(
            f"strength must be 0, or lie above the sampler's stop {sampler.stop} and not above 1; got {strength}"
        )
    if strength == 0:
        return Solution(x0, 0)
    noise = seed if isinstance(seed, Noise) else Noise(seed)
    process = denoiser.process
    if strength == 1:
        x = process.prior(x0, noise)
    else:
        x = process.perturb(x0, torch.tensor(strength, dtype=torch.float64), noise).x_t
    return replace(sampler, start=strength)(denoiser, x, noise)
