"""One file for a trained model: what kind it is, its settings, and its tensors by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from sciffusion.config import parse, to_dict
from sciffusion.training.export import export, load_weights

__all__ = ["ModelFile", "write_model"]

T = TypeVar("T")


def write_model(
    path: str | Path,
    kind: str,
    meta: Mapping[str, object],
    parts: Mapping[str, Mapping[str, Tensor]],
    exact: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write one safetensors file, whole or not at all.

    Args:
        path: of the file.
        kind: what it is, so that nothing else is taken for it.
        meta: settings by name: dataclasses, or anything that JSON holds.
        parts: weights by part, rounded to float16; the part ``""`` has no name of its own.
        exact: tensors by part that stay as they are: statistics, coordinates.
    """
    told = {"kind": kind} | {name: to_dict(value) for name, value in meta.items()}
    export(_named(parts), path, told, torch.float16, exact=_named(exact or {}))
    return Path(path)


@final
@dataclass(frozen=True, eq=False)
class ModelFile:
    """What :func:`write_model` wrote: ``meta`` by name, ``tensors`` by part and name, in float32 where rounded."""

    path: Path
    meta: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: str | Path, kind: str, what: str) -> ModelFile:
        """Read a file of this kind; ``what`` names it to the user, with its article: "a model of films".

        Raises ``ValueError`` for a file of another kind.
        """
        tensors, meta = load_weights(path)
        if meta.get("kind") != kind:
            raise ValueError(f"{path} holds {meta.get('kind', 'something else')!r}, not {what}")
        return cls(Path(path), meta, tensors)

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of a part by their own names."""
        head = f"{name}."
        return {k.removeprefix(head): v for k, v in self.tensors.items() if k.startswith(head)}

    def config(self, cls: type[T], name: str) -> T:
        """Settings as the dataclass that they were. Raises ``ConfigError`` if they do not fit it."""
        return parse(cls, self.meta[name], source=str(self.path))


def _named(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{part}.{k}" if part else k: v
        for part, tensors in parts.items()
        for k, v in tensors.items()
    }
