"""What spaces of fields on a grid share: the grid lies in a field's last dimensions, channels and points before it."""

from __future__ import annotations

from torch import Tensor

from sciffusion.layout import Layout, Masked

__all__ = ["per_sample", "require_grid"]


def require_grid(
    x: Tensor, layout: Layout, grid: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    """Raise ``ValueError`` unless ``x`` is (..., *channels, *grid), with none of these among the layout's own axes."""
    shape = (*channels, *grid)
    own = 2 if isinstance(layout, Masked) else 1
    if x.ndim < own + len(shape) or tuple(x.shape[x.ndim - len(shape) :]) != shape:
        raise ValueError(
            f"the field must end in the dimensions {shape}, after {own} of its batch, got {tuple(x.shape)}"
        )


def per_sample(number: Tensor, x: Tensor, layout: Layout, dims: int) -> Tensor:
    """A number of every grid, () or (C,), summed over the grids of each sample, (B,)."""
    cells = x.shape[x.ndim - dims :].numel()
    return layout.count(x) // (cells * number.numel()) * number.sum().to(x.device)
