r"""Operators on regular grids: every n-th point, block means, convolutions, Fourier coefficients.

``dims`` are axes of the field counted from its end, ``(-1,)`` for a signal, ``(-2, -1)`` for an image. They need a
dense field and raise ``ValueError`` for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sciffusion.inverse.operators import FieldOperator, need_dense
from sciffusion.layout import Dense, Layout

__all__ = ["STFT", "Blur", "CoarseGrain", "Fourier", "Subsample"]


def _check_dims(dims: tuple[int, ...]) -> None:
    if not dims or any(d >= 0 for d in dims):
        raise ValueError(f"dims must be negative axes, counted from the end; got {dims}")


class _GridOperator(FieldOperator):
    """An operator whose observations are again one slice per sample."""

    def observed(self, y: Tensor, layout: Layout) -> Layout:
        return Dense(y.shape[0])


@final
@dataclass(frozen=True)
class Subsample(_GridOperator):
    """Every ``stride``-th point along ``dims``, from ``offset`` on. Raises ``ValueError`` for a stride below 1."""

    stride: int
    dims: tuple[int, ...] = (-1,)
    offset: int = 0
    field: str | None = None

    def __post_init__(self) -> None:
        _check_dims(self.dims)
        if self.stride < 1 or not 0 <= self.offset < self.stride:
            raise ValueError(
                f"need stride >= 1 and 0 <= offset < stride, got {self.stride} and {self.offset}"
            )

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        need_dense(layout, "Subsample")
        for d in self.dims:
            x = x.narrow(d, self.offset, x.shape[d] - self.offset)
            x = x.movedim(d, -1)[..., :: self.stride].movedim(-1, d)
        return x


@final
@dataclass(frozen=True)
class CoarseGrain(_GridOperator):
    """Means over blocks of ``factor`` points along each of ``dims``: a coarser model's view, satellite footprints.

    Raises ``ValueError`` where a block does not fill an axis evenly.
    """

    factor: int
    dims: tuple[int, ...] = (-2, -1)
    field: str | None = None

    def __post_init__(self) -> None:
        _check_dims(self.dims)
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1 point, got {self.factor}")

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        need_dense(layout, "CoarseGrain")
        for d in self.dims:
            if x.shape[d] % self.factor:
                raise ValueError(
                    f"factor {self.factor} does not divide axis {d} of length {x.shape[d]}; crop or pad the field"
                )
            x = x.unflatten(d, (-1, self.factor)).mean(d)
        return x


@final
@dataclass(frozen=True, eq=False)
class Blur(_GridOperator):
    r"""Convolution with a kernel along ``dims``: a point-spread function, a filter's impulse response.

    :math:`y_i = \sum_j k_j\,x_{i-j+c}`, c the middle of the kernel. Beyond its ends the field is repeated
    (``"periodic"``) or zero (``"zero"``). Computed by FFT, so long kernels cost no more than short ones.
    Raises ``ValueError`` unless the kernel has one dimension per axis in ``dims`` and none longer than the field's.
    """

    kernel: Tensor
    dims: tuple[int, ...] = (-2, -1)
    boundary: Literal["periodic", "zero"] = "periodic"
    field: str | None = None

    def __post_init__(self) -> None:
        _check_dims(self.dims)
        if self.kernel.ndim != len(self.dims) or self.boundary not in ("periodic", "zero"):
            raise ValueError(
                f"need a kernel with {len(self.dims)} dimensions and a boundary 'periodic' or 'zero', got shape "
                f"{tuple(self.kernel.shape)} and {self.boundary!r}"
            )

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        need_dense(layout, "Blur")
        sizes = [x.shape[d] for d in self.dims]
        taps = self.kernel.shape
        if any(k > n for k, n in zip(taps, sizes, strict=True)):
            raise ValueError(
                f"kernel of shape {tuple(taps)} is longer than the field, {tuple(sizes)}"
            )
        middle = [k // 2 for k in taps]
        zero = self.boundary == "zero"
        lengths = [n + k - 1 for n, k in zip(sizes, taps, strict=True)] if zero else sizes
        spectrum = torch.fft.fftn(self.kernel.to(x), s=lengths)
        ndim = -min(self.dims)
        shape = [1] * ndim
        for length, d in zip(lengths, self.dims, strict=True):
            shape[d] = length
        # the kernel's axes stand in the order of ``dims``, the field's in their own
        order = sorted(range(len(self.dims)), key=lambda i: self.dims[i])
        spectrum = spectrum.permute(order).reshape(shape)
        y = torch.fft.ifftn(
            torch.fft.fftn(x, s=lengths, dim=self.dims) * spectrum, dim=self.dims
        ).real
        if not zero:
            return y.roll([-m for m in middle], self.dims)
        for n, m, d in zip(sizes, middle, self.dims, strict=True):
            y = y.narrow(d, m, n)
        return y


@final
@dataclass(frozen=True, eq=False)
class Fourier(_GridOperator):
    """Chosen Fourier coefficients as real numbers: undersampled k-space, the visibilities of an interferometer.

    ``keep`` is a boolean mask over the coefficients of the orthonormal real transform along ``dims`` (its last axis
    half as long, plus one). Observations are (..., kept, 2): real and imaginary parts.
    Raises ``ValueError`` for a mask of another shape.
    """

    keep: Tensor
    dims: tuple[int, ...] = (-2, -1)
    field: str | None = None

    def __post_init__(self) -> None:
        _check_dims(self.dims)
        if self.keep.dtype != torch.bool or self.keep.ndim != len(self.dims):
            raise ValueError(
                f"keep must be a boolean mask with {len(self.dims)} dimensions, got {self.keep.dtype} "
                f"{tuple(self.keep.shape)}"
            )

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        need_dense(layout, "Fourier")
        spectrum = torch.fft.rfftn(x, dim=self.dims, norm="ortho")
        spectrum = spectrum.movedim(self.dims, tuple(range(-len(self.dims), 0)))
        shape = tuple(spectrum.shape[-len(self.dims) :])
        if shape != tuple(self.keep.shape):
            raise ValueError(
                f"keep has shape {tuple(self.keep.shape)}, the field's real transform {shape}"
            )
        return torch.view_as_real(spectrum[..., self.keep.to(x.device)])


@final
@dataclass(frozen=True)
class STFT(_GridOperator):
    """Short-time Fourier coefficients of a signal along the last axis, as real numbers, with a Hann window.

    ``bins`` chooses frequencies (all, if None). Observations are (..., bins, frames, 2). The signal is not padded.
    """

    window: int
    hop: int
    bins: tuple[int, ...] | None = None
    field: str | None = None

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        need_dense(layout, "STFT")
        if not 0 < self.hop <= self.window <= x.shape[-1]:
            raise ValueError(
                f"need 0 < hop <= window <= length, got {self.hop}, {self.window} and {x.shape[-1]}"
            )
        shape = torch.hann_window(self.window, dtype=x.dtype, device=x.device)
        frames = x.unfold(-1, self.window, self.hop) * shape
        spectrum = torch.fft.rfft(frames, norm="ortho").transpose(-1, -2)
        if self.bins is not None:
            spectrum = spectrum[..., list(self.bins), :]
        return torch.view_as_real(spectrum)
