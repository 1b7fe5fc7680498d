"""Laws of control by edges: nothing changes before training, the base never does, and what was learned shows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.images import ImageModel, ImageTask, load, train
from sciffusion.domains.images.control import edges

from .small import bars, settings, shaken


@pytest.mark.parametrize("kind", ["unet", "folded", "patches", "latent"])
def test_an_untrained_control_changes_nothing_bit_by_bit(kind: str) -> None:
    base = shaken(latent=True) if kind == "latent" else shaken(kind)
    model = base.controlled()
    wanted = base.sample(2, steps=2, seed=4)
    for given in ({}, {"edges": bars(2)}, {"edges": torch.rand(1, 1, 6, 6)}):
        assert torch.equal(model.sample(2, steps=2, seed=4, given=given).pixels, wanted.pixels)


def test_edges_are_the_gradient_of_what_is_seen() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 16
    inside = edges(ramp)[..., 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 2 / 16))
    assert torch.equal(edges(ramp.mT), edges(ramp).mT)
    assert edges(torch.full((1, 1, 5, 5), 0.7)).max() < 1e-6
    step = (torch.arange(8.0) > 3).float().expand(1, 1, 8, 8)
    assert edges(step).max() == 1


def test_training_a_control_leaves_the_base_and_brings_the_edges(tmp_path: Path) -> None:
    base, _ = train(settings("folded", steps=60), tmp_path / "base", bars(64))
    assert isinstance(base, ImageModel)
    path = tmp_path / "base" / "model.safetensors"
    config = replace(settings("folded", steps=100), base=str(path))
    config = replace(config, train=replace(config.train, lr=1e-2))
    model, _ = train(config, tmp_path / "control", bars(64))
    assert isinstance(model, ImageModel) and model.config.control == "edges"
    after = model.denoiser.state_dict()
    for name, before in load(path).denoiser.state_dict().items():
        assert torch.equal(before, after[name.replace("net.", "net.base.", 1)])
    wanted = bars(24, seed=8)
    given = {"label": wanted.labels["label"].tolist(), "edges": wanted}
    target = edges(wanted.to_floats().pixels)

    def error(one: ImageModel) -> float:
        made = one.sample(24, given=given, steps=8, guidance=1.0)
        return float((edges(made.pixels) - target).square().mean())

    assert error(model) < 0.85 * error(load(path).controlled())
    same = load(model.save(tmp_path / "m.safetensors"))
    assert same.config == model.config


def test_a_batch_shows_the_edges_of_its_images(tmp_path: Path) -> None:
    base = shaken()
    path = base.save(tmp_path / "base.safetensors")
    config = replace(settings(), base=str(path))
    config = replace(config, objective=replace(config.objective, flip=0.5))
    task = ImageTask(config, bars())
    x, cond = task.batch(torch.arange(24).numpy(), 3, torch.device("cpu"))
    torch.testing.assert_close(cond["edges"], edges(task.codec.decode(x)))
    assert torch.equal(task.codec.affine.mean, base.codec.affine.mean)


def test_classes_and_edges_are_dropped_apart_in_training(tmp_path: Path) -> None:
    path = shaken().save(tmp_path / "base.safetensors")
    config = replace(settings(), base=str(path))
    objective = replace(config.objective, drop=0.5, drop_control=0.3)
    task = ImageTask(replace(config, objective=objective), bars())
    seen = watched(model := task.model())
    batch = task.batch(torch.arange(24).numpy(), 0, torch.device("cpu"))
    for key in range(20):
        task.loss(model, batch, key)
    asked = torch.cat([cond["label"] for cond in seen]) < 2
    shown = torch.cat([cond["edges"] for cond in seen]).flatten(1).any(1)
    # 480 pairs of independent events: four standard deviations are less than 0.1
    for a, b, share in ((asked, shown, 0.35), (~asked, shown, 0.35), (asked, ~shown, 0.15)):
        assert float((a & b).float().mean()) == pytest.approx(share, abs=0.1)


def test_guidance_by_a_class_keeps_the_edges() -> None:
    model = shaken().controlled()
    seen = watched(model.denoiser)
    given = {"label": ["down", "across"], "edges": bars(2)}
    model.sample(2, given=given, steps=2, guidance=2.0)
    hint = edges(bars(2).to_floats().pixels)
    for cond in seen:
        for i in range(0, len(cond["edges"]), 2):
            assert torch.equal(cond["edges"][i : i + 2], hint)
    asked = torch.cat([cond["label"] for cond in seen])
    assert sorted(asked.tolist()) == [0, 0, 1, 1, 2, 2, 2, 2]


def watched(model: nn.Module) -> list[dict[str, Tensor]]:
    """The conditions that the network of a denoiser is given, as they come."""
    seen: list[dict[str, Tensor]] = []
    net = model.get_submodule("net")
    net.register_forward_pre_hook(lambda module, inputs: seen.append(dict(inputs[2])))
    return seen


def test_hints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = shaken().controlled()
    with pytest.raises(ValueError, match=r"edges must be Images, or a tensor \(N, 1, H, W\)"):
        model.sample(2, given={"edges": torch.zeros(6, 6)})
    with pytest.raises(ValueError, match="edges hold 3 pictures for 2 images"):
        model.sample(2, given={"edges": bars(3)})
    with pytest.raises(
        ValueError, match="edges must be 6 x 6 pixels, as the images are, got 7 x 7"
    ):
        model.sample(2, given={"edges": bars(2, size=7)})
    with pytest.raises(ValueError, match="edges run from 0 to 1, got 0 to 255"):
        model.sample(2, given={"edges": 255 * (torch.arange(36.0) > 17).view(1, 1, 6, 6)})
    with pytest.raises(ValueError, match="given names 'edges', but this model knows label"):
        shaken().sample(2, given={"edges": bars(2)})
    with pytest.raises(ValueError, match="under control already"):
        model.controlled()
    path = model.save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is under control already"):
        ImageTask(replace(settings(), base=str(path)), bars())
