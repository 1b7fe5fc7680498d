"""Laws of adapters: nothing changes before training, the base never does, and the scale goes from it to what is new."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sciffusion.domains.images import Adapter, Images, ImageTask, load, train

from .small import bars, settings, shaken

KINDS = ["unet", "folded", "patches"]


def thick(images: Images) -> Images:
    """Bars of twice the width."""
    x = images.pixels
    return Images(torch.maximum(torch.maximum(x, x.roll(1, 2)), x.roll(1, 3)), images.labels)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adapter]:
    """The file of a model of thin bars, and an adapter to thick ones."""
    folder = tmp_path_factory.mktemp("lora")
    train(settings("folded", steps=60), folder / "base", bars(64))
    path = folder / "base" / "model.safetensors"
    config = replace(settings("folded", steps=120), base=str(path), rank=4)
    config = replace(config, train=replace(config.train, lr=2e-2))
    adapter, _ = train(config, folder / "adapter", thick(bars(64)))
    assert isinstance(adapter, Adapter)
    return path, adapter


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_terms_change_nothing_and_are_all_that_learns(kind: str, tmp_path: Path) -> None:
    base = shaken(kind)
    path = base.save(tmp_path / "base.safetensors")
    task = ImageTask(replace(settings(kind), base=str(path), rank=2), bars())
    model = task.model()
    before = load(path).denoiser
    x, t = torch.randn(2, 1, 6, 6), torch.tensor([0.2, 0.8])
    cond = {"label": torch.tensor([0, 1])}
    assert torch.equal(model(x, t, cond).x0, before(x, t, cond).x0)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learned and all(name.endswith((".down", ".up")) for name in learned)


def test_an_adapter_teaches_while_the_base_stays_as_it_is(taught: tuple[Path, Adapter]) -> None:
    path, adapter = taught
    model = load(path)
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    model.adapted(adapter)
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())

    # how well it predicts what the adapter was taught, on images that neither has seen
    config = replace(settings("folded"), base=str(path), rank=4)
    task = ImageTask(config, thick(bars(8)), thick(bars(64, seed=1)))
    losses = [
        task.validate(model.adapted(adapter, scale).denoiser, 0)["loss"] for scale in (0, 0.5, 1)
    ]
    assert losses[0] == task.validate(model.denoiser, 0)["loss"]
    assert losses == sorted(losses, reverse=True) and losses[2] < 0.9 * losses[0]


def test_an_adapted_model_is_one_as_any_other(taught: tuple[Path, Adapter], tmp_path: Path) -> None:
    path, adapter = taught
    model = load(path)
    file = adapter.save(tmp_path / "thick.safetensors")
    assert file.stat().st_size < path.stat().st_size / 2
    made = model.adapted(file)
    # weights are rounded to float16 in a file
    again = load(made.save(tmp_path / "merged.safetensors"))
    found = again.denoiser.state_dict()
    for name, weight in made.denoiser.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)
    # it can be taught again, and learn as before
    twice = model.adapted(adapter).adapted(adapter, -1.0).denoiser.state_dict()
    for name, weight in model.denoiser.state_dict().items():
        torch.testing.assert_close(twice[name], weight, rtol=0, atol=1e-5)
    assert {n for n, p in made.denoiser.named_parameters() if p.requires_grad} == {
        n for n, p in model.denoiser.named_parameters() if p.requires_grad
    }


def test_adapters_that_do_not_fit_are_refused(taught: tuple[Path, Adapter], tmp_path: Path) -> None:
    path, adapter = taught
    with pytest.raises(ValueError, match="tensors hold no pair"):
        shaken("patches").adapted(adapter)
    with pytest.raises(ValueError, match="not an adapter of a model of images"):
        load(path).adapted(path)
    with pytest.raises(ValueError, match="rank is that of an adapter"):
        ImageTask(replace(settings(), rank=4), bars())
    with pytest.raises(ValueError, match="rank must be between 1 and"):
        ImageTask(replace(settings(), base=str(path), rank=400), bars()).model()
