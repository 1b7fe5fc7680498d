"""A model of images as a classifier: it tells what it was taught to make."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.domains.images import ImageModel, Images, load
from sciffusion.domains.images.datasets import split
from sciffusion.state import Value

from .small import shaken


def images(n: int, model: ImageModel) -> Images:
    generator = torch.Generator().manual_seed(1)
    shape = (n, model.config.channels, *model.config.size)
    return Images(torch.rand(shape, generator=generator))


def test_an_image_has_its_probabilities_in_any_batch() -> None:
    model = shaken()
    some = images(3, model)
    chances = model.classify(some, seed=2, draws=2, rounds=2)
    for name, p in chances.items():
        assert p.shape == (3, model.config.asked.sizes[name])
        np.testing.assert_allclose(p.sum(1), 1)
        alone = model.classify(some[:2], seed=2, draws=2, rounds=2)[name]
        np.testing.assert_allclose(alone, p[:2], atol=1e-4)
        assert not np.allclose(model.classify(some, seed=3, draws=2, rounds=2)[name], p, atol=1e-4)
    name = model.config.asked.names[0]
    with pytest.raises(ValueError, match="there is no attribute to tell"):
        model.classify(some, given=dict.fromkeys(model.config.asked.names))
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        model.classify(some, given={name: "none such"})


def test_the_class_is_that_which_explains_the_image() -> None:
    class Grey(Denoiser):
        """Images of class c are grey, c tenths of the way."""

        def __init__(self, model: ImageModel) -> None:
            super().__init__()
            self.process = model.denoiser.process
            self.levels = torch.nn.Parameter(levels)

        def forward(
            self,
            x_t: Value,
            t: torch.Tensor,
            cond: Condition = None,
            previous: Value | None = None,
        ) -> Prediction:
            assert isinstance(x_t, torch.Tensor)
            return Prediction(self.levels[cond["label"]].expand(x_t.shape), x_t, t, self.process)

    model = shaken()
    count = model.config.asked.sizes["label"]
    shades = torch.arange(count).reshape(-1, 1, 1, 1) / 10
    grey = Images(shades.expand(-1, model.config.channels, *model.config.size).contiguous())
    levels = model.encode(grey)[:, :1, :1, :1]
    told = replace(model, denoiser=Grey(model))  # type: ignore[arg-type]
    assert told.classify(grey)["label"].argmax(1).tolist() == list(range(count))


def test_the_shipped_model_reads_digits_that_it_was_not_shown() -> None:
    real = split("digits:test")[:20]
    chances = load("digits").classify(real)["label"]
    truth = np.asarray(real.labels["label"]).astype(str)
    classes = np.array(load("digits").config.asked.classes[0])
    assert (classes[chances.argmax(1)] == truth).mean() >= 0.85
