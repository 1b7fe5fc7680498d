r"""Codecs: a smaller space to generate in, and the way there and back.

A codec takes data to a latent :math:`z` and back to data. Diffusion runs in the latent after an affine map per channel,

.. math:: \tilde z = (z - m) / s,

so that whatever units the autoencoder speaks, the process sees values of zero mean and unit variance. The map is part
of the codec (fitted once by :meth:`Codec.fit`, stored with the weights), and so no sampler, schedule or objective knows
that there is one: train on ``codec.encode(x)``, sample, and ``codec.decode`` the result. Source: Rombach et al., Latent
diffusion, 2022, whose one number 0.18215 for all channels is the special case m = 0, s = 1 / 0.18215.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from sciffusion.layout import Dense
from sciffusion.noise import Noise

__all__ = ["Affine", "Codec", "divergence"]


@final
class Affine(nn.Module):
    r"""The map :math:`(z - m)/s` per channel of a field (B, C, ...), and its inverse.

    ``mean`` and ``std`` have one number a channel and are stored with the weights (as buffers, never trained).
    Raises ``ValueError`` unless both have as many numbers and every ``std`` is positive and finite.

    >>> affine = Affine([1.0, 2.0], [0.5, 4.0])
    >>> affine(torch.tensor([[2.0, 6.0]]))
    tensor([[2., 1.]])
    >>> affine.inverse(torch.tensor([[2.0, 1.0]]))
    tensor([[2., 6.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("std", torch.empty(0))
        self.set(mean, std)

    def set(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Take other numbers."""
        m, s = (torch.as_tensor(v, dtype=torch.float32).detach().flatten() for v in (mean, std))
        if len(m) != len(s) or len(m) == 0:
            raise ValueError(
                f"mean and std need one number a channel, got {len(m)} and {len(s)} numbers"
            )
        if not bool((s > 0).all() and s.isfinite().all() and m.isfinite().all()):
            raise ValueError(
                f"std must be positive and both finite, got mean={m.tolist()} and std={s.tolist()}; a channel that "
                "never changes carries nothing: leave it out of the latent"
            )
        self.mean, self.std = m.to(self.mean.device), s.to(self.mean.device)

    @property
    def channels(self) -> int:
        """How many channels it maps."""
        return len(self.mean)

    def _numbers(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if z.ndim < 2 or z.shape[1] != self.channels:
            raise ValueError(
                f"the latent must have shape (B, {self.channels}, ...), got {tuple(z.shape)}"
            )
        shape = (1, -1, *[1] * (z.ndim - 2))
        return self.mean.to(z).reshape(shape), self.std.to(z).reshape(shape)

    def forward(self, z: Tensor) -> Tensor:
        """From the autoencoder's units to those of the process."""
        mean, std = self._numbers(z)
        return (z - mean) / std

    def inverse(self, z: Tensor) -> Tensor:
        """From the units of the process to those of the autoencoder."""
        mean, std = self._numbers(z)
        return z * std + mean


class Codec(nn.Module, ABC):
    """An autoencoder with the affine map of its latent. Data and latents have shape (B, channels, ...).

    A subclass says how data are encoded (:meth:`posterior`) and how the autoencoder's own latent is decoded
    (:meth:`reconstruct`); ``channels`` is the number of latent channels. The affine map begins as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = Affine([0.0] * channels, [1.0] * channels)

    @abstractmethod
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latent in the autoencoder's units; None if it is not random."""

    @abstractmethod
    def reconstruct(self, z: Tensor) -> Tensor:
        """Data from a latent in the autoencoder's units."""

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """The latent of ``x``, affine map included: a draw if there is ``noise`` to draw from, else the mean."""
        mean, std = self.posterior(x)
        if noise is not None and std is not None:
            mean = mean + std * noise.normal(mean, Dense(len(mean)))
        return cast(Tensor, self.affine(mean))

    def decode(self, z: Tensor) -> Tensor:
        """Data from what :meth:`encode` returns or a sampler ends on."""
        return self.reconstruct(self.affine.inverse(z))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the affine map so that encoded ``batches`` have zero mean and unit variance in every channel.

        The variance is that of draws: of the means, plus what the posterior adds. One pass, in float64; a latent that
        is padded or masked should be fitted on batches without padding. Raises ``ValueError`` if there is no batch or
        a channel that never changes.
        """
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        centre: Tensor | None = None  # near the mean, so that the squares do not cancel
        for x in batches:
            mean, std = self.posterior(x)
            z = mean.double().transpose(0, 1).flatten(1).cpu()
            if centre is None:
                centre = z.mean(1, keepdim=True)
                total = square = torch.zeros(len(z), dtype=torch.float64)
            z = z - centre
            count += z.shape[1]
            total, square = total + z.sum(1), square + (z**2).sum(1)
            if std is not None:
                square = square + (std.double() ** 2).transpose(0, 1).flatten(1).sum(1).cpu()
        if centre is None:
            raise ValueError("batches is empty; give at least one batch of data")
        shift = total / count
        self.affine.set(shift + centre[:, 0], (square / count - shift**2).clamp(min=0).sqrt())


def divergence(mean: Tensor, std: Tensor) -> Tensor:
    """The divergence of a Gaussian latent (B, ...) from the normal law, in nats for each sample, (B,)."""
    each = 0.5 * (mean**2 + std**2 - 1) - std.log()
    return each.flatten(1).sum(1)
