"""Captions: true of the labels, and what is held out is not learned from."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.audio.captions import (
    DIGITS,
    INSTRUMENTS,
    LOUD,
    PACE,
    PITCH,
    SPEAKERS,
    TONE,
    Captions,
    DigitCaptions,
    NoteCaptions,
    qualities,
    side,
)
from sciffusion.domains.audio.task import AudioTask
from sciffusion.text import StaticEncoder

from .small import settings, tones

MEASURED = Path(__file__).parents[3] / "benchmarks" / "results" / "audio_voices.json"


def many(source: Captions, labels: dict[str, object], held_out: bool = False) -> set[str]:
    rng = np.random.default_rng(0)
    return {source.draw(labels, rng, held_out=held_out) for _ in range(300)}


def test_the_figures_are_those_that_were_measured() -> None:
    found = json.loads(MEASURED.read_text())
    assert found["speakers"] == SPEAKERS
    assert {k: v["brightness"] for k, v in found["instruments"].items()} == INSTRUMENTS


def test_a_third_of_the_values_lies_on_either_side() -> None:
    assert [side(v, [5, 1, 4, 2, 3, 6]) for v in (1, 2, 3, 4, 5, 6)] == [-1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("speaker", list(SPEAKERS))
def test_texts_name_the_digit_and_only_qualities_of_the_speaker(
    speaker: str, held_out: bool
) -> None:
    lies = qualities(speaker)
    for text in many(DigitCaptions(), {"digit": 7, "speaker": speaker}, held_out):
        words = re.findall(r"[a-z-]+", text)
        assert [w for w in words if w in DIGITS] == ["seven"]
        assert not (set(SPEAKERS) - {speaker}) & set(words)
        for kind, table in (("pitch", PITCH), ("pace", PACE), ("tone", TONE)):
            for s in (-1, 1):
                if lies.get(kind) != s:
                    both = {*table.all(s, False), *table.all(s, True)}
                    assert not both & set(words), text


def test_a_text_without_a_speaker_says_nothing_of_one() -> None:
    described = {w for t in (PITCH, PACE, TONE) for s in (-1, 1) for w in t.all(s, False)}
    for text in many(DigitCaptions(), {"digit": 0, "speaker": None}):
        assert not (described | set(SPEAKERS)) & set(text.split())


@pytest.mark.parametrize(("pitch", "name"), [(60, "C 4"), (69, "A 4"), (61, "C sharp 4")])
def test_texts_of_notes_name_pitch_instrument_and_loudness(pitch: int, name: str) -> None:
    for velocity, s in ((60, -1), (110, 1)):
        labels: dict[str, object] = {"instrument": "oboe", "pitch": pitch, "velocity": velocity}
        for text in many(NoteCaptions(), labels):
            assert name in text and "oboe" in text
            assert any(w in text for w in LOUD.all(s, False))
            assert not any(w in text for w in LOUD.all(-s, False))


@pytest.mark.parametrize("source", [DigitCaptions(), NoteCaptions()])
def test_held_out_phrasings_and_words_are_never_learned_from(source: Captions) -> None:
    assert not set(source.phrasings()) & set(source.phrasings(held_out=True))
    for table in (PITCH, PACE, TONE, LOUD):
        assert not {*table.low, *table.high} & {*table.low_held, *table.high_held}
    if isinstance(source, DigitCaptions):
        for speaker in SPEAKERS:
            labels: dict[str, object] = {"digit": 3, "speaker": speaker}
            assert not many(source, labels) & many(source, labels, True)


def test_a_seed_fixes_the_text() -> None:
    labels: dict[str, object] = {"digit": 3, "speaker": "theo"}
    texts = [DigitCaptions().draw(labels, np.random.default_rng(s)) for s in (1, 1, 2, 3, 4, 5)]
    assert texts[0] == texts[1] and len(set(texts)) > 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"digit": 10, "speaker": "theo"}, "label digit must be one of"),
        ({"speaker": "theo"}, "label digit must be one of"),
        ({"digit": 1, "speaker": "nobody"}, "label speaker must be one of"),
    ],
)
def test_unknown_labels_are_refused(labels: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitCaptions().draw(labels, np.random.default_rng(0))


def letters() -> StaticEncoder:
    table = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return StaticEncoder(table, lambda text: list(text.encode()), "letters", 200)


def captioned() -> AudioTask:
    from dataclasses import replace

    from sciffusion.domains.audio import Clips

    config = settings()
    config = replace(
        config,
        model=replace(config.model, attributes=(), text=8),
        data=replace(config.data, captions="digits"),
    )
    clips = tones()
    labels = {"digit": np.arange(len(clips)) % 10, "speaker": np.array(["theo"] * len(clips))}
    clips = Clips(clips.clips, labels)
    return AudioTask(config, clips, clips, letters())


def test_training_reads_a_caption_for_every_clip_the_same_for_the_same_key() -> None:
    task, rows, device = captioned(), np.array([3, 12, 5]), torch.device("cpu")
    _, cond = task.batch(rows, 7, device)
    _, again = task.batch(rows, 7, device)
    _, other = task.batch(rows, 8, device)
    assert torch.equal(cond["text"], again["text"])
    assert cond["text"].shape != other["text"].shape or not torch.equal(cond["text"], other["text"])
    assert cond["text_mask"].shape == cond["text"].shape[:2]
    model = task.model()
    assert task.loss(model, task.batch(rows, 7, device), 7).mean.isfinite()
    assert task.validate(model, 0)["loss"] > 0


def test_a_model_of_texts_needs_captions_and_tokens_of_its_width() -> None:
    from dataclasses import replace

    config = settings()
    config = replace(config, model=replace(config.model, text=4))
    with pytest.raises(ValueError, match=r"data\.captions is None"):
        AudioTask(config, tones(), encoder=letters())
    config = replace(config, data=replace(config.data, captions="digits"))
    with pytest.raises(ValueError, match="have width 8"):
        AudioTask(config, tones(), encoder=letters())
