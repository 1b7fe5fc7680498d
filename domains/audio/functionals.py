"""Differentiable properties of sounds, and guidance towards them.

A property is a function of a :class:`Sound`, the magnitudes that a model's spectrogram stands for, to one number for
each clip. :class:`Towards` steers samples by any such function:
``model.sample(4, guidance=Towards(brightness, 900.0, scale=1e-3))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.guidance import Energy
from sciffusion.inverse import MMPS, Function, Posterior
from sciffusion.layout import Masked
from sciffusion.sampling import Guidance as OfTheCore
from sciffusion.sampling import Guide
from sciffusion.state import State, Value

from .mel import MelConfig
from .recovery import envelope

if TYPE_CHECKING:
    from .model import AudioModel

__all__ = ["Guidance", "Property", "Sound", "Towards", "brightness", "loudness", "pitch"]


@final
@dataclass(frozen=True, eq=False)
class Sound:
    """Magnitudes of single frequencies, (B, F, T), which frames there are, (B, T), and of what they are spectra."""

    magnitude: Tensor
    mask: Tensor
    config: MelConfig

    @classmethod
    def of(cls, model: AudioModel, x: Value) -> Sound:
        """What a state of a model stands for; differentiable."""
        assert isinstance(x, State)
        layout, mel = x.layout("mel"), x["mel"]
        known = isinstance(layout, Masked)
        mask = layout.mask if isinstance(layout, Masked) and known else mel.new_ones(mel.shape[:2])
        magnitude = envelope(model.config.spectrogram, model.standard.decode(mel).mT)
        return cls(magnitude * mask[:, None], mask, model.config.spectrogram)

    @property
    def hertz(self) -> Tensor:
        """The frequencies, (F,)."""
        count = self.config.n_fft // 2 + 1
        return torch.arange(count, device=self.mask.device) * (self.config.rate / self.config.n_fft)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over frames of values (B, T), each counted by its power, (B,)."""
        power = self.magnitude.square().sum(1) + 1e-20 * self.mask
        return (power * values).sum(1) / power.sum(1)


Property = Callable[[Sound], Tensor]
"""A differentiable function of sounds, one number for each clip, (B,)."""


def loudness(sound: Sound) -> Tensor:
    """The level of the waveform, in dB below a root mean square of 1, (B,).

    From the spectrogram (Parseval), which knows magnitudes as means over triangles: up to 1 dB low for noise, more for
    tones that are narrower than a triangle.
    """
    # windows hold 3/8 of the power; all frequencies but the first and last count twice
    power = 2 * sound.magnitude.square().sum(1) / (0.375 * sound.config.n_fft**2)
    return 10 * ((power.sum(1) / sound.mask.sum(1)) + 1e-12).log10()


def brightness(sound: Sound) -> Tensor:
    """The centroid of the magnitudes, in Hz, the mean over frames by their power, (B,)."""
    total = sound.magnitude.sum(1).clamp(min=1e-12)
    return sound.mean((sound.magnitude * sound.hertz[:, None]).sum(1) / total)


def pitch(sound: Sound) -> Tensor:
    """A soft fundamental frequency, in Hz, the geometric mean over frames by their power, (B,).

    Every candidate, a quarter of a semitone apart, is judged by the magnitudes at its first five multiples less those
    half-way between; the softmax of the judgements weighs them. Candidates begin where multiples are told apart, at
    four frequencies of the transform (125 Hz for 256 samples at 8 kHz), and end at an eighth of the rate.
    """
    config = sound.config
    low, high = 4 * config.rate / config.n_fft, config.rate / 8
    count = max(2, round(48 * math.log2(high / low)) + 1)
    candidates = torch.logspace(math.log10(low), math.log10(high), count, device=sound.mask.device)
    comb = torch.zeros(count, len(sound.hertz), device=sound.mask.device)
    step = config.rate / config.n_fft
    for h in range(1, 6):
        for multiple, sign in ((h, 1.0), (h - 0.5, -1.0)):
            at = (candidates * multiple / step)[:, None]
            weight = (1 - (torch.arange(len(sound.hertz), device=at.device) - at).abs()).clamp(
                min=0
            )
            comb = comb + sign / h * weight
    peak = sound.magnitude / sound.magnitude.amax(1, keepdim=True).clamp(min=1e-12)
    shares = (20 * comb @ peak).softmax(1)
    return sound.mean((shares * candidates.log()[:, None]).sum(1)).exp()


@final
@dataclass(frozen=True, eq=False)
class Towards:
    r"""Guidance towards a property of the sound: give it to ``guidance`` of a verb.

    Samples follow :math:`p(x)\,e^{-E(x)}`. With a ``target`` b it is :math:`E = \tfrac12\,\mathrm{scale}\,(f - b)^2`:
    the property is observed with the deviation :math:`1/\sqrt{\mathrm{scale}}`, by the posterior method of the core,
    which knows how unsure the model still is (:class:`~sciffusion.inverse.MMPS`). Without one it is
    :math:`E = -\mathrm{scale}\,f`: as much of it as the model allows (:class:`~sciffusion.guidance.Energy`). A step
    costs a backward pass through the network. ``guide`` is the guidance by the condition below it (None: the model's).

    Raises ``ValueError`` for a scale that is not positive.
    """

    fn: Property
    target: float | None = None
    scale: float = 1.0
    guide: Guide | float | None = None

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(
                f"scale must be positive, got {self.scale}; turn the sign of fn instead"
            )

    def around(self, model: AudioModel, denoiser: Denoiser, cond: Condition) -> Denoiser:
        """The guided denoiser made of one that is the model's, or wraps it."""
        inner = model.around(denoiser, cond, self.guide)

        def value(x: Value) -> Tensor:
            return self.fn(Sound.of(model, x))

        if self.target is None:
            return Energy(inner, lambda x: -value(x), self.scale)
        y = torch.tensor([[self.target]], device=model.device)
        operator = Function(lambda x: value(x)[:, None])
        return Posterior(inner, operator, y, self.scale**-0.5, MMPS(1))


Guidance = OfTheCore | Towards
"""What the core knows as guidance, or :class:`Towards` a property of the sound."""
