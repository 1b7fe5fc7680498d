r"""A clip without the white noise that lies over it, by posterior sampling.

Powers of sound and noise add up on average, so what is observed is

.. math:: y = \tfrac12\log\big(e^{2m} + N^2\big) + \varepsilon

at every mel bin and frame: m the log-mel that is looked for, N the mean magnitude of the noise alone. How far
:math:`\varepsilon` spreads is measured on noise, and shrinks where y lies above it. The noisy complex spectrum is then
weighted by the share that the sound has of the power (Wiener's filter); its phases are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from sciffusion.inverse import Function, Method, Posterior
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.samplers import Sampler
from sciffusion.state import State, Value

from .adapter import mel_state
from .clip import Clip, Clips
from .filling import METHOD, TOLERANCE, Drawing
from .given import Given
from .mel import LogMel
from .recovery import envelope
from .task import PEAK

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["denoise"]


def denoise(
    model: AudioModel,
    clip: Clip,
    n: int = 1,
    *,
    noise_std: float | None = None,
    snr: float | None = None,
    given: Mapping[str, object] | None = None,
    guidance: Guidance = 1.0,
    method: Method = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """Take white noise away from a clip, n times; mono, at the model's rate.

    Args:
        model: of clean clips.
        clip: of any rate; no longer than what the model was trained on.
        n: how many different ones.
        noise_std: of the noise, in units of the samples of the clip's mean channel at the model's rate.
        snr: instead, power of the sound over power of the noise, in dB.
        given: attributes by name.
        guidance: 1 is a sample of the posterior.
        method: any posterior method of the core.
        seed: of everything random.
        steps: of the solver.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: neither or both of ``noise_std`` and ``snr``, a deviation that is not positive, a clip that is
            silent or too long, and attributes that the model does not know.
    """
    if (noise_std is None) == (snr is None):
        raise ValueError("say how strong the noise is: noise_std or snr, one of the two")
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed)
    config = model.config.spectrogram
    heard = Given.of(clip, config)
    if noise_std is not None:
        std = noise_std * heard.gain
    else:
        assert snr is not None
        std = math.sqrt(float(heard.wave.square().mean()) / (1 + 10 ** (snr / 10)))
    if not std > 0:
        raise ValueError(f"noise_std must be positive, got {noise_std}")
    drawing.require_fit(clip)
    alone = std * Noise(0).normal(torch.empty(1, 512 * config.hop), Dense(1))
    noise = config.framing.analyse(alone)[:, :, 8:-8].abs().square().mean(2, keepdim=True)
    spectrum = config.framing.analyse(heard.wave[None])
    # a model knows sounds whose own peak is 0.5: about that of what exceeds the noise
    above = (spectrum.abs().square() - noise).clamp(min=0)
    sound = config.framing.synthesise(above / (above + noise) * spectrum)
    scale = PEAK / max(float(sound.abs().max()), 0.1 * PEAK)
    frames = LogMel(config).encode(scale * heard.wave[None])[0].mT.to(model.device)
    spectra = LogMel(config).encode(scale * alone)[0].mT[8:-8].to(frames)
    level = spectra.exp().mean(0).log()
    # white noise that lies d nats below what is heard moves it by about exp(-d) of its own spread
    spread = spectra.std(0) * (level - frames).exp().clamp(max=1) + TOLERANCE
    like = mel_state([torch.zeros_like(frames)] * n)

    def observe(x: Value) -> Value:
        assert isinstance(x, State)
        mel = model.standard.decode(x["mel"])
        return x.replace({"mel": 0.5 * torch.logaddexp(2 * mel, 2 * level.expand_as(mel))})

    y = like.replace({"mel": frames.expand(n, -1, -1)})
    posterior = Posterior(drawing.denoiser(), Function(observe), y, spread, method)
    found = model.standard.decode(drawing.run(posterior, like)["mel"]).mT
    power = (envelope(config, found) / scale).square()
    share = power / (power + noise.to(power))
    waves = config.framing.synthesise(share * spectrum.to(share.device)).cpu()
    return Clips([Clip(w[None, : len(heard.wave)] / heard.gain, config.rate) for w in waves])
