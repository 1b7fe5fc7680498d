"""Cheap functions that forget what is inside them and compute it anew when gradients are taken.

Norms, activations and rotations cost a few per cent of a network's time, and most of the memory of its training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["lean", "remade", "transformed", "two_layers"]


def lean(fn: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``fn(*inputs)``, of which only the inputs are kept for the gradient.

    ``fn`` must be deterministic and use no other tensors. All derivatives work: second ones, forward mode,
    ``torch.func``; the last one, which nests transformations as it likes, keeps everything. A compiler decides by
    itself what to keep.
    """
    return _Lean.apply(fn, *inputs) if _forgets() else fn(*inputs)


def remade(layer: Callable[[Tensor], Tensor], fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layer(fn(x))``, where what the layer keeps of its input is made anew from x, which ``fn`` keeps anyway.

    The layer may be any; all derivatives work, as with :func:`lean`.
    """
    y = fn(x)
    if not _forgets():
        return layer(y)
    source, start, size, dtype = x.detach(), y.data_ptr(), y.numel(), y.dtype

    def pack(kept: Tensor) -> Tensor | torch.Size:
        same = kept.data_ptr() == start and kept.numel() == size and kept.dtype == dtype
        return kept.shape if same and kept.is_contiguous() else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return fn(source).view(kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return layer(y)


def two_layers(
    wide: Callable[[Tensor], Tensor], narrow: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """``narrow(gelu(wide(x)))``, of which one wide tensor is kept for the gradient, and never held twice without."""
    h = wide(x)
    if torch.is_grad_enabled() or transformed():
        return remade(narrow, F.gelu, h)
    return narrow(torch.ops.aten.gelu_(h))


def transformed() -> bool:
    """Whether something compiles or transforms the function that runs."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _forgets() -> bool:
    """Whether plain gradients are being recorded."""
    return torch.is_grad_enabled() and not transformed()


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(fn: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return fn(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.fn, device = inputs[0], output.device.type
        ctx.cast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inputs = ctx.saved_tensors
        with torch.autocast(*ctx.cast):
            if torch.is_grad_enabled():  # somebody wants the derivative of this
                return (None, *torch.func.vjp(ctx.fn, *inputs)[1](grads[0]))
            needed = ctx.needs_input_grad[1:]
            leaves = [x.detach().requires_grad_(n) for x, n in zip(inputs, needed, strict=True)]
            with torch.enable_grad():
                y = ctx.fn(*leaves)
            found = iter(torch.autograd.grad(y, [x for x in leaves if x.requires_grad], grads[0]))
            return (None, *(next(found) if n else None for n in needed))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        moves = [
            torch.zeros_like(x) if t is None else t
            for x, t in zip(ctx.saved_tensors, tangents[1:], strict=True)
        ]
        # PyTorch cannot nest forward mode; what is linear in the gradient is pulled back a second time instead.
        pulled = torch.func.vjp(ctx.fn, *ctx.saved_tensors)
        return torch.func.vjp(pulled[1], torch.zeros_like(pulled[0]))[1](tuple(moves))[0]
