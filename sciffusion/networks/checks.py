"""What every network asks of its arguments."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["check_call"]


class _Net(Protocol):
    in_channels: int
    dims: int
    embedding: int
    context: int


def check_call(net: _Net, x: Tensor, embedding: Tensor | None, context: Tensor | None) -> None:
    """Raise ``ValueError`` unless the arguments of a call fit how the network was built."""
    if x.ndim != net.dims + 2 or x.shape[1] != net.in_channels:
        shape = ", ".join(["B", str(net.in_channels), *("*" * net.dims)])
        raise ValueError(f"x must be ({shape}), got {tuple(x.shape)}")
    for name, given, width, axes in (
        ("embedding", embedding, net.embedding, 2),
        ("context", context, net.context, 3),
    ):
        if given is None and width:
            raise ValueError(f"the network was built with {name}={width}: give it {name}")
        if given is None:
            continue
        if not width:
            raise ValueError(f"the network was built without {name}: {name} must be None")
        if given.ndim != axes or given.shape[0] != x.shape[0] or given.shape[-1] != width:
            wanted = f"({x.shape[0]}, {'*, ' * (axes - 2)}{width})"
            raise ValueError(f"{name} must be {wanted}, got {tuple(given.shape)}")
