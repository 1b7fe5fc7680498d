"""What is asked of clips in words or by example, as the network's condition: texts, and the voices of other clips.

A text, a clip or a file serves for all samples; a list has one for each, None where nothing is told. Tensors are taken
as they are, see :mod:`.adapter`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sciffusion.text import wordllama

from .clip import Clip
from .reference import ReferenceEncoder

__all__ = ["heard", "read"]


def read(text: object, mask: object, n: int, width: int) -> dict[str, Tensor]:
    """The entries ``text`` (n, L, width) and ``text_mask`` (n, L) of texts, or of tokens and their mask.

    Texts are read through the vectors of :func:`~sciffusion.text.wordllama`, as in training.

    Raises ``ValueError`` for texts or tensors of another number or width, or none at all; ``MissingExtra`` without the
    package of the vectors.
    """
    if isinstance(text, Tensor) or mask is not None:
        tokens = _rows("text", text, n, width)
        if mask is None:
            return {"text": tokens, "text_mask": torch.ones(tokens.shape[:2], dtype=torch.bool)}
        if not isinstance(mask, Tensor) or mask.shape not in (
            tokens.shape[:2],
            (1, tokens.shape[1]),
        ):
            raise ValueError("text_mask must be a tensor with an entry for each token of text")
        return {"text": tokens, "text_mask": mask.expand(n, -1)}
    texts = _each("text", text, n, str)
    told = [i for i, t in enumerate(texts) if t is not None]
    if not told:
        return {"text": torch.zeros(n, 1, width), "text_mask": torch.zeros(n, 1).bool()}
    found = wordllama().condition([texts[i] for i in told])  # type: ignore[misc]
    if found["text"].shape[-1] != width:
        raise ValueError(
            f"this model takes tokens of width {width}, not texts: give text and text_mask tensors"
        )
    rows = {k: v.new_zeros(n, *v.shape[1:]) for k, v in found.items()}
    for k, v in found.items():
        rows[k][told] = v
    return rows


def heard(reference: object, n: int, width: int, listener: ReferenceEncoder | None) -> Tensor:
    """The entry ``reference`` (n, width) of clips, of the files that hold them, or of vectors.

    Raises ``ValueError`` for another number of clips than samples, a silent clip, or vectors of another width.
    """
    if reference is None:
        return torch.zeros(n, width)
    if isinstance(reference, Tensor):
        vectors = reference[None] if reference.ndim == 1 else reference
        return _rows("reference", vectors, n, width)
    if listener is None:
        raise ValueError(
            f"reference must be a tensor (n, {width}): the model has no listener that hears clips"
        )
    values = _each("reference", reference, n, Clip | str | Path)
    different = list(dict.fromkeys(v for v in values if v is not None))
    found = torch.zeros(n, width)
    if different:
        clips = [v if isinstance(v, Clip) else Clip.read(v) for v in different]  # type: ignore[arg-type]
        vectors = listener(clips).to(found)
        for i, value in enumerate(values):
            if value is not None:
                found[i] = vectors[different.index(value)]
    return found


def _each(name: str, value: object, n: int, kind: type | object) -> list[object]:
    """One value for each of n samples."""
    if value is None or isinstance(value, kind):  # type: ignore[arg-type]
        return [value] * n
    rows = list(value) if isinstance(value, Iterable) else [value]
    for row in rows:
        if row is not None and not isinstance(row, kind):  # type: ignore[arg-type]
            what = "a text" if name == "text" else "a clip, a file of one"
            raise ValueError(f"{name} must be {what}, None or a tensor, got {type(row).__name__}")
    if len(rows) != n:
        raise ValueError(f"{name} has {len(rows)} values for {n} samples")
    return rows


def _rows(name: str, value: object, n: int, width: int) -> Tensor:
    """A tensor with a row for each of n samples, or one for all."""
    if not isinstance(value, Tensor) or value.shape[0] not in (1, n):
        raise ValueError(f"{name} must be a tensor with a row for each of {n} clips, or one")
    if value.shape[-1] != width:
        raise ValueError(f"{name} must have {width} features, got {tuple(value.shape)}")
    return value.expand(n, *value.shape[1:])
