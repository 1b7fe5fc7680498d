"""Every network of diffusers that is declared, against how its own pipeline calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciffusion.guidance import CFG
from sciffusion.interop.diffusers import (
    CALLS,
    Call,
    Patches,
    from_model,
    from_scheduler,
)
from sciffusion.testing import check_denoiser
from tests.core.tiny_diffusers import FLUX, library, loop, randn, seeded, tiny_flux, unet

B, STEPS = 2, 3
TEXT, POOLED = randn(B, 5, 12, seed=1), randn(B, 10, seed=2)
WIDE = randn(B, 5, 16, seed=3)
IMAGE, FILM = (4, 8, 8), (4, 3, 4, 4)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@dataclass(frozen=True)
class Case:
    """A network's tiny configuration, its condition, and the call as the pipeline writes it: model, x, t to output."""

    config: Mapping[str, Any]
    cond: Any
    call: Callable[[nn.Module, Tensor, Tensor], Tensor]
    shape: tuple[int, ...] = IMAGE
    flow: bool = True
    ends: tuple[str, str, tuple[Any, ...], tuple[Any, ...]] | None = field(default=None)
    inverted: bool = False


def small(**more: Any) -> dict[str, Any]:
    return {"attention_head_dim": 8, "num_attention_heads": 2, **more}


def _flux(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    places = library().FluxPipeline._prepare_latent_image_ids(B, 4, 4, "cpu", torch.float32)
    return m(
        hidden_states=x,
        timestep=(t / 1000).expand(B),
        guidance=torch.tensor([3.5, 2.0]),
        pooled_projections=POOLED,
        encoder_hidden_states=TEXT,
        txt_ids=torch.zeros(5, 3),
        img_ids=places,
        return_dict=False,
    )[0]


def _films(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Z-Image: a list of films of one frame, and texts of their own lengths."""
    seen, texts = list(x.unsqueeze(2)), [TEXT[0], TEXT[1, :3]]
    return -torch.stack(m(seen, ((1000 - t) / 1000).expand(B), texts, return_dict=False)[0])[
        :, :, 0
    ]


def _hidream(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return -m(
        hidden_states=x,
        timesteps=t.expand(B),
        encoder_hidden_states_t5=TEXT,
        encoder_hidden_states_llama3=torch.stack([TEXT, TEXT + 1, TEXT - 1]),
        pooled_embeds=POOLED,
        return_dict=False,
    )[0]


def _cogvideo(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Frames before channels, and places on a grid of 8 x 8 points cut to theirs, which is 2 x 2."""
    places = library().models.embeddings.get_3d_rotary_pos_embed(16, ((0, 0), (4, 4)), (2, 2), 3)
    return text(m, x.transpose(1, 2), t, image_rotary_emb=places).transpose(1, 2)


def _hunyuan(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    scale = 1000 * torch.tensor([3.5, 2.0])
    return text(m, x, t, encoder_attention_mask=MASK, pooled_projections=POOLED, guidance=scale)


def _mochi(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    seen, mask = {"encoder_hidden_states": WIDE}, {"encoder_attention_mask": MASK.bool()}
    return m(hidden_states=x, timestep=t.expand(B), return_dict=False, **seen, **mask)[0]


def _sigma_dropped(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    classes = torch.tensor([3, 10])
    return m(x, timestep=t.expand(B), class_labels=classes, return_dict=False)[0][:, :4]


def text(m: nn.Module, x: Tensor, t: Tensor, **more: Any) -> Tensor:
    """The common part of their calls, the time told raw."""
    return m(
        hidden_states=x,
        timestep=t.expand(B),
        encoder_hidden_states=TEXT,
        return_dict=False,
        **more,
    )[0]


PLACES = {
    "num_frames": 3,
    "height": 4,
    "width": 4,
    "rope_interpolation_scale": (8 / 25, 32, 32),
}
"""What LTX's pipeline tells of a field of 3 x 4 x 4 points."""
BLOCKS = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}
CASES: dict[str, Case] = {
    "UNet2DModel": Case(
        BLOCKS
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_class_embeds": 5,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
        },
        torch.tensor([1, 4]),
        lambda m, x, t: m(x, t, class_labels=torch.tensor([1, 4]), return_dict=False)[0],
        flow=False,
    ),
    "UNet2DConditionModel": Case(
        BLOCKS
        | {
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        },
        TEXT,
        lambda m, x, t: m(x, t, encoder_hidden_states=TEXT, return_dict=False)[0],
        flow=False,
    ),
    "DiTTransformer2DModel": Case(
        small(
            out_channels=8, num_layers=1, sample_size=8, num_embeds_ada_norm=10, norm_num_groups=4
        ),
        torch.tensor([3, 10]),
        _sigma_dropped,
        flow=False,
    ),
    "SD3Transformer2DModel": Case(
        small(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            joint_attention_dim=12,
            caption_projection_dim=16,
            pooled_projection_dim=10,
            pos_embed_max_size=8,
        ),
        {"encoder_hidden_states": TEXT, "pooled_projections": POOLED},
        lambda m, x, t: text(m, x, t, pooled_projections=POOLED),
    ),
    "PixArtTransformer2DModel": Case(
        small(
            sample_size=8,
            num_layers=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            caption_channels=12,
        ),
        {"encoder_hidden_states": TEXT, "encoder_attention_mask": MASK},
        lambda m, x, t: text(
            m,
            x,
            t,
            encoder_attention_mask=MASK,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )[:, :4],
        flow=False,
    ),
    "SanaTransformer2DModel": Case(
        small(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=12,
            sample_size=8,
            timestep_scale=0.5,
        ),
        {"encoder_hidden_states": TEXT, "encoder_attention_mask": MASK},
        lambda m, x, t: text(m, x, 0.5 * t, encoder_attention_mask=MASK),
    ),
    "ZImageTransformer2DModel": Case(
        {
            "in_channels": 4,
            "dim": 16,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 12,
            "axes_dims": [4, 2, 2],
            "axes_lens": [64, 16, 16],
        },
        {"cap_feats": TEXT, "cap_mask": MASK},
        _films,
    ),
    "HiDreamImageTransformer2DModel": Case(
        small(
            patch_size=2,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            caption_channels=[12, 12],
            text_emb_dim=10,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(8, 8),
            llama_layers=[0, 2],
            force_inference_output=True,
        ),
        {
            "encoder_hidden_states_t5": TEXT,
            "encoder_hidden_states_llama3": [TEXT, TEXT + 1, TEXT - 1],
            "pooled_embeds": POOLED,
        },
        _hidream,
    ),
    "AuraFlowTransformer2DModel": Case(
        small(
            sample_size=8,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            joint_attention_dim=12,
            caption_projection_dim=16,
            pos_embed_max_size=16,
        ),
        TEXT,
        lambda m, x, t: text(m, x, t / 1000),
    ),
    "Lumina2Transformer2DModel": Case(
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 2,
            "multiple_of": 8,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (32, 32, 32),
            "cap_feat_dim": 12,
        },
        {"encoder_hidden_states": TEXT, "encoder_attention_mask": MASK.bool()},
        lambda m, x, t: -text(m, x, 1 - t / 1000, encoder_attention_mask=MASK.bool()),
    ),
    "FluxTransformer2DModel": Case(
        FLUX,
        {
            "encoder_hidden_states": TEXT,
            "pooled_projections": POOLED,
            "guidance": torch.tensor([3.5, 2.0]),
        },
        _flux,
        ends=("FluxPipeline", "_pack_latents", (B, 4, 8, 8), (64, 64, 8)),
    ),
    "QwenImageTransformer2DModel": Case(
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 12,
            "axes_dims_rope": (4, 4, 8),
        },
        {"encoder_hidden_states": TEXT, "encoder_hidden_states_mask": MASK.bool()},
        lambda m, x, t: text(
            m,
            x,
            t / 1000,
            encoder_hidden_states_mask=MASK.bool(),
            img_shapes=[[(1, 4, 4)]] * B,
        ),
        ends=("QwenImagePipeline", "_pack_latents", (B, 4, 8, 8), (64, 64, 8)),
    ),
    "WanTransformer3DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 12,
            "freq_dim": 16,
            "ffn_dim": 16,
            "num_layers": 1,
            "rope_max_seq_len": 16,
        },
        TEXT,
        lambda m, x, t: text(m, x, t),
        shape=FILM,
    ),
    "HunyuanVideoTransformer3DModel": Case(
        small(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            guidance_embeds=True,
            text_embed_dim=12,
            pooled_projection_dim=10,
            rope_axes_dim=(2, 4, 2),
        ),
        {
            "encoder_hidden_states": TEXT,
            "encoder_attention_mask": MASK,
            "pooled_projections": POOLED,
            "guidance": torch.tensor([3.5, 2.0]),
        },
        _hunyuan,
        shape=FILM,
    ),
    "CogVideoXTransformer3DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 12,
            "num_layers": 1,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 9,
            "max_text_seq_length": 5,
            "use_rotary_positional_embeddings": True,
        },
        TEXT,
        _cogvideo,
        shape=FILM,
        flow=False,
    ),
    "MochiTransformer3DModel": Case(
        small(
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=4,
            text_embed_dim=16,
            time_embed_dim=8,
        ),
        {"encoder_hidden_states": WIDE, "encoder_attention_mask": MASK.bool()},
        _mochi,
        shape=FILM,
        inverted=True,
    ),
    "CosmosTransformer3DModel": Case(
        small(
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            text_embed_dim=12,
            adaln_lora_dim=4,
            max_size=(4, 8, 8),
            concat_padding_mask=False,
            extra_pos_embed_type=None,
        ),
        {"encoder_hidden_states": TEXT, "fps": 24},
        lambda m, x, t: text(m, x, t / 1000, fps=24),
        shape=FILM,
    ),
    "StableAudioDiTModel": Case(
        small(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_key_value_attention_heads=1,
            cross_attention_dim=12,
            cross_attention_input_dim=12,
            time_proj_dim=8,
            global_states_input_dim=10,
        ),
        {"encoder_hidden_states": TEXT, "global_hidden_states": POOLED[:, None]},
        lambda m, x, t: text(
            m,
            x,
            t,
            global_hidden_states=POOLED[:, None],
            rotary_embedding=library().models.embeddings.get_1d_rotary_pos_embed(
                4, 9, use_real=True, repeat_interleave_real=False
            ),
        ),
        shape=(4, 8),
        flow=False,
    ),
    "LTXVideoTransformer3DModel": Case(
        small(
            in_channels=4,
            out_channels=4,
            cross_attention_dim=16,
            num_layers=1,
            caption_channels=12,
        ),
        {"encoder_hidden_states": TEXT, "encoder_attention_mask": MASK},
        lambda m, x, t: text(m, x, t, encoder_attention_mask=MASK, **PLACES),
        shape=FILM,
        ends=("LTXPipeline", "_pack_latents", (), (3, 4, 4)),
    ),
}


def test_every_declared_class_has_a_case() -> None:
    assert CALLS.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_trajectory_is_that_of_the_pipelines_loop(name: str) -> None:
    case, d = CASES[name], library()
    model = seeded(getattr(d, name), **case.config)
    x = randn(B, *case.shape)
    if case.flow:
        theirs = d.FlowMatchEulerDiscreteScheduler(invert_sigmas=case.inverted)
        options = {"sigmas": [1, 2 / 3, 1 / 3]}
    else:
        theirs, options = d.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"), {}
    start = x
    if case.ends is not None:
        pipeline, pack, before, after = case.ends
        start = getattr(getattr(d, pipeline), pack)(x, *before)
    expected = loop(
        lambda x, t, return_dict: (case.call(model, x, t),), theirs, start, STEPS, **options
    )
    if case.ends is not None:
        unpack = getattr(d, case.ends[0])._unpack_latents
        expected = unpack(expected, *case.ends[3]).reshape(x.shape)
    denoiser = from_model(model, theirs).given(case.cond)
    got = from_scheduler(theirs, STEPS)(denoiser, x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert float((expected - x).abs().max()) > 0.1  # the network says something


def ddim() -> Any:
    return library().DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


def test_a_network_keeps_the_contract_of_denoisers() -> None:
    check_denoiser(from_model(unet(), ddim()), randn(3, 3, 8, 8))


def test_guidance_runs_on_a_network_with_one_null_row_for_all() -> None:
    model = seeded(library().UNet2DConditionModel, **CASES["UNet2DConditionModel"].config)
    denoiser, null = from_model(model, ddim()), torch.zeros(1, 5, 12)
    x, t = randn(B, *IMAGE), torch.tensor(0.5)
    guided = CFG(denoiser, TEXT, null, 3.0)(x, t).x0
    strong, weak = (denoiser(x, t, c).x0 for c in (TEXT, null.expand(B, -1, -1)))
    assert isinstance(strong, Tensor) and isinstance(weak, Tensor)
    torch.testing.assert_close(guided, weak + 3 * (strong - weak))


def test_a_network_in_half_precision_predicts_in_the_dtype_of_the_field() -> None:
    half = deepcopy(unet()).to(torch.bfloat16)
    x, t = randn(2, 3, 8, 8), torch.tensor([0.3, 0.9])
    got, exact = (from_model(m, ddim())(x, t).x0 for m in (half, unet()))
    assert isinstance(got, Tensor) and got.dtype == torch.float32
    torch.testing.assert_close(got, exact, atol=0.1, rtol=0.1)


def test_patches_are_packed_and_unpacked_by_einops_rule() -> None:
    for sizes, shape in (((2, 2), (4, 6)), ((1, 2, 3), (2, 4, 9)), ((3,), (9,))):
        patches, x = Patches(sizes), randn(2, 5, *shape)
        tokens = patches.pack(x)
        assert torch.equal(patches.unpack(tokens, x), x)
        for k, p in enumerate(
            sizes
        ):  # the second token lies beside the first, along the last dimension
            assert shape[k] % p == 0
        first = x[(slice(None), slice(None), *(slice(0, p) for p in sizes))]
        assert torch.equal(tokens[:, 0], first.flatten(1))
    with pytest.raises(ValueError, match=r"multiples of \(2, 2\), got \(1, 3, 4, 5\)"):
        Patches((2, 2)).pack(randn(1, 3, 4, 5))


class Other(nn.Module):
    """A network that is not listed and gets its time reversed."""

    config: Mapping[str, Any] = {}

    def forward(self, z: Tensor, timestep: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        return (timestep[:, None] * z,)


def test_a_class_that_is_not_listed_is_declared() -> None:
    flow, x = library().FlowMatchEulerDiscreteScheduler(), randn(2, 3)
    with pytest.raises(ValueError, match=r"model is a Other, .* call=Call"):
        from_model(Other(), flow)
    denoiser = from_model(Other(), flow, call=Call("z", "reversed", sign=-1))
    t = torch.tensor([0.25, 0.5])
    flowing = denoiser(x, t).to("flow")
    torch.testing.assert_close(flowing, -(1 - t)[:, None] * x)


def test_bad_conditions_times_and_channels_are_named() -> None:
    model = seeded(library().UNet2DConditionModel, **CASES["UNet2DConditionModel"].config)
    denoiser, x, t = from_model(model, ddim()), randn(B, *IMAGE), torch.tensor(0.5)
    with pytest.raises(ValueError, match=r"cond lacks \['encoder_hidden_states'\]"):
        denoiser(x, t)
    with pytest.raises(ValueError, match="Did you mean 'encoder_hidden_states'"):
        denoiser(x, t, {"encoder_hidden_state": TEXT})
    with pytest.raises(ValueError, match="cond must be a mapping"):
        denoiser(x, t, [TEXT])
    with pytest.raises(ValueError, match="first dimension"):
        denoiser(x, t, torch.zeros(3, 5, 12))
    with pytest.raises(ValueError, match="none takes one for each element"):
        denoiser(x, torch.full((B, 4), 0.5), TEXT)
    distilled = from_model(tiny_flux(), library().FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="cond lacks 'guidance'"):
        distilled(x, t, {"encoder_hidden_states": TEXT, "pooled_projections": POOLED})
    with pytest.raises(ValueError, match="returned shape"):
        from_model(Narrow(), ddim(), call=Call("z"))(x, t)


class Narrow(Other):
    """A network that returns one channel."""

    def forward(self, z: Tensor, timestep: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (z[:, :1],)
