"""Guidance by the model without its attention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Guidance, Scale
from sciffusion.state import Value

__all__ = ["Perturbed"]

_attention = torch.nn.functional.scaled_dot_product_attention


@final
class Perturbed(Guidance):
    r"""Perturbed-attention guidance: away from the same network with self-attention replaced by the identity.

    In the chosen layers every token attends to itself alone, so structure is lost and only appearance stays. Needs no
    condition and no training. Source: Ahn et al., Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance,
    2024 (whose scale is w - 1).

    Any network will do that calls ``torch.nn.functional.scaled_dot_product_attention``; attention among as many keys as
    queries counts as self-attention. Not seen are ``nn.MultiheadAttention``, attention written out, and what
    ``torch.compile`` made.

    Args:
        denoiser: the model.
        scale: w; 1 is the model alone, in one call.
        layers: which self-attentions, numbered from 0 in the order of their calls; None means all.

    Raises:
        ValueError: when called: the network met no such attention, or fewer than ``layers`` names.
    """

    def __init__(
        self, denoiser: Denoiser, scale: Scale, layers: Collection[int] | None = None
    ) -> None:
        super().__init__()
        self.denoiser, self.scale, self.process = denoiser, scale, denoiser.process
        self.layers = None if layers is None else frozenset(layers)

    def stronger(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.denoiser(x_t, t, cond, previous)

    def weaker(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        with _Identity(self.layers) as mode:
            out = self.denoiser(x_t, t, cond, previous)
        if mode.met == 0:
            raise ValueError(
                "denoiser has no self-attention to perturb: none of its layers called "
                "torch.nn.functional.scaled_dot_product_attention"
            )
        if self.layers and max(self.layers) >= mode.met:
            raise ValueError(
                f"layers names {max(self.layers)}, but the network has the self-attentions 0 to {mode.met - 1}"
            )
        return out


class _Identity(TorchFunctionMode):
    """Replaces the self-attentions of the given numbers, in the order of their calls, by their values."""

    def __init__(self, layers: frozenset[int] | None) -> None:
        super().__init__()
        self.layers, self.met = layers, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not _attention:
            return func(*args, **(kwargs or {}))
        query, key, value = _operands(*args, **(kwargs or {}))
        if query.shape[-2] != key.shape[-2]:
            return func(*args, **(kwargs or {}))
        self.met += 1
        if self.layers is not None and self.met - 1 not in self.layers:
            return func(*args, **(kwargs or {}))
        if (
            value.ndim > 2 and query.shape[-3] != value.shape[-3] > 1
        ):  # grouped queries share their values
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        return value.expand(*query.shape[:-1], value.shape[-1])


def _operands(
    query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query, key, value
