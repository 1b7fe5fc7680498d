"""Laws of the U-Net of films, whose frames have noise levels of their own and any number and size."""

from dataclasses import replace

import pytest
import torch

from sciffusion.domains.video import UNetConfig, VideoModel
from sciffusion.domains.video.networks import FilmNet
from sciffusion.layout import Dense
from sciffusion.noise import Noise

from .small import answering, film

UNET = UNetConfig(
    patch=2,
    widths=(8, 16),
    attention=(False, True),
    temporal=(True, True),
    head_width=8,
    embedding=16,
)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return answering(network=UNET)


def test_one_u_net_makes_films_of_any_length_and_size(model: VideoModel) -> None:
    for frames, size in ((3, (24, 24)), (5, (17, 30)), (1, (9, 12))):
        made = model.sample(1, {"digit": 1}, frames=frames, size=size, steps=1)
        assert made.stack().shape == (1, frames, 1, *size)


def test_frames_of_a_u_net_have_noise_levels_of_their_own_and_films_do_not_see_each_other(
    model: VideoModel,
) -> None:
    x, cond = Noise(0).normal(torch.zeros(2, 5, 1, 24, 24), Dense(2)), model.condition({}, 2)
    whole = model.denoiser(x, torch.tensor(0.4), cond).x0
    torch.testing.assert_close(model.denoiser(x, torch.full((2, 5), 0.4), cond).x0, whole)
    other = model.denoiser(x, torch.tensor([[0.1, 0.4, 0.4, 0.4, 0.4]] * 2), cond).x0
    assert not torch.allclose(other[:, 4], whole[:, 4])  # attention along time tells of the first
    alone = model.denoiser(x[1:], torch.tensor(0.4), {k: v[1:] for k, v in cond.items()}).x0
    torch.testing.assert_close(alone, whole[1:])


def test_before_training_its_frames_are_pictures() -> None:
    torch.manual_seed(0)
    net = FilmNet(UNET, 1, {})
    noise = Noise(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "temporal" not in name:
                p.add_(0.1 * noise.normal(p[None], Dense(1))[0])
    x, level = noise.normal(torch.zeros(1, 4, 1, 16, 16), Dense(1)), torch.zeros(1, 4)
    each = torch.cat([net(x[:, i : i + 1], level[:, :1]) for i in range(4)], 1)
    torch.testing.assert_close(net(x, level), each)
    assert each.abs().max() > 0.01


def test_a_u_net_animates_and_is_saved(model: VideoModel) -> None:
    made = model.animate(film().frames[1], 1, frames=4, steps=1)[0]
    assert torch.equal(made.frames[0], film().frames[1])
    assert model.config.network == UNET


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="patch must be at least 1"):
        replace(UNET, patch=0)
    with pytest.raises(ValueError, match="temporal must name 2 levels"):
        FilmNet(replace(UNET, temporal=(True,)), 1, {})
