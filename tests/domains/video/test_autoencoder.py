"""Laws of the autoencoder of films: it never looks ahead, and parts of a stream are parts of the whole."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sciffusion.domains.video import CausalAutoencoder, CausalConfig, MovingDigits, digits, recipe
from sciffusion.domains.video.autoencoder_task import AutoencoderTask, AutoencoderTraining
from sciffusion.domains.video.lessons import Endless
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig
from sciffusion.training import train as run_training

CONFIGS = [
    CausalConfig(latent=3, widths=(4, 8, 8), halves=(True, True)),
    CausalConfig(latent=2, widths=(4, 8), halves=(False,), blocks=2),
    CausalConfig(latent=2, widths=(4, 4, 8), halves=(False, True)),
    CausalConfig(latent=3, widths=(4, 8), halves=(True,), patch=2),
]


def stirred(config: CausalConfig) -> CausalAutoencoder:
    """An untrained autoencoder all of whose layers act."""
    made, noise = CausalAutoencoder(config), Noise(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * noise.normal(p[None], Dense(1))[0])
    made.affine.set([0.5] * config.latent, [2.0] * config.latent)
    return made.eval()


def film(config: CausalConfig, parts: int = 3, size: tuple[int, int] = (16, 12)) -> torch.Tensor:
    """Two films of noise."""
    shape = (2, config.channels, 1 + parts * config.time, *size)
    return Noise(1).uniform(torch.zeros(shape), Dense(2))


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_the_first_frame_is_encoded_as_a_picture_and_decoded_as_one(config: CausalConfig) -> None:
    model, x = stirred(config), film(config)
    z = model.encode(x)
    torch.testing.assert_close(model.encode(x[:, :, :1]), z[:, :, :1])
    torch.testing.assert_close(model.decode(z[:, :, :1]), model.decode(z)[:, :, :1])


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_no_frame_depends_on_a_later_one(config: CausalConfig) -> None:
    model, x = stirred(config), film(config)
    for part in range(3):
        last = part * config.time  # the last frame that latent frame `part` stands for
        later = x.clone()
        later[:, :, last + 1 :] = 1 - later[:, :, last + 1 :]
        a, b = model.encode(x), model.encode(later)
        torch.testing.assert_close(a[:, :, : part + 1], b[:, :, : part + 1])
        assert not torch.allclose(a[:, :, part + 1], b[:, :, part + 1])
        made, other = (
            model.decode(torch.cat((a[:, :, : part + 1], 0 * v[:, :, part + 1 :] + i), 2))
            for i, v in enumerate((a, b))
        )
        torch.testing.assert_close(made[:, :, : last + 1], other[:, :, : last + 1])
        assert not torch.allclose(made[:, :, last + 1], other[:, :, last + 1])


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_film_decoded_in_parts_is_the_film_decoded_whole(config: CausalConfig) -> None:
    model = stirred(config)
    z = model.encode(film(config, parts=5))
    whole = model.decode(z)
    for cuts in ((1, 1, 4), (2, 3, 1), (6,)):
        streamed = torch.cat(list(model.stream(z.split(list(cuts), 2))), 2)
        torch.testing.assert_close(streamed, whole)
    forgetful = model.decode(z[:, :, 2:])  # without memory a part begins like a film
    count = forgetful.shape[2]
    assert not torch.allclose(forgetful, whole[:, :, -count:])


@torch.no_grad()
def test_films_of_any_length_and_size_come_back_in_their_shape() -> None:
    config = CONFIGS[0]
    model = stirred(config)
    for parts, size in ((0, (9, 5)), (2, (8, 12)), (4, (16, 16))):
        x = film(config, parts, size)
        z = model.encode(x)
        h, w = (-(-n // config.space) for n in size)
        assert z.shape == (2, config.latent, 1 + parts, h, w)
        assert model.decode(z).shape == (*x.shape[:3], h * config.space, w * config.space)


@torch.no_grad()
def test_films_of_a_batch_do_not_see_each_other() -> None:
    model, x = stirred(CONFIGS[0]), film(CONFIGS[0])
    torch.testing.assert_close(model.encode(x)[1:], model.encode(x[1:]))
    z = model.encode(x)
    torch.testing.assert_close(model.decode(z)[:1], model.decode(z[:1]))


def test_untrained_it_sees_every_frame_by_itself_where_time_is_not_halved() -> None:
    config = replace(CONFIGS[0], halves=(False, False))
    model, x = CausalAutoencoder(config), film(config, parts=3)
    with torch.no_grad():
        each = torch.cat([model.encode(x[:, :, i : i + 1]) for i in range(4)], 2)
        torch.testing.assert_close(model.encode(x), each)


def test_its_ratio_counts_numbers() -> None:
    config = CausalConfig(1, 2, (4, 4, 4, 4), (True, True, True))
    assert (config.space, config.time, config.ratio) == (8, 8, 256.0)
    patched = CausalConfig(1, 8, (4, 4, 4), (True, True), patch=2)
    assert (patched.space, patched.time, patched.ratio) == (8, 4, 32.0)
    assert [CausalAutoencoder(config).frames(n) for n in (1, 9, 17)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalConfig(widths=()), "one level or more"),
        (lambda: CausalConfig(halves=(True,)), "all levels but the first, 2, got 1"),
        (lambda: stirred(CONFIGS[0]).frames(8), r"1 \+ k \* 4 frames.*got 8"),
        (lambda: AutoencoderTraining(data=recipe("moving-digits").data), "got 8"),
        (lambda: stirred(CONFIGS[0]).encode(torch.zeros(1, 3, 5, 8, 8)), r"films must be \(B, 1"),
        (lambda: stirred(CONFIGS[0]).encode(torch.zeros(1, 1, 6, 8, 8)), "got 6"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_saved_one_encodes_alike(tmp_path: Path) -> None:
    model, x = stirred(CONFIGS[0]), film(CONFIGS[0])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half())
        again = CausalAutoencoder.load(model.save(tmp_path / "a.safetensors"))
        torch.testing.assert_close(again.encode(x), model.encode(x))
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="b.safetensors"):
        CausalAutoencoder.load(tmp_path / "b.safetensors")


def test_training_fits_the_latent_to_zero_mean_and_unit_variance(tmp_path: Path) -> None:
    config = AutoencoderTraining(
        model=replace(CONFIGS[0], widths=(4, 4), halves=(True,)),
        data=replace(AutoencoderTraining().data, shapes=((3, 20, 20),)),
        train=TrainConfig(steps=12, batch_size=8, lr=1e-2, warmup=1, device="cpu"),
    )
    task = AutoencoderTask(config, Endless(MovingDigits(digits())))
    batch = task.batch(torch.arange(8).numpy(), 1, torch.device("cpu"))
    assert batch.shape == (8, 1, 3, 20, 20)
    model = task.model()
    before = float(task.loss(model, batch, 0).mean.detach())
    state = run_training(task, config.train, tmp_path)
    made = task.finished(state.tensors()["model"])
    assert float(task.loss(made, batch, 0).mean.detach()) < 0.8 * before
    z = made.encode(batch, Noise(0))
    assert z.mean((0, 2, 3, 4)).abs().max() < 0.3
    assert (z.std((0, 2, 3, 4)) - 1).abs().max() < 0.3
