"""What ships with the domain, by name: trained models, judges, and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sciffusion.errors import did_you_mean

__all__ = ["find", "shipped"]

Kind = Literal["model", "judge", "recipe"]

_PLACES = {
    "model": "weights/*.safetensors",
    "judge": "judges/*.safetensors",
    "recipe": "recipes/*.yaml",
}
_HERE = Path(__file__).parent


def shipped(kind: Kind) -> dict[str, Path]:
    """All of a kind, by name, and their files."""
    return {path.stem: path for path in sorted(_HERE.glob(_PLACES[kind]))}


def find(kind: Kind, name: str | Path) -> Path:
    """The file that a name stands for, or that it is.

    Raises ``FileNotFoundError`` if it is neither; the message lists the names.
    """
    known = shipped(kind)
    path = known.get(str(name), Path(name))
    if not path.is_file():
        listed = ", ".join(known) or "none"
        hint = did_you_mean(str(name), known)
        raise FileNotFoundError(
            f"no {kind} {str(name)!r}: not a file, and none that ships ({listed}). {hint}".rstrip()
        )
    return path
