"""How each of their networks is called: one declaration a class.

What differs between them is what the value is called, how the time is told, whether patches of the field are packed
into tokens, the sign of the output, and which conditions there are. A class that is not listed is declared the same way
and handed to ``from_model(..., call=Call(...))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

__all__ = ["CALLS", "Call", "Patches"]


@final
@dataclass(frozen=True)
class Patches:
    """Fields (B, C, ...) as sequences of patches (B, L, C * patch), channels slowest within a patch.

    ``sizes`` are those of a patch along the field's dimensions.
    """

    sizes: tuple[int, ...]

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """How many patches there are along each dimension.

        Raises ``ValueError`` unless the field has as many dimensions and they are multiples of the sizes.
        """
        shape = tuple(x.shape[2:])
        if len(shape) != len(self.sizes) or any(
            n % p for n, p in zip(shape, self.sizes, strict=True)
        ):
            raise ValueError(
                f"the field must have shape (B, C, ...) with {len(self.sizes)} dimensions after the channels that are "
                f"multiples of {self.sizes}, got {tuple(x.shape)}"
            )
        return tuple(n // p for n, p in zip(shape, self.sizes, strict=True))

    def pack(self, x: Tensor) -> Tensor:
        """(B, C, ...) to (B, L, C * patch)."""
        d, grid = len(self.sizes), self.grid(x)
        parts = [n for pair in zip(grid, self.sizes, strict=True) for n in pair]
        split = x.reshape(*x.shape[:2], *parts)
        order = (0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
        return split.permute(order).flatten(1 + d).flatten(1, d)

    def unpack(self, tokens: Tensor, like: Tensor) -> Tensor:
        """The inverse, to the space of ``like``; the number of channels is whatever the tokens hold."""
        d, grid = len(self.sizes), self.grid(like)
        split = tokens.reshape(len(tokens), *grid, -1, *self.sizes)
        order = (0, 1 + d, *(i for k in range(d) for i in (1 + k, 2 + d + k)))
        return split.permute(order).reshape(len(tokens), -1, *like.shape[2:])


Derived = Callable[[Any, Tensor, Mapping[str, Any]], dict[str, Any]]
"""Arguments that follow from (configuration, field, condition)."""


def _nothing(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@final
@dataclass(frozen=True)
class Call:
    """How a network is called.

    Args:
        value: the argument that takes the field.
        clock: the time it is told: ``"steps"`` 0..N of its scheduler, ``"unit"`` the same divided by N, ``"reversed"``
            1 less that.
        needs: conditions without which it cannot run; a condition that is a plain tensor stands for the first of all.
        takes: conditions that it may be given beside.
        sign: -1 for a network that returns the negative of its target.
        patches: how the field is packed into tokens, by its configuration.
        derived: arguments that follow from the field's shape and the conditions.
    """

    value: str
    clock: Literal["steps", "unit", "reversed"] = "steps"
    needs: Sequence[str] = ()
    takes: Sequence[str] = ()
    sign: int = 1
    patches: Callable[[Any], Patches] | None = None
    derived: Derived = _nothing

    def tell(self, step: Tensor, steps: int) -> Tensor:
        """The time as the network wants it, from their step (B,)."""
        if self.clock == "steps":
            return step
        return step / steps if self.clock == "unit" else 1 - step / steps


def _flux(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    rows, columns = (torch.arange(n // 2, device=x.device, dtype=x.dtype) for n in x.shape[2:])
    places = torch.cartesian_prod(torch.zeros(1, device=x.device, dtype=x.dtype), rows, columns)
    length = cond["encoder_hidden_states"].shape[1]
    if config.guidance_embeds and "guidance" not in cond:
        raise ValueError(
            "cond lacks 'guidance', the scale (B,) that this distilled network takes in place of guidance by two calls"
        )
    return {"img_ids": places, "txt_ids": places.new_zeros(length, 3)}


def _qwen(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    return {"img_shapes": [[(1, x.shape[2] // 2, x.shape[3] // 2)]] * len(x)}


def _ltx(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    frames, height, width = _ltx_patches(config).grid(x)
    return {"num_frames": frames, "height": height, "width": width}


def _ltx_patches(config: Any) -> Patches:
    return Patches((config.patch_size_t, config.patch_size, config.patch_size))


def _two_by_two(config: Any) -> Patches:
    return Patches((2, 2))


def _unet(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    if config.class_embed_type is None and config.num_class_embeds is None:
        return {}
    if "class_labels" not in cond:
        raise ValueError("cond lacks 'class_labels', which this network was trained with")
    return {}


_TEXT = "encoder_hidden_states"
CALLS: Mapping[str, Call] = {
    "UNet2DModel": Call("sample", takes=("class_labels",), derived=_unet),
    "UNet2DConditionModel": Call(
        "sample",
        needs=(_TEXT,),
        takes=("class_labels", "timestep_cond", "encoder_attention_mask", "added_cond_kwargs"),
    ),
    "DiTTransformer2DModel": Call("hidden_states", needs=("class_labels",)),
    "SD3Transformer2DModel": Call("hidden_states", needs=(_TEXT, "pooled_projections")),
    "AuraFlowTransformer2DModel": Call("hidden_states", "unit", needs=(_TEXT,)),
    "Lumina2Transformer2DModel": Call(
        "hidden_states", "reversed", needs=(_TEXT, "encoder_attention_mask"), sign=-1
    ),
    "FluxTransformer2DModel": Call(
        "hidden_states",
        "unit",
        needs=(_TEXT, "pooled_projections"),
        takes=("guidance",),
        patches=_two_by_two,
        derived=_flux,
    ),
    "QwenImageTransformer2DModel": Call(
        "hidden_states",
        "unit",
        needs=(_TEXT, "encoder_hidden_states_mask"),
        takes=("guidance",),
        patches=_two_by_two,
        derived=_qwen,
    ),
    "WanTransformer3DModel": Call(
        "hidden_states", needs=(_TEXT,), takes=("encoder_hidden_states_image",)
    ),
    "LTXVideoTransformer3DModel": Call(
        "hidden_states",
        needs=(_TEXT, "encoder_attention_mask"),
        patches=_ltx_patches,
        derived=_ltx,
    ),
}
"""By class name; fields are (B, C, H, W) for images and (B, C, T, H, W) for videos, latents unpacked."""
