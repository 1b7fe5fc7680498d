r"""The frequencies that a clip lacks, by a small model of what lies above a band, given what lies within it.

The model of clips knows how they sound as a whole; told a part of one, it must be asked by a posterior method. This one
has learnt nothing but the question: the log-magnitudes of the short-time Fourier transform above a cut-off, of which
the network sees a noised version, given those below, which it sees as they are (bandwidth extension as in Lee & Han,
NU-Wave, 2021, and Liu et al., AudioSR, 2024, here on magnitudes). The cut-off is another one for every training clip.
Single frequencies, not mels, so nothing is lost on the way to sound but phases, which Griffin-Lim finds with the given
band held fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, final

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.described import described
from sciffusion.layout import Masked
from sciffusion.networks import NoiseLevel
from sciffusion.networks.modulation import Modulation, modulated
from sciffusion.noise import Noise, sample_seeds
from sciffusion.process import Gaussian, Joint
from sciffusion.samplers import Sampler
from sciffusion.sampling import SamplingConfig
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.state import State
from sciffusion.training import ModelFile, write_model

from .clip import Clip, Clips
from .given import Heard, cutoff_of
from .recovery import banded
from .standard import Standard
from .stft import Framing

__all__ = ["BAND", "BandConfig", "BandExtender", "BandNet"]

BAND = "audio-band"
"""The kind of file that holds such a model."""

SAMPLING = SamplingConfig(steps=8, shift=2.0, scale=1.0)
"""How the band is drawn unless told otherwise: a call of the network for each step."""


@final
@dataclass(frozen=True)
class BandConfig:
    """What is seen and what is missing, and the size of the network: ``depth`` blocks of ``width`` channels.

    ``cutoffs`` are the lowest and the highest cut-off, in Hz as ``rate``; ``n_fft`` and ``hop`` are in samples.
    Magnitudes below ``floor`` count as silence, in clips whose known band has a peak of 0.5.

    Raises ``ValueError`` for sizes that are not positive, an even ``kernel``, and cut-offs that are not in order or
    leave nothing below or above.
    """

    rate: int = 8000
    n_fft: int = 256
    hop: int = 64
    cutoffs: tuple[float, float] = (1000.0, 3000.0)
    floor: float = 1e-3
    width: int = 160
    depth: int = 5
    expansion: int = 3
    kernel: int = 7
    embedding: int = 96

    def __post_init__(self) -> None:
        sizes = (self.rate, self.width, self.depth, self.expansion, self.kernel, self.embedding)
        if min(sizes) < 1 or self.kernel % 2 == 0 or self.floor <= 0:
            raise ValueError(f"sizes and floor must be positive and kernel odd, got {self}")
        _ = self.framing
        low, high = self.cutoffs
        if not 0 < low <= high < self.rate * (0.5 - 1 / self.n_fft):
            raise ValueError(
                f"cutoffs must lie in order above 0 and below {self.rate / 2:g} Hz with a frequency above them, got "
                f"{low:g} and {high:g}"
            )

    @property
    def framing(self) -> Framing:
        """The Fourier transform below."""
        return Framing(self.n_fft, self.hop)

    @property
    def bins(self) -> int:
        """The number of frequencies."""
        return self.n_fft // 2 + 1

    @property
    def upper(self) -> int:
        """The number of frequencies above the lowest cut-off: what the network tells."""
        return self.bins - int(self.cutoffs[0] * self.n_fft / self.rate) - 1

    def known(self, cutoff: Tensor) -> Tensor:
        """Whether a frequency is known below these cut-offs (B,), (B, bins)."""
        hertz = torch.arange(self.bins, device=cutoff.device) * (self.rate / self.n_fft)
        return hertz <= cutoff[:, None]

    def lower(self, waves: Tensor, cutoff: Tensor) -> Tensor:
        """Waveforms (B, N) without what lies above their cut-offs (B,)."""
        spectrum = torch.fft.rfft(waves)
        hertz = torch.arange(spectrum.shape[1], device=waves.device) * (self.rate / waves.shape[1])
        return torch.fft.irfft(spectrum * (hertz <= cutoff[:, None]), waves.shape[1])

    def levels(self, waves: Tensor) -> Tensor:
        """Log-magnitudes (B, T, bins) of waveforms (B, N)."""
        return self.framing.analyse(waves).abs().clamp(min=self.floor).log().mT

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; its state has unit variance."""
        process = Joint({"band": Gaussian(SCHEDULES["rectified-flow"], Euclidean())})
        return Preconditioned(BandNet(self), process, sigma_data={"band": 1.0})


def band_state(levels: Tensor, frames: Tensor) -> State:
    """Levels (B, T, upper) of clips of these numbers of frames (B,) as a state."""
    mask = torch.arange(levels.shape[1], device=levels.device) < frames[:, None]
    return State({"band": levels}, Masked(mask))


@final
class BandNet(nn.Module):
    """Convolutions along the frames (Liu et al., A ConvNet for the 2020s, 2022), all frequencies as channels.

    The vector that modulates its layers tells the noise level, which frequencies are known, and their mean and spread
    over the clip: what voice, room and level do to all frames alike. A clip's result depends neither on the other clips
    nor on the padding. What it says of frequencies that are known means nothing.
    """

    def __init__(self, config: BandConfig) -> None:
        super().__init__()
        c = config
        self.bins = c.bins
        self.embed = NoiseLevel(c.embedding)
        self.voice = nn.Linear(3 * c.bins, c.embedding)
        self.first = nn.Conv1d(c.bins + c.upper, c.width, 5, padding=2)
        self.blocks = nn.ModuleList(_Block(c) for _ in range(c.depth))
        self.modulation = Modulation(c.embedding, c.width, 2)
        self.last = nn.Linear(c.width, c.upper)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        state: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        """The network's output for ``band``, (B, T, upper).

        The condition holds ``low`` (B, T, bins), of which it sees the frequencies that ``known`` (B, bins) names.
        Raises ``ValueError`` if it lacks them.
        """
        x, layout = state["band"], state.layout("band")
        given = cond or {}
        low, known = given.get("low"), given.get("known")
        if low is None or low.shape[1:] != (x.shape[1], self.bins):
            raise ValueError(f"cond must hold low, (B, {x.shape[1]}, {self.bins}), the levels")
        if known is None or known.shape[1:] != (self.bins,):
            raise ValueError(f"cond must hold known, (B, {self.bins}), which of them are known")
        seen = known[:, None].to(x)
        low = layout.clean((low.to(x) * seen).expand(len(x), -1, -1))
        x = layout.clean(x * (1 - seen[:, :, -x.shape[2] :]))
        count = layout.points(x)[:, None]
        mean = low.sum(1) / count
        spread = (low.square().sum(1) / count - mean.square()).clamp(min=1e-6).sqrt()
        told = torch.cat([mean, spread, seen[:, 0].expand(len(x), -1)], 1)
        e = nn.functional.silu(self.embed(log_snr["band"]) + self.voice(told))
        h: Tensor = self.first(torch.cat([low, x], 2).mT).mT
        for block in self.blocks:
            h = block(layout.clean(h), e)
        return {"band": layout.clean(self.last(modulated(h, *self.modulation(e))))}


@final
class _Block(nn.Module):
    """A convolution along the frames and a two-layer network; the identity at initialisation."""

    def __init__(self, c: BandConfig) -> None:
        super().__init__()
        self.along = nn.Conv1d(c.width, c.width, c.kernel, padding=c.kernel // 2, groups=c.width)
        self.modulation = Modulation(c.embedding, c.width, 3)
        self.up = nn.Linear(c.width, c.expansion * c.width)
        self.down = nn.Linear(c.expansion * c.width, c.width)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(e)
        y = modulated(self.along(x.mT).mT, shift, scale)
        found: Tensor = x + gate * self.down(nn.functional.gelu(self.up(y)))
        return found


@final
@dataclass(frozen=True, eq=False, repr=False)
class BandExtender:
    """A trained model of the frequencies above a cut-off, given those below.

    ``denoiser`` is an ordinary denoiser of the core, of states with the field ``band`` (B, T, upper), given ``low``
    (B, T, bins) and which of these are ``known`` (B, bins): log-magnitudes in units of ``standard``.
    """

    config: BandConfig
    denoiser: Preconditioned
    standard: Standard
    sampling: SamplingConfig = SAMPLING
    info: Mapping[str, Any] | None = None

    attributes = ("clip", "cutoff")
    """What :meth:`sample` is asked by."""

    def __repr__(self) -> str:
        return described(self, self.denoiser, f"{self.config.rate} Hz", asked=self.attributes)

    if not TYPE_CHECKING:  # checkers know what there is

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a model of a missing band has no {name!r}: it has super_resolve and sample, and the other verbs "
                "need a model of clips",
                name=name,
                obj=self,
            )

    def super_resolve(
        self,
        clip: Clip,
        n: int = 1,
        *,
        cutoff: float | None = None,
        draws: int = 1,
        temperature: float = 0.5,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
    ) -> Clips:
        """Put in the frequencies above a cut-off, n times; mono, at the model's rate.

        Up to the cut-off the result is the given sound: the same coefficients of the Fourier transform of the whole
        clip, phases included. Clip i depends on ``seed`` and i alone (up to rounding).

        Args:
            clip: of any length; above the cut-off it is not looked at.
            n: how many different ones.
            cutoff: in Hz; None: 0.9 of half the clip's rate, for what lies above is weakened wherever it was made.
            draws: how many log-magnitudes are averaged: of several, the mean is nearer to what was there.
            temperature: how far they scatter, as a share of the posterior's own spread. 1 gives samples of the
                posterior; lower ones are nearer to what was there; 0 gives n times the same.
            seed: of everything random.
            steps: of the solver.
            sampler: any of the core, instead of the model's own.

        Raises:
            ValueError: n or draws below 1, a negative temperature, no cut-off for a clip of the model's rate or a
                higher one, a cut-off that the clip does not reach or the model was not trained on, and a clip that is
                silent up to it.
        """
        c = self.config
        if n < 1 or draws < 1:
            raise ValueError(f"n must be at least 1, and draws, got {n} and {draws}")
        cutoff = cutoff_of(clip, c.rate, cutoff)
        if not c.cutoffs[0] <= cutoff <= c.cutoffs[1]:
            raise ValueError(
                f"cutoff must lie between {c.cutoffs[0]:g} and {c.cutoffs[1]:g} Hz, which the model was trained on, "
                f"got {cutoff:g}; super_resolve of a model of clips takes any"
            )
        noise = Noise(sample_seeds(seed, n * draws), temperature=temperature)
        whole, at = clip.mono().resample(c.rate), torch.tensor([cutoff])
        heard = Heard.of(Clip(c.lower(whole.samples, at), c.rate), c)
        found = self.standard.decode(self._drawn(heard, at, noise, n * draws, steps, sampler))
        magnitude = found.unflatten(0, (n, draws)).mean(1).exp().mT
        waves = banded(c.framing, magnitude, heard.wave, cutoff / c.rate)
        return Clips([Clip(w[None] / heard.gain, c.rate) for w in waves.cpu()])

    def sample(
        self,
        n: int = 1,
        given: Mapping[str, object] | None = None,
        *,
        seed: int = 0,
        steps: int | None = None,
    ) -> Clips:
        """:meth:`super_resolve` of the ``clip``, or its file, that is given, with the ``cutoff``, if that is.

        Raises ``ValueError`` for anything else that is given, without a clip, and as there.
        """
        given = given or {}
        clip, cutoff = given.get("clip"), given.get("cutoff")
        if not given.keys() <= set(self.attributes) or not isinstance(clip, Clip | str | Path):
            raise ValueError(
                f"given must hold clip, a sound or its file, and may hold cutoff, in Hz; it holds {list(given)}"
            )
        if not isinstance(cutoff, int | float | None):
            raise ValueError(f"cutoff must be a frequency in Hz, got {cutoff!r}")
        clip = clip if isinstance(clip, Clip) else Clip.read(clip)
        return self.super_resolve(clip, n, cutoff=cutoff, seed=seed, steps=steps)

    @torch.no_grad()
    def _drawn(
        self,
        heard: Heard,
        cutoff: Tensor,
        noise: Noise,
        n: int,
        steps: int | None,
        sampler: Sampler | None,
    ) -> Tensor:
        """Whole spectra (n, T, bins) in units of the model."""
        c, device = self.config, next(self.denoiser.parameters()).device
        low = self.standard.encode(c.levels(heard.wave[None].to(device)))
        blank = low.new_zeros(n, low.shape[1], c.upper)
        like = band_state(blank, torch.full((n,), low.shape[1], device=device))
        cond = {"low": low.expand(n, -1, -1), "known": c.known(cutoff.to(device)).expand(n, -1)}
        denoiser = self.denoiser.given(cond)
        sampler = sampler or self.sampling.sampler(steps)
        x = sampler(denoiser, denoiser.process.prior(like, noise), noise).x
        assert isinstance(x, State)
        whole = torch.cat([cond["low"][:, :, : -c.upper], x["band"]], 2)
        return torch.where(cond["known"][:, None], cond["low"], whole)

    def to(self, device: str | torch.device) -> BandExtender:
        """The same model on another device."""
        return BandExtender(
            self.config, self.denoiser.to(device), self.standard, self.sampling, self.info
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, weights rounded to float16."""
        meta = {"band": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        standard = {k: getattr(self.standard, k) for k in ("mean", "std")}
        parts = {"net": self.denoiser.state_dict()}
        return write_model(path, BAND, meta, parts, {"standard": standard})

    @classmethod
    def from_file(cls, path: str | Path) -> BandExtender:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, BAND, "a model of a missing band")
        config = file.config(BandConfig, "band")
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.part("net"))
        sampling = file.config(SamplingConfig, "sampling")
        standard = Standard(**file.part("standard"))
        return cls(config, denoiser.eval(), standard, sampling, file.meta["info"])
