"""What ships with a domain, by name: trained models, judges, and recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from sciffusion.errors import did_you_mean

__all__ = ["Shelf"]

_PLACES = {
    "model": "weights/*.safetensors",
    "judge": "weights/judges/*.safetensors",
    "recipe": "recipes/*.yaml",
}


@final
@dataclass(frozen=True)
class Shelf:
    """The files beside a domain's code: in ``weights``, ``weights/judges`` and ``recipes`` of the folder ``here``."""

    here: Path

    def all(self, kind: Literal["model", "judge", "recipe"]) -> dict[str, Path]:
        """All of a kind, by name, and their files."""
        return {path.stem: path for path in sorted(self.here.glob(_PLACES[kind]))}

    def find(self, kind: Literal["model", "judge", "recipe"], name: str | Path) -> Path:
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
