"""Clips by name: a file, a folder, or a part of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write

from .api import FORMATS
from .clip import Clip, Clips
from .datasets import SETS, parts, split
from .labels import read_labels
from .model import AudioModel
from .shelf import SHELF

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["demo", "judge", "read"]


def read(source: str | Path) -> Clips:
    """Clips of a file, of the files of a folder or of a pattern, or of a data set (``"fsdd:test"``).

    A name that many clips were saved under, ``seven.wav``, stands for all of them, ``seven-*.wav``. Their labels are
    those that a table beside them gives, as :meth:`Clips.save` writes it.

    Raises:
        FileNotFoundError: there is no such file, or no sound in the folder.
        ValueError: neither a file nor a data set, or a file that cannot be read.
    """
    path, (name, _, part) = Path(source), str(source).partition(":")
    if name in SETS and not path.exists():
        return split(f"{name}:{part}")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in FORMATS)
    elif path.is_file():
        files = [path]
    else:
        numbered = path if "*" in path.name else path.with_stem(f"{path.stem}-*")
        files = sorted(p for p in path.parent.glob(numbered.name) if p.suffix.lower() in FORMATS)
    if files:
        return Clips([Clip.read(file) for file in files], read_labels(files))
    if path.is_dir():
        raise FileNotFoundError(
            f"the folder {path} holds no sound that ends with {', '.join(FORMATS)}"
        )
    if path.suffix.lower() in FORMATS:
        raise FileNotFoundError(f"there is no file {path}")
    known = parts()
    raise ValueError(
        f"{str(source)!r} is neither a sound ({', '.join(FORMATS)}), a folder of sounds nor a part of a data set "
        f"({', '.join(known)}). {did_you_mean(str(source), known)}".rstrip()
    )


def judge(
    file: str, reference: str | None = None, *, seed: int = 0, n_pitch: int = 0, n_voices: int = 0
) -> Report:
    """Judge the clips of a file, a folder or a data set; for the arguments see :meth:`Clips.report`."""
    against = None if reference is None else read(reference)
    return read(file).report(against, seed=seed, n_pitch=n_pitch, n_voices=n_voices)


def demo(directory: str | Path, *, seed: int = 0, model: str = "fsdd") -> Report:
    """Speak the ten digits and judge them; ``directory`` receives the sounds, a picture and ``report.json``."""
    folder = Path(directory)
    trained = AudioModel.from_file(SHELF.find("model", model))
    speakers = trained.config.classes[trained.attributes.index("speaker")]
    asked = {"digit": range(10), "speaker": [speakers[i % len(speakers)] for i in range(10)]}
    clips = trained.sample(10, asked, seed=seed)
    clips.save(folder / "digit.wav")
    report = clips.report(seed=seed)
    report.save(folder / "report.json")
    with atomic_write(folder / "digits.png") as part:
        clips.plot().savefig(part, dpi=150)
    return report
