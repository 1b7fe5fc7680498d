"""Laws of a trained model: seeds, batches, what is asked for, sizes, files, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.denoiser import Denoiser
from sciffusion.domains.images import Guide, ImageModel, Images, SamplingConfig, load
from sciffusion.guidance import CFG, Interval
from sciffusion.sampling import Condition
from sciffusion.training import export

from .small import bars, shaken


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return shaken()


def close(a: Images, b: Images, atol: float = 2e-5) -> None:
    torch.testing.assert_close(a.pixels, b.pixels, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", ["unet", "folded", "patches", "latent"])
def test_an_image_depends_on_seed_and_place_alone(kind: str) -> None:
    model = shaken("unet", latent=True) if kind == "latent" else shaken(kind)
    many = model.sample(5, seed=3, steps=3, batch_size=2)
    assert many.size == (6, 6) and many.pixels.std() > 0.01
    close(many[:3], model.sample(3, seed=3, steps=3))
    other = model.sample(5, seed=4, steps=3)
    assert float((many.pixels - other.pixels).abs().max()) > 0.01


def test_what_is_asked_for_is_what_the_labels_say_and_all_classes_come_in_turn(
    model: ImageModel,
) -> None:
    assert model.sample(5, steps=1).labels["label"].tolist() == ["across", "down"] * 2 + ["across"]
    asked = model.sample(3, given={"label": ["down", 0, None]}, steps=1)
    assert asked.labels["label"].tolist() == ["down", "across", ""]
    one, two = (
        model.sample(2, given={"label": name}, steps=3, guidance=1.0) for name in ("down", "across")
    )
    assert float((one.pixels - two.pixels).abs().max()) > 1e-3


def test_guidance_is_a_scale_or_anything_of_the_core(model: ImageModel) -> None:
    def core(denoiser: Denoiser, cond: Condition, null: Condition) -> Denoiser:
        return CFG(denoiser, cond, null, 3.0)

    def images(guidance: object, model: ImageModel = model) -> Images:
        return model.sample(2, steps=3, guidance=guidance)  # type: ignore[arg-type]

    close(images(3.0), images(core))
    close(images(None), images(model.sampling.scale))
    close(images(1.0), images(Guide(3.0, weak=model.denoiser)))
    never = replace(model, sampling=replace(model.sampling, low=50.0))
    close(images(1.0), images(3.0, never))
    assert float((images(1.0).pixels - images(3.0).pixels).abs().max()) > 1e-3
    around = model.guided(model.condition({"label": "down"}, 2), 2.0)
    assert isinstance(around, Interval)
    assert not isinstance(model.guided(model.condition({}, 2), 2.0), Interval)


@pytest.mark.parametrize("kind", ["unet", "folded", "patches", "latent"])
@pytest.mark.parametrize("size", [(5, 7), (9, 4)])
def test_odd_sizes_come_out_as_asked(kind: str, size: tuple[int, int]) -> None:
    model = shaken("unet", latent=True) if kind == "latent" else shaken(kind)
    made = model.sample(2, size=size, steps=2)
    assert made.size == size
    x = model.encode(made)
    assert x.shape[1:] == model.config.shape(size)
    back = model.decode(x, made.size)
    assert back.size == size
    if kind != "latent":
        close(back, made)


def test_the_latent_is_conditioned_by_its_own_affine_map() -> None:
    model = shaken(latent=True)
    z = model.encode(bars())
    spread = model.codec.posterior(bars().to_floats().pixels)[1]
    assert spread is not None
    inside = (spread / model.codec.affine.std.view(1, -1, 1, 1)).square().mean((0, 2, 3))
    assert z.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(z.var((0, 2, 3), correction=0) + inside, torch.ones(2))


def test_a_file_brings_everything_back_up_to_half_precision(tmp_path: Path) -> None:
    for model in (shaken(channels=3), shaken(latent=True)):
        model = replace(model, sampling=SamplingConfig(steps=5, scale=2.0), info={"n": 1})
        same = load(model.save(tmp_path / "m.safetensors"))
        assert same.config == model.config and same.sampling == model.sampling
        assert same.info == {"n": 1}
        assert torch.equal(same.codec.affine.std, model.codec.affine.std)
        again = load(same.save(tmp_path / "n.safetensors"))
        close(same.sample(2, steps=2), again.sample(2, steps=2))
        close(same.sample(2, steps=2), model.sample(2, steps=2), atol=0.05)


def test_what_it_cannot_do_is_refused_by_name(model: ImageModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="Did you mean 'label'"):
        model.sample(1, given={"lable": "down"})
    with pytest.raises(ValueError, match="label must be one of across, down, or a number below 2"):
        model.sample(1, given={"label": "dwon"})
    with pytest.raises(ValueError, match="got 2"):
        model.sample(1, given={"label": 2})
    with pytest.raises(ValueError, match="label has 3 values for 2 samples"):
        model.sample(2, given={"label": ["down"] * 3})
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        model.sample(1, steps=0)
    with pytest.raises(ValueError, match=r"size must be positive, got \(0, 4\)"):
        model.sample(1, size=(0, 4))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        model.sample(1, batch_size=0)
    with pytest.raises(ValueError, match="knows grey images, got .*read them with grey=True"):
        model.edit(bars(2, channels=3))
    with pytest.raises(
        FileNotFoundError, match="no model 'digts': not a file, and none that ships"
    ):
        load("digts")
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="holds 'audio', not a model of images"):
        load(tmp_path / "other.safetensors")


def test_labels_are_arrays_of_text(model: ImageModel) -> None:
    labels = model.sample(2, given={"label": np.array(["down", "across"])}, steps=1).labels["label"]
    assert labels.dtype.kind == "U" and labels.tolist() == ["down", "across"]
