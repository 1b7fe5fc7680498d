"""Laws of training: batches are those of their key, conditions are dropped as asked, recipes load, and it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.config import ConfigError
from sciffusion.domains.images import (
    Autoencoder,
    AutoencoderTraining,
    Classifier,
    ClassifierConfig,
    ClassifierTask,
    ClassifierTraining,
    DataConfig,
    ImageModel,
    Images,
    ImageTask,
    recipe,
    train,
)
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig

from .small import CODEC, bars, settings

CPU = torch.device("cpu")
SHORT = TrainConfig(steps=120, batch_size=16, lr=1e-2, warmup=5, validate_every=60, log_every=20)


def test_what_is_noised_has_zero_mean_and_unit_variance() -> None:
    images = bars(40, channels=3)
    task = ImageTask(settings(channels=3), images)
    x, _ = task.batch(np.arange(40), 0, CPU)
    assert x.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(task.codec.decode(x), images.to_floats().pixels)


def test_a_batch_is_that_of_its_rows_and_key() -> None:
    config = settings()
    config = replace(config, objective=replace(config.objective, flip=0.5))
    images = bars(200)
    task = ImageTask(config, images)
    one, two, other = (task.batch(np.arange(200), key, CPU) for key in (1, 1, 2))
    assert torch.equal(one[0], two[0]) and not torch.equal(one[0], other[0])
    assert torch.equal(one[1]["label"], torch.arange(200) % 2)
    plain = task.codec.encode(images.to_floats().pixels)
    flipped = (one[0] != plain).flatten(1).any(1)
    assert torch.equal(one[0][flipped], plain.flip(3)[flipped])
    assert 0.35 < float(flipped.float().mean()) < 0.65


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    task = ImageTask(settings(), bars())
    model, (x, cond) = task.model(), task.batch(np.arange(4), 5, CPU)
    objective = replace(task.objective, drop=0.0)
    whole = objective(model, x, cond, noise=Noise([1, 2, 3, 4])).per_sample
    for i in range(4):
        mine = {k: v[i : i + 1] for k, v in cond.items()}
        alone = objective(model, x[i : i + 1], mine, noise=Noise([i + 1])).per_sample
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["folded", "patches"])
def test_training_lowers_the_loss_and_leaves_a_model(network: str, tmp_path: Path) -> None:
    config = settings(network, steps=90, every=90)
    task = ImageTask(config, bars(64), bars(32, seed=1))
    before = task.validate(task.model(), 0)["loss"]
    model, state = train(config, tmp_path, bars(64), bars(32, seed=1))
    assert isinstance(model, ImageModel)
    assert task.validate(model.denoiser, 0)["loss"] < 0.9 * before
    assert state.step == 90 and (tmp_path / "model.safetensors").is_file()


def test_a_model_of_latents_learns_from_an_autoencoder_s_file(tmp_path: Path) -> None:
    config = AutoencoderTraining(model=CODEC, kl=1e-4, train=SHORT)
    codec, _ = train(config, tmp_path / "codec", bars(96), bars(32, seed=1))
    assert isinstance(codec, Autoencoder)
    held = bars(32, seed=2).to_floats().pixels
    with torch.no_grad():
        z = codec.encode(held)
        error = float((codec.decode(z) - held).square().mean())
    assert z.shape == (32, 2, 3, 3)
    assert error < 0.5 * float(held.var())
    path = tmp_path / "codec" / "model.safetensors"
    latent = replace(settings(steps=20), autoencoder=path)
    task = ImageTask(latent, bars(96))
    x, _ = task.batch(np.arange(96), 0, CPU)
    assert x.mean((0, 2, 3)).abs().max() < 0.2
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.2
    model, _ = train(latent, tmp_path / "latent", bars(96))
    assert isinstance(model, ImageModel)
    assert model.config.codec == CODEC
    assert model.sample(2, steps=2).size == (6, 6)
    # the model's file holds the autoencoder too
    path.unlink()
    assert ImageModel.from_file(tmp_path / "latent" / "model.safetensors").codec is not None


def test_a_classifier_learns_classes_and_its_file_says_how_well(tmp_path: Path) -> None:
    config = ClassifierTraining(model=ClassifierConfig(widths=(8, 16), features=8), train=SHORT)
    judge, _ = train(config, tmp_path, bars(96), bars(64, seed=1))
    assert isinstance(judge, Classifier)
    assert judge.info["accuracy"] > 0.95
    same = Classifier.load(tmp_path / "model.safetensors")
    assert same.info["accuracy"] == judge.info["accuracy"] and same.info["held_out"] == 64
    images = bars(20, seed=3)
    assert same.features(images).shape == (20, 8)
    torch.testing.assert_close(same.features(images[:7]), same.features(images)[:7])
    told = [same.config.classes[i] for i in same.probabilities(images).argmax(1).tolist()]
    assert np.mean(np.array(told) == images.labels["label"]) > 0.9
    with pytest.raises(ValueError, match="knows images of 6 x 6 and 1 channels, got Images"):
        same.features(bars(2, size=7))


def test_a_classifier_s_pictures_are_moved_by_no_more_than_asked() -> None:
    task = ClassifierTask(ClassifierTraining(shift=1), bars(100))
    x, y = task.batch(np.arange(100), 3, CPU)
    plain = bars(100).to_floats().pixels
    moved = (x != plain).flatten(1).any(1)
    assert 0.7 < float(moved.float().mean()) < 1
    wide = torch.nn.functional.pad(plain, (1, 1, 1, 1), mode="replicate")
    crops = [wide[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    assert bool(torch.stack([(x == c).flatten(1).all(1) for c in crops]).any(0).all())
    assert torch.equal(y, torch.arange(100) % 2)


def test_every_recipe_loads_and_its_mistakes_are_told() -> None:
    for name in ("digits", "fashion", "digits-classifier", "fashion-classifier"):
        assert recipe(name).data.source.endswith(":train")
    assert isinstance(recipe("fashion-classifier"), ClassifierTraining)
    with pytest.raises(FileNotFoundError, match="Did you mean 'fashion'"):
        recipe("fashon")
    with pytest.raises(ConfigError, match="train.stesp: unknown key; did you mean train.steps"):
        recipe("digits", ["train.stesp=3"])


def test_an_unknown_kind_of_training_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("kind: gan\n")
    with pytest.raises(ConfigError, match="'gan' .*is not one of diffusion"):
        recipe(tmp_path / "x.yaml")


def test_data_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    config = settings()
    wrong = replace(config, model=replace(config.model, attributes=("digit",)))
    with pytest.raises(ValueError, match="names 'digit'; labels of the data: label"):
        ImageTask(wrong, bars())
    with pytest.raises(ValueError, match="6 x 6 pixels and 1 channels, got Images.*RGB"):
        ImageTask(config, bars(), bars(channels=3))
    with pytest.raises(ValueError, match="model.codec needs autoencoder"):
        ImageTask(replace(config, model=replace(config.model, codec=CODEC)), bars())
    with pytest.raises(ValueError, match="model.channels is 1, but the images have 3"):
        train(AutoencoderTraining(model=CODEC), tmp_path, bars(channels=3))
    with pytest.raises(ValueError, match="autoencoder is one of images with 1 channels"):
        replace(config.model, channels=3, codec=CODEC)
    with pytest.raises(ValueError, match="model.attribute is 'label'; labels of the images: none"):
        train(ClassifierTraining(), tmp_path, Images(bars().pixels))


def test_a_folder_is_learned_from_by_its_path(tmp_path: Path) -> None:
    bars(12).save(tmp_path / "mine")
    found = DataConfig(source=str(tmp_path / "mine"), limit=10).load()
    assert len(found) == 10 and set(found.labels["label"]) <= {"across", "down"}
