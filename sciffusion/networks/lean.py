"""Cheap functions that forget what is inside them and compute it anew when gradients are taken.

Norms, activations and rotations cost a few per cent of a network's time, and most of the memory of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def two_layers(wide: nn.Linear, narrow: nn.Linear, x: Tensor) -> Tensor:
    """``narrow(gelu(wide(x)))``, of which one wide tensor is kept for the gradient, and never held twice without.

    Memory that was not touched before costs more than arithmetic: its gradient passes through a single wide tensor.
    """
    if not _forgets():
        h = wide(x)
        return narrow(F.gelu(h) if transformed() else torch.ops.aten.gelu_(h))
    if not (_bare(wide) and _bare(narrow)) or torch.is_autocast_enabled(x.device.type):
        return remade(narrow, F.gelu, wide(x))
    return _TwoLayers.apply(x, wide.weight, wide.bias, narrow.weight, narrow.bias)


def _bare(layer: nn.Linear) -> bool:
    """Whether calling the layer does what its weights say, and nothing beside."""
    forward, backward = (
        (layer._forward_hooks, layer._forward_pre_hooks),
        (layer._backward_hooks, layer._backward_pre_hooks),
    )
    watched = any((*forward, *backward))
    return type(layer).forward is nn.Linear.forward and layer.bias is not None and not watched


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
        return _pushed(ctx.fn, ctx.saved_tensors, tangents[1:])


def _pushed(fn: Callable[..., Tensor], inputs: Sequence[Tensor], tangents: Sequence[Any]) -> Tensor:
    """The derivative of ``fn`` along tangents, of which None stands for zeros."""
    moves = [torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True)]
    # PyTorch cannot nest forward mode; what is linear in the gradient is pulled back a second time instead.
    pulled = torch.func.vjp(fn, *inputs)
    found: Tensor = torch.func.vjp(pulled[1], torch.zeros_like(pulled[0]))[1](tuple(moves))[0]
    return found


def _composed(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


class _TwoLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        h = F.linear(x, w1, b1)
        ctx.save_for_backward(x, w1, b1, w2, b2, h)
        ctx.save_for_forward(x, w1, b1, w2, b2)
        return F.linear(F.gelu(h), w2, b2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        *inputs, h = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the derivative of this
            return torch.func.vjp(_composed, *inputs)[1](grads[0])
        x, w1, _, w2, _ = inputs
        g, flat, h = grads[0].reshape(-1, len(w2)), x.reshape(-1, w1.shape[1]), h.view(-1, len(w1))
        needed = ctx.needs_input_grad
        y = F.gelu(h)
        dw2, db2 = g.mT @ y if needed[3] else None, g.sum(0) if needed[4] else None
        torch.mm(g, w2, out=y)
        torch.ops.aten.gelu_backward.grad_input(y, h, grad_input=y)
        dw1, db1 = y.mT @ flat if needed[1] else None, y.sum(0) if needed[2] else None
        return (y @ w1).view_as(x) if needed[0] else None, dw1, db1, dw2, db2

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _pushed(_composed, ctx.saved_tensors[:5], tangents)
