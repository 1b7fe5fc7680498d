"""How each of their networks is called: one declaration a class.

What differs between them is what the value is called, how the time is told, how the field is packed, the sign of the
output, and which conditions there are. A class that is not listed is declared the same way and handed to
``from_model(..., call=Call(...))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from sciffusion.errors import require
from sciffusion.interop.diffusers.packing import FramesFirst, Packing, Patches, Singles

__all__ = ["CALLS", "Call"]

Derived = Callable[[Any, Tensor, Mapping[str, Any]], dict[str, Any]]
"""Arguments that follow from (configuration, field, condition); one that is None leaves the condition's name out."""


def _nothing(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@final
@dataclass(frozen=True)
class Call:
    """How a network is called.

    Args:
        value: the argument that takes the field.
        clock: the time it is told: ``"steps"`` 0..N of its scheduler, or N less that, ``"countdown"``; ``"unit"`` the
            steps divided by N, or 1 less that, ``"reversed"``.
        needs: conditions without which it cannot run; a condition that is a plain tensor stands for the first of all.
        takes: conditions that it may be given beside.
        sign: -1 for a network that returns the negative of its target.
        packing: how the field is packed, by its configuration.
        derived: arguments that follow from the field's shape and the conditions.
        time: the argument that takes the time.
        scale: what the time is multiplied by, by its configuration.
        tokens: for networks that may be told a time for every token, the patches of a film that these are.
        concat: whether there are versions that get more channels beside the field, as the condition ``"concat"``.
    """

    value: str
    clock: Literal["steps", "countdown", "unit", "reversed"] = "steps"
    needs: Sequence[str] = ()
    takes: Sequence[str] = ()
    sign: int = 1
    packing: Callable[[Any], Packing] | None = None
    derived: Derived = _nothing
    time: str = "timestep"
    scale: Callable[[Any], float] = lambda config: 1.0
    tokens: Callable[[Any], Patches] | None = None
    concat: bool = False

    def tell(self, step: Tensor, steps: int, config: Any) -> Tensor:
        """The time as the network wants it, from their step (B,)."""
        if self.clock in ("countdown", "reversed"):
            step = steps - step
        if self.clock in ("unit", "reversed"):
            step = step / steps
        return self.scale(config) * step


def _guided(config: Any, cond: Mapping[str, Any]) -> None:
    if config.guidance_embeds and "guidance" not in cond:
        raise ValueError(
            "cond lacks 'guidance', the scale (B,) that this distilled network takes in place of guidance by two calls"
        )


def _flux(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    rows, columns = (torch.arange(n // 2, device=x.device, dtype=x.dtype) for n in x.shape[2:])
    places = torch.cartesian_prod(torch.zeros(1, device=x.device, dtype=x.dtype), rows, columns)
    length = cond["encoder_hidden_states"].shape[1]
    _guided(config, cond)
    return {"img_ids": places, "txt_ids": places.new_zeros(length, 3)}


def _hunyuan(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    if config.image_condition_type == "token_replace":
        raise ValueError(
            "image_condition_type 'token_replace', a first frame that is shown clean inside the network, is not read; "
            "'latent_concat' is"
        )
    _guided(config, cond)
    return {"guidance": 1000 * cond["guidance"]} if config.guidance_embeds else {}


def _qwen(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    return {"img_shapes": [[(1, x.shape[2] // 2, x.shape[3] // 2)]] * len(x)}


def _ltx(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Places in seconds and pixels: by default at 25 frames a second, and as its autoencoder shrinks films."""
    frames, height, width = _ltx_patches(config).grid(x)
    scale = cond.get("rope_interpolation_scale", (8 / 25, 32, 32))
    grid = {"num_frames": frames, "height": height, "width": width}
    return grid | {"rope_interpolation_scale": scale}


def _ltx_patches(config: Any) -> Patches:
    return Patches((config.patch_size_t, config.patch_size, config.patch_size))


def _wan_patches(config: Any) -> Patches:
    return Patches(tuple(config.patch_size))


def _two_by_two(config: Any) -> Patches:
    return Patches((2, 2))


def _unet(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    if config.class_embed_type is None and config.num_class_embeds is None:
        return {}
    if "class_labels" not in cond:
        raise ValueError("cond lacks 'class_labels', which this network was trained with")
    return {}


def _pixart(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Size and shape of the image, which the large model was also told: with eight points a latent one."""
    if "added_cond_kwargs" in cond or config.sample_size != 128:
        return {
            "added_cond_kwargs": cond.get(
                "added_cond_kwargs", {"resolution": None, "aspect_ratio": None}
            )
        }
    size = 8 * torch.tensor([x.shape[2:]] * len(x), dtype=x.dtype, device=x.device)
    return {
        "added_cond_kwargs": {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]},
    }


def _cogvideo(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary places, in the units of the grid that it was trained on, and a constant that version 1.5 is told."""
    told = {} if config.ofs_embed_dim is None else {"ofs": x.new_full((1,), 2.0)}
    if not config.use_rotary_positional_embeddings:
        return told
    made = require("diffusers.models.embeddings", extra="diffusers").get_3d_rotary_pos_embed
    p, frames = config.patch_size, x.shape[2]
    size, base = (
        (x.shape[3] // p, x.shape[4] // p),
        (config.sample_height // p, config.sample_width // p),
    )
    if config.patch_size_t is None:
        crop = _cropped(size, base)
        places = made(config.attention_head_dim, crop, size, frames, device=x.device)
    else:
        few = -(-frames // config.patch_size_t)
        places = made(
            config.attention_head_dim,
            None,
            size,
            few,
            grid_type="slice",
            max_size=base,
            device=x.device,
        )
    return told | {"image_rotary_emb": places}


def _cropped(
    size: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The middle of the base grid that has the shape of another one: its first corner and its last."""
    fit = min(base[0] / size[0], base[1] / size[1])
    inner = [round(fit * n) for n in size]
    first = [round((b - n) / 2) for b, n in zip(base, inner, strict=True)]
    return (first[0], first[1]), (first[0] + inner[0], first[1] + inner[1])


def _stable_audio(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary places of the tokens that are global, which come first, and of the field's."""
    made = require("diffusers.models.embeddings", extra="diffusers").get_1d_rotary_pos_embed
    length = x.shape[2] + cond["global_hidden_states"].shape[1]
    half = config.attention_head_dim // 2
    return {"rotary_embedding": made(half, length, use_real=True, repeat_interleave_real=False)}


def _cosmos(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    return {"padding_mask": x.new_zeros(1, 1, *x.shape[3:])}


def _z_image(config: Any, x: Tensor, cond: Mapping[str, Any]) -> dict[str, Any]:
    """A list of texts, each of its own length."""
    texts, mask = cond["cap_feats"], cond.get("cap_mask")
    whose = [slice(None)] * len(texts) if mask is None else mask.bool()
    return {
        "cap_feats": [text[own] for text, own in zip(texts, whose, strict=True)],
        "cap_mask": None,
    }


_TEXT = "encoder_hidden_states"
_MASK = "encoder_attention_mask"
CALLS: Mapping[str, Call] = {
    "UNet2DModel": Call("sample", takes=("class_labels",), derived=_unet, concat=True),
    "UNet2DConditionModel": Call(
        "sample",
        needs=(_TEXT,),
        takes=("class_labels", "timestep_cond", _MASK, "added_cond_kwargs"),
        concat=True,
    ),
    "DiTTransformer2DModel": Call("hidden_states", needs=("class_labels",)),
    "PixArtTransformer2DModel": Call(
        "hidden_states", needs=(_TEXT, _MASK), takes=("added_cond_kwargs",), derived=_pixart
    ),
    "SD3Transformer2DModel": Call("hidden_states", needs=(_TEXT, "pooled_projections")),
    "SanaTransformer2DModel": Call(
        "hidden_states",
        needs=(_TEXT,),
        takes=(_MASK, "guidance"),
        scale=lambda config: float(config.timestep_scale),
    ),
    "AuraFlowTransformer2DModel": Call("hidden_states", "unit", needs=(_TEXT,)),
    "Lumina2Transformer2DModel": Call("hidden_states", "reversed", needs=(_TEXT, _MASK), sign=-1),
    "ZImageTransformer2DModel": Call(
        "x",
        "reversed",
        needs=("cap_feats",),
        takes=("cap_mask",),
        sign=-1,
        packing=lambda config: Singles(),
        derived=_z_image,
        time="t",
    ),
    "HiDreamImageTransformer2DModel": Call(
        "hidden_states",
        needs=("encoder_hidden_states_t5", "encoder_hidden_states_llama3", "pooled_embeds"),
        sign=-1,
        time="timesteps",
    ),
    "FluxTransformer2DModel": Call(
        "hidden_states",
        "unit",
        needs=(_TEXT, "pooled_projections"),
        takes=("guidance",),
        packing=_two_by_two,
        derived=_flux,
        concat=True,
    ),
    "QwenImageTransformer2DModel": Call(
        "hidden_states",
        "unit",
        needs=(_TEXT, "encoder_hidden_states_mask"),
        takes=("guidance",),
        packing=_two_by_two,
        derived=_qwen,
    ),
    "WanTransformer3DModel": Call(
        "hidden_states",
        needs=(_TEXT,),
        takes=("encoder_hidden_states_image",),
        tokens=_wan_patches,
        concat=True,
    ),
    "HunyuanVideoTransformer3DModel": Call(
        "hidden_states",
        needs=(_TEXT, _MASK, "pooled_projections"),
        takes=("guidance",),
        derived=_hunyuan,
        concat=True,
    ),
    "CogVideoXTransformer3DModel": Call(
        "hidden_states",
        needs=(_TEXT,),
        packing=lambda config: FramesFirst(),
        derived=_cogvideo,
        concat=True,
    ),
    "MochiTransformer3DModel": Call("hidden_states", "countdown", needs=(_TEXT, _MASK), sign=-1),
    "CosmosTransformer3DModel": Call(
        "hidden_states", "unit", needs=(_TEXT,), takes=("fps",), derived=_cosmos
    ),
    "StableAudioDiTModel": Call(
        "hidden_states", needs=(_TEXT, "global_hidden_states"), derived=_stable_audio
    ),
    "LTXVideoTransformer3DModel": Call(
        "hidden_states",
        needs=(_TEXT, _MASK),
        takes=("rope_interpolation_scale", "video_coords"),
        packing=_ltx_patches,
        derived=_ltx,
        tokens=_ltx_patches,
    ),
}
"""By class name; fields are (B, C, H, W) for images, (B, C, T, H, W) for films, (B, C, T) for sounds, all unpacked.

Left out, for they ask for more than a call: reference images as further tokens (FLUX Kontext, Qwen-Image-Edit,
Z-Image), HunyuanVideo with the first frame shown inside the network, Sana-Sprint, whose time is an angle.
"""
