r"""Assimilation: members of :math:`p(x_{1:K}\mid y)` from a prior of weather and observations at any times of a window.

The prior is a denoiser of single states or of short windows. Where the trajectory is longer than its window, the core's
:class:`~sciffusion.inverse.Windowed` composes it: every state is denoised in the middle of its own window. Observations
then steer every evaluation (:class:`~sciffusion.inverse.Posterior`). Which observations a state sees decides what the
result is: all of the trajectory's, later ones too, make its states a smoother's, the last one a filter's.
Source: Rozet & Louppe, Score-based Data Assimilation, 2023; Rozet et al. (MMPS), 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse import MMPS, Method, Operator, Posterior, Windowed
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Multistep, Sampler
from sciffusion.state import Value

from .observed import Observations, Report, Units

__all__ = ["Assimilation", "Frames", "assimilate", "given", "trajectory"]


@final
@dataclass(frozen=True)
class Assimilation:
    """How to sample the posterior.

    Attributes:
        method: weighs the observations: ``MMPS`` (calibrated), ``SDA``, ``PiGDM`` or ``DPS`` of the core. ``SDA`` and
            ``DPS`` see residuals over :meth:`.observed.Observations.sizes`, as if the observations were normalised.
        sampler: from noise to weather; ``Sampler(Langevin(corrections=1), 64)`` corrects every step, as SDA does.
        members: M.
        together: how many members go through the denoiser at once; fewer take less memory and give the same members.

    Raises ``ValueError`` for fewer than one member.
    """

    method: Method = field(default_factory=MMPS)
    sampler: Sampler = field(default_factory=lambda: Sampler(Multistep(2, eta=1.0), 64))
    members: int = 16
    together: int = 16

    def __post_init__(self) -> None:
        if self.members < 1 or self.together < 1:
            raise ValueError(
                f"members and together must be at least 1, got {self.members} and {self.together}"
            )


@final
class Frames(Denoiser):
    """A denoiser of windows stacked as channels, (B, K C, H, W), seen as one of (B, K, C, H, W).

    Channels lie state by state: k C + c. ``cond`` is the inner denoiser's condition with a row per window, in order of
    time (or one row for all): in a batch of whole multiples of the windows, every sample's windows get those rows.
    Raises ``ValueError`` for a batch that is none.
    """

    def __init__(self, denoiser: Denoiser, cond: Condition = None) -> None:
        super().__init__()
        self.denoiser, self.cond, self.process = denoiser, cond, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None or not isinstance(x_t, Tensor) or x_t.ndim != 5:
            raise ValueError(
                "Frames denoises windows (B, K, C, H, W), its condition given when it is made"
            )
        before = previous.flatten(1, 2) if isinstance(previous, Tensor) else None
        x0 = self.denoiser(x_t.flatten(1, 2), t, self._rows(len(x_t)), before).x0
        return Prediction(x0.unflatten(1, x_t.shape[1:3]), x_t, torch.as_tensor(t), self.process)

    def _rows(self, batch: int) -> Condition:
        def row(c: object) -> object:
            if not isinstance(c, Tensor) or c.ndim == 0 or len(c) == 1:
                return c
            if batch % len(c):
                raise ValueError(
                    f"cond has {len(c)} rows for {batch} windows; give one row, or one per window of a trajectory"
                )
            return c.repeat(batch // len(c), *(1,) * (c.ndim - 1))

        return pytree.tree_map(row, self.cond)


def trajectory(denoiser: Denoiser, window: int, length: int, cond: Condition = None) -> Denoiser:
    """A denoiser of trajectories (B, ``length``, C, H, W), from one of windows (B, ``window`` C, H, W).

    ``cond``: as :class:`Frames` takes it, for the ``length - window + 1`` windows. Raises ``ValueError`` for a
    trajectory shorter than the window, and an even window where the trajectory is longer.
    """
    if length < window:
        raise ValueError(
            f"the prior makes windows of {window} states, the trajectory has {length}; lengthen it"
        )
    frames = Frames(denoiser, cond)
    return frames if length == window else Windowed(frames, window, -4)


def assimilate(
    prior: Denoiser,
    units: Units,
    reports: Sequence[Report],
    shape: tuple[int, int, int, int],
    settings: Assimilation | None = None,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw members of the weather given observations, (M, K, C, H, W) in physical units.

    Member i depends on ``seed`` and i alone, not on how many others there are.

    Args:
        prior: of trajectories (B, K, C, H, W) in normalised units, such as :func:`trajectory` makes; its condition
            bound. It must predict :math:`E[x_0\\mid x_t]`, and gradients pass through it.
        units: restores physical fields.
        reports: the observations.
        shape: (K, C, H, W).
        settings: the method, the sampler and the number of members.
        progress: called with the number of members done.

    Raises ``ValueError`` for observations that do not fit the window.
    """
    settings = settings or Assimilation()
    seen = Observations(reports, units)
    like = torch.empty(1, *shape, dtype=dtype, device=device)
    posterior = given(prior, seen, like, settings.method)
    seeds, out = sample_seeds(seed, settings.members), []
    for at in range(0, settings.members, settings.together):
        own = seeds[at : at + settings.together]
        noise = Noise(own)
        start = prior.process.prior(like.expand(len(own), *shape), noise)
        x = settings.sampler(posterior, start, noise).x
        assert isinstance(x, Tensor)
        out.append(units.restore(x))
        if progress is not None:
            progress(at + len(own))
    return torch.cat(out)


def given(prior: Denoiser, seen: Observations, like: Tensor, method: Method) -> Posterior:
    """The denoiser of trajectories like ``like`` (B, K, C, H, W) given what was seen of them."""
    mean, size = seen.sizes(like)
    y, std = (seen.y.to(like) - mean) / size, seen.std.to(like) / size
    return Posterior(prior, _Sized(seen, mean, size), y, std, method)


@final
class _Sized(Operator):
    """Observations less those of the mean state, in units of their climatological deviations."""

    def __init__(self, seen: Observations, mean: Tensor, size: Tensor) -> None:
        self.seen, self.mean, self.size = seen, mean, size
        self.linear = seen.affine

    def __call__(self, x: Value) -> Tensor:
        return (self.seen(x) - self.mean) / self.size
