"""Notes of sampled instruments: their file, or rendered from a SoundFont. The card is ``datasets/notes/README.md``."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import require
from sciffusion.io import verify

from ..clip import Clip, Clips
from .card import Arrays, Card, read_arrays

__all__ = ["clips_of_notes", "read_notes", "render", "score"]

LEAD, GAP, HELD = 0.1, 2.0, 0.75
"""Seconds before the first note, between beginnings, and that a key is held."""

RENDERED = 48000
"""The rate at which the synthesiser plays, Hz."""

FADE = 0.02
"""Seconds at the end of a note in which it is faded out."""


def read_notes(path: Path) -> Arrays:
    """The arrays of ``gm_notes.npz``, or the same notes rendered from the SoundFont ``FluidR3_GM.sf2``.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or no program ``fluidsynth``.
        ValueError: a file that cannot be read, another SoundFont, or fluidsynth failed.
    """
    if path.suffix.lower() != ".sf2":
        return read_arrays(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    recipe = Card.of("notes").recipe
    verify(path, recipe["soundfont"]["sha256"], advice="It must be FluidR3_GM.sf2, version 3.1.")
    low, high = recipe["pitches"]
    keys = [(pitch, v) for v in recipe["velocities"] for pitch in range(low, high + 1)]
    instruments = recipe["instruments"]  # name: [program of General MIDI, family]
    families = sorted({family for _, family in instruments.values()})
    audio = np.concatenate([render(path, program, keys) for program, _ in instruments.values()])
    instrument = np.repeat(np.arange(len(instruments), dtype=np.uint8), len(keys))
    pitch = np.tile(np.array([key[0] for key in keys], dtype=np.uint8), len(instruments))
    family = [families.index(name) for _, name in instruments.values()]
    return {
        "audio": audio,
        "instrument": instrument,
        "family": np.array(family, dtype=np.uint8)[instrument],
        "pitch": pitch,
        "velocity": np.tile(np.array([key[1] for key in keys], dtype=np.uint8), len(instruments)),
        "test": (7 * instrument.astype(int) + pitch) % 10 == 0,
        "instrument_names": np.array(list(instruments)),
        "family_names": np.array(families),
        "sample_rate": np.array(recipe["rate"], dtype=np.int32),
    }


def render(soundfont: Path, program: int, keys: Sequence[tuple[int, int]]) -> NDArray[np.int16]:
    """Notes of one instrument, (len(keys), rate): one second each, a key held for 0.75 s, without reverb or chorus.

    Keys are pairs of a MIDI pitch and a velocity. The level is that of the synthesiser, so velocities stay apart.

    Raises ``FileNotFoundError`` if the program ``fluidsynth`` is missing, ``ValueError`` if it fails.
    """
    signal = require("scipy.signal", extra="audio")
    rate = Card.of("notes").recipe["rate"]
    if shutil.which("fluidsynth") is None:
        raise FileNotFoundError(
            "the program fluidsynth is not installed, which renders notes; apt-get install fluidsynth"
        )
    with tempfile.TemporaryDirectory() as folder:
        tune, sound = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        tune.write_bytes(score(program, keys))
        options = f"-ni -q -R 0 -C 0 -g 0.5 -r {RENDERED} -F".split()
        done = subprocess.run(
            ["fluidsynth", *options, sound, soundfont, tune],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not sound.is_file():
            raise ValueError(f"fluidsynth could not render {soundfont}: {done.stderr.strip()}")
        played = Clip.read(sound).mono().samples[0].double().numpy()
    fade = np.ones(rate)
    fade[rate - round(FADE * rate) :] = np.linspace(1, 0, round(FADE * rate))
    rows = []
    for i in range(len(keys)):
        start = int((LEAD + GAP * i) * RENDERED)
        note = signal.resample_poly(played[start : start + RENDERED], rate, RENDERED)
        rows.append(np.rint(note * fade * 2**15).astype(np.int16))
    return np.stack(rows)


def score(program: int, keys: Sequence[tuple[int, int]]) -> bytes:
    """A MIDI file of one instrument that plays these keys, each by itself; a second has 1,000 ticks."""
    events = [(0.0, bytes([0xC0, program]))]
    for i, (pitch, velocity) in enumerate(keys):
        begin = LEAD + GAP * i
        events += [(begin, bytes([0x90, pitch, velocity])), (begin + HELD, bytes([0x80, pitch, 0]))]
    events.append((LEAD + GAP * len(keys), b"\xff\x2f\x00"))
    track, now = b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big"), 0
    for seconds, event in events:
        tick = int(1000 * seconds)
        track, now = track + _variable(tick - now) + event, tick
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def clips_of_notes(arrays: Arrays) -> Clips:
    """Clips of the arrays, with the labels instrument, pitch (MIDI), velocity, family, and test."""
    rate = int(arrays["sample_rate"])
    labels = {k: arrays[k].astype(np.int64) for k in ("pitch", "velocity")}
    labels |= {k: arrays[f"{k}_names"][arrays[k]] for k in ("instrument", "family")}
    return Clips([Clip.of(x, rate) for x in arrays["audio"]], labels | {"test": arrays["test"]})


def _variable(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte, the first bit set in all but the last."""
    found = [number & 0x7F]
    while number := number >> 7:
        found.append(number & 0x7F | 0x80)
    return bytes(reversed(found))
