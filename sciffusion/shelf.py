"""What ships with a domain, by name: trained models, judges, decoders, and recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from sciffusion.errors import did_you_mean

__all__ = ["Shelf"]

Kind = Literal["model", "judge", "decoder", "recipe"]

_PLACES = {
    "model": "weights/*.safetensors",
    "judge": "weights/judges/*.safetensors",
    "decoder": "weights/decoders/*.safetensors",
    "recipe": "recipes/*.yaml",
}


@final
@dataclass(frozen=True)
class Shelf:
    """The files beside a domain's code, in the folder ``here``.

    They lie in ``weights``, ``weights/judges``, ``weights/decoders`` (what makes data of a model's samples) and
    ``recipes``.
    """

    here: Path

    def all(self, kind: Kind) -> dict[str, Path]:
        """All of a kind by name, in the order of the names, and their files."""
        found = sorted(self.here.glob(_PLACES[kind]), key=lambda path: path.stem)
        return {path.stem: path for path in found}

    def find(self, kind: Kind, name: str | Path) -> Path:
        """The file that a name stands for, or that it is.

        Raises ``FileNotFoundError`` if it is neither; the message lists the names.
        """
        known = self.all(kind)
        path = known.get(str(name), Path(name))
        if not path.is_file():
            listed = ", ".join(known) or "none"
            hint = did_you_mean(str(name), known)
            raise FileNotFoundError(
                f"no {kind} {str(name)!r}: not a file, and none that ships ({listed}). {hint}".rstrip()
            )
        return path
