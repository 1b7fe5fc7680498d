"""How films plug into the core: what is noised, what it is conditioned on, and the typed settings of a model.

A batch of films is a plain tensor (B, T, C, H, W) in units of the training data's standard deviation: pixels, or the
latents of an autoencoder, through one :class:`.autoencoder.FilmCodec` in both cases. Frames are the points of the
layout, so every one may have a time of its own, (B, T): a frame that is known is shown at time 0
(:class:`~sciffusion.inverse.Known`), and the film that goes on from a picture, the one between given frames, and the
one from nothing at all are one model.

A condition is a mapping with one entry for each attribute of the data (``digit``, or any other label): the number of
its class, (B,), or the number of classes where the attribute is left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from sciffusion.attributes import Attributes
from sciffusion.denoiser import Preconditioned
from sciffusion.pixels import CHANNELS
from sciffusion.process import Gaussian
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean

from .autoencoder import CausalAutoencoder, CausalConfig, FilmCodec, Frames
from .networks import FilmNet, TransformerConfig, UNetConfig

__all__ = ["ModelConfig"]


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of films: their channels, its network, and what it is conditioned on.

    ``shape`` is that of the films that it makes unless told otherwise: frames, height, width. ``attributes`` names
    labels that films may be asked by; ``classes`` are the values of each, in order (empty: found in the training data).
    ``codec`` describes the autoencoder in whose latent the model works; None: pixels. ``target`` is what the network
    puts out: the clean film (x0), which a network that is narrower than its patches can hold as it cannot hold noise
    (Li & He 2025, arXiv 2511.13720), or the preconditioned v.
    """

    channels: int = 1
    shape: tuple[int, int, int] = (16, 32, 32)
    network: TransformerConfig | UNetConfig = TransformerConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"
    target: Literal["x0", "v"] = "x0"
    attributes: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    codec: CausalConfig | None = None

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise ValueError(
                f"channels must be 1 (grey) or 3 (red, green, blue), got {self.channels}"
            )
        if min(self.shape) < 1:
            raise ValueError(f"shape must be frames, height, width, all positive, got {self.shape}")
        Attributes(self.attributes, self.classes)  # refuses what does not fit
        if self.codec is not None and self.codec.channels != self.channels:
            raise ValueError(
                f"the autoencoder is one of films with {self.codec.channels} channels, the model's have {self.channels}"
            )

    @property
    def asked(self) -> Attributes:
        """What samples may be asked by."""
        return Attributes(self.attributes, self.classes)

    def process(self) -> Gaussian:
        """The forward process."""
        return Gaussian(SCHEDULES[self.schedule], Euclidean())

    def codec_module(self) -> FilmCodec:
        """What takes films to what is noised, freshly initialised."""
        return Frames(self.channels) if self.codec is None else CausalAutoencoder(self.codec)

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; what it noises has unit variance."""
        channels = self.channels if self.codec is None else self.codec.latent
        net = FilmNet(self.network, channels, self.asked.sizes)
        return Preconditioned(net, self.process(), target=self.target, sigma_data=1.0)
