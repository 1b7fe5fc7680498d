"""Networks of diffusers that are shown a part: a time for every token, and channels beside the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sciffusion.guidance import CFG
from sciffusion.interop.diffusers import from_model, from_scheduler
from sciffusion.inverse import Known
from sciffusion.testing import check_denoiser
from tests.core.test_interop_models import CASES, MASK, PLACES, POOLED, STEPS, TEXT, B, text
from tests.core.tiny_diffusers import clipless, library, loop, randn, seeded, tiny_flux

FILM = (4, 3, 4, 4)
FIRST = torch.tensor([True, False, False])
SIGMAS = [1 - i / STEPS for i in range(STEPS)]


def flow() -> Any:
    return library().FlowMatchEulerDiscreteScheduler(shift=3.0)


def network(name: str, **more: Any) -> nn.Module:
    return seeded(getattr(library(), name), **(dict(CASES[name].config) | more))


def ltx(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return text(m, x, t, encoder_attention_mask=MASK, **PLACES)


def test_an_image_begins_wans_film_as_in_its_pipeline() -> None:
    """Wan 2.2 TI2V: the first frame is shown clean, and its tokens are told the time 0."""
    model, theirs = network("WanTransformer3DModel"), flow()
    x, image = randn(B, *FILM), randn(B, 4, 1, 4, 4, seed=4)
    mask = torch.ones(1, 1, 3, 4, 4)
    mask[:, :, 0] = 0

    def called(latents: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        seen = (1 - mask) * image + mask * latents
        tokens = (mask[0, 0, :, ::2, ::2] * t).flatten().expand(B, -1)
        return model(seen, tokens, TEXT, return_dict=False)

    expected = (1 - mask) * image + mask * loop(called, theirs, x, STEPS, sigmas=SIGMAS)
    shown = image.transpose(1, 2).expand(-1, 3, -1, -1, -1)
    denoiser = Known(from_model(model, theirs, frames=True), shown, FIRST).given(TEXT)
    got = from_scheduler(theirs, STEPS)(denoiser, x.transpose(1, 2)).x
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(got[:, 0], image[:, :, 0])


def test_an_image_begins_ltxs_film_as_in_its_pipeline() -> None:
    """Tokens of the first frame at time 0, and steps of all frames but it."""
    model, theirs, d = network("LTXVideoTransformer3DModel"), flow(), library()
    x, image = randn(B, *FILM), randn(B, 4, 1, 4, 4, seed=4)
    pack, unpack = d.LTXPipeline._pack_latents, d.LTXPipeline._unpack_latents
    latents = torch.cat((image, x[:, :, 1:]), 2)
    mask = torch.zeros(B, 1, 3, 4, 4)
    mask[:, :, 0] = 1
    theirs.set_timesteps(STEPS, sigmas=SIGMAS)
    with torch.no_grad():
        for t in theirs.timesteps:
            told = t * (1 - pack(mask)[..., 0])
            out = unpack(
                model(pack(latents), TEXT, told, MASK, return_dict=False, **PLACES)[0], 3, 4, 4
            )
            rest = theirs.step(out[:, :, 1:], t, latents[:, :, 1:], return_dict=False)[0]
            latents = torch.cat((latents[:, :, :1], rest), 2)
    shown = image.transpose(1, 2).expand(-1, 3, -1, -1, -1)
    cond = {"encoder_hidden_states": TEXT, "encoder_attention_mask": MASK}
    denoiser = Known(from_model(model, theirs, frames=True), shown, FIRST).given(cond)
    got = from_scheduler(theirs, STEPS)(denoiser, x.transpose(1, 2)).x
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got.transpose(1, 2), latents, atol=1e-5, rtol=1e-5)


def test_the_same_time_for_every_frame_is_one_time() -> None:
    denoiser = from_model(network("WanTransformer3DModel"), flow(), frames=True)
    plain = from_model(network("WanTransformer3DModel"), flow())
    x, t = randn(B, *FILM).transpose(1, 2), torch.tensor([0.3, 0.8])
    each = denoiser(x, t[:, None].expand(B, 3), TEXT).x0
    torch.testing.assert_close(each, denoiser(x, t, TEXT).x0)
    torch.testing.assert_close(each, plain(x.transpose(1, 2), t, TEXT).x0.transpose(1, 2))
    check_denoiser(denoiser.given(TEXT[:1]), randn(3, 3, 4, 4, 4))


def _wan(m: nn.Module, x: Tensor, t: Tensor, more: Tensor) -> Tensor:
    return text(m, torch.cat([x, more], 1), t)


def _cogvideo(m: nn.Module, x: Tensor, t: Tensor, more: Tensor) -> Tensor:
    """Frames before channels; version 1.5 is told a constant beside."""
    seen = torch.cat([x.transpose(1, 2), more.transpose(1, 2)], 2)
    return text(m, seen, t, ofs=torch.full((1,), 2.0)).transpose(1, 2)


def _inpainting(m: nn.Module, x: Tensor, t: Tensor, more: Tensor) -> Tensor:
    return m(torch.cat([x, more], 1), t, encoder_hidden_states=TEXT, return_dict=False)[0]


BESIDE: dict[str, tuple[str, dict[str, Any], int, tuple[int, ...], Callable[..., Tensor]]] = {
    "wan, image to video": ("WanTransformer3DModel", {"in_channels": 12}, 8, FILM, _wan),
    "cogvideox, image to video": (
        "CogVideoXTransformer3DModel",
        {"in_channels": 8, "ofs_embed_dim": 8, "use_rotary_positional_embeddings": False},
        4,
        FILM,
        _cogvideo,
    ),
    "stable diffusion, inpainting": (
        "UNet2DConditionModel",
        {"in_channels": 9},
        5,
        (4, 8, 8),
        _inpainting,
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_channels_beside_the_field_go_in_as_in_the_pipelines_loop(case: str) -> None:
    name, config, count, shape, call = BESIDE[case]
    model, x = network(name, **config), randn(B, *shape)
    more, flows = randn(B, count, *shape[1:], seed=5), CASES[name].flow
    theirs = flow() if flows else clipless()
    options = {"sigmas": SIGMAS} if flows else {}
    expected = loop(
        lambda x, t, return_dict: (call(model, x, t, more),), theirs, x, STEPS, **options
    )
    cond = {"encoder_hidden_states": TEXT, "concat": more}
    got = from_scheduler(theirs, STEPS)(from_model(model, theirs).given(cond), x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    null = cond | {"concat": torch.zeros(1, *more.shape[1:])}
    without = from_scheduler(theirs, STEPS)(from_model(model, theirs).given(null), x).x
    assert not torch.equal(cast(Tensor, got), cast(Tensor, without))


def test_flux_gets_packed_channels_beside_packed_ones() -> None:
    """FLUX Fill and its controls: latents and what stands beside them are packed each, and then joined."""
    d, theirs = library(), flow()
    model = seeded(
        d.FluxTransformer2DModel,
        **(dict(CASES["FluxTransformer2DModel"].config) | {"in_channels": 28, "out_channels": 16}),
    )
    x, more = randn(B, 4, 8, 8), randn(B, 3, 8, 8, seed=5)
    pack, unpack = d.FluxPipeline._pack_latents, d.FluxPipeline._unpack_latents
    beside, places = (
        pack(more, B, 3, 8, 8),
        d.FluxPipeline._prepare_latent_image_ids(B, 4, 4, "cpu", torch.float32),
    )
    cond: Mapping[str, Tensor] = {
        "encoder_hidden_states": TEXT,
        "pooled_projections": POOLED,
        "guidance": torch.tensor([3.5, 2.0]),
    }

    def called(latents: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        seen = torch.cat((latents, beside), 2)
        return model(
            hidden_states=seen,
            timestep=(t / 1000).expand(B),
            img_ids=places,
            txt_ids=torch.zeros(5, 3),
            return_dict=False,
            **cond,
        )

    expected = unpack(loop(called, theirs, pack(x, B, 4, 8, 8), STEPS, sigmas=SIGMAS), 64, 64, 8)
    denoiser = from_model(model, theirs).given({**cond, "concat": more})
    got = from_scheduler(theirs, STEPS)(denoiser, x).x
    torch.testing.assert_close(got, expected.reshape(x.shape), atol=1e-5, rtol=1e-5)


def test_guidance_keeps_the_channels_beside_the_field() -> None:
    model, theirs = network("WanTransformer3DModel", in_channels=12), flow()
    denoiser, x, more = from_model(model, theirs), randn(B, *FILM), randn(B, 8, 3, 4, 4, seed=5)
    cond, null = ({"encoder_hidden_states": v, "concat": more} for v in (TEXT, 0 * TEXT))
    strong, weak = (denoiser(x, torch.tensor(0.5), c).x0 for c in (cond, null))
    assert isinstance(strong, Tensor) and isinstance(weak, Tensor)
    guided = CFG(denoiser, cond, null, 3.0)(x, torch.tensor(0.5)).x0
    torch.testing.assert_close(guided, weak + 3 * (strong - weak))


def test_what_does_not_fit_is_named() -> None:
    wan, x, t = network("WanTransformer3DModel", in_channels=12), randn(B, *FILM), torch.tensor(0.5)
    with pytest.raises(ValueError, match=r"cond\['concat'\] must hold the 8 channels .* got None"):
        from_model(wan, flow())(x, t, TEXT)
    cond = {"encoder_hidden_states": TEXT, "concat": randn(B, 7, 3, 4, 4)}
    with pytest.raises(
        ValueError, match=r"the 8 channels .*\(2, 8, 3, 4, 4\), got \(2, 7, 3, 4, 4\)"
    ):
        from_model(wan, flow())(x, t, cond)
    plain = network("WanTransformer3DModel")
    times = torch.full((B, 3), 0.5)
    with pytest.raises(
        ValueError, match="WanTransformer3DModel, LTXVideo.* take a time for each frame"
    ):
        from_model(plain, flow())(x, times, TEXT)
    with pytest.raises(ValueError, match=r"one number for each frame, \(2, 3\), got \(2, 4\)"):
        from_model(plain, flow(), frames=True)(x.transpose(1, 2), torch.full((B, 4), 0.5), TEXT)
    with pytest.raises(ValueError, match=r"films are \(B, T, C, H, W\)"):
        from_model(plain, flow(), frames=True)(x[:, :, 0], t, TEXT)
    with pytest.raises(ValueError, match="none of .*'guidance'"):
        from_model(tiny_flux(), flow())(randn(B, 4, 8, 8), t, {"conat": x})
    video = network("HunyuanVideoTransformer3DModel", image_condition_type="token_replace")
    with pytest.raises(ValueError, match="'token_replace'.* is not read"):
        from_model(video, flow())(x, t, CASES["HunyuanVideoTransformer3DModel"].cond)
