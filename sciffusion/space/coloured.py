r"""Stationary Gaussian noise on a periodic grid: :math:`e = F^{-1}\sqrt{P(k)}\,F\varepsilon`.

F is the discrete Fourier transform and P the power of each mode, 1 for white noise; the variance of an entry is the
mean of P over the modes. A covariance that depends on the distance alone is diagonal in F, so all that the library
asks of it costs a pair of FFTs.
Source: Dietrich & Newsam, SIAM J. Sci. Comput. 18, 1997 (the sampling); Lim et al., Score-based Diffusion Models in
Function Space, 2023, and Kerrigan, Ley & Smyth, Diffusion Generative Models in Infinite Dimensions, 2023 (why: white
noise has no limit on finer grids).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import GaussianSpace, check_scale
from sciffusion.space.grids import per_sample, require_grid

__all__ = ["Coloured"]


@dataclass(frozen=True)
class _Modes:
    """The spectrum on one grid: ``half`` the power of the modes that rfftn keeps, the rest per channel, () or (C,)."""

    half: Tensor
    count: Tensor
    log_power: Tensor
    scale: Tensor
    complete: bool


def _wavenumbers(grid: tuple[int, ...]) -> Tensor:
    """\\|k\\| of every mode of a grid, cycles per cell, float64."""
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


@final
@dataclass(frozen=True, eq=False)
class Coloured(GaussianSpace):
    """Fields (..., *grid) or (..., C, *grid) on a periodic grid of ``dims`` dimensions, 1 to 3, with stationary noise.

    Args:
        spectrum: the power of the modes: a function of the wavenumber \\|k\\| (cycles per cell, so up to 0.5 along an
            axis; float64), or a tensor (*grid) or (C, *grid) in the order of ``torch.fft.fftfreq``. A function may
            return (C, *grid) as well. Modes of zero power do not belong to the space: a power law, say, must give 0 for
            k = 0, and its fields have no mean.
        dims: how many of the last dimensions are the grid.
        scale: multiplies the spectrum such that every entry has this standard deviation; None leaves it as it is.

    Raises ``ValueError`` for a spectrum that is negative, not finite, zero, or not the same for k and -k; the last two
    and a function's values are looked at when the first field is.
    """

    spectrum: Callable[[Tensor], Tensor] | Tensor
    dims: int = 2
    scale: float | None = None
    _known: dict[object, _Modes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, got {self.dims}")
        if self.scale is not None:
            check_scale(self.scale)

    @staticmethod
    def fit(data: Tensor, dims: int = 2) -> Coloured:
        """The space with the isotropic spectrum of ``data``, (B, *grid) or (B, C, *grid), about its mean.

        The power is averaged over samples and over shells of wavenumbers as wide as the grid's lowest one. Shells
        without power are left out of the space. Raises ``ValueError`` for fewer than two samples.
        """
        if data.ndim not in (dims + 1, dims + 2) or len(data) < 2:
            raise ValueError(
                f"data must be (B, *grid) or (B, C, *grid) with B > 1, got {tuple(data.shape)}"
            )
        axes = tuple(range(-dims, 0))
        mean = data.double().mean((0, *axes), keepdim=True)
        grid = tuple(data.shape[data.ndim - dims :])
        modes = torch.fft.fftn(data.double() - mean, dim=axes)
        power = (modes.abs().square() / modes[0].numel() * len(mean.flatten())).mean(0)
        k = _wavenumbers(grid)
        shell = (k * max(grid)).round().long().flatten().to(data.device)
        size = torch.bincount(shell)
        flat = power.flatten(-dims)
        total = flat.new_zeros(*flat.shape[:-1], len(size)).index_add(-1, shell, flat)
        level = total / size
        noise = (100 * torch.finfo(data.dtype).eps) ** 2 * level.amax(-1, keepdim=True)
        level = torch.where(level > noise, level, 0.0)  # what is left there is rounding
        return Coloured(level[..., shell].unflatten(-1, grid), dims)

    def _modes(self, x: Tensor, layout: Layout) -> _Modes:
        grid = tuple(x.shape[x.ndim - self.dims :])
        key = grid, x.device
        if key not in self._known:
            self._known[key] = self._look_at(grid, x.device)
        modes = self._known[key]
        require_grid(x, layout, grid, tuple(modes.count.shape))
        return modes

    def _look_at(self, grid: tuple[int, ...], device: torch.device) -> _Modes:
        power = (
            self.spectrum
            if isinstance(self.spectrum, Tensor)
            else self.spectrum(_wavenumbers(grid))
        ).double()
        d = self.dims
        if power.ndim not in (d, d + 1) or tuple(power.shape[power.ndim - d :]) != grid:
            raise ValueError(
                f"spectrum must be {grid} or (channels, *{grid}), got {tuple(power.shape)}"
            )
        axes = tuple(range(-d, 0))
        if not bool((power.isfinite() & (power >= 0)).all()) or not bool(power.any()):
            raise ValueError(
                "spectrum must be finite, not negative and not all zero; give 0 to a mode that shall be absent, such "
                "as k = 0 of a power law"
            )
        mirrored = power.flip(axes).roll((1,) * d, axes)
        if not torch.allclose(power, mirrored, rtol=1e-6, atol=0):
            raise ValueError(
                "spectrum must be the same for k and -k: make it a function of |k|, or symmetrise it"
            )
        mean = power.mean(axes, keepdim=True)
        if self.scale is not None:
            power, mean = power * self.scale**2 / mean, torch.full_like(mean, self.scale**2)
        inside = power > 0
        return _Modes(
            half=power[..., : grid[-1] // 2 + 1].to(device),
            count=inside.sum(axes),
            log_power=torch.where(inside, power, 1.0).log().sum(axes),
            scale=mean.sqrt().to(device),
            complete=bool(inside.all()),
        )

    def _filter(self, x: Tensor, layout: Layout, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` with every mode multiplied by the gain of its power; those outside the space by zero."""
        power = self._modes(x, layout).half
        by = torch.where(power > 0, gain(power), 0.0)
        axes, wide = tuple(range(-self.dims, 0)), torch.promote_types(x.dtype, torch.float32)
        waves = torch.fft.rfftn(x.to(wide), dim=axes) * by.to(wide)
        return torch.fft.irfftn(waves, s=x.shape[x.ndim - self.dims :], dim=axes).to(x.dtype)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return layout.clean(self._filter(noise.normal(like, layout), layout, torch.sqrt))

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        if self._modes(x, layout).complete:
            return layout.clean(x)
        return layout.clean(self._filter(x, layout, torch.ones_like))

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        return layout.clean(self._filter(p, layout, lambda power: power))

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return self._filter(e, layout, torch.reciprocal)

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        scale = self._modes(x, layout).scale
        return float(scale) if scale.ndim == self.dims else scale

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return per_sample(self._modes(x, layout).count, x, layout, self.dims)

    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        log_power = 0.5 * self._modes(x, layout).log_power
        return per_sample(log_power, x, layout, self.dims).to(x.dtype)
