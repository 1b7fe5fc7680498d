"""Clips to hear and see: players for notebooks, and pictures of waveform and spectrogram."""

from __future__ import annotations

import base64
import io
import sys
from html import escape
from typing import TYPE_CHECKING

import torch

from sciffusion.errors import MissingExtra, require
from sciffusion.figures import showing

from .stft import Framing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .clip import Clip, Clips

__all__ = ["figure", "gallery", "grid", "html", "play"]

_SHOWN = 12
_RANGE = 70.0  # decibels below the loudest that are shown


def figure(clip: Clip) -> Figure:
    """The waveforms of all channels above the spectrogram of their mean, in decibels below its loudest point."""
    made = _empty(6.0, 3.6)
    above, below = made.subplots(2, sharex=True, gridspec_kw={"height_ratios": (1, 2)})
    times = torch.arange(clip.samples.shape[1]) / clip.rate
    above.plot(times.numpy(), clip.samples.T.numpy(), linewidth=0.6)
    above.set_ylabel("amplitude")
    _spectrogram(below, clip)
    below.set(xlabel="time (s)", ylabel="frequency (kHz)")
    return made


def html(clip: Clip) -> str:
    """A player and, where matplotlib is installed, the spectrogram."""
    try:
        made = _empty(4.0, 1.4)
    except MissingExtra:
        return _player(clip)
    panel = made.subplots()
    _spectrogram(panel, clip)
    panel.set(xlabel="time (s)", ylabel="kHz")
    file = io.BytesIO()
    made.savefig(file, format="png")
    picture = base64.b64encode(file.getvalue()).decode()
    return f'{_player(clip)}<br><img alt="spectrogram" src="data:image/png;base64,{picture}">'


def gallery(clips: Clips) -> str:
    """Players of the first clips, each under its labels."""
    parts = [f"<p>{escape(repr(clips))}</p>"]
    for i, clip in enumerate(clips[:_SHOWN]):
        parts.append(f"<div>{escape(_said(clips, i))}<br>{_player(clip)}</div>")
    if len(clips) > _SHOWN:
        parts.append(f"<p>and {len(clips) - _SHOWN} more</p>")
    return "".join(parts)


def grid(clips: Clips, columns: int | None = None) -> Figure:
    """The spectrograms of all clips, each under its labels, in this many columns (None: 5, or as many as there are).

    Their axes of time are the same. Raises ``ValueError`` if there is no clip, or for less than one column.
    """
    if not len(clips):
        raise ValueError("there are no clips to draw")
    across = min(5, len(clips)) if columns is None else columns
    if across < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    down = -(-len(clips) // across)
    made = _empty(2.2 * across + 0.4, 1.8 * down + 0.4)
    panels = made.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(clips) :]:
        panel.set_axis_off()
    for i, (panel, clip) in enumerate(zip(panels.flat, clips, strict=False)):
        _spectrogram(panel, clip)
        panel.set_title(_said(clips, i), fontsize="small")
    longest = max(clips, key=lambda clip: clip.seconds)
    panels.flat[0].set(xlim=(0, longest.seconds), ylim=(0, max(c.rate for c in clips) / 2000))
    made.supxlabel("time (s)", fontsize="small")
    made.supylabel("frequency (kHz)", fontsize="small")
    return made


def play(clip: Clip) -> None:
    """Show the player in the notebook that runs this. Raises ``RuntimeError`` where there is none."""
    shell = sys.modules.get("IPython")
    if shell is None or shell.get_ipython() is None:
        raise RuntimeError("play shows a player in a notebook; elsewhere use clip.save(path)")
    shell.display.display(shell.display.HTML(_player(clip)))


def _said(clips: Clips, i: int) -> str:
    """The labels of a clip."""
    return ", ".join(f"{name} {values[i]}" for name, values in clips.labels.items())


def _player(clip: Clip) -> str:
    """An audio element that holds the clip as a WAV file; one or two channels, scaled if they exceed 1."""
    import wave

    heard = clip if len(clip.samples) <= 2 else clip.mono()
    pcm = (heard.normalised(1.0) if heard.peak > 1 else heard).pcm()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(pcm.shape[1])
        out.setsampwidth(2)
        out.setframerate(clip.rate)
        out.writeframes(pcm.astype("<i2").tobytes())
    sound = base64.b64encode(file.getvalue()).decode()
    return f'<audio controls src="data:audio/wav;base64,{sound}"></audio>'


def _spectrogram(panel: Axes, clip: Clip) -> None:
    """Windows of about 32 ms, eight times as many as fit side by side."""
    hop = 2 * max(1, round(clip.rate * 0.002))  # even, as its windows are
    size = Framing(8 * hop, hop).analyse(clip.mono().samples)[0].abs()
    decibels = 20 * (size / size.max().clamp(min=1e-10)).clamp(min=1e-10).log10()
    panel.imshow(
        decibels.numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-_RANGE,
        vmax=0,
        extent=(0, size.shape[1] * hop / clip.rate, 0, clip.rate / 2000),
    )


def _empty(width: float, height: float) -> Figure:
    module = require("matplotlib.figure", extra="audio")
    return showing(module.Figure((width, height), dpi=100, layout="constrained"))
