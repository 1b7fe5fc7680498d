"""Scenes on paper: frames above the spectrogram of their sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciffusion.errors import require
from sciffusion.figures import showing

from ..audio.mel import LogMel, MelConfig
from .scene import Scenes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure"]


def figure(scenes: Scenes) -> Figure:
    """Two rows for each scene on one axis of time: its frames side by side, and its log-mel spectrogram."""
    module = require("matplotlib.figure", extra="video")
    made = showing(module.Figure((9.0, 1.8 * len(scenes)), dpi=120, layout="constrained"))
    panels = made.subplots(2 * len(scenes), 1, squeeze=False)[:, 0]
    for i, scene in enumerate(scenes):
        above, below = panels[2 * i], panels[2 * i + 1]
        x = scene.film.bytes().frames.permute(2, 0, 3, 1).flatten(1, 2).numpy()
        seconds = scene.film.seconds
        kwargs = {"cmap": "gray", "vmin": 0, "vmax": 255} if scene.film.channels == 1 else {}
        above.imshow(np.squeeze(x), extent=(0, seconds, 0, 1), aspect="auto", **kwargs)
        clip = scene.sound.mono()
        mel = LogMel(MelConfig(rate=clip.rate)).encode(clip.samples)[0].clamp(min=-9)
        below.imshow(
            mel.numpy(), origin="lower", extent=(0, clip.seconds, 0, 1), aspect="auto", cmap="magma"
        )
        below.set_xlim(0, seconds)
        above.set_xticks([])
        for panel in (above, below):
            panel.set_yticks([])
        said = ", ".join(f"{k} {v[i]}" for k, v in scenes.labels.items() if str(v[i]))
        above.set_title(said, fontsize=7, loc="left", pad=2)
    panels[-1].set_xlabel("time (s)")
    return made
