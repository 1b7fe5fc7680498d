"""How images plug into the core: what is noised, what it is conditioned on, and the typed settings of a model.

A batch of images is a plain tensor (B, C, H, W) in units of the training data's standard deviation: pixels, or the
latents of an autoencoder, through one :class:`~sciffusion.codec.Codec` in both cases.

A condition is a mapping with one entry for each attribute of the data (``label``, or any other): the number of its
class, (B,), or the number of classes where the attribute is left open. A model of texts also has ``text``, tokens
(B, L, D) that a text encoder made, and ``text_mask`` (B, L), False everywhere if nothing is said; a model of references
``reference``, a vector (B, E) that says what to show, zero if nothing; a model under control ``edges`` (B, 1, H, W),
zero where none are known.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from sciffusion.attributes import Attributes
from sciffusion.codec import Codec
from sciffusion.denoiser import Preconditioned
from sciffusion.pixels import CHANNELS
from sciffusion.process import Gaussian
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.training import ModelFile

from .autoencoder import Autoencoder, AutoencoderConfig, Pixels
from .control import ControlledNet
from .networks import ImageNet, Network, UNetConfig
from .texts import TextConfig

__all__ = ["ModelConfig", "read_parts"]


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of images: their size, its network, and what it is conditioned on.

    ``channels`` and ``size`` (height, width) are those of the images that it makes; the size is found in the training
    data if it is not given. ``attributes`` names labels that images may be asked by; ``classes`` are the values of
    each, in order (empty: found in the training data). ``text`` says how it reads texts; None: it knows none.
    ``reference`` is the width of the vectors that say what to show, such as embeddings of images; 0: none. ``codec``
    describes the autoencoder in whose latent the model works; None: pixels. ``control`` is what else steers a model
    that was trained without it.
    """

    channels: int = 1
    size: tuple[int, int] = (0, 0)
    network: Network = UNetConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"
    attributes: tuple[str, ...] = ("label",)
    classes: tuple[tuple[str, ...], ...] = ()
    text: TextConfig | None = None
    reference: int = 0
    codec: AutoencoderConfig | None = None
    control: Literal["edges"] | None = None

    def __post_init__(self) -> None:
        taken = {"text", "text_mask", "reference", str(self.control)} & set(self.attributes)
        if taken:
            raise ValueError(f"attributes must not be called {sorted(taken)}: conditions are")
        if self.channels not in CHANNELS:
            raise ValueError(
                f"channels must be 1 (grey) or 3 (red, green, blue), got {self.channels}"
            )
        Attributes(self.attributes, self.classes)  # refuses what does not fit
        if self.codec is not None and self.codec.channels != self.channels:
            raise ValueError(
                f"the autoencoder is one of images with {self.codec.channels} channels, the model's have "
                f"{self.channels}"
            )

    @property
    def asked(self) -> Attributes:
        """What samples may be asked by."""
        return Attributes(self.attributes, self.classes)

    def null(self) -> dict[str, float]:
        """The condition that says nothing, one number for each entry."""
        found: dict[str, float] = dict(self.asked.sizes)
        if self.text is not None:
            found |= {"text": 0.0, "text_mask": 0.0}
        if self.reference:
            found["reference"] = 0.0
        return found if self.control is None else found | {self.control: 0.0}

    def process(self) -> Gaussian:
        """The forward process."""
        return Gaussian(SCHEDULES[self.schedule], Euclidean())

    def codec_module(self) -> Codec:
        """What takes images to what is noised, freshly initialised."""
        return Pixels(self.channels) if self.codec is None else Autoencoder(self.codec)

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; what it noises has unit variance."""
        channels = self.channels if self.codec is None else self.codec.latent
        width = 0 if self.text is None else self.text.width
        if self.text is not None and not width:
            raise ValueError("model.text has no width yet: take model.text.settled()")
        net = ImageNet(self.network, channels, self.asked.sizes, width, self.reference)
        made = Preconditioned(net, self.process(), sigma_data=1.0)
        return made if self.control is None else self.controlled(made)

    def controlled(self, denoiser: Preconditioned) -> Preconditioned:
        """The same denoiser under control of edges, which change nothing before the control is trained."""
        assert isinstance(denoiser.net, ImageNet)
        factor = 1 if self.codec is None else self.codec.factor
        return Preconditioned(
            ControlledNet(deepcopy(denoiser.net), factor), self.process(), sigma_data=1.0
        )

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """The shape (C, H, W) of what is noised for images of a size."""
        if self.codec is None:
            return (self.channels, *size)
        f = self.codec.factor
        return (self.codec.latent, -(-size[0] // f), -(-size[1] // f))


def read_parts(path: str | Path) -> tuple[ModelFile, ModelConfig, Preconditioned, Codec]:
    """A model's file, and its settings, denoiser and codec.

    Raises ``ValueError`` for a file of another kind.
    """
    file = ModelFile.read(path, "images", "a model of images")
    config = file.config(ModelConfig, "model")
    denoiser, codec = config.denoiser(), config.codec_module()
    denoiser.load_state_dict(file.part("net"))
    codec.load_state_dict(file.part("codec"))
    return file, config, denoiser.eval(), codec.eval()
