r"""A clip without the noise that lies over it, by posterior sampling.

Powers of sound and noise add up on average, so what is observed is

.. math:: y = \tfrac12\log\big(e^{2m} + N^2\big) + \varepsilon

at every mel bin and frame: m the log-mel that is looked for, N the mean magnitude of the noise alone. How far
:math:`\varepsilon` spreads is measured on noise, and shrinks where y lies above it. The noisy complex spectrum is then
weighted by the share that the sound has of the power (Wiener's filter), the mean over several samples of it; its phases
are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciffusion.inverse import Function, Method
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.samplers import Sampler
from sciffusion.state import State, Value

from .adapter import mel_state
from .clip import Clip, Clips
from .filling import METHOD, TOLERANCE, Drawing
from .given import Heard
from .mel import LogMel, MelConfig
from .recovery import envelope
from .task import PEAK

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["denoise"]

FEWEST = 16
"""Frames that tell what noise is like."""


def denoise(
    model: AudioModel,
    clip: Clip,
    n: int = 1,
    *,
    noise: Clip | None = None,
    noise_std: float | None = None,
    snr: float | None = None,
    given: Mapping[str, object] | None = None,
    draws: int = 4,
    guidance: Guidance = 1.0,
    method: Method = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """Take noise away from a clip, n times; mono, at the model's rate.

    How strong the noise is must be known: of any steady noise by a recording of it alone, of white noise by a number.

    Args:
        model: of clean clips.
        clip: of any rate; no longer than what the model was trained on.
        n: how many different ones.
        noise: the noise alone, recorded at the level that it has in the clip; of any rate, a quarter of a second will
            do. What it is like, frequency by frequency, is taken from it.
        noise_std: instead, the deviation of white noise, in units of the samples of the clip's mean channel at the
            model's rate.
        snr: instead, power of the sound over power of white noise, in dB.
        given: attributes by name.
        draws: posterior samples; the shares that they leave to the sound are averaged.
        guidance: 1 is a sample of the posterior.
        method: any posterior method of the core.
        seed: of everything random.
        steps: of the solver.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: none or several of ``noise``, ``noise_std`` and ``snr``, noise that is silent or too short, a
            deviation that is not positive, a clip that is silent or too long, and attributes that the model does not
            know.
    """
    if [noise, noise_std, snr].count(None) != 2:
        raise ValueError("say what the noise is like: noise, noise_std or snr, one of the three")
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed, draws)
    config = model.config.spectrogram
    heard = Heard.of(clip, config)
    alone = _alone(config, heard, noise, noise_std, snr)
    drawing.require_fit(clip)
    edge = -(-(config.n_fft - config.hop) // (2 * config.hop))  # frames that see beyond the ends
    inner = slice(edge, config.frames(alone.shape[1]) - edge)
    hiss = config.framing.analyse(alone)[:, :, inner].abs().square().mean(2, keepdim=True)
    spectrum = config.framing.analyse(heard.wave[None])
    # a model knows sounds whose own peak is 0.5: about that of what exceeds the noise
    above = (spectrum.abs().square() - hiss).clamp(min=0)
    sound = config.framing.synthesise(above / (above + hiss).clamp(min=1e-12) * spectrum)
    scale = PEAK / max(float(sound.abs().max()), 0.1 * PEAK)
    frames = LogMel(config).encode(scale * heard.wave[None])[0].mT.to(model.device)
    spectra = LogMel(config).encode(scale * alone)[0].mT[inner].to(frames)
    level = spectra.exp().mean(0).log()
    # noise that lies d nats below what is heard moves it by about exp(-d) of its own spread
    spread = spectra.std(0) * (level - frames).exp().clamp(max=1) + TOLERANCE
    like = mel_state([torch.zeros_like(frames)] * len(drawing.seeds))

    def observe(x: Value) -> Value:
        assert isinstance(x, State)
        mel = model.standard.decode(x["mel"])
        return x.replace({"mel": 0.5 * torch.logaddexp(2 * mel, 2 * level.expand_as(mel))})

    y = like.replace({"mel": frames.expand(len(drawing.seeds), -1, -1)})
    posterior = drawing.posterior(Function(observe), y, spread, method)
    found = model.standard.decode(drawing.run(posterior, like)["mel"]).mT
    power = (envelope(config, found) / scale).square()
    share = 1 / (1 + hiss.to(power) / power.clamp(min=1e-12))
    share = share.unflatten(0, (-1, draws)).mean(1)
    waves = config.framing.synthesise(share * spectrum.to(share.device)).cpu()
    clips = [Clip(w[None, : len(heard.wave)] / heard.gain, config.rate) for w in waves]
    return Clips(clips, drawing.labels(draws))


def _alone(
    config: MelConfig, heard: Heard, noise: Clip | None, std: float | None, snr: float | None
) -> Tensor:
    """The noise alone (1, N), at the model's rate and at the level at which the clip is heard."""
    if noise is not None:
        fewest = (FEWEST - 1) * config.hop + config.n_fft
        wave = heard.gain * noise.mono().resample(config.rate).samples
        if wave.shape[1] < fewest:
            raise ValueError(
                f"noise must have {fewest / config.rate:.3f} s or more to tell what it is like, got {noise.seconds:.3f}"
            )
        if not bool(wave.any()):
            raise ValueError("noise is silent; there is nothing to take away")
        return wave[:, : wave.shape[1] // config.hop * config.hop]
    if std is not None:
        std = std * heard.gain
    else:
        assert snr is not None
        std = math.sqrt(float(heard.wave.square().mean()) / (1 + 10 ** (snr / 10)))
    if not std > 0:
        raise ValueError(f"noise_std must be positive, got {std / heard.gain:g}")
    return std * Noise(0).normal(torch.empty(1, 512 * config.hop), Dense(1))
