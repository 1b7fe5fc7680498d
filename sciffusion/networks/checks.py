"""What every network asks of its arguments."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["check_call", "check_tokens"]


class _Net(Protocol):
    in_channels: int
    embedding: int
    context: int


def check_call(
    net: _Net,
    x: Tensor,
    embedding: Tensor | None,
    context: Tensor | None,
    *,
    axes: int,
    frames: int | None = None,
) -> None:
    """Raise ``ValueError`` unless the arguments of a call fit how the network was built.

    ``axes`` are those of the grid; with ``frames`` the embedding may also be one for each of so many frames.
    """
    if x.ndim != axes + 2 or x.shape[1] != net.in_channels:
        shape = ", ".join(["B", str(net.in_channels), *("*" * axes)])
        raise ValueError(f"x must be ({shape}), got {tuple(x.shape)}")
    if embedding is not None and embedding.ndim == 3 and frames is not None and net.embedding:
        wanted = (x.shape[0], frames, net.embedding)
        if embedding.shape != wanted:
            raise ValueError(
                f"embedding must be {(x.shape[0], net.embedding)}, or one for each frame, {wanted}, got "
                f"{tuple(embedding.shape)}"
            )
    else:
        check_tokens("embedding", embedding, net.embedding, x.shape[0], axes=2)
    check_tokens("context", context, net.context, x.shape[0])


def check_tokens(name: str, given: Tensor | None, width: int, batch: int, *, axes: int = 3) -> None:
    """Raise ``ValueError`` unless there are tokens (or a vector, of two axes) exactly if the network was built so."""
    if given is None:
        if width:
            raise ValueError(f"the network was built with {name}={width}: give it {name}")
        return
    if not width:
        raise ValueError(f"the network was built without {name}: {name} must be None")
    if given.ndim != axes or given.shape[0] != batch or given.shape[-1] != width:
        wanted = f"({batch}, {'*, ' * (axes - 2)}{width})"
        raise ValueError(f"{name} must be {wanted}, got {tuple(given.shape)}")
