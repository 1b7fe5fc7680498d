"""What a sound is like in words: phrasings of its labels, for models that are asked by text.

Every adjective is a measured one: ``benchmarks/audio_voices.py`` prints the figures below, and a class is called low,
slow or bright if it lies in the lower or upper third of its kind. Some phrasings and words are held out: they never
occur in training captions, and tell whether a model reads texts that it has not seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

__all__ = ["Captions", "DigitCaptions", "NoteCaptions", "captions"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SPEAKERS: Mapping[str, Mapping[str, float]] = {
    "george": {"pitch": 157, "seconds": 0.422, "brightness": 1513},
    "jackson": {"pitch": 111, "seconds": 0.492, "brightness": 909},
    "lucas": {"pitch": 95, "seconds": 0.542, "brightness": 966},
    "nicolas": {"pitch": 121, "seconds": 0.349, "brightness": 991},
    "theo": {"pitch": 139, "seconds": 0.379, "brightness": 1056},
    "yweweler": {"pitch": 122, "seconds": 0.347, "brightness": 1070},
}
"""Medians over the training clips of each speaker: Hz, seconds, Hz. All six are men."""

INSTRUMENTS: Mapping[str, float] = {
    "acoustic_grand_piano": 1944,
    "alto_sax": 1518,
    "cello": 2217,
    "choir_aahs": 1490,
    "clarinet": 1915,
    "clean_electric_guitar": 2194,
    "electric_piano_1": 631,
    "flute": 1296,
    "french_horn": 951,
    "harmonica": 2506,
    "harp": 688,
    "marimba": 1177,
    "nylon_guitar": 1336,
    "oboe": 1537,
    "saw_lead": 2480,
    "square_lead": 1706,
    "trombone": 1173,
    "trumpet": 1863,
    "vibraphone": 1358,
    "violin": 2194,
}
"""The median spectral centroid of each instrument's training notes, Hz."""

NAMES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")


@final
@dataclass(frozen=True)
class Words:
    """A quality's words for its lower and its upper third: those to learn from, and those held out."""

    low: tuple[str, ...]
    high: tuple[str, ...]
    low_held: tuple[str, ...]
    high_held: tuple[str, ...]

    def all(self, side: int, held_out: bool) -> tuple[str, ...]:
        """The words for -1 (lower third) or 1 (upper third); none for 0."""
        if held_out:
            return {-1: self.low_held, 0: (), 1: self.high_held}[side]
        return {-1: self.low, 0: (), 1: self.high}[side]


PITCH = Words(
    ("low", "deep", "bass", "low-toned"),
    ("high", "high-toned"),
    ("low-pitched",),
    ("high-pitched",),
)
PACE = Words(
    ("quick", "fast", "brisk", "swift", "hurried", "speedy"),
    ("slow", "leisurely", "calm", "long"),
    ("rapid",),
    ("unhurried",),
)
TONE = Words(
    ("dark", "dull", "dim", "muted", "dampened"),
    ("bright", "clear", "sharp", "shining"),
    ("muffled",),
    ("brilliant",),
)
LOUD = Words(("soft", "quiet"), ("loud", "strong"), ("gentle",), ("forceful",))


def side(value: float, values: Sequence[float]) -> int:
    """-1, 0 or 1: whether a value lies in the lower, middle or upper third of all."""
    ranks = sorted(values)
    third = len(ranks) // 3
    return -1 if value <= ranks[third - 1] else 1 if value >= ranks[-third] else 0


class Captions(ABC):
    """Texts that are true of a sound's labels."""

    @abstractmethod
    def draw(
        self, labels: Mapping[str, object], rng: np.random.Generator, *, held_out: bool = False
    ) -> str:
        """One text, with a phrasing and words drawn evenly from those to learn from, or from those held out.

        Raises ``ValueError`` for a label that is missing or unknown.
        """

    @abstractmethod
    def phrasings(self, *, held_out: bool = False) -> tuple[str, ...]:
        """The patterns that texts are made of."""


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _need(labels: Mapping[str, object], name: str, known: Sequence[str]) -> str:
    value = str(labels.get(name))
    if value not in known:
        raise ValueError(
            f"label {name} must be one of {', '.join(known)}, got {labels.get(name)!r}"
        )
    return value


def qualities(speaker: str) -> dict[str, int]:
    """The thirds in which a speaker's pitch, pace (1: slow) and tone lie, where not in the middle."""
    found = {}
    for name, key in (("pitch", "pitch"), ("pace", "seconds"), ("tone", "brightness")):
        lies = side(SPEAKERS[speaker][key], [row[key] for row in SPEAKERS.values()])
        if lies:
            found[name] = lies
    return found


@final
class DigitCaptions(Captions):
    """Spoken digits. A text names the digit, and the speaker by qualities, by name, or not at all."""

    PLAIN = (
        "{d}",
        "a voice says {d}",
        "someone says {d}",
        "the digit {d}",
        "a man says the number {d}",
        "the spoken word {d}",
        "say {d}",
        "{d} is said aloud",
        "a speaking voice, {d}",
        "somebody reads the number {d} out",
        "the word {d} from a man's mouth",
        "listen, a person speaks: {d}",
    )
    DESCRIBED = (
        "a {q} voice says {d}",
        "a {q} male voice says {d}",
        "{d}, spoken by a {q} voice",
        "the digit {d} in a {q} voice",
        "a man with a {q} voice says {d}",
        "say {d}, {q}",
        "{q}: {d}",
        "the word {d}, {q}, read by a man",
        "someone {q} speaks the number {d}",
        "{d} in {q} speech",
    )
    NAMED = (
        "{s} says {d}",
        "{d}, spoken by {s}",
        "the voice of {s} saying {d}",
        "say {d} as {s} does",
        "{s}: {d}",
        "the number {d}, read by {s}",
        "{d} from the mouth of {s}",
    )
    PLAIN_HELD = ("please pronounce {d}", "we hear somebody utter {d}", "a recording of {d}")
    DESCRIBED_HELD = ("please pronounce {d} with a {q} voice", "{q} speaker uttering {d}")
    NAMED_HELD = ("please pronounce {d} like {s}", "we hear {s} utter {d}")
    WORDS: Mapping[str, Words] = {"pitch": PITCH, "pace": PACE, "tone": TONE}

    def phrasings(self, *, held_out: bool = False) -> tuple[str, ...]:
        """The patterns: d stands for the digit, q for qualities, s for the speaker's name."""
        if held_out:
            return self.PLAIN_HELD + self.DESCRIBED_HELD + self.NAMED_HELD
        return self.PLAIN + self.DESCRIBED + self.NAMED

    def draw(
        self, labels: Mapping[str, object], rng: np.random.Generator, *, held_out: bool = False
    ) -> str:
        """A text of the labels digit and speaker; without a speaker (None) it says the digit alone.

        Held-out texts have phrasings that are held out, half of them with words of qualities that are, too.
        """
        digit = DIGITS[int(_need(labels, "digit", tuple(map(str, range(10)))))]
        if labels.get("speaker") is None:
            return _pick(self.PLAIN_HELD if held_out else self.PLAIN, rng).format(d=digit)
        speaker = _need(labels, "speaker", tuple(SPEAKERS))
        known = qualities(speaker)
        kinds: list[Literal["plain", "described", "named"]] = ["plain", "described", "named"]
        kind = kinds[int(rng.choice(3, p=(0.2, 0.4, 0.4)))]
        if kind == "described" and not known:  # average in every way
            kind = "named"
        if kind == "plain":
            return _pick(self.PLAIN_HELD if held_out else self.PLAIN, rng).format(d=digit)
        if kind == "named":
            pattern = _pick(self.NAMED_HELD if held_out else self.NAMED, rng)
            return pattern.format(d=digit, s=speaker)
        chosen = rng.permutation(sorted(known))[: int(rng.integers(1, len(known) + 1))]
        new_words = held_out and bool(rng.integers(2))
        words = [_pick(self.WORDS[k].all(known[k], new_words), rng) for k in chosen.tolist()]
        pattern = _pick(self.DESCRIBED_HELD if held_out else self.DESCRIBED, rng)
        return pattern.format(d=digit, q=" ".join(words))


@final
class NoteCaptions(Captions):
    """Single notes: instrument, pitch (MIDI number), velocity, and the instrument's brightness where it stands out."""

    LEARNED = (
        "a {q} {i}, {p}",
        "the note {p} on a {q} {i}",
        "{i} playing {p}, {q}",
        "{p}, {q}, played by a {i}",
    )
    HELD = ("we hear {p} from a {q} {i}", "{q} {i} sounding {p}")

    def phrasings(self, *, held_out: bool = False) -> tuple[str, ...]:
        """The patterns: i stands for the instrument, p for the pitch's name, q for qualities."""
        return self.HELD if held_out else self.LEARNED

    def draw(
        self, labels: Mapping[str, object], rng: np.random.Generator, *, held_out: bool = False
    ) -> str:
        """A text of the labels instrument, pitch and velocity; soft up to 85, loud above."""
        name = _need(labels, "instrument", tuple(INSTRUMENTS))
        number = int(_need(labels, "pitch", tuple(map(str, range(128)))))
        velocity = int(_need(labels, "velocity", tuple(map(str, range(1, 128)))))
        new_words = held_out and bool(rng.integers(2))
        words = [_pick(LOUD.all(1 if velocity > 85 else -1, new_words), rng)]
        bright = side(INSTRUMENTS[name], list(INSTRUMENTS.values()))
        if bright and rng.integers(2):
            words.insert(0, _pick(TONE.all(bright, new_words), rng))
        pitch = f"{NAMES[number % 12]} {number // 12 - 1}"  # middle C, 60, is C 4
        spoken = name.removesuffix("_1").replace("_", " ")
        pattern = _pick(self.phrasings(held_out=held_out), rng)
        return pattern.format(i=spoken, p=pitch, q=" ".join(words))


def captions(kind: Literal["digits", "notes"]) -> Captions:
    """The captions of a kind of data, as configuration files name it."""
    return {"digits": DigitCaptions, "notes": NoteCaptions}[kind]()
