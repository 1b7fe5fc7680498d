"""Pictures of words and scenes: what is drawn is what labels, captions and the reading of pixels say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.images import Images
from sciffusion.domains.images.captions import GlyphCaptions, SceneCaptions
from sciffusion.domains.images.datasets import get_glyphs, get_scenes, glyphs, scenes


def labels(**fixed: str) -> dict[str, np.ndarray]:
    """The labels of one word."""
    found = {"word": "cat", "colour": "red", "row": "top", "column": "left"} | fixed
    return {k: np.array([v]) for k, v in found.items()}


def ink(**fixed: str) -> np.ndarray:
    """Where a word's picture is brighter than any ground, (H, W)."""
    return glyphs.render(labels(**fixed), np.random.default_rng(0))[0].max(-1) > 110


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (glyphs, scenes):
        monkeypatch.setattr(module, "TRAIN", 120)
        monkeypatch.setattr(module, "TEST", 40)


@pytest.mark.usefixtures("few")
def test_the_pictures_are_always_the_same_and_test_words_are_new() -> None:
    images, again = get_glyphs()[0], get_glyphs()[0]
    assert torch.equal(images.pixels, again.pixels)
    assert images.size == (24, 40) and len(images) == 160
    part, word = images.labels["part"], images.labels["word"]
    held = {w for w in word[part == "test"] if len(w) > 1}
    assert held and not held & set(word[part == "train"])
    with pytest.raises(ValueError, match="drawn here: leave path out"):
        get_glyphs(Path("glyphs.npz"))


def test_no_training_word_is_one_to_leave_out() -> None:
    rng = np.random.default_rng(0)
    all_pairs = {a + b for a in glyphs.LETTERS for b in glyphs.LETTERS}
    words = glyphs.strings(200, rng, without=all_pairs)
    assert {len(w) for w in words} == {1, 3, 4}


def test_words_stand_where_their_labels_say() -> None:
    def centre(**where: str) -> np.ndarray:
        return np.argwhere(ink(**where)).mean(0)

    rows = [centre(row=row)[0] for row in glyphs.ROWS]
    columns = [centre(column=column)[1] for column in glyphs.COLUMNS]
    assert np.all(np.diff(rows) > 2) and np.all(np.diff(columns) > 2)
    y, x = np.nonzero(ink(row="bottom", column="right", word="mmmm"))
    assert x.max() < 40 and y.max() < 24 and x.min() >= 0  # the longest word fits


def test_colours_and_letters_show() -> None:
    for name in glyphs.COLOURS:
        picture = glyphs.render(labels(colour=name), np.random.default_rng(0))[0].astype(float)
        brightest = picture.reshape(-1, 3)[picture.sum(-1).argmax()]
        far = {k: np.abs(brightest - v).sum() for k, v in glyphs.COLOURS.items()}
        assert min(far, key=lambda k: far[k]) == name
    pictures = [ink(word=letter) for letter in glyphs.LETTERS]
    assert len({p.tobytes() for p in pictures}) == 26


def test_grounds_and_shades_vary() -> None:
    six = {k: np.repeat(v, 6) for k, v in labels().items()}
    made = glyphs.render(six, np.random.default_rng(0))
    assert len({int(x[-1, -1, 0]) for x in made}) > 3


def test_detailed_captions_say_all_and_coarse_ones_the_word() -> None:
    row = {k: v[0] for k, v in labels().items()}
    rng, source = np.random.default_rng(0), GlyphCaptions()
    coarse = {source.draw(row, rng, False) for _ in range(20)}
    detailed = {source.draw(row, rng, True) for _ in range(20)}
    assert len(coarse) == len(source.COARSE) and len(detailed) == len(source.DETAILED)
    for text in coarse | detailed:
        assert '"cat"' in text
    for text in detailed:
        assert "red letters" in text and "at the top left" in text
    assert not any("red" in text for text in coarse)
    middle = {**row, "row": "middle", "column": "centre"}
    assert source.draw(middle, rng, True).endswith("in the middle")
    assert "at the right" in source.draw({**middle, "column": "right"}, rng, True)


@pytest.mark.usefixtures("few")
def test_a_share_of_the_texts_is_detailed() -> None:
    images = get_glyphs()[0]
    source = GlyphCaptions()
    for share, least, most in ((0.0, 0, 0), (0.5, 50, 110), (1.0, 160, 160)):
        texts = source.texts(images, 3, share)
        assert least <= sum("letters" in text for text in texts) <= most
        assert texts == source.texts(images, 3, share)


@pytest.mark.usefixtures("few")
def test_scenes_are_read_back_as_they_were_drawn() -> None:
    images, _ = get_scenes()
    seen = scenes.read_scenes(images)
    for name, values in seen.items():
        assert np.array_equal(values, images.labels[name]), name
    blank = Images(torch.zeros(2, 3, 24, 24))
    assert not any("".join(v) for v in scenes.read_scenes(blank).values())
    with pytest.raises(ValueError, match="drawn here: leave path out"):
        get_scenes(Path("scenes.npz"))


@pytest.mark.usefixtures("few")
def test_a_scene_mirrored_is_read_the_other_way_round() -> None:
    images, _ = get_scenes()
    beside = images[images.labels["relation"] == "left of"]
    seen = scenes.read_scenes(Images(beside.pixels.flip(3)))
    assert np.array_equal(seen["colour1"], beside.labels["colour2"])
    assert np.array_equal(seen["shape2"], beside.labels["shape1"])
    assert set(seen["relation"]) == {"left of"}


def test_either_shape_may_be_named_first() -> None:
    row = {"shape1": "square", "colour1": "red", "size1": "large", "relation": "left of"}
    row |= {"shape2": "circle", "colour2": "blue", "size2": "small"}
    rng, source = np.random.default_rng(0), SceneCaptions()
    assert {source.draw(row, rng, True) for _ in range(20)} == {
        "a large red square left of a small blue circle",
        "a small blue circle right of a large red square",
    }
    assert {source.draw(row, rng, False) for _ in range(20)} == {
        "a square and a circle",
        "a circle and a square",
    }
    above = source.draw({**row, "relation": "above"}, rng, True)
    assert above in (
        "a large red square above a small blue circle",
        "a small blue circle below a large red square",
    )
