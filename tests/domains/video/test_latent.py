"""Laws of models of films in the latent of an autoencoder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sciffusion.domains.video import (
    CausalAutoencoder,
    CausalConfig,
    DataConfig,
    Film,
    ModelConfig,
    MovingDigits,
    TransformerConfig,
    VideoModel,
    VideoTask,
    VideoTraining,
    digits,
    load,
)
from sciffusion.domains.video.lessons import Endless
from sciffusion.layout import Dense
from sciffusion.noise import Noise

from .small import film

CONFIG = CausalConfig(
    latent=3, widths=(4, 8), halves=(True,)
)  # two frames, and two pixels, become one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained autoencoder all of whose layers act."""
    made, noise = CausalAutoencoder(CONFIG), Noise(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * noise.normal(p[None], Dense(1))[0])
    return made.save(tmp_path_factory.mktemp("a") / "autoencoder.safetensors")


def settings(file: Path | None) -> VideoTraining:
    network = TransformerConfig(patch=4, width=32, depth=1, heads=2, embedding=16)
    model = ModelConfig(shape=(7, 24, 24), network=network, attributes=("digit",))
    return VideoTraining(model, DataConfig(shapes=((7, 24, 24),)), autoencoder=file)


@pytest.fixture(scope="module")
def model(file: Path) -> VideoModel:
    task = VideoTask(settings(file), Endless(MovingDigits(digits())))
    net, generator = task.model(), torch.Generator().manual_seed(0)
    weights = {
        k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()
    }
    return VideoModel.from_training(task, weights)


def test_a_batch_holds_the_latents_of_films(file: Path) -> None:
    task = VideoTask(settings(file), Endless(MovingDigits(digits())))
    batch = task.batch(torch.arange(4).numpy(), 0, torch.device("cpu"))
    assert batch.x.shape == (4, 4, 3, 12, 12)
    assert batch.shown.shape == (4, 4)
    assert not batch.x.requires_grad
    task.loss(task.model(), batch, 0).mean.backward()


def test_films_are_decoded_in_their_length_and_size(model: VideoModel) -> None:
    assert model.sample(2, steps=1).stack().shape == (2, 7, 1, 24, 24)
    assert model.sample(1, frames=3, size=(21, 30), steps=1).stack().shape == (1, 3, 1, 21, 30)
    with pytest.raises(ValueError, match=r"1 \+ k \* 2 frames.*got 4"):
        model.sample(1, frames=4)


def test_a_picture_is_the_first_latent_frame_and_comes_back_bit_by_bit(model: VideoModel) -> None:
    picture = film().frames[2]
    made = model.animate(picture, 2, frames=5, steps=2)
    for one in made:
        assert torch.equal(one.frames[0], picture)
        assert len(one) == 5
    other = model.animate(film(seed=9).frames[2], 2, frames=5, steps=2)
    assert not torch.equal(made[0].frames[1:], other[0].frames[1:])
    z = model.encode([Film(picture[None])])
    torch.testing.assert_close(z, model.encode([Film(picture.expand(5, 1, 24, 24))])[:, :1])


def test_a_film_goes_on_by_any_number_of_frames_whatever_its_length(model: VideoModel) -> None:
    for given, more in ((6, 3), (1, 7), (7, 8)):
        begun = film(frames=given)
        made = model.extend(begun, given + more, 1, steps=1)[0]
        assert len(made) == given + more
        assert torch.equal(made.frames[:given], begun.frames)
    with pytest.raises(ValueError, match=r"1 \+ k \* 2 frames.*got 6"):
        model.extend(film(), 9, window=6)


def test_what_has_no_latents_of_its_own_is_refused(model: VideoModel) -> None:
    with pytest.raises(ValueError, match="interpolate_time needs a model of frames"):
        model.interpolate_time(film(), 2)
    with pytest.raises(ValueError, match="inpaint needs a model of frames"):
        model.inpaint(film(), torch.ones(6, dtype=torch.bool))


def test_a_saved_model_brings_its_autoencoder(model: VideoModel, tmp_path: Path) -> None:
    again = load(model.save(tmp_path / "m.safetensors"))
    assert again.config.codec == CONFIG
    x = [film(frames=5)]
    torch.testing.assert_close(again.encode(x), model.encode(x))


def test_settings_that_do_not_fit_are_refused(file: Path) -> None:
    lessons = Endless(MovingDigits(digits()))
    with pytest.raises(ValueError, match="model.codec needs autoencoder"):
        VideoTask(
            replace(settings(None), model=replace(settings(None).model, codec=CONFIG)), lessons
        )
    wrong = replace(CONFIG, latent=4)
    with pytest.raises(ValueError, match="another autoencoder than the file"):
        VideoTask(
            replace(settings(file), model=replace(settings(file).model, codec=wrong)), lessons
        )
    with pytest.raises(ValueError, match=r"1 \+ k \* 2 frames"):
        VideoTask(replace(settings(file), data=DataConfig(shapes=((8, 24, 24),))), lessons)
    with pytest.raises(ValueError, match="films with 3 channels"):
        ModelConfig(codec=replace(CONFIG, channels=3))
