"""What ships: small files, described, whose samples are what they were asked for in the eyes of their judges."""

import numpy as np
import pytest
import torch

from sciffusion.domains.images import (
    ImageModel,
    Images,
    evaluate,
    judges,
    load,
    load_judge,
    models,
)
from sciffusion.domains.images.captions import GlyphCaptions
from sciffusion.domains.images.control import edges
from sciffusion.domains.images.datasets import glyphs


def test_weights_are_small_and_say_what_they_are_of() -> None:
    assert list(models())[0] == "digits"
    for name, path in models().items():
        assert path.stat().st_size < 3e6
        info = load(name).info or {}
        assert info["data"] and info["figures"]["accuracy"] > 0.9
    for name, path in judges().items():
        assert path.stat().st_size < 3e5
        assert 0.9 < load_judge(name).info["accuracy"] < 1


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_samples_are_of_the_class_that_was_asked_for(name: str) -> None:
    model = load(name)
    made = model.sample(30, seed=1)
    assert evaluate(made)["accuracy"].value >= 0.85
    # and of another, if the labels are turned
    turned = Images(made.pixels, {"label": np.roll(made.labels["label"], 1)})
    assert evaluate(turned)["accuracy"].value <= 0.15


def test_the_control_that_ships_follows_edges_over_the_model_that_ships() -> None:
    base, model = load("fashion"), load("fashion-edges")
    inside = model.denoiser.state_dict()
    for name, weight in base.denoiser.state_dict().items():
        assert torch.equal(inside[name.replace("net.", "net.base.", 1)], weight)
    wanted = base.sample(10, seed=3)
    given = {"label": wanted.labels["label"].tolist()}
    hint = edges(wanted.pixels)

    def agreement(one: ImageModel, more: dict[str, object]) -> float:
        found = edges(one.sample(10, given=given | more, seed=4).pixels)
        return float(torch.corrcoef(torch.stack([found.flatten(), hint.flatten()]))[0, 1])

    followed = agreement(model, {"edges": wanted})
    assert followed > 0.8 and followed > agreement(base, {}) + 0.2


def test_an_edit_brings_an_image_into_another_class() -> None:
    model = load("digits")
    sevens = model.sample(12, given={"label": 7}, seed=2)
    threes = model.edit(sevens, 0.9, given={"label": 3}, seed=0, guidance=2.0)
    assert evaluate(threes)["accuracy"].value >= 0.75
    few = model.edit(sevens, 0.2, given={"label": 7}, seed=0)
    near, far = (float((x.pixels - sevens.pixels).square().mean()) for x in (few, threes))
    assert near < far


def test_words_that_were_never_seen_are_spelled() -> None:
    words = glyphs.strings(glyphs.TEST, np.random.default_rng(20))
    words = [word for word in words if len(word) == 4][:12]
    rng = np.random.default_rng(0)
    labels = glyphs.drawn(words, rng)
    rows = [{k: v[i] for k, v in labels.items()} for i in range(len(words))]
    texts = [GlyphCaptions().draw(row, rng, True) for row in rows]
    made = load("glyphs").sample(len(words), given={"text": texts}, seed=1)

    def ink(images: Images) -> torch.Tensor:
        bright = images.to_floats().pixels.amax(1)
        return bright / bright.amax((1, 2), keepdim=True)

    right = 0
    for row, seen in zip(rows, ink(made), strict=True):
        word, left = row["word"], 4 * glyphs.COLUMNS.index(row["column"])
        for k in range(4):  # the nearest of 26 letters at this place
            others = np.array([word[:k] + c + word[k + 1 :] for c in glyphs.LETTERS])
            drawn = {key: np.repeat(value, 26) for key, value in row.items()} | {"word": others}
            far = (ink(Images.of(glyphs.render(drawn, rng))) - seen).square()
            place = far[:, :, left + 8 * k : left + 8 * k + 8].sum((1, 2))
            right += glyphs.LETTERS[int(place.argmin())] == word[k]
    assert right >= 0.85 * 48
