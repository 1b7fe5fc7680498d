"""How images plug into the core: what is noised, what it is conditioned on, and the typed settings of a model.

A batch of images is a plain tensor (B, C, H, W) in units of the training data's standard deviation: pixels, or the
latents of an autoencoder, through one :class:`~sciffusion.codec.Codec` in both cases.

A condition is a mapping with one entry for each attribute of the data (``label``, or any other): the number of its
class, (B,), or the number of classes where the attribute is left open. A model under control also has ``edges``
(B, 1, H, W), zero where none are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from torch import Tensor

from sciffusion.attributes import Attributes
from sciffusion.codec import Codec
from sciffusion.config import parse
from sciffusion.denoiser import Preconditioned
from sciffusion.process import Gaussian
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.training import load_weights

from .autoencoder import Autoencoder, AutoencoderConfig, Pixels
from .container import CHANNELS
from .control import ControlledNet
from .networks import ImageNet, PatchesConfig, UNetConfig

__all__ = ["Condition", "ModelConfig", "read_parts"]

Condition = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of images: their size, its network, and what it is conditioned on.

    ``channels`` and ``size`` (height, width) are those of the images that it makes; the size is found in the training
    data if it is not given. ``attributes`` names labels that images may be asked by; ``classes`` are the values of
    each, in order (empty: found in the training data). ``codec`` describes the autoencoder in whose latent the model
    works; None: pixels. ``control`` is what else steers a model that was trained without it.
    """

    channels: int = 1
    size: tuple[int, int] = (0, 0)
    network: UNetConfig | PatchesConfig = UNetConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"
    attributes: tuple[str, ...] = ("label",)
    classes: tuple[tuple[str, ...], ...] = ()
    codec: AutoencoderConfig | None = None
    control: Literal["edges"] | None = None

    def __post_init__(self) -> None:
        if self.control in self.attributes:
            raise ValueError(f"attributes must not be called {self.control}: the control is")
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

    def null(self) -> dict[str, int]:
        """The condition that says nothing, one number for each entry."""
        sizes = self.asked.sizes
        return sizes if self.control is None else sizes | {self.control: 0}

    def process(self) -> Gaussian:
        """The forward process."""
        return Gaussian(SCHEDULES[self.schedule], Euclidean())

    def codec_module(self) -> Codec:
        """What takes images to what is noised, freshly initialised."""
        return Pixels(self.channels) if self.codec is None else Autoencoder(self.codec)

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; what it noises has unit variance."""
        channels = self.channels if self.codec is None else self.codec.latent
        net = ImageNet(self.network, channels, self.asked.sizes)
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


def read_parts(path: str | Path) -> tuple[ModelConfig, Preconditioned, Codec, dict[str, Any]]:
    """Settings, denoiser, codec and all that is said beside them of a model's file.

    Raises ``ValueError`` for a file of another kind.
    """
    tensors, meta = load_weights(path)
    if meta.get("kind") != "images":
        raise ValueError(
            f"{path} holds {meta.get('kind', 'something else')!r}, not a model of images"
        )
    fields: dict[str, Any] = dict(meta)
    config = parse(ModelConfig, fields["model"], source=str(path))
    denoiser, codec = config.denoiser(), config.codec_module()
    denoiser.load_state_dict(_under("net.", tensors))
    codec.load_state_dict(_under("codec.", tensors))
    return config, denoiser.eval(), codec.eval(), fields


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
