r"""A filter that is learnt: analyses of a chaotic model on a ring, whose members a diffusion draws.

A Kalman filter reads off its ensemble in which directions a forecast is likely to be wrong. But those directions depend
on the state, so a network can find them in one forecast f (Bocquet et al., Accurate deep learning-based filtering for
chaotic dynamics by identifying instabilities without an ensemble, Chaos 34, 2024). It is trained through the model: on
trajectories that are followed from observation to observation y,

.. math:: a_k = f_k + g(f_k, y_k - f_k),\qquad f_{k+1} = M(a_k),

the squared error of :math:`a` falls over several cycles at once. A conditional diffusion then learns the law of what
is left, :math:`(x - a)/s` given f, y and a, as CorrDiff adds a residual to a mean (Mardani et al., Residual corrective
diffusion modeling, 2023). Its draws, with a as their mean, are the members: no approximation by a Gaussian, and as many
as are wanted. Every number of the state is observed directly, with errors of one known deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense
from sciffusion.networks import Circular, Conv, NoiseLevel
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogitNormal, Objective
from sciffusion.process import Gaussian
from sciffusion.progress import track
from sciffusion.samplers import Multistep, Sampler
from sciffusion.schedule import RectifiedFlow

from .baselines.kalman import EnsembleFilter
from .simulators.lorenz96 import Lorenz96

__all__ = ["Correction", "Lessons", "RingFilter", "learn"]

_EMBEDDING = 64
_CIRCLE = Circular((-1,))


@final
@dataclass(frozen=True)
class Lessons:
    """How a filter is learnt.

    ``error`` is the deviation of the observations; ``width`` and ``depth`` are those of both networks. The correction
    takes ``steps`` of Adam, each through ``unroll`` cycles of ``batch`` trajectories that go on from step to step; the
    diffusion ``draws`` steps on what it leaves over ``cycles`` cycles.
    """

    error: float = 1.0
    width: int = 32
    depth: int = 3
    batch: int = 32
    unroll: int = 4
    steps: int = 4500
    lr: float = 4e-3
    cycles: int = 400
    draws: int = 500
    seed: int = 0


@final
class _Ring(nn.Module):
    """Convolutions around a ring whose layers multiply two branches, as the model's own tendency does."""

    def __init__(self, channels: int, width: int, depth: int, embedding: int = 0) -> None:
        super().__init__()
        self.first, self.last = (
            Conv(a, b, 1, kernel=5) for a, b in ((channels, width), (width, 1))
        )
        self.branches = nn.ModuleList(Conv(width, 2 * width, 1, kernel=5) for _ in range(depth))
        self.joins = nn.ModuleList(Conv(width, width, 1, kernel=1) for _ in range(depth))
        self.levels = nn.ModuleList(
            nn.Linear(embedding, 2 * width) for _ in range(depth if embedding else 0)
        )
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, 1, n) from (B, channels, n)."""
        x = self.first(x, _CIRCLE)
        for k, (branch, join) in enumerate(zip(self.branches, self.joins, strict=True)):
            both = branch(x, _CIRCLE)
            if embedding is not None:
                both = both + self.levels[k](embedding)[..., None]
            u, v = both.chunk(2, 1)
            x = x + join(u.tanh() * functional.silu(v), _CIRCLE)
        made: Tensor = self.last(x, _CIRCLE)
        return made


@final
class Correction(nn.Module):
    """The analysis (B, n) of a forecast (B, n) and observations (B, n) of all its numbers.

    It knows no place: what turns forecast and observations around the ring turns the analysis. ``mean`` and ``std`` are
    those of the model's climate. Untrained, it returns the forecast.
    """

    scale: Tensor

    def __init__(self, width: int, depth: int, mean: float, std: float) -> None:
        super().__init__()
        self.net = _Ring(2, width, depth)
        self.register_buffer("scale", torch.tensor([mean, std]))

    def forward(self, forecast: Tensor, y: Tensor) -> Tensor:
        made: Tensor = self.net(self.seen(forecast, y))
        return forecast + made[:, 0]

    def seen(self, *states: Tensor) -> Tensor:
        """The first state in units of the climate, and the others' differences from it, (B, states, n)."""
        first, *others = states
        mean, std = self.scale
        return torch.stack([(first - mean) / std, *(other - first for other in others)], 1)


@final
class _Residual(nn.Module):
    """The network of the diffusion: noised residuals (B, 1, n), and the condition (B, 3, n)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed = NoiseLevel(_EMBEDDING)
        self.net = _Ring(4, width, depth, _EMBEDDING)

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Tensor, previous: Tensor | None = None
    ) -> Tensor:
        x = torch.cat([x, cond.to(x).expand(len(x), -1, -1)], 1)
        made: Tensor = self.net(x, self.embed(log_snr))
        return made


@final
@dataclass(frozen=True, eq=False)
class RingFilter(EnsembleFilter):
    """The learnt analysis as a step of :func:`.baselines.kalman.cycle`. Make one by :func:`learn`.

    ``correction`` makes the mean, ``denoiser`` knows the law of the rest in units of ``spread``; ``error`` is the
    deviation of the observations. Of the forecasts it sees the mean alone.
    """

    correction: Correction
    denoiser: Preconditioned
    spread: float
    error: float
    sampler: Sampler = field(default_factory=lambda: Sampler(Multistep(2), 12))

    def analyse(
        self,
        ensemble: np.ndarray,
        observed: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """As many members as there are forecasts.

        Raises ``ValueError`` unless the states themselves were observed, with errors of the variance that was learnt.
        """
        if observed.shape != ensemble.shape or not np.allclose(variance, self.error**2):
            raise ValueError(
                "this filter was learnt for observations of all of the state with errors of variance "
                f"{self.error**2:g}; got {observed.shape[1]} observations of {ensemble.shape[1]} numbers, "
                f"variance {np.unique(variance)}"
            )
        f, seen = (torch.from_numpy(v).float()[None] for v in (ensemble.mean(0), y))
        noise = Noise(rng.integers(2**62, size=len(ensemble)).tolist())
        return self.draw(f, seen, noise, len(ensemble))[0].double().numpy()

    @torch.no_grad()
    def draw(self, forecast: Tensor, y: Tensor, noise: Noise, members: int) -> Tensor:
        """``members`` analyses of each of the forecasts (B, n), (B, members, n); ``noise`` has B x members streams.

        They are drawn without a mean, as the errors of a stochastic Kalman filter are, and widened by what that takes
        off: the sampling error of a mean would go into the next forecast, and grow there.
        """
        a = self.correction(forecast, y)
        cond = self.correction.seen(forecast, y, a).repeat_interleave(members, 0)
        start = self.denoiser.process.prior(cond[:, :1], noise)
        r = self.sampler(self.denoiser.given(cond), start, noise).x
        assert isinstance(r, Tensor)
        r = r[:, 0].unflatten(0, (len(a), members))
        if members > 1:
            r = (r - r.mean(1, keepdim=True)) * math.sqrt(members / (members - 1))
        return a[:, None] + self.spread * r


def learn(model: Lorenz96, lessons: Lessons | None = None, *, progress: bool = False) -> RingFilter:
    """A filter of ``model`` with observations of all of its numbers, every ``model.dt``.

    The same lessons give the same filter on one machine; nothing but the simulator is needed.
    """
    lessons = lessons or Lessons()
    climate = model.trajectory(model.start(lessons.seed, range(lessons.batch)), 200, skip=200)
    mean, std = float(climate.mean()), float(climate.std())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lessons.seed)
        correction = Correction(lessons.width, lessons.depth, mean, std)
        residual = _Residual(lessons.width, lessons.depth)
    _learn_mean(model, correction, climate[:, -1], lessons, progress)
    denoiser = Preconditioned(residual, Gaussian(RectifiedFlow()), sigma_data=1.0)
    spread = _learn_rest(model, correction, denoiser, climate[:, -1], lessons, progress)
    return RingFilter(correction, denoiser, spread, lessons.error)


def _learn_mean(
    model: Lorenz96, correction: Correction, start: Tensor, lessons: Lessons, progress: bool
) -> None:
    noise, layout = Noise(lessons.seed + 1), Dense(lessons.batch)
    x = start.float()
    states = [x, x + lessons.error * noise.normal(x, layout)]

    def loss() -> Tensor:
        x, a = states
        total = torch.zeros(())
        for _ in range(lessons.unroll):
            x, f = model.advance(x), model.advance(a)
            a = correction(f, x + lessons.error * noise.normal(x, layout))
            total = total + (a - x).square().mean() / lessons.unroll
        states[:] = [x, a.detach()]
        return total

    _descend(correction, loss, lessons.steps, lessons.lr, "learning the mean", progress)


def _learn_rest(
    model: Lorenz96,
    correction: Correction,
    denoiser: Preconditioned,
    start: Tensor,
    lessons: Lessons,
    progress: bool,
) -> float:
    conditions, left = _left(model, correction, start, lessons)
    spread = float(left.square().mean().sqrt())
    objective = Objective(denoiser.process, weight=EDM(), times=LogitNormal(0.0, 1.0))
    noise, rng = Noise(lessons.seed + 3), np.random.default_rng(lessons.seed)

    def loss() -> Tensor:
        rows = torch.from_numpy(rng.integers(len(left), size=8 * lessons.batch))
        return objective(denoiser, left[rows] / spread, conditions[rows], noise=noise).mean

    _descend(denoiser, loss, lessons.draws, lessons.lr, "learning the rest", progress)
    return spread


@torch.no_grad()
def _left(
    model: Lorenz96, correction: Correction, start: Tensor, lessons: Lessons
) -> tuple[Tensor, Tensor]:
    """Conditions (N, 3, n), and what the correction leaves, (N, 1, n), on trajectories that it has settled on."""
    noise, layout = Noise(lessons.seed + 2), Dense(2 * lessons.batch)
    g = noise.normal(torch.cat([start, start]), layout)
    x = (torch.cat([start, start]) + 1e-3 * g).float()
    a = x + lessons.error * noise.normal(x, layout)
    conditions, left = [], []
    for k in range(lessons.cycles + lessons.cycles // 4):
        x, f = model.advance(x), model.advance(a)
        y = x + lessons.error * noise.normal(x, layout)
        a = correction(f, y)
        if k >= lessons.cycles // 4:
            conditions.append(correction.seen(f, y, a))
            left.append((x - a)[:, None])
    return torch.cat(conditions), torch.cat(left)


def _descend(
    module: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    lr: float,
    title: str,
    progress: bool,
) -> None:
    """Adam with a learning rate that rises over a twentieth of the steps, then falls to zero like a cosine."""
    optimizer = torch.optim.AdamW(module.parameters(), lr, weight_decay=1e-3)
    rise = max(steps // 20, 1)
    module.train()
    for step in track(range(steps), title, show=progress):
        share = min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    module.eval()
    module.requires_grad_(False)
