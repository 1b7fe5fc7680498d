"""Samples that please a judge whom nobody can differentiate: particles that are weighed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sciffusion.inverse import TwistedSMC
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Sampler
from sciffusion.state import State, Value

from .adapter import mel_state
from .clip import Clips
from .task import PEAK

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["Reward", "sample_by_reward"]

Reward = Callable[[Clips], ArrayLike]
"""One number for each clip, the more the better; as a log-likelihood, in nats."""


def sample_by_reward(
    model: AudioModel,
    reward: Reward,
    n: int = 1,
    given: Mapping[str, object] | None = None,
    *,
    particles: int = 8,
    scale: float = 1.0,
    keep: Literal["draw", "best"] = "draw",
    seconds: float | Sequence[float] | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    r"""Draw clips from :math:`p(x)\,e^{\mathrm{scale}\cdot\mathrm{reward}(x)}` with particles, each with a peak of 0.5.

    The reward may be any function of clips: a classifier, a meter, a person. It hears what the model predicts at every
    step, and particles of little promise give way to copies of better ones (Singhal et al., Feynman-Kac steering,
    2025; :class:`~sciffusion.inverse.TwistedSMC`). Clip i depends on ``seed`` and i alone, if the reward does.

    Args:
        model: of such clips.
        reward: of a batch of clips, all particles of the first one first.
        n: how many.
        given: attributes by name, see :meth:`.AudioModel.sample`.
        particles: for each clip; their number bounds how far they can be steered.
        scale: of the reward.
        keep: one of the particles, drawn by their weights, or the one of the highest reward.
        seconds: durations, as there.
        guidance: as there.
        seed: of everything random.
        steps: of the solver.
        sampler: a stochastic one of the core; None: the model's own with the noise of its diffusion.

    Raises:
        ValueError: n or particles below 1, a reward that is not one finite number for each clip, and what ``sample``
            refuses.
    """
    if n < 1 or particles < 1:
        raise ValueError(f"n and particles must be at least 1, got {n} and {particles}")
    if keep not in ("draw", "best"):
        raise ValueError(f"keep must be 'draw' or 'best', got {keep!r}")
    seeds = sample_seeds(seed, n)
    lengths, cond = model.asked(given or {}, seconds, Noise(seeds).scalars(n))
    every = [length for length in lengths for _ in range(particles)]
    cond = {k: v.repeat_interleave(particles, 0) for k, v in cond.items()}
    sampler = sampler or replace(model.sampling, eta=1.0).sampler(steps)

    def heard(x: Value) -> Clips:
        assert isinstance(x, State)
        return Clips([c.normalised(PEAK) for c in model.decode(x, every)])

    def judge(clips: Clips) -> Tensor:
        out = torch.as_tensor(reward(clips), dtype=torch.float64)
        if out.shape != (len(clips),) or not bool(out.isfinite().all()):
            raise ValueError(
                f"reward must return one finite number for each of {len(clips)} clips, got {tuple(out.shape)}"
            )
        return scale * out

    shapes = [(model.config.frontend.frames(k), model.config.width) for k in lengths]
    like = mel_state([torch.zeros(*shape, device=model.device) for shape in shapes])
    steered = TwistedSMC(sampler, lambda x0, x_t, t: judge(heard(x0)), particles, guided=False)
    found = steered(model.guided(cond, guidance), like, seeds)
    if keep == "draw":
        clips, rows = heard(found.resampled), torch.arange(n) * particles
    else:
        clips = heard(found.x)
        best = judge(clips).reshape(n, particles).argmax(1)
        rows = torch.arange(n) * particles + best
    labels = {k: v[::particles] for k, v in model.labels(cond).items()}
    return Clips([clips[i] for i in rows.tolist()], labels)
