"""A model under control of edges: a trained network that stays as it is, and a trainable copy of its first half.

(ControlNet, Zhang et al. 2023; the copy is :mod:`sciffusion.networks.control`'s.) The hint is a picture (N, 1, H, W) of
edge strengths from 0 to 1; all zero means that no edges are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks import DiT, DiTControl, UNet, UNetControl

from .networks import ImageNet, fold

__all__ = ["ControlledNet", "edges"]


def edges(pixels: Tensor) -> Tensor:
    """Sobel's gradient of the mean of the channels of pixels (N, C, H, W), 0 to 1: (N, 1, H, W), cut off at 1."""
    kernel = pixels.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(grey, k[None, None]) for k in (kernel, kernel.T))
    return (2 * (across**2 + down**2).sqrt()).clamp(0, 1)


@final
class ControlledNet(nn.Module):
    """A network of images that is frozen, and its control, called like the network.

    The entry ``edges`` of the condition is the hint; its grid may be finer than that of what is noised by a whole
    factor (in the latent of an autoencoder): neighbouring points then become channels.

    Args:
        base: the network; its parameters stop learning.
        factor: points of the hint for a point of what is noised, on each axis.
    """

    def __init__(self, base: ImageNet, factor: int = 1) -> None:
        super().__init__()
        self.base, self.factor = base.requires_grad_(False), factor
        channels = (factor * base.fold) ** 2
        body = base.body
        self.control: UNetControl | DiTControl
        if isinstance(body, UNet):
            self.control = UNetControl(body, channels)
        else:
            if not isinstance(body, DiT):
                raise ValueError(
                    "only a U-Net (kind unet) or a transformer of one stream (kind patches) can be controlled"
                )
            self.control = DiTControl(body, channels)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        cond: Mapping[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`ImageNet.forward`, with the hint ``edges`` (B, 1, H, W) in the condition."""
        hint = (cond or {}).get("edges")
        if hint is None:
            raise ValueError("cond has no entry for 'edges', zeros where none are known")
        size = tuple(-(-n // self.factor) for n in hint.shape[-2:])
        if size != tuple(x.shape[-2:]):
            wanted = " x ".join(str(self.factor * n) for n in x.shape[-2:])
            raise ValueError(
                f"edges must be {wanted} pixels, as the images are, got {' x '.join(map(str, hint.shape[-2:]))}"
            )
        seen, embedding = self.base.prepare(x, log_snr, cond)
        hint = fold(hint.to(seen), self.factor * self.base.fold)
        hint = hint.expand(len(seen), *hint.shape[1:])
        text = self.base.context(cond, embedding)
        more = self.control(seen, hint, embedding, *text)
        return self.base.finish(self.base.body(seen, embedding, *text, control=more), x)
