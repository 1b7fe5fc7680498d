"""The models that ship do what they are asked, heard by the judges that ship."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sciffusion.domains import audio
from sciffusion.domains.audio import Clips
from sciffusion.domains.audio.captions import DigitCaptions
from sciffusion.domains.audio.judges import Judge


def heard(clips: Clips, name: str, judge: str, wanted: list[str]) -> float:
    """The share of clips in which a judge hears what was wanted."""
    return float(Judge.load(judge)(clips).right(name, wanted).mean())


def test_models_that_ship_are_named_the_default_one_first() -> None:
    assert list(audio.models()) == ["fsdd", "fsdd-band", "fsdd-text", "notes"]


@pytest.mark.parametrize("name", ["fsdd", "fsdd-text", "notes"])
def test_a_recipe_says_of_what_network_its_model_is_and_how_it_is_sampled(name: str) -> None:
    recipe, model = audio.recipe(name), audio.load(name)
    assert isinstance(recipe, audio.AudioTraining) and isinstance(model, audio.AudioModel)
    assert model.sampling == recipe.sampling
    assert replace(model.config, classes=()) == replace(recipe.model, classes=())


def test_digits_are_said() -> None:
    wanted = [str(i) for i in range(10)]
    clips = audio.load("fsdd").sample(10, {"digit": wanted}, seed=0)
    assert heard(clips, "digit", "fsdd", wanted) >= 0.9


def test_texts_in_words_that_were_held_out_are_understood() -> None:
    pytest.importorskip("wordllama")
    digits, rng = [0, 3, 7, 9], np.random.default_rng(0)
    labels = [{"digit": d, "speaker": "theo"} for d in digits]
    texts = [DigitCaptions().draw(row, rng, held_out=True) for row in labels]
    clips = audio.load("fsdd-text").sample(4, {"text": texts}, seed=0)
    assert heard(clips, "digit", "fsdd", [str(d) for d in digits]) == 1


def test_notes_are_played_on_the_instrument_asked_for() -> None:
    wanted = ["flute", "harp", "cello", "oboe"]
    clips = audio.load("notes").sample(4, {"instrument": wanted, "pitch": 69}, seed=0)
    assert heard(clips, "instrument", "notes", wanted) >= 0.75


def test_judge_and_vocoder_are_shown_in_a_line() -> None:
    assert repr(Judge.load("fsdd")) == "Judge(fsdd, digit, speaker, 99,840 parameters)"
    assert repr(audio.Vocoder.load("fsdd")) == "Vocoder(8000 Hz, 1,256,513 parameters)"
