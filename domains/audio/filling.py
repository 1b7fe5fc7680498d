r"""Frames that complete given ones: posterior samples of a model, in windows as long as what it was trained on.

A frame of a window is observed with a small error (a twentieth of the standard deviation of the training data), or not
at all; the core's posterior methods sample what is missing, and what was given is put back exactly. More frames than a
model knows are completed from window to window, each of which sees half a window of what is there already; of windows
that more shall follow, half of what is new is kept, for a model ends every window as clips end. A window that would see
made frames only sees the given ones again, so errors do not add up from window to window. Every window is drawn from
the model itself, at the level that its own frames have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.inverse import MMPS, Mask, Method, Operator, Posterior, RePaint, edit
from sciffusion.inverse.posterior import Deviation
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import DDIM, Sampler
from sciffusion.state import State

from .adapter import mel_state
from .clip import Clip

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["METHOD", "Drawing", "Replacement", "complete"]

METHOD: Method = MMPS(1)
"""How known entries condition a model: the covariance that its own derivative tells, one step of its solution."""

TOLERANCE = 0.05
"""The standard deviation with which given frames are observed, in units of the model."""

LOUDEST = -8.0
"""The log-SNR that completions of given frames begin at.

What an observation moves a prediction by is the network's derivative over alpha. Where a clip cannot be heard under the
noise (alpha is 3e-4 at the first of the usual steps) the derivative is the network's error alone, and the quotient may
be of any size: of five digits continued for ten seconds it drove one apart.
"""

DIVERGED = 20.0
"""No frame lies that many standard deviations of the training data from their mean: its sound would be no number."""

ANCHOR = 0.75
"""The share of what a window sees that is given, not made."""


@final
@dataclass(frozen=True)
class Replacement:
    """Given frames are put in anew at every step, which is taken ``rounds`` times (Lugmayr et al., RePaint, 2022).

    Steps are of first order, whatever the sampler's solver: those of a higher one remember frames of other noise.
    """

    rounds: int = 4
    jump: int = 1


@final
@dataclass(frozen=True, eq=False)
class Drawing:
    """A model that was asked for something, and how n clips are drawn from it."""

    model: AudioModel
    cond: Condition
    guidance: Guidance | None
    sampler: Sampler
    seeds: Sequence[int]
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        model: AudioModel,
        n: int,
        given: Mapping[str, object] | None,
        guidance: Guidance | None,
        steps: int | None,
        sampler: Sampler | None,
        seed: int,
        draws: int = 1,
        temperature: float = 1.0,
    ) -> Drawing:
        """Check what all verbs share; of each of the n clips there are ``draws``, one after another.

        Raises ``ValueError`` for n or draws below 1, a negative temperature, and for what the model does not know.
        """
        if n < 1 or draws < 1:
            raise ValueError(f"n must be at least 1, and draws, got {n} and {draws}")
        rows = model.condition(given or {}, n)
        cond = {k: v.repeat_interleave(draws, 0) for k, v in rows.items()}
        sampler = sampler or model.sampling.sampler(steps)
        seeds = sample_seeds(seed, n * draws)
        Noise(seeds, temperature=temperature)  # refuses what does not fit
        return cls(model, cond, guidance, sampler, seeds, temperature)

    @property
    def longest(self) -> int:
        """The number of frames of the longest clip that the model was trained on."""
        return self.model.config.frontend.frames(int(self.model.catalogue.samples.max()))

    def require_fit(self, clip: Clip) -> None:
        """Raise ``ValueError`` for a clip that is longer than all that the model was trained on."""
        rate, most = self.model.config.frontend.rate, int(self.model.catalogue.samples.max())
        if (
            math.ceil(clip.samples.shape[1] * rate / clip.rate)
            > self.longest * self.model.config.frontend.hop
        ):
            raise ValueError(
                f"the clip has {clip.seconds:.2f} s, but the model knows up to {most / rate:.2f} s; cut it"
            )

    def denoiser(self) -> Denoiser:
        """The model's, asked for what was given and guided."""
        return self.model.guided(self.cond, self.guidance)

    def posterior(self, operator: Operator, y: State, std: Deviation, method: Method) -> Denoiser:
        """The same that knows an observation of what is drawn.

        Guidance is that of the posterior by the condition. The other way round the method would take the derivative
        of a guided prediction for a covariance, which it is not, and could diverge.
        """
        posterior = Posterior(self.model.denoiser, operator, y, std, method)
        return self.model.around(posterior, self.cond, self.guidance)

    def noise(self, part: int = 0) -> Noise:
        """A stream for each clip, another one for each part of it."""
        seeds = [sample_seeds(s, part + 1)[part] for s in self.seeds]
        return Noise(seeds, temperature=self.temperature)

    def labels(self, draws: int = 1) -> dict[str, NDArray[Any]]:
        """What was asked of every clip, each of so many draws: the attributes that are not open for all of them."""
        found = self.model.labels({k: v[::draws] for k, v in self.cond.items()})
        return {k: v for k, v in found.items() if (v != "").any()}

    def run(self, denoiser: Denoiser, like: State, part: int = 0, start: float = 1.0) -> State:
        """Draw states like this one, from the noise of a time ``start``. Raises ``RuntimeError`` if that diverges."""
        mean = like.replace({k: torch.zeros_like(v) for k, v in like.items()})
        x = edit(self.sampler, denoiser, mean, start, self.noise(part)).x
        assert isinstance(x, State)
        if not all(bool((v.abs() < DIVERGED).all()) for v in x.values()):
            raise RuntimeError(
                "sampling diverged, which the observation drives it to; take more steps, or another method: "
                "MMPS(1), or MMPS(2) where that is what diverged"
            )
        return x


def complete(
    drawing: Drawing,
    frames: Tensor,
    known: Tensor,
    method: Method | Replacement = METHOD,
    draws: int = 1,
) -> Tensor:
    """Frames in units of the model, (n, T, mels), n completions of given ones.

    Args:
        drawing: from what, and how.
        frames: the given ones (T, mels), anything where unknown.
        known: which of their entries are given, (T, mels).
        method: any posterior method of the core, or :class:`Replacement`.
        draws: completions whose mean counts as one; the drawing holds n times as many.
    """
    device, n = drawing.model.device, len(drawing.seeds)
    x = frames.to(device).where(known.to(device), 0.0).expand(n, -1, -1).clone()
    given, known, part = known.all(1), known.clone(), 0
    while not bool(known.all()):
        start, end = _window(known.all(1), drawing.longest)
        rows = _anchored(given, known.all(1), start, end)
        here = known[rows].to(device)
        made = _filled(drawing, x[:, rows], here, method, part)
        if draws > 1:
            mean = made.unflatten(0, (-1, draws)).mean(1).repeat_interleave(draws, 0)
            made = torch.where(here, made, mean)
        kept = _kept(known.all(1), start, end)
        new = (~known.all(1)[rows]) & (rows < kept)
        x[:, rows[new]] = made[:, new]
        known[rows[new]] = True
        part += 1
    return x[::draws]


def _window(done: Tensor, size: int) -> tuple[int, int]:
    """Where the first frames that are not done lie: a window around a few of them, or with half of it before them."""
    total = len(done)
    first = int((~done).int().argmax())
    after = done[first:].int()
    count = int(after.argmax()) if bool(after.any()) else total - first
    before = max(size - count, size // 2) // 2 if count < size // 2 else size // 2
    start = max(0, min(first - before, total - size))
    return start, min(start + size, total)


def _anchored(given: Tensor, done: Tensor, start: int, end: int) -> Tensor:
    """The frames of a window; if it would see too few given ones, the last of them stand in place of its first ones.

    Errors of windows that see nothing but each other add up. So three quarters of what such a window sees is what was
    given, and a quarter what was made last.
    """
    rows = torch.arange(start, end)
    before = int((~done[start:end]).int().argmax())
    size = int(before * ANCHOR)
    earlier = torch.nonzero(given[: start + before])[:, 0][-size:] if size else rows[:0]
    if int(given[start : start + before].sum()) >= len(earlier):
        return rows
    return torch.cat([earlier, rows[len(earlier) :]])


def _kept(done: Tensor, start: int, end: int) -> int:
    """Up to where a window is kept: all of it, or, if more shall follow, half of what is new."""
    if end == len(done) or bool(done[end]):
        return end
    first = start + int((~done[start:end]).int().argmax())
    return first + (end - first + 1) // 2


def _filled(
    drawing: Drawing, x: Tensor, known: Tensor, method: Method | Replacement, part: int
) -> Tensor:
    """One window, (n, T, mels)."""
    state, mask = mel_state(list(x)), known.expand_as(x)
    if isinstance(method, Replacement):
        denoiser = drawing.denoiser()
        noise = drawing.noise(part)
        start = denoiser.process.prior(state, noise)
        sampler = replace(drawing.sampler, solver=DDIM())
        paint = RePaint(sampler, state, {"mel": mask}, method.rounds, method.jump)
        made = paint(denoiser, start, noise).x
        assert isinstance(made, State)
    else:
        posterior = drawing.posterior(Mask(mask, "mel"), state, TOLERANCE, method)
        begin = float(posterior.process.clock.time(torch.tensor(LOUDEST, dtype=torch.float64)))
        made = drawing.run(posterior, state, part, begin)
    return torch.where(mask, x, made["mel"])
