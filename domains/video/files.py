"""Film files: GIF through Pillow, MP4 and its kin through PyAV, arrays with labels, and folders of clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.errors import require
from sciffusion.io import atomic_write, read_npz

from .film import Film, Films

__all__ = ["CLIPS", "gif", "read", "read_film", "write", "write_film"]

CLIPS = (".gif", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")
_WRITTEN = (".gif", ".mp4", ".npz")
_SHOWN = 256  # pixels that the longer side of an MP4 has at least


def read(path: Path, grey: bool | None = None) -> Films:
    """Films of a clip, of a folder of clips, or of an ``.npz``.

    In a folder with folders, these name the classes (label ``label``); films come in the order of their names, with
    their file (label ``file``). ``grey`` makes films grey, or not; None: each is grey if all its pixels are.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no clips, one that cannot be read, or an ``.npz`` of something else.
    """
    if path.is_dir():
        return _folder(path, grey)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return _arrays(path)
    return Films([read_film(path, grey)], {"file": np.array([path.name])})


def read_film(path: Path, grey: bool | None = None) -> Film:
    """The film in one clip; for the arguments and errors see :func:`read`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    frames, rate = _read_gif(path) if path.suffix.lower() == ".gif" else _read_clip(path)
    plain = bool((frames == frames[..., :1]).all())
    if grey and not plain:  # luma of BT.601, as Pillow's L
        luma = frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
        frames = luma.round().astype(np.uint8)[..., None]
    elif plain and grey is not False:
        frames = frames[..., :1]
    return Film(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).clone(), rate)


Sound = tuple[NDArray[np.int16], int]
"""Samples (N, channels) of 16 bits, and how many there are a second."""


def write_film(
    film: Film, path: Path, scale: int | None = None, sound: Sound | None = None
) -> Path:
    """Write a film as :meth:`Film.save` says; an MP4 may have a sound."""
    kind = path.suffix.lower()
    if kind not in _WRITTEN:
        raise ValueError(f"{path}: end it with one of {', '.join(_WRITTEN)}")
    if scale is not None and scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    if kind == ".npz":
        return _write_arrays(Films([film]), path)
    if scale is None:
        scale = 1 if kind == ".gif" else max(1, -(-_SHOWN // max(film.size)))
    x = film.bytes().frames
    x = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    with atomic_write(path) as part:
        if kind == ".gif":
            part.write_bytes(gif(Film(x, film.rate)))
        else:
            _write_mp4(x, film.rate, part, sound)
    return path


def write(films: Films, path: Path, scale: int | None = None) -> Path:
    """Write films as :meth:`Films.save` says."""
    if not path.suffix:
        return _spread(films, path, scale)
    if path.suffix == ".npz":
        return _write_arrays(films, path)
    return write_film(films[0] if len(films) == 1 else films.grid(), path, scale)


def gif(film: Film) -> bytes:
    """A GIF that plays without end. It keeps grey films exactly, of colours 256 for each frame.

    Durations are kept in hundredths of a second. The format joins equal frames: a film without motion is one picture.
    """
    import io

    pillow = require("PIL.Image", extra="video")
    x = film.bytes().frames.permute(0, 2, 3, 1).numpy()
    pictures = [pillow.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in x]
    file = io.BytesIO()
    pictures[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=max(20, 10 * round(100 / film.rate)),
        loop=0,
        optimize=False,
    )
    return file.getvalue()


def _read_gif(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Frames (T, H, W, 3) at the rate of the shortest; those that last longer are repeated."""
    pillow = require("PIL.Image", extra="video")
    found: list[NDArray[np.uint8]] = []
    durations: list[float] = []
    try:
        with pillow.open(path) as opened:
            for i in range(getattr(opened, "n_frames", 1)):
                opened.seek(i)
                found.append(np.array(opened.convert("RGB")))
                durations.append(float(opened.info.get("duration", 0)) or 100.0)
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable GIF: {error}") from error
    shortest = min(durations)
    times = [max(1, round(d / shortest)) for d in durations]
    return np.repeat(np.stack(found), times, axis=0), 1000 / shortest


def _read_clip(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Frames (T, H, W, 3) and their mean rate."""
    av = require("av", extra="video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no film")
            stream = container.streams.video[0]
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
            rate = float(stream.average_rate or 8)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a readable clip: {error}") from error
    if not frames:
        raise ValueError(f"{path} holds no frames")
    return np.stack(frames), rate


def _write_mp4(x: Tensor, rate: float, path: Path, sound: Sound | None) -> None:
    """H.264 of bytes (T, C, H, W) that every player takes; odd sizes get one more row or column of their edge."""
    av = require("av", extra="video")
    h, w = x.shape[2:]
    x = torch.nn.functional.pad(x.float(), (0, w % 2, 0, h % 2), "replicate").to(torch.uint8)
    array = x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.height, stream.width = array.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12", "preset": "medium"}
        voice = None if sound is None else container.add_stream("aac", rate=sound[1])
        for picture in array:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        if sound is None or voice is None:
            return
        layout = "mono" if sound[0].shape[1] == 1 else "stereo"
        heard = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound[0].reshape(1, -1)), format="s16", layout=layout
        )
        heard.sample_rate = sound[1]
        for packet in (*voice.encode(heard), *voice.encode()):
            container.mux(packet)


def _write_arrays(films: Films, path: Path) -> Path:
    """All films end to end, with their shapes, rates and labels."""
    if len({film.frames.dtype for film in films}) > 1:
        raise ValueError("films are uint8 here and float32 there: take bytes() or floats() of all")
    arrays: dict[str, Any] = {f"label.{k}": np.asarray(v) for k, v in films.labels.items()}
    arrays["shapes"] = np.array([film.frames.shape for film in films], dtype=np.int64)
    arrays["rates"] = np.array([film.rate for film in films])
    arrays["frames"] = torch.cat([film.frames.flatten() for film in films]).numpy()
    with atomic_write(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def _arrays(path: Path) -> Films:
    found = read_npz(path)
    missing = {"frames", "shapes", "rates"} - set(found)
    if missing:
        raise ValueError(f"{path} has no array {sorted(missing)}; save films with Films.save")
    shapes = found["shapes"].tolist()
    ends = np.cumsum([0, *(int(np.prod(s)) for s in shapes)])
    if ends[-1] != len(found["frames"]):
        raise ValueError(f"{path}: its shapes do not fit its {len(found['frames'])} values")
    flat = torch.from_numpy(found["frames"])
    films = [
        Film(flat[a:b].view(*shape).clone(), rate)
        for a, b, shape, rate in zip(ends, ends[1:], shapes, found["rates"].tolist(), strict=False)
    ]
    labels = {k.removeprefix("label."): v for k, v in found.items() if k.startswith("label.")}
    return Films(films, labels)


def _folder(folder: Path, grey: bool | None) -> Films:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CLIPS and p.is_file())
    if not files:
        raise ValueError(f"{folder} holds no clips ({', '.join(CLIPS)})")
    inner = [p.relative_to(folder) for p in files]
    labels: dict[str, NDArray[Any]] = {"file": np.array([str(p) for p in inner])}
    if all(len(p.parts) > 1 for p in inner):
        labels["label"] = np.array([p.parts[0] for p in inner])
    elif any(len(p.parts) > 1 for p in inner):
        loose = next(p for p in inner if len(p.parts) == 1)
        raise ValueError(
            f"{folder} holds clips beside folders, such as {loose}: put each into the folder of its class, or all "
            "beside each other"
        )
    return Films([read_film(p, grey) for p in files], labels)


def _spread(films: Films, folder: Path, scale: int | None) -> Path:
    """Numbered GIFs in a folder, each class in its own."""
    width = len(str(len(films) - 1))
    classes = films.labels.get("label", films.labels.get("digit"))
    for i, film in enumerate(films):
        inner = folder
        if classes is not None:
            inner = folder / (str(classes[i]).replace("/", "-").strip() or "none")
        write_film(film, inner / f"{i:0{width}d}.gif", scale)
    return folder
